//! Where addresses are published, load balancers as their origin, and Services that share an address and a port.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};
use testbed::eventually;

use crate::fixture::{OnShared, Stage};
use crate::on_shared;
use crate::spec::{LOAD_BALANCER, fixed, v4, v4_with};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long a trial watches that nothing happens.
const QUIET: Duration = Duration::from_millis(1500);
const OUR_CLASS: &str = "{spec: {type: LoadBalancer, loadBalancerClass: externalip.spacebird.dev/external-ip}}";
const TARGETS: [&str; 2] = ["external-dns.kubernetes.io/target", "external-dns.alpha.kubernetes.io/target"];

pub fn shared() -> Vec<OnShared> {
    on_shared![
        a_load_balancers_address_is_followed_and_outlives_its_status_for_half_a_minute_only,
        a_service_of_our_class_gets_a_load_balancer_status_and_does_not_read_it,
        the_status_of_another_class_is_not_written,
        external_dns_is_told_the_addresses_and_a_users_word_stands,
        an_output_that_is_taken_away_is_cleaned,
        two_services_may_share_a_port_of_an_address_and_the_later_is_told,
        the_later_of_two_services_goes_without_where_sharing_is_refused,
    ]
}

/// A8
async fn a_load_balancers_address_is_followed_and_outlives_its_status_for_half_a_minute_only(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4_with(LOAD_BALANCER, "onNoAddress: Keep")).await?;
    stage.bound_service("web", &source, "{spec: {type: LoadBalancer}}").await?;
    stage.service_says("web", "False", "NoAddress").await?;
    stage.set_ingress("web", &json!([{"ip": "203.1.8.1"}])).await?;
    stage.publishes("web", &["203.1.8.1"]).await?;
    stage.set_ingress("web", &json!([{"hostname": "lb.example.net"}, {"ip": "203.1.8.2"}])).await?;
    stage.publishes("web", &["203.1.8.2"]).await?;
    stage.set_ingress("web", &Value::Null).await?;
    stage.keeps("web", &["203.1.8.2"], Duration::from_secs(20)).await?;
    stage.publishes("web", &[]).await
}

/// A19
async fn a_service_of_our_class_gets_a_load_balancer_status_and_does_not_read_it(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&[fixed("203.1.19.1"), LOAD_BALANCER.to_owned()].join(", "))).await?;
    stage.bound_service("web", &source, OUR_CLASS).await?;
    stage.ingress_becomes("web", &json!([{"ip": "203.1.19.1", "ipMode": "VIP"}])).await?;
    stage.service_says("web", "True", "Assigned").await?;
    stage.keeps("web", &[], QUIET).await?;
    stage.patch("ClusterExternalIPSource", &source, &json!({"spec": {"ipMode": "Proxy"}})).await?;
    stage.ingress_becomes("web", &json!([{"ip": "203.1.19.1", "ipMode": "Proxy"}])).await?;

    // All that is left to it is its own status.
    let spec = v4_with(LOAD_BALANCER, "onNoAddress: Remove");
    let own = stage.source("own", &spec).await?;
    stage.bind("web", Some(&own)).await?;
    stage.ingress_becomes("web", &Value::Null).await?;
    stage.service_says("web", "False", "NoAddress").await?;
    stage.bind("web", None).await?;
    stage.is_released("web", &[]).await
}

/// A19
async fn the_status_of_another_class_is_not_written(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4_with(&fixed("203.1.19.11"), "outputs: [LoadBalancerStatus]")).await?;
    let others = "{spec: {type: LoadBalancer, loadBalancerClass: example.com/metal}}";
    stage.bound_service("web", &source, others).await?;
    stage.bound_service("plain", &source, "{}").await?;
    stage.set_ingress("web", &json!([{"ip": "203.1.19.12"}])).await?;
    for service in ["web", "plain"] {
        stage.service_says(service, "False", "OutputUnavailable").await?;
        stage.event(service, "OutputUnavailable").await?;
        stage.keeps(service, &[], QUIET).await?;
    }
    ensure!(stage.ingress("web").await?[0]["ip"] == "203.1.19.12", "the status has changed");
    Ok(())
}

/// A20
async fn external_dns_is_told_the_addresses_and_a_users_word_stands(stage: &Stage) -> Result<()> {
    let spec = "{ipv4: {solvers: [{static: {addresses: [203.1.20.1]}}]}, ipv6: {solvers: [{static: {addresses: ['2001:db8:20::1']}}]}, \
                outputs: [ExternalIPs, ExternalDNSTarget]}";
    let source = stage.source("public", spec).await?;
    stage.bound_service("web", &source, "{}").await?;
    let targets = async |service: &str| -> Result<[Option<String>; 2]> {
        let object = stage.api("Service").get(service).await?;
        Ok(TARGETS.map(|key| object.annotations().get(key).cloned()))
    };
    let become_ = async |service: &str, expected: [Option<&str>; 2]| -> Result<()> {
        eventually(PATIENCE, async || {
            let now = targets(service).await?;
            ensure!(now.each_ref().map(Option::as_deref) == expected, "the targets of {service} are {now:?}");
            Ok(())
        })
        .await
    };
    let ours = Some("203.1.20.1,2001:db8:20::1");
    become_("web", [ours, ours]).await?;
    stage.publishes("web", &["203.1.20.1", "2001:db8:20::1"]).await?;
    stage.bind("web", None).await?;
    stage.is_released("web", &[]).await?;
    become_("web", [None, None]).await?;

    let users = json!({"metadata": {"annotations": {TARGETS[0]: "mine.example.net"}}}).to_string();
    stage.bound_service("taken", &source, &users).await?;
    stage.publishes("taken", &["203.1.20.1", "2001:db8:20::1"]).await?;
    stage.service_says("taken", "False", "OutputUnavailable").await?;
    ensure!(targets("taken").await?[0].as_deref() == Some("mine.example.net"), "a user's value was overwritten");
    stage.bind("taken", None).await?;
    stage.is_released("taken", &[]).await?;
    become_("taken", [Some("mine.example.net"), None]).await
}

/// §8: an output removed from `outputs` is cleaned of ours.
async fn an_output_that_is_taken_away_is_cleaned(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4_with(&fixed("203.1.80.1"), "outputs: [ExternalIPs, ExternalDNSTarget]")).await?;
    stage.bound_service("web", &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
    stage.publishes("web", &["10.9.9.9", "203.1.80.1"]).await?;
    let told = async |expected: Option<&str>| -> Result<()> {
        eventually(PATIENCE, async || {
            let object = stage.api("Service").get("web").await?;
            let now = TARGETS.map(|key| object.annotations().get(key).map(String::as_str));
            ensure!(now == [expected; 2], "the targets are {now:?}");
            Ok(())
        })
        .await
    };
    told(Some("203.1.80.1")).await?;
    stage.patch("ClusterExternalIPSource", &source, &json!({"spec": {"outputs": ["ExternalDNSTarget"]}})).await?;
    stage.publishes("web", &["10.9.9.9"]).await?;
    told(Some("203.1.80.1")).await?;
    stage.patch("ClusterExternalIPSource", &source, &json!({"spec": {"outputs": ["ExternalIPs"]}})).await?;
    stage.publishes("web", &["10.9.9.9", "203.1.80.1"]).await?;
    told(None).await
}

/// A27
async fn two_services_may_share_a_port_of_an_address_and_the_later_is_told(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4(&fixed("203.1.27.1"))).await?;
    stage.bound_service("a-first", &source, "{}").await?;
    stage.publishes("a-first", &["203.1.27.1"]).await?;
    stage.bound_service("b-second", &source, "{}").await?;
    // Another port is no conflict.
    stage.bound_service("c-other", &source, "{spec: {ports: [{port: 80}]}}").await?;
    stage.publishes("b-second", &["203.1.27.1"]).await?;
    stage.publishes("c-other", &["203.1.27.1"]).await?;
    eventually(PATIENCE, async || {
        let told = stage.service_condition("b-second", "PortConflict").await?.unwrap_or_default();
        let message = told["message"].as_str().unwrap_or_default();
        let right = told["status"] == "True" && told["reason"] == "SharedAddressAndPort" && message.contains("a-first");
        ensure!(right, "it says {told}");
        Ok(())
    })
    .await?;
    stage.event("b-second", "PortConflict").await?;
    for service in ["a-first", "c-other"] {
        let told = stage.service_condition(service, "PortConflict").await?;
        ensure!(told.is_none(), "{service} says {told:?}");
    }
    stage.delete("Service", "a-first").await?;
    eventually(PATIENCE, async || {
        let told = stage.service_condition("b-second", "PortConflict").await?;
        ensure!(told.is_none(), "it still says {told:?}");
        Ok(())
    })
    .await
}

/// A27
async fn the_later_of_two_services_goes_without_where_sharing_is_refused(stage: &Stage) -> Result<()> {
    let source = stage.source("public", &v4_with(&fixed("203.1.27.11"), "portConflict: Refuse")).await?;
    stage.bound_service("a-first", &source, "{}").await?;
    stage.publishes("a-first", &["203.1.27.11"]).await?;
    stage.bound_service("b-second", &source, "{}").await?;
    stage.service_says("b-second", "False", "PortConflict").await?;
    stage.keeps("b-second", &[], QUIET).await?;
    stage.delete("Service", "a-first").await?;
    stage.publishes("b-second", &["203.1.27.11"]).await?;
    stage.service_says("b-second", "True", "Assigned").await?;
    Ok(())
}
