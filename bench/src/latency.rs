//! Durations summed up as people read them: the middle, the worst hundredth, the worst.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Percentiles in milliseconds; all zero without any duration.
#[allow(clippy::struct_field_names, reason = "the unit belongs to the name, in JSON too")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half are not slower.
    pub p50_ms: f64,
    /// 99 of 100 are not slower.
    pub p99_ms: f64,
    /// None is slower.
    pub max_ms: f64,
}

impl Latency {
    /// Of durations in any order.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        let ms = |share| percentile(&sorted, share).map_or(0.0, |duration| duration.as_secs_f64() * 1000.0);
        Self { p50_ms: ms(50), p99_ms: ms(99), max_ms: ms(100) }
    }

    /// From each beginning to its end; what has not ended does not count.
    pub fn between(begins: &[Instant], ends: &[Option<Instant>]) -> Self {
        let pairs = begins.iter().zip(ends);
        Self::of(pairs.filter_map(|(begin, end)| end.map(|end| end.saturating_duration_since(*begin))))
    }

    /// `p50 / p99 / max` for a table cell.
    pub fn cells(&self) -> [String; 3] {
        [self.p50_ms, self.p99_ms, self.max_ms].map(|ms| if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") })
    }
}

/// The nearest rank: the smallest value that `percent` of all do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// `count` per second between two moments; 0 if no time has passed.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn rate(count: usize, begin: Instant, end: Instant) -> f64 {
    ratio(count as f64, end.saturating_duration_since(begin).as_secs_f64())
}

/// `part / whole`; 0 if there is no whole.
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    fn ms(values: impl IntoIterator<Item = u64>) -> Latency {
        Latency::of(values.into_iter().map(Duration::from_millis))
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        assert_eq!(ms(1..=100), Latency { p50_ms: 50.0, p99_ms: 99.0, max_ms: 100.0 });
        assert_eq!(ms([30, 10, 20]), Latency { p50_ms: 20.0, p99_ms: 30.0, max_ms: 30.0 });
        assert_eq!(ms(1..=1000), Latency { p50_ms: 500.0, p99_ms: 990.0, max_ms: 1000.0 });
    }

    #[test]
    fn one_value_is_every_percentile_and_none_is_zero() {
        assert_eq!(ms([7]), Latency { p50_ms: 7.0, p99_ms: 7.0, max_ms: 7.0 });
        assert_eq!(ms([]), Latency::default());
    }

    #[test]
    fn what_never_ended_has_no_latency() {
        let begin = Instant::now();
        let ends = [None, Some(begin + Duration::from_millis(4))];
        assert_eq!(Latency::between(&[begin, begin], &ends).max_ms, 4.0);
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        let now = Instant::now();
        assert_eq!(rate(5, now, now), 0.0);
        assert_eq!(rate(5, now, now + Duration::from_secs(2)), 2.5);
        assert_eq!(ratio(1.0, 0.0), 0.0);
    }
}
