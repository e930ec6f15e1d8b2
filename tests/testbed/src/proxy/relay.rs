//! One request's way through a proxy, and the way back of its answer.

use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Error, Result, anyhow};
use futures::{StreamExt, stream};
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::faults::{Fate, Faults, Tally};
use crate::control_plane::lock;

type Body = UnsyncBoxBody<Bytes, Error>;
type Piece = Result<Frame<Bytes>, hyper::Error>;

/// Passes requests on to one API server.
#[derive(Clone)]
pub(super) struct Relay {
    server: Authority,
    client: Client<HttpsConnector<HttpConnector>, Incoming>,
    shared: Arc<Shared>,
}

impl Relay {
    pub(super) fn to(url: &str, authority: &Path, shared: Arc<Shared>) -> Result<Self> {
        let server = url.parse::<Uri>()?.into_parts().authority.context("an address without authority")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_all_versions().build();
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            // A watch that is read slowly must not hold up the other answers.
            .http2_initial_stream_window_size(1 << 20)
            .http2_initial_connection_window_size(32 << 20)
            .build(https);
        Ok(Self { server, client, shared })
    }

    /// Answers one request; an error breaks it off.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        self.held(&request, &path).await;
        let faults = *lock(&self.shared.faults);
        if path.contains("watch=true") {
            lock(&self.shared.tally).passed += 1;
            let answer = self.pass(request).await?;
            return Ok(answer.map(|body| self.watched(body, path)));
        }
        let fate = faults.fate(&mut lock(&self.shared.dice), &mut lock(&self.shared.tally));
        sleep(faults.delay).await;
        match fate {
            Fate::Pass => {}
            Fate::Answer(code) => return Ok(refusal(code)?),
            Fate::Hang(time) => sleep(time).await,
            Fate::LoseRequest => return Err(anyhow!("the request is lost")),
            Fate::LoseAnswer => {
                self.pass(request).await?.into_body().collect().await?;
                return Err(anyhow!("the answer is lost"));
            }
        }
        Ok(self.pass(request).await?.map(|body| body.map_err(Error::from).boxed_unsync()))
    }

    /// Returns when the request may go on.
    async fn held(&self, request: &Request<Incoming>, path: &str) {
        let mut holds = self.shared.holds.subscribe();
        let mut waits = Waits { tally: &self.shared.tally, held: false };
        // The sender lives in `self`, so the channel cannot be closed while we wait.
        let _ = holds
            .wait_for(|which| {
                let held = which.as_ref().is_some_and(|which| which(request.method(), path));
                if held && !std::mem::replace(&mut waits.held, true) {
                    lock(&self.shared.tally).held += 1;
                }
                !held
            })
            .await;
        waits.held = false;
    }

    async fn pass(&self, mut request: Request<Incoming>) -> Result<Response<Incoming>> {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.server.clone());
        *request.uri_mut() = Uri::from_parts(parts)?;
        request.headers_mut().remove(HOST);
        *request.version_mut() = http::Version::HTTP_11;
        Ok(self.client.request(request).await?)
    }

    /// A watch whose pieces arrive as late as the faults of their time say, and that breaks off when watches are cut.
    fn watched(&self, body: Incoming, path: String) -> Body {
        let (send, pieces) = unbounded_channel();
        tokio::spawn(delay(body, path, Arc::clone(&self.shared), send));
        let watch = Watch { pieces, cut: self.shared.watch_cuts.subscribe() };
        let pieces = stream::unfold(Some(watch), async |watch| {
            let mut watch = watch?;
            match watch.next().await? {
                Ok(piece) => Some((Ok(piece), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        });
        StreamBody::new(pieces.fuse()).boxed_unsync()
    }
}

/// The client's end of a watch.
struct Watch {
    pieces: UnboundedReceiver<(Instant, Piece)>,
    cut: watch::Receiver<()>,
}

impl Watch {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>>> {
        let piece = async {
            let (due, piece) = self.pieces.recv().await?;
            sleep_until(due).await;
            Some(piece.map_err(Error::from))
        };
        tokio::select! {
            piece = piece => piece,
            _ = self.cut.changed() => Some(Err(anyhow!("the watch is cut"))),
        }
    }
}

/// Reads a watch as fast as the server sends, and says of each piece when it is due. Ends with the client's end.
async fn delay(mut body: Incoming, path: String, shared: Arc<Shared>, send: UnboundedSender<(Instant, Piece)>) {
    let mut last = Instant::now();
    loop {
        let piece = tokio::select! {
            piece = body.frame() => piece,
            () = send.closed() => return,
        };
        let Some(piece) = piece else { return };
        // A body that has failed goes on failing.
        let ends = piece.is_err();
        let Faults { watch_delay, delayed_watches, .. } = *lock(&shared.faults);
        let delayed = !watch_delay.is_zero() && path.contains(delayed_watches);
        if delayed {
            lock(&shared.tally).delayed += 1;
            last = last.max(Instant::now() + watch_delay);
        }
        // Once the delay is shorter again, those that are late keep their order.
        if send.send((last, piece)).is_err() || ends {
            return;
        }
    }
}

/// An answer as the API server gives it.
fn refusal(code: StatusCode) -> http::Result<Response<Body>> {
    let reason = match code {
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the proxy of this trial answers instead of the server",
        "reason": reason,
        "code": code.as_u16(),
    });
    let body = Full::new(Bytes::from(status.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    if code == StatusCode::TOO_MANY_REQUESTS {
        answer = answer.header(RETRY_AFTER, "1");
    }
    answer.body(body)
}

/// A request that may be held; dropped while it is, it is abandoned.
struct Waits<'a> {
    tally: &'a Mutex<Tally>,
    held: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.held {
            lock(self.tally).abandoned += 1;
        }
    }
}
