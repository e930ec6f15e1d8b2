//! What a scene can make and say of Services and of the sources of their external addresses.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{PATIENCE, Scene, as_text, merge};
use crate::{consistently, eventually};

/// Annotation of a Service: the source of its external addresses.
pub const SOURCE: &str = "externalip.spacebird.dev/cluster-external-ip-source";

/// Annotation of a Service: what we have written on it, as JSON.
const RECORD: &str = "externalip.spacebird.dev/managed";

/// Conditions of a Service.
const READY: &str = "externalip.spacebird.dev/Ready";
const OURS: &str = "externalip.spacebird.dev/";

impl Scene {
    /// Creates a `ClusterExternalIPSource` from the YAML of its spec; the namespace is appended to its name, which is returned.
    pub async fn source(&self, name: &str, spec: &str) -> Result<String> {
        let name = self.global_name(name);
        let spec: Value = serde_yaml_ng::from_str(spec).with_context(|| format!("parse {spec}"))?;
        self.create_object(json!({"kind": "ClusterExternalIPSource", "metadata": {"name": name}, "spec": spec})).await?;
        Ok(name)
    }

    /// Creates a Service with port 443 and more in it: the YAML is merged over the object, `"{spec: {type: LoadBalancer}}"`.
    pub async fn service(&self, name: &str, more: &str) -> Result<()> {
        let spec = json!({"ports": [{"port": 443, "protocol": "TCP"}], "selector": {"app": name}});
        let mut service = json!({"kind": "Service", "metadata": {"name": name}, "spec": spec});
        merge(&mut service, serde_yaml_ng::from_str(more).with_context(|| format!("parse {more}"))?);
        self.create_object(service).await?;
        Ok(())
    }

    /// Creates a Service as [`Scene::service`] does, bound to a source from the start.
    pub async fn bound_service(&self, name: &str, source: &str, more: &str) -> Result<()> {
        let mut bound = json!({"metadata": {"annotations": {SOURCE: source}}});
        merge(&mut bound, serde_yaml_ng::from_str(more).with_context(|| format!("parse {more}"))?);
        self.service(name, &bound.to_string()).await
    }

    /// Binds a Service to a source, or to none.
    pub async fn bind(&self, service: &str, source: Option<&str>) -> Result<()> {
        self.annotate("Service", service, SOURCE, source).await
    }

    /// The Service's `spec.externalIPs`.
    pub async fn external_ips(&self, service: &str) -> Result<Vec<String>> {
        let object = self.api("Service").get(service).await?;
        Ok(texts(&object.data["spec"]["externalIPs"]))
    }

    /// Waits until a Service's `spec.externalIPs` are these, in this order.
    pub async fn publishes(&self, service: &str, expected: &[&str]) -> Result<()> {
        eventually(PATIENCE, async || {
            let now = self.external_ips(service).await?;
            let object = self.api("Service").get(service).await?;
            ensure!(now == expected, "{service} has {now:?}, not {expected:?}: {}", as_text(&object));
            Ok(())
        })
        .await
    }

    /// Watches that a Service's `spec.externalIPs` are these all the time.
    pub async fn keeps(&self, service: &str, expected: &[&str], duration: Duration) -> Result<()> {
        consistently(duration, async || {
            let now = self.external_ips(service).await?;
            ensure!(now == expected, "{service} has {now:?}, not {expected:?}");
            Ok(())
        })
        .await
    }

    /// What we have recorded on a Service.
    pub async fn record(&self, service: &str) -> Result<Option<Value>> {
        let object = self.api("Service").get(service).await?;
        let text = object.annotations().get(RECORD);
        text.map(|text| serde_json::from_str(text).with_context(|| format!("read the record {text}"))).transpose()
    }

    /// Writes any text over the record of a Service.
    pub async fn write_record(&self, service: &str, text: &str) -> Result<()> {
        self.annotate("Service", service, RECORD, Some(text)).await
    }

    /// A condition of ours on a Service, by the end of its type: `"Ready"`, `"PortConflict"`.
    pub async fn service_condition(&self, service: &str, name: &str) -> Result<Option<Value>> {
        let object = self.api("Service").get(service).await?;
        Ok(condition(&object.data, &format!("{OURS}{name}")))
    }

    /// Waits until a Service's condition of ours has this status and reason, and returns the message.
    pub async fn service_says(&self, service: &str, status: &str, reason: &str) -> Result<String> {
        eventually(PATIENCE, async || {
            let object = self.api("Service").get(service).await?;
            said(condition(&object.data, READY), status, reason).with_context(|| format!("Service {service}"))
        })
        .await
    }

    /// Waits until a source's condition has this status and reason, and returns the message.
    pub async fn source_says(&self, source: &str, kind: &str, status: &str, reason: &str) -> Result<String> {
        eventually(PATIENCE, async || {
            let object = self.api("ClusterExternalIPSource").get(source).await?;
            said(condition(&object.data, kind), status, reason)
                .with_context(|| format!("{kind} of the source {source}: {}", object.data["status"]))
        })
        .await
    }

    /// Waits until nothing of ours is left on a Service and its `spec.externalIPs` are these.
    pub async fn is_released(&self, service: &str, left: &[&str]) -> Result<()> {
        eventually(PATIENCE, async || {
            let object = self.api("Service").get(service).await?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ours = |condition: &Value| condition["type"].as_str().is_some_and(|kind| kind.starts_with(OURS));
            let clean = !object.annotations().contains_key(RECORD) && !conditions.iter().any(ours);
            let now = texts(&object.data["spec"]["externalIPs"]);
            ensure!(clean && now == left, "{service} is not released with {left:?} left: {}", as_text(&object));
            Ok(())
        })
        .await
    }

    /// Sets the Service's `status.loadBalancer.ingress`, as an implementation of load balancers does.
    pub async fn set_ingress(&self, service: &str, ingress: &Value) -> Result<()> {
        let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        self.api("Service").patch_status(service, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The Service's `status.loadBalancer.ingress`; `null` if there is none.
    pub async fn ingress(&self, service: &str) -> Result<Value> {
        let object = self.api("Service").get(service).await?;
        Ok(object.data["status"]["loadBalancer"]["ingress"].clone())
    }

    /// Waits until the Service's `status.loadBalancer.ingress` is this.
    pub async fn ingress_becomes(&self, service: &str, expected: &Value) -> Result<()> {
        eventually(PATIENCE, async || {
            let now = self.ingress(service).await?;
            ensure!(now == *expected, "the load balancer status of {service} is {now}, not {expected}");
            Ok(())
        })
        .await
    }

    /// Reason and note of the events about a source.
    pub async fn source_events(&self, source: &str) -> Result<Vec<(String, String)>> {
        let events = Api::<Event>::namespaced(self.client.clone(), "default").list(&ListParams::default()).await?;
        let about = |event: &Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(source);
        let text = |event: Event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        Ok(events.items.into_iter().filter(about).map(text).collect())
    }

    /// Waits for an event of this reason about a source, and returns its note.
    pub async fn source_event(&self, source: &str, reason: &str) -> Result<String> {
        eventually(PATIENCE, async || {
            let events = self.source_events(source).await?;
            let found = events.iter().find(|(known, _)| known == reason);
            found.map(|(_, note)| note.clone()).with_context(|| format!("no event {reason} about {source} among {events:?}"))
        })
        .await
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

fn condition(object: &Value, kind: &str) -> Option<Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind).cloned()
}

/// The message of a condition, if it has this status and reason.
fn said(condition: Option<Value>, status: &str, reason: &str) -> Result<String> {
    let condition = condition.context("it says nothing")?;
    ensure!(condition["status"] == status && condition["reason"] == reason, "it says {condition}, not {status} {reason}");
    Ok(condition["message"].as_str().unwrap_or_default().to_owned())
}
