//! One watch of all claims or of all addresses, which says when something could first be seen.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use crate::load::{Batch, PATIENCE};

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A claim that refers to an address.
    Bound,
    /// An object that does not exist any more.
    Gone,
}

#[derive(Debug)]
struct Sighting {
    at: Instant,
    name: String,
    what: What,
}

/// What is decoded of an object: as little as possible, because it costs the machine that is measured.
#[derive(Clone, Deserialize)]
struct Seen {
    metadata: Meta,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    resource_version: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    address_ref: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct List {
    metadata: Meta,
}

/// A running watch.
pub struct Watch {
    sightings: UnboundedReceiver<Sighting>,
    task: JoinHandle<Result<()>>,
}

impl Watch {
    /// Watches what lies below `url`, from now on.
    pub async fn start(client: Client, url: String) -> Result<Self> {
        let list: List = client.request(Request::new(&url).list(&ListParams::default().limit(1))?).await?;
        let (tell, sightings) = unbounded_channel();
        let task = tokio::spawn(follow(client, url, list.metadata.resource_version, tell));
        Ok(Self { sightings, task })
    }

    /// When each claim of the batch was first seen so. Ends when all were, or when nothing has been for [`PATIENCE`].
    /// `seen` is told how many there are after each.
    pub async fn until(&mut self, batch: &Batch, what: What, seen: impl FnMut(usize)) -> Result<Vec<Option<Instant>>> {
        self.until_some(batch, what, batch.count, seen).await
    }

    /// As [`Watch::until`], but ends when `enough` claims of the batch were seen.
    pub async fn until_some(
        &mut self,
        batch: &Batch,
        what: What,
        enough: usize,
        mut seen: impl FnMut(usize),
    ) -> Result<Vec<Option<Instant>>> {
        let mut times = vec![None; batch.count];
        let mut count = 0;
        while count < enough {
            let Some(sighting) = self.next(PATIENCE).await? else { break };
            if sighting.what == what
                && let Some(time @ None) = batch.index(&sighting.name).map(|index| &mut times[index])
            {
                *time = Some(sighting.at);
                count += 1;
                seen(count);
            }
        }
        Ok(times)
    }

    async fn next(&mut self, patience: Duration) -> Result<Option<Sighting>> {
        match tokio::time::timeout(patience, self.sightings.recv()).await {
            Err(_) => Ok(None),
            Ok(Some(sighting)) => Ok(Some(sighting)),
            Ok(None) => {
                (&mut self.task).await?.context("watch")?;
                bail!("the watch has ended")
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Client, url: String, mut version: String, tell: UnboundedSender<Sighting>) -> Result<()> {
    loop {
        // The server ends a watch after some minutes; it goes on where it was.
        let request = Request::new(&url).watch(&WatchParams::default(), &version)?;
        let mut events = std::pin::pin!(client.request_events::<Seen>(request).await?);
        while let Some(event) = events.next().await {
            let (object, what) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let bound = object.status.address_ref.is_some().then_some(What::Bound);
                    (object.metadata, bound)
                }
                WatchEvent::Deleted(object) => (object.metadata, Some(What::Gone)),
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => bail!("{}", status.message),
            };
            version = object.resource_version;
            if let Some(what) = what
                && tell.send(Sighting { at: Instant::now(), name: object.name, what }).is_err()
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_is_bound_once_it_has_a_reference() {
        let bound = |status| {
            let claim = json!({"metadata": {"name": "a", "resourceVersion": "7", "uid": "x"}, "spec": {}, "status": status});
            serde_json::from_value::<Seen>(claim).unwrap().status.address_ref.is_some()
        };
        assert!(bound(json!({"addressRef": {"name": "a"}, "conditions": []})));
        assert!(!bound(json!({"conditions": []})));
    }
}
