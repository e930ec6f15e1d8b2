//! The decisions: what to write for one Service ([`service`]), and what to show of one source ([`source`]).
//!
//! Both are total functions over values. The driver carries out the steps in their order; a step that fails ends the pass, the
//! failure is remembered as a [`Trouble`](super::facts::Trouble), and the next plan goes on without the output concerned.

mod asking;
pub mod choose;
mod conditions;
mod leases;
mod publish;
mod service;
mod source;
#[cfg(test)]
pub mod tests;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use api::externalip::reasons::ExternalIpEvent;
use api::externalip::{ClusterExternalIPSourceStatus, IpMode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use super::facts::ServiceKey;

pub use self::asking::{asked, terms};
pub use self::service::{service, source_name};
pub use self::source::source;

/// What to do about a Service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to write, in this order; a step that fails ends the pass.
    pub steps: Vec<Step>,
    /// When to look again even if nothing happens.
    pub look_again: Option<Duration>,
    /// Services that have an address and port which this one wants: when one of them changes, this one is planned again.
    pub waits_on: BTreeSet<ServiceKey>,
    /// How the Service fares, for the numbers; `None` for one that names no source.
    pub standing: Option<Standing>,
}

/// How a Service or a source fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Everything is as wished.
    Ready,
    /// It works, but something is wrong.
    Degraded,
    /// It does not work.
    Failing,
}

/// One write, with everything it needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// One merge patch of the Service with its UID and resource version as preconditions.
    PatchService {
        /// The whole new `spec.externalIPs`, if it changes; empty means null.
        external_ips: Option<Vec<String>>,
        /// The new ownership record, if it changes.
        record: Option<RecordChange>,
        /// Entries of ours that somebody took away are put back: the driver counts these.
        restores: bool,
    },
    /// Server-side apply of external-dns' target annotations, not forced, under a manager of its own: exactly these, none means release.
    ApplyTarget {
        /// Annotation to value.
        annotations: BTreeMap<String, String>,
    },
    /// Forced server-side apply of `status.loadBalancer.ingress`; `None` means release.
    ApplyStatus {
        /// The whole list.
        ingress: Option<Vec<(IpAddr, IpMode)>>,
    },
    /// Forced server-side apply of our conditions to the status, under a manager of its own: exactly these, none means release.
    ApplyConditions {
        /// The conditions.
        conditions: Vec<Condition>,
    },
    /// Create a claim in the Service's namespace; only the API version is missing in the object.
    CreateClaim {
        /// Its name.
        name: String,
        /// The object without `apiVersion` and `kind`.
        object: Value,
    },
    /// Make the Service the controlling owner of a claim.
    AdoptClaim {
        /// Its name.
        name: String,
        /// The only object that may be changed.
        uid: String,
        /// The version last seen, a precondition.
        revision: String,
        /// The new `metadata.ownerReferences`.
        owner: Value,
    },
    /// Delete a claim, with its UID as precondition.
    DeleteClaim {
        /// Its name.
        name: String,
        /// The only object that may be deleted.
        uid: String,
    },
    /// Take our finalizer from a claim that is being deleted.
    FreeClaim {
        /// Its name.
        name: String,
        /// The only object that may be changed.
        uid: String,
        /// Its finalizers as last seen.
        finalizers: Vec<String>,
    },
    /// Tell the user, and remember that it was told.
    Emit(Note),
}

/// What becomes of the ownership record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordChange {
    /// It has this text.
    Set(String),
    /// It goes.
    Remove,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Its reason, which says whether it is a warning.
    pub reason: ExternalIpEvent,
    /// Its text.
    pub text: String,
}

/// What to show of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusPlan {
    /// The new status, if it differs from the one in view.
    pub status: Option<ClusterExternalIPSourceStatus>,
    /// Events, in order.
    pub notes: Vec<Note>,
    /// When to plan the source **and all Services bound to it** again even if nothing happens.
    pub look_again: Option<Duration>,
    /// How the source fares, for the numbers.
    pub standing: Standing,
}
