//! Every row of the decision table, over facts that are built in one place from the common case: a live claim that lacks nothing but
//! an address.

mod holds;
mod release;
mod serve;
mod totality;

use api::PoolKind;
use api::capi::{CapiVersion, ClaimConditions, ClaimReady, ReadyView, status_patch};
use api::externalip::names::PUBLISHED;
use api::names::{PROTECT_ADDRESS, RELEASE_ADDRESS};
use api::reasons::ClaimReason;

use super::*;
use crate::ipam::facts::{
    AddressFacts, ClaimFacts, Contest, Denial, Memory, MotionFacts, Policy, Relation, ReservedFacts, Wishes,
};

/// The time of every plan, in seconds.
const NOW: i64 = 10_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn span(text: &str) -> Span {
    Span::parse_host(text).unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

/// Facts under construction.
#[derive(Clone)]
struct Given(Facts);

impl Given {
    /// The claim team-a/web-0 on pool blue, live, with our finalizer, without an address.
    fn live() -> Self {
        let claim = ClaimFacts {
            uid: Uid::new("c1"),
            revision: Revision::new("7"),
            generation: 1,
            deleting: None,
            moving: false,
            paused: false,
            finalizers: texts(&[RELEASE_ADDRESS]),
            release_now: false,
            lost: None,
            bound: false,
            conditions: ClaimConditions::default(),
            cluster_label: None,
        };
        let pool = PoolView {
            kind: PoolKind::InClusterIPPool,
            name: "blue".to_owned(),
            uid: Uid::new("p1"),
            paused: false,
            deleting: false,
            trouble: None,
            grace: Duration::ZERO,
            prefix: 24,
            gateway: "10.0.0.1".to_owned(),
            total: "2".to_owned(),
            used: 2,
        };
        Self(Facts {
            namespace: "team-a".to_owned(),
            name: "web-0".to_owned(),
            capi: CapiVersion::V1beta2,
            claim: Some(claim),
            cluster: ClusterFacts::Unnamed,
            pool: PoolFacts::Known(Box::new(pool)),
            address: None,
            reservation: None,
            refused: None,
            wishes: Wishes::default(),
            motion: MotionFacts::default(),
            policy: Policy {
                honor_foreign_finalizers: true,
                release_orphans_namespaced: true,
                release_orphans_global: false,
                external_ips: true,
            },
        })
    }

    /// The same, deleted so many seconds ago.
    fn deleting(ago: i64) -> Self {
        Self::live().claim(|claim| claim.deleting = Some(NOW - ago))
    }

    /// No claim of that name, but a deleting address that an earlier one left.
    fn orphan(ago: i64) -> Self {
        let mut given = Self::live().address(|address| address.deleting = Some(NOW - ago));
        given.0.claim = None;
        given
    }

    fn claim(mut self, change: impl FnOnce(&mut ClaimFacts)) -> Self {
        change(self.0.claim.as_mut().unwrap());
        self
    }

    fn unprotected(self) -> Self {
        self.claim(|claim| claim.finalizers.clear())
    }

    /// Published, as we publish.
    fn bound(self) -> Self {
        self.claim(|claim| {
            claim.bound = true;
            claim.conditions = conditions(ClaimReason::AddressAllocated, "allocated 10.0.0.10/24");
        })
    }

    /// The claim says already that it is not ready.
    fn told(self, reason: ClaimReason, message: &str) -> Self {
        self.claim(|claim| claim.conditions = conditions(reason, message))
    }

    fn pool(mut self, change: impl FnOnce(&mut PoolView)) -> Self {
        let PoolFacts::Known(pool) = &mut self.0.pool else { unreachable!("the pool is known here") };
        change(pool);
        self
    }

    fn no_pool(mut self) -> Self {
        self.0.pool = PoolFacts::Absent(PoolKind::InClusterIPPool, "blue".to_owned());
        self
    }

    fn cluster(mut self, cluster: ClusterFacts) -> Self {
        self.0.cluster = cluster;
        self
    }

    /// The complete, live address 10.0.0.10/24 that somebody else made for the claim.
    fn address(mut self, change: impl FnOnce(&mut AddressFacts)) -> Self {
        let address = self.0.address.get_or_insert_with(|| AddressFacts {
            uid: Uid::new("a1"),
            revision: Revision::new("8"),
            deleting: None,
            moving: false,
            relation: Relation::Ours,
            claim_uid: Some(Uid::new("c1")),
            span: Some(span("10.0.0.10")),
            text: "10.0.0.10/24".to_owned(),
            finalizers: texts(&[PROTECT_ADDRESS]),
            repair: None,
            fresh: false,
            made_here: false,
            contest: None,
        });
        change(address);
        self
    }

    /// The same, made by this very process.
    fn own_address(self) -> Self {
        self.address(|address| (address.fresh, address.made_here) = (true, true))
    }

    fn reserved(mut self, state: ReservationState, age: u64) -> Self {
        self.0.reservation = Some(ReservedFacts { span: span("10.0.0.10"), state, age: seconds(age) });
        self
    }

    fn wishes(mut self, wishes: Wishes) -> Self {
        self.0.wishes = wishes;
        self
    }

    fn refused(mut self, wish: Wish, denial: Denial) -> Self {
        self.0.refused = Some((wish, denial));
        self
    }

    fn motion(mut self, change: impl FnOnce(&mut MotionFacts)) -> Self {
        change(&mut self.0.motion);
        self
    }

    /// It has waited for this, so long already.
    fn waits(self, waiting: Waiting, age: Duration) -> Self {
        self.motion(|motion| motion.waiting = Some((waiting, age)))
    }

    fn policy(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(&mut self.0.policy);
        self
    }

    fn plan(&self) -> Plan {
        plan(&self.0, now())
    }

    fn row(&self) -> Row {
        self.plan().row
    }

    /// The steps that write the condition, and tell of it.
    fn tells(&self, reason: ClaimReason, event: EventReason, message: &str) -> Vec<Step> {
        let claim = self.0.claim.as_ref().unwrap();
        let ready = ClaimReady { reason, message: message.to_owned(), observed_generation: Some(1) };
        let patch = status_patch(&claim.conditions, &ready, None, CapiVersion::V1beta2, "7", now());
        vec![Step::Tell { patch, revision: Revision::new("7") }, Step::Event(event, message.to_owned())]
    }
}

/// Both flavours of `Ready`, as they stand after we wrote them.
fn conditions(reason: ClaimReason, message: &str) -> ClaimConditions {
    let status = if reason.is_ready() { "True" } else { "False" }.to_owned();
    let last_transition_time = "1970-01-01T00:00:00Z".to_owned();
    let said = |text: &str| if reason.is_ready() { String::new() } else { text.to_owned() };
    ClaimConditions {
        legacy_ready: Some(ReadyView {
            status: status.clone(),
            reason: said(reason.as_str()),
            message: said(message),
            observed_generation: None,
            last_transition_time: last_transition_time.clone(),
            place: 0,
        }),
        new_ready: Some(ReadyView {
            status,
            reason: reason.as_str().to_owned(),
            message: message.to_owned(),
            observed_generation: Some(1),
            last_transition_time,
            place: 0,
        }),
        ..ClaimConditions::default()
    }
}

fn protect() -> Step {
    Step::ProtectClaim(ClaimWrite { revision: Revision::new("7"), finalizers: texts(&[RELEASE_ADDRESS]) })
}

fn release_claim_step(finalizers: &[&str]) -> Step {
    Step::ReleaseClaim { uid: Uid::new("c1"), finalizers: texts(finalizers) }
}

fn give_up_step() -> Step {
    Step::GiveUp { revision: Revision::new("7"), uid: Uid::new("a1") }
}

fn delete_step(why: Deletion) -> Step {
    Step::DeleteAddress { uid: Uid::new("a1"), revision: Revision::new("8"), why, text: "10.0.0.10/24".to_owned() }
}

fn unprotect_step(finalizers: &[&str]) -> Step {
    Step::UnprotectAddress { uid: Uid::new("a1"), finalizers: texts(finalizers) }
}

fn release_orphan_step() -> Step {
    Step::ReleaseOrphan { uid: Uid::new("a1"), finalizers: texts(&[PROTECT_ADDRESS]), claim_uid: Some(Uid::new("c1")) }
}

fn event(reason: EventReason, text: &str) -> Step {
    Step::Event(reason, text.to_owned())
}

fn bind_step(given: &Given, text: &str, finalizer: Option<ClaimWrite>) -> Step {
    let PoolFacts::Known(pool) = &given.0.pool else { unreachable!("nothing is bound without a pool") };
    Step::Bind { span: span(text), claim_uid: Uid::new("c1"), cluster_label: None, pool: pool.clone(), finalizer }
}
