//! Pools from one served version to the other, as JSON: whatever is not named here passes as it is, and of the metadata
//! only one annotation changes. Called by the listener.
//!
//! The older version can describe a pool by a subnet, the newer one has exclusions, reserved addresses and grace. What the
//! target cannot say travels in the annotation `cluster.x-k8s.io/conversion-data`, as the source object without metadata:
//!
//! - a stored v1alpha2 object carries the v1alpha1 object it was made from, if it was;
//! - a v1alpha1 object carries the v1alpha2 object it was made from, if that has fields it would lose.

mod review;
mod spec;

use api::PoolKind;
use api::names::{CONVERSION_DATA, IPAM_GROUP};
use api::{v1alpha1, v1alpha2};
use serde_json::{Map, Value, json};

pub use review::answer;

/// Why an object cannot be converted. Each names what stands in the way.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// It is no JSON object.
    #[error("not an object: {0}")]
    NotAnObject(String),
    /// The group is not ours.
    #[error("unknown group in {0:?}, the pools' is ipam.cluster.x-k8s.io")]
    UnknownGroup(String),
    /// There is no such kind.
    #[error("unknown kind {0:?}")]
    UnknownKind(String),
    /// The kind has no such version.
    #[error("unknown version {version:?} of {kind}")]
    UnknownVersion {
        /// The kind.
        kind: PoolKind,
        /// The version.
        version: String,
    },
    /// A field of the spec is not what it should be.
    #[error("{field}: Invalid value: {value}: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What stands there, as JSON.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The object in the version `desired`, a group and version.
pub fn convert(object: Value, desired: &str) -> Result<Value, ConvertError> {
    let Value::Object(mut object) = object else { return Err(ConvertError::NotAnObject(shortened(&object))) };
    let kind = text_of(&object, "kind");
    let kind = PoolKind::from_kind(kind).ok_or_else(|| ConvertError::UnknownKind(kind.to_owned()))?;
    let from = Version::read(kind, text_of(&object, "apiVersion"))?;
    let to = Version::read(kind, desired)?;
    if from != to {
        // The API server converts objects without a spec too, to know which fields somebody manages.
        if object.get("spec").is_some_and(|spec| !spec.is_null()) {
            match to {
                Version::V1alpha2 => upgrade(&mut object)?,
                Version::V1alpha1 => downgrade(&mut object)?,
            }
        }
        object.insert("apiVersion".to_owned(), json!(to.api_version()));
    }
    Ok(Value::Object(object))
}

/// A served version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1alpha1,
    V1alpha2,
}

impl Version {
    fn read(kind: PoolKind, api_version: &str) -> Result<Self, ConvertError> {
        let Some(version) = api_version.strip_prefix(IPAM_GROUP).and_then(|rest| rest.strip_prefix('/')) else {
            return Err(ConvertError::UnknownGroup(api_version.to_owned()));
        };
        match version {
            v1alpha2::VERSION => Ok(Self::V1alpha2),
            v1alpha1::VERSION if !kind.is_prefix() => Ok(Self::V1alpha1),
            _ => Err(ConvertError::UnknownVersion { kind, version: version.to_owned() }),
        }
    }

    fn api_version(self) -> String {
        let version = match self {
            Self::V1alpha1 => v1alpha1::VERSION,
            Self::V1alpha2 => v1alpha2::VERSION,
        };
        format!("{IPAM_GROUP}/{version}")
    }
}

/// From v1alpha1 to v1alpha2.
fn upgrade(object: &mut Map<String, Value>) -> Result<(), ConvertError> {
    let spec = spec::with_defaults(spec_of(object)?)?;
    let data = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "spec": spec,
        "status": object.get("status").filter(|status| !status.is_null()).cloned().unwrap_or_else(|| json!({})),
    });
    let mut spec = spec::upgraded(spec)?;
    if let Some(stored) = Stored::take(object)
        && stored.api_version.as_deref() == Some(&Version::V1alpha2.api_version())
    {
        spec::restore_newer(&mut spec, &stored.spec);
    }
    object.insert("spec".to_owned(), Value::Object(spec));
    Stored::put(object, &data);
    Ok(())
}

/// From v1alpha2 to v1alpha1.
fn downgrade(object: &mut Map<String, Value>) -> Result<(), ConvertError> {
    let newer = spec_of(object)?.clone();
    let mut older = spec::downgraded(&newer);
    // Data without a version is of a converter that knew only this one.
    if let Some(stored) = Stored::take(object)
        && stored.api_version.is_none_or(|version| version == Version::V1alpha1.api_version())
        && spec::describes(&stored.spec, &newer)
    {
        spec::restore_older(&mut older, &stored.spec);
    }
    if spec::has_newer(&newer) {
        let data = json!({ "apiVersion": object["apiVersion"], "kind": object["kind"], "spec": newer });
        Stored::put(object, &data);
    }
    object.insert("spec".to_owned(), Value::Object(older));
    if let Some(Value::Object(status)) = object.get_mut("status") {
        for ours in ["conditions", "observedGeneration", "ipAddressesExact"] {
            status.remove(ours);
        }
    }
    Ok(())
}

fn spec_of(object: &Map<String, Value>) -> Result<&Map<String, Value>, ConvertError> {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    spec.as_object().ok_or_else(|| ConvertError::Field {
        field: "spec",
        value: shortened(spec),
        reason: "not an object".to_owned(),
    })
}

/// An object in the annotation.
struct Stored {
    api_version: Option<String>,
    spec: Map<String, Value>,
}

impl Stored {
    /// Takes the annotation off. What cannot be read is as good as absent: it must not stand in the way of reading a pool.
    fn take(object: &mut Map<String, Value>) -> Option<Self> {
        let metadata = object.get_mut("metadata")?.as_object_mut()?;
        let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.remove(CONVERSION_DATA)?;
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
        let Value::Object(mut data) = serde_json::from_str(text.as_str()?).ok()? else { return None };
        let api_version = match data.remove("apiVersion") {
            None => None,
            Some(Value::String(version)) => Some(version),
            Some(_) => return None,
        };
        match data.remove("spec")? {
            Value::Object(spec) => Some(Self { api_version, spec }),
            _ => None,
        }
    }

    /// Puts the annotation on, in place of one that may be there.
    fn put(object: &mut Map<String, Value>, data: &Value) {
        let metadata = object.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else { return };
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(CONVERSION_DATA.to_owned(), json!(data.to_string()));
        }
    }
}

/// The text of a key, empty if there is none.
fn text_of<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A value as JSON, cut to what a message can bear.
fn shortened(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

#[cfg(test)]
mod tests;
