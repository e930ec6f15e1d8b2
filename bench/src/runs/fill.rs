//! `fill`: creates claims as fast as the server takes them and waits until all are bound.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use testbed::Manager;

use crate::ceiling::Ceiling;
use crate::counters::Requests;
use crate::latency::{Latency, rate, ratio};
use crate::load::Batch;
use crate::progress::bar;
use crate::report::{Row, per_second};
use crate::stage::Stage;

/// Points of the curves.
const SLICES: usize = 20;

/// What a fill has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Fill {
    /// Claims created.
    pub size: usize,
    /// Over so many pools.
    pub pools: usize,
    /// Claims bound; fewer than `size` if nothing happened any more.
    pub bound: usize,
    /// From the first request to the last reference seen.
    pub binds_per_second: f64,
    /// From a claim's creation being sent to its reference being seen.
    pub latency: Latency,
    /// The part of the two-write ceiling; the claims' creation, which shares the server, is not in it.
    pub of_two_writes: f64,
    /// The part of the ceiling of the writes that a bind takes here and of the claims' creation.
    pub of_all_writes: f64,
    /// The manager's writes to pools, claims and addresses, per bind.
    pub writes_per_bind: f64,
    /// The same by kind.
    pub writes: BTreeMap<String, f64>,
    /// Events, per bind.
    pub events_per_bind: f64,
    /// The manager's processor time, for 1000 binds.
    pub cpu_seconds_per_1000: f64,
    /// The same over the number of addresses held.
    pub curve: Vec<Point>,
}

/// The figures while the number of held addresses grew to `held`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// Addresses held at the end.
    pub held: usize,
    /// Binds since the point before.
    pub binds_per_second: f64,
    /// Of these binds.
    pub p99_ms: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
}

impl Row for Fill {
    const TITLE: &'static str = "fill: claims created as fast as the server takes them";
    const COLUMNS: &'static [&'static str] = &[
        "size",
        "pools",
        "bound",
        "binds/s",
        "of 2 writes",
        "of create + own",
        "p50 ms",
        "p99 ms",
        "max ms",
        "writes/bind",
        "events/bind",
        "CPU s/1000",
    ];

    fn cells(&self) -> Vec<String> {
        let [p50, p99, max] = self.latency.cells();
        vec![
            self.size.to_string(),
            self.pools.to_string(),
            self.bound.to_string(),
            per_second(self.binds_per_second),
            format!("{:.2}", self.of_two_writes),
            format!("{:.2}", self.of_all_writes),
            p50,
            p99,
            max,
            format!("{:.2}", self.writes_per_bind),
            format!("{:.2}", self.events_per_bind),
            format!("{:.2}", self.cpu_seconds_per_1000),
        ]
    }
}

/// What the load generator has seen of a fill.
pub struct Filled {
    /// When each claim's creation was sent.
    pub created: Vec<Instant>,
    /// When each claim's reference was seen.
    pub bound: Vec<Option<Instant>>,
    /// The manager's memory after each slice.
    pub rss: Vec<u64>,
}

/// Creates the claims and waits for them; `rss` is asked after each slice.
pub async fn fill(stage: &mut Stage, batch: &Batch, rss: impl Fn() -> u64) -> Result<Filled> {
    let bar = bar(&format!("fill {} claims, {} pools", batch.count, batch.pools), batch.count);
    let mut samples = Vec::new();
    let seen = |count| {
        bar.set_position(count as u64);
        if ends(batch.count).contains(&count) {
            samples.push(rss());
        }
    };
    let hidden = indicatif::ProgressBar::hidden();
    let (created, bound) =
        tokio::try_join!(stage.load.create(batch, &hidden), stage.claims.until(batch, crate::watch::What::Bound, seen))?;
    bar.finish_and_clear();
    Ok(Filled { created, bound, rss: samples })
}

/// Fills, and compares with the ceiling.
pub async fn measure(stage: &mut Stage, manager: &Manager, batch: &Batch, ceiling: &Ceiling) -> Result<Fill> {
    let (before, cpu) = (stage.requests().await?, manager.cpu_time()?);
    let filled = fill(stage, batch, || manager.rss_bytes().unwrap_or_default()).await?;
    let cpu = manager.cpu_time()?.saturating_sub(cpu);
    // What a bind causes comes a little later: events, the pool's numbers.
    stage.settle().await?;
    let requests = stage.requests().await?.since(&before);
    Ok(figures(batch, &filled, ceiling, &requests, cpu.as_secs_f64()))
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn figures(batch: &Batch, filled: &Filled, ceiling: &Ceiling, requests: &Requests, cpu_seconds: f64) -> Fill {
    let bound = filled.bound.iter().flatten().count();
    let binds = bound as f64;
    let binds_per_second = match (filled.created.iter().min(), filled.bound.iter().flatten().max()) {
        (Some(begin), Some(end)) => rate(bound, *begin, *end),
        _ => 0.0,
    };
    let writes = requests.writes_per(bound);
    Fill {
        size: batch.count,
        pools: batch.pools,
        bound,
        binds_per_second,
        latency: Latency::between(&filled.created, &filled.bound),
        of_two_writes: ratio(binds_per_second, ceiling.two_writes_per_second),
        of_all_writes: ratio(binds_per_second, ceiling.with_creation(ceiling.of_own(&writes))),
        writes_per_bind: writes.values().sum(),
        writes,
        events_per_bind: ratio(requests.events() as f64, binds),
        cpu_seconds_per_1000: ratio(cpu_seconds * 1000.0, binds),
        curve: curve(filled),
    }
}

/// The counts of held addresses at which a slice ends.
fn ends(count: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = (1..=SLICES).map(|slice| count * slice / SLICES).filter(|end| *end > 0).collect();
    ends.dedup();
    ends
}

fn curve(filled: &Filled) -> Vec<Point> {
    let mut binds: Vec<(Instant, Instant)> =
        filled.created.iter().zip(&filled.bound).filter_map(|(begin, end)| Some(((*end)?, *begin))).collect();
    binds.sort_unstable();
    let mut begin = filled.created.iter().min().copied();
    let mut from = 0;
    let mut points = Vec::new();
    for (held, rss_bytes) in ends(filled.created.len()).into_iter().zip(&filled.rss) {
        let slice = &binds[from..held.min(binds.len())];
        if let (Some(start), Some((end, _))) = (begin, slice.last()) {
            let latency = Latency::of(slice.iter().map(|(end, begin)| end.saturating_duration_since(*begin)));
            let binds_per_second = rate(slice.len(), start, *end);
            points.push(Point { held, binds_per_second, p99_ms: latency.p99_ms, rss_bytes: *rss_bytes });
            begin = Some(*end);
        }
        from = held;
    }
    points
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn slices_end_with_the_last_claim() {
        assert_eq!(ends(40).len(), SLICES);
        assert_eq!(ends(1000).last(), Some(&1000));
        assert_eq!(ends(3), [1, 2, 3]);
    }

    #[test]
    fn a_curve_follows_the_order_of_the_binds() {
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        // Created together; the second bound first, the third never.
        let filled = Filled { created: vec![begin; 3], bound: vec![Some(after(500)), Some(after(100)), None], rss: vec![10, 20] };
        let points: Vec<_> =
            curve(&filled).into_iter().map(|p| (p.held, p.binds_per_second.round(), p.p99_ms, p.rss_bytes)).collect();
        assert_eq!(points, [(1, 10.0, 100.0, 10), (2, 3.0, 500.0, 20)]);
    }

    #[test]
    fn a_fill_is_compared_with_the_writes_it_made() {
        let begin = Instant::now();
        let end = Some(begin + Duration::from_secs(1));
        let filled = Filled { created: vec![begin; 100], bound: vec![end; 100], rss: Vec::new() };
        let ceiling = Ceiling {
            size: 100,
            pools: 1,
            creates_per_second: 400.0,
            two_writes_per_second: 400.0,
            three_writes_per_second: 200.0,
            round_trip: Latency::default(),
        };
        let fill = figures(&Batch::new("fill", 100, 1), &filled, &ceiling, &Requests::default(), 0.5);
        assert_eq!((fill.binds_per_second, fill.of_two_writes, fill.of_all_writes), (100.0, 0.25, 0.5));
        assert_eq!((fill.bound, fill.cpu_seconds_per_1000), (100, 5.0));
    }
}
