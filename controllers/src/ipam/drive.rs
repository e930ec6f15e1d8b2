//! Carries out the plan of one claim, step by step, and reports to the cache what became of each request.
//!
//! Nothing is decided here. Every write has a precondition, and right before it leaves it is checked once more that nobody has paused
//! the claim, its cluster or its pool since the plan was made.

use std::time::{Duration, Instant};

use api::capi::{CapiVersion, IpAddress, IpAddressClaim};
use api::reasons::EventReason;
use kube::Api;
use poolutil::Span;
use serde_json::Value;
use tracing::{debug, info, warn};

use super::Ctx;
use super::compact::{Revision, Uid};
use super::facts::{Facts, PoolView, Waiting};
use super::objects::{Objects, Request, Written};
use super::plan::{ClaimWrite, Deletion, Plan, Row, Step};
use super::records::Slot;
use super::world::{About, Holds};
use crate::kit::metrics::Allocation;
use crate::kit::queue::{Next, Place};
use crate::kit::writes::{Priority, Target, WriteError};

/// A refused write is tried again after this time even if nothing changes.
const REFUSED: Duration = Duration::from_secs(300);
/// A write that was fenced is looked at again after this time, should this process still lead then.
const FENCED: Duration = Duration::from_secs(1);

/// One claim on its way through a plan.
struct Drive<'a> {
    ctx: &'a Ctx,
    slot: Slot,
    namespace: &'a str,
    name: &'a str,
    version: CapiVersion,
    kind: &'static str,
    /// For people.
    pool: String,
    priority: Priority,
    holds: Holds,
    claim: Option<Uid>,
    /// Whether the claim is deleting.
    going: bool,
    /// Whether the claim has been told an address already.
    bound: bool,
}

/// Performs the steps of `plan`; a step that fails ends it, and its error says when to look again.
pub async fn drive(ctx: &Ctx, slot: Slot, facts: &Facts, plan: Plan, holds: Holds) -> Next {
    let place = ctx.world().place(slot).unwrap_or(Place { lane: 0, rank: 0 });
    let drive = Drive {
        ctx,
        slot,
        namespace: &facts.namespace,
        name: &facts.name,
        version: facts.capi,
        kind: facts.pool.kind().kind(),
        pool: facts.pool.to_string(),
        priority: match plan.row {
            _ if plan.is_backfill() => Priority::Backfill,
            Row::Bind if facts.motion.waiting.is_some_and(|(waiting, _)| waiting == Waiting::Room) => Priority::Publish,
            row => priority(row),
        },
        holds,
        claim: facts.claim.as_ref().map(|claim| claim.uid.clone()),
        going: facts.claim.as_ref().is_some_and(|claim| claim.deleting.is_some()),
        bound: facts.claim.as_ref().is_some_and(|claim| claim.bound),
    };
    let recheck = plan.recheck;
    for step in plan.steps {
        if let Err(error) = drive.step(step).await {
            if matches!(error, WriteError::NotFound { .. }) {
                drive.look_for_claim().await;
            }
            return drive.after(&error, place);
        }
    }
    ctx.world().succeeded(slot);
    recheck.map_or(Next::Done, |delay| Next::After(place, delay))
}

fn priority(row: Row) -> Priority {
    match row {
        Row::Nothing
        | Row::ReleaseAddress
        | Row::ReleaseClaim
        | Row::ReleaseAwaitsAnswer
        | Row::ReleasePublished
        | Row::ReleaseAwaitsConsumer
        | Row::ReleaseAwaitsGrace
        | Row::ReleaseAwaitsMemory
        | Row::ReleaseAwaitsThirdParty
        | Row::Orphan
        | Row::OrphanKept
        | Row::Lost => Priority::Release,
        Row::Publish | Row::Settled => Priority::Publish,
        Row::Bind | Row::Allocate | Row::AwaitDelivery | Row::Protect => Priority::Bind,
        Row::OwnWrite
        | Row::Moving
        | Row::ClaimPaused
        | Row::ClusterPaused
        | Row::ClusterMissing
        | Row::PoolPaused
        | Row::NameTaken
        | Row::EarlierAddress
        | Row::Repair
        | Row::Contested
        | Row::PoolNotReady
        | Row::NoRoom
        | Row::Denied => Priority::Repair,
    }
}

impl Drive<'_> {
    fn objects(&self) -> Objects<'_> {
        Objects { namespace: self.namespace, name: self.name, version: self.version }
    }

    async fn step(&self, step: Step) -> Result<(), WriteError> {
        match step {
            Step::ProtectClaim(write) => self.protect_claim(&write).await,
            Step::Bind { span, claim_uid, cluster_label, pool, finalizer } => {
                let create = self.create(span, &claim_uid, cluster_label.as_deref(), &pool);
                let protect = async {
                    match &finalizer {
                        Some(write) => self.protect_claim(write).await,
                        None => Ok(()),
                    }
                };
                let (created, protected) = tokio::join!(create, protect);
                created.and(protected)
            }
            Step::GiveUp { revision, uid } => {
                let answer = self.send(self.objects().give_up(&revision, &uid)).await?;
                self.note_claim(&revision, &answer);
                Ok(())
            }
            Step::Repair { revision, repair } => {
                if let Some(claim) = self.claim.as_ref().filter(|_| repair.changes_owner)
                    && !self.is_alive(claim).await?
                {
                    debug!(claim = self.title(), "the claim goes: it gets no address");
                    return Ok(());
                }
                if let Some(claim) = self.claim.as_ref().filter(|_| repair.untold) {
                    self.ctx.world().adopts(claim);
                }
                let answer = self.send(self.objects().repair_address(&revision, &repair)).await?;
                self.note_address(&revision, &answer);
                info!(claim = self.title(), "address completed");
                Ok(())
            }
            Step::Publish { patch, revision, bound, text, made } => self.publish(&patch, &revision, bound, text, made).await,
            Step::Tell { patch, revision } => {
                let answer = self.send(self.objects().claim_status(&patch)).await?;
                self.note_claim(&revision, &answer);
                self.ctx.metrics.allocation(self.kind, Allocation::Refused);
                Ok(())
            }
            Step::DeleteAddress { uid, revision, why, text } => self.delete(&uid, &revision, why, &text).await,
            Step::UnprotectAddress { uid, finalizers } => self.unprotect(&uid, &finalizers).await,
            Step::ReleaseClaim { uid, finalizers } => self.release_claim(&uid, &finalizers).await,
            Step::Unpublish { uid, finalizers } => self.unpublish(&uid, &finalizers).await,
            Step::ReleaseOrphan { uid, finalizers, claim_uid } => {
                self.release_orphan(&uid, &finalizers, claim_uid.as_ref()).await
            }
            Step::ConfirmAbsent => self.confirm_absent().await,
            Step::ConfirmBereft { uid, shown } => self.confirm_bereft(&uid, shown.as_ref()).await,
            Step::RestartWatch => self.redeliver().await,
            Step::Remember(span) => {
                self.ctx.world().remember(self.slot, span);
                Ok(())
            }
            Step::Event(reason, note) => {
                self.event(reason, note);
                Ok(())
            }
        }
    }

    fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Sends one write, unless somebody paused the claim since the plan was made.
    async fn send(&self, request: Request) -> Result<Written, WriteError> {
        self.send_if(request, || true).await
    }

    async fn send_if(&self, (target, request): Request, leaves: impl FnOnce() -> bool) -> Result<Written, WriteError> {
        let go = || {
            let unchanged = self.ctx.world().holds(self.slot) == self.holds;
            unchanged && leaves()
        };
        self.ctx.writer.send(self.priority, target, request?, go).await
    }

    fn note_claim(&self, before: &Revision, answer: &Written) {
        if answer.revision() != *before {
            self.ctx.world().wrote_claim(self.slot, before);
        }
    }

    fn note_address(&self, before: &Revision, answer: &Written) {
        if answer.revision() != *before {
            self.ctx.world().wrote_address(self.slot, before);
        }
    }

    async fn protect_claim(&self, write: &ClaimWrite) -> Result<(), WriteError> {
        let answer = self.send(self.objects().protect_claim(write)).await?;
        self.note_claim(&write.revision, &answer);
        Ok(())
    }

    async fn create(&self, span: Span, claim: &Uid, label: Option<&str>, pool: &PoolView) -> Result<(), WriteError> {
        // What is missing beside a bound claim may have been released by another manager, whose claim our view still shows.
        if self.bound && !self.is_alive(claim).await? {
            debug!(claim = self.title(), "the claim goes: its address is not made anew");
            return Ok(());
        }
        let request = self.objects().create_address(span, claim, label, pool, self.ctx.watch_filter());
        let answer = self.send_if(request, || self.ctx.world().sends(self.slot, claim, span)).await;
        match answer {
            Ok(answer) => {
                self.ctx.world().answered(self.slot, answer.uid());
                debug!(claim = self.title(), address = %span, "address created");
                Ok(())
            }
            Err(WriteError::AlreadyExists { .. }) => self.compare(span, claim).await,
            Err(error @ (WriteError::Refused { .. } | WriteError::Malformed(_))) => {
                warn!(claim = self.title(), address = %span, %error, "address refused");
                self.ctx.metrics.error(error.category());
                self.ctx.world().refused(self.slot, error.to_string(), Instant::now() + REFUSED);
                let place = self.ctx.world().place(self.slot);
                if let Some(place) = place {
                    self.ctx.claims.push(self.slot, place);
                }
                Ok(())
            }
            Err(error @ (WriteError::NamespaceTerminating { .. } | WriteError::NotFound { .. })) => {
                self.ctx.world().not_made(self.slot);
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The name is taken: by an earlier try of ours, or by somebody else.
    async fn compare(&self, span: Span, claim: &Uid) -> Result<(), WriteError> {
        let found = self.get::<IpAddress>(IpAddress::api_resource(self.version)).await?;
        let ours = found.as_ref().filter(|address| {
            let owner = super::owners::claim_uid(address.metadata.owner_references.as_deref().unwrap_or_default(), self.name);
            address.spec.address == span.ip().to_string() && owner.as_ref() == Some(claim)
        });
        let mut world = self.ctx.world();
        match ours {
            Some(address) => world.answered(self.slot, Uid::new(address.metadata.uid.as_deref().unwrap_or_default())),
            None => world.not_made(self.slot),
        }
        // Should the watch be late, the next try must not come at once.
        let place = world.place(self.slot);
        drop(world);
        if let Some(place) = place {
            self.ctx.claims.push_after(self.slot, place, FENCED);
        }
        Ok(())
    }

    async fn publish(&self, patch: &Value, before: &Revision, bound: bool, text: String, made: bool) -> Result<(), WriteError> {
        let answer = self.send(self.objects().claim_status(patch)).await?;
        self.note_claim(before, &answer);
        let way = self.ctx.world().published(self.slot);
        if !bound {
            return Ok(());
        }
        if let Some((took, waited)) = way {
            self.ctx.metrics.bind_duration(self.kind, took);
            if let Some(waited) = waited {
                self.ctx.metrics.wait_duration(self.kind, waited);
            }
        }
        let result = if made { Allocation::Bound } else { Allocation::Adopted };
        self.ctx.metrics.allocation(self.kind, result);
        info!(claim = self.title(), address = text, "claim bound");
        self.event(EventReason::AddressAllocated, format!("allocated {text} from {}", self.pool));
        Ok(())
    }

    async fn delete(&self, uid: &Uid, revision: &Revision, why: Deletion, text: &str) -> Result<(), WriteError> {
        match self.send(self.objects().delete_address(uid, revision)).await {
            Ok(answer) => {
                self.ctx.world().deleted(self.slot, uid);
                self.unprotect(uid, answer.finalizers()).await?;
            }
            Err(WriteError::NotFound { .. }) => self.ctx.world().deleted(self.slot, uid),
            Err(error) => return Err(error),
        }
        info!(claim = self.title(), address = text, reason = ?why, "address deleted");
        match why {
            Deletion::Released => {
                self.ctx.metrics.release(self.kind);
                self.event(EventReason::AddressReleased, format!("released {text} to {}", self.pool));
            }
            Deletion::Lost => {
                self.ctx.metrics.address_conflict(self.kind);
                self.ctx.metrics.allocation(self.kind, Allocation::Lost);
                self.ctx.world().collided(self.slot);
            }
            Deletion::Abandoned => {}
        }
        Ok(())
    }

    /// Whether the claim with this UID exists and is not deleting.
    async fn is_alive(&self, uid: &Uid) -> Result<bool, WriteError> {
        let claim = self.get::<IpAddressClaim>(IpAddressClaim::api_resource(self.version)).await?;
        let meta = claim.map(|claim| claim.metadata).filter(|meta| meta.deletion_timestamp.is_none());
        Ok(meta.is_some_and(|meta| Uid::new(meta.uid.as_deref().unwrap_or_default()) == *uid))
    }

    /// Something was not there. If it was the claim, then what was made for it is undone now and not when the watch says so: until
    /// then this process is the only one that knows of it.
    async fn look_for_claim(&self) {
        let Some(uid) = &self.claim else { return };
        let found = self.live_claim().await;
        let Ok(found) = found.inspect_err(|error| debug!(claim = self.title(), %error, "claim not read")) else { return };
        if found.as_ref() != Some(uid) {
            self.ctx.world().bury(self.slot, uid);
        }
    }

    /// The UID of the claim of this name that the API server has.
    async fn live_claim(&self) -> Result<Option<Uid>, WriteError> {
        let claim = self.get::<IpAddressClaim>(IpAddressClaim::api_resource(self.version)).await?;
        Ok(claim.map(|claim| Uid::new(claim.metadata.uid.as_deref().unwrap_or_default())))
    }

    async fn unprotect(&self, uid: &Uid, finalizers: &[String]) -> Result<(), WriteError> {
        let Some(request) = self.objects().unprotect_address(uid, finalizers) else { return Ok(()) };
        match self.send(request).await {
            // Somebody else's finalizer keeps it.
            Ok(answer) if !answer.finalizers().is_empty() => Ok(()),
            Ok(_) | Err(WriteError::NotFound { .. }) => {
                self.ctx.world().removed(self.slot, uid, self.claim.as_ref().filter(|_| self.going));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn release_claim(&self, uid: &Uid, finalizers: &[String]) -> Result<(), WriteError> {
        let Some(request) = self.objects().release_claim(uid, finalizers) else { return Ok(()) };
        match self.send(request).await {
            Ok(_) => {
                let took = self.ctx.world().time_since(self.slot);
                if let Some(took) = took {
                    self.ctx.metrics.release_duration(self.kind, took);
                }
                Ok(())
            }
            Err(WriteError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn unpublish(&self, uid: &Uid, finalizers: &[String]) -> Result<(), WriteError> {
        let Some(request) = self.objects().unpublish_claim(uid, finalizers) else { return Ok(()) };
        match self.send(request).await {
            Ok(_) => {
                info!(claim = self.title(), "external IP sources do not run: the claim is held for no Service any more");
                Ok(())
            }
            Err(WriteError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn release_orphan(&self, uid: &Uid, finalizers: &[String], owner: Option<&Uid>) -> Result<(), WriteError> {
        let found = self.live_claim().await?;
        if found.is_some() && found.as_ref() == owner {
            return Ok(());
        }
        self.unprotect(uid, finalizers).await?;
        info!(address = self.title(), "orphaned address let go");
        Ok(())
    }

    async fn confirm_absent(&self) -> Result<(), WriteError> {
        if self.get::<IpAddress>(IpAddress::api_resource(self.version)).await?.is_none() {
            self.ctx.world().not_made(self.slot);
        }
        let place = self.ctx.world().place(self.slot);
        if let Some(place) = place {
            self.ctx.claims.push_after(self.slot, place, FENCED);
        }
        Ok(())
    }

    /// The claim has no address any more if there is none, or only the one in our view, which is not the claim's.
    async fn confirm_bereft(&self, claim: &Uid, shown: Option<&Revision>) -> Result<(), WriteError> {
        let found = self.get::<IpAddress>(IpAddress::api_resource(self.version)).await?;
        let found = found.map(|address| Revision::new(address.metadata.resource_version.as_deref().unwrap_or_default()));
        let gone = found.is_none() || found.as_ref() == shown;
        if gone {
            self.ctx.world().bereft(self.slot, claim);
        }
        let place = self.ctx.world().place(self.slot);
        if let Some(place) = place {
            self.ctx.claims.push_after(self.slot, place, if gone { Duration::ZERO } else { FENCED });
        }
        Ok(())
    }

    /// The watch does not show an address that was created: it starts over, unless the address is gone already.
    async fn redeliver(&self) -> Result<(), WriteError> {
        if self.get::<IpAddress>(IpAddress::api_resource(self.version)).await?.is_some() {
            warn!(claim = self.title(), "the watch does not deliver an address that was created; it starts over");
            self.ctx.world().asked_again(self.slot);
            self.ctx.address_watch.now();
            return Ok(());
        }
        self.ctx.world().not_made(self.slot);
        let place = self.ctx.world().place(self.slot);
        if let Some(place) = place {
            self.ctx.claims.push(self.slot, place);
        }
        Ok(())
    }

    /// A live read, for the few cases where the view is not enough.
    async fn get<K>(&self, resource: kube::core::ApiResource) -> Result<Option<K>, WriteError>
    where
        K: kube::Resource<DynamicType = kube::core::ApiResource, Scope = kube::core::DynamicResourceScope>
            + Clone
            + std::fmt::Debug,
        K: serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced_with(self.ctx.client.clone(), self.namespace, &resource);
        let resource = if resource.kind == "IPAddress" { "ipaddresses" } else { "ipaddressclaims" };
        let path = format!("{}/{}", api.resource_url(), self.name);
        self.ctx.writer.read(Target { verb: "get", resource }, &path, api.get_opt(self.name)).await
    }

    fn event(&self, reason: EventReason, note: String) {
        let world = self.ctx.world();
        let about = match reason {
            EventReason::OrphanedAddress => world.address_uid(self.slot).map(|uid| About::Address(self.slot, uid)),
            _ => world.claim_uid(self.slot).map(|uid| About::Claim(self.slot, uid)),
        };
        if let Some(about) = about {
            self.ctx.notify(&world, &about, reason, note);
        }
    }

    /// Maps an error to the next look.
    fn after(&self, error: &WriteError, place: Place) -> Next {
        let class = error.class();
        match error {
            WriteError::Withheld { .. } => return Next::Done,
            WriteError::Fenced { .. } => return Next::After(place, FENCED),
            WriteError::Conflict { .. } | WriteError::AlreadyExists { .. } => {
                debug!(claim = self.title(), %error, "planned again");
            }
            _ => warn!(claim = self.title(), %error, "write failed"),
        }
        self.ctx.metrics.error(error.category());
        let delay = self.ctx.world().failed(self.slot, class);
        match delay.map(|delay| delay.max(error.retry_after().unwrap_or_default())) {
            Some(Duration::ZERO) => Next::Again(place),
            Some(delay) => Next::After(place, delay),
            None => Next::After(place, REFUSED),
        }
    }
}

#[cfg(test)]
mod tests;
