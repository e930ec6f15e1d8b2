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
