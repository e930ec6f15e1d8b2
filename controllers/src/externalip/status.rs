//! Passes over sources: what they ask, what they show of themselves, and which Services that concerns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::externalip::ClusterExternalIPSourceStatus;
use k8s_openapi::jiff::Timestamp;
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
        Err(error) => Err(error.into()),
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

#[cfg(test)]
mod tests {
    use api::externalip::ClusterExternalIPSource;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::{Value, json};

    use super::*;
    use crate::externalip::drive::tests::{Answer, Asked, Bed, refuse, version};
    use crate::externalip::service_pass;
    use crate::kit::leader::Leadership;
    use crate::kit::watch::Seen;

    /// The source `public` with this spec, and the Service team-a/web that names it, in version 7; this process leads.
    fn bed(spec: &Value, dry_run: bool) -> Bed {
        let bed = Bed::with(Leadership::always(), dry_run);
        let service: Service = serde_json::from_value(json!({
            "metadata": {
                "namespace": "team-a", "name": "web", "uid": "s-web", "resourceVersion": "7",
                "annotations": {"externalip.spacebird.dev/cluster-external-ip-source": "public"},
            },
            "spec": {"ports": [{"port": 443}]},
        }))
        .unwrap();
        let source: ClusterExternalIPSource = serde_json::from_value(json!({
            "apiVersion": "externalip.spacebird.dev/v1alpha1", "kind": "ClusterExternalIPSource",
            "metadata": {"name": "public", "uid": "u-public", "generation": 3}, "spec": spec,
        }))
        .unwrap();
        let now = Instant::now();
        let mut world = bed.ctx.world();
        world.take_sources(Seen::Changed(source), now);
        world.take_services(Seen::Changed(service), now);
        world.begin(now);
        bed.ctx.deliver(&mut world);
        drop(world);
        bed
    }

    fn fixed() -> Value {
        json!({"ipv4": {"solvers": [{"static": {"addresses": ["198.51.100.7"]}}]}})
    }

    async fn pass<const N: usize>(bed: &mut Bed, answers: [Answer; N]) -> (Vec<Asked>, Next) {
        let id = bed.ctx.world().find_source("public").unwrap();
        match source_pass(&bed.ctx, id) {
            Ok(work) => bed.exchange(Box::pin(work), answers).await,
            Err(next) => (Vec::new(), next),
        }
    }

    #[tokio::test]
    async fn a_source_is_shown_when_it_changes_and_not_again() {
        let mut bed = bed(&fixed(), false);
        let (asked, next) = pass(&mut bed, [version("8")]).await;
        let (request, body) = &asked[0];
        let place = "/apis/externalip.spacebird.dev/v1alpha1/clusterexternalipsources/public/status";
        assert_eq!((asked.len(), next), (1, Next::Done));
        assert_eq!(request, &format!("PATCH {place}?&force=true&fieldManager=ipam-in-cluster"));
        assert_eq!(body["metadata"], json!({"name": "public"}));
        let status = &body["status"];
        assert_eq!((&status["observedGeneration"], &status["services"]), (&json!(3), &json!(1)));
        assert_eq!(status["ipv4"]["addresses"], json!(["198.51.100.7"]));
        assert_eq!(pass(&mut bed, []).await, (Vec::new(), Next::Done));
    }

    #[tokio::test]
    async fn a_second_change_within_a_second_waits_for_its_end() {
        let mut bed = bed(&fixed(), false);
        pass(&mut bed, [version("8")]).await;
        let id = bed.ctx.world().find_source("public").unwrap();
        bed.ctx.world().source_mut(id).unwrap().facts.as_mut().unwrap().status = None;
        let (asked, next) = pass(&mut bed, []).await;
        assert!(asked.is_empty() && matches!(next, Next::After(_, rest) if rest <= PACE), "{next:?}");
    }

    #[tokio::test]
    async fn a_refused_status_is_not_tried_at_once() {
        let mut bed = bed(&fixed(), false);
        let gone = refuse(404, "NotFound", "the server could not find the requested resource");
        assert_eq!(pass(&mut bed, [gone]).await.1, Next::After(PLACE, REFUSED));
    }

    #[tokio::test]
    async fn what_is_known_without_asking_reaches_the_service_in_its_first_pass() {
        let mut bed = bed(&fixed(), false);
        pass(&mut bed, [version("8")]).await;
        let work = service_pass(&bed.ctx, 0).ok().unwrap();
        let (asked, _) = bed.exchange(Box::pin(work), [version("8"), version("9")]).await;
        let written: Vec<_> =
            asked.iter().map(|(_, body)| (body["spec"].clone(), body["status"]["conditions"][0]["reason"].clone())).collect();
        assert_eq!(written, [(json!({"externalIPs": ["198.51.100.7"]}), Value::Null), (Value::Null, json!("Assigned"))]);
        // Until the watch shows what was written there is nothing to decide.
        assert!(matches!(service_pass(&bed.ctx, 0), Err(Next::After(..))));
    }

    #[tokio::test]
    async fn a_dry_run_shows_nothing() {
        let mut bed = bed(&fixed(), true);
        assert_eq!(pass(&mut bed, []).await, (Vec::new(), Next::Done));
    }

    #[tokio::test]
    async fn a_spec_that_cannot_be_read_asks_nothing_and_says_so() {
        let mut bed = bed(&json!({"ipv4": {"solvers": [{"dnsHostname": {"host": "*.example.net"}}]}}), false);
        let (asked, _) = pass(&mut bed, [version("8")]).await;
        assert_eq!(asked[0].1["status"]["conditions"][0]["reason"], json!("InvalidSpec"));
        assert_eq!(bed.ctx.world().answers.next_due(), None);
    }

    #[tokio::test]
    async fn a_host_is_due_at_once_and_what_it_answers_concerns_the_service() {
        let mut bed = bed(&json!({"ipv4": {"solvers": [{"dnsHostname": {"host": "gw.example.net"}}]}}), false);
        pass(&mut bed, [version("8")]).await;
        let key = bed.ctx.world().answers.due(Instant::now()).unwrap();
        bed.ctx.world().answers.begin(&key, Instant::now());
        let found =
            crate::externalip::answers::Outcome::Found { addresses: vec!["198.51.100.9".parse().unwrap()], truncated: false };
        crate::externalip::ask::store(&bed.ctx, &key, crate::externalip::answers::Ran { outcome: found, fresh_for: None });
        let work = service_pass(&bed.ctx, 0).ok().unwrap();
        let (asked, _) = bed.exchange(Box::pin(work), [version("8"), version("9")]).await;
        assert_eq!(asked[0].1["spec"], json!({"externalIPs": ["198.51.100.9"]}));
    }
}
