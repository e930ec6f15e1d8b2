//! Gathers from the world what one plan reads. Nothing is asked of the API server: a pass works from memory alone.

use std::time::Instant;

use super::drive::Subject;
use super::facts::{Bound, Facts, Memory, Pass, PoolFacts, ServiceKey, SourceFacts, SourceMemory};
use super::record::Record;
use super::world::{Slot, SourceEntry, SourceId, World};

/// What the plan for one Service reads, besides the world itself.
pub struct ServiceView {
    slot: Slot,
    changed: Option<Instant>,
    memory: Memory,
    pools: Vec<PoolFacts>,
}

impl ServiceView {
    /// Looks at what is known under a number; `None` if that is nothing or not all that is needed, or this process does not lead.
    pub fn of(world: &mut World, slot: Slot, now: Instant) -> Option<Self> {
        let began = world.began()?;
        let source = world.entry(slot)?.source.and_then(|id| world.source(id));
        if source.is_some_and(SourceEntry::selects_namespaces) && !world.knows_namespaces() {
            return None;
        }
        let (missing, wanted) = (source.and_then(|source| source.missing), source.map(SourceEntry::pools).unwrap_or_default());
        let pools = world.pools(&world.entry(slot)?.key.namespace, &wanted);
        let entry = world.entry_mut(slot)?;
        Some(Self { slot, changed: entry.motion.changed, memory: entry.memory(began, missing, now), pools })
    }

    /// The facts.
    pub fn facts<'a>(&'a self, world: &'a World) -> Option<Facts<'a>> {
        let entry = world.entry(self.slot)?;
        let source = entry.source.and_then(|id| world.source(id)).and_then(|source| source.facts.as_ref());
        Some(Facts {
            key: &entry.key,
            service: entry.service.as_ref(),
            claims: &entry.claims,
            source,
            pools: &self.pools,
            namespace_labels: world.namespace_labels(&entry.key.namespace),
            answers: &world.answers,
            cluster: &world.cluster,
            rules: &world.rules,
            memory: &self.memory,
        })
    }

    /// What the driver has to know of the Service.
    pub fn subject(&self, facts: &Facts<'_>, world: &World) -> Subject {
        let service = facts.service;
        let record = service.and_then(|service| service.record.as_deref()).and_then(|text| Record::parse(text).ok());
        Subject {
            key: facts.key.clone(),
            uid: service.map(|service| service.uid.clone()).unwrap_or_default(),
            revision: service.map(|service| service.revision.clone()).unwrap_or_default(),
            recorded: record.map(|record| record.addresses.into_keys().collect()).unwrap_or_default(),
            other_writer: service.and_then(|service| service.external_ips_managers.first()).cloned(),
            claims: facts.claims.iter().map(|claim| (claim.name.clone(), claim.revision.clone())).collect(),
            capi: world.capi,
            changed: self.changed,
        }
    }
}

/// What the plan for one source reads, besides the world itself.
pub struct SourceView<'a> {
    source: &'a SourceFacts,
    bound: Vec<Bound<'a>>,
    memory: SourceMemory,
    world: &'a World,
}

/// The pools in view for the Services of each namespace, as a [`SourceView`] lends them.
pub type PoolsInView = std::collections::BTreeMap<String, Vec<PoolFacts>>;

/// The pools that a source names, for each namespace of its Services.
pub fn pools_in_view(world: &World, id: SourceId) -> PoolsInView {
    let Some(entry) = world.source(id) else { return PoolsInView::new() };
    let wanted = entry.pools();
    let keys = entry.bound.iter().filter_map(|slot| world.entry(*slot)).map(|entry| &entry.key);
    let mut pools = PoolsInView::new();
    for ServiceKey { namespace, .. } in keys {
        if !pools.contains_key(namespace) {
            pools.insert(namespace.clone(), world.pools(namespace, &wanted));
        }
    }
    pools
}

impl<'a> SourceView<'a> {
    /// Looks at a source; `None` if it does not exist.
    pub fn of(world: &'a World, id: SourceId, pools: &'a PoolsInView) -> Option<Self> {
        let entry = world.source(id)?;
        let bound = entry.bound.iter().filter_map(|slot| {
            let entry = world.entry(*slot)?;
            Some(Bound {
                service: entry.service.as_ref()?,
                claims: &entry.claims,
                pools: pools.get(&entry.key.namespace)?,
                namespace_labels: world.namespace_labels(&entry.key.namespace),
            })
        });
        Some(Self {
            source: entry.facts.as_ref()?,
            bound: bound.collect(),
            memory: SourceMemory { began: world.began(), deprecated: world.deprecated, told: entry.told.clone() },
            world,
        })
    }

    /// The facts.
    pub fn pass(&self) -> Pass<'_> {
        Pass {
            source: self.source,
            bound: &self.bound,
            answers: &self.world.answers,
            cluster: &self.world.cluster,
            rules: &self.world.rules,
            memory: &self.memory,
        }
    }
}
