//! What `resolv.conf` and `/etc/hosts` say, read by `dns` whenever one of them has changed.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::Name,
};

const DNS_PORT: u16 = 53;

/// Tells one state of a file from another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Stamp(Option<(SystemTime, u64, u64)>);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        let stamp = |file: fs::Metadata| Some((file.modified().ok()?, file.len(), file.ino()));
        Self(fs::metadata(path).ok().and_then(stamp))
    }
}

/// Whom to ask, and how.
#[derive(Debug)]
pub(super) struct Servers {
    /// One per server, in the order in which they are asked. None if there is no usable server.
    pub(super) resolvers: Vec<TokioResolver>,
    /// How often all of them are asked.
    pub(super) attempts: u32,
    /// The domains in which a single label is looked for.
    pub(super) search: Vec<Name>,
    pub(super) hosts: Hosts,
}

impl Servers {
    /// A file that cannot be read says nothing.
    pub(super) fn load(instead: &[SocketAddr], resolv_conf: &Path, hosts: &Path) -> Self {
        let (config, errors) = resolv_conf::Config::parse_with_errors(&fs::read(resolv_conf).unwrap_or_default());
        for error in errors {
            tracing::warn!(file = %resolv_conf.display(), %error, "a line is passed over");
        }
        let named = config.nameservers.iter().map(|ip| SocketAddr::new(IpAddr::from(ip), DNS_PORT));
        let servers: Vec<SocketAddr> = if instead.is_empty() { named.collect() } else { instead.to_vec() };
        let timeout = Duration::from_secs(config.timeout.max(1).into());
        Self {
            resolvers: servers.into_iter().filter_map(|server| resolver(server, timeout)).collect(),
            attempts: config.attempts.max(1),
            search: config.get_last_search_or_domain().filter_map(|domain| Name::from_str_relaxed(domain).ok()).collect(),
            hosts: read_hosts(hosts),
        }
    }
}

fn read_hosts(path: &Path) -> Hosts {
    let mut hosts = Hosts::default();
    if let Err(error) = fs::File::open(path).and_then(|file| hosts.read_hosts_conf(file)) {
        tracing::debug!(file = %path.display(), %error, "no hosts are known without a query");
    }
    hosts
}

/// Asks this server, over TCP where UDP is too small. Trying again, choosing among servers and remembering answers are `dns`'s.
fn resolver(server: SocketAddr, timeout: Duration) -> Option<TokioResolver> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let name_server = NameServerConfig::new(server.ip(), true, connections.into());
    let mut builder = TokioResolver::builder_with_config(
        ResolverConfig::from_parts(None, Vec::new(), vec![name_server]),
        TokioRuntimeProvider::default(),
    );
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = timeout;
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let built = builder.build();
    built.inspect_err(|error| tracing::warn!(%server, %error, "this name server cannot be used")).ok()
}
