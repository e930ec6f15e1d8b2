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
        let pairs = self.units.pairs().iter().map(|&(first, last)| {
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
        if block.ip() == ip { Ok(block) } else { Err(ParseError::NotBase { block }) }
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
        let reasons: Vec<String> = left
            .pairs()
            .iter()
            .flat_map(|&(first, last)| first..=last)
            .map(|unit| format!("{} {}", self.shape.span(unit), self.kept_back(unit)))
            .collect();
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
