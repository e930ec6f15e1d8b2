//! A certificate of our own for the webhooks, for clusters without cert-manager. Begun by the manager with
//! `--webhook-self-signed`.
//!
//! Authority and certificate are in one Secret, which every replica reads and serves with. The leader makes and renews
//! them, and writes the authority where the API server looks for it: into the webhooks' registrations and the pools'
//! definitions, only where they name our Service. An authority is trusted everywhere before anything that it signed is served, and
//! an earlier one stays trusted beside it, so a renewal is not noticed by anybody.

mod drive;
mod issue;
mod observe;
mod plan;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;

use crate::kit::{
    leader::Leadership,
    writes::{WriteError, Writer},
};
use plan::{Facts, Service, Step};

/// The Secret with the certificate. Installed clusters have it under this name, whoever writes it.
const SECRET: &str = "capi-ipam-in-cluster-webhook-service-cert";

/// The Service in front of the webhooks, as it is installed.
const SERVICE: &str = "capi-ipam-in-cluster-webhook-service";

/// Pause between two looks while all is well.
const EVERY: Duration = Duration::from_secs(15);

/// Pause after a change, and while there is no certificate yet.
const SOON: Duration = Duration::from_secs(1);

/// Pause after an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// What a listener shows, and what it signs with.
#[derive(Clone, Eq, PartialEq)]
pub struct Pair {
    /// The certificate as PEM.
    pub certificate: Vec<u8>,
    /// Its private key as PEM.
    pub key: Vec<u8>,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pair")
    }
}

/// With what certificates are kept.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) writer: Writer,
    pub(crate) leadership: Leadership,
    /// Where Secret and Service are.
    pub(crate) namespace: String,
}

/// Why the certificate could not be looked at or renewed.
#[derive(Debug, thiserror::Error)]
enum ServingError {
    #[error(transparent)]
    Exchange(#[from] WriteError),
    #[error("cannot make a request: {0}")]
    Request(#[from] kube::core::request::Error),
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// Keeps the certificate, and hands it out, until it is dropped.
pub(crate) async fn run(context: Context, kept: watch::Sender<Option<Pair>>) {
    loop {
        let pause = look(&context, &kept).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the webhook certificate cannot be looked after");
            AFTER_ERROR
        });
        tokio::time::sleep(pause).await;
    }
}

/// Looks once, does what is due, and says how long to wait.
async fn look(context: &Context, kept: &watch::Sender<Option<Pair>>) -> Result<Duration, ServingError> {
    let stored = observe::stored(context).await?;
    if let Some(pair) = stored.as_ref().and_then(|stored| stored.pair.clone()) {
        kept.send_if_modified(|old| old.replace(pair.clone()) != Some(pair));
    }
    if !context.leadership.may_write() {
        return Ok(if kept.borrow().is_some() { EVERY } else { SOON });
    }
    let facts = Facts {
        registrations: if stored.is_some() { observe::registrations(context).await? } else { Vec::new() },
        stored,
        service: Service { namespace: context.namespace.clone(), name: SERVICE.to_owned() },
    };
    let plan = plan::plan(&facts, Timestamp::now());
    let is_settled = plan.step == Step::Keep && plan.patches.is_empty();
    drive::drive(context, &facts, plan).await?;
    Ok(if is_settled { EVERY } else { SOON })
}
