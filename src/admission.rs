//! Serves the webhooks beside the work: joins their listener to the view, the metrics and the readiness of the manager.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use controllers::Manager;
use controllers::ipam::{Ipam, admission};
use controllers::kit::health::{Check, Readiness};
use controllers::kit::metrics::Metrics;
use controllers::serving::Pair;
use poolutil::{Cidr, Pool, RangeSet};
use tokio::sync::watch;
use webhooks::{
    CertificateFiles, CertificateKeeper, CertificateSource, CertificateState, InUse, NotSynced, Partner, PoolIndex, PoolName,
    RELOAD_EVERY, Report, Scope, Tls, Webhooks,
};

use crate::flags::{CertificateSettings, WebhookSettings};

/// The readiness check of the certificate.
const CHECK: &str = "webhook certificate";

/// How often the process looks whether it has made a new certificate: that costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Listens, and serves until the manager closes. Every replica does, whether it leads or not.
pub async fn serve(manager: &Manager, settings: WebhookSettings, scope: Scope, api_targets: Vec<Cidr>) -> anyhow::Result<()> {
    let listener = settings.address.bind().await.with_context(|| format!("cannot listen on {}", settings.address))?;
    let offer = settings.tls.offer().context("the TLS settings leave nothing to offer")?;
    manager.readiness().set(CHECK, Check::Waiting("not loaded yet".to_owned()));
    let (source, reload_every) = match settings.certificate {
        CertificateSettings::Files { certificate, key } => {
            (CertificateSource::Files(CertificateFiles { certificate, key }), RELOAD_EVERY)
        }
        CertificateSettings::SelfSigned => (CertificateSource::Keeper(Arc::new(Kept(manager.certify_webhooks()?))), LOOK_EVERY),
    };
    let report = Told { metrics: manager.metrics().clone(), readiness: manager.readiness().clone() };
    let index = Arc::new(View(manager.ipam().clone()));
    let webhooks = Webhooks { index, scope, api_targets: api_targets.into(), report: Arc::new(report) };
    let closing = manager.closing().clone();
    tokio::spawn(async move {
        let tls = Tls { offer, source, reload_every };
        if let Err(error) = webhooks::serve(listener, tls, webhooks, closing.requested()).await {
            tracing::error!(%error, "webhooks are served no more");
        }
    });
    Ok(())
}

/// What the allocator knows, as the webhooks ask for it.
struct View(Ipam);

impl PoolIndex for View {
    fn in_use(&self, pool: PoolName<'_>) -> Result<InUse, NotSynced> {
        let found = self.0.in_use(pool.kind, pool.namespace, pool.name).ok_or(NotSynced)?;
        Ok(InUse { objects: found.objects, values: found.values })
    }

    fn overlapping(&self, pool: PoolName<'_>, domain: &str, addresses: &RangeSet) -> Vec<Partner> {
        let found = self.0.overlapping(pool.kind, pool.namespace, pool.name, domain, addresses);
        found.into_iter().map(|(pool, common)| Partner { pool, common }).collect()
    }

    fn annotation_problems(&self, annotations: &BTreeMap<String, String>, space: &Pool) -> Vec<String> {
        admission::annotation_problems(annotations, space)
    }
}

/// The certificate that the manager makes itself.
#[derive(Debug)]
struct Kept(watch::Receiver<Option<Pair>>);

impl CertificateKeeper for Kept {
    fn pem(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        self.0.borrow().clone().map(|pair| (pair.certificate, pair.key))
    }
}

/// Who hears of answers and certificates.
struct Told {
    metrics: Metrics,
    readiness: Readiness,
}

impl Report for Told {
    fn answered(&self, path: &str, code: u16, took: Duration) {
        self.metrics.webhook(path, code, took);
    }

    fn certificate(&self, state: CertificateState) {
        let check = match state {
            CertificateState::Loaded => Check::Ready,
            CertificateState::Missing(reason) => Check::Waiting(reason),
        };
        self.readiness.set(CHECK, check);
    }
}
