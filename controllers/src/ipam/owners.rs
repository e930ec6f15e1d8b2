//! The owner references of an address: to its claim and to its pool, in this order, behind whatever was there before.

use api::PoolKind;
use api::capi::CapiVersion;
use api::names::{FIELD_MANAGER, IPAM_GROUP};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Map, Value, json};

use super::compact::Uid;

const CLAIM_KIND: &str = "IPAddressClaim";

/// The reference to the claim `name`, which controls the address.
pub fn claim_reference(version: CapiVersion, name: &str, uid: &Uid) -> OwnerReference {
    OwnerReference {
        api_version: version.api_version().to_owned(),
        kind: CLAIM_KIND.to_owned(),
        name: name.to_owned(),
        uid: uid.to_string(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to the pool `name`.
pub fn pool_reference(kind: PoolKind, name: &str, uid: &Uid) -> OwnerReference {
    OwnerReference {
        api_version: format!("{IPAM_GROUP}/{}", api::v1alpha2::VERSION),
        kind: kind.kind().to_owned(),
        name: name.to_owned(),
        uid: uid.to_string(),
        controller: Some(false),
        block_owner_deletion: Some(true),
    }
}

/// UID in the reference to the claim `name`, if there is one.
pub fn claim_uid(references: &[OwnerReference], name: &str) -> Option<Uid> {
    references.iter().find(|reference| is_claim(reference, name)).map(|reference| Uid::new(&reference.uid))
}

/// The references with those to claim and pool completed, or `None` if they are complete.
///
/// One that exists already (same group, kind and name) is completed in its place and keeps its version; a foreign controller keeps its
/// role, and the claim is then added beside it.
pub fn completed(
    references: &[OwnerReference],
    claim: OwnerReference,
    pool: Option<OwnerReference>,
) -> Option<Vec<OwnerReference>> {
    let foreign_controller =
        references.iter().any(|reference| reference.controller == Some(true) && !is_claim(reference, &claim.name));
    let claim = OwnerReference { controller: Some(!foreign_controller), ..claim };
    let mut whole = references.to_vec();
    for wanted in std::iter::once(claim).chain(pool) {
        match whole.iter_mut().find(|reference| same_object(reference, &wanted)) {
            Some(reference) => *reference = OwnerReference { api_version: reference.api_version.clone(), ..wanted },
            None => whole.push(wanted),
        }
    }
    (whole != references).then_some(whole)
}

fn is_claim(reference: &OwnerReference, name: &str) -> bool {
    group(&reference.api_version) == IPAM_GROUP && reference.kind == CLAIM_KIND && reference.name == name
}

fn same_object(one: &OwnerReference, other: &OwnerReference) -> bool {
    group(&one.api_version) == group(&other.api_version) && one.kind == other.kind && one.name == other.name
}

fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether our manager made this very object (8.3). What clusterctl makes again on another server gets its managed fields back,
/// but new owners: among the owners that we gave it there, some are not those it has.
pub fn made_by_us(meta: &ObjectMeta) -> bool {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let is_owner = |field: &str| owners.iter().any(|owner| field == format!("k:{}", json!({"uid": owner.uid})));
    meta.managed_fields.iter().flatten().filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER)).any(|entry| {
        entry.fields_v1.as_ref().is_some_and(|fields| {
            let given = fields.0.pointer("/f:metadata/f:ownerReferences").and_then(Value::as_object);
            let mut given = given.into_iter().flat_map(Map::keys).filter(|field| field.starts_with("k:"));
            fields.0.get("f:spec").is_some() && given.all(|field| is_owner(field))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(controller: Option<bool>) -> OwnerReference {
        OwnerReference {
            api_version: "alpha-dummy".to_owned(),
            kind: "dummy-kind".to_owned(),
            name: "dummy".to_owned(),
            uid: "abc-dummy-123".to_owned(),
            controller,
            block_owner_deletion: None,
        }
    }

    fn claim() -> OwnerReference {
        claim_reference(CapiVersion::V1beta2, "web-0", &Uid::new("c1"))
    }

    fn pool() -> OwnerReference {
        pool_reference(PoolKind::InClusterIPPool, "blue", &Uid::new("p1"))
    }

    #[test]
    fn claim_and_pool_are_added_behind_what_is_there() {
        assert_eq!(completed(&[], claim(), Some(pool())), Some(vec![claim(), pool()]));
        assert_eq!(completed(&[foreign(None)], claim(), Some(pool())), Some(vec![foreign(None), claim(), pool()]));
    }

    #[test]
    fn complete_references_need_no_write_in_any_order_or_version() {
        let old = OwnerReference { api_version: CapiVersion::V1beta1.api_version().to_owned(), ..claim() };
        assert_eq!(completed(&[claim(), pool()], claim(), Some(pool())), None);
        assert_eq!(completed(&[pool(), old], claim(), Some(pool())), None);
        assert_eq!(completed(&[claim()], claim(), None), None);
    }

    #[test]
    fn a_reference_is_completed_in_its_place() {
        let bare = OwnerReference { uid: "c0".to_owned(), controller: None, block_owner_deletion: None, ..claim() };
        assert_eq!(completed(&[bare, pool(), foreign(None)], claim(), Some(pool())), Some(vec![claim(), pool(), foreign(None)]));
    }

    #[test]
    fn a_foreign_controller_keeps_its_role() {
        let beside = OwnerReference { controller: Some(false), ..claim() };
        let controller = foreign(Some(true));
        assert_eq!(completed(std::slice::from_ref(&controller), claim(), None), Some(vec![controller.clone(), beside.clone()]));
        assert_eq!(completed(&[controller, beside], claim(), None), None);
    }

    #[test]
    fn the_uid_of_the_owning_claim_is_found_by_group_kind_and_name() {
        assert_eq!(claim_uid(&[foreign(None), claim()], "web-0"), Some(Uid::new("c1")));
        assert_eq!(claim_uid(&[claim()], "web-1"), None);
    }
}
