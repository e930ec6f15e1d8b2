//! What to renew, and where to write the authority: every rule of it.

use jiff::Timestamp;
use json_patch::{Patch, PatchOperation};
use k8s_openapi::ByteString;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::Pair;

/// What a plan stands on.
pub(super) struct Facts {
    /// What the Secret holds, if there is one.
    pub(super) stored: Option<Stored>,
    /// What may name our webhooks.
    pub(super) registrations: Vec<Registration>,
    /// Behind which the webhooks are.
    pub(super) service: Service,
}

/// What the Secret holds. Any part may be missing: it may have been written by somebody else.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) resource_version: String,
    /// The authorities to trust, the one that signs first.
    pub(super) bundle: Option<String>,
    pub(super) authority_key: Option<String>,
    pub(super) authority_renewal: Option<Timestamp>,
    pub(super) pair: Option<Pair>,
    pub(super) certificate_renewal: Option<Timestamp>,
}

/// The name of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// An object that tells the API server of webhooks, ours or not.
pub(super) struct Registration {
    pub(super) resource: ApiResource,
    pub(super) plural: &'static str,
    pub(super) object: DynamicObject,
}

/// What to do. The patches come first.
pub(super) struct Plan {
    /// By the index of the registration.
    pub(super) patches: Vec<(usize, Patch)>,
    pub(super) step: Step,
}

/// What to do to the Secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Keep,
    /// Make all of it: there is nothing yet that could be served with.
    Begin,
    /// Make an authority, and trust the earlier one beside it. What is served stays.
    RenewAuthority,
    /// Make a certificate, signed by the authority that there is.
    RenewCertificate,
}

/// 1. Write the authorities where our Service is named and they are not.
/// 2. Without a certificate, begin.
/// 3. Renew an authority whose time has come.
/// 4. Renew a certificate whose time has come, once its authority is trusted everywhere.
pub(super) fn plan(facts: &Facts, now: Timestamp) -> Plan {
    let bundle = facts.stored.as_ref().and_then(|stored| stored.bundle.as_deref());
    let patches: Vec<_> = match bundle {
        Some(bundle) => {
            let objects = facts.registrations.iter().enumerate();
            objects.filter_map(|(index, found)| Some((index, patch(&found.object.data, &facts.service, bundle)?))).collect()
        }
        None => Vec::new(),
    };
    let step = step(facts.stored.as_ref(), patches.is_empty(), now);
    Plan { patches, step }
}

fn step(stored: Option<&Stored>, is_trusted: bool, now: Timestamp) -> Step {
    let is_due = |renewal: Option<Timestamp>| renewal.is_none_or(|renewal| renewal <= now);
    let Some(stored) = stored.filter(|stored| stored.pair.is_some()) else { return Step::Begin };
    if stored.bundle.is_none() || stored.authority_key.is_none() || is_due(stored.authority_renewal) {
        Step::RenewAuthority
    } else if is_due(stored.certificate_renewal) && is_trusted {
        Step::RenewCertificate
    } else {
        Step::Keep
    }
}

/// Writes `bundle` into every client configuration that names `service`, in the state in which it was read.
fn patch(object: &Value, service: &Service, bundle: &str) -> Option<Patch> {
    let bundle = json!(ByteString(bundle.as_bytes().to_vec()));
    let webhooks = object["webhooks"].as_array().map_or(0, Vec::len);
    let places = (0..webhooks).map(|index| format!("/webhooks/{index}/clientConfig"));
    let places = places.chain(["/spec/conversion/webhook/clientConfig".to_owned()]);
    let operations: Vec<Value> = places
        .filter_map(|place| {
            let config = object.pointer(&place)?;
            let named = &config["service"];
            let is_ours = named["name"] == *service.name && named["namespace"] == *service.namespace;
            (is_ours && config["caBundle"] != bundle).then(|| {
                [
                    json!({"op": "test", "path": format!("{place}/service"), "value": named}),
                    json!({"op": "add", "path": format!("{place}/caBundle"), "value": bundle}),
                ]
            })
        })
        .flatten()
        .collect();
    let operations = operations.into_iter().filter_map(|operation| serde_json::from_value::<PatchOperation>(operation).ok());
    Some(Patch(operations.collect())).filter(|patch| !patch.0.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-06-01T00:00:00Z";
    const BEFORE: &str = "2026-05-31T23:59:59Z";
    const AFTER: &str = "2026-06-01T00:00:01Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn stored(authority_renewal: &str, certificate_renewal: &str) -> Stored {
        Stored {
            resource_version: "7".to_owned(),
            bundle: Some("authority".to_owned()),
            authority_key: Some("key".to_owned()),
            authority_renewal: Some(time(authority_renewal)),
            pair: Some(Pair { certificate: b"certificate".to_vec(), key: b"key".to_vec() }),
            certificate_renewal: Some(time(certificate_renewal)),
        }
    }

    fn service() -> Service {
        Service { namespace: "system".to_owned(), name: "webhooks".to_owned() }
    }

    #[test]
    fn what_is_due_is_renewed_the_authority_first() {
        for (authority, certificate, is_trusted, expected) in [
            (AFTER, AFTER, true, Step::Keep),
            (AFTER, AFTER, false, Step::Keep),
            (AFTER, BEFORE, true, Step::RenewCertificate),
            (AFTER, NOW, true, Step::RenewCertificate),
            (AFTER, BEFORE, false, Step::Keep),
            (BEFORE, AFTER, true, Step::RenewAuthority),
            (BEFORE, BEFORE, true, Step::RenewAuthority),
            (NOW, BEFORE, false, Step::RenewAuthority),
        ] {
            let found = step(Some(&stored(authority, certificate)), is_trusted, time(NOW));
            assert_eq!(found, expected, "{authority} {certificate} {is_trusted}");
        }
    }

    #[test]
    fn what_is_missing_is_made_and_what_serves_stays_meanwhile() {
        let whole = stored(AFTER, AFTER);
        for (found, expected) in [
            (None, Step::Begin),
            (Some(Stored { pair: None, ..whole.clone() }), Step::Begin),
            (Some(Stored { bundle: None, ..whole.clone() }), Step::RenewAuthority),
            (Some(Stored { authority_key: None, ..whole.clone() }), Step::RenewAuthority),
            (Some(Stored { authority_renewal: None, ..whole.clone() }), Step::RenewAuthority),
            (Some(Stored { certificate_renewal: None, ..whole }), Step::RenewCertificate),
        ] {
            assert_eq!(step(found.as_ref(), true, time(NOW)), expected, "{found:?}");
        }
    }

    fn config(namespace: &str, name: &str) -> Value {
        json!({"clientConfig": {"service": {"namespace": namespace, "name": name, "path": "/x"}}})
    }

    #[test]
    fn only_entries_that_name_our_service_get_the_authority() {
        let mut current = config("system", "webhooks");
        current["clientConfig"]["caBundle"] = json!(ByteString(b"authority".to_vec()));
        let mut stale = config("system", "webhooks");
        stale["clientConfig"]["caBundle"] = json!(ByteString(b"earlier".to_vec()));
        let by_url = json!({"clientConfig": {"url": "https://webhooks.system.svc/x"}});
        let object = json!({"webhooks": [
            config("system", "webhooks"), config("system", "others"), config("other", "webhooks"), current, stale, by_url,
        ]});
        let bundle = json!(ByteString(b"authority".to_vec()));
        let named = json!({"namespace": "system", "name": "webhooks", "path": "/x"});
        let expected = json!([
            {"op": "test", "path": "/webhooks/0/clientConfig/service", "value": named},
            {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle},
            {"op": "test", "path": "/webhooks/4/clientConfig/service", "value": named},
            {"op": "add", "path": "/webhooks/4/clientConfig/caBundle", "value": bundle},
        ]);
        assert_eq!(json!(patch(&object, &service(), "authority").unwrap()), expected);

        let definition = json!({"spec": {"conversion": {"strategy": "Webhook", "webhook": config("system", "webhooks")}}});
        let place = "/spec/conversion/webhook/clientConfig";
        let expected = json!([
            {"op": "test", "path": format!("{place}/service"), "value": named},
            {"op": "add", "path": format!("{place}/caBundle"), "value": bundle},
        ]);
        assert_eq!(json!(patch(&definition, &service(), "authority").unwrap()), expected);
        for nothing_of_ours in [json!({}), json!({"spec": {"conversion": {"strategy": "None"}}}), json!({"webhooks": []})] {
            assert_eq!(patch(&nothing_of_ours, &service(), "authority"), None);
        }
    }
}
