//! What people see besides the objects: events on Services and sources, and numbers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::externalip::ClusterExternalIPSource;
use api::externalip::names::EVENT_ACTION;
use kube::Resource as _;

use super::Ctx;
use super::facts::{ServiceKey, TroubleKind};
use super::plan::{Note, Standing};
use crate::kit::events::{ObjectRef, Severity};
use crate::kit::metrics::{AnswersShown, States};

/// How often numbers are gathered.
const COUNT: Duration = Duration::from_secs(5);

impl Ctx {
    /// Publishes an event on a Service.
    pub(super) fn notify_service(&self, key: &ServiceKey, uid: &str, note: &Note) {
        let object = ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: Some(key.namespace.clone()),
            name: key.name.clone(),
            uid: uid.to_owned(),
        };
        self.notify(object, note);
    }

    /// Publishes an event on a source.
    pub(super) fn notify_source(&self, name: &str, uid: &str, note: &Note) {
        let object = ObjectRef {
            api_version: ClusterExternalIPSource::api_version(&()).into_owned(),
            kind: ClusterExternalIPSource::kind(&()).into_owned(),
            namespace: None,
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        self.notify(object, note);
    }

    fn notify(&self, object: ObjectRef, Note { reason, text }: &Note) {
        let severity = if reason.is_warning() { Severity::Warning } else { Severity::Normal };
        self.events.publish_action(object, severity, EVENT_ACTION, reason.as_str(), text.clone());
    }

    fn count(&self) {
        let metrics = self.metrics.external_ips();
        let world = self.world();
        metrics.services(states(world.entries().map(|entry| entry.motion.standing)));
        metrics.sources(states(world.source_entries().map(|entry| entry.standing)));
        metrics.port_conflicts(world.cluster.conflicts());
        let fights =
            |entry: &&super::world::Entry| entry.motion.troubles.values().any(|trouble| trouble.kind == TroubleKind::Contended);
        metrics.contended(world.entries().filter(fights).count());
        let tallies = world.answers.tally(Instant::now());
        for solver in ["static", "dnsHostname", "ipAPI", "interface"] {
            let tally = tallies.get(solver).copied().unwrap_or_default();
            let shown = AnswersShown { all: tally.answers, held: tally.held, oldest_held: tally.oldest };
            metrics.answers(solver, shown);
        }
    }
}

fn states(standings: impl Iterator<Item = Option<Standing>>) -> States {
    let mut states = States::default();
    for standing in standings.flatten() {
        match standing {
            Standing::Ready => states.ready += 1,
            Standing::Degraded => states.degraded += 1,
            Standing::Failing => states.failing += 1,
        }
    }
    states
}

/// Shows the numbers, for ever.
pub async fn count(ctx: &Arc<Ctx>) {
    loop {
        ctx.count();
        tokio::time::sleep(COUNT).await;
    }
}
