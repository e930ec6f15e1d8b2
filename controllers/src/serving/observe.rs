//! Reads the Secret and the registrations.

use api::PoolKind;
use api::names::{FIELD_MANAGER, IPAM_GROUP, PROVIDER_LABEL};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;

use super::plan::{Registration, Stored};
use super::{Context, Pair, SECRET, ServingError};
use crate::kit::writes::Target;

/// Annotations with the time of the next renewal.
pub(super) const AUTHORITY_RENEWAL: &str = "in-cluster.ipam.cluster.x-k8s.io/authority-renewal";
pub(super) const CERTIFICATE_RENEWAL: &str = "in-cluster.ipam.cluster.x-k8s.io/certificate-renewal";

/// What the Secret holds, if there is one.
pub(super) async fn stored(context: &Context) -> Result<Option<Stored>, ServingError> {
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let target = Target { verb: "get", resource: "secrets" };
    let path = format!("/api/v1/namespaces/{}/secrets/{SECRET}", context.namespace);
    let found = context.writer.read(target, &path, api.get_opt(SECRET)).await?;
    Ok(found.map(|secret| read(&secret)))
}

fn read(secret: &Secret) -> Stored {
    let bytes = |key: &str| secret.data.as_ref()?.get(key).map(|bytes| bytes.0.clone()).filter(|bytes| !bytes.is_empty());
    let text = |key: &str| bytes(key).and_then(|bytes| String::from_utf8(bytes).ok());
    let renewal = |name: &str| -> Option<Timestamp> { secret.metadata.annotations.as_ref()?.get(name)?.parse().ok() };
    Stored {
        resource_version: secret.metadata.resource_version.clone().unwrap_or_default(),
        bundle: text("ca.crt"),
        authority_key: text("ca.key"),
        authority_renewal: renewal(AUTHORITY_RENEWAL),
        pair: bytes("tls.crt").zip(bytes("tls.key")).map(|(certificate, key)| Pair { certificate, key }),
        certificate_renewal: renewal(CERTIFICATE_RENEWAL),
    }
}

/// Everything that may name our webhooks: the provider's webhook configurations, and the pools' definitions.
pub(super) async fn registrations(context: &Context) -> Result<Vec<Registration>, ServingError> {
    let mut registrations = Vec::new();
    let of_provider = ListParams::default().labels(&format!("{PROVIDER_LABEL}={FIELD_MANAGER}"));
    for (kind, plural) in [
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ] {
        let resource = resource("admissionregistration.k8s.io", kind, plural);
        let api = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
        let target = Target { verb: "list", resource: plural };
        let path = format!("/apis/{}/{plural}", resource.api_version);
        let found = context.writer.read(target, &path, api.list(&of_provider)).await?;
        registrations.extend(found.into_iter().map(|object| Registration { resource: resource.clone(), plural, object }));
    }
    let plural = "customresourcedefinitions";
    let resource = resource("apiextensions.k8s.io", "CustomResourceDefinition", plural);
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
    for pool in PoolKind::ALL {
        let name = format!("{}.{IPAM_GROUP}", pool.plural());
        let target = Target { verb: "get", resource: plural };
        let path = format!("/apis/{}/{plural}/{name}", resource.api_version);
        let found = context.writer.read(target, &path, api.get_opt(&name)).await?;
        registrations.extend(found.map(|object| Registration { resource: resource.clone(), plural, object }));
    }
    Ok(registrations)
}

fn resource(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: "v1".to_owned(),
        api_version: format!("{group}/v1"),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}
