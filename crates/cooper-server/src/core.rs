//! What all parts of a running server share, and the one way in which a run changes.
//!
//! [`Core::apply`] is the shell around the state machine: it stores what an event does, then carries out what is to be
//! sent. Sending may fail without harm: the sweep and the agents' reports say everything again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use cooper_api::agent::{SpokenByServer, to_agent};
use cooper_api::problem::ProblemCode;
use cooper_engine::message::{StepOutput, StepResult, ToAgent};
use cooper_engine::run::{Effect, Policy, Run, RunEvent};
use cooper_engine::task::Cause;
use cooper_ports::agents::AgentStore;
use cooper_ports::clock::Clock;
use cooper_ports::contexts::ContextStore;
use cooper_ports::credentials::SourceCredentialStore;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::hooks::HookStore;
use cooper_ports::logs::LogStore;
use cooper_ports::outbox::{Outbox, WebhookStore};
use cooper_ports::outside_tags::OutsideTagStore;
use cooper_ports::references::ReferenceStore;
use cooper_ports::registrations::RegistrationStore;
use cooper_ports::runs::{Applied, ApplyError, Explanation, RunStore, SecretKind};
use cooper_ports::secrets::SecretStore;
use cooper_ports::statuses::StatusStore;
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::TaskStore;
use cooper_ports::waves::WaveStore;
use cooper_registry::SigningKey;
use cooper_source::Cidr;
use cooper_source::egress::{Egress, EgressOptions, EgressPolicy, Names};
use cooper_spec::dockerfile::FrontendRules;
use cooper_types::{AgentName, Digest, RegistryName, RunId, SecretBytes, SecretString};
use tokio::sync::{Notify, RwLock, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::access::Access;
use crate::acr_image::{AcrImage, AcrImageError};
use crate::agents::{AgentTable, HostsAsked};
use crate::contexts::ContextFiles;
use crate::docker_logins::DockerLogins;
use crate::hooks::Hooks;
use crate::keys::ServerKey;
use crate::metrics::Metrics;
use crate::orders;
use crate::problem::{ApiError, ApiResult, chain};
use crate::secrets::Secrets;
use crate::tasks::Plannings;
use crate::waves;

/// News that followers may miss before they look for themselves.
const NEWS_CAPACITY: usize = 1024;

/// The generation of a run that was accepted and not changed yet.
const FIRST_GENERATION: u64 = 1;

/// What all parts of a server share.
pub(crate) struct Core {
    pub(crate) runs: Arc<dyn RunStore>,
    pub(crate) logs: Arc<dyn LogStore>,
    pub(crate) tasks: Arc<dyn TaskStore>,
    pub(crate) hook_store: Arc<dyn HookStore>,
    pub(crate) statuses: Arc<dyn StatusStore>,
    pub(crate) references: Arc<dyn ReferenceStore>,
    pub(crate) registrations: Arc<dyn RegistrationStore>,
    pub(crate) outside_tags: Arc<dyn OutsideTagStore>,
    /// Where people and forges reach the server.
    pub(crate) public_url: String,
    /// Whether the operator has said so.
    pub(crate) is_public: bool,
    /// What came to hooks and is not in the store.
    pub(crate) hooks: Hooks,
    /// Has the timers looked at: one was made or changed.
    pub(crate) timers: Notify,
    pub(crate) waves: Arc<dyn WaveStore>,
    /// How many runs of all waves go on at a time.
    pub(crate) wave_concurrency: usize,
    /// Has the waves looked at: a tag may have moved, or a run has ended.
    pub(crate) waves_wake: Notify,
    /// Why members of waves are let be for now.
    pub(crate) wave_waits: waves::Waits,
    /// Has the tags of other registries looked at: somebody says that one has moved.
    pub(crate) poller_wake: Notify,
    pub(crate) webhooks: Arc<dyn WebhookStore>,
    /// What goes out.
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) contexts: Arc<dyn ContextStore>,
    pub(crate) context_files: ContextFiles,
    /// How long contexts are kept after their runs.
    pub(crate) context_retention: Duration,
    /// How many bytes of them, together.
    pub(crate) context_retention_bytes: u64,
    pub(crate) credentials: Arc<dyn SourceCredentialStore>,
    pub(crate) secret_store: Arc<dyn SecretStore>,
    pub(crate) allowed_sources: Vec<Cidr>,
    pub(crate) source_roots: Option<Vec<u8>>,
    /// What the runs may show hosts besides, where the server is one user's own.
    pub(crate) docker_logins: Option<DockerLogins>,
    /// For what task files name.
    pub(crate) egress: Egress,
    /// For webhooks, which administrators make.
    pub(crate) webhook_egress: Egress,
    /// For the endpoints of tasks.
    pub(crate) endpoint_egress: Egress,
    /// Which frontends may read Dockerfiles.
    pub(crate) frontends: FrontendRules,
    /// The operator's names for images in task files.
    pub(crate) image_aliases: BTreeMap<String, String>,
    /// Which prepared sources are being planned.
    pub(crate) plannings: Plannings,
    pub(crate) hosts_asked: HostsAsked,
    pub(crate) clock: Arc<dyn Clock>,
    /// What timers follow.
    pub(crate) wall_clock: Arc<dyn Clock>,
    pub(crate) access: Access,
    pub(crate) key: Arc<ServerKey>,
    /// Whom tasks' secrets come from.
    pub(crate) secrets: Secrets,
    pub(crate) signing: SigningKey,
    pub(crate) registry: RegistryName,
    pub(crate) agent_store: Arc<dyn AgentStore>,
    /// The connected agents.
    pub(crate) agents: AgentTable,
    /// Connections and what administrators do to agents, one after the other: written are both row and table. Agents that
    /// connect share it among themselves.
    pub(crate) agent_changes: RwLock<()>,
    /// The versions of the agents' protocol.
    pub(crate) spoken: SpokenByServer,
    /// The name of the agent inside this process, which nobody else may take.
    pub(crate) local_agent: Option<AgentName>,
    pub(crate) policy: Policy,
    pub(crate) metrics: Metrics,
    /// A run's change could not be written, such as a renewal on a full disk, since the scheduler last looked.
    pub(crate) refused_writes: AtomicBool,
    /// Wakes the scheduler. It also looks by itself, so a lost wake-up costs a moment only.
    pub(crate) wake: Notify,
    /// The unfinished runs that changed since the scheduler last asked, with their generations. It finds them in the rows
    /// as well.
    changed: Mutex<BTreeMap<RunId, (u64, Run)>>,
    news: broadcast::Sender<RunId>,
    changes: TaskTracker,
    /// The image that stands for ACR's client, where there is one.
    pub(crate) own_image: OnceLock<AcrImage>,
    /// The server waits for changes alone, and for nobody else any more.
    pub(crate) stopping: CancellationToken,
}

/// The parts that a core is made of.
pub(crate) struct CoreParts {
    pub(crate) runs: Arc<dyn RunStore>,
    pub(crate) logs: Arc<dyn LogStore>,
    pub(crate) tasks: Arc<dyn TaskStore>,
    pub(crate) waves: Arc<dyn WaveStore>,
    pub(crate) wave_concurrency: usize,
    pub(crate) webhooks: Arc<dyn WebhookStore>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) hook_store: Arc<dyn HookStore>,
    pub(crate) statuses: Arc<dyn StatusStore>,
    pub(crate) references: Arc<dyn ReferenceStore>,
    pub(crate) registrations: Arc<dyn RegistrationStore>,
    pub(crate) outside_tags: Arc<dyn OutsideTagStore>,
    /// Where people and forges reach the server.
    pub(crate) public_url: String,
    /// Whether the operator has said so.
    pub(crate) is_public: bool,
    pub(crate) contexts: Arc<dyn ContextStore>,
    pub(crate) context_files: ContextFiles,
    pub(crate) context_retention: Duration,
    pub(crate) context_retention_bytes: u64,
    pub(crate) credentials: Arc<dyn SourceCredentialStore>,
    pub(crate) secret_store: Arc<dyn SecretStore>,
    pub(crate) allowed_sources: Vec<Cidr>,
    pub(crate) allowed_webhooks: Vec<Cidr>,
    /// Who knows the addresses of the places that users name; the system if absent.
    pub(crate) names: Option<Names>,
    pub(crate) source_roots: Option<Vec<u8>>,
    pub(crate) docker_logins: Option<DockerLogins>,
    pub(crate) image_aliases: BTreeMap<String, String>,
    pub(crate) frontends: FrontendRules,
    pub(crate) clock: Arc<dyn Clock>,
    /// What timers follow.
    pub(crate) wall_clock: Arc<dyn Clock>,
    pub(crate) access: Access,
    pub(crate) key: Arc<ServerKey>,
    pub(crate) secrets: Secrets,
    pub(crate) signing: SigningKey,
    pub(crate) registry: RegistryName,
    pub(crate) agent_store: Arc<dyn AgentStore>,
    pub(crate) spoken: SpokenByServer,
    pub(crate) local_agent: Option<AgentName>,
}

impl Core {
    /// A path as it is reached from outside, if the operator has said where that is.
    pub(crate) fn public(&self, path: &str) -> Option<String> {
        self.is_public.then(|| format!("{}{path}", self.public_url))
    }

    pub(crate) fn new(parts: CoreParts) -> Self {
        let egress = |allow: &[Cidr], listed_by| {
            let policy = EgressPolicy { allow: allow.to_vec() };
            let (extra_roots, names) = (parts.source_roots.clone(), parts.names.clone());
            Egress::new(EgressOptions { policy, listed_by, names, extra_roots, ..EgressOptions::default() })
        };
        Self {
            egress: egress(&parts.allowed_sources, "cooper serve --allow-source"),
            webhook_egress: egress(
                &[&parts.allowed_sources[..], &parts.allowed_webhooks].concat(),
                "cooper serve --allow-webhook",
            ),
            endpoint_egress: egress(&parts.allowed_webhooks, "cooper serve --allow-webhook"),
            image_aliases: parts.image_aliases,
            frontends: parts.frontends,
            plannings: Plannings::default(),
            hosts_asked: HostsAsked::default(),
            own_image: OnceLock::new(),
            runs: parts.runs,
            logs: parts.logs,
            tasks: parts.tasks,
            hook_store: parts.hook_store,
            statuses: parts.statuses,
            references: parts.references,
            registrations: parts.registrations,
            outside_tags: parts.outside_tags,
            public_url: parts.public_url,
            is_public: parts.is_public,
            hooks: Hooks::default(),
            timers: Notify::new(),
            waves: parts.waves,
            wave_concurrency: parts.wave_concurrency,
            wave_waits: waves::Waits::default(),
            waves_wake: Notify::new(),
            poller_wake: Notify::new(),
            webhooks: parts.webhooks,
            outbox: parts.outbox,
            contexts: parts.contexts,
            context_files: parts.context_files,
            context_retention: parts.context_retention,
            context_retention_bytes: parts.context_retention_bytes,
            credentials: parts.credentials,
            secret_store: parts.secret_store,
            allowed_sources: parts.allowed_sources,
            source_roots: parts.source_roots,
            docker_logins: parts.docker_logins,
            clock: parts.clock,
            wall_clock: parts.wall_clock,
            access: parts.access,
            key: parts.key,
            secrets: parts.secrets,
            signing: parts.signing,
            registry: parts.registry,
            agent_store: parts.agent_store,
            agents: AgentTable::default(),
            agent_changes: RwLock::new(()),
            spoken: parts.spoken,
            local_agent: parts.local_agent,
            policy: Policy::DEFAULT,
            metrics: Metrics::new(),
            refused_writes: AtomicBool::new(false),
            wake: Notify::new(),
            changed: Mutex::default(),
            news: broadcast::Sender::new(NEWS_CAPACITY),
            changes: TaskTracker::new(),
            stopping: CancellationToken::new(),
        }
    }

    /// Applies an event to a run, durably, and carries out what follows from it.
    pub(crate) async fn apply(&self, run: RunId, event: RunEvent) -> Result<Applied, ApplyError> {
        let applied = self.store_event(run, event).await?;
        self.carry_out(&applied.run, &applied.send).await;
        Ok(applied)
    }

    /// Writes down why placements wait, and tells whom it concerns.
    pub(crate) async fn explain(&self, reasons: Vec<Explanation>) -> Result<(), StoreError> {
        let explained = self.runs.explain_runs(reasons, &self.policy).await;
        if explained.is_err() {
            self.refused_writes.store(true, Ordering::Relaxed);
        }
        for (generation, run) in explained? {
            self.announce(run.id);
            self.tell_scheduler(generation, &run);
        }
        Ok(())
    }

    /// Applies an event and wakes whom it concerns. Nothing is sent yet.
    async fn store_event(&self, run: RunId, event: RunEvent) -> Result<Applied, ApplyError> {
        // It would be offered again at once, to the same agent, for as long as that declines: it waits for the scheduler's
        // next look.
        let quiet = matches!(event, RunEvent::Declined { .. });
        let pushed = matches!(
            event,
            RunEvent::StepEnded { result: StepResult::Succeeded { output: StepOutput::Pushed { .. } }, .. }
        );
        let accepted = matches!(event, RunEvent::Accepted { .. });
        let before = self.clock.now();
        let applied = self.runs.apply_event(run, event, &self.policy).await;
        if let Err(ApplyError::Store(_)) = &applied {
            self.refused_writes.store(true, Ordering::Relaxed);
        }
        let applied = applied?;
        failpoint::pass(Failpoint::EventStored);
        if pushed {
            failpoint::pass(Failpoint::TagsPublished);
        }
        self.announce(run);
        self.tell_scheduler(applied.generation, &applied.run);
        // Something may wait now, or a slot may be free, or an offer is answered and makes room for another.
        let waits = applied.run.pending_reason().is_some() && !quiet;
        let stops = applied.send.iter().any(|effect| matches!(effect, Effect::SendStop { .. }));
        if waits || stops || accepted {
            self.wake.notify_one();
        }
        for loss in applied.run.losses.iter().filter(|loss| loss.at >= before) {
            let (agent, reason) = (&loss.agent, &loss.reason);
            tracing::warn!(run = %run, agent = %agent, reason, "agent lost a run; it starts again, until that was too often");
        }
        if pushed || applied.run.finished().is_some() {
            self.waves_wake.notify_one();
        }
        if applied.run.finished().is_some() {
            self.metrics.run_finished(applied.run.status());
            if matches!(applied.run.origin.cause, Cause::Source(_)) {
                self.hooks.tell.notify_one();
            }
            tracing::info!(run = %run, status = %applied.run.status(), "run finished");
        }
        Ok(applied)
    }

    /// Sends what is to be sent. What can't be sent now is said again when the agent reports; a step whose order can't
    /// be made at all counts as lost, so that its run ends instead of waiting for nothing.
    pub(crate) async fn carry_out(&self, run: &Run, effects: &[Effect]) {
        let mut lost = self.send(run, effects).await;
        while let Some(event) = lost.pop() {
            match self.store_event(run.id, event).await {
                Ok(applied) => lost.extend(self.send(&applied.run, &applied.send).await),
                // The attempt has ended in the meantime, one way or the other.
                Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)) => {}
                Err(error) => tracing::error!(run = %run.id, error = chain(&error), "lost step can't be recorded"),
            }
        }
    }

    /// Sends messages, and returns what became of the steps and offers that can't be sent.
    async fn send(&self, run: &Run, effects: &[Effect]) -> Vec<RunEvent> {
        let mut lost = Vec::new();
        for effect in effects {
            let (agent, message) = match effect {
                // It was drained while it was chosen.
                Effect::SendOffer { agent, key, .. } if self.agents.is_draining(agent) => {
                    let why = "it is being drained".to_owned();
                    lost.push(RunEvent::Declined { fence: key.fence, why });
                    continue;
                }
                Effect::SendOffer { agent, key, placement } => {
                    let Some(planned) = run.plan.placements.get(*placement) else { continue };
                    self.agents.note_offer(agent, *key);
                    (agent, ToAgent::Offer { key: *key, platform: planned.platform.clone() })
                }
                Effect::SendStart { agent, key, attempt, step } => {
                    match orders::make(self, run, *step, *attempt).await {
                        Ok(work) => (agent, ToAgent::StartStep { key: *key, attempt: *attempt, work }),
                        Err(orders::OrderError::Over) => continue,
                        Err(error) => {
                            let (may_pass, is_users, is_soon) = (error.may_pass(), error.is_users(), error.is_soon());
                            let error = chain(&error);
                            match is_soon {
                                true => tracing::info!(run = %run.id, attempt = %attempt, error, "step waits"),
                                false => {
                                    tracing::error!(run = %run.id, attempt = %attempt, error, "step can't be started")
                                }
                            }
                            if !may_pass {
                                let reason = format!("the server can't start the step: {error}");
                                let result = match is_users {
                                    true => StepResult::Failed { exit_code: None, reason: error },
                                    false => StepResult::Lost { reason },
                                };
                                lost.push(RunEvent::StepEnded { fence: key.fence, attempt: *attempt, result });
                            }
                            continue;
                        }
                    }
                }
                Effect::SendResultStored { agent, key, attempt } => {
                    (agent, ToAgent::ResultStored { key: *key, attempt: *attempt })
                }
                Effect::SendStop { agent, key } => (agent, ToAgent::Stop { key: *key }),
                Effect::AttemptBegan { .. }
                | Effect::AttemptEnded { .. }
                | Effect::PublishTags { .. }
                | Effect::KeepStaged { .. }
                | Effect::KeepCache { .. }
                | Effect::BasesResolved { .. }
                | Effect::Planned { .. }
                | Effect::KeepSecrets(_)
                | Effect::KeepTexts(_)
                | Effect::LogLine(_)
                | Effect::LogGap(_)
                | Effect::Finished => continue,
            };
            self.agents.send(agent, to_agent(message));
        }
        lost
    }

    /// Writes down that the connected agents are.
    pub(crate) async fn write_down_agents(&self) {
        if let Err(error) = self.agent_store.agents_seen(self.agents.names()).await {
            tracing::error!(error = chain(&error), "connected agents can't be written down");
        }
    }

    /// Runs a change to its end even if the client that asked for it goes away. The server's stop waits for it.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        change: impl Future<Output = ApiResult<T>> + Send + 'static,
    ) -> ApiResult<T> {
        self.changes.spawn(change.in_current_span()).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request's change panicked");
            Err(ApiError::new(ProblemCode::Internal, "the server failed; its log says why"))
        })
    }

    /// Lets something go on beside whoever begins it. The server's stop waits for it.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.changes.spawn(work.in_current_span());
    }

    /// Seals a secret text of a plan under its name.
    pub(crate) fn seal_text(&self, name: &str, text: &SecretString) -> Vec<u8> {
        let value = SecretBytes::new(text.expose().as_bytes().to_vec());
        self.key.seal(&orders::sealing_purpose(SecretKind::Value, name), &value)
    }

    /// Waits for the changes that requests have begun; no new ones may come.
    pub(crate) async fn changes_finished(&self) {
        self.stopping.cancel();
        self.changes.close();
        self.changes.wait().await;
    }

    /// A run was accepted: the scheduler is to look for an agent.
    pub(crate) fn run_accepted(&self, run: &Run) {
        self.metrics.run_accepted();
        self.tell_scheduler(FIRST_GENERATION, run);
        self.wake.notify_one();
    }

    /// The digest of the image that stands for ACR's client.
    pub(crate) async fn acr_image(&self) -> Result<Digest, AcrImageError> {
        self.own_image.get().ok_or(AcrImageError::Absent)?.digest().await
    }

    /// Tells the scheduler of a run's new state. Of two states it believes the later one.
    fn tell_scheduler(&self, generation: u64, run: &Run) {
        let mut changed = self.changed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if changed.get(&run.id).is_none_or(|(known, _)| *known < generation) {
            changed.insert(run.id, (generation, run.clone()));
        }
    }

    /// The runs that changed since the last call, each in its last state that is known, and the state's generation.
    pub(crate) fn changed_runs(&self) -> impl Iterator<Item = (u64, Run)> {
        let mut changed = self.changed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *changed).into_values()
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
