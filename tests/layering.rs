//! Which crate may use which, and what certain files must not contain. The rules of the design, as far as a signature
//! cannot hold them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// What a crate may name under `[dependencies]`.
enum Uses {
    /// These and no others, wherever they come from.
    Only(&'static [&'static str]),
    /// These of the workspace, and any published crate.
    OfOurs(&'static [&'static str]),
}

const LAYERS: &[(&str, Uses)] = &[
    ("poolutil", Uses::Only(&["ipnet"])),
    // `api` reads a source with `poolutil`, so that admission and controller share one reading of it.
    ("api", Uses::Only(&["k8s-openapi", "kube", "poolutil", "schemars", "serde", "serde_json"])),
    (
        "webhooks",
        Uses::Only(&[
            "api",
            "axum",
            "axum-server",
            "k8s-openapi",
            "poolutil",
            "rustls",
            "serde",
            "serde_json",
            "thiserror",
            "tokio",
            "tracing",
        ]),
    ),
    ("controllers", Uses::OfOurs(&["api", "poolutil"])),
    ("ipam-in-cluster", Uses::OfOurs(&["api", "controllers", "poolutil", "webhooks"])),
    ("testbed", Uses::OfOurs(&[])),
    ("bench", Uses::OfOurs(&["api", "poolutil", "testbed"])),
];

#[test]
fn every_crate_uses_only_what_lies_below_it() {
    let metadata = MetadataCommand::new().no_deps().exec().unwrap();
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let used: BTreeMap<&str, BTreeSet<&str>> = metadata
        .packages
        .iter()
        .map(|package| {
            let dependencies = package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
            (package.name.as_str(), dependencies.map(|dependency| dependency.name.as_str()).collect())
        })
        .collect();

    let listed: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, listed, "every crate of the workspace has its line in LAYERS");

    for (name, uses) in LAYERS {
        let surplus: Vec<_> = match uses {
            Uses::Only(allowed) => used[name].iter().filter(|used| !allowed.contains(used)).collect(),
            Uses::OfOurs(allowed) => used[name].iter().filter(|used| ours.contains(*used) && !allowed.contains(used)).collect(),
        };
        assert!(surplus.is_empty(), "{name} may not use {surplus:?}");
    }
}

/// The Rust files below `folder` whose path satisfies `of_interest`; there must be some.
fn sources(folder: &str, of_interest: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found.retain(|path| of_interest(path));
    assert!(!found.is_empty(), "no such file below {folder}");
    found
}

/// The code of a file without its comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Each of `words` that stands in the code of one of `files`.
fn found(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files {
        let code = code(path);
        found.extend(words.iter().filter(|word| code.contains(**word)).map(|word| format!("{}: {word}", path.display())));
    }
    found
}

const CLOCKS: [&str; 4] = ["SystemTime", "Instant::now", "Timestamp::now", "Zoned::now"];

/// The files that hold a capability's rules.
fn plans() -> Vec<PathBuf> {
    sources("controllers/src", |path| {
        let mut names = path.iter().rev();
        names.next().is_some_and(|file| file == "plan.rs") || names.next().is_some_and(|folder| folder == "plan")
    })
}

#[test]
fn a_plan_reaches_nothing_outside_its_arguments() {
    let reach = ["async ", ".await", "Client", "Api<", "kube::runtime", "tokio", "reqwest", "std::fs", "std::net::Tcp", "rand::"];
    assert_eq!(found(&plans(), &[&reach[..], &CLOCKS].concat()), Vec::<String>::new());
}

#[test]
fn a_plan_is_never_an_error() {
    let mut fallible = Vec::new();
    for path in plans() {
        for signature in
            code(&path).split("\npub ").skip(1).map(|item| item.split(['{', ';']).next().unwrap_or_default().to_owned())
        {
            if signature.contains("fn ") && signature.contains("Result<") {
                fallible.push(format!("{}: {signature}", path.display()));
            }
        }
    }
    assert_eq!(fallible, Vec::<String>::new());
}

#[test]
fn address_arithmetic_has_no_clock_and_no_files() {
    let files = sources("poolutil/src", |_| true);
    assert_eq!(
        found(&files, &[&["std::fs", "std::io", "std::env", "std::net::Tcp"][..], &CLOCKS].concat()),
        Vec::<String>::new()
    );
}

#[test]
fn types_have_no_client_and_no_clock() {
    let files = sources("api/src", |_| true);
    assert_eq!(found(&files, &[&["Client", "Api<", "kube::runtime", "async "][..], &CLOCKS].concat()), Vec::<String>::new());
}

#[test]
fn every_file_is_named_after_what_it_holds() {
    let nameless = ["util.rs", "utils.rs", "common.rs", "helpers.rs", "misc.rs"];
    for folder in ["api", "controllers", "poolutil", "src", "tests", "webhooks"] {
        let files = sources(folder, |_| true);
        let found: Vec<_> = files.iter().filter(|path| nameless.iter().any(|name| path.ends_with(name))).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
