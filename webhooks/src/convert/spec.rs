//! The specs of both versions and their fields.

use poolutil::{AddrRange, ParseError, parse_network};
use serde_json::{Map, Value, json};

use super::{ConvertError, shortened, text_of};

/// The fields that only v1alpha2 has.
const NEWER: [&str; 3] = ["allocateReservedIPAddresses", "excludedAddresses", "addressReuseGracePeriodSeconds"];

/// The fields of v1alpha1.
const OLDER: [&str; 6] = ["addresses", "subnet", "start", "end", "prefix", "gateway"];

type Fields = Map<String, Value>;

/// A v1alpha1 spec with `start`, `end` and `prefix` filled in from its subnet, if it has one.
///
/// 1. A missing `start` is the subnet's first address + 1, a missing `end` its last - 1, whatever the family.
/// 2. A `prefix` of zero is the subnet's length.
pub fn with_defaults(spec: &Fields) -> Result<Fields, ConvertError> {
    let mut spec = spec.clone();
    let subnet = text(&spec, "subnet", "spec.subnet")?.to_owned();
    let start_missing = text(&spec, "start", "spec.start")?.is_empty();
    let end_missing = text(&spec, "end", "spec.end")?.is_empty();
    if subnet.is_empty() {
        return Ok(spec);
    }
    let invalid = |reason: String| ConvertError::Field { field: "spec.subnet", value: format!("{subnet:?}"), reason };
    let network = parse_network(&subnet).map_err(|error: ParseError| invalid(error.to_string()))?;
    let address = |value: Option<u128>, what: &str| {
        let range = value.and_then(|value| AddrRange::new(network.family(), value, value));
        range.map(|range| json!(range.first_ip())).ok_or_else(|| invalid(format!("there is no address {what}")))
    };
    if start_missing {
        spec.insert("start".to_owned(), address(network.first().checked_add(1), "after its first")?);
    }
    if end_missing {
        spec.insert("end".to_owned(), address(network.last().checked_sub(1), "before its last")?);
    }
    if is_zero(spec.get("prefix")) {
        spec.insert("prefix".to_owned(), json!(network.length()));
    }
    Ok(spec)
}

/// The v1alpha2 spec of a v1alpha1 spec that has its defaults.
pub fn upgraded(mut spec: Fields) -> Result<Fields, ConvertError> {
    let [start, end] = ["start", "end"].map(|end| text_of(&spec, end).to_owned());
    for gone in ["subnet", "start", "end"] {
        spec.remove(gone);
    }
    let addresses = spec.entry("addresses").or_insert_with(|| json!([]));
    if addresses.is_null() {
        *addresses = json!([]);
    }
    let Some(addresses) = addresses.as_array_mut() else {
        let (field, reason) = ("spec.addresses", "not a list".to_owned());
        return Err(ConvertError::Field { field, value: shortened(addresses), reason });
    };
    if !start.is_empty() && !end.is_empty() {
        addresses.push(json!(format!("{start}-{end}")));
    }
    let prefix = spec.entry("prefix").or_insert_with(|| json!(0));
    if prefix.is_null() {
        *prefix = json!(0);
    }
    Ok(spec)
}

/// What v1alpha1 can say of a v1alpha2 spec.
pub fn downgraded(spec: &Fields) -> Fields {
    let mut spec = spec.clone();
    for gone in NEWER {
        spec.remove(gone);
    }
    for optional in ["addresses", "prefix"] {
        if is_zero(spec.get(optional)) {
            spec.remove(optional);
        }
    }
    spec
}

/// Whether a v1alpha2 spec says something that v1alpha1 cannot.
pub fn has_newer(spec: &Fields) -> bool {
    NEWER.iter().any(|field| !is_zero(spec.get(*field)))
}

/// Takes over what v1alpha1 could not say.
pub fn restore_newer(spec: &mut Fields, stored: &Fields) {
    for field in NEWER {
        if let Some(value) = stored.get(field).filter(|value| !is_zero(Some(value))) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
}

/// Takes over how v1alpha1 said it.
pub fn restore_older(spec: &mut Fields, stored: &Fields) {
    for field in OLDER {
        match stored.get(field) {
            Some(value) => spec.insert(field.to_owned(), value.clone()),
            None => spec.remove(field),
        };
    }
}

/// Whether a v1alpha1 spec is still what the v1alpha2 spec says.
pub fn describes(older: &Fields, newer: &Fields) -> bool {
    let same = |one: Option<&Value>, other: Option<&Value>| one == other || (is_zero(one) && is_zero(other));
    with_defaults(older)
        .and_then(upgraded)
        .is_ok_and(|older| ["addresses", "prefix", "gateway"].iter().all(|field| same(older.get(*field), newer.get(*field))))
}

/// Whether a field is absent or says as much as if it were.
fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(_) => false,
    }
}

/// The text of a key, empty if it is absent or null.
fn text<'a>(spec: &'a Fields, key: &str, field: &'static str) -> Result<&'a str, ConvertError> {
    match spec.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(value) => Err(ConvertError::Field { field, value: shortened(value), reason: "not a text".to_owned() }),
    }
}
