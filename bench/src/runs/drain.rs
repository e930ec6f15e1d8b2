//! `drain`: deletes all claims at once and waits until they are gone.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use testbed::Manager;

use crate::latency::{Latency, rate, ratio};
use crate::load::Batch;
use crate::progress::bar;
use crate::report::{Row, per_second};
use crate::stage::Stage;
use crate::watch::What;

/// What a drain has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Drain {
    /// Claims deleted.
    pub size: usize,
    /// Of so many pools.
    pub pools: usize,
    /// Claims gone; fewer than `size` if nothing happened any more.
    pub gone: usize,
    /// From the first request to the last claim gone.
    pub releases_per_second: f64,
    /// From a deletion being sent to the claim being gone.
    pub latency: Latency,
    /// The manager's writes to pools, claims and addresses, per release.
    pub writes_per_release: f64,
    /// The same by kind.
    pub writes: BTreeMap<String, f64>,
    /// The manager's processor time, for 1000 releases.
    pub cpu_seconds_per_1000: f64,
}

impl Row for Drain {
    const TITLE: &'static str = "drain: all claims deleted";
    const COLUMNS: &'static [&'static str] =
        &["size", "pools", "gone", "releases/s", "p50 ms", "p99 ms", "max ms", "writes/release", "CPU s/1000"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.size.to_string(), self.pools.to_string(), self.gone.to_string()];
        cells.push(per_second(self.releases_per_second));
        cells.extend(self.latency.cells());
        cells.push(format!("{:.2}", self.writes_per_release));
        cells.push(format!("{:.2}", self.cpu_seconds_per_1000));
        cells
    }
}

/// Deletes the batch.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn measure(stage: &mut Stage, manager: &Manager, batch: &Batch) -> Result<Drain> {
    let bar = bar(&format!("drain {} claims, {} pools", batch.count, batch.pools), batch.count);
    let hidden = indicatif::ProgressBar::hidden();
    let (before, cpu) = (stage.requests().await?, manager.cpu_time()?);
    let seen = |count| bar.set_position(count as u64);
    let delete = stage.load.delete(batch, 0, batch.count, &hidden);
    let (deleted, times) = tokio::try_join!(delete, stage.claims.until(batch, What::Gone, seen))?;
    let cpu = manager.cpu_time()?.saturating_sub(cpu);
    bar.finish_and_clear();
    stage.settle().await?;

    let gone = times.iter().flatten().count();
    let ends = deleted.iter().min().zip(times.iter().flatten().max());
    let writes = stage.requests().await?.since(&before).writes_per(gone);
    Ok(Drain {
        size: batch.count,
        pools: batch.pools,
        gone,
        releases_per_second: ends.map_or(0.0, |(begin, end)| rate(gone, *begin, *end)),
        latency: Latency::between(&deleted, &times),
        writes_per_release: writes.values().sum(),
        writes,
        cpu_seconds_per_1000: ratio(cpu.as_secs_f64() * 1000.0, gone as f64),
    })
}
