//! What is printed, one row for each part of a measurement.

use serde::Serialize;

use crate::report::{Row, megabytes, per_second, seconds};

/// Addresses on all Services, from the start of the manager.
#[derive(Clone, Debug, Serialize)]
pub struct Published {
    /// Sources.
    pub sources: usize,
    /// Services.
    pub services: usize,
    /// DNS names.
    pub hosts: usize,
    /// Services that got their address.
    pub reached: usize,
    /// Until the last of them was seen with it.
    pub seconds: f64,
    /// Writes to Services and sources, for each Service.
    pub writes_per_service: f64,
    /// What the server takes of the load generator's own patches of the same Services.
    pub patches_per_second: f64,
    /// Until the last request after that; nothing if it did not come to rest.
    pub settled_seconds: Option<f64>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time until then.
    pub cpu_seconds: f64,
}

impl Row for Published {
    const TITLE: &'static str = "publish: from the manager's start to an address on every Service";
    const COLUMNS: &'static [&'static str] =
        &["sources", "Services", "names", "published", "s", "writes/Service", "raw patches/s", "settled s", "RSS MB", "CPU s"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.sources.to_string(),
            self.services.to_string(),
            self.hosts.to_string(),
            self.reached.to_string(),
            format!("{:.1}", self.seconds),
            format!("{:.2}", self.writes_per_service),
            per_second(self.patches_per_second),
            seconds(self.settled_seconds),
            megabytes(self.rss_bytes),
            format!("{:.1}", self.cpu_seconds),
        ]
    }
}

/// A manager beside Services for which nothing changes.
#[derive(Clone, Debug, Serialize)]
pub struct Rested {
    /// Sources.
    pub sources: usize,
    /// Services.
    pub services: usize,
    /// DNS names.
    pub hosts: usize,
    /// How long it was looked at.
    pub seconds: u64,
    /// DNS queries for each name in one TTL, of all names.
    pub queries_mean: f64,
    /// The same, of the name that was asked for most.
    pub queries_max: f64,
    /// Requests to the API server other than watches.
    pub requests_per_second: f64,
    /// Writes to Services and sources, in all.
    pub writes: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Part of one processor.
    pub cpu_percent: f64,
}

impl Row for Rested {
    const TITLE: &'static str = "rest: nothing changes";
    const COLUMNS: &'static [&'static str] =
        &["sources", "Services", "names", "watched s", "queries/name/TTL", "max", "API requests/s", "writes", "RSS MB", "CPU %"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.sources.to_string(),
            self.services.to_string(),
            self.hosts.to_string(),
            self.seconds.to_string(),
            format!("{:.2}", self.queries_mean),
            format!("{:.2}", self.queries_max),
            format!("{:.2}", self.requests_per_second),
            self.writes.to_string(),
            megabytes(self.rss_bytes),
            format!("{:.2}", self.cpu_percent),
        ]
    }
}

/// One name that points somewhere else, and whose source is told to ask again.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Sources.
    pub sources: usize,
    /// Services that have the name's address.
    pub services: usize,
    /// Those of them that were seen with the new one.
    pub reached: usize,
    /// Until the first of them.
    pub first_ms: f64,
    /// Until half of them.
    pub median_ms: f64,
    /// Until the last of them.
    pub last_ms: f64,
    /// Between the first and the last.
    pub services_per_second: f64,
    /// That, in relation to the server's raw patches.
    pub of_patch_ceiling: f64,
    /// Writes to Services and sources, in all.
    pub writes: u64,
}

impl Row for Changed {
    const TITLE: &'static str = "change: one name points somewhere else";
    const COLUMNS: &'static [&'static str] =
        &["sources", "Services", "changed", "first ms", "median ms", "last ms", "Services/s", "of raw patches", "writes"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.sources.to_string(), self.services.to_string(), self.reached.to_string()];
        cells.extend([self.first_ms, self.median_ms, self.last_ms].map(|ms| format!("{ms:.0}")));
        cells.extend([per_second(self.services_per_second), format!("{:.2}", self.of_patch_ceiling), self.writes.to_string()]);
        cells
    }
}

/// Killed and started again.
#[derive(Clone, Debug, Serialize)]
pub struct Restarted {
    /// Sources.
    pub sources: usize,
    /// Services.
    pub services: usize,
    /// Until it said that it is ready.
    pub ready_seconds: f64,
    /// Until its last request; nothing if it did not come to rest.
    pub settled_seconds: Option<f64>,
    /// Writes to Services and sources, in all.
    pub writes: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time until then.
    pub cpu_seconds: f64,
}

impl Row for Restarted {
    const TITLE: &'static str = "restart: killed and started again";
    const COLUMNS: &'static [&'static str] = &["sources", "Services", "ready s", "settled s", "writes", "RSS MB", "CPU s"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.sources.to_string(),
            self.services.to_string(),
            format!("{:.1}", self.ready_seconds),
            seconds(self.settled_seconds),
            self.writes.to_string(),
            megabytes(self.rss_bytes),
            format!("{:.1}", self.cpu_seconds),
        ]
    }
}

/// A web service that answers with errors.
#[derive(Clone, Debug, Serialize)]
pub struct Dead {
    /// Services that wait for it.
    pub services: usize,
    /// What it was asked in the first minute.
    pub requests_per_minute: u64,
    /// Processor time of that minute.
    pub cpu_seconds: f64,
}

impl Row for Dead {
    const TITLE: &'static str = "dead provider: the first minute";
    const COLUMNS: &'static [&'static str] = &["Services", "requests", "CPU s"];

    fn cells(&self) -> Vec<String> {
        vec![self.services.to_string(), self.requests_per_minute.to_string(), format!("{:.2}", self.cpu_seconds)]
    }
}
