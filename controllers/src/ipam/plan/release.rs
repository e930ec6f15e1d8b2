//! Rows for claims that go, or are gone: the address is let go when nobody uses it any more, then the claim.

use std::time::Duration;

use api::names::PROTECT_ADDRESS;
use api::reasons::EventReason;
use k8s_openapi::jiff::Timestamp;
use poolutil::ReservationState;

use super::{Deletion, Place, Plan, Row, Step, release_claim, waits};
use crate::ipam::facts::{AddressFacts, ClaimFacts, Facts, Memory, PoolFacts, Relation, Waiting};

/// A deleting claim that others still hold gets an event after this time.
const CONSUMER_PATIENCE: Duration = Duration::from_secs(60);
/// How long a POST may still take effect after it was sent: the longest a request can live on the way and in the server.
const POST_LIFE: Duration = Duration::from_secs(75);

/// A claim that is deleting and that nothing holds up.
pub(super) fn release(facts: &Facts, claim: &ClaimFacts, since: i64, now: Timestamp) -> Plan {
    let published = claim.is_published();
    if published && !facts.policy.external_ips {
        let step = Step::Unpublish { uid: claim.uid.clone(), finalizers: claim.finalizers.clone() };
        return Plan::new(Row::ReleasePublished, Place::Leave, vec![step]);
    }
    let mine = claim.has_our_finalizer();
    // Another claim's address is no concern of this one: an earlier one's goes as an orphan, a later one has taken it over.
    let address = facts.address.as_ref().filter(|address| address.relation == Relation::Ours);
    if !mine
        && !address.is_some_and(|address| address.made_here || (address.fresh && !claim.bound))
        && facts.reservation.is_none()
    {
        return Plan::leave(Row::Nothing);
    }
    // The Service that carries the address is ours too, so nobody can vouch that it is safe to go on without it.
    if published || (facts.policy.honor_foreign_finalizers && !claim.release_now && claim.has_consumer()) {
        return await_consumer(facts);
    }
    let Some(address) = address else {
        return match facts.reservation.filter(|held| held.state != ReservationState::Unsent) {
            Some(held) => confirm_absent(held.age),
            // Another manager published it, and our view may have the claim before its address, or still show that of an earlier claim.
            None if claim.bound && !facts.motion.bereft => {
                let shown = facts.address.as_ref().map(|address| address.revision.clone());
                let confirm = Step::ConfirmBereft { uid: claim.uid.clone(), shown };
                Plan::new(Row::ReleaseAwaitsAnswer, Place::Leave, vec![confirm])
            }
            None => Plan::new(Row::ReleaseClaim, Place::Leave, release_claim(claim).into_iter().collect()),
        };
    };
    // Nobody was told of an address that we made and did not publish.
    let told = claim.bound || !address.fresh;
    if let Some(rest) = grace_left(&facts.pool, since, now).filter(|_| told) {
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
        Some((Waiting::ConsumerTold, _)) => plan.waiting = Some(Waiting::ConsumerTold),
        Some((Waiting::Consumer, age)) if age >= CONSUMER_PATIENCE => {
            plan.waiting = Some(Waiting::ConsumerTold);
            let others = facts.claim.iter().flat_map(ClaimFacts::consumers).collect::<Vec<_>>().join(", ");
            plan.steps.push(Step::Event(
                EventReason::WaitingForConsumer,
                format!("the address is kept until these finalizers go: {others}"),
            ));
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
            let end = Duration::from_secs(since.unsigned_abs()).saturating_add(pool.grace);
            let now = Duration::try_from(now.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
            end.checked_sub(now).filter(|rest| !rest.is_zero())
        }
        PoolFacts::Known(_) | PoolFacts::Absent(..) => None,
    }
}

/// No claim of that name: what we began is undone, orphans are let go, the rest is left alone.
pub(super) fn without_claim(facts: &Facts, now: Timestamp) -> Plan {
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
    if let Relation::Other(_) = address.relation {
        return Plan::leave(Row::Nothing);
    }
    if address.deleting.is_none() || unprotect(address).is_none() {
        return Plan::leave(Row::Nothing);
    }
    if let PoolFacts::Known(pool) = &facts.pool
        && pool.paused
    {
        return Plan::leave(Row::PoolPaused);
    }
    match orphan(facts, address, now) {
        Some(Ok(step)) => Plan::new(Row::Orphan, Place::Leave, vec![step]),
        Some(Err(rest)) => Plan::leave(Row::Orphan).within(rest),
        None => {
            let mut plan = Plan::leave(Row::OrphanKept);
            plan.waiting = Some(Waiting::OrphanTold);
            if !waits(facts, Waiting::OrphanTold) {
                let message = format!(
                    "{} is kept: its claim is gone, but after a move its machine may still use it elsewhere",
                    address.text
                );
                plan.steps.push(Step::Event(EventReason::OrphanedAddress, message));
            }
            plan
        }
    }
}

/// A POST without an answer: while it may still take effect its value stays taken, then the API server is asked.
pub(super) fn confirm_absent(age: Duration) -> Plan {
    match POST_LIFE.checked_sub(age) {
        Some(rest) if !rest.is_zero() => Plan::rest(Row::ReleaseAwaitsAnswer).within(rest),
        _ => Plan::new(Row::ReleaseAwaitsAnswer, Place::Keep, vec![Step::ConfirmAbsent]),
    }
}

pub(super) fn delete(address: &AddressFacts, why: Deletion) -> Step {
    Step::DeleteAddress { uid: address.uid.clone(), revision: address.revision.clone(), why, text: address.text.clone() }
}

fn unprotect(address: &AddressFacts) -> Option<Step> {
    let protected = address.finalizers.iter().any(|finalizer| finalizer == PROTECT_ADDRESS);
    protected.then(|| Step::UnprotectAddress { uid: address.uid.clone(), finalizers: address.finalizers.clone() })
}

/// A deleting address whose claim is gone, as far as it is seen: let go after the pool's grace, unless the policy keeps it.
pub(super) fn orphan(facts: &Facts, address: &AddressFacts, now: Timestamp) -> Option<Result<Step, Duration>> {
    let protected = address.finalizers.iter().any(|finalizer| finalizer == PROTECT_ADDRESS);
    let since = address.deleting.filter(|_| protected && facts.policy.release_orphans(&facts.pool))?;
    Some(grace_left(&facts.pool, since, now).map_or_else(
        || {
            Ok(Step::ReleaseOrphan {
                uid: address.uid.clone(),
                finalizers: address.finalizers.clone(),
                claim_uid: address.claim_uid.clone(),
            })
        },
        Err,
    ))
}
