//! Short ways to write the spec of a source.

/// A source of IPv4 addresses from these solvers.
pub fn v4(solvers: &str) -> String {
    format!("{{ipv4: {{solvers: [{solvers}]}}}}")
}

/// A source of IPv4 addresses from these solvers, with more fields.
pub fn v4_with(solvers: &str, more: &str) -> String {
    format!("{{ipv4: {{solvers: [{solvers}]}}, {more}}}")
}

/// A solver that gives these addresses.
pub fn fixed(addresses: &str) -> String {
    format!("{{static: {{addresses: [{addresses}]}}}}")
}

/// A solver that asks for a host name.
pub fn host(name: &str) -> String {
    format!("{{dnsHostname: {{host: '{name}'}}}}")
}

/// A solver that asks a web API.
pub fn custom(url: &str) -> String {
    format!("{{ipAPI: {{provider: custom, url: '{url}'}}}}")
}

/// A solver that reads the status other load balancers write.
pub const LOAD_BALANCER: &str = "{loadBalancerIngress: {}}";

/// A solver that claims addresses of a pool.
pub fn pool(pool: &testbed::Pool) -> String {
    format!("{{ipPool: {{poolRef: {{kind: {}, name: {}}}}}}}", pool.kind, pool.name)
}
