//! What one solver answered, and what that counts for now. Kept by the store of all answers.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, FailureKind, Key, Outcome, Ran, known};
use crate::externalip::accept::{Accepted, Refusal};

/// What a solver's answers come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effective {
    /// Its last answer.
    Fresh(Vec<IpAddr>),
    /// An earlier answer, while there is no new one.
    Held(Vec<IpAddr>, Why),
    /// It has never answered, and is being asked.
    Pending {
        /// Since when.
        since: Instant,
    },
    /// None.
    Empty {
        /// Why.
        reason: String,
        /// It was said twice, some time apart.
        confirmed: bool,
    },
    /// No answer that may still be used.
    Failed {
        /// Why.
        failure: Failure,
        /// Since when it fails.
        since: Instant,
    },
}

/// Why an earlier answer is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The solver fails.
    Failing(Failure),
    /// It said "none", but once only.
    Doubtful,
    /// This process has not asked it yet.
    Unasked,
}

/// An effective answer with what else is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// What counts.
    pub effective: Effective,
    /// When that ends without a new answer.
    pub until: Option<Instant>,
    /// Addresses of the last answer that may not be published.
    pub refused: Vec<(IpAddr, Refusal)>,
    /// The last answer had too many addresses.
    pub truncated: bool,
}

/// The answers of one solver.
#[derive(Debug)]
pub struct Cell {
    pub outcome: Option<Outcome>,
    /// Until when the last addresses were fresh, whoever uses them.
    pub good: Option<Good>,
    pub asked_since: Instant,
    pub begun: Option<Instant>,
    pub ended: Instant,
    pub failing_since: Instant,
    pub first_empty: Option<Instant>,
    pub emptied: bool,
    /// Outcomes of the same kind in a row, but for addresses.
    pub repeated: u32,
    pub due: Option<Instant>,
    pub in_flight: bool,
    /// When to ask once more after the run under way, at the latest.
    pub again: Option<Instant>,
    /// The sources that use it, each with the last addresses it could accept.
    pub users: BTreeMap<Arc<str>, Option<Good>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Good {
    pub addresses: Vec<IpAddr>,
    pub until: Instant,
}

/// The first pause after a failure, and after "none"; both are doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const FIRST_RECHECK: Duration = Duration::from_secs(10);
/// The longest of these pauses.
const LAST_RETRY: Duration = Duration::from_secs(300);
/// Two times "none" confirm each other only if they are this far apart.
const CONFIRM: Duration = Duration::from_secs(10);
/// The most that is added so that not all are asked at once.
const MOST_JITTER: Duration = Duration::from_secs(5);

impl Cell {
    pub fn new(key: &Key, now: Instant) -> Self {
        let outcome = known(key);
        let good = match &outcome {
            Some(Outcome::Found { addresses, .. }) => Some(Good { addresses: addresses.clone(), until: now }),
            _ => None,
        };
        Self {
            emptied: matches!(outcome, Some(Outcome::Empty(_))),
            outcome,
            good,
            asked_since: now,
            begun: None,
            ended: now,
            failing_since: now,
            first_empty: None,
            repeated: 0,
            due: None,
            in_flight: false,
            again: None,
            users: BTreeMap::new(),
        }
    }

    /// Takes in how a run ended, and returns when the next is due.
    pub fn end(&mut self, ran: Ran, pace: Option<Duration>, now: Instant, jitter: f64) -> Option<Instant> {
        let Ran { outcome, fresh_for } = ran;
        self.in_flight = false;
        self.ended = now;
        let same = self.outcome.as_ref().is_some_and(|before| std::mem::discriminant(before) == std::mem::discriminant(&outcome));
        self.repeated = if same { self.repeated.saturating_add(1) } else { 0 };
        let doubled = |first: Duration| first.saturating_mul(1 << self.repeated.min(10)).min(LAST_RETRY);
        let later = |pause: Duration| pause + pause.mul_f64(0.1 * jitter).min(MOST_JITTER);
        let due = match &outcome {
            Outcome::Found { addresses, .. } => {
                let fresh_for = [fresh_for, pace].into_iter().flatten().min();
                self.good = Some(Good { addresses: addresses.clone(), until: now + fresh_for.unwrap_or_default() });
                (self.first_empty, self.emptied) = (None, false);
                fresh_for.map(later)
            }
            Outcome::Empty(_) => {
                let first = *self.first_empty.get_or_insert(now);
                if now.saturating_duration_since(first) >= CONFIRM {
                    self.emptied = true;
                    self.good = None;
                    self.users.values_mut().for_each(|good| *good = None);
                }
                let pause = fresh_for.unwrap_or_else(|| doubled(FIRST_RECHECK));
                Some(later(pace.map_or(pause, |pace| pause.min(pace)).max(FIRST_RECHECK)))
            }
            Outcome::Failed(_) => {
                if !matches!(self.outcome, Some(Outcome::Failed(_))) {
                    self.failing_since = now;
                }
                Some(fresh_for.map_or_else(|| doubled(FIRST_RETRY).mul_f64(0.8 + 0.4 * jitter), later))
            }
        };
        let limited = matches!(&outcome, Outcome::Failed(Failure { kind: FailureKind::RateLimited, .. }));
        let again = self.again.take().filter(|_| !limited);
        self.outcome = Some(outcome);
        due.map(|pause| now + pause).into_iter().chain(again).min()
    }

    /// The effective answer, by the rules of §5 in their order.
    pub fn reading(&self, found: Accepted, good: Option<Good>, max_staleness: Duration, now: Instant) -> Reading {
        let Accepted { addresses, refused } = found;
        let good = good.filter(|good| !self.emptied && !good.addresses.is_empty());
        let truncated = matches!(self.outcome, Some(Outcome::Found { truncated: true, .. }));
        let failed = |failure: Failure, since: Instant| match &good {
            Some(good) if now <= good.until + max_staleness => {
                (Effective::Held(good.addresses.clone(), Why::Failing(failure)), Some(good.until + max_staleness))
            }
            _ => (Effective::Failed { failure, since }, None),
        };
        let (effective, until) = match &self.outcome {
            Some(Outcome::Found { .. }) if !addresses.is_empty() => (Effective::Fresh(addresses), None),
            Some(Outcome::Found { .. }) => {
                let kind = FailureKind::AddressRefused;
                let since = good.as_ref().map_or(self.asked_since, |good| good.until);
                failed(Failure { kind, text: "no address of the answer may be published".to_owned() }, since)
            }
            Some(Outcome::Failed(failure)) => failed(failure.clone(), self.failing_since),
            Some(Outcome::Empty(reason)) => match &good {
                Some(good) => (Effective::Held(good.addresses.clone(), Why::Doubtful), None),
                None => (Effective::Empty { reason: reason.clone(), confirmed: self.emptied }, None),
            },
            None => match &good {
                Some(good) => (Effective::Held(good.addresses.clone(), Why::Unasked), None),
                None => (Effective::Pending { since: self.asked_since }, None),
            },
        };
        Reading { effective, until, refused, truncated }
    }
}
