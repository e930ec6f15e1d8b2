//! What is shown, one screen per topic.

use anyhow::Result;

use crate::external;
use crate::stage::{Stage, say};

const CLAIMS: &str = "custom-columns-file=config/samples/claims.columns";
const POOLS: &str = "custom-columns-file=config/samples/pools.columns";
const ALL_POOLS: &str = "inclusterippools,globalinclusterippools,inclusterprefixpools,globalinclusterprefixpools";
/// The short name means a kind of Kubernetes' own since 1.31.
const ADDRESSES: &str = "ipaddresses.ipam.cluster.x-k8s.io";

pub async fn tell(stage: &Stage) -> Result<()> {
    claims_get_addresses(stage).await?;
    pools_for_everybody(stage).await?;
    providers_claim(stage).await?;
    what_waits_says_why(stage).await?;
    the_same_address_again(stage).await?;
    two_pools_over_one_range(stage).await?;
    external::tell(stage).await?;
    one_object_in_full(stage).await
}

async fn claims_get_addresses(stage: &Stage) -> Result<()> {
    stage.title(
        "Claims get addresses",
        "A pool, and three claims on it. The lowest free address goes first; what is excluded, and the gateway, never.",
    );
    let sample = stage.apply("ippool.yaml").await?;
    stage.show("get inclusterippools -n team-blue").await?;
    stage.show(&format!("get ipaddressclaims -n team-blue -o {CLAIMS}")).await?;
    stage.show(&format!("get {ADDRESSES} -n team-blue")).await?;
    stage.tell_binds(&[sample]).await
}

async fn pools_for_everybody(stage: &Stage) -> Result<()> {
    stage.title(
        "Pools for every namespace, and whole IPv6 prefixes",
        "Two claims of one name in two namespaces share a Global pool. Prefix pools give out blocks of a fixed length.",
    );
    let mut samples = Vec::new();
    for name in ["globalippool.yaml", "prefixpool.yaml", "globalprefixpool.yaml"] {
        samples.push(stage.apply(name).await?);
    }
    stage.show(&format!("get {ALL_POOLS} -A -o {POOLS}")).await?;
    stage.show(&format!("get {ADDRESSES} -A")).await?;
    stage.tell_binds(&samples).await
}

async fn providers_claim(stage: &Stage) -> Result<()> {
    const VM: &str = "prod-workers-x7k2p-0-0";
    stage.title(
        "Claims of vSphere and Metal3 machines",
        "Infrastructure providers own their claims, name the cluster, and keep a finalizer while the machine uses the address.",
    );
    let samples = [stage.apply("vsphere.yaml").await?, stage.apply("metal3.yaml").await?];
    stage
        .show(
            "get ipaddressclaims -A -l cluster.x-k8s.io/cluster-name -o custom-columns=\
             CLAIM:metadata.name,OWNER:metadata.ownerReferences[*].kind,ADDRESS:status.conditions[*].message,\
             FINALIZER:metadata.finalizers[0]",
        )
        .await?;
    stage.tell_binds(&samples).await?;
    say("The machine is to go: its claim is deleted, but its address stays taken while the provider's finalizer is there.");
    stage.run(&format!("delete ipaddressclaim -n vsphere {VM} --wait=false")).await?;
    stage.show(&format!("get {ADDRESSES} -n vsphere")).await?;
    say("The machine is gone, and the provider takes its finalizer away: the address is free again.");
    stage
        .run(&format!(
            r#"patch ipaddressclaim -n vsphere {VM} --type=json -p '[{{"op":"remove","path":"/metadata/finalizers/0"}}]'"#
        ))
        .await?;
    stage.binds.gone(&format!("vsphere/{VM}")).await?;
    stage.show(&format!("get {ADDRESSES} -n vsphere")).await
}

async fn what_waits_says_why(stage: &Stage) -> Result<()> {
    stage.title("What waits says why", "A full pool, a wish that cannot be had, a paused pool.");
    for name in ["exhausted.yaml", "requested.yaml", "paused.yaml"] {
        stage.apply(name).await?;
    }
    stage.show(&format!("get ipaddressclaims -n team-green -o {CLAIMS}")).await?;
    stage.show("events -n team-green --types=Warning").await?;
    say("One claim on the full pool goes, and the claim that has waited longest gets its address.");
    stage.run("delete ipaddressclaim -n team-green first").await?;
    let handed_on = stage.binds.bound("team-green/third").await? - stage.binds.deleted("team-green/first").await?;
    stage.show(&format!("get ipaddressclaim -n team-green third -o {CLAIMS}")).await?;
    say(&format!("From the deletion of the first claim to the address of the third: {} ms.", handed_on.as_millis()));
    Ok(())
}

async fn the_same_address_again(stage: &Stage) -> Result<()> {
    stage.title(
        "The same address again",
        "A sticky pool remembers what a claim had. node-0 goes, a newcomer gets another address, node-0 comes back to its own.",
    );
    stage.apply("sticky.yaml").await?;
    stage.run("delete ipaddressclaim -n team-green node-0").await?;
    stage.binds.gone("team-green/node-0").await?;
    let newcomer = "{apiVersion: ipam.cluster.x-k8s.io/v1beta2, kind: IPAddressClaim, \
                    metadata: {name: newcomer, namespace: team-green}, \
                    spec: {poolRef: {apiGroup: ipam.cluster.x-k8s.io, kind: InClusterIPPool, name: stable}}}";
    stage.command(&format!("apply -f - <<< '{newcomer}'"));
    stage.control_plane.apply(newcomer)?;
    stage.binds.bound("team-green/newcomer").await?;
    stage.run("apply -f config/samples/sticky.yaml").await?;
    stage.binds.bound("team-green/node-0").await?;
    stage.show(&format!("get {ADDRESSES} -n team-green node-0 node-1 newcomer")).await
}

async fn two_pools_over_one_range(stage: &Stage) -> Result<()> {
    stage.title(
        "Two pools over one range",
        "Overlapping pools are allowed, and say so. The laboratory is another network with the same numbers, by a label.",
    );
    stage.apply("overlap.yaml").await?;
    stage.show(&format!("get globalinclusterippools -o {POOLS}")).await?;
    stage.show("events -n default --types=Warning").await
}

async fn one_object_in_full(stage: &Stage) -> Result<()> {
    stage.title("One pool in full", "Numbers, conditions and events are on the object itself.");
    stage.show("describe inclusterippool -n team-green tiny").await?;
    say("The same for Prometheus, at /metrics:");
    let metrics = stage.manager.metrics()?;
    let shown = |line: &&str| line.contains("\"tiny\"") && (line.contains("_addresses{") || line.contains("_waiting_"));
    metrics.lines().filter(shown).take(3).for_each(|line| println!("    {line}"));
    Ok(())
}

/// What a reader may do now.
pub fn what_next(stage: &Stage) {
    const TRY: [(&str, &str); 7] = [
        ("get events -A --watch", "in a second terminal, to see what the rest does"),
        ("annotate inclusterippool -n team-green frozen cluster.x-k8s.io/paused-", "patient gets its address"),
        ("delete ipaddressclaim -n team-green ingress", "ingress-spare gets the address it asked for"),
        ("apply -f config/samples/grace.yaml", "an address that rests for five minutes after its release"),
        ("label globalinclusterippool west in-cluster.ipam.cluster.x-k8s.io/network-domain=west", "the overlap ends"),
        (
            "annotate service -n team-web shop externalip.spacebird.dev/cluster-external-ip-source-",
            "the Service keeps the address that is its own",
        ),
        ("delete inclusterippool -n team-blue machines --wait=false", "stays until its addresses are released"),
    ];
    stage.title("It stays up until Ctrl-C", "Point kubectl at it:");
    println!("\n    export KUBECONFIG={}", stage.control_plane.kubeconfig().display());
    println!("    alias kubectl={}", stage.kubectl.display());
    println!("\nTry next:\n");
    for (command, effect) in TRY {
        println!("    {}", stage.paint("2", &format!("# {effect}")));
        println!("    kubectl {command}");
    }
    println!("\nMetrics: curl {}/metrics", stage.manager.diagnostics_url());
}
