//! The proxy between a manager and the API server does what it is told, and nothing else.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, pin_mut};
use kube::api::{DynamicObject, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use testbed::{CapiCrds, ControlPlane, Faults, Options, Proxy, QUIET, Scene, Tally, eventually};
use tokio::time::timeout;

use crate::fixture::Standalone;
use crate::standalone;

const PATIENCE: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Standalone> {
    standalone![
        a_proxy_loses_requests_and_answers_and_answers_by_itself,
        a_proxy_delays_watches_alone_and_cuts_them,
        a_proxy_holds_what_it_is_asked_to_and_refuses_connections,
    ]
}

/// The same namespace, straight and through a proxy.
struct Both {
    straight: Scene,
    proxied: Scene,
    proxy: Proxy,
    control_plane: ControlPlane,
}

impl Both {
    async fn start() -> Result<Self> {
        let control_plane = ControlPlane::start(Options::default())?;
        let proxy = Proxy::start(&control_plane, 7)?;
        let straight = Scene::create(control_plane.client().await?, "proxy", CapiCrds::Newest).await?;
        let proxied = straight.elsewhere(control_plane.client_as(proxy.kubeconfig()).await?);
        Ok(Self { straight, proxied, proxy, control_plane })
    }

    /// Creates an address through the proxy: of all kinds here the only one that a manager may create.
    fn create(&self, name: &str) -> impl Future<Output = kube::Result<DynamicObject>> + Send + use<> {
        let (api, namespace) = (self.proxied.api("IPAddress"), self.proxied.namespace.clone());
        let address = json!({
            "apiVersion": format!("ipam.cluster.x-k8s.io/{}", self.proxied.capi_version),
            "kind": "IPAddress",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"address": "10.0.0.1", "prefix": 24, "claimRef": {"name": name},
                "poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"}},
        });
        async move {
            let address = serde_json::from_value(address).map_err(kube::Error::SerdeError)?;
            api.create(&PostParams::default(), &address).await
        }
    }

    async fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.straight.get("IPAddress", name).await?.is_some())
    }

    async fn held(&self, count: u64) -> Result<()> {
        eventually(PATIENCE, async || {
            let tally = self.proxy.tally();
            ensure!(tally.held == count, "{tally:?}");
            Ok(())
        })
        .await
    }
}

async fn a_proxy_loses_requests_and_answers_and_answers_by_itself() -> Result<()> {
    let both = Both::start().await?;
    let faults = Faults::default();
    for (name, faults, code, exists) in [
        ("throttled", Faults { throttled: 1.0, ..faults }, Some(429), false),
        ("broken", Faults { broken: 1.0, ..faults }, Some(500), false),
        ("unavailable", Faults { unavailable: 1.0, ..faults }, Some(503), false),
        ("request", Faults { lost_requests: 1.0, ..faults }, None, false),
        ("answer", Faults { lost_answers: 1.0, ..faults }, None, true),
    ] {
        both.proxy.set(faults);
        match (timeout(QUIET, both.create(name)).await, code) {
            (Ok(Err(kube::Error::Api(status))), Some(500)) if status.code == 500 => {}
            (Ok(Err(kube::Error::Api(status))), None) => bail!("{name}: an answer came: {status:?}"),
            // After 429 and 503 the client of these trials goes on asking by itself.
            (Err(_), Some(429 | 503)) | (Ok(Err(_)), None) => {}
            (other, _) => bail!("{name}: {other:?}"),
        }
        ensure!(both.exists(name).await? == exists, "{name}: it should exist: {exists}");
    }
    let tally = both.proxy.tally();
    let counts = [tally.throttled, tally.broken, tally.unavailable, tally.lost_requests, tally.lost_answers];
    ensure!(counts.iter().all(|count| *count > 0) && tally.passed == 0, "{tally:?}");

    both.proxy.set(Faults { hung: 1.0, hang: Duration::from_secs(3600), ..faults });
    ensure!(timeout(QUIET, both.create("hung")).await.is_err(), "it was answered at once");
    ensure!(!both.exists("hung").await?, "a request that hangs has reached the server");
    both.proxy.set(faults);
    both.create("quiet").await?;
    Ok(())
}

async fn a_proxy_delays_watches_alone_and_cuts_them() -> Result<()> {
    let both = Both::start().await?;
    let api = both.proxied.api("IPAddress");
    let parameters = WatchParams::default().disable_bookmarks();
    both.proxy.set(Faults { watch_delay: Duration::from_secs(3600), delayed_watches: "/ipaddresses?", ..Faults::default() });
    let late = api.watch(&parameters, "0").await?;
    pin_mut!(late);
    let other = both.proxied.api("IPAddressClaim").watch(&parameters, "0").await?;
    pin_mut!(other);
    let pool = both.straight.pool("blue", "{addresses: [10.0.0.1-10.0.0.9], prefix: 24}").await?;
    both.straight.claim("web", &pool).await?;
    let first = timeout(PATIENCE, other.next()).await?.context("the watch of claims has ended")??;
    ensure!(matches!(first, WatchEvent::Added(_)), "{first:?}");
    both.create("web").await?;
    ensure!(timeout(QUIET, late.next()).await.is_err(), "the watch of addresses is not late");
    ensure!(both.proxy.tally().delayed > 0, "{:?}", both.proxy.tally());

    both.proxy.cut_watches();
    let end = timeout(PATIENCE, late.next()).await?;
    ensure!(!matches!(&end, Some(Ok(_))), "the watch goes on: {end:?}");
    both.proxy.set(Faults::default());
    let prompt = api.watch(&parameters, "0").await?;
    pin_mut!(prompt);
    let first = timeout(PATIENCE, prompt.next()).await?.context("the watch of addresses has ended")??;
    ensure!(matches!(first, WatchEvent::Added(_)), "{first:?}");
    both.proxy.cut();
    let end = timeout(PATIENCE, prompt.next()).await?;
    ensure!(!matches!(&end, Some(Ok(_))), "the watch goes on: {end:?}");
    assert_eq!(both.proxy.tally().cuts, 2);

    let orphaned = api.watch(&parameters, "0").await?;
    pin_mut!(orphaned);
    timeout(PATIENCE, orphaned.next()).await?.context("the watch of addresses has ended")??;
    both.control_plane.stop_apiserver();
    let end = timeout(PATIENCE, orphaned.next()).await?;
    ensure!(!matches!(&end, Some(Ok(_))), "the watch goes on without a server: {end:?}");
    both.control_plane.start_apiserver()?;
    both.create("later").await?;
    Ok(())
}

async fn a_proxy_holds_what_it_is_asked_to_and_refuses_connections() -> Result<()> {
    let both = Both::start().await?;
    both.proxy.hold(|method, path| method == "POST" && path.contains("/ipaddresses"));
    let released = tokio::spawn(both.create("released"));
    both.held(1).await?;
    let dropped = tokio::spawn(both.create("dropped"));
    both.held(2).await?;
    both.proxied.api("IPAddress").list(&kube::api::ListParams::default()).await?;
    ensure!(!both.exists("released").await?, "a held request has reached the server");
    dropped.abort();
    ensure!(dropped.await.is_err_and(|end| end.is_cancelled()), "a held request was answered");
    eventually(PATIENCE, async || {
        ensure!(both.proxy.tally().abandoned == 1, "{:?}", both.proxy.tally());
        Ok(())
    })
    .await?;
    both.proxy.release();
    released.await??;
    ensure!(!both.exists("dropped").await?, "a request without a client was passed on");

    both.proxy.refuse(true);
    eventually(PATIENCE, async || {
        ensure!(both.create("refused").await.is_err(), "a refused connection works");
        ensure!(both.proxy.tally().refused > 0, "{:?}", both.proxy.tally());
        Ok(())
    })
    .await?;
    ensure!(!both.exists("refused").await?, "a refused request has reached the server");
    both.proxy.refuse(false);
    both.create("accepted").await?;
    // How many attempts it took to be refused, and whether one had begun to pass when its connection was cut, is left to chance.
    let Tally { passed, refused, .. } = both.proxy.tally();
    ensure!(passed >= 3, "{passed} passed");
    assert_eq!(both.proxy.tally(), Tally { passed, refused, held: 2, abandoned: 1, ..Tally::default() });
    Ok(())
}
