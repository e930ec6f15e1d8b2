//! Metrics and debugging over HTTPS for callers that the API server knows and allows; or, if asked
//! to, metrics alone over plain HTTP.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, Resource, api::PostParams};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::TcpListener,
    time::{Instant, timeout},
};

use super::{leader::hostname, metrics::Metrics, shutdown::Shutdown};
use crate::config::{LogLevel, TlsSettings};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the state of a pool's ledger, or of all pools; `None` when there is no such pool.
pub type LedgerDump = Arc<dyn Fn(Option<&str>) -> Option<String> + Send + Sync>;

/// Why the diagnostics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DiagnosticsError {
    /// No certificate of our own.
    #[error("cannot make a certificate for the diagnostics: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS settings leave nothing to negotiate.
    #[error("cannot offer TLS for the diagnostics with these settings: {0}")]
    Tls(#[from] rustls::Error),
    /// The listener failed.
    #[error("cannot serve the diagnostics: {0}")]
    Io(#[from] io::Error),
}

/// What is shown.
#[derive(Clone)]
pub struct Sources {
    /// Shown at `/metrics`.
    pub metrics: Metrics,
    /// Changed at `/debug/flags/v`.
    pub log_level: LogLevel,
    /// Shown at `/debug/ledger`.
    pub ledger: LedgerDump,
}

/// Serves `/metrics` to everybody over plain HTTP until `shutdown` is requested.
pub async fn serve_insecure(listener: TcpListener, metrics: Metrics, shutdown: Shutdown) -> Result<(), DiagnosticsError> {
    let router = Router::new().route("/metrics", get(async move |headers: HeaderMap| show_metrics(&headers, &metrics)));
    let asked = async move { shutdown.requested().await };
    Ok(axum::serve(listener, router).with_graceful_shutdown(asked).await?)
}

/// Serves everything over HTTPS, to callers with a token that the API server knows and with leave
/// to use the path, until `shutdown` is requested.
pub async fn serve(
    listener: TcpListener,
    tls: &TlsSettings,
    client: Client,
    sources: Sources,
    shutdown: Shutdown,
) -> Result<(), DiagnosticsError> {
    let tls = RustlsConfig::from_config(Arc::new(server_config(tls)?));
    let handle = Handle::new();
    let serving = axum_server::from_tcp_rustls(listener.into_std()?, tls)?
        .handle(handle.clone())
        .serve(router(client, sources).into_make_service());
    let asked = async move {
        shutdown.requested().await;
        handle.graceful_shutdown(Some(Duration::from_secs(1)));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        served = serving => Ok(served?),
        () = asked => Ok(()),
    }
}

fn server_config(settings: &TlsSettings) -> Result<ServerConfig, DiagnosticsError> {
    let own = rcgen::generate_simple_self_signed([hostname(), "localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let mut config = settings.offer()?.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn router(client: Client, sources: Sources) -> Router {
    let Sources { metrics, log_level, ledger } = sources;
    let door = Door { client, metrics: metrics.clone() };
    Router::new()
        .route("/metrics", get(async move |headers: HeaderMap| show_metrics(&headers, &metrics)))
        .route("/debug/flags/v", put(async move |body: Bytes| set_level(&body, &log_level)))
        .route("/debug/ledger", get(async move |query: Query<BTreeMap<String, String>>| show_ledger(&query, &ledger)))
        .layer(middleware::from_fn_with_state(door, admit))
}

fn show_metrics(headers: &HeaderMap, metrics: &Metrics) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let kind = if accepts.contains("application/openmetrics-text") { OPENMETRICS } else { PLAIN_METRICS };
    match metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn set_level(body: &[u8], log_level: &LogLevel) -> (StatusCode, String) {
    let text = String::from_utf8_lossy(body);
    match text.trim().parse::<u8>() {
        Err(_) => (StatusCode::BAD_REQUEST, format!("{:?} is not a level: write a number from 0 to 10\n", text.trim())),
        Ok(level) => match log_level.set(level) {
            Ok(()) => (StatusCode::OK, format!("the log level is {level} now\n")),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
    }
}

fn show_ledger(query: &BTreeMap<String, String>, ledger: &LedgerDump) -> (StatusCode, String) {
    match ledger(query.get("pool").map(String::as_str)) {
        Some(text) => (StatusCode::OK, text),
        None => (StatusCode::NOT_FOUND, "there is no such pool\n".to_owned()),
    }
}

/// Asks the API server who a caller is and what it may do.
#[derive(Clone)]
struct Door {
    client: Client,
    metrics: Metrics,
}

async fn admit(State(door): State<Door>, request: Request, next: Next) -> Response {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .map(|token| token.trim().to_owned());
    let Some(token) = token else {
        return (StatusCode::UNAUTHORIZED, "a bearer token is needed\n").into_response();
    };
    let verb = request.method().as_str().to_ascii_lowercase();
    let path = request.uri().path().to_owned();
    match door.decide(token, verb, path).await {
        Ok(Decision::Allowed) => next.run(request).await,
        Ok(Decision::Unknown) => (StatusCode::UNAUTHORIZED, "the token is not known\n").into_response(),
        Ok(Decision::Forbidden) => (StatusCode::FORBIDDEN, "not allowed\n").into_response(),
        Err(error) => {
            tracing::warn!(%error, "cannot ask the API server about a caller of the diagnostics");
            (StatusCode::INTERNAL_SERVER_ERROR, "the API server cannot be asked\n").into_response()
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Decision {
    Allowed,
    Unknown,
    Forbidden,
}

impl Door {
    async fn decide(&self, token: String, verb: String, path: String) -> Result<Decision, String> {
        let spec = TokenReviewSpec { token, ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let status = self.review("tokenreviews", &review).await?.status.unwrap_or_default();
        let (Some(true), Some(user)) = (status.authenticated, status.user) else {
            return Ok(Decision::Unknown);
        };
        let UserInfo { extra, groups, uid, username } = user;
        let spec = SubjectAccessReviewSpec {
            extra,
            groups,
            uid,
            user: username,
            non_resource_attributes: Some(NonResourceAttributes { path: Some(path), verb: Some(verb) }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let status = self.review("subjectaccessreviews", &review).await?.status;
        let allowed = status.is_some_and(|status| status.allowed);
        Ok(if allowed { Decision::Allowed } else { Decision::Forbidden })
    }

    async fn review<K>(&self, resource: &'static str, review: &K) -> Result<K, String>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
    {
        let reviews: Api<K> = Api::all(self.client.clone());
        let started = Instant::now();
        let answer = timeout(REVIEW_TIMEOUT, reviews.create(&PostParams::default(), review)).await;
        let (code, answer) = match answer {
            Ok(Ok(review)) => ("201".to_owned(), Ok(review)),
            Ok(Err(kube::Error::Api(status))) => (status.code.to_string(), Err(status.to_string())),
            Ok(Err(error)) => ("error".to_owned(), Err(error.to_string())),
            Err(_) => ("timeout".to_owned(), Err(format!("no answer about {resource} in time"))),
        };
        self.metrics.request("create", resource, &code, started.elapsed());
        answer
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use kube::client::Body as ApiBody;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    use super::*;

    /// An API server that knows one token, of a user who may read `/metrics` and nothing else.
    fn api_server() -> Client {
        let (service, mut handle) = tower_test::mock::pair::<http::Request<ApiBody>, http::Response<ApiBody>>();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                review["status"] = if path == "/apis/authentication.k8s.io/v1/tokenreviews" {
                    let known = review["spec"]["token"] == "known";
                    json!({ "authenticated": known, "user": { "username": "scraper", "groups": ["monitoring"] } })
                } else {
                    assert_eq!(path, "/apis/authorization.k8s.io/v1/subjectaccessreviews");
                    assert_eq!(review["spec"]["user"], "scraper");
                    assert_eq!(review["spec"]["groups"], json!(["monitoring"]));
                    let wanted = json!({ "path": "/metrics", "verb": "get" });
                    json!({ "allowed": review["spec"]["nonResourceAttributes"] == wanted })
                };
                let answer = serde_json::to_vec(&review).unwrap();
                send.send_response(http::Response::builder().status(201).body(ApiBody::from(answer)).unwrap());
            }
        });
        Client::new(service, "default")
    }

    fn sources() -> Sources {
        Sources {
            metrics: Metrics::new("1.2.3"),
            log_level: LogLevel::new(|level| if level == 4 { Ok(()) } else { Err("no".to_owned()) }),
            ledger: Arc::new(|pool| (pool != Some("gone")).then(|| format!("ledger of {pool:?}"))),
        }
    }

    async fn ask(method: &str, path: &str, token: Option<&str>) -> (u16, String) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = router(api_server(), sources()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn only_known_callers_with_leave_get_in() {
        assert_eq!(ask("GET", "/metrics", None).await.0, 401);
        assert_eq!(ask("GET", "/metrics", Some("stolen")).await.0, 401);
        assert_eq!(ask("GET", "/debug/ledger", Some("known")).await.0, 403);
        assert_eq!(ask("PUT", "/debug/flags/v", Some("known")).await.0, 403);
        let (code, text) = ask("GET", "/metrics", Some("known")).await;
        assert_eq!(code, 200);
        assert!(text.contains("ipam_build_info{version=\"1.2.3\"} 1"), "{text}");
    }

    #[test]
    fn the_log_level_is_a_number() {
        let level = sources().log_level;
        assert_eq!(set_level(b"4\n", &level).0, 200);
        assert_eq!(set_level(b"high", &level).0, 400);
        assert_eq!(set_level(b"5", &level).0, 500);
    }

    #[test]
    fn a_ledger_is_shown_by_pool() {
        let ledger = sources().ledger;
        let query = |pool: &str| BTreeMap::from([("pool".to_owned(), pool.to_owned())]);
        assert_eq!(show_ledger(&BTreeMap::new(), &ledger), (StatusCode::OK, "ledger of None".to_owned()));
        assert_eq!(show_ledger(&query("a"), &ledger).1, "ledger of Some(\"a\")");
        assert_eq!(show_ledger(&query("gone"), &ledger).0, 404);
    }

    #[test]
    fn scrapers_get_the_format_they_ask_for() {
        let metrics = Metrics::new("1.2.3");
        let kind = |accept: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            show_metrics(&headers, &metrics).headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned()
        };
        assert_eq!(kind("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"), OPENMETRICS);
        assert_eq!(kind("*/*"), PLAIN_METRICS);
    }
}
