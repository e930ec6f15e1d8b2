//! Asks the shared solvers what is due, each once at a time, and stores what they say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::{Id, JoinSet};
use tracing::{debug, error};

use super::Ctx;
use super::answers::{Failure, FailureKind, Key, Outcome, Ran};
use super::solver::Solvers;
use super::world::Wake;

/// Asks for ever. Only the leader does, so that a third party is asked once for the whole cluster.
pub async fn ask(ctx: &Arc<Ctx>, solvers: Arc<Solvers>) {
    let mut runs = JoinSet::new();
    let mut keys: HashMap<Id, Arc<Key>> = HashMap::new();
    loop {
        let next = {
            let mut world = ctx.world();
            let now = Instant::now();
            while let Some(key) = world.answers.due(now) {
                world.answers.begin(&key, now);
                let (solvers, asked) = (solvers.clone(), key.clone());
                let run = runs.spawn(async move {
                    let started = Instant::now();
                    let ran = solvers.ask(&asked).await;
                    (ran, started.elapsed())
                });
                keys.insert(run.id(), key);
            }
            world.answers.next_due()
        };
        let alarm = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = runs.join_next_with_id(), if !runs.is_empty() => {
                let (id, ran, took) = match ended {
                    Ok((id, (ran, took))) => (id, ran, took),
                    Err(panic) => {
                        error!(error = %panic, "a solver panicked");
                        let failure = Failure { kind: FailureKind::BadAnswer, text: "the solver broke off".to_owned() };
                        (panic.id(), Ran { outcome: Outcome::Failed(failure), fresh_for: None }, std::time::Duration::ZERO)
                    }
                };
                if let Some(key) = keys.remove(&id) {
                    ctx.metrics.external_ips().ran(key.solver.type_name(), word(&ran.outcome), took);
                    store(ctx, &key, ran);
                }
            }
            () = ctx.asked.notified() => {}
            () = alarm => {}
        }
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Found { .. } => "found",
        Outcome::Empty(_) => "empty",
        Outcome::Failed(failure) => failure.kind.as_str(),
    }
}

/// Stores an answer, and has those planned again to whom it makes a difference.
pub(super) fn store(ctx: &Ctx, key: &Arc<Key>, ran: Ran) {
    let mut world = ctx.world();
    let now = Instant::now();
    let world_ref = &mut *world;
    let changes = world_ref.answers.finish(key, ran, &world_ref.cluster, now, rand::random());
    debug!(solver = key.solver.type_name(), family = ?key.family, changes = changes.len(), "answered");
    for change in changes {
        let Some(id) = world.find_source(&change.source) else { continue };
        for (class, count) in refused(&world, &change.source, key, now) {
            ctx.metrics.external_ips().refused(class, count);
        }
        world.push(Wake::Source(id));
        if change.services {
            world.answer_changed(id, now);
        }
    }
    ctx.deliver(&mut world);
}

/// How many addresses of the new answer the source may not publish, by the reason.
fn refused(world: &super::world::World, source: &str, key: &Key, now: Instant) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::new();
    for (_, refusal) in world.answers.read(source, key, &world.cluster, now).refused {
        *counts.entry(refusal.as_str()).or_default() += 1;
    }
    counts
}

/// Has solvers that read network interfaces asked again whenever one changes.
pub async fn follow_interfaces(ctx: &Arc<Ctx>, solvers: &Solvers) {
    let mut changes = solvers.interface_changes();
    while changes.changed().await.is_ok() {
        let mut world = ctx.world();
        world.answers.refresh_all(|key| matches!(key.solver, api::externalip::Shared::Interface(_)), Instant::now());
        drop(world);
        ctx.asked.notify_one();
    }
    std::future::pending::<()>().await;
}
