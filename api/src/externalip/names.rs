//! Annotations, labels, finalizers and field managers of external IP sources.

/// API group of the sources; also the prefix of every annotation here.
pub const GROUP: &str = "externalip.spacebird.dev";

/// Category of the sources, for `kubectl get`.
pub const CATEGORY: &str = "externalip-manager";

/// Annotation of a Service: the source that its addresses come from.
pub const SOURCE: &str = "externalip.spacebird.dev/cluster-external-ip-source";

/// Annotation of a Service: the record of what we published on it, as JSON.
pub const MANAGED: &str = "externalip.spacebird.dev/managed";

/// Annotation of a Service: the addresses it would like to have from a pool, at most one of a family, comma-separated.
pub const REQUESTED_ADDRESSES: &str = "externalip.spacebird.dev/requested-addresses";

/// Annotation of a source: each new value has its solvers asked again at once.
pub const REFRESH: &str = "externalip.spacebird.dev/refresh";

/// Label of a claim of ours: the Service it was made for.
pub const SERVICE_LABEL: &str = "externalip.spacebird.dev/service";

/// Finalizer of a claim of ours: its address may still be published.
pub const PUBLISHED: &str = "externalip.spacebird.dev/published";

/// Type of a Service's condition: whether it has its addresses.
pub const READY: &str = "externalip.spacebird.dev/Ready";

/// Type of a Service's condition that is there only while another Service has the same address and port.
pub const PORT_CONFLICT: &str = "externalip.spacebird.dev/PortConflict";

/// Field manager of `spec.externalIPs` and of the record.
pub const EXTERNAL_IPS_MANAGER: &str = "ipam-in-cluster-externalip";

/// Field manager of a Service's ingress status.
pub const STATUS_MANAGER: &str = "ipam-in-cluster-externalip-status";

/// Field manager of a Service's conditions; another one than that of the ingress status, which may be given up alone.
pub const CONDITIONS_MANAGER: &str = "ipam-in-cluster-externalip-conditions";

/// Field manager of the annotations that external-dns reads.
pub const EXTERNAL_DNS_MANAGER: &str = "ipam-in-cluster-external-dns";

/// Field manager of the operator that this capability replaces: what it wrote becomes ours.
pub const PREDECESSOR: &str = "externalip-manager";

/// The load balancer class of Services whose ingress status is ours, unless a flag names another.
pub const LOAD_BALANCER_CLASS: &str = "externalip.spacebird.dev/external-ip";

/// The prefixes of external-dns's annotations, the newer one first, unless a flag names others.
pub const EXTERNAL_DNS_PREFIXES: [&str; 2] = ["external-dns.kubernetes.io/", "external-dns.alpha.kubernetes.io/"];

/// What follows such a prefix in the annotation that says where a name shall point to.
pub const EXTERNAL_DNS_TARGET: &str = "target";

/// What follows such a prefix in the annotation that says which names a Service shall have.
pub const EXTERNAL_DNS_HOSTNAME: &str = "hostname";

/// The action of every event.
pub const EVENT_ACTION: &str = "UpdatingExternalIPs";
