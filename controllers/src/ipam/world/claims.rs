//! Intake of claims.

use std::time::Instant;

use api::PoolKind;
use api::capi::{CapiVersion, IpAddressClaim};
use api::names::{IPAM_GROUP, WATCH_FILTER_LABEL};
use api::reasons::EventReason;

use super::{About, Watched, World};
use crate::ipam::compact::Uid;
use crate::ipam::records::{Claim, Motion, PoolId, PoolKey, Slot, label};
use crate::kit::watch::Seen;

impl World {
    /// Takes in what the watch of claims reports.
    pub fn claims(&mut self, seen: Seen<IpAddressClaim>, version: CapiVersion) {
        match seen {
            Seen::ListBegan => self.begin_list(Watched::Claims),
            Seen::Listed(claim) => {
                if let Some(slot) = self.take_claim(&claim, version) {
                    self.listed_slots.entry(Watched::Claims).or_default().insert(slot);
                }
            }
            Seen::ListEnded => self.end_claims(),
            Seen::Changed(claim) => {
                if let Some(slot) = self.take_claim(&claim, version) {
                    self.number(slot);
                    self.wake(slot);
                }
            }
            Seen::Gone(claim) => {
                let (namespace, name) = (claim.metadata.namespace.unwrap_or_default(), claim.metadata.name.unwrap_or_default());
                if let Some(slot) = self.find(&namespace, &name) {
                    self.lose_claim(slot);
                }
            }
            Seen::NotServed => self.not_served(Watched::Claims),
        }
    }

    /// Claims that a list brought are in no order of arrival; they take their numbers by age.
    fn end_claims(&mut self) {
        let listed = self.end_list(Watched::Claims);
        let mut new = Vec::new();
        let mut gone = Vec::new();
        for (slot, entry) in &self.entries {
            let Some(claim) = &entry.claim else { continue };
            let Ok(slot) = Slot::try_from(slot) else { continue };
            if !listed.contains(&slot) {
                gone.push(slot);
            } else if claim.arrival == 0 {
                new.push((claim.created, self.names.text(entry.namespace).clone(), entry.name.clone(), slot));
            }
        }
        new.sort();
        for (.., slot) in new {
            self.number(slot);
        }
        for slot in gone {
            self.lose_claim(slot);
        }
        self.wake_in_order(listed.into_iter().collect());
    }

    fn number(&mut self, slot: Slot) {
        let next = self.arrivals + 1;
        if let Some(claim) = self.entry_mut(slot).and_then(|entry| entry.claim.as_mut()).filter(|claim| claim.arrival == 0) {
            claim.arrival = next;
            self.arrivals = next;
        }
    }

    /// Keeps a claim if it is ours to serve; one that is not any more is lost.
    fn take_claim(&mut self, object: &IpAddressClaim, version: CapiVersion) -> Option<Slot> {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let uid = Uid::new(object.metadata.uid.as_deref().unwrap_or_default());
        if self.buried.get(&uid).is_some() {
            return None;
        }
        let Some(key) = self.claimed_pool(object, namespace) else {
            if let Some(slot) =
                self.find(namespace, name).filter(|slot| self.entry(*slot).is_some_and(|entry| entry.claim.is_some()))
            {
                self.lose_claim(slot);
                self.forget_stray(slot, &uid);
            }
            return None;
        };
        let slot = self.slot(namespace, name);
        let pool = self.pool_id(key);
        let mut claim = Claim::read(object, pool, version, &mut self.names);
        let old = self.entry(slot).and_then(|entry| entry.claim.as_ref()).filter(|old| old.uid == claim.uid);
        let told = claim.bound && old.is_some_and(|old| !old.bound);
        self.succeed(slot, &mut claim);
        self.index_claim(slot, &claim);
        if let Some(entry) = self.entry_mut(slot) {
            entry.claim = Some(Box::new(claim));
        }
        if told {
            self.told(slot);
        }
        self.note_use(slot);
        self.note_release(slot);
        Some(slot)
    }

    /// Compares a claim with what was known under its name.
    fn succeed(&mut self, slot: Slot, claim: &mut Claim) {
        let Some(entry) = self.entry_mut(slot) else { return };
        let Some(old) = entry.claim.take() else {
            let post = entry.motion.take().and_then(|motion| motion.post);
            if post.is_some() || !claim.bound {
                entry.motion = Some(Box::new(Motion { post, ..Motion::default() }));
            }
            return;
        };
        if old.uid == claim.uid {
            claim.arrival = old.arrival;
            if let Some(motion) = entry.motion.as_mut() {
                motion.refusal = None;
                if motion.wrote_claim.as_ref().is_some_and(|(before, _)| *before != claim.revision) {
                    motion.wrote_claim = None;
                }
            }
            if claim.deleting.is_some() && old.deleting.is_none() {
                entry.motion.get_or_insert_default().since = Instant::now();
            }
            let text = claim.requested().filter(|_| old.bound && claim.bound && old.requested() != claim.requested());
            if let Some(text) = text {
                let note = format!("the requested address {text} is ignored: the claim is bound already");
                self.notice(About::Claim(slot, claim.uid.clone()), EventReason::RequestedAddressIgnored, note);
            }
        } else {
            // Of an earlier claim of that name only a POST that may still take effect is of interest.
            let post = entry.motion.take().and_then(|motion| motion.post);
            entry.motion = Some(Box::new(Motion { post, ..Motion::default() }));
        }
        if old.uid != claim.uid || old.pool != claim.pool {
            self.leave(slot, old.pool);
        }
        self.unindex_claim(slot, &old);
    }

    fn index_claim(&mut self, slot: Slot, claim: &Claim) {
        let settled = claim.bound && claim.deleting.is_none();
        if let Some(pool) = self.pool_mut(claim.pool) {
            pool.members.insert(slot);
            if !settled {
                pool.open.insert(slot);
            }
        }
        let namespace = self.entry(slot).map(|entry| entry.namespace);
        if let Some((namespace, cluster)) = namespace.zip(claim.cluster) {
            self.clusters.entry((namespace, cluster)).or_default().members.insert(slot);
        }
    }

    fn unindex_claim(&mut self, slot: Slot, claim: &Claim) {
        if let Some(pool) = self.pool_mut(claim.pool) {
            pool.members.remove(&slot);
            pool.open.remove(&slot);
        }
        let namespace = self.entry(slot).map(|entry| entry.namespace);
        if let Some(key) = namespace.zip(claim.cluster)
            && let Some(cluster) = self.clusters.get_mut(&key)
        {
            cluster.members.remove(&slot);
            if cluster.members.is_empty() && cluster.paused.is_none() {
                self.clusters.remove(&key);
            }
        }
    }

    /// A claim is gone, or is not ours to serve any more.
    fn lose_claim(&mut self, slot: Slot) {
        let Some(claim) = self.entry_mut(slot).and_then(|entry| entry.claim.take()) else { return };
        self.unindex_claim(slot, &claim);
        let pool = claim.pool;
        if let Some(entry) = self.entry_mut(slot)
            && let Some(motion) = entry.motion.as_mut()
        {
            motion.wrote_claim = None;
            motion.waiting = None;
        }
        self.leave(slot, pool);
        self.forsake(slot, pool);
        self.wake(slot);
        self.note_orphan(slot);
    }

    /// The API server says that the claim is gone, ahead of our view.
    pub fn bury(&mut self, slot: Slot, claim: &Uid) {
        self.buried.add(claim);
        if self.entry(slot).and_then(|entry| entry.claim.as_ref()).is_some_and(|known| known.uid == *claim) {
            self.lose_claim(slot);
        }
    }

    /// The pool of a claim that is ours to serve.
    fn claimed_pool(&mut self, claim: &IpAddressClaim, namespace: &str) -> Option<PoolKey> {
        if self.scope.namespace.as_deref().is_some_and(|only| only != namespace) {
            return None;
        }
        if self.scope.watch_filter.as_deref().is_some_and(|filter| label(&claim.metadata, WATCH_FILTER_LABEL) != Some(filter)) {
            return None;
        }
        let reference = &claim.spec.pool_ref;
        let kind = PoolKind::from_kind(&reference.kind)?;
        match reference.api_group.as_deref() {
            Some(IPAM_GROUP) => Some(PoolKey::new(kind, namespace, &reference.name)),
            None | Some("") => {
                let meta = &claim.metadata;
                let about = (namespace.to_owned(), meta.name.clone().unwrap_or_default(), meta.uid.clone().unwrap_or_default());
                let note = format!("spec.poolRef.apiGroup is missing: set it to {IPAM_GROUP} for kind {kind}");
                self.notice(About::ForeignClaim(Box::new(about)), EventReason::PoolGroupMissing, note);
                None
            }
            Some(_) => None,
        }
    }

    /// Asks for passes in the order in which the queue shall run them: it may take the first before it knows of the second.
    pub(super) fn wake_in_order(&mut self, mut slots: Vec<Slot>) {
        slots.sort_by_key(|slot| self.place(*slot));
        for slot in slots {
            self.wake(slot);
            if let Some(id) = self.pool_of(slot)
                && let Some(pool) = self.pool_mut(id)
            {
                pool.unserved |= pool.open.contains(&slot);
            }
        }
    }

    /// The claims that wait for something on this one's pool and may not do so any more, in order of arrival. Asked before any of
    /// them is planned; afterwards there are none until something changes for all of them again.
    pub fn take_unserved(&mut self, slot: Slot) -> Vec<Slot> {
        let Some(pool) = self.pool_of(slot).and_then(|id| self.pool_mut(id)) else { return Vec::new() };
        if !std::mem::take(&mut pool.unserved) {
            return Vec::new();
        }
        let idle = |slot: &Slot| !pool.ledger.is_waiting(*slot) && pool.ledger.reservation(*slot).is_none();
        let mut slots: Vec<Slot> = pool.open.iter().copied().filter(idle).collect();
        slots.sort_by_key(|slot| self.place(*slot));
        slots
    }

    /// All claims that are not settled on a pool and its orphans, to be planned again.
    pub(super) fn wake_open(&mut self, pool: PoolId) {
        let slots = self.pool(pool).into_iter().flat_map(|pool| pool.open.iter().chain(&pool.orphans).copied()).collect();
        self.wake_in_order(slots);
    }

    /// What the API server refused may be accepted now that the pool has changed.
    pub(super) fn forget_refusals(&mut self, pool: PoolId) {
        let open: Vec<Slot> = self.pool(pool).into_iter().flat_map(|pool| pool.open.iter().copied()).collect();
        for slot in open {
            if let Some(motion) = self.entry_mut(slot).and_then(|entry| entry.motion.as_mut()) {
                motion.refusal = None;
            }
        }
    }

    /// All claims and orphans of a pool, to be planned again.
    pub(super) fn wake_members(&mut self, pool: PoolId) {
        let slots = self.pool(pool).into_iter().flat_map(|pool| pool.members.iter().chain(&pool.orphans).copied()).collect();
        self.wake_in_order(slots);
    }
}
