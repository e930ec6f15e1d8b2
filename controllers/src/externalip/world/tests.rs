//! What the world makes of events: facts, indexes, and whom it wakes.

use std::time::Duration;

use api::capi::{IpAddress, IpAddressClaim};
use api::externalip::ClusterExternalIPSource;
use api::v1alpha2::IpPool;
use k8s_openapi::api::core::v1::{Namespace, Service};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::externalip::facts::Lingering;

/// A world with Services, sources and everything optional in view, and none of them there.
struct Bed {
    world: World,
    now: Instant,
}

fn read<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn service(name: &str, source: Option<&str>, more: Value) -> Service {
    let mut object = json!({
        "metadata": {"namespace": "team-a", "name": name, "uid": format!("s-{name}"), "resourceVersion": "1"},
        "spec": {"ports": [{"port": 443, "protocol": "TCP"}]},
    });
    if let Some(source) = source {
        object["metadata"]["annotations"] = json!({"externalip.spacebird.dev/cluster-external-ip-source": source});
    }
    merge(&mut object, more);
    read(object)
}

fn source(name: &str, spec: &Value) -> ClusterExternalIPSource {
    read(json!({
        "apiVersion": "externalip.spacebird.dev/v1alpha1", "kind": "ClusterExternalIPSource",
        "metadata": {"name": name, "uid": format!("u-{name}"), "generation": 1}, "spec": spec,
    }))
}

fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn static_source() -> Value {
    json!({"ipv4": {"solvers": [{"static": {"addresses": ["198.51.100.7"]}}]}})
}

fn pool_source() -> Value {
    let pool = |kind: &str| json!({"ipPool": {"poolRef": {"kind": kind, "name": "public"}}});
    json!({"ipv4": {"solvers": [pool("InClusterIPPool"), pool("GlobalInClusterIPPool")]}})
}

fn key(name: &str) -> ServiceKey {
    ServiceKey { namespace: "team-a".to_owned(), name: name.to_owned() }
}

fn claim(name: &str, more: Value) -> IpAddressClaim {
    let mut object = json!({
        "metadata": {"namespace": "team-a", "name": name, "uid": format!("c-{name}"), "resourceVersion": "1"},
        "spec": {"poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "GlobalInClusterIPPool", "name": "public"}},
    });
    merge(&mut object, more);
    read(object)
}

fn address(name: &str, ip: &str) -> IpAddress {
    read(json!({"metadata": {"namespace": "team-a", "name": name}, "spec": {"address": ip}}))
}

impl Bed {
    fn new() -> Self {
        let rules = Rules {
            allow_private: false,
            allow: Vec::new(),
            deny: Vec::new(),
            load_balancer_class: "externalip.spacebird.dev/external-ip".to_owned(),
            external_dns_prefixes: vec!["external-dns.kubernetes.io/".to_owned()],
            source_grace: Duration::from_secs(300),
            watch_filter: None,
        };
        let mut bed = Self { world: World::new(rules, Vec::new()), now: Instant::now() };
        bed.world.take_services(Seen::ListEnded, bed.now);
        bed.world.take_sources(Seen::ListEnded, bed.now);
        bed.world.take_service_cidrs(Seen::NotServed);
        bed.world.take_claims(Seen::NotServed, CapiVersion::V1beta2, bed.now);
        bed.world.take_addresses(Seen::NotServed);
        for kind in [PoolKind::InClusterIPPool, PoolKind::GlobalInClusterIPPool] {
            bed.world.take_pools(kind, Seen::NotServed);
        }
        bed.woken();
        bed
    }

    fn service(&mut self, object: Service) {
        self.world.take_services(Seen::Changed(object), self.now);
    }

    fn source(&mut self, object: ClusterExternalIPSource) {
        self.world.take_sources(Seen::Changed(object), self.now);
    }

    fn claim(&mut self, object: &IpAddressClaim) {
        self.world.take_claims(Seen::Changed(object), CapiVersion::V1beta2, self.now);
    }

    /// Whom the events since the last call wake, each once: Services as they are, sources with an `@`.
    fn woken(&mut self) -> BTreeSet<String> {
        let wakes = self.world.take_wakes();
        let names = wakes.into_iter().filter_map(|wake| match wake {
            Wake::Service(slot) => self.world.entry(slot).map(|entry| entry.key.name.clone()),
            Wake::Source(id) => self.world.source(id).map(|entry| format!("@{}", entry.name)),
            Wake::Solvers => None,
        });
        names.collect()
    }

    fn entry(&self, name: &str) -> &Entry {
        self.world.entry(self.world.index[&key(name)]).unwrap()
    }

    fn bound(&self, source: &str) -> Vec<String> {
        let Some(id) = self.world.find_source(source) else { return Vec::new() };
        let slots = self.world.source(id).unwrap().bound.iter();
        slots.map(|slot| self.world.entry(*slot).unwrap().key.name.clone()).collect()
    }

    fn claims(&self, name: &str) -> Vec<(String, Option<IpAddr>)> {
        self.entry(name).claims.iter().map(|claim| (claim.name.clone(), claim.address)).collect()
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(ToOwned::to_owned).collect()
}

#[test]
fn nothing_begins_before_services_sources_and_what_else_is_served_are_in_view() {
    let mut world = Bed::new().world;
    assert!(world.is_settled());
    world.take_sources(Seen::NotServed, Instant::now());
    assert!(!world.is_settled(), "without the definition every source would look deleted");
    world.take_sources(Seen::ListEnded, Instant::now());
    assert!(world.is_settled());
}

#[test]
fn a_service_moves_from_one_source_to_another_and_both_hear_of_it() {
    let mut bed = Bed::new();
    bed.source(source("one", &static_source()));
    bed.service(service("web", Some(" one "), json!({})));
    assert_eq!((bed.bound("one"), bed.woken()), (vec!["web".to_owned()], set(["web", "@one"])));
    bed.service(service("web", Some("two"), json!({"metadata": {"resourceVersion": "2"}})));
    assert_eq!((bed.bound("one"), bed.bound("two")), (Vec::new(), vec!["web".to_owned()]));
    assert_eq!(bed.woken(), set(["web", "@one", "@two"]));
    bed.service(service("web", Some("  "), json!({"metadata": {"resourceVersion": "3"}})));
    assert_eq!((bed.bound("two"), bed.world.find_source("two")), (Vec::new(), None));
}

#[test]
fn an_event_that_changes_nothing_that_matters_wakes_nobody() {
    let mut bed = Bed::new();
    bed.source(source("one", &static_source()));
    bed.service(service("web", Some("one"), json!({})));
    bed.woken();
    bed.service(service("web", Some("one"), json!({"metadata": {"resourceVersion": "2", "annotations": {"other": "x"}}})));
    bed.source(source("one", &static_source()));
    assert_eq!(bed.woken(), set([]));
    assert_eq!(bed.entry("web").service.as_ref().unwrap().revision, "2");
}

#[test]
fn a_missing_source_is_missing_from_when_that_is_known_until_it_comes() {
    let mut bed = Bed::new();
    bed.service(service("web", Some("one"), json!({})));
    let missing = |bed: &Bed| bed.world.source(bed.world.find_source("one").unwrap()).unwrap().missing;
    assert_eq!(missing(&bed), Some(bed.now));
    bed.source(source("one", &static_source()));
    assert_eq!(missing(&bed), None);
    bed.woken();
    let later = bed.now + Duration::from_secs(5);
    bed.world.take_sources(Seen::Gone(source("one", &static_source())), later);
    assert_eq!((missing(&bed), bed.woken()), (Some(later), set(["web"])));
}

#[test]
fn a_list_of_sources_says_which_are_gone() {
    let mut bed = Bed::new();
    bed.source(source("one", &static_source()));
    bed.source(source("two", &static_source()));
    for seen in [Seen::ListBegan, Seen::Listed(source("two", &static_source())), Seen::ListEnded] {
        bed.world.take_sources(seen, bed.now);
    }
    assert_eq!((bed.world.find_source("one"), bed.world.find_source("two").is_some()), (None, true));
}

#[test]
fn an_ingress_list_that_becomes_empty_lingers_from_then_on() {
    let mut bed = Bed::new();
    let balanced = |ips: &[&str], revision: &str| {
        let ingress: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let more = json!({"metadata": {"resourceVersion": revision}, "status": {"loadBalancer": {"ingress": ingress}}});
        service("web", None, more)
    };
    let lingering = |bed: &Bed| bed.entry("web").service.as_ref().unwrap().lingering.clone();
    bed.service(balanced(&["203.0.113.9"], "1"));
    assert_eq!(lingering(&bed), None);
    let since = bed.now;
    bed.service(balanced(&[], "2"));
    let expected = Some(Lingering { ips: vec!["203.0.113.9".parse().unwrap()], since });
    assert_eq!(lingering(&bed), expected);
    bed.now += Duration::from_secs(9);
    bed.service(balanced(&[], "3"));
    assert_eq!(lingering(&bed), expected);
    bed.service(balanced(&["203.0.113.10"], "4"));
    assert_eq!(lingering(&bed), None);
}

#[test]
fn only_the_service_that_loses_the_best_right_to_an_address_and_port_hears_of_another_there() {
    let mut bed = Bed::new();
    let at = |name: &str, port: u16| {
        service(name, None, json!({"spec": {"externalIPs": ["198.51.100.7"], "ports": [{"port": port, "protocol": "TCP"}]}}))
    };
    bed.service(at("one", 443));
    bed.service(at("other", 80));
    bed.woken();
    bed.service(at("two", 443));
    assert_eq!(bed.woken(), set(["two"]), "it is not right, which its own plan says");
    bed.service(at("first", 443));
    assert_eq!(bed.woken(), set(["first", "one"]));
}

#[test]
fn a_service_that_waits_for_another_is_planned_when_that_changes() {
    let mut bed = Bed::new();
    bed.service(service("old", None, json!({})));
    bed.service(service("new", None, json!({})));
    let slot = bed.world.index[&key("new")];
    bed.world.wait_on(slot, BTreeSet::from([key("old")]));
    bed.woken();
    bed.service(service("old", None, json!({"spec": {"externalIPs": ["198.51.100.7"]}})));
    assert_eq!(bed.woken(), set(["old", "new"]));
    bed.world.wait_on(slot, BTreeSet::new());
    bed.world.take_services(Seen::Gone(service("old", None, json!({}))), bed.now);
    assert_eq!(bed.woken(), set([]));
}

#[test]
fn nothing_that_is_remembered_of_a_service_counts_for_its_successor() {
    let mut bed = Bed::new();
    bed.service(service("web", None, json!({})));
    let slot = bed.world.index[&key("web")];
    bed.world.entry_mut(slot).unwrap().motion.changed = Some(bed.now);
    bed.service(service("web", None, json!({"metadata": {"uid": "s-other"}})));
    assert_eq!(bed.entry("web").motion.changed, None);
}

#[test]
fn a_claim_is_kept_with_the_service_of_its_label_or_its_name_and_has_its_address_once_it_is_bound() {
    let mut bed = Bed::new();
    bed.service(service("web", None, json!({})));
    bed.woken();
    let name = "web-ext4-6aa21bf7";
    bed.world.take_addresses(Seen::Changed(&address(name, "198.51.100.20")));
    assert_eq!(bed.woken(), set([]));
    bed.claim(&claim(name, json!({})));
    assert_eq!((bed.claims("web"), bed.woken()), (vec![(name.to_owned(), None)], set(["web"])));
    bed.claim(&claim(name, json!({"metadata": {"resourceVersion": "2"}, "status": {"addressRef": {"name": name}}})));
    let bound = vec![(name.to_owned(), Some("198.51.100.20".parse().unwrap()))];
    assert_eq!(bed.claims("web"), bound);
    bed.claim(&claim("mine", json!({"metadata": {"labels": {"externalip.spacebird.dev/service": "web"}}})));
    assert_eq!(bed.claims("web").len(), 2);
    bed.claim(&claim("mine", json!({"metadata": {"resourceVersion": "2"}})));
    bed.claim(&claim("web-0-eth0", json!({})));
    assert_eq!(bed.claims("web"), bound);
}

#[test]
fn an_address_that_comes_after_its_claim_was_bound_is_heard_of() {
    let mut bed = Bed::new();
    let name = "web-ext4-6aa21bf7";
    bed.service(service("web", None, json!({})));
    bed.claim(&claim(name, json!({"status": {"addressRef": {"name": name}}})));
    bed.woken();
    bed.world.take_addresses(Seen::Changed(&address(name, "198.51.100.20")));
    assert_eq!(bed.claims("web"), [(name.to_owned(), Some("198.51.100.20".parse().unwrap()))]);
    assert_eq!(bed.woken(), set(["web"]));
}

#[test]
fn what_is_known_under_a_name_ends_with_the_service_and_its_last_claim() {
    let mut bed = Bed::new();
    let ours = claim("web-ext4-6aa21bf7", json!({}));
    bed.service(service("web", Some("one"), json!({})));
    bed.claim(&ours);
    bed.now += Duration::from_secs(1);
    bed.world.take_services(Seen::Gone(service("web", Some("one"), json!({}))), bed.now);
    assert_eq!(bed.entry("web").motion.service_missing, Some(bed.now));
    assert_eq!(bed.world.find_source("one"), None);
    bed.world.take_claims(Seen::Gone(&ours), CapiVersion::V1beta2, bed.now);
    assert!(bed.world.index.is_empty() && bed.world.services.is_empty() && bed.world.waiting.is_empty());
}

#[test]
fn claims_that_a_list_does_not_name_are_gone() {
    let mut bed = Bed::new();
    let (one, two) = (claim("web-ext4-6aa21bf7", json!({})), claim("web-ext6-6aa21bf7", json!({})));
    bed.service(service("web", None, json!({})));
    bed.claim(&one);
    bed.claim(&two);
    for seen in [Seen::ListBegan, Seen::Listed(&two), Seen::ListEnded] {
        bed.world.take_claims(seen, CapiVersion::V1beta2, bed.now);
    }
    assert_eq!(bed.claims("web"), [("web-ext6-6aa21bf7".to_owned(), None)]);
}

#[test]
fn pools_are_found_in_the_services_namespace_or_in_all_and_wake_who_names_them() {
    let mut bed = Bed::new();
    bed.source(source("one", &pool_source()));
    bed.service(service("web", Some("one"), json!({})));
    bed.woken();
    let pool = |namespace: Option<&str>, first: &str| -> IpPool {
        read(json!({"metadata": {"namespace": namespace, "name": "public"}, "spec": {"addresses": [first]}}))
    };
    let wanted = bed.world.source(bed.world.find_source("one").unwrap()).unwrap().pools();
    let found = |bed: &Bed, namespace: &str| {
        let pools = bed.world.pools(namespace, &wanted);
        pools.into_iter().map(|pool| (pool.pool.kind, pool.family)).collect::<Vec<_>>()
    };
    assert_eq!(found(&bed, "team-a"), []);
    bed.world.take_pools(PoolKind::InClusterIPPool, Seen::Changed(&pool(Some("team-b"), "10.0.0.1")));
    bed.world.take_pools(PoolKind::GlobalInClusterIPPool, Seen::Changed(&pool(None, "2001:db8::-2001:db8::9")));
    assert_eq!(found(&bed, "team-a"), [(PoolKind::GlobalInClusterIPPool, Some(Family::V6))]);
    assert_eq!(found(&bed, "team-b").len(), 2);
    assert_eq!(bed.woken(), set(["web", "@one"]));
    bed.world.take_pools(PoolKind::GlobalInClusterIPPool, Seen::Changed(&pool(None, "2001:db8::-2001:db8::8")));
    assert_eq!(bed.woken(), set([]), "only that it exists, and its family, matter");
}

#[test]
fn namespaces_matter_only_while_a_source_selects_by_their_labels() {
    let mut bed = Bed::new();
    bed.source(source("one", &static_source()));
    assert!(!bed.world.wants_namespaces);
    let mut spec = static_source();
    spec["allowedServices"] = json!({"namespaceSelector": {"matchLabels": {"public": "yes"}}});
    bed.source(source("one", &spec));
    bed.service(service("web", Some("one"), json!({})));
    assert!(bed.world.wants_namespaces && !bed.world.knows_namespaces());
    bed.woken();
    let namespace = |labels: Value| -> Namespace { read(json!({"metadata": {"name": "team-a", "labels": labels}})) };
    bed.world.take_namespaces(Seen::Listed(namespace(json!({}))));
    bed.world.take_namespaces(Seen::ListEnded);
    assert!(bed.world.knows_namespaces());
    assert_eq!(bed.woken(), set(["web", "@one"]));
    bed.world.take_namespaces(Seen::Changed(namespace(json!({}))));
    assert_eq!(bed.woken(), set([]));
    bed.world.take_namespaces(Seen::Changed(namespace(json!({"public": "yes"}))));
    assert_eq!(bed.woken(), set(["web", "@one"]));
    bed.source(source("one", &static_source()));
    assert!(!bed.world.wants_namespaces);
}

#[test]
fn networks_of_cluster_ips_are_all_that_the_objects_name() {
    let mut bed = Bed::new();
    let networks = |name: &str, cidr: &str| -> kube::api::DynamicObject {
        read(json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]}}))
    };
    bed.world.take_service_cidrs(Seen::ListBegan);
    bed.world.take_service_cidrs(Seen::Listed(networks("kubernetes", "10.96.0.0/16")));
    bed.world.take_service_cidrs(Seen::ListEnded);
    bed.world.take_service_cidrs(Seen::Changed(networks("more", "203.0.113.0/28")));
    let uses = |bed: &Bed, ip: &str| bed.world.cluster.uses(ip.parse().unwrap());
    assert_eq!((uses(&bed, "10.96.3.4"), uses(&bed, "203.0.113.9"), uses(&bed, "203.0.113.99")), (true, true, false));
    bed.world.take_service_cidrs(Seen::Gone(networks("more", "203.0.113.0/28")));
    assert!(!uses(&bed, "203.0.113.9"));
}
