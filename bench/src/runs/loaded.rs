//! `loaded`: bound claims and their addresses are there in any number before the manager starts; then a few more are made.
//!
//! The objects are copies of one bound pair, put into the store past the API server, which would take minutes to make them.

use std::time::Instant;

use anyhow::{Context, Result};
use rand::Rng;
use serde::Serialize;

use crate::args::Args;
use crate::latency::{Latency, rate, ratio};
use crate::load::{Batch, NAMESPACE, Room};
use crate::progress::bar;
use crate::report::{Row, megabytes, per_second};
use crate::runs::fill;
use crate::stage::{Stage, own_metric};
use crate::watch::What;

/// Claims made beside the loaded ones.
const MORE: usize = 500;
/// What the names of the loaded claims begin with.
const COPIES: &str = "loaded";
/// Objects that are put with one call.
const AT_ONCE: usize = 5_000;

/// What a start beside very many has shown.
#[derive(Clone, Debug, Serialize)]
pub struct Loaded {
    /// Bound claims found, each with its address.
    pub size: usize,
    /// From the start to `/readyz`.
    pub ready_seconds: f64,
    /// Processor time until then.
    pub cpu_seconds: f64,
    /// Resident memory at rest.
    pub rss_bytes: u64,
    /// What each bound claim with its address has added to the memory of the empty manager.
    pub bytes_per_bind: f64,
    /// What the manager itself says an address record takes.
    pub bytes_per_address: Option<f64>,
    /// What the manager itself says a claim record takes.
    pub bytes_per_claim: Option<f64>,
    /// Writes until it came to rest.
    pub writes: u64,
    /// Claims made then.
    pub more: usize,
    /// How fast they were bound.
    pub binds_per_second: f64,
    /// From a claim's creation being sent to its reference being seen.
    pub latency: Latency,
    /// The manager's processor time, for 1000 of these.
    pub cpu_seconds_per_1000: f64,
}

impl Row for Loaded {
    const TITLE: &'static str = "loaded: started beside bound claims, then used";
    const COLUMNS: &'static [&'static str] = &[
        "held",
        "ready s",
        "CPU s",
        "RSS MB",
        "B/bind",
        "B/address record",
        "B/claim record",
        "writes",
        "more",
        "binds/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "CPU s/1000",
    ];

    fn cells(&self) -> Vec<String> {
        let bytes = |bytes: Option<f64>| bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}"));
        let mut cells = vec![
            self.size.to_string(),
            format!("{:.2}", self.ready_seconds),
            format!("{:.2}", self.cpu_seconds),
            megabytes(self.rss_bytes),
            format!("{:.0}", self.bytes_per_bind),
            bytes(self.bytes_per_address),
            bytes(self.bytes_per_claim),
            self.writes.to_string(),
            self.more.to_string(),
            per_second(self.binds_per_second),
        ];
        cells.extend(self.latency.cells());
        cells.push(format!("{:.2}", self.cpu_seconds_per_1000));
        cells
    }
}

/// Loads `size` bound claims, starts a manager, and has it bind some more.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub async fn measure(args: &Args, size: usize) -> Result<Loaded> {
    let mut stage = Stage::start(args).await?;
    stage.load.create_pools(1, Room::Ample).await?;
    let model = Batch::new("model", 1, 1);
    let empty = {
        let manager = stage.manager()?;
        stage.settle().await?;
        let empty = manager.rss_bytes()?;
        stage.load.create_one::<serde_json::Value>(&model, 0).await?;
        stage.claims.until(&model, What::Bound, |_| ()).await?;
        stage.settle().await?;
        empty
    };
    load(&stage, &model.claim(0), size)?;
    // The server's own view lags behind its store, and refuses lists until it has come so far.
    stage.claims.until(&Batch::new(COPIES, size, 1), What::Bound, |_| ()).await?;
    let before = stage.requests().await?;
    let begin = Instant::now();
    let manager = stage.manager()?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    let cpu_seconds = manager.cpu_time()?.as_secs_f64();
    stage.settle().await?;
    // The manager weighs its records every fifteen seconds.
    tokio::time::sleep(std::time::Duration::from_secs(16)).await;
    let writes = stage.requests().await?.since(&before).manager_writes().values().sum();
    let rss_bytes = manager.rss_bytes()?;
    let record = |resource: &str| {
        let label = format!("resource=\"{resource}\"");
        Some(own_metric(&manager, "ipam_cache_bytes", &label)? / own_metric(&manager, "ipam_cache_objects", &label)?)
    };
    let (bytes_per_address, bytes_per_claim) = (record("ipaddresses"), record("ipaddressclaims"));

    let cpu = manager.cpu_time()?;
    let filled = fill::fill(&mut stage, &Batch::new("more", MORE, 1), || 0).await?;
    let cpu = manager.cpu_time()?.saturating_sub(cpu);
    let bound = filled.bound.iter().flatten();
    let (first, last) = (filled.created.iter().min().context("nothing was created")?, bound.clone().max());
    let binds = bound.count();
    Ok(Loaded {
        size,
        ready_seconds,
        cpu_seconds,
        rss_bytes,
        bytes_per_bind: ratio(rss_bytes.saturating_sub(empty) as f64, size as f64),
        bytes_per_address,
        bytes_per_claim,
        writes,
        more: binds,
        binds_per_second: last.map_or(0.0, |last| rate(binds, *first, *last)),
        latency: Latency::between(&filled.created, &filled.bound),
        cpu_seconds_per_1000: ratio(cpu.as_secs_f64() * 1000.0, binds as f64),
    })
}

/// Puts `size` copies of the claim `name` and its address into the store.
fn load(stage: &Stage, name: &str, size: usize) -> Result<()> {
    let path = |plural: &str, name: &str| format!("ipam.cluster.x-k8s.io/{plural}/{NAMESPACE}/{name}");
    let stored = |plural: &str| stage.control_plane.stored(&path(plural, name));
    let pair = Pair::new(name, stored("ipaddressclaims")?, stored("ipaddresses")?)?;
    let bar = bar(&format!("load {size} bound claims"), size);
    for from in (0..size).step_by(AT_ONCE) {
        let copies = (from..size.min(from + AT_ONCE)).flat_map(|index| {
            let name = format!("{COPIES}-{index}");
            let [claim, address] = pair.copy(&name, index);
            [(path("ipaddressclaims", &name), claim), (path("ipaddresses", &name), address)]
        });
        tokio::task::block_in_place(|| stage.control_plane.store(copies))?;
        bar.inc(AT_ONCE as u64);
    }
    bar.finish_and_clear();
    Ok(())
}

/// A claim and its address as they are stored, and what is different in each copy.
struct Pair {
    texts: [String; 2],
    name: String,
    uids: [String; 2],
    address: String,
}

impl Pair {
    fn new(name: &str, claim: String, address: String) -> Result<Self> {
        let field = |text: &str, pointer: &str| {
            let object: serde_json::Value = serde_json::from_str(text)?;
            let field = object.pointer(pointer).and_then(|field| field.as_str());
            anyhow::Ok(field.with_context(|| format!("a stored object has no {pointer}"))?.to_owned())
        };
        Ok(Self {
            name: format!("\"{name}\""),
            uids: [field(&claim, "/metadata/uid")?, field(&address, "/metadata/uid")?],
            address: field(&address, "/spec/address")?,
            texts: [claim, address],
        })
    }

    fn copy(&self, name: &str, index: usize) -> [String; 2] {
        let mut random = rand::rng();
        let mut uid = || {
            let [a, b, c] = [random.random::<u32>(), random.random(), random.random()];
            format!("{a:08x}-{:04x}-4{:03x}-8{:03x}-{c:08x}{:04x}", b >> 16, b & 0xfff, c & 0xfff, a & 0xffff)
        };
        let uids = [uid(), uid()];
        // The model has the lowest address; the next ones follow.
        let offset = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(0x0a00_0002);
        let address = std::net::Ipv4Addr::from_bits(offset).to_string();
        self.texts.clone().map(|text| {
            let text = text.replace(&self.name, &format!("\"{name}\"")).replace(&self.uids[0], &uids[0]);
            let text = text.replace(&self.uids[1], &uids[1]);
            let message = text.replace(&format!("allocated {}/", self.address), &format!("allocated {address}/"));
            message.replace(&format!("\"{}\"", self.address), &format!("\"{address}\""))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_copy_differs_in_name_uid_and_address_wherever_they_stand() {
        // Nothing that a new UID could hold by chance.
        let uids = ["0c0ffee0-0000-4000-8000-000000000001", "0c0ffee0-0000-4000-8000-000000000002"];
        let claim = json!({
            "metadata": {"name": "model-0", "uid": uids[0]},
            "status": {"addressRef": {"name": "model-0"}, "conditions": [{"message": "allocated 10.0.0.1/8"}]},
        });
        let address = json!({
            "metadata": {"name": "model-0", "uid": uids[1], "ownerReferences": [{"name": "model-0", "uid": uids[0]}]},
            "spec": {"address": "10.0.0.1", "claimRef": {"name": "model-0"}},
        });
        let pair = Pair::new("model-0", claim.to_string(), address.to_string()).unwrap();
        let [claim, address] = pair.copy("loaded-256", 256).map(|text| serde_json::from_str::<Value>(&text).unwrap());
        assert_eq!(
            (&claim["metadata"]["name"], &address["spec"]["claimRef"]["name"]),
            (&json!("loaded-256"), &json!("loaded-256"))
        );
        assert_eq!(address["spec"]["address"], "10.0.1.2");
        assert_eq!(claim["status"]["conditions"][0]["message"], "allocated 10.0.1.2/8");
        assert_eq!(address["metadata"]["ownerReferences"][0]["uid"], claim["metadata"]["uid"]);
        assert_eq!(claim["metadata"]["uid"].as_str().map(str::len), Some(36));
        assert_ne!(claim["metadata"]["uid"], address["metadata"]["uid"]);
    }
}
