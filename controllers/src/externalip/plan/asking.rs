//! What is asked for a source, and what solvers say that say the same to every Service (§5 and 11 of the specification).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use api::externalip::reasons::SolverState;
use api::externalip::{Part, PartSolver, QueryMode, Shared, Solver, Source};
use poolutil::Family;

use super::choose::{Answer, PATIENCE, Said, Scope, earlier, is_per_service, put_together, say, say_raw};
use super::leases::{Sight, mirrored};
use super::service::FAMILIES;
use crate::externalip::accept::{Filter, Refusal};
use crate::externalip::answers::{Effective, FailureKind, Key, Reading, Terms, Why};
use crate::externalip::facts::{Bound, Now, Pass, Rules};
use crate::externalip::record::Record;

/// The reason in the status of a solver that has not answered yet.
pub const RESOLVING: &str = "Resolving";

/// On which terms the source uses its shared solvers.
pub fn terms(source: &Source, rules: &Rules) -> Terms {
    Terms {
        filter: Filter::new(&source.address_policy, rules),
        max_staleness: source.max_staleness,
        refresh_interval: source.refresh_interval,
    }
}

/// The shared solvers that are to be asked for the source: of those of which the first decides, only as many as some Service needs.
pub fn asked(pass: &Pass<'_>, now: Now) -> BTreeSet<Key> {
    needed(pass, now).0
}

/// What is to be asked, and until when that is so without an occasion: then a Service has waited long enough for a solver of its own.
pub fn needed(pass: &Pass<'_>, now: Now) -> (BTreeSet<Key>, Option<Instant>) {
    let (mut keys, mut until) = (BTreeSet::new(), None);
    let Ok(source) = &pass.source.spec else { return (keys, until) };
    let filter = Filter::new(&source.address_policy, pass.rules);
    let allowed: Vec<&Bound<'_>> = pass.bound.iter().filter(|bound| is_allowed(source, bound)).collect();
    for family in FAMILIES {
        let Some(list) = source.list(family) else { continue };
        let mut needy = allowed.clone();
        for solver in &list.solvers {
            keys.extend(keys_of(family, solver));
            if list.mode == QueryMode::All {
                continue;
            }
            if !is_per_service(solver) {
                if shared(pass, &filter, family, solver, now.instant).said.settles(now.instant) {
                    break;
                }
            } else if !allowed.is_empty() {
                needy.retain(|bound| {
                    let said = say_for(pass, source, &filter, bound, family, solver, now.instant);
                    let settles = said.settles(now.instant);
                    if let Answer::Pending { since } = said.answer
                        && settles
                    {
                        until = earlier(until, Some(since + PATIENCE));
                    }
                    !settles
                });
                if needy.is_empty() {
                    break;
                }
            }
        }
    }
    (keys, until)
}

/// Whether the source allows the Service.
pub fn is_allowed(source: &Source, bound: &Bound<'_>) -> bool {
    source.allowed_services.matches(&bound.service.labels, bound.namespace_labels)
}

/// What a solver that depends on the Service says for it.
fn say_for(
    pass: &Pass<'_>,
    source: &Source,
    filter: &Filter,
    bound: &Bound<'_>,
    family: Family,
    solver: &Solver,
    now: Instant,
) -> Said {
    let record = bound.service.record.as_deref().and_then(|text| Record::parse(text).ok());
    let mirrored = mirrored(Some(source), bound.service, record.as_ref());
    let sight = Sight {
        service: bound.service,
        our_class: pass.rules.is_our_class(bound.service),
        claims: bound.claims,
        record: record.as_ref(),
        mirrored: &mirrored,
        began: pass.memory.began.unwrap_or(now),
        now,
    };
    let Pass { answers, cluster, .. } = *pass;
    say(&Scope { sight, name: &pass.source.name, source, filter, pools: bound.pools, answers, cluster }, family, solver)
}

/// The keys whose answers the solver needs.
pub fn keys_of(family: Family, solver: &Solver) -> Vec<Key> {
    let key = |shared: &Shared| Key { family, solver: shared.clone() };
    match solver {
        Solver::Shared(shared) => vec![key(shared)],
        Solver::LoadBalancerIngress | Solver::IpPool(_) => Vec::new(),
        Solver::Merge(parts) => parts.iter().filter_map(shared_part).map(key).collect(),
    }
}

fn shared_part(part: &Part) -> Option<&Shared> {
    match &part.solver {
        PartSolver::Shared(shared) => Some(shared),
        PartSolver::LoadBalancerIngress | PartSolver::IpPool(_) => None,
    }
}

/// What a solver says that is the same for every Service.
pub struct SaidToAll {
    pub said: Said,
    pub state: SolverState,
    pub addresses: Vec<IpAddr>,
    pub failure: Option<(FailureKind, String)>,
    pub refused: Vec<(IpAddr, Refusal)>,
    pub remark: Option<(&'static str, String)>,
}

/// What the solver says if it says the same to every Service.
pub fn shared(pass: &Pass<'_>, filter: &Filter, family: Family, solver: &Solver, now: Instant) -> SaidToAll {
    let name = &pass.source.name;
    match solver {
        Solver::Shared(shared) => of_reading(pass.answers.read(name, &Key { family, solver: shared.clone() }, pass.cluster, now)),
        Solver::Merge(parts) => merged(pass, filter, family, parts, now),
        Solver::LoadBalancerIngress | Solver::IpPool(_) => {
            nothing(Said::new(Answer::Pending { since: now }), SolverState::PerService)
        }
    }
}

/// Words without addresses.
pub fn nothing(said: Said, state: SolverState) -> SaidToAll {
    SaidToAll { said, state, addresses: Vec::new(), failure: None, refused: Vec::new(), remark: None }
}

fn of_reading(reading: Reading) -> SaidToAll {
    let Reading { effective, until, refused, truncated } = reading;
    let remark = truncated.then(|| ("Truncated", "the answer has more addresses than are used".to_owned()));
    let mut all = match effective {
        Effective::Fresh(addresses) => {
            let said = Said::new(Answer::Found { addresses: addresses.clone(), fresh: true });
            SaidToAll { addresses, remark, ..nothing(said, SolverState::Fresh) }
        }
        Effective::Held(addresses, why) => {
            let said = Said::new(Answer::Found { addresses: addresses.clone(), fresh: false });
            let (failure, remark) = match why {
                Why::Failing(failure) => (Some((failure.kind, failure.text)), None),
                Why::Doubtful => (None, Some(("Empty", "the solver found nothing once; the answer before is held".to_owned()))),
                Why::Unasked => (None, None),
            };
            SaidToAll { addresses, failure, remark, ..nothing(said, SolverState::Held) }
        }
        Effective::Pending { since } => {
            let remark = Some((RESOLVING, "there is no answer yet".to_owned()));
            SaidToAll { remark, ..nothing(Said::new(Answer::Pending { since }), SolverState::Idle) }
        }
        Effective::Empty { reason, confirmed } => {
            let remark = Some(("Empty", reason));
            SaidToAll { remark, ..nothing(Said::new(Answer::Empty { confirmed }), SolverState::Empty) }
        }
        Effective::Failed { failure, since } => {
            let failure = Some((failure.kind, failure.text));
            SaidToAll { failure, ..nothing(Said::new(Answer::Failed { since }), SolverState::Failed) }
        }
    };
    all.said.until = until;
    all.refused = refused;
    all
}

fn merged(pass: &Pass<'_>, filter: &Filter, family: Family, parts: &[Part], now: Instant) -> SaidToAll {
    let said = put_together(family, parts, |part| match part {
        PartSolver::Shared(shared) => say_raw(pass.answers, &pass.source.name, &Key { family, solver: shared.clone() }, now),
        PartSolver::LoadBalancerIngress | PartSolver::IpPool(_) => Said::new(Answer::Pending { since: now }),
    });
    let text = said.cause.clone().map_or_else(|| "a part fails".to_owned(), |(_, text)| text);
    let part_failed = Some((FailureKind::PartFailed, text));
    match said.answer.clone() {
        Answer::Found { addresses, fresh } => {
            let private = parts.iter().filter_map(shared_part).all(|shared| matches!(shared, Shared::Static(_)));
            let sorted = filter.sort(&addresses, private, pass.cluster);
            if sorted.addresses.is_empty() {
                let failure = Some((FailureKind::AddressRefused, "the merged address may not be published".to_owned()));
                let said = Said { answer: Answer::Failed { since: now }, ..said };
                return SaidToAll { failure, refused: sorted.refused, ..nothing(said, SolverState::Failed) };
            }
            let state = if fresh { SolverState::Fresh } else { SolverState::Held };
            let failure = if fresh { None } else { part_failed };
            SaidToAll { addresses: sorted.addresses, failure, ..nothing(said, state) }
        }
        Answer::Pending { .. } => {
            SaidToAll { remark: Some((RESOLVING, "there is no answer yet".to_owned())), ..nothing(said, SolverState::Idle) }
        }
        Answer::Empty { .. } => {
            SaidToAll { remark: Some(("Empty", "a part has no address".to_owned())), ..nothing(said, SolverState::Empty) }
        }
        Answer::Failed { .. } => SaidToAll { failure: part_failed, ..nothing(said, SolverState::Failed) },
    }
}
