//! What this API server can take at most: the writes of a bind, sent without any manager by the load generator itself.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use api::capi::{AddressSpec, ClaimConditions, ClaimReady, IpAddress, LocalRef, status_patch};
use indicatif::ProgressBar;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{json, to_value};

use crate::args::CapiLimit;
use crate::latency::{Latency, rate, ratio};
use crate::load::{Batch, Load, VERSION, addresses_url, claims_url};
use crate::progress::bar;
use crate::report::{Row, per_second};

/// Binds for each of the figures.
const BINDS: usize = 500;
/// Binds without company, for the round trip.
const ALONE: usize = 50;
/// Nobody's pools, so that no manager ever looks at these claims.
const GROUP: &str = "bench.example.com";
const FINALIZER: &str = "bench.example.com/ceiling";

/// The server's ceilings, measured right before the runs they are compared with.
#[derive(Clone, Debug, Serialize)]
pub struct Ceiling {
    /// Claims of the runs that follow.
    pub size: usize,
    /// Pools of the runs that follow.
    pub pools: usize,
    /// Claims created, per second.
    pub creates_per_second: f64,
    /// POST of an address and PATCH of its claim's status, pairs per second.
    pub two_writes_per_second: f64,
    /// The same with a PATCH of the claim's finalizers between, triples per second.
    pub three_writes_per_second: f64,
    /// A third of what it takes to create a claim, create its address and patch its status, one after the other, while
    /// nothing else goes on.
    pub round_trip: Latency,
}

impl Ceiling {
    /// Binds per second of the writes that a manager made, given as in [`Requests::writes_per`].
    ///
    /// [`Requests::writes_per`]: crate::counters::Requests::writes_per
    pub fn of_own(&self, writes: &BTreeMap<String, f64>) -> f64 {
        // Without the claim webhook a manager adds its finalizer itself.
        let third = writes.get("PATCH ipaddressclaims").is_some_and(|share| *share > 0.5);
        if third { self.three_writes_per_second } else { self.two_writes_per_second }
    }

    /// Binds per second if the same server also takes the claims' own creation: what a fill asks of it in all.
    pub fn with_creation(&self, writes: f64) -> f64 {
        ratio(1.0, ratio(1.0, self.creates_per_second) + ratio(1.0, writes))
    }
}

impl Row for Ceiling {
    const TITLE: &'static str = "Raw ceiling of this API server, no manager (per second)";
    const COLUMNS: &'static [&'static str] =
        &["size", "pools", "create claim", "2 writes", "3 writes", "create + 2", "create + 3", "round trip ms"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.size.to_string(),
            self.pools.to_string(),
            per_second(self.creates_per_second),
            per_second(self.two_writes_per_second),
            per_second(self.three_writes_per_second),
            per_second(self.with_creation(self.two_writes_per_second)),
            per_second(self.with_creation(self.three_writes_per_second)),
            format!("{:.1}", self.round_trip.p50_ms),
        ]
    }
}

/// What a later write needs of an object.
#[derive(Clone, Deserialize)]
struct Written {
    metadata: WrittenMeta,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMeta {
    uid: String,
    resource_version: String,
}

/// Measures, and removes what it made. A `limit` is Cluster API's, if it is asked about each address.
pub async fn measure(load: &Load, size: usize, pools: usize, limit: CapiLimit) -> Result<Ceiling> {
    let load = &load.bare();
    let bar = bar("raw ceiling", 9 * BINDS / 2);
    let batch = |name, count| Batch { group: GROUP, ..Batch::new(name, count, 1) };
    let (alone, two, three) = (batch("alone", ALONE), batch("two", BINDS), batch("three", BINDS));

    // The first requests open the connections; they are not counted.
    load.create(&batch("warm", BINDS / 2), &bar).await?;
    let begin = Instant::now();
    let claims_of_two = create(load, &two, &bar).await?;
    let claims_of_three = create(load, &three, &bar).await?;
    let creates_per_second = rate(2 * BINDS, begin, Instant::now());

    // After a rest Cluster API answers as many at once as in a whole second. Those are used up first.
    let burst = batch("burst", limit.0.map_or(Ok(0), usize::try_from)?.saturating_mul(3).min(BINDS));
    let claims_of_burst = create(load, &burst, &bar).await?;
    binds(load, &burst, &claims_of_burst, false, &bar).await?;

    let two_writes_per_second = binds(load, &two, &claims_of_two, false, &bar).await?;
    let three_writes_per_second = binds(load, &three, &claims_of_three, true, &bar).await?;

    let mut trips = Vec::new();
    for index in 0..ALONE {
        let begin = Instant::now();
        let claim = load.create_one(&alone, index).await?;
        bind(load, &alone, index, claim, false).await?;
        trips.push(begin.elapsed() / 3);
    }

    for batch in [batch("warm", BINDS / 2), burst, alone, two, three] {
        remove(load, &batch).await?;
    }
    bar.finish_and_clear();
    let round_trip = Latency::of(trips);
    Ok(Ceiling { size, pools, creates_per_second, two_writes_per_second, three_writes_per_second, round_trip })
}

async fn create(load: &Load, batch: &Batch, bar: &ProgressBar) -> Result<Vec<Written>> {
    load.all(batch.count, async |index| {
        let claim = load.create_one(batch, index).await?;
        bar.inc(1);
        Ok(claim)
    })
    .await
}

async fn binds(load: &Load, batch: &Batch, claims: &[Written], with_finalizer: bool, bar: &ProgressBar) -> Result<f64> {
    let begin = Instant::now();
    load.all(batch.count, async |index| {
        bind(load, batch, index, claims[index].clone(), with_finalizer).await?;
        bar.inc(1);
        Ok(())
    })
    .await?;
    Ok(rate(batch.count, begin, Instant::now()))
}

/// What a manager writes for one claim, as alike as can be without a manager to undo it.
async fn bind(load: &Load, batch: &Batch, index: usize, claim: Written, with_finalizer: bool) -> Result<()> {
    let name = batch.claim(index);
    let ip = std::net::Ipv4Addr::from_bits(0x0a00_0001 + u32::try_from(index)?).to_string();
    let owner = OwnerReference {
        api_version: VERSION.api_version().to_owned(),
        kind: "IPAddressClaim".to_owned(),
        name: name.clone(),
        uid: claim.metadata.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    };
    let metadata = ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() };
    let spec = AddressSpec {
        claim_ref: LocalRef { name: name.clone() },
        pool_ref: batch.pool(index),
        address: ip.clone(),
        prefix: Some(8),
        gateway: None,
    };
    load.post::<Written>(&addresses_url(), to_value(IpAddress::new(VERSION, metadata, spec))?).await?;

    let mut version = claim.metadata.resource_version;
    if with_finalizer {
        let patch = json!({"metadata": {"finalizers": [FINALIZER], "resourceVersion": version}});
        version = load.patch::<Written>(&claims_url(), &name, false, &patch).await?.metadata.resource_version;
    }
    let ready = ClaimReady::bound(&ip, 8, Some(1));
    let patch = status_patch(&ClaimConditions::default(), &ready, Some(&name), VERSION, &version, Timestamp::now());
    load.patch::<Written>(&claims_url(), &name, true, &patch).await?;
    Ok(())
}

async fn remove(load: &Load, batch: &Batch) -> Result<()> {
    load.all(batch.count, async |index| {
        let name = batch.claim(index);
        if batch.name != "warm" {
            load.delete_one(&addresses_url(), &name).await?;
        }
        if batch.name == "three" {
            let patch = json!({"metadata": {"finalizers": null}});
            load.patch::<Written>(&claims_url(), &name, false, &patch).await?;
        }
        load.delete_one(&claims_url(), &name).await
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_the_server_adds_up_in_time() {
        let ceiling = Ceiling {
            size: 1,
            pools: 1,
            creates_per_second: 600.0,
            two_writes_per_second: 300.0,
            three_writes_per_second: 150.0,
            round_trip: Latency::default(),
        };
        assert!((ceiling.with_creation(ceiling.two_writes_per_second) - 200.0).abs() < 1e-9);
        assert!((ceiling.with_creation(ceiling.three_writes_per_second) - 120.0).abs() < 1e-9);
    }
}
