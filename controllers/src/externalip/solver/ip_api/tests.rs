use api::externalip::{CustomApi, Format, HttpsUrl, Shared};
use testbed::{Answer, DnsServer, Fault, TunnelProxy, WebServer};

use super::*;
use crate::externalip::solver::dns::DnsSettings;

const HOST: &str = "api.example.net";

/// A web server whose names resolve, and whoever asks it.
struct Scene {
    web: WebServer,
    dns: DnsServer,
    _files: tempfile::TempDir,
    asking: Web,
}

impl Scene {
    fn start() -> Self {
        Self::with(|_, _| ())
    }

    fn with(change: impl FnOnce(&mut WebSettings, &WebServer)) -> Self {
        let (web, dns, files) = (WebServer::start().unwrap(), DnsServer::start().unwrap(), tempfile::tempdir().unwrap());
        for name in [HOST, WebServer::EXPIRED, WebServer::WRONG_NAME] {
            dns.set(name, 60, &["127.0.0.1"]).unwrap();
        }
        let resolver = DnsSettings {
            servers: vec![dns.address()],
            resolv_conf: files.path().join("resolv.conf"),
            hosts: files.path().join("hosts"),
            ttl: (Duration::from_secs(5), Duration::from_secs(86_400)),
        };
        let mut settings = WebSettings {
            user_agent: "ipam-in-cluster/1.2.3".to_owned(),
            instead: Vec::new(),
            ca: Some(web.authority().as_bytes().to_vec()),
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            proxies: Matcher::builder().build(),
        };
        change(&mut settings, &web);
        let asking = Web::new(settings, Arc::new(Dns::new(resolver))).unwrap();
        Self { web, dns, _files: files, asking }
    }

    async fn ask(&self, family: Family, api: Api) -> Ran {
        let endpoint = self.asking.endpoint(family, &api).unwrap();
        self.asking.ask(&Key { family, solver: Shared::IpApi(api) }, &endpoint).await
    }

    async fn text(&self, url: &str) -> Ran {
        self.ask(Family::V4, text_at(url)).await
    }

    /// The kind of failure that the URL ends in.
    async fn kind(&self, url: &str) -> &'static str {
        match self.text(url).await.outcome {
            Outcome::Failed(failure) => {
                assert!(!failure.text.contains("secret"), "{}", failure.text);
                failure.kind.as_str()
            }
            Outcome::Found { .. } => "Found",
            Outcome::Empty(_) => "Empty",
        }
    }

    fn by_name(&self, path: &str) -> String {
        self.web.url_by_name(HOST, path)
    }
}

fn text_at(url: &str) -> Api {
    Api::Custom(CustomApi { url: HttpsUrl::parse(url).unwrap(), format: Format::Text, ca_bundle: None })
}

fn found(address: &str, seconds: u64) -> Ran {
    let outcome = Outcome::Found { addresses: vec![address.parse().unwrap()], truncated: false };
    Ran { outcome, fresh_for: Some(Duration::from_secs(seconds)) }
}

#[tokio::test]
async fn each_provider_is_read_and_asked_again_at_its_pace() {
    let scene = Scene::with(|settings, web| {
        let url = |path: &str| HttpsUrl::parse(&web.url_by_name(HOST, path)).unwrap();
        let instead = |provider: &str| ApiEndpoint { provider: provider.to_owned(), ipv4: url(provider), ipv6: url("/six") };
        settings.instead = ["/myIp", "/ipify", "/icanhazip", "/cloudflare"]
            .map(|path| ApiEndpoint { provider: path[1..].to_owned(), ..instead(path) })
            .into();
        // Endpoints of flags may be anywhere.
        settings.allow.clear();
    });
    for (api, body, seconds) in [
        (Api::MyIp, r#"{"success":true,"ip":"203.0.113.1","type":"IPv4"}"#, 900),
        (Api::Ipify, r#"{"ip":"203.0.113.1"}"#, 300),
        (Api::Icanhazip, "203.0.113.1\n", 300),
        (Api::Cloudflare, "fl=0\nip=203.0.113.1\nloc=XX\n", 300),
    ] {
        scene.web.answer(&format!("/{}", api.provider()), Answer::text(body));
        assert_eq!(scene.ask(Family::V4, api.clone()).await, found("203.0.113.1", seconds), "{api:?}");
    }
    // The host has no address of the other family, and none of this one was asked for.
    assert_eq!((scene.dns.queries(HOST, "A"), scene.dns.queries(HOST, "AAAA")), (4, 0));
}

#[tokio::test]
async fn a_custom_service_is_read_as_it_says() {
    let scene = Scene::start();
    scene.web.answer("/json", Answer::text(r#"{"data":{"addr":"203.0.113.2"}}"#));
    scene.web.answer("/text", Answer::text("203.0.113.3"));
    let json = CustomApi {
        url: HttpsUrl::parse(&scene.by_name("/json?a=b")).unwrap(),
        format: Format::Json(vec!["data".to_owned(), "addr".to_owned()]),
        ca_bundle: None,
    };
    assert_eq!(scene.ask(Family::V4, Api::Custom(json)).await, found("203.0.113.2", 300));
    assert_eq!(scene.text(&scene.by_name("/text")).await, found("203.0.113.3", 300));
    assert_eq!(scene.text(&scene.web.url("/text")).await, found("203.0.113.3", 300));
}

#[tokio::test]
async fn each_bad_answer_has_its_kind_and_is_not_repeated() {
    let scene = Scene::start();
    for (path, answer, kind) in [
        ("/good", Answer::text("203.0.113.3"), "Found"),
        ("/error", Answer::status(500), "HTTPStatus"),
        ("/created", Answer::status(201), "HTTPStatus"),
        ("/moved", Answer::redirect(scene.by_name("/good-too")), "HTTPStatus"),
        ("/six", Answer::text("2001:db8::1"), "WrongFamily"),
        ("/words", Answer::text("secret"), "BadAnswer"),
        ("/two", Answer::text("203.0.113.3\n203.0.113.4"), "BadAnswer"),
        ("/most", Answer::text("203.0.113.3".to_owned() + &" ".repeat(MOST_BYTES - 11)), "Found"),
        ("/big", Answer::text("203.0.113.3".to_owned() + &" ".repeat(MOST_BYTES - 10)), "TooLarge"),
        ("/huge", Answer::text("secret".repeat(200_000)), "TooLarge"),
    ] {
        scene.web.answer(path, answer);
        assert_eq!(scene.kind(&scene.by_name(path)).await, kind, "{path}");
        assert_eq!(scene.web.requests(path), 1, "{path}");
    }
    assert_eq!(scene.web.requests("/good-too"), 0);
    assert_eq!(scene.kind(&scene.by_name("/missing")).await, "HTTPStatus");
}

#[tokio::test]
async fn a_certificate_must_be_valid_for_the_host_and_of_a_trusted_authority() {
    let scene = Scene::start();
    let stranger = Scene::with(|settings, _| settings.ca = None);
    for (scene, host, text) in [
        (&scene, WebServer::EXPIRED, "the certificate has expired"),
        (&scene, WebServer::WRONG_NAME, "the certificate is for another name"),
        (&stranger, HOST, "the certificate's authority is not trusted"),
    ] {
        let ran = scene.text(&scene.web.url_by_name(host, "/ip")).await;
        assert_eq!(ran, failed(failure(FailureKind::Tls, text)));
        assert_eq!(scene.web.requests("/ip"), 0);
    }
}

#[tokio::test]
async fn a_ca_bundle_is_trusted_for_its_own_url_alone() {
    let scene = Scene::with(|settings, _| settings.ca = None);
    scene.web.answer("/ip", Answer::text("203.0.113.3"));
    let with = |ca_bundle: &str| {
        let url = HttpsUrl::parse(&scene.by_name("/ip")).unwrap();
        Api::Custom(CustomApi { url, format: Format::Text, ca_bundle: Some(ca_bundle.to_owned()) })
    };
    assert_eq!(scene.ask(Family::V4, with(scene.web.authority())).await, found("203.0.113.3", 300));
    assert_eq!(scene.kind(&scene.by_name("/ip")).await, "TLS");
    let ran = scene.ask(Family::V4, with("no certificate")).await;
    assert_eq!(ran, failed(failure(FailureKind::Tls, "caBundle: there is no certificate in it")));
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_or_found_has_the_kind_of_its_cause() {
    let scene = Scene::start();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(scene.kind(&format!("https://{HOST}:{closed}/")).await, "ConnectFailed");
    assert_eq!(scene.kind("https://gone.example.net/").await, "ConnectFailed");
    scene.dns.fail("broken.example.net", Some(Fault::ServerFailure));
    assert_eq!(scene.kind("https://broken.example.net/").await, "ServerFailure");
    // The service has no address of the family, and is not reached over the other one.
    let ran = scene.ask(Family::V6, text_at(&scene.by_name("/ip"))).await;
    let text = format!("no address of {HOST}: the name has no AAAA record");
    assert_eq!(ran, failed(failure(FailureKind::ConnectFailed, text)));
    assert_eq!((scene.dns.queries(HOST, "AAAA"), scene.web.requests("/ip")), (1, 0));
    let ran = scene.ask(Family::V6, text_at(&scene.web.url("/ip"))).await;
    assert_eq!(ran, failed(failure(FailureKind::WrongFamily, "127.0.0.1 is no IPv6 address")));
}

#[tokio::test]
async fn only_public_and_allowed_addresses_are_connected_to() {
    let scene = Scene::with(|settings, _| settings.allow = vec!["127.0.0.2/32".parse().unwrap()]);
    scene.web.answer("/ip", Answer::text("203.0.113.3"));
    assert_eq!(scene.kind(&scene.by_name("/ip")).await, "AddressRefused");
    assert_eq!(scene.kind(&scene.web.url("/ip")).await, "AddressRefused");
    assert_eq!(scene.kind("https://10.0.0.1/ip").await, "AddressRefused");
    scene.dns.set("rebinding.example.net", 0, &["10.0.0.1", "169.254.169.254", "100.64.0.1"]).unwrap();
    assert_eq!(scene.kind("https://rebinding.example.net/").await, "AddressRefused");
    assert_eq!(scene.dns.queries("rebinding.example.net", "A"), 1);
    assert_eq!(scene.web.requests("/ip"), 0);
    // Of several addresses only those are tried that are allowed; nobody listens on this one.
    scene.dns.set(HOST, 0, &["127.0.0.1", "127.0.0.2"]).unwrap();
    assert_eq!(scene.kind(&scene.by_name("/ip")).await, "ConnectFailed");
    assert_eq!(scene.web.requests("/ip"), 0);
}

#[tokio::test]
async fn a_service_that_was_asked_too_often_is_left_alone() {
    let scene = Scene::start();
    for (path, retry_after, seconds) in
        [("/short", None, 300), ("/shorter", Some(5), 300), ("/longer", Some(1000), 1000), ("/longest", Some(90_000), 7200)]
    {
        scene.web.answer(path, Answer::too_many_requests(retry_after));
        let ran = scene.text(&scene.by_name(path)).await;
        assert_eq!(ran, limited(Duration::from_secs(seconds)), "{path}");
        // It would answer now.
        scene.web.answer(path, Answer::text("203.0.113.3"));
        let again = scene.text(&scene.by_name(path)).await;
        assert_eq!(again.outcome, ran.outcome);
        assert!(again.fresh_for.unwrap() <= Duration::from_secs(seconds), "{path}");
        assert_eq!(scene.web.requests(path), 1, "{path}");
    }
}

#[test]
fn a_pause_may_end_at_a_date() {
    let wanted = |text: &str| {
        let response = http::Response::builder().header(RETRY_AFTER, text).body("").unwrap();
        retry_after(&Response::from(response))
    };
    let date = Timestamp::now() + jiff::SignedDuration::from_secs(600);
    let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).unwrap();
    let left = wanted(&text).unwrap().as_secs();
    assert!((590..=600).contains(&left), "{text}: {left}");
    assert_eq!(wanted("Tue, 15 Nov 1994 08:12:31 GMT"), Some(Duration::ZERO));
    assert_eq!(wanted("120"), Some(Duration::from_secs(120)));
    assert_eq!(wanted("soon"), None);
}

#[tokio::test]
async fn a_proxy_decides_what_it_connects_to_unless_the_host_is_excepted() {
    let proxy = TunnelProxy::start().unwrap();
    let scene = Scene::with(|settings, _| {
        settings.allow.clear();
        settings.proxies = Matcher::builder().https(proxy.url()).no("direct.example.net").build();
    });
    scene.web.answer("/ip", Answer::text("203.0.113.3"));
    // Nobody but the proxy knows the name.
    let url = scene.web.url_by_name("inside.example.net", "/ip");
    assert_eq!(scene.text(&url).await, found("203.0.113.3", 300));
    assert_eq!(proxy.tunnels(), [format!("inside.example.net:{}", scene.web.address().port())]);
    assert_eq!(scene.dns.names_asked(), [].into());
    // A host that is an address itself is checked all the same.
    assert_eq!(scene.kind(&scene.web.url("/ip")).await, "AddressRefused");
    scene.dns.set("direct.example.net", 60, &["127.0.0.1"]).unwrap();
    assert_eq!(scene.kind(&scene.web.url_by_name("direct.example.net", "/ip")).await, "AddressRefused");
    assert_eq!(proxy.tunnels().len(), 1);
}

#[tokio::test]
async fn a_proxy_may_have_a_name_and_a_private_address() {
    let proxy = TunnelProxy::start().unwrap();
    let port = proxy.url().rsplit_once(':').unwrap().1.to_owned();
    let scene = Scene::with(|settings, _| {
        settings.allow.clear();
        settings.proxies = Matcher::builder().all(format!("http://proxy.example.net:{port}")).build();
    });
    scene.dns.set("proxy.example.net", 60, &["127.0.0.1"]).unwrap();
    scene.web.answer("/ip", Answer::text("203.0.113.3"));
    assert_eq!(scene.text(&scene.by_name("/ip")).await, found("203.0.113.3", 300));
    assert_eq!(scene.dns.names_asked(), ["proxy.example.net".to_owned()].into());
}
