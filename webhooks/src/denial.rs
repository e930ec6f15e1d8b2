//! Why something is not admitted, as the `Status` that its author reads.

use api::externalip::FieldError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause, StatusDetails};
use poolutil::SpecError;

use crate::index::NotSynced;

/// Why a request is not admitted.
#[derive(Debug, PartialEq)]
pub enum Denial {
    /// Rules about the spec are broken; there is at least one.
    Invalid {
        /// The kind of the object.
        kind: &'static str,
        /// The group of that kind.
        group: &'static str,
        /// The object's name.
        name: String,
        /// All of them.
        causes: Vec<Cause>,
    },
    /// What is asked would take something away that is in use, or cannot be changed.
    Refused(String),
    /// The request holds no such object.
    Unreadable(String),
    /// It cannot be decided yet.
    NotSynced,
}

/// One broken rule.
#[derive(Debug, PartialEq)]
pub struct Cause {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl From<&SpecError> for Cause {
    fn from(error: &SpecError) -> Self {
        let text = error.to_string();
        let message = text.strip_prefix(error.field).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
        Self { field: error.field.to_owned(), message: message.to_owned() }
    }
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        Self { field: error.field.clone(), message: error.message() }
    }
}

impl From<NotSynced> for Denial {
    fn from(NotSynced: NotSynced) -> Self {
        Self::NotSynced
    }
}

impl Denial {
    /// The HTTP code of the status.
    pub fn code(&self) -> u16 {
        match self {
            Self::Invalid { .. } => 422,
            Self::Refused(_) | Self::Unreadable(_) => 400,
            Self::NotSynced => 500,
        }
    }

    /// The status.
    pub fn status(self) -> Status {
        let code = Some(i32::from(self.code()));
        let (reason, message, details) = match self {
            Self::Invalid { kind, group, name, causes } => {
                let mut texts: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
                let text = if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) };
                let message = format!("{kind}.{group} {name:?} is invalid: {text}");
                ("Invalid", message, Some(details(kind, group, name, causes)))
            }
            Self::Refused(message) | Self::Unreadable(message) => ("BadRequest", message, None),
            Self::NotSynced => ("InternalError", NotSynced.to_string(), None),
        };
        Status {
            status: Some("Failure".to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message),
            details,
            code,
            ..Status::default()
        }
    }
}

fn details(kind: &str, group: &str, name: String, causes: Vec<Cause>) -> StatusDetails {
    let cause = |cause: Cause| StatusCause {
        field: Some(cause.field),
        message: Some(cause.message),
        reason: Some("FieldValueInvalid".to_owned()),
    };
    StatusDetails {
        name: Some(name),
        group: Some(group.to_owned()),
        kind: Some(kind.to_owned()),
        causes: Some(causes.into_iter().map(cause).collect()),
        ..StatusDetails::default()
    }
}

#[cfg(test)]
mod tests {
    use api::PoolKind;
    use api::names::IPAM_GROUP;
    use poolutil::Problem;
    use serde_json::json;

    use super::*;

    fn broken(errors: &[SpecError]) -> Status {
        let causes = errors.iter().map(Cause::from).collect();
        let (kind, group) = (PoolKind::InClusterIPPool.kind(), IPAM_GROUP);
        Denial::Invalid { kind, group, name: "blue".to_owned(), causes }.status()
    }

    #[test]
    fn all_broken_rules_are_in_the_message_and_among_the_causes() {
        let empty = SpecError { field: "spec.addresses", value: String::new(), problem: Problem::NoAddresses };
        let negative = SpecError { field: "spec.prefix", value: "-1".to_owned(), problem: Problem::NegativePrefix };
        assert_eq!(
            serde_json::to_value(broken(&[empty.clone(), negative])).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "Status",
                "metadata": {},
                "status": "Failure",
                "reason": "Invalid",
                "code": 422,
                "message": "InClusterIPPool.ipam.cluster.x-k8s.io \"blue\" is invalid: \
                    [spec.addresses: Invalid value: \"\": addresses is required, \
                    spec.prefix: Invalid value: -1: a valid prefix is required]",
                "details": {
                    "group": "ipam.cluster.x-k8s.io",
                    "kind": "InClusterIPPool",
                    "name": "blue",
                    "causes": [
                        {
                            "field": "spec.addresses",
                            "message": "Invalid value: \"\": addresses is required",
                            "reason": "FieldValueInvalid",
                        },
                        {
                            "field": "spec.prefix",
                            "message": "Invalid value: -1: a valid prefix is required",
                            "reason": "FieldValueInvalid",
                        },
                    ],
                },
            })
        );
        assert_eq!(
            broken(&[empty]).message.unwrap(),
            "InClusterIPPool.ipam.cluster.x-k8s.io \"blue\" is invalid: \
             spec.addresses: Invalid value: \"\": addresses is required"
        );
    }

    #[test]
    fn the_other_denials_say_who_is_to_act() {
        for (denial, code, reason) in [
            (Denial::Refused("no".to_owned()), 400, "BadRequest"),
            (Denial::Unreadable("what".to_owned()), 400, "BadRequest"),
            (Denial::NotSynced, 500, "InternalError"),
        ] {
            let status = denial.status();
            assert_eq!((status.code, status.reason.as_deref()), (Some(code), Some(reason)));
        }
        assert_eq!(Denial::NotSynced.status().message.unwrap(), "address index is not synced yet, retry");
    }
}
