//! `bench externalip`: many Services that follow many names. Called by `main` in place of the runs about claims.
//!
//! | Part | Holds |
//! |---|---|
//! | [`crowd`] | the names, sources and Services, and who sees what is published on them |
//! | [`figures`] | what is measured, as rows of tables |

mod crowd;
mod figures;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use testbed::{Answer, ControlPlane, Manager, ManagerCommand, Options, WebServer};
use tokio::task::block_in_place;

use crate::counters::Requests;
use crate::latency::{rate, ratio};
use crate::load::Load;
use crate::progress::bar;
use crate::report::add;
use crate::stage::settled;
use crowd::Crowd;
use figures::{Changed, Dead, Published, Restarted, Rested};

/// Services on a provider that does not work, and how long its requests are counted.
const ON_A_DEAD_PROVIDER: usize = 200;
const A_MINUTE: Duration = Duration::from_secs(60);

/// How many Services follow how many names.
#[derive(Args, Clone, Debug)]
pub struct Size {
    /// Sources, dealt out over the names in turn
    #[arg(long, default_value = "1000", value_parser = crate::args::at_least_one)]
    pub sources: usize,
    /// Services, dealt out over the sources in turn
    #[arg(long, default_value = "10000", value_parser = crate::args::at_least_one)]
    pub services: usize,
    /// DNS names
    #[arg(long, default_value = "1000", value_parser = crate::args::at_least_one)]
    pub hosts: usize,
    /// TTL of their records in seconds
    #[arg(long, default_value = "30", value_parser = clap::value_parser!(u32).range(5..))]
    pub ttl: u32,
    /// For how many TTLs queries and requests are counted while nothing changes
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    pub ttls: u32,
}

/// Everything measured so far.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The manager's command line.
    pub manager: String,
    /// The processors that manager, server and load generator share.
    pub cores: usize,
    /// Requests of the load generator at once.
    pub connections: usize,
    /// Addresses published on all Services.
    pub published: Vec<Published>,
    /// Nothing changes.
    pub rested: Vec<Rested>,
    /// One name changes.
    pub changed: Vec<Changed>,
    /// Killed and started again.
    pub restarted: Vec<Restarted>,
    /// A web service that does not work.
    pub dead: Vec<Dead>,
}

impl Report {
    /// Tables, one for each part.
    pub fn tables(&self) -> String {
        let Self { manager, cores, connections, published, rested, changed, restarted, dead } = self;
        let mut text = format!("{manager}\n{cores} cores, {connections} connections of the load generator\n");
        add(&mut text, published);
        add(&mut text, rested);
        add(&mut text, changed);
        add(&mut text, restarted);
        add(&mut text, dead);
        text
    }
}

/// Measures all parts: as asked for, then one source for all Services, then a dead provider.
pub async fn measure(size: &Size, report: &mut Report) -> Result<()> {
    many_names(size, report).await?;
    let one = Size { sources: 1, hosts: 1, ..size.clone() };
    if (size.sources, size.hosts) != (1, 1) {
        many_names(&one, report).await?;
    }
    report.dead.push(dead_provider(report).await?);
    Ok(())
}

async fn many_names(size: &Size, report: &mut Report) -> Result<()> {
    let stage = Stage::start(report).await?;
    let mut crowd = Crowd::create(&stage.load, size).await?;
    let patches_per_second = crowd.patch_ceiling(&stage.load).await?;

    let before = stage.requests().await?;
    let begin = Instant::now();
    let manager = stage.manager(crowd.flags())?;
    let times = crowd.until_published(0..size.services).await?;
    let seconds = times.iter().max().map_or(0.0, |last| last.saturating_duration_since(begin).as_secs_f64());
    let settled_seconds = stage.settle().await?;
    let writes = stage.requests().await?.since(&before).writes_for_services();
    report.published.push(Published {
        sources: size.sources,
        services: size.services,
        hosts: size.hosts,
        reached: times.len(),
        seconds,
        writes_per_service: ratio(count(writes.values().sum()), count(size.services as u64)),
        patches_per_second,
        settled_seconds,
        rss_bytes: manager.rss_bytes()?,
        cpu_seconds: manager.cpu_time()?.as_secs_f64(),
    });
    report.rested.push(rest(&stage, &manager, &crowd, size).await?);

    let before = stage.requests().await?;
    let begin = crowd.change_first_name(&stage.load).await?;
    let affected = crowd.services_of_first_name();
    let mut times = crowd.until_published(affected.iter().copied()).await?;
    times.sort_unstable();
    stage.settle().await?;
    let writes = stage.requests().await?.since(&before).writes_for_services();
    let (first, last) = (times.first().copied().unwrap_or(begin), times.last().copied().unwrap_or(begin));
    let after = |time: Option<&Instant>| time.map_or(0.0, |time| time.saturating_duration_since(begin).as_secs_f64() * 1000.0);
    let per_second = rate(times.len().saturating_sub(1), first, last);
    report.changed.push(Changed {
        sources: size.sources,
        services: affected.len(),
        reached: times.len(),
        first_ms: after(times.first()),
        median_ms: after(times.get(times.len() / 2)),
        last_ms: after(times.last()),
        services_per_second: per_second,
        of_patch_ceiling: ratio(per_second, patches_per_second),
        writes: writes.values().sum(),
    });
    report.restarted.push(restart(&stage, &manager, size).await?);
    Ok(())
}

/// Looks on for some TTLs.
async fn rest(stage: &Stage, manager: &Manager, crowd: &Crowd, size: &Size) -> Result<Rested> {
    let watched = Duration::from_secs((size.ttl * size.ttls).into());
    let spinner = bar(&format!("watch it rest for {} s", watched.as_secs()), 0);
    let (before, queries, cpu) = (stage.requests().await?, crowd.queries(), manager.cpu_time()?);
    tokio::time::sleep(watched).await;
    let cpu = manager.cpu_time()?.saturating_sub(cpu);
    let queries: Vec<u64> = crowd.queries().iter().zip(queries).map(|(after, before)| after - before).collect();
    let requests = stage.requests().await?.since(&before);
    spinner.finish_and_clear();
    let per_ttl = |queries: u64| ratio(count(queries), size.ttls.into());
    Ok(Rested {
        sources: size.sources,
        services: size.services,
        hosts: size.hosts,
        seconds: watched.as_secs(),
        queries_mean: ratio(per_ttl(queries.iter().sum()), count(size.hosts as u64)),
        queries_max: per_ttl(queries.iter().copied().max().unwrap_or_default()),
        requests_per_second: ratio(count(requests.besides_watches_for_services()), watched.as_secs_f64()),
        writes: requests.writes_for_services().values().sum(),
        rss_bytes: manager.rss_bytes()?,
        cpu_percent: 100.0 * ratio(cpu.as_secs_f64(), watched.as_secs_f64()),
    })
}

async fn restart(stage: &Stage, manager: &Manager, size: &Size) -> Result<Restarted> {
    let spinner = bar(&format!("restart beside {} Services", size.services), 0);
    manager.kill();
    let before = stage.requests().await?;
    let begin = Instant::now();
    block_in_place(|| {
        manager.restart()?;
        manager.wait_until_ready()
    })?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    spinner.finish_and_clear();
    let settled_seconds = stage.settle().await?.map(|settled| ready_seconds + settled);
    let writes = stage.requests().await?.since(&before).writes_for_services();
    Ok(Restarted {
        sources: size.sources,
        services: size.services,
        ready_seconds,
        settled_seconds,
        writes: writes.values().sum(),
        rss_bytes: manager.rss_bytes()?,
        cpu_seconds: manager.cpu_time()?.as_secs_f64(),
    })
}

async fn dead_provider(report: &Report) -> Result<Dead> {
    const PATH: &str = "/ip";
    let stage = Stage::start(report).await?;
    let web = WebServer::start()?;
    web.answer(PATH, Answer::status(500));
    crowd::create_on_provider(&stage.load, ON_A_DEAD_PROVIDER).await?;
    let flags = [
        format!("--external-ip-api-endpoint=ipify={}", web.url(PATH)),
        format!("--external-ip-api-ca-file={}", web.authority_file().display()),
    ];
    let manager = stage.manager(flags)?;
    let spinner = bar("a provider that answers with errors", 0);
    tokio::time::sleep(A_MINUTE).await;
    spinner.finish_and_clear();
    let cpu_seconds = manager.cpu_time()?.as_secs_f64();
    Ok(Dead { services: ON_A_DEAD_PROVIDER, requests_per_minute: web.requests(PATH) as u64, cpu_seconds })
}

/// A control plane for one part, and how a manager is started on it.
struct Stage {
    control_plane: ControlPlane,
    load: Load,
    command: ManagerCommand,
}

impl Stage {
    async fn start(report: &Report) -> Result<Self> {
        let spinner = bar("start a control plane", 0);
        let control_plane = block_in_place(|| {
            let control_plane = ControlPlane::start(Options::default())?;
            control_plane.install_external_ip_role()?;
            anyhow::Ok(control_plane)
        })?;
        let load = Load::new(control_plane.client().await?, report.connections, false);
        load.create_namespace().await?;
        let command = ManagerCommand::from_line(&report.manager).context("--manager is empty")?;
        let command = command.arg("--leader-elect=false").arg("--feature-gates=ExternalIPSources=true");
        spinner.finish_and_clear();
        Ok(Self { control_plane, load, command })
    }

    fn manager(&self, flags: impl IntoIterator<Item = String>) -> Result<Manager> {
        let command = flags.into_iter().fold(self.command.clone(), ManagerCommand::arg);
        block_in_place(|| command.start(&self.control_plane)).context("start the manager")
    }

    async fn requests(&self) -> Result<Requests> {
        Requests::read(&self.load.client).await
    }

    async fn settle(&self) -> Result<Option<f64>> {
        let settled = settled(&self.load.client, Requests::besides_watches_for_services).await?;
        Ok(settled.map(|settled| settled.as_secs_f64()))
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn count(number: u64) -> f64 {
    number as f64
}
