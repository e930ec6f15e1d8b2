//! Pools as stored: `ipam.cluster.x-k8s.io/v1alpha2`. Read by the controllers and the webhooks.
//!
//! `spec` of the IP pools is known to infrastructure providers, which overwrite the whole of it on each pass; so it
//! never grows. Every further option of ours is an annotation or a label, and only `status` has fields of our own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::{is_zero, null_is_absent};
use crate::pool::{Pool, PoolSpec};
use crate::schema;

/// The version's name.
pub const VERSION: &str = "v1alpha2";

/// An `InClusterIPPool` or a `GlobalInClusterIPPool`.
///
/// ```
/// let pool: api::v1alpha2::IpPool = serde_json::from_value(serde_json::json!({
///     "metadata": {"name": "blue"},
///     "spec": {"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "gateway": "10.0.0.1"},
/// })).unwrap();
/// assert_eq!(pool.spec.prefix, 24);
/// assert!(!pool.spec.allocate_reserved_ip_addresses);
/// ```
pub type IpPool = Pool<IpPoolSpec>;

/// An `InClusterPrefixPool` or a `GlobalInClusterPrefixPool`.
pub type PrefixPool = Pool<PrefixPoolSpec>;

/// The addresses a pool gives out, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// What the pool consists of. Each entry is a single IP, a range `first-last`, or a network in CIDR notation; all
    /// of one family.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub addresses: Vec<String>,

    /// Length of the network that the addresses lie in. It is copied to every address.
    #[serde(default, deserialize_with = "null_is_absent")]
    #[schemars(schema_with = "schema::integer", range(min = 0, max = 128))]
    pub prefix: i64,

    /// The network's router. It is copied to every address and never given out.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "String::is_empty")]
    pub gateway: String,

    /// Gives out the network's first address too, and for IPv4 its last, which are otherwise reserved.
    #[serde(
        default,
        rename = "allocateReservedIPAddresses",
        deserialize_with = "null_is_absent",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub allocate_reserved_ip_addresses: bool,

    /// What is taken out of `addresses` again, in the same notation.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub excluded_addresses: Vec<String>,

    /// For how many seconds an address stays taken after its claim was deleted. Zero turns that off.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "schema::int32", range(min = 0))]
    pub address_reuse_grace_period_seconds: i64,
}

/// The IPv6 prefixes a pool gives out, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixPoolSpec {
    /// What the pool consists of: IPv6 networks in CIDR notation, without host bits.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub prefixes: Vec<String>,

    /// Length of each prefix that is given out. It cannot be changed later.
    #[serde(default = "default_length", skip_serializing_if = "never")]
    #[schemars(schema_with = "schema::integer", range(min = 1, max = 128))]
    pub allocation_prefix_length: i64,

    /// An IPv6 address that is copied to every address object. It reserves nothing.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "String::is_empty")]
    pub gateway: String,

    /// Parts of `prefixes` that are not given out: single IPs, ranges or networks. A prefix that touches one is left
    /// out as a whole.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub excluded_prefixes: Vec<String>,
}

/// Length of a prefix where the spec names none; the API server fills it in.
pub const DEFAULT_ALLOCATION_PREFIX_LENGTH: i64 = 64;

impl Default for PrefixPoolSpec {
    fn default() -> Self {
        Self {
            prefixes: Vec::new(),
            allocation_prefix_length: DEFAULT_ALLOCATION_PREFIX_LENGTH,
            gateway: String::new(),
            excluded_prefixes: Vec::new(),
        }
    }
}

impl PoolSpec for IpPoolSpec {
    const VERSION: &'static str = VERSION;
    type Status = PoolStatus;
}

impl PoolSpec for PrefixPoolSpec {
    const VERSION: &'static str = VERSION;
    type Status = PoolStatus;
}

/// What the manager counted, and what it has to say about the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// How many addresses, or prefixes, there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_addresses: Option<AddressCounts>,

    /// The state of the pool in words: `Ready`, `Exhausted`, `Overlapping`, `Conflicting`.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// The generation of the pool that the numbers were computed for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The exact counts, present only when one is larger than `ipAddresses` can hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_addresses_exact: Option<ExactCounts>,
}

/// The counts of a pool; capped at the largest number the field holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressCounts {
    /// How many the pool can give out in all.
    #[serde(default)]
    #[schemars(schema_with = "schema::integer")]
    pub total: i64,

    /// How many of them are not in use.
    #[serde(default)]
    #[schemars(schema_with = "schema::integer")]
    pub free: i64,

    /// How many address objects refer to the pool.
    #[serde(default)]
    #[schemars(schema_with = "schema::integer")]
    pub used: i64,

    /// How many of those in use the pool could not give out now.
    #[serde(default)]
    #[schemars(schema_with = "schema::integer")]
    pub out_of_range: i64,
}

/// The counts of a very large pool, as decimal numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExactCounts {
    /// How many the pool can give out in all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub total: String,

    /// How many of them are not in use.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub free: String,
}

/// Always written, yet optional in the schema: the API server fills in what is missing.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn never(_: &i64) -> bool {
    false
}

fn default_length() -> i64 {
    DEFAULT_ALLOCATION_PREFIX_LENGTH
}
