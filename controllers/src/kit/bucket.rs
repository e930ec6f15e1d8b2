//! A token bucket: the client's own rate limit and the limit on events use it. Pure; time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// Holds at most `capacity` tokens and gains `per_second` of them a second.
#[derive(Debug)]
pub(crate) struct Bucket {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(capacity: f64, per_second: f64, now: Instant) -> Self {
        Self { capacity, per_second, tokens: capacity, at: now }
    }

    /// Takes a token if there is one.
    pub(crate) fn try_take(&mut self, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes a token, on credit if need be, and says how long to wait until it is there.
    pub(crate) fn reserve(&mut self, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= 1.0;
        Duration::from_secs_f64((-self.tokens / self.per_second).max(0.0))
    }

    fn fill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.capacity);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_the_steady_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(50.0, 5.0, start);
        assert_eq!((0..60).filter(|_| bucket.try_take(start)).count(), 50);
        let later = start + Duration::from_secs(2);
        assert_eq!((0..60).filter(|_| bucket.try_take(later)).count(), 10);
    }

    #[test]
    fn reservations_line_up_behind_each_other() {
        let start = Instant::now();
        let mut bucket = Bucket::new(1.0, 10.0, start);
        let waits: Vec<_> = (0..3).map(|_| bucket.reserve(start).as_millis()).collect();
        assert_eq!(waits, [0, 100, 200]);
    }
}
