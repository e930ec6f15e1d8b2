//! What the plans of all Services have in common: addresses the cluster itself uses, and which Service has which address and port.
//!
//! The watches keep it current; what changes tells whom to plan again.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use poolutil::Cidr;

use super::facts::{ServiceFacts, ServiceKey};
use super::record::Record;

/// Age and key of a Service: the lesser has the better right.
type Claimant = (Timestamp, ServiceKey);
/// An address with a port and its protocol.
type Place = (IpAddr, u16, String);

/// What is in use in the cluster.
#[derive(Debug, Default)]
pub struct Cluster {
    service_ips: HashMap<IpAddr, usize>,
    service_cidrs: Vec<Cidr>,
    places: HashMap<Place, BTreeSet<Claimant>>,
}

impl Cluster {
    /// Sets the networks of all `ServiceCIDR` objects; says whether that changes anything.
    pub fn set_service_cidrs(&mut self, cidrs: Vec<Cidr>) -> bool {
        let changed = self.service_cidrs != cidrs;
        self.service_cidrs = cidrs;
        changed
    }

    /// Whether the cluster itself uses the address: it is a Service's cluster IP, or may become one.
    pub fn uses(&self, ip: IpAddr) -> bool {
        self.service_ips.contains_key(&ip) || self.service_cidrs.iter().any(|cidr| cidr.contains(ip))
    }

    /// Puts a Service in; the one it replaces must have been taken out. Returns the Services that had the best right to one of its
    /// addresses with port until now; all others know already that they have not.
    pub fn insert(&mut self, service: &ServiceFacts) -> BTreeSet<ServiceKey> {
        for ip in &service.cluster_ips {
            *self.service_ips.entry(*ip).or_default() += 1;
        }
        let mut others = BTreeSet::new();
        for place in places(service) {
            let claimants = self.places.entry(place).or_default();
            let me = claimant(service);
            others.extend(claimants.first().filter(|eldest| **eldest > me).map(|(_, key)| key.clone()));
            claimants.insert(me);
        }
        others
    }

    /// Takes a Service out as it was put in. Those who wait for that said so in their plans.
    pub fn remove(&mut self, service: &ServiceFacts) {
        for ip in &service.cluster_ips {
            if let Some(count) = self.service_ips.get_mut(ip) {
                *count -= 1;
                if *count == 0 {
                    self.service_ips.remove(ip);
                }
            }
        }
        for place in places(service) {
            if let Some(claimants) = self.places.get_mut(&place) {
                claimants.remove(&claimant(service));
                if claimants.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
    }

    /// The Service with the best right to one of this one's ports at the address, if that is not this one.
    pub fn elder(&self, service: &ServiceFacts, ip: IpAddr) -> Option<&ServiceKey> {
        let me = claimant(service);
        let eldest = |(port, protocol): &(u16, String)| self.places.get(&(ip, *port, protocol.clone()))?.first();
        service.ports.iter().filter_map(eldest).filter(|claimant| **claimant < me).min().map(|(_, key)| key)
    }

    /// How many addresses with port have more than one Service.
    pub fn conflicts(&self) -> usize {
        self.places.values().filter(|claimants| claimants.len() > 1).count()
    }
}

fn claimant(service: &ServiceFacts) -> Claimant {
    (service.created, service.key.clone())
}

fn places(service: &ServiceFacts) -> BTreeSet<Place> {
    let recorded = service.record.as_deref().and_then(|text| Record::parse(text).ok());
    let recorded = recorded.into_iter().flat_map(|record| record.addresses.into_keys());
    let listed = service.external_ips.iter().filter_map(|text| text.parse().ok());
    let ips: BTreeSet<IpAddr> = listed.chain(recorded).collect();
    let at = |ip: IpAddr| service.ports.iter().map(move |(port, protocol)| (ip, *port, protocol.clone()));
    ips.into_iter().flat_map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::externalip::plan::tests::service_of;

    fn service(name: &str, year: u32, addresses: &str) -> ServiceFacts {
        service_of(&format!(
            "{{metadata: {{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}, spec: {{externalIPs: {addresses}}}}}"
        ))
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey { namespace: "team-a".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn the_eldest_with_an_address_and_port_is_right_until_it_leaves() {
        let [young, old, oldest] =
            [("young", 2026), ("old", 2025), ("oldest", 2024)].map(|(name, year)| service(name, year, "[203.0.113.7]"));
        let ip: IpAddr = "203.0.113.7".parse().unwrap();
        let mut cluster = Cluster::default();
        assert_eq!(cluster.insert(&old), BTreeSet::new());
        assert_eq!(cluster.insert(&young), BTreeSet::new(), "it learns of its elder by itself");
        assert_eq!(cluster.elder(&young, ip), Some(&key("old")));
        assert_eq!(cluster.insert(&oldest), BTreeSet::from([key("old")]));
        assert_eq!((cluster.elder(&old, ip), cluster.elder(&oldest, ip)), (Some(&key("oldest")), None));
        assert_eq!(cluster.conflicts(), 1);
        cluster.remove(&oldest);
        cluster.remove(&young);
        assert_eq!((cluster.elder(&old, ip), cluster.conflicts()), (None, 0));
        cluster.remove(&old);
        assert!(cluster.places.is_empty());
    }

    #[test]
    fn recorded_addresses_count_like_listed_ones() {
        let mut recorded = service("recorded", 2024, "[]");
        recorded.record = Some(
            r#"{"v":1,"source":"public","release":"Release","addresses":{"203.0.113.7":"static"},"externalIPs":[],"mirrored":[]}"#
                .to_owned(),
        );
        let mut cluster = Cluster::default();
        cluster.insert(&recorded);
        let young = service("young", 2026, "[]");
        assert_eq!(cluster.elder(&young, "203.0.113.7".parse().unwrap()), Some(&key("recorded")));
    }

    #[test]
    fn the_clusters_own_addresses_are_known_for_as_long_as_a_service_has_them() {
        let ip: IpAddr = "10.96.0.9".parse().unwrap();
        let mut cluster = Cluster::default();
        let [one, other] = ["one", "other"].map(|name| service(name, 2026, "[]"));
        cluster.insert(&one);
        cluster.insert(&other);
        cluster.remove(&one);
        assert!(cluster.uses(ip));
        cluster.remove(&other);
        assert!(!cluster.uses(ip));
        assert!(cluster.set_service_cidrs(vec!["10.96.0.0/16".parse().unwrap()]));
        assert!(cluster.uses(ip));
        assert!(!cluster.set_service_cidrs(vec!["10.96.0.0/16".parse().unwrap()]));
    }
}
