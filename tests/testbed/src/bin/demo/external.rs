//! What is shown of Services that get their public addresses by themselves.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testbed::{Sample, eventually};

use crate::stage::{Stage, say};

const SERVICES: &str = "custom-columns-file=config/samples/services.columns";
/// Far more than the TTL.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn tell(stage: &Stage) -> Result<()> {
    addresses_follow_a_name(stage).await?;
    addresses_from_a_pool(stage).await?;
    other_outputs(stage).await?;
    what_fails_says_why(stage).await
}

async fn addresses_follow_a_name(stage: &Stage) -> Result<()> {
    stage.title(
        "Services get public addresses",
        "A source says how addresses are found, a Service names it. Its own entry of externalIPs stays what it is.",
    );
    stage.apply("externalip.yaml").await?;
    stage.show("get clusterexternalipsources public").await?;
    stage.show(&format!("get service -n team-web shop -o {SERVICES}")).await?;
    say("The name moves to another address. It is asked again when the TTL of five seconds is over, and not before.");
    stage.names.set(Sample::NAME, Sample::TTL, &["198.51.100.17", "2001:db8::7"])?;
    let begin = Instant::now();
    eventually(PATIENCE, async || {
        let shown = stage.output("get service -n team-web shop -o jsonpath={.spec.externalIPs}").await?;
        ensure!(shown.contains("198.51.100.17"), "{shown}");
        Ok(())
    })
    .await?;
    let took = begin.elapsed().as_secs_f32();
    stage.show(&format!("get service -n team-web shop -o {SERVICES}")).await?;
    say(&format!("From the change of the record to that of the Service: {took:.1} s."));
    stage.show("events -n team-web --for service/shop").await
}

async fn addresses_from_a_pool(stage: &Stage) -> Result<()> {
    stage.title(
        "An address for each Service, from a pool",
        "The source draws from a pool by a claim that the Service owns: one allocator for machines and Services.",
    );
    stage.apply("externalip-pool.yaml").await?;
    stage.show(&format!("get service -n team-web api -o {SERVICES}")).await?;
    stage.show("get ipaddressclaims -n team-web -o custom-columns-file=config/samples/claims.columns").await?;
    say("The Service goes: its claim follows, and the address is free again.");
    stage.run("delete service -n team-web api").await?;
    eventually(PATIENCE, async || {
        let free = stage.output("get globalinclusterippool public-v4 -o jsonpath={.status.ipAddresses.free}").await?;
        ensure!(free == "5", "{free} are free");
        Ok(())
    })
    .await?;
    stage.show("get globalinclusterippool public-v4").await
}

async fn other_outputs(stage: &Stage) -> Result<()> {
    stage.title(
        "Other places for an address, and parts of one",
        "The status of a load balancer of our class; the annotation of external-dns; a prefix that changes, with a fixed host part.",
    );
    for name in ["externalip-outputs.yaml", "externalip-merge.yaml"] {
        stage.apply(name).await?;
    }
    stage.show(&format!("get services -n team-web edge blog camera -o {SERVICES}")).await
}

async fn what_fails_says_why(stage: &Stage) -> Result<()> {
    stage.title("What gets no address says why", "A name that points to a private address, and a source that does not exist.");
    stage.apply("externalip-refused.yaml").await?;
    stage.show(&format!("get services -n team-web intranet typo -o {SERVICES}")).await?;
    stage.show("get clusterexternalipsources inside -o wide").await?;
    stage.show("events -n team-web --types=Warning").await
}
