//! When claims were made, bound and gone, as any other client with a watch sees it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt as _;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use testbed::eventually;

/// The moments of every claim, by `namespace/name`; of claims with one name, those of the newest.
#[derive(Clone)]
pub struct Binds(Arc<Mutex<BTreeMap<String, Moments>>>);

#[derive(Clone, Copy)]
struct Moments {
    made: Instant,
    bound: Option<Instant>,
    deleted: Option<Instant>,
    gone: Option<Instant>,
}

impl Binds {
    /// Watches all claims for as long as the runtime lives.
    pub fn watch(client: kube::Client) -> Self {
        let kind = GroupVersionKind::gvk("ipam.cluster.x-k8s.io", "v1beta2", "IPAddressClaim");
        let claims: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk(&kind));
        let binds = Self(Arc::default());
        let seen = binds.clone();
        tokio::spawn(async move {
            // Without a pause between tries, a watch whose server is gone would keep its thread busy for ever.
            let mut events = pin!(watcher(claims, watcher::Config::default()).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::Apply(claim) | Event::InitApply(claim)) => seen.appeared(&claim),
                    Ok(Event::Delete(claim)) => seen.vanished(&claim),
                    // A broken watch goes on by itself.
                    Ok(Event::Init | Event::InitDone) | Err(_) => {}
                }
            }
        });
        binds
    }

    /// How long a claim took from its creation to its address.
    pub async fn took(&self, claim: &str) -> Result<Duration> {
        let moments = self.moments(claim, |moments| Some((moments.made, moments.bound?))).await?;
        Ok(moments.1 - moments.0)
    }

    /// When a claim that exists was bound.
    pub async fn bound(&self, claim: &str) -> Result<Instant> {
        self.moments(claim, |moments| moments.bound.filter(|_| moments.gone.is_none())).await
    }

    /// When a claim's deletion was asked for.
    pub async fn deleted(&self, claim: &str) -> Result<Instant> {
        self.moments(claim, |moments| moments.deleted).await
    }

    /// When a claim was gone.
    pub async fn gone(&self, claim: &str) -> Result<Instant> {
        self.moments(claim, |moments| moments.gone).await
    }

    async fn moments<T>(&self, claim: &str, pick: impl Fn(&Moments) -> Option<T>) -> Result<T> {
        eventually(Duration::from_secs(30), async || {
            let moments = self.lock().get(claim).copied();
            moments.as_ref().and_then(&pick).with_context(|| format!("the watch has not shown it of claim {claim}"))
        })
        .await
    }

    fn appeared(&self, claim: &DynamicObject) {
        let now = Instant::now();
        let mut all = self.lock();
        let new = Moments { made: now, bound: None, deleted: None, gone: None };
        let moments = all.entry(title(claim)).or_insert(new);
        if moments.gone.is_some() {
            *moments = new;
        }
        if claim.metadata.deletion_timestamp.is_some() {
            moments.deleted.get_or_insert(now);
        }
        if moments.bound.is_none() && claim.data["status"]["addressRef"]["name"].is_string() {
            moments.bound = Some(now);
        }
    }

    fn vanished(&self, claim: &DynamicObject) {
        if let Some(moments) = self.lock().get_mut(&title(claim)) {
            moments.gone = Some(Instant::now());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Moments>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn title(claim: &DynamicObject) -> String {
    let metadata = &claim.metadata;
    format!("{}/{}", metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}
