//! What a pool says of itself on a live server: broken specs, nothing to give, overlaps, duplicates, sizes beyond counting.

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use testbed::{Counts, Pool, QUIET, Scene};

use crate::conformance;
use crate::fixture::{Conformance, Fixture, Mode, except};

const GOOD: &str = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}";
const I64_MAX: u64 = i64::MAX as u64;
const DOMAIN: &str = "in-cluster.ipam.cluster.x-k8s.io/network-domain";

pub fn trials() -> Vec<Conformance> {
    let mut trials = conformance![
        a_pool_with_nothing_to_give_says_why,
        a_full_pool_says_so_until_there_is_room,
        a_huge_pool_is_counted_exactly_and_gives_at_once,
        pools_of_other_namespaces_overlap_only_in_a_shared_network_domain,
        a_global_pool_overlaps_a_namespaced_one_and_prefixes_overlap_addresses,
        a_value_held_twice_is_told_with_its_holders,
        conditions_of_others_stay,
    ];
    // Webhooks refuse what these need: broken pools, or pools that lose what is in use.
    let refused = conformance![
        a_broken_spec_is_told_with_field_and_value,
        a_broken_prefix_spec_is_told_with_field_and_value,
        a_pool_that_breaks_keeps_what_it_gave_and_works_again_once_repaired,
        a_broken_pool_can_be_paused_and_deleted,
        a_prefix_pool_of_the_whole_address_space_works,
        overlapping_global_pools_tell_both_until_one_changes,
    ];
    trials.extend(except(&[Mode::Webhooks], refused));
    trials
}

fn counts(total: u64, used: u64, free: u64, out_of_range: u64) -> Counts {
    Counts { total, used, free, out_of_range }
}

/// Gives nothing out, says so with `words`, and neither crashes nor stops `neighbour`.
async fn is_broken(scene: &Scene, pool: &Pool, words: &[&str], neighbour: &Pool) -> Result<()> {
    scene.condition_says(pool, "Ready", "False", "InvalidSpec", words).await?;
    let claim = format!("{}-{}", pool.kind.to_lowercase(), pool.name);
    scene.claim(&claim, pool).await?;
    scene.tells(&claim, "PoolNotReady", words).await?;
    ensure!(scene.get("IPAddress", &claim).await?.is_none(), "a broken pool gave out an address");
    scene.claim_address(&format!("{claim}-neighbour"), neighbour).await?;
    scene.delete("IPAddressClaim", &claim).await?;
    scene.gone("IPAddressClaim", &claim).await?;
    scene.delete(pool.kind, &pool.name).await?;
    scene.pool_gone(pool).await
}

async fn a_broken_spec_is_told_with_field_and_value(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("broken").await?;
    let neighbour = scene.pool("neighbour", "{addresses: [10.9.0.0/16], prefix: 16}").await?;
    for (name, spec, words) in [
        ("empty", "{addresses: [], prefix: 24}", &["spec.addresses", "addresses is required"][..]),
        ("garbage", "{addresses: [10.0.0.10, not-an-address], prefix: 24}", &["spec.addresses", "not-an-address"]),
        ("octet", "{addresses: [192.168.1.2612], prefix: 24}", &["spec.addresses", "192.168.1.2612"]),
        ("reversed", "{addresses: [10.0.0.20-10.0.0.10], prefix: 24}", &["spec.addresses", "10.0.0.20-10.0.0.10"]),
        ("mixed", "{addresses: [10.0.0.10, 'fd00::1'], prefix: 24}", &["spec.addresses", "mixed IP families"]),
        ("gateway", "{addresses: [10.0.0.10], prefix: 24, gateway: router}", &["spec.gateway", "router"]),
        ("gateway-six", "{addresses: [10.0.0.10], prefix: 24, gateway: 'fd00::1'}", &["spec.gateway", "mixed IP families"]),
        ("excluded", "{addresses: [10.0.0.0/24], prefix: 24, excludedAddresses: [ten]}", &["spec.excludedAddresses", "ten"]),
        (
            "excluded-six",
            "{addresses: [10.0.0.0/24], prefix: 24, excludedAddresses: ['fd00::1']}",
            &["spec.excludedAddresses", "mixed IP families"],
        ),
        ("prefix", "{addresses: [10.0.0.10], prefix: 64}", &["spec.prefix", "64"]),
    ] {
        for pool in scene.ip_pools(name, spec).await? {
            is_broken(&scene, &pool, words, &neighbour).await.with_context(|| format!("{name} {}", pool.kind))?;
        }
    }
    Ok(())
}

async fn a_broken_prefix_spec_is_told_with_field_and_value(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("broken-prefixes").await?;
    let neighbour = scene.prefix_pool("neighbour", "{prefixes: ['fd09::/48']}").await?;
    for (name, spec, words) in [
        ("empty", "{prefixes: []}", &["spec.prefixes", "prefixes is required"][..]),
        ("bare", "{prefixes: ['fd00::1']}", &["spec.prefixes", "fd00::1"]),
        ("host-bits", "{prefixes: ['fd00::1/62']}", &["spec.prefixes", "fd00::1/62"]),
        ("too-long", "{prefixes: ['fd00::/65']}", &["spec.prefixes", "fd00::/65"]),
        ("four", "{prefixes: [10.0.0.0/8]}", &["spec.prefixes", "10.0.0.0/8"]),
        ("gateway", "{prefixes: ['fd00::/62'], gateway: 10.0.0.1}", &["spec.gateway", "10.0.0.1"]),
        ("excluded", "{prefixes: ['fd00::/62'], excludedPrefixes: [10.0.0.1]}", &["spec.excludedPrefixes", "10.0.0.1"]),
    ] {
        for pool in scene.prefix_pools(name, spec).await? {
            is_broken(&scene, &pool, words, &neighbour).await.with_context(|| format!("{name} {}", pool.kind))?;
        }
    }
    Ok(())
}

async fn a_pool_that_breaks_keeps_what_it_gave_and_works_again_once_repaired(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("repaired").await?;
    for pool in scene.ip_pools("blue", GOOD).await? {
        let [first, second] = ["first", "second"].map(|name| format!("{name}-{}", pool.kind.to_lowercase()));
        assert_eq!(scene.claim_address(&first, &pool).await?, "10.0.0.10");
        let before = scene.get("IPAddress", &first).await?.context("no address")?;

        scene.respec(&pool, "{addresses: ['10.0.0.10-10.0.0.999']}").await?;
        scene.condition_says(&pool, "Ready", "False", "InvalidSpec", &["spec.addresses", "10.0.0.10-10.0.0.999"]).await?;
        scene.claim(&second, &pool).await?;
        scene.tells(&second, "PoolNotReady", &["10.0.0.10-10.0.0.999"]).await?;
        let after = scene.get("IPAddress", &first).await?.context("the address is gone")?;
        ensure!(after == before, "a broken pool changed an address: {after:?}");
        scene.says_allocated(&first, "10.0.0.10/24").await?;

        scene.respec(&pool, "{addresses: ['10.0.0.10-10.0.0.12']}").await?;
        assert_eq!(scene.address(&second).await?, "10.0.0.11");
        scene.condition_becomes(&pool, "Ready", "True", "PoolReady").await?;
        scene.counts_become(&pool, counts(3, 2, 1, 0)).await?;
    }
    Ok(())
}

async fn a_broken_pool_can_be_paused_and_deleted(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("broken-gone").await?;
    for pool in scene.ip_pools("blue", GOOD).await? {
        let claim = format!("first-{}", pool.kind.to_lowercase());
        scene.claim_address(&claim, &pool).await?;
        scene.respec(&pool, "{addresses: [], gateway: nowhere}").await?;
        scene.condition_becomes(&pool, "Ready", "False", "InvalidSpec").await?;
        // What a broken spec would give is unknown, so nothing is out of its range.
        scene.counts_become(&pool, counts(0, 1, 0, 0)).await?;
        scene.annotate(pool.kind, &pool.name, "cluster.x-k8s.io/paused", Some("")).await?;
        scene.annotate(pool.kind, &pool.name, "cluster.x-k8s.io/paused", None).await?;
        scene.delete(pool.kind, &pool.name).await?;
        scene.stays(pool.kind, &pool.name, QUIET).await?;
        scene.delete("IPAddressClaim", &claim).await?;
        scene.pool_gone(&pool).await?;
    }
    Ok(())
}

async fn a_pool_with_nothing_to_give_says_why(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("nothing").await?;
    for (name, spec, words) in [
        ("pair", "{addresses: [10.0.0.10/31], prefix: 31}", &["allocateReservedIPAddresses"][..]),
        ("single", "{addresses: [10.0.0.10/32], prefix: 32}", &["allocateReservedIPAddresses"]),
        ("single-six", "{addresses: ['fd00::10/128'], prefix: 128}", &["allocateReservedIPAddresses"]),
        ("only-gateway", "{addresses: [10.0.0.10], prefix: 24, gateway: 10.0.0.10}", &["gateway"]),
        ("all-excluded", "{addresses: [10.0.0.10], prefix: 24, excludedAddresses: [10.0.0.0/24]}", &["exclude"]),
    ] {
        for pool in scene.ip_pools(name, spec).await? {
            scene.counts_become(&pool, counts(0, 0, 0, 0)).await?;
            scene.condition_says(&pool, "Ready", "False", "NoAllocatableAddresses", words).await?;
            scene.condition_becomes(&pool, "Exhausted", "False", "AddressesAvailable").await?;
        }
    }
    let pool = Pool { kind: "InClusterIPPool", name: "pair".to_owned() };
    scene.claim("web", &pool).await?;
    scene.no_address("web", QUIET).await?;
    scene.tells("web", "PoolNotReady", &["pair", "allocateReservedIPAddresses"]).await?;
    scene.respec(&pool, "{allocateReservedIPAddresses: true}").await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    scene.counts_become(&pool, counts(2, 1, 1, 0)).await?;
    scene.condition_becomes(&pool, "Ready", "True", "PoolReady").await?;
    assert_eq!(scene.claim_address("db", &pool).await?, "10.0.0.11");
    Ok(())
}

async fn a_full_pool_says_so_until_there_is_room(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("full").await?;
    for pool in scene.ip_pools("blue", "{addresses: [10.0.0.10-10.0.0.11], prefix: 24}").await? {
        let claim = |number: usize| format!("{}-{number}", pool.kind.to_lowercase());
        scene.condition_becomes(&pool, "Exhausted", "False", "AddressesAvailable").await?;
        scene.claim_address(&claim(0), &pool).await?;
        scene.claim_address(&claim(1), &pool).await?;
        scene.condition_becomes(&pool, "Exhausted", "True", "NoFreeAddresses").await?;
        scene.claim(&claim(2), &pool).await?;
        let words = ["total 2", "used 2", "position 1"];
        scene.tells(&claim(2), "PoolExhausted", &words).await?;
        scene.condition_says(&pool, "Exhausted", "True", "NoFreeAddresses", &["waiting: 1"]).await?;
        scene.condition_becomes(&pool, "Ready", "True", "PoolReady").await?;
        scene.respec(&pool, "{addresses: [10.0.0.10-10.0.0.13]}").await?;
        assert_eq!(scene.address(&claim(2)).await?, "10.0.0.12");
        scene.ready_becomes(&claim(2), "True", "AddressAllocated").await?;
        scene.condition_becomes(&pool, "Exhausted", "False", "AddressesAvailable").await?;
        scene.counts_become(&pool, counts(4, 3, 1, 0)).await?;
    }
    Ok(())
}

async fn a_huge_pool_is_counted_exactly_and_gives_at_once(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("huge").await?;
    // 2^120 addresses without the anycast address of the subnet.
    let total = (1_u128 << 120) - 1;
    for pool in scene.ip_pools("blue", "{addresses: ['fd00::/8'], prefix: 8}").await? {
        scene.counts_become(&pool, counts(I64_MAX, 0, I64_MAX, 0)).await?;
        let exact = &scene.up_to_date(&pool).await?.data["status"]["ipAddressesExact"];
        assert_eq!(*exact, json!({"total": total.to_string(), "free": total.to_string()}));
        let address = scene.claim_address(&format!("web-{}", pool.kind.to_lowercase()), &pool).await?;
        // Nothing below it but the subnet's anycast address `fd00::`.
        assert_eq!(address, "fd00::1");
        scene.counts_become(&pool, counts(I64_MAX, 1, I64_MAX, 0)).await?;
        let exact = &scene.up_to_date(&pool).await?.data["status"]["ipAddressesExact"];
        assert_eq!(*exact, json!({"total": total.to_string(), "free": (total - 1).to_string()}));
        // Exact numbers go when the plain ones suffice.
        scene.respec(&pool, "{addresses: ['fd00::/120']}").await?;
        scene.counts_become(&pool, counts(255, 1, 254, 0)).await?;
        ensure!(scene.up_to_date(&pool).await?.data["status"]["ipAddressesExact"].is_null(), "exact numbers stay");
    }
    Ok(())
}

async fn a_prefix_pool_of_the_whole_address_space_works(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("everything").await?;
    let pool = scene.prefix_pool("blue", "{prefixes: ['::/0'], allocationPrefixLength: 128}").await?;
    scene.counts_become(&pool, counts(I64_MAX, 0, I64_MAX, 0)).await?;
    let exact = &scene.up_to_date(&pool).await?.data["status"]["ipAddressesExact"];
    assert_eq!(exact["total"], "340282366920938463463374607431768211456");
    assert_eq!(scene.claim_address("first", &pool).await?, "::");
    assert_eq!(scene.claim_address("second", &pool).await?, "::1");
    scene.counts_become(&pool, counts(I64_MAX, 2, I64_MAX, 0)).await?;
    // It shares its values with every Global pool of other trials.
    scene.delete("IPAddressClaim", "first").await?;
    scene.delete("IPAddressClaim", "second").await?;
    scene.delete(pool.kind, &pool.name).await?;
    scene.pool_gone(&pool).await
}

/// Global pools of trials at the same time see each other, so these use addresses and a network domain of their own.
async fn own_domain(scene: &Scene, pool: &Pool, domain: &str) -> Result<()> {
    let label = json!({"metadata": {"labels": {DOMAIN: format!("{domain}-{}", scene.namespace)}}});
    scene.patch(pool.kind, &pool.name, &label).await?;
    Ok(())
}

async fn overlapping_global_pools_tell_both_until_one_changes(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("overlap").await?;
    let one = scene.global_pool("one", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let other = scene.global_pool("other", "{addresses: [10.0.0.20-10.0.0.30], prefix: 24}").await?;
    for pool in [&one, &other] {
        own_domain(&scene, pool, "site").await?;
    }
    scene.condition_says(&one, "Overlapping", "True", "OverlapsOtherPool", &[&other.name, "10.0.0.20"]).await?;
    scene.condition_says(&other, "Overlapping", "True", "OverlapsOtherPool", &[&one.name, "10.0.0.20"]).await?;
    // It is told, never enforced.
    assert_eq!(scene.claim_address("web", &other).await?, "10.0.0.20");
    scene.condition_becomes(&other, "Ready", "True", "PoolReady").await?;
    scene.respec(&other, "{addresses: [10.0.0.21-10.0.0.30]}").await?;
    for pool in [&one, &other] {
        scene.condition_becomes(pool, "Overlapping", "False", "NoOverlap").await?;
    }
    // A pool that goes overlaps nothing.
    scene.respec(&one, "{addresses: [10.0.0.10-10.0.0.25]}").await?;
    scene.condition_becomes(&other, "Overlapping", "True", "OverlapsOtherPool").await?;
    scene.delete(one.kind, &one.name).await?;
    scene.condition_becomes(&other, "Overlapping", "False", "NoOverlap").await?;
    Ok(())
}

async fn pools_of_other_namespaces_overlap_only_in_a_shared_network_domain(fixture: &Fixture) -> Result<()> {
    let (here, there) = (fixture.scene("here").await?, fixture.scene("there").await?);
    let spec = "{addresses: [10.77.0.10-10.77.0.20], prefix: 24}";
    let (one, twin) = (here.pool("blue", spec).await?, there.pool("blue", spec).await?);
    for (scene, pool) in [(&here, &one), (&there, &twin)] {
        scene.up_to_date(pool).await?;
        scene.condition_becomes(pool, "Overlapping", "False", "NoOverlap").await?;
    }
    let label = json!({"metadata": {"labels": {DOMAIN: format!("shared-{}", here.namespace)}}});
    for (scene, pool) in [(&here, &one), (&there, &twin)] {
        scene.patch(pool.kind, &pool.name, &label).await?;
    }
    here.condition_says(&one, "Overlapping", "True", "OverlapsOtherPool", &[&there.namespace, "10.77.0.10"]).await?;
    there.condition_says(&twin, "Overlapping", "True", "OverlapsOtherPool", &[&here.namespace, "10.77.0.10"]).await?;
    there.patch(twin.kind, &twin.name, &json!({"metadata": {"labels": {DOMAIN: null}}})).await?;
    here.condition_becomes(&one, "Overlapping", "False", "NoOverlap").await?;
    there.condition_becomes(&twin, "Overlapping", "False", "NoOverlap").await?;
    Ok(())
}

async fn a_global_pool_overlaps_a_namespaced_one_and_prefixes_overlap_addresses(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("kinds").await?;
    let global = scene.global_prefix_pool("blue", "{prefixes: ['fd77::/62']}").await?;
    let local = scene.pool("blue", "{addresses: ['fd77:0:0:1::10-fd77:0:0:1::20'], prefix: 64}").await?;
    let sibling = scene.pool("green", "{addresses: ['fd77:0:0:1::20'], prefix: 64}").await?;
    for pool in [&global, &local, &sibling] {
        own_domain(&scene, pool, "site").await?;
    }
    let words = |pools: [&Pool; 2]| pools.map(|pool| format!("{} ", pool.kind));
    for (pool, partners) in [(&global, [&local, &sibling]), (&local, [&global, &sibling]), (&sibling, [&global, &local])] {
        let words = words(partners);
        let words = words.each_ref().map(String::as_str);
        scene.condition_says(pool, "Overlapping", "True", "OverlapsOtherPool", &words).await?;
    }
    Ok(())
}

async fn a_value_held_twice_is_told_with_its_holders(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("twice").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    scene.condition_becomes(&pool, "Conflicting", "False", "NoDuplicates").await?;
    let before = scene.get("IPAddress", "web").await?;
    scene.foreign_address("made-by-hand", &pool, "10.0.0.10", 24, "{}").await?;
    let words = ["10.0.0.10", &format!("{}/web", scene.namespace), &format!("{}/made-by-hand", scene.namespace)];
    scene.condition_says(&pool, "Conflicting", "True", "DuplicateAddresses", &words).await?;
    scene.counts_become(&pool, counts(11, 2, 10, 0)).await?;
    assert_eq!(scene.get("IPAddress", "web").await?, before);
    scene.delete("IPAddress", "made-by-hand").await?;
    scene.condition_becomes(&pool, "Conflicting", "False", "NoDuplicates").await?;
    scene.counts_become(&pool, counts(11, 1, 10, 0)).await
}

async fn conditions_of_others_stay(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("others").await?;
    let pool = scene.pool("blue", GOOD).await?;
    let object = scene.up_to_date(&pool).await?;
    let version = object.resource_version();
    let theirs = json!({"type": "Approved", "status": "True", "reason": "ByNetworkTeam", "message": "", "lastTransitionTime": "2026-01-31T10:00:00Z"});
    let applied = json!({"apiVersion": "ipam.cluster.x-k8s.io/v1alpha2", "kind": pool.kind, "metadata": {"name": pool.name},
        "status": {"conditions": [theirs]}});
    let params = kube::api::PatchParams::apply("network-team");
    scene.api(pool.kind).patch_status(&pool.name, &params, &kube::api::Patch::Apply(&applied)).await?;
    ensure!(scene.get(pool.kind, &pool.name).await?.and_then(|pool| pool.resource_version()) != version, "nothing was applied");
    scene.claim_address("web", &pool).await?;
    scene.counts_become(&pool, counts(11, 1, 10, 0)).await?;
    scene.condition_becomes(&pool, "Ready", "True", "PoolReady").await?;
    let status = scene.up_to_date(&pool).await?.data["status"].clone();
    let approved = status["conditions"].as_array().context("no conditions")?.iter().find(|one| one["type"] == "Approved");
    assert_eq!(approved.context("the condition of somebody else is gone")?["reason"], "ByNetworkTeam");
    Ok(())
}
