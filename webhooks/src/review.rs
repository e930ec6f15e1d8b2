//! An `AdmissionReview` as it comes in and as it goes out.

use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::denial::Denial;

const V1: &str = "admission.k8s.io/v1";
const V1BETA1: &str = "admission.k8s.io/v1beta1";

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Names the request; comes back in the answer.
    pub uid: String,
    /// What the objects are.
    pub kind: GroupVersionKind,
    /// Name of the object; may be missing in a creation.
    #[serde(default)]
    pub name: String,
    /// Its namespace; missing if it is cluster-scoped.
    #[serde(default)]
    pub namespace: String,
    /// What is to be done.
    pub operation: Operation,
    /// The object as it shall be; none in a deletion.
    #[serde(default)]
    pub object: Option<Value>,
    /// The object as it is; none in a creation.
    #[serde(default)]
    pub old_object: Option<Value>,
}

/// A kind in full.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct GroupVersionKind {
    /// Its group.
    pub group: String,
    /// Its version.
    pub version: String,
    /// Its name.
    pub kind: String,
}

/// What is to be done with an object.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is new.
    Create,
    /// It is there and changes.
    Update,
    /// It goes.
    Delete,
    /// Something of it is connected to; we register for no such thing.
    Connect,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    request: Request,
}

/// A request, and the version of the review that it came in.
#[derive(Debug)]
pub struct Review {
    version: &'static str,
    /// What is asked.
    pub request: Request,
}

impl Review {
    /// Reads a review, or says why it is none. Nesting is bounded by the JSON reader.
    pub fn read(body: &[u8]) -> Result<Self, String> {
        let Envelope { api_version, kind, request } =
            serde_json::from_slice(body).map_err(|error| format!("not an AdmissionReview: {error}"))?;
        let version = [V1, V1BETA1].into_iter().find(|version| *version == api_version);
        let version = version
            .filter(|_| kind == "AdmissionReview")
            .ok_or_else(|| format!("not an AdmissionReview of {V1} or {V1BETA1}, but kind {kind:?} of {api_version:?}"))?;
        if request.uid.is_empty() {
            return Err("not an AdmissionReview: request.uid is empty".to_owned());
        }
        Ok(Self { version, request })
    }

    /// The review with its answer.
    pub fn write(self, answer: Answer) -> Value {
        let Answer { outcome, warnings } = answer;
        let mut response = json!({ "uid": self.request.uid, "allowed": true });
        match outcome {
            Outcome::Admitted => {}
            Outcome::Patched(operations) => {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(ByteString(operations.to_string().into_bytes()));
            }
            Outcome::Denied(denial) => {
                response["allowed"] = json!(false);
                response["status"] = json!(denial.status());
            }
        }
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        json!({ "apiVersion": self.version, "kind": "AdmissionReview", "response": response })
    }
}

/// The answer to a request.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The decision.
    pub outcome: Outcome,
    /// What the author should know all the same.
    pub warnings: Vec<String>,
}

/// The decision about a request.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// As it is.
    Admitted,
    /// With these operations of a JSON patch.
    Patched(Value),
    /// Not at all.
    Denied(Denial),
}

impl Answer {
    /// Admitted without a word.
    pub fn admitted() -> Self {
        Self { outcome: Outcome::Admitted, warnings: Vec::new() }
    }

    /// The HTTP code that stands for the decision.
    pub fn code(&self) -> u16 {
        match &self.outcome {
            Outcome::Admitted | Outcome::Patched(_) => 200,
            Outcome::Denied(denial) => denial.code(),
        }
    }
}

impl From<Result<Vec<String>, Denial>> for Answer {
    fn from(decision: Result<Vec<String>, Denial>) -> Self {
        match decision {
            Ok(warnings) => {
                Self { outcome: Outcome::Admitted, warnings: warnings.iter().map(|warning| printable(warning)).collect() }
            }
            Err(denial) => Self { outcome: Outcome::Denied(denial), warnings: Vec::new() },
        }
    }
}

/// A warning travels in an HTTP header, which holds no control characters.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(version: &str) -> Value {
        json!({
            "apiVersion": version,
            "kind": "AdmissionReview",
            "request": {
                "uid": "u-1",
                "kind": {"group": "ipam.cluster.x-k8s.io", "version": "v1alpha2", "kind": "InClusterIPPool"},
                "name": "blue",
                "namespace": "team-a",
                "operation": "DELETE",
                "object": null,
                "oldObject": {"metadata": {"name": "blue"}},
                "userInfo": {"username": "somebody"},
            },
        })
    }

    fn read(body: &Value) -> Result<Review, String> {
        Review::read(body.to_string().as_bytes())
    }

    #[test]
    fn the_version_that_was_asked_in_is_answered_in() {
        for version in [V1, V1BETA1] {
            let review = read(&body(version)).unwrap();
            assert_eq!((review.request.operation, review.request.object.is_none()), (Operation::Delete, true));
            assert_eq!(
                review.write(Answer::admitted()),
                json!({
                    "apiVersion": version,
                    "kind": "AdmissionReview",
                    "response": {"uid": "u-1", "allowed": true},
                })
            );
        }
    }

    #[test]
    fn a_patch_is_written_in_base64() {
        let outcome = Outcome::Patched(json!([]));
        let answer = Answer { outcome, warnings: vec!["careful".to_owned()] };
        assert_eq!(
            read(&body(V1)).unwrap().write(answer)["response"],
            json!({"uid": "u-1", "allowed": true, "patchType": "JSONPatch", "patch": "W10=", "warnings": ["careful"]})
        );
    }

    #[test]
    fn a_denial_carries_its_status() {
        let answer = Answer::from(Err(Denial::Refused("no".to_owned())));
        let written = read(&body(V1)).unwrap().write(answer);
        assert_eq!(written["response"]["allowed"], false);
        assert_eq!(written["response"]["status"]["message"], "no");
    }

    #[test]
    fn what_is_no_review_is_refused() {
        let with = |path: &str, value: Value| {
            let mut body = body(V1);
            *body.pointer_mut(path).unwrap() = value;
            body
        };
        for bad in [
            json!({}),
            json!([]),
            with("/apiVersion", json!("admission.k8s.io/v2")),
            with("/kind", json!("ConversionReview")),
            with("/request", json!(null)),
            with("/request/uid", json!("")),
            with("/request/operation", json!("EXPLODE")),
            with("/request/kind", json!("InClusterIPPool")),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        assert!(Review::read(b"{").is_err());
        let deep = format!(r#"{{"apiVersion":{}"#, "[".repeat(100_000));
        assert!(Review::read(deep.as_bytes()).is_err());
    }
}
