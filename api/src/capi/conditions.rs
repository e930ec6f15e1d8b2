//! The two flavours of a claim's `Ready` condition: reading them, and the one patch that writes both.
//!
//! | Flavour | in v1beta2 | in v1beta1 | shape |
//! |---|---|---|---|
//! | new | `status.conditions` | `status.v1beta2.conditions` | `metav1.Condition`; `reason` and `message` always present |
//! | legacy | `status.deprecated.v1beta1.conditions` | `status.conditions` | no empty strings; reason, severity and message only while false |
//!
//! Cluster API's conversion never turns one into the other, and its consumers look at one only, so both always go
//! together. Releases that know v1beta1 alone drop `status.v1beta2`, which does no harm.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{CapiVersion, IpAddressClaim};
use crate::reasons::ClaimReason;

const READY: &str = "Ready";

/// The conditions of a claim, both flavours, as they stand in the object. All that a later [`status_patch`] needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClaimConditions {
    /// `Ready` of the new flavour.
    pub new_ready: Option<ReadyView>,
    /// `Ready` of the legacy flavour.
    pub legacy_ready: Option<ReadyView>,
    /// The other conditions of the new flavour, in their order.
    pub foreign_new: Vec<Value>,
    /// The other conditions of the legacy flavour, in their order.
    pub foreign_legacy: Vec<Value>,
}

/// A `Ready` condition; a missing field is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyView {
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// The cause in one word.
    pub reason: String,
    /// The details.
    pub message: String,
    /// The claim's generation it was concluded from; only in the new flavour.
    pub observed_generation: Option<i64>,
    /// Since when the status is what it is, as written.
    pub last_transition_time: String,
    /// How many foreign conditions come before it in its list.
    pub place: usize,
}

/// What `Ready` shall say about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimReady {
    /// Why; this decides between true and false.
    pub reason: ClaimReason,
    /// The details.
    pub message: String,
    /// The claim's generation that this was concluded from.
    pub observed_generation: Option<i64>,
}

impl ClaimReady {
    /// A claim that holds an address.
    ///
    /// ```
    /// let ready = api::capi::ClaimReady::bound("10.0.0.10", 24, Some(1));
    /// assert_eq!(ready.message, "allocated 10.0.0.10/24");
    /// ```
    pub fn bound(address: &str, prefix: i64, observed_generation: Option<i64>) -> Self {
        Self { reason: ClaimReason::AddressAllocated, message: format!("allocated {address}/{prefix}"), observed_generation }
    }

    fn status(&self) -> &'static str {
        if self.reason.is_ready() { "True" } else { "False" }
    }
}

impl ClaimConditions {
    /// Reads both flavours out of a claim that was decoded in `version`.
    pub fn of(claim: &IpAddressClaim, version: CapiVersion) -> Self {
        let status = &claim.status;
        let (new, legacy) = match version {
            CapiVersion::V1beta2 => (&status.conditions, &status.deprecated.v1beta1.conditions),
            CapiVersion::V1beta1 => (&status.v1beta2.conditions, &status.conditions),
        };
        let (new_ready, foreign_new) = split(new);
        let (legacy_ready, foreign_legacy) = split(legacy);
        Self { new_ready, legacy_ready, foreign_new, foreign_legacy }
    }

    /// Whether both flavours say `ready` already, so that nothing needs to be written.
    ///
    /// The message of [`ClaimReason::PoolExhausted`] does not count: it holds the claim's position in the queue, which
    /// would otherwise be rewritten with every step forward.
    pub fn show(&self, ready: &ClaimReady) -> bool {
        let (Some(new), Some(legacy)) = (&self.new_ready, &self.legacy_ready) else {
            return false;
        };
        let says = |view: &ReadyView| {
            view.reason == ready.reason.as_str() && (ready.reason == ClaimReason::PoolExhausted || view.message == ready.message)
        };
        new.status == ready.status()
            && legacy.status == ready.status()
            && says(new)
            && new.observed_generation == ready.observed_generation
            && (ready.reason.is_ready() || says(legacy))
    }
}

/// The JSON merge patch that publishes `ready` on a claim's `status` subresource.
///
/// - `address` is the name of the claim's address object; without one, `addressRef` is not mentioned.
/// - `resource_version` is the one that `existing` was read at. The API server refuses the patch if the claim has
///   changed since, which makes it safe to send the lists of conditions as a whole.
/// - A merge patch replaces lists, so foreign conditions are sent again, in their places.
/// - `lastTransitionTime` becomes `now` only where the status changes.
///
/// ```
/// use api::capi::{CapiVersion, ClaimConditions, ClaimReady, status_patch};
///
/// let ready = ClaimReady::bound("10.0.0.10", 24, Some(1));
/// let now = "2026-01-31T10:00:00Z".parse().unwrap();
/// let patch = status_patch(&ClaimConditions::default(), &ready, Some("web-0"), CapiVersion::V1beta2, "7", now);
/// assert_eq!(patch["status"]["addressRef"]["name"], "web-0");
/// assert_eq!(patch["status"]["conditions"][0]["status"], "True");
/// assert_eq!(patch["status"]["deprecated"]["v1beta1"]["conditions"][0]["status"], "True");
/// ```
pub fn status_patch(
    existing: &ClaimConditions,
    ready: &ClaimReady,
    address: Option<&str>,
    version: CapiVersion,
    resource_version: &str,
    now: Timestamp,
) -> Value {
    let new = joined(&existing.foreign_new, existing.new_ready.as_ref(), new_flavour(existing, ready, now));
    let legacy = joined(&existing.foreign_legacy, existing.legacy_ready.as_ref(), legacy_flavour(existing, ready, now));
    let mut status = match version {
        CapiVersion::V1beta2 => json!({"conditions": new, "deprecated": {"v1beta1": {"conditions": legacy}}}),
        CapiVersion::V1beta1 => json!({"conditions": legacy, "v1beta2": {"conditions": new}}),
    };
    if let Some(name) = address {
        status["addressRef"] = json!({"name": name});
    }
    json!({"metadata": {"resourceVersion": resource_version}, "status": status})
}

fn new_flavour(existing: &ClaimConditions, ready: &ClaimReady, now: Timestamp) -> Value {
    let mut condition = Map::from_iter([
        ("type".to_owned(), json!(READY)),
        ("status".to_owned(), json!(ready.status())),
        ("reason".to_owned(), json!(ready.reason.as_str())),
        ("message".to_owned(), json!(ready.message)),
        ("lastTransitionTime".to_owned(), since(existing.new_ready.as_ref(), ready, now)),
    ]);
    if let Some(generation) = ready.observed_generation {
        condition.insert("observedGeneration".to_owned(), json!(generation));
    }
    Value::Object(condition)
}

fn legacy_flavour(existing: &ClaimConditions, ready: &ClaimReady, now: Timestamp) -> Value {
    let mut condition = Map::from_iter([
        ("type".to_owned(), json!(READY)),
        ("status".to_owned(), json!(ready.status())),
        ("lastTransitionTime".to_owned(), since(existing.legacy_ready.as_ref(), ready, now)),
    ]);
    if let Some(severity) = ready.reason.severity() {
        condition.insert("severity".to_owned(), json!(severity.as_str()));
        condition.insert("reason".to_owned(), json!(ready.reason.as_str()));
        if !ready.message.is_empty() {
            condition.insert("message".to_owned(), json!(ready.message));
        }
    }
    Value::Object(condition)
}

/// When the status last changed: as it stands, if it stays what it is.
fn since(existing: Option<&ReadyView>, ready: &ClaimReady, now: Timestamp) -> Value {
    existing
        .filter(|view| view.status == ready.status() && !view.last_transition_time.is_empty())
        .map_or_else(|| json!(Time(now)), |view| json!(view.last_transition_time))
}

/// The whole list: the foreign conditions with `ready` where the existing one stands, or at the end.
fn joined(foreign: &[Value], existing: Option<&ReadyView>, ready: Value) -> Vec<Value> {
    let place = existing.map_or(foreign.len(), |view| view.place.min(foreign.len()));
    let mut list = foreign.to_vec();
    list.insert(place, ready);
    list
}

/// Takes `Ready` out of a list. Further ones of that type, which a list without keys can hold, are dropped.
fn split(list: &[Value]) -> (Option<ReadyView>, Vec<Value>) {
    let is_ready = |condition: &&Value| condition["type"] == READY;
    let ready = list.iter().position(|condition| is_ready(&condition)).map(|place| ReadyView::of(&list[place], place));
    (ready, list.iter().filter(|condition| !is_ready(condition)).cloned().collect())
}

impl ReadyView {
    fn of(condition: &Value, place: usize) -> Self {
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        Self {
            status: text("status"),
            reason: text("reason"),
            message: text("message"),
            observed_generation: condition["observedGeneration"].as_i64(),
            last_transition_time: text("lastTransitionTime"),
            place,
        }
    }
}
