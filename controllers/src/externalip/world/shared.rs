//! Claims, addresses and pools, as the IPAM capability's watches deliver them.

use std::net::IpAddr;
use std::time::Instant;

use api::PoolKind;
use api::capi::{CapiVersion, IpAddress, IpAddressClaim};
use api::v1alpha2::IpPool;

use super::{SourceId, Turn, Watched, World};
use crate::externalip::facts::ServiceKey;
use crate::externalip::{claims, read};
use crate::kit::watch::Seen;

impl World {
    /// Takes in an event of the watch of claims.
    pub fn take_claims(&mut self, seen: Seen<&IpAddressClaim>, version: CapiVersion, now: Instant) {
        self.capi = version;
        let key = |claim: &&IpAddressClaim| named(claim.metadata.namespace.as_deref(), claim.metadata.name.as_deref());
        match self.turn(Watched::Claims, seen, key) {
            Turn::Put(object) => self.put_claim(object, version, now),
            Turn::Drop(object) => self.drop_claim(&key(&object)),
            Turn::Only(listed) => {
                let gone: Vec<_> = self.claim_index.keys().filter(|claim| !listed.contains(claim)).cloned().collect();
                for claim in gone {
                    self.drop_claim(&claim);
                }
            }
            Turn::Nothing => {}
        }
    }

    fn put_claim(&mut self, object: &IpAddressClaim, version: CapiVersion, now: Instant) {
        let mut claim = read::claim(object, version, now);
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let Some(service) = claims::service_of(&claim.name, claim.service.as_deref()).map(ToOwned::to_owned) else {
            // It may have had our label before.
            return self.drop_claim(&ServiceKey { namespace, name: claim.name });
        };
        let key = ServiceKey { namespace: namespace.clone(), name: claim.name.clone() };
        let bound = object.status.address_ref.is_some();
        claim.address = self.addresses.get(&key).copied().filter(|_| bound);
        let slot = self.slot(&ServiceKey { namespace, name: service });
        if self.claim_index.get(&key).is_some_and(|before| *before != slot) {
            // Somebody wrote another label.
            self.drop_claim(&key);
        }
        self.claim_index.insert(key.clone(), slot);
        if bound {
            self.bound.insert(key);
        } else {
            self.bound.remove(&key);
        }
        let settled = self.sync(Watched::Services) == super::Sync::Synced;
        let Some(entry) = self.entry_mut(slot) else { return };
        if entry.service.is_none() && settled {
            entry.motion.service_missing.get_or_insert(now);
        }
        entry.motion.deliver_claim(&claim.name, Some(&claim.revision));
        if let Some(known) = entry.claims.iter_mut().find(|known| known.name == claim.name) {
            if known.uid == claim.uid {
                claim.seen = known.seen;
            }
            *known = claim;
        } else {
            entry.claims.push(claim);
            entry.claims.sort_by(|one, other| one.name.cmp(&other.name));
        }
        self.wake_with_source(slot);
    }

    fn drop_claim(&mut self, key: &ServiceKey) {
        let Some(slot) = self.claim_index.remove(key) else { return };
        self.bound.remove(key);
        if let Some(entry) = self.entry_mut(slot) {
            entry.claims.retain(|claim| claim.name != key.name);
            entry.motion.deliver_claim(&key.name, None);
        }
        self.wake_with_source(slot);
        self.sweep(slot);
    }

    /// Takes in an event of the watch of addresses.
    pub fn take_addresses(&mut self, seen: Seen<&IpAddress>) {
        let key = |address: &&IpAddress| named(address.metadata.namespace.as_deref(), address.metadata.name.as_deref());
        match self.turn(Watched::Addresses, seen, key) {
            Turn::Put(object) => {
                let key = key(&object);
                if claims::family_of(&key.name).is_some() {
                    self.set_address(&key, read::address(&object.spec.address));
                }
            }
            Turn::Drop(object) => self.set_address(&key(&object), None),
            Turn::Only(listed) => {
                let gone: Vec<_> = self.addresses.keys().filter(|key| !listed.contains(key)).cloned().collect();
                for key in gone {
                    self.set_address(&key, None);
                }
            }
            Turn::Nothing => {}
        }
    }

    fn set_address(&mut self, key: &ServiceKey, address: Option<IpAddr>) {
        let before = match address {
            Some(ip) => self.addresses.insert(key.clone(), ip),
            None => self.addresses.remove(key),
        };
        if before == address {
            return;
        }
        let Some(slot) = self.claim_index.get(key).copied() else { return };
        let bound = self.bound.contains(key);
        if let Some(claim) = self.entry_mut(slot).and_then(|entry| entry.claims.iter_mut().find(|claim| claim.name == key.name)) {
            // Before the claim says that it is bound, its address is not to be used: another manager may have to give it back.
            claim.address = address.filter(|_| bound);
        }
        self.wake_with_source(slot);
    }

    /// Takes in an event of the watch of one kind of pools.
    pub fn take_pools(&mut self, kind: PoolKind, seen: Seen<&IpPool>) {
        let key = |pool: &&IpPool| {
            pool_key(
                kind,
                pool.metadata.namespace.as_deref().unwrap_or_default(),
                pool.metadata.name.as_deref().unwrap_or_default(),
            )
        };
        match self.turn(Watched::Pools(kind), seen, key) {
            Turn::Put(object) => {
                let family = read::pool_family(object);
                let key = key(&object);
                if self.pools.insert((kind, key.clone()), family) != Some(family) {
                    self.wake_users(kind, &key);
                }
            }
            Turn::Drop(object) => self.drop_pool(kind, &key(&object)),
            Turn::Only(listed) => {
                let known = self.pools.keys().filter(|(known, key)| *known == kind && !listed.contains(key));
                let gone: Vec<_> = known.map(|(_, key)| key.clone()).collect();
                for key in gone {
                    self.drop_pool(kind, &key);
                }
            }
            Turn::Nothing => {}
        }
    }

    fn drop_pool(&mut self, kind: PoolKind, key: &ServiceKey) {
        if self.pools.remove(&(kind, key.clone())).is_some() {
            self.wake_users(kind, key);
        }
    }

    /// The Services whose source names a pool are planned again.
    fn wake_users(&mut self, kind: PoolKind, key: &ServiceKey) {
        let names = |source: &super::SourceEntry| source.pools().iter().any(|pool| pool.kind == kind && pool.name == key.name);
        let users: Vec<_> =
            self.sources.iter().filter(|(_, entry)| names(entry)).filter_map(|(id, _)| SourceId::try_from(id).ok()).collect();
        for id in users {
            self.wake_source(id);
            self.wake_bound(id);
        }
    }
}

/// Where a pool of this kind and name is found by a Service of the namespace.
pub(super) fn pool_key(kind: PoolKind, namespace: &str, name: &str) -> ServiceKey {
    let namespace = if kind.is_global() { "" } else { namespace };
    ServiceKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn named(namespace: Option<&str>, name: Option<&str>) -> ServiceKey {
    ServiceKey { namespace: namespace.unwrap_or_default().to_owned(), name: name.unwrap_or_default().to_owned() }
}
