//! Counters in Prometheus' text format: the API server's own count of requests, and what a manager says about itself.

use std::collections::BTreeMap;

use anyhow::Result;
use api::externalip;
use kube::Client;
use kube::api::GetParams;
use kube::core::Request;

use crate::latency::ratio;

const IPAM: &str = "ipam.cluster.x-k8s.io";
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];

/// One kind of request, such as `PATCH ipaddressclaims/status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    verb: String,
    group: String,
    /// With the subresource, if there is one.
    resource: String,
}

impl Kind {
    fn is_for_services(&self) -> bool {
        self.group == externalip::names::GROUP || (self.group.is_empty() && self.resource.split('/').next() == Some("services"))
    }
}

/// The requests an API server has answered, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<Kind, u64>);

impl Requests {
    /// Asks the server.
    pub async fn read(client: &Client) -> Result<Self> {
        let request = Request::new("").get("metrics", &GetParams::default())?;
        Ok(Self::parse(&client.request_text(request).await?))
    }

    fn parse(text: &str) -> Self {
        let mut requests = BTreeMap::new();
        for (labels, value) in series(text, "apiserver_request_total") {
            let label = |name| label(labels, name).unwrap_or_default().to_owned();
            let resource = match label("subresource") {
                sub if sub.is_empty() => label("resource"),
                sub => format!("{}/{sub}", label("resource")),
            };
            *requests.entry(Kind { verb: label("verb"), group: label("group"), resource }).or_default() += whole(value);
        }
        Self(requests)
    }

    /// What came after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let more = self.0.iter().map(|(kind, count)| {
            let before = earlier.0.get(kind).copied().unwrap_or_default();
            (kind.clone(), count.saturating_sub(before))
        });
        Self(more.filter(|(_, count)| *count > 0).collect())
    }

    /// The writes of a manager to pools, claims and addresses. Claims are made and deleted by the load generator only.
    pub fn manager_writes(&self) -> BTreeMap<String, u64> {
        let of_load = |kind: &Kind| kind.resource == "ipaddressclaims" && ["POST", "DELETE"].contains(&kind.verb.as_str());
        self.named(|kind| kind.group == IPAM && WRITES.contains(&kind.verb.as_str()) && !of_load(kind))
    }

    /// The same for each of `count` claims.
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn writes_per(&self, count: usize) -> BTreeMap<String, f64> {
        let writes = self.manager_writes().into_iter();
        writes.map(|(kind, writes)| (kind, ratio(writes as f64, count as f64))).collect()
    }

    /// Claims read one at a time, by anybody.
    pub fn claims_read(&self) -> u64 {
        self.named(|kind| kind.resource == "ipaddressclaims" && kind.verb == "GET").values().sum()
    }

    /// Events written by anybody.
    pub fn events(&self) -> u64 {
        self.named(|kind| kind.resource == "events" && WRITES.contains(&kind.verb.as_str())).values().sum()
    }

    /// Requests for the kinds a manager reads or writes, other than watches.
    pub fn besides_watches(&self) -> u64 {
        self.named(|kind| kind.group.ends_with("cluster.x-k8s.io") && kind.verb != "WATCH").values().sum()
    }

    /// Writes to Services and to external IP sources, by anybody.
    pub fn writes_for_services(&self) -> BTreeMap<String, u64> {
        self.named(|kind| kind.is_for_services() && WRITES.contains(&kind.verb.as_str()))
    }

    /// Requests for Services and external IP sources, other than watches.
    pub fn besides_watches_for_services(&self) -> u64 {
        self.named(|kind| kind.is_for_services() && kind.verb != "WATCH").values().sum()
    }

    fn named(&self, of_interest: impl Fn(&Kind) -> bool) -> BTreeMap<String, u64> {
        let mut named = BTreeMap::new();
        for (kind, count) in self.0.iter().filter(|(kind, _)| of_interest(kind)) {
            *named.entry(format!("{} {}", kind.verb, kind.resource)).or_default() += count;
        }
        named
    }
}

/// The sum of all series of a metric whose labels contain `part`; `None` if there is none.
pub fn sum(text: &str, metric: &str, part: &str) -> Option<f64> {
    let mut found = None;
    for (labels, value) in series(text, metric) {
        if labels.contains(part) {
            found = Some(found.unwrap_or(0.0) + value);
        }
    }
    found
}

/// Labels and value of each series of one metric.
fn series<'a>(text: &'a str, metric: &str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter_map(move |line| {
        let rest = line.strip_prefix(metric)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels, value.split(' ').next()?.parse().ok()?))
    })
}

/// One label. Those asked for here never hold a quote or a comma.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters are whole and not negative")]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP apiserver_request_total Counter of apiserver requests
# TYPE apiserver_request_total counter
apiserver_request_total{code="201",component="apiserver",dry_run="",group="ipam.cluster.x-k8s.io",resource="ipaddressclaims",scope="resource",subresource="",verb="POST",version="v1beta2"} 1000
apiserver_request_total{code="201",component="apiserver",dry_run="",group="ipam.cluster.x-k8s.io",resource="ipaddresses",scope="resource",subresource="",verb="POST",version="v1beta2"} 1000
apiserver_request_total{code="200",component="apiserver",dry_run="",group="ipam.cluster.x-k8s.io",resource="ipaddressclaims",scope="resource",subresource="status",verb="PATCH",version="v1beta2"} 990
apiserver_request_total{code="409",component="apiserver",dry_run="",group="ipam.cluster.x-k8s.io",resource="ipaddressclaims",scope="resource",subresource="status",verb="PATCH",version="v1beta2"} 10
apiserver_request_total{code="0",component="apiserver",dry_run="",group="ipam.cluster.x-k8s.io",resource="ipaddresses",scope="cluster",subresource="",verb="WATCH",version="v1beta2"} 3
apiserver_request_total{code="201",component="apiserver",dry_run="",group="events.k8s.io",resource="events",scope="resource",subresource="",verb="POST",version="v1"} 50
apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="cluster",subresource="",verb="PATCH",version="v1"} 1e+06
apiserver_request_total_other{verb="POST"} 7
"#;

    #[test]
    fn a_managers_writes_are_counted_by_kind_whatever_their_answer() {
        let requests = Requests::parse(TEXT);
        let expected = [("PATCH ipaddressclaims/status".to_owned(), 1000), ("POST ipaddresses".to_owned(), 1000)];
        assert_eq!(requests.manager_writes(), expected.into());
        assert_eq!(requests.writes_per(2000)["POST ipaddresses"], 0.5);
        assert_eq!(requests.events(), 50);
        assert_eq!(requests.besides_watches(), 3000);
    }

    #[test]
    fn requests_for_services_are_those_for_sources_too() {
        let line = |group: &str, resource: &str, subresource: &str, verb: &str| {
            format!(
                "apiserver_request_total{{group=\"{group}\",resource=\"{resource}\",subresource=\"{subresource}\",verb=\"{verb}\"}} 1\n"
            )
        };
        let text = [
            line("", "services", "", "PATCH"),
            line("", "services", "status", "APPLY"),
            line("", "services", "", "LIST"),
            line("", "services", "", "WATCH"),
            line("externalip.spacebird.dev", "clusterexternalipsources", "status", "PATCH"),
            line("", "pods", "", "PATCH"),
        ]
        .concat();
        let requests = Requests::parse(&text);
        let expected = ["APPLY services/status", "PATCH clusterexternalipsources/status", "PATCH services"];
        assert_eq!(requests.writes_for_services(), expected.map(|kind| (kind.to_owned(), 1)).into());
        assert_eq!(requests.besides_watches_for_services(), 4);
    }

    #[test]
    fn only_what_came_later_is_left() {
        let earlier = Requests::parse(TEXT);
        assert_eq!(earlier.since(&earlier), Requests::default());
        let later = Requests::parse(&TEXT.replace("} 990", "} 995"));
        assert_eq!(later.since(&earlier).manager_writes(), [("PATCH ipaddressclaims/status".to_owned(), 5)].into());
    }

    #[test]
    fn a_metric_is_summed_over_its_series() {
        let text = "a_total{kind=\"x\"} 2\na_total{kind=\"y\"} 3\nb_bytes 4.5 1700000000\n";
        assert_eq!(sum(text, "a_total", ""), Some(5.0));
        assert_eq!(sum(text, "a_total", "kind=\"y\""), Some(3.0));
        assert_eq!(sum(text, "b_bytes", ""), Some(4.5));
        assert_eq!(sum(text, "c", ""), None);
    }
}
