//! Addresses of network interfaces: the whole trial, API server and all, runs in a network of its own, where it may make interfaces.

use std::env;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::eventually;
use testbed::trial::Standalone;

use crate::audit;
use crate::fixture::{Setup, Stage};
use crate::spec::v4;

const INSIDE: &str = "TESTBED_OWN_NETWORK";
const PATIENCE: Duration = Duration::from_secs(60);

pub fn standalone() -> Vec<Standalone> {
    testbed::standalone![only_lasting_public_addresses_of_an_interface_are_published_and_at_once]
}

/// Runs a trial of this program once more, in a network namespace with nothing but loopback.
fn in_own_network(trial: &str) -> Result<()> {
    let script = r#"ip link set lo up && exec "$0" --exact "$1""#;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "--", "sh", "-c", script])
        .arg(env::current_exe()?)
        .arg(trial)
        .env(INSIDE, "1")
        .output()
        .context("start unshare (package util-linux)")?;
    let [printed, said] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    ensure!(output.status.success(), "in a network of its own (it takes `ip`, package iproute2):\n{printed}\n{said}");
    ensure!(printed.contains("1 passed"), "the trial did not run: {printed}");
    Ok(())
}

fn ip(args: &str) -> Result<()> {
    let output = Command::new("ip").args(args.split(' ')).output().context("start ip (package iproute2)")?;
    ensure!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A37
async fn only_lasting_public_addresses_of_an_interface_are_published_and_at_once() -> Result<()> {
    if env::var_os(INSIDE).is_none() {
        return in_own_network("interface::only_lasting_public_addresses_of_an_interface_are_published_and_at_once");
    }
    ip("link add wan type veth peer name far")?;
    ip("link set far up")?;
    ip("link set wan up")?;
    // `nodad`: an address counts at once.
    ip("addr add 2001:db8:37::1/64 dev wan nodad")?;
    ip("addr add fd00:37::25/64 dev wan nodad")?;
    ip("addr add 2001:db8:37::66/64 dev wan nodad preferred_lft 0")?;
    ip("addr add 10.37.0.1/24 dev wan")?;
    // Brings a temporary address with it.
    std::fs::write("/proc/sys/net/ipv6/conf/wan/use_tempaddr", "2").context("let the interface have temporary addresses")?;
    ip("addr add 2001:db8:37:1::9/64 dev wan nodad mngtmpaddr")?;
    // The manager looks again by itself only after an hour: what it sees sooner it was told.
    let stage = Stage::alone(Setup::flags(&["--external-ip-interval=1h"])).await?;
    let named = "{interface: {name: wan}}";
    let source = stage.source("public", &format!("{{ipv6: {{queryMode: all, solvers: [{named}]}}}}")).await?;
    stage.bound_service("web", &source, "{}").await?;
    stage.publishes("web", &["2001:db8:37::1", "2001:db8:37:1::9"]).await?;
    // A host part may come from a private address.
    let parts = format!(
        "{{mask: 'ffff:ffff:ffff:ffff::', solver: {{static: {{addresses: ['2001:db8:99::']}}}}}}, \
         {{mask: '::ffff:ffff:ffff:ffff', solver: {named}}}"
    );
    let merged = stage.source("merged", &format!("{{ipv6: {{solvers: [{{merge: {{partialSolvers: [{parts}]}}}}]}}}}")).await?;
    stage.bound_service("merged", &merged, "{}").await?;
    stage.publishes("merged", &["2001:db8:99::25"]).await?;

    let four = stage.source("four", &v4(named)).await?;
    stage.bound_service("four", &four, "{}").await?;
    stage.service_says("four", "False", "AddressRefused").await?;
    ip("addr add 203.1.37.1/32 dev wan")?;
    stage.publishes("four", &["203.1.37.1"]).await?;
    ip("addr add 2001:db8:37::2/64 dev wan nodad")?;
    stage.publishes("web", &["2001:db8:37::1", "2001:db8:37::2", "2001:db8:37:1::9"]).await?;
    ip("addr del 2001:db8:37::1/64 dev wan")?;
    stage.publishes("web", &["2001:db8:37::2", "2001:db8:37:1::9"]).await?;

    let missing = stage.source("missing", &v4("{interface: {name: dmz}}")).await?;
    stage.bound_service("missing", &missing, "{}").await?;
    eventually(PATIENCE, async || {
        let object = stage.api("ClusterExternalIPSource").get(&missing).await?;
        let solver = &object.data["status"]["ipv4"]["solvers"][0];
        ensure!(solver["reason"] == "NoSuchInterface", "{}", object.data["status"]);
        Ok(())
    })
    .await?;
    ip("link add dmz type veth peer name dmz-far")?;
    ip("addr add 203.1.37.2/32 dev dmz")?;
    stage.publishes("missing", &["203.1.37.2"]).await?;
    audit::passes(&stage).await
}
