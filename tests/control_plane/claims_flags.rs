//! Claims under flags of the manager, and on servers that know or allow less.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::{CapiCrds, ControlPlane, MANAGER_NAMESPACE, ManagerCommand, Options, QUIET, Scene, eventually};

use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![
        an_old_cluster_api_is_served_in_its_own_version,
        a_manager_of_one_namespace_gives_nothing_that_another_namespace_has,
        a_manager_that_may_not_see_all_addresses_gives_nothing_from_global_pools,
        a_watch_filter_picks_claims_and_marks_addresses,
        consumers_are_not_waited_for_where_that_is_turned_off,
        orphans_are_let_go_as_far_as_the_flag_says,
        a_sticky_pool_remembers_over_a_restart,
    ]
}

const SPEC: &str = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.1}";
const FILTER: &str = "cluster.x-k8s.io/watch-filter";

fn command() -> ManagerCommand {
    ManagerCommand::new(env!("CARGO_BIN_EXE_manager"))
}

async fn scene(control_plane: &ControlPlane, hint: &str) -> Result<Scene> {
    Scene::create(control_plane.client().await?, hint, CapiCrds::Newest).await
}

/// Line 22: a server with v1beta1 only; conditions in the right places.
async fn an_old_cluster_api_is_served_in_its_own_version() -> Result<()> {
    let control_plane = ControlPlane::start(Options { capi_crds: CapiCrds::V1Beta1Only, ..Options::default() })?;
    let _manager = command().start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "old", CapiCrds::V1Beta1Only).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10], prefix: 24, gateway: 10.0.0.1}").await?;
    scene.cluster("green", "{}", true).await?;
    scene.claim_with("web", &pool, "{metadata: {labels: {cluster.x-k8s.io/cluster-name: green}}}").await?;
    scene.no_address("web", QUIET).await?;
    scene.patch("Cluster", "green", &json!({"spec": {"paused": false}})).await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    let claim = scene.api("IPAddressClaim").get("web").await?;
    let conditions = claim.data["status"]["conditions"].as_array().context("no legacy conditions")?;
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("Ready"), &json!("True")));
    let fields: Vec<&String> = conditions[0].as_object().context("no condition")?.keys().collect();
    assert_eq!(fields, ["lastTransitionTime", "status", "type"]);
    let address = scene.api("IPAddress").get("web").await?;
    let versions: Vec<&str> = address.owner_references().iter().map(|owner| &*owner.api_version).collect();
    assert_eq!(versions, ["ipam.cluster.x-k8s.io/v1beta1", "ipam.cluster.x-k8s.io/v1alpha2"]);

    scene.claim("second", &pool).await?;
    scene.tells("second", "PoolExhausted", &["total 1, used 1"]).await?;
    // A condition that this server cannot keep is not written again and again.
    scene.untouched("IPAddressClaim", "second").await?;
    scene.untouched("IPAddressClaim", "web").await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    assert_eq!(scene.address("second").await?, "10.0.0.10");
    let blocks = scene.prefix_pool("blue", "{prefixes: ['fd00::/62']}").await?;
    assert_eq!(scene.claim_address("block", &blocks).await?, "fd00::");
    // A claim without a group, which is legal here, is left alone.
    scene.claim_with("groupless", &pool, "{spec: {poolRef: {apiGroup: null}}}").await?;
    ensure!(scene.event("groupless", "PoolGroupMissing").await?.contains("ipam.cluster.x-k8s.io"));
    scene.untouched("IPAddressClaim", "groupless").await
}

/// Line 23.
async fn a_manager_of_one_namespace_gives_nothing_that_another_namespace_has() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let (a, b) = (scene(&control_plane, "a").await?, scene(&control_plane, "b").await?);
    let _manager_of_a = command().arg(format!("--namespace={}", a.namespace)).start(&control_plane)?;
    let pool = a.global_pool("shared", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    b.claim("web", &pool).await?;
    b.untouched("IPAddressClaim", "web").await?;
    let manager_of_b = command().arg(format!("--namespace={}", b.namespace)).start(&control_plane)?;
    assert_eq!(b.address("web").await?, "10.0.0.10");
    assert_eq!(a.claim_address("web", &pool).await?, "10.0.0.11");
    // Namespaced pools, and a Cluster of the same name in the other namespace, are not its business either.
    let blue = b.pool("blue", SPEC).await?;
    assert_eq!(b.claim_address("blue", &blue).await?, "10.0.0.10");
    manager_of_b.kill();
    b.claim("later", &blue).await?;
    b.delete("IPAddressClaim", "web").await?;
    b.untouched("IPAddressClaim", "later").await?;
    b.untouched("IPAddress", "web").await?;
    assert_eq!(a.claim_address("next", &pool).await?, "10.0.0.12");
    Ok(())
}

/// 11.1: where the cluster-wide list of addresses is forbidden.
async fn a_manager_that_may_not_see_all_addresses_gives_nothing_from_global_pools() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let scene = scene(&control_plane, "narrow").await?;
    control_plane.install_manager_identity()?;
    let resources = ["globalinclusterippools", "globalinclusterprefixpools"];
    let resources: Vec<String> = resources.iter().flat_map(|name| [(*name).to_owned(), format!("{name}/status")]).collect();
    let account = json!({"kind": "ServiceAccount", "name": "narrow", "namespace": MANAGER_NAMESPACE});
    let group = "rbac.authorization.k8s.io";
    let objects = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "narrow", "namespace": MANAGER_NAMESPACE}}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": {"name": "narrow", "namespace": scene.namespace}, "subjects": [account],
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "manager-role"}}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "global-pools"},
            "rules": [{"apiGroups": ["ipam.cluster.x-k8s.io"], "resources": resources,
                "verbs": ["get", "list", "watch", "patch", "update"]}]}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "global-pools"},
            "subjects": [account], "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "global-pools"}}),
    ];
    control_plane.apply(&objects.map(|object| object.to_string()).join("\n---\n"))?;
    let token = control_plane.kubectl(&["create", "token", "narrow", "-n", MANAGER_NAMESPACE])?;
    let mut kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(control_plane.kubeconfig())?)?;
    kubeconfig["users"][0]["user"] = json!({"token": token.trim()});
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), kubeconfig.to_string())?;
    let _manager = command().kubeconfig(file.path()).arg(format!("--namespace={}", scene.namespace)).start(&control_plane)?;

    let pool = scene.pool("blue", SPEC).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    let global = scene.global_pool("shared", SPEC).await?;
    scene.claim("global", &global).await?;
    scene.tells("global", "PoolNotReady", &["addresses of other namespaces are not visible"]).await?;
    ensure!(scene.get("IPAddress", "global").await?.is_none());
    scene.condition_says(&global, "Ready", "False", "AddressesNotVisible", &["not visible"]).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await
}

/// Line 24.
async fn a_watch_filter_picks_claims_and_marks_addresses() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let _manager = command().arg("--watch-filter=x").start(&control_plane)?;
    let scene = scene(&control_plane, "filter").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim("unlabelled", &pool).await?;
    scene.claim_with("other", &pool, &json!({"metadata": {"labels": {FILTER: "y"}}}).to_string()).await?;
    let labelled = json!({"metadata": {"labels": {FILTER: "x"}}}).to_string();
    scene.claim_with("web", &pool, &labelled).await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    let address = scene.api("IPAddress").get("web").await?;
    assert_eq!(serde_json::to_value(address.labels())?, json!({FILTER: "x"}));
    for claim in ["unlabelled", "other"] {
        scene.untouched("IPAddressClaim", claim).await?;
        ensure!(scene.get("IPAddress", claim).await?.is_none());
    }
    // An address found there is marked as well, and those of claims that are not served still hold their value.
    scene.foreign_address("found", &pool, "10.0.0.15", 24, "{}").await?;
    scene.foreign_address("unlabelled", &pool, "10.0.0.11", 24, "{}").await?;
    scene.claim_with("found", &pool, &labelled).await?;
    assert_eq!(scene.address("found").await?, "10.0.0.15");
    assert_eq!(scene.api("IPAddress").get("found").await?.labels().get(FILTER).map(String::as_str), Some("x"));
    scene.claim_with("next", &pool, &labelled).await?;
    assert_eq!(scene.address("next").await?, "10.0.0.12");
    scene.untouched("IPAddress", "unlabelled").await?;
    // A claim that gets the label later is served then.
    scene.patch("IPAddressClaim", "other", &json!({"metadata": {"labels": {FILTER: "x"}}})).await?;
    assert_eq!(scene.address("other").await?, "10.0.0.13");
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await
}

/// 5.6 with `--honor-foreign-finalizers=false`.
async fn consumers_are_not_waited_for_where_that_is_turned_off() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let _manager = command().arg("--honor-foreign-finalizers=false").start(&control_plane)?;
    let scene = scene(&control_plane, "impatient").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_with("web", &pool, "{metadata: {finalizers: [infra.example/machine]}}").await?;
    scene.address("web").await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await?;
    eventually(Duration::from_secs(30), async || {
        let claim = scene.api("IPAddressClaim").get("web").await?;
        ensure!(claim.finalizers() == ["infra.example/machine"], "{:?}", claim.finalizers());
        Ok(())
    })
    .await?;
    scene.stays("IPAddressClaim", "web", QUIET).await
}

/// 5.6 with `--release-orphans=all` and `none`.
async fn orphans_are_let_go_as_far_as_the_flag_says() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let scene = scene(&control_plane, "orphans").await?;
    let blue = scene.pool("blue", SPEC).await?;
    let global = scene.global_pool("shared", SPEC).await?;
    for (flag, orphan, goes) in [("all", "first", true), ("none", "second", false)] {
        let manager = command().arg(format!("--release-orphans={flag}")).start(&control_plane)?;
        for (name, pool) in [(format!("{orphan}-blue"), &blue), (format!("{orphan}-shared"), &global)] {
            scene.claim_address(&name, pool).await?;
            scene.annotate("IPAddressClaim", &name, "cluster.x-k8s.io/paused", Some("")).await?;
            scene.delete("IPAddressClaim", &name).await?;
            scene.set_finalizers("IPAddressClaim", &name, &[]).await?;
            scene.gone("IPAddressClaim", &name).await?;
            scene.delete("IPAddress", &name).await?;
            if goes {
                scene.gone("IPAddress", &name).await?;
            } else {
                scene.stays("IPAddress", &name, QUIET).await?;
                ensure!(scene.event(&name, "OrphanedAddress").await?.contains("is kept"));
            }
        }
        manager.kill();
    }
    Ok(())
}

/// Line 13.
async fn a_sticky_pool_remembers_over_a_restart() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = command().start(&control_plane)?;
    let scene = scene(&control_plane, "sticky").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.annotate(pool.kind, "blue", "in-cluster.ipam.cluster.x-k8s.io/sticky", Some("1h")).await?;
    for claim in ["a", "b"] {
        scene.claim_address(claim, &pool).await?;
    }
    for claim in ["b", "a"] {
        scene.delete("IPAddressClaim", claim).await?;
        scene.gone("IPAddressClaim", claim).await?;
    }
    manager.restart()?;
    manager.wait_until_ready()?;
    assert_eq!(scene.claim_address("new", &pool).await?, "10.0.0.12");
    assert_eq!(scene.claim_address("b", &pool).await?, "10.0.0.11");
    assert_eq!(scene.claim_address("a", &pool).await?, "10.0.0.10");
    Ok(())
}
