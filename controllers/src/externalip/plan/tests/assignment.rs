//! The life of an assignment, row by row.

use super::*;

const FIXED: &str = "ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}]}";

fn missing(scene: &mut Scene) {
    scene.source = None;
    scene.answers.forget("public");
    scene.memory.source_missing = Some(scene.now.instant);
}

#[test]
fn an_annotated_service_gets_its_address_and_says_so_once() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.settle();
    assert_eq!((scene.list(), scene.ready()), (vec!["203.0.113.7"], ("Assigned", "203.0.113.7")));
    assert_eq!(scene.events, [(ExternalIpEvent::ExternalIPsUpdated, "none -> 203.0.113.7 from source public".to_owned())]);
    assert_eq!(scene.plan(), Plan { standing: Some(Standing::Ready), ..Plan::default() });
}

#[test]
fn a_changed_answer_replaces_the_old_one_in_one_write() {
    let mut scene = Scene::new("ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}", "{}")
        .says("gw.example.net", addresses(&["198.51.100.7"]));
    scene.settle();
    scene.world.insert("gw.example.net".to_owned(), addresses(&["198.51.100.8"]));
    let writes = scene.writes;
    scene.wait(35);
    assert_eq!((scene.list(), scene.writes - writes), (vec!["198.51.100.8"], 2), "the list with the record, and the condition");
    let text = "198.51.100.7 -> 198.51.100.8 from source public";
    assert_eq!(scene.events.last(), Some(&(ExternalIpEvent::ExternalIPsUpdated, text.to_owned())));
    let text = "198.51.100.7 -> 198.51.100.8";
    assert_eq!(scene.source_events, [(ExternalIpEvent::AddressChanged, text.to_owned())]);
}

#[test]
fn a_service_without_annotation_is_left_alone() {
    let mut scene = Scene::new(FIXED, "spec: {externalIPs: [10.9.9.9]}");
    scene.edit(|service| service.source = None);
    assert_eq!(scene.plan(), Plan::default());
}

#[test]
fn a_blank_annotation_is_none_and_told_of_once() {
    for blank in ["", "  "] {
        let mut scene = Scene::new(FIXED, "{}");
        scene.edit(|service| service.source = Some(blank.to_owned()));
        scene.settle();
        assert_eq!((scene.writes, scene.events.len()), (0, 1), "{blank:?}");
        assert_eq!(scene.events[0].0, ExternalIpEvent::UnknownExternalIPSource);
    }
}

#[test]
fn blanks_around_a_name_do_not_count() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.edit(|service| service.source = Some(" public ".to_owned()));
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
}

#[test]
fn a_removed_annotation_releases_or_retains() {
    for (policy, list) in [("Release", vec!["10.9.9.9"]), ("Retain", vec!["10.9.9.9", "203.0.113.7"])] {
        let mut scene = Scene::new(&format!("{{release: {policy}, {FIXED}}}"), "spec: {externalIPs: [10.9.9.9]}");
        scene.settle();
        scene.edit(|service| service.source = None);
        scene.restart();
        scene.settle();
        assert_eq!(scene.list(), list, "{policy}, also by a process that was not there before");
        assert_eq!((scene.web().record.clone(), scene.web().conditions.len()), (None, 0), "{policy}");
        let released = scene.events.last().unwrap().0 == ExternalIpEvent::ExternalIPsReleased;
        assert_eq!(released, policy == "Release");
    }
}

#[test]
fn a_source_that_never_was_is_told_of_and_nothing_written() {
    let mut scene = Scene::new(FIXED, "spec: {externalIPs: [10.9.9.9]}");
    missing(&mut scene);
    scene.settle();
    assert_eq!((scene.list(), scene.ready()), (vec!["10.9.9.9"], ("SourceNotFound", "the source public does not exist")));
    assert_eq!((scene.web().record.clone(), scene.writes), (None, 1));
}

#[test]
fn addresses_outlive_their_source_for_the_grace_and_a_source_that_comes_back_changes_nothing() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.settle();
    let source = scene.source.clone();
    missing(&mut scene);
    assert_eq!(scene.plan().steps, []);
    assert_eq!(
        (scene.list(), scene.ready().0, scene.plan().look_again),
        (vec!["203.0.113.7"], "Assigned", Some(Duration::from_secs(300)))
    );
    scene.wait(299);
    let record = scene.web().record.clone();
    scene.source = source;
    scene.memory.source_missing = None;
    scene.settle();
    assert_eq!((scene.list(), scene.web().record.clone(), scene.ready().0), (vec!["203.0.113.7"], record, "Assigned"));
    missing(&mut scene);
    scene.wait(300);
    assert_eq!((scene.list(), scene.record(), scene.ready().0), (vec![], serde_json::Value::Null, "SourceNotFound"));
}

#[test]
fn after_the_grace_the_recorded_policy_decides() {
    let mut scene = Scene::new(&format!("{{release: Retain, {FIXED}}}"), "{}");
    scene.settle();
    missing(&mut scene);
    scene.wait(300);
    assert_eq!((scene.list(), scene.record()), (vec!["203.0.113.7"], serde_json::Value::Null));
}

#[test]
fn a_source_that_becomes_invalid_changes_no_address() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.settle();
    scene.source = Some(source_of("ipv4: {solvers: [{dnsHostname: {host: '*.example.net'}}]}"));
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7"], "SourceInvalid"));
}

#[test]
fn a_source_that_does_not_allow_the_service_gives_it_nothing() {
    let mut scene = Scene::new(FIXED, "spec: {externalIPs: [10.9.9.9]}");
    scene.settle();
    let selector = "allowedServices: {serviceSelector: {matchLabels: {public: 'yes'}}}";
    scene.source = Some(source_of(&format!("{{{selector}, {FIXED}}}")));
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0, scene.record()), (vec!["10.9.9.9"], "NotAllowed", serde_json::Value::Null));
    assert!(scene.events.iter().any(|(reason, _)| *reason == ExternalIpEvent::NotAllowed));
    scene.edit(|service| service.labels = BTreeMap::from([("public".to_owned(), "yes".to_owned())]));
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec!["10.9.9.9", "203.0.113.7"], "Assigned"));
}

#[test]
fn a_service_that_is_being_deleted_is_left_alone() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.edit(|service| service.deleting = true);
    scene.resolve();
    assert_eq!(scene.plan(), Plan::default());
}

#[test]
fn nothing_is_planned_on_facts_that_are_known_to_be_old() {
    let mut scene = Scene::new(FIXED, "{}");
    scene.memory.own_write_unseen = true;
    scene.resolve();
    assert_eq!(scene.plan(), Plan { look_again: Some(Duration::from_secs(10)), ..Plan::default() });
}

#[test]
fn another_source_replaces_addresses_only_when_it_has_some() {
    let mut scene = Scene::new(FIXED, "{}").says("gw.example.net", Says::Silence);
    scene.settle();
    scene.source = Some(source_of("ipv4: {solvers: [{dnsHostname: {host: gw.example.net}}]}"));
    scene.settle();
    scene.wait(30);
    assert_eq!((scene.list(), scene.ready().0), (vec!["203.0.113.7"], "Assigned"));
    scene.world.insert("gw.example.net".to_owned(), addresses(&["203.0.113.8"]));
    scene.answers = Answers::default();
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.8"]);
}

#[test]
fn a_family_that_the_source_gives_up_is_released() {
    let mut scene = Scene::new(
        "{ipv4: {solvers: [{static: {addresses: [203.0.113.7]}}]}, ipv6: {solvers: [{static: {addresses: ['2001:db8::7']}}]}}",
        "spec: {externalIPs: [10.9.9.9]}",
    );
    scene.settle();
    scene.source = Some(source_of("{ipv4: {solvers: []}, ipv6: {solvers: [{static: {addresses: ['2001:db8::7']}}]}}"));
    scene.settle();
    assert_eq!(scene.list(), ["10.9.9.9", "2001:db8::7"]);
}
