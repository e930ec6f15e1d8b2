//! The ownership record: an annotation on a Service that says which addresses are ours (§7.1 of the specification).
//!
//! `spec.externalIPs` is one atomic list, so the API server cannot tell whose entries are whose. The record can, and it lives in
//! metadata, so that neither a restart nor a restore from a backup needs anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::externalip::ReleasePolicy;
use serde::{Deserialize, Serialize};

/// The version of the form that is written, and the only one that is read.
const VERSION: u32 = 1;

/// What we wrote on a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The source it came from.
    pub source: String,
    /// What becomes of the addresses when the source goes.
    pub release: ReleasePolicy,
    /// All addresses we stand for, with the solver that gave them.
    pub addresses: BTreeMap<IpAddr, String>,
    /// Those of them that we put into `spec.externalIPs`.
    pub external_ips: BTreeSet<IpAddr>,
    /// Addresses that a load balancer copied into its status from us.
    pub mirrored: BTreeSet<IpAddr>,
}

/// The record's text is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ownership record cannot be read: {0}")]
pub struct Unreadable(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Form {
    v: u32,
    source: String,
    release: String,
    addresses: BTreeMap<IpAddr, String>,
    #[serde(rename = "externalIPs")]
    external_ips: BTreeSet<IpAddr>,
    mirrored: BTreeSet<IpAddr>,
}

impl Record {
    /// Reads a record.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let form: Form = serde_json::from_str(text).map_err(|error| Unreadable(error.to_string()))?;
        let Form { v, source, release, addresses, external_ips, mirrored } = form;
        if v != VERSION {
            return Err(Unreadable(format!("it is of version {v}, not {VERSION}")));
        }
        let release =
            ReleasePolicy::from_word(&release).ok_or_else(|| Unreadable(format!("`{release}` is no release policy")))?;
        Ok(Self { source, release, addresses, external_ips, mirrored })
    }

    /// Whether it says nothing.
    pub fn is_blank(&self) -> bool {
        self.addresses.is_empty() && self.external_ips.is_empty() && self.mirrored.is_empty()
    }

    /// The record as it is written: compact, and the same text for the same content.
    pub fn print(&self) -> String {
        let Self { source, release, addresses, external_ips, mirrored } = self.clone();
        let form = Form { v: VERSION, source, release: release.as_str().to_owned(), addresses, external_ips, mirrored };
        serde_json::to_string(&form).unwrap_or_default()
    }
}
