//! The complete custom resource definitions, for `manager manifests` and for tests that install them.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion, CustomResourceSubresourceStatus, CustomResourceSubresources, CustomResourceValidation,
    JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names::{CONTRACT_LABELS, IPAM_GROUP, MOVE_HIERARCHY_LABEL};
use crate::pool::{PoolKind, PoolSpec};
use crate::{externalip, schema, v1alpha1, v1alpha2};

/// The definitions of all pool kinds, in the order of [`PoolKind::ALL`], and of external IP sources.
///
/// They name no conversion: an API server then serves both versions without changing the objects. Whoever installs
/// the webhooks adds it.
///
/// ```
/// let names: Vec<_> = api::crds::crds().into_iter().filter_map(|crd| crd.metadata.name).collect();
/// assert_eq!(names[0], "inclusterippools.ipam.cluster.x-k8s.io");
/// ```
pub fn crds() -> Vec<CustomResourceDefinition> {
    PoolKind::ALL.into_iter().map(definition).chain([externalip::definition()]).collect()
}

fn definition(pool: PoolKind) -> CustomResourceDefinition {
    let mut labels = BTreeMap::from([(MOVE_HIERARCHY_LABEL.to_owned(), String::new())]);
    labels.extend(CONTRACT_LABELS.map(|contract| (contract.to_owned(), v1alpha2::VERSION.to_owned())));

    CustomResourceDefinition {
        metadata: ObjectMeta {
            name: Some(format!("{}.{IPAM_GROUP}", pool.plural())),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: CustomResourceDefinitionSpec {
            group: IPAM_GROUP.to_owned(),
            names: CustomResourceDefinitionNames {
                categories: Some(vec!["cluster-api".to_owned()]),
                kind: pool.kind().to_owned(),
                list_kind: Some(format!("{}List", pool.kind())),
                plural: pool.plural().to_owned(),
                singular: Some(pool.singular().to_owned()),
                short_names: None,
            },
            scope: if pool.is_global() { "Cluster" } else { "Namespaced" }.to_owned(),
            versions: if pool.is_prefix() {
                vec![stored::<v1alpha2::PrefixPoolSpec>(pool, column("Prefixes", "string", ".spec.prefixes"))]
            } else {
                vec![deprecated(pool), stored::<v1alpha2::IpPoolSpec>(pool, column("Addresses", "string", ".spec.addresses"))]
            },
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

/// The version in etcd; `source` is the column that shows what the pool consists of.
fn stored<S: PoolSpec>(pool: PoolKind, source: CustomResourceColumnDefinition) -> CustomResourceDefinitionVersion {
    CustomResourceDefinitionVersion {
        served: true,
        storage: true,
        additional_printer_columns: Some([vec![source], counts()].concat()),
        ..version::<S>(pool)
    }
}

fn deprecated(pool: PoolKind) -> CustomResourceDefinitionVersion {
    let mut columns = vec![
        column("Subnet", "string", ".spec.subnet"),
        column("First", "string", ".spec.start"),
        column("Last", "string", ".spec.end"),
    ];
    if !pool.is_global() {
        columns.push(column("Addresses", "string", ".spec.addresses"));
    }
    columns.extend(counts());

    CustomResourceDefinitionVersion {
        served: true,
        storage: false,
        deprecated: Some(true),
        additional_printer_columns: Some(columns),
        ..version::<v1alpha1::IpPoolSpec>(pool)
    }
}

fn counts() -> Vec<CustomResourceColumnDefinition> {
    vec![
        column("Total", "integer", ".status.ipAddresses.total"),
        column("Free", "integer", ".status.ipAddresses.free"),
        column("Used", "integer", ".status.ipAddresses.used"),
    ]
}

/// A column of `kubectl get`.
pub(crate) fn column(name: &str, type_: &str, json_path: &str) -> CustomResourceColumnDefinition {
    CustomResourceColumnDefinition {
        name: name.to_owned(),
        type_: type_.to_owned(),
        json_path: json_path.to_owned(),
        ..CustomResourceColumnDefinition::default()
    }
}

fn version<S: PoolSpec>(pool: PoolKind) -> CustomResourceDefinitionVersion {
    let description = match (pool.is_prefix(), pool.is_global()) {
        (false, false) => "A set of IP addresses for the claims of its namespace.",
        (false, true) => "A set of IP addresses for the claims of all namespaces.",
        (true, false) => "A set of IPv6 prefixes for the claims of its namespace.",
        (true, true) => "A set of IPv6 prefixes for the claims of all namespaces.",
    };
    CustomResourceDefinitionVersion {
        name: S::VERSION.to_owned(),
        schema: Some(object(description, schema::of::<S>(), schema::of::<S::Status>(), &[])),
        subresources: Some(status_subresource()),
        ..CustomResourceDefinitionVersion::default()
    }
}

/// The schema of a whole object.
pub(crate) fn object(
    description: &str,
    spec: JSONSchemaProps,
    status: JSONSchemaProps,
    required: &[&str],
) -> CustomResourceValidation {
    let properties = [
        ("apiVersion", text("Group and version that this object is written in.")),
        ("kind", text("The kind of this object.")),
        ("metadata", JSONSchemaProps { type_: Some("object".to_owned()), ..JSONSchemaProps::default() }),
        ("spec", spec),
        ("status", status),
    ];
    CustomResourceValidation {
        open_api_v3_schema: Some(JSONSchemaProps {
            type_: Some("object".to_owned()),
            description: Some(description.to_owned()),
            properties: Some(properties.map(|(name, schema)| (name.to_owned(), schema)).into()),
            required: (!required.is_empty()).then(|| required.iter().map(ToString::to_string).collect()),
            ..JSONSchemaProps::default()
        }),
    }
}

/// A status of its own, and nothing to scale.
pub(crate) fn status_subresource() -> CustomResourceSubresources {
    CustomResourceSubresources { status: Some(CustomResourceSubresourceStatus(serde_json::json!({}))), scale: None }
}

fn text(description: &str) -> JSONSchemaProps {
    JSONSchemaProps { type_: Some("string".to_owned()), description: Some(description.to_owned()), ..JSONSchemaProps::default() }
}
