//! What the manager needs in a cluster, as files: `manager manifests` prints them, and `config/` holds them.
//!
//! Names have no prefix yet; kustomize adds it, and with it what refers to a name (see `config/default`). The namespace is
//! the one that installed clusters use.

mod certificates;
mod externalip;
mod rbac;
mod webhooks;
mod workload;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use api::crds::crds;
use api::names::{FIELD_MANAGER, PROVIDER_LABEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

const NAMESPACE: &str = "capi-ipam-in-cluster-system";
/// Added by kustomize to every name of an installation.
const NAME_PREFIX: &str = "capi-ipam-in-cluster-";
const SERVICE_ACCOUNT: &str = "controller-manager";
/// Mounted by the Deployment; cert-manager writes it. Installed clusters have it under this name.
const WEBHOOK_SECRET: &str = "capi-ipam-in-cluster-webhook-service-cert";
const CERTIFICATE: &str = "serving-cert";
const HEADER: &str = "# Printed by `manager manifests`; `make manifests` writes it again.\n";

/// Where the objects that differ between builds come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// The manager's image, `<name>:<tag>`. clusterctl can replace it only if the name begins with a host.
    pub image: String,
}

/// One file below `config/`.
struct File {
    text: String,
    /// Whether it is a part of an object, which only kustomize can use.
    is_patch: bool,
}

type Files = BTreeMap<String, File>;

/// Writes every file below `dir`, in folders as in `config/`. Files that are there already are replaced.
pub fn write(dir: &Path, settings: &Settings) -> anyhow::Result<()> {
    for (path, file) in files(settings)? {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, file.text)?;
    }
    Ok(())
}

/// Writes all objects into one YAML stream.
pub fn print(out: &mut impl Write, settings: &Settings) -> anyhow::Result<()> {
    for file in files(settings)?.values().filter(|file| !file.is_patch) {
        write_document(out, &file.text)?;
    }
    Ok(())
}

fn write_document(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"---\n")?;
    out.write_all(text.as_bytes())
}

/// Every file by its path below `config/`.
fn files(settings: &Settings) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for crd in crds() {
        let path = format!("crd/bases/{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        add(&mut files, &path, &crd)?;
    }
    files.insert("crd/patches/conversion.yaml".to_owned(), File { text: yaml(&webhooks::conversion())?, is_patch: true });
    for (name, object) in rbac::objects()? {
        add(&mut files, &format!("rbac/{name}.yaml"), &object)?;
    }
    for (name, object) in externalip::objects()? {
        add(&mut files, &format!("externalip/{name}.yaml"), &object)?;
    }
    add(&mut files, "webhook/mutating.yaml", &webhooks::mutating())?;
    add(&mut files, "webhook/validating.yaml", &webhooks::validating())?;
    add(&mut files, "webhook/service.yaml", &webhooks::service())?;
    add(&mut files, "certmanager/issuer.yaml", &certificates::issuer())?;
    add(&mut files, "certmanager/certificate.yaml", &certificates::certificate())?;
    add(&mut files, "manager/namespace.yaml", &workload::namespace())?;
    add(&mut files, "manager/deployment.yaml", &workload::deployment(&settings.image))?;
    add(&mut files, "manager/metrics_service.yaml", &workload::metrics_service())?;
    add(&mut files, "prometheus/monitor.yaml", &workload::monitor())?;
    Ok(files)
}

fn add(files: &mut Files, path: &str, object: &impl Serialize) -> anyhow::Result<()> {
    files.insert(path.to_owned(), File { text: yaml(object)?, is_patch: false });
    Ok(())
}

/// What selects the manager's pods. A Deployment's selector never changes, so it is the one that installed clusters have.
fn pod_labels() -> Value {
    json!({PROVIDER_LABEL: FIELD_MANAGER, "control-plane": "controller-manager"})
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

fn namespaced(name: &str) -> ObjectMeta {
    ObjectMeta { namespace: Some(NAMESPACE.to_owned()), ..named(name) }
}

fn yaml(object: &impl Serialize) -> anyhow::Result<String> {
    let mut value = serde_json::to_value(object)?;
    write_whole_numbers(&mut value);
    Ok(format!("{HEADER}{}", serde_yaml_ng::to_string(&value)?))
}

/// Bounds in a schema are floating point numbers to Kubernetes' types; people write `128`, not `128.0`.
fn write_whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            let whole = number.as_f64().filter(|_| number.is_f64()).and_then(|float| format!("{float}").parse::<i64>().ok());
            if let Some(whole) = whole {
                *number = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(write_whole_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
