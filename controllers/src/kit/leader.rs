//! Leadership as a claim with an expiry: the campaign keeps it alive, each write asks it first.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{lease::Lock, metrics::Metrics, shutdown::Shutdown};

/// A write begun this short before the expiry might still be on its way after it.
const MARGIN: Duration = Duration::from_secs(2);

/// Whether this process may write. Cheap to clone; all clones say the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    claim: Arc<watch::Sender<Claim>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    /// There is no election.
    Always,
    /// Not won yet.
    NotYet,
    /// Won, and good until then on the monotonic clock.
    Until(Instant),
    /// Won once, and no more. Final.
    Lost,
}

impl Leadership {
    /// Without an election: this process always leads.
    pub fn always() -> Self {
        Self::with(Claim::Always)
    }

    /// With an election that [`campaign`] has yet to win.
    pub fn elected() -> Self {
        Self::with(Claim::NotYet)
    }

    fn with(claim: Claim) -> Self {
        Self { claim: Arc::new(watch::Sender::new(claim)) }
    }

    /// Whether there is an election at all, and so perhaps a former leader.
    pub fn is_elected(&self) -> bool {
        !matches!(*self.claim.borrow(), Claim::Always)
    }

    /// Whether a write that starts now ends before anybody else can lead.
    pub fn may_write(&self) -> bool {
        match *self.claim.borrow() {
            Claim::Always => true,
            Claim::Until(expiry) => Instant::now() + MARGIN < expiry,
            Claim::NotYet | Claim::Lost => false,
        }
    }

    /// Whether this process leads.
    pub fn is_leader(&self) -> bool {
        match *self.claim.borrow() {
            Claim::Always => true,
            Claim::Until(expiry) => Instant::now() < expiry,
            Claim::NotYet | Claim::Lost => false,
        }
    }

    /// Returns when this process leads; never if it led before and lost.
    pub async fn acquired(&self) {
        let leads = |claim: &Claim| matches!(claim, Claim::Always | Claim::Until(_));
        // The sender lives in `self`, so the channel cannot be closed while we wait.
        let _ = self.claim.subscribe().wait_for(leads).await;
    }

    /// Returns when this process led and does so no more, be it given up, taken or run out.
    pub async fn lost(&self) {
        let mut seen = self.claim.subscribe();
        loop {
            let claim = *seen.borrow_and_update();
            let changed = match claim {
                Claim::Lost => return,
                Claim::Always | Claim::NotYet => seen.changed().await,
                Claim::Until(expiry) => {
                    if let Ok(changed) = tokio::time::timeout_at(expiry, seen.changed()).await {
                        changed
                    } else {
                        return;
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn hold_until(&self, expiry: Instant) {
        self.claim.send_replace(Claim::Until(expiry));
    }

    fn lose(&self) {
        self.claim.send_replace(Claim::Lost);
    }
}

/// The lease to campaign for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidacy {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who we are: `<hostname>_<uuid>`.
    pub identity: String,
    /// How long the lease holds after each renewal.
    pub lease_duration: Duration,
    /// How long to go on trying to renew.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry_period: Duration,
}

/// A name for this process that no other has: `<hostname>_<uuid>`.
pub fn identity() -> String {
    format!("{}_{}", hostname(), uuid::Uuid::new_v4())
}

/// The host's name, in a pod the pod's.
pub(crate) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// How a campaign ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CampaignEnd {
    /// The process is stopping; the lease, if held, was given up.
    GivenUp,
    /// The lease was held and is lost. Nothing may be written any more.
    Lost,
}

/// Takes the lease when it is free and renews it until it is lost or `stop` is requested: that is
/// when the last write was answered, later than the request to stop working.
///
/// 1. Try to take or renew, for at most the rest of the renew deadline.
/// 2. The claim is good for the lease duration, counted from *before* the request.
/// 3. Somebody else holds what we held, or no renewal within the deadline: lost, for good.
pub async fn campaign(
    client: Client,
    candidacy: Candidacy,
    leadership: Leadership,
    metrics: Metrics,
    stop: Shutdown,
) -> CampaignEnd {
    let end = hold_and_renew(client, candidacy, &leadership, &metrics, &stop).await;
    metrics.leader(false);
    end
}

async fn hold_and_renew(
    client: Client,
    candidacy: Candidacy,
    leadership: &Leadership,
    metrics: &Metrics,
    stop: &Shutdown,
) -> CampaignEnd {
    // What the lease says: it counts in whole seconds.
    let lease_ttl = Duration::from_secs(candidacy.lease_duration.as_secs());
    let mut lock = Lock::new(client, candidacy.clone());
    let mut renewed: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let deadline = renewed.unwrap_or(started) + candidacy.renew_deadline;
        // Half of the deadline, so that one lost answer leaves room for another try.
        let patience = deadline.min(started + candidacy.renew_deadline / 2);
        let is_ours = tokio::select! {
            is_ours = lock.take_or_renew() => is_ours.map_err(|error| error.to_string()),
            () = sleep_until(patience) => Err("no answer in time".to_owned()),
            () = stop.requested() => return give_up(lock, &candidacy, leadership, renewed).await,
        };
        match is_ours {
            Ok(true) => {
                if renewed.replace(started).is_none() {
                    tracing::info!(lease = %candidacy.name, namespace = %candidacy.namespace, identity = %candidacy.identity, "leading");
                    metrics.leader(true);
                }
                leadership.hold_until(started + lease_ttl);
            }
            Ok(false) if renewed.is_some() => {
                leadership.lose();
                tracing::error!(lease = %candidacy.name, "the lease was taken by another manager");
                return CampaignEnd::Lost;
            }
            Ok(false) => tracing::debug!(lease = %candidacy.name, "another manager leads"),
            Err(error) => {
                tracing::warn!(lease = %candidacy.name, namespace = %candidacy.namespace, %error, "cannot take or renew the lease");
                if renewed.is_some() && Instant::now() + candidacy.retry_period >= deadline {
                    leadership.lose();
                    tracing::error!(lease = %candidacy.name, "the lease was not renewed in time");
                    return CampaignEnd::Lost;
                }
            }
        }
        tokio::select! {
            () = sleep(candidacy.retry_period) => {}
            () = stop.requested() => return give_up(lock, &candidacy, leadership, renewed).await,
        }
    }
}

/// Stops writing, then lets the next manager in at once instead of after the lease duration.
async fn give_up(mut lock: Lock, candidacy: &Candidacy, leadership: &Leadership, renewed: Option<Instant>) -> CampaignEnd {
    if renewed.is_some() {
        leadership.lose();
        match timeout(MARGIN, lock.give_up()).await {
            Ok(Ok(())) => tracing::info!(lease = %candidacy.name, "gave the lease up"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %candidacy.name, %error, "cannot give the lease up");
            }
            Err(_) => tracing::warn!(lease = %candidacy.name, "no answer to giving the lease up"),
        }
    }
    CampaignEnd::GivenUp
}

#[cfg(test)]
mod tests;
