//! How the structs of this crate read and write single fields: one odd object must never stop a watch.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::names::FIELD_MANAGER;

/// Reads `null` as if the key were missing. Pools that an older converter stored hold `addresses: null`.
pub(crate) fn null_is_absent<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether an optional number is left out when written.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Metadata without what nobody here reads. Most of an object's text is managed fields: of these only our own entries are kept, and of
/// them only that we wrote a spec, and which owners.
pub(crate) fn slim_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let slim = SlimMeta::deserialize(deserializer)?;
    let managed: Vec<_> = slim.managed_fields.into_iter().flatten().filter_map(SlimEntry::ours).collect();
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        generation: slim.generation,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        finalizers: slim.finalizers,
        owner_references: slim.owner_references,
        labels: slim.labels,
        annotations: slim.annotations,
        managed_fields: (!managed.is_empty()).then_some(managed),
        ..ObjectMeta::default()
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    managed_fields: Option<Vec<SlimEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SlimEntry {
    manager: Option<String>,
    fields_v1: Option<SlimFields>,
}

#[derive(Deserialize)]
struct SlimFields {
    #[serde(rename = "f:spec")]
    spec: Option<IgnoredAny>,
    #[serde(rename = "f:metadata")]
    metadata: Option<SlimMetaFields>,
}

#[derive(Deserialize)]
struct SlimMetaFields {
    #[serde(rename = "f:ownerReferences")]
    owners: Option<Map<String, Value>>,
}

impl SlimEntry {
    fn ours(self) -> Option<ManagedFieldsEntry> {
        let manager = self.manager.filter(|manager| manager == FIELD_MANAGER)?;
        let SlimFields { spec, metadata } = self.fields_v1?;
        let mut fields = Map::new();
        if spec.is_some() {
            fields.insert("f:spec".to_owned(), Value::Object(Map::new()));
        }
        if let Some(owners) = metadata.and_then(|metadata| metadata.owners) {
            let metadata = Map::from_iter([("f:ownerReferences".to_owned(), Value::Object(owners))]);
            fields.insert("f:metadata".to_owned(), Value::Object(metadata));
        }
        let fields_v1 = Some(FieldsV1(Value::Object(fields)));
        Some(ManagedFieldsEntry { manager: Some(manager), fields_v1, ..ManagedFieldsEntry::default() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::capi::IpAddress;

    #[test]
    fn of_managed_fields_only_our_spec_and_owners_are_kept() {
        let owners = json!({".": {}, "k:{\"uid\":\"c1\"}": {}});
        let object = json!({"metadata": {
            "name": "a", "namespace": "b", "uid": "c", "resourceVersion": "1", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-02T00:00:00Z",
            "finalizers": ["f"], "labels": {"l": "m"}, "annotations": {"n": "o"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "k", "name": "o", "uid": "c1", "controller": true}],
            "managedFields": [
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:address": {}}}},
                {"manager": "ipam-in-cluster", "operation": "Update", "fieldsV1": {
                    "f:spec": {"f:address": {}}, "f:metadata": {"f:finalizers": {".": {}}, "f:ownerReferences": owners}}},
            ],
        }});
        let mut expected = object["metadata"].clone();
        expected["managedFields"] = json!([{"manager": "ipam-in-cluster",
            "fieldsV1": {"f:spec": {}, "f:metadata": {"f:ownerReferences": owners}}}]);
        let read: IpAddress = serde_json::from_value(object).unwrap();
        assert_eq!(serde_json::to_value(read.metadata).unwrap(), expected);
    }
}
