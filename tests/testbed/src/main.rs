//! `testbed`: builds the control plane's programs, prints their versions, or runs a control plane until Ctrl-C.
#![allow(clippy::print_stdout, reason = "a command line program")]

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use testbed::{Binaries, CapiCrds, ControlPlane, Options};

/// A real Kubernetes control plane on loopback.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build what is missing: etcd, kube-apiserver, kube-controller-manager, kubectl, clusterctl, Cluster API's core manager
    Build,
    /// Print the path of kubectl, building it if it is missing
    Kubectl,
    /// Print each program's version and path
    Versions,
    /// Start a control plane, print its kubeconfig's path and run until Ctrl-C
    Up {
        /// Cluster API's CRDs to install
        #[arg(long, value_enum, default_value = "newest")]
        crds: Crds,
        /// Leave our own CRDs out
        #[arg(long)]
        without_own_crds: bool,
    },
}

#[derive(Clone, ValueEnum)]
enum Crds {
    /// The newest release (v1beta2 and v1beta1)
    Newest,
    /// An old release (v1beta1 only)
    V1beta1,
    /// None
    None,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let mut progress = |line: &str| eprintln!("testbed: {line}");
    match command {
        Command::Build => {
            Binaries::ensure(&mut progress)?;
            Binaries::clusterctl(&mut progress)?;
            Binaries::core_manager(&mut progress)?;
        }
        Command::Kubectl => println!("{}", Binaries::kubectl(&mut progress)?.display()),
        Command::Versions => {
            for (name, path, version) in Binaries::ensure(&mut progress)?.versions()? {
                println!("{name}: {version} ({})", path.display());
            }
        }
        Command::Up { crds, without_own_crds } => up(&crds, !without_own_crds)?,
    }
    Ok(())
}

fn up(crds: &Crds, own_crds: bool) -> Result<()> {
    let capi_crds = match crds {
        Crds::Newest => CapiCrds::Newest,
        Crds::V1beta1 => CapiCrds::V1Beta1Only,
        Crds::None => CapiCrds::None,
    };
    let begin = Instant::now();
    let control_plane = ControlPlane::start(Options { capi_crds, own_crds, ..Options::default() })?;
    eprintln!("testbed: ready after {:.1} s; Ctrl-C ends it", begin.elapsed().as_secs_f32());
    println!("{}", control_plane.kubeconfig().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c()).context("wait for Ctrl-C")
}
