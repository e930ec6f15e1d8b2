//! The webhooks' certificate, which cert-manager issues and renews.

use serde_json::{Value, json};
use webhooks::registration::SERVICE_NAME;

use super::{CERTIFICATE, NAMESPACE, WEBHOOK_SECRET, namespaced};

const API_VERSION: &str = "cert-manager.io/v1";
const ISSUER: &str = "selfsigned-issuer";

pub(super) fn issuer() -> Value {
    json!({"apiVersion": API_VERSION, "kind": "Issuer", "metadata": namespaced(ISSUER), "spec": {"selfSigned": {}}})
}

pub(super) fn certificate() -> Value {
    let names = ["svc", "svc.cluster.local"].map(|zone| format!("{SERVICE_NAME}.{NAMESPACE}.{zone}"));
    json!({
        "apiVersion": API_VERSION,
        "kind": "Certificate",
        "metadata": namespaced(CERTIFICATE),
        "spec": {
            "dnsNames": names,
            "issuerRef": {"kind": "Issuer", "name": ISSUER},
            "secretName": WEBHOOK_SECRET,
            "subject": {"organizations": ["k8s-sig-cluster-lifecycle"]},
        },
    })
}
