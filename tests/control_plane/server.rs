//! The control plane itself is what the other trials believe it is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{
    Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, Counts, Options, Scene, eventually};

use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![
        cluster_apis_kinds_are_served_in_both_versions,
        an_old_cluster_api_release_serves_v1beta1_only,
        the_garbage_collector_removes_what_lost_its_owner,
        objects_survive_an_outage_and_forgotten_history_is_gone,
        the_managers_identity_may_read_clusters_but_no_secrets,
        a_scene_shows_what_a_manager_writes,
    ]
}

fn claims(client: &kube::Client, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("ipam.cluster.x-k8s.io", version, "IPAddressClaim");
    Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&kind))
}

async fn create_claim(claims: &Api<DynamicObject>, version: &str) -> Result<()> {
    let claim = serde_json::from_value(json!({
        "apiVersion": format!("ipam.cluster.x-k8s.io/{version}"),
        "kind": "IPAddressClaim",
        "metadata": {"name": "web"},
        "spec": {"poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"}},
    }))?;
    claims.create(&PostParams::default(), &claim).await?;
    Ok(())
}

async fn cluster_apis_kinds_are_served_in_both_versions() -> Result<()> {
    let control_plane = ControlPlane::start(Options { capi_crds: CapiCrds::Newest, own_crds: false, ..Options::default() })?;
    let client = control_plane.client().await?;
    create_claim(&claims(&client, "v1beta1"), "v1beta1").await?;
    let read = claims(&client, "v1beta2").get("web").await?;
    assert_eq!(read.data["spec"]["poolRef"]["name"], "blue");
    for plural in ["ipaddresses.v1beta1", "ipaddresses.v1beta2", "clusters.v1beta2"] {
        let group = if plural.starts_with("clusters") { "cluster.x-k8s.io" } else { "ipam.cluster.x-k8s.io" };
        control_plane.kubectl(&["get", &format!("{plural}.{group}"), "--all-namespaces"])?;
    }
    Ok(())
}

async fn an_old_cluster_api_release_serves_v1beta1_only() -> Result<()> {
    let control_plane = ControlPlane::start(Options { capi_crds: CapiCrds::V1Beta1Only, own_crds: false, ..Options::default() })?;
    let client = control_plane.client().await?;
    create_claim(&claims(&client, "v1beta1"), "v1beta1").await?;
    let refused = claims(&client, "v1beta2").get("web").await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 404), "{refused:?}");
    Ok(())
}

async fn the_garbage_collector_removes_what_lost_its_owner() -> Result<()> {
    let control_plane = ControlPlane::start(Options { capi_crds: CapiCrds::Newest, own_crds: false, ..Options::default() })?;
    let client = control_plane.client().await?;
    let claims = claims(&client, "v1beta2");
    create_claim(&claims, "v1beta2").await?;
    let owner = claims.get("web").await?.metadata.uid.context("a claim without UID")?;
    let config_maps = Api::<ConfigMap>::namespaced(client, "default");
    let dependent = serde_json::from_value(json!({"metadata": {"name": "dependent", "ownerReferences": [
        {"apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "name": "web", "uid": owner},
    ]}}))?;
    config_maps.create(&PostParams::default(), &dependent).await?;
    control_plane.kubectl(&["delete", "ipaddressclaim", "web"])?;
    eventually(Duration::from_secs(30), async || {
        ensure!(config_maps.get_opt("dependent").await?.is_none(), "the dependent object still exists");
        Ok(())
    })
    .await
}

async fn objects_survive_an_outage_and_forgotten_history_is_gone() -> Result<()> {
    let control_plane = ControlPlane::start(Options { capi_crds: CapiCrds::None, own_crds: false, ..Options::default() })?;
    let config_maps = Api::<ConfigMap>::namespaced(control_plane.client().await?, "default");
    let object = serde_json::from_value(json!({"metadata": {"name": "kept"}}))?;
    let old = config_maps.create(&PostParams::default(), &object).await?.metadata.resource_version.context("no version")?;
    for round in 0..3 {
        let patch = json!({"data": {"round": round.to_string()}});
        config_maps.patch("kept", &PatchParams::default(), &Patch::Merge(patch)).await?;
    }

    control_plane.stop_apiserver();
    assert!(config_maps.get("kept").await.is_err());
    control_plane.restart_etcd()?;
    control_plane.compact_etcd()?;
    control_plane.start_apiserver()?;

    let kept = config_maps.get("kept").await?;
    assert_eq!(kept.data.context("no data")?["round"], "2");
    let events = config_maps.watch(&WatchParams::default().timeout(10), &old).await?;
    pin_mut!(events);
    let first = events.next().await.context("the watch ended without an event")??;
    assert!(matches!(&first, WatchEvent::Error(status) if status.code == 410), "{first:?}");
    Ok(())
}

async fn the_managers_identity_may_read_clusters_but_no_secrets() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let client = control_plane.client_as(&control_plane.install_manager_identity()?).await?;
    let clusters = ApiResource::from_gvk(&GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta2", "Cluster"));
    Api::<DynamicObject>::all_with(client.clone(), &clusters).list(&ListParams::default()).await?;
    let refused = Api::<Secret>::all(client).list(&ListParams::default()).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 403), "{refused:?}");
    Ok(())
}

async fn a_scene_shows_what_a_manager_writes() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let scene = Scene::create(control_plane.client().await?, "scene", CapiCrds::Newest).await?;
    let pools = [
        scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?,
        scene.global_pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?,
        scene.prefix_pool("blue", "{prefixes: ['fd00::/48']}").await?,
        scene.global_prefix_pool("blue", "{prefixes: ['fd00::/48']}").await?,
    ];
    for (number, pool) in pools.iter().enumerate() {
        let claim = format!("web-{number}");
        scene.claim_with(&claim, pool, "{metadata: {labels: {tier: web}}}").await?;
        scene.no_address(&claim, Duration::from_millis(200)).await?;
        let text = format!(
            "{{kind: IPAddress, metadata: {{name: {claim}}}, spec: {{claimRef: {{name: {claim}}}, address: 10.0.0.1{number}, prefix: 24,
               poolRef: {{apiGroup: ipam.cluster.x-k8s.io, kind: {}, name: {}}}}}}}",
            pool.kind, pool.name
        );
        scene.object(&text).await?;
        let bound = json!({"status": {"addressRef": {"name": claim}}});
        scene.api("IPAddressClaim").patch_status(&claim, &PatchParams::default(), &Patch::Merge(bound)).await?;
        assert_eq!(scene.address(&claim).await?, format!("10.0.0.1{number}"));

        assert_eq!(scene.counts(pool).await?, None);
        let numbers = json!({"status": {"ipAddresses": {"total": 11, "used": 1, "free": 10, "outOfRange": 0}}});
        scene.api(pool.kind).patch_status(&pool.name, &PatchParams::default(), &Patch::Merge(numbers)).await?;
        scene.counts_become(pool, Counts { total: 11, used: 1, free: 10, out_of_range: 0 }).await?;

        scene.delete("IPAddressClaim", &claim).await?;
        scene.gone("IPAddressClaim", &claim).await?;
    }
    Ok(())
}
