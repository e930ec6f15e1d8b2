//! How the API server reaches the webhooks: which requests it sends to which path, and where it converts objects.

use api::PoolKind;
use api::externalip::names::GROUP;
use api::names::{FIELD_MANAGER, IPAM_GROUP, PROVIDER_LABEL};
use serde_json::{Value, json};
use webhooks::registration::{
    ADMISSION_REVIEW_VERSIONS, CLAIM_CONDITION_NAME, CLAIM_NAME, CLAIM_PATH, CLAIM_TIMEOUT_SECONDS, CLAIM_VERSIONS,
    CONVERSION_REVIEW_VERSIONS, CONVERT_PATH, POOL_VERSION, SERVICE_NAME, SERVICE_PORT, SOURCE_NAME, SOURCE_PATH, SOURCE_VERSION,
    claim_condition, default_name, default_path, validate_name, validate_path,
};

use super::{CERTIFICATE, NAMESPACE, named, namespaced};

/// Set by cert-manager's injector: the authority that signed the webhooks' certificate.
const INJECT_CA_FROM: &str = "cert-manager.io/inject-ca-from";

/// The part of a pool's definition that says where the other version comes from. It fits all of them.
pub(super) fn conversion() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "any", "annotations": inject_ca()},
        "spec": {"conversion": {
            "strategy": "Webhook",
            "webhook": {"clientConfig": client_config(CONVERT_PATH), "conversionReviewVersions": CONVERSION_REVIEW_VERSIONS},
        }},
    })
}

/// The defaults of pools, and the finalizer of new claims on them.
pub(super) fn mutating() -> Value {
    let of_pool = |pool| pool_webhook(pool, &default_name(pool), &default_path(pool), &["CREATE", "UPDATE"]);
    let mut webhooks: Vec<Value> = PoolKind::ALL.into_iter().map(of_pool).collect();
    webhooks.push(claim_webhook());
    configuration("MutatingWebhookConfiguration", "mutating-webhook-configuration", &webhooks)
}

/// What a pool must be like to be created, changed and deleted, and an external IP source to be created and changed.
pub(super) fn validating() -> Value {
    let of_pool = |pool| pool_webhook(pool, &validate_name(pool), &validate_path(pool), &["CREATE", "UPDATE", "DELETE"]);
    let mut webhooks: Vec<Value> = PoolKind::ALL.into_iter().map(of_pool).collect();
    webhooks.push(source_webhook());
    configuration("ValidatingWebhookConfiguration", "validating-webhook-configuration", &webhooks)
}

/// Every replica serves webhooks, so every pod is behind this name.
pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": namespaced(SERVICE_NAME),
        "spec": {
            "ports": [{"port": SERVICE_PORT, "targetPort": "webhook-server"}],
            "selector": {PROVIDER_LABEL: FIELD_MANAGER},
        },
    })
}

fn configuration(kind: &str, name: &str, webhooks: &[Value]) -> Value {
    let mut metadata = json!(named(name));
    metadata["annotations"] = inject_ca();
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": webhooks})
}

/// Requests in the older version arrive in this one: `matchPolicy` says so.
fn pool_webhook(pool: PoolKind, name: &str, path: &str, operations: &[&str]) -> Value {
    let rule = json!({
        "apiGroups": [IPAM_GROUP],
        "apiVersions": [POOL_VERSION],
        "operations": operations,
        "resources": [pool.plural()],
    });
    strict_webhook(name, path, &rule)
}

/// A source may always be deleted.
fn source_webhook() -> Value {
    let rule = json!({
        "apiGroups": [GROUP],
        "apiVersions": [SOURCE_VERSION],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["clusterexternalipsources"],
    });
    strict_webhook(SOURCE_NAME, SOURCE_PATH, &rule)
}

/// Without its answer nothing is admitted.
fn strict_webhook(name: &str, path: &str, rule: &Value) -> Value {
    json!({
        "name": name,
        "clientConfig": client_config(path),
        "rules": [rule],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "admissionReviewVersions": ADMISSION_REVIEW_VERSIONS,
    })
}

/// Saves a write for each new claim of ours. Claims are served without it too, so it never stands in the way.
fn claim_webhook() -> Value {
    json!({
        "name": CLAIM_NAME,
        "clientConfig": client_config(CLAIM_PATH),
        "rules": [{
            "apiGroups": [IPAM_GROUP],
            "apiVersions": CLAIM_VERSIONS,
            "operations": ["CREATE"],
            "resources": ["ipaddressclaims"],
        }],
        "matchConditions": [{"name": CLAIM_CONDITION_NAME, "expression": claim_condition()}],
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": CLAIM_TIMEOUT_SECONDS,
        "admissionReviewVersions": ADMISSION_REVIEW_VERSIONS,
    })
}

fn client_config(path: &str) -> Value {
    json!({"service": {"name": SERVICE_NAME, "namespace": NAMESPACE, "path": path}})
}

fn inject_ca() -> Value {
    json!({INJECT_CA_FROM: format!("{NAMESPACE}/{CERTIFICATE}")})
}
