//! `two`: two active managers, without election, fill the same pools.

use std::collections::BTreeMap;

use anyhow::Result;
use api::capi::{IpAddress, PoolRef};
use kube::api::{Api, ListParams};
use serde::Serialize;

use crate::args::Args;
use crate::latency::{Latency, rate};
use crate::load::{Batch, NAMESPACE, Room, VERSION};
use crate::report::{Row, per_second};
use crate::runs::fill::fill;
use crate::stage::{Stage, own_metric};

/// What two active managers have done.
#[derive(Clone, Debug, Serialize)]
pub struct Two {
    /// Claims created.
    pub size: usize,
    /// Over so many pools.
    pub pools: usize,
    /// From the first request to the last reference seen.
    pub binds_per_second: f64,
    /// From a claim's creation being sent to its reference being seen.
    pub latency: Latency,
    /// Addresses held twice in one pool; must be 0.
    pub duplicates: usize,
    /// Claims without an address; must be 0.
    pub lost: usize,
    /// Addresses without a claim that refers to them; must be 0.
    pub surplus: usize,
    /// Objects that lost to another, as the managers count them.
    pub conflicts: Option<f64>,
}

impl Row for Two {
    const TITLE: &'static str = "two: two active managers";
    const COLUMNS: &'static [&'static str] = &[
        "size",
        "pools",
        "binds/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "duplicates",
        "lost claims",
        "surplus addresses",
        "conflicts",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.size.to_string(), self.pools.to_string(), per_second(self.binds_per_second)];
        cells.extend(self.latency.cells());
        cells.extend([self.duplicates, self.lost, self.surplus].map(|number| number.to_string()));
        cells.push(self.conflicts.map_or_else(|| "-".to_owned(), |conflicts| conflicts.to_string()));
        cells
    }
}

/// Fills with two managers and counts what must not be.
pub async fn measure(args: &Args, size: usize, pools: usize) -> Result<Two> {
    let mut stage = Stage::start(args).await?;
    stage.load.create_pools(pools, Room::Ample).await?;
    let managers = [stage.manager()?, stage.manager()?];
    let batch = Batch::new("two", size, pools);
    let filled = fill(&mut stage, &batch, || 0).await?;
    stage.settle().await?;

    let bound = filled.bound.iter().flatten().count();
    let addresses = addresses(&stage).await?;
    let ends = filled.created.iter().min().zip(filled.bound.iter().flatten().max());
    let conflicts = managers.iter().map(|manager| own_metric(manager, "ipam_address_conflicts_total", ""));
    Ok(Two {
        size,
        pools,
        binds_per_second: ends.map_or(0.0, |(begin, end)| rate(bound, *begin, *end)),
        latency: Latency::between(&filled.created, &filled.bound),
        duplicates: duplicates(addresses.iter().map(|address| (&address.spec.pool_ref, address.spec.address.as_str()))),
        lost: size - bound,
        surplus: addresses.len().saturating_sub(bound),
        // A manager that never lost has no such series.
        conflicts: conflicts.reduce(|one, other| Some(one.unwrap_or(0.0) + other.unwrap_or(0.0))).flatten(),
    })
}

async fn addresses(stage: &Stage) -> Result<Vec<IpAddress>> {
    let resource = IpAddress::api_resource(VERSION);
    let api: Api<IpAddress> = Api::namespaced_with(stage.load.client.clone(), NAMESPACE, &resource);
    let mut params = ListParams::default().limit(500);
    let mut addresses = Vec::new();
    loop {
        let page = api.list(&params).await?;
        addresses.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(addresses),
        }
    }
}

/// How many holders there are beyond one for each address of a pool.
fn duplicates<'a>(held: impl Iterator<Item = (&'a PoolRef, &'a str)>) -> usize {
    let mut holders: BTreeMap<_, usize> = BTreeMap::new();
    for address in held {
        *holders.entry(address).or_default() += 1;
    }
    holders.values().map(|count| count - 1).sum()
}

#[cfg(test)]
mod tests {
    use api::PoolKind;

    use super::*;

    #[test]
    fn the_same_address_in_two_pools_is_no_duplicate() {
        let [blue, red] = ["blue", "red"].map(|name| PoolRef::to(PoolKind::InClusterIPPool, name));
        assert_eq!(duplicates([(&blue, "10.0.0.1"), (&red, "10.0.0.1"), (&blue, "10.0.0.2")].into_iter()), 0);
        assert_eq!(duplicates([(&blue, "10.0.0.1"), (&blue, "10.0.0.1"), (&blue, "10.0.0.1")].into_iter()), 2);
    }
}
