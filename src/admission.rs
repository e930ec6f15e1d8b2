//! Serves the webhooks beside the work: joins their listener to the view, the metrics and the readiness of the manager.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use controllers::Manager;
use controllers::ipam::{Ipam, admission};
use controllers::kit::health::{Check, Readiness};
use controllers::kit::metrics::Metrics;
use poolutil::{Pool, RangeSet};
use webhooks::{
    CertificateFiles, CertificateState, InUse, NotSynced, Partner, PoolIndex, PoolName, RELOAD_EVERY, Report, Scope, Tls,
    Webhooks,
};

use crate::flags::WebhookSettings;

/// The readiness check of the certificate.
const CHECK: &str = "webhook certificate";

/// Listens, and serves until the manager closes. Every replica does, whether it leads or not.
pub async fn serve(manager: &Manager, settings: WebhookSettings, scope: Scope) -> anyhow::Result<()> {
    let listener = settings.address.bind().await.with_context(|| format!("cannot listen on {}", settings.address))?;
    let offer = settings.tls.offer().context("the TLS settings leave nothing to offer")?;
    manager.readiness().set(CHECK, Check::Waiting("not loaded yet".to_owned()));
    let files = CertificateFiles { certificate: settings.certificate, key: settings.key };
    let report = Told { metrics: manager.metrics().clone(), readiness: manager.readiness().clone() };
    let webhooks = Webhooks { index: Arc::new(View(manager.ipam().clone())), scope, report: Arc::new(report) };
    let closing = manager.closing().clone();
    tokio::spawn(async move {
        let tls = Tls { offer, files, reload_every: RELOAD_EVERY };
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
