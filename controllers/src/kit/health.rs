//! `/healthz` and `/readyz` for the kubelet and for people.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, extract::RawQuery, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use super::shutdown::Shutdown;

/// The state of one thing that readiness depends on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Check {
    /// It is there.
    Ready,
    /// It is on its way; the reason is for people.
    Waiting(String),
    /// The server does not have it, which is no reason to wait; the reason is for people.
    Absent(String),
}

/// Everything that readiness depends on. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    checks: Arc<Mutex<BTreeMap<&'static str, Check>>>,
}

impl Readiness {
    /// Registers a check or changes its state.
    pub fn set(&self, name: &'static str, check: Check) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, check);
    }

    /// Whether nothing has to be waited for, and one line for each check.
    fn report(&self) -> (bool, String) {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ready = true;
        let mut lines = String::new();
        for (name, check) in checks.iter() {
            // Writing to a String cannot fail.
            let _ = match check {
                Check::Ready => writeln!(lines, "[+] {name}: ready"),
                Check::Absent(reason) => writeln!(lines, "[~] {name}: absent, {reason}"),
                Check::Waiting(reason) => {
                    ready = false;
                    writeln!(lines, "[-] {name}: not ready, {reason}")
                }
            };
        }
        (ready, lines)
    }
}

/// Serves both paths until `shutdown` is requested.
pub async fn serve(listener: TcpListener, readiness: Readiness, shutdown: Shutdown) -> std::io::Result<()> {
    axum::serve(listener, router(readiness)).with_graceful_shutdown(async move { shutdown.requested().await }).await
}

fn router(readiness: Readiness) -> Router {
    let readyz = move |RawQuery(query): RawQuery| {
        let (ready, mut lines) = readiness.report();
        let verbose =
            query.iter().flat_map(|query| query.split('&')).any(|part| part == "verbose" || part.starts_with("verbose="));
        let (code, word) = if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
        // Who asks while we are not ready wants to know why.
        if !verbose && ready {
            lines.clear();
        }
        std::future::ready((code, format!("{lines}{word}\n")))
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(readyz))
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(readiness: &Readiness, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = router(readiness.clone()).oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_check_that_waits_makes_us_unready_and_is_named() {
        let readiness = Readiness::default();
        readiness.set("pools", Check::Ready);
        readiness.set("addresses", Check::Waiting("listing".to_owned()));
        let expected = "[-] addresses: not ready, listing\n[+] pools: ready\nnot ready\n";
        assert_eq!(ask(&readiness, "/readyz").await, (503, expected.to_owned()));
        assert_eq!(ask(&readiness, "/healthz").await, (200, "ok\n".to_owned()));
        readiness.set("addresses", Check::Ready);
        assert_eq!(ask(&readiness, "/readyz").await, (200, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn an_absent_kind_is_ready_but_named() {
        let readiness = Readiness::default();
        readiness.set("clusters", Check::Absent("the kind is not served".to_owned()));
        assert_eq!(ask(&readiness, "/readyz").await.0, 200);
        let expected = "[~] clusters: absent, the kind is not served\nok\n";
        assert_eq!(ask(&readiness, "/readyz?verbose").await, (200, expected.to_owned()));
        assert_eq!(ask(&readiness, "/readyz?verbose=1").await.1, expected);
    }
}
