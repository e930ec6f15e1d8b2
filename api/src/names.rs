//! Finalizers, labels, annotations and API groups, for everyone who reads or writes an object.
//!
//! All of them except the `in-cluster.` ones are known to installed clusters, to infrastructure providers and to
//! clusterctl, and never change. An address object carries no annotation and no label of ours besides
//! [`CLUSTER_NAME_LABEL`] and [`WATCH_FILTER_LABEL`].

/// API group of the pools, of claims and of addresses.
pub const IPAM_GROUP: &str = "ipam.cluster.x-k8s.io";

/// API group of Cluster API's Cluster.
pub const CLUSTER_GROUP: &str = "cluster.x-k8s.io";

/// Field manager of every write, and the reporting controller of every event.
pub const FIELD_MANAGER: &str = "ipam-in-cluster";

/// Finalizer of a claim: we must release its address before it goes.
pub const RELEASE_ADDRESS: &str = "ipam.cluster.x-k8s.io/ReleaseAddress";

/// Finalizer of an address: it stays while its claim lives.
pub const PROTECT_ADDRESS: &str = "ipam.cluster.x-k8s.io/ProtectAddress";

/// Finalizer of a pool: it stays while addresses of it exist.
pub const PROTECT_POOL: &str = "ipam.cluster.x-k8s.io/ProtectPool";

/// Annotation of a pool: with any value, the webhook lets it be deleted while addresses exist.
pub const SKIP_VALIDATE_DELETE: &str = "ipam.cluster.x-k8s.io/skip-validate-delete-webhook";

/// Annotation of a claim, pool or Cluster: with any value, it is paused.
pub const PAUSED: &str = "cluster.x-k8s.io/paused";

/// Label of a claim or address: the cluster it belongs to. Present but empty means no cluster.
pub const CLUSTER_NAME_LABEL: &str = "cluster.x-k8s.io/cluster-name";

/// Label of a claim, pool or address: the manager instance that looks after it, see `--watch-filter`.
pub const WATCH_FILTER_LABEL: &str = "cluster.x-k8s.io/watch-filter";

/// Annotation of a pool: what the other version could not hold, as JSON.
pub const CONVERSION_DATA: &str = "cluster.x-k8s.io/conversion-data";

/// Annotation of any object: it leaves this cluster with a `clusterctl move`.
pub const DELETE_FOR_MOVE: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";

/// Label of our definitions: `clusterctl move` takes objects of this kind along, with what they own.
pub const MOVE_HIERARCHY_LABEL: &str = "clusterctl.cluster.x-k8s.io/move-hierarchy";

/// Labels of our definitions, by Cluster API contract; the value is the version of ours that fulfils it.
pub const CONTRACT_LABELS: [&str; 2] = ["cluster.x-k8s.io/v1beta1", "cluster.x-k8s.io/v1beta2"];

/// Label on everything that an installation of this provider consists of; the value is [`FIELD_MANAGER`].
pub const PROVIDER_LABEL: &str = "cluster.x-k8s.io/provider";

/// Annotation of a claim: the address or prefix it wants, see [`REQUESTED_ADDRESS_SHORT`] too.
pub const REQUESTED_ADDRESS: &str = "in-cluster.ipam.cluster.x-k8s.io/requested-address";

/// Annotation of a claim that other providers use for the same; read where [`REQUESTED_ADDRESS`] is absent.
pub const REQUESTED_ADDRESS_SHORT: &str = "ipAddress";

/// Annotation of a pool: JSON object of claim name to the value set aside for it.
pub const PRE_ALLOCATIONS: &str = "in-cluster.ipam.cluster.x-k8s.io/pre-allocations";

/// Annotation of a pool: how long a released value is remembered for its claim's name, as a Go duration.
pub const STICKY: &str = "in-cluster.ipam.cluster.x-k8s.io/sticky";

/// Annotation of a pool: the remembered values, as JSON; written by us.
pub const LAST_ADDRESSES: &str = "in-cluster.ipam.cluster.x-k8s.io/last-addresses";

/// On a claim: the UID of an address that must not be published, because another with its value came first.
pub const LOST_ADDRESS: &str = "in-cluster.ipam.cluster.x-k8s.io/lost-address";
/// Annotation of a claim: `"true"` releases it although foreign finalizers remain.
pub const RELEASE_NOW: &str = "in-cluster.ipam.cluster.x-k8s.io/release-now";

/// Label of a pool: pools are compared for overlap only within one network domain.
pub const NETWORK_DOMAIN_LABEL: &str = "in-cluster.ipam.cluster.x-k8s.io/network-domain";
