//! Which addresses a source may publish (§6 of the specification).

use std::net::IpAddr;

use api::externalip::AddressPolicy;
use poolutil::{Cidr, Class, class};

use super::cluster::Cluster;
use super::facts::Rules;

/// Why an address is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// It can never be a public address, or the cluster itself uses it.
    Never,
    /// It is private, and nothing says that this is fine.
    Private,
    /// It lies outside all that is allowed.
    NotAllowed,
    /// It is denied.
    Denied,
}

impl Refusal {
    /// The word in metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Private => "private",
            Self::NotAllowed => "not-allowed",
            Self::Denied => "denied",
        }
    }
}

/// The policy of one source together with the flags' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    allow_private: Option<bool>,
    source: (Vec<Cidr>, Vec<Cidr>),
    flags: (Vec<Cidr>, Vec<Cidr>),
}

/// What is left of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The addresses that may be published, in the answer's order.
    pub addresses: Vec<IpAddr>,
    /// The others, and why.
    pub refused: Vec<(IpAddr, Refusal)>,
}

impl Filter {
    /// The filter of a source with this policy.
    pub fn new(policy: &AddressPolicy, rules: &Rules) -> Self {
        Self {
            allow_private: policy.allow_private.or(rules.allow_private.then_some(true)),
            source: (policy.allow.clone(), policy.deny.clone()),
            flags: (rules.allow.clone(), rules.deny.clone()),
        }
    }

    /// Sorts an answer. `private` says whether its solver may give private addresses where nothing else is said.
    pub fn sort(&self, addresses: &[IpAddr], private: bool, cluster: &Cluster) -> Accepted {
        let mut sorted = Accepted::default();
        for ip in addresses {
            match self.refusal(*ip, private, cluster) {
                None => sorted.addresses.push(*ip),
                Some(refusal) => sorted.refused.push((*ip, refusal)),
            }
        }
        sorted
    }

    fn refusal(&self, ip: IpAddr, private: bool, cluster: &Cluster) -> Option<Refusal> {
        let within = |list: &[Cidr]| list.iter().any(|cidr| cidr.contains(ip));
        let ((allow, deny), (flags_allow, flags_deny)) = (&self.source, &self.flags);
        let class = class(ip);
        if class == Class::Never || cluster.uses(ip) {
            Some(Refusal::Never)
        } else if within(deny) || within(flags_deny) {
            Some(Refusal::Denied)
        } else if [allow, flags_allow].into_iter().any(|list| !list.is_empty() && !within(list)) {
            Some(Refusal::NotAllowed)
        } else if class == Class::Private && allow.is_empty() && flags_allow.is_empty() && !self.allow_private.unwrap_or(private)
        {
            Some(Refusal::Private)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(allow_private: Option<bool>, allow: &[&str], deny: &[&str]) -> Filter {
        let cidrs = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Filter { allow_private, source: (cidrs(allow), cidrs(deny)), flags: (Vec::new(), Vec::new()) }
    }

    #[test]
    fn each_address_is_judged_by_its_class_and_the_lists() {
        use Refusal::{Denied, Never, NotAllowed, Private};
        for (filter, ip, private, refusal) in [
            (filter(None, &[], &[]), "203.0.113.7", false, None),
            (filter(None, &[], &[]), "10.0.0.1", false, Some(Private)),
            (filter(None, &[], &[]), "10.0.0.1", true, None),
            (filter(Some(false), &[], &[]), "10.0.0.1", true, Some(Private)),
            (filter(Some(true), &[], &[]), "fd00::1", false, None),
            (filter(Some(true), &["0.0.0.0/0"], &[]), "127.0.0.1", true, Some(Never)),
            (filter(None, &[], &[]), "::ffff:203.0.113.7", false, Some(Never)),
            (filter(None, &["10.0.0.0/8"], &[]), "10.0.0.1", false, None),
            (filter(Some(false), &["10.0.0.0/8"], &[]), "10.0.0.1", false, None),
            (filter(None, &["10.0.0.0/8"], &[]), "203.0.113.7", false, Some(NotAllowed)),
            (filter(None, &["10.0.0.0/8"], &["10.0.0.0/24"]), "10.0.0.1", false, Some(Denied)),
            (filter(None, &[], &["203.0.113.0/24"]), "203.0.113.7", false, Some(Denied)),
        ] {
            assert_eq!(filter.refusal(ip.parse().unwrap(), private, &Cluster::default()), refusal, "{ip} by {filter:?}");
        }
    }

    #[test]
    fn the_flags_lists_apply_on_top_of_the_sources() {
        let all = Filter {
            flags: (vec!["203.0.113.0/24".parse().unwrap()], vec!["203.0.113.8/32".parse().unwrap()]),
            ..filter(None, &["203.0.113.0/25", "198.51.100.0/24"], &[])
        };
        let refusal = |text: &str| all.refusal(text.parse().unwrap(), false, &Cluster::default());
        assert_eq!(refusal("203.0.113.7"), None);
        assert_eq!(refusal("203.0.113.8"), Some(Refusal::Denied));
        assert_eq!(refusal("203.0.113.200"), Some(Refusal::NotAllowed), "the source does not allow it");
        assert_eq!(refusal("198.51.100.7"), Some(Refusal::NotAllowed), "the flags do not allow it");
    }

    #[test]
    fn what_the_cluster_uses_itself_is_never_published() {
        let mut cluster = Cluster::default();
        cluster.set_service_cidrs(vec!["203.0.113.0/28".parse().unwrap()]);
        let sorted =
            filter(Some(true), &[], &[]).sort(&["203.0.113.7", "203.0.113.77"].map(|text| text.parse().unwrap()), true, &cluster);
        let expected = Accepted {
            addresses: vec!["203.0.113.77".parse().unwrap()],
            refused: vec![("203.0.113.7".parse().unwrap(), Refusal::Never)],
        };
        assert_eq!(sorted, expected);
    }
}
