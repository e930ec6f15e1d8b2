//! The cache, fed with what watches report of objects that are decoded from YAML through the real types.

mod addresses;
mod claims;
mod pools;
mod strays;

use api::capi::{Cluster, IpAddress, IpAddressClaim};
use api::v1alpha2::IpPool;
use k8s_openapi::jiff::Timestamp;
use poolutil::{ReservationState, Span};
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

use super::*;
use crate::ipam::facts::{ClusterFacts, Denial, Facts, Policy, PoolFacts, Relation, Waiting, Wish};
use crate::ipam::observe::observe;
use crate::ipam::plan::Place as Standing;
use crate::kit::watch::Seen;

const IP_POOL: PoolKind = PoolKind::InClusterIPPool;

pub(in crate::ipam) fn read<K: DeserializeOwned>(yaml: &str) -> K {
    serde_yaml_ng::from_str(yaml).unwrap()
}

/// A claim on pool blue; `more` is more metadata.
pub(in crate::ipam) fn claim(name: &str, more: &str) -> IpAddressClaim {
    claim_of(name, more, "poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: blue}")
}

fn claim_of(name: &str, more: &str, spec: &str) -> IpAddressClaim {
    read(&format!(
        "{{metadata: {{namespace: team-a, name: {name}, uid: c-{name}, resourceVersion: '1', {more}}}, spec: {{{spec}}}}}"
    ))
}

/// A claim whose status names its address.
pub(in crate::ipam) fn bound(name: &str, more: &str) -> IpAddressClaim {
    let mut claim = claim(name, more);
    claim.status = read(&format!("{{addressRef: {{name: {name}}}}}"));
    claim
}

/// An address of pool blue for the claim of its name; `more` is more metadata.
pub(in crate::ipam) fn address(name: &str, value: &str, more: &str) -> IpAddress {
    address_of(name, value, more, "apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: blue")
}

fn address_of(name: &str, value: &str, more: &str, pool: &str) -> IpAddress {
    read(&format!(
        "{{metadata: {{namespace: team-a, name: {name}, uid: a-{name}, resourceVersion: '1', {more}}},
          spec: {{claimRef: {{name: {name}}}, poolRef: {{{pool}}}, address: {value}, prefix: 24}}}}"
    ))
}

/// Managed fields as an address has them that we created.
pub(in crate::ipam) const OURS: &str =
    "managedFields: [{manager: ipam-in-cluster, operation: Update, fieldsV1: {f:spec: {f:address: {}}}}]";

/// Pool blue, with these addresses of 10.0.0.0/24; `more` is more metadata.
pub(in crate::ipam) fn pool(addresses: &str, more: &str) -> IpPool {
    read(&format!(
        "{{metadata: {{namespace: team-a, name: blue, uid: p-blue, resourceVersion: '1', {more}}},
          spec: {{addresses: [{addresses}], prefix: 24, gateway: 10.0.0.1}}}}"
    ))
}

fn cluster(name: &str, more: &str, paused: bool) -> Cluster {
    read(&format!("{{metadata: {{namespace: team-a, name: {name}, {more}}}, spec: {{paused: {paused}}}}}"))
}

pub(in crate::ipam) fn span(text: &str) -> Span {
    Span::parse_host(text).unwrap()
}

/// A world under test; what it wants done is taken with [`Given::woken`].
struct Given {
    world: World,
}

impl Given {
    /// Every watch has listed nothing.
    fn nothing() -> Self {
        Self::scoped(Scope::default())
    }

    fn scoped(scope: Scope) -> Self {
        let mut given = Self { world: World::new(scope) };
        assert!(!given.world.is_settled());
        given.claims_listed([]);
        given.addresses_listed([]);
        for kind in PoolKind::ALL {
            given.pools_listed(kind, []);
        }
        given.clusters_listed([]);
        assert!(given.world.is_settled());
        given.woken();
        given
    }

    /// Pool blue with 10.0.0.10 and what follows, so many values.
    fn pool_of(values: u8) -> Self {
        let mut given = Self::nothing();
        given.pool(pool(&format!("10.0.0.10-10.0.0.{}", 9 + values), "generation: 1"));
        given.woken();
        given
    }

    fn claims_listed<const N: usize>(&mut self, claims: [IpAddressClaim; N]) {
        self.world.claims(Seen::ListBegan, CapiVersion::V1beta2);
        for claim in claims {
            self.world.claims(Seen::Listed(claim), CapiVersion::V1beta2);
        }
        self.world.claims(Seen::ListEnded, CapiVersion::V1beta2);
    }

    fn claim(&mut self, claim: IpAddressClaim) {
        self.world.claims(Seen::Changed(claim), CapiVersion::V1beta2);
    }

    fn claim_gone(&mut self, name: &str) {
        self.world.claims(Seen::Gone(claim(name, "")), CapiVersion::V1beta2);
    }

    fn addresses_listed<const N: usize>(&mut self, addresses: [IpAddress; N]) {
        self.world.addresses(Seen::ListBegan);
        for address in addresses {
            self.world.addresses(Seen::Listed(address));
        }
        self.world.addresses(Seen::ListEnded);
    }

    fn address(&mut self, address: IpAddress) {
        self.world.addresses(Seen::Changed(address));
    }

    fn address_gone(&mut self, name: &str) {
        self.world.addresses(Seen::Gone(address(name, "10.0.0.10", "")));
    }

    fn pools_listed<const N: usize>(&mut self, kind: PoolKind, pools: [IpPool; N]) {
        self.world.pools::<IpPool>(kind, Seen::ListBegan);
        for pool in pools {
            self.world.pools(kind, Seen::Listed(pool));
        }
        self.world.pools::<IpPool>(kind, Seen::ListEnded);
    }

    fn pool(&mut self, pool: IpPool) {
        self.world.pools(IP_POOL, Seen::Changed(pool));
    }

    fn clusters_listed<const N: usize>(&mut self, clusters: [Cluster; N]) {
        self.world.clusters(Seen::ListBegan);
        for cluster in clusters {
            self.world.clusters(Seen::Listed(cluster));
        }
        self.world.clusters(Seen::ListEnded);
    }

    fn cluster(&mut self, cluster: Cluster) {
        self.world.clusters(Seen::Changed(cluster));
    }

    /// The names under which passes are wanted since the last call, in order, without repetition.
    fn woken(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        for wake in self.world.take_wakes() {
            if let Wake::Claim(slot, _) = wake {
                let name = self.world.entry(slot).map_or_else(|| "?".to_owned(), |entry| entry.name.to_string());
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// The notices since the last call.
    fn notices(&mut self) -> Vec<(EventReason, String)> {
        let wakes = self.world.take_wakes().into_iter();
        wakes.filter_map(|wake| if let Wake::Notice(_, reason, text) = wake { Some((reason, text)) } else { None }).collect()
    }

    fn slot(&self, name: &str) -> Slot {
        self.world.find("team-a", name).unwrap()
    }

    fn facts(&self, name: &str) -> Facts {
        let policy = Policy {
            honor_foreign_finalizers: true,
            release_orphans_namespaced: true,
            release_orphans_global: false,
            external_ips: true,
        };
        observe(&self.world, self.slot(name), policy, Timestamp::now(), Instant::now()).unwrap()
    }

    /// Tries to reserve for a claim; the value, or why not.
    fn allocate(&mut self, name: &str, wish: Wish) -> Result<String, Denial> {
        let slot = self.slot(name);
        match self.world.take_place(slot, Standing::Allocate(wish)) {
            None => Ok(self.reserved(name).unwrap()),
            Some((_, denial)) => Err(denial),
        }
    }

    fn take(&mut self, name: &str, place: Standing) {
        let slot = self.slot(name);
        self.world.take_place(slot, place);
    }

    fn reserved(&self, name: &str) -> Option<String> {
        self.facts(name).reservation.map(|held| held.span.to_string())
    }

    fn blue(&self) -> &PoolEntry {
        let pool = self.world.pools.iter().map(|(_, pool)| pool);
        pool.into_iter().find(|pool| &*pool.key.name == "blue").unwrap()
    }
}
