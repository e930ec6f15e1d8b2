//! From what a Service shall have to the writes that make it so, output by output (§7 of the specification).
//!
//! Only what carries a mark of ours is changed: in `spec.externalIPs` what the record lists (or a claim of ours holds), in the
//! annotations and the status what carries our field manager.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use api::externalip::reasons::ServiceReason;
use api::externalip::{IpMode, Output};
use poolutil::Family;

use super::choose::{Cause, earlier};
use super::leases::Sight;
use super::{RecordChange, Step};
use crate::externalip::facts::{Memory, TargetFacts, Trouble, TroubleKind};
use crate::externalip::record::Record;

/// What a Service shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Exactly what this record says, in these outputs.
    Exactly {
        /// The addresses, in order.
        addresses: Vec<IpAddr>,
        /// The record to keep of them, but for the entries of `spec.externalIPs`.
        record: Record,
        /// Where to publish.
        outputs: BTreeSet<Output>,
        /// The mode in the status.
        mode: IpMode,
    },
    /// What it has, without these addresses.
    Without {
        /// The addresses that go.
        gone: BTreeSet<IpAddr>,
        /// Whether what stays is nobody's business of ours any more.
        forget: bool,
    },
}

/// The writes, and how things are after them.
#[derive(Debug, Default, PartialEq)]
pub struct Published {
    /// The writes to the Service.
    pub patch: Option<Step>,
    /// The write to external-dns' annotations.
    pub target: Option<Step>,
    /// The write to the status.
    pub status: Option<Step>,
    /// What is wrong with an output.
    pub failures: Vec<(Output, Cause)>,
    /// Outputs in which there is an address of the wish after these writes.
    pub reached: BTreeSet<Output>,
    /// When something is tried again.
    pub until: Option<Instant>,
}

/// The ownership of the entries in `spec.externalIPs`.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    /// These are ours if they are listed.
    pub listed: &'a BTreeSet<IpAddr>,
    /// There is a record, but it cannot be read.
    pub unreadable: bool,
}

/// Turns a wish into writes.
pub fn publish(sight: Sight<'_>, ours: Ours<'_>, wish: &Wish, memory: &Memory) -> Published {
    let mut published = Published::default();
    published.target = target(sight, wish, memory, &mut published);
    published.status = status(sight, wish, memory, &mut published);
    published.patch = patch(sight, ours, wish, memory, &mut published);
    published
}

/// Whether the same write failed a moment ago.
fn is_blocked(step: &Step, output: Output, memory: &Memory, now: Instant, published: &mut Published) -> Option<TroubleKind> {
    // Who fights over the list may write another one each time.
    let fights = |kind| kind == TroubleKind::Contended && matches!(step, Step::PatchService { restores: true, .. });
    let applies = |trouble: &&Trouble| (trouble.step == *step || fights(trouble.kind)) && now < trouble.until;
    let trouble = memory.troubles.get(&output).filter(applies)?;
    let reason = match trouble.kind {
        TroubleKind::DeniedByAdmission => ServiceReason::DeniedByAdmission,
        TroubleKind::WriteRejected => ServiceReason::WriteRejected,
        TroubleKind::Contended => ServiceReason::Contended,
        TroubleKind::OutputUnavailable => ServiceReason::OutputUnavailable,
    };
    published.failures.push((output, (reason, trouble.text.clone())));
    published.until = earlier(published.until, Some(trouble.until));
    Some(trouble.kind)
}

fn patch(sight: Sight<'_>, ours: Ours<'_>, wish: &Wish, memory: &Memory, published: &mut Published) -> Option<Step> {
    let list = &sight.service.external_ips;
    let is_ours = |ip: &IpAddr| ours.listed.contains(ip);
    let listed: BTreeSet<IpAddr> = list.iter().filter_map(|text| text.parse().ok()).filter(is_ours).collect();
    let foreign: BTreeSet<IpAddr> = list.iter().filter_map(|text| text.parse().ok()).filter(|ip| !is_ours(ip)).collect();
    let new: Vec<IpAddr> = match wish {
        Wish::Exactly { addresses, outputs, .. } if outputs.contains(&Output::ExternalIps) => {
            addresses.iter().copied().filter(|ip| !foreign.contains(ip)).collect()
        }
        Wish::Exactly { .. } => Vec::new(),
        Wish::Without { gone, .. } => listed.difference(gone).copied().collect(),
    };
    let set: BTreeSet<IpAddr> = new.iter().copied().collect();
    let changed = (set != listed).then(|| rewritten(list, is_ours, &new, matches!(wish, Wish::Without { .. })));
    let restores =
        sight.record.is_some_and(|record| record.external_ips.iter().any(|ip| !listed.contains(ip) && set.contains(ip)));
    let record = |kept: &BTreeSet<IpAddr>| record(sight, ours, wish, kept, changed.is_some() || others(published));
    let step = |external_ips: Option<Vec<String>>, record: Option<RecordChange>| {
        (external_ips.is_some() || record.is_some()).then_some(Step::PatchService { external_ips, record, restores })
    };
    let step = |kept: &BTreeSet<IpAddr>, list: Option<Vec<String>>| step(list, record(kept));
    let (whole, alone) = (step(&set, changed.clone()), step(&listed, None));
    let blocked = whole.as_ref().and_then(|step| is_blocked(step, Output::ExternalIps, memory, sight.now, published));
    match blocked {
        None => {
            if let Wish::Exactly { addresses, outputs, .. } = wish
                && outputs.contains(&Output::ExternalIps)
                && !addresses.is_empty()
            {
                published.reached.insert(Output::ExternalIps);
            }
            whole
        }
        // What somebody keeps taking away is still ours when the fight is over.
        Some(TroubleKind::Contended) => None,
        Some(_) => alone.filter(|_| changed.is_some()),
    }
}

/// Whether an output besides `spec.externalIPs` is written.
fn others(published: &Published) -> bool {
    published.target.is_some() || published.status.is_some()
}

/// The new list: foreign entries verbatim and in their places, then ours; or the old one without those that go.
fn rewritten(list: &[String], is_ours: impl Fn(&IpAddr) -> bool, new: &[IpAddr], in_place: bool) -> Vec<String> {
    let parsed = |text: &String| text.parse::<IpAddr>().ok().filter(&is_ours);
    if in_place {
        return list.iter().filter(|text| parsed(text).is_none_or(|ip| new.contains(&ip))).cloned().collect();
    }
    let foreign = list.iter().filter(|text| parsed(text).is_none()).cloned();
    foreign.chain(new.iter().map(ToString::to_string)).collect()
}

/// What becomes of the record when these entries of ours are listed.
fn record(sight: Sight<'_>, ours: Ours<'_>, wish: &Wish, kept: &BTreeSet<IpAddr>, writes: bool) -> Option<RecordChange> {
    let is_there = sight.service.record.is_some();
    let new = match wish {
        Wish::Exactly { record, .. } => Some(Record { external_ips: kept.clone(), ..record.clone() }),
        Wish::Without { forget: true, .. } => None,
        Wish::Without { gone, forget: false } => {
            // One that cannot be read is replaced by the next assignment, and says nothing until then.
            let record = sight.record?;
            let mut addresses = record.addresses.clone();
            addresses.retain(|ip, _| !gone.contains(ip));
            let listed = |ip: &IpAddr| kept.contains(ip) || !gone.contains(ip);
            let external_ips = record.external_ips.iter().copied().filter(listed).collect();
            Some(Record { addresses, external_ips, mirrored: sight.mirrored.clone(), ..record.clone() })
        }
    };
    match new.filter(|record| !record.is_blank()) {
        Some(_) if ours.unreadable && !writes => None,
        Some(new) if is_there && sight.record == Some(&new) => None,
        Some(new) => Some(RecordChange::Set(new.print())),
        None if ours.unreadable && matches!(wish, Wish::Exactly { .. }) => None,
        None => is_there.then_some(RecordChange::Remove),
    }
}

fn target(sight: Sight<'_>, wish: &Wish, memory: &Memory, published: &mut Published) -> Option<Step> {
    let facts = &sight.service.targets;
    let mut annotations = BTreeMap::new();
    match wish {
        Wish::Exactly { addresses, outputs, .. } if outputs.contains(&Output::ExternalDnsTarget) && !addresses.is_empty() => {
            for fact in facts {
                match wanted(fact, addresses) {
                    Ok(value) => {
                        annotations.insert(fact.annotation.clone(), value);
                    }
                    Err(cause) => published.failures.push((Output::ExternalDnsTarget, cause)),
                }
            }
            if !annotations.is_empty() {
                published.reached.insert(Output::ExternalDnsTarget);
            }
        }
        Wish::Exactly { .. } => {}
        Wish::Without { gone, .. } => {
            for fact in facts.iter().filter(|fact| fact.ours) {
                let rest = fact.value.iter().flat_map(|value| value.split(','));
                let rest: Vec<&str> = rest.filter(|text| text.trim().parse().map_or(true, |ip| !gone.contains(&ip))).collect();
                if !rest.is_empty() {
                    annotations.insert(fact.annotation.clone(), rest.join(","));
                }
            }
        }
    }
    let current = facts.iter().filter(|fact| fact.ours);
    let current: BTreeMap<_, _> = current.filter_map(|fact| Some((fact.annotation.clone(), fact.value.clone()?))).collect();
    if annotations == current {
        return None;
    }
    let step = Step::ApplyTarget { annotations };
    if is_blocked(&step, Output::ExternalDnsTarget, memory, sight.now, published).is_some() {
        published.reached.remove(&Output::ExternalDnsTarget);
        return None;
    }
    Some(step)
}

/// The value of a target annotation; the one that is there if it names the same addresses. An error if it is somebody else's.
fn wanted(fact: &TargetFacts, addresses: &[IpAddr]) -> Result<String, Cause> {
    let text = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let Some(value) = &fact.value else { return Ok(text) };
    let named: Option<BTreeSet<IpAddr>> = value.split(',').map(|ip| ip.trim().parse().ok()).collect();
    if named.is_some_and(|named| named == addresses.iter().copied().collect()) {
        return Ok(value.clone());
    }
    match &fact.other {
        Some(manager) => {
            Err((ServiceReason::OutputUnavailable, format!("the annotation {} is managed by {manager}", fact.annotation)))
        }
        None => Ok(text),
    }
}

fn status(sight: Sight<'_>, wish: &Wish, memory: &Memory, published: &mut Published) -> Option<Step> {
    let service = sight.service;
    if !sight.our_class {
        return None;
    }
    let current: Vec<(Option<IpAddr>, Option<&str>)> =
        service.ingress.iter().map(|entry| (entry.ip, entry.mode.as_deref())).collect();
    let mode_of = |text: Option<&str>| text.and_then(IpMode::from_word).unwrap_or(IpMode::Vip);
    let new: Vec<(IpAddr, IpMode)> = match wish {
        Wish::Exactly { addresses, outputs, mode, .. } if outputs.contains(&Output::LoadBalancerStatus) => {
            let of = |family: &Family| addresses.iter().filter(|ip| Family::of(**ip) == *family).collect::<Vec<_>>();
            service.families.iter().flat_map(of).map(|ip| (*ip, *mode)).collect()
        }
        Wish::Without { gone, .. } if service.ingress_ours => {
            let kept = current.iter().filter_map(|(ip, mode)| Some(((*ip)?, mode_of(*mode))));
            kept.filter(|(ip, _)| !gone.contains(ip)).collect()
        }
        Wish::Exactly { .. } | Wish::Without { .. } => Vec::new(),
    };
    let ours = service.ingress_ours && !current.is_empty();
    let same = {
        let mut new: Vec<_> = new.iter().map(|(ip, mode)| (Some(*ip), Some(mode.as_str()))).collect();
        let mut current = current.clone();
        new.sort_unstable();
        current.sort_unstable();
        new == current
    };
    let step = match (new.is_empty(), same) {
        (_, true) => None,
        (true, false) => ours.then_some(Step::ApplyStatus { ingress: None }),
        (false, false) => Some(Step::ApplyStatus { ingress: Some(new.clone()) }),
    };
    if let Some(step) = &step
        && is_blocked(step, Output::LoadBalancerStatus, memory, sight.now, published).is_some()
    {
        return None;
    }
    if !new.is_empty() {
        published.reached.insert(Output::LoadBalancerStatus);
    }
    step
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::*;

    fn ip() -> impl Strategy<Value = IpAddr> {
        (0..6_u8).prop_map(|last| IpAddr::from([203, 0, 113, last]))
    }

    fn entry() -> impl Strategy<Value = String> {
        prop_oneof![
            ip().prop_map(|ip| ip.to_string()),
            ip().prop_map(|ip| ip.to_string().replace("203.0", "203.00")),
            "\\PC{0,8}"
        ]
    }

    proptest! {
        #[test]
        fn foreign_entries_of_any_text_stay_in_order_before_ours(
            list in vec(entry(), 0..8),
            ours in btree_set(ip(), 0..4),
            new in btree_set(ip(), 0..4),
        ) {
            let parsed = |text: &String| text.parse::<IpAddr>().ok().filter(|ip| ours.contains(ip));
            let foreign: Vec<&String> = list.iter().filter(|text| parsed(text).is_none()).collect();
            let new: Vec<IpAddr> = new.into_iter().filter(|ip| !foreign.iter().any(|text| text.parse() == Ok(*ip))).collect();
            let after = rewritten(&list, |ip| ours.contains(ip), &new, false);
            let expected: Vec<String> = foreign.into_iter().cloned().chain(new.iter().map(ToString::to_string)).collect();
            prop_assert_eq!(&after, &expected);
            let again = rewritten(&after, |ip| new.contains(ip), &new, false);
            prop_assert_eq!(again, after);
        }

        #[test]
        fn what_goes_leaves_the_rest_where_it_is(list in vec(entry(), 0..8), ours in btree_set(ip(), 0..4), gone in btree_set(ip(), 0..4)) {
            let kept: Vec<IpAddr> = ours.difference(&gone).copied().collect();
            let after = rewritten(&list, |ip| ours.contains(ip), &kept, true);
            let goes = |text: &String| text.parse::<IpAddr>().is_ok_and(|ip| ours.contains(&ip) && gone.contains(&ip));
            prop_assert_eq!(after, list.iter().filter(|text| !goes(text)).cloned().collect::<Vec<_>>());
        }
    }
}
