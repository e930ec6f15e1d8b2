use api::externalip::{Api, CustomApi, Format, HttpsUrl};
use poolutil::Family;
use tempfile::TempDir;
use testbed::{Answer, DnsServer, Fault, WebServer};

use super::*;

struct Scene {
    web: WebServer,
    dns: DnsServer,
    _files: TempDir,
    solvers: Solvers,
}

impl Scene {
    fn start() -> Self {
        let (web, dns, files) = (WebServer::start().unwrap(), DnsServer::start().unwrap(), tempfile::tempdir().unwrap());
        let settings = ExternalIpSources {
            interval: Duration::from_secs(60),
            dry_run: false,
            dns_servers: vec![dns.address()],
            dns_min_ttl: Duration::from_secs(5),
            dns_max_ttl: Duration::from_secs(3600),
            source_grace: Duration::from_secs(300),
            solver_timeout: Duration::from_secs(1),
            solver_concurrency: 2,
            write_concurrency: 1,
            allow_private: false,
            allow_cidrs: Vec::new(),
            deny_cidrs: Vec::new(),
            load_balancer_class: String::new(),
            external_dns_prefixes: Vec::new(),
            api_endpoints: Vec::new(),
            api_ca: Some(web.authority().as_bytes().to_vec()),
            api_allow_cidrs: vec!["127.0.0.1/32".parse().unwrap()],
        };
        let resolver = DnsSettings {
            servers: vec![dns.address()],
            resolv_conf: files.path().join("resolv.conf"),
            hosts: files.path().join("hosts"),
            ttl: (settings.dns_min_ttl, settings.dns_max_ttl),
        };
        let solvers = Solvers::with(&settings, "ipam-in-cluster/1.2.3", resolver, Matcher::builder().build()).unwrap();
        Self { web, dns, _files: files, solvers }
    }

    fn at(&self, path: &str) -> Key {
        let url = HttpsUrl::parse(&self.web.url(path)).unwrap();
        key(Shared::IpApi(Api::Custom(CustomApi { url, format: Format::Text, ca_bundle: None })))
    }
}

fn key(solver: Shared) -> Key {
    Key { family: Family::V4, solver }
}

fn name(name: &str) -> Key {
    key(Shared::DnsHostname(Host::parse(name).unwrap()))
}

fn these(addresses: &[&str]) -> Outcome {
    Outcome::Found { addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(), truncated: false }
}

#[tokio::test]
async fn what_is_written_down_is_answered_at_once() {
    let scene = Scene::start();
    let listed = ["203.0.113.9", "2001:db8::1", "203.0.113.7"].map(|ip| ip.parse().unwrap()).into();
    let ran = scene.solvers.ask(&key(Shared::Static(listed))).await;
    assert_eq!(ran, Ran { outcome: these(&["203.0.113.9", "203.0.113.7"]), fresh_for: None });
    let ran = scene.solvers.ask(&name("198.51.100.44")).await;
    assert_eq!(ran, Ran { outcome: these(&["198.51.100.44"]), fresh_for: None });
    assert_eq!(scene.dns.names_asked(), [].into());
}

#[tokio::test]
async fn each_kind_of_solver_is_asked() {
    let scene = Scene::start();
    scene.dns.set("gw.example.net", 100_000, &["203.0.113.9", "203.0.113.7"]).unwrap();
    scene.web.answer("/ip", Answer::text("203.0.113.3"));
    let ran = scene.solvers.ask(&name("gw.example.net")).await;
    assert_eq!(ran, Ran { outcome: these(&["203.0.113.7", "203.0.113.9"]), fresh_for: Some(Duration::from_secs(3600)) });
    let ran = scene.solvers.ask(&name("gone.example.net")).await;
    let outcome = Outcome::Empty("there is no such name".to_owned());
    assert_eq!(ran, Ran { outcome, fresh_for: Some(Duration::from_secs(10)) });
    let ran = scene.solvers.ask(&scene.at("/ip")).await;
    assert_eq!(ran, Ran { outcome: these(&["203.0.113.3"]), fresh_for: Some(Duration::from_secs(300)) });
    // It has only an address that leads nowhere.
    let ran = scene.solvers.ask(&key(Shared::Interface(Some("lo".to_owned())))).await;
    let outcome = Outcome::Empty("there is no address of the family".to_owned());
    assert_eq!(ran, Ran { outcome, fresh_for: Some(Duration::from_secs(60)) });
}

#[tokio::test]
async fn a_run_ends_in_time_though_nobody_answers() {
    let scene = Scene::start();
    scene.dns.fail("gw.example.net", Some(Fault::Silence));
    assert_eq!(scene.solvers.ask(&name("gw.example.net")).await, failed(too_late()));
    scene.web.answer("/ip", Answer::text("203.0.113.3").dripping(Duration::from_millis(500)));
    assert_eq!(scene.solvers.ask(&scene.at("/ip")).await, failed(too_late()));
    assert_eq!(scene.web.requests("/ip"), 1);
}

#[tokio::test]
async fn a_run_waits_for_its_turn_among_all_and_at_its_host() {
    let scene = Scene::start();
    scene.dns.set("gw.example.net", 60, &["203.0.113.9"]).unwrap();
    scene.web.answer("/ip", Answer::text("203.0.113.3"));
    let waits = async |key: &Key| tokio::time::timeout(Duration::from_millis(200), scene.solvers.ask(key)).await.is_err();

    let runs = scene.solvers.runs.acquire_many(2).await.unwrap();
    assert!(waits(&name("gw.example.net")).await && waits(&scene.at("/ip")).await);
    drop(runs);
    assert_eq!(scene.solvers.ask(&name("gw.example.net")).await.outcome, these(&["203.0.113.9"]));

    let host = scene.solvers.host("127.0.0.1");
    let turns = host.acquire_many(8).await.unwrap();
    assert!(waits(&scene.at("/ip")).await);
    assert_eq!(scene.web.requests("/ip"), 0);
    assert_eq!(scene.solvers.ask(&name("gw.example.net")).await.outcome, these(&["203.0.113.9"]));
    drop(turns);
    assert_eq!(scene.solvers.ask(&scene.at("/ip")).await.outcome, these(&["203.0.113.3"]));
    drop(host);
    scene.solvers.host("example.net");
    assert_eq!(scene.solvers.hosts.lock().unwrap().len(), 1);
}
