//! A web proxy on loopback that tunnels (`CONNECT`) to the machine's own ports, whatever the host is called, and remembers for whom.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::background::Background;
use crate::control_plane::lock;

/// A proxy. Dropping it ends it.
#[derive(Debug)]
pub struct TunnelProxy {
    address: SocketAddr,
    tunnels: Arc<Mutex<Vec<String>>>,
    _serving: Background,
}

impl TunnelProxy {
    /// Starts to listen on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let tunnels = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&tunnels);
        let serving = Background::start("proxy", move || async move {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (client, _) = listener.accept().await?;
                let asked = Arc::clone(&asked);
                // A client that goes away is no fault of the proxy.
                tokio::spawn(async move {
                    let _ = tunnel(client, &asked).await;
                });
            }
        })?;
        Ok(Self { address, tunnels, _serving: serving })
    }

    /// What `HTTPS_PROXY` names.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every `host:port` that somebody wanted to reach, in order.
    pub fn tunnels(&self) -> Vec<String> {
        lock(&self.tunnels).clone()
    }
}

async fn tunnel(mut client: TcpStream, asked: &Mutex<Vec<String>>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 8192, "an endless request");
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).context("no CONNECT")?;
    lock(asked).push(target.to_owned());
    let port: u16 = target.rsplit_once(':').context("a target without port")?.1.parse()?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_at_the_port_that_was_named() {
        let proxy = TunnelProxy::start().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        let request = format!("CONNECT api.example.net:{port} HTTP/1.1\r\nHost: api.example.net:{port}\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let (mut accepted, _) = server.accept().await.unwrap();
        accepted.write_all(b"hello").await.unwrap();
        drop(accepted);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 200 Connection established\r\n\r\nhello");
        assert_eq!(proxy.tunnels(), [format!("api.example.net:{port}")]);
    }
}
