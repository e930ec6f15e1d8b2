//! What this process remembers of a Service between passes. It may be lost at any time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use api::externalip::Output;
use api::externalip::reasons::ExternalIpEvent;

use super::Entry;
use crate::externalip::facts::{Memory, ServiceFacts, Trouble};
use crate::externalip::plan::{Standing, Step};
use crate::kit::writes::Backoff;

/// A write of ours that the watch does not show within this time is waited for no longer.
const PATIENCE: Duration = Duration::from_secs(3);
/// As many times within [`FIGHT`] the entries that somebody took away are put back at once.
const ROUNDS: usize = 5;
/// See [`ROUNDS`].
const FIGHT: Duration = Duration::from_secs(600);
/// The first pause after that; it is doubled each time.
const FIRST_TRUCE: Duration = Duration::from_secs(30);
/// The longest of these pauses.
const LAST_TRUCE: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Default)]
pub struct Motion {
    /// Outputs that could not be written, and why.
    pub troubles: BTreeMap<Output, Trouble>,
    /// The last note of each reason.
    pub told: BTreeMap<ExternalIpEvent, String>,
    /// Since when it is known that the Service of a claim does not exist.
    pub service_missing: Option<Instant>,
    /// How it fares.
    pub standing: Option<Standing>,
    /// Its addresses changed at this time, and are not written yet.
    pub changed: Option<Instant>,
    /// Services that have an address and port which this one wants.
    pub waits_on: BTreeSet<crate::externalip::facts::ServiceKey>,
    /// Failed writes in a row.
    pub backoff: Backoff,
    /// What a dry run said last.
    pub shown: Vec<Step>,
    awaited: Vec<(Awaited, Instant)>,
    /// Versions of the Service that were delivered while its steps were carried out.
    delivered: Vec<String>,
    restored: VecDeque<Instant>,
    truces: u32,
}

/// A change that our view does not show yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// The Service in the version that an answer named.
    Written(String),
    /// The Service in another version than this, which is old.
    Other(String),
    /// A claim in another version than this; `None` if there was none.
    Claim(String, Option<String>),
}

impl Motion {
    /// Nothing that is known of a Service counts for another one of its name.
    pub(super) fn of_another(self) -> Self {
        Self { waits_on: self.waits_on, ..Self::default() }
    }

    /// A pass begins.
    pub fn begin(&mut self) {
        self.delivered.clear();
    }

    /// The watch delivered a version of the Service.
    pub(super) fn deliver(&mut self, revision: &str) -> bool {
        self.delivered.push(revision.to_owned());
        let before = self.awaited.len();
        self.awaited.retain(|(awaited, _)| match awaited {
            Awaited::Written(written) => written != revision,
            Awaited::Other(old) => old == revision,
            Awaited::Claim(..) => true,
        });
        self.awaited.len() < before
    }

    /// The watch delivered a claim, in this version, or that it is gone.
    pub(super) fn deliver_claim(&mut self, name: &str, revision: Option<&str>) {
        self.awaited.retain(|(awaited, _)| match awaited {
            Awaited::Claim(claim, before) => claim != name || before.as_deref() == revision,
            Awaited::Written(_) | Awaited::Other(_) => true,
        });
    }

    /// A list names everything there is: nothing is awaited any more.
    pub(super) fn listed(&mut self) {
        self.awaited.clear();
    }

    /// Facts are old until this is in view.
    pub fn wait_for(&mut self, awaited: Awaited, service: Option<&ServiceFacts>, now: Instant) {
        let in_view = match &awaited {
            Awaited::Written(revision) => {
                // Only the last of our writes counts.
                self.awaited.retain(|(awaited, _)| !matches!(awaited, Awaited::Written(_)));
                self.delivered.contains(revision) || service.is_none_or(|service| service.revision == *revision)
            }
            Awaited::Other(revision) => service.is_none_or(|service| service.revision != *revision),
            Awaited::Claim(..) => false,
        };
        if !in_view {
            self.awaited.push((awaited, now));
        }
    }

    /// Whether something is awaited, and if so for how long at most.
    pub fn unseen(&mut self, now: Instant) -> Option<Duration> {
        self.awaited.retain(|(_, since)| now.saturating_duration_since(*since) < PATIENCE);
        let oldest = self.awaited.iter().map(|(_, since)| *since).min()?;
        Some(PATIENCE.saturating_sub(now.saturating_duration_since(oldest)))
    }

    /// Entries of ours that somebody took away were put back. If that happens too often, how long to leave it.
    pub fn restored(&mut self, now: Instant) -> Option<Duration> {
        self.restored.retain(|at| now.saturating_duration_since(*at) < FIGHT);
        if self.restored.is_empty() {
            self.truces = 0;
        }
        self.restored.push_back(now);
        (self.restored.len() > ROUNDS).then(|| {
            let truce = FIRST_TRUCE.saturating_mul(1 << self.truces.min(10)).min(LAST_TRUCE);
            self.truces = self.truces.saturating_add(1);
            truce
        })
    }
}

impl Entry {
    /// What a plan may know of it.
    pub fn memory(&mut self, began: Instant, source_missing: Option<Instant>, now: Instant) -> Memory {
        let own_write_unseen = self.motion.unseen(now).is_some();
        Memory {
            own_write_unseen,
            began,
            source_missing,
            service_missing: self.motion.service_missing,
            troubles: self.motion.troubles.clone(),
            told: self.motion.told.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_write_is_unseen_until_the_watch_delivers_it_or_time_is_up() {
        let (mut motion, now) = (Motion::default(), Instant::now());
        motion.wait_for(Awaited::Claim("web-ext4-6aa21bf7".to_owned(), None), None, now);
        assert_eq!(motion.unseen(now), Some(PATIENCE));
        motion.deliver_claim("web-ext4-6aa21bf7", Some("7"));
        assert_eq!(motion.unseen(now), None);
        motion.wait_for(Awaited::Claim("web-ext4-6aa21bf7".to_owned(), Some("7".to_owned())), None, now);
        motion.deliver_claim("web-ext4-6aa21bf7", Some("7"));
        assert_eq!(motion.unseen(now + Duration::from_secs(1)), Some(Duration::from_secs(2)));
        assert_eq!(motion.unseen(now + PATIENCE), None);
    }

    #[test]
    fn the_sixth_time_within_ten_minutes_there_is_a_truce_and_each_is_twice_as_long() {
        let (mut motion, start) = (Motion::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let truces: Vec<_> = (0..12).map(|round| motion.restored(at(round)).map(|truce| truce.as_secs())).collect();
        let expected = [None, None, None, None, None, Some(30), Some(60), Some(120), Some(240), Some(480), Some(600), Some(600)];
        assert_eq!(truces, expected);
        assert_eq!(motion.restored(at(700)), None);
    }
}
