//! The load generator: creates and deletes claims, a fixed number of requests at a time, each on a connection of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::PoolKind;
use api::capi::{CapiVersion, ClaimSpec, IpAddress, IpAddressClaim, PoolRef};
use api::names::RELEASE_ADDRESS;
use api::v1alpha2::IpPool;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Where everything happens that is measured.
pub const NAMESPACE: &str = "bench";
/// The version of Cluster API's kinds that is spoken here.
pub const VERSION: CapiVersion = CapiVersion::V1beta2;

/// Claims that are made together: `<name>-0`, `<name>-1` and so on, dealt out over the pools in turn.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// What their names begin with.
    pub name: &'static str,
    /// How many.
    pub count: usize,
    /// Over how many pools.
    pub pools: usize,
    /// The pools' API group; one that is not ours makes claims that no manager touches.
    pub group: &'static str,
}

impl Batch {
    /// Claims on our own pools.
    pub fn new(name: &'static str, count: usize, pools: usize) -> Self {
        Self { name, count, pools, group: api::names::IPAM_GROUP }
    }

    /// The name of one claim.
    pub fn claim(&self, index: usize) -> String {
        format!("{}-{index}", self.name)
    }

    /// Which claim of this batch has the name.
    pub fn index(&self, claim: &str) -> Option<usize> {
        let index = claim.strip_prefix(self.name)?.strip_prefix('-')?.parse().ok()?;
        (index < self.count).then_some(index)
    }

    /// The pool of one claim.
    pub fn pool(&self, index: usize) -> PoolRef {
        let name = pool_name(index % self.pools);
        PoolRef { api_group: Some(self.group.to_owned()), ..PoolRef::to(PoolKind::InClusterIPPool, &name) }
    }
}

fn pool_name(index: usize) -> String {
    format!("pool-{index}")
}

/// Sends requests and knows when it sent them.
#[derive(Clone)]
pub struct Load {
    /// The client of all requests.
    pub client: Client,
    connections: usize,
    finalizers: Option<Vec<String>>,
}

impl Load {
    /// At most `connections` requests at once.
    pub fn new(client: Client, connections: usize, with_finalizer: bool) -> Self {
        Self { client, connections, finalizers: with_finalizer.then(|| vec![RELEASE_ADDRESS.to_owned()]) }
    }

    /// The same, with claims that carry no finalizer.
    pub fn bare(&self) -> Self {
        Self { finalizers: None, ..self.clone() }
    }

    /// The same, one request after the other.
    pub fn in_order(&self) -> Self {
        Self { connections: 1, ..self.clone() }
    }

    /// Creates the namespace.
    pub async fn create_namespace(&self) -> Result<()> {
        let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(())
    }

    /// Creates as many pools, none overlapping another, each with at least `room` addresses; returns when all exist.
    pub async fn create_pools(&self, pools: usize, room: Room) -> Result<()> {
        let url = IpPool::url_path(&PoolKind::InClusterIPPool, Some(NAMESPACE));
        let create = |index: usize| {
            let pool = json!({
                "apiVersion": "ipam.cluster.x-k8s.io/v1alpha2",
                "kind": "InClusterIPPool",
                "metadata": {"name": pool_name(index)},
                "spec": {"addresses": [room.range(index, pools)], "prefix": 8},
            });
            self.post::<Value>(&url, pool)
        };
        self.all(pools, create).await?;
        Ok(())
    }

    /// Creates the claims; when each request left.
    pub async fn create(&self, batch: &Batch, bar: &ProgressBar) -> Result<Vec<Instant>> {
        let created = self
            .all(batch.count, async |index| {
                let begin = Instant::now();
                self.create_one::<Value>(batch, index).await?;
                bar.inc(1);
                Ok(begin)
            })
            .await;
        created.context("create claims")
    }

    /// Creates the claims one `pause` after the other; when each was due.
    pub async fn create_evenly(&self, batch: &Batch, pause: Duration) -> Result<Vec<Instant>> {
        let begin = Instant::now();
        let created = self
            .all(batch.count, async |index| {
                let due = begin + pause * u32::try_from(index)?;
                tokio::time::sleep_until(due.into()).await;
                self.create_one::<Value>(batch, index).await?;
                Ok(due)
            })
            .await;
        created.context("create claims evenly")
    }

    /// Creates one claim and decodes the answer.
    pub async fn create_one<T: DeserializeOwned>(&self, batch: &Batch, index: usize) -> Result<T> {
        let claim = IpAddressClaim {
            api_version: VERSION.api_version().to_owned(),
            kind: "IPAddressClaim".to_owned(),
            metadata: ObjectMeta { name: Some(batch.claim(index)), finalizers: self.finalizers.clone(), ..ObjectMeta::default() },
            spec: ClaimSpec { cluster_name: None, pool_ref: batch.pool(index) },
            ..IpAddressClaim::default()
        };
        self.post(&claims_url(), serde_json::to_value(claim)?).await
    }

    /// Deletes the claims `from..to` of a batch; when each request left.
    pub async fn delete(&self, batch: &Batch, from: usize, to: usize, bar: &ProgressBar) -> Result<Vec<Instant>> {
        let deleted = self
            .all(to - from, async |index| {
                let begin = Instant::now();
                self.delete_one(&claims_url(), &batch.claim(from + index)).await?;
                bar.inc(1);
                Ok(begin)
            })
            .await;
        deleted.context("delete claims")
    }

    /// Deletes one object.
    pub async fn delete_one(&self, url: &str, name: &str) -> Result<()> {
        let request = Request::new(url).delete(name, &DeleteParams::default())?;
        self.client.request_text(request).await?;
        Ok(())
    }

    /// Creates one object.
    pub async fn post<T: DeserializeOwned>(&self, url: &str, object: Value) -> Result<T> {
        let request = Request::new(url).create(&PostParams::default(), serde_json::to_vec(&object)?)?;
        Ok(self.client.request(request).await?)
    }

    /// Merge-patches one object, or its status.
    pub async fn patch<T: DeserializeOwned>(&self, url: &str, name: &str, status: bool, patch: &Value) -> Result<T> {
        let (request, params) = (Request::new(url), PatchParams::default());
        let request = if status {
            request.patch_subresource("status", name, &params, &Patch::Merge(patch))?
        } else {
            request.patch(name, &params, &Patch::Merge(patch))?
        };
        Ok(self.client.request(request).await?)
    }

    /// Does `one` for each index, so many at once; the answers by index.
    pub async fn all<T>(&self, count: usize, one: impl AsyncFn(usize) -> Result<T>) -> Result<Vec<T>> {
        let one = &one;
        let requests = stream::iter(0..count).map(|index| async move { anyhow::Ok((index, one(index).await?)) });
        let mut answers: Vec<_> = requests.buffer_unordered(self.connections).try_collect().await?;
        answers.sort_unstable_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}

/// How large the pools are.
#[derive(Clone, Copy, Debug)]
pub enum Room {
    /// They share `10.0.0.0/8`.
    Ample,
    /// So many addresses each.
    Exactly(usize),
}

impl Room {
    fn range(self, index: usize, pools: usize) -> String {
        /// Everything in `10.0.0.0/8` but its two ends.
        const ALL: u32 = (1 << 24) - 2;
        let count = |number: usize| u32::try_from(number).unwrap_or(ALL).min(ALL);
        let share = ALL / count(pools).max(1);
        let size = match self {
            Self::Ample => share,
            Self::Exactly(size) => count(size).min(share),
        };
        let first = u32::from(std::net::Ipv4Addr::new(10, 0, 0, 1)) + count(index) * share;
        let ip = std::net::Ipv4Addr::from_bits;
        format!("{}-{}", ip(first), ip(first + size - 1))
    }
}

/// The URL of all claims here.
pub fn claims_url() -> String {
    IpAddressClaim::url_path(&IpAddressClaim::api_resource(VERSION), Some(NAMESPACE))
}

/// The URL of all addresses here.
pub fn addresses_url() -> String {
    IpAddress::url_path(&IpAddress::api_resource(VERSION), Some(NAMESPACE))
}

/// How long nothing may happen before a run goes on without what it waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_found_again_by_its_name() {
        let batch = Batch::new("fill", 10, 3);
        assert_eq!(batch.index(&batch.claim(7)), Some(7));
        assert_eq!(batch.pool(7).name, "pool-1");
        for stranger in ["fill-10", "filler-1", "steady-1", "fill-x", "fill"] {
            assert_eq!(batch.index(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn pools_lie_side_by_side() {
        assert_eq!(Room::Ample.range(0, 1), "10.0.0.1-10.255.255.254");
        assert_eq!(Room::Exactly(3).range(0, 1), "10.0.0.1-10.0.0.3");
        assert_eq!(Room::Ample.range(0, 2), "10.0.0.1-10.127.255.255");
        assert_eq!(Room::Ample.range(1, 2), "10.128.0.0-10.255.255.254");
    }
}
