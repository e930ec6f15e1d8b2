//! The custom resource definition of sources. Called by [`crate::crds`].

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionSpec,
    CustomResourceDefinitionVersion, JSON, JSONSchemaProps,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use serde_json::json;

use super::names::{CATEGORY, GROUP};
use super::{ClusterExternalIPSource, ClusterExternalIPSourceSpec, ClusterExternalIPSourceStatus, VERSION};
use crate::crds::{column, object, status_subresource};
use crate::schema;

/// The definition: names and schema are those that the kind always had, but for what is optional.
pub(crate) fn definition() -> CustomResourceDefinition {
    let (kind, plural) = (ClusterExternalIPSource::kind(&()), ClusterExternalIPSource::plural(&()));
    CustomResourceDefinition {
        metadata: ObjectMeta { name: Some(format!("{plural}.{GROUP}")), ..ObjectMeta::default() },
        spec: CustomResourceDefinitionSpec {
            group: GROUP.to_owned(),
            names: CustomResourceDefinitionNames {
                categories: Some(vec![CATEGORY.to_owned()]),
                kind: kind.clone().into_owned(),
                list_kind: Some(format!("{kind}List")),
                plural: plural.into_owned(),
                singular: Some(kind.to_lowercase()),
                short_names: Some(vec!["ceips".to_owned()]),
            },
            scope: "Cluster".to_owned(),
            versions: vec![CustomResourceDefinitionVersion {
                name: VERSION.to_owned(),
                served: true,
                storage: true,
                additional_printer_columns: Some(columns()),
                schema: Some(object(
                    "Where the public addresses of Services come from, who may have them, and where they are published.",
                    spec(),
                    schema::of::<ClusterExternalIPSourceStatus>(),
                    &["spec"],
                )),
                subresources: Some(status_subresource()),
                ..CustomResourceDefinitionVersion::default()
            }],
            ..CustomResourceDefinitionSpec::default()
        },
        status: None,
    }
}

/// The spec's schema, with the one default that is a zero value and yet a part of the kind.
fn spec() -> JSONSchemaProps {
    let mut schema = schema::of::<ClusterExternalIPSourceSpec>();
    let families = schema.properties.iter_mut().flatten().filter(|(name, _)| ["ipv4", "ipv6"].contains(&name.as_str()));
    for (_, family) in families {
        let solvers = family.properties.as_mut().and_then(|properties| properties.get_mut("solvers"));
        if let Some(solvers) = solvers {
            solvers.default = Some(JSON(json!([])));
        }
    }
    schema
}

fn columns() -> Vec<CustomResourceColumnDefinition> {
    let wide =
        |name: &str, json_path: &str| CustomResourceColumnDefinition { priority: Some(1), ..column(name, "string", json_path) };
    vec![
        column("Ready", "string", r#".status.conditions[?(@.type=="Ready")].status"#),
        column("IPv4", "string", ".status.ipv4.addresses"),
        column("IPv6", "string", ".status.ipv6.addresses"),
        column("Services", "integer", ".status.services"),
        column("Age", "date", ".metadata.creationTimestamp"),
        wide("Reason", r#".status.conditions[?(@.type=="Ready")].reason"#),
        wide("Degraded", r#".status.conditions[?(@.type=="Degraded")].status"#),
    ]
}
