//! A `ClusterExternalIPSource`: where the public addresses of Services come from, and where they are published.
//!
//! The structs here are the object as it is stored. Every word in them is a plain string, so that one bad word spoils its
//! own source and never a list or a watch. [`check()`] reads such a spec into a [`Source`] that cannot be wrong; admission
//! and controller call the same.

mod check;
mod definition;
mod host;
pub mod names;
pub mod reasons;
mod solvers;
mod source;
mod status;
mod url;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::null_is_absent;
use crate::schema;

pub use check::{Checked, FieldError, check};
pub(crate) use definition::definition;
pub use host::Host;
pub use source::{
    AddressPolicy, AllowedServices, Api, CustomApi, FamilyPolicy, Format, IpMode, OnNoAddress, Output, Part, PartSolver, PoolRef,
    PortConflict, QueryMode, ReleasePolicy, Shared, Solver, SolverList, Source,
};
pub use status::{ClusterExternalIPSourceStatus, FamilyStatus, SolverStatus};
pub use url::HttpsUrl;

/// The kind's name.
pub const KIND: &str = "ClusterExternalIPSource";

/// The version's name.
pub const VERSION: &str = "v1alpha1";

/// Where public addresses come from, who may have them, and where they are published.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "externalip.spacebird.dev",
    version = "v1alpha1",
    kind = "ClusterExternalIPSource",
    plural = "clusterexternalipsources",
    status = "ClusterExternalIPSourceStatus",
    schema = "disabled",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterExternalIPSourceSpec {
    /// How IPv4 addresses are found. Without it the source says nothing about IPv4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub ipv4: Option<SolverListSpec>,

    /// How IPv6 addresses are found. Without it the source says nothing about IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub ipv6: Option<SolverListSpec>,

    /// Where addresses are published. Without it: in the ingress status of a Service of our load balancer class, in the
    /// externalIPs of any other.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "items" = {"type": "string", "enum": ["ExternalIPs", "LoadBalancerStatus", "ExternalDNSTarget"]},
        "minItems" = 1,
        "maxItems" = 3,
        "x-kubernetes-list-type" = "set"
    ))]
    pub outputs: Option<Vec<String>>,

    /// The ipMode of addresses in the ingress status; VIP if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["VIP", "Proxy"]))]
    pub ip_mode: Option<String>,

    /// Solvers are asked at least this often. At least 5s; an ipAPI is asked once a minute at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub refresh_interval: Option<String>,

    /// For how long the last answer of a failing solver is preferred to the next solver; 1h if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max_staleness: Option<String>,

    /// What becomes of a Service's addresses when none is found any more; Keep if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Keep", "Remove"]))]
    pub on_no_address: Option<String>,

    /// What becomes of a Service's addresses when it leaves the source; Release if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Release", "Retain"]))]
    pub release: Option<String>,

    /// Whether addresses of a family that the Service does not have are published; Any, which means yes, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Any", "MatchService"]))]
    pub family_policy: Option<String>,

    /// Which addresses are acceptable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_policy: Option<AddressPolicySpec>,

    /// Which Services may use the source; all if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_services: Option<AllowedServicesSpec>,

    /// What happens when an older Service has the same address and port; Warn if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Warn", "Refuse"]))]
    pub port_conflict: Option<String>,
}

/// How the addresses of one family are found.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SolverListSpec {
    /// Whether the first solver that finds something decides, or all together do; firstFound if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true, "enum" = ["firstFound", "all", null]))]
    pub query_mode: Option<String>,

    /// The solvers, in their order.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub solvers: Vec<SolverSpec>,
}

/// One way to find addresses. Exactly one of the fields is set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["ipAPI"]},
    {"required": ["interface"]},
    {"required": ["dnsHostname"]},
    {"required": ["loadBalancerIngress"]},
    {"required": ["static"]},
    {"required": ["merge"]},
    {"required": ["ipPool"]},
]))]
pub struct SolverSpec {
    /// All but `merge`.
    #[serde(flatten)]
    pub plain: PlainSolverSpec,

    /// One address put together from parts of several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeSpec>,
}

/// One way to find addresses that may also give a part of one. Exactly one of the fields is set.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainSolverSpec {
    /// The address that a web service sees requests come from.
    #[serde(default, rename = "ipAPI", skip_serializing_if = "Option::is_none")]
    pub ip_api: Option<IpApiSpec>,

    /// The addresses of network interfaces where the manager runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<InterfaceSpec>,

    /// The addresses of a DNS name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_hostname: Option<DnsHostnameSpec>,

    /// The addresses in the Service's own load balancer status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer_ingress: Option<LoadBalancerIngressSpec>,

    /// Addresses written down here.
    #[serde(rename = "static", skip_serializing_if = "Option::is_none")]
    pub static_: Option<StaticSpec>,

    /// An address for each Service, drawn from a pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_pool: Option<IpPoolSpec>,
}

/// The address that a web service sees requests come from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.provider) && self.provider == 'custom') == has(self.url)",
        "message": "url goes with provider custom, and only with it",
    },
    {
        "rule": "has(self.url) || (!has(self.format) && !has(self.field) && !has(self.caBundle))",
        "message": "format, field and caBundle go with provider custom only",
    },
]))]
pub struct IpApiSpec {
    /// Which web service.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["myIp", "ipify", "icanhazip", "cloudflare", "custom"], "default" = "myIp"))]
    pub provider: Option<String>,

    /// The address of a custom web service; https only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,

    /// How a custom web service answers; json if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["json", "text"]))]
    pub format: Option<String>,

    /// Where the address stands in a JSON answer, as keys with dots between; ip if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub field: Option<String>,

    /// PEM certificates of authorities that are trusted for this web service as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

/// The addresses of network interfaces where the manager runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct InterfaceSpec {
    /// The interface; all of them if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("nullable" = true))]
    pub name: Option<String>,
}

/// The addresses of a DNS name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct DnsHostnameSpec {
    /// The name. One with a dot in it is absolute. An IP address stands for itself.
    #[schemars(length(max = 253))]
    pub host: String,
}

/// The addresses in the Service's own load balancer status.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LoadBalancerIngressSpec {}

/// Addresses written down here.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct StaticSpec {
    /// The addresses. Each family takes its own.
    #[schemars(extend("items" = {"type": "string", "format": "ip"}, "maxItems" = 64))]
    pub addresses: Vec<String>,
}

/// An address for each Service, drawn from a pool.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// The pool.
    pub pool_ref: PoolRefSpec,
}

/// A pool. An `InClusterIPPool` is looked up in the Service's namespace.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRefSpec {
    /// ipam.cluster.x-k8s.io, also if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,

    /// The pool's kind.
    #[schemars(extend("enum" = ["InClusterIPPool", "GlobalInClusterIPPool"]))]
    pub kind: String,

    /// The pool's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// One address put together from parts of several.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MergeSpec {
    /// The parts. Their masks give each bit of the address to exactly one of them.
    #[schemars(length(max = 16))]
    pub partial_solvers: Vec<PartialSolverSpec>,
}

/// A part of an address.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct PartialSolverSpec {
    /// The bits that this part gives, as an address.
    #[schemars(extend("format" = "ip"))]
    pub mask: String,

    /// Where they come from: the last address that it finds.
    #[schemars(extend("oneOf" = [
        {"required": ["ipAPI"]},
        {"required": ["interface"]},
        {"required": ["dnsHostname"]},
        {"required": ["loadBalancerIngress"]},
        {"required": ["static"]},
        {"required": ["ipPool"]},
    ]))]
    pub solver: PlainSolverSpec,
}

/// Which addresses are acceptable.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressPolicySpec {
    /// Whether private addresses are acceptable, whatever solver they come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_private: Option<bool>,

    /// Networks in CIDR notation that an address has to lie in, if there are any; a private one may then be used as well.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow: Vec<String>,

    /// Networks in CIDR notation that an address must not lie in, whatever else is allowed.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deny: Vec<String>,
}

/// Which Services may use a source: those that both selectors match.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedServicesSpec {
    /// Labels of the Service's namespace; all namespaces if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,

    /// Labels of the Service; all Services if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub service_selector: Option<LabelSelector>,
}
