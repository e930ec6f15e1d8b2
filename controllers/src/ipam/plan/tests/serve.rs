//! Rows 8 to 13: from a taken name to a published address.

use serde_json::json;

use super::*;

const AGES: Duration = Duration::from_secs(100);

/// What a plan that tells of a refusal looks like before it has lasted.
fn silent(row: Row, place: Place, waiting: Waiting) -> Plan {
    Plan { waiting: Some(waiting), ..Plan::new(row, place, Vec::new()).within(seconds(1)) }
}

fn contest(published: bool, fresh: bool, elder: bool) -> Contest {
    Contest { holder: "team-b/db-0".to_owned(), published, behind: true, fresh, elder }
}

// Row 8

#[test]
fn an_address_of_that_name_that_is_somebody_elses_is_told_and_never_touched() {
    let other = Relation::Other("belongs to another pool".to_owned());
    let given = Given::live().address(|address| address.relation = other);
    let text = "the name is taken: IPAddress team-a/web-0 belongs to another pool";
    let mut expected = silent(Row::NameTaken, Place::Drop, Waiting::Refused);
    expected.steps = vec![event(EventReason::AddressNameTaken, text)];
    assert_eq!(given.plan(), expected);
    let lasting = given.waits(Waiting::Refused, AGES);
    expected.steps = lasting.tells(ClaimReason::AllocationFailed, EventReason::AllocationFailed, text);
    expected.recheck = None;
    assert_eq!(lasting.plan(), expected);
}

#[test]
fn a_claim_whose_name_is_taken_gets_our_finalizer_all_the_same() {
    let other = Relation::Other("belongs to another pool".to_owned());
    let given = Given::live().unprotected().address(|address| address.relation = other);
    assert_eq!(given.plan().steps[0], protect());
}

// Row 9

fn earlier() -> Given {
    Given::live().address(|address| {
        (address.relation, address.deleting, address.claim_uid) = (Relation::Another, Some(NOW - 5), Some(Uid::new("c0")));
    })
}

#[test]
fn an_earlier_claims_address_is_waited_for_and_let_go_as_an_orphan() {
    let mut expected = silent(Row::EarlierAddress, Place::Drop, Waiting::Refused);
    let orphan =
        Step::ReleaseOrphan { uid: Uid::new("a1"), finalizers: texts(&[PROTECT_ADDRESS]), claim_uid: Some(Uid::new("c0")) };
    expected.steps = vec![orphan];
    assert_eq!(earlier().plan(), expected);
    expected.steps.clear();
    assert_eq!(earlier().pool(|pool| pool.kind = PoolKind::GlobalInClusterIPPool).plan(), expected);
}

#[test]
fn an_earlier_claims_address_has_the_pools_grace() {
    let given = earlier().pool(|pool| pool.grace = seconds(300)).waits(Waiting::Refused, AGES);
    let text = "the address 10.0.0.10/24 of an earlier claim of this name is still being deleted";
    let mut expected = silent(Row::EarlierAddress, Place::Drop, Waiting::Refused).within(seconds(295));
    expected.steps = given.tells(ClaimReason::AllocationFailed, EventReason::AllocationFailed, text);
    assert_eq!(given.plan(), expected);
}

// Row 10

#[test]
fn an_incomplete_address_is_completed_before_anything_else_and_beside_the_finalizer() {
    let repair = Repair {
        owners: None,
        finalizers: Some(texts(&[PROTECT_ADDRESS])),
        labels: Vec::new(),
        untold: false,
        changes_owner: false,
    };
    let step = Step::Repair { revision: Revision::new("8"), repair: repair.clone() };
    let given =
        Given::live().address(|address| (address.repair, address.contest) = (Some(repair), Some(contest(true, true, true))));
    assert_eq!(given.plan(), Plan::new(Row::Repair, Place::Drop, vec![step.clone()]));
    assert_eq!(given.clone().unprotected().plan().steps, [protect(), step]);
    assert_eq!(given.bound().row(), Row::Repair);
}

#[test]
fn a_claim_is_protected_before_its_address_is_published() {
    let expected = Plan::new(Row::Protect, Place::Drop, vec![protect()]);
    assert_eq!(Given::live().unprotected().own_address().plan(), expected);
    assert_eq!(Given::live().bound().unprotected().address(|_| ()).plan(), expected);
}

// Row 11

#[test]
fn both_conditions_and_the_address_are_published_in_one_write() {
    let patch = json!({
        "metadata": {"resourceVersion": "7"},
        "status": {
            "addressRef": {"name": "web-0"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AddressAllocated", "message": "allocated 10.0.0.10/24",
                "observedGeneration": 1, "lastTransitionTime": "1970-01-01T02:46:40Z",
            }],
            "deprecated": {"v1beta1": {"conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T02:46:40Z"},
            ]}},
        },
    });
    let publish = |made| {
        let (patch, text) = (patch.clone(), "10.0.0.10/24".to_owned());
        vec![Step::Publish { patch, revision: Revision::new("7"), bound: true, text, made }]
    };
    assert_eq!(Given::live().own_address().plan(), Plan::new(Row::Publish, Place::Drop, publish(true)));
    assert_eq!(Given::live().address(|_| ()).plan(), Plan::new(Row::Publish, Place::Drop, publish(false)));
}

#[test]
fn a_published_claim_needs_nothing() {
    assert_eq!(Given::live().bound().address(|_| ()).plan(), Plan::new(Row::Settled, Place::Drop, Vec::new()));
}

#[test]
fn a_claim_that_another_provider_bound_gets_its_conditions_without_news() {
    let given = Given::live().claim(|claim| claim.bound = true).address(|_| ());
    let steps = given.plan().steps;
    assert!(matches!(&steps[..], [Step::Publish { bound: false, .. }]), "{steps:?}");
}

#[test]
fn a_bound_claim_whose_address_came_back_with_another_value_is_told() {
    let given = Given::live().bound().address(|address| address.text = "10.0.0.11/24".to_owned());
    let plan = given.plan();
    assert_eq!(plan.row, Row::Publish);
    let text = "allocated 10.0.0.11/24; before: allocated 10.0.0.10/24";
    assert_eq!(plan.steps[0], event(EventReason::AddressChanged, text));
    assert!(matches!(&plan.steps[1..], [Step::Publish { bound: false, .. }]), "{plan:?}");
}

#[test]
fn deleting_a_bound_address_by_hand_changes_nothing_until_the_claim_goes() {
    assert_eq!(Given::live().bound().address(|address| address.deleting = Some(NOW)).row(), Row::Settled);
}

// Section 8

#[test]
fn a_fresh_address_that_did_not_provably_come_first_is_deleted() {
    let conflict = event(EventReason::AddressConflict, "10.0.0.10/24 is already held by team-b/db-0");
    let lost = Plan::new(Row::Lost, Place::Drop, vec![give_up_step(), conflict, delete_step(Deletion::Lost)]);
    for rival in [contest(false, false, false), contest(true, false, false), contest(false, true, true)] {
        let given = Given::live().address(|address| (address.fresh, address.contest) = (true, Some(rival)));
        assert_eq!(given.plan(), lost);
    }
}

#[test]
fn a_fresh_address_whose_order_nobody_here_can_prove_is_left_to_a_manager_that_may_publish_it() {
    let given = || {
        let unproven = Contest { behind: false, ..contest(false, true, true) };
        Given::live().address(|address| (address.fresh, address.contest) = (true, Some(unproven)))
    };
    let expected =
        Plan { waiting: Some(Waiting::Order), ..Plan::new(Row::Contested, Place::Drop, Vec::new()).within(seconds(30)) };
    assert_eq!(given().plan(), expected);
    assert_eq!(given().waits(Waiting::Order, seconds(20)).plan().recheck, Some(seconds(10)));
    assert_eq!(given().waits(Waiting::Order, seconds(30)).row(), Row::Lost);
}

#[test]
fn a_fresh_address_that_is_deleting_already_is_not_published_even_if_its_rival_is_gone() {
    let given = Given::live().own_address().address(|address| address.deleting = Some(NOW));
    let lost = Plan::new(Row::Lost, Place::Drop, vec![give_up_step(), delete_step(Deletion::Lost)]);
    assert_eq!(given.plan(), lost);
    assert_eq!(given.address(|address| address.contest = Some(contest(false, true, false))).plan(), lost);
}

#[test]
fn an_address_that_was_given_up_is_deleted_whoever_may_be_able_to_prove_that_it_came_first() {
    let given = Given::live().own_address().claim(|claim| claim.lost = Some(Uid::new("a1")));
    assert_eq!(given.plan(), Plan::new(Row::Lost, Place::Drop, vec![delete_step(Deletion::Lost)]));
    let next = Given::live().own_address().claim(|claim| claim.lost = Some(Uid::new("a0")));
    assert_eq!(next.row(), Row::Publish);
}

#[test]
fn an_unpublished_address_that_we_did_not_make_is_kept_but_not_published_beside_a_rival() {
    let text = "10.0.0.10/24 is already held by team-b/db-0";
    for rival in [contest(true, false, false), contest(false, true, false), contest(false, false, true)] {
        let given = Given::live().address(|address| address.contest = Some(rival));
        let mut expected = silent(Row::Contested, Place::Drop, Waiting::Refused);
        expected.steps = vec![event(EventReason::AddressConflict, text)];
        assert_eq!(given.plan(), expected);
        let lasting = given.waits(Waiting::Refused, AGES);
        expected.steps = lasting.tells(ClaimReason::AllocationFailed, EventReason::AllocationFailed, text);
        expected.recheck = None;
        assert_eq!(lasting.plan(), expected);
    }
}

#[test]
fn of_two_unpublished_addresses_that_we_did_not_make_the_elder_is_published() {
    assert_eq!(Given::live().address(|address| address.contest = Some(contest(false, false, false))).row(), Row::Publish);
}

#[test]
fn a_published_address_stays_whoever_else_holds_its_value() {
    let given = Given::live().bound().address(|address| address.contest = Some(contest(true, true, true)));
    assert_eq!(given.plan(), Plan::new(Row::Settled, Place::Drop, Vec::new()));
}

#[test]
fn an_address_made_anew_for_a_bound_claim_must_prove_itself() {
    let given = Given::live().bound().own_address().address(|address| address.contest = Some(contest(false, true, true)));
    assert_eq!(given.row(), Row::Lost);
}

// Row 12

#[test]
fn a_pool_that_is_not_ready_says_which_and_why() {
    let cases = [
        (Given::live().no_pool(), "InClusterIPPool blue does not exist"),
        (Given::live().pool(|pool| pool.deleting = true), "InClusterIPPool blue is being deleted"),
        (
            Given::live().pool(|pool| pool.trouble = Some("invalid spec: spec.addresses: nothing".to_owned())),
            "InClusterIPPool blue: invalid spec: spec.addresses: nothing",
        ),
    ];
    for (given, text) in cases {
        let mut expected = silent(Row::PoolNotReady, Place::Leave, Waiting::Pool);
        assert_eq!(given.plan(), expected);
        expected.steps = vec![protect()];
        assert_eq!(given.clone().unprotected().plan(), expected);
        let lasting = given.waits(Waiting::Pool, seconds(1));
        expected.steps = lasting.tells(ClaimReason::PoolNotReady, EventReason::PoolNotReady, text);
        expected.recheck = None;
        assert_eq!(lasting.plan(), expected);
        expected.steps.clear();
        assert_eq!(lasting.told(ClaimReason::PoolNotReady, text).plan(), expected);
    }
}

// Row 13

#[test]
fn wishes_go_from_named_to_former_to_remembered_to_lowest() {
    let all = Wishes {
        named: Some(Ok(span("10.0.0.1"))),
        former: Some(span("10.0.0.2")),
        remembered: Some(span("10.0.0.3")),
        collided: false,
    };
    let allocates = |wishes: Wishes, wish| {
        assert_eq!(Given::live().wishes(wishes).plan(), Plan::new(Row::Allocate, Place::Allocate(wish), Vec::new()));
    };
    allocates(all.clone(), Wish::Named(span("10.0.0.1")));
    let unnamed = Wishes { named: None, ..all.clone() };
    allocates(unnamed.clone(), Wish::Former(span("10.0.0.2")));
    allocates(Wishes { former: None, ..unnamed.clone() }, Wish::Remembered(span("10.0.0.3")));
    allocates(Wishes::default(), Wish::Lowest);
    // After a collision somewhere else is better, unless it must be that one value.
    allocates(Wishes { collided: true, ..unnamed }, Wish::Scattered);
    allocates(Wishes { collided: true, ..all }, Wish::Named(span("10.0.0.1")));
}

#[test]
fn a_value_that_is_only_preferred_gives_way_to_any_other() {
    for wish in [Wish::Former(span("10.0.0.2")), Wish::Remembered(span("10.0.0.3"))] {
        let given = Given::live().refused(wish, Denial::Held("team-b/db-0".to_owned()));
        assert_eq!(given.plan(), Plan::new(Row::Allocate, Place::Allocate(Wish::Lowest), Vec::new()));
    }
}

#[test]
fn a_reserved_value_is_created_with_the_finalizer_beside_it() {
    let given = Given::live().reserved(ReservationState::Unsent, 0);
    assert_eq!(given.plan(), Plan::new(Row::Bind, Place::Keep, vec![bind_step(&given, "10.0.0.10", None)]));
    let bare = given.unprotected();
    let write = ClaimWrite { revision: Revision::new("7"), finalizers: texts(&[RELEASE_ADDRESS]) };
    assert_eq!(bare.plan().steps, [bind_step(&bare, "10.0.0.10", Some(write))]);
}

#[test]
fn a_value_set_aside_is_given_back_when_another_one_is_asked_for() {
    let other = Wishes { named: Some(Ok(span("10.0.0.11"))), ..Wishes::default() };
    let given = Given::live().reserved(ReservationState::Unsent, 0).wishes(other);
    assert_eq!(given.plan().place, Place::Allocate(Wish::Named(span("10.0.0.11"))));
    let denied = given.refused(Wish::Named(span("10.0.0.11")), Denial::Held("team-b/db-0".to_owned()));
    assert_eq!(denied.plan().place, Place::QueueFor(span("10.0.0.11")));
    let same = Wishes { named: Some(Ok(span("10.0.0.10"))), ..Wishes::default() };
    assert_eq!(Given::live().reserved(ReservationState::Unsent, 0).wishes(same).row(), Row::Bind);
}

#[test]
fn a_full_pool_is_told_with_its_numbers_and_the_place_in_line_after_a_second_of_silence() {
    let given = Given::live().refused(Wish::Lowest, Denial::NoRoom);
    let mut expected = silent(Row::NoRoom, Place::Queue, Waiting::Room);
    assert_eq!(given.plan(), expected);
    let halfway = given.clone().waits(Waiting::Room, Duration::from_millis(600)).plan();
    assert_eq!(halfway, Plan { recheck: Some(Duration::from_millis(400)), ..expected.clone() });
    // Another wait before this one does not count.
    assert_eq!(given.clone().waits(Waiting::Pool, AGES).plan(), expected);
    let lasting = given.waits(Waiting::Room, seconds(1)).motion(|motion| motion.position = Some(3));
    let text = "InClusterIPPool blue has no free address: total 2, used 2, position 3 in the queue";
    expected.steps = lasting.tells(ClaimReason::PoolExhausted, EventReason::PoolExhausted, text);
    expected.recheck = None;
    assert_eq!(lasting.plan(), expected);
}

#[test]
fn a_step_forward_in_line_is_not_told() {
    let given = Given::live().refused(Wish::Lowest, Denial::NoRoom).waits(Waiting::Room, AGES);
    let told = given.told(ClaimReason::PoolExhausted, "position 7").motion(|motion| motion.position = Some(6));
    let expected = Plan { waiting: Some(Waiting::Room), ..Plan::new(Row::NoRoom, Place::Queue, Vec::new()) };
    assert_eq!(told.plan(), expected);
}

#[test]
fn a_waiting_claim_gets_our_finalizer_and_is_told_after_that_is_seen() {
    let given = Given::live().unprotected().refused(Wish::Lowest, Denial::NoRoom).waits(Waiting::Room, AGES);
    let expected = Plan { waiting: Some(Waiting::Room), ..Plan::new(Row::NoRoom, Place::Queue, vec![protect()]) };
    assert_eq!(given.plan(), expected);
}

#[test]
fn a_named_value_that_cannot_be_had_says_why() {
    use poolutil::{Family, Refusal};
    let value = span("10.0.0.11");
    let cases = [
        (Denial::Held("team-b/db-0".to_owned()), Place::QueueFor(value), "is held by team-b/db-0".to_owned()),
        (Denial::NoRoom, Place::QueueFor(value), "is not free".to_owned()),
    ];
    let refusals = [
        Refusal::WrongFamily(Family::V6),
        Refusal::WrongLength(64),
        Refusal::NotInPool,
        Refusal::Excluded,
        Refusal::Network,
        Refusal::Broadcast,
        Refusal::SubnetRouterAnycast,
        Refusal::Gateway,
    ];
    let refusals = refusals.map(|refusal| (Denial::NotAllocatable(refusal), Place::Leave, refusal.to_string()));
    for (denial, place, text) in cases.into_iter().chain(refusals) {
        let given = Given::live().refused(Wish::Named(value), denial).waits(Waiting::Refused, AGES);
        let text = format!("requested address 10.0.0.11 {text}");
        let mut expected = Plan::new(Row::Denied, place, Vec::new());
        expected.waiting = Some(Waiting::Refused);
        expected.steps = given.tells(ClaimReason::AllocationFailed, EventReason::AllocationFailed, &text);
        assert_eq!(given.plan(), expected);
    }
}

#[test]
fn a_wish_that_cannot_be_read_is_told_and_nothing_else_given() {
    let problem = "requested address \"x\": not an address".to_owned();
    let given = Given::live().wishes(Wishes { named: Some(Err(problem.clone())), ..Wishes::default() });
    assert_eq!(given.plan(), silent(Row::Denied, Place::Leave, Waiting::Refused));
    let lasting = given.waits(Waiting::Refused, AGES);
    assert_eq!(lasting.plan().steps, lasting.tells(ClaimReason::AllocationFailed, EventReason::AllocationFailed, &problem));
}

#[test]
fn what_the_api_server_refused_is_told_in_its_words_and_tried_again_later() {
    let words = "admission webhook denied the request";
    let given = Given::live().motion(|motion| motion.refusal = Some((words.to_owned(), seconds(250))));
    assert_eq!(given.plan(), silent(Row::Denied, Place::Leave, Waiting::Refused));
    let lasting = given.waits(Waiting::Refused, AGES);
    let mut expected = silent(Row::Denied, Place::Leave, Waiting::Refused).within(seconds(250));
    expected.steps = lasting.tells(ClaimReason::AllocationFailed, EventReason::AllocationFailed, words);
    assert_eq!(lasting.plan(), expected);
}

#[test]
fn an_address_that_vanished_with_a_move_is_not_made_again() {
    let given = Given::live().bound().motion(|motion| motion.moved = true);
    assert_eq!(given.plan(), Plan::leave(Row::Moving));
    assert_eq!(Given::live().address(|address| address.moving = true).plan(), Plan::leave(Row::Moving));
}

#[test]
fn an_answered_post_is_waited_for_then_the_watch_starts_over() {
    let given = Given::live().reserved(ReservationState::Answered, 3);
    assert_eq!(given.plan(), Plan::rest(Row::AwaitDelivery).within(seconds(7)));
    let bare = given.unprotected();
    assert_eq!(bare.plan(), Plan::new(Row::AwaitDelivery, Place::Keep, vec![protect()]).within(seconds(7)));
    let late = Given::live().reserved(ReservationState::Answered, 10);
    assert_eq!(late.plan(), Plan::new(Row::AwaitDelivery, Place::Keep, vec![Step::RestartWatch]).within(seconds(10)));
}

#[test]
fn a_post_without_an_answer_is_repeated_with_the_same_value() {
    let given = Given::live().reserved(ReservationState::Sent, 40).wishes(Wishes { collided: true, ..Wishes::default() });
    assert_eq!(given.plan(), Plan::new(Row::Bind, Place::Keep, vec![bind_step(&given, "10.0.0.10", None)]));
}

#[test]
fn a_post_without_an_answer_is_not_repeated_when_the_pool_goes() {
    for given in [Given::live().no_pool(), Given::live().pool(|pool| pool.deleting = true)] {
        let sent = given.reserved(ReservationState::Sent, 40);
        assert_eq!(sent.plan(), Plan::rest(Row::ReleaseAwaitsAnswer).within(seconds(35)));
    }
}
