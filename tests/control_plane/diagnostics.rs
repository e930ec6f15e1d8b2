//! What operators ask a running manager: is it ready, what does it measure, what is in its ledger; and who may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use kube::client::Body;
use serde_json::Value;
use testbed::{CapiCrds, ControlPlane, MANAGER_NAMESPACE, Manager, ManagerCommand, Options, Pool, Scene, eventually};

use crate::fixture::Standalone;
use crate::standalone;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Standalone> {
    standalone![
        absent_kinds_are_named_and_picked_up_when_they_appear,
        without_the_cluster_kind_only_claims_that_name_a_cluster_wait,
        diagnostics_are_for_callers_that_the_server_knows_and_allows,
        metrics_have_their_names_and_labels_and_name_no_claim,
    ]
}

fn command() -> ManagerCommand {
    ManagerCommand::new(env!("CARGO_BIN_EXE_manager"))
}

async fn absent_kinds_are_named_and_picked_up_when_they_appear() -> Result<()> {
    let bare = Options { capi_crds: CapiCrds::None, own_crds: false, ..Options::default() };
    let control_plane = ControlPlane::start(bare)?;
    let manager = command().start(&control_plane)?;
    let kinds = [
        "inclusterippools",
        "globalinclusterippools",
        "inclusterprefixpools",
        "globalinclusterprefixpools",
        "ipaddresses",
        "ipaddressclaims",
        "clusters",
    ];
    let says = |mark: &'static str| {
        let manager = &manager;
        async move {
            eventually(PATIENCE, async || {
                let (status, text) = manager.health("/readyz?verbose")?;
                let all = kinds.iter().all(|kind| text.lines().any(|line| line.starts_with(&format!("{mark} {kind}: "))));
                ensure!(status == 200 && all, "/readyz answers {status}:\n{text}");
                Ok(())
            })
            .await
        }
    };
    says("[~]").await?;
    assert_eq!(manager.health("/readyz")?, (200, "ok\n".to_owned()));
    assert_eq!(manager.health("/healthz")?, (200, "ok\n".to_owned()));

    control_plane.install_crds(Options::default())?;
    says("[+]").await?;
    let scene = Scene::create(control_plane.client().await?, "late", CapiCrds::Newest).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    let blocks = scene.prefix_pool("blue", "{prefixes: ['fd00::/48']}").await?;
    assert_eq!(scene.claim_address("net", &blocks).await?, "fd00::");
    Ok(())
}

async fn without_the_cluster_kind_only_claims_that_name_a_cluster_wait() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let definition =
        control_plane.kubectl(&["get", "crd", "clusters.cluster.x-k8s.io", "-o", "json", "--show-managed-fields=false"])?;
    control_plane.kubectl(&["delete", "crd", "clusters.cluster.x-k8s.io"])?;
    let manager = command().start(&control_plane)?;
    let (_, text) = manager.health("/readyz?verbose")?;
    ensure!(text.contains("[~] clusters: absent"), "{text}");
    let scene = Scene::create(control_plane.client().await?, "clusterless", CapiCrds::Newest).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    scene.claim_with("with-cluster", &pool, "{spec: {clusterName: blue}}").await?;
    assert_eq!(scene.claim_address("without", &pool).await?, "10.0.0.10");
    scene.no_address("with-cluster", testbed::QUIET).await?;

    let mut definition: Value = serde_json::from_str(&definition)?;
    definition["metadata"] = serde_json::json!({"name": "clusters.cluster.x-k8s.io", "labels": definition["metadata"]["labels"]});
    definition["status"] = Value::Null;
    control_plane.apply(&definition.to_string())?;
    control_plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "crd/clusters.cluster.x-k8s.io"])?;
    scene.cluster("blue", "{}", false).await?;
    assert_eq!(scene.address("with-cluster").await?, "10.0.0.11");
    Ok(())
}

/// Asks the secured listener, whose certificate nobody has signed.
async fn ask(manager: &Manager, verb: &str, path: &str, token: Option<&str>, body: &str) -> Result<(u16, String)> {
    let mut config = kube::Config::new(format!("https://127.0.0.1:{}", manager.diagnostics_port()).parse()?);
    config.accept_invalid_certs = true;
    let mut request = Request::builder().method(verb).uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let answer = kube::Client::try_from(config)?.send(request.body(Body::from(body.as_bytes().to_vec()))?).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await?;
    Ok((status, String::from_utf8(body.to_vec())?))
}

async fn diagnostics_are_for_callers_that_the_server_knows_and_allows() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = command().arg("--insecure-diagnostics=false").start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "diagnostics", CapiCrds::Newest).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    scene.claim_address("web", &pool).await?;
    control_plane.apply(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: debugger},
          rules: [{nonResourceURLs: ['/debug/*'], verbs: [get, put]}]}",
    )?;
    let token = |name: &str, role: Option<&str>| -> Result<String> {
        control_plane.kubectl(&["create", "serviceaccount", name, "-n", MANAGER_NAMESPACE])?;
        if let Some(role) = role {
            let account = format!("--serviceaccount={MANAGER_NAMESPACE}:{name}");
            control_plane.kubectl(&["create", "clusterrolebinding", name, &format!("--clusterrole={role}"), &account])?;
        }
        let token = control_plane.kubectl(&["create", "token", name, "-n", MANAGER_NAMESPACE])?;
        Ok(token.trim().to_owned())
    };
    let scraper = token("scraper", Some("metrics-reader"))?;
    let debugger = token("debugger", Some("debugger"))?;
    let stranger = token("stranger", None)?;
    let (scraper, debugger, stranger) = (Some(scraper.as_str()), Some(debugger.as_str()), Some(stranger.as_str()));
    for (verb, path, caller, expected) in [
        ("GET", "/metrics", None, 401),
        ("GET", "/metrics", Some("nonsense"), 401),
        ("GET", "/metrics", stranger, 403),
        ("GET", "/metrics", debugger, 403),
        ("GET", "/metrics", scraper, 200),
        ("GET", "/debug/ledger", None, 401),
        ("GET", "/debug/ledger", stranger, 403),
        ("GET", "/debug/ledger", scraper, 403),
        ("GET", "/debug/ledger", debugger, 200),
        ("PUT", "/debug/flags/v", None, 401),
        ("PUT", "/debug/flags/v", scraper, 403),
        ("PUT", "/debug/flags/v", debugger, 200),
        ("GET", "/debug/nothing", debugger, 404),
    ] {
        // A binding may reach the authorizer a moment after its creation.
        let answer = eventually(Duration::from_secs(5), async || {
            let (status, text) = ask(&manager, verb, path, caller, "4").await?;
            ensure!(status == expected, "{verb} {path} answers {status}, not {expected}: {text}");
            Ok(text)
        });
        let text = answer.await?;
        ensure!(expected != 200 || !text.is_empty(), "{verb} {path} says nothing");
    }

    let about = format!("/debug/ledger?pool=InClusterIPPool/{}/blue", scene.namespace);
    let (_, text) = ask(&manager, "GET", &about, debugger, "").await?;
    let expected = "total=11 free=10 used=1 outOfRange=0 reserved=0 parked=0 waiting=0 duplicates=0";
    ensure!(text.contains(expected), "{text}");
    assert_eq!(ask(&manager, "GET", "/debug/ledger?pool=InClusterIPPool/a/b", debugger, "").await?.0, 404);

    // Level 4 tells of every decision, level 0 of trouble only.
    scene.claim_address("told", &pool).await?;
    ensure!(manager.log().lines().any(|line| line.contains("DEBUG") && line.contains("/told")), "no decisions at level 4");
    assert_eq!(ask(&manager, "PUT", "/debug/flags/v", debugger, "0").await?.0, 200);
    scene.claim_address("untold", &pool).await?;
    ensure!(!manager.log().contains("/untold"), "changes are logged at level 0");
    assert_eq!(ask(&manager, "PUT", "/debug/flags/v", debugger, "loud").await?.0, 400);
    Ok(())
}

/// The labels that each metric may have. Those of pools are the only ones that name an object.
const POOL: &[&str] = &["kind", "namespace", "name"];
const METRICS: &[(&str, &str, &[&str])] = &[
    ("ipam_pool_addresses", "gauge", &["kind", "namespace", "name", "state"]),
    ("ipam_pool_waiting_claims", "gauge", POOL),
    ("ipam_pool_overlaps", "gauge", POOL),
    ("ipam_pool_duplicate_addresses", "gauge", POOL),
    ("ipam_pool_orphaned_addresses", "gauge", POOL),
    ("ipam_claim_bind_duration_seconds", "histogram", &["kind"]),
    ("ipam_claim_release_duration_seconds", "histogram", &["kind"]),
    ("ipam_claim_wait_duration_seconds", "histogram", &["kind"]),
    ("ipam_allocations_total", "counter", &["kind", "result"]),
    ("ipam_releases_total", "counter", &["kind"]),
    ("ipam_address_conflicts_total", "counter", &["kind"]),
    ("ipam_errors_total", "counter", &["category"]),
    ("ipam_api_requests_total", "counter", &["verb", "resource", "code"]),
    ("ipam_api_request_duration_seconds", "histogram", &["verb", "resource"]),
    ("ipam_api_inflight_writes", "gauge", &[]),
    ("ipam_api_write_window", "gauge", &[]),
    ("ipam_api_throttled_seconds_total", "counter", &[]),
    ("ipam_watch_restarts_total", "counter", &["resource", "reason"]),
    ("ipam_cache_objects", "gauge", &["resource"]),
    ("ipam_cache_bytes", "gauge", &["resource"]),
    ("ipam_events_dropped_total", "counter", &[]),
    ("ipam_leader", "gauge", &[]),
    ("ipam_build_info", "gauge", &["version"]),
    ("ipam_webhook_requests_total", "counter", &["path", "code"]),
    ("ipam_webhook_request_duration_seconds", "histogram", &["path", "code"]),
];
/// Nothing of the kind happens in the trial, so there is no such series.
const UNSEEN: [&str; 5] = [
    "ipam_address_conflicts_total",
    "ipam_errors_total",
    "ipam_watch_restarts_total",
    "ipam_webhook_requests_total",
    "ipam_webhook_request_duration_seconds",
];

/// One line of Prometheus' text format: the metric's name without a histogram's ending, its labels, its value.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value: {line}"))?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').with_context(|| format!("labels do not end: {line}"))?;
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once("=\"").with_context(|| format!("no label: {line}"))?;
        Ok((key.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    let value = value.replace("+Inf", "inf").parse().with_context(|| format!("no number: {line}"))?;
    let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    Ok((plain.to_owned(), pairs.collect::<Result<_>>()?, value))
}

async fn metrics_have_their_names_and_labels_and_name_no_claim() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let manager = command().start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "metrics", CapiCrds::Newest).await?;
    let pool = scene.pool("blue-pool", "{addresses: [10.0.0.10-10.0.0.11], prefix: 24}").await?;
    scene.claim_address("a-claim-1", &pool).await?;
    scene.claim_address("a-claim-2", &pool).await?;
    scene.claim("a-claim-3", &pool).await?;
    scene.ready_becomes("a-claim-3", "False", "PoolExhausted").await?;
    let gauge = |metric: &str, state: Option<&str>, pool: &Pool| -> Result<Option<f64>> {
        let samples = manager.metrics()?.lines().filter(|line| !line.starts_with('#')).map(sample).collect::<Result<Vec<_>>>()?;
        let found = samples.into_iter().find(|(name, labels, _)| {
            let is_pool = labels.get("name") == Some(&pool.name) && labels.get("kind").map(String::as_str) == Some(pool.kind);
            name == metric && is_pool && labels.get("state").map(String::as_str) == state
        });
        Ok(found.map(|(.., value)| value))
    };
    let becomes = |metric: &'static str, state: Option<&'static str>, expected: Option<f64>| {
        let (gauge, pool) = (&gauge, &pool);
        async move {
            eventually(PATIENCE, async || {
                let now = gauge(metric, state, pool)?;
                ensure!(now == expected, "{metric} {state:?} is {now:?}, not {expected:?}");
                Ok(())
            })
            .await
        }
    };
    for (state, expected) in
        [("total", 2.0), ("free", 0.0), ("used", 2.0), ("out_of_range", 0.0), ("reserved", 0.0), ("grace", 0.0), ("parked", 0.0)]
    {
        becomes("ipam_pool_addresses", Some(state), Some(expected)).await?;
    }
    becomes("ipam_pool_waiting_claims", None, Some(1.0)).await?;
    scene.delete("IPAddressClaim", "a-claim-1").await?;
    assert_eq!(scene.address("a-claim-3").await?, "10.0.0.10");
    becomes("ipam_pool_waiting_claims", None, Some(0.0)).await?;

    let text = manager.metrics()?;
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels, _) = sample(line)?;
        if name.starts_with("process_") {
            continue;
        }
        let (.., known) =
            METRICS.iter().find(|(known, ..)| *known == name).with_context(|| format!("not a metric of ours: {line}"))?;
        let mut expected: BTreeSet<&str> = known.iter().copied().collect();
        if line.contains("_bucket{") {
            expected.insert("le");
        }
        assert_eq!(labels.keys().map(String::as_str).collect::<BTreeSet<_>>(), expected, "{line}");
        seen.insert(name);
    }
    for (name, kind, _) in METRICS.iter().filter(|(name, ..)| !UNSEEN.contains(name) || seen.contains(*name)) {
        ensure!(seen.contains(*name), "{name} is not measured");
        let announced = format!("# TYPE {} {kind}\n", name.trim_end_matches("_total"));
        ensure!(text.contains(&announced), "{name} is not announced as a {kind}");
    }
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"] {
        ensure!(text.lines().any(|line| line.starts_with(&format!("{name} "))), "{name} is not measured");
    }
    ensure!(!text.contains("a-claim"), "a claim is named:\n{text}");
    ensure!(text.contains("ipam_allocations_total{kind=\"InClusterIPPool\",result=\"bound\"} 3\n"), "{text}");

    // A gauge goes with its pool.
    scene.delete("IPAddressClaim", "a-claim-2").await?;
    scene.delete("IPAddressClaim", "a-claim-3").await?;
    scene.delete(pool.kind, &pool.name).await?;
    scene.pool_gone(&pool).await?;
    for (metric, ..) in &METRICS[..5] {
        becomes(metric, (*metric == "ipam_pool_addresses").then_some("used"), None).await?;
    }
    ensure!(!manager.metrics()?.contains("blue-pool"), "a pool that is gone is still named");
    Ok(())
}
