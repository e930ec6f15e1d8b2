//! Addresses from pools, through claims.

use api::externalip::names::PUBLISHED;

use super::*;

const POOL: &str = "ipv4: {solvers: [{ipPool: {poolRef: {kind: GlobalInClusterIPPool, name: public-v4}}}]}";
const CLAIM: &str = "web-ext4-6aa21bf7";

fn with_pool(source: &str) -> Scene {
    Scene::new(source, "{}").pool("public-v4", Family::V4)
}

fn bound(source: &str) -> Scene {
    let mut scene = with_pool(source);
    scene.settle();
    scene.bind(CLAIM, "203.0.113.7");
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
    scene
}

fn names(scene: &Scene) -> Vec<&str> {
    scene.claims.iter().map(|claim| claim.name.as_str()).collect()
}

#[test]
fn a_claim_is_made_and_its_address_published_when_it_is_bound() {
    let mut scene = with_pool(POOL);
    scene.rules.watch_filter = Some("blue".to_owned());
    scene.edit(|service| service.requested = Some("2001:db8::9, 203.0.113.9".to_owned()));
    let steps = scene.plan().steps;
    let object = serde_json::json!({
        "metadata": {
            "name": CLAIM,
            "namespace": "team-a",
            "labels": {"externalip.spacebird.dev/service": "web", "cluster.x-k8s.io/watch-filter": "blue"},
            "annotations": {"in-cluster.ipam.cluster.x-k8s.io/requested-address": "203.0.113.9"},
            "finalizers": [PUBLISHED],
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "uid-of-web", "controller": true,
                "blockOwnerDeletion": false,
            }],
        },
        "spec": {"poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "GlobalInClusterIPPool", "name": "public-v4"}},
    });
    assert_eq!(steps[0], Step::CreateClaim { name: CLAIM.to_owned(), object });
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec![], "Resolving"));
    scene.bind(CLAIM, "203.0.113.9");
    scene.settle();
    assert_eq!((scene.list(), scene.ready()), (vec!["203.0.113.9"], ("Assigned", "203.0.113.9")));
    let provenance = "ipPool/GlobalInClusterIPPool/public-v4";
    assert_eq!(scene.record()["addresses"]["203.0.113.9"], provenance);
    scene.edit(|service| service.requested = None);
    scene.settle();
    assert_eq!(scene.ready(), ("Assigned", "203.0.113.9; the IPv4 address asked for counts only when a claim is made"));
}

#[test]
fn a_pool_is_asked_only_for_families_of_the_service_and_of_its_own() {
    for (fields, reason) in
        [("{spec: {ipFamilies: [IPv6]}}", "NoAddress"), ("{spec: {type: ExternalName, ipFamilies: null}}", "NoAddress")]
    {
        let mut scene = Scene::new(POOL, fields).pool("public-v4", Family::V4);
        scene.settle();
        assert_eq!((names(&scene), scene.ready().0), (vec![], reason), "{fields}");
    }
    let mut scene = Scene::new(POOL, "{}").pool("public-v4", Family::V6);
    scene.settle();
    assert_eq!((names(&scene), scene.ready().0), (vec![], "NoAddress"));
    let mut scene = Scene::new(POOL, "{}");
    scene.settle();
    assert_eq!((names(&scene), scene.ready()), (vec![], ("PoolNotFound", "GlobalInClusterIPPool/public-v4 does not exist")));
}

#[test]
fn an_exhausted_pool_is_waited_for_while_the_next_solver_serves() {
    let mut scene = with_pool(&POOL.replace("}]}", "}, {static: {addresses: [198.51.100.1]}}]}"));
    scene.settle();
    scene.claim(CLAIM).waiting = Some(("PoolExhausted".to_owned(), "no free address".to_owned()));
    scene.settle();
    assert_eq!(scene.list(), Vec::<&str>::new());
    let again = scene.with_pass(|pass| source(pass, scene.now)).unwrap().look_again;
    assert_eq!(again, Some(Duration::from_secs(10)), "then the next solver is asked");
    scene.wait(10);
    assert_eq!((scene.list(), names(&scene)), (vec!["198.51.100.1"], vec![CLAIM]), "the claim stays in the queue");
    scene.bind(CLAIM, "203.0.113.7");
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
}

#[test]
fn an_exhausted_pool_alone_is_named() {
    let mut scene = with_pool(POOL);
    scene.settle();
    scene.claim(CLAIM).waiting = Some(("PoolExhausted".to_owned(), "no free address".to_owned()));
    scene.wait(10);
    assert_eq!(scene.ready(), ("PoolExhausted", "GlobalInClusterIPPool/public-v4 has no free address"));
}

#[test]
fn un_annotating_takes_the_address_off_then_the_claim_then_our_finalizer() {
    for policy in ["Release", "Retain"] {
        let mut scene = bound(&format!("{{release: {policy}, {POOL}}}"));
        scene.edit(|service| service.source = None);
        let first = scene.plan().steps;
        assert!(first.iter().all(|step| !matches!(step, Step::DeleteClaim { .. } | Step::FreeClaim { .. })), "{first:?}");
        scene.apply_all(first);
        assert_eq!((scene.list(), scene.record()), (vec![], serde_json::Value::Null), "{policy}");
        let delete = Step::DeleteClaim { name: CLAIM.to_owned(), uid: format!("uid-of-{CLAIM}") };
        assert_eq!(scene.plan().steps, [delete]);
        scene.settle();
        assert_eq!(names(&scene), Vec::<&str>::new());
    }
}

#[test]
fn another_pool_is_taken_before_the_old_one_is_left() {
    let mut scene = bound(POOL).pool("other", Family::V4);
    scene.source = Some(source_of(&POOL.replace("public-v4", "other")));
    scene.settle();
    let other = crate::externalip::claims::name("web", Family::V4, &pool("other"));
    assert_eq!((scene.list(), names(&scene)), (vec!["203.0.113.7"], vec![CLAIM, &other]));
    scene.wait(60);
    assert_eq!((scene.list(), names(&scene)), (vec!["203.0.113.7"], vec![CLAIM, &other]), "however long that takes");
    scene.bind(&other, "198.51.100.1");
    scene.settle();
    assert_eq!((scene.list(), names(&scene)), (vec!["198.51.100.1"], vec![other.as_str()]));
}

#[test]
fn a_claim_deleted_by_hand_withdraws_the_address_at_once_and_a_new_one_follows() {
    let mut scene = bound(POOL);
    scene.delete_claim(CLAIM);
    for step in scene.plan().steps {
        scene.apply(step);
    }
    assert_eq!(
        (scene.list(), names(&scene)),
        (vec![], vec![CLAIM]),
        "our finalizer holds the address until it is off the Service"
    );
    scene.settle();
    assert_eq!((names(&scene), scene.claims[0].deleting), (vec![CLAIM], false));
}

#[test]
fn a_claims_address_is_ours_whatever_the_record_says() {
    for record in [
        None,
        Some("garbage".to_owned()),
        Some(r#"{"v":1,"source":"x","release":"Retain","addresses":{},"externalIPs":[],"mirrored":[]}"#.to_owned()),
    ] {
        let mut scene = bound(POOL);
        scene.edit(|service| (service.record, service.source) = (record.clone(), None));
        scene.settle();
        assert_eq!((scene.list(), names(&scene), scene.web().record.clone()), (vec![], vec![], None), "un-annotated, {record:?}");

        let mut scene = bound(POOL);
        scene.edit(|service| service.record = record.clone());
        scene.delete_claim(CLAIM);
        scene.settle();
        assert_eq!((scene.list(), scene.claims[0].deleting), (vec![], false), "deleted, {record:?}");
    }
}

#[test]
fn somebody_elses_claim_of_our_name_is_never_touched() {
    let mut scene = bound(POOL);
    scene.claims[0].service = None;
    scene.claims[0].owner = None;
    scene.edit(|service| {
        service.external_ips.clear();
        service.record = None;
    });
    scene.settle();
    assert_eq!((scene.list(), scene.ready().0), (vec![], "ClaimConflict"));
    scene.claims[0].service = Some("web".to_owned());
    scene.claims[0].owner = Some(Owner {
        api_version: "infrastructure.example.net/v1".to_owned(),
        kind: "Machine".to_owned(),
        name: "web".to_owned(),
        uid: "1".to_owned(),
    });
    scene.settle();
    assert_eq!(scene.ready().0, "ClaimConflict");
    assert_eq!(names(&scene), [CLAIM]);
}

#[test]
fn a_service_made_again_takes_over_its_claim() {
    let mut scene = bound(POOL);
    for owner in [scene.claims[0].owner.clone(), None] {
        scene.claims[0].owner = owner;
        scene.edit(|service| {
            *service = service_of("metadata: {uid: another}");
        });
        scene.settle();
        assert_eq!(scene.list(), ["203.0.113.7"]);
        assert_eq!(scene.claims[0].owner.as_ref().unwrap().uid, "another");
    }
}

#[test]
fn a_service_made_again_too_late_gets_a_new_claim() {
    let mut scene = bound(POOL);
    scene.delete_claim(CLAIM);
    scene.claim(CLAIM).finalizers.insert(0, "ipam.cluster.x-k8s.io/ReleaseAddress".to_owned());
    scene.edit(|service| *service = service_of("metadata: {uid: another}"));
    let steps = scene.plan().steps;
    assert!(matches!(&steps[..], [Step::ApplyConditions { .. }, Step::FreeClaim { .. }]), "{steps:?}");
    assert_eq!(
        steps[1],
        Step::FreeClaim {
            name: CLAIM.to_owned(),
            uid: format!("uid-of-{CLAIM}"),
            finalizers: vec!["ipam.cluster.x-k8s.io/ReleaseAddress".to_owned(), PUBLISHED.to_owned()],
        }
    );
    scene.apply(steps[0].clone());
    assert_eq!(scene.ready().0, "ClaimTerminating");
}

#[test]
fn claims_of_a_service_that_is_gone_are_let_go() {
    let mut scene = bound(POOL);
    scene.service = None;
    assert_eq!(scene.plan(), Plan::default(), "the garbage collector deletes it");
    scene.delete_claim(CLAIM);
    scene.settle();
    assert_eq!(names(&scene), Vec::<&str>::new());

    let mut scene = bound(POOL);
    scene.service = None;
    scene.claims[0].owner = None;
    scene.memory.service_missing = Some(scene.now.instant);
    assert_eq!(scene.plan(), Plan { look_again: Some(Duration::from_secs(300)), ..Plan::default() });
    scene.wait(300);
    assert_eq!(names(&scene), Vec::<&str>::new(), "an orphan is deleted after the grace");
}

#[test]
fn a_solver_before_the_pool_gives_its_claim_back_when_it_recovers() {
    let source = POOL.replace("solvers: [", "solvers: [{dnsHostname: {host: gw.example.net}}, ");
    let mut scene = with_pool(&format!("{{maxStaleness: 0s, {source}}}")).says("gw.example.net", Says::Fails);
    scene.settle();
    scene.bind(CLAIM, "203.0.113.7");
    scene.settle();
    assert_eq!(scene.list(), ["203.0.113.7"]);
    scene.world.insert("gw.example.net".to_owned(), addresses(&["198.51.100.1"]));
    scene.wait(30);
    assert_eq!((scene.list(), names(&scene)), (vec!["198.51.100.1"], vec![]));
}

#[test]
fn a_merge_with_a_pool_goes_with_the_claim() {
    let source = "
        ipv6:
          solvers:
          - merge:
              partialSolvers:
              - {mask: 'ffff:ffff:ffff:ffff::', solver: {static: {addresses: ['2001:db8:0:1::']}}}
              - mask: '::ffff:ffff:ffff:ffff'
                solver: {ipPool: {poolRef: {kind: GlobalInClusterIPPool, name: hosts}}}";
    let mut scene = Scene::new(source, "{}").pool("hosts", Family::V6);
    scene.settle();
    let claim = crate::externalip::claims::name("web", Family::V6, &pool("hosts"));
    scene.bind(&claim, "fd00::25");
    scene.settle();
    assert_eq!(scene.list(), ["2001:db8:0:1::25"]);
    let steps = |scene: &Scene| scene.plan().steps;
    scene.delete_claim(&claim);
    let first = steps(&scene);
    assert!(!first.iter().any(|step| matches!(step, Step::FreeClaim { .. })), "{first:?}");
    scene.apply_all(first);
    assert_eq!(scene.list(), Vec::<&str>::new());
    assert!(steps(&scene).iter().any(|step| matches!(step, Step::FreeClaim { .. })));
}

#[test]
fn without_a_source_claims_stay_for_the_grace_and_go_with_it() {
    let mut scene = bound(POOL);
    scene.source = None;
    scene.memory.source_missing = Some(scene.now.instant);
    scene.settle();
    assert_eq!((scene.list(), names(&scene)), (vec!["203.0.113.7"], vec![CLAIM]));
    scene.wait(300);
    assert_eq!((scene.list(), names(&scene)), (vec![], vec![]));
}
