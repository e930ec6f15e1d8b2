//! Where addresses are published, and whose the places are.

use api::externalip::Output;

use super::*;
use crate::externalip::facts::{ServiceKey, Trouble, TroubleKind};

const FIXED: &str = "ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}]}";
const BOTH: &str = "
    ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}]}
    ipv6: {solvers: [{static: {addresses: ['2001:db8::7']}}]}";
const OUR_CLASS: &str = "spec: {type: LoadBalancer, loadBalancerClass: externalip.spacebird.dev/external-ip}";

fn with(source: &str, more: &str) -> String {
    format!("{more}\n{}", source.trim_start_matches('\n').lines().map(str::trim_start).collect::<Vec<_>>().join("\n"))
}

#[test]
fn foreign_entries_stay_verbatim_and_in_their_places() {
    let mut scene = Scene::new(BOTH, "spec: {externalIPs: ['010.0.0.1', 10.9.9.9]}");
    scene.settle();
    assert_eq!(scene.list(), ["010.0.0.1", "10.9.9.9", "203.0.113.7", "2001:db8::7"]);
    let odd = (ExternalIpEvent::InvalidExternalIP, "not an IP address, left as it is: 010.0.0.1".to_owned());
    assert_eq!(scene.events.iter().filter(|event| **event == odd).count(), 1);
    scene.edit(|service| service.source = None);
    scene.settle();
    assert_eq!(scene.list(), ["010.0.0.1", "10.9.9.9"]);
    assert_eq!((scene.web().record.clone(), scene.web().conditions.clone()), (None, Vec::new()));
}

#[test]
fn an_address_that_the_user_listed_stays_the_users() {
    let mut scene = Scene::new(FIXED, "spec: {externalIPs: [203.0.113.7]}");
    scene.settle();
    let record = scene.record();
    assert_eq!(
        (&record["addresses"], &record["externalIPs"]),
        (&serde_json::json!({"203.0.113.7": "static"}), &serde_json::json!([]))
    );
    assert_eq!(scene.ready(), ("Assigned", "203.0.113.7"));
    scene.edit(|service| service.source = None);
    scene.settle();
    assert_eq!((scene.list(), scene.record()), (vec!["203.0.113.7"], serde_json::Value::Null));
}

#[test]
fn ours_stand_in_the_order_of_the_services_families() {
    let mut scene = Scene::new(BOTH, "spec: {ipFamilies: [IPv6, IPv4]}");
    scene.settle();
    assert_eq!(scene.list(), ["2001:db8::7", "203.0.113.7"]);
}

#[test]
fn families_that_the_service_lacks_are_published_unless_the_source_minds() {
    for (policy, list) in [("Any", vec!["203.0.113.7", "2001:db8::7"]), ("MatchService", vec!["203.0.113.7"])] {
        let mut scene = Scene::new(&with(BOTH, &format!("familyPolicy: {policy}")), "spec: {ipFamilies: [IPv4]}");
        scene.settle();
        assert_eq!(scene.list(), list, "{policy}");
    }
}

#[test]
fn a_service_of_our_class_has_its_addresses_in_the_status() {
    for (mode, word) in [("", "VIP"), ("ipMode: Proxy", "Proxy")] {
        let mut scene = Scene::new(&with(BOTH, mode), OUR_CLASS);
        scene.settle();
        let entry = |text: &str| Ingress { ip: Some(ip(text)), mode: Some(word.to_owned()) };
        assert_eq!(scene.web().ingress, [entry("203.0.113.7"), entry("2001:db8::7")]);
        assert_eq!((scene.list(), scene.ready().0), (vec![], "Assigned"));
        scene.edit(|service| service.source = None);
        scene.settle();
        assert_eq!((scene.web().ingress.clone(), scene.web().record.clone()), (Vec::new(), None));
    }
}

#[test]
fn only_families_of_the_service_go_into_its_status() {
    let service = "spec: {type: LoadBalancer, ipFamilies: [IPv6], loadBalancerClass: externalip.spacebird.dev/external-ip}";
    let mut scene = Scene::new(BOTH, service);
    scene.settle();
    assert_eq!(scene.web().ingress, [Ingress { ip: Some(ip("2001:db8::7")), mode: Some("VIP".to_owned()) }]);
}

#[test]
fn the_status_of_another_class_is_never_written() {
    let service = "{spec: {type: LoadBalancer}, status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}}";
    let mut scene = Scene::new(&with(FIXED, "outputs: [LoadBalancerStatus]"), service);
    scene.settle();
    assert_eq!(scene.web().ingress, [Ingress { ip: Some(ip("192.0.2.1")), mode: None }]);
    assert_eq!(scene.ready().0, "OutputUnavailable");

    let mut scene = Scene::new(&with(FIXED, "outputs: [LoadBalancerStatus, ExternalIPs]"), service);
    scene.settle();
    let text = "203.0.113.7; the output LoadBalancerStatus is for Services of our load balancer class only";
    assert_eq!((scene.list(), scene.ready()), (vec!["203.0.113.7"], ("Assigned", text)));
}

#[test]
fn a_service_of_our_class_without_a_source_is_told_so_once() {
    let mut scene = Scene::new(FIXED, OUR_CLASS);
    scene.edit(|service| service.source = None);
    scene.settle();
    scene.wait(1);
    assert_eq!(scene.events.iter().map(|(reason, _)| *reason).collect::<Vec<_>>(), [ExternalIpEvent::NoSource]);
}

fn targets(scene: &Scene) -> Vec<Option<&str>> {
    scene.web().targets.iter().map(|target| target.value.as_deref()).collect()
}

#[test]
fn external_dns_is_told_by_both_annotations_and_only_ours_are_taken_back() {
    let mut scene = Scene::new(&with(BOTH, "outputs: [ExternalDNSTarget]"), "{}");
    scene.settle();
    assert_eq!(targets(&scene), [Some("203.0.113.7,2001:db8::7"); 2]);
    assert_eq!((scene.list(), scene.ready().0), (vec![], "Assigned"));
    scene.edit(|service| service.source = None);
    scene.settle();
    assert_eq!(targets(&scene), [None; 2]);
}

#[test]
fn a_target_of_the_users_own_is_left_and_reported() {
    let mut scene = Scene::new(&with(FIXED, "outputs: [ExternalDNSTarget, ExternalIPs]"), "{}");
    scene.edit(|service| {
        let target = &mut service.targets[1];
        (target.value, target.other) = (Some("192.0.2.1".to_owned()), Some("kubectl".to_owned()));
    });
    scene.settle();
    assert_eq!((targets(&scene), scene.list()), (vec![Some("203.0.113.7"), Some("192.0.2.1")], vec!["203.0.113.7"]));
    let text = "the annotation external-dns.alpha.kubernetes.io/target is managed by kubectl";
    assert_eq!(scene.ready(), ("OutputUnavailable", text));
    scene.edit(|service| service.source = None);
    scene.settle();
    assert_eq!(targets(&scene), [None, Some("192.0.2.1")]);
}

#[test]
fn an_output_that_the_source_gives_up_is_cleaned() {
    let mut scene = Scene::new(&with(FIXED, "outputs: [ExternalDNSTarget, ExternalIPs]"), "spec: {externalIPs: [10.9.9.9]}");
    scene.settle();
    scene.source = Some(source_of(&with(FIXED, "outputs: [ExternalDNSTarget]")));
    scene.settle();
    assert_eq!((scene.list(), targets(&scene)[0]), (vec!["10.9.9.9"], Some("203.0.113.7")));
    scene.source = Some(source_of(&with(FIXED, "outputs: [ExternalIPs]")));
    scene.settle();
    assert_eq!((scene.list(), targets(&scene)[0]), (vec!["10.9.9.9", "203.0.113.7"], None));
}

#[test]
fn the_record_says_everything_that_is_ours() {
    let mut scene = Scene::new(BOTH, "spec: {externalIPs: ['2001:DB8::7']}");
    scene.settle();
    let text = r#"{"v":1,"source":"public","release":"Release","addresses":{"203.0.113.7":"static","2001:db8::7":"static"},"externalIPs":["203.0.113.7"],"mirrored":[]}"#;
    assert_eq!((scene.web().record.as_deref(), scene.list()), (Some(text), vec!["2001:DB8::7", "203.0.113.7"]));
}

#[test]
fn the_order_of_writes_is_record_then_target_then_status_then_words() {
    let outputs = "outputs: [ExternalDNSTarget, ExternalIPs, LoadBalancerStatus]";
    let mut scene = Scene::new(&with(FIXED, outputs), OUR_CLASS);
    scene.resolve();
    let kind = |step: &Step| match step {
        Step::PatchService { .. } => "patch",
        Step::ApplyTarget { .. } => "target",
        Step::ApplyStatus { .. } => "status",
        Step::ApplyConditions { .. } => "conditions",
        Step::Emit(_) => "event",
        _ => "claim",
    };
    let kinds = |scene: &Scene| scene.plan().steps.iter().map(kind).collect::<Vec<_>>();
    assert_eq!(kinds(&scene), ["patch", "target", "status", "conditions", "event"]);
    scene.settle();
    scene.edit(|service| service.source = None);
    assert_eq!(kinds(&scene)[..4], ["target", "status", "conditions", "patch"], "a release is known by its record to the end");
}

#[test]
fn what_was_taken_away_is_put_back_unless_that_became_a_fight() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.settle();
    scene.edit(|service| service.external_ips.clear());
    let step = scene.plan().steps[0].clone();
    assert_eq!(step, Step::PatchService { external_ips: Some(vec!["203.0.113.7".to_owned()]), record: None, restores: true });
    let trouble = Trouble {
        kind: TroubleKind::Contended,
        text: "kubectl keeps changing spec.externalIPs".to_owned(),
        step,
        until: scene.now.instant + Duration::from_secs(30),
    };
    scene.memory.troubles.insert(Output::ExternalIps, trouble);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec![], "Contended"));
    assert_eq!(scene.plan().look_again, Some(Duration::from_secs(30)));
    scene.wait(30);
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7"], "Assigned"));
}

#[test]
fn an_output_that_is_denied_does_not_stop_the_others() {
    let mut scene = Scene::new(&with(FIXED, "outputs: [ExternalDNSTarget, ExternalIPs]"), "{}");
    scene.resolve();
    let trouble = Trouble {
        kind: TroubleKind::DeniedByAdmission,
        text: "Use of external IPs is denied by admission control".to_owned(),
        step: scene.plan().steps[0].clone(),
        until: scene.now.instant + Duration::from_secs(600),
    };
    scene.memory.troubles.insert(Output::ExternalIps, trouble);
    scene.settle();
    assert_eq!((scene.list(), targets(&scene)[0], scene.ready().0), (vec![], Some("203.0.113.7"), "DeniedByAdmission"));
    assert_eq!(scene.record()["externalIPs"], serde_json::json!([]));
    assert_eq!(scene.events.iter().filter(|(reason, _)| *reason == ExternalIpEvent::DeniedByAdmission).count(), 1);
    scene.wait(600);
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7"], "Assigned"));
}

#[test]
fn a_record_that_cannot_be_read_makes_everything_foreign_until_the_next_write() {
    let mut scene = Scene::new("ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}", "{}")
        .says("gw.example.net", addresses(&["203.0.113.7"]));
    scene.settle();
    scene.edit(|service| service.record = Some("{\"v\":2}".to_owned()));
    scene.settle();
    assert_eq!(
        (scene.list(), scene.ready().0, scene.web().record.as_deref()),
        (vec!["203.0.113.7"], "RecordInvalid", Some("{\"v\":2}"))
    );
    assert!(scene.events.iter().any(|(reason, _)| *reason == ExternalIpEvent::RecordInvalid));
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.8"]));
    scene.wait(35);
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7", "203.0.113.8"], "Assigned"));
    assert_eq!(scene.record()["externalIPs"], serde_json::json!(["203.0.113.8"]));
}

/// Another Service with the same address and port, made in that year.
fn rival(year: &str) -> ServiceFacts {
    let mut rival = service_of(&format!("{{metadata: {{name: rival, creationTimestamp: '{year}-01-01T00:00:00Z'}}}}"));
    rival.external_ips = vec!["203.0.113.7".to_owned()];
    rival
}

#[test]
fn the_younger_of_two_services_with_one_address_and_port_is_told_or_refused() {
    let key = ServiceKey { namespace: "team-a".to_owned(), name: "rival".to_owned() };
    let conflict = |scene: &Scene| {
        let condition = scene.web().conditions.iter().find(|condition| condition.type_ == api::externalip::names::PORT_CONFLICT);
        condition.map(|condition| condition.message.clone())
    };
    let text = "the older Service team-a/rival has 203.0.113.7 with the same port";
    let elder = rival("2025");
    let mut scene = Scene::new(FIXED, "{}");
    scene.cluster.insert(&elder);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0, conflict(&scene).as_deref()), (vec!["203.0.113.7"], "Assigned", Some(text)));
    assert_eq!(scene.events.iter().filter(|(reason, _)| *reason == ExternalIpEvent::PortConflict).count(), 1);
    scene.cluster.remove(&elder);
    scene.settle();
    assert_eq!(conflict(&scene), None);

    let mut scene = Scene::new(&with(FIXED, "portConflict: Refuse"), "{}");
    scene.cluster.insert(&elder);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0, scene.plan().waits_on), (vec![], "PortConflict", BTreeSet::from([key])));
    scene.cluster.remove(&elder);
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7"], "Assigned"));
    scene.cluster.insert(&rival("2026"));
    scene.settle();
    assert_eq!(scene.list(), Vec::<&str>::new(), "of two of one age the first by name is right");
    scene.cluster.remove(&rival("2026"));
    scene.cluster.insert(&rival("2027"));
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
}

#[test]
fn another_port_is_no_conflict() {
    let mut elder = rival("2025");
    elder.ports = vec![(443, "UDP".to_owned()), (80, "TCP".to_owned())];
    let mut scene = Scene::new(&with(FIXED, "portConflict: Refuse"), "{}");
    scene.cluster.insert(&elder);
    scene.settle();
    assert_eq!((scene.list(), scene.web().conditions.len()), (vec!["203.0.113.7"], 1));
}

#[test]
fn what_the_old_operator_wrote_becomes_ours() {
    let mut scene =
        Scene::new("ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}", "spec: {externalIPs: [192.0.2.1, 192.0.2.2]}")
            .says("gw.example.net", Says::Silence);
    scene.edit(|service| service.external_ips_managers = vec!["externalip-manager".to_owned()]);
    scene.settle();
    assert_eq!(
        (scene.list(), &scene.record()["addresses"]["192.0.2.1"]),
        (vec!["192.0.2.1", "192.0.2.2"], &serde_json::json!("adopted"))
    );
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.7"]));
    scene.answers = Answers::default();
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
    let text = "192.0.2.1, 192.0.2.2 -> 203.0.113.7 from source public";
    assert_eq!(scene.events.last(), Some(&(ExternalIpEvent::ExternalIPsUpdated, text.to_owned())));
}

#[test]
fn an_address_of_the_old_operator_that_is_in_the_status_stays() {
    let service = "{spec: {externalIPs: [203.0.113.9]}, status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}}";
    let mut scene = Scene::new("ipv4: {solvers: [{loadBalancerIngress: {}}]}", service);
    scene.edit(|service| service.external_ips_managers = vec!["externalip-manager".to_owned()]);
    scene.settle();
    assert_eq!(
        (scene.list(), &scene.record()["addresses"]["203.0.113.9"]),
        (vec!["203.0.113.9"], &serde_json::json!("loadBalancerIngress"))
    );
}
