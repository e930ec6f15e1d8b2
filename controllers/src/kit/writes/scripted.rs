//! An API server of a few lines, for tests: what it is asked, and what it answers.

use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock::Handle;

/// The server's end of a client made by `tower_test::mock::pair`.
pub(crate) type ApiServer = Handle<Request<Body>, Response<Body>>;

/// The body of a refusal.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message })
}

/// An answer.
pub(crate) fn respond(code: u16, headers: &[(&str, &str)], body: &Value) -> Response<Body> {
    let builder = headers.iter().fold(Response::builder().status(code), |all, (name, value)| all.header(*name, *value));
    builder.body(Body::from(serde_json::to_vec(body).unwrap())).unwrap()
}
