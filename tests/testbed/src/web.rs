//! An HTTPS server on loopback: a test scripts its answers, path by path, and asks how often it was called.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::serve::Listener;
use futures::stream;
use tempfile::NamedTempFile;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::server::TlsStream;

use crate::background::Background;
use crate::certificates::{Authority, Issued};
use crate::control_plane::lock;

/// The names its certificate is for; [`WebServer::EXPIRED`] and [`WebServer::WRONG_NAME`] are among them.
const NAMES: [&str; 3] = ["127.0.0.1", "localhost", "*.example.net"];

/// What a path answers.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(HeaderName, String)>,
    text: String,
    pause: Option<Duration>,
}

impl Answer {
    /// Status 200 and this body.
    pub fn text(text: impl Into<String>) -> Self {
        Self { status: 200, headers: Vec::new(), text: text.into(), pause: None }
    }

    /// This status and a body that says so.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::text(format!("status {status}")) }
    }

    /// Status 429, with the seconds after which a client may come again.
    pub fn too_many_requests(retry_after: Option<u64>) -> Self {
        let headers = retry_after.map(|seconds| (header::RETRY_AFTER, seconds.to_string()));
        Self { headers: headers.into_iter().collect(), ..Self::status(429) }
    }

    /// Status 302 to another URL.
    pub fn redirect(to: impl Into<String>) -> Self {
        Self { headers: vec![(header::LOCATION, to.into())], ..Self::status(302) }
    }

    /// The same, with a body that comes byte by byte, with a pause before each.
    #[must_use]
    pub fn dripping(self, pause: Duration) -> Self {
        Self { pause: Some(pause), ..self }
    }

    fn into_response(self) -> Result<Response> {
        let body = match self.pause {
            None => Body::from(self.text),
            Some(pause) => {
                let bytes = self.text.into_bytes().into_iter();
                Body::from_stream(stream::unfold(bytes, move |mut bytes| async move {
                    tokio::time::sleep(pause).await;
                    let byte = bytes.next()?;
                    Some((Ok::<_, std::io::Error>(vec![byte]), bytes))
                }))
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(self.status)?;
        for (name, value) in self.headers {
            response.headers_mut().insert(name, HeaderValue::from_str(&value)?);
        }
        Ok(response)
    }
}

/// A web server with certificates of an authority of its own. Dropping it ends it.
///
/// By an IP literal or any name below `example.net` it shows a good certificate, except by the two names below.
/// A path nobody has set answers 404.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let web = testbed::WebServer::start()?;
/// web.answer("/ip", testbed::Answer::text(r#"{"ip": "203.0.113.9"}"#));
/// println!("--external-ip-api-endpoint=ipify={}", web.url("/ip"));
/// assert_eq!(web.requests("/ip"), 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct WebServer {
    address: SocketAddr,
    authority: String,
    authority_file: NamedTempFile,
    site: Arc<Mutex<Site>>,
    _serving: Background,
}

#[derive(Debug, Default)]
struct Site {
    answers: BTreeMap<String, Answer>,
    requests: BTreeMap<String, usize>,
}

impl WebServer {
    /// A host name by which the server shows a certificate that has expired.
    pub const EXPIRED: &str = "expired.example.net";
    /// A host name by which the server shows a certificate for somebody else.
    pub const WRONG_NAME: &str = "wrong-name.example.net";

    /// Starts to listen on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        Self::start_at([127, 0, 0, 1])
    }

    /// Starts to listen on a free port of another address of loopback.
    pub fn start_at(address: [u8; 4]) -> Result<Self> {
        let authority = Authority::create()?;
        let certificates = Certificates {
            good: certified(&authority.issue_for(&NAMES)?)?,
            expired: certified(&authority.issue_expired(&NAMES)?)?,
            wrong_name: certified(&authority.issue_for(&["elsewhere.example.org"])?)?,
        };
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(certificates));
        let listener = std::net::TcpListener::bind((Ipv4Addr::from(address), 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let site = Arc::new(Mutex::new(Site::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&site));
        let serving = Background::start("web", move || async move {
            let connections = Connections::accept(TcpListener::from_std(listener)?, TlsAcceptor::from(Arc::new(config)));
            Ok(axum::serve(connections, router).await?)
        })?;
        let authority_file = NamedTempFile::new()?;
        fs::write(authority_file.path(), authority.pem())?;
        Ok(Self { address, authority: authority.pem(), authority_file, site, _serving: serving })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, by IP literal.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// The URL of a path, by a name that must resolve to 127.0.0.1.
    pub fn url_by_name(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.address.port())
    }

    /// The PEM of the authority that has signed its certificates.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A file with that PEM.
    pub fn authority_file(&self) -> &Path {
        self.authority_file.path()
    }

    /// Lets a path give this answer from now on.
    pub fn answer(&self, path: &str, answer: Answer) {
        lock(&self.site).answers.insert(path.to_owned(), answer);
    }

    /// How often a path was asked for.
    pub fn requests(&self, path: &str) -> usize {
        lock(&self.site).requests.get(path).copied().unwrap_or_default()
    }
}

async fn answer(State(site): State<Arc<Mutex<Site>>>, request: Request) -> Response {
    let path = request.uri().path();
    let answer = {
        let mut site = lock(&site);
        *site.requests.entry(path.to_owned()).or_default() += 1;
        site.answers.get(path).cloned()
    };
    let answer = answer.unwrap_or_else(|| Answer::status(404));
    answer.into_response().unwrap_or_else(|error| Response::new(Body::from(format!("{error:#}"))))
}

/// Which certificate a client is shown.
#[derive(Debug)]
struct Certificates {
    good: Arc<CertifiedKey>,
    expired: Arc<CertifiedKey>,
    wrong_name: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(match client.server_name() {
            Some(WebServer::EXPIRED) => &self.expired,
            Some(WebServer::WRONG_NAME) => &self.wrong_name,
            _ => &self.good,
        }))
    }
}

fn certified(issued: &Issued) -> Result<Arc<CertifiedKey>> {
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).context("read a certificate")?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).context("read a key")?;
    Ok(Arc::new(CertifiedKey::from_der(vec![certificate], key, &ring::default_provider())?))
}

/// Connections whose handshake is done. A client that never finishes its own holds up nobody else.
struct Connections {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Connections {
    fn accept(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let (connected, ready) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let (acceptor, connected) = (acceptor.clone(), connected.clone());
                tokio::spawn(async move {
                    // A client that does not like the certificate goes away here.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = connected.send((stream, peer)).await;
                    }
                });
            }
        });
        Self { address, ready }
    }
}

impl Listener for Connections {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    use super::*;

    /// The whole answer to a request for a path, by a host name.
    async fn get(web: &WebServer, host: &str, path: &str) -> Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(web.authority().as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = match host.parse::<IpAddr>() {
            Ok(address) => ServerName::from(address),
            Err(_) => ServerName::try_from(host.to_owned())?,
        };
        let stream = TcpStream::connect(web.address()).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8(answer)?)
    }

    #[tokio::test]
    async fn a_path_answers_as_scripted_and_counts_requests() {
        let web = WebServer::start().unwrap();
        web.answer("/ip", Answer::text("203.0.113.9"));
        let answer = get(&web, "127.0.0.1", "/ip?format=text").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n203.0.113.9"), "{answer}");
        web.answer("/ip", Answer::too_many_requests(Some(7)));
        let answer = get(&web, "api.example.net", "/ip").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 7"), "{answer}");
        web.answer("/ip", Answer::redirect("https://example.net/"));
        let answer = get(&web, "localhost", "/ip").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 302") && answer.contains("location: https://example.net/"), "{answer}");
        web.answer("/ip", Answer::text("slow").dripping(Duration::from_millis(10)));
        let answer = get(&web, "127.0.0.1", "/ip").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\r\nw\r\n"), "{answer}");
        assert!(get(&web, "127.0.0.1", "/other").await.unwrap().starts_with("HTTP/1.1 404"));
        assert_eq!(["/ip", "/other", "/"].map(|path| web.requests(path)), [4, 1, 0]);
    }

    #[tokio::test]
    async fn two_names_show_certificates_that_a_client_refuses() {
        let web = WebServer::start().unwrap();
        let expired = get(&web, WebServer::EXPIRED, "/").await.unwrap_err().to_string();
        assert!(expired.to_lowercase().contains("expired"), "{expired}");
        let wrong = get(&web, WebServer::WRONG_NAME, "/").await.unwrap_err().to_string();
        assert!(wrong.contains("not valid for name"), "{wrong}");
        assert_eq!(web.requests("/"), 0);
    }
}
