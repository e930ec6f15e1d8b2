use api::externalip::AddressPolicy;

use super::*;
use crate::externalip::facts::Rules;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn rules() -> Rules {
    Rules {
        allow_private: false,
        allow: Vec::new(),
        deny: Vec::new(),
        load_balancer_class: String::new(),
        external_dns_prefixes: Vec::new(),
        source_grace: Duration::ZERO,
        watch_filter: None,
    }
}

/// A source that uses one key, which was begun at the time that is returned.
fn begun(solver: Shared) -> (Answers, Arc<Key>, Instant) {
    let filter = Filter::new(&AddressPolicy::default(), &rules());
    let terms = Terms { filter, max_staleness: seconds(3600.0), refresh_interval: None };
    let (mut answers, now) = (Answers::default(), Instant::now());
    let keys = BTreeSet::from([Key { family: Family::V4, solver }]);
    answers.use_by("public", &terms, keys, &Cluster::default(), now);
    let key = answers.due(now).unwrap();
    answers.begin(&key, now);
    (answers, key, now)
}

fn found() -> Ran {
    let outcome = Outcome::Found { addresses: vec!["203.0.113.7".parse().unwrap()], truncated: false };
    Ran { outcome, fresh_for: Some(seconds(60.0)) }
}

#[test]
fn a_change_has_a_solver_asked_within_a_second_also_while_it_is_being_asked() {
    let (mut answers, key, begun) = begun(Shared::Interface(None));
    answers.refresh_all(|_| true, begun + seconds(0.1));
    assert_eq!(answers.next_due(), None);
    answers.finish(&key, found(), &Cluster::default(), begun + seconds(0.2), 0.0);
    assert_eq!(answers.next_due(), Some(begun + seconds(1.0)));

    let begun = begun + seconds(1.0);
    answers.begin(&key, begun);
    answers.finish(&key, found(), &Cluster::default(), begun, 0.0);
    assert_eq!(answers.next_due(), Some(begun + seconds(60.0)));
    answers.refresh_all(|_| true, begun + seconds(10.0));
    assert_eq!(answers.next_due(), Some(begun + seconds(10.0)));
}

#[test]
fn a_wish_for_fresh_answers_does_not_shorten_a_pause_that_a_service_has_asked_for() {
    let solver = Shared::IpApi(api::externalip::Api::MyIp);
    let (mut answers, key, begun) = begun(solver);
    answers.refresh("public", begun);
    let failure = Failure { kind: FailureKind::RateLimited, text: String::new() };
    let limited = Ran { outcome: Outcome::Failed(failure), fresh_for: Some(seconds(900.0)) };
    answers.finish(&key, limited, &Cluster::default(), begun, 0.0);
    answers.refresh("public", begun + seconds(10.0));
    assert_eq!(answers.next_due(), Some(begun + seconds(900.0)));
}

#[test]
fn of_too_many_addresses_the_smallest_public_ones_stay() {
    let private = (0..40).map(|last| IpAddr::from([10, 0, 0, last]));
    let public = (0..20).map(|last| IpAddr::from([203, 0, 113, last]));
    let expected = private.clone().take(12).chain(public.clone()).collect();
    let all = public.chain(private).collect();
    assert_eq!(limited(all), Outcome::Found { addresses: expected, truncated: true });
}

/// One solver as one source sees it, through a list of events.
struct Cellar {
    answers: Answers,
    key: Arc<Key>,
    start: Instant,
}

impl Cellar {
    fn new() -> Self {
        let (answers, key, start) = begun(Shared::DnsHostname(Host::Name("gw.example.net".to_owned())));
        Self { answers, key, start }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    fn ends(&mut self, second: u64, outcome: Outcome) -> Vec<Change> {
        let ran = Ran { outcome, fresh_for: None };
        self.answers.finish(&self.key.clone(), ran, &Cluster::default(), self.at(second), 0.5)
    }

    /// In one word what counts at that second, for a Service whose record ascribes these addresses to the solver.
    fn reads(&self, second: u64, recorded: &[&str]) -> String {
        let recorded: Vec<IpAddr> = recorded.iter().map(|text| text.parse().unwrap()).collect();
        let recorded = Recorded { addresses: &recorded, began: self.start };
        let reading = self.answers.read_with("public", &self.key, &Cluster::default(), Some(recorded), self.at(second));
        match reading.effective {
            Effective::Fresh(addresses) => format!("fresh {addresses:?}"),
            Effective::Held(addresses, _) => format!("held {addresses:?}"),
            Effective::Pending { .. } => "pending".to_owned(),
            Effective::Empty { confirmed, .. } => if confirmed { "certainly empty" } else { "empty" }.to_owned(),
            Effective::Failed { .. } => "failed".to_owned(),
        }
    }
}

fn good(text: &str) -> Outcome {
    Outcome::Found { addresses: vec![text.parse().unwrap()], truncated: false }
}

fn bad() -> Outcome {
    Outcome::Failed(Failure { kind: FailureKind::Timeout, text: "timeout".to_owned() })
}

fn none() -> Outcome {
    Outcome::Empty("no such record".to_owned())
}

/// What happened, at which second; then at which second and with what in the record it is read, as what.
type Row<'a> = (&'a str, &'a [(u64, Outcome)], u64, &'a [&'a str], &'a str);

#[test]
fn the_effective_answer_follows_the_last_good_one_and_the_outcomes_since() {
    let (a, b) = ("203.0.113.7", "203.0.113.8");
    let rows: [Row<'_>; 17] = [
        ("1: found", &[(1, good(a))], 2, &[], "fresh [203.0.113.7]"),
        ("1: found, whatever is recorded", &[(1, good(a))], 2, &[b], "fresh [203.0.113.7]"),
        ("2: failed lately", &[(1, good(a)), (100, bad())], 3601, &[], "held [203.0.113.7]"),
        ("2: failed for long", &[(1, good(a)), (100, bad())], 3602, &[], "failed"),
        ("2: failed at once", &[(1, bad())], 2, &[], "failed"),
        ("3: empty once", &[(1, good(a)), (100, none())], 101, &[], "held [203.0.113.7]"),
        ("3: empty twice, too close", &[(1, good(a)), (100, none()), (109, none())], 110, &[], "held [203.0.113.7]"),
        ("3: empty twice", &[(1, good(a)), (100, none()), (110, none())], 111, &[], "certainly empty"),
        ("3: empty, failed, empty", &[(1, good(a)), (100, none()), (105, bad()), (110, none())], 111, &[], "certainly empty"),
        ("3: empty from the start", &[(1, none())], 2, &[], "empty"),
        (
            "3: good again in between",
            &[(1, good(a)), (100, none()), (105, good(b)), (111, none())],
            112,
            &[],
            "held [203.0.113.8]",
        ),
        (
            "an empty answer is not undone by a failure",
            &[(1, good(a)), (100, none()), (110, none()), (120, bad())],
            121,
            &[a],
            "failed",
        ),
        ("4: not asked yet", &[], 9000, &[a], "held [203.0.113.7]"),
        ("4: failed since the start", &[(1, bad())], 3600, &[a], "held [203.0.113.7]"),
        ("4: failed since the start for long", &[(1, bad())], 3601, &[a], "failed"),
        ("4: empty once since the start", &[(1, none())], 2, &[a], "held [203.0.113.7]"),
        ("4: empty twice since the start", &[(1, none()), (11, none())], 12, &[a], "certainly empty"),
    ];
    for (name, events, second, recorded, expected) in rows {
        let mut cellar = Cellar::new();
        for (second, outcome) in events {
            cellar.ends(*second, outcome.clone());
        }
        assert_eq!(cellar.reads(second, recorded), expected, "{name}");
    }
    assert_eq!(Cellar::new().reads(1, &[]), "pending");
}

#[test]
fn an_answer_is_good_for_as_long_as_its_solver_says_and_held_from_then() {
    let mut cellar = Cellar::new();
    let ran = Ran { outcome: good("203.0.113.7"), fresh_for: Some(seconds(86_400.0)) };
    cellar.answers.finish(&cellar.key.clone(), ran, &Cluster::default(), cellar.at(0), 0.0);
    cellar.ends(86_400, bad());
    assert_eq!(cellar.reads(86_400 + 3600, &[]), "held [203.0.113.7]", "one failure after a day does not end it");
    assert_eq!(cellar.reads(86_400 + 3601, &[]), "failed");
}

#[test]
fn only_a_difference_concerns_anybody() {
    let concerns = |changes: Vec<Change>| changes.into_iter().map(|change| change.services).collect::<Vec<_>>();
    let mut cellar = Cellar::new();
    assert_eq!(concerns(cellar.ends(1, good("203.0.113.7"))), [true]);
    assert_eq!(concerns(cellar.ends(2, good("203.0.113.7"))), Vec::<bool>::new());
    assert_eq!(concerns(cellar.ends(3, bad())), [false], "the source shows it, its Services keep what they have");
    assert_eq!(concerns(cellar.ends(4, bad())), Vec::<bool>::new());
    assert_eq!(concerns(cellar.ends(5, good("203.0.113.7"))), [false]);
    assert_eq!(concerns(cellar.ends(6, good("203.0.113.8"))), [true]);
    assert_eq!(concerns(cellar.ends(7, none())), [false]);
    assert_eq!(concerns(cellar.ends(17, none())), [true]);
}

#[test]
fn pauses_are_doubled_up_to_five_minutes_and_begin_anew_after_a_good_answer() {
    let mut cellar = Cellar::new();
    let due = |cellar: &Cellar, second: u64| cellar.answers.next_due().map(|due| due - cellar.at(second));
    let mut pauses = Vec::new();
    for run in 0..8 {
        cellar.ends(run, bad());
        pauses.push(due(&cellar, run).unwrap().as_secs());
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
    pauses.clear();
    for run in 10..17 {
        cellar.ends(run, none());
        pauses.push(due(&cellar, run).unwrap().as_secs());
    }
    assert_eq!(pauses, [10, 21, 42, 84, 165, 305, 305]);
    cellar.ends(20, good("203.0.113.7"));
    assert_eq!(due(&cellar, 20), None);
    cellar.ends(21, bad());
    assert_eq!(due(&cellar, 21), Some(seconds(5.0)));
    for (jitter, pause) in [(0.0, 4.0), (1.0, 6.0)] {
        let mut cellar = Cellar::new();
        cellar.answers.finish(
            &cellar.key.clone(),
            Ran { outcome: bad(), fresh_for: None },
            &Cluster::default(),
            cellar.start,
            jitter,
        );
        assert_eq!(due(&cellar, 0), Some(seconds(pause)));
    }
}

#[test]
fn a_solver_is_asked_once_after_its_time_plus_a_tenth_at_most_but_five_seconds() {
    for (ttl, jitter, pause) in [(30.0, 0.0, 30.0), (30.0, 1.0, 33.0), (3600.0, 1.0, 3605.0)] {
        let mut cellar = Cellar::new();
        let ran = Ran { outcome: good("203.0.113.7"), fresh_for: Some(seconds(ttl)) };
        cellar.answers.finish(&cellar.key.clone(), ran, &Cluster::default(), cellar.start, jitter);
        assert_eq!(cellar.answers.next_due(), Some(cellar.start + seconds(pause)));
        assert_eq!(cellar.answers.due(cellar.start + seconds(pause - 0.1)), None);
        let due = cellar.answers.due(cellar.start + seconds(pause)).unwrap();
        cellar.answers.begin(&due, cellar.start + seconds(pause));
        assert_eq!(cellar.answers.due(cellar.start + seconds(9e5)), None, "one run at a time");
    }
}

#[test]
fn what_two_sources_use_is_asked_once_and_forgotten_with_the_last() {
    let mut cellar = Cellar::new();
    let (terms, _) = cellar.answers.sources["public"].clone();
    let keys = BTreeSet::from([cellar.key.as_ref().clone()]);
    assert!(cellar.answers.use_by("other", &terms, keys, &Cluster::default(), cellar.at(1)));
    assert_eq!(cellar.answers.due(cellar.at(1)), None);
    let concerned: Vec<_> = cellar.ends(2, good("203.0.113.7")).into_iter().map(|change| change.source.to_string()).collect();
    assert_eq!(concerned, ["other", "public"]);
    cellar.answers.forget("public");
    assert_eq!(cellar.answers.tally(cellar.at(3))["dnsHostname"].answers, 1);
    cellar.answers.forget("other");
    assert_eq!(cellar.answers.tally(cellar.at(3)), BTreeMap::new());
    assert!(cellar.answers.cells.is_empty());
}

#[test]
fn who_comes_back_within_a_back_off_asks_nobody() {
    let mut cellar = Cellar::new();
    let failure = Failure { kind: FailureKind::RateLimited, text: "429".to_owned() };
    let ran = Ran { outcome: Outcome::Failed(failure), fresh_for: Some(seconds(900.0)) };
    cellar.answers.finish(&cellar.key.clone(), ran, &Cluster::default(), cellar.start, 0.0);
    let (terms, _) = cellar.answers.sources["public"].clone();
    cellar.answers.forget("public");
    assert_eq!(cellar.answers.due(cellar.at(899)), None);
    let keys = BTreeSet::from([cellar.key.as_ref().clone()]);
    cellar.answers.use_by("public", &terms, keys, &Cluster::default(), cellar.at(899));
    assert_eq!(cellar.answers.due(cellar.at(899)), None);
    cellar.answers.refresh("public", cellar.at(899));
    assert_eq!(cellar.answers.due(cellar.at(899)), None, "not even who wants fresh answers");
    assert!(cellar.answers.due(cellar.at(900)).is_some());
    cellar.answers.forget("public");
    assert_eq!(cellar.answers.due(cellar.at(901)), None);
    assert!(cellar.answers.cells.is_empty());
}

#[test]
fn a_source_may_want_its_solvers_asked_more_often_and_anew() {
    let mut cellar = Cellar::new();
    let (terms, _) = cellar.answers.sources["public"].clone();
    let terms = Terms { refresh_interval: Some(seconds(20.0)), ..terms };
    let keys = BTreeSet::from([cellar.key.as_ref().clone()]);
    let long = Ran { outcome: good("203.0.113.7"), fresh_for: Some(seconds(900.0)) };
    cellar.answers.finish(&cellar.key.clone(), long.clone(), &Cluster::default(), cellar.start, 0.0);
    cellar.answers.use_by("public", &terms, keys, &Cluster::default(), cellar.start);
    assert_eq!(cellar.answers.next_due(), Some(cellar.at(20)));
    cellar.answers.finish(&cellar.key.clone(), long, &Cluster::default(), cellar.at(20), 0.0);
    assert_eq!(cellar.answers.next_due(), Some(cellar.at(40)));
    cellar.answers.refresh("public", cellar.at(30));
    assert_eq!(cellar.answers.next_due(), Some(cellar.at(30)));
    let key = cellar.answers.due(cellar.at(30)).unwrap();
    cellar.answers.begin(&key, cellar.at(30));
    cellar.ends(31, good("203.0.113.7"));
    cellar.answers.refresh("public", cellar.at(32));
    assert_eq!(cellar.answers.next_due(), Some(cellar.at(35)), "at most once in five seconds");
}

#[test]
fn each_source_has_its_own_last_good_answer() {
    let mut cellar = Cellar::new();
    let (terms, _) = cellar.answers.sources["public"].clone();
    let keys = BTreeSet::from([cellar.key.as_ref().clone()]);
    let policy = AddressPolicy { deny: vec!["203.0.113.8/32".parse().unwrap()], ..AddressPolicy::default() };
    let rules = rules();
    let strict = Terms { filter: Filter::new(&policy, &rules), ..terms };
    cellar.answers.use_by("strict", &strict, keys, &Cluster::default(), cellar.start);
    cellar.ends(1, good("203.0.113.7"));
    cellar.ends(2, good("203.0.113.8"));
    let read = |source: &str| cellar.answers.read(source, &cellar.key, &Cluster::default(), cellar.at(3)).effective;
    let ip = |text: &str| vec![text.parse::<IpAddr>().unwrap()];
    assert_eq!(read("public"), Effective::Fresh(ip("203.0.113.8")));
    assert!(matches!(read("strict"), Effective::Held(held, Why::Failing(_)) if held == ip("203.0.113.7")));
    let raw = cellar.answers.raw("strict", &cellar.key, cellar.at(3)).effective;
    assert_eq!(raw, Effective::Fresh(ip("203.0.113.8")), "a part of a merge is not refused");
}
