//! What all parts of a running server share, and the one way in which a run changes.
//!
//! [`Core::apply`] is the shell around the state machine: it stores what an event does, then carries out what is to be
//! sent. Sending may fail without harm: the sweep and the agents' reports say everything again.

use std::sync::Arc;

use cooper_api::agent::to_agent;
use cooper_engine::message::ToAgent;
use cooper_engine::run::{Effect, Policy, Run, RunEvent};
use cooper_ports::clock::Clock;
use cooper_ports::contexts::ContextStore;
use cooper_ports::logs::LogStore;
use cooper_ports::runs::{Applied, ApplyError, RunStore};
use cooper_registry::SigningKey;
use cooper_types::{RegistryName, RunId};
use tokio::sync::{Notify, broadcast};

use crate::access::Access;
use crate::agents::AgentTable;
use crate::contexts::ContextFiles;
use crate::keys::ServerKey;
use crate::metrics::Metrics;
use crate::orders;

/// News that followers may miss before they look for themselves.
const NEWS_CAPACITY: usize = 1024;

/// What all parts of a server share.
pub(crate) struct Core {
    pub(crate) runs: Arc<dyn RunStore>,
    pub(crate) logs: Arc<dyn LogStore>,
    pub(crate) contexts: Arc<dyn ContextStore>,
    pub(crate) context_files: ContextFiles,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) access: Access,
    pub(crate) key: ServerKey,
    pub(crate) signing: SigningKey,
    pub(crate) registry: RegistryName,
    pub(crate) agents: AgentTable,
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
    /// Wakes the scheduler. It also looks by itself, so a lost wake-up costs a moment only.
    pub(crate) wake: Notify,
    news: broadcast::Sender<RunId>,
}

/// The parts that a core is made of.
pub(crate) struct CoreParts {
    pub(crate) runs: Arc<dyn RunStore>,
    pub(crate) logs: Arc<dyn LogStore>,
    pub(crate) contexts: Arc<dyn ContextStore>,
    pub(crate) context_files: ContextFiles,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) access: Access,
    pub(crate) key: ServerKey,
    pub(crate) signing: SigningKey,
    pub(crate) registry: RegistryName,
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Self {
        Self {
            runs: parts.runs,
            logs: parts.logs,
            contexts: parts.contexts,
            context_files: parts.context_files,
            clock: parts.clock,
            access: parts.access,
            key: parts.key,
            signing: parts.signing,
            registry: parts.registry,
            agents: AgentTable::default(),
            policy: Policy::DEFAULT,
            metrics: Metrics::new(),
            wake: Notify::new(),
            news: broadcast::Sender::new(NEWS_CAPACITY),
        }
    }

    /// Applies an event to a run, durably, and carries out what follows from it.
    pub(crate) async fn apply(&self, run: RunId, event: RunEvent) -> Result<Applied, ApplyError> {
        let applied = self.runs.apply_event(run, event, &self.policy).await?;
        self.announce(run);
        // Something may wait now, or a slot may be free.
        let waits = applied.run.pending_reason().is_some();
        let stops = applied.send.iter().any(|effect| matches!(effect, Effect::SendStop { .. }));
        if waits || stops {
            self.wake.notify_one();
        }
        if applied.run.finished().is_some() {
            self.metrics.run_finished(applied.run.status());
            tracing::info!(run = %run, status = %applied.run.status(), "run finished");
        }
        self.carry_out(&applied.run, &applied.send).await;
        Ok(applied)
    }

    /// Sends what is to be sent. What can't be sent now is said again when the agent reports.
    pub(crate) async fn carry_out(&self, run: &Run, effects: &[Effect]) {
        for effect in effects {
            let (agent, message) = match effect {
                Effect::SendOffer { agent, key, placement } => {
                    let Some(planned) = run.plan.placements.get(*placement) else { continue };
                    (agent, ToAgent::Offer { key: *key, platform: planned.platform.clone() })
                }
                Effect::SendStart { agent, key, attempt, step } => {
                    match orders::make(self, run, *step, *attempt).await {
                        Ok(work) => (agent, ToAgent::StartStep { key: *key, attempt: *attempt, work }),
                        Err(orders::OrderError::Over) => continue,
                        Err(error) => {
                            tracing::error!(run = %run.id, error = crate::problem::chain(&error), "step can't be started");
                            continue;
                        }
                    }
                }
                Effect::SendStop { agent, key } => (agent, ToAgent::Stop { key: *key }),
                Effect::AttemptBegan { .. }
                | Effect::AttemptEnded { .. }
                | Effect::PublishTags { .. }
                | Effect::BasesResolved { .. }
                | Effect::LogLine(_)
                | Effect::LogGap(_)
                | Effect::Finished => continue,
            };
            self.agents.send(agent, to_agent(message));
        }
    }

    /// Tells followers that a run or its log changed.
    pub(crate) fn announce(&self, run: RunId) {
        // Nobody listening is no error.
        let _ = self.news.send(run);
    }

    /// The changes of all runs from now on. A receiver that lags looks at its run anyway.
    pub(crate) fn news(&self) -> broadcast::Receiver<RunId> {
        self.news.subscribe()
    }
}
