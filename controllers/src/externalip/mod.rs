//! Gives Services their public addresses: finds them by the rules of a source, and writes them down on the Service.
//!
//! - `world` keeps facts about Services, sources and claims, fed by watches; `read` is how objects become facts;
//! - `ask` has the shared solvers (`solver`) asked what is due, and stores what they say in `answers`;
//! - a pass over a Service or a source gathers its facts (`observe`), decides (`plan`), and writes (`drive`, `status`). Gathering and
//!   deciding work from memory alone, under one lock; writing happens concurrently;
//! - what was written on a Service says its `record`, an annotation, so that nothing is remembered outside the API.
//!
//! Only the leader asks and writes. An address that somebody else put on a Service is never changed or removed.

mod accept;
mod answers;
mod ask;
mod claims;
mod cluster;
mod drive;
mod facts;
mod observe;
mod plan;
mod provenance;
mod read;
mod record;
mod requests;
mod show;
pub mod solver;
mod status;
mod watches;
mod world;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::{Notify, watch};
use tracing::{debug, info};

use self::facts::{Now, Rules};
use self::observe::ServiceView;
use self::solver::{Solvers, TrustError};
use self::world::{Slot, SourceId, Wake, World};
use crate::config::ExternalIpSources;
use crate::ipam::{Listener, Scope, Shell};
use crate::kit::events::Events;
use crate::kit::metrics::Metrics;
use crate::kit::queue::{self, Next, Place, Queue};
use crate::kit::shutdown::Shutdown;
use crate::kit::writes::Writer;

/// How often everything is planned again without an occasion, before jitter.
const RESYNC: Duration = Duration::from_secs(600);
/// How long writes that are on their way when the process stops may take.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
/// Tasks over sources that run at once.
const SOURCE_TASKS: usize = 16;
/// All keys of a queue are served in the order of their arrival.
const PLACE: Place = Place { lane: 0, rank: 0 };
/// The minor version of Kubernetes from which the API server warns of `spec.externalIPs`.
const DEPRECATED_SINCE: u32 = 36;

/// Everything that passes share.
struct Ctx {
    client: Client,
    writer: Writer,
    events: Events,
    metrics: Metrics,
    shutdown: Shutdown,
    world: Mutex<World>,
    services: Queue<Slot>,
    sources: Queue<SourceId>,
    /// Something may be due for a solver.
    asked: Notify,
    /// Whether the labels of namespaces matter to anybody.
    wants_namespaces: watch::Sender<bool>,
    /// Only Services of this namespace are served.
    namespace: Option<String>,
    write_concurrency: usize,
    dry_run: bool,
}

/// The capability, which knows nothing yet.
pub struct ExternalIps {
    ctx: Arc<Ctx>,
    solvers: Arc<Solvers>,
}

impl ExternalIps {
    /// Prepares the solvers. Must be called where tasks can be spawned.
    pub fn new(shell: &Shell, scope: &Scope, settings: &ExternalIpSources, user_agent: &str) -> Result<Self, TrustError> {
        let ctx = Ctx::new(shell, scope, settings);
        Ok(Self { ctx: Arc::new(ctx), solvers: Arc::new(Solvers::new(settings, user_agent)?) })
    }

    /// Hears what IPAM's watches deliver; without it nothing begins.
    pub fn listener(&self) -> impl Listener + use<> {
        watches::Ear(self.ctx.clone())
    }

    /// Serves Services until the shell's shutdown is requested. Without leadership it only watches.
    pub async fn run(self, shell: Shell) {
        let Self { ctx, solvers } = self;
        let watches = watches::follow_all(&ctx, &shell.readiness);
        let work = async {
            tokio::select! {
                () = watches => {}
                () = show::count(&ctx) => {}
                () = lead(&ctx, &shell, &solvers) => {}
            }
        };
        Box::pin(work).await;
    }
}

/// Waits until this process leads and everything is in view, then works.
async fn lead(ctx: &Arc<Ctx>, shell: &Shell, solvers: &Arc<Solvers>) {
    let begin = async {
        shell.leadership.acquired().await;
        watches::settled(ctx).await;
        let deprecated = warns_of_external_ips(ctx).await;
        ctx.world().deprecated = deprecated;
    };
    tokio::select! {
        () = begin => {}
        () = shell.shutdown.requested() => return,
    }
    info!(dry_run = ctx.dry_run, "in view and leading: serving Services");
    {
        let mut world = ctx.world();
        world.begin(Instant::now());
        ctx.deliver(&mut world);
    }
    let capacity = || ctx.writer.window().min(ctx.write_concurrency);
    let services = queue::run(&ctx.services, capacity, ctx.shutdown.requested(), LAST_ANSWERS, |slot| service_pass(ctx, slot));
    let stop = ctx.shutdown.requested();
    let sources = queue::run(&ctx.sources, || SOURCE_TASKS, stop, LAST_ANSWERS, |id| status::source_pass(ctx, id));
    let passes = async { tokio::join!(services, sources) };
    tokio::select! {
        _ = passes => {}
        () = ask::ask(ctx, solvers.clone()) => {}
        () = ask::follow_interfaces(ctx, solvers) => {}
        () = resync(ctx) => {}
    }
}

/// Whether the API server answers writes of `spec.externalIPs` with a warning. Unknown counts as no.
async fn warns_of_external_ips(ctx: &Ctx) -> bool {
    let Ok(version) = ctx.client.apiserver_version().await else { return false };
    let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
    let warns = version.major == "1" && digits.parse().is_ok_and(|minor: u32| minor >= DEPRECATED_SINCE);
    if warns {
        info!("this API server warns of spec.externalIPs: another output lasts longer");
    }
    warns
}

/// Reads and decides for one Service; the writing is left for a task.
fn service_pass(ctx: &Arc<Ctx>, slot: Slot) -> Result<impl Future<Output = Next> + Send + use<>, Next> {
    let now = Now { wall: Timestamp::now(), instant: Instant::now() };
    let mut world = ctx.world();
    if ctx.shutdown.is_requested() {
        return Err(Next::Done);
    }
    let Some(view) = ServiceView::of(&mut world, slot, now.instant) else { return Err(Next::Done) };
    let Some(facts) = view.facts(&world) else { return Err(Next::Done) };
    let (plan, subject) = (plan::service(&facts, now), view.subject(&facts, &world));
    world.wait_on(slot, plan.waits_on.clone());
    let Some(entry) = world.entry_mut(slot) else { return Err(Next::Done) };
    let motion = &mut entry.motion;
    motion.begin();
    let unseen = motion.unseen(now.instant);
    if unseen.is_none() {
        motion.standing = plan.standing;
    }
    let again = [plan.look_again, unseen].into_iter().flatten().min();
    let repeated = ctx.dry_run && motion.shown == plan.steps;
    if plan.steps.is_empty() || repeated {
        if unseen.is_none() {
            motion.changed = None;
        }
        world.sweep(slot);
        return Err(again.map_or(Next::Done, |delay| Next::After(PLACE, delay)));
    }
    debug!(service = %subject.key, steps = plan.steps.len(), "planned");
    if ctx.dry_run {
        motion.shown.clone_from(&plan.steps);
    }
    drop(world);
    let ctx = ctx.clone();
    Ok(async move { drive::drive(&ctx, slot, subject, plan).await })
}

/// Plans everything again now and then, from memory alone.
async fn resync(ctx: &Ctx) {
    loop {
        tokio::time::sleep(RESYNC.mul_f64(rand::random_range(0.9..1.1))).await;
        let mut world = ctx.world();
        world.wake_all();
        ctx.deliver(&mut world);
    }
}

impl Ctx {
    fn new(shell: &Shell, scope: &Scope, settings: &ExternalIpSources) -> Self {
        let rules = Rules {
            allow_private: settings.allow_private,
            allow: settings.allow_cidrs.clone(),
            deny: settings.deny_cidrs.clone(),
            load_balancer_class: settings.load_balancer_class.clone(),
            external_dns_prefixes: settings.external_dns_prefixes.clone(),
            source_grace: settings.source_grace,
            watch_filter: scope.watch_filter.clone(),
        };
        Self {
            client: shell.client.clone(),
            writer: shell.writer.clone(),
            events: shell.events.clone(),
            metrics: shell.metrics.clone(),
            shutdown: shell.shutdown.clone(),
            world: Mutex::new(World::new(rules, settings.api_allow_cidrs.clone())),
            services: Queue::default(),
            sources: Queue::default(),
            asked: Notify::new(),
            wants_namespaces: watch::Sender::new(false),
            namespace: scope.namespace.clone(),
            write_concurrency: settings.write_concurrency,
            dry_run: settings.dry_run,
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the world's wishes to those who fulfil them.
    fn deliver(&self, world: &mut World) {
        for wake in world.take_wakes() {
            match wake {
                Wake::Service(slot) => self.services.push(slot, PLACE),
                Wake::Source(id) => self.sources.push(id, PLACE),
                Wake::Solvers => self.asked.notify_one(),
            }
        }
        let wanted = world.wants_namespaces;
        self.wants_namespaces.send_if_modified(|wants| std::mem::replace(wants, wanted) != wanted);
    }
}
