//! Sets of values as sorted disjoint ranges. Used by pools, by overlap, and by the ledger for block numbers.

use crate::count::Count;
use crate::span::{AddrRange, Family};

/// A set of addresses of one family: sorted, disjoint, with a gap between any two ranges.
///
/// No operation walks the values of a range.
///
/// ```
/// use poolutil::{RangeSet, parse_entry};
/// let net = RangeSet::from(parse_entry("10.0.0.0/24")?.range);
/// let half = RangeSet::from(parse_entry("10.0.0.128/25")?.range);
/// assert_eq!(net.subtract(&half).count().to_string(), "128");
/// # Ok::<(), poolutil::ParseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet {
    family: Family,
    ranges: Vec<(u128, u128)>,
}

impl From<AddrRange> for RangeSet {
    fn from(range: AddrRange) -> Self {
        Self { family: range.family(), ranges: vec![(range.first(), range.last())] }
    }
}

impl RangeSet {
    /// The union of those `ranges` that are of this family.
    pub fn new(family: Family, ranges: impl IntoIterator<Item = AddrRange>) -> Self {
        Self::merged(
            family,
            ranges.into_iter().filter(|range| range.family() == family).map(|range| (range.first(), range.last())).collect(),
        )
    }

    /// The union of pairs in any order that may overlap. Every pair ascends.
    pub(crate) fn merged(family: Family, mut pairs: Vec<(u128, u128)>) -> Self {
        pairs.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(pairs.len());
        for (first, last) in pairs {
            match ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => ranges.push((first, last)),
            }
        }
        Self { family, ranges }
    }

    /// The family of all its addresses.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = AddrRange> + '_ {
        self.ranges.iter().filter_map(|&(first, last)| AddrRange::new(self.family, first, last))
    }

    pub(crate) fn pairs(&self) -> &[(u128, u128)] {
        &self.ranges
    }

    /// The lowest address.
    pub fn first(&self) -> Option<u128> {
        self.ranges.first().map(|&(first, _)| first)
    }

    /// The number of addresses.
    pub fn count(&self) -> Count {
        self.ranges.iter().fold(Count::ZERO, |sum, &(first, last)| sum.plus(Count::between(first, last)))
    }

    /// Whether the address `value` of this family is in the set. O(log n).
    pub fn contains(&self, value: u128) -> bool {
        let at = self.ranges.partition_point(|&(_, last)| last < value);
        self.ranges.get(at).is_some_and(|&(first, _)| first <= value)
    }

    /// Whether any address of `range` is in the set. O(log n).
    pub fn touches(&self, range: &AddrRange) -> bool {
        range.family() == self.family && !self.clipped(range.first(), range.last()).is_empty()
    }

    /// The part from `from` to `to`. O(log n + ranges of the part).
    pub(crate) fn clipped(&self, from: u128, to: u128) -> Self {
        let start = self.ranges.partition_point(|&(_, last)| last < from);
        let ranges = self
            .ranges
            .get(start..)
            .unwrap_or_default()
            .iter()
            .take_while(|&&(first, _)| first <= to)
            .map(|&(first, last)| (first.max(from), last.min(to)))
            .collect();
        Self { family: self.family, ranges }
    }

    /// What is in either. Another family adds nothing.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut pairs = self.ranges.clone();
        if other.family == self.family {
            pairs.extend_from_slice(&other.ranges);
        }
        Self::merged(self.family, pairs)
    }

    /// What is in this and not in `other`. Another family takes nothing away.
    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        if other.family != self.family {
            return self.clone();
        }
        let mut ranges = Vec::with_capacity(self.ranges.len());
        let mut cuts = other.ranges.iter().copied().peekable();
        for &(first, last) in &self.ranges {
            // What is left of this range, until a cut reaches its end.
            let mut from = Some(first);
            while let Some(start) = from {
                match cuts.peek() {
                    Some(&(_, cut_last)) if cut_last < start => {
                        cuts.next();
                    }
                    Some(&(cut_first, cut_last)) if cut_first <= last => {
                        if start < cut_first {
                            ranges.push((start, cut_first - 1));
                        }
                        // The cut stays: it may reach into the next range.
                        from = (cut_last < last).then(|| cut_last + 1);
                    }
                    _ => {
                        ranges.push((start, last));
                        from = None;
                    }
                }
            }
        }
        Self { family: self.family, ranges }
    }

    /// The lowest range that is in both.
    pub fn first_common(&self, other: &Self) -> Option<AddrRange> {
        if self.family != other.family {
            return None;
        }
        let (mut ours, mut theirs) = (self.iter().peekable(), other.iter().peekable());
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            let first = a.first().max(b.first());
            let last = a.last().min(b.last());
            if let Some(common) = AddrRange::new(self.family, first, last) {
                return Some(common);
            }
            if a.last() < b.last() {
                ours.next();
            } else {
                theirs.next();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse_entry;

    fn set(entries: &[&str]) -> RangeSet {
        let ranges: Vec<_> = entries.iter().map(|entry| parse_entry(entry).unwrap().range).collect();
        RangeSet::new(ranges.first().map_or(Family::V4, AddrRange::family), ranges)
    }

    fn written(set: &RangeSet) -> Vec<String> {
        set.iter().map(|range| range.to_string()).collect()
    }

    #[test]
    fn a_union_has_exact_borders() {
        // P15
        let union = set(&["192.168.2.16/30", "192.168.1.25", "192.168.1.26-192.168.1.28"]);
        assert_eq!(written(&union), ["192.168.1.25-192.168.1.28", "192.168.2.16-192.168.2.19"]);
        // P16
        let union = set(&["fe80::10/127", "fe80::13-fe80::14", "fe80::16"]);
        assert_eq!(written(&union), ["fe80::10-fe80::11", "fe80::13-fe80::14", "fe80::16-fe80::16"]);
    }

    #[test]
    fn counts_are_exact_and_capped() {
        // P20
        for (entries, exact, capped) in [
            (&[][..], "0", 0),
            (&["10.0.0.1"], "1", 1),
            (&["10.0.0.1-10.0.0.2"], "2", 2),
            (&["10.0.0.1-10.0.0.10", "10.0.1.1-10.0.1.6"], "16", 16),
            (&["10.0.0.1-10.0.0.10", "10.0.0.5-10.0.0.15"], "15", 15),
            (&["10.0.0.0/24", "10.0.2.0/31"], "258", 258),
            (&["fe80::1/20"], "324518553658426726783156020576256", i64::MAX),
            (&["fe80::1/65"], "9223372036854775808", i64::MAX),
            (&["fe80::1/126"], "4", 4),
            (&["::/0"], "340282366920938463463374607431768211456", i64::MAX),
        ] {
            let count = set(entries).count();
            assert_eq!((count.to_string().as_str(), count.capped()), (exact, capped));
        }
    }

    #[test]
    fn the_ends_of_the_space_do_not_overflow() {
        let all = set(&["::/0"]);
        let top = set(&["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]);
        let rest = all.subtract(&top);
        assert_eq!(rest.count(), u128::MAX.into());
        assert_eq!(rest.union(&top), all);
        assert!(all.subtract(&all).is_empty());
        assert!(all.contains(u128::MAX) && !rest.contains(u128::MAX) && rest.contains(0));
        assert_eq!(all.first_common(&top), top.iter().next());
        assert_eq!(rest.first_common(&top), None);
    }

    fn small() -> impl Strategy<Value = Vec<(u128, u128)>> {
        prop::collection::vec((0u128..40, 0u128..8), 0..8).prop_map(|pairs| {
            let shifted = pairs.into_iter().enumerate().map(|(at, (first, more))| {
                // Half of them at the top of the space.
                let low = if at % 2 == 0 { first } else { u128::MAX - 47 + first };
                (low, low + more)
            });
            shifted.collect()
        })
    }

    fn has(pairs: &[(u128, u128)], value: u128) -> bool {
        pairs.iter().any(|&(first, last)| first <= value && value <= last)
    }

    proptest! {
        #[test]
        fn sets_agree_with_membership(a in small(), b in small(), from in 0u128..48, more in 0u128..20) {
            let (left, right) = (RangeSet::merged(Family::V6, a.clone()), RangeSet::merged(Family::V6, b.clone()));
            let (union, rest) = (left.union(&right), left.subtract(&right));
            let part = left.clipped(from, from + more);
            let mut sum = 0u128;
            for value in (0..48).chain(u128::MAX - 47..=u128::MAX) {
                let (in_a, in_b) = (has(&a, value), has(&b, value));
                prop_assert_eq!(left.contains(value), in_a);
                prop_assert_eq!(union.contains(value), in_a || in_b);
                prop_assert_eq!(rest.contains(value), in_a && !in_b);
                prop_assert_eq!(part.contains(value), in_a && from <= value && value <= from + more);
                sum += u128::from(in_a);
            }
            prop_assert_eq!(left.count(), sum.into());
            for set in [&left, &union, &rest, &part] {
                prop_assert!(set.pairs().windows(2).all(|w| w[0].1 < w[1].0 - 1), "gaps");
            }
            let common = (0..48).chain(u128::MAX - 47..=u128::MAX).find(|&v| has(&a, v) && has(&b, v));
            prop_assert_eq!(left.first_common(&right).map(|range| range.first()), common);
        }
    }
}
