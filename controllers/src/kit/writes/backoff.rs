//! How long to leave an object alone after a write that failed for no fault of its own.

use std::time::Duration;

use super::RetryClass;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(30);
/// Conflicts and lost races in a row that are retried at once.
const AT_ONCE: u32 = 5;

/// The failures of one object in a row. Start over with [`Backoff::default`] after a success.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backoff {
    now: u32,
    later: u32,
}

impl Backoff {
    /// Counts a failure and says how long to wait: full jitter between 0 and a limit that doubles
    /// from 50 ms to 30 s. `random` is from 0 to 1. `None` means that waiting alone does not help.
    pub fn after(&mut self, class: RetryClass, random: f64) -> Option<Duration> {
        match class {
            RetryClass::Now if self.now < AT_ONCE => {
                self.now += 1;
                Some(Duration::ZERO)
            }
            RetryClass::Now | RetryClass::Later => {
                let limit = FIRST.saturating_mul(1 << self.later.min(16)).min(LONGEST);
                self.later += 1;
                Some(limit.mul_f64(random.clamp(0.0, 1.0)))
            }
            RetryClass::Wait | RetryClass::Tell => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_doubles_from_50_ms_to_30_s() {
        let mut backoff = Backoff::default();
        let limits: Vec<_> = (0..12).map(|_| backoff.after(RetryClass::Later, 1.0).unwrap().as_millis()).collect();
        let expected = [50, 100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
        assert_eq!(limits, expected);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(RetryClass::Later, 0.0), Some(Duration::ZERO));
        assert_eq!(backoff.after(RetryClass::Later, 0.5), Some(Duration::from_millis(50)));
    }

    #[test]
    fn five_conflicts_are_retried_at_once_then_backed_off() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            assert_eq!(backoff.after(RetryClass::Now, 1.0), Some(Duration::ZERO));
        }
        assert_eq!(backoff.after(RetryClass::Now, 1.0), Some(FIRST));
    }

    #[test]
    fn what_needs_somebody_else_is_not_timed() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(RetryClass::Wait, 1.0), None);
        assert_eq!(backoff.after(RetryClass::Tell, 1.0), None);
        assert_eq!(backoff, Backoff::default());
    }
}
