//! `clusterctl move` of clusters between two control planes, with a manager at work on each all the time that also serves the
//! webhooks there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use testbed::{
    BuiltRelease, CapiCrds, Clusterctl, ControlPlane, Counts, Manager, Pool, QUIET, Scene, Webhooks, consistently, eventually,
};

use crate::{bare, clusterctl, installed, without_webhooks_of_cluster_api};

const PATIENCE: Duration = Duration::from_secs(30);

/// Claims by name: which pool of [`Moved::pools`], and the address it gets as the first or second claim of it.
const CLAIMS: [(&str, usize, &str); 6] = [
    ("node-0", 0, "10.0.0.10"),
    ("node-1", 0, "10.0.0.11"),
    ("vip-0", 1, "10.0.1.10"),
    ("vip-1", 1, "10.0.1.11"),
    ("site", 2, "fd00::"),
    ("region", 3, "fd01::"),
];

/// A control plane as clusterctl installs it, with its manager.
struct Side {
    // Dropped in this order.
    manager: Manager,
    control_plane: ControlPlane,
}

impl Side {
    fn start(clusterctl: &Clusterctl) -> Result<Self> {
        let control_plane = ControlPlane::start(bare())?;
        clusterctl.init(&control_plane, BuiltRelease::VERSION)?;
        without_webhooks_of_cluster_api(&control_plane)?;
        let (_, manager) = Webhooks::serve_installed(&control_plane, &installed(&control_plane)?)?;
        Ok(Self { manager, control_plane })
    }

    /// How many `IPAddress` objects the manager here has created.
    fn addresses_created(&self) -> Result<usize> {
        let requests = self.control_plane.requests()?;
        let of_addresses = |uri: &str| uri.split('?').next().is_some_and(|path| path.ends_with("/ipaddresses"));
        let created = requests.iter().filter(|request| request.is_managers() && request.verb == "create");
        Ok(created.filter(|request| of_addresses(&request.uri)).count())
    }
}

/// A cluster that clusterctl moves, and the YAML that makes a claim one of its.
async fn cluster(scene: &Scene, name: &str) -> Result<String> {
    scene.cluster(name, "{}", false).await?;
    // To unpause a cluster clusterctl removes a field, and a spec without any is refused.
    scene.patch("Cluster", name, &json!({"spec": {"clusterNetwork": {"serviceDomain": "cluster.local"}}})).await?;
    // clusterctl moves no cluster that is still coming up.
    let up = json!({"status": {
        "initialization": {"infrastructureProvisioned": true, "controlPlaneInitialized": true},
        "conditions": [{
            "type": "ControlPlaneInitialized", "status": "True", "reason": "Initialized", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    let cluster = scene.api("Cluster").patch_status(name, &PatchParams::default(), &Patch::Merge(up)).await?;
    let owner = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "name": name, "uid": cluster.uid(), "controller": true,
    });
    let metadata = json!({"labels": {"cluster.x-k8s.io/cluster-name": name}, "ownerReferences": [owner]});
    Ok(json!({"metadata": metadata, "spec": {"clusterName": name}}).to_string())
}

/// A cluster with bound claims on pools of every kind.
async fn cluster_with_bound_claims(scene: &Scene) -> Result<[Pool; 4]> {
    let of_blue = cluster(scene, "blue").await?;
    let pools = [
        scene.pool("nodes", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.1}").await?,
        scene.global_pool("vips", "{addresses: [10.0.1.10-10.0.1.20], prefix: 24}").await?,
        scene.prefix_pool("sites", "{prefixes: ['fd00::/48']}").await?,
        scene.global_prefix_pool("regions", "{prefixes: ['fd01::/48']}").await?,
    ];
    for (name, pool, address) in CLAIMS {
        scene.claim_with(name, &pools[pool], &of_blue).await?;
        ensure!(scene.address(name).await? == address, "{name} has another address than {address}");
    }
    Ok(pools)
}

/// The address of every `IPAddress` of a scene, by name.
async fn addresses(scene: &Scene) -> Result<BTreeMap<String, String>> {
    let list = scene.api("IPAddress").list(&ListParams::default()).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(list.into_iter().map(|object| (object.name_any(), text(&object.data["spec"]["address"]))).collect())
}

fn expected(pools: &[usize]) -> BTreeMap<String, String> {
    let of_pools = CLAIMS.into_iter().filter(|(_, pool, _)| pools.contains(pool));
    of_pools.map(|(name, _, address)| (name.to_owned(), address.to_owned())).collect()
}

#[tokio::test]
async fn a_moved_cluster_keeps_its_addresses_and_leaves_none_that_could_be_given_twice() -> Result<()> {
    let clusterctl = clusterctl()?;
    let (source, target) = (Side::start(&clusterctl)?, Side::start(&clusterctl)?);
    let here = Scene::create(source.control_plane.client().await?, "moved", CapiCrds::Newest).await?;
    let there = here.elsewhere(target.control_plane.client().await?);
    let pools = cluster_with_bound_claims(&here).await?;
    assert_eq!(source.addresses_created()?, CLAIMS.len());
    for pool in &pools {
        let refused = here.delete(pool.kind, &pool.name).await.err().context("a pool in use can be deleted")?;
        ensure!(format!("{refused:#}").contains("Pool has IPAddresses allocated"), "{refused:#}");
    }

    let to = target.control_plane.kubeconfig().display().to_string();
    let moves = |scene: &Scene| {
        clusterctl.run_on(&source.control_plane, &["move", "--namespace", &scene.namespace, "--to-kubeconfig", &to])
    };
    moves(&here)?;

    arrives(&there, &pools).await?;
    assert_eq!(target.addresses_created()?, 0, "every address on the target is one that was moved");
    leaves(&here, &pools).await?;
    assert_eq!(source.addresses_created()?, CLAIMS.len(), "none was made again on the source");

    // What is left of Global pools on the source is still in use, elsewhere: new claims get other addresses.
    let others = Scene::create(source.control_plane.client().await?, "others", CapiCrds::Newest).await?;
    assert_eq!(others.claim_address("vip", &pools[1]).await?, "10.0.1.12");
    assert_eq!(others.claim_address("region", &pools[3]).await?, "fd01:0:0:1::");

    // On the target life goes on: a released address is given again, a new claim gets the next one.
    there.claim("node-2", &pools[0]).await?;
    assert_eq!(there.address("node-2").await?, "10.0.0.12");
    there.delete("IPAddressClaim", "node-0").await?;
    there.gone("IPAddressClaim", "node-0").await?;
    assert_eq!(there.claim_address("node-3", &pools[0]).await?, "10.0.0.10");

    // Both sides gave the same address of a Global pool meanwhile. Another cluster moves with its.
    assert_eq!(there.claim_address("vip-2", &pools[1]).await?, "10.0.1.12");
    let of_green = cluster(&others, "green").await?;
    others.patch("IPAddressClaim", "vip", &serde_json::from_str(&of_green)?).await?;
    moves(&others)?;
    is_kept_and_told(&others.elsewhere(target.control_plane.client().await?), &there).await?;
    for side in [&source, &target] {
        assert_eq!(side.manager.health("/healthz")?.0, 200);
    }
    Ok(())
}

/// On the target every claim has its address again, with owners of the target, and pools count and protect them.
async fn arrives(there: &Scene, pools: &[Pool; 4]) -> Result<()> {
    for (name, pool, address) in CLAIMS {
        assert_eq!(there.address(name).await?, address);
        there.ready_becomes(name, "True", "AddressAllocated").await?;
        there.has_finalizer("IPAddressClaim", name, "ipam.cluster.x-k8s.io/ReleaseAddress").await?;
        there.has_finalizer("IPAddress", name, "ipam.cluster.x-k8s.io/ProtectAddress").await?;
        let claim = there.api("IPAddressClaim").get(name).await?;
        let pool = there.api(pools[pool].kind).get(&pools[pool].name).await?;
        eventually(PATIENCE, async || {
            // In the order in which clusterctl happens to write them.
            let owners = there.api("IPAddress").get(name).await?.owner_references().to_vec();
            let uids: BTreeSet<_> = owners.iter().map(|owner| Some(owner.uid.clone())).collect();
            ensure!(uids == BTreeSet::from([claim.uid(), pool.uid()]), "{name} is owned by {owners:?}");
            Ok(())
        })
        .await?;
    }
    assert_eq!(addresses(there).await?, expected(&[0, 1, 2, 3]));
    for (pool, (total, used)) in pools.iter().zip([(11, 2), (11, 2), (65536, 1), (65536, 1)]) {
        there.counts_become(pool, Counts { total, used, free: total - used, out_of_range: 0 }).await?;
        there.has_finalizer(pool.kind, &pool.name, "ipam.cluster.x-k8s.io/ProtectPool").await?;
    }
    let cluster = there.api("Cluster").get("blue").await?;
    ensure!(cluster.data["spec"]["paused"] != true, "the moved cluster is still paused");
    Ok(())
}

/// 8.3: an address that was moved is none that its manager may take back, although clusterctl restores even its managed fields.
/// Its claim says who holds the address already, and gets it once that one is gone.
async fn is_kept_and_told(there: &Scene, holders: &Scene) -> Result<()> {
    let holder = format!("{}/vip-2", holders.namespace);
    there.tells("vip", "AllocationFailed", &["10.0.1.12/24 is already held by", &holder]).await?;
    let moved = there.api("IPAddress").get("vip").await?;
    assert_eq!(moved.data["spec"]["address"], "10.0.1.12");
    let mut ours = moved.managed_fields().iter().filter(|entry| entry.manager.as_deref() == Some("ipam-in-cluster"));
    let has_spec = |entry: &ManagedFieldsEntry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some());
    ensure!(ours.any(has_spec), "clusterctl restored no managed fields: {:?}", moved.managed_fields());
    there.stays("IPAddress", "vip", QUIET).await?;
    ensure!(there.bound_address("vip").await?.is_none(), "one address is published twice");
    assert_eq!(holders.address("vip-2").await?, "10.0.1.12");

    holders.delete("IPAddressClaim", "vip-2").await?;
    holders.gone("IPAddress", "vip-2").await?;
    assert_eq!(there.address("vip").await?, "10.0.1.12");
    assert_eq!(there.api("IPAddress").get("vip").await?.uid(), moved.uid());
    Ok(())
}

/// On the source the cluster's namespaced objects are gone and stay gone. Global pools stay, with their addresses.
async fn leaves(here: &Scene, pools: &[Pool; 4]) -> Result<()> {
    for (name, ..) in CLAIMS {
        here.gone("IPAddressClaim", name).await?;
    }
    for pool in [&pools[0], &pools[2]] {
        here.pool_gone(pool).await?;
    }
    let left = expected(&[1, 3]);
    eventually(PATIENCE, async || {
        let now = addresses(here).await?;
        ensure!(now == left, "{now:?}");
        Ok(())
    })
    .await?;
    consistently(QUIET, async || {
        let now = addresses(here).await?;
        ensure!(now == left, "{now:?}");
        Ok(())
    })
    .await?;
    for pool in [&pools[1], &pools[3]] {
        let object = here.get(pool.kind, &pool.name).await?.context("the Global pool is gone from the source")?;
        ensure!(object.metadata.deletion_timestamp.is_none(), "the Global pool is being deleted on the source");
    }
    Ok(())
}
