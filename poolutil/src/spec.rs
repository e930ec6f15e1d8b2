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
const PREFIXES: &str = "spec.prefixes";
const LENGTH: &str = "spec.allocationPrefixLength";
const EXCLUDED_PREFIXES: &str = "spec.excludedPrefixes";

/// The fields of an IP pool's spec that say what it can hand out.
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
            PREFIX | LENGTH => write!(f, "{field}: Invalid value: {value}: {problem}"),
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

    fn entries(&mut self, field: &'static str, texts: &[String], problem: fn(ParseError) -> Problem) -> Vec<AddrRange> {
        let mut ranges = Vec::with_capacity(texts.len());
        for text in texts {
            match parse_entry(text) {
                Ok(entry) => ranges.push(entry.range),
                Err(error) => self.add(field, text, problem(error)),
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
        let listed = failures.entries(ADDRESSES, self.addresses, Problem::BadAddress);
        let family = failures.family(ADDRESSES, self.addresses, &listed);
        let gateway = failures.gateway(self.gateway);
        if let (Some(family), Some(gateway)) = (family, gateway)
            && Family::of(gateway) != family
        {
            failures.add(GATEWAY, self.gateway, Problem::MixedGateway);
        }
        let excluded = failures.entries(EXCLUDED_ADDRESSES, self.excluded, Problem::BadAddress);
        let excluded_family = failures.family(EXCLUDED_ADDRESSES, self.excluded, &excluded);
        if let (Some(family), Some(other)) = (family, excluded_family)
            && other != family
        {
            let value = self.excluded.join(",");
            failures.add(EXCLUDED_ADDRESSES, value, Problem::MixedExclusions);
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
        let length = match u8::try_from(self.length) {
            Ok(length @ 1..=128) => length,
            _ => {
                failures.add(LENGTH, self.length, Problem::LengthOutOfRange);
                return Err(failures.0);
            }
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
        let excluded = failures.entries(EXCLUDED_PREFIXES, self.excluded, Problem::BadExclusion);
        for range in excluded.iter().filter(|range| range.family() == Family::V4) {
            failures.add(EXCLUDED_PREFIXES, range, Problem::Ipv4Exclusion);
        }
        if failures.0.is_empty() { Ok(Pool::of_prefixes(length, &listed, &excluded)) } else { Err(failures.0) }
    }
}

fn prefix_of(text: &str, length: u8) -> Result<Span, Problem> {
    let span = match parse_prefix(text) {
        Ok(span) => span,
        Err(ParseError::HostBits { network }) if network.family() == Family::V4 => network,
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
