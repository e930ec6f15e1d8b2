//! Whole passes over one claim against a scripted API server: the exact requests, and what each answer leads to.

use http::Response;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::ipam::facts::{Policy, ReservedFacts};
use crate::ipam::plan::Place as Standing;
use crate::ipam::world::tests::{OURS, address, bound, claim, pool};
use crate::ipam::world::{Scope, Watched, World};
use crate::ipam::{Ipam, Settings, Shell, claim_pass, observe};
use crate::kit::events::{EventWriter, Events};
use crate::kit::health::Readiness;
use crate::kit::leader::Leadership;
use crate::kit::metrics::Metrics;
use crate::kit::shutdown::Shutdown;
use crate::kit::watch::Seen;
use crate::kit::writes::Writer;
use crate::kit::writes::scripted::{ApiServer, respond, status};
use api::PoolKind;
use api::names::{LOST_ADDRESS, PROTECT_ADDRESS, RELEASE_ADDRESS};
use poolutil::ReservationState;
use std::pin::Pin;
use std::sync::Arc;

const ADDRESSES: &str = "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddresses";
const CLAIM: &str = "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddressclaims/web";
const OWNER: &str = "ownerReferences: [
    {apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: web, uid: c-web, controller: true, blockOwnerDeletion: true},
    {apiVersion: ipam.cluster.x-k8s.io/v1alpha2, kind: InClusterIPPool, name: blue, uid: p-blue, controller: false, blockOwnerDeletion: true}]";
const POLICY: Policy = Policy {
    honor_foreign_finalizers: true,
    release_orphans_namespaced: true,
    release_orphans_global: false,
    external_ips: true,
};

/// What the server does with a request whose method is the first field.
enum Answer {
    With(Response<Body>),
    Never,
    Lost,
}

fn ok(code: u16, body: &Value) -> Answer {
    Answer::With(respond(code, &[], body))
}

fn gone() -> Answer {
    refuse(404, "NotFound", "gone")
}

fn refuse(code: u16, reason: &str, message: &str) -> Answer {
    ok(code, &status(code, reason, message))
}

/// A request as it arrived: method and path, and the body.
type Asked = (String, Value);

/// The claim team-a/web on pool blue with the one value 10.0.0.10, and a server that waits for requests.
struct Bed {
    ctx: Arc<Ctx>,
    server: ApiServer,
    _events: EventWriter,
}

impl Bed {
    fn new() -> Self {
        Self::led(Leadership::always())
    }

    fn led(leadership: Leadership) -> Self {
        let (service, server) = tower_test::mock::pair();
        let (client, metrics) = (Client::new(service, "default"), Metrics::new("test"));
        let (events, writer_of_events) = Events::new(client.clone(), leadership.clone(), metrics.clone(), true);
        let shell = Shell {
            client: client.clone(),
            writer: Writer::new(client, leadership.clone(), metrics.clone(), 128),
            events,
            metrics,
            readiness: Readiness::default(),
            leadership,
            shutdown: Shutdown::new(),
        };
        let ctx = Ipam::new(&shell, Settings { scope: Scope::default(), policy: POLICY }).0;
        let bed = Self { ctx, server, _events: writer_of_events };
        for kind in Watched::ALL {
            bed.world(|world| world.not_served(kind));
        }
        bed.world(|world| world.pools(PoolKind::InClusterIPPool, Seen::Changed(pool("10.0.0.10", ""))));
        bed
    }

    fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.ctx.world())
    }

    fn claim(&self, claim: IpAddressClaim) {
        self.world(|world| world.claims(Seen::Changed(claim), CapiVersion::V1beta2));
    }

    fn address(&self, address: IpAddress) {
        self.world(|world| world.addresses(Seen::Changed(address)));
    }

    fn slot(&self) -> Slot {
        self.world(|world| world.find("team-a", "web")).unwrap()
    }

    fn facts(&self) -> Facts {
        let (wall, now) = (k8s_openapi::jiff::Timestamp::now(), Instant::now());
        self.world(|world| observe::observe(world, world.find("team-a", "web").unwrap(), POLICY, wall, now)).unwrap()
    }

    fn reserved(&self) -> Option<ReservationState> {
        self.facts().reservation.map(|ReservedFacts { state, .. }| state)
    }

    /// A pass over the claim, with these answers to its requests, each by its method.
    async fn pass<'a>(&mut self, answers: impl IntoIterator<Item = (&'a str, Answer)>) -> (Vec<Asked>, Next) {
        match claim_pass(&self.ctx, self.slot()) {
            Ok(work) => self.exchange(Box::pin(work), answers).await,
            Err(next) => (Vec::new(), next),
        }
    }

    /// The steps of a plan alone.
    async fn steps<'a>(&mut self, steps: Vec<Step>, answers: impl IntoIterator<Item = (&'a str, Answer)>) -> (Vec<Asked>, Next) {
        let plan = Plan { row: Row::Nothing, place: Standing::Keep, steps, waiting: None, recheck: None };
        let (ctx, slot, facts) = (self.ctx.clone(), self.slot(), self.facts());
        let holds = self.world(|world| world.holds(slot));
        let work = Box::pin(async move { drive(&ctx, slot, &facts, plan, holds).await });
        self.exchange(work, answers).await
    }

    /// A pass deletes the address.
    async fn is_undone(&mut self) {
        let left = json!({"metadata": {"finalizers": [PROTECT_ADDRESS]}});
        let (asked, _) = self.pass([("DELETE", ok(200, &left)), ("PATCH", changed())]).await;
        assert_eq!(asked.len(), 2);
    }

    async fn exchange<'a>(
        &mut self,
        mut work: Pin<Box<dyn Future<Output = Next>>>,
        answers: impl IntoIterator<Item = (&'a str, Answer)>,
    ) -> (Vec<Asked>, Next) {
        let (mut answers, mut asked, mut unanswered) = (Vec::from_iter(answers), Vec::new(), Vec::new());
        let next = loop {
            tokio::select! {
                next = &mut work => break next,
                request = self.server.next_request() => {
                    let (request, send) = request.unwrap();
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
                    let place = answers.iter().position(|(method, _)| *method == head.method.as_str());
                    asked.push((format!("{} {}", head.method, head.uri.path()), body));
                    assert!(place.is_some(), "unexpected: {asked:?}");
                    match answers.remove(place.unwrap()).1 {
                        Answer::With(response) => send.send_response(response),
                        Answer::Never => unanswered.push(send),
                        Answer::Lost => send.send_error("connection reset"),
                    }
                }
            }
        };
        assert!(answers.is_empty(), "asked for less: {asked:?}");
        asked.sort_by(|(one, _), (other, _)| one.cmp(other));
        (asked, next)
    }
}

/// The claim as it is with our finalizer on it.
fn protected() -> IpAddressClaim {
    claim("web", &format!("finalizers: [{RELEASE_ADDRESS}], generation: 1"))
}

/// The address as we make it.
fn made() -> IpAddress {
    address("web", "10.0.0.10", &format!("finalizers: [{PROTECT_ADDRESS}], {OURS}, {OWNER}"))
}

fn created() -> Answer {
    ok(201, &json!({"metadata": {"uid": "a-web", "resourceVersion": "1"}}))
}

fn changed() -> Answer {
    ok(200, &json!({"metadata": {"resourceVersion": "2"}}))
}

fn at_most(next: Next, limit: Duration) -> bool {
    matches!(next, Next::After(_, delay) if delay <= limit) || matches!(next, Next::Again(_))
}

#[tokio::test]
async fn an_address_is_made_anew_only_for_a_claim_that_lives_behind_our_view() {
    let mut bed = Bed::new();
    let seen = bound("web", &format!("finalizers: [{RELEASE_ADDRESS}], generation: 1"));
    bed.claim(seen.clone());
    let mut going = seen.clone();
    going.metadata.deletion_timestamp = claim("web", "deletionTimestamp: '2026-01-01T00:00:00Z'").metadata.deletion_timestamp;
    let mut other = seen.clone();
    other.metadata.uid = Some("another".to_owned());
    let found = |claim: &IpAddressClaim| ok(200, &serde_json::to_value(claim).unwrap());
    for answer in [refuse(404, "NotFound", "gone"), found(&going), found(&other)] {
        let (asked, _) = bed.pass([("GET", answer)]).await;
        assert_eq!(asked.iter().map(|(request, _)| &**request).collect::<Vec<_>>(), [format!("GET {CLAIM}")]);
        assert_eq!(bed.reserved(), Some(ReservationState::Unsent));
    }
    let (asked, _) = bed.pass([("GET", found(&seen)), ("POST", created())]).await;
    assert_eq!(asked.len(), 2);
    assert_eq!(bed.reserved(), Some(ReservationState::Answered));
}

#[tokio::test]
async fn a_claim_that_goes_before_its_bind_is_sent_gets_no_address() {
    let mut bed = Bed::new();
    bed.claim(claim("web", ""));
    let (slot, work) = (bed.slot(), claim_pass(&bed.ctx, bed.slot()).unwrap());
    bed.world(|world| world.claims(Seen::Gone(claim("web", "")), CapiVersion::V1beta2));
    let gone = ("PATCH", refuse(404, "NotFound", "no such claim"));
    let (asked, _) = bed.exchange(Box::pin(work), [gone]).await;
    assert_eq!(asked.iter().map(|(request, _)| &**request).collect::<Vec<_>>(), [format!("PATCH {CLAIM}")]);
    assert!(!bed.world(|world| world.is_bind_in_flight(slot)));
}

#[tokio::test]
async fn a_bind_creates_the_address_and_protects_the_claim_at_once() {
    let mut bed = Bed::new();
    bed.claim(claim("web", ""));
    let (asked, next) = bed.pass([("POST", created()), ("PATCH", changed())]).await;
    let finalizers = json!({"metadata": {"resourceVersion": "1", "finalizers": [RELEASE_ADDRESS]}});
    let reference = |version: &str, kind: &str, name: &str, uid: &str, controller: bool| {
        json!({"apiVersion": format!("ipam.cluster.x-k8s.io/{version}"), "kind": kind, "name": name, "uid": uid,
               "controller": controller, "blockOwnerDeletion": true})
    };
    let address = json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddress",
        "metadata": {
            "namespace": "team-a", "name": "web", "finalizers": [PROTECT_ADDRESS],
            "ownerReferences": [
                reference("v1beta2", "IPAddressClaim", "web", "c-web", true),
                reference("v1alpha2", "InClusterIPPool", "blue", "p-blue", false),
            ],
        },
        "spec": {
            "claimRef": {"name": "web"},
            "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"},
            "address": "10.0.0.10", "prefix": 24, "gateway": "10.0.0.1",
        },
    });
    assert_eq!(asked, [(format!("PATCH {CLAIM}"), finalizers), (format!("POST {ADDRESSES}"), address)]);
    assert_eq!((next, bed.reserved()), (Next::Done, Some(ReservationState::Answered)));
    assert!(bed.facts().motion.own_write_unseen);
}

#[tokio::test]
async fn a_claim_with_our_finalizer_is_bound_with_two_writes_in_all() {
    let mut bed = Bed::new();
    bed.claim(protected());
    let (asked, _) = bed.pass([("POST", created())]).await;
    assert_eq!(asked.len(), 1);
    assert_eq!(bed.pass([]).await.0, [], "the watch has yet to show it");
    bed.address(made());
    assert_eq!(bed.reserved(), None);
    let (asked, next) = bed.pass([("PATCH", changed())]).await;
    let (path, body) = &asked[0];
    assert_eq!(path, &format!("PATCH {CLAIM}/status"));
    assert_eq!(body["metadata"], json!({"resourceVersion": "1"}));
    assert_eq!(body["status"]["addressRef"], json!({"name": "web"}));
    assert_eq!(body["status"]["conditions"][0]["message"], "allocated 10.0.0.10/24");
    assert_eq!(body["status"]["deprecated"]["v1beta1"]["conditions"][0]["status"], "True");
    assert_eq!((asked.len(), next), (1, Next::Done));
}

#[tokio::test]
async fn a_publish_that_meets_a_newer_claim_is_planned_again_at_once() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.address(made());
    let (_, next) = bed.pass([("PATCH", refuse(409, "Conflict", "the object has been modified"))]).await;
    assert!(matches!(next, Next::Again(_)), "{next:?}");
}

#[tokio::test]
async fn a_release_deletes_and_unprotects_the_address_then_lets_the_claim_go() {
    let mut bed = Bed::new();
    let going = format!("finalizers: [foregroundDeletion, {RELEASE_ADDRESS}], deletionTimestamp: '2026-01-01T00:00:00Z'");
    bed.claim(bound("web", &going));
    bed.address(made());
    let left = json!({"metadata": {"uid": "a-web", "finalizers": ["third/x", PROTECT_ADDRESS]}});
    let (asked, next) = bed.pass([("DELETE", ok(200, &left)), ("PATCH", changed())]).await;
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": "a-web"},
        {"op": "test", "path": "/metadata/finalizers/1", "value": PROTECT_ADDRESS},
        {"op": "remove", "path": "/metadata/finalizers/1"},
    ]);
    let delete = json!({"preconditions": {"uid": "a-web", "resourceVersion": "1"}});
    assert_eq!(asked, [(format!("DELETE {ADDRESSES}/web"), delete), (format!("PATCH {ADDRESSES}/web"), patch)]);
    assert_eq!(next, Next::Done);
    assert_eq!(bed.pass([]).await.0, [], "nothing more before it is seen to be gone");
    bed.world(|world| world.addresses(Seen::Gone(made())));
    let (asked, _) = bed.pass([("PATCH", changed())]).await;
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": "c-web"},
        {"op": "test", "path": "/metadata/finalizers/1", "value": RELEASE_ADDRESS},
        {"op": "remove", "path": "/metadata/finalizers/1"},
    ]);
    assert_eq!(asked, [(format!("PATCH {CLAIM}"), patch)]);
}

#[tokio::test]
async fn an_address_that_is_gone_already_needs_no_second_request() {
    let mut bed = Bed::new();
    bed.claim(bound("web", &format!("finalizers: [{RELEASE_ADDRESS}], deletionTimestamp: '2026-01-01T00:00:00Z'")));
    bed.address(made());
    let (asked, next) = bed.pass([("DELETE", refuse(404, "NotFound", "gone"))]).await;
    assert_eq!((asked.len(), next), (1, Next::Done));
}

#[tokio::test]
async fn an_address_that_is_another_one_now_is_not_deleted() {
    let mut bed = Bed::new();
    bed.claim(bound("web", &format!("finalizers: [{RELEASE_ADDRESS}], deletionTimestamp: '2026-01-01T00:00:00Z'")));
    bed.address(made());
    let (asked, next) = bed.pass([("DELETE", refuse(409, "Conflict", "the UID in the precondition does not match"))]).await;
    assert!(matches!((asked.len(), next), (1, Next::Again(_))), "{next:?}");
}

#[tokio::test]
async fn a_name_that_is_taken_by_our_own_earlier_try_is_an_answer() {
    let mut bed = Bed::new();
    bed.claim(protected());
    let exists = refuse(409, "AlreadyExists", "exists");
    let (asked, _) = bed.pass([("POST", exists), ("GET", ok(200, &serde_json::to_value(made()).unwrap()))]).await;
    assert_eq!(asked[0], (format!("GET {ADDRESSES}/web"), Value::Null));
    assert_eq!(bed.reserved(), Some(ReservationState::Answered));
}

#[tokio::test]
async fn a_name_that_is_taken_by_somebody_else_frees_the_value() {
    let mut others = made();
    others.spec.address = "10.0.0.99".to_owned();
    let mut earlier = made();
    earlier.metadata.owner_references = None;
    for found in [others, earlier] {
        let mut bed = Bed::new();
        bed.claim(protected());
        let exists = refuse(409, "AlreadyExists", "exists");
        bed.pass([("POST", exists), ("GET", ok(200, &serde_json::to_value(found).unwrap()))]).await;
        assert_eq!(bed.reserved(), None);
    }
}

#[tokio::test]
async fn a_name_that_was_taken_a_moment_ago_frees_the_value_too() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.pass([("POST", refuse(409, "AlreadyExists", "exists")), ("GET", refuse(404, "NotFound", "gone"))]).await;
    assert_eq!(bed.reserved(), None);
}

#[tokio::test]
async fn an_answer_that_leaves_it_open_keeps_the_value_and_the_same_post_is_repeated() {
    let open = || {
        [
            refuse(503, "ServiceUnavailable", "later"),
            refuse(500, "InternalError", "etcdserver: request timed out"),
            refuse(410, "Gone", "gone"),
            refuse(403, "Forbidden", "admission webhook denied the request: failed to fetch claim"),
            Answer::Lost,
        ]
    };
    for answer in open() {
        let mut bed = Bed::new();
        bed.claim(protected());
        let (first, next) = bed.pass([("POST", answer)]).await;
        assert!(at_most(next, Duration::from_millis(50)), "{next:?}");
        assert_eq!(bed.reserved(), Some(ReservationState::Sent));
        // Should the claim go now, the value stays taken until the API server can be asked.
        let (second, _) = bed.pass([("POST", created())]).await;
        assert_eq!((first, bed.reserved()), (second, Some(ReservationState::Answered)));
    }
}

#[tokio::test(start_paused = true)]
async fn no_answer_at_all_keeps_the_value_too() {
    let mut bed = Bed::new();
    bed.claim(protected());
    let (_, next) = bed.pass([("POST", Answer::Never)]).await;
    assert!(at_most(next, Duration::from_millis(50)), "{next:?}");
    assert_eq!(bed.reserved(), Some(ReservationState::Sent));
}

#[tokio::test]
async fn a_claim_that_goes_while_its_post_is_open_keeps_the_value_taken() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.pass([("POST", refuse(503, "ServiceUnavailable", "later"))]).await;
    bed.claim(claim("web", &format!("finalizers: [{RELEASE_ADDRESS}], deletionTimestamp: '2026-01-01T00:00:00Z'")));
    let (asked, next) = bed.pass([]).await;
    let waits = matches!(next, Next::After(_, delay) if delay > Duration::from_secs(70) && delay <= Duration::from_secs(75));
    assert!(asked.is_empty() && waits, "{next:?}");
    assert_eq!(bed.reserved(), Some(ReservationState::Sent));
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let mut bed = Bed::new();
    bed.claim(protected());
    let slow = respond(429, &[("retry-after", "3")], &status(429, "TooManyRequests", "slow down"));
    let (_, next) = bed.pass([("POST", Answer::With(slow))]).await;
    assert!(matches!(next, Next::After(_, delay) if delay == Duration::from_secs(3)), "{next:?}");
    assert_eq!(bed.reserved(), Some(ReservationState::Sent));
}

#[tokio::test]
async fn a_refused_address_frees_the_value_and_is_remembered_in_the_servers_words() {
    for code in [400, 403, 422] {
        let mut bed = Bed::new();
        bed.claim(protected());
        let (_, next) = bed.pass([("POST", refuse(code, "Invalid", "spec.gateway: Invalid value"))]).await;
        assert_eq!((next, bed.reserved()), (Next::Done, None));
        let (words, rest) = bed.facts().motion.refusal.unwrap();
        assert!(words.ends_with(&format!("refused with {code}: spec.gateway: Invalid value")), "{words}");
        assert!(rest > Duration::from_secs(290) && rest <= REFUSED);
        assert_eq!(bed.pass([]).await.0, [], "it is not tried again at once");
    }
}

#[tokio::test]
async fn a_namespace_that_goes_frees_the_value_and_waits() {
    let mut terminating = status(403, "Forbidden", "unable to create new content");
    terminating["details"] = json!({"causes": [{"reason": "NamespaceTerminating"}]});
    let answers = [ok(403, &terminating), refuse(404, "NotFound", "namespaces \"team-a\" not found")];
    for (code, answer) in [403, 404].into_iter().zip(answers) {
        let mut bed = Bed::new();
        bed.claim(protected());
        let alive = ok(200, &serde_json::to_value(protected()).unwrap());
        let mut answers = vec![("POST", answer)];
        // Something is not there: it is not the claim.
        answers.extend((code == 404).then_some(("GET", alive)));
        let (_, next) = bed.pass(answers).await;
        assert!(matches!(next, Next::After(_, REFUSED)), "{next:?}");
        assert_eq!((bed.reserved(), bed.facts().motion.refusal), (None, None));
    }
}

#[tokio::test]
async fn a_claim_that_is_gone_meanwhile_leaves_the_address_to_be_undone() {
    let mut bed = Bed::new();
    bed.claim(claim("web", ""));
    bed.pass([("POST", created()), ("PATCH", gone()), ("GET", gone())]).await;
    bed.address(made());
    bed.is_undone().await;
}

#[tokio::test]
async fn a_claim_that_the_server_does_not_have_stays_gone_however_late_the_watch_is() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.pass([("POST", created())]).await;
    bed.address(made());
    bed.pass([("PATCH", gone()), ("GET", gone())]).await;
    bed.claim(protected());
    bed.is_undone().await;
}

#[tokio::test]
async fn a_creation_that_was_given_up_is_undone_whenever_it_takes_effect() {
    let mut bed = Bed::new();
    bed.claim(claim("web", ""));
    bed.pass([("POST", Answer::Lost), ("PATCH", Answer::Lost)]).await;
    bed.pass([("POST", created()), ("PATCH", gone()), ("GET", gone())]).await;
    bed.address(made());
    bed.is_undone().await;
    bed.world(|world| world.addresses(Seen::Gone(made())));
    bed.pass([]).await;
    let mut late = made();
    late.metadata.uid = Some("a-late".to_owned());
    bed.address(late);
    bed.is_undone().await;
}

#[tokio::test]
async fn what_was_sent_for_an_earlier_claim_is_undone_when_the_later_one_is_gone_too() {
    let mut bed = Bed::new();
    let (first, mut second) = (claim("web", ""), claim("web", ""));
    second.metadata.uid = Some("c-later".to_owned());
    bed.claim(first.clone());
    bed.pass([("POST", Answer::Lost), ("PATCH", changed())]).await;
    bed.world(|world| world.claims(Seen::Gone(first), CapiVersion::V1beta2));
    bed.claim(second.clone());
    let found = ok(200, &serde_json::to_value(made()).unwrap());
    bed.pass([("POST", refuse(409, "AlreadyExists", "exists")), ("GET", found), ("PATCH", gone()), ("GET", gone())]).await;
    bed.world(|world| world.claims(Seen::Gone(second), CapiVersion::V1beta2));
    bed.address(made());
    bed.is_undone().await;
}

#[tokio::test]
async fn a_pause_between_plan_and_write_withholds_the_write() {
    let paused = "annotations: {cluster.x-k8s.io/paused: ''}";
    let ways: [fn(&Bed, &str); 2] = [
        |at, more| at.claim(claim("web", &format!("finalizers: [{RELEASE_ADDRESS}], {more}"))),
        |at, more| at.world(|world| world.pools(PoolKind::InClusterIPPool, Seen::Changed(pool("10.0.0.10", more)))),
    ];
    for pause in ways {
        let mut bed = Bed::new();
        bed.claim(protected());
        let work = claim_pass(&bed.ctx, bed.slot()).unwrap_or_else(|next| unreachable!("{next:?}"));
        pause(&bed, paused);
        let (asked, next) = bed.exchange(Box::pin(work), []).await;
        assert_eq!((asked, next), (Vec::new(), Next::Done));
        assert_eq!(bed.reserved(), Some(ReservationState::Unsent));
        // The pass that the pause asks for gives the value back.
        assert_eq!(bed.pass([]).await.0, []);
        assert_eq!(bed.reserved(), None);
    }
}

#[tokio::test]
async fn without_leadership_nothing_is_sent_and_it_is_looked_at_again() {
    let mut bed = Bed::led(Leadership::elected());
    bed.claim(protected());
    let (asked, next) = bed.pass([]).await;
    assert!(asked.is_empty() && matches!(next, Next::After(_, FENCED)), "{next:?}");
    assert_eq!(bed.reserved(), Some(ReservationState::Unsent));
}

#[tokio::test]
async fn a_loser_is_deleted_and_its_value_tried_no_more() {
    let mut bed = Bed::new();
    bed.claim(claim("first", ""));
    bed.address(address("first", "10.0.0.10", OURS));
    bed.claim(protected());
    bed.address(made());
    let left = ok(200, &json!({"metadata": {"finalizers": [PROTECT_ADDRESS]}}));
    let (asked, _) = bed.pass([("PATCH", changed()), ("DELETE", left), ("PATCH", changed())]).await;
    let lost = json!({"metadata": {"resourceVersion": "1", "annotations": {LOST_ADDRESS: "a-web"}}});
    let this = json!({"preconditions": {"uid": "a-web", "resourceVersion": "1"}});
    assert_eq!(asked[0], (format!("DELETE {ADDRESSES}/web"), this));
    assert_eq!(asked[1], (format!("PATCH {CLAIM}"), lost));
    assert_eq!(asked[2].0, format!("PATCH {ADDRESSES}/web"));
    assert!(bed.facts().wishes.collided);
    assert_eq!(bed.pass([]).await.0, [], "nothing is built on what was deleted");
}

#[tokio::test]
async fn a_loser_that_another_manager_published_meanwhile_is_left_alone() {
    let mut bed = Bed::new();
    bed.claim(claim("first", ""));
    bed.address(address("first", "10.0.0.10", OURS));
    bed.claim(protected());
    bed.address(made());
    let (asked, _) = bed.pass([("PATCH", refuse(409, "Conflict", "the claim has changed"))]).await;
    assert_eq!(asked.len(), 1);
    assert!(!bed.facts().wishes.collided);
}

#[tokio::test]
async fn an_orphan_is_let_go_only_when_the_api_server_does_not_know_its_claim() {
    let going = format!("finalizers: [{PROTECT_ADDRESS}], {OWNER}, deletionTimestamp: '2026-01-01T00:00:00Z'");
    let mut successor = protected();
    successor.metadata.uid = Some("another".to_owned());
    let found = |claim: &IpAddressClaim| ok(200, &serde_json::to_value(claim).unwrap());
    let mut bed = Bed::new();
    bed.address(address("web", "10.0.0.10", &going));
    let (asked, _) = bed.pass([("GET", found(&protected()))]).await;
    assert_eq!(asked, [(format!("GET {CLAIM}"), Value::Null)]);
    for answer in [refuse(404, "NotFound", "gone"), found(&successor)] {
        let mut bed = Bed::new();
        bed.address(address("web", "10.0.0.10", &going));
        let (asked, _) = bed.pass([("GET", answer), ("PATCH", changed())]).await;
        assert_eq!(asked[1].0, format!("PATCH {ADDRESSES}/web"));
    }
}

#[tokio::test]
async fn a_post_whose_fate_is_unknown_frees_its_value_when_the_server_has_no_such_address() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.pass([("POST", refuse(503, "ServiceUnavailable", "later"))]).await;
    bed.steps(vec![Step::ConfirmAbsent], [("GET", ok(200, &serde_json::to_value(made()).unwrap()))]).await;
    assert_eq!(bed.reserved(), Some(ReservationState::Sent));
    bed.steps(vec![Step::ConfirmAbsent], [("GET", refuse(503, "ServiceUnavailable", "later"))]).await;
    assert_eq!(bed.reserved(), Some(ReservationState::Sent));
    bed.steps(vec![Step::ConfirmAbsent], [("GET", refuse(404, "NotFound", "no"))]).await;
    assert_eq!(bed.reserved(), None);
}

#[tokio::test]
async fn a_bound_claim_without_an_address_in_view_goes_only_when_the_server_has_none() {
    let mut bed = Bed::new();
    bed.claim(bound("web", &format!("finalizers: [{RELEASE_ADDRESS}], deletionTimestamp: '2026-01-01T00:00:00Z'")));
    let (asked, _) = bed.pass([("GET", ok(200, &serde_json::to_value(made()).unwrap()))]).await;
    assert_eq!(asked[0].0, format!("GET {ADDRESSES}/web"));
    let (asked, _) = bed.pass([("GET", refuse(404, "NotFound", "gone"))]).await;
    assert_eq!(asked[0].0, format!("GET {ADDRESSES}/web"));
    let (asked, _) = bed.pass([("PATCH", changed())]).await;
    assert_eq!(asked[0].0, format!("PATCH {CLAIM}"));
}

#[tokio::test]
async fn an_address_that_the_watch_never_showed_frees_its_value_if_it_is_gone() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.pass([("POST", created())]).await;
    bed.steps(vec![Step::RestartWatch], [("GET", ok(200, &serde_json::to_value(made()).unwrap()))]).await;
    assert_eq!(bed.reserved(), Some(ReservationState::Answered));
    bed.steps(vec![Step::RestartWatch], [("GET", refuse(404, "NotFound", "no"))]).await;
    assert_eq!(bed.reserved(), None);
}

#[tokio::test]
async fn an_incomplete_address_is_completed_with_one_patch_of_the_version_seen() {
    let mut bed = Bed::new();
    bed.claim(protected());
    bed.address(address("web", "10.0.0.10", OWNER));
    let (asked, _) = bed.pass([("PATCH", changed())]).await;
    let patch = json!({"metadata": {"resourceVersion": "1", "finalizers": [PROTECT_ADDRESS]}});
    assert_eq!(asked, [(format!("PATCH {ADDRESSES}/web"), patch)]);
    assert!(bed.facts().motion.own_write_unseen);
}
