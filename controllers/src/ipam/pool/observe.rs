//! Reads the facts about one pool out of the cache.

use std::time::{Duration, Instant};

use api::PoolKind;
use api::v1alpha2::PoolStatus;
use k8s_openapi::jiff::Timestamp;
use poolutil::{Counts, ReservationState};

use crate::ipam::compact::{Revision, Uid};
use crate::ipam::observe::trouble;
use crate::ipam::records::{PoolId, Slot};
use crate::ipam::world::World;

/// How many values held twice, and how many overlapping pools, a condition names.
const NAMED: (usize, usize) = (5, 3);

/// How long a view that lacks our own write is waited for.
const BELIEVED: Duration = Duration::from_secs(10);

/// Everything known about one pool that exists.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Facts {
    /// Its kind.
    pub kind: PoolKind,
    /// Its namespace, unless it is cluster-scoped.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: Uid,
    /// The version last seen.
    pub revision: Revision,
    /// `metadata.generation`.
    pub generation: i64,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// It is leaving with a `clusterctl move`.
    pub moving: bool,
    /// All its finalizers, in order.
    pub finalizers: Vec<String>,
    /// Its status as last seen.
    pub status: PoolStatus,
    /// Whether this manager looks after it, by the watch filter.
    pub served: bool,
    /// Whether all of its addresses are visible.
    pub visible: bool,
    /// Why its spec cannot be read, if it cannot.
    pub invalid: Option<String>,
    /// Why it gives nothing out, if it does not.
    pub trouble: Option<String>,
    /// The ledger's numbers.
    pub counts: Counts,
    /// Whether an address may still be on its way.
    pub in_flight: bool,
    /// How many claims wait for room.
    pub waiting: usize,
    /// Some of the values that are held twice, as `10.0.0.1 (a/x, a/y)`.
    pub duplicates: Vec<String>,
    /// How many values are.
    pub duplicate_count: usize,
    /// Some of the pools it overlaps, with the first common range.
    pub overlaps: Vec<String>,
    /// How many pools it overlaps.
    pub overlap_count: usize,
    /// The text its memory shall have, if that differs from what it has.
    pub memory: Option<String>,
    /// What is wrong with its annotations.
    pub problems: Vec<String>,
    /// Time since its status was last written.
    pub written: Option<Duration>,
    /// We wrote to it, and our view does not show it yet.
    pub own_write_unseen: bool,
    /// When one of its remembered values is next forgotten.
    pub forgets_in: Option<Duration>,
}

/// The facts about a pool; `None` while it does not exist.
pub fn observe(world: &World, id: PoolId, wall: Timestamp, now: Instant) -> Option<Facts> {
    let pool = world.pool(id)?;
    let record = pool.record.as_ref()?;
    let titles = |slots: &[Slot]| slots.iter().map(|slot| world.title(*slot)).collect::<Vec<_>>().join(", ");
    let duplicates = if pool.ledger.duplicate_count() == 0 { Vec::new() } else { pool.ledger.duplicates(NAMED.0) };
    let partner = |(id, range): &(PoolId, poolutil::AddrRange)| {
        let key = &world.pool(*id)?.key;
        Some(format!("{key} at {}-{}", range.first_ip(), range.last_ip()))
    };
    let memory = record.sticky.filter(|_| !pool.to_remember.is_empty() && record.space.is_ok()).and_then(|keep| {
        let more = pool.to_remember.iter().map(|(claim, span)| (claim.clone(), *span));
        record.memory.with(more, wall.checked_add(keep).unwrap_or(wall), wall).write()
    });
    let wall_seconds = wall.as_second();
    Some(Facts {
        kind: pool.key.kind,
        namespace: pool.key.namespace.as_deref().map(ToOwned::to_owned),
        name: pool.key.name.to_string(),
        uid: record.uid.clone(),
        revision: record.revision.clone(),
        generation: record.generation,
        deleting: record.deleting,
        moving: record.moving,
        finalizers: record.finalizers.clone(),
        status: record.status.clone(),
        served: world.serves_pool(record),
        visible: world.addresses_everywhere || !pool.key.kind.is_global(),
        invalid: record.space.as_ref().err().map(ToString::to_string),
        trouble: trouble(world, pool),
        counts: pool.ledger.counts(),
        in_flight: pool.ledger.reservations().any(|(_, held)| held.state != ReservationState::Unsent),
        waiting: pool.ledger.waiting(),
        duplicates: duplicates.iter().map(|twice| format!("{} ({})", twice.span, titles(&twice.holders))).collect(),
        duplicate_count: pool.ledger.duplicate_count(),
        overlaps: pool.overlaps.iter().filter_map(partner).take(NAMED.1).collect(),
        overlap_count: pool.overlap_count,
        memory,
        problems: record.pre_allocations.problems.clone(),
        written: pool.written.map(|written| now.saturating_duration_since(written)),
        own_write_unseen: pool
            .stale
            .iter()
            .any(|(stale, at)| *stale == record.revision && now.saturating_duration_since(*at) < BELIEVED),
        forgets_in: record.sticky.and_then(|_| {
            let next = record.memory.at(wall).map(|(.., until)| until.as_second()).min()?;
            Some(Duration::from_secs((next - wall_seconds).max(1).unsigned_abs()))
        }),
    })
}
