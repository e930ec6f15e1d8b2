//! What a `fill` makes of the rate that Cluster API's webhooks have: they read the claim of each address that is created.

use serde::Serialize;

use crate::latency::ratio;
use crate::report::{Row, per_second};
use crate::runs::fill::Fill;

/// A fill beside its limit.
#[derive(Clone, Debug, Serialize)]
pub struct Limited {
    /// Claims created.
    pub size: usize,
    /// Over so many pools.
    pub pools: usize,
    /// Claims that may be read a second, and at once after a rest.
    pub limit: u32,
    /// From the first request to the last reference seen.
    pub binds_per_second: f64,
    /// The least time in which so many claims could be read, part of the time that the fill took; `None` where they could be
    /// read at once.
    pub of_limit: Option<f64>,
    /// Claims read at the API server, per bind: one, unless an address is sent again.
    pub reads_per_bind: f64,
    /// Addresses sent, per bind.
    pub creations_per_bind: f64,
    /// Errors that the manager has counted.
    pub errors: Option<f64>,
}

impl Row for Limited {
    const TITLE: &'static str =
        "fill through Cluster API's webhooks: of limit = (bound - limit) / (limit x seconds), for the first come at once";
    const COLUMNS: &'static [&'static str] =
        &["size", "pools", "limit/s", "binds/s", "of limit", "claims read/bind", "POST address/bind", "errors"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.size.to_string(),
            self.pools.to_string(),
            self.limit.to_string(),
            per_second(self.binds_per_second),
            self.of_limit.map_or_else(|| "-".to_owned(), |part| format!("{part:.2}")),
            format!("{:.2}", self.reads_per_bind),
            format!("{:.2}", self.creations_per_bind),
            self.errors.map_or_else(|| "-".to_owned(), |errors| errors.to_string()),
        ]
    }
}

/// Compares a fill with the limit; `read` claims were read meanwhile.
#[allow(clippy::cast_precision_loss, reason = "figures for people")]
pub fn figures(fill: &Fill, limit: u32, read: u64, errors: Option<f64>) -> Limited {
    let (binds, limit_per_second) = (fill.bound as f64, f64::from(limit));
    let seconds = ratio(binds, fill.binds_per_second);
    let at_least = (binds - limit_per_second) / limit_per_second;
    Limited {
        size: fill.size,
        pools: fill.pools,
        limit,
        binds_per_second: fill.binds_per_second,
        of_limit: (at_least > 0.0).then(|| ratio(at_least, seconds)),
        reads_per_bind: ratio(read as f64, binds),
        creations_per_bind: fill.writes.get("POST ipaddresses").copied().unwrap_or_default(),
        errors,
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::latency::Latency;

    fn fill(bound: usize, binds_per_second: f64) -> Fill {
        Fill {
            size: bound,
            pools: 1,
            bound,
            binds_per_second,
            latency: Latency::default(),
            of_two_writes: 1.0,
            of_all_writes: 1.0,
            writes_per_bind: 3.0,
            writes: BTreeMap::from([("POST ipaddresses".to_owned(), 1.5)]),
            events_per_bind: 0.0,
            cpu_seconds_per_1000: 0.0,
            curve: Vec::new(),
        }
    }

    #[test]
    fn what_comes_at_once_after_a_rest_is_no_merit() {
        // 10 s for 1000 binds, of which 900 had to wait: 9 s at best.
        let limited = figures(&fill(1000, 100.0), 100, 1500, Some(3.0));
        assert_eq!((limited.of_limit, limited.reads_per_bind, limited.creations_per_bind), (Some(0.9), 1.5, 1.5));
    }

    #[test]
    fn fewer_than_come_at_once_show_nothing() {
        assert_eq!(figures(&fill(100, 300.0), 100, 100, None).of_limit, None);
    }
}
