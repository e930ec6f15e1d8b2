//! Cluster API's core manager beside a control plane, for its webhooks: what it asks of addresses and claims, at what rate, and
//! what happens while nobody answers.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::binaries::{Binaries, CLUSTER_API, CLUSTER_API_PATH, go_module_folder};
use crate::certificates::Authority;
use crate::control_plane::{ControlPlane, lock};
use crate::crds;
use crate::process::{Process, Program, tail};
use crate::{eventually_blocking, free_port};

const PATIENCE: Duration = Duration::from_secs(60);

/// The webhooks of addresses and claims, as Cluster API calls them.
const NAMES: [&str; 2] = ["validation.ipaddress.ipam.cluster.x-k8s.io", "validation.ipaddressclaim.ipam.cluster.x-k8s.io"];

/// Cluster API's core manager, whose webhooks the API server asks about every address and claim. Dropping it ends the process
/// with SIGKILL; its webhooks stay registered, so that then nobody can write addresses and claims.
#[derive(Debug)]
pub struct CoreManager {
    process: Mutex<Option<Process>>,
    program: Program,
    health: u16,
}

impl CoreManager {
    /// Installs all of Cluster API's CRDs, starts the manager and returns when the API server asks its webhooks.
    ///
    /// `rate` is how many requests a second it may send for each kind, and as many at once after a rest; without one it is
    /// Cluster API's default. For each address that is created the webhook reads the claim.
    pub fn start(control_plane: &ControlPlane, rate: Option<u32>) -> Result<Self> {
        let path = Binaries::core_manager(&mut |line| eprintln!("testbed: {line}"))?;
        crds::install_cluster_apis(control_plane)?;
        let (port, health, diagnostics) = (free_port()?, free_port()?, free_port()?);
        let folder = control_plane.workspace.path(&format!("cluster-api-{port}"));
        fs::create_dir_all(&folder)?;
        let authority = Authority::create()?;
        let issued = authority.issue()?;
        fs::write(folder.join("tls.key"), issued.key)?;
        fs::write(folder.join("tls.crt"), issued.certificate)?;
        let mut args = vec![
            format!("--kubeconfig={}", control_plane.kubeconfig().display()),
            format!("--webhook-cert-dir={}", folder.display()),
            format!("--webhook-port={port}"),
            format!("--health-addr=127.0.0.1:{health}"),
            format!("--diagnostics-address=127.0.0.1:{diagnostics}"),
            "--insecure-diagnostics".to_owned(),
        ];
        if let Some(rate) = rate {
            args.extend([format!("--kube-api-qps={rate}"), format!("--kube-api-burst={rate}")]);
        }
        let program = Program { path, args, log: folder.join("log") };
        let manager = Self { process: Mutex::new(None), program, health };
        manager.restart()?;
        register(control_plane, port, &authority)?;
        wait_until_asked(control_plane).with_context(|| manager.log_tail(30))?;
        Ok(manager)
    }

    /// Ends the process at once (SIGKILL): its webhooks stay registered, and the API server refuses what it has to ask them.
    pub fn stop(&self) {
        lock(&self.process).take();
    }

    /// Ends the process if it runs, starts it with the same flags and ports, and returns when its webhooks are served.
    pub fn restart(&self) -> Result<()> {
        let mut process = lock(&self.process);
        process.take();
        let process = process.insert(Process::start(&self.program)?);
        process.becomes(PATIENCE, || {
            let answer = ureq::get(format!("http://127.0.0.1:{}/readyz", self.health)).call()?;
            ensure!(answer.status() == 200, "/readyz answers {}", answer.status());
            Ok(())
        })
    }

    /// The last lines of the log, for the report of a failed test.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.program.log, lines)
    }
}

/// Registers what Cluster API's own configuration says of addresses and claims, with the process on this port in place of a Service.
fn register(control_plane: &ControlPlane, port: u16, authority: &Authority) -> Result<()> {
    let mut webhooks = registrations()?;
    for webhook in &mut webhooks {
        let client_config = &mut webhook["clientConfig"];
        let path = client_config["service"]["path"].as_str().context("a webhook without a path")?;
        let url = format!("https://127.0.0.1:{port}{path}");
        *client_config = json!({ "url": url, "caBundle": ByteString(authority.pem().into_bytes()) });
    }
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "capi-validating-webhook-configuration"},
        "webhooks": webhooks,
    });
    control_plane.apply(&configuration.to_string())?;
    Ok(())
}

/// The webhooks of addresses and claims in Cluster API's own configuration.
fn registrations() -> Result<Vec<Value>> {
    let file = go_module_folder(CLUSTER_API, CLUSTER_API_PATH)?.join("config/webhook/manifests.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let mut found = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let document: Value = Value::deserialize(document)?;
        let webhooks = document["webhooks"].as_array().cloned().unwrap_or_default();
        found.extend(webhooks.into_iter().filter(|webhook| NAMES.iter().any(|name| webhook["name"] == *name)));
    }
    ensure!(found.len() == NAMES.len(), "{} has {} of {NAMES:?}", file.display(), found.len());
    Ok(found)
}

/// Waits until an address is judged; creates nothing.
fn wait_until_asked(control_plane: &ControlPlane) -> Result<()> {
    let nonsense = json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1beta2",
        "kind": "IPAddress",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {
            "address": "nonsense",
            "prefix": 24,
            "claimRef": {"name": "probe"},
            "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "probe"},
        },
    });
    eventually_blocking(PATIENCE, || match control_plane.dry_run(&nonsense.to_string()) {
        Ok(_) => bail!("nonsense is admitted"),
        Err(error) if format!("{error:#}").contains("not a valid IP address") => Ok(()),
        Err(error) => Err(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_api_wants_no_write_past_its_webhooks() {
        for webhook in registrations().unwrap() {
            assert_eq!(webhook["failurePolicy"], "Fail");
            assert_eq!(webhook["rules"].as_array().map(Vec::len), Some(1));
            let rule = &webhook["rules"][0];
            assert_eq!(rule["operations"], json!(["CREATE", "UPDATE", "DELETE"]));
            assert!(rule["resources"] == json!(["ipaddresses"]) || rule["resources"] == json!(["ipaddressclaims"]), "{rule}");
        }
    }
}
