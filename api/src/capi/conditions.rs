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

    /// Whether both flavours say `ready` already, so that nothing needs to be written in `version`.
    ///
    /// The message of [`ClaimReason::PoolExhausted`] does not count: it holds the claim's position in the queue, which
    /// would otherwise be rewritten with every step forward. Releases that know v1beta1 alone drop the new flavour;
    /// as both are always written together, a legacy one without it means just that.
    pub fn show(&self, ready: &ClaimReady, version: CapiVersion) -> bool {
        let says = |view: &ReadyView| {
            view.reason == ready.reason.as_str() && (ready.reason == ClaimReason::PoolExhausted || view.message == ready.message)
        };
        let legacy = self
            .legacy_ready
            .as_ref()
            .is_some_and(|view| view.status == ready.status() && (ready.reason.is_ready() || says(view)));
        let new = self.new_ready.as_ref().map_or(version == CapiVersion::V1beta1, |view| {
            view.status == ready.status() && says(view) && view.observed_generation == ready.observed_generation
        });
        new && legacy
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

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [CapiVersion; 2] = [CapiVersion::V1beta2, CapiVersion::V1beta1];

    fn now() -> Timestamp {
        "2026-01-31T10:00:00.5Z".parse().unwrap()
    }

    fn bound() -> ClaimReady {
        ClaimReady::bound("10.0.0.10", 24, Some(1))
    }

    fn exhausted(message: &str) -> ClaimReady {
        ClaimReady { reason: ClaimReason::PoolExhausted, message: message.to_owned(), observed_generation: Some(1) }
    }

    /// A claim with `status`, read in `version`.
    fn read(status: &Value, version: CapiVersion) -> ClaimConditions {
        let claim: IpAddressClaim = serde_json::from_value(json!({"metadata": {"name": "c"}, "status": status})).unwrap();
        ClaimConditions::of(&claim, version)
    }

    fn publish(existing: &ClaimConditions, ready: &ClaimReady, version: CapiVersion) -> Value {
        status_patch(existing, ready, None, version, "7", now())["status"].take()
    }

    #[test]
    fn a_bound_claim_says_so_in_both_flavours_at_the_places_of_v1beta2() {
        let patch = status_patch(&ClaimConditions::default(), &bound(), Some("web-0"), CapiVersion::V1beta2, "7", now());
        let expected = json!({
            "metadata": {"resourceVersion": "7"},
            "status": {
                "addressRef": {"name": "web-0"},
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "AddressAllocated", "message": "allocated 10.0.0.10/24",
                    "observedGeneration": 1, "lastTransitionTime": "2026-01-31T10:00:00Z",
                }],
                "deprecated": {"v1beta1": {"conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-31T10:00:00Z"},
                ]}},
            },
        });
        assert_eq!(patch, expected);
    }

    #[test]
    fn in_v1beta1_the_flavours_change_places() {
        let newer = publish(&ClaimConditions::default(), &bound(), CapiVersion::V1beta2);
        let older = publish(&ClaimConditions::default(), &bound(), CapiVersion::V1beta1);
        assert_eq!(older["conditions"], newer["deprecated"]["v1beta1"]["conditions"]);
        assert_eq!(older["v1beta2"]["conditions"], newer["conditions"]);
        assert_eq!(older["deprecated"], Value::Null);
    }

    #[test]
    fn a_waiting_claim_has_a_severity_and_no_address() {
        let status = publish(&ClaimConditions::default(), &exhausted("no room"), CapiVersion::V1beta2);
        let expected = json!({
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "PoolExhausted", "message": "no room",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-31T10:00:00Z",
            }],
            "deprecated": {"v1beta1": {"conditions": [{
                "type": "Ready", "status": "False", "severity": "Warning", "reason": "PoolExhausted", "message": "no room",
                "lastTransitionTime": "2026-01-31T10:00:00Z",
            }]}},
        });
        assert_eq!(status, expected);
    }

    #[test]
    fn the_legacy_flavour_has_no_empty_strings_and_the_new_one_always_a_message() {
        let status = publish(&ClaimConditions::default(), &exhausted(""), CapiVersion::V1beta2);
        assert_eq!(status["conditions"][0]["message"], "");
        assert_eq!(status["deprecated"]["v1beta1"]["conditions"][0].get("message"), None);
    }

    #[test]
    fn foreign_conditions_keep_their_places() {
        let (before, after) = (json!({"type": "Paused", "status": "False"}), json!({"type": "Up", "status": "True"}));
        let old = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let list = json!([before, old, after]);
        for version in BOTH {
            let existing = match version {
                CapiVersion::V1beta2 => json!({"conditions": list, "deprecated": {"v1beta1": {"conditions": list}}}),
                CapiVersion::V1beta1 => json!({"conditions": list, "v1beta2": {"conditions": list}}),
            };
            let status = publish(&read(&existing, version), &bound(), version);
            let other = match version {
                CapiVersion::V1beta2 => &status["deprecated"]["v1beta1"]["conditions"],
                CapiVersion::V1beta1 => &status["v1beta2"]["conditions"],
            };
            for list in [&status["conditions"], other] {
                assert_eq!((&list[0], &list[2]), (&before, &after), "{version:?}");
                assert_eq!((&list[1]["type"], &list[1]["status"]), (&json!("Ready"), &json!("True")), "{version:?}");
            }
        }
    }

    #[test]
    fn a_condition_that_stands_twice_is_written_once() {
        let twice = json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "Ready", "status": "False"}]});
        let status = publish(&read(&twice, CapiVersion::V1beta1), &bound(), CapiVersion::V1beta1);
        assert_eq!(status["conditions"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn the_time_moves_only_with_the_status() {
        for version in BOTH {
            let first = publish(&ClaimConditions::default(), &exhausted("1st"), version);
            let existing = read(&first, version);
            let later = "2026-02-01T00:00:00Z".parse().unwrap();

            let repeated = status_patch(&existing, &exhausted("2nd"), None, version, "8", later)["status"].take();
            let times = |status: &Value| {
                let conditions = read(status, version);
                (conditions.new_ready.unwrap().last_transition_time, conditions.legacy_ready.unwrap().last_transition_time)
            };
            assert_eq!(times(&repeated), times(&first), "{version:?}");

            let turned = status_patch(&existing, &bound(), Some("c"), version, "8", later)["status"].take();
            assert_eq!(times(&turned), ("2026-02-01T00:00:00Z".to_owned(), "2026-02-01T00:00:00Z".to_owned()));
        }
    }

    #[test]
    fn what_was_published_needs_no_second_write() {
        for version in BOTH {
            for ready in [bound(), exhausted("position 3")] {
                let conditions = read(&publish(&ClaimConditions::default(), &ready, version), version);
                assert!(conditions.show(&ready, version), "{version:?} {ready:?}");
            }
        }
    }

    #[test]
    fn a_step_forward_in_the_queue_is_not_written_but_any_other_change_is() {
        let version = CapiVersion::V1beta2;
        let conditions = read(&publish(&ClaimConditions::default(), &exhausted("position 3"), version), version);
        assert!(conditions.show(&exhausted("position 2"), version));
        assert!(!conditions.show(&bound(), version));

        let absent = ClaimReady { reason: ClaimReason::PoolNotReady, ..exhausted("pool blue does not exist") };
        let deleting = ClaimReady { message: "pool blue is deleting".to_owned(), ..absent.clone() };
        let conditions = read(&publish(&conditions, &absent, version), version);
        assert!(conditions.show(&absent, version));
        assert!(!conditions.show(&deleting, version));

        let conditions = read(&publish(&conditions, &bound(), version), version);
        assert!(!conditions.show(&ClaimReady { observed_generation: Some(2), ..bound() }, version));
        assert!(!conditions.show(&ClaimReady::bound("10.0.0.11", 24, Some(1)), version));
    }

    #[test]
    fn one_flavour_alone_is_not_enough_unless_the_server_knows_only_one() {
        let new_only = json!({"conditions": [
            {"type": "Ready", "status": "True", "reason": "AddressAllocated", "message": "allocated 10.0.0.10/24", "observedGeneration": 1},
        ]});
        assert!(!read(&new_only, CapiVersion::V1beta2).show(&bound(), CapiVersion::V1beta2));

        let legacy_only = json!({"deprecated": {"v1beta1": {"conditions": [{"type": "Ready", "status": "True"}]}}});
        assert!(!read(&legacy_only, CapiVersion::V1beta2).show(&bound(), CapiVersion::V1beta2));

        let pruned = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert!(read(&pruned, CapiVersion::V1beta1).show(&bound(), CapiVersion::V1beta1));
    }

    #[test]
    fn conditions_of_any_shape_are_read_without_an_error() {
        let odd =
            json!({"conditions": [7, null, {"type": "Ready", "status": 1, "reason": null}], "deprecated": null, "v1beta2": {}});
        for version in BOTH {
            let conditions = read(&odd, version);
            assert!(!conditions.show(&bound(), version));
            let status = publish(&conditions, &bound(), version);
            assert!(read(&status, version).show(&bound(), version), "{version:?}");
        }
    }
}
