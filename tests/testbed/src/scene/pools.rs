//! What a scene can say of pools beyond their numbers: specs, conditions.

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{PATIENCE, Pool, Scene, as_text};
use crate::eventually;

/// The types of the conditions that every pool has.
const CONDITIONS: [&str; 4] = ["Ready", "Exhausted", "Overlapping", "Conflicting"];

impl Scene {
    /// Creates one IP pool of each scope with the same spec.
    pub async fn ip_pools(&self, name: &str, spec: &str) -> Result<[Pool; 2]> {
        Ok([self.pool(name, spec).await?, self.global_pool(name, spec).await?])
    }

    /// Creates one prefix pool of each scope with the same spec.
    pub async fn prefix_pools(&self, name: &str, spec: &str) -> Result<[Pool; 2]> {
        Ok([self.prefix_pool(name, spec).await?, self.global_prefix_pool(name, spec).await?])
    }

    /// Merges YAML into a pool's spec: lists are replaced, `null` removes.
    pub async fn respec(&self, pool: &Pool, spec: &str) -> Result<()> {
        let spec: Value = serde_yaml_ng::from_str(spec)?;
        self.patch(pool.kind, &pool.name, &json!({"spec": spec})).await?;
        Ok(())
    }

    /// Waits until a pool's status was computed for its present spec.
    pub async fn up_to_date(&self, pool: &Pool) -> Result<DynamicObject> {
        eventually(PATIENCE, async || {
            let object = self.api(pool.kind).get(&pool.name).await?;
            let observed = &object.data["status"]["observedGeneration"];
            ensure!(observed.as_i64() == object.metadata.generation, "the status is behind: {}", as_text(&object));
            Ok(object)
        })
        .await
    }

    /// Waits until a pool's condition has this status and reason, and returns its message.
    pub async fn condition_becomes(&self, pool: &Pool, kind: &str, status: &str, reason: &str) -> Result<String> {
        self.condition_says(pool, kind, status, reason, &[]).await
    }

    /// Waits until a pool's condition has this status and reason and its message contains each of `words`; returns the message.
    pub async fn condition_says(&self, pool: &Pool, kind: &str, status: &str, reason: &str, words: &[&str]) -> Result<String> {
        eventually(PATIENCE, async || {
            let object = self.api(pool.kind).get(&pool.name).await?;
            let found = condition_of(&object, kind)?;
            let message = found["message"].as_str().unwrap_or_default();
            let said = found["status"] == status && found["reason"] == reason && words.iter().all(|word| message.contains(word));
            ensure!(said, "{} {}: {kind} is {found}, not {status} {reason} with {words:?}", pool.kind, pool.name);
            Ok(message.to_owned())
        })
        .await
    }

    /// Waits until a deleted pool is gone.
    pub async fn pool_gone(&self, pool: &Pool) -> Result<()> {
        self.gone(pool.kind, &pool.name).await
    }

    /// Creates an `IPAddress` that no manager made. The YAML is merged over the object.
    pub async fn foreign_address(&self, name: &str, pool: &Pool, address: &str, prefix: u8, more: &str) -> Result<DynamicObject> {
        let mut object = json!({
            "kind": "IPAddress",
            "metadata": {"name": name},
            "spec": {
                "claimRef": {"name": name},
                "poolRef": {"apiGroup": super::GROUP, "kind": pool.kind, "name": pool.name},
                "address": address,
                "prefix": prefix,
            },
        });
        super::merge(&mut object, serde_yaml_ng::from_str(more)?);
        self.create_object(object).await
    }
}

/// One condition of a pool. It is an error if the status lacks one of the four, or has one without a reason or a time.
fn condition_of<'a>(pool: &'a DynamicObject, kind: &str) -> Result<&'a Value> {
    let conditions = pool.data["status"]["conditions"].as_array().context("no conditions yet")?;
    let find = |kind: &str| conditions.iter().find(|condition| condition["type"] == kind);
    for kind in CONDITIONS {
        let Some(condition) = find(kind) else { bail!("{} has no condition {kind}", pool.name_any()) };
        let complete =
            ["reason", "lastTransitionTime"].iter().all(|field| condition[*field].as_str().is_some_and(|text| !text.is_empty()));
        ensure!(complete && condition["observedGeneration"].is_i64(), "an incomplete condition: {condition}");
    }
    find(kind).with_context(|| format!("no condition {kind}"))
}
