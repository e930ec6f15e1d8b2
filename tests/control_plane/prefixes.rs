//! Claims on prefix pools.

use anyhow::Result;
use serde_json::json;
use testbed::{Counts, QUIET};

use crate::conformance;
use crate::fixture::{Conformance, Fixture};

pub fn trials() -> Vec<Conformance> {
    conformance![
        claims_get_the_lowest_blocks_with_the_gateway,
        a_paused_prefix_pool_gives_nothing_until_it_goes_on,
        blocks_have_the_pools_length,
        the_lowest_block_comes_first_whatever_the_order_of_the_list,
        a_global_prefix_pool_serves_every_namespace,
        a_full_prefix_pool_gives_a_freed_block_to_the_waiting_claim,
    ]
}

/// X1, both. A claim on a pool of the API server's default length: 64 is written by the CRD.
async fn claims_get_the_lowest_blocks_with_the_gateway(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("blocks").await?;
    let spec = "{prefixes: ['fd00::/62'], gateway: 'fd00::1'}";
    for (pool, names) in [
        (scene.prefix_pool("blue", spec).await?, ["first", "second"]),
        (scene.global_prefix_pool("blue", spec).await?, ["third", "fourth"]),
    ] {
        assert_eq!(scene.claim_address(names[0], &pool).await?, "fd00::");
        assert_eq!(scene.claim_address(names[1], &pool).await?, "fd00:0:0:1::");
        for name in names {
            let address = scene.api("IPAddress").get(name).await?;
            assert_eq!((&address.data["spec"]["prefix"], &address.data["spec"]["gateway"]), (&json!(64), &json!("fd00::1")));
        }
        scene.says_allocated(names[1], "fd00:0:0:1::/64").await?;
    }
    Ok(())
}

/// X2.
async fn a_paused_prefix_pool_gives_nothing_until_it_goes_on(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("pausedblocks").await?;
    let paused = "cluster.x-k8s.io/paused";
    let pool = scene.annotated_pool("InClusterPrefixPool", "blue", paused, "", "{prefixes: ['fd00::/62']}").await?;
    scene.claim("web", &pool).await?;
    scene.no_address("web", QUIET).await?;
    scene.annotate(pool.kind, "blue", paused, None).await?;
    assert_eq!(scene.address("web").await?, "fd00::");
    Ok(())
}

/// X3.
async fn blocks_have_the_pools_length(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("lengths").await?;
    let pool = scene.prefix_pool("blue", "{prefixes: ['fd06::/48'], allocationPrefixLength: 56}").await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "fd06::");
    assert_eq!(scene.claim_address("second", &pool).await?, "fd06:0:0:100::");
    assert_eq!(scene.api("IPAddress").get("second").await?.data["spec"]["prefix"], 56);
    // Hosts of the whole of IPv6.
    let pool = scene.prefix_pool("all", "{prefixes: ['::/0'], allocationPrefixLength: 128}").await?;
    assert_eq!(scene.claim_address("zero", &pool).await?, "::");
    assert_eq!(scene.claim_address("one", &pool).await?, "::1");
    Ok(())
}

/// X4.
async fn the_lowest_block_comes_first_whatever_the_order_of_the_list(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("mixedblocks").await?;
    let pool = scene.prefix_pool("blue", "{prefixes: ['fd10::/64', 'fd00:0:0:1::/64']}").await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "fd00:0:0:1::");
    assert_eq!(scene.claim_address("second", &pool).await?, "fd10::");
    // An excluded host takes its whole block.
    let pool = scene.prefix_pool("holes", "{prefixes: ['fd00::/62'], excludedPrefixes: ['fd00:0:0:1::7', 'fd00::/64']}").await?;
    assert_eq!(scene.claim_address("third", &pool).await?, "fd00:0:0:2::");
    Ok(())
}

/// X5.
async fn a_global_prefix_pool_serves_every_namespace(fixture: &Fixture) -> Result<()> {
    let (one, two) = (fixture.scene("northblocks").await?, fixture.scene("southblocks").await?);
    let pool = one.global_prefix_pool("shared", "{prefixes: ['fd00::/62']}").await?;
    assert_eq!(one.claim_address("web", &pool).await?, "fd00::");
    assert_eq!(two.claim_address("web", &pool).await?, "fd00:0:0:1::");
    Ok(())
}

/// X6, X7.
async fn a_full_prefix_pool_gives_a_freed_block_to_the_waiting_claim(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("fullblocks").await?;
    let pool = scene.prefix_pool("small", "{prefixes: ['fd00::/64']}").await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "fd00::");
    scene.claim("second", &pool).await?;
    scene.tells("second", "PoolExhausted", &["small"]).await?;
    scene.no_address("second", QUIET).await?;
    scene.counts_become(&pool, Counts { total: 1, used: 1, free: 0, out_of_range: 0 }).await?;
    scene.delete("IPAddressClaim", "first").await?;
    scene.gone("IPAddressClaim", "first").await?;
    assert!(scene.get("IPAddress", "first").await?.is_none());
    assert_eq!(scene.address("second").await?, "fd00::");
    Ok(())
}
