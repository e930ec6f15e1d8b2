//! The requests of this capability: the address as it is created, the patches of claims and addresses, and what is read of the answers.

use api::capi::{AddressSpec, CapiVersion, IpAddress, IpAddressClaim, LocalRef, PoolRef};
use api::externalip::names::PUBLISHED;
use api::names::{CLUSTER_NAME_LABEL, LOST_ADDRESS, PROTECT_ADDRESS, RELEASE_ADDRESS, WATCH_FILTER_LABEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use kube::core::request::Error;
use poolutil::Span;
use serde::Deserialize;
use serde_json::{Value, json};

use super::compact::{Revision, Uid};
use super::facts::{PoolView, Repair};
use super::owners;
use super::plan::ClaimWrite;
use crate::kit::writes::{Part, Target, WriteRequest, create, delete, json_patch, merge_patch, without_finalizer};

/// A write with its name in metrics.
pub type Request = (Target, Result<WriteRequest, Error>);

/// Builds the requests about one claim and its address.
#[derive(Debug, Clone, Copy)]
pub struct Objects<'a> {
    /// Namespace of both.
    pub namespace: &'a str,
    /// Name of both.
    pub name: &'a str,
    /// The version that is spoken.
    pub version: CapiVersion,
}

impl Objects<'_> {
    fn claim(&self) -> ApiResource {
        IpAddressClaim::api_resource(self.version)
    }

    fn address(&self) -> ApiResource {
        IpAddress::api_resource(self.version)
    }

    /// Creates the address.
    pub fn create_address(
        &self,
        span: Span,
        claim: &Uid,
        label: Option<&str>,
        pool: &PoolView,
        watch_filter: Option<&str>,
    ) -> Request {
        let labels = [label.map(|value| (CLUSTER_NAME_LABEL, value)), watch_filter.map(|value| (WATCH_FILTER_LABEL, value))];
        let labels: std::collections::BTreeMap<String, String> =
            labels.into_iter().flatten().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let meta = ObjectMeta {
            name: Some(self.name.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            labels: (!labels.is_empty()).then_some(labels),
            finalizers: Some(vec![PROTECT_ADDRESS.to_owned()]),
            owner_references: Some(vec![
                owners::claim_reference(self.version, self.name, claim),
                owners::pool_reference(pool.kind, &pool.name, &pool.uid),
            ]),
            ..ObjectMeta::default()
        };
        let spec = AddressSpec {
            claim_ref: LocalRef { name: self.name.to_owned() },
            pool_ref: PoolRef::to(pool.kind, &pool.name),
            address: span.ip().to_string(),
            prefix: Some(pool.prefix),
            gateway: (!pool.gateway.is_empty()).then(|| pool.gateway.clone()),
        };
        let object = IpAddress::new(self.version, meta, spec);
        (Target { verb: "create", resource: "ipaddresses" }, create(&self.address(), Some(self.namespace), &object))
    }

    /// Completes the address.
    pub fn repair_address(&self, revision: &Revision, repair: &Repair) -> Request {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if let Some(owners) = &repair.owners {
            meta["ownerReferences"] = json!(owners);
        }
        if let Some(finalizers) = &repair.finalizers {
            meta["finalizers"] = json!(finalizers);
        }
        for (key, value) in &repair.labels {
            meta["labels"][key] = json!(value);
        }
        Self::patch_address(merge_patch(&self.address(), Some(self.namespace), self.name, Part::Main, &json!({"metadata": meta})))
    }

    /// Deletes the address with this UID, if nobody has changed it since.
    pub fn delete_address(&self, uid: &Uid, revision: &Revision) -> Request {
        let request = delete(&self.address(), Some(self.namespace), self.name, &uid.to_string(), Some(&revision.to_string()));
        (Target { verb: "delete", resource: "ipaddresses" }, request)
    }

    /// Takes our finalizer from the address with this UID; `None` if it is not among its finalizers.
    pub fn unprotect_address(&self, uid: &Uid, finalizers: &[String]) -> Option<Request> {
        let patch = without_finalizer(&uid.to_string(), finalizers, PROTECT_ADDRESS)?;
        Some(Self::patch_address(json_patch(&self.address(), Some(self.namespace), self.name, Part::Main, patch)))
    }

    fn patch_address(request: Result<WriteRequest, Error>) -> Request {
        (Target { verb: "patch", resource: "ipaddresses" }, request)
    }

    /// Sets the claim's finalizers.
    pub fn protect_claim(&self, write: &ClaimWrite) -> Request {
        let patch = json!({"metadata": {"resourceVersion": write.revision.to_string(), "finalizers": write.finalizers}});
        Self::patch_claim(merge_patch(&self.claim(), Some(self.namespace), self.name, Part::Main, &patch))
    }

    /// Writes on the claim that the address with this UID is not to be published.
    pub fn give_up(&self, revision: &Revision, uid: &Uid) -> Request {
        let annotations = json!({LOST_ADDRESS: uid.to_string()});
        let patch = json!({"metadata": {"resourceVersion": revision.to_string(), "annotations": annotations}});
        Self::patch_claim(merge_patch(&self.claim(), Some(self.namespace), self.name, Part::Main, &patch))
    }

    /// Takes our finalizer from the claim with this UID; `None` if it is not among its finalizers.
    pub fn release_claim(&self, uid: &Uid, finalizers: &[String]) -> Option<Request> {
        let patch = without_finalizer(&uid.to_string(), finalizers, RELEASE_ADDRESS)?;
        Some(Self::patch_claim(json_patch(&self.claim(), Some(self.namespace), self.name, Part::Main, patch)))
    }

    /// Takes the finalizer of external IP sources from the claim with this UID; `None` if it is not among its finalizers.
    pub fn unpublish_claim(&self, uid: &Uid, finalizers: &[String]) -> Option<Request> {
        let patch = without_finalizer(&uid.to_string(), finalizers, PUBLISHED)?;
        Some(Self::patch_claim(json_patch(&self.claim(), Some(self.namespace), self.name, Part::Main, patch)))
    }

    fn patch_claim(request: Result<WriteRequest, Error>) -> Request {
        (Target { verb: "patch", resource: "ipaddressclaims" }, request)
    }

    /// Writes the claim's status.
    pub fn claim_status(&self, patch: &Value) -> Request {
        let request = merge_patch(&self.claim(), Some(self.namespace), self.name, Part::Status, patch);
        (Target { verb: "patch", resource: "ipaddressclaims/status" }, request)
    }
}

/// What is of interest in the answer to a write: the object as it is now, or a `Status` without any of it.
#[derive(Debug, Default, Deserialize)]
pub struct Written {
    #[serde(default)]
    metadata: WrittenMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenMeta {
    uid: Option<String>,
    resource_version: Option<String>,
    finalizers: Option<Vec<String>>,
}

impl Written {
    /// Its version.
    pub fn revision(&self) -> Revision {
        Revision::new(self.metadata.resource_version.as_deref().unwrap_or_default())
    }

    /// Its UID.
    pub fn uid(&self) -> Uid {
        Uid::new(self.metadata.uid.as_deref().unwrap_or_default())
    }

    /// Its finalizers, in order.
    pub fn finalizers(&self) -> &[String] {
        self.metadata.finalizers.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn objects() -> Objects<'static> {
        Objects { namespace: "team-a", name: "web-0-eth0", version: CapiVersion::V1beta2 }
    }

    fn pool(gateway: &str) -> PoolView {
        PoolView {
            kind: api::PoolKind::InClusterIPPool,
            name: "blue".to_owned(),
            uid: Uid::new("p1"),
            paused: false,
            deleting: false,
            trouble: None,
            grace: Duration::ZERO,
            prefix: 24,
            gateway: gateway.to_owned(),
            total: String::new(),
            used: 0,
        }
    }

    fn body(request: Request) -> (String, Value) {
        let request = request.1.unwrap();
        (request.uri().path_and_query().unwrap().to_string(), serde_json::from_slice(request.body()).unwrap())
    }

    #[test]
    fn an_address_is_created_in_every_field_as_the_contract_has_it() {
        let span = Span::parse_host("10.0.0.10").unwrap();
        let (path, address) = body(objects().create_address(span, &Uid::new("c1"), Some("blue"), &pool("10.0.0.1"), None));
        assert_eq!(path, "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddresses?&fieldManager=ipam-in-cluster");
        let wanted = json!({
            "apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddress",
            "metadata": {
                "name": "web-0-eth0", "namespace": "team-a",
                "labels": {"cluster.x-k8s.io/cluster-name": "blue"},
                "finalizers": ["ipam.cluster.x-k8s.io/ProtectAddress"],
                "ownerReferences": [
                    {"apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "name": "web-0-eth0", "uid": "c1",
                     "controller": true, "blockOwnerDeletion": true},
                    {"apiVersion": "ipam.cluster.x-k8s.io/v1alpha2", "kind": "InClusterIPPool", "name": "blue", "uid": "p1",
                     "controller": false, "blockOwnerDeletion": true},
                ],
            },
            "spec": {
                "claimRef": {"name": "web-0-eth0"},
                "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"},
                "address": "10.0.0.10", "prefix": 24, "gateway": "10.0.0.1",
            },
        });
        assert_eq!(address, wanted);
    }

    #[test]
    fn empty_labels_and_gateway_are_no_keys() {
        let span = Span::parse_host("10.0.0.10").unwrap();
        let (_, address) = body(objects().create_address(span, &Uid::new("c1"), None, &pool(""), None));
        assert_eq!((address["metadata"].get("labels"), address["spec"].get("gateway")), (None, None));
        let (_, address) = body(objects().create_address(span, &Uid::new("c1"), None, &pool(""), Some("x")));
        assert_eq!(address["metadata"]["labels"], json!({"cluster.x-k8s.io/watch-filter": "x"}));
    }

    #[test]
    fn a_finalizer_is_removed_where_it_stands_and_only_from_the_same_object() {
        let finalizers = ["other".to_owned(), RELEASE_ADDRESS.to_owned()];
        let (_, patch) = body(objects().release_claim(&Uid::new("c1"), &finalizers).unwrap());
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "c1"},
                {"op": "test", "path": "/metadata/finalizers/1", "value": RELEASE_ADDRESS},
                {"op": "remove", "path": "/metadata/finalizers/1"},
            ])
        );
        assert!(objects().unprotect_address(&Uid::new("a1"), &finalizers).is_none());
    }

    #[test]
    fn a_repair_names_the_version_it_was_made_for_and_nothing_it_leaves_alone() {
        let repair = Repair {
            owners: None,
            finalizers: None,
            labels: vec![("a/b".to_owned(), "c".to_owned())],
            untold: false,
            changes_owner: false,
        };
        let (_, patch) = body(objects().repair_address(&Revision::new("7"), &repair));
        assert_eq!(patch, json!({"metadata": {"resourceVersion": "7", "labels": {"a/b": "c"}}}));
    }
}
