//! A real Kubernetes control plane on loopback: etcd, kube-apiserver and kube-controller-manager, with Cluster API's real CRDs.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let control_plane = testbed::ControlPlane::start(testbed::Options::default())?;
//! println!("{}", control_plane.kubectl(&["get", "--raw", "/readyz"])?);
//! # Ok(()) }
//! ```
//!
//! Starting takes a few seconds once the programs are built (see [`Binaries`]); everything ends when the value is dropped,
//! or when its process dies in any way. Nothing here needs root, a container runtime or the internet after the first build.

mod background;
mod binaries;
mod certificates;
mod clusterctl;
mod control_plane;
mod core_manager;
mod crds;
mod dns;
mod etcd;
mod identity;
mod manager;
mod process;
mod proxy;
mod release;
mod requests;
mod sample;
mod scene;
pub mod trial;
mod tunnels;
mod waiting;
mod wall_clock;
mod web;
mod webhooks;
mod workspace;

use std::path::Path;

pub use binaries::{Binaries, Progress};
pub use clusterctl::{Clusterctl, Release};
pub use control_plane::{ControlPlane, Options};
pub use core_manager::CoreManager;
pub use crds::CapiCrds;
pub use dns::{DnsServer, Fault};
pub use identity::MANAGER_NAMESPACE;
pub use manager::{Manager, ManagerCommand};
pub use proxy::{Faults, Proxy, Tally};
pub use release::BuiltRelease;
pub use requests::Request;
pub use sample::Sample;
pub use scene::{Counts, Pool, QUIET, Ready, SOURCE, Scene, conditions_of, ready_of};
pub use tunnels::TunnelProxy;
pub use waiting::{consistently, eventually, eventually_blocking};
pub use wall_clock::WallClock;
pub use web::{Answer, WebServer};
pub use webhooks::Webhooks;

/// The repository's root: where `tools/` and `config/` are.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A port of the loopback address that was free a moment ago.
///
/// Somebody else can take it before it is used; [`ControlPlane::start`] then tries once more with other ports.
fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
