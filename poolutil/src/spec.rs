//! From what people wrote in a pool's spec to a [`Pool`], with every broken rule in the words of the admission
//! contract. Called by admission (all failures) and by the allocator (the first one).

use std::fmt;
use std::net::IpAddr;

use crate::parse::{ParseError, parse_entry, parse_ip, parse_prefix};
use crate::pool::Pool;
use crate::span::{AddrRange, Family, Span, bits_of};

const ADDRESSES: &str = "spec.addresses";
const PREFIX: &str = "spec.prefix";
const GATEWAY: &str = "spec.gateway";
const EXCLUDED_ADDRESSES: &str = "spec.excludedAddresses";
const GRACE: &str = "spec.addressReuseGracePeriodSeconds";
const PREFIXES: &str = "spec.prefixes";
const LENGTH: &str = "spec.allocationPrefixLength";
const EXCLUDED_PREFIXES: &str = "spec.excludedPrefixes";

/// The fields of an IP pool's spec that say what it can hand out, and when again.
#[derive(Clone, Copy, Debug, Default)]
pub struct IpPoolSpec<'a> {
    /// `spec.addresses`.
    pub addresses: &'a [String],
    /// `spec.prefix`.
    pub prefix: i64,
    /// `spec.gateway`; empty means none.
    pub gateway: &'a str,
    /// `spec.excludedAddresses`.
    pub excluded: &'a [String],
    /// `spec.allocateReservedIPAddresses`.
    pub allocate_reserved: bool,
    /// `spec.addressReuseGracePeriodSeconds`. It does not change the set.
    pub grace_seconds: i64,
}

/// The fields of a prefix pool's spec that say what it can hand out.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrefixPoolSpec<'a> {
    /// `spec.prefixes`.
    pub prefixes: &'a [String],
    /// `spec.allocationPrefixLength`, with the default already filled in.
    pub length: i64,
    /// `spec.gateway`; empty means none. It reserves nothing.
    pub gateway: &'a str,
    /// `spec.excludedPrefixes`.
    pub excluded: &'a [String],
}

/// One broken rule of a pool's spec. Displayed as `<field>: Invalid value: <value>: <message>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The field, such as `spec.addresses`.
    pub field: &'static str,
    /// What stands there.
    pub value: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, problem } = self;
        match *field {
            PREFIX | LENGTH | GRACE => write!(f, "{field}: Invalid value: {value}: {problem}"),
            _ => write!(f, "{field}: Invalid value: {value:?}: {problem}"),
        }
    }
}

impl std::error::Error for SpecError {}

/// A rule of the admission contract. The displayed texts are part of the compatibility surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// An IP pool without addresses.
    NoAddresses,
    /// A negative prefix.
    NegativePrefix,
    /// An entry of an IP pool that does not parse.
    BadAddress(ParseError),
    /// Entries of one list are of both families.
    MixedList,
    /// A gateway that is no IP.
    BadGateway {
        /// What stands there.
        text: String,
        /// Why it is none.
        reason: ParseError,
    },
    /// A gateway of another family than the addresses.
    MixedGateway,
    /// Exclusions of another family than the addresses.
    MixedExclusions,
    /// A negative time of reuse grace.
    NegativeGrace,
    /// A prefix longer than the family allows.
    LongPrefix(Family),
    /// An entry that is not wholly inside the subnet. Not an obstacle to allocation.
    OtherSubnet,
    /// A prefix pool without prefixes.
    NoPrefixes,
    /// An allocation length outside 1 to 128.
    LengthOutOfRange,
    /// An entry of `prefixes` that is no CIDR.
    BadCidr(ParseError),
    /// An IPv4 entry of `prefixes`.
    Ipv4Prefix,
    /// An entry of `prefixes` with host bits.
    HostBits(ParseError),
    /// An entry of `prefixes` too small for one block of this length.
    LongerThanBlock(u8),
    /// An IPv4 gateway of a prefix pool.
    Ipv4Gateway,
    /// An exclusion of a prefix pool that does not parse.
    BadExclusion(ParseError),
    /// An IPv4 exclusion of a prefix pool.
    Ipv4Exclusion,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddresses => f.write_str("addresses is required"),
            Self::NegativePrefix => f.write_str("a valid prefix is required"),
            Self::BadAddress(reason) => write!(f, "provided address is not a valid IP, range, nor CIDR: {reason}"),
            Self::MixedList => f.write_str("provided addresses are of mixed IP families"),
            Self::BadGateway { text, reason } => write!(f, "ParseAddr({text:?}): {reason}"),
            Self::MixedGateway => f.write_str("provided gateway and addresses are of mixed IP families"),
            Self::MixedExclusions => f.write_str("addresses and excluded addresses are of mixed IP families"),
            Self::NegativeGrace => f.write_str("addressReuseGracePeriodSeconds must not be negative"),
            Self::LongPrefix(family) => write!(f, "provided prefix is not valid, {family} allows at most {}", family.bits()),
            Self::OtherSubnet => f.write_str("provided address belongs to a different subnet than others"),
            Self::NoPrefixes => f.write_str("prefixes is required"),
            Self::LengthOutOfRange => f.write_str("allocationPrefixLength must be between 1 and 128"),
            Self::BadCidr(reason) => {
                write!(f, "provided entry is not a valid IPv6 CIDR: {reason}")
            }
            Self::Ipv4Prefix => f.write_str("only IPv6 prefixes are supported"),
            Self::HostBits(reason) => write!(f, "CIDR must be network-aligned: {reason}"),
            Self::LongerThanBlock(length) => write!(f, "CIDR prefix length must be <= allocationPrefixLength ({length})"),
            Self::Ipv4Gateway => f.write_str("provided gateway must be IPv6"),
            Self::BadExclusion(reason) => write!(f, "provided entry is not a valid IP, range, nor CIDR: {reason}"),
            Self::Ipv4Exclusion => f.write_str("only IPv6 excluded prefixes are supported"),
        }
    }
}

/// The failures found so far.
#[derive(Default)]
struct Failures(Vec<SpecError>);

impl Failures {
    fn add(&mut self, field: &'static str, value: impl fmt::Display, problem: Problem) {
        self.0.push(SpecError { field, value: value.to_string(), problem });
    }

    fn addresses(&mut self, field: &'static str, texts: &[String]) -> Vec<AddrRange> {
        let mut ranges = Vec::with_capacity(texts.len());
        for text in texts {
            match parse_entry(text) {
                Ok(entry) => ranges.push(entry.range),
                Err(error) => self.add(field, text, Problem::BadAddress(error)),
            }
        }
        ranges
    }

    /// The one family of the `ranges`; a mixture is a failure.
    fn family(&mut self, field: &'static str, texts: &[String], ranges: &[AddrRange]) -> Option<Family> {
        let family = ranges.first()?.family();
        if ranges.iter().all(|range| range.family() == family) {
            return Some(family);
        }
        self.add(field, texts.join(","), Problem::MixedList);
        None
    }

    fn gateway(&mut self, text: &str) -> Option<IpAddr> {
        if text.is_empty() {
            return None;
        }
        parse_ip(text)
            .map_err(|reason| {
                let text = text.to_owned();
                self.add(GATEWAY, &text, Problem::BadGateway { text: text.clone(), reason });
            })
            .ok()
    }
}

impl IpPoolSpec<'_> {
    /// The pool, or every broken rule that makes allocation impossible. An entry outside the subnet is none;
    /// see [`IpPoolSpec::outside_subnet`].
    pub fn parse(&self) -> Result<Pool, Vec<SpecError>> {
        let mut failures = Failures::default();
        if self.addresses.is_empty() {
            failures.add(ADDRESSES, "", Problem::NoAddresses);
        }
        if self.prefix < 0 {
            failures.add(PREFIX, self.prefix, Problem::NegativePrefix);
        }
        let listed = failures.addresses(ADDRESSES, self.addresses);
        let family = failures.family(ADDRESSES, self.addresses, &listed);
        let gateway = failures.gateway(self.gateway);
        if let (Some(family), Some(gateway)) = (family, gateway)
            && Family::of(gateway) != family
        {
            failures.add(GATEWAY, self.gateway, Problem::MixedGateway);
        }
        let excluded = failures.addresses(EXCLUDED_ADDRESSES, self.excluded);
        let excluded_family = failures.family(EXCLUDED_ADDRESSES, self.excluded, &excluded);
        if let (Some(family), Some(other)) = (family, excluded_family)
            && other != family
        {
            let value = self.excluded.join(",");
            failures.add(EXCLUDED_ADDRESSES, value, Problem::MixedExclusions);
        }
        if self.grace_seconds < 0 {
            failures.add(GRACE, self.grace_seconds, Problem::NegativeGrace);
        }
        let prefix = u8::try_from(self.prefix).unwrap_or(u8::MAX);
        if let Some(family) = family
            && failures.0.is_empty()
        {
            if prefix <= family.bits() {
                let gateway = gateway.map(bits_of);
                return Ok(Pool::of_addresses(family, listed, prefix, gateway, excluded, self.allocate_reserved));
            }
            failures.add(PREFIX, self.prefix, Problem::LongPrefix(family));
        }
        Err(failures.0)
    }

    /// The entries of `addresses` that are not wholly inside the `pool`'s subnet. Allocation does not mind them,
    /// admission does.
    pub fn outside_subnet(&self, pool: &Pool) -> Vec<SpecError> {
        let mut failures = Failures::default();
        for text in self.addresses {
            let inside =
                parse_entry(text).is_ok_and(|entry| pool.subnet().is_some_and(|subnet| subnet.range().covers(&entry.range)));
            if !inside {
                failures.add(ADDRESSES, text, Problem::OtherSubnet);
            }
        }
        failures.0
    }
}

impl PrefixPoolSpec<'_> {
    /// The pool, or every broken rule. Without prefixes, or with a length out of range, that alone is reported.
    pub fn parse(&self) -> Result<Pool, Vec<SpecError>> {
        let mut failures = Failures::default();
        if self.prefixes.is_empty() {
            failures.add(PREFIXES, "", Problem::NoPrefixes);
            return Err(failures.0);
        }
        let Ok(length @ 1..=128) = u8::try_from(self.length) else {
            failures.add(LENGTH, self.length, Problem::LengthOutOfRange);
            return Err(failures.0);
        };
        let mut listed = Vec::with_capacity(self.prefixes.len());
        for text in self.prefixes {
            match prefix_of(text, length) {
                Ok(prefix) => listed.push(prefix.range()),
                Err(problem) => failures.add(PREFIXES, text, problem),
            }
        }
        if failures.gateway(self.gateway).is_some_and(|ip| ip.is_ipv4()) {
            failures.add(GATEWAY, self.gateway, Problem::Ipv4Gateway);
        }
        let mut excluded = Vec::with_capacity(self.excluded.len());
        for text in self.excluded {
            match parse_entry(text) {
                Ok(entry) if entry.range.family() == Family::V6 => excluded.push(entry.range),
                Ok(_) => failures.add(EXCLUDED_PREFIXES, text, Problem::Ipv4Exclusion),
                Err(error) => failures.add(EXCLUDED_PREFIXES, text, Problem::BadExclusion(error)),
            }
        }
        if failures.0.is_empty() { Ok(Pool::of_prefixes(length, &listed, &excluded)) } else { Err(failures.0) }
    }
}

fn prefix_of(text: &str, length: u8) -> Result<Span, Problem> {
    let span = match parse_prefix(text) {
        Ok(span) => span,
        Err(ParseError::HostBits { network, .. }) if network.is_ipv4() => {
            return Err(Problem::Ipv4Prefix);
        }
        Err(error @ ParseError::HostBits { .. }) => return Err(Problem::HostBits(error)),
        Err(error) => return Err(Problem::BadCidr(error)),
    };
    if span.family() == Family::V4 {
        Err(Problem::Ipv4Prefix)
    } else if span.length() > length {
        Err(Problem::LongerThanBlock(length))
    } else {
        Ok(span)
    }
}

/// The failure that is told where only one can be.
pub(crate) fn first_of(errors: Vec<SpecError>) -> SpecError {
    errors.into_iter().next().unwrap_or(SpecError { field: ADDRESSES, value: String::new(), problem: Problem::NoAddresses })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|&entry| entry.to_owned()).collect()
    }

    fn ip(addresses: &[&str], prefix: i64, gateway: &str, excluded: &[&str]) -> Vec<String> {
        let (addresses, excluded) = (texts(addresses), texts(excluded));
        let spec = IpPoolSpec { addresses: &addresses, prefix, gateway, excluded: &excluded, ..IpPoolSpec::default() };
        let errors = match spec.parse() {
            Ok(pool) => spec.outside_subnet(&pool),
            Err(errors) => errors,
        };
        errors.iter().map(ToString::to_string).collect()
    }

    fn prefix(prefixes: &[&str], length: i64, gateway: &str, excluded: &[&str]) -> Vec<String> {
        let (prefixes, excluded) = (texts(prefixes), texts(excluded));
        let errors = PrefixPoolSpec { prefixes: &prefixes, length, gateway, excluded: &excluded }.parse().err();
        errors.iter().flatten().map(ToString::to_string).collect()
    }

    /// Every expected text is contained in the failure of the same place.
    #[track_caller]
    fn failures(found: &[String], expected: &[(&str, &str)]) {
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, (start, message)) in found.iter().zip(expected) {
            assert!(found.starts_with(start) && found.contains(message), "{found}");
        }
    }

    #[test]
    fn a_good_ip_pool_has_no_failures() {
        for (addresses, prefix, gateway, excluded) in [
            (&["10.0.0.10", "10.0.0.11"][..], 24, "10.0.0.1", &[][..]),
            (&["10.0.0.10"], 24, "", &["192.168.0.0/16"]),
            (&["fe80::10", "fe80::20-fe80::30", "fe80::/120"], 64, "fe80::1%eth0", &["fe80::11"]),
            (&["10.0.0.10", "10.0.0.10", "10.0.0.0/8"], 0, "192.168.0.1", &[]),
        ] {
            assert_eq!(ip(addresses, prefix, gateway, excluded), [""; 0]);
        }
    }

    #[test]
    fn every_broken_rule_of_an_ip_pool_is_reported_at_once() {
        failures(
            &ip(&[], -1, "invalid", &["10.0.0.1", "fd00::1", "x"]),
            &[
                ("spec.addresses: Invalid value: \"\": ", "addresses is required"),
                ("spec.prefix: Invalid value: -1: ", "a valid prefix is required"),
                ("spec.gateway: Invalid value: \"invalid\": ", "ParseAddr(\"invalid\"): unable to parse IP"),
                ("spec.excludedAddresses: Invalid value: \"x\": ", "provided address is not a valid IP, range, nor CIDR"),
                ("spec.excludedAddresses", "provided addresses are of mixed IP families"),
            ],
        );
    }

    #[test]
    fn an_ip_pool_has_one_family_and_one_subnet() {
        // W5
        let mixed = "provided addresses are of mixed IP families";
        failures(&ip(&["10.0.0.1", "fd00::1"], 24, "10.0.0.1", &[]), &[("spec.addresses", mixed)]);
        failures(
            &ip(&["10.0.0.1"], 24, "fd00::1", &["fd00::2"]),
            &[
                ("spec.gateway", "provided gateway and addresses are of mixed IP families"),
                ("spec.excludedAddresses", "addresses and excluded addresses are of mixed IP families"),
            ],
        );
        failures(&ip(&["10.0.0.1"], 9999, "", &[]), &[("spec.prefix: Invalid value: 9999", "provided prefix is not valid")]);
        failures(&ip(&["10.0.0.1"], 33, "", &[]), &[("spec.prefix", "provided prefix is not valid")]);
        let other = "provided address belongs to a different subnet than others";
        for outside in ["10.0.1.1", "10.0.0.250-10.0.1.1", "10.0.1.0-10.0.1.5", "10.0.1.0/24", "10.0.0.0/23"] {
            failures(&ip(&["10.0.0.0", outside], 24, "", &[]), &[("spec.addresses", other)]);
        }
        for garbage in ["garbage", "10.0.0.9-10.0.0.1", "10.0.0.0/33"] {
            failures(
                &ip(&["10.0.0.1", garbage], 24, "", &[]),
                &[("spec.addresses", "provided address is not a valid IP, range, nor CIDR")],
            );
        }
    }

    #[test]
    fn a_negative_grace_is_told_before_a_long_prefix() {
        let addresses = texts(&["10.0.0.1"]);
        let spec = IpPoolSpec { addresses: &addresses, prefix: 33, grace_seconds: -1, ..IpPoolSpec::default() };
        let found: Vec<_> = spec.parse().unwrap_err().iter().map(ToString::to_string).collect();
        let message = "Invalid value: -1: addressReuseGracePeriodSeconds must not be negative";
        failures(&found, &[("spec.addressReuseGracePeriodSeconds", message)]);
    }

    #[test]
    fn a_good_prefix_pool_has_no_failures() {
        for length in [56, 64, 96, 128] {
            assert_eq!(prefix(&["fd00::/48", "fd01::/48"], length, "fd00::1", &["fd00::5", "fd02::/16"]), [""; 0]);
        }
    }

    #[test]
    fn a_prefix_pool_without_prefixes_or_length_reports_that_alone() {
        // P28
        failures(&prefix(&[], 0, "x", &["x"]), &[("spec.prefixes", "prefixes is required")]);
        for length in [0, -1, 129] {
            failures(
                &prefix(&["x"], length, "x", &[]),
                &[("spec.allocationPrefixLength", "allocationPrefixLength must be between 1 and 128")],
            );
        }
    }

    #[test]
    fn every_broken_rule_of_a_prefix_pool_is_reported_at_once() {
        // P28, W7
        failures(
            &prefix(
                &["fd00::1", "fd00::/129", "10.0.0.0/24", "10.0.0.1/24", "fd00::1/48", "fd00::/65"],
                64,
                "10.0.0.1",
                &["y", "10.0.0.0/24"],
            ),
            &[
                ("spec.prefixes", "provided entry is not a valid IPv6 CIDR"),
                ("spec.prefixes", "provided entry is not a valid IPv6 CIDR"),
                ("spec.prefixes", "only IPv6 prefixes are supported"),
                ("spec.prefixes", "only IPv6 prefixes are supported"),
                ("spec.prefixes", "CIDR must be network-aligned"),
                ("spec.prefixes", "CIDR prefix length must be <= allocationPrefixLength (64)"),
                ("spec.gateway", "provided gateway must be IPv6"),
                ("spec.excludedPrefixes", "provided entry is not a valid IP, range, nor CIDR"),
                ("spec.excludedPrefixes: Invalid value: \"10.0.0.0/24\"", "only IPv6 excluded prefixes are supported"),
            ],
        );
        failures(&prefix(&["fd00::/48"], 64, "nope", &[]), &[("spec.gateway", "ParseAddr(\"nope\"): unable to parse IP")]);
    }
}
