//! The manager's pods and what leads to them, except the webhooks' Service.

use serde_json::{Value, json};

use super::{NAMESPACE, SERVICE_ACCOUNT, WEBHOOK_SECRET, named, namespaced, pod_labels};

const NAME: &str = "controller-manager";
const CONTAINER: &str = "manager";
const CERTIFICATE_FOLDER: &str = "/tmp/k8s-webhook-server/serving-certs";

pub(super) fn namespace() -> Value {
    let mut metadata = json!(named(NAMESPACE));
    metadata["labels"] = json!({"control-plane": NAME});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
}

pub(super) fn deployment(image: &str) -> Value {
    let mut metadata = json!(namespaced(NAME));
    metadata["labels"] = json!({"control-plane": NAME});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": pod_labels()},
            "template": {
                "metadata": {
                    "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
                    "labels": pod_labels(),
                },
                "spec": {
                    "containers": [container(image)],
                    "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                    "serviceAccountName": SERVICE_ACCOUNT,
                    "terminationGracePeriodSeconds": 10,
                    "volumes": [{"name": "cert", "secret": {"secretName": WEBHOOK_SECRET}}],
                },
            },
        },
    })
}

fn container(image: &str) -> Value {
    let of_the_pod = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/manager"],
        "args": arguments(),
        "env": [of_the_pod("POD_NAMESPACE", "metadata.namespace"), of_the_pod("POD_NAME", "metadata.name")],
        "ports": [
            {"name": "webhook-server", "containerPort": 9443, "protocol": "TCP"},
            {"name": "https", "containerPort": 8443, "protocol": "TCP"},
            {"name": "healthz", "containerPort": 8081, "protocol": "TCP"},
        ],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": 8081},
            "initialDelaySeconds": 15,
            "periodSeconds": 20,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": 8081},
            "initialDelaySeconds": 5,
            "periodSeconds": 10,
        },
        "resources": {
            "limits": {"cpu": "500m", "memory": "128Mi"},
            "requests": {"cpu": "10m", "memory": "64Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsGroup": 65532,
            "runAsUser": 65532,
        },
        "volumeMounts": [{"mountPath": CERTIFICATE_FOLDER, "name": "cert", "readOnly": true}],
    })
}

/// clusterctl fills the variables in; the manager does where nobody did.
fn arguments() -> Vec<String> {
    let gates = [
        ("ExternalIPSources", "EXP_EXTERNAL_IP_SOURCES"),
        ("ExternalIPClaims", "EXP_EXTERNAL_IP_CLAIMS"),
        ("CloudExternalIPs", "EXP_CLOUD_EXTERNAL_IPS"),
        ("StaticEgress", "EXP_STATIC_EGRESS"),
    ];
    let gates = gates.map(|(gate, variable)| format!("{gate}=${{{variable}:=false}}"));
    vec![
        "--leader-elect".to_owned(),
        "--diagnostics-address=${CAPI_DIAGNOSTICS_ADDRESS:=:8443}".to_owned(),
        "--insecure-diagnostics=${CAPI_INSECURE_DIAGNOSTICS:=false}".to_owned(),
        format!("--feature-gates={}", gates.join(",")),
    ]
}

pub(super) fn metrics_service() -> Value {
    let mut metadata = json!(namespaced("controller-manager-metrics-service"));
    metadata["labels"] = json!({"control-plane": NAME});
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"ports": [{"name": "https", "port": 8443, "targetPort": "https"}], "selector": pod_labels()},
    })
}

/// For clusters with Prometheus' operator; not a part of what is installed.
pub(super) fn monitor() -> Value {
    json!({
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": namespaced("controller-manager-metrics-monitor"),
        "spec": {
            "endpoints": [{
                "bearerTokenFile": "/var/run/secrets/kubernetes.io/serviceaccount/token",
                "path": "/metrics",
                "port": "https",
                "scheme": "https",
                // The diagnostics listener signs its certificate itself.
                "tlsConfig": {"insecureSkipVerify": true},
            }],
            "selector": {"matchLabels": pod_labels()},
        },
    })
}
