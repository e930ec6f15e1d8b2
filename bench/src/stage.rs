//! A control plane for one round of runs, with its load generator, and how a manager comes to rest on it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::Client;
use testbed::{ControlPlane, CoreManager, Manager, ManagerCommand, Options};
use tokio::task::block_in_place;

use crate::args::Args;
use crate::counters::{Requests, sum};
use crate::load::{Load, claims_url};
use crate::progress::bar;
use crate::watch::Watch;

/// How long it has to be quiet before a manager counts as settled, and how long that is waited for.
const QUIET: Duration = Duration::from_secs(2);
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// How long requests are counted while nothing should happen.
pub const WATCHED: Duration = Duration::from_secs(5);

/// A fresh control plane.
pub struct Stage {
    /// The server and its neighbours.
    pub control_plane: ControlPlane,
    /// Makes and deletes claims.
    pub load: Load,
    /// Sees what becomes of them.
    pub claims: Watch,
    /// Who is asked about claims and addresses.
    _core_manager: Option<CoreManager>,
    command: ManagerCommand,
}

impl Stage {
    /// Starts everything but the manager; with a limit also Cluster API's webhooks.
    pub async fn start(args: &Args) -> Result<Self> {
        let spinner = bar("start a control plane", 0);
        let control_plane = block_in_place(|| ControlPlane::start(Options::default()))?;
        let load = Load::new(control_plane.client().await?, args.connections, args.with_finalizer);
        load.create_namespace().await?;
        let core_manager = args.capi_limit.0.map(|rate| block_in_place(|| CoreManager::start(&control_plane, Some(rate))));
        let core_manager = core_manager.transpose().context("start Cluster API's core manager")?;
        let claims = Watch::start(control_plane.client().await?, claims_url()).await?;
        let command = ManagerCommand::from_line(&args.manager()?).context("--manager is empty")?.arg("--leader-elect=false");
        spinner.finish_and_clear();
        Ok(Self { control_plane, load, claims, _core_manager: core_manager, command })
    }

    /// Starts a manager and waits until it is ready.
    pub fn manager(&self) -> Result<Manager> {
        block_in_place(|| self.command.start(&self.control_plane)).context("start the manager")
    }

    /// The server's counters.
    pub async fn requests(&self) -> Result<Requests> {
        Requests::read(&self.load.client).await
    }

    /// Waits until nobody has asked for pools, claims or addresses for [`QUIET`]; how long the last request took to
    /// come, or `None` if it does not become quiet.
    pub async fn settle(&self) -> Result<Option<Duration>> {
        settled(&self.load.client, Requests::besides_watches).await
    }
}

/// The same with the requests that `of_interest` counts.
pub async fn settled(client: &Client, of_interest: impl Fn(&Requests) -> u64) -> Result<Option<Duration>> {
    let spinner = bar("wait until the manager has settled", 0);
    let begin = Instant::now();
    let (mut last, mut seen) = (begin, Requests::read(client).await?);
    let settled = loop {
        tokio::time::sleep(QUIET / 4).await;
        let now = Requests::read(client).await?;
        if of_interest(&now.since(&seen)) > 0 {
            last = Instant::now();
        }
        seen = now;
        if last.elapsed() >= QUIET {
            break Some(last - begin);
        }
        if begin.elapsed() >= SETTLES_WITHIN {
            break None;
        }
    };
    spinner.finish_and_clear();
    Ok(settled)
}

/// A figure out of the manager's own metrics, if it has that metric.
pub fn own_metric(manager: &Manager, metric: &str, part: &str) -> Option<f64> {
    let text = block_in_place(|| manager.metrics()).ok()?;
    sum(&text, metric, part)
}
