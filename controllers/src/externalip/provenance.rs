//! Which solver gave an address, in a word that is kept in the ownership record, and what a source's status calls a solver.

use api::externalip::{Api, Part, PartSolver, PoolRef, Shared, Solver};
use ring::digest::{SHA256, digest};

/// Of addresses in the load balancer status.
pub const INGRESS: &str = "loadBalancerIngress";
/// Of addresses that the operator before us wrote.
pub const ADOPTED: &str = "adopted";
/// Of addresses put together with a part that somebody else may get.
pub const MERGE_LEASED: &str = "merge-leased/";
/// Of addresses from a pool.
pub const POOL: &str = "ipPool/";

/// The first eight hexadecimal digits of the text's SHA-256.
pub fn eight_hex(text: &str) -> String {
    let digest = digest(&SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{first:08x}")
}

/// The word for addresses that the solver gives.
pub fn of(solver: &Solver) -> String {
    match solver {
        Solver::Shared(shared) => of_shared(shared),
        Solver::LoadBalancerIngress => INGRESS.to_owned(),
        Solver::IpPool(pool) => of_pool(pool),
        Solver::Merge(parts) => of_merge(parts),
    }
}

/// Whether all parts of a merge answer the same for every Service.
pub fn is_shared(parts: &[Part]) -> bool {
    parts.iter().all(|part| matches!(part.solver, PartSolver::Shared(_)))
}

fn of_shared(shared: &Shared) -> String {
    match shared {
        Shared::Static(_) => "static".to_owned(),
        Shared::DnsHostname(_) | Shared::IpApi(_) | Shared::Interface(_) => format!("{}/{}", shared.type_name(), asked(shared)),
    }
}

fn of_pool(pool: &PoolRef) -> String {
    format!("{POOL}{}/{}", pool.kind.kind(), pool.name)
}

fn of_merge(parts: &[Part]) -> String {
    let config = parts.iter().map(|part| {
        let solver = match &part.solver {
            PartSolver::Shared(Shared::Static(addresses)) => format!("static/{addresses:?}"),
            PartSolver::Shared(shared) => of_shared(shared),
            PartSolver::LoadBalancerIngress => INGRESS.to_owned(),
            PartSolver::IpPool(pool) => of_pool(pool),
        };
        format!("{}={solver}\n", part.mask)
    });
    let prefix = if is_shared(parts) { "merge/" } else { MERGE_LEASED };
    format!("{prefix}{}", eight_hex(&config.collect::<String>()))
}

/// What a status says that the solver asks.
pub fn target(solver: &Solver) -> String {
    match solver {
        Solver::Shared(shared) => asked(shared),
        Solver::IpPool(pool) => format!("{}/{}", pool.kind.kind(), pool.name),
        Solver::LoadBalancerIngress | Solver::Merge(_) => String::new(),
    }
}

/// What a message calls a part of a merge.
pub fn title_of_part(part: &PartSolver) -> String {
    match part {
        PartSolver::Shared(shared) => of_shared(shared),
        PartSolver::LoadBalancerIngress => INGRESS.to_owned(),
        PartSolver::IpPool(pool) => of_pool(pool),
    }
}

fn asked(shared: &Shared) -> String {
    match shared {
        Shared::Static(_) => String::new(),
        Shared::DnsHostname(host) => host.to_string(),
        Shared::IpApi(Api::Custom(custom)) => format!("custom/{}", eight_hex(custom.url.as_str())),
        Shared::IpApi(api) => api.provider().to_owned(),
        Shared::Interface(name) => name.as_deref().unwrap_or("*").to_owned(),
    }
}
