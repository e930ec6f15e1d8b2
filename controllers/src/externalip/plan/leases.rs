//! Addresses that somebody else may get: those in the load balancer status, from a pool, or put together with such a part.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::externalip::{Part, PartSolver, PoolRef, Solver, Source};
use poolutil::Family;

use crate::externalip::facts::{ClaimFacts, ServiceFacts};
use crate::externalip::record::Record;
use crate::externalip::{claims, provenance};

/// How long the last addresses of a load balancer status that became empty count.
const LINGER: Duration = Duration::from_secs(30);

/// A Service as it stands, without its source.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The Service.
    pub service: &'a ServiceFacts,
    /// Whether its load balancer class is ours.
    pub our_class: bool,
    /// Its claims.
    pub claims: &'a [ClaimFacts],
    /// What we published before, if that can be read.
    pub record: Option<&'a Record>,
    /// Addresses in the load balancer status that were copied there from us.
    pub mirrored: &'a BTreeSet<IpAddr>,
    /// When this process began to lead.
    pub began: Instant,
    /// The moment.
    pub now: Instant,
}

impl<'a> Sight<'a> {
    /// Our claims of the Service, also those that go.
    pub fn our_claims(self) -> impl Iterator<Item = &'a ClaimFacts> {
        self.claims.iter().filter(move |claim| claims::is_ours(claim, &self.service.key))
    }

    /// Our recorded addresses of a family with where they came from.
    pub fn recorded(self, family: Family) -> impl Iterator<Item = (IpAddr, &'a str)> {
        let addresses = self.record.into_iter().flat_map(|record| &record.addresses);
        addresses.filter(move |(ip, _)| Family::of(**ip) == family).map(|(ip, from)| (*ip, from.as_str()))
    }

    /// Those of them that came from there.
    pub fn recorded_from(self, family: Family, from: &str) -> Vec<IpAddr> {
        self.recorded(family).filter(|(_, other)| *other == from).map(|(ip, _)| ip).collect()
    }

    /// Addresses of the family in the load balancer status that were not copied from us, in order.
    pub fn genuine(self, family: Family) -> Vec<IpAddr> {
        let mut ips = Vec::new();
        for ip in self.service.ingress.iter().filter_map(|entry| entry.ip) {
            if !self.our_class && Family::of(ip) == family && !self.mirrored.contains(&ip) && !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        ips
    }

    /// The same, or for a while what was there before the status became empty; then until when.
    pub fn ingress(self, family: Family) -> (Vec<IpAddr>, Option<Instant>) {
        if !self.service.ingress.is_empty() || self.our_class {
            return (self.genuine(family), None);
        }
        let (last, since) = match &self.service.lingering {
            Some(lingering) => (lingering.ips.clone(), lingering.since),
            None => (self.recorded_from(family, provenance::INGRESS), self.began),
        };
        let copied = |ip: &IpAddr| self.record.is_some_and(|record| record.mirrored.contains(ip));
        let last: Vec<IpAddr> = last.into_iter().filter(|ip| Family::of(*ip) == family && !copied(ip)).collect();
        if last.is_empty() || self.now >= since + LINGER { (Vec::new(), None) } else { (last, Some(since + LINGER)) }
    }

    /// The claim of ours for the family and pool.
    pub fn claim(self, family: Family, pool: &PoolRef) -> Option<&'a ClaimFacts> {
        let name = claims::name(&self.service.key.name, family, pool);
        self.claims.iter().find(|claim| claim.name == name)
    }

    /// Whether a recorded address may stay although no solver gives it now: nobody else can have it. `source` is the source whose
    /// merges are known.
    pub fn lasts(self, source: Option<&Source>, ip: IpAddr, from: &str) -> bool {
        let family = Family::of(ip);
        if from == provenance::INGRESS {
            self.ingress(family).0.contains(&ip)
        } else if from.starts_with(provenance::POOL) {
            self.our_claims().any(|claim| !claim.deleting && claim.address == Some(ip))
        } else if from.starts_with(provenance::MERGE_LEASED) {
            match merge(source, family, from) {
                Some(parts) => parts.iter().all(|part| self.part_lasts(family, &part.solver)),
                None => self.any_lease_lasts(family),
            }
        } else {
            true
        }
    }

    /// Whether a part of a merge is still this Service's.
    pub fn part_lasts(self, family: Family, part: &PartSolver) -> bool {
        match part {
            PartSolver::Shared(_) => true,
            PartSolver::LoadBalancerIngress => !self.ingress(family).0.is_empty(),
            PartSolver::IpPool(pool) => self.claim(family, pool).is_some_and(|claim| !claim.deleting && claim.address.is_some()),
        }
    }

    /// For an address of whose parts nothing is known any more: it may stay while no claim goes and something could be its part.
    fn any_lease_lasts(self, family: Family) -> bool {
        let mut of_family = self.our_claims().filter(|claim| claims::family_of(&claim.name) == Some(family)).peekable();
        if of_family.peek().is_none() {
            return !self.ingress(family).0.is_empty();
        }
        of_family.all(|claim| !claim.deleting)
    }

    /// Whether a claim's address, or one put together with it, is in an output of ours. Then the claim has to stay.
    pub fn is_published(self, source: Option<&Source>, claim: &ClaimFacts) -> bool {
        let Some(ip) = claim.address else { return false };
        let listed = self.service.external_ips.iter().any(|text| text.parse() == Ok(ip));
        let targeted = self.service.targets.iter().any(|target| {
            target.ours && target.value.iter().flat_map(|value| value.split(',')).any(|text| text.trim().parse() == Ok(ip))
        });
        let in_status = self.service.ingress_ours && self.service.ingress.iter().any(|entry| entry.ip == Some(ip));
        listed || targeted || in_status || self.is_part(source, Family::of(ip), &claim.pool)
    }

    fn is_part(self, source: Option<&Source>, family: Family, pool: &PoolRef) -> bool {
        self.recorded(family).filter(|(_, from)| from.starts_with(provenance::MERGE_LEASED)).any(|(_, from)| {
            let parts = merge(source, family, from);
            parts.is_none_or(|parts| parts.iter().any(|part| part.solver == PartSolver::IpPool(pool.clone())))
        })
    }
}

/// The merge that is recorded so, if the source still has it.
fn merge<'s>(source: Option<&'s Source>, family: Family, from: &str) -> Option<&'s [Part]> {
    source?.list(family)?.solvers.iter().find_map(|solver| match solver {
        Solver::Merge(parts) if provenance::of(solver) == from => Some(parts.as_slice()),
        _ => None,
    })
}

/// Addresses in the load balancer status that a load balancer copied from us: those that were ours before they appeared there. They
/// stay marked until they leave the status, also when they are not ours any more.
pub fn mirrored(source: Option<&Source>, service: &ServiceFacts, record: Option<&Record>) -> BTreeSet<IpAddr> {
    let Some(record) = record else { return BTreeSet::new() };
    let lists = source.into_iter().flat_map(|source| [&source.ipv4, &source.ipv6]).flatten();
    let matters = lists.flat_map(|list| &list.solvers).any(reads_ingress);
    let is_copy = |ip: &IpAddr| {
        record.addresses.get(ip).is_some_and(|from| {
            from != provenance::INGRESS && from != provenance::ADOPTED && !from.starts_with(provenance::MERGE_LEASED)
        })
    };
    let listed = service.ingress.iter().filter_map(|entry| entry.ip);
    listed.filter(|ip| record.mirrored.contains(ip) || (matters && is_copy(ip))).collect()
}

/// Whether the solver reads the load balancer status.
fn reads_ingress(solver: &Solver) -> bool {
    match solver {
        Solver::LoadBalancerIngress => true,
        Solver::Merge(parts) => parts.iter().any(|part| part.solver == PartSolver::LoadBalancerIngress),
        Solver::Shared(_) | Solver::IpPool(_) => false,
    }
}
