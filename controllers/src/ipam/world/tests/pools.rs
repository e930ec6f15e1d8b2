//! Pools: what a change of theirs does to values, waiters and claims.

use super::*;
use crate::ipam::facts::Memory;

const ALL_OPEN: [&str; 2] = ["waiting", "going"];

/// A pool with a bound claim, a waiting one, and a deleting one.
fn populated() -> Given {
    let mut given = Given::pool_of(2);
    given.claim(bound("settled", ""));
    given.address(address("settled", "10.0.0.10", ""));
    given.claim(claim("waiting", ""));
    given.claim(bound("going", "deletionTimestamp: '2026-01-01T00:00:00Z'"));
    given.woken();
    given
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[test]
fn a_changed_pool_wakes_the_claims_that_are_not_settled() {
    let mut given = populated();
    given.pool(pool("10.0.0.10-10.0.0.11", "generation: 1"));
    assert_eq!(given.woken(), [] as [&str; 0], "nothing has changed");
    for more in ["generation: 2", "generation: 2, annotations: {cluster.x-k8s.io/paused: ''}", "generation: 2"] {
        given.pool(pool("10.0.0.10-10.0.0.11", more));
        assert_eq!(sorted(given.woken()), sorted(ALL_OPEN.map(ToOwned::to_owned).to_vec()), "{more}");
    }
    given.pool(pool("10.0.0.10-10.0.0.11", "generation: 2, deletionTimestamp: '2026-01-01T00:00:00Z'"));
    assert_eq!(given.woken().len(), 2);
}

#[test]
fn another_pool_of_that_name_wakes_all_its_claims() {
    let mut given = populated();
    let mut another = pool("10.0.0.10", "");
    another.metadata.uid = Some("another".to_owned());
    given.pool(another);
    assert_eq!(given.woken().len(), 3);
    given.pools_listed(IP_POOL, []);
    assert_eq!(given.woken().len(), 3);
    assert_eq!(given.facts("waiting").pool, PoolFacts::Absent(IP_POOL, "blue".to_owned()));
}

#[test]
fn what_was_refused_is_tried_again_when_claim_or_pool_changes() {
    let mut given = populated();
    let slot = given.slot("waiting");
    let refuse = |given: &mut Given| given.world.refused(slot, "no".to_owned(), Instant::now() + Duration::from_secs(300));
    refuse(&mut given);
    assert!(given.facts("waiting").motion.refusal.is_some());
    given.pool(pool("10.0.0.10-10.0.0.11", "generation: 2"));
    assert_eq!(given.facts("waiting").motion.refusal, None);
    refuse(&mut given);
    given.claim(claim("waiting", "labels: {a: b}"));
    assert_eq!(given.facts("waiting").motion.refusal, None);
}

#[test]
fn two_pools_of_one_name_in_two_namespaces_and_one_global_share_nothing() {
    let mut given = Given::pool_of(1);
    let mut elsewhere = pool("10.0.0.10", "");
    elsewhere.metadata.namespace = Some("team-b".to_owned());
    given.pool(elsewhere);
    let mut global = pool("10.0.0.10", "");
    global.metadata.namespace = None;
    given.world.pools(PoolKind::GlobalInClusterIPPool, Seen::Changed(global));
    assert_eq!(given.world.pool_ids().len(), 3);
    let spec = "poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: GlobalInClusterIPPool, name: blue}";
    given.claim(claim("local", ""));
    given.claim(claim_of("global", "", spec));
    assert_eq!(given.allocate("local", Wish::Lowest), Ok("10.0.0.10".to_owned()));
    assert_eq!(given.allocate("global", Wish::Lowest), Ok("10.0.0.10".to_owned()));
}

#[test]
fn a_global_pool_serves_every_namespace_from_one_set() {
    let mut given = Given::nothing();
    let mut global = pool("10.0.0.10-10.0.0.11", "");
    global.metadata.namespace = None;
    given.world.pools(PoolKind::GlobalInClusterIPPool, Seen::Changed(global));
    let spec = "poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: GlobalInClusterIPPool, name: blue}";
    let mut elsewhere = claim_of("a", "", spec);
    elsewhere.metadata.namespace = Some("team-b".to_owned());
    given.claim(claim_of("a", "", spec));
    given.claim(elsewhere);
    given.allocate("a", Wish::Lowest).unwrap();
    let other = given.world.find("team-b", "a").unwrap();
    given.world.take_place(other, Standing::Allocate(Wish::Lowest));
    let reserved: Vec<String> = given.blue().ledger.reservations().map(|(_, held)| held.span.to_string()).collect();
    assert_eq!(reserved, ["10.0.0.10", "10.0.0.11"]);
}

#[test]
fn a_pool_tells_why_it_gives_nothing() {
    let trouble = |given: &Given| match given.facts("a").pool {
        PoolFacts::Known(pool) => pool.trouble,
        PoolFacts::Absent(..) => unreachable!("the pool exists"),
    };
    let mut given = Given::nothing();
    given.claim(claim("a", ""));
    given.pool(pool("10.0.0.10", "generation: 1"));
    assert_eq!(trouble(&given), None);
    given.pool(pool("10.0.0.1", "generation: 2"));
    assert!(trouble(&given).is_some(), "nothing but the gateway");
    given.pool(pool("garbage", "generation: 3"));
    assert!(trouble(&given).unwrap().starts_with("invalid spec: "));
    assert_eq!(given.allocate("a", Wish::Lowest), Err(Denial::NotAllocatable(poolutil::Refusal::NotInPool)));
}

#[test]
fn a_pre_allocated_value_goes_to_its_claim_and_to_no_other() {
    let mut given = Given::nothing();
    let more = r#"annotations: {in-cluster.ipam.cluster.x-k8s.io/pre-allocations: '{"a":"10.0.0.10"}'}"#;
    given.pool(pool("10.0.0.10-10.0.0.11", more));
    given.claim(claim("b", ""));
    given.claim(claim("a", ""));
    let asking = "annotations: {in-cluster.ipam.cluster.x-k8s.io/requested-address: 10.0.0.10}";
    given.claim(claim("thief", asking));
    assert_eq!(given.allocate("b", Wish::Lowest), Ok("10.0.0.11".to_owned()));
    assert_eq!(given.facts("a").wishes.named, Some(Ok(span("10.0.0.10"))));
    let named = given.facts("thief").wishes.named.unwrap().unwrap_err();
    assert!(named.ends_with("pre-allocated to a"), "{named}");
    assert_eq!(given.allocate("a", Wish::Named(span("10.0.0.10"))), Ok("10.0.0.10".to_owned()));
}

#[test]
fn a_request_is_read_from_either_annotation_and_told_if_it_cannot_be() {
    let mut given = Given::pool_of(2);
    let named = |given: &Given| given.facts("a").wishes.named;
    given.claim(claim("a", "annotations: {ipAddress: 10.0.0.11}"));
    assert_eq!(named(&given), Some(Ok(span("10.0.0.11"))));
    let both = "annotations: {ipAddress: 10.0.0.11, in-cluster.ipam.cluster.x-k8s.io/requested-address: 10.0.0.10}";
    given.claim(claim("a", both));
    assert_eq!(named(&given), Some(Ok(span("10.0.0.10"))));
    given.claim(claim("a", "annotations: {ipAddress: garbage}"));
    assert!(named(&given).unwrap().unwrap_err().starts_with("requested address \"garbage\""));
}

/// A sticky pool whose memory holds these pairs of claim and value.
fn sticky(addresses: &str, memory: &[(&str, &str)]) -> IpPool {
    let entries: Vec<String> =
        memory.iter().map(|(claim, value)| format!(r#""{claim}":["{value}","2999-01-01T00:00:00Z"]"#)).collect();
    let prefix = "in-cluster.ipam.cluster.x-k8s.io";
    let memory = entries.join(",");
    pool(addresses, &format!("annotations: {{{prefix}/sticky: 168h, {prefix}/last-addresses: '{{{memory}}}'}}"))
}

#[test]
fn remembered_values_are_given_to_others_last_and_back_to_their_claims() {
    let mut given = Given::nothing();
    given.pool(sticky("10.0.0.10-10.0.0.11", &[("back", "10.0.0.10")]));
    given.claim(claim("new", ""));
    given.claim(claim("back", ""));
    assert_eq!(given.facts("back").wishes.remembered, Some(span("10.0.0.10")));
    assert_eq!(given.facts("new").wishes.remembered, None);
    assert_eq!(given.allocate("new", Wish::Lowest), Ok("10.0.0.11".to_owned()));
    given.claim(claim("greedy", ""));
    assert_eq!(given.allocate("greedy", Wish::Lowest), Ok("10.0.0.10".to_owned()), "stickiness exhausts no pool");
}

#[test]
fn a_value_is_remembered_before_it_is_released_if_the_pool_can_give_it_again() {
    let memory = |pool: Option<IpPool>, value: &str, scope: Scope| {
        let mut given = Given::scoped(scope);
        if let Some(pool) = pool {
            given.pool(pool);
        }
        given.claim(bound("a", "labels: {cluster.x-k8s.io/watch-filter: x}"));
        given.address(address("a", value, ""));
        given.facts("a").motion.memory
    };
    let here = Scope::default;
    assert_eq!(memory(None, "10.0.0.10", here()), Memory::Off);
    assert_eq!(memory(Some(pool("10.0.0.10", "")), "10.0.0.10", here()), Memory::Off);
    assert_eq!(memory(Some(sticky("10.0.0.10", &[])), "10.0.0.10", here()), Memory::Missing);
    assert_eq!(memory(Some(sticky("10.0.0.10", &[("b", "10.0.0.10")])), "10.0.0.10", here()), Memory::Missing);
    assert_eq!(memory(Some(sticky("10.0.0.10", &[("a", "10.0.0.10")])), "10.0.0.10", here()), Memory::Written);
    assert_eq!(memory(Some(sticky("10.0.0.10", &[])), "10.0.0.99", here()), Memory::Off, "out of range");
    assert_eq!(memory(Some(sticky("garbage", &[])), "10.0.0.10", here()), Memory::Off, "an invalid pool");
    let filter = Scope { watch_filter: Some("x".to_owned()), ..Scope::default() };
    let mut others = sticky("10.0.0.10", &[]);
    others.metadata.labels = read("{cluster.x-k8s.io/watch-filter: y}");
    assert_eq!(memory(Some(others), "10.0.0.10", filter), Memory::Off, "a pool that another manager writes");
}

#[test]
fn overlapping_pools_are_compared_within_their_domain() {
    let overlaps = |label: &str, other_namespace: bool| {
        let mut given = Given::nothing();
        given.pool(pool("10.0.0.10-10.0.0.20", label));
        let mut other = pool("10.0.0.20-10.0.0.30", label);
        other.metadata.name = Some("green".to_owned());
        if other_namespace {
            other.metadata.namespace = Some("team-b".to_owned());
        }
        given.pool(other);
        given.world.compare_pools();
        given.blue().overlap_count
    };
    let domain = "labels: {in-cluster.ipam.cluster.x-k8s.io/network-domain: site}";
    assert_eq!((overlaps("", false), overlaps("", true)), (1, 0));
    assert_eq!((overlaps(domain, false), overlaps(domain, true)), (1, 1));
}

#[test]
fn nothing_is_handed_out_before_every_kind_was_listed_or_is_known_to_be_absent() {
    let mut world = World::new(Scope::default());
    for kind in Watched::ALL {
        assert!(!world.is_settled());
        world.not_served(kind);
    }
    assert!(world.is_settled());
}
