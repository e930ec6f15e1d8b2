//! Addresses that come from DNS: how often it is asked, what is held while it fails, and what is never believed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::trial::Standalone;
use testbed::{Fault, eventually};

use crate::fixture::{OnShared, Setup, Stage};
use crate::spec::{LOAD_BALANCER, fixed, host, v4, v4_with};
use crate::{audit, on_shared};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a trial watches that nothing happens.
const QUIET: Duration = Duration::from_millis(1500);

pub fn shared() -> Vec<OnShared> {
    on_shared![
        all_services_follow_a_record_that_is_asked_for_once_per_ttl,
        one_missing_answer_changes_nothing_and_two_lead_to_the_next_solver,
        answers_that_cannot_be_right_are_refused_and_the_last_good_one_is_kept,
        an_alias_and_an_answer_that_was_cut_off_are_followed,
        a_load_balancer_that_copies_our_addresses_does_not_keep_them_alive,
        a_name_that_is_published_from_our_own_addresses_is_told_of_and_works,
    ]
}

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![
        a_dead_name_server_changes_no_service_not_even_with_a_restart,
        a_name_with_a_dot_is_never_looked_for_in_the_search_domains,
    ]
}

/// A4
async fn all_services_follow_a_record_that_is_asked_for_once_per_ttl(stage: &Stage) -> Result<()> {
    const TTL: u32 = 2;
    let gateway = stage.host("gw");
    stage.dns().set(&gateway, TTL, &["203.1.4.1"])?;
    let services: Vec<String> = (0..6).map(|number| format!("web-{number}")).collect();
    for number in 0..3 {
        // Three ways to write one name.
        let spelled = [gateway.clone(), gateway.to_uppercase(), format!("{gateway}.")];
        let source = stage.source(&format!("public-{number}"), &v4(&host(&spelled[number]))).await?;
        for service in services.iter().skip(number).step_by(3) {
            stage.bound_service(service, &source, "{}").await?;
        }
    }
    for service in &services {
        stage.publishes(service, &["203.1.4.1"]).await?;
    }
    // From one query to the fourth after it, three whole TTLs pass at the least, however slow this machine is.
    let queries = || stage.dns().queries(&gateway, "A");
    let reach = async |count: usize| -> Result<Instant> {
        eventually(PATIENCE, async || {
            ensure!(queries() >= count, "asked {} times, not {count} times yet", queries());
            Ok(Instant::now())
        })
        .await
    };
    let first = queries() + 1;
    let begin = reach(first).await?;
    let end = reach(first + 4).await?;
    let least = Duration::from_secs(u64::from(TTL)) * 3;
    ensure!(end - begin >= least, "asked 4 times within {:?} although an answer is good for {TTL} s", end - begin);
    ensure!(stage.dns().queries(&gateway, "AAAA") == 0, "asked for AAAA although nobody wants IPv6");

    stage.dns().set(&gateway, TTL, &["203.1.4.2"])?;
    for service in &services {
        stage.publishes(service, &["203.1.4.2"]).await?;
    }
    let mut notes = Vec::new();
    eventually(PATIENCE, async || {
        let events = stage.events("web-0").await?;
        notes = events.into_iter().filter(|(reason, _)| reason == "ExternalIPsUpdated").map(|(_, note)| note).collect();
        let told = notes.iter().any(|note| note.contains("203.1.4.1 -> 203.1.4.2"));
        ensure!(told, "no event says so: {notes:?}");
        Ok(())
    })
    .await
}

/// A6
async fn one_missing_answer_changes_nothing_and_two_lead_to_the_next_solver(stage: &Stage) -> Result<()> {
    let gateway = stage.host("gw");
    stage.dns().set(&gateway, 1, &["203.1.6.1"])?;
    let spec = v4(&[host(&gateway), fixed("203.1.6.2")].join(", "));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.6.1"]).await?;
    let asked_again = async || -> Result<()> {
        let before = stage.dns().queries(&gateway, "A");
        eventually(PATIENCE, async || {
            ensure!(stage.dns().queries(&gateway, "A") > before, "not asked again");
            Ok(())
        })
        .await
    };
    stage.dns().fail(&gateway, Some(Fault::NoSuchName));
    asked_again().await?;
    stage.dns().fail(&gateway, None);
    let before = stage.dns().queries(&gateway, "A");
    eventually(PATIENCE, async || {
        let now = stage.external_ips("web").await?;
        // The only failure that ends the wait is the one at its end.
        if now != ["203.1.6.1"] {
            return Ok(Err(now));
        }
        ensure!(stage.dns().queries(&gateway, "A") > before, "not asked again");
        Ok(Ok(()))
    })
    .await?
    .map_err(|now| anyhow::anyhow!("one missing answer made it {now:?}"))?;
    stage.dns().fail(&gateway, Some(Fault::NoSuchName));
    stage.publishes("web", &["203.1.6.2"]).await?;
    stage.dns().fail(&gateway, None);
    stage.publishes("web", &["203.1.6.1"]).await
}

/// A5
async fn a_dead_name_server_changes_no_service_not_even_with_a_restart() -> Result<()> {
    let stage = Stage::alone(Setup::default()).await?;
    let gateway = "gw.example.net";
    stage.dns().set(gateway, 1, &["203.1.5.1"])?;
    let held = stage.source("held", &v4(&host(gateway))).await?;
    let alone = stage.source("alone", &v4_with(&host(gateway), "maxStaleness: 3s")).await?;
    let solvers = [host(gateway), fixed("203.1.5.2")].join(", ");
    let two = stage.source("two", &v4_with(&solvers, "maxStaleness: 3s")).await?;
    for (service, source) in [("held", &held), ("alone", &alone), ("two", &two)] {
        stage.bound_service(service, source, "{}").await?;
        stage.publishes(service, &["203.1.5.1"]).await?;
        stage.service_says(service, "True", "Assigned").await?;
    }
    let before = stage.api("Service").get("held").await?;
    let untouched = async || -> Result<()> {
        let now = stage.api("Service").get("held").await?;
        ensure!(now.resource_version() == before.resource_version(), "{before:?} became {now:?}");
        Ok(())
    };
    stage.dns().stop();
    let message = stage.source_says(&held, "Degraded", "True", "SolverFailing").await?;
    ensure!(message.contains(gateway) && message.contains("holding 203.1.5.1"), "{message}");
    stage.source_event(&held, "SolverFailing").await?;
    stage.publishes("two", &["203.1.5.2"]).await?;
    stage.source_says(&alone, "Ready", "False", "NoAddress").await?;
    stage.keeps("alone", &["203.1.5.1"], QUIET).await?;
    untouched().await?;

    stage.manager().kill();
    stage.manager().restart()?;
    stage.manager().wait_until_ready()?;
    // A new Service shows that it is at work again; its own source fails as well.
    stage.bound_service("late", &held, "{}").await?;
    stage.service_condition("late", "Ready").await?;
    eventually(PATIENCE, async || {
        let said = stage.service_condition("late", "Ready").await?.context("it says nothing yet")?;
        ensure!(said["status"] == "False", "{said}");
        Ok(())
    })
    .await?;
    stage.keeps("held", &["203.1.5.1"], Duration::from_secs(5)).await?;
    untouched().await?;

    stage.dns().resume()?;
    stage.publishes("late", &["203.1.5.1"]).await?;
    stage.publishes("two", &["203.1.5.1"]).await?;
    stage.source_says(&held, "Degraded", "False", "AllSolversHealthy").await?;
    stage.source_event(&held, "SolverRecovered").await?;
    untouched().await?;
    audit::passes(&stage).await
}

/// A22
async fn answers_that_cannot_be_right_are_refused_and_the_last_good_one_is_kept(stage: &Stage) -> Result<()> {
    let gateway = stage.host("gw");
    stage.dns().set(&gateway, 1, &["203.1.22.1"])?;
    let strict = stage.source("strict", &v4(&host(&gateway))).await?;
    let lax = stage.source("lax", &v4_with(&host(&gateway), "addressPolicy: {allowPrivate: true}")).await?;
    stage.bound_service("strict", &strict, "{}").await?;
    stage.bound_service("lax", &lax, "{}").await?;
    stage.publishes("strict", &["203.1.22.1"]).await?;
    stage.publishes("lax", &["203.1.22.1"]).await?;
    let service = stage.api("Service").get("strict").await?;
    let cluster_ip = service.data["spec"]["clusterIP"].as_str().context("no clusterIP")?;

    stage.dns().set(&gateway, 1, &["127.0.0.1", "169.254.1.1", "10.0.0.1", cluster_ip])?;
    stage.publishes("lax", &["10.0.0.1"]).await?;
    eventually(PATIENCE, async || {
        let source = stage.api("ClusterExternalIPSource").get(&strict).await?;
        let solver = &source.data["status"]["ipv4"]["solvers"][0];
        ensure!(solver["state"] == "Held" && solver["reason"] == "AddressRefused", "{solver}");
        Ok(())
    })
    .await?;
    stage.source_says(&lax, "Degraded", "True", "AddressRefused").await?;
    stage.keeps("strict", &["203.1.22.1"], QUIET).await?;

    // The good ones among bad ones are used.
    stage.dns().set(&gateway, 1, &["127.0.0.1", "203.1.22.2"])?;
    stage.publishes("strict", &["203.1.22.2"]).await?;
    stage.source_says(&strict, "Degraded", "True", "AddressRefused").await?;
    stage.source_event(&strict, "AddressRefused").await?;
    Ok(())
}

/// §4.2: CNAMEs are followed, TCP is used where UDP is too small.
async fn an_alias_and_an_answer_that_was_cut_off_are_followed(stage: &Stage) -> Result<()> {
    let (alias, gateway) = (stage.host("www"), stage.host("gw"));
    stage.dns().set_alias(&alias, 5, &gateway);
    stage.dns().set(&gateway, 5, &["203.1.42.1", "203.1.42.3", "203.1.42.2"])?;
    stage.dns().fail(&alias, Some(Fault::Truncation));
    let spec = format!("{{ipv4: {{queryMode: all, solvers: [{}]}}}}", host(&alias));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.42.1", "203.1.42.2", "203.1.42.3"]).await
}

/// A21
async fn a_load_balancer_that_copies_our_addresses_does_not_keep_them_alive(stage: &Stage) -> Result<()> {
    let gateway = stage.host("gw");
    stage.dns().set(&gateway, 1, &["203.1.21.1"])?;
    let spec = format!("{{ipv4: {{queryMode: all, solvers: [{}, {LOAD_BALANCER}]}}}}", host(&gateway));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("web", &source, "{spec: {type: LoadBalancer}}").await?;
    stage.publishes("web", &["203.1.21.1"]).await?;
    stage.set_ingress("web", &json!([{"ip": "203.1.21.1"}, {"ip": "203.1.21.9"}])).await?;
    stage.publishes("web", &["203.1.21.1", "203.1.21.9"]).await?;
    stage.dns().set(&gateway, 1, &["203.1.21.2"])?;
    stage.publishes("web", &["203.1.21.2", "203.1.21.9"]).await?;
    stage.set_ingress("web", &json!([{"ip": "203.1.21.2"}, {"ip": "203.1.21.9"}])).await?;
    stage.dns().set(&gateway, 1, &["203.1.21.3"])?;
    stage.publishes("web", &["203.1.21.3", "203.1.21.9"]).await
}

/// A21
async fn a_name_that_is_published_from_our_own_addresses_is_told_of_and_works(stage: &Stage) -> Result<()> {
    let gateway = stage.host("gw");
    stage.dns().set(&gateway, 1, &["203.1.21.11"])?;
    let source = stage.source("public", &v4(&host(&gateway))).await?;
    let annotations: Value = json!({"metadata": {"annotations": {"external-dns.alpha.kubernetes.io/hostname": gateway}}});
    stage.bound_service("web", &source, &annotations.to_string()).await?;
    stage.publishes("web", &["203.1.21.11"]).await?;
    stage.source_says(&source, "Degraded", "True", "PossibleLoop").await?;
    stage.source_event(&source, "PossibleLoop").await?;
    stage.dns().set(&gateway, 1, &["203.1.21.12"])?;
    stage.publishes("web", &["203.1.21.12"]).await
}

/// A23
async fn a_name_with_a_dot_is_never_looked_for_in_the_search_domains() -> Result<()> {
    let stage = Stage::alone(Setup::default().without_manager()).await?;
    let file = tempfile::NamedTempFile::new()?;
    let text = "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    std::fs::write(file.path(), text)?;
    // The tenant's Service `example` in the namespace `com` answers for it.
    stage.dns().set("example.com.svc.cluster.local", 1, &["203.1.23.66"])?;
    stage.dns().set("example.com", 1, &["203.1.23.1"])?;
    stage.dns().set("gateway.svc.cluster.local", 1, &["203.1.23.2"])?;
    let manager = stage.fixture.command().resolv_conf(file.path()).start(stage.control_plane())?;
    let source = stage.source("public", &v4(&host("example.com"))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.23.1"]).await.with_context(|| manager.log_tail(40))?;
    // Neither when it does not exist.
    stage.dns().fail("example.com", Some(Fault::NoSuchName));
    eventually(PATIENCE, async || {
        let queries = stage.dns().queries("example.com", "A");
        ensure!(queries >= 4, "asked {queries} times");
        Ok(())
    })
    .await?;
    let asked: Vec<String> = stage.dns().names_asked().into_iter().collect();
    ensure!(asked == ["example.com"], "asked for {asked:?}");
    // A single label walks the search list.
    let single = stage.source("single", &v4(&host("gateway"))).await?;
    stage.bound_service("single", &single, "{}").await?;
    stage.publishes("single", &["203.1.23.2"]).await.with_context(|| manager.log_tail(40))?;
    audit::passes(&stage).await
}
