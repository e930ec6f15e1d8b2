//! The ledgers as the passes use them: reserve, wait in line, give back; and what the driver reports of its requests.

use std::time::{Duration, Instant};

use poolutil::{Answer, Refusal, Reservation, ReservationState, Span, Want};

use super::World;
use crate::ipam::compact::{Revision, Uid};
use crate::ipam::facts::{Denial, Waiting, Wish};
use crate::ipam::plan::Place;
use crate::ipam::records::{PoolId, Post, Slot};
use crate::kit::writes::{Backoff, RetryClass};

/// From how many of the lowest open values a claim that lost a collision takes one.
const SCATTER: usize = 64;

/// What holds a claim up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    claim: bool,
    cluster: bool,
    pool: bool,
}

impl World {
    /// Does to the claim's place in the ledger what its plan says. An allocation answers why it was denied.
    pub fn take_place(&mut self, slot: Slot, place: Place) -> Option<(Wish, Denial)> {
        let pool = self.pool_of(slot)?;
        match place {
            Place::Keep => {}
            Place::Leave => self.leave(slot, pool),
            Place::Drop => self.give_back(slot, pool),
            Place::Queue => self.stand_in_line(slot, pool, None),
            Place::QueueFor(span) => self.stand_in_line(slot, pool, Some(span)),
            Place::Allocate(wish) => return self.reserve(slot, pool, wish).map(|denial| (wish, denial)),
        }
        None
    }

    fn reserve(&mut self, slot: Slot, pool: PoolId, wish: Wish) -> Option<Denial> {
        let want = match wish {
            Wish::Named(span) | Wish::Former(span) | Wish::Remembered(span) => Want::Exactly(span),
            Wish::Lowest => Want::Lowest,
            Wish::Scattered => Want::Nth((self.dice)(SCATTER)),
        };
        // Room that came free may have been set aside for the claim before it began to ask for a certain value.
        if let Want::Exactly(span) = want {
            self.cancel_if(slot, pool, |held| held.state == ReservationState::Unsent && held.span != span);
        }
        let answer = self.pool_mut(pool)?.ledger.reserve(slot, want);
        match answer {
            Answer::Granted(_) => None,
            Answer::HeldBy(other) | Answer::ReservedBy(other) => Some(Denial::Held(self.title(other))),
            Answer::NotAllocatable(refusal) => Some(Denial::NotAllocatable(refusal)),
            Answer::NoRoom => Some(Denial::NoRoom),
            Answer::NoPool => Some(Denial::NotAllocatable(Refusal::NotInPool)),
        }
    }

    fn stand_in_line(&mut self, slot: Slot, pool: PoolId, span: Option<Span>) {
        let rank = self.entry(slot).and_then(|entry| entry.claim.as_ref()).map_or(0, |claim| claim.arrival);
        let Some(entry) = self.pool_mut(pool) else { return };
        let news = !entry.ledger.is_waiting(slot);
        entry.ledger.wait(slot, rank, span);
        if news {
            self.wake_pool(pool);
        }
    }

    /// Leaves the queue, and gives back a reservation for which nothing was sent.
    pub(super) fn leave(&mut self, slot: Slot, pool: PoolId) {
        let Some(entry) = self.pool_mut(pool) else { return };
        if entry.ledger.is_waiting(slot) {
            entry.ledger.leave(slot);
            self.wake_pool(pool);
        }
        self.cancel_if(slot, pool, |held| held.state == ReservationState::Unsent);
    }

    /// Leaves the queue, and gives back a reservation whatever was sent for it.
    fn give_back(&mut self, slot: Slot, pool: PoolId) {
        self.leave(slot, pool);
        self.cancel_if(slot, pool, |_| true);
    }

    pub(super) fn cancel_if(&mut self, slot: Slot, pool: PoolId, unwanted: impl Fn(Reservation) -> bool) {
        let Some(entry) = self.pool_mut(pool) else { return };
        if entry.ledger.reservation(slot).is_some_and(unwanted) {
            entry.ledger.cancel(slot);
            self.after_change(pool);
        }
    }

    /// Hands what has become free to those who wait for it, and has the pool's status follow.
    pub(super) fn after_change(&mut self, pool: PoolId) {
        let Some(entry) = self.pool_mut(pool) else { return };
        for slot in entry.ledger.serve() {
            self.wake(slot);
        }
        self.wake_pool(pool);
    }

    /// The pool in whose ledger a slot's reservation would be.
    pub fn pool_of(&self, slot: Slot) -> Option<PoolId> {
        let entry = self.entry(slot)?;
        let claimed = entry.claim.as_ref().map(|claim| claim.pool);
        let posted = entry.motion.as_ref().and_then(|motion| motion.post.as_ref()).map(|post| post.pool);
        claimed.or(posted).or(entry.address.as_ref().and_then(|address| address.pool))
    }

    /// The address is about to be sent. If so, the reservation is kept from here on until the answer is known. Not if the claim has
    /// gone since the plan was made, or the value is not set aside for it any more: then nobody would look after the address.
    pub fn sends(&mut self, slot: Slot, claim: &Uid, span: Span) -> bool {
        let known = self.entry(slot).and_then(|entry| entry.claim.as_ref()).filter(|known| known.uid == *claim);
        let Some(pool) = known.map(|known| known.pool) else { return false };
        let Some(entry) = self.pool_mut(pool) else { return false };
        if entry.ledger.reservation(slot).is_none_or(|held| held.span != span) {
            return false;
        }
        entry.ledger.set_state(slot, ReservationState::Sent);
        self.sends_again(slot);
        if let Some(motion) = self.motion(slot) {
            motion.post = Some(Post { claim: claim.clone(), pool, span, told: false, sent: Instant::now(), answered: None });
        }
        true
    }

    /// The API server made the address.
    pub fn answered(&mut self, slot: Slot, address: Uid) {
        let Some(pool) = self.pool_of(slot) else { return };
        if let Some(entry) = self.pool_mut(pool) {
            entry.ledger.set_state(slot, ReservationState::Answered);
        }
        if let Some(post) = self.motion(slot).and_then(|motion| motion.post.as_mut()) {
            post.answered = Some((Instant::now(), address));
        }
    }

    /// The watch was asked to deliver the address again, and gets as long for it as the first time.
    pub fn asked_again(&mut self, slot: Slot) {
        if let Some((since, _)) = self.motion(slot).and_then(|motion| motion.post.as_mut()?.answered.as_mut()) {
            *since = Instant::now();
        }
    }

    /// The address was certainly not made, or is known not to exist: its value is free again.
    pub fn not_made(&mut self, slot: Slot) {
        if let Some(pool) = self.pool_of(slot) {
            self.give_back(slot, pool);
        }
        if let Some(motion) = self.motion(slot) {
            motion.post = None;
        }
    }

    /// The API server will not have the address; it is tried again when something changes, or at `until`.
    pub fn refused(&mut self, slot: Slot, words: String, until: Instant) {
        self.not_made(slot);
        if let Some(motion) = self.motion(slot) {
            motion.refusal = Some((words, until));
        }
    }

    /// We wrote to the claim: until our view shows another version than `before`, it is not written again.
    pub fn wrote_claim(&mut self, slot: Slot, before: &Revision) {
        let unseen = self.entry(slot).and_then(|entry| entry.claim.as_ref()).is_some_and(|claim| claim.revision == *before);
        if let Some(motion) = self.motion(slot).filter(|_| unseen) {
            motion.wrote_claim = Some((before.clone(), Instant::now()));
        }
    }

    /// The same for the address.
    pub fn wrote_address(&mut self, slot: Slot, before: &Revision) {
        let unseen = self.entry(slot).and_then(|entry| entry.address.as_ref()).is_some_and(|address| address.revision == *before);
        if let Some(motion) = self.motion(slot).filter(|_| unseen) {
            motion.wrote_address = Some((before.clone(), Instant::now()));
        }
    }

    /// Whether an address was sent for the claim that is not published yet.
    pub fn is_bind_in_flight(&self, slot: Slot) -> bool {
        self.entry(slot).and_then(|entry| entry.motion.as_ref()).is_some_and(|motion| motion.post.is_some())
    }

    /// Whether there is any such claim.
    pub fn has_binds_in_flight(&self) -> bool {
        self.entries.iter().any(|(_, entry)| entry.motion.as_ref().is_some_and(|motion| motion.post.is_some()))
    }

    /// The address is gone, whatever versions of it are still on their way to our view. So the claim that goes, if one does, has none
    /// any more: nobody publishes another for it.
    pub fn removed(&mut self, slot: Slot, uid: &Uid, going: Option<&Uid>) {
        if let Some(claim) = going {
            self.bereft(slot, claim);
        }
        let in_view = self.entry(slot).and_then(|entry| entry.address.as_ref()).is_some_and(|address| address.uid == *uid);
        if let Some(motion) = self.motion(slot).filter(|_| in_view) {
            motion.removed = Some((uid.clone(), Instant::now()));
        }
    }

    /// The API server says that a bound claim has no address, whatever is still on its way to our view.
    pub fn bereft(&mut self, slot: Slot, claim: &Uid) {
        if let Some(motion) = self.motion(slot) {
            motion.bereft = Some(claim.clone());
        }
    }

    /// We deleted the address: until our view shows that, nothing is built on it.
    pub fn deleted(&mut self, slot: Slot, uid: &Uid) {
        let alive = self.entry(slot).and_then(|entry| entry.address.as_ref());
        let alive = alive.filter(|address| address.uid == *uid && address.deleting.is_none());
        if let Some(before) = alive.map(|address| address.revision.clone()) {
            self.wrote_address(slot, &before);
        }
    }

    /// The claim is published; what was remembered of the way there is not needed any more. Answers how long the way was.
    pub fn published(&mut self, slot: Slot) -> Option<(Duration, Option<Duration>)> {
        self.finish_post(slot);
        let motion = self.entry_mut(slot)?.motion.as_mut()?;
        let waited = motion.waited.take();
        motion.waiting = None;
        motion.former = None;
        motion.collisions = 0;
        motion.backoff = Backoff::default();
        Some((motion.since.elapsed(), waited))
    }

    /// The claim lost a collision, and takes its next value from somewhere else.
    pub fn collided(&mut self, slot: Slot) {
        self.finish_post(slot);
        if let Some(motion) = self.motion(slot) {
            motion.collisions += 1;
        }
    }

    /// Counts a failed attempt, and says how long to leave the claim alone; `None` until something changes.
    pub fn failed(&mut self, slot: Slot, class: RetryClass) -> Option<Duration> {
        self.motion(slot)?.backoff.after(class, rand::random())
    }

    /// An attempt succeeded.
    pub fn succeeded(&mut self, slot: Slot) {
        if let Some(motion) = self.entry_mut(slot).and_then(|entry| entry.motion.as_mut()) {
            motion.backoff = Backoff::default();
        }
    }

    /// Nothing is left to do about the claim; what was remembered of its way is forgotten.
    pub fn settled(&mut self, slot: Slot) {
        self.drop_post(slot);
        if let Some(entry) = self.entry_mut(slot) {
            entry.motion = None;
        }
    }

    /// How long the claim's conditions must still wait for their turn; the first call gives it one.
    pub fn backfill_turn(&mut self, slot: Slot, now: Instant, pause: impl FnOnce() -> Duration) -> Duration {
        let Some(motion) = self.motion(slot) else { return Duration::ZERO };
        let turn = *motion.backfill.get_or_insert_with(|| now + pause());
        turn.saturating_duration_since(now)
    }

    /// What the claim waits for since when. A state that lasts keeps its beginning.
    pub fn waits_for(&mut self, slot: Slot, waiting: Option<Waiting>) {
        let known =
            self.entry(slot).and_then(|entry| entry.motion.as_ref()).and_then(|motion| motion.waiting).map(|(known, _)| known);
        if known == waiting {
            return;
        }
        if let Some(motion) = self.motion(slot) {
            if let Some((Waiting::Room, since)) = motion.waiting {
                motion.waited = Some(since.elapsed());
            }
            motion.waiting = waiting.map(|waiting| (waiting, Instant::now()));
        }
        if let Some(pool) = self.pool_of(slot)
            && let Some(entry) = self.pool_mut(pool)
        {
            let changed = match waiting {
                Some(Waiting::Grace) => entry.in_grace.insert(slot),
                _ => entry.in_grace.remove(&slot),
            };
            if changed {
                self.wake_pool(pool);
            }
        }
    }

    /// How long the claim has been on its way: since it was first seen, or since its deletion was.
    pub fn time_since(&self, slot: Slot) -> Option<Duration> {
        self.entry(slot)?.motion.as_ref().map(|motion| motion.since.elapsed())
    }

    /// The claim's UID.
    pub fn claim_uid(&self, slot: Slot) -> Option<Uid> {
        self.entry(slot)?.claim.as_ref().map(|claim| claim.uid.clone())
    }

    /// The address's UID.
    pub fn address_uid(&self, slot: Slot) -> Option<Uid> {
        self.entry(slot)?.address.as_ref().map(|address| address.uid.clone())
    }

    /// The pool is to write down that the claim held a value.
    pub fn remember(&mut self, slot: Slot, span: Span) {
        let Some(pool) = self.pool_of(slot) else { return };
        let key = self.memory_key(slot, pool);
        if let Some(entry) = self.pool_mut(pool) {
            entry.to_remember.insert(key, span);
            self.outbox.push(super::Wake::Gather(pool));
        }
    }

    /// What holds the claim up right now, by the paused annotations and the cluster's spec.
    pub fn holds(&self, slot: Slot) -> Holds {
        let entry = self.entry(slot);
        let claim = entry.and_then(|entry| entry.claim.as_ref());
        let cluster = entry.and_then(|entry| Some((entry.namespace, claim?.cluster?))).and_then(|key| self.clusters.get(&key));
        let pool = self.pool_of(slot).and_then(|id| self.pool(id)).and_then(|pool| pool.record.as_ref());
        Holds {
            claim: claim.is_some_and(|claim| claim.paused || claim.moving),
            cluster: cluster.is_some_and(|cluster| cluster.paused == Some(true)),
            pool: pool.is_some_and(|pool| pool.paused),
        }
    }

    /// The name under which pre-allocations and the memory of a pool know a claim.
    pub fn memory_key(&self, slot: Slot, pool: PoolId) -> String {
        let global = self.pool(pool).is_some_and(|pool| pool.key.kind.is_global());
        if global { self.title(slot) } else { self.entry(slot).map_or_else(String::new, |entry| entry.name.to_string()) }
    }
}
