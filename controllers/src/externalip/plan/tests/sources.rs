//! What is asked for a source, and what its status says.

use super::*;

fn asks(scene: &Scene) -> Vec<String> {
    let keys = scene.with_pass(|pass| asked(pass, scene.now)).unwrap();
    keys.into_iter().map(|key| provenance::target(&api::externalip::Solver::Shared(key.solver))).collect()
}

#[test]
fn a_solver_behind_one_that_depends_on_the_service_is_asked_if_a_service_needs_it() {
    let source = "ipv4: {solvers: [{loadBalancerIngress: {}}, {dnsHostname: {host: gw.example.net}}]}";
    let balancer = "status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}";
    let mut scene = Scene::new(source, balancer);
    assert_eq!(asks(&scene), Vec::<String>::new());
    scene.edit(|service| service.ingress.clear());
    assert_eq!(asks(&scene), ["gw.example.net"]);
    let lingering = crate::externalip::facts::Lingering { ips: vec![ip("203.0.113.9")], since: scene.now.instant };
    scene.edit(|service| service.lingering = Some(lingering));
    assert_eq!(asks(&scene), ["gw.example.net"], "it is about to be needed");
    scene.service = None;
    assert_eq!(asks(&scene), ["gw.example.net"], "for the source's own status");
}

#[test]
fn all_solvers_that_decide_together_are_asked() {
    let source = "ipv4: {queryMode: all, solvers: [{static: {addresses: [203.0.113.7]}}, {dnsHostname: {host: gw.example.net}}]}";
    assert_eq!(asks(&Scene::new(source, "{}")), ["", "gw.example.net"]);
}

#[test]
fn the_parts_of_a_merge_are_asked_like_solvers() {
    let source = "
        ipv4:
          solvers:
          - merge:
              partialSolvers:
              - {mask: 255.255.255.0, solver: {dnsHostname: {host: net.example.net}}}
              - {mask: 0.0.0.255, solver: {interface: {name: eth0}}}";
    assert_eq!(asks(&Scene::new(source, "{}")), ["net.example.net", "eth0"]);
}

#[test]
fn a_source_shows_its_solvers_and_what_they_come_to() {
    let source = "
        ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}, {ipAPI: {}}]}
        ipv6: {solvers: [{loadBalancerIngress: {}}]}";
    let mut scene = Scene::new(source, "{}");
    scene.settle();
    let status = serde_json::to_value(scene.source.as_ref().unwrap().status.as_ref().unwrap()).unwrap();
    let at = "2026-03-01T10:00:00Z";
    let condition = |type_: &str, status: &str, reason: &str, message: &str| {
        serde_json::json!({
            "type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": at,
            "observedGeneration": 1,
        })
    };
    let expected = serde_json::json!({
        "observedGeneration": 1,
        "services": 1,
        "ipv4": {
            "addresses": ["203.0.113.7"],
            "solvers": [
                {"index": 0, "type": "static", "state": "Fresh", "addresses": ["203.0.113.7"], "since": at},
                {"index": 1, "type": "ipAPI", "target": "myIp", "state": "Idle", "since": at},
            ],
        },
        "ipv6": {"solvers": [{"index": 0, "type": "loadBalancerIngress", "state": "PerService", "since": at}]},
        "conditions": [
            condition("Accepted", "True", "Valid", "the spec can be used"),
            condition("Ready", "True", "PerService", "IPv6 addresses depend on the Service"),
            condition("Degraded", "False", "AllSolversHealthy", ""),
        ],
    });
    assert_eq!(status, expected);
}

#[test]
fn ready_says_whether_each_family_has_an_address() {
    let reason = |source: &str, says: Says| {
        let mut scene = Scene::new(source, "{}").says("gw.example.net", says);
        scene.settle();
        scene.source_condition("Ready")
    };
    let dns = "{solvers: [{dnsHostname: {host: gw.example.net}}]}";
    let both = format!("{{ipv4: {dns}, ipv6: {{solvers: [{{static: {{addresses: ['2001:db8::7']}}}}]}}}}");
    let one = format!("ipv4: {dns}");
    assert_eq!(reason(&one, addresses(&["203.0.113.7"])), "AddressFound");
    assert_eq!(reason(&one, Says::Silence), "!Resolving");
    assert_eq!(reason(&one, Says::Fails), "!NoAddress");
    assert_eq!(reason(&one, Says::Nothing), "!NoAddress");
    assert_eq!(reason(&both, addresses(&["203.0.113.7"])), "AddressFound");
    assert_eq!(reason(&both, Says::Nothing), "!Partial");
    assert_eq!(reason(&both, Says::Silence), "!Resolving");
}

#[test]
fn a_host_named_after_the_service_is_a_possible_loop_but_works() {
    let mut scene = Scene::new(
        "ipv4: {solvers: [{dnsHostname: {host: web.example.net}}]}",
        "{metadata: {annotations: {external-dns.alpha.kubernetes.io/hostname: 'other.example.net, Web.example.net.'}}}",
    )
    .says("web.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    assert_eq!((scene.list(), scene.source_condition("Degraded")), (vec!["203.0.113.7"], "PossibleLoop".to_owned()));
    assert_eq!(scene.source_events.iter().filter(|(reason, _)| *reason == ExternalIpEvent::PossibleLoop).count(), 1);
}

#[test]
fn a_server_that_warns_of_external_ips_is_passed_on_once() {
    let mut scene = Scene::new("ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}]}", "{}");
    scene.told.deprecated = true;
    scene.settle();
    scene.wait(60);
    let told = scene.source_events.iter().filter(|(reason, _)| *reason == ExternalIpEvent::ExternalIPsDeprecated).count();
    assert_eq!(told, 1);
}

#[test]
fn a_service_that_is_not_allowed_does_not_count() {
    let source = "{allowedServices: {serviceSelector: {matchLabels: {public: 'yes'}}}, ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}]}}";
    let mut scene = Scene::new(source, "{}");
    scene.settle();
    assert_eq!(scene.source.as_ref().unwrap().status.as_ref().unwrap().services, Some(0));
}

#[test]
fn a_restart_shows_nothing_until_it_knows_something() {
    let source = "ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}";
    let mut scene = Scene::new(source, "{}").says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    let before = scene.source.clone();
    scene.wait(5);
    scene.world.insert("gw.example.net".to_owned(), Says::Silence);
    scene.restart();
    scene.settle();
    scene.wait(9);
    assert_eq!((&scene.source, scene.source_events.len()), (&before, 0));
    scene.wait(11);
    assert_eq!(scene.source_condition("Ready"), "!Resolving", "but not for ever");

    let mut scene = Scene::new(source, "{}").says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    scene.wait(5);
    scene.restart();
    scene.settle();
    assert_eq!((&scene.source, scene.source_events.len()), (&before, 0), "an answer that is the same is no news");
}
