//! One etcd on loopback: start, restart on the same data, compaction.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::free_port;
use crate::process::{Process, Program};
use crate::workspace::Workspace;

#[derive(Debug)]
pub(crate) struct Etcd {
    program: Program,
    process: Process,
    url: String,
}

impl Etcd {
    pub(crate) fn start(binary: &Path, workspace: &Workspace) -> Result<Self> {
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let peer_url = format!("http://127.0.0.1:{}", free_port()?);
        let args = vec![
            "--name=default".to_owned(),
            format!("--data-dir={}", workspace.path("etcd").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
            // The data is thrown away: nothing is gained by waiting for the disk.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        let program = Program { path: binary.to_owned(), args, log: workspace.path("etcd.log") };
        let process = Process::start(&program)?;
        let etcd = Self { program, process, url };
        etcd.wait_until_healthy()?;
        Ok(etcd)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Ends etcd at once and starts it again on the same data and ports.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = Process::start(&self.program)?;
        self.wait_until_healthy()
    }

    /// Forgets every revision but the current one: older `resourceVersion`s are answered with 410 Gone from now on.
    pub(crate) fn compact(&self) -> Result<()> {
        // A revision that was compacted to before is refused.
        self.put(&[("compacted".to_owned(), String::new())])?;
        let range = self.post("kv/range", &json!({"key": "AA=="}))?;
        let revision = range["header"]["revision"].as_str().context("etcd's answer has no revision")?.to_owned();
        self.post("kv/compaction", &json!({"revision": revision, "physical": true}))?;
        Ok(())
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Result<Vec<u8>> {
        let range = self.post("kv/range", &json!({"key": bytes(key)}))?;
        let value: ByteString =
            serde_json::from_value(range["kvs"][0]["value"].clone()).with_context(|| format!("etcd has no {key}"))?;
        Ok(value.0)
    }

    /// Puts values under keys, some at a time, each with a revision of its own: the API server counts on that.
    pub(crate) fn put(&self, pairs: &[(String, String)]) -> Result<()> {
        let agent = ureq::Agent::new_with_defaults();
        let put = |(key, value): &(String, String)| {
            let body = json!({"key": bytes(key), "value": bytes(value)}).to_string();
            let call = agent.post(format!("{}/v3/kv/put", self.url)).header("content-type", "application/json");
            call.send(body).and_then(|mut answer| answer.body_mut().read_to_string()).with_context(|| format!("etcd: put {key}"))
        };
        std::thread::scope(|scope| {
            let parts: Vec<_> = pairs
                .chunks(pairs.len().div_ceil(8).max(1))
                .map(|part| scope.spawn(move || part.iter().try_for_each(|pair| put(pair).map(|_| ()))))
                .collect();
            parts.into_iter().try_for_each(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn wait_until_healthy(&self) -> Result<()> {
        self.process.becomes(Duration::from_secs(30), || {
            let health = ureq::get(format!("{}/health", self.url)).call()?.body_mut().read_to_string()?;
            ensure!(health.contains("\"health\":\"true\""), "etcd says {health}");
            Ok(())
        })
    }

    fn post(&self, call: &str, body: &Value) -> Result<Value> {
        let mut answer = ureq::post(format!("{}/v3/{call}", self.url))
            .header("content-type", "application/json")
            .send(body.to_string())
            .with_context(|| format!("etcd: {call}"))?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }
}

/// As etcd's JSON has keys and values.
fn bytes(text: &str) -> ByteString {
    ByteString(text.as_bytes().to_vec())
}
