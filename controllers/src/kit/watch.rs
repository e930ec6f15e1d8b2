//! Follows one kind of object for a capability: discovery, paged list, watch, resumption, re-list.
//!
//! Built on `kube`'s watcher, which keeps the order of the API server's events and no objects. What is added here: kinds that are
//! not served (yet, or any more) are looked for every ten seconds; an object that does not decode is reported and skipped instead of
//! ending the stream; errors are counted and backed off; a watch can be asked to start over.

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::health::Check;
use super::metrics::Metrics;

/// How often a kind that the server does not have is looked for.
pub const REDISCOVER: Duration = Duration::from_secs(10);
/// Back-off between failed attempts, before jitter.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// After so many failures in a row the position is given up and the kind listed anew.
const PATIENCE: u32 = 8;

/// How far a watch has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sync {
    /// Nothing is known yet.
    #[default]
    Never,
    /// The server does not have the kind.
    NotServed,
    /// The view is complete.
    Synced,
}

impl Sync {
    /// Whether passes may rely on the view.
    pub fn is_settled(self) -> bool {
        self != Self::Never
    }

    /// What `/readyz` says of it.
    pub fn check(self) -> Check {
        match self {
            Self::Never => Check::Waiting("not listed yet".to_owned()),
            Self::NotServed => Check::Absent("the API server does not serve it; looked for every 10 s".to_owned()),
            Self::Synced => Check::Ready,
        }
    }
}

/// What a watch reports, in the order in which the API server did it.
#[derive(Debug)]
pub enum Seen<K> {
    /// A list starts: objects known so far that it does not name are gone when it ends.
    ListBegan,
    /// An object of the list. Nothing is known about the order within a list.
    Listed(K),
    /// The list is complete; from here on events arrive in the order of the changes.
    ListEnded,
    /// An object was created or changed.
    Changed(K),
    /// An object was deleted; its last state.
    Gone(K),
    /// The server does not have this kind; it is looked for again later.
    NotServed,
}

impl<K> Seen<K> {
    /// The same, for one who only looks.
    pub fn as_ref(&self) -> Seen<&K> {
        match self {
            Self::ListBegan => Seen::ListBegan,
            Self::Listed(object) => Seen::Listed(object),
            Self::ListEnded => Seen::ListEnded,
            Self::Changed(object) => Seen::Changed(object),
            Self::Gone(object) => Seen::Gone(object),
            Self::NotServed => Seen::NotServed,
        }
    }
}

/// Asks a running [`follow`] to forget its position and list anew.
#[derive(Debug, Clone, Default)]
pub struct Restart(Arc<Notify>);

impl Restart {
    /// Starts the watch over; the reason is counted and logged.
    pub fn now(&self) {
        self.0.notify_one();
    }
}

/// An object that decodes as `K`, or at least has a name and a version and says why it does not.
#[derive(Debug, Clone)]
pub struct Tolerant<K> {
    meta: ObjectMeta,
    object: Result<K, String>,
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Tolerant<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = |field: &str| Some(value.get("metadata")?.get(field)?.as_str()?.to_owned());
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        // Taken apart, not read, so that its texts are not copied.
        Ok(Self { meta, object: K::deserialize(value).map_err(|error| error.to_string()) })
    }
}

impl<K: Resource> Resource for Tolerant<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::kind(dt)
    }
    fn group(dt: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::group(dt)
    }
    fn version(dt: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::version(dt)
    }
    fn plural(dt: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
        K::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        self.object.as_ref().map_or(&self.meta, Resource::meta)
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.object {
            Ok(object) => object.meta_mut(),
            Err(_) => &mut self.meta,
        }
    }
}

/// Reports everything that happens to the objects of `resource` to `sink`, for ever.
///
/// `discover` answers the API to watch, or `None` while the server does not have the kind; its error says nothing of the kind. `sink` is called from this task only, so
/// its calls never overlap.
pub async fn follow<K, D, F>(
    resource: &'static str,
    restart: &Restart,
    metrics: &Metrics,
    mut discover: D,
    mut sink: impl FnMut(Seen<K>),
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    D: FnMut() -> F,
    F: Future<Output = kube::Result<Option<Api<Tolerant<K>>>>>,
{
    let mut failures = 0;
    loop {
        let api = match discover().await {
            Ok(Some(api)) => api,
            Ok(None) => {
                sink(Seen::NotServed);
                tokio::time::sleep(REDISCOVER).await;
                continue;
            }
            Err(error) => {
                warn!(resource, %error, "cannot ask whether the kind is served");
                metrics.watch_restart(resource, "discovery_failed");
                failures += 1;
                tokio::time::sleep(pause(failures)).await;
                continue;
            }
        };
        failures = 0;
        let reason = stream(resource, restart, metrics, api, &mut sink).await;
        metrics.watch_restart(resource, reason);
        info!(resource, reason, "watch starts over");
    }
}

/// One life of a watch; returns why it must be set up anew.
async fn stream<K>(
    resource: &'static str,
    restart: &Restart,
    metrics: &Metrics,
    api: Api<Tolerant<K>>,
    sink: &mut impl FnMut(Seen<K>),
) -> &'static str
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(watcher(api, watcher::Config::default()));
    let mut failures = 0;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = restart.0.notified() => return "undelivered",
        };
        match event {
            Some(Ok(event)) => {
                failures = 0;
                pass_on(resource, metrics, event, sink);
            }
            Some(Err(error)) => {
                let reason = category(&error);
                debug!(resource, reason, error = %error, "watch failed");
                failures += 1;
                if reason == "not_served" || reason == "expired_start" || failures >= PATIENCE {
                    tokio::time::sleep(pause(failures)).await;
                    return reason;
                }
                metrics.watch_restart(resource, reason);
                tokio::time::sleep(pause(failures)).await;
            }
            None => return "ended",
        }
    }
}

fn pass_on<K: Resource>(resource: &'static str, metrics: &Metrics, event: Event<Tolerant<K>>, sink: &mut impl FnMut(Seen<K>)) {
    type Kind<K> = fn(K) -> Seen<K>;
    let (seen, item): (Kind<K>, _) = match event {
        Event::Init => return sink(Seen::ListBegan),
        Event::InitDone => return sink(Seen::ListEnded),
        Event::InitApply(item) => (Seen::Listed, item),
        Event::Apply(item) => (Seen::Changed, item),
        Event::Delete(item) => (Seen::Gone, item),
    };
    match item.object {
        Ok(object) => sink(seen(object)),
        Err(error) => {
            let (namespace, name) = (item.meta.namespace.unwrap_or_default(), item.meta.name.unwrap_or_default());
            warn!(resource, namespace, name, error, "object does not decode and is skipped");
            metrics.error("malformed_object");
        }
    }
}

fn category(error: &watcher::Error) -> &'static str {
    let code = |error: &kube::Error| match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    };
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) if code(error) == 404 => "not_served",
        watcher::Error::WatchStartFailed(error) if code(error) == 410 => "expired_start",
        watcher::Error::WatchError(status) if status.code == 410 => "expired",
        watcher::Error::InitialListFailed(_) => "list_failed",
        watcher::Error::WatchStartFailed(_) => "start_failed",
        watcher::Error::WatchError(_) => "server_error",
        watcher::Error::WatchFailed(_) => "connection",
        watcher::Error::NoResourceVersion => "no_resource_version",
    }
}

/// Exponential, with jitter of half its length.
fn pause(failures: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest);
    full.mul_f64(rand::random_range(0.5..=1.0))
}
