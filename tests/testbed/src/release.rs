//! Builds what a release consists of, as `make release` does, for tests of it and for clusterctl's repository.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{Binaries, Release, repository};

/// The files of this version's release, in a folder that ends with the value.
#[derive(Debug)]
pub struct BuiltRelease {
    folder: TempDir,
    components: String,
    metadata: String,
}

impl BuiltRelease {
    /// The version of the workspace, as releases are called.
    pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));

    /// The image that its Deployment runs.
    pub const IMAGE: &str = concat!("localhost/ipam-in-cluster:v", env!("CARGO_PKG_VERSION"));

    /// Builds it with a manager binary; integration tests pass `env!("CARGO_BIN_EXE_manager")`.
    pub fn with(manager: impl AsRef<Path>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ipam-release-").tempdir()?;
        let kubectl = Binaries::kubectl(&mut |line| eprintln!("testbed: {line}"))?;
        let output = Command::new(repository().join(".ci/release"))
            .args([Self::VERSION, Self::IMAGE])
            .arg(folder.path())
            .env("MANAGER", manager.as_ref())
            .env("KUBECTL", kubectl)
            .output()
            .context("start .ci/release")?;
        ensure!(output.status.success(), ".ci/release: {}", String::from_utf8_lossy(&output.stderr).trim());
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).with_context(|| format!("read {name}"));
        let (components, metadata) = (read("ipam-components.yaml")?, read("metadata.yaml")?);
        Ok(Self { folder, components, metadata })
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The text of `ipam-components.yaml`.
    pub fn components(&self) -> &str {
        &self.components
    }

    /// The release for a repository of clusterctl.
    pub fn for_repository(&self) -> Release<'_> {
        Release { version: Self::VERSION, components: &self.components, metadata: &self.metadata }
    }
}
