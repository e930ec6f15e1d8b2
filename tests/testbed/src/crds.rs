//! Installs CRDs: Cluster API's from its Go module, ours from `config/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::binaries::{CLUSTER_API, CLUSTER_API_PATH, go_module_folder};
use crate::control_plane::{ControlPlane, Options};
use crate::{eventually_blocking, repository};

/// Which of Cluster API's CRDs (`IPAddress`, `IPAddressClaim`, `Cluster`) a control plane serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CapiCrds {
    /// The newest release: v1beta2 is stored, v1beta1 is served as well.
    Newest,
    /// An old release that knows v1beta1 only.
    V1Beta1Only,
    /// None at all.
    None,
}

impl CapiCrds {
    /// The version of `ipam.cluster.x-k8s.io` that Cluster API's kinds are stored in.
    pub fn version(self) -> Option<&'static str> {
        match self {
            Self::Newest => Some("v1beta2"),
            Self::V1Beta1Only => Some("v1beta1"),
            Self::None => None,
        }
    }

    fn pinned_in(self) -> Option<&'static str> {
        match self {
            Self::Newest => Some(CLUSTER_API),
            Self::V1Beta1Only => Some("cluster-api-v1beta1"),
            Self::None => None,
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

const CAPI_FILES: [&str; 3] =
    ["ipam.cluster.x-k8s.io_ipaddresses.yaml", "ipam.cluster.x-k8s.io_ipaddressclaims.yaml", "cluster.x-k8s.io_clusters.yaml"];

pub(crate) fn install(control_plane: &ControlPlane, options: Options) -> Result<()> {
    let mut files = Vec::new();
    if let Some(module) = options.capi_crds.pinned_in() {
        let bases = go_module_folder(module, CLUSTER_API_PATH)?.join("config/crd/bases");
        files.extend(CAPI_FILES.map(|name| bases.join(name)));
    }
    if options.own_crds {
        files.extend(files_of(&repository().join("config/crd/bases"))?);
    }
    if files.is_empty() {
        return Ok(());
    }
    files.sort();
    apply(control_plane, &files)
}

/// All that Cluster API's core manager works with, in its newest release.
pub(crate) fn install_cluster_apis(control_plane: &ControlPlane) -> Result<()> {
    apply(control_plane, &files_of(&go_module_folder(CLUSTER_API, CLUSTER_API_PATH)?.join("config/crd/bases"))?)
}

/// Those of cert-manager that a certificate for webhooks needs. Nobody acts on them.
pub(crate) fn install_cert_managers(control_plane: &ControlPlane) -> Result<()> {
    let bases = go_module_folder("cert-manager", "github.com/cert-manager/cert-manager")?.join("deploy/crds");
    let files = ["cert-manager.io_certificates.yaml", "cert-manager.io_issuers.yaml"].map(|name| bases.join(name));
    apply(control_plane, &files)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn apply(control_plane: &ControlPlane, files: &[PathBuf]) -> Result<()> {
    let crds = files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
    control_plane.apply(&crds.join("\n---\n"))?;
    wait_until_served(control_plane)
}

fn wait_until_served(control_plane: &ControlPlane) -> Result<()> {
    // kubectl does not wait for one that has no status yet, but fails.
    eventually_blocking(PATIENCE, || {
        control_plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"])?;
        Ok(())
    })
}

/// A CRD as JSON without its conversion webhook: the server would call a Service that does not exist here,
/// and so answer every request for a version that is not the stored one with an error.
fn read(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut crd: Value = serde_yaml_ng::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    if let Some(spec) = crd["spec"].as_object_mut() {
        spec.remove("conversion");
    }
    Ok(crd.to_string())
}
