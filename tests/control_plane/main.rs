//! Whole behaviours against a real API server and the real manager binary.
//!
//! How to add a conformance trial: write `async fn a_sentence(fixture: &Fixture) -> Result<()>` in a module here, list it in
//! that module's `trials()` with `conformance![…]`, and list the module in [`conformance_trials`]. It then runs in every
//! [`Mode`], under names such as `restarted::claims::a_sentence`. `fixture.scene("hint")` gives it a namespace and short ways
//! to make pools and claims. It must not assume that it is alone on the server, nor that the manager never restarts.
//! One that cannot run in some mode, such as one that needs a pool which is not admitted, is listed with [`fixture::except`].
//!
//! A trial that damages the server, or needs special flags, is an `async fn a_sentence() -> Result<()>` listed with
//! `standalone![…]`; it starts its own [`testbed::ControlPlane`].
//!
//! Nothing is started before the first trial that needs it, so `cargo test --test control_plane single::claims` starts one
//! control plane with one manager. `IPAM_MANAGER="<command line>"` runs another manager through the same trials;
//! `TESTBED_SEED=<number>` repeats the restarts of an earlier run. `TESTBED_FULL=1` gives trials about failures their full size.
//! `SOAK_MINUTES=<number>` runs random failures for so long instead of the trials, see [`soak`].

mod admission;
mod admission_served;
mod audit;
mod capi_webhooks;
mod claims;
mod claims_adopt;
mod claims_events;
mod claims_flags;
mod claims_paused;
mod claims_release;
mod claims_requested;
mod claims_told;
mod conversion;
mod crash;
mod diagnostics;
mod fault;
mod fault_proxy;
mod fixture;
mod flags;
mod leadership;
mod pools;
mod pools_conditions;
mod pools_events;
mod prefixes;
mod quiet;
mod running;
mod samples;
mod server;
mod soak;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::Arguments;
pub(crate) use testbed::standalone;
use testbed::trial::Places;

use crate::fixture::{Conformance, Mode, Shared, Standalone};

/// Runs in every mode that can stand it.
fn conformance_trials() -> Vec<Conformance> {
    let claims = [
        claims::trials(),
        claims_adopt::trials(),
        claims_paused::trials(),
        claims_release::trials(),
        claims_requested::trials(),
        claims_told::trials(),
        prefixes::trials(),
    ];
    let pools = [pools::trials(), pools_conditions::trials()];
    claims.into_iter().chain(pools).flatten().collect()
}

/// Runs once, each with its own control plane.
fn standalone_trials() -> Vec<Standalone> {
    let objects = [claims_events::trials(), claims_flags::trials(), pools_events::trials(), samples::trials()];
    let manager = [running::trials(), flags::trials(), diagnostics::trials(), quiet::trials(), leadership::trials()];
    let failures = [server::trials(), fault_proxy::trials(), crash::trials(), fault::trials(), capi_webhooks::trials()];
    let webhooks = [admission::trials(), admission_served::trials(), conversion::trials()];
    objects.into_iter().chain(manager).chain(failures).chain(webhooks).flatten().collect()
}

fn main() -> ExitCode {
    if let Some(time) = soak::asked_for() {
        return soak::run(time);
    }
    let mut arguments = Arguments::from_args();
    // Trials mostly wait, so more of them than cores keep the manager busy.
    arguments.test_threads.get_or_insert(6);
    let mut trials = Vec::new();
    let places = Places::new(2);
    for mode in Mode::ALL {
        // The trials share what their mode needs; it ends with the last of them.
        let shared = Arc::new(Shared::new(mode));
        let runs = conformance_trials().into_iter().filter(|trial| !trial.except.contains(&mode));
        trials.extend(runs.map(|trial| trial.within(&shared)));
    }
    trials.extend(standalone_trials().into_iter().map(|trial| trial.into_trial(&places)));
    libtest_mimic::run(&arguments, trials).exit_code()
}
