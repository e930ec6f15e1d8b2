//! The manager's command line, as operators and existing manifests write it.

use std::process::{Command, Output};

use anyhow::{Result, ensure};
use testbed::{CapiCrds, ControlPlane, ManagerCommand, Options, QUIET, Scene};

use crate::fixture::Standalone;
use crate::standalone;

const MANAGER: &str = env!("CARGO_BIN_EXE_manager");

pub fn trials() -> Vec<Standalone> {
    standalone![
        what_is_unknown_ends_with_code_2_and_the_nearest_name,
        what_cannot_be_used_ends_with_code_1_and_says_so,
        a_call_without_subcommand_and_with_placeholders_runs,
    ]
}

fn run(args: &[&str]) -> Result<Output> {
    Ok(Command::new(MANAGER).args(args).output()?)
}

async fn what_is_unknown_ends_with_code_2_and_the_nearest_name() -> Result<()> {
    for (args, words) in [
        (&["--leader-elekt"][..], &["--leader-elekt", "--leader-elect"][..]),
        (&["run", "--watch-filters=a"], &["--watch-filters", "--watch-filter"]),
        (&["--feature-gates=StaticEgres=true"], &["StaticEgres", "StaticEgress"]),
        (&["--tls-cipher-suites=TLS_NONSENSE"], &["TLS_NONSENSE"]),
        (&["--leader-elect=perhaps"], &["perhaps"]),
        (&["stroll"], &["stroll"]),
    ] {
        let output = run(args)?;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        ensure!(words.iter().all(|word| text.contains(word)), "{args:?} says {text}, which lacks one of {words:?}");
        ensure!(output.stdout.is_empty(), "{args:?} prints {}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

async fn what_cannot_be_used_ends_with_code_1_and_says_so() -> Result<()> {
    let off = ["--health-probe-bind-address=0", "--diagnostics-address=0", "--webhook-port=0"];
    for (args, word) in [
        (["--kubeconfig=/does/not/exist"].as_slice(), "/does/not/exist"),
        (&["--kubeconfig=/does/not/exist", "--health-probe-bind-address=203.0.113.1:8081"], "203.0.113.1:8081"),
    ] {
        let args: Vec<_> = off.iter().chain(args).copied().collect();
        let output = run(&args)?;
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        ensure!(text.contains(word), "{args:?} says {text}");
    }
    Ok(())
}

async fn a_call_without_subcommand_and_with_placeholders_runs() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = ManagerCommand::new(MANAGER)
        .without_subcommand()
        .arg("-leader-elect=${IPAM_NOT_SET:=false}")
        .arg("--watch-filter=${IPAM_NOT_SET:=blue}")
        .arg("--sync-period")
        .arg("10m")
        .start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "placeholder", CapiCrds::Newest).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let more = "{metadata: {labels: {cluster.x-k8s.io/watch-filter: blue}}}";
    scene.claim("unlabelled", &pool).await?;
    scene.claim_with("labelled", &pool, more).await?;
    assert_eq!(scene.address("labelled").await?, "10.0.0.10");
    scene.no_address("unlabelled", QUIET).await?;
    ensure!(manager.log().contains("--sync-period is ignored"), "no warning about an ignored flag:\n{}", manager.log());
    Ok(())
}
