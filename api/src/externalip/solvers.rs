//! The solvers of a source, read one by one. Called by [`super::check()`].

use std::net::IpAddr;

use poolutil::{Cidr, Class, Family, class, mask_flaws, parse_plain_ip};

use super::check::{Findings, word};
use super::host::Host;
use super::source::{AddressPolicy, Api, CustomApi, Format, Part, PartSolver, PoolRef, QueryMode, Shared, Solver, SolverList};
use super::url::HttpsUrl;
use super::{IpApiSpec, MergeSpec, PlainSolverSpec, PoolRefSpec, SolverListSpec, SolverSpec, StaticSpec};
use crate::PoolKind;
use crate::names::IPAM_GROUP;

/// What the rest of the source and the manager say about solvers.
pub(super) struct Rules<'a> {
    /// Which addresses the source accepts.
    pub policy: &'a AddressPolicy,
    /// Where web services may be besides public addresses.
    pub api_targets: &'a [Cidr],
}

/// Reads the list of a family; what is wrong is left out of it.
pub(super) fn list(
    family: Family,
    family_path: &str,
    spec: &SolverListSpec,
    rules: &Rules<'_>,
    found: &mut Findings,
) -> SolverList {
    let field = format!("{family_path}.queryMode");
    let text = spec.query_mode.as_deref();
    let mode = word(text, &field, QueryMode::FirstFound, QueryMode::WORDS, QueryMode::from_word, found);
    let mut solvers: Vec<(usize, Solver)> = Vec::new();
    for (index, spec) in spec.solvers.iter().enumerate() {
        let path = format!("{family_path}.solvers[{index}]");
        let mut place = Place { family, path: &path, is_part: false, rules, found: &mut *found };
        let Some(solver) = place.solver(spec) else { continue };
        if let Some((first, _)) = solvers.iter().find(|(_, other)| *other == solver) {
            found.warn(format!("{path}: the same as {family_path}.solvers[{first}]; remove one of them"));
        }
        solvers.push((index, solver));
    }
    SolverList { mode, solvers: solvers.into_iter().map(|(_, solver)| solver).collect() }
}

/// Where a solver stands.
struct Place<'a> {
    family: Family,
    path: &'a str,
    /// Whether it gives only some bits of an address.
    is_part: bool,
    rules: &'a Rules<'a>,
    found: &'a mut Findings,
}

const TYPES: &str = "ipAPI, interface, dnsHostname, loadBalancerIngress, static, ipPool";

impl Place<'_> {
    fn error(&mut self, field: &str, value: Option<&str>, text: impl Into<String>) {
        self.found.error(format!("{}.{field}", self.path), value, text);
    }

    fn warn(&mut self, field: &str, text: &str) {
        self.found.warn(format!("{}.{field}: {text}", self.path));
    }

    fn solver(&mut self, spec: &SolverSpec) -> Option<Solver> {
        match &spec.merge {
            None => self.plain(&spec.plain).map(Solver::from),
            Some(merge) if spec.plain == PlainSolverSpec::default() => self.merge(merge).map(Solver::Merge),
            Some(_) => {
                self.found.error(self.path, None, format!("a solver has exactly one of {TYPES}, merge; remove the others"));
                None
            }
        }
    }

    fn plain(&mut self, spec: &PlainSolverSpec) -> Option<PartSolver> {
        let PlainSolverSpec { ip_api, interface, dns_hostname, load_balancer_ingress, static_, ip_pool } = spec;
        match (ip_api, interface, dns_hostname, load_balancer_ingress, static_, ip_pool) {
            (Some(api), None, None, None, None, None) => self.api(api).map(|api| PartSolver::Shared(Shared::IpApi(api))),
            (None, Some(interface), None, None, None, None) => {
                if interface.name.as_deref() == Some("") {
                    self.error("interface.name", Some(""), "name an interface, or leave the field out for all of them");
                    return None;
                }
                Some(PartSolver::Shared(Shared::Interface(interface.name.clone())))
            }
            (None, None, Some(dns), None, None, None) => {
                self.host(&dns.host).map(|host| PartSolver::Shared(Shared::DnsHostname(host)))
            }
            (None, None, None, Some(_), None, None) => Some(PartSolver::LoadBalancerIngress),
            (None, None, None, None, Some(addresses), None) => {
                self.addresses(addresses).map(|addresses| PartSolver::Shared(Shared::Static(addresses)))
            }
            (None, None, None, None, None, Some(pool)) => self.pool(&pool.pool_ref).map(PartSolver::IpPool),
            (None, None, None, None, None, None) => {
                let more = if self.is_part { "" } else { ", merge" };
                self.found.error(self.path, None, format!("a solver has exactly one of {TYPES}{more}; add one"));
                None
            }
            _ => {
                let more = if self.is_part { "" } else { ", merge" };
                self.found.error(self.path, None, format!("a solver has exactly one of {TYPES}{more}; remove the others"));
                None
            }
        }
    }

    fn addresses(&mut self, spec: &StaticSpec) -> Option<Vec<IpAddr>> {
        let mut addresses = Vec::new();
        for (index, text) in spec.addresses.iter().enumerate() {
            let field = format!("static.addresses[{index}]");
            match parse_plain_ip(text) {
                Err(reason) => self.error(&field, Some(text), reason.to_string()),
                Ok(ip) => {
                    if let Some(reason) = self.refusal(ip) {
                        self.error(&field, Some(text), reason);
                    }
                    addresses.push(ip);
                }
            }
        }
        if addresses.len() == spec.addresses.len() && !addresses.iter().any(|ip| Family::of(*ip) == self.family) {
            let text = format!("always empty, since no {} address is listed; add one, or remove the solver", self.family);
            self.warn("static.addresses", &text);
        }
        (addresses.len() == spec.addresses.len()).then_some(addresses)
    }

    /// Why an address that stands here can never be published. One that only gives some of its bits is not.
    fn refusal(&self, ip: IpAddr) -> Option<&'static str> {
        let policy = self.rules.policy;
        let allowed = policy.allow.iter().any(|network| network.contains(ip));
        match class(ip) {
            _ if self.is_part => None,
            Class::Never => Some(
                "no Service can have this address (unspecified, loopback, link-local, multicast, reserved or IPv4-mapped); \
                 write another",
            ),
            Class::Private if policy.allow_private == Some(false) && !allowed => {
                Some("private, while spec.addressPolicy.allowPrivate is false; remove it, or allow its network")
            }
            Class::Private | Class::Public => None,
        }
    }

    fn host(&mut self, text: &str) -> Option<Host> {
        let host = Host::parse(text).map_err(|reason| self.error("dnsHostname.host", Some(text), reason)).ok()?;
        if let Host::Literal(ip) = host
            && Family::of(ip) != self.family
        {
            let text = format!("always empty, since {ip} is no {} address; move it to the other family", self.family);
            self.warn("dnsHostname.host", &text);
        }
        Some(host)
    }

    fn api(&mut self, spec: &IpApiSpec) -> Option<Api> {
        let IpApiSpec { provider, url, format, field, ca_bundle } = spec;
        let api = match provider.as_deref().unwrap_or("myIp") {
            "myIp" => Api::MyIp,
            "ipify" => Api::Ipify,
            "icanhazip" => Api::Icanhazip,
            "cloudflare" => Api::Cloudflare,
            "custom" => return self.custom(spec),
            other => {
                self.error("ipAPI.provider", Some(other), "write one of myIp, ipify, icanhazip, cloudflare, custom");
                return None;
            }
        };
        let mut fits = true;
        for (name, value) in [("url", url), ("format", format), ("field", field), ("caBundle", ca_bundle)] {
            if value.is_some() {
                fits = false;
                self.error(&format!("ipAPI.{name}"), None, "goes with provider custom only; remove it, or change the provider");
            }
        }
        fits.then_some(api)
    }

    fn custom(&mut self, spec: &IpApiSpec) -> Option<Api> {
        let url = self.url(spec.url.as_deref());
        let format = self.format(spec);
        if spec.ca_bundle.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
            self.error("ipAPI.caBundle", None, "holds no certificate; write certificates in PEM");
            return None;
        }
        Some(Api::Custom(CustomApi { url: url?, format: format?, ca_bundle: spec.ca_bundle.clone() }))
    }

    fn url(&mut self, text: Option<&str>) -> Option<HttpsUrl> {
        let Some(text) = text else {
            self.error("ipAPI.url", None, "provider custom needs it; write the https URL of the web service");
            return None;
        };
        let url = HttpsUrl::parse(text).map_err(|reason| self.error("ipAPI.url", Some(text), reason)).ok()?;
        let Host::Literal(ip) = *url.host() else { return Some(url) };
        if class(ip) != Class::Public && !self.rules.api_targets.iter().any(|network| network.contains(ip)) {
            let reason =
                format!("{ip} is not public; write a public host, or allow its network by --external-ip-api-allow-cidrs");
            self.error("ipAPI.url", Some(text), reason);
            return None;
        }
        Some(url)
    }

    fn format(&mut self, spec: &IpApiSpec) -> Option<Format> {
        let field = spec.field.as_deref();
        match spec.format.as_deref() {
            None | Some("json") => {
                let keys: Vec<String> = field.unwrap_or("ip").split('.').map(str::to_owned).collect();
                if keys.iter().any(String::is_empty) {
                    self.error("ipAPI.field", field, "write keys with one dot between two of them, such as data.ip");
                    return None;
                }
                Some(Format::Json(keys))
            }
            Some("text") => {
                if field.is_some() {
                    self.warn("ipAPI.field", "has no meaning with format text, remove it");
                }
                Some(Format::Text)
            }
            Some(other) => {
                self.error("ipAPI.format", Some(other), "write json or text");
                None
            }
        }
    }

    fn pool(&mut self, spec: &PoolRefSpec) -> Option<PoolRef> {
        let PoolRefSpec { api_group, kind, name } = spec;
        let mut fits = true;
        if let Some(group) = api_group.as_deref().filter(|group| *group != IPAM_GROUP) {
            fits = false;
            self.error("ipPool.poolRef.apiGroup", Some(group), format!("write {IPAM_GROUP}, or leave the field out"));
        }
        let pool_kind = PoolKind::from_kind(kind).filter(|kind| !kind.is_prefix());
        if pool_kind.is_none() {
            self.error("ipPool.poolRef.kind", Some(kind), "write InClusterIPPool or GlobalInClusterIPPool");
        }
        if name.is_empty() {
            fits = false;
            self.error("ipPool.poolRef.name", Some(name), "name a pool");
        }
        pool_kind.filter(|_| fits).map(|kind| PoolRef { kind, name: name.clone() })
    }

    fn merge(&mut self, spec: &MergeSpec) -> Option<Vec<Part>> {
        let field = "merge.partialSolvers";
        if spec.partial_solvers.is_empty() {
            self.error(field, None, "there is no part; add parts whose masks cover all bits of an address");
            return None;
        }
        let mut masks = Vec::new();
        let mut parts = Vec::new();
        for (index, spec) in spec.partial_solvers.iter().enumerate() {
            let mask = self.mask(&format!("{field}[{index}].mask"), &spec.mask);
            masks.extend(mask);
            let path = format!("{}.{field}[{index}].solver", self.path);
            let mut place = Place { family: self.family, path: &path, is_part: true, rules: self.rules, found: &mut *self.found };
            let solver = place.plain(&spec.solver);
            parts.extend(mask.zip(solver).map(|(mask, solver)| Part { mask, solver }));
        }
        if masks.len() < spec.partial_solvers.len() {
            return None;
        }
        let flaws = mask_flaws(self.family, &masks);
        if let Some(bits) = flaws.overlap {
            self.error(field, None, format!("masks overlap in the bits of {bits}; give each bit to one part only"));
        }
        if let Some(bits) = flaws.gap {
            self.error(field, None, format!("no mask covers the bits of {bits}; give each bit to a part"));
        }
        (parts.len() == spec.partial_solvers.len() && flaws == poolutil::MaskFlaws::default()).then_some(parts)
    }

    fn mask(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let mask = parse_plain_ip(text).map_err(|reason| self.error(field, Some(text), reason.to_string())).ok()?;
        if Family::of(mask) != self.family {
            let family = self.family;
            self.error(
                field,
                Some(text),
                format!("no {family} mask, while this is the list of {family}; write an {family} mask"),
            );
            return None;
        }
        Some(mask)
    }
}
