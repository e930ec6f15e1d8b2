//! Addresses that web APIs tell: what is held when they fail, how often they are asked, and whom the manager does not talk to.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::ListParams;
use serde_json::json;
use testbed::trial::Standalone;
use testbed::{Answer, TunnelProxy, WebServer, eventually};

use crate::fixture::{OnShared, Setup, Stage};
use crate::on_shared;
use crate::spec::{custom, v4, v4_with};

const PATIENCE: Duration = Duration::from_secs(60);
const REFRESH: &str = "externalip.spacebird.dev/refresh";
/// A name that leads to the web server; its certificate is good for it.
const HOST: &str = "api.example.net";
/// What no answer's text may be found in.
const BODY: &str = "a-body-that-nobody-may-repeat";

pub fn shared() -> Vec<OnShared> {
    on_shared![
        a_provider_that_fails_or_limits_us_is_held_and_not_asked_meanwhile,
        every_kind_of_bad_answer_is_named_and_none_is_repeated,
        a_url_that_leads_into_a_private_network_is_not_followed,
        a_provider_by_its_name_is_asked_where_the_flag_says,
    ]
}

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![
        providers_are_asked_through_the_proxy_and_the_api_server_is_not,
        many_services_on_a_dead_provider_ask_it_no_more_often_than_one,
    ]
}

fn lead_to_the_web_server(stage: &Stage) -> Result<()> {
    for name in [HOST, WebServer::EXPIRED, WebServer::WRONG_NAME] {
        stage.dns().set(name, 3600, &["127.0.0.1"])?;
    }
    Ok(())
}

/// A custom solver whose path is the trial's own.
fn solver(stage: &Stage, host: &str, path: &str) -> String {
    custom(&stage.web().url_by_name(host, path))
}

/// Waits until the first IPv4 solver of a source has this state and reason.
async fn solver_becomes(stage: &Stage, source: &str, expected: &str, reason: Option<&str>) -> Result<()> {
    eventually(PATIENCE, async || {
        let object = stage.api("ClusterExternalIPSource").get(source).await?;
        let solver = &object.data["status"]["ipv4"]["solvers"][0];
        ensure!(
            solver["state"] == expected && reason.is_none_or(|reason| solver["reason"] == reason),
            "{}",
            object.data["status"]
        );
        Ok(())
    })
    .await
}

/// A24
async fn a_provider_that_fails_or_limits_us_is_held_and_not_asked_meanwhile(stage: &Stage) -> Result<()> {
    lead_to_the_web_server(stage)?;
    let path = format!("/{}/held", stage.namespace);
    stage.web().answer(&path, Answer::text(r#"{"ip": "203.1.24.1", "more": true}"#));
    let source = stage.source("public", &v4(&solver(stage, HOST, &path))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.24.1"]).await?;
    let refresh = async |value: &str| stage.annotate("ClusterExternalIPSource", &source, REFRESH, Some(value)).await;

    stage.web().answer(&path, Answer::status(500));
    refresh("1").await?;
    solver_becomes(stage, &source, "Held", Some("HTTPStatus")).await?;
    ensure!(stage.external_ips("web").await? == ["203.1.24.1"], "not held");
    stage.web().answer(&path, Answer::text(r#"{"ip": "203.1.24.2"}"#));
    stage.publishes("web", &["203.1.24.2"]).await?;
    stage.source_event(&source, "SolverRecovered").await?;

    stage.web().answer(&path, Answer::too_many_requests(Some(600)));
    // Once more than it may be: what comes within five seconds of the last is done after them.
    refresh("2").await?;
    solver_becomes(stage, &source, "Held", Some("RateLimited")).await?;
    let asked = stage.web().requests(&path);
    refresh("3").await?;
    stage.keeps("web", &["203.1.24.2"], Duration::from_secs(8)).await?;
    ensure!(stage.web().requests(&path) == asked, "asked again although it was told to wait");
    Ok(())
}

/// A24
async fn every_kind_of_bad_answer_is_named_and_none_is_repeated(stage: &Stage) -> Result<()> {
    lead_to_the_web_server(stage)?;
    let json = |ip: &str| Answer::text(json!({"ip": ip, "secret": BODY}).to_string());
    let cases = [
        ("wrong-family", HOST, json("2001:db8::1"), "WrongFamily"),
        ("redirect", HOST, Answer::redirect(format!("https://{HOST}/{BODY}")), "HTTPStatus"),
        ("big", HOST, Answer::text(BODY.repeat(40_000)), "TooLarge"),
        ("no-json", HOST, Answer::text(BODY), "BadAnswer"),
        ("no-address", HOST, json(BODY), "BadAnswer"),
        ("missing", HOST, Answer::status(404), "HTTPStatus"),
        ("expired", WebServer::EXPIRED, json("203.1.24.9"), "TLS"),
        ("wrong-name", WebServer::WRONG_NAME, json("203.1.24.9"), "TLS"),
        ("drip", HOST, json("203.1.24.9").dripping(Duration::from_secs(1)), "Timeout"),
    ];
    let mut sources = Vec::new();
    for (name, host, answer, reason) in cases {
        let path = format!("/{}/{name}", stage.namespace);
        stage.web().answer(&path, answer);
        let source = stage.source(name, &v4(&solver(stage, host, &path))).await?;
        stage.bound_service(name, &source, "{}").await?;
        sources.push((source, name, reason));
    }
    let mut texts = Vec::new();
    for (source, service, reason) in sources {
        solver_becomes(stage, &source, "Failed", Some(reason)).await?;
        stage.service_says(service, "False", "NoAddress").await?;
        texts.push(serde_json::to_string(&stage.api("ClusterExternalIPSource").get(&source).await?.data)?);
        texts.push(format!("{:?}", stage.source_events(&source).await?));
        texts.push(serde_json::to_string(&stage.api("Service").get(service).await?.data)?);
        texts.push(format!("{:?}", stage.events(service).await?));
    }
    texts.push(stage.manager().log());
    let repeats = texts.iter().find(|text| text.contains(BODY));
    ensure!(repeats.is_none(), "a body was repeated: {repeats:?}");
    Ok(())
}

/// A25
async fn a_url_that_leads_into_a_private_network_is_not_followed(stage: &Stage) -> Result<()> {
    // It listens beside the one address that the flag allows.
    let beside = WebServer::start_at([127, 0, 0, 2])?;
    beside.answer("/ip", Answer::text(r#"{"ip": "203.1.25.66"}"#));
    let (private, loopback) = (stage.host("private"), stage.host("loopback"));
    stage.dns().set(&private, 3600, &["10.0.0.1"])?;
    stage.dns().set(&loopback, 3600, &["127.0.0.2"])?;
    for (name, url) in [("private", beside.url_by_name(&private, "/ip")), ("loopback", beside.url_by_name(&loopback, "/ip"))] {
        let source = stage.source(name, &v4(&custom(&url))).await?;
        stage.bound_service(name, &source, "{}").await?;
        solver_becomes(stage, &source, "Failed", Some("AddressRefused")).await?;
    }
    ensure!(beside.requests("/ip") == 0, "it was asked all the same");
    lead_to_the_web_server(stage)?;
    let path = format!("/{}/allowed", stage.namespace);
    stage.web().answer(&path, Answer::text(r#"{"ip": "203.1.25.1"}"#));
    let source = stage.source("allowed", &v4(&solver(stage, HOST, &path))).await?;
    stage.bound_service("allowed", &source, "{}").await?;
    stage.publishes("allowed", &["203.1.25.1"]).await
}

/// A25
async fn many_services_on_a_dead_provider_ask_it_no_more_often_than_one() -> Result<()> {
    const SERVICES: usize = 200;
    let stage = Stage::alone(Setup::default()).await?;
    lead_to_the_web_server(&stage)?;
    let path = format!("/{}/dead", stage.namespace);
    stage.web().answer(&path, Answer::status(503));
    let source = stage.source("public", &v4(&solver(&stage, HOST, &path))).await?;
    let begin = Instant::now();
    let names: Vec<String> = (0..SERVICES).map(|number| format!("web-{number}")).collect();
    let create = stream::iter(&names).map(|name| stage.bound_service(name, &source, "{}")).buffer_unordered(16);
    create.try_collect::<()>().await?;
    eventually(PATIENCE, async || {
        let services = stage.api("Service").list(&ListParams::default()).await?.items;
        let told = services.iter().filter(|service| service.data["status"]["conditions"][0]["reason"] == "NoAddress").count();
        ensure!(told == SERVICES, "{told} of {SERVICES} are told");
        ensure!(stage.web().requests(&path) >= 2, "not asked again yet");
        Ok(())
    })
    .await?;
    // The pauses are 5 s and more, 4 s with the dice at their lowest.
    let most = 2 + usize::try_from(begin.elapsed().as_secs() / 4)?;
    let asked = stage.web().requests(&path);
    ensure!(asked <= most, "asked {asked} times within {:?}", begin.elapsed());
    Ok(())
}

/// §4.3, §12: a provider from the table is asked at the place that the flag gives.
async fn a_provider_by_its_name_is_asked_where_the_flag_says(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4("{ipAPI: {provider: ipify}}")).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.0.113.200"]).await?;
    ensure!(stage.web().requests("/ipify") >= 1, "not asked");
    Ok(())
}

/// A26
async fn providers_are_asked_through_the_proxy_and_the_api_server_is_not() -> Result<()> {
    let stage = Stage::alone(Setup::default().without_manager()).await?;
    let proxy = TunnelProxy::start()?;
    let port = stage.web().address().port();
    let command = stage.fixture.command().env("HTTPS_PROXY", &proxy.url()).env("NO_PROXY", "127.0.0.1,localhost");
    // No address of ours belongs to that name: only the proxy knows where it leads.
    let command = command.arg(format!("--external-ip-api-endpoint=icanhazip=https://elsewhere.example.net:{port}/icanhazip"));
    stage.web().answer("/icanhazip", Answer::text("203.1.26.1\n"));
    let manager = command.start(stage.control_plane())?;
    let source = stage.source("public", &v4_with("{ipAPI: {provider: icanhazip}}", "release: Release")).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.26.1"]).await?;
    let tunnels = proxy.tunnels();
    ensure!(!tunnels.is_empty(), "nothing went through the proxy\n{}", manager.log_tail(20));
    let strange = tunnels.iter().find(|target| **target != format!("elsewhere.example.net:{port}"));
    ensure!(strange.is_none(), "the proxy was asked for {strange:?}");
    Ok(())
}
