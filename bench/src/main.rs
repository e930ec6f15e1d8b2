//! `bench`: drives a manager, any manager, against a control plane of its own and prints what it costs.
//!
//! | Part | Holds |
//! |---|---|
//! | [`stage`], [`load`], [`watch`] | the control plane, who makes work for the manager, who sees it done |
//! | [`ceiling`], [`counters`] | what the server can take at most, and what it says it was asked |
//! | [`runs`] | one file per measurement |
//! | [`externalip`] | the same of Services that follow DNS names |
//! | [`report`], [`goals`], [`curves`] | tables, JSON, wishes beside figures, pictures |
#![allow(clippy::print_stdout, reason = "a command line program")]

mod args;
mod ceiling;
mod counters;
mod curves;
mod externalip;
mod goals;
mod latency;
mod load;
mod progress;
mod report;
mod runs;
mod stage;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::args::{Args, Out, Run, Topic};
use crate::load::{Batch, Room};
use crate::report::Report;
use crate::stage::Stage;

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    if let Some(Topic::Externalip(size)) = &args.topic {
        return external_ips(args, size, cores).await;
    }
    let mut report = Report {
        manager: args.manager()?,
        cores,
        connections: args.connections,
        capi_limit: args.capi_limit.0,
        ..Report::default()
    };
    let measured = tokio::select! {
        measured = measure(args, &mut report) => measured,
        // What is under way ends with the control plane it runs on.
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
    };
    // What was measured before a failure or Ctrl-C is told all the same.
    match args.out {
        Out::Table => println!("{}", report.tables()),
        Out::Json => println!("{}", report.json()?),
    }
    for file in curves::draw(&report.fill, &args.curves)? {
        eprintln!("bench: drew {}", file.display());
    }
    measured
}

async fn external_ips(args: &Args, size: &externalip::Size, cores: usize) -> Result<()> {
    let mut report =
        externalip::Report { manager: args.manager()?, cores, connections: args.connections, ..externalip::Report::default() };
    let measured = tokio::select! {
        measured = externalip::measure(size, &mut report) => measured,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Into::into),
    };
    match args.out {
        Out::Table => println!("{}", report.tables()),
        Out::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    measured
}

async fn measure(args: &Args, report: &mut Report) -> Result<()> {
    if args.any(&[Run::Ledger]) {
        report.ledger = tokio::task::block_in_place(runs::ledger::measure)?;
    }
    if args.any(&[Run::Fill, Run::Memory, Run::Steady, Run::Paced, Run::Restart, Run::Drain]) {
        for &size in &args.sizes {
            for &pools in &args.pools {
                one_manager(args, size, pools, report).await?;
            }
        }
    }
    if args.any(&[Run::Backlog]) {
        for &size in &args.sizes {
            for &pools in &args.pools {
                let mut stage = Stage::start(args).await?;
                let ceiling = ceiling::measure(&stage.load, size, pools, args.capi_limit).await?;
                report.backlog.push(runs::backlog::measure(&mut stage, &ceiling).await?);
                report.ceiling.push(ceiling);
            }
        }
    }
    if args.any(&[Run::Loaded]) {
        for &size in &args.sizes {
            report.loaded.push(runs::loaded::measure(args, size).await?);
        }
    }
    if args.any(&[Run::Waiters]) {
        report.waiters = runs::waiters::measure(args).await?;
    }
    if args.any(&[Run::Two]) {
        for &size in &args.sizes {
            report.two.push(runs::two::measure(args, size, args.pools[0]).await?);
        }
    }
    Ok(())
}

/// The runs that follow each other on one control plane: filled, looked at, used, restarted, drained.
async fn one_manager(args: &Args, size: usize, pools: usize, report: &mut Report) -> Result<()> {
    let mut stage = Stage::start(args).await?;
    let ceiling = ceiling::measure(&stage.load, size, pools, args.capi_limit).await?;
    report.ceiling.push(ceiling.clone());
    stage.load.create_pools(pools, Room::Ample).await?;
    let manager = stage.manager()?;

    let memory = args.any(&[Run::Memory]);
    if memory {
        report.memory.push(runs::memory::measure(&stage, &manager, pools, 0, None).await?);
    }
    stage.settle().await?;
    let empty = manager.rss_bytes()?;

    // The other runs need its claims, so it runs whether it was asked for or not.
    let batch = Batch::new("fill", size, pools);
    let before = stage.requests().await?;
    let fill = runs::fill::measure(&mut stage, &manager, &batch, &ceiling).await?;
    let own = ceiling.of_own(&fill.writes);
    if args.any(&[Run::Fill]) {
        if let Some(limit) = args.capi_limit.0 {
            let read = stage.requests().await?.since(&before).claims_read();
            report.limited.push(runs::limited::figures(&fill, limit, read, stage::own_metric(&manager, "ipam_errors_total", "")));
        }
        report.fill.push(fill);
    }
    if memory {
        report.memory.push(runs::memory::measure(&stage, &manager, pools, size, Some(empty)).await?);
    }
    if args.any(&[Run::Steady]) {
        report.steady.push(runs::steady::measure(&mut stage, &manager, size, pools, args.rounds).await?);
    }
    if args.any(&[Run::Paced]) {
        report.paced.push(runs::paced::measure(&mut stage, &ceiling, own).await?);
    }
    if args.any(&[Run::Restart]) {
        report.restart.push(runs::restart::measure(&mut stage, &manager, size, pools).await?);
    }
    if args.any(&[Run::Drain]) {
        report.drain.push(runs::drain::measure(&mut stage, &manager, &batch).await?);
    }
    Ok(())
}
