//! A network as people write it in a list of what is allowed or denied.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::parse::{ParseError, parse_network};
use crate::span::{Family, Span, bits_of};

/// A network in CIDR notation; host bits are masked.
///
/// ```
/// use poolutil::Cidr;
/// let cidr: Cidr = "10.1.2.3/8".parse()?;
/// assert_eq!(cidr.to_string(), "10.0.0.0/8");
/// assert!(cidr.contains("10.9.9.9".parse().unwrap()));
/// # Ok::<(), poolutil::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(Span);

impl Cidr {
    /// Whether the address is one of the network. One of the other family never is.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.family() == Family::of(ip) && self.0.range().contains(bits_of(ip))
    }

    /// The network's family.
    pub const fn family(&self) -> Family {
        self.0.family()
    }
}

impl FromStr for Cidr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_network(text).map(Self)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.0.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_other_family_is_outside() {
        let all: Cidr = "::/0".parse().unwrap();
        assert!(all.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(!all.contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["10.0.0.1", "10.0.0.0/33", "10.0.0.0/8 ", "fe80::%1/64", "", "010.0.0.0/8"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }
}
