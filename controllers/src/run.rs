//! The life of a manager: listen, connect, campaign, work, and stop in the reverse order. Called by `main`.

use std::{future::Future, io, sync::Arc};

use kube::Client;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    config::{Config, LeaderElection, ReleaseOrphans},
    externalip::{ExternalIps, solver::TrustError},
    ipam::{self, Ipam, Policy, Scope, Shell},
    kit::{
        client::{ClientOptions, ConnectError, connect},
        diagnostics::{self, LedgerDump, Sources},
        events::Events,
        health::{self, Readiness},
        leader::{CampaignEnd, Candidacy, Leadership, campaign, identity},
        listen::ListenAddress,
        metrics::Metrics,
        shutdown::{ExitReason, Shutdown},
        writes::Writer,
    },
    serving::{self, Pair},
};

/// Why a manager cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: ListenAddress,
        /// What the system says.
        source: io::Error,
    },
    /// There is no usable client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Web services could not be asked.
    #[error("cannot read what --external-ip-api-ca-file names")]
    Trust(#[from] TrustError),
    /// Outside a cluster nothing tells where the lease belongs.
    #[error("this is no pod, so --leader-elect needs --leader-election-namespace")]
    NoLeaseNamespace,
    /// Outside a cluster nothing tells where the Secret belongs.
    #[error("this is no pod, so --webhook-self-signed needs --leader-election-namespace")]
    NoSecretNamespace,
}

/// A manager that listens and is connected, and does no work yet.
pub struct Manager {
    version: &'static str,
    shell: Shell,
    ipam: Ipam,
    external_ips: Option<ExternalIps>,
    campaign: Option<Campaign>,
    resign: Shutdown,
    close: Shutdown,
    /// Where this manager is installed.
    namespace: Option<String>,
}

impl Manager {
    /// The view of addresses and pools, for those who answer the API server's questions about them.
    pub fn ipam(&self) -> &Ipam {
        &self.ipam
    }

    /// Where numbers go.
    pub fn metrics(&self) -> &Metrics {
        &self.shell.metrics
    }

    /// Where it is said what is not ready yet.
    pub fn readiness(&self) -> &Readiness {
        &self.shell.readiness
    }

    /// When listeners are to close: last of all.
    pub fn closing(&self) -> &Shutdown {
        &self.close
    }

    /// Begins to keep a certificate of our own for the webhooks, until the process is asked to stop. It appears in what is
    /// returned, and is replaced there when it is renewed.
    pub fn certify_webhooks(&self) -> Result<watch::Receiver<Option<Pair>>, RunError> {
        let context = serving::Context {
            client: self.shell.client.clone(),
            writer: self.shell.writer.clone(),
            leadership: self.shell.leadership.clone(),
            namespace: self.namespace.clone().ok_or(RunError::NoSecretNamespace)?,
        };
        let (kept, keeps) = watch::channel(None);
        let shutdown = self.shell.shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serving::run(context, kept) => {}
                () = shutdown.requested() => {}
            }
        });
        Ok(keeps)
    }

    /// Works until the process is asked to stop or loses its lease.
    pub async fn run(self) -> ExitReason {
        tracing::info!(version = self.version, "started");
        let leadership = self.shell.leadership.clone();
        let reason = tokio::select! {
            () = work(self.ipam, self.external_ips, self.shell) => ExitReason::Stopped,
            () = leadership.lost() => ExitReason::LeadershipLost,
        };
        self.resign.trigger();
        if let Some(campaign) = self.campaign {
            // A campaign that ended by panic has nothing left to give up.
            let _ = campaign.await;
        }
        self.close.trigger();
        tracing::info!(?reason, "stopped");
        reason
    }
}

/// Runs every capability that is on, until all have come to their end.
async fn work(ipam: Ipam, external_ips: Option<ExternalIps>, shell: Shell) {
    let serving = async {
        if let Some(external_ips) = external_ips {
            external_ips.run(shell.clone()).await;
        }
    };
    tokio::join!(ipam.run(shell.clone()), serving);
}

/// Listens, connects and begins to campaign.
pub async fn start(config: Config) -> Result<Manager, RunError> {
    let health_listener = bind(config.health.as_ref()).await?;
    let diagnostics_listener = bind(config.diagnostics.as_ref().map(|diagnostics| &diagnostics.address)).await?;
    let user_agent = format!("ipam-in-cluster/{}", config.version);
    let client = connect(ClientOptions {
        kubeconfig: config.kubeconfig.clone(),
        user_agent: user_agent.clone(),
        qps: config.kube_api_qps,
        burst: config.kube_api_burst,
    })
    .await?;
    let metrics = Metrics::new(config.version);
    let readiness = Readiness::default();

    // The listeners close last, the lease is given up before them, and both after the work is done.
    let close = Shutdown::new();
    let resign = Shutdown::new();
    let of_lease = config.leader_election.as_ref().and_then(|election| election.namespace.clone());
    let namespace = of_lease.or_else(pod_namespace);
    let (leadership, campaign) = elect(config.leader_election.as_ref(), client.clone(), &metrics, &resign)?;
    let writer = Writer::new(client.clone(), leadership.clone(), metrics.clone(), config.max_inflight_writes);
    let (events, event_writer) = Events::new(client.clone(), leadership.clone(), metrics.clone(), config.allocation_events);
    tokio::spawn(event_writer.run());
    let shell = Shell {
        client: client.clone(),
        writer,
        events,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        leadership,
        shutdown: config.shutdown.clone(),
    };
    let settings = settings(&config);
    let external_ips = match &config.external_ip_sources {
        Some(sources) => Some(ExternalIps::new(&shell, &settings.scope, sources, &user_agent)?),
        None => None,
    };
    let ipam = Ipam::new(&shell, settings);
    if let Some(external_ips) = &external_ips {
        ipam.share_with(external_ips.listener());
    }
    if let Some(listener) = health_listener {
        report_end("health", health::serve(listener, readiness, close.clone()));
    }
    if let Some(listener) = diagnostics_listener {
        let ledger: LedgerDump = Arc::new({
            let ipam = ipam.clone();
            move |pool| ipam.describe(pool)
        });
        serve_diagnostics(&config, listener, client, metrics, ledger, &close);
    }

    Ok(Manager { version: config.version, shell, ipam, external_ips, campaign, resign, close, namespace })
}

fn settings(config: &Config) -> ipam::Settings {
    ipam::Settings {
        scope: Scope { namespace: config.namespace.clone(), watch_filter: config.watch_filter.clone() },
        policy: Policy {
            honor_foreign_finalizers: config.honor_foreign_finalizers,
            release_orphans_namespaced: config.release_orphans != ReleaseOrphans::Nothing,
            release_orphans_global: config.release_orphans == ReleaseOrphans::All,
            external_ips: config.external_ip_sources.is_some(),
        },
    }
}

async fn bind(address: Option<&ListenAddress>) -> Result<Option<TcpListener>, RunError> {
    let Some(address) = address else {
        return Ok(None);
    };
    let bound = address.bind().await;
    bound.map(Some).map_err(|source| RunError::Listen { address: address.clone(), source })
}

fn serve_diagnostics(
    config: &Config,
    listener: TcpListener,
    client: Client,
    metrics: Metrics,
    ledger: LedgerDump,
    close: &Shutdown,
) {
    let Some(settings) = config.diagnostics.clone() else {
        return;
    };
    let close = close.clone();
    if settings.insecure {
        report_end("diagnostics", diagnostics::serve_insecure(listener, metrics, close));
    } else {
        let sources = Sources { metrics, log_level: config.log_level.clone(), ledger };
        report_end("diagnostics", async move { diagnostics::serve(listener, &settings.tls, client, sources, close).await });
    }
}

fn report_end<E: std::error::Error>(what: &'static str, serving: impl Future<Output = Result<(), E>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "{what} is served no more");
        }
    });
}

type Campaign = JoinHandle<CampaignEnd>;

fn elect(
    election: Option<&LeaderElection>,
    client: Client,
    metrics: &Metrics,
    resign: &Shutdown,
) -> Result<(Leadership, Option<Campaign>), RunError> {
    let Some(election) = election.cloned() else {
        metrics.leader(true);
        return Ok((Leadership::always(), None));
    };
    let namespace = election.namespace.or_else(pod_namespace).ok_or(RunError::NoLeaseNamespace)?;
    let candidacy = Candidacy {
        namespace,
        name: election.name,
        identity: identity(),
        lease_duration: election.lease_duration,
        renew_deadline: election.renew_deadline,
        retry_period: election.retry_period,
    };
    let leadership = Leadership::elected();
    let running = campaign(client, candidacy, leadership.clone(), metrics.clone(), resign.clone());
    Ok((leadership, Some(tokio::spawn(running))))
}

fn pod_namespace() -> Option<String> {
    let text = std::fs::read_to_string("/var/run/secrets/kubernetes.io/serviceaccount/namespace").ok()?;
    Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}
