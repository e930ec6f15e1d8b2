use std::fs;

use tempfile::TempDir;
use testbed::{DnsServer, Fault};

use super::*;

/// A resolver with files of its own.
struct Asking {
    files: TempDir,
    dns: Dns,
}

impl Asking {
    fn new(servers: &[&DnsServer], resolv_conf: &str, hosts: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let settings = DnsSettings {
            servers: servers.iter().map(|server| server.address()).collect(),
            resolv_conf: files.path().join("resolv.conf"),
            hosts: files.path().join("hosts"),
            ttl: (Duration::from_secs(5), Duration::from_secs(3600)),
        };
        let asking = Self { files, dns: Dns::new(settings) };
        asking.write("resolv.conf", resolv_conf);
        asking.write("hosts", hosts);
        asking
    }

    fn write(&self, name: &str, text: &str) {
        // A new file each time, as the kubelet does it: the old stamp cannot come again.
        let (new, old) = (self.files.path().join("new"), self.files.path().join(name));
        fs::write(&new, text).unwrap();
        fs::rename(new, old).unwrap();
    }

    async fn lookup(&self, host: &str, family: Family) -> Result<Vec<String>, Miss> {
        let resolved = self.dns.lookup(host, family).await?;
        Ok(resolved.addresses.iter().map(ToString::to_string).collect())
    }

    async fn kind(&self, host: &str) -> &'static str {
        match self.dns.lookup(host, Family::V4).await {
            Err(Miss::Failed(failure)) => failure.kind.as_str(),
            Err(Miss::None { .. }) => "None",
            Ok(_) => "Found",
        }
    }
}

fn missing(text: &str, seconds: u64) -> Miss {
    Miss::None { text: text.to_owned(), valid_for: Duration::from_secs(seconds) }
}

#[tokio::test]
async fn only_the_records_of_the_family_are_asked_for() {
    let server = DnsServer::start().unwrap();
    server.set("gw.example.net", 60, &["203.0.113.9", "203.0.113.7", "2001:db8::7"]).unwrap();
    let asking = Asking::new(&[&server], "", "");
    assert_eq!(asking.lookup("gw.example.net", Family::V4).await.unwrap(), ["203.0.113.7", "203.0.113.9"]);
    assert_eq!((server.queries("gw.example.net", "A"), server.queries("gw.example.net", "AAAA")), (1, 0));
    assert_eq!(asking.lookup("gw.example.net", Family::V6).await.unwrap(), ["2001:db8::7"]);
    assert_eq!((server.queries("gw.example.net", "A"), server.queries("gw.example.net", "AAAA")), (1, 1));
}

#[tokio::test]
async fn nothing_is_remembered_and_an_answer_is_valid_for_its_ttl_within_bounds() {
    let server = DnsServer::start().unwrap();
    let asking = Asking::new(&[&server], "", "");
    for (ttl, least, most) in [(0, 5, 5), (1, 5, 5), (60, 58, 60), (100_000, 3600, 3600)] {
        server.set("gw.example.net", ttl, &["203.0.113.7"]).unwrap();
        let resolved = asking.dns.lookup("gw.example.net", Family::V4).await.unwrap();
        let range = Duration::from_secs(least)..=Duration::from_secs(most);
        assert!(range.contains(&resolved.valid_for), "{ttl}: {:?}", resolved.valid_for);
    }
    assert_eq!(server.queries("gw.example.net", "A"), 4);
}

#[tokio::test]
async fn an_alias_is_followed_and_the_shortest_ttl_counts() {
    let server = DnsServer::start().unwrap();
    server.set_alias("gw.example.net", 30, "real.example.org");
    server.set("real.example.org", 300, &["203.0.113.7"]).unwrap();
    let asking = Asking::new(&[&server], "", "");
    let resolved = asking.dns.lookup("gw.example.net", Family::V4).await.unwrap();
    assert_eq!(resolved.addresses, BTreeSet::from(["203.0.113.7".parse().unwrap()]));
    assert!((28..=30).contains(&resolved.valid_for.as_secs()), "{:?}", resolved.valid_for);
}

#[tokio::test]
async fn that_there_is_none_is_an_answer_and_valid_for_the_time_of_the_zone_within_bounds() {
    let server = DnsServer::start().unwrap();
    server.set("six.example.net", 60, &["2001:db8::7"]).unwrap();
    let asking = Asking::new(&[&server], "", "");
    assert_eq!(asking.lookup("gone.example.net", Family::V4).await, Err(missing("there is no such name", 10)));
    assert_eq!(asking.lookup("six.example.net", Family::V4).await, Err(missing("the name has no A record", 10)));
    server.fail("six.example.net", Some(Fault::NoRecords));
    assert_eq!(asking.lookup("six.example.net", Family::V6).await, Err(missing("the name has no AAAA record", 10)));
    for (zone, valid) in [(60, 60), (3600, 300)] {
        server.set_negative_ttl(zone);
        assert_eq!(asking.lookup("gone.example.net", Family::V4).await, Err(missing("there is no such name", valid)));
    }
}

#[tokio::test]
async fn what_goes_wrong_has_its_kind() {
    let server = DnsServer::start().unwrap();
    let asking = Asking::new(&[&server], "options timeout:1 attempts:1", "");
    for (fault, kind) in [
        (Fault::ServerFailure, "ServerFailure"),
        (Fault::Refused, "ServerFailure"),
        (Fault::Silence, "Timeout"),
        (Fault::NoSuchName, "None"),
        (Fault::Truncation, "Found"),
    ] {
        server.set("gw.example.net", 60, &["203.0.113.7"]).unwrap();
        server.fail("gw.example.net", Some(fault));
        assert_eq!(asking.kind("gw.example.net").await, kind, "{fault:?}");
    }
    server.stop();
    assert_eq!(asking.kind("gw.example.net").await, "Timeout");
    server.resume().unwrap();
    server.set("gw.example.net", 60, &["203.0.113.7"]).unwrap();
    assert_eq!(asking.kind("gw.example.net").await, "Found");
}

#[tokio::test]
async fn without_a_name_server_there_is_no_resolver_until_the_file_names_one() {
    let asking = Asking::new(&[], "options timeout:1 attempts:1\nnameserver no.address\n", "");
    assert_eq!(asking.kind("gw.example.net").await, "NoResolver");
    fs::remove_file(asking.files.path().join("resolv.conf")).unwrap();
    assert_eq!(asking.kind("gw.example.net").await, "NoResolver");
    // Nobody listens there.
    asking.write("resolv.conf", "options timeout:1 attempts:1\nnameserver 127.255.0.53\n");
    assert_eq!(asking.kind("gw.example.net").await, "Timeout");
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_says_nothing() {
    let (dead, refusing, good) = (DnsServer::start().unwrap(), DnsServer::start().unwrap(), DnsServer::start().unwrap());
    dead.stop();
    refusing.fail("gw.example.net", Some(Fault::Refused));
    good.set("gw.example.net", 60, &["203.0.113.7"]).unwrap();
    let asking = Asking::new(&[&dead, &refusing, &good], "options timeout:1", "");
    assert_eq!(asking.lookup("gw.example.net", Family::V4).await.unwrap(), ["203.0.113.7"]);
    // One that says "none" is believed.
    refusing.fail("gw.example.net", Some(Fault::NoSuchName));
    assert_eq!(asking.kind("gw.example.net").await, "None");
}

#[tokio::test]
async fn only_a_single_label_walks_the_search_list() {
    let server = DnsServer::start().unwrap();
    for name in ["example.com.svc.cluster.local", "gw.svc.cluster.local", "other.corp.example"] {
        server.set(name, 60, &["203.0.113.66"]).unwrap();
    }
    server.set("example.com", 60, &["203.0.113.7"]).unwrap();
    let asking = Asking::new(&[&server], "search svc.cluster.local corp.example\noptions ndots:5", "");
    assert_eq!(asking.lookup("example.com", Family::V4).await.unwrap(), ["203.0.113.7"]);
    assert_eq!(asking.lookup("missing.example", Family::V4).await, Err(missing("there is no such name", 10)));
    assert_eq!(server.names_asked(), ["example.com", "missing.example"].map(str::to_owned).into());
    assert_eq!(asking.lookup("gw", Family::V4).await.unwrap(), ["203.0.113.66"]);
    assert_eq!(server.queries("gw.corp.example", "A"), 0);
    assert_eq!(asking.lookup("other", Family::V4).await.unwrap(), ["203.0.113.66"]);
    assert_eq!((server.queries("other.svc.cluster.local", "A"), server.queries("other", "A")), (1, 0));
}

#[tokio::test]
async fn a_search_domain_that_fails_does_not_make_a_name_missing() {
    let server = DnsServer::start().unwrap();
    server.fail("gw.svc.cluster.local", Some(Fault::ServerFailure));
    let asking = Asking::new(&[&server], "search svc.cluster.local corp.example", "");
    assert_eq!(asking.kind("gw").await, "ServerFailure");
    server.fail("gw.svc.cluster.local", Some(Fault::NoSuchName));
    assert_eq!(asking.kind("gw").await, "None");
}

#[tokio::test]
async fn hosts_need_no_query_and_both_files_are_read_again_when_they_change() {
    let server = DnsServer::start().unwrap();
    server.set("gw.example.net", 60, &["203.0.113.7", "2001:db8::7"]).unwrap();
    server.set("gw.corp.example", 60, &["203.0.113.8"]).unwrap();
    let asking = Asking::new(&[&server], "", "203.0.113.1 gw.example.net gw\n");
    let resolved = asking.dns.lookup("gw.example.net", Family::V4).await.unwrap();
    let expected = Resolved { addresses: BTreeSet::from(["203.0.113.1".parse().unwrap()]), valid_for: HOSTS_VALID };
    assert_eq!(resolved, expected);
    assert_eq!(asking.lookup("gw", Family::V4).await.unwrap(), ["203.0.113.1"]);
    assert_eq!(server.queries("gw.example.net", "A"), 0);
    // The file does not know it of this family.
    assert_eq!(asking.lookup("gw.example.net", Family::V6).await.unwrap(), ["2001:db8::7"]);
    asking.write("hosts", "");
    assert_eq!(asking.lookup("gw.example.net", Family::V4).await.unwrap(), ["203.0.113.7"]);
    assert_eq!(asking.kind("gw").await, "None");
    asking.write("resolv.conf", "search corp.example\n");
    assert_eq!(asking.lookup("gw", Family::V4).await.unwrap(), ["203.0.113.8"]);
}
