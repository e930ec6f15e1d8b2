//! Carries out the steps of a plan, as the driver does: the same requests in the same order, and the same reports to the world.
//!
//! The real driver is a future and cannot be copied, so its course is written here a second time, as a table from request and answer to
//! what follows. It holds three decisions that `plan` knows nothing of, and they are kept to the letter: whether an address of the
//! refused name is an earlier try of ours; that an orphan is let go only if a live read does not show its claim; and that a value is
//! given back, or the watch started over, after a live read.

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use api::capi::CapiVersion;
use poolutil::Span;

use super::process::{At, Clock, Process, Sight};
use super::server::{Answer, Kind, NAMESPACE, Object, digest, get};
use super::{Broken, NAMES};
use crate::ipam::compact::{Revision, Uid};
use crate::ipam::facts::ClaimFacts;
use crate::ipam::objects::Objects;
use crate::ipam::plan::{ClaimWrite, Deletion, Plan, Step};
use crate::ipam::records::Slot;
use crate::kit::writes::WriteRequest;

/// After a write to something that is not there, when no watch says more.
const REFUSED: Duration = Duration::from_secs(300);
const FENCED: Duration = Duration::from_secs(1);

/// A plan on its way.
#[derive(Debug, Clone)]
pub struct Task {
    pub slot: Slot,
    name: usize,
    claim: Option<Uid>,
    going: bool,
    steps: std::vec::IntoIter<Step>,
    recheck: Option<Duration>,
    origin: u64,
    /// The requests of the step under way.
    pub flights: Vec<Flight>,
    failure: Option<Failure>,
}

/// A request that was sent.
#[derive(Debug, Clone)]
pub struct Flight {
    pub request: Rc<WriteRequest>,
    pub digest: u64,
    pub sent: Clock,
    /// What is on its way back.
    pub answer: Option<Answer>,
    doing: Doing,
}

impl Flight {
    /// Whether the watch of addresses starts over at this answer.
    pub fn restarts_watch(&self, answer: &Answer) -> bool {
        matches!((&self.doing, answer), (Doing::Redeliver, Answer::Done(_)))
    }
}

/// What a request is for.
#[derive(Debug, Clone)]
enum Doing {
    Protect(Revision),
    Create { span: Span, claim: Uid },
    Compare { span: Span, claim: Uid },
    GiveUp(Revision),
    Repair(Revision),
    Publish(Revision),
    Tell(Revision),
    Delete { uid: Uid, why: Deletion },
    Unprotect { uid: Uid, why: Option<Deletion> },
    ReleaseClaim,
    AskOwner { uid: Uid, finalizers: Vec<String>, owner: Option<Uid> },
    Confirm,
    ConfirmBereft { claim: Uid, shown: Option<Revision> },
    AskAlive { claim: Uid, untold: bool, next: Box<(Doing, WriteRequest)> },
    Redeliver,
    LookForClaim(Uid),
}

/// When to look again after a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Failure {
    /// At once; the pause before is as good as none.
    Again,
    /// When something changes.
    Wait,
}

/// What follows an answer.
enum Then {
    Nothing,
    Send(Box<(Doing, WriteRequest)>),
    Fail(Failure),
}

impl Task {
    pub fn new(slot: Slot, name: usize, claim: Option<&ClaimFacts>, plan: Plan) -> Self {
        let going = claim.is_some_and(|claim| claim.deleting.is_some());
        let claim = claim.map(|claim| claim.uid.clone());
        let origin = digest(&format!("{claim:?} {going:?} {:?} {:?}", plan.row, plan.steps));
        Self {
            slot,
            name,
            claim,
            going,
            steps: plan.steps.into_iter(),
            recheck: plan.recheck,
            origin,
            flights: Vec::new(),
            failure: None,
        }
    }

    pub fn fingerprint(&self, at: At) -> u64 {
        let mut state = std::collections::hash_map::DefaultHasher::new();
        (self.origin, self.steps.len(), self.recheck, self.failure).hash(&mut state);
        for flight in &self.flights {
            (flight.digest, at.clock - flight.sent, &flight.answer).hash(&mut state);
            std::mem::discriminant(&flight.doing).hash(&mut state);
        }
        state.finish()
    }

    fn objects(&self) -> Objects<'static> {
        Objects { namespace: NAMESPACE, name: NAMES[self.name], version: CapiVersion::V1beta2 }
    }

    fn send(&mut self, doing: Doing, request: WriteRequest, at: At) {
        let digest = digest(&(request.method().as_str(), request.uri().path(), request.body()));
        self.flights.push(Flight { request: Rc::new(request), digest, sent: at.clock, answer: None, doing });
    }
}

impl Process {
    /// Begins the next step of a task that has no request under way, or ends the task.
    pub fn proceed(&mut self, name: usize, at: At) {
        loop {
            let Some(task) = self.tasks.get_mut(&name).filter(|task| task.flights.is_empty()) else { return };
            let (slot, failure) = (task.slot, task.failure);
            let step = task.steps.next().filter(|_| failure.is_none());
            if let Some(step) = step {
                self.begin(name, step, at);
                continue;
            }
            let recheck = task.recheck;
            self.tasks.remove(&name);
            self.heed(at);
            self.world().sweep(slot);
            match failure {
                None => self.rest(slot, recheck, at),
                Some(Failure::Again) => self.push(slot),
                Some(Failure::Wait) => self.rest(slot, Some(REFUSED), at),
            }
        }
    }

    fn begin(&mut self, name: usize, step: Step, at: At) {
        let Some(task) = self.tasks.get_mut(&name) else { return };
        let slot = task.slot;
        let objects = task.objects();
        let protect = |write: &ClaimWrite| (Doing::Protect(write.revision.clone()), objects.protect_claim(write));
        let (doing, (_, request)) = match step {
            Step::ProtectClaim(write) => protect(&write),
            Step::Bind { span, claim_uid, cluster_label, pool, finalizer } => {
                let goes = Rc::make_mut(&mut self.world).sends(slot, &claim_uid, span);
                if goes {
                    let (_, request) = objects.create_address(span, &claim_uid, cluster_label.as_deref(), &pool, None);
                    task.send(Doing::Create { span, claim: claim_uid }, request.unwrap(), at);
                }
                if let Some(write) = finalizer {
                    let (doing, (_, request)) = protect(&write);
                    task.send(doing, request.unwrap(), at);
                }
                return;
            }
            Step::GiveUp { .. } if at.broken == Some(Broken::GivesUpInSilence) => return,
            Step::GiveUp { revision, uid } => (Doing::GiveUp(revision.clone()), objects.give_up(&revision, &uid)),
            Step::Repair { revision, repair } => {
                let (_, request) = objects.repair_address(&revision, &repair);
                let (claim, next) = (task.claim.clone(), (Doing::Repair(revision), request.unwrap()));
                if let Some(claim) = claim.clone().filter(|_| repair.changes_owner) {
                    let ask = Doing::AskAlive { claim, untold: repair.untold, next: Box::new(next) };
                    return task.send(ask, get(Kind::Claims, name), at);
                }
                if let Some(claim) = claim.filter(|_| repair.untold) {
                    Rc::make_mut(&mut self.world).adopts(&claim);
                }
                return task.send(next.0, next.1, at);
            }
            Step::Publish { patch, revision, .. } => (Doing::Publish(revision), objects.claim_status(&patch)),
            Step::Tell { patch, revision } => (Doing::Tell(revision), objects.claim_status(&patch)),
            Step::DeleteAddress { uid, revision, why, .. } => {
                let (target, mut request) = objects.delete_address(&uid, &revision);
                if at.broken == Some(Broken::DeletesAnyVersion)
                    && let Ok(request) = &mut request
                {
                    request.body_mut().clear();
                }
                (Doing::Delete { uid, why }, (target, request))
            }
            Step::UnprotectAddress { uid, finalizers } => match objects.unprotect_address(&uid, &finalizers) {
                Some(request) => (Doing::Unprotect { uid, why: None }, request),
                None => return,
            },
            Step::ReleaseClaim { uid, finalizers } => match objects.release_claim(&uid, &finalizers) {
                Some(request) => (Doing::ReleaseClaim, request),
                None => return,
            },
            Step::ReleaseOrphan { uid, finalizers, claim_uid } => {
                return task.send(Doing::AskOwner { uid, finalizers, owner: claim_uid }, get(Kind::Claims, name), at);
            }
            Step::Unpublish { .. } => unreachable!("no claim here is a Service's"),
            Step::ConfirmAbsent => return task.send(Doing::Confirm, get(Kind::Addresses, name), at),
            Step::ConfirmBereft { uid, shown } => {
                return task.send(Doing::ConfirmBereft { claim: uid, shown }, get(Kind::Addresses, name), at);
            }
            Step::RestartWatch => return task.send(Doing::Redeliver, get(Kind::Addresses, name), at),
            Step::Remember(span) => return self.world().remember(slot, span),
            Step::Event(..) => return,
        };
        task.send(doing, request.unwrap(), at);
    }

    /// A request is answered, or not in time.
    pub fn answered(&mut self, name: usize, flight: usize, answer: &Answer, at: At) {
        let Some(task) = self.tasks.get_mut(&name) else { return };
        let doing = task.flights.remove(flight).doing;
        let creates = matches!(doing, Doing::Create { .. } | Doing::Compare { .. });
        let then = self.follow(name, doing, answer.clone(), at);
        let Some(task) = self.tasks.get_mut(&name) else { return };
        match then {
            Then::Send(next) => task.send(next.0, next.1, at),
            // Of two requests sent together it is the creation whose failure counts.
            Then::Fail(failure) if creates => task.failure = Some(failure),
            Then::Fail(failure) => task.failure = task.failure.or(Some(failure)),
            Then::Nothing => {}
        }
        self.proceed(name, at);
        self.heed(at);
    }

    fn follow(&mut self, name: usize, doing: Doing, answer: Answer, at: At) -> Then {
        let again = Then::Fail(Failure::Again);
        let slot = self.tasks[&name].slot;
        match (doing, answer) {
            (Doing::Create { span, claim }, Answer::AlreadyExists) => {
                Then::Send(Box::new((Doing::Compare { span, claim }, get(Kind::Addresses, name))))
            }
            (Doing::Create { .. }, Answer::NotFound) => {
                self.world().not_made(slot);
                self.look_for_claim(name)
            }
            (Doing::Compare { span, claim }, answer @ (Answer::Done(_) | Answer::NotFound)) => {
                self.compared(slot, span, &claim, &answer);
                self.rest(slot, Some(FENCED), at);
                Then::Nothing
            }
            (Doing::Delete { uid, why }, Answer::NotFound) => {
                self.world().deleted(slot, &uid);
                self.gone(slot, Some(why));
                Then::Nothing
            }
            (Doing::Unprotect { uid, why }, Answer::NotFound) => {
                self.removed(name, slot, &uid);
                self.gone(slot, why);
                Then::Nothing
            }
            (Doing::ReleaseClaim | Doing::AskAlive { .. }, Answer::NotFound) => Then::Nothing,
            (Doing::AskOwner { uid, finalizers, .. }, Answer::NotFound) => self.unprotect(name, uid, &finalizers, None),
            (Doing::Confirm, Answer::NotFound) => {
                self.world().not_made(slot);
                self.rest(slot, Some(FENCED), at);
                Then::Nothing
            }
            (Doing::ConfirmBereft { claim, .. }, Answer::NotFound) => {
                self.bereft(slot, &claim);
                Then::Nothing
            }
            (Doing::Redeliver, Answer::NotFound) => {
                self.world().not_made(slot);
                self.push(slot);
                Then::Nothing
            }
            (Doing::LookForClaim(claim), Answer::NotFound) => {
                self.world().bury(slot, &claim);
                Then::Fail(Failure::Wait)
            }
            (_, Answer::NotFound) => self.look_for_claim(name),
            (_, Answer::Conflict | Answer::AlreadyExists | Answer::Silence) => again,
            (doing, Answer::Done(object)) => self.done(name, doing, &object, at),
        }
    }

    fn done(&mut self, name: usize, doing: Doing, object: &Rc<Object>, at: At) -> Then {
        let slot = self.tasks[&name].slot;
        let revision = Revision::new(object.value["metadata"]["resourceVersion"].as_str().unwrap());
        match doing {
            Doing::Protect(before) | Doing::GiveUp(before) | Doing::Tell(before) => {
                if revision != before {
                    self.world().wrote_claim(slot, &before);
                }
            }
            Doing::Repair(before) => {
                if revision != before {
                    self.world().wrote_address(slot, &before);
                }
            }
            Doing::Publish(before) => {
                if revision != before {
                    self.world().wrote_claim(slot, &before);
                }
                self.world().published(slot);
            }
            Doing::Create { .. } => {
                self.world().answered(slot, Uid::new(object.uid()));
                if at.broken == Some(Broken::AnswerCountsAsSeen) {
                    self.see(object, at, Sight::Changed);
                }
            }
            Doing::Delete { uid, why } => {
                self.world().deleted(slot, &uid);
                return self.unprotect(name, uid, &finalizers(object), Some(why));
            }
            Doing::Unprotect { uid, why } => {
                if finalizers(object).is_empty() {
                    self.removed(name, slot, &uid);
                }
                self.gone(slot, why);
            }
            Doing::AskOwner { uid, finalizers, owner } => {
                if Some(Uid::new(object.uid())) != owner {
                    return self.unprotect(name, uid, &finalizers, None);
                }
            }
            Doing::ConfirmBereft { claim, shown } if shown.as_ref() == Some(&revision) => self.bereft(slot, &claim),
            Doing::Confirm | Doing::ConfirmBereft { .. } => self.rest(slot, Some(FENCED), at),
            Doing::AskAlive { claim, untold, next } => {
                if Uid::new(object.uid()) == claim && !object.is_deleting() {
                    if untold {
                        self.world().adopts(&claim);
                    }
                    return Then::Send(next);
                }
            }
            Doing::Redeliver => {
                self.world().asked_again(slot);
                return Then::Nothing;
            }
            Doing::LookForClaim(claim) => {
                if Uid::new(object.uid()) != claim {
                    self.world().bury(slot, &claim);
                }
                return Then::Fail(Failure::Wait);
            }
            Doing::ReleaseClaim => {}
            Doing::Compare { .. } => unreachable!("compared before"),
        }
        Then::Nothing
    }

    fn look_for_claim(&self, name: usize) -> Then {
        match self.tasks[&name].claim.clone() {
            Some(claim) => Then::Send(Box::new((Doing::LookForClaim(claim), get(Kind::Claims, name)))),
            None => Then::Fail(Failure::Wait),
        }
    }

    fn removed(&mut self, name: usize, slot: Slot, uid: &Uid) {
        let task = &self.tasks[&name];
        let going = task.claim.clone().filter(|_| task.going);
        self.world().removed(slot, uid, going.as_ref());
    }

    fn bereft(&mut self, slot: Slot, claim: &Uid) {
        self.world().bereft(slot, claim);
        self.push(slot);
    }

    fn compared(&mut self, slot: Slot, span: Span, claim: &Uid, answer: &Answer) {
        match answer {
            Answer::Done(found) if found.held() == span.ip().to_string() && Uid::new(found.owner()) == *claim => {
                self.world().answered(slot, Uid::new(found.uid()));
            }
            _ => self.world().not_made(slot),
        }
    }

    fn unprotect(&mut self, name: usize, uid: Uid, finalizers: &[String], why: Option<Deletion>) -> Then {
        let slot = self.tasks[&name].slot;
        if let Some((_, request)) = self.tasks[&name].objects().unprotect_address(&uid, finalizers) {
            return Then::Send(Box::new((Doing::Unprotect { uid, why }, request.unwrap())));
        }
        self.gone(slot, why);
        Then::Nothing
    }

    /// The address is deleted.
    fn gone(&mut self, slot: Slot, why: Option<Deletion>) {
        if why == Some(Deletion::Lost) {
            self.world().collided(slot);
        }
    }
}

fn finalizers(object: &Object) -> Vec<String> {
    serde_json::from_value(object.value["metadata"]["finalizers"].clone()).unwrap_or_default()
}
