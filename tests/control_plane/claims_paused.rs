//! Claims that are held up by a pause: of the pool, of their cluster, or of their own.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use testbed::{Counts, Pool, QUIET, Scene};

use crate::conformance;
use crate::fixture::{Conformance, Fixture, Mode};

pub fn trials() -> Vec<Conformance> {
    conformance![
        a_paused_pool_gives_nothing_until_it_goes_on,
        a_paused_pool_keeps_the_addresses_of_deleted_claims,
        a_cluster_of_the_spec_pauses_its_claims,
        a_cluster_of_the_label_pauses_its_claims,
        a_claim_waits_for_its_cluster,
        an_empty_cluster_label_names_no_cluster,
        a_claim_goes_although_its_cluster_is_missing,
        a_paused_claim_is_left_alone,
        a_paused_claim_that_never_got_anything_can_go,
    ]
}

const PAUSED: &str = "cluster.x-k8s.io/paused";
const RELEASE: &str = "ipam.cluster.x-k8s.io/ReleaseAddress";
const SPEC: &str = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}";

async fn blue(scene: &Scene) -> Result<Pool> {
    scene.pool("blue", SPEC).await
}

/// C12, both. The value of the annotation does not matter.
async fn a_paused_pool_gives_nothing_until_it_goes_on(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("pausedpool").await?;
    let name = format!("global-{}", scene.namespace);
    for (kind, name, value) in [("InClusterIPPool", "blue".to_owned(), "false"), ("GlobalInClusterIPPool", name, "")] {
        let pool = scene.annotated_pool(kind, &name, PAUSED, value, SPEC).await?;
        let claim = format!("on-{}", pool.name);
        scene.claim(&claim, &pool).await?;
        scene.has_finalizer("IPAddressClaim", &claim, RELEASE).await?;
        scene.no_address(&claim, QUIET).await?;
        ensure!(scene.ready(&claim).await?.is_none(), "a pause is no failure");
        scene.annotate(kind, &pool.name, PAUSED, None).await?;
        assert_eq!(scene.address(&claim).await?, "10.0.0.10");
    }
    Ok(())
}

/// C13.
async fn a_paused_pool_keeps_the_addresses_of_deleted_claims(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("pausedgo").await?;
    let pool = blue(&scene).await?;
    scene.claim_address("web", &pool).await?;
    scene.annotate(pool.kind, "blue", PAUSED, Some("")).await?;
    // Pools and claims are watched apart: numbers of a later spec tell that the pause has been seen.
    scene.respec(&pool, "{addresses: [10.0.0.10-10.0.0.21]}").await?;
    scene.counts_become(&pool, Counts { total: 12, used: 1, free: 11, out_of_range: 0 }).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.stays("IPAddressClaim", "web", QUIET).await?;
    ensure!(scene.api("IPAddress").get("web").await?.metadata.deletion_timestamp.is_none());
    scene.annotate(pool.kind, "blue", PAUSED, None).await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// C17: paused by spec or by annotation, at creation or after unrelated updates; unpausing either way.
async fn a_cluster_of_the_spec_pauses_its_claims(fixture: &Fixture) -> Result<()> {
    pause_and_go_on(fixture, &fixture.scene("specpause").await?, |cluster| json!({"spec": {"clusterName": cluster}})).await
}

/// C18.
async fn a_cluster_of_the_label_pauses_its_claims(fixture: &Fixture) -> Result<()> {
    let named = |cluster: &str| json!({"metadata": {"labels": {"cluster.x-k8s.io/cluster-name": cluster}}});
    pause_and_go_on(fixture, &fixture.scene("labelpause").await?, named).await
}

async fn pause_and_go_on(fixture: &Fixture, scene: &Scene, named: impl Fn(&str) -> serde_json::Value) -> Result<()> {
    let pool = blue(scene).await?;
    scene.cluster("by-spec", "{}", true).await?;
    scene.cluster("by-note", "{annotations: {cluster.x-k8s.io/paused: ''}}", false).await?;
    for cluster in ["by-spec", "by-note"] {
        scene.claim_with(cluster, &pool, &named(cluster).to_string()).await?;
    }
    // Unrelated updates change nothing.
    for cluster in ["by-spec", "by-note"] {
        scene.annotate("IPAddressClaim", cluster, "a", Some("b")).await?;
        scene.annotate("Cluster", cluster, "a", Some("b")).await?;
    }
    for cluster in ["by-spec", "by-note"] {
        scene.untouched("IPAddressClaim", cluster).await?;
        scene.no_address(cluster, QUIET).await?;
        // The webhook adds the finalizer without asking after the Cluster.
        if fixture.mode != Mode::Webhooks {
            assert_eq!(scene.api("IPAddressClaim").get(cluster).await?.finalizers(), [] as [&str; 0]);
        }
    }
    scene.patch("Cluster", "by-spec", &json!({"spec": {"paused": false}})).await?;
    assert_eq!(scene.address("by-spec").await?, "10.0.0.10");
    scene.annotate("Cluster", "by-note", PAUSED, None).await?;
    assert_eq!(scene.address("by-note").await?, "10.0.0.11");

    // A claim of a running cluster is held as soon as the cluster is paused, also in deletion.
    scene.patch("Cluster", "by-spec", &json!({"spec": {"paused": true}})).await?;
    scene.stays("IPAddress", "by-spec", QUIET).await?;
    scene.delete("IPAddressClaim", "by-spec").await?;
    scene.stays("IPAddress", "by-spec", QUIET).await?;
    ensure!(scene.api("IPAddress").get("by-spec").await?.metadata.deletion_timestamp.is_none());
    scene.patch("Cluster", "by-spec", &json!({"spec": {"paused": false}})).await?;
    scene.gone("IPAddressClaim", "by-spec").await
}

/// C19, and a Cluster of the same name elsewhere is not it.
async fn a_claim_waits_for_its_cluster(fixture: &Fixture) -> Result<()> {
    let (scene, elsewhere) = (fixture.scene("lonely").await?, fixture.scene("elsewhere").await?);
    elsewhere.cluster("green", "{}", false).await?;
    let pool = blue(&scene).await?;
    let finalizer = "{metadata: {finalizers: [ipam.cluster.x-k8s.io/ReleaseAddress]}, spec: {clusterName: green}}";
    scene.claim_with("plain", &pool, "{spec: {clusterName: green}}").await?;
    scene.claim_with("label", &pool, "{metadata: {labels: {cluster.x-k8s.io/cluster-name: green}}}").await?;
    scene.claim_with("finalizer", &pool, finalizer).await?;
    scene.claim_with("going", &pool, finalizer).await?;
    for name in ["plain", "label", "finalizer"] {
        scene.untouched("IPAddressClaim", name).await?;
        assert!(scene.get("IPAddress", name).await?.is_none());
    }
    // "deletion still completes"
    for name in ["going", "plain"] {
        scene.delete("IPAddressClaim", name).await?;
        scene.gone("IPAddressClaim", name).await?;
    }
    scene.cluster("green", "{}", false).await?;
    scene.address("label").await?;
    scene.address("finalizer").await?;
    Ok(())
}

async fn an_empty_cluster_label_names_no_cluster(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("nocluster").await?;
    let pool = blue(&scene).await?;
    scene.claim_with("web", &pool, "{metadata: {labels: {cluster.x-k8s.io/cluster-name: ''}}}").await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    Ok(())
}

/// C20.
async fn a_claim_goes_although_its_cluster_is_missing(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("widow").await?;
    let pool = blue(&scene).await?;
    scene.cluster("green", "{}", false).await?;
    scene.claim_with("web", &pool, "{spec: {clusterName: green}}").await?;
    scene.address("web").await?;
    scene.delete("Cluster", "green").await?;
    scene.gone("Cluster", "green").await?;
    scene.stays("IPAddress", "web", QUIET).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// C21, and the same for the deletion of a claim that is bound.
async fn a_paused_claim_is_left_alone(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("pausedclaim").await?;
    let pool = blue(&scene).await?;
    scene.claim_with("web", &pool, "{metadata: {annotations: {cluster.x-k8s.io/paused: ''}}}").await?;
    scene.untouched("IPAddressClaim", "web").await?;
    scene.no_address("web", QUIET).await?;
    scene.annotate("IPAddressClaim", "web", PAUSED, None).await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    scene.ready_becomes("web", "True", "AddressAllocated").await?;

    scene.annotate("IPAddressClaim", "web", PAUSED, Some("")).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.untouched("IPAddressClaim", "web").await?;
    ensure!(scene.api("IPAddress").get("web").await?.metadata.deletion_timestamp.is_none());
    scene.annotate("IPAddressClaim", "web", PAUSED, None).await?;
    scene.gone("IPAddressClaim", "web").await
}

/// 5.2: a finalizer that came with the claim's creation must not keep a held claim for ever.
async fn a_paused_claim_that_never_got_anything_can_go(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("pausedempty").await?;
    let pool = blue(&scene).await?;
    scene.cluster("green", "{}", true).await?;
    let finalizer = json!({"finalizers": [RELEASE]});
    let mut noted = json!({"metadata": finalizer});
    noted["metadata"]["annotations"] = json!({PAUSED: ""});
    scene.claim_with("noted", &pool, &noted.to_string()).await?;
    scene.claim_with("member", &pool, &json!({"metadata": finalizer, "spec": {"clusterName": "green"}}).to_string()).await?;
    for name in ["noted", "member"] {
        scene.untouched("IPAddressClaim", name).await?;
        scene.delete("IPAddressClaim", name).await?;
        scene.gone("IPAddressClaim", name).await?;
    }
    Ok(())
}
