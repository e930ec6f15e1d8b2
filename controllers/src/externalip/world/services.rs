//! Services as their watch delivers them.

use std::time::Instant;

use k8s_openapi::api::core::v1::Service;

use super::{Slot, Sync, Turn, Watched, World};
use crate::externalip::facts::{Lingering, ServiceFacts, ServiceKey};
use crate::externalip::{plan, read};
use crate::kit::watch::Seen;

impl World {
    /// Takes in an event of the watch of Services.
    pub fn take_services(&mut self, seen: Seen<Service>, now: Instant) {
        let key = |object: &Service| ServiceKey {
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
        };
        match self.turn(Watched::Services, seen, key) {
            Turn::Put(object) => {
                let facts = read::service(object, &self.rules);
                self.put_service(facts, now);
            }
            Turn::Drop(object) => self.drop_service(&key(&object), now),
            Turn::Only(named) => {
                let gone: Vec<_> =
                    self.entries().filter(|entry| entry.service.is_some() && !named.contains(&entry.key)).collect();
                let gone: Vec<_> = gone.into_iter().map(|entry| entry.key.clone()).collect();
                for key in gone {
                    self.drop_service(&key, now);
                }
                for (_, entry) in &mut self.services {
                    entry.motion.listed();
                }
                self.miss_services(now);
            }
            Turn::Nothing => {}
        }
    }

    fn put_service(&mut self, mut facts: ServiceFacts, now: Instant) {
        let slot = self.slot(&facts.key);
        let Some(entry) = self.services.get_mut(slot as usize) else { return };
        let old = entry.service.take();
        if old.as_ref().is_some_and(|old| old.uid != facts.uid) {
            entry.motion = std::mem::take(&mut entry.motion).of_another();
        }
        entry.motion.service_missing = None;
        let arrived = entry.motion.deliver(&facts.revision);
        let same_object = old.as_ref().filter(|old| old.uid == facts.uid);
        facts.lingering = lingering(same_object, &facts, now);
        let changed = old.as_ref().is_none_or(|old| ServiceFacts { revision: facts.revision.clone(), ..old.clone() } != facts);
        if !changed {
            entry.service = Some(facts);
            if arrived {
                self.wake(slot);
            }
            return;
        }
        let of_source =
            |facts: &ServiceFacts| (facts.hostnames.clone(), facts.labels.clone(), facts.ingress.clone(), facts.families.clone());
        let shows = old.as_ref().is_none_or(|old| of_source(old) != of_source(&facts));
        let key = facts.key.clone();
        let source = plan::source_name(&facts).filter(|_| !facts.deleting).map(ToOwned::to_owned);
        if let Some(old) = &old {
            self.cluster.remove(old);
        }
        let others = self.cluster.insert(&facts);
        if let Some(entry) = self.entry_mut(slot) {
            entry.service = Some(facts);
        }
        self.bind(slot, source.as_deref(), shows, now);
        self.wake(slot);
        self.wake_neighbours(&key, others);
    }

    fn drop_service(&mut self, key: &ServiceKey, now: Instant) {
        let Some(slot) = self.index.get(key).copied() else { return };
        let settled = self.sync(Watched::Services) == Sync::Synced;
        let Some(entry) = self.entry_mut(slot) else { return };
        let Some(old) = entry.service.take() else { return };
        entry.motion = std::mem::take(&mut entry.motion).of_another();
        entry.motion.service_missing = settled.then_some(now);
        self.cluster.remove(&old);
        self.bind(slot, None, true, now);
        self.wait_on(slot, std::collections::BTreeSet::new());
        self.wake(slot);
        self.wake_neighbours(key, []);
        self.sweep(slot);
    }

    /// From now on it is known that Services of which there are only claims do not exist.
    fn miss_services(&mut self, now: Instant) {
        let mut missing = Vec::new();
        for (slot, entry) in &mut self.services {
            if entry.service.is_none() {
                entry.motion.service_missing.get_or_insert(now);
                missing.extend(Slot::try_from(slot));
            }
        }
        for slot in missing {
            self.wake(slot);
        }
    }

    fn wake_neighbours(&mut self, key: &ServiceKey, others: impl IntoIterator<Item = ServiceKey>) {
        let waiting = self.waiting.get(key).cloned().unwrap_or_default();
        for slot in waiting {
            self.wake(slot);
        }
        for other in others {
            if other != *key {
                self.wake_key(&other);
            }
        }
    }
}

/// What is left of an ingress list that became empty: it counts for a while, which the plan knows.
fn lingering(old: Option<&ServiceFacts>, new: &ServiceFacts, now: Instant) -> Option<Lingering> {
    let old = old.filter(|_| new.ingress.is_empty())?;
    if old.ingress.is_empty() {
        return old.lingering.clone();
    }
    let ips: Vec<_> = old.ingress.iter().filter_map(|entry| entry.ip).collect();
    (!ips.is_empty()).then_some(Lingering { ips, since: now })
}
