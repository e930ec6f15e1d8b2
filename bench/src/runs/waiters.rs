//! `waiters`: claims that wait for a full pool, of which 1, then 10, then 100 addresses are freed.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use crate::args::Args;
use crate::latency::Latency;
use crate::load::{Batch, Room, addresses_url};
use crate::progress::bar;
use crate::report::{Row, yes};
use crate::stage::{Stage, WATCHED};
use crate::watch::{Watch, What};

const FREED: [usize; 3] = [1, 10, 100];

/// What freeing some addresses has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Waiters {
    /// Claims that waited.
    pub waiting: usize,
    /// Addresses freed together.
    pub freed: usize,
    /// Claims that got one.
    pub served: usize,
    /// From an address object being gone to the next waiter's reference being seen.
    pub latency: Latency,
    /// Whether those served are the oldest.
    pub order_kept: bool,
    /// Requests other than watches in five seconds of waiting before.
    pub requests_while_waiting: u64,
}

impl Row for Waiters {
    const TITLE: &'static str = "waiters: addresses of a full pool freed together";
    const COLUMNS: &'static [&'static str] =
        &["waiting", "freed", "served", "free -> bound p50 ms", "p99 ms", "max ms", "order kept", "requests in 5 s before"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.waiting.to_string(), self.freed.to_string(), self.served.to_string()];
        cells.extend(self.latency.cells());
        cells.push(yes(self.order_kept));
        cells.push(self.requests_while_waiting.to_string());
        cells
    }
}

/// Fills a small pool, lets claims wait, frees.
pub async fn measure(args: &Args) -> Result<Vec<Waiters>> {
    let mut stage = Stage::start(args).await?;
    let holders = Batch::new("holder", FREED.iter().sum(), 1);
    stage.load.create_pools(1, Room::Exactly(holders.count)).await?;
    let _manager = stage.manager()?;
    let hidden = indicatif::ProgressBar::hidden();
    stage.load.create(&holders, &hidden).await?;
    stage.claims.until(&holders, What::Bound, |_| ()).await?;

    let waiters = Batch::new("waiter", args.waiters, 1);
    let bar = bar(&format!("let {} claims wait", waiters.count), waiters.count);
    stage.load.in_order().create(&waiters, &bar).await?;
    bar.finish_and_clear();

    let mut addresses = Watch::start(stage.control_plane.client().await?, addresses_url()).await?;
    let (mut from, mut served) = (0, 0);
    let mut figures = Vec::new();
    for freed in FREED {
        let requests = while_waiting(&stage).await?;
        let expected = freed.min(waiters.count - served);
        stage.load.delete(&holders, from, from + freed, &hidden).await?;
        let gone = addresses.until_some(&holders, What::Gone, freed, |_| ()).await?;
        let bound = stage.claims.until_some(&waiters, What::Bound, expected, |_| ()).await?;
        let order_kept = (0..waiters.count).all(|index| bound[index].is_some() == (served..served + expected).contains(&index));
        figures.push(Waiters {
            waiting: waiters.count - served,
            freed,
            served: bound.iter().flatten().count(),
            latency: Latency::of(wakes(&gone, &bound)),
            order_kept,
            requests_while_waiting: requests,
        });
        from += freed;
        served += expected;
    }
    Ok(figures)
}

async fn while_waiting(stage: &Stage) -> Result<u64> {
    stage.settle().await?;
    let before = stage.requests().await?;
    let spinner = bar("watch them wait", 0);
    tokio::time::sleep(WATCHED).await;
    spinner.finish_and_clear();
    Ok(stage.requests().await?.since(&before).besides_watches())
}

/// The n-th address that went serves the n-th claim that was bound.
fn wakes(gone: &[Option<Instant>], bound: &[Option<Instant>]) -> Vec<Duration> {
    let sorted = |times: &[Option<Instant>]| {
        let mut times: Vec<Instant> = times.iter().flatten().copied().collect();
        times.sort_unstable();
        times
    };
    sorted(gone).into_iter().zip(sorted(bound)).map(|(gone, bound)| bound.saturating_duration_since(gone)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_freed_address_serves_one_claim_in_order_of_time() {
        let begin = Instant::now();
        let after = |ms| Some(begin + Duration::from_millis(ms));
        let wakes = wakes(&[after(50), None, after(10)], &[None, after(15), after(70), None]);
        assert_eq!(wakes, [Duration::from_millis(5), Duration::from_millis(20)]);
    }
}
