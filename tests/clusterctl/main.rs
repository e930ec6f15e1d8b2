//! What the real clusterctl does with a release on real control planes: install it, put it in the place of the provider
//! that is there, move a cluster to another control plane. The managers run beside the API servers, as what is installed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod installation;
mod moving;
mod self_signed;
mod takeover;

use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde_json::Value;
use testbed::{BuiltRelease, Clusterctl, ControlPlane, MANAGER_NAMESPACE, Manager, ManagerCommand, Options};

/// The Deployment's and the `ServiceAccount`'s name.
const INSTALLED: &str = "capi-ipam-in-cluster-controller-manager";

fn release() -> &'static BuiltRelease {
    static RELEASE: OnceLock<BuiltRelease> = OnceLock::new();
    RELEASE.get_or_init(|| BuiltRelease::with(env!("CARGO_BIN_EXE_manager")).unwrap())
}

/// clusterctl with this release in its repository.
fn clusterctl() -> Result<Clusterctl> {
    let clusterctl = Clusterctl::new()?;
    clusterctl.add_release(release().for_repository())?;
    Ok(clusterctl)
}

/// A control plane without any CRD, as clusterctl finds it; it writes down who asks for what.
fn bare() -> Options {
    Options { capi_crds: testbed::CapiCrds::None, own_crds: false, audit: true, ..Options::default() }
}

/// Applies a text as people do, without server-side apply.
fn apply(control_plane: &ControlPlane, text: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    control_plane.kubectl(&["apply", "--filename", &file.path().display().to_string()])?;
    Ok(())
}

/// Takes the webhooks' registrations away: nobody listens behind their Services here.
fn without_webhooks(control_plane: &ControlPlane) -> Result<()> {
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        control_plane.kubectl(&["delete", kind, "--all"])?;
    }
    Ok(())
}

/// Takes Cluster API's own registrations away: its controllers do not run here.
fn without_webhooks_of_cluster_api(control_plane: &ControlPlane) -> Result<()> {
    for kind in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        control_plane.kubectl(&["delete", kind, "-l", "cluster.x-k8s.io/provider=cluster-api"])?;
    }
    Ok(())
}

/// The arguments of the installed Deployment.
fn installed_arguments(control_plane: &ControlPlane) -> Result<Vec<String>> {
    let text = control_plane.kubectl(&["get", "deployment", INSTALLED, "-n", MANAGER_NAMESPACE, "-o", "json"])?;
    let deployment: Value = serde_json::from_str(&text)?;
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    serde_json::from_value(arguments.clone()).context("a Deployment without arguments")
}

/// The manager as the installed `ServiceAccount`, with the installed Deployment's arguments.
fn installed(control_plane: &ControlPlane) -> Result<ManagerCommand> {
    let kubeconfig = control_plane.kubeconfig_of(MANAGER_NAMESPACE, INSTALLED)?;
    let mut command = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).without_subcommand().kubeconfig(kubeconfig);
    for argument in installed_arguments(control_plane)? {
        command = command.arg(argument);
    }
    // What a pod knows from its environment, and a port that everybody would want here.
    Ok(command.arg(format!("--leader-election-namespace={MANAGER_NAMESPACE}")).arg("--diagnostics-address=0"))
}

fn start_installed(control_plane: &ControlPlane) -> Result<Manager> {
    installed(control_plane)?.start(control_plane)
}
