//! Rows 2 to 6: what stops a claim.

use super::*;

#[test]
fn a_claim_that_leaves_with_a_move_is_left_alone_even_while_it_is_deleted() {
    let live = Given::live().unprotected().claim(|claim| claim.moving = true);
    assert_eq!(live.plan(), Plan::leave(Row::Moving));
    let deleting = Given::deleting(0).address(|_| ()).claim(|claim| claim.moving = true);
    assert_eq!(deleting.plan(), Plan::leave(Row::Moving));
}

#[test]
fn a_paused_claim_is_not_written_not_even_its_finalizer() {
    let given = Given::live().unprotected().claim(|claim| claim.paused = true);
    assert_eq!(given.plan(), Plan::leave(Row::ClaimPaused));
    assert_eq!(given.own_address().plan(), Plan::leave(Row::ClaimPaused));
}

#[test]
fn a_claim_of_a_paused_cluster_is_not_written_either() {
    let given = Given::live().unprotected().cluster(ClusterFacts::Paused);
    assert_eq!(given.plan(), Plan::leave(Row::ClusterPaused));
    assert_eq!(given.address(|_| ()).plan(), Plan::leave(Row::ClusterPaused));
}

#[test]
fn the_pause_of_the_claim_comes_before_that_of_its_cluster_and_pool() {
    let given = Given::live().cluster(ClusterFacts::Paused).pool(|pool| pool.paused = true);
    assert_eq!(given.row(), Row::ClusterPaused);
    assert_eq!(given.claim(|claim| claim.paused = true).row(), Row::ClaimPaused);
}

#[test]
fn a_deleting_claim_that_never_got_anything_may_go_although_it_is_held() {
    let release = vec![release_claim_step(&[RELEASE_ADDRESS])];
    let paused = Given::deleting(0).claim(|claim| claim.paused = true);
    assert_eq!(paused.plan(), Plan::new(Row::ClaimPaused, Place::Leave, release.clone()));
    let cluster = Given::deleting(0).cluster(ClusterFacts::Paused);
    assert_eq!(cluster.plan(), Plan::new(Row::ClusterPaused, Place::Leave, release.clone()));
    // A reservation for which nothing was sent is nothing yet.
    assert_eq!(cluster.clone().reserved(ReservationState::Unsent, 0).plan().steps, release);
}

#[test]
fn a_held_deleting_claim_with_an_address_or_one_on_its_way_stays() {
    let held = Given::deleting(0).cluster(ClusterFacts::Paused);
    for given in [
        held.clone().bound(),
        held.clone().address(|_| ()),
        held.clone().reserved(ReservationState::Sent, 100),
        held.clone().reserved(ReservationState::Answered, 100),
        held.unprotected(),
    ] {
        assert_eq!(given.plan(), Plan::leave(Row::ClusterPaused));
    }
}

#[test]
fn a_live_claim_whose_cluster_is_missing_waits_without_a_write_and_says_so_once() {
    let given = Given::live().unprotected().cluster(ClusterFacts::Missing("red".to_owned()));
    let mut expected = Plan::leave(Row::ClusterMissing);
    expected.waiting = Some(Waiting::Cluster);
    expected.steps = vec![event(EventReason::WaitingForCluster, "cluster red does not exist yet")];
    assert_eq!(given.plan(), expected);
    expected.steps.clear();
    assert_eq!(given.waits(Waiting::Cluster, seconds(100)).plan(), expected);
}

#[test]
fn a_bound_claim_whose_cluster_is_missing_waits_too() {
    assert_eq!(Given::live().bound().address(|_| ()).cluster(ClusterFacts::Missing("red".to_owned())).row(), Row::ClusterMissing);
}

#[test]
fn a_deleting_claim_outlives_its_cluster_and_is_released() {
    let given = Given::deleting(0).cluster(ClusterFacts::Missing("red".to_owned()));
    assert_eq!(given.row(), Row::ReleaseClaim);
    assert_eq!(given.bound().address(|_| ()).row(), Row::ReleaseAddress);
}

#[test]
fn a_paused_pool_gives_and_takes_nothing_but_its_live_claims_get_our_finalizer() {
    let paused = |given: Given| given.pool(|pool| pool.paused = true);
    assert_eq!(paused(Given::live()).plan(), Plan::leave(Row::PoolPaused));
    assert_eq!(paused(Given::live().unprotected()).plan(), Plan::new(Row::PoolPaused, Place::Leave, vec![protect()]));
    for given in [Given::deleting(0), Given::deleting(0).bound().address(|_| ()), Given::deleting(0).unprotected()] {
        assert_eq!(paused(given).plan(), Plan::leave(Row::PoolPaused));
    }
}

#[test]
fn our_finalizer_goes_behind_those_of_others() {
    let given = Given::live().claim(|claim| claim.finalizers = texts(&["infra/x"])).pool(|pool| pool.paused = true);
    let write = ClaimWrite { revision: Revision::new("7"), finalizers: texts(&["infra/x", RELEASE_ADDRESS]) };
    assert_eq!(given.plan().steps, [Step::ProtectClaim(write)]);
}

#[test]
fn nothing_is_planned_while_our_own_last_write_is_not_in_view() {
    let unseen = |given: Given| given.motion(|motion| motion.own_write_unseen = true).plan();
    for given in [Given::live().unprotected(), Given::deleting(0).bound().address(|_| ()), Given::orphan(0)] {
        assert_eq!(unseen(given), Plan::rest(Row::OwnWrite).within(seconds(10)));
    }
}
