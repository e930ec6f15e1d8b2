//! The table of the specification, row by row.

#![allow(clippy::needless_pass_by_value, reason = "objects are written where they are used")]

use serde_json::json;

use super::*;
use crate::review::{GroupVersionKind, Outcome};

fn request(operation: Operation, object: Value, old_object: Option<Value>) -> Request {
    let (group, version) = (GROUP.to_owned(), SOURCE_VERSION.to_owned());
    Request {
        uid: "u".to_owned(),
        kind: GroupVersionKind { group, version, kind: KIND.to_owned() },
        name: "public".to_owned(),
        namespace: String::new(),
        operation,
        object: Some(object),
        old_object,
    }
}

fn source(spec: Value) -> Value {
    json!({"apiVersion": "externalip.spacebird.dev/v1alpha1", "kind": KIND, "metadata": {"name": "public"}, "spec": spec})
}

fn created(spec: Value) -> Answer {
    validate(&request(Operation::Create, source(spec), None), &[])
}

/// A source with these solvers in its IPv4 list.
fn ipv4(solvers: Value) -> Value {
    json!({"ipv4": {"solvers": solvers}})
}

fn ipv6(solvers: Value) -> Value {
    json!({"ipv6": {"solvers": solvers}})
}

/// `field: message` of every broken rule.
#[track_caller]
fn denied(spec: Value) -> Vec<String> {
    let answer = created(spec);
    let Outcome::Denied(denial @ Denial::Invalid { .. }) = answer.outcome else { panic!("not invalid: {answer:?}") };
    let causes = denial.status().details.unwrap().causes.unwrap();
    causes.into_iter().map(|cause| format!("{}: {}", cause.field.unwrap(), cause.message.unwrap())).collect()
}

#[track_caller]
fn warned(spec: Value) -> Vec<String> {
    let answer = created(spec);
    assert_eq!(answer.outcome, Outcome::Admitted);
    answer.warnings
}

#[test]
fn the_example_of_the_specification_is_admitted_without_a_word() {
    let spec = json!({
        "outputs": ["ExternalIPs", "ExternalDNSTarget"],
        "maxStaleness": "30m",
        "ipv4": {"solvers": [{"dnsHostname": {"host": "gw.example.net"}}, {"ipAPI": {"provider": "ipify"}}]},
        "ipv6": {
            "queryMode": "all",
            "solvers": [{"ipPool": {"poolRef": {"kind": "GlobalInClusterIPPool", "name": "public-v6"}}}],
        },
    });
    assert_eq!(created(spec), Answer::admitted());
}

#[test]
fn a_source_without_a_solver_is_denied() {
    for spec in
        [json!({}), json!({"ipv4": null}), json!({"ipv4": {"solvers": []}, "ipv6": {}}), json!({"ipv4": {"solvers": null}})]
    {
        assert_eq!(denied(spec), ["spec: at least one of ipv4, ipv6 needs a solver"]);
    }
}

#[test]
fn one_family_may_be_empty_beside_another() {
    let spec = json!({"ipv4": {"solvers": []}, "ipv6": {"solvers": [{"dnsHostname": {"host": "gw.example.net"}}]}});
    assert_eq!(
        warned(spec),
        [
            "spec.ipv4.solvers: the list is empty, so IPv4 addresses published before are withdrawn; add a solver, or remove spec.ipv4"
        ]
    );
}

#[test]
fn an_address_is_a_plain_ip() {
    for (text, reason) in [
        ("1.2.3", "not an IPv4 address, write four numbers from 0 to 255 without leading zeros"),
        ("010.0.0.1", "not an IPv4 address, write four numbers from 0 to 255 without leading zeros"),
        ("example.net", "not an IPv4 address, write four numbers from 0 to 255 without leading zeros"),
        ("2001:db8::1%eth0", "a zone is not allowed here, remove the part from `%` on"),
        ("198.51.100.0/24", "a prefix length is not allowed here, remove the part from `/` on"),
        ("", "unable to parse IP, write an IPv4 or IPv6 address"),
        (" 198.51.100.1", "blanks are not allowed, remove them"),
    ] {
        let solvers = json!([{"loadBalancerIngress": {}}, {"static": {"addresses": ["198.51.100.7", text]}}]);
        let expected = format!("spec.ipv4.solvers[1].static.addresses[1]: Invalid value: {text:?}: {reason}");
        assert_eq!(denied(ipv4(solvers)), [expected]);

        let solvers = json!([{"merge": {"partialSolvers": [{"mask": text, "solver": {"loadBalancerIngress": {}}}]}}]);
        let expected = format!("spec.ipv4.solvers[0].merge.partialSolvers[0].mask: Invalid value: {text:?}: {reason}");
        assert_eq!(denied(ipv4(solvers)), [expected]);
    }
}

#[test]
fn addresses_of_the_other_family_only_are_warned_about() {
    for addresses in [json!([]), json!(["2001:db8::1"])] {
        let warnings = warned(ipv4(json!([{"static": {"addresses": addresses}}])));
        assert_eq!(
            warnings,
            [
                "spec.ipv4.solvers[0].static.addresses: always empty, since no IPv4 address is listed; add one, or remove the solver"
            ]
        );
    }
    assert_eq!(created(ipv4(json!([{"static": {"addresses": ["198.51.100.1", "2001:db8::1"]}}]))), Answer::admitted());
}

/// A merge of these masks, each over a load balancer's address.
fn merge(masks: &[&str]) -> Value {
    let parts: Vec<Value> = masks.iter().map(|mask| json!({"mask": mask, "solver": {"loadBalancerIngress": {}}})).collect();
    json!([{"merge": {"partialSolvers": parts}}])
}

#[test]
fn masks_cover_each_bit_exactly_once() {
    // M9-M12, M15, M16
    let all_ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let overlap = |bits: &str| format!("masks overlap in the bits of {bits}; give each bit to one part only");
    let gap = |bits: &str| format!("no mask covers the bits of {bits}; give each bit to a part");
    for (family, masks, messages) in [
        ("ipv4", &["255.255.0.0", "0.0.0.255"][..], vec![gap("0.0.255.0")]),
        ("ipv4", &["255.255.255.0", "0.0.255.255"], vec![overlap("0.0.255.0")]),
        ("ipv4", &["127.255.255.255", "127.255.255.255", "0.0.0.1"], vec![overlap("127.255.255.255"), gap("128.0.0.0")]),
        ("ipv6", &["::ffff:ffff"], vec![gap("ffff:ffff:ffff:ffff:ffff:ffff::")]),
        ("ipv6", &[all_ones, "::1"], vec![overlap("::1")]),
        ("ipv4", &[], vec!["there is no part; add parts whose masks cover all bits of an address".to_owned()]),
    ] {
        let expected: Vec<_> =
            messages.iter().map(|message| format!("spec.{family}.solvers[0].merge.partialSolvers: {message}")).collect();
        assert_eq!(denied(json!({family: {"solvers": merge(masks)}})), expected);
    }
}

#[test]
fn masks_are_of_the_lists_family() {
    // M13, M14
    let error = |family: &str, index: usize, mask: &str| {
        let field = format!("spec.{}.solvers[0].merge.partialSolvers[{index}].mask", family.to_lowercase());
        format!("{field}: Invalid value: {mask:?}: no {family} mask, while this is the list of {family}; write an {family} mask")
    };
    let v6 = ["ffff:ffff:ffff:ffff::", "::ffff:ffff:ffff:ffff"];
    assert_eq!(denied(ipv4(merge(&v6))), [error("IPv4", 0, v6[0]), error("IPv4", 1, v6[1])]);
    assert_eq!(denied(ipv6(merge(&["255.255.255.255"]))), [error("IPv6", 0, "255.255.255.255")]);
    assert_eq!(denied(ipv6(merge(&["255.255.255.0", v6[0], v6[1]]))), [error("IPv6", 0, "255.255.255.0")]);
}

#[test]
fn good_merges_are_admitted() {
    // M1-M8, M17
    let part = |mask: &str, addresses: Value| json!({"mask": mask, "solver": {"static": {"addresses": addresses}}});
    for (family, parts) in [
        (
            "ipv4",
            json!([
                part("255.255.0.0", json!(["203.0.113.77"])),
                part("0.0.255.0", json!(["10.10.10.10"])),
                part("0.0.0.255", json!(["192.168.5.42"])),
            ]),
        ),
        (
            "ipv6",
            json!([
                part("ffff:ffff:ffff:ff00::", json!(["2001:db8:12:3400::1"])),
                part("::ff:ffff:ffff:ffff:ffff", json!(["fd00:0:0:42::25"])),
            ]),
        ),
        ("ipv4", json!([part("255.255.255.255", json!(["198.51.100.9"]))])),
        ("ipv4", json!([part("255.0.255.0", json!(["1.2.3.4"])), part("0.255.0.255", json!(["5.6.7.8"]))])),
        // Parts need not be addresses that a Service could have.
        ("ipv4", json!([part("255.255.255.0", json!(["203.0.113.1"])), part("0.0.0.255", json!(["0.0.0.7"]))])),
    ] {
        assert_eq!(created(json!({family: {"solvers": [{"merge": {"partialSolvers": parts}}]}})), Answer::admitted());
    }
    let parts = json!([part("255.255.255.0", json!(["2001:db8::1"])), part("0.0.0.255", json!(["10.0.0.7"]))]);
    assert_eq!(
        warned(ipv4(json!([{"merge": {"partialSolvers": parts}}]))),
        ["spec.ipv4.solvers[0].merge.partialSolvers[0].solver.static.addresses: always empty, since no IPv4 address is listed; \
          add one, or remove the solver"]
    );
}

#[test]
fn a_host_is_a_dns_name_or_an_ip() {
    for (host, reason) in [
        ("*.example.net", "a wildcard names no host; write the name of one"),
        ("https://example.net", "neither a DNS name nor an IP address; write the host alone, without scheme, port, path or zone"),
        (
            "010.0.0.1",
            "neither a DNS name nor an IP address; write an IPv4 address as four numbers from 0 to 255 without leading zeros",
        ),
        (
            "a b",
            "not a DNS name; write letters, digits and hyphens with dots between, at most 63 characters from dot to dot and 253 \
             in all",
        ),
    ] {
        let expected = format!("spec.ipv4.solvers[0].dnsHostname.host: Invalid value: {host:?}: {reason}");
        assert_eq!(denied(ipv4(json!([{"dnsHostname": {"host": host}}]))), [expected]);
    }
    for host in ["gw.example.net", "GW.example.net.", "localhost", "198.51.100.44"] {
        assert_eq!(created(ipv4(json!([{"dnsHostname": {"host": host}}]))), Answer::admitted());
    }
}

#[test]
fn a_literal_of_the_other_family_and_a_repetition_are_warned_about() {
    assert_eq!(
        warned(ipv4(json!([{"dnsHostname": {"host": "2001:db8::7"}}]))),
        [
            "spec.ipv4.solvers[0].dnsHostname.host: always empty, since 2001:db8::7 is no IPv4 address; move it to the other family"
        ]
    );
    let solvers = json!([{"loadBalancerIngress": {}}, {"dnsHostname": {"host": "gw.example.net"}}, {"dnsHostname": {"host": "GW.example.net."}}]);
    assert_eq!(warned(ipv4(solvers)), ["spec.ipv4.solvers[2]: the same as spec.ipv4.solvers[1]; remove one of them"]);
}

fn custom(url: &str) -> Value {
    ipv4(json!([{"ipAPI": {"provider": "custom", "url": url}}]))
}

#[test]
fn a_custom_url_is_plain_https_to_a_public_host() {
    for (url, reason) in [
        ("http://ip.example.net", "only https is allowed; write https://<host>/<path>"),
        ("https://me:secret@ip.example.net/", "user and password are not allowed; remove the part up to @"),
        ("https://ip.example.net/#top", "a fragment is not allowed; remove the part from # on"),
        (
            "https://10.0.0.1/",
            "10.0.0.1 is not public; write a public host, or allow its network by --external-ip-api-allow-cidrs",
        ),
        ("https://[::1]:8443/", "::1 is not public; write a public host, or allow its network by --external-ip-api-allow-cidrs"),
    ] {
        let expected = format!("spec.ipv4.solvers[0].ipAPI.url: Invalid value: {url:?}: {reason}");
        assert_eq!(denied(custom(url)), [expected]);
    }
    for url in ["https://ip.example.net", "https://203.0.113.7:8443/ip?format=json"] {
        assert_eq!(created(custom(url)), Answer::admitted());
    }
    let allowed = ["10.0.0.0/8".parse().unwrap()];
    let request = request(Operation::Create, source(custom("https://10.0.0.1/")), None);
    assert_eq!(validate(&request, &allowed), Answer::admitted());
}

#[test]
fn the_fields_of_a_custom_web_service_go_with_it_only() {
    for (api, message) in [
        (json!({"provider": "custom"}), "url: provider custom needs it; write the https URL of the web service"),
        (json!({"url": "https://ip.example.net"}), "url: goes with provider custom only; remove it, or change the provider"),
        (
            json!({"provider": "ipify", "caBundle": "x"}),
            "caBundle: goes with provider custom only; remove it, or change the provider",
        ),
        (
            json!({"provider": "Ipify"}),
            "provider: Invalid value: \"Ipify\": write one of myIp, ipify, icanhazip, cloudflare, custom",
        ),
        (
            json!({"provider": "custom", "url": "https://ip.example.net", "format": "xml"}),
            "format: Invalid value: \"xml\": write json or text",
        ),
        (
            json!({"provider": "custom", "url": "https://ip.example.net", "field": "a..b"}),
            "field: Invalid value: \"a..b\": write keys with one dot between two of them, such as data.ip",
        ),
        (
            json!({"provider": "custom", "url": "https://ip.example.net", "caBundle": "x"}),
            "caBundle: holds no certificate; write certificates in PEM",
        ),
    ] {
        assert_eq!(denied(ipv4(json!([{"ipAPI": api}]))), [format!("spec.ipv4.solvers[0].ipAPI.{message}")]);
    }
    let text = json!({"provider": "custom", "url": "https://ip.example.net", "format": "text", "field": "ip"});
    assert_eq!(
        warned(ipv4(json!([{"ipAPI": text}]))),
        ["spec.ipv4.solvers[0].ipAPI.field: has no meaning with format text, remove it"]
    );
}

#[test]
fn bad_networks_durations_pools_and_words_are_denied() {
    let with = |field: &str, value: Value| {
        let mut spec = ipv4(json!([{"loadBalancerIngress": {}}]));
        spec[field] = value;
        spec
    };
    let duration = "not a duration; write numbers with their units ms, s, m or h, such as 90s or 1h30m";
    for (spec, message) in [
        (
            with("addressPolicy", json!({"deny": ["10.0.0.0/8", "10.0.0.0/33"]})),
            "spec.addressPolicy.deny[1]: Invalid value: \"10.0.0.0/33\": the prefix length must be a number from 0 to 32 without \
             sign or leading zeros"
                .to_owned(),
        ),
        (
            with("addressPolicy", json!({"allow": ["10.0.0.1"]})),
            "spec.addressPolicy.allow[0]: Invalid value: \"10.0.0.1\": write a CIDR, such as fd00::/48".to_owned(),
        ),
        (with("maxStaleness", json!("1d")), format!("spec.maxStaleness: Invalid value: \"1d\": {duration}")),
        (with("maxStaleness", json!("")), format!("spec.maxStaleness: Invalid value: \"\": {duration}")),
        (
            with("refreshInterval", json!("99999999999999999999h")),
            format!("spec.refreshInterval: Invalid value: \"99999999999999999999h\": {duration}"),
        ),
        (with("release", json!("Drop")), "spec.release: Invalid value: \"Drop\": write one of Release, Retain".to_owned()),
        (with("ipMode", json!("vip")), "spec.ipMode: Invalid value: \"vip\": write one of VIP, Proxy".to_owned()),
        (
            with("outputs", json!(["ExternalIPs", "ExternalIPs"])),
            "spec.outputs[1]: Invalid value: \"ExternalIPs\": is named twice, remove it".to_owned(),
        ),
        (
            with("outputs", json!(["Nowhere"])),
            "spec.outputs[0]: Invalid value: \"Nowhere\": write one of ExternalIPs, LoadBalancerStatus, ExternalDNSTarget"
                .to_owned(),
        ),
        (
            with("outputs", json!([])),
            "spec.outputs: name at least one of ExternalIPs, LoadBalancerStatus, ExternalDNSTarget, or leave the field out"
                .to_owned(),
        ),
        (
            with("allowedServices", json!({"serviceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}})),
            "spec.allowedServices.serviceSelector.matchExpressions[0].operator: Invalid value: \"In\": In and NotIn need at least \
             one value, add it"
                .to_owned(),
        ),
        (
            json!({"ipv4": {"queryMode": "some", "solvers": [{"loadBalancerIngress": {}}]}}),
            "spec.ipv4.queryMode: Invalid value: \"some\": write one of firstFound, all".to_owned(),
        ),
    ] {
        assert_eq!(denied(spec), [message]);
    }
    let warnings = warned(with("refreshInterval", json!("500ms")));
    assert_eq!(warnings, ["spec.refreshInterval: 500ms is raised to 5s"]);
}

#[test]
fn a_pool_is_one_of_single_addresses() {
    let group = "spec.ipv4.solvers[0].ipPool.poolRef.apiGroup: Invalid value: \"ipam.example\": write ipam.cluster.x-k8s.io, or \
                 leave the field out";
    let kind = "spec.ipv4.solvers[0].ipPool.poolRef.kind: Invalid value: \"InClusterPrefixPool\": write InClusterIPPool or \
                GlobalInClusterIPPool";
    let pool = json!({"apiGroup": "ipam.example", "kind": "InClusterPrefixPool", "name": "a"});
    assert_eq!(denied(ipv4(json!([{"ipPool": {"poolRef": pool}}]))), [group, kind]);
    for kind in ["InClusterIPPool", "GlobalInClusterIPPool"] {
        let pool = json!({"apiGroup": "ipam.cluster.x-k8s.io", "kind": kind, "name": "a"});
        assert_eq!(created(ipv4(json!([{"ipPool": {"poolRef": pool}}]))), Answer::admitted());
    }
}

#[test]
fn addresses_that_no_service_can_have_are_denied() {
    let never = "no Service can have this address (unspecified, loopback, link-local, multicast, reserved or IPv4-mapped); write \
                 another";
    for address in ["127.0.0.1", "169.254.1.1", "0.0.0.0", "255.255.255.255", "fe80::1", "::ffff:203.0.113.7"] {
        let expected = format!("spec.ipv4.solvers[0].static.addresses[0]: Invalid value: {address:?}: {never}");
        assert_eq!(denied(ipv4(json!([{"static": {"addresses": [address, "203.0.113.7"]}}]))), [expected]);
    }
    let private = |policy: Value| {
        let mut spec = ipv4(json!([{"static": {"addresses": ["10.0.0.1"]}}]));
        spec["addressPolicy"] = policy;
        spec
    };
    let expected = "spec.ipv4.solvers[0].static.addresses[0]: Invalid value: \"10.0.0.1\": private, while \
                    spec.addressPolicy.allowPrivate is false; remove it, or allow its network";
    assert_eq!(denied(private(json!({"allowPrivate": false}))), [expected]);
    for policy in [json!({}), json!({"allowPrivate": true}), json!({"allowPrivate": false, "allow": ["10.0.0.0/8"]})] {
        assert_eq!(created(private(policy)), Answer::admitted());
    }
}

#[test]
fn reading_the_status_that_is_written_is_warned_about() {
    let with = |outputs: Value, solver: Value| json!({"outputs": outputs, "ipv4": {"solvers": [{"static": {"addresses": ["198.51.100.1"]}}, solver]}});
    let warning = "spec.outputs: with LoadBalancerStatus a loadBalancerIngress solver finds nothing on Services of our class, \
                   whose status we write; use it for Services of another class only";
    let part = json!({"mask": "255.255.255.255", "solver": {"loadBalancerIngress": {}}});
    for solver in [json!({"loadBalancerIngress": {}}), json!({"merge": {"partialSolvers": [part]}})] {
        assert_eq!(warned(with(json!(["LoadBalancerStatus"]), solver.clone())), [warning]);
        assert_eq!(created(with(json!(["ExternalIPs"]), solver)), Answer::admitted());
    }
}

#[test]
fn a_solver_is_of_one_type() {
    let types = "ipAPI, interface, dnsHostname, loadBalancerIngress, static, ipPool";
    for (solver, message) in [
        (json!({}), format!("spec.ipv4.solvers[0]: a solver has exactly one of {types}, merge; add one")),
        (
            json!({"loadBalancerIngress": {}, "interface": {}}),
            format!("spec.ipv4.solvers[0]: a solver has exactly one of {types}, merge; remove the others"),
        ),
        (
            json!({"loadBalancerIngress": {}, "merge": {"partialSolvers": []}}),
            format!("spec.ipv4.solvers[0]: a solver has exactly one of {types}, merge; remove the others"),
        ),
        (
            json!({"merge": {"partialSolvers": [{"mask": "255.255.255.255", "solver": {}}]}}),
            format!("spec.ipv4.solvers[0].merge.partialSolvers[0].solver: a solver has exactly one of {types}; add one"),
        ),
    ] {
        assert_eq!(denied(ipv4(json!([solver]))), [message]);
    }
}

#[test]
fn everything_wrong_is_told_at_once_by_field_and_value() {
    let spec = json!({"ipv4": {"solvers": [{"static": {"addresses": ["1.2.3"]}}]}, "release": "Drop"});
    let Outcome::Denied(denial) = created(spec).outcome else { panic!("admitted") };
    assert_eq!(
        denial.status().message.unwrap(),
        "ClusterExternalIPSource.externalip.spacebird.dev \"public\" is invalid: \
         [spec.ipv4.solvers[0].static.addresses[0]: Invalid value: \"1.2.3\": not an IPv4 address, write four numbers from 0 to \
         255 without leading zeros, spec.release: Invalid value: \"Drop\": write one of Release, Retain]"
    );
}

#[test]
fn an_invalid_source_may_change_in_all_but_its_spec() {
    let old = source(json!({}));
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    assert_eq!(validate(&request(Operation::Update, labelled, Some(old.clone())), &[]), Answer::admitted());

    let changed = source(json!({"release": "Retain"}));
    let answer = validate(&request(Operation::Update, changed, Some(old.clone())), &[]);
    assert_eq!(answer.code(), 422);

    let mended = source(ipv4(json!([{"loadBalancerIngress": {}}])));
    assert_eq!(validate(&request(Operation::Update, mended, Some(old)), &[]), Answer::admitted());
}

#[test]
fn a_deletion_is_never_held_up() {
    let mut request = request(Operation::Delete, json!(null), Some(source(json!({}))));
    request.object = None;
    assert_eq!(validate(&request, &[]), Answer::admitted());
}

#[test]
fn another_kind_is_not_judged() {
    let mut request = request(Operation::Create, source(ipv4(json!([{"loadBalancerIngress": {}}]))), None);
    request.kind.version = "v1".to_owned();
    assert_eq!(validate(&request, &[]).code(), 400);
}
