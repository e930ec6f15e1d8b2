//! Classes, networks and masks against slow and obvious models.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use poolutil::{Cidr, Class, Family, class, mask_flaws, merged};
use proptest::prelude::*;

/// The bits of an address, the first of them first.
fn bits(ip: IpAddr) -> Vec<bool> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
        (any::<u64>(), 0_u32..128)
            .prop_map(|(bits, shift)| IpAddr::V6(Ipv6Addr::from_bits(u128::from(bits).rotate_right(shift)))),
    ]
}

const NEVER: [&str; 10] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/96",
    "::ffff:0:0/96",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15", "fc00::/7"];

proptest! {
    #[test]
    fn a_network_contains_what_shares_its_first_bits(base in address(), other in address(), length in 0_u8..=128) {
        let length = length.min(Family::of(base).bits());
        let cidr: Cidr = format!("{base}/{length}").parse().unwrap();
        let shared = bits(base).iter().zip(bits(other)).take_while(|(left, right)| **left == *right).count();
        let expected = Family::of(base) == Family::of(other) && shared >= usize::from(length);
        prop_assert_eq!(cidr.contains(other), expected);
        prop_assert!(cidr.contains(base));
        prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
    }

    #[test]
    fn a_class_is_that_of_the_listed_networks(ip in address()) {
        let within = |list: &[&str]| list.iter().any(|cidr| cidr.parse::<Cidr>().unwrap().contains(ip));
        let expected = if within(&NEVER) { Class::Never } else if within(&PRIVATE) { Class::Private } else { Class::Public };
        prop_assert_eq!(class(ip), expected);
    }

    #[test]
    fn masks_are_flawed_exactly_where_a_bit_has_not_one_owner(masks in prop::collection::vec(any::<u32>(), 0..5)) {
        let masks: Vec<IpAddr> = masks.into_iter().map(|mask| Ipv4Addr::from_bits(mask).into()).collect();
        let flaws = mask_flaws(Family::V4, &masks);
        let owners = |bit: usize| masks.iter().filter(|mask| bits(**mask)[bit]).count();
        let has = |flaw: Option<IpAddr>, bit: usize| flaw.is_some_and(|flaw| bits(flaw)[bit]);
        for bit in 0..32 {
            prop_assert_eq!((has(flaws.overlap, bit), has(flaws.gap, bit)), (owners(bit) > 1, owners(bit) == 0));
        }
    }

    #[test]
    fn each_bit_comes_from_the_part_that_owns_it(owner in prop::collection::vec(0_usize..3, 128), answers in prop::array::uniform3(any::<u128>())) {
        let mask = |part: usize| owner.iter().fold(0_u128, |mask, owner| mask << 1 | u128::from(*owner == part));
        let v6 = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
        let parts: Vec<(IpAddr, IpAddr)> = (0..3).map(|part| (v6(mask(part)), v6(answers[part]))).collect();
        let masks: Vec<IpAddr> = parts.iter().map(|(mask, _)| *mask).collect();
        prop_assert_eq!(mask_flaws(Family::V6, &masks), poolutil::MaskFlaws::default());
        let result = bits(merged(Family::V6, parts));
        for (bit, owner) in owner.iter().enumerate() {
            prop_assert_eq!(result[bit], bits(v6(answers[*owner]))[bit]);
        }
    }
}
