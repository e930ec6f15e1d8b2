use super::*;

fn owner(uid: &str) -> String {
    format!("{OURS}, ownerReferences: [{{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: {uid}}}]")
}

/// An address for claim a, as it was stored in this version.
fn stored(version: &str) -> IpAddress {
    let mut address = address("a", "10.0.0.10", &owner("c-a"));
    address.metadata.resource_version = Some(version.to_owned());
    address
}

/// Claim a is bound in this version, and its creation was sent twice, the first time without an answer.
fn sent_twice(version: &str) -> Given {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    let (slot, claim) = (given.slot("a"), Uid::new("c-a"));
    for _ in 0..2 {
        assert!(given.world.sends(slot, &claim, span("10.0.0.10")));
    }
    given.world.answered(slot, Uid::new("a-a"));
    let mut told = bound("a", "");
    told.metadata.resource_version = Some(version.to_owned());
    given.address(stored("5"));
    given.claim(told);
    given
}

fn is_ours_to_undo(given: &Given) -> bool {
    given.facts("a").address.unwrap().made_here
}

#[test]
fn what_a_claim_used_stays_when_the_claim_is_gone() {
    let mut given = sent_twice("6");
    given.claim_gone("a");
    assert!(!is_ours_to_undo(&given));
    let mut late = stored("8");
    late.metadata.uid = Some("a-late".to_owned());
    given.address_gone("a");
    given.address(late);
    assert!(is_ours_to_undo(&given));
}

#[test]
fn an_address_made_after_the_last_that_is_known_of_its_claim_was_used_by_nobody() {
    let mut given = sent_twice("4");
    given.claim_gone("a");
    assert!(is_ours_to_undo(&given));
}

#[test]
fn what_was_sent_is_left_to_a_later_claim_that_our_view_does_not_show_yet() {
    let mut given = sent_twice("4");
    given.claim_gone("a");
    let mut adopted = address("a", "10.0.0.10", &owner("c-later"));
    adopted.metadata.resource_version = Some("9".to_owned());
    given.address(adopted);
    assert!(!is_ours_to_undo(&given));
}

#[test]
fn nothing_of_ours_is_on_its_way_to_a_claim_that_goes_with_its_address_in_view() {
    for claim_first in [false, true] {
        let mut given = Given::pool_of(1);
        let going =
            || bound("a", "deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [ipam.cluster.x-k8s.io/ReleaseAddress]");
        given.claim(bound("a", ""));
        given.allocate("a", Wish::Lowest).unwrap();
        let slot = given.slot("a");
        assert!(given.world.sends(slot, &Uid::new("c-a"), span("10.0.0.10")));
        given.world.answered(slot, Uid::new("a-a"));
        if claim_first {
            given.claim(going());
            assert!(given.world.is_bind_in_flight(slot) && given.facts("a").reservation.is_some());
            given.address(stored("1"));
        } else {
            given.address(stored("1"));
            given.claim(going());
        }
        assert!(!given.world.is_bind_in_flight(slot) && given.facts("a").reservation.is_none());
    }
}

#[test]
fn an_address_that_never_comes_into_view_keeps_its_value_from_nobody() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    let slot = given.slot("a");
    assert!(given.world.sends(slot, &Uid::new("c-a"), span("10.0.0.10")));
    given.world.answered(slot, Uid::new("a-a"));
    given.claim(bound("a", ""));
    assert_eq!(given.blue().ledger.reservations().count(), 1, "it will be in view shortly");
    given.claim_gone("a");
    assert_eq!(given.blue().ledger.reservations().count(), 0);
}

#[test]
fn a_claim_that_others_serve_now_may_use_what_was_sent() {
    let mut given = sent_twice("4");
    let elsewhere = "poolRef: {apiGroup: example.com, kind: OtherPool, name: blue}";
    given.claim(claim_of("a", "", elsewhere));
    assert!(!is_ours_to_undo(&given));
}

#[test]
fn a_later_claim_may_take_over_what_was_sent_for_an_earlier_one() {
    let mut given = sent_twice("4");
    let mut later = claim("a", "");
    later.metadata.uid = Some("c-later".to_owned());
    given.claim(later.clone());
    let facts = given.facts("a").address.unwrap();
    assert!(!facts.made_here && facts.repair.unwrap().untold);
    given.world.adopts(&Uid::new("c-later"));
    given.claim_gone("a");
    given.address(address("a", "10.0.0.10", &owner("c-later")));
    assert!(is_ours_to_undo(&given));
}

#[test]
fn a_claim_that_the_server_does_not_have_does_not_come_back() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.address(stored("2"));
    let slot = given.slot("a");
    given.world.bury(slot, &Uid::new("another"));
    assert!(given.facts("a").claim.is_some());
    given.world.bury(slot, &Uid::new("c-a"));
    given.claim(claim("a", ""));
    assert!(given.facts("a").claim.is_none());
}
