//! What admission may ask of the cache: which values of a pool are in use, which pools it would meet, and what is wrong with its
//! annotations. Answers are those of a moment; the finalizers, not admission, are what protects.

use std::collections::BTreeMap;

use api::PoolKind;
use api::names::{PRE_ALLOCATIONS, STICKY};
use poolutil::{AddrRange, Pool, RangeSet, Span};

use super::Ipam;
use super::annotations::{PreAllocations, sticky};
use super::records::PoolKey;
use super::world::{Watched, World};

/// The address objects of one pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InUse {
    /// How many there are.
    pub objects: usize,
    /// What those hold that can be read, in no order.
    pub values: Vec<Span>,
}

impl Ipam {
    /// The addresses of a pool; `None` while they are not all in view.
    pub fn in_use(&self, kind: PoolKind, namespace: &str, name: &str) -> Option<InUse> {
        self.0.world().in_use(&PoolKey::new(kind, namespace, name))
    }

    /// The other pools that share one of `addresses` and would meet this one in its network `domain`, each with the first range in common.
    pub fn overlapping(
        &self,
        kind: PoolKind,
        namespace: &str,
        name: &str,
        domain: &str,
        addresses: &RangeSet,
    ) -> Vec<(String, AddrRange)> {
        self.0.world().overlapping(&PoolKey::new(kind, namespace, name), domain, addresses)
    }
}

/// What is wrong with the annotations by which a pool with these values instructs the allocator.
pub fn annotation_problems(annotations: &BTreeMap<String, String>, pool: &Pool) -> Vec<String> {
    let sticky = annotations.get(STICKY).and_then(|text| sticky(text).err());
    let reserved = annotations.get(PRE_ALLOCATIONS).map(|text| PreAllocations::read(text, pool).problems);
    sticky.into_iter().chain(reserved.into_iter().flatten()).collect()
}

impl World {
    fn in_use(&self, key: &PoolKey) -> Option<InUse> {
        if !self.sync(Watched::Addresses).is_settled() {
            return None;
        }
        let Some(id) = self.find_pool(key) else { return Some(InUse::default()) };
        let objects = self.pool(id).map_or(0, |pool| pool.ledger.counts().used);
        let of_pool =
            self.entries.iter().filter_map(|(_, entry)| entry.address.as_ref()).filter(|address| address.pool == Some(id));
        let values = if objects == 0 { Vec::new() } else { of_pool.filter_map(|address| address.span()).collect() };
        Some(InUse { objects, values })
    }

    fn overlapping(&self, key: &PoolKey, domain: &str, addresses: &RangeSet) -> Vec<(String, AddrRange)> {
        let others = self.pools.iter().map(|(_, pool)| pool).filter(|pool| pool.key != *key);
        others
            .filter_map(|other| {
                let record = other
                    .record
                    .as_ref()
                    .filter(|record| meet((&key.namespace, domain), (&other.key.namespace, &record.domain)))?;
                let common = addresses.first_common(&record.space.as_ref().ok()?.address_ranges())?;
                Some((other.key.to_string(), common))
            })
            .collect()
    }
}

/// Whether the same address in two pools would be the same address: one network domain, and namespaces that meet in it.
pub fn meet<N: PartialEq>(one: (&Option<N>, &str), other: (&Option<N>, &str)) -> bool {
    let ((namespace, domain), (other_namespace, other_domain)) = (one, other);
    domain == other_domain
        && (namespace.is_none() || other_namespace.is_none() || namespace == other_namespace || !domain.is_empty())
}
