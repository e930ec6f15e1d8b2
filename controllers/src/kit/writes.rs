//! Every write of every capability goes through [`Writer`]: fenced by leadership, held back when the
//! server is busy, by priority, counted, and with errors that say what to do next.

use std::{sync::Arc, time::Duration};

use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{leader::Leadership, metrics::Metrics};

mod backoff;
mod error;
mod request;
mod window;

pub use backoff::Backoff;
pub use error::{RetryClass, Write, WriteError};
pub use request::{Part, WriteRequest, apply_status, create, delete, json_patch, merge_patch};
/// What to decode an answer into whose content does not matter: the object or a `Status`.
pub use serde::de::IgnoredAny;

use error::refusal;
use window::{Gate, Load, Permit};

/// The field manager of every write.
pub const FIELD_MANAGER: &str = "ipam-in-cluster";

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Who goes first when not all writes can go at once.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Gives an address back.
    Release,
    /// Tells a claim's user the address.
    Publish,
    /// Takes an address.
    Bind,
    /// Completes an object.
    Repair,
    /// Shows the numbers of a pool.
    PoolStatus,
    /// Adds what older releases did not write.
    Backfill,
}

/// What a write is, in metrics and messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Target {
    /// `create`, `patch` or `delete`.
    pub verb: &'static str,
    /// The plural, for a subresource with its name: `ipaddressclaims/status`.
    pub resource: &'static str,
}

/// Sends writes. Cheap to clone; all clones share one window.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
    gate: Arc<Gate>,
}

impl Writer {
    /// A writer that has at most `max_inflight` writes under way.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics, max_inflight: usize) -> Self {
        let gate = Arc::new(Gate::new(max_inflight, metrics.clone()));
        Self { client, leadership, metrics, gate }
    }

    /// Sends one write when its turn has come, unless this process does not lead then or `go` says
    /// no: it is asked last, right before the request leaves.
    pub async fn send<T: DeserializeOwned>(
        &self,
        priority: Priority,
        target: Target,
        request: WriteRequest,
        go: impl FnOnce() -> bool,
    ) -> Result<T, WriteError> {
        let write = Write::new(target, request.uri().path());
        if !self.leadership.may_write() {
            return Err(WriteError::Fenced { write });
        }
        let permit = self.gate.permit(priority).await;
        if !self.leadership.may_write() {
            return Err(WriteError::Fenced { write });
        }
        if !go() {
            return Err(WriteError::Withheld { write });
        }
        self.exchange(permit, target, write, request).await
    }

    /// How many writes may be under way at this moment.
    pub fn window(&self) -> usize {
        self.gate.size()
    }

    /// Counts a live read like a write, and gives its failure the same name.
    pub async fn read<T>(
        &self,
        target: Target,
        path: &str,
        reading: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let started = Instant::now();
        let answer = timeout(REQUEST_TIMEOUT, reading).await;
        let write = Write::new(target, path);
        let (code, message) = match answer {
            Ok(Ok(found)) => {
                self.metrics.request(target.verb, target.resource, "200", started.elapsed());
                return Ok(found);
            }
            Ok(Err(kube::Error::Api(status))) => (status.code.to_string(), status.message.clone()),
            Ok(Err(error)) => ("error".to_owned(), chain(&error)),
            Err(_) => ("timeout".to_owned(), format!("none within {} s", REQUEST_TIMEOUT.as_secs())),
        };
        self.metrics.request(target.verb, target.resource, &code, started.elapsed());
        Err(WriteError::Unavailable { write, ambiguous: false, retry_after: None, message })
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        permit: Permit,
        target: Target,
        write: Write,
        request: WriteRequest,
    ) -> Result<T, WriteError> {
        let is_json_patch = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json-patch+json");
        let started = Instant::now();
        let answer = timeout(REQUEST_TIMEOUT, answer(&self.client, request)).await;
        let took = started.elapsed();
        let count = |code: &str| self.metrics.request(target.verb, target.resource, code, took);
        let (code, headers, body) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                count("error");
                permit.done(Load::Unknown, None);
                return Err(WriteError::Unavailable {
                    ambiguous: !never_left(&error),
                    retry_after: None,
                    message: chain(&error),
                    write,
                });
            }
            Err(_) => {
                count("timeout");
                permit.done(Load::TooMuch, None);
                return Err(WriteError::Unavailable {
                    ambiguous: true,
                    retry_after: None,
                    message: format!("none within {} s", REQUEST_TIMEOUT.as_secs()),
                    write,
                });
            }
        };
        count(code.as_str());
        if code.is_success() {
            permit.done(Load::Fine, None);
            return serde_json::from_slice(&body).map_err(|error| WriteError::Unavailable {
                ambiguous: true,
                retry_after: None,
                message: format!("{code}, but the content cannot be read: {error}"),
                write,
            });
        }
        let error = refusal(write, is_json_patch, code, &headers, &body);
        permit.done(load(code, &error), error.retry_after());
        Err(error)
    }
}

async fn answer(client: &Client, request: WriteRequest) -> kube::Result<(StatusCode, http::HeaderMap, Vec<u8>)> {
    let answer = client.send(request.map(Body::from)).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    Ok((head.status, head.headers, body))
}

fn load(code: StatusCode, error: &WriteError) -> Load {
    let overloaded = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
    let webhook_failed = match error {
        WriteError::Unavailable { message, .. } => {
            message.contains(error::WEBHOOK_FAILED) || message.contains(error::CLAIM_NOT_READ)
        }
        _ => false,
    };
    if overloaded.contains(&code) || webhook_failed {
        Load::TooMuch
    } else if code.is_server_error() {
        Load::Unknown
    } else {
        Load::Fine
    }
}

/// Whether the connection could not even be made.
fn never_left(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        let failure = error.downcast_ref::<hyper_util::client::legacy::Error>();
        if failure.is_some_and(hyper_util::client::legacy::Error::is_connect) {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error with all its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
