//! The only window to the manager's memory: what a request about a pool does not tell by itself.

use std::collections::BTreeMap;
use std::fmt;

use api::PoolKind;
use poolutil::{AddrRange, Pool, RangeSet, Span};

/// A pool by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName<'a> {
    /// Its kind.
    pub kind: PoolKind,
    /// Its namespace; empty for a cluster-scoped kind.
    pub namespace: &'a str,
    /// Its name; empty while the API server has still to make one up.
    pub name: &'a str,
}

impl fmt::Display for PoolName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// The address objects of one pool: those of group `ipam.cluster.x-k8s.io` or without a group, with its kind and name,
/// in its namespace or, if it is cluster-scoped, in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InUse {
    /// How many there are.
    pub objects: usize,
    /// What they hold, in any order; those that do not parse are left out.
    pub values: Vec<Span>,
}

/// Another pool that shares addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partner {
    /// Which, for people: kind, namespace and name.
    pub pool: String,
    /// The lowest range in common.
    pub common: AddrRange,
}

/// The memory is not complete yet, so that "not in use" cannot be told from "not seen".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("address index is not synced yet, retry")]
pub struct NotSynced;

/// What the webhooks ask the allocator. Answers come from memory and may be a moment old: the finalizer of a pool, not the
/// refusal of its deletion, is what protects it.
pub trait PoolIndex: Send + Sync {
    /// The addresses of a pool.
    fn in_use(&self, pool: PoolName<'_>) -> Result<InUse, NotSynced>;

    /// The other pools that share one of `addresses` and can meet this pool in its network `domain` (the value of its
    /// label, or empty). Those that are not known yet are left out.
    fn overlapping(&self, pool: PoolName<'_>, domain: &str, addresses: &RangeSet) -> Vec<Partner>;

    /// What is wrong with the annotations by which a pool instructs the allocator, so that it ignores them or parts of
    /// them; read against the values of the pool.
    fn annotation_problems(&self, annotations: &BTreeMap<String, String>, space: &Pool) -> Vec<String>;
}
