//! What a plan is made from: plain values about one claim, its address, its pool and its cluster.
//!
//! [`observe`](super::observe) fills these in, [`plan`](super::plan) reads them, and nothing here refers to the cache.

use std::fmt;
use std::time::Duration;

use api::PoolKind;
use api::capi::CapiVersion;
use api::capi::ClaimConditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use poolutil::{Refusal, ReservationState, Span};

use super::compact::{Revision, Uid};

/// Everything known about the claim and the address of one namespace and name.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Namespace of claim and address.
    pub namespace: String,
    /// Name of claim and address.
    pub name: String,
    /// Which of Cluster API's versions the server speaks.
    pub capi: CapiVersion,
    /// The claim, if it exists and is ours to serve.
    pub claim: Option<ClaimFacts>,
    /// The claim's cluster.
    pub cluster: ClusterFacts,
    /// The claim's pool, or the address's where there is no claim.
    pub pool: PoolFacts,
    /// The address of that name.
    pub address: Option<AddressFacts>,
    /// What the ledger holds in reserve for the claim.
    pub reservation: Option<ReservedFacts>,
    /// What the ledger said to the wish that this plan made a moment ago.
    pub refused: Option<(Wish, Denial)>,
    /// Which values the claim has a special relation to.
    pub wishes: Wishes,
    /// What this process remembers of the passes before.
    pub motion: MotionFacts,
    /// Flags that change a decision.
    pub policy: Policy,
}

/// A claim on one of our pools.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct ClaimFacts {
    /// The claim's UID.
    pub uid: Uid,
    /// The version last seen: the precondition of every write to it.
    pub revision: Revision,
    /// `metadata.generation`.
    pub generation: i64,
    /// Seconds since the epoch at which its deletion was asked for.
    pub deleting: Option<i64>,
    /// It is leaving with a `clusterctl move`.
    pub moving: bool,
    /// It carries the paused annotation.
    pub paused: bool,
    /// All its finalizers, in order.
    pub finalizers: Vec<String>,
    /// It is to be released although others still hold it.
    pub release_now: bool,
    /// An address that lost its value to another, and must not be published any more.
    pub lost: Option<Uid>,
    /// `status.addressRef` names the claim's own address.
    pub bound: bool,
    /// Its conditions.
    pub conditions: ClaimConditions,
    /// The cluster label's value that its address shall carry.
    pub cluster_label: Option<String>,
}

/// The cluster a claim belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterFacts {
    /// The claim names none.
    Unnamed,
    /// It exists and runs.
    Running,
    /// It exists and is paused.
    Paused,
    /// The claim names it, but it does not exist.
    Missing(String),
}

/// The pool that a claim or address refers to.
#[derive(Debug, Clone, PartialEq)]
pub enum PoolFacts {
    /// It does not exist, or is not visible.
    Absent(PoolKind, String),
    /// It exists.
    Known(Box<PoolView>),
}

/// A pool that exists.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolView {
    /// Its kind.
    pub kind: PoolKind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uid,
    /// It carries the paused annotation.
    pub paused: bool,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// Why it gives nothing out, if it does not.
    pub trouble: Option<String>,
    /// How long an address stays taken after its claim was deleted.
    pub grace: Duration,
    /// What goes to `spec.prefix` of an address.
    pub prefix: i64,
    /// What goes to `spec.gateway` of an address; empty for none.
    pub gateway: String,
    /// How many values it has.
    pub total: String,
    /// How many address objects refer to it.
    pub used: u64,
}

/// The address object of the claim's name.
#[derive(Debug, Clone, PartialEq)]
pub struct AddressFacts {
    /// The address's UID.
    pub uid: Uid,
    /// The version last seen.
    pub revision: Revision,
    /// Seconds since the epoch at which its deletion was asked for.
    pub deleting: Option<i64>,
    /// It is leaving with a `clusterctl move`.
    pub moving: bool,
    /// Whose it is.
    pub relation: Relation,
    /// UID in its owner reference to a claim of this name.
    pub claim_uid: Option<Uid>,
    /// Its value, if it can be read.
    pub span: Option<Span>,
    /// Address and prefix, as `10.0.0.10/24`.
    pub text: String,
    /// All its finalizers, in order.
    pub finalizers: Vec<String>,
    /// What is missing from it.
    pub repair: Option<Repair>,
    /// We made it, and nobody was told of it yet.
    pub fresh: bool,
    /// This very process made it, and nobody was told of it yet.
    pub made_here: bool,
    /// The other holders of its value, unless it is fresh and provably precedes them all.
    pub contest: Option<Contest>,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relation {
    /// Its references name this claim and its pool.
    Ours,
    /// Its references name something else; the text says what.
    Other(String),
    /// It is another claim's of this name, of which it or this claim is on its way out.
    Another,
}

/// Other address objects hold the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Contest {
    /// One of the others, as namespace/name.
    pub holder: String,
    /// A claim already publishes one of the others, or there is no claim to ask.
    pub published: bool,
    /// One of the others provably came first.
    pub behind: bool,
    /// One of the others is fresh and not provably later: it will delete itself, or win.
    pub fresh: bool,
    /// One of the others is not fresh, and older by creation time and UID.
    pub elder: bool,
}

/// The fields that complete an address; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// The whole list, foreign entries included.
    pub owners: Option<Vec<OwnerReference>>,
    /// The whole list, foreign entries included.
    pub finalizers: Option<Vec<String>>,
    /// Labels to set.
    pub labels: Vec<(String, String)>,
    /// This process sent the address, and nobody was told of it.
    pub untold: bool,
    /// It does not refer to the claim so far: it was an earlier one's, or nobody's. Or else a later one's, and our view is behind.
    pub changes_owner: bool,
}

/// A reservation in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedFacts {
    /// The reserved value.
    pub span: Span,
    /// What has been sent for it.
    pub state: ReservationState,
    /// Time since the last POST was sent or, in state `Answered`, answered.
    pub age: Duration,
}

/// Which value a claim asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The one its annotation or the pool's pre-allocations name, and no other.
    Named(Span),
    /// The one its address had before somebody removed the object.
    Former(Span),
    /// The one the pool remembers for its name.
    Remembered(Span),
    /// The lowest that is open.
    Lowest,
    /// One of the 64 lowest that are open; used after a collision.
    Scattered,
}

/// Why a wish was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// Nothing is open, or older claims wait for it.
    NoRoom,
    /// `namespace/name` has it.
    Held(String),
    /// The pool does not give it out.
    NotAllocatable(Refusal),
}

/// The values a claim has a special relation to, strongest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// From the annotation or the pool's pre-allocations; the error says what is wrong with it.
    pub named: Option<Result<Span, String>>,
    /// Of the address object that vanished under a bound claim.
    pub former: Option<Span>,
    /// From the pool's memory.
    pub remembered: Option<Span>,
    /// A collision was lost before.
    pub collided: bool,
}

/// Why a claim waits for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// For its cluster to exist.
    Cluster,
    /// For its pool to exist and to be in order.
    Pool,
    /// For room in its pool.
    Room,
    /// For the user to change something, or for a named value.
    Refused,
    /// For another manager, which may be able to prove that the claim's address came first.
    Order,
    /// Deleted, for whoever still uses the address.
    Consumer,
    /// The same, and the user was told.
    ConsumerTold,
    /// A kept orphan: for a person to decide; the user was told.
    OrphanTold,
    /// Deleted, for the pool's reuse grace to end.
    Grace,
}

/// What this process remembers of a claim between passes. It may be lost at any time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MotionFacts {
    /// We wrote to one of the objects, and our view does not show it yet.
    pub own_write_unseen: bool,
    /// What it waits for, and for how long already.
    pub waiting: Option<(Waiting, Duration)>,
    /// Its place in the queue of those who wait for room, from 1.
    pub position: Option<usize>,
    /// The API server refused the address: its words, and how long until it is tried again.
    pub refusal: Option<(String, Duration)>,
    /// The address vanished with a move, and is not made again.
    pub moved: bool,
    /// The claim's address was seen to vanish, or is known to be gone; else it may only be late in our view.
    pub bereft: bool,
    /// Whether the pool's memory holds the value that is to be released.
    pub memory: Memory,
}

/// Whether a released value must be remembered first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Memory {
    /// The pool does not remember.
    #[default]
    Off,
    /// It must be written to the pool before the address goes.
    Missing,
    /// It stands in the pool.
    Written,
}

/// Flags that change a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "one for each flag")]
pub struct Policy {
    /// `--honor-foreign-finalizers`.
    pub honor_foreign_finalizers: bool,
    /// `--release-orphans` for namespaced pools.
    pub release_orphans_namespaced: bool,
    /// `--release-orphans` for Global pools.
    pub release_orphans_global: bool,
    /// External IP sources run in this manager: they take their finalizer off claims themselves.
    pub external_ips: bool,
}

impl Policy {
    /// Whether deleting addresses without a claim are let go in this pool.
    pub fn release_orphans(&self, pool: &PoolFacts) -> bool {
        if pool.kind().is_global() { self.release_orphans_global } else { self.release_orphans_namespaced }
    }
}

/// `InClusterIPPool blue`.
impl fmt::Display for PoolFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(kind, name) => write!(f, "{kind} {name}"),
            Self::Known(pool) => write!(f, "{} {}", pool.kind, pool.name),
        }
    }
}

impl PoolFacts {
    /// The kind of the pool, whether it exists or not.
    pub fn kind(&self) -> PoolKind {
        match self {
            Self::Absent(kind, _) => *kind,
            Self::Known(pool) => pool.kind,
        }
    }
}
