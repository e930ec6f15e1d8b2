//! A source, read: what the controller works with. It cannot be wrong, so nobody checks it again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use kube::core::{Selector, SelectorExt as _};
use poolutil::{Cidr, Family};

use super::host::Host;
use super::url::HttpsUrl;
use crate::PoolKind;

/// Declares a choice between words of the API, with their spelling there.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// The words of all of them, in the order of their declaration.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word in the API.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The one of that word, if there is one.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

choice! {
    /// How many solvers of a list decide.
    QueryMode {
        /// The first one that finds something.
        FirstFound = "firstFound",
        /// All together.
        All = "all",
    }
}

choice! {
    /// Where addresses are published.
    Output {
        /// In `spec.externalIPs` of the Service.
        ExternalIps = "ExternalIPs",
        /// In `status.loadBalancer.ingress` of a Service of our class.
        LoadBalancerStatus = "LoadBalancerStatus",
        /// In the annotations that external-dns reads.
        ExternalDnsTarget = "ExternalDNSTarget",
    }
}

choice! {
    /// Who takes traffic to an address in the ingress status.
    IpMode {
        /// Each node.
        Vip = "VIP",
        /// Something in front of the nodes.
        Proxy = "Proxy",
    }
}

choice! {
    /// What becomes of a Service's addresses when none is found any more.
    OnNoAddress {
        /// They stay.
        Keep = "Keep",
        /// They go.
        Remove = "Remove",
    }
}

choice! {
    /// What becomes of a Service's addresses when it leaves the source.
    ReleasePolicy {
        /// They go.
        Release = "Release",
        /// They stay, as if the user had written them.
        Retain = "Retain",
    }
}

choice! {
    /// Which families are published.
    FamilyPolicy {
        /// All that are found.
        Any = "Any",
        /// Those that the Service has.
        MatchService = "MatchService",
    }
}

choice! {
    /// What happens when an older Service has the same address and port.
    PortConflict {
        /// The younger one is told.
        Warn = "Warn",
        /// The younger one does not get the address.
        Refuse = "Refuse",
    }
}

/// A source that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// How IPv4 addresses are found; `None` also for an empty list.
    pub ipv4: Option<SolverList>,
    /// How IPv6 addresses are found; `None` also for an empty list.
    pub ipv6: Option<SolverList>,
    /// Where addresses are published; `None` means where it suits the Service.
    pub outputs: Option<BTreeSet<Output>>,
    /// The mode of addresses in the ingress status.
    pub ip_mode: IpMode,
    /// Solvers are asked at least this often; not less than [`Source::SHORTEST_REFRESH`]. See [`Source::refresh_of`].
    pub refresh_interval: Option<Duration>,
    /// For how long the last answer of a failing solver is preferred to the next solver.
    pub max_staleness: Duration,
    /// What becomes of addresses when none is found any more.
    pub on_no_address: OnNoAddress,
    /// What becomes of addresses when a Service leaves.
    pub release: ReleasePolicy,
    /// Which families are published.
    pub family_policy: FamilyPolicy,
    /// Which addresses are acceptable.
    pub address_policy: AddressPolicy,
    /// Which Services may use the source.
    pub allowed_services: AllowedServices,
    /// What happens when an older Service has the same address and port.
    pub port_conflict: PortConflict,
}

impl Source {
    /// The shortest time between two questions that a source can ask for.
    pub const SHORTEST_REFRESH: Duration = Duration::from_secs(5);
    /// The same for web services, which belong to somebody else.
    pub const SHORTEST_API_REFRESH: Duration = Duration::from_secs(60);
    /// For how long an answer is held unless the source says otherwise.
    pub const DEFAULT_STALENESS: Duration = Duration::from_secs(3600);

    /// The solvers of a family.
    pub fn list(&self, family: Family) -> Option<&SolverList> {
        match family {
            Family::V4 => self.ipv4.as_ref(),
            Family::V6 => self.ipv6.as_ref(),
        }
    }

    /// How often this source wants that solver asked at least.
    pub fn refresh_of(&self, solver: &Shared) -> Option<Duration> {
        let shortest = if matches!(solver, Shared::IpApi(_)) { Self::SHORTEST_API_REFRESH } else { Self::SHORTEST_REFRESH };
        self.refresh_interval.map(|interval| interval.max(shortest))
    }
}

/// The solvers of one family; there is at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SolverList {
    /// How many of them decide.
    pub mode: QueryMode,
    /// The solvers, in the order of the spec: an index here is one there.
    pub solvers: Vec<Solver>,
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Solver {
    /// The same answer for every Service.
    Shared(Shared),
    /// The Service's own ingress status.
    LoadBalancerIngress,
    /// An address for each Service, from a pool.
    IpPool(PoolRef),
    /// An address put together; the masks give each bit to exactly one part.
    Merge(Vec<Part>),
}

impl Solver {
    /// The key in the spec.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Shared(shared) => shared.type_name(),
            Self::LoadBalancerIngress => "loadBalancerIngress",
            Self::IpPool(_) => "ipPool",
            Self::Merge(_) => "merge",
        }
    }
}

/// A solver whose answer does not depend on the Service. With a family it is what an answer is kept under, so two that are
/// equal are asked once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shared {
    /// Addresses written down, of both families.
    Static(Vec<IpAddr>),
    /// A DNS name, or an address in its place.
    DnsHostname(Host),
    /// A web service.
    IpApi(Api),
    /// One network interface of the manager's pod, or all of them.
    Interface(Option<String>),
}

impl Shared {
    /// The key in the spec.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Static(_) => "static",
            Self::DnsHostname(_) => "dnsHostname",
            Self::IpApi(_) => "ipAPI",
            Self::Interface(_) => "interface",
        }
    }
}

/// A web service that tells a caller's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// my-ip.io
    MyIp,
    /// ipify.org
    Ipify,
    /// icanhazip.com
    Icanhazip,
    /// cloudflare.com
    Cloudflare,
    /// One of the user's choice.
    Custom(CustomApi),
}

impl Api {
    /// The word in the API.
    pub const fn provider(&self) -> &'static str {
        match self {
            Self::MyIp => "myIp",
            Self::Ipify => "ipify",
            Self::Icanhazip => "icanhazip",
            Self::Cloudflare => "cloudflare",
            Self::Custom(_) => "custom",
        }
    }
}

/// A web service of the user's choice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomApi {
    /// Where it is.
    pub url: HttpsUrl,
    /// How it answers.
    pub format: Format,
    /// PEM certificates of authorities that are trusted besides.
    pub ca_bundle: Option<String>,
}

/// How a web service answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// With JSON; the address is the string under these keys.
    Json(Vec<String>),
    /// With the address alone.
    Text,
}

/// A part of a merged address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    /// The bits it gives; of the list's family.
    pub mask: IpAddr,
    /// Where they come from.
    pub solver: PartSolver,
}

/// Any solver but a merge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartSolver {
    /// See [`Solver::Shared`].
    Shared(Shared),
    /// See [`Solver::LoadBalancerIngress`].
    LoadBalancerIngress,
    /// See [`Solver::IpPool`].
    IpPool(PoolRef),
}

impl From<PartSolver> for Solver {
    fn from(part: PartSolver) -> Self {
        match part {
            PartSolver::Shared(shared) => Self::Shared(shared),
            PartSolver::LoadBalancerIngress => Self::LoadBalancerIngress,
            PartSolver::IpPool(pool) => Self::IpPool(pool),
        }
    }
}

/// A pool of single addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolRef {
    /// `InClusterIPPool`, in the Service's namespace, or `GlobalInClusterIPPool`.
    pub kind: PoolKind,
    /// Its name.
    pub name: String,
}

/// Which addresses a source accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressPolicy {
    /// Whether private addresses are acceptable; `None` means that it depends on the solver.
    pub allow_private: Option<bool>,
    /// If there are any, an address has to lie in one of them; a private one may then be used as well.
    pub allow: Vec<Cidr>,
    /// An address must not lie in any of these, whatever else is allowed.
    pub deny: Vec<Cidr>,
}

/// Which Services may use a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedServices {
    /// Which namespaces; `None` means all.
    pub namespaces: Option<Selector>,
    /// Which Services; `None` means all.
    pub services: Option<Selector>,
}

impl AllowedServices {
    /// Whether a Service with these labels, in a namespace with those, may use the source. `None` for a namespace whose
    /// labels are not known matches no selector.
    pub fn matches(&self, service: &BTreeMap<String, String>, namespace: Option<&BTreeMap<String, String>>) -> bool {
        self.services.as_ref().is_none_or(|selector| selector.matches(service))
            && self.namespaces.as_ref().is_none_or(|selector| namespace.is_some_and(|labels| selector.matches(labels)))
    }
}
