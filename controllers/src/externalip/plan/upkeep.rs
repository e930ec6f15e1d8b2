//! What becomes of a Service's claims: made before they are needed, given back when nothing shows their address any more (§9).

use std::net::IpAddr;
use std::time::Instant;

use api::externalip::names::PUBLISHED;
use api::externalip::{PoolRef, Source};
use poolutil::Family;

use super::choose::earlier;
use super::leases::Sight;
use super::{Plan, Step};
use crate::externalip::claims;
use crate::externalip::facts::{ClaimFacts, Facts};

/// The steps about claims.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Before anything is published.
    pub first: Vec<Step>,
    /// After that.
    pub last: Vec<Step>,
}

/// The steps for the claims of a Service that exists. `wanted` is `None` where those it has are to stay. `keeps` are the addresses
/// that the same plan publishes.
pub fn of_service(
    facts: &Facts<'_>,
    sight: Sight<'_>,
    source: Option<&Source>,
    wanted: Option<&[(Family, PoolRef)]>,
    keeps: &[IpAddr],
) -> Upkeep {
    let mut upkeep = Upkeep::default();
    let service = sight.service;
    for (family, pool) in wanted.unwrap_or_default() {
        let exists = facts.pools.iter().any(|known| known.pool == *pool && known.family.is_none_or(|known| known == *family));
        if exists && sight.claim(*family, pool).is_none() {
            let (name, object) = claims::draft(service, *family, pool, facts.rules);
            upkeep.first.push(Step::CreateClaim { name, object });
        }
    }
    for claim in sight.our_claims() {
        let is_wanted = wanted.is_none_or(|wanted| {
            wanted.iter().any(|(family, pool)| claims::name(&service.key.name, *family, pool) == claim.name)
        });
        let is_shown = || sight.is_published(source, claim) || claim.address.is_some_and(|ip| keeps.contains(&ip));
        if claim.deleting {
            if !is_shown() {
                upkeep.last.extend(free(claim));
            }
        } else if is_wanted || is_shown() {
            if claim.owner.as_ref().is_none_or(|owner| owner.uid != service.uid) {
                upkeep.first.push(Step::AdoptClaim {
                    name: claim.name.clone(),
                    uid: claim.uid.clone(),
                    revision: claim.revision.clone(),
                    owner: serde_json::json!([claims::owner(service)]),
                });
            }
        } else {
            upkeep.last.push(Step::DeleteClaim { name: claim.name.clone(), uid: claim.uid.clone() });
        }
    }
    upkeep
}

/// The plan for the claims of a Service that does not exist.
pub fn without_service(facts: &Facts<'_>, now: Instant) -> Plan {
    let mut plan = Plan::default();
    let end = facts.memory.service_missing.unwrap_or(now) + facts.rules.source_grace;
    let mut until = None;
    for claim in facts.claims.iter().filter(|claim| claims::is_ours(claim, facts.key)) {
        if claim.deleting {
            plan.steps.extend(free(claim));
        } else if claim.owner.is_some() {
            // The garbage collector's.
        } else if now >= end {
            plan.steps.push(Step::DeleteClaim { name: claim.name.clone(), uid: claim.uid.clone() });
        } else {
            until = earlier(until, Some(end));
        }
    }
    plan.look_again = until.map(|until| until.saturating_duration_since(now));
    plan
}

fn free(claim: &ClaimFacts) -> Option<Step> {
    let ours = claim.finalizers.iter().any(|finalizer| finalizer == PUBLISHED);
    ours.then(|| Step::FreeClaim { name: claim.name.clone(), uid: claim.uid.clone(), finalizers: claim.finalizers.clone() })
}
