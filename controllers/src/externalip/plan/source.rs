//! What the status of a source says (§2.5 and 12 of the specification).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::externalip::reasons::{ExternalIpEvent, SolverState, SourceCondition, SourceReason};
use api::externalip::{
    ClusterExternalIPSourceStatus, FamilyStatus, FieldError, Host, Output, QueryMode, Shared, Solver, SolverList, SolverStatus,
    Source,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use poolutil::Family;

use super::asking::{RESOLVING, SaidToAll, is_allowed, keys_of, needed, nothing, shared};
use super::choose::{Answer, PATIENCE, Said, earlier, is_per_service};
use super::conditions::changed;
use super::service::FAMILIES;
use super::{Note, Standing, StatusPlan};
use crate::externalip::accept::Filter;
use crate::externalip::answers::FailureKind;
use crate::externalip::facts::{Now, Pass, SourceFacts};
use crate::externalip::provenance;

/// How long a process that begins waits for the first answers before it shows that there are none.
const START: Duration = Duration::from_secs(20);
/// The most addresses that a solver's status lists.
const SHOWN: usize = 8;

/// What the shared solvers of a family come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Yield {
    Addresses,
    PerService,
    Pending,
    Nothing,
}

/// What is to be said of a family, and of what is wrong there.
struct FamilyReport {
    status: FamilyStatus,
    yields: Yield,
    failing: Vec<String>,
    refused: Vec<String>,
    until: Option<Instant>,
}

/// What to show of a source.
pub fn source(pass: &Pass<'_>, now: Now) -> StatusPlan {
    let facts = pass.source;
    let old = facts.status.clone().unwrap_or_default();
    let (mut status, standing, until) = match &facts.spec {
        Err(errors) => (invalid(&old, errors, now), Standing::Failing, None),
        Ok(source) => valid(pass, source, &old, now),
    };
    status.observed_generation = Some(facts.generation);
    for condition in &mut status.conditions {
        condition.observed_generation = Some(facts.generation);
    }
    // What a process before this one showed is better than that this one does not know yet.
    let started = pass.memory.began.map(|began| began + START).filter(|end| now.instant < *end);
    if let Some(end) = started
        && old.observed_generation == Some(facts.generation)
        && is_resolving(&status)
        && !is_resolving(&old)
    {
        let look_again = earlier(until, Some(end)).map(|until| until.saturating_duration_since(now.instant));
        return StatusPlan { status: None, notes: Vec::new(), look_again, standing };
    }
    let mut notes = notes(&old, &status);
    notes.extend(deprecation(pass));
    StatusPlan {
        notes,
        look_again: until.map(|until| until.saturating_duration_since(now.instant)),
        standing,
        status: (facts.status.as_ref() != Some(&status)).then_some(status),
    }
}

fn is_resolving(status: &ClusterExternalIPSourceStatus) -> bool {
    [&status.ipv4, &status.ipv6].into_iter().flatten().flat_map(|family| &family.solvers).any(|solver| solver.reason == RESOLVING)
}

fn invalid(old: &ClusterExternalIPSourceStatus, errors: &[FieldError], now: Now) -> ClusterExternalIPSourceStatus {
    let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let write = |type_, reason: SourceReason| write(old, type_, false, reason, &text, now);
    ClusterExternalIPSourceStatus {
        services: old.services,
        conditions: vec![
            write(SourceCondition::Accepted, SourceReason::InvalidSpec),
            write(SourceCondition::Ready, SourceReason::InvalidSpec),
        ],
        ..ClusterExternalIPSourceStatus::default()
    }
}

fn valid(
    pass: &Pass<'_>,
    source: &Source,
    old: &ClusterExternalIPSourceStatus,
    now: Now,
) -> (ClusterExternalIPSourceStatus, Standing, Option<Instant>) {
    let filter = Filter::new(&source.address_policy, pass.rules);
    let mut status = ClusterExternalIPSourceStatus::default();
    let (mut yields, mut failing, mut refused, mut until) = (Vec::new(), Vec::new(), Vec::new(), needed(pass, now).1);
    for family in FAMILIES {
        let Some(list) = source.list(family) else { continue };
        let old = if family == Family::V4 { &old.ipv4 } else { &old.ipv6 };
        let report = report(pass, &filter, family, list, old.as_ref(), now);
        yields.push((family, report.yields));
        failing.extend(report.failing);
        refused.extend(report.refused);
        until = earlier(until, report.until);
        let place = if family == Family::V4 { &mut status.ipv4 } else { &mut status.ipv6 };
        *place = Some(report.status);
    }
    let allowed = pass.bound.iter().filter(|bound| is_allowed(source, bound) && !bound.service.deleting).count();
    status.services = i64::try_from(allowed).ok();
    let (is_ready, reason, text) = readiness(&yields);
    let loops = loops(pass, source);
    let trouble =
        [(SourceReason::SolverFailing, &failing), (SourceReason::AddressRefused, &refused), (SourceReason::PossibleLoop, &loops)];
    let worst = trouble.iter().find(|(_, texts)| !texts.is_empty()).map(|(reason, _)| *reason);
    let texts: Vec<String> = trouble.into_iter().flat_map(|(_, texts)| texts).cloned().collect();
    let degraded = worst.unwrap_or(SourceReason::AllSolversHealthy);
    status.conditions = vec![
        write(old, SourceCondition::Accepted, true, SourceReason::Valid, "the spec can be used", now),
        write(old, SourceCondition::Ready, is_ready, reason, &text, now),
        write(old, SourceCondition::Degraded, worst.is_some(), degraded, &texts.join("; "), now),
    ];
    let standing = match (is_ready, worst.is_some()) {
        (true, false) => Standing::Ready,
        (true, true) => Standing::Degraded,
        (false, _) => Standing::Failing,
    };
    (status, standing, until)
}

fn write(
    old: &ClusterExternalIPSourceStatus,
    type_: SourceCondition,
    is_true: bool,
    reason: SourceReason,
    text: &str,
    now: Now,
) -> Condition {
    let before = old.conditions.iter().find(|condition| condition.type_ == type_.as_str());
    changed(before, type_.as_str(), is_true, reason.as_str(), text, now.wall)
}

fn readiness(yields: &[(Family, Yield)]) -> (bool, SourceReason, String) {
    let of =
        |wanted: Yield| yields.iter().filter(|(_, is)| *is == wanted).map(|(family, _)| family.to_string()).collect::<Vec<_>>();
    let (found, per_service, pending, nothing) =
        (of(Yield::Addresses), of(Yield::PerService), of(Yield::Pending), of(Yield::Nothing));
    if !nothing.is_empty() && found.is_empty() && per_service.is_empty() && pending.is_empty() {
        (false, SourceReason::NoAddress, format!("no solver finds an {} address", nothing.join(" or ")))
    } else if !nothing.is_empty() {
        (false, SourceReason::Partial, format!("no solver finds an {} address", nothing.join(" or ")))
    } else if !pending.is_empty() {
        (false, SourceReason::Resolving, format!("no solver has answered for {} yet", pending.join(" and ")))
    } else if !per_service.is_empty() {
        (true, SourceReason::PerService, format!("{} addresses depend on the Service", per_service.join(" and ")))
    } else {
        (true, SourceReason::AddressFound, format!("there are {} addresses", found.join(" and ")))
    }
}

fn report(
    pass: &Pass<'_>,
    filter: &Filter,
    family: Family,
    list: &SolverList,
    old: Option<&FamilyStatus>,
    now: Now,
) -> FamilyReport {
    let path = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let mut addresses: Vec<IpAddr> = Vec::new();
    let (mut solvers, mut failing, mut refused, mut until) = (Vec::new(), Vec::new(), Vec::new(), None);
    let (mut decided, mut pending, mut depends) = (false, false, false);
    for (index, solver) in list.solvers.iter().enumerate() {
        let is_used = keys_of(family, solver).iter().all(|key| pass.answers.is_used(&pass.source.name, key));
        let all = if is_per_service(solver) {
            nothing(Said::new(Answer::Pending { since: now.instant }), SolverState::PerService)
        } else if is_used {
            shared(pass, filter, family, solver, now.instant)
        } else {
            nothing(Said::new(Answer::Empty { confirmed: false }), SolverState::Idle)
        };
        let shown = solver_status(index, solver, &all, old, now);
        let title = format!("{path}.solvers[{index}] {} {}", shown.type_, shown.target).trim_end().to_owned();
        if !all.refused.is_empty() {
            let each = all.refused.iter().take(SHOWN).map(|(ip, refusal)| format!("{ip} ({})", refusal.as_str()));
            refused.push(format!("{title}: refused {}", each.collect::<Vec<_>>().join(", ")));
        }
        if let Some((_, text)) = all.failure.filter(|(kind, _)| *kind != FailureKind::AddressRefused) {
            let since = shown.since.as_ref().map(|since| format!(" since {}", since.0.strftime("%Y-%m-%dT%H:%M:%SZ")));
            let held = (!shown.addresses.is_empty()).then(|| format!(", holding {}", shown.addresses.join(", ")));
            failing.push(format!("{title}: {text}{}{}", since.unwrap_or_default(), held.unwrap_or_default()));
        }
        until = earlier(until, all.said.until);
        if let Answer::Pending { since } = all.said.answer
            && !is_per_service(solver)
        {
            pending |= !decided;
            let end = since + PATIENCE;
            until = earlier(until, (now.instant < end).then_some(end));
            // The first that answers decides, so those after one that may still do so are not asked about.
            decided |= list.mode == QueryMode::FirstFound && now.instant < end;
        }
        depends |= is_per_service(solver) && !decided;
        if !decided {
            for ip in all.addresses {
                if !addresses.contains(&ip) {
                    addresses.push(ip);
                }
            }
            decided = list.mode == QueryMode::FirstFound && !addresses.is_empty();
        }
        solvers.push(shown);
    }
    let yields = match (depends, addresses.is_empty(), pending) {
        (true, _, _) => Yield::PerService,
        (false, false, _) => Yield::Addresses,
        (false, true, true) => Yield::Pending,
        (false, true, false) => Yield::Nothing,
    };
    let addresses = (!depends).then(|| addresses.iter().map(ToString::to_string).collect());
    FamilyReport { status: FamilyStatus { addresses, solvers }, yields, failing, refused, until }
}

fn solver_status(index: usize, solver: &Solver, all: &SaidToAll, old: Option<&FamilyStatus>, now: Now) -> SolverStatus {
    let index = i64::try_from(index).unwrap_or(i64::MAX);
    let (reason, message) = match (&all.failure, &all.remark) {
        (Some((kind, text)), _) => (kind.as_str(), text.clone()),
        (None, Some((reason, text))) => (*reason, text.clone()),
        (None, None) if all.refused.is_empty() => ("", String::new()),
        (None, None) => (FailureKind::AddressRefused.as_str(), "some addresses of the answer may not be published".to_owned()),
    };
    let new = SolverStatus {
        index,
        type_: solver.type_name().to_owned(),
        target: provenance::target(solver),
        state: all.state.as_str().to_owned(),
        addresses: all.addresses.iter().take(SHOWN).map(ToString::to_string).collect(),
        reason: reason.to_owned(),
        message,
        since: None,
    };
    let same = |old: &&SolverStatus| {
        (old.index, &old.type_, &old.target, &old.state, &old.addresses)
            == (new.index, &new.type_, &new.target, &new.state, &new.addresses)
    };
    let since = old.and_then(|old| old.solvers.iter().find(same)).and_then(|old| old.since.clone());
    SolverStatus { since: Some(since.unwrap_or_else(|| Time(whole_second(now)))), ..new }
}

/// Now, as precisely as it is written.
fn whole_second(now: Now) -> k8s_openapi::jiff::Timestamp {
    k8s_openapi::jiff::Timestamp::from_second(now.wall.as_second()).unwrap_or(now.wall)
}

/// Hosts that are named after a Service which gets its addresses from them.
fn loops(pass: &Pass<'_>, source: &Source) -> Vec<String> {
    let mut hosts = BTreeSet::new();
    for family in FAMILIES {
        for solver in source.list(family).into_iter().flat_map(|list| &list.solvers) {
            for key in keys_of(family, solver) {
                if let Shared::DnsHostname(Host::Name(name)) = key.solver {
                    hosts.insert(name);
                }
            }
        }
    }
    let named = |host: &String| {
        let mut services =
            pass.bound.iter().filter(|bound| bound.service.hostnames.contains(host)).map(|bound| &bound.service.key);
        services.next().map(|key| format!("{host} is published for the Service {key}, which gets its addresses from it"))
    };
    hosts.iter().filter_map(named).collect()
}

/// What changed between two states, in events.
fn notes(old: &ClusterExternalIPSourceStatus, new: &ClusterExternalIPSourceStatus) -> Vec<Note> {
    let mut notes = Vec::new();
    for (old, new) in [(&old.ipv4, &new.ipv4), (&old.ipv6, &new.ipv6)] {
        let addresses = |status: &Option<FamilyStatus>| status.as_ref().and_then(|status| status.addresses.clone());
        if let (Some(old), Some(new)) = (addresses(old), addresses(new))
            && !old.is_empty()
            && old != new
        {
            let after = if new.is_empty() { "none".to_owned() } else { new.join(", ") };
            notes.push(Note { reason: ExternalIpEvent::AddressChanged, text: format!("{} -> {after}", old.join(", ")) });
        }
    }
    let of = |status: &ClusterExternalIPSourceStatus, type_: SourceCondition| {
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_.as_str());
        condition.map(|condition| (condition.status == "True", condition.reason.clone(), condition.message.clone()))
    };
    let (before, after) = (of(old, SourceCondition::Degraded), of(new, SourceCondition::Degraded));
    if before != after {
        match &after {
            Some((true, reason, text)) => notes.extend(degraded(reason).map(|reason| Note { reason, text: text.clone() })),
            Some((false, ..))
                if before.is_some_and(|(degraded, reason, _)| degraded && reason == SourceReason::SolverFailing.as_str()) =>
            {
                let text = "all solvers answer again".to_owned();
                notes.push(Note { reason: ExternalIpEvent::SolverRecovered, text });
            }
            Some((false, ..)) | None => {}
        }
    }
    let (before, after) = (of(old, SourceCondition::Accepted), of(new, SourceCondition::Accepted));
    if let Some((false, _, text)) = after.filter(|after| before.as_ref() != Some(after)) {
        notes.push(Note { reason: ExternalIpEvent::InvalidIPSource, text });
    }
    notes
}

fn degraded(reason: &str) -> Option<ExternalIpEvent> {
    [
        (SourceReason::SolverFailing, ExternalIpEvent::SolverFailing),
        (SourceReason::AddressRefused, ExternalIpEvent::AddressRefused),
        (SourceReason::PossibleLoop, ExternalIpEvent::PossibleLoop),
    ]
    .into_iter()
    .find_map(|(known, event)| (known.as_str() == reason).then_some(event))
}

/// The API server warns of the field: said once for each source, as long as this process remembers it.
fn deprecation(pass: &Pass<'_>) -> Option<Note> {
    let SourceFacts { spec: Ok(source), .. } = pass.source else { return None };
    let publishes = source.outputs.as_ref().is_none_or(|outputs| outputs.contains(&Output::ExternalIps));
    let reason = ExternalIpEvent::ExternalIPsDeprecated;
    let text = "this API server warns of spec.externalIPs, which kube-proxy will stop to serve; see spec.outputs".to_owned();
    let news = pass.memory.deprecated && publishes && !pass.bound.is_empty() && !pass.memory.told.contains_key(&reason);
    news.then_some(Note { reason, text })
}
