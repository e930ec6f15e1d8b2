//! `restart`: kills the manager, makes one claim while nobody is there, and starts the manager again.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use testbed::Manager;
use tokio::task::block_in_place;

use crate::load::Batch;
use crate::progress::bar;
use crate::report::{Row, megabytes, seconds};
use crate::stage::Stage;
use crate::watch::What;

/// What a start beside existing claims has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Restart {
    /// Bound claims found.
    pub size: usize,
    /// Pools found.
    pub pools: usize,
    /// From the start to `/readyz`.
    pub ready_seconds: f64,
    /// From the start to the address of the claim that waited; nothing if it got none.
    pub first_bind_seconds: Option<f64>,
    /// Writes besides those of that bind, and its pool's new numbers.
    pub writes: i64,
    /// Resident memory after that.
    pub rss_bytes: u64,
    /// Processor time until then.
    pub cpu_seconds: f64,
}

impl Row for Restart {
    const TITLE: &'static str = "restart: killed and started again";
    const COLUMNS: &'static [&'static str] = &["held", "pools", "ready s", "first bind s", "writes besides", "RSS MB", "CPU s"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.size.to_string(),
            self.pools.to_string(),
            format!("{:.2}", self.ready_seconds),
            self.first_bind_seconds.map_or_else(|| seconds(None), |seconds| format!("{seconds:.2}")),
            self.writes.to_string(),
            megabytes(self.rss_bytes),
            format!("{:.2}", self.cpu_seconds),
        ]
    }
}

/// Kills and starts `manager` beside `size` bound claims.
pub async fn measure(stage: &mut Stage, manager: &Manager, size: usize, pools: usize) -> Result<Restart> {
    let spinner = bar(&format!("restart beside {size} claims"), 0);
    let batch = Batch::new("restart", 1, pools);
    manager.kill();
    stage.load.create_one::<serde_json::Value>(&batch, 0).await?;
    let before = stage.requests().await?;

    let begin = Instant::now();
    block_in_place(|| {
        manager.restart()?;
        manager.wait_until_ready()
    })?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    let bound = stage.claims.until(&batch, What::Bound, |_| ()).await?;
    spinner.finish_and_clear();
    stage.settle().await?;

    let writes = stage.requests().await?.since(&before).manager_writes();
    let of_bind = [
        "POST ipaddresses",
        "PATCH ipaddressclaims",
        "PATCH ipaddressclaims/status",
        "PATCH inclusterippools/status",
        "APPLY inclusterippools/status",
    ];
    let of_bind = of_bind.iter().filter(|kind| writes.contains_key(**kind)).count();
    let (rss_bytes, cpu_seconds) = (manager.rss_bytes()?, manager.cpu_time()?.as_secs_f64());

    let hidden = indicatif::ProgressBar::hidden();
    stage.load.delete(&batch, 0, 1, &hidden).await?;
    stage.claims.until(&batch, What::Gone, |_| ()).await?;
    Ok(Restart {
        size,
        pools,
        ready_seconds,
        first_bind_seconds: bound[0].map(|bound| bound.saturating_duration_since(begin).as_secs_f64()),
        writes: i64::try_from(writes.values().sum::<u64>())? - i64::try_from(of_bind)?,
        rss_bytes,
        cpu_seconds,
    })
}
