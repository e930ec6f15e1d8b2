//! One test's own corner of a shared control plane: a namespace, and short ways to make and watch pools and claims there.

mod claims;
mod pools;
mod services;

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

pub use self::claims::{QUIET, Ready, conditions_of, ready_of};
pub use self::services::SOURCE;
use crate::{CapiCrds, consistently, eventually};

const GROUP: &str = "ipam.cluster.x-k8s.io";
const POOL_VERSION: &str = "v1alpha2";

/// How long a scene waits for what must happen. Far more than it takes: only a failing test ever waits that long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A namespace of one test and a client for it. The namespace is left behind: it goes with the control plane.
///
/// Kinds are given by name (`"IPAddressClaim"`, `"GlobalInClusterIPPool"`, `"Cluster"`, `"Service"` …).
#[derive(Clone)]
pub struct Scene {
    /// The client all calls use.
    pub client: kube::Client,
    /// The namespace's name, unique on this control plane.
    pub namespace: String,
    /// The version of Cluster API's kinds here.
    pub capi_version: &'static str,
}

/// A pool made by a scene.
#[derive(Clone, Debug)]
pub struct Pool {
    /// One of our four pool kinds.
    pub kind: &'static str,
    /// The object's name; for a cluster-scoped pool it ends with the scene's namespace.
    pub name: String,
}

/// The numbers of `status.ipAddresses`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counts {
    /// Addresses or blocks the pool can give.
    pub total: u64,
    /// `IPAddress` objects of the pool.
    pub used: u64,
    /// What can still be given.
    pub free: u64,
    /// Used ones that the pool would not give now.
    pub out_of_range: u64,
}

impl Scene {
    /// Creates a namespace whose name starts with `hint`.
    pub async fn create(client: kube::Client, hint: &str, capi_crds: CapiCrds) -> Result<Self> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let namespace = format!("{hint}-{}", &unique[..8]);
        let metadata = ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() };
        let object = Namespace { metadata, ..Namespace::default() };
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        let capi_version = capi_crds.version().context("a scene needs Cluster API's kinds")?;
        Ok(Self { client, namespace, capi_version })
    }

    /// The namespace of this name on another control plane, which a client of that one reaches. It is not created there.
    #[must_use]
    pub fn elsewhere(&self, client: kube::Client) -> Self {
        Self { client, ..self.clone() }
    }

    /// The API of a kind in this namespace, or of the whole cluster for a cluster-scoped kind.
    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = self.resource(kind);
        if kind.starts_with("Global") || kind.starts_with("Cluster") && kind != "Cluster" {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
        }
    }

    fn resource(&self, kind: &str) -> ApiResource {
        let (group, version) = match kind {
            "Cluster" => ("cluster.x-k8s.io", self.capi_version),
            "IPAddress" | "IPAddressClaim" => (GROUP, self.capi_version),
            "Service" => ("", "v1"),
            "ClusterExternalIPSource" => ("externalip.spacebird.dev", "v1alpha1"),
            _ => (GROUP, POOL_VERSION),
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }

    /// Creates an `InClusterIPPool` from the YAML of its spec, `"{addresses: [10.0.0.10-10.0.0.20], prefix: 24}"`.
    pub async fn pool(&self, name: &str, spec: &str) -> Result<Pool> {
        self.create_pool("InClusterIPPool", name.to_owned(), spec).await
    }

    /// Creates a `GlobalInClusterIPPool`; the namespace is appended to its name.
    pub async fn global_pool(&self, name: &str, spec: &str) -> Result<Pool> {
        self.create_pool("GlobalInClusterIPPool", self.global_name(name), spec).await
    }

    /// Creates an `InClusterPrefixPool`.
    pub async fn prefix_pool(&self, name: &str, spec: &str) -> Result<Pool> {
        self.create_pool("InClusterPrefixPool", name.to_owned(), spec).await
    }

    /// Creates a `GlobalInClusterPrefixPool`; the namespace is appended to its name.
    pub async fn global_prefix_pool(&self, name: &str, spec: &str) -> Result<Pool> {
        self.create_pool("GlobalInClusterPrefixPool", self.global_name(name), spec).await
    }

    /// Creates a pool that carries an annotation from the start. The name is taken as it is.
    pub async fn annotated_pool(&self, kind: &'static str, name: &str, key: &str, value: &str, spec: &str) -> Result<Pool> {
        let spec: Value = serde_yaml_ng::from_str(spec)?;
        let metadata = json!({"name": name, "annotations": {key: value}});
        self.create_object(json!({"kind": kind, "metadata": metadata, "spec": spec})).await?;
        Ok(Pool { kind, name: name.to_owned() })
    }

    /// Creates a claim on a pool.
    pub async fn claim(&self, name: &str, pool: &Pool) -> Result<()> {
        self.claim_with(name, pool, "{}").await
    }

    /// Creates a claim on a pool with more in it: the YAML is merged over the object,
    /// `"{metadata: {annotations: {cluster.x-k8s.io/paused: ''}}}"`.
    pub async fn claim_with(&self, name: &str, pool: &Pool, more: &str) -> Result<()> {
        let mut claim = json!({
            "kind": "IPAddressClaim",
            "metadata": {"name": name},
            "spec": {"poolRef": {"apiGroup": GROUP, "kind": pool.kind, "name": pool.name}},
        });
        merge(&mut claim, serde_yaml_ng::from_str(more)?);
        self.create_object(claim).await?;
        Ok(())
    }

    /// Creates any object of a known kind from YAML; `apiVersion` and the namespace are filled in.
    pub async fn object(&self, yaml: &str) -> Result<DynamicObject> {
        self.create_object(serde_yaml_ng::from_str(yaml)?).await
    }

    /// The object as it is now, if it exists.
    pub async fn get(&self, kind: &str, name: &str) -> Result<Option<DynamicObject>> {
        Ok(self.api(kind).get_opt(name).await?)
    }

    /// Merge-patches an object: `json!({"spec": {"addresses": [..]}})`.
    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Result<DynamicObject> {
        Ok(self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Deletes an object without waiting until it is gone.
    pub async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.api(kind).delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until an object does not exist.
    pub async fn gone(&self, kind: &str, name: &str) -> Result<()> {
        eventually(PATIENCE, async || match self.get(kind, name).await? {
            None => Ok(()),
            Some(object) => bail!("{kind} {name} still exists: {}", as_text(&object)),
        })
        .await
    }

    /// The `IPAddress` a claim refers to, if it refers to one.
    pub async fn bound_address(&self, claim: &str) -> Result<Option<DynamicObject>> {
        let object = self.get("IPAddressClaim", claim).await?.with_context(|| format!("no claim {claim}"))?;
        let Some(name) = object.data["status"]["addressRef"]["name"].as_str() else { return Ok(None) };
        let address = self.get("IPAddress", name).await?;
        Ok(Some(address.with_context(|| format!("claim {claim} refers to IPAddress {name}, which does not exist"))?))
    }

    /// Waits until a claim refers to its `IPAddress` and returns the address.
    pub async fn address(&self, claim: &str) -> Result<String> {
        let bound = eventually(PATIENCE, async || match self.bound_address(claim).await? {
            Some(address) => Ok(address),
            None => bail!("no address yet: {}", as_text(&self.api("IPAddressClaim").get(claim).await?)),
        });
        let address = bound.await?;
        Ok(address.data["spec"]["address"].as_str().context("an IPAddress without address")?.to_owned())
    }

    /// Creates a claim and waits for its address.
    pub async fn claim_address(&self, name: &str, pool: &Pool) -> Result<String> {
        self.claim(name, pool).await?;
        self.address(name).await
    }

    /// Watches for `duration` that a claim gets no address: neither a reference nor an `IPAddress` of its name.
    pub async fn no_address(&self, claim: &str, duration: Duration) -> Result<()> {
        consistently(duration, async || {
            ensure!(self.bound_address(claim).await?.is_none(), "claim {claim} has an address");
            ensure!(self.get("IPAddress", claim).await?.is_none(), "IPAddress {claim} exists");
            Ok(())
        })
        .await
    }

    /// The numbers in a pool's status, if it has any yet.
    pub async fn counts(&self, pool: &Pool) -> Result<Option<Counts>> {
        let object = self.api(pool.kind).get(&pool.name).await?;
        let numbers = &object.data["status"]["ipAddresses"];
        let number = |name: &str| numbers[name].as_u64();
        Ok((|| {
            let (total, used, free) = (number("total")?, number("used")?, number("free")?);
            Some(Counts { total, used, free, out_of_range: number("outOfRange")? })
        })())
    }

    /// Waits until a pool's status has these numbers.
    pub async fn counts_become(&self, pool: &Pool, expected: Counts) -> Result<()> {
        eventually(PATIENCE, async || {
            let now = self.counts(pool).await?;
            ensure!(now == Some(expected), "{pool:?} has {now:?}, not {expected:?}");
            Ok(())
        })
        .await
    }

    fn global_name(&self, name: &str) -> String {
        format!("{name}-{}", self.namespace)
    }

    async fn create_pool(&self, kind: &'static str, name: String, spec: &str) -> Result<Pool> {
        let spec: Value = serde_yaml_ng::from_str(spec)?;
        self.create_object(json!({"kind": kind, "metadata": {"name": name}, "spec": spec})).await?;
        Ok(Pool { kind, name })
    }

    async fn create_object(&self, mut object: Value) -> Result<DynamicObject> {
        let kind = object["kind"].as_str().context("an object without kind")?.to_owned();
        let api = self.api(&kind);
        object["apiVersion"] = self.resource(&kind).api_version.into();
        let object: DynamicObject = serde_json::from_value(object)?;
        api.create(&PostParams::default(), &object).await.with_context(|| format!("create {}", as_text(&object)))
    }
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scene({})", self.namespace)
    }
}

/// Merges maps into maps; anything else replaces.
fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

fn as_text(object: &DynamicObject) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_keeps_what_only_one_side_has() {
        let mut base = json!({"metadata": {"name": "web"}, "spec": {"list": [1]}});
        merge(&mut base, json!({"metadata": {"labels": {"a": "b"}}, "spec": {"list": [2]}}));
        assert_eq!(base, json!({"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"list": [2]}}));
    }
}
