//! Roles, their bindings, and the account they are bound to.

use std::collections::BTreeMap;

use api::PoolKind;
use api::names::{CLUSTER_GROUP, IPAM_GROUP};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use serde::Serialize;
use serde_json::Value;

use super::{NAME_PREFIX, NAMESPACE, SERVICE_ACCOUNT, named, namespaced};

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Every object by the name of its file.
pub(super) fn objects() -> serde_json::Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    let mut add = |name: &str, object: Value| objects.insert(name.to_owned(), object);

    add("service_account", value(&ServiceAccount { metadata: namespaced(SERVICE_ACCOUNT), ..ServiceAccount::default() })?);

    add("role", cluster_role("manager-role", manager_rules())?);
    add("role_binding", cluster_role_binding("manager-rolebinding", "manager-role")?);

    let role = Role { metadata: namespaced("leader-election-role"), rules: Some(leader_election_rules()) };
    add("leader_election_role", value(&role)?);
    let binding = RoleBinding {
        metadata: namespaced("leader-election-rolebinding"),
        role_ref: role_ref("Role", "leader-election-role"),
        subjects: Some(vec![manager()]),
    };
    add("leader_election_role_binding", value(&binding)?);

    add("auth_proxy_role", cluster_role("proxy-role", diagnostics_rules())?);
    add("auth_proxy_role_binding", cluster_role_binding("proxy-rolebinding", "proxy-role")?);
    add("metrics_reader_role", cluster_role("metrics-reader", vec![read_metrics()])?);

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
            add(&format!("{singular}_{role}_role"), cluster_role(&format!("{singular}-{role}-role"), rules)?);
        }
    }
    Ok(objects)
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

pub(super) fn rule(groups: &[&str], resources: &[impl AsRef<str>], verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(groups.iter().map(ToString::to_string).collect()),
        resources: Some(resources.iter().map(|resource| resource.as_ref().to_owned()).collect()),
        verbs: verbs.iter().map(ToString::to_string).collect(),
        ..PolicyRule::default()
    }
}

pub(super) fn cluster_role(name: &str, rules: Vec<PolicyRule>) -> serde_json::Result<Value> {
    value(&ClusterRole { metadata: named(name), rules: Some(rules), ..ClusterRole::default() })
}

/// Gives the manager the cluster role `role`.
fn cluster_role_binding(name: &str, role: &str) -> serde_json::Result<Value> {
    value(&ClusterRoleBinding { metadata: named(name), role_ref: role_ref("ClusterRole", role), subjects: Some(vec![manager()]) })
}

/// The same under the names that an installation has.
pub(super) fn bind_installed(role: &str) -> serde_json::Result<Value> {
    let account = Subject { name: format!("{NAME_PREFIX}{SERVICE_ACCOUNT}"), ..manager() };
    value(&ClusterRoleBinding { metadata: named(role), role_ref: role_ref("ClusterRole", role), subjects: Some(vec![account]) })
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

fn value(object: &impl Serialize) -> serde_json::Result<Value> {
    serde_json::to_value(object)
}
