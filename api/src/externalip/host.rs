//! A host as people write it: an IP address or a DNS name. The one reading of it, for `dnsHostname` and for URLs.

use std::fmt;
use std::net::IpAddr;

use poolutil::parse_plain_ip;

/// An IP address or a DNS name.
///
/// ```
/// use api::externalip::Host;
/// assert_eq!(Host::parse("GW.example.net."), Ok(Host::Name("gw.example.net".to_owned())));
/// assert_eq!(Host::parse("198.51.100.44"), Ok(Host::Literal("198.51.100.44".parse().unwrap())));
/// assert!(Host::parse("010.0.0.1").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address, which stands for itself.
    Literal(IpAddr),
    /// A DNS name: lower case, without the dot at its end.
    Name(String),
}

/// The longest DNS name in text form, without the dot at its end.
const LONGEST: usize = 253;
/// The longest part between two dots.
const LONGEST_LABEL: usize = 63;

impl Host {
    /// Reads a host, or says what to write instead.
    ///
    /// A name whose last part is a number is refused: some readers take `0x7f.1` or `010.0.0.1` for an address.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = parse_plain_ip(text) {
            return Ok(Self::Literal(ip));
        }
        if text.contains([':', '/', '%', '[', ']']) {
            return Err(
                "neither a DNS name nor an IP address; write the host alone, without scheme, port, path or zone".to_owned()
            );
        }
        if text.contains('*') {
            return Err("a wildcard names no host; write the name of one".to_owned());
        }
        if !text.is_ascii() {
            return Err("write the name in its ASCII form, which begins with xn--".to_owned());
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=LONGEST_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > LONGEST || !name.split('.').all(is_label) {
            return Err(format!(
                "not a DNS name; write letters, digits and hyphens with dots between, at most {LONGEST_LABEL} characters from \
                 dot to dot and {LONGEST} in all"
            ));
        }
        if name.rsplit('.').next().is_some_and(looks_like_a_number) {
            return Err("neither a DNS name nor an IP address; write an IPv4 address as four numbers from 0 to 255 without \
                        leading zeros"
                .to_owned());
        }
        Ok(Self::Name(name))
    }
}

fn looks_like_a_number(label: &str) -> bool {
    let digits = label.strip_prefix("0x").unwrap_or(label);
    let radix = if digits.len() < label.len() { 16 } else { 10 };
    digits.chars().all(|digit| digit.is_digit(radix))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(ip) => fmt::Display::fmt(ip, f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_in_lower_case_without_its_last_dot() {
        for (text, name) in [
            ("gw.example.net", "gw.example.net"),
            ("GW.Example.NET.", "gw.example.net"),
            ("localhost", "localhost"),
            ("_dmarc.example.net", "_dmarc.example.net"),
            ("xn--mller-kva.example", "xn--mller-kva.example"),
            ("1.2.3.example", "1.2.3.example"),
            ("0xcafe.example", "0xcafe.example"),
        ] {
            assert_eq!(Host::parse(text), Ok(Host::Name(name.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_may_be_read_as_another_host_is_refused() {
        let long = format!("{}.example", "a".repeat(64));
        let longest = ["abcdefg."; 32].concat();
        for text in [
            "",
            ".",
            "a..b",
            "-a.example",
            "a-.example",
            "a b",
            " a",
            "a\n",
            "*.example.net",
            "müller.example",
            "example.net:443",
            "https://example.net",
            "fe80::1%eth0",
            "[2001:db8::1]",
            "10.0.0.0/8",
            "010.0.0.1",
            "1.2.3",
            "256.1.1.1",
            "0x7f.1",
            "0x7f000001",
            "127.0.0.0x1",
            "2130706433",
            "1.2.3.4.",
            "example.net..",
            "0x",
            &long,
            &longest,
        ] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
    }
}
