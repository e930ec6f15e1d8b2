//! The folder of one control plane below the system's temporary folder: data, keys, kubeconfigs, logs.
//!
//! It is removed when the control plane is dropped. A killed test run cannot do that, so each folder holds a locked file
//! for as long as its process lives, and the next start removes folders whose lock is free.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "ipam-testbed-";
const LOCK: &str = "in-use";

#[derive(Debug)]
pub(crate) struct Workspace {
    folder: TempDir,
    _lock: File,
}

impl Workspace {
    pub(crate) fn create() -> Result<Self> {
        remove_abandoned();
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().context("create a temporary folder")?;
        let lock = File::create(folder.path().join(LOCK))?;
        lock.lock()?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that only this user may read.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// Best effort: what cannot be removed stays.
fn remove_abandoned() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_abandoned(folder: &Path) -> bool {
    // A folder that was made just now may not be locked yet.
    let old = |file: &File| Some(file.metadata().ok()?.modified().ok()?.elapsed().ok()? > Duration::from_secs(60));
    File::open(folder.join(LOCK)).is_ok_and(|file| old(&file) == Some(true) && file.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_an_old_folder_without_a_living_owner_is_abandoned() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_abandoned(folder.path()));
        let owner = File::create(folder.path().join(LOCK)).unwrap();
        assert!(!is_abandoned(folder.path()));
        owner.set_modified(SystemTime::now() - Duration::from_secs(120)).unwrap();
        owner.lock().unwrap();
        assert!(!is_abandoned(folder.path()));
        drop(owner);
        assert!(is_abandoned(folder.path()));
    }

    #[test]
    fn a_dropped_workspace_leaves_nothing() {
        let workspace = Workspace::create().unwrap();
        let file = workspace.write("token", "secret").unwrap();
        assert!(file.exists());
        let folder = file.parent().unwrap().to_owned();
        drop(workspace);
        assert!(!folder.exists());
    }
}
