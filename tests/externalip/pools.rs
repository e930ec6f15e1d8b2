//! Addresses from pools: claimed for a Service, given back when it has let go of them, and never free while it still carries them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use rand::Rng;
use serde_json::json;
use testbed::trial::{Standalone, seeded};
use testbed::{Counts, eventually};

use crate::fixture::{OnShared, Setup, Stage};
use crate::history::{Change, History, addresses, always, external_ips};
use crate::spec::{fixed, pool, v4};
use crate::{audit, on_shared};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE_LABEL: &str = "externalip.spacebird.dev/service";
const PUBLISHED: &str = "externalip.spacebird.dev/published";

pub fn shared() -> Vec<OnShared> {
    on_shared![
        a_service_claims_an_address_and_gives_it_back_with_its_life,
        an_address_is_never_free_in_its_pool_while_a_service_carries_it,
        a_changed_pool_makes_before_it_breaks,
        an_exhausted_pool_is_told_and_left_for_the_next_solver_until_something_is_free,
        a_claim_of_somebody_else_with_our_name_is_not_touched,
        a_pool_that_comes_late_and_families_it_does_not_have,
    ]
}

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![
        a_thousand_services_get_a_thousand_addresses_though_managers_are_killed,
        wherever_a_manager_is_killed_no_address_is_free_while_a_service_carries_it,
    ]
}

/// The claims of a Service.
async fn claims(stage: &Stage, service: &str) -> Result<Vec<DynamicObject>> {
    let ours = ListParams::default().labels(&format!("{SERVICE_LABEL}={service}"));
    Ok(stage.api("IPAddressClaim").list(&ours).await?.items)
}

/// A14
async fn a_service_claims_an_address_and_gives_it_back_with_its_life(stage: &Stage) -> Result<()> {
    // The name of the specification's example, whose claims' names are known.
    const KIND: &str = "GlobalInClusterIPPool";
    const CLAIM: &str = "web-ext4-6aa21bf7";
    let blue =
        stage.annotated_pool(KIND, "public-v4", "example.com/of", "a trial", "{addresses: [203.1.14.1-203.1.14.4], prefix: 24}");
    let blue = blue.await?;
    let source = stage.source("public", &v4(&pool(&blue))).await?;
    stage.bound_service("web", &source, "{}").await?;
    let address = stage.address(CLAIM).await?;
    stage.publishes("web", &[&address]).await?;
    let record = stage.record("web").await?.context("no record")?;
    ensure!(record["addresses"] == json!({&address: "ipPool/GlobalInClusterIPPool/public-v4"}), "the record is {record}");

    let claim = stage.api("IPAddressClaim").get(CLAIM).await?;
    let service = stage.api("Service").get("web").await?;
    let owner = json!([{
        "apiVersion": "v1", "kind": "Service", "name": "web", "uid": service.uid(), "controller": true, "blockOwnerDeletion": false,
    }]);
    assert_eq!(serde_json::to_value(claim.owner_references())?, owner);
    assert_eq!(claim.labels().get(SERVICE_LABEL).map(String::as_str), Some("web"));
    ensure!(claim.finalizers().iter().any(|finalizer| finalizer == PUBLISHED), "{:?}", claim.finalizers());
    let expected = json!({"apiGroup": "ipam.cluster.x-k8s.io", "kind": KIND, "name": "public-v4"});
    assert_eq!(claim.data["spec"]["poolRef"], expected);

    stage.counts_become(&blue, Counts { total: 4, used: 1, free: 3, out_of_range: 0 }).await?;
    stage.delete("Service", "web").await?;
    stage.gone("IPAddressClaim", CLAIM).await?;
    stage.gone("IPAddress", CLAIM).await?;
    stage.counts_become(&blue, Counts { total: 4, used: 0, free: 4, out_of_range: 0 }).await
}

/// A16
async fn an_address_is_never_free_in_its_pool_while_a_service_carries_it(stage: &Stage) -> Result<()> {
    let blue = stage.pool("blue", "{addresses: [203.1.16.1-203.1.16.20], prefix: 24}").await?;
    let source = stage.source("public", &v4(&pool(&blue))).await?;
    let history = History::begin(stage, &["Service", "IPAddress"]).await?;
    let services = ["unbound", "unclaimed", "edited-unbound", "edited-unclaimed", "deleted"];
    let mut given = BTreeMap::new();
    for service in services {
        stage.bound_service(service, &source, "{spec: {externalIPs: [10.9.9.9]}}").await?;
        stage.service_says(service, "True", "Assigned").await?;
        given.insert(service, stage.external_ips(service).await?);
    }
    for service in services.into_iter().filter(|service| service.starts_with("edited")) {
        stage.write_record(service, "{\"v\": 1, \"nonsense\": true}").await?;
    }
    for service in services.into_iter().filter(|service| service.ends_with("unbound")) {
        stage.bind(service, None).await?;
    }
    for service in services.into_iter().filter(|service| service.ends_with("unclaimed")) {
        let claims = claims(stage, service).await?;
        ensure!(claims.len() == 1, "{service} has {} claims", claims.len());
        stage.delete("IPAddressClaim", &claims[0].name_any()).await?;
        // A new claim, so that the Service has an address again.
        eventually(PATIENCE, async || {
            let now = self::claims(stage, service).await?;
            let new = now.iter().any(|claim| claim.uid() != claims[0].uid() && claim.metadata.deletion_timestamp.is_none());
            ensure!(new && stage.external_ips(service).await?.len() == 2, "{service} has no new address yet");
            Ok(())
        })
        .await?;
    }
    stage.delete("Service", "deleted").await?;
    for service in ["unbound", "edited-unbound"] {
        stage.publishes(service, &["10.9.9.9"]).await?;
        eventually(PATIENCE, async || {
            let left = claims(stage, service).await?;
            ensure!(left.is_empty(), "{service} still has {left:?}");
            Ok(())
        })
        .await?;
    }
    eventually(PATIENCE, async || {
        let used = stage.counts(&blue).await?.map(|counts| counts.used);
        ensure!(used == Some(2), "{used:?} addresses are in use, not 2");
        Ok(())
    })
    .await?;
    never_free_while_carried(&history.end().await?, "203.1.16.")
}

/// Fails if at any time a Service carried an address of the pool, known by its beginning, that no object held.
fn never_free_while_carried(changes: &[Change], pool: &str) -> Result<()> {
    let freed = changes.iter().filter(|change| change.kind == "IPAddress" && change.object.is_none()).count();
    let carried = changes.iter().flat_map(|change| &change.object).filter(|object| {
        object.data["spec"]["externalIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with(pool)))
    });
    let carried = carried.count();
    ensure!(freed > 0 && carried > freed, "the history shows too little: {freed} addresses freed, {carried} times carried");
    always(changes, |world| {
        let held = addresses(world);
        let mut carried = external_ips(world).flat_map(|(name, list)| list.into_iter().map(move |entry| (name, entry)));
        match carried.find(|(_, entry)| entry.starts_with(pool) && !held.contains(entry)) {
            Some((name, entry)) => Err(format!("{name} carries {entry}, which nobody holds: {held:?}")),
            None => Ok(()),
        }
    })
}

/// A17
async fn a_changed_pool_makes_before_it_breaks(stage: &Stage) -> Result<()> {
    let blue = stage.pool("blue", "{addresses: [203.1.17.1], prefix: 24}").await?;
    let green = stage.pool("green", "{addresses: [203.1.17.129], prefix: 24}").await?;
    let source = stage.source("public", &v4(&pool(&blue))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["203.1.17.1"]).await?;
    stage.service_says("web", "True", "Assigned").await?;
    let old = claims(stage, "web").await?[0].name_any();
    let history = History::begin(stage, &["Service", "IPAddress", "IPAddressClaim"]).await?;
    let solver = json!({"ipPool": {"poolRef": {"kind": green.kind, "name": green.name}}});
    stage.patch("ClusterExternalIPSource", &source, &json!({"spec": {"ipv4": {"solvers": [solver]}}})).await?;
    stage.publishes("web", &["203.1.17.129"]).await?;
    stage.gone("IPAddressClaim", &old).await?;
    stage.gone("IPAddress", &old).await?;
    always(&history.end().await?, |world| {
        let all: Vec<_> = external_ips(world).collect();
        // The world is built up kind by kind, so there is a time before the Service.
        let bare = all.iter().any(|(_, list)| list.is_empty());
        let going = world.get(&("IPAddressClaim", old.clone())).is_none_or(|claim| claim.metadata.deletion_timestamp.is_some());
        let still = all.iter().any(|(_, list)| list.contains(&"203.1.17.1"));
        let built = world.keys().any(|(kind, _)| *kind == "IPAddressClaim");
        if bare || built && going && still { Err(format!("{all:?}, the old claim is going: {going}")) } else { Ok(()) }
    })?;
    stage.counts_become(&blue, Counts { total: 1, used: 0, free: 1, out_of_range: 0 }).await
}

/// A18
async fn an_exhausted_pool_is_told_and_left_for_the_next_solver_until_something_is_free(stage: &Stage) -> Result<()> {
    let small = stage.pool("small", "{addresses: [203.1.18.1], prefix: 24}").await?;
    let only = stage.source("only", &v4(&pool(&small))).await?;
    let fallback = stage.source("fallback", &v4(&[pool(&small), fixed("203.1.18.200")].join(", "))).await?;
    stage.bound_service("first", &only, "{}").await?;
    stage.publishes("first", &["203.1.18.1"]).await?;
    stage.bound_service("second", &fallback, "{}").await?;
    stage.publishes("second", &["203.1.18.200"]).await?;
    ensure!(claims(stage, "second").await?.len() == 1, "its claim does not wait any more");
    stage.bound_service("third", &only, "{}").await?;
    stage.service_says("third", "False", "PoolExhausted").await?;

    stage.delete("Service", "first").await?;
    stage.publishes("second", &["203.1.18.1"]).await?;
    // The pool's own order of waiting is what decides, so the third is next.
    stage.bind("second", None).await?;
    stage.is_released("second", &[]).await?;
    stage.publishes("third", &["203.1.18.1"]).await?;
    stage.service_says("third", "True", "Assigned").await?;
    Ok(())
}

/// A18
async fn a_claim_of_somebody_else_with_our_name_is_not_touched(stage: &Stage) -> Result<()> {
    let taken = stage.pool("taken", "{addresses: [203.1.18.129-203.1.18.140], prefix: 24}").await?;
    stage.claim_address("web-ext4-b6733dca", &taken).await?;
    let before = stage.api("IPAddressClaim").get("web-ext4-b6733dca").await?;
    let source = stage.source("public", &v4(&pool(&taken))).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.service_says("web", "False", "ClaimConflict").await?;
    stage.event("web", "ClaimConflict").await?;
    let after = stage.api("IPAddressClaim").get("web-ext4-b6733dca").await?;
    ensure!(before.resource_version() == after.resource_version(), "{before:?} became {after:?}");
    stage.bind("web", None).await?;
    stage.is_released("web", &[]).await?;
    ensure!(stage.get("IPAddressClaim", "web-ext4-b6733dca").await?.is_some(), "it was deleted");
    Ok(())
}

/// §4.7, §9: an absent pool is told of and awaited; no claim is made for a family that the Service or the pool does not have.
async fn a_pool_that_comes_late_and_families_it_does_not_have(stage: &Stage) -> Result<()> {
    let late = testbed::Pool { kind: "InClusterIPPool", name: "late".to_owned() };
    let spec = format!("{{ipv4: {{solvers: [{}]}}, ipv6: {{solvers: [{}]}}}}", pool(&late), pool(&late));
    let source = stage.source("public", &spec).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.service_says("web", "False", "PoolNotFound").await?;
    stage.pool("late", "{addresses: [203.1.9.1-203.1.9.4], prefix: 24}").await?;
    stage.service_says("web", "True", "Assigned").await?;
    ensure!(stage.external_ips("web").await?.len() == 1, "more than one address");
    stage.bound_service("both", &source, "{spec: {ipFamilyPolicy: RequireDualStack}}").await?;
    stage.service_says("both", "True", "Assigned").await?;
    let names: Vec<String> =
        stage.api("IPAddressClaim").list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(names.len() == 2 && names.iter().all(|name| name.contains("-ext4-")), "the claims are {names:?}");
    Ok(())
}

/// A15
async fn a_thousand_services_get_a_thousand_addresses_though_managers_are_killed() -> Result<()> {
    const SERVICES: usize = 1000;
    let stage = Stage::alone(Setup::default()).await?;
    let blue = stage.global_pool("blue", "{addresses: [203.2.0.0/21], prefix: 21}").await?;
    let source = stage.source("public", &v4(&pool(&blue))).await?;
    let names: Vec<String> = (0..SERVICES).map(|number| format!("web-{number}")).collect();
    let create = stream::iter(&names).map(|name| stage.bound_service(name, &source, "{}")).buffer_unordered(32);
    let all = create.try_collect::<()>();
    let kill = async {
        let mut random = seeded("a thousand services");
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(random.random_range(1500..4000))).await;
            stage.manager().restart()?;
        }
        anyhow::Ok(())
    };
    futures::try_join!(all, kill)?;
    eventually(Duration::from_secs(240), async || {
        let services = stage.api("Service").list(&ListParams::default()).await?.items;
        let lists = services.iter().map(|service| service.data["spec"]["externalIPs"].as_array().cloned().unwrap_or_default());
        let lists: Vec<_> = lists.collect();
        let with_one = lists.iter().filter(|list| list.len() == 1).count();
        ensure!(with_one == SERVICES, "{with_one} of {SERVICES} have one address\n{}", stage.manager().log_tail(20));
        let distinct: BTreeSet<&str> = lists.iter().flatten().filter_map(|entry| entry.as_str()).collect();
        ensure!(distinct.len() == SERVICES, "only {} of {SERVICES} addresses are distinct", distinct.len());
        Ok(())
    })
    .await?;
    let claims = stage.api("IPAddressClaim").list(&ListParams::default()).await?.items.len();
    ensure!(claims == SERVICES, "{claims} claims for {SERVICES} Services");
    audit::passes(&stage).await
}

/// §15: managers that are killed between any two steps of publishing and of letting go.
async fn wherever_a_manager_is_killed_no_address_is_free_while_a_service_carries_it() -> Result<()> {
    const SERVICES: usize = 30;
    const ROUNDS: usize = 6;
    let stage = Stage::alone(Setup::default()).await?;
    let blue = stage.pool("blue", "{addresses: [203.1.100.1-203.1.100.40], prefix: 24}").await?;
    let source = stage.source("public", &v4(&pool(&blue))).await?;
    let history = History::begin(&stage, &["Service", "IPAddress"]).await?;
    let names: Vec<String> = (0..SERVICES).map(|number| format!("web-{number}")).collect();
    for name in &names {
        stage.bound_service(name, &source, "{}").await?;
    }
    let mut random = seeded("killed at any step");
    for _ in 0..ROUNDS {
        for name in &names {
            match random.random_range(0..6) {
                0 => stage.bind(name, None).await?,
                1 | 2 => stage.bind(name, Some(&source)).await?,
                3 => {
                    for claim in claims(&stage, name).await? {
                        // It may have gone by itself.
                        let _ = stage.delete("IPAddressClaim", &claim.name_any()).await;
                    }
                }
                4 => stage.write_record(name, "edited").await?,
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(200..1200))).await;
        stage.manager().restart()?;
    }
    for name in &names {
        stage.bind(name, Some(&source)).await?;
    }
    eventually(Duration::from_secs(120), async || {
        for name in &names {
            let now = stage.external_ips(name).await?;
            let live = claims(&stage, name).await?.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()).count();
            ensure!(now.len() == 1 && live == 1, "{name} has {now:?} and {live} claims\n{}", stage.manager().log_tail(20));
        }
        Ok(())
    })
    .await?;
    for name in &names {
        stage.bind(name, None).await?;
    }
    stage.counts_become(&blue, Counts { total: 40, used: 0, free: 40, out_of_range: 0 }).await?;
    never_free_while_carried(&history.end().await?, "203.1.100.")
}
