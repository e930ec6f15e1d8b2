//! Claims on a live server: what a user who creates and deletes claims sees.

use std::time::Duration;

use anyhow::{Context, Result};
use testbed::Counts;

use crate::conformance;
use crate::fixture::{Conformance, Fixture};

pub fn trials() -> Vec<Conformance> {
    conformance![claims_get_the_lowest_free_addresses_in_order, a_full_pool_gives_a_freed_address_to_the_waiting_claim]
}

async fn claims_get_the_lowest_free_addresses_in_order(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("lowest").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24, gateway: 10.0.0.10}").await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "10.0.0.11");
    assert_eq!(scene.claim_address("second", &pool).await?, "10.0.0.12");

    let address = scene.get("IPAddress", "first").await?.context("no IPAddress named after its claim")?;
    assert_eq!(address.data["spec"]["prefix"], 24);
    assert_eq!(address.data["spec"]["gateway"], "10.0.0.10");
    assert_eq!(address.data["spec"]["claimRef"]["name"], "first");
    scene.counts_become(&pool, Counts { total: 10, used: 2, free: 8, out_of_range: 0 }).await
}

async fn a_full_pool_gives_a_freed_address_to_the_waiting_claim(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("waiting").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24}").await?;
    assert_eq!(scene.claim_address("first", &pool).await?, "10.0.0.10");
    scene.claim("second", &pool).await?;
    scene.no_address("second", Duration::from_secs(2)).await?;
    scene.delete("IPAddressClaim", "first").await?;
    scene.gone("IPAddressClaim", "first").await?;
    assert_eq!(scene.address("second").await?, "10.0.0.10");
    Ok(())
}
