//! Values promised to a key whose object the watch has not shown yet.

use std::collections::BTreeMap;

use super::span_map::SpanMap;
use crate::span::Span;

/// How far the creation of the object has come. Kept for the caller; the ledger only stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReservationState {
    /// No request has left.
    #[default]
    Unsent,
    /// A request is on its way, or its answer was lost: the object may exist.
    Sent,
    /// The API server has answered.
    Answered,
}

/// A value promised to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The value.
    pub span: Span,
    /// How far its object has come.
    pub state: ReservationState,
}

#[derive(Clone, Debug)]
pub(super) struct Reservations<K> {
    by_key: BTreeMap<K, Reservation>,
    by_span: SpanMap<K>,
}

impl<K: Copy + Ord> Reservations<K> {
    pub(super) fn new() -> Self {
        Self { by_key: BTreeMap::new(), by_span: SpanMap::default() }
    }

    pub(super) fn get(&self, key: K) -> Option<Reservation> {
        self.by_key.get(&key).copied()
    }

    pub(super) fn insert(&mut self, key: K, span: Span) {
        let state = ReservationState::Unsent;
        self.by_key.insert(key, Reservation { span, state });
        self.by_span.insert(span, key);
    }

    pub(super) fn remove(&mut self, key: K) -> Option<Span> {
        let span = self.by_key.remove(&key)?.span;
        self.by_span.remove(&span);
        Some(span)
    }

    pub(super) fn set_state(&mut self, key: K, state: ReservationState) {
        if let Some(reservation) = self.by_key.get_mut(&key) {
            reservation.state = state;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (K, Reservation)> {
        self.by_key.iter().map(|(&key, &reservation)| (key, reservation))
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The reservations of values that share an address with `span`.
    pub(super) fn overlapping(&self, span: Span) -> impl Iterator<Item = (Span, K)> {
        self.by_span.overlapping(span).map(|(span, &key)| (span, key))
    }
}
