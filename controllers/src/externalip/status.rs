//! Passes over sources: what they ask, what they show of themselves, and which Services that concerns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::externalip::ClusterExternalIPSourceStatus;
use k8s_openapi::jiff::Timestamp;
use kube::core::request::Error;
use tracing::{debug, info, warn};

use super::facts::Now;
use super::observe::{SourceView, pools_in_view};
use super::plan::{self, Note, StatusPlan};
use super::world::{SourceId, Wake, World};
use super::{Ctx, PLACE};
use crate::externalip::requests::source_status;
use crate::kit::queue::Next;
use crate::kit::writes::{Backoff, IgnoredAny, Priority, WriteError};

/// At most one write within this time.
const PACE: Duration = Duration::from_secs(1);
/// A refused write is tried again after this time even if nothing changes.
const REFUSED: Duration = Duration::from_secs(300);
/// A list has at most so many solvers that are known without asking, one after the other.
const SOLVERS: usize = 64;

/// Reads and decides for one source; the writing is left for a task.
pub fn source_pass(ctx: &Arc<Ctx>, id: SourceId) -> Result<impl Future<Output = Next> + Send + use<>, Next> {
    let now = Now { wall: Timestamp::now(), instant: Instant::now() };
    let mut world = ctx.world();
    if world.began().is_none() || ctx.shutdown.is_requested() {
        return Err(Next::Done);
    }
    settle_uses(&mut world, id, now);
    let pools = pools_in_view(&world, id);
    let Some(plan) = SourceView::of(&world, id, &pools).map(|view| plan::source(&view.pass(), now)) else {
        ctx.deliver(&mut world);
        return Err(Next::Done);
    };
    let StatusPlan { status, notes, look_again, standing } = plan;
    let Some(entry) = world.source_mut(id) else { return Err(Next::Done) };
    entry.standing = Some(standing);
    let expired = entry.look_again.is_some_and(|at| at <= now.instant);
    entry.look_again = look_again.map(|delay| now.instant + delay);
    let (name, uid) = (entry.name.clone(), entry.facts.as_ref().map(|facts| facts.uid.clone()).unwrap_or_default());
    let rest = entry.wrote.map_or(Duration::ZERO, |wrote| (wrote + PACE).saturating_duration_since(now.instant));
    if expired {
        world.wake_bound(id);
    }
    ctx.deliver(&mut world);
    let after = |delay: Option<Duration>| delay.map_or(Next::Done, |delay| Next::After(PLACE, delay));
    if ctx.dry_run {
        if status.is_some() {
            info!(source = name, ?status, "dry run: not written");
        }
        let entry = world.source_mut(id);
        if let (Some(facts), Some(status)) = (entry.and_then(|entry| entry.facts.as_mut()), status) {
            facts.status = Some(status);
        }
        return Err(after(look_again));
    }
    let Some(status) = status else {
        tell(ctx, &mut world, id, &uid, &notes);
        return Err(after(look_again));
    };
    if !rest.is_zero() {
        return Err(after(Some(look_again.map_or(rest, |delay| delay.min(rest)))));
    }
    drop(world);
    let ctx = ctx.clone();
    Ok(async move {
        match write(&ctx, id, &name, status).await {
            Ok(()) => {
                tell(&ctx, &mut ctx.world(), id, &uid, &notes);
                after(look_again)
            }
            Err(next) => next,
        }
    })
}

/// Has the source use what it asks now, until that asks for nothing more: an answer may be known already, and not be enough.
fn settle_uses(world: &mut World, id: SourceId, now: Now) {
    let pools = pools_in_view(world, id);
    let mut changed = false;
    for _ in 0..SOLVERS {
        let Some(view) = SourceView::of(world, id, &pools) else { break };
        let pass = view.pass();
        let Ok(source) = &pass.source.spec else {
            let name = pass.source.name.clone();
            world.answers.forget(&name);
            break;
        };
        let (name, terms, keys) = (pass.source.name.clone(), plan::terms(source, &world.rules), plan::asked(&pass, now));
        let World { answers, cluster, .. } = world;
        if !answers.use_by(&name, &terms, keys, cluster, now.instant) {
            break;
        }
        changed = true;
    }
    if changed {
        world.wake_bound(id);
        world.push(Wake::Solvers);
    }
}

async fn write(ctx: &Ctx, id: SourceId, name: &str, status: ClusterExternalIPSourceStatus) -> Result<(), Next> {
    let (target, request) = source_status(name, &status);
    let sent: Result<IgnoredAny, WriteError> = match request {
        Ok(request) => ctx.writer.send(Priority::PoolStatus, target, request, || true).await,
        Err(error) => Err(WriteError::from(Error::from(error))),
    };
    let mut world = ctx.world();
    let Some(entry) = world.source_mut(id) else { return Err(Next::Done) };
    match sent {
        Ok(_) => {
            debug!(source = name, "status written");
            entry.wrote = Some(Instant::now());
            entry.backoff = Backoff::default();
            if let Some(facts) = &mut entry.facts {
                facts.status = Some(status);
            }
            Ok(())
        }
        Err(WriteError::Fenced { .. }) => Err(Next::After(PLACE, PACE)),
        Err(error) => {
            warn!(source = name, %error, "status not written");
            ctx.metrics.error(error.category());
            let delay = entry.backoff.after(error.class(), rand::random()).unwrap_or(REFUSED);
            Err(Next::After(PLACE, delay.max(error.retry_after().unwrap_or_default())))
        }
    }
}

fn tell(ctx: &Ctx, world: &mut World, id: SourceId, uid: &str, notes: &[Note]) {
    let Some(entry) = world.source_mut(id) else { return };
    for note in notes {
        entry.told.insert(note.reason, note.text.clone());
        ctx.notify_source(&entry.name, uid, note);
    }
}
