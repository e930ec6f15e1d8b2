//! To which addresses a request may go. `ip_api` gives one of these to each request; its HTTP client connects to nothing else.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use poolutil::{Cidr, Class, Family, class};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::endpoint::Endpoint;
use crate::externalip::solver::dns::{Dns, Miss};

/// Finds the addresses of one request's host.
#[derive(Debug)]
pub(super) struct Target {
    host: String,
    family: Family,
    proxy: Option<String>,
    /// `None` means anywhere.
    allow: Option<Arc<[Cidr]>>,
    dns: Arc<Dns>,
}

/// Why there is nothing to connect to.
#[derive(Debug)]
pub(super) enum Refused {
    /// The host is an address of the other family.
    WrongFamily { host: String, family: Family },
    /// No address of the host is public or allowed.
    NotPublic { host: String },
    /// The host has no address.
    Unknown { host: String, miss: Miss },
}

impl Target {
    /// `proxy` is the host of the proxy that the request goes through.
    pub(super) fn new(family: Family, endpoint: &Endpoint, proxy: Option<&str>, allow: Arc<[Cidr]>, dns: Arc<Dns>) -> Self {
        let (host, proxy) = (endpoint.url.host().to_string(), proxy.map(normal));
        Self { host, family, proxy, allow: (!endpoint.anywhere).then_some(allow), dns }
    }

    /// Whether a request may go to a host that is an address itself.
    pub(super) fn check(&self, ip: IpAddr) -> Result<(), Refused> {
        if Family::of(ip) != self.family {
            return Err(Refused::WrongFamily { host: self.host.clone(), family: self.family });
        }
        if !permitted(self.allow.as_deref(), ip) {
            return Err(Refused::NotPublic { host: self.host.clone() });
        }
        Ok(())
    }
}

fn permitted(allow: Option<&[Cidr]>, ip: IpAddr) -> bool {
    let allowed = |allow: &[Cidr]| class(ip) == Class::Public || allow.iter().any(|cidr| cidr.contains(ip));
    allow.is_none_or(allowed)
}

impl Resolve for Target {
    fn resolve(&self, name: Name) -> Resolving {
        let (dns, family, allow) = (Arc::clone(&self.dns), self.family, self.allow.clone());
        let asked = normal(name.as_str());
        let is_proxy = self.proxy.as_ref() == Some(&asked);
        Box::pin(async move {
            let found = if is_proxy {
                // It may be anywhere, and decides itself what it connects to.
                match addresses(&dns, &asked, Family::V4).await {
                    Ok(found) => found,
                    Err(_) => addresses(&dns, &asked, Family::V6).await?,
                }
            } else {
                let found = addresses(&dns, &asked, family).await?;
                found.into_iter().filter(|ip| permitted(allow.as_deref(), *ip)).collect()
            };
            if found.is_empty() {
                return Err(Refused::NotPublic { host: asked }.into());
            }
            Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// A name as the resolver wants it.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

async fn addresses(dns: &Dns, host: &str, family: Family) -> Result<BTreeSet<IpAddr>, Refused> {
    let found = dns.lookup(host, family).await;
    found.map(|resolved| resolved.addresses).map_err(|miss| Refused::Unknown { host: host.to_owned(), miss })
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.failure().text)
    }
}
