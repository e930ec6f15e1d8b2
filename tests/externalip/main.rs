//! External addresses of Services as people see them: a real API server, the real manager with the gate `ExternalIPSources` on, a name
//! server and a web server that answer as each trial says. IPAM runs in the same manager.
//!
//! How to add a trial: write `async fn a_sentence(stage: &Stage) -> Result<()>` in a module here and list it in that module's
//! `shared()` with `on_shared![…]`. The stage is a namespace on a control plane that all such trials share, dual-stack and with
//! webhooks; [`audit`] looks at it when the trial is over. Addresses are the trial's own, so that nobody shares a port of one by
//! accident: take an unused third byte. One that damages a server or needs special flags is an `async fn a_sentence() -> Result<()>`
//! listed with `standalone![…]`, which begins with [`fixture::Stage::alone`].

mod audit;
mod fixture;
mod guards;
mod history;
mod interface;
mod names;
mod outputs;
mod pools;
mod publishing;
mod running;
mod shapes;
mod sources;
mod spec;
mod web_apis;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::Arguments;
use testbed::trial::{Places, Standalone};

use crate::fixture::{OnShared, Shared};

/// How many control planes there are besides the shared one. Trials on them mostly wait for clocks.
const PLACES: usize = 4;

/// Run beside each other on one control plane.
fn shared_trials() -> Vec<OnShared> {
    // Those that wait for events first: a manager that has told much drops what is too much.
    let told = [outputs::shared(), publishing::shared(), sources::shared(), web_apis::shared()];
    let others = [names::shared(), pools::shared(), shapes::shared()];
    told.into_iter().chain(others).flatten().collect()
}

/// Run once, each with a control plane of its own.
fn standalone_trials() -> Vec<Standalone> {
    // The longest first.
    let first = [running::standalone(), pools::standalone()];
    let then = [interface::standalone(), names::standalone(), web_apis::standalone()];
    let last = [guards::standalone(), shapes::standalone(), sources::standalone()];
    first.into_iter().chain(then).chain(last).flatten().collect()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Trials mostly wait, so more of them than cores keep the manager busy.
    arguments.test_threads.get_or_insert(14);
    let shared = Arc::new(Shared::default());
    let places = Places::new(PLACES);
    let mut trials: Vec<_> = standalone_trials().into_iter().map(|trial| trial.into_trial(&places)).collect();
    // As many as have a place begin at once, beside those that share a control plane; the others wait for theirs.
    let waiting = trials.split_off(PLACES);
    trials.extend(shared_trials().into_iter().map(|trial| trial.within(&shared)));
    trials.extend(waiting);
    // The trials share the fixture; it ends with the last of them.
    drop(shared);
    libtest_mimic::run(&arguments, trials).exit_code()
}
