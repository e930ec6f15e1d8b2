//! The URL of a web service, read so strictly that nobody reads another host in it.

use std::fmt;
use std::net::IpAddr;

use super::host::Host;

/// An `https` URL without user, password and fragment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpsUrl {
    text: String,
    host: Host,
    port: u16,
}

const HTTPS_PORT: u16 = 443;

impl HttpsUrl {
    /// Reads a URL, or says what to write instead.
    ///
    /// ```
    /// use api::externalip::{Host, HttpsUrl};
    /// let url = HttpsUrl::parse("https://ip.example.net:8443/me?format=json").unwrap();
    /// assert_eq!((url.host(), url.port()), (&Host::Name("ip.example.net".to_owned()), 8443));
    /// ```
    pub fn parse(text: &str) -> Result<Self, String> {
        let scheme = "https://";
        if text.contains(|letter: char| !letter.is_ascii_graphic() || letter == '\\') {
            return Err("write the URL in ASCII, without blanks and backslashes".to_owned());
        }
        let rest = text
            .get(..scheme.len())
            .filter(|start| start.eq_ignore_ascii_case(scheme))
            .map(|_| &text[scheme.len()..])
            .ok_or("only https is allowed; write https://<host>/<path>")?;
        if rest.contains('#') {
            return Err("a fragment is not allowed; remove the part from # on".to_owned());
        }
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("user and password are not allowed; remove the part up to @".to_owned());
        }
        let (host, port) = host_and_port(authority)?;
        Ok(Self { text: text.to_owned(), host, port })
    }

    /// The URL as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, also where it goes without saying.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn host_and_port(authority: &str) -> Result<(Host, u16), String> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (address, behind) = rest.split_once(']').ok_or("the bracket before the host is not closed")?;
        let port = behind.strip_prefix(':');
        if port.is_none() && !behind.is_empty() {
            return Err("after the bracket only a port may follow".to_owned());
        }
        match Host::parse(address) {
            Ok(host @ Host::Literal(IpAddr::V6(_))) => (host, port),
            _ => return Err(format!("the host [{address}] is no IPv6 address")),
        }
    } else {
        let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        (Host::parse(host).map_err(|reason| format!("the host {host:?} is {reason}"))?, port)
    };
    let port = port.map_or(Ok(HTTPS_PORT), |port| {
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|number| digits && *number > 0).ok_or("write the port as a number from 1 to 65535")
    })?;
    Ok((host, port))
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_found() {
        for (text, host, port) in [
            ("https://ip.example.net", "ip.example.net", 443),
            ("HTTPS://IP.example.net/", "ip.example.net", 443),
            ("https://ip.example.net?x=1", "ip.example.net", 443),
            ("https://ip.example.net:8443/a/b?c=d:e@f", "ip.example.net", 8443),
            ("https://203.0.113.7:8443", "203.0.113.7", 8443),
            ("https://[2001:db8::7]/", "2001:db8::7", 443),
            ("https://[2001:db8::7]:8443/", "2001:db8::7", 8443),
        ] {
            let url = HttpsUrl::parse(text).unwrap();
            assert_eq!((url.as_str(), url.host().to_string().as_str(), url.port()), (text, host, port));
        }
    }

    #[test]
    fn what_is_not_plain_https_is_refused() {
        for text in [
            "",
            "https://",
            "https:///path",
            "http://ip.example.net",
            "ftp://ip.example.net",
            "//ip.example.net",
            "ip.example.net",
            "https:/ip.example.net",
            "https://user@ip.example.net",
            "https://user:secret@ip.example.net",
            "https://ip.example.net#top",
            "https://ip.example.net/#top",
            "https://ip.example.net:0",
            "https://ip.example.net:",
            "https://ip.example.net:65536",
            "https://ip.example.net:+1",
            "https://ip.example.net:8o",
            "https://[::1",
            "https://[::1]x",
            "https://[203.0.113.7]",
            "https://2001:db8::7/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://127.1/",
            "https://good.example\\@10.0.0.1/",
            "https://a%2eb/",
            "https://ip.example.net/ x",
            "https://ip.example.net/\n",
            "https://müller.example/",
            "https://*.example.net/",
        ] {
            assert!(HttpsUrl::parse(text).is_err(), "{text:?}");
        }
    }
}
