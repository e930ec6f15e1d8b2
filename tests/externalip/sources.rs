//! What the source decides: whether and how long a Service has addresses, which families, who may use it, and who else writes.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testbed::eventually;
use testbed::trial::Standalone;

use crate::fixture::{GRACE, OnShared, Setup, Stage};
use crate::history::History;
use crate::spec::{fixed, v4, v4_with};
use crate::{audit, on_shared};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a trial watches that nothing happens.
const QUIET: Duration = Duration::from_millis(1500);

pub fn shared() -> Vec<OnShared> {
    on_shared![
        addresses_outlive_their_source_by_the_grace_only,
        a_source_that_is_made_anew_in_time_causes_no_write,
        what_is_to_be_retained_stays_and_is_no_longer_ours,
        a_namespace_that_is_not_selected_gets_nothing_until_it_is,
        a_service_gets_only_its_own_families_where_the_source_asks_for_that,
        a_writer_who_does_not_give_in_is_named_and_left_alone_for_a_while,
        a_record_edited_by_hand_takes_nothing_away_and_is_replaced_by_the_next_write,
        addresses_of_the_predecessor_are_adopted_and_follow_the_source,
    ]
}

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![what_happened_while_the_manager_was_down_is_made_up_for]
}

/// A13
async fn addresses_outlive_their_source_by_the_grace_only(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.13.1"))).await?;
    stage.bound_service("web", &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
    stage.publishes("web", &["10.9.9.9", "203.1.13.1"]).await?;
    stage.delete("ClusterExternalIPSource", &source).await?;
    stage.keeps("web", &["10.9.9.9", "203.1.13.1"], QUIET).await?;
    stage.publishes("web", &["10.9.9.9"]).await?;
    stage.service_says("web", "False", "SourceNotFound").await?;
    let record = stage.record("web").await?;
    ensure!(record.is_none(), "the record is still {record:?}");
    Ok(())
}

/// A13
async fn a_source_that_is_made_anew_in_time_causes_no_write(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.13.2"))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.13.2"]).await?;
    stage.service_says("web", "True", "Assigned").await?;
    let history = History::begin(stage, &["Service"]).await?;
    stage.delete("ClusterExternalIPSource", &source).await?;
    stage.source("public", &v4(&fixed("203.1.13.2"))).await?;
    stage.keeps("web", &["203.1.13.2"], Duration::from_secs(GRACE + 2)).await?;
    let changes = history.end().await?;
    let states: Vec<_> = changes.iter().flat_map(|change| &change.object).map(|service| &service.data["status"]).collect();
    ensure!(states.len() == 1, "it was written: {states:?}");
    Ok(())
}

/// A13
async fn what_is_to_be_retained_stays_and_is_no_longer_ours(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4_with(&fixed("203.1.13.3"), "release: Retain")).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.13.3"]).await?;
    stage.bind("web", None).await?;
    stage.is_released("web", &["203.1.13.3"]).await
}

/// A13
async fn what_happened_while_the_manager_was_down_is_made_up_for() -> Result<()> {
    let stage = Stage::alone(Setup::default()).await?;
    let source = stage.source("public", &v4(&fixed("203.1.13.4"))).await?;
    let lost = stage.source("lost", &v4(&fixed("203.1.13.5"))).await?;
    for (service, port) in [("unbound", 443), ("deleted", 444), ("bound", 445)] {
        let more = format!("{{spec: {{externalIPs: [10.9.9.9], ports: [{{port: {port}}}]}}}}");
        stage.bound_service(service, &source, &more).await?;
        stage.publishes(service, &["10.9.9.9", "203.1.13.4"]).await?;
    }
    stage.bound_service("lost", &lost, "{}").await?;
    stage.publishes("lost", &["203.1.13.5"]).await?;
    stage.service_says("bound", "True", "Assigned").await?;
    stage.manager().kill();
    stage.bind("unbound", None).await?;
    stage.delete("Service", "deleted").await?;
    stage.delete("ClusterExternalIPSource", &lost).await?;
    stage.service("new", "{spec: {ports: [{port: 446}]}}").await?;
    stage.bind("new", Some(&source)).await?;
    let before = stage.api("Service").get("bound").await?;
    stage.manager().restart()?;
    stage.publishes("new", &["203.1.13.4"]).await?;
    stage.is_released("unbound", &["10.9.9.9"]).await?;
    stage.publishes("lost", &[]).await?;
    let after = stage.api("Service").get("bound").await?;
    ensure!(before.resource_version() == after.resource_version(), "{before:?} became {after:?}");
    audit::passes(&stage).await
}

/// A28
async fn a_namespace_that_is_not_selected_gets_nothing_until_it_is(stage: &Stage) -> Result<()> {
    let selector = "allowedServices: {namespaceSelector: {matchLabels: {public: 'yes'}}}";
    let source = stage.source("public", &v4_with(&fixed("203.1.28.1"), selector)).await?;
    stage.bound_service("web", &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
    stage.service_says("web", "False", "NotAllowed").await?;
    stage.keeps("web", &["10.9.9.9"], QUIET).await?;
    stage.event("web", "NotAllowed").await?;
    stage.control_plane().kubectl(&["label", "namespace", &stage.namespace, "public=yes"])?;
    stage.publishes("web", &["10.9.9.9", "203.1.28.1"]).await?;
    stage.service_says("web", "True", "Assigned").await?;
    stage.control_plane().kubectl(&["label", "namespace", &stage.namespace, "public-"])?;
    stage.publishes("web", &["10.9.9.9"]).await?;
    stage.service_says("web", "False", "NotAllowed").await?;
    Ok(())
}

/// A35
async fn a_service_gets_only_its_own_families_where_the_source_asks_for_that(stage: &Stage) -> Result<()> {
    let both =
        "ipv4: {solvers: [{static: {addresses: [203.1.35.1]}}]}, ipv6: {solvers: [{static: {addresses: ['2001:db8:35::1']}}]}";
    let any = stage.source("any", &format!("{{{both}}}")).await?;
    let matching = stage.source("matching", &format!("{{{both}, familyPolicy: MatchService}}")).await?;
    stage.bound_service("any", &any, "{}").await?;
    stage.bound_service("matching", &matching, "{}").await?;
    stage.bound_service("both", &matching, "{spec: {ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4]}}").await?;
    stage.publishes("any", &["203.1.35.1", "2001:db8:35::1"]).await?;
    stage.publishes("matching", &["203.1.35.1"]).await?;
    // In the order of the Service's own families.
    stage.publishes("both", &["2001:db8:35::1", "203.1.35.1"]).await?;
    stage.service_says("matching", "True", "Assigned").await?;
    stage.keeps("matching", &["203.1.35.1"], QUIET).await
}

/// A30
async fn a_writer_who_does_not_give_in_is_named_and_left_alone_for_a_while(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.30.1"))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.30.1"]).await?;
    let other = PatchParams { field_manager: Some("somebody-else".to_owned()), ..PatchParams::default() };
    let replace = async || -> Result<()> {
        let patch = json!({"spec": {"externalIPs": ["10.8.8.8"]}});
        stage.api("Service").patch("web", &other, &Patch::Merge(&patch)).await?;
        Ok(())
    };
    let contended = async || -> Result<Option<Value>> {
        let condition = stage.service_condition("web", "Ready").await?;
        Ok(condition.filter(|condition| condition["reason"] == "Contended"))
    };
    for round in 0.. {
        ensure!(round < 20, "ours still comes back after {round} replacements");
        replace().await?;
        let gave_in = eventually(PATIENCE, async || {
            let has_ours = stage.external_ips("web").await?.contains(&"203.1.30.1".to_owned());
            let told = contended().await?.is_some();
            ensure!(has_ours || told, "neither written again nor told");
            Ok(told)
        });
        if gave_in.await? {
            ensure!(round >= 4, "gave in after {round} replacements");
            break;
        }
    }
    let message = stage.service_says("web", "False", "Contended").await?;
    ensure!(message.contains("somebody-else"), "{message}");
    stage.event("web", "Contended").await?;
    replace().await?;
    stage.keeps("web", &["10.8.8.8"], Duration::from_secs(5)).await?;
    // So that the namespace is left in order.
    stage.bind("web", None).await?;
    stage.is_released("web", &["10.8.8.8"]).await
}

/// A30
async fn a_record_edited_by_hand_takes_nothing_away_and_is_replaced_by_the_next_write(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.30.5"))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.30.5"]).await?;
    stage.write_record("web", "not what we wrote").await?;
    stage.service_says("web", "False", "RecordInvalid").await?;
    stage.event("web", "RecordInvalid").await?;
    stage.keeps("web", &["203.1.30.5"], QUIET).await?;
    let patch = json!({"spec": {"ipv4": {"solvers": [{"static": {"addresses": ["203.1.30.6"]}}]}}});
    stage.patch("ClusterExternalIPSource", &source, &patch).await?;
    // What was ours is anybody's now, so it stays.
    stage.publishes("web", &["203.1.30.5", "203.1.30.6"]).await?;
    let record = stage.record("web").await?;
    ensure!(record.as_ref().is_some_and(|record| record["externalIPs"] == json!(["203.1.30.6"])), "the record is {record:?}");
    stage.service_says("web", "True", "Assigned").await?;
    Ok(())
}

/// A31
async fn addresses_of_the_predecessor_are_adopted_and_follow_the_source(stage: &Stage) -> Result<()> {
    let predecessor = PatchParams { field_manager: Some("externalip-manager".to_owned()), ..PatchParams::default() };
    stage.service("web", "{}").await?;
    let patch = json!({"spec": {"externalIPs": ["203.1.31.1"]}});
    stage.api("Service").patch("web", &predecessor, &Patch::Merge(&patch)).await?;
    let source = stage.source("public", &v4(&fixed("203.1.31.1"))).await?;
    stage.bind("web", Some(&source)).await?;
    stage.service_says("web", "True", "Assigned").await?;
    let patch = json!({"spec": {"ipv4": {"solvers": [{"static": {"addresses": ["203.1.31.2"]}}]}}});
    stage.patch("ClusterExternalIPSource", &source, &patch).await?;
    stage.publishes("web", &["203.1.31.2"]).await
}
