//! The connection to the API server: one pool, HTTP/2 where the server speaks it. Made once, by `run`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Connections, connect::HttpConnector},
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

use super::bucket::Bucket;

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
    /// A proxy is configured.
    #[error("the kubeconfig asks for the proxy {0}, and proxies are not supported")]
    Proxy(http::Uri),
}

/// Makes the client of this process. No request is sent yet.
pub async fn connect(options: ClientOptions) -> Result<Client, ConnectError> {
    let config = load(options.kubeconfig).await?;
    if let Some(proxy) = &config.proxy_url {
        return Err(ConnectError::Proxy(proxy.clone()));
    }
    let user_agent = HeaderValue::from_str(&options.user_agent).map_err(|_| ConnectError::UserAgent(options.user_agent))?;
    client(config, user_agent, options.qps, options.burst)
}

async fn load(kubeconfig: Option<PathBuf>) -> Result<Config, ConnectError> {
    let Some(path) = kubeconfig else {
        return Ok(Config::incluster()?);
    };
    let read = async {
        let kubeconfig = Kubeconfig::read_from(&path)?;
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
    };
    read.await.map_err(|source| ConnectError::Kubeconfig { path, source })
}

fn client(mut config: Config, user_agent: HeaderValue, qps: f64, burst: u32) -> Result<Client, ConnectError> {
    config.headers.push((http::header::USER_AGENT, user_agent));
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT_TIMEOUT));
    http.set_keepalive(Some(Duration::from_secs(30)));
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
        .build(https.enable_all_versions().wrap_connector(http));

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
