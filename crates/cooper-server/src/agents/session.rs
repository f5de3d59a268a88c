//! One agent's stream, from its greeting to its end: turns its messages into events of runs, in the order they came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cooper_api::agent::wire::{self, agent_message, server_message};
use cooper_api::agent::{
    Agreed, HandshakeError, MAX_CAPABILITIES, SpokenByAgent, SpokenByServer, TAKES_IMAGES, attempt_message,
    read_agent_message, to_agent,
};
use cooper_engine::message::{Held, PlacementKey, StepOutput, StepResult, ToAgent, ToServer};
use cooper_engine::run::{AgentRef, Host, Placement, Refusal, Run, RunEvent};
use cooper_engine::schedule::AgentView;
use cooper_ports::agents::{AgentDescription, DiskSpace};
use cooper_ports::logs::{AppendError, NewFrame, Stream};
use cooper_ports::registry::CredentialVerifier as _;
use cooper_ports::runs::ApplyError;
use cooper_types::{AgentName, AttemptNumber, Leave, Platform, PoolName, RunId, Timestamp, TokenId};
use tonic::Status;

use super::Says;
use crate::core::Core;
use crate::problem::chain;

/// How often an agent has to say what it holds; a lease is four times as long.
pub(super) const HEARTBEAT_MS: u32 = 5_000;
/// How often the server may look, have worked in all that came, and have heard no report: a lease's time.
const MAX_SILENT: u32 = 3;
/// How often it may look and have heard no report, whatever came instead: two minutes. A server that is behind blames
/// nobody for it, but messages without end are no sign of life either.
const MAX_UNHEARD: u32 = 24;
/// The most slots that an agent may claim.
const MAX_SLOTS: u32 = 1024;

/// The longest of an agent's texts, in characters.
const MAX_TEXT: usize = 128;

/// What an agent's greeting says.
pub(super) struct Greeting {
    pub(super) agent: AgentRef,
    pub(super) description: AgentDescription,
    pub(super) agreed: Agreed,
}

impl Greeting {
    /// What the scheduler has to know.
    pub(super) fn view(&self, draining: bool) -> AgentView {
        let AgentDescription { pool, native, emulated, slots, capabilities, .. } = self.description.clone();
        let takes_images = capabilities.iter().any(|capability| capability == TAKES_IMAGES);
        let agent = self.agent.clone();
        let allows = capabilities.iter().filter_map(|capability| Leave::of_capability(capability)).collect();
        AgentView { agent, pool, native, emulated, slots, draining, unavailable: false, takes_images, allows }
    }
}

/// What an agent is told that speaks another protocol.
pub(super) fn version_refused(error: &HandshakeError, agent_version: &str) -> Status {
    let server = env!("CARGO_PKG_VERSION");
    Status::failed_precondition(format!("{error} (agent {}, server {server})", plain(agent_version)))
}

/// A text of an agent's, on one line and not long.
fn plain(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Reads an agent's greeting.
pub(super) fn read_hello(hello: &wire::Hello, server: SpokenByServer) -> Result<Greeting, Status> {
    let spoken = SpokenByAgent { newest: hello.protocol, oldest: hello.oldest_protocol };
    let agreed = server.agree(spoken).map_err(|error| version_refused(&error, &hello.version))?;
    let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(format!("greeting is not valid: {error}"));
    let platforms = |texts: &[String]| {
        let parsed: Result<Vec<Platform>, _> = texts.iter().take(64).map(|text| Platform::parse(text)).collect();
        parsed.map_err(|error| invalid(&error))
    };
    let name = AgentName::parse(&hello.name).map_err(|error| invalid(&error))?;
    // An incarnation has the form of a name.
    let incarnation = AgentName::parse(&hello.incarnation).map_err(|error| invalid(&error))?.to_string();
    if hello.slots == 0 || hello.slots > MAX_SLOTS {
        return Err(invalid(&format!("slots must be 1 to {MAX_SLOTS}")));
    }
    let pool = match hello.pool.as_str() {
        "" => PoolName::default_pool(),
        text => PoolName::parse(text).map_err(|error| invalid(&error))?,
    };
    let disk = hello.disk_free_bytes.zip(hello.disk_total_bytes).map(|(free, total)| DiskSpace { free, total });
    let description = AgentDescription {
        pool,
        incarnation: incarnation.clone(),
        native: platforms(&hello.native_platforms)?,
        emulated: platforms(&hello.emulated_platforms)?,
        slots: hello.slots,
        engine: plain(&hello.engine),
        capabilities: hello.capabilities.iter().take(MAX_CAPABILITIES).map(|text| plain(text)).collect(),
        version: plain(&hello.version),
        protocol: agreed.version,
        disk,
    };
    Ok(Greeting { agent: AgentRef { name, incarnation }, description, agreed })
}

/// What the server says of an agent's stream.
pub(super) struct Session {
    core: Arc<Core>,
    agent: AgentRef,
    /// What the agent showed: asked for again and again, so that a revoked token ends the stream.
    token: TokenId,
    /// What the agent is told when it holds nothing any more, if it speaks a version in which it gets no work.
    farewell: Option<Status>,
    /// What was seen to be this agent's. A fence is given to one life of one agent and an attempt to one fence, so this
    /// stays true; whether it is still live is checked where it is used.
    placements: BTreeSet<PlacementKey>,
    attempts: BTreeSet<(PlacementKey, AttemptNumber)>,
    /// Looks since the agent last said what it holds at which nothing of it was left to be worked in.
    silent: u32,
    /// All looks since then.
    unheard: u32,
    /// What it said of itself with its last report.
    says: Says,
    /// What it said of itself when it connected, for the lockfiles of its runs.
    host: Option<Host>,
}

impl Session {
    pub(super) fn new(core: Arc<Core>, agent: AgentRef, token: TokenId) -> Self {
        let (placements, attempts) = (BTreeSet::new(), BTreeSet::new());
        let says = Says::default();
        Self { core, agent, token, farewell: None, placements, attempts, silent: 0, unheard: 0, says, host: None }
    }

    /// Knows what the agent said of itself.
    pub(super) fn describe(&mut self, host: Host) {
        self.host = Some(host);
    }

    /// Ends the stream with these words once the agent holds nothing; at once, if it holds nothing now.
    pub(super) async fn end_when_idle(&mut self, farewell: Status) -> Result<(), Status> {
        if !self.runs().await?.iter().any(|run| run.placements.iter().any(|placement| self.is_mine(placement))) {
            return Err(farewell);
        }
        self.farewell = Some(farewell);
        Ok(())
    }

    /// What earlier lives of the agent held is lost.
    pub(super) async fn replace_earlier_lives(&self) -> Result<(), Status> {
        let earlier = |placement: &Placement| {
            placement.lease().is_some_and(|lease| lease.agent.name == self.agent.name && lease.agent != self.agent)
        };
        for run in self.runs().await?.iter().filter(|run| run.placements.iter().any(earlier)) {
            self.apply(run.id, RunEvent::AgentReplaced { agent: self.agent.clone() }).await;
        }
        Ok(())
    }

    /// Tells the runs that the agent holds of an end of its stream, or of a new one after that.
    pub(super) async fn tell_of_stream(&self, open: bool) {
        let told = match open {
            true => self.core.agents.was_missed(&self.agent),
            false => self.core.agents.miss(&self.agent),
        };
        if !told {
            return;
        }
        let Ok(runs) = self.runs().await else { return };
        for run in runs.iter().filter(|run| run.placements.iter().any(|placement| self.is_mine(placement))) {
            self.apply(run.id, RunEvent::Stream { agent: self.agent.clone(), open }).await;
        }
    }

    /// Looks after the agent, once in a heartbeat's time: its token must be good, and it must say what it holds. Where the
    /// server is `behind`, the report may be among what it has not read yet: that is no silence of the agent's.
    pub(super) async fn watch(&mut self, behind: bool) -> Result<(), Status> {
        self.silent += u32::from(!behind);
        self.unheard += 1;
        if self.silent > MAX_SILENT || self.unheard > MAX_UNHEARD {
            return Err(Status::deadline_exceeded("the agent does not say what it holds"));
        }
        self.check_token().await
    }

    async fn check_token(&self) -> Result<(), Status> {
        match self.core.access.is_active(&self.token).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Status::unauthenticated("the agent's token is expired or revoked")),
            Err(error) => Err(Status::unavailable(chain(&error))),
        }
    }

    /// Works one message in. An error ends the stream.
    pub(super) async fn receive(&mut self, message: wire::AgentMessage) -> Result<(), Status> {
        if let Some(agent_message::Message::LogFrames(frames)) = message.message {
            return self.log_frames(frames).await;
        }
        if let Some(agent_message::Message::Holding(report)) = &message.message {
            self.says = read_says(report);
        }
        let message = read_agent_message(message).map_err(|error| Status::invalid_argument(chain(&error)))?;
        match message {
            None => {}
            Some(ToServer::Holding(held)) => self.holding(held).await?,
            Some(ToServer::Accepted(key)) => {
                self.event_of(key, RunEvent::Accepted { fence: key.fence, host: self.host.clone() }).await?
            }
            Some(ToServer::Declined(key, why)) => {
                self.event_of(key, RunEvent::Declined { fence: key.fence, why }).await?;
            }
            Some(ToServer::StepStarted(key, attempt)) => {
                self.event_of(key, RunEvent::StepStarted { fence: key.fence, attempt }).await?;
            }
            Some(ToServer::Resolved(key, attempt, resolved)) => {
                self.event_of(key, RunEvent::Resolved { fence: key.fence, attempt, resolved }).await?;
            }
            Some(ToServer::StepEnded(key, attempt, result)) => {
                if self.owns(key).await? {
                    self.step_ended(key, attempt, result).await;
                } else {
                    self.send(to_agent(ToAgent::Stop { key }));
                    self.send(to_agent(ToAgent::ResultStored { key, attempt }));
                }
            }
            // The answer of an agent that has nothing to stop: saying `Stop` again would go on for ever.
            Some(ToServer::Stopped(key)) => self.stopped(key).await?,
        }
        Ok(())
    }

    /// Whether a placement is leased to this life of this agent. To everybody else it is over: an agent has no say in what
    /// was given to another, and one whose server was restored from a backup hears the same.
    async fn owns(&mut self, key: PlacementKey) -> Result<bool, Status> {
        if self.placements.contains(&key) {
            return Ok(true);
        }
        if self.core.agents.take_offer(&self.agent, key) {
            self.placements.insert(key);
            return Ok(true);
        }
        let Some(run) = self.find(key.run).await? else { return Ok(false) };
        let lease = run.placements.iter().filter_map(Placement::lease).find(|lease| lease.fence == key.fence);
        let Some(lease) = lease else { return Ok(false) };
        if lease.agent != self.agent {
            tracing::warn!(agent = %self.agent, run = %key.run, holder = %lease.agent, "agent speaks of another's placement");
            return Ok(false);
        }
        self.placements.insert(key);
        Ok(true)
    }

    /// Whether an attempt was released under a placement of this agent.
    async fn owns_attempt(&mut self, key: PlacementKey, attempt: AttemptNumber) -> Result<bool, Status> {
        if self.attempts.contains(&(key, attempt)) {
            return Ok(true);
        }
        if !self.owns(key).await? {
            return Ok(false);
        }
        let Some(run) = self.find(key.run).await? else { return Ok(false) };
        let own = run.steps.iter().zip(&run.plan.steps).any(|(step, planned)| {
            let lease = run.placements[planned.placement].lease();
            step.state.live_attempt() == Some(attempt) && lease.is_some_and(|lease| lease.fence == key.fence)
        });
        if own {
            self.attempts.insert((key, attempt));
        }
        Ok(own)
    }

    async fn find(&self, run: RunId) -> Result<Option<Run>, Status> {
        let found = self.core.runs.find_run(run).await.map_err(|error| Status::unavailable(chain(&error)))?;
        Ok(found.map(|record| record.run))
    }

    /// The unfinished runs that concern this agent's name.
    async fn runs(&self) -> Result<Vec<Run>, Status> {
        let runs = self.core.runs.runs_of_agent(&self.agent.name).await;
        runs.map_err(|error| Status::unavailable(chain(&error)))
    }

    /// Applies an event of a placement; an agent that holds what is over is told to stop it.
    async fn event_of(&mut self, key: PlacementKey, event: RunEvent) -> Result<(), Status> {
        let over = !self.owns(key).await? || matches!(self.apply(key.run, event).await, Outcome::Over);
        if over {
            self.send(to_agent(ToAgent::Stop { key }));
        }
        Ok(())
    }

    async fn stopped(&mut self, key: PlacementKey) -> Result<(), Status> {
        if self.owns(key).await? {
            self.apply(key.run, RunEvent::Stopped { fence: key.fence }).await;
        }
        Ok(())
    }

    async fn step_ended(&self, key: PlacementKey, attempt: AttemptNumber, result: StepResult) {
        let result = match result {
            StepResult::Succeeded { output: StepOutput::Prepared(found) } => match self.find(key.run).await {
                // Planning one fetches what the file names, which must not keep this agent's other messages waiting.
                Ok(Some(run)) if Core::is_task_source(&run) => {
                    return self.core.plan_prepared(self.agent.clone(), run, key, attempt, found);
                }
                Ok(_) => StepResult::Succeeded { output: StepOutput::Prepared(found) },
                // The agent says it again with its next report.
                Err(error) => return tracing::error!(run = %key.run, %error, "step result can't be stored"),
            },
            result => result,
        };
        let event = |result| RunEvent::StepEnded { fence: key.fence, attempt, result };
        let stored = match self.core.apply(key.run, event(result)).await {
            Ok(_) => true,
            Err(error @ (ApplyError::NotPushed { .. } | ApplyError::NotUploaded { .. })) => {
                let reason = match error {
                    ApplyError::NotPushed { .. } => "the push was reported and the registry has nothing of it",
                    _ => "the source was reported and the server has nothing of it",
                };
                let reason = reason.to_owned();
                self.core.apply(key.run, event(StepResult::Lost { reason })).await.is_ok()
            }
            Err(ApplyError::Refused { refusal, .. }) => {
                if let Refusal::StaleFence(_) | Refusal::Over = refusal {
                    self.send(to_agent(ToAgent::Stop { key }));
                }
                true
            }
            Err(ApplyError::Unknown(_)) => {
                self.send(to_agent(ToAgent::Stop { key }));
                true
            }
            Err(error @ ApplyError::Store(_)) => {
                // The agent says it again with its next report.
                tracing::error!(run = %key.run, error = chain(&error), "step result can't be stored");
                false
            }
        };
        if stored {
            self.send(to_agent(ToAgent::ResultStored { key, attempt }));
        }
    }

    /// An agent's report: renews what it holds, and says again what may have been lost on the way.
    async fn holding(&mut self, held: Vec<Held>) -> Result<(), Status> {
        self.check_token().await?;
        (self.silent, self.unheard) = (0, 0);
        if self.core.agents.heard(&self.agent, self.says.clone()) {
            self.core.wake.notify_one();
        }
        let keys: BTreeSet<PlacementKey> = held.iter().map(|report| report.key).collect();
        self.placements.retain(|key| keys.contains(key));
        self.attempts.retain(|(key, _)| keys.contains(key));
        let mut runs: BTreeMap<RunId, Run> = self.runs().await?.into_iter().map(|run| (run.id, run)).collect();
        runs.retain(|_, run| run.placements.iter().any(|placement| self.is_mine(placement)));
        for key in keys {
            let Some(run) = runs.get(&key.run) else {
                self.send(to_agent(ToAgent::Stop { key }));
                continue;
            };
            let placement = run.placements.iter().find(|placement| {
                self.is_mine(placement) && placement.lease().is_some_and(|lease| lease.fence == key.fence)
            });
            let event = match placement {
                // An agent that holds what is still on offer has accepted it, and the message was lost.
                Some(Placement::Offered(_)) => RunEvent::Accepted { fence: key.fence, host: self.host.clone() },
                Some(Placement::Accepted(_) | Placement::Running(_)) => RunEvent::Renewed { fence: key.fence },
                // What is being stopped, and what is not this agent's, is dealt with by the reminder.
                Some(Placement::Stopping(_) | Placement::Waiting { .. } | Placement::Done) | None => continue,
            };
            if let Outcome::Done(run) = self.apply(key.run, event).await {
                runs.insert(key.run, run);
            }
        }
        for run in runs.values() {
            // A run that has changed since is no harm: agents ignore what they know, and orders check the attempt.
            let effects = run.remind(&self.agent, &held);
            self.core.carry_out(run, &effects).await;
        }
        match &self.farewell {
            Some(farewell) if held.is_empty() && runs.is_empty() => Err(farewell.clone()),
            _ => Ok(()),
        }
    }

    fn is_mine(&self, placement: &Placement) -> bool {
        placement.lease().is_some_and(|lease| lease.agent == self.agent)
    }

    async fn log_frames(&mut self, message: wire::LogFrames) -> Result<(), Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let key = message.key.ok_or_else(|| invalid(&"log frames have no placement key"))?;
        let key = key.read().map_err(|error| invalid(&chain(&error)))?;
        let attempt = AttemptNumber(message.attempt);
        let last = message.first_sequence.saturating_add(message.frames.len() as u64).saturating_sub(1);
        let bytes: usize = message.frames.iter().map(|frame| frame.data.len()).sum();
        let frames = message.frames.into_iter().map(read_frame).collect();
        let appended = match self.owns_attempt(key, attempt).await? {
            true => self.core.logs.append_frames(key.run, attempt, message.first_sequence, frames).await,
            false => Err(AppendError::NotLive { run: key.run, attempt }),
        };
        let sequence = match appended {
            Ok(sequence) => {
                self.core.metrics.log_received(bytes);
                self.core.announce(key.run);
                sequence
            }
            // What an attempt says after its end is not kept, and the agent must not wait for it.
            Err(AppendError::NotLive { .. } | AppendError::Complete(_) | AppendError::UnknownRun(_)) => last,
            Err(AppendError::Hole { expected, .. }) => expected.saturating_sub(1),
            Err(error @ AppendError::TooLarge { .. }) => return Err(invalid(&error)),
            Err(error @ AppendError::Store(_)) => return Err(Status::unavailable(chain(&error))),
        };
        let wire::Attempt { key, attempt } = attempt_message(key, attempt);
        self.send(wire::ServerMessage {
            message: Some(server_message::Message::LogStored(wire::LogStored { key, attempt, sequence })),
        });
        Ok(())
    }

    async fn apply(&self, run: RunId, event: RunEvent) -> Outcome {
        match self.core.apply(run, event).await {
            Ok(applied) => Outcome::Done(applied.run),
            Err(ApplyError::Unknown(_)) => Outcome::Over,
            Err(ApplyError::Refused { refusal, .. }) => match refusal {
                Refusal::Over | Refusal::StaleFence(_) => Outcome::Over,
                Refusal::StaleAttempt(_) | Refusal::NotWaiting | Refusal::NothingToDo => Outcome::Nothing,
            },
            Err(error @ (ApplyError::NotPushed { .. } | ApplyError::NotUploaded { .. } | ApplyError::Store(_))) => {
                tracing::error!(run = %run, error = chain(&error), "event can't be applied; it will come again");
                Outcome::Nothing
            }
        }
    }

    fn send(&self, message: wire::ServerMessage) {
        self.core.agents.send(&self.agent, message);
    }
}

/// What became of an event.
#[expect(clippy::large_enum_variant, reason = "it lives for a line")]
enum Outcome {
    /// It was applied, and this is the run after it.
    Done(Run),
    /// It changed nothing.
    Nothing,
    /// What it is about is over.
    Over,
}

/// What a report says of the agent itself.
fn read_says(report: &wire::Holding) -> Says {
    let disk = report.disk_free_bytes.zip(report.disk_total_bytes).map(|(free, total)| DiskSpace { free, total });
    Says { unavailable: Some(plain(&report.unavailable)).filter(|why| !why.is_empty()), disk }
}

fn read_frame(frame: wire::log_frames::Frame) -> NewFrame {
    let stream = match frame.stream() {
        wire::log_frames::Stream::Service => Stream::Service,
        wire::log_frames::Stream::Stderr => Stream::Stderr,
        wire::log_frames::Stream::Vertex => Stream::Vertex,
        wire::log_frames::Stream::Gap => Stream::Gap,
        wire::log_frames::Stream::Stdout | wire::log_frames::Stream::Unspecified => Stream::Stdout,
    };
    NewFrame {
        time: Timestamp::from_micros(frame.time_us),
        stream,
        vertex: Some(frame.vertex).filter(|vertex| !vertex.is_empty()),
        data: frame.data,
    }
}
