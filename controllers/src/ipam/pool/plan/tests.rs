//! The rules of pools: finalizer, numbers, conditions, pace, events, memory. Facts are built in one place.

use api::PoolKind;

use super::*;
use crate::ipam::compact::{Revision, Uid};

const NOW: i64 = 10_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn counts(total: u128, used: usize, free: u128, out_of_range: usize) -> Counts {
    Counts { total: total.into(), used, free: free.into(), out_of_range, reserved: 0, parked: 0 }
}

/// Pool blue in team-a with our finalizer, ten values and three addresses, whose status was never written.
fn fresh() -> Facts {
    Facts {
        kind: PoolKind::InClusterIPPool,
        namespace: Some("team-a".to_owned()),
        name: "blue".to_owned(),
        uid: Uid::new("p1"),
        revision: Revision::new("5"),
        generation: 2,
        deleting: false,
        moving: false,
        finalizers: texts(&[PROTECT_POOL]),
        status: PoolStatus::default(),
        served: true,
        visible: true,
        invalid: None,
        trouble: None,
        counts: counts(10, 3, 7, 0),
        in_flight: false,
        waiting: 0,
        duplicates: Vec::new(),
        duplicate_count: 0,
        overlaps: Vec::new(),
        overlap_count: 0,
        memory: None,
        problems: Vec::new(),
        written: None,
        own_write_unseen: false,
        forgets_in: None,
    }
}

/// The same after its status was written, so long ago.
fn shown(ago: Duration) -> Facts {
    let mut facts = fresh();
    facts.status = shown_by(&facts).unwrap();
    facts.written = Some(ago);
    facts
}

const LONG_AGO: Duration = Duration::from_secs(100);

/// The status that the plan writes, if it does.
fn shown_by(facts: &Facts) -> Option<PoolStatus> {
    plan(facts, now()).steps.into_iter().find_map(|step| match step {
        Step::Show(status) => Some(*status),
        _ => None,
    })
}

fn events_of(facts: &Facts) -> Vec<(EventReason, String)> {
    let steps = plan(facts, now()).steps.into_iter();
    steps.filter_map(|step| if let Step::Event(reason, text) = step { Some((reason, text)) } else { None }).collect()
}

/// Status, reason and message of one condition in the status that the plan writes.
fn says(facts: &Facts, kind: PoolCondition) -> (String, String, String) {
    let status = shown_by(facts).unwrap();
    let found = status.conditions.into_iter().find(|condition| condition.type_ == kind.as_str()).unwrap();
    (found.status, found.reason, found.message)
}

fn said(status: &str, reason: PoolReason, message: &str) -> (String, String, String) {
    (status.to_owned(), reason.as_str().to_owned(), message.to_owned())
}

fn written(kind: PoolCondition, status: &str, reason: PoolReason) -> Condition {
    Condition {
        type_: kind.as_str().to_owned(),
        status: status.to_owned(),
        reason: reason.as_str().to_owned(),
        message: String::new(),
        observed_generation: Some(2),
        last_transition_time: Time(now()),
    }
}

#[test]
fn a_new_pool_gets_our_finalizer_before_its_first_status() {
    let mut facts = fresh();
    facts.finalizers = texts(&["other/x"]);
    let status = PoolStatus {
        ip_addresses: Some(AddressCounts { total: 10, free: 7, used: 3, out_of_range: 0 }),
        conditions: vec![
            written(PoolCondition::Ready, "True", PoolReason::PoolReady),
            written(PoolCondition::Exhausted, "False", PoolReason::AddressesAvailable),
            written(PoolCondition::Overlapping, "False", PoolReason::NoOverlap),
            written(PoolCondition::Conflicting, "False", PoolReason::NoDuplicates),
        ],
        observed_generation: Some(2),
        ip_addresses_exact: None,
    };
    let steps = vec![Step::Protect(texts(&["other/x", PROTECT_POOL])), Step::Show(Box::new(status))];
    assert_eq!(plan(&facts, now()), Plan { steps, recheck: None });
}

#[test]
fn a_status_that_says_it_all_is_not_written_again() {
    assert_eq!(plan(&shown(Duration::ZERO), now()), Plan { steps: Vec::new(), recheck: None });
}

#[test]
fn numbers_conditions_and_generation_go_out_together() {
    let mut facts = shown(LONG_AGO);
    (facts.counts, facts.generation) = (counts(10, 4, 7, 1), 3);
    let status = shown_by(&facts).unwrap();
    assert_eq!(status.ip_addresses, Some(AddressCounts { total: 10, free: 7, used: 4, out_of_range: 1 }));
    assert_eq!(status.observed_generation, Some(3));
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == Some(3)));
}

#[test]
fn a_new_generation_alone_is_written() {
    let mut facts = shown(LONG_AGO);
    facts.generation = 3;
    assert_eq!(shown_by(&facts).unwrap().observed_generation, Some(3));
}

#[test]
fn numbers_that_do_not_fit_are_capped_and_written_exactly_beside() {
    let mut facts = fresh();
    facts.counts = Counts { total: poolutil::Count::MAX, used: 1, free: u128::MAX.into(), ..Counts::default() };
    let status = shown_by(&facts).unwrap();
    assert_eq!(status.ip_addresses, Some(AddressCounts { total: i64::MAX, free: i64::MAX, used: 1, out_of_range: 0 }));
    let exact = ExactCounts {
        total: "340282366920938463463374607431768211456".to_owned(),
        free: "340282366920938463463374607431768211455".to_owned(),
    };
    assert_eq!(status.ip_addresses_exact, Some(exact));
}

#[test]
fn the_first_change_is_shown_at_once_and_further_ones_after_a_second() {
    let changed = |ago| {
        let mut facts = shown(ago);
        facts.counts = counts(10, 4, 6, 0);
        facts
    };
    assert!(shown_by(&changed(Duration::from_secs(1))).is_some());
    let rest = Plan { steps: Vec::new(), recheck: Some(Duration::from_millis(700)) };
    assert_eq!(plan(&changed(Duration::from_millis(300)), now()), rest);
    let mut forgetting = changed(Duration::from_millis(300));
    forgetting.forgets_in = Some(Duration::from_millis(200));
    assert_eq!(plan(&forgetting, now()).recheck, Some(Duration::from_millis(200)));
}

#[test]
fn a_pool_that_runs_full_or_is_not_full_any_more_shows_it_without_delay() {
    let mut facts = shown(Duration::ZERO);
    facts.counts = counts(10, 10, 0, 0);
    let full = shown_by(&facts).unwrap();
    assert!(turns(&facts.status, &full));
    facts.status = full;
    facts.counts = counts(10, 9, 1, 0);
    assert!(shown_by(&facts).is_some());
    assert!(turns(&PoolStatus::default(), &facts.status));
}

#[test]
fn the_numbers_of_a_deleting_pool_stay_while_its_conditions_follow() {
    let mut facts = shown(LONG_AGO);
    (facts.deleting, facts.counts) = (true, counts(10, 1, 9, 0));
    let status = shown_by(&facts).unwrap();
    assert_eq!(status.ip_addresses, facts.status.ip_addresses);
    let text = "waits for 1 addresses to be released";
    assert_eq!(says(&facts, PoolCondition::Ready), said("False", PoolReason::Deleting, text));
}

#[test]
fn a_deleting_pool_gets_no_finalizer_and_keeps_ours_while_it_has_addresses() {
    let mut facts = shown(Duration::ZERO);
    facts.deleting = true;
    assert_eq!(plan(&facts, now()).steps, []);
    facts.finalizers.clear();
    assert_eq!(plan(&facts, now()).steps, []);
}

#[test]
fn the_last_address_frees_a_deleting_pool_at_once_whoever_waits() {
    let mut facts = shown(Duration::ZERO);
    (facts.deleting, facts.waiting, facts.finalizers) = (true, 7, texts(&["other/x", PROTECT_POOL]));
    (facts.counts, facts.memory) = (counts(10, 0, 10, 0), Some("{}".to_owned()));
    assert_eq!(plan(&facts, now()).steps, [Step::Unprotect(texts(&["other/x", PROTECT_POOL]))]);
}

#[test]
fn a_pool_stays_while_an_address_may_be_on_its_way_or_hidden() {
    let mut facts = shown(Duration::ZERO);
    (facts.deleting, facts.counts) = (true, counts(10, 0, 10, 0));
    for (in_flight, visible) in [(true, true), (false, false)] {
        let facts = Facts { visible, in_flight, ..facts.clone() };
        assert!(!plan(&facts, now()).steps.iter().any(|step| matches!(step, Step::Unprotect(_))));
    }
}

#[test]
fn a_pool_that_moves_or_is_anothers_is_left_alone() {
    for (moving, served) in [(true, true), (false, false)] {
        let facts = Facts { moving, served, finalizers: Vec::new(), ..fresh() };
        assert_eq!(plan(&facts, now()).steps, []);
    }
}

#[test]
fn nothing_is_written_until_our_last_write_is_in_view() {
    let facts = Facts { own_write_unseen: true, ..fresh() };
    assert_eq!(plan(&facts, now()), Plan { steps: Vec::new(), recheck: Some(Duration::from_secs(10)) });
}

#[test]
fn memory_is_written_before_the_status() {
    let facts = Facts { memory: Some("{\"web\":[]}".to_owned()), ..fresh() };
    let steps = plan(&facts, now()).steps;
    assert_eq!(steps[0], Step::Remember("{\"web\":[]}".to_owned()));
    assert!(matches!(steps[1], Step::Show(_)));
}

#[test]
fn ready_names_the_first_cause() {
    let trouble = Some("nothing is left".to_owned());
    let mut facts = Facts { trouble: trouble.clone(), ..fresh() };
    assert_eq!(says(&facts, PoolCondition::Ready), said("False", PoolReason::NoAllocatableAddresses, "nothing is left"));
    facts.visible = false;
    assert_eq!(says(&facts, PoolCondition::Ready), said("False", PoolReason::AddressesNotVisible, "nothing is left"));
    facts.invalid = Some("spec.addresses: bad".to_owned());
    assert_eq!(says(&facts, PoolCondition::Ready), said("False", PoolReason::InvalidSpec, "spec.addresses: bad"));
    facts.deleting = true;
    assert_eq!(says(&facts, PoolCondition::Ready).1, PoolReason::Deleting.as_str());
}

#[test]
fn an_invalid_spec_is_an_event_once() {
    let mut facts = shown(LONG_AGO);
    facts.invalid = Some("spec.addresses: bad".to_owned());
    assert_eq!(events_of(&facts), [(EventReason::InvalidSpec, "spec.addresses: bad".to_owned())]);
    facts.status = shown_by(&facts).unwrap();
    facts.counts = counts(0, 3, 0, 0);
    assert_eq!(events_of(&facts).iter().filter(|(reason, _)| *reason == EventReason::InvalidSpec).count(), 0);
}

#[test]
fn exhaustion_is_told_with_those_who_wait_and_its_end_as_well() {
    let mut facts = shown(LONG_AGO);
    (facts.counts, facts.waiting) = (counts(10, 10, 0, 0), 3);
    let text = "no address is free, claims waiting: 3";
    assert_eq!(says(&facts, PoolCondition::Exhausted), said("True", PoolReason::NoFreeAddresses, text));
    assert_eq!(events_of(&facts), [(EventReason::NoFreeAddresses, text.to_owned())]);
    facts.status = shown_by(&facts).unwrap();
    facts.waiting = 4;
    assert_eq!(events_of(&facts), [], "one more who waits is no news");
    facts.counts = counts(10, 9, 1, 0);
    assert_eq!(says(&facts, PoolCondition::Exhausted), said("False", PoolReason::AddressesAvailable, ""));
    assert_eq!(events_of(&facts), [(EventReason::CapacityAvailable, "addresses are free again".to_owned())]);
}

#[test]
fn overlaps_are_told_on_each_change_with_the_first_partners() {
    let mut facts = shown(LONG_AGO);
    (facts.overlaps, facts.overlap_count) = (texts(&["InClusterIPPool a/b at 1-2"]), 1);
    let text = "overlaps InClusterIPPool a/b at 1-2";
    assert_eq!(says(&facts, PoolCondition::Overlapping), said("True", PoolReason::OverlapsOtherPool, text));
    assert_eq!(events_of(&facts), [(EventReason::PoolsOverlap, text.to_owned())]);
    facts.status = shown_by(&facts).unwrap();
    (facts.overlaps, facts.overlap_count) = (texts(&["x", "y", "z"]), 5);
    assert_eq!(events_of(&facts), [(EventReason::PoolsOverlap, "overlaps x, y, z and 2 more".to_owned())]);
    facts.status = shown_by(&facts).unwrap();
    facts.overlap_count = 0;
    assert_eq!(says(&facts, PoolCondition::Overlapping), said("False", PoolReason::NoOverlap, ""));
    assert_eq!(events_of(&facts), []);
}

#[test]
fn values_held_twice_are_told_with_their_holders() {
    let mut facts = shown(LONG_AGO);
    (facts.duplicates, facts.duplicate_count) = (texts(&["10.0.0.1 (a/x, a/y)"]), 2);
    let text = "held more than once: 10.0.0.1 (a/x, a/y) and 1 more";
    assert_eq!(says(&facts, PoolCondition::Conflicting), said("True", PoolReason::DuplicateAddresses, text));
    assert_eq!(events_of(&facts), [(EventReason::DuplicateAddresses, text.to_owned())]);
}

#[test]
fn a_bad_annotation_is_told_and_stops_nothing() {
    let facts = Facts { problems: texts(&["pre-allocations: a: \"x\": bad"]), ..fresh() };
    let event = (EventReason::InvalidSpec, "ignored: pre-allocations: a: \"x\": bad".to_owned());
    assert_eq!(events_of(&facts), [event]);
    assert!(shown_by(&facts).is_some());
}

#[test]
fn a_condition_keeps_its_time_until_it_turns() {
    let mut facts = shown(LONG_AGO);
    let later = Timestamp::from_second(NOW + 60).unwrap();
    facts.counts = counts(10, 10, 0, 0);
    let Some(Step::Show(status)) = plan(&facts, later).steps.into_iter().next() else { unreachable!("it is written") };
    let times = status.conditions.iter().map(|condition| condition.last_transition_time.0.as_second() - NOW);
    assert_eq!(times.collect::<Vec<_>>(), [0, 60, 0, 0]);
}

#[test]
fn conditions_of_others_keep_their_places_and_are_not_applied_as_ours() {
    let mut facts = shown(LONG_AGO);
    let foreign = Condition { type_: "Audited".to_owned(), ..written(PoolCondition::Ready, "True", PoolReason::PoolReady) };
    facts.status.conditions.insert(1, foreign.clone());
    assert_eq!(plan(&facts, now()).steps, []);
    facts.counts = counts(10, 4, 6, 0);
    let status = shown_by(&facts).unwrap();
    assert_eq!((&status.conditions[1], status.conditions.len()), (&foreign, 5));
    let ours: Vec<String> = ours(&status).conditions.into_iter().map(|condition| condition.type_).collect();
    assert_eq!(ours, ["Ready", "Exhausted", "Overlapping", "Conflicting"]);
}
