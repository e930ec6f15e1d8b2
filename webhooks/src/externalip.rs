//! Checks and warnings for external IP sources. Called by the listener.

use api::externalip::{ClusterExternalIPSource, KIND, check, names::GROUP};
use poolutil::Cidr;
use serde::Deserialize as _;
use serde_json::Value;

use crate::denial::{Cause, Denial};
use crate::registration::SOURCE_VERSION;
use crate::review::{Answer, Operation, Request};

/// Says whether a source may be created or changed. What stays as it is passes, however wrong it is: labels and finalizers
/// must not be held up by it.
pub fn validate(request: &Request, api_targets: &[Cidr]) -> Answer {
    let asked = &request.kind;
    if asked.group != GROUP || asked.version != SOURCE_VERSION || asked.kind != KIND {
        let (group, version, name) = (&asked.group, &asked.version, &asked.kind);
        let message = format!("asked about {name} of {group}/{version} where {KIND} of {GROUP}/{SOURCE_VERSION} is checked");
        return Answer::from(Err(Denial::Unreadable(message)));
    }
    match request.operation {
        Operation::Create | Operation::Update => Answer::from(change(request, api_targets)),
        Operation::Delete | Operation::Connect => Answer::admitted(),
    }
}

fn change(request: &Request, api_targets: &[Cidr]) -> Result<Vec<String>, Denial> {
    let spec = |object: &Option<Value>| object.as_ref().map(|object| object["spec"].clone());
    if request.operation == Operation::Update && spec(&request.object) == spec(&request.old_object) {
        return Ok(Vec::new());
    }
    let object = request.object.as_ref().ok_or_else(|| Denial::Unreadable("request.object is missing".to_owned()))?;
    let source = ClusterExternalIPSource::deserialize(object)
        .map_err(|error| Denial::Unreadable(format!("request.object is no source: {error}")))?;
    let checked = check(&source.spec, api_targets);
    if let Err(errors) = checked.source {
        return Err(Denial::Invalid {
            kind: KIND,
            group: GROUP,
            name: request.name.clone(),
            causes: errors.iter().map(Cause::from).collect(),
        });
    }
    Ok(checked.warnings)
}

#[cfg(test)]
mod tests;
