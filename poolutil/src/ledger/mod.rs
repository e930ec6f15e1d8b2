//! One pool's book: who holds what, what is promised, who waits, and what is left. Called by the allocator and by
//! pool status, under the caller's lock.

mod held;
mod reservations;
mod room;
mod span_map;
mod units;
mod waiters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use held::{Duplicate, Mark, Standing};
pub use reservations::{Reservation, ReservationState};

use crate::count::Count;
use crate::intervals::Intervals;
use crate::pool::{Pool, Refusal};
use crate::shape::Shape;
use crate::span::{Family, Span};
use held::{Change, Held};
use reservations::Reservations;
use waiters::Waiters;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The lowest open value; when none is open, the parked value with the lowest order.
    Lowest,
    /// The `n`-th lowest open value, counting from 0 and round when there are no more; else as [`Want::Lowest`].
    /// Keep `n` below 64: the cost grows with it.
    Nth(usize),
    /// This value, even if it is parked or withheld.
    Exactly(Span),
}

/// What [`Ledger::reserve`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<K> {
    /// The value is reserved for the key.
    Granted(Span),
    /// An object with this key holds the value, or a prefix overlapping it.
    HeldBy(K),
    /// It is reserved for this key.
    ReservedBy(K),
    /// The pool does not hand it out.
    NotAllocatable(Refusal),
    /// Nothing is open and nothing parked.
    NoRoom,
    /// The pool's spec is not known or not valid.
    NoPool,
}

/// The numbers of a pool's status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The number of allocatable values.
    pub total: Count,
    /// The number of objects, whatever they hold.
    pub used: usize,
    /// The number of allocatable values that no object holds. Reservations are not subtracted.
    pub free: Count,
    /// IP pools: distinct held values that are not allocatable. Prefix pools: objects whose prefix is not
    /// allocatable or not readable. Zero while the pool's spec is not known.
    pub out_of_range: usize,
    /// The number of reservations.
    pub reserved: usize,
    /// The number of parked values, free or not.
    pub parked: usize,
}

/// The book of one pool.
///
/// A key names an address object and its claim alike. An *object* is what the watch has shown; a *reservation* is a
/// value promised to a key until its object is seen. The sets are
///
/// - *free* = allocatable − held by objects − reserved,
/// - *open* = free − parked − withheld, which is what a key without a wish gets, lowest first.
///
/// Every operation costs O(log n); one that concerns a prefix shorter than the pool's length also costs the number of
/// objects inside that prefix, and [`Ledger::resize`] costs the number of ranges and objects. Nothing walks values.
///
/// After anything that may free a value ([`forget`](Self::forget), [`cancel`](Self::cancel),
/// [`resize`](Self::resize), [`withhold`](Self::withhold), [`park`](Self::park), [`unpark`](Self::unpark), but also
/// [`wait`](Self::wait)) call [`serve`](Self::serve).
///
/// ```
/// use std::sync::Arc;
/// use poolutil::{Answer, IpPoolSpec, Ledger, Mark, Pool, Span, Want};
///
/// let addresses = ["10.0.0.10-10.0.0.11".to_owned()];
/// let pool = Pool::ip(&IpPoolSpec { addresses: &addresses, prefix: 24, ..IpPoolSpec::default() })?;
/// let mut ledger = Ledger::new();
/// ledger.resize(Some(Arc::new(pool)));
///
/// let ten = Span::parse_host("10.0.0.10").unwrap();
/// ledger.observe("a", Some(ten), Mark::Listed(1));
/// assert_eq!(ledger.reserve("b", Want::Exactly(ten)), Answer::HeldBy("a"));
/// assert!(matches!(ledger.reserve("b", Want::Lowest), Answer::Granted(_)));
/// assert_eq!(ledger.reserve("c", Want::Lowest), Answer::NoRoom);
///
/// ledger.wait("c", 1, None);
/// ledger.forget("a", Some(ten));
/// assert_eq!(ledger.serve(), ["c"]);
/// assert_eq!(ledger.reservation("c").map(|r| r.span), Some(ten));
/// # Ok::<(), poolutil::SpecError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ledger<K> {
    pool: Option<Arc<Pool>>,
    /// The pool's; the last one known when the pool is not.
    shape: Shape,
    held: Held<K>,
    reserved: Reservations<K>,
    waiters: Waiters<K>,
    parked: BTreeMap<Span, u64>,
    withheld: BTreeSet<Span>,
    /// The open units.
    open: Intervals,
    /// The parked values that are free and not withheld, by order.
    parked_free: BTreeSet<(u64, Span)>,
    /// Allocatable units that no object blocks.
    free: Count,
    /// Held units that are not allocatable, and their holders.
    outside: (usize, usize),
}

impl<K: Copy + Ord> Default for Ledger<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Ord> Ledger<K> {
    /// An empty book of a pool whose spec is not known: it gives nothing, but it records objects.
    pub fn new() -> Self {
        let shape = Shape { family: Family::V6, length: Family::V6.bits() };
        Self {
            pool: None,
            shape,
            held: Held::new(shape),
            reserved: Reservations::new(),
            waiters: Waiters::new(),
            parked: BTreeMap::new(),
            withheld: BTreeSet::new(),
            open: Intervals::default(),
            parked_free: BTreeSet::new(),
            free: Count::ZERO,
            outside: (0, 0),
        }
    }

    /// Takes a new spec, or none while there is no valid one. Objects, reservations, waiters, parked and withheld
    /// values stay; a reservation outside the new spec lives on until its object is seen or it is cancelled.
    pub fn resize(&mut self, pool: Option<Arc<Pool>>) {
        self.pool = pool;
        self.open.clear();
        self.parked_free.clear();
        self.waiters.none_ripe();
        self.free = Count::ZERO;
        self.outside = (0, 0);
        let Some(pool) = self.pool.clone() else {
            return;
        };
        self.shape = pool.shape();
        self.held.reshape(self.shape);
        for (unit, holders) in self.held.counted_units() {
            if !pool.units().contains(unit) {
                self.outside.0 += 1;
                self.outside.1 += holders;
            }
        }
        let all = self.shape.all();
        self.free = self.unheld(&pool, all).count();
        self.resettle(all);
    }

    /// The current spec.
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.pool.as_ref()
    }

    /// Records an object and what it holds; `None` is a text that cannot be read. A reservation of the key for that
    /// value is consumed.
    ///
    /// Seeing the same key with the same value again changes nothing, not even its mark. If an object's value has
    /// changed, [`forget`](Self::forget) the old one first and pass a new mark: it holds the new value only from now.
    /// A waiting key stays in the queue until it [`leave`](Self::leave)s.
    pub fn observe(&mut self, key: K, span: Option<Span>, mark: Mark) {
        self.change(span, |held| held.insert(key, span, mark), true);
        if let Some(span) = span
            && self.reservation(key).is_some_and(|reservation| reservation.span == span)
        {
            // The object blocks the value now, so nothing else changes.
            self.reserved.remove(key);
        }
    }

    /// Drops the object that held this value. Other holders of the value keep it taken.
    pub fn forget(&mut self, key: K, span: Option<Span>) {
        self.change(span, |held| held.remove(key, span), false);
    }

    fn change(&mut self, span: Option<Span>, change: impl FnOnce(&mut Held<K>) -> Change, more: bool) {
        let (Some(pool), Some(span)) = (self.pool.clone(), span) else {
            change(&mut self.held);
            return;
        };
        if let Some(unit) = self.shape.unit(&span).filter(|_| self.held.holds_units_only()) {
            let change = change(&mut self.held);
            return self.change_unit(&pool, unit, change, more);
        }
        let region = self.shape.region(&span);
        let before = self.unheld(&pool, region).count();
        let change = change(&mut self.held);
        if change == Change::None {
            return;
        }
        let after = self.unheld(&pool, region).count();
        self.free = self.free.minus(before).plus(after);
        if let Some(unit) = self.shape.unit(&span)
            && !pool.units().contains(unit)
        {
            self.change_outside(change, more);
        }
        self.resettle(region);
    }

    /// The rest of [`change`](Self::change) where one unit is all that can have changed.
    fn change_unit(&mut self, pool: &Pool, unit: u128, change: Change, more: bool) {
        if change == Change::None {
            return;
        }
        let inside = pool.units().contains(unit);
        if !inside {
            self.change_outside(change, more);
        } else if change == Change::Only {
            let one = Count::from(1);
            self.free = if more { self.free.minus(one) } else { self.free.plus(one) };
            self.settle(unit, !more);
        }
    }

    fn change_outside(&mut self, change: Change, more: bool) {
        let values = usize::from(change == Change::Only);
        let (distinct, objects) = &mut self.outside;
        if more {
            *distinct += values;
            *objects += 1;
        } else {
            *distinct -= values;
            *objects -= 1;
        }
    }

    /// Reserves a value for the key, before anything is written.
    ///
    /// 1. A key with a reservation gets the same one back, whatever it wants now.
    /// 2. Without a valid spec: [`Answer::NoPool`].
    /// 3. [`Want::Exactly`]: refused by the spec, held, reserved, or granted.
    /// 4. Otherwise an open value, else the first parked one, else [`Answer::NoRoom`].
    ///
    /// A granted key no longer waits.
    pub fn reserve(&mut self, key: K, want: Want) -> Answer<K> {
        if let Some(reservation) = self.reservation(key) {
            return Answer::Granted(reservation.span);
        }
        let Some(pool) = &self.pool else {
            return Answer::NoPool;
        };
        let span = match want {
            Want::Exactly(span) => {
                if let Some(refusal) = pool.refusal(&span) {
                    return Answer::NotAllocatable(refusal);
                }
                if let Some((holder, _)) = self.held.holders(span).next() {
                    return Answer::HeldBy(holder);
                }
                if let Some((_, other)) = self.reserved.overlapping(span).next() {
                    return Answer::ReservedBy(other);
                }
                Some(span)
            }
            Want::Lowest => self.choose(0),
            Want::Nth(n) => self.choose(n),
        };
        match span {
            Some(span) => {
                self.grant(key, span);
                Answer::Granted(span)
            }
            None => Answer::NoRoom,
        }
    }

    fn grant(&mut self, key: K, span: Span) {
        self.waiters.leave(key);
        self.reserved.insert(key, span);
        self.resettle(span);
    }

    /// The key's reservation.
    pub fn reservation(&self, key: K) -> Option<Reservation> {
        self.reserved.get(key)
    }

    /// Notes how far the key's object has come; nothing without a reservation.
    pub fn set_state(&mut self, key: K, state: ReservationState) {
        self.reserved.set_state(key, state);
    }

    /// Gives the key's reservation up and returns its value.
    pub fn cancel(&mut self, key: K) -> Option<Span> {
        let span = self.reserved.remove(key)?;
        self.resettle(span);
        Some(span)
    }

    /// Every reservation, by key.
    pub fn reservations(&self) -> impl Iterator<Item = (K, Reservation)> {
        self.reserved.iter()
    }

    /// Queues the key for any value, or for one value only. Lower ranks are served first; a key that waits already
    /// gets the new place. A key with a reservation has nothing to wait for and is not queued.
    pub fn wait(&mut self, key: K, rank: u64, want: Option<Span>) {
        if self.reservation(key).is_some() {
            return;
        }
        self.waiters.join(key, rank, want);
        if let Some(span) = want {
            let free = self.is_free(&span);
            self.waiters.set_ripe(span, free);
        }
    }

    /// Takes the key out of the queue.
    pub fn leave(&mut self, key: K) {
        self.waiters.leave(key);
    }

    /// Whether the key is queued.
    pub fn is_waiting(&self, key: K) -> bool {
        self.waiters.contains(key)
    }

    /// How many are served before the key in its queue. O(n).
    pub fn position(&self, key: K) -> Option<usize> {
        self.waiters.position(key)
    }

    /// The number of queued keys.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// Hands whatever is there to those that wait, by reservations, and returns them in that order.
    ///
    /// 1. Those that wait for one value that is free, each value to the first in its queue.
    /// 2. The others by rank, while a value is open or parked.
    pub fn serve(&mut self) -> Vec<K> {
        let mut served = Vec::new();
        while let Some((key, span)) = self.waiters.first_ripe() {
            self.grant(key, span);
            served.push(key);
        }
        while let Some(key) = self.waiters.first_general()
            && let Some(span) = self.choose(0)
        {
            self.grant(key, span);
            served.push(key);
        }
        served
    }

    /// What the order of creation says about the object `key` among all holders of `span`.
    pub fn standing(&self, key: K, span: &Span) -> Standing<K> {
        self.held.standing(key, span)
    }

    /// Every object that holds the value or a prefix overlapping it.
    pub fn holders(&self, span: &Span) -> impl Iterator<Item = (K, Mark)> {
        self.held.holders(*span)
    }

    /// The number of values with more than one holder. O(1).
    pub fn duplicate_count(&self) -> usize {
        self.held.duplicate_count()
    }

    /// Up to `limit` values with more than one holder, each with up to `limit` holders.
    pub fn duplicates(&self, limit: usize) -> Vec<Duplicate<K>> {
        self.held.duplicates(limit)
    }

    /// About how many bytes are kept of who holds which value. O(1).
    pub fn bytes(&self) -> usize {
        self.held.bytes()
    }

    /// The numbers. O(1).
    pub fn counts(&self) -> Counts {
        let (foreign_values, foreign_objects) = self.held.foreign();
        let (outside_values, outside_objects) = self.outside;
        let out_of_range = match &self.pool {
            None => 0,
            Some(pool) if pool.hands_out_prefixes() => outside_objects + foreign_objects + self.held.unreadable(),
            Some(_) => outside_values + foreign_values,
        };
        Counts {
            total: self.pool.as_ref().map_or(Count::ZERO, |pool| pool.total()),
            used: self.held.objects(),
            free: self.free,
            out_of_range,
            reserved: self.reserved.len(),
            parked: self.parked.len(),
        }
    }
}

#[cfg(test)]
mod tests;
