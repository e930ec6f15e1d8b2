//! What the API server refuses, warns of and completes when it asks a manager's webhooks. Nothing here calls the manager itself.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use kube::ResourceExt;
use kube::core::Status;
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, Manager, ManagerCommand, Options, Pool, QUIET, Scene, Webhooks, eventually};

use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![
        what_breaks_a_rule_is_refused_with_its_cause,
        what_is_allowed_is_admitted_and_warned_of,
        what_is_in_use_is_kept,
        pools_from_before_the_webhooks_can_be_paused_and_removed,
    ]
}

const PATIENCE: Duration = Duration::from_secs(30);
const GOOD: &str = "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}";
const GOOD_PREFIXES: &str = "{prefixes: ['fd00::/62']}";
const SKIP: &str = "ipam.cluster.x-k8s.io/skip-validate-delete-webhook";
const FOR_MOVE: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";
const PAUSED: &str = "cluster.x-k8s.io/paused";

/// A manager whose webhooks the API server asks, and a namespace.
pub struct Stage {
    // Dropped in this order: the manager before the server it talks to.
    pub manager: Manager,
    pub scene: Scene,
    pub control_plane: ControlPlane,
}

impl Stage {
    pub async fn start(flags: &[&str]) -> Result<Self> {
        let control_plane = ControlPlane::start(Options { audit: true, ..Options::default() })?;
        let command = flags.iter().fold(command(), |command, flag| command.arg(*flag));
        let (_, manager) = Webhooks::serve(&control_plane, &command)?;
        let scene = Scene::create(control_plane.client().await?, "admission", CapiCrds::Newest).await?;
        Ok(Self { manager, scene, control_plane })
    }

    /// Applies a pool as a person does; returns what kubectl warns of.
    fn apply(&self, kind: &str, name: &str, spec: &str) -> Result<String> {
        let namespace = &self.scene.namespace;
        let yaml = format!(
            "{{apiVersion: ipam.cluster.x-k8s.io/v1alpha2, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
             spec: {spec}}}"
        );
        Ok(self.control_plane.apply_by_hand(&yaml)?.1)
    }
}

pub fn command() -> ManagerCommand {
    ManagerCommand::new(env!("CARGO_BIN_EXE_manager"))
}

/// The API server's refusal of what was tried.
fn refusal<T>(tried: Result<T>) -> Result<Box<Status>> {
    let Err(error) = tried else { bail!("it was admitted") };
    match error.downcast::<kube::Error>() {
        Ok(kube::Error::Api(status)) => Ok(status),
        other => Err(anyhow!("no refusal: {other:?}")),
    }
}

/// A refusal of a broken rule: the code, the cause's field, and the words in it.
fn assert_cause<T>(tried: Result<T>, field: &str, words: &str) -> Result<()> {
    let status = refusal(tried).with_context(|| format!("expected {field}: {words}"))?;
    let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
    let told = causes.iter().any(|cause| cause.field == field && cause.message.contains(words));
    ensure!(status.code == 422 && status.reason == "Invalid" && told, "not {field}: {words}, but {status:?}");
    Ok(())
}

/// A refusal of what would take something away that is in use.
fn assert_refused<T>(tried: Result<T>, words: &str) -> Result<()> {
    let status = refusal(tried).with_context(|| format!("expected {words}"))?;
    ensure!(status.code == 400 && status.reason == "BadRequest", "{status:?}");
    ensure!(status.message.contains("denied the request") && status.message.contains(words), "not {words}, but {status:?}");
    Ok(())
}

/// W5 on creation and on update, both kinds; W7, both kinds.
async fn what_breaks_a_rule_is_refused_with_its_cause() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let scene = &stage.scene;
    let (addresses, prefixes, gateway) = ("spec.addresses", "spec.prefixes", "spec.gateway");
    let excluded = "spec.excludedAddresses";
    let other_subnet = "belongs to a different subnet";
    let no_address = "provided address is not a valid IP, range, nor CIDR";
    let good = scene.ip_pools("good", GOOD).await?;
    for (spec, field, words) in [
        ("{addresses: [], prefix: 24}", addresses, "addresses is required"),
        ("{addresses: [10.0.0.10], prefix: 24, gateway: invalid}", gateway, r#"ParseAddr("invalid"): unable to parse IP"#),
        ("{addresses: [10.0.0.10, 10.0.1.10], prefix: 24}", addresses, other_subnet),
        ("{addresses: [10.0.1.10, 10.0.0.10-10.0.0.20], prefix: 24}", addresses, other_subnet),
        ("{addresses: [10.0.0.10, 10.0.0.250-10.0.1.5], prefix: 24}", addresses, other_subnet),
        ("{addresses: [10.0.0.10, 10.0.1.0/25], prefix: 24}", addresses, other_subnet),
        ("{addresses: [10.0.0.10, 10.0.0.0/23], prefix: 24}", addresses, other_subnet),
        ("{addresses: [nonsense], prefix: 24}", addresses, no_address),
        ("{addresses: [10.0.0.20-10.0.0.10], prefix: 24}", addresses, no_address),
        ("{addresses: [10.0.0.0/33], prefix: 24}", addresses, no_address),
        ("{addresses: [10.0.0.10], prefix: 33}", "spec.prefix", "provided prefix is not valid"),
        ("{addresses: [10.0.0.10], prefix: 24, gateway: 'fd00::1'}", gateway, "mixed IP families"),
        ("{addresses: ['fd00::10'], prefix: 120, gateway: 10.0.0.1}", gateway, "mixed IP families"),
        ("{addresses: [10.0.0.10, 'fd00::10'], prefix: 24}", addresses, "provided addresses are of mixed IP families"),
        ("{addresses: [10.0.0.10], prefix: 24, excludedAddresses: [10.0.0.11, 'fd00::1']}", excluded, "mixed IP families"),
        (
            "{addresses: [10.0.0.10], prefix: 24, excludedAddresses: ['fd00::1']}",
            excluded,
            "addresses and excluded addresses are of mixed IP families",
        ),
        // The schema refuses these before any webhook is asked.
        ("{addresses: [10.0.0.10]}", "spec.prefix", "Required value"),
        ("{addresses: [10.0.0.10], prefix: -1}", "spec.prefix", "greater than or equal to 0"),
        ("{addresses: [10.0.0.10], prefix: 9999}", "spec.prefix", "less than or equal to 128"),
        (
            "{addresses: [10.0.0.10], prefix: 24, addressReuseGracePeriodSeconds: -1}",
            "spec.addressReuseGracePeriodSeconds",
            "greater than or equal to 0",
        ),
    ] {
        assert_cause(scene.pool("bad", spec).await, field, words)?;
        assert_cause(scene.global_pool("bad", spec).await, field, words)?;
        for pool in good.iter().filter(|_| words != "Required value") {
            assert_cause(scene.respec(pool, spec).await, field, words)?;
        }
    }
    for (spec, field, words) in [
        ("{prefixes: []}", prefixes, "prefixes is required"),
        ("{prefixes: ['fd00::1']}", prefixes, "provided entry is not a valid IPv6 CIDR"),
        ("{prefixes: ['fd00::1/62']}", prefixes, "CIDR must be network-aligned"),
        ("{prefixes: ['fd00::/65']}", prefixes, "CIDR prefix length must be <= allocationPrefixLength (64)"),
        ("{prefixes: [10.0.0.0/24]}", prefixes, "only IPv6 prefixes are supported"),
        ("{prefixes: ['fd00::/62'], gateway: 10.0.0.1}", gateway, "provided gateway must be IPv6"),
        ("{prefixes: ['fd00::/62'], excludedPrefixes: [10.0.0.0/24]}", "spec.excludedPrefixes", "only IPv6 excluded prefixes"),
    ] {
        assert_cause(scene.prefix_pool("bad", spec).await, field, words)?;
        assert_cause(scene.global_prefix_pool("bad", spec).await, field, words)?;
    }

    // All at once, in kubectl's words.
    let spec = "{addresses: [nonsense], prefix: 24, gateway: invalid, excludedAddresses: [10.0.0.0/33]}";
    let told = format!("{:#}", stage.apply("InClusterIPPool", "bad", spec).err().context("it was admitted")?);
    for line in [
        r#"The InClusterIPPool "bad" is invalid"#,
        r#"* spec.addresses: Invalid value: "nonsense": provided address is not a valid IP, range, nor CIDR"#,
        r#"* spec.gateway: Invalid value: "invalid": ParseAddr("invalid"): unable to parse IP"#,
        r#"* spec.excludedAddresses: Invalid value: "10.0.0.0/33": provided address is not a valid IP"#,
    ] {
        ensure!(told.contains(line), "{line} is not in: {told}");
    }
    Ok(())
}

/// W4, W6, W8, W13 and line 17.
async fn what_is_allowed_is_admitted_and_warned_of() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let scene = &stage.scene;
    let mut pools = Vec::new();
    for (name, spec) in [
        ("singles", "{addresses: [10.0.0.25, 10.0.0.26, 10.0.0.27], prefix: 24, gateway: 10.0.0.1}"),
        ("no-gateway", "{addresses: [10.0.0.25, 10.0.0.26], prefix: 24}"),
        ("excluded", "{addresses: [10.0.0.25], prefix: 24, gateway: 10.0.0.1, excludedAddresses: [10.0.0.26, 10.0.1.0/24]}"),
        ("six", "{addresses: ['fe80::10', 'fe80::13-fe80::14', 'fe80::20/126'], prefix: 64, gateway: 'fe80::1'}"),
        ("six-no-gateway", "{addresses: ['fe80::10', 'fe80::13-fe80::14'], prefix: 64}"),
        ("six-excluded", "{addresses: ['fe80::10/124'], prefix: 64, excludedAddresses: ['fe80::12']}"),
        ("grace", "{addresses: [10.0.0.25], prefix: 24, addressReuseGracePeriodSeconds: 60}"),
        ("zero", "{addresses: [10.0.0.25], prefix: 0}"),
    ] {
        pools.extend(scene.ip_pools(name, spec).await?);
    }
    let lengths = ["", ", allocationPrefixLength: 56", ", allocationPrefixLength: 96", ", allocationPrefixLength: 128"];
    for (number, length) in lengths.iter().enumerate() {
        let spec = format!("{{prefixes: ['fd00:{number}::/48', 'fd10:{number}::/48']{length}}}");
        pools.extend(scene.prefix_pools(&format!("blocks-{number}"), &spec).await?);
    }
    for pool in &pools {
        scene.annotate(pool.kind, &pool.name, "example.com/owner", Some("network")).await?;
        scene.delete(pool.kind, &pool.name).await?;
        scene.pool_gone(pool).await?;
    }

    let hosts = "behaves like host-address allocation";
    let spec = |gateway: &str| format!("{{prefixes: ['fd00::/64'], allocationPrefixLength: 128, gateway: '{gateway}'}}");
    for (kind, name) in [("InClusterPrefixPool", "hosts"), ("GlobalInClusterPrefixPool", "hosts")] {
        for gateway in ["fd00::1", "fd00::2"] {
            let told = stage.apply(kind, name, &spec(gateway))?;
            ensure!(told.contains("Warning: ") && told.contains(hosts) && told.contains("is not reserved"), "{told}");
        }
    }
    let told = stage.apply("InClusterPrefixPool", "blocks", "{prefixes: ['fd01::/48'], gateway: 'fd02::1'}")?;
    ensure!(!told.contains("Warning"), "{told}");

    let told = stage.apply("InClusterIPPool", "pair", "{addresses: [10.0.9.0/31], prefix: 31}")?;
    ensure!(told.contains("Warning: this pool has nothing to allocate"), "{told}");
    let pair = Pool { kind: "InClusterIPPool", name: "pair".to_owned() };
    scene.condition_becomes(&pair, "Ready", "False", "NoAllocatableAddresses").await?;
    scene.claim("first", &pair).await?;
    scene.ready_becomes("first", "False", "PoolNotReady").await?;
    let spec = "{addresses: [10.0.9.0/31], prefix: 31, allocateReservedIPAddresses: true}";
    let told = stage.apply("InClusterIPPool", "pair", spec)?;
    ensure!(!told.contains("Warning"), "{told}");
    assert_eq!(scene.address("first").await?, "10.0.9.0");
    assert_eq!(scene.claim_address("second", &pair).await?, "10.0.9.1");
    Ok(())
}

/// W1, W2, W3, W9 to W12, and the annotation of a move.
async fn what_is_in_use_is_kept() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let scene = &stage.scene;
    let lost = "pool addresses do not contain allocated addresses: [10.0.0.10-10.0.0.10]";
    for pool in scene.ip_pools("blue", GOOD).await? {
        let claim = format!("{}-claim", pool.kind.to_lowercase());
        assert_eq!(scene.claim_address(&claim, &pool).await?, "10.0.0.10");
        for spec in ["{addresses: [10.0.0.11-10.0.0.20]}", "{excludedAddresses: [10.0.0.8/29]}", "{gateway: 10.0.0.10}"] {
            assert_refused(scene.respec(&pool, spec).await, lost)?;
        }
        scene.respec(&pool, "{addresses: [10.0.0.10-10.0.0.12], excludedAddresses: [10.0.0.12], gateway: 10.0.0.11}").await?;
        goes_only_when_it_is_free(scene, &pool, &claim).await?;
    }
    let lost = "existing allocations become non-allocatable: [fd00::]";
    for pool in scene.prefix_pools("blue", GOOD_PREFIXES).await? {
        let claim = format!("{}-claim", pool.kind.to_lowercase());
        assert_eq!(scene.claim_address(&claim, &pool).await?, "fd00::");
        for spec in ["{prefixes: ['fd00:0:0:2::/63']}", "{excludedPrefixes: ['fd00::1234']}"] {
            assert_refused(scene.respec(&pool, spec).await, lost)?;
        }
        let longer = scene.respec(&pool, "{allocationPrefixLength: 96}").await;
        assert_refused(longer, "spec.allocationPrefixLength is immutable")?;
        scene.respec(&pool, "{excludedPrefixes: ['fd00:0:0:3::/64'], gateway: 'fd00::1'}").await?;
        goes_only_when_it_is_free(scene, &pool, &claim).await?;
    }
    for (name, key) in [("skip", SKIP), ("move", FOR_MOVE)] {
        for pool in [scene.pool(name, GOOD).await?, scene.prefix_pool(name, GOOD_PREFIXES).await?] {
            let claim = format!("{name}-{}", pool.kind.to_lowercase());
            scene.claim_address(&claim, &pool).await?;
            scene.annotate(pool.kind, &pool.name, key, Some("")).await?;
            scene.delete(pool.kind, &pool.name).await?;
            if key == SKIP {
                // It is on its way out, so nothing about it is checked any more; and it still waits for its address.
                scene.respec(&pool, "{addresses: [nonsense], prefixes: [nonsense]}").await?;
                scene.stays(pool.kind, &pool.name, QUIET).await?;
                scene.delete("IPAddressClaim", &claim).await?;
                scene.pool_gone(&pool).await?;
            }
        }
    }
    Ok(())
}

/// Refused while an address exists, admitted after.
async fn goes_only_when_it_is_free(scene: &Scene, pool: &Pool, claim: &str) -> Result<()> {
    assert_refused(scene.delete(pool.kind, &pool.name).await, "Pool has IPAddresses allocated: 1 of them")?;
    scene.delete("IPAddressClaim", claim).await?;
    scene.gone("IPAddressClaim", claim).await?;
    // The claim may be gone a moment before the manager's watch shows that its address is.
    eventually(PATIENCE, async || scene.delete(pool.kind, &pool.name).await).await?;
    scene.pool_gone(pool).await
}

/// Line 16: pools that the webhooks would not admit now.
async fn pools_from_before_the_webhooks_can_be_paused_and_removed() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default())?;
    let webhooks = Webhooks::create(&control_plane)?;
    webhooks.certify()?;
    let _manager = webhooks.of(&command()).start(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "before", CapiCrds::Newest).await?;

    let invalid = scene.ip_pools("invalid", "{addresses: [nonsense], prefix: 24}").await?;
    for pool in &invalid {
        scene.condition_becomes(pool, "Ready", "False", "InvalidSpec").await?;
        let object = scene.api(pool.kind).get(&pool.name).await?;
        ensure!(!object.finalizers().is_empty(), "{object:?}");
    }
    let shrunk = scene.ip_pools("shrunk", GOOD).await?;
    for pool in &shrunk {
        scene.claim_address(&format!("{}-1", pool.kind.to_lowercase()), pool).await?;
        scene.respec(pool, "{addresses: [10.0.0.15-10.0.0.20]}").await?;
    }

    webhooks.register(&control_plane)?;
    webhooks.wait_until_asked(&control_plane)?;
    for pool in &shrunk {
        for (key, value) in [("example.com/owner", Some("network")), (PAUSED, Some("")), (PAUSED, None)] {
            scene.annotate(pool.kind, &pool.name, key, value).await?;
        }
        assert_eq!(scene.claim_address(&format!("{}-2", pool.kind.to_lowercase()), pool).await?, "10.0.0.15");
        // What is out already may stay out; what is in may not follow.
        let tried = scene.patch(pool.kind, &pool.name, &json!({"spec": {"addresses": ["10.0.0.16-10.0.0.20"]}})).await;
        assert_refused(tried, "pool addresses do not contain allocated addresses: [10.0.0.15-10.0.0.15]")?;
        scene.respec(pool, "{addresses: [10.0.0.15-10.0.0.16]}").await?;
    }
    for pool in &invalid {
        scene.delete(pool.kind, &pool.name).await?;
        scene.pool_gone(pool).await?;
    }
    Ok(())
}
