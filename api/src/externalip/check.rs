//! From a spec to a [`Source`], or to everything that is wrong with it. Called by admission and by the controller, so
//! what one accepts the other understands.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use poolutil::{Cidr, Family};

use super::solvers;
use super::source::{
    AddressPolicy, AllowedServices, FamilyPolicy, IpMode, OnNoAddress, Output, PartSolver, PortConflict, ReleasePolicy, Solver,
    Source,
};
use super::{AddressPolicySpec, AllowedServicesSpec, ClusterExternalIPSourceSpec};

/// What became of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The source, or all errors; there is then at least one.
    pub source: Result<Source, Vec<FieldError>>,
    /// What its author should know all the same.
    pub warnings: Vec<String>,
}

/// One field that can never work. Displayed as `<field>: Invalid value: "<value>": <what is wrong and what to do>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field, such as `spec.ipv4.solvers[0].dnsHostname.host`.
    pub field: String,
    /// What stands there, if it is a text.
    pub value: Option<String>,
    /// What is wrong with it, and what to do.
    pub text: String,
}

impl FieldError {
    /// What is wrong, without the field.
    pub fn message(&self) -> String {
        match &self.value {
            Some(value) => format!("Invalid value: {value:?}: {}", self.text),
            None => self.text.clone(),
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message())
    }
}

impl std::error::Error for FieldError {}

/// Reads a spec. `api_targets` are the networks that web services of the user's choice may be in besides public ones, as
/// the manager's flag has them.
///
/// ```
/// use api::externalip::{ClusterExternalIPSourceSpec, check};
///
/// let spec = serde_json::json!({"ipv4": {"solvers": [{"dnsHostname": {"host": "*.example.net"}}]}});
/// let spec: ClusterExternalIPSourceSpec = serde_json::from_value(spec).unwrap();
/// let errors = check(&spec, &[]).source.unwrap_err();
/// assert_eq!(
///     errors[0].to_string(),
///     "spec.ipv4.solvers[0].dnsHostname.host: Invalid value: \"*.example.net\": \
///      a wildcard names no host; write the name of one"
/// );
/// ```
pub fn check(spec: &ClusterExternalIPSourceSpec, api_targets: &[Cidr]) -> Checked {
    let mut found = Findings::default();
    let ClusterExternalIPSourceSpec {
        ipv4,
        ipv6,
        outputs,
        ip_mode,
        refresh_interval,
        max_staleness,
        on_no_address,
        release,
        family_policy,
        address_policy,
        allowed_services,
        port_conflict,
    } = spec;

    let has_solver = [ipv4, ipv6].into_iter().flatten().any(|list| !list.solvers.is_empty());
    if !has_solver {
        found.error("spec", None, "at least one of ipv4, ipv6 needs a solver");
    }
    let address_policy = policy(address_policy.as_ref(), &mut found);
    let rules = solvers::Rules { policy: &address_policy, api_targets };
    let [ipv4, ipv6] = [(Family::V4, "spec.ipv4", ipv4), (Family::V6, "spec.ipv6", ipv6)].map(|(family, path, list)| {
        let list = list.as_ref()?;
        let list = solvers::list(family, path, list, &rules, &mut found);
        if has_solver && list.solvers.is_empty() {
            found.warn(format!(
                "{path}.solvers: the list is empty, so {family} addresses published before are withdrawn; add a solver, or \
                 remove {path}"
            ));
        }
        Some(list).filter(|list| !list.solvers.is_empty())
    });

    let source = Source {
        outputs: outputs.as_ref().map(|outputs| output_set(outputs, &mut found)),
        ip_mode: word(ip_mode.as_deref(), "spec.ipMode", IpMode::Vip, IpMode::WORDS, IpMode::from_word, &mut found),
        refresh_interval: refresh(refresh_interval.as_deref(), &mut found),
        max_staleness: duration(max_staleness.as_deref(), "spec.maxStaleness", &mut found).unwrap_or(Source::DEFAULT_STALENESS),
        on_no_address: word(
            on_no_address.as_deref(),
            "spec.onNoAddress",
            OnNoAddress::Keep,
            OnNoAddress::WORDS,
            OnNoAddress::from_word,
            &mut found,
        ),
        release: word(
            release.as_deref(),
            "spec.release",
            ReleasePolicy::Release,
            ReleasePolicy::WORDS,
            ReleasePolicy::from_word,
            &mut found,
        ),
        family_policy: word(
            family_policy.as_deref(),
            "spec.familyPolicy",
            FamilyPolicy::Any,
            FamilyPolicy::WORDS,
            FamilyPolicy::from_word,
            &mut found,
        ),
        allowed_services: allowed(allowed_services.as_ref(), &mut found),
        port_conflict: word(
            port_conflict.as_deref(),
            "spec.portConflict",
            PortConflict::Warn,
            PortConflict::WORDS,
            PortConflict::from_word,
            &mut found,
        ),
        address_policy,
        ipv4,
        ipv6,
    };
    found.warn_of_loops(&source);
    let Findings { errors, warnings } = found;
    Checked { source: if errors.is_empty() { Ok(source) } else { Err(errors) }, warnings }
}

/// What was found on the way.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<FieldError>,
    warnings: Vec<String>,
}

impl Findings {
    pub(super) fn error(&mut self, field: impl Into<String>, value: Option<&str>, text: impl Into<String>) {
        self.errors.push(FieldError { field: field.into(), value: value.map(str::to_owned), text: text.into() });
    }

    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn warn_of_loops(&mut self, source: &Source) {
        let publishes = source.outputs.as_ref().is_some_and(|outputs| outputs.contains(&Output::LoadBalancerStatus));
        let reads = |solver: &Solver| match solver {
            Solver::LoadBalancerIngress => true,
            Solver::Merge(parts) => parts.iter().any(|part| part.solver == PartSolver::LoadBalancerIngress),
            Solver::Shared(_) | Solver::IpPool(_) => false,
        };
        if publishes && [&source.ipv4, &source.ipv6].into_iter().flatten().any(|list| list.solvers.iter().any(reads)) {
            self.warn(
                "spec.outputs: with LoadBalancerStatus a loadBalancerIngress solver finds nothing on Services of our class, \
                 whose status we write; use it for Services of another class only"
                    .to_owned(),
            );
        }
    }
}

/// A word of the API, `default` if it is absent.
pub(super) fn word<T>(
    text: Option<&str>,
    field: &str,
    default: T,
    words: &[&str],
    read: impl Fn(&str) -> Option<T>,
    found: &mut Findings,
) -> T {
    let Some(text) = text else { return default };
    read(text).unwrap_or_else(|| {
        found.error(field, Some(text), format!("write one of {}", words.join(", ")));
        default
    })
}

fn output_set(outputs: &[String], found: &mut Findings) -> BTreeSet<Output> {
    let mut set = BTreeSet::new();
    if outputs.is_empty() {
        found.error("spec.outputs", None, format!("name at least one of {}, or leave the field out", Output::WORDS.join(", ")));
    }
    for (index, text) in outputs.iter().enumerate() {
        let field = format!("spec.outputs[{index}]");
        match Output::from_word(text) {
            None => found.error(field, Some(text), format!("write one of {}", Output::WORDS.join(", "))),
            Some(output) if set.insert(output) => {}
            Some(_) => found.error(field, Some(text), "is named twice, remove it"),
        }
    }
    set
}

fn refresh(text: Option<&str>, found: &mut Findings) -> Option<Duration> {
    let field = "spec.refreshInterval";
    let interval = duration(text, field, found)?;
    if interval < Source::SHORTEST_REFRESH {
        let text = text.unwrap_or_default();
        found.warn(format!("{field}: {text} is raised to {}s", Source::SHORTEST_REFRESH.as_secs()));
    }
    Some(interval.max(Source::SHORTEST_REFRESH))
}

fn duration(text: Option<&str>, field: &str, found: &mut Findings) -> Option<Duration> {
    let text = text?;
    let duration = parse_duration(text);
    if duration.is_none() {
        found.error(field, Some(text), "not a duration; write numbers with their units ms, s, m or h, such as 90s or 1h30m");
    }
    duration
}

/// Nobody waits longer; and what is added to a clock must not run over its end.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads what the schema's pattern lets pass: numbers, each with its unit. More than a hundred years count as that.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit())?);
        let number: u64 = number.parse().ok()?;
        let unit = behind.split(|letter: char| letter.is_ascii_digit()).next()?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        sum = sum.checked_add(Duration::from_millis(number.checked_mul(millis)?))?;
        rest = &behind[unit.len()..];
    }
    (!text.is_empty()).then_some(sum.min(LONGEST))
}

fn policy(spec: Option<&AddressPolicySpec>, found: &mut Findings) -> AddressPolicy {
    let Some(AddressPolicySpec { allow_private, allow, deny }) = spec else { return AddressPolicy::default() };
    let mut networks = |field: &str, texts: &[String]| {
        let mut networks = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<Cidr>() {
                Ok(cidr) => networks.push(cidr),
                Err(reason) => found.error(format!("spec.addressPolicy.{field}[{index}]"), Some(text), reason.to_string()),
            }
        }
        networks
    };
    AddressPolicy { allow_private: *allow_private, allow: networks("allow", allow), deny: networks("deny", deny) }
}

fn allowed(spec: Option<&AllowedServicesSpec>, found: &mut Findings) -> AllowedServices {
    let Some(AllowedServicesSpec { namespace_selector, service_selector }) = spec else { return AllowedServices::default() };
    AllowedServices {
        namespaces: selector(namespace_selector.as_ref(), "spec.allowedServices.namespaceSelector", found),
        services: selector(service_selector.as_ref(), "spec.allowedServices.serviceSelector", found),
    }
}

fn selector(selector: Option<&LabelSelector>, field: &str, found: &mut Findings) -> Option<Selector> {
    let selector = selector?;
    let mut broken = false;
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let values = requirement.values.iter().flatten().count();
        let text = match requirement.operator.as_str() {
            "In" | "NotIn" if values == 0 => "In and NotIn need at least one value, add it",
            "Exists" | "DoesNotExist" if values > 0 => "Exists and DoesNotExist take no values, remove them",
            "In" | "NotIn" | "Exists" | "DoesNotExist" => continue,
            _ => "write one of In, NotIn, Exists, DoesNotExist",
        };
        broken = true;
        found.error(format!("{field}.matchExpressions[{index}].operator"), Some(&requirement.operator), text);
    }
    (!broken).then(|| selector.clone().try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::source::{Api, PoolRef, QueryMode, Shared, SolverList};
    use super::super::{ClusterExternalIPSource, Host};
    use super::*;
    use crate::PoolKind;

    fn read(spec: Value) -> Checked {
        check(&serde_json::from_value(spec).unwrap(), &[])
    }

    fn list(mode: QueryMode, solvers: impl Into<Vec<Solver>>) -> SolverList {
        SolverList { mode, solvers: solvers.into() }
    }

    #[test]
    fn the_example_of_the_specification_is_read_in_full() {
        let spec = json!({
            "outputs": ["ExternalIPs", "ExternalDNSTarget"],
            "maxStaleness": "30m",
            "ipv4": {"solvers": [{"dnsHostname": {"host": "GW.example.net."}}, {"ipAPI": {"provider": "ipify"}}]},
            "ipv6": {
                "queryMode": "all",
                "solvers": [{"ipPool": {"poolRef": {"kind": "GlobalInClusterIPPool", "name": "public-v6"}}}],
            },
        });
        let host = Host::Name("gw.example.net".to_owned());
        let pool = PoolRef { kind: PoolKind::GlobalInClusterIPPool, name: "public-v6".to_owned() };
        let shared = [Shared::DnsHostname(host), Shared::IpApi(Api::Ipify)].map(Solver::Shared);
        let source = Source {
            ipv4: Some(list(QueryMode::FirstFound, shared)),
            ipv6: Some(list(QueryMode::All, [Solver::IpPool(pool)])),
            outputs: Some([Output::ExternalIps, Output::ExternalDnsTarget].into()),
            ip_mode: IpMode::Vip,
            refresh_interval: None,
            max_staleness: Duration::from_secs(1800),
            on_no_address: OnNoAddress::Keep,
            release: ReleasePolicy::Release,
            family_policy: FamilyPolicy::Any,
            address_policy: AddressPolicy::default(),
            allowed_services: AllowedServices::default(),
            port_conflict: PortConflict::Warn,
        };
        assert_eq!(read(spec), Checked { source: Ok(source), warnings: Vec::new() });
    }

    #[test]
    fn nulls_of_stored_objects_mean_the_same_as_nothing() {
        let null = json!({"ipv4": {"queryMode": null, "solvers": [{"interface": {"name": null}}]}, "ipv6": null});
        let absent = json!({"ipv4": {"solvers": [{"interface": {}}]}});
        assert_eq!(read(null), read(absent));
    }

    #[test]
    fn a_bad_word_spoils_its_own_object_only() {
        let object = json!({"metadata": {"name": "a"}, "spec": {"release": "?", "ipv4": {"queryMode": "?", "solvers": [{}]}}});
        let source: ClusterExternalIPSource = serde_json::from_value(object).unwrap();
        assert_eq!(check(&source.spec, &[]).source.unwrap_err().len(), 3);
    }

    #[test]
    fn an_interval_is_not_shorter_than_its_solver_allows() {
        let spec = json!({"refreshInterval": "20s", "ipv4": {"solvers": [{"loadBalancerIngress": {}}]}});
        let source = read(spec).source.unwrap();
        let host = Shared::DnsHostname(Host::Name("gw.example.net".to_owned()));
        let seconds = [source.refresh_of(&host), source.refresh_of(&Shared::IpApi(Api::MyIp))];
        assert_eq!(seconds, [20, 60].map(|seconds| Some(Duration::from_secs(seconds))));
    }

    #[test]
    fn selectors_decide_who_may_use_a_source() {
        let spec = json!({
            "ipv4": {"solvers": [{"loadBalancerIngress": {}}]},
            "allowedServices": {
                "namespaceSelector": {"matchLabels": {"team": "web"}},
                "serviceSelector": {"matchExpressions": [{"key": "private", "operator": "DoesNotExist"}]},
            },
        });
        let allowed = read(spec).source.unwrap().allowed_services;
        let labels = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
        let (none, web) = ([].into(), labels("team", "web"));
        assert!(allowed.matches(&none, Some(&web)));
        assert!(!allowed.matches(&labels("private", ""), Some(&web)));
        assert!(!allowed.matches(&none, Some(&labels("team", "db"))));
        assert!(!allowed.matches(&none, None));
        assert!(AllowedServices::default().matches(&none, None));
    }

    #[test]
    fn durations_are_sums_of_numbers_with_units() {
        for (text, millis) in [
            ("0s", Some(0)),
            ("90s", Some(90_000)),
            ("1h30m", Some(5_400_000)),
            ("1m500ms", Some(60_500)),
            ("1s1s", Some(2000)),
            ("1000000000h", Some(3_153_600_000_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("1.5h", None),
            ("-1s", None),
            ("1d", None),
            ("18446744073709551615h", None),
            ("1ſ", None),
        ] {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }
}
