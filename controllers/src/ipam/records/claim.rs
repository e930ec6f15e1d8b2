//! The record of a claim.

use std::net::IpAddr;

use api::capi::{CapiVersion, ClaimConditions, ClaimReady, IpAddressClaim, ReadyView};
use api::names::{
    CLUSTER_NAME_LABEL, DELETE_FOR_MOVE, LOST_ADDRESS, PAUSED, RELEASE_NOW, REQUESTED_ADDRESS, REQUESTED_ADDRESS_SHORT,
};
use api::reasons::ClaimReason;
use k8s_openapi::jiff::Timestamp;

use super::{PoolId, annotation, label, seconds};
use crate::ipam::compact::{List, Name, Names, Revision, Seconds, Uid};

/// A claim on one of our pools.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Claim {
    pub uid: Uid,
    pub revision: Revision,
    pub generation: i32,
    pub pool: PoolId,
    /// Place in the order of arrival; 0 until the list that brought it has ended.
    pub arrival: u64,
    pub created: Option<Seconds>,
    pub deleting: Option<Seconds>,
    pub finalizers: List,
    /// The cluster it belongs to, if it names one.
    pub cluster: Option<Name>,
    /// The cluster label that its address shall carry.
    pub label: Option<Name>,
    annotated: Option<Box<Annotated>>,
    pub conditions: Conditions,
    pub bound: bool,
    pub moving: bool,
    pub paused: bool,
    pub release_now: bool,
}

/// What few claims say in annotations.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default, PartialEq)]
struct Annotated {
    requested: Option<Box<str>>,
    lost: Option<Uid>,
}

/// A claim's conditions: a few bytes in the common case, the whole of them otherwise.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub enum Conditions {
    /// There are none.
    None,
    /// Both flavours say that the claim holds an address, and there is nothing else.
    Bound {
        /// The address that the message names.
        ip: IpAddr,
        /// The length behind it.
        prefix: u8,
        /// `observedGeneration`.
        generation: i32,
        /// Since when.
        since: Seconds,
    },
    /// Anything else.
    Other(Box<ClaimConditions>),
}

impl Claim {
    /// Reads a claim on pool `pool`.
    pub fn read(claim: &IpAddressClaim, pool: PoolId, version: CapiVersion, names: &mut Names) -> Self {
        let meta = &claim.metadata;
        let label = label(meta, CLUSTER_NAME_LABEL).filter(|name| !name.is_empty());
        let spec = claim.spec.cluster_name.as_deref().filter(|name| !name.is_empty());
        let mut intern = |name: Option<&str>| name.map(|name| names.intern(name));
        let (cluster, label) = (intern(spec.or(label)), intern(label.or(spec)));
        let annotated = Annotated {
            requested: annotation(meta, REQUESTED_ADDRESS).or_else(|| annotation(meta, REQUESTED_ADDRESS_SHORT)).map(Into::into),
            lost: annotation(meta, LOST_ADDRESS).map(Uid::new),
        };
        Self {
            uid: Uid::new(meta.uid.as_deref().unwrap_or_default()),
            revision: Revision::new(meta.resource_version.as_deref().unwrap_or_default()),
            generation: meta.generation.and_then(|generation| i32::try_from(generation).ok()).unwrap_or_default(),
            pool,
            arrival: 0,
            created: seconds(meta.creation_timestamp.as_ref()),
            deleting: seconds(meta.deletion_timestamp.as_ref()),
            finalizers: names.intern_list(meta.finalizers.as_deref().unwrap_or_default()),
            cluster,
            label,
            annotated: (annotated != Annotated::default()).then(|| Box::new(annotated)),
            conditions: Conditions::read(claim, version),
            bound: claim.status.address_ref.as_ref().is_some_and(|address| Some(&address.name) == meta.name.as_ref()),
            moving: annotation(meta, DELETE_FOR_MOVE).is_some(),
            paused: annotation(meta, PAUSED).is_some(),
            release_now: annotation(meta, RELEASE_NOW) == Some("true"),
        }
    }

    /// What its annotation asks for.
    pub fn requested(&self) -> Option<&str> {
        self.annotated.as_ref()?.requested.as_deref()
    }

    /// The UID of an address that must not be published for it any more.
    pub fn lost(&self) -> Option<&Uid> {
        self.annotated.as_ref()?.lost.as_ref()
    }
}

impl Conditions {
    fn read(claim: &IpAddressClaim, version: CapiVersion) -> Self {
        let conditions = ClaimConditions::of(claim, version);
        if conditions == ClaimConditions::default() {
            return Self::None;
        }
        Self::bound(&conditions).unwrap_or_else(|| Self::Other(Box::new(conditions)))
    }

    fn bound(conditions: &ClaimConditions) -> Option<Self> {
        let new = conditions.new_ready.as_ref()?;
        let (ip, prefix) = new.message.strip_prefix("allocated ")?.split_once('/')?;
        let compact = Self::Bound {
            ip: ip.parse().ok()?,
            prefix: prefix.parse().ok()?,
            generation: i32::try_from(new.observed_generation?).ok()?,
            since: Seconds::new(new.last_transition_time.parse::<Timestamp>().ok()?.as_second()),
        };
        (compact.whole() == *conditions).then_some(compact)
    }

    /// The conditions as they stand in the object.
    pub fn whole(&self) -> ClaimConditions {
        match self {
            Self::None => ClaimConditions::default(),
            Self::Other(conditions) => (**conditions).clone(),
            Self::Bound { ip, prefix, generation, since } => {
                let since = Timestamp::from_second(since.get()).unwrap_or_default().to_string();
                let ready = ClaimReady {
                    reason: ClaimReason::AddressAllocated,
                    message: format!("allocated {ip}/{prefix}"),
                    observed_generation: Some((*generation).into()),
                };
                ClaimConditions {
                    new_ready: Some(ReadyView {
                        status: "True".to_owned(),
                        reason: ready.reason.as_str().to_owned(),
                        message: ready.message,
                        observed_generation: ready.observed_generation,
                        last_transition_time: since.clone(),
                        place: 0,
                    }),
                    legacy_ready: Some(ReadyView {
                        status: "True".to_owned(),
                        last_transition_time: since,
                        ..ReadyView::default()
                    }),
                    ..ClaimConditions::default()
                }
            }
        }
    }
}
