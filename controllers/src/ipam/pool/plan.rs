//! The decision about one pool: finalizer, status, memory, events. Pure; the driver carries it out.

use std::time::Duration;

use api::names::PROTECT_POOL;
use api::reasons::{EventReason, PoolCondition, PoolReason};
use api::v1alpha2::{AddressCounts, ExactCounts, PoolStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use poolutil::Counts;

use super::observe::Facts;

/// The least time between two status writes of one pool.
const PACE: Duration = Duration::from_secs(1);

/// What to do about a pool.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What to write, in this order.
    pub steps: Vec<Step>,
    /// When to look again even if nothing happens.
    pub recheck: Option<Duration>,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Set the finalizers, with ours among them. A webhook may refuse that for a spec that is invalid anyway.
    Protect(Vec<String>),
    /// Take our finalizer away.
    Unprotect(Vec<String>),
    /// Write down what released claims held.
    Remember(String),
    /// Show numbers and conditions.
    Show(Box<PoolStatus>),
    /// Tell the user.
    Event(EventReason, String),
}

/// What to do about a pool that exists, in this order:
///
/// 1. Nothing while our own last write is not in view, the pool moves away, or another manager looks after it.
/// 2. A deleting pool without addresses loses our finalizer, whatever else there is to say.
/// 3. A live pool gets our finalizer, before its first status.
/// 4. What released claims held is written down.
/// 5. The status follows, at its pace.
pub fn plan(facts: &Facts, now: Timestamp) -> Plan {
    let mut plan = Plan { steps: Vec::new(), recheck: facts.forgets_in };
    if facts.moving || !facts.served {
        return plan;
    }
    if facts.own_write_unseen {
        plan.recheck = Some(Duration::from_secs(10));
        return plan;
    }
    let protected = facts.finalizers.iter().any(|finalizer| finalizer == PROTECT_POOL);
    if facts.deleting && protected && facts.visible && facts.counts.used == 0 && !facts.in_flight {
        plan.steps.push(Step::Unprotect(facts.finalizers.clone()));
        return plan;
    }
    if !facts.deleting && !protected {
        plan.steps.push(Step::Protect(facts.finalizers.iter().cloned().chain([PROTECT_POOL.to_owned()]).collect()));
    }
    plan.steps.extend(facts.memory.clone().map(Step::Remember));
    show(&mut plan, facts, now);
    plan
}

fn show(plan: &mut Plan, facts: &Facts, now: Timestamp) {
    let status = status(facts, now);
    plan.steps.extend(facts.problems.iter().map(|problem| Step::Event(EventReason::InvalidSpec, format!("ignored: {problem}"))));
    if status == facts.status {
        return;
    }
    let rest = facts.written.and_then(|written| PACE.checked_sub(written)).filter(|rest| !rest.is_zero());
    if let Some(rest) = rest.filter(|_| !turns(&facts.status, &status)) {
        plan.recheck = Some(plan.recheck.map_or(rest, |other| other.min(rest)));
        return;
    }
    let events = events(&facts.status, &status);
    plan.steps.push(Step::Show(Box::new(status)));
    plan.steps.extend(events);
}

/// Whether the pool runs full, or is not full any more.
pub fn turns(before: &PoolStatus, after: &PoolStatus) -> bool {
    let full = |status: &PoolStatus| status.ip_addresses.map(|counts| counts.free == 0);
    full(before) != full(after)
}

/// The status as it shall be. While a pool is being deleted its numbers stay what they were.
fn status(facts: &Facts, now: Timestamp) -> PoolStatus {
    let (counts, exact) = if facts.deleting && facts.status.ip_addresses.is_some() {
        (facts.status.ip_addresses, facts.status.ip_addresses_exact.clone())
    } else {
        numbers(&facts.counts)
    };
    PoolStatus {
        ip_addresses: counts,
        conditions: conditions(facts, now),
        observed_generation: Some(facts.generation),
        ip_addresses_exact: exact,
    }
}

fn numbers(counts: &Counts) -> (Option<AddressCounts>, Option<ExactCounts>) {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let shown = AddressCounts {
        total: counts.total.capped(),
        free: counts.free.capped(),
        used: number(counts.used),
        out_of_range: number(counts.out_of_range),
    };
    let exact =
        counts.total.exceeds_i64().then(|| ExactCounts { total: counts.total.to_string(), free: counts.free.to_string() });
    (Some(shown), exact)
}

/// All four conditions, each in its place or else behind what is there, in the order of their declaration. Those of others stay.
fn conditions(facts: &Facts, now: Timestamp) -> Vec<Condition> {
    let mut conditions = facts.status.conditions.clone();
    for kind in PoolCondition::ALL {
        let (status, reason, message) = match kind {
            PoolCondition::Ready => ready(facts),
            PoolCondition::Exhausted => exhausted(facts),
            PoolCondition::Overlapping => overlapping(facts),
            PoolCondition::Conflicting => conflicting(facts),
        };
        let condition = condition(facts, now, *kind, status, reason, message);
        match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

/// The part of a status that is ours to apply: conditions of others stay with whoever wrote them.
pub fn ours(status: &PoolStatus) -> PoolStatus {
    let is_ours = |condition: &&Condition| PoolCondition::ALL.iter().any(|kind| kind.as_str() == condition.type_);
    PoolStatus { conditions: status.conditions.iter().filter(is_ours).cloned().collect(), ..status.clone() }
}

fn condition(facts: &Facts, now: Timestamp, kind: PoolCondition, status: bool, reason: PoolReason, message: String) -> Condition {
    let status = if status { "True" } else { "False" };
    let before = facts.status.conditions.iter().find(|condition| condition.type_ == kind.as_str());
    let since = before.filter(|before| before.status == status).map(|before| before.last_transition_time.clone());
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: Some(facts.generation),
        last_transition_time: since.unwrap_or(Time(second)),
    }
}

fn ready(facts: &Facts) -> (bool, PoolReason, String) {
    if facts.deleting {
        return (false, PoolReason::Deleting, format!("waits for {} addresses to be released", facts.counts.used));
    }
    if let Some(invalid) = &facts.invalid {
        return (false, PoolReason::InvalidSpec, invalid.clone());
    }
    match &facts.trouble {
        Some(trouble) if !facts.visible => (false, PoolReason::AddressesNotVisible, trouble.clone()),
        Some(trouble) => (false, PoolReason::NoAllocatableAddresses, trouble.clone()),
        None => (true, PoolReason::PoolReady, String::new()),
    }
}

/// What is free and on its way to a claim is not there for others: a value that goes from one claim to a waiting one is no news.
fn exhausted(facts: &Facts) -> (bool, PoolReason, String) {
    let promised = i64::try_from(facts.counts.reserved).unwrap_or(i64::MAX);
    let full = facts.counts.free.capped() <= promised && !facts.counts.total.is_zero();
    match (full, facts.waiting) {
        (false, _) => (false, PoolReason::AddressesAvailable, String::new()),
        (true, 0) => (true, PoolReason::NoFreeAddresses, "no address is free".to_owned()),
        (true, waiting) => (true, PoolReason::NoFreeAddresses, format!("no address is free, claims waiting: {waiting}")),
    }
}

fn overlapping(facts: &Facts) -> (bool, PoolReason, String) {
    if facts.overlap_count == 0 {
        return (false, PoolReason::NoOverlap, String::new());
    }
    let more = facts.overlap_count.saturating_sub(facts.overlaps.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (true, PoolReason::OverlapsOtherPool, format!("overlaps {}{more}", facts.overlaps.join(", ")))
}

fn conflicting(facts: &Facts) -> (bool, PoolReason, String) {
    if facts.duplicate_count == 0 {
        return (false, PoolReason::NoDuplicates, String::new());
    }
    let more = facts.duplicate_count.saturating_sub(facts.duplicates.len());
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    (true, PoolReason::DuplicateAddresses, format!("held more than once: {}{more}", facts.duplicates.join(", ")))
}

/// What a change of conditions is worth telling.
fn events(before: &PoolStatus, after: &PoolStatus) -> Vec<Step> {
    let find = |status: &PoolStatus, kind: PoolCondition| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == kind.as_str())
            .map(|found| (found.status == "True", found.clone()))
    };
    let mut events = Vec::new();
    for kind in PoolCondition::ALL {
        let (Some((now, condition)), before) = (find(after, *kind), find(before, *kind)) else { continue };
        let was = before.as_ref().is_some_and(|(was, _)| *was);
        let other_text =
            before.is_none_or(|(_, before)| before.message != condition.message || before.reason != condition.reason);
        let reason = match kind {
            PoolCondition::Ready => {
                (!now && other_text && condition.reason == PoolReason::InvalidSpec.as_str()).then_some(EventReason::InvalidSpec)
            }
            PoolCondition::Exhausted => match (was, now) {
                (false, true) => Some(EventReason::NoFreeAddresses),
                (true, false) if after.ip_addresses.is_some_and(|counts| counts.free > 0) => Some(EventReason::CapacityAvailable),
                _ => None,
            },
            PoolCondition::Overlapping => (now && other_text).then_some(EventReason::PoolsOverlap),
            PoolCondition::Conflicting => (now && other_text).then_some(EventReason::DuplicateAddresses),
        };
        let text = if condition.message.is_empty() { "addresses are free again".to_owned() } else { condition.message };
        events.extend(reason.map(|reason| Step::Event(reason, text)));
    }
    events
}

#[cfg(test)]
mod tests;
