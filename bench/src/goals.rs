//! What the project wants of itself, beside what was measured. Nothing fails here: a figure is told, met or not.

use serde::Serialize;

use crate::latency::ratio;
use crate::report::{Report, Row, yes};

/// One wish and its figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Goal {
    /// What is looked at.
    pub what: &'static str,
    /// What it should be.
    pub wanted: &'static str,
    /// What it is, the worst of all rounds.
    pub measured: String,
    /// Whether that is enough.
    pub met: bool,
}

impl Row for Goal {
    const TITLE: &'static str = "goals, and the worst figure above";
    const COLUMNS: &'static [&'static str] = &["goal", "wanted", "measured", "met"];

    fn cells(&self) -> Vec<String> {
        vec![self.what.to_owned(), self.wanted.to_owned(), self.measured.clone(), yes(self.met)]
    }
}

/// Every goal for which there is a figure.
pub fn goals(report: &Report) -> Vec<Goal> {
    // Behind Cluster API's webhooks these say nothing about manager or server.
    let unlimited = report.capi_limit.is_none();
    let against_server = [
        least(report.fill.iter().map(|fill| fill.of_two_writes))
            .map(|part| goal("fill, part of the raw ceiling of 2 writes", ">= 0.9", part, 2, part >= 0.9)),
        least(report.fill.iter().map(|fill| fill.of_all_writes)).map(|part| {
            goal("fill, part of the ceiling of the claims' creation and its own writes", ">= 0.9", part, 2, part >= 0.9)
        }),
        least(report.backlog.iter().map(|backlog| backlog.of_own_writes))
            .map(|part| goal("backlog, part of the raw ceiling of its own writes", ">= 0.9", part, 2, part >= 0.9)),
        flat(report).map(|part| goal("fill, largest size to smallest", ">= 0.9", part, 2, part >= 0.9)),
        round_trips(report).map(|trips| goal("bind at low load, p50 in round trips", "<= 3", trips, 1, trips <= 3.0)),
        most(report.paced.iter().map(|paced| paced.latency.p99_ms))
            .map(|ms| goal("bind at 0.8 of the ceiling, p99 in ms", "< 250", ms, 0, ms < 250.0)),
        most(report.waiters.iter().map(|waiters| waiters.latency.p99_ms))
            .map(|ms| goal("a waiter woken, p99 in ms", "< 100", ms, 0, ms < 100.0)),
    ];
    let always = [
        least(report.limited.iter().filter_map(|limited| limited.of_limit))
            .map(|part| goal("fill, part of what Cluster API's webhooks let through", ">= 0.9", part, 2, part >= 0.9)),
        most(report.memory.iter().filter(|memory| memory.held == 0).map(|memory| megabytes(memory.rss_bytes)))
            .map(|mb| goal("resident memory of an idle manager, MB", "< 25", mb, 1, mb < 25.0)),
        per_record(report)
            .map(|bytes| goal("an address or claim record, bytes, as the manager counts", "<= 200", bytes, 0, bytes <= 200.0)),
        per_bind(report)
            .map(|bytes| goal("resident memory per bound claim with its address, bytes", "<= 400", bytes, 0, bytes <= 400.0)),
        loaded(report).map(|seconds| {
            goal("ready beside the largest number of loaded addresses, seconds", "< 10", seconds, 1, seconds < 10.0)
        }),
        most(report.memory.iter().map(|memory| count(memory.requests)))
            .map(|requests| goal("requests in 5 s when settled, watches aside", "0", requests, 0, requests < 1.0)),
        million(report).map(|ns| goal("ledger at 10^6 held, ns for reserve or release", "< 1000", ns, 0, ns < 1000.0)),
        most(report.two.iter().map(|two| size(two.duplicates + two.lost)))
            .map(|bad| goal("two active managers, duplicates and lost claims", "0", bad, 0, bad < 1.0)),
    ];
    against_server.into_iter().filter(|_| unlimited).chain(always).flatten().collect()
}

fn goal(what: &'static str, wanted: &'static str, figure: f64, digits: usize, met: bool) -> Goal {
    Goal { what, wanted, measured: format!("{figure:.digits$}"), met }
}

fn least(figures: impl Iterator<Item = f64>) -> Option<f64> {
    figures.reduce(f64::min)
}

fn most(figures: impl Iterator<Item = f64>) -> Option<f64> {
    figures.reduce(f64::max)
}

/// The rate at the largest size over that at the smallest, for the number of pools where it is worst.
fn flat(report: &Report) -> Option<f64> {
    let of_pools = |pools: usize| {
        let fills = || report.fill.iter().filter(move |fill| fill.pools == pools);
        let (small, large) = (fills().min_by_key(|fill| fill.size)?, fills().max_by_key(|fill| fill.size)?);
        (small.size < large.size).then(|| ratio(large.binds_per_second, small.binds_per_second))
    };
    least(report.fill.iter().filter_map(|fill| of_pools(fill.pools)))
}

fn round_trips(report: &Report) -> Option<f64> {
    most(report.steady.iter().filter_map(|steady| {
        let same = |ceiling: &&crate::ceiling::Ceiling| (ceiling.size, ceiling.pools) == (steady.size, steady.pools);
        let trip = report.ceiling.iter().find(same)?.round_trip.p50_ms;
        Some(ratio(steady.bind.p50_ms, trip))
    }))
}

fn per_record(report: &Report) -> Option<f64> {
    let memory = report.memory.iter().flat_map(|memory| [memory.bytes_per_address, memory.bytes_per_claim]);
    let loaded = report.loaded.iter().flat_map(|loaded| [loaded.bytes_per_address, loaded.bytes_per_claim]);
    most(memory.chain(loaded).flatten())
}

/// At the largest size only: buffers weigh more than records beside few claims.
fn per_bind(report: &Report) -> Option<f64> {
    let memory = report.memory.iter().map(|memory| (memory.held, memory.bytes_per_bind));
    let all = || memory.clone().chain(report.loaded.iter().map(|loaded| (loaded.size, loaded.bytes_per_bind)));
    let largest = all().map(|(held, _)| held).max().filter(|held| *held > 0)?;
    most(all().filter(|(held, _)| *held == largest).map(|(_, bytes)| bytes))
}

fn loaded(report: &Report) -> Option<f64> {
    report.loaded.iter().max_by_key(|loaded| loaded.size).map(|loaded| loaded.ready_seconds)
}

fn million(report: &Report) -> Option<f64> {
    let large = report.ledger.iter().filter(|ledger| ledger.held == 1_000_000);
    most(large.flat_map(|ledger| [ledger.reserve_ns, ledger.release_ns]))
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn count(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
fn size(size: usize) -> f64 {
    size as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ceiling::Ceiling;
    use crate::latency::Latency;
    use crate::runs::ledger::Ledger;
    use crate::runs::limited::Limited;
    use crate::runs::memory::Memory;
    use crate::runs::steady::Steady;

    fn latency(p50_ms: f64) -> Latency {
        Latency { p50_ms, ..Latency::default() }
    }

    fn steady(size: usize, p50_ms: f64) -> Steady {
        Steady { size, pools: 1, rounds: 9, bind: latency(p50_ms), release: latency(1.0), cpu_seconds_per_1000: 1.0 }
    }

    fn ceiling(size: usize, round_trip: f64) -> Ceiling {
        Ceiling {
            size,
            pools: 1,
            creates_per_second: 1.0,
            two_writes_per_second: 1.0,
            three_writes_per_second: 1.0,
            round_trip: latency(round_trip),
        }
    }

    fn memory(held: usize, rss_bytes: u64, requests: u64) -> Memory {
        Memory {
            pools: 1,
            held,
            settled_seconds: Some(0.0),
            rss_bytes,
            bytes_per_bind: 300.0,
            bytes_per_address: Some(150.0),
            bytes_per_claim: None,
            requests,
            cpu_seconds: 0.0,
        }
    }

    #[test]
    fn what_was_not_measured_is_no_goal() {
        assert_eq!(goals(&Report::default()), []);
    }

    #[test]
    fn a_round_is_compared_with_its_own_ceiling_and_the_worst_counts() {
        let report = Report {
            steady: vec![steady(1000, 6.0), steady(5000, 12.0)],
            ceiling: vec![ceiling(1000, 3.0), ceiling(5000, 3.0)],
            ..Report::default()
        };
        let expected =
            Goal { what: "bind at low load, p50 in round trips", wanted: "<= 3", measured: "4.0".to_owned(), met: false };
        assert_eq!(goals(&report), [expected]);
    }

    #[test]
    fn what_cluster_api_lets_through_takes_the_place_of_what_the_server_can_take() {
        let limited = |of_limit| Limited {
            size: 1000,
            pools: 1,
            limit: 100,
            binds_per_second: 95.0,
            of_limit,
            reads_per_bind: 1.0,
            creations_per_bind: 1.0,
            errors: None,
        };
        let report = Report {
            capi_limit: Some(100),
            limited: vec![limited(Some(0.95)), limited(Some(0.85)), limited(None)],
            steady: vec![steady(1000, 6.0)],
            ceiling: vec![ceiling(1000, 3.0)],
            ..Report::default()
        };
        let what = "fill, part of what Cluster API's webhooks let through";
        assert_eq!(goals(&report), [Goal { what, wanted: ">= 0.9", measured: "0.85".to_owned(), met: false }]);
    }

    #[test]
    fn only_an_empty_manager_is_idle() {
        let report = Report { memory: vec![memory(0, 20_000_000, 0), memory(1000, 40_000_000, 2)], ..Report::default() };
        let told: Vec<_> = goals(&report).into_iter().map(|goal| (goal.measured, goal.met)).collect();
        let expected = [("20.0", true), ("150", true), ("300", true), ("2", false)];
        assert_eq!(told, expected.map(|(measured, met)| (measured.to_owned(), met)));
    }

    #[test]
    fn the_ledger_is_judged_at_a_million() {
        let ledger = |held, release_ns| Ledger {
            pool: "p",
            held,
            reserve_ns: 90.0,
            observe_ns: 5000.0,
            release_ns,
            bytes_per_address: None,
        };
        let report = Report { ledger: vec![ledger(1000, 2000.0), ledger(1_000_000, 999.0)], ..Report::default() };
        assert!(goals(&report)[0].met && goals(&report)[0].measured == "999");
    }
}
