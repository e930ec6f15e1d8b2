//! The samples of `config/samples/` on a live server: each does what its comment says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use testbed::{ControlPlane, ManagerCommand, Options, QUIET, Sample, consistently, eventually};

use crate::fixture::Standalone;
use crate::standalone;

const COLUMNS: &str = concat!("custom-columns-file=", env!("CARGO_MANIFEST_DIR"), "/config/samples/claims.columns");

pub fn trials() -> Vec<Standalone> {
    standalone![every_sample_is_accepted_and_reaches_the_state_in_its_comment, the_readmes_first_claim_gets_the_address_it_names]
}

async fn the_readmes_first_claim_gets_the_address_it_names() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let _manager = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).start(&control_plane)?;
    let readme = include_str!("../../README.md");
    let yaml = readme.split("```").find_map(|block| block.strip_prefix("yaml\n")).context("the README has no YAML")?;
    control_plane.apply(yaml)?;
    // What the README says it prints, without the blanks of its columns.
    for command in [&["get", "inclusterippools"][..], &["get", "ipaddressclaims", "-o", COLUMNS]] {
        eventually(Duration::from_secs(30), async || {
            let printed = control_plane.kubectl(command)?;
            let missing =
                printed.lines().find(|line| !readme.lines().any(|shown| shown.split_whitespace().eq(line.split_whitespace())));
            ensure!(missing.is_none(), "the README does not show {missing:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn every_sample_is_accepted_and_reaches_the_state_in_its_comment() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    control_plane.install_external_ip_role()?;
    let names = Sample::name_server()?;
    let command = Sample::flags(&names).into_iter().fold(ManagerCommand::new(env!("CARGO_BIN_EXE_manager")), ManagerCommand::arg);
    let _manager = command.start(&control_plane)?;
    let samples = Sample::all()?;
    for sample in &samples {
        sample.apply(&control_plane)?;
        sample.wait(&control_plane)?;
    }
    // They share namespaces, and still do not get into each other's way.
    samples.iter().try_for_each(|sample| sample.check(&control_plane))?;
    a_full_pool_whose_freed_address_goes_to_a_waiter_stays_full(&control_plane).await
}

/// What the comment of `exhausted.yaml` invites to.
async fn a_full_pool_whose_freed_address_goes_to_a_waiter_stays_full(control_plane: &ControlPlane) -> Result<()> {
    let reasons = |object: &str| -> Result<Vec<String>> {
        let text = control_plane.kubectl(&["get", "events", "-n", "team-green", "-o", "json"])?;
        let events: Value = serde_json::from_str(&text)?;
        let about = events["items"].as_array().into_iter().flatten().filter(|event| event["involvedObject"]["name"] == object);
        Ok(about.filter_map(|event| event["reason"].as_str()).map(str::to_owned).collect())
    };
    control_plane.kubectl(&["delete", "ipaddressclaim", "-n", "team-green", "first"])?;
    eventually(Duration::from_secs(30), async || {
        let reasons = reasons("third")?;
        ensure!(reasons.iter().any(|reason| reason == "AddressAllocated"), "{reasons:?}");
        Ok(())
    })
    .await?;
    consistently(QUIET, async || {
        let reasons = reasons("tiny")?;
        ensure!(reasons == ["NoFreeAddresses"], "{reasons:?}");
        Ok(())
    })
    .await
}
