use api::externalip::AddressPolicy;

use super::*;
use crate::externalip::facts::Rules;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A source that uses one key, which was begun at the time that is returned.
fn begun(solver: Shared) -> (Answers, Arc<Key>, Instant) {
    let rules = Rules {
        allow_private: false,
        allow: Vec::new(),
        deny: Vec::new(),
        load_balancer_class: String::new(),
        external_dns_prefixes: Vec::new(),
        source_grace: Duration::ZERO,
        watch_filter: None,
    };
    let filter = Filter::new(&AddressPolicy::default(), &rules);
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
