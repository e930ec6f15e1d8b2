//! What a trial stands on: a control plane with managers that serve external addresses, a name server and a web server that
//! answer as the trial says, and a namespace. Most trials share all but the namespace.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use anyhow::{Result, anyhow};
use libtest_mimic::{Failed, Trial};
use testbed::trial::{Outcome, run, short_name};
use testbed::{Answer, CapiCrds, ControlPlane, DnsServer, Manager, ManagerCommand, Options, Scene, WebServer, Webhooks};

use crate::audit;

/// How long the addresses of a source that is gone stay with the shared manager, in seconds.
pub const GRACE: u64 = 4;

/// A control plane and all that is beside it.
pub struct Fixture {
    // Dropped in this order: the managers, the servers they ask, the API server.
    pub managers: Vec<Manager>,
    pub web: WebServer,
    pub dns: DnsServer,
    pub control_plane: ControlPlane,
}

/// How a fixture differs from the usual one.
pub struct Setup {
    pub options: Options,
    pub managers: usize,
    pub webhooks: bool,
    /// After, and so instead of, the usual flags.
    pub flags: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { options: Options::default(), managers: 1, webhooks: false, flags: Vec::new() }
    }
}

impl Setup {
    /// With these flags besides the usual ones.
    pub fn flags(flags: &[&str]) -> Self {
        Self { flags: flags.iter().map(|flag| (*flag).to_owned()).collect(), ..Self::default() }
    }

    /// On an API server that writes down who asks for what.
    pub fn audited(mut self) -> Self {
        self.options.audit = true;
        self
    }

    /// Without a manager: the trial starts it by [`Fixture::command`].
    pub fn without_manager(mut self) -> Self {
        self.managers = 0;
        self
    }
}

impl Fixture {
    fn shared() -> Result<Self> {
        let options = Options { dual_stack: true, ..Options::default() };
        Self::start(&Setup { options, webhooks: true, ..Setup::default() })
    }

    pub fn start(setup: &Setup) -> Result<Self> {
        let control_plane = ControlPlane::start(setup.options)?;
        control_plane.install_external_ip_role()?;
        let (dns, web) = (DnsServer::start()?, WebServer::start()?);
        web.answer("/ipify", Answer::text(r#"{"ip": "203.0.113.200"}"#));
        let mut fixture = Self { managers: Vec::new(), web, dns, control_plane };
        let mut command = fixture.command();
        for flag in &setup.flags {
            command = command.arg(flag);
        }
        for _ in 0..setup.managers {
            let manager = if setup.webhooks {
                Webhooks::serve(&fixture.control_plane, &command)?.1
            } else {
                command.start(&fixture.control_plane)?
            };
            fixture.managers.push(manager);
        }
        Ok(fixture)
    }

    /// The usual manager: it asks this fixture's servers, and waits no longer than the rules demand.
    pub fn command(&self) -> ManagerCommand {
        let flags = [
            "--leader-elect=false".to_owned(),
            "--feature-gates=ExternalIPSources=true".to_owned(),
            format!("--external-ip-source-grace={GRACE}s"),
            "--external-ip-interval=5s".to_owned(),
            format!("--external-ip-dns-server={}", self.dns.address()),
            "--external-ip-dns-min-ttl=1s".to_owned(),
            format!("--external-ip-api-endpoint=ipify={}", self.web.url("/ipify")),
            format!("--external-ip-api-ca-file={}", self.web.authority_file().display()),
            // Where the web server is, and nothing beside it.
            "--external-ip-api-allow-cidrs=127.0.0.1/32".to_owned(),
        ];
        flags.iter().fold(ManagerCommand::new(env!("CARGO_BIN_EXE_manager")), ManagerCommand::arg)
    }

    /// The only manager.
    pub fn manager(&self) -> &Manager {
        &self.managers[0]
    }

    /// The ends of the managers' logs, and what they have told.
    fn report(&self) -> String {
        let tails = self.managers.iter().map(|manager| format!("--- manager, end of its log\n{}", manager.log_tail(60)));
        let told = self.events().unwrap_or_else(|error| format!("unknown: {error:#}"));
        tails.chain([format!("--- events: {told}")]).collect::<Vec<_>>().join("\n")
    }

    /// How many events there are of each reason: what is too much is dropped by the manager.
    fn events(&self) -> Result<String> {
        let reasons = self.control_plane.kubectl(&["get", "events", "-A", "-o", "jsonpath={.items[*].reason}"])?;
        let mut counts = BTreeMap::new();
        for reason in reasons.split_whitespace() {
            *counts.entry(reason).or_insert(0) += 1;
        }
        Ok(format!("{counts:?}"))
    }
}

/// One trial's namespace on a fixture.
pub struct Stage {
    scene: Scene,
    pub fixture: Arc<Fixture>,
}

impl Deref for Stage {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl Stage {
    async fn on(fixture: &Arc<Fixture>) -> Result<Self> {
        let client = fixture.control_plane.client().await?;
        let scene = Scene::create(client, "externalip", CapiCrds::Newest).await?;
        Ok(Self { scene, fixture: Arc::clone(fixture) })
    }

    /// A namespace on a control plane of its own.
    pub async fn alone(setup: Setup) -> Result<Self> {
        Self::on(&Arc::new(Fixture::start(&setup)?)).await
    }

    pub fn dns(&self) -> &DnsServer {
        &self.fixture.dns
    }

    pub fn web(&self) -> &WebServer {
        &self.fixture.web
    }

    pub fn control_plane(&self) -> &ControlPlane {
        &self.fixture.control_plane
    }

    pub fn manager(&self) -> &Manager {
        self.fixture.manager()
    }

    /// A host name that no other trial uses.
    pub fn host(&self, name: &str) -> String {
        format!("{name}.{}.example.net", self.scene.namespace)
    }
}

/// The fixture that most trials share; started by the first of them.
#[derive(Default)]
pub struct Shared(OnceLock<Result<Arc<Fixture>, String>>);

impl Shared {
    fn get(&self) -> Result<&Arc<Fixture>> {
        let started = self.0.get_or_init(|| Fixture::shared().map(Arc::new).map_err(|error| format!("{error:#}")));
        started.as_ref().map_err(|error| anyhow!("the shared control plane did not start: {error}"))
    }
}

/// A trial on the shared fixture. It must not assume that it is alone there.
pub struct OnShared {
    pub module: &'static str,
    pub name: &'static str,
    pub run: for<'a> fn(&'a Stage) -> Outcome<'a>,
}

impl OnShared {
    /// The trial; when it has passed, nothing of ours may be wrong in its namespace.
    pub fn within(self, shared: &Arc<Shared>) -> Trial {
        let shared = Arc::clone(shared);
        Trial::test(short_name(self.module, self.name), move || {
            let fixture = shared.get().map_err(|error| Failed::from(format!("{error:#}")))?;
            let trial = async {
                let stage = Stage::on(fixture).await?;
                (self.run)(&stage).await?;
                audit::passes(&stage).await
            };
            run(|| Box::pin(trial), || fixture.report())
        })
    }
}

/// The functions of the module as [`OnShared`] trials.
#[macro_export]
macro_rules! on_shared {
    ($($trial:ident),* $(,)?) => {
        vec![$($crate::fixture::OnShared {
            module: module_path!(),
            name: stringify!($trial),
            run: |stage| Box::pin($trial(stage)),
        }),*]
    };
}
