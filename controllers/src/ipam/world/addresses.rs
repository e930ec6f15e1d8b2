//! Intake of addresses: the ledgers' only source.

use api::PoolKind;
use api::capi::IpAddress;
use api::names::IPAM_GROUP;
use api::reasons::EventReason;
use poolutil::Mark;

use super::{About, Watched, World};
use crate::ipam::compact::Revision;
use crate::ipam::owners;
use crate::ipam::records::{Address, PoolKey, Slot};
use crate::kit::watch::Seen;

impl World {
    /// Takes in what the watch of addresses reports.
    pub fn addresses(&mut self, seen: Seen<IpAddress>) {
        match seen {
            Seen::ListBegan => {
                self.mark += 1;
                self.begin_list(Watched::Addresses);
            }
            Seen::Listed(address) => {
                // No live event comes between the first page and the end of the list, so one number serves them all.
                let slot = self.take_address(&address, Mark::Listed(self.mark));
                self.listed_slots.entry(Watched::Addresses).or_default().insert(slot);
            }
            Seen::ListEnded => self.end_addresses(),
            Seen::Changed(address) => {
                self.mark += 1;
                self.take_address(&address, Mark::Added(self.mark));
            }
            Seen::Gone(address) => {
                let (namespace, name) =
                    (address.metadata.namespace.unwrap_or_default(), address.metadata.name.unwrap_or_default());
                if let Some(slot) = self.find(&namespace, &name) {
                    self.lose_address(slot);
                }
            }
            Seen::NotServed => self.not_served(Watched::Addresses),
        }
    }

    fn end_addresses(&mut self) {
        let listed = self.end_list(Watched::Addresses);
        let known = self.entries.iter().filter(|(_, entry)| entry.address.is_some());
        let gone: Vec<Slot> =
            known.filter_map(|(slot, _)| Slot::try_from(slot).ok()).filter(|slot| !listed.contains(slot)).collect();
        for slot in gone {
            self.lose_address(slot);
        }
    }

    fn take_address(&mut self, object: &IpAddress, mark: Mark) -> Slot {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let slot = self.slot(namespace, object.metadata.name.as_deref().unwrap_or_default());
        let key = address_pool(object, namespace);
        let pool = key.as_ref().map(|key| self.pool_id(key.clone()));
        let filter = self.scope.watch_filter.clone();
        let address = Address::read(object, pool.zip(key.as_ref()), filter.as_deref(), &mut self.names);
        if let Revision::Number(revision) = address.revision {
            self.address_revision = self.address_revision.max(revision);
        }
        let references = object.metadata.owner_references.as_deref().unwrap_or_default();
        if owners::claim_uid(references, &object.spec.claim_ref.name).is_none() && self.owner_of(slot).is_some() {
            self.note_loss(slot);
        }
        let news = self.replace_address(slot, &address);
        if let Some(pool) = address.pool.filter(|_| news) {
            self.hold(slot, pool, &address, &object.spec.address, mark);
        }
        if let Some(entry) = self.entry_mut(slot) {
            entry.address = Some(Box::new(address));
        }
        self.note_use(slot);
        self.note_release(slot);
        self.note_orphan(slot);
        self.wake(slot);
        slot
    }

    /// Compares an address with what was known under its name; says whether its value is news to the ledger.
    fn replace_address(&mut self, slot: Slot, address: &Address) -> bool {
        let Some(old) = self.entry_mut(slot).and_then(|entry| entry.address.take()) else { return true };
        if let Some(motion) = self.entry_mut(slot).and_then(|entry| entry.motion.as_mut())
            && motion.wrote_address.as_ref().is_some_and(|(before, _)| *before != address.revision)
        {
            motion.wrote_address = None;
        }
        if old.uid == address.uid && old.pool == address.pool && old.span() == address.span() {
            return false;
        }
        if old.uid == address.uid {
            tracing::warn!(address = self.title(slot), "the spec of an address changed although it is immutable");
        }
        if let Some(pool) = old.pool {
            self.let_go(slot, pool, &old);
        }
        true
    }

    /// Tells the ledger that an object holds its value.
    fn hold(&mut self, slot: Slot, pool: u32, address: &Address, text: &str, mark: Mark) {
        let Some(entry) = self.pool_mut(pool) else { return };
        let span = address.span();
        entry.ledger.observe(slot, span, mark);
        if span.is_none() {
            let note = format!("{text:?} is no address; it is counted as used and protects nothing");
            self.notice(About::Address(slot, address.uid.clone()), EventReason::UnparsableAddress, note);
        }
        self.after_change(pool);
    }

    /// Tells the ledger that an object is gone, and hands its value on.
    fn let_go(&mut self, slot: Slot, pool: u32, address: &Address) {
        if let Some(entry) = self.pool_mut(pool) {
            let span = address.span();
            entry.ledger.forget(slot, span);
            entry.orphans.remove(&slot);
            // A value that was held twice may now be published by the holder that is left.
            let others: Vec<Slot> = span.iter().flat_map(|span| entry.ledger.holders(span)).map(|(other, _)| other).collect();
            for other in others {
                self.wake(other);
            }
        }
        self.after_change(pool);
    }

    fn lose_address(&mut self, slot: Slot) {
        let owner = self.owner_of(slot);
        let Some(address) = self.entry_mut(slot).and_then(|entry| entry.address.take()) else { return };
        if let Some(pool) = address.pool {
            self.let_go(slot, pool, &address);
        }
        let claim = self.entry(slot).and_then(|entry| entry.claim.as_ref());
        let ours =
            claim.is_some_and(|claim| claim.bound && Some(claim.pool) == address.pool && owner.as_ref() == Some(&claim.uid));
        if let Some(entry) = self.entry_mut(slot)
            && let Some(motion) = entry.motion.as_mut()
        {
            motion.wrote_address = None;
            // A POST that is on its way still may take effect: it was refused as long as the name was taken.
            motion.post.take_if(|post| post.answered.as_ref().is_some_and(|(_, uid)| *uid == address.uid));
        }
        if let Some(motion) = self.motion(slot).filter(|_| ours) {
            motion.former = address.span();
            motion.moved = address.moving;
        }
        self.wake(slot);
    }

    /// Whether an address that no claim of ours refers to is ours to look after: it is of a pool of ours, and claims beside it are served.
    pub fn serves_address(&self, slot: Slot, address: &Address) -> bool {
        let namespace = self.entry(slot).map(|entry| &**self.names.text(entry.namespace));
        let visible = self.scope.namespace.as_deref().is_none_or(|only| Some(only) == namespace);
        address.pool.is_some() && address.filtered && visible
    }

    /// Keeps count of deleting addresses without a claim.
    pub(super) fn note_orphan(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot) else { return };
        let Some(address) = &entry.address else { return };
        let Some(pool) = address.pool else { return };
        let served = self.serves_address(slot, address);
        let orphan = entry.claim.is_none() && address.deleting.is_some() && !address.moving && served;
        let Some(entry) = self.pool_mut(pool) else { return };
        if orphan {
            entry.orphans.insert(slot)
        } else {
            entry.orphans.remove(&slot)
        };
    }
}

/// The pool of ours that an address refers to. A missing group counts as ours: such an address holds its value all the same.
fn address_pool(address: &IpAddress, namespace: &str) -> Option<PoolKey> {
    let reference = &address.spec.pool_ref;
    let ours = matches!(reference.api_group.as_deref(), None | Some("" | IPAM_GROUP));
    let kind = PoolKind::from_kind(&reference.kind).filter(|_| ours)?;
    Some(PoolKey::new(kind, namespace, &reference.name))
}
