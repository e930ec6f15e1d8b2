//! Gives the manager the identity it has when installed: its namespace, and the `ServiceAccount` and roles of `config/rbac`.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::repository;

/// The namespace the manager is installed in.
pub const MANAGER_NAMESPACE: &str = "capi-ipam-in-cluster-system";

pub(crate) const SERVICE_ACCOUNT: &str = "controller-manager";

/// Applies the identity's objects.
pub(crate) fn install(control_plane: &ControlPlane) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": MANAGER_NAMESPACE}});
    control_plane.apply(&namespace.to_string())?;
    let folder = repository().join("config/rbac");
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let file = entry?;
        if file.file_name() != "kustomization.yaml" {
            texts.push(std::fs::read_to_string(file.path())?);
        }
    }
    control_plane.apply(&texts.join("\n---\n"))?;
    Ok(())
}

/// Applies the role of `config/externalip`, bound to this identity instead of the one that a release installs.
pub(crate) fn install_external_ip_role(control_plane: &ControlPlane) -> Result<()> {
    let read = |name: &str| -> Result<Value> {
        let path = repository().join("config/externalip").join(name);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_yaml_ng::from_str(&text).with_context(|| format!("parse {}", path.display()))
    };
    let (role, mut binding) = (read("role.yaml")?, read("role_binding.yaml")?);
    binding["subjects"][0]["name"] = SERVICE_ACCOUNT.into();
    control_plane.apply(&format!("{role}\n---\n{binding}"))?;
    Ok(())
}
