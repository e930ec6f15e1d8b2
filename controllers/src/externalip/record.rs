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

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        r#"{"v":1,"source":"public","release":"Release","addresses":{"198.51.100.7":"dnsHostname/gw.example.net"},"#,
        r#""externalIPs":["198.51.100.7"],"mirrored":[]}"#,
    );

    fn record() -> Record {
        let ip: IpAddr = "198.51.100.7".parse().unwrap();
        Record {
            source: "public".to_owned(),
            release: ReleasePolicy::Release,
            addresses: BTreeMap::from([(ip, "dnsHostname/gw.example.net".to_owned())]),
            external_ips: BTreeSet::from([ip]),
            mirrored: BTreeSet::new(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        assert_eq!(record().print(), TEXT);
        assert_eq!(Record::parse(TEXT), Ok(record()));
        let more = Record {
            release: ReleasePolicy::Retain,
            mirrored: ["2001:db8::7", "203.0.113.7"].map(|text| text.parse().unwrap()).into(),
            ..record()
        };
        assert_eq!(Record::parse(&more.print()), Ok(more.clone()));
        assert!(more.print().ends_with(r#""mirrored":["203.0.113.7","2001:db8::7"]}"#), "IPv4 first: {}", more.print());
    }

    #[test]
    fn blanks_and_order_do_not_matter() {
        let text = TEXT.replace(",\"mirrored\":[]", "").replace('{', "{ ").replacen("{ ", "{\"mirrored\": [],\n", 1);
        assert_eq!(Record::parse(&text), Ok(record()), "{text}");
    }

    #[test]
    fn what_was_edited_by_hand_is_told_from_what_we_wrote() {
        for text in [
            "",
            "null",
            "{}",
            "garbage",
            &TEXT[1..],
            &TEXT.replace("\"v\":1", "\"v\":2"),
            &TEXT.replace("\"v\":1,", ""),
            &TEXT.replace("Release", "Forget"),
            &TEXT.replace("198.51.100.7", "198.51.100.007"),
            &TEXT.replace("198.51.100.7", "gw.example.net"),
            &TEXT.replace("\"mirrored\"", "\"mirror\""),
            &TEXT.replace("\"mirrored\":[]", "\"mirrored\":[],\"more\":1"),
        ] {
            assert!(Record::parse(text).is_err(), "{text}");
        }
    }
}
