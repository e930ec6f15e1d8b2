//! `backlog`: claims are there before the manager starts. What the server takes then, it takes from the manager alone.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::ceiling::Ceiling;
use crate::latency::{rate, ratio};
use crate::load::{Batch, Room};
use crate::progress::bar;
use crate::report::{Row, per_second};
use crate::stage::Stage;
use crate::watch::What;

/// What working off a backlog has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Backlog {
    /// Claims that were there.
    pub size: usize,
    /// Over so many pools.
    pub pools: usize,
    /// Claims bound; fewer than `size` if nothing happened any more.
    pub bound: usize,
    /// From the first reference seen to the last.
    pub binds_per_second: f64,
    /// The part of the raw ceiling of the same writes.
    pub of_own_writes: f64,
    /// The manager's writes to pools, claims and addresses, per bind.
    pub writes_per_bind: f64,
    /// The manager's processor time from its start, for 1000 binds.
    pub cpu_seconds_per_1000: f64,
}

impl Row for Backlog {
    const TITLE: &'static str = "backlog: claims that were there before the manager";
    const COLUMNS: &'static [&'static str] = &["size", "pools", "bound", "binds/s", "of own writes", "writes/bind", "CPU s/1000"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.size.to_string(),
            self.pools.to_string(),
            self.bound.to_string(),
            per_second(self.binds_per_second),
            format!("{:.2}", self.of_own_writes),
            format!("{:.2}", self.writes_per_bind),
            format!("{:.2}", self.cpu_seconds_per_1000),
        ]
    }
}

/// Creates the claims, then starts a manager. `ceiling` was measured on the same `stage`.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn measure(stage: &mut Stage, ceiling: &Ceiling) -> Result<Backlog> {
    let batch = Batch::new("backlog", ceiling.size, ceiling.pools);
    stage.load.create_pools(batch.pools, Room::Ample).await?;
    let bar = bar(&format!("work off {} claims, {} pools", batch.count, batch.pools), batch.count);
    stage.load.create(&batch, &indicatif::ProgressBar::hidden()).await?;
    let before = stage.requests().await?;
    let manager = stage.manager()?;
    let bound = stage.claims.until(&batch, What::Bound, |count| bar.set_position(count as u64)).await?;
    bar.finish_and_clear();
    let cpu = manager.cpu_time()?;
    stage.settle().await?;
    let writes = stage.requests().await?.since(&before).writes_per(batch.count);

    let times: Vec<Instant> = bound.into_iter().flatten().collect();
    let binds_per_second = match (times.iter().min(), times.iter().max()) {
        (Some(first), Some(last)) => rate(times.len() - 1, *first, *last),
        _ => 0.0,
    };
    Ok(Backlog {
        size: batch.count,
        pools: batch.pools,
        bound: times.len(),
        binds_per_second,
        of_own_writes: ratio(binds_per_second, ceiling.of_own(&writes)),
        writes_per_bind: writes.values().sum(),
        cpu_seconds_per_1000: ratio(cpu.as_secs_f64() * 1000.0, times.len() as f64),
    })
}
