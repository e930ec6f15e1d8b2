//! A manager's webhooks on loopback: a certificate for its listener, and what `config/` registers of it, by URL instead of
//! by Service.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::control_plane::ControlPlane;
use crate::manager::{Manager, ManagerCommand};
use crate::{eventually_blocking, free_port, repository};

const POOLS: [&str; 4] = ["inclusterippools", "globalinclusterippools", "inclusterprefixpools", "globalinclusterprefixpools"];

/// What clusterctl puts on everything of ours.
const OURS: &str = "cluster.x-k8s.io/provider=ipam-in-cluster";

/// The API server takes a while to notice registrations, and the manager up to ten seconds to notice a certificate.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a manager serves webhooks, and who vouches for it.
pub struct Webhooks {
    port: u16,
    folder: PathBuf,
    authority: Authority,
}

impl Webhooks {
    /// Starts the manager with webhooks, and returns when the API server asks it about pools and claims.
    pub fn serve(control_plane: &ControlPlane, command: &ManagerCommand) -> Result<(Self, Manager)> {
        let webhooks = Self::create(control_plane)?;
        webhooks.certify()?;
        let manager = webhooks.of(command).start(control_plane)?;
        webhooks.register(control_plane)?;
        webhooks.wait_until_asked(control_plane)?;
        Ok((webhooks, manager))
    }

    /// Like [`Webhooks::serve`], with what a release has registered on this control plane, at the manager's Service until now.
    pub fn serve_installed(control_plane: &ControlPlane, command: &ManagerCommand) -> Result<(Self, Manager)> {
        let webhooks = Self::create(control_plane)?;
        webhooks.certify()?;
        let manager = webhooks.of(command).start(control_plane)?;
        webhooks.take_over(control_plane)?;
        webhooks.wait_until_asked(control_plane)?;
        Ok((webhooks, manager))
    }

    /// A free port and an empty certificate folder.
    pub fn create(control_plane: &ControlPlane) -> Result<Self> {
        let port = free_port()?;
        let folder = control_plane.workspace.path(&format!("webhooks-{port}"));
        fs::create_dir_all(&folder)?;
        Ok(Self { port, folder, authority: Authority::create()? })
    }

    /// The command with the flags that make it serve here.
    pub fn of(&self, command: &ManagerCommand) -> ManagerCommand {
        command
            .clone()
            .arg(format!("--webhook-port=127.0.0.1:{}", self.port))
            .arg(format!("--webhook-cert-dir={}", self.folder.display()))
    }

    /// Puts a certificate into the folder that the API server trusts, in place of one that may be there.
    pub fn certify(&self) -> Result<()> {
        self.put_certificate_of(&self.authority)
    }

    /// Puts a certificate into the folder that the API server does not trust.
    pub fn certify_by_a_stranger(&self) -> Result<()> {
        self.put_certificate_of(&Authority::create()?)
    }

    fn put_certificate_of(&self, authority: &Authority) -> Result<()> {
        let issued = authority.issue()?;
        fs::write(self.folder.join("tls.key"), issued.key)?;
        fs::write(self.folder.join("tls.crt"), issued.certificate)?;
        Ok(())
    }

    /// Registers what `config/webhook` and the definitions' conversion patch register, with this manager behind it.
    pub fn register(&self, control_plane: &ControlPlane) -> Result<()> {
        for file in ["webhook/mutating.yaml", "webhook/validating.yaml"] {
            let mut configuration = read(file)?;
            let webhooks = configuration["webhooks"].as_array_mut().context("a configuration without webhooks")?;
            webhooks.iter_mut().try_for_each(|webhook| self.point_here(&mut webhook["clientConfig"]))?;
            control_plane.apply(&configuration.to_string())?;
        }
        self.register_conversion(control_plane)
    }

    fn register_conversion(&self, control_plane: &ControlPlane) -> Result<()> {
        let mut patch = read("crd/patches/conversion.yaml")?["spec"].take();
        let client_config = &mut patch["conversion"]["webhook"]["clientConfig"];
        self.point_here(client_config)?;
        // One that is there already.
        client_config["service"] = Value::Null;
        let names = POOLS.map(|pools| format!("{pools}.ipam.cluster.x-k8s.io"));
        let patch = json!({ "spec": patch }).to_string();
        let mut args = vec!["patch", "crd", "--type=merge", "-p", &patch];
        args.extend(names.iter().map(String::as_str));
        control_plane.kubectl(&args)?;
        Ok(())
    }

    /// Points what is registered under the provider's label here.
    fn take_over(&self, control_plane: &ControlPlane) -> Result<()> {
        let kinds = "mutatingwebhookconfigurations,validatingwebhookconfigurations";
        let listed = control_plane.kubectl(&["get", kinds, "-l", OURS, "-o", "json"])?;
        let mut listed: Value = serde_json::from_str(&listed)?;
        let configurations = listed["items"].as_array_mut().context("no list")?;
        ensure!(configurations.len() == 2, "the release has registered {} configurations", configurations.len());
        for configuration in configurations {
            let text = |value: &Value| value.as_str().map(str::to_owned).context("a configuration without name");
            let (kind, name) = (text(&configuration["kind"])?, text(&configuration["metadata"]["name"])?);
            let webhooks = configuration["webhooks"].as_array_mut().context("a configuration without webhooks")?;
            webhooks.iter_mut().try_for_each(|webhook| self.point_here(&mut webhook["clientConfig"]))?;
            let patch = json!([{"op": "replace", "path": "/webhooks", "value": webhooks}]).to_string();
            control_plane.kubectl(&["patch", &kind, &name, "--type=json", "-p", &patch])?;
        }
        self.register_conversion(control_plane)
    }

    fn point_here(&self, client_config: &mut Value) -> Result<()> {
        let path = client_config["service"]["path"].as_str().context("a webhook without a path")?;
        let url = format!("https://127.0.0.1:{}{path}", self.port);
        *client_config = json!({ "url": url, "caBundle": ByteString(self.authority.pem().into_bytes()) });
        Ok(())
    }

    /// Waits until the API server asks for checks, finalizers and conversions; creates nothing.
    pub fn wait_until_asked(&self, control_plane: &ControlPlane) -> Result<()> {
        let dry_run = |object: Value| control_plane.dry_run(&object.to_string());
        eventually_blocking(PATIENCE, || {
            let refused = dry_run(probe("v1alpha2", "InClusterIPPool", &json!({"addresses": [], "prefix": 24})));
            let text = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
            ensure!(text.contains("addresses is required"), "a pool without addresses is admitted, or not judged: {text}");

            let reference = json!({"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "probe"});
            let claim = dry_run(probe("v1beta2", "IPAddressClaim", &json!({ "poolRef": reference })))?;
            ensure!(claim["metadata"]["finalizers"].is_array(), "a claim gets no finalizer: {claim}");

            for kind in ["InClusterIPPool", "GlobalInClusterIPPool"] {
                let pool = dry_run(probe("v1alpha1", kind, &json!({"subnet": "10.0.0.0/24"})))?;
                ensure!(pool["spec"]["start"] == "10.0.0.1", "{kind} is not converted: {pool}");
            }
            Ok(())
        })
    }
}

fn probe(version: &str, kind: &str, spec: &Value) -> Value {
    let metadata = match kind {
        "GlobalInClusterIPPool" => json!({"name": "probe"}),
        _ => json!({"name": "probe", "namespace": "default"}),
    };
    json!({ "apiVersion": format!("ipam.cluster.x-k8s.io/{version}"), "kind": kind, "metadata": metadata, "spec": spec })
}

fn read(file: &str) -> Result<Value> {
    let path = repository().join("config").join(file);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_yaml_ng::from_str(&text).with_context(|| format!("parse {}", path.display()))
}
