//! A manager process beside a control plane: start, kill, restart, ask for health and metrics.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use ureq::tls::TlsConfig;

use crate::control_plane::{ControlPlane, lock};
use crate::free_port;
use crate::process::{Process, Program, tail};
use crate::wall_clock::WallClock;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// How a manager is to be started.
///
/// The environment variable `IPAM_MANAGER`, a whole command line separated by spaces, replaces the given program:
/// so any other manager can be run through the same tests.
#[derive(Clone, Debug)]
pub struct ManagerCommand {
    program: PathBuf,
    args: Vec<String>,
    kubeconfig: Option<PathBuf>,
    wait_until_ready: bool,
    /// A program and its arguments, before the manager's own.
    through: Vec<String>,
    secure: bool,
}

impl ManagerCommand {
    /// A command for this program; integration tests pass `env!("CARGO_BIN_EXE_manager")`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let given = env::var("IPAM_MANAGER").unwrap_or_default();
        Self::from_line(&given).unwrap_or_else(|| Self::of(program.into(), vec!["run".to_owned()]))
    }

    /// A whole command line, separated by spaces; `None` if it is blank.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some(Self::of(words.next()?.into(), words.collect()))
    }

    fn of(program: PathBuf, args: Vec<String>) -> Self {
        Self { program, args, kubeconfig: None, wait_until_ready: true, through: Vec::new(), secure: false }
    }

    /// Leaves the subcommand out: the call begins with a flag, as in Deployments of earlier releases.
    #[must_use]
    pub fn without_subcommand(mut self) -> Self {
        self.args.retain(|arg| arg != "run");
        self
    }

    /// Adds a flag, after the ones every manager here gets.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Uses this kubeconfig file instead of the one of the installed `ServiceAccount`.
    #[must_use]
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// Lets [`ManagerCommand::start`] return without waiting for `/readyz`.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// Lets the manager see an environment variable.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.through(&["env", &format!("{name}={value}")])
    }

    /// Lets the manager see a wall clock that jumps.
    #[must_use]
    pub fn wall_clock(self, clock: &WallClock) -> Self {
        let (library, offset) = (clock.library().display().to_string(), clock.offset().display().to_string());
        self.env("LD_PRELOAD", &library).env("WALL_CLOCK_OFFSET", &offset)
    }

    /// Lets the manager see another `/etc/resolv.conf`, in a mount namespace of its own.
    #[must_use]
    pub fn resolv_conf(self, file: &Path) -> Self {
        // A process that enters a user namespace is no longer ended with its owner, so that is asked for once more.
        let script = r#"mount --bind "$0" /etc/resolv.conf && exec setpriv --pdeathsig KILL -- "$@""#;
        let file = file.display().to_string();
        self.through(&["unshare", "--map-root-user", "--mount", "--", "sh", "-c", script, &file])
    }

    /// Starts the manager through another program, which must become it.
    fn through(mut self, words: &[&str]) -> Self {
        self.through.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Lets the manager serve its diagnostics as it does by default: all of them, to callers with leave. [`Manager::diagnostics`]
    /// asks as the administrator.
    #[must_use]
    pub fn secure_diagnostics(mut self) -> Self {
        self.secure = true;
        self
    }

    /// Starts the manager against a control plane, on free ports, with plain metrics, and without webhooks unless
    /// [`Webhooks`](crate::Webhooks) has added them.
    pub fn start(&self, control_plane: &ControlPlane) -> Result<Manager> {
        let kubeconfig = match &self.kubeconfig {
            Some(path) => path.clone(),
            None => control_plane.install_manager_identity()?,
        };
        let (health, diagnostics) = (free_port()?, free_port()?);
        let mut args = self.args.clone();
        // Flags given by the test come last, so that they win; a subcommand has to stay first.
        let own = args.iter().position(|arg| arg.starts_with('-')).unwrap_or(args.len());
        args.splice(
            own..own,
            [
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--health-probe-bind-address=127.0.0.1:{health}"),
                format!("--diagnostics-address=127.0.0.1:{diagnostics}"),
                format!("--insecure-diagnostics={}", !self.secure),
                "--webhook-port=0".to_owned(),
            ],
        );
        let log = control_plane.workspace.path(&format!("manager-{health}.log"));
        let program = match self.through.split_first() {
            None => Program { path: self.program.clone(), args, log },
            Some((path, words)) => {
                let own = [self.program.display().to_string()];
                let args = words.iter().cloned().chain(own).chain(args).collect();
                Program { path: path.into(), args, log }
            }
        };
        let process = Mutex::new(Process::start(&program)?);
        let token = if self.secure { Some(administrators_token(control_plane)?) } else { None };
        let manager = Manager { process, program, health, diagnostics, token };
        if self.wait_until_ready {
            manager.wait_until_ready()?;
        }
        Ok(manager)
    }
}

/// A manager process. Dropping it ends the process with SIGKILL.
#[derive(Debug)]
pub struct Manager {
    process: Mutex<Process>,
    program: Program,
    health: u16,
    diagnostics: u16,
    /// What callers of the diagnostics show, if these are secure.
    token: Option<String>,
}

impl Manager {
    /// Waits until `/readyz` answers 200; fails at once, with the log's end, if the manager ends.
    pub fn wait_until_ready(&self) -> Result<()> {
        lock(&self.process).becomes(READY_WITHIN, || {
            let (status, body) = self.health("/readyz?verbose")?;
            ensure!(status == 200, "/readyz answers {status}: {body}");
            Ok(())
        })
    }

    /// Ends the process at once (SIGKILL).
    pub fn kill(&self) {
        lock(&self.process).kill();
    }

    /// Asks the process to end (SIGTERM) and returns its exit code, or fails after `deadline`.
    pub fn terminate(&self, deadline: Duration) -> Result<i32> {
        lock(&self.process).terminate(deadline)
    }

    /// Stops the process where it is (SIGSTOP), as a machine does that is suspended; [`Manager::resume`] lets it go on.
    pub fn pause(&self) {
        lock(&self.process).signal(Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        lock(&self.process).signal(Signal::CONT);
    }

    /// Waits until the process ends by itself and returns its exit code.
    pub fn exit_code(&self, deadline: Duration) -> Result<i32> {
        let status = lock(&self.process).wait(deadline).with_context(|| format!("the manager still runs after {deadline:?}"))?;
        status.code().context("the manager was ended by a signal")
    }

    /// Kills the process if it runs and starts it again with the same flags and ports; does not wait until it is ready.
    pub fn restart(&self) -> Result<()> {
        let mut process = lock(&self.process);
        process.kill();
        *process = Process::start(&self.program)?;
        Ok(())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        lock(&self.process).pid()
    }

    /// Status and body of a path of the health listener, for example `/readyz?verbose`.
    pub fn health(&self, path: &str) -> Result<(u16, String)> {
        get(&format!("http://127.0.0.1:{}{path}", self.health), None)
    }

    /// The port of the diagnostics listener.
    pub fn diagnostics_port(&self) -> u16 {
        self.diagnostics
    }

    /// Status and body of a path of the diagnostics listener. Without [`ManagerCommand::secure_diagnostics`] it only has metrics.
    pub fn diagnostics(&self, path: &str) -> Result<(u16, String)> {
        let scheme = if self.token.is_some() { "https" } else { "http" };
        get(&format!("{scheme}://127.0.0.1:{}{path}", self.diagnostics), self.token.as_deref())
    }

    /// Where the diagnostics listener is, for people.
    pub fn diagnostics_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.diagnostics)
    }

    /// The metrics in Prometheus' text format.
    pub fn metrics(&self) -> Result<String> {
        match self.diagnostics("/metrics")? {
            (200, body) => Ok(body),
            (status, body) => bail!("/metrics answers {status}: {body}"),
        }
    }

    /// Everything the manager has logged, through all restarts.
    pub fn log(&self) -> String {
        tail(&self.program.log, usize::MAX)
    }

    /// The last lines of the log, for the report of a failed test.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.program.log, lines)
    }

    /// Processor time used so far, in user and kernel mode.
    pub fn cpu_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The name in parentheses may hold blanks; utime and stime are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').context("read /proc/<pid>/stat")?.1.split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the process has ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("read VmRSS:{line}"))?;
        Ok(kib * 1024)
    }
}

fn administrators_token(control_plane: &ControlPlane) -> Result<String> {
    let config: Value = serde_json::from_slice(&std::fs::read(control_plane.kubeconfig())?)?;
    config["users"][0]["user"]["token"].as_str().map(str::to_owned).context("a kubeconfig without token")
}

fn get(url: &str, token: Option<&str>) -> Result<(u16, String)> {
    // Nobody has signed the certificate of a manager's diagnostics.
    let tls = TlsConfig::builder()
        .disable_verification(true)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(10)));
    let agent: ureq::Agent = agent.tls_config(tls).build().into();
    let mut request = agent.get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call()?;
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_string()?;
    Ok((answer.status().as_u16(), body))
}
