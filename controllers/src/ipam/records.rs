//! The slim records that the cache keeps of claims, addresses, pools and clusters, and how they are read from objects.
//!
//! A full object never outlives its event. What is rare (foreign owner references, foreign conditions) is kept whole, so that a
//! repair gives it back byte for byte; what is common is a number.

mod address;
mod claim;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::PoolKind;
use api::v1alpha2::PoolStatus;
use compact_str::CompactString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use poolutil::{Ledger, Pool, Span, SpecError};

use super::annotations::{LastAddresses, PreAllocations};
use super::compact::{Name, Revision, Seconds, Uid};
use super::facts::Waiting;
use crate::kit::writes::Backoff;

pub use address::Address;
pub use claim::Claim;

/// Number of a namespace and name, under which a claim and its address are kept.
pub type Slot = u32;
/// Number of a pool that exists or is referred to.
pub type PoolId = u32;

/// What there is under one namespace and name.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Entry {
    pub namespace: Name,
    pub name: CompactString,
    pub claim: Option<Box<Claim>>,
    pub address: Option<Box<Address>>,
    pub motion: Option<Box<Motion>>,
}

/// What a process remembers of a claim that is not settled. Losing it loses time, nothing else.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Motion {
    /// When the claim was first seen without an address, or its deletion was.
    pub since: Instant,
    pub waiting: Option<(Waiting, Instant)>,
    /// How long it had to wait for room, once it has some.
    pub waited: Option<Duration>,
    pub post: Option<Post>,
    /// The API server's refusal, and when to try again.
    pub refusal: Option<(String, Instant)>,
    /// Failed attempts in a row.
    pub backoff: Backoff,
    /// When missing conditions may be written.
    pub backfill: Option<Instant>,
    /// Collisions lost.
    pub collisions: u32,
    /// Versions of claim and address that our own writes have replaced, and when.
    pub wrote_claim: Option<(Revision, Instant)>,
    pub wrote_address: Option<(Revision, Instant)>,
    /// The address that went with its last finalizer, and when.
    pub removed: Option<(Uid, Instant)>,
    /// The bound, deleting claim of which the API server has said that its address is gone.
    pub bereft: Option<Uid>,
    /// The value of the address that vanished under a bound claim.
    pub former: Option<Span>,
    /// The address vanished because it moved away.
    pub moved: bool,
}

/// An address that was sent to the API server by this process and not published yet.
#[derive(Debug, Clone)]
pub struct Post {
    pub claim: Uid,
    pub pool: PoolId,
    pub span: Span,
    /// While it is on its way the claim was published with another object: only what its answer names is ours.
    pub told: bool,
    pub sent: Instant,
    pub answered: Option<(Instant, Uid)>,
}

impl Default for Motion {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            waiting: None,
            waited: None,
            post: None,
            refusal: None,
            backoff: Backoff::default(),
            backfill: None,
            collisions: 0,
            wrote_claim: None,
            wrote_address: None,
            removed: None,
            bereft: None,
            former: None,
            moved: false,
        }
    }
}

/// Which pool; the namespace is `None` for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    pub kind: PoolKind,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl PoolKey {
    /// The pool that a reference in `namespace` names.
    pub fn new(kind: PoolKind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: (!kind.is_global()).then(|| namespace.into()), name: name.into() }
    }
}

/// `InClusterIPPool team-a/blue`, `GlobalInClusterIPPool blue`: how people are told of a pool.
impl fmt::Display for PoolKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// A pool, what is known of its values, and who refers to it.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct PoolEntry {
    pub key: PoolKey,
    /// `None` while the pool does not exist.
    pub record: Option<PoolRecord>,
    pub ledger: Ledger<Slot>,
    /// All claims on it.
    pub members: BTreeSet<Slot>,
    /// Those of them that are unbound or deleting.
    pub open: BTreeSet<Slot>,
    /// Something changed for all of its claims: those that wait reserve in their order before any other does.
    pub unserved: bool,
    /// Claims whose address stays taken for a while after their deletion.
    pub in_grace: BTreeSet<Slot>,
    /// Addresses of it that are deleting without a claim.
    pub orphans: BTreeSet<Slot>,
    /// Values to be written to its memory, by the name they are remembered under.
    pub to_remember: BTreeMap<String, Span>,
    pub overlaps: Vec<(PoolId, poolutil::AddrRange)>,
    pub overlap_count: usize,
    /// When its status was last written.
    pub written: Option<Instant>,
    /// Versions that our own writes have replaced, and when.
    pub stale: Vec<(Revision, Instant)>,
    pub backoff: Backoff,
}

/// A pool object. There are few of these, so it is kept whole.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct PoolRecord {
    pub uid: Uid,
    pub revision: Revision,
    pub generation: i64,
    pub deleting: bool,
    pub moving: bool,
    pub paused: bool,
    pub finalizers: Vec<String>,
    pub domain: String,
    pub filter: Option<String>,
    pub space: Result<Arc<Pool>, SpecError>,
    pub prefix: i64,
    pub gateway: String,
    pub grace: Duration,
    pub status: PoolStatus,
    pub sticky: Option<Duration>,
    pub memory: LastAddresses,
    pub pre_allocations: PreAllocations,
}

/// A cluster that exists or is referred to.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub struct ClusterEntry {
    /// Whether it is paused; `None` while it does not exist.
    pub paused: Option<bool>,
    /// The claims that name it.
    pub members: BTreeSet<Slot>,
}

/// A timestamp of an object.
fn seconds(time: Option<&Time>) -> Option<Seconds> {
    time.map(|time| Seconds::new(time.0.as_second()))
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}
