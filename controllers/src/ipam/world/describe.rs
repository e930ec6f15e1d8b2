//! The ledgers in words, for people who ask at `/debug/ledger`.

use std::fmt::Write as _;

use super::World;
use crate::ipam::records::{Address, Claim, ClusterEntry, Entry, PoolEntry, Slot};

impl World {
    /// One pool by `kind/namespace/name` (`kind/name` for cluster-scoped kinds), or all of them; `None` if there is no such pool.
    pub fn describe(&self, pool: Option<&str>) -> Option<String> {
        let mut text = String::new();
        for (_, entry) in &self.pools {
            let title = title(entry);
            if pool.is_none_or(|wanted| wanted == title) {
                self.describe_pool(&mut text, &title, entry);
            }
        }
        (pool.is_none() || !text.is_empty()).then_some(text)
    }

    /// How many objects of each kind are kept, and in about how many bytes, strings and indexes included.
    pub fn sizes(&self) -> [(&'static str, usize, usize); 4] {
        let (mut claims, mut addresses, mut names) = (0, 0, 0);
        for (_, entry) in &self.entries {
            claims += usize::from(entry.claim.is_some());
            addresses += usize::from(entry.address.is_some());
            names += if entry.name.is_heap_allocated() { entry.name.capacity() } else { 0 };
        }
        let index = self.index.capacity() * (size_of::<Slot>() + 1) * 8 / 7;
        let shared = self.entries.len() * size_of::<Entry>() + names + index;
        // A pool's set of its claims: trees are about three quarters full.
        let member = size_of::<Slot>() * 4 / 3;
        let held: usize = self.pools.iter().map(|(_, pool)| pool.ledger.bytes()).sum();
        [
            ("ipaddressclaims", claims, claims * (boxed::<Claim>() + member) + shared / 2),
            ("ipaddresses", addresses, addresses * boxed::<Address>() + held + shared / 2),
            ("pools", self.pools.len(), self.pools.len() * (size_of::<PoolEntry>())),
            ("clusters", self.clusters.len(), self.clusters.len() * size_of::<ClusterEntry>()),
        ]
    }

    fn describe_pool(&self, text: &mut String, title: &str, pool: &PoolEntry) {
        let counts = pool.ledger.counts();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{title}: total={} free={} used={} outOfRange={} reserved={} parked={} waiting={} duplicates={}",
            counts.total,
            counts.free,
            counts.used,
            counts.out_of_range,
            counts.reserved,
            counts.parked,
            pool.ledger.waiting(),
            pool.ledger.duplicate_count(),
        );
        for (slot, held) in pool.ledger.reservations() {
            let _ = writeln!(text, "  reserved {} for {} ({:?})", held.span, self.title(slot), held.state);
        }
        for twice in pool.ledger.duplicates(100) {
            let holders: Vec<String> = twice.holders.iter().map(|slot| self.title(*slot)).collect();
            let _ = writeln!(text, "  held twice {} by {}", twice.span, holders.join(", "));
        }
    }
}

/// What a value takes in a box of its own, with what an allocator adds.
fn boxed<T>() -> usize {
    (size_of::<T>() + size_of::<usize>()).next_multiple_of(16)
}

fn title(pool: &PoolEntry) -> String {
    let key = &pool.key;
    match &key.namespace {
        Some(namespace) => format!("{}/{namespace}/{}", key.kind, key.name),
        None => format!("{}/{}", key.kind, key.name),
    }
}
