//! What a claim says of itself, and when.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, pin_mut};
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::{Value, json};
use testbed::{Counts, Pool, QUIET, Scene, conditions_of, eventually, ready_of};

use crate::conformance;
use crate::fixture::{Conformance, Fixture, Mode, except};

pub fn trials() -> Vec<Conformance> {
    let mut trials = conformance![
        a_claim_is_published_in_one_write_and_was_never_false,
        an_exhausted_claim_says_so_until_there_is_room,
        conditions_of_others_are_kept,
        a_claim_made_in_the_old_version_is_served,
    ];
    // Webhooks refuse what these need: broken pools, or pools that lose what is in use.
    let refused = conformance![a_claim_says_what_is_wrong_with_its_pool];
    trials.extend(except(&[Mode::Webhooks], refused));
    trials
}

/// All versions of a claim since `version` of the list, until one refers to an address.
async fn versions(scene: &Scene, claim: &str, version: &str) -> Result<Vec<DynamicObject>> {
    let params = WatchParams::default().fields(&format!("metadata.name={claim}"));
    let stream = scene.api("IPAddressClaim").watch(&params, version).await?;
    pin_mut!(stream);
    let mut versions = Vec::new();
    while let Some(event) = stream.next().await {
        let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event? else { bail!("no version of the claim") };
        versions.push(object);
        if versions.last().is_some_and(is_bound) {
            return Ok(versions);
        }
    }
    bail!("the watch ended")
}

fn is_bound(claim: &DynamicObject) -> bool {
    claim.data["status"]["addressRef"]["name"].is_string()
}

/// Line 6: `addressRef` and both flavours appear together; before that, nothing.
async fn a_claim_is_published_in_one_write_and_was_never_false(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("once").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    let list = scene.api("IPAddressClaim").list(&ListParams::default().limit(1)).await?;
    let since = list.metadata.resource_version.context("a list without version")?;
    for number in 0..5 {
        let claim = format!("web-{number}");
        scene.claim_address(&claim, &pool).await?;
        let versions = versions(&scene, &claim, &since).await?;
        let (latest, before) = versions.split_last().context("no versions")?;
        for version in before {
            ensure!(version.data.get("status").is_none_or(|status| *status == json!({})), "{:?}", version.data);
        }
        let ready = ready_of(latest, scene.capi_version)?.context("bound, but not Ready")?;
        let message = format!("allocated 10.0.0.{}/24", 10 + number);
        // The legacy flavour, which is all that an old release keeps, has neither reason nor message of what is true.
        let said = if fixture.mode == Mode::V1Beta1 { ["True", "", ""] } else { ["True", "AddressAllocated", &message] };
        assert_eq!([&*ready.status, &*ready.reason, &*ready.message], said);
        let legacy = &conditions_of(latest, scene.capi_version).1[0];
        let fields: Vec<&String> = legacy.as_object().context("no legacy condition")?.keys().collect();
        assert_eq!(fields, ["lastTransitionTime", "status", "type"]);
    }
    Ok(())
}

/// Line 7: claim, pool and metric; all turn after room appears.
async fn an_exhausted_claim_says_so_until_there_is_room(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("exhausted").await?;
    let pool = scene.pool("small", "{addresses: [10.0.0.10], prefix: 24}").await?;
    scene.claim_address("first", &pool).await?;
    scene.claim("second", &pool).await?;
    scene.tells("second", "PoolExhausted", &["InClusterIPPool small", "total 1, used 1"]).await?;
    let ready = scene.ready("second").await?.context("no Ready")?;
    assert_eq!(ready.severity.as_deref(), Some("Warning"));
    let exhausted = async |status: &str| {
        let object = scene.api(pool.kind).get(&pool.name).await?;
        let conditions = object.data["status"]["conditions"].as_array().context("no conditions")?;
        let condition = conditions.iter().find(|condition| condition["type"] == "Exhausted").context("no such condition")?;
        ensure!(condition["status"] == status, "{condition}");
        Ok(())
    };
    eventually(Duration::from_secs(30), async || exhausted("True").await).await?;
    let waiting = async |count: usize| {
        let labels =
            format!("ipam_pool_waiting_claims{{kind=\"{}\",namespace=\"{}\",name=\"small\"}}", pool.kind, scene.namespace);
        for manager in &fixture.managers {
            let metrics = manager.metrics()?;
            ensure!(metrics.contains(&format!("{labels} {count}.0\n")), "no {labels} {count}.0");
        }
        Ok(())
    };
    eventually(Duration::from_secs(30), async || waiting(1).await).await?;
    // A state that lasts is written once.
    if fixture.mode == Mode::Single {
        scene.untouched("IPAddressClaim", "second").await?;
    }
    scene.patch(pool.kind, "small", &json!({"spec": {"addresses": ["10.0.0.10-10.0.0.12"]}})).await?;
    assert_eq!(scene.address("second").await?, "10.0.0.11");
    scene.ready_becomes("second", "True", "AddressAllocated").await?;
    eventually(Duration::from_secs(30), async || exhausted("False").await).await?;
    eventually(Duration::from_secs(30), async || waiting(0).await).await?;
    scene.counts_become(&pool, Counts { total: 3, used: 2, free: 1, out_of_range: 0 }).await
}

/// Row 12: absent, without anything to give, invalid.
async fn a_claim_says_what_is_wrong_with_its_pool(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("poortalk").await?;
    let absent = Pool { kind: "GlobalInClusterPrefixPool", name: format!("none-{}", scene.namespace) };
    scene.claim("absent", &absent).await?;
    let nothing = scene.pool("nothing", "{addresses: [10.0.0.0/31], prefix: 31}").await?;
    scene.claim("nothing", &nothing).await?;
    let mixed = scene.pool("mixed", "{addresses: [10.0.0.10, 'fd00::1'], prefix: 24}").await?;
    scene.claim("mixed", &mixed).await?;
    let garbage = scene.pool("garbage", "{addresses: ['10.0.0.300'], prefix: 24}").await?;
    scene.claim("garbage", &garbage).await?;
    let empty = scene.pool("empty", "{addresses: [], prefix: 24}").await?;
    scene.claim("empty", &empty).await?;
    for (claim, words) in [
        ("absent", &["GlobalInClusterPrefixPool none-", "does not exist"][..]),
        ("nothing", &["InClusterIPPool nothing"]),
        ("mixed", &["InClusterIPPool mixed: invalid spec: spec.addresses", "famil"]),
        ("garbage", &["invalid spec: spec.addresses", "10.0.0.300"]),
        ("empty", &["invalid spec: spec.addresses"]),
    ] {
        scene.tells(claim, "PoolNotReady", words).await?;
        assert!(scene.get("IPAddress", claim).await?.is_none());
    }
    // Another pool is not stopped by these, and they are served once they are repaired.
    let blue = scene.pool("blue", "{addresses: [10.0.0.10], prefix: 24}").await?;
    assert_eq!(scene.claim_address("web", &blue).await?, "10.0.0.10");
    for pool in [&nothing, &mixed, &garbage, &empty] {
        scene.patch(pool.kind, &pool.name, &json!({"spec": {"addresses": ["10.0.0.10"], "prefix": 24}})).await?;
        assert_eq!(scene.address(&pool.name).await?, "10.0.0.10");
        scene.ready_becomes(&pool.name, "True", "AddressAllocated").await?;
    }
    Ok(())
}

/// Other controllers may keep conditions of their own on a claim.
async fn conditions_of_others_are_kept(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("others").await?;
    let spec = "{addresses: [10.0.0.10], prefix: 24}";
    let pool = scene.annotated_pool("InClusterIPPool", "blue", "cluster.x-k8s.io/paused", "", spec).await?;
    scene.claim("web", &pool).await?;
    scene.no_address("web", QUIET).await?;
    let time = "2026-01-31T10:00:00Z";
    let new = json!({"type": "Mine", "status": "True", "reason": "Because", "message": "", "lastTransitionTime": time});
    let legacy =
        json!({"type": "MineToo", "status": "False", "severity": "Info", "reason": "Because", "lastTransitionTime": time});
    // An old release keeps the legacy flavour only.
    let old = fixture.mode == Mode::V1Beta1;
    let status = if old {
        json!({"conditions": [legacy]})
    } else {
        json!({"conditions": [new], "deprecated": {"v1beta1": {"conditions": [legacy]}}})
    };
    let status = json!({ "status": status });
    let patch = kube::api::Patch::Merge(&status);
    scene.api("IPAddressClaim").patch_status("web", &kube::api::PatchParams::default(), &patch).await?;
    scene.annotate(pool.kind, "blue", "cluster.x-k8s.io/paused", None).await?;
    scene.ready_becomes("web", "True", "AddressAllocated").await?;
    let claim = scene.api("IPAddressClaim").get("web").await?;
    let has = |conditions: &Value, wanted: &Value| conditions.as_array().is_some_and(|all| all.contains(wanted));
    let (news, legacies) = conditions_of(&claim, scene.capi_version);
    ensure!((old || has(news, &new)) && has(legacies, &legacy), "{}", claim.data["status"]);
    Ok(())
}

async fn a_claim_made_in_the_old_version_is_served(fixture: &Fixture) -> Result<()> {
    let scene = fixture.scene("oldreader").await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    // The definitions here have no conversion, so a reader of the old version sees the stored fields that it knows.
    scene.in_v1beta1().claim("web", &pool).await?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    scene.ready_becomes("web", "True", "AddressAllocated").await?;
    assert_eq!(scene.in_v1beta1().address("web").await?, "10.0.0.10");
    Ok(())
}
