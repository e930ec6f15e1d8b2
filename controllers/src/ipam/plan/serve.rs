//! Rows for live claims: from a taken name to a published address.

use std::time::Duration;

use api::capi::{ClaimReady, status_patch};
use api::reasons::{ClaimReason, EventReason};
use k8s_openapi::jiff::Timestamp;
use poolutil::{ReservationState, Span};

use super::release::{confirm_absent, delete, orphan};
use super::{DELIVERY, Deletion, Place, Plan, Row, Step, protect_claim, protect_write, waits};
use crate::ipam::facts::{AddressFacts, ClaimFacts, Denial, Facts, PoolFacts, PoolView, Relation, Waiting, Wish};

/// A state that needs somebody else to change it is told only after it has lasted this long.
const SILENCE: Duration = Duration::from_secs(1);
/// For so long another manager, which saw the order of two addresses that we cannot prove, may still have one of them published: it is the
/// time-out of its request.
const PROOF: Duration = Duration::from_secs(30);

/// Rows 8 to 13: a live claim that nothing holds up.
pub(super) fn serve(facts: &Facts, claim: &ClaimFacts, now: Timestamp) -> Plan {
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
        Relation::Another => {
            let message = format!("the address {} of an earlier claim of this name is still being deleted", address.text);
            let mut plan = refuse(facts, claim, now, Row::EarlierAddress, None, message);
            match orphan(facts, address, now) {
                Some(Ok(step)) => plan.steps.push(step),
                Some(Err(rest)) => plan.recheck = Some(plan.recheck.map_or(rest, |recheck| recheck.min(rest))),
                None => {}
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
    // One that was made anew for a bound claim must prove itself like any other.
    let untold = !claim.bound || address.made_here;
    if claim.lost.as_ref() == Some(&address.uid) || (untold && address.fresh && address.deleting.is_some()) {
        return lose(claim, address, None);
    }
    if let Some(contest) = address.contest.as_ref().filter(|_| untold) {
        let message = format!("{} is already held by {}", address.text, contest.holder);
        // Unless another object provably has the better right, another manager may prove this one to be first and publish it.
        if address.fresh && !contest.published && !contest.behind && lasted(facts, Waiting::Order) < PROOF {
            let mut plan = Plan::leave(Row::Contested).within(PROOF.saturating_sub(lasted(facts, Waiting::Order)));
            plan.waiting = Some(Waiting::Order);
            return plan;
        }
        if address.fresh {
            return lose(claim, address, Some(Step::Event(EventReason::AddressConflict, message)));
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
    let publish = Step::Publish {
        patch,
        revision: claim.revision.clone(),
        bound: !claim.bound,
        text: address.text.clone(),
        made: address.made_here,
    };
    steps.push(publish);
    Plan::new(Row::Publish, Place::Leave, steps)
}

/// An address that must go, because it did not provably come first. Another manager may still prove that it did: whose write to the claim
/// comes first, prevails, and only then is it deleted.
fn lose(claim: &ClaimFacts, address: &AddressFacts, event: Option<Step>) -> Plan {
    let known = claim.lost.as_ref() == Some(&address.uid);
    let give_up = (!known).then(|| Step::GiveUp { revision: claim.revision.clone(), uid: address.uid.clone() });
    let steps = give_up.into_iter().chain(event).chain([delete(address, Deletion::Lost)]).collect();
    Plan::new(Row::Lost, Place::Leave, steps)
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
    if let Some((words, rest)) = &facts.motion.refusal {
        let plan = refuse(facts, claim, now, Row::Denied, None, words.clone());
        let recheck = plan.recheck.map_or(*rest, |recheck| recheck.min(*rest));
        return plan.within(recheck);
    }
    let wanted = |span: Span| facts.wishes.named.as_ref().is_none_or(|named| *named == Ok(span));
    if let Some(held) = facts.reservation.filter(|held| wanted(held.span)) {
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
        (ReservationState::Answered, _) => Plan::new(Row::AwaitDelivery, Place::Keep, protect_claim(claim).into_iter().collect())
            .within(DELIVERY.saturating_sub(age)),
        (_, PoolFacts::Known(pool)) if !pool.deleting => bind(claim, pool, span),
        (_, PoolFacts::Known(_) | PoolFacts::Absent(..)) => confirm_absent(age),
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
        Denial::NotAllocatable(refusal) => (Place::Leave, format!("requested address {span} {refusal}")),
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

/// Adds condition and event for a state that needs somebody else, once it has lasted. A claim just patched waits for its new version.
fn tell(
    plan: &mut Plan,
    facts: &Facts,
    claim: &ClaimFacts,
    now: Timestamp,
    waiting: Waiting,
    reason: ClaimReason,
    message: String,
) {
    plan.waiting = Some(waiting);
    let lasted = lasted(facts, waiting);
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

/// For how long the claim has been waiting for this.
fn lasted(facts: &Facts, waiting: Waiting) -> Duration {
    facts.motion.waiting.filter(|(known, _)| *known == waiting).map_or(Duration::ZERO, |(_, age)| age)
}

fn event_of(reason: ClaimReason) -> Option<EventReason> {
    match reason {
        ClaimReason::AddressAllocated => None,
        ClaimReason::PoolExhausted => Some(EventReason::PoolExhausted),
        ClaimReason::PoolNotReady => Some(EventReason::PoolNotReady),
        ClaimReason::AllocationFailed => Some(EventReason::AllocationFailed),
    }
}
