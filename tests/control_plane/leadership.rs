//! Two candidates for one lease: who writes, who takes over and when, and what a leader does that lost it.
//!
//! The two have different identities, so that the API server's audit log tells who wrote what. By default a lease lasts 15 s.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use testbed::{
    CapiCrds, ControlPlane, MANAGER_NAMESPACE, Manager, ManagerCommand, Options, Pool, Proxy, Request, Scene, WallClock,
    Webhooks, eventually,
};
use tokio::time::sleep;

use crate::audit::{self, Audited};
use crate::fixture::Standalone;
use crate::standalone;

/// Shorter than the default, for trials that wait until a lease ends.
const SHORT: [&str; 3] =
    ["--leader-elect-lease-duration=6s", "--leader-elect-renew-deadline=4s", "--leader-elect-retry-period=1s"];
const PATIENCE: Duration = Duration::from_secs(60);
/// Less than the lease of 15 s, so that a follower that waits for its end fails.
const AT_ONCE: Duration = Duration::from_secs(10);

pub fn trials() -> Vec<Standalone> {
    standalone![
        a_follower_writes_nothing_and_takes_over_at_once_from_a_leader_that_is_asked_to_stop,
        a_follower_takes_over_when_the_lease_of_a_killed_leader_has_ended,
        a_leader_that_was_suspended_writes_nothing_when_it_wakes_up_and_ends,
        a_leader_cut_off_from_the_server_ends_and_the_follower_binds_on,
        wall_clocks_that_jump_change_nobodys_lead,
        a_leader_that_cannot_renew_writes_nothing_after_its_lease_while_webhooks_are_answered,
    ]
}

/// A leader, and a follower that has all in view. The leader is the installed identity, the follower an administrator.
struct Election {
    scene: Scene,
    pool: Pool,
    leader: Manager,
    follower: Manager,
    control_plane: ControlPlane,
}

impl Election {
    async fn held(flags: &[&str]) -> Result<Self> {
        let control_plane = ControlPlane::start(Options { audit: true, ..Options::default() })?;
        let leader = candidate(flags).start(&control_plane)?;
        leads(&leader, PATIENCE).await?;
        let follower = candidate(flags).kubeconfig(control_plane.kubeconfig()).start(&control_plane)?;
        Self::between(leader, follower, control_plane).await
    }

    async fn between(leader: Manager, follower: Manager, control_plane: ControlPlane) -> Result<Self> {
        let scene = Scene::create(control_plane.client().await?, "election", CapiCrds::Newest).await?;
        let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.200], prefix: 24}").await?;
        Ok(Self { scene, pool, leader, follower, control_plane })
    }

    async fn bind(&self, prefix: &str, count: usize) -> Result<()> {
        self.ask(prefix, count).await?;
        for number in 0..count {
            self.scene.address(&format!("{prefix}-{number}")).await?;
        }
        Ok(())
    }

    async fn ask(&self, prefix: &str, count: usize) -> Result<()> {
        for number in 0..count {
            self.scene.claim(&format!("{prefix}-{number}"), &self.pool).await?;
        }
        Ok(())
    }

    /// What the managers have written so far, besides leases: those of the first leader and those of the follower.
    fn writes(&self) -> Result<(Vec<Request>, Vec<Request>)> {
        let writes = self.control_plane.requests()?.into_iter();
        let writes = writes.filter(|request| request.is_managers() && request.is_write() && !request.is_about_leases());
        Ok(writes.partition(|request| request.user.starts_with("system:serviceaccount:")))
    }

    async fn audit(&self, claims: usize, managers: &[&Manager]) -> Result<()> {
        let passed = audit::passes(&self.scene.client, "v1beta2", managers).await?;
        assert_eq!(passed, Audited { claims, bound: claims, addresses: claims, pools: 1 });
        Ok(())
    }
}

fn candidate(flags: &[&str]) -> ManagerCommand {
    let candidate = ManagerCommand::new(env!("CARGO_BIN_EXE_manager"))
        .arg("--leader-elect")
        .arg(format!("--leader-election-namespace={MANAGER_NAMESPACE}"));
    flags.iter().fold(candidate, |candidate, flag| candidate.arg(*flag))
}

/// Waits until a manager says that it leads.
async fn leads(manager: &Manager, deadline: Duration) -> Result<()> {
    eventually(deadline, async || {
        let metrics = manager.metrics()?;
        ensure!(metrics.lines().any(|line| line == "ipam_leader 1"), "it does not lead:\n{}", manager.log_tail(20));
        Ok(())
    })
    .await
}

async fn a_follower_writes_nothing_and_takes_over_at_once_from_a_leader_that_is_asked_to_stop() -> Result<()> {
    let election = Election::held(&[]).await?;
    election.bind("first", 20).await?;
    let (by_leader, by_follower) = election.writes()?;
    ensure!(by_leader.len() >= 60, "20 binds in {} writes", by_leader.len());
    ensure!(by_follower.is_empty(), "the follower wrote {by_follower:?}");
    ensure!(election.follower.metrics()?.lines().any(|line| line == "ipam_leader 0"), "the follower says it leads");

    let code = election.leader.terminate(AT_ONCE)?;
    ensure!(code == 0, "exit code {code}\n{}", election.leader.log_tail(40));
    leads(&election.follower, AT_ONCE).await?;
    let (last_of_leader, _) = election.writes()?;
    election.bind("second", 20).await?;
    assert_eq!(election.writes()?.0, last_of_leader);
    election.audit(40, &[&election.follower]).await
}

async fn a_follower_takes_over_when_the_lease_of_a_killed_leader_has_ended() -> Result<()> {
    let election = Election::held(&SHORT).await?;
    election.bind("first", 5).await?;
    election.ask("second", 20).await?;
    election.leader.kill();
    for number in 0..20 {
        election.scene.address(&format!("second-{number}")).await?;
    }
    leads(&election.follower, PATIENCE).await?;
    // Back again, it follows.
    election.leader.restart()?;
    election.leader.wait_until_ready()?;
    let (by_first, _) = election.writes()?;
    election.bind("third", 5).await?;
    assert_eq!(election.writes()?.0, by_first);
    election.audit(30, &[&election.leader, &election.follower]).await
}

async fn a_leader_that_was_suspended_writes_nothing_when_it_wakes_up_and_ends() -> Result<()> {
    let election = Election::held(&SHORT).await?;
    election.bind("first", 5).await?;
    election.audit(5, &[&election.leader]).await?;
    election.leader.pause();
    election.ask("second", 5).await?;
    leads(&election.follower, PATIENCE).await?;
    for number in 0..5 {
        election.scene.address(&format!("second-{number}")).await?;
    }
    let (before, _) = election.writes()?;
    // It wakes up to events of five minutes ago and believes that it leads, until it looks at the clock.
    election.ask("third", 5).await?;
    election.leader.resume();
    let code = election.leader.exit_code(PATIENCE)?;
    ensure!(code == 1, "exit code {code}\n{}", election.leader.log_tail(40));
    assert_eq!(election.writes()?.0, before);
    election.audit(15, &[&election.follower]).await
}

/// Times in a lease are for people: who waits for its end counts by a clock that does not jump.
async fn wall_clocks_that_jump_change_nobodys_lead() -> Result<()> {
    let control_plane = ControlPlane::start(Options { audit: true, ..Options::default() })?;
    let (leaders, followers) = (WallClock::new()?, WallClock::new()?);
    let leader = candidate(&SHORT).wall_clock(&leaders).start(&control_plane)?;
    leads(&leader, PATIENCE).await?;
    let follower = candidate(&SHORT).kubeconfig(control_plane.kubeconfig()).wall_clock(&followers).start(&control_plane)?;
    let election = Election::between(leader, follower, control_plane).await?;
    for (number, (leads_by, follows_by)) in [(3600, 0), (-3600, 0), (0, 3600), (0, -3600)].into_iter().enumerate() {
        leaders.set(leads_by)?;
        followers.set(follows_by)?;
        election.bind(&format!("jump{number}"), 5).await?;
        // Longer than a lease lasts.
        sleep(Duration::from_secs(8)).await;
    }
    election.bind("last", 5).await?;
    let (by_leader, by_follower) = election.writes()?;
    ensure!(!by_leader.is_empty() && by_follower.is_empty(), "the follower wrote {by_follower:?}");
    election.audit(25, &[&election.leader]).await
}

async fn a_leader_cut_off_from_the_server_ends_and_the_follower_binds_on() -> Result<()> {
    let election = Election::held(&SHORT).await?;
    election.bind("first", 5).await?;
    election.ask("second", 20).await?;
    election.control_plane.stop_apiserver();
    let code = election.leader.exit_code(PATIENCE)?;
    ensure!(code == 1, "exit code {code}\n{}", election.leader.log_tail(40));
    assert_eq!(election.follower.health("/healthz")?.0, 200);
    let (before, _) = election.writes()?;
    election.control_plane.start_apiserver()?;
    leads(&election.follower, PATIENCE).await?;
    election.bind("third", 5).await?;
    assert_eq!(election.writes()?.0, before);
    election.audit(30, &[&election.follower]).await
}

/// Only its renewals get no answer: it could write all the time, and is asked to. The follower answers the webhooks.
async fn a_leader_that_cannot_renew_writes_nothing_after_its_lease_while_webhooks_are_answered() -> Result<()> {
    let control_plane = ControlPlane::start(Options { audit: true, ..Options::default() })?;
    let proxy = Proxy::start(&control_plane, 7)?;
    let leader = candidate(&SHORT).kubeconfig(proxy.kubeconfig()).start(&control_plane)?;
    leads(&leader, PATIENCE).await?;
    let (_webhooks, follower) = Webhooks::serve(&control_plane, &candidate(&SHORT).kubeconfig(control_plane.kubeconfig()))?;
    let election = Election::between(leader, follower, control_plane).await?;
    election.bind("first", 5).await?;
    let (before, by_follower) = election.writes()?;
    ensure!(by_follower.is_empty(), "the follower wrote {by_follower:?}");

    proxy.hold(|_, path| path.contains("/leases"));
    let invalid = json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1alpha2",
        "kind": "InClusterIPPool",
        "metadata": {"name": "empty", "namespace": election.scene.namespace},
        "spec": {"addresses": [], "prefix": 24},
    });
    let mut asked = 0;
    while !election.follower.metrics()?.lines().any(|line| line == "ipam_leader 1") {
        ensure!(asked < 180, "nobody takes over\n{}", election.leader.log_tail(40));
        election.ask(&format!("during-{asked}"), 1).await?;
        asked += 1;
        let refused =
            election.control_plane.dry_run(&invalid.to_string()).err().context("a pool without addresses is admitted")?;
        ensure!(format!("{refused:#}").contains("addresses is required"), "the webhooks do not answer: {refused:#}");
    }
    let code = election.leader.exit_code(PATIENCE)?;
    ensure!(code == 1, "exit code {code}\n{}", election.leader.log_tail(40));
    proxy.release();
    election.bind("after", 5).await?;
    for number in 0..asked {
        election.scene.address(&format!("during-{number}-0")).await?;
    }

    let (by_leader, by_follower) = election.writes()?;
    ensure!(by_leader.len() > before.len(), "the leader wrote nothing while it still had the lease");
    let last = by_leader.iter().map(|request| &request.received).max();
    let first = by_follower.iter().map(|request| &request.received).min();
    ensure!(last < first, "the former leader wrote until {last:?}, the next from {first:?}");
    ensure!(proxy.tally().held > 0, "{:?}", proxy.tally());
    election.audit(10 + asked, &[&election.follower]).await
}
