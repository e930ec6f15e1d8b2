//! Defaults, checks and warnings for pools. Called by the listener for two paths of each kind.

mod rules;
mod warnings;

use api::names::{DELETE_FOR_MOVE, IPAM_GROUP, SKIP_VALIDATE_DELETE};
use api::v1alpha2::{DEFAULT_ALLOCATION_PREFIX_LENGTH, IpPoolSpec, PrefixPoolSpec};
use api::{Pool, PoolKind};
use poolutil::{Span, SpecError};
use serde_json::{Value, json};

use crate::denial::{Cause, Denial};
use crate::index::{PoolIndex, PoolName};
use crate::registration::POOL_VERSION;
use crate::review::{Answer, Operation, Outcome, Request};
use rules::Rules;
use warnings::Change;

/// Fills in what a pool leaves out: the length of the prefixes that a prefix pool hands out.
///
/// The object has not met its schema yet, so anything may stand anywhere; what is no pool is left to the schema.
pub fn default(kind: PoolKind, request: &Request) -> Answer {
    let object = request.object.as_ref().filter(|_| kind.is_prefix() && !is_deleting(request));
    let Some(spec) = object.and_then(|object| object["spec"].as_object()) else { return Answer::admitted() };
    let missing = spec.get("allocationPrefixLength").is_none_or(|length| length.is_null() || *length == json!(0));
    if !missing {
        return Answer::admitted();
    }
    let length = DEFAULT_ALLOCATION_PREFIX_LENGTH;
    let operations = json!([{ "op": "add", "path": "/spec/allocationPrefixLength", "value": length }]);
    Answer { outcome: Outcome::Patched(operations), warnings: Vec::new() }
}

/// Says whether a pool may be created, changed or deleted.
pub fn validate(kind: PoolKind, request: &Request, index: &dyn PoolIndex) -> Answer {
    let asked = &request.kind;
    if asked.group != IPAM_GROUP || asked.version != POOL_VERSION || asked.kind != kind.kind() {
        let (group, version, name) = (&asked.group, &asked.version, &asked.kind);
        let message = format!("asked about {name} of {group}/{version} where {kind} of {IPAM_GROUP}/{POOL_VERSION} is checked");
        return Answer::from(Err(Denial::Unreadable(message)));
    }
    // What is going is not held up by what is wrong with it: it must be able to lose its finalizer.
    if is_deleting(request) {
        return Answer::admitted();
    }
    let name = PoolName { kind, namespace: if kind.is_global() { "" } else { &request.namespace }, name: &request.name };
    Answer::from(match request.operation {
        Operation::Create | Operation::Update if kind.is_prefix() => change::<PrefixPoolSpec>(name, request, index),
        Operation::Create | Operation::Update => change::<IpPoolSpec>(name, request, index),
        Operation::Delete => deletion(name, request, index),
        Operation::Connect => Ok(Vec::new()),
    })
}

fn is_deleting(request: &Request) -> bool {
    [&request.object, &request.old_object].into_iter().flatten().any(|object| !object["metadata"]["deletionTimestamp"].is_null())
}

fn change<S: Rules>(name: PoolName<'_>, request: &Request, index: &dyn PoolIndex) -> Result<Vec<String>, Denial> {
    let new: Pool<S> = read(request.object.as_ref(), "object")?;
    let old: Option<Pool<S>> =
        (request.operation == Operation::Update).then(|| read(request.old_object.as_ref(), "oldObject")).transpose()?;

    let invalid = |errors: Vec<SpecError>| Denial::Invalid {
        kind: name.kind.kind(),
        group: IPAM_GROUP,
        name: name.name.to_owned(),
        causes: errors.iter().map(Cause::from).collect(),
    };
    let space = new.spec.space().map_err(invalid)?;
    let misplaced = new.spec.misplaced(&space);
    if !misplaced.is_empty() {
        return Err(invalid(misplaced));
    }

    let mut objects = 0;
    if let Some(old) = old.as_ref().filter(|old| old.spec != new.spec) {
        if let Some(message) = new.spec.immutable(&old.spec) {
            return Err(Denial::Refused(message));
        }
        let in_use = index.in_use(name)?;
        objects = in_use.objects;
        // Under an old spec that is invalid nothing was allocatable, so nothing can be lost.
        let lost: Vec<Span> = old.spec.space().map_or_else(
            |_| Vec::new(),
            |before| {
                in_use.values.into_iter().filter(|held| before.is_allocatable(held) && !space.is_allocatable(held)).collect()
            },
        );
        if !lost.is_empty() {
            return Err(Denial::Refused(S::lost(lost)));
        }
    }
    Ok(Change { name, old: old.as_ref(), new: &new, space: &space, objects }.warnings(index))
}

fn read<S: Rules>(object: Option<&Value>, field: &str) -> Result<Pool<S>, Denial> {
    let object = object.ok_or_else(|| Denial::Unreadable(format!("request.{field} is missing")))?;
    serde::Deserialize::deserialize(object).map_err(|error| Denial::Unreadable(format!("request.{field} is no pool: {error}")))
}

fn deletion(name: PoolName<'_>, request: &Request, index: &dyn PoolIndex) -> Result<Vec<String>, Denial> {
    let annotations = request.old_object.as_ref().map(|object| &object["metadata"]["annotations"]);
    let has = |annotation: &str| annotations.is_some_and(|annotations| annotations.get(annotation).is_some());
    if has(SKIP_VALIDATE_DELETE) || has(DELETE_FOR_MOVE) {
        return Ok(Vec::new());
    }
    let objects = index.in_use(name)?.objects;
    if objects == 0 {
        return Ok(Vec::new());
    }
    Err(Denial::Refused(format!(
        "Pool has IPAddresses allocated: {objects} of them. Delete their IPAddressClaims first, or set the annotation \
         {SKIP_VALIDATE_DELETE} on the pool: it then goes after its last address"
    )))
}

#[cfg(test)]
mod tests;
