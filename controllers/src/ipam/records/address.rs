//! The record of an address.

use api::capi::{CapiVersion, IpAddress};
use api::names::{CLUSTER_NAME_LABEL, DELETE_FOR_MOVE, WATCH_FILTER_LABEL};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use poolutil::Span;

use super::{PoolId, PoolKey, annotation, label, seconds};
use crate::ipam::compact::{List, Name, Names, Packed, Revision, Seconds, Uid};
use crate::ipam::owners;

/// An address object.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Address {
    pub uid: Uid,
    pub revision: Revision,
    /// Our pool that it refers to; `None` for anybody else's.
    pub pool: Option<PoolId>,
    value: Option<Packed>,
    pub created: Option<Seconds>,
    pub deleting: Option<Seconds>,
    pub finalizers: List,
    ties: Ties,
    pub cluster_label: Option<Name>,
    pub prefix: i16,
    /// The API server says that its spec was written by us.
    pub ours: bool,
    pub filtered: bool,
    pub moving: bool,
}

/// An address's owner references, and the claim it refers to.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
enum Ties {
    /// Exactly as we write them, to the claim of its own name and to its pool, with these UIDs.
    Standard {
        claim: Uid,
        /// A pool has one UID, in all its addresses.
        pool: Name,
        /// The version the claim is referred to in.
        version: CapiVersion,
    },
    /// Anything else.
    Other(Box<OtherTies>),
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
struct OtherTies {
    owners: Box<[OwnerReference]>,
    /// The claim it refers to, if that is not the one of its own name.
    claim: Option<Box<str>>,
}

impl Address {
    /// Reads an address that refers to our pool `pool`, if it does.
    pub fn read(address: &IpAddress, pool: Option<(PoolId, &PoolKey)>, watch_filter: Option<&str>, names: &mut Names) -> Self {
        let meta = &address.metadata;
        let spec = &address.spec;
        let length = spec.prefix.and_then(|prefix| u8::try_from(prefix).ok());
        let span = match pool {
            Some((_, key)) if key.kind.is_prefix() => length.and_then(|length| Span::parse(&spec.address, length).ok()),
            _ => Span::parse_host(&spec.address).ok(),
        };
        Self {
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            revision: Revision::new(meta.resource_version.as_deref().unwrap_or_default()),
            pool: pool.map(|(id, _)| id),
            value: span.map(Packed::new),
            created: seconds(meta.creation_timestamp.as_ref()),
            deleting: seconds(meta.deletion_timestamp.as_ref()),
            finalizers: names.intern_list(meta.finalizers.as_deref().unwrap_or_default()),
            ties: Ties::read(address, pool.map(|(_, key)| key), names),
            cluster_label: label(meta, CLUSTER_NAME_LABEL).map(|text| names.intern(text)),
            prefix: spec.prefix.and_then(|prefix| i16::try_from(prefix).ok()).unwrap_or_default(),
            ours: owners::made_by_us(meta),
            filtered: watch_filter.is_none_or(|filter| label(meta, WATCH_FILTER_LABEL) == Some(filter)),
            moving: annotation(meta, DELETE_FOR_MOVE).is_some(),
        }
    }

    /// Its value, if it can be read.
    pub fn span(&self) -> Option<Span> {
        self.value.and_then(Packed::span)
    }

    /// The claim it refers to, if that is not the one of its own name.
    pub fn other_claim(&self) -> Option<&str> {
        match &self.ties {
            Ties::Standard { .. } => None,
            Ties::Other(ties) => ties.claim.as_deref(),
        }
    }

    /// The owner references as they stand in the object of this name, which refers to the pool `key`.
    pub fn owners(&self, name: &str, key: Option<&PoolKey>, names: &Names) -> Vec<OwnerReference> {
        match (&self.ties, key) {
            (Ties::Standard { claim, pool, version }, Some(key)) => vec![
                owners::claim_reference(*version, name, claim),
                owners::pool_reference(key.kind, &key.name, &Uid::new(names.text(*pool))),
            ],
            (Ties::Standard { .. }, None) => Vec::new(),
            (Ties::Other(ties), _) => ties.owners.to_vec(),
        }
    }
}

impl Ties {
    fn read(address: &IpAddress, pool: Option<&PoolKey>, names: &mut Names) -> Self {
        let name = address.metadata.name.as_deref().unwrap_or_default();
        let references = address.metadata.owner_references.as_deref().unwrap_or_default();
        let referred = &address.spec.claim_ref.name;
        if let (Some(key), [first, second]) = (pool, references)
            && referred == name
        {
            let (claim, pool) = (Uid::new(&first.uid), Uid::new(&second.uid));
            for version in [CapiVersion::V1beta2, CapiVersion::V1beta1] {
                let standard =
                    [owners::claim_reference(version, name, &claim), owners::pool_reference(key.kind, &key.name, &pool)];
                if references == standard {
                    return Self::Standard { claim, pool: names.intern(&second.uid), version };
                }
            }
        }
        let claim = (referred != name).then(|| referred.as_str().into());
        Self::Other(Box::new(OtherTies { owners: references.into(), claim }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_fits_its_budget() {
        assert!(size_of::<Address>() <= 104, "{}", size_of::<Address>());
        assert!(size_of::<super::super::Claim>() <= 112, "{}", size_of::<super::super::Claim>());
    }
}
