//! `dnsHostname`: the addresses of a name, of one family. The hosts of web APIs are found here as well.
//!
//! A name with a dot is absolute and asked for as it is. Only a single label walks the search list of `resolv.conf`, so that nobody in
//! the cluster can answer for `example.com` by owning a namespace `com`. There is no cache: what was found says how long it is valid.

mod servers;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    lookup::Lookup,
    net::{DnsError, NetError},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RData, RecordType},
    },
};
use poolutil::Family;

use self::servers::{Servers, Stamp};
use super::{failure, too_late};
use crate::externalip::answers::{Failure, FailureKind};

/// What `/etc/hosts` says has no TTL. The file is looked at again so soon, without a query.
const HOSTS_VALID: Duration = Duration::from_secs(60);
/// Bounds of the time for which "there is none" counts.
const NONE_VALID: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// How names are resolved.
#[derive(Clone, Debug)]
pub(super) struct DnsSettings {
    /// Asked instead of the servers in `resolv_conf`, if there are any.
    pub(super) servers: Vec<SocketAddr>,
    /// Name servers, search list, time-out and attempts; read again when it changes.
    pub(super) resolv_conf: PathBuf,
    /// Names that need no query; read again when it changes.
    pub(super) hosts: PathBuf,
    /// Bounds of the time for which an answer is valid.
    pub(super) ttl: (Duration, Duration),
}

/// Addresses of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Resolved {
    /// Never empty, of the family asked for.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// How long nobody needs to ask again.
    pub(super) valid_for: Duration,
}

/// Why there are no addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Miss {
    /// A server said that there are none.
    None {
        /// No name, or no record of this type.
        text: String,
        /// How long nobody needs to ask again.
        valid_for: Duration,
    },
    /// No server said anything.
    Failed(Failure),
}

/// Resolves names. It holds what the two files say, and nothing of what was answered.
#[derive(Debug)]
pub(super) struct Dns {
    settings: DnsSettings,
    loaded: Mutex<Option<(Stamp, Stamp, Arc<Servers>)>>,
}

impl Dns {
    pub(super) fn new(settings: DnsSettings) -> Self {
        Self { settings, loaded: Mutex::new(None) }
    }

    /// The addresses that a name has of this family; the name is in lower case and without trailing dot.
    pub(super) async fn lookup(&self, host: &str, family: Family) -> Result<Resolved, Miss> {
        let servers = self.servers();
        let bad_name = |_| Miss::Failed(failure(FailureKind::BadAnswer, format!("{host} is no name for DNS")));
        let mut absolute = Name::from_utf8(host).map_err(bad_name)?;
        absolute.set_fqdn(true);
        let record_type = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        let static_answer = servers.hosts.lookup_static_host(&Query::query(absolute.clone(), record_type));
        if let Some(addresses) = static_answer.map(|lookup| addresses(&lookup, family)).filter(|found| !found.is_empty()) {
            return Ok(Resolved { addresses, valid_for: HOSTS_VALID });
        }
        let single_label = absolute.num_labels() == 1;
        let searched = servers.search.iter().filter(|_| single_label);
        let candidates = searched.filter_map(|domain| Name::from_utf8(host).ok()?.append_domain(domain).ok());

        // A name that nobody has counts as "none" only if every other one could be asked for.
        let mut last = None;
        for candidate in candidates.chain([absolute.clone()]) {
            match self.ask(&servers, &candidate, record_type, family).await {
                Err(Miss::None { .. }) if matches!(last, Some(Miss::Failed(_))) => {}
                Err(miss) => last = Some(miss),
                found => return found,
            }
        }
        Err(last.unwrap_or_else(|| Miss::Failed(failure(FailureKind::NoResolver, "there is no name to ask for"))))
    }

    /// Asks one server after the other, as often as `resolv.conf` says, until one of them knows.
    async fn ask(&self, servers: &Servers, name: &Name, record_type: RecordType, family: Family) -> Result<Resolved, Miss> {
        let mut last = failure(FailureKind::NoResolver, "no usable name server is configured");
        for _ in 0..servers.attempts {
            for resolver in &servers.resolvers {
                last = match query(resolver, name, record_type).await {
                    Ok(lookup) => match self.read(&lookup, record_type, family) {
                        Err(Miss::Failed(failure)) => failure,
                        answer => return answer,
                    },
                    Err(NetError::Dns(DnsError::NoRecordsFound(missing))) => {
                        let negative = missing.negative_ttl.map_or(Duration::ZERO, |ttl| Duration::from_secs(ttl.into()));
                        return Err(none(missing.response_code, record_type, negative));
                    }
                    Err(error) => why(&error),
                };
            }
        }
        Err(Miss::Failed(last))
    }

    fn read(&self, lookup: &Lookup, record_type: RecordType, family: Family) -> Result<Resolved, Miss> {
        let code = lookup.message().response_code;
        let addresses = addresses(lookup, family);
        if code != ResponseCode::NoError {
            return Err(Miss::Failed(failure(FailureKind::ServerFailure, format!("the name server answered {code}"))));
        }
        if addresses.is_empty() {
            return Err(none(code, record_type, Duration::ZERO));
        }
        let (least, most) = self.settings.ttl;
        let ttl = lookup.valid_until().saturating_duration_since(Instant::now());
        Ok(Resolved { addresses, valid_for: ttl.min(most).max(least) })
    }

    /// What the two files say now.
    fn servers(&self) -> Arc<Servers> {
        let DnsSettings { servers, resolv_conf, hosts, ttl: _ } = &self.settings;
        let stamps = (Stamp::of(resolv_conf), Stamp::of(hosts));
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        match &*loaded {
            Some((resolv_conf, hosts, servers)) if (resolv_conf, hosts) == (&stamps.0, &stamps.1) => Arc::clone(servers),
            _ => {
                let servers = Arc::new(Servers::load(servers, resolv_conf, hosts));
                *loaded = Some((stamps.0, stamps.1, Arc::clone(&servers)));
                servers
            }
        }
    }
}

async fn query(resolver: &TokioResolver, name: &Name, record_type: RecordType) -> Result<Lookup, NetError> {
    match record_type {
        RecordType::A => resolver.ipv4_lookup(name.clone()).await,
        _ => resolver.ipv6_lookup(name.clone()).await,
    }
}

fn none(code: ResponseCode, record_type: RecordType, negative: Duration) -> Miss {
    let text = match code {
        ResponseCode::NXDomain => "there is no such name".to_owned(),
        _ => format!("the name has no {record_type} record"),
    };
    let (least, most) = NONE_VALID;
    Miss::None { text, valid_for: negative.min(most).max(least) }
}

fn addresses(lookup: &Lookup, family: Family) -> BTreeSet<IpAddr> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    };
    lookup.answers().iter().filter_map(|record| address(&record.data)).filter(|ip| Family::of(*ip) == family).collect()
}

fn why(error: &NetError) -> Failure {
    match error {
        NetError::Timeout => too_late(),
        NetError::Dns(DnsError::ResponseCode(code)) => {
            failure(FailureKind::ServerFailure, format!("the name server answered {code}"))
        }
        NetError::Io(_) | NetError::NoConnections | NetError::Busy => {
            failure(FailureKind::ConnectFailed, "no name server can be reached")
        }
        _ => failure(FailureKind::BadAnswer, "the name server's answer cannot be used"),
    }
}

#[cfg(test)]
mod tests;
