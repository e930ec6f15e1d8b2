//! What the solvers of one family come to for one Service: query modes, holding, pools, merges and loops (§4.4-4.7, 5 and 10).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::externalip::reasons::ServiceReason;
use api::externalip::{OnNoAddress, Part, PartSolver, PoolRef, QueryMode, Shared, Solver, SolverList, Source};
use api::reasons::ClaimReason;
use poolutil::{Family, merged};

use super::leases::Sight;
use crate::externalip::accept::{Accepted, Filter, Refusal};
use crate::externalip::answers::{Answers, Effective, Key, Reading, Recorded};
use crate::externalip::cluster::Cluster;
use crate::externalip::facts::{ClaimFacts, PoolFacts};
use crate::externalip::{claims, provenance};

/// How long a solver without an answer is waited for before the next one is asked.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that an answer for one Service depends on.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The Service as it stands.
    pub sight: Sight<'a>,
    /// The source's name.
    pub name: &'a str,
    /// The source.
    pub source: &'a Source,
    /// What it may publish.
    pub filter: &'a Filter,
    /// The pools that exist.
    pub pools: &'a [PoolFacts],
    /// What the shared solvers answered.
    pub answers: &'a Answers,
    /// What the cluster itself uses.
    pub cluster: &'a Cluster,
}

/// Why a Service has no address, in words for its condition.
pub type Cause = (ServiceReason, String);

/// What the solvers of a family come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The addresses with the solvers that gave them.
    pub addresses: Vec<(IpAddr, String)>,
    /// What it means if there are none.
    pub state: State,
    /// The pools that were asked.
    pub pools: Vec<PoolRef>,
    /// The first thing that is wrong.
    pub cause: Option<Cause>,
    /// When that changes by time alone.
    pub until: Option<Instant>,
}

/// What became of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There are addresses.
    Found,
    /// An answer is still to come.
    Pending,
    /// There is no address. `certain` when every solver said so twice, or has failed for longer than the source tolerates.
    Nothing {
        /// See above.
        certain: bool,
    },
}

/// What one solver says for one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The answer.
    pub answer: Answer,
    /// When it ends without a new one.
    pub until: Option<Instant>,
    /// What is wrong, if something is.
    pub cause: Option<Cause>,
}

/// An answer for one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses.
    Found {
        /// They are not empty.
        addresses: Vec<IpAddr>,
        /// They are not held from an earlier answer.
        fresh: bool,
    },
    /// Not yet.
    Pending {
        /// Since when.
        since: Instant,
    },
    /// None.
    Empty {
        /// That is certain.
        confirmed: bool,
    },
    /// Unknown.
    Failed {
        /// Since when.
        since: Instant,
    },
}

impl Answer {
    fn fresh(addresses: Vec<IpAddr>) -> Self {
        Self::Found { addresses, fresh: true }
    }
}

impl Said {
    /// An answer with nothing wrong.
    pub fn new(answer: Answer) -> Self {
        Self { answer, until: None, cause: None }
    }

    fn none(reason: ServiceReason, text: impl Into<String>) -> Self {
        Self { answer: Answer::Empty { confirmed: true }, until: None, cause: Some((reason, text.into())) }
    }

    fn failed(since: Instant, reason: ServiceReason, text: impl Into<String>) -> Self {
        Self { answer: Answer::Failed { since }, until: None, cause: Some((reason, text.into())) }
    }

    /// Whether solvers after this one need not be asked, and nothing is known to go wrong.
    pub fn settles(&self, now: Instant) -> bool {
        match self.answer {
            Answer::Found { fresh, .. } => fresh,
            Answer::Pending { since } => now < since + PATIENCE,
            Answer::Empty { .. } | Answer::Failed { .. } => false,
        }
    }
}

/// What the list of a family comes to.
pub fn choose(scope: &Scope<'_>, family: Family, list: &SolverList) -> Choice {
    let mut choice =
        Choice { addresses: Vec::new(), state: State::Nothing { certain: true }, pools: Vec::new(), cause: None, until: None };
    let (mut pending, mut young, mut certain) = (false, false, true);
    for solver in &list.solvers {
        let said = say(scope, family, solver);
        pools_of(solver, |pool| {
            if is_asked(scope, family) && !choice.pools.contains(pool) {
                choice.pools.push(pool.clone());
            }
        });
        choice.cause = choice.cause.or(said.cause);
        choice.until = earlier(choice.until, said.until);
        match said.answer {
            Answer::Found { addresses, .. } => {
                let from = provenance::of(solver);
                for ip in addresses {
                    if !choice.addresses.iter().any(|(known, _)| *known == ip) {
                        choice.addresses.push((ip, from.clone()));
                    }
                }
                if list.mode == QueryMode::FirstFound {
                    break;
                }
            }
            Answer::Pending { since } => {
                pending = true;
                if scope.sight.now < since + PATIENCE {
                    young = true;
                    choice.until = earlier(choice.until, Some(since + PATIENCE));
                    if list.mode == QueryMode::FirstFound {
                        break;
                    }
                }
            }
            Answer::Empty { confirmed } => certain &= confirmed,
            Answer::Failed { since } => {
                let end = since + scope.source.max_staleness;
                if scope.sight.now <= end {
                    certain = false;
                    choice.until = earlier(choice.until, Some(end));
                }
            }
        }
    }
    // Of several that are asked together, a partial answer replaces nothing while another is only a moment away.
    if young && scope.sight.recorded(family).next().is_some() {
        choice.addresses.clear();
    }
    choice.state = match (choice.addresses.is_empty(), pending) {
        (false, _) => State::Found,
        (true, true) => State::Pending,
        (true, false) => State::Nothing { certain },
    };
    ascribe(scope, family, list, &mut choice.addresses);
    choice
}

/// Addresses that a load balancer gives as well are its own: they go when it takes them back.
fn ascribe(scope: &Scope<'_>, family: Family, list: &SolverList, addresses: &mut [(IpAddr, String)]) {
    if list.solvers.contains(&Solver::LoadBalancerIngress) {
        let listed = scope.sight.genuine(family);
        for (ip, from) in addresses {
            if listed.contains(ip) {
                provenance::INGRESS.clone_into(from);
            }
        }
    }
}

/// Whether everything of ours in the family is to go, since nothing is found.
pub fn gives_up(source: &Source, state: State) -> bool {
    source.on_no_address == OnNoAddress::Remove && state == State::Nothing { certain: true }
}

/// What the solver says for the Service.
pub fn say(scope: &Scope<'_>, family: Family, solver: &Solver) -> Said {
    match solver {
        Solver::Shared(shared) => say_shared(scope, family, shared),
        Solver::LoadBalancerIngress => accept(scope, true, say_ingress(scope, family)),
        Solver::IpPool(pool) => accept(scope, true, say_pool(scope, family, pool)),
        Solver::Merge(parts) => say_merge(scope, family, parts),
    }
}

fn say_shared(scope: &Scope<'_>, family: Family, shared: &Shared) -> Said {
    let recorded = scope.sight.recorded_from(family, &provenance::of(&Solver::Shared(shared.clone())));
    let recorded = Recorded { addresses: &recorded, began: scope.sight.began };
    let key = Key { family, solver: shared.clone() };
    translate(scope.answers.read_with(scope.name, &key, scope.cluster, Some(recorded), scope.sight.now))
}

fn translate(reading: Reading) -> Said {
    let Reading { effective, until, refused, .. } = reading;
    let said = match effective {
        Effective::Fresh(addresses) => Said::new(Answer::fresh(addresses)),
        Effective::Held(addresses, _) => Said::new(Answer::Found { addresses, fresh: false }),
        Effective::Pending { since } => Said::new(Answer::Pending { since }),
        Effective::Empty { confirmed, .. } => Said::new(Answer::Empty { confirmed }),
        Effective::Failed { since, .. } if !refused.is_empty() => {
            Said::failed(since, ServiceReason::AddressRefused, refusals(&refused))
        }
        Effective::Failed { since, .. } => Said::new(Answer::Failed { since }),
    };
    Said { until, ..said }
}

/// The refused addresses in words.
pub fn refusals(refused: &[(IpAddr, Refusal)]) -> String {
    let each = refused.iter().take(8).map(|(ip, refusal)| format!("{ip} is refused ({})", refusal.as_str()));
    each.collect::<Vec<_>>().join(", ")
}

/// Takes what may not be published out of an answer.
fn accept(scope: &Scope<'_>, private: bool, said: Said) -> Said {
    let Answer::Found { addresses, fresh } = &said.answer else { return said };
    let Accepted { addresses, refused } = scope.filter.sort(addresses, private, scope.cluster);
    if addresses.is_empty() {
        return Said::failed(scope.sight.began, ServiceReason::AddressRefused, refusals(&refused));
    }
    Said { answer: Answer::Found { addresses, fresh: *fresh }, ..said }
}

fn say_ingress(scope: &Scope<'_>, family: Family) -> Said {
    if scope.sight.our_class {
        return Said::none(ServiceReason::NoAddress, "the load balancer status of this Service is written by us");
    }
    let (ips, until) = scope.sight.ingress(family);
    if ips.is_empty() {
        return Said::none(ServiceReason::NoAddress, format!("the load balancer status has no {family} address"));
    }
    // What lingers is about to go, so the next solver is asked in time.
    Said { until, ..Said::new(Answer::Found { addresses: ips, fresh: until.is_none() }) }
}

/// Whether pools are asked for addresses of the family.
fn is_asked(scope: &Scope<'_>, family: Family) -> bool {
    scope.sight.service.kind != "ExternalName" && scope.sight.service.families.contains(&family)
}

fn say_pool(scope: &Scope<'_>, family: Family, pool: &PoolRef) -> Said {
    let title = format!("{}/{}", pool.kind.kind(), pool.name);
    if !is_asked(scope, family) {
        return Said::none(ServiceReason::NoAddress, format!("the Service has no {family}, so that {title} is not asked"));
    }
    let Some(claim) = scope.sight.claim(family, pool) else {
        return match pool_facts(scope, pool) {
            None => Said::none(ServiceReason::PoolNotFound, format!("{title} does not exist")),
            Some(known) if known.family.is_some_and(|other| other != family) => {
                Said::failed(scope.sight.began, ServiceReason::NoAddress, format!("{title} has no {family} addresses"))
            }
            Some(_) => Said::new(Answer::Pending { since: scope.sight.now }),
        };
    };
    if !claims::is_ours(claim, &scope.sight.service.key) {
        return Said::failed(
            scope.sight.began,
            ServiceReason::ClaimConflict,
            format!("the claim {} is somebody else's", claim.name),
        );
    }
    if claim.deleting {
        return Said::none(ServiceReason::ClaimTerminating, format!("the claim {} is going", claim.name));
    }
    match claim.address {
        Some(ip) if Family::of(ip) == family => Said::new(Answer::fresh(vec![ip])),
        Some(_) => Said::failed(scope.sight.began, ServiceReason::NoAddress, format!("{title} has no {family} addresses")),
        None if scope.sight.now < claim.seen + PATIENCE => Said::new(Answer::Pending { since: claim.seen }),
        None => unbound(claim, &title, pool_facts(scope, pool).is_some()),
    }
}

/// The pool, if it exists.
fn pool_facts<'a>(scope: &Scope<'a>, pool: &PoolRef) -> Option<&'a PoolFacts> {
    scope.pools.iter().find(|known| known.pool == *pool)
}

/// A claim that waits for long: the next solver may be asked, and the claim stays in the queue of its pool.
fn unbound(claim: &ClaimFacts, title: &str, exists: bool) -> Said {
    let reason = claim.waiting.as_ref().map(|(reason, _)| reason.as_str());
    let is = |other: ClaimReason| reason == Some(other.as_str());
    if !exists {
        Said::none(ServiceReason::PoolNotFound, format!("{title} does not exist"))
    } else if is(ClaimReason::PoolNotReady) {
        Said::none(ServiceReason::PoolNotFound, format!("{title} gives out nothing"))
    } else if is(ClaimReason::AllocationFailed) {
        Said::none(ServiceReason::NoAddress, format!("{title} refuses the claim {}", claim.name))
    } else {
        Said::none(ServiceReason::PoolExhausted, format!("{title} has no free address"))
    }
}

fn say_merge(scope: &Scope<'_>, family: Family, parts: &[Part]) -> Said {
    let from = provenance::of(&Solver::Merge(parts.to_vec()));
    let said = put_together(family, parts, |part| say_part(scope, family, part));
    let private =
        parts.iter().all(|part| !matches!(&part.solver, PartSolver::Shared(shared) if !matches!(shared, Shared::Static(_))));
    let said = accept(scope, private, said);
    // What was put together before is known from the record alone.
    let before = scope.sight.recorded_from(family, &from);
    let end = scope.sight.began + scope.source.max_staleness;
    let is_held = match said.answer {
        Answer::Pending { .. } => true,
        Answer::Failed { .. } => scope.sight.now <= end,
        Answer::Found { .. } | Answer::Empty { .. } => false,
    };
    if !before.is_empty() && is_held && parts.iter().all(|part| scope.sight.part_lasts(family, &part.solver)) {
        let until = matches!(said.answer, Answer::Failed { .. }).then_some(end);
        return Said { answer: Answer::Found { addresses: before, fresh: false }, until, cause: said.cause };
    }
    said
}

/// What a part says, before anything is refused.
fn say_part(scope: &Scope<'_>, family: Family, part: &PartSolver) -> Said {
    match part {
        PartSolver::Shared(shared) => {
            say_raw(scope.answers, scope.name, &Key { family, solver: shared.clone() }, scope.sight.now)
        }
        PartSolver::LoadBalancerIngress => say_ingress(scope, family),
        PartSolver::IpPool(pool) => say_pool(scope, family, pool),
    }
}

/// What a shared part says.
pub fn say_raw(answers: &Answers, source: &str, key: &Key, now: Instant) -> Said {
    translate(answers.raw(source, key, now))
}

/// The last address of each part under its mask; the part that is worst off decides if that cannot be.
pub fn put_together(family: Family, parts: &[Part], say: impl Fn(&PartSolver) -> Said) -> Said {
    let (mut bits, mut all_fresh, mut until) = (Vec::new(), true, None);
    let (mut pending, mut empty, mut failed): (Option<Said>, Option<Said>, Option<Said>) = (None, None, None);
    for part in parts {
        let said = say(&part.solver);
        until = earlier(until, said.until);
        let cause = || (ServiceReason::NoAddress, format!("the part {} fails", provenance::title_of_part(&part.solver)));
        match &said.answer {
            Answer::Found { addresses, fresh } => {
                all_fresh &= fresh;
                bits.extend(addresses.last().map(|ip| (part.mask, *ip)));
            }
            Answer::Pending { .. } => pending = pending.or(Some(said)),
            Answer::Empty { .. } => empty = empty.or(Some(said)),
            Answer::Failed { .. } => {
                failed = failed.or_else(|| Some(Said { cause: said.cause.clone().or_else(|| Some(cause())), ..said }));
            }
        }
    }
    let answer = Answer::Found { addresses: vec![merged(family, bits)], fresh: all_fresh };
    Said { until, ..failed.or(empty).or(pending).unwrap_or(Said::new(answer)) }
}

/// Calls `each` for every pool that the solver asks.
pub fn pools_of<'a>(solver: &'a Solver, mut each: impl FnMut(&'a PoolRef)) {
    match solver {
        Solver::IpPool(pool) => each(pool),
        Solver::Merge(parts) => {
            for part in parts {
                if let PartSolver::IpPool(pool) = &part.solver {
                    each(pool);
                }
            }
        }
        Solver::Shared(_) | Solver::LoadBalancerIngress => {}
    }
}

/// Whether the solver's answer depends on the Service.
pub fn is_per_service(solver: &Solver) -> bool {
    match solver {
        Solver::Shared(_) => false,
        Solver::LoadBalancerIngress | Solver::IpPool(_) => true,
        Solver::Merge(parts) => !provenance::is_shared(parts),
    }
}

/// The earlier of two moments.
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}
