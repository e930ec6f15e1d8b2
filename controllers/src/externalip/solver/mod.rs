//! The shared solvers: they go out and find addresses. The driver calls [`Solvers::ask`] for a key that is due, and hands the result to
//! [`Answers`](super::answers::Answers), which decides that a key is asked once at a time and when next.
//!
//! A run ends in time, whatever it meets; at most so many run at once, and fewer at one web host.

mod dns;
mod interface;
mod ip_api;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::externalip::{Host, Shared};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::sync::{Semaphore, watch};

pub use self::ip_api::TrustError;
use self::{
    dns::{Dns, DnsSettings, Miss},
    interface::Interfaces,
    ip_api::{Web, WebSettings},
};
use super::answers::{Failure, FailureKind, Key, Outcome, Ran, known, limited};
use crate::config::ExternalIpSources;

/// One web host is asked by so many runs at once.
const PER_HOST: usize = 8;

/// All solvers whose answer does not depend on the Service.
#[derive(Debug)]
pub struct Solvers {
    dns: Arc<Dns>,
    web: Web,
    interfaces: Interfaces,
    interval: Duration,
    timeout: Duration,
    runs: Arc<Semaphore>,
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Solvers {
    /// Reads the platform's trust roots and begins to listen for changes of interfaces. Must be called where tasks can be spawned.
    pub fn new(settings: &ExternalIpSources, user_agent: &str) -> Result<Self, TrustError> {
        let dns = DnsSettings {
            servers: settings.dns_servers.clone(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
            ttl: (settings.dns_min_ttl, settings.dns_max_ttl),
        };
        Self::with(settings, user_agent, dns, Matcher::from_env())
    }

    fn with(settings: &ExternalIpSources, user_agent: &str, dns: DnsSettings, proxies: Matcher) -> Result<Self, TrustError> {
        let dns = Arc::new(Dns::new(dns));
        let web = WebSettings {
            user_agent: user_agent.to_owned(),
            instead: settings.api_endpoints.clone(),
            ca: settings.api_ca.clone(),
            allow: settings.api_allow_cidrs.clone(),
            proxies,
        };
        Ok(Self {
            web: Web::new(web, Arc::clone(&dns))?,
            dns,
            interfaces: Interfaces::new(),
            interval: settings.interval,
            timeout: settings.solver_timeout,
            runs: Arc::new(Semaphore::new(settings.solver_concurrency)),
            hosts: Mutex::default(),
        })
    }

    /// Changes whenever a link or an address of this network namespace does: answers of `interface` are old then.
    pub fn interface_changes(&self) -> watch::Receiver<()> {
        self.interfaces.changes()
    }

    /// Asks a solver for one family. It never waits longer than its turn and the time for one run.
    pub async fn ask(&self, key: &Key) -> Ran {
        match &key.solver {
            Shared::DnsHostname(Host::Name(name)) => self.run(self.lookup(key, name)).await,
            Shared::Interface(name) => self.run(self.addresses(key, name.as_deref())).await,
            Shared::IpApi(api) => match self.web.endpoint(key.family, api) {
                Ok(endpoint) => {
                    let host = self.host(&endpoint.url.host().to_string());
                    let _turn = host.acquire().await;
                    self.run(self.web.ask(key, &endpoint)).await
                }
                Err(failure) => failed(failure),
            },
            Shared::Static(_) | Shared::DnsHostname(Host::Literal(_)) => {
                // Written down, so that the store knows it without a run.
                let outcome = known(key).unwrap_or_else(|| Outcome::Empty("nothing is written down".to_owned()));
                Ran { outcome, fresh_for: None }
            }
        }
    }

    /// Gives a run its turn, and then so much time.
    async fn run(&self, run: impl Future<Output = Ran>) -> Ran {
        let _turn = self.runs.acquire().await;
        tokio::time::timeout(self.timeout, run).await.unwrap_or_else(|_| failed(too_late()))
    }

    /// The turns at a web host.
    fn host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(hosts.entry(host.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(PER_HOST))))
    }

    async fn lookup(&self, key: &Key, name: &str) -> Ran {
        match self.dns.lookup(name, key.family).await {
            Ok(resolved) => Ran { outcome: found(resolved.addresses), fresh_for: Some(resolved.valid_for) },
            Err(Miss::None { text, valid_for }) => Ran { outcome: Outcome::Empty(text), fresh_for: Some(valid_for) },
            Err(Miss::Failed(failure)) => failed(failure),
        }
    }

    async fn addresses(&self, key: &Key, name: Option<&str>) -> Ran {
        match self.interfaces.addresses(name, key.family).await {
            Ok(addresses) if addresses.is_empty() => {
                let text = "there is no address of the family".to_owned();
                Ran { outcome: Outcome::Empty(text), fresh_for: Some(self.interval) }
            }
            Ok(addresses) => Ran { outcome: found(addresses), fresh_for: Some(self.interval) },
            Err(failure) => failed(failure),
        }
    }
}

/// Addresses in ascending order.
fn found(addresses: BTreeSet<IpAddr>) -> Outcome {
    limited(addresses.into_iter().collect())
}

fn failed(failure: Failure) -> Ran {
    Ran { outcome: Outcome::Failed(failure), fresh_for: None }
}

fn failure(kind: FailureKind, text: impl Into<String>) -> Failure {
    Failure { kind, text: text.into() }
}

/// The same words whichever time-out is first, so that what is shown does not change from run to run.
fn too_late() -> Failure {
    failure(FailureKind::Timeout, "no answer in time")
}

#[cfg(test)]
mod tests;
