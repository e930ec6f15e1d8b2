//! API servers that do not let everybody write external IPs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use testbed::trial::Standalone;
use testbed::{Options, consistently, eventually};

use crate::fixture::{Setup, Stage};
use crate::spec::{fixed, v4, v4_with};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![
        a_server_that_denies_external_ips_is_asked_once_and_other_outputs_are_written,
        with_the_policy_only_the_manager_adds_and_everybody_removes,
    ]
}

/// A29
async fn a_server_that_denies_external_ips_is_asked_once_and_other_outputs_are_written() -> Result<()> {
    let options = Options { admission_plugins: "DenyServiceExternalIPs", audit: true, ..Options::default() };
    let stage = Stage::alone(Setup { options, ..Setup::default() }).await?;
    let source = stage.source("public", &v4_with(&fixed("203.1.29.1"), "outputs: [ExternalIPs, ExternalDNSTarget]")).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.service_says("web", "False", "DeniedByAdmission").await?;
    stage.event("web", "DeniedByAdmission").await?;
    eventually(PATIENCE, async || {
        let service = stage.api("Service").get("web").await?;
        let target = service.annotations().get("external-dns.kubernetes.io/target").map(String::as_str);
        ensure!(target == Some("203.1.29.1"), "the target is {target:?}");
        Ok(())
    })
    .await?;
    let writes = || -> Result<usize> {
        let requests = stage.control_plane().requests()?.into_iter();
        Ok(requests
            .filter(|request| request.is_managers() && request.is_write() && request.uri.contains("/services/web"))
            .count())
    };
    let before = writes()?;
    consistently(Duration::from_secs(5), async || {
        ensure!(writes()? == before, "it writes on");
        Ok(())
    })
    .await?;
    let told = stage.events("web").await?.into_iter().filter(|(reason, _)| reason == "DeniedByAdmission").count();
    ensure!(told == 1, "told {told} times");
    stage.bind("web", None).await?;
    stage.is_released("web", &[]).await
}

/// A36
async fn with_the_policy_only_the_manager_adds_and_everybody_removes() -> Result<()> {
    let stage = Stage::alone(Setup::default()).await?;
    let control_plane = stage.control_plane();
    // Before the policy, which is for administrators too.
    stage.service("users", "{spec: {externalIPs: [10.9.9.9]}}").await?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/externalip/policy");
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        // The other policy is about who may annotate.
        if text.contains("externalIPs") {
            // The account here has not got the prefix that a release gives its name.
            control_plane.apply(&text.replace("capi-ipam-in-cluster-controller-manager", "controller-manager"))?;
        }
    }
    let namespace = stage.namespace.as_str();
    control_plane.kubectl(&["create", "serviceaccount", "person", "-n", namespace])?;
    let account = format!("--serviceaccount={namespace}:person");
    control_plane.kubectl(&["create", "rolebinding", "person", "-n", namespace, "--clusterrole=edit", &account])?;
    let person = stage.elsewhere(control_plane.client_as(&control_plane.kubeconfig_of(namespace, "person")?).await?);

    // A policy takes a moment to be seen; what was added until then is there, so each attempt adds something else.
    let mut attempt = 100;
    eventually(PATIENCE, async || {
        attempt += 1;
        let add = json!({"spec": {"externalIPs": ["10.9.9.9", format!("203.1.36.{attempt}")]}});
        let denied = person.patch("Service", "users", &add).await.err().context("it was admitted")?;
        let text = format!("{denied:#}");
        ensure!(text.contains("externalIPs"), "{text}");
        Ok(())
    })
    .await?;
    stage.patch("Service", "users", &json!({"spec": {"externalIPs": ["10.9.9.9"]}})).await?;
    let source = stage.source("public", &v4(&fixed("203.1.36.1"))).await?;
    person.bind("users", Some(&source)).await?;
    person.publishes("users", &["10.9.9.9", "203.1.36.1"]).await?;
    person.service_says("users", "True", "Assigned").await?;
    // Keeping is as good as removing.
    person.annotate("Service", "users", "example.com/any", Some("value")).await?;
    person.patch("Service", "users", &json!({"spec": {"externalIPs": ["203.1.36.1"]}})).await?;
    person.publishes("users", &["203.1.36.1"]).await?;
    person.bind("users", None).await?;
    person.is_released("users", &[]).await
}
