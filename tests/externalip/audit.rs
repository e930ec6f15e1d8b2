//! What must be true in a namespace whatever was done there: our record and the Services agree, and no claim of ours is left behind.
//!
//! [`passes`] proves that
//! 1. every address that a record says we put into `spec.externalIPs` is there, once;
//! 2. every claim of ours belongs to a Service that exists and that is bound to a source, and none hangs at its end;
//! 3. every address from a pool that a Service carries is held by a live claim of that very Service.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use serde_json::Value;
use testbed::{SOURCE, Scene, eventually};

const RECORD: &str = "externalip.spacebird.dev/managed";
const SERVICE_LABEL: &str = "externalip.spacebird.dev/service";
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until nothing is wrong any more in the scene's namespace; fails with all that still is.
pub async fn passes(scene: &Scene) -> Result<()> {
    eventually(PATIENCE, async || {
        let faults = faults(scene).await?;
        ensure!(faults.is_empty(), "the audit found {} faults:\n{}", faults.len(), faults.join("\n"));
        Ok(())
    })
    .await
}

async fn faults(scene: &Scene) -> Result<Vec<String>> {
    let list = async |kind: &str| -> Result<Vec<DynamicObject>> { Ok(scene.api(kind).list(&ListParams::default()).await?.items) };
    // Claims before Services: one that is made in between belongs to a Service that is seen.
    let addresses = list("IPAddress").await?;
    let claims = list("IPAddressClaim").await?.into_iter().filter(|claim| claim.labels().contains_key(SERVICE_LABEL));
    let services: BTreeMap<String, DynamicObject> =
        list("Service").await?.into_iter().map(|service| (service.name_any(), service)).collect();
    let mut faults = Vec::new();
    // Values that live claims hold, by the Service's name.
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for claim in claims {
        let name = claim.name_any();
        let service = services.get(&claim.labels()[SERVICE_LABEL]);
        let owned = |service: &&DynamicObject| {
            claim.owner_references().iter().any(|owner| Some(&owner.uid) == service.metadata.uid.as_ref())
        };
        match service.filter(owned) {
            None => faults.push(format!("claim {name} has no Service")),
            Some(service) if !service.annotations().contains_key(SOURCE) => {
                faults.push(format!("claim {name} is of a Service that is bound to nothing"));
            }
            Some(_) if claim.metadata.deletion_timestamp.is_some() => faults.push(format!("claim {name} hangs at its end")),
            Some(service) => {
                let address = addresses.iter().find(|address| claim.data["status"]["addressRef"]["name"] == address.name_any());
                let value = address.and_then(|address| address.data["spec"]["address"].as_str());
                held.entry(service.name_any()).or_default().extend(value.map(str::to_owned));
            }
        }
    }
    for (name, service) in &services {
        let nothing = Vec::new();
        faults
            .extend(of_service(service, held.get(name).unwrap_or(&nothing)).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    Ok(faults)
}

fn of_service(service: &DynamicObject, held: &[String]) -> Vec<String> {
    // One that a trial has broken is nobody's word.
    let Some(record) = service.annotations().get(RECORD) else { return Vec::new() };
    let Ok(record) = serde_json::from_str::<Value>(record) else { return vec![format!("an unreadable record {record}")] };
    let external: Vec<&str> =
        service.data["spec"]["externalIPs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut faults = Vec::new();
    for address in record["externalIPs"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let count = external.iter().filter(|entry| **entry == address).count();
        if count != 1 {
            faults.push(format!("{address} is recorded and {count} times in {external:?}"));
        }
    }
    for (address, provenance) in record["addresses"].as_object().into_iter().flatten() {
        let from_pool = provenance.as_str().is_some_and(|provenance| provenance.starts_with("ipPool/"));
        if from_pool && !held.contains(address) {
            faults.push(format!("{address} is from a pool, but no claim holds it, only {held:?}"));
        }
    }
    faults
}
