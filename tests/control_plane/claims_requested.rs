//! Claims that want a certain address: by annotation, by the pool's pre-allocations, or because they had it before.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{Pool, QUIET, Scene};

use crate::conformance;
use crate::fixture::{Conformance, Fixture};

pub fn trials() -> Vec<Conformance> {
    conformance![
        a_free_requested_address_is_given,
        a_requested_address_that_cannot_be_given_is_refused_with_the_reason,
        a_held_requested_address_is_given_when_it_comes_free,
        a_requested_prefix_is_a_base_address_or_a_block,
        a_pre_allocated_address_is_for_its_claim_only,
        bad_pre_allocations_do_not_spoil_the_others,
        a_sticky_pool_gives_a_claim_its_address_again,
        a_sticky_pool_still_serves_others_when_it_is_full,
        a_pool_without_the_annotation_remembers_nothing,
    ]
}

const REQUESTED: &str = "in-cluster.ipam.cluster.x-k8s.io/requested-address";
const PRE_ALLOCATIONS: &str = "in-cluster.ipam.cluster.x-k8s.io/pre-allocations";
const STICKY: &str = "in-cluster.ipam.cluster.x-k8s.io/sticky";
const SPEC: &str = "{addresses: [10.0.0.0-10.0.0.20, 10.0.0.255], prefix: 24, gateway: 10.0.0.1, excludedAddresses: [10.0.0.7]}";

async fn request(scene: &Scene, claim: &str, pool: &Pool, address: &str) -> Result<()> {
    scene.claim_with(claim, pool, &json!({"metadata": {"annotations": {REQUESTED: address}}}).to_string()).await
}

/// Line 12: free. The second name of the annotation is the one that other providers use.
async fn a_free_requested_address_is_given(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("wish").await?;
    let pool = scene.pool("blue", SPEC).await?;
    request(&scene, "web", &pool, "10.0.0.15").await?;
    scene.claim_with("other", &pool, "{metadata: {annotations: {ipAddress: 10.0.0.16}}}").await?;
    assert_eq!(scene.address("web").await?, "10.0.0.15");
    assert_eq!(scene.address("other").await?, "10.0.0.16");
    assert_eq!(scene.claim_address("any", &pool).await?, "10.0.0.2");
    // Later changes change nothing.
    scene.annotate("IPAddressClaim", "web", REQUESTED, Some("10.0.0.17")).await?;
    scene.untouched("IPAddress", "web").await?;
    assert_eq!(scene.address("web").await?, "10.0.0.15");
    Ok(())
}

/// Line 12: excluded, reserved, out of pool, malformed; each with what to do about it; and a corrected request is served.
async fn a_requested_address_that_cannot_be_given_is_refused_with_the_reason(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("refused").await?;
    let pool = scene.pool("blue", SPEC).await?;
    let refused = [
        ("excluded", "10.0.0.7", "excluded"),
        ("network", "10.0.0.0", "network"),
        ("broadcast", "10.0.0.255", "broadcast"),
        ("gateway", "10.0.0.1", "gateway"),
        ("outside", "10.0.9.9", "pool"),
        ("family", "fd00::1", "fd00::1"),
        ("garbage", "ten", "\"ten\""),
        ("blank", "", "\"\""),
    ];
    for (claim, address, _) in refused {
        request(&scene, claim, &pool, address).await?;
    }
    for (claim, address, word) in refused {
        scene.tells(claim, "AllocationFailed", &["requested address", address, word]).await?;
        ensure!(scene.get("IPAddress", claim).await?.is_none());
        let ready = scene.ready(claim).await?;
        assert_eq!(ready.and_then(|ready| ready.severity).as_deref(), Some("Error"));
    }
    // Nobody stands in the way of others.
    assert_eq!(scene.claim_address("any", &pool).await?, "10.0.0.2");
    scene.annotate("IPAddressClaim", "garbage", REQUESTED, Some("10.0.0.10")).await?;
    assert_eq!(scene.address("garbage").await?, "10.0.0.10");
    scene.annotate("IPAddressClaim", "outside", REQUESTED, None).await?;
    assert_eq!(scene.address("outside").await?, "10.0.0.3");
    // The pool can come to the claim, too.
    scene.patch(pool.kind, "blue", &json!({"spec": {"excludedAddresses": null}})).await?;
    assert_eq!(scene.address("excluded").await?, "10.0.0.7");
    Ok(())
}

/// Line 12: held, later freed; served before general waiters, whom it does not block.
async fn a_held_requested_address_is_given_when_it_comes_free(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("held").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10-10.0.0.11], prefix: 24}").await?;
    scene.claim_address("first", &pool).await?;
    scene.claim_address("second", &pool).await?;
    scene.claim("general", &pool).await?;
    scene.tells("general", "PoolExhausted", &["small"]).await?;
    request(&scene, "special", &pool, "10.0.0.11").await?;
    scene.tells("special", "AllocationFailed", &["10.0.0.11 is held by", "/second"]).await?;
    scene.delete("IPAddressClaim", "second").await?;
    assert_eq!(scene.address("special").await?, "10.0.0.11");
    ensure!(scene.bound_address("general").await?.is_none());
    request(&scene, "again", &pool, "10.0.0.11").await?;
    scene.tells("again", "AllocationFailed", &["/special"]).await?;
    scene.delete("IPAddressClaim", "first").await?;
    assert_eq!(scene.address("general").await?, "10.0.0.10");
    Ok(())
}

async fn a_requested_prefix_is_a_base_address_or_a_block(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("wishblock").await?;
    let pool = scene.prefix_pool("blue", "{prefixes: ['fd00::/60']}").await?;
    request(&scene, "base", &pool, "fd00:0:0:3::").await?;
    request(&scene, "block", &pool, "fd00:0:0:5::/64").await?;
    request(&scene, "length", &pool, "fd00:0:0:6::/63").await?;
    request(&scene, "inside", &pool, "fd00:0:0:6::1").await?;
    assert_eq!(scene.address("base").await?, "fd00:0:0:3::");
    assert_eq!(scene.address("block").await?, "fd00:0:0:5::");
    for claim in ["length", "inside"] {
        scene.tells(claim, "AllocationFailed", &["requested address", "fd00:0:0:6::"]).await?;
        ensure!(scene.get("IPAddress", claim).await?.is_none());
    }
    Ok(())
}

/// Line 12: given only to its claim. Both.
async fn a_pre_allocated_address_is_for_its_claim_only(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("setaside").await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}";
    let entries = json!({"web": "10.0.0.10"}).to_string();
    let pool = scene.annotated_pool("InClusterIPPool", "blue", PRE_ALLOCATIONS, &entries, spec).await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "10.0.0.11");
    request(&scene, "thief", &pool, "10.0.0.10").await?;
    scene.tells("thief", "AllocationFailed", &["pre-allocated to web"]).await?;
    assert_eq!(scene.claim_address("second", &pool).await?, "10.0.0.12");
    scene.claim("third", &pool).await?;
    scene.no_address("third", QUIET).await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");

    // In a Global pool the names are those of a namespace.
    let entries = json!({format!("{}/db", scene.namespace): "10.0.0.12"}).to_string();
    let name = format!("blue-{}", scene.namespace);
    let pool = scene.annotated_pool("GlobalInClusterIPPool", &name, PRE_ALLOCATIONS, &entries, spec).await?;
    let elsewhere = fixture.scene("setelsewhere").await?;
    assert_eq!(elsewhere.claim_address("db", &pool).await?, "10.0.0.10");
    assert_eq!(scene.claim_address("db", &pool).await?, "10.0.0.12");
    // An annotation on the claim wins over the pool's.
    let entries = json!({"late": "10.0.0.11"}).to_string();
    let pool = scene.annotated_pool("InClusterIPPool", "green", PRE_ALLOCATIONS, &entries, spec).await?;
    request(&scene, "late", &pool, "10.0.0.12").await?;
    assert_eq!(scene.address("late").await?, "10.0.0.12");
    Ok(())
}

async fn bad_pre_allocations_do_not_spoil_the_others(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("badaside").await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.12], prefix: 24}";
    let entries = json!({"a": "10.0.9.9", "b": 7, "c": "10.0.0.11"}).to_string();
    let pool = scene.annotated_pool("InClusterIPPool", "blue", PRE_ALLOCATIONS, &entries, spec).await?;
    assert_eq!(scene.claim_address("a", &pool).await?, "10.0.0.10");
    assert_eq!(scene.claim_address("b", &pool).await?, "10.0.0.12");
    assert_eq!(scene.claim_address("c", &pool).await?, "10.0.0.11");
    let pool = scene.annotated_pool("InClusterIPPool", "broken", PRE_ALLOCATIONS, "{not json", spec).await?;
    assert_eq!(scene.claim_address("d", &pool).await?, "10.0.0.10");
    Ok(())
}

/// Line 13; the restarted mode and the standalone trial show that it survives a restart.
async fn a_sticky_pool_gives_a_claim_its_address_again(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("sticky").await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.15], prefix: 24}";
    let pool = scene.annotated_pool("InClusterIPPool", "blue", STICKY, "168h", spec).await?;
    for (claim, address) in [("a", "10.0.0.10"), ("b", "10.0.0.11"), ("c", "10.0.0.12")] {
        assert_eq!(scene.claim_address(claim, &pool).await?, address);
    }
    for claim in ["a", "b", "c"] {
        scene.delete("IPAddressClaim", claim).await?;
    }
    for claim in ["a", "b", "c"] {
        scene.gone("IPAddressClaim", claim).await?;
    }
    // Others avoid what is remembered.
    assert_eq!(scene.claim_address("new", &pool).await?, "10.0.0.13");
    for (claim, address) in [("c", "10.0.0.12"), ("a", "10.0.0.10"), ("b", "10.0.0.11")] {
        assert_eq!(scene.claim_address(claim, &pool).await?, address);
    }
    Ok(())
}

/// Line 13: stickiness never exhausts a pool; the oldest memory goes first.
async fn a_sticky_pool_still_serves_others_when_it_is_full(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("stickyfull").await?;
    let spec = "{addresses: [10.0.0.10-10.0.0.11], prefix: 24}";
    let pool = scene.annotated_pool("InClusterIPPool", "small", STICKY, "1h", spec).await?;
    scene.claim_address("a", &pool).await?;
    scene.claim_address("b", &pool).await?;
    scene.delete("IPAddressClaim", "b").await?;
    scene.gone("IPAddressClaim", "b").await?;
    // Memory is kept to the second.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    scene.delete("IPAddressClaim", "a").await?;
    scene.gone("IPAddressClaim", "a").await?;
    assert_eq!(scene.claim_address("new", &pool).await?, "10.0.0.11");
    assert_eq!(scene.claim_address("newer", &pool).await?, "10.0.0.10");
    Ok(())
}

async fn a_pool_without_the_annotation_remembers_nothing(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("forgets").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.15], prefix: 24}").await?;
    scene.claim_address("a", &pool).await?;
    scene.claim_address("b", &pool).await?;
    for claim in ["b", "a"] {
        scene.delete("IPAddressClaim", claim).await?;
        scene.gone("IPAddressClaim", claim).await?;
    }
    assert_eq!(scene.claim_address("b", &pool).await?, "10.0.0.10");
    let object = scene.api(pool.kind).get("blue").await?;
    ensure!(object.metadata.annotations.is_none(), "{:?}", object.metadata.annotations);
    Ok(())
}
