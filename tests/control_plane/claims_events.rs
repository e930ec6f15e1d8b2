//! What claims are told by events. These are best effort and paced over all claims, so the trial has a manager of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, ManagerCommand, Options, Pool, Scene, eventually};

use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![claims_and_addresses_have_events]
}

const PAUSED: &str = "cluster.x-k8s.io/paused";

async fn claims_and_addresses_have_events() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "events", CapiCrds::Newest).await?;
    told(&scene).await.with_context(|| manager.log_tail(40))
}

async fn told(scene: &Scene) -> Result<()> {
    let blue = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, addressReuseGracePeriodSeconds: 300}").await?;
    let small = scene.pool("small", "{addresses: [10.0.1.10], prefix: 24}").await?;
    let global = scene.global_pool("global", "{addresses: [10.0.2.10], prefix: 24}").await?;

    // Started first, because it is told only after a minute.
    scene.claim_with("used", &blue, "{metadata: {finalizers: [infra.example/machine]}}").await?;
    scene.address("used").await?;
    scene.delete("IPAddressClaim", "used").await?;

    // The life of a claim.
    scene.claim_address("web", &small).await?;
    assert_eq!(scene.event("web", "AddressAllocated").await?, "allocated 10.0.1.10/24 from InClusterIPPool small");
    scene.claim("waits", &small).await?;
    ensure!(scene.event("waits", "PoolExhausted").await?.contains("total 1, used 1, position 1"));
    scene.delete("IPAddressClaim", "web").await?;
    assert_eq!(scene.event("web", "AddressReleased").await?, "released 10.0.1.10/24 to InClusterIPPool small");

    // Waiting for others.
    scene.claim_with("lonely", &blue, "{spec: {clusterName: green}}").await?;
    ensure!(scene.event("lonely", "WaitingForCluster").await?.contains("green"));
    scene.claim("poolless", &Pool { kind: "InClusterIPPool", name: "none".to_owned() }).await?;
    ensure!(scene.event("poolless", "PoolNotReady").await?.contains("none does not exist"));
    scene.claim_address("rests", &blue).await?;
    scene.delete("IPAddressClaim", "rests").await?;
    ensure!(scene.event("rests", "ReuseGracePeriod").await?.contains("10.0.0.11/24 stays taken until"));

    // Mistakes.
    scene.in_v1beta1().claim_with("groupless", &blue, "{spec: {poolRef: {apiGroup: null}}}").await?;
    ensure!(scene.event("groupless", "PoolGroupMissing").await?.contains("ipam.cluster.x-k8s.io"));
    scene.foreign_address("taken", &blue, "10.0.0.20", 24, "{spec: {claimRef: {name: other}}}").await?;
    scene.claim("taken", &blue).await?;
    for reason in ["AddressNameTaken", "AllocationFailed"] {
        ensure!(scene.event("taken", reason).await?.contains("belongs to claim \"other\""));
    }
    // Line 11.
    scene.foreign_address("words", &blue, "not an address", 24, "{}").await?;
    ensure!(scene.event("words", "UnparsableAddress").await?.contains("not an address"));
    // Line 12.
    let requested = "in-cluster.ipam.cluster.x-k8s.io/requested-address";
    scene.claim_with("asks", &blue, &json!({"metadata": {"annotations": {requested: "10.0.0.10"}}}).to_string()).await?;
    ensure!(scene.event("asks", "AllocationFailed").await?.contains("is held by"));
    scene.annotate("IPAddressClaim", "asks", requested, Some("10.0.0.15")).await?;
    assert_eq!(scene.address("asks").await?, "10.0.0.15");
    scene.ready_becomes("asks", "True", "AddressAllocated").await?;
    scene.annotate("IPAddressClaim", "asks", requested, Some("10.0.0.16")).await?;
    ensure!(scene.event("asks", "RequestedAddressIgnored").await?.contains("10.0.0.16"));

    // Conflicts.
    scene.foreign_address("twin", &blue, "10.0.0.15", 24, "{}").await?;
    scene.claim("twin", &blue).await?;
    ensure!(scene.event("twin", "AddressConflict").await?.contains("/asks"));
    scene.delete("IPAddress", "asks").await?;
    scene.set_finalizers("IPAddress", "asks", &[]).await?;
    let note = scene.event("asks", "AddressChanged").await?;
    ensure!(note.ends_with("before: allocated 10.0.0.15/24"), "{note}");
    scene.claim_address("moved", &global).await?;
    scene.annotate("IPAddressClaim", "moved", PAUSED, Some("")).await?;
    scene.delete("IPAddressClaim", "moved").await?;
    scene.set_finalizers("IPAddressClaim", "moved", &[]).await?;
    scene.gone("IPAddressClaim", "moved").await?;
    scene.delete("IPAddress", "moved").await?;
    ensure!(scene.event("moved", "OrphanedAddress").await?.contains("10.0.2.10/24 is kept"));

    let consumer = eventually(Duration::from_secs(90), async || Ok(scene.event("used", "WaitingForConsumer").await?));
    ensure!(consumer.await?.contains("infra.example/machine"));
    ensure!(scene.api("IPAddress").get("used").await?.metadata.deletion_timestamp.is_none());
    // What is told once is told once.
    for name in ["lonely", "rests", "groupless", "taken"] {
        let events = scene.events(name).await?;
        let mut reasons: Vec<_> = events.iter().map(|(reason, _)| reason).collect();
        let all = reasons.len();
        reasons.sort_unstable();
        reasons.dedup();
        ensure!(reasons.len() == all, "{name}: {events:?}");
    }
    Ok(())
}
