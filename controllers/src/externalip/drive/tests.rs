//! The steps of a Service's plan against a scripted API server: the exact requests, and what each answer leads to.

use std::pin::Pin;
use std::sync::Arc;

use api::externalip::IpMode;
use api::externalip::names::{MANAGED, PUBLISHED};
use api::externalip::reasons::ExternalIpEvent;
use http::Response;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::config::ExternalIpSources;
use crate::externalip::PLACE;
use crate::ipam::{Scope, Shell};
use crate::kit::events::{EventWriter, Events};
use crate::kit::health::Readiness;
use crate::kit::leader::Leadership;
use crate::kit::metrics::Metrics;
use crate::kit::shutdown::Shutdown;
use crate::kit::watch::Seen;
use crate::kit::writes::Writer;
use crate::kit::writes::scripted::{ApiServer, respond, status};

const SERVICE: &str = "/api/v1/namespaces/team-a/services/web";
const CLAIMS: &str = "/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/ipaddressclaims";
const CLAIM: &str = "web-ext4-6aa21bf7";

/// What the server does with a request.
pub(in crate::externalip) enum Answer {
    With(Response<Body>),
    Lost,
}

/// An object in its next version.
pub(in crate::externalip) fn version(revision: &str) -> Answer {
    Answer::With(respond(200, &[], &json!({"metadata": {"resourceVersion": revision}})))
}

pub(in crate::externalip) fn refuse(code: u16, reason: &str, message: &str) -> Answer {
    Answer::With(respond(code, &[], &status(code, reason, message)))
}

/// A request as it arrived: method and path with query, and the body.
pub(in crate::externalip) type Asked = (String, Value);

fn settings(dry_run: bool) -> ExternalIpSources {
    ExternalIpSources {
        interval: Duration::from_secs(60),
        dry_run,
        dns_servers: Vec::new(),
        dns_min_ttl: Duration::from_secs(5),
        dns_max_ttl: Duration::from_secs(86_400),
        source_grace: Duration::from_secs(300),
        solver_timeout: Duration::from_secs(10),
        solver_concurrency: 64,
        write_concurrency: 32,
        allow_private: false,
        allow_cidrs: Vec::new(),
        deny_cidrs: Vec::new(),
        load_balancer_class: "externalip.spacebird.dev/external-ip".to_owned(),
        external_dns_prefixes: vec!["external-dns.kubernetes.io/".to_owned()],
        api_endpoints: Vec::new(),
        api_ca: None,
        api_allow_cidrs: Vec::new(),
    }
}

/// The Service team-a/web in version 7, and a server that waits for requests.
pub(in crate::externalip) struct Bed {
    pub ctx: Arc<Ctx>,
    server: ApiServer,
    _events: EventWriter,
}

impl Bed {
    pub fn new() -> Self {
        Self::with(Leadership::always(), false)
    }

    pub fn with(leadership: Leadership, dry_run: bool) -> Self {
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
        let bed =
            Self { ctx: Arc::new(Ctx::new(&shell, &Scope::default(), &settings(dry_run))), server, _events: writer_of_events };
        bed.deliver("7");
        bed
    }

    /// The watch delivers the Service in this version.
    fn deliver(&self, revision: &str) {
        let object: Service = serde_json::from_value(json!({
            "metadata": {"namespace": "team-a", "name": "web", "uid": "s-web", "resourceVersion": revision},
            "spec": {"ports": [{"port": 443}]},
        }))
        .unwrap();
        self.ctx.world().take_services(Seen::Changed(object), Instant::now());
    }

    fn subject() -> Subject {
        Subject {
            key: ServiceKey { namespace: "team-a".to_owned(), name: "web".to_owned() },
            uid: "s-web".to_owned(),
            revision: "7".to_owned(),
            recorded: BTreeSet::new(),
            other_writer: Some("argocd".to_owned()),
            claims: Vec::new(),
            capi: CapiVersion::V1beta2,
            changed: None,
        }
    }

    /// Carries these steps out while the server gives these answers, in their order.
    async fn steps<const N: usize>(&mut self, steps: Vec<Step>, answers: [Answer; N]) -> (Vec<Asked>, Next) {
        let plan = Plan { steps, look_again: Some(Duration::from_secs(9)), ..Plan::default() };
        let ctx = self.ctx.clone();
        self.exchange(Box::pin(async move { drive(&ctx, 0, Self::subject(), plan).await }), answers).await
    }

    /// Lets the work be done while the server gives these answers, in their order.
    pub async fn exchange<const N: usize>(
        &mut self,
        mut work: Pin<Box<dyn Future<Output = Next>>>,
        answers: [Answer; N],
    ) -> (Vec<Asked>, Next) {
        let (mut answers, mut asked) = (Vec::from(answers).into_iter(), Vec::new());
        let next = loop {
            tokio::select! {
                next = &mut work => break next,
                request = self.server.next_request() => {
                    let (request, send) = request.unwrap();
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
                    asked.push((format!("{} {}", head.method, head.uri), body));
                    match answers.next() {
                        Some(Answer::With(response)) => send.send_response(response),
                        Some(Answer::Lost) => send.send_error("connection reset"),
                        None => panic!("unexpected: {asked:?}"),
                    }
                }
            }
        };
        assert!(answers.next().is_none(), "asked for less: {asked:?}");
        (asked, next)
    }

    fn troubles(&self) -> Vec<(Output, TroubleKind, String)> {
        let world = self.ctx.world();
        let troubles = &world.entry(0).unwrap().motion.troubles;
        troubles.iter().map(|(output, trouble)| (*output, trouble.kind, trouble.text.clone())).collect()
    }

    /// For how long own writes are waited for at most.
    fn unseen(&self) -> bool {
        self.ctx.world().entry_mut(0).unwrap().motion.unseen(Instant::now()).is_some()
    }
}

const RECORD: &str = r#"{"v":1,"source":"public","release":"Release","addresses":{"198.51.100.7":"static"},"externalIPs":["198.51.100.7"],"mirrored":[]}"#;

fn patch(ips: &[&str]) -> Step {
    Step::PatchService {
        external_ips: Some(ips.iter().map(|ip| (*ip).to_owned()).collect()),
        record: Some(RecordChange::Set(RECORD.to_owned())),
        restores: false,
    }
}

fn restore() -> Step {
    Step::PatchService { external_ips: Some(vec!["198.51.100.7".to_owned()]), record: None, restores: true }
}

fn target(value: Option<&str>) -> Step {
    let annotations = value.map(|value| ("external-dns.kubernetes.io/target".to_owned(), value.to_owned()));
    Step::ApplyTarget { annotations: annotations.into_iter().collect() }
}

fn ingress() -> Step {
    Step::ApplyStatus { ingress: Some(vec![("198.51.100.7".parse().unwrap(), IpMode::Vip)]) }
}

const DONE: Next = Next::After(PLACE, Duration::from_secs(9));

#[tokio::test]
async fn all_outputs_are_written_in_their_order_each_upon_the_version_that_the_one_before_made() {
    let mut bed = Bed::new();
    let steps = vec![patch(&["10.9.9.9", "198.51.100.7"]), target(Some("198.51.100.7")), ingress()];
    let (asked, next) = bed.steps(steps, [version("8"), version("9"), version("10")]).await;
    let meta = |revision: &str| json!({"namespace": "team-a", "name": "web", "resourceVersion": revision});
    let mut second = meta("8");
    second["uid"] = json!("s-web");
    second["annotations"] = json!({"external-dns.kubernetes.io/target": "198.51.100.7"});
    let expected = vec![
        (
            format!("PATCH {SERVICE}?&fieldManager=ipam-in-cluster-externalip"),
            json!({
                "metadata": {"uid": "s-web", "resourceVersion": "7", "annotations": {MANAGED: RECORD}},
                "spec": {"externalIPs": ["10.9.9.9", "198.51.100.7"]},
            }),
        ),
        (
            format!("PATCH {SERVICE}?&fieldManager=ipam-in-cluster-external-dns"),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": second}),
        ),
        (
            format!("PATCH {SERVICE}/status?&force=true&fieldManager=ipam-in-cluster-externalip-status"),
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": meta("9"),
                "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7", "ipMode": "VIP"}]}},
            }),
        ),
    ];
    assert_eq!((asked, next), (expected, DONE));
}

#[tokio::test]
async fn an_empty_list_and_a_record_that_goes_are_null_and_what_is_given_up_is_not_named() {
    let mut bed = Bed::new();
    let patch = Step::PatchService { external_ips: Some(Vec::new()), record: Some(RecordChange::Remove), restores: false };
    let steps = vec![patch, target(None), Step::ApplyStatus { ingress: None }, Step::ApplyConditions { conditions: Vec::new() }];
    let (asked, _) = bed.steps(steps, [version("8"), version("9"), version("9"), version("9")]).await;
    let meta = |revision: &str| json!({"namespace": "team-a", "name": "web", "resourceVersion": revision});
    let mut second = meta("8");
    second["uid"] = json!("s-web");
    let bodies: Vec<_> = asked.into_iter().map(|(_, body)| body).collect();
    let expected = [
        json!({"metadata": {"uid": "s-web", "resourceVersion": "7", "annotations": {MANAGED: null}}, "spec": {"externalIPs": null}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": second}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("9")}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("9")}),
    ];
    assert_eq!(bodies, expected);
}

#[tokio::test]
async fn claims_are_made_adopted_deleted_and_let_go_each_with_its_precondition() {
    let mut bed = Bed::new();
    let (name, uid) = (CLAIM.to_owned(), "c-1".to_owned());
    let finalizers = vec!["other/x".to_owned(), PUBLISHED.to_owned()];
    let steps = vec![
        Step::CreateClaim { name: name.clone(), object: json!({"metadata": {"name": CLAIM}}) },
        Step::AdoptClaim { name: name.clone(), uid: uid.clone(), revision: "3".to_owned(), owner: json!([{"uid": "s-web"}]) },
        Step::DeleteClaim { name: name.clone(), uid: uid.clone() },
        Step::FreeClaim { name, uid, finalizers },
    ];
    let (asked, next) = bed.steps(steps, [version("1"), version("4"), version("5"), version("6")]).await;
    let expected = vec![
        (
            format!("POST {CLAIMS}?&fieldManager=ipam-in-cluster"),
            json!({"apiVersion": "ipam.cluster.x-k8s.io/v1beta2", "kind": "IPAddressClaim", "metadata": {"name": CLAIM}}),
        ),
        (
            format!("PATCH {CLAIMS}/{CLAIM}?&fieldManager=ipam-in-cluster"),
            json!({"metadata": {"uid": "c-1", "resourceVersion": "3", "ownerReferences": [{"uid": "s-web"}]}}),
        ),
        (format!("DELETE {CLAIMS}/{CLAIM}?"), json!({"preconditions": {"uid": "c-1"}})),
        (
            format!("PATCH {CLAIMS}/{CLAIM}?&fieldManager=ipam-in-cluster"),
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "c-1"},
                {"op": "test", "path": "/metadata/finalizers/1", "value": PUBLISHED},
                {"op": "remove", "path": "/metadata/finalizers/1"},
            ]),
        ),
    ];
    assert_eq!((asked, next), (expected, DONE));
    assert!(bed.unseen());
}

#[tokio::test]
async fn a_claim_that_is_there_already_or_gone_already_is_no_error() {
    let mut bed = Bed::new();
    let create = Step::CreateClaim { name: CLAIM.to_owned(), object: json!({"metadata": {"name": CLAIM}}) };
    let delete = Step::DeleteClaim { name: CLAIM.to_owned(), uid: "c-1".to_owned() };
    let answers = [refuse(409, "AlreadyExists", "exists"), refuse(404, "NotFound", "no such claim")];
    assert_eq!(bed.steps(vec![create, delete], answers).await.1, DONE);
}

#[tokio::test]
async fn after_a_write_the_facts_are_old_until_the_watch_delivers_it() {
    let mut bed = Bed::new();
    bed.steps(vec![patch(&["198.51.100.7"]), target(Some("198.51.100.7"))], [version("8"), version("9")]).await;
    assert!(bed.unseen());
    bed.deliver("8");
    assert!(bed.unseen());
    bed.deliver("9");
    assert!(!bed.unseen());
    // A write that changed nothing makes no version.
    bed.steps(vec![target(Some("198.51.100.7"))], [version("9")]).await;
    assert!(!bed.unseen());
}

#[tokio::test]
async fn a_conflict_ends_the_pass_and_the_next_one_waits_for_the_version_that_caused_it() {
    let mut bed = Bed::new();
    let conflict = refuse(409, "Conflict", "the object has been modified");
    let (asked, next) = bed.steps(vec![patch(&["198.51.100.7"]), ingress()], [conflict]).await;
    assert_eq!((asked.len(), next, bed.troubles()), (1, Next::Again(PLACE), Vec::new()));
    assert!(bed.unseen());
    bed.deliver("8");
    assert!(!bed.unseen());
}

#[tokio::test]
async fn what_is_refused_of_an_output_is_its_trouble_and_the_rest_is_planned_again_at_once() {
    let denied = "services \"web\" is forbidden: Use of external IPs is denied by admission control";
    let rights = "services \"web\" is forbidden: User \"x\" cannot patch resource \"services\" in API group \"\"";
    let conflict = "Apply failed with 1 conflict: conflict with \"kubectl-annotate\" using v1: .metadata.annotations.x";
    for (step, answer, expected) in [
        (
            patch(&["198.51.100.7"]),
            refuse(403, "Forbidden", denied),
            (Output::ExternalIps, TroubleKind::DeniedByAdmission, denied),
        ),
        (patch(&["198.51.100.7"]), refuse(403, "Forbidden", rights), (Output::ExternalIps, TroubleKind::WriteRejected, rights)),
        (
            patch(&["x"]),
            refuse(422, "Invalid", "spec.externalIPs[0]: x"),
            (Output::ExternalIps, TroubleKind::WriteRejected, "spec.externalIPs[0]: x"),
        ),
        (ingress(), refuse(422, "Invalid", "ipMode: y"), (Output::LoadBalancerStatus, TroubleKind::WriteRejected, "ipMode: y")),
        (
            target(Some("198.51.100.7")),
            refuse(409, "Conflict", conflict),
            (Output::ExternalDnsTarget, TroubleKind::OutputUnavailable, "kubectl-annotate"),
        ),
    ] {
        let mut bed = Bed::new();
        let (_, next) = bed.steps(vec![step, Step::ApplyConditions { conditions: Vec::new() }], [answer]).await;
        let (output, kind, text) = expected;
        assert_eq!((next, bed.troubles()), (Next::Again(PLACE), vec![(output, kind, text.to_owned())]));
        assert!(!bed.unseen());
    }
}

#[tokio::test]
async fn missing_rights_are_looked_for_again_soon_and_a_denial_is_not() {
    let rights = "services \"web\" is forbidden: User \"x\" cannot patch resource \"services\" in API group \"\"";
    let denied = "services \"web\" is forbidden: Use of external IPs is denied by admission control";
    for (message, soon) in [(rights, true), (denied, false)] {
        let mut bed = Bed::new();
        bed.steps(vec![patch(&["198.51.100.7"])], [refuse(403, "Forbidden", message)]).await;
        let world = bed.ctx.world();
        let until = world.entry(0).unwrap().motion.troubles[&Output::ExternalIps].until;
        assert_eq!(until < Instant::now() + Duration::from_secs(60), soon, "{message}");
    }
}

#[tokio::test]
async fn an_output_that_is_written_is_in_trouble_no_more() {
    let mut bed = Bed::new();
    bed.steps(vec![patch(&["198.51.100.7"])], [refuse(422, "Invalid", "no")]).await;
    bed.steps(vec![patch(&["198.51.100.7"])], [version("8")]).await;
    assert_eq!(bed.troubles(), []);
}

#[tokio::test]
async fn a_busy_server_or_a_lost_answer_is_tried_later_and_nothing_else_is_tried_meanwhile() {
    for answer in [refuse(429, "TooManyRequests", "slow down"), refuse(503, "", "starting"), Answer::Lost] {
        let mut bed = Bed::new();
        let (asked, next) = bed.steps(vec![patch(&["198.51.100.7"]), ingress()], [answer]).await;
        let soon = matches!(next, Next::After(_, delay) if delay <= Duration::from_millis(50)) || next == Next::Again(PLACE);
        assert!(asked.len() == 1 && soon && bed.troubles().is_empty(), "{next:?}");
    }
    let mut bed = Bed::new();
    let throttled = Answer::With(respond(429, &[("Retry-After", "7")], &status(429, "TooManyRequests", "slow down")));
    assert_eq!(bed.steps(vec![ingress()], [throttled]).await.1, Next::After(PLACE, Duration::from_secs(7)));
}

#[tokio::test]
async fn whoever_does_not_lead_sends_nothing() {
    let mut bed = Bed::with(Leadership::elected(), false);
    assert_eq!(bed.steps(vec![patch(&["198.51.100.7"])], []).await, (Vec::new(), Next::After(PLACE, FENCED)));
}

#[tokio::test]
async fn a_dry_run_sends_nothing_at_all() {
    let mut bed = Bed::with(Leadership::always(), true);
    let note = Note { reason: ExternalIpEvent::NoSource, text: "names no source".to_owned() };
    let claim = Step::CreateClaim { name: CLAIM.to_owned(), object: json!({}) };
    let steps = vec![patch(&["198.51.100.7"]), target(None), ingress(), claim, Step::Emit(note)];
    assert_eq!(bed.steps(steps, []).await, (Vec::new(), DONE));
}

#[tokio::test]
async fn the_sixth_time_that_entries_are_put_back_the_other_writer_is_named_and_left_alone() {
    let mut bed = Bed::new();
    for _ in 0..5 {
        bed.steps(vec![restore()], [version("8")]).await;
    }
    assert_eq!(bed.troubles(), []);
    bed.steps(vec![restore()], [version("8")]).await;
    assert_eq!(bed.troubles(), [(Output::ExternalIps, TroubleKind::Contended, "argocd".to_owned())]);
}

#[tokio::test]
async fn a_service_that_went_meanwhile_takes_its_conditions_along() {
    let mut bed = Bed::new();
    let gone = refuse(404, "NotFound", "no such Service");
    assert_eq!(bed.steps(vec![Step::ApplyConditions { conditions: Vec::new() }], [gone]).await.1, DONE);
}

#[tokio::test]
async fn what_was_told_is_remembered() {
    let mut bed = Bed::new();
    let note = Note { reason: ExternalIpEvent::NoSource, text: "names no source".to_owned() };
    bed.steps(vec![Step::Emit(note)], []).await;
    let told = bed.ctx.world().entry(0).unwrap().motion.told.clone();
    assert_eq!(told, [(ExternalIpEvent::NoSource, "names no source".to_owned())].into());
}
