//! The manager as a process: ready, measured, stopped, killed and started again.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{ControlPlane, ManagerCommand, Options};

use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![a_manager_is_measured_and_stops_with_success_when_asked]
}

async fn a_manager_is_measured_and_stops_with_success_when_asked() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).start(&control_plane)?;
    assert_eq!(manager.health("/healthz")?.0, 200);
    assert!(manager.metrics()?.contains("# TYPE"));
    assert!(manager.rss_bytes()? > 1 << 20);

    let first = manager.pid();
    manager.restart()?;
    manager.wait_until_ready()?;
    assert_ne!(manager.pid(), first);

    let code = manager.terminate(Duration::from_secs(30))?;
    ensure!(code == 0, "exit code {code}; the end of the log:\n{}", manager.log_tail(40));
    Ok(())
}
