//! Every change of some kinds in a namespace, in the order in which the API server made them: resource versions of one store are one count.
//! With it a trial proves that something was never so, not only that nobody saw it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, pin_mut};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use testbed::{Scene, eventually};
use tokio::task::JoinHandle;

/// One change: the object as it became, or none where it went.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub kind: &'static str,
    pub name: String,
    pub object: Option<DynamicObject>,
}

/// A recording.
pub struct History<'a> {
    scene: &'a Scene,
    kinds: &'static [&'static str],
    seen: Arc<Mutex<Vec<Change>>>,
    watches: Vec<JoinHandle<()>>,
}

/// All objects at some time, by kind and name.
pub type World = BTreeMap<(&'static str, String), DynamicObject>;

impl<'a> History<'a> {
    /// Begins to record.
    pub async fn begin(scene: &'a Scene, kinds: &'static [&'static str]) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut watches = Vec::new();
        for &kind in kinds {
            let api = scene.api(kind);
            let list = api.list(&ListParams::default()).await?;
            for object in list.items {
                push(&seen, kind, object, false)?;
            }
            let from = list.metadata.resource_version.context("a list without resource version")?;
            let record = Arc::clone(&seen);
            watches.push(tokio::spawn(async move {
                let Ok(stream) = api.watch(&WatchParams::default(), &from).await else { return };
                pin_mut!(stream);
                while let Some(Ok(event)) = stream.next().await {
                    let pushed = match event {
                        WatchEvent::Added(object) | WatchEvent::Modified(object) => push(&record, kind, object, false),
                        WatchEvent::Deleted(object) => push(&record, kind, object, true),
                        WatchEvent::Bookmark(_) | WatchEvent::Error(_) => Ok(()),
                    };
                    if pushed.is_err() {
                        return;
                    }
                }
            }));
        }
        Ok(Self { scene, kinds, seen, watches })
    }

    /// Waits until all that is there now has been seen, and returns all changes in order.
    pub async fn end(self) -> Result<Vec<Change>> {
        let changes = eventually(Duration::from_secs(60), async || {
            let mut changes = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
            changes.sort_by_key(|change| change.revision);
            let mut world = World::new();
            for change in &changes {
                apply(&mut world, change);
            }
            for &kind in self.kinds {
                let listed = self.scene.api(kind).list(&ListParams::default()).await?.items;
                let listed: BTreeMap<_, _> = listed.iter().map(|object| (object.name_any(), object.resource_version())).collect();
                let recorded = world.iter().filter(|((known, _), _)| *known == kind);
                let recorded: BTreeMap<_, _> =
                    recorded.map(|((_, name), object)| (name.clone(), object.resource_version())).collect();
                ensure!(listed == recorded, "of {kind} there are {listed:?}, recorded were {recorded:?}");
            }
            Ok(changes)
        });
        let changes = changes.await;
        self.watches.iter().for_each(JoinHandle::abort);
        changes
    }
}

fn push(seen: &Mutex<Vec<Change>>, kind: &'static str, object: DynamicObject, gone: bool) -> Result<()> {
    let revision = object.resource_version().context("an object without resource version")?.parse()?;
    let name = object.name_any();
    let change = Change { revision, kind, name, object: (!gone).then_some(object) };
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    Ok(())
}

fn apply(world: &mut World, change: &Change) {
    let key = (change.kind, change.name.clone());
    match &change.object {
        Some(object) => world.insert(key, object.clone()),
        None => world.remove(&key),
    };
}

/// Fails at the first moment at which `holds` did not.
pub fn always(changes: &[Change], holds: impl Fn(&World) -> Result<(), String>) -> Result<()> {
    let mut world = World::new();
    for change in changes {
        apply(&mut world, change);
        if let Err(fault) = holds(&world) {
            bail!("at revision {}, when {} {} changed: {fault}", change.revision, change.kind, change.name);
        }
    }
    Ok(())
}

/// The `spec.externalIPs` of every Service at some time.
pub fn external_ips(world: &World) -> impl Iterator<Item = (&str, Vec<&str>)> {
    let services = world.iter().filter(|((kind, _), _)| *kind == "Service");
    services.map(|((_, name), object)| {
        let list = object.data["spec"]["externalIPs"].as_array().into_iter().flatten();
        (name.as_str(), list.filter_map(|entry| entry.as_str()).collect())
    })
}

/// The values of all addresses at some time.
pub fn addresses(world: &World) -> Vec<&str> {
    let objects = world.iter().filter(|((kind, _), _)| *kind == "IPAddress");
    objects.filter_map(|(_, object)| object.data["spec"]["address"].as_str()).collect()
}
