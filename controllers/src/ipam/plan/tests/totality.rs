//! What holds for any facts whatever, likely or not.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;

fn texts_of(all: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    subsequence(all, 0..=all.len()).prop_map(|list| texts(&list))
}

fn time() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![Just(None), (-10..NOW + 1000).prop_map(Some), Just(Some(i64::MIN)), Just(Some(i64::MAX))]
}

fn age() -> impl Strategy<Value = Duration> {
    prop_oneof![(0_u64..200_000).prop_map(Duration::from_millis), Just(Duration::MAX)]
}

fn said() -> impl Strategy<Value = ClaimConditions> {
    let reasons = select(ClaimReason::ALL).prop_map(|reason| conditions(reason, "allocated 10.0.0.10/24"));
    prop_oneof![Just(ClaimConditions::default()), reasons]
}

fn claim() -> impl Strategy<Value = ClaimFacts> {
    let flags = any::<(bool, bool, bool, bool)>();
    let finalizers = texts_of(&["infra/x", PUBLISHED, RELEASE_ADDRESS, "foregroundDeletion", "orphan"]);
    (flags, time(), finalizers, said()).prop_map(|((moving, paused, release_now, bound), deleting, finalizers, conditions)| {
        let claim = Given::live().0.claim.unwrap();
        ClaimFacts { deleting, moving, paused, finalizers, release_now, bound, conditions, ..claim }
    })
}

fn pool() -> impl Strategy<Value = PoolFacts> {
    let known = (select(&PoolKind::ALL[..]), any::<(bool, bool, bool)>(), age());
    let known = known.prop_map(|(kind, (paused, deleting, troubled), grace)| {
        let PoolFacts::Known(pool) = Given::live().0.pool else { unreachable!("the pool is known here") };
        let trouble = troubled.then(|| "nothing to give".to_owned());
        PoolFacts::Known(Box::new(PoolView { kind, paused, deleting, trouble, grace, ..*pool }))
    });
    let absent = select(&PoolKind::ALL[..]).prop_map(|kind| PoolFacts::Absent(kind, "blue".to_owned()));
    prop_oneof![4 => known, 1 => absent]
}

fn cluster() -> impl Strategy<Value = ClusterFacts> {
    let all = [ClusterFacts::Unnamed, ClusterFacts::Running, ClusterFacts::Paused, ClusterFacts::Missing("red".to_owned())];
    select(all.to_vec())
}

fn relation() -> impl Strategy<Value = Relation> {
    prop_oneof![4 => Just(Relation::Ours), 1 => Just(Relation::Other("is another's".to_owned())), 1 => Just(Relation::Another)]
}

fn address() -> impl Strategy<Value = AddressFacts> {
    let flags = any::<(bool, bool, bool, bool)>();
    let contest = proptest::option::of(any::<(bool, bool, bool, bool)>());
    let finalizers = texts_of(&["third/x", PROTECT_ADDRESS]);
    (flags, time(), relation(), finalizers, contest, any::<bool>()).prop_map(
        |((moving, fresh, made_here, incomplete), deleting, relation, finalizers, contest, readable)| AddressFacts {
            moving,
            fresh: fresh || made_here,
            made_here,
            deleting,
            repair: incomplete.then_some(Repair {
                owners: None,
                finalizers: None,
                labels: Vec::new(),
                untold: false,
                changes_owner: false,
            }),
            relation,
            finalizers,
            contest: contest.map(|(published, behind, fresh, elder)| Contest {
                holder: "b/x".to_owned(),
                published,
                behind,
                fresh,
                elder,
            }),
            span: readable.then(|| span("10.0.0.10")),
            ..Given::live().address(|_| ()).0.address.unwrap()
        },
    )
}

fn wish() -> impl Strategy<Value = Wish> {
    let value = span("10.0.0.11");
    select(vec![Wish::Named(value), Wish::Former(value), Wish::Remembered(value), Wish::Lowest, Wish::Scattered])
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let value = || proptest::option::of(Just(span("10.0.0.11")));
    let named = proptest::option::of(prop_oneof![Just(Ok(span("10.0.0.10"))), Just(Err("unreadable".to_owned()))]);
    (named, value(), value(), any::<bool>()).prop_map(|(named, former, remembered, collided)| Wishes {
        named,
        former,
        remembered,
        collided,
    })
}

fn motion() -> impl Strategy<Value = MotionFacts> {
    let all =
        [Waiting::Cluster, Waiting::Pool, Waiting::Room, Waiting::Refused, Waiting::Order, Waiting::Consumer, Waiting::Grace];
    let waiting = proptest::option::of((select(all.to_vec()), age()));
    let memory = select(vec![Memory::Off, Memory::Missing, Memory::Written]);
    let refusal = proptest::option::of(age().prop_map(|rest| ("no".to_owned(), rest)));
    (any::<(bool, bool, bool)>(), waiting, proptest::option::of(1_usize..9), refusal, memory).prop_map(
        |((own_write_unseen, moved, bereft), waiting, position, refusal, memory)| MotionFacts {
            own_write_unseen: own_write_unseen && moved,
            moved,
            bereft,
            waiting,
            position,
            refusal,
            memory,
        },
    )
}

fn facts() -> impl Strategy<Value = Facts> {
    let states = [ReservationState::Unsent, ReservationState::Sent, ReservationState::Answered];
    let reservation = proptest::option::of((select(states.to_vec()), age()));
    let denials = [Denial::NoRoom, Denial::Held("b/x".to_owned()), Denial::NotAllocatable(poolutil::Refusal::Excluded)].to_vec();
    let refused = proptest::option::of((wish(), select(denials)));
    let objects = (proptest::option::weighted(0.9, claim()), cluster(), pool(), proptest::option::of(address()));
    (objects, reservation, refused, wishes(), motion(), any::<(bool, bool, bool, bool)>()).prop_map(
        |((claim, cluster, pool, address), reservation, refused, wishes, motion, policy)| Facts {
            claim,
            cluster,
            pool,
            address,
            reservation: reservation.map(|(state, age)| ReservedFacts { span: span("10.0.0.10"), state, age }),
            refused,
            wishes,
            motion,
            policy: Policy {
                honor_foreign_finalizers: policy.0,
                release_orphans_namespaced: policy.1,
                release_orphans_global: policy.2,
                external_ips: policy.3,
            },
            ..Given::live().0
        },
    )
}

fn writes(step: &Step) -> bool {
    !matches!(step, Step::Event(..) | Step::RestartWatch | Step::ConfirmAbsent | Step::ConfirmBereft { .. })
}

fn takes_the_address(step: &Step) -> bool {
    matches!(step, Step::DeleteAddress { .. } | Step::UnprotectAddress { .. } | Step::ReleaseOrphan { .. })
}

fn protects(step: &Step) -> bool {
    matches!(step, Step::ProtectClaim(_) | Step::Bind { finalizer: Some(_), .. })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_facts_have_a_plan_and_these_are_never_broken(facts in facts()) {
        hold(&facts, &plan(&facts, now()));
    }
}

fn hold(facts: &Facts, plan: &Plan) {
    let steps = &plan.steps;
    let claim = facts.claim.as_ref();
    let address = facts.address.as_ref();

    // A paused claim or cluster is not written to, except that a deleting claim that never got anything may go.
    let held = claim.is_some_and(|claim| claim.paused || claim.moving || facts.cluster == ClusterFacts::Paused);
    let may_go = claim.is_some_and(|claim| claim.deleting.is_some() && !claim.bound && address.is_none());
    if held {
        assert!(steps.iter().all(|step| !writes(step) || may_go && matches!(step, Step::ReleaseClaim { .. })));
    }

    // Nobody else's address is deleted, and no live claim's that was told of it.
    if address.is_some_and(|address| matches!(address.relation, Relation::Other(_)) && !address.made_here) {
        assert!(!steps.iter().any(takes_the_address));
    }
    if let (Some(claim), Some(address)) = (claim, address)
        && address.relation == Relation::Ours
        && claim.deleting.is_none()
        && (claim.bound || !address.fresh)
        && !address.made_here
    {
        assert!(!steps.iter().any(takes_the_address));
    }

    // What a Service of ours may still carry is not given back.
    if claim.is_some_and(|claim| claim.deleting.is_some() && claim.is_published()) {
        assert!(!steps.iter().any(takes_the_address));
    }

    // Ready does not become false while the address exists.
    if claim.is_some_and(|claim| claim.bound) && address.is_some_and(|address| address.relation == Relation::Ours) {
        let tells = |step: &Step| matches!(step, Step::Tell { .. });
        assert!(!steps.iter().any(tells));
    }

    // A live claim keeps our finalizer; a deleting one gets none.
    let live = claim.is_some_and(|claim| claim.deleting.is_none());
    assert!(!(live && steps.iter().any(|step| matches!(step, Step::ReleaseClaim { .. }))));
    assert!(live || !steps.iter().any(protects));

    // Nothing is created in a pool that goes, and nothing given by one that is paused.
    if let PoolFacts::Known(pool) = &facts.pool
        && (pool.deleting || pool.paused)
    {
        assert!(!steps.iter().any(|step| matches!(step, Step::Bind { .. })));
        assert!(!matches!(plan.place, Place::Allocate(_) | Place::Queue | Place::QueueFor(_)));
    }

    // The finalizer stands beside every row that a live claim reaches once neither it nor its cluster holds it.
    let bare = claim.is_some_and(|claim| !claim.finalizers.iter().any(|name| name == RELEASE_ADDRESS));
    let passes = live && bare && !held && !matches!(facts.cluster, ClusterFacts::Missing(_));
    let settled = !matches!(plan.row, Row::OwnWrite | Row::Moving | Row::Allocate | Row::Lost | Row::ReleaseAwaitsAnswer)
        && !steps.contains(&Step::RestartWatch);
    if passes && settled {
        assert!(steps.iter().any(protects), "{plan:?}");
    }
}
