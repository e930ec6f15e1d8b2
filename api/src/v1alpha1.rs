//! IP pools as `ipam.cluster.x-k8s.io/v1alpha1`: served and deprecated, not stored. Read by the conversion only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::{is_zero, null_is_absent};
use crate::pool::{Pool, PoolSpec};
use crate::schema;
use crate::v1alpha2::AddressCounts;

/// The version's name.
pub const VERSION: &str = "v1alpha1";

/// An `InClusterIPPool` or a `GlobalInClusterIPPool`.
pub type IpPool = Pool<IpPoolSpec>;

/// The addresses a pool gives out: a list, or a subnet with an optional first and last address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolSpec {
    /// Single IPs, ranges `first-last`, or networks in CIDR notation.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,

    /// The network of the pool in CIDR notation. Without `start` and `end` all of it but the first and last address
    /// is given out.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "String::is_empty")]
    pub subnet: String,

    /// The first address that is given out.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "String::is_empty")]
    pub start: String,

    /// The last address that is given out.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "String::is_empty")]
    pub end: String,

    /// Length of the network; that of `subnet` if zero.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "schema::integer", range(max = 128))]
    pub prefix: i64,

    /// The network's router. It is copied to every address and never given out.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "String::is_empty")]
    pub gateway: String,
}

impl PoolSpec for IpPoolSpec {
    const VERSION: &'static str = VERSION;
    type Status = PoolStatus;
}

/// What the manager counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// How many addresses there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_addresses: Option<AddressCounts>,
}
