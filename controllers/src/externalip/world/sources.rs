//! Sources and the namespaces and networks that their rules are about, as the watches deliver them; and which Service names which.

use std::collections::BTreeSet;
use std::time::Instant;

use api::externalip::reasons::ExternalIpEvent;
use api::externalip::{ClusterExternalIPSource, PoolRef};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::DynamicObject;
use poolutil::Cidr;

use super::{Slot, SourceId, Sync, Turn, Wake, Watched, World};
use crate::externalip::facts::{ServiceKey, SourceFacts};
use crate::externalip::plan::Standing;
use crate::externalip::plan::choose::pools_of;
use crate::externalip::read;
use crate::kit::watch::Seen;
use crate::kit::writes::Backoff;

/// What is known under the name of one source.
#[derive(Debug, Default)]
pub struct SourceEntry {
    /// Its name.
    pub name: String,
    /// The source, if it exists.
    pub facts: Option<SourceFacts>,
    /// Since when it is known that it does not exist.
    pub missing: Option<Instant>,
    /// The Services that name it.
    pub bound: BTreeSet<Slot>,
    /// When it and its Services are to be planned again even if nothing happens.
    pub look_again: Option<Instant>,
    /// When its status was written last.
    pub wrote: Option<Instant>,
    /// Failed writes in a row.
    pub backoff: Backoff,
    /// The last note of each reason.
    pub told: std::collections::BTreeMap<ExternalIpEvent, String>,
    /// How it fares.
    pub standing: Option<Standing>,
}

impl SourceEntry {
    /// The pools that its solvers name.
    pub fn pools(&self) -> BTreeSet<PoolRef> {
        let source = self.facts.as_ref().and_then(|facts| facts.spec.as_ref().ok());
        let lists = source.into_iter().flat_map(|source| [&source.ipv4, &source.ipv6]).flatten();
        let mut pools = BTreeSet::new();
        for solver in lists.flat_map(|list| &list.solvers) {
            pools_of(solver, |pool| {
                pools.insert(pool.clone());
            });
        }
        pools
    }

    /// Whether it depends on the labels of namespaces which Services it serves.
    pub fn selects_namespaces(&self) -> bool {
        let source = self.facts.as_ref().and_then(|facts| facts.spec.as_ref().ok());
        source.is_some_and(|source| source.allowed_services.namespaces.is_some())
    }
}

impl World {
    /// Takes in an event of the watch of sources.
    pub fn take_sources(&mut self, seen: Seen<ClusterExternalIPSource>, now: Instant) {
        let key = |object: &ClusterExternalIPSource| cluster_scoped(object.metadata.name.as_deref());
        match self.turn(Watched::Sources, seen, key) {
            Turn::Put(object) => self.put_source(read::source(object, &self.api_targets), now),
            Turn::Drop(object) => self.drop_source(&key(&object).name, now),
            Turn::Only(named) => {
                let known = self.source_entries().filter(|entry| entry.facts.is_some()).map(|entry| entry.name.clone());
                let gone: Vec<_> = known.filter(|name| !named.contains(&cluster_scoped(Some(name)))).collect();
                for name in gone {
                    self.drop_source(&name, now);
                }
                // From now on it is known which do not exist.
                for (_, entry) in &mut self.sources {
                    if entry.facts.is_none() {
                        entry.missing.get_or_insert(now);
                    }
                }
                self.wake_all();
            }
            Turn::Nothing => {}
        }
    }

    fn put_source(&mut self, facts: SourceFacts, now: Instant) {
        let id = self.source_id(&facts.name);
        let Some(entry) = self.source_mut(id) else { return };
        entry.missing = None;
        let old = entry.facts.replace(facts);
        let (old, facts) = (old.as_ref(), entry.facts.as_ref());
        let same_object = old.map(|old| &old.uid) == facts.map(|facts| &facts.uid);
        let same_spec = same_object && old.map(|old| &old.spec) == facts.map(|facts| &facts.spec);
        let refreshed = same_object && old.and_then(|old| old.refresh.as_ref()) != facts.and_then(|facts| facts.refresh.as_ref());
        let status_only = same_spec && old.map(|old| &old.status) == facts.map(|facts| &facts.status) && !refreshed;
        if !same_object {
            entry.told.clear();
        }
        let name = entry.name.clone();
        if refreshed {
            self.answers.refresh(&name, now);
            self.outbox.push(Wake::Solvers);
        }
        if !status_only {
            self.wake_source(id);
        }
        if !same_spec {
            let wanted = self.source_entries().any(SourceEntry::selects_namespaces);
            self.wants_namespaces = wanted;
            self.wake_bound(id);
        }
    }

    fn drop_source(&mut self, name: &str, now: Instant) {
        let Some(id) = self.source_index.get(name).copied() else { return };
        self.answers.forget(name);
        let known = self.sync(Watched::Sources) == Sync::Synced;
        let Some(entry) = self.source_mut(id) else { return };
        let (name, bound) = (std::mem::take(&mut entry.name), std::mem::take(&mut entry.bound));
        *entry = SourceEntry { name, bound, missing: known.then_some(now), ..SourceEntry::default() };
        let wanted = self.source_entries().any(SourceEntry::selects_namespaces);
        self.wants_namespaces = wanted;
        self.wake_bound(id);
        self.sweep_source(id);
    }

    /// Takes in an event of the watch of namespaces.
    pub fn take_namespaces(&mut self, seen: Seen<Namespace>) {
        let key = |object: &Namespace| cluster_scoped(object.metadata.name.as_deref());
        match self.turn(Watched::Namespaces, seen, key) {
            Turn::Put(object) => {
                let labels = read::labels(&object.metadata);
                let name = key(&object).name;
                if self.namespaces.insert(name.clone(), labels.clone()) != Some(labels) {
                    self.wake_namespace(&name);
                }
            }
            Turn::Drop(object) => {
                let name = key(&object).name;
                self.namespaces.remove(&name);
                self.wake_namespace(&name);
            }
            Turn::Only(named) => {
                self.namespaces.retain(|name, _| named.contains(&cluster_scoped(Some(name))));
                for id in self.selecting() {
                    self.wake_source(id);
                    self.wake_bound(id);
                }
            }
            Turn::Nothing => {}
        }
    }

    /// Whether the labels of all namespaces are in view.
    pub fn knows_namespaces(&self) -> bool {
        self.sync(Watched::Namespaces) == Sync::Synced
    }

    /// Namespaces are watched no more.
    pub fn forget_namespaces(&mut self) {
        self.namespaces.clear();
        self.syncs.remove(&Watched::Namespaces);
    }

    /// The sources that depend on the labels of namespaces.
    fn selecting(&self) -> Vec<SourceId> {
        let selecting = self.sources.iter().filter(|(_, entry)| entry.selects_namespaces());
        selecting.filter_map(|(id, _)| SourceId::try_from(id).ok()).collect()
    }

    fn wake_namespace(&mut self, namespace: &str) {
        let selecting = self.selecting();
        let of_selecting = |slot: &Slot| self.entry(*slot).is_some_and(|entry| entry.key.namespace == namespace);
        let bound = selecting.iter().filter_map(|id| self.source(*id)).flat_map(|entry| entry.bound.iter().copied());
        let services: Vec<Slot> = bound.filter(of_selecting).collect();
        self.outbox.extend(services.into_iter().map(Wake::Service));
        self.outbox.extend(selecting.into_iter().map(Wake::Source));
    }

    /// Takes in an event of the watch of the networks from which Services get their cluster IPs.
    pub fn take_service_cidrs(&mut self, seen: Seen<DynamicObject>) {
        let key = |object: &DynamicObject| cluster_scoped(object.metadata.name.as_deref());
        match self.turn(Watched::ServiceCidrs, seen, key) {
            Turn::Put(object) => {
                let listed = object.data["spec"]["cidrs"].as_array().into_iter().flatten();
                let cidrs: Vec<Cidr> = listed.filter_map(|cidr| cidr.as_str()?.parse().ok()).collect();
                self.cidrs.insert(key(&object).name, cidrs);
            }
            Turn::Drop(object) => {
                self.cidrs.remove(&key(&object).name);
            }
            Turn::Only(named) => self.cidrs.retain(|name, _| named.contains(&cluster_scoped(Some(name)))),
            Turn::Nothing => return,
        }
        let all = self.cidrs.values().flatten().copied().collect();
        if self.sync(Watched::ServiceCidrs) == Sync::Synced && self.cluster.set_service_cidrs(all) {
            self.wake_all();
        }
    }

    /// Notes which source a Service names. `shows` says that the Service changed in a way its source may show.
    pub(super) fn bind(&mut self, slot: Slot, source: Option<&str>, shows: bool, now: Instant) {
        let id = source.map(|name| self.source_id(name));
        let Some(entry) = self.entry_mut(slot) else { return };
        let before = std::mem::replace(&mut entry.source, id);
        if before != id {
            entry.motion.changed = id.map(|_| now);
            if let Some(old) = before {
                if let Some(source) = self.source_mut(old) {
                    source.bound.remove(&slot);
                }
                self.wake_source(old);
                self.sweep_source(old);
            }
            let known = self.sync(Watched::Sources) == Sync::Synced;
            if let Some(source) = id.and_then(|id| self.source_mut(id)) {
                source.bound.insert(slot);
                if source.facts.is_none() && known {
                    source.missing.get_or_insert(now);
                }
            }
        }
        if let Some(id) = id.filter(|_| shows || before != id) {
            self.wake_source(id);
        }
    }

    /// The number of a source's name.
    fn source_id(&mut self, name: &str) -> SourceId {
        if let Some(id) = self.source_index.get(name) {
            return *id;
        }
        let entry = SourceEntry { name: name.to_owned(), ..SourceEntry::default() };
        let id = SourceId::try_from(self.sources.insert(entry)).unwrap_or(SourceId::MAX);
        self.source_index.insert(name.to_owned(), id);
        id
    }

    /// The number of a source that is known or named.
    pub fn find_source(&self, name: &str) -> Option<SourceId> {
        self.source_index.get(name).copied()
    }

    /// Asks for a pass over all Services that name the source.
    pub fn wake_bound(&mut self, id: SourceId) {
        let bound = self.source(id).map(|entry| entry.bound.clone()).unwrap_or_default();
        self.outbox.extend(bound.into_iter().map(Wake::Service));
    }

    /// What the source's solvers give has changed at this time: its Services are planned again.
    pub fn answer_changed(&mut self, id: SourceId, now: Instant) {
        let bound = self.source(id).map(|entry| entry.bound.clone()).unwrap_or_default();
        for slot in &bound {
            if let Some(entry) = self.entry_mut(*slot) {
                entry.motion.changed.get_or_insert(now);
            }
        }
        self.outbox.extend(bound.into_iter().map(Wake::Service));
    }

    fn sweep_source(&mut self, id: SourceId) {
        let Some(entry) = self.source(id).filter(|entry| entry.facts.is_none() && entry.bound.is_empty()) else { return };
        let name = entry.name.clone();
        self.source_index.remove(&name);
        self.sources.remove(id as usize);
    }
}

fn cluster_scoped(name: Option<&str>) -> ServiceKey {
    ServiceKey { namespace: String::new(), name: name.unwrap_or_default().to_owned() }
}
