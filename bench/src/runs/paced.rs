//! `paced`: claims created in even steps, at a part of what the server can take.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::ceiling::Ceiling;
use crate::latency::{Latency, rate, ratio};
use crate::load::Batch;
use crate::progress::bar;
use crate::report::{Row, per_second};
use crate::stage::Stage;
use crate::watch::What;

/// Part of the ceiling of a claim's creation and the writes of its bind.
const SHARE: f64 = 0.8;
const LASTS: Duration = Duration::from_secs(5);

/// What an even load has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Paced {
    /// Claims bound beside.
    pub size: usize,
    /// Their pools.
    pub pools: usize,
    /// Claims created.
    pub claims: usize,
    /// Claims bound; fewer than `claims` if nothing happened any more.
    pub bound: usize,
    /// At which they were to be created.
    pub wanted_per_second: f64,
    /// From the first moment at which one was to be created to the last reference seen.
    pub binds_per_second: f64,
    /// From the moment at which a claim was to be created to its reference being seen. A request that had to wait for others
    /// counts from when it should have been sent.
    pub latency: Latency,
}

impl Row for Paced {
    const TITLE: &'static str =
        "paced: claims created at an even 0.8 of the ceiling of their creation and the manager's own writes";
    const COLUMNS: &'static [&'static str] =
        &["held", "pools", "claims", "bound", "wanted/s", "binds/s", "p50 ms", "p99 ms", "max ms"];

    fn cells(&self) -> Vec<String> {
        let [p50, p99, max] = self.latency.cells();
        vec![
            self.size.to_string(),
            self.pools.to_string(),
            self.claims.to_string(),
            self.bound.to_string(),
            per_second(self.wanted_per_second),
            per_second(self.binds_per_second),
            p50,
            p99,
            max,
        ]
    }
}

/// Creates claims beside `ceiling.size` bound ones, and deletes them again. `own` is what the server takes of a bind's writes a second.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small whole number")]
pub async fn measure(stage: &mut Stage, ceiling: &Ceiling, own: f64) -> Result<Paced> {
    let wanted_per_second = SHARE * ceiling.with_creation(own);
    let claims = (wanted_per_second * LASTS.as_secs_f64()).round().max(1.0) as usize;
    let batch = Batch::new("paced", claims, ceiling.pools);
    let bar = bar(&format!("{wanted_per_second:.0} claims a second beside {}", ceiling.size), claims);
    let pause = Duration::from_secs_f64(ratio(1.0, wanted_per_second));
    let (due, bound) = tokio::try_join!(
        stage.load.create_evenly(&batch, pause),
        stage.claims.until(&batch, What::Bound, |count| bar.set_position(count as u64))
    )?;
    bar.finish_and_clear();
    // What comes after is to find the claims that were there before.
    let hidden = indicatif::ProgressBar::hidden();
    tokio::try_join!(stage.load.delete(&batch, 0, claims, &hidden), stage.claims.until(&batch, What::Gone, |_| ()))?;
    let last = bound.iter().flatten().max();
    let count = bound.iter().flatten().count();
    Ok(Paced {
        size: ceiling.size,
        pools: ceiling.pools,
        claims,
        bound: count,
        wanted_per_second,
        binds_per_second: last.map_or(0.0, |last| rate(count, due[0], *last)),
        latency: Latency::between(&due, &bound),
    })
}
