//! The command line of the manager: read here once, with Kubernetes' spellings, into plain values.

mod externalip;
mod spelling;
mod tls;

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use controllers::config::{Config, Diagnostics, ExternalIpSources, LeaderElection, LogLevel, ReleaseOrphans, TlsSettings};
use controllers::kit::duration;
use controllers::kit::listen::ListenAddress;
use controllers::kit::shutdown::Shutdown;
use externalip::ExternalIpFlags;

/// What is to be done.
#[derive(Debug)]
pub enum Invocation {
    /// Run the manager.
    Run(Box<Run>),
    /// Print what it needs in a cluster, or write it below a folder.
    Manifests {
        /// The folder, if it is to be written.
        dir: Option<PathBuf>,
        /// The image that the Deployment runs.
        image: String,
    },
}

/// The flags of `manager run`, checked.
#[derive(Debug)]
pub struct Run {
    /// As `--v` has it.
    pub verbosity: u8,
    /// As `--log-format` has it.
    pub log_format: LogFormat,
    /// What is to be logged once there is a log.
    pub warnings: Vec<String>,
    /// Where and how webhooks are served; `None` means not at all.
    pub webhooks: Option<WebhookSettings>,
    flags: RunFlags,
    tls: TlsSettings,
    lease: Option<LeaderElection>,
    external_ip_sources: Option<ExternalIpSources>,
}

/// Where and how webhooks are served.
#[derive(Clone, Debug)]
pub struct WebhookSettings {
    /// The address to listen on.
    pub address: ListenAddress,
    /// Where the certificate comes from.
    pub certificate: CertificateSettings,
    /// What callers may negotiate.
    pub tls: TlsSettings,
}

/// Where the webhooks' certificate comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CertificateSettings {
    /// Somebody else writes it.
    Files {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of its key.
        key: PathBuf,
    },
    /// The manager makes it.
    SelfSigned,
}

impl Run {
    /// The settings, with what only a running process has.
    pub fn config(self, log_level: LogLevel, shutdown: Shutdown) -> Config {
        let Self { flags, tls, lease, external_ip_sources, .. } = self;
        let set = |text: String| (!text.is_empty()).then_some(text);
        let insecure = flags.insecure_diagnostics;
        Config {
            version: env!("CARGO_PKG_VERSION"),
            kubeconfig: set(flags.kubeconfig).map(PathBuf::from),
            kube_api_qps: flags.kube_api_qps,
            kube_api_burst: flags.kube_api_burst,
            namespace: set(flags.namespace),
            watch_filter: set(flags.watch_filter),
            leader_election: lease,
            health: flags.health_probe_bind_address.0,
            diagnostics: flags.diagnostics_address.0.map(|address| Diagnostics { address, insecure, tls }),
            max_inflight_writes: flags.max_inflight_writes,
            honor_foreign_finalizers: flags.honor_foreign_finalizers,
            release_orphans: flags.release_orphans.into(),
            allocation_events: flags.allocation_events,
            external_ip_sources,
            log_level,
            shutdown,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Reads the arguments after the program's name. The error says what to do and knows its exit code.
pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Invocation, clap::Error> {
    let env = |name: &str| std::env::var(name).ok();
    let spelled = spelling::normalize(args, env);
    let name = std::iter::once("manager".to_owned());
    let cli = Cli::try_parse_from(name.chain(spelled.args)).map_err(with_nearest_flag)?;
    match cli.command {
        Verb::Manifests { dir, image } => Ok(Invocation::Manifests { dir, image }),
        Verb::Run(flags) => {
            let run = check(*flags, env, spelled.warnings);
            run.map(|run| Invocation::Run(Box::new(run)))
                .map_err(|message| Cli::command().error(ErrorKind::ValueValidation, message))
        }
    }
}

#[derive(Debug, Parser)]
#[command(name = "manager", version, about = "The address layer of Kubernetes: a Cluster API IPAM provider")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the manager; what a call without a subcommand does.
    Run(Box<RunFlags>),
    /// Print the manifests that the manager needs, or write them as files below DIR.
    Manifests {
        /// The folder to write to.
        dir: Option<PathBuf>,
        /// The image that the Deployment runs; to be replaced by clusterctl, its name has to begin with a host.
        #[arg(long, default_value = concat!("localhost/ipam-in-cluster:v", env!("CARGO_PKG_VERSION")))]
        image: String,
    },
}

#[derive(Args, Debug)]
#[command(args_override_self = true)]
#[allow(clippy::struct_excessive_bools)] // one for each flag
struct RunFlags {
    /// Let only one manager at a time be active.
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    leader_elect: bool,
    /// Namespace of the lease [default: the pod's].
    #[arg(long, default_value = "", hide_default_value = true)]
    leader_election_namespace: String,
    /// Name of the lease; `namespace/name` is accepted.
    #[arg(long, default_value = "7bb7acb4.ipam.cluster.x-k8s.io")]
    leader_election_id: String,
    /// How long a lease holds that is not renewed.
    #[arg(long, value_parser = duration::parse, default_value = "15s")]
    leader_elect_lease_duration: Duration,
    /// How long the active manager tries to renew before it gives up.
    #[arg(long, value_parser = duration::parse, default_value = "10s")]
    leader_elect_renew_deadline: Duration,
    /// Pause between two tries to take or renew the lease.
    #[arg(long, value_parser = duration::parse, default_value = "2s")]
    leader_elect_retry_period: Duration,
    /// Where /healthz and /readyz are served; 0 turns them off.
    #[arg(long, alias = "health-addr", value_parser = bind, default_value = ":8081")]
    health_probe_bind_address: Bind,
    /// Serve claims, pools and Clusters of this namespace only [default: all].
    #[arg(long, default_value = "", hide_default_value = true)]
    namespace: String,
    /// Serve only objects whose label cluster.x-k8s.io/watch-filter has this value.
    #[arg(long, default_value = "", hide_default_value = true)]
    watch_filter: String,
    /// Port of the webhooks, or host:port to listen on one address only; 0 turns them off.
    #[arg(long, value_parser = port, default_value = "9443")]
    webhook_port: Bind,
    /// Folder of the webhooks' certificate [default: k8s-webhook-server/serving-certs in the folder for temporary files].
    #[arg(long, default_value = "", hide_default_value = true)]
    webhook_cert_dir: String,
    /// Name of the certificate file [default: tls.crt].
    #[arg(long, default_value = "", hide_default_value = true)]
    webhook_cert_name: String,
    /// Name of the key file [default: tls.key].
    #[arg(long, default_value = "", hide_default_value = true)]
    webhook_key_name: String,
    /// Make and renew the webhooks' certificate, in the Secret capi-ipam-in-cluster-webhook-service-cert of the manager's
    /// namespace, and tell the API server of its authority.
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    webhook_self_signed: bool,
    /// Lowest TLS version offered, by Go's name: `VersionTLS12` or `VersionTLS13`.
    #[arg(long, default_value = "VersionTLS12")]
    tls_min_version: String,
    /// TLS 1.2 cipher suites offered, by Go's names, comma-separated [default: all].
    #[arg(long, default_value = "", hide_default_value = true)]
    tls_cipher_suites: String,
    /// Where metrics and debugging are served; 0 turns them off.
    #[arg(long, value_parser = bind, default_value = ":8443")]
    diagnostics_address: Bind,
    /// Serve /metrics only, over plain HTTP and without authentication.
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    insecure_diagnostics: bool,
    /// Kubeconfig file [default: the pod's service account].
    #[arg(long, default_value = "", hide_default_value = true)]
    kubeconfig: String,
    /// Capabilities to turn on, as Name=true, comma-separated.
    #[arg(long, default_value = "", hide_default_value = true)]
    feature_gates: String,
    /// Most writes that may be under way at once.
    #[arg(long, alias = "max-concurrent-reconciles", value_parser = at_least_one, default_value = "128")]
    max_inflight_writes: usize,
    /// Requests per second this process allows itself; 0 means no limit.
    #[arg(long, value_parser = not_negative, default_value = "0")]
    kube_api_qps: f64,
    /// How many requests may be made at once above that.
    #[arg(long, default_value_t = 0)]
    kube_api_burst: u32,
    /// Keep a deleting claim's address until the finalizers of others are gone.
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    honor_foreign_finalizers: bool,
    /// Which deleting addresses without a claim are let go.
    #[arg(long, value_enum, default_value = "namespaced")]
    release_orphans: Orphans,
    /// Write an event for each allocated and each released address.
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    allocation_events: bool,
    #[command(flatten)]
    external_ip: ExternalIpFlags,
    /// Log level: 0 warnings, 2 changes, 4 decisions, 6 everything.
    #[arg(long = "v", short = 'v', default_value_t = 2)]
    verbosity: u8,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Orphans {
    Namespaced,
    All,
    None,
}

impl From<Orphans> for ReleaseOrphans {
    fn from(orphans: Orphans) -> Self {
        match orphans {
            Orphans::Namespaced => Self::Namespaced,
            Orphans::All => Self::All,
            Orphans::None => Self::Nothing,
        }
    }
}

/// An address to listen on, if any.
#[derive(Clone, Debug)]
struct Bind(Option<ListenAddress>);

fn bind(text: &str) -> Result<Bind, String> {
    if text.is_empty() || text == "0" {
        return Ok(Bind(None));
    }
    text.parse().map(|address| Bind(Some(address))).map_err(|error: controllers::kit::listen::NotAnAddress| error.to_string())
}

/// A port on every interface, or one address; 0 is none.
fn port(text: &str) -> Result<Bind, String> {
    match text.parse::<u16>() {
        Ok(0) => Ok(Bind(None)),
        Ok(port) => bind(&format!(":{port}")),
        Err(_) => bind(text),
    }
}

fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write true or false".to_owned()),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number >= 1).ok_or_else(|| "write a number of at least 1".to_owned())
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "write a number that is not negative".to_owned())
}

/// What one flag alone cannot tell.
fn check(flags: RunFlags, env: impl Fn(&str) -> Option<String>, mut warnings: Vec<String>) -> Result<Run, String> {
    let gates = gates(&flags.feature_gates)?;
    let external_ip_sources =
        gates.external_ip_sources.then(|| externalip::settings(&flags.external_ip, env, &mut warnings)).transpose()?;
    let tls = tls::settings(&flags.tls_min_version, &flags.tls_cipher_suites, &mut warnings)?;
    let lease = if flags.leader_elect { Some(lease(&flags)?) } else { None };
    Ok(Run {
        verbosity: flags.verbosity,
        log_format: flags.log_format,
        warnings,
        webhooks: webhooks(&flags, &tls),
        tls,
        lease,
        external_ip_sources,
        flags,
    })
}

fn webhooks(flags: &RunFlags, tls: &TlsSettings) -> Option<WebhookSettings> {
    let or = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    let dir = if flags.webhook_cert_dir.is_empty() {
        std::env::temp_dir().join("k8s-webhook-server/serving-certs")
    } else {
        PathBuf::from(&flags.webhook_cert_dir)
    };
    let certificate = if flags.webhook_self_signed {
        CertificateSettings::SelfSigned
    } else {
        CertificateSettings::Files {
            certificate: dir.join(or(&flags.webhook_cert_name, "tls.crt")),
            key: dir.join(or(&flags.webhook_key_name, "tls.key")),
        }
    };
    Some(WebhookSettings { address: flags.webhook_port.0.clone()?, certificate, tls: tls.clone() })
}

/// Which capabilities are turned on.
#[derive(Debug, Default, PartialEq, Eq)]
struct Gates {
    external_ip_sources: bool,
}

/// Every gate is known; of the capabilities behind them this build has one. What is said last counts.
fn gates(text: &str) -> Result<Gates, String> {
    const GATES: [&str; 4] = ["ExternalIPSources", "ExternalIPClaims", "CloudExternalIPs", "StaticEgress"];
    let mut gates = Gates::default();
    for gate in text.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
        let (name, value) = gate.split_once('=').ok_or_else(|| format!("--feature-gates: write {gate}=true or {gate}=false"))?;
        if !GATES.contains(&name) {
            return Err(format!("--feature-gates: there is no gate {name}; known are {}", GATES.join(", ")));
        }
        let on = go_bool(value).map_err(|error| format!("--feature-gates: {name}={value}: {error}"))?;
        match name {
            "ExternalIPSources" => gates.external_ip_sources = on,
            _ if on => {
                return Err(format!(
                    "--feature-gates: this build does not have the capability behind {name}; leave the gate out"
                ));
            }
            _ => {}
        }
    }
    Ok(gates)
}

fn lease(flags: &RunFlags) -> Result<LeaderElection, String> {
    let (in_id, name) = match flags.leader_election_id.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None => ("", flags.leader_election_id.as_str()),
    };
    if name.is_empty() {
        return Err("--leader-election-id: the lease needs a name".to_owned());
    }
    let in_flag = flags.leader_election_namespace.as_str();
    if !in_id.is_empty() && !in_flag.is_empty() && in_id != in_flag {
        return Err(format!("--leader-election-id and --leader-election-namespace name two namespaces: {in_id} and {in_flag}"));
    }
    let namespace = [in_id, in_flag].into_iter().find(|namespace| !namespace.is_empty());
    let lease = LeaderElection {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        lease_duration: flags.leader_elect_lease_duration,
        renew_deadline: flags.leader_elect_renew_deadline,
        retry_period: flags.leader_elect_retry_period,
    };
    if lease.lease_duration < Duration::from_secs(1) || lease.retry_period.is_zero() {
        return Err("--leader-elect-lease-duration must be at least 1s and --leader-elect-retry-period more than 0".to_owned());
    }
    if lease.lease_duration <= lease.renew_deadline || lease.renew_deadline <= lease.retry_period {
        return Err(
            "--leader-elect-lease-duration must be more than -renew-deadline, and that more than -retry-period".to_owned()
        );
    }
    Ok(lease)
}

fn with_nearest_flag(error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    if error.kind() != ErrorKind::UnknownArgument || !unknown.starts_with('-') {
        return error;
    }
    let mut command = Cli::command();
    let run = command.find_subcommand("run");
    let known = run.into_iter().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long);
    let likeness = |flag: &&str| strsim::jaro_winkler(unknown.trim_start_matches('-'), flag);
    match known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))) {
        Some(nearest) => {
            let message = format!("there is no flag {unknown}; the nearest is --{nearest}\n");
            command.error(ErrorKind::UnknownArgument, message)
        }
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Run {
        match parse(args.iter().map(|arg| (*arg).to_owned())) {
            Ok(Invocation::Run(run)) => *run,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    fn config(args: &[&str]) -> Config {
        run(args).config(LogLevel::new(|_| Ok(())), Shutdown::new())
    }

    fn refusal(args: &[&str]) -> String {
        let error = parse(args.iter().map(|arg| (*arg).to_owned())).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{args:?}");
        error.to_string()
    }

    #[test]
    fn no_arguments_mean_run_with_the_defaults() {
        let run = run(&[]);
        assert_eq!((run.verbosity, run.log_format, run.webhooks.is_some()), (2, LogFormat::Text, true));
        assert_eq!(run.warnings, Vec::<String>::new());
        let config = run.config(LogLevel::new(|_| Ok(())), Shutdown::new());
        assert_eq!(config.version, "2.0.0");
        assert_eq!((config.kubeconfig, config.namespace, config.watch_filter), (None, None, None));
        assert_eq!(config.leader_election, None);
        assert_eq!(config.health, Some(":8081".parse().unwrap()));
        let diagnostics = config.diagnostics.unwrap();
        assert_eq!(diagnostics.address, ":8443".parse().unwrap());
        assert!(!diagnostics.insecure);
        assert_eq!(diagnostics.tls, TlsSettings::default());
        assert_eq!((config.max_inflight_writes, config.kube_api_burst), (128, 0));
        assert!(config.kube_api_qps.abs() < f64::EPSILON);
        assert!(config.honor_foreign_finalizers && config.allocation_events);
        assert_eq!(config.release_orphans, ReleaseOrphans::Namespaced);
    }

    #[test]
    fn values_may_follow_a_blank_or_an_equals_sign_and_one_dash_is_enough() {
        for args in
            [&["--namespace", "a"][..], &["--namespace=a"], &["run", "--namespace=a"], &["-namespace", "a"], &["-namespace=a"]]
        {
            assert_eq!(config(args).namespace.as_deref(), Some("a"), "{args:?}");
        }
        for args in [&["--v", "4"][..], &["--v=4"], &["-v", "4"], &["-v=4"], &["-v4"]] {
            assert_eq!(run(args).verbosity, 4, "{args:?}");
        }
        assert_eq!(config(&["--namespace=a", "--namespace=b"]).namespace.as_deref(), Some("b"));
        assert_eq!(config(&["--namespace="]).namespace, None);
    }

    #[test]
    fn a_boolean_needs_no_value() {
        for (args, elects) in [
            (&["--leader-elect"][..], true),
            (&["-leader-elect"], true),
            (&["--leader-elect=true"], true),
            (&["--leader-elect=T"], true),
            (&["--leader-elect=false"], false),
            (&["--leader-elect=0"], false),
            (&["--leader-elect", "--leader-elect=false"], false),
        ] {
            assert_eq!(config(args).leader_election.is_some(), elects, "{args:?}");
        }
        assert!(!config(&["--allocation-events=false"]).allocation_events);
        assert!(refusal(&["--leader-elect=maybe"]).contains("write true or false"));
    }

    #[test]
    fn the_lease_is_the_references_unless_told_otherwise() {
        let lease = config(&["--leader-elect"]).leader_election.unwrap();
        let expected = LeaderElection {
            namespace: None,
            name: "7bb7acb4.ipam.cluster.x-k8s.io".to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        };
        assert_eq!(lease, expected);
        let lease = config(&["--leader-elect", "--leader-election-id=system/mine"]).leader_election.unwrap();
        assert_eq!((lease.namespace.as_deref(), lease.name.as_str()), (Some("system"), "mine"));
        refusal(&["--leader-elect", "--leader-election-id=a/mine", "--leader-election-namespace=b"]);
        refusal(&["--leader-elect", "--leader-elect-lease-duration=10s"]);
        refusal(&["--leader-elect", "--leader-elect-retry-period=0"]);
        refusal(&["--leader-elect-retry-period=soon"]);
    }

    #[test]
    fn addresses_can_be_turned_off() {
        for off in ["0", ""] {
            let config = config(&[&format!("--health-addr={off}"), &format!("--diagnostics-address={off}")]);
            assert_eq!(config.health, None);
            assert!(config.diagnostics.is_none());
        }
        assert!(run(&["--webhook-port=0"]).webhooks.is_none());
        assert!(refusal(&["--diagnostics-address=8443"]).contains("write host:port"));
    }

    #[test]
    fn the_certificate_comes_from_files_unless_the_manager_makes_it() {
        let certificate = |args: &[&str]| run(args).webhooks.unwrap().certificate;
        let files =
            |certificate: &str, key: &str| CertificateSettings::Files { certificate: certificate.into(), key: key.into() };
        assert_eq!(certificate(&["--webhook-cert-dir=/a"]), files("/a/tls.crt", "/a/tls.key"));
        let named = ["--webhook-cert-dir=/a", "--webhook-cert-name=b", "--webhook-key-name=c"];
        assert_eq!(certificate(&named), files("/a/b", "/a/c"));
        assert_eq!(certificate(&["--webhook-self-signed"]), CertificateSettings::SelfSigned);
        assert_eq!(certificate(&["--webhook-cert-dir=/a", "--webhook-self-signed=false"]), files("/a/tls.crt", "/a/tls.key"));
    }

    #[test]
    fn flags_of_other_managers_are_ignored_with_a_warning() {
        let run = run(&["--metrics-bind-addr=:8080", "--sync-period", "10m", "--ipaddressclaim-concurrency=5", "--leader-elect"]);
        assert_eq!(run.warnings.len(), 3, "{:?}", run.warnings);
        assert!(run.lease.is_some());
    }

    #[test]
    fn an_unknown_flag_is_refused_with_the_nearest_known_one() {
        assert!(refusal(&["--leader-elekt"]).contains("the nearest is --leader-elect"), "{}", refusal(&["--leader-elekt"]));
        assert!(refusal(&["--watch-filters=a"]).contains("the nearest is --watch-filter\n"));
        refusal(&["stray"]);
    }

    #[test]
    fn only_gates_of_capabilities_that_are_built_in_can_be_turned_on() {
        run(&["--feature-gates="]);
        run(&["--feature-gates=StaticEgress=false,ExternalIPSources=false"]);
        for (gates, on) in [
            ("", false),
            ("ExternalIPSources=true", true),
            ("StaticEgress=false,ExternalIPSources=true", true),
            ("ExternalIPSources=true,ExternalIPSources=false", false),
        ] {
            assert_eq!(config(&[&format!("--feature-gates={gates}")]).external_ip_sources.is_some(), on, "{gates}");
        }
        assert!(refusal(&["--feature-gates=StaticEgress=true"]).contains("does not have the capability"));
        assert!(refusal(&["--feature-gates=Magic=false"]).contains("there is no gate Magic"));
        assert!(refusal(&["--feature-gates=StaticEgress"]).contains("StaticEgress=true"));
        assert!(refusal(&["--feature-gates=StaticEgress=perhaps"]).contains("write true or false"));
    }

    #[test]
    fn limits_of_external_ip_sources_are_not_taken_for_those_of_other_managers() {
        let run = run(&["--feature-gates=ExternalIPSources=true", "--external-ip-solver-concurrency=3"]);
        assert_eq!(run.external_ip_sources.map(|sources| sources.solver_concurrency), Some(3));
        assert_eq!(run.warnings, Vec::<String>::new());
    }

    #[test]
    fn limits_are_checked() {
        refusal(&["--max-inflight-writes=0"]);
        assert_eq!(config(&["--max-concurrent-reconciles=5"]).max_inflight_writes, 5);
        refusal(&["--kube-api-qps=-1"]);
        refusal(&["--kube-api-qps=NaN"]);
        refusal(&["--release-orphans=some"]);
        assert_eq!(config(&["--release-orphans=none"]).release_orphans, ReleaseOrphans::Nothing);
    }

    #[test]
    fn manifests_are_printed_or_written() {
        let parse = |args: &[&str]| parse(args.iter().map(|arg| (*arg).to_owned())).unwrap();
        assert!(matches!(parse(&["manifests"]), Invocation::Manifests { dir: None, .. }));
        let written = parse(&["manifests", "config", "--image=example.org/ipam:v3"]);
        let Invocation::Manifests { dir: Some(_), image } = written else { panic!("{written:?}") };
        assert_eq!(image, "example.org/ipam:v3");
    }
}
