//! Cluster API's kinds, cut down to the fields we use, for both versions it serves.
//!
//! Claims and addresses are its IPAM contract; their definitions come with Cluster API, not with us. One struct serves
//! `v1beta2` and `v1beta1`, because the fields read here are the same in both; which one is spoken is the
//! [`kube::Resource::DynamicType`]. Every field has a default, so that an object missing one still decodes. A struct
//! written back as a whole would lose what it does not hold: existing objects are only ever patched.

mod conditions;

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use conditions::{ClaimConditions, ClaimReady, ReadyView, status_patch};

use crate::decode::{null_is_absent, slim_metadata};
use crate::names::{CLUSTER_GROUP, IPAM_GROUP};
use crate::pool::PoolKind;

/// A version of Cluster API's kinds; the newer one is preferred where it is served.
///
/// ```
/// use api::capi::{CapiVersion, IpAddressClaim};
///
/// assert_eq!(CapiVersion::V1beta1.api_version(), "ipam.cluster.x-k8s.io/v1beta1");
/// assert_eq!(IpAddressClaim::api_resource(CapiVersion::V1beta2).plural, "ipaddressclaims");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapiVersion {
    /// Stored since Cluster API 1.11.
    V1beta2,
    /// The only one before.
    V1beta1,
}

impl CapiVersion {
    /// The version alone, such as `v1beta2`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1beta2 => "v1beta2",
            Self::V1beta1 => "v1beta1",
        }
    }

    /// The `apiVersion` of claims and addresses.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V1beta2 => "ipam.cluster.x-k8s.io/v1beta2",
            Self::V1beta1 => "ipam.cluster.x-k8s.io/v1beta1",
        }
    }
}

/// A request for one address of a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpAddressClaim {
    /// Group and version, as written in the object.
    #[serde(default)]
    pub api_version: String,
    /// Kind, as written in the object.
    #[serde(default)]
    pub kind: String,
    /// Standard metadata.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for; immutable.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub spec: ClaimSpec,
    /// What was given.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "ClaimStatus::is_empty")]
    pub status: ClaimStatus,
}

/// What a claim asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSpec {
    /// The Cluster it is for. Absent before Cluster API 1.8, which knew only the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// The pool.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub pool_ref: PoolRef,
}

/// What a claim got. The lists of conditions are read through [`ClaimConditions`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimStatus {
    /// The address object; a claim that has it is bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address_ref: Option<LocalRef>,
    /// In v1beta2 the conditions, in v1beta1 the legacy ones.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
    /// In v1beta2 the home of the legacy conditions.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Deprecated::is_empty")]
    pub deprecated: Deprecated,
    /// In v1beta1 the home of the conditions.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "ConditionsOf::is_empty")]
    pub v1beta2: ConditionsOf,
}

impl ClaimStatus {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The part of a v1beta2 status that goes away with v1beta1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deprecated {
    /// What v1beta1 has in `status`.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "ConditionsOf::is_empty")]
    pub v1beta1: ConditionsOf,
}

impl Deprecated {
    fn is_empty(&self) -> bool {
        self.v1beta1.is_empty()
    }
}

/// The conditions of the other version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConditionsOf {
    /// The list, as it stands in the object.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
}

impl ConditionsOf {
    fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }
}

/// One address that a claim holds. It has no status in any version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpAddress {
    /// Group and version, as written in the object.
    #[serde(default)]
    pub api_version: String,
    /// Kind, as written in the object.
    #[serde(default)]
    pub kind: String,
    /// Standard metadata. The name is the claim's.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// The address and whose it is; immutable.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub spec: AddressSpec,
}

impl IpAddress {
    /// An address to be created in `version`.
    pub fn new(version: CapiVersion, metadata: ObjectMeta, spec: AddressSpec) -> Self {
        Self { api_version: version.api_version().to_owned(), kind: Self::api_resource(version).kind, metadata, spec }
    }
}

/// An address and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressSpec {
    /// The claim; its name may be empty in old objects.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub claim_ref: LocalRef,
    /// The pool that the address is from.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub pool_ref: PoolRef,
    /// The IP, or the first address of the prefix; 1 to 39 characters.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub address: String,
    /// Length of the network or of the prefix. Zero is a length, and not the same as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<i64>,
    /// The router; the key must be missing rather than empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// Which pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// API group without a version. An object written through v1beta1 may lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_group: Option<String>,
    /// Kind of the pool.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub kind: String,
    /// Name of the pool, in the namespace of the referring object unless the kind is cluster-scoped.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub name: String,
}

impl PoolRef {
    /// A reference to one of our pools.
    pub fn to(pool: PoolKind, name: &str) -> Self {
        Self { api_group: Some(IPAM_GROUP.to_owned()), kind: pool.kind().to_owned(), name: name.to_owned() }
    }
}

/// An object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LocalRef {
    /// Its name.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub name: String,
}

/// A Cluster, of which only the pause interests us.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Group and version, as written in the object.
    #[serde(default)]
    pub api_version: String,
    /// Kind, as written in the object.
    #[serde(default)]
    pub kind: String,
    /// Standard metadata. The paused annotation counts too.
    #[serde(default, deserialize_with = "slim_metadata")]
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub spec: ClusterSpec,
}

/// What is wanted of a Cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    /// Whether all work on the Cluster rests.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub paused: bool,
}

/// Makes a struct an object of Cluster API whose version is chosen at run time.
macro_rules! served_in_both_versions {
    ($object:ty, $group:expr, $kind:literal, $plural:literal) => {
        impl $object {
            /// How to reach objects of this kind in `version`.
            pub fn api_resource(version: CapiVersion) -> ApiResource {
                ApiResource {
                    group: $group.to_owned(),
                    version: version.as_str().to_owned(),
                    api_version: format!("{}/{}", $group, version.as_str()),
                    kind: $kind.to_owned(),
                    plural: $plural.to_owned(),
                }
            }
        }

        impl Resource for $object {
            type DynamicType = ApiResource;
            type Scope = DynamicResourceScope;

            fn kind(resource: &ApiResource) -> Cow<'_, str> {
                resource.kind.as_str().into()
            }

            fn group(resource: &ApiResource) -> Cow<'_, str> {
                resource.group.as_str().into()
            }

            fn version(resource: &ApiResource) -> Cow<'_, str> {
                resource.version.as_str().into()
            }

            fn plural(resource: &ApiResource) -> Cow<'_, str> {
                resource.plural.as_str().into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

served_in_both_versions!(IpAddressClaim, IPAM_GROUP, "IPAddressClaim", "ipaddressclaims");
served_in_both_versions!(IpAddress, IPAM_GROUP, "IPAddress", "ipaddresses");
served_in_both_versions!(Cluster, CLUSTER_GROUP, "Cluster", "clusters");

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_that_miss_fields_or_hold_nulls_decode() {
        for object in [
            json!({"metadata": {"name": "a"}}),
            json!({"metadata": {"name": "a"}, "spec": null, "status": null}),
            json!({"metadata": {"name": "a"}, "spec": {"poolRef": null, "claimRef": null}, "status": {"conditions": null}}),
            json!({"metadata": {"name": "a"}, "spec": {"poolRef": {}, "claimRef": {}, "address": null, "prefix": null, "paused": null}}),
        ] {
            serde_json::from_value::<IpAddressClaim>(object.clone()).unwrap();
            serde_json::from_value::<IpAddress>(object.clone()).unwrap();
            serde_json::from_value::<Cluster>(object).unwrap();
        }
    }

    #[test]
    fn an_address_is_written_with_prefix_zero_and_without_an_empty_gateway() {
        let spec = AddressSpec {
            claim_ref: LocalRef { name: "web-0".to_owned() },
            pool_ref: PoolRef::to(PoolKind::InClusterIPPool, "blue"),
            address: "10.0.0.10".to_owned(),
            prefix: Some(0),
            gateway: None,
        };
        let metadata = ObjectMeta { name: Some("web-0".to_owned()), ..ObjectMeta::default() };
        let expected = json!({
            "apiVersion": "ipam.cluster.x-k8s.io/v1beta2",
            "kind": "IPAddress",
            "metadata": {"name": "web-0"},
            "spec": {
                "claimRef": {"name": "web-0"},
                "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"},
                "address": "10.0.0.10",
                "prefix": 0,
            },
        });
        let address = IpAddress::new(CapiVersion::V1beta2, metadata, spec);
        assert_eq!(serde_json::to_value(&address).unwrap(), expected);
        assert_eq!(serde_json::from_value::<IpAddress>(expected).unwrap(), address);
    }

    #[test]
    fn a_missing_prefix_is_not_zero_and_a_missing_group_is_not_empty() {
        let old: IpAddress =
            serde_json::from_value(json!({"spec": {"poolRef": {"kind": "InClusterIPPool", "name": "a"}}})).unwrap();
        assert_eq!((old.spec.prefix, old.spec.pool_ref.api_group), (None, None));
    }

    #[test]
    fn a_claim_without_a_status_is_written_without_one() {
        let claim = serde_json::to_value(IpAddressClaim::default()).unwrap();
        assert_eq!(claim.get("status"), None);
    }

    #[test]
    fn each_version_has_its_own_url() {
        let url = |version| IpAddress::url_path(&IpAddress::api_resource(version), Some("team-a"));
        assert_eq!(url(CapiVersion::V1beta2), "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddresses");
        assert_eq!(url(CapiVersion::V1beta1), "/apis/ipam.cluster.x-k8s.io/v1beta1/namespaces/team-a/ipaddresses");
        assert_eq!(Cluster::api_resource(CapiVersion::V1beta1).api_version, "cluster.x-k8s.io/v1beta1");
    }
}
