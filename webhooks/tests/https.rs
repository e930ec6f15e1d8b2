//! The listener as the API server meets it: TLS with a certificate that comes, changes and may be missing; limits; reviews
//! of both versions.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::PoolKind;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use poolutil::{Pool, RangeSet, Span};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use webhooks::{
    CertificateFiles, CertificateSource, CertificateState, InUse, NotSynced, Partner, PoolIndex, PoolName, Report, Scope, Tls,
    Webhooks, registration, serve,
};

const DEADLINE: Duration = Duration::from_secs(20);

static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// One pool holds 10.0.0.10.
struct Memory;

impl PoolIndex for Memory {
    fn in_use(&self, pool: PoolName<'_>) -> Result<InUse, NotSynced> {
        let values: Vec<_> = (pool.name == "blue").then(|| Span::parse_host("10.0.0.10").unwrap()).into_iter().collect();
        Ok(InUse { objects: values.len(), values })
    }

    fn overlapping(&self, _: PoolName<'_>, _: &str, _: &RangeSet) -> Vec<Partner> {
        Vec::new()
    }

    fn annotation_problems(&self, _: &BTreeMap<String, String>, _: &Pool) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Debug, PartialEq)]
enum Told {
    Answered(String, u16),
    Certificate(CertificateState),
}

struct Teller(UnboundedSender<Told>);

impl Report for Teller {
    fn answered(&self, path: &str, code: u16, _: Duration) {
        let _ = self.0.send(Told::Answered(path.to_owned(), code));
    }

    fn certificate(&self, state: CertificateState) {
        let _ = self.0.send(Told::Certificate(state));
    }
}

/// A listener under way.
struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    told: UnboundedReceiver<Told>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn new() -> Self {
        Self::with_versions(rustls::ALL_VERSIONS).await
    }

    async fn with_versions(versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let provider = Arc::new(ring::default_provider());
        let tls = Tls {
            offer: ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap(),
            source: CertificateSource::Files(CertificateFiles {
                certificate: folder.path().join("tls.crt"),
                key: folder.path().join("tls.key"),
            }),
            reload_every: Duration::from_millis(10),
        };
        let (tell, told) = unbounded_channel();
        let report = Arc::new(Teller(tell));
        let webhooks = Webhooks { index: Arc::new(Memory), scope: Scope::default(), api_targets: Arc::new([]), report };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, tls, webhooks, async move { stopped.await.unwrap() }));
        Self { address, folder, told, stop, serving }
    }

    /// Runs with a certificate of a new authority, which is returned.
    async fn certified() -> (Self, CertificateDer<'static>) {
        let mut running = Self::new().await;
        let authority = running.certify().await;
        (running, authority)
    }

    /// Writes a certificate of a new authority to disk and waits until it is in use.
    async fn certify(&mut self) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::new(params, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();

        std::fs::write(self.folder.path().join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(self.folder.path().join("tls.crt"), certificate.pem()).unwrap();
        while self.next().await != Told::Certificate(CertificateState::Loaded) {}
        authority.der().clone()
    }

    async fn next(&mut self) -> Told {
        timeout(DEADLINE, self.told.recv()).await.expect("nothing is told in time").unwrap()
    }

    fn caller(&self, authority: &CertificateDer<'static>) -> Caller {
        self.caller_with(authority, rustls::ALL_VERSIONS)
    }

    fn caller_with(&self, authority: &CertificateDer<'static>, versions: &[&'static SupportedProtocolVersion]) -> Caller {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_http1().build();
        Caller { client: Client::builder(TokioExecutor::new()).build(connector), address: self.address }
    }
}

/// An API server that trusts one authority.
struct Caller {
    client: Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<axum::body::Bytes>>,
    address: SocketAddr,
}

impl Caller {
    async fn send(&self, method: &str, path: &str, body: String) -> Result<(u16, String), String> {
        let uri = format!("https://localhost:{}{path}", self.address.port());
        let request = http::Request::builder().method(method).uri(uri).body(Full::new(body.into())).unwrap();
        let answer = timeout(DEADLINE, self.client.request(request)).await.unwrap().map_err(|error| format!("{error:?}"))?;
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        Ok((code, String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn ask(&self, path: &str, review: &Value) -> Value {
        let (code, body) = self.send("POST", &format!("{path}?timeout=10s"), review.to_string()).await.unwrap();
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn admission(version: &str, kind: &str, operation: &str, object: &Value) -> Value {
    json!({
        "apiVersion": format!("admission.k8s.io/{version}"),
        "kind": "AdmissionReview",
        "request": {
            "uid": "u-1",
            "kind": {"group": "ipam.cluster.x-k8s.io", "version": "v1alpha2", "kind": kind},
            "name": "blue",
            "namespace": "team-a",
            "operation": operation,
            "object": if operation == "DELETE" { &Value::Null } else { object },
            "oldObject": if operation == "CREATE" { &Value::Null } else { object },
        },
    })
}

fn conversion() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "request": {
            "uid": "u-2",
            "desiredAPIVersion": "ipam.cluster.x-k8s.io/v1alpha2",
            "objects": [{
                "apiVersion": "ipam.cluster.x-k8s.io/v1alpha1",
                "kind": "InClusterIPPool",
                "metadata": {"name": "blue"},
                "spec": {"subnet": "10.0.0.0/24"},
            }],
        },
    })
}

fn good_spec(kind: PoolKind) -> Value {
    if kind.is_prefix() { json!({"prefixes": ["fd00::/48"]}) } else { json!({"addresses": ["10.0.0.10"], "prefix": 24}) }
}

#[tokio::test]
async fn every_registered_path_answers_in_the_version_asked() {
    let (mut running, authority) = Running::certified().await;
    let caller = running.caller(&authority);
    for version in registration::ADMISSION_REVIEW_VERSIONS {
        for kind in PoolKind::ALL {
            let pool = json!({"metadata": {"name": "blue"}, "spec": good_spec(kind)});
            for path in [registration::default_path(kind), registration::validate_path(kind)] {
                let answer = caller.ask(&path, &admission(version, kind.kind(), "CREATE", &pool)).await;
                assert_eq!(answer["apiVersion"], format!("admission.k8s.io/{version}"));
                assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&json!("u-1"), &json!(true)));
                assert_eq!(answer["response"]["patchType"].is_string(), kind.is_prefix() && path.starts_with("/mutate"));
                assert_eq!(running.next().await, Told::Answered(path, 200));
            }
        }
        let reference = json!({"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"});
        let claim = json!({"metadata": {"name": "web"}, "spec": {"poolRef": reference}});
        let answer = caller.ask(registration::CLAIM_PATH, &admission(version, "IPAddressClaim", "CREATE", &claim)).await;
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        assert_eq!(running.next().await, Told::Answered(registration::CLAIM_PATH.to_owned(), 200));
    }
    let answer = caller.ask(registration::CONVERT_PATH, &conversion()).await;
    assert_eq!(answer["response"]["convertedObjects"][0]["spec"]["addresses"], json!(["10.0.0.1-10.0.0.254"]));
    assert_eq!(running.next().await, Told::Answered("/convert".to_owned(), 200));
}

#[tokio::test]
async fn decisions_travel_with_their_code() {
    let (mut running, authority) = Running::certified().await;
    let caller = running.caller(&authority);
    let path = registration::validate_path(PoolKind::InClusterIPPool);
    for (operation, spec, code) in [("CREATE", json!({}), 422), ("DELETE", good_spec(PoolKind::InClusterIPPool), 400)] {
        let pool = json!({"metadata": {"name": "blue"}, "spec": spec});
        let answer = caller.ask(&path, &admission("v1", "InClusterIPPool", operation, &pool)).await;
        assert_eq!((&answer["response"]["allowed"], &answer["response"]["status"]["code"]), (&json!(false), &json!(code)));
        assert_eq!(running.next().await, Told::Answered(path.clone(), code));
    }
    let mut failing = conversion();
    failing["request"]["objects"][0]["spec"]["subnet"] = json!("nonsense");
    let answer = caller.ask("/convert", &failing).await;
    assert_eq!(answer["response"]["result"]["status"], "Failure");
    assert_eq!(running.next().await, Told::Answered("/convert".to_owned(), 422));
}

#[tokio::test]
async fn a_missing_certificate_is_waited_for_and_a_new_one_is_used() {
    let mut running = Running::new().await;
    let Told::Certificate(CertificateState::Missing(reason)) = running.next().await else { panic!("a certificate") };
    assert!(reason.contains("tls.crt"), "{reason}");
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    running.caller(stranger.cert.der()).send("POST", "/convert", conversion().to_string()).await.unwrap_err();

    let first = running.certify().await;
    let early = running.caller(&first);
    early.ask("/convert", &conversion()).await;

    let second = running.certify().await;
    running.caller(&second).ask("/convert", &conversion()).await;
    let error = running.caller(&first).send("POST", "/convert", conversion().to_string()).await.unwrap_err();
    assert!(error.contains("InvalidCertificate"), "{error}");
    // What is connected stays connected.
    early.ask("/convert", &conversion()).await;
}

#[tokio::test]
async fn bodies_are_limited_by_what_they_carry() {
    const MIB: usize = 1 << 20;
    let (running, authority) = Running::certified().await;
    let caller = running.caller(&authority);
    let kind = PoolKind::InClusterIPPool;
    let pool = json!({"metadata": {"name": "blue"}, "spec": good_spec(kind)});
    let review = admission("v1", kind.kind(), "CREATE", &pool).to_string();
    let padded = |text: &str, size: usize| format!("{text}{}", " ".repeat(size - text.len()));
    let validate = registration::validate_path(kind);
    for (path, body, code) in [
        (&*validate, padded(&review, 7 * MIB), 200),
        (&validate, padded(&review, 7 * MIB + 1), 413),
        (registration::CLAIM_PATH, padded(&review, 7 * MIB + 1), 413),
        ("/convert", padded(&conversion().to_string(), 32 * MIB), 200),
        ("/convert", padded(&conversion().to_string(), 32 * MIB + 1), 413),
    ] {
        let size = body.len();
        match caller.send("POST", path, body).await {
            Ok((found, _)) => assert_eq!(found, code, "{path} {size}"),
            // The rest of a body that is too large is not read, so the connection may end before it is sent.
            Err(error) => assert_eq!(code, 413, "{path} {size}: {error}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_review_is_a_bad_request() {
    let (mut running, authority) = Running::certified().await;
    let caller = running.caller(&authority);
    let kind = PoolKind::GlobalInClusterPrefixPool;
    let deep = format!(r#"{{"apiVersion":{}"#, "[".repeat(1 << 20));
    for path in [&registration::default_path(kind), &registration::validate_path(kind), registration::CLAIM_PATH, "/convert"] {
        for body in ["", "{}", "[", "null", &deep, r#"{"apiVersion":"admission.k8s.io/v3","kind":"AdmissionReview"}"#] {
            let (code, text) = caller.send("POST", path, body.to_owned()).await.unwrap();
            assert!(code == 400 && text.starts_with("not a"), "{code} {text}");
            assert_eq!(running.next().await, Told::Answered(path.to_owned(), 400));
        }
        assert_eq!(caller.send("GET", path, String::new()).await.unwrap().0, 405);
    }
    assert_eq!(caller.send("POST", "/elsewhere", String::new()).await.unwrap().0, 404);
}

#[tokio::test]
async fn callers_speak_the_offered_versions_of_tls() {
    let mut running = Running::with_versions(&ONLY_TLS13).await;
    let authority = running.certify().await;
    running.caller_with(&authority, &ONLY_TLS13).ask("/convert", &conversion()).await;
    let old = running.caller_with(&authority, &[&version::TLS12]);
    let error = old.send("POST", "/convert", conversion().to_string()).await.unwrap_err();
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[tokio::test]
async fn the_listener_closes_when_it_is_asked_to() {
    let (running, authority) = Running::certified().await;
    let caller = running.caller(&authority);
    caller.ask("/convert", &conversion()).await;
    running.stop.send(()).unwrap();
    timeout(DEADLINE, running.serving).await.unwrap().unwrap().unwrap();
    tokio::net::TcpStream::connect(running.address).await.unwrap_err();
}
