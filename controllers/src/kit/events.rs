//! Events for people, best effort: they never hold anything up, and what is too much is dropped.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    bucket::Bucket,
    leader::{Leadership, hostname},
    metrics::Metrics,
    writes::FIELD_MANAGER,
};

const CONTROLLER: &str = "ipam-in-cluster";
const QUEUED: usize = 1024;
const BURST: f64 = 50.0;
const PER_SECOND: f64 = 5.0;
const REPEAT_AFTER: Duration = Duration::from_secs(300);
/// Repetitions remembered before the old ones are cleared out.
const REMEMBERED: usize = 10_000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The API server's limit on a note, in bytes.
const NOTE: usize = 1024;
/// Events about bound and released claims, which `--allocation-events=false` turns off.
const ALLOCATION: [&str; 2] = ["AddressAllocated", "AddressReleased"];

/// The object an event is about.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ObjectRef {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl From<ObjectRef> for ObjectReference {
    fn from(object: ObjectRef) -> Self {
        Self {
            api_version: Some(object.api_version),
            kind: Some(object.kind),
            namespace: object.namespace,
            name: Some(object.name),
            uid: Some(object.uid),
            ..Self::default()
        }
    }
}

/// Whether a person should be worried.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Severity {
    /// No.
    Normal,
    /// Yes.
    Warning,
}

/// Takes events from capabilities. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Notice>,
    metrics: Metrics,
    with_allocations: bool,
}

/// One event, before it is decided whether it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Notice {
    object: ObjectRef,
    related: Option<ObjectRef>,
    severity: Severity,
    action: &'static str,
    reason: &'static str,
    note: String,
}

impl Events {
    /// The two ends: one to publish with, one to run beside everything else.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics, with_allocations: bool) -> (Self, EventWriter) {
        let (queue, notices) = mpsc::channel(QUEUED);
        let events = Self { queue, metrics: metrics.clone(), with_allocations };
        let writer = EventWriter {
            client,
            leadership,
            metrics,
            notices,
            filter: Filter::new(),
            instance: hostname().chars().take(128).collect(),
        };
        (events, writer)
    }

    /// Publishes an event whose action is its reason; never waits.
    pub fn publish(&self, object: ObjectRef, severity: Severity, reason: &'static str, note: String) {
        self.queue(Notice { object, related: None, severity, action: reason, reason, note });
    }

    /// Publishes an event about an action that has several reasons; never waits.
    pub fn publish_action(
        &self,
        object: ObjectRef,
        severity: Severity,
        action: &'static str,
        reason: &'static str,
        note: String,
    ) {
        self.queue(Notice { object, related: None, severity, action, reason, note });
    }

    /// Publishes an event that also names a second object; never waits.
    pub fn publish_related(&self, object: ObjectRef, related: ObjectRef, severity: Severity, reason: &'static str, note: String) {
        self.queue(Notice { object, related: Some(related), severity, action: reason, reason, note });
    }

    fn queue(&self, notice: Notice) {
        if !self.with_allocations && ALLOCATION.contains(&notice.reason) {
            return;
        }
        if self.queue.try_send(notice).is_err() {
            self.metrics.event_dropped();
        }
    }
}

/// Writes the events that are not too much.
pub struct EventWriter {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
    notices: mpsc::Receiver<Notice>,
    filter: Filter,
    instance: String,
}

impl EventWriter {
    /// Runs until the last [`Events`] is dropped.
    pub async fn run(mut self) {
        while let Some(notice) = self.notices.recv().await {
            if !self.leadership.may_write() {
                continue;
            }
            match self.filter.decide(&notice, Instant::now()) {
                Verdict::Write => self.write(notice).await,
                Verdict::Repetition => {}
                Verdict::TooMany => self.metrics.event_dropped(),
            }
        }
    }

    async fn write(&self, notice: Notice) {
        let namespace = notice.object.namespace.clone();
        // Where events about cluster-scoped objects live.
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let now = jiff::Timestamp::now();
        let event = event(notice, &namespace, now, rand::random(), &self.instance);
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let started = Instant::now();
        let answer = timeout(REQUEST_TIMEOUT, events.create(&params, &event)).await;
        let code = match &answer {
            Ok(Ok(_)) => "201".to_owned(),
            Ok(Err(kube::Error::Api(status))) => status.code.to_string(),
            Ok(Err(_)) => "error".to_owned(),
            Err(_) => "timeout".to_owned(),
        };
        self.metrics.request("create", "events", &code, started.elapsed());
        if code != "201" {
            self.metrics.event_dropped();
            tracing::debug!(%code, name = ?event.metadata.name, "an event could not be written");
        }
    }
}

fn event(notice: Notice, namespace: &str, now: jiff::Timestamp, random: u64, instance: &str) -> Event {
    let Notice { object, related, severity, action, reason, mut note } = notice;
    let mut name = object.name.clone();
    name.truncate(230);
    while note.len() > NOTE {
        note.pop();
    }
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{random:016x}", name.trim_end_matches(['.', '-']))),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        action: Some(action.to_owned()),
        reason: Some(reason.to_owned()),
        type_: Some(match severity {
            Severity::Normal => "Normal".to_owned(),
            Severity::Warning => "Warning".to_owned(),
        }),
        note: Some(note),
        regarding: Some(object.into()),
        related: related.map(Into::into),
        ..Event::default()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Write,
    Repetition,
    TooMany,
}

/// Lets 50 events through, then 5 a second, and a repetition only after five minutes. Each kind of object has a limit of its own, and
/// warnings another one, so that what goes well for a thousand objects does not drown what goes wrong for one.
#[derive(Debug)]
struct Filter {
    buckets: HashMap<(String, Severity), Bucket>,
    written: HashMap<(ObjectRef, &'static str), (u64, Instant)>,
}

impl Filter {
    fn new() -> Self {
        Self { buckets: HashMap::new(), written: HashMap::new() }
    }

    fn decide(&mut self, notice: &Notice, now: Instant) -> Verdict {
        let mut hasher = DefaultHasher::new();
        notice.note.hash(&mut hasher);
        let text = hasher.finish();
        let recent = |at: Instant| now.saturating_duration_since(at) < REPEAT_AFTER;
        let key = (notice.object.clone(), notice.reason);
        if let Some((last, at)) = self.written.get(&key)
            && *last == text
            && recent(*at)
        {
            return Verdict::Repetition;
        }
        let limit = (notice.object.kind.clone(), notice.severity);
        if !self.buckets.entry(limit).or_insert_with(|| Bucket::new(BURST, PER_SECOND, now)).try_take(now) {
            return Verdict::TooMany;
        }
        if self.written.len() >= REMEMBERED {
            self.written.retain(|_, (_, at)| recent(*at));
        }
        self.written.insert(key, (text, now));
        Verdict::Write
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(name: &str, note: &str) -> Notice {
        Notice {
            object: ObjectRef {
                api_version: "ipam.cluster.x-k8s.io/v1beta2".to_owned(),
                kind: "IPAddressClaim".to_owned(),
                namespace: Some("team-a".to_owned()),
                name: name.to_owned(),
                uid: format!("uid-of-{name}"),
            },
            related: None,
            severity: Severity::Warning,
            action: "PoolExhausted",
            reason: "PoolExhausted",
            note: note.to_owned(),
        }
    }

    #[test]
    fn the_same_event_is_written_again_only_after_five_minutes_or_with_another_text() {
        let start = Instant::now();
        let mut filter = Filter::new();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(filter.decide(&notice("a", "full"), at(0)), Verdict::Write);
        assert_eq!(filter.decide(&notice("a", "full"), at(299)), Verdict::Repetition);
        assert_eq!(filter.decide(&notice("b", "full"), at(299)), Verdict::Write);
        assert_eq!(filter.decide(&notice("a", "fuller"), at(299)), Verdict::Write);
        assert_eq!(filter.decide(&notice("a", "fuller"), at(600)), Verdict::Write);
    }

    #[test]
    fn fifty_events_pass_at_once_then_five_a_second() {
        let start = Instant::now();
        let mut filter = Filter::new();
        let passed = |filter: &mut Filter, prefix: &str, now| {
            let names = (0..100).map(|number| format!("{prefix}{number}"));
            names.filter(|name| filter.decide(&notice(name, "full"), now) == Verdict::Write).count()
        };
        assert_eq!(passed(&mut filter, "a", start), 50);
        assert_eq!(passed(&mut filter, "b", start + Duration::from_secs(1)), 5);
    }

    #[test]
    fn a_flood_of_one_sort_drowns_no_other() {
        let now = Instant::now();
        let mut filter = Filter::new();
        for number in 0..100 {
            filter.decide(&Notice { severity: Severity::Normal, ..notice(&format!("a{number}"), "bound") }, now);
        }
        let normal = Notice { severity: Severity::Normal, ..notice("b", "bound") };
        let mut service = normal.clone();
        service.object.kind = "Service".to_owned();
        let verdicts = [normal, notice("b", "full"), service].map(|notice| filter.decide(&notice, now));
        assert_eq!(verdicts, [Verdict::TooMany, Verdict::Write, Verdict::Write]);
    }

    #[test]
    fn an_event_meets_the_api_servers_limits() {
        let long = notice(&"a".repeat(253), &"ä".repeat(2000));
        let event = event(long, "team-a", jiff::Timestamp::UNIX_EPOCH, 7, "host-0");
        assert!(event.metadata.name.as_ref().unwrap().len() <= 253);
        assert_eq!(event.note.as_ref().unwrap().len(), 1024);
        assert_eq!(event.action.as_deref(), Some("PoolExhausted"));
        assert_eq!(event.reporting_controller.as_deref(), Some("ipam-in-cluster"));
        assert_eq!(event.regarding.unwrap().uid.unwrap(), long_uid());
    }

    #[tokio::test]
    async fn only_a_leader_writes_and_what_is_turned_off_is_not_even_queued() {
        use http::{Request, Response};
        use http_body_util::BodyExt as _;
        use kube::client::Body;

        let (service, mut server) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let client = Client::new(service, "default");
        let metrics = Metrics::new("test");
        let (mut events, follower) = Events::new(client.clone(), Leadership::elected(), metrics.clone(), false);
        events.publish(notice("a", "").object, Severity::Warning, "PoolExhausted", "not written".to_owned());
        drop(events);
        follower.run().await;

        let leader;
        (events, leader) = Events::new(client, Leadership::always(), metrics.clone(), false);
        let pool = ObjectRef { namespace: None, kind: "GlobalInClusterIPPool".to_owned(), ..notice("pool", "").object };
        events.publish(notice("a", "").object, Severity::Normal, "AddressAllocated", "turned off".to_owned());
        events.publish(pool, Severity::Warning, "NoFreeAddresses", "full".to_owned());
        drop(events);
        let running = tokio::spawn(leader.run());
        let (request, send) = server.next_request().await.unwrap();
        let expected = "/apis/events.k8s.io/v1/namespaces/default/events?&fieldManager=ipam-in-cluster";
        assert_eq!(request.uri().to_string(), expected);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let event: Event = serde_json::from_slice(&body).unwrap();
        assert_eq!((event.reason.as_deref(), event.note.as_deref()), (Some("NoFreeAddresses"), Some("full")));
        send.send_response(Response::builder().status(500).body(Body::empty()).unwrap());
        running.await.unwrap();
        assert!(metrics.encode().unwrap().contains("ipam_events_dropped_total 1"));
    }

    fn long_uid() -> String {
        format!("uid-of-{}", "a".repeat(253))
    }
}
