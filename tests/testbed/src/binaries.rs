//! Where the control plane's programs are; builds the missing ones from the Go modules in `tools/`, once per version.
//!
//! Every program is cached on its own, in a folder named after the pins of its module, outside the build folder:
//! `${XDG_CACHE_HOME:-~/.cache}/ipam-in-cluster/testbed/<module>-<hash of its pins>/<program>`.
//! A program found in `$KUBEBUILDER_ASSETS` wins.

use std::fmt::Write as _;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail, ensure};

use crate::process::tail;
use crate::repository;

/// Takes the lines that tell a person how a long build goes on.
pub type Progress<'a> = &'a mut dyn FnMut(&str);

/// The programs of a control plane, all of them present.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The store.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// Garbage collection, namespaces, service accounts.
    pub kube_controller_manager: PathBuf,
    /// The command line client.
    pub kubectl: PathBuf,
}

/// One program and the Go package it is built from.
struct Recipe {
    name: &'static str,
    /// Folder below `tools/`.
    module: &'static str,
    package: &'static str,
    edit: Option<Edit>,
}

/// One line more in a file of the program's module, for what no flag can ask for. The program is built from a folder of links
/// to the module's files, in which this file is another.
struct Edit {
    /// The Go module.
    path: &'static str,
    file: &'static str,
    /// The line comes before the only one that begins so, blanks aside.
    before: &'static str,
    line: &'static str,
}

const ETCD: Recipe = Recipe { name: "etcd", module: "etcd", package: "go.etcd.io/etcd/server/v3", edit: None };
const KUBE_APISERVER: Recipe = kubernetes("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver");
const KUBE_CONTROLLER_MANAGER: Recipe = kubernetes("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager");
const KUBECTL: Recipe = kubernetes("kubectl", "k8s.io/kubernetes/cmd/kubectl");

/// Needed by few tests only, so no control plane waits for it.
const CLUSTERCTL: Recipe =
    Recipe { name: "clusterctl", module: CLUSTER_API, package: "sigs.k8s.io/cluster-api/cmd/clusterctl", edit: None };

/// Likewise. Its webhooks listen on every address of the machine, and no flag says otherwise.
const CORE_MANAGER: Recipe = Recipe {
    name: "cluster-api-manager",
    module: CLUSTER_API,
    package: CLUSTER_API_PATH,
    edit: Some(Edit { path: CLUSTER_API_PATH, file: "main.go", before: "Port:     webhookPort,", line: "Host: \"127.0.0.1\"," }),
};

/// The module of `tools/` with the newest release of Cluster API.
pub(crate) const CLUSTER_API: &str = "cluster-api";
/// Its path among Go modules.
pub(crate) const CLUSTER_API_PATH: &str = "sigs.k8s.io/cluster-api";

const fn kubernetes(name: &'static str, package: &'static str) -> Recipe {
    Recipe { name, module: "kubernetes", package, edit: None }
}

impl Binaries {
    /// Finds every program, building what is missing. Several processes may call this at once: one builds, the others wait.
    pub fn ensure(progress: Progress) -> Result<Self> {
        Ok(Self {
            etcd: ETCD.ensure(progress)?,
            kube_apiserver: KUBE_APISERVER.ensure(progress)?,
            kubectl: KUBECTL.ensure(progress)?,
            kube_controller_manager: KUBE_CONTROLLER_MANAGER.ensure(progress)?,
        })
    }

    /// Finds clusterctl, building it if it is missing.
    pub fn clusterctl(progress: Progress) -> Result<PathBuf> {
        CLUSTERCTL.ensure(progress)
    }

    /// Finds Cluster API's core manager, building it if it is missing.
    pub fn core_manager(progress: Progress) -> Result<PathBuf> {
        CORE_MANAGER.ensure(progress)
    }

    /// Finds kubectl alone.
    pub fn kubectl(progress: Progress) -> Result<PathBuf> {
        KUBECTL.ensure(progress)
    }

    /// Each program's name, path and the version it states.
    pub fn versions(&self) -> Result<Vec<(&'static str, &Path, String)>> {
        let mut versions = Vec::new();
        for (name, path, args) in [
            (ETCD.name, &self.etcd, &["--version"][..]),
            (KUBE_APISERVER.name, &self.kube_apiserver, &["--version"]),
            (KUBE_CONTROLLER_MANAGER.name, &self.kube_controller_manager, &["--version"]),
            (KUBECTL.name, &self.kubectl, &["version", "--client"]),
        ] {
            let output = Command::new(path).args(args).output().with_context(|| format!("run {}", path.display()))?;
            let text = String::from_utf8_lossy(&output.stdout);
            versions.push((name, path.as_path(), text.lines().next().unwrap_or_default().to_owned()));
        }
        Ok(versions)
    }
}

impl Recipe {
    fn ensure(&self, progress: Progress) -> Result<PathBuf> {
        if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS") {
            let given = Path::new(&assets).join(self.name);
            if given.is_file() {
                return Ok(given);
            }
        }
        let module = repository().join("tools").join(self.module);
        let folder = cache_root()?.join(format!("{}-{:016x}", self.module, pins(&module)?));
        let cached = folder.join(self.name);
        if cached.is_file() {
            return Ok(cached);
        }
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let _lock = lock(&folder.join("lock"), progress)?;
        if !cached.is_file() {
            self.build(&module, &folder, &cached, progress)?;
        }
        Ok(cached)
    }

    /// Builds into a temporary folder beside the result, so that moving it into place is one step.
    fn build(&self, module: &Path, folder: &Path, result: &Path, progress: Progress) -> Result<()> {
        let temporary = tempfile::tempdir_in(folder)?;
        let built = temporary.path().join(self.name);
        let log = temporary.path().join("log");
        let output = File::create(&log)?;
        let mut go = Command::new("go");
        go.args([
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            &linker_flags(&fs::read_to_string(module.join("go.mod"))?),
        ])
        .arg("-o")
        .arg(&built);
        if let Some(edit) = &self.edit {
            go.arg("-modfile").arg(edit.make(self.module, temporary.path())?);
        }
        go.arg(self.package)
            .current_dir(module)
            // Without cgo a Go build needs no C compiler.
            .env("CGO_ENABLED", "0")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        progress(&format!("building {} (a few minutes the first time)", self.name));
        let begin = Instant::now();
        let mut child = go.spawn().map_err(go_is_missing)?;
        let mut told = begin;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if told.elapsed() >= Duration::from_secs(15) {
                told = Instant::now();
                progress(&format!("building {}: {} s", self.name, begin.elapsed().as_secs()));
            }
            thread::sleep(Duration::from_millis(100));
        };
        ensure!(status.success(), "go build {} in {} failed ({status}):\n{}", self.package, module.display(), tail(&log, 30));
        fs::rename(&built, result)?;
        progress(&format!("built {} in {} s", self.name, begin.elapsed().as_secs()));
        Ok(())
    }
}

impl Edit {
    /// Makes the edited module in `folder`; the file to build with in place of the `go.mod` that pins the module.
    fn make(&self, pinned_in: &str, folder: &Path) -> Result<PathBuf> {
        let original = go_module_folder(pinned_in, self.path)?;
        let edited = folder.join("edited");
        fs::create_dir(&edited)?;
        for entry in fs::read_dir(&original).with_context(|| format!("read {}", original.display()))? {
            let name = entry?.file_name();
            if name != self.file {
                std::os::unix::fs::symlink(original.join(&name), edited.join(&name))?;
            }
        }
        let text = fs::read_to_string(original.join(self.file))?;
        let text = self.apply(&text).with_context(|| format!("edit {} of {}", self.file, self.path))?;
        fs::write(edited.join(self.file), text)?;

        let module = repository().join("tools").join(pinned_in);
        let pins = folder.join("edited.mod");
        let replacement = format!("\nreplace {} => {}\n", self.path, edited.display());
        fs::write(&pins, fs::read_to_string(module.join("go.mod"))? + &replacement)?;
        fs::copy(module.join("go.sum"), pins.with_extension("sum"))?;
        Ok(pins)
    }

    fn apply(&self, text: &str) -> Result<String> {
        let is_place = |line: &&str| line.trim_start().starts_with(self.before);
        let places = text.lines().filter(is_place).count();
        ensure!(places == 1, "{places} lines begin with {:?}", self.before);
        let mut edited = String::new();
        for line in text.lines() {
            if is_place(&line) {
                let _ = writeln!(edited, "{}", self.line);
            }
            let _ = writeln!(edited, "{line}");
        }
        Ok(edited)
    }
}

/// Where a program keeps its version, by the module it comes from. Without it a Kubernetes program calls itself 0.0.0, and
/// clients look at the server's version.
const VERSION_VARIABLES: [(&str, &str); 2] = [
    ("k8s.io/kubernetes", "k8s.io/component-base/version.gitVersion"),
    (CLUSTER_API_PATH, "sigs.k8s.io/cluster-api/version.gitVersion"),
];

fn linker_flags(go_mod: &str) -> String {
    let mut flags = "-s -w".to_owned();
    for (module, variable) in VERSION_VARIABLES {
        if let Some(version) = pinned_version(go_mod, module) {
            let _ = write!(flags, " -X {variable}={version}");
        }
    }
    flags
}

/// The version of a module that the text of a `go.mod` requires.
fn pinned_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    let words: Vec<&str> = go_mod.split_whitespace().collect();
    words.windows(2).find(|pair| pair[0] == module).map(|pair| pair[1])
}

/// The version of a Go module that a module of `tools/` pins.
pub(crate) fn go_module_version(pinned_in: &str, path: &str) -> Result<String> {
    let file = repository().join("tools").join(pinned_in).join("go.mod");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(pinned_version(&text, path).with_context(|| format!("{} does not require {path}", file.display()))?.to_owned())
}

/// The folder of a Go module that a module of `tools/` pins; downloaded if it is not there yet.
pub(crate) fn go_module_folder(pinned_in: &str, path: &str) -> Result<PathBuf> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", path])
        .current_dir(repository().join("tools").join(pinned_in))
        .stdin(Stdio::null())
        .output()
        .map_err(go_is_missing)?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let parsed: serde_json::Value = serde_json::from_str(&answer).unwrap_or_default();
    let Some(folder) = parsed["Dir"].as_str() else {
        bail!("go mod download {path}: {answer}{}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(folder.into())
}

fn go_is_missing(error: std::io::Error) -> anyhow::Error {
    let context =
        if error.kind() == std::io::ErrorKind::NotFound { "`go` is not in PATH; install Go 1.26 or newer" } else { "start go" };
    anyhow::Error::new(error).context(context)
}

fn cache_root() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(base.join("ipam-in-cluster").join("testbed"))
}

/// A number that changes with a module's pinned versions. It only has to be stable, not secret.
fn pins(module: &Path) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in ["go.mod", "go.sum"] {
        let path = module.join(file);
        fs::read(&path).with_context(|| format!("read {}", path.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Holds the lock file until the returned handle is dropped, or its process ends.
fn lock(path: &Path, progress: Progress) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            progress(&format!("another process is building; waiting for {}", path.display()));
            file.lock()?;
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_program_follows_the_pinned_versions() {
        let module = tempfile::tempdir().unwrap();
        fs::write(module.path().join("go.sum"), "").unwrap();
        let pin = |version: &str| {
            fs::write(module.path().join("go.mod"), format!("require example.org/etcd {version}")).unwrap();
            pins(module.path()).unwrap()
        };
        let (first, second, again) = (pin("v1.0.0"), pin("v1.0.1"), pin("v1.0.0"));
        assert_ne!(first, second);
        assert_eq!(first, again);
    }

    #[test]
    fn a_kubernetes_program_is_told_the_pinned_version() {
        let flags = linker_flags("go 1.25.0\n\nrequire k8s.io/kubernetes v1.2.3\n");
        assert_eq!(flags, "-s -w -X k8s.io/component-base/version.gitVersion=v1.2.3");
        let flags = linker_flags("go 1.25.0\n\nrequire sigs.k8s.io/cluster-api v1.13.6\n");
        assert_eq!(flags, "-s -w -X sigs.k8s.io/cluster-api/version.gitVersion=v1.13.6");
        assert_eq!(linker_flags("go 1.26.0\n\nrequire go.etcd.io/etcd/server/v3 v3.6.16\n"), "-s -w");
    }

    #[test]
    fn an_edit_adds_one_line_at_the_only_place_for_it() {
        let edit = Edit { path: "example.org/web", file: "main.go", before: "Port:", line: "Host: \"127.0.0.1\"," };
        let edited = edit.apply("Options{\n\tPort: 9443,\n}\n").unwrap();
        assert_eq!(edited, "Options{\nHost: \"127.0.0.1\",\n\tPort: 9443,\n}\n");
        assert!(edit.apply("Options{}\n").is_err());
        assert!(edit.apply("Port: 1\nPort: 2\n").is_err());
    }

    #[test]
    fn the_two_cluster_api_releases_differ_in_their_newest_version() {
        for (pinned_in, newest) in [(CLUSTER_API, "v1beta2"), ("cluster-api-v1beta1", "v1beta1")] {
            let folder = go_module_folder(pinned_in, CLUSTER_API_PATH).unwrap();
            let file = folder.join("config/crd/bases/ipam.cluster.x-k8s.io_ipaddressclaims.yaml");
            let crd: serde_json::Value = serde_yaml_ng::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            let versions = crd["spec"]["versions"].as_array().unwrap();
            let stored: Vec<_> = versions.iter().filter(|version| version["storage"] == true).collect();
            assert_eq!(stored.len(), 1);
            assert_eq!(stored[0]["name"], newest);
            assert_eq!(versions.iter().any(|version| version["name"] == "v1beta2"), newest == "v1beta2");
        }
    }
}
