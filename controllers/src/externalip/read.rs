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

/// What matters of a claim, but for its address, which is an object of its own.
pub fn claim(object: &IpAddressClaim, version: CapiVersion, seen: Instant) -> ClaimFacts {
    let meta = &object.metadata;
    let annotation = |name: &str| meta.annotations.as_ref()?.get(name);
    // No source can name a pool of prefixes: it stands for every kind that cannot be right.
    let kind = PoolKind::from_kind(&object.spec.pool_ref.kind).unwrap_or(PoolKind::GlobalInClusterPrefixPool);
    let owner = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let ready = ClaimConditions::of(object, version);
    let ready = ready.new_ready.or(ready.legacy_ready).filter(|ready| ready.status != "True");
    ClaimFacts {
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
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> Rules {
        Rules {
            allow_private: false,
            allow: Vec::new(),
            deny: Vec::new(),
            load_balancer_class: "externalip.spacebird.dev/external-ip".to_owned(),
            external_dns_prefixes: vec!["external-dns.kubernetes.io/".to_owned(), "old/".to_owned()],
            source_grace: std::time::Duration::from_secs(300),
            watch_filter: None,
        }
    }

    fn field(manager: &str, subresource: &str, time: &str, fields: &Value) -> Value {
        json!({"manager": manager, "subresource": subresource, "time": time, "operation": "Update", "fieldsType": "FieldsV1",
               "fieldsV1": fields})
    }

    #[test]
    fn a_service_is_read_in_every_field_that_matters() {
        let list = json!({"f:spec": {"f:externalIPs": {}}});
        let annotation = |name: &str| json!({"f:metadata": {"f:annotations": {format!("f:{name}"): {}}}});
        let object = serde_json::from_value(json!({
            "metadata": {
                "namespace": "team-a", "name": "web", "uid": "s1", "resourceVersion": "7",
                "creationTimestamp": "2026-01-31T10:00:00Z", "labels": {"app": "web"},
                "annotations": {
                    "externalip.spacebird.dev/cluster-external-ip-source": " public",
                    "externalip.spacebird.dev/managed": "{}",
                    "externalip.spacebird.dev/requested-addresses": "198.51.100.7",
                    "external-dns.kubernetes.io/hostname": "Web.Example.net., other.example.net",
                    "external-dns.kubernetes.io/target": "198.51.100.7",
                    "old/target": "web.example.org",
                },
                "managedFields": [
                    field("kubectl", "", "2026-01-31T10:00:01Z", &list),
                    field("argocd", "", "2026-01-31T10:00:03Z", &list),
                    field(EXTERNAL_IPS_MANAGER, "", "2026-01-31T10:00:04Z", &list),
                    field(EXTERNAL_DNS_MANAGER, "", "2026-01-31T10:00:05Z", &annotation("external-dns.kubernetes.io/target")),
                    field("kubectl", "", "2026-01-31T10:00:06Z", &annotation("old/target")),
                    field(STATUS_MANAGER, "status", "2026-01-31T10:00:07Z", &json!({"f:status": {"f:loadBalancer": {"f:ingress": {}}}})),
                ],
            },
            "spec": {
                "type": "LoadBalancer", "loadBalancerClass": "externalip.spacebird.dev/external-ip",
                "externalIPs": ["10.9.9.9", "010.0.0.1"], "ipFamilies": ["IPv6", "IPv4"],
                "clusterIPs": ["fd00:10:96::5", "10.96.0.5"], "ports": [{"port": 443}, {"port": 53, "protocol": "UDP"}],
            },
            "status": {
                "loadBalancer": {"ingress": [{"ip": "203.0.113.9", "ipMode": "VIP"}, {"hostname": "lb.example.net"}]},
                "conditions": [
                    {"type": "Other", "status": "True", "reason": "X", "message": "", "lastTransitionTime": "2026-01-31T10:00:00Z"},
                    {"type": READY, "status": "True", "reason": "Assigned", "message": "", "lastTransitionTime": "2026-01-31T10:00:00Z"},
                ],
            },
        }))
        .unwrap();
        let read = service(object, &rules());
        let target = |annotation: &str, value: &str, ours, other: Option<&str>| TargetFacts {
            annotation: annotation.to_owned(),
            value: Some(value.to_owned()),
            ours,
            other: other.map(ToOwned::to_owned),
        };
        let expected = ServiceFacts {
            key: ServiceKey { namespace: "team-a".to_owned(), name: "web".to_owned() },
            uid: "s1".to_owned(),
            revision: "7".to_owned(),
            deleting: false,
            created: "2026-01-31T10:00:00Z".parse().unwrap(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            source: Some(" public".to_owned()),
            record: Some("{}".to_owned()),
            requested: Some("198.51.100.7".to_owned()),
            hostnames: ["other.example.net".to_owned(), "web.example.net".to_owned()].into(),
            targets: vec![
                target("external-dns.kubernetes.io/target", "198.51.100.7", true, None),
                target("old/target", "web.example.org", false, Some("kubectl")),
            ],
            external_ips: vec!["10.9.9.9".to_owned(), "010.0.0.1".to_owned()],
            external_ips_managers: vec!["argocd".to_owned(), "kubectl".to_owned()],
            ingress: vec![
                Ingress { ip: Some("203.0.113.9".parse().unwrap()), mode: Some("VIP".to_owned()) },
                Ingress { ip: None, mode: None },
            ],
            ingress_ours: true,
            lingering: None,
            kind: "LoadBalancer".to_owned(),
            class: Some("externalip.spacebird.dev/external-ip".to_owned()),
            families: vec![Family::V6, Family::V4],
            cluster_ips: vec!["fd00:10:96::5".parse().unwrap(), "10.96.0.5".parse().unwrap()],
            ports: vec![(443, "TCP".to_owned()), (53, "UDP".to_owned())],
            conditions: read.conditions.clone(),
        };
        assert_eq!(read, expected);
        assert_eq!(read.conditions.iter().map(|condition| condition.type_.as_str()).collect::<Vec<_>>(), [READY]);
    }

    #[test]
    fn a_headless_service_without_anything_is_read_too() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "web", "deletionTimestamp": "2026-01-31T10:00:00Z"}, "spec": {"clusterIPs": ["None"]},
        }))
        .unwrap();
        let read = service(object, &rules());
        assert_eq!((read.deleting, read.cluster_ips, read.created), (true, Vec::new(), Timestamp::UNIX_EPOCH));
    }

    #[test]
    fn a_claim_says_why_it_waits_until_it_does_not() {
        let object = |status: &str| -> IpAddressClaim {
            serde_json::from_value(json!({
                "metadata": {
                    "namespace": "team-a", "name": "web-ext4-6aa21bf7", "uid": "c1", "resourceVersion": "3",
                    "labels": {SERVICE_LABEL: "web"}, "finalizers": ["a/b"], "annotations": {"ipAddress": "198.51.100.7"},
                    "ownerReferences": [
                        {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "m1"},
                        {"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s1", "controller": true},
                    ],
                },
                "spec": {"poolRef": {"kind": "GlobalInClusterIPPool", "name": "public"}},
                "status": {"conditions": [{"type": "Ready", "status": status, "reason": "PoolExhausted", "message": "full"}]},
            }))
            .unwrap()
        };
        let now = Instant::now();
        let read = claim(&object("False"), CapiVersion::V1beta2, now);
        let expected = ClaimFacts {
            name: "web-ext4-6aa21bf7".to_owned(),
            uid: "c1".to_owned(),
            revision: "3".to_owned(),
            deleting: false,
            finalizers: vec!["a/b".to_owned()],
            service: Some("web".to_owned()),
            owner: Some(Owner {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: "web".to_owned(),
                uid: "s1".to_owned(),
            }),
            pool: PoolRef { kind: PoolKind::GlobalInClusterIPPool, name: "public".to_owned() },
            requested: Some("198.51.100.7".to_owned()),
            address: None,
            waiting: Some(("PoolExhausted".to_owned(), "full".to_owned())),
            seen: now,
        };
        assert_eq!(read, expected);
        assert_eq!(claim(&object("True"), CapiVersion::V1beta2, now).waiting, None);
    }
}
