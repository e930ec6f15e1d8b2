//! The plan for one Service: whose it is, what it shall have, and what is said about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use api::externalip::names::PREDECESSOR;
use api::externalip::reasons::{ExternalIpEvent, ServiceReason};
use api::externalip::{FamilyPolicy, Output, PoolRef, PortConflict, ReleasePolicy, Source};
use poolutil::Family;

use super::choose::{Cause, Scope, State, choose, earlier, gives_up};
use super::leases::{Sight, mirrored};
use super::publish::{Ours, Published, Wish, publish};
use super::{Note, Plan, Standing, Step, conditions, upkeep};
use crate::externalip::accept::Filter;
use crate::externalip::facts::{Facts, Now, ServiceFacts, ServiceKey, SourceFacts};
use crate::externalip::provenance;
use crate::externalip::record::Record;

/// Both families, in the order in which they are published unless the Service says otherwise.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// A write of ours that our watch does not deliver within this time is not waited for any longer.
const DELIVERY: std::time::Duration = std::time::Duration::from_secs(10);

/// Whose a Service is.
enum Binding<'a> {
    /// Nobody's.
    Unbound,
    /// A source's that does not exist.
    Missing(&'a str),
    /// A source's that cannot be read.
    Invalid(&'a SourceFacts),
    /// A source's that does not want it.
    Unwanted(&'a SourceFacts),
    /// A source's.
    Bound(&'a SourceFacts, &'a Source),
}

/// What a Service shall have, and what is to be said of it.
struct Verdict {
    wish: Wish,
    /// The claims it needs; `None` means those it has.
    claims: Option<Vec<(Family, PoolRef)>>,
    /// Why it is not ready; `None` means that what was published says it.
    cause: Option<Cause>,
    /// What is said besides the addresses where it is ready.
    remarks: Vec<String>,
    /// The addresses it has after this, for messages.
    addresses: Vec<IpAddr>,
    /// An address it shares with an older Service.
    conflict: Option<(IpAddr, ServiceKey)>,
    /// Whether what was said before stands.
    silent: bool,
    waits_on: BTreeSet<ServiceKey>,
    until: Option<Instant>,
}

impl Verdict {
    fn without(gone: BTreeSet<IpAddr>, forget: bool) -> Self {
        Self {
            wish: Wish::Without { gone, forget },
            claims: Some(Vec::new()),
            cause: None,
            remarks: Vec::new(),
            addresses: Vec::new(),
            conflict: None,
            silent: false,
            waits_on: BTreeSet::new(),
            until: None,
        }
    }
}

/// What to do about a Service.
pub fn service(facts: &Facts<'_>, now: Now) -> Plan {
    if facts.memory.own_write_unseen {
        return Plan { look_again: Some(DELIVERY), ..Plan::default() };
    }
    let Some(service) = facts.service else { return upkeep::without_service(facts, now.instant) };
    if service.deleting {
        return Plan::default();
    }
    let parsed = service.record.as_deref().map(Record::parse);
    let unreadable = matches!(parsed, Some(Err(_)));
    let binding = bind(facts, service);
    let source = match binding {
        Binding::Bound(_, source) => Some(source),
        Binding::Unbound | Binding::Missing(_) | Binding::Invalid(_) | Binding::Unwanted(_) => None,
    };
    let adopted = parsed.is_none().then(|| source.and_then(|_| adopt(facts, service))).flatten();
    let record = parsed.and_then(Result::ok).or(adopted);
    let mirrored = mirrored(source, service, record.as_ref());
    let sight = Sight {
        service,
        our_class: facts.rules.is_our_class(service),
        claims: facts.claims,
        record: record.as_ref(),
        mirrored: &mirrored,
        began: facts.memory.began,
        now: now.instant,
    };
    let verdict = match binding {
        Binding::Unbound => leave(sight, record.as_ref().map(|record| record.release)),
        Binding::Missing(name) => lost(facts, sight, name),
        Binding::Invalid(known) => Verdict {
            cause: Some((ServiceReason::SourceInvalid, format!("the source {} cannot be used, see its conditions", known.name))),
            claims: None,
            ..Verdict::without(lapsed(sight), false)
        },
        Binding::Unwanted(known) => Verdict {
            cause: Some((ServiceReason::NotAllowed, format!("the source {} does not allow this Service", known.name))),
            ..leave(sight, Some(ReleasePolicy::Release))
        },
        Binding::Bound(known, source) => serve(facts, sight, known, source),
    };
    assemble(facts, sight, source, verdict, unreadable, now)
}

/// The name in the annotation that binds a Service.
pub fn source_name(service: &ServiceFacts) -> Option<&str> {
    service.source.as_deref().map(str::trim).filter(|name| !name.is_empty())
}

fn bind<'a>(facts: &Facts<'a>, service: &'a ServiceFacts) -> Binding<'a> {
    let Some(name) = source_name(service) else { return Binding::Unbound };
    let Some(known) = facts.source else { return Binding::Missing(name) };
    let Ok(source) = &known.spec else { return Binding::Invalid(known) };
    if source.allowed_services.matches(&service.labels, facts.namespace_labels) {
        Binding::Bound(known, source)
    } else {
        Binding::Unwanted(known)
    }
}

/// The record that the operator before us would have written: all entries were its own.
fn adopt(facts: &Facts<'_>, service: &ServiceFacts) -> Option<Record> {
    service.external_ips_managers.iter().find(|manager| *manager == PREDECESSOR)?;
    let known = facts.source?;
    let ips: BTreeSet<IpAddr> = service.external_ips.iter().filter_map(|text| text.parse().ok()).collect();
    Some(Record {
        source: known.name.clone(),
        release: known.spec.as_ref().map_or(ReleasePolicy::Release, |source| source.release),
        addresses: ips.iter().map(|ip| (*ip, provenance::ADOPTED.to_owned())).collect(),
        external_ips: ips,
        mirrored: BTreeSet::new(),
    })
}

/// Addresses of ours that somebody else may get now.
fn lapsed(sight: Sight<'_>) -> BTreeSet<IpAddr> {
    let recorded = FAMILIES.into_iter().flat_map(|family| sight.recorded(family));
    let lapsed = recorded.filter(|(ip, from)| !sight.lasts(None, *ip, from)).map(|(ip, _)| ip);
    lapsed.chain(going(sight)).collect()
}

/// Addresses of claims that go. They are ours whatever the record says.
fn going(sight: Sight<'_>) -> impl Iterator<Item = IpAddr> {
    sight.our_claims().filter(|claim| claim.deleting).filter_map(|claim| claim.address)
}

/// A Service that no source may have any longer.
fn leave(sight: Sight<'_>, release: Option<ReleasePolicy>) -> Verdict {
    let pools = sight.our_claims().filter_map(|claim| claim.address);
    match release {
        Some(ReleasePolicy::Release) => {
            let record = sight.record.into_iter();
            let recorded = record.flat_map(|record| record.addresses.keys().chain(&record.external_ips)).copied();
            Verdict::without(recorded.chain(pools).collect(), true)
        }
        // A lease ends with the claim, and claims go whatever the policy.
        Some(ReleasePolicy::Retain) => {
            let has_claims = sight.our_claims().next().is_some();
            let recorded = FAMILIES.into_iter().flat_map(|family| sight.recorded(family));
            let leased = recorded.filter(|(ip, from)| {
                let leased = from.starts_with(provenance::POOL) || (has_claims && from.starts_with(provenance::MERGE_LEASED));
                leased || !sight.lasts(None, *ip, from)
            });
            Verdict::without(leased.map(|(ip, _)| ip).chain(pools).collect(), true)
        }
        None => Verdict::without(pools.collect(), true),
    }
}

/// A Service whose source does not exist.
fn lost(facts: &Facts<'_>, sight: Sight<'_>, name: &str) -> Verdict {
    let cause = Some((ServiceReason::SourceNotFound, format!("the source {name} does not exist")));
    let end = facts.memory.source_missing.unwrap_or(sight.now) + facts.rules.source_grace;
    if sight.now >= end {
        return Verdict { cause, ..leave(sight, sight.record.map(|record| record.release)) };
    }
    let until = (sight.record.is_some() || sight.our_claims().next().is_some()).then_some(end);
    let gone = lapsed(sight);
    // A source that comes back in time shall have changed nothing.
    let silent = gone.is_empty() && sight.record.is_some_and(|record| record.source == name);
    Verdict { cause, claims: None, silent, until, ..Verdict::without(gone, false) }
}

/// A Service with a source.
fn serve(facts: &Facts<'_>, sight: Sight<'_>, known: &SourceFacts, source: &Source) -> Verdict {
    let filter = Filter::new(&source.address_policy, facts.rules);
    let Facts { pools, answers, cluster, .. } = *facts;
    let scope = Scope { sight, name: &known.name, source, filter: &filter, pools, answers, cluster };
    let mut verdict = Verdict::without(BTreeSet::new(), false);
    let mut addresses: BTreeMap<Family, Vec<(IpAddr, String)>> = BTreeMap::new();
    let (mut wanted, mut cause, mut is_pending) = (Vec::new(), None, false);
    for family in FAMILIES {
        let Some(list) = source.list(family) else { continue };
        if source.family_policy == FamilyPolicy::MatchService && !sight.service.families.contains(&family) {
            continue;
        }
        let choice = choose(&scope, family, list);
        wanted.extend(choice.pools.into_iter().map(|pool| (family, pool)));
        verdict.until = earlier(verdict.until, choice.until);
        let found = if choice.state == State::Found {
            choice.addresses
        } else if gives_up(source, choice.state) {
            Vec::new()
        } else {
            let recorded = sight.recorded(family).filter(|(ip, from)| sight.lasts(Some(source), *ip, from));
            recorded.map(|(ip, from)| (ip, from.to_owned())).collect()
        };
        if found.is_empty() {
            let pending = choice.state == State::Pending;
            is_pending |= pending;
            let why = choice.cause.unwrap_or_else(|| {
                if pending {
                    (ServiceReason::Resolving, format!("no {family} address has been found yet"))
                } else {
                    (ServiceReason::NoAddress, format!("no solver finds an {family} address"))
                }
            });
            verdict.remarks.push(format!("no {family} address: {}", why.1));
            cause = cause.or(Some(why));
        }
        addresses.insert(family, found);
    }
    let order = if sight.service.families.first() == Some(&Family::V6) { [Family::V6, Family::V4] } else { FAMILIES };
    let mut all: Vec<(IpAddr, String)> =
        order.into_iter().flat_map(|family| addresses.remove(&family).unwrap_or_default()).collect();
    all.retain(|(ip, _)| {
        let Some(elder) = facts.cluster.elder(sight.service, *ip) else { return true };
        verdict.waits_on.insert(elder.clone());
        match source.port_conflict {
            PortConflict::Warn => {
                verdict.conflict.get_or_insert_with(|| (*ip, elder.clone()));
                true
            }
            PortConflict::Refuse => {
                let why = format!("{ip} is refused, since the older Service {elder} has it with the same port");
                cause = cause.take().or(Some((ServiceReason::PortConflict, why.clone())));
                verdict.remarks.push(why);
                false
            }
        }
    });
    verdict.remarks.extend(requests(sight, &wanted));
    verdict.addresses = all.iter().map(|(ip, _)| *ip).collect();
    verdict.cause = cause.filter(|_| all.is_empty()).map(|(reason, text)| match reason {
        // Something may still come, so it is too early to say that there is none.
        ServiceReason::NoAddress if is_pending => (ServiceReason::Resolving, text),
        other => (other, text),
    });
    verdict.claims = Some(wanted);
    let record = Record {
        source: known.name.clone(),
        release: source.release,
        addresses: all.into_iter().collect(),
        external_ips: BTreeSet::new(),
        mirrored: sight.mirrored.clone(),
    };
    let outputs = outputs(source, sight.our_class);
    if outputs.contains(&Output::LoadBalancerStatus) && !sight.our_class {
        verdict.remarks.push("the output LoadBalancerStatus is for Services of our load balancer class only".to_owned());
    }
    verdict.wish = Wish::Exactly { addresses: verdict.addresses.clone(), record, outputs, mode: source.ip_mode };
    verdict
}

/// Where a Service's addresses are published.
fn outputs(source: &Source, our_class: bool) -> BTreeSet<Output> {
    let default = if our_class { Output::LoadBalancerStatus } else { Output::ExternalIps };
    source.outputs.clone().unwrap_or_else(|| BTreeSet::from([default]))
}

/// What is to be said of addresses that were asked for too late.
fn requests(sight: Sight<'_>, wanted: &[(Family, PoolRef)]) -> Vec<String> {
    let late = wanted.iter().filter(|(family, pool)| {
        let asked = crate::externalip::claims::requested(sight.service, *family).map(|ip| ip.to_string());
        sight.claim(*family, pool).is_some_and(|claim| claim.requested != asked)
    });
    late.map(|(family, _)| format!("the {family} address asked for counts only when a claim is made")).collect()
}

/// Puts the steps in their order, with what is said about them.
fn assemble(facts: &Facts<'_>, sight: Sight<'_>, source: Option<&Source>, verdict: Verdict, unreadable: bool, now: Now) -> Plan {
    let claimed = sight.our_claims().filter_map(|claim| claim.address);
    let recorded = sight.record.into_iter().flat_map(|record| record.external_ips.iter().copied());
    let listed: BTreeSet<IpAddr> = recorded.chain(claimed).collect();
    let Published { patch, target, status, failures, reached, until } =
        publish(sight, Ours { listed: &listed, unreadable }, &verdict.wish, facts.memory);
    let claims = upkeep::of_service(facts, sight, source, verdict.claims.as_deref(), &verdict.addresses);
    let leaves = matches!(verdict.wish, Wish::Without { forget: true, .. });
    let ready = ready(sight, &verdict, unreadable, failures, &reached);
    let (conditions, mut notes) = if verdict.silent {
        (None, Vec::new())
    } else {
        conditions::of_service(sight.service, ready.as_ref(), verdict.conflict.as_ref(), now.wall)
    };
    notes.splice(0..0, news(sight, &verdict, patch.is_some() || target.is_some() || status.is_some()));
    notes.extend(once(facts, sight, ready.is_some()));

    let mut steps = claims.first;
    // The record is what a release is known by, so it goes last; what is published anew is recorded first.
    let (before, after) = if leaves { (None, patch) } else { (patch, None) };
    steps.extend([before, target, status].into_iter().flatten());
    steps.extend(conditions.map(|conditions| Step::ApplyConditions { conditions }));
    steps.extend(after);
    steps.extend(claims.last);
    steps.extend(notes.into_iter().map(Step::Emit));
    let standing = ready.map(|ready| match (ready.is_true(), verdict.remarks.is_empty() && verdict.conflict.is_none()) {
        (true, true) => Standing::Ready,
        (true, false) => Standing::Degraded,
        (false, _) => Standing::Failing,
    });
    let until = earlier(verdict.until, until);
    let look_again = until.map(|until| until.saturating_duration_since(now.instant));
    Plan { steps, look_again, waits_on: verdict.waits_on, standing }
}

/// What the condition of a bound Service says.
fn ready(
    sight: Sight<'_>,
    verdict: &Verdict,
    unreadable: bool,
    failures: Vec<(Output, Cause)>,
    reached: &BTreeSet<Output>,
) -> Option<conditions::Ready> {
    source_name(sight.service)?;
    if let Some((reason, text)) = verdict.cause.clone().filter(|(reason, _)| *reason != ServiceReason::NoAddress || !unreadable) {
        return Some(conditions::Ready { reason, text });
    }
    if unreadable {
        let text = "the ownership record cannot be read, so that all addresses count as somebody else's".to_owned();
        return Some(conditions::Ready { reason: ServiceReason::RecordInvalid, text });
    }
    if let Some((_, (reason, text))) = failures.into_iter().min_by_key(|(output, _)| *output) {
        return Some(conditions::Ready { reason, text });
    }
    let mut text = verdict.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    for remark in &verdict.remarks {
        text.push_str("; ");
        text.push_str(remark);
    }
    let reason = match (reached.is_empty(), verdict.addresses.is_empty()) {
        (false, _) => ServiceReason::Assigned,
        (true, false) => ServiceReason::OutputUnavailable,
        (true, true) => ServiceReason::NoAddress,
    };
    Some(conditions::Ready { reason, text })
}

/// What changes for the Service, if something is written.
fn news(sight: Sight<'_>, verdict: &Verdict, writes: bool) -> Option<Note> {
    let before: BTreeSet<IpAddr> = sight.record.map(|record| record.addresses.keys().copied().collect()).unwrap_or_default();
    let list = |ips: &BTreeSet<IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = |ips: &BTreeSet<IpAddr>| if ips.is_empty() { "none".to_owned() } else { list(ips) };
    match &verdict.wish {
        Wish::Exactly { addresses, record, .. } => {
            let after: BTreeSet<IpAddr> = addresses.iter().copied().collect();
            let text = format!("{} -> {} from source {}", text(&before), text(&after), record.source);
            (writes && after != before).then_some(Note { reason: ExternalIpEvent::ExternalIPsUpdated, text })
        }
        Wish::Without { gone, .. } => {
            let gone = gone & &before;
            (writes && !gone.is_empty()).then(|| Note { reason: ExternalIpEvent::ExternalIPsReleased, text: text(&gone) })
        }
    }
}

/// What is told once for as long as this process remembers it.
fn once(facts: &Facts<'_>, sight: Sight<'_>, is_bound: bool) -> Vec<Note> {
    let service = sight.service;
    let mut notes = Vec::new();
    if is_bound {
        let odd = service.external_ips.iter().filter(|text| text.parse::<IpAddr>().is_err());
        let odd: Vec<&str> = odd.map(String::as_str).collect();
        if !odd.is_empty() {
            let text = format!("not an IP address, left as it is: {}", odd.join(", "));
            notes.push(Note { reason: ExternalIpEvent::InvalidExternalIP, text });
        }
    } else if service.source.is_some() {
        let text = "the annotation names no source".to_owned();
        notes.push(Note { reason: ExternalIpEvent::UnknownExternalIPSource, text });
    } else if sight.our_class {
        let text = "the Service has our load balancer class but no annotation that names a source".to_owned();
        notes.push(Note { reason: ExternalIpEvent::NoSource, text });
    }
    notes.retain(|note| facts.memory.told.get(&note.reason) != Some(&note.text));
    notes
}
