//! The cache: everything the capability knows, rebuilt from the API server's objects at every start.
//!
//! One `World` stands behind one lock. Watches change it, in the order of their events; passes read it and reserve in it. It does no
//! I/O and makes no decision about an object: it keeps indexes, feeds the ledgers, and collects in its outbox whom to wake.

mod addresses;
mod allocate;
mod claims;
mod clusters;
mod describe;
mod latest;
mod pools;
mod strays;
#[cfg(test)]
pub(super) mod tests;

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

pub use allocate::Holds;
use api::PoolKind;
use api::capi::CapiVersion;
use api::reasons::EventReason;
use compact_str::CompactString;
use hashbrown::HashTable;
use latest::Latest;
use slab::Slab;
use strays::Strays;

use super::compact::{Name, Names, Uid};
use super::records::{ClusterEntry, Entry, Motion, PoolEntry, PoolId, PoolKey, Slot};
use crate::kit::queue::Place;
use crate::kit::watch::Sync;

/// Priority classes of the claim queue; lower goes first.
pub mod lane {
    /// Claims whose address exists or is set aside.
    pub const PUBLISH: u8 = 0;
    /// Deleting claims and addresses.
    pub const RELEASE: u8 = 1;
    /// Claims without an address, by arrival.
    pub const BIND: u8 = 2;
    /// Re-plans and claims whose conditions are still missing.
    pub const BACKFILL: u8 = 3;
}

/// What somebody is to be told to do, because something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Plan this claim.
    Claim(Slot, Place),
    /// Plan this pool.
    Pool(PoolId),
    /// Plan this pool a moment later, when more of the same has come together.
    Gather(PoolId),
    /// Compare the pools with each other again.
    Overlaps,
    /// Write an event on an object.
    Notice(About, EventReason, String),
}

/// The object of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A claim.
    Claim(Slot, Uid),
    /// A claim that is not ours to serve.
    ForeignClaim(Box<(String, String, String)>),
    /// An address.
    Address(Slot, Uid),
    /// A pool.
    Pool(PoolId),
}

/// Which objects are served, by the manager's flags.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only claims, pools and clusters of this namespace.
    pub namespace: Option<String>,
    /// Only claims with this label value.
    pub watch_filter: Option<String>,
}

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watched {
    /// Claims.
    Claims,
    /// Addresses.
    Addresses,
    /// Clusters.
    Clusters,
    /// Pools of one kind.
    Pools(PoolKind),
}

impl Watched {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Pools(PoolKind::InClusterIPPool),
        Self::Pools(PoolKind::GlobalInClusterIPPool),
        Self::Pools(PoolKind::InClusterPrefixPool),
        Self::Pools(PoolKind::GlobalInClusterPrefixPool),
        Self::Addresses,
        Self::Claims,
        Self::Clusters,
    ];
}

/// See the module.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct World {
    pub(super) scope: Scope,
    /// The version in which claims and addresses are read and written.
    pub(super) capi: CapiVersion,
    pub(super) names: Names,
    pub(super) entries: Slab<Entry>,
    index: HashTable<Slot>,
    hasher: RandomState,
    pub(super) pools: Slab<PoolEntry>,
    pool_index: HashMap<PoolKey, PoolId>,
    pub(super) clusters: HashMap<(Name, Name), ClusterEntry>,
    syncs: HashMap<Watched, Sync>,
    /// Objects that the list under way has named, per kind.
    listed_slots: HashMap<Watched, HashSet<Slot>>,
    listed_pools: HashMap<PoolKind, HashSet<PoolId>>,
    listed_clusters: Option<HashSet<(Name, Name)>>,
    /// Number of the last list or live event of addresses, for order marks.
    mark: u64,
    arrivals: u64,
    /// The highest version of an address in view, where versions are numbers.
    pub(super) address_revision: u64,
    /// Whether addresses of namespaces that are not ours are seen too.
    pub(super) addresses_everywhere: bool,
    outbox: Vec<Wake>,
    pub(super) strays: Strays,
    /// Claims that the API server has said are gone, whatever is still on its way to our view.
    pub(super) buried: Latest<Uid, ()>,
    /// A number below its argument: which of several open values a claim takes after a collision.
    pub(super) dice: fn(usize) -> usize,
}

impl World {
    /// An empty view.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            capi: CapiVersion::V1beta2,
            names: Names::default(),
            entries: Slab::new(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            pools: Slab::new(),
            pool_index: HashMap::new(),
            clusters: HashMap::new(),
            syncs: HashMap::new(),
            listed_slots: HashMap::new(),
            listed_pools: HashMap::new(),
            listed_clusters: None,
            mark: 0,
            arrivals: 0,
            address_revision: 0,
            addresses_everywhere: true,
            outbox: Vec::new(),
            strays: Strays::default(),
            buried: Latest::default(),
            dice: |sides| rand::random_range(0..sides),
        }
    }

    /// Takes what the changes since the last call want done.
    pub fn take_wakes(&mut self) -> Vec<Wake> {
        std::mem::take(&mut self.outbox)
    }

    /// How far a watch has come.
    pub fn sync(&self, kind: Watched) -> Sync {
        self.syncs.get(&kind).copied().unwrap_or_default()
    }

    /// Whether every kind is either in view or not served, so that values may be handed out.
    pub fn is_settled(&self) -> bool {
        Watched::ALL.into_iter().all(|kind| self.sync(kind).is_settled())
    }

    /// The server does not have a kind. What was known of it stays, until a list says otherwise.
    pub fn not_served(&mut self, kind: Watched) {
        self.syncs.insert(kind, Sync::NotServed);
    }

    pub(super) fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot as usize)
    }

    pub(super) fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)
    }

    pub(super) fn pool(&self, id: PoolId) -> Option<&PoolEntry> {
        self.pools.get(id as usize)
    }

    pub(super) fn pool_mut(&mut self, id: PoolId) -> Option<&mut PoolEntry> {
        self.pools.get_mut(id as usize)
    }

    /// What this process remembers of a claim; made if there is nothing yet.
    pub(super) fn motion(&mut self, slot: Slot) -> Option<&mut Motion> {
        self.entry_mut(slot).map(|entry| &mut **entry.motion.get_or_insert_default())
    }

    /// `namespace/name` of a slot.
    pub fn title(&self, slot: Slot) -> String {
        self.entry(slot).map_or_else(String::new, |entry| format!("{}/{}", self.names.text(entry.namespace), entry.name))
    }

    /// The slot of a namespace and name that is known.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<Slot> {
        let namespace = self.names.find(namespace)?;
        let hash = self.hasher.hash_one((namespace, name));
        self.index
            .find(hash, |slot| self.entry(*slot).is_some_and(|entry| entry.namespace == namespace && entry.name == name))
            .copied()
    }

    /// The slot of a namespace and name, a new one if need be.
    fn slot(&mut self, namespace: &str, name: &str) -> Slot {
        if let Some(slot) = self.find(namespace, name) {
            return slot;
        }
        let namespace = self.names.intern(namespace);
        let entry = Entry { namespace, name: CompactString::new(name), claim: None, address: None, motion: None };
        let slot = Slot::try_from(self.entries.insert(entry)).unwrap_or(Slot::MAX);
        let hash = self.hasher.hash_one((namespace, name));
        let (entries, hasher) = (&self.entries, &self.hasher);
        let rehash =
            |slot: &Slot| entries.get(*slot as usize).map_or(0, |entry| hasher.hash_one((entry.namespace, entry.name.as_str())));
        self.index.insert_unique(hash, slot, rehash);
        slot
    }

    /// Whether a slot is kept though there is nothing under it any more.
    pub(super) fn is_vacant(&self, slot: Slot) -> bool {
        self.entry(slot).is_some_and(|entry| {
            let pending = entry.motion.as_ref().is_some_and(|motion| motion.post.is_some());
            entry.claim.is_none() && entry.address.is_none() && !pending
        })
    }

    /// Gives a slot up if there is nothing under it any more.
    pub(super) fn sweep(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot).filter(|_| self.is_vacant(slot)) else { return };
        let hash = self.hasher.hash_one((entry.namespace, entry.name.as_str()));
        if let Ok(found) = self.index.find_entry(hash, |known| *known == slot) {
            found.remove();
        }
        self.entries.remove(slot as usize);
    }

    fn begin_list(&mut self, kind: Watched) {
        self.listed_slots.insert(kind, HashSet::new());
    }

    /// Ends a list of claims or addresses; returns the slots it named.
    fn end_list(&mut self, kind: Watched) -> HashSet<Slot> {
        self.syncs.insert(kind, Sync::Synced);
        self.listed_slots.remove(&kind).unwrap_or_default()
    }

    /// Asks for a pass over a claim, in the lane of what there is to do about it.
    pub(super) fn wake(&mut self, slot: Slot) {
        let Some(place) = self.place(slot) else { return };
        self.outbox.push(Wake::Claim(slot, place));
    }

    /// Where a claim stands in the queue.
    pub(super) fn place(&self, slot: Slot) -> Option<Place> {
        let entry = self.entry(slot)?;
        let rank = entry.claim.as_ref().map_or(0, |claim| claim.arrival);
        let lane = match (&entry.claim, &entry.address) {
            (Some(claim), _) if claim.deleting.is_some() => lane::RELEASE,
            (None, Some(_)) => lane::RELEASE,
            (Some(_), Some(_)) => lane::PUBLISH,
            (Some(claim), None) if self.pool(claim.pool).is_some_and(|pool| pool.ledger.reservation(slot).is_some()) => {
                lane::PUBLISH
            }
            _ => lane::BIND,
        };
        Some(Place { lane, rank })
    }

    pub(super) fn wake_pool(&mut self, id: PoolId) {
        self.outbox.push(Wake::Pool(id));
    }

    pub(super) fn notice(&mut self, about: About, reason: EventReason, note: String) {
        self.outbox.push(Wake::Notice(about, reason, note));
    }

    /// Asks for a pass over everything, behind all other work.
    pub fn wake_all(&mut self) {
        let mut slots: Vec<Slot> = self.entries.iter().filter_map(|(slot, _)| Slot::try_from(slot).ok()).collect();
        slots.sort_by_key(|slot| self.place(*slot));
        for slot in slots {
            if let Some(mut place) = self.place(slot) {
                let settled = self
                    .entry(slot)
                    .and_then(|entry| entry.claim.as_ref())
                    .is_some_and(|claim| claim.bound && claim.deleting.is_none());
                if settled {
                    place.lane = lane::BACKFILL;
                }
                self.outbox.push(Wake::Claim(slot, place));
            }
        }
        for id in self.pool_ids() {
            self.wake_pool(id);
        }
        self.outbox.push(Wake::Overlaps);
    }

    /// The numbers of all pools that exist or are referred to.
    pub fn pool_ids(&self) -> Vec<PoolId> {
        self.pools.iter().filter_map(|(id, _)| PoolId::try_from(id).ok()).collect()
    }
}
