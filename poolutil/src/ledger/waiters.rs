//! The queues of those that wait for room: one for any value, one for each value asked for by name.

use std::collections::{BTreeMap, BTreeSet};

use crate::span::Span;

#[derive(Clone, Debug)]
pub(super) struct Waiters<K> {
    by_key: BTreeMap<K, (u64, Option<Span>)>,
    general: BTreeSet<(u64, K)>,
    by_value: BTreeMap<Span, BTreeSet<(u64, K)>>,
    /// The values waited for that are free now.
    ripe: BTreeSet<Span>,
}

impl<K: Copy + Ord> Waiters<K> {
    pub(super) fn new() -> Self {
        Self { by_key: BTreeMap::new(), general: BTreeSet::new(), by_value: BTreeMap::new(), ripe: BTreeSet::new() }
    }

    pub(super) fn join(&mut self, key: K, rank: u64, want: Option<Span>) {
        self.leave(key);
        self.by_key.insert(key, (rank, want));
        match want {
            None => self.general.insert((rank, key)),
            Some(span) => self.by_value.entry(span).or_default().insert((rank, key)),
        };
    }

    pub(super) fn leave(&mut self, key: K) {
        match self.by_key.remove(&key) {
            None => {}
            Some((rank, None)) => {
                self.general.remove(&(rank, key));
            }
            Some((rank, Some(span))) => {
                let Some(queue) = self.by_value.get_mut(&span) else {
                    return;
                };
                queue.remove(&(rank, key));
                if queue.is_empty() {
                    self.by_value.remove(&span);
                    self.ripe.remove(&span);
                }
            }
        }
    }

    pub(super) fn contains(&self, key: K) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// How many are served before this one in its own queue. O(n).
    pub(super) fn position(&self, key: K) -> Option<usize> {
        let &(rank, want) = self.by_key.get(&key)?;
        let queue = match want {
            None => &self.general,
            Some(span) => self.by_value.get(&span)?,
        };
        Some(queue.range(..(rank, key)).count())
    }

    /// The values waited for from `low` to `high`.
    pub(super) fn wanted(&self, low: Span, high: Span) -> Vec<Span> {
        self.by_value.range(low..=high).map(|(&span, _)| span).collect()
    }

    /// Whether this value is waited for.
    pub(super) fn is_wanted(&self, span: Span) -> bool {
        self.by_value.contains_key(&span)
    }

    /// Notes whether a value that is waited for is free.
    pub(super) fn set_ripe(&mut self, span: Span, free: bool) {
        if free {
            self.ripe.insert(span);
        } else {
            self.ripe.remove(&span);
        }
    }

    pub(super) fn none_ripe(&mut self) {
        self.ripe.clear();
    }

    /// The first in the queue of a value that is free.
    pub(super) fn first_ripe(&self) -> Option<(K, Span)> {
        let span = self.ripe.first()?;
        let &(_, key) = self.by_value.get(span)?.first()?;
        Some((key, *span))
    }

    /// The first of those that take any value.
    pub(super) fn first_general(&self) -> Option<K> {
        self.general.first().map(|&(_, key)| key)
    }
}
