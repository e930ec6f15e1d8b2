//! What a scene can say of claims beyond their address: conditions, events, clusters, and that nothing happens.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::{Value, json};

use super::{PATIENCE, Scene, as_text};
use crate::{consistently, eventually};

/// How long a trial watches that nothing happens.
pub const QUIET: Duration = Duration::from_millis(1500);

/// What both flavours of a claim's `Ready` condition say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ready {
    /// `True` or `False`.
    pub status: String,
    /// The cause in one word.
    pub reason: String,
    /// The details.
    pub message: String,
    /// Only in the legacy flavour, and only while false.
    pub severity: Option<String>,
}

impl Scene {
    /// The same namespace, with Cluster API's kinds spoken in v1beta1.
    #[must_use]
    pub fn in_v1beta1(&self) -> Self {
        Self { capi_version: "v1beta1", ..self.clone() }
    }

    /// Creates a `Cluster`; the YAML is its metadata besides the name, `"{annotations: {…}}"`.
    pub async fn cluster(&self, name: &str, metadata: &str, paused: bool) -> Result<()> {
        let mut metadata: Value = serde_yaml_ng::from_str(metadata)?;
        metadata["name"] = name.into();
        self.create_object(json!({"kind": "Cluster", "metadata": metadata, "spec": {"paused": paused}})).await?;
        Ok(())
    }

    /// Both flavours of a claim's `Ready`; `None` while neither is there. It is an error if they disagree or one is missing.
    pub async fn ready(&self, claim: &str) -> Result<Option<Ready>> {
        let object = self.api("IPAddressClaim").get(claim).await?;
        ready_of(&object, self.capi_version)
    }

    /// Waits until both flavours of a claim's `Ready` have this status and reason, and returns the message.
    pub async fn ready_becomes(&self, claim: &str, status: &str, reason: &str) -> Result<String> {
        eventually(PATIENCE, async || match self.ready(claim).await? {
            // The legacy flavour, which is all that an old release keeps, gives no reason for what is true.
            Some(ready) if ready.status == status && (ready.reason == reason || is_silent(&ready)) => Ok(ready.message),
            other => bail!("{claim} says {other:?}, not {status} {reason}"),
        })
        .await
    }

    /// Waits until a claim says that it was given this, `10.0.0.10/24`. The legacy flavour, which is all that an old release
    /// keeps, only says that it is ready.
    pub async fn says_allocated(&self, claim: &str, address: &str) -> Result<()> {
        let expected = format!("allocated {address}");
        eventually(PATIENCE, async || {
            let ready = self.ready(claim).await?.with_context(|| format!("{claim} says nothing yet"))?;
            let said = ready.status == "True" && ready.reason == "AddressAllocated" && ready.message == expected;
            ensure!(said || is_silent(&ready), "{claim} says {ready:?}, not {expected:?}");
            Ok(())
        })
        .await
    }

    /// Waits for a `Ready=False` of this reason whose message contains each of `words`.
    pub async fn tells(&self, claim: &str, reason: &str, words: &[&str]) -> Result<()> {
        eventually(PATIENCE, async || {
            let ready = self.ready(claim).await?.with_context(|| format!("{claim} says nothing yet"))?;
            let said = ready.status == "False" && ready.reason == reason && words.iter().all(|word| ready.message.contains(word));
            ensure!(said, "{claim} says {ready:?}, not {reason} with {words:?}");
            Ok(())
        })
        .await
    }

    /// Reason and note of the events about objects of this name.
    pub async fn events(&self, name: &str) -> Result<Vec<(String, String)>> {
        let events = Api::<Event>::namespaced(self.client.clone(), &self.namespace).list(&ListParams::default()).await?;
        let about = |event: &Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(name);
        let text = |event: Event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
        Ok(events.items.into_iter().filter(about).map(text).collect())
    }

    /// Waits for an event of this reason about an object of this name, and returns its note.
    pub async fn event(&self, name: &str, reason: &str) -> Result<String> {
        eventually(PATIENCE, async || {
            let events = self.events(name).await?;
            let found = events.iter().find(|(known, _)| known == reason);
            found.map(|(_, note)| note.clone()).with_context(|| format!("no event {reason} about {name} among {events:?}"))
        })
        .await
    }

    /// Watches that nobody writes to an object.
    pub async fn untouched(&self, kind: &str, name: &str) -> Result<()> {
        let before = self.api(kind).get(name).await?;
        consistently(QUIET, async || {
            let now = self.get(kind, name).await?.with_context(|| format!("{kind} {name} is gone"))?;
            ensure!(now.resource_version() == before.resource_version(), "{} became {}", as_text(&before), as_text(&now));
            Ok(())
        })
        .await
    }

    /// Watches that an object is not removed, whatever is written to it.
    pub async fn stays(&self, kind: &str, name: &str, duration: Duration) -> Result<()> {
        let uid = self.api(kind).get(name).await?.uid();
        consistently(duration, async || {
            let now = self.get(kind, name).await?;
            ensure!(now.and_then(|object| object.uid()) == uid, "{kind} {name} is gone");
            Ok(())
        })
        .await
    }

    /// Waits until an object has a finalizer.
    pub async fn has_finalizer(&self, kind: &str, name: &str, finalizer: &str) -> Result<()> {
        eventually(PATIENCE, async || {
            let object = self.api(kind).get(name).await?;
            ensure!(object.finalizers().iter().any(|known| known == finalizer), "{finalizer} is not on {}", as_text(&object));
            Ok(())
        })
        .await
    }

    /// Sets an object's finalizers, whoever's they are; an empty list lets a deleted object go.
    pub async fn set_finalizers(&self, kind: &str, name: &str, finalizers: &[&str]) -> Result<()> {
        self.patch(kind, name, &json!({"metadata": {"finalizers": finalizers}})).await?;
        Ok(())
    }

    /// Sets an annotation, or takes it away.
    pub async fn annotate(&self, kind: &str, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.patch(kind, name, &json!({"metadata": {"annotations": {key: value}}})).await?;
        Ok(())
    }
}

/// Reads both flavours of `Ready` from a claim that was read in `version`. A release that knows v1beta1 only keeps just the legacy one.
pub fn ready_of(claim: &DynamicObject, version: &str) -> Result<Option<Ready>> {
    let (new, legacy) = conditions_of(claim, version);
    let (new, legacy) = (ready_among(new), ready_among(legacy));
    let Some(legacy) = legacy else {
        ensure!(new.is_none(), "only the new flavour of Ready is there: {}", as_text(claim));
        return Ok(None);
    };
    let text = |condition: &Value, field: &str| condition[field].as_str().map(str::to_owned);
    let severity = text(legacy, "severity");
    let Some(new) = new else {
        ensure!(version == "v1beta1", "only the legacy flavour of Ready is there: {}", as_text(claim));
        return Ok(Some(Ready {
            status: text(legacy, "status").unwrap_or_default(),
            reason: text(legacy, "reason").unwrap_or_default(),
            message: text(legacy, "message").unwrap_or_default(),
            severity,
        }));
    };
    let quiet = legacy["status"] == "True";
    let (reason, message) = if quiet { (Value::Null, Value::Null) } else { (new["reason"].clone(), new["message"].clone()) };
    let agree = new["status"] == legacy["status"] && legacy["reason"] == reason && legacy["message"] == message;
    ensure!(agree && quiet == severity.is_none(), "the flavours of Ready disagree: {}", as_text(claim));
    ensure!(new["observedGeneration"].is_i64(), "Ready without observedGeneration: {}", as_text(claim));
    Ok(Some(Ready {
        status: text(new, "status").unwrap_or_default(),
        reason: text(new, "reason").unwrap_or_default(),
        message: text(new, "message").unwrap_or_default(),
        severity,
    }))
}

/// Both flavours of all conditions of a claim that was read in `version`, the new one first.
pub fn conditions_of<'a>(claim: &'a DynamicObject, version: &str) -> (&'a Value, &'a Value) {
    let status = &claim.data["status"];
    match version {
        "v1beta1" => (&status["v1beta2"]["conditions"], &status["conditions"]),
        _ => (&status["conditions"], &status["deprecated"]["v1beta1"]["conditions"]),
    }
}

fn is_silent(ready: &Ready) -> bool {
    ready.status == "True" && ready.reason.is_empty()
}

fn ready_among(conditions: &Value) -> Option<&Value> {
    conditions.as_array()?.iter().find(|condition| condition["type"] == "Ready")
}
