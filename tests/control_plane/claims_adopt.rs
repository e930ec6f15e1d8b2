//! Addresses that a claim finds under its name: made by hand, by another provider, or by an earlier claim.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use testbed::{Counts, Pool, QUIET, Scene, eventually};

use crate::conformance;
use crate::fixture::{Conformance, Fixture, Mode, except};

pub fn trials() -> Vec<Conformance> {
    let mut trials = conformance![
        a_bare_address_is_completed,
        a_foreign_owner_stays_in_front,
        a_foreign_controller_stays_the_controller,
        an_address_out_of_range_is_adopted_as_it_is,
        an_address_of_an_earlier_claim_is_adopted,
        a_claim_takes_its_pools_reference_when_the_pool_appears,
        an_address_of_another_provider_is_never_touched,
        an_address_with_a_foreign_claim_is_never_touched,
        the_addresses_of_hand_made_objects_are_not_given_again,
        addresses_hold_their_value_however_it_is_written,
        blocks_that_overlap_a_foreign_prefix_are_not_given,
        a_changed_cluster_label_is_copied_again,
        a_hand_made_address_does_not_take_a_published_one,
        a_bound_address_deleted_by_hand_stays_for_its_claim,
        a_removed_address_comes_back,
    ];
    // Webhooks refuse what these need: broken pools, pools that lose what is in use, or addresses that nobody can read.
    let refused = conformance![
        a_pool_made_anew_owns_the_addresses_of_the_old_one,
        a_removed_address_that_was_given_away_is_replaced,
        unreadable_addresses_stop_nobody,
    ];
    trials.extend(except(&[Mode::Webhooks], refused));
    trials
}

const PROTECT: &str = "ipam.cluster.x-k8s.io/ProtectAddress";
const SPEC: &str = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.1}";

/// Kinds, names and roles of an address's owners.
async fn owners(scene: &Scene, address: &str) -> Result<Vec<(String, String, Option<bool>)>> {
    let address = scene.api("IPAddress").get(address).await?;
    let owners = address.owner_references().iter();
    Ok(owners.map(|owner| (owner.kind.clone(), owner.name.clone(), owner.controller)).collect())
}

fn owner(kind: &str, name: &str, controller: impl Into<Option<bool>>) -> (String, String, Option<bool>) {
    (kind.to_owned(), name.to_owned(), controller.into())
}

/// C15: completed, spec untouched.
async fn a_bare_address_is_completed(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("bare").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.cluster("green", "{}", false).await?;
    let before = scene.foreign_address("web", &pool, "10.0.0.15", 25, "{}").await?;
    scene.untouched("IPAddress", "web").await?;
    scene.claim_with("web", &pool, "{metadata: {labels: {cluster.x-k8s.io/cluster-name: green}}}").await?;
    assert_eq!(scene.address("web").await?, "10.0.0.15");
    let after = scene.api("IPAddress").get("web").await?;
    assert_eq!((after.uid(), &after.data["spec"]), (before.uid(), &before.data["spec"]));
    assert_eq!(after.finalizers(), [PROTECT]);
    assert_eq!(after.labels().get("cluster.x-k8s.io/cluster-name").map(String::as_str), Some("green"));
    let wanted = [owner("IPAddressClaim", "web", true), owner("InClusterIPPool", "blue", false)];
    assert_eq!(owners(&scene, "web").await?, wanted);
    scene.says_allocated("web", "10.0.0.15/25").await?;
    // What is complete is not written again.
    scene.untouched("IPAddress", "web").await
}

/// C16.
async fn a_foreign_owner_stays_in_front(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("foreignowner").await?;
    let pool = scene.pool("blue", SPEC).await?;
    let foreign = json!({"apiVersion": "alpha-dummy", "kind": "dummy-kind", "name": "dummy", "uid": "abc-dummy-123"});
    // With the address held, the garbage collector cannot remove what it thinks has lost its owner before the claim is there.
    let metadata = json!({"ownerReferences": [foreign], "finalizers": ["test.example/hold"]});
    scene.foreign_address("web", &pool, "10.0.0.15", 25, &json!({"metadata": metadata}).to_string()).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.15");
    let address = scene.api("IPAddress").get("web").await?;
    assert_eq!(serde_json::to_value(&address.owner_references()[0])?, foreign);
    let wanted =
        [owner("dummy-kind", "dummy", None), owner("IPAddressClaim", "web", true), owner("InClusterIPPool", "blue", false)];
    assert_eq!(owners(&scene, "web").await?, wanted);
    assert_eq!(address.finalizers(), ["test.example/hold", PROTECT]);
    Ok(())
}

/// 5.3: the reference adds none then.
async fn a_foreign_controller_stays_the_controller(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("controller").await?;
    let pool = scene.pool("blue", SPEC).await?;
    let foreign = json!({"apiVersion": "v1", "kind": "Dummy", "name": "dummy", "uid": "abc-dummy-123", "controller": true});
    let metadata = json!({"ownerReferences": [foreign], "finalizers": ["test.example/hold"]});
    scene.foreign_address("web", &pool, "10.0.0.15", 25, &json!({"metadata": metadata}).to_string()).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.15");
    let wanted = [owner("Dummy", "dummy", true), owner("IPAddressClaim", "web", false), owner("InClusterIPPool", "blue", false)];
    assert_eq!(owners(&scene, "web").await?, wanted);
    Ok(())
}

async fn an_address_out_of_range_is_adopted_as_it_is(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("outofrange").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.foreign_address("web", &pool, "172.16.0.1", 25, "{}").await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "172.16.0.1");
    scene.counts_become(&pool, Counts { total: 11, used: 1, free: 11, out_of_range: 1 }).await
}

/// 5.3: the UID is rewritten, or the garbage collector took the old reference away just before.
async fn an_address_of_an_earlier_claim_is_adopted(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("earlier").await?;
    let pool = scene.pool("blue", SPEC).await?;
    let pool_uid = scene.api(pool.kind).get("blue").await?.uid().context("a pool without UID")?;
    let metadata = json!({"finalizers": [PROTECT], "ownerReferences": [
        {"apiVersion": "ipam.cluster.x-k8s.io/v1beta1", "kind": "IPAddressClaim", "name": "web",
         "uid": "01234567-89ab-cdef-0123-456789abcdef", "controller": true, "blockOwnerDeletion": true},
        {"apiVersion": "ipam.cluster.x-k8s.io/v1alpha2", "kind": pool.kind, "name": "blue",
         "uid": pool_uid, "controller": false, "blockOwnerDeletion": true},
    ]});
    scene.foreign_address("web", &pool, "10.0.0.15", 25, &json!({"metadata": metadata}).to_string()).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.15");
    let claim = scene.api("IPAddressClaim").get("web").await?.uid().context("a claim without UID")?;
    let address = scene.api("IPAddress").get("web").await?;
    let mut owners: Vec<_> = address.owner_references().iter().map(|owner| (&*owner.kind, &*owner.uid)).collect();
    owners.sort_unstable();
    assert_eq!(owners, [("IPAddressClaim", &*claim), (pool.kind, &*pool_uid)]);
    Ok(())
}

/// Row 10: the pool's reference later, when it appears. 5.3: an address is bound whether its pool exists or not.
async fn a_claim_takes_its_pools_reference_when_the_pool_appears(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("latepool").await?;
    let pool = Pool { kind: "InClusterIPPool", name: "late".to_owned() };
    scene.foreign_address("web", &pool, "10.0.0.15", 25, "{}").await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.15");
    assert_eq!(owners(&scene, "web").await?, [owner("IPAddressClaim", "web", true)]);
    scene.pool("late", SPEC).await?;
    let wanted = [owner("IPAddressClaim", "web", true), owner("InClusterIPPool", "late", false)];
    eventually(Duration::from_secs(30), async || {
        let owners = owners(&scene, "web").await?;
        ensure!(owners == wanted, "{owners:?}");
        Ok(())
    })
    .await?;
    assert_eq!(scene.claim_address("next", &pool).await?, "10.0.0.10");
    Ok(())
}

/// Line 10: by its pool reference.
async fn an_address_of_another_provider_is_never_touched(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("otherpool").await?;
    let pool = scene.pool("blue", SPEC).await?;
    taken(&scene, &pool, "{spec: {poolRef: {apiGroup: ipam.other.example}}}").await
}

/// Line 10: by its claim reference.
async fn an_address_with_a_foreign_claim_is_never_touched(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("otherclaim").await?;
    let pool = scene.pool("blue", SPEC).await?;
    taken(&scene, &pool, "{spec: {claimRef: {name: somebody-else}}}").await
}

async fn taken(scene: &Scene, pool: &Pool, other: &str) -> Result<()> {
    scene.foreign_address("web", pool, "10.0.0.10", 24, other).await?;
    scene.claim("web", pool).await?;
    scene.tells("web", "AllocationFailed", &["the name is taken", "web"]).await?;
    scene.untouched("IPAddress", "web").await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.untouched("IPAddress", "web").await?;
    // With the other object out of the way a new claim of that name is served.
    scene.claim("web", pool).await?;
    scene.tells("web", "AllocationFailed", &["the name is taken"]).await?;
    scene.delete("IPAddress", "web").await?;
    scene.address("web").await?;
    Ok(())
}

/// Line 11: counted as used; others still bind.
async fn unreadable_addresses_stop_nobody(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("garbage").await?;
    let pool = scene.pool("blue", SPEC).await?;
    for (name, text) in
        [("words", "not an address"), ("blank", " 10.0.0.10"), ("range", "10.0.0.10-10.0.0.12"), ("mask", "10.0.0.11/24")]
    {
        scene.foreign_address(name, &pool, text, 25, "{}").await?;
    }
    scene.counts_become(&pool, Counts { total: 11, used: 4, free: 11, out_of_range: 0 }).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    // A claim of that name is bound to it as it stands: somebody wanted it so.
    assert_eq!(scene.claim_address("words", &pool).await?, "not an address");
    scene.delete("IPAddressClaim", "words").await?;
    scene.gone("IPAddress", "words").await?;
    scene.counts_become(&pool, Counts { total: 11, used: 4, free: 10, out_of_range: 0 }).await
}

async fn the_addresses_of_hand_made_objects_are_not_given_again(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("handmade").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.foreign_address("static", &pool, "10.0.0.10", 25, "{}").await?;
    scene.counts_become(&pool, Counts { total: 11, used: 1, free: 10, out_of_range: 0 }).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.11");
    scene.untouched("IPAddress", "static").await?;
    // Nobody protects it, so it goes when it is deleted, and its address is free.
    scene.delete("IPAddress", "static").await?;
    scene.gone("IPAddress", "static").await?;
    assert_eq!(scene.claim_address("next", &pool).await?, "10.0.0.10");
    Ok(())
}

async fn addresses_hold_their_value_however_it_is_written(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("spelling").await?;
    let pool = scene.pool("six", "{addresses: ['fd01::10-fd01::20'], prefix: 120}").await?;
    scene.foreign_address("upper", &pool, "FD01:0:0::0010", 120, "{}").await?;
    // Another prefix length, and no such length, make no difference to who holds the address.
    scene.foreign_address("length", &pool, "fd01::11", 64, "{}").await?;
    scene.foreign_address("nonsense", &pool, "fd01::12", 0, "{}").await?;
    // A v4-mapped address is of IPv6, and not in this pool.
    scene.foreign_address("mapped", &pool, "::ffff:10.0.0.1", 120, "{}").await?;
    scene.counts_become(&pool, Counts { total: 17, used: 4, free: 14, out_of_range: 1 }).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "fd01::13");
    assert_eq!(scene.claim_address("upper", &pool).await?, "FD01:0:0::0010");
    Ok(())
}

/// Section 7: a prefix of foreign length takes every block that it touches.
async fn blocks_that_overlap_a_foreign_prefix_are_not_given(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("overlapping").await?;
    let pool = scene.prefix_pool("blue", "{prefixes: ['fd00::/60']}").await?;
    scene.foreign_address("host", &pool, "fd00::7", 128, "{}").await?;
    scene.foreign_address("wide", &pool, "fd00:0:0:2::", 63, "{}").await?;
    scene.counts_become(&pool, Counts { total: 16, used: 2, free: 13, out_of_range: 2 }).await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "fd00:0:0:1::");
    assert_eq!(scene.claim_address("second", &pool).await?, "fd00:0:0:4::");
    scene.delete("IPAddress", "wide").await?;
    scene.gone("IPAddress", "wide").await?;
    assert_eq!(scene.claim_address("third", &pool).await?, "fd00:0:0:2::");
    assert_eq!(scene.claim_address("fourth", &pool).await?, "fd00:0:0:3::");
    Ok(())
}

/// 5.3.
async fn a_changed_cluster_label_is_copied_again(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("label").await?;
    let pool = scene.pool("blue", SPEC).await?;
    let label = "cluster.x-k8s.io/cluster-name";
    scene.cluster("green", "{}", false).await?;
    scene.cluster("red", "{}", false).await?;
    scene.claim_with("web", &pool, &json!({"metadata": {"labels": {label: "green"}}}).to_string()).await?;
    scene.address("web").await?;
    scene.patch("IPAddress", "web", &json!({"metadata": {"labels": {"mine": "too"}}})).await?;
    scene.patch("IPAddressClaim", "web", &json!({"metadata": {"labels": {label: "red"}}})).await?;
    eventually(Duration::from_secs(30), async || {
        let address = scene.api("IPAddress").get("web").await?;
        let labels = serde_json::to_value(address.labels())?;
        ensure!(labels == json!({label: "red", "mine": "too"}), "{labels}");
        Ok(())
    })
    .await
}

/// A pool that was removed by force and made again has another UID.
async fn a_pool_made_anew_owns_the_addresses_of_the_old_one(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("anew").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_address("web", &pool).await?;
    let old = scene.api(pool.kind).get("blue").await?.uid();
    scene.has_finalizer(pool.kind, "blue", "ipam.cluster.x-k8s.io/ProtectPool").await?;
    scene.delete(pool.kind, "blue").await?;
    scene.set_finalizers(pool.kind, "blue", &[]).await?;
    scene.gone(pool.kind, "blue").await?;
    scene.stays("IPAddress", "web", QUIET).await?;
    scene.pool("blue", SPEC).await?;
    let new = scene.api(pool.kind).get("blue").await?.uid();
    ensure!(new != old);
    eventually(Duration::from_secs(30), async || {
        let address = scene.api("IPAddress").get("web").await?;
        let pools = address.owner_references().iter().filter(|owner| owner.kind == pool.kind);
        let uids: Vec<Option<String>> = pools.map(|owner| Some(owner.uid.clone())).collect();
        ensure!(uids == [new.clone()], "{uids:?}, not {new:?}");
        Ok(())
    })
    .await?;
    assert_eq!(scene.claim_address("next", &pool).await?, "10.0.0.11");
    Ok(())
}

/// 8.3: not fresh, the other is published: kept and told, not deleted.
async fn a_hand_made_address_does_not_take_a_published_one(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("contested").await?;
    let pool = scene.pool("blue", SPEC).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    scene.foreign_address("twin", &pool, "10.0.0.10", 25, "{}").await?;
    scene.claim("twin", &pool).await?;
    scene.tells("twin", "AllocationFailed", &["10.0.0.10", "is already held by", "/web"]).await?;
    scene.stays("IPAddress", "twin", QUIET).await?;
    ensure!(scene.bound_address("twin").await?.is_none());
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await?;
    assert_eq!(scene.address("twin").await?, "10.0.0.10");
    Ok(())
}

/// 5.3.
async fn a_bound_address_deleted_by_hand_stays_for_its_claim(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("dying").await?;
    let pool = scene.pool("blue", SPEC).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    scene.delete("IPAddress", "web").await?;
    scene.untouched("IPAddress", "web").await?;
    assert_eq!(scene.claim_address("next", &pool).await?, "10.0.0.11");
    let ready = scene.ready("web").await?.context("no Ready")?;
    assert_eq!(ready.status, "True");
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// 5.3: with the same IP, if that is still free.
async fn a_removed_address_comes_back(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("removed").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_address("first", &pool).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.11");
    let old = scene.api("IPAddress").get("web").await?.uid();
    scene.delete("IPAddressClaim", "first").await?;
    scene.gone("IPAddress", "first").await?;
    scene.delete("IPAddress", "web").await?;
    scene.set_finalizers("IPAddress", "web", &[]).await?;
    let address = eventually(Duration::from_secs(30), async || {
        let address = scene.get("IPAddress", "web").await?.context("not there again yet")?;
        ensure!(address.uid() != old, "still the old one");
        Ok(address)
    });
    let address = address.await?;
    if fixture.mode != Mode::Restarted {
        // What it was is known only to a manager that saw it.
        assert_eq!(address.data["spec"]["address"], "10.0.0.11");
    }
    assert_eq!(address.finalizers(), [PROTECT]);
    scene.ready_becomes("web", "True", "AddressAllocated").await?;
    Ok(())
}

/// 5.3: else a new one, and an event.
async fn a_removed_address_that_was_given_away_is_replaced(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("replaced").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24}").await?;
    scene.claim_address("web", &pool).await?;
    let excluded = json!({"spec": {"addresses": ["10.0.0.10", "10.0.0.12"], "excludedAddresses": ["10.0.0.10"]}});
    scene.patch(pool.kind, "small", &excluded).await?;
    scene.counts_become(&pool, Counts { total: 1, used: 1, free: 1, out_of_range: 1 }).await?;
    scene.delete("IPAddress", "web").await?;
    scene.set_finalizers("IPAddress", "web", &[]).await?;
    eventually(Duration::from_secs(30), async || {
        let address = scene.get("IPAddress", "web").await?.context("not there again yet")?;
        ensure!(address.data["spec"]["address"] == "10.0.0.12", "{:?}", address.data);
        Ok(())
    })
    .await?;
    scene.says_allocated("web", "10.0.0.12/24").await
}
