//! The slim records that the cache keeps of claims, addresses, pools and clusters, and how they are read from objects.
//!
//! A full object never outlives its event. What is rare (foreign owner references, foreign conditions) is kept whole, so that a
//! repair gives it back byte for byte; what is common is a number.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::PoolKind;
use api::capi::{CapiVersion, ClaimConditions, ClaimReady, IpAddress, IpAddressClaim, ReadyView};
use api::names::{
    CLUSTER_NAME_LABEL, DELETE_FOR_MOVE, PAUSED, RELEASE_NOW, REQUESTED_ADDRESS, REQUESTED_ADDRESS_SHORT, WATCH_FILTER_LABEL,
};
use api::v1alpha2::PoolStatus;
use compact_str::CompactString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use poolutil::{Ledger, Pool, Span, SpecError};

use super::annotations::{LastAddresses, PreAllocations};
use super::compact::{Name, Names, Revision, Uid};
use super::facts::Waiting;
use super::owners;
use crate::kit::writes::Backoff;

/// Number of a namespace and name, under which a claim and its address are kept.
pub type Slot = u32;
/// Number of a pool that exists or is referred to.
pub type PoolId = u32;

/// What there is under one namespace and name.
#[derive(Debug)]
pub struct Entry {
    pub namespace: Name,
    pub name: CompactString,
    pub claim: Option<Box<Claim>>,
    pub address: Option<Box<Address>>,
    pub motion: Option<Box<Motion>>,
}

/// A claim on one of our pools.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Claim {
    pub uid: Uid,
    pub revision: Revision,
    pub generation: i32,
    pub pool: PoolId,
    /// Place in the order of arrival; 0 until the list that brought it has ended.
    pub arrival: u64,
    pub created: i64,
    pub deleting: Option<i64>,
    pub finalizers: Box<[Name]>,
    /// The cluster it belongs to, if it names one.
    pub cluster: Option<Name>,
    /// The cluster label that its address shall carry.
    pub label: Option<Name>,
    pub requested: Option<Box<str>>,
    pub conditions: Conditions,
    pub bound: bool,
    pub moving: bool,
    pub paused: bool,
    pub release_now: bool,
}

/// A claim's conditions: a few bytes in the common case, the whole of them otherwise.
#[derive(Debug)]
pub enum Conditions {
    /// There are none.
    None,
    /// Both flavours say that the claim holds an address, and there is nothing else.
    Bound {
        /// The address and prefix that the message names.
        text: CompactString,
        /// `observedGeneration`.
        generation: i32,
        /// Seconds since the epoch.
        since: i64,
    },
    /// Anything else.
    Other(Box<ClaimConditions>),
}

/// An address object.
#[derive(Debug)]
pub struct Address {
    pub uid: Uid,
    pub revision: Revision,
    /// Our pool that it refers to; `None` for anybody else's.
    pub pool: Option<PoolId>,
    /// Its value, if it can be read.
    pub span: Option<Span>,
    pub created: i64,
    pub deleting: Option<i64>,
    pub finalizers: Box<[Name]>,
    pub owners: Owners,
    pub cluster_label: Option<Name>,
    /// The claim it refers to, if that is not the one of its own name.
    pub other_claim: Option<Box<str>>,
    pub prefix: i16,
    /// The API server says that its spec was written by us.
    pub ours: bool,
    pub filtered: bool,
    pub moving: bool,
}

/// An address's owner references.
#[derive(Debug, Clone, PartialEq)]
pub enum Owners {
    /// Exactly as we write them, to the claim and to the pool with these UIDs.
    Standard {
        /// UID of the claim.
        claim: Uid,
        /// UID of the pool.
        pool: Uid,
        /// The version the claim is referred to in.
        version: CapiVersion,
    },
    /// Anything else.
    Other(Box<[OwnerReference]>),
}

/// What a process remembers of a claim that is not settled. Losing it loses time, nothing else.
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
#[derive(Debug, Default)]
pub struct ClusterEntry {
    /// Whether it is paused; `None` while it does not exist.
    pub paused: Option<bool>,
    /// The claims that name it.
    pub members: BTreeSet<Slot>,
}

/// Seconds since the epoch of a timestamp.
pub fn seconds(time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The value of a label.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn interned(names: &mut Names, list: Option<&Vec<String>>) -> Box<[Name]> {
    list.into_iter().flatten().map(|text| names.intern(text)).collect()
}

impl Claim {
    /// Reads a claim on pool `pool`.
    pub fn read(claim: &IpAddressClaim, pool: PoolId, version: CapiVersion, names: &mut Names) -> Self {
        let meta = &claim.metadata;
        let label = label(meta, CLUSTER_NAME_LABEL).filter(|name| !name.is_empty());
        let spec = claim.spec.cluster_name.as_deref().filter(|name| !name.is_empty());
        let mut intern = |name: Option<&str>| name.map(|name| names.intern(name));
        let (cluster, label) = (intern(spec.or(label)), intern(label.or(spec)));
        Self {
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            revision: Revision::new(meta.resource_version.as_deref().unwrap_or_default()),
            generation: meta.generation.and_then(|generation| i32::try_from(generation).ok()).unwrap_or_default(),
            pool,
            arrival: 0,
            created: seconds(meta.creation_timestamp.as_ref()).unwrap_or_default(),
            deleting: seconds(meta.deletion_timestamp.as_ref()),
            finalizers: interned(names, meta.finalizers.as_ref()),
            cluster,
            label,
            requested: annotation(meta, REQUESTED_ADDRESS).or_else(|| annotation(meta, REQUESTED_ADDRESS_SHORT)).map(Into::into),
            conditions: Conditions::read(claim, version),
            bound: claim.status.address_ref.as_ref().is_some_and(|address| Some(&address.name) == meta.name.as_ref()),
            moving: annotation(meta, DELETE_FOR_MOVE).is_some(),
            paused: annotation(meta, PAUSED).is_some(),
            release_now: annotation(meta, RELEASE_NOW) == Some("true"),
        }
    }
}

impl Conditions {
    fn read(claim: &IpAddressClaim, version: CapiVersion) -> Self {
        let conditions = ClaimConditions::of(claim, version);
        if conditions == ClaimConditions::default() {
            return Self::None;
        }
        Self::bound(&conditions).unwrap_or_else(|| Self::Other(Box::new(conditions)))
    }

    fn bound(conditions: &ClaimConditions) -> Option<Self> {
        let new = conditions.new_ready.as_ref()?;
        let text = new.message.strip_prefix("allocated ")?;
        let since = new.last_transition_time.parse::<k8s_openapi::jiff::Timestamp>().ok()?.as_second();
        let compact = Self::Bound { text: text.into(), generation: i32::try_from(new.observed_generation?).ok()?, since };
        (compact.whole() == *conditions).then_some(compact)
    }

    /// The conditions as they stand in the object.
    pub fn whole(&self) -> ClaimConditions {
        match self {
            Self::None => ClaimConditions::default(),
            Self::Other(conditions) => (**conditions).clone(),
            Self::Bound { text, generation, since } => {
                let since = k8s_openapi::jiff::Timestamp::from_second(*since).unwrap_or_default().to_string();
                let ready = ClaimReady {
                    reason: api::reasons::ClaimReason::AddressAllocated,
                    message: format!("allocated {text}"),
                    observed_generation: Some((*generation).into()),
                };
                ClaimConditions {
                    new_ready: Some(ReadyView {
                        status: "True".to_owned(),
                        reason: ready.reason.as_str().to_owned(),
                        message: ready.message,
                        observed_generation: ready.observed_generation,
                        last_transition_time: since.clone(),
                        place: 0,
                    }),
                    legacy_ready: Some(ReadyView {
                        status: "True".to_owned(),
                        last_transition_time: since,
                        ..ReadyView::default()
                    }),
                    ..ClaimConditions::default()
                }
            }
        }
    }
}

impl Address {
    /// Reads an address that refers to our pool `pool`, if it does.
    pub fn read(address: &IpAddress, pool: Option<(PoolId, &PoolKey)>, watch_filter: Option<&str>, names: &mut Names) -> Self {
        let meta = &address.metadata;
        let spec = &address.spec;
        let name = meta.name.as_deref().unwrap_or_default();
        let length = spec.prefix.and_then(|prefix| u8::try_from(prefix).ok());
        let span = match pool {
            Some((_, key)) if key.kind.is_prefix() => length.and_then(|length| Span::parse(&spec.address, length).ok()),
            _ => Span::parse_host(&spec.address).ok(),
        };
        Self {
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            revision: Revision::new(meta.resource_version.as_deref().unwrap_or_default()),
            pool: pool.map(|(id, _)| id),
            span,
            created: seconds(meta.creation_timestamp.as_ref()).unwrap_or_default(),
            deleting: seconds(meta.deletion_timestamp.as_ref()),
            finalizers: interned(names, meta.finalizers.as_ref()),
            owners: Owners::read(meta.owner_references.as_deref().unwrap_or_default(), name, pool.map(|(_, key)| key)),
            cluster_label: label(meta, CLUSTER_NAME_LABEL).map(|text| names.intern(text)),
            other_claim: (spec.claim_ref.name != name).then(|| spec.claim_ref.name.as_str().into()),
            prefix: spec.prefix.and_then(|prefix| i16::try_from(prefix).ok()).unwrap_or_default(),
            ours: owners::made_by_us(meta),
            filtered: watch_filter.is_none_or(|filter| label(meta, WATCH_FILTER_LABEL) == Some(filter)),
            moving: annotation(meta, DELETE_FOR_MOVE).is_some(),
        }
    }
}

impl Owners {
    fn read(references: &[OwnerReference], name: &str, pool: Option<&PoolKey>) -> Self {
        if let (Some(key), [first, second]) = (pool, references) {
            let (claim, pool) = (Uid::new(&first.uid), Uid::new(&second.uid));
            for version in [CapiVersion::V1beta2, CapiVersion::V1beta1] {
                let standard =
                    [owners::claim_reference(version, name, &claim), owners::pool_reference(key.kind, &key.name, &pool)];
                if references == standard {
                    return Self::Standard { claim, pool, version };
                }
            }
        }
        Self::Other(references.into())
    }

    /// The references as they stand in the object.
    pub fn whole(&self, name: &str, pool: Option<&PoolKey>) -> Vec<OwnerReference> {
        match (self, pool) {
            (Self::Standard { claim, pool, version }, Some(key)) => {
                vec![owners::claim_reference(*version, name, claim), owners::pool_reference(key.kind, &key.name, pool)]
            }
            (Self::Standard { .. }, None) => Vec::new(),
            (Self::Other(references), _) => references.to_vec(),
        }
    }
}
