//! A release in the place of the provider that a cluster runs already: objects stay as they are and gain what is new.
//!
//! That provider's components and objects are made here from what is known of them: bound claims without conditions, pools
//! with counts only, definitions without our status fields, one flag.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::{BuiltRelease, CapiCrds, ControlPlane, MANAGER_NAMESPACE, Options, Pool, Release, Scene, eventually};

use crate::{apply, bare, clusterctl, release, start_installed, without_webhooks};

const EARLIER: &str = "v1.1.0";
const PATIENCE: Duration = Duration::from_secs(30);

/// The components as they were before: derived from ours by taking away what is new.
fn earlier_components() -> Result<String> {
    let mut texts = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(release().components()) {
        let mut object = Value::deserialize(document)?;
        match object["kind"].as_str() {
            Some("CustomResourceDefinition") => make_earlier_definition(&mut object)?,
            Some("Deployment") => {
                let pod = &mut object["spec"]["template"]["spec"];
                let container = &mut pod["containers"][0];
                container["image"] = "localhost/earlier:v1.1.0".into();
                container["args"] = json!(["--leader-elect"]);
                container["ports"] = json!([{"containerPort": 9443, "name": "webhook-server", "protocol": "TCP"}]);
                container.as_object_mut().context("no container")?.remove("env");
            }
            Some("MutatingWebhookConfiguration") => {
                object["webhooks"].as_array_mut().context("no webhooks")?.truncate(4);
            }
            _ => {}
        }
        texts.push(object.to_string());
    }
    let config = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "capi-ipam-in-cluster-manager-config",
            "namespace": MANAGER_NAMESPACE,
            "labels": {"cluster.x-k8s.io/provider": "ipam-in-cluster"},
        },
        "data": {"controller_manager_config.yaml": ""},
    });
    texts.push(config.to_string());
    Ok(texts.join("\n---\n"))
}

fn make_earlier_definition(crd: &mut Value) -> Result<()> {
    let labels = crd["metadata"]["labels"].as_object_mut().context("no labels")?;
    labels.retain(|label, _| !label.starts_with("cluster.x-k8s.io/v1beta"));
    for version in crd["spec"]["versions"].as_array_mut().context("no versions")? {
        let status = &mut version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        status.as_object_mut().context("no status")?.retain(|field, _| field == "ipAddresses");
    }
    Ok(())
}

/// Pools of both scopes, each with two bound claims, as the earlier provider leaves them.
struct Left {
    scene: Scene,
    pools: [Pool; 2],
}

const BOUND: [(&str, &str); 4] = [("a-0", "10.0.0.10"), ("a-1", "10.0.0.11"), ("b-0", "10.0.1.10"), ("b-1", "10.0.1.11")];

impl Left {
    async fn on(control_plane: &ControlPlane) -> Result<Self> {
        let scene = Scene::create(control_plane.client().await?, "left", CapiCrds::Newest).await?;
        let pools = [
            scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24, gateway: 10.0.0.1}").await?,
            scene.global_pool("blue", "{addresses: [10.0.1.10-10.0.1.12], prefix: 24, gateway: 10.0.1.1}").await?,
        ];
        scene.cluster("prod", "{}", false).await?;
        for (number, pool) in pools.iter().enumerate() {
            scene.set_finalizers(pool.kind, &pool.name, &["ipam.cluster.x-k8s.io/ProtectPool"]).await?;
            for (claim, address) in &BOUND[number * 2..number * 2 + 2] {
                bind_as_before(&scene, pool, claim, address).await?;
            }
            let counts = json!({"status": {"ipAddresses": {"total": 3, "used": 2, "free": 1, "outOfRange": 0}}});
            scene.api(pool.kind).patch_status(&pool.name, &PatchParams::default(), &Patch::Merge(counts)).await?;
        }
        Ok(Self { scene, pools })
    }

    /// What must not change: of each object its identity, finalizers, owners, labels, annotations and spec.
    async fn facts(&self) -> Result<Vec<Value>> {
        let mut names: Vec<(&str, &str)> = self.pools.iter().map(|pool| (pool.kind, pool.name.as_str())).collect();
        names.extend(BOUND.iter().flat_map(|(name, _)| [("IPAddressClaim", *name), ("IPAddress", *name)]));
        let mut facts = Vec::new();
        for (kind, name) in names {
            let object = self.scene.get(kind, name).await?.with_context(|| format!("{kind} {name} is gone"))?;
            facts.push(json!({
                "kind": kind,
                "name": name,
                "uid": object.uid(),
                "finalizers": object.finalizers(),
                "owners": object.owner_references(),
                "labels": object.labels(),
                "annotations": object.annotations(),
                "spec": object.data["spec"],
            }));
        }
        Ok(facts)
    }

    /// Bound claims say so, pools say how they are, and the next claim gets what is free.
    async fn gains_what_is_new(&self) -> Result<()> {
        for (claim, address) in BOUND {
            let said = self.scene.ready_becomes(claim, "True", "AddressAllocated").await?;
            assert_eq!(said, format!("allocated {address}/24"));
        }
        for (pool, (claim, address)) in self.pools.iter().zip([("a-2", "10.0.0.12"), ("b-2", "10.0.1.12")]) {
            self.scene.condition_becomes(pool, "Ready", "True", "PoolReady").await?;
            self.scene.up_to_date(pool).await?;
            assert_eq!(self.scene.claim_address(claim, pool).await?, address);
            self.scene.condition_becomes(pool, "Exhausted", "True", "NoFreeAddresses").await?;
        }
        Ok(())
    }
}

/// Makes a claim and its address in the state in which nothing is left to do for the earlier provider.
async fn bind_as_before(scene: &Scene, pool: &Pool, name: &str, address: &str) -> Result<()> {
    let claim = json!({"metadata": {
        "labels": {"cluster.x-k8s.io/cluster-name": "prod"},
        "finalizers": ["ipam.cluster.x-k8s.io/ReleaseAddress"],
    }});
    scene.claim_with(name, pool, &claim.to_string()).await?;
    let claim = scene.api("IPAddressClaim").get(name).await?;
    let pool_object = scene.api(pool.kind).get(&pool.name).await?;
    let owner = |version: &str, kind: &str, name: &str, uid: Option<String>, controller: bool| {
        json!({
            "apiVersion": format!("ipam.cluster.x-k8s.io/{version}"), "kind": kind, "name": name, "uid": uid,
            "controller": controller, "blockOwnerDeletion": true,
        })
    };
    // Some are from when Cluster API had one version less.
    let version = if name.ends_with('0') { "v1beta1" } else { "v1beta2" };
    let address_more = json!({
        "metadata": {
            "labels": {"cluster.x-k8s.io/cluster-name": "prod"},
            "finalizers": ["ipam.cluster.x-k8s.io/ProtectAddress"],
            "ownerReferences": [
                owner(version, "IPAddressClaim", name, claim.uid(), true),
                owner("v1alpha2", pool.kind, &pool.name, pool_object.uid(), false),
            ],
        },
        "spec": {"gateway": pool_object.data["spec"]["gateway"]},
    });
    scene.foreign_address(name, pool, address, 24, &address_more.to_string()).await?;
    let bound = json!({"status": {"addressRef": {"name": name}}});
    scene.api("IPAddressClaim").patch_status(name, &PatchParams::default(), &Patch::Merge(bound)).await?;
    Ok(())
}

#[tokio::test]
async fn clusterctl_upgrades_the_provider_that_is_there() -> Result<()> {
    let control_plane = ControlPlane::start(bare())?;
    let clusterctl = clusterctl()?;
    let components = earlier_components()?;
    let metadata = release().for_repository().metadata;
    clusterctl.add_release(Release { version: EARLIER, components: &components, metadata })?;
    clusterctl.init(&control_plane, EARLIER)?;
    without_webhooks(&control_plane)?;
    let left = Left::on(&control_plane).await?;
    let before = left.facts().await?;

    let target = format!("{MANAGER_NAMESPACE}/in-cluster:{}", BuiltRelease::VERSION);
    clusterctl.run_on(&control_plane, &["upgrade", "apply", "--ipam", &target])?;

    without_webhooks(&control_plane)?;
    let _manager = start_installed(&control_plane)?;
    left.gains_what_is_new().await?;
    assert_eq!(left.facts().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_plain_apply_takes_over_and_the_earlier_provider_can_come_back() -> Result<()> {
    let control_plane = ControlPlane::start(Options { own_crds: false, ..Options::default() })?;
    control_plane.install_cert_manager_crds()?;
    let earlier = earlier_components()?;
    apply(&control_plane, &earlier)?;
    without_webhooks(&control_plane)?;
    let left = Left::on(&control_plane).await?;
    let before = left.facts().await?;

    apply(&control_plane, release().components())?;
    without_webhooks(&control_plane)?;
    let manager = start_installed(&control_plane)?;
    left.gains_what_is_new().await?;
    assert_eq!(left.facts().await?, before);

    assert_eq!(manager.terminate(PATIENCE)?, 0);
    apply(&control_plane, &earlier)?;
    eventually(PATIENCE, async || {
        for pool in &left.pools {
            let status = left.scene.api(pool.kind).get(&pool.name).await?.data["status"].clone();
            let counts = json!({"ipAddresses": {"total": 3, "used": 3, "free": 0, "outOfRange": 0}});
            ensure!(status == counts, "{status}");
        }
        Ok(())
    })
    .await?;
    assert_eq!(left.facts().await?, before);
    Ok(())
}
