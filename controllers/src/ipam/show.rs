//! What people see of the cache besides the objects: events on them, and the numbers of pools.

use api::capi::{IpAddress, IpAddressClaim};
use api::names::IPAM_GROUP;
use api::reasons::EventReason;
use kube::core::ApiResource;

use super::Ctx;
use super::records::{PoolId, Slot};
use super::world::{About, World};
use crate::kit::events::{ObjectRef, Severity};
use crate::kit::metrics::{PoolLabels, PoolNumbers};

impl Ctx {
    /// Publishes an event on an object.
    pub(super) fn notify(&self, world: &World, about: &About, reason: EventReason, note: String) {
        let Some(object) = object(world, about) else { return };
        let severity = if reason.is_warning() { Severity::Warning } else { Severity::Normal };
        self.events.publish(object, severity, reason.as_str(), note);
    }

    /// Shows a pool's numbers.
    pub(super) fn gauge(&self, world: &World, id: PoolId) {
        let Some(pool) = world.pool(id) else { return };
        let labels = PoolLabels {
            kind: pool.key.kind.kind(),
            namespace: pool.key.namespace.as_deref().unwrap_or_default().to_owned(),
            name: pool.key.name.to_string(),
        };
        if pool.record.is_none() {
            self.metrics.forget_pool(&labels);
            return;
        }
        let counts = pool.ledger.counts();
        self.metrics.pool_gauges(
            &labels,
            PoolNumbers {
                total: counts.total.saturating(),
                free: counts.free.saturating(),
                used: counts.used as u128,
                out_of_range: counts.out_of_range as u128,
                reserved: counts.reserved as u128,
                grace: pool.in_grace.len() as u128,
                parked: counts.parked as u128,
                waiting_claims: pool.ledger.waiting() as u128,
                overlaps: pool.overlap_count as u128,
                duplicate_addresses: pool.ledger.duplicate_count() as u128,
                orphaned_addresses: pool.orphans.len() as u128,
            },
        );
    }
}

/// How an event names its object.
fn object(world: &World, about: &About) -> Option<ObjectRef> {
    let named = |resource: ApiResource, slot: Slot, uid: String| {
        let entry = world.entry(slot)?;
        Some(ObjectRef {
            api_version: resource.api_version,
            kind: resource.kind,
            namespace: Some(world.names.text(entry.namespace).to_string()),
            name: entry.name.to_string(),
            uid,
        })
    };
    match about {
        About::Claim(slot, uid) => named(IpAddressClaim::api_resource(world.capi), *slot, uid.to_string()),
        About::Address(slot, uid) => named(IpAddress::api_resource(world.capi), *slot, uid.to_string()),
        About::ForeignClaim(claim) => {
            let (namespace, name, uid) = &**claim;
            let resource = IpAddressClaim::api_resource(world.capi);
            Some(ObjectRef {
                api_version: resource.api_version,
                kind: resource.kind,
                namespace: Some(namespace.clone()),
                name: name.clone(),
                uid: uid.clone(),
            })
        }
        About::Pool(id) => {
            let pool = world.pool(*id)?;
            Some(ObjectRef {
                api_version: format!("{IPAM_GROUP}/{}", api::v1alpha2::VERSION),
                kind: pool.key.kind.kind().to_owned(),
                namespace: pool.key.namespace.as_deref().map(ToOwned::to_owned),
                name: pool.key.name.to_string(),
                uid: pool.record.as_ref()?.uid.to_string(),
            })
        }
    }
}
