//! What the manager measures about itself, under the names of the specification's metrics table.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::process::Process;

mod external_ips;

pub use external_ips::{AnswersShown, ExternalIpMetrics, States};

/// Pools with gauges of their own; the rest is summed under [`OTHER`].
const POOLS_SHOWN: usize = 2000;
const OTHER: &str = "_other";

const BIND_BUCKETS: [f64; 15] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const WAIT_BUCKETS: [f64; 13] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0];

/// How a claim's reservation ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Allocation {
    /// A new address object was published.
    Bound,
    /// An address object that existed already was published.
    Adopted,
    /// The server or the pool refused.
    Refused,
    /// Another holder of the value came first.
    Lost,
}

impl Allocation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Adopted => "adopted",
            Self::Refused => "refused",
            Self::Lost => "lost",
        }
    }
}

/// The pool that gauges are about.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolLabels {
    /// Kind of the pool.
    pub kind: &'static str,
    /// Its namespace; empty for a cluster-scoped kind.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The numbers shown for a pool.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs)] // the names are those of the label values and metrics
pub struct PoolNumbers {
    pub total: u128,
    pub free: u128,
    pub used: u128,
    pub out_of_range: u128,
    pub reserved: u128,
    pub grace: u128,
    pub parked: u128,
    pub waiting_claims: u128,
    pub overlaps: u128,
    pub duplicate_addresses: u128,
    pub orphaned_addresses: u128,
}

impl PoolNumbers {
    fn add(&mut self, other: &Self) {
        let Self {
            total,
            free,
            used,
            out_of_range,
            reserved,
            grace,
            parked,
            waiting_claims,
            overlaps,
            duplicate_addresses,
            orphaned_addresses,
        } = other;
        for (sum, more) in [
            (&mut self.total, total),
            (&mut self.free, free),
            (&mut self.used, used),
            (&mut self.out_of_range, out_of_range),
            (&mut self.reserved, reserved),
            (&mut self.grace, grace),
            (&mut self.parked, parked),
            (&mut self.waiting_claims, waiting_claims),
            (&mut self.overlaps, overlaps),
            (&mut self.duplicate_addresses, duplicate_addresses),
            (&mut self.orphaned_addresses, orphaned_addresses),
        ] {
            *sum = sum.saturating_add(*more);
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AllocationLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct CategoryLabel {
    category: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WebhookLabels {
    path: String,
    code: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    verb: &'static str,
    resource: &'static str,
    code: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DurationLabels {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RestartLabels {
    resource: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResourceLabel {
    resource: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct VersionLabel {
    version: &'static str,
}

type Seconds = Counter<f64, AtomicU64>;
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics. Cheap to clone; every clone counts into the same registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    pools: Pools,
    bind: Histograms<KindLabel>,
    release: Histograms<KindLabel>,
    wait: Histograms<KindLabel>,
    allocations: Family<AllocationLabels, Counter>,
    releases: Family<KindLabel, Counter>,
    conflicts: Family<KindLabel, Counter>,
    errors: Family<CategoryLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_duration: Histograms<DurationLabels>,
    inflight_writes: Gauge,
    write_window: Gauge,
    throttled: Seconds,
    watch_restarts: Family<RestartLabels, Counter>,
    cache_objects: Family<ResourceLabel, Gauge>,
    cache_bytes: Family<ResourceLabel, Gauge>,
    events_dropped: Counter,
    leader: Gauge,
    webhook_requests: Family<WebhookLabels, Counter>,
    webhook_duration: Family<WebhookLabels, Histogram>,
    external_ips: ExternalIpMetrics,
}

impl Metrics {
    /// A registry with everything at its start.
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::default();
        let quick: fn() -> Histogram = || Histogram::new(BIND_BUCKETS);
        let slow: fn() -> Histogram = || Histogram::new(WAIT_BUCKETS);
        let mut inner = Inner {
            registry: Registry::default(),
            pools: Pools::default(),
            bind: Family::new_with_constructor(quick),
            release: Family::new_with_constructor(quick),
            wait: Family::new_with_constructor(slow),
            allocations: Family::default(),
            releases: Family::default(),
            conflicts: Family::default(),
            errors: Family::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(quick),
            inflight_writes: Gauge::default(),
            write_window: Gauge::default(),
            throttled: Seconds::default(),
            watch_restarts: Family::default(),
            cache_objects: Family::default(),
            cache_bytes: Family::default(),
            events_dropped: Counter::default(),
            leader: Gauge::default(),
            webhook_requests: Family::default(),
            webhook_duration: Family::new_with_constructor(quick),
            external_ips: ExternalIpMetrics::register(&mut registry),
        };
        let build: Family<VersionLabel, Gauge> = Family::default();
        build.get_or_create(&VersionLabel { version }).set(1);

        let r = &mut registry;
        // The encoder appends `_total` to the name of every counter.
        r.register("ipam_claim_bind_duration_seconds", "From the sight of a claim to its published address", inner.bind.clone());
        r.register(
            "ipam_claim_release_duration_seconds",
            "From the sight of a deleting claim to the end of our finalizer",
            inner.release.clone(),
        );
        r.register("ipam_claim_wait_duration_seconds", "Time a claim spent without room in its pool", inner.wait.clone());
        r.register("ipam_allocations", "Reservations that came to an end", inner.allocations.clone());
        r.register("ipam_releases", "Addresses released", inner.releases.clone());
        r.register("ipam_address_conflicts", "Address objects of ours that lost to another holder", inner.conflicts.clone());
        r.register("ipam_errors", "Errors by category", inner.errors.clone());
        r.register("ipam_api_requests", "Requests to the API server", inner.requests.clone());
        r.register("ipam_api_request_duration_seconds", "Time until the API server had answered", inner.request_duration.clone());
        r.register("ipam_api_inflight_writes", "Writes without an answer yet", inner.inflight_writes.clone());
        r.register("ipam_api_write_window", "Writes allowed at once", inner.write_window.clone());
        r.register(
            "ipam_api_throttled_seconds",
            "Time in which no write was begun because the API server asked for a pause",
            inner.throttled.clone(),
        );
        r.register("ipam_watch_restarts", "Watches begun again", inner.watch_restarts.clone());
        r.register("ipam_cache_objects", "Objects kept in memory", inner.cache_objects.clone());
        r.register("ipam_cache_bytes", "Memory they take, estimated", inner.cache_bytes.clone());
        r.register("ipam_events_dropped", "Events that were not written", inner.events_dropped.clone());
        r.register("ipam_leader", "1 while this process leads", inner.leader.clone());
        r.register("ipam_webhook_requests", "Reviews answered, by decision", inner.webhook_requests.clone());
        r.register("ipam_webhook_request_duration_seconds", "Time to the answer of a review", inner.webhook_duration.clone());
        r.register("ipam_build_info", "The version of this build", build);
        r.register_collector(Box::new(inner.pools.clone()));
        r.register_collector(Box::new(Process));
        inner.registry = registry;
        Self { inner: Arc::new(inner) }
    }

    /// Everything as text, as [`CONTENT_TYPE`](super::diagnostics) names it.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.inner.registry)?;
        Ok(text)
    }

    /// Shows the numbers of a pool, in place of those shown before.
    pub fn pool_gauges(&self, pool: &PoolLabels, numbers: PoolNumbers) {
        self.inner.pools.lock().set(pool, numbers);
    }

    /// Takes a pool that is gone out of the gauges.
    pub fn forget_pool(&self, pool: &PoolLabels) {
        self.inner.pools.lock().remove(pool);
    }

    /// Counts a published claim on a pool of `kind`.
    pub fn bind_duration(&self, kind: &'static str, took: Duration) {
        observe(&self.inner.bind, &KindLabel { kind }, took);
    }

    /// Counts a released claim.
    pub fn release_duration(&self, kind: &'static str, took: Duration) {
        observe(&self.inner.release, &KindLabel { kind }, took);
    }

    /// Counts a claim that had to wait for room and waits no more.
    pub fn wait_duration(&self, kind: &'static str, took: Duration) {
        observe(&self.inner.wait, &KindLabel { kind }, took);
    }

    /// Counts the end of a reservation.
    pub fn allocation(&self, kind: &'static str, result: Allocation) {
        let result = result.as_str();
        self.inner.allocations.get_or_create(&AllocationLabels { kind, result }).inc();
    }

    /// Counts a released address.
    pub fn release(&self, kind: &'static str) {
        self.inner.releases.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts an address of ours that lost to another holder.
    pub fn address_conflict(&self, kind: &'static str) {
        self.inner.conflicts.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts a review that was answered at `path`; `code` is that of the decision.
    pub fn webhook(&self, path: &str, code: u16, took: Duration) {
        let labels = WebhookLabels { path: path.to_owned(), code };
        self.inner.webhook_duration.get_or_create(&labels).observe(took.as_secs_f64());
        self.inner.webhook_requests.get_or_create(&labels).inc();
    }

    /// What external IP sources measure.
    pub fn external_ips(&self) -> &ExternalIpMetrics {
        &self.inner.external_ips
    }

    /// Counts an error.
    pub fn error(&self, category: &'static str) {
        self.inner.errors.get_or_create(&CategoryLabel { category }).inc();
    }

    /// Counts a request; `code` is the HTTP status, or a word when there was no answer.
    pub fn request(&self, verb: &'static str, resource: &'static str, code: &str, took: Duration) {
        let code = code.to_owned();
        self.inner.requests.get_or_create(&RequestLabels { verb, resource, code }).inc();
        observe(&self.inner.request_duration, &DurationLabels { verb, resource }, took);
    }

    /// Shows how many writes are under way and how many may be.
    pub(crate) fn writes(&self, inflight: usize, window: usize) {
        self.inner.inflight_writes.set(signed(inflight));
        self.inner.write_window.set(signed(window));
    }

    /// Counts time in which no write may begin.
    pub(crate) fn throttled(&self, pause: Duration) {
        self.inner.throttled.inc_by(pause.as_secs_f64());
    }

    /// Counts a watch that was begun again.
    pub fn watch_restart(&self, resource: &'static str, reason: &'static str) {
        self.inner.watch_restarts.get_or_create(&RestartLabels { resource, reason }).inc();
    }

    /// Shows what is kept in memory of a resource.
    pub fn cache(&self, resource: &'static str, objects: usize, bytes: usize) {
        let label = ResourceLabel { resource };
        self.inner.cache_objects.get_or_create(&label).set(signed(objects));
        self.inner.cache_bytes.get_or_create(&label).set(signed(bytes));
    }

    /// Counts an event that was not written.
    pub(crate) fn event_dropped(&self) {
        self.inner.events_dropped.inc();
    }

    /// Shows whether this process leads.
    pub fn leader(&self, leads: bool) {
        self.inner.leader.set(i64::from(leads));
    }
}

fn observe<L>(histograms: &Histograms<L>, labels: &L, took: Duration)
where
    L: Clone + Eq + std::hash::Hash,
{
    histograms.get_or_create(labels).observe(took.as_secs_f64());
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The pools in order of arrival: the first [`POOLS_SHOWN`] have gauges of their own.
#[derive(Clone, Debug, Default)]
struct Pools(Arc<Mutex<PoolTable>>);

#[derive(Debug, Default)]
struct PoolTable {
    arrivals: u64,
    place: HashMap<PoolLabels, u64>,
    pools: BTreeMap<u64, (PoolLabels, PoolNumbers)>,
}

impl Pools {
    fn lock(&self) -> MutexGuard<'_, PoolTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PoolTable {
    fn set(&mut self, pool: &PoolLabels, numbers: PoolNumbers) {
        if let Some(place) = self.place.get(pool) {
            if let Some((_, shown)) = self.pools.get_mut(place) {
                *shown = numbers;
            }
            return;
        }
        self.place.insert(pool.clone(), self.arrivals);
        self.pools.insert(self.arrivals, (pool.clone(), numbers));
        self.arrivals += 1;
    }

    fn remove(&mut self, pool: &PoolLabels) {
        if let Some(place) = self.place.remove(pool) {
            self.pools.remove(&place);
        }
    }

    /// What the gauges show: pools by arrival, then one sum for each kind of those beyond the cap.
    fn shown(&self) -> Vec<(PoolLabels, PoolNumbers)> {
        let mut shown: Vec<_> = self.pools.values().take(POOLS_SHOWN).cloned().collect();
        let mut rest: BTreeMap<&'static str, PoolNumbers> = BTreeMap::new();
        for (pool, numbers) in self.pools.values().skip(POOLS_SHOWN) {
            rest.entry(pool.kind).or_default().add(numbers);
        }
        shown.extend(rest.into_iter().map(|(kind, sum)| {
            let other = PoolLabels { kind, namespace: String::new(), name: OTHER.to_owned() };
            (other, sum)
        }));
        shown
    }
}

/// A gauge metric of pools: name, help, number.
type PoolGauge = (&'static str, &'static str, fn(&PoolNumbers) -> u128);

const POOL_GAUGES: [PoolGauge; 4] = [
    ("ipam_pool_waiting_claims", "Claims without room in the pool", |n| n.waiting_claims),
    ("ipam_pool_overlaps", "Other pools that share addresses with this one", |n| n.overlaps),
    ("ipam_pool_duplicate_addresses", "Values held by more than one address object", |n| n.duplicate_addresses),
    ("ipam_pool_orphaned_addresses", "Deleting address objects whose claim is gone", |n| n.orphaned_addresses),
];

type State = (&'static str, fn(&PoolNumbers) -> u128);

const STATES: [State; 7] = [
    ("total", |n| n.total),
    ("free", |n| n.free),
    ("used", |n| n.used),
    ("out_of_range", |n| n.out_of_range),
    ("reserved", |n| n.reserved),
    ("grace", |n| n.grace),
    ("parked", |n| n.parked),
];

impl Collector for Pools {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let shown = self.lock().shown();
        let mut addresses =
            encoder.encode_descriptor("ipam_pool_addresses", "Addresses or prefixes of the pool", None, MetricType::Gauge)?;
        for (pool, numbers) in &shown {
            for (state, number) in STATES {
                gauge(&mut addresses, pool, Some(state), number(numbers))?;
            }
        }
        for (name, help, number) in POOL_GAUGES {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (pool, numbers) in &shown {
                gauge(&mut metric, pool, None, number(numbers))?;
            }
        }
        Ok(())
    }
}

fn gauge(
    metric: &mut MetricEncoder<'_>,
    pool: &PoolLabels,
    state: Option<&'static str>,
    number: u128,
) -> Result<(), std::fmt::Error> {
    let mut labels = vec![("kind", pool.kind), ("namespace", &pool.namespace), ("name", &pool.name)];
    labels.extend(state.map(|state| ("state", state)));
    #[allow(clippy::cast_precision_loss)] // a sample is a float by definition
    let value = number as f64;
    let sample = prometheus_client::metrics::gauge::ConstGauge::new(value);
    sample.encode(metric.encode_family(&labels)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolLabels {
        PoolLabels { kind: "InClusterIPPool", namespace: "team-a".to_owned(), name: name.to_owned() }
    }

    fn used(used: u128) -> PoolNumbers {
        PoolNumbers { used, ..PoolNumbers::default() }
    }

    /// The table of the specification, without the webhooks' metrics.
    const NAMES: [&str; 22] = [
        "ipam_pool_addresses",
        "ipam_pool_waiting_claims",
        "ipam_pool_overlaps",
        "ipam_pool_duplicate_addresses",
        "ipam_pool_orphaned_addresses",
        "ipam_claim_bind_duration_seconds_count",
        "ipam_claim_release_duration_seconds_count",
        "ipam_claim_wait_duration_seconds_count",
        "ipam_allocations_total",
        "ipam_releases_total",
        "ipam_address_conflicts_total",
        "ipam_errors_total",
        "ipam_api_requests_total",
        "ipam_api_request_duration_seconds_count",
        "ipam_api_inflight_writes",
        "ipam_api_write_window",
        "ipam_api_throttled_seconds_total",
        "ipam_watch_restarts_total",
        "ipam_cache_objects",
        "ipam_cache_bytes",
        "ipam_events_dropped_total",
        "ipam_leader",
    ];

    #[test]
    fn every_metric_has_the_name_and_labels_of_the_table() {
        let metrics = Metrics::new("1.2.3");
        let second = Duration::from_secs(1);
        metrics.pool_gauges(&pool("a"), used(3));
        metrics.bind_duration("InClusterIPPool", second);
        metrics.release_duration("InClusterIPPool", second);
        metrics.wait_duration("InClusterIPPool", second);
        metrics.allocation("InClusterIPPool", Allocation::Bound);
        metrics.release("InClusterIPPool");
        metrics.address_conflict("InClusterIPPool");
        metrics.error("Conflict");
        metrics.request("patch", "ipaddressclaims", "200", second);
        metrics.watch_restart("ipaddresses", "closed");
        metrics.cache("ipaddresses", 2, 300);
        metrics.leader(true);
        let text = metrics.encode().unwrap();
        for name in NAMES {
            let found = text.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
            assert!(found, "{name} is missing in\n{text}");
        }
        for line in [
            "ipam_pool_addresses{kind=\"InClusterIPPool\",namespace=\"team-a\",name=\"a\",state=\"used\"} 3.0",
            "ipam_allocations_total{kind=\"InClusterIPPool\",result=\"bound\"} 1",
            "ipam_watch_restarts_total{resource=\"ipaddresses\",reason=\"closed\"} 1",
            "ipam_cache_bytes{resource=\"ipaddresses\"} 300",
            "ipam_build_info{version=\"1.2.3\"} 1",
            "ipam_leader 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.contains("\nprocess_cpu_seconds_total ") && text.ends_with("# EOF\n"));
    }

    #[test]
    fn pools_beyond_the_cap_are_summed() {
        let mut table = PoolTable::default();
        for number in 0..POOLS_SHOWN + 3 {
            table.set(&pool(&format!("pool-{number}")), used(1));
        }
        let shown = table.shown();
        assert_eq!(shown.len(), POOLS_SHOWN + 1);
        let (other, sum) = shown.last().unwrap();
        assert_eq!((other.name.as_str(), other.namespace.as_str(), sum.used), ("_other", "", 3));
        table.remove(&pool("pool-0"));
        assert_eq!(table.shown().last().unwrap().1.used, 2);
    }

    #[test]
    fn a_pool_that_is_gone_is_shown_no_more() {
        let metrics = Metrics::new("1.2.3");
        metrics.pool_gauges(&pool("a"), used(3));
        metrics.pool_gauges(&pool("a"), used(4));
        assert!(metrics.encode().unwrap().contains("state=\"used\"} 4.0"));
        metrics.forget_pool(&pool("a"));
        assert!(!metrics.encode().unwrap().contains("team-a"));
    }
}
