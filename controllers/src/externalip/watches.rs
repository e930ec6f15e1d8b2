//! The watches of this capability, and what is said of them at `/readyz`. Claims, addresses and pools come from IPAM's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::PoolKind;
use api::capi::{CapiVersion, IpAddress, IpAddressClaim};
use api::externalip::names::GROUP;
use api::externalip::{ClusterExternalIPSource, VERSION};
use api::v1alpha2::IpPool;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::Api;
use kube::api::DynamicObject;

use super::Ctx;
use super::world::{Watched, World};
use crate::ipam::Listener;
use crate::kit::discovery::{Discovered, discover};
use crate::kit::health::{Check, Readiness};
use crate::kit::watch::{Restart, Seen, Sync, Tolerant, follow};

/// Follows every kind that is always watched, for ever.
pub async fn follow_all(ctx: &Arc<Ctx>, readiness: &Readiness) {
    for kind in [Watched::Services, Watched::Sources, Watched::ServiceCidrs] {
        readiness.set(check_name(kind), Sync::default().check());
    }
    tokio::join!(
        follow_services(ctx, readiness),
        follow_sources(ctx, readiness),
        follow_service_cidrs(ctx, readiness),
        follow_namespaces(ctx, readiness),
    );
}

async fn follow_services(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let discover = || async {
        let api: Api<Tolerant<Service>> = match &ctx.namespace {
            Some(namespace) => Api::namespaced(ctx.client.clone(), namespace),
            None => Api::all(ctx.client.clone()),
        };
        Ok(Some(api))
    };
    let sink = |seen| take(ctx, readiness, Watched::Services, |world| world.take_services(seen, Instant::now()));
    follow("services", &Restart::default(), &ctx.metrics, discover, sink).await;
}

async fn follow_sources(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let discover = || async {
        let found = discover(&ctx.client, GROUP, "ClusterExternalIPSource", &[(VERSION, ())]).await?;
        Ok(is_served(&found).then(|| Api::<Tolerant<ClusterExternalIPSource>>::all(ctx.client.clone())))
    };
    let sink = |seen| take(ctx, readiness, Watched::Sources, |world| world.take_sources(seen, Instant::now()));
    follow("clusterexternalipsources", &Restart::default(), &ctx.metrics, discover, sink).await;
}

async fn follow_service_cidrs(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let discover = || async {
        let found = discover(&ctx.client, "networking.k8s.io", "ServiceCIDR", &[("v1", ()), ("v1beta1", ())]).await?;
        Ok(match found {
            Discovered::Served { resource, .. } => Some(Api::<Tolerant<DynamicObject>>::all_with(ctx.client.clone(), &resource)),
            Discovered::Absent => None,
        })
    };
    let sink = |seen| take(ctx, readiness, Watched::ServiceCidrs, |world| world.take_service_cidrs(seen));
    follow("servicecidrs", &Restart::default(), &ctx.metrics, discover, sink).await;
}

/// Follows namespaces while a source selects by their labels.
async fn follow_namespaces(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let mut wanted = ctx.wants_namespaces.subscribe();
    loop {
        // The sender lives in `ctx`, so the channel cannot be closed.
        let _ = wanted.wait_for(|wanted| *wanted).await;
        readiness.set(check_name(Watched::Namespaces), Sync::default().check());
        let discover = || async { Ok(Some(Api::<Tolerant<Namespace>>::all(ctx.client.clone()))) };
        let sink = |seen| take(ctx, readiness, Watched::Namespaces, |world| world.take_namespaces(seen));
        let never = Restart::default();
        let following = follow("namespaces", &never, &ctx.metrics, discover, sink);
        tokio::select! {
            () = following => {}
            _ = wanted.wait_for(|wanted| !*wanted) => {}
        }
        ctx.world().forget_namespaces();
        readiness.set(check_name(Watched::Namespaces), Check::Absent("no source selects by them".to_owned()));
    }
}

fn is_served<V>(found: &Discovered<V>) -> bool {
    matches!(found, Discovered::Served { .. })
}

/// Lets the world take in an event, delivers its wishes, and says at `/readyz` how far the watch has come.
fn take(ctx: &Arc<Ctx>, readiness: &Readiness, kind: Watched, event: impl FnOnce(&mut World)) {
    let mut world = ctx.world();
    let before = world.sync(kind);
    event(&mut world);
    let after = world.sync(kind);
    ctx.deliver(&mut world);
    drop(world);
    if before != after {
        readiness.set(check_name(kind), after.check());
    }
}

fn check_name(kind: Watched) -> &'static str {
    match kind {
        Watched::Services => "services",
        Watched::Sources => "clusterexternalipsources",
        Watched::ServiceCidrs => "servicecidrs",
        Watched::Namespaces => "namespaces",
        Watched::Claims => "ipaddressclaims",
        Watched::Addresses => "ipaddresses",
        Watched::Pools(kind) => kind.plural(),
    }
}

/// Hears what IPAM's watches deliver.
pub struct Ear(pub Arc<Ctx>);

impl Ear {
    fn take(&self, event: impl FnOnce(&mut World)) {
        let mut world = self.0.world();
        event(&mut world);
        self.0.deliver(&mut world);
    }
}

impl Listener for Ear {
    fn claims(&self, seen: &Seen<IpAddressClaim>, version: CapiVersion) {
        self.take(|world| world.take_claims(seen.as_ref(), version, Instant::now()));
    }

    fn addresses(&self, seen: &Seen<IpAddress>) {
        self.take(|world| world.take_addresses(seen.as_ref()));
    }

    fn pools(&self, kind: PoolKind, seen: &Seen<IpPool>) {
        self.take(|world| world.take_pools(kind, seen.as_ref()));
    }
}

/// Returns when there is a view complete enough to begin.
pub async fn settled(ctx: &Arc<Ctx>) {
    while !ctx.world().is_settled() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
