//! Carries out the plan of one pool.

use std::time::{Duration, Instant};

use api::PoolKind;
use api::names::{IPAM_GROUP, LAST_ADDRESSES, PROTECT_POOL};
use api::v1alpha2::{PoolStatus, VERSION};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::observe::Facts;
use super::plan::{Plan, Step, ours, turns};
use crate::ipam::compact::Revision;
use crate::ipam::records::PoolId;
use crate::ipam::world::About;
use crate::ipam::{Ctx, pause};
use crate::kit::queue::{Next, Place};
use crate::kit::writes::{Part, Priority, Target, WriteError, apply_status, json_patch, merge_patch, without_finalizer};

/// All pools are alike.
const PLACE: Place = Place { lane: 0, rank: 0 };
/// A refused write is tried again after this time even if nothing changes.
const REFUSED: Duration = Duration::from_secs(300);
/// How the API server says that an installed definition is older than ours.
const UNDECLARED: &str = "field not declared in schema";

struct Drive<'a> {
    ctx: &'a Ctx,
    id: PoolId,
    facts: &'a Facts,
    resource: ApiResource,
}

/// Performs the steps of `plan`; a step that fails ends it, and its error says when to look again.
pub async fn drive(ctx: &Ctx, id: PoolId, facts: &Facts, plan: Plan) -> Next {
    let drive = Drive { ctx, id, facts, resource: resource(facts.kind) };
    let mut revision = facts.revision.clone();
    for step in plan.steps {
        match drive.step(step, &revision).await {
            Ok(Some(newer)) => revision = newer,
            Ok(None) => {}
            Err(error) => return drive.after(&error),
        }
    }
    if let Some(pool) = ctx.world().pool_mut(id) {
        pool.backoff = crate::kit::writes::Backoff::default();
    }
    plan.recheck.map_or(Next::Done, |delay| Next::After(PLACE, delay))
}

fn resource(kind: PoolKind) -> ApiResource {
    ApiResource {
        group: IPAM_GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{IPAM_GROUP}/{VERSION}"),
        kind: kind.kind().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

impl Drive<'_> {
    /// Performs one step; answers the pool's new version, if it wrote one.
    async fn step(&self, step: Step, revision: &Revision) -> Result<Option<Revision>, WriteError> {
        match step {
            Step::Protect(finalizers) => {
                let patch = json!({"metadata": {"resourceVersion": revision.to_string(), "finalizers": finalizers}});
                match self.merge(Part::Main, Priority::Repair, &patch, revision).await {
                    // Our webhook holds an invalid spec against the patch; the status says so, and the next spec is another chance.
                    Err(error @ WriteError::Refused { .. }) if self.facts.invalid.is_some() => {
                        debug!(pool = self.facts.name, %error, "finalizer not added");
                        Ok(None)
                    }
                    other => other.map(Some),
                }
            }
            Step::Unprotect(finalizers) => self.unprotect(&finalizers, revision).await,
            Step::Remember(text) => {
                let annotations = json!({LAST_ADDRESSES: text});
                let patch = json!({"metadata": {"resourceVersion": revision.to_string(), "annotations": annotations}});
                self.merge(Part::Main, Priority::Release, &patch, revision).await.map(Some)
            }
            Step::Show(status) => self.show(&status, revision).await.map(Some),
            Step::Event(reason, note) => {
                self.ctx.notify(&self.ctx.world(), &About::Pool(self.id), reason, note);
                Ok(None)
            }
        }
    }

    async fn show(&self, status: &PoolStatus, revision: &Revision) -> Result<Revision, WriteError> {
        if !turns(&self.facts.status, status) {
            tokio::time::sleep(pause(&self.ctx.pool_writes)).await;
        }
        if !self.ctx.old_definitions.contains(self.facts.kind) {
            let object = json!({
                "apiVersion": self.resource.api_version,
                "kind": self.resource.kind,
                "metadata": {"name": self.facts.name, "namespace": self.facts.namespace},
                "status": ours(status),
            });
            let request = apply_status(&self.resource, self.facts.namespace.as_deref(), &self.facts.name, &object)?;
            let target = self.target("patch", Part::Status);
            match self.ctx.writer.send(Priority::PoolStatus, target, request, || true).await {
                Err(error) if error.to_string().contains(UNDECLARED) => {
                    warn!(kind = self.resource.kind, "the installed definition lacks fields of ours; they are left out");
                    self.ctx.old_definitions.insert(self.facts.kind);
                }
                other => return other.map(|answer| self.wrote(&answer, revision, true)),
            }
        }
        let patch = json!({"status": status});
        self.merge(Part::Status, Priority::PoolStatus, &patch, revision).await
    }

    async fn unprotect(&self, finalizers: &[String], before: &Revision) -> Result<Option<Revision>, WriteError> {
        let Some(change) = without_finalizer(&self.facts.uid.to_string(), finalizers, PROTECT_POOL) else { return Ok(None) };
        let request = json_patch(&self.resource, self.facts.namespace.as_deref(), &self.facts.name, Part::Main, change)?;
        match self.ctx.writer.send(Priority::Release, self.target("patch", Part::Main), request, || true).await {
            Ok(answer) => {
                info!(pool = self.facts.name, "pool released");
                Ok(Some(self.wrote(&answer, before, false)))
            }
            Err(WriteError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn merge(&self, part: Part, priority: Priority, patch: &Value, before: &Revision) -> Result<Revision, WriteError> {
        let request = merge_patch(&self.resource, self.facts.namespace.as_deref(), &self.facts.name, part, patch)?;
        let answer = self.ctx.writer.send(priority, self.target("patch", part), request, || true).await?;
        Ok(self.wrote(&answer, before, part == Part::Status))
    }

    fn target(&self, verb: &'static str, part: Part) -> Target {
        let resource = match (self.facts.kind, part) {
            (kind, Part::Main) => kind.plural(),
            (PoolKind::InClusterIPPool, Part::Status) => "inclusterippools/status",
            (PoolKind::GlobalInClusterIPPool, Part::Status) => "globalinclusterippools/status",
            (PoolKind::InClusterPrefixPool, Part::Status) => "inclusterprefixpools/status",
            (PoolKind::GlobalInClusterPrefixPool, Part::Status) => "globalinclusterprefixpools/status",
        };
        Target { verb, resource }
    }

    /// Notes that the view is behind as long as it shows `before`, or what this plan was made for.
    fn wrote(&self, answer: &Value, before: &Revision, shown: bool) -> Revision {
        let newer = Revision::new(answer["metadata"]["resourceVersion"].as_str().unwrap_or_default());
        if let Some(pool) = self.ctx.world().pool_mut(self.id) {
            if newer != *before && pool.record.as_ref().is_some_and(|record| record.revision != newer) {
                pool.stale.push((before.clone(), Instant::now()));
            }
            if shown {
                pool.written = Some(Instant::now());
            }
        }
        newer
    }

    fn after(&self, error: &WriteError) -> Next {
        match error {
            WriteError::Withheld { .. } | WriteError::NotFound { .. } => return Next::Done,
            WriteError::Fenced { .. } => return Next::After(PLACE, Duration::from_secs(1)),
            WriteError::Conflict { .. } => debug!(pool = self.facts.name, %error, "planned again"),
            _ => warn!(pool = self.facts.name, %error, "write failed"),
        }
        self.ctx.metrics.error(error.category());
        let mut world = self.ctx.world();
        let delay = world.pool_mut(self.id).and_then(|pool| pool.backoff.after(error.class(), rand::random()));
        match delay.map(|delay| delay.max(error.retry_after().unwrap_or_default())) {
            Some(Duration::ZERO) => Next::Again(PLACE),
            Some(delay) => Next::After(PLACE, delay),
            None => Next::After(PLACE, REFUSED),
        }
    }
}
