//! Conditions of a Service, and the events that tell of their change.

use std::net::IpAddr;

use api::externalip::names::{PORT_CONFLICT, READY};
use api::externalip::reasons::{ExternalIpEvent, PortConflictReason, ServiceReason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::Note;
use crate::externalip::facts::{ServiceFacts, ServiceKey};

/// What the condition `Ready` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Why.
    pub reason: ServiceReason,
    /// For people.
    pub text: String,
}

impl Ready {
    /// Whether the condition is true.
    pub fn is_true(&self) -> bool {
        self.reason == ServiceReason::Assigned
    }
}

/// The conditions to write, if they differ from those in view, and what to tell of that.
pub fn of_service(
    service: &ServiceFacts,
    ready: Option<&Ready>,
    conflict: Option<&(IpAddr, ServiceKey)>,
    now: Timestamp,
) -> (Option<Vec<Condition>>, Vec<Note>) {
    let shared = conflict.map(|(ip, other)| format!("the older Service {other} has {ip} with the same port"));
    let ready = ready.map(|ready| condition(service, READY, ready.is_true(), ready.reason.as_str(), &ready.text, now));
    let shared =
        shared.map(|text| condition(service, PORT_CONFLICT, true, PortConflictReason::SharedAddressAndPort.as_str(), &text, now));
    let new: Vec<Condition> = [ready, shared].into_iter().flatten().collect();
    let is_known = |condition: &Condition| service.conditions.contains(condition);
    if new.len() == service.conditions.len() && new.iter().all(is_known) {
        return (None, Vec::new());
    }
    let notes = new.iter().filter(|condition| !is_known(condition)).filter_map(|condition| {
        let reason =
            if condition.type_ == PORT_CONFLICT { Some(ExternalIpEvent::PortConflict) } else { event(&condition.reason) };
        Some(Note { reason: reason?, text: condition.message.clone() })
    });
    let notes = notes.collect();
    (Some(new), notes)
}

/// A condition; the one in view if it says the same.
fn condition(service: &ServiceFacts, type_: &str, is_true: bool, reason: &str, text: &str, now: Timestamp) -> Condition {
    let old = service.conditions.iter().find(|condition| condition.type_ == type_);
    changed(old, type_, is_true, reason, text, now)
}

/// A condition after another of its type: its time changes only with its status.
pub fn changed(old: Option<&Condition>, type_: &str, is_true: bool, reason: &str, text: &str, now: Timestamp) -> Condition {
    let status = if is_true { "True" } else { "False" };
    let since = old.filter(|old| old.status == status).map_or(Time(now), |old| old.last_transition_time.clone());
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: text.to_owned(),
        last_transition_time: since,
        observed_generation: old.and_then(|old| old.observed_generation),
    }
}

/// The event that tells of a reason.
fn event(reason: &str) -> Option<ExternalIpEvent> {
    let reason = ServiceReason::ALL.iter().find(|known| known.as_str() == reason)?;
    match reason {
        ServiceReason::Assigned
        | ServiceReason::Resolving
        // The source tells it itself.
        | ServiceReason::SourceInvalid
        | ServiceReason::ClaimTerminating => None,
        ServiceReason::SourceNotFound => Some(ExternalIpEvent::UnknownExternalIPSource),
        ServiceReason::NotAllowed => Some(ExternalIpEvent::NotAllowed),
        ServiceReason::NoAddress
        | ServiceReason::PoolExhausted
        | ServiceReason::PoolNotFound
        | ServiceReason::AddressRefused => Some(ExternalIpEvent::FailedExternalIPLookup),
        ServiceReason::ClaimConflict => Some(ExternalIpEvent::ClaimConflict),
        ServiceReason::DeniedByAdmission => Some(ExternalIpEvent::DeniedByAdmission),
        ServiceReason::WriteRejected => Some(ExternalIpEvent::WriteRejected),
        ServiceReason::Contended => Some(ExternalIpEvent::Contended),
        ServiceReason::OutputUnavailable => Some(ExternalIpEvent::OutputUnavailable),
        ServiceReason::RecordInvalid => Some(ExternalIpEvent::RecordInvalid),
        ServiceReason::PortConflict => Some(ExternalIpEvent::PortConflict),
    }
}
