//! Which claims are kept, in which order, and who wakes them.

use super::*;
use crate::ipam::compact::Revision;

const OTHERS: [&str; 3] = [
    "poolRef: {apiGroup: ipam.metal3.io, kind: InClusterIPPool, name: blue}",
    "poolRef: {apiGroup: ipam.cluster.x-k8s.io/v1alpha2, kind: InClusterIPPool, name: blue}",
    "poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: IPPool, name: blue}",
];

#[test]
fn claims_of_a_list_arrive_by_age_then_namespace_then_name() {
    let mut given = Given::nothing();
    let mut elsewhere = claim("b", "creationTimestamp: '2026-01-01T00:00:02Z'");
    elsewhere.metadata.namespace = Some("team-b".to_owned());
    given.claims_listed([
        elsewhere,
        claim("e", "creationTimestamp: '2026-01-01T00:00:03Z'"),
        claim("d", "creationTimestamp: '2026-01-01T00:00:02Z'"),
        claim("c", "creationTimestamp: '2026-01-01T00:00:02Z'"),
        claim("a", "creationTimestamp: '2026-01-01T00:00:01Z'"),
    ]);
    assert_eq!(given.woken(), ["a", "c", "d", "b", "e"]);
}

#[test]
fn live_claims_arrive_as_the_watch_delivers_them_and_keep_their_places() {
    let mut given = Given::nothing();
    given.claims_listed([claim("m", "creationTimestamp: '2026-01-01T00:00:09Z'")]);
    given.claim(claim("z", "creationTimestamp: '2026-01-01T00:00:01Z'"));
    given.claim(claim("a", "creationTimestamp: '2026-01-01T00:00:01Z'"));
    given.claim(claim("m", ""));
    let rank = |name| given.world.place(given.slot(name)).unwrap().rank;
    assert_eq!((rank("m"), rank("z"), rank("a")), (1, 2, 3));
    given.claims_listed([claim("a", ""), claim("m", ""), claim("z", "")]);
    given.woken();
    given.world.wake_all();
    assert_eq!(given.woken(), ["m", "z", "a"]);
}

#[test]
fn claims_get_values_in_the_order_of_their_passes() {
    let mut given = Given::pool_of(3);
    for name in ["b", "a"] {
        given.claim(claim(name, ""));
    }
    assert_eq!(given.allocate("b", Wish::Lowest), Ok("10.0.0.10".to_owned()));
    assert_eq!(given.allocate("a", Wish::Lowest), Ok("10.0.0.11".to_owned()));
    // Asking again gives the same.
    assert_eq!(given.allocate("b", Wish::Lowest), Ok("10.0.0.10".to_owned()));
}

#[test]
fn claims_that_came_before_their_pool_are_planned_in_their_order_when_it_comes() {
    let mut given = Given::nothing();
    for name in ["x", "first", "second"] {
        given.claim(claim(name, ""));
    }
    // The place in memory of a claim that is gone is used again; the order is not that of places.
    given.claim_gone("x");
    let slot = given.slot("x");
    given.world.sweep(slot);
    given.claim(claim("third", ""));
    assert_eq!(given.slot("third"), slot);
    given.woken();
    assert_eq!(given.facts("first").pool, PoolFacts::Absent(IP_POOL, "blue".to_owned()));
    given.pool(pool("10.0.0.10", ""));
    assert_eq!(given.woken(), ["first", "second", "third"]);
}

#[test]
fn claims_of_other_providers_are_not_kept() {
    let mut given = Given::nothing();
    for spec in OTHERS {
        given.claim(claim_of("other", "", spec));
        given.claims_listed([claim_of("other", "", spec)]);
    }
    assert_eq!(given.world.find("team-a", "other"), None);
    assert_eq!(given.world.take_wakes(), []);
}

#[test]
fn a_claim_without_the_group_gets_an_event_and_nothing_else() {
    let mut given = Given::nothing();
    for spec in ["poolRef: {kind: InClusterIPPool, name: blue}", "poolRef: {apiGroup: '', kind: InClusterIPPool, name: blue}"] {
        given.claim(claim_of("bare", "", spec));
        let text = "spec.poolRef.apiGroup is missing: set it to ipam.cluster.x-k8s.io for kind InClusterIPPool";
        assert_eq!(given.notices(), [(EventReason::PoolGroupMissing, text.to_owned())]);
    }
    assert_eq!(given.world.find("team-a", "bare"), None);
    given.claim(claim_of("bare", "", "poolRef: {kind: IPPool, name: blue}"));
    assert_eq!(given.world.take_wakes(), []);
}

#[test]
fn only_claims_with_the_watch_filter_and_in_the_namespace_are_kept() {
    let filter = Scope { watch_filter: Some("x".to_owned()), ..Scope::default() };
    let mut given = Given::scoped(filter);
    given.claim(claim("bare", ""));
    given.claim(claim("other", "labels: {cluster.x-k8s.io/watch-filter: y}"));
    given.claim(claim("mine", "labels: {cluster.x-k8s.io/watch-filter: x}"));
    assert_eq!(given.woken(), ["mine"]);
    // One that loses the label is let go of.
    given.claim(claim("mine", ""));
    assert_eq!(given.facts("mine").claim, None);

    let mut given = Given::scoped(Scope { namespace: Some("team-b".to_owned()), ..Scope::default() });
    given.claim(claim("a", ""));
    assert_eq!(given.woken(), [] as [&str; 0]);
}

#[test]
fn a_relist_notices_claims_that_are_gone() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.claim(claim("b", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    given.woken();
    given.claims_listed([claim("b", "")]);
    assert_eq!(given.facts("a").claim, None);
    assert_eq!(given.reserved("a"), None);
    assert!(given.woken().contains(&"a".to_owned()));
    assert_eq!(given.allocate("b", Wish::Lowest), Ok("10.0.0.10".to_owned()));
}

#[test]
fn a_successor_of_the_same_name_starts_from_nothing() {
    let mut given = Given::pool_of(1);
    given.claim(claim("old", ""));
    given.claim(claim("full", ""));
    given.allocate("full", Wish::Lowest).unwrap();
    given.take("old", Standing::Queue);
    let slot = given.slot("old");
    given.world.refused(slot, "no".to_owned(), Instant::now() + Duration::from_secs(300));
    given.world.waits_for(slot, Some(Waiting::Room));
    given.claim(claim("next", ""));
    given.take("next", Standing::Queue);
    // A re-list shows another claim under the name: the deletion in between was not seen.
    let mut successor = claim("old", "");
    successor.metadata.uid = Some("another".to_owned());
    given.claims_listed([successor, claim("full", ""), claim("next", "")]);
    let motion = given.facts("old").motion;
    assert_eq!((motion.refusal, motion.waiting, motion.position), (None, None, None));
    given.take("old", Standing::Queue);
    given.claim_gone("full");
    assert_eq!((given.reserved("next"), given.reserved("old")), (Some("10.0.0.10".to_owned()), None));
}

#[test]
fn a_successor_on_another_pool_leaves_the_first_ones_queue() {
    let mut given = Given::pool_of(1);
    given.claim(claim("full", ""));
    given.claim(claim("a", ""));
    given.allocate("full", Wish::Lowest).unwrap();
    given.take("a", Standing::Queue);
    let spec = "poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: green}";
    let mut successor = claim_of("a", "", spec);
    successor.metadata.uid = Some("another".to_owned());
    given.claim(successor);
    assert_eq!(given.blue().ledger.waiting(), 0);
    given.claim_gone("full");
    assert_eq!(given.blue().ledger.reservations().count(), 0);
}

#[test]
fn a_name_without_anything_under_it_is_forgotten() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    let slot = given.slot("a");
    given.world.sweep(slot);
    assert_eq!(given.world.find("team-a", "a"), Some(slot));
    given.claim_gone("a");
    given.world.sweep(slot);
    assert_eq!(given.world.find("team-a", "a"), None);
}

#[test]
fn a_name_whose_post_may_still_take_effect_is_kept_with_its_reservation() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    let slot = given.slot("a");
    assert!(given.world.sends(slot, &Uid::new("c-a"), span("10.0.0.10")));
    given.claim_gone("a");
    given.world.sweep(slot);
    assert_eq!(given.facts("a").reservation.map(|held| held.state), Some(ReservationState::Sent));
    given.world.not_made(slot);
    given.world.sweep(slot);
    assert_eq!(given.world.find("team-a", "a"), None);
    assert_eq!(given.blue().ledger.reservations().count(), 0);
}

#[test]
fn nothing_is_sent_for_a_claim_that_has_gone_or_whose_value_another_has() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    let (slot, value) = (given.slot("a"), span("10.0.0.10"));
    assert!(!given.world.sends(slot, &Uid::new("an-earlier-one"), value));
    given.claim_gone("a");
    given.claim(claim("b", ""));
    given.allocate("b", Wish::Lowest).unwrap();
    assert!(!given.world.sends(slot, &Uid::new("c-a"), value));
    given.claim(claim("a", ""));
    assert!(!given.world.sends(slot, &Uid::new("c-a"), value), "the value is set aside for the other one");
    let other = given.slot("b");
    assert!(given.world.sends(other, &Uid::new("c-b"), value));
}

#[test]
fn a_cluster_is_found_by_spec_then_by_label_and_an_empty_name_is_none() {
    let pool = "poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: blue}";
    let label = |value: &str| format!("labels: {{cluster.x-k8s.io/cluster-name: '{value}'}}");
    let cases = [
        ("", pool.to_owned(), ClusterFacts::Unnamed, None),
        (&label("")[..], pool.to_owned(), ClusterFacts::Unnamed, None),
        (&label("red")[..], pool.to_owned(), ClusterFacts::Missing("red".to_owned()), Some("red")),
        (&label("red")[..], format!("clusterName: green, {pool}"), ClusterFacts::Missing("green".to_owned()), Some("red")),
        (&label("")[..], format!("clusterName: green, {pool}"), ClusterFacts::Missing("green".to_owned()), Some("green")),
        (&label("red")[..], format!("clusterName: '', {pool}"), ClusterFacts::Missing("red".to_owned()), Some("red")),
    ];
    for (more, spec, cluster, label) in cases {
        let mut given = Given::nothing();
        given.claim(claim_of("a", more, &spec));
        let facts = given.facts("a");
        assert_eq!((facts.cluster, facts.claim.unwrap().cluster_label.as_deref()), (cluster, label), "{more} {spec}");
    }
}

#[test]
fn a_cluster_wakes_its_claims_of_its_namespace_when_it_comes_pauses_and_goes() {
    let mut given = Given::nothing();
    let more = "labels: {cluster.x-k8s.io/cluster-name: red}";
    let mut elsewhere = claim("elsewhere", more);
    elsewhere.metadata.namespace = Some("team-b".to_owned());
    given.claim(elsewhere);
    given.claim(claim("mine", more));
    given.claim(claim("other", ""));
    given.woken();
    let mut expect = |change: &dyn Fn(&mut Given), facts, woken: &[&str]| {
        change(&mut given);
        assert_eq!(given.facts("mine").cluster, facts);
        assert_eq!(given.woken(), woken);
    };
    expect(&|given| given.cluster(cluster("red", "", false)), ClusterFacts::Running, &["mine"]);
    expect(&|given| given.cluster(cluster("red", "labels: {a: b}", false)), ClusterFacts::Running, &[]);
    expect(&|given| given.cluster(cluster("red", "", true)), ClusterFacts::Paused, &["mine"]);
    let annotated = "annotations: {cluster.x-k8s.io/paused: ''}";
    expect(&|given| given.cluster(cluster("red", annotated, false)), ClusterFacts::Paused, &[]);
    expect(&|given| given.cluster(cluster("red", "", false)), ClusterFacts::Running, &["mine"]);
    expect(&|given| given.clusters_listed([]), ClusterFacts::Missing("red".to_owned()), &["mine"]);
}

#[test]
fn what_holds_a_claim_up_is_seen_at_once() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", "labels: {cluster.x-k8s.io/cluster-name: red}"));
    given.cluster(cluster("red", "", false));
    let slot = given.slot("a");
    let free = given.world.holds(slot);
    let paused = "annotations: {cluster.x-k8s.io/paused: ''}";
    let mut held = Vec::new();
    given.cluster(cluster("red", "", true));
    held.push(given.world.holds(slot));
    given.cluster(cluster("red", "", false));
    given.pool(pool("10.0.0.10", paused));
    held.push(given.world.holds(slot));
    given.pool(pool("10.0.0.10", ""));
    given.claim(claim("a", &format!("labels: {{cluster.x-k8s.io/cluster-name: red}}, {paused}")));
    held.push(given.world.holds(slot));
    assert!(held.iter().all(|holds| *holds != free), "{held:?}");
    given.claim(claim("a", "labels: {cluster.x-k8s.io/cluster-name: red}"));
    assert_eq!(given.world.holds(slot), free);
}

#[test]
fn a_request_that_comes_after_the_address_is_told_once() {
    let mut given = Given::pool_of(2);
    given.claim(bound("a", ""));
    given.notices();
    let asking = "annotations: {in-cluster.ipam.cluster.x-k8s.io/requested-address: 10.0.0.11}";
    given.claim(bound("a", asking));
    let text = "the requested address 10.0.0.11 is ignored: the claim is bound already";
    assert_eq!(given.notices(), [(EventReason::RequestedAddressIgnored, text.to_owned())]);
    given.claim(bound("a", asking));
    assert_eq!(given.notices(), []);
}

#[test]
fn conditions_come_back_byte_for_byte() {
    let ready = "{type: Ready, status: 'True', reason: AddressAllocated, message: allocated 10.0.0.10/24, observedGeneration: 1,
                  lastTransitionTime: '2026-01-01T00:00:00Z'}";
    let legacy = "{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z'}";
    let other = "{type: Paused, status: 'False', reason: X, message: y, lastTransitionTime: '2026-01-01T00:00:00Z', extra: 7}";
    let late = "{type: Ready, status: 'True', lastTransitionTime: '2026-01-01T00:00:00.5Z'}";
    let statuses = [
        "{}".to_owned(),
        format!("{{conditions: [{ready}], deprecated: {{v1beta1: {{conditions: [{legacy}]}}}}}}"),
        format!("{{conditions: [{other}, {ready}], deprecated: {{v1beta1: {{conditions: [{legacy}, {other}]}}}}}}"),
        format!("{{conditions: [{ready}]}}"),
        format!("{{conditions: [{ready}], deprecated: {{v1beta1: {{conditions: [{late}]}}}}}}"),
    ];
    for status in statuses {
        let mut given = Given::nothing();
        let mut object = claim("a", "");
        object.status = read(&status);
        let conditions = api::capi::ClaimConditions::of(&object, CapiVersion::V1beta2);
        given.claim(object);
        assert_eq!(given.facts("a").claim.unwrap().conditions, conditions, "{status}");
    }
}

#[test]
fn what_a_claim_waits_for_keeps_its_beginning() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    let slot = given.slot("a");
    given.world.waits_for(slot, Some(Waiting::Room));
    let since = given.world.entry(slot).unwrap().motion.as_ref().unwrap().waiting;
    given.world.waits_for(slot, Some(Waiting::Room));
    assert_eq!(given.world.entry(slot).unwrap().motion.as_ref().unwrap().waiting, since);
    given.world.waits_for(slot, None);
    assert_eq!(given.facts("a").motion.waiting, None);
}

#[test]
fn our_own_write_is_waited_for_until_another_version_is_seen() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    let slot = given.slot("a");
    given.world.wrote_claim(slot, &Revision::new("1"));
    assert!(given.facts("a").motion.own_write_unseen);
    given.claim(claim("a", ""));
    assert!(given.facts("a").motion.own_write_unseen, "the same version again");
    let mut newer = claim("a", "");
    newer.metadata.resource_version = Some("2".to_owned());
    given.claim(newer);
    assert!(!given.facts("a").motion.own_write_unseen);
    // A view that is ahead already has nothing to wait for.
    given.world.wrote_claim(slot, &Revision::new("1"));
    assert!(!given.facts("a").motion.own_write_unseen);
}

#[test]
fn missing_conditions_get_one_turn_and_keep_it() {
    let mut given = Given::pool_of(3);
    given.claim(bound("web", ""));
    let (slot, world) = (given.slot("web"), &mut given.world);
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    assert_eq!(world.backfill_turn(slot, now, || second * 3), second * 3);
    assert_eq!(world.backfill_turn(slot, now + second, || second * 9), second * 2);
    assert_eq!(world.backfill_turn(slot, now + second * 4, || second * 9), Duration::ZERO);
}

#[test]
fn when_a_pool_shows_up_those_who_waited_for_it_come_before_any_other_even_in_the_middle_of_a_write() {
    let mut given = Given::nothing();
    for name in ["z", "a"] {
        given.claim(claim(name, ""));
    }
    let (elder, younger) = (given.slot("z"), given.slot("a"));
    assert!(given.world.take_unserved(younger).is_empty());
    given.world.wrote_claim(elder, &Revision::new("1"));
    given.pool(pool("10.0.0.10-10.0.0.12", ""));
    assert_eq!(given.world.take_unserved(younger), [elder, younger]);
    assert!(given.world.take_unserved(younger).is_empty());
}
