//! Who holds what: every address object of the pool by its value, and the order in which they came.

use std::collections::{BTreeMap, BTreeSet};

use super::span_map::SpanMap;
use super::units::Units;
use crate::shape::Shape;
use crate::span::Span;

/// How the watch told us of an object: what can be proved about the order of creation.
///
/// The numbers run up in this process, below 2^63; one counter serves both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mark {
    /// Found by a list that ended at this number; the order within the list is unknown.
    Listed(u64),
    /// First seen through a live event, hence created after everything seen before it.
    Added(u64),
}

impl Mark {
    /// Whether an object with this mark was provably created before one with the `other` mark.
    pub fn precedes(self, other: Self) -> bool {
        let (Self::Listed(ours) | Self::Added(ours)) = self;
        matches!(other, Self::Added(theirs) if ours < theirs)
    }
}

/// What the order of creation says about one object among all that hold its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<K> {
    /// Nobody else holds the value or a prefix overlapping it.
    Alone,
    /// It provably precedes every other holder.
    First,
    /// It does not provably precede this holder, so it has lost.
    Behind(K),
    /// It is not known to hold that value.
    Unseen,
}

/// A value that more than one object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate<K> {
    /// The value. Of overlapping prefixes, one whose length is not the pool's.
    pub span: Span,
    /// Its holders and those of prefixes overlapping it, ascending; as many as were asked for at most.
    pub holders: Vec<K>,
}

/// One holder. There is one of these per address, so the mark is folded into bytes that need no alignment.
#[derive(Clone, Copy, Debug)]
struct Holder<K> {
    mark: [u8; 8],
    key: K,
}

impl<K: Copy> Holder<K> {
    fn new(key: K, mark: Mark) -> Self {
        let mark = match mark {
            Mark::Listed(n) => n << 1,
            Mark::Added(n) => n << 1 | 1,
        };
        Self { mark: mark.to_ne_bytes(), key }
    }

    fn mark(&self) -> Mark {
        let mark = u64::from_ne_bytes(self.mark);
        let n = mark >> 1;
        if mark & 1 == 0 { Mark::Listed(n) } else { Mark::Added(n) }
    }
}

/// How a value's holders changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Not at all.
    None,
    /// One more or one less of several.
    Another,
    /// The only one came or went.
    Only,
}

#[derive(Clone, Debug)]
pub(super) struct Held<K> {
    /// What the pool hands out. Spans of this shape are *units* and kept by number.
    shape: Shape,
    /// The first holder of each held unit.
    units: Units<Holder<K>>,
    /// The other holders of a unit, where there are any.
    others: BTreeMap<u128, Vec<Holder<K>>>,
    /// The holders of spans of another shape.
    foreign: SpanMap<Vec<Holder<K>>>,
    /// Those spans of another shape that are not their holder's alone.
    disputed: BTreeSet<Span>,
    /// Objects whose text cannot be read.
    unreadable: BTreeSet<K>,
    objects: usize,
    foreign_objects: usize,
}

impl<K: Copy + Ord> Held<K> {
    pub(super) fn new(shape: Shape) -> Self {
        Self {
            shape,
            units: Units::default(),
            others: BTreeMap::new(),
            foreign: SpanMap::default(),
            disputed: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            objects: 0,
            foreign_objects: 0,
        }
    }

    /// Changes what counts as a unit and sorts every holder anew. O(held), and nothing if it stays the same.
    pub(super) fn reshape(&mut self, shape: Shape) {
        if self.shape == shape {
            return;
        }
        let units = std::mem::take(&mut self.units);
        let mut others = std::mem::take(&mut self.others);
        let old = std::mem::replace(&mut self.shape, shape);
        let foreign = self.foreign.take();
        self.disputed.clear();
        (self.objects, self.foreign_objects) = (self.unreadable.len(), 0);
        for (unit, &holder) in units.range(0, u128::MAX) {
            let further = others.remove(&unit).unwrap_or_default();
            for holder in std::iter::once(holder).chain(further) {
                self.add(old.span(unit), holder);
            }
        }
        for (span, holders) in foreign {
            for holder in holders {
                self.add(span, holder);
            }
        }
    }

    pub(super) fn insert(&mut self, key: K, span: Option<Span>, mark: Mark) -> Change {
        let Some(span) = span else {
            if !self.unreadable.insert(key) {
                return Change::None;
            }
            self.objects += 1;
            return Change::Another;
        };
        if self.holder(key, &span).is_some() {
            return Change::None;
        }
        self.add(span, Holder::new(key, mark))
    }

    fn add(&mut self, span: Span, holder: Holder<K>) -> Change {
        self.objects += 1;
        let change = if let Some(unit) = self.shape.unit(&span) {
            if self.units.insert(unit, holder) {
                Change::Only
            } else {
                self.others.entry(unit).or_default().push(holder);
                Change::Another
            }
        } else {
            self.foreign_objects += 1;
            if let Some(holders) = self.foreign.get_mut(&span) {
                holders.push(holder);
                Change::Another
            } else {
                self.foreign.insert(span, vec![holder]);
                Change::Only
            }
        };
        self.dispute(span);
        change
    }

    pub(super) fn remove(&mut self, key: K, span: Option<Span>) -> Change {
        let Some(span) = span else {
            if !self.unreadable.remove(&key) {
                return Change::None;
            }
            self.objects -= 1;
            return Change::Another;
        };
        let change = match self.shape.unit(&span) {
            Some(unit) => self.remove_unit(key, unit),
            None => self.remove_foreign(key, &span),
        };
        if change != Change::None {
            self.objects -= 1;
            self.dispute(span);
        }
        change
    }

    fn remove_unit(&mut self, key: K, unit: u128) -> Change {
        let Some(first) = self.units.get_mut(unit) else {
            return Change::None;
        };
        let Some(others) = self.others.get_mut(&unit) else {
            if first.key != key {
                return Change::None;
            }
            self.units.remove(unit);
            return Change::Only;
        };
        if first.key == key {
            *first = others.swap_remove(0);
        } else if let Some(at) = others.iter().position(|holder| holder.key == key) {
            others.swap_remove(at);
        } else {
            return Change::None;
        }
        if others.is_empty() {
            self.others.remove(&unit);
        }
        Change::Another
    }

    fn remove_foreign(&mut self, key: K, span: &Span) -> Change {
        let Some(holders) = self.foreign.get_mut(span) else {
            return Change::None;
        };
        let Some(at) = holders.iter().position(|holder| holder.key == key) else {
            return Change::None;
        };
        holders.swap_remove(at);
        self.foreign_objects -= 1;
        if !holders.is_empty() {
            return Change::Another;
        }
        self.foreign.remove(span);
        Change::Only
    }

    /// Keeps `disputed` true after a holder of `span` came or went.
    fn dispute(&mut self, span: Span) {
        if self.foreign.is_empty() && self.disputed.is_empty() {
            return;
        }
        let near: Vec<Span> = self.foreign.overlapping(span).map(|(near, _)| near).collect();
        self.disputed.remove(&span);
        for near in near {
            if self.overlapping(near).nth(1).is_some() {
                self.disputed.insert(near);
            } else {
                self.disputed.remove(&near);
            }
        }
    }

    /// Every holder of a value that shares an address with `span`.
    fn overlapping(&self, span: Span) -> impl Iterator<Item = &Holder<K>> {
        let units = self.shape.units(&span).map(|(first, last)| {
            let firsts = self.units.range(first, last).map(|(_, holder)| holder);
            let others = self.others.range(first..=last);
            firsts.chain(others.flat_map(|(_, holders)| holders))
        });
        let foreign = self.foreign.overlapping(span);
        units.into_iter().flatten().chain(foreign.flat_map(|(_, holders)| holders))
    }

    pub(super) fn holders(&self, span: Span) -> impl Iterator<Item = (K, Mark)> {
        self.overlapping(span).map(|holder| (holder.key, holder.mark()))
    }

    fn holder(&self, key: K, span: &Span) -> Option<&Holder<K>> {
        let further = match self.shape.unit(span) {
            Some(unit) => {
                let first = self.units.get(unit)?;
                if first.key == key {
                    return Some(first);
                }
                self.others.get(&unit)
            }
            None => self.foreign.get(span),
        };
        further?.iter().find(|holder| holder.key == key)
    }

    pub(super) fn standing(&self, key: K, span: &Span) -> Standing<K> {
        let Some(mark) = self.holder(key, span).map(Holder::mark) else {
            return Standing::Unseen;
        };
        let mut standing = Standing::Alone;
        for other in self.overlapping(*span).filter(|other| other.key != key) {
            if !mark.precedes(other.mark()) {
                return Standing::Behind(other.key);
            }
            standing = Standing::First;
        }
        standing
    }

    pub(super) fn duplicate_count(&self) -> usize {
        self.others.len() + self.disputed.len()
    }

    pub(super) fn duplicates(&self, limit: usize) -> Vec<Duplicate<K>> {
        let units = self.others.keys().map(|&unit| self.shape.span(unit));
        units
            .chain(self.disputed.iter().copied())
            .take(limit)
            .map(|span| {
                let mut holders: Vec<K> = self.holders(span).map(|(key, _)| key).take(limit).collect();
                holders.sort_unstable();
                Duplicate { span, holders }
            })
            .collect()
    }

    /// The units in the `region` that somebody holds, wholly or in part, in any order.
    pub(super) fn blocked(&self, region: Span) -> Vec<(u128, u128)> {
        let Some((first, last)) = self.shape.units(&region) else {
            return Vec::new();
        };
        let units = self.units.range(first, last).map(|(unit, _)| (unit, unit));
        let foreign = self.foreign.overlapping(region);
        units.chain(foreign.filter_map(|(span, _)| self.shape.units(&span))).collect()
    }

    /// Whether every readable object holds just a unit.
    pub(super) fn holds_units_only(&self) -> bool {
        self.foreign.is_empty()
    }

    /// Every held unit with the number of its holders.
    pub(super) fn counted_units(&self) -> impl Iterator<Item = (u128, usize)> {
        self.units.range(0, u128::MAX).map(|(unit, _)| (unit, 1 + self.others.get(&unit).map_or(0, Vec::len)))
    }

    pub(super) fn bytes(&self) -> usize {
        // Those beside the units are few.
        self.units.bytes() + (self.objects - self.units.len()) * size_of::<(Span, Holder<K>)>()
    }

    pub(super) fn objects(&self) -> usize {
        self.objects
    }

    pub(super) fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// The number of spans of another shape, and of the objects that hold them.
    pub(super) fn foreign(&self) -> (usize, usize) {
        (self.foreign.len(), self.foreign_objects)
    }
}
