//! What the plans are made from: plain values about one Service, its claims and its source. `observe` and the watches fill them in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::externalip::reasons::ExternalIpEvent;
use api::externalip::{ClusterExternalIPSourceStatus, FieldError, Output, PoolRef, Source};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use poolutil::{Cidr, Family};

use super::answers::Answers;
use super::cluster::Cluster;
use super::plan::Step;

/// The moment of a plan, on the clock of the wall and on one that never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For what is written.
    pub wall: Timestamp,
    /// For what is measured.
    pub instant: Instant,
}

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything the plan for one Service reads.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Namespace and name, also of a Service that is gone.
    pub key: &'a ServiceKey,
    /// The Service, if it exists.
    pub service: Option<&'a ServiceFacts>,
    /// Claims in its namespace that say they are for it, or are named as if they were (see [`claims::service_of`](super::claims::service_of)).
    pub claims: &'a [ClaimFacts],
    /// The source that its annotation names, if that exists.
    pub source: Option<&'a SourceFacts>,
    /// The pools that the source's solvers name, as far as they exist; namespaced ones in the Service's namespace.
    pub pools: &'a [PoolFacts],
    /// Labels of its namespace, where they are known.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
    /// What the shared solvers answered.
    pub answers: &'a Answers,
    /// What other Services and the cluster itself use.
    pub cluster: &'a Cluster,
    /// Flags that change a decision.
    pub rules: &'a Rules,
    /// What this process remembers.
    pub memory: &'a Memory,
}

/// Flags that change a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Private addresses are accepted where the source says nothing.
    pub allow_private: bool,
    /// If not empty, only these addresses are accepted.
    pub allow: Vec<Cidr>,
    /// These addresses are not accepted.
    pub deny: Vec<Cidr>,
    /// The load balancer class that is ours.
    pub load_balancer_class: String,
    /// Prefixes of external-dns' annotations, with the slash.
    pub external_dns_prefixes: Vec<String>,
    /// How long addresses outlive their source.
    pub source_grace: Duration,
    /// The value of the watch-filter label that our claims carry.
    pub watch_filter: Option<String>,
}

impl Rules {
    /// Whether the ingress status of the Service is ours to write.
    pub fn is_our_class(&self, service: &ServiceFacts) -> bool {
        service.kind == "LoadBalancer" && service.class.as_deref() == Some(self.load_balancer_class.as_str())
    }
}

/// A Service as far as it matters here; projected on arrival, the object itself is dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceFacts {
    /// Its namespace and name.
    pub key: ServiceKey,
    /// Its UID.
    pub uid: String,
    /// Its resource version: the precondition of patches to it.
    pub revision: String,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation that binds it, as it stands.
    pub source: Option<String>,
    /// The ownership record, as it stands.
    pub record: Option<String>,
    /// The annotation that asks for certain addresses of a pool.
    pub requested: Option<String>,
    /// What external-dns is told to publish it as.
    pub hostnames: BTreeSet<String>,
    /// The target annotations of external-dns, one for each prefix.
    pub targets: Vec<TargetFacts>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<String>,
    /// Who wrote `spec.externalIPs`, besides us; the latest first.
    pub external_ips_managers: Vec<String>,
    /// `status.loadBalancer.ingress`.
    pub ingress: Vec<Ingress>,
    /// The ingress list carries our field manager.
    pub ingress_ours: bool,
    /// The addresses of an ingress list that became empty a moment ago.
    pub lingering: Option<Lingering>,
    /// `spec.type`.
    pub kind: String,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `spec.ipFamilies`.
    pub families: Vec<Family>,
    /// `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.ports`: number and protocol.
    pub ports: Vec<(u16, String)>,
    /// Our conditions.
    pub conditions: Vec<Condition>,
}

/// One annotation that tells external-dns where a name points.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetFacts {
    /// The annotation.
    pub annotation: String,
    /// Its value.
    pub value: Option<String>,
    /// It carries our field manager.
    pub ours: bool,
    /// Another manager that has a hold on it.
    pub other: Option<String>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    /// The address, if it is one.
    pub ip: Option<IpAddr>,
    /// How traffic to it is handled.
    pub mode: Option<String>,
}

/// What an ingress list held before it became empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Lingering {
    /// The addresses.
    pub ips: Vec<IpAddr>,
    /// When it became empty.
    pub since: Instant,
}

/// A claim on a pool that is, or looks like, one of a Service's.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its resource version.
    pub revision: String,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// All its finalizers, in order.
    pub finalizers: Vec<String>,
    /// The Service that our label on it names.
    pub service: Option<String>,
    /// Its controlling owner.
    pub owner: Option<Owner>,
    /// The pool it is on.
    pub pool: PoolRef,
    /// The address that was asked for when it was made.
    pub requested: Option<String>,
    /// The address it is bound to.
    pub address: Option<IpAddr>,
    /// Reason and message of its `Ready` condition while that is false.
    pub waiting: Option<(String, String)>,
    /// When this process first saw it.
    pub seen: Instant,
}

/// A pool that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolFacts {
    /// Which.
    pub pool: PoolRef,
    /// The family of its addresses; `None` if that cannot be said.
    pub family: Option<Family>,
}

/// The controlling owner of a claim.
#[derive(Debug, Clone, PartialEq)]
pub struct Owner {
    /// `v1`, for a Service.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A `ClusterExternalIPSource`.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceFacts {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its spec, or what is wrong with it.
    pub spec: Result<Source, Vec<FieldError>>,
    /// The value of its refresh annotation.
    pub refresh: Option<String>,
    /// Its status as it stands.
    pub status: Option<ClusterExternalIPSourceStatus>,
}

/// What this process remembers about one Service. Nothing of it is needed after a restart.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// A write of ours is not in view yet, so the facts are old.
    pub own_write_unseen: bool,
    /// When this process began to lead.
    pub began: Instant,
    /// Since when this process knows that the source named by the annotation does not exist.
    pub source_missing: Option<Instant>,
    /// Since when this process knows that the Service of a claim does not exist.
    pub service_missing: Option<Instant>,
    /// Outputs that could not be written, and why.
    pub troubles: BTreeMap<Output, Trouble>,
    /// The last note of each reason.
    pub told: BTreeMap<ExternalIpEvent, String>,
}

/// An output that could not be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// What kind of trouble.
    pub kind: TroubleKind,
    /// For people: the server's words, or the name of the other manager.
    pub text: String,
    /// The step that failed; another one is tried at once.
    pub step: Step,
    /// When the same is tried again.
    pub until: Instant,
}

/// Why an output could not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TroubleKind {
    /// An admission plugin denies it.
    DeniedByAdmission,
    /// The API server finds it wrong.
    WriteRejected,
    /// Somebody keeps changing what we write.
    Contended,
    /// It is somebody else's.
    OutputUnavailable,
}

/// Everything the plan for one source reads.
#[derive(Debug, Clone, Copy)]
pub struct Pass<'a> {
    /// The source.
    pub source: &'a SourceFacts,
    /// The Services whose annotation names it.
    pub bound: &'a [Bound<'a>],
    /// What the shared solvers answered.
    pub answers: &'a Answers,
    /// What other Services and the cluster itself use.
    pub cluster: &'a Cluster,
    /// Flags that change a decision.
    pub rules: &'a Rules,
    /// What this process remembers of the source.
    pub memory: &'a SourceMemory,
}

/// A Service bound to a source.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// The Service.
    pub service: &'a ServiceFacts,
    /// Its claims, as in [`Facts::claims`].
    pub claims: &'a [ClaimFacts],
    /// The pools that the source's solvers name, as in [`Facts::pools`].
    pub pools: &'a [PoolFacts],
    /// Labels of its namespace, where they are known.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
}

/// What this process remembers about one source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceMemory {
    /// When this process began to lead.
    pub began: Option<Instant>,
    /// This API server warns of `spec.externalIPs` (1.36 and later).
    pub deprecated: bool,
    /// The last note of each reason.
    pub told: BTreeMap<ExternalIpEvent, String>,
}
