//! The seven watches that feed the world, and what is said of them at `/readyz`.

use std::sync::Arc;
use std::time::Duration;

use api::PoolKind;
use api::capi::{CapiVersion, Cluster, IpAddress, IpAddressClaim};
use api::names::{CLUSTER_GROUP, IPAM_GROUP};
use api::v1alpha2::{IpPool, PrefixPool, VERSION};
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicResourceScope};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::Ctx;
use super::world::{Watched, World};
use crate::kit::discovery::{Discovered, capi_kind, discover};
use crate::kit::health::Readiness;
use crate::kit::watch::{Restart, Seen, Sync, Tolerant, follow};

/// How long the view may take to reach the latest address before work begins without it.
const CATCH_UP: Duration = Duration::from_secs(1);

/// Follows every kind, for ever.
pub async fn follow_all(ctx: &Arc<Ctx>, readiness: &Readiness) {
    for kind in Watched::ALL {
        readiness.set(check_name(kind), Sync::default().check());
    }
    tokio::join!(
        follow_ip_pools(ctx, readiness, PoolKind::InClusterIPPool),
        follow_ip_pools(ctx, readiness, PoolKind::GlobalInClusterIPPool),
        follow_prefix_pools(ctx, readiness, PoolKind::InClusterPrefixPool),
        follow_prefix_pools(ctx, readiness, PoolKind::GlobalInClusterPrefixPool),
        follow_addresses(ctx, readiness),
        follow_claims(ctx, readiness),
        follow_clusters(ctx, readiness),
    );
}

async fn follow_ip_pools(ctx: &Arc<Ctx>, readiness: &Readiness, kind: PoolKind) {
    let never = Restart::default();
    let discover = || pool_api::<IpPool>(ctx, kind);
    let sink = |seen| {
        ctx.share(|listener| listener.pools(kind, &seen));
        take(ctx, readiness, Watched::Pools(kind), |world| world.pools(kind, seen));
    };
    follow(kind.plural(), &never, &ctx.metrics, discover, sink).await;
}

async fn follow_prefix_pools(ctx: &Arc<Ctx>, readiness: &Readiness, kind: PoolKind) {
    let never = Restart::default();
    let discover = || pool_api::<PrefixPool>(ctx, kind);
    let sink = |seen| take(ctx, readiness, Watched::Pools(kind), |world| world.pools(kind, seen));
    follow(kind.plural(), &never, &ctx.metrics, discover, sink).await;
}

async fn follow_addresses(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let discover = || async {
        let Some((resource, version)) = capi_resource(ctx, "IPAddress").await? else { return Ok(None) };
        let everywhere: Api<Tolerant<IpAddress>> = Api::all_with(ctx.client.clone(), &resource);
        // A manager of one namespace may not be allowed to see the others; it then says so on Global pools.
        let forbidden = match (&ctx.scope.namespace, everywhere.list_metadata(&ListParams::default().limit(1)).await) {
            (Some(_), Err(kube::Error::Api(status))) => status.code == 403,
            _ => false,
        };
        let mut world = ctx.world();
        world.capi = version;
        world.addresses_everywhere = !forbidden;
        drop(world);
        if forbidden {
            warn!("addresses of other namespaces are not visible: Global pools give nothing out");
            return Ok(Some(scoped(ctx, &resource)));
        }
        Ok(Some(everywhere))
    };
    let sink = |seen| {
        ctx.share(|listener| listener.addresses(&seen));
        take(ctx, readiness, Watched::Addresses, |world| world.addresses(seen));
    };
    follow("ipaddresses", &ctx.address_watch, &ctx.metrics, discover, sink).await;
}

async fn follow_claims(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let never = Restart::default();
    let discover = || async {
        let Some((resource, version)) = capi_resource(ctx, "IPAddressClaim").await? else { return Ok(None) };
        ctx.world().capi = version;
        Ok(Some(scoped(ctx, &resource)))
    };
    let sink = |seen: Seen<IpAddressClaim>| {
        let version = ctx.world().capi;
        ctx.share(|listener| listener.claims(&seen, version));
        take(ctx, readiness, Watched::Claims, |world| {
            let version = world.capi;
            world.claims(seen, version);
        });
    };
    follow("ipaddressclaims", &never, &ctx.metrics, discover, sink).await;
}

async fn follow_clusters(ctx: &Arc<Ctx>, readiness: &Readiness) {
    let never = Restart::default();
    let discover = || async {
        let found = capi_kind(&ctx.client, CLUSTER_GROUP, "Cluster").await?;
        Ok(served(found).map(|(resource, _)| scoped::<Cluster>(ctx, &resource)))
    };
    let sink = |seen| take(ctx, readiness, Watched::Clusters, |world| world.clusters(seen));
    follow("clusters", &never, &ctx.metrics, discover, sink).await;
}

/// Lets the world take in an event, delivers its wishes, and says at `/readyz` how far the watch has come.
fn take(ctx: &Arc<Ctx>, readiness: &Readiness, kind: Watched, event: impl FnOnce(&mut World)) {
    let mut world = ctx.world();
    let before = world.sync(kind);
    event(&mut world);
    let after = world.sync(kind);
    if (before, after) == (Sync::NotServed, Sync::Synced) {
        world.wake_all();
    }
    ctx.deliver(&mut world);
    drop(world);
    if before != after {
        readiness.set(check_name(kind), after.check());
    }
}

fn check_name(kind: Watched) -> &'static str {
    match kind {
        Watched::Claims => "ipaddressclaims",
        Watched::Addresses => "ipaddresses",
        Watched::Clusters => "clusters",
        Watched::Pools(kind) => kind.plural(),
    }
}

async fn capi_resource(ctx: &Ctx, kind: &str) -> kube::Result<Option<(ApiResource, CapiVersion)>> {
    Ok(served(capi_kind(&ctx.client, IPAM_GROUP, kind).await?))
}

fn served<V>(found: Discovered<V>) -> Option<(ApiResource, V)> {
    match found {
        Discovered::Served { resource, version } => Some((resource, version)),
        Discovered::Absent => None,
    }
}

async fn pool_api<K>(ctx: &Ctx, kind: PoolKind) -> kube::Result<Option<Api<Tolerant<K>>>>
where
    K: Resource<DynamicType = PoolKind, Scope = DynamicResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let found = discover(&ctx.client, IPAM_GROUP, kind.kind(), &[(VERSION, ())]).await?;
    let client = ctx.client.clone();
    Ok(served(found).map(|_| match &ctx.scope.namespace {
        Some(namespace) if !kind.is_global() => Api::namespaced_with(client, namespace, &kind),
        _ => Api::all_with(client, &kind),
    }))
}

fn scoped<K>(ctx: &Ctx, resource: &ApiResource) -> Api<Tolerant<K>>
where
    K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
{
    match &ctx.scope.namespace {
        Some(namespace) => Api::namespaced_with(ctx.client.clone(), namespace, resource),
        None => Api::all_with(ctx.client.clone(), resource),
    }
}

/// After an election: waits until the view has reached the latest address there was, or for a moment. Work would be safe without it; it
/// only avoids collisions with what the former leader did last.
pub async fn catch_up(ctx: &Ctx) {
    let Ok(Some((resource, _))) = capi_resource(ctx, "IPAddress").await else { return };
    let latest = scoped::<IpAddress>(ctx, &resource).list_metadata(&ListParams::default().limit(1)).await;
    let Some(latest) = latest.ok().and_then(|list| list.metadata.resource_version?.parse::<u64>().ok()) else { return };
    let reached = async {
        while ctx.world().address_revision < latest {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(CATCH_UP, reached).await;
}
