//! Addresses as the ledgers' only source: who holds what, in which order, and whose objects they are.

use super::*;

fn contest_of(given: &Given, name: &str) -> Option<(bool, bool, bool)> {
    let contest = given.facts(name).address.unwrap().contest?;
    Some((contest.published, contest.fresh, contest.elder))
}

#[test]
fn an_address_takes_its_value_and_gives_it_back_to_the_oldest_who_waits() {
    let mut given = Given::pool_of(1);
    given.address(address("held", "10.0.0.10", ""));
    for name in ["first", "second"] {
        given.claim(claim(name, ""));
        assert_eq!(given.allocate(name, Wish::Lowest), Err(Denial::NoRoom));
        given.take(name, Standing::Queue);
    }
    given.woken();
    given.address_gone("held");
    assert_eq!((given.reserved("first"), given.reserved("second")), (Some("10.0.0.10".to_owned()), None));
    let woken = given.woken();
    assert!(woken.contains(&"first".to_owned()) && !woken.contains(&"second".to_owned()), "{woken:?}");
}

#[test]
fn as_many_waiters_are_woken_as_values_came_free() {
    let mut given = Given::pool_of(1);
    given.address(address("held", "10.0.0.10", ""));
    for name in ["a", "b", "c", "d"] {
        given.claim(claim(name, ""));
        given.take(name, Standing::Queue);
    }
    given.woken();
    given.pool(pool("10.0.0.10-10.0.0.12", "generation: 2"));
    let reserved = ["a", "b", "c", "d"].map(|name| given.reserved(name));
    assert_eq!(reserved, [Some("10.0.0.11".to_owned()), Some("10.0.0.12".to_owned()), None, None]);
}

#[test]
fn a_waiter_for_one_value_is_served_first_and_blocks_nobody() {
    let mut given = Given::pool_of(2);
    given.address(address("x", "10.0.0.10", ""));
    given.address(address("y", "10.0.0.11", ""));
    for name in ["general", "picky"] {
        given.claim(claim(name, ""));
    }
    given.take("general", Standing::Queue);
    given.take("picky", Standing::QueueFor(span("10.0.0.11")));
    given.address_gone("y");
    assert_eq!((given.reserved("general"), given.reserved("picky")), (None, Some("10.0.0.11".to_owned())));
    given.address_gone("x");
    assert_eq!(given.reserved("general"), Some("10.0.0.10".to_owned()));
}

#[test]
fn a_waiter_that_begins_to_ask_for_one_value_changes_its_queue() {
    let mut given = Given::pool_of(2);
    given.address(address("x", "10.0.0.10", ""));
    given.address(address("y", "10.0.0.11", ""));
    given.claim(claim("a", ""));
    given.take("a", Standing::Queue);
    given.take("a", Standing::QueueFor(span("10.0.0.11")));
    given.address_gone("x");
    assert_eq!(given.reserved("a"), None);
    given.address_gone("y");
    assert_eq!(given.reserved("a"), Some("10.0.0.11".to_owned()));
}

#[test]
fn a_value_set_aside_is_given_up_for_the_one_that_is_asked_for() {
    let mut given = Given::pool_of(3);
    given.claim(claim("a", ""));
    given.claim(claim("b", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    given.allocate("b", Wish::Lowest).unwrap();
    assert_eq!(given.allocate("a", Wish::Named(span("10.0.0.12"))), Ok("10.0.0.12".to_owned()));
    assert_eq!(given.allocate("a", Wish::Named(span("10.0.0.11"))), Err(Denial::Held("team-a/b".to_owned())));
    assert_eq!(given.reserved("a"), None);
    // What was sent is not given up.
    let slot = given.slot("b");
    assert!(given.world.sends(slot, &Uid::new("c-b"), span("10.0.0.11")));
    assert_eq!(given.allocate("b", Wish::Named(span("10.0.0.10"))), Ok("10.0.0.11".to_owned()));
}

#[test]
fn a_relist_notices_addresses_that_are_gone() {
    let mut given = Given::pool_of(2);
    given.addresses_listed([address("a", "10.0.0.10", ""), address("b", "10.0.0.11", "")]);
    assert_eq!(given.blue().ledger.counts().used, 2);
    given.addresses_listed([address("b", "10.0.0.11", "")]);
    assert_eq!(given.blue().ledger.counts().used, 1);
    assert_eq!(given.facts("a").address, None);
}

#[test]
fn an_address_without_the_group_holds_its_value_and_matches_its_claim() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.address(address_of("a", "10.0.0.10", "", "kind: InClusterIPPool, name: blue"));
    assert_eq!(given.blue().ledger.counts().used, 1);
    assert_eq!(given.facts("a").address.unwrap().relation, Relation::Ours);
}

#[test]
fn an_address_of_another_provider_holds_nothing_and_is_not_ours_with_or_without_a_claim() {
    let mut given = Given::pool_of(1);
    let more = "deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [ipam.cluster.x-k8s.io/ProtectAddress]";
    given.address(address_of("a", "10.0.0.10", more, "apiGroup: ipam.metal3.io, kind: InClusterIPPool, name: blue"));
    assert_eq!(given.blue().ledger.counts().used, 0);
    let unclaimed = Relation::Other("is not looked after by this manager".to_owned());
    assert_eq!(given.facts("a").address.unwrap().relation, unclaimed);
    given.claim(claim("a", ""));
    assert_eq!(given.facts("a").address.unwrap().relation, Relation::Other("belongs to another pool".to_owned()));
}

#[test]
fn an_address_beyond_namespace_or_watch_filter_is_no_orphan_of_ours() {
    let going = "deletionTimestamp: '2026-01-01T00:00:00Z'";
    let labelled = "labels: {cluster.x-k8s.io/watch-filter: x}, deletionTimestamp: '2026-01-01T00:00:00Z'";
    let scope = |namespace: Option<&str>, filter: Option<&str>| Scope {
        namespace: namespace.map(ToOwned::to_owned),
        watch_filter: filter.map(ToOwned::to_owned),
    };
    let cases = [
        (scope(None, None), going, true),
        (scope(Some("team-a"), None), going, true),
        (scope(Some("team-b"), None), going, false),
        (scope(None, Some("x")), going, false),
        (scope(None, Some("x")), labelled, true),
    ];
    for (scope, more, ours) in cases {
        let mut given = Given::scoped(scope.clone());
        given.pool(pool("10.0.0.10", ""));
        given.address(address("a", "10.0.0.10", more));
        assert_eq!(given.facts("a").address.unwrap().relation == Relation::Ours, ours, "{scope:?}");
        assert_eq!(given.blue().orphans.len(), usize::from(ours), "{scope:?}");
        assert_eq!(given.blue().ledger.counts().used, 1, "it holds its value all the same");
    }
}

#[test]
fn orphans_are_deleting_addresses_whose_claim_is_gone() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.address(address("a", "10.0.0.10", "deletionTimestamp: '2026-01-01T00:00:00Z'"));
    assert_eq!(given.blue().orphans.len(), 0);
    given.claim_gone("a");
    assert_eq!(given.blue().orphans.len(), 1);
    given.woken();
    given.pool(pool("10.0.0.10", "generation: 2"));
    assert_eq!(given.woken(), ["a"], "a changed pool may change what becomes of it");
    given.address_gone("a");
    assert_eq!(given.blue().orphans.len(), 0);
}

#[test]
fn an_address_that_cannot_be_read_counts_as_used_is_told_and_stops_nobody() {
    let mut given = Given::pool_of(1);
    given.address(address("bad", "garbage", ""));
    let text = "\"garbage\" is no address; it is counted as used and protects nothing";
    assert_eq!(given.notices(), [(EventReason::UnparsableAddress, text.to_owned())]);
    given.claim(claim("a", ""));
    assert_eq!(given.allocate("a", Wish::Lowest), Ok("10.0.0.10".to_owned()));
    assert_eq!(given.blue().ledger.counts().used, 1);
}

#[test]
fn of_two_fresh_addresses_the_one_that_was_added_first_has_nothing_to_fear() {
    let mut given = Given::pool_of(1);
    for name in ["a", "b"] {
        given.claim(claim(name, ""));
        given.address(address(name, "10.0.0.10", OURS));
    }
    assert_eq!((contest_of(&given, "a"), contest_of(&given, "b")), (None, Some((false, true, false))));
    assert_eq!(given.facts("b").address.unwrap().contest.unwrap().holder, "team-a/a");
    // A re-list hides nothing that was known before.
    given.addresses_listed([address("b", "10.0.0.10", OURS), address("a", "10.0.0.10", OURS)]);
    assert_eq!((contest_of(&given, "a"), contest_of(&given, "b").is_some()), (None, true));
}

#[test]
fn the_order_within_a_list_proves_nothing() {
    let mut given = Given::pool_of(1);
    for name in ["a", "b"] {
        given.claim(claim(name, ""));
    }
    given.addresses_listed([address("a", "10.0.0.10", OURS), address("b", "10.0.0.10", OURS)]);
    assert_eq!((contest_of(&given, "a").is_some(), contest_of(&given, "b").is_some()), (true, true));
}

#[test]
fn what_is_added_live_came_after_everything_listed_but_a_relist_proves_nothing() {
    let mut given = Given::pool_of(1);
    for name in ["listed", "live", "relisted"] {
        given.claim(claim(name, ""));
    }
    given.addresses_listed([address("listed", "10.0.0.10", OURS)]);
    given.address(address("live", "10.0.0.10", OURS));
    assert_eq!((contest_of(&given, "listed"), contest_of(&given, "live").is_some()), (None, true));
    given.address_gone("listed");
    given.addresses_listed([address("live", "10.0.0.10", OURS), address("relisted", "10.0.0.10", OURS)]);
    assert_eq!((contest_of(&given, "live").is_some(), contest_of(&given, "relisted").is_some()), (true, true));
}

#[test]
fn an_address_created_anew_under_its_name_takes_a_new_place_in_the_order() {
    let mut given = Given::pool_of(1);
    for name in ["a", "b"] {
        given.claim(claim(name, ""));
        given.address(address(name, "10.0.0.10", OURS));
    }
    let mut anew = address("a", "10.0.0.10", OURS);
    anew.metadata.uid = Some("a-again".to_owned());
    given.address(anew);
    assert_eq!((contest_of(&given, "a").is_some(), contest_of(&given, "b")), (true, None));
}

#[test]
fn a_deleting_holder_counts_as_live() {
    let mut given = Given::pool_of(1);
    for name in ["a", "b"] {
        given.claim(claim(name, ""));
    }
    given.address(address("a", "10.0.0.10", &format!("{OURS}, deletionTimestamp: '2026-01-01T00:00:00Z'")));
    given.address(address("b", "10.0.0.10", OURS));
    assert!(contest_of(&given, "b").is_some());
}

#[test]
fn only_what_our_manager_wrote_and_nobody_was_told_of_is_fresh() {
    let moved = "managedFields: [{manager: clusterctl, operation: Update, fieldsV1: {f:spec: {}}},
                 {manager: ipam-in-cluster, operation: Update, fieldsV1: {f:metadata: {}}}]";
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.address(address("a", "10.0.0.10", OURS));
    assert!(given.facts("a").address.unwrap().fresh);
    given.claim(bound("a", ""));
    assert!(!given.facts("a").address.unwrap().fresh);
    for more in [moved, ""] {
        given.claim(claim("b", ""));
        given.address(address("b", "10.0.0.11", more));
        assert!(!given.facts("b").address.unwrap().fresh, "{more}");
    }
}

#[test]
fn what_was_made_again_with_our_managed_fields_is_not_fresh() {
    let with = |uid: &str| {
        format!(
            r#"ownerReferences: [{{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: {uid}}}],
               managedFields: [{{manager: ipam-in-cluster, operation: Update, fieldsV1: {{
                   f:spec: {{f:address: {{}}}},
                   f:metadata: {{f:ownerReferences: {{.: {{}}, 'k:{{"uid":"c-a"}}': {{}}}}}}}}}}]"#
        )
    };
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    for (owner, fresh) in [("c-a", true), ("c-new", false)] {
        given.address(address("a", "10.0.0.10", &with(owner)));
        assert_eq!(given.facts("a").address.unwrap().fresh, fresh, "{owner}");
    }
}

#[test]
fn what_this_process_posted_is_its_own_by_uid_or_by_its_claim_while_the_answer_is_out() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    let slot = given.slot("a");
    assert!(given.world.sends(slot, &Uid::new("c-a"), span("10.0.0.10")));
    let owner = "ownerReferences: [{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: c-a}]";
    given.address(address("a", "10.0.0.10", &format!("{OURS}, {owner}")));
    assert!(given.facts("a").address.unwrap().made_here);
    assert_eq!(given.reserved("a"), None, "the object has taken the reservation's place");
    given.world.answered(slot, Uid::new("somebody-elses"));
    assert!(!given.facts("a").address.unwrap().made_here);
    given.world.answered(slot, Uid::new("a-a"));
    assert!(given.facts("a").address.unwrap().made_here);
    given.world.published(slot);
    assert!(!given.facts("a").address.unwrap().made_here);
}

#[test]
fn unpublished_addresses_that_we_did_not_make_are_judged_by_age_not_by_the_watch() {
    let mut given = Given::pool_of(1);
    for name in ["young", "old"] {
        given.claim(claim(name, ""));
    }
    given.address(address("young", "10.0.0.10", "creationTimestamp: '2026-01-01T00:00:02Z'"));
    given.address(address("old", "10.0.0.10", "creationTimestamp: '2026-01-01T00:00:01Z'"));
    assert_eq!(contest_of(&given, "young"), Some((false, false, true)));
    assert_eq!(contest_of(&given, "old"), Some((false, false, false)));
    given.claim(bound("young", ""));
    assert_eq!(contest_of(&given, "old"), Some((true, false, false)), "a published one is published");
    assert_eq!(given.facts("old").address.unwrap().contest.unwrap().holder, "team-a/young");
}

#[test]
fn a_moved_address_does_not_wait_for_a_fresh_one_that_provably_came_later() {
    let mut given = Given::pool_of(1);
    for name in ["moved", "fresh"] {
        given.claim(claim(name, ""));
    }
    given.address(address("moved", "10.0.0.10", ""));
    given.address(address("fresh", "10.0.0.10", OURS));
    assert_eq!(contest_of(&given, "moved"), Some((false, false, false)));
    assert!(contest_of(&given, "fresh").is_some());
}

#[test]
fn a_bound_claim_remembers_the_value_of_an_address_that_vanished() {
    let mut given = Given::pool_of(1);
    given.claim(bound("a", ""));
    let owned = |uid: &str| {
        format!("ownerReferences: [{{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: {uid}}}]")
    };
    given.address(address("a", "10.0.0.11", &owned("c-earlier")));
    given.address_gone("a");
    assert_eq!(given.facts("a").wishes.former, None, "its own address may be late in our view");
    given.address(address("a", "10.0.0.10", &owned("c-a")));
    given.address_gone("a");
    assert_eq!(given.facts("a").wishes.former, Some(span("10.0.0.10")));
    assert!(!given.facts("a").motion.moved);
    let moving = "annotations: {clusterctl.cluster.x-k8s.io/delete-for-move: ''}";
    given.address(address("a", "10.0.0.10", &format!("{}, {moving}", owned("c-a"))));
    given.address_gone("a");
    assert!(given.facts("a").motion.moved);
}

#[test]
fn a_claim_is_bereft_only_when_the_api_server_has_said_so_while_it_goes() {
    let mut given = Given::pool_of(1);
    given.claim(bound("a", ""));
    let owner = "ownerReferences: [{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: c-a}]";
    given.address(address("a", "10.0.0.10", owner));
    let slot = given.slot("a");
    given.world.removed(slot, &Uid::new("a-a"), None);
    given.claim(bound("a", "deletionTimestamp: '2026-01-01T00:00:00Z'"));
    given.address_gone("a");
    assert!(
        !given.facts("a").motion.bereft,
        "what went may have lost to the address that was published, which is late in our view"
    );
    given.world.removed(slot, &Uid::new("a-a"), Some(&Uid::new("c-a")));
    assert!(given.facts("a").motion.bereft);
}

#[test]
fn an_address_we_deleted_is_not_built_on_until_that_is_seen() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", ""));
    given.address(address("a", "10.0.0.10", OURS));
    let slot = given.slot("a");
    given.world.deleted(slot, &Uid::new("another"));
    assert!(!given.facts("a").motion.own_write_unseen);
    given.world.deleted(slot, &Uid::new("a-a"));
    assert!(given.facts("a").motion.own_write_unseen);
    given.address_gone("a");
    assert!(!given.facts("a").motion.own_write_unseen);
}

#[test]
fn whose_an_address_is_follows_from_its_references() {
    let mut given = Given::pool_of(1);
    let relation = |given: &Given| given.facts("a").address.unwrap().relation;
    let owner = |uid: &str| {
        format!("ownerReferences: [{{apiVersion: ipam.cluster.x-k8s.io/v1beta1, kind: IPAddressClaim, name: a, uid: {uid}}}]")
    };
    let going = "deletionTimestamp: '2026-01-01T00:00:00Z'";
    given.claim(claim("a", ""));
    given.address(address("a", "10.0.0.10", &owner("earlier")));
    assert_eq!(relation(&given), Relation::Ours, "a live one is adopted");
    given.address(address("a", "10.0.0.10", &format!("{}, {going}", owner("earlier"))));
    assert_eq!(relation(&given), Relation::Another);
    given.address(address("a", "10.0.0.10", going));
    assert_eq!(relation(&given), Relation::Another);
    given.address(address("a", "10.0.0.10", &format!("{}, {going}", owner("c-a"))));
    assert_eq!(relation(&given), Relation::Ours);
    let mut other = address("a", "10.0.0.10", "");
    other.spec.claim_ref.name = "b".to_owned();
    given.address(other);
    assert_eq!(relation(&given), Relation::Other("belongs to claim \"b\"".to_owned()));
}

#[test]
fn owner_references_come_back_byte_for_byte() {
    let claim_reference = |version: &str| {
        format!(
            "{{apiVersion: ipam.cluster.x-k8s.io/{version}, kind: IPAddressClaim, name: a, uid: c-a, controller: true,
              blockOwnerDeletion: true}}"
        )
    };
    let pool_reference = "{apiVersion: ipam.cluster.x-k8s.io/v1alpha2, kind: InClusterIPPool, name: blue, uid: p-blue,
                           controller: false, blockOwnerDeletion: true}";
    let foreign = "{apiVersion: alpha-dummy, kind: dummy, name: dummy, uid: abc-dummy-123}";
    let lists = [
        String::new(),
        foreign.to_owned(),
        format!("{}, {pool_reference}", claim_reference("v1beta2")),
        format!("{}, {pool_reference}", claim_reference("v1beta1")),
        format!("{}, {pool_reference}", claim_reference("v1alpha1")),
        format!("{pool_reference}, {}", claim_reference("v1beta2")),
        format!("{foreign}, {}, {pool_reference}", claim_reference("v1beta2")),
    ];
    for list in lists {
        let mut given = Given::pool_of(1);
        let object = address("a", "10.0.0.10", &format!("ownerReferences: [{list}]"));
        let references = object.metadata.owner_references.clone().unwrap_or_default();
        given.address(object);
        let entry = given.world.entry(given.slot("a")).unwrap();
        let key = &given.blue().key;
        assert_eq!(entry.address.as_ref().unwrap().owners("a", Some(key), &given.world.names), references);
    }
}

#[test]
fn an_incomplete_address_lacks_just_what_is_missing() {
    let mut given = Given::scoped(Scope { watch_filter: Some("x".to_owned()), ..Scope::default() });
    given.claim(claim("a", "labels: {cluster.x-k8s.io/watch-filter: x, cluster.x-k8s.io/cluster-name: red}"));
    given.address(address("a", "10.0.0.10", "finalizers: [third/x]"));
    let repair = given.facts("a").address.unwrap().repair.unwrap();
    assert_eq!(repair.owners.unwrap().len(), 1, "the pool's reference waits for the pool");
    assert_eq!(repair.finalizers.unwrap(), ["third/x", "ipam.cluster.x-k8s.io/ProtectAddress"]);
    let labels = [("cluster.x-k8s.io/cluster-name", "red"), ("cluster.x-k8s.io/watch-filter", "x")];
    assert_eq!(repair.labels, labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
    given.pool(pool("10.0.0.10", ""));
    assert_eq!(given.facts("a").address.unwrap().repair.unwrap().owners.unwrap().len(), 2);
    let going = "finalizers: [third/x], deletionTimestamp: '2026-01-01T00:00:00Z',
                 ownerReferences: [{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: c-a}]";
    given.address(address("a", "10.0.0.10", going));
    assert_eq!(given.facts("a").address.unwrap().repair.unwrap().finalizers, None, "a deleting one gets no finalizer");
}

#[test]
fn a_creation_on_its_way_is_remembered_while_another_object_of_its_name_comes_and_goes() {
    let mut given = Given::pool_of(2);
    given.claim(claim("a", ""));
    given.allocate("a", Wish::Lowest).unwrap();
    let slot = given.slot("a");
    assert!(given.world.sends(slot, &Uid::new("c-a"), span("10.0.0.10")));
    given.address(address("a", "10.0.0.10", OURS));
    given.address_gone("a");
    given.claim_gone("a");
    given.world.answered(slot, Uid::new("a-second"));
    let facts = given.facts("a");
    assert_eq!(facts.reservation.map(|held| (held.span, held.state)), Some((span("10.0.0.10"), ReservationState::Answered)));
    let owner = "{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: c-a}";
    let mut second = address("a", "10.0.0.10", &format!("{OURS}, ownerReferences: [{owner}]"));
    second.metadata.uid = Some("a-second".to_owned());
    given.address(second.clone());
    assert!(given.facts("a").address.unwrap().made_here);
    second.metadata.owner_references.as_mut().unwrap()[0].uid = "c-later".to_owned();
    given.address(second);
    assert!(!given.facts("a").address.unwrap().made_here, "a later claim has taken it over");
}

#[test]
fn an_address_that_a_later_claim_took_over_is_no_concern_of_the_earlier_one() {
    let mut given = Given::pool_of(1);
    given.claim(claim("a", "deletionTimestamp: '2026-01-01T00:00:00Z'"));
    let owner = |uid: &str| {
        format!("ownerReferences: [{{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, name: a, uid: {uid}}}]")
    };
    given.address(address("a", "10.0.0.10", &owner("c-a")));
    assert_eq!(given.facts("a").address.unwrap().relation, Relation::Ours);
    given.address(address("a", "10.0.0.10", &owner("c-later")));
    assert_eq!(given.facts("a").address.unwrap().relation, Relation::Another);
}
