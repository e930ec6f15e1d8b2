//! One child process that cannot outlive its owner; used for every program the test bed runs.
//!
//! Each child is started through `setpriv --pdeathsig KILL`, so the kernel ends it even when the owner is killed with SIGKILL.
//! That signal follows the *thread* that started the child, not its process. So every child has a keeper thread,
//! which starts it and then waits for its end, and therefore lives exactly as long as the child.

use std::fs::{File, OpenOptions};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// How to start a program. The log file is appended to.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) log: PathBuf,
}

/// A running program. Dropping it ends the program with SIGKILL.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    name: String,
    log: PathBuf,
    end: Arc<End>,
}

/// How the child ended. The lock is held while a signal is sent and while the child is reaped, so that a signal never
/// meets a process id that was given to somebody else.
#[derive(Debug, Default)]
struct End {
    status: Mutex<Option<ExitStatus>>,
    reaped: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `program` in a process group of its own: Ctrl-C reaches the owner only, which then ends its children in order.
    pub(crate) fn start(program: &Program) -> Result<Self> {
        let name = program.path.file_name().unwrap_or(program.path.as_os_str()).to_string_lossy().into_owned();
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&program.log)
            .with_context(|| format!("open {}", program.log.display()))?;
        let command = command(program, &log)?;
        let end = Arc::new(End::default());
        let (started, start) = mpsc::sync_channel(1);
        let keeper_end = Arc::clone(&end);
        thread::Builder::new().name(format!("keeper of {name}")).spawn(move || keep(command, &started, &keeper_end))?;
        let pid = start
            .recv()
            .map_err(|_| anyhow!("the keeper of {name} died"))?
            .with_context(|| format!("start {} through setpriv (package util-linux)", program.path.display()))?;
        Ok(Self { pid, name, log: program.log.clone(), end })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Fails, with the end of the log, if the program has ended.
    pub(crate) fn check_running(&self) -> Result<()> {
        match *self.end.lock() {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; the end of its log:\n{}", self.name, tail(&self.log, 30)),
        }
    }

    /// Asks again and again until the answer is `Ok`; fails at once if the program ends, and after `deadline`.
    pub(crate) fn becomes<T>(&self, deadline: Duration, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    self.check_running()?;
                    if begin.elapsed() >= deadline {
                        let log = tail(&self.log, 30);
                        return Err(error).with_context(|| {
                            format!("{} is not ready after {deadline:?}; the end of its log:\n{log}", self.name)
                        });
                    }
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the program at once and returns when it is gone.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(30));
    }

    /// Asks the program to end; its exit code, or an error after `deadline`.
    pub(crate) fn terminate(&self, deadline: Duration) -> Result<i32> {
        self.signal(Signal::TERM);
        let status = self.wait(deadline).ok_or_else(|| {
            anyhow!("{} still runs {deadline:?} after SIGTERM; the end of its log:\n{}", self.name, tail(&self.log, 30))
        })?;
        status.code().ok_or_else(|| anyhow!("{} was ended by signal {:?}", self.name, status.signal()))
    }

    /// Waits until the program has ended; `None` if it still runs after `deadline`.
    pub(crate) fn wait(&self, deadline: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + deadline;
        let mut status = self.end.lock();
        while status.is_none() {
            let left = until.checked_duration_since(Instant::now())?;
            status = self.end.reaped.wait_timeout(status, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *status
    }

    /// Sends a signal, if the program still runs.
    pub(crate) fn signal(&self, signal: Signal) {
        let status = self.end.lock();
        if status.is_none() {
            // The child is not reaped while the lock is held, so its id exists and this cannot fail.
            let _ = kill_process(self.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(program: &Program, log: &File) -> Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&program.path).args(&program.args);
    command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?).process_group(0);
    Ok(command)
}

/// The keeper thread: starts the child, reports its id, reaps it.
fn keep(mut command: Command, started: &mpsc::SyncSender<std::io::Result<Pid>>, end: &End) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&child);
    let _ = started.send(Ok(pid));
    // Wait without reaping first: the id must stay the child's own until the lock is held.
    while matches!(waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT), Err(rustix::io::Errno::INTR)) {}
    let mut status = end.lock();
    *status = Some(child.wait().unwrap_or_else(|_| ExitStatus::from_raw(-1)));
    end.reaped.notify_all();
}

/// The last `lines` lines of a file; empty if it cannot be read.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Process {
        let args = vec!["-c".to_owned(), script.to_owned()];
        Process::start(&Program { path: "sh".into(), args, log: dir.join("log") }).unwrap()
    }

    #[test]
    fn a_program_that_ends_by_itself_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell(dir.path(), "echo no room left; exit 3");
        assert_eq!(process.wait(Duration::from_secs(10)).and_then(|status| status.code()), Some(3));
        let error = process.check_running().unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no room left"), "{error}");
    }

    #[test]
    fn terminate_returns_the_exit_code_a_program_chose() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell(dir.path(), "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        while tail(&dir.path().join("log"), 1) != "ready" {
            thread::yield_now();
        }
        assert_eq!(process.terminate(Duration::from_secs(10)).unwrap(), 7);
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = shell(dir.path(), "sleep 1000");
        let running = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(running.exists());
        drop(process);
        assert!(!running.exists());
    }

    #[test]
    fn a_program_outlives_the_thread_that_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let process = thread::spawn(move || shell(&path, "sleep 1000")).join().unwrap();
        assert!(process.wait(Duration::from_millis(200)).is_none());
    }
}
