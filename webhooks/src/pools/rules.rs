//! What distinguishes IP pools and prefix pools in admission.

use std::fmt::Write as _;

use api::pool::PoolSpec;
use api::v1alpha2::{DEFAULT_ALLOCATION_PREFIX_LENGTH, IpPoolSpec, PrefixPoolSpec};
use poolutil::{AddrRange, Family, Pool, RangeSet, Span, SpecError, parse_ip};

/// How many ranges or prefixes a message names.
const NAMED: usize = 50;

/// A list of entries in a spec.
pub struct Entries<'a> {
    /// The field.
    pub field: &'static str,
    /// What stands there.
    pub texts: &'a [String],
}

/// A spec, as far as admission treats both shapes alike.
pub trait Rules: PoolSpec {
    /// What the pool hands out, or every broken rule that forbids to know.
    fn space(&self) -> Result<Pool, Vec<SpecError>>;

    /// The rules that are broken although the space is known.
    fn misplaced(&self, space: &Pool) -> Vec<SpecError>;

    /// Why the spec cannot follow the `old` one at all.
    fn immutable(&self, old: &Self) -> Option<String>;

    /// Says that values in use would not be allocatable any more.
    fn lost(values: Vec<Span>) -> String;

    /// What the pool consists of.
    fn listed(&self) -> Entries<'_>;

    /// What is taken out of it.
    fn excluded(&self) -> Entries<'_>;

    /// Fields that are copied to each address once and for all, with their values.
    fn copied(&self) -> [(&'static str, String); 2];

    /// What only this shape is warned about.
    fn peculiarities(&self, space: &Pool) -> Vec<String>;
}

impl Rules for IpPoolSpec {
    fn space(&self) -> Result<Pool, Vec<SpecError>> {
        parser(self).parse()
    }

    fn misplaced(&self, space: &Pool) -> Vec<SpecError> {
        parser(self).outside_subnet(space)
    }

    fn immutable(&self, _: &Self) -> Option<String> {
        None
    }

    fn lost(values: Vec<Span>) -> String {
        let of = |family| RangeSet::new(family, values.iter().map(Span::range));
        let sets = [Family::V4, Family::V6].map(of);
        let ranges: Vec<String> = sets.iter().flat_map(RangeSet::iter).map(|range| range.to_string()).collect();
        format!("pool addresses do not contain allocated addresses: [{}]", named(&ranges))
    }

    fn listed(&self) -> Entries<'_> {
        Entries { field: "spec.addresses", texts: &self.addresses }
    }

    fn excluded(&self) -> Entries<'_> {
        Entries { field: "spec.excludedAddresses", texts: &self.excluded_addresses }
    }

    fn copied(&self) -> [(&'static str, String); 2] {
        [("spec.gateway", self.gateway.clone()), ("spec.prefix", self.prefix.to_string())]
    }

    fn peculiarities(&self, space: &Pool) -> Vec<String> {
        let (Some(subnet), Some(gateway)) = (space.subnet(), range_of(&self.gateway)) else { return Vec::new() };
        if subnet.range().covers(&gateway) {
            return Vec::new();
        }
        vec![format!("spec.gateway: {} is outside the pool's subnet {subnet}/{}", self.gateway, subnet.length())]
    }
}

impl Rules for PrefixPoolSpec {
    fn space(&self) -> Result<Pool, Vec<SpecError>> {
        poolutil::PrefixPoolSpec {
            prefixes: &self.prefixes,
            length: self.allocation_prefix_length,
            gateway: &self.gateway,
            excluded: &self.excluded_prefixes,
        }
        .parse()
    }

    fn misplaced(&self, _: &Pool) -> Vec<SpecError> {
        Vec::new()
    }

    fn immutable(&self, old: &Self) -> Option<String> {
        let effective = |length| if length == 0 { DEFAULT_ALLOCATION_PREFIX_LENGTH } else { length };
        let (old, new) = (effective(old.allocation_prefix_length), effective(self.allocation_prefix_length));
        (old != new).then(|| format!("spec.allocationPrefixLength is immutable: it is {old} and cannot become {new}"))
    }

    fn lost(mut values: Vec<Span>) -> String {
        values.sort_unstable();
        values.dedup();
        let bases: Vec<String> = values.iter().map(Span::to_string).collect();
        format!("existing allocations become non-allocatable: [{}]", named(&bases))
    }

    fn listed(&self) -> Entries<'_> {
        Entries { field: "spec.prefixes", texts: &self.prefixes }
    }

    fn excluded(&self) -> Entries<'_> {
        Entries { field: "spec.excludedPrefixes", texts: &self.excluded_prefixes }
    }

    fn copied(&self) -> [(&'static str, String); 2] {
        let length = ("spec.allocationPrefixLength", self.allocation_prefix_length.to_string());
        [("spec.gateway", self.gateway.clone()), length]
    }

    fn peculiarities(&self, space: &Pool) -> Vec<String> {
        if space.length() != space.family().bits() {
            return Vec::new();
        }
        let mut warnings = vec![
            "spec.allocationPrefixLength: with length 128 the pool behaves like host-address allocation; an InClusterIPPool \
             is meant for that"
                .to_owned(),
        ];
        if range_of(&self.gateway).is_some_and(|gateway| space.listed_ranges().touches(&gateway)) {
            warnings.push(format!("spec.gateway: {} is not reserved, so a claim may receive it", self.gateway));
        }
        warnings
    }
}

fn parser(spec: &IpPoolSpec) -> poolutil::IpPoolSpec<'_> {
    poolutil::IpPoolSpec {
        addresses: &spec.addresses,
        prefix: spec.prefix,
        gateway: &spec.gateway,
        excluded: &spec.excluded_addresses,
        allocate_reserved: spec.allocate_reserved_ip_addresses,
        grace_seconds: spec.address_reuse_grace_period_seconds,
    }
}

/// The one address of a gateway, if there is one.
fn range_of(gateway: &str) -> Option<AddrRange> {
    parse_ip(gateway).ok().map(|ip| Span::host(ip).range())
}

/// The texts with blanks between, the first of them if there are many.
fn named(texts: &[String]) -> String {
    let mut text = texts[..texts.len().min(NAMED)].join(" ");
    if texts.len() > NAMED {
        // Writing to a String cannot fail.
        let _ = write!(text, " and {} more", texts.len() - NAMED);
    }
    text
}
