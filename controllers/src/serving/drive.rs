//! Writes the authority into registrations, and what is renewed into the Secret.

use std::collections::BTreeMap;

use api::names::{FIELD_MANAGER, PROVIDER_LABEL};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::ObjectMeta;
use kube::core::ApiResource;

use super::observe::{AUTHORITY_RENEWAL, CERTIFICATE_RENEWAL};
use super::plan::{Facts, Plan, Registration, Step, Stored};
use super::{Context, SECRET, ServingError, issue};
use crate::kit::writes::{IgnoredAny, Part, Priority, Target, WriteRequest, create, json_patch, merge_patch};

/// Carries a plan out.
pub(super) async fn drive(context: &Context, facts: &Facts, plan: Plan) -> Result<(), ServingError> {
    for (index, patch) in plan.patches {
        let Registration { resource, plural, object } = &facts.registrations[index];
        let name = object.name_any();
        let request = json_patch(resource, None, &name, Part::Main, patch)?;
        send(context, Target { verb: "patch", resource: plural }, request).await?;
        tracing::info!(kind = resource.kind, name, "told the API server of the webhooks' authority");
    }
    if plan.step != Step::Keep {
        renew(context, facts, plan.step).await?;
        tracing::info!(secret = SECRET, step = ?plan.step, "renewed what the webhooks serve with");
    }
    Ok(())
}

async fn renew(context: &Context, facts: &Facts, step: Step) -> Result<(), ServingError> {
    let stored = facts.stored.as_ref();
    let Changes { data, annotations } = changes(facts, step, Timestamp::now())?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            resource_version: stored.map(|stored| stored.resource_version.clone()),
            labels: Some(BTreeMap::from([(PROVIDER_LABEL.to_owned(), FIELD_MANAGER.to_owned())])),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: stored.is_none().then(|| "kubernetes.io/tls".to_owned()),
        ..Secret::default()
    };
    let (resource, namespace) = (ApiResource::erase::<Secret>(&()), Some(context.namespace.as_str()));
    let (verb, request) = match stored {
        None => ("create", create(&resource, namespace, &secret)?),
        Some(_) => ("patch", merge_patch(&resource, namespace, SECRET, Part::Main, &secret)?),
    };
    send(context, Target { verb, resource: "secrets" }, request).await
}

/// What changes in the Secret.
#[derive(Default)]
struct Changes {
    data: BTreeMap<String, ByteString>,
    annotations: BTreeMap<String, String>,
}

impl Changes {
    fn set(&mut self, names: [&str; 2], texts: [String; 2], renewal: (&str, Timestamp)) {
        self.data.extend(names.into_iter().zip(texts).map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes()))));
        self.annotations.insert(renewal.0.to_owned(), renewal.1.to_string());
    }
}

fn changes(facts: &Facts, step: Step, now: Timestamp) -> Result<Changes, ServingError> {
    let stored = facts.stored.as_ref();
    let mut changes = Changes::default();
    let mut authority_key = stored.and_then(|stored: &Stored| stored.authority_key.clone());
    if matches!(step, Step::Begin | Step::RenewAuthority) {
        let made = issue::authority(now)?;
        let bundle = issue::bundle(&made.certificate, stored.and_then(|stored| stored.bundle.as_deref()));
        authority_key = Some(made.key.clone());
        changes.set(["ca.crt", "ca.key"], [bundle, made.key], (AUTHORITY_RENEWAL, made.renewal));
    }
    if let (Step::Begin | Step::RenewCertificate, Some(key)) = (step, authority_key) {
        let made = issue::certificate(&facts.service, &key, now)?;
        changes.set(["tls.crt", "tls.key"], [made.certificate, made.key], (CERTIFICATE_RENEWAL, made.renewal));
    }
    Ok(changes)
}

async fn send(context: &Context, target: Target, request: WriteRequest) -> Result<(), ServingError> {
    context.writer.send::<IgnoredAny>(Priority::Repair, target, request, || true).await?;
    Ok(())
}
