//! A map by span that answers overlap queries, for the few spans that are not simply units of the pool.

use std::collections::BTreeMap;

use crate::span::{Family, Span};

#[derive(Clone, Debug)]
pub(super) struct SpanMap<V> {
    spans: BTreeMap<Span, V>,
    /// How many spans there are of each length, so that a query looks only at lengths in use.
    lengths: BTreeMap<(Family, u8), usize>,
}

impl<V> Default for SpanMap<V> {
    fn default() -> Self {
        Self { spans: BTreeMap::new(), lengths: BTreeMap::new() }
    }
}

impl<V> SpanMap<V> {
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub(super) fn get(&self, span: &Span) -> Option<&V> {
        self.spans.get(span)
    }

    pub(super) fn get_mut(&mut self, span: &Span) -> Option<&mut V> {
        self.spans.get_mut(span)
    }

    pub(super) fn insert(&mut self, span: Span, value: V) {
        if self.spans.insert(span, value).is_none() {
            *self.lengths.entry((span.family(), span.length())).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, span: &Span) -> Option<V> {
        let value = self.spans.remove(span)?;
        let length = (span.family(), span.length());
        if let Some(count) = self.lengths.get_mut(&length) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&length);
            }
        }
        Some(value)
    }

    /// Everything, leaving nothing.
    pub(super) fn take(&mut self) -> BTreeMap<Span, V> {
        self.lengths.clear();
        std::mem::take(&mut self.spans)
    }

    /// Every span that shares an address with `span`: those that contain it, then itself and those inside it.
    pub(super) fn overlapping(&self, span: Span) -> impl Iterator<Item = (Span, &V)> {
        let family = span.family();
        let around = self.lengths.range((family, 0)..(family, span.length())).filter_map(move |(&(_, length), _)| {
            let wider = Span::around(family, span.first(), length);
            Some((wider, self.spans.get(&wider)?))
        });
        let low = Span::around(family, span.first(), span.length());
        let high = Span::around(family, span.last(), family.bits());
        // Entries with this base that are shorter sort before `low`; they were met above.
        let inside = self.spans.range(low..=high).map(|(&span, value)| (span, value));
        around.chain(inside)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span() -> impl Strategy<Value = Span> {
        let address = prop_oneof![0u128..16, (u128::MAX - 15)..=u128::MAX];
        let length = prop_oneof![Just(0u8), 120u8..=128, 1u8..=128];
        (address, length).prop_map(|(address, len)| Span::around(Family::V6, address, len))
    }

    proptest! {
        #[test]
        fn overlap_queries_agree_with_all_pairs(
            spans in prop::collection::btree_set(span(), 0..20),
            gone in prop::collection::vec(span(), 0..10),
            query in span(),
        ) {
            let mut map = SpanMap::default();
            for &span in &spans {
                map.insert(span, ());
                map.insert(span, ());
            }
            let mut left = spans;
            for span in gone {
                prop_assert_eq!(map.remove(&span).is_some(), left.remove(&span));
            }
            let mut found: Vec<Span> = map.overlapping(query).map(|(span, ())| span).collect();
            found.sort();
            let expected: Vec<Span> = left.into_iter().filter(|span| span.overlaps(&query)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
