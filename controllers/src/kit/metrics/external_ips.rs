//! What external IP sources measure. No label is an object's name.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{BIND_BUCKETS, Histograms, WAIT_BUCKETS, observe, signed};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RunLabels {
    solver: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct SolverLabel {
    solver: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FamilyLabel {
    family: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct WriteLabels {
    output: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutputLabel {
    output: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ClassLabel {
    class: &'static str,
}

/// For a single series, which is there once it is set.
type NoLabels = [(&'static str, &'static str); 0];

/// How many sources or Services are in which state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[allow(missing_docs)] // the names are those of the label values
pub struct States {
    pub ready: usize,
    pub degraded: usize,
    pub failing: usize,
}

/// How the shared answers of one kind of solver stand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AnswersShown {
    /// Answers that somebody uses.
    pub all: usize,
    /// Those whose solver fails while its last answer is used.
    pub held: usize,
    /// For how long the oldest of them has been held.
    pub oldest_held: Duration,
}

/// The metrics of external IP sources. Where these do not run, there is no series of them.
#[derive(Debug)]
pub struct ExternalIpMetrics {
    runs: Family<RunLabels, Counter>,
    run_duration: Histograms<SolverLabel>,
    answers: Family<SolverLabel, Gauge>,
    answers_held: Family<SolverLabel, Gauge>,
    oldest_held: Family<SolverLabel, Gauge>,
    services: Family<StateLabel, Gauge>,
    sources: Family<StateLabel, Gauge>,
    address_changes: Family<FamilyLabel, Counter>,
    writes: Family<WriteLabels, Counter>,
    publish: Histograms<OutputLabel>,
    refused: Family<ClassLabel, Counter>,
    port_conflicts: Family<NoLabels, Gauge>,
    contended: Family<NoLabels, Gauge>,
}

impl ExternalIpMetrics {
    pub(super) fn register(r: &mut Registry) -> Self {
        let quick: fn() -> Histogram = || Histogram::new(BIND_BUCKETS);
        let slow: fn() -> Histogram = || Histogram::new(WAIT_BUCKETS);
        let metrics = Self {
            runs: Family::default(),
            run_duration: Family::new_with_constructor(quick),
            answers: Family::default(),
            answers_held: Family::default(),
            oldest_held: Family::default(),
            services: Family::default(),
            sources: Family::default(),
            address_changes: Family::default(),
            writes: Family::default(),
            publish: Family::new_with_constructor(slow),
            refused: Family::default(),
            port_conflicts: Family::default(),
            contended: Family::default(),
        };
        // The encoder appends `_total` to the name of every counter.
        r.register("external_ip_solver_runs", "Questions to solvers, by what came of them", metrics.runs.clone());
        r.register("external_ip_solver_duration_seconds", "Time until a solver had answered", metrics.run_duration.clone());
        r.register("external_ip_answers", "Shared answers in use", metrics.answers.clone());
        r.register(
            "external_ip_answers_held",
            "Answers whose solver fails while its last one is used",
            metrics.answers_held.clone(),
        );
        r.register("external_ip_oldest_held_seconds", "Age of the oldest answer that is held", metrics.oldest_held.clone());
        r.register("external_ip_services", "Services bound to a source", metrics.services.clone());
        r.register("external_ip_sources", "Sources", metrics.sources.clone());
        r.register("external_ip_address_changes", "Addresses added to or taken from a Service", metrics.address_changes.clone());
        r.register("external_ip_writes", "Writes of an output", metrics.writes.clone());
        r.register("external_ip_publish_seconds", "From a changed answer to the end of the write", metrics.publish.clone());
        r.register("external_ip_refused_addresses", "Answered addresses that are not acceptable", metrics.refused.clone());
        r.register(
            "external_ip_port_conflicts",
            "Services that share an address and port with an older one",
            metrics.port_conflicts.clone(),
        );
        r.register("external_ip_contended", "Services whose addresses somebody else keeps changing", metrics.contended.clone());
        metrics
    }

    /// Counts an answer of a solver; `outcome` is `found`, `empty` or the kind of failure.
    pub fn ran(&self, solver: &'static str, outcome: &'static str, took: Duration) {
        self.runs.get_or_create(&RunLabels { solver, outcome }).inc();
        observe(&self.run_duration, &SolverLabel { solver }, took);
    }

    /// Shows the answers of one kind of solver.
    pub fn answers(&self, solver: &'static str, shown: AnswersShown) {
        let label = SolverLabel { solver };
        self.answers.get_or_create(&label).set(signed(shown.all));
        self.answers_held.get_or_create(&label).set(signed(shown.held));
        self.oldest_held.get_or_create(&label).set(i64::try_from(shown.oldest_held.as_secs()).unwrap_or(i64::MAX));
    }

    /// Shows how many Services are in which state.
    pub fn services(&self, states: States) {
        show(&self.services, states);
    }

    /// Shows how many sources are in which state.
    pub fn sources(&self, states: States) {
        show(&self.sources, states);
    }

    /// Counts addresses of `family` that were added to or taken from a Service.
    pub fn addresses_changed(&self, family: &'static str, count: usize) {
        self.address_changes.get_or_create(&FamilyLabel { family }).inc_by(count as u64);
    }

    /// Counts a write of an output; `result` is `ok` or the category of the error.
    pub fn wrote(&self, output: &'static str, result: &'static str) {
        self.writes.get_or_create(&WriteLabels { output, result }).inc();
    }

    /// Counts the time from a changed answer to the end of the write that published it.
    pub fn published(&self, output: &'static str, took: Duration) {
        observe(&self.publish, &OutputLabel { output }, took);
    }

    /// Counts answered addresses of a class that is not accepted.
    pub fn refused(&self, class: &'static str, count: usize) {
        self.refused.get_or_create(&ClassLabel { class }).inc_by(count as u64);
    }

    /// Shows how many Services share an address and port with an older one.
    pub fn port_conflicts(&self, count: usize) {
        self.port_conflicts.get_or_create(&[]).set(signed(count));
    }

    /// Shows on how many Services somebody else keeps changing what we write.
    pub fn contended(&self, count: usize) {
        self.contended.get_or_create(&[]).set(signed(count));
    }
}

fn show(family: &Family<StateLabel, Gauge>, states: States) {
    let States { ready, degraded, failing } = states;
    for (state, count) in [("ready", ready), ("degraded", degraded), ("failing", failing)] {
        family.get_or_create(&StateLabel { state }).set(signed(count));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn a_manager_without_external_ip_sources_shows_none_of_them() {
        let text = Metrics::new("1.2.3").encode().unwrap();
        let series = text.lines().find(|line| line.starts_with("external_ip"));
        assert_eq!(series, None);
    }

    #[test]
    fn every_metric_has_the_name_and_labels_of_the_table() {
        let metrics = Metrics::new("1.2.3");
        let second = Duration::from_secs(1);
        let ours = metrics.external_ips();
        ours.ran("dnsHostname", "Timeout", second);
        ours.answers("dnsHostname", AnswersShown { all: 3, held: 2, oldest_held: Duration::from_secs(70) });
        ours.services(States { ready: 5, degraded: 1, failing: 2 });
        ours.sources(States { ready: 4, degraded: 0, failing: 0 });
        ours.addresses_changed("IPv4", 2);
        ours.wrote("ExternalIPs", "ok");
        ours.published("ExternalIPs", second);
        ours.refused("private", 1);
        ours.port_conflicts(6);
        ours.contended(7);
        let text = metrics.encode().unwrap();
        for line in [
            "external_ip_solver_runs_total{solver=\"dnsHostname\",outcome=\"Timeout\"} 1",
            "external_ip_solver_duration_seconds_count{solver=\"dnsHostname\"} 1",
            "external_ip_answers{solver=\"dnsHostname\"} 3",
            "external_ip_answers_held{solver=\"dnsHostname\"} 2",
            "external_ip_oldest_held_seconds{solver=\"dnsHostname\"} 70",
            "external_ip_services{state=\"ready\"} 5",
            "external_ip_services{state=\"failing\"} 2",
            "external_ip_sources{state=\"degraded\"} 0",
            "external_ip_address_changes_total{family=\"IPv4\"} 2",
            "external_ip_writes_total{output=\"ExternalIPs\",result=\"ok\"} 1",
            "external_ip_publish_seconds_count{output=\"ExternalIPs\"} 1",
            "external_ip_refused_addresses_total{class=\"private\"} 1",
            "external_ip_port_conflicts{} 6",
            "external_ip_contended{} 7",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
