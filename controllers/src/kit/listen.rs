//! Addresses to listen on, spelled as Go programs spell them: `:8081`, `127.0.0.1:8443`, `[::1]:80`.

use std::{fmt, io, net::Ipv4Addr, str::FromStr};

use tokio::net::TcpListener;

/// A host (empty means every interface) and a port (0 means any free one).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

/// A text that is no address to listen on.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not an address to listen on: write host:port, or :port for every interface")]
pub struct NotAnAddress(String);

impl FromStr for ListenAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let wrong = || NotAnAddress(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl ListenAddress {
    /// Starts to listen. An empty host takes both address families where the machine has both.
    pub async fn bind(&self) -> io::Result<TcpListener> {
        if !self.host.is_empty() {
            return TcpListener::bind((self.host.as_str(), self.port)).await;
        }
        match TcpListener::bind(("::", self.port)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port)).await,
            bound => bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_programs_spell_them() {
        for (text, host, port) in
            [(":8443", "", 8443), ("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:80", "::1", 80), ("localhost:9440", "localhost", 9440)]
        {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["8443", "::1:80", "[::1:80", "host:", "host:65536", "host:http"] {
            assert_eq!(text.parse::<ListenAddress>(), Err(NotAnAddress(text.to_owned())), "{text}");
        }
    }

    #[tokio::test]
    async fn an_empty_host_is_reachable_over_ipv4() {
        let listener = ":0".parse::<ListenAddress>().unwrap().bind().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    }
}
