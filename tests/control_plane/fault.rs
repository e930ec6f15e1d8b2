//! Managers with a late view, with answers that are refused, late or lost, and killed in the middle of a bind.
//!
//! A [`testbed::Proxy`] between one manager and the API server makes the failures; each trial looks whether they really happened.
//! Each ends with the [audit](crate::audit).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, Faults, Options, Proxy, Scene, eventually};

use crate::audit::{self, Audited};
use crate::fixture::{Standalone, seeded};
use crate::stage::{Stage, Witness, claim, command, create, size};
use crate::standalone;

const PATIENCE: Duration = Duration::from_secs(60);
const LATE: Duration = Duration::from_secs(5);

pub fn trials() -> Vec<Standalone> {
    standalone![
        a_manager_that_sees_everything_late_gives_no_address_twice,
        addresses_given_from_a_late_view_lose_and_are_counted,
        a_manager_killed_before_it_publishes_publishes_the_same_address_later,
        a_manager_killed_before_it_publishes_takes_another_address_if_somebody_has_it_meanwhile,
        refused_and_hanging_and_lost_requests_lose_and_double_no_address,
    ]
}

async fn a_manager_that_sees_everything_late_gives_no_address_twice() -> Result<()> {
    let claims = size(300, 3000);
    let mut random = seeded("late_view");
    let (stage, mut witness) = (Stage::with_proxy(&command(), 1, &mut random).await?, Witness::default());
    let late = &stage.proxies[0];
    late.set(Faults { watch_delay: LATE, ..Faults::default() });
    let pool = stage.pool_of(claims).await?;
    create(&stage.scene, &pool, 0..claims / 2).await?;
    stage.filled(claims / 2, &mut witness).await?;
    // Now only the late one is there to serve them, and later both are again.
    stage.managers[0].kill();
    create(&stage.scene, &pool, claims / 2..claims).await?;
    late.cut_watches();
    eventually(Duration::from_secs(180), async || {
        let bound = witness.look(&stage.scene).await?;
        ensure!(bound > claims * 3 / 4, "the late one has bound {bound} of {claims}\n{}", stage.logs());
        Ok(())
    })
    .await?;
    stage.managers[0].restart()?;
    stage.filled(claims, &mut witness).await?;
    ensure!(late.tally().delayed > 0, "{:?}", late.tally());
    stage.ends_with(claims).await
}

/// Two namespaces share a Global pool, and each manager serves one of them. The late one gives what its view says is free, all of
/// which the other has given long since.
async fn addresses_given_from_a_late_view_lose_and_are_counted() -> Result<()> {
    let claims = size(40, 400);
    let control_plane = ControlPlane::start(Options::default())?;
    let mut scenes = Vec::new();
    for hint in ["prompt", "late"] {
        scenes.push(Scene::create(control_plane.client().await?, hint, CapiCrds::Newest).await?);
    }
    let proxy = Proxy::start(&control_plane, 7)?;
    let serves = |scene: &Scene| command().arg(format!("--namespace={}", scene.namespace));
    let prompt = serves(&scenes[0]).start(&control_plane)?;
    let late = serves(&scenes[1]).kubeconfig(proxy.kubeconfig()).start(&control_plane)?;
    let pool = scenes[0].global_pool("blue", "{addresses: [10.0.0.1-10.0.7.254], prefix: 16}").await?;
    scenes[0].up_to_date(&pool).await?;
    create(&scenes[1], &pool, 0..1).await?;
    scenes[1].address(&claim(0)).await?;

    proxy.set(Faults { watch_delay: LATE, delayed_watches: "/ipaddresses?", ..Faults::default() });
    create(&scenes[0], &pool, 0..claims).await?;
    for number in 0..claims {
        scenes[0].address(&claim(number)).await?;
    }
    create(&scenes[1], &pool, 1..claims).await?;
    for number in 1..claims {
        scenes[1].address(&claim(number)).await?;
    }
    let count = claims * 2;
    let passed = audit::passes(&scenes[0].client, scenes[0].capi_version, &[&prompt, &late]).await?;
    assert_eq!(passed, Audited { claims: count, bound: count, addresses: count, pools: 1 });
    let metrics = late.metrics()?;
    let conflicts = "ipam_address_conflicts_total{kind=\"GlobalInClusterIPPool\"} ";
    let counted = metrics.lines().find_map(|line| line.strip_prefix(conflicts)).context("no conflict was counted")?;
    ensure!(counted.parse::<usize>()? > 0, "{counted} conflicts");
    ensure!(proxy.tally().delayed > 0, "{:?}", proxy.tally());
    Ok(())
}

/// A manager that was killed when it had created the address of the claim `web` and not published it; the value and UID of that.
async fn killed_before_it_publishes() -> Result<(Stage, testbed::Pool, String, String)> {
    let stage = Stage::with_proxy(&command(), 0, &mut seeded("killed_before_it_publishes")).await?;
    let (scene, proxy, manager) = (&stage.scene, &stage.proxies[0], &stage.managers[0]);
    let pool = stage.pool_of(20).await?;
    scene.up_to_date(&pool).await?;
    proxy.hold(|method, path| method == "PATCH" && path.contains("/ipaddressclaims/web/status"));
    scene.claim("web", &pool).await?;
    eventually(PATIENCE, async || {
        ensure!(proxy.tally().held > 0, "nothing is published: {:?}\n{}", proxy.tally(), manager.log_tail(40));
        Ok(())
    })
    .await?;
    manager.kill();
    proxy.release();
    let address = scene.api("IPAddress").get("web").await?;
    let claim = scene.api("IPAddressClaim").get("web").await?;
    ensure!(claim.data["status"]["addressRef"].is_null(), "it was published: {}", claim.data["status"]);
    let value = address.data["spec"]["address"].as_str().context("an address without a value")?.to_owned();
    let uid = address.uid().context("an address without UID")?;
    Ok((stage, pool, value, uid))
}

async fn a_manager_killed_before_it_publishes_publishes_the_same_address_later() -> Result<()> {
    let (stage, _, value, uid) = killed_before_it_publishes().await?;
    stage.managers[0].restart()?;
    assert_eq!(stage.scene.address("web").await?, value);
    assert_eq!(stage.scene.api("IPAddress").get("web").await?.uid(), Some(uid));
    stage.ends_with(1).await
}

async fn a_manager_killed_before_it_publishes_takes_another_address_if_somebody_has_it_meanwhile() -> Result<()> {
    let (stage, pool, value, uid) = killed_before_it_publishes().await?;
    let scene = &stage.scene;
    scene.claim("other", &pool).await?;
    let other = scene.foreign_address("other", &pool, &value, 16, "{}").await?.uid();
    let bound = json!({"status": {"addressRef": {"name": "other"}}});
    scene.api("IPAddressClaim").patch_status("other", &PatchParams::default(), &Patch::Merge(bound)).await?;

    stage.managers[0].restart()?;
    let address = scene.address("web").await?;
    ensure!(address != value, "{address} is given twice");
    ensure!(scene.api("IPAddress").get("web").await?.uid() != Some(uid), "the address that lost is published");
    stage.ends_with(2).await?;
    assert_eq!(scene.address("other").await?, value);
    assert_eq!(scene.api("IPAddress").get("other").await?.uid(), other);
    Ok(())
}

async fn refused_and_hanging_and_lost_requests_lose_and_double_no_address() -> Result<()> {
    let claims = size(320, 1000);
    let mut random = seeded("refused_and_hanging");
    let (stage, mut witness) = (Stage::with_proxy(&command(), 0, &mut random).await?, Witness::default());
    let proxy = &stage.proxies[0];
    let pool = stage.pool_of(claims).await?;
    let faults = Faults::default();
    // A hang that outlasts the manager's own time-out of 30 s only where there is time for it.
    let hang = Duration::from_secs(size(2, 40) as u64);
    let weathers = [
        Faults { throttled: 0.2, ..faults },
        Faults { broken: 0.2, unavailable: 0.1, ..faults },
        Faults { hung: 0.1, hang, delay: Duration::from_millis(20), ..faults },
        Faults { lost_requests: 0.1, lost_answers: 0.2, ..faults },
    ];
    let part = claims / weathers.len();
    for (number, weather) in weathers.into_iter().enumerate() {
        proxy.set(weather);
        create(&stage.scene, &pool, number * part..(number + 1) * part).await?;
        // Most of them in this weather, the rest in the next.
        eventually(Duration::from_secs(180), async || {
            let bound = witness.look(&stage.scene).await?;
            ensure!(bound >= number * part + part * 3 / 4, "{bound} are bound in {weather:?}\n{}", stage.logs());
            Ok(())
        })
        .await?;
    }
    proxy.set(faults);
    proxy.cut();
    stage.filled(claims, &mut witness).await?;
    let tally = proxy.tally();
    let counts = [tally.throttled, tally.broken, tally.unavailable, tally.hung, tally.lost_requests, tally.lost_answers];
    ensure!(counts.iter().all(|count| *count > 0), "{tally:?}");
    stage.ends_with(claims).await
}
