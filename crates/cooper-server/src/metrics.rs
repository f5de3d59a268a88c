//! What the server counts, in the Prometheus text form. What can be looked up is looked up when it is asked for.

use std::fmt::Write as _;

use cooper_engine::run::RunStatus;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The server's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Counter,
    finished: Family<StatusLabel, Counter>,
    unfinished: Family<StatusLabel, Gauge>,
    agents: Gauge,
    log_bytes: Counter,
    context_bytes: Counter,
    deliveries: Family<OutcomeLabel, Counter>,
    received: Family<OutcomeLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StatusLabel {
    status: Status,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Status(RunStatus);

impl EncodeLabelValue for Status {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0.as_str())
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("cooper"),
            accepted: Counter::default(),
            finished: Family::default(),
            unfinished: Family::default(),
            agents: Gauge::default(),
            log_bytes: Counter::default(),
            context_bytes: Counter::default(),
            deliveries: Family::default(),
            received: Family::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("runs_accepted", "Runs accepted since the start", self.accepted.clone());
        registry.register("runs_finished", "Runs finished since the start, by status", self.finished.clone());
        registry.register("runs_unfinished", "Runs that have not finished, by status", self.unfinished.clone());
        registry.register("agents_connected", "Agents that are connected", self.agents.clone());
        registry.register("log_received_bytes", "Bytes of log output received from agents", self.log_bytes.clone());
        registry.register("context_received_bytes", "Bytes of contexts received", self.context_bytes.clone());
        let help = "Tries to deliver events since the start, by outcome";
        registry.register("event_deliveries", help, self.deliveries.clone());
        let help = "Requests to hooks since the start, by what became of them";
        registry.register("hook_deliveries", help, self.received.clone());
        self
    }

    pub(crate) fn event_delivered(&self) {
        self.delivery("delivered");
    }

    pub(crate) fn event_given_up(&self) {
        self.delivery("given_up");
    }

    pub(crate) fn event_not_taken(&self) {
        self.delivery("not_taken");
    }

    fn delivery(&self, outcome: &'static str) {
        self.deliveries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Something came to a hook.
    pub(crate) fn received(&self, outcome: &'static str) {
        self.received.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn run_accepted(&self) {
        self.accepted.inc();
    }

    pub(crate) fn run_finished(&self, status: RunStatus) {
        self.finished.get_or_create(&StatusLabel { status: Status(status) }).inc();
    }

    pub(crate) fn log_received(&self, bytes: usize) {
        self.log_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn context_received(&self, bytes: u64) {
        self.context_bytes.inc_by(bytes);
    }

    /// The text, with the gauges as they are now.
    pub(crate) fn text(&self, unfinished: &[(RunStatus, u64)], agents: usize) -> String {
        for status in RunStatus::ALL.into_iter().filter(|status| !status.is_terminal()) {
            let count = unfinished.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, count)| *count);
            self.unfinished.get_or_create(&StatusLabel { status: Status(status) }).set(count.cast_signed());
        }
        self.agents.set(agents as i64);
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String does not fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_the_prometheus_form() {
        let metrics = Metrics::new();
        metrics.run_accepted();
        metrics.run_finished(RunStatus::Failed);
        let text = metrics.text(&[(RunStatus::Running, 3)], 2);
        for line in [
            "cooper_runs_accepted_total 1",
            "cooper_runs_finished_total{status=\"Failed\"} 1",
            "cooper_runs_unfinished{status=\"Queued\"} 0",
            "cooper_runs_unfinished{status=\"Running\"} 3",
            "cooper_agents_connected 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
