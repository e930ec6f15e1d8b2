//! All figures of one call, as tables for people or as one JSON object.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::ceiling::Ceiling;
use crate::goals::{Goal, goals};
use crate::runs::backlog::Backlog;
use crate::runs::drain::Drain;
use crate::runs::fill::Fill;
use crate::runs::ledger::Ledger;
use crate::runs::limited::Limited;
use crate::runs::loaded::Loaded;
use crate::runs::memory::Memory;
use crate::runs::paced::Paced;
use crate::runs::restart::Restart;
use crate::runs::steady::Steady;
use crate::runs::two::Two;
use crate::runs::waiters::Waiters;

/// One line of a table.
pub trait Row {
    /// The table's heading.
    const TITLE: &'static str;
    /// The headings of its columns.
    const COLUMNS: &'static [&'static str];

    /// The line, one text per column.
    fn cells(&self) -> Vec<String>;
}

/// Everything measured so far. Figures of runs that were not asked for are missing.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The manager's command line.
    pub manager: String,
    /// The processors that manager, server and load generator share.
    pub cores: usize,
    /// Requests of the load generator at once.
    pub connections: usize,
    /// How many claims a second Cluster API's webhooks may read, if they are asked.
    pub capi_limit: Option<u32>,
    /// What the server can take without a manager.
    pub ceiling: Vec<Ceiling>,
    /// Binds in a row.
    pub fill: Vec<Fill>,
    /// The same beside what Cluster API's webhooks let through.
    pub limited: Vec<Limited>,
    /// Claims that were there before the manager.
    pub backlog: Vec<Backlog>,
    /// Memory and requests at rest.
    pub memory: Vec<Memory>,
    /// One claim after the other.
    pub steady: Vec<Steady>,
    /// Binds of an even load.
    pub paced: Vec<Paced>,
    /// Killed and started again.
    pub restart: Vec<Restart>,
    /// Releases in a row.
    pub drain: Vec<Drain>,
    /// Found in the store at the start.
    pub loaded: Vec<Loaded>,
    /// Freed addresses that others wait for.
    pub waiters: Vec<Waiters>,
    /// Two active managers.
    pub two: Vec<Two>,
    /// The ledger alone.
    pub ledger: Vec<Ledger>,
}

/// The report with its conclusions.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    report: &'a Report,
    goals: Vec<Goal>,
}

impl Report {
    /// One JSON object.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Whole { report: self, goals: goals(self) })
    }

    /// Tables, one for each run.
    pub fn tables(&self) -> String {
        // Every field has its place below.
        let Self {
            manager,
            cores,
            connections,
            capi_limit,
            ceiling,
            fill,
            limited,
            backlog,
            memory,
            steady,
            paced,
            restart,
            drain,
            loaded,
            waiters,
            two,
            ledger,
        } = self;
        let mut text = String::new();
        let _ = writeln!(text, "{manager}\n{cores} cores, {connections} connections of the load generator");
        if let Some(limit) = capi_limit {
            let _ = writeln!(
                text,
                "Cluster API's webhooks are asked, and may read {limit} claims a second, as many at once after a rest"
            );
        }
        add(&mut text, ceiling);
        add(&mut text, fill);
        add(&mut text, limited);
        add(&mut text, backlog);
        add(&mut text, memory);
        add(&mut text, steady);
        add(&mut text, paced);
        add(&mut text, restart);
        add(&mut text, drain);
        add(&mut text, loaded);
        add(&mut text, waiters);
        add(&mut text, two);
        add(&mut text, ledger);
        add(&mut text, &writes(fill, drain));
        add(&mut text, &goals(self));
        text
    }
}

/// Writes of one kind.
struct Writes<'a> {
    run: String,
    kind: &'a str,
    per_claim: f64,
}

impl Row for Writes<'_> {
    const TITLE: &'static str = "the manager's writes, as the server counts them";
    const COLUMNS: &'static [&'static str] = &["run", "write", "per claim"];

    fn cells(&self) -> Vec<String> {
        vec![self.run.clone(), self.kind.to_owned(), format!("{:.3}", self.per_claim)]
    }
}

fn writes<'a>(fills: &'a [Fill], drains: &'a [Drain]) -> Vec<Writes<'a>> {
    let fills = fills.iter().map(|fill| ("fill", fill.size, fill.pools, &fill.writes));
    let drains = drains.iter().map(|drain| ("drain", drain.size, drain.pools, &drain.writes));
    let mut rows = Vec::new();
    for (run, size, pools, writes) in fills.chain(drains) {
        for (kind, per_claim) in writes {
            rows.push(Writes { run: format!("{run} {size}, {pools} pools"), kind, per_claim: *per_claim });
        }
    }
    rows
}

/// Appends a table, if it has a row.
pub fn add<R: Row>(text: &mut String, rows: &[R]) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_style(presets::ASCII_BORDERS_ONLY_CONDENSED).set_header(R::COLUMNS);
    for row in rows {
        table.add_row(row.cells());
    }
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let _ = writeln!(text, "\n{}\n{table}", R::TITLE);
}

/// A rate for a table cell.
pub fn per_second(rate: f64) -> String {
    format!("{rate:.0}")
}

/// A duration for a table cell.
pub fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"))
}

/// Bytes in megabytes (10^6) for a table cell.
#[allow(clippy::cast_precision_loss, reason = "a figure for people")]
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Whether what must be so is so.
pub fn yes(so: bool) -> String {
    if so { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;

    fn steady() -> Steady {
        let latency = Latency { p50_ms: 12.0, p99_ms: 30.0, max_ms: 140.0 };
        Steady { size: 1000, pools: 1, rounds: 10, bind: latency, release: latency, cpu_seconds_per_1000: 2.5 }
    }

    #[test]
    fn only_what_was_measured_has_a_table() {
        let report = Report { steady: vec![steady()], ..Report::default() };
        let tables = report.tables();
        assert!(tables.contains(Steady::TITLE) && !tables.contains(Fill::TITLE), "{tables}");
        assert!(tables.lines().any(|line| line.contains("12.0") && line.contains("140")), "{tables}");
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        assert_eq!(steady().cells().len(), Steady::COLUMNS.len());
    }

    #[test]
    fn the_goals_are_part_of_the_json() {
        let report = Report { steady: vec![steady()], ..Report::default() };
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["steady"][0]["bind"]["p50_ms"], 12.0);
        assert!(json["goals"].is_array() && json["fill"].as_array().unwrap().is_empty());
    }
}
