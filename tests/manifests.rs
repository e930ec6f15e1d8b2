//! The definitions and roles in `config/`: that they are the ones the code prints, and that they keep the facts which
//! existing objects, manifests and tools rely on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::{Value, json};

const IP_POOLS: [&str; 2] = ["inclusterippools", "globalinclusterippools"];
const PREFIX_POOLS: [&str; 2] = ["inclusterprefixpools", "globalinclusterprefixpools"];

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

/// Every file below `dir`, by its path there.
fn tree(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            files.extend(tree(&path).into_iter().map(|(below, text)| (name.join(below), text)));
        } else {
            files.insert(name, std::fs::read_to_string(&path).unwrap());
        }
    }
    files
}

/// What `manager manifests` answers with these arguments.
fn manifests(args: &[&Path]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_manager")).arg("manifests").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn printed() -> Vec<Value> {
    static PRINTED: OnceLock<Vec<Value>> = OnceLock::new();
    let print = || {
        let stream = manifests(&[]);
        serde_yaml_ng::Deserializer::from_slice(&stream).map(|document| Value::deserialize(document).unwrap()).collect()
    };
    PRINTED.get_or_init(print).clone()
}

fn object(kind: &str, name: &str) -> Value {
    let found = printed().into_iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("no {kind} {name} is printed"))
}

const SOURCES: &str = "clusterexternalipsources";

fn crd(plural: &str) -> Value {
    let group = if plural == SOURCES { "externalip.spacebird.dev" } else { "ipam.cluster.x-k8s.io" };
    object("CustomResourceDefinition", &format!("{plural}.{group}"))
}

fn version(plural: &str, name: &str) -> Value {
    let crd = crd(plural);
    let versions = crd["spec"]["versions"].as_array().unwrap();
    versions.iter().find(|version| version["name"] == name).unwrap().clone()
}

/// Folders of printed files. What kustomize reads beside them is written by hand.
const PRINTED_FOLDERS: [&str; 7] = ["certmanager", "crd", "externalip", "manager", "prometheus", "rbac", "webhook"];
const WRITTEN_BY_HAND: [&str; 3] = ["kustomization.yaml", "references.yaml", "externalip/policy"];

#[test]
fn the_committed_files_are_the_printed_ones() {
    let dir = tempfile::tempdir().unwrap();
    manifests(&[dir.path()]);

    let printed = tree(dir.path());
    let mut committed = BTreeMap::new();
    for folder in PRINTED_FOLDERS {
        let files = tree(&config().join(folder)).into_iter();
        committed.extend(files.map(|(path, text)| (Path::new(folder).join(path), text)));
    }
    committed.retain(|path, _| !WRITTEN_BY_HAND.iter().any(|name| path.ends_with(name) || path.starts_with(name)));
    let paths: BTreeSet<_> = committed.keys().chain(printed.keys()).collect();
    let drifted: Vec<_> = paths.into_iter().filter(|path| committed.get(*path) != printed.get(*path)).collect();
    assert!(drifted.is_empty(), "run `make manifests` and commit what changes below config/: {drifted:?}");
}

#[test]
fn one_stream_holds_the_objects_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    manifests(&[dir.path()]);
    let files = tree(dir.path());
    let objects = files.iter().filter(|(path, _)| !path.starts_with("crd/patches"));
    let objects: Vec<Value> = objects.map(|(_, text)| serde_yaml_ng::from_str(text).unwrap()).collect();
    assert_eq!(printed(), objects);
}

#[test]
fn the_deployment_runs_the_image_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    manifests(&[dir.path(), Path::new("--image=example.org/team/ipam:v3")]);
    let deployment: Value = serde_yaml_ng::from_str(&tree(dir.path())[Path::new("manager/deployment.yaml")]).unwrap();
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], "example.org/team/ipam:v3");
}

/// One line per property: path, type, then what else the schema says about it except descriptions. `!` marks what its
/// object requires; `[]` stands for the items of a list.
fn facts(schema: &Value, path: &str, required: bool, into: &mut Vec<String>) {
    let mut line = format!("{path}{} {}", if required { "!" } else { "" }, schema["type"].as_str().unwrap());
    for (key, value) in schema.as_object().unwrap() {
        match key.as_str() {
            "type" | "description" | "properties" | "items" | "required" => {}
            _ => line.extend([" ", key, "=", &value.as_str().map_or_else(|| value.to_string(), str::to_owned)]),
        }
    }
    into.push(line);
    if let Some(items) = schema.get("items") {
        facts(items, &format!("{path}[]"), false, into);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let required = schema["required"].as_array().is_some_and(|names| names.contains(&json!(name)));
        facts(property, &format!("{path}.{name}"), required, into);
    }
}

/// All facts of a version's schema, checked against `expected`, whatever the order.
fn assert_facts(plural: &str, version_name: &str, expected: &[&str]) {
    let mut found = Vec::new();
    facts(&version(plural, version_name)["schema"]["openAPIV3Schema"], "", false, &mut found);
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let surplus: Vec<_> = found.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&found).collect();
    assert!(
        surplus.is_empty() && missing.is_empty(),
        "{plural} {version_name}\nnot expected: {surplus:#?}\nmissing: {missing:#?}"
    );
}

/// Of every kind and version. `spec` is not required.
const OBJECT: &[&str] = &[" object", ".apiVersion string", ".kind string", ".metadata object", ".spec object", ".status object"];

const COUNTS: &[&str] = &[
    ".status.ipAddresses object",
    ".status.ipAddresses.total! integer",
    ".status.ipAddresses.free! integer",
    ".status.ipAddresses.used! integer",
    ".status.ipAddresses.outOfRange! integer",
];

const STATUS_OF_V1ALPHA2: &[&str] = &[
    ".status.observedGeneration integer format=int64",
    ".status.ipAddressesExact object",
    ".status.ipAddressesExact.total string",
    ".status.ipAddressesExact.free string",
    ".status.conditions array maxItems=32 x-kubernetes-list-map-keys=[\"type\"] x-kubernetes-list-type=map",
    ".status.conditions[] object",
    ".status.conditions[].type! string maxLength=316 pattern=^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
    ".status.conditions[].status! string enum=[\"True\",\"False\",\"Unknown\"]",
    ".status.conditions[].reason! string maxLength=1024 minLength=1 pattern=^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
    ".status.conditions[].message! string maxLength=32768",
    ".status.conditions[].lastTransitionTime! string format=date-time",
    ".status.conditions[].observedGeneration integer format=int64 minimum=0",
];

#[test]
fn ip_pools_keep_their_schema() {
    let spec: &[&str] = &[
        ".spec.addresses! array",
        ".spec.addresses[] string",
        ".spec.prefix! integer maximum=128 minimum=0",
        ".spec.gateway string",
        ".spec.allocateReservedIPAddresses boolean",
        ".spec.excludedAddresses array",
        ".spec.excludedAddresses[] string",
        ".spec.addressReuseGracePeriodSeconds integer format=int32 minimum=0",
    ];
    for plural in IP_POOLS {
        assert_facts(plural, "v1alpha2", &[OBJECT, spec, COUNTS, STATUS_OF_V1ALPHA2].concat());
    }
}

#[test]
fn ip_pools_of_the_older_version_keep_their_schema() {
    let spec: &[&str] = &[
        ".spec.addresses array",
        ".spec.addresses[] string",
        ".spec.subnet string",
        ".spec.start string",
        ".spec.end string",
        ".spec.prefix integer maximum=128",
        ".spec.gateway string",
    ];
    for plural in IP_POOLS {
        assert_facts(plural, "v1alpha1", &[OBJECT, spec, COUNTS].concat());
    }
}

#[test]
fn prefix_pools_keep_their_schema() {
    let spec: &[&str] = &[
        ".spec.prefixes! array",
        ".spec.prefixes[] string",
        ".spec.allocationPrefixLength integer default=64 maximum=128 minimum=1",
        ".spec.gateway string",
        ".spec.excludedPrefixes array",
        ".spec.excludedPrefixes[] string",
    ];
    for plural in PREFIX_POOLS {
        assert_facts(plural, "v1alpha2", &[OBJECT, spec, COUNTS, STATUS_OF_V1ALPHA2].concat());
    }
}

/// The facts of one family of sources, with what each solver may be; `{}` stands for the path of the list's solvers.
const SOLVER: &[&str] = &[
    "{}.dnsHostname object",
    "{}.dnsHostname.host! string maxLength=253",
    "{}.interface object",
    "{}.interface.name string nullable=true",
    "{}.ipAPI.caBundle string maxLength=65536",
    "{}.ipAPI.field string maxLength=253",
    "{}.ipAPI.format string enum=[\"json\",\"text\"]",
    "{}.ipAPI.provider string default=myIp enum=[\"myIp\",\"ipify\",\"icanhazip\",\"cloudflare\",\"custom\"]",
    "{}.ipAPI.url string maxLength=2048",
    "{}.ipPool object",
    "{}.ipPool.poolRef! object",
    "{}.ipPool.poolRef.apiGroup string",
    "{}.ipPool.poolRef.kind! string enum=[\"InClusterIPPool\",\"GlobalInClusterIPPool\"]",
    "{}.ipPool.poolRef.name! string maxLength=253 minLength=1",
    "{}.loadBalancerIngress object",
    "{}.static object",
    "{}.static.addresses! array maxItems=64",
    "{}.static.addresses[] string format=ip",
];

#[test]
fn sources_keep_their_schema() {
    let mut found = Vec::new();
    facts(&version(SOURCES, "v1alpha1")["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec", true, &mut found);
    // Both have rules in CEL, which the API server's trials hold.
    let (rules, found): (Vec<_>, Vec<_>) = found.into_iter().partition(|fact| fact.contains("x-kubernetes-validations="));
    assert_eq!(rules.len(), 4, "{rules:#?}");

    let one_of = |names: &[&str]| {
        let required: Vec<Value> = names.iter().map(|name| json!({"required": [name]})).collect();
        json!(required).to_string()
    };
    let plain = ["ipAPI", "interface", "dnsHostname", "loadBalancerIngress", "static"];
    let all = one_of(&[&plain[..], &["merge", "ipPool"]].concat());
    let parts = one_of(&[&plain[..], &["ipPool"]].concat());
    let mut expected: BTreeSet<String> = [
        "spec! object",
        "spec.outputs array maxItems=3 minItems=1 x-kubernetes-list-type=set",
        "spec.outputs[] string enum=[\"ExternalIPs\",\"LoadBalancerStatus\",\"ExternalDNSTarget\"]",
        "spec.ipMode string enum=[\"VIP\",\"Proxy\"]",
        "spec.refreshInterval string maxLength=64 pattern=^([0-9]+(ms|s|m|h))+$",
        "spec.maxStaleness string maxLength=64 pattern=^([0-9]+(ms|s|m|h))+$",
        "spec.onNoAddress string enum=[\"Keep\",\"Remove\"]",
        "spec.release string enum=[\"Release\",\"Retain\"]",
        "spec.familyPolicy string enum=[\"Any\",\"MatchService\"]",
        "spec.portConflict string enum=[\"Warn\",\"Refuse\"]",
        "spec.addressPolicy object",
        "spec.addressPolicy.allowPrivate boolean",
        "spec.addressPolicy.allow array maxItems=64",
        "spec.addressPolicy.allow[] string",
        "spec.addressPolicy.deny array maxItems=64",
        "spec.addressPolicy.deny[] string",
        "spec.allowedServices object",
    ]
    .map(str::to_owned)
    .into();
    for family in ["spec.ipv4", "spec.ipv6"] {
        let (solvers, merge) = (format!("{family}.solvers[]"), format!("{family}.solvers[].merge"));
        let part = format!("{merge}.partialSolvers[]");
        expected.extend([
            format!("{family} object nullable=true"),
            format!("{family}.queryMode string enum=[\"firstFound\",\"all\",null] nullable=true"),
            format!("{family}.solvers array default=[] maxItems=32"),
            format!("{solvers} object oneOf={all}"),
            format!("{merge} object"),
            format!("{merge}.partialSolvers! array maxItems=16"),
            format!("{part} object"),
            format!("{part}.mask! string format=ip"),
            format!("{part}.solver! object oneOf={parts}"),
        ]);
        for path in [solvers, format!("{part}.solver")] {
            expected.extend(SOLVER.iter().map(|fact| fact.replace("{}", &path)));
        }
    }
    for selector in ["namespaceSelector", "serviceSelector"] {
        let path = format!("spec.allowedServices.{selector}");
        expected.extend([
            format!("{path} object x-kubernetes-map-type=atomic"),
            format!("{path}.matchLabels object additionalProperties={{\"type\":\"string\"}}"),
            format!("{path}.matchExpressions array x-kubernetes-list-type=atomic"),
            format!("{path}.matchExpressions[] object"),
            format!("{path}.matchExpressions[].key! string"),
            format!("{path}.matchExpressions[].operator! string enum=[\"In\",\"NotIn\",\"Exists\",\"DoesNotExist\"]"),
            format!("{path}.matchExpressions[].values array x-kubernetes-list-type=atomic"),
            format!("{path}.matchExpressions[].values[] string"),
        ]);
    }
    let found: BTreeSet<String> = found.into_iter().collect();
    let (surplus, missing): (Vec<_>, Vec<_>) = (found.difference(&expected).collect(), expected.difference(&found).collect());
    assert!(surplus.is_empty() && missing.is_empty(), "not expected: {surplus:#?}\nmissing: {missing:#?}");
}

#[test]
fn sources_have_their_names_and_columns() {
    let crd = crd(SOURCES);
    let names = json!({
        "categories": ["externalip-manager"],
        "kind": "ClusterExternalIPSource",
        "listKind": "ClusterExternalIPSourceList",
        "plural": SOURCES,
        "shortNames": ["ceips"],
        "singular": "clusterexternalipsource",
    });
    assert_eq!((&crd["spec"]["names"], &crd["spec"]["scope"]), (&names, &json!("Cluster")));
    assert_eq!(crd["metadata"].get("labels"), None, "clusterctl does not move it");

    let version = version(SOURCES, "v1alpha1");
    let column = |column: &Value| {
        let priority = column["priority"].as_i64().unwrap_or_default();
        format!("{} {} {} {priority}", column["name"], column["type"], column["jsonPath"].as_str().unwrap()).replace('"', "'")
    };
    let columns: Vec<_> = version["additionalPrinterColumns"].as_array().unwrap().iter().map(column).collect();
    assert_eq!(
        columns,
        [
            "'Ready' 'string' .status.conditions[?(@.type=='Ready')].status 0",
            "'IPv4' 'string' .status.ipv4.addresses 0",
            "'IPv6' 'string' .status.ipv6.addresses 0",
            "'Services' 'integer' .status.services 0",
            "'Age' 'date' .metadata.creationTimestamp 0",
            "'Reason' 'string' .status.conditions[?(@.type=='Ready')].reason 1",
            "'Degraded' 'string' .status.conditions[?(@.type=='Degraded')].status 1",
        ]
    );
    assert_eq!(version["subresources"], json!({"status": {}}));
}

#[test]
fn every_property_is_described() {
    fn undescribed(schema: &Value, path: &str, into: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if property.get("description").is_none() && path != ".metadata" {
                into.push(path.clone());
            }
            undescribed(property, &path, into);
            undescribed(&property["items"], &format!("{path}[]"), into);
        }
    }
    let mut found = Vec::new();
    for plural in IP_POOLS.into_iter().chain(PREFIX_POOLS).chain([SOURCES]) {
        for version in crd(plural)["spec"]["versions"].as_array().unwrap() {
            undescribed(&version["schema"]["openAPIV3Schema"], "", &mut found);
        }
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn kinds_have_the_names_scopes_and_versions_that_clusters_know() {
    // plural, kind, scope, versions as name:served:stored:deprecated
    let table = [
        ("inclusterippools", "InClusterIPPool", "Namespaced", vec!["v1alpha1:true:false:true", "v1alpha2:true:true:null"]),
        (
            "globalinclusterippools",
            "GlobalInClusterIPPool",
            "Cluster",
            vec!["v1alpha1:true:false:true", "v1alpha2:true:true:null"],
        ),
        ("inclusterprefixpools", "InClusterPrefixPool", "Namespaced", vec!["v1alpha2:true:true:null"]),
        ("globalinclusterprefixpools", "GlobalInClusterPrefixPool", "Cluster", vec!["v1alpha2:true:true:null"]),
    ];
    for (plural, kind, scope, versions) in table {
        let crd = crd(plural);
        let expected = json!({
            "categories": ["cluster-api"],
            "kind": kind,
            "listKind": format!("{kind}List"),
            "plural": plural,
            "singular": kind.to_lowercase(),
        });
        assert_eq!(crd["spec"]["names"], expected);
        assert_eq!(crd["spec"]["group"], "ipam.cluster.x-k8s.io");
        assert_eq!(crd["spec"]["scope"], scope, "{plural}");
        assert_eq!(crd["spec"].get("conversion"), None, "{plural}");
        let labels = json!({
            "clusterctl.cluster.x-k8s.io/move-hierarchy": "",
            "cluster.x-k8s.io/v1beta1": "v1alpha2",
            "cluster.x-k8s.io/v1beta2": "v1alpha2",
        });
        assert_eq!(crd["metadata"]["labels"], labels, "{plural}");

        let mut found = Vec::new();
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let name = version["name"].as_str().unwrap();
            found.push(format!("{name}:{}:{}:{}", version["served"], version["storage"], version["deprecated"]));
            assert_eq!(version["subresources"], json!({"status": {}}), "{plural} {name}");
            assert_eq!(version.get("deprecationWarning"), None, "{plural} {name}");
            assert_eq!(version.get("selectableFields"), None, "{plural} {name}");
        }
        assert_eq!(found, versions, "{plural}");
    }
}

#[test]
fn columns_show_what_a_pool_consists_of_and_what_is_left() {
    let counts = [
        "Total integer .status.ipAddresses.total",
        "Free integer .status.ipAddresses.free",
        "Used integer .status.ipAddresses.used",
    ];
    let bounds = ["Subnet string .spec.subnet", "First string .spec.start", "Last string .spec.end"];
    let table = [
        ("inclusterippools", "v1alpha2", vec!["Addresses string .spec.addresses"]),
        ("globalinclusterippools", "v1alpha2", vec!["Addresses string .spec.addresses"]),
        ("inclusterippools", "v1alpha1", [&bounds[..], &["Addresses string .spec.addresses"]].concat()),
        ("globalinclusterippools", "v1alpha1", bounds.to_vec()),
        ("inclusterprefixpools", "v1alpha2", vec!["Prefixes string .spec.prefixes"]),
        ("globalinclusterprefixpools", "v1alpha2", vec!["Prefixes string .spec.prefixes"]),
    ];
    for (plural, name, first) in table {
        let version = version(plural, name);
        let columns = version["additionalPrinterColumns"].as_array().unwrap().iter();
        let text = |column: &Value, key: &str| column[key].as_str().unwrap().to_owned();
        let found: Vec<_> =
            columns.map(|column| [text(column, "name"), text(column, "type"), text(column, "jsonPath")].join(" ")).collect();
        assert_eq!(found, [&first[..], &counts].concat(), "{plural} {name}");
    }
}

/// What a role allows: one entry `group resource verb` for each combination.
fn allowed(role: &Value) -> BTreeSet<String> {
    let words = |rule: &Value, key: &str| -> Vec<String> { serde_json::from_value(rule[key].clone()).unwrap() };
    let mut allowed = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                allowed.extend(words(rule, "verbs").iter().map(|verb| format!("{group:?} {resource} {verb}")));
            }
        }
    }
    allowed
}

/// The same from lines of a table: groups, resources, verbs.
fn allowed_by(table: &[(&str, &str, &str)]) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for (groups, resources, verbs) in table {
        for group in groups.split(' ') {
            for resource in resources.split(' ') {
                allowed.extend(verbs.split(' ').map(|verb| format!("{:?} {resource} {verb}", group.trim_matches('-'))));
            }
        }
    }
    allowed
}

#[test]
fn the_manager_may_do_exactly_this() {
    let table = [
        ("cluster.x-k8s.io", "clusters", "get list watch"),
        (
            "ipam.cluster.x-k8s.io",
            "inclusterippools globalinclusterippools inclusterprefixpools globalinclusterprefixpools ipaddresses",
            "create delete get list patch update watch",
        ),
        (
            "ipam.cluster.x-k8s.io",
            "inclusterippools/finalizers globalinclusterippools/finalizers inclusterprefixpools/finalizers \
             globalinclusterprefixpools/finalizers ipaddressclaims/finalizers ipaddresses/finalizers",
            "update",
        ),
        (
            "ipam.cluster.x-k8s.io",
            "inclusterippools/status globalinclusterippools/status inclusterprefixpools/status \
             globalinclusterprefixpools/status ipaddressclaims/status ipaddresses/status",
            "get patch update",
        ),
        ("ipam.cluster.x-k8s.io", "ipaddressclaims", "get list patch update watch"),
        ("- events.k8s.io", "events", "create patch"),
    ];
    assert_eq!(allowed(&object("ClusterRole", "manager-role")), allowed_by(&table));
}

#[test]
fn the_other_roles_allow_exactly_this() {
    let all = "get list watch create update patch delete";
    let leader = [("-", "configmaps", all), ("coordination.k8s.io", "leases", all), ("-", "events", "create patch")];
    assert_eq!(allowed(&object("Role", "leader-election-role")), allowed_by(&leader));

    let proxy = [("authentication.k8s.io", "tokenreviews", "create"), ("authorization.k8s.io", "subjectaccessreviews", "create")];
    assert_eq!(allowed(&object("ClusterRole", "proxy-role")), allowed_by(&proxy));

    let reader = object("ClusterRole", "metrics-reader");
    assert_eq!(reader["rules"], json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));

    for pool in IP_POOLS.into_iter().chain(PREFIX_POOLS) {
        let singular = pool.trim_end_matches('s');
        let status = format!("{pool}/status");
        for (role, verbs) in [("viewer", "get list watch"), ("editor", all)] {
            let table = [("ipam.cluster.x-k8s.io", pool, verbs), ("ipam.cluster.x-k8s.io", status.as_str(), "get")];
            assert_eq!(allowed(&object("ClusterRole", &format!("{singular}-{role}-role"))), allowed_by(&table));
        }
    }
}

#[test]
fn external_ip_sources_add_exactly_this() {
    let table = [
        ("-", "services", "get list watch patch"),
        ("-", "services/status", "patch"),
        ("-", "namespaces", "list watch"),
        ("externalip.spacebird.dev", "clusterexternalipsources", "get list watch"),
        ("externalip.spacebird.dev", "clusterexternalipsources/status", "patch"),
        ("networking.k8s.io", "servicecidrs", "list watch"),
        ("ipam.cluster.x-k8s.io", "ipaddressclaims", "get list watch create patch delete"),
        ("ipam.cluster.x-k8s.io", "ipaddresses inclusterippools globalinclusterippools", "get list watch"),
        ("events.k8s.io", "events", "create patch"),
    ];
    assert_eq!(allowed(&object("ClusterRole", "capi-ipam-in-cluster-external-ip-sources")), allowed_by(&table));
}

#[test]
fn every_binding_joins_a_printed_role_to_the_managers_account() {
    let account = object("ServiceAccount", "controller-manager");
    let namespace = "capi-ipam-in-cluster-system";
    assert_eq!(account["metadata"]["namespace"], namespace);

    let table = [
        ("ClusterRoleBinding", "manager-rolebinding", "ClusterRole", "manager-role"),
        ("ClusterRoleBinding", "proxy-rolebinding", "ClusterRole", "proxy-role"),
        ("RoleBinding", "leader-election-rolebinding", "Role", "leader-election-role"),
    ];
    let bindings = printed().into_iter().filter(|object| object["kind"].as_str().unwrap().ends_with("Binding")).count();
    assert_eq!(bindings, table.len() + 1, "and that of external IP sources, which is applied beside an installation");
    for (kind, name, role_kind, role) in table {
        let binding = object(kind, name);
        assert_eq!(binding["roleRef"], json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}));
        let subject = json!([{"kind": "ServiceAccount", "name": "controller-manager", "namespace": namespace}]);
        assert_eq!(binding["subjects"], subject, "{name}");
        assert_eq!(object(role_kind, role)["metadata"].get("namespace"), binding["metadata"].get("namespace"), "{name}");
    }
}
