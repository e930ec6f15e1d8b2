//! The settings of a manager as plain values; `main` fills them from the command line.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use api::externalip::HttpsUrl;
use poolutil::Cidr;

use crate::kit::{listen::ListenAddress, shutdown::Shutdown};

/// Everything [`crate::run`] has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The version of this build, without a leading `v`.
    pub version: &'static str,
    /// The kubeconfig file; `None` means the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Requests per second this process allows itself; 0 means no limit.
    pub kube_api_qps: f64,
    /// How many requests may be made at once above [`Config::kube_api_qps`].
    pub kube_api_burst: u32,
    /// Only claims, namespaced pools and Clusters of this namespace are served; `None` means all.
    pub namespace: Option<String>,
    /// Only objects whose label `cluster.x-k8s.io/watch-filter` has this value are served.
    pub watch_filter: Option<String>,
    /// How to become the one active manager; `None` means every manager is active.
    pub leader_election: Option<LeaderElection>,
    /// Where `/healthz` and `/readyz` are served; `None` means nowhere.
    pub health: Option<ListenAddress>,
    /// Where metrics and debugging are served; `None` means nowhere.
    pub diagnostics: Option<Diagnostics>,
    /// Upper end of the write window, at least 1.
    pub max_inflight_writes: usize,
    /// Whether a claim waits for finalizers of others before its address is released.
    pub honor_foreign_finalizers: bool,
    /// Which deleting addresses without a claim are let go.
    pub release_orphans: ReleaseOrphans,
    /// Whether the events `AddressAllocated` and `AddressReleased` are written.
    pub allocation_events: bool,
    /// How Services get their public addresses; `None` means that they do not.
    pub external_ip_sources: Option<ExternalIpSources>,
    /// Changes the log level of the running process.
    pub log_level: LogLevel,
    /// Asked when the process is to stop.
    pub shutdown: Shutdown,
}

/// How the active manager is elected.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeaderElection {
    /// Namespace of the lease; `None` means the pod's own.
    pub namespace: Option<String>,
    /// Name of the lease.
    pub name: String,
    /// How long a lease holds that is not renewed.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Pause between two tries.
    pub retry_period: Duration,
}

/// Where and how metrics and debugging are served.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The address to listen on.
    pub address: ListenAddress,
    /// Plain HTTP, `/metrics` only, no authentication.
    pub insecure: bool,
    /// What callers may negotiate, unless [`Diagnostics::insecure`].
    pub tls: TlsSettings,
}

/// What a TLS listener of ours offers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsSettings {
    /// Whether TLS 1.2 is refused.
    pub only_tls13: bool,
    /// The TLS 1.2 suites to offer; `None` means all. Those of TLS 1.3 are always offered.
    pub tls12_suites: Option<Vec<rustls::CipherSuite>>,
}

/// Which deleting addresses whose claim is gone lose our finalizer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReleaseOrphans {
    /// Those of namespaced pools.
    Namespaced,
    /// All.
    All,
    /// None.
    Nothing,
}

/// How Services get their public addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalIpSources {
    /// How often the addresses of network interfaces are looked at without a cause.
    pub interval: Duration,
    /// Whether nothing is written; what would be is logged.
    pub dry_run: bool,
    /// The DNS servers to ask; empty means those of `/etc/resolv.conf`.
    pub dns_servers: Vec<SocketAddr>,
    /// For how long a DNS answer is kept at least.
    pub dns_min_ttl: Duration,
    /// For how long a DNS answer is kept at most.
    pub dns_max_ttl: Duration,
    /// For how long addresses stay on Services whose source is gone.
    pub source_grace: Duration,
    /// How long one question to a solver may take in all.
    pub solver_timeout: Duration,
    /// How many solvers are asked at once, at least 1.
    pub solver_concurrency: usize,
    /// How many Services are written at once, at least 1.
    pub write_concurrency: usize,
    /// Whether private addresses are acceptable where a source does not say so.
    pub allow_private: bool,
    /// If there are any, an address has to lie in one of them, whatever its source says.
    pub allow_cidrs: Vec<Cidr>,
    /// An address must not lie in any of these, whatever its source says.
    pub deny_cidrs: Vec<Cidr>,
    /// The load balancer class of Services whose ingress status is ours.
    pub load_balancer_class: String,
    /// The prefixes of external-dns's annotations, each with the slash at its end.
    pub external_dns_prefixes: Vec<String>,
    /// Where web services are asked instead of where they really are.
    pub api_endpoints: Vec<ApiEndpoint>,
    /// PEM certificates of authorities that are trusted for web services besides.
    pub api_ca: Option<Vec<u8>>,
    /// Networks that web services of a user's choice may be in besides public ones.
    pub api_allow_cidrs: Vec<Cidr>,
}

/// Where a web service is asked instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiEndpoint {
    /// The provider, as a source names it.
    pub provider: String,
    /// The URL for IPv4 addresses.
    pub ipv4: HttpsUrl,
    /// The URL for IPv6 addresses.
    pub ipv6: HttpsUrl,
}

/// A handle that changes the log level of the running process.
#[derive(Clone)]
pub struct LogLevel(Arc<dyn Fn(u8) -> Result<(), String> + Send + Sync>);

impl LogLevel {
    /// A handle that calls `set` with a level as `--v` has it (0 warn, 2 info, 4 debug, 6 trace).
    pub fn new(set: impl Fn(u8) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }

    /// Sets the level, or says why that failed.
    pub fn set(&self, level: u8) -> Result<(), String> {
        (self.0)(level)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogLevel")
    }
}
