//! What came of a write that did not succeed, and what to do next.

use std::{fmt, time::Duration};

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::Target;

/// What to do after an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RetryClass {
    /// Look again at once: the facts have changed.
    Now,
    /// Back off, then try the same again.
    Later,
    /// Something else has to change first; a watch will say so.
    Wait,
    /// A person has to change something.
    Tell,
}

/// The write that an error is about, as it reads in messages: `patch ipaddressclaims at /apis/…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    target: Target,
    path: Box<str>,
}

impl Write {
    pub(crate) fn new(target: Target, path: &str) -> Self {
        Self { target, path: path.into() }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { verb, resource } = self.target;
        write!(f, "{verb} {resource} at {}", self.path)
    }
}

/// Why a write did not succeed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the fields: the write, and the server's words
pub enum WriteError {
    /// The object is no longer what the precondition says.
    #[error("{write}: the object has changed: {message}")]
    Conflict { write: Write, message: String },
    /// An object of that name is there already.
    #[error("{write}: {message}")]
    AlreadyExists { write: Write, message: String },
    /// The object, its namespace or its kind is not there.
    #[error("{write}: {message}")]
    NotFound { write: Write, message: String },
    /// The server has it no more.
    #[error("{write}: {message}")]
    Gone { write: Write, message: String },
    /// The server does not accept the content, or does not allow us to write it.
    #[error("{write}: refused with {code}: {message}")]
    Refused { write: Write, code: u16, message: String },
    /// The server asks to slow down. Nothing was written.
    #[error("{write}: too many requests: {message}")]
    Throttled { write: Write, retry_after: Option<Duration>, message: String },
    /// No usable answer. If `ambiguous`, the write may have happened or may yet happen.
    #[error("{write}: no usable answer: {message}")]
    Unavailable { write: Write, ambiguous: bool, retry_after: Option<Duration>, message: String },
    /// Nothing can be created in a namespace that is being deleted.
    #[error("{write}: the namespace is being deleted")]
    NamespaceTerminating { write: Write },
    /// Not sent: this process does not lead.
    #[error("{write}: not sent, another manager may lead")]
    Fenced { write: Write },
    /// Not sent: the caller changed its mind when its turn came.
    #[error("{write}: not sent, no longer wanted")]
    Withheld { write: Write },
    /// Not sent: the request cannot be built.
    #[error("not sent: {0}")]
    Malformed(#[from] kube::core::request::Error),
}

impl WriteError {
    /// One word for metrics, events and conditions.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::AlreadyExists { .. } => "AlreadyExists",
            Self::NotFound { .. } => "NotFound",
            Self::Gone { .. } => "Gone",
            Self::Refused { .. } => "Refused",
            Self::Throttled { .. } => "Throttled",
            Self::Unavailable { .. } => "Unavailable",
            Self::NamespaceTerminating { .. } => "NamespaceTerminating",
            Self::Fenced { .. } => "Fenced",
            Self::Withheld { .. } => "Withheld",
            Self::Malformed(_) => "Malformed",
        }
    }

    /// What to do next.
    pub fn class(&self) -> RetryClass {
        match self {
            Self::Conflict { .. } | Self::AlreadyExists { .. } => RetryClass::Now,
            Self::Throttled { .. } | Self::Unavailable { .. } | Self::Gone { .. } => RetryClass::Later,
            Self::NotFound { .. } | Self::NamespaceTerminating { .. } | Self::Fenced { .. } | Self::Withheld { .. } => {
                RetryClass::Wait
            }
            // An API server that has just started knows no roles yet.
            Self::Refused { .. } if self.lacks_rights() => RetryClass::Later,
            Self::Refused { .. } | Self::Malformed(_) => RetryClass::Tell,
        }
    }

    /// Whether the API server says that this user may not do that, whatever the content is; an admission plugin looks at the content.
    pub fn lacks_rights(&self) -> bool {
        matches!(self, Self::Refused { code: 403, message, .. } if message.contains("forbidden: User ") && message.contains(" cannot "))
    }

    /// Whether the write may have happened all the same.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unavailable { ambiguous: true, .. })
    }

    /// The pause the server asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled { retry_after, .. } | Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// The parts of a `Status` that decide. Every part may be missing: a proxy may have answered.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    causes: Vec<Cause>,
    retry_after_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
}

/// Reads an answer that is no success.
pub(crate) fn refusal(write: Write, is_json_patch: bool, code: StatusCode, headers: &HeaderMap, body: &[u8]) -> WriteError {
    let answer = serde_json::from_slice::<Answer>(body).unwrap_or_default();
    let details = answer.details.unwrap_or_default();
    let retry_after = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .or(details.retry_after_seconds)
        .map(Duration::from_secs);
    let message = if answer.message.is_empty() {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        format!("{code} {text}").trim_end().to_owned()
    } else {
        answer.message
    };
    let unavailable = |write, ambiguous, message| WriteError::Unavailable { write, ambiguous, retry_after, message };
    match code {
        StatusCode::CONFLICT if answer.reason == "AlreadyExists" => WriteError::AlreadyExists { write, message },
        StatusCode::CONFLICT => WriteError::Conflict { write, message },
        // How the API server says that a `test` failed or that a path to remove is not there.
        StatusCode::UNPROCESSABLE_ENTITY if is_json_patch && message.starts_with("the server rejected our request due to") => {
            WriteError::Conflict { write, message }
        }
        StatusCode::NOT_FOUND => WriteError::NotFound { write, message },
        StatusCode::GONE => WriteError::Gone { write, message },
        StatusCode::TOO_MANY_REQUESTS => WriteError::Throttled { write, retry_after, message },
        // A token that is just being renewed; the next request reads it again.
        StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT => unavailable(write, false, message),
        // Cluster API's webhook could not read the claim; that says nothing about the address.
        StatusCode::FORBIDDEN if message.contains(CLAIM_NOT_READ) => unavailable(write, false, message),
        StatusCode::FORBIDDEN
            if details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
                || message.contains("because it is being terminated") =>
        {
            WriteError::NamespaceTerminating { write }
        }
        code if code.is_server_error() => {
            // Admission runs before anything is stored.
            let ambiguous = !message.contains(WEBHOOK_FAILED);
            unavailable(write, ambiguous, message)
        }
        code => WriteError::Refused { write, code: code.as_u16(), message },
    }
}

pub(crate) const CLAIM_NOT_READ: &str = "failed to fetch claim";
pub(crate) const WEBHOOK_FAILED: &str = "failed calling webhook";
