//! Which addresses may be published for a Service at all. Called wherever an address comes from outside.

use std::net::IpAddr;

use crate::span::{Family, Span, bits_of};

/// How an address may be used as the public address of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Unspecified, loopback, link-local, multicast, reserved, or an IPv4 address in an IPv6 text: never usable.
    Never,
    /// Of a private network, a shared one (RFC 6598), a test network (RFC 2544), or unique local (RFC 4193).
    Private,
    /// All others. Those set aside for documentation are among them, so that published examples work.
    Public,
}

impl Class {
    /// The word in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Private => "private",
            Self::Public => "public",
        }
    }
}

const fn v4(a: u8, b: u8, length: u8) -> Span {
    Span::around(Family::V4, (a as u128) << 24 | (b as u128) << 16, length)
}

const fn v6(first: u16, length: u8) -> Span {
    Span::around(Family::V6, (first as u128) << 112, length)
}

const NEVER: [Span; 10] = [
    v4(0, 0, 8),
    v4(127, 0, 8),
    v4(169, 254, 16),
    v4(224, 0, 4),
    v4(240, 0, 4),
    v6(0, 96),
    Span::around(Family::V6, 0xffff << 32, 96),
    v6(0xfe80, 10),
    v6(0xfec0, 10),
    v6(0xff00, 8),
];

const PRIVATE: [Span; 7] =
    [v4(10, 0, 8), v4(172, 16, 12), v4(192, 168, 16), v4(100, 64, 10), v4(192, 0, 24), v4(198, 18, 15), v6(0xfc00, 7)];

/// The class of an address by its value alone. What a cluster uses itself (the addresses of its Services) nobody may
/// publish either; that is not known here.
///
/// ```
/// use poolutil::{Class, class};
/// assert_eq!(class("203.0.113.7".parse()?), Class::Public);
/// assert_eq!(class("fd00::1".parse()?), Class::Private);
/// assert_eq!(class("::ffff:203.0.113.7".parse()?), Class::Never);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn class(ip: IpAddr) -> Class {
    let within = |spans: &[Span]| spans.iter().any(|span| span.family() == Family::of(ip) && span.range().contains(bits_of(ip)));
    if within(&NEVER) {
        Class::Never
    } else if within(&PRIVATE) {
        Class::Private
    } else {
        Class::Public
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_of_each_range_are_in_it_and_their_neighbours_are_not() {
        use Class::{Never, Private, Public};
        for (first, last, inside, before, after) in [
            ("0.0.0.0", "0.255.255.255", Never, None, Some(Public)),
            ("10.0.0.0", "10.255.255.255", Private, Some(Public), Some(Public)),
            ("100.64.0.0", "100.127.255.255", Private, Some(Public), Some(Public)),
            ("127.0.0.0", "127.255.255.255", Never, Some(Public), Some(Public)),
            ("169.254.0.0", "169.254.255.255", Never, Some(Public), Some(Public)),
            ("172.16.0.0", "172.31.255.255", Private, Some(Public), Some(Public)),
            ("192.0.0.0", "192.0.0.255", Private, Some(Public), Some(Public)),
            ("192.168.0.0", "192.168.255.255", Private, Some(Public), Some(Public)),
            ("198.18.0.0", "198.19.255.255", Private, Some(Public), Some(Public)),
            ("224.0.0.0", "255.255.255.255", Never, Some(Public), None),
            ("::", "::ffff:ffff", Never, None, Some(Public)),
            ("::ffff:0:0", "::ffff:255.255.255.255", Never, Some(Public), Some(Public)),
            ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private, Some(Public), Some(Public)),
            ("fe80::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Never, Some(Public), Some(Never)),
            ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Never, Some(Never), None),
        ] {
            let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
            let family = Family::of(first);
            let neighbour = |bits: Option<u128>| bits.filter(|bits| *bits <= family.max()).map(|bits| class(family.ip(bits)));
            assert_eq!((class(first), class(last)), (inside, inside), "{first}");
            assert_eq!(neighbour(bits_of(first).checked_sub(1)), before, "before {first}");
            assert_eq!(neighbour(bits_of(last).checked_add(1)), after, "after {last}");
        }
    }

    #[test]
    fn addresses_of_examples_are_public() {
        for text in ["192.0.2.1", "198.51.100.7", "203.0.113.7", "2001:db8::7", "8.8.8.8", "64:ff9b::1"] {
            assert_eq!(class(text.parse().unwrap()), Class::Public, "{text}");
        }
    }
}
