//! What the trials of one mode share: a control plane and its managers; and how a function becomes a trial.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use libtest_mimic::{Failed, Trial};
use rand::Rng;
use testbed::trial::{Outcome, run, short_name};
pub use testbed::trial::{Standalone, seeded};
use testbed::{CapiCrds, ControlPlane, CoreManager, Manager, ManagerCommand, Options, Scene, Webhooks};

/// The managers that serve a control plane while the conformance trials run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// One manager.
    Single,
    /// Two managers that are both active.
    TwoManagers,
    /// One manager that is killed and started again every few seconds.
    Restarted,
    /// One manager whose webhooks the API server asks, and Cluster API's own.
    Webhooks,
    /// One manager beside an old release of Cluster API, which knows v1beta1 only.
    V1Beta1,
}

impl Mode {
    pub const ALL: [Self; 5] = [Self::Single, Self::TwoManagers, Self::Restarted, Self::Webhooks, Self::V1Beta1];

    fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::TwoManagers => "two_managers",
            Self::Restarted => "restarted",
            Self::Webhooks => "webhooks",
            Self::V1Beta1 => "v1beta1",
        }
    }

    fn capi_crds(self) -> CapiCrds {
        if self == Self::V1Beta1 { CapiCrds::V1Beta1Only } else { CapiCrds::Newest }
    }
}

/// A control plane with the managers of one mode.
pub struct Fixture {
    pub mode: Mode,
    // Dropped in this order: who restarts managers, the managers, Cluster API, the server.
    _restarter: Option<Restarter>,
    pub managers: Vec<Arc<Manager>>,
    core: Option<CoreManager>,
    pub control_plane: ControlPlane,
}

impl Fixture {
    fn start(mode: Mode) -> Result<Self> {
        let control_plane = ControlPlane::start(Options { capi_crds: mode.capi_crds(), ..Options::default() })?;
        let manager = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).arg("--leader-elect=false");
        let start = || match mode {
            Mode::Webhooks => Ok(Webhooks::serve(&control_plane, &manager)?.1),
            _ => manager.start(&control_plane),
        };
        let count = if mode == Mode::TwoManagers { 2 } else { 1 };
        let managers = (0..count).map(|_| Ok(Arc::new(start()?))).collect::<Result<Vec<_>>>()?;
        let core = (mode == Mode::Webhooks).then(|| CoreManager::start(&control_plane, None)).transpose()?;
        let restarter = (mode == Mode::Restarted).then(|| Restarter::start(&managers[0]));
        Ok(Self { mode, _restarter: restarter, managers, core, control_plane })
    }

    /// A namespace for one trial, whose name starts with `hint`.
    pub async fn scene(&self, hint: &str) -> Result<Scene> {
        Scene::create(self.control_plane.client().await?, hint, self.mode.capi_crds()).await
    }

    fn report(&self) -> String {
        let mode = self.mode.name();
        let tails = self.managers.iter().map(|manager| format!("--- {mode}: manager, end of its log\n{}", manager.log_tail(40)));
        let core = self.core.iter().map(|core| format!("--- {mode}: Cluster API, end of its log\n{}", core.log_tail(20)));
        tails.chain(core).collect::<Vec<_>>().join("\n")
    }
}

/// Kills a manager with SIGKILL and starts it again, at random times.
struct Restarter {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Restarter {
    fn start(manager: &Arc<Manager>) -> Self {
        let mut random = seeded("restarted");
        let manager = Arc::clone(manager);
        let (stop, stopped) = mpsc::channel();
        let thread = thread::spawn(move || {
            loop {
                let pause = Duration::from_millis(random.random_range(2000..4000));
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if let Err(error) = manager.restart() {
                    eprintln!("restarted: {error:#}");
                }
            }
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Restarter {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A fixture that is started by the first trial that asks for it.
pub struct Shared {
    mode: Mode,
    fixture: OnceLock<Result<Fixture, String>>,
}

impl Shared {
    pub fn new(mode: Mode) -> Self {
        Self { mode, fixture: OnceLock::new() }
    }

    fn get(&self) -> Result<&Fixture> {
        let started = self.fixture.get_or_init(|| Fixture::start(self.mode).map_err(|error| format!("{error:#}")));
        started.as_ref().map_err(|error| anyhow!("the {} control plane did not start: {error}", self.mode.name()))
    }
}

/// A trial that runs in every mode, or in every mode but some.
pub struct Conformance {
    pub module: &'static str,
    pub name: &'static str,
    pub except: &'static [Mode],
    pub run: for<'a> fn(&'a Fixture) -> Outcome<'a>,
}

impl Conformance {
    pub fn within(self, shared: &Arc<Shared>) -> Trial {
        let shared = Arc::clone(shared);
        let name = format!("{}::{}", shared.mode.name(), short_name(self.module, self.name));
        Trial::test(name, move || {
            let fixture = shared.get().map_err(|error| Failed::from(format!("{error:#}")))?;
            run(|| (self.run)(fixture), || fixture.report())
        })
    }
}

/// Trials that cannot run in some modes: with [`Mode::Webhooks`] those that need pools which are not admitted.
pub fn except(modes: &'static [Mode], trials: Vec<Conformance>) -> impl Iterator<Item = Conformance> {
    trials.into_iter().map(move |trial| Conformance { except: modes, ..trial })
}

/// The module's functions as [`Conformance`] trials.
#[macro_export]
macro_rules! conformance {
    ($($trial:ident),* $(,)?) => {
        vec![$($crate::fixture::Conformance {
            module: module_path!(),
            name: stringify!($trial),
            except: &[],
            run: |fixture| Box::pin($trial(fixture)),
        }),*]
    };
}
