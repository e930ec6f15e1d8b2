//! The connection to the API server: one pool, HTTP/2 where the server speaks it. Made once, by `run`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::{
    client::{
        legacy::{Client as Connections, connect::HttpConnector},
        proxy::matcher::Matcher,
    },
    rt::{TokioExecutor, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls::pki_types::ServerName;
use tokio::time::Instant;
use tower::{BoxError, ServiceBuilder, filter::AsyncFilterLayer};

use super::{bucket::Bucket, proxy::Route};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that is silent this long is asked for a sign of life …
const PING_AFTER: Duration = Duration::from_secs(3);
/// … and given up if none comes within this: in time for a lease to be renewed on a new one.
const PING_TIMEOUT: Duration = Duration::from_secs(6);
/// Room for what one response may send ahead of its reader, and all responses together: a watch
/// that is read slowly must not hold up the answers to writes on the same connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// What [`connect`] needs to know.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The kubeconfig file; `None` means the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Sent with every request: `ipam-in-cluster/<version>`.
    pub user_agent: String,
    /// Requests per second, all kinds together; 0 means no limit.
    pub qps: f64,
    /// How many requests may be made at once above `qps`.
    pub burst: u32,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file cannot be read or used.
    #[error("the kubeconfig {path} cannot be used: {source}", path = path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Not in a pod, and no kubeconfig was named.
    #[error("no kubeconfig was named and this is no pod with a service account: {0}")]
    InCluster(#[from] kube::config::InClusterError),
    /// The credentials or certificates cannot be used.
    #[error("the credentials for the API server cannot be used: {0}")]
    Credentials(#[from] kube::Error),
    /// The server name of the kubeconfig is no DNS name and no address.
    #[error("tls-server-name {0:?} is neither a DNS name nor an address")]
    ServerName(String),
    /// The user agent cannot stand in a header.
    #[error("the user agent {0:?} cannot be sent as a header")]
    UserAgent(String),
    /// The proxy to the API server is of a kind that is not supported.
    #[error("the proxy {0} cannot be used: only http://, socks5:// and socks5h:// can")]
    Proxy(String),
}

/// Makes the client of this process. No request is sent yet.
pub async fn connect(options: ClientOptions) -> Result<Client, ConnectError> {
    let (config, proxy) = load(options.kubeconfig).await?;
    let user_agent = HeaderValue::from_str(&options.user_agent).map_err(|_| ConnectError::UserAgent(options.user_agent))?;
    let route = Route::to(&config.cluster_url, proxy.as_deref(), &Matcher::from_env(), tcp()).map_err(ConnectError::Proxy)?;
    client(config, route, user_agent, options.qps, options.burst)
}

/// The configuration, and the proxy that the kubeconfig names. `Config::proxy_url` is that or the environment's, without exceptions.
async fn load(kubeconfig: Option<PathBuf>) -> Result<(Config, Option<String>), ConnectError> {
    let Some(path) = kubeconfig else {
        return Ok((Config::incluster()?, None));
    };
    let read = async {
        let kubeconfig = Kubeconfig::read_from(&path)?;
        let proxy = proxy_of(&kubeconfig);
        Ok((Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?, proxy))
    };
    read.await.map_err(|source| ConnectError::Kubeconfig { path, source })
}

/// `proxy-url` of the cluster of the current context.
fn proxy_of(kubeconfig: &Kubeconfig) -> Option<String> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *current)?.context.as_ref()?;
    kubeconfig.clusters.iter().find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()?.proxy_url.clone()
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(Duration::from_secs(30)));
    tcp
}

fn client(mut config: Config, route: Route, user_agent: HeaderValue, qps: f64, burst: u32) -> Result<Client, ConnectError> {
    config.headers.push((http::header::USER_AGENT, user_agent));
    let mut https = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
    if let Some(name) = &config.tls_server_name {
        let name = ServerName::try_from(name.clone()).map_err(|_| ConnectError::ServerName(name.clone()))?;
        https = https.with_server_name_resolver(FixedServerNameResolver::new(name));
    }
    let connections: Connections<_, Body> = Connections::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(https.enable_all_versions().wrap_connector(route));

    let limit = (qps > 0.0).then(|| {
        let capacity = f64::from(burst.max(1));
        let bucket = Arc::new(Mutex::new(Bucket::new(capacity, qps, Instant::now())));
        AsyncFilterLayer::new(move |request: http::Request<Body>| {
            let now = Instant::now();
            let wait = bucket.lock().unwrap_or_else(PoisonError::into_inner).reserve(now);
            async move {
                tokio::time::sleep_until(now + wait).await;
                Ok::<_, BoxError>(request)
            }
        })
    });
    // kube's own stack would retry 429, 503 and 504 by itself and log every failed request as an error.
    let service = ServiceBuilder::new()
        .option_layer(limit)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{Router, routing::get};
    use axum_server::{Handle, tls_rustls::RustlsConfig};
    use futures::{StreamExt as _, stream};
    use http::{Request, Version};
    use http_body_util::BodyExt as _;
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};

    use super::*;

    const STREAMS: u32 = 100;

    /// A server as the API server is: HTTP/2, at most 100 streams on a connection. `/watch` answers
    /// one line and stays open; `/write` tells protocol and user agent.
    fn server() -> (Config, Handle<SocketAddr>) {
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let watch = get(async || {
            let line = stream::once(async { Ok::<_, std::io::Error>("line\n") });
            axum::body::Body::from_stream(line.chain(stream::pending()))
        });
        let write = get(async |request: axum::extract::Request| {
            let agent = request.headers()[http::header::USER_AGENT].to_str().unwrap();
            format!("{} {agent}", request.version() == Version::HTTP_2)
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let handle = Handle::new();
        let mut serving = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(Arc::new(tls))).unwrap();
        serving.http_builder().http2().max_concurrent_streams(STREAMS);
        let router = Router::new().route("/watch", watch).route("/write", write);
        tokio::spawn(serving.handle(handle.clone()).serve(router.into_make_service()));
        let mut config = Config::new(format!("https://localhost:{port}").parse().unwrap());
        config.root_cert = Some(vec![own.cert.der().to_vec()]);
        (config, handle)
    }

    fn request(path: &str) -> Request<Body> {
        Request::get(path).body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn watches_and_more_writes_than_streams_share_one_connection() {
        // Another test of this process may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, handle) = server();
        let client = client(config, Route::Direct(tcp()), HeaderValue::from_static("ipam-in-cluster/1.2.3"), 0.0, 0).unwrap();
        let mut watches = Vec::new();
        for _ in 0..8 {
            let mut watch = client.send(request("/watch")).await.unwrap().into_body();
            assert_eq!(watch.frame().await.unwrap().unwrap().into_data().unwrap(), "line\n");
            watches.push(watch);
        }
        let write = async || client.send(request("/write")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        let answers: Vec<_> = stream::iter(0..256).map(|_| write()).buffer_unordered(128).collect().await;
        assert_eq!(answers, vec!["true ipam-in-cluster/1.2.3"; 256]);
        assert_eq!(handle.connection_count(), 1);
    }

    #[tokio::test]
    async fn requests_beyond_the_burst_wait_for_their_turn() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, _handle) = server();
        let client = client(config, Route::Direct(tcp()), HeaderValue::from_static("x"), 0.001, 2).unwrap();
        client.send(request("/write")).await.unwrap();
        client.send(request("/write")).await.unwrap();
        let third = tokio::time::timeout(Duration::from_millis(50), client.send(request("/write")));
        assert!(third.await.is_err());
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_server() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (config, _handle) = server();
        let proxy = testbed::TunnelProxy::start().unwrap();
        let route = Route::to(&config.cluster_url, Some(&proxy.url()), &Matcher::builder().build(), tcp()).unwrap();
        let server = config.cluster_url.authority().unwrap().to_string();
        let client = client(config, route, HeaderValue::from_static("x"), 0.0, 0).unwrap();
        let answer = client.send(request("/write")).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!((answer.as_ref(), proxy.tunnels()), (&b"true x"[..], vec![server]));
    }

    #[test]
    fn the_proxy_of_the_current_context_is_found() {
        let kubeconfig: Kubeconfig = serde_yaml_ng::from_str(
            "
            current-context: two
            contexts: [{name: one, context: {cluster: a, user: u}}, {name: two, context: {cluster: b, user: u}}]
            clusters:
            - {name: a, cluster: {server: 'https://a', proxy-url: 'http://one'}}
            - {name: b, cluster: {server: 'https://b', proxy-url: 'socks5://two'}}
            ",
        )
        .unwrap();
        assert_eq!(proxy_of(&kubeconfig), Some("socks5://two".to_owned()));
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let options =
            ClientOptions { kubeconfig: Some("/nowhere/kubeconfig".into()), user_agent: "x".to_owned(), qps: 0.0, burst: 0 };
        let error = connect(options).await.err().unwrap().to_string();
        assert!(error.starts_with("the kubeconfig /nowhere/kubeconfig cannot be used"), "{error}");
    }
}
