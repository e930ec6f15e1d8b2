//! `memory`: what a manager takes and asks for while nothing happens.

use anyhow::Result;
use serde::Serialize;
use testbed::Manager;

use crate::latency::ratio;
use crate::progress::bar;
use crate::report::{Row, megabytes, seconds};
use crate::stage::{Stage, WATCHED, own_metric};

/// A manager at rest.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// The pools there are.
    pub pools: usize,
    /// Bound claims, each with its address.
    pub held: usize,
    /// Until the last request after the work was done; nothing if it did not come to rest.
    pub settled_seconds: Option<f64>,
    /// Resident memory.
    pub rss_bytes: u64,
    /// What each bound claim with its address has added to the memory of the empty manager.
    pub bytes_per_bind: f64,
    /// What the manager itself says an address record takes.
    pub bytes_per_address: Option<f64>,
    /// What the manager itself says a claim record takes.
    pub bytes_per_claim: Option<f64>,
    /// Requests other than watches during five seconds.
    pub requests: u64,
    /// Processor time during the same five seconds.
    pub cpu_seconds: f64,
}

impl Row for Memory {
    const TITLE: &'static str = "memory: a manager at rest";
    const COLUMNS: &'static [&'static str] = &[
        "pools",
        "held",
        "settled s",
        "RSS MB",
        "B/bind",
        "B/address record",
        "B/claim record",
        "requests in 5 s",
        "CPU s in 5 s",
    ];

    fn cells(&self) -> Vec<String> {
        let bytes = |bytes: Option<f64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}"));
        vec![
            self.pools.to_string(),
            self.held.to_string(),
            seconds(self.settled_seconds),
            megabytes(self.rss_bytes),
            bytes((self.held > 0).then_some(self.bytes_per_bind)),
            bytes(self.bytes_per_address),
            bytes(self.bytes_per_claim),
            self.requests.to_string(),
            format!("{:.2}", self.cpu_seconds),
        ]
    }
}

/// Waits until the manager has come to rest, and looks. `empty` is its memory without claims.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn measure(stage: &Stage, manager: &Manager, pools: usize, held: usize, empty: Option<u64>) -> Result<Memory> {
    let settled = stage.settle().await?;
    let (before, cpu) = (stage.requests().await?, manager.cpu_time()?);
    let spinner = bar(&format!("watch it rest with {held} addresses"), 0);
    tokio::time::sleep(WATCHED).await;
    spinner.finish_and_clear();
    let cpu = manager.cpu_time()?.saturating_sub(cpu);
    let requests = stage.requests().await?.since(&before).besides_watches();
    let rss_bytes = manager.rss_bytes()?;
    let record = |resource: &str| {
        let label = format!("resource=\"{resource}\"");
        let objects = own_metric(manager, "ipam_cache_objects", &label).filter(|objects| *objects > 0.0)?;
        Some(own_metric(manager, "ipam_cache_bytes", &label)? / objects)
    };
    Ok(Memory {
        pools,
        held,
        settled_seconds: settled.map(|settled| settled.as_secs_f64()),
        rss_bytes,
        bytes_per_bind: ratio(rss_bytes.saturating_sub(empty.unwrap_or(rss_bytes)) as f64, held as f64),
        bytes_per_address: record("ipaddresses"),
        bytes_per_claim: record("ipaddressclaims"),
        requests,
        cpu_seconds: cpu.as_secs_f64(),
    })
}
