//! `steady`: one claim after the other, made and deleted, beside those that are bound already.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use testbed::Manager;

use crate::latency::{Latency, ratio};
use crate::load::Batch;
use crate::progress::bar;
use crate::report::Row;
use crate::stage::Stage;
use crate::watch::What;

/// What low load has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Steady {
    /// Claims bound beside.
    pub size: usize,
    /// Their pools.
    pub pools: usize,
    /// Claims made and deleted.
    pub rounds: usize,
    /// From the creation being sent to the reference being seen.
    pub bind: Latency,
    /// From the deletion being sent to the claim being gone.
    pub release: Latency,
    /// The manager's processor time.
    pub cpu_seconds_per_1000: f64,
}

impl Row for Steady {
    const TITLE: &'static str = "steady: one claim after the other";
    const COLUMNS: &'static [&'static str] =
        &["held", "pools", "rounds", "bind p50 ms", "p99 ms", "max ms", "release p50 ms", "p99 ms", "max ms", "CPU s/1000"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.size.to_string(), self.pools.to_string(), self.rounds.to_string()];
        cells.extend(self.bind.cells());
        cells.extend(self.release.cells());
        cells.push(format!("{:.2}", self.cpu_seconds_per_1000));
        cells
    }
}

/// Makes and deletes `rounds` claims beside `size` bound ones.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn measure(stage: &mut Stage, manager: &Manager, size: usize, pools: usize, rounds: usize) -> Result<Steady> {
    let bar = bar(&format!("steady beside {size} claims"), rounds);
    let hidden = indicatif::ProgressBar::hidden();
    let cpu = manager.cpu_time()?;
    let (mut binds, mut releases) = (Vec::new(), Vec::new());
    let batch = Batch::new("steady", rounds, pools);
    for index in 0..rounds {
        let begin = Instant::now();
        stage.load.create_one::<serde_json::Value>(&batch, index).await?;
        let bound = stage.claims.until_some(&batch, What::Bound, 1, |_| ()).await?;
        let bound = bound[index].with_context(|| format!("claim {} got no address", batch.claim(index)))?;
        binds.push(bound.saturating_duration_since(begin));

        let begin = stage.load.delete(&batch, index, index + 1, &hidden).await?;
        let gone = stage.claims.until_some(&batch, What::Gone, 1, |_| ()).await?;
        let gone = gone[index].with_context(|| format!("claim {} does not go", batch.claim(index)))?;
        releases.push(gone.saturating_duration_since(begin[0]));
        bar.inc(1);
    }
    let cpu = manager.cpu_time()?.saturating_sub(cpu);
    bar.finish_and_clear();
    Ok(Steady {
        size,
        pools,
        rounds,
        bind: Latency::of(binds),
        release: Latency::of(releases),
        cpu_seconds_per_1000: ratio(cpu.as_secs_f64() * 1000.0, rounds as f64),
    })
}
