//! Query modes, merges, holding and loops.

use super::*;

/// What a Service gets from a source that nothing else is known of.
fn published(source: &str, service: &str, world: &[(&str, Says)]) -> Vec<String> {
    let mut scene = Scene::new(source, service);
    for (target, says) in world {
        scene = scene.says(target, says.clone());
    }
    scene.settle();
    scene.web().external_ips.clone()
}

fn ingress(list: &str) -> String {
    format!("{{status: {{loadBalancer: {{ingress: {list}}}}}}}")
}

#[test]
fn the_examples_of_lists_give_what_they_say() {
    let l1 = "
        ipv4:
          solvers:
          - static: {addresses: ['2001:db8::1']}
          - loadBalancerIngress: {}
          - static: {addresses: [198.51.100.77]}";
    assert_eq!(published(l1, &ingress("[{ip: 203.0.113.9}]"), &[]), ["203.0.113.9"], "L1");

    let l2 = "
        ipv4:
          queryMode: all
          solvers:
          - static: {addresses: [198.51.100.1, 203.0.113.5]}
          - loadBalancerIngress: {}
          - static: {addresses: [198.51.100.1]}
        ipv6:
          queryMode: all
          solvers: [{loadBalancerIngress: {}}, {dnsHostname: {host: gw.example.net}}]";
    let balancer = ingress("[{ip: 203.0.113.5}, {ip: '2001:db8::5'}, {hostname: lb.example.net}]");
    let expected = ["198.51.100.1", "203.0.113.5", "2001:db8::5"];
    assert_eq!(published(l2, &balancer, &[("gw.example.net", Says::Fails)]), expected, "L2");

    let l3 = "
        ipv4: {solvers: [{static: {addresses: [198.51.100.1, '2001:db8::99']}}]}
        ipv6: {solvers: [{static: {addresses: ['2001:db8::1']}}]}";
    assert_eq!(published(l3, "{}", &[]), ["198.51.100.1", "2001:db8::1"], "L3");

    let l4 = "
        ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}
        ipv6: {solvers: [{dnsHostname: {host: GW.example.net.}}]}";
    let world = [("gw.example.net", addresses(&["203.0.113.7", "2001:db8::7"]))];
    assert_eq!(published(l4, "{}", &world), ["203.0.113.7", "2001:db8::7"], "L4");

    let l5 = "ipv4: {solvers: [{dnsHostname: {host: 198.51.100.44}}]}";
    assert_eq!(published(l5, "{}", &[]), ["198.51.100.44"], "L5");

    let l6 = "
        ipv4: {solvers: [{static: {addresses: [198.51.100.1]}}]}
        ipv6: {solvers: [{loadBalancerIngress: {}}]}";
    assert_eq!(published(l6, "{}", &[]), ["198.51.100.1"], "L6");
}

/// A source that merges fixed answers, in the list of that family.
fn merge(list: &str, parts: &[(&str, &[&str])]) -> String {
    let parts = parts.iter().map(|(mask, answer)| serde_json::json!({"mask": mask, "solver": {"static": {"addresses": answer}}}));
    let spec = serde_json::json!({list: {"solvers": [{"merge": {"partialSolvers": parts.collect::<Vec<_>>()}}]}});
    spec.to_string()
}

#[test]
fn the_examples_of_merges_give_what_they_say() {
    type Parts<'a> = &'a [(&'a str, &'a [&'a str])];
    let examples: [(&str, &str, Parts<'_>, &str); 8] = [
        (
            "M1",
            "ipv4",
            &[("255.255.0.0", &["203.0.113.77"]), ("0.0.255.0", &["10.10.10.10"]), ("0.0.0.255", &["192.168.5.42"])],
            "203.0.10.42",
        ),
        (
            "M2",
            "ipv6",
            &[("ffff:ffff:ffff:ffff::", &["2001:db8:aaaa:bbbb:1:2:3:4"]), ("::ffff:ffff:ffff:ffff", &["fd00:1:2:3:a:b:c:d"])],
            "2001:db8:aaaa:bbbb:a:b:c:d",
        ),
        (
            "M3",
            "ipv6",
            &[("ffff:ffff:ffff:ff00::", &["2001:db8:12:3400::1"]), ("::ff:ffff:ffff:ffff:ffff", &["fd00:0:0:42::25"])],
            "2001:db8:12:3442::25",
        ),
        ("M4", "ipv4", &[("255.255.255.255", &["198.51.100.9"])], "198.51.100.9"),
        (
            "M5",
            "ipv4",
            &[("255.255.255.0", &["203.0.113.1", "198.51.100.1"]), ("0.0.0.255", &["10.0.0.7", "10.0.0.8"])],
            "198.51.100.8",
        ),
        ("M6", "ipv4", &[("255.0.255.0", &["1.2.3.4"]), ("0.255.0.255", &["5.6.7.8"])], "1.6.3.8"),
        ("M7", "ipv4", &[("255.255.255.240", &["203.0.113.16"]), ("0.0.0.15", &["10.0.0.250"])], "203.0.113.26"),
        (
            "M8",
            "ipv6",
            &[("ffff:ffff:ffff:ffff:ffff:ffff::", &["2001:db8::1"]), ("::ffff:ffff", &["64:ff9b::192.0.2.33"])],
            "2001:db8::c000:221",
        ),
    ];
    for (name, list, parts, result) in examples {
        assert_eq!(published(&merge(list, parts), "{}", &[]), [result], "{name}");
    }
}

#[test]
fn a_merge_that_cannot_be_is_its_sources_fault_alone() {
    type Parts<'a> = &'a [(&'a str, &'a [&'a str])];
    let all = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let examples: [(&str, &str, Parts<'_>); 8] = [
        ("M9", "ipv4", &[("255.255.0.0", &["203.0.113.1"]), ("0.0.0.255", &["203.0.113.1"])]),
        ("M10", "ipv4", &[("255.255.255.0", &["203.0.113.1"]), ("0.0.255.255", &["203.0.113.1"])]),
        (
            "M11",
            "ipv4",
            &[("127.255.255.255", &["203.0.113.1"]), ("127.255.255.255", &["203.0.113.1"]), ("0.0.0.1", &["203.0.113.1"])],
        ),
        ("M12", "ipv6", &[("::ffff:ffff", &["2001:db8::1"])]),
        ("M13", "ipv4", &[(all, &["203.0.113.1"])]),
        ("M14", "ipv6", &[("ffff:ffff:ffff:ffff::", &["2001:db8::1"]), ("0.0.0.255", &["2001:db8::1"])]),
        ("M15", "ipv6", &[(all, &["2001:db8::1"]), ("::1", &["2001:db8::1"])]),
        ("M16", "ipv4", &[]),
    ];
    for (name, list, parts) in examples {
        let mut scene = Scene::new(&merge(list, parts), "spec: {externalIPs: [10.9.9.9]}");
        scene.settle();
        assert_eq!(scene.list(), ["10.9.9.9"], "{name}");
        assert_eq!(scene.ready().0, "SourceInvalid", "{name}");
        assert_eq!(scene.source_condition("Accepted"), "!InvalidSpec", "{name}");
        assert_eq!(scene.source_events[0].0, ExternalIpEvent::InvalidIPSource, "{name}");
    }
}

#[test]
fn a_merge_of_which_a_part_is_empty_is_empty_and_shows_it() {
    let mut scene = Scene::new(&merge("ipv4", &[("255.255.255.0", &["2001:db8::1"]), ("0.0.0.255", &["10.0.0.1"])]), "{}");
    scene.settle();
    assert_eq!(scene.list(), Vec::<&str>::new(), "M17");
    assert_eq!(scene.solvers(Family::V4), [("Empty".to_owned(), Vec::new())]);
    assert_eq!(scene.ready().0, "NoAddress");
}

#[test]
fn a_merge_holds_while_a_part_is_held_and_fails_when_it_fails() {
    let source = "
        maxStaleness: 1m
        ipv4:
          solvers:
          - merge:
              partialSolvers:
              - {mask: 255.255.255.0, solver: {dnsHostname: {host: net.example.net}}}
              - {mask: 0.0.0.255, solver: {static: {addresses: [10.0.0.7]}}}
          - static: {addresses: [198.51.100.1]}";
    let mut scene = Scene::new(source, "{}").says("net.example.net", addresses(&["203.0.113.200"]));
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
    scene.world.insert("net.example.net".to_owned(), Says::Fails);
    scene.wait(40);
    assert_eq!((scene.list(), scene.solvers(Family::V4)[0].0.as_str()), (vec!["203.0.113.7"], "Held"));
    scene.wait(60);
    assert_eq!((scene.list(), scene.solvers(Family::V4)[0].0.as_str()), (vec!["198.51.100.1"], "Failed"));
    assert_eq!(scene.source_condition("Degraded"), "SolverFailing");
}

const TWO: &str = "
    maxStaleness: 1m
    ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}, {dnsHostname: {host: spare.example.net}}]}";

#[test]
fn a_failing_solver_is_held_then_left_and_taken_back_when_it_recovers() {
    let mut scene = Scene::new(TWO, "{}")
        .says("gw.example.net", addresses(&["203.0.113.7"]))
        .says("spare.example.net", addresses(&["198.51.100.1"]));
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
    assert_eq!(scene.solvers(Family::V4)[1], ("Idle".to_owned(), Vec::new()), "nobody needs the second");
    let writes = scene.writes;
    scene.world.insert("gw.example.net".to_owned(), Says::Fails);
    scene.wait(35);
    assert_eq!((scene.list(), scene.writes), (vec!["203.0.113.7"], writes), "an outage costs no write to a Service");
    assert_eq!(scene.solvers(Family::V4)[0], ("Held".to_owned(), vec!["203.0.113.7".to_owned()]));
    scene.wait(20);
    scene.wait(40);
    assert_eq!(scene.list(), ["198.51.100.1"]);
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.8"]));
    scene.wait(300);
    assert_eq!(scene.list(), ["203.0.113.8"]);
    assert!(scene.source_events.iter().any(|(reason, _)| *reason == ExternalIpEvent::SolverRecovered));
}

#[test]
fn the_message_of_a_failing_solver_names_it_and_what_is_held() {
    let mut scene = Scene::new(TWO, "{}").says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    scene.world.insert("gw.example.net".to_owned(), Says::Fails);
    scene.wait(35);
    let text = "ipv4.solvers[0] dnsHostname gw.example.net: timeout since 2026-03-01T10:00:35Z, holding 203.0.113.7";
    assert_eq!(scene.source_events, [(ExternalIpEvent::SolverFailing, text.to_owned())]);
    scene.wait(10);
    assert_eq!(scene.source_events.len(), 1, "an unchanged state is told once");
}

#[test]
fn one_empty_answer_between_good_ones_changes_nothing_but_two_do() {
    let mut scene = Scene::new(TWO, "{}")
        .says("gw.example.net", addresses(&["203.0.113.7"]))
        .says("spare.example.net", addresses(&["198.51.100.1"]));
    scene.settle();
    scene.world.insert("gw.example.net".to_owned(), Says::Nothing);
    scene.wait(33);
    assert_eq!(scene.list(), ["203.0.113.7"]);
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.7"]));
    scene.wait(15);
    scene.world.insert("gw.example.net".to_owned(), Says::Nothing);
    scene.wait(33);
    assert_eq!(scene.list(), ["203.0.113.7"]);
    scene.wait(11);
    assert_eq!(scene.list(), ["198.51.100.1"]);
}

#[test]
fn a_restart_in_an_outage_changes_nothing() {
    let mut scene = Scene::new(TWO, "{}")
        .says("gw.example.net", addresses(&["203.0.113.7"]))
        .says("spare.example.net", addresses(&["198.51.100.1"]));
    scene.settle();
    for says in [Says::Silence, Says::Fails, Says::Nothing] {
        let writes = scene.writes;
        scene.world.insert("gw.example.net".to_owned(), says);
        scene.restart();
        scene.settle();
        scene.wait(9);
        assert_eq!((scene.list(), scene.writes), (vec!["203.0.113.7"], writes));
    }
    scene.wait(12);
    assert_eq!(scene.list(), ["198.51.100.1"], "two empty answers are an answer");
}

#[test]
fn a_solver_that_does_not_answer_is_waited_for_ten_seconds() {
    let mut scene =
        Scene::new(TWO, "{}").says("gw.example.net", Says::Silence).says("spare.example.net", addresses(&["198.51.100.1"]));
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec![], "Resolving"));
    assert_eq!(scene.plan().look_again, Some(Duration::from_secs(10)));
    scene.wait(10);
    assert_eq!((scene.list(), scene.ready().0), (vec!["198.51.100.1"], "Assigned"));
}

#[test]
fn without_staleness_the_next_solver_takes_over_at_once() {
    let source = TWO.replace("1m", "0s");
    let mut scene = Scene::new(&source, "{}")
        .says("gw.example.net", addresses(&["203.0.113.7"]))
        .says("spare.example.net", addresses(&["198.51.100.1"]));
    scene.settle();
    scene.world.insert("gw.example.net".to_owned(), Says::Fails);
    scene.wait(35);
    assert_eq!(scene.list(), ["198.51.100.1"]);
}

#[test]
fn keep_keeps_observed_addresses_and_remove_removes_them_once_that_is_certain() {
    for (policy, left) in [("Keep", vec!["203.0.113.7"]), ("Remove", vec![])] {
        let source = format!(
            "{{maxStaleness: 1m, onNoAddress: {policy}, ipv4: {{solvers: [{{dnsHostname: {{host: gw.example.net}}}}]}}}}"
        );
        let mut scene = Scene::new(&source, "{}").says("gw.example.net", addresses(&["203.0.113.7"]));
        scene.settle();
        scene.world.insert("gw.example.net".to_owned(), Says::Fails);
        scene.wait(35);
        scene.wait(40);
        assert_eq!(scene.list(), ["203.0.113.7"], "{policy}: it fails for less than a minute");
        scene.wait(61);
        assert_eq!(scene.list(), left, "{policy}");
        assert_eq!(scene.source_condition("Ready"), "!NoAddress");
    }
}

#[test]
fn one_family_neither_delays_nor_changes_the_other() {
    let source = "
        ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}
        ipv6: {solvers: [{dnsHostname: {host: six.example.net}}]}";
    let mut scene =
        Scene::new(source, "{}").says("gw.example.net", addresses(&["203.0.113.7"])).says("six.example.net", Says::Fails);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7"], "Assigned"));
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.8"]));
    scene.wait(40);
    assert_eq!(
        (scene.list(), scene.ready()),
        (vec!["203.0.113.8"], ("Assigned", "203.0.113.8; no IPv6 address: no solver finds an IPv6 address"))
    );
    assert_eq!(scene.source_condition("Ready"), "!Partial");
}

#[test]
fn of_a_list_that_is_asked_together_a_member_drops_out_late() {
    let source = TWO.replace("ipv4: {", "ipv4: {queryMode: all, ");
    let mut scene = Scene::new(&source, "{}")
        .says("gw.example.net", addresses(&["203.0.113.7"]))
        .says("spare.example.net", addresses(&["198.51.100.1"]));
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7", "198.51.100.1"]);
    scene.world.insert("gw.example.net".to_owned(), Says::Fails);
    scene.wait(35);
    assert_eq!(scene.list(), ["203.0.113.7", "198.51.100.1"]);
    scene.wait(60);
    assert_eq!(scene.list(), ["198.51.100.1"]);
}

#[test]
fn the_load_balancers_address_follows_and_lingers_for_thirty_seconds() {
    let mut scene = Scene::new("ipv4: {solvers: [{loadBalancerIngress: {}}]}", &ingress("[{ip: 203.0.113.9}]"));
    scene.settle();
    assert_eq!(
        (scene.list(), scene.record()["addresses"]["203.0.113.9"].as_str()),
        (vec!["203.0.113.9"], Some("loadBalancerIngress"))
    );
    let set = |scene: &mut Scene, ips: &[&str]| {
        let (now, ips) = (scene.now.instant, ips.iter().map(|text| Ingress { ip: Some(ip(text)), mode: None }).collect());
        scene.edit(|service| {
            let before: Vec<IpAddr> = std::mem::replace(&mut service.ingress, ips).iter().filter_map(|entry| entry.ip).collect();
            service.lingering =
                service.ingress.is_empty().then_some(crate::externalip::facts::Lingering { ips: before, since: now });
        });
    };
    set(&mut scene, &["203.0.113.10"]);
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.10"], "a change is followed at once");
    set(&mut scene, &[]);
    scene.settle();
    assert_eq!((scene.list(), scene.plan().look_again), (vec!["203.0.113.10"], Some(Duration::from_secs(30))));
    scene.restart();
    scene.wait(29);
    assert_eq!(scene.list(), ["203.0.113.10"], "a new process counts from its start");
    scene.wait(1);
    assert_eq!(
        (scene.list(), scene.record()),
        (vec![], serde_json::Value::Null),
        "also where addresses are kept: it is not ours any more"
    );
}

#[test]
fn a_leased_address_goes_with_its_lease_also_without_a_usable_source() {
    let mut scene = Scene::new("ipv4: {solvers: [{loadBalancerIngress: {}}]}", &ingress("[{ip: 203.0.113.9}]"));
    scene.settle();
    scene.source = None;
    scene.memory.source_missing = Some(scene.now.instant);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.9"], "Assigned"));
    scene.edit(|service| service.ingress = vec![Ingress { ip: Some(ip("203.0.113.10")), mode: None }]);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec![], "SourceNotFound"));
}

#[test]
fn what_a_load_balancer_copies_from_us_is_not_taken_for_its_own() {
    let source = "ipv4: {queryMode: all, solvers: [{dnsHostname: {host: gw.example.net}}, {loadBalancerIngress: {}}]}";
    let mut scene = Scene::new(source, "{}").says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    scene.edit(|service| service.ingress = vec![Ingress { ip: Some(ip("203.0.113.7")), mode: None }]);
    scene.settle();
    assert_eq!(scene.record()["mirrored"], serde_json::json!(["203.0.113.7"]));
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.8"]));
    scene.wait(35);
    assert_eq!(scene.list(), ["203.0.113.8"], "the old address does not keep itself alive");
    assert_eq!(scene.record()["mirrored"], serde_json::json!(["203.0.113.7"]), "it stays marked until it leaves the status");
    scene.restart();
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.8"]);
    scene.edit(|service| service.ingress = vec![Ingress { ip: Some(ip("203.0.113.8")), mode: None }]);
    scene.settle();
    assert_eq!(scene.record()["mirrored"], serde_json::json!(["203.0.113.8"]));
    scene.edit(|service| service.ingress.clear());
    scene.settle();
    assert_eq!(scene.record()["mirrored"], serde_json::json!([]));
}

#[test]
fn what_the_load_balancer_had_before_us_is_genuine() {
    let source = "ipv4: {queryMode: all, solvers: [{dnsHostname: {host: gw.example.net}}, {loadBalancerIngress: {}}]}";
    let service = ingress("[{ip: 203.0.113.7}]");
    let mut scene = Scene::new(source, &service).says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    let record = serde_json::json!({
        "v": 1, "source": "public", "release": "Release", "addresses": {"203.0.113.7": "loadBalancerIngress"},
        "externalIPs": ["203.0.113.7"], "mirrored": [],
    });
    assert_eq!(scene.record(), record);
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.8"]));
    scene.wait(35);
    assert_eq!(scene.list(), ["203.0.113.8", "203.0.113.7"]);
}

#[test]
fn our_own_status_is_not_read() {
    let source = "ipv4: {solvers: [{loadBalancerIngress: {}}, {static: {addresses: [198.51.100.1]}}]}";
    let service = "spec: {type: LoadBalancer, loadBalancerClass: externalip.spacebird.dev/external-ip}";
    let mut scene = Scene::new(source, service);
    scene.settle();
    assert_eq!(
        (scene.list(), scene.web().ingress.clone()),
        (vec![], vec![Ingress { ip: Some(ip("198.51.100.1")), mode: Some("VIP".to_owned()) }])
    );
}

#[test]
fn an_answer_that_may_not_be_published_is_no_answer() {
    let source = "{maxStaleness: 1m, ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}}";
    let mut scene = Scene::new(source, "{}").says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    for bad in [&["127.0.0.1"][..], &["169.254.1.1"], &["10.0.0.1"], &["10.96.0.9"]] {
        scene.world.insert("gw.example.net".to_owned(), addresses(bad));
        scene.wait(33);
        assert_eq!(scene.list(), ["203.0.113.7"], "{bad:?}");
        assert_eq!(scene.solvers(Family::V4)[0].0, "Held");
        assert_eq!(scene.source_condition("Degraded"), "AddressRefused");
        scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.7"]));
        scene.wait(33);
    }
    scene.world.insert("gw.example.net".to_owned(), addresses(&["10.0.0.1", "203.0.113.8"]));
    scene.wait(33);
    assert_eq!(scene.list(), ["203.0.113.8"], "the rest is used");
    assert_eq!(scene.source_condition("Degraded"), "AddressRefused");
}

#[test]
fn private_addresses_need_a_word_unless_they_are_written_down() {
    let published = |policy: &str, solver: &str| {
        let source = format!("{{addressPolicy: {policy}, ipv4: {{solvers: [{solver}]}}}}");
        published(&source, "{}", &[("gw.example.net", addresses(&["10.0.0.1", "127.0.0.1"]))])
    };
    let dns = "{dnsHostname: {host: gw.example.net}}";
    assert_eq!(published("{}", dns), Vec::<String>::new());
    assert_eq!(published("{allowPrivate: true}", dns), ["10.0.0.1"]);
    assert_eq!(published("{allow: [10.0.0.0/8]}", dns), ["10.0.0.1"]);
    assert_eq!(published("{allowPrivate: true, deny: [10.0.0.0/8]}", dns), Vec::<String>::new());
    assert_eq!(published("{allow: [203.0.113.0/24]}", dns), Vec::<String>::new());
    assert_eq!(published("{}", "{static: {addresses: [10.0.0.2]}}"), ["10.0.0.2"]);
}
