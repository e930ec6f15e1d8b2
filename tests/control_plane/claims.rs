//! Claims on a live server: which ones are served, and what they are given.

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::{Counts, Pool, QUIET, Scene};

use crate::conformance;
use crate::fixture::{Conformance, Fixture};

pub fn trials() -> Vec<Conformance> {
    conformance![
        claims_of_other_kinds_and_groups_are_never_touched,
        claims_of_other_providers_are_not_touched_when_their_cluster_changes,
        a_claim_without_a_group_is_left_alone,
        addresses_count_by_group_and_kind,
        an_address_has_exactly_the_fields_of_the_contract,
        claims_get_the_lowest_free_addresses_in_order,
        claims_made_at_once_are_served_in_the_order_of_creation,
        a_claim_waits_for_its_pool_and_can_go_without_it,
        network_gateway_and_broadcast_are_never_given,
        exclusions_are_skipped,
        the_lowest_address_comes_first_whatever_the_order_of_the_list,
        sets_are_as_wide_as_their_entries,
        a_global_pool_serves_every_namespace,
        pools_of_one_name_allocate_independently,
        the_longest_names_are_served,
    ]
}

const GROUP: &str = "ipam.cluster.x-k8s.io";

/// C1, R: other kind, other group; through create, update and delete.
async fn claims_of_other_kinds_and_groups_are_never_touched(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("foreign").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let foreign = [
        ("kind", "{spec: {poolRef: {kind: UnknownPool}}}"),
        ("near", "{spec: {poolRef: {kind: inclusterippool}}}"),
        ("group", "{spec: {poolRef: {apiGroup: ipam.other.example}}}"),
        ("longer", "{spec: {poolRef: {apiGroup: x.ipam.cluster.x-k8s.io}}}"),
    ];
    for (name, other) in foreign {
        scene.claim_with(name, &pool, other).await?;
    }
    for (name, _) in foreign {
        scene.patch("IPAddressClaim", name, &json!({"metadata": {"labels": {"a": "b"}}})).await?;
    }
    // A claim of ours that came later is served, so the others were seen.
    assert_eq!(scene.claim_address("ours", &pool).await?, "10.0.0.10");
    for (name, _) in foreign {
        scene.untouched("IPAddressClaim", name).await?;
        assert!(scene.get("IPAddress", name).await?.is_none());
        scene.delete("IPAddressClaim", name).await?;
        // No finalizer holds it.
        assert!(scene.get("IPAddressClaim", name).await?.is_none());
    }
    Ok(())
}

/// 5.1: events of a Cluster wake claims of its namespace; those of other providers are none of ours.
async fn claims_of_other_providers_are_not_touched_when_their_cluster_changes(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("neighbours").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    scene.cluster("green", "{}", true).await?;
    let foreign = "{spec: {clusterName: green, poolRef: {apiGroup: ipam.other.example}}}";
    scene.claim_with("foreign", &pool, foreign).await?;
    scene.claim_with("ours", &pool, "{spec: {clusterName: green}}").await?;
    scene.patch("Cluster", "green", &json!({"spec": {"paused": false}})).await?;
    assert_eq!(scene.address("ours").await?, "10.0.0.10");
    scene.untouched("IPAddressClaim", "foreign").await?;
    scene.delete("Cluster", "green").await?;
    scene.gone("Cluster", "green").await?;
    scene.untouched("IPAddressClaim", "foreign").await?;
    assert!(scene.get("IPAddress", "foreign").await?.is_none());
    Ok(())
}

/// R: empty group. Only v1beta1 can leave it out.
async fn a_claim_without_a_group_is_left_alone(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("groupless").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let old = scene.in_v1beta1();
    old.claim_with("absent", &pool, "{spec: {poolRef: {apiGroup: null}}}").await?;
    old.claim_with("empty", &pool, "{spec: {poolRef: {apiGroup: ''}}}").await?;
    for name in ["absent", "empty"] {
        scene.untouched("IPAddressClaim", name).await?;
        assert!(scene.get("IPAddress", name).await?.is_none());
        scene.delete("IPAddressClaim", name).await?;
        assert!(scene.get("IPAddressClaim", name).await?.is_none());
    }
    Ok(())
}

/// R for addresses: one without a group holds its address, those of other groups and kinds do not.
async fn addresses_count_by_group_and_kind(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("holders").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let foreign = [
        ("group", "{spec: {poolRef: {apiGroup: ipam.other.example}}}"),
        ("kind", "{spec: {poolRef: {kind: UnknownPool}}}"),
        ("global", "{spec: {poolRef: {kind: GlobalInClusterIPPool}}}"),
    ];
    for (name, other) in foreign {
        scene.foreign_address(name, &pool, "10.0.0.10", 24, other).await?;
    }
    let groupless = "{spec: {poolRef: {apiGroup: null}}}";
    scene.in_v1beta1().foreign_address("groupless", &pool, "10.0.0.11", 24, groupless).await?;
    scene.counts_become(&pool, Counts { total: 11, used: 1, free: 10, out_of_range: 0 }).await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "10.0.0.10");
    assert_eq!(scene.claim_address("second", &pool).await?, "10.0.0.12");
    scene.untouched("IPAddress", "groupless").await
}

/// C2, both kinds of IP pools; and with a cluster that only the spec names.
async fn an_address_has_exactly_the_fields_of_the_contract(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("contract").await?;
    scene.cluster("green", "{}", false).await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.1}";
    let label = "{metadata: {labels: {cluster.x-k8s.io/cluster-name: green, mine: too}}}";
    for (pool, name, more) in [
        (scene.pool("blue", spec).await?, "named", label),
        (scene.global_pool("blue", spec).await?, "global", "{spec: {clusterName: green}}"),
    ] {
        scene.claim_with(name, &pool, more).await?;
        scene.address(name).await?;
        let claim = scene.api("IPAddressClaim").get(name).await?;
        assert_eq!(claim.finalizers(), ["ipam.cluster.x-k8s.io/ReleaseAddress"]);
        assert_eq!(claim.data["status"]["addressRef"], json!({"name": name}));
        let owner = scene.api(pool.kind).get(&pool.name).await?;
        let version = format!("{GROUP}/{}", scene.capi_version);
        let address = scene.api("IPAddress").get(name).await?;
        let mut seen = serde_json::to_value(&address)?;
        for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
            seen["metadata"].as_object_mut().and_then(|meta| meta.remove(field)).context(field)?;
        }
        assert_eq!(
            seen,
            json!({
                "apiVersion": version,
                "kind": "IPAddress",
                "metadata": {
                    "name": name,
                    "namespace": scene.namespace,
                    "labels": {"cluster.x-k8s.io/cluster-name": "green"},
                    "finalizers": ["ipam.cluster.x-k8s.io/ProtectAddress"],
                    "ownerReferences": [
                        {"apiVersion": version, "kind": "IPAddressClaim", "name": name,
                         "uid": claim.uid(), "controller": true, "blockOwnerDeletion": true},
                        {"apiVersion": "ipam.cluster.x-k8s.io/v1alpha2", "kind": pool.kind, "name": pool.name,
                         "uid": owner.uid(), "controller": false, "blockOwnerDeletion": true},
                    ],
                },
                "spec": {
                    "claimRef": {"name": name},
                    "poolRef": {"apiGroup": GROUP, "kind": pool.kind, "name": pool.name},
                    "address": "10.0.0.10", "prefix": 24, "gateway": "10.0.0.1",
                },
            })
        );
    }
    Ok(())
}

async fn claims_get_the_lowest_free_addresses_in_order(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("lowest").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.10}").await?;
    for (name, address) in [("first", "10.0.0.11"), ("second", "10.0.0.12"), ("third", "10.0.0.13")] {
        assert_eq!(scene.claim_address(name, &pool).await?, address);
    }
    scene.delete("IPAddressClaim", "second").await?;
    scene.gone("IPAddressClaim", "second").await?;
    assert_eq!(scene.claim_address("fourth", &pool).await?, "10.0.0.12");
    // C7
    let pool = scene.pool("open", "{addresses: [10.0.0.10-10.0.0.20], prefix: 0}").await?;
    assert_eq!(scene.claim_address("no-gateway", &pool).await?, "10.0.0.10");
    let address = scene.api("IPAddress").get("no-gateway").await?;
    assert_eq!((address.data["spec"].get("gateway"), &address.data["spec"]["prefix"]), (None, &json!(0)));
    Ok(())
}

async fn claims_made_at_once_are_served_in_the_order_of_creation(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("order").await?;
    let pool = Pool { kind: "InClusterIPPool", name: "late".to_owned() };
    for number in 0..20 {
        scene.claim(&format!("web-{number:02}"), &pool).await?;
    }
    for number in 0..20 {
        scene.tells(&format!("web-{number:02}"), "PoolNotReady", &["does not exist"]).await?;
    }
    scene.no_address("web-00", QUIET).await?;
    scene.pool("late", "{addresses: [10.0.0.1-10.0.0.254], prefix: 24}").await?;
    scene.address("web-19").await?;
    for number in 20..40 {
        scene.claim(&format!("web-{number:02}"), &pool).await?;
    }
    for number in 0..40 {
        assert_eq!(scene.address(&format!("web-{number:02}")).await?, format!("10.0.0.{}", number + 1));
    }
    Ok(())
}

/// C3, both; row 12: the claim says what it waits for, and is served when the pool appears.
async fn a_claim_waits_for_its_pool_and_can_go_without_it(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("missing").await?;
    let global = format!("later-{}", scene.namespace);
    for (kind, pool) in [("InClusterIPPool", "later".to_owned()), ("GlobalInClusterIPPool", global)] {
        let pool = Pool { kind, name: pool };
        let (gone, kept) = (format!("{kind}-gone").to_lowercase(), format!("{kind}-kept").to_lowercase());
        scene.claim(&gone, &pool).await?;
        scene.claim(&kept, &pool).await?;
        scene.tells(&gone, "PoolNotReady", &[kind, &pool.name, "does not exist"]).await?;
        scene.no_address(&gone, QUIET).await?;
        scene.delete("IPAddressClaim", &gone).await?;
        scene.gone("IPAddressClaim", &gone).await?;
        let spec = json!({"kind": kind, "metadata": {"name": pool.name}, "spec": {"addresses": ["10.0.0.9"], "prefix": 24}});
        scene.object(&spec.to_string()).await?;
        assert_eq!(scene.address(&kept).await?, "10.0.0.9");
        scene.ready_becomes(&kept, "True", "AddressAllocated").await?;
    }
    Ok(())
}

/// C4; sets P3, P5.
async fn network_gateway_and_broadcast_are_never_given(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("reserved").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.0-10.0.0.2, 10.0.0.255], prefix: 24, gateway: 10.0.0.1}").await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "10.0.0.2");
    scene.claim("second", &pool).await?;
    scene.tells("second", "PoolExhausted", &["blue"]).await?;
    scene.no_address("second", QUIET).await?;
    // P6: with the flag, network and broadcast are given, the gateway still is not.
    let spec = "{addresses: [10.0.0.0-10.0.0.1, 10.0.0.255], prefix: 24, gateway: 10.0.0.1, allocateReservedIPAddresses: true}";
    let pool = scene.pool("green", spec).await?;
    assert_eq!(given(&scene, &pool, 3).await?, ["10.0.0.0", "10.0.0.255"]);
    // P11, P13: the anycast address and the gateway of IPv6.
    let pool = scene.pool("six", "{addresses: ['fd01::0-fd01::3'], prefix: 120, gateway: 'fd01::2'}").await?;
    assert_eq!(given(&scene, &pool, 3).await?, ["fd01::1", "fd01::3"]);
    Ok(())
}

/// C5, and exclusions that come later.
async fn exclusions_are_skipped(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("excluded").await?;
    let spec = "{addresses: [10.0.0.5-10.0.0.11], prefix: 24, excludedAddresses: [10.0.0.5, 10.0.0.7]}";
    let pool = scene.pool("blue", spec).await?;
    for (name, address) in [("first", "10.0.0.6"), ("second", "10.0.0.8"), ("third", "10.0.0.9")] {
        assert_eq!(scene.claim_address(name, &pool).await?, address);
    }
    let excluded = json!({"spec": {"excludedAddresses": ["10.0.0.5", "10.0.0.7", "10.0.0.10"]}});
    scene.patch(pool.kind, &pool.name, &excluded).await?;
    scene.counts_become(&pool, Counts { total: 4, used: 3, free: 1, out_of_range: 0 }).await?;
    assert_eq!(scene.claim_address("fourth", &pool).await?, "10.0.0.11");
    Ok(())
}

/// C6, C9.
async fn the_lowest_address_comes_first_whatever_the_order_of_the_list(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("sorted").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.128, 10.0.0.100-10.0.0.101, 10.0.0.50], prefix: 24}").await?;
    assert_eq!(given(&scene, &pool, 4).await?, ["10.0.0.50", "10.0.0.100", "10.0.0.101", "10.0.0.128"]);
    let pool = scene.pool("singles", "{addresses: [10.0.0.50, 10.0.0.128], prefix: 24}").await?;
    assert_eq!(given(&scene, &pool, 3).await?, ["10.0.0.50", "10.0.0.128"]);
    Ok(())
}

/// P4: the reserved addresses are those of the whole subnet, not of every /24 in it.
async fn sets_are_as_wide_as_their_entries(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("sets").await?;
    let spec = "{addresses: [192.168.0.255, 192.168.1.0, 192.168.255.255, 192.168.0.3-192.168.0.4, 192.168.0.6/31], prefix: 16}";
    let pool = scene.pool("blue", spec).await?;
    let given = given(&scene, &pool, 7).await?;
    assert_eq!(
        given,
        ["192.168.0.3", "192.168.0.4", "192.168.0.6", "192.168.0.7", "192.168.0.255", "192.168.1.0"],
        "the broadcast address of the /16 is the only one left out"
    );
    Ok(())
}

/// C8, C11.
async fn a_global_pool_serves_every_namespace(fixture: &Fixture) -> Result<()> {
    let (one, two) = (fixture.scene("north").await?, fixture.scene("south").await?);
    let pool = one.global_pool("shared", "{addresses: [10.0.0.2-10.0.0.254], prefix: 24}").await?;
    assert_eq!(one.claim_address("a", &pool).await?, "10.0.0.2");
    assert_eq!(two.claim_address("b", &pool).await?, "10.0.0.3");
    assert_eq!(one.claim_address("twin", &pool).await?, "10.0.0.4");
    assert_eq!(two.claim_address("twin", &pool).await?, "10.0.0.5");
    one.delete("IPAddressClaim", "twin").await?;
    one.gone("IPAddressClaim", "twin").await?;
    assert_eq!(two.address("twin").await?, "10.0.0.5");
    Ok(())
}

/// C10: the same address twice is right there.
async fn pools_of_one_name_allocate_independently(fixture: &Fixture) -> Result<()> {
    let (one, two) = (fixture.scene("east").await?, fixture.scene("west").await?);
    let spec = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}";
    let pools = [one.pool("blue", spec).await?, two.pool("blue", spec).await?];
    assert_eq!(one.claim_address("web", &pools[0]).await?, "10.0.0.10");
    assert_eq!(two.claim_address("web", &pools[1]).await?, "10.0.0.10");
    let global = one.global_pool("both", spec).await?;
    let named = one.pool(&global.name, spec).await?;
    assert_eq!(one.claim_address("global", &global).await?, "10.0.0.10");
    assert_eq!(one.claim_address("named", &named).await?, "10.0.0.10");
    Ok(())
}

async fn the_longest_names_are_served(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("long").await?;
    let name = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
    assert_eq!(name.len(), 253);
    let pool = scene.pool(&name, "{addresses: [10.0.0.10], prefix: 24}").await?;
    assert_eq!(scene.claim_address(&name, &pool).await?, "10.0.0.10");
    scene.claim("waits", &pool).await?;
    scene.tells("waits", "PoolExhausted", &[&name]).await?;
    scene.delete("IPAddressClaim", &name).await?;
    scene.gone("IPAddressClaim", &name).await?;
    assert_eq!(scene.address("waits").await?, "10.0.0.10");
    Ok(())
}

/// Creates `count` claims on a pool and returns the addresses given, in the claims' order. One that gets none must say that the
/// pool is exhausted, and comes last.
async fn given(scene: &Scene, pool: &Pool, count: usize) -> Result<Vec<String>> {
    let mut given = Vec::new();
    for number in 0..count {
        let name = format!("{}-{number}", pool.name);
        scene.claim(&name, pool).await?;
        let claim = testbed::eventually(std::time::Duration::from_secs(30), async || {
            let claim = scene.api("IPAddressClaim").get(&name).await?;
            ensure!(claim.data["status"]["conditions"] != Value::Null, "{name} says nothing yet");
            Ok(claim)
        });
        let bound = claim.await?.data["status"]["addressRef"]["name"].is_string();
        if !bound {
            scene.tells(&name, "PoolExhausted", &[&pool.name]).await?;
            ensure!(number + 1 == count, "{name} got nothing");
            return Ok(given);
        }
        given.push(scene.address(&name).await?);
    }
    Ok(given)
}
