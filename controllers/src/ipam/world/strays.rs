//! Addresses that this process has sent and lost sight of: their creation was given up, or was answered and is not in view yet. Such an
//! address can appear when its claim is long gone and others of its name have come and gone. Who sent it is the only one who can
//! know whose it is.

use super::World;
use super::latest::Latest;
use crate::ipam::compact::{Revision, Uid};
use crate::ipam::records::{PoolId, Post, Slot};

/// The claims for which such addresses were sent, each with the address that it was seen to use: that is no stray.
pub type Strays = Latest<Option<Uid>>;

impl World {
    /// The creation that was sent is waited for no more.
    pub(super) fn drop_post(&mut self, slot: Slot) {
        let is_used = self.has_seen_post(slot) && self.uses_address(slot);
        let Some(post) = self.take_post(slot) else { return };
        if !is_used {
            self.strays.add(&post.claim);
            self.note_use(slot);
        }
        self.forsake(slot, post.pool);
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
            self.strays.add(&post.claim);
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

    /// An address of ours that nobody was told of is about to become that of a later claim.
    pub fn adopts(&mut self, claim: &Uid) {
        self.strays.add(claim);
    }

    /// Keeps the address that a claim uses from being taken for a stray when the claim is gone.
    pub(super) fn note_use(&mut self, slot: Slot) {
        if !self.uses_address(slot) {
            return;
        }
        let Some(entry) = self.entries.get(slot as usize) else { return };
        if let Some((claim, address)) = entry.claim.as_ref().zip(entry.address.as_ref())
            && let Some(used) = self.strays.get_mut(&claim.uid)
        {
            *used = Some(address.uid.clone());
        }
    }

    /// Whether an address that this process wrote for a claim which is gone was never published.
    pub fn is_stray(&self, address: &Uid, claim: &Uid) -> bool {
        self.strays.get(claim).is_some_and(|used| used.as_ref() != Some(address))
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
