//! What a bound Service gets, and what is left of it when it is bound no more.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{Fault, SOURCE, eventually};

use crate::fixture::{OnShared, Stage};
use crate::on_shared;
use crate::spec::{LOAD_BALANCER, fixed, host, v4};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a trial watches that nothing happens.
const QUIET: Duration = Duration::from_millis(1500);

pub fn shared() -> Vec<OnShared> {
    on_shared![
        a_service_gets_an_address_of_each_family_and_kubectl_shows_the_source,
        what_a_user_has_entered_stays_in_its_place_before_during_and_after,
        an_entry_that_is_no_address_is_kept_as_it_is_written_and_told_of_once,
        an_entry_of_the_user_that_equals_ours_stays_the_users,
        a_family_that_fails_for_ever_does_not_hold_up_the_other,
        a_family_without_solvers_gives_up_its_addresses_and_nobody_elses,
        an_empty_annotation_and_a_missing_source_write_nothing_but_what_is_wrong,
        metrics_tell_of_it_all_and_name_no_object,
    ]
}

/// A1
async fn a_service_gets_an_address_of_each_family_and_kubectl_shows_the_source(stage: &Stage) -> Result<()> {
    let gateway = stage.host("gw");
    stage.dns().set(&gateway, 5, &["203.1.1.7"])?;
    let spec = format!("{{ipv4: {{solvers: [{}]}}, ipv6: {{solvers: [{LOAD_BALANCER}]}}}}", host(&gateway));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("web", &source, "{spec: {type: LoadBalancer}}").await?;
    stage.set_ingress("web", &json!([{"ip": "2001:db8:1::5"}])).await?;
    stage.publishes("web", &["203.1.1.7", "2001:db8:1::5"]).await?;
    eventually(PATIENCE, async || {
        let message = stage.service_says("web", "True", "Assigned").await?;
        ensure!(message == "203.1.1.7, 2001:db8:1::5", "{message}");
        let row = stage.control_plane().kubectl(&["get", "ceips", &source, "--no-headers"])?;
        let columns: Vec<&str> = row.split_whitespace().collect();
        ensure!(columns[1] == "True" && row.contains("203.1.1.7") && columns.contains(&"1"), "{row}");
        Ok(())
    })
    .await
}

/// A3
async fn what_a_user_has_entered_stays_in_its_place_before_during_and_after(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.3.1"))).await?;
    stage.service("web", "{spec: {externalIPs: [10.9.9.9]}}").await?;
    stage.bind("web", Some(&source)).await?;
    stage.publishes("web", &["10.9.9.9", "203.1.3.1"]).await?;
    stage.service_says("web", "True", "Assigned").await?;
    let record = stage.record("web").await?;
    let expected = json!({
        "v": 1, "source": source, "release": "Release", "addresses": {"203.1.3.1": "static"},
        "externalIPs": ["203.1.3.1"], "mirrored": [],
    });
    ensure!(record.as_ref() == Some(&expected), "the record is {record:?}");
    stage.bind("web", None).await?;
    stage.is_released("web", &["10.9.9.9"]).await
}

/// A3
async fn an_entry_that_is_no_address_is_kept_as_it_is_written_and_told_of_once(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.3.2"))).await?;
    stage.bound_service("web", &source, "{spec: {externalIPs: ['010.0.0.1']}}").await?;
    stage.publishes("web", &["010.0.0.1", "203.1.3.2"]).await?;
    stage.event("web", "InvalidExternalIP").await?;
    stage.service_says("web", "True", "Assigned").await?;
    stage.bind("web", None).await?;
    stage.is_released("web", &["010.0.0.1"]).await?;
    let told = stage.events("web").await?.into_iter().filter(|(reason, _)| reason == "InvalidExternalIP").count();
    ensure!(told == 1, "told {told} times");
    Ok(())
}

/// A3
async fn an_entry_of_the_user_that_equals_ours_stays_the_users(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.3.3"))).await?;
    stage.bound_service("web", &source, "{spec: {externalIPs: [203.1.3.3]}}").await?;
    stage.service_says("web", "True", "Assigned").await?;
    stage.publishes("web", &["203.1.3.3"]).await?;
    stage.bind("web", None).await?;
    stage.is_released("web", &["203.1.3.3"]).await
}

/// A7
async fn a_family_that_fails_for_ever_does_not_hold_up_the_other(stage: &Stage) -> Result<()> {
    let (good, bad) = (stage.host("good"), stage.host("bad"));
    stage.dns().set(&good, 1, &["203.1.7.1"])?;
    stage.dns().fail(&bad, Some(Fault::ServerFailure));
    let spec = format!("{{ipv4: {{solvers: [{}]}}, ipv6: {{solvers: [{}]}}}}", host(&good), host(&bad));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.7.1"]).await?;
    let message = stage.source_says(&source, "Degraded", "True", "SolverFailing").await?;
    ensure!(message.contains(&bad) && message.contains("ipv6.solvers[0]"), "{message}");
    stage.dns().set(&good, 1, &["203.1.7.2"])?;
    stage.publishes("web", &["203.1.7.2"]).await
}

/// A11
async fn a_family_without_solvers_gives_up_its_addresses_and_nobody_elses(stage: &Stage) -> Result<()> {
    let name = format!("public-{}", stage.namespace);
    let text = |v4: &str| {
        let spec = json!({
            "ipv4": {"solvers": serde_json::from_str::<serde_json::Value>(v4).unwrap_or_default()},
            "ipv6": {"solvers": [{"static": {"addresses": ["2001:db8:11::1"]}}]},
        });
        json!({
            "apiVersion": "externalip.spacebird.dev/v1alpha1", "kind": "ClusterExternalIPSource",
            "metadata": {"name": name}, "spec": spec,
        })
        .to_string()
    };
    let (_, warned) = stage.control_plane().apply_by_hand(&text(r#"[{"static": {"addresses": ["203.1.11.1"]}}]"#))?;
    ensure!(warned.is_empty(), "{warned}");
    stage.bound_service("web", &name, "{spec: {externalIPs: [10.9.9.9]}}").await?;
    stage.publishes("web", &["10.9.9.9", "203.1.11.1", "2001:db8:11::1"]).await?;
    let (_, warned) = stage.control_plane().apply_by_hand(&text("[]"))?;
    ensure!(warned.contains("Warning") && warned.contains("ipv4"), "{warned:?}");
    stage.publishes("web", &["10.9.9.9", "2001:db8:11::1"]).await
}

/// A12
async fn an_empty_annotation_and_a_missing_source_write_nothing_but_what_is_wrong(stage: &Stage) -> Result<()> {
    stage.bound_service("empty", "  ", "{spec: {externalIPs: [10.9.9.9]}}").await?;
    eventually(PATIENCE, async || {
        let events = stage.events("empty").await?;
        ensure!(!events.is_empty(), "no event says so");
        Ok(())
    })
    .await?;
    stage.bound_service("astray", "no-such-source", "{spec: {externalIPs: [10.9.9.9]}}").await?;
    let message = stage.service_says("astray", "False", "SourceNotFound").await?;
    ensure!(message.contains("no-such-source"), "{message}");
    stage.event("astray", "UnknownExternalIPSource").await?;
    for service in ["empty", "astray"] {
        stage.keeps(service, &["10.9.9.9"], QUIET).await?;
        let record = stage.record(service).await?;
        ensure!(record.is_none(), "{service} has the record {record:?}");
    }
    // Blanks around a name do not count.
    let source = stage.source("public", &v4(&fixed("203.1.12.1"))).await?;
    stage.annotate("Service", "astray", SOURCE, Some(&format!(" {source} "))).await?;
    stage.publishes("astray", &["10.9.9.9", "203.1.12.1"]).await
}

/// §12
async fn metrics_tell_of_it_all_and_name_no_object(stage: &Stage) -> Result<()> {
    const NAMES: [&str; 13] = [
        "external_ip_solver_runs_total",
        "external_ip_solver_duration_seconds",
        "external_ip_answers",
        "external_ip_answers_held",
        "external_ip_oldest_held_seconds",
        "external_ip_services",
        "external_ip_sources",
        "external_ip_address_changes_total",
        "external_ip_writes_total",
        "external_ip_publish_seconds",
        "external_ip_refused_addresses_total",
        "external_ip_port_conflicts",
        "external_ip_contended",
    ];
    let (good, refused) = (stage.host("good"), stage.host("refused"));
    stage.dns().set(&good, 1, &["203.1.120.1"])?;
    stage.dns().set(&refused, 1, &["127.0.0.1"])?;
    for (name, gateway) in [("good", &good), ("refused", &refused)] {
        let source = stage.source(name, &v4(&host(gateway))).await?;
        stage.bound_service(name, &source, "{}").await?;
    }
    stage.publishes("good", &["203.1.120.1"]).await?;
    stage.service_says("refused", "False", "AddressRefused").await?;
    eventually(PATIENCE, async || {
        let metrics = stage.manager().metrics()?;
        let missing: Vec<_> = NAMES.iter().filter(|name| !metrics.lines().any(|line| line.starts_with(*name))).collect();
        ensure!(missing.is_empty(), "not there: {missing:?}");
        let mut ours = metrics.lines().filter(|line| line.starts_with("external_ip_"));
        let named = ours.find(|line| line.contains(&stage.namespace) || line.contains("203.1."));
        ensure!(named.is_none(), "an object is named: {named:?}");
        Ok(())
    })
    .await
}
