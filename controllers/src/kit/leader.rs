//! Leadership as a claim with an expiry: the campaign keeps it alive, each write asks it first.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_leader_election::{LeaseLock, LeaseLockParams, LeaseLockResult};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{metrics::Metrics, shutdown::Shutdown};

/// A write begun this short before the expiry might still be on its way after it.
const MARGIN: Duration = Duration::from_secs(2);
/// Two candidates may both patch an expired lease: the later patch stands. After this long the
/// other one's patch has arrived, so reading the lease back tells who won.
const SETTLE: Duration = Duration::from_millis(250);

/// Whether this process may write. Cheap to clone; all clones say the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    claim: Arc<watch::Sender<Claim>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    /// There is no election.
    Always,
    /// Not won yet.
    NotYet,
    /// Won, and good until then on the monotonic clock.
    Until(Instant),
    /// Won once, and no more. Final.
    Lost,
}

impl Leadership {
    /// Without an election: this process always leads.
    pub fn always() -> Self {
        Self::with(Claim::Always)
    }

    /// With an election that [`campaign`] has yet to win.
    pub fn elected() -> Self {
        Self::with(Claim::NotYet)
    }

    fn with(claim: Claim) -> Self {
        Self { claim: Arc::new(watch::Sender::new(claim)) }
    }

    /// Whether there is an election at all, and so perhaps a former leader.
    pub fn is_elected(&self) -> bool {
        !matches!(*self.claim.borrow(), Claim::Always)
    }

    /// Whether a write that starts now ends before anybody else can lead.
    pub fn may_write(&self) -> bool {
        match *self.claim.borrow() {
            Claim::Always => true,
            Claim::Until(expiry) => Instant::now() + MARGIN < expiry,
            Claim::NotYet | Claim::Lost => false,
        }
    }

    /// Whether this process leads.
    pub fn is_leader(&self) -> bool {
        match *self.claim.borrow() {
            Claim::Always => true,
            Claim::Until(expiry) => Instant::now() < expiry,
            Claim::NotYet | Claim::Lost => false,
        }
    }

    /// Returns when this process leads; never if it led before and lost.
    pub async fn acquired(&self) {
        let leads = |claim: &Claim| matches!(claim, Claim::Always | Claim::Until(_));
        // The sender lives in `self`, so the channel cannot be closed while we wait.
        let _ = self.claim.subscribe().wait_for(leads).await;
    }

    /// Returns when this process led and does so no more, be it given up, taken or run out.
    pub async fn lost(&self) {
        let mut seen = self.claim.subscribe();
        loop {
            let claim = *seen.borrow_and_update();
            let changed = match claim {
                Claim::Lost => return,
                Claim::Always | Claim::NotYet => seen.changed().await,
                Claim::Until(expiry) => {
                    if let Ok(changed) = tokio::time::timeout_at(expiry, seen.changed()).await {
                        changed
                    } else {
                        return;
                    }
                }
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn hold_until(&self, expiry: Instant) {
        self.claim.send_replace(Claim::Until(expiry));
    }

    fn lose(&self) {
        self.claim.send_replace(Claim::Lost);
    }
}

/// The lease to campaign for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Candidacy {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who we are: `<hostname>_<uuid>`.
    pub identity: String,
    /// How long the lease holds after each renewal.
    pub lease_duration: Duration,
    /// How long to go on trying to renew.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry_period: Duration,
}

/// A name for this process that no other has: `<hostname>_<uuid>`.
pub fn identity() -> String {
    format!("{}_{}", hostname(), uuid::Uuid::new_v4())
}

/// The host's name, in a pod the pod's.
pub(crate) fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

/// How a campaign ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CampaignEnd {
    /// The process is stopping; the lease, if held, was given up.
    GivenUp,
    /// The lease was held and is lost. Nothing may be written any more.
    Lost,
}

/// Takes the lease when it is free and renews it until it is lost or `stop` is requested: that is
/// when the last write was answered, later than the request to stop working.
///
/// 1. Try to take or renew, for at most the rest of the renew deadline.
/// 2. After a win read the lease back once; only if it names us, we lead.
/// 3. The claim is good for the lease duration, counted from *before* the request.
/// 4. Somebody else holds what we held, or no renewal within the deadline: lost, for good.
pub async fn campaign(
    client: Client,
    candidacy: Candidacy,
    leadership: Leadership,
    metrics: Metrics,
    stop: Shutdown,
) -> CampaignEnd {
    let end = hold_and_renew(client, candidacy, &leadership, &metrics, &stop).await;
    metrics.leader(false);
    end
}

async fn hold_and_renew(
    client: Client,
    candidacy: Candidacy,
    leadership: &Leadership,
    metrics: &Metrics,
    stop: &Shutdown,
) -> CampaignEnd {
    // What the lease says: it counts in whole seconds.
    let lease_ttl = Duration::from_secs(candidacy.lease_duration.as_secs());
    let params = LeaseLockParams { lease_name: candidacy.name.clone(), holder_id: candidacy.identity.clone(), lease_ttl };
    let lock = LeaseLock::new(client.clone(), &candidacy.namespace, params);
    let leases: Api<Lease> = Api::namespaced(client, &candidacy.namespace);
    let mut renewed: Option<Instant> = None;
    loop {
        let started = Instant::now();
        let deadline = renewed.unwrap_or(started) + candidacy.renew_deadline;
        // Half of the deadline, so that one lost answer leaves room for another try.
        let patience = deadline.min(started + candidacy.renew_deadline / 2);
        let turn = async {
            match lock.try_acquire_or_renew().await {
                Ok(LeaseLockResult::Acquired(lease)) if !is_held_by(&lease, &candidacy) => Turn::Theirs,
                Ok(LeaseLockResult::Acquired(_)) if renewed.is_some() => Turn::Ours,
                Ok(LeaseLockResult::Acquired(_)) => {
                    sleep(SETTLE).await;
                    match leases.get(&candidacy.name).await {
                        Ok(lease) if is_held_by(&lease, &candidacy) => Turn::Ours,
                        Ok(_) => Turn::Theirs,
                        Err(error) => Turn::Failed(error.to_string()),
                    }
                }
                Ok(LeaseLockResult::NotAcquired(_)) => Turn::Theirs,
                Err(error) => Turn::Failed(error.to_string()),
            }
        };
        let turn = tokio::select! {
            turn = turn => turn,
            () = sleep_until(patience) => Turn::Failed("no answer in time".to_owned()),
            () = stop.requested() => return give_up(&lock, &candidacy, leadership, renewed).await,
        };
        match turn {
            Turn::Ours => {
                if renewed.replace(started).is_none() {
                    tracing::info!(lease = %candidacy.name, namespace = %candidacy.namespace, identity = %candidacy.identity, "leading");
                    metrics.leader(true);
                }
                leadership.hold_until(started + lease_ttl);
            }
            Turn::Theirs if renewed.is_some() => {
                leadership.lose();
                tracing::error!(lease = %candidacy.name, "the lease was taken by another manager");
                return CampaignEnd::Lost;
            }
            Turn::Theirs => tracing::debug!(lease = %candidacy.name, "another manager leads"),
            Turn::Failed(error) => {
                tracing::warn!(lease = %candidacy.name, namespace = %candidacy.namespace, %error, "cannot take or renew the lease");
                if renewed.is_some() && Instant::now() + candidacy.retry_period >= deadline {
                    leadership.lose();
                    tracing::error!(lease = %candidacy.name, "the lease was not renewed in time");
                    return CampaignEnd::Lost;
                }
            }
        }
        tokio::select! {
            () = sleep(candidacy.retry_period) => {}
            () = stop.requested() => return give_up(&lock, &candidacy, leadership, renewed).await,
        }
    }
}

/// What one try brought.
enum Turn {
    Ours,
    Theirs,
    Failed(String),
}

fn is_held_by(lease: &Lease, candidacy: &Candidacy) -> bool {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    holder == Some(candidacy.identity.as_str())
}

/// Stops writing, then lets the next manager in at once instead of after the lease duration.
async fn give_up(lock: &LeaseLock, candidacy: &Candidacy, leadership: &Leadership, renewed: Option<Instant>) -> CampaignEnd {
    if renewed.is_some() {
        leadership.lose();
        match timeout(MARGIN, lock.step_down()).await {
            Ok(Ok(())) => tracing::info!(lease = %candidacy.name, "gave the lease up"),
            Ok(Err(error)) => {
                tracing::warn!(lease = %candidacy.name, %error, "cannot give the lease up");
            }
            Err(_) => tracing::warn!(lease = %candidacy.name, "no answer to giving the lease up"),
        }
    }
    CampaignEnd::GivenUp
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server with one lease, which may stop answering or let somebody else win.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        lease: Option<Value>,
        silent: bool,
        /// Takes the lease right after it was given to us.
        rival: Option<&'static str>,
    }

    impl Server {
        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap()
        }

        fn holder(&self) -> Option<String> {
            self.state().lease.as_ref()?["spec"]["holderIdentity"].as_str().map(str::to_owned)
        }

        fn client(&self) -> Client {
            let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
            let server = self.clone();
            tokio::spawn(async move {
                let mut unanswered = Vec::new();
                while let Some((request, send)) = handle.next_request().await {
                    if server.state().silent {
                        unanswered.push(send);
                        continue;
                    }
                    let method = request.method().clone();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let (code, answer) = server.answer(&method, serde_json::from_slice(&body).unwrap_or_default());
                    let answer = Body::from(serde_json::to_vec(&answer).unwrap());
                    send.send_response(Response::builder().status(code).body(answer).unwrap());
                }
            });
            Client::new(service, "default")
        }

        fn answer(&self, method: &Method, body: Value) -> (u16, Value) {
            let mut state = self.state();
            let answer = match (method, &mut state.lease) {
                (&Method::GET, Some(lease)) => lease.clone(),
                (&Method::GET, None) => {
                    return (404, json!({ "status": "Failure", "code": 404, "reason": "NotFound", "message": "" }));
                }
                (&Method::POST, lease) => lease.insert(body).clone(),
                (&Method::PATCH, Some(lease)) => {
                    for (field, value) in body["spec"].as_object().unwrap() {
                        lease["spec"][field] = value.clone();
                    }
                    lease.clone()
                }
                other => panic!("{other:?}"),
            };
            if let (false, Some(rival)) = (method == Method::GET, state.rival) {
                state.lease.as_mut().unwrap()["spec"]["holderIdentity"] = json!(rival);
            }
            (200, answer)
        }
    }

    fn candidacy() -> Candidacy {
        Candidacy {
            namespace: "system".to_owned(),
            name: "lease".to_owned(),
            identity: "us".to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    struct Running {
        leadership: Leadership,
        stop: Shutdown,
        metrics: Metrics,
        end: tokio::task::JoinHandle<CampaignEnd>,
    }

    fn run(server: &Server) -> Running {
        let (leadership, stop, metrics) = (Leadership::elected(), Shutdown::new(), Metrics::new("test"));
        let end = tokio::spawn(campaign(server.client(), candidacy(), leadership.clone(), metrics.clone(), stop.clone()));
        Running { leadership, stop, metrics, end }
    }

    #[test]
    fn without_an_election_we_always_lead() {
        assert!(Leadership::always().may_write() && Leadership::always().is_leader());
        assert!(!Leadership::elected().may_write() && !Leadership::elected().is_leader());
    }

    #[tokio::test(start_paused = true)]
    async fn writing_ends_two_seconds_before_the_claim_does() {
        let leadership = Leadership::elected();
        leadership.hold_until(Instant::now() + Duration::from_secs(15));
        leadership.acquired().await;
        tokio::time::advance(Duration::from_millis(12_999)).await;
        assert!(leadership.may_write());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(!leadership.may_write() && leadership.is_leader());
        leadership.lost().await;
        assert!(!leadership.is_leader());
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_lease_is_taken_and_given_up_on_request() {
        let server = Server::default();
        let running = run(&server);
        running.leadership.acquired().await;
        assert!(running.leadership.may_write());
        assert_eq!(server.holder().as_deref(), Some("us"));
        assert!(running.metrics.encode().unwrap().contains("ipam_leader 1"));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(running.leadership.may_write());
        running.stop.trigger();
        assert_eq!(running.end.await.unwrap(), CampaignEnd::GivenUp);
        assert_eq!(server.holder().as_deref(), Some(""));
        assert!(!running.leadership.may_write());
        assert!(running.metrics.encode().unwrap().contains("ipam_leader 0"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_another_holder_back_has_not_won() {
        let server = Server::default();
        server.state().rival = Some("them");
        let running = run(&server);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!running.leadership.is_leader());
        running.stop.trigger();
        assert_eq!(running.end.await.unwrap(), CampaignEnd::GivenUp);
        assert_eq!(server.holder().as_deref(), Some("them"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_somebody_took_is_lost_for_good() {
        let server = Server::default();
        let running = run(&server);
        running.leadership.acquired().await;
        server.state().lease.as_mut().unwrap()["spec"]["holderIdentity"] = json!("them");
        assert_eq!(running.end.await.unwrap(), CampaignEnd::Lost);
        running.leadership.lost().await;
        assert!(!running.leadership.may_write());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_cannot_be_renewed_is_lost_before_it_expires() {
        let server = Server::default();
        let running = run(&server);
        running.leadership.acquired().await;
        let won = Instant::now();
        server.state().silent = true;
        assert_eq!(running.end.await.unwrap(), CampaignEnd::Lost);
        let took = won.elapsed();
        assert!(took <= Duration::from_secs(10) && took >= Duration::from_secs(6), "{took:?}");
        assert!(!running.leadership.may_write());
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_is_survived() {
        let server = Server::default();
        let running = run(&server);
        running.leadership.acquired().await;
        server.state().silent = true;
        tokio::time::sleep(Duration::from_secs(4)).await;
        server.state().silent = false;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(running.leadership.may_write());
    }
}
