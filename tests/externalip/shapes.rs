//! Every shape a source may have, every shape it may not have, and the tables of the rules through the real API server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use testbed::eventually;
use testbed::trial::Standalone;

use crate::fixture::{OnShared, Setup, Stage};
use crate::spec::{LOAD_BALANCER, fixed, v4};
use crate::{audit, on_shared};

const PATIENCE: Duration = Duration::from_secs(60);

pub fn shared() -> Vec<OnShared> {
    on_shared![
        sources_as_they_were_written_for_the_predecessor_are_stored_as_they_are,
        merged_addresses_are_those_of_the_table,
        listed_addresses_are_those_of_the_table,
        what_can_never_work_is_denied_with_its_field_and_value,
    ]
}

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![without_a_webhook_bad_sources_spoil_only_themselves]
}

/// Sources with fields of the predecessor only, and what the API server completes.
const OLD: &[(&str, &str)] = &[
    ("{ipv4: {solvers: [{ipAPI: {}}]}}", "{ipv4: {solvers: [{ipAPI: {provider: myIp}}]}}"),
    ("{ipv4: {solvers: [{ipAPI: {provider: ipify}}]}, ipv6: null}", ""),
    (
        "{ipv4: {queryMode: firstFound, solvers: [{interface: {}}]}, ipv6: {queryMode: all, solvers: [{interface: {name: null}}]}}",
        "",
    ),
    ("{ipv6: {solvers: [{interface: {name: eth0}}, {loadBalancerIngress: {}}]}}", ""),
    (
        "{ipv4: {}, ipv6: {queryMode: all, solvers: [{dnsHostname: {host: gw.example.net}}]}}",
        "{ipv4: {solvers: []}, ipv6: {queryMode: all, solvers: [{dnsHostname: {host: gw.example.net}}]}}",
    ),
    ("{ipv4: {solvers: [{static: {addresses: [198.51.100.7, '2001:db8::7']}}, {dnsHostname: {host: 198.51.100.44}}]}}", ""),
    (
        "{ipv6: {solvers: [{merge: {partialSolvers: [
            {mask: 'ffff:ffff:ffff:ffff::', solver: {dnsHostname: {host: gw.example.net}}},
            {mask: '::ffff:ffff:0:0', solver: {loadBalancerIngress: {}}},
            {mask: '::ffff:0', solver: {interface: {name: eth0}}},
            {mask: '::ffff', solver: {static: {addresses: ['2001:db8::7']}}},
        ]}}]}}",
        "",
    ),
    (
        "{ipv4: {solvers: [{merge: {partialSolvers: [{mask: 255.255.255.255, solver: {ipAPI: {}}}]}}]}}",
        "{ipv4: {solvers: [{merge: {partialSolvers: [{mask: 255.255.255.255, solver: {ipAPI: {provider: myIp}}}]}}]}}",
    ),
];

/// A2
async fn sources_as_they_were_written_for_the_predecessor_are_stored_as_they_are(stage: &Stage) -> Result<()> {
    for (number, (written, completed)) in OLD.iter().enumerate() {
        let name = stage.source(&format!("old-{number}"), written).await?;
        let stored = stage.api("ClusterExternalIPSource").get(&name).await?;
        let expected: Value = serde_yaml_ng::from_str(if completed.is_empty() { written } else { completed })?;
        assert_eq!(stored.data["spec"], expected, "{written}");
        stage.source_says(&name, "Accepted", "True", "Valid").await?;
        let kept = stage.api("ClusterExternalIPSource").get(&name).await?;
        assert_eq!(kept.data["spec"], expected, "{written}");
        assert_eq!(kept.metadata.generation, Some(1), "{written}");
    }
    Ok(())
}

/// Masks with the answers they are laid on.
type Parts = &'static [(&'static str, &'static str)];

/// The good rows of the table of merges: family, parts, result.
const MERGED: &[(&str, Parts, &str)] = &[
    ("ipv4", &[("255.255.0.0", "203.0.113.77"), ("0.0.255.0", "10.10.10.10"), ("0.0.0.255", "192.168.5.42")], "203.0.10.42"),
    (
        "ipv6",
        &[("ffff:ffff:ffff:ffff::", "2001:db8:aaaa:bbbb:1:2:3:4"), ("::ffff:ffff:ffff:ffff", "fd00:1:2:3:a:b:c:d")],
        "2001:db8:aaaa:bbbb:a:b:c:d",
    ),
    (
        "ipv6",
        &[("ffff:ffff:ffff:ff00::", "2001:db8:12:3400::1"), ("::ff:ffff:ffff:ffff:ffff", "fd00:0:0:42::25")],
        "2001:db8:12:3442::25",
    ),
    ("ipv4", &[("255.255.255.255", "198.51.100.9")], "198.51.100.9"),
    ("ipv4", &[("255.255.255.0", "203.0.113.1, 198.51.100.1"), ("0.0.0.255", "10.0.0.7, 10.0.0.8")], "198.51.100.8"),
    ("ipv4", &[("255.0.255.0", "1.2.3.4"), ("0.255.0.255", "5.6.7.8")], "1.6.3.8"),
    ("ipv4", &[("255.255.255.240", "203.0.113.16"), ("0.0.0.15", "10.0.0.250")], "203.0.113.26"),
    ("ipv6", &[("ffff:ffff:ffff:ffff:ffff:ffff::", "2001:db8::1"), ("::ffff:ffff", "64:ff9b::192.0.2.33")], "2001:db8::c000:221"),
];

fn merge_of(family: &str, parts: &[(&str, &str)]) -> String {
    let part = |(mask, answers): &(&str, &str)| {
        let answers: Vec<&str> = answers.split(", ").collect();
        json!({"mask": mask, "solver": {"static": {"addresses": answers}}})
    };
    let parts: Vec<Value> = parts.iter().map(part).collect();
    json!({family: {"solvers": [{"merge": {"partialSolvers": parts}}]}}).to_string()
}

/// A9: M1–M8 and M17
async fn merged_addresses_are_those_of_the_table(stage: &Stage) -> Result<()> {
    for (row, (family, parts, _)) in MERGED.iter().enumerate() {
        let source = stage.source(&format!("m{}", row + 1), &merge_of(family, parts)).await?;
        stage.bound_service(&format!("m{}", row + 1), &source, "{}").await?;
    }
    for (row, (_, _, result)) in MERGED.iter().enumerate() {
        stage.publishes(&format!("m{}", row + 1), &[result]).await?;
    }
    let empty = stage.source("m17", &merge_of("ipv4", &[("255.255.255.0", "2001:db8::1"), ("0.0.0.255", "10.0.0.1")])).await?;
    eventually(PATIENCE, async || {
        let source = stage.api("ClusterExternalIPSource").get(&empty).await?;
        ensure!(source.data["status"]["ipv4"]["solvers"][0]["state"] == "Empty", "{}", source.data["status"]);
        Ok(())
    })
    .await
}

/// A9: L1–L6
async fn listed_addresses_are_those_of_the_table(stage: &Stage) -> Result<()> {
    let (both, bad) = (stage.host("both"), stage.host("bad"));
    stage.dns().set(&both, 60, &["203.0.113.7", "2001:db8::7"])?;
    stage.dns().fail(&bad, Some(testbed::Fault::ServerFailure));
    let ingress = |addresses: &[&str]| json!(addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>());
    let dns = |name: &str| format!("{{dnsHostname: {{host: {name}}}}}");
    let (v6, first) = (fixed("'2001:db8::1'"), fixed("198.51.100.1, 203.0.113.5"));
    let rows = [
        (v4(&format!("{v6}, {LOAD_BALANCER}, {}", fixed("198.51.100.77"))), ingress(&["203.0.113.9"]), vec!["203.0.113.9"]),
        (
            format!(
                "{{ipv4: {{queryMode: all, solvers: [{first}, {LOAD_BALANCER}, {}]}}, ipv6: {{queryMode: all, solvers: [{LOAD_BALANCER}, {}]}}}}",
                fixed("198.51.100.1"),
                dns(&bad)
            ),
            json!([{"ip": "203.0.113.5"}, {"ip": "2001:db8::5"}, {"hostname": "lb.example.net"}]),
            vec!["198.51.100.1", "203.0.113.5", "2001:db8::5"],
        ),
        (
            format!("{{ipv4: {{solvers: [{}]}}, ipv6: {{solvers: [{v6}]}}}}", fixed("198.51.100.1, '2001:db8::99'")),
            Value::Null,
            vec!["198.51.100.1", "2001:db8::1"],
        ),
        (
            format!("{{ipv4: {{solvers: [{}]}}, ipv6: {{solvers: [{}]}}}}", dns(&both), dns(&both)),
            Value::Null,
            vec!["203.0.113.7", "2001:db8::7"],
        ),
        (v4(&dns("198.51.100.44")), Value::Null, vec!["198.51.100.44"]),
        (
            format!("{{ipv4: {{solvers: [{}]}}, ipv6: {{solvers: [{LOAD_BALANCER}]}}}}", fixed("198.51.100.6")),
            Value::Null,
            vec!["198.51.100.6"],
        ),
    ];
    for (row, (spec, ingress, _)) in rows.iter().enumerate() {
        let name = format!("l{}", row + 1);
        let source = stage.source(&name, spec).await?;
        stage.service(&name, "{spec: {type: LoadBalancer}}").await?;
        stage.set_ingress(&name, ingress).await?;
        stage.bind(&name, Some(&source)).await?;
    }
    for (row, (_, _, expected)) in rows.iter().enumerate() {
        stage.publishes(&format!("l{}", row + 1), expected).await?;
    }
    Ok(())
}

/// Sources that can never work, and what a denial must name. M9–M16 first.
fn bad() -> Vec<(&'static str, String, Vec<&'static str>)> {
    let merged = |family, parts: &[(&str, &str)]| merge_of(family, parts);
    vec![
        ("m9", merged("ipv4", &[("255.255.0.0", "1.2.3.4"), ("0.0.0.255", "1.2.3.4")]), vec!["merge", "0.0.255.0"]),
        ("m10", merged("ipv4", &[("255.255.255.0", "1.2.3.4"), ("0.0.255.255", "1.2.3.4")]), vec!["merge", "0.0.255.0"]),
        (
            "m11",
            merged("ipv4", &[("127.255.255.255", "1.2.3.4"), ("127.255.255.255", "1.2.3.4"), ("0.0.0.1", "1.2.3.4")]),
            vec!["merge"],
        ),
        ("m12", merged("ipv6", &[("::ffff:ffff", "2001:db8::1")]), vec!["merge", "ffff:ffff:ffff:ffff:ffff:ffff::"]),
        ("m13", merged("ipv4", &[("ffff::", "1.2.3.4"), ("0:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "1.2.3.4")]), vec!["ffff::"]),
        ("m14", merged("ipv6", &[("255.255.255.255", "2001:db8::1")]), vec!["255.255.255.255"]),
        (
            "m15",
            merged("ipv6", &[("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::1"), ("::1", "2001:db8::1")]),
            vec!["::1"],
        ),
        ("m16", merged("ipv4", &[]), vec!["partialSolvers"]),
        ("static", v4(&fixed("198.51.100.1, nonsense")), vec!["spec.ipv4.solvers[0].static.addresses[1]", "nonsense"]),
        ("zeros", v4(&fixed("'010.0.0.1'")), vec!["spec.ipv4.solvers[0].static.addresses[0]", "010.0.0.1"]),
    ]
}

/// A9: M9–M16 and the other denials
async fn what_can_never_work_is_denied_with_its_field_and_value(stage: &Stage) -> Result<()> {
    let mut cases = bad();
    cases.extend([
        ("empty", "{}".to_owned(), vec!["at least one of ipv4, ipv6 needs a solver"]),
        ("no-solvers", "{ipv4: {solvers: []}}".to_owned(), vec!["at least one of ipv4, ipv6 needs a solver"]),
        (
            "wildcard",
            v4("{dnsHostname: {host: '*.example.net'}}"),
            vec!["spec.ipv4.solvers[0].dnsHostname.host", "*.example.net"],
        ),
        ("http", v4("{ipAPI: {provider: custom, url: 'http://example.net/'}}"), vec!["url", "http://example.net/"]),
        ("inside", v4("{ipAPI: {provider: custom, url: 'https://10.0.0.1/'}}"), vec!["url", "10.0.0.1"]),
        ("kind", v4("{ipPool: {poolRef: {kind: Pool, name: blue}}}"), vec!["kind", "Pool"]),
        ("never", v4(&fixed("127.0.0.1")), vec!["spec.ipv4.solvers[0].static.addresses[0]", "127.0.0.1"]),
        ("two", v4("{static: {addresses: [198.51.100.1]}, loadBalancerIngress: {}}"), vec!["solvers[0]"]),
        (
            "cidr",
            "{ipv4: {solvers: [{loadBalancerIngress: {}}]}, addressPolicy: {allow: [nonsense]}}".to_owned(),
            vec!["nonsense"],
        ),
        ("url", v4("{ipAPI: {provider: custom}}"), vec!["url"]),
    ]);
    for (name, spec, words) in cases {
        let denied = stage.source(name, &spec).await.err().with_context(|| format!("{name} was admitted: {spec}"))?;
        let text = format!("{:#}", denied.root_cause());
        for word in words {
            ensure!(text.contains(word), "the denial of {name} does not name {word}: {text}");
        }
    }
    Ok(())
}

/// A10
async fn without_a_webhook_bad_sources_spoil_only_themselves() -> Result<()> {
    const GOOD: usize = 50;
    let stage = Stage::alone(Setup::default()).await?;
    let pid = stage.manager().pid();
    let mut spoilt = Vec::new();
    for (name, spec, _) in bad() {
        let source = stage.source(name, &spec).await?;
        stage.bound_service(&format!("bad-{name}"), &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
        spoilt.push((source, format!("bad-{name}")));
    }
    for number in 0..GOOD {
        let source = stage.source(&format!("good-{number}"), &v4(&fixed(&format!("203.1.10.{}", number + 1)))).await?;
        stage.bound_service(&format!("good-{number}"), &source, "{}").await?;
    }
    for number in 0..GOOD {
        stage.publishes(&format!("good-{number}"), &[&format!("203.1.10.{}", number + 1)]).await?;
    }
    for (source, service) in spoilt {
        stage.source_says(&source, "Accepted", "False", "InvalidSpec").await?;
        stage.source_says(&source, "Ready", "False", "InvalidSpec").await?;
        stage.service_says(&service, "False", "SourceInvalid").await?;
        stage.publishes(&service, &["10.9.9.9"]).await?;
    }
    ensure!(stage.manager().pid() == pid && stage.manager().health("/healthz")?.0 == 200, "the manager has ended");
    // A source that is mended works.
    let mended = format!("static-{}", stage.namespace);
    let patch = json!({"spec": {"ipv4": {"solvers": [{"static": {"addresses": ["203.1.10.200"]}}]}}});
    stage.patch("ClusterExternalIPSource", &mended, &patch).await?;
    stage.publishes("bad-static", &["10.9.9.9", "203.1.10.200"]).await?;
    // One that is spoilt afterwards keeps what it has given.
    let patch = json!({"spec": {"ipv4": {"solvers": [{"static": {"addresses": ["nonsense"]}}]}}});
    stage.patch("ClusterExternalIPSource", &mended, &patch).await?;
    stage.service_says("bad-static", "False", "SourceInvalid").await?;
    stage.publishes("bad-static", &["10.9.9.9", "203.1.10.200"]).await?;
    audit::passes(&stage).await
}
