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
//! | `Release…` | the claim is deleting | let go of address, then claim, when nobody uses it any more |
//! | `NameTaken` | an address of that name is somebody else's | tell |
//! | `EarlierAddress` | an address of an earlier claim of that name still goes | wait until it is gone |
//! | `Repair` | our address is incomplete | complete it with one patch |
//! | `Publish`, `Lost`, `Contested`, `Settled` | our address is complete | publish it, if it provably came first |
//! | `PoolNotReady` | the pool is absent, deleting, invalid or empty | wait |
//! | `Allocate`, `Bind`, `AwaitDelivery`, `NoRoom`, `Denied` | no address | reserve, create, or wait |

use std::time::Duration;

use api::capi::{ClaimReady, status_patch};
use api::names::{PROTECT_ADDRESS, RELEASE_ADDRESS};
use api::reasons::{ClaimReason, EventReason};
use k8s_openapi::jiff::Timestamp;
use poolutil::{ReservationState, Span};

use super::compact::{Revision, Uid};
use super::facts::{AddressFacts, ClaimFacts, ClusterFacts, Denial, Facts, Memory, PoolFacts, PoolView, Relation, Repair, Waiting, Wish};

/// A state that needs somebody else to change it is told only after it has lasted this long.
const SILENCE: Duration = Duration::from_secs(1);
/// A deleting claim that others still hold gets an event after this time.
const CONSUMER_PATIENCE: Duration = Duration::from_secs(60);
/// An object of ours that our watch does not deliver within this time makes the watch start over.
const DELIVERY: Duration = Duration::from_secs(10);
/// How long a POST may still take effect after it was sent: the longest a request can live on the way and in the server.
const POST_LIFE: Duration = Duration::from_secs(75);
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
    /// Have the watch of addresses start over: it did not deliver an object of ours.
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
    let untouched = !claim.bound && facts.address.is_none() && facts.reservation.is_none_or(|held| held.state == ReservationState::Unsent);
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

/// Rows 8 to 13: a live claim that nothing holds up.
fn serve(facts: &Facts, claim: &ClaimFacts, now: Timestamp) -> Plan {
    match &facts.address {
        Some(address) if address.moving => Plan::leave(Row::Moving),
        Some(address) => {
            let mut plan = with_relation(facts, claim, address, now);
            plan.place = Place::Drop;
            plan
        }
        None => without_address(facts, claim, now),
    }
}

/// Rows 8 to 11, by whose address it is.
fn with_relation(facts: &Facts, claim: &ClaimFacts, address: &AddressFacts, now: Timestamp) -> Plan {
    match &address.relation {
            Relation::Other(what) => {
                let message = format!("the name is taken: IPAddress {}/{} {what}", facts.namespace, facts.name);
                refuse(facts, claim, now, Row::NameTaken, Some(EventReason::AddressNameTaken), message)
            }
            Relation::Earlier => {
                let message = format!("the address {} of an earlier claim of this name is still being deleted", address.text);
                let mut plan = refuse(facts, claim, now, Row::EarlierAddress, None, message);
                if facts.policy.release_orphans(&facts.pool) {
                    plan.steps.extend(release_orphan(address));
                }
                plan
            }
            Relation::Ours => with_address(facts, claim, address, now),
    }
}

/// Rows 10 and 11.
fn with_address(facts: &Facts, claim: &ClaimFacts, address: &AddressFacts, now: Timestamp) -> Plan {
    let protect = protect_claim(claim);
    if let Some(repair) = &address.repair {
        let repair = Step::Repair { revision: address.revision.clone(), repair: repair.clone() };
        return Plan::new(Row::Repair, Place::Leave, protect.into_iter().chain([repair]).collect());
    }
    if let Some(protect) = protect {
        return Plan::new(Row::Protect, Place::Leave, vec![protect]);
    }
    if let Some(contest) = address.contest.as_ref().filter(|_| !claim.bound) {
        let message = format!("{} is already held by {}", address.text, contest.holder);
        if address.fresh {
            let steps = vec![Step::Event(EventReason::AddressConflict, message), delete(address, Deletion::Lost)];
            return Plan::new(Row::Lost, Place::Leave, steps);
        }
        if contest.published || contest.fresh || contest.elder {
            return refuse(facts, claim, now, Row::Contested, Some(EventReason::AddressConflict), message);
        }
    }
    let ready = ClaimReady {
        reason: ClaimReason::AddressAllocated,
        message: format!("allocated {}", address.text),
        observed_generation: Some(claim.generation),
    };
    if claim.bound && claim.conditions.show(&ready, facts.capi) {
        return Plan::leave(Row::Settled);
    }
    let patch = status_patch(&claim.conditions, &ready, Some(&facts.name), facts.capi, &claim.revision.to_string(), now);
    let mut steps = Vec::new();
    let before = claim.conditions.new_ready.as_ref().filter(|before| claim.bound && before.status == "True");
    if let Some(before) = before.filter(|before| before.message != ready.message) {
        steps.push(Step::Event(EventReason::AddressChanged, format!("{}; before: {}", ready.message, before.message)));
    }
    let publish =
        Step::Publish { patch, revision: claim.revision.clone(), bound: !claim.bound, text: address.text.clone(), made: address.made_here };
    steps.push(publish);
    Plan::new(Row::Publish, Place::Leave, steps)
}

/// Rows 12 and 13.
fn without_address(facts: &Facts, claim: &ClaimFacts, now: Timestamp) -> Plan {
    if facts.motion.moved {
        return Plan::leave(Row::Moving);
    }
    if let Some(held) = facts.reservation.filter(|held| held.state != ReservationState::Unsent) {
        return in_flight(facts, claim, held.state, held.age, held.span);
    }
    let pool = match &facts.pool {
        PoolFacts::Absent(kind, name) => return pool_not_ready(facts, claim, now, format!("{kind} {name} does not exist")),
        PoolFacts::Known(pool) => pool,
    };
    if pool.deleting {
        return pool_not_ready(facts, claim, now, format!("{} {} is being deleted", pool.kind, pool.name));
    }
    if let Some(trouble) = &pool.trouble {
        return pool_not_ready(facts, claim, now, format!("{} {}: {trouble}", pool.kind, pool.name));
    }
    if let Some(refusal) = &facts.motion.refusal {
        return refuse(facts, claim, now, Row::Denied, None, refusal.clone());
    }
    if let Some(held) = facts.reservation {
        return bind(claim, pool, held.span);
    }
    match &facts.refused {
        Some((Wish::Named(span), denial)) => denied(facts, claim, now, *span, denial),
        Some((Wish::Former(_) | Wish::Remembered(_), _)) => Plan::new(Row::Allocate, Place::Allocate(any(facts)), Vec::new()),
        Some((Wish::Lowest | Wish::Scattered, _)) => no_room(facts, claim, now, pool),
        None => match wish(facts) {
            Ok(wish) => Plan::new(Row::Allocate, Place::Allocate(wish), Vec::new()),
            Err(problem) => refuse(facts, claim, now, Row::Denied, None, problem),
        },
    }
}

/// The strongest wish: named, former, remembered, any.
fn wish(facts: &Facts) -> Result<Wish, String> {
    match &facts.wishes.named {
        Some(Ok(span)) => return Ok(Wish::Named(*span)),
        Some(Err(problem)) => return Err(problem.clone()),
        None => {}
    }
    let special = facts.wishes.former.map(Wish::Former).or(facts.wishes.remembered.map(Wish::Remembered));
    Ok(special.filter(|_| !facts.wishes.collided).unwrap_or_else(|| any(facts)))
}

fn any(facts: &Facts) -> Wish {
    if facts.wishes.collided { Wish::Scattered } else { Wish::Lowest }
}

fn bind(claim: &ClaimFacts, pool: &PoolView, span: Span) -> Plan {
    let step = Step::Bind {
        span,
        claim_uid: claim.uid.clone(),
        cluster_label: claim.cluster_label.clone(),
        pool: Box::new(pool.clone()),
        finalizer: protect_write(claim),
    };
    Plan::new(Row::Bind, Place::Keep, vec![step])
}

/// The address was sent and our watch does not show it yet: send it again until there is an answer, then wait for the watch.
fn in_flight(facts: &Facts, claim: &ClaimFacts, state: ReservationState, age: Duration, span: Span) -> Plan {
    match (state, &facts.pool) {
        (ReservationState::Answered, _) if age >= DELIVERY => {
            Plan::new(Row::AwaitDelivery, Place::Keep, vec![Step::RestartWatch]).within(DELIVERY)
        }
        (ReservationState::Answered, _) => {
            Plan::new(Row::AwaitDelivery, Place::Keep, protect_claim(claim).into_iter().collect()).within(DELIVERY.saturating_sub(age))
        }
        (_, PoolFacts::Known(pool)) => bind(claim, pool, span),
        (_, PoolFacts::Absent(..)) => confirm_absent(age),
    }
}

fn confirm_absent(age: Duration) -> Plan {
    match POST_LIFE.checked_sub(age) {
        Some(rest) if !rest.is_zero() => Plan::rest(Row::ReleaseAwaitsAnswer).within(rest),
        _ => Plan::new(Row::ReleaseAwaitsAnswer, Place::Keep, vec![Step::ConfirmAbsent]),
    }
}

fn pool_not_ready(facts: &Facts, claim: &ClaimFacts, now: Timestamp, message: String) -> Plan {
    let mut plan = Plan::leave(Row::PoolNotReady);
    plan.steps.extend(protect_claim(claim));
    tell(&mut plan, facts, claim, now, Waiting::Pool, ClaimReason::PoolNotReady, message);
    plan
}

fn no_room(facts: &Facts, claim: &ClaimFacts, now: Timestamp, pool: &PoolView) -> Plan {
    let mut plan = Plan::new(Row::NoRoom, Place::Queue, protect_claim(claim).into_iter().collect());
    let mut message = format!("{} {} has no free address: total {}, used {}", pool.kind, pool.name, pool.total, pool.used);
    if let Some(position) = facts.motion.position {
        message = format!("{message}, position {position} in the queue");
    }
    tell(&mut plan, facts, claim, now, Waiting::Room, ClaimReason::PoolExhausted, message);
    plan
}

/// A named value that cannot be had. One that is held will come free; for the others somebody has to change something.
fn denied(facts: &Facts, claim: &ClaimFacts, now: Timestamp, span: Span, denial: &Denial) -> Plan {
    let (place, message) = match denial {
        Denial::Held(holder) => (Place::QueueFor(span), format!("requested address {span} is held by {holder}")),
        Denial::NoRoom => (Place::QueueFor(span), format!("requested address {span} is not free")),
        Denial::NotAllocatable(refusal) => (Place::Leave, format!("requested address {span} cannot be given: {refusal}")),
    };
    let mut plan = refuse(facts, claim, now, Row::Denied, None, message);
    plan.place = place;
    plan
}

fn refuse(facts: &Facts, claim: &ClaimFacts, now: Timestamp, row: Row, event: Option<EventReason>, message: String) -> Plan {
    let mut plan = Plan::leave(row);
    plan.steps.extend(protect_claim(claim));
    if let Some(reason) = event.filter(|_| !waits(facts, Waiting::Refused)) {
        plan.steps.push(Step::Event(reason, message.clone()));
    }
    tell(&mut plan, facts, claim, now, Waiting::Refused, ClaimReason::AllocationFailed, message);
    plan
}

fn waits(facts: &Facts, waiting: Waiting) -> bool {
    facts.motion.waiting.is_some_and(|(known, _)| known == waiting)
}

/// Adds condition and event for a state that needs somebody else, once it has lasted. A claim just patched waits for its new version.
fn tell(plan: &mut Plan, facts: &Facts, claim: &ClaimFacts, now: Timestamp, waiting: Waiting, reason: ClaimReason, message: String) {
    plan.waiting = Some(waiting);
    let lasted = facts.motion.waiting.filter(|(known, _)| *known == waiting).map_or(Duration::ZERO, |(_, age)| age);
    if lasted < SILENCE {
        plan.recheck = Some(SILENCE.saturating_sub(lasted));
        return;
    }
    let ready = ClaimReady { reason, message, observed_generation: Some(claim.generation) };
    if claim.conditions.show(&ready, facts.capi) || plan.steps.iter().any(|step| matches!(step, Step::ProtectClaim(_))) {
        return;
    }
    let patch = status_patch(&claim.conditions, &ready, None, facts.capi, &claim.revision.to_string(), now);
    plan.steps.push(Step::Tell { patch, revision: claim.revision.clone() });
    plan.steps.extend(event_of(reason).map(|event| Step::Event(event, ready.message)));
}

fn event_of(reason: ClaimReason) -> Option<EventReason> {
    match reason {
        ClaimReason::AddressAllocated => None,
        ClaimReason::PoolExhausted => Some(EventReason::PoolExhausted),
        ClaimReason::PoolNotReady => Some(EventReason::PoolNotReady),
        ClaimReason::AllocationFailed => Some(EventReason::AllocationFailed),
    }
}

/// A claim that is deleting and that nothing holds up.
fn release(facts: &Facts, claim: &ClaimFacts, since: i64, now: Timestamp) -> Plan {
    let mine = claim.has_our_finalizer();
    let address = facts.address.as_ref().filter(|address| !matches!(address.relation, Relation::Other(_)));
    if !mine && !address.is_some_and(|address| address.made_here || (address.fresh && !claim.bound)) && facts.reservation.is_none() {
        return Plan::leave(Row::Nothing);
    }
    if facts.policy.honor_foreign_finalizers && !claim.release_now && claim.has_consumer() {
        return await_consumer(facts);
    }
    let Some(address) = address else {
        return match facts.reservation.filter(|held| held.state != ReservationState::Unsent) {
            Some(held) => confirm_absent(held.age),
            None => Plan::new(Row::ReleaseClaim, Place::Leave, release_claim(claim).into_iter().collect()),
        };
    };
    if let Some(rest) = grace_left(&facts.pool, since, now) {
        return await_grace(facts, address, rest, now);
    }
    if facts.motion.memory == Memory::Missing
        && let Some(span) = address.span
    {
        return Plan::new(Row::ReleaseAwaitsMemory, Place::Leave, vec![Step::Remember(span)]);
    }
    let ours = address.finalizers.iter().any(|finalizer| finalizer == PROTECT_ADDRESS);
    match (address.deleting, ours) {
        (None, _) => Plan::new(Row::ReleaseAddress, Place::Leave, vec![delete(address, Deletion::Released)]),
        (Some(_), true) => Plan::new(Row::ReleaseAddress, Place::Leave, unprotect(address).into_iter().collect()),
        (Some(_), false) => Plan::leave(Row::ReleaseAwaitsThirdParty),
    }
}

fn await_consumer(facts: &Facts) -> Plan {
    let mut plan = Plan::leave(Row::ReleaseAwaitsConsumer);
    plan.waiting = Some(Waiting::Consumer);
    match facts.motion.waiting {
        Some((Waiting::Consumer, age)) if age >= CONSUMER_PATIENCE => {
            let others = facts.claim.iter().flat_map(ClaimFacts::consumers).collect::<Vec<_>>().join(", ");
            plan.steps.push(Step::Event(EventReason::WaitingForConsumer, format!("the address is kept until these finalizers go: {others}")));
        }
        Some((Waiting::Consumer, age)) => plan.recheck = Some(CONSUMER_PATIENCE.saturating_sub(age)),
        _ => plan.recheck = Some(CONSUMER_PATIENCE),
    }
    plan
}

fn await_grace(facts: &Facts, address: &AddressFacts, rest: Duration, now: Timestamp) -> Plan {
    let mut plan = Plan::leave(Row::ReleaseAwaitsGrace).within(rest);
    plan.waiting = Some(Waiting::Grace);
    if !waits(facts, Waiting::Grace) {
        let end = Timestamp::from_second(now.as_second().saturating_add_unsigned(rest.as_secs())).unwrap_or(now);
        plan.steps.push(Step::Event(EventReason::ReuseGracePeriod, format!("{} stays taken until {end}", address.text)));
    }
    plan
}

/// How long an address must still stay; only live IP pools have a grace.
fn grace_left(pool: &PoolFacts, since: i64, now: Timestamp) -> Option<Duration> {
    match pool {
        PoolFacts::Known(pool) if !pool.deleting && !pool.kind.is_prefix() && !pool.grace.is_zero() => {
            let end = Duration::from_secs(since.unsigned_abs()) + pool.grace;
            let now = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
            end.checked_sub(now).filter(|rest| !rest.is_zero())
        }
        PoolFacts::Known(_) | PoolFacts::Absent(..) => None,
    }
}

/// No claim of that name: what we began is undone, orphans are let go, the rest is left alone.
fn without_claim(facts: &Facts, now: Timestamp) -> Plan {
    let Some(address) = &facts.address else {
        return match facts.reservation.filter(|held| held.state != ReservationState::Unsent) {
            Some(held) => confirm_absent(held.age),
            None => Plan::leave(Row::Nothing),
        };
    };
    if address.moving {
        return Plan::leave(Row::Moving);
    }
    if address.made_here {
        let steps = match address.deleting {
            None => vec![delete(address, Deletion::Abandoned)],
            Some(_) => unprotect(address).into_iter().collect(),
        };
        return Plan::new(Row::ReleaseAddress, Place::Leave, steps);
    }
    let protected = address.finalizers.iter().any(|finalizer| finalizer == PROTECT_ADDRESS);
    let Some(since) = address.deleting.filter(|_| protected) else {
        return Plan::leave(Row::Nothing);
    };
    if !facts.policy.release_orphans(&facts.pool) {
        let message = format!("{} is kept: its claim is gone, but after a move its machine may still use it elsewhere", address.text);
        return Plan::new(Row::OrphanKept, Place::Leave, vec![Step::Event(EventReason::OrphanedAddress, message)]);
    }
    match grace_left(&facts.pool, since, now) {
        Some(rest) => Plan::leave(Row::Orphan).within(rest),
        None => Plan::new(Row::Orphan, Place::Leave, release_orphan(address).into_iter().collect()),
    }
}

fn delete(address: &AddressFacts, why: Deletion) -> Step {
    Step::DeleteAddress { uid: address.uid.clone(), why, text: address.text.clone() }
}

fn unprotect(address: &AddressFacts) -> Option<Step> {
    let protected = address.finalizers.iter().any(|finalizer| finalizer == PROTECT_ADDRESS);
    protected.then(|| Step::UnprotectAddress { uid: address.uid.clone(), finalizers: address.finalizers.clone() })
}

fn release_orphan(address: &AddressFacts) -> Option<Step> {
    let protected = address.deleting.is_some() && address.finalizers.iter().any(|finalizer| finalizer == PROTECT_ADDRESS);
    protected.then(|| Step::ReleaseOrphan {
        uid: address.uid.clone(),
        finalizers: address.finalizers.clone(),
        claim_uid: address.claim_uid.clone(),
    })
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
}
