//! Managers that die at random moments, two at once, and an API server that goes away in the middle: no address is lost or doubled.
//!
//! Each trial prints its seed; `TESTBED_SEED=<number>` repeats its moments. Each ends with the [audit](crate::audit).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::ListParams;
use rand::Rng;
use testbed::WallClock;
use tokio::time::sleep;

use crate::audit::Audited;
use crate::fixture::{Standalone, seeded};
use crate::stage::{Stage, Witness, claim, command, create, size};
use crate::standalone;

const CLAIMS: usize = 500;

pub fn trials() -> Vec<Standalone> {
    standalone![
        killing_the_manager_at_random_moments_loses_and_doubles_no_address,
        killing_one_of_two_active_managers_each_second_fills_a_pool_to_its_last_address,
        an_api_server_that_restarts_and_forgets_its_history_in_the_middle_of_a_fill_loses_nothing,
        wall_clocks_that_jump_lose_and_double_no_address,
        claims_deleted_before_during_and_after_their_bind_leave_nothing,
        claims_deleted_during_and_after_their_bind_leave_nothing_while_the_manager_is_killed,
        a_manager_that_is_asked_to_stop_finishes_its_binds_and_shows_the_last_numbers,
    ]
}

async fn killing_the_manager_at_random_moments_loses_and_doubles_no_address() -> Result<()> {
    let (stage, mut witness) = (Stage::set(1).await?, Witness::default());
    let mut random = seeded("killing_the_manager");
    let pool = stage.pool_of(CLAIMS + CLAIMS / 10).await?;
    let killing = stage.kill(8, &mut random, &mut witness);
    tokio::try_join!(create(&stage.scene, &pool, 0..CLAIMS), killing)?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}

/// The pool has room for nobody else: one value that is lost for a while is one claim that waits.
async fn killing_one_of_two_active_managers_each_second_fills_a_pool_to_its_last_address() -> Result<()> {
    let claims = size(800, 5000);
    let (stage, mut witness) = (Stage::set(2).await?, Witness::default());
    let mut random = seeded("killing_one_of_two");
    let pool = stage.pool_of(claims).await?;
    let killing = async {
        let mut kills = 0;
        while witness.look(&stage.scene).await? < claims {
            sleep(Duration::from_secs(1)).await;
            stage.managers[random.random_range(0..2)].restart()?;
            kills += 1;
            ensure!(kills < claims, "the pool does not fill\n{}", stage.logs());
        }
        Ok(kills)
    };
    let ((), kills) = tokio::try_join!(create(&stage.scene, &pool, 0..claims), killing)?;
    ensure!(kills > 1, "only {kills} kills in a fill of {claims}");
    stage.filled(claims, &mut witness).await?;
    stage.ends_with(claims).await
}

async fn an_api_server_that_restarts_and_forgets_its_history_in_the_middle_of_a_fill_loses_nothing() -> Result<()> {
    let (stage, mut witness) = (Stage::set(1).await?, Witness::default());
    let mut random = seeded("an_api_server");
    let pool = stage.pool_of(CLAIMS + CLAIMS / 10).await?;
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
    tokio::try_join!(create(&stage.scene, &pool, 0..CLAIMS), outage)?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}

/// Nobody dies here, so that even a claim may go that vanishes at once because our finalizer is not on it yet. A third of them have
/// to wait for room, and are deleted while they do.
/// Two active managers that never agree on the time.
async fn wall_clocks_that_jump_lose_and_double_no_address() -> Result<()> {
    let clocks = [WallClock::new()?, WallClock::new()?];
    let commands = clocks.each_ref().map(|clock| command().wall_clock(clock));
    let (stage, mut witness) = (Stage::of(&commands).await?, Witness::default());
    let mut random = seeded("wall_clocks");
    let pool = stage.pool_of(CLAIMS).await?;
    let jumping = async {
        for _ in 0..30 {
            witness.look(&stage.scene).await?;
            clocks[random.random_range(0..2)].set(random.random_range(-7200..7200))?;
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    };
    tokio::try_join!(create(&stage.scene, &pool, 0..CLAIMS), jumping)?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}

async fn claims_deleted_before_during_and_after_their_bind_leave_nothing() -> Result<()> {
    let claims = size(400, 1000);
    let (stage, mut random) = (Stage::set(1).await?, seeded("claims_deleted_before"));
    let pool = stage.pool_of(24).await?;
    let pauses: Vec<_> = (0..claims).map(|_| random.random_range(0..4) * random.random_range(0..150)).collect();
    let scene = &stage.scene;
    let live_and_die = |(number, pause): (usize, u64)| {
        let pool = &pool;
        async move {
            scene.claim(&claim(number), pool).await?;
            sleep(Duration::from_millis(pause)).await;
            scene.delete("IPAddressClaim", &claim(number)).await
        }
    };
    stream::iter(pauses.into_iter().enumerate()).map(live_and_die).buffer_unordered(32).try_collect::<()>().await?;
    stage.emptied().await?;
    assert_eq!(stage.audit().await?, Audited { pools: 1, ..Audited::default() });
    ensure!(stage.metric(0, "ipam_releases_total")? > 0.0, "no claim was bound before it went");
    Ok(())
}

/// Deleted once our finalizer is on them. A manager that is killed while it creates the address of a claim which vanishes without
/// waiting for anybody leaves a live address, and nobody can tell that from one that is in use.
async fn claims_deleted_during_and_after_their_bind_leave_nothing_while_the_manager_is_killed() -> Result<()> {
    let (stage, mut random) = (Stage::set(1).await?, seeded("claims_deleted"));
    let pool = stage.pool_of(CLAIMS + CLAIMS / 10).await?;
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
    stage.emptied().await?;
    assert_eq!(stage.audit().await?, Audited { pools: 1, ..Audited::default() });
    Ok(())
}

async fn a_manager_that_is_asked_to_stop_finishes_its_binds_and_shows_the_last_numbers() -> Result<()> {
    let (stage, mut witness) = (Stage::set(1).await?, Witness::default());
    let pool = stage.pool_of(CLAIMS + CLAIMS / 10).await?;
    let stop = async {
        while witness.look(&stage.scene).await? < 50 {
            sleep(Duration::from_millis(20)).await;
        }
        let manager = &stage.managers[0];
        let code = manager.terminate(Duration::from_secs(10))?;
        ensure!(code == 0, "exit code {code}\n{}", manager.log_tail(60));
        Ok(())
    };
    tokio::try_join!(create(&stage.scene, &pool, 0..CLAIMS), stop)?;
    let bound = witness.look(&stage.scene).await?;
    let addresses = stage.scene.api("IPAddress").list(&ListParams::default()).await?.items.len();
    assert_eq!(bound, addresses, "a bind was left half done\n{}", stage.managers[0].log_tail(60));
    let shown = stage.scene.counts(&pool).await?.context("no numbers")?;
    assert_eq!(shown.used, addresses as u64, "the last numbers were not shown\n{}", stage.managers[0].log_tail(60));
    stage.managers[0].restart()?;
    stage.filled(CLAIMS, &mut witness).await?;
    stage.ends_with(CLAIMS).await
}
