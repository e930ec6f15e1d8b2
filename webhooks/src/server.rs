//! The listener: limits, routes, certificate, figures. Started by the manager, in every replica.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::PoolKind;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::{Handle, tls_rustls::RustlsConfig};
use poolutil::Cidr;
use rustls::{ConfigBuilder, ServerConfig, WantsVerifier};
use tokio::net::TcpListener;

use crate::certificate::{CertificateSource, CertificateState, Reader};
use crate::index::PoolIndex;
use crate::review::{self, Answer, Review};
use crate::{claims, convert, externalip, pools, registration};

/// How much an admission review may weigh: old and new object travel together.
const ADMISSION_LIMIT: usize = 7 << 20;

/// How much a conversion review may weigh: it may carry many objects.
const CONVERSION_LIMIT: usize = 32 << 20;

/// How long a body may take to arrive; the API server itself waits for no answer longer than that.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long answers under way may take once the listener is to close.
const CLOSING: Duration = Duration::from_secs(1);

/// How often a manager looks whether its certificate has changed.
pub const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// Which claims this manager serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Only those of this namespace.
    pub namespace: Option<String>,
    /// Only those with this value of the watch-filter label.
    pub watch_filter: Option<String>,
}

/// Told what happens at the listener, for metrics and readiness.
pub trait Report: Send + Sync {
    /// A request to `path` was answered; `code` is that of the decision, also where it travels inside a review: 200 for
    /// what is admitted or converted, 400, 422 or 500 for what is not.
    fn answered(&self, path: &str, code: u16, took: Duration);

    /// A certificate was loaded, or is found missing.
    fn certificate(&self, state: CertificateState);
}

/// With which TLS to listen.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Versions and cipher suites.
    pub offer: ConfigBuilder<ServerConfig, WantsVerifier>,
    /// The certificate. One that is missing is waited for.
    pub source: CertificateSource,
    /// How often it is looked at; in a manager [`RELOAD_EVERY`].
    pub reload_every: Duration,
}

/// What answers stand on.
#[derive(Clone)]
pub struct Webhooks {
    /// The manager's memory.
    pub index: Arc<dyn PoolIndex>,
    /// Which claims get their finalizer.
    pub scope: Scope,
    /// Networks that web services of an external IP source may be in besides public ones.
    pub api_targets: Arc<[Cidr]>,
    /// Who is told.
    pub report: Arc<dyn Report>,
}

/// Serves all webhooks until `shutdown` is over.
pub async fn serve(
    listener: TcpListener,
    tls: Tls,
    webhooks: Webhooks,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    let mut reader = Reader::new(tls.source, Arc::clone(tls.offer.crypto_provider()));
    let mut config = tls.offer.with_no_client_auth().with_cert_resolver(reader.current());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];

    let report = Arc::clone(&webhooks.report);
    let handle = Handle::new();
    let serving = axum_server::from_tcp_rustls(listener.into_std()?, RustlsConfig::from_config(Arc::new(config)))?
        .handle(handle.clone())
        .serve(router(&webhooks).into_make_service());
    let looking = async {
        let mut ticks = tokio::time::interval(tls.reload_every);
        loop {
            ticks.tick().await;
            if let Some(state) = reader.look().await {
                report.certificate(state);
            }
        }
    };
    let closing = async {
        shutdown.await;
        handle.graceful_shutdown(Some(CLOSING));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = serving => served,
        () = looking => Ok(()),
        () = closing => Ok(()),
    }
}

/// What is asked at a path.
#[derive(Clone, Copy, Debug)]
enum Endpoint {
    Default(PoolKind),
    Validate(PoolKind),
    Claim,
    Source,
    Convert,
}

impl Endpoint {
    fn all() -> impl Iterator<Item = Self> {
        let pools = PoolKind::ALL.into_iter().flat_map(|kind| [Self::Default(kind), Self::Validate(kind)]);
        pools.chain([Self::Claim, Self::Source, Self::Convert])
    }

    fn path(self) -> String {
        match self {
            Self::Default(kind) => registration::default_path(kind),
            Self::Validate(kind) => registration::validate_path(kind),
            Self::Claim => registration::CLAIM_PATH.to_owned(),
            Self::Source => registration::SOURCE_PATH.to_owned(),
            Self::Convert => registration::CONVERT_PATH.to_owned(),
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Convert => CONVERSION_LIMIT,
            _ => ADMISSION_LIMIT,
        }
    }

    fn answer(self, body: &[u8], webhooks: &Webhooks) -> Reply {
        match self {
            Self::Default(kind) => admission(body, |request| pools::default(kind, request)),
            Self::Validate(kind) => admission(body, |request| pools::validate(kind, request, &*webhooks.index)),
            Self::Claim => admission(body, |request| claims::mutate(request, &webhooks.scope)),
            Self::Source => admission(body, |request| externalip::validate(request, &webhooks.api_targets)),
            Self::Convert => conversion(body),
        }
    }
}

fn admission(body: &[u8], decide: impl Fn(&review::Request) -> Answer) -> Reply {
    match Review::read(body) {
        Err(reason) => Reply::refusal(StatusCode::BAD_REQUEST, reason),
        Ok(review) => {
            let answer = decide(&review.request);
            Reply { code: answer.code(), body: Ok(review.write(answer).to_string().into_bytes()) }
        }
    }
}

fn conversion(body: &[u8]) -> Reply {
    match convert::answer(body) {
        Err(reason) => Reply::refusal(StatusCode::BAD_REQUEST, reason),
        Ok(converted) => Reply { code: if converted.succeeded { 200 } else { 422 }, body: Ok(converted.body) },
    }
}

/// What goes back.
struct Reply {
    /// The code of the decision.
    code: u16,
    /// A review, or why there is none.
    body: Result<Vec<u8>, (StatusCode, String)>,
}

impl Reply {
    fn refusal(status: StatusCode, reason: String) -> Self {
        Self { code: status.as_u16(), body: Err((status, reason)) }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        match self.body {
            Ok(review) => ([(header::CONTENT_TYPE, "application/json")], review).into_response(),
            Err((status, reason)) => (status, format!("{reason}\n")).into_response(),
        }
    }
}

fn router(webhooks: &Webhooks) -> Router {
    Endpoint::all().fold(Router::new(), |router, endpoint| {
        let webhooks = webhooks.clone();
        let answers = post(move |request: Request| answer(endpoint, webhooks, request));
        router.route(&endpoint.path(), answers.layer(DefaultBodyLimit::max(endpoint.limit())))
    })
}

async fn answer(endpoint: Endpoint, webhooks: Webhooks, request: Request) -> Reply {
    let started = Instant::now();
    let report = Arc::clone(&webhooks.report);
    let reply = match body_of(request).await {
        Err(refusal) => refusal,
        // A review can be large: reading it must not hold up the others.
        Ok(body) => tokio::task::spawn_blocking(move || endpoint.answer(&body, &webhooks))
            .await
            .unwrap_or_else(|error| Reply::refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    };
    let path = endpoint.path();
    if let Err((status, reason)) = &reply.body {
        tracing::warn!(path, %status, reason, "a request is no review");
    }
    tracing::debug!(path, code = reply.code, "answered");
    report.answered(&path, reply.code, started.elapsed());
    reply
}

async fn body_of(request: Request) -> Result<Bytes, Reply> {
    match tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) => Err(Reply::refusal(rejection.status(), rejection.body_text())),
        Err(_) => Err(Reply::refusal(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned())),
    }
}
