//! Hands addresses and prefixes from pools to claims, once each, and takes them back.
//!
//! - `world` keeps slim records of claims, addresses, pools and clusters, and one ledger per pool, all fed by watches;
//! - a pass over a claim reads its facts (`observe`), decides (`plan`), and writes (`drive`). Reading, deciding and reserving happen
//!   in the order of arrival, under one lock and before any task is spawned; writing happens concurrently;
//! - `pool` does the same for the pools themselves;
//! - nothing is remembered outside the API: at every start the world is rebuilt from objects, in any order.
//!
//! An address is published only if our own watch proves that it was created before every other object with its value.

pub mod admission;
mod annotations;
mod compact;
mod drive;
mod facts;
#[cfg(test)]
mod model;
mod objects;
mod observe;
mod owners;
mod plan;
mod pool;
mod records;
mod share;
mod show;
mod watches;
mod world;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use api::PoolKind;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::Notify;
use tracing::{debug, info};

use self::facts::Facts;
pub use self::facts::Policy;
use self::plan::{Place as Standing, Plan, plan};
use self::records::{PoolId, Slot};
pub use self::share::Listener;
pub use self::world::Scope;
use self::world::{Wake, World, lane};
use crate::kit::bucket::Bucket;
use crate::kit::events::Events;
use crate::kit::health::Readiness;
use crate::kit::leader::Leadership;
use crate::kit::metrics::Metrics;
use crate::kit::queue::{self, Next, Place, Queue};
use crate::kit::shutdown::Shutdown;
use crate::kit::watch::Restart;
use crate::kit::writes::Writer;

/// How often everything is planned again without an occasion, before jitter.
const RESYNC: Duration = Duration::from_secs(600);
/// Releases that come within this time share one write of a pool's memory.
const GATHER: Duration = Duration::from_millis(100);
/// Pools that change within this time are compared with each other once.
const COMPARE: Duration = Duration::from_millis(200);
/// How often the size of the cache is shown.
const WEIGH: Duration = Duration::from_secs(15);
/// Claims a second that get the conditions which another provider did not write.
const BACKFILLS: f64 = 10.0;
/// How long binds in flight may take when the process stops.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long writes that are on their way even then may take.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// How long the last numbers of all pools may take then.
const FLUSH: Duration = Duration::from_secs(2);
/// Status writes a second, all pools together.
const POOL_WRITES: f64 = 100.0;
/// Tasks over claims that run at once, for each write that may be under way: a task also has other things to do than to write.
const WRITERS: usize = 2;
/// Tasks over pools that run at once.
const POOL_TASKS: usize = 16;

/// What the capability is told by the manager's flags.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which objects are served.
    pub scope: Scope,
    /// Flags that change a decision.
    pub policy: Policy,
}

/// What the capability needs from the manager.
#[derive(Clone)]
pub struct Shell {
    /// The API client, for reads and watches.
    pub client: Client,
    /// The only way to write.
    pub writer: Writer,
    /// Where events go.
    pub events: Events,
    /// Where numbers go.
    pub metrics: Metrics,
    /// Where it is said what is in view.
    pub readiness: Readiness,
    /// Whether this process is the active one.
    pub leadership: Leadership,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// Everything that passes share.
struct Ctx {
    client: Client,
    writer: Writer,
    events: Events,
    metrics: Metrics,
    policy: Policy,
    scope: Scope,
    world: Mutex<World>,
    claims: Queue<Slot>,
    pools: Queue<PoolId>,
    shutdown: Shutdown,
    compare: Notify,
    address_watch: Restart,
    old_definitions: OldDefinitions,
    pool_writes: Mutex<Bucket>,
    backfills: Mutex<Bucket>,
    listener: OnceLock<Box<dyn Listener>>,
}

/// Pool kinds whose installed definition lacks fields of ours.
#[derive(Debug, Default)]
struct OldDefinitions(Mutex<HashSet<PoolKind>>);

impl OldDefinitions {
    fn contains(&self, kind: PoolKind) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&kind)
    }

    fn insert(&self, kind: PoolKind) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(kind);
    }
}

/// The view of a running capability, for other parts of the manager to look into.
#[derive(Clone)]
pub struct Ipam(Arc<Ctx>);

impl Ipam {
    /// A capability that knows nothing yet.
    pub fn new(shell: &Shell, settings: Settings) -> Self {
        Self(Arc::new(Ctx {
            client: shell.client.clone(),
            writer: shell.writer.clone(),
            events: shell.events.clone(),
            metrics: shell.metrics.clone(),
            policy: settings.policy,
            scope: settings.scope.clone(),
            world: Mutex::new(World::new(settings.scope)),
            claims: Queue::default(),
            pools: Queue::default(),
            shutdown: shell.shutdown.clone(),
            compare: Notify::new(),
            address_watch: Restart::default(),
            old_definitions: OldDefinitions::default(),
            pool_writes: Mutex::new(Bucket::new(POOL_WRITES, POOL_WRITES, tokio::time::Instant::now())),
            backfills: Mutex::new(Bucket::new(1.0, BACKFILLS, tokio::time::Instant::now())),
            listener: OnceLock::new(),
        }))
    }

    /// The ledgers in words: of one pool by `kind/namespace/name` or `kind/name`, or of all.
    pub fn describe(&self, pool: Option<&str>) -> Option<String> {
        self.0.world().describe(pool)
    }

    /// Has one other capability hear, from the start, what the watches of claims, addresses and IP pools deliver.
    pub fn share_with(&self, listener: impl Listener + 'static) {
        // There is one such capability, and it asks once.
        let _ = self.0.listener.set(Box::new(listener));
    }

    /// Serves claims until the shell's shutdown is requested. Without leadership it only watches.
    pub async fn run(self, shell: Shell) {
        let ctx = self.0;
        let watches = watches::follow_all(&ctx, &shell.readiness);
        let work = async {
            tokio::select! {
                () = watches => {}
                () = resync(&ctx) => {}
                () = compare(&ctx) => {}
                () = weigh(&ctx) => {}
                () = lead(&ctx, &shell) => {}
            }
        };
        Box::pin(work).await;
    }
}

/// Waits until this process leads and everything is in view, then works.
async fn lead(ctx: &Arc<Ctx>, shell: &Shell) {
    let stop = shell.shutdown.clone();
    let begin = async {
        shell.leadership.acquired().await;
        while !ctx.world().is_settled() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if shell.leadership.is_elected() {
            watches::catch_up(ctx).await;
        }
    };
    tokio::select! {
        () = begin => {}
        () = stop.requested() => return,
    }
    info!("in view and leading: serving claims");
    {
        let mut world = ctx.world();
        world.wake_all();
        ctx.deliver(&mut world);
    }
    let tasks = || WRITERS * ctx.writer.window();
    let claims = queue::run(&ctx.claims, tasks, last_bind(ctx), LAST_ANSWERS, |slot| claim_pass(ctx, slot));
    let pools = queue::run(&ctx.pools, || POOL_TASKS, last_bind(ctx), LAST_ANSWERS, |id| pool_pass(ctx, id));
    tokio::join!(claims, pools);
    let _ = tokio::time::timeout(FLUSH, flush(ctx)).await;
}

/// Returns when a stop is requested and no bind is half done any more, or may not take longer.
async fn last_bind(ctx: &Ctx) {
    ctx.shutdown.requested().await;
    let done = async {
        while ctx.claims.is_busy() || ctx.world().has_binds_in_flight() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, done).await;
}

/// Shows every pool's last numbers, whatever the pace and whatever of our own writes is in view.
async fn flush(ctx: &Arc<Ctx>) {
    let facts: Vec<_> = {
        let world = ctx.world();
        let (wall, now) = (Timestamp::now(), Instant::now());
        let ids = world.pool_ids().into_iter();
        let facts = ids.filter_map(|id| Some((id, pool::observe::observe(&world, id, wall, now)?)));
        facts.map(|(id, facts)| (id, pool::observe::Facts { written: None, own_write_unseen: false, ..facts })).collect()
    };
    let passes = facts.iter().map(|(id, facts)| pool::drive::drive(ctx, *id, facts, pool::plan::plan(facts, Timestamp::now())));
    futures::future::join_all(passes).await;
}

/// Reads, decides and reserves for one claim, in the order of the queue; the writing is left for a task.
fn claim_pass(ctx: &Arc<Ctx>, slot: Slot) -> Result<impl Future<Output = Next> + Send + use<>, Next> {
    let (wall, now) = (Timestamp::now(), Instant::now());
    let mut world = ctx.world();
    let Some(place) = world.place(slot) else { return Err(Next::Done) };
    if ctx.shutdown.is_requested() && !world.is_bind_in_flight(slot) {
        return Err(Next::Done);
    }
    if !world.is_settled() {
        return Err(Next::After(place, Duration::from_secs(1)));
    }
    let Some((facts, plan)) = decide_in_turn(ctx.policy, &mut world, slot, wall, now) else { return Err(Next::Done) };
    if plan.is_backfill() {
        let pause = world.backfill_turn(slot, now, || pause(&ctx.backfills));
        if !pause.is_zero() {
            ctx.deliver(&mut world);
            return Err(Next::After(Place { lane: lane::BACKFILL, rank: place.rank }, pause));
        }
    }
    debug!(claim = world.title(slot), row = ?plan.row, steps = plan.steps.len(), "planned");
    if plan.steps.is_empty() {
        if matches!(plan.row, plan::Row::Settled | plan::Row::Nothing) {
            world.settled(slot);
        }
        ctx.deliver(&mut world);
        world.sweep(slot);
        return Err(plan.recheck.map_or(Next::Done, |delay| Next::After(place, delay)));
    }
    ctx.deliver(&mut world);
    let holds = world.holds(slot);
    drop(world);
    let ctx = ctx.clone();
    Ok(async move {
        let next = drive::drive(&ctx, slot, &facts, plan, holds).await;
        let mut world = ctx.world();
        ctx.deliver(&mut world);
        // Swept by the next pass: a claim that got the slot now would find this task still running, and be passed over.
        if world.is_vacant(slot) { Next::Again(place) } else { next }
    })
}

/// Decides for one claim, after those whose turn comes before its own, and does to its place in the ledger what the decision says.
fn decide_in_turn(policy: Policy, world: &mut World, slot: Slot, wall: Timestamp, now: Instant) -> Option<(Facts, Plan)> {
    // Older claims may be in the middle of a write while the room they waited for shows up: their turn is now all the same.
    for elder in world.take_unserved(slot) {
        if let Some(mut facts) = observe::observe(world, elder, policy, wall, now) {
            facts.motion.own_write_unseen = false;
            decide(policy, world, elder, facts, wall, now);
        }
    }
    let facts = observe::observe(world, slot, policy, wall, now)?;
    let (facts, plan) = decide(policy, world, slot, facts, wall, now);
    world.take_place(slot, plan.place);
    world.waits_for(slot, plan.waiting);
    Some((facts, plan))
}

/// Decides for one claim, and reserves for it what the decision asks for.
fn decide(policy: Policy, world: &mut World, slot: Slot, mut facts: Facts, wall: Timestamp, now: Instant) -> (Facts, Plan) {
    let mut plan = plan(&facts, wall);
    // At most: a special wish, any value, and the plan for what was granted.
    for _ in 0..3 {
        let Standing::Allocate(_) = plan.place else { break };
        facts.refused = world.take_place(slot, plan.place);
        if facts.refused.is_none() {
            let Some(seen) = observe::observe(world, slot, policy, wall, now) else { break };
            facts = seen;
        }
        plan = self::plan::plan(&facts, wall);
    }
    (facts, plan)
}

/// Reads and decides for one pool; the writing is left for a task.
fn pool_pass(ctx: &Arc<Ctx>, id: PoolId) -> Result<impl Future<Output = Next> + Send + use<>, Next> {
    let mut world = ctx.world();
    if !world.is_settled() {
        return Err(Next::After(Place { lane: 0, rank: 0 }, Duration::from_secs(1)));
    }
    let forgotten = world.forget_expired(id);
    ctx.gauge(&world, id);
    let (wall, now) = (Timestamp::now(), Instant::now());
    let facts = pool::observe::observe(&world, id, wall, now);
    if forgotten {
        ctx.deliver(&mut world);
    }
    drop(world);
    let Some(facts) = facts else {
        ctx.world().drop_unused_pool(id);
        return Err(Next::Done);
    };
    let plan = pool::plan::plan(&facts, wall);
    if plan.steps.is_empty() {
        return Err(plan.recheck.map_or(Next::Done, |delay| Next::After(Place { lane: 0, rank: 0 }, delay)));
    }
    let ctx = ctx.clone();
    Ok(async move {
        let next = pool::drive::drive(&ctx, id, &facts, plan).await;
        let mut world = ctx.world();
        ctx.deliver(&mut world);
        next
    })
}

/// Plans everything again now and then, from the cache alone.
async fn resync(ctx: &Ctx) {
    loop {
        tokio::time::sleep(RESYNC.mul_f64(rand::random_range(0.9..1.1))).await;
        let mut world = ctx.world();
        world.wake_all();
        ctx.deliver(&mut world);
    }
}

/// Shows how much is kept.
async fn weigh(ctx: &Ctx) {
    loop {
        for (resource, objects, bytes) in ctx.world().sizes() {
            ctx.metrics.cache(resource, objects, bytes);
        }
        tokio::time::sleep(WEIGH).await;
    }
}

/// Compares pools with each other when their specs have changed.
async fn compare(ctx: &Ctx) {
    loop {
        ctx.compare.notified().await;
        tokio::time::sleep(COMPARE).await;
        let mut world = ctx.world();
        world.compare_pools();
        ctx.deliver(&mut world);
    }
}

impl Ctx {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_filter(&self) -> Option<&str> {
        self.scope.watch_filter.as_deref()
    }

    /// Takes the world's wishes to those who fulfil them.
    fn deliver(&self, world: &mut World) {
        for wake in world.take_wakes() {
            match wake {
                Wake::Claim(slot, place) => self.claims.push(slot, place),
                Wake::Pool(id) => self.pools.push(id, Place { lane: 0, rank: 0 }),
                Wake::Gather(id) => self.pools.push_after(id, Place { lane: 0, rank: 0 }, GATHER),
                Wake::Overlaps => self.compare.notify_one(),
                Wake::Notice(about, reason, note) => self.notify(world, &about, reason, note),
            }
        }
    }
}

/// How long the next write that goes at a pace must wait.
fn pause(pace: &Mutex<Bucket>) -> Duration {
    pace.lock().unwrap_or_else(PoisonError::into_inner).reserve(tokio::time::Instant::now())
}
