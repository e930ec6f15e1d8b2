//! The values the ledger can give, as intervals that split and merge in place.

use std::collections::BTreeMap;

/// Disjoint intervals, by first value, with a gap between any two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intervals(BTreeMap<u128, u128>);

impl Intervals {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The `n`-th lowest value, counting round when there are no more than `n`. Looks at `n + 1` values at most.
    pub(crate) fn nth(&self, n: usize) -> Option<u128> {
        let lowest: Vec<u128> = self.0.iter().flat_map(|(&first, &last)| first..=last).take(n + 1).collect();
        let round = n.checked_rem(lowest.len())?;
        lowest.get(round).copied()
    }

    /// Adds the values from `first` to `last`, none of which is in.
    pub(crate) fn insert(&mut self, mut first: u128, mut last: u128) {
        if let Some((&before, &end)) = self.0.range(..first).next_back()
            && end.checked_add(1) == Some(first)
        {
            first = before;
        }
        if let Some(after) = last.checked_add(1)
            && let Some(end) = self.0.remove(&after)
        {
            last = end;
        }
        self.0.insert(first, last);
    }

    /// Adds a value, whether in or not.
    pub(crate) fn add(&mut self, value: u128) {
        if self.0.range(..=value).next_back().is_none_or(|(_, &last)| last < value) {
            self.insert(value, value);
        }
    }

    /// Takes out the values from `first` to `last`, whether in or not.
    pub(crate) fn remove(&mut self, first: u128, last: u128) {
        while let Some((&start, &end)) = self.0.range(..=last).next_back()
            && end >= first
        {
            self.0.remove(&start);
            if end > last {
                self.0.insert(last + 1, end);
            }
            if start < first {
                self.0.insert(start, first - 1);
                break;
            }
        }
    }

    #[cfg(test)]
    fn pairs(&self) -> Vec<(u128, u128)> {
        self.0.iter().map(|(&first, &last)| (first, last)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_whole_space_splits_and_merges() {
        let mut open = Intervals::default();
        open.insert(0, u128::MAX);
        open.remove(u128::MAX, u128::MAX);
        open.remove(0, 0);
        open.remove(5, 5);
        assert_eq!(open.pairs(), [(1, 4), (6, u128::MAX - 1)]);
        assert_eq!(open.nth(4), Some(6));
        open.insert(5, 5);
        open.insert(0, 0);
        open.insert(u128::MAX, u128::MAX);
        assert_eq!(open.pairs(), [(0, u128::MAX)]);
        open.remove(0, u128::MAX);
        assert_eq!((open.nth(0), open.nth(3)), (None, None));
    }

    #[test]
    fn the_nth_counts_round() {
        let mut open = Intervals::default();
        open.insert(3, 4);
        open.insert(9, 9);
        let picked: Vec<_> = (0..7).filter_map(|n| open.nth(n)).collect();
        assert_eq!(picked, [3, 4, 9, 3, 4, 9, 3]);
    }

    proptest! {
        #[test]
        fn intervals_agree_with_a_set(steps in prop::collection::vec((any::<bool>(), 0u128..32, 0u128..6, any::<bool>()), 0..60)) {
            let (mut open, mut model) = (Intervals::default(), BTreeSet::new());
            for (add, low, more, top) in steps {
                let first = if top { u128::MAX - 37 + low } else { low };
                let last = first + more;
                open.remove(first, last);
                model.retain(|value| !(first..=last).contains(value));
                if add && more == 0 {
                    open.add(first);
                    open.add(first);
                    model.insert(first);
                } else if add {
                    open.insert(first, last);
                    model.extend(first..=last);
                }
                let pairs = open.pairs();
                prop_assert!(pairs.windows(2).all(|w| w[0].1 + 1 < w[1].0));
                let values: BTreeSet<u128> = pairs.iter().flat_map(|&(a, b)| a..=b).collect();
                prop_assert_eq!(&values, &model);
                prop_assert_eq!(open.nth(0), model.first().copied());
            }
        }
    }
}
