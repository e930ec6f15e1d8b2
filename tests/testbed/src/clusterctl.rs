//! The real clusterctl with a configuration and a provider repository in a folder of its own. It never asks the internet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Binaries;
use crate::binaries::{CLUSTER_API, CLUSTER_API_PATH, go_module_folder, go_module_version};
use crate::control_plane::ControlPlane;

/// clusterctl, its configuration and its repository of releases. They end with the value.
#[derive(Debug)]
pub struct Clusterctl {
    program: PathBuf,
    core: String,
    folder: TempDir,
}

/// One release of the IPAM provider in a repository.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// `v2.0.0`.
    pub version: &'a str,
    /// The text of `ipam-components.yaml`.
    pub components: &'a str,
    /// The text of `metadata.yaml`.
    pub metadata: &'a str,
}

impl Clusterctl {
    /// Builds clusterctl if it is missing; the repository holds Cluster API's core provider of the same version.
    pub fn new() -> Result<Self> {
        let mut progress = |line: &str| eprintln!("testbed: {line}");
        let program = Binaries::clusterctl(&mut progress)?;
        let folder = tempfile::Builder::new().prefix("ipam-clusterctl-").tempdir()?;
        let version = go_module_version(CLUSTER_API, CLUSTER_API_PATH)?;
        let clusterctl = Self { program, core: format!("cluster-api:{version}"), folder };

        let module = go_module_folder(CLUSTER_API, CLUSTER_API_PATH)?;
        let components = kustomize(&Binaries::kubectl(&mut progress)?, &module.join("config/default"))?;
        let metadata = fs::read_to_string(module.join("metadata.yaml"))?;
        clusterctl.add("cluster-api", &version, "core-components.yaml", &components, &metadata)?;
        clusterctl.configure(&json!({}))?;
        Ok(clusterctl)
    }

    /// Puts a release of the IPAM provider into the repository.
    pub fn add_release(&self, release: Release) -> Result<()> {
        self.add("ipam-in-cluster", release.version, "ipam-components.yaml", release.components, release.metadata)
    }

    /// Puts a file into the overrides layer, `ipam-in-cluster/v2.0.0/ipam-components.yaml`.
    pub fn add_override(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path("overrides").join(path);
        fs::create_dir_all(path.parent().context("a path without folder")?)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }

    /// Lets clusterctl take a component's images from another registry, with another tag.
    pub fn replace_image(&self, component: &str, repository: &str, tag: &str) -> Result<()> {
        self.configure(&json!({component: {"repository": repository, "tag": tag}}))
    }

    /// Runs clusterctl without a cluster and returns what it prints.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .arg("--config")
            .arg(self.path("clusterctl.yaml"))
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("CLUSTERCTL_DISABLE_VERSIONCHECK", "true")
            .env_remove("KUBECONFIG")
            .output()
            .with_context(|| format!("start {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "clusterctl {} ({}): {}", args.join(" "), output.status, said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs clusterctl as administrator of a control plane.
    pub fn run_on(&self, control_plane: &ControlPlane, args: &[&str]) -> Result<String> {
        let kubeconfig = control_plane.kubeconfig().display().to_string();
        self.run(&[args, &["--kubeconfig", &kubeconfig]].concat())
    }

    /// Installs Cluster API's core provider and a release of the IPAM provider, on a control plane that has neither.
    pub fn init(&self, control_plane: &ControlPlane, ipam_version: &str) -> Result<()> {
        control_plane.install_cert_manager_crds()?;
        let ipam = format!("in-cluster:{ipam_version}");
        let none = "-";
        let others = ["--bootstrap", none, "--control-plane", none, "--infrastructure", none];
        let args = [&["init", "--core", &self.core, "--ipam", &ipam][..], &others].concat();
        self.run_on(control_plane, &args)?;
        Ok(())
    }

    fn add(&self, label: &str, version: &str, file: &str, components: &str, metadata: &str) -> Result<()> {
        let folder = self.path("repository").join(label).join(version);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(file), components)?;
        fs::write(folder.join("metadata.yaml"), metadata)?;
        Ok(())
    }

    fn configure(&self, images: &Value) -> Result<()> {
        let repository = self.path("repository").display().to_string();
        let url = |label: &str, file: &str| format!("{repository}/{label}/latest/{file}");
        let configuration = json!({
            "providers": [
                {"name": "cluster-api", "type": "CoreProvider", "url": url("cluster-api", "core-components.yaml")},
                {"name": "in-cluster", "type": "IPAMProvider", "url": url("ipam-in-cluster", "ipam-components.yaml")},
            ],
            "overridesFolder": self.path("overrides"),
            "images": images,
        });
        fs::write(self.path("clusterctl.yaml"), configuration.to_string())?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn kustomize(kubectl: &Path, folder: &Path) -> Result<String> {
    let output = Command::new(kubectl).arg("kustomize").arg(folder).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl kustomize {}: {}", folder.display(), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
