//! The manager around the capability: at rest, twice, without permission to write, before its kind exists.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::trial::Standalone;
use testbed::{Counts, Fault, MANAGER_NAMESPACE, Options, Request, consistently, eventually};

use crate::audit;
use crate::fixture::{Setup, Stage};
use crate::spec::{LOAD_BALANCER, custom, fixed, host, pool, v4, v4_with};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing may be written before managers count as settled.
const SETTLED: Duration = Duration::from_secs(4);

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![
        a_settled_manager_writes_nothing_for_a_minute,
        two_active_managers_agree_and_rest,
        a_standby_goes_on_when_the_leader_is_asked_to_stop,
        a_dry_run_writes_nothing_and_logs_what_it_would,
        the_kind_may_come_after_the_manager,
        an_api_server_that_was_away_is_caught_up_with,
    ]
}

/// What managers have written so far, besides leases.
fn writes(stage: &Stage) -> Result<Vec<Request>> {
    let requests = stage.control_plane().requests()?.into_iter();
    Ok(requests.filter(|request| request.is_managers() && request.is_write() && !request.is_about_leases()).collect())
}

/// Waits until managers have written nothing for a while, and returns what they have written until then.
async fn settled(stage: &Stage) -> Result<usize> {
    eventually(PATIENCE, async || {
        let before = writes(stage)?.len();
        rest(stage, before, SETTLED).await?;
        Ok(before)
    })
    .await
}

/// Watches that managers have written no more than this.
async fn rest(stage: &Stage, before: usize, duration: Duration) -> Result<()> {
    consistently(duration, async || {
        let now = writes(stage)?;
        ensure!(now.len() == before, "written: {:?}", &now[before..]);
        Ok(())
    })
    .await
}

/// A32: answers that last a second, providers and names that fail, full pools, conflicts, Services nobody may serve.
async fn a_settled_manager_writes_nothing_for_a_minute() -> Result<()> {
    let stage = Stage::alone(Setup::default().audited()).await?;
    stage.dns().set("good.example.net", 1, &["203.1.32.1"])?;
    stage.dns().set("held.example.net", 1, &["203.1.32.2"])?;
    stage.dns().set("api.example.net", 1, &["127.0.0.1"])?;
    stage.dns().fail("bad.example.net", Some(Fault::ServerFailure));
    let small = stage.pool("small", "{addresses: [203.1.32.100], prefix: 24}").await?;
    let sources = [
        ("good", v4(&host("good.example.net"))),
        ("held", v4(&host("held.example.net"))),
        ("bad", v4(&[host("bad.example.net"), fixed("203.1.32.3")].join(", "))),
        ("absent", v4(&host("absent.example.net"))),
        ("dead", v4(&custom(&stage.web().url_by_name("api.example.net", "/dead")))),
        ("api", v4("{ipAPI: {provider: ipify}}")),
        ("balancer", v4(LOAD_BALANCER)),
        ("interface", v4_with("{interface: {}}", "addressPolicy: {allowPrivate: true}")),
        ("pool", v4(&pool(&small))),
        ("closed", v4_with(&fixed("203.1.32.5"), "allowedServices: {namespaceSelector: {matchLabels: {a: b}}}")),
        ("shared", v4(&fixed("203.1.32.6"))),
        ("target", v4_with(&fixed("203.1.32.7"), "outputs: [ExternalIPs, ExternalDNSTarget]")),
    ];
    for (name, spec) in &sources {
        let source = stage.source(name, spec).await?;
        stage.bound_service(name, &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
        stage.bound_service(&format!("{name}-too"), &source, "{spec: {type: LoadBalancer}}").await?;
    }
    stage.bound_service("astray", "no-such-source", "{}").await?;
    stage.publishes("held", &["10.9.9.9", "203.1.32.2"]).await?;
    stage.counts_become(&small, Counts { total: 1, used: 1, free: 0, out_of_range: 0 }).await?;
    let full = stage.source("full", &v4(&[pool(&small), fixed("203.1.32.4")].join(", "))).await?;
    stage.bound_service("full", &full, "{}").await?;
    stage.publishes("full", &["203.1.32.4"]).await?;
    stage.dns().fail("held.example.net", Some(Fault::Refused));
    stage.source_says(&format!("held-{}", stage.namespace), "Degraded", "True", "SolverFailing").await?;
    let before = settled(&stage).await?;
    let queries = stage.dns().queries("good.example.net", "A");
    rest(&stage, before, Duration::from_secs(60)).await?;
    let asked = stage.dns().queries("good.example.net", "A") - queries;
    ensure!(asked > 10, "answers are good for a second, but were asked for only {asked} times");
    audit::passes(&stage).await
}

/// A33
async fn two_active_managers_agree_and_rest() -> Result<()> {
    let stage = Stage::alone(Setup { managers: 2, ..Setup::default() }.audited()).await?;
    stage.dns().set("gw.example.net", 1, &["203.1.33.1"])?;
    let blue = stage.pool("blue", "{addresses: [203.1.33.100-203.1.33.120], prefix: 24}").await?;
    let spec = format!("{{ipv4: {{queryMode: all, solvers: [{}, {}]}}}}", host("gw.example.net"), pool(&blue));
    let source = stage.source("public", &spec).await?;
    let names: Vec<String> = (0..12).map(|number| format!("web-{number}")).collect();
    for name in &names {
        stage.bound_service(name, &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
    }
    let all_have = async |first: &str| -> Result<()> {
        for name in &names {
            eventually(PATIENCE, async || {
                let now = stage.external_ips(name).await?;
                let right = now.len() == 3 && now[0] == "10.9.9.9" && now[1] == first && now[2].starts_with("203.1.33.1");
                ensure!(right, "{name} has {now:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    };
    all_have("203.1.33.1").await?;
    stage.dns().set("gw.example.net", 1, &["203.1.33.2"])?;
    all_have("203.1.33.2").await?;
    settled(&stage).await?;
    let claims = stage.api("IPAddressClaim").list(&kube::api::ListParams::default()).await?.items.len();
    ensure!(claims == names.len(), "{claims} claims for {} Services", names.len());
    audit::passes(&stage).await
}

/// A33
async fn a_standby_goes_on_when_the_leader_is_asked_to_stop() -> Result<()> {
    let stage = Stage::alone(Setup::default().without_manager()).await?;
    let candidate =
        stage.fixture.command().arg("--leader-elect=true").arg(format!("--leader-election-namespace={MANAGER_NAMESPACE}"));
    let leader = candidate.start(stage.control_plane())?;
    let source = stage.source("public", &v4(&fixed("203.1.33.200"))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.33.200"]).await?;
    let standby = candidate.start(stage.control_plane())?;
    let code = leader.terminate(Duration::from_secs(30))?;
    ensure!(code == 0, "exit code {code}\n{}", leader.log_tail(40));
    let patch = json!({"spec": {"ipv4": {"solvers": [{"static": {"addresses": ["203.1.33.201"]}}]}}});
    stage.patch("ClusterExternalIPSource", &source, &patch).await?;
    stage.publishes("web", &["203.1.33.201"]).await?;
    ensure!(standby.metrics()?.lines().any(|line| line == "ipam_leader 1"), "the standby does not lead");
    audit::passes(&stage).await
}

/// A34
async fn a_dry_run_writes_nothing_and_logs_what_it_would() -> Result<()> {
    let stage = Stage::alone(Setup::flags(&["--external-ip-dry-run=true"]).audited()).await?;
    let blue = stage.pool("blue", "{addresses: [203.1.34.100-203.1.34.120], prefix: 24}").await?;
    stage.up_to_date(&blue).await?;
    let before = settled(&stage).await?;
    let fixed = stage.source("fixed", &v4(&fixed("203.1.34.1"))).await?;
    let pooled = stage.source("pooled", &v4(&pool(&blue))).await?;
    let broken = stage.source("broken", &v4(&crate::spec::fixed("nonsense"))).await?;
    for (service, source) in [("fixed", &fixed), ("pooled", &pooled), ("broken", &broken)] {
        stage.bound_service(service, source, "{}").await?;
    }
    eventually(PATIENCE, async || {
        let log = stage.manager().log();
        ensure!(log.contains("203.1.34.1"), "the log does not say what it would write:\n{}", stage.manager().log_tail(20));
        ensure!(
            log.contains("pooled-ext4-"),
            "the log does not say which claim it would make:\n{}",
            stage.manager().log_tail(20)
        );
        Ok(())
    })
    .await?;
    rest(&stage, before, SETTLED).await
}

/// A38
async fn the_kind_may_come_after_the_manager() -> Result<()> {
    const CRD: &str = "clusterexternalipsources.externalip.spacebird.dev";
    let stage = Stage::alone(Setup::default().without_manager()).await?;
    stage.control_plane().kubectl(&["delete", "crd", CRD])?;
    let manager = stage.fixture.command().without_waiting().start(stage.control_plane())?;
    eventually(PATIENCE, async || {
        let (_, body) = manager.health("/readyz?verbose")?;
        let named = body.lines().any(|line| line.to_lowercase().contains("external"));
        ensure!(named, "/readyz?verbose does not speak of it: {body}");
        Ok(())
    })
    .await?;
    ensure!(manager.health("/healthz")?.0 == 200, "it is not healthy");
    // IPAM is at work meanwhile.
    let blue = stage.pool("blue", "{addresses: [203.1.38.100-203.1.38.120], prefix: 24}").await?;
    stage.claim_address("other", &blue).await?;
    stage.service("web", "{}").await?;

    stage.control_plane().install_crds(Options::default())?;
    let source = stage.source("public", &v4(&fixed("203.1.38.1"))).await?;
    stage.bind("web", Some(&source)).await?;
    stage.publishes("web", &["203.1.38.1"]).await?;
    manager.wait_until_ready()?;
    audit::passes(&stage).await
}

/// §15: nothing is lost while the API server is away, and nothing is written twice when it is back.
async fn an_api_server_that_was_away_is_caught_up_with() -> Result<()> {
    let stage = Stage::alone(Setup::default().audited()).await?;
    stage.dns().set("gw.example.net", 1, &["203.1.15.1"])?;
    let blue = stage.pool("blue", "{addresses: [203.1.15.100-203.1.15.120], prefix: 24}").await?;
    let spec = format!("{{ipv4: {{queryMode: all, solvers: [{}, {}]}}}}", host("gw.example.net"), pool(&blue));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("kept", &source, "{}").await?;
    stage.bound_service("left", &source, "{}").await?;
    stage.service_says("kept", "True", "Assigned").await?;
    stage.service_says("left", "True", "Assigned").await?;
    settled(&stage).await?;
    stage.bind("left", None).await?;
    stage.control_plane().stop_apiserver();
    stage.dns().set("gw.example.net", 1, &["203.1.15.2"])?;
    // Answered while there is nobody to write them to.
    let before = stage.dns().queries("gw.example.net", "A");
    eventually(PATIENCE, async || {
        ensure!(stage.dns().queries("gw.example.net", "A") >= before + 3, "it asks no more");
        Ok(())
    })
    .await?;
    stage.control_plane().start_apiserver()?;
    eventually(PATIENCE, async || {
        let now = stage.external_ips("kept").await?;
        ensure!(now.len() == 2 && now[0] == "203.1.15.2" && now[1].starts_with("203.1.15.1"), "it has {now:?}");
        Ok(())
    })
    .await?;
    stage.is_released("left", &[]).await?;
    stage.counts_become(&blue, Counts { total: 21, used: 1, free: 20, out_of_range: 0 }).await?;
    settled(&stage).await?;
    audit::passes(&stage).await
}
