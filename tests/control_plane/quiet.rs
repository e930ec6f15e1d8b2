//! A manager with nothing to do asks the API server for nothing; one that has asks for no more than it needs.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{
    CapiCrds, ControlPlane, MANAGER_NAMESPACE, ManagerCommand, Options, Pool, Request, Scene, consistently, eventually,
};

use crate::fixture::Standalone;
use crate::standalone;

/// How long nothing may be asked for before a manager counts as settled.
const SETTLED: Duration = Duration::from_secs(4);
/// Longer than any timer that a manager with nothing to do might have but shouldn't (discovery of absent kinds comes every 10 s).
const QUIET: Duration = Duration::from_secs(12);

pub fn trials() -> Vec<Standalone> {
    standalone![
        a_settled_manager_asks_for_nothing_even_while_claims_wait,
        a_bind_takes_three_writes_and_a_release_three,
        a_new_pool_takes_two_writes,
    ]
}

async fn stage(flags: &[&str]) -> Result<(ControlPlane, testbed::Manager, Scene)> {
    let control_plane = ControlPlane::start(Options { audit: true, ..Options::default() })?;
    let mut command = ManagerCommand::new(env!("CARGO_BIN_EXE_manager"));
    for flag in flags {
        command = command.arg(*flag);
    }
    let manager = command.start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "quiet", CapiCrds::Newest).await?;
    Ok((control_plane, manager, scene))
}

/// What the manager has asked for so far, besides watches and the lease.
fn asked(control_plane: &ControlPlane) -> Result<Vec<Request>> {
    let requests = control_plane.requests()?.into_iter();
    let counts = |request: &Request| request.is_managers() && request.verb != "watch" && !request.is_about_leases();
    Ok(requests.filter(counts).collect())
}

async fn settled(control_plane: &ControlPlane) -> Result<Vec<Request>> {
    eventually(Duration::from_secs(60), async || {
        let before = asked(control_plane)?;
        consistently(SETTLED, async || {
            let now = asked(control_plane)?;
            ensure!(now.len() == before.len(), "still asks: {:?}", &now[before.len()..]);
            Ok(())
        })
        .await?;
        Ok(before)
    })
    .await
}

/// Everything that can wait waits: for room, for its pool, for its cluster, for a requested address, for a pause, for a consumer, for a
/// grace period.
async fn a_settled_manager_asks_for_nothing_even_while_claims_wait() -> Result<()> {
    let lease = format!("--leader-election-namespace={MANAGER_NAMESPACE}");
    let (control_plane, _manager, scene) = stage(&["--leader-elect", &lease]).await?;
    let full = scene.pool("full", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}").await?;
    let broken = scene.pool("broken", "{addresses: [nonsense], prefix: 24}").await?;
    let grace = scene.pool("grace", "{addresses: [10.0.1.0/24], prefix: 24, addressReuseGracePeriodSeconds: 300}").await?;
    scene.prefix_pool("prefixes", "{prefixes: ['fd00::/48']}").await?;
    let absent = Pool { kind: "InClusterIPPool", name: "absent".to_owned() };
    for number in 0..40 {
        scene.claim(&format!("full-{number}"), &full).await?;
    }
    scene.claim("broken", &broken).await?;
    scene.claim("absent", &absent).await?;
    scene.claim_with("no-cluster", &grace, "{spec: {clusterName: absent}}").await?;
    scene.claim_with("paused", &grace, "{metadata: {annotations: {cluster.x-k8s.io/paused: ''}}}").await?;
    let requested = json!({"metadata": {"annotations": {"in-cluster.ipam.cluster.x-k8s.io/requested-address": "10.9.9.9"}}});
    scene.claim_with("requested", &grace, &requested.to_string()).await?;
    scene.claim_with("consumed", &grace, "{metadata: {finalizers: [example.com/machine]}}").await?;
    scene.address("consumed").await?;
    scene.delete("IPAddressClaim", "consumed").await?;
    scene.claim_address("graced", &grace).await?;
    scene.delete("IPAddressClaim", "graced").await?;
    scene.tells("full-39", "PoolExhausted", &["position 37"]).await?;
    scene.tells("broken", "PoolNotReady", &["nonsense"]).await?;
    scene.tells("absent", "PoolNotReady", &["absent"]).await?;
    scene.tells("requested", "AllocationFailed", &["10.9.9.9"]).await?;

    let before = settled(&control_plane).await?;
    consistently(QUIET, async || {
        let now = asked(&control_plane)?;
        ensure!(now.len() == before.len(), "asks although nothing has changed: {:?}", &now[before.len()..]);
        Ok(())
    })
    .await?;
    let renewals = control_plane.requests()?.iter().filter(|request| request.is_about_leases()).count();
    ensure!(renewals > 5, "the audit log shows only {renewals} renewals of the lease: is it complete?");
    Ok(())
}

async fn a_bind_takes_three_writes_and_a_release_three() -> Result<()> {
    let (control_plane, _manager, scene) = stage(&["--allocation-events=false"]).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.200], prefix: 24}").await?;
    scene.up_to_date(&pool).await?;
    let begun = settled(&control_plane).await?.len();
    let claims: Vec<_> = (0..50).map(|number| format!("web-{number}")).collect();
    for claim in &claims {
        scene.claim(claim, &pool).await?;
    }
    for claim in &claims {
        scene.address(claim).await?;
    }
    let bound = settled(&control_plane).await?;
    assert_eq!(without_pool_status(&bound[begun..]), 50 * 3, "{:?}", &bound[begun..]);
    for claim in &claims {
        scene.delete("IPAddressClaim", claim).await?;
    }
    for claim in &claims {
        scene.gone("IPAddressClaim", claim).await?;
    }
    let released = settled(&control_plane).await?;
    assert_eq!(without_pool_status(&released[bound.len()..]), 50 * 3, "{:?}", &released[bound.len()..]);
    Ok(())
}

fn without_pool_status(requests: &[Request]) -> usize {
    requests.iter().filter(|request| !request.uri.contains("/inclusterippools/")).count()
}

/// Numbers, conditions and the observed generation come in one write, so that no second one makes a user's update conflict.
async fn a_new_pool_takes_two_writes() -> Result<()> {
    let (control_plane, _manager, scene) = stage(&[]).await?;
    let begun = settled(&control_plane).await?.len();
    for pool in [
        scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?,
        scene.global_pool("blue", "{addresses: [10.1.0.10-10.1.0.20], prefix: 24}").await?,
        scene.prefix_pool("blue", "{prefixes: ['fd00::/48']}").await?,
        scene.global_prefix_pool("blue", "{prefixes: ['fd01::/48']}").await?,
    ] {
        scene.up_to_date(&pool).await?;
        scene.condition_becomes(&pool, "Ready", "True", "PoolReady").await?;
    }
    let done = settled(&control_plane).await?;
    let (status, finalizers): (Vec<_>, Vec<_>) = done[begun..].iter().partition(|request| request.uri.contains("/status"));
    assert_eq!((status.len(), finalizers.len()), (4, 4), "{:?}", &done[begun..]);
    Ok(())
}
