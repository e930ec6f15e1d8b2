//! What stands between one manager and the API server: passes requests on, or does to them what a trial about failures asks for.
//!
//! It speaks HTTP with both sides, so that it can tell watches from other requests on the one connection they share.

mod faults;
mod relay;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use http::Method;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

pub use self::faults::{Faults, Tally};
use self::relay::Relay;
use crate::certificates::Authority;
use crate::control_plane::{ControlPlane, lock};

/// More than a manager ever has on its way at once.
const STREAMS: u32 = 1000;

/// A proxy on loopback with a kubeconfig of its own, [`Proxy::kubeconfig`], for whoever shall reach the API server through it.
///
/// What it does can be changed at any time. It ends when it is dropped, and with it all its connections.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Which requests are held, by method and path with query.
type Which = Arc<dyn Fn(&Method, &str) -> bool + Send + Sync>;

/// What the trial and the proxy's thread have in common.
struct Shared {
    faults: Mutex<Faults>,
    dice: Mutex<StdRng>,
    tally: Mutex<Tally>,
    holds: watch::Sender<Option<Which>>,
    refuses: watch::Sender<bool>,
    cuts: watch::Sender<()>,
    watch_cuts: watch::Sender<()>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("faults", &self.faults).field("tally", &self.tally).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts a proxy that passes everything on. The seed decides which requests the shares of [`Faults`] meet.
    pub fn start(control_plane: &ControlPlane, seed: u64) -> Result<Self> {
        let shared = Arc::new(Shared {
            faults: Mutex::default(),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            tally: Mutex::default(),
            holds: watch::Sender::new(None),
            refuses: watch::Sender::new(false),
            cuts: watch::Sender::default(),
            watch_cuts: watch::Sender::default(),
        });
        let authority = Authority::create()?;
        let tls = tls(&authority)?;
        let relay = Relay::to(control_plane.url(), control_plane.authority(), Arc::clone(&shared))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = mpsc::channel();
        let its = Arc::clone(&shared);
        // A thread of its own: trials block theirs while they start and stop programs.
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::bind(("127.0.0.1", 0)).await {
                    Ok(listener) => {
                        let _ = listening.send(listener.local_addr());
                        tokio::select! {
                            () = serve(&listener, &tls, &relay, &its) => {}
                            _ = stopped => {}
                        }
                    }
                    Err(error) => {
                        let _ = listening.send(Err(error));
                    }
                }
            });
        })?;
        let address = listens.recv().map_err(|_| anyhow!("the proxy's thread died"))?.context("listen on loopback")?;
        let kubeconfig = kubeconfig(control_plane, address, &authority)?;
        Ok(Self { shared, kubeconfig, stop: Some(stop), thread: Some(thread) })
    }

    /// The installed manager's kubeconfig, by way of this proxy.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Does this from now on, and nothing of what it did before.
    pub fn set(&self, faults: Faults) {
        *lock(&self.shared.faults) = faults;
    }

    /// Keeps requests like these, from now on, until [`Proxy::release`]. One whose client goes away meanwhile is never passed on.
    pub fn hold(&self, which: impl Fn(&Method, &str) -> bool + Send + Sync + 'static) {
        self.shared.holds.send_replace(Some(Arc::new(which)));
    }

    /// Passes on what it holds, and holds no more.
    pub fn release(&self) {
        self.shared.holds.send_replace(None);
    }

    /// Closes all connections at once, whatever is on its way; new ones are accepted.
    pub fn cut(&self) {
        self.shared.cuts.send_replace(());
        lock(&self.shared.tally).cuts += 1;
    }

    /// Breaks all watches off in the middle; other requests go on.
    pub fn cut_watches(&self) {
        self.shared.watch_cuts.send_replace(());
        lock(&self.shared.tally).cuts += 1;
    }

    /// Closes all connections, and each new one at once, until told otherwise.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuses.send_replace(refuse);
        if refuse {
            self.shared.cuts.send_replace(());
        }
    }

    /// What it has done since it was started.
    pub fn tally(&self) -> Tally {
        *lock(&self.shared.tally)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A certificate that the kubeconfig's authority has signed, and the protocols that the API server offers.
fn tls(authority: &Authority) -> Result<TlsAcceptor> {
    let issued = authority.issue()?;
    let certificate = CertificateDer::from_pem_slice(issued.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn kubeconfig(control_plane: &ControlPlane, address: SocketAddr, authority: &Authority) -> Result<PathBuf> {
    let name = format!("proxy-{}", address.port());
    let certificate = control_plane.workspace.write(&format!("{name}.crt"), &authority.pem())?;
    let mut config: Value = serde_json::from_slice(&std::fs::read(control_plane.install_manager_identity()?)?)?;
    config["clusters"][0]["cluster"] =
        json!({"server": format!("https://{address}"), "certificate-authority": certificate.display().to_string()});
    control_plane.workspace.write(&format!("{name}.kubeconfig"), &config.to_string())
}

async fn serve(listener: &TcpListener, tls: &TlsAcceptor, relay: &Relay, shared: &Arc<Shared>) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // There may be no file left for it at this moment.
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        if *shared.refuses.borrow() {
            lock(&shared.tally).refused += 1;
            continue;
        }
        let mut cut = shared.cuts.subscribe();
        let connection = connection(socket, tls.clone(), relay.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// Answers the requests of one connection until it ends. How it ends is the client's affair.
async fn connection(socket: TcpStream, tls: TlsAcceptor, relay: Relay) {
    let _ = socket.set_nodelay(true);
    let Ok(stream) = tls.accept(socket).await else { return };
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http2().max_concurrent_streams(STREAMS);
    let answer = service_fn(move |request| {
        let relay = relay.clone();
        async move { relay.answer(request).await }
    });
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}
