//! How the API server reaches the webhooks: which requests it sends to which path, and where it converts objects.

use api::PoolKind;
use api::names::{FIELD_MANAGER, IPAM_GROUP, PROVIDER_LABEL};
use serde_json::{Value, json};

use super::{CERTIFICATE, NAMESPACE, WEBHOOK_SERVICE, named, namespaced};

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
            "webhook": {"clientConfig": client_config("/convert"), "conversionReviewVersions": ["v1"]},
        }},
    })
}

/// The defaults of pools, and the finalizer of new claims on them.
pub(super) fn mutating() -> Value {
    let mut webhooks: Vec<Value> =
        PoolKind::ALL.into_iter().map(|pool| pool_webhook(pool, "default", "mutate", &["CREATE", "UPDATE"])).collect();
    webhooks.push(claim_webhook());
    configuration("MutatingWebhookConfiguration", "mutating-webhook-configuration", webhooks)
}

/// What a pool must be like to be created, changed and deleted.
pub(super) fn validating() -> Value {
    let operations = ["CREATE", "UPDATE", "DELETE"];
    let webhooks = PoolKind::ALL.into_iter().map(|pool| pool_webhook(pool, "validation", "validate", &operations)).collect();
    configuration("ValidatingWebhookConfiguration", "validating-webhook-configuration", webhooks)
}

/// Every replica serves webhooks, so every pod is behind this name.
pub(super) fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": namespaced(WEBHOOK_SERVICE),
        "spec": {
            "ports": [{"port": 443, "targetPort": "webhook-server"}],
            "selector": {PROVIDER_LABEL: FIELD_MANAGER},
        },
    })
}

fn configuration(kind: &str, name: &str, webhooks: Vec<Value>) -> Value {
    let mut metadata = json!(named(name));
    metadata["annotations"] = inject_ca();
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": metadata, "webhooks": webhooks})
}

/// Requests in the older version arrive in this one: `matchPolicy` says so.
fn pool_webhook(pool: PoolKind, purpose: &str, verb: &str, operations: &[&str]) -> Value {
    let singular = pool.singular();
    json!({
        "name": format!("{purpose}.{singular}.{IPAM_GROUP}"),
        "clientConfig": client_config(&format!("/{verb}-ipam-cluster-x-k8s-io-v1alpha2-{singular}")),
        "rules": [{
            "apiGroups": [IPAM_GROUP],
            "apiVersions": ["v1alpha2"],
            "operations": operations,
            "resources": [pool.plural()],
        }],
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1", "v1beta1"],
    })
}

/// Saves a write for each new claim of ours. Claims are served without it too, so it never stands in the way.
fn claim_webhook() -> Value {
    let kinds = PoolKind::ALL.map(|pool| format!("'{}'", pool.kind())).join(", ");
    json!({
        "name": format!("default.ipaddressclaim.in-cluster.{IPAM_GROUP}"),
        "clientConfig": client_config("/mutate-ipam-cluster-x-k8s-io-ipaddressclaim"),
        "rules": [{
            "apiGroups": [IPAM_GROUP],
            "apiVersions": ["v1alpha1", "v1beta1", "v1beta2"],
            "operations": ["CREATE"],
            "resources": ["ipaddressclaims"],
        }],
        "matchConditions": [
            {
                "name": "pool-of-our-group",
                "expression": format!("has(object.spec.poolRef.apiGroup) && object.spec.poolRef.apiGroup == '{IPAM_GROUP}'"),
            },
            {"name": "pool-of-our-kinds", "expression": format!("object.spec.poolRef.kind in [{kinds}]")},
        ],
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "sideEffects": "None",
        "timeoutSeconds": 2,
        "admissionReviewVersions": ["v1", "v1beta1"],
    })
}

fn client_config(path: &str) -> Value {
    json!({"service": {"name": WEBHOOK_SERVICE, "namespace": NAMESPACE, "path": path}})
}

fn inject_ca() -> Value {
    json!({INJECT_CA_FROM: format!("{NAMESPACE}/{CERTIFICATE}")})
}
