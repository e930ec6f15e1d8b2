//! What a pool can hand out, and why it cannot hand out something. Called by the allocator and by admission.

use std::fmt;

use crate::count::Count;
use crate::parse::{ParseError, parse_ip, parse_prefix};
use crate::range_set::RangeSet;
use crate::shape::Shape;
use crate::span::{AddrRange, Family, Span, bits_of};
use crate::spec::{IpPoolSpec, PrefixPoolSpec, SpecError, first_of};

/// Why a pool does not hand out a value. Displayed as the end of a sentence that begins with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is of the other IP family.
    WrongFamily(Family),
    /// It has another length than the pool hands out.
    WrongLength(u8),
    /// The pool does not list it.
    NotInPool,
    /// An exclusion takes it away.
    Excluded,
    /// It is the first address of an IPv4 subnet.
    Network,
    /// It is the last address of an IPv4 subnet.
    Broadcast,
    /// It is the first address of an IPv6 subnet (RFC 4291, 2.6.1).
    SubnetRouterAnycast,
    /// It is the pool's gateway.
    Gateway,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongFamily(family) => write!(f, "is of the wrong family, the pool has {family}"),
            Self::WrongLength(length) => {
                write!(f, "has the wrong length, the pool hands out length {length}")
            }
            Self::NotInPool => f.write_str("is not in the pool"),
            Self::Excluded => f.write_str("is excluded from the pool"),
            Self::Network => f.write_str("is reserved as the network address"),
            Self::Broadcast => f.write_str("is reserved as the broadcast address"),
            Self::SubnetRouterAnycast => f.write_str("is reserved as the subnet-router anycast address"),
            Self::Gateway => f.write_str("is the gateway"),
        }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Addresses { subnet: Span, gateway: Option<u128> },
    Prefixes,
}

/// The allocatable space of one pool.
///
/// Inside it counts in *units*: an address, or the number of a block (`address >> (128 - length)`).
///
/// ```
/// use poolutil::{Pool, PrefixPoolSpec, Refusal};
/// let prefixes = ["fd00::/62".to_owned()];
/// let excluded = ["fd00:0:0:1::7".to_owned()];
/// let spec = PrefixPoolSpec { prefixes: &prefixes, length: 64, gateway: "", excluded: &excluded };
/// let pool = Pool::prefixes(&spec)?;
/// assert_eq!(pool.total().to_string(), "3");
/// let block = pool.parse_request("fd00:0:0:1::/64").unwrap();
/// assert_eq!(pool.refusal(&block), Some(Refusal::Excluded));
/// # Ok::<(), poolutil::SpecError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pool {
    shape: Shape,
    kind: Kind,
    /// In units: what is listed, what is excluded, and what remains for allocation.
    listed: RangeSet,
    excluded: RangeSet,
    units: RangeSet,
    total: Count,
}

impl Pool {
    /// An IP pool, or the first rule that makes allocation impossible. [`IpPoolSpec::parse`] reports all.
    pub fn ip(spec: &IpPoolSpec<'_>) -> Result<Self, SpecError> {
        spec.parse().map_err(first_of)
    }

    /// A prefix pool, or the first broken rule. [`PrefixPoolSpec::parse`] reports all.
    pub fn prefixes(spec: &PrefixPoolSpec<'_>) -> Result<Self, SpecError> {
        spec.parse().map_err(first_of)
    }

    pub(crate) fn of_addresses(
        family: Family,
        listed: Vec<AddrRange>,
        prefix: u8,
        gateway: Option<u128>,
        excluded: Vec<AddrRange>,
        allocate_reserved: bool,
    ) -> Self {
        let listed = RangeSet::new(family, listed);
        let excluded = RangeSet::new(family, excluded);
        let subnet = Span::around(family, listed.first().unwrap_or(0), prefix);
        let mut kept_back: Vec<(u128, u128)> = gateway.map(|at| (at, at)).into_iter().collect();
        if !allocate_reserved {
            kept_back.push((subnet.first(), subnet.first()));
            if family == Family::V4 {
                kept_back.push((subnet.last(), subnet.last()));
            }
        }
        let units = listed.subtract(&excluded).subtract(&RangeSet::merged(family, kept_back));
        let kind = Kind::Addresses { subnet, gateway };
        Self { shape: Shape { family, length: family.bits() }, kind, listed, excluded, total: units.count(), units }
    }

    /// Blocks of `length` (1 to 128) out of IPv6 ranges aligned to it.
    pub(crate) fn of_prefixes(length: u8, listed: &[AddrRange], excluded: &[AddrRange]) -> Self {
        let family = Family::V6;
        let shape = Shape { family, length };
        let blocks = |ranges: &[AddrRange]| {
            let pairs = ranges.iter().map(|range| shape.around(range));
            RangeSet::merged(family, pairs.collect())
        };
        let (listed, excluded) = (blocks(listed), blocks(excluded));
        let units = listed.subtract(&excluded);
        Self { shape, kind: Kind::Prefixes, listed, excluded, total: units.count(), units }
    }

    /// The family of everything it hands out.
    pub fn family(&self) -> Family {
        self.shape.family
    }

    /// The length of what it hands out: 32 or 128 for an IP pool, the allocation length for a prefix pool.
    pub fn length(&self) -> u8 {
        self.shape.length
    }

    /// Whether this is a prefix pool.
    pub fn hands_out_prefixes(&self) -> bool {
        matches!(self.kind, Kind::Prefixes)
    }

    /// The subnet of an IP pool: the network of the pool's prefix around the lowest listed address.
    pub fn subnet(&self) -> Option<Span> {
        match self.kind {
            Kind::Addresses { subnet, .. } => Some(subnet),
            Kind::Prefixes => None,
        }
    }

    /// The number of addresses or blocks that can be handed out.
    pub fn total(&self) -> Count {
        self.total
    }

    /// Every address inside what can be handed out.
    pub fn address_ranges(&self) -> RangeSet {
        self.addresses_of(&self.units)
    }

    /// Every address that the spec lists, before anything is taken away.
    pub fn listed_ranges(&self) -> RangeSet {
        self.addresses_of(&self.listed)
    }

    fn addresses_of(&self, units: &RangeSet) -> RangeSet {
        let pairs = units.pairs().iter().map(|&(first, last)| {
            let (first, last) = (self.shape.span(first), self.shape.span(last));
            (first.first(), last.last())
        });
        RangeSet::merged(self.shape.family, pairs.collect())
    }

    /// Whether the value can be handed out by this pool, if nobody holds it.
    pub fn is_allocatable(&self, span: &Span) -> bool {
        self.shape.unit(span).is_some_and(|unit| self.units.contains(unit))
    }

    /// Why the value cannot be handed out; nothing if it can.
    pub fn refusal(&self, span: &Span) -> Option<Refusal> {
        if span.family() != self.shape.family {
            return Some(Refusal::WrongFamily(self.shape.family));
        }
        let Some(unit) = self.shape.unit(span) else {
            return Some(Refusal::WrongLength(self.shape.length));
        };
        if self.units.contains(unit) {
            None
        } else if !self.listed.contains(unit) {
            Some(Refusal::NotInPool)
        } else if self.excluded.contains(unit) {
            Some(Refusal::Excluded)
        } else {
            Some(self.kept_back(unit))
        }
    }

    /// Reads a value somebody asks for: an IP; in a prefix pool a base address or a CIDR. Whether the pool has
    /// it is for [`Pool::refusal`] to say.
    pub fn parse_request(&self, text: &str) -> Result<Span, ParseError> {
        if !self.hands_out_prefixes() {
            return Span::parse_host(text);
        }
        if text.contains('/') {
            return parse_prefix(text);
        }
        let ip = parse_ip(text)?;
        if Family::of(ip) != self.shape.family {
            return Ok(Span::host(ip));
        }
        let block = Span::around(self.shape.family, bits_of(ip), self.shape.length);
        if block.ip() == ip { Ok(block) } else { Err(ParseError::NotBase { base: block.ip(), length: self.length() }) }
    }

    /// Why nothing can be handed out at all; nothing if something can.
    pub fn why_empty(&self) -> Option<String> {
        if !self.total.is_zero() {
            return None;
        }
        if self.hands_out_prefixes() {
            return Some(format!("every block of length {} is touched by an entry of excludedPrefixes", self.shape.length));
        }
        let left = self.listed.subtract(&self.excluded);
        if left.is_empty() {
            return Some("every address is excluded".to_owned());
        }
        // At most three: network, broadcast, gateway.
        let mut reasons: Vec<String> = left
            .pairs()
            .iter()
            .flat_map(|&(first, last)| first..=last)
            .map(|unit| format!("{} {}", self.shape.span(unit), self.kept_back(unit)))
            .collect();
        reasons.push("list more addresses or set allocateReservedIPAddresses".to_owned());
        Some(reasons.join(", "))
    }

    pub(crate) fn units(&self) -> &RangeSet {
        &self.units
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// Why a listed unit that no exclusion takes away is not allocatable.
    fn kept_back(&self, unit: u128) -> Refusal {
        match self.kind {
            Kind::Addresses { gateway: Some(gateway), .. } if gateway == unit => Refusal::Gateway,
            Kind::Addresses { subnet, .. } if unit != subnet.first() => Refusal::Broadcast,
            Kind::Addresses { .. } if self.shape.family == Family::V6 => Refusal::SubnetRouterAnycast,
            Kind::Addresses { .. } => Refusal::Network,
            Kind::Prefixes => Refusal::Excluded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|&entry| entry.to_owned()).collect()
    }

    struct Ip<'a>(&'a [&'a str], i64, &'a str, &'a [&'a str], bool);

    impl Ip<'_> {
        fn pool(&self) -> Pool {
            let (addresses, excluded) = (texts(self.0), texts(self.3));
            Pool::ip(&IpPoolSpec {
                addresses: &addresses,
                prefix: self.1,
                gateway: self.2,
                excluded: &excluded,
                allocate_reserved: self.4,
                grace_seconds: 0,
            })
            .unwrap()
        }
    }

    fn prefixes(prefixes: &[&str], length: i64, gateway: &str, excluded: &[&str]) -> Pool {
        let (prefixes, excluded) = (texts(prefixes), texts(excluded));
        Pool::prefixes(&PrefixPoolSpec { prefixes: &prefixes, length, gateway, excluded: &excluded }).unwrap()
    }

    fn ranges(pool: &Pool) -> Vec<String> {
        let set = pool.address_ranges();
        set.iter().map(|range| range.to_string()).collect()
    }

    fn has(pool: &Pool, address: &str) -> bool {
        pool.is_allocatable(&pool.parse_request(address).unwrap())
    }

    fn refusal(pool: &Pool, address: &str) -> Option<Refusal> {
        pool.refusal(&pool.parse_request(address).unwrap())
    }

    #[test]
    fn what_is_listed_includes_what_is_taken_away() {
        let pool = Ip(&["10.0.0.0/24"], 24, "10.0.0.1", &["10.0.0.64/26"], false).pool();
        let listed: Vec<_> = pool.listed_ranges().iter().map(|range| range.to_string()).collect();
        assert_eq!(listed, ["10.0.0.0-10.0.0.255"]);
        let listed: Vec<_> =
            prefixes(&["fd00::/62"], 64, "", &["fd00::"]).listed_ranges().iter().map(|range| range.to_string()).collect();
        assert_eq!(listed, ["fd00::-fd00::3:ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn an_ipv4_pool_keeps_network_broadcast_and_gateway_back() {
        // P1 to P5
        for (entries, prefix, allocatable, total) in [
            (&["192.168.0.3-192.168.0.10"][..], 0, &["192.168.0.3-192.168.0.10"][..], 8),
            (
                &["192.168.0.2", "192.168.0.3-192.168.0.4", "192.168.0.6/31"],
                24,
                &["192.168.0.2-192.168.0.4", "192.168.0.6-192.168.0.7"],
                5,
            ),
            (
                &["192.168.0.0", "192.168.0.3-192.168.0.4", "192.168.0.6/31"],
                24,
                &["192.168.0.3-192.168.0.4", "192.168.0.6-192.168.0.7"],
                4,
            ),
            (
                &["192.168.1.0", "192.168.0.255", "192.168.255.255", "192.168.0.3-192.168.0.4", "192.168.0.6/31"],
                16,
                &["192.168.0.3-192.168.0.4", "192.168.0.6-192.168.0.7", "192.168.0.255-192.168.1.0"],
                6,
            ),
            (
                &["192.168.0.1", "192.168.0.3-192.168.0.4", "192.168.0.6/31"],
                24,
                &["192.168.0.3-192.168.0.4", "192.168.0.6-192.168.0.7"],
                4,
            ),
        ] {
            let pool = Ip(entries, prefix, "192.168.0.1", &[], false).pool();
            assert_eq!(ranges(&pool), allocatable, "{entries:?}");
            assert_eq!(pool.total(), total.into());
        }
    }

    #[test]
    fn reserved_addresses_are_given_when_allowed_but_never_the_gateway() {
        // P6
        let entries = ["192.168.0.0", "192.168.0.1", "192.168.0.3-192.168.0.4", "192.168.0.6/31", "192.168.0.255"];
        let pool = Ip(&entries, 24, "192.168.0.1", &[], true).pool();
        assert!(has(&pool, "192.168.0.0") && has(&pool, "192.168.0.255"));
        assert_eq!(refusal(&pool, "192.168.0.1"), Some(Refusal::Gateway));
        assert_eq!(pool.total(), 6.into());
        // P14
        let entries = ["fd01::", "fd01::1", "fd01::3-fd01::4", "fd01::6/127", "fd01::ffff:ffff"];
        let pool = Ip(&entries, 120, "fd01::1", &[], true).pool();
        assert!(has(&pool, "fd01::") && has(&pool, "fd01::ffff:ffff"));
        assert_eq!(refusal(&pool, "fd01::1"), Some(Refusal::Gateway));
        assert_eq!(pool.total(), 6.into());
    }

    #[test]
    fn exclusions_are_taken_away() {
        // P7 to P9
        for (entry, excluded, total) in [
            ("192.168.0.0-192.168.0.10", &["192.168.0.5", "192.168.0.6", "192.168.0.7"][..], 6),
            ("192.168.0.0/24", &["192.168.0.128/25"], 126),
            ("192.168.0.0/24", &["192.168.0.2-192.168.0.20"], 234),
        ] {
            let pool = Ip(&[entry], 24, "192.168.0.1", excluded, false).pool();
            assert_eq!(pool.total(), total.into(), "{excluded:?}");
        }
        let pool = Ip(&["192.168.0.0-192.168.0.10"], 24, "192.168.0.1", &["192.168.0.5-192.168.0.7"], false).pool();
        assert_eq!(ranges(&pool), ["192.168.0.2-192.168.0.4", "192.168.0.8-192.168.0.10"]);
    }

    #[test]
    fn an_ipv6_pool_keeps_the_anycast_address_and_the_gateway_back() {
        // P10 to P13
        for (first, total) in [("fd01::2", 5), ("fd01::", 4), ("fd01::1", 4)] {
            let entries = [first, "fd01::3-fd01::4", "fd01::6/127"];
            let pool = Ip(&entries, 120, "fd01::1", &[], false).pool();
            assert_eq!(pool.total(), total.into(), "{first}");
            assert_eq!(has(&pool, first), total == 5);
        }
        let entries = ["fd01::ffff", "fd01::1:0", "fd01::ffff:ffff", "fd01::3-fd01::4", "fd01::6/127"];
        let pool = Ip(&entries, 112, "fd01::1", &[], false).pool();
        assert_eq!(pool.total(), 7.into());
        assert!(has(&pool, "fd01::ffff"));
    }

    #[test]
    fn the_subnet_is_around_the_lowest_address() {
        let pool = Ip(&["10.0.1.7", "10.0.0.9"], 24, "", &[], false).pool();
        assert_eq!(pool.subnet().unwrap().range().to_string(), "10.0.0.0-10.0.0.255");
    }

    #[test]
    fn a_point_to_point_subnet_is_empty_unless_reserved_addresses_are_given() {
        // Acceptance 17
        for (entry, prefix, total, with_reserved) in
            [("10.0.0.4/31", 31, 0, 2), ("10.0.0.4/32", 32, 0, 1), ("fd00::4/127", 127, 1, 2), ("fd00::4/128", 128, 0, 1)]
        {
            let pool = Ip(&[entry], prefix, "", &[], false).pool();
            assert_eq!(pool.total(), total.into(), "{entry}");
            assert_eq!(pool.why_empty().is_some(), total == 0);
            let pool = Ip(&[entry], prefix, "", &[], true).pool();
            assert_eq!(pool.total(), with_reserved.into(), "{entry}");
            assert_eq!(pool.why_empty(), None);
        }
    }

    #[test]
    fn an_empty_pool_says_why() {
        let pool = Ip(&["10.0.0.4/31"], 31, "10.0.0.4", &[], false).pool();
        assert_eq!(
            pool.why_empty().unwrap(),
            "10.0.0.4 is the gateway, 10.0.0.5 is reserved as the broadcast address, \
             list more addresses or set allocateReservedIPAddresses"
        );
        let pool = Ip(&["10.0.0.4/30"], 24, "", &["10.0.0.0/8"], false).pool();
        assert_eq!(pool.why_empty().unwrap(), "every address is excluded");
        let pool = prefixes(&["fd00::/63"], 64, "", &["fd00::5", "fd00:0:0:1::/96"]);
        assert_eq!(pool.why_empty().unwrap(), "every block of length 64 is touched by an entry of excludedPrefixes");
    }

    #[test]
    fn a_refusal_names_its_reason() {
        let pool = Ip(&["10.0.0.0/24"], 24, "10.0.0.1", &["10.0.0.9"], false).pool();
        for (address, expected) in [
            ("10.0.0.0", Some(Refusal::Network)),
            ("10.0.0.1", Some(Refusal::Gateway)),
            ("10.0.0.2", None),
            ("10.0.0.9", Some(Refusal::Excluded)),
            ("10.0.0.255", Some(Refusal::Broadcast)),
            ("10.0.1.0", Some(Refusal::NotInPool)),
            ("fd00::", Some(Refusal::WrongFamily(Family::V4))),
        ] {
            assert_eq!(refusal(&pool, address), expected, "{address}");
        }
        let block = Span::parse("10.0.0.0", 28).unwrap();
        assert_eq!(pool.refusal(&block), Some(Refusal::WrongLength(32)));
        let pool = Ip(&["fd00::/120"], 120, "", &[], false).pool();
        assert_eq!(refusal(&pool, "fd00::"), Some(Refusal::SubnetRouterAnycast));
        assert_eq!(refusal(&pool, "fd00::ff"), None);
    }

    #[test]
    fn prefixes_are_merged_and_cut_into_blocks() {
        // P21, P27
        let pool = prefixes(&["fd00::/63", "fd00::/62", "fd00:0:0:8::/62"], 64, "", &[]);
        assert_eq!(pool.total(), 8.into());
        assert_eq!(ranges(&pool), ["fd00::-fd00::3:ffff:ffff:ffff:ffff", "fd00:0:0:8::-fd00::b:ffff:ffff:ffff:ffff"]);
        assert_eq!(prefixes(&["fd00::/62"], 64, "", &[]).total(), 4.into());
        let pool = prefixes(&["fd00::/48"], 56, "", &[]);
        assert_eq!(pool.total(), 256.into());
        assert_eq!(pool.parse_request("fd00::").unwrap(), Span::parse("fd00::", 56).unwrap());
    }

    #[test]
    fn a_gateway_blocks_no_prefix_but_an_exclusion_does() {
        // P23, P29
        let pool = prefixes(&["fd00::/62"], 64, "fd00::1", &["fd00:0:0:2::-fd00:0:0:2::1"]);
        assert!(has(&pool, "fd00::") && has(&pool, "fd00:0:0:1::/64"));
        assert_eq!(refusal(&pool, "fd00:0:0:2::"), Some(Refusal::Excluded));
        assert_eq!(refusal(&pool, "fd00:0:0:4::"), Some(Refusal::NotInPool));
        assert_eq!(refusal(&pool, "fd00::/63"), Some(Refusal::WrongLength(64)));
        assert_eq!(refusal(&pool, "10.0.0.1"), Some(Refusal::WrongFamily(Family::V6)));
        assert_eq!(pool.total(), 3.into());
    }

    #[test]
    fn an_exclusion_across_blocks_takes_every_block_it_touches() {
        let pool = prefixes(&["fd00::/62"], 64, "", &["fd00::ffff-fd00:0:0:1::"]);
        assert_eq!(ranges(&pool), ["fd00:0:0:2::-fd00::3:ffff:ffff:ffff:ffff"]);
    }

    #[test]
    fn a_request_is_an_address_or_the_base_of_a_block() {
        let pool = prefixes(&["fd00::/62"], 64, "", &[]);
        assert_eq!(
            pool.parse_request("fd00::5").unwrap_err().to_string(),
            "not the first address of a block of length 64, write fd00::"
        );
        assert!(pool.parse_request("fd00::1/64").is_err());
        let pool = Ip(&["10.0.0.0/24"], 24, "", &[], false).pool();
        assert!(pool.parse_request("10.0.0.5/32").is_err());
        assert_eq!(pool.parse_request("10.0.0.5").unwrap().to_string(), "10.0.0.5");
    }

    #[test]
    fn all_of_ipv6_can_be_handed_out() {
        // Acceptance 18
        let pool = prefixes(&["::/0"], 128, "", &[]);
        assert_eq!(pool.total(), Count::MAX);
        let pool = prefixes(&["::/0"], 1, "", &[]);
        assert_eq!(pool.total(), 2.into());
        let pool = Ip(&["fd00::/8"], 8, "", &[], false).pool();
        assert_eq!(pool.total().capped(), i64::MAX);
        assert_eq!(pool.total().to_string(), "1329227995784915872903807060280344575");
    }
}
