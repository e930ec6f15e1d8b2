//! The one reader of address texts: what admission accepts is exactly what the allocator reads.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::span::{AddrRange, Family, Span, bits_of};

/// Why a text is not the address, range or CIDR it should be. The message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Blanks before, after or within.
    Blanks,
    /// Neither an IPv4 nor an IPv6 address by its look.
    Garbage,
    /// Looks like IPv4 and is not.
    Ipv4,
    /// Looks like IPv6 and is not.
    Ipv6,
    /// A zone where none may stand, or an empty one.
    Zone,
    /// A prefix length behind what shall be a single address.
    Prefix,
    /// An end of a range that is not a plain IP.
    RangeEnd,
    /// A range from one family to the other.
    MixedRange,
    /// A range whose first address is above its last.
    Reversed,
    /// A prefix length that is no number, or too long for the family.
    Length {
        /// 32 or 128.
        most: u8,
    },
    /// A single address or a range where only a CIDR may stand.
    NotCidr,
    /// A CIDR whose address is not the first of its network.
    HostBits {
        /// The first address of the network.
        network: IpAddr,
        /// Its length.
        length: u8,
    },
    /// An address that is not the base of a block of the pool's length.
    NotBase {
        /// The base of the block around the address.
        base: IpAddr,
        /// The pool's length.
        length: u8,
    },
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blanks => f.write_str("blanks are not allowed, remove them"),
            Self::Garbage => f.write_str("unable to parse IP, write an IPv4 or IPv6 address"),
            Self::Ipv4 => f.write_str("not an IPv4 address, write four numbers from 0 to 255 without leading zeros"),
            Self::Ipv6 => {
                f.write_str("not an IPv6 address, write eight groups of up to four hexadecimal digits, or fewer with one `::`")
            }
            Self::Zone => f.write_str("a zone is not allowed here, remove the part from `%` on"),
            Self::Prefix => f.write_str("a prefix length is not allowed here, remove the part from `/` on"),
            Self::RangeEnd => f.write_str("a range needs a plain IP before and after its first `-`"),
            Self::MixedRange => f.write_str("a range needs two addresses of one IP family"),
            Self::Reversed => f.write_str("a range must not end below its start, swap the two addresses"),
            Self::Length { most } => {
                write!(f, "the prefix length must be a number from 0 to {most} without sign or leading zeros")
            }
            Self::NotCidr => f.write_str("write a CIDR, such as fd00::/48"),
            Self::HostBits { network, length } => {
                write!(f, "host bits are set, write {network}/{length}")
            }
            Self::NotBase { base, length } => write!(f, "not the first address of a block of length {length}, write {base}"),
        }
    }
}

impl std::error::Error for ParseError {}

/// One entry of `addresses`, `excludedAddresses` or `excludedPrefixes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The addresses it names.
    pub range: AddrRange,
    /// Whether an IPv6 zone was written, which means nothing here and is ignored.
    pub zone_dropped: bool,
}

/// Reads an entry: a range if it has a `-`, else a CIDR if it has a `/` (host bits are masked), else a single IP.
///
/// ```
/// use poolutil::parse_entry;
/// assert_eq!(parse_entry("10.0.0.10/24")?.range.to_string(), "10.0.0.0-10.0.0.255");
/// assert!(parse_entry("10.0.0.9-10.0.0.1").is_err());
/// # Ok::<(), poolutil::ParseError>(())
/// ```
pub fn parse_entry(text: &str) -> Result<Entry, ParseError> {
    if text.contains(char::is_whitespace) {
        return Err(ParseError::Blanks);
    }
    if let Some((first, last)) = text.split_once('-') {
        if [first, last].iter().any(|end| end.is_empty() || end.contains(['/', '-'])) {
            return Err(ParseError::RangeEnd);
        }
        let (first, first_zone) = ip_and_zone(first)?;
        let (last, last_zone) = ip_and_zone(last)?;
        if Family::of(first) != Family::of(last) {
            return Err(ParseError::MixedRange);
        }
        let range = AddrRange::new(Family::of(first), bits_of(first), bits_of(last)).ok_or(ParseError::Reversed)?;
        return Ok(Entry { range, zone_dropped: first_zone || last_zone });
    }
    if text.contains('/') {
        let (ip, len) = cidr(text)?;
        return Ok(Entry { range: Span::around(Family::of(ip), bits_of(ip), len).range(), zone_dropped: false });
    }
    let (ip, zone_dropped) = ip_and_zone(text)?;
    Ok(Entry { range: Span::host(ip).range(), zone_dropped })
}

/// Reads an entry of `prefixes`: a CIDR without host bits, of either family.
pub fn parse_prefix(text: &str) -> Result<Span, ParseError> {
    if !text.contains('/') {
        return Err(ParseError::NotCidr);
    }
    let (ip, len) = cidr(text)?;
    let network = Span::around(Family::of(ip), bits_of(ip), len);
    if network.ip() == ip { Ok(network) } else { Err(ParseError::HostBits { network: network.ip(), length: len }) }
}

/// Reads a CIDR of either family; host bits are masked.
pub fn parse_network(text: &str) -> Result<Span, ParseError> {
    let (ip, len) = cidr(text)?;
    Ok(Span::around(Family::of(ip), bits_of(ip), len))
}

/// Reads a single IP, such as a gateway. An IPv6 zone is allowed and ignored.
pub fn parse_ip(text: &str) -> Result<IpAddr, ParseError> {
    ip_and_zone(text).map(|(ip, _)| ip)
}

/// Reads a single IP and nothing else: neither a zone nor a prefix length may follow.
///
/// ```
/// use poolutil::{ParseError, parse_plain_ip};
/// assert!(parse_plain_ip("203.0.113.7").is_ok());
/// assert_eq!(parse_plain_ip("fe80::1%eth0"), Err(ParseError::Zone));
/// assert_eq!(parse_plain_ip("203.0.113.7/32"), Err(ParseError::Prefix));
/// ```
pub fn parse_plain_ip(text: &str) -> Result<IpAddr, ParseError> {
    if text.contains('/') {
        return Err(ParseError::Prefix);
    }
    match ip_and_zone(text)? {
        (_, true) => Err(ParseError::Zone),
        (ip, false) => Ok(ip),
    }
}

fn cidr(text: &str) -> Result<(IpAddr, u8), ParseError> {
    let (address, len) = text.split_once('/').ok_or(ParseError::NotCidr)?;
    let (ip, zone) = ip_and_zone(address)?;
    if zone {
        return Err(ParseError::Zone);
    }
    let most = Family::of(ip).bits();
    let digits = matches!(len.len(), 1..=3) && len.bytes().all(|b| b.is_ascii_digit());
    let plain = len == "0" || !len.starts_with('0');
    match len.parse::<u8>() {
        Ok(value) if digits && plain && value <= most => Ok((ip, value)),
        _ => Err(ParseError::Length { most }),
    }
}

/// The address, and whether a zone stood behind it.
fn ip_and_zone(text: &str) -> Result<(IpAddr, bool), ParseError> {
    if text.contains(char::is_whitespace) {
        return Err(ParseError::Blanks);
    }
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (text, None),
    };
    if address.contains(':') {
        let ip: Ipv6Addr = address.parse().map_err(|_| ParseError::Ipv6)?;
        return match zone {
            Some("") => Err(ParseError::Zone),
            zone => Ok((ip.into(), zone.is_some())),
        };
    }
    if zone.is_some() {
        return Err(ParseError::Zone);
    }
    if address.contains('.') {
        let ip: Ipv4Addr = address.parse().map_err(|_| ParseError::Ipv4)?;
        return Ok((ip.into(), false));
    }
    Err(ParseError::Garbage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        match parse_entry(text) {
            Ok(entry) => entry.range.to_string(),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn an_entry_is_a_range_a_cidr_or_an_ip() {
        // P18
        for (text, range) in [
            ("192.168.1.25", "192.168.1.25-192.168.1.25"),
            ("192.168.1.26-192.168.1.28", "192.168.1.26-192.168.1.28"),
            ("10.0.0.10/24", "10.0.0.0-10.0.0.255"),
            ("10.0.0.7/0", "0.0.0.0-255.255.255.255"),
            ("10.0.0.7/32", "10.0.0.7-10.0.0.7"),
            ("FE80::A", "fe80::a-fe80::a"),
            ("fe80::10-fe80::14", "fe80::10-fe80::14"),
            ("fe80::13/126", "fe80::10-fe80::13"),
            ("::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1-::ffff:10.0.0.1"),
            ("::ffff:10.0.0.1/112", "::ffff:10.0.0.0-::ffff:10.0.255.255"),
        ] {
            assert_eq!(written(text), range, "{text}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_refused_with_the_reason() {
        // P17, P18
        for (text, error) in [
            ("192.168.1.2612", ParseError::Ipv4),
            ("192.168.1.2.3", ParseError::Ipv4),
            ("192.168.01.2", ParseError::Ipv4),
            ("192.168.1.2-", ParseError::RangeEnd),
            ("-192.168.1.2", ParseError::RangeEnd),
            ("-", ParseError::RangeEnd),
            ("10.0.0.1-10.0.0.2-", ParseError::RangeEnd),
            ("10.0.0.1-10.0.0.2-10.0.0.3", ParseError::RangeEnd),
            ("10.0.0.2-10.0.0.1", ParseError::Reversed),
            ("fe80::2-fe80::1", ParseError::Reversed),
            ("10.0.0.1-fe80::1", ParseError::MixedRange),
            ("10.0.0.1/21-10.0.0.2", ParseError::RangeEnd),
            ("10.0.0.1/-10.0.0.2", ParseError::RangeEnd),
            ("10.0.0.1-10.0.0.2/24", ParseError::RangeEnd),
            ("10.0.0.0/33", ParseError::Length { most: 32 }),
            ("fe80::/129", ParseError::Length { most: 128 }),
            ("10.0.0.0/", ParseError::Length { most: 32 }),
            ("10.0.0.0/+8", ParseError::Length { most: 32 }),
            ("10.0.0.0/08", ParseError::Length { most: 32 }),
            ("10.0.0.0/8/8", ParseError::Length { most: 32 }),
            ("fe80::/0064", ParseError::Length { most: 128 }),
            ("fe80::zzzz", ParseError::Ipv6),
            ("1:2:3:4:5:6:7:8:9", ParseError::Ipv6),
            ("fe80::1%eth0/64", ParseError::Zone),
            ("fe80::1%", ParseError::Zone),
            ("10.0.0.1%eth0", ParseError::Zone),
            (" 10.0.0.1", ParseError::Blanks),
            ("10.0.0.1 ", ParseError::Blanks),
            ("10.0.0.1 - 10.0.0.2", ParseError::Blanks),
            ("fe80::1%eth0\n", ParseError::Blanks),
            ("", ParseError::Garbage),
            ("invalid", ParseError::Garbage),
        ] {
            assert_eq!(parse_entry(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_zone_is_dropped_and_reported() {
        for text in ["fe80::1%eth0", "fe80::1%eth0-fe80::1", "fe80::1-fe80::1%1"] {
            let entry = parse_entry(text).unwrap();
            assert!(entry.zone_dropped, "{text}");
            assert_eq!(entry.range.to_string(), "fe80::1-fe80::1");
        }
        assert!(!parse_entry("fe80::1").unwrap().zone_dropped);
        assert_eq!(parse_ip("fe80::1%eth0").unwrap().to_string(), "fe80::1");
    }

    #[test]
    fn a_network_may_have_host_bits() {
        let network = parse_network("10.0.0.10/24").unwrap();
        assert_eq!((network.to_string().as_str(), network.length()), ("10.0.0.0", 24));
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0-10.0.0.9/24", "fe80::%1/64", "", "/"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_has_a_length_and_no_host_bits() {
        assert_eq!(parse_prefix("fd00::/48").unwrap().length(), 48);
        assert_eq!(parse_prefix("fd00::"), Err(ParseError::NotCidr));
        let error = parse_prefix("fd00::1/48").unwrap_err();
        assert_eq!(error.to_string(), "host bits are set, write fd00::/48");
    }
}
