//! Makes of what operators and existing manifests pass what the parser knows.

/// Flags of other managers that are accepted and do nothing.
const IGNORED: [&str; 7] = [
    "metrics-bind-addr",
    "metrics-bind-address",
    "metrics-addr",
    "profiler-address",
    "sync-period",
    "webhook-host",
    "contention-profiling",
];
/// That one of them which takes no value after a blank.
const IGNORED_BOOLEAN: &str = "contention-profiling";

/// Arguments in the parser's spelling.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Spelled {
    pub(super) args: Vec<String>,
    pub(super) warnings: Vec<String>,
}

/// 1. `${NAME:=text}` becomes what `env` has under that name, else `text`.
/// 2. Go's long flags with one dash get their second.
/// 3. Flags of other managers go, with a warning.
/// 4. A call that begins with a flag, or with nothing, means `run`.
pub(super) fn normalize(args: impl IntoIterator<Item = String>, env: impl Fn(&str) -> Option<String>) -> Spelled {
    let mut spelled = Spelled { args: Vec::new(), warnings: Vec::new() };
    let mut args = args.into_iter().map(|arg| two_dashes(substitute(&arg, &env))).peekable();
    while let Some(arg) = args.next() {
        let Some(name) = ignored(&arg) else {
            spelled.args.push(arg);
            continue;
        };
        spelled.warnings.push(format!("--{name} is ignored: this manager has no such setting"));
        if !arg.contains('=') && name != IGNORED_BOOLEAN {
            args.next_if(|value| !value.starts_with('-'));
        }
    }
    let says_what_to_do = spelled
        .args
        .first()
        .is_some_and(|first| !first.starts_with('-') || ["-h", "--help", "-V", "--version"].contains(&first.as_str()));
    if !says_what_to_do {
        spelled.args.insert(0, "run".to_owned());
    }
    spelled
}

fn substitute(arg: &str, env: impl Fn(&str) -> Option<String>) -> String {
    let mut done = String::new();
    let mut rest = arg;
    while let Some((before, name, text, after)) = placeholder(rest) {
        done.push_str(before);
        // As a shell does: a variable that is empty counts as not set.
        match env(name).filter(|value| !value.is_empty()) {
            Some(value) => done.push_str(&value),
            None => done.push_str(text),
        }
        rest = after;
    }
    done + rest
}

fn placeholder(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, from) = text.split_once("${")?;
    let (inner, after) = from.split_once('}')?;
    let (name, default) = inner.split_once(":=")?;
    Some((before, name, default, after))
}

fn two_dashes(arg: String) -> String {
    let Some(name) = arg.strip_prefix('-') else {
        return arg;
    };
    let is_long = name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic());
    let is_verbosity = name.strip_prefix('v').is_some_and(|level| !level.starts_with(|next: char| next.is_ascii_alphabetic()));
    if is_long && !is_verbosity { format!("-{arg}") } else { arg }
}

fn ignored(arg: &str) -> Option<&str> {
    let name = arg.strip_prefix("--")?;
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    let foreign_limit = name.ends_with("-concurrency") && !name.starts_with("external-ip-");
    (IGNORED.contains(&name) || foreign_limit).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(args: &[&str]) -> Spelled {
        let env = |name: &str| match name {
            "SET" => Some("from-env".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        normalize(args.iter().map(|arg| (*arg).to_owned()), env)
    }

    #[test]
    fn placeholders_become_the_variable_or_their_text() {
        for (arg, expected) in [
            ("--namespace=${SET:=a}", "--namespace=from-env"),
            ("--namespace=${UNSET:=a}", "--namespace=a"),
            ("--namespace=${EMPTY:=a}", "--namespace=a"),
            ("--namespace=${UNSET:=}", "--namespace="),
            ("--feature-gates=A=${UNSET:=false},B=${SET:=true}", "--feature-gates=A=false,B=from-env"),
            ("--namespace=${UNSET}", "--namespace=${UNSET}"),
            ("--namespace=$UNSET", "--namespace=$UNSET"),
        ] {
            assert_eq!(spelled(&[arg]).args, ["run", expected], "{arg}");
        }
    }

    #[test]
    fn long_flags_get_two_dashes() {
        for (arg, expected) in [
            ("-leader-elect", "--leader-elect"),
            ("-namespace=a", "--namespace=a"),
            ("--namespace=a", "--namespace=a"),
            ("-v", "-v"),
            ("-v=4", "-v=4"),
            ("-v4", "-v4"),
            ("-version", "--version"),
        ] {
            assert_eq!(spelled(&["run", arg]).args, ["run", expected], "{arg}");
        }
    }

    #[test]
    fn ignored_flags_go_with_their_values() {
        let args = ["--metrics-addr", ":8080", "--contention-profiling", "stays", "--x-concurrency=3", "--sync-period", "--v=3"];
        let spelled = spelled(&args);
        assert_eq!(spelled.args, ["stays", "--v=3"]);
        assert_eq!(spelled.warnings.len(), 4);
        assert!(spelled.warnings[0].starts_with("--metrics-addr is ignored"));
    }

    #[test]
    fn a_call_without_a_subcommand_means_run() {
        assert_eq!(spelled(&[]).args, ["run"]);
        assert_eq!(spelled(&["--leader-elect"]).args, ["run", "--leader-elect"]);
        assert_eq!(spelled(&["manifests"]).args, ["manifests"]);
        assert_eq!(spelled(&["--help"]).args, ["--help"]);
    }
}
