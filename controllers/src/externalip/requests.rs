//! The requests of this capability: what each step looks like on the wire, with its preconditions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::capi::{CapiVersion, IpAddressClaim};
use api::externalip::names::{
    CONDITIONS_MANAGER, EXTERNAL_DNS_MANAGER, EXTERNAL_IPS_MANAGER, MANAGED, PUBLISHED, STATUS_MANAGER,
};
use api::externalip::{ClusterExternalIPSource, ClusterExternalIPSourceStatus, IpMode};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::ApiResource;
use kube::core::request::Error;
use serde_json::{Value, json};

use super::facts::ServiceKey;
use super::plan::RecordChange;
use crate::kit::writes::{
    ApplyAs, Part, Target, WriteRequest, apply, apply_status, create, delete, json_patch, merge_patch, merge_patch_as,
    without_finalizer,
};

/// A write with its name in metrics.
pub type Request = (Target, Result<WriteRequest, Error>);

/// Builds the requests about one Service and its claims.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    /// Namespace and name.
    pub key: &'a ServiceKey,
    /// The UID last seen; of a Service that is gone, nothing.
    pub uid: &'a str,
    /// The version that is to be changed.
    pub revision: &'a str,
    /// The version in which claims are written.
    pub capi: CapiVersion,
}

impl Requests<'_> {
    /// Changes the list of addresses, the record, or both at once.
    pub fn patch_service(&self, external_ips: Option<&[String]>, record: Option<&RecordChange>) -> Request {
        let mut patch = json!({"metadata": {"uid": self.uid, "resourceVersion": self.revision}});
        if let Some(record) = record {
            let text = match record {
                RecordChange::Set(text) => Some(text),
                RecordChange::Remove => None,
            };
            patch["metadata"]["annotations"] = json!({MANAGED: text});
        }
        if let Some(list) = external_ips {
            patch["spec"] = json!({"externalIPs": if list.is_empty() { Value::Null } else { json!(list) }});
        }
        let at = (Some(self.key.namespace.as_str()), self.key.name.as_str());
        let request = merge_patch_as(EXTERNAL_IPS_MANAGER, &services(), at.0, at.1, Part::Main, &patch);
        (Target { verb: "patch", resource: "services" }, request)
    }

    /// Sets exactly these annotations for external-dns, and gives up the others.
    pub fn apply_target(&self, annotations: &BTreeMap<String, String>) -> Request {
        let by = ApplyAs { manager: EXTERNAL_DNS_MANAGER, force: false };
        let mut object = self.applied();
        object["metadata"]["uid"] = json!(self.uid);
        if !annotations.is_empty() {
            object["metadata"]["annotations"] = json!(annotations);
        }
        self.apply(by, Part::Main, &object)
    }

    /// Sets exactly this ingress list, or gives it up.
    pub fn apply_ingress(&self, ingress: Option<&[(IpAddr, IpMode)]>) -> Request {
        let mut object = self.applied();
        if let Some(list) = ingress {
            let entry = |(ip, mode): &(IpAddr, IpMode)| json!({"ip": ip.to_string(), "ipMode": mode.as_str()});
            let list: Vec<_> = list.iter().map(entry).collect();
            object["status"] = json!({"loadBalancer": {"ingress": list}});
        }
        self.apply(ApplyAs { manager: STATUS_MANAGER, force: true }, Part::Status, &object)
    }

    /// Sets exactly these conditions of ours.
    pub fn apply_conditions(&self, conditions: &[Condition]) -> Request {
        let mut object = self.applied();
        if !conditions.is_empty() {
            object["status"] = json!({"conditions": conditions});
        }
        self.apply(ApplyAs { manager: CONDITIONS_MANAGER, force: true }, Part::Status, &object)
    }

    fn applied(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": self.key.namespace, "name": self.key.name, "resourceVersion": self.revision},
        })
    }

    fn apply(&self, by: ApplyAs, part: Part, object: &Value) -> Request {
        let resource = if part == Part::Main { "services" } else { "services/status" };
        let request = apply(by, &services(), Some(&self.key.namespace), &self.key.name, part, object);
        (Target { verb: "patch", resource }, request)
    }

    /// Creates a claim.
    pub fn create_claim(&self, object: &Value) -> Request {
        let mut object = object.clone();
        let resource = self.claims();
        object["apiVersion"] = json!(resource.api_version);
        object["kind"] = json!(resource.kind);
        (Target { verb: "create", resource: "ipaddressclaims" }, create(&resource, Some(&self.key.namespace), &object))
    }

    /// Makes the Service the owner of a claim.
    pub fn adopt_claim(&self, name: &str, uid: &str, revision: &str, owner: &Value) -> Request {
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": revision, "ownerReferences": owner}});
        patch_claim(merge_patch(&self.claims(), Some(&self.key.namespace), name, Part::Main, &patch))
    }

    /// Deletes a claim.
    pub fn delete_claim(&self, name: &str, uid: &str) -> Request {
        (
            Target { verb: "delete", resource: "ipaddressclaims" },
            delete(&self.claims(), Some(&self.key.namespace), name, uid, None),
        )
    }

    /// Takes our finalizer from a claim; `None` if it is not among its finalizers.
    pub fn free_claim(&self, name: &str, uid: &str, finalizers: &[String]) -> Option<Request> {
        let patch = without_finalizer(uid, finalizers, PUBLISHED)?;
        Some(patch_claim(json_patch(&self.claims(), Some(&self.key.namespace), name, Part::Main, patch)))
    }

    fn claims(&self) -> ApiResource {
        IpAddressClaim::api_resource(self.capi)
    }
}

/// Sets the status of a source.
pub fn source_status(name: &str, status: &ClusterExternalIPSourceStatus) -> Request {
    let resource = ApiResource::erase::<ClusterExternalIPSource>(&());
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "status": status,
    });
    let request = apply_status(&resource, None, name, &object);
    (Target { verb: "patch", resource: "clusterexternalipsources/status" }, request)
}

fn patch_claim(request: Result<WriteRequest, Error>) -> Request {
    (Target { verb: "patch", resource: "ipaddressclaims" }, request)
}

fn services() -> ApiResource {
    ApiResource::erase::<Service>(&())
}
