//! `ipAPI`: a web service tells from which address it was called.
//!
//! One request, over the family that is asked for, to addresses that were checked just before. No redirect is followed, at most 16 KiB
//! are read, and nothing of what was read is repeated but the address. Back-offs after 429 are kept here; everything else about when to
//! ask again is the caller's.

mod answer;
mod endpoint;
mod pauses;
mod target;
mod trust;

use std::{error::Error as _, sync::Arc, time::Duration};

use api::externalip::{Api, Host};
use http::{StatusCode, header::RETRY_AFTER};
use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;
use poolutil::{Cidr, Family};
use reqwest::{Client, Response, redirect::Policy};
use tokio::time::Instant;

pub(super) use self::endpoint::Endpoint;
pub use self::trust::TrustError;
use self::{
    pauses::Pauses,
    target::{Refused, Target},
    trust::Trust,
};
use super::{
    dns::{Dns, Miss},
    failed, failure, too_late,
};
use crate::{
    config::ApiEndpoint,
    externalip::answers::{Failure, FailureKind, Key, Outcome, Ran},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// No answer that tells one address is longer.
const MOST_BYTES: usize = 16 * 1024;

/// How web services are asked.
#[derive(Debug)]
pub(super) struct WebSettings {
    /// Sent with every request.
    pub(super) user_agent: String,
    /// Asked in place of built-in providers.
    pub(super) instead: Vec<ApiEndpoint>,
    /// PEM certificates of authorities that are trusted besides the platform's.
    pub(super) ca: Option<Vec<u8>>,
    /// Where custom services may be, besides public addresses.
    pub(super) allow: Vec<Cidr>,
    /// Which requests go through a proxy.
    pub(super) proxies: Matcher,
}

/// Asks web services.
#[derive(Debug)]
pub(super) struct Web {
    user_agent: String,
    instead: Vec<ApiEndpoint>,
    allow: Arc<[Cidr]>,
    proxies: Matcher,
    trust: Trust,
    pauses: Pauses,
    dns: Arc<Dns>,
}

impl Web {
    pub(super) fn new(settings: WebSettings, dns: Arc<Dns>) -> Result<Self, TrustError> {
        let WebSettings { user_agent, instead, ca, allow, proxies } = settings;
        let trust = Trust::new(ca.as_deref())?;
        Ok(Self { user_agent, instead, allow: allow.into(), proxies, trust, pauses: Pauses::default(), dns })
    }

    /// Where a service is asked.
    pub(super) fn endpoint(&self, family: Family, api: &Api) -> Result<Endpoint, Failure> {
        Endpoint::of(family, api, &self.instead).map_err(|reason| failure(FailureKind::ConnectFailed, reason))
    }

    /// One question, unless the service has told us to wait. How long it may take is the caller's business.
    pub(super) async fn ask(&self, key: &Key, endpoint: &Endpoint) -> Ran {
        let now = Instant::now();
        if let Some(left) = self.pauses.left(key, now) {
            return limited(left);
        }
        match self.get(key.family, endpoint).await {
            Ok(Reply::TooMany { retry_after }) => limited(self.pauses.begin(key, endpoint.pace, retry_after, Instant::now())),
            Ok(Reply::Body(body)) => {
                self.pauses.end(key);
                match answer::address(&endpoint.shape, key.family, &body) {
                    Ok(address) => {
                        let outcome = Outcome::Found { addresses: vec![address], truncated: false };
                        Ran { outcome, fresh_for: Some(endpoint.pace) }
                    }
                    Err(failure) => failed(failure),
                }
            }
            Err(failure) => failed(failure),
        }
    }

    async fn get(&self, family: Family, endpoint: &Endpoint) -> Result<Reply, Failure> {
        let client = self.client(family, endpoint)?;
        let mut response = client.get(endpoint.url.as_str()).send().await.map_err(|error| why(&error, endpoint))?;
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => Ok(Reply::TooMany { retry_after: retry_after(&response) }),
            StatusCode::OK => read(&mut response, endpoint).await.map(Reply::Body),
            status => Err(failure(FailureKind::HttpStatus, format!("HTTP status {}", status.as_u16()))),
        }
    }

    /// A client for one request: its connection is to an address that was checked for this very request.
    fn client(&self, family: Family, endpoint: &Endpoint) -> Result<Client, Failure> {
        let proxy = endpoint.url.as_str().parse().ok().and_then(|url| self.proxies.intercept(&url));
        let proxy_host = proxy.as_ref().and_then(|proxy| proxy.uri().host());
        let target = Target::new(family, endpoint, proxy_host, Arc::clone(&self.allow), Arc::clone(&self.dns));
        if let Host::Literal(ip) = endpoint.url.host() {
            target.check(*ip).map_err(|refused| refused.failure())?;
        }
        let mut builder = Client::builder()
            .user_agent(&self.user_agent)
            .tls_backend_preconfigured(self.trust.config(endpoint.ca_bundle.as_deref())?)
            .https_only(true)
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .dns_resolver(target);
        if let Some(proxy) = proxy {
            builder =
                builder.proxy(proxied(&proxy).ok_or_else(|| failure(FailureKind::ConnectFailed, "the proxy cannot be used"))?);
        }
        builder.build().map_err(|_| failure(FailureKind::ConnectFailed, "no client can be made for this URL"))
    }
}

/// What a service sent back.
enum Reply {
    Body(Vec<u8>),
    TooMany { retry_after: Option<Duration> },
}

fn proxied(proxy: &hyper_util::client::proxy::matcher::Intercept) -> Option<reqwest::Proxy> {
    let mut used = reqwest::Proxy::https(proxy.uri().to_string()).ok()?;
    if let Some(auth) = proxy.basic_auth() {
        used = used.custom_http_auth(auth.clone());
    }
    if let Some((user, password)) = proxy.raw_auth() {
        used = used.basic_auth(user, password);
    }
    Some(used)
}

async fn read(response: &mut Response, endpoint: &Endpoint) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| why(&error, endpoint))? {
        if body.len() + chunk.len() > MOST_BYTES {
            return Err(failure(FailureKind::TooLarge, format!("the answer is longer than {MOST_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// How long the service wants to be left alone: seconds, or until a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or_default())
}

/// The failure behind an error, in words of ours: an error's own may repeat what a stranger sent.
fn why(error: &reqwest::Error, endpoint: &Endpoint) -> Failure {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused.failure();
        }
        if let Some(tls) = trust::inside(cause) {
            return failure(FailureKind::Tls, trust::reason(tls));
        }
        source = cause.source();
    }
    let host = endpoint.url.host();
    if error.is_timeout() {
        too_late()
    } else if error.is_connect() {
        failure(FailureKind::ConnectFailed, format!("no connection to {host}"))
    } else {
        failure(FailureKind::BadAnswer, format!("the answer of {host} broke off or is no HTTP"))
    }
}

impl Refused {
    fn failure(&self) -> Failure {
        match self {
            Self::WrongFamily { host, family } => {
                failure(FailureKind::WrongFamily, format!("{host} is no {} address", family_name(*family)))
            }
            Self::NotPublic { host } => {
                let text = format!("{host} is not at a public address; --external-ip-api-allow-cidrs can allow it");
                failure(FailureKind::AddressRefused, text)
            }
            Self::Unknown { host, miss: Miss::None { text, .. } } => {
                failure(FailureKind::ConnectFailed, format!("no address of {host}: {text}"))
            }
            Self::Unknown { miss: Miss::Failed(inner), .. } if inner.kind == FailureKind::Timeout => too_late(),
            Self::Unknown { host, miss: Miss::Failed(inner) } => {
                failure(inner.kind, format!("no address of {host}: {}", inner.text))
            }
        }
    }
}

pub(super) fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

fn limited(left: Duration) -> Ran {
    let outcome = Outcome::Failed(failure(FailureKind::RateLimited, "the service answers that it was asked too often"));
    Ran { outcome, fresh_for: Some(left) }
}

#[cfg(test)]
mod tests;
