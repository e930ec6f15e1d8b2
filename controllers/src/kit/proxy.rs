//! The way to the API server: straight, or through the proxy that the kubeconfig or the environment names. Taken by `client`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::TryFutureExt as _;
use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::{
            HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

/// How a connection to the API server is made.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// Straight.
    Direct(HttpConnector),
    /// Through an HTTP proxy that is asked to `CONNECT`.
    Tunnel(Tunnel<HttpConnector>),
    /// Through a SOCKS 5 proxy.
    Socks(SocksV5<HttpConnector>),
}

impl Route {
    /// The way to `server`. The kubeconfig's own proxy counts whatever the environment says, else `HTTPS_PROXY`, `ALL_PROXY` and
    /// `NO_PROXY` do. The error is a proxy that cannot be used.
    pub(super) fn to(server: &Uri, kubeconfig: Option<&str>, environment: &Matcher, tcp: HttpConnector) -> Result<Self, String> {
        let proxy = match kubeconfig.filter(|proxy| !proxy.is_empty()) {
            Some(url) => Some(Matcher::builder().all(url).build().intercept(server).ok_or_else(|| without_secrets(url))?),
            None => environment.intercept(server),
        };
        match proxy {
            None => Ok(Self::Direct(tcp)),
            Some(proxy) => Self::through(&proxy, tcp),
        }
    }

    fn through(proxy: &Intercept, tcp: HttpConnector) -> Result<Self, String> {
        let uri = proxy.uri().clone();
        match uri.scheme_str() {
            Some("http") => {
                let tunnel = Tunnel::new(uri, tcp);
                Ok(Self::Tunnel(match proxy.basic_auth() {
                    Some(auth) => tunnel.with_auth(auth.clone()),
                    None => tunnel,
                }))
            }
            Some(scheme @ ("socks5" | "socks5h")) => {
                let socks = SocksV5::new(uri.clone(), tcp).local_dns(scheme == "socks5");
                Ok(Self::Socks(match proxy.raw_auth() {
                    Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()),
                    None => socks,
                }))
            }
            _ => Err(uri.to_string()),
        }
    }
}

/// A proxy's URL as it may be shown: its user and password are left out.
fn without_secrets(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        (_, None) => url.to_owned(),
    }
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(tcp) => tcp.poll_ready(context).map_err(BoxError::from),
            Self::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(BoxError::from),
            Self::Socks(socks) => socks.poll_ready(context).map_err(BoxError::from),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        match self {
            Self::Direct(tcp) => Box::pin(tcp.call(server).map_err(BoxError::from)),
            Self::Tunnel(tunnel) => Box::pin(tunnel.call(server).map_err(BoxError::from)),
            Self::Socks(socks) => Box::pin(socks.call(server).map_err(BoxError::from)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(kubeconfig: Option<&str>, environment: &Matcher) -> Result<&'static str, String> {
        let server = Uri::from_static("https://10.96.0.1:443");
        Route::to(&server, kubeconfig, environment, HttpConnector::new()).map(|route| match route {
            Route::Direct(_) => "direct",
            Route::Tunnel(_) => "tunnel",
            Route::Socks(_) => "socks",
        })
    }

    #[test]
    fn the_environment_counts_unless_it_excepts_the_server_or_the_kubeconfig_says_otherwise() {
        let none = Matcher::builder().build();
        let proxy = Matcher::builder().https("http://proxy.example:3128").build();
        let excepted = Matcher::builder().all("http://proxy.example:3128").no("10.96.0.0/12, .example.net").build();
        assert_eq!(route(None, &none), Ok("direct"));
        assert_eq!(route(None, &proxy), Ok("tunnel"));
        assert_eq!(route(None, &Matcher::builder().all("socks5h://proxy.example:1080").build()), Ok("socks"));
        assert_eq!(route(None, &excepted), Ok("direct"));
        assert_eq!(route(Some(""), &excepted), Ok("direct"));
        assert_eq!(route(Some("http://me:secret@proxy.example"), &excepted), Ok("tunnel"));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_named_without_its_password() {
        let none = Matcher::builder().build();
        assert_eq!(route(Some("ftp://me:secret@proxy.example"), &none), Err("ftp://proxy.example".to_owned()));
        assert_eq!(route(Some("https://me:secret@proxy.example"), &none), Err("https://proxy.example/".to_owned()));
    }
}
