//! What is released: the objects in the components file, down to the fields that clusterctl, infrastructure providers and
//! installed clusters rely on; the files beside it; and that clusterctl can use them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Value, json};
use testbed::{BuiltRelease, Clusterctl};

const NAMESPACE: &str = "capi-ipam-in-cluster-system";
const POOLS: [&str; 4] = ["inclusterippool", "globalinclusterippool", "inclusterprefixpool", "globalinclusterprefixpool"];

fn release() -> &'static BuiltRelease {
    static RELEASE: OnceLock<BuiltRelease> = OnceLock::new();
    RELEASE.get_or_init(|| BuiltRelease::with(env!("CARGO_BIN_EXE_manager")).unwrap())
}

fn documents(text: &str) -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(text).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

/// `Kind namespace/name`, or `Kind name` of what has no namespace.
fn key(object: &Value) -> String {
    let (kind, metadata) = (object["kind"].as_str().unwrap(), &object["metadata"]);
    let name = metadata["name"].as_str().unwrap();
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

fn components() -> BTreeMap<String, Value> {
    documents(release().components()).into_iter().map(|object| (key(&object), object)).collect()
}

/// A component by its key without the prefix of names: `Service webhook-service`.
fn component(short: &str) -> Value {
    let (kind, name) = short.split_once(' ').unwrap();
    let name = format!("capi-ipam-in-cluster-{name}");
    let found = components().into_values().find(|object| object["kind"] == kind && object["metadata"]["name"] == *name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn expected_keys(namespace: &str) -> BTreeSet<String> {
    let prefix = "capi-ipam-in-cluster-";
    let mut keys = BTreeSet::from([format!("Namespace {namespace}")]);
    keys.extend(POOLS.map(|singular| format!("CustomResourceDefinition {singular}s.ipam.cluster.x-k8s.io")));
    keys.insert("CustomResourceDefinition clusterexternalipsources.externalip.spacebird.dev".to_owned());
    for (kind, name) in [
        ("ServiceAccount", "controller-manager"),
        ("Deployment", "controller-manager"),
        ("Service", "webhook-service"),
        ("Service", "controller-manager-metrics-service"),
        ("Issuer", "selfsigned-issuer"),
        ("Certificate", "serving-cert"),
        ("Role", "leader-election-role"),
        ("RoleBinding", "leader-election-rolebinding"),
    ] {
        keys.insert(format!("{kind} {namespace}/{prefix}{name}"));
    }
    for (kind, name) in [
        ("MutatingWebhookConfiguration", "mutating-webhook-configuration"),
        ("ValidatingWebhookConfiguration", "validating-webhook-configuration"),
        ("ClusterRole", "manager-role"),
        ("ClusterRoleBinding", "manager-rolebinding"),
        ("ClusterRole", "proxy-role"),
        ("ClusterRoleBinding", "proxy-rolebinding"),
        ("ClusterRole", "metrics-reader"),
    ] {
        keys.insert(format!("{kind} {prefix}{name}"));
    }
    keys
}

#[test]
fn the_components_are_exactly_these() {
    assert_eq!(components().into_keys().collect::<BTreeSet<_>>(), expected_keys(NAMESPACE));
    assert_eq!(documents(release().components()).len(), expected_keys(NAMESPACE).len());
}

#[test]
fn every_component_carries_the_providers_label() {
    for (key, object) in components() {
        assert_eq!(object["metadata"]["labels"]["cluster.x-k8s.io/provider"], "ipam-in-cluster", "{key}");
    }
    let namespace = &components()[&format!("Namespace {NAMESPACE}")];
    assert_eq!(namespace["metadata"]["labels"]["control-plane"], "controller-manager");
}

#[test]
fn every_definition_is_converted_by_the_webhooks_and_moves_with_clusterctl() {
    for singular in POOLS {
        let crd = &components()[&format!("CustomResourceDefinition {singular}s.ipam.cluster.x-k8s.io")];
        let service = json!({"name": "capi-ipam-in-cluster-webhook-service", "namespace": NAMESPACE, "path": "/convert"});
        let webhook = json!({"clientConfig": {"service": service}, "conversionReviewVersions": ["v1"]});
        assert_eq!(crd["spec"]["conversion"], json!({"strategy": "Webhook", "webhook": webhook}), "{singular}");
        let annotations = json!({"cert-manager.io/inject-ca-from": format!("{NAMESPACE}/capi-ipam-in-cluster-serving-cert")});
        assert_eq!(crd["metadata"]["annotations"], annotations, "{singular}");
        let labels = json!({
            "cluster.x-k8s.io/provider": "ipam-in-cluster",
            "cluster.x-k8s.io/v1beta1": "v1alpha2",
            "cluster.x-k8s.io/v1beta2": "v1alpha2",
            "clusterctl.cluster.x-k8s.io/move-hierarchy": "",
        });
        assert_eq!(crd["metadata"]["labels"], labels, "{singular}");
    }
}

#[test]
fn the_deployment_is_the_one_that_installed_clusters_can_change_to() {
    let deployment = component("Deployment controller-manager");
    let labels = json!({"cluster.x-k8s.io/provider": "ipam-in-cluster", "control-plane": "controller-manager"});
    assert_eq!(deployment["metadata"]["labels"], labels);
    let of_the_pod = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let expected = json!({
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels, "annotations": {"kubectl.kubernetes.io/default-container": "manager"}},
            "spec": {
                "serviceAccountName": "capi-ipam-in-cluster-controller-manager",
                "terminationGracePeriodSeconds": 10,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "volumes": [{"name": "cert", "secret": {"secretName": "capi-ipam-in-cluster-webhook-service-cert"}}],
                "containers": [{
                    "name": "manager",
                    "image": BuiltRelease::IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["/manager"],
                    "args": [
                        "--leader-elect",
                        "--diagnostics-address=${CAPI_DIAGNOSTICS_ADDRESS:=:8443}",
                        "--insecure-diagnostics=${CAPI_INSECURE_DIAGNOSTICS:=false}",
                        "--feature-gates=ExternalIPSources=${EXP_EXTERNAL_IP_SOURCES:=false},\
                         ExternalIPClaims=${EXP_EXTERNAL_IP_CLAIMS:=false},\
                         CloudExternalIPs=${EXP_CLOUD_EXTERNAL_IPS:=false},\
                         StaticEgress=${EXP_STATIC_EGRESS:=false}",
                    ],
                    "env": [of_the_pod("POD_NAMESPACE", "metadata.namespace"), of_the_pod("POD_NAME", "metadata.name")],
                    "ports": [
                        {"name": "webhook-server", "containerPort": 9443, "protocol": "TCP"},
                        {"name": "https", "containerPort": 8443, "protocol": "TCP"},
                        {"name": "healthz", "containerPort": 8081, "protocol": "TCP"},
                    ],
                    "livenessProbe":
                        {"httpGet": {"path": "/healthz", "port": 8081}, "initialDelaySeconds": 15, "periodSeconds": 20},
                    "readinessProbe":
                        {"httpGet": {"path": "/readyz", "port": 8081}, "initialDelaySeconds": 5, "periodSeconds": 10},
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "64Mi"},
                        "limits": {"cpu": "500m", "memory": "128Mi"},
                    },
                    "securityContext": {
                        "runAsUser": 65532,
                        "runAsGroup": 65532,
                        "allowPrivilegeEscalation": false,
                        "privileged": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts":
                        [{"name": "cert", "mountPath": "/tmp/k8s-webhook-server/serving-certs", "readOnly": true}],
                }],
            },
        },
    });
    assert_eq!(deployment["spec"], expected);
}

#[test]
fn services_and_the_certificate_lead_to_the_pods() {
    let webhooks = json!({
        "ports": [{"port": 443, "targetPort": "webhook-server"}],
        "selector": {"cluster.x-k8s.io/provider": "ipam-in-cluster"},
    });
    assert_eq!(component("Service webhook-service")["spec"], webhooks);

    let metrics = component("Service controller-manager-metrics-service");
    let labels = json!({"cluster.x-k8s.io/provider": "ipam-in-cluster", "control-plane": "controller-manager"});
    assert_eq!(metrics["metadata"]["labels"], labels);
    let spec = json!({"ports": [{"name": "https", "port": 8443, "targetPort": "https"}], "selector": labels});
    assert_eq!(metrics["spec"], spec);

    let service = "capi-ipam-in-cluster-webhook-service.capi-ipam-in-cluster-system.svc";
    let certificate = json!({
        "dnsNames": [service, format!("{service}.cluster.local")],
        "issuerRef": {"kind": "Issuer", "name": "capi-ipam-in-cluster-selfsigned-issuer"},
        "secretName": "capi-ipam-in-cluster-webhook-service-cert",
        "subject": {"organizations": ["k8s-sig-cluster-lifecycle"]},
    });
    assert_eq!(component("Certificate serving-cert")["spec"], certificate);
    assert_eq!(component("Certificate serving-cert")["apiVersion"], "cert-manager.io/v1");
    assert_eq!(component("Issuer selfsigned-issuer")["spec"], json!({"selfSigned": {}}));
}

#[test]
fn the_components_without_cert_manager_differ_in_nothing_else() {
    let text = std::fs::read_to_string(release().folder().join("ipam-components-self-signed.yaml")).unwrap();
    let mut found: BTreeMap<String, Value> = documents(&text).into_iter().map(|object| (key(&object), object)).collect();
    let prefix = "capi-ipam-in-cluster-webhook";
    for (kind, role) in [("Role", format!("{NAMESPACE}/{prefix}-certificate")), ("ClusterRole", format!("{prefix}-registration"))]
    {
        let (role, binding) = (format!("{kind} {role}-role"), format!("{kind}Binding {role}-rolebinding"));
        let (role, binding) = (found.remove(&role).unwrap(), found.remove(&binding).unwrap());
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        assert_eq!(binding["subjects"], component("RoleBinding leader-election-rolebinding")["subjects"]);
        for object in [role, binding] {
            assert_eq!(object["metadata"]["labels"], json!({"cluster.x-k8s.io/provider": "ipam-in-cluster"}));
        }
    }

    let mut expected = components();
    expected.retain(|key, _| !key.starts_with("Certificate ") && !key.starts_with("Issuer "));
    for object in expected.values_mut() {
        let metadata = object["metadata"].as_object_mut().unwrap();
        if metadata.get("annotations").is_some_and(|annotations| annotations.get("cert-manager.io/inject-ca-from").is_some()) {
            metadata.remove("annotations");
        }
        if object["kind"] == "Deployment" {
            let pod = object["spec"]["template"]["spec"].as_object_mut().unwrap();
            pod.remove("volumes").unwrap();
            pod["containers"][0].as_object_mut().unwrap().remove("volumeMounts").unwrap();
            pod["containers"][0]["args"].as_array_mut().unwrap().push(json!("--webhook-self-signed"));
        }
    }
    assert_eq!(found, expected);
}

/// One line per webhook: name, path, operations, groups, versions, resource, failure policy, time-out.
fn webhook_lines(configuration: &Value) -> Vec<String> {
    let annotation = &configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
    assert_eq!(*annotation, format!("{NAMESPACE}/capi-ipam-in-cluster-serving-cert"));
    let mut lines = Vec::new();
    for webhook in configuration["webhooks"].as_array().unwrap() {
        let service = &webhook["clientConfig"]["service"];
        assert_eq!(service["name"], "capi-ipam-in-cluster-webhook-service");
        assert_eq!(service["namespace"], NAMESPACE);
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["matchPolicy"], "Equivalent");
        assert_eq!(webhook["admissionReviewVersions"], json!(["v1", "v1beta1"]));
        let rules = webhook["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 1);
        let words = |field: &str| serde_json::from_value::<Vec<String>>(rules[0][field].clone()).unwrap().join(",");
        let parts = [
            webhook["name"].as_str().unwrap().to_owned(),
            service["path"].as_str().unwrap().to_owned(),
            words("operations"),
            words("apiGroups"),
            words("apiVersions"),
            words("resources"),
            webhook["failurePolicy"].as_str().unwrap().to_owned(),
            webhook["timeoutSeconds"].to_string(),
        ];
        lines.push(parts.join(" "));
    }
    lines
}

#[test]
fn the_api_server_asks_the_webhooks_exactly_this() {
    let of_pools = |purpose: &str, verb: &str, operations: &str| {
        let line = |pool: &str| {
            format!(
                "{purpose}.{pool}.ipam.cluster.x-k8s.io /{verb}-ipam-cluster-x-k8s-io-v1alpha2-{pool} {operations} \
                 ipam.cluster.x-k8s.io v1alpha2 {pool}s Fail null"
            )
        };
        POOLS.map(line).to_vec()
    };
    let mutating = component("MutatingWebhookConfiguration mutating-webhook-configuration");
    let claims = "default.ipaddressclaim.in-cluster.ipam.cluster.x-k8s.io /mutate-ipam-cluster-x-k8s-io-ipaddressclaim \
                  CREATE ipam.cluster.x-k8s.io v1alpha1,v1beta1,v1beta2 ipaddressclaims Ignore 2";
    let expected = [of_pools("default", "mutate", "CREATE,UPDATE"), vec![claims.to_owned()]].concat();
    assert_eq!(webhook_lines(&mutating), expected);
    let webhooks = mutating["webhooks"].as_array().unwrap();
    let conditional = |webhook: &&Value| webhook.get("matchConditions").is_some();
    assert_eq!(webhooks.iter().filter(conditional).map(|webhook| &webhook["failurePolicy"]).collect::<Vec<_>>(), ["Ignore"]);

    let validating = component("ValidatingWebhookConfiguration validating-webhook-configuration");
    let sources = "validation.clusterexternalipsource.externalip.spacebird.dev \
                   /validate-externalip-spacebird-dev-v1alpha1-clusterexternalipsource CREATE,UPDATE externalip.spacebird.dev \
                   v1alpha1 clusterexternalipsources Fail null";
    let expected = [of_pools("validation", "validate", "CREATE,UPDATE,DELETE"), vec![sources.to_owned()]].concat();
    assert_eq!(webhook_lines(&validating), expected);
}

#[test]
fn every_binding_joins_installed_names() {
    for (binding, role) in [
        ("ClusterRoleBinding manager-rolebinding", "ClusterRole manager-role"),
        ("ClusterRoleBinding proxy-rolebinding", "ClusterRole proxy-role"),
        ("RoleBinding leader-election-rolebinding", "Role leader-election-role"),
    ] {
        let (binding, role) = (component(binding), component(role));
        let (kind, name) = (&role["kind"], &role["metadata"]["name"]);
        assert_eq!(binding["roleRef"], json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}));
        let account = json!([
            {"kind": "ServiceAccount", "name": "capi-ipam-in-cluster-controller-manager", "namespace": NAMESPACE},
        ]);
        assert_eq!(binding["subjects"], account);
    }
}

#[test]
fn the_role_of_external_ip_sources_is_released_beside_the_components() {
    let text = std::fs::read_to_string(release().folder().join("external-ip-sources.yaml")).unwrap();
    let objects: BTreeMap<String, Value> = documents(&text).into_iter().map(|object| (key(&object), object)).collect();
    let name = "capi-ipam-in-cluster-external-ip-sources";
    let (role, binding) = (format!("ClusterRole {name}"), format!("ClusterRoleBinding {name}"));
    assert_eq!(objects.keys().collect::<Vec<_>>(), [&role, &binding]);
    assert_eq!(objects[&binding]["roleRef"]["name"], name);
    assert_eq!(objects[&binding]["subjects"], component("ClusterRoleBinding manager-rolebinding")["subjects"]);
    for object in objects.values() {
        assert_eq!(object["metadata"]["labels"], json!({"cluster.x-k8s.io/provider": "ipam-in-cluster"}));
    }
}

#[test]
fn the_files_beside_the_components_are_complete() {
    let read = |name: &str| std::fs::read_to_string(release().folder().join(name)).unwrap();
    let series = |major: u32, minor: u32, contract: &str| json!({"major": major, "minor": minor, "contract": contract});
    let metadata: Value = serde_yaml_ng::from_str(&read("metadata.yaml")).unwrap();
    let expected = json!({
        "apiVersion": "clusterctl.cluster.x-k8s.io/v1alpha3",
        "kind": "Metadata",
        "releaseSeries": [series(0, 1, "v1beta1"), series(1, 0, "v1beta1"), series(1, 1, "v1beta2"), series(2, 0, "v1beta2")],
    });
    assert_eq!(metadata, expected);
    let settings: Value = serde_json::from_str(&read("clusterctl-settings.json")).unwrap();
    let config = json!({"componentsFile": "ipam-components.yaml", "nextVersion": "v2.0.99"});
    assert_eq!(settings, json!({"name": "ipam-in-cluster", "config": config}));

    for (folder, source) in [("crds", "config/crd/bases"), ("samples", "config/samples"), ("templates", "templates")] {
        let names = |folder: &Path| -> BTreeSet<_> {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
            entries.filter(|name| name.to_string_lossy().ends_with(".yaml")).collect()
        };
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(names(&release().folder().join(folder)), names(&repository.join(source)), "{folder}");
        assert!(!names(&repository.join(source)).is_empty());
    }
}

#[test]
fn a_release_of_another_version_than_the_programs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut script = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/release"));
    script.args(["v9.9.9", "localhost/ipam-in-cluster:v9.9.9"]).arg(folder.path().join("out"));
    let output = script.env("MANAGER", env!("CARGO_BIN_EXE_manager")).env("KUBECTL", "false").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("not v9.9.9"), "{said}");
}

/// clusterctl with this release in its repository.
fn clusterctl() -> Clusterctl {
    let clusterctl = Clusterctl::new().unwrap();
    clusterctl.add_release(release().for_repository()).unwrap();
    clusterctl
}

fn generate(more: &[&str]) -> String {
    let provider = format!("in-cluster:{}", BuiltRelease::VERSION);
    clusterctl().run(&[&["generate", "provider", "--ipam", &provider], more].concat()).unwrap()
}

#[test]
fn clusterctl_fills_in_every_variable() {
    let generated = generate(&[]);
    assert!(!generated.contains("${"), "{generated}");
    let keys: BTreeSet<_> = documents(&generated).iter().map(key).collect();
    assert_eq!(keys, expected_keys(NAMESPACE));
    assert_eq!(generate(&["--raw"]).matches("${").count(), 6);
}

#[test]
fn clusterctl_installs_into_another_namespace_without_a_trace_of_the_first() {
    let generated = generate(&["-n", "other"]);
    assert!(!generated.contains(NAMESPACE), "{generated}");
    let keys: BTreeSet<_> = documents(&generated).iter().map(key).collect();
    assert_eq!(keys, expected_keys("other"));
}

#[test]
fn clusterctl_finds_images_variables_and_namespace() {
    let described = generate(&["--describe"]);
    for expected in ["in-cluster", "IPAMProvider", BuiltRelease::VERSION, NAMESPACE, BuiltRelease::IMAGE, "EXP_STATIC_EGRESS"] {
        assert!(described.contains(expected), "{expected}: {described}");
    }
}

#[test]
fn clusterctl_replaces_the_image_and_uses_the_overrides_layer() {
    let clusterctl = clusterctl();
    clusterctl.replace_image("ipam-in-cluster", "example.org/mirror", "v7").unwrap();
    let provider = format!("in-cluster:{}", BuiltRelease::VERSION);
    let generate = ["generate", "provider", "--ipam", &provider];
    let generated = clusterctl.run(&generate).unwrap();
    assert!(generated.contains("image: example.org/mirror/ipam-in-cluster:v7"), "{generated}");

    let changed = release().components().replace("replicas: 1", "replicas: 2");
    clusterctl.add_override(&format!("ipam-in-cluster/{}/ipam-components.yaml", BuiltRelease::VERSION), &changed).unwrap();
    assert!(clusterctl.run(&generate).unwrap().contains("replicas: 2"));
}

#[test]
fn templates_refer_to_the_pools_they_bring() {
    let clusterctl = clusterctl();
    for provider in ["metal3", "proxmox", "vsphere"] {
        let file = release().folder().join(format!("templates/{provider}.yaml"));
        let filled_in = clusterctl.run(&["generate", "yaml", "--from", &file.display().to_string()]).unwrap();
        let objects = documents(&filled_in);
        let pools: BTreeSet<_> = objects
            .iter()
            .filter(|object| object["kind"] == "InClusterIPPool")
            .map(|pool| pool["metadata"]["name"].clone().to_string())
            .collect();
        let mut referred = BTreeSet::new();
        for object in &objects {
            pool_references(object, &mut referred);
        }
        assert_eq!(pools, referred, "{provider}");
        assert_eq!(pools.len(), 1, "{provider}");
        assert!(objects.iter().any(|object| object["kind"].as_str().unwrap().ends_with("MachineTemplate")), "{provider}");
    }
}

/// The names of all pools that a value refers to, at any depth.
fn pool_references(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if fields.get("apiGroup") == Some(&json!("ipam.cluster.x-k8s.io")) && fields["kind"] == "InClusterIPPool" {
                into.insert(fields["name"].to_string());
            }
            for field in fields.values() {
                pool_references(field, into);
            }
        }
        Value::Array(items) => {
            for item in items {
                pool_references(item, into);
            }
        }
        _ => {}
    }
}
