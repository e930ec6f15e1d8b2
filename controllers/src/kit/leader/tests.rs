//! A campaign against an API server with one lease.

use std::sync::{Mutex, MutexGuard};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// An API server with one lease, which may stop answering or let somebody else win.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    silent: bool,
    /// Serves the next write and loses the answer.
    loses_answer: bool,
    /// Writes the lease between the read and the write of others.
    rival: Option<&'static str>,
}

impl State {
    fn store(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease.insert(lease).clone()
    }

    /// Somebody else holds the lease, by a wall clock that is this many seconds ahead of ours.
    fn renewed_by_them(&mut self, ahead: i64) {
        let renewed = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(ahead);
        self.store(json!({
            "metadata": {"name": "lease"},
            "spec": {"holderIdentity": "them", "leaseDurationSeconds": 15, "leaseTransitions": 3,
                     "renewTime": format!("{renewed:.6}"), "acquireTime": format!("{renewed:.6}")}
        }));
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn holder(&self) -> Option<String> {
        self.state().lease.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
    }

    fn client(&self) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let server = self.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                if server.state().silent {
                    unanswered.push(send);
                    continue;
                }
                let method = request.method().clone();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (code, answer) = server.answer(&method, serde_json::from_slice(&body).unwrap_or_default());
                if method != Method::GET && std::mem::take(&mut server.state().loses_answer) {
                    unanswered.push(send);
                    continue;
                }
                let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                send.send_response(Response::builder().status(code).body(answer).unwrap());
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, body: Value) -> (u16, Value) {
        let mut state = self.state();
        let failure =
            |code: u16, reason: &str| (code, json!({"status": "Failure", "code": code, "reason": reason, "message": ""}));
        if let Some(rival) = state.rival.filter(|_| method != Method::GET) {
            state.store(json!({"metadata": {"name": "lease"}, "spec": {"holderIdentity": rival}}));
        }
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let present = state.lease.as_ref().map(version);
        match (method, present) {
            (&Method::GET | &Method::PUT, None) => failure(404, "NotFound"),
            (&Method::GET, Some(_)) => (200, state.lease.clone().unwrap()),
            (&Method::POST, Some(_)) => failure(409, "AlreadyExists"),
            (&Method::PUT, Some(present)) if version(&body) != present => failure(409, "Conflict"),
            (&Method::POST, None) | (&Method::PUT, Some(_)) => (200, state.store(body)),
            other => panic!("{other:?}"),
        }
    }
}

fn candidacy() -> Candidacy {
    Candidacy {
        namespace: "system".to_owned(),
        name: "lease".to_owned(),
        identity: "us".to_owned(),
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    }
}

struct Running {
    leadership: Leadership,
    stop: Shutdown,
    metrics: Metrics,
    end: tokio::task::JoinHandle<CampaignEnd>,
}

fn run(server: &Server) -> Running {
    let (leadership, stop, metrics) = (Leadership::elected(), Shutdown::new(), Metrics::new("test"));
    let end = tokio::spawn(campaign(server.client(), candidacy(), leadership.clone(), metrics.clone(), stop.clone()));
    Running { leadership, stop, metrics, end }
}

/// A campaign that has won.
async fn leading() -> (Server, Running) {
    let server = Server::default();
    let running = run(&server);
    running.leadership.acquired().await;
    (server, running)
}

#[test]
fn without_an_election_we_always_lead() {
    assert!(Leadership::always().may_write() && Leadership::always().is_leader());
    assert!(!Leadership::elected().may_write() && !Leadership::elected().is_leader());
}

#[tokio::test(start_paused = true)]
async fn writing_ends_two_seconds_before_the_claim_does() {
    let leadership = Leadership::elected();
    leadership.hold_until(Instant::now() + Duration::from_secs(15));
    leadership.acquired().await;
    tokio::time::advance(Duration::from_millis(12_999)).await;
    assert!(leadership.may_write());
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!leadership.may_write() && leadership.is_leader());
    leadership.lost().await;
    assert!(!leadership.is_leader());
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_taken_and_given_up_on_request() {
    let (server, running) = leading().await;
    assert!(running.leadership.may_write());
    assert_eq!(server.holder().as_deref(), Some("us"));
    assert!(running.metrics.encode().unwrap().contains("ipam_leader 1"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(running.leadership.may_write());
    running.stop.trigger();
    assert_eq!(running.end.await.unwrap(), CampaignEnd::GivenUp);
    assert_eq!(server.holder().as_deref(), Some(""));
    assert!(!running.leadership.may_write());
    assert!(running.metrics.encode().unwrap().contains("ipam_leader 0"));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_a_free_lease_the_first_has_it() {
    let server = Server::default();
    server.state().rival = Some("them");
    let running = run(&server);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!running.leadership.is_leader());
    running.stop.trigger();
    assert_eq!(running.end.await.unwrap(), CampaignEnd::GivenUp);
    assert_eq!(server.holder().as_deref(), Some("them"));
}

/// When a lease that somebody holds by such a clock, and renews no more, is taken.
async fn taken_after(ahead: i64) -> Duration {
    let server = Server::default();
    server.state().renewed_by_them(ahead);
    let running = run(&server);
    let begin = Instant::now();
    running.leadership.acquired().await;
    let spec = server.state().lease.as_ref().unwrap()["spec"].clone();
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&json!("us"), &json!(4)));
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_stays_as_it_is_has_ended_whatever_it_says() {
    for ahead in [0, 3600, 1_000_000] {
        let took = taken_after(ahead).await;
        assert!(took >= Duration::from_secs(15) && took <= Duration::from_secs(18), "{ahead}: {took:?}");
    }
    let took = taken_after(-3600).await;
    assert!(took >= Duration::from_secs(4) && took <= Duration::from_secs(7), "it ended long ago: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_is_not_taken_whatever_it_says() {
    let server = Server::default();
    server.state().renewed_by_them(-3600);
    let running = run(&server);
    for ahead in -30..30 {
        server.state().renewed_by_them(ahead * 120);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!running.leadership.is_leader());
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_answer_is_lost_loses_nothing() {
    let (server, running) = leading().await;
    server.state().loses_answer = true;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!server.state().loses_answer && running.leadership.may_write());
    server.state().lease = None;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(running.leadership.may_write(), "a lease that somebody deleted is made anew");
    assert_eq!(server.holder().as_deref(), Some("us"));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_took_is_lost_for_good() {
    let (server, running) = leading().await;
    server.state().renewed_by_them(0);
    assert_eq!(running.end.await.unwrap(), CampaignEnd::Lost);
    running.leadership.lost().await;
    assert!(!running.leadership.may_write());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_is_lost_before_it_expires() {
    let (server, running) = leading().await;
    let won = Instant::now();
    server.state().silent = true;
    assert_eq!(running.end.await.unwrap(), CampaignEnd::Lost);
    let took = won.elapsed();
    assert!(took <= Duration::from_secs(10) && took >= Duration::from_secs(6), "{took:?}");
    assert!(!running.leadership.may_write());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_is_survived() {
    let (server, running) = leading().await;
    server.state().silent = true;
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.state().silent = false;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(running.leadership.may_write());
}
