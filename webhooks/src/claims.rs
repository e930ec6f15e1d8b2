//! The finalizer of a new claim, which saves the write that would add it later. Called by the listener.

use api::PoolKind;
use api::capi::IpAddressClaim;
use api::names::{DELETE_FOR_MOVE, IPAM_GROUP, PAUSED, RELEASE_ADDRESS, WATCH_FILTER_LABEL};
use serde::Deserialize;
use serde_json::json;

use crate::review::{Answer, Operation, Outcome, Request};
use crate::server::Scope;

/// Adds our finalizer to a claim that this manager will serve. It never refuses: what is not understood passes as it is.
pub fn mutate(request: &Request, scope: &Scope) -> Answer {
    let object =
        request.object.as_ref().filter(|object| request.operation == Operation::Create && object["metadata"].is_object());
    let claim = object.and_then(|object| IpAddressClaim::deserialize(object).ok());
    let Some(claim) = claim.filter(|claim| is_served(claim, &request.namespace, scope)) else { return Answer::admitted() };
    let operations = match claim.metadata.finalizers {
        Some(finalizers) if finalizers.iter().any(|finalizer| finalizer == RELEASE_ADDRESS) => return Answer::admitted(),
        Some(_) => json!([{ "op": "add", "path": "/metadata/finalizers/-", "value": RELEASE_ADDRESS }]),
        None => json!([{ "op": "add", "path": "/metadata/finalizers", "value": [RELEASE_ADDRESS] }]),
    };
    Answer { outcome: Outcome::Patched(operations), warnings: Vec::new() }
}

fn is_served(claim: &IpAddressClaim, namespace: &str, scope: &Scope) -> bool {
    let Scope { namespace: only, watch_filter } = scope;
    let metadata = &claim.metadata;
    let has = |annotation: &str| metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(annotation));
    let filter = metadata.labels.as_ref().and_then(|labels| labels.get(WATCH_FILTER_LABEL));
    let reference = &claim.spec.pool_ref;
    reference.api_group.as_deref() == Some(IPAM_GROUP)
        && PoolKind::from_kind(&reference.kind).is_some()
        && only.as_ref().is_none_or(|only| only == namespace)
        && watch_filter.as_ref().is_none_or(|wanted| filter == Some(wanted))
        && metadata.deletion_timestamp.is_none()
        && !has(PAUSED)
        && !has(DELETE_FOR_MOVE)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::review::GroupVersionKind;

    fn claim() -> Value {
        json!({
            "apiVersion": "ipam.cluster.x-k8s.io/v1beta2",
            "kind": "IPAddressClaim",
            "metadata": {"name": "web", "namespace": "team-a", "labels": {"cluster.x-k8s.io/watch-filter": "x"}},
            "spec": {"poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "GlobalInClusterIPPool", "name": "blue"}},
        })
    }

    fn ask(operation: Operation, object: Value, scope: &Scope) -> Answer {
        let (group, version, kind) = (IPAM_GROUP.to_owned(), "v1beta2".to_owned(), "IPAddressClaim".to_owned());
        let request = Request {
            uid: "u".to_owned(),
            kind: GroupVersionKind { group, version, kind },
            name: "web".to_owned(),
            namespace: "team-a".to_owned(),
            operation,
            object: Some(object),
            old_object: None,
        };
        mutate(&request, scope)
    }

    fn with(path: &str, value: Value) -> Value {
        let mut claim = claim();
        let (parent, key) = path.rsplit_once('/').unwrap();
        claim.pointer_mut(parent).unwrap()[key] = value;
        claim
    }

    #[test]
    fn a_claim_of_ours_gets_the_finalizer_behind_those_it_has() {
        for (claim, operation) in [
            (claim(), json!({"op": "add", "path": "/metadata/finalizers", "value": ["ipam.cluster.x-k8s.io/ReleaseAddress"]})),
            (
                with("/metadata/finalizers", json!(["infra/Machine"])),
                json!({"op": "add", "path": "/metadata/finalizers/-", "value": "ipam.cluster.x-k8s.io/ReleaseAddress"}),
            ),
        ] {
            let answer = ask(Operation::Create, claim, &Scope::default());
            assert_eq!(answer.outcome, Outcome::Patched(json!([operation])));
        }
    }

    #[test]
    fn every_version_of_a_claim_is_read() {
        for version in crate::registration::CLAIM_VERSIONS {
            let claim = with("/apiVersion", json!(format!("{IPAM_GROUP}/{version}")));
            assert_ne!(ask(Operation::Create, claim, &Scope::default()), Answer::admitted());
        }
    }

    #[test]
    fn claims_in_scope_get_it() {
        let scope = |namespace: &str, filter: &str| Scope {
            namespace: Some(namespace.to_owned()).filter(|text| !text.is_empty()),
            watch_filter: Some(filter.to_owned()).filter(|text| !text.is_empty()),
        };
        for (scope, served) in
            [(scope("", ""), true), (scope("team-a", "x"), true), (scope("team-b", ""), false), (scope("", "y"), false)]
        {
            assert_eq!(ask(Operation::Create, claim(), &scope) != Answer::admitted(), served, "{scope:?}");
        }
        let bare = with("/metadata/labels", json!({}));
        assert_eq!(ask(Operation::Create, bare, &scope("", "x")), Answer::admitted());
    }

    #[test]
    fn everything_else_passes_as_it_is() {
        for (operation, object) in [
            (Operation::Update, claim()),
            (Operation::Create, with("/metadata/finalizers", json!(["ipam.cluster.x-k8s.io/ReleaseAddress"]))),
            (Operation::Create, with("/metadata/annotations", json!({"cluster.x-k8s.io/paused": ""}))),
            (Operation::Create, with("/metadata/annotations", json!({"clusterctl.cluster.x-k8s.io/delete-for-move": ""}))),
            (Operation::Create, with("/metadata/deletionTimestamp", json!("2026-01-31T10:00:00Z"))),
            (Operation::Create, with("/spec/poolRef/apiGroup", json!(""))),
            (Operation::Create, with("/spec/poolRef/apiGroup", json!("ipam.example.com"))),
            (Operation::Create, with("/spec/poolRef/kind", json!("InfobloxIPPool"))),
            (Operation::Create, with("/spec/poolRef", json!(7))),
            (Operation::Create, with("/metadata/finalizers", json!("x"))),
            (Operation::Create, json!({"spec": claim()["spec"]})),
            (Operation::Create, json!("garbage")),
        ] {
            assert_eq!(ask(operation, object.clone(), &Scope::default()), Answer::admitted(), "{object}");
        }
    }
}
