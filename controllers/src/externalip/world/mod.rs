//! Everything the capability knows, rebuilt from the API server's objects at every start.
//!
//! One `World` stands behind one lock. Watches change it in the order of their events, passes read it, and the answers of solvers are
//! stored in it. It does no I/O and decides nothing about an object: it keeps facts and indexes, and collects in its outbox whom to
//! plan again.

mod motion;
mod services;
mod shared;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use api::PoolKind;
use api::capi::CapiVersion;
use api::externalip::PoolRef;
use poolutil::{Cidr, Family};
use slab::Slab;

pub use self::motion::{Awaited, Motion};
pub use self::sources::SourceEntry;
use super::answers::Answers;
use super::cluster::Cluster;
use super::facts::{ClaimFacts, PoolFacts, Rules, ServiceFacts, ServiceKey};
use crate::kit::watch::{Seen, Sync};

/// The number of a Service, for as long as anything is known of it.
pub type Slot = u32;
/// The number of a source, for as long as it exists or a Service names it.
pub type SourceId = u32;

/// A kind that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watched {
    /// Services.
    Services,
    /// Sources.
    Sources,
    /// The networks that the cluster takes Services' addresses from.
    ServiceCidrs,
    /// Namespaces; only while a source selects by their labels.
    Namespaces,
    /// Claims on pools.
    Claims,
    /// Addresses of such claims.
    Addresses,
    /// Pools of one kind.
    Pools(PoolKind),
}

/// What somebody is to be told to do, because something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// Plan this Service.
    Service(Slot),
    /// Plan this source.
    Source(SourceId),
    /// Something may be due for a solver.
    Solvers,
}

/// What is known under the name of one Service.
#[derive(Debug)]
pub struct Entry {
    /// Its namespace and name.
    pub key: ServiceKey,
    /// The Service, if it exists.
    pub service: Option<ServiceFacts>,
    /// Claims for it, or named as if they were.
    pub claims: Vec<ClaimFacts>,
    /// The source it names.
    pub source: Option<SourceId>,
    /// What this process remembers.
    pub motion: Motion,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    /// Flags that change a decision.
    pub rules: Rules,
    /// What the shared solvers answered.
    pub answers: Answers,
    /// What Services and the cluster itself use.
    pub cluster: Cluster,
    /// The version in which claims are written.
    pub capi: CapiVersion,
    /// The networks that web services of a user's choice may be in besides public ones.
    api_targets: Vec<Cidr>,
    /// Whether a source selects by the labels of namespaces.
    pub wants_namespaces: bool,
    /// This API server warns of `spec.externalIPs`.
    pub deprecated: bool,
    services: Slab<Entry>,
    index: HashMap<ServiceKey, Slot>,
    sources: Slab<SourceEntry>,
    source_index: HashMap<String, SourceId>,
    /// Services that want an address and port which the key's Service has.
    waiting: HashMap<ServiceKey, BTreeSet<Slot>>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
    cidrs: BTreeMap<String, Vec<Cidr>>,
    /// Where claims are kept.
    claim_index: HashMap<ServiceKey, Slot>,
    /// Claims that say that they are bound.
    bound: HashSet<ServiceKey>,
    /// Address objects that are named like a claim of ours.
    addresses: HashMap<ServiceKey, IpAddr>,
    pools: HashMap<(PoolKind, ServiceKey), Option<Family>>,
    syncs: HashMap<Watched, Sync>,
    /// Objects that the list under way has named.
    listed: HashMap<Watched, HashSet<ServiceKey>>,
    /// When this process began to lead.
    began: Option<Instant>,
    outbox: Vec<Wake>,
}

/// What an event of a watch means for the view.
enum Turn<K> {
    /// The object is as it is here.
    Put(K),
    /// It is gone.
    Drop(K),
    /// The list is complete: only these exist.
    Only(HashSet<ServiceKey>),
    /// Nothing.
    Nothing,
}

impl World {
    /// An empty view.
    pub fn new(rules: Rules, api_targets: Vec<Cidr>) -> Self {
        Self {
            rules,
            answers: Answers::default(),
            cluster: Cluster::default(),
            capi: CapiVersion::V1beta2,
            api_targets,
            wants_namespaces: false,
            deprecated: false,
            services: Slab::new(),
            index: HashMap::new(),
            sources: Slab::new(),
            source_index: HashMap::new(),
            waiting: HashMap::new(),
            namespaces: HashMap::new(),
            cidrs: BTreeMap::new(),
            claim_index: HashMap::new(),
            bound: HashSet::new(),
            addresses: HashMap::new(),
            pools: HashMap::new(),
            syncs: HashMap::new(),
            listed: HashMap::new(),
            began: None,
            outbox: Vec::new(),
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

    /// Whether there is a view complete enough to write anything: of what is watched always, all that is served, and of sources.
    pub fn is_settled(&self) -> bool {
        let optional = [
            Watched::ServiceCidrs,
            Watched::Claims,
            Watched::Addresses,
            Watched::Pools(PoolKind::InClusterIPPool),
            Watched::Pools(PoolKind::GlobalInClusterIPPool),
        ];
        let complete = |kind: &Watched| self.sync(*kind) == Sync::Synced;
        [Watched::Services, Watched::Sources].iter().all(complete) && optional.iter().all(|kind| self.sync(*kind) != Sync::Never)
    }

    /// This process leads from now on.
    pub fn begin(&mut self, now: Instant) {
        self.began = Some(now);
        self.wake_all();
    }

    /// Asks for a pass over everything.
    pub fn wake_all(&mut self) {
        let services = self.services.iter().filter_map(|(slot, _)| Slot::try_from(slot).ok()).map(Wake::Service);
        let sources = self.sources.iter().filter_map(|(id, _)| SourceId::try_from(id).ok()).map(Wake::Source);
        self.outbox.extend(sources.chain(services));
        self.outbox.push(Wake::Solvers);
    }

    /// Records how far the watch has come with an event, and says what the event means.
    fn turn<K>(&mut self, kind: Watched, seen: Seen<K>, key: impl Fn(&K) -> ServiceKey) -> Turn<K> {
        match seen {
            Seen::ListBegan => {
                self.listed.insert(kind, HashSet::new());
                Turn::Nothing
            }
            Seen::Listed(object) => {
                self.listed.entry(kind).or_default().insert(key(&object));
                Turn::Put(object)
            }
            Seen::ListEnded => {
                self.syncs.insert(kind, Sync::Synced);
                Turn::Only(self.listed.remove(&kind).unwrap_or_default())
            }
            Seen::Changed(object) => Turn::Put(object),
            Seen::Gone(object) => Turn::Drop(object),
            // What was known stays, until a list says otherwise.
            Seen::NotServed => {
                self.syncs.insert(kind, Sync::NotServed);
                Turn::Nothing
            }
        }
    }

    /// What is known under a number.
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.services.get(slot as usize)
    }

    /// The same, to be changed.
    pub fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.services.get_mut(slot as usize)
    }

    /// A source that exists or is named.
    pub fn source(&self, id: SourceId) -> Option<&SourceEntry> {
        self.sources.get(id as usize)
    }

    /// The same, to be changed.
    pub fn source_mut(&mut self, id: SourceId) -> Option<&mut SourceEntry> {
        self.sources.get_mut(id as usize)
    }

    /// All numbers in use, for the numbers that are shown.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.services.iter().map(|(_, entry)| entry)
    }

    /// All sources that exist or are named.
    pub fn source_entries(&self) -> impl Iterator<Item = &SourceEntry> {
        self.sources.iter().map(|(_, entry)| entry)
    }

    /// When this process began to lead.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// The labels of a namespace, where they are known.
    pub fn namespace_labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// Those of the pools that exist; namespaced ones are looked up in `namespace`.
    pub fn pools(&self, namespace: &str, wanted: &BTreeSet<PoolRef>) -> Vec<PoolFacts> {
        let known = |pool: &PoolRef| {
            let family = *self.pools.get(&(pool.kind, shared::pool_key(pool.kind, namespace, &pool.name)))?;
            Some(PoolFacts { pool: pool.clone(), family })
        };
        wanted.iter().filter_map(known).collect()
    }

    fn slot(&mut self, key: &ServiceKey) -> Slot {
        if let Some(slot) = self.index.get(key) {
            return *slot;
        }
        let entry = Entry { key: key.clone(), service: None, claims: Vec::new(), source: None, motion: Motion::default() };
        let slot = Slot::try_from(self.services.insert(entry)).unwrap_or(Slot::MAX);
        self.index.insert(key.clone(), slot);
        slot
    }

    /// Gives a slot up if there is nothing under it any more.
    pub fn sweep(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot) else { return };
        if entry.service.is_some() || !entry.claims.is_empty() {
            return;
        }
        let key = entry.key.clone();
        self.wait_on(slot, BTreeSet::new());
        self.index.remove(&key);
        self.services.remove(slot as usize);
    }

    /// The Service is planned again when one of these changes.
    pub fn wait_on(&mut self, slot: Slot, others: BTreeSet<ServiceKey>) {
        let Some(entry) = self.entry_mut(slot) else { return };
        if entry.motion.waits_on == others {
            return;
        }
        let before = std::mem::replace(&mut entry.motion.waits_on, others.clone());
        for key in before.difference(&others) {
            if let Some(slots) = self.waiting.get_mut(key) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.waiting.remove(key);
                }
            }
        }
        for key in others {
            self.waiting.entry(key).or_default().insert(slot);
        }
    }

    /// Asks for something to be done.
    pub fn push(&mut self, wake: Wake) {
        self.outbox.push(wake);
    }

    fn wake(&mut self, slot: Slot) {
        self.outbox.push(Wake::Service(slot));
    }

    /// Asks for a pass over a Service and one over its source: what a Service gets of its own decides which solvers must be asked.
    fn wake_with_source(&mut self, slot: Slot) {
        self.outbox.extend(self.entry(slot).and_then(|entry| entry.source).map(Wake::Source));
        self.wake(slot);
    }

    fn wake_key(&mut self, key: &ServiceKey) {
        self.outbox.extend(self.index.get(key).map(|slot| Wake::Service(*slot)));
    }

    fn wake_source(&mut self, id: SourceId) {
        self.outbox.push(Wake::Source(id));
    }
}
