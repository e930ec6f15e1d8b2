//! Who is not to be asked for a while: the services that answered 429. Kept by `ip_api`.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::externalip::answers::Key;

/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(7200);

/// The pauses by what is asked.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<Key, Pause>>);

#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Where the next one starts from.
    length: Duration,
    until: Instant,
}

impl Pauses {
    /// How much of a pause is left.
    pub(super) fn left(&self, key: &Key, now: Instant) -> Option<Duration> {
        let left = self.lock().get(key)?.until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Begins a pause, and says how long it is: `first`, or twice the last one, or what the service wants if that is longer.
    pub(super) fn begin(&self, key: &Key, first: Duration, wanted: Option<Duration>, now: Instant) -> Duration {
        let mut pauses = self.lock();
        // What nobody has asked for that long is not used any more.
        pauses.retain(|_, pause| now < pause.until + LONGEST);
        let length = pauses.get(key).map_or(first, |last| last.length * 2).min(LONGEST);
        let pause = length.max(wanted.unwrap_or_default()).min(LONGEST);
        pauses.insert(key.clone(), Pause { length, until: now + pause });
        pause
    }

    /// The service answers again.
    pub(super) fn end(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Pause>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use api::externalip::{Api, Shared};
    use poolutil::Family;

    use super::*;

    const BASE: Duration = Duration::from_secs(900);

    fn key(family: Family) -> Key {
        Key { family, solver: Shared::IpApi(Api::MyIp) }
    }

    #[test]
    fn each_further_429_doubles_the_pause_to_two_hours_and_an_answer_forgets_it() {
        let (pauses, key, mut now) = (Pauses::default(), key(Family::V4), Instant::now());
        for expected in [900, 1800, 3600, 7200, 7200] {
            assert_eq!(pauses.left(&key, now), None);
            assert_eq!(pauses.begin(&key, BASE, None, now).as_secs(), expected);
            assert_eq!(pauses.left(&key, now).unwrap().as_secs(), expected);
            now += Duration::from_secs(expected);
        }
        pauses.end(&key);
        assert_eq!(pauses.begin(&key, BASE, None, now), BASE);
    }

    #[test]
    fn the_services_own_wish_counts_if_it_is_longer_up_to_two_hours() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        for (wanted, expected) in [(10, 900), (1000, 1000), (86_400, 7200)] {
            let pause = pauses.begin(&key(Family::V4), BASE, Some(Duration::from_secs(wanted)), now);
            assert_eq!(pause.as_secs(), expected);
            pauses.end(&key(Family::V4));
        }
        pauses.begin(&key(Family::V4), BASE, Some(Duration::from_secs(7200)), now);
        assert_eq!(pauses.begin(&key(Family::V4), BASE, None, now).as_secs(), 1800);
    }

    #[test]
    fn the_other_family_and_what_was_long_ago_do_not_count() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        pauses.begin(&key(Family::V4), BASE, None, now);
        assert_eq!(pauses.left(&key(Family::V6), now), None);
        let later = now + BASE + LONGEST;
        assert_eq!(pauses.begin(&key(Family::V6), BASE, None, later), BASE);
        assert_eq!(pauses.lock().len(), 1);
    }
}
