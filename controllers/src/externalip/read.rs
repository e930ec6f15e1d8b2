//! Reads objects as the watches deliver them into the few facts that plans are made from. The objects themselves are dropped.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use api::PoolKind;
use api::capi::{CapiVersion, ClaimConditions, IpAddressClaim};
use api::externalip::names::{
    EXTERNAL_DNS_HOSTNAME, EXTERNAL_DNS_MANAGER, EXTERNAL_DNS_TARGET, EXTERNAL_IPS_MANAGER, MANAGED, PORT_CONFLICT, READY,
    REFRESH, REQUESTED_ADDRESSES, SERVICE_LABEL, SOURCE, STATUS_MANAGER,
};
use api::externalip::{ClusterExternalIPSource, PoolRef, check};
use api::names::{REQUESTED_ADDRESS, REQUESTED_ADDRESS_SHORT};
use api::v1alpha2::IpPool;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use poolutil::{Cidr, Family, parse_entry};
use serde_json::Value;

use super::facts::{ClaimFacts, Ingress, Owner, Rules, ServiceFacts, ServiceKey, SourceFacts, TargetFacts};

/// What matters of a Service.
pub fn service(object: Service, rules: &Rules) -> ServiceFacts {
    let Service { metadata: meta, spec, status } = object;
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let fields = meta.managed_fields.as_deref().unwrap_or_default();
    let annotations = meta.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(name)).cloned();
    let prefixed = |suffix: &'static str| rules.external_dns_prefixes.iter().map(move |prefix| format!("{prefix}{suffix}"));
    let targets = prefixed(EXTERNAL_DNS_TARGET).map(|name| {
        let path = ["f:metadata", "f:annotations", &format!("f:{name}")];
        TargetFacts {
            value: annotation(&name),
            ours: fields.iter().any(|entry| holds(entry, EXTERNAL_DNS_MANAGER, "", &path)),
            other: managers(fields, &path).into_iter().find(|manager| manager != EXTERNAL_DNS_MANAGER),
            annotation: name,
        }
    });
    let hostnames = prefixed(EXTERNAL_DNS_HOSTNAME).filter_map(|name| annotation(&name)).collect::<Vec<_>>();
    let mut writers = managers(fields, &["f:spec", "f:externalIPs"]);
    writers.retain(|manager| manager != EXTERNAL_IPS_MANAGER);
    ServiceFacts {
        key: ServiceKey { namespace: text(meta.namespace.as_ref()), name: text(meta.name.as_ref()) },
        uid: text(meta.uid.as_ref()),
        revision: text(meta.resource_version.as_ref()),
        deleting: meta.deletion_timestamp.is_some(),
        created: meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        source: annotation(SOURCE),
        record: annotation(MANAGED),
        requested: annotation(REQUESTED_ADDRESSES),
        hostnames: hostnames.iter().flat_map(|list| list.split(',')).map(host).filter(|host| !host.is_empty()).collect(),
        targets: targets.collect(),
        external_ips: spec.external_ips.unwrap_or_default(),
        external_ips_managers: writers,
        ingress: status
            .load_balancer
            .and_then(|balancer| balancer.ingress)
            .unwrap_or_default()
            .into_iter()
            .map(|entry| Ingress { ip: entry.ip.as_deref().and_then(|ip| ip.parse().ok()), mode: entry.ip_mode })
            .collect(),
        ingress_ours: fields.iter().any(|entry| holds(entry, STATUS_MANAGER, "status", &["f:status", "f:loadBalancer"])),
        lingering: None,
        kind: spec.type_.unwrap_or_default(),
        class: spec.load_balancer_class,
        families: spec.ip_families.unwrap_or_default().iter().filter_map(|name| family(name)).collect(),
        cluster_ips: spec.cluster_ips.unwrap_or_default().iter().filter_map(|ip| ip.parse().ok()).collect(),
        ports: spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| Some((u16::try_from(port.port).ok()?, port.protocol.unwrap_or_else(|| "TCP".to_owned()))))
            .collect(),
        conditions: status
            .conditions
            .unwrap_or_default()
            .into_iter()
            .filter(|condition| [READY, PORT_CONFLICT].contains(&condition.type_.as_str()))
            .collect(),
        labels: meta.labels.unwrap_or_default(),
    }
}

/// What matters of a source.
pub fn source(object: ClusterExternalIPSource, api_targets: &[Cidr]) -> SourceFacts {
    let ClusterExternalIPSource { metadata: meta, spec, status } = object;
    SourceFacts {
        name: text(meta.name.as_ref()),
        uid: text(meta.uid.as_ref()),
        generation: meta.generation.unwrap_or_default(),
        spec: check(&spec, api_targets).source,
        refresh: meta.annotations.as_ref().and_then(|all| all.get(REFRESH)).cloned(),
        status,
    }
}

/// What matters of a claim, but for its address, which is an object of its own. `None` for one that is on no IP pool of ours.
pub fn claim(object: &IpAddressClaim, version: CapiVersion, seen: Instant) -> Option<ClaimFacts> {
    let meta = &object.metadata;
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name);
    let kind = PoolKind::from_kind(&object.spec.pool_ref.kind)?;
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let ready = ClaimConditions::of(object, version);
    let ready = ready.new_ready.or(ready.legacy_ready).filter(|ready| ready.status != "True");
    Some(ClaimFacts {
        name: text(meta.name.as_ref()),
        uid: text(meta.uid.as_ref()),
        revision: text(meta.resource_version.as_ref()),
        deleting: meta.deletion_timestamp.is_some(),
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        service: meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_LABEL)).cloned(),
        owner: owner.map(|owner| Owner {
            api_version: owner.api_version.clone(),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        }),
        pool: PoolRef { kind, name: object.spec.pool_ref.name.clone() },
        requested: annotation(REQUESTED_ADDRESS).or_else(|| annotation(REQUESTED_ADDRESS_SHORT)).cloned(),
        address: None,
        waiting: ready.map(|ready| (ready.reason, ready.message)),
        seen,
    })
}

/// The family of a pool's addresses, if that can be said.
pub fn pool_family(pool: &IpPool) -> Option<Family> {
    pool.spec.addresses.iter().find_map(|entry| parse_entry(entry).ok()).map(|entry| entry.range.family())
}

/// The address in an address object.
pub fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

/// The labels of an object.
pub fn labels(meta: &ObjectMeta) -> BTreeMap<String, String> {
    meta.labels.clone().unwrap_or_default()
}

fn text(field: Option<&String>) -> String {
    field.cloned().unwrap_or_default()
}

/// A name as it is compared with others.
fn host(name: &str) -> String {
    name.trim().trim_end_matches('.').to_lowercase()
}

fn family(name: &str) -> Option<Family> {
    match name {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    }
}

/// Whether the manager set the field by a write to that subresource.
fn holds(entry: &ManagedFieldsEntry, manager: &str, subresource: &str, path: &[&str]) -> bool {
    entry.manager.as_deref() == Some(manager)
        && entry.subresource.as_deref().unwrap_or_default() == subresource
        && has(entry, path)
}

/// Who set the field, the latest first.
fn managers(fields: &[ManagedFieldsEntry], path: &[&str]) -> Vec<String> {
    let mut found: Vec<_> = fields.iter().filter(|entry| has(entry, path)).collect();
    found.sort_by_key(|entry| std::cmp::Reverse(entry.time.as_ref().map(|time| time.0)));
    found.into_iter().filter_map(|entry| entry.manager.clone()).collect()
}

fn has(entry: &ManagedFieldsEntry, path: &[&str]) -> bool {
    let root: Option<&Value> = entry.fields_v1.as_ref().map(|fields| &fields.0);
    path.iter().fold(root, |value, key| value?.get(key)).is_some()
}
