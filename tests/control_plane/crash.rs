//! Managers that die at random moments, two at once, and an API server that goes away in the middle: no address is lost or doubled.
//!
//! Each trial prints its seed; `TESTBED_SEED=<number>` repeats its moments. Each ends with the [audit](crate::audit).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::api::ListParams;
use rand::Rng;
use rand::rngs::StdRng;
use testbed::{CapiCrds, ControlPlane, Manager, ManagerCommand, Options, Pool, Scene, eventually};
use tokio::time::sleep;

use crate::audit::{self, Audited};
use crate::fixture::{Standalone, seeded};
use crate::standalone;

const CLAIMS: usize = 500;
/// Far more than a fill takes between two kills, so that only a manager that hangs fails.
const FILLED_WITHIN: Duration = Duration::from_secs(180);
const V1BETA2: &str = "v1beta2";

pub fn trials() -> Vec<Standalone> {
    standalone![
        killing_the_manager_at_random_moments_loses_and_doubles_no_address,
        killing_either_of_two_active_managers_loses_and_doubles_no_address,
        an_api_server_that_restarts_and_forgets_its_history_in_the_middle_of_a_fill_loses_nothing,
        claims_deleted_during_and_after_their_bind_leave_nothing_while_the_manager_is_killed,
        a_manager_that_is_asked_to_stop_finishes_its_binds_and_shows_the_last_numbers,
    ]
}

/// A control plane of its own with some managers, all of them active.
struct Stage {
    scene: Scene,
    managers: Vec<Manager>,
    control_plane: ControlPlane,
}

impl Stage {
    async fn set(managers: usize) -> Result<Self> {
        let control_plane = ControlPlane::start(Options::default())?;
        let command = ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).arg("--leader-elect=false");
        let managers = (0..managers).map(|_| command.start(&control_plane)).collect::<Result<Vec<_>>>()?;
        let scene = Scene::create(control_plane.client().await?, "crash", CapiCrds::Newest).await?;
        Ok(Self { scene, managers, control_plane })
    }

    /// A pool with a tenth more than it is asked for, so that a leak shows in its numbers and not as a claim that waits.
    async fn pool(&self) -> Result<Pool> {
        self.scene.pool("blue", "{addresses: [10.0.0.1-10.0.2.38], prefix: 16}").await
    }

    /// Kills one of the managers every now and then and starts it again; looks on in between.
    async fn kill(&self, rounds: usize, random: &mut StdRng, witness: &mut Witness) -> Result<()> {
        for _ in 0..rounds {
            sleep(Duration::from_millis(random.random_range(150..1500))).await;
            witness.look(&self.scene).await?;
            self.managers[random.random_range(0..self.managers.len())].restart()?;
        }
        Ok(())
    }

    /// The audit, with the log of the managers if it fails.
    async fn audit(&self) -> Result<Audited> {
        for manager in &self.managers {
            manager.wait_until_ready()?;
        }
        let managers: Vec<_> = self.managers.iter().collect();
        let passed = audit::passes(&self.scene.client, V1BETA2, &managers).await;
        passed.with_context(|| self.managers.iter().map(|manager| manager.log_tail(60)).collect::<Vec<_>>().join("\n---\n"))
    }

    /// Waits until every claim refers to an address; looks on meanwhile.
    async fn filled(&self, count: usize, witness: &mut Witness) -> Result<()> {
        let begin = Instant::now();
        loop {
            let bound = witness.look(&self.scene).await?;
            if bound == count {
                return Ok(());
            }
            let logs = || self.managers.iter().map(|manager| manager.log_tail(60)).collect::<Vec<_>>().join("\n---\n");
            ensure!(begin.elapsed() < FILLED_WITHIN, "{bound} of {count} claims are bound\n{}", logs());
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn ends_with(&self, count: usize) -> Result<()> {
        let expected = Audited { claims: count, bound: count, addresses: count, pools: 1 };
        assert_eq!(self.audit().await?, expected);
        Ok(())
    }
}

/// What claims were told, over the whole trial: an address that was published once is never changed, removed or given to another.
#[derive(Default)]
struct Witness {
    told: BTreeMap<String, (String, String)>,
}

impl Witness {
    /// Takes in the present state; answers how many claims are bound.
    async fn look(&mut self, scene: &Scene) -> Result<usize> {
        let claims = scene.api("IPAddressClaim").list(&ListParams::default()).await?;
        // Listed after the claims, so that it holds every address that one of them refers to.
        let addresses = scene.api("IPAddress").list(&ListParams::default()).await?;
        let addresses: BTreeMap<_, _> = addresses.iter().map(|address| (address.name_any(), address)).collect();
        let mut bound = 0;
        for claim in &claims {
            let Some(name) = claim.data["status"]["addressRef"]["name"].as_str() else { continue };
            bound += 1;
            let address = addresses.get(name).with_context(|| format!("{name} was told an address that does not exist"))?;
            let value = address.data["spec"]["address"].as_str().unwrap_or_default().to_owned();
            let now = (address.uid().unwrap_or_default(), value);
            let before = self.told.entry(claim.name_any()).or_insert_with(|| now.clone());
            ensure!(*before == now, "{name} was told {before:?} and then {now:?}");
        }
        let values: BTreeSet<_> = self.told.values().map(|(_, value)| value).collect();
        ensure!(values.len() == self.told.len(), "an address was told to two claims: {:?}", self.told);
        Ok(bound)
    }
}

/// Creates claims as fast as the server takes them; an answer that does not come is asked for again.
async fn create(scene: &Scene, pool: &Pool, count: usize) -> Result<()> {
    let create = |number: usize| async move {
        eventually(Duration::from_secs(60), async || match scene.claim(&claim(number), pool).await {
            Err(error) if error.chain().any(|cause| cause.to_string().contains("already exists")) => Ok(()),
            other => other,
        })
        .await
    };
    stream::iter(0..count).map(create).buffer_unordered(16).try_collect().await
}

fn claim(number: usize) -> String {
    format!("web-{number}")
}

async fn killing_the_manager_at_random_moments_loses_and_doubles_no_address() -> Result<()> {
    let (stage, mut witness) = (Stage::set(1).await?, Witness::default());
    let mut random = seeded("killing_the_manager");
    let pool = stage.pool().await?;
    let killing = stage.kill(8, &mut random, &mut witness);
    tokio::try_join!(create(&stage.scene, &pool, CLAIMS), killing)?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}

async fn killing_either_of_two_active_managers_loses_and_doubles_no_address() -> Result<()> {
    let (stage, mut witness) = (Stage::set(2).await?, Witness::default());
    let mut random = seeded("killing_either");
    let pool = stage.pool().await?;
    let killing = stage.kill(10, &mut random, &mut witness);
    tokio::try_join!(create(&stage.scene, &pool, CLAIMS), killing)?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}

async fn an_api_server_that_restarts_and_forgets_its_history_in_the_middle_of_a_fill_loses_nothing() -> Result<()> {
    let (stage, mut witness) = (Stage::set(1).await?, Witness::default());
    let mut random = seeded("an_api_server");
    let pool = stage.pool().await?;
    let outage = async {
        let enough = random.random_range(20..200);
        while witness.look(&stage.scene).await? < enough {
            sleep(Duration::from_millis(50)).await;
        }
        stage.control_plane.stop_apiserver();
        stage.control_plane.restart_etcd()?;
        stage.control_plane.compact_etcd()?;
        stage.control_plane.start_apiserver()
    };
    tokio::try_join!(create(&stage.scene, &pool, CLAIMS), outage)?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}

/// Deleted once our finalizer is on them. A manager that is killed while it creates the address of a claim which vanishes without
/// waiting for anybody leaves a live address, and nobody can tell that from one that is in use.
async fn claims_deleted_during_and_after_their_bind_leave_nothing_while_the_manager_is_killed() -> Result<()> {
    let (stage, mut random) = (Stage::set(1).await?, seeded("claims_deleted"));
    let pool = stage.pool().await?;
    let pauses: Vec<u64> = (0..CLAIMS).map(|_| random.random_range(0..300)).collect();
    let scene = &stage.scene;
    let live_and_die = |(number, pause): (usize, u64)| {
        let pool = &pool;
        async move {
            scene.claim(&claim(number), pool).await?;
            scene.has_finalizer("IPAddressClaim", &claim(number), "ipam.cluster.x-k8s.io/ReleaseAddress").await?;
            sleep(Duration::from_millis(pause)).await;
            scene.delete("IPAddressClaim", &claim(number)).await
        }
    };
    let lives = stream::iter(pauses.into_iter().enumerate()).map(live_and_die).buffer_unordered(32).try_collect();
    let kills = async {
        for _ in 0..8 {
            sleep(Duration::from_millis(random.random_range(150..2000))).await;
            stage.managers[0].restart()?;
        }
        Ok(())
    };
    let ((), ()) = tokio::try_join!(lives, kills)?;
    eventually(FILLED_WITHIN, async || {
        let left = scene.api("IPAddressClaim").list(&ListParams::default()).await?.items.len();
        ensure!(left == 0, "{left} deleted claims are still there\n{}", stage.managers[0].log_tail(60));
        Ok(())
    })
    .await?;
    assert_eq!(stage.audit().await?, Audited { pools: 1, ..Audited::default() });
    Ok(())
}

async fn a_manager_that_is_asked_to_stop_finishes_its_binds_and_shows_the_last_numbers() -> Result<()> {
    let (stage, mut witness) = (Stage::set(1).await?, Witness::default());
    let pool = stage.pool().await?;
    let stop = async {
        while witness.look(&stage.scene).await? < 50 {
            sleep(Duration::from_millis(20)).await;
        }
        let manager = &stage.managers[0];
        let code = manager.terminate(Duration::from_secs(10))?;
        ensure!(code == 0, "exit code {code}\n{}", manager.log_tail(60));
        Ok(())
    };
    tokio::try_join!(create(&stage.scene, &pool, CLAIMS), stop)?;
    let bound = witness.look(&stage.scene).await?;
    let addresses = stage.scene.api("IPAddress").list(&ListParams::default()).await?.items.len();
    assert_eq!(bound, addresses, "a bind was left half done\n{}", stage.managers[0].log_tail(60));
    let shown = stage.scene.counts(&pool).await?.context("no numbers")?;
    assert_eq!(shown.used, addresses as u64, "the last numbers were not shown\n{}", stage.managers[0].log_tail(60));
    stage.managers[0].restart()?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}
