//! How an async function becomes a trial of `libtest-mimic`, for the test targets that start control planes.

use std::env;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use anyhow::Result;
use libtest_mimic::{Failed, Trial};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::control_plane::lock;

/// The run of a trial.
pub type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// A trial with its own control plane.
pub struct Standalone {
    /// Where the function is, `module_path!()`.
    pub module: &'static str,
    /// The function's name.
    pub name: &'static str,
    /// The function.
    pub run: fn() -> Outcome<'static>,
}

impl Standalone {
    /// The trial; it waits for a place.
    pub fn into_trial(self, places: &Arc<Places>) -> Trial {
        let places = Arc::clone(places);
        Trial::test(short_name(self.module, self.name), move || {
            let _place = places.take();
            run(self.run, String::new)
        })
    }
}

/// How many control planes of single trials may run at a time: each is half a gigabyte and a burst of both cores.
#[derive(Debug)]
pub struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

/// A place that is taken until this is dropped.
struct Place<'a>(&'a Places);

impl Places {
    /// As many places.
    pub fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(count), freed: Condvar::new() })
    }

    /// Waits for a free place.
    fn take(&self) -> Place<'_> {
        let mut free = self.freed.wait_while(lock(&self.free), |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

/// `claims::a_sentence` of `control_plane::claims` and `a_sentence`.
pub fn short_name(module: &str, name: &str) -> String {
    let module = module.split_once("::").map_or(module, |(_, module)| module);
    format!("{module}::{name}")
}

/// Runs a trial on a runtime of its own; a failure or panic is followed by `report`.
pub fn run<'a>(trial: impl FnOnce() -> Outcome<'a>, report: impl Fn() -> String) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match catch_unwind(AssertUnwindSafe(|| runtime.block_on(trial()))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}\n{}", report()).into()),
        Err(panic) => {
            eprintln!("{}", report());
            resume_unwind(panic)
        }
    }
}

/// Random numbers that can be had again: prints the seed that `TESTBED_SEED` takes.
pub fn seeded(who: &str) -> StdRng {
    let seed = env::var("TESTBED_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("{who}: TESTBED_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// The functions of the module as [`Standalone`] trials.
#[macro_export]
macro_rules! standalone {
    ($($trial:ident),* $(,)?) => {
        vec![$($crate::trial::Standalone {
            module: module_path!(),
            name: stringify!($trial),
            run: || Box::pin($trial()),
        }),*]
    };
}
