//! What the API server was asked for and by whom, from its audit log.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::workspace::Workspace;

const LOG: &str = "audit.log";

/// One request that the API server has answered, or a watch that it has begun to answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The authenticated user.
    pub user: String,
    /// The program, as it calls itself.
    pub user_agent: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` ...
    pub verb: String,
    /// Path and query.
    pub uri: String,
    /// When it came, as the API server wrote it (RFC 3339, microseconds): comparable as text.
    pub received: String,
}

impl Request {
    /// Whether it was made by a manager of this project.
    pub fn is_managers(&self) -> bool {
        self.user_agent.starts_with("ipam-in-cluster/")
    }

    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str())
    }

    /// Whether it is about the lease of an election.
    pub fn is_about_leases(&self) -> bool {
        self.uri.contains("/leases")
    }
}

/// The flags that make the API server write its audit log into the workspace.
pub(crate) fn audit_flags(workspace: &Workspace) -> Result<[String; 2]> {
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    });
    let policy = workspace.write("audit-policy.json", &policy.to_string())?;
    Ok([format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", workspace.path(LOG).display())])
}

pub(crate) fn read(workspace: &Workspace) -> Result<Vec<Request>> {
    let path = workspace.path(LOG);
    let text =
        fs::read_to_string(&path).with_context(|| format!("read {}: was it started with an audit log?", path.display()))?;
    let mut requests = Vec::new();
    // The last line may be half written.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("read the audit log: {line}"))?;
        // A watch is told when it begins and when it ends; anything else when it ends.
        let begins = entry["stage"] == "ResponseStarted";
        if begins == (entry["verb"] == "watch") {
            requests.push(request(&entry));
        }
    }
    Ok(requests)
}

fn request(entry: &Value) -> Request {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Request {
        user: text(&entry["user"]["username"]),
        user_agent: text(&entry["userAgent"]),
        verb: text(&entry["verb"]),
        uri: text(&entry["requestURI"]),
        received: text(&entry["requestReceivedTimestamp"]),
    }
}
