//! The decision: what to do about one claim, given the facts. The driver carries it out, step by step.
//!
//! [`plan`] is a total function over [`Facts`]; its arms stand in the order of the table below, and the first that matches wins.
//!
//! | Row | Facts | Plan |
//! |---|---|---|
//! | `Moving` | the claim leaves with a `clusterctl move` | nothing |
//! | `ClaimPaused`, `ClusterPaused` | claim or cluster is paused | write nothing |
//! | `ClusterMissing` | a live claim names a cluster that does not exist | wait for it |
//! | `PoolPaused` | the pool is paused | nothing but our finalizer |
//! | `ReleasePublished` | the claim is deleting, and held for external IP sources, which do not run | take that finalizer off |
//! | `Release…` | the claim is deleting | let go of address, then claim, when nobody uses it any more |
//! | `NameTaken` | an address of that name is somebody else's | tell |
//! | `EarlierAddress` | an address of an earlier claim of that name still goes | wait until it is gone |
//! | `Repair` | our address is incomplete | complete it with one patch |
//! | `Publish`, `Lost`, `Contested`, `Settled` | our address is complete | publish it, if it provably came first |
//! | `PoolNotReady` | the pool is absent, deleting, invalid or empty | wait |
//! | `Allocate`, `Bind`, `AwaitDelivery`, `NoRoom`, `Denied` | no address | reserve, create, or wait |

mod release;
mod serve;
#[cfg(test)]
mod tests;

use std::time::Duration;

use api::externalip::names::PUBLISHED;
use api::names::RELEASE_ADDRESS;
use api::reasons::EventReason;
use k8s_openapi::jiff::Timestamp;
use poolutil::{ReservationState, Span};

use self::release::{release, without_claim};
use self::serve::serve;
use super::compact::{Revision, Uid};
use super::facts::{ClaimFacts, ClusterFacts, Facts, PoolFacts, PoolView, Repair, Waiting, Wish};

/// An object of ours that our watch does not deliver within this time makes the watch start over.
const DELIVERY: Duration = Duration::from_secs(10);
/// Finalizers that Kubernetes sets itself; they name no user of the address.
const PROPAGATION: [&str; 2] = ["foregroundDeletion", "orphan"];

/// What to do about a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Which rule decided.
    pub row: Row,
    /// What becomes of the claim's place in the ledger, before any step.
    pub place: Place,
    /// What to write, in this order; a step that fails ends the plan.
    pub steps: Vec<Step>,
    /// What the claim waits for, if it needs somebody else.
    pub waiting: Option<Waiting>,
    /// When to look again even if nothing happens.
    pub recheck: Option<Duration>,
}

/// The rule that decided, for logs and tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table of the module says what each of them is")]
pub enum Row {
    Nothing,
    OwnWrite,
    Moving,
    ClaimPaused,
    ClusterPaused,
    ClusterMissing,
    PoolPaused,
    ReleasePublished,
    ReleaseAwaitsConsumer,
    ReleaseAwaitsGrace,
    ReleaseAwaitsMemory,
    ReleaseAwaitsAnswer,
    ReleaseAddress,
    ReleaseAwaitsThirdParty,
    ReleaseClaim,
    NameTaken,
    EarlierAddress,
    Repair,
    Protect,
    Publish,
    Lost,
    Contested,
    Settled,
    PoolNotReady,
    Allocate,
    Bind,
    AwaitDelivery,
    NoRoom,
    Denied,
    Orphan,
    OrphanKept,
}

/// What becomes of the claim's place in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It stays as it is.
    Keep,
    /// An unsent reservation is given back and the queue left.
    Leave,
    /// The same, whatever was sent: the address of this name exists, so every POST of ours is decided.
    Drop,
    /// It stands in line for any value.
    Queue,
    /// It stands in line for this value.
    QueueFor(Span),
    /// A reservation is tried; the answer makes a new plan.
    Allocate(Wish),
}

/// One write, with everything it needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Add our finalizer to the claim.
    ProtectClaim(ClaimWrite),
    /// Create the address and, at the same time, add our finalizer to the claim if it lacks it.
    Bind {
        /// The reserved value.
        span: Span,
        /// The claim's UID.
        claim_uid: Uid,
        /// The label it shall carry.
        cluster_label: Option<String>,
        /// The pool it is from.
        pool: Box<PoolView>,
        /// The finalizer, if it is missing.
        finalizer: Option<ClaimWrite>,
    },
    /// Write on the claim that an address is lost, so that no manager, however late its view, publishes it any more.
    GiveUp {
        /// The claim's version last seen: in another one it may have been published.
        revision: Revision,
        /// The address.
        uid: Uid,
    },
    /// Complete the address.
    Repair {
        /// The version last seen.
        revision: Revision,
        /// What is missing.
        repair: Repair,
    },
    /// Write the claim's status: bound.
    Publish {
        /// The merge patch.
        patch: serde_json::Value,
        /// The version it was made for.
        revision: Revision,
        /// Whether the claim was unbound before, so that this is news.
        bound: bool,
        /// For the event.
        text: String,
        /// Whether we made the address, rather than found it.
        made: bool,
    },
    /// Write the claim's status: not ready, with the reason.
    Tell {
        /// The merge patch.
        patch: serde_json::Value,
        /// The version it was made for.
        revision: Revision,
    },
    /// Delete the address and take our finalizer from it.
    DeleteAddress {
        /// The only object that may be deleted.
        uid: Uid,
        /// The version last seen: in another one it may have become another claim's.
        revision: Revision,
        /// Why.
        why: Deletion,
        /// For the event.
        text: String,
    },
    /// Take our finalizer from an address that is deleting already.
    UnprotectAddress {
        /// The only object that may be changed.
        uid: Uid,
        /// Its finalizers as last seen.
        finalizers: Vec<String>,
    },
    /// Take our finalizer from the claim.
    ReleaseClaim {
        /// The only object that may be changed.
        uid: Uid,
        /// Its finalizers as last seen.
        finalizers: Vec<String>,
    },
    /// Take the finalizer of external IP sources from the claim.
    Unpublish {
        /// The only object that may be changed.
        uid: Uid,
        /// Its finalizers as last seen.
        finalizers: Vec<String>,
    },
    /// Ask the API server whether the claim with this UID exists, and if not, take our finalizer from its deleting address.
    ReleaseOrphan {
        /// The only object that may be changed.
        uid: Uid,
        /// Its finalizers as last seen.
        finalizers: Vec<String>,
        /// The claim that owned it.
        claim_uid: Option<Uid>,
    },
    /// Ask the API server whether a POST without an answer made the address after all; if not, give the value back.
    ConfirmAbsent,
    /// Ask the API server whether the claim's address is gone, or only late in our view.
    ConfirmBereft {
        /// The claim.
        uid: Uid,
        /// The version of the address that is in view, which is not the claim's.
        shown: Option<Revision>,
    },
    /// Have the watch of addresses start over: it did not deliver an object of ours. If that is gone already, give its value back.
    RestartWatch,
    /// Have the pool write down which value the claim held.
    Remember(Span),
    /// Tell the user.
    Event(EventReason, String),
}

/// A change of the claim's finalizers.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimWrite {
    /// The version last seen.
    pub revision: Revision,
    /// The whole list as it shall be.
    pub finalizers: Vec<String>,
}

/// Why an address is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Its claim goes.
    Released,
    /// Another object with its value came first, or may have.
    Lost,
    /// Its claim went before it was published.
    Abandoned,
}

impl Plan {
    fn new(row: Row, place: Place, steps: Vec<Step>) -> Self {
        Self { row, place, steps, waiting: None, recheck: None }
    }

    /// Whether it only writes conditions that a claim lacks which another provider bound.
    pub fn is_backfill(&self) -> bool {
        matches!(self.steps[..], [Step::Publish { bound: false, .. }])
    }

    fn rest(row: Row) -> Self {
        Self::new(row, Place::Keep, Vec::new())
    }

    fn leave(row: Row) -> Self {
        Self::new(row, Place::Leave, Vec::new())
    }

    fn within(mut self, recheck: Duration) -> Self {
        self.recheck = Some(recheck);
        self
    }
}

/// What to do about a claim, by the table above.
pub fn plan(facts: &Facts, now: Timestamp) -> Plan {
    if facts.motion.own_write_unseen {
        return Plan::rest(Row::OwnWrite).within(DELIVERY);
    }
    let Some(claim) = &facts.claim else {
        return without_claim(facts, now);
    };
    if claim.moving {
        return Plan::leave(Row::Moving);
    }
    if claim.paused {
        return hold(facts, claim, Row::ClaimPaused);
    }
    match &facts.cluster {
        ClusterFacts::Paused => return hold(facts, claim, Row::ClusterPaused),
        ClusterFacts::Missing(cluster) if claim.deleting.is_none() => return await_cluster(facts, cluster),
        ClusterFacts::Missing(_) | ClusterFacts::Running | ClusterFacts::Unnamed => {}
    }
    if let PoolFacts::Known(pool) = &facts.pool
        && pool.paused
    {
        return Plan::new(Row::PoolPaused, Place::Leave, protect_claim(claim).into_iter().collect());
    }
    match claim.deleting {
        Some(since) => release(facts, claim, since, now),
        None => serve(facts, claim, now),
    }
}

/// Rows 3 and 4. A deleting claim that never got anything may go: its finalizer came with its creation.
fn hold(facts: &Facts, claim: &ClaimFacts, row: Row) -> Plan {
    let mut plan = Plan::leave(row);
    let untouched =
        !claim.bound && facts.address.is_none() && facts.reservation.is_none_or(|held| held.state == ReservationState::Unsent);
    if claim.deleting.is_some() && untouched {
        plan.steps.extend(release_claim(claim));
    }
    plan
}

fn await_cluster(facts: &Facts, cluster: &str) -> Plan {
    let mut plan = Plan::leave(Row::ClusterMissing);
    plan.waiting = Some(Waiting::Cluster);
    if !waits(facts, Waiting::Cluster) {
        plan.steps.push(Step::Event(EventReason::WaitingForCluster, format!("cluster {cluster} does not exist yet")));
    }
    plan
}

fn waits(facts: &Facts, waiting: Waiting) -> bool {
    facts.motion.waiting.is_some_and(|(known, _)| known == waiting)
}

fn protect_write(claim: &ClaimFacts) -> Option<ClaimWrite> {
    let needed = claim.deleting.is_none() && !claim.has_our_finalizer();
    needed.then(|| ClaimWrite {
        revision: claim.revision.clone(),
        finalizers: claim.finalizers.iter().cloned().chain([RELEASE_ADDRESS.to_owned()]).collect(),
    })
}

fn protect_claim(claim: &ClaimFacts) -> Option<Step> {
    protect_write(claim).map(Step::ProtectClaim)
}

fn release_claim(claim: &ClaimFacts) -> Option<Step> {
    claim.has_our_finalizer().then(|| Step::ReleaseClaim { uid: claim.uid.clone(), finalizers: claim.finalizers.clone() })
}

impl ClaimFacts {
    fn has_our_finalizer(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == RELEASE_ADDRESS)
    }

    /// Finalizers of those who may still use the address.
    fn consumers(&self) -> impl Iterator<Item = &str> {
        self.finalizers.iter().map(String::as_str).filter(|name| *name != RELEASE_ADDRESS && !PROPAGATION.contains(name))
    }

    fn has_consumer(&self) -> bool {
        self.consumers().next().is_some()
    }

    /// A Service of ours may still carry its address.
    fn is_published(&self) -> bool {
        self.finalizers.iter().any(|name| name == PUBLISHED)
    }
}
