//! `make demo`: a real control plane with the manager on it, shown at work through kubectl; stays up until Ctrl-C.
#![allow(clippy::print_stdout, reason = "a command line program")]

mod binds;
mod external;
mod stage;
mod story;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use testbed::{Binaries, ControlPlane, DnsServer, Manager, ManagerCommand, Options, Sample};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::binds::Binds;
use crate::stage::Stage;

/// Starts a real Kubernetes control plane with the manager on it and shows what they do.
#[derive(Parser)]
struct Cli {
    /// End after showing, instead of staying up until Ctrl-C
    #[arg(long)]
    once: bool,
    /// The manager [default: the one beside this program]
    #[arg(long)]
    manager: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let manager = match cli.manager {
        Some(manager) => env::current_dir()?.join(manager),
        None => env::current_exe()?.with_file_name("manager"),
    };
    ensure!(manager.is_file(), "there is no {}; `cargo build --bin manager` makes it", manager.display());
    // The commands shown are the commands run, with paths as a reader of the repository has them.
    env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).context("go to the repository's root")?;
    // Before signals are caught, so that Ctrl-C ends a long build at once.
    let kubectl = Binaries::ensure(&mut |line| eprintln!("demo: {line}"))?.kubectl;

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let mut starting = tokio::task::spawn_blocking(move || start(&manager));
        let started = tokio::select! {
            started = &mut starting => Some(started),
            () = stop.asked() => None,
        };
        let Some(started) = started else {
            // What has started by then ends with the value. Whoever does not want to wait leaves a folder behind, but no process.
            return tokio::select! {
                started = starting => started?.map(drop),
                () = stop.asked() => std::process::exit(1),
            };
        };
        let (control_plane, manager, names) = started??;
        let binds = Binds::watch(control_plane.client().await?);
        let stage = Stage::new(control_plane, manager, names, binds, kubectl);
        tokio::select! {
            told = story::tell(&stage) => told?,
            () = stop.asked() => return Ok(()),
        }
        if !cli.once {
            story::what_next(&stage);
            stop.asked().await;
        }
        Ok(())
    })
}

fn start(manager: &Path) -> Result<(Arc<ControlPlane>, Manager, DnsServer)> {
    let begin = Instant::now();
    let control_plane = ControlPlane::start(Options::default())?;
    let took = begin.elapsed().as_secs_f32();
    println!(
        "A control plane is up after {took:.1} s: etcd, kube-apiserver, kube-controller-manager; Cluster API's definitions and ours."
    );
    control_plane.install_external_ip_role()?;
    let names = Sample::name_server()?;
    let begin = Instant::now();
    let command = Sample::flags(&names).into_iter().fold(ManagerCommand::new(manager), ManagerCommand::arg);
    let manager = command.start(&control_plane)?;
    let took = begin.elapsed().as_secs_f32();
    println!("The manager is ready after {took:.1} s, under the account and roles it is installed with.");
    Ok((Arc::new(control_plane), manager, names))
}

/// The signals that ask a program to end.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        eprintln!("\nEnding what was started.");
    }
}
