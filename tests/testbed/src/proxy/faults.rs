//! What a proxy may do to requests, how it chooses, and the count of what it did.

use std::time::Duration;

use http::StatusCode;
use rand::Rng;
use rand::rngs::StdRng;

/// What a proxy does to the requests that pass it. Nothing by default.
///
/// Shares go from 0.0 (none) to 1.0 (all) of the requests that are no watches; together they are at most 1.0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Every piece of a watch arrives this much later, in order.
    pub watch_delay: Duration,
    /// Which watches that is about: those whose path contains this, so all of them if it is empty.
    pub delayed_watches: &'static str,
    /// Everything else is passed on this much later.
    pub delay: Duration,
    /// Answered with 429 and `Retry-After: 1`; the server never hears of them.
    pub throttled: f64,
    /// Answered with 500; the server never hears of them.
    pub broken: f64,
    /// Answered with 503; the server never hears of them.
    pub unavailable: f64,
    /// Passed on after [`Faults::hang`].
    pub hung: f64,
    /// How long requests hang.
    pub hang: Duration,
    /// Broken off before the server hears of them.
    pub lost_requests: f64,
    /// Broken off when the server has done what they ask for.
    pub lost_answers: f64,
}

/// What a proxy has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Requests passed on as they are, watches included.
    pub passed: u64,
    /// Pieces of watches that were delayed.
    pub delayed: u64,
    /// Answered with 429.
    pub throttled: u64,
    /// Answered with 500.
    pub broken: u64,
    /// Answered with 503.
    pub unavailable: u64,
    /// Requests that hung for a while.
    pub hung: u64,
    /// Requests that never reached the server.
    pub lost_requests: u64,
    /// Answers that never reached the client.
    pub lost_answers: u64,
    /// Requests that were held.
    pub held: u64,
    /// Those of them whose client went away meanwhile; they are not passed on.
    pub abandoned: u64,
    /// How often connections or watches were cut.
    pub cuts: u64,
    /// Connections that were refused.
    pub refused: u64,
}

/// What becomes of one request that is no watch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Pass,
    Answer(StatusCode),
    Hang(Duration),
    LoseRequest,
    LoseAnswer,
}

impl Faults {
    /// Throws the dice for one request, and counts what they say.
    pub(super) fn fate(&self, dice: &mut StdRng, tally: &mut Tally) -> Fate {
        let mut rest: f64 = dice.random();
        let shares = [
            (self.throttled, Fate::Answer(StatusCode::TOO_MANY_REQUESTS), &mut tally.throttled),
            (self.broken, Fate::Answer(StatusCode::INTERNAL_SERVER_ERROR), &mut tally.broken),
            (self.unavailable, Fate::Answer(StatusCode::SERVICE_UNAVAILABLE), &mut tally.unavailable),
            (self.hung, Fate::Hang(self.hang), &mut tally.hung),
            (self.lost_requests, Fate::LoseRequest, &mut tally.lost_requests),
            (self.lost_answers, Fate::LoseAnswer, &mut tally.lost_answers),
        ];
        for (share, fate, count) in shares {
            if rest < share {
                *count += 1;
                return fate;
            }
            rest -= share;
        }
        tally.passed += 1;
        Fate::Pass
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn shares_are_met_and_counted_and_the_same_seed_says_the_same() {
        let faults = Faults { throttled: 0.2, broken: 0.1, lost_answers: 0.3, ..Faults::default() };
        let throw = |seed| {
            let (mut dice, mut tally) = (StdRng::seed_from_u64(seed), Tally::default());
            let fates: Vec<_> = (0..10_000).map(|_| faults.fate(&mut dice, &mut tally)).collect();
            (fates, tally)
        };
        let (fates, tally) = throw(7);
        assert_eq!(throw(7), (fates.clone(), tally));
        assert_ne!(throw(8).0, fates);
        for (count, expected) in
            [(tally.throttled, 2000_u64), (tally.broken, 1000), (tally.lost_answers, 3000), (tally.passed, 4000)]
        {
            assert!(count.abs_diff(expected) < 300, "{tally:?}");
        }
        let quiet = Tally { throttled: 0, broken: 0, lost_answers: 0, passed: 0, ..tally };
        assert_eq!(quiet, Tally::default());
    }

    #[test]
    fn without_faults_everything_passes() {
        let (mut dice, mut tally) = (StdRng::seed_from_u64(1), Tally::default());
        assert!((0..100).all(|_| Faults::default().fate(&mut dice, &mut tally) == Fate::Pass));
        assert_eq!(tally, Tally { passed: 100, ..Tally::default() });
    }
}
