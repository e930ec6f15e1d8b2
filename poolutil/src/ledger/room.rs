//! What is left of a pool: free, open, parked and withheld values, kept true after each change.

use std::collections::BTreeSet;

use super::Ledger;
use crate::pool::Pool;
use crate::range_set::RangeSet;
use crate::span::Span;

impl<K: Copy + Ord> Ledger<K> {
    /// Replaces the set of values that only [`Want::Exactly`] gets, such as pre-allocated ones.
    pub fn withhold(&mut self, spans: impl IntoIterator<Item = Span>) {
        let spans: BTreeSet<Span> = spans.into_iter().collect();
        let old = std::mem::replace(&mut self.withheld, spans);
        let changed: Vec<Span> = old.symmetric_difference(&self.withheld).copied().collect();
        for span in changed {
            self.resettle(span);
        }
    }

    /// Keeps a value for later: it is given only when nothing is open, lowest order first. Parking it again
    /// changes its order.
    pub fn park(&mut self, span: Span, order: u64) {
        if let Some(old) = self.parked.insert(span, order) {
            self.parked_free.remove(&(old, span));
        }
        self.resettle(span);
    }

    /// Ends [`park`](Self::park).
    pub fn unpark(&mut self, span: &Span) {
        if let Some(order) = self.parked.remove(span) {
            self.parked_free.remove(&(order, *span));
            self.resettle(*span);
        }
    }

    /// Every parked value with its order, by value.
    pub fn parked(&self) -> impl Iterator<Item = (Span, u64)> {
        self.parked.iter().map(|(&span, &order)| (span, order))
    }

    pub(super) fn choose(&self, n: usize) -> Option<Span> {
        let open = self.open.nth(n).map(|unit| self.shape.span(unit));
        open.or_else(|| self.parked_free.first().map(|&(_, span)| span))
    }

    /// The allocatable units in the `region` that no object blocks.
    pub(super) fn unheld(&self, pool: &Pool, region: Span) -> RangeSet {
        let Some((first, last)) = self.shape.units(&region) else {
            return RangeSet::merged(self.shape.family, Vec::new());
        };
        let blocked = RangeSet::merged(self.shape.family, self.held.blocked(region));
        pool.units().clipped(first, last).subtract(&blocked)
    }

    pub(super) fn is_free(&self, span: &Span) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.is_allocatable(span))
            && self.held.holders(*span).next().is_none()
            && self.reserved.overlapping(*span).next().is_none()
    }

    /// Computes anew, for the units around `span`, what is open, parked and free, or waited for and free.
    pub(super) fn resettle(&mut self, span: Span) {
        let Some(pool) = self.pool.clone() else {
            return;
        };
        let region = self.shape.region(&span);
        let Some((first, last)) = self.shape.units(&region) else {
            return;
        };
        if first == last {
            let unheld = pool.units().contains(first) && self.held.holders(self.shape.span(first)).next().is_none();
            return self.settle(first, unheld);
        }
        let family = self.shape.family;
        let reserved = self.reserved.overlapping(region);
        let reserved = reserved.filter_map(|(span, _)| self.shape.units(&span));
        let reserved = RangeSet::merged(family, reserved.collect());
        let free = self.unheld(&pool, region).subtract(&reserved);

        let (low, high) = (self.shape.span(first), self.shape.span(last));
        let mut kept = Vec::new();
        for &span in self.withheld.range(low..=high) {
            kept.extend(self.shape.unit(&span).map(|unit| (unit, unit)));
        }
        for (&span, &order) in self.parked.range(low..=high) {
            let Some(unit) = self.shape.unit(&span) else {
                continue;
            };
            kept.push((unit, unit));
            if free.contains(unit) && !self.withheld.contains(&span) {
                self.parked_free.insert((order, span));
            } else {
                self.parked_free.remove(&(order, span));
            }
        }
        for span in self.waiters.wanted(low, high) {
            let is_free = self.shape.unit(&span).is_some_and(|unit| free.contains(unit));
            self.waiters.set_ripe(span, is_free);
        }

        self.open.remove(first, last);
        for &(first, last) in free.subtract(&RangeSet::merged(family, kept)).pairs() {
            self.open.insert(first, last);
        }
    }

    /// [`resettle`](Self::resettle) for one unit, of which it is known whether it is allocatable and no object blocks it.
    pub(super) fn settle(&mut self, unit: u128, unheld: bool) {
        let span = self.shape.span(unit);
        let free = unheld && self.reserved.overlapping(span).next().is_none();
        let withheld = self.withheld.contains(&span);
        let parked = self.parked.get(&span);
        if let Some(&order) = parked {
            if free && !withheld {
                self.parked_free.insert((order, span));
            } else {
                self.parked_free.remove(&(order, span));
            }
        }
        if self.waiters.is_wanted(span) {
            self.waiters.set_ripe(span, free);
        }
        if free && !withheld && parked.is_none() {
            self.open.add(unit);
        } else {
            self.open.remove(unit, unit);
        }
    }
}
