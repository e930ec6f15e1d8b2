//! The control plane itself: what tests, the demo and `testbed up` start.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::certificates::Authority;
use crate::crds::{self, CapiCrds};
use crate::etcd::Etcd;
use crate::process::{Process, Program};
use crate::requests::{self, Request};
use crate::workspace::Workspace;
use crate::{free_port, identity};

/// What a new control plane starts with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which of Cluster API's CRDs are installed.
    pub capi_crds: CapiCrds,
    /// Whether our own CRDs (`config/crd/bases`) are installed.
    pub own_crds: bool,
    /// Whether the API server writes down who asked for what, see [`ControlPlane::requests`].
    pub audit: bool,
    /// Whether Services have addresses of both families, IPv4 first.
    pub dual_stack: bool,
    /// Admission plugins besides the ones that are on by default, separated by commas.
    pub admission_plugins: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Self { capi_crds: CapiCrds::Newest, own_crds: true, audit: false, dual_stack: false, admission_plugins: "" }
    }
}

/// A running control plane. Dropping it ends its programs with SIGKILL and removes its files.
///
/// Every method takes `&self`, so one control plane can be shared by the threads of a test run.
#[derive(Debug)]
pub struct ControlPlane {
    // Fields are dropped in this order: users of the store before the store, files last.
    controller_manager: Mutex<Option<Process>>,
    apiserver: Mutex<Option<Process>>,
    etcd: Mutex<Etcd>,
    apiserver_program: Program,
    binaries: Binaries,
    access: Access,
    admin: PathBuf,
    manager: Mutex<Option<PathBuf>>,
    pub(crate) workspace: Workspace,
}

/// What a client needs to reach the API server.
#[derive(Debug)]
struct Access {
    url: String,
    authority: String,
}

impl Access {
    /// A kubeconfig, which is YAML and therefore may be JSON.
    fn kubeconfig(&self, token: &str) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "testbed",
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
            "clusters": [{"name": "testbed", "cluster": {
                "server": self.url,
                "certificate-authority": self.authority,
            }}],
            "users": [{"name": "testbed", "user": {"token": token}}],
        })
        .to_string()
    }
}

impl ControlPlane {
    /// Builds what is missing, starts everything and returns when the API server is ready and the CRDs are served.
    pub fn start(options: Options) -> Result<Self> {
        let binaries = Binaries::ensure(&mut |line| eprintln!("testbed: {line}"))?;
        // A free port can be taken by somebody else before the program listens on it. That is the one failure worth a second try.
        Self::start_once(binaries.clone(), options).or_else(|first| {
            let clash = format!("{first:#}").contains("address already in use");
            if clash { Self::start_once(binaries, options) } else { Err(first) }
        })
    }

    fn start_once(binaries: Binaries, options: Options) -> Result<Self> {
        let workspace = Workspace::create()?;
        let authority = write_certificates(&workspace)?;
        let token = uuid::Uuid::new_v4().to_string();
        workspace.write("tokens.csv", &format!("{token},admin,admin,system:masters\n"))?;
        let etcd = Etcd::start(&binaries.etcd, &workspace)?;
        let port = free_port()?;
        let access = Access { url: format!("https://127.0.0.1:{port}"), authority: authority.display().to_string() };
        let admin = workspace.write("admin.kubeconfig", &access.kubeconfig(&token))?;
        let mut apiserver_program = apiserver_program(&binaries, &workspace, etcd.url(), port);
        apiserver_program.args.extend(service_flags(options));
        if options.audit {
            apiserver_program.args.extend(requests::audit_flags(&workspace)?);
        }
        let control_plane = Self {
            controller_manager: Mutex::new(None),
            apiserver: Mutex::new(None),
            apiserver_program,
            etcd: Mutex::new(etcd),
            binaries,
            access,
            admin,
            manager: Mutex::new(None),
            workspace,
        };
        control_plane.start_apiserver()?;
        crds::install(&control_plane, options)?;
        // Started after the CRDs: its garbage collector would see new kinds only at its next look, half a minute later.
        control_plane.start_controller_manager()?;
        Ok(control_plane)
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// The API server's address, `https://127.0.0.1:<port>`; the same for the control plane's whole life.
    pub fn url(&self) -> &str {
        &self.access.url
    }

    /// The PEM file with the authority that signed the API server's certificate.
    pub fn authority(&self) -> &Path {
        Path::new(&self.access.authority)
    }

    /// A client with the administrator's rights. Call it inside a tokio runtime; the client belongs to that runtime.
    pub async fn client(&self) -> Result<kube::Client> {
        self.client_as(&self.admin).await
    }

    /// A client with the rights of a kubeconfig file, for example the manager's.
    pub async fn client_as(&self, kubeconfig: &Path) -> Result<kube::Client> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// Runs kubectl as administrator and returns what it prints.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        Ok(self.kubectl_with_input(args, "")?.0)
    }

    /// Creates or updates the objects of a YAML text (server-side apply, as administrator).
    pub fn apply(&self, yaml: &str) -> Result<String> {
        Ok(self.kubectl_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], yaml)?.0)
    }

    /// Applies the objects of a YAML text as a person does (client-side apply), and returns what kubectl prints and warns of.
    pub fn apply_by_hand(&self, yaml: &str) -> Result<(String, String)> {
        self.kubectl_with_input(&["apply", "-f", "-"], yaml)
    }

    /// The object that would be created from a YAML text, without creating it.
    pub fn dry_run(&self, yaml: &str) -> Result<Value> {
        let (printed, _) = self.kubectl_with_input(&["create", "--dry-run=server", "-o", "json", "-f", "-"], yaml)?;
        serde_json::from_str(&printed).with_context(|| format!("read {printed}"))
    }

    /// What kubectl prints to its output and to its error output.
    fn kubectl_with_input(&self, args: &[&str], input: &str) -> Result<(String, String)> {
        let mut child = Command::new(&self.binaries.kubectl)
            .args(args)
            .env("KUBECONFIG", &self.admin)
            // Its discovery cache belongs to this control plane.
            .env("HOME", self.workspace.path("home"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.binaries.kubectl.display()))?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        // kubectl reads all input before it prints, so writing first cannot block for ever. A closed pipe shows in its status.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        let [printed, said] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), said.trim());
        }
        Ok((printed, said))
    }

    /// Starts the API server, on the port it always has, and waits until it is ready. Does nothing if it runs.
    pub fn start_apiserver(&self) -> Result<()> {
        let mut running = lock(&self.apiserver);
        if running.is_some() {
            return Ok(());
        }
        let process = running.insert(Process::start(&self.apiserver_program)?);
        process.becomes(Duration::from_secs(60), || {
            let answer = self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=5s"])?;
            ensure!(answer == "ok", "/readyz says {answer}");
            Ok(())
        })
    }

    /// Ends the API server at once (SIGKILL); its clients see closed connections, then refused ones.
    pub fn stop_apiserver(&self) {
        lock(&self.apiserver).take();
    }

    /// Ends etcd at once and starts it again on its data.
    pub fn restart_etcd(&self) -> Result<()> {
        lock(&self.etcd).restart()
    }

    /// Makes etcd forget all history: watches and lists from an older `resourceVersion` are answered with 410 Gone.
    pub fn compact_etcd(&self) -> Result<()> {
        lock(&self.etcd).compact()
    }

    /// A custom resource as it is stored, by `group/plural/namespace/name`.
    pub fn stored(&self, path: &str) -> Result<String> {
        Ok(String::from_utf8(lock(&self.etcd).get(&format!("/registry/{path}"))?)?)
    }

    /// Puts custom resources into the store past the API server, which sees them come: the way to very many. By the same paths.
    pub fn store(&self, objects: impl IntoIterator<Item = (String, String)>) -> Result<()> {
        let pairs: Vec<_> = objects.into_iter().map(|(path, text)| (format!("/registry/{path}"), text)).collect();
        lock(&self.etcd).put(&pairs)
    }

    /// Installs CRDs on a running control plane that was started without them.
    pub fn install_crds(&self, options: Options) -> Result<()> {
        crds::install(self, options)
    }

    /// Installs cert-manager's Issuer and Certificate: clusterctl then takes cert-manager for installed.
    pub fn install_cert_manager_crds(&self) -> Result<()> {
        crds::install_cert_managers(self)
    }

    /// Every request that the API server has answered so far, in order; it must have been started with [`Options::audit`].
    pub fn requests(&self) -> Result<Vec<Request>> {
        requests::read(&self.workspace)
    }

    /// The kubeconfig of the `ServiceAccount` the manager is installed with; installs it and its roles at the first call.
    pub fn install_manager_identity(&self) -> Result<PathBuf> {
        let mut manager = lock(&self.manager);
        if let Some(kubeconfig) = &*manager {
            return Ok(kubeconfig.clone());
        }
        identity::install(self)?;
        let kubeconfig = self.kubeconfig_of(identity::MANAGER_NAMESPACE, identity::SERVICE_ACCOUNT)?;
        Ok(manager.insert(kubeconfig).clone())
    }

    /// Gives that `ServiceAccount` the role that external IP sources need besides.
    pub fn install_external_ip_role(&self) -> Result<()> {
        self.install_manager_identity()?;
        identity::install_external_ip_role(self)
    }

    /// Writes a kubeconfig with a token of an existing `ServiceAccount`.
    pub fn kubeconfig_of(&self, namespace: &str, service_account: &str) -> Result<PathBuf> {
        let token = self.kubectl(&["create", "token", service_account, "-n", namespace, "--duration=24h"])?;
        ensure!(!token.trim().is_empty(), "kubectl create token printed nothing");
        self.workspace.write(&format!("{namespace}.{service_account}.kubeconfig"), &self.access.kubeconfig(token.trim()))
    }

    /// The ends of the programs' logs, for the report of a failed test.
    pub fn logs(&self, lines: usize) -> String {
        let mut text = String::new();
        for name in ["etcd", "kube-apiserver", "kube-controller-manager"] {
            let end = crate::process::tail(&self.workspace.path(&format!("{name}.log")), lines);
            let _ = writeln!(text, "--- {name}\n{end}");
        }
        text
    }

    fn start_controller_manager(&self) -> Result<()> {
        let path = |name: &str| self.workspace.path(name).display().to_string();
        let args = vec![
            format!("--kubeconfig={}", self.admin.display()),
            format!("--service-account-private-key-file={}", path("service-accounts.key")),
            "--controllers=*,-nodeipam,-node-lifecycle-controller".to_owned(),
            "--leader-elect=false".to_owned(),
            // No listener: it would take a fixed port.
            "--secure-port=0".to_owned(),
            format!("--cert-dir={}", path("controller-manager")),
            "--kube-api-qps=200".to_owned(),
            "--kube-api-burst=400".to_owned(),
        ];
        let log = self.workspace.path("kube-controller-manager.log");
        let process = Process::start(&Program { path: self.binaries.kube_controller_manager.clone(), args, log })?;
        // The first thing it does that a client can see.
        process.becomes(Duration::from_secs(60), || self.kubectl(&["get", "serviceaccount", "default"]))?;
        *lock(&self.controller_manager) = Some(process);
        Ok(())
    }
}

fn apiserver_program(binaries: &Binaries, workspace: &Workspace, etcd: &str, port: u16) -> Program {
    let path = |name: &str| workspace.path(name).display().to_string();
    let args = vec![
        format!("--etcd-servers={etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".to_owned(),
        // Otherwise it looks for a default route, which a test machine need not have.
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--cert-dir={}", path("apiserver")),
        format!("--tls-cert-file={}", path("apiserver.crt")),
        format!("--tls-private-key-file={}", path("apiserver.key")),
        format!("--service-account-key-file={}", path("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", path("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--token-auth-file={}", path("tokens.csv")),
        "--authorization-mode=RBAC".to_owned(),
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--allow-privileged=true".to_owned(),
    ];
    Program { path: binaries.kube_apiserver.clone(), args, log: workspace.path("kube-apiserver.log") }
}

/// Which addresses Services have, and what is asked about them before they are stored.
fn service_flags(options: Options) -> Vec<String> {
    let more = if options.dual_stack { ",fd00:10:96::/112" } else { "" };
    let mut flags = vec![format!("--service-cluster-ip-range=10.96.0.0/16{more}")];
    if !options.admission_plugins.is_empty() {
        flags.push(format!("--enable-admission-plugins={}", options.admission_plugins));
    }
    flags
}

/// Writes the API server's certificate and key and the key that signs tokens; returns the authority's file.
fn write_certificates(workspace: &Workspace) -> Result<PathBuf> {
    let authority = Authority::create()?;
    let issued = authority.issue()?;
    workspace.write("apiserver.crt", &issued.certificate)?;
    workspace.write("apiserver.key", &issued.key)?;
    let service_accounts = KeyPair::generate()?;
    workspace.write("service-accounts.key", &service_accounts.serialize_pem())?;
    workspace.write("service-accounts.pub", &service_accounts.public_key_pem())?;
    workspace.write("authority.crt", &authority.pem())
}

/// A panic of one test thread must not take the control plane from the others.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
