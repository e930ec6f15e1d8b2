//! The four pool kinds by name, and the one object type that holds any of them.

use std::borrow::Cow;
use std::fmt::{self, Debug};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decode::null_is_absent;
use crate::names::IPAM_GROUP;

/// A pool kind. Used instead of strings once a `poolRef` has been read.
///
/// ```
/// use api::PoolKind;
///
/// let kind = PoolKind::from_kind("GlobalInClusterPrefixPool").unwrap();
/// assert!(kind.is_global() && kind.is_prefix());
/// assert_eq!(kind.plural(), "globalinclusterprefixpools");
/// assert_eq!(PoolKind::from_kind("InfobloxIPPool"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    /// Addresses for claims of the pool's own namespace.
    InClusterIPPool,
    /// Addresses for claims of any namespace.
    GlobalInClusterIPPool,
    /// IPv6 prefixes for claims of the pool's own namespace.
    InClusterPrefixPool,
    /// IPv6 prefixes for claims of any namespace.
    GlobalInClusterPrefixPool,
}

impl PoolKind {
    /// All four, in the order of their declaration.
    pub const ALL: [Self; 4] =
        [Self::InClusterIPPool, Self::GlobalInClusterIPPool, Self::InClusterPrefixPool, Self::GlobalInClusterPrefixPool];

    /// The pool kind that a `kind` field names, exactly spelled; `None` for anybody else's kind.
    pub fn from_kind(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pool| pool.kind() == kind)
    }

    /// The value of `kind`.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::InClusterIPPool => "InClusterIPPool",
            Self::GlobalInClusterIPPool => "GlobalInClusterIPPool",
            Self::InClusterPrefixPool => "InClusterPrefixPool",
            Self::GlobalInClusterPrefixPool => "GlobalInClusterPrefixPool",
        }
    }

    /// The resource name in URLs, RBAC rules and file names.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::InClusterIPPool => "inclusterippools",
            Self::GlobalInClusterIPPool => "globalinclusterippools",
            Self::InClusterPrefixPool => "inclusterprefixpools",
            Self::GlobalInClusterPrefixPool => "globalinclusterprefixpools",
        }
    }

    /// The name of one object, as `kubectl` and webhook names spell it.
    pub const fn singular(self) -> &'static str {
        match self {
            Self::InClusterIPPool => "inclusterippool",
            Self::GlobalInClusterIPPool => "globalinclusterippool",
            Self::InClusterPrefixPool => "inclusterprefixpool",
            Self::GlobalInClusterPrefixPool => "globalinclusterprefixpool",
        }
    }

    /// Whether the pool is cluster-scoped and serves claims of every namespace.
    pub const fn is_global(self) -> bool {
        matches!(self, Self::GlobalInClusterIPPool | Self::GlobalInClusterPrefixPool)
    }

    /// Whether the pool gives out prefixes rather than single addresses.
    pub const fn is_prefix(self) -> bool {
        matches!(self, Self::InClusterPrefixPool | Self::GlobalInClusterPrefixPool)
    }
}

impl fmt::Display for PoolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// What makes a spec one of a pool's: the served version it belongs to and the status beside it.
pub trait PoolSpec: Shape {
    /// The version, such as `v1alpha2`.
    const VERSION: &'static str;
    /// The shape of `status` in that version.
    type Status: Shape;
}

/// What `spec` and `status` of a pool can do: be read, written, compared and described by a schema.
pub trait Shape: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema {}

impl<T: Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema> Shape for T {}

/// A pool object of either scope. Which kind it is, is the [`Resource::DynamicType`]:
///
/// ```
/// use api::{PoolKind, v1alpha2::IpPool};
/// use kube::Resource;
///
/// let global = PoolKind::GlobalInClusterIPPool;
/// assert_eq!(IpPool::url_path(&global, None), "/apis/ipam.cluster.x-k8s.io/v1alpha2/globalinclusterippools");
/// ```
///
/// `spec` may be missing in a stored object, since the schema does not require it; it then has its default value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", bound = "")]
pub struct Pool<S: PoolSpec> {
    /// Group and version, as written in the object.
    #[serde(default)]
    pub api_version: String,
    /// Kind, as written in the object.
    #[serde(default)]
    pub kind: String,
    /// Standard metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What the user wants.
    #[serde(default, deserialize_with = "null_is_absent")]
    pub spec: S,
    /// What we counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<S::Status>,
}

impl<S: PoolSpec> Pool<S> {
    /// A pool to be created, without a namespace.
    pub fn new(kind: PoolKind, name: &str, spec: S) -> Self {
        Self {
            api_version: Self::api_version(&kind).into_owned(),
            kind: kind.kind().to_owned(),
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            spec,
            status: None,
        }
    }
}

impl<S: PoolSpec> Resource for Pool<S> {
    type DynamicType = PoolKind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &PoolKind) -> Cow<'_, str> {
        kind.kind().into()
    }

    fn group(_: &PoolKind) -> Cow<'_, str> {
        IPAM_GROUP.into()
    }

    fn version(_: &PoolKind) -> Cow<'_, str> {
        S::VERSION.into()
    }

    fn plural(kind: &PoolKind) -> Cow<'_, str> {
        kind.plural().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1alpha2::{IpPool, IpPoolSpec};

    #[test]
    fn the_other_names_follow_from_the_kind() {
        for pool in PoolKind::ALL {
            let lower = pool.kind().to_lowercase();
            assert_eq!(pool.singular(), lower);
            assert_eq!(pool.plural(), format!("{lower}s"));
            assert_eq!(pool.is_global(), lower.starts_with("global"));
            assert_eq!(pool.is_prefix(), lower.ends_with("prefixpool"));
            assert_eq!(PoolKind::from_kind(pool.kind()), Some(pool));
        }
    }

    #[test]
    fn a_kind_in_another_spelling_is_not_ours() {
        for kind in ["inclusterippool", "InClusterIPPools", " InClusterIPPool", "IPPool", ""] {
            assert_eq!(PoolKind::from_kind(kind), None, "{kind:?}");
        }
    }

    #[test]
    fn a_pool_to_be_created_names_its_version_and_kind() {
        let pool = IpPool::new(PoolKind::GlobalInClusterIPPool, "blue", IpPoolSpec::default());
        let json = serde_json::to_value(&pool).unwrap();
        assert_eq!(json["apiVersion"], "ipam.cluster.x-k8s.io/v1alpha2");
        assert_eq!(json["kind"], "GlobalInClusterIPPool");
        assert_eq!(json["metadata"]["name"], "blue");
    }

    #[test]
    fn a_pool_without_spec_or_with_nulls_decodes() {
        for json in [
            serde_json::json!({"metadata": {"name": "a"}}),
            serde_json::json!({"metadata": {"name": "a"}, "spec": null, "status": null}),
            serde_json::json!({"metadata": {"name": "a"}, "spec": {"addresses": null, "gateway": null}}),
        ] {
            let pool: IpPool = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(pool.spec, IpPoolSpec::default(), "{json}");
        }
    }
}
