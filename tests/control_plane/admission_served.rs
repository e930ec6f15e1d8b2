//! Webhooks as a service: what they do for claims, and what happens while they cannot answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, Options, Pool, Request, Scene, Webhooks, eventually};

use crate::admission::{Stage, command};
use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![
        a_claim_is_created_with_its_finalizer_and_costs_two_writes,
        without_a_manager_pools_are_refused_and_claims_wait,
        certificates_are_awaited_and_replaced_and_unknown_addresses_are_not_guessed,
    ]
}

const PATIENCE: Duration = Duration::from_secs(60);
const GOOD: &str = "{addresses: [10.0.0.10-10.0.0.60], prefix: 24}";
const RELEASE_ADDRESS: &str = "ipam.cluster.x-k8s.io/ReleaseAddress";

/// A claim as it was created; `more` is merged into its metadata.
async fn create(scene: &Scene, name: &str, group: &str, pool: &Pool, more: &str) -> Result<DynamicObject> {
    let reference = json!({"apiGroup": group, "kind": pool.kind, "name": pool.name});
    scene.object(&format!("{{kind: IPAddressClaim, metadata: {{name: {name}{more}}}, spec: {{poolRef: {reference}}}}}")).await
}

fn has_finalizer(claim: &DynamicObject) -> bool {
    claim.finalizers().iter().any(|finalizer| finalizer == RELEASE_ADDRESS)
}

async fn a_claim_is_created_with_its_finalizer_and_costs_two_writes() -> Result<()> {
    const OURS: &str = "ipam.cluster.x-k8s.io";
    let stage = Stage::start(&["--allocation-events=false"]).await?;
    let scene = &stage.scene;
    let writes = || -> Result<Vec<Request>> {
        let counts = |request: &Request| request.is_managers() && request.is_write() && request.uri.contains("/ipaddress");
        Ok(stage.control_plane.requests()?.into_iter().filter(counts).collect())
    };
    let [pool, global] = scene.ip_pools("blue", GOOD).await?;
    scene.up_to_date(&global).await?;

    let mut expected = 0;
    let mut completed = 0;
    for number in 0..12 {
        let speaker = if number % 2 == 0 { scene.clone() } else { scene.in_v1beta1() };
        let pool = if number % 3 == 0 { &global } else { &pool };
        let more = if number % 4 == 0 { ", finalizers: [example.com/machine]" } else { "" };
        let claim = create(&speaker, &format!("web-{number}"), OURS, pool, more).await?;
        ensure!(more.is_empty() || claim.finalizers()[0] == "example.com/machine", "{:?}", claim.finalizers());
        // On an overloaded machine the API server may not wait for an answer, and goes on without it.
        completed += usize::from(has_finalizer(&claim));
        expected += if has_finalizer(&claim) { 2 } else { 3 };
    }
    ensure!(completed > 0, "no claim was completed");
    for number in 0..12 {
        scene.address(&format!("web-{number}")).await?;
        scene.has_finalizer("IPAddressClaim", &format!("web-{number}"), RELEASE_ADDRESS).await?;
    }
    eventually(PATIENCE, async || {
        let writes = writes()?;
        ensure!(writes.len() == expected, "{} writes, not {expected}: {writes:?}", writes.len());
        Ok(())
    })
    .await?;

    let unknown = Pool { kind: "UnknownPool", name: "blue".to_owned() };
    let foreign = [
        create(scene, "paused", OURS, &pool, ", annotations: {cluster.x-k8s.io/paused: ''}").await?,
        create(scene, "group", "ipam.other.example", &pool, "").await?,
        create(scene, "kind", OURS, &unknown, "").await?,
    ];
    for claim in foreign {
        ensure!(claim.finalizers().is_empty(), "{claim:?}");
        scene.untouched("IPAddressClaim", &claim.name_any()).await?;
    }
    assert_eq!(writes()?.len(), expected);

    // Nobody asks after the Cluster at creation; the claim can go all the same while that is paused.
    scene.cluster("held", "{}", true).await?;
    let more = ", labels: {cluster.x-k8s.io/cluster-name: held}";
    create(scene, "held", OURS, &pool, more).await?;
    scene.delete("IPAddressClaim", "held").await?;
    scene.gone("IPAddressClaim", "held").await
}

/// Line 27.
async fn without_a_manager_pools_are_refused_and_claims_wait() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let scene = &stage.scene;
    let pool = scene.pool("blue", GOOD).await?;
    scene.up_to_date(&pool).await?;
    stage.manager.kill();

    let refused = scene.pool("green", GOOD).await.err().context("a pool was admitted by nobody")?;
    let text = format!("{refused:#}");
    ensure!(text.contains("failed calling webhook") && text.contains("inclusterippool.ipam.cluster.x-k8s.io"), "{text}");
    ensure!(scene.delete(pool.kind, &pool.name).await.is_err(), "a deletion was admitted by nobody");
    scene.claim("web", &pool).await?;
    let claim = scene.api("IPAddressClaim").get("web").await?;
    ensure!(claim.finalizers().is_empty(), "{claim:?}");

    stage.manager.restart()?;
    assert_eq!(scene.address("web").await?, "10.0.0.10");
    eventually(PATIENCE, async || scene.pool("green", GOOD).await.map(drop)).await
}

async fn certificates_are_awaited_and_replaced_and_unknown_addresses_are_not_guessed() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let webhooks = Webhooks::create(&control_plane)?;
    webhooks.register(&control_plane)?;
    // An account that may read nothing: its manager never knows which addresses a pool has.
    let kubeconfig = control_plane.kubeconfig_of("default", "default")?;
    let manager = webhooks.of(&command()).kubeconfig(kubeconfig).without_waiting().start(&control_plane)?;
    let pid = manager.pid();
    let scene = Scene::create(control_plane.client().await?, "served", CapiCrds::Newest).await?;
    let refused = async |words: &str| {
        eventually(PATIENCE, async || {
            let error = scene.pool("blue", GOOD).await.err().context("a pool was admitted")?;
            let text = format!("{error:#}");
            ensure!(text.contains(words), "not {words}, but {text}");
            Ok(())
        })
        .await
    };

    eventually(PATIENCE, async || {
        let (status, body) = manager.health("/readyz?verbose")?;
        let told = body.lines().any(|line| line.contains("webhook certificate") && line.contains("tls.crt"));
        ensure!(status != 200 && told, "{status}: {body}");
        Ok(())
    })
    .await?;
    refused("failed calling webhook").await?;
    webhooks.certify_by_a_stranger()?;
    refused("x509").await?;
    webhooks.certify()?;
    let pool = eventually(PATIENCE, async || scene.pool("blue", GOOD).await).await?;

    let error = scene.delete(pool.kind, &pool.name).await.err().context("the deletion was admitted")?;
    ensure!(format!("{error:#}").contains("address index is not synced yet, retry"), "{error:#}");
    let error = scene.respec(&pool, "{addresses: [10.0.0.50]}").await.err().context("the change was admitted")?;
    ensure!(format!("{error:#}").contains("address index is not synced yet, retry"), "{error:#}");
    scene.annotate(pool.kind, &pool.name, "example.com/owner", Some("network")).await?;
    assert_eq!(manager.pid(), pid);
    ensure!(manager.log().contains("the webhook certificate is loaded"), "{}", manager.log_tail(40));
    Ok(())
}
