//! Every write of every capability goes through [`Writer`]: fenced by leadership, held back when the
//! server is busy, by priority, counted, and with errors that say what to do next.

use std::{ops::Deref, sync::Arc, time::Duration};

use http::{StatusCode, header};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use super::{leader::Leadership, metrics::Metrics};

mod backoff;
mod error;
mod request;
#[cfg(test)]
pub(crate) mod scripted;
mod window;

/// The field manager of every write.
pub use api::names::FIELD_MANAGER;
pub use backoff::Backoff;
pub use error::{RetryClass, Write, WriteError};
pub use request::{
    ApplyAs, Part, WriteRequest, apply, apply_status, create, delete, json_patch, merge_patch, merge_patch_as, without_finalizer,
};
/// What to decode an answer into whose content does not matter: the object or a `Status`.
pub use serde::de::IgnoredAny;

use error::refusal;
use window::{Gate, Load, Permit};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Who goes first when not all writes can go at once.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Tells a claim's user the address, or takes one for a claim that had to wait: what is begun is ended.
    Publish,
    /// Gives an address back.
    Release,
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

async fn answer(
    client: &Client,
    request: WriteRequest,
) -> kube::Result<(StatusCode, http::HeaderMap, impl Deref<Target = [u8]>)> {
    let answer = client.send(request.map(Body::from)).await?;
    let (head, body) = answer.into_parts();
    let body = body.collect().await?.to_bytes();
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

#[cfg(test)]
mod tests {
    use kube::core::ApiResource;
    use serde_json::{Value, json};

    use super::scripted::{ApiServer, respond, status};
    use super::*;

    const CREATE: Target = Target { verb: "create", resource: "ipaddresses" };

    fn addresses() -> ApiResource {
        ApiResource {
            group: "ipam.cluster.x-k8s.io".to_owned(),
            version: "v1beta2".to_owned(),
            api_version: "ipam.cluster.x-k8s.io/v1beta2".to_owned(),
            kind: "IPAddress".to_owned(),
            plural: "ipaddresses".to_owned(),
        }
    }

    fn writer(leadership: Leadership) -> (Writer, ApiServer, Metrics) {
        let (service, server) = tower_test::mock::pair();
        let metrics = Metrics::new("test");
        let writer = Writer::new(Client::new(service, "default"), leadership, metrics.clone(), 128);
        (writer, server, metrics)
    }

    fn creation() -> WriteRequest {
        create(&addresses(), Some("team-a"), &json!({ "metadata": { "name": "web-0" } })).unwrap()
    }

    /// Sends a creation to a server that gives this answer.
    async fn answered(code: u16, headers: &[(&str, &str)], body: Value) -> (Result<Value, WriteError>, Writer) {
        answered_to(creation(), code, headers, body).await
    }

    async fn answered_to(
        request: WriteRequest,
        code: u16,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (Result<Value, WriteError>, Writer) {
        let (writer, mut server, _) = writer(Leadership::always());
        let answer = respond(code, headers, &body);
        let serving = tokio::spawn(async move {
            let (_, send) = server.next_request().await.unwrap();
            send.send_response(answer);
        });
        let result = writer.send(Priority::Bind, CREATE, request, || true).await;
        serving.await.unwrap();
        (result, writer)
    }

    async fn error(code: u16, reason: &str, message: &str) -> WriteError {
        answered(code, &[], status(code, reason, message)).await.0.unwrap_err()
    }

    fn told(error: &WriteError) -> (&'static str, RetryClass, bool) {
        (error.category(), error.class(), error.is_ambiguous())
    }

    #[test]
    fn requests_carry_the_field_manager_and_their_preconditions() {
        let place = "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddresses";
        let at = Some("team-a");
        let patch: json_patch::Patch = serde_json::from_value(json!([{ "op": "test", "path": "/a", "value": 1 }])).unwrap();
        let spec = json!({ "metadata": { "resourceVersion": "7" } });
        for (request, method, uri, kind, body) in [
            (
                creation(),
                "POST",
                format!("{place}?&fieldManager=ipam-in-cluster"),
                "application/json",
                json!({ "metadata": { "name": "web-0" } }),
            ),
            (
                json_patch(&addresses(), at, "web-0", Part::Main, patch).unwrap(),
                "PATCH",
                format!("{place}/web-0?&fieldManager=ipam-in-cluster"),
                "application/json-patch+json",
                json!([{ "op": "test", "path": "/a", "value": 1 }]),
            ),
            (
                merge_patch(&addresses(), at, "web-0", Part::Status, &spec).unwrap(),
                "PATCH",
                format!("{place}/web-0/status?&fieldManager=ipam-in-cluster"),
                "application/merge-patch+json",
                spec.clone(),
            ),
            (
                apply_status(&addresses(), at, "web-0", &spec).unwrap(),
                "PATCH",
                format!("{place}/web-0/status?&force=true&fieldManager=ipam-in-cluster"),
                "application/apply-patch+yaml",
                spec.clone(),
            ),
            (
                apply(ApplyAs { manager: "other", force: false }, &addresses(), at, "web-0", Part::Main, &spec).unwrap(),
                "PATCH",
                format!("{place}/web-0?&fieldManager=other"),
                "application/apply-patch+yaml",
                spec.clone(),
            ),
            (
                merge_patch_as("other", &addresses(), at, "web-0", Part::Main, &spec).unwrap(),
                "PATCH",
                format!("{place}/web-0?&fieldManager=other"),
                "application/merge-patch+json",
                spec.clone(),
            ),
            (
                delete(&addresses(), at, "web-0", "uid-1", Some("7")).unwrap(),
                "DELETE",
                format!("{place}/web-0?"),
                "application/json",
                json!({ "preconditions": { "uid": "uid-1", "resourceVersion": "7" } }),
            ),
        ] {
            assert_eq!((request.method().as_str(), request.uri().to_string()), (method, uri));
            assert_eq!(request.headers()[header::CONTENT_TYPE], kind);
            assert_eq!(serde_json::from_slice::<Value>(request.body()).unwrap(), body);
        }
        assert!(delete(&addresses(), at, "", "uid-1", Some("7")).is_err());
    }

    #[tokio::test]
    async fn a_success_is_decoded_whatever_its_kind() {
        let object = json!({ "metadata": { "name": "web-0" } });
        assert_eq!(answered(201, &[], object.clone()).await.0.unwrap(), object);
        let (writer, mut server, _) = writer(Leadership::always());
        tokio::spawn(async move {
            let (_, send) = server.next_request().await.unwrap();
            send.send_response(respond(200, &[], &json!({ "kind": "Status", "status": "Success" })));
        });
        let request = delete(&addresses(), Some("team-a"), "web-0", "uid-1", Some("7")).unwrap();
        let target = Target { verb: "delete", resource: "ipaddresses" };
        writer.send::<IgnoredAny>(Priority::Release, target, request, || true).await.unwrap();
    }

    #[tokio::test]
    async fn refusals_say_what_to_do_next() {
        let now = RetryClass::Now;
        assert_eq!(told(&error(409, "Conflict", "modified").await), ("Conflict", now, false));
        assert_eq!(told(&error(409, "AlreadyExists", "exists").await), ("AlreadyExists", now, false));
        assert_eq!(told(&error(404, "NotFound", "no").await), ("NotFound", RetryClass::Wait, false));
        assert_eq!(told(&error(410, "Gone", "no").await), ("Gone", RetryClass::Later, false));
        for (code, reason) in [(400, "BadRequest"), (403, "Forbidden"), (422, "Invalid"), (405, "MethodNotAllowed")] {
            let error = error(code, reason, "spec.address: Invalid value").await;
            assert_eq!(told(&error), ("Refused", RetryClass::Tell, false), "{code}");
            let path = "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddresses";
            let expected = format!("create ipaddresses at {path}: refused with {code}: spec.address: Invalid value");
            assert_eq!(error.to_string(), expected);
        }
        let rights = "services \"web\" is forbidden: User \"x\" cannot patch resource \"services\" in API group \"\"";
        let later = RetryClass::Later;
        assert_eq!(told(&error(403, "Forbidden", rights).await), ("Refused", later, false), "the server may have just started");
        assert_eq!(told(&error(401, "Unauthorized", "who").await), ("Unavailable", later, false));
        for code in [500, 502, 503, 504] {
            assert_eq!(told(&error(code, "", "broken").await), ("Unavailable", later, true), "{code}");
        }
    }

    #[tokio::test]
    async fn a_terminating_namespace_is_no_refusal_of_the_object() {
        let mut body = status(403, "Forbidden", "forbidden: unable to create new content");
        body["details"] = json!({ "causes": [{ "reason": "NamespaceTerminating", "field": "metadata.namespace" }] });
        let error = answered(403, &[], body).await.0.unwrap_err();
        assert_eq!(told(&error), ("NamespaceTerminating", RetryClass::Wait, false));
    }

    #[tokio::test]
    async fn a_webhook_that_failed_is_no_refusal_and_wrote_nothing() {
        let failed = [
            (500, "Internal error occurred: failed calling webhook \"x\": context deadline exceeded"),
            (403, "admission webhook \"x\" denied the request: failed to fetch claim: rate limited"),
        ];
        for (code, message) in failed {
            let (result, writer) = answered(code, &[], status(code, "", message)).await;
            assert_eq!(told(&result.unwrap_err()), ("Unavailable", RetryClass::Later, false), "{code}");
            assert_eq!(writer.gate.size(), 8, "{code}");
        }
    }

    #[tokio::test]
    async fn a_failed_test_of_a_json_patch_is_a_conflict_and_an_invalid_object_is_not() {
        let patch = || json_patch(&addresses(), Some("a"), "web-0", Part::Main, json_patch::Patch::default()).unwrap();
        let generic = "the server rejected our request due to an error in our request";
        for (request, message, category) in [
            (patch(), generic, "Conflict"),
            (patch(), "IPAddress \"web-0\" is invalid: spec.prefix", "Refused"),
            (creation(), generic, "Refused"),
        ] {
            let error = answered_to(request, 422, &[], status(422, "Invalid", message)).await.0.unwrap_err();
            assert_eq!(error.category(), category, "{message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_write_starts_before_the_time_the_server_asked_for() {
        let (writer, mut server, metrics) = writer(Leadership::always());
        let serving = tokio::spawn(async move {
            let (_, send) = server.next_request().await.unwrap();
            send.send_response(respond(429, &[("retry-after", "3")], &status(429, "TooManyRequests", "slow")));
            let (_, send) = server.next_request().await.unwrap();
            send.send_response(respond(201, &[], &json!({})));
        });
        let first = writer.send::<Value>(Priority::Bind, CREATE, creation(), || true).await.unwrap_err();
        assert_eq!(told(&first), ("Throttled", RetryClass::Later, false));
        assert_eq!(first.retry_after(), Some(Duration::from_secs(3)));
        let start = Instant::now();
        writer.send::<Value>(Priority::Release, CREATE, creation(), || true).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 3);
        serving.await.unwrap();
        let text = metrics.encode().unwrap();
        assert!(text.contains("ipam_api_throttled_seconds_total 3.0"), "{text}");
        assert!(text.contains("ipam_api_write_window 8"), "{text}");
        assert!(text.contains("ipam_api_requests_total{verb=\"create\",resource=\"ipaddresses\",code=\"429\"} 1"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_leaves_open_what_happened() {
        let (writer, mut server, metrics) = writer(Leadership::always());
        let silent = tokio::spawn(async move { server.next_request().await });
        let start = Instant::now();
        let error = writer.send::<Value>(Priority::Bind, CREATE, creation(), || true).await.unwrap_err();
        assert_eq!(start.elapsed().as_secs(), 30);
        assert_eq!(told(&error), ("Unavailable", RetryClass::Later, true));
        assert_eq!(writer.gate.size(), 8);
        assert!(metrics.encode().unwrap().contains("code=\"timeout\"} 1"));
        drop(silent);
    }

    #[tokio::test]
    async fn a_lost_connection_leaves_open_what_happened_and_says_nothing_about_load() {
        let (writer, mut server, _) = writer(Leadership::always());
        tokio::spawn(async move {
            let (_, send) = server.next_request().await.unwrap();
            send.send_error("connection reset");
        });
        let error = writer.send::<Value>(Priority::Bind, CREATE, creation(), || true).await.unwrap_err();
        assert_eq!(told(&error), ("Unavailable", RetryClass::Later, true));
        assert!(error.to_string().contains("connection reset"), "{error}");
        assert_eq!(writer.gate.size(), 16);
    }

    #[tokio::test]
    async fn nothing_is_sent_without_leadership_or_when_the_caller_says_no() {
        let (writer, mut server, _) = writer(Leadership::elected());
        let fenced = writer.send::<Value>(Priority::Bind, CREATE, creation(), || true).await.unwrap_err();
        assert_eq!(told(&fenced), ("Fenced", RetryClass::Wait, false));
        let leading = Writer { leadership: Leadership::always(), ..writer };
        let withheld = leading.send::<Value>(Priority::Bind, CREATE, creation(), || false).await.unwrap_err();
        assert_eq!(told(&withheld), ("Withheld", RetryClass::Wait, false));
        drop(leading);
        assert!(server.next_request().await.is_none());
    }
}
