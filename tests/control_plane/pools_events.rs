//! What people are told about pools by events, and pools that no schema has checked. Events are paced over all pools, so each trial has a
//! manager of its own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, ListParams};
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, Manager, ManagerCommand, Options, Pool, Scene, eventually};

use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![pools_have_events, pools_that_no_schema_has_checked_stop_nobody]
}

async fn stage(hint: &str) -> Result<(Scene, Manager, ControlPlane)> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, hint, CapiCrds::Newest).await?;
    Ok((scene, manager, control_plane))
}

/// Waits for exactly one event of this reason about a pool. It stands in the pool's namespace, for Global pools in `default`.
async fn told(scene: &Scene, pool: &Pool, kind: &str, reason: &str, words: &[&str]) -> Result<()> {
    let namespace = if pool.kind.starts_with("Global") { "default" } else { &scene.namespace };
    let uid = scene.api(pool.kind).get(&pool.name).await?.metadata.uid.context("a pool without UID")?;
    eventually(Duration::from_secs(30), async || {
        let events = Api::<Event>::namespaced(scene.client.clone(), namespace).list(&ListParams::default()).await?.items;
        let about = |event: &&Event| event.regarding.as_ref().and_then(|object| object.uid.as_ref()) == Some(&uid);
        let events: Vec<_> = events.iter().filter(about).collect();
        let heard: Vec<_> = events.iter().map(|event| (event.reason.as_deref(), event.note.as_deref())).collect();
        let of_reason: Vec<_> = events.iter().filter(|event| event.reason.as_deref() == Some(reason)).collect();
        ensure!(of_reason.len() == 1, "{} events {reason} about {pool:?} among {heard:?}", of_reason.len());
        let event = of_reason[0];
        let note = event.note.as_deref().unwrap_or_default();
        let object = event.regarding.as_ref().context("an event about nothing")?;
        let names = (object.kind.as_deref(), object.name.as_deref(), object.api_version.as_deref());
        ensure!(names == (Some(pool.kind), Some(&*pool.name), Some("ipam.cluster.x-k8s.io/v1alpha2")), "about {object:?}");
        ensure!(event.type_.as_deref() == Some(kind), "{reason} is {:?}", event.type_);
        ensure!(event.reporting_controller.as_deref() == Some("ipam-in-cluster"), "from {:?}", event.reporting_controller);
        ensure!(words.iter().all(|word| note.contains(word)), "{reason} says {note:?}, which lacks one of {words:?}");
        Ok(())
    })
    .await
}

async fn pools_have_events() -> Result<()> {
    let (scene, _manager, _control_plane) = stage("pool-events").await?;
    for pool in scene.ip_pools("full", "{addresses: [10.0.0.10], prefix: 24}").await? {
        let claim = format!("web-{}", pool.kind.to_lowercase());
        scene.claim_address(&claim, &pool).await?;
        told(&scene, &pool, "Warning", "NoFreeAddresses", &["no address is free"]).await?;
        scene.respec(&pool, "{addresses: [10.0.0.10-10.0.0.11]}").await?;
        told(&scene, &pool, "Normal", "CapacityAvailable", &["free"]).await?;
        scene.foreign_address(&format!("{claim}-again"), &pool, "10.0.0.10", 24, "{}").await?;
        told(&scene, &pool, "Warning", "DuplicateAddresses", &["10.0.0.10", &claim, &format!("{claim}-again")]).await?;
    }
    for pool in scene.ip_pools("broken", "{addresses: [10.0.0.999], prefix: 24}").await? {
        told(&scene, &pool, "Warning", "InvalidSpec", &["spec.addresses", "10.0.0.999"]).await?;
    }
    for pool in scene.prefix_pools("broken-blocks", "{prefixes: ['fd00::1/62']}").await? {
        told(&scene, &pool, "Warning", "InvalidSpec", &["spec.prefixes", "fd00::1/62"]).await?;
    }
    let one = scene.global_pool("one", "{addresses: [10.7.0.10-10.7.0.20], prefix: 24}").await?;
    let other = scene.pool("other", "{addresses: [10.7.0.20-10.7.0.30], prefix: 24}").await?;
    told(&scene, &one, "Warning", "PoolsOverlap", &["other", "10.7.0.20"]).await?;
    told(&scene, &other, "Warning", "PoolsOverlap", &[&one.name, "10.7.0.20"]).await
}

/// Such objects come from an earlier release's conversion (`addresses: null`) or through a definition that somebody loosened.
async fn pools_that_no_schema_has_checked_stop_nobody() -> Result<()> {
    let (scene, manager, control_plane) = stage("unchecked").await?;
    let neighbour = scene.pool("neighbour", "{addresses: [10.0.0.10-10.0.0.200], prefix: 24}").await?;
    assert_eq!(scene.claim_address("before", &neighbour).await?, "10.0.0.10");
    loosen(&control_plane, "inclusterippools")?;
    let mut broken = Vec::new();
    for (number, spec) in [
        json!({"addresses": null, "prefix": 24}),
        json!({"addresses": null, "prefix": null, "gateway": null, "excludedAddresses": null}),
        json!({"prefix": 24}),
        json!({}),
        json!(null),
        json!({"addresses": [], "excludedAddresses": []}),
        json!({"addresses": "10.0.0.10", "prefix": 24}),
        json!({"addresses": [10], "prefix": 24}),
        json!({"addresses": ["10.0.0.10"], "prefix": "24"}),
        json!({"addresses": ["10.0.0.10"], "prefix": -1}),
        json!({"addresses": ["10.0.0.10"], "prefix": 9999}),
        json!({"addresses": ["10.0.0.10", null], "prefix": 24}),
        json!(["10.0.0.10"]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("broken-{number}");
        let object = json!({"kind": "InClusterIPPool", "metadata": {"name": name}, "spec": spec});
        eventually(Duration::from_secs(30), async || scene.object(&object.to_string()).await.map(|_| ())).await?;
        let pool = Pool { kind: "InClusterIPPool", name };
        scene.claim(&format!("claim-{number}"), &pool).await?;
        broken.push((pool, spec));
    }
    for (number, (pool, spec)) in broken.iter().enumerate() {
        scene.tells(&format!("claim-{number}"), "PoolNotReady", &[&pool.name]).await.with_context(|| format!("{spec}"))?;
    }
    assert_eq!(scene.claim_address("meanwhile", &neighbour).await?, "10.0.0.11");
    manager.restart()?;
    manager.wait_until_ready()?;
    assert_eq!(scene.claim_address("after", &neighbour).await?, "10.0.0.12");
    // What can be read as a pool without addresses says so itself.
    for (pool, _) in &broken[..2] {
        scene.condition_says(pool, "Ready", "False", "InvalidSpec", &["spec.addresses"]).await?;
    }
    // Repaired, they work; unrepaired, they can be deleted.
    for (number, (pool, spec)) in broken.iter().enumerate() {
        if number % 2 == 0 {
            let good =
                json!([{"op": "add", "path": "/spec", "value": {"addresses": [format!("10.1.{number}.10")], "prefix": 24}}]);
            control_plane.kubectl(&[
                "patch",
                "inclusterippool",
                &pool.name,
                "-n",
                &scene.namespace,
                "--type=json",
                "-p",
                &good.to_string(),
            ])?;
            let bound = scene.address(&format!("claim-{number}")).await.with_context(|| format!("{spec}"))?;
            assert_eq!(bound, format!("10.1.{number}.10"));
        } else {
            scene.delete(pool.kind, &pool.name).await?;
            scene.pool_gone(pool).await.with_context(|| format!("{spec}"))?;
            scene.delete("IPAddressClaim", &format!("claim-{number}")).await?;
            scene.gone("IPAddressClaim", &format!("claim-{number}")).await?;
        }
    }
    Ok(())
}

/// Lets a definition accept any object.
fn loosen(control_plane: &ControlPlane, plural: &str) -> Result<()> {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let patch: Vec<_> = (0..2)
        .map(|version| json!({"op": "replace", "path": format!("/spec/versions/{version}/schema/openAPIV3Schema"), "value": any}))
        .collect();
    let name = format!("{plural}.ipam.cluster.x-k8s.io");
    control_plane.kubectl(&["patch", "crd", &name, "--type=json", "-p", &serde_json::to_string(&patch)?])?;
    Ok(())
}
