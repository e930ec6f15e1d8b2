//! Gives the manager the identity it has when installed: the namespace, `ServiceAccount` and roles of `config/default`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::repository;

/// The namespace the manager is installed in.
pub const MANAGER_NAMESPACE: &str = "capi-ipam-in-cluster-system";

/// The kinds an identity is made of; the rest of the installation needs a kubelet or cert-manager.
const KINDS: [&str; 6] = ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];

/// Applies the identity's objects and returns a token of the `ServiceAccount`.
pub(crate) fn install(control_plane: &ControlPlane) -> Result<String> {
    let folder = repository().join("config/default");
    let printed = control_plane.kubectl(&["kustomize", &folder.display().to_string()])?;
    let objects = documents(&printed)?;
    let identity: Vec<String> =
        objects.iter().filter(|object| KINDS.iter().any(|kind| object["kind"] == *kind)).map(Value::to_string).collect();
    control_plane.apply(&identity.join("\n---\n"))?;
    let account = objects
        .iter()
        .find(|object| object["kind"] == "ServiceAccount")
        .and_then(|account| account["metadata"]["name"].as_str())
        .with_context(|| format!("{} has no ServiceAccount", folder.display()))?;
    let token = control_plane.kubectl(&["create", "token", account, "-n", MANAGER_NAMESPACE, "--duration=24h"])?;
    ensure!(!token.trim().is_empty(), "kubectl create token printed nothing");
    Ok(token.trim().to_owned())
}

fn documents(yaml: &str) -> Result<Vec<Value>> {
    use serde::Deserialize as _;
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).context("parse what kustomize printed"))
        .collect()
}
