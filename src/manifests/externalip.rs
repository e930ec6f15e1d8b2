//! What external IP sources need besides: a role of their own, which clusters without them do not get.
//!
//! Nothing here is renamed by kustomize: it is applied beside what is installed, and refers to that by its final names.

use std::collections::BTreeMap;

use api::externalip::names::GROUP;
use api::names::IPAM_GROUP;
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde_json::Value;

use super::rbac::{bind_installed, cluster_role, rule};

const NAME: &str = "capi-ipam-in-cluster-external-ip-sources";

/// Every object by the name of its file.
pub(super) fn objects() -> serde_json::Result<BTreeMap<String, Value>> {
    let role = cluster_role(NAME, rules())?;
    Ok(BTreeMap::from([("role".to_owned(), role), ("role_binding".to_owned(), bind_installed(NAME)?)]))
}

/// All of it, so that it can be granted and withdrawn as a whole.
fn rules() -> Vec<PolicyRule> {
    vec![
        rule(&[""], &["services"], &["get", "list", "patch", "watch"]),
        rule(&[""], &["services/status"], &["patch"]),
        rule(&[""], &["namespaces"], &["list", "watch"]),
        rule(&[GROUP], &["clusterexternalipsources"], &["get", "list", "watch"]),
        rule(&[GROUP], &["clusterexternalipsources/status"], &["patch"]),
        rule(&["networking.k8s.io"], &["servicecidrs"], &["list", "watch"]),
        rule(&[IPAM_GROUP], &["ipaddressclaims"], &["create", "delete", "get", "list", "patch", "watch"]),
        rule(&[IPAM_GROUP], &["ipaddresses", "inclusterippools", "globalinclusterippools"], &["get", "list", "watch"]),
        rule(&["events.k8s.io"], &["events"], &["create", "patch"]),
    ]
}
