//! Names, sources that ask for them, Services that use the sources, and one watch that sees what is published.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use api::externalip::names::{REFRESH, SOURCE};
use futures::StreamExt as _;
use kube::Client;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::DnsServer;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::Size;
use crate::latency::rate;
use crate::load::{Load, NAMESPACE, PATIENCE};
use crate::progress::bar;

const SOURCES: &str = "/apis/externalip.spacebird.dev/v1alpha1/clusterexternalipsources";
/// Patches whose rate is the ceiling.
const PATCHES: usize = 1000;
/// Where the first name points in the end.
const ELSEWHERE: &str = "203.0.113.77";

fn services_url() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services")
}

fn host(index: usize) -> String {
    format!("host-{index}.example.net")
}

/// Where a name points: public addresses, each its own.
fn address(host: usize) -> Result<String> {
    const FIRST: u32 = u32::from_be_bytes([20, 0, 0, 1]);
    Ok(Ipv4Addr::from_bits(FIRST + u32::try_from(host)?).to_string())
}

fn source(name: &str, solver: &Value) -> Value {
    json!({
        "apiVersion": "externalip.spacebird.dev/v1alpha1",
        "kind": "ClusterExternalIPSource",
        "metadata": {"name": name},
        "spec": {"ipv4": {"solvers": [solver]}},
    })
}

/// A Service with a port that no other one has: shared addresses are to be no conflict.
fn service(index: usize, source: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": format!("service-{index}"), "annotations": {SOURCE: source}},
        "spec": {"ports": [{"port": 1 + index % 65_535}]},
    })
}

/// `count` Services on one source that asks a web service.
pub async fn create_on_provider(load: &Load, count: usize) -> Result<()> {
    load.post::<Value>(SOURCES, source("provider", &json!({"ipAPI": {"provider": "ipify"}}))).await?;
    load.all(count, async |index| load.post::<Value>(&services_url(), service(index, "provider")).await).await?;
    Ok(())
}

/// Everything that the manager has to do with.
pub struct Crowd {
    names: DnsServer,
    size: Size,
    /// Where each name points.
    addresses: Vec<String>,
    sightings: UnboundedReceiver<Sighting>,
    watching: JoinHandle<Result<()>>,
}

/// A Service as it was seen.
struct Sighting {
    at: Instant,
    index: usize,
    addresses: Vec<String>,
}

impl Crowd {
    /// Creates it all, with nobody at work yet.
    pub async fn create(load: &Load, size: &Size) -> Result<Self> {
        let names = DnsServer::start()?;
        let addresses = (0..size.hosts).map(address).collect::<Result<Vec<_>>>()?;
        for (index, address) in addresses.iter().enumerate() {
            names.set(&host(index), size.ttl, &[address])?;
        }
        let (tell, sightings) = unbounded_channel();
        let watching = tokio::spawn(follow(load.client.clone(), tell));
        let created = bar(&format!("create {} sources and {} Services", size.sources, size.services), size.services);
        load.all(size.sources, async |index| {
            let solver = json!({"dnsHostname": {"host": host(index % size.hosts)}});
            load.post::<Value>(SOURCES, source(&format!("source-{index}"), &solver)).await
        })
        .await
        .context("create sources")?;
        load.all(size.services, async |index| {
            let object = service(index, &format!("source-{}", index % size.sources));
            load.post::<Value>(&services_url(), object).await?;
            created.inc(1);
            Ok(())
        })
        .await
        .context("create Services")?;
        created.finish_and_clear();
        Ok(Self { names, size: size.clone(), addresses, sightings, watching })
    }

    /// What makes a manager ask these names.
    pub fn flags(&self) -> [String; 1] {
        [format!("--external-ip-dns-server={}", self.names.address())]
    }

    /// How often each name was asked for.
    pub fn queries(&self) -> Vec<u64> {
        (0..self.size.hosts).map(|index| self.names.queries(&host(index), "A") as u64).collect()
    }

    /// Patches per second that the server takes from the load generator, on these Services and as large as the manager's.
    pub async fn patch_ceiling(&self, load: &Load) -> Result<f64> {
        let bar = bar("raw ceiling of patches", 0);
        let record = "x".repeat(200);
        let begin = Instant::now();
        load.all(PATCHES, async |index| {
            let name = format!("service-{}", index % self.size.services);
            let patch = json!({"metadata": {"annotations": {"bench.example.com/record": format!("{record}{index}")}}});
            load.patch::<Value>(&services_url(), &name, false, &patch).await
        })
        .await?;
        bar.finish_and_clear();
        Ok(rate(PATCHES, begin, Instant::now()))
    }

    fn host_of(&self, service: usize) -> usize {
        service % self.size.sources % self.size.hosts
    }

    /// The Services that have the first name's address.
    pub fn services_of_first_name(&self) -> Vec<usize> {
        (0..self.size.services).filter(|service| self.host_of(*service) == 0).collect()
    }

    /// Points the first name somewhere else and has its sources ask again; when they were told.
    pub async fn change_first_name(&mut self, load: &Load) -> Result<Instant> {
        self.names.set(&host(0), self.size.ttl, &[ELSEWHERE])?;
        ELSEWHERE.clone_into(&mut self.addresses[0]);
        let patch = json!({"metadata": {"annotations": {REFRESH: "now"}}});
        let begin = Instant::now();
        load.patch::<Value>(SOURCES, "source-0", false, &patch).await?;
        Ok(begin)
    }

    /// When each of the Services was first seen with its address. Ends when all were, or when nothing has been seen for long.
    pub async fn until_published(&mut self, services: impl IntoIterator<Item = usize>) -> Result<Vec<Instant>> {
        let mut waiting: BTreeSet<usize> = services.into_iter().collect();
        let bar = bar("wait for addresses on Services", waiting.len());
        let mut times = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let Ok(sighting) = tokio::time::timeout(PATIENCE, self.sightings.recv()).await else { break };
            let Some(Sighting { at, index, addresses }) = sighting else {
                (&mut self.watching).await?.context("watch Services")?;
                bail!("the watch of Services has ended")
            };
            if addresses.contains(&self.addresses[self.host_of(index)]) && waiting.remove(&index) {
                times.push(at);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(times)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// What is decoded of a Service: as little as possible, because it costs the machine that is measured.
#[derive(Clone, Deserialize)]
struct Seen {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    resource_version: String,
}

#[derive(Clone, Default, Deserialize)]
struct Spec {
    #[serde(default, rename = "externalIPs")]
    external_ips: Vec<String>,
}

#[derive(Deserialize)]
struct List {
    metadata: Meta,
}

/// Watches from now on.
async fn follow(client: Client, tell: UnboundedSender<Sighting>) -> Result<()> {
    let url = services_url();
    let list: List = client.request(Request::new(&url).list(&ListParams::default().limit(1))?).await?;
    let mut version = list.metadata.resource_version;
    loop {
        let request = Request::new(&url).watch(&WatchParams::default(), &version)?;
        let mut events = std::pin::pin!(client.request_events::<Seen>(request).await?);
        while let Some(event) = events.next().await {
            let seen = match event? {
                WatchEvent::Added(seen) | WatchEvent::Modified(seen) => seen,
                WatchEvent::Deleted(seen) => {
                    version = seen.metadata.resource_version;
                    continue;
                }
                WatchEvent::Bookmark(bookmark) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => bail!("{}", status.message),
            };
            version = seen.metadata.resource_version;
            let index = seen.metadata.name.strip_prefix("service-").and_then(|index| index.parse().ok());
            let Some(index) = index else { continue };
            if tell.send(Sighting { at: Instant::now(), index, addresses: seen.spec.external_ips }).is_err() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_an_address_of_its_own_that_is_public() {
        let addresses: BTreeSet<String> = (0..2000).map(|host| address(host).unwrap()).collect();
        assert_eq!(addresses.len(), 2000);
        assert!(addresses.iter().all(|ip| poolutil::class(ip.parse().unwrap()) == poolutil::Class::Public));
    }

    #[test]
    fn only_what_is_published_is_read_of_a_service() {
        let object =
            json!({"metadata": {"name": "a", "resourceVersion": "7", "uid": "x"}, "spec": {"externalIPs": ["192.0.2.1"]}});
        let seen: Seen = serde_json::from_value(object).unwrap();
        assert_eq!((seen.metadata.resource_version.as_str(), seen.spec.external_ips), ("7", vec!["192.0.2.1".to_owned()]));
    }
}
