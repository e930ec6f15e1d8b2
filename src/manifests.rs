//! What the manager needs in a cluster, as files: `manager manifests` prints them, and `config/` holds them.
//!
//! Names have no prefix yet; kustomize adds it. The namespace is the one that installed clusters use, so that the files
//! also apply as they are.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use api::PoolKind;
use api::crds::crds;
use api::names::{CLUSTER_GROUP, IPAM_GROUP};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::Value;

const NAMESPACE: &str = "capi-ipam-in-cluster-system";
const SERVICE_ACCOUNT: &str = "controller-manager";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
const HEADER: &str = "# Printed by `manager manifests`; `make manifests` writes it again.\n";

/// Writes every file below `dir`, in folders as in `config/`. Files that are there already are replaced.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    for (path, text) in files()? {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text)?;
    }
    Ok(())
}

/// Writes all files into one YAML stream, definitions first, ready for `kubectl apply -f -`.
pub fn print(out: &mut impl Write) -> anyhow::Result<()> {
    for text in files()?.values() {
        write_document(out, text)?;
    }
    Ok(())
}

fn write_document(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(b"---\n")?;
    out.write_all(text.as_bytes())
}

/// Path below `config/` and content of every file.
fn files() -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for crd in crds() {
        let path = format!("crd/bases/{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
        files.insert(path, yaml(&crd)?);
    }
    let mut rbac = |name: &str, text: String| files.insert(format!("rbac/{name}.yaml"), text);

    rbac("service_account", yaml(&ServiceAccount { metadata: namespaced(SERVICE_ACCOUNT), ..ServiceAccount::default() })?);

    rbac("role", cluster_role("manager-role", manager_rules())?);
    rbac("role_binding", cluster_role_binding("manager-rolebinding", "manager-role")?);

    let role = Role { metadata: namespaced("leader-election-role"), rules: Some(leader_election_rules()) };
    rbac("leader_election_role", yaml(&role)?);
    let binding = RoleBinding {
        metadata: namespaced("leader-election-rolebinding"),
        role_ref: role_ref("Role", "leader-election-role"),
        subjects: Some(vec![manager()]),
    };
    rbac("leader_election_role_binding", yaml(&binding)?);

    rbac("auth_proxy_role", cluster_role("proxy-role", diagnostics_rules())?);
    rbac("auth_proxy_role_binding", cluster_role_binding("proxy-rolebinding", "proxy-role")?);
    rbac("metrics_reader_role", cluster_role("metrics-reader", vec![read_metrics()])?);

    for pool in PoolKind::ALL {
        for (role, verbs) in [
            ("viewer", &["get", "list", "watch"][..]),
            ("editor", &["create", "delete", "get", "list", "patch", "update", "watch"][..]),
        ] {
            let rules = vec![
                rule(&[IPAM_GROUP], &[pool.plural()], verbs),
                rule(&[IPAM_GROUP], &[&format!("{}/status", pool.plural())], &["get"]),
            ];
            let singular = pool.singular();
            rbac(&format!("{singular}_{role}_role"), cluster_role(&format!("{singular}-{role}-role"), rules)?);
        }
    }
    Ok(files)
}

/// What the controllers do, and nothing more: no secrets, no nodes, no pods. A feature that needs more brings a role
/// of its own.
fn manager_rules() -> Vec<PolicyRule> {
    let pools = PoolKind::ALL.map(PoolKind::plural);
    let owned = [&pools[..], &["ipaddresses"]].concat();
    let all = [&owned[..], &["ipaddressclaims"]].concat();
    let subresource = |name: &str| all.iter().map(|resource| format!("{resource}/{name}")).collect::<Vec<_>>();

    vec![
        rule(&[CLUSTER_GROUP], &["clusters"], &["get", "list", "watch"]),
        rule(&[IPAM_GROUP], &owned, &["create", "delete", "get", "list", "patch", "update", "watch"]),
        rule(&[IPAM_GROUP], &["ipaddressclaims"], &["get", "list", "patch", "update", "watch"]),
        rule(&[IPAM_GROUP], &subresource("finalizers"), &["update"]),
        rule(&[IPAM_GROUP], &subresource("status"), &["get", "patch", "update"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch"]),
    ]
}

fn leader_election_rules() -> Vec<PolicyRule> {
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
    vec![
        rule(&[""], &["configmaps"], &verbs),
        rule(&["coordination.k8s.io"], &["leases"], &verbs),
        rule(&[""], &["events"], &["create", "patch"]),
    ]
}

/// The diagnostics endpoint asks the API server who calls and whether they may.
fn diagnostics_rules() -> Vec<PolicyRule> {
    vec![
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
    ]
}

fn read_metrics() -> PolicyRule {
    PolicyRule { non_resource_urls: Some(vec!["/metrics".to_owned()]), verbs: vec!["get".to_owned()], ..PolicyRule::default() }
}

fn rule(groups: &[&str], resources: &[impl AsRef<str>], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(groups.iter().map(ToString::to_string).collect()),
        resources: Some(resources.iter().map(|resource| resource.as_ref().to_owned()).collect()),
        verbs: verbs.iter().map(ToString::to_string).collect(),
        ..PolicyRule::default()
    }
}

fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> anyhow::Result<String> {
    yaml(&ClusterRole { metadata: named(name), rules: Some(rules), ..ClusterRole::default() })
}

/// Gives the manager the cluster role `role`.
fn cluster_role_binding(name: &str, role: &str) -> anyhow::Result<String> {
    yaml(&ClusterRoleBinding { metadata: named(name), role_ref: role_ref("ClusterRole", role), subjects: Some(vec![manager()]) })
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: Some(RBAC_GROUP.to_owned()), kind: kind.to_owned(), name: name.to_owned() }
}

fn manager() -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: SERVICE_ACCOUNT.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        ..Subject::default()
    }
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
