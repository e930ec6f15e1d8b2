//! The README names every flag, metric, condition, event and annotation there is.

use std::path::Path;
use std::process::Command;

use api::externalip::ClusterExternalIPSource;
use api::externalip::names as external;
use api::externalip::reasons::{ExternalIpEvent, PortConflictReason, ServiceReason, SolverState, SourceCondition, SourceReason};
use api::names;
use api::reasons::{ClaimReason, EventReason, PoolCondition, PoolReason};

const README: &str = include_str!("../README.md");

fn assert_named(what: &str, words: impl IntoIterator<Item = String>) {
    let missing: Vec<String> = words.into_iter().filter(|word| !README.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "the README does not name these {what}: {missing:?}");
}

#[test]
fn every_flag_is_in_the_readme() {
    let output = Command::new(env!("CARGO_BIN_EXE_manager")).args(["run", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let flags: Vec<String> = options
        .flat_map(|line| line.split([' ', ',', '=', '[']).filter(|word| word.starts_with("--")))
        .filter(|flag| *flag != "--help")
        .map(str::to_owned)
        .collect();
    assert!(flags.len() > 20, "{help}");
    assert_named("flags", flags);
}

#[test]
fn every_metric_is_in_the_readme() {
    let sources =
        [include_str!("../controllers/src/kit/metrics.rs"), include_str!("../controllers/src/kit/metrics/external_ips.rs")];
    let code = sources.map(|source| source.split("#[cfg(test)]").next().unwrap()).concat();
    let is_ours = |text: &str| ["ipam_", "external_ip_"].iter().any(|start| text.starts_with(start));
    let names: Vec<&str> = code.split('"').filter(|text| is_ours(text) && !text.contains(' ')).collect();
    assert!(names.len() > 20, "{names:?}");
    let missing: Vec<&str> = names
        .into_iter()
        .filter(|name| !README.contains(&format!("`{name}`")) && !README.contains(&format!("`{name}_total`")))
        .collect();
    assert!(missing.is_empty(), "the README does not name these metrics: {missing:?}");
}

#[test]
fn every_condition_and_event_is_in_the_readme() {
    assert_named("claim reasons", ClaimReason::ALL.iter().map(ToString::to_string));
    assert_named("pool conditions", PoolCondition::ALL.iter().map(ToString::to_string));
    assert_named("pool reasons", PoolReason::ALL.iter().map(ToString::to_string));
    assert_named("events", EventReason::ALL.iter().map(ToString::to_string));
    assert_named("source conditions", SourceCondition::ALL.iter().map(ToString::to_string));
    assert_named("source reasons", SourceReason::ALL.iter().map(ToString::to_string));
    assert_named("solver states", SolverState::ALL.iter().map(ToString::to_string));
    assert_named("Service reasons", ServiceReason::ALL.iter().map(ToString::to_string));
    assert_named("Service reasons", PortConflictReason::ALL.iter().map(ToString::to_string));
    assert_named("Service conditions", [external::READY, external::PORT_CONFLICT].map(str::to_owned));
    assert_named("events", ExternalIpEvent::ALL.iter().map(ToString::to_string));
}

#[test]
fn every_source_in_the_readme_is_admitted_without_a_word() {
    let blocks = README.split("```").filter_map(|block| block.strip_prefix("yaml\n"));
    let mut sources = 0;
    for document in blocks.filter(|block| block.contains("kind: ClusterExternalIPSource")) {
        let source: ClusterExternalIPSource = serde_yaml_ng::from_str(document).unwrap();
        let checked = api::externalip::check(&source.spec, &[]);
        assert_eq!((checked.source.err(), checked.warnings), (None, Vec::new()), "{document}");
        sources += 1;
    }
    assert!(sources > 0);
}

#[test]
fn every_annotation_and_label_of_ours_is_in_the_readme() {
    let ours = [
        names::REQUESTED_ADDRESS,
        names::REQUESTED_ADDRESS_SHORT,
        names::PRE_ALLOCATIONS,
        names::STICKY,
        names::LAST_ADDRESSES,
        names::RELEASE_NOW,
        names::NETWORK_DOMAIN_LABEL,
        external::SOURCE,
        external::MANAGED,
        external::REQUESTED_ADDRESSES,
        external::REFRESH,
    ];
    let missing: Vec<&str> = ours.into_iter().filter(|name| !README.contains(name)).collect();
    assert!(missing.is_empty(), "the README does not name {missing:?}");
}

#[test]
fn every_folder_and_file_in_the_readme_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let quoted = README.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = quoted
        .filter(|text| {
            ["config/", "tests/", "controllers/", "poolutil/", "tools/", "src/"].iter().any(|start| text.starts_with(start))
        })
        .collect();
    assert!(paths.len() > 5, "{paths:?}");
    let missing: Vec<&str> = paths.into_iter().filter(|path| !root.join(path).exists()).collect();
    assert!(missing.is_empty(), "the README names what is not there: {missing:?}");
}
