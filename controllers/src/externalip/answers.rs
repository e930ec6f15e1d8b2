//! What the shared solvers answered: one answer per solver and family, however many sources and Services use it, and when to ask again.
//!
//! A store without clock and I/O. The driver asks [`Answers::due`] what to do, runs the solver, and hands back what came of it.
//!
//! - A source *uses* the keys that its plan names ([`Answers::use_by`]); what nobody uses is not asked, and forgotten when it would be.
//! - A `static` solver and an IP literal have their answer from the start ([`known`]) and are never due.
//! - Filtering (§6 of the specification) is per source, so each source has its own last good answer beside the raw one.

mod cell;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::externalip::{Host, Shared, Source};
use poolutil::{Family, class};

use self::cell::{Cell, Good};
pub use self::cell::{Effective, Reading, Why};
use super::accept::{Accepted, Filter, Refusal};
use super::cluster::Cluster;

/// A shared solver asked for one family.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The family asked for.
    pub family: Family,
    /// The solver.
    pub solver: Shared,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There are addresses: of the right family, in order, none twice, at most 32.
    Found {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// There were more.
        truncated: bool,
    },
    /// An authoritative "none", and why.
    Empty(String),
    /// No answer.
    Failed(Failure),
}

/// Why there is no answer. The text holds no ages, counters or foreign bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub kind: FailureKind,
    /// What happened, for people.
    pub text: String,
}

/// The kinds of failures: event text, metric label and status reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "their names say it")]
pub enum FailureKind {
    Timeout,
    ConnectFailed,
    ServerFailure,
    NoResolver,
    Tls,
    HttpStatus,
    RateLimited,
    BadAnswer,
    TooLarge,
    WrongFamily,
    AddressRefused,
    NoSuchInterface,
    PartFailed,
    PoolNotFound,
    ClaimConflict,
}

impl FailureKind {
    /// The word as it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "Timeout",
            Self::ConnectFailed => "ConnectFailed",
            Self::ServerFailure => "ServerFailure",
            Self::NoResolver => "NoResolver",
            Self::Tls => "TLS",
            Self::HttpStatus => "HTTPStatus",
            Self::RateLimited => "RateLimited",
            Self::BadAnswer => "BadAnswer",
            Self::TooLarge => "TooLarge",
            Self::WrongFamily => "WrongFamily",
            Self::AddressRefused => "AddressRefused",
            Self::NoSuchInterface => "NoSuchInterface",
            Self::PartFailed => "PartFailed",
            Self::PoolNotFound => "PoolNotFound",
            Self::ClaimConflict => "ClaimConflict",
        }
    }
}

/// What a solver hands back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// How the run ended.
    pub outcome: Outcome,
    /// What the solver itself says about when to ask again: what is left of a TTL, a provider's pace, a back-off after 429. The store
    /// adds its jitter. `None` means the store's own rule: after a failure 5 s doubled to 5 min, after "none" 10 s doubled to 5 min,
    /// after addresses never.
    pub fresh_for: Option<Duration>,
}

/// How one source uses its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Which addresses it may publish.
    pub filter: Filter,
    /// How long it holds on to the last answer of a solver that fails.
    pub max_staleness: Duration,
    /// How often it wants its solvers asked at least.
    pub refresh_interval: Option<Duration>,
}

/// A source to which an outcome makes a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub source: Arc<str>,
    /// Whether its Services are concerned too, and not only its status.
    pub services: bool,
}

/// For the numbers: the cells of one kind of solver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Answers in use.
    pub answers: usize,
    /// Those of them that are held.
    pub held: usize,
    /// How long the oldest of these has been held.
    pub oldest: Duration,
}

/// All answers.
#[derive(Debug, Default)]
pub struct Answers {
    cells: HashMap<Arc<Key>, Cell>,
    sources: HashMap<Arc<str>, (Terms, BTreeSet<Arc<Key>>)>,
    due: BTreeSet<(Instant, Arc<Key>)>,
}

/// A source's wish for fresh answers is not granted more often than this.
const REFRESH: Duration = Duration::from_secs(5);
/// The same for solvers that are known to answer otherwise, and cost nothing to ask.
const CHANGED: Duration = Duration::from_secs(1);
/// The answer of a solver that needs not be asked.
pub fn known(key: &Key) -> Option<Outcome> {
    let (addresses, reason) = match &key.solver {
        Shared::Static(addresses) => (addresses.clone(), format!("no {} address is listed", key.family)),
        Shared::DnsHostname(Host::Literal(ip)) => (vec![*ip], format!("the host is not an {} address", key.family)),
        Shared::DnsHostname(Host::Name(_)) | Shared::IpApi(_) | Shared::Interface(_) => return None,
    };
    let mut listed: Vec<IpAddr> = Vec::new();
    for ip in addresses {
        if Family::of(ip) == key.family && !listed.contains(&ip) {
            listed.push(ip);
        }
    }
    Some(if listed.is_empty() { Outcome::Empty(reason) } else { limited(listed) })
}

/// The numerically smallest 32 where there are more; those that may least be published go first.
pub fn limited(mut addresses: Vec<IpAddr>) -> Outcome {
    const MOST: usize = 32;
    let truncated = addresses.len() > MOST;
    if truncated {
        addresses.sort_unstable_by_key(|ip| (std::cmp::Reverse(class(*ip)), *ip));
        addresses.truncate(MOST);
        addresses.sort_unstable();
    }
    Outcome::Found { addresses, truncated }
}

impl Answers {
    /// From now on the source uses exactly these keys, on these terms. Returns whether these keys are others than before; then the
    /// source is to be planned again, since some may have their answer already.
    pub fn use_by(&mut self, source: &str, terms: &Terms, keys: BTreeSet<Key>, cluster: &Cluster, now: Instant) -> bool {
        let known = self.sources.get_key_value(source).map(|(name, _)| name.clone());
        let source = known.unwrap_or_else(|| Arc::from(source));
        let mut used = BTreeSet::new();
        for key in keys {
            let key = self.cells.get_key_value(&key).map_or_else(|| Arc::new(key), |(key, _)| key.clone());
            let cell = self.cells.entry(key.clone()).or_insert_with(|| Cell::new(&key, now));
            let last_good = cell.users.entry(source.clone()).or_default();
            if let Some(good) = accepted(cell.outcome.as_ref(), cell.good.as_ref(), &key, terms, cluster) {
                *last_good = Some(good);
            }
            let answered = matches!(cell.outcome, Some(Outcome::Found { .. } | Outcome::Empty(_)));
            let paced = terms.refresh_interval.filter(|_| answered).map(|pace| cell.ended + pace.max(floor(&key.solver)));
            let first = (cell.outcome.is_none() && !cell.in_flight && cell.due.is_none()).then_some(now);
            let sooner = paced.filter(|paced| cell.due.is_some_and(|due| due > *paced));
            if let Some(due) = first.or(sooner) {
                self.reschedule(&key, Some(due));
            }
            used.insert(key);
        }
        let before =
            self.sources.insert(source.clone(), (terms.clone(), used.clone())).map_or_else(BTreeSet::new, |(_, keys)| keys);
        for key in before.difference(&used) {
            self.leave(&source, key);
        }
        before != used
    }

    /// The source is gone.
    pub fn forget(&mut self, source: &str) {
        if let Some((name, (_, keys))) = self.sources.remove_entry(source) {
            for key in &keys {
                self.leave(&name, key);
            }
        }
    }

    fn leave(&mut self, source: &str, key: &Arc<Key>) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        cell.users.remove(source);
        // One with a back-off or a valid answer stays until it would be asked again, so that who comes back soon asks nobody.
        if cell.users.is_empty() && cell.due.is_none() && !cell.in_flight {
            self.cells.remove(key);
        }
    }

    fn reschedule(&mut self, key: &Arc<Key>, due: Option<Instant>) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        if let Some(old) = cell.due.take() {
            self.due.remove(&(old, key.clone()));
        }
        cell.due = due;
        self.due.extend(due.map(|due| (due, key.clone())));
    }

    /// When something has to be asked next.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The key that is due longest and in use; it must be begun before this is asked again. Forgets those that nobody uses any more.
    pub fn due(&mut self, now: Instant) -> Option<Arc<Key>> {
        loop {
            let (due, key) = self.due.first()?.clone();
            if due > now {
                return None;
            }
            if self.cells.get(&key).is_some_and(|cell| !cell.users.is_empty()) {
                return Some(key);
            }
            self.reschedule(&key, None);
            self.cells.remove(&key);
        }
    }

    /// A run for the key begins.
    pub fn begin(&mut self, key: &Arc<Key>, now: Instant) {
        self.reschedule(key, None);
        if let Some(cell) = self.cells.get_mut(key) {
            cell.begun = Some(now);
            cell.in_flight = true;
        }
    }

    /// A run for the key ended. `jitter` is a random number from 0 to 1. Returns whom that concerns.
    pub fn finish(&mut self, key: &Arc<Key>, ran: Ran, cluster: &Cluster, now: Instant, jitter: f64) -> Vec<Change> {
        let Some(cell) = self.cells.get(key) else { return Vec::new() };
        let users: Vec<Arc<str>> = cell.users.keys().cloned().collect();
        let before: Vec<_> =
            users.iter().map(|source| (self.read(source, key, cluster, now), self.raw(source, key, now))).collect();
        let Some(cell) = self.cells.get_mut(key) else { return Vec::new() };
        let intervals = cell.users.keys().filter_map(|source| self.sources.get(source)?.0.refresh_interval);
        let pace = intervals.min().map(|interval| interval.max(floor(&key.solver)));
        let due = cell.end(ran, pace, now, jitter);
        for (source, user) in &mut cell.users {
            let Some((terms, _)) = self.sources.get(source) else { continue };
            if let Some(good) = accepted(cell.outcome.as_ref(), cell.good.as_ref(), key, terms, cluster) {
                *user = Some(good);
            }
        }
        self.reschedule(key, due);
        if users.is_empty() && due.is_none() {
            self.cells.remove(key);
        }
        let changes = users.into_iter().zip(before).filter_map(|(source, (filtered, raw))| {
            let after = self.read(&source, key, cluster, now);
            let services = essence(&filtered) != essence(&after) || essence(&raw) != essence(&self.raw(&source, key, now));
            let status = shown(&filtered) != shown(&after);
            (services || status).then_some(Change { source, services })
        });
        changes.collect()
    }

    /// The source wants fresh answers now.
    pub fn refresh(&mut self, source: &str, now: Instant) {
        let Some((_, keys)) = self.sources.get(source) else { return };
        for key in keys.clone() {
            self.hasten(&key, now, REFRESH);
        }
    }

    /// Solvers of this kind may answer otherwise now.
    pub fn refresh_all(&mut self, which: impl Fn(&Key) -> bool, now: Instant) {
        let keys: Vec<_> = self.cells.keys().filter(|key| which(key)).cloned().collect();
        for key in keys {
            self.hasten(&key, now, CHANGED);
        }
    }

    /// The key is asked soon, but not sooner than `pause` after it was asked last. A run under way may have missed the cause.
    fn hasten(&mut self, key: &Arc<Key>, now: Instant, pause: Duration) {
        let Some(cell) = self.cells.get_mut(key) else { return };
        let limited = matches!(&cell.outcome, Some(Outcome::Failed(Failure { kind: FailureKind::RateLimited, .. })));
        let soonest = cell.begun.map_or(now, |begun| now.max(begun + pause));
        if cell.in_flight {
            cell.again = Some(soonest);
        } else if !limited && cell.due.is_some_and(|due| due > soonest) {
            self.reschedule(key, Some(soonest));
        }
    }

    /// What the key's answers come to for the source's Services.
    pub fn read(&self, source: &str, key: &Key, cluster: &Cluster, now: Instant) -> Reading {
        self.read_with(source, key, cluster, None, now)
    }

    /// The same for a Service whose record ascribes addresses to this solver; they stand in for an answer that this process has not
    /// seen, confirmed when it began to lead.
    pub fn read_with(&self, source: &str, key: &Key, cluster: &Cluster, recorded: Option<Recorded<'_>>, now: Instant) -> Reading {
        let (Some(cell), Some((terms, _))) = (self.cells.get(key), self.sources.get(source)) else {
            return unasked(recorded, now);
        };
        let private = private_by_default(&key.solver);
        let sort = |addresses: &[IpAddr]| terms.filter.sort(addresses, private, cluster);
        let good = cell.users.get(source).and_then(Option::as_ref);
        let good = good.map(|good| Good { addresses: sort(&good.addresses).addresses, until: good.until });
        let recorded = recorded.map(|recorded| Good { addresses: sort(recorded.addresses).addresses, until: recorded.began });
        let found = match &cell.outcome {
            Some(Outcome::Found { addresses, .. }) => sort(addresses),
            _ => Accepted::default(),
        };
        cell.reading(found, good.or(recorded), terms.max_staleness, now)
    }

    /// What the key's answers come to before any is refused, for a part of a merge.
    pub fn raw(&self, source: &str, key: &Key, now: Instant) -> Reading {
        let (Some(cell), Some((terms, _))) = (self.cells.get(key), self.sources.get(source)) else { return unasked(None, now) };
        let found = match &cell.outcome {
            Some(Outcome::Found { addresses, .. }) => Accepted { addresses: addresses.clone(), refused: Vec::new() },
            _ => Accepted::default(),
        };
        cell.reading(found, cell.good.clone(), terms.max_staleness, now)
    }

    /// Whether the source uses the key.
    pub fn is_used(&self, source: &str, key: &Key) -> bool {
        self.cells.get(key).is_some_and(|cell| cell.users.contains_key(source))
    }

    /// The numbers, by kind of solver.
    pub fn tally(&self, now: Instant) -> BTreeMap<&'static str, Tally> {
        let mut tallies: BTreeMap<_, Tally> = BTreeMap::new();
        for (key, cell) in self.cells.iter().filter(|(_, cell)| !cell.users.is_empty()) {
            let tally = tallies.entry(key.solver.type_name()).or_default();
            tally.answers += usize::from(cell.outcome.is_some());
            if let (Some(good), Some(Outcome::Failed(_) | Outcome::Empty(_))) = (&cell.good, &cell.outcome) {
                tally.held += 1;
                tally.oldest = tally.oldest.max(now.saturating_duration_since(good.until));
            }
        }
        tallies
    }
}

/// Addresses that a Service's record ascribes to a solver.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// The addresses.
    pub addresses: &'a [IpAddr],
    /// When this process began to lead.
    pub began: Instant,
}

/// The answer of a solver that nobody has asked for the source yet.
fn unasked(recorded: Option<Recorded<'_>>, now: Instant) -> Reading {
    let effective = match recorded {
        Some(recorded) if !recorded.addresses.is_empty() => Effective::Held(recorded.addresses.to_vec(), Why::Unasked),
        _ => Effective::Pending { since: now },
    };
    Reading { effective, until: None, refused: Vec::new(), truncated: false }
}

/// The part of a good last answer that a source accepts, if there is one.
fn accepted(outcome: Option<&Outcome>, raw: Option<&Good>, key: &Key, terms: &Terms, cluster: &Cluster) -> Option<Good> {
    let (Some(Outcome::Found { addresses, .. }), Some(raw)) = (outcome, raw) else { return None };
    let addresses = terms.filter.sort(addresses, private_by_default(&key.solver), cluster).addresses;
    (!addresses.is_empty()).then_some(Good { addresses, until: raw.until })
}

/// What a Service's plan depends on.
fn essence(reading: &Reading) -> (u8, &[IpAddr]) {
    match &reading.effective {
        Effective::Fresh(addresses) | Effective::Held(addresses, _) => (0, addresses),
        Effective::Pending { .. } => (1, &[]),
        Effective::Empty { confirmed, .. } => (2 + u8::from(*confirmed), &[]),
        Effective::Failed { .. } => (4, &[]),
    }
}

/// What a source's status shows besides the addresses.
#[derive(PartialEq)]
struct Shown<'a> {
    failure: Option<&'a Failure>,
    why: Option<std::mem::Discriminant<Why>>,
    refused: &'a [(IpAddr, Refusal)],
    truncated: bool,
}

fn shown(reading: &Reading) -> Shown<'_> {
    let (failure, why) = match &reading.effective {
        Effective::Held(_, why @ Why::Failing(failure)) => (Some(failure), Some(std::mem::discriminant(why))),
        Effective::Held(_, why @ (Why::Doubtful | Why::Unasked)) => (None, Some(std::mem::discriminant(why))),
        Effective::Failed { failure, .. } => (Some(failure), None),
        Effective::Fresh(_) | Effective::Pending { .. } | Effective::Empty { .. } => (None, None),
    };
    Shown { failure, why, refused: &reading.refused, truncated: reading.truncated }
}

/// Whether a solver may give private addresses where nobody says anything.
fn private_by_default(solver: &Shared) -> bool {
    matches!(solver, Shared::Static(_))
}

/// The shortest pace at which a solver is asked because a source wants it.
fn floor(solver: &Shared) -> Duration {
    match solver {
        Shared::IpApi(_) => Source::SHORTEST_API_REFRESH,
        Shared::Static(_) | Shared::DnsHostname(_) | Shared::Interface(_) => Source::SHORTEST_REFRESH,
    }
}
