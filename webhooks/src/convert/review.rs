//! A `ConversionReview`. It may carry many objects, so they are read, converted and written one at a time.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Value, json};

use super::convert;

const API_VERSION: &str = "apiextensions.k8s.io/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    kind: String,
    request: Head,
}

/// The request without its objects.
#[derive(Deserialize)]
struct Head {
    uid: String,
    #[serde(rename = "desiredAPIVersion")]
    desired: String,
}

/// The answer to a conversion review.
#[derive(Debug)]
pub struct Converted {
    /// The review with all objects, or with the reason why one of them has no such form.
    pub body: Vec<u8>,
    /// Whether there are objects.
    pub succeeded: bool,
}

/// Converts all objects of a review, or says why it is no review. Nesting is bounded by the JSON reader.
pub fn answer(body: &[u8]) -> Result<Converted, String> {
    let malformed = |error: serde_json::Error| format!("not a ConversionReview: {error}");
    let Envelope { api_version, kind, request } = serde_json::from_slice(body).map_err(malformed)?;
    if api_version != API_VERSION || kind != "ConversionReview" {
        return Err(format!("not a ConversionReview of {API_VERSION}, but kind {kind:?} of {api_version:?}"));
    }
    if request.uid.is_empty() {
        return Err("not a ConversionReview: request.uid is empty".to_owned());
    }

    let uid = json!(request.uid);
    let mut answer =
        format!(r#"{{"apiVersion":"{API_VERSION}","kind":"ConversionReview","response":{{"uid":{uid},"#).into_bytes();
    let head = answer.len();
    answer.extend_from_slice(br#""convertedObjects":["#);
    let mut objects = Objects { desired: &request.desired, written: answer, count: 0, failure: None };
    let mut reader = serde_json::Deserializer::from_slice(body);
    Below { key: "request", inner: Below { key: "objects", inner: &mut objects } }.deserialize(&mut reader).map_err(malformed)?;

    let Objects { written: mut answer, failure, .. } = objects;
    let succeeded = failure.is_none();
    match failure {
        None => answer.extend_from_slice(br#"],"result":{"status":"Success"}}}"#),
        Some(message) => {
            answer.truncate(head);
            let result = json!({ "status": "Failure", "message": message });
            answer.extend_from_slice(format!(r#""result":{result}}}}}"#).as_bytes());
        }
    }
    Ok(Converted { body: answer, succeeded })
}

/// Reads one key of an object with `inner` and passes over the others. The key must be there, once.
struct Below<S> {
    key: &'static str,
    inner: S,
}

impl<'de, S: DeserializeSeed<'de, Value = ()>> DeserializeSeed<'de> for Below<S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, S: DeserializeSeed<'de, Value = ()>> Visitor<'de> for Below<S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {}", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut inner = Some(self.inner);
        while let Some(key) = map.next_key::<String>()? {
            if key == self.key {
                let inner = inner.take().ok_or_else(|| A::Error::duplicate_field(self.key))?;
                map.next_value_seed(inner)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if inner.is_some() { Err(A::Error::missing_field(self.key)) } else { Ok(()) }
    }
}

/// Converts each object of a list and writes it out. After a failure the rest is passed over.
struct Objects<'a> {
    desired: &'a str,
    written: Vec<u8>,
    count: usize,
    failure: Option<String>,
}

impl Objects<'_> {
    fn take(&mut self, object: Value) {
        let name = name_of(&object);
        match convert(object, self.desired).map(|object| serde_json::to_vec(&object)) {
            Ok(Ok(object)) => {
                if self.count > 0 {
                    self.written.push(b',');
                }
                self.written.extend_from_slice(&object);
                self.count += 1;
            }
            Ok(Err(error)) => self.failure = Some(format!("{name}: {error}")),
            Err(error) => self.failure = Some(format!("{name}: {error}")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Objects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut Objects<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> Result<(), A::Error> {
        while self.failure.is_none() {
            match objects.next_element::<Value>()? {
                Some(object) => self.take(object),
                None => return Ok(()),
            }
        }
        while objects.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Kind, namespace and name, for people.
fn name_of(object: &Value) -> String {
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (part(&object["kind"]), &object["metadata"]);
    let (namespace, name) = (part(&metadata["namespace"]), part(&metadata["name"]));
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str, subnet: &str) -> Value {
        json!({
            "apiVersion": "ipam.cluster.x-k8s.io/v1alpha1",
            "kind": "InClusterIPPool",
            "metadata": {"name": name, "namespace": "team-a"},
            "spec": {"subnet": subnet},
        })
    }

    fn review(objects: &[Value]) -> Value {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "request": {
                "uid": "u\"1",
                "desiredAPIVersion": "ipam.cluster.x-k8s.io/v1alpha2",
                "objects": objects,
            },
        })
    }

    fn ask(review: &Value) -> (Value, bool) {
        let Converted { body, succeeded } = answer(review.to_string().as_bytes()).unwrap();
        (serde_json::from_slice(&body).unwrap(), succeeded)
    }

    #[test]
    fn all_objects_come_back_in_their_order() {
        let objects = [pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")];
        let converted: Vec<_> =
            objects.iter().map(|object| convert(object.clone(), "ipam.cluster.x-k8s.io/v1alpha2").unwrap()).collect();
        let (answer, succeeded) = ask(&review(&objects));
        assert_eq!(
            answer,
            json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "ConversionReview",
                "response": {"uid": "u\"1", "convertedObjects": converted, "result": {"status": "Success"}},
            })
        );
        assert!(succeeded);
        assert_eq!(ask(&review(&[])).0["response"]["convertedObjects"], json!([]));
    }

    #[test]
    fn one_failing_object_fails_the_review_with_its_message() {
        let (answer, succeeded) = ask(&review(&[pool("a", "10.0.0.0/24"), pool("b", "nonsense"), pool("c", "worse")]));
        let response = &answer["response"];
        assert_eq!((succeeded, response.get("convertedObjects")), (false, None));
        assert_eq!(response["result"]["status"], "Failure");
        let message = response["result"]["message"].as_str().unwrap();
        assert!(message.starts_with("InClusterIPPool team-a/b: spec.subnet: Invalid value: \"nonsense\": "), "{message}");
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let object = pool("a", "10.0.0.0/24");
        let text = format!(
            r#"{{"request":{{"objects":[{object}],"more":{{}},"desiredAPIVersion":"ipam.cluster.x-k8s.io/v1alpha2","uid":"1"}},
                "kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/v1"}}"#
        );
        assert!(answer(text.as_bytes()).unwrap().succeeded);
    }

    #[test]
    fn what_is_no_review_is_refused() {
        let with = |path: &str, value: Value| {
            let mut review = review(&[]);
            *review.pointer_mut(path).unwrap() = value;
            review
        };
        for bad in [
            json!({}),
            json!(7),
            with("/apiVersion", json!("apiextensions.k8s.io/v1beta1")),
            with("/kind", json!("AdmissionReview")),
            with("/request", json!({"uid": "1", "desiredAPIVersion": "x"})),
            with("/request/uid", json!("")),
            with("/request/objects", json!({})),
            with("/request/desiredAPIVersion", json!(null)),
        ] {
            assert!(answer(bad.to_string().as_bytes()).is_err(), "{bad}");
        }
        let twice = review(&[]).to_string().replace(r#""objects":[]"#, r#""objects":[],"objects":[]"#);
        assert!(answer(twice.as_bytes()).is_err());
        let deep = review(&[]).to_string().replace("[]", &format!("[{}", r#"{"a":"#.repeat(100_000)));
        assert!(answer(deep.as_bytes()).is_err());
    }
}
