//! The lease that candidates for leadership take turns in.
//!
//! The times in it are for people. Another candidate may run on a clock that is wrong, or jumps, so what counts is how long the lease
//! has stayed as it is before our own eyes. Every write names the version it replaces: of two candidates that take an ended lease only
//! one succeeds.

use std::time::Duration;

use api::names::FIELD_MANAGER;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::leader::Candidacy;

/// A holder that shows no sign of life for so many of its tries to renew, and whose lease has ended by the wall clock, is gone. A manager
/// that starts long after the last one died need not wait for a whole lease.
const MISSED: u32 = 2;

/// The lease as one candidate sees it.
pub(super) struct Lock {
    api: Api<Lease>,
    candidacy: Candidacy,
    seen: Option<Seen>,
}

struct Seen {
    lease: Lease,
    /// Since when it has been as it is.
    since: Instant,
    /// When it was last asked for.
    until: Instant,
}

/// Who is to hold it next.
#[derive(Clone, Copy)]
enum Holder {
    Us,
    Nobody,
}

impl Lock {
    pub(super) fn new(client: Client, candidacy: Candidacy) -> Self {
        Self { api: Api::namespaced(client, &candidacy.namespace), candidacy, seen: None }
    }

    /// Takes the lease if it is free, or renews it; says whether it is ours now.
    pub(super) async fn take_or_renew(&mut self) -> Result<bool, kube::Error> {
        if self.is_ours() {
            match self.write(Holder::Us).await {
                Err(error) if is_outdated(&error) => {}
                answer => return answer.map(|()| true),
            }
        }
        // Also after a renewal whose answer was lost: then it is ours in another version.
        self.look().await?;
        if !self.is_ours() && !self.is_free() {
            return Ok(false);
        }
        match self.write(Holder::Us).await {
            Err(error) if is_outdated(&error) && !self.is_ours() => Ok(false),
            answer => answer.map(|()| true),
        }
    }

    /// Lets the next candidate in at once.
    pub(super) async fn give_up(&mut self) -> Result<(), kube::Error> {
        match self.write(Holder::Nobody).await {
            Err(error) if is_outdated(&error) => {
                self.look().await?;
                if self.is_ours() { self.write(Holder::Nobody).await } else { Ok(()) }
            }
            answer => answer,
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let asked = Instant::now();
        let found = self.api.get_opt(&self.candidacy.name).await?;
        self.seen = found.map(|lease| {
            let known = self.seen.as_ref().filter(|seen| seen.lease.metadata.resource_version == lease.metadata.resource_version);
            let since = known.map_or_else(Instant::now, |seen| seen.since);
            Seen { lease, since, until: asked }
        });
        Ok(())
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.seen.as_ref()?.lease.spec.as_ref()
    }

    fn is_ours(&self) -> bool {
        self.spec().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.candidacy.identity)
    }

    /// How long a lease of ours lasts, in seconds.
    fn lasts(&self) -> i32 {
        i32::try_from(self.candidacy.lease_duration.as_secs()).unwrap_or(i32::MAX)
    }

    /// Whether nobody holds it any more.
    fn is_free(&self) -> bool {
        let Some(seen) = &self.seen else { return true };
        let Some(spec) = &seen.lease.spec else { return true };
        if spec.holder_identity.as_deref().is_none_or(str::is_empty) {
            return true;
        }
        let lasts = u64::try_from(spec.lease_duration_seconds.unwrap_or_else(|| self.lasts())).unwrap_or_default();
        let lasts = Duration::from_secs(lasts);
        let ends = spec.renew_time.as_ref().and_then(|renewed| renewed.0.checked_add(lasts).ok());
        let silent = seen.until.saturating_duration_since(seen.since);
        silent >= lasts || (ends.is_none_or(|end| end < Timestamp::now()) && silent >= self.candidacy.retry_period * MISSED)
    }

    /// Replaces the version that was seen, or creates the lease.
    async fn write(&mut self, holder: Holder) -> Result<(), kube::Error> {
        let (holder, lasts) = match holder {
            Holder::Us => (self.candidacy.identity.clone(), self.lasts()),
            Holder::Nobody => (String::new(), 1),
        };
        let now = Some(MicroTime(Timestamp::now()));
        let changes = !self.is_ours();
        let known = self.seen.as_ref().map(|seen| seen.lease.clone());
        let exists = known.is_some();
        let mut lease = known.unwrap_or_default();
        lease.metadata.name = Some(self.candidacy.name.clone());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(holder);
        spec.lease_duration_seconds = Some(lasts);
        spec.renew_time.clone_from(&now);
        if changes {
            spec.acquire_time = now;
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |before| before.saturating_add(1)));
        }
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let lease = if exists {
            self.api.replace(&self.candidacy.name, &params, &lease).await?
        } else {
            self.api.create(&params, &lease).await?
        };
        let seen = Instant::now();
        self.seen = Some(Seen { lease, since: seen, until: seen });
        Ok(())
    }
}

/// Somebody else has written, created or deleted the lease since it was seen.
fn is_outdated(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
