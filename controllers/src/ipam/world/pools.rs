//! Intake of pools.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::PoolKind;
use api::names::{DELETE_FOR_MOVE, LAST_ADDRESSES, NETWORK_DOMAIN_LABEL, PAUSED, PRE_ALLOCATIONS, STICKY, WATCH_FILTER_LABEL};
use api::v1alpha2::{IpPool, PoolStatus, PrefixPool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use poolutil::{IpPoolSpec, Ledger, Pool, PrefixPoolSpec, Span, SpecError};

use super::{Sync, Watched, World};
use crate::ipam::admission::meet;
use crate::ipam::annotations::{LastAddresses, PreAllocations, sticky};
use crate::ipam::compact::{Revision, Uid};
use crate::ipam::records::{PoolEntry, PoolId, PoolKey, PoolRecord, annotation, label};
use crate::kit::watch::Seen;
use crate::kit::writes::Backoff;

/// A pool object of either shape.
pub trait PoolObject {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
    /// Its values, or why they cannot be read.
    fn space(&self) -> Result<Pool, SpecError>;
    /// What goes to `spec.prefix` of an address.
    fn prefix(&self) -> i64;
    /// What goes to `spec.gateway` of an address.
    fn gateway(&self) -> &str;
    /// How long an address stays taken after its claim was deleted.
    fn grace(&self) -> Duration;
    /// What we wrote last.
    fn status(&self) -> Option<&PoolStatus>;
}

impl PoolObject for IpPool {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn space(&self) -> Result<Pool, SpecError> {
        Pool::ip(&IpPoolSpec {
            addresses: &self.spec.addresses,
            prefix: self.spec.prefix,
            gateway: &self.spec.gateway,
            excluded: &self.spec.excluded_addresses,
            allocate_reserved: self.spec.allocate_reserved_ip_addresses,
            grace_seconds: self.spec.address_reuse_grace_period_seconds,
        })
    }
    fn prefix(&self) -> i64 {
        self.spec.prefix
    }
    fn gateway(&self) -> &str {
        &self.spec.gateway
    }
    fn grace(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.spec.address_reuse_grace_period_seconds).unwrap_or_default())
    }
    fn status(&self) -> Option<&PoolStatus> {
        self.status.as_ref()
    }
}

impl PoolObject for PrefixPool {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn space(&self) -> Result<Pool, SpecError> {
        Pool::prefixes(&PrefixPoolSpec {
            prefixes: &self.spec.prefixes,
            length: self.spec.allocation_prefix_length,
            gateway: &self.spec.gateway,
            excluded: &self.spec.excluded_prefixes,
        })
    }
    fn prefix(&self) -> i64 {
        self.spec.allocation_prefix_length
    }
    fn gateway(&self) -> &str {
        &self.spec.gateway
    }
    fn grace(&self) -> Duration {
        Duration::ZERO
    }
    fn status(&self) -> Option<&PoolStatus> {
        self.status.as_ref()
    }
}

impl World {
    /// Takes in what the watch of one pool kind reports.
    pub fn pools<P: PoolObject>(&mut self, kind: PoolKind, seen: Seen<P>) {
        match seen {
            Seen::ListBegan => {
                self.listed_pools.insert(kind, HashSet::new());
            }
            Seen::Listed(pool) => {
                let id = self.take_pool(kind, &pool);
                self.listed_pools.entry(kind).or_default().insert(id);
            }
            Seen::ListEnded => {
                self.syncs.insert(Watched::Pools(kind), Sync::Synced);
                let listed = self.listed_pools.remove(&kind).unwrap_or_default();
                let known = self.pools.iter().filter(|(_, entry)| entry.key.kind == kind && entry.record.is_some());
                let gone: Vec<_> =
                    known.filter_map(|(id, _)| PoolId::try_from(id).ok()).filter(|id| !listed.contains(id)).collect();
                for id in gone {
                    self.lose_pool(id);
                }
            }
            Seen::Changed(pool) => {
                self.take_pool(kind, &pool);
            }
            Seen::Gone(pool) => {
                let id = self.pool_id(key(kind, pool.meta()));
                self.lose_pool(id);
            }
            Seen::NotServed => self.not_served(Watched::Pools(kind)),
        }
    }

    /// Whether this manager writes to a pool, by the watch filter.
    pub fn serves_pool(&self, record: &PoolRecord) -> bool {
        self.scope.watch_filter.is_none() || record.filter.is_none() || record.filter == self.scope.watch_filter
    }

    /// The number of a pool, a new one if it was never referred to.
    pub(super) fn pool_id(&mut self, key: PoolKey) -> PoolId {
        if let Some(id) = self.pool_index.get(&key) {
            return *id;
        }
        let entry = PoolEntry::new(key.clone());
        let id = PoolId::try_from(self.pools.insert(entry)).unwrap_or(PoolId::MAX);
        self.pool_index.insert(key, id);
        id
    }

    /// The number of a pool that is known.
    pub fn find_pool(&self, key: &PoolKey) -> Option<PoolId> {
        self.pool_index.get(key).copied()
    }

    fn take_pool<P: PoolObject>(&mut self, kind: PoolKind, object: &P) -> PoolId {
        let id = self.pool_id(key(kind, object.meta()));
        let Some(entry) = self.pool_mut(id) else { return id };
        let old = entry.record.take();
        let record = PoolRecord::read(object, old.as_ref());
        if entry.stale.iter().all(|(stale, _)| *stale != record.revision) {
            entry.stale.clear();
        }
        let same_object = old.as_ref().is_some_and(|old| old.uid == record.uid);
        let same_space =
            same_object && old.as_ref().is_some_and(|old| old.generation == record.generation && record.generation != 0);
        let same_rules = old.as_ref().is_some_and(|old| same_space && old.rules() == record.rules());
        let same_domain = old.as_ref().is_some_and(|old| old.domain == record.domain);
        let memory = !old.as_ref().is_some_and(|old| same_space && old.memory == record.memory && old.sticky == record.sticky);
        if !same_space {
            entry.ledger.resize(record.space.as_ref().ok().cloned());
        }
        if !same_rules {
            entry.ledger.withhold(record.pre_allocations.spans());
        }
        let now = Timestamp::now();
        entry.to_remember.retain(|claim, span| record.sticky.is_some() && record.memory.get(claim, now) != Some(*span));
        entry.record = Some(record);
        if memory {
            self.park(id);
        }
        if !same_rules || memory {
            self.forget_refusals(id);
            self.after_change(id);
            if same_object { self.wake_open(id) } else { self.wake_members(id) }
        }
        if !(same_space && same_domain) {
            self.outbox.push(super::Wake::Overlaps);
        }
        self.wake_pool(id);
        id
    }

    /// Tells the ledger which values are remembered for somebody, so that others get them last.
    pub fn park(&mut self, id: PoolId) {
        let now = Timestamp::now();
        let Some(entry) = self.pool_mut(id) else { return };
        let Some(record) = &entry.record else { return };
        let wanted: BTreeMap<Span, u64> = record
            .memory
            .at(now)
            .map(|(_, span, until)| (span, until.as_second().unsigned_abs()))
            .filter(|_| record.sticky.is_some())
            .collect();
        let parked: Vec<_> = entry.ledger.parked().collect();
        for (span, order) in parked {
            if wanted.get(&span) != Some(&order) {
                entry.ledger.unpark(&span);
            }
        }
        for (span, order) in wanted {
            entry.ledger.park(span, order);
        }
    }

    /// Forgets values whose time in the pool's memory is over; says whether there were any.
    pub fn forget_expired(&mut self, id: PoolId) -> bool {
        let now = Timestamp::now().as_second().unsigned_abs();
        let over = self.pool(id).is_some_and(|pool| pool.ledger.parked().any(|(_, until)| until <= now));
        if over {
            self.park(id);
            self.after_change(id);
        }
        over
    }

    /// Gives up a pool that neither exists nor is referred to any more.
    pub fn drop_unused_pool(&mut self, id: PoolId) {
        let used = |pool: &PoolEntry| {
            let counts = pool.ledger.counts();
            pool.record.is_some() || !pool.members.is_empty() || counts.used > 0 || counts.reserved > 0
        };
        if self.pool(id).is_some_and(|pool| !used(pool)) {
            let pool = self.pools.remove(id as usize);
            self.pool_index.remove(&pool.key);
        }
    }

    fn lose_pool(&mut self, id: PoolId) {
        let Some(entry) = self.pool_mut(id) else { return };
        if entry.record.take().is_none() {
            return;
        }
        entry.ledger.resize(None);
        entry.ledger.withhold([]);
        entry.stale.clear();
        entry.overlaps.clear();
        entry.overlap_count = 0;
        entry.to_remember.clear();
        self.outbox.push(super::Wake::Overlaps);
        self.wake_members(id);
        self.wake_pool(id);
    }
}

fn key(kind: PoolKind, meta: &ObjectMeta) -> PoolKey {
    PoolKey::new(kind, meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

impl PoolEntry {
    fn new(key: PoolKey) -> Self {
        Self {
            key,
            record: None,
            ledger: Ledger::new(),
            members: std::collections::BTreeSet::new(),
            open: std::collections::BTreeSet::new(),
            unserved: false,
            in_grace: std::collections::BTreeSet::new(),
            orphans: std::collections::BTreeSet::new(),
            to_remember: BTreeMap::new(),
            overlaps: Vec::new(),
            overlap_count: 0,
            written: None,
            stale: Vec::new(),
            backoff: Backoff::default(),
        }
    }
}

impl PoolRecord {
    fn read<P: PoolObject>(object: &P, old: Option<&Self>) -> Self {
        let meta = object.meta();
        let generation = meta.generation.unwrap_or_default();
        let uid = Uid::new(meta.uid.as_deref().unwrap_or_default());
        // The generation is the spec's: as long as it stays, the parsed values do.
        let known = old.filter(|old| old.uid == uid && old.generation == generation && generation != 0);
        let space = known.map_or_else(|| object.space().map(Arc::new), |old| old.space.clone());
        let (mut pre_allocations, mut memory) = (PreAllocations::default(), LastAddresses::default());
        if let Ok(pool) = &space {
            if let Some(text) = annotation(meta, PRE_ALLOCATIONS) {
                pre_allocations = PreAllocations::read(text, pool);
            }
            if let Some(text) = annotation(meta, LAST_ADDRESSES) {
                memory = LastAddresses::read(text, pool);
            }
        }
        let sticky = annotation(meta, STICKY).map_or(Ok(None), sticky).unwrap_or_else(|problem| {
            pre_allocations.problems.push(problem);
            None
        });
        Self {
            uid,
            revision: Revision::new(meta.resource_version.as_deref().unwrap_or_default()),
            generation,
            deleting: meta.deletion_timestamp.is_some(),
            moving: annotation(meta, DELETE_FOR_MOVE).is_some(),
            paused: annotation(meta, PAUSED).is_some(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            domain: label(meta, NETWORK_DOMAIN_LABEL).unwrap_or_default().to_owned(),
            filter: label(meta, WATCH_FILTER_LABEL).map(ToOwned::to_owned),
            space,
            prefix: object.prefix(),
            gateway: object.gateway().to_owned(),
            grace: object.grace(),
            status: object.status().cloned().unwrap_or_default(),
            sticky,
            memory,
            pre_allocations,
        }
    }

    /// What decides over claims besides the values.
    fn rules(&self) -> (bool, bool, bool, i64, &str, Duration, &PreAllocations) {
        (self.deleting, self.moving, self.paused, self.prefix, &self.gateway, self.grace, &self.pre_allocations)
    }
}

impl World {
    /// Compares all pools with each other again and wakes those for which something changed.
    pub fn compare_pools(&mut self) {
        let ranges: Vec<_> = self
            .pools
            .iter()
            .filter_map(|(id, entry)| {
                Some((PoolId::try_from(id).ok()?, entry.record.as_ref()?.space.as_ref().ok()?.address_ranges()))
            })
            .collect();
        let items: Vec<_> = ranges.iter().map(|(id, ranges)| (*id, ranges)).collect();
        let found = poolutil::overlaps(&items, |one, other| self.are_related(one, other));
        let mut changed = Vec::new();
        for (id, entry) in &mut self.pools {
            let Ok(id) = PoolId::try_from(id) else { continue };
            let (partners, count) = found.get(&id).map_or((&[][..], 0), |overlap| (&overlap.partners[..], overlap.count));
            if entry.overlaps != partners || entry.overlap_count != count {
                entry.overlaps = partners.to_vec();
                entry.overlap_count = count;
                changed.push(id);
            }
        }
        for id in changed {
            self.wake_pool(id);
        }
    }

    /// Whether the same address in both pools would be the same address.
    fn are_related(&self, one: PoolId, other: PoolId) -> bool {
        let known = |id| self.pool(id).and_then(|pool| Some((&pool.key.namespace, &pool.record.as_ref()?.domain)));
        let (Some((namespace, domain)), Some((other_namespace, other_domain))) = (known(one), known(other)) else { return false };
        meet((namespace, domain), (other_namespace, other_domain))
    }
}
