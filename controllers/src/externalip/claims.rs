//! Claims on pools for Services: their names, whose they are, and what they look like (§9 of the specification).

use std::net::IpAddr;

use api::externalip::PoolRef;
use api::externalip::names::{PUBLISHED, SERVICE_LABEL};
use api::names::{IPAM_GROUP, REQUESTED_ADDRESS, WATCH_FILTER_LABEL};
use poolutil::Family;
use serde_json::{Map, Value, json};

use super::facts::{ClaimFacts, Rules, ServiceFacts, ServiceKey};
use super::provenance::eight_hex;

/// The name of the claim for a Service's address of a family from a pool. However many solvers name that pool, it is one claim.
pub fn name(service: &str, family: Family, pool: &PoolRef) -> String {
    let digit = match family {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    format!("{service}-ext{digit}-{}", eight_hex(&format!("{IPAM_GROUP}/{}/{}", pool.kind.kind(), pool.name)))
}

/// The Service that a claim is for: the one that our label names, else the one that its name is made for.
pub fn service_of<'a>(claim: &'a str, label: Option<&'a str>) -> Option<&'a str> {
    label.or_else(|| split(claim).map(|(service, _)| service))
}

/// The family that a claim of ours was made for, by its name.
pub fn family_of(claim: &str) -> Option<Family> {
    split(claim).map(|(_, family)| family)
}

fn split(claim: &str) -> Option<(&str, Family)> {
    let (rest, hash) = claim.rsplit_once('-')?;
    let is_hash = hash.len() == 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (service, family) = match (rest.strip_suffix("-ext4"), rest.strip_suffix("-ext6")) {
        (Some(service), _) => (service, Family::V4),
        (_, Some(service)) => (service, Family::V6),
        (None, None) => return None,
    };
    is_hash.then_some((service, family))
}

/// Whether a claim is one of ours for the Service: it has our label, and no owner or a Service of this name, whatever its UID.
pub fn is_ours(claim: &ClaimFacts, key: &ServiceKey) -> bool {
    let owned =
        claim.owner.as_ref().is_none_or(|owner| owner.kind == "Service" && owner.api_version == "v1" && owner.name == key.name);
    claim.service.as_deref() == Some(key.name.as_str()) && owned
}

/// The address of the family that the Service asks its pools for.
pub fn requested(service: &ServiceFacts, family: Family) -> Option<IpAddr> {
    let asked = service.requested.as_deref()?.split(',').filter_map(|text| text.trim().parse().ok());
    asked.into_iter().find(|ip| Family::of(*ip) == family)
}

/// The claim to create, but for its API version and kind, which all versions of Cluster API share.
pub fn draft(service: &ServiceFacts, family: Family, pool: &PoolRef, rules: &Rules) -> (String, Value) {
    let name = name(&service.key.name, family, pool);
    let mut labels = Map::new();
    labels.insert(SERVICE_LABEL.to_owned(), json!(service.key.name));
    labels.extend(rules.watch_filter.as_ref().map(|value| (WATCH_FILTER_LABEL.to_owned(), json!(value))));
    let mut metadata = json!({
        "name": name,
        "namespace": service.key.namespace,
        "labels": labels,
        "finalizers": [PUBLISHED],
        "ownerReferences": [owner(service)],
    });
    if let (Some(ip), Some(metadata)) = (requested(service, family), metadata.as_object_mut()) {
        metadata.insert("annotations".to_owned(), json!({REQUESTED_ADDRESS: ip.to_string()}));
    }
    let pool = json!({"apiGroup": IPAM_GROUP, "kind": pool.kind.kind(), "name": pool.name});
    (name, json!({"metadata": metadata, "spec": {"poolRef": pool}}))
}

/// The owner reference of the Service's claims.
pub fn owner(service: &ServiceFacts) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "name": service.key.name,
        "uid": service.uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}

#[cfg(test)]
mod tests {
    use api::PoolKind;

    use super::*;

    #[test]
    fn a_claim_is_named_after_service_family_and_pool() {
        let pool = |kind, name: &str| PoolRef { kind, name: name.to_owned() };
        let public = pool(PoolKind::GlobalInClusterIPPool, "public-v4");
        assert_eq!(name("web", Family::V4, &public), "web-ext4-6aa21bf7");
        assert_eq!(name("web", Family::V6, &public), "web-ext6-6aa21bf7");
        assert_ne!(name("web", Family::V4, &pool(PoolKind::InClusterIPPool, "public-v4")), "web-ext4-6aa21bf7");
    }

    #[test]
    fn the_service_of_a_claim_is_the_labels_or_its_names() {
        assert_eq!(service_of("web-ext4-6aa21bf7", None), Some("web"));
        assert_eq!(service_of("a-ext4-b-ext6-6aa21bf7", None), Some("a-ext4-b"));
        assert_eq!(service_of("web-ext4-6aa21bf7", Some("other")), Some("other"));
        for other in
            ["web", "web-ext5-6aa21bf7", "web-ext4-6aa21bf", "web-ext4-6aa21bfg", "web-ext46aa21bf7", "web-ext4-6AA21BF7"]
        {
            assert_eq!(service_of(other, None), None, "{other}");
        }
    }
}
