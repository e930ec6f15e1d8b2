//! Claims that go: what holds an address, what frees it, and that nothing is left behind.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use serde_json::json;
use testbed::{Counts, QUIET, Scene, eventually};

use crate::conformance;
use crate::fixture::{Conformance, Fixture, Mode, except};

pub fn trials() -> Vec<Conformance> {
    let mut trials = conformance![
        a_full_pool_gives_a_freed_address_to_the_waiting_claim,
        a_freed_address_goes_to_the_oldest_waiters,
        an_address_stays_while_a_consumer_holds_the_claim,
        a_claim_in_foreground_deletion_goes_at_once,
        a_claim_goes_at_once_when_its_owner_says_so,
        an_address_held_by_a_third_party_keeps_its_claim,
        a_new_claim_cannot_take_over_a_dying_address,
        an_address_rests_for_the_reuse_grace,
        a_shorter_grace_counts_at_once,
        claims_without_an_address_have_no_grace,
        an_orphaned_address_of_a_namespaced_pool_is_let_go,
        everything_goes_with_its_namespace,
        a_claim_made_again_at_once_is_served,
    ];
    // Webhooks refuse what these need: broken pools, or pools that lose what is in use.
    let refused = conformance![
        a_pool_in_foreground_deletion_goes_with_its_last_address,
        a_pool_that_goes_has_no_grace,
        a_claim_goes_although_its_pool_was_removed_by_force,
    ];
    trials.extend(except(&[Mode::Webhooks], refused));
    trials
}

const PROTECT: &str = "ipam.cluster.x-k8s.io/ProtectAddress";
const PROTECT_POOL: &str = "ipam.cluster.x-k8s.io/ProtectPool";
const SPEC: &str = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}";
const LONG_GRACE: &str = "{addresses: [10.0.0.10], prefix: 24, addressReuseGracePeriodSeconds: 300}";

/// C14, both.
async fn a_full_pool_gives_a_freed_address_to_the_waiting_claim(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("waiting").await?;
    let spec = "{addresses: [10.0.0.10], prefix: 24}";
    for (pool, first, second) in
        [(scene.pool("small", spec).await?, "a", "b"), (scene.global_pool("small", spec).await?, "c", "d")]
    {
        assert_eq!(scene.claim_address(first, &pool).await?, "10.0.0.10");
        scene.claim(second, &pool).await?;
        scene.no_address(second, QUIET).await?;
        scene.delete("IPAddressClaim", first).await?;
        scene.gone("IPAddressClaim", first).await?;
        assert_eq!(scene.address(second).await?, "10.0.0.10");
    }
    Ok(())
}

/// Line 4: 100 waiters, 10 freed.
async fn a_freed_address_goes_to_the_oldest_waiters(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("queue").await?;
    let pool = scene.pool("small", SPEC.replace("20", "19").as_str()).await?;
    for number in 0..10 {
        scene.claim(&format!("first-{number}"), &pool).await?;
    }
    for number in 0..10 {
        scene.address(&format!("first-{number}")).await?;
    }
    // Their names are in the order of their creation, which a restarted manager can tell only to the second.
    for number in 0..100 {
        scene.claim(&format!("wait-{number:02}"), &pool).await?;
    }
    scene.tells("wait-99", "PoolExhausted", &["total 10, used 10", "position 100"]).await?;
    for number in 0..10 {
        scene.delete("IPAddressClaim", &format!("first-{number}")).await?;
    }
    for number in 0..10 {
        scene.address(&format!("wait-{number:02}")).await?;
    }
    for number in 10..100 {
        let claim = format!("wait-{number:02}");
        ensure!(scene.bound_address(&claim).await?.is_none(), "{claim} overtook others");
    }
    scene.counts_become(&pool, Counts { total: 10, used: 10, free: 0, out_of_range: 0 }).await
}

/// Line 8: both go with the consumer's finalizer.
async fn an_address_stays_while_a_consumer_holds_the_claim(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("consumer").await?;
    let pool = scene.pool("blue", SPEC).await?;
    let held = "{metadata: {finalizers: [infra.example/machine]}}";
    scene.claim_with("web", &pool, held).await?;
    scene.address("web").await?;
    scene.claim_with("unbound", &pool, held).await?;
    scene.address("unbound").await?;
    scene.delete("IPAddressClaim", "web").await?;
    let duration = if fixture.mode == Mode::Single { Duration::from_secs(30) } else { QUIET };
    scene.stays("IPAddress", "web", duration).await?;
    ensure!(scene.api("IPAddress").get("web").await?.metadata.deletion_timestamp.is_none());
    let finalizers = scene.api("IPAddressClaim").get("web").await?.finalizers().to_vec();
    scene.set_finalizers("IPAddressClaim", "web", &without(&finalizers, "infra.example/machine")).await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// Line 8: with only `foregroundDeletion`.
async fn a_claim_in_foreground_deletion_goes_at_once(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("foreground").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_address("web", &pool).await?;
    scene.api("IPAddressClaim").delete("web", &DeleteParams::foreground()).await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await?;
    scene.claim_address("orphaning", &pool).await?;
    scene.api("IPAddressClaim").delete("orphaning", &DeleteParams::orphan()).await?;
    scene.gone("IPAddressClaim", "orphaning").await?;
    scene.gone("IPAddress", "orphaning").await
}

/// The garbage collector takes the pool out of the address's owners while the pool still waits for it.
async fn a_pool_in_foreground_deletion_goes_with_its_last_address(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("foregroundpool").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_address("web", &pool).await?;
    scene.has_finalizer(pool.kind, "blue", PROTECT_POOL).await?;
    scene.api(pool.kind).delete("blue", &DeleteParams::foreground()).await?;
    eventually(Duration::from_secs(30), async || {
        let pool = scene.api(pool.kind).get("blue").await?;
        ensure!(pool.finalizers() == [PROTECT_POOL], "the garbage collector is not done: {:?}", pool.finalizers());
        Ok(())
    })
    .await?;
    // Nobody quarrels over the address.
    scene.untouched("IPAddress", "web").await?;
    let address = scene.api("IPAddress").get("web").await?;
    assert_eq!(address.owner_references().iter().map(|owner| &*owner.name).collect::<Vec<_>>(), ["web"]);
    ensure!(address.metadata.deletion_timestamp.is_none());
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone(pool.kind, "blue").await
}

/// Line 8: with `release-now`.
async fn a_claim_goes_at_once_when_its_owner_says_so(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("releasenow").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_with("web", &pool, "{metadata: {finalizers: [infra.example/machine]}}").await?;
    scene.address("web").await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.stays("IPAddress", "web", QUIET).await?;
    scene.annotate("IPAddressClaim", "web", "in-cluster.ipam.cluster.x-k8s.io/release-now", Some("true")).await?;
    scene.gone("IPAddress", "web").await?;
    // The claim itself stays for whoever holds it, without our finalizer.
    eventually(Duration::from_secs(30), async || {
        let claim = scene.api("IPAddressClaim").get("web").await?;
        ensure!(claim.finalizers() == ["infra.example/machine"], "{:?}", claim.finalizers());
        Ok(())
    })
    .await
}

/// Line 9, first half.
async fn an_address_held_by_a_third_party_keeps_its_claim(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("thirdparty").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24}").await?;
    scene.claim_address("web", &pool).await?;
    scene.set_finalizers("IPAddress", "web", &["dns.example/record", PROTECT]).await?;
    scene.claim("waits", &pool).await?;
    scene.delete("IPAddressClaim", "web").await?;
    lacks_protection(&scene, "web").await?;
    scene.stays("IPAddressClaim", "web", QUIET).await?;
    ensure!(scene.bound_address("waits").await?.is_none(), "the address is not free yet");
    assert_eq!(scene.api("IPAddress").get("web").await?.finalizers(), ["dns.example/record"]);
    scene.set_finalizers("IPAddress", "web", &[]).await?;
    scene.gone("IPAddressClaim", "web").await?;
    assert_eq!(scene.address("waits").await?, "10.0.0.10");
    Ok(())
}

/// Line 9, second half: the old claim was removed by force.
async fn a_new_claim_cannot_take_over_a_dying_address(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("takeover").await?;
    let pool = scene.pool("blue", SPEC).await?;
    scene.claim_address("web", &pool).await?;
    let old = scene.api("IPAddress").get("web").await?;
    scene.set_finalizers("IPAddress", "web", &["dns.example/record", PROTECT]).await?;
    scene.delete("IPAddressClaim", "web").await?;
    lacks_protection(&scene, "web").await?;
    scene.set_finalizers("IPAddressClaim", "web", &[]).await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.claim("web", &pool).await?;
    scene.tells("web", "AllocationFailed", &["10.0.0.10/24", "earlier claim"]).await?;
    scene.stays("IPAddress", "web", QUIET).await?;
    ensure!(scene.bound_address("web").await?.is_none());
    scene.set_finalizers("IPAddress", "web", &[]).await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    let new = scene.api("IPAddress").get("web").await?;
    ensure!(new.uid() != old.uid());
    let claim = scene.api("IPAddressClaim").get("web").await?;
    assert_eq!(new.owner_references()[0].uid, claim.uid().context("a claim without UID")?);
    scene.ready_becomes("web", "True", "AddressAllocated").await?;
    Ok(())
}

/// C22; line 19: what rests counts as used.
async fn an_address_rests_for_the_reuse_grace(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("grace").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24, addressReuseGracePeriodSeconds: 3}").await?;
    scene.claim_address("web", &pool).await?;
    scene.claim("waits", &pool).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.stays("IPAddress", "web", Duration::from_secs(1)).await?;
    ensure!(scene.get("IPAddressClaim", "web").await?.is_some());
    assert_eq!(scene.counts(&pool).await?, Some(Counts { total: 1, used: 1, free: 0, out_of_range: 0 }));
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await?;
    assert_eq!(scene.address("waits").await?, "10.0.0.10");
    Ok(())
}

/// Line 19: from 300 to 2; the restarted mode shows that it survives a restart.
async fn a_shorter_grace_counts_at_once(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("shorter").await?;
    let pool = scene.pool("small", LONG_GRACE).await?;
    scene.claim_address("web", &pool).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.stays("IPAddress", "web", Duration::from_secs(4)).await?;
    scene.patch(pool.kind, "small", &json!({"spec": {"addressReuseGracePeriodSeconds": 2}})).await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// Line 19: unbound claims are not held.
async fn claims_without_an_address_have_no_grace(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("nograce").await?;
    let pool = scene.pool("small", LONG_GRACE).await?;
    scene.claim_address("web", &pool).await?;
    scene.claim("waits", &pool).await?;
    scene.tells("waits", "PoolExhausted", &["small"]).await?;
    scene.delete("IPAddressClaim", "waits").await?;
    scene.gone("IPAddressClaim", "waits").await
}

/// C23: claim, address and pool go at once.
async fn a_pool_that_goes_has_no_grace(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("poolfirst").await?;
    let pool = scene.pool("small", LONG_GRACE).await?;
    scene.claim_address("web", &pool).await?;
    scene.claim_address("resting", &scene.pool("other", LONG_GRACE).await?).await?;
    for name in ["small", "other"] {
        scene.has_finalizer(pool.kind, name, PROTECT_POOL).await?;
    }
    scene.delete(pool.kind, "small").await?;
    scene.claim("late", &pool).await?;
    scene.tells("late", "PoolNotReady", &["being deleted"]).await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await?;
    scene.gone(pool.kind, "small").await?;
    scene.tells("late", "PoolNotReady", &["does not exist"]).await?;
    // The same in the other order: the pool goes while the address rests already.
    scene.delete("IPAddressClaim", "resting").await?;
    scene.stays("IPAddress", "resting", QUIET).await?;
    scene.delete(pool.kind, "other").await?;
    scene.gone("IPAddress", "resting").await?;
    scene.gone("IPAddressClaim", "resting").await?;
    scene.gone(pool.kind, "other").await
}

/// 5.6: somebody took the claim's finalizer away by force. The pool still owns the address, so no garbage collector deletes it.
async fn an_orphaned_address_of_a_namespaced_pool_is_let_go(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("orphan").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24}").await?;
    let global = scene.global_pool("kept", "{addresses: [10.0.0.10], prefix: 24}").await?;
    for (name, pool) in [("web", &pool), ("moved", &global)] {
        scene.claim_address(name, pool).await?;
        scene.annotate("IPAddressClaim", name, "cluster.x-k8s.io/paused", Some("")).await?;
        scene.delete("IPAddressClaim", name).await?;
        scene.set_finalizers("IPAddressClaim", name, &[]).await?;
        scene.gone("IPAddressClaim", name).await?;
        scene.stays("IPAddress", name, QUIET).await?;
        scene.delete("IPAddress", name).await?;
    }
    scene.gone("IPAddress", "web").await?;
    assert_eq!(scene.claim_address("next", &pool).await?, "10.0.0.10");
    // After a move the machine may still use an address of a Global pool elsewhere.
    scene.stays("IPAddress", "moved", QUIET).await
}

async fn everything_goes_with_its_namespace(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("doomed").await?;
    let blue = scene.pool("blue", "{addresses: [10.0.0.10], prefix: 24, addressReuseGracePeriodSeconds: 300}").await?;
    let global = scene.global_pool("green", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}").await?;
    scene.claim_address("bound", &blue).await?;
    scene.claim("waiting", &blue).await?;
    for name in ["one", "two", "three"] {
        scene.claim_address(name, &global).await?;
    }
    let other = fixture.scene("survivor").await?;
    other.claim("next", &global).await?;
    let namespaces = Api::<Namespace>::all(scene.client.clone());
    namespaces.delete(&scene.namespace, &DeleteParams::default()).await?;
    eventually(Duration::from_secs(90), async || match namespaces.get_opt(&scene.namespace).await? {
        None => Ok(()),
        Some(namespace) => bail!("{:?}", namespace.status),
    })
    .await?;
    // What it held in a Global pool is free for others.
    other.address("next").await?;
    other.counts_become(&global, Counts { total: 3, used: 1, free: 2, out_of_range: 0 }).await
}

async fn a_claim_made_again_at_once_is_served(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("again").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24}").await?;
    for _ in 0..5 {
        assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
        let claim = scene.api("IPAddressClaim").get("web").await?.uid();
        let address = scene.api("IPAddress").get("web").await?;
        assert_eq!(Some(&address.owner_references()[0].uid), claim.as_ref());
        scene.delete("IPAddressClaim", "web").await?;
        if fixture.mode == Mode::TwoManagers {
            // Two patches that each empty a list of finalizers are two deletions by name: the API server gives a patch no UID to
            // go by, so the later one would meet the new claim.
            scene.gone("IPAddressClaim", "web").await?;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Else as soon as the name is free, before the manager may have seen that it is.
        eventually(Duration::from_secs(30), async || scene.claim("web", &pool).await).await?;
        scene.address("web").await?;
        scene.delete("IPAddressClaim", "web").await?;
        scene.gone("IPAddressClaim", "web").await?;
        if fixture.mode == Mode::TwoManagers {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    scene.gone("IPAddress", "web").await
}

async fn a_claim_goes_although_its_pool_was_removed_by_force(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("poolless").await?;
    let pool = scene.pool("blue", LONG_GRACE).await?;
    scene.claim_address("web", &pool).await?;
    scene.has_finalizer(pool.kind, "blue", PROTECT_POOL).await?;
    scene.delete(pool.kind, "blue").await?;
    scene.set_finalizers(pool.kind, "blue", &[]).await?;
    scene.gone(pool.kind, "blue").await?;
    scene.delete("IPAddressClaim", "web").await?;
    scene.gone("IPAddressClaim", "web").await?;
    scene.gone("IPAddress", "web").await
}

/// Waits until an address is deleting and our finalizer is off.
async fn lacks_protection(scene: &Scene, address: &str) -> Result<()> {
    eventually(Duration::from_secs(30), async || {
        let address = scene.api("IPAddress").get(address).await?;
        let left = address.metadata.deletion_timestamp.is_some() && address.finalizers().iter().all(|known| known != PROTECT);
        ensure!(left, "{:?}", address.metadata);
        Ok(())
    })
    .await
}

fn without<'a>(finalizers: &'a [String], gone: &str) -> Vec<&'a str> {
    finalizers.iter().map(String::as_str).filter(|known| *known != gone).collect()
}
