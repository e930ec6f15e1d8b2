use super::*;
use crate::spec::{IpPoolSpec, PrefixPoolSpec};

type Book = Ledger<u32>;

fn ip_pool(addresses: &[&str], prefix: i64) -> Arc<Pool> {
    let addresses: Vec<String> = addresses.iter().map(|&entry| entry.to_owned()).collect();
    let spec = IpPoolSpec { addresses: &addresses, prefix, ..IpPoolSpec::default() };
    Arc::new(Pool::ip(&spec).unwrap())
}

fn prefix_pool(prefixes: &[&str], length: i64, excluded: &[&str]) -> Arc<Pool> {
    let prefixes: Vec<String> = prefixes.iter().map(|&entry| entry.to_owned()).collect();
    let excluded: Vec<String> = excluded.iter().map(|&entry| entry.to_owned()).collect();
    let spec = PrefixPoolSpec { prefixes: &prefixes, length, gateway: "", excluded: &excluded };
    Arc::new(Pool::prefixes(&spec).unwrap())
}

fn book(pool: Arc<Pool>) -> Book {
    let mut ledger = Ledger::new();
    ledger.resize(Some(pool));
    ledger
}

fn ip(text: &str) -> Span {
    Span::parse_host(text).unwrap()
}

fn block(text: &str) -> Span {
    let (address, len) = text.split_once('/').unwrap();
    Span::parse(address, len.parse().unwrap()).unwrap()
}

/// What the next `n` keys get, without ever giving it back.
fn drain(ledger: &mut Book, n: u32) -> Vec<String> {
    (0..n)
        .map(|i| match ledger.reserve(1000 + i, Want::Lowest) {
            Answer::Granted(span) => span.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn the_lowest_free_value_is_given_across_all_ranges() {
    // P19
    let mut ledger = book(ip_pool(&["10.0.0.20-10.0.0.21", "10.0.0.9", "10.0.0.10-10.0.0.12"], 24));
    ledger.observe(1, Some(ip("10.0.0.9")), Mark::Listed(1));
    ledger.observe(2, Some(ip("10.0.0.11")), Mark::Listed(1));
    assert_eq!(drain(&mut ledger, 5), ["10.0.0.10", "10.0.0.12", "10.0.0.20", "10.0.0.21", "NoRoom"]);
    let mut single = book(ip_pool(&["10.0.0.9"], 24));
    assert_eq!(drain(&mut single, 2), ["10.0.0.9", "NoRoom"]);
}

#[test]
fn blocks_are_given_lowest_first_and_nothing_is_reserved() {
    // P21, P22, P24, P25
    let mut ledger = book(prefix_pool(&["fd00::/63", "fd00::/62", "fd00:0:0:8::/62"], 64, &[]));
    ledger.observe(1, Some(block("fd00:0:0:1::/64")), Mark::Listed(1));
    let given = drain(&mut ledger, 8);
    assert_eq!(given[..4], ["fd00::", "fd00:0:0:2::", "fd00:0:0:3::", "fd00:0:0:8::"]);
    assert_eq!(given[6..], ["fd00:0:0:b::", "NoRoom"]);
    assert_eq!(ledger.counts().total, 8.into());
    let mut wide = book(prefix_pool(&["fd00::/48"], 56, &[]));
    assert_eq!(drain(&mut wide, 2), ["fd00::", "fd00:0:0:100::"]);
}

#[test]
fn an_exclusion_blocks_a_prefix() {
    // P23
    let mut ledger = book(prefix_pool(&["fd00::/63"], 64, &["fd00::1"]));
    assert_eq!(drain(&mut ledger, 2), ["fd00:0:0:1::", "NoRoom"]);
}

#[test]
fn the_whole_of_ipv6_is_given_one_by_one() {
    // Acceptance 18
    let mut ledger = book(prefix_pool(&["::/0"], 128, &[]));
    assert_eq!(ledger.counts().free, Count::MAX);
    assert_eq!(drain(&mut ledger, 2), ["::", "::1"]);
    let top = Span::new(Family::V6, u128::MAX, 128).unwrap();
    assert_eq!(ledger.reserve(1, Want::Exactly(top)), Answer::Granted(top));
    ledger.observe(1, Some(top), Mark::Added(1));
    assert_eq!(ledger.counts().free, u128::MAX.into());
    ledger.forget(1, Some(top));
    assert_eq!(ledger.counts().free, Count::MAX);
}

#[test]
fn a_given_value_is_refused_with_the_reason() {
    // Acceptance 12
    let mut ledger = book(ip_pool(&["10.0.0.0-10.0.0.11"], 24));
    ledger.observe(1, Some(ip("10.0.0.10")), Mark::Listed(1));
    ledger.reserve(2, Want::Exactly(ip("10.0.0.11")));
    for (address, answer) in [
        ("10.0.0.10", Answer::HeldBy(1)),
        ("10.0.0.11", Answer::ReservedBy(2)),
        ("10.0.0.12", Answer::NotAllocatable(Refusal::NotInPool)),
        ("10.0.0.0", Answer::NotAllocatable(Refusal::Network)),
        ("10.0.0.5", Answer::Granted(ip("10.0.0.5"))),
    ] {
        assert_eq!(ledger.reserve(3, Want::Exactly(ip(address))), answer, "{address}");
    }
    assert_eq!(ledger.reserve(3, Want::Lowest), Answer::Granted(ip("10.0.0.5")), "the same again");
}

#[test]
fn a_loser_retries_on_one_of_the_lowest() {
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.12"], 24));
    assert_eq!(ledger.reserve(1, Want::Nth(7)), Answer::Granted(ip("10.0.0.11")));
    assert_eq!(ledger.reserve(2, Want::Nth(1)), Answer::Granted(ip("10.0.0.12")));
}

#[test]
fn a_reservation_lives_until_its_object_is_seen() {
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.11"], 24));
    ledger.reserve(1, Want::Lowest);
    ledger.set_state(1, ReservationState::Sent);
    let expected = Reservation { span: ip("10.0.0.10"), state: ReservationState::Sent };
    assert_eq!(ledger.reservations().collect::<Vec<_>>(), [(1, expected)]);
    assert_eq!(ledger.counts().free, 2.into(), "not subtracted while in flight");
    ledger.observe(1, Some(ip("10.0.0.11")), Mark::Added(1));
    assert_eq!(ledger.reservation(1), Some(expected), "another value does not consume it");
    ledger.forget(1, Some(ip("10.0.0.11")));
    ledger.observe(1, Some(ip("10.0.0.10")), Mark::Added(2));
    assert_eq!(ledger.reservation(1), None);
    assert_eq!(ledger.counts(), Counts { total: 2.into(), used: 1, free: 1.into(), ..Counts::default() });
    assert_eq!(ledger.cancel(1), None);
}

#[test]
fn a_freed_address_wakes_the_oldest_waiter() {
    // Acceptance 4
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.19"], 24));
    for key in 0..10 {
        let Answer::Granted(span) = ledger.reserve(key, Want::Lowest) else { unreachable!() };
        ledger.observe(key, Some(span), Mark::Added(key.into()));
    }
    for key in (100..130).rev() {
        assert_eq!(ledger.reserve(key, Want::Lowest), Answer::NoRoom);
        ledger.wait(key, key.into(), None);
    }
    assert_eq!((ledger.serve(), ledger.position(105)), (vec![], Some(5)));
    for last in [15, 12, 17] {
        ledger.forget(last - 10, Some(ip(&format!("10.0.0.{last}"))));
    }
    assert_eq!(ledger.serve(), [100, 101, 102]);
    assert_eq!(ledger.reservation(100).map(|r| r.span), Some(ip("10.0.0.12")));
    assert_eq!((ledger.waiting(), ledger.is_waiting(100), ledger.position(105)), (27, false, Some(2)));
    ledger.cancel(101);
    ledger.leave(103);
    assert_eq!(ledger.serve(), [104]);
}

#[test]
fn growth_serves_waiters_although_addresses_are_out_of_range() {
    // Acceptance 5
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.14"], 24));
    for (key, last) in (0..).zip(10..15) {
        ledger.observe(key, Some(ip(&format!("10.0.0.{last}"))), Mark::Listed(1));
    }
    ledger.wait(9, 1, None);
    ledger.resize(Some(ip_pool(&["10.0.0.13-10.0.0.14"], 24)));
    assert_eq!(ledger.serve(), []);
    let expected = Counts { total: 2.into(), used: 5, out_of_range: 3, ..Counts::default() };
    assert_eq!(ledger.counts(), expected);
    ledger.resize(Some(ip_pool(&["10.0.0.13-10.0.0.15"], 24)));
    assert_eq!(ledger.serve(), [9]);
    assert_eq!(ledger.reservation(9).map(|r| r.span), Some(ip("10.0.0.15")));
}

#[test]
fn a_waiter_for_one_value_comes_first_and_blocks_nobody() {
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.11"], 24));
    ledger.observe(1, Some(ip("10.0.0.10")), Mark::Listed(1));
    ledger.observe(2, Some(ip("10.0.0.11")), Mark::Listed(1));
    ledger.wait(3, 1, Some(ip("10.0.0.11")));
    ledger.wait(4, 2, None);
    ledger.wait(5, 3, Some(ip("10.0.0.10")));
    ledger.forget(1, Some(ip("10.0.0.10")));
    assert_eq!(ledger.serve(), [5]);
    ledger.cancel(5);
    assert_eq!(ledger.serve(), [4]);
    ledger.forget(2, Some(ip("10.0.0.11")));
    assert_eq!(ledger.serve(), [3]);
}

#[test]
fn a_waiter_that_left_does_not_hold_up_the_next() {
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.11"], 24));
    ledger.wait(1, 1, Some(ip("10.0.0.10")));
    ledger.wait(2, 2, Some(ip("10.0.0.11")));
    ledger.leave(1);
    assert_eq!(ledger.serve(), [2]);
}

#[test]
fn parked_values_go_last_and_oldest_first() {
    // Acceptance 13
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.12"], 24));
    ledger.park(ip("10.0.0.10"), 7);
    ledger.park(ip("10.0.0.11"), 3);
    ledger.park(ip("10.0.0.99"), 1);
    assert_eq!(drain(&mut ledger, 4), ["10.0.0.12", "10.0.0.11", "10.0.0.10", "NoRoom"]);
    ledger.cancel(1002);
    ledger.park(ip("10.0.0.10"), 9);
    assert_eq!(ledger.reserve(1, Want::Exactly(ip("10.0.0.10"))), Answer::Granted(ip("10.0.0.10")));
    assert_eq!(ledger.counts().parked, 3);
    ledger.unpark(&ip("10.0.0.99"));
    let parked: Vec<_> = ledger.parked().collect();
    assert_eq!(parked, [(ip("10.0.0.10"), 9), (ip("10.0.0.11"), 3)]);
}

#[test]
fn a_withheld_value_is_given_only_by_name() {
    // Acceptance 12
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.11"], 24));
    ledger.withhold([ip("10.0.0.10")]);
    ledger.park(ip("10.0.0.10"), 1);
    assert_eq!(drain(&mut ledger, 2), ["10.0.0.11", "NoRoom"]);
    ledger.wait(1, 1, None);
    assert_eq!(ledger.serve(), []);
    assert_eq!(ledger.reserve(2, Want::Exactly(ip("10.0.0.10"))), Answer::Granted(ip("10.0.0.10")));
    ledger.cancel(2);
    ledger.withhold([]);
    assert_eq!(ledger.serve(), [1]);
}

#[test]
fn without_a_spec_objects_are_held_and_nothing_is_given() {
    let mut ledger = Book::new();
    ledger.observe(1, Some(ip("10.0.0.10")), Mark::Listed(1));
    ledger.observe(2, None, Mark::Listed(1));
    assert_eq!(ledger.reserve(3, Want::Lowest), Answer::NoPool);
    assert_eq!(ledger.counts(), Counts { used: 2, ..Counts::default() });
    ledger.wait(3, 1, None);
    ledger.resize(Some(ip_pool(&["10.0.0.10-10.0.0.11"], 24)));
    assert_eq!(ledger.serve(), [3]);
    assert_eq!(ledger.reservation(3).map(|r| r.span), Some(ip("10.0.0.11")));
    assert_eq!(ledger.standing(1, &ip("10.0.0.10")), Standing::Alone);
    ledger.resize(None);
    assert_eq!(ledger.reserve(4, Want::Lowest), Answer::NoPool);
    assert_eq!(ledger.counts(), Counts { used: 2, reserved: 1, ..Counts::default() });
}

#[test]
fn unreadable_objects_are_used_and_in_prefix_pools_out_of_range() {
    // Acceptance 11
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.11"], 24));
    ledger.observe(1, None, Mark::Listed(1));
    ledger.observe(1, None, Mark::Listed(2));
    assert_eq!(ledger.counts(), Counts { total: 2.into(), used: 1, free: 2.into(), ..Counts::default() });
    ledger.resize(Some(prefix_pool(&["fd00::/63"], 64, &[])));
    assert_eq!(ledger.counts().out_of_range, 1);
    ledger.forget(1, None);
    assert_eq!((ledger.counts().used, ledger.counts().out_of_range), (0, 0));
}

#[test]
fn only_the_provably_first_holder_wins() {
    let x = ip("10.0.0.10");
    for (mine, other, standing) in [
        (Mark::Added(1), Mark::Added(2), Standing::First),
        (Mark::Listed(1), Mark::Added(2), Standing::First),
        (Mark::Added(2), Mark::Added(1), Standing::Behind(2)),
        (Mark::Listed(1), Mark::Listed(1), Standing::Behind(2)),
        (Mark::Listed(1), Mark::Listed(5), Standing::Behind(2)),
        (Mark::Added(1), Mark::Listed(5), Standing::Behind(2)),
    ] {
        let mut ledger = book(ip_pool(&["10.0.0.10"], 24));
        assert_eq!(ledger.standing(1, &x), Standing::Unseen);
        ledger.observe(1, Some(x), mine);
        assert_eq!(ledger.standing(1, &x), Standing::Alone);
        ledger.observe(2, Some(x), other);
        ledger.observe(1, Some(x), Mark::Added(9));
        assert_eq!(ledger.standing(1, &x), standing, "{mine:?} {other:?}");
        ledger.forget(2, Some(x));
        assert_eq!(ledger.standing(1, &x), Standing::Alone);
    }
}

#[test]
fn duplicates_are_listed_with_their_holders() {
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.12"], 24));
    for (key, last) in [(1, 10), (2, 11), (3, 10), (4, 12), (5, 12), (6, 10)] {
        ledger.observe(key, Some(ip(&format!("10.0.0.{last}"))), Mark::Added(1));
    }
    let duplicate = |span: &str, holders: &[u32]| Duplicate { span: ip(span), holders: holders.to_vec() };
    assert_eq!(ledger.duplicates(5), [duplicate("10.0.0.10", &[1, 3, 6]), duplicate("10.0.0.12", &[4, 5])]);
    assert_eq!(ledger.duplicates(1).len(), 1);
    ledger.forget(1, Some(ip("10.0.0.10")));
    ledger.forget(4, Some(ip("10.0.0.12")));
    assert_eq!((ledger.duplicate_count(), ledger.duplicates(5)), (1, vec![duplicate("10.0.0.10", &[3, 6])]));
    assert_eq!(ledger.counts().free, 0.into(), "a value with other holders left stays taken");
}

#[test]
fn a_prefix_of_foreign_length_blocks_every_block_it_touches() {
    let mut ledger = book(prefix_pool(&["fd00::/60"], 64, &[]));
    ledger.observe(1, Some(block("fd00::/62")), Mark::Added(1));
    ledger.observe(2, Some(block("fd00:0:0:1::/64")), Mark::Added(2));
    ledger.observe(3, Some(block("fd00:0:0:4:1::/80")), Mark::Added(3));
    ledger.observe(4, Some(block("fd00:0:0:4:2::/80")), Mark::Added(4));
    let expected = Counts { total: 16.into(), used: 4, free: 11.into(), out_of_range: 3, ..Counts::default() };
    assert_eq!(ledger.counts(), expected);
    assert_eq!(ledger.reserve(9, Want::Exactly(block("fd00:0:0:4::/64"))), Answer::HeldBy(3));
    assert_eq!(drain(&mut ledger, 1), ["fd00:0:0:5::"]);

    assert_eq!(ledger.standing(1, &block("fd00::/62")), Standing::First);
    assert_eq!(ledger.standing(2, &block("fd00:0:0:1::/64")), Standing::Behind(1));
    assert_eq!(ledger.standing(3, &block("fd00:0:0:4:1::/80")), Standing::Alone);
    assert_eq!(ledger.duplicates(5), [Duplicate { span: block("fd00::/62"), holders: vec![1, 2] }]);

    ledger.forget(1, Some(block("fd00::/62")));
    assert_eq!(ledger.duplicate_count(), 0);
    assert_eq!(ledger.counts().free, 14.into(), "the block with another holder stays blocked");
    ledger.forget(3, Some(block("fd00:0:0:4:1::/80")));
    assert_eq!(drain(&mut ledger, 5)[1..], ["fd00::", "fd00:0:0:2::", "fd00:0:0:3::", "fd00:0:0:6::"]);
}

#[test]
fn a_reservation_outside_the_new_spec_finishes_out_of_range() {
    let mut ledger = book(ip_pool(&["10.0.0.10-10.0.0.11"], 24));
    ledger.reserve(1, Want::Exactly(ip("10.0.0.11")));
    ledger.resize(Some(ip_pool(&["10.0.0.10"], 24)));
    assert_eq!(ledger.reservation(1).map(|r| r.span), Some(ip("10.0.0.11")));
    ledger.observe(1, Some(ip("10.0.0.11")), Mark::Added(1));
    let expected = Counts { total: 1.into(), used: 1, free: 1.into(), out_of_range: 1, ..Counts::default() };
    assert_eq!(ledger.counts(), expected);
    ledger.forget(1, Some(ip("10.0.0.11")));
    assert_eq!(drain(&mut ledger, 2), ["10.0.0.10", "NoRoom"], "it does not return");
}
