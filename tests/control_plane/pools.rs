//! Pools on a live server: their numbers, and when they may go.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::{Counts, Pool, QUIET, Scene};

use crate::conformance;
use crate::fixture::{Conformance, Fixture, Mode, except};

const PROTECT_POOL: &str = "ipam.cluster.x-k8s.io/ProtectPool";
const PAUSED: &str = "cluster.x-k8s.io/paused";

pub fn trials() -> Vec<Conformance> {
    let mut trials = conformance![
        totals_leave_out_what_is_never_given,
        used_and_free_follow_the_claims,
        a_prefix_pool_counts_blocks,
        addresses_in_grace_count_as_used_until_the_grace_is_shortened,
        the_gateway_of_a_pool_can_change_and_addresses_keep_theirs,
    ];
    // Webhooks refuse what these need: broken pools, pools that lose what is in use, or addresses that nobody can read.
    let refused = conformance![
        a_shrunk_pool_counts_what_it_would_not_give_again,
        a_shrunk_prefix_pool_counts_blocks_out_of_range,
        a_pool_stays_while_it_has_addresses,
        a_pool_with_waiting_claims_only_goes_at_once,
        a_deleting_pool_gives_nothing_out,
        a_deleting_pool_releases_without_grace,
        a_pool_that_grows_by_one_serves_a_waiter_although_others_are_out_of_range,
        an_unreadable_address_counts_as_used_and_stops_nobody,
        an_address_without_group_in_its_pool_reference_counts,
        a_pool_with_addresses_out_of_range_can_be_annotated_paused_and_unpaused,
        the_numbers_of_a_paused_pool_stay_up_to_date,
    ];
    trials.extend(except(&[Mode::Webhooks], refused));
    trials
}

fn counts(total: u64, used: u64, free: u64, out_of_range: u64) -> Counts {
    Counts { total, used, free, out_of_range }
}

/// Names of claims on pools of both scopes must differ: they share a namespace.
fn claim_on(pool: &Pool, number: usize) -> String {
    format!("{}-{number}", pool.kind.to_lowercase())
}

async fn bind(scene: &Scene, pool: &Pool, count: usize) -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    for number in 0..count {
        addresses.push(scene.claim_address(&claim_on(pool, number), pool).await?);
    }
    Ok(addresses)
}

async fn totals_leave_out_what_is_never_given(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("totals").await?;
    for (name, spec, total) in [
        ("range", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}", 11),
        ("gateway-inside", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.15}", 10),
        ("gateway-outside", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.1}", 11),
        ("network", "{addresses: [10.0.0.0-10.0.0.1], prefix: 24, gateway: 10.0.0.2}", 1),
        ("broadcast", "{addresses: [10.0.0.254-10.0.0.255], prefix: 24}", 1),
        ("reserved", "{addresses: [10.0.0.0/24], prefix: 24, gateway: 10.0.0.1, allocateReservedIPAddresses: true}", 255),
        ("six", "{addresses: ['fe80::ffff'], prefix: 120}", 1),
        ("anycast", "{addresses: ['fd01::/120'], prefix: 120}", 255),
        ("excluded", "{addresses: [10.0.0.0/24], prefix: 24, gateway: 10.0.0.1, excludedAddresses: [10.0.0.2-10.0.0.20]}", 234),
        ("twice", "{addresses: [10.0.0.10-10.0.0.20, 10.0.0.15-10.0.0.25, 10.0.0.12], prefix: 24}", 16),
    ] {
        for pool in scene.ip_pools(name, spec).await? {
            scene.counts_become(&pool, counts(total, 0, total, 0)).await?;
            scene.condition_becomes(&pool, "Ready", "True", "PoolReady").await?;
        }
    }
    Ok(())
}

async fn used_and_free_follow_the_claims(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("follow").await?;
    for pool in scene.ip_pools("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await? {
        scene.counts_become(&pool, counts(11, 0, 11, 0)).await?;
        for used in 1..=2 {
            scene.claim_address(&claim_on(&pool, used), &pool).await?;
            scene.counts_become(&pool, counts(11, used as u64, 11 - used as u64, 0)).await?;
        }
        for left in [1, 0] {
            scene.delete("IPAddressClaim", &claim_on(&pool, left + 1)).await?;
            scene.counts_become(&pool, counts(11, left as u64, 11 - left as u64, 0)).await?;
        }
        let status = scene.up_to_date(&pool).await?.data["status"].clone();
        ensure!(status["ipAddressesExact"].is_null(), "exact counts where the plain ones suffice: {status}");
    }
    Ok(())
}

async fn a_shrunk_pool_counts_what_it_would_not_give_again(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("shrunk").await?;
    let before = |addresses: &str| format!("{{addresses: [{addresses}], prefix: 24, allocateReservedIPAddresses: true}}");
    for (name, addresses, shrunk, claims, expected) in [
        ("range", "10.0.0.10-10.0.0.20", "10.0.0.13-10.0.0.20", 5, counts(8, 5, 6, 3)),
        ("network", "10.0.0.0-10.0.0.5", "10.0.0.0-10.0.0.5", 2, counts(5, 2, 4, 1)),
        ("broadcast", "10.0.0.254-10.0.0.255", "10.0.0.254-10.0.0.255", 2, counts(1, 2, 0, 1)),
    ] {
        for pool in scene.ip_pools(name, &before(addresses)).await? {
            let claims = (0..claims).map(|number| format!("{name}-{}", claim_on(&pool, number)));
            for claim in claims {
                scene.claim_address(&claim, &pool).await?;
            }
            scene.respec(&pool, &format!("{{addresses: [{shrunk}], allocateReservedIPAddresses: false}}")).await?;
            scene.counts_become(&pool, expected).await?;
        }
    }
    Ok(())
}

async fn a_prefix_pool_counts_blocks(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("blocks").await?;
    for pool in scene.prefix_pools("small", "{prefixes: ['fd00::/62']}").await? {
        scene.counts_become(&pool, counts(4, 0, 4, 0)).await?;
        assert_eq!(bind(&scene, &pool, 1).await?, ["fd00::"]);
        scene.counts_become(&pool, counts(4, 1, 3, 0)).await?;
    }
    for pool in scene.prefix_pools("large", "{prefixes: ['fd06::/48'], allocationPrefixLength: 56}").await? {
        scene.counts_become(&pool, counts(256, 0, 256, 0)).await?;
        assert_eq!(scene.claim_address(&format!("large-{}", claim_on(&pool, 0)), &pool).await?, "fd06::");
        scene.counts_become(&pool, counts(256, 1, 255, 0)).await?;
    }
    Ok(())
}

async fn a_shrunk_prefix_pool_counts_blocks_out_of_range(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("prefixes").await?;
    for (name, spec, expected) in [
        ("left-out", "{prefixes: ['fd00:0:0:2::/63']}", counts(2, 1, 2, 1)),
        ("excluded", "{excludedPrefixes: ['fd00::1234']}", counts(3, 1, 3, 1)),
    ] {
        for pool in scene.prefix_pools(name, "{prefixes: ['fd00::/62']}").await? {
            let claim = format!("{name}-{}", claim_on(&pool, 0));
            assert_eq!(scene.claim_address(&claim, &pool).await?, "fd00::");
            scene.respec(&pool, spec).await?;
            scene.counts_become(&pool, expected).await?;
            scene.delete("IPAddressClaim", &claim).await?;
            scene.counts_become(&pool, counts(expected.total, 0, expected.total, 0)).await?;
        }
    }
    Ok(())
}

async fn a_pool_stays_while_it_has_addresses(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("protected").await?;
    let ip = scene.ip_pools("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let prefixes = scene.prefix_pools("blue", "{prefixes: ['fd00::/62']}").await?;
    for pool in ip.iter().chain(&prefixes) {
        scene.has_finalizer(pool.kind, &pool.name, PROTECT_POOL).await?;
        bind(&scene, pool, 1).await?;
        scene.delete(pool.kind, &pool.name).await?;
        let message = scene.condition_becomes(pool, "Ready", "False", "Deleting").await?;
        ensure!(message.contains('1'), "how many addresses does it wait for? {message}");
        scene.stays(pool.kind, &pool.name, QUIET).await?;
        scene.delete("IPAddressClaim", &claim_on(pool, 0)).await?;
        scene.pool_gone(pool).await?;
        scene.gone("IPAddressClaim", &claim_on(pool, 0)).await?;
    }
    Ok(())
}

async fn a_pool_with_waiting_claims_only_goes_at_once(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("waiting-only").await?;
    for pool in scene.ip_pools("blue", "{addresses: [10.0.0.10], prefix: 24}").await? {
        scene.claim_address(&claim_on(&pool, 0), &pool).await?;
        scene.claim(&claim_on(&pool, 1), &pool).await?;
        scene.ready_becomes(&claim_on(&pool, 1), "False", "PoolExhausted").await?;
        scene.delete(pool.kind, &pool.name).await?;
        scene.delete("IPAddressClaim", &claim_on(&pool, 0)).await?;
        scene.pool_gone(&pool).await?;
        scene.no_address(&claim_on(&pool, 1), QUIET).await?;
        scene.tells(&claim_on(&pool, 1), "PoolNotReady", &[&pool.name, "does not exist"]).await?;
        scene.delete("IPAddressClaim", &claim_on(&pool, 1)).await?;
        scene.gone("IPAddressClaim", &claim_on(&pool, 1)).await?;
    }
    Ok(())
}

async fn a_deleting_pool_gives_nothing_out(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("deleting").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    scene.claim_address("first", &pool).await?;
    scene.counts_become(&pool, counts(11, 1, 10, 0)).await?;
    scene.delete(pool.kind, &pool.name).await?;
    scene.condition_becomes(&pool, "Ready", "False", "Deleting").await?;
    scene.claim("second", &pool).await?;
    scene.no_address("second", QUIET).await?;
    scene.tells("second", "PoolNotReady", &[&pool.name, "being deleted"]).await?;
    scene.delete("IPAddressClaim", "first").await?;
    scene.pool_gone(&pool).await
}

async fn a_deleting_pool_releases_without_grace(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("no-grace").await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, addressReuseGracePeriodSeconds: 300}";
    for pool in scene.ip_pools("blue", spec).await? {
        bind(&scene, &pool, 2).await?;
        // One release waits for the grace when the pool is deleted, the other comes after that.
        scene.delete("IPAddressClaim", &claim_on(&pool, 0)).await?;
        scene.stays("IPAddress", &claim_on(&pool, 0), QUIET).await?;
        scene.delete(pool.kind, &pool.name).await?;
        scene.gone("IPAddressClaim", &claim_on(&pool, 0)).await?;
        scene.delete("IPAddressClaim", &claim_on(&pool, 1)).await?;
        scene.gone("IPAddressClaim", &claim_on(&pool, 1)).await?;
        scene.pool_gone(&pool).await?;
    }
    Ok(())
}

async fn a_pool_that_grows_by_one_serves_a_waiter_although_others_are_out_of_range(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("grows").await?;
    for pool in scene.ip_pools("blue", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}").await? {
        bind(&scene, &pool, 3).await?;
        scene.respec(&pool, "{addresses: [10.0.0.12]}").await?;
        scene.counts_become(&pool, counts(1, 3, 0, 2)).await?;
        let waiter = claim_on(&pool, 9);
        scene.claim(&waiter, &pool).await?;
        scene.ready_becomes(&waiter, "False", "PoolExhausted").await?;
        scene.condition_says(&pool, "Exhausted", "True", "NoFreeAddresses", &["1"]).await?;
        scene.respec(&pool, "{addresses: [10.0.0.12-10.0.0.13]}").await?;
        assert_eq!(scene.address(&waiter).await?, "10.0.0.13");
        scene.counts_become(&pool, counts(2, 4, 0, 2)).await?;
    }
    Ok(())
}

async fn an_unreadable_address_counts_as_used_and_stops_nobody(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("garbage").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}").await?;
    scene.foreign_address("garbage", &pool, "ten.zero.zero.ten", 24, "{}").await?;
    assert_eq!(bind(&scene, &pool, 3).await?, ["10.0.0.10", "10.0.0.11", "10.0.0.12"]);
    scene.counts_become(&pool, counts(3, 4, 0, 0)).await?;
    scene.delete("IPAddress", "garbage").await?;
    scene.counts_become(&pool, counts(3, 3, 0, 0)).await
}

async fn an_address_without_group_in_its_pool_reference_counts(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("no-group").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}").await?;
    scene.in_v1beta1().foreign_address("old", &pool, "10.0.0.10", 24, "{spec: {poolRef: {apiGroup: null}}}").await?;
    scene.counts_become(&pool, counts(3, 1, 2, 0)).await?;
    assert_eq!(scene.claim_address("new", &pool).await?, "10.0.0.11");
    scene.delete(pool.kind, &pool.name).await?;
    scene.delete("IPAddressClaim", "new").await?;
    scene.gone("IPAddressClaim", "new").await?;
    scene.stays(pool.kind, &pool.name, QUIET).await?;
    scene.delete("IPAddress", "old").await?;
    scene.pool_gone(&pool).await
}

async fn addresses_in_grace_count_as_used_until_the_grace_is_shortened(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("grace").await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.11], prefix: 24, addressReuseGracePeriodSeconds: 300}";
    for pool in scene.ip_pools("blue", spec).await? {
        bind(&scene, &pool, 2).await?;
        scene.delete("IPAddressClaim", &claim_on(&pool, 0)).await?;
        scene.stays("IPAddress", &claim_on(&pool, 0), QUIET).await?;
        scene.counts_become(&pool, counts(2, 2, 0, 0)).await?;
        scene.claim(&claim_on(&pool, 2), &pool).await?;
        scene.ready_becomes(&claim_on(&pool, 2), "False", "PoolExhausted").await?;
        scene.respec(&pool, "{addressReuseGracePeriodSeconds: 2}").await?;
        assert_eq!(scene.address(&claim_on(&pool, 2)).await?, "10.0.0.10");
        scene.gone("IPAddressClaim", &claim_on(&pool, 0)).await?;
        scene.counts_become(&pool, counts(2, 2, 0, 0)).await?;
    }
    Ok(())
}

async fn a_pool_with_addresses_out_of_range_can_be_annotated_paused_and_unpaused(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("annotated").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}").await?;
    bind(&scene, &pool, 2).await?;
    scene.respec(&pool, "{addresses: [10.0.0.11-10.0.0.12]}").await?;
    scene.counts_become(&pool, counts(2, 2, 1, 1)).await?;
    scene.annotate(pool.kind, &pool.name, "example.com/owner", Some("network")).await?;
    scene.annotate(pool.kind, &pool.name, PAUSED, Some("")).await?;
    // Pools and claims are watched apart: numbers of a later spec tell that the pause has been seen.
    scene.respec(&pool, "{addresses: [10.0.0.11-10.0.0.13]}").await?;
    scene.counts_become(&pool, counts(3, 2, 2, 1)).await?;
    scene.claim("paused", &pool).await?;
    scene.no_address("paused", QUIET).await?;
    scene.annotate(pool.kind, &pool.name, PAUSED, None).await?;
    assert_eq!(scene.address("paused").await?, "10.0.0.12");
    scene.counts_become(&pool, counts(3, 3, 1, 1)).await
}

async fn the_numbers_of_a_paused_pool_stay_up_to_date(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("paused").await?;
    let paused = json!({"kind": "InClusterIPPool", "metadata": {"name": "blue", "annotations": {PAUSED: "true"}},
        "spec": {"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24}});
    scene.object(&paused.to_string()).await?;
    let pool = Pool { kind: "InClusterIPPool", name: "blue".to_owned() };
    scene.has_finalizer(pool.kind, &pool.name, PROTECT_POOL).await?;
    scene.counts_become(&pool, counts(11, 0, 11, 0)).await?;
    scene.foreign_address("made-by-hand", &pool, "10.0.0.10", 24, "{}").await?;
    scene.counts_become(&pool, counts(11, 1, 10, 0)).await?;
    scene.respec(&pool, "{addresses: [10.0.0.11-10.0.0.20]}").await?;
    scene.counts_become(&pool, counts(10, 1, 10, 1)).await?;
    scene.delete("IPAddress", "made-by-hand").await?;
    scene.counts_become(&pool, counts(10, 0, 10, 0)).await?;
    scene.delete(pool.kind, &pool.name).await?;
    scene.pool_gone(&pool).await
}

async fn the_gateway_of_a_pool_can_change_and_addresses_keep_theirs(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("gateway").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.12], prefix: 24, gateway: 10.0.0.1}").await?;
    scene.claim_address("first", &pool).await?;
    scene.respec(&pool, "{gateway: 10.0.0.11, prefix: 25}").await?;
    scene.counts_become(&pool, counts(2, 1, 1, 0)).await?;
    assert_eq!(scene.claim_address("second", &pool).await?, "10.0.0.12");
    let facts = async |claim: &str| -> Result<Value> {
        let spec = scene.get("IPAddress", claim).await?.context("no address")?.data["spec"].clone();
        Ok(json!([spec["gateway"], spec["prefix"]]))
    };
    assert_eq!(facts("first").await?, json!(["10.0.0.1", 24]));
    assert_eq!(facts("second").await?, json!(["10.0.0.11", 25]));
    Ok(())
}
