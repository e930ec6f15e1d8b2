//! Row 7 and claims that are gone: in which order, and when not yet.

use super::*;

const THIRD: &str = "example.com/third";

fn released() -> Given {
    Given::deleting(0).bound().address(|_| ())
}

#[test]
fn an_address_is_deleted_then_unprotected_then_the_claim_let_go() {
    let delete = Plan::new(Row::ReleaseAddress, Place::Leave, vec![delete_step(Deletion::Released)]);
    assert_eq!(released().plan(), delete);
    let going = released().address(|address| address.deleting = Some(NOW));
    let unprotect = Plan::new(Row::ReleaseAddress, Place::Leave, vec![unprotect_step(&[PROTECT_ADDRESS])]);
    assert_eq!(going.plan(), unprotect);
    let mut gone = Given::deleting(0).bound();
    let confirm = vec![Step::ConfirmBereft { uid: Uid::new("c1"), shown: None }];
    assert_eq!(gone.plan(), Plan::new(Row::ReleaseAwaitsAnswer, Place::Leave, confirm), "it may be late in our view");
    gone.0.motion.bereft = true;
    let release = Plan::new(Row::ReleaseClaim, Place::Leave, vec![release_claim_step(&[RELEASE_ADDRESS])]);
    assert_eq!(gone.plan(), release);
}

#[test]
fn a_claim_without_an_address_goes_in_one_step_whatever_its_pool() {
    let release = vec![release_claim_step(&[RELEASE_ADDRESS])];
    for given in [Given::deleting(0), Given::deleting(0).no_pool(), Given::deleting(0).pool(|pool| pool.grace = seconds(300))] {
        assert_eq!(given.plan(), Plan::new(Row::ReleaseClaim, Place::Leave, release.clone()));
    }
}

#[test]
fn a_third_partys_finalizer_on_the_address_keeps_the_claim() {
    let given = released().address(|address| {
        address.deleting = Some(NOW);
        address.finalizers = texts(&[THIRD]);
    });
    assert_eq!(given.plan(), Plan::leave(Row::ReleaseAwaitsThirdParty));
    let both = given.address(|address| address.finalizers = texts(&[THIRD, PROTECT_ADDRESS]));
    assert_eq!(both.plan().steps, [unprotect_step(&[THIRD, PROTECT_ADDRESS])]);
}

#[test]
fn an_address_of_somebody_else_is_not_deleted_and_does_not_keep_the_claim() {
    let other = Relation::Other("belongs to another pool".to_owned());
    let mut given = Given::deleting(0).bound().address(|address| address.relation = other);
    let shown = given.0.address.as_ref().map(|address| address.revision.clone());
    let confirm = vec![Step::ConfirmBereft { uid: Uid::new("c1"), shown }];
    assert_eq!(given.plan(), Plan::new(Row::ReleaseAwaitsAnswer, Place::Leave, confirm), "the view may be behind");
    given.0.motion.bereft = true;
    assert_eq!(given.row(), Row::ReleaseClaim);
    assert_eq!(given.plan().steps, [release_claim_step(&[RELEASE_ADDRESS])]);
}

#[test]
fn an_earlier_claims_address_is_not_released_with_this_claim() {
    let given = Given::deleting(0).address(|address| (address.relation, address.deleting) = (Relation::Another, Some(NOW - 5)));
    assert_eq!(given.plan().steps, [release_claim_step(&[RELEASE_ADDRESS])]);
}

#[test]
fn a_deleting_claim_without_our_finalizer_gets_none_and_loses_none() {
    let given = Given::deleting(0).claim(|claim| claim.finalizers = texts(&["infra/x"]));
    assert_eq!(given.plan(), Plan::leave(Row::Nothing));
    assert_eq!(given.bound().address(|_| ()).plan(), Plan::leave(Row::Nothing));
}

#[test]
fn what_we_made_for_a_claim_that_goes_before_it_is_published_is_undone() {
    let given = Given::deleting(0).own_address();
    assert_eq!(given.plan().steps, [delete_step(Deletion::Released)]);
    let bare = Given::deleting(0).unprotected().own_address();
    assert_eq!(bare.plan().steps, [delete_step(Deletion::Released)]);
    // The same after a restart: it was made by this program, and nobody was told of it.
    let restarted = Given::deleting(0).unprotected().address(|address| address.fresh = true);
    assert_eq!(restarted.plan().steps, [delete_step(Deletion::Released)]);
}

#[test]
fn the_address_stays_while_others_still_hold_the_claim() {
    let held = released().claim(|claim| claim.finalizers = texts(&["infra/b", RELEASE_ADDRESS, "infra/a"]));
    let mut expected = Plan::leave(Row::ReleaseAwaitsConsumer).within(seconds(60));
    expected.waiting = Some(Waiting::Consumer);
    assert_eq!(held.plan(), expected);
    assert_eq!(held.clone().waits(Waiting::Consumer, seconds(20)).plan(), expected.clone().within(seconds(40)));
    expected.recheck = None;
    expected.steps =
        vec![event(EventReason::WaitingForConsumer, "the address is kept until these finalizers go: infra/b, infra/a")];
    expected.waiting = Some(Waiting::ConsumerTold);
    assert_eq!(held.clone().waits(Waiting::Consumer, seconds(60)).plan(), expected);
    expected.steps.clear();
    assert_eq!(held.waits(Waiting::ConsumerTold, seconds(600)).plan(), expected);
}

#[test]
fn finalizers_that_kubernetes_sets_itself_hold_nothing_up() {
    for propagation in ["foregroundDeletion", "orphan"] {
        let given = released().claim(|claim| claim.finalizers = texts(&[propagation, RELEASE_ADDRESS]));
        assert_eq!(given.row(), Row::ReleaseAddress, "{propagation}");
    }
}

#[test]
fn release_now_and_the_flag_let_go_although_others_hold_the_claim() {
    let held = released().claim(|claim| claim.finalizers = texts(&["infra/x", RELEASE_ADDRESS]));
    assert_eq!(held.row(), Row::ReleaseAwaitsConsumer);
    assert_eq!(held.clone().claim(|claim| claim.release_now = true).row(), Row::ReleaseAddress);
    assert_eq!(held.policy(|policy| policy.honor_foreign_finalizers = false).row(), Row::ReleaseAddress);
}

#[test]
fn a_claim_whose_address_a_service_carries_is_held_whatever_the_user_says() {
    let held = released().claim(|claim| claim.finalizers = texts(&[PUBLISHED, RELEASE_ADDRESS]));
    assert_eq!(held.row(), Row::ReleaseAwaitsConsumer);
    assert_eq!(held.clone().claim(|claim| claim.release_now = true).row(), Row::ReleaseAwaitsConsumer);
    assert_eq!(held.clone().policy(|policy| policy.honor_foreign_finalizers = false).row(), Row::ReleaseAwaitsConsumer);
    assert_eq!(held.claim(|claim| claim.finalizers = texts(&[RELEASE_ADDRESS])).row(), Row::ReleaseAddress);
}

#[test]
fn without_external_ip_sources_nothing_hangs_on_their_finalizer() {
    let held = |given: Given| given.policy(|policy| policy.external_ips = false);
    let unpublish = |finalizers| {
        let step = Step::Unpublish { uid: Uid::new("c1"), finalizers: texts(finalizers) };
        Plan::new(Row::ReleasePublished, Place::Leave, vec![step])
    };
    let given = held(released().claim(|claim| claim.finalizers = texts(&[PUBLISHED, RELEASE_ADDRESS])));
    assert_eq!(given.plan(), unpublish(&[PUBLISHED, RELEASE_ADDRESS]));
    // Also where nothing else of ours is on it.
    let bare = held(Given::deleting(0).claim(|claim| claim.finalizers = texts(&[PUBLISHED])));
    assert_eq!(bare.plan(), unpublish(&[PUBLISHED]));
    let live = held(Given::live().bound().address(|_| ()).claim(|claim| claim.finalizers.push(PUBLISHED.to_owned())));
    assert_eq!(live.row(), Row::Settled);
}

#[test]
fn the_reuse_grace_counts_from_the_claims_deletion_and_is_told_once() {
    let grace = |given: Given| given.pool(|pool| pool.grace = seconds(300));
    let given = grace(Given::deleting(100).bound().address(|_| ()));
    let mut expected = Plan::leave(Row::ReleaseAwaitsGrace).within(seconds(200));
    expected.waiting = Some(Waiting::Grace);
    expected.steps = vec![event(EventReason::ReuseGracePeriod, "10.0.0.10/24 stays taken until 1970-01-01T02:50:00Z")];
    assert_eq!(given.plan(), expected);
    expected.steps.clear();
    assert_eq!(given.waits(Waiting::Grace, seconds(1)).plan(), expected);
    assert_eq!(grace(Given::deleting(300).bound().address(|_| ())).row(), Row::ReleaseAddress);
}

#[test]
fn a_shorter_grace_ends_at_once() {
    let given = Given::deleting(100).bound().address(|_| ()).waits(Waiting::Grace, seconds(100));
    assert_eq!(given.clone().pool(|pool| pool.grace = seconds(300)).row(), Row::ReleaseAwaitsGrace);
    assert_eq!(given.pool(|pool| pool.grace = seconds(2)).row(), Row::ReleaseAddress);
}

#[test]
fn there_is_no_grace_without_a_live_ip_pool() {
    let given = released().pool(|pool| pool.grace = seconds(300));
    assert_eq!(given.row(), Row::ReleaseAwaitsGrace);
    assert_eq!(given.clone().pool(|pool| pool.deleting = true).row(), Row::ReleaseAddress);
    assert_eq!(given.clone().pool(|pool| pool.kind = PoolKind::InClusterPrefixPool).row(), Row::ReleaseAddress);
    assert_eq!(given.no_pool().row(), Row::ReleaseAddress);
}

#[test]
fn an_address_nobody_was_told_of_has_no_grace_but_an_adopted_one_has() {
    let unbound = Given::deleting(0).pool(|pool| pool.grace = seconds(300));
    assert_eq!(unbound.clone().address(|address| address.fresh = true).row(), Row::ReleaseAddress);
    assert_eq!(unbound.address(|_| ()).row(), Row::ReleaseAwaitsGrace);
}

#[test]
fn consumers_come_before_grace_and_grace_before_memory() {
    let given = released().motion(|motion| motion.memory = Memory::Missing);
    assert_eq!(given.plan(), Plan::new(Row::ReleaseAwaitsMemory, Place::Leave, vec![Step::Remember(span("10.0.0.10"))]));
    let given = given.pool(|pool| pool.grace = seconds(300));
    assert_eq!(given.row(), Row::ReleaseAwaitsGrace);
    assert_eq!(given.claim(|claim| claim.finalizers.push("infra/x".to_owned())).row(), Row::ReleaseAwaitsConsumer);
}

#[test]
fn a_value_that_stands_in_the_pools_memory_may_go() {
    assert_eq!(released().motion(|motion| motion.memory = Memory::Written).row(), Row::ReleaseAddress);
    // What cannot be read cannot be remembered.
    let unreadable = released().address(|address| address.span = None).motion(|motion| motion.memory = Memory::Missing);
    assert_eq!(unreadable.row(), Row::ReleaseAddress);
}

#[test]
fn a_post_without_an_answer_is_waited_for_75_seconds_then_asked_about() {
    let wait = Plan::rest(Row::ReleaseAwaitsAnswer).within(seconds(45));
    let ask = Plan::new(Row::ReleaseAwaitsAnswer, Place::Keep, vec![Step::ConfirmAbsent]);
    let mut claimless = Given::live();
    claimless.0.claim = None;
    for given in [Given::deleting(0), Given::deleting(0).unprotected(), claimless] {
        assert_eq!(given.clone().reserved(ReservationState::Sent, 30).plan(), wait);
        assert_eq!(given.clone().reserved(ReservationState::Sent, 75).plan(), ask);
        assert_ne!(given.reserved(ReservationState::Unsent, 0).row(), Row::ReleaseAwaitsAnswer);
    }
}

#[test]
fn an_orphan_of_a_namespaced_pool_is_let_go_after_the_grace_from_its_own_deletion() {
    let given = Given::orphan(100);
    assert_eq!(given.plan(), Plan::new(Row::Orphan, Place::Leave, vec![release_orphan_step()]));
    let given = given.pool(|pool| pool.grace = seconds(300));
    assert_eq!(given.plan(), Plan::leave(Row::Orphan).within(seconds(200)));
    assert_eq!(given.no_pool().plan().steps, [release_orphan_step()]);
}

#[test]
fn an_orphan_of_a_global_pool_is_kept_and_shown() {
    let given = Given::orphan(100).pool(|pool| pool.kind = PoolKind::GlobalInClusterIPPool);
    let text = "10.0.0.10/24 is kept: its claim is gone, but after a move its machine may still use it elsewhere";
    let mut expected = Plan::new(Row::OrphanKept, Place::Leave, vec![event(EventReason::OrphanedAddress, text)]);
    expected.waiting = Some(Waiting::OrphanTold);
    assert_eq!(given.plan(), expected);
    expected.steps.clear();
    assert_eq!(given.clone().waits(Waiting::OrphanTold, seconds(600)).plan(), expected);
    assert_eq!(given.policy(|policy| policy.release_orphans_global = true).row(), Row::Orphan);
    assert_eq!(Given::orphan(0).policy(|policy| policy.release_orphans_namespaced = false).row(), Row::OrphanKept);
}

#[test]
fn an_orphan_waits_for_the_end_of_its_pools_pause() {
    assert_eq!(Given::orphan(100).pool(|pool| pool.paused = true).plan(), Plan::leave(Row::PoolPaused));
}

#[test]
fn addresses_without_a_claim_that_are_live_foreign_moving_or_unprotected_are_left_alone() {
    let other = Relation::Other("is not looked after by this manager".to_owned());
    assert_eq!(Given::orphan(0).address(|address| address.deleting = None).plan(), Plan::leave(Row::Nothing));
    assert_eq!(Given::orphan(0).address(|address| address.relation = other).plan(), Plan::leave(Row::Nothing));
    assert_eq!(Given::orphan(0).address(|address| address.moving = true).plan(), Plan::leave(Row::Moving));
    assert_eq!(Given::orphan(0).address(|address| address.finalizers.clear()).plan(), Plan::leave(Row::Nothing));
}

#[test]
fn what_this_process_made_for_a_claim_that_is_gone_is_undone() {
    let given = Given::orphan(0).own_address();
    assert_eq!(given.plan().steps, [unprotect_step(&[PROTECT_ADDRESS])]);
    let live = given.address(|address| address.deleting = None);
    assert_eq!(live.plan(), Plan::new(Row::ReleaseAddress, Place::Leave, vec![delete_step(Deletion::Abandoned)]));
}
