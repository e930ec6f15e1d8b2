//! The manager binary: `manager run` and `manager manifests`.

mod admission;
mod flags;
mod logs;
mod manifests;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use controllers::kit::shutdown::{ExitReason, Shutdown};
use flags::{Invocation, Run};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let done = match flags::parse(std::env::args().skip(1)) {
        Ok(Invocation::Run(run)) => manage(*run),
        Ok(Invocation::Manifests { dir, image }) => print_manifests(dir.as_deref(), image).map(|()| ExitCode::SUCCESS),
        Err(usage) => usage.exit(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("manager: {error:#}");
        ExitCode::FAILURE
    })
}

fn print_manifests(dir: Option<&Path>, image: String) -> anyhow::Result<()> {
    let settings = manifests::Settings { image };
    match dir {
        Some(dir) => manifests::write(dir, &settings),
        None => manifests::print(&mut std::io::stdout().lock(), &settings),
    }
}

fn manage(run: Run) -> anyhow::Result<ExitCode> {
    let log_level = logs::set_up(run.verbosity, run.log_format)?;
    for warning in &run.warnings {
        tracing::warn!("{warning}");
    }
    // Every TLS connection of the process uses this provider. It fails only if one is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let shutdown = Shutdown::new();
    let webhooks = run.webhooks.clone();
    let config = run.config(log_level, shutdown.clone());
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let reason = runtime.block_on(async {
        tokio::spawn(stop_on_signal(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, shutdown));
        let scope = webhooks::Scope { namespace: config.namespace.clone(), watch_filter: config.watch_filter.clone() };
        let api_targets = config.external_ip_sources.as_ref().map(|sources| sources.api_allow_cidrs.clone());
        let manager = controllers::start(config).await?;
        if let Some(settings) = webhooks {
            admission::serve(&manager, settings, scope, api_targets.unwrap_or_default()).await?;
        }
        anyhow::Ok(manager.run().await)
    })?;
    runtime.shutdown_background();
    Ok(match reason {
        ExitReason::Stopped => ExitCode::SUCCESS,
        ExitReason::LeadershipLost => ExitCode::FAILURE,
    })
}

/// The first signal asks for a stop, the second one does not wait for it.
async fn stop_on_signal(mut terminate: Signal, mut interrupt: Signal, shutdown: Shutdown) {
    for first in [true, false] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if first {
            tracing::info!("asked to stop");
            shutdown.trigger();
        }
    }
    std::process::exit(1);
}
