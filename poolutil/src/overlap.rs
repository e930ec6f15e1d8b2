//! Which pools share addresses. Called by the pool reconciler for the `Overlapping` condition.

use std::collections::{BTreeMap, BTreeSet};

use crate::range_set::RangeSet;
use crate::span::AddrRange;

/// How many partners are listed with their range.
const LISTED: usize = 3;

/// What one pool shares with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap<I> {
    /// Up to three partners, those that meet it at the lowest addresses, with the lowest range in common.
    pub partners: Vec<(I, AddrRange)>,
    /// The number of all partners.
    pub count: usize,
}

/// Finds every item that shares an address with another one it is `related` to; items without partner are absent.
///
/// 1. All ranges are sorted by their first address.
/// 2. The sweep keeps the ranges that reach the current address, by their end.
/// 3. A new range meets every range that is kept. The first meeting of two items is at their lowest
///    common address; it is recorded for both.
///
/// The cost is O(n log n) for n ranges, plus one call of `related` for every meeting.
///
/// ```
/// use poolutil::{RangeSet, overlaps, parse_entry};
/// let a = RangeSet::from(parse_entry("10.0.0.0/24")?.range);
/// let b = RangeSet::from(parse_entry("10.0.0.250-10.0.1.9")?.range);
/// let found = overlaps(&[("a", &a), ("b", &b)], |_, _| true);
/// assert_eq!(found["a"].partners[0].0, "b");
/// assert_eq!(found["a"].partners[0].1.to_string(), "10.0.0.250-10.0.0.255");
/// # Ok::<(), poolutil::ParseError>(())
/// ```
pub fn overlaps<I: Copy + Ord>(items: &[(I, &RangeSet)], related: impl Fn(I, I) -> bool) -> BTreeMap<I, Overlap<I>> {
    let mut ranges: Vec<(AddrRange, I)> =
        items.iter().flat_map(|&(item, set)| set.iter().map(move |range| (range, item))).collect();
    ranges.sort_unstable();

    let mut found = BTreeMap::new();
    let mut met = BTreeSet::new();
    let mut kept: BTreeSet<(u128, I)> = BTreeSet::new();
    let mut family = None;
    for (range, item) in ranges {
        if family.replace(range.family()) != Some(range.family()) {
            kept.clear();
        }
        while kept.first().is_some_and(|&(last, _)| last < range.first()) {
            kept.pop_first();
        }
        for &(last, other) in &kept {
            let pair = (item.min(other), item.max(other));
            if item == other || !related(item, other) || !met.insert(pair) {
                continue;
            }
            let Some(common) = AddrRange::new(range.family(), range.first(), last.min(range.last())) else {
                continue;
            };
            for (one, partner) in [(item, other), (other, item)] {
                let overlap = found.entry(one).or_insert(Overlap { partners: Vec::new(), count: 0 });
                overlap.count += 1;
                if overlap.partners.len() < LISTED {
                    overlap.partners.push((partner, common));
                }
            }
        }
        kept.insert((range.last(), item));
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse_entry;
    use crate::span::Family;

    fn set(text: &str) -> RangeSet {
        RangeSet::from(parse_entry(text).unwrap().range)
    }

    #[test]
    fn unrelated_twins_do_not_overlap() {
        let net = set("10.0.0.0/24");
        let found = overlaps(&[(1, &net), (2, &net), (3, &net)], |a, b| a + b != 3);
        assert_eq!(found[&1].partners, [(3, net.iter().next().unwrap())]);
        assert_eq!(found[&3].count, 2);
    }

    #[test]
    fn families_do_not_meet() {
        let (v4, v6) = (set("0.0.0.0/0"), set("::/0"));
        assert!(overlaps(&[(1, &v4), (2, &v6)], |_, _| true).is_empty());
    }

    #[test]
    fn all_partners_are_counted_and_three_are_listed() {
        let (all, parts) = (set("::/0"), ["::5", "::4", "::3", "::2", "::1"].map(set));
        let mut items = vec![(0, &all)];
        items.extend((1..).zip(&parts));
        let found = overlaps(&items, |_, _| true);
        assert_eq!(found[&0].count, 5);
        let listed: Vec<_> = found[&0].partners.iter().map(|&(partner, _)| partner).collect();
        assert_eq!(listed, [5, 4, 3]);
        assert_eq!(found[&1].count, 1);
    }

    fn sets() -> impl Strategy<Value = Vec<RangeSet>> {
        let ranges = prop::collection::vec((0u128..60, 0u128..5), 0..5);
        prop::collection::vec(
            ranges.prop_map(|pairs| {
                let pairs = pairs.into_iter().map(|(first, more)| (first, first + more));
                RangeSet::merged(Family::V6, pairs.collect())
            }),
            0..6,
        )
    }

    proptest! {
        #[test]
        fn the_sweep_agrees_with_all_pairs(sets in sets(), apart in 0usize..6) {
            let items: Vec<_> = sets.iter().enumerate().collect();
            let related = |a: usize, b: usize| a.abs_diff(b) != apart;
            let found = overlaps(&items, related);
            for &(a, set) in &items {
                let expected: BTreeMap<usize, AddrRange> = items
                    .iter()
                    .filter(|&&(b, _)| a != b && related(a, b))
                    .filter_map(|&(b, other)| Some((b, set.first_common(other)?)))
                    .collect();
                let overlap = found.get(&a);
                prop_assert_eq!(overlap.map_or(0, |o| o.count), expected.len());
                let listed = overlap.map_or(&[][..], |o| &o.partners);
                prop_assert_eq!(listed.len(), expected.len().min(3));
                for (b, common) in listed {
                    prop_assert_eq!(expected.get(b), Some(common));
                }
            }
        }
    }
}
