//! The pool annotations of ours: pre-allocated values and the memory of sticky pools.
//!
//! Both are JSON that people may write by hand, so a bad entry is reported and left out, and the others count.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use poolutil::{Pool, Span};

/// The longest time a released value is remembered.
const LONGEST: Duration = Duration::from_secs(8760 * 3600);
/// The most values a pool remembers.
const MOST: usize = 2000;

/// Reads the `sticky` annotation, a Go duration; `None` is off.
pub fn sticky(text: &str) -> Result<Option<Duration>, String> {
    let problem = || format!("sticky: {text:?} is not a duration between 0 and 8760h, such as 168h");
    if text == "0" {
        return Ok(None);
    }
    let friendly: SignedDuration = text.parse().map_err(|_| problem())?;
    let duration = Duration::try_from(friendly).map_err(|_| problem())?;
    if duration > LONGEST {
        return Err(problem());
    }
    Ok((!duration.is_zero()).then_some(duration))
}

/// Values that are given to the claims named, and to no other. Keys are claim names, for Global pools `namespace/name`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PreAllocations {
    by_claim: BTreeMap<String, Span>,
    /// What was left out, in words.
    pub problems: Vec<String>,
}

impl PreAllocations {
    /// Reads the annotation against the pool's values.
    pub fn read(text: &str, pool: &Pool) -> Self {
        let entries: BTreeMap<String, serde_json::Value> = match serde_json::from_str(text) {
            Ok(entries) => entries,
            Err(error) => {
                return Self {
                    by_claim: BTreeMap::new(),
                    problems: vec![format!("pre-allocations: not a JSON object: {error}")],
                };
            }
        };
        let mut read = Self::default();
        let mut taken = BTreeSet::new();
        for (claim, value) in entries {
            let span = value.as_str().ok_or_else(|| "not a string".to_owned()).and_then(|value| {
                let span = pool.parse_request(value).map_err(|error| error.to_string())?;
                pool.refusal(&span).map_or(Ok(span), |refusal| Err(refusal.to_string()))
            });
            match span {
                Ok(span) if taken.insert(span) => {
                    read.by_claim.insert(claim, span);
                }
                Ok(_) => read.problems.push(format!("pre-allocations: {claim}: {value} is given twice")),
                Err(problem) => read.problems.push(format!("pre-allocations: {claim}: {value}: {problem}")),
            }
        }
        read
    }

    /// The value set aside for a claim.
    pub fn get(&self, claim: &str) -> Option<Span> {
        self.by_claim.get(claim).copied()
    }

    /// The claim that a value is set aside for.
    pub fn owner(&self, span: Span) -> Option<&str> {
        self.by_claim.iter().find(|(_, value)| **value == span).map(|(claim, _)| claim.as_str())
    }

    /// All values that are set aside.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.by_claim.values().copied()
    }
}

/// Which value each released claim held, and until when that is remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastAddresses(BTreeMap<String, (Span, Timestamp)>);

impl LastAddresses {
    /// Reads the annotation; what is not understood is forgotten.
    pub fn read(text: &str, pool: &Pool) -> Self {
        let entries: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
        Self(
            entries
                .into_iter()
                .filter_map(|(claim, value)| {
                    let (address, until): (String, Timestamp) = serde_json::from_value(value).ok()?;
                    Some((claim, (pool.parse_request(&address).ok()?, until)))
                })
                .collect(),
        )
    }

    /// The annotation's text, if there is anything to remember.
    pub fn write(&self) -> Option<String> {
        let entries: BTreeMap<&str, (String, String)> =
            self.0.iter().map(|(claim, (span, until))| (claim.as_str(), (span.ip().to_string(), until.to_string()))).collect();
        if entries.is_empty() { None } else { serde_json::to_string(&entries).ok() }
    }

    /// The value that `claim` held, if it is still remembered at `now`.
    pub fn get(&self, claim: &str, now: Timestamp) -> Option<Span> {
        self.0.get(claim).filter(|(_, until)| *until > now).map(|(span, _)| *span)
    }

    /// What is still remembered at `now`, with its end.
    pub fn at(&self, now: Timestamp) -> impl Iterator<Item = (&str, Span, Timestamp)> {
        self.0.iter().filter(move |(_, (_, until))| *until > now).map(|(claim, (span, until))| (claim.as_str(), *span, *until))
    }

    /// This memory with more in it, without what has expired, and with the oldest dropped where it would be too much.
    #[must_use]
    pub fn with(&self, more: impl IntoIterator<Item = (String, Span)>, until: Timestamp, now: Timestamp) -> Self {
        let until = Timestamp::from_second(until.as_second()).unwrap_or(until);
        let mut entries: BTreeMap<_, _> =
            self.0.iter().filter(|(_, (_, until))| *until > now).map(|(claim, value)| (claim.clone(), *value)).collect();
        entries.extend(more.into_iter().map(|(claim, span)| (claim, (span, until))));
        while entries.len() > MOST {
            let oldest = entries.iter().min_by_key(|(_, (_, until))| *until).map(|(claim, _)| claim.clone());
            oldest.and_then(|claim| entries.remove(&claim));
        }
        Self(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poolutil::IpPoolSpec;

    fn pool() -> Pool {
        let addresses = ["10.0.0.10-10.0.0.20".to_owned()];
        Pool::ip(&IpPoolSpec { addresses: &addresses, prefix: 24, gateway: "10.0.0.10", ..IpPoolSpec::default() }).unwrap()
    }

    #[test]
    fn sticky_takes_go_durations_up_to_a_year() {
        let hours = |hours: u64| Ok(Some(Duration::from_secs(hours * 3600)));
        assert_eq!(sticky("168h"), hours(168));
        assert_eq!(sticky("1h30m"), Ok(Some(Duration::from_secs(5400))));
        assert_eq!(sticky("8760h"), hours(8760));
        assert_eq!((sticky("0"), sticky("0s")), (Ok(None), Ok(None)));
        for bad in ["", "8761h", "-1h", "a week", "168"] {
            assert!(sticky(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_pre_allocation_is_told_and_the_others_count() {
        let read =
            PreAllocations::read(r#"{"a":"10.0.0.11","b":"10.0.0.11","c":"10.0.0.10","d":"x","e":7,"f":"10.0.0.12"}"#, &pool());
        assert_eq!(read.spans().map(|span| span.to_string()).collect::<Vec<_>>(), ["10.0.0.11", "10.0.0.12"]);
        assert_eq!((read.problems.len(), read.owner(read.get("f").unwrap())), (4, Some("f")));
        assert_eq!(PreAllocations::read("[", &pool()).problems.len(), 1);
    }

    #[test]
    fn memory_survives_its_annotation_and_forgets_what_expired() {
        let pool = pool();
        let at = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let memory = LastAddresses::default()
            .with([("a".to_owned(), pool.parse_request("10.0.0.11").unwrap())], at(2), at(0))
            .with([("b".to_owned(), pool.parse_request("10.0.0.12").unwrap())], at(4), at(1));
        let text = memory.write().unwrap();
        assert_eq!(text, r#"{"a":["10.0.0.11","1970-01-01T02:00:00Z"],"b":["10.0.0.12","1970-01-01T04:00:00Z"]}"#);
        assert_eq!(LastAddresses::read(&text, &pool), memory);
        assert_eq!(memory.get("a", at(1)).map(|span| span.to_string()), Some("10.0.0.11".to_owned()));
        assert_eq!(memory.get("a", at(2)), None);
        assert_eq!(memory.with([], at(9), at(3)).at(at(3)).count(), 1);
    }

    #[test]
    fn memory_drops_the_oldest_beyond_its_size() {
        let span = pool().parse_request("10.0.0.11").unwrap();
        let at = |second: usize| Timestamp::from_second(i64::try_from(second).unwrap()).unwrap();
        let mut memory = LastAddresses::default();
        for number in 0..=MOST {
            memory = memory.with([(format!("c{number}"), span)], at(10_000 + number), at(0));
        }
        assert_eq!((memory.get("c0", at(0)), memory.get("c1", at(0)), memory.0.len()), (None, Some(span), MOST));
    }
}
