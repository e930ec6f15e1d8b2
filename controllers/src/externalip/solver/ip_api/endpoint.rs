//! Where each provider is asked, what it answers with, and how often it may be asked. Looked up by `ip_api` for every question.

use std::time::Duration;

use api::externalip::{Api, CustomApi, Format, HttpsUrl};
use poolutil::Family;

use crate::config::ApiEndpoint;

/// Where and how a service is asked for one family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::externalip::solver) struct Endpoint {
    pub(in crate::externalip::solver) url: HttpsUrl,
    pub(super) shape: Shape,
    /// The time from one answer to the next question, and the first back-off.
    pub(super) pace: Duration,
    pub(super) ca_bundle: Option<String>,
    /// Whether the service may be at addresses that are not public: a flag names it.
    pub(super) anywhere: bool,
}

/// What an answer looks like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Shape {
    /// JSON that also tells success and family.
    MyIp,
    /// JSON with the address under these keys.
    Json(Vec<String>),
    /// The address alone.
    Text,
    /// Lines, of which one is `ip=` and the address.
    Trace,
}

impl Endpoint {
    /// The endpoint of a service; `instead` holds those that take the place of built-in ones. The error is a URL that is none.
    pub(super) fn of(family: Family, api: &Api, instead: &[ApiEndpoint]) -> Result<Self, String> {
        let (shape, seconds, urls) = match api {
            Api::Custom(custom) => return Ok(Self::custom(custom)),
            Api::MyIp => (Shape::MyIp, 900, ["https://api4.my-ip.io/v2/ip.json", "https://api6.my-ip.io/v2/ip.json"]),
            Api::Ipify => {
                let shape = Shape::Json(vec!["ip".to_owned()]);
                (shape, 300, ["https://api.ipify.org?format=json", "https://api6.ipify.org?format=json"])
            }
            Api::Icanhazip => (Shape::Text, 300, ["https://ipv4.icanhazip.com", "https://ipv6.icanhazip.com"]),
            Api::Cloudflare => (Shape::Trace, 300, ["https://cloudflare.com/cdn-cgi/trace"; 2]),
        };
        let mirror = instead.iter().rev().find(|mirror| mirror.provider == api.provider());
        let url = match (mirror, family) {
            (Some(mirror), Family::V4) => mirror.ipv4.clone(),
            (Some(mirror), Family::V6) => mirror.ipv6.clone(),
            (None, Family::V4) => HttpsUrl::parse(urls[0])?,
            (None, Family::V6) => HttpsUrl::parse(urls[1])?,
        };
        Ok(Self { url, shape, pace: Duration::from_secs(seconds), ca_bundle: None, anywhere: mirror.is_some() })
    }

    fn custom(CustomApi { url, format, ca_bundle }: &CustomApi) -> Self {
        let shape = match format {
            Format::Json(keys) => Shape::Json(keys.clone()),
            Format::Text => Shape::Text,
        };
        let pace = Duration::from_secs(300);
        Self { url: url.clone(), shape, pace, ca_bundle: ca_bundle.clone(), anywhere: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_has_its_urls_its_pace_and_its_shape() {
        let row = |api: &Api| {
            let [four, six] = [Family::V4, Family::V6].map(|family| Endpoint::of(family, api, &[]).unwrap());
            assert!(!four.anywhere && !six.anywhere);
            (four.url.as_str().to_owned(), six.url.as_str().to_owned(), four.pace.as_secs(), six.shape)
        };
        let own = |four: &str, six: &str, pace, shape| (four.to_owned(), six.to_owned(), pace, shape);
        assert_eq!(
            row(&Api::MyIp),
            own("https://api4.my-ip.io/v2/ip.json", "https://api6.my-ip.io/v2/ip.json", 900, Shape::MyIp)
        );
        assert_eq!(
            row(&Api::Ipify),
            own(
                "https://api.ipify.org?format=json",
                "https://api6.ipify.org?format=json",
                300,
                Shape::Json(vec!["ip".to_owned()])
            )
        );
        assert_eq!(row(&Api::Icanhazip), own("https://ipv4.icanhazip.com", "https://ipv6.icanhazip.com", 300, Shape::Text));
        let trace = "https://cloudflare.com/cdn-cgi/trace";
        assert_eq!(row(&Api::Cloudflare), own(trace, trace, 300, Shape::Trace));
        let custom = CustomApi {
            url: HttpsUrl::parse("https://ip.example.net/me").unwrap(),
            format: Format::Json(vec!["data".to_owned(), "addr".to_owned()]),
            ca_bundle: None,
        };
        let url = "https://ip.example.net/me";
        let shape = Shape::Json(vec!["data".to_owned(), "addr".to_owned()]);
        assert_eq!(row(&Api::Custom(custom)), own(url, url, 300, shape));
    }

    #[test]
    fn the_last_flag_for_a_provider_takes_its_place_and_may_lie_anywhere() {
        let mirror = |ipv4, ipv6| ApiEndpoint {
            provider: "ipify".to_owned(),
            ipv4: HttpsUrl::parse(ipv4).unwrap(),
            ipv6: HttpsUrl::parse(ipv6).unwrap(),
        };
        let mirrors = [mirror("https://a/", "https://b/"), mirror("https://10.0.0.1/", "https://[fd00::1]/")];
        let found = [Family::V4, Family::V6].map(|family| Endpoint::of(family, &Api::Ipify, &mirrors).unwrap());
        assert_eq!(found.each_ref().map(|endpoint| endpoint.url.as_str()), ["https://10.0.0.1/", "https://[fd00::1]/"]);
        assert!(found[0].anywhere && found[1].anywhere);
        assert!(!Endpoint::of(Family::V4, &Api::MyIp, &mirrors).unwrap().anywhere);
    }
}
