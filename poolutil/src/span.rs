//! One address family, one range, one address or prefix. The vocabulary of every other module.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::parse::{ParseError, parse_ip};

/// An address family. A v4-mapped IPv6 text (`::ffff:10.0.0.1`) is IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4, 32 bits.
    V4,
    /// IPv6, 128 bits.
    V6,
}

impl Family {
    /// The length of an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The highest address, all ones.
    pub const fn max(self) -> u128 {
        self.hosts(0)
    }

    /// The bits behind a prefix of `len`, all ones. `len` is at most [`Family::bits`].
    pub(crate) const fn hosts(self, len: u8) -> u128 {
        match self.bits() - len {
            0 => 0,
            host => u128::MAX >> (128 - host),
        }
    }

    pub(crate) fn ip(self, value: u128) -> IpAddr {
        match self {
            // The set types keep v4 values below 2^32.
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(value).unwrap_or(u32::MAX))),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(value)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

pub(crate) fn bits_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// The addresses from `first` to `last`, both included; never empty. Displayed as `10.0.0.10-10.0.0.12`,
/// a single address as `10.0.0.20-10.0.0.20`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddrRange {
    family: Family,
    first: u128,
    last: u128,
}

impl AddrRange {
    /// A range, or nothing if it is reversed or leaves the family.
    pub const fn new(family: Family, first: u128, last: u128) -> Option<Self> {
        if first <= last && last <= family.max() { Some(Self { family, first, last }) } else { None }
    }

    /// The family of both ends.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub const fn first(&self) -> u128 {
        self.first
    }

    /// The highest address.
    pub const fn last(&self) -> u128 {
        self.last
    }

    /// The lowest address, as such.
    pub fn first_ip(&self) -> IpAddr {
        self.family.ip(self.first)
    }

    /// The highest address, as such.
    pub fn last_ip(&self) -> IpAddr {
        self.family.ip(self.last)
    }

    /// Whether the address `value` of the same family lies in the range.
    pub const fn contains(&self, value: u128) -> bool {
        self.first <= value && value <= self.last
    }

    /// Whether all of `other` lies in the range.
    pub fn covers(&self, other: &Self) -> bool {
        self.family == other.family && self.first <= other.first && other.last <= self.last
    }
}

impl fmt::Display for AddrRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first_ip(), self.last_ip())
    }
}

/// What one `IPAddress` object carries: an address (length 32 or 128) or a prefix. Host bits are zero.
///
/// Displayed as its base address in RFC 5952 form, which is what `spec.address` shows; the length stands
/// beside it in the object.
///
/// ```
/// use poolutil::Span;
/// let block = Span::parse("FD00:0:0:5::1234", 64)?;
/// assert_eq!(block.to_string(), "fd00:0:0:5::");
/// assert!(block.overlaps(&Span::parse("fd00::", 48)?));
/// # Ok::<(), poolutil::ParseError>(())
/// ```
// The derived order (family, base, shorter first) is what the ledger's range queries stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    family: Family,
    base: u128,
    len: u8,
}

impl Span {
    /// The prefix of `len` around `address`, or nothing if either leaves the family.
    pub const fn new(family: Family, address: u128, len: u8) -> Option<Self> {
        if len <= family.bits() && address <= family.max() { Some(Self::around(family, address, len)) } else { None }
    }

    /// [`Span::new`] for values that cannot leave the family.
    pub(crate) const fn around(family: Family, address: u128, len: u8) -> Self {
        Self { family, base: address & !family.hosts(len), len }
    }

    /// A single address.
    pub fn host(ip: IpAddr) -> Self {
        let family = Family::of(ip);
        Self::around(family, bits_of(ip), family.bits())
    }

    /// What an object with this `spec.address` and this prefix length holds in a prefix pool. Host bits are masked.
    pub fn parse(address: &str, len: u8) -> Result<Self, ParseError> {
        let ip = parse_ip(address)?;
        let family = Family::of(ip);
        Self::new(family, bits_of(ip), len).ok_or(ParseError::Length { most: family.bits() })
    }

    /// What an object with this `spec.address` holds in an IP pool: that address alone, whatever its `spec.prefix`.
    pub fn parse_host(address: &str) -> Result<Self, ParseError> {
        parse_ip(address).map(Self::host)
    }

    /// The family of the address.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The prefix length; 32 or 128 for a single address.
    pub const fn length(&self) -> u8 {
        self.len
    }

    /// The lowest address, which is the base.
    pub const fn first(&self) -> u128 {
        self.base
    }

    /// The highest address.
    pub const fn last(&self) -> u128 {
        self.base | self.family.hosts(self.len)
    }

    /// The base, as an address.
    pub fn ip(&self) -> IpAddr {
        self.family.ip(self.base)
    }

    /// All its addresses.
    pub const fn range(&self) -> AddrRange {
        AddrRange { family: self.family, first: self.base, last: self.last() }
    }

    /// Whether the two share an address. Prefixes do so only if one contains the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.family == other.family && self.base <= other.last() && other.base <= self.last()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_masked() {
        // P26
        let span = Span::parse("fd00:0:0:5::1234", 64).unwrap();
        assert_eq!(span.to_string(), "fd00:0:0:5::");
        assert_eq!(span, Span::parse("fd00:0:0:5::", 64).unwrap());
    }

    #[test]
    fn lengths_zero_and_full_have_their_ends() {
        let all = Span::new(Family::V6, 5, 0).unwrap();
        assert_eq!((all.first(), all.last()), (0, u128::MAX));
        let all = Span::new(Family::V4, 5, 0).unwrap();
        assert_eq!((all.first(), all.last()), (0, u128::from(u32::MAX)));
        let top = Span::new(Family::V6, u128::MAX, 128).unwrap();
        assert_eq!((top.first(), top.last()), (u128::MAX, u128::MAX));
    }

    #[test]
    fn what_leaves_the_family_is_refused() {
        assert_eq!(Span::new(Family::V4, 0, 33), None);
        assert_eq!(Span::new(Family::V4, 1 << 32, 32), None);
        assert_eq!(AddrRange::new(Family::V4, 0, 1 << 32), None);
        assert_eq!(AddrRange::new(Family::V6, 2, 1), None);
        assert!(Span::parse("10.0.0.1", 64).is_err());
    }

    #[test]
    fn addresses_are_written_in_rfc_5952_form() {
        for (text, written) in [
            ("FE80:0:0::0:A", "fe80::a"),
            ("2001:DB8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
            ("::FFFF:10.0.0.1", "::ffff:10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(Span::parse_host(text).unwrap().to_string(), written);
        }
    }
}
