//! Carries out the plan of one Service, step by step, and remembers what became of each.
//!
//! Nothing is decided here. Every write has a precondition: the version last seen or just written, a UID, or a `test`. What the API
//! server refuses of an output is remembered as that output's trouble, and the next plan goes on without it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::capi::CapiVersion;
use api::externalip::Output;
use poolutil::Family;
use serde_json::Value;
use tracing::{debug, info, warn};

use super::Ctx;
use super::facts::{ServiceKey, Trouble, TroubleKind};
use super::plan::{Note, Plan, RecordChange, Step};
use super::record::Record;
use super::requests::{Request, Requests};
use super::world::{Awaited, Slot};
use crate::kit::queue::Next;
use crate::kit::writes::{Backoff, Priority, WriteError};

/// What the API server refuses is tried again after this time even if nothing changes.
const REFUSED: Duration = Duration::from_secs(600);
/// A write that was fenced is looked at again after this time, should this process still lead then.
const FENCED: Duration = Duration::from_secs(1);

/// The Service as it was when its plan was made.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Namespace and name.
    pub key: ServiceKey,
    /// Its UID; empty for one that is gone.
    pub uid: String,
    /// Its version.
    pub revision: String,
    /// The addresses that its record names.
    pub recorded: BTreeSet<IpAddr>,
    /// Who else wrote its list of addresses last.
    pub other_writer: Option<String>,
    /// The versions of its claims.
    pub claims: Vec<(String, String)>,
    /// The version in which claims are written.
    pub capi: CapiVersion,
    /// Its addresses changed at this time, and are not written yet.
    pub changed: Option<Instant>,
}

/// One Service on its way through a plan.
struct Drive<'a> {
    ctx: &'a Ctx,
    slot: Slot,
    subject: Subject,
}

/// Performs the steps of `plan`; one that fails ends it, and its error says when to look again.
pub async fn drive(ctx: &Ctx, slot: Slot, subject: Subject, plan: Plan) -> Next {
    let mut drive = Drive { ctx, slot, subject };
    let look_again = plan.look_again;
    for step in plan.steps {
        if ctx.dry_run {
            drive.show(&step);
            continue;
        }
        if let Err(error) = drive.step(&step).await {
            return drive.after(&step, &error);
        }
    }
    let written = drive.subject.changed;
    drive.motion(|motion| {
        motion.backoff = Backoff::default();
        motion.changed = motion.changed.filter(|changed| Some(*changed) != written);
    });
    look_again.map_or(Next::Done, |delay| Next::After(super::PLACE, delay))
}

/// Where a step publishes, if it does.
fn output(step: &Step) -> Option<Output> {
    match step {
        Step::PatchService { .. } => Some(Output::ExternalIps),
        Step::ApplyTarget { .. } => Some(Output::ExternalDnsTarget),
        Step::ApplyStatus { .. } => Some(Output::LoadBalancerStatus),
        Step::ApplyConditions { .. }
        | Step::CreateClaim { .. }
        | Step::AdoptClaim { .. }
        | Step::DeleteClaim { .. }
        | Step::FreeClaim { .. }
        | Step::Emit(_) => None,
    }
}

impl Drive<'_> {
    fn requests(&self) -> Requests<'_> {
        Requests { key: &self.subject.key, uid: &self.subject.uid, revision: &self.subject.revision, capi: self.subject.capi }
    }

    async fn step(&mut self, step: &Step) -> Result<(), WriteError> {
        match step {
            Step::PatchService { external_ips, record, restores } => {
                let request = self.requests().patch_service(external_ips.as_deref(), record.as_ref());
                self.write_service(Priority::Publish, request).await?;
                self.patched(step, external_ips.is_some(), record.as_ref(), *restores);
                Ok(())
            }
            Step::ApplyTarget { annotations } => {
                let request = self.requests().apply_target(annotations);
                self.write_service(Priority::Publish, request).await?;
                self.published(Output::ExternalDnsTarget);
                info!(service = %self.subject.key, ?annotations, "target written");
                Ok(())
            }
            Step::ApplyStatus { ingress } => {
                let request = self.requests().apply_ingress(ingress.as_deref());
                self.write_service(Priority::Publish, request).await?;
                self.published(Output::LoadBalancerStatus);
                info!(service = %self.subject.key, ?ingress, "ingress status written");
                Ok(())
            }
            Step::ApplyConditions { conditions } => {
                let request = self.requests().apply_conditions(conditions);
                match self.write_service(Priority::PoolStatus, request).await {
                    // It went meanwhile, and takes its conditions along.
                    Err(WriteError::NotFound { .. }) => Ok(()),
                    answer => answer,
                }
            }
            Step::CreateClaim { name, object } => {
                let request = self.requests().create_claim(object);
                match self.send(Priority::Bind, request).await {
                    // An earlier try of ours, or somebody else's: the watch tells which.
                    Ok(_) | Err(WriteError::AlreadyExists { .. }) => self.await_claim(name),
                    Err(error) => return Err(error),
                }
                info!(service = %self.subject.key, claim = name, "claim made");
                Ok(())
            }
            Step::AdoptClaim { name, uid, revision, owner } => {
                let request = self.requests().adopt_claim(name, uid, revision, owner);
                self.send(Priority::Repair, request).await?;
                self.await_claim(name);
                info!(service = %self.subject.key, claim = name, "claim adopted");
                Ok(())
            }
            Step::DeleteClaim { name, uid } => {
                let request = self.requests().delete_claim(name, uid);
                self.end_claim(name, request).await?;
                info!(service = %self.subject.key, claim = name, "claim deleted");
                Ok(())
            }
            Step::FreeClaim { name, uid, finalizers } => {
                let Some(request) = self.requests().free_claim(name, uid, finalizers) else { return Ok(()) };
                self.end_claim(name, request).await?;
                info!(service = %self.subject.key, claim = name, "claim let go");
                Ok(())
            }
            Step::Emit(note) => {
                self.tell(note);
                Ok(())
            }
        }
    }

    /// Says what would be done.
    fn show(&self, step: &Step) {
        info!(service = %self.subject.key, ?step, "dry run: not done");
        if let Step::Emit(note) = step {
            self.motion(|motion| motion.told.insert(note.reason, note.text.clone()));
        }
    }

    fn motion<T>(&self, change: impl FnOnce(&mut super::world::Motion) -> T) -> Option<T> {
        self.ctx.world().entry_mut(self.slot).map(|entry| change(&mut entry.motion))
    }

    async fn send(&self, priority: Priority, (target, request): Request) -> Result<Value, WriteError> {
        self.ctx.writer.send(priority, target, request?, || true).await
    }

    /// A write to the Service: what follows builds upon the version that it made.
    async fn write_service(&mut self, priority: Priority, request: Request) -> Result<(), WriteError> {
        let answer = self.send(priority, request).await?;
        let Some(revision) = answer["metadata"]["resourceVersion"].as_str() else { return Ok(()) };
        revision.clone_into(&mut self.subject.revision);
        if let Some(entry) = self.ctx.world().entry_mut(self.slot) {
            entry.motion.wait_for(Awaited::Written(revision.to_owned()), entry.service.as_ref(), Instant::now());
        }
        Ok(())
    }

    /// An output is as it should be.
    fn published(&self, output: Output) {
        let metrics = self.ctx.metrics.external_ips();
        metrics.wrote(output.as_str(), "ok");
        self.motion(|motion| motion.troubles.remove(&output));
        if let Some(changed) = self.subject.changed {
            metrics.published(output.as_str(), changed.elapsed());
        }
    }

    fn patched(&mut self, step: &Step, list: bool, record: Option<&RecordChange>, restores: bool) {
        let before = self.subject.recorded.clone();
        let after = match record {
            Some(RecordChange::Set(text)) => {
                Record::parse(text).map(|record| record.addresses.into_keys().collect()).unwrap_or_default()
            }
            Some(RecordChange::Remove) => BTreeSet::new(),
            None => before.clone(),
        };
        let metrics = self.ctx.metrics.external_ips();
        for family in [Family::V4, Family::V6] {
            let changed = before.symmetric_difference(&after).filter(|ip| Family::of(**ip) == family).count();
            if changed > 0 {
                metrics.addresses_changed(if family == Family::V4 { "IPv4" } else { "IPv6" }, changed);
            }
        }
        if list {
            self.published(Output::ExternalIps);
            info!(service = %self.subject.key, addresses = ?after, "external addresses written");
        } else {
            debug!(service = %self.subject.key, "record written");
        }
        self.subject.recorded = after;
        if restores {
            let now = Instant::now();
            let truce = self.motion(|motion| motion.restored(now)).flatten();
            if let Some(truce) = truce {
                let other = self.subject.other_writer.clone().unwrap_or_else(|| "somebody else".to_owned());
                self.trouble(Output::ExternalIps, TroubleKind::Contended, other, step, truce);
            }
        }
    }

    fn await_claim(&self, name: &str) {
        let before = self.subject.claims.iter().find(|(claim, _)| claim == name).map(|(_, revision)| revision.clone());
        let mut world = self.ctx.world();
        let Some(entry) = world.entry_mut(self.slot) else { return };
        let seen = entry.claims.iter().find(|claim| claim.name == name).map(|claim| claim.revision.clone());
        if seen == before {
            entry.motion.wait_for(Awaited::Claim(name.to_owned(), before), None, Instant::now());
        }
    }

    async fn end_claim(&self, name: &str, request: Request) -> Result<(), WriteError> {
        match self.send(Priority::Release, request).await {
            Ok(_) => self.await_claim(name),
            Err(WriteError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn tell(&self, note: &Note) {
        let mut world = self.ctx.world();
        let Some(entry) = world.entry_mut(self.slot) else { return };
        entry.motion.told.insert(note.reason, note.text.clone());
        let (key, uid) = (&self.subject.key, &self.subject.uid);
        self.ctx.notify_service(key, uid, note);
    }

    fn trouble(&self, output: Output, kind: TroubleKind, text: String, step: &Step, pause: Duration) {
        let trouble = Trouble { kind, text, step: step.clone(), until: Instant::now() + pause };
        self.motion(|motion| motion.troubles.insert(output, trouble));
    }

    /// Maps an error to the next look.
    fn after(&mut self, step: &Step, error: &WriteError) -> Next {
        if let Some(output) = output(step) {
            self.ctx.metrics.external_ips().wrote(output.as_str(), error.category());
            if let Some((kind, text)) = refused(error) {
                info!(service = %self.subject.key, %error, "output left alone");
                let soon =
                    error.lacks_rights().then(|| self.motion(|motion| motion.backoff.after(error.class(), rand::random())));
                self.trouble(output, kind, text, step, soon.flatten().flatten().unwrap_or(REFUSED));
                return Next::Again(super::PLACE);
            }
        }
        match error {
            WriteError::Fenced { .. } => return Next::After(super::PLACE, FENCED),
            WriteError::Withheld { .. } => return Next::Done,
            WriteError::Conflict { .. } => {
                debug!(service = %self.subject.key, %error, "planned again");
                // The version is old, and the next one is on its way to us.
                let mut world = self.ctx.world();
                if let Some(entry) = world.entry_mut(self.slot) {
                    let old = Awaited::Other(self.subject.revision.clone());
                    entry.motion.wait_for(old, entry.service.as_ref(), Instant::now());
                }
            }
            _ => warn!(service = %self.subject.key, %error, "write failed"),
        }
        self.ctx.metrics.error(error.category());
        let delay = self.motion(|motion| motion.backoff.after(error.class(), rand::random())).flatten();
        match delay.map(|delay| delay.max(error.retry_after().unwrap_or_default())) {
            Some(Duration::ZERO) => Next::Again(super::PLACE),
            Some(delay) => Next::After(super::PLACE, delay),
            None => Next::After(super::PLACE, REFUSED),
        }
    }
}

/// What a refusal says about an output, if it is one that only a person or another program can lift.
fn refused(error: &WriteError) -> Option<(TroubleKind, String)> {
    match error {
        WriteError::Refused { code: 403, message, .. } if !error.lacks_rights() => {
            Some((TroubleKind::DeniedByAdmission, message.clone()))
        }
        WriteError::Refused { message, .. } => Some((TroubleKind::WriteRejected, message.clone())),
        WriteError::Conflict { message, .. } if message.starts_with("Apply failed") => {
            let manager = message.split('"').nth(1).unwrap_or("another manager");
            Some((TroubleKind::OutputUnavailable, manager.to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
