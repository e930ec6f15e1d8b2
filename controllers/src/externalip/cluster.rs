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

    /// Puts a Service in; the one it replaces must have been taken out.
    pub fn insert(&mut self, service: &ServiceFacts) -> BTreeSet<ServiceKey> {
        for ip in &service.cluster_ips {
            *self.service_ips.entry(*ip).or_default() += 1;
        }
        let mut others = BTreeSet::new();
        for place in places(service) {
            let claimants = self.places.entry(place).or_default();
            others.extend(claimants.iter().map(|(_, key)| key.clone()));
            claimants.insert(claimant(service));
        }
        others
    }

    /// Takes a Service out as it was put in.
    pub fn remove(&mut self, service: &ServiceFacts) -> BTreeSet<ServiceKey> {
        for ip in &service.cluster_ips {
            if let Some(count) = self.service_ips.get_mut(ip) {
                *count -= 1;
                if *count == 0 {
                    self.service_ips.remove(ip);
                }
            }
        }
        let mut others = BTreeSet::new();
        for place in places(service) {
            if let Some(claimants) = self.places.get_mut(&place) {
                claimants.remove(&claimant(service));
                others.extend(claimants.iter().map(|(_, key)| key.clone()));
                if claimants.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
        others
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
