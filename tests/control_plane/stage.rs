//! Where trials about failures play: a control plane of their own, active managers with or without a [`Proxy`] before them, claims
//! in masses, and a witness of what the claims were told.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::api::ListParams;
use rand::Rng;
use rand::rngs::StdRng;
use testbed::{CapiCrds, ControlPlane, Manager, ManagerCommand, Options, Pool, Proxy, Scene, eventually};
use tokio::time::sleep;

use crate::audit::{self, Audited};

/// Far more than a fill takes between two kills, so that only a manager that hangs fails.
pub const FILLED_WITHIN: Duration = Duration::from_secs(180);
const V1BETA2: &str = "v1beta2";

/// How many claims a trial makes: a few, or with `TESTBED_FULL=1` as many as were promised.
pub fn size(slice: usize, full: usize) -> usize {
    if env::var_os("TESTBED_FULL").is_some() { full } else { slice }
}

/// A control plane of its own with some managers, all of them active.
pub struct Stage {
    pub scene: Scene,
    // Dropped in this order: the managers, what they reach the server through, the server.
    pub managers: Vec<Manager>,
    pub proxies: Vec<Proxy>,
    pub control_plane: ControlPlane,
}

impl Stage {
    pub async fn set(managers: usize) -> Result<Self> {
        Self::of(&vec![command(); managers]).await
    }

    /// These managers.
    pub async fn of(commands: &[ManagerCommand]) -> Result<Self> {
        Self::with(commands, Vec::new(), ControlPlane::start(Options::default())?).await
    }

    /// Some managers without a proxy, then one with one.
    pub async fn with_proxy(command: &ManagerCommand, managers: usize, random: &mut StdRng) -> Result<Self> {
        let control_plane = ControlPlane::start(Options::default())?;
        let proxy = Proxy::start(&control_plane, random.random())?;
        let mut commands = vec![command.clone(); managers];
        commands.push(command.clone().kubeconfig(proxy.kubeconfig()));
        Self::with(&commands, vec![proxy], control_plane).await
    }

    async fn with(commands: &[ManagerCommand], proxies: Vec<Proxy>, control_plane: ControlPlane) -> Result<Self> {
        let managers = commands.iter().map(|command| command.start(&control_plane)).collect::<Result<_>>()?;
        let scene = Scene::create(control_plane.client().await?, "stage", CapiCrds::Newest).await?;
        Ok(Self { scene, managers, proxies, control_plane })
    }

    /// A pool with this many addresses.
    pub async fn pool_of(&self, count: usize) -> Result<Pool> {
        let first = Ipv4Addr::new(10, 0, 0, 1);
        let last = Ipv4Addr::from_bits(u32::from(first) + u32::try_from(count)? - 1);
        self.scene.pool("blue", &format!("{{addresses: [{first}-{last}], prefix: 16}}")).await
    }

    /// Kills one of the managers every now and then and starts it again; looks on in between.
    pub async fn kill(&self, rounds: usize, random: &mut StdRng, witness: &mut Witness) -> Result<()> {
        for _ in 0..rounds {
            sleep(Duration::from_millis(random.random_range(150..1500))).await;
            witness.look(&self.scene).await?;
            self.managers[random.random_range(0..self.managers.len())].restart()?;
        }
        Ok(())
    }

    /// The audit, with the log of the managers if it fails.
    pub async fn audit(&self) -> Result<Audited> {
        for manager in &self.managers {
            manager.wait_until_ready()?;
        }
        let managers: Vec<_> = self.managers.iter().collect();
        audit::passes(&self.scene.client, V1BETA2, &managers).await.with_context(|| self.logs())
    }

    /// Waits until every claim refers to an address; looks on meanwhile.
    pub async fn filled(&self, count: usize, witness: &mut Witness) -> Result<()> {
        let begin = Instant::now();
        loop {
            let bound = witness.look(&self.scene).await?;
            if bound == count {
                return Ok(());
            }
            ensure!(begin.elapsed() < FILLED_WITHIN, "{bound} of {count} claims are bound\n{}", self.logs());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until no claim is left.
    pub async fn emptied(&self) -> Result<()> {
        eventually(FILLED_WITHIN, async || {
            let left = self.scene.api("IPAddressClaim").list(&ListParams::default()).await?.items.len();
            ensure!(left == 0, "{left} deleted claims are still there\n{}", self.logs());
            Ok(())
        })
        .await
    }

    pub async fn ends_with(&self, count: usize) -> Result<()> {
        let expected = Audited { claims: count, bound: count, addresses: count, pools: 1 };
        assert_eq!(self.audit().await?, expected);
        Ok(())
    }

    /// The sum of a metric of one manager over all its labels.
    pub fn metric(&self, manager: usize, name: &str) -> Result<f64> {
        let text = self.managers[manager].metrics()?;
        let lines = text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        lines.map(|line| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok()).context("no number")).sum()
    }

    /// The ends of the managers' logs.
    pub fn logs(&self) -> String {
        self.managers.iter().map(|manager| manager.log_tail(60)).collect::<Vec<_>>().join("\n---\n")
    }
}

/// A manager that does not ask whether others are active.
pub fn command() -> ManagerCommand {
    ManagerCommand::new(env!("CARGO_BIN_EXE_manager")).arg("--leader-elect=false").secure_diagnostics()
}

/// What claims were told, over the whole trial: an address that was published once is never changed, removed or given to another.
#[derive(Default)]
pub struct Witness {
    told: BTreeMap<String, (String, String)>,
}

impl Witness {
    /// Takes in the present state; answers how many claims are bound.
    pub async fn look(&mut self, scene: &Scene) -> Result<usize> {
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
pub async fn create(scene: &Scene, pool: &Pool, numbers: Range<usize>) -> Result<()> {
    let create = |number: usize| async move {
        eventually(Duration::from_secs(60), async || match scene.claim(&claim(number), pool).await {
            Err(error) if error.chain().any(|cause| cause.to_string().contains("already exists")) => Ok(()),
            other => other,
        })
        .await
    };
    stream::iter(numbers).map(create).buffer_unordered(16).try_collect().await
}

pub fn claim(number: usize) -> String {
    format!("web-{number}")
}
