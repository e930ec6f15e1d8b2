//! Addresses that this process has sent and lost sight of: their creation was given up, or was answered and is not in view yet. Such an
//! address can appear when its claim is long gone and others of its name have come and gone. Who sent it is the only one who can
//! know whose it is.

use compact_str::CompactString;
use poolutil::Span;

use super::World;
use super::latest::Latest;
use crate::ipam::compact::{Name, Revision, Uid};
use crate::ipam::owners;
use crate::ipam::records::{PoolId, Post, Slot};

/// What such addresses are known by, each with the address that was seen to be used: that is no stray.
pub type Strays = Latest<Sent, Option<Uid>>;

/// What tells an address that this process sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sent {
    /// The claim it was sent for.
    For(Uid),
    /// Its own UID, where it is known: the garbage collector takes the reference to a claim that is gone off an address.
    Address(Uid),
    /// Its namespace, name and value, where nothing else is left of it.
    Value(Name, CompactString, Span),
}

impl World {
    /// The creation that was sent is waited for no more.
    pub(super) fn drop_post(&mut self, slot: Slot) {
        let is_used = self.has_seen_post(slot) && self.uses_address(slot);
        let Some(post) = self.take_post(slot) else { return };
        let pool = post.pool;
        if !is_used {
            self.lose_sight_of(slot, post);
            self.note_use(slot);
        }
        self.forsake(slot, pool);
    }

    /// Without claim and creation nobody waits for the value any more. Should an address appear nonetheless, it holds the value itself.
    pub(super) fn forsake(&mut self, slot: Slot, pool: PoolId) {
        let Some(entry) = self.entry(slot) else { return };
        if entry.claim.is_none() && entry.motion.as_ref().is_none_or(|motion| motion.post.is_none()) {
            self.cancel_if(slot, pool, |_| true);
        }
    }

    /// This process has published the address in view, or has lost and deleted it.
    pub(super) fn finish_post(&mut self, slot: Slot) {
        if self.has_seen_post(slot) {
            self.take_post(slot);
        } else {
            self.drop_post(slot);
        }
    }

    /// The creation is sent once more.
    pub(super) fn sends_again(&mut self, slot: Slot) {
        if let Some(post) = self.take_post(slot).filter(|post| post.answered.is_none()) {
            self.lose_sight_of(slot, post);
        }
    }

    fn lose_sight_of(&mut self, slot: Slot, post: Post) {
        let value = self.entry(slot).map(|entry| Sent::Value(entry.namespace, entry.name.clone(), post.span));
        let made = post.answered.map(|(_, made)| Sent::Address(made));
        for key in [Some(Sent::For(post.claim)), made, value].into_iter().flatten() {
            self.strays.add(&key);
        }
    }

    fn take_post(&mut self, slot: Slot) -> Option<Post> {
        self.entry_mut(slot)?.motion.as_mut()?.post.take()
    }

    /// The claim is published, whoever did it. What was sent is not ours to take back any more; but a creation that is on its way may
    /// take effect when that is gone.
    pub(super) fn told(&mut self, slot: Slot) {
        let post = self.entry_mut(slot).and_then(|entry| entry.motion.as_mut()?.post.as_mut());
        let Some(post) = post else { return };
        post.told = true;
        if post.answered.is_some() {
            self.drop_post(slot);
        }
    }

    /// A bound claim goes and its address is in view: every creation of ours is decided, also while that waits for somebody or a grace.
    pub(super) fn note_release(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot).filter(|_| self.is_bind_in_flight(slot)) else { return };
        let Some(claim) = entry.claim.as_ref().filter(|claim| claim.bound && claim.deleting.is_some()) else { return };
        let (pool, uid) = (claim.pool, claim.uid.clone());
        if self.owner_of(slot) == Some(uid) {
            self.drop_post(slot);
            self.cancel_if(slot, pool, |_| true);
        }
    }

    /// An address of ours that nobody was told of is about to become that of a later claim.
    pub fn adopts(&mut self, claim: &Uid) {
        self.strays.add(&Sent::For(claim.clone()));
    }

    /// Keeps the address that a claim uses from being taken for a stray when the claim is gone.
    pub(super) fn note_use(&mut self, slot: Slot) {
        if self.strays.is_empty() || !self.uses_address(slot) {
            return;
        }
        let Some((address, keys)) = self.address_uid(slot).zip(self.keys(slot)) else { return };
        for key in keys {
            if let Some(used) = self.strays.get_mut(&key) {
                *used = Some(address.clone());
            }
        }
    }

    /// By what the address in view would be known.
    fn keys(&self, slot: Slot) -> Option<Vec<Sent>> {
        let entry = self.entry(slot)?;
        let address = entry.address.as_ref()?;
        let claim = entry.claim.as_ref().map(|claim| Sent::For(claim.uid.clone()));
        let value = address.span().map(|span| Sent::Value(entry.namespace, entry.name.clone(), span));
        Some([Some(Sent::Address(address.uid.clone())), claim, value].into_iter().flatten().collect())
    }

    /// The address in view loses its reference to the claim: it is remembered by itself, if nobody was told of it.
    pub(super) fn note_loss(&mut self, slot: Slot) {
        if (self.was_posted(slot) || self.is_stray(slot))
            && let Some(address) = self.address_uid(slot)
        {
            self.strays.add(&Sent::Address(address));
        }
    }

    /// The claim lives on where this process does not look, and so may its address.
    pub(super) fn forget_stray(&mut self, slot: Slot, claim: &Uid) {
        for key in self.keys(slot).into_iter().flatten().chain([Sent::For(claim.clone())]) {
            self.strays.forget(&key);
        }
    }

    /// The claim that owns the address in view.
    pub fn owner_of(&self, slot: Slot) -> Option<Uid> {
        let entry = self.entry(slot)?;
        let address = entry.address.as_ref()?;
        let key = address.pool.and_then(|pool| self.pool(pool)).map(|pool| &pool.key);
        owners::claim_uid(&address.owners(&entry.name, key, &self.names), &entry.name)
    }

    /// Whether the address in view is what was sent last, and nobody was told of it.
    pub fn was_posted(&self, slot: Slot) -> bool {
        let Some(entry) = self.entry(slot) else { return false };
        let post = entry.motion.as_ref().and_then(|motion| motion.post.as_ref());
        let Some((post, address)) = post.zip(entry.address.as_ref()) else { return false };
        // A later claim of this name may have taken over what was posted for an earlier one.
        match (&post.answered, self.owner_of(slot)) {
            (Some((_, uid)), owner) => *uid == address.uid && owner.is_none_or(|owner| owner == post.claim),
            (None, Some(owner)) => address.ours && !post.told && owner == post.claim,
            // Listed when the garbage collector had been there.
            (None, None) => address.ours && !post.told && entry.claim.is_none() && address.span() == Some(post.span),
        }
    }

    /// Whether this process sent the address in view for a claim that is gone by now, and nobody was told of it.
    pub fn is_stray(&self, slot: Slot) -> bool {
        if self.strays.is_empty() {
            return false;
        }
        let Some(entry) = self.entry(slot) else { return false };
        let Some(address) = &entry.address else { return false };
        let sent = |key: Sent| self.strays.get(&key).is_some_and(|used| used.as_ref() != Some(&address.uid));
        let by_itself = || sent(Sent::Address(address.uid.clone()));
        let by_value = || address.span().is_some_and(|span| sent(Sent::Value(entry.namespace, entry.name.clone(), span)));
        match self.owner_of(slot) {
            // Another manager may have made it the address of a later claim, which our view does not show yet.
            Some(owner) => sent(Sent::For(owner)) && (address.ours || by_itself()),
            None => by_itself() || address.ours && by_value(),
        }
    }

    /// Whether what was sent is known to be the address in view.
    fn has_seen_post(&self, slot: Slot) -> bool {
        let Some(entry) = self.entry(slot) else { return false };
        let made = entry.motion.as_ref().and_then(|motion| motion.post.as_ref()?.answered.as_ref());
        made.zip(entry.address.as_ref()).is_some_and(|((_, made), address)| *made == address.uid)
    }

    /// A claim that was bound after an address was made uses that address. One that was made later, when the claim was already going,
    /// is used by nobody; the view may well show both together, for one of its watches is behind the other.
    fn uses_address(&self, slot: Slot) -> bool {
        let Some(entry) = self.entry(slot) else { return false };
        let bound = entry.claim.as_ref().filter(|claim| claim.bound);
        bound.zip(entry.address.as_ref()).is_some_and(|(claim, address)| match (&claim.revision, &address.revision) {
            (Revision::Number(claim), Revision::Number(address)) => claim > address,
            _ => claim.deleting.is_none(),
        })
    }
}
