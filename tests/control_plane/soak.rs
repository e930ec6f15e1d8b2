//! Failures of all kinds at random, for as long as is asked for: `make soak MINUTES=10`.
//!
//! A round starts a control plane with one or two managers, one of them behind a [`testbed::Proxy`], and has claims created and
//! deleted on pools of several kinds while managers are killed, stopped and suspended, the API server restarts and forgets, and
//! requests are refused, late, cut and lost. Then comes a calm, and the [audit](crate::audit); once more when all claims are deleted.
//! A round follows from its seed, as far as the machine lets it: `TESTBED_SEED=<number>` begins with that one.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testbed::{Faults, Pool, Scene};
use tokio::time::sleep;

use crate::audit::Audited;
use crate::stage::{Stage, command};

/// How long a round disturbs.
const STORM: Duration = Duration::from_secs(30);
const WORKERS: usize = 6;
/// So few that they come again after they were deleted.
const NAMES: u32 = 60;
const RELEASE_ADDRESS: &str = "ipam.cluster.x-k8s.io/ReleaseAddress";

/// For how long to go on; `None` if no soak is asked for.
pub fn asked_for() -> Option<Duration> {
    let minutes: u64 = env::var("SOAK_MINUTES").ok()?.parse().ok()?;
    Some(Duration::from_secs(60 * minutes))
}

/// Rounds until the time is over, at least one; stops at the first that does not end clean.
pub fn run(time: Duration) -> ExitCode {
    let begin = Instant::now();
    let first = env::var("TESTBED_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    for number in 0.. {
        let seed = first.wrapping_add(number);
        match round(seed) {
            Ok(outcome) => eprintln!("round {}, TESTBED_SEED={seed}: {outcome}", number + 1),
            Err(error) => {
                eprintln!("round {}, TESTBED_SEED={seed}: NOT CLEAN\n{error:#}", number + 1);
                return ExitCode::FAILURE;
            }
        }
        if begin.elapsed() >= time {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn round(seed: u64) -> Result<Outcome> {
    // Two threads: the storm blocks one of them while it starts and stops programs.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut random = StdRng::seed_from_u64(seed);
        // Otherwise a Global pool keeps what a manager that died could not finish deleting, and the audit would call it left over.
        let command = command().arg("--release-orphans=all").arg("--v=4");
        let stage = Arc::new(Stage::with_proxy(&command, random.random_range(0..2), &mut random).await?);
        // A manager that dies while it creates the address of a claim which vanishes without waiting for anybody leaves a live
        // address, and nobody can tell that from one in use. So either nobody dies, or claims are deleted once they wait, and
        // no second manager has a view so late that it takes a claim for alive which is gone.
        let deadly = random.random_bool(0.7);
        let disturbed = disturb(&stage, deadly, &mut random).await;
        disturbed.map_err(|error| match keep(&stage, seed) {
            Ok(logs) => error.context(format!("the whole logs are in {}", logs.display())),
            Err(unkept) => error.context(format!("the logs could not be kept: {unkept:#}")),
        })
    })
}

/// The storm, the calm and the end of a round.
async fn disturb(stage: &Arc<Stage>, deadly: bool, random: &mut StdRng) -> Result<Outcome> {
    let pools = pools(&stage.scene).await?;
    let mut dice: Vec<_> = (0..=WORKERS).map(|_| StdRng::seed_from_u64(random.random())).collect();
    let mut outcome = Outcome { managers: stage.managers.len(), ..Outcome::default() };

    let end = Instant::now() + STORM;
    let mut fate = dice.pop().context("no dice")?;
    let disturbed = Arc::clone(stage);
    let storm = tokio::task::spawn_blocking(move || storm(&disturbed, deadly, &mut fate, end));
    let work = dice.into_iter().map(|dice| work(&stage.scene, &pools, deadly, dice, end));
    let (work, watched) = tokio::join!(futures::future::join_all(work), watch(&stage.scene, end));
    outcome.done = storm.await??;
    (outcome.created, outcome.deleted) = work.iter().fold((0, 0), |sum, (more, less)| (sum.0 + more, sum.1 + less));
    watched.with_context(|| stage.logs())?;

    outcome.calm = stage.audit().await.with_context(|| format!("{:?}", outcome.done))?;
    for claim in stage.scene.api("IPAddressClaim").list(&ListParams::default()).await? {
        stage.scene.api("IPAddressClaim").delete(&claim.name_any(), &DeleteParams::default()).await?;
    }
    stage.emptied().await?;
    let left = stage.audit().await?;
    ensure!(left == Audited { pools: pools.len(), ..Audited::default() }, "left when all claims are gone: {left:?}");
    Ok(outcome)
}

/// Keeps the managers' whole logs of a round for whoever looks into it; answers where.
fn keep(stage: &Stage, seed: u64) -> Result<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("soak-{seed}"));
    std::fs::create_dir_all(&directory)?;
    for (number, manager) in stage.managers.iter().enumerate() {
        std::fs::write(directory.join(format!("manager-{number}.log")), manager.log())?;
    }
    Ok(directory)
}

/// What a round saw, for its line.
#[derive(Default)]
struct Outcome {
    managers: usize,
    created: usize,
    deleted: usize,
    done: BTreeMap<&'static str, usize>,
    calm: Audited,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { managers, created, deleted, done, calm } = self;
        write!(f, "clean: {managers} managers, {created} claims created and {deleted} deleted, ")?;
        write!(f, "{} of {} left bound", calm.bound, calm.claims)?;
        done.iter().try_for_each(|(what, count)| write!(f, ", {count} x {what}"))
    }
}

/// One that is soon full, one for everybody, one with a grace, one of prefixes.
async fn pools(scene: &Scene) -> Result<Vec<Pool>> {
    Ok(vec![
        scene.pool("full", "{addresses: [10.1.0.1-10.1.0.20], prefix: 24}").await?,
        scene.global_pool("large", "{addresses: [10.2.0.0/20], prefix: 16}").await?,
        scene.pool("grace", "{addresses: [10.3.0.1-10.3.0.100], prefix: 24, addressReuseGracePeriodSeconds: 2}").await?,
        scene.prefix_pool("blocks", "{prefixes: ['fd00::/48'], allocatedPrefixLength: 64}").await?,
    ])
}

/// Creates and deletes claims until the end; answers how many. What the server does not take is left.
async fn work(scene: &Scene, pools: &[Pool], deadly: bool, mut random: StdRng, end: Instant) -> (usize, usize) {
    let (mut created, mut deleted) = (0, 0);
    while Instant::now() < end {
        let pool = &pools[random.random_range(0..pools.len())];
        let name = format!("{}-{}", pool.name.split('-').next().unwrap_or_default(), random.random_range(0..NAMES));
        let delete = random.random_bool(0.45);
        sleep(Duration::from_millis(random.random_range(0..80))).await;
        if !delete {
            created += usize::from(scene.claim(&name, pool).await.is_ok());
            continue;
        }
        let Ok(Some(claim)) = scene.get("IPAddressClaim", &name).await else { continue };
        if claim.metadata.deletion_timestamp.is_some() {
            continue;
        }
        if !deadly || claim.finalizers().iter().any(|finalizer| finalizer == RELEASE_ADDRESS) {
            deleted += usize::from(scene.delete("IPAddressClaim", &name).await.is_ok());
        }
    }
    (created, deleted)
}

/// Looks on until the end: what a claim was told once stays, until it is deleted. Once its address is released, a creation that a late
/// manager had sent before may take effect beside a claim that still goes; it is undone.
async fn watch(scene: &Scene, end: Instant) -> Result<()> {
    let mut told = BTreeMap::new();
    while Instant::now() < end {
        sleep(Duration::from_millis(500)).await;
        let Ok(claims) = scene.api("IPAddressClaim").list(&ListParams::default()).await else { continue };
        let Ok(addresses) = scene.api("IPAddress").list(&ListParams::default()).await else { continue };
        let Ok(later) = scene.api("IPAddressClaim").list(&ListParams::default()).await else { continue };
        let addresses: BTreeMap<_, _> = addresses.iter().map(|address| (address.name_any(), address)).collect();
        let alive: BTreeSet<_> =
            later.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()).filter_map(ResourceExt::uid).collect();
        for claim in &claims {
            let (uid, bound) = (claim.uid().unwrap_or_default(), claim.data["status"]["addressRef"]["name"].is_string());
            let Some(address) = addresses.get(&claim.name_any()).filter(|_| bound && alive.contains(&uid)) else { continue };
            let owners = address.owner_references();
            if !owners.iter().any(|owner| owner.uid == uid) {
                continue;
            }
            let now = (address.uid().unwrap_or_default(), address.data["spec"]["address"].to_string());
            let before = told.entry(uid).or_insert_with(|| now.clone());
            ensure!(*before == now, "{} was told {before:?} and then {now:?}", claim.name_any());
        }
    }
    Ok(())
}

/// Disturbs until the end, then leaves everything running and undisturbed; answers how often it did what.
fn storm(stage: &Stage, deadly: bool, random: &mut StdRng, end: Instant) -> Result<BTreeMap<&'static str, usize>> {
    let proxy = &stage.proxies[0];
    let mut done = BTreeMap::new();
    while Instant::now() < end {
        let manager = &stage.managers[random.random_range(0..stage.managers.len())];
        let moment = Duration::from_millis(random.random_range(200..3000));
        let what = match random.random_range(0..if deadly { 14 } else { 10 }) {
            0..=3 => {
                let faults = faults(random);
                let late = !deadly || stage.managers.len() == 1;
                proxy.set(if late { faults } else { Faults { watch_delay: Duration::ZERO, ..faults } });
                "other faults"
            }
            4 => {
                proxy.set(Faults::default());
                "no faults"
            }
            5 => {
                if random.random_bool(0.5) {
                    proxy.cut();
                } else {
                    proxy.cut_watches();
                }
                "cut"
            }
            6 => {
                proxy.refuse(true);
                thread::sleep(moment);
                proxy.refuse(false);
                "refusal"
            }
            7 => {
                let held = ["/ipaddresses", "/ipaddressclaims", "/status"][random.random_range(0..3)];
                proxy.hold(move |method, path| method != "GET" && path.contains(held));
                thread::sleep(moment);
                proxy.release();
                "hold"
            }
            8 => {
                manager.pause();
                thread::sleep(moment);
                manager.resume();
                "suspension"
            }
            9 if random.random_bool(0.5) => {
                stage.control_plane.compact_etcd()?;
                "compaction"
            }
            9 => {
                stage.control_plane.stop_apiserver();
                stage.control_plane.compact_etcd()?;
                stage.control_plane.start_apiserver()?;
                "API server restart"
            }
            10 => {
                let code = manager.terminate(Duration::from_secs(30))?;
                ensure!(code == 0, "exit code {code} when asked to stop\n{}", manager.log_tail(60));
                manager.restart()?;
                "stop"
            }
            _ => {
                manager.kill();
                thread::sleep(moment / 4);
                manager.restart()?;
                "kill"
            }
        };
        *done.entry(what).or_default() += 1;
        thread::sleep(Duration::from_millis(random.random_range(200..2000)));
    }
    proxy.set(Faults::default());
    Ok(done)
}

fn faults(random: &mut StdRng) -> Faults {
    let mut share = || if random.random_bool(0.5) { random.random_range(0.0..0.15) } else { 0.0 };
    let faults = Faults {
        throttled: share(),
        broken: share(),
        unavailable: share(),
        hung: share(),
        lost_requests: share(),
        lost_answers: share(),
        ..Faults::default()
    };
    Faults {
        hang: Duration::from_millis(random.random_range(100..5000)),
        delay: Duration::from_millis(random.random_range(0..100)),
        watch_delay: Duration::from_millis(if random.random_bool(0.3) { random.random_range(0..6000) } else { 0 }),
        delayed_watches: ["", "/ipaddresses?", "/ipaddressclaims?"][random.random_range(0..3)],
        ..faults
    }
}
