//! Beside the real webhooks of Cluster API: they ask what addresses are, let only so many through at a time, and are down at times.
//!
//! Nobody can make, change or delete a claim while they are down. Pools that are paused until then give the managers work for
//! that time.

use std::collections::BTreeSet;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use testbed::{CoreManager, Pool, QUIET, Scene, consistently};

use crate::audit::Audited;
use crate::fixture::Standalone;
use crate::stage::{Stage, Witness, claim, create};
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![
        every_kind_of_claim_is_bound_and_released,
        many_claims_at_once_are_bound_as_slowly_as_the_webhooks_answer,
        an_outage_of_the_webhooks_delays_binds_and_releases_and_changes_nothing_else,
    ]
}

/// The least that Cluster API's releases let through in a second.
const SLOW: u32 = 20;
const PAUSED: &str = "cluster.x-k8s.io/paused";
const PROTECT: &str = "ipam.cluster.x-k8s.io/ProtectAddress";

/// Some managers behind the webhooks.
async fn stage(managers: usize, rate: Option<u32>) -> Result<(Stage, CoreManager)> {
    let stage = Stage::set(managers).await?;
    let core = CoreManager::start(&stage.control_plane, rate)?;
    Ok((stage, core))
}

async fn every_kind_of_claim_is_bound_and_released() -> Result<()> {
    let (stage, core) = stage(2, None).await?;
    let passed = kinds(&stage.scene).await;
    passed.with_context(|| format!("{}\n--- Cluster API\n{}", stage.logs(), core.log_tail(30)))?;
    assert_eq!(stage.audit().await?, Audited { claims: 0, bound: 0, addresses: 0, pools: 4 });
    Ok(())
}

async fn kinds(scene: &Scene) -> Result<()> {
    let pools = [
        scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.1}").await?,
        scene.global_pool("green", "{addresses: ['fd01::10-fd01::20'], prefix: 120}").await?,
        scene.prefix_pool("red", "{prefixes: ['fd02::/60']}").await?,
        scene.global_prefix_pool("white", "{prefixes: ['fd03::/60'], gateway: 'fd03::1'}").await?,
    ];
    let first = ["10.0.0.10", "fd01::10", "fd02::", "fd03::"];
    for (pool, first) in pools.iter().zip(first) {
        let (old, new) = (format!("old-{}", pool.name), format!("new-{}", pool.name));
        scene.in_v1beta1().claim(&old, pool).await?;
        assert_eq!(scene.address(&old).await?, first);
        scene.claim_address(&new, pool).await?;
        for claim in [old, new] {
            scene.ready_becomes(&claim, "True", "AddressAllocated").await?;
            scene.delete("IPAddressClaim", &claim).await?;
            scene.gone("IPAddressClaim", &claim).await?;
            ensure!(scene.get("IPAddress", &claim).await?.is_none(), "{claim} has left its address behind");
        }
    }
    let blue = &pools[0];
    other_pools_are_refused(scene, blue, &pools[2]).await?;
    made_again_under_the_same_name(scene, blue).await?;
    adopted_from_an_earlier_claim(scene, blue).await
}

/// The webhooks are at work.
async fn other_pools_are_refused(scene: &Scene, pool: &Pool, other: &Pool) -> Result<()> {
    scene.claim_with("held", pool, &json!({"metadata": {"annotations": {PAUSED: ""}}}).to_string()).await?;
    let refused = scene.foreign_address("held", other, "fd02::", 64, "{}").await.err().context("an address of another pool")?;
    let text = format!("{refused:#}");
    ensure!(text.contains("different from the pool referenced by the claim"), "{text}");
    scene.delete("IPAddressClaim", "held").await?;
    scene.gone("IPAddressClaim", "held").await
}

async fn made_again_under_the_same_name(scene: &Scene, pool: &Pool) -> Result<()> {
    scene.claim_address("web", pool).await?;
    let uid = scene.api("IPAddress").get("web").await?.uid();
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.claim_address("web", pool).await?;
    ensure!(scene.api("IPAddress").get("web").await?.uid() != uid, "the address of the earlier claim is still there");
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// An address without a claim passes the webhooks, and so does what completes it for a claim of its name.
async fn adopted_from_an_earlier_claim(scene: &Scene, pool: &Pool) -> Result<()> {
    let pool_uid = scene.api(pool.kind).get(&pool.name).await?.uid().context("a pool without UID")?;
    let metadata = json!({"finalizers": [PROTECT], "ownerReferences": [
        {"apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "name": "moved",
         "uid": "01234567-89ab-cdef-0123-456789abcdef", "controller": true, "blockOwnerDeletion": true},
        {"apiVersion": "ipam.cluster.x-k8s.io/v1alpha2", "kind": pool.kind, "name": pool.name,
         "uid": pool_uid, "controller": false, "blockOwnerDeletion": true},
    ]});
    scene.foreign_address("moved", pool, "10.0.0.15", 24, &json!({"metadata": metadata}).to_string()).await?;
    assert_eq!(scene.claim_address("moved", pool).await?, "10.0.0.15");
    let claim = scene.api("IPAddressClaim").get("moved").await?.uid().context("a claim without UID")?;
    let owners = scene.api("IPAddress").get("moved").await?.owner_references().to_vec();
    ensure!(owners.iter().any(|owner| owner.uid == claim), "{owners:?} has no {claim}");
    scene.delete("IPAddressClaim", "moved").await?;
    scene.gone("IPAddress", "moved").await?;
    scene.gone("IPAddressClaim", "moved").await
}

async fn many_claims_at_once_are_bound_as_slowly_as_the_webhooks_answer() -> Result<()> {
    let claims = 100;
    let ((stage, _core), mut witness) = (stage(2, Some(SLOW)).await?, Witness::default());
    let pool = stage.pool_of(claims).await?;
    create(&stage.scene, &pool, 0..claims).await?;
    stage.filled(claims, &mut witness).await?;
    stage.ends_with(claims).await?;
    for number in 0..claims {
        stage.scene.delete("IPAddressClaim", &claim(number)).await?;
    }
    stage.emptied().await?;
    stage.ends_with(0).await
}

async fn an_outage_of_the_webhooks_delays_binds_and_releases_and_changes_nothing_else() -> Result<()> {
    let (going, staying, coming) = (0..20, 20..40, 40..100);
    let ((stage, core), mut witness) = (stage(1, None).await?, Witness::default());
    let scene = &stage.scene;
    let pool = stage.pool_of(coming.end).await?;
    create(scene, &pool, going.start..staying.end).await?;
    stage.filled(staying.end, &mut witness).await?;
    scene.annotate(pool.kind, &pool.name, PAUSED, Some("")).await?;
    create(scene, &pool, coming.clone()).await?;
    for number in going.clone() {
        scene.delete("IPAddressClaim", &claim(number)).await?;
    }
    for number in going.start..coming.end {
        scene.has_finalizer("IPAddressClaim", &claim(number), "ipam.cluster.x-k8s.io/ReleaseAddress").await?;
    }

    core.stop();
    scene.annotate(pool.kind, &pool.name, PAUSED, None).await?;
    let refused =
        scene.delete("IPAddressClaim", &claim(staying.start)).await.err().context("a claim deleted past the webhooks")?;
    ensure!(format!("{refused:#}").contains("failed calling webhook"), "{refused:#}");
    unchanged(&stage, &coming, staying.end).await?;
    stage.managers[0].restart()?;
    unchanged(&stage, &coming, staying.end).await?;

    core.restart()?;
    for number in coming.clone() {
        scene.address(&claim(number)).await?;
    }
    for number in going.clone() {
        scene.gone("IPAddressClaim", &claim(number)).await?;
    }
    stage.ends_with(coming.end - going.end).await
}

/// Watches that no claim is bound or told anything, and none released.
async fn unchanged(stage: &Stage, waiting: &Range<usize>, bound: usize) -> Result<()> {
    let waiting: BTreeSet<_> = waiting.clone().map(claim).collect();
    consistently(QUIET, async || {
        let claims = stage.scene.api("IPAddressClaim").list(&ListParams::default()).await?;
        ensure!(claims.items.len() == waiting.len() + bound, "{} claims are left", claims.items.len());
        for claim in claims.iter().filter(|claim| waiting.contains(&claim.name_any())) {
            ensure!(claim.data["status"].is_null(), "{} was told {}\n{}", claim.name_any(), claim.data["status"], stage.logs());
        }
        let addresses = stage.scene.api("IPAddress").list(&ListParams::default()).await?.items.len();
        ensure!(addresses == bound, "{addresses} addresses, not {bound}");
        Ok(())
    })
    .await
}
