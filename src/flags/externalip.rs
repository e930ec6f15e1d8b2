//! The flags of external IP sources.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::externalip::HttpsUrl;
use api::externalip::names::{EXTERNAL_DNS_PREFIXES, LOAD_BALANCER_CLASS};
use clap::{ArgAction, Args};
use controllers::config::{ApiEndpoint, ExternalIpSources};
use controllers::kit::duration;
use poolutil::Cidr;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{at_least_one, go_bool};

/// Names of variables that the operator before this one was set up by, and the flags that take their place.
const INTERVAL: (&str, &str) = ("EXTERNALIP_MANAGER_INTERVAL", "--external-ip-interval");
const DRY_RUN: (&str, &str) = ("EXTERNALIP_MANAGER_DRY_RUN", "--external-ip-dry-run");

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);
const DNS_PORT: u16 = 53;

#[derive(Args, Debug)]
#[command(next_help_heading = "Options of external IP sources")]
#[allow(clippy::struct_field_names)] // a field's name is its flag's
pub(super) struct ExternalIpFlags {
    /// How often network interfaces are looked at without a cause, in seconds or as a duration, at least 5s
    /// [default: `$EXTERNALIP_MANAGER_INTERVAL`, or 60s].
    #[arg(long, value_parser = interval)]
    external_ip_interval: Option<Duration>,
    /// Write nothing, log what would be written [default: `$EXTERNALIP_MANAGER_DRY_RUN`, or false].
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    external_ip_dry_run: Option<bool>,
    /// A DNS server to ask, IP or IP:port; repeatable [default: those of /etc/resolv.conf].
    #[arg(long, value_parser = dns_server, action = ArgAction::Append)]
    external_ip_dns_server: Vec<SocketAddr>,
    /// For how long a DNS answer is kept at least.
    #[arg(long, value_parser = duration::parse, default_value = "5s")]
    external_ip_dns_min_ttl: Duration,
    /// For how long a DNS answer is kept at most.
    #[arg(long, value_parser = duration::parse, default_value = "24h")]
    external_ip_dns_max_ttl: Duration,
    /// For how long addresses stay on Services whose source is gone.
    #[arg(long, value_parser = duration::parse, default_value = "5m")]
    external_ip_source_grace: Duration,
    /// How long one question to a solver may take in all.
    #[arg(long, value_parser = duration::parse, default_value = "10s")]
    external_ip_solver_timeout: Duration,
    /// Most solvers that are asked at once.
    #[arg(long, value_parser = at_least_one, default_value = "64")]
    external_ip_solver_concurrency: usize,
    /// Most Services that are written at once.
    #[arg(long, value_parser = at_least_one, default_value = "32")]
    external_ip_write_concurrency: usize,
    /// Accept private addresses of every solver where a source does not say otherwise.
    #[arg(long, value_parser = go_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    external_ip_allow_private: bool,
    /// Networks that every address has to lie in, comma-separated [default: any].
    #[arg(long, value_parser = cidr, action = ArgAction::Append, value_delimiter = ',')]
    external_ip_allow_cidrs: Vec<Cidr>,
    /// Networks that no address may lie in, comma-separated.
    #[arg(long, value_parser = cidr, action = ArgAction::Append, value_delimiter = ',')]
    external_ip_deny_cidrs: Vec<Cidr>,
    /// Load balancer class of Services whose ingress status is written.
    #[arg(long, default_value = LOAD_BALANCER_CLASS)]
    external_ip_load_balancer_class: String,
    /// Prefixes of the annotations that external-dns reads, comma-separated.
    #[arg(long, value_parser = prefix, value_delimiter = ',', default_values = EXTERNAL_DNS_PREFIXES)]
    external_dns_annotation_prefixes: Vec<String>,
    /// Where a web service is asked instead, as PROVIDER=IPv4-URL[,IPv6-URL]; repeatable.
    #[arg(long, value_parser = endpoint, action = ArgAction::Append)]
    external_ip_api_endpoint: Vec<ApiEndpoint>,
    /// PEM file of authorities that are trusted for web services, besides those of the platform.
    #[arg(long)]
    external_ip_api_ca_file: Option<PathBuf>,
    /// Networks that web services of a source's own choice may be in besides public ones, comma-separated.
    #[arg(long, value_parser = cidr, action = ArgAction::Append, value_delimiter = ',')]
    external_ip_api_allow_cidrs: Vec<Cidr>,
}

/// What one flag alone cannot tell.
pub(super) fn settings(
    flags: &ExternalIpFlags,
    env: impl Fn(&str) -> Option<String>,
    warnings: &mut Vec<String>,
) -> Result<ExternalIpSources, String> {
    let variable = |name: &str| env(name).filter(|text| !text.is_empty());
    let asked = match (flags.external_ip_interval, variable(INTERVAL.0)) {
        (Some(asked), _) => Some((INTERVAL.1, asked)),
        (None, Some(text)) => Some((INTERVAL.0, interval(&text).map_err(|error| format!("{}: {error}", INTERVAL.0))?)),
        (None, None) => None,
    };
    let interval = match asked {
        Some((name, asked)) if asked < SHORTEST_INTERVAL => {
            warnings.push(format!("{name}: {asked:?} is raised to {SHORTEST_INTERVAL:?}"));
            SHORTEST_INTERVAL
        }
        Some((_, asked)) => asked,
        None => DEFAULT_INTERVAL,
    };
    let dry_run = match (flags.external_ip_dry_run, variable(DRY_RUN.0)) {
        (Some(asked), _) => asked,
        (None, Some(text)) => go_bool(&text).map_err(|error| format!("{}={text}: {error}", DRY_RUN.0))?,
        (None, None) => false,
    };
    if flags.external_ip_dns_min_ttl > flags.external_ip_dns_max_ttl {
        return Err("--external-ip-dns-min-ttl must not be more than --external-ip-dns-max-ttl".to_owned());
    }
    if flags.external_ip_solver_timeout.is_zero() {
        return Err("--external-ip-solver-timeout must be more than 0".to_owned());
    }
    let class = &flags.external_ip_load_balancer_class;
    if class.is_empty() || class.contains(char::is_whitespace) {
        return Err("--external-ip-load-balancer-class: write a class as Services name it, such as example.net/public".to_owned());
    }
    if let Some(twice) = duplicate(&flags.external_ip_api_endpoint) {
        return Err(format!("--external-ip-api-endpoint names {twice} twice; keep one"));
    }
    Ok(ExternalIpSources {
        interval,
        dry_run,
        dns_servers: flags.external_ip_dns_server.clone(),
        dns_min_ttl: flags.external_ip_dns_min_ttl,
        dns_max_ttl: flags.external_ip_dns_max_ttl,
        source_grace: flags.external_ip_source_grace,
        solver_timeout: flags.external_ip_solver_timeout,
        solver_concurrency: flags.external_ip_solver_concurrency,
        write_concurrency: flags.external_ip_write_concurrency,
        allow_private: flags.external_ip_allow_private,
        allow_cidrs: flags.external_ip_allow_cidrs.clone(),
        deny_cidrs: flags.external_ip_deny_cidrs.clone(),
        load_balancer_class: class.clone(),
        external_dns_prefixes: flags.external_dns_annotation_prefixes.clone(),
        api_endpoints: flags.external_ip_api_endpoint.clone(),
        api_ca: flags.external_ip_api_ca_file.as_deref().map(authorities).transpose()?,
        api_allow_cidrs: flags.external_ip_api_allow_cidrs.clone(),
    })
}

fn duplicate(endpoints: &[ApiEndpoint]) -> Option<&str> {
    let names: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.provider.as_str()).collect();
    names.iter().enumerate().find(|(index, name)| names[..*index].contains(name)).map(|(_, name)| *name)
}

fn authorities(file: &Path) -> Result<Vec<u8>, String> {
    let told = |reason: String| format!("--external-ip-api-ca-file: {}: {reason}", file.display());
    let pem = std::fs::read(file).map_err(|error| told(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(certificates) if certificates.is_empty() => Err(told("holds no certificate; write certificates in PEM".to_owned())),
        Ok(_) => Ok(pem),
        Err(error) => Err(told(error.to_string())),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).or_else(|_| duration::parse(text))
}

fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let server = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT)).or_else(|_| text.parse());
    server.map_err(|_| "write IP or IP:port, such as 192.0.2.53 or [2001:db8::53]:5353".to_owned())
}

fn cidr(text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|error: poolutil::ParseError| error.to_string())
}

fn prefix(text: &str) -> Result<String, String> {
    let domain = text.strip_suffix('/').filter(|domain| !domain.is_empty() && !domain.contains('/'));
    domain
        .map(|_| text.to_owned())
        .ok_or_else(|| "write a prefix with the slash at its end, such as external-dns.kubernetes.io/".to_owned())
}

fn endpoint(text: &str) -> Result<ApiEndpoint, String> {
    const PROVIDERS: [&str; 4] = ["myIp", "ipify", "icanhazip", "cloudflare"];
    let (provider, urls) = text.split_once('=').ok_or("write PROVIDER=IPv4-URL[,IPv6-URL]")?;
    if !PROVIDERS.contains(&provider) {
        return Err(format!("there is no provider {provider}; known are {}", PROVIDERS.join(", ")));
    }
    let (ipv4, ipv6) = urls.split_once(',').unwrap_or((urls, urls));
    Ok(ApiEndpoint { provider: provider.to_owned(), ipv4: HttpsUrl::parse(ipv4)?, ipv6: HttpsUrl::parse(ipv6)? })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        flags: ExternalIpFlags,
    }

    fn flags(args: &[&str]) -> Result<ExternalIpFlags, String> {
        let line = Line::try_parse_from(std::iter::once(&"manager").chain(args));
        line.map(|line| line.flags).map_err(|error| error.to_string())
    }

    /// The settings, and what is warned about.
    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<(ExternalIpSources, Vec<String>), String> {
        let env = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut warnings = Vec::new();
        settings(&flags(args)?, env, &mut warnings).map(|settings| (settings, warnings))
    }

    fn defaults() -> ExternalIpSources {
        ExternalIpSources {
            interval: Duration::from_secs(60),
            dry_run: false,
            dns_servers: Vec::new(),
            dns_min_ttl: Duration::from_secs(5),
            dns_max_ttl: Duration::from_secs(24 * 3600),
            source_grace: Duration::from_secs(300),
            solver_timeout: Duration::from_secs(10),
            solver_concurrency: 64,
            write_concurrency: 32,
            allow_private: false,
            allow_cidrs: Vec::new(),
            deny_cidrs: Vec::new(),
            load_balancer_class: "externalip.spacebird.dev/external-ip".to_owned(),
            external_dns_prefixes: vec!["external-dns.kubernetes.io/".to_owned(), "external-dns.alpha.kubernetes.io/".to_owned()],
            api_endpoints: Vec::new(),
            api_ca: None,
            api_allow_cidrs: Vec::new(),
        }
    }

    #[test]
    fn without_flags_everything_has_its_default() {
        assert_eq!(read(&[], &[]), Ok((defaults(), Vec::new())));
        assert_eq!(read(&[], &[("EXTERNALIP_MANAGER_INTERVAL", "")]), Ok((defaults(), Vec::new())));
    }

    #[test]
    fn every_flag_has_its_setting() {
        let url = |text: &str| HttpsUrl::parse(text).unwrap();
        let endpoint = |provider: &str, ipv4: &str, ipv6: &str| ApiEndpoint {
            provider: provider.to_owned(),
            ipv4: url(ipv4),
            ipv6: url(ipv6),
        };
        let cidrs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Cidr>>();
        let args = [
            "--external-ip-interval=2m",
            "--external-ip-dry-run",
            "--external-ip-dns-server=192.0.2.53",
            "--external-ip-dns-server=127.0.0.1:5353",
            "--external-ip-dns-server=[2001:db8::53]:5353",
            "--external-ip-dns-min-ttl=1s",
            "--external-ip-dns-max-ttl=1h",
            "--external-ip-source-grace=0s",
            "--external-ip-solver-timeout=3s",
            "--external-ip-solver-concurrency=7",
            "--external-ip-write-concurrency=9",
            "--external-ip-allow-private",
            "--external-ip-allow-cidrs=203.0.113.0/24,2001:db8::/32",
            "--external-ip-deny-cidrs=203.0.113.0/28",
            "--external-ip-deny-cidrs=203.0.113.240/28",
            "--external-ip-load-balancer-class=example.net/public",
            "--external-dns-annotation-prefixes=dns.example.net/",
            "--external-ip-api-endpoint=ipify=https://127.0.0.1:8443/v4,https://[::1]:8443/v6",
            "--external-ip-api-endpoint=myIp=https://127.0.0.1:8443/",
            "--external-ip-api-allow-cidrs=127.0.0.0/8",
        ];
        let expected = ExternalIpSources {
            interval: Duration::from_secs(120),
            dry_run: true,
            dns_servers: ["192.0.2.53:53", "127.0.0.1:5353", "[2001:db8::53]:5353"].map(|text| text.parse().unwrap()).to_vec(),
            dns_min_ttl: Duration::from_secs(1),
            dns_max_ttl: Duration::from_secs(3600),
            source_grace: Duration::ZERO,
            solver_timeout: Duration::from_secs(3),
            solver_concurrency: 7,
            write_concurrency: 9,
            allow_private: true,
            allow_cidrs: cidrs(&["203.0.113.0/24", "2001:db8::/32"]),
            deny_cidrs: cidrs(&["203.0.113.0/28", "203.0.113.240/28"]),
            load_balancer_class: "example.net/public".to_owned(),
            external_dns_prefixes: vec!["dns.example.net/".to_owned()],
            api_endpoints: vec![
                endpoint("ipify", "https://127.0.0.1:8443/v4", "https://[::1]:8443/v6"),
                endpoint("myIp", "https://127.0.0.1:8443/", "https://127.0.0.1:8443/"),
            ],
            api_ca: None,
            api_allow_cidrs: cidrs(&["127.0.0.0/8"]),
        };
        assert_eq!(read(&args, &[]), Ok((expected, Vec::new())));
    }

    #[test]
    fn what_the_operator_before_was_set_up_by_still_counts() {
        let env = [("EXTERNALIP_MANAGER_INTERVAL", "30"), ("EXTERNALIP_MANAGER_DRY_RUN", "true")];
        let (settings, warnings) = read(&[], &env).unwrap();
        assert_eq!((settings.interval, settings.dry_run, warnings), (Duration::from_secs(30), true, Vec::new()));

        let (settings, _) = read(&["--external-ip-interval=1m", "--external-ip-dry-run=false"], &env).unwrap();
        assert_eq!((settings.interval, settings.dry_run), (Duration::from_secs(60), false));

        for (name, value) in [("EXTERNALIP_MANAGER_INTERVAL", "often"), ("EXTERNALIP_MANAGER_DRY_RUN", "perhaps")] {
            let error = read(&[], &[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }

    #[test]
    fn a_short_interval_is_raised_with_a_warning() {
        for text in ["0", "0s", "4", "4s"] {
            let (settings, warnings) = read(&[&format!("--external-ip-interval={text}")], &[]).unwrap();
            assert_eq!((settings.interval, warnings.len()), (Duration::from_secs(5), 1), "{text}");
            let (settings, warnings) = read(&[], &[("EXTERNALIP_MANAGER_INTERVAL", text)]).unwrap();
            assert_eq!((settings.interval, warnings.len()), (Duration::from_secs(5), 1), "{text}");
        }
        let (_, warnings) = read(&["--external-ip-interval=0"], &[]).unwrap();
        assert_eq!(warnings, ["--external-ip-interval: 0ns is raised to 5s"]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_flag_and_value() {
        for (args, words) in [
            (&["--external-ip-interval=often"][..], &["--external-ip-interval", "often"][..]),
            (&["--external-ip-interval=-1"], &["--external-ip-interval", "-1"]),
            (&["--external-ip-dns-server=dns.example.net"], &["--external-ip-dns-server", "dns.example.net", "192.0.2.53"]),
            (&["--external-ip-allow-cidrs=10.0.0.1"], &["--external-ip-allow-cidrs", "10.0.0.1", "write a CIDR"]),
            (&["--external-ip-deny-cidrs=10.0.0.0/8,x"], &["--external-ip-deny-cidrs", "'x'"]),
            (&["--external-ip-solver-concurrency=0"], &["--external-ip-solver-concurrency", "at least 1"]),
            (&["--external-ip-solver-timeout=0"], &["--external-ip-solver-timeout", "more than 0"]),
            (&["--external-ip-dns-min-ttl=2h", "--external-ip-dns-max-ttl=1h"], &["min-ttl", "max-ttl"]),
            (&["--external-ip-load-balancer-class="], &["--external-ip-load-balancer-class"]),
            (&["--external-dns-annotation-prefixes=dns.example.net"], &["--external-dns-annotation-prefixes", "slash"]),
            (&["--external-ip-api-endpoint=https://127.0.0.1"], &["--external-ip-api-endpoint", "PROVIDER=IPv4-URL"]),
            (&["--external-ip-api-endpoint=custom=https://127.0.0.1"], &["custom", "myIp, ipify"]),
            (&["--external-ip-api-endpoint=ipify=http://127.0.0.1"], &["--external-ip-api-endpoint", "only https"]),
            (
                &["--external-ip-api-endpoint=ipify=https://a.example", "--external-ip-api-endpoint=ipify=https://b.example"],
                &["--external-ip-api-endpoint", "ipify twice"],
            ),
            (&["--external-ip-api-ca-file=/does/not/exist"], &["--external-ip-api-ca-file", "/does/not/exist"]),
        ] {
            let error = read(args, &[]).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{args:?}: {error}");
        }
    }

    #[test]
    fn the_file_of_authorities_holds_certificates() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read_it = || read(&[&format!("--external-ip-api-ca-file={}", file.path().display())], &[]);
        assert!(read_it().unwrap_err().contains("holds no certificate"));
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(file.path(), pem).unwrap();
        assert_eq!(read_it().unwrap().0.api_ca, Some(pem.as_bytes().to_vec()));
    }
}
