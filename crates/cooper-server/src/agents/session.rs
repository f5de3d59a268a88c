//! One agent's stream, from its greeting to its end: turns its messages into events of runs, in the order they came.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cooper_api::agent::wire::{self, agent_message, server_message};
use cooper_api::agent::{PROTOCOL_VERSION, attempt_message, read_agent_message, to_agent};
use cooper_engine::message::{Held, PlacementKey, StepResult, ToAgent, ToServer};
use cooper_engine::run::{AgentRef, Placement, Refusal, RunEvent};
use cooper_engine::schedule::AgentView;
use cooper_ports::logs::{AppendError, NewFrame, Stream};
use cooper_ports::registry::CredentialVerifier as _;
use cooper_ports::runs::ApplyError;
use cooper_types::{AgentName, AttemptNumber, Platform, RunId, Timestamp, TokenId};
use tonic::Status;

use crate::core::Core;
use crate::problem::chain;

/// How often an agent has to say what it holds; a lease is four times as long.
pub(super) const HEARTBEAT_MS: u32 = 5_000;
/// The most slots that an agent may claim.
const MAX_SLOTS: u32 = 1024;

/// Reads an agent's greeting.
pub(super) fn read_hello(hello: &wire::Hello) -> Result<AgentView, Status> {
    if hello.protocol != PROTOCOL_VERSION {
        return Err(Status::failed_precondition(format!(
            "agent speaks protocol {} and this server {PROTOCOL_VERSION}: upgrade the older of them (agent {}, server {})",
            hello.protocol,
            hello.version,
            env!("CARGO_PKG_VERSION")
        )));
    }
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
    Ok(AgentView {
        agent: AgentRef { name, incarnation },
        native: platforms(&hello.native_platforms)?,
        emulated: platforms(&hello.emulated_platforms)?,
        slots: hello.slots,
    })
}

/// What the server says of an agent's stream.
pub(super) struct Session {
    pub(super) core: Arc<Core>,
    pub(super) agent: AgentRef,
    /// What the agent showed: asked for again with every report, so that a revoked token ends the stream.
    pub(super) token: TokenId,
}

impl Session {
    /// What earlier lives of the agent held is lost.
    pub(super) async fn replace_earlier_lives(&self) -> Result<(), Status> {
        let runs = self.core.runs.unfinished_runs().await.map_err(|error| Status::unavailable(chain(&error)))?;
        let earlier = |placement: &Placement| {
            placement.lease().is_some_and(|lease| lease.agent.name == self.agent.name && lease.agent != self.agent)
        };
        for run in runs.iter().filter(|run| run.placements.iter().any(earlier)) {
            self.apply(run.id, RunEvent::AgentReplaced { agent: self.agent.clone() }).await;
        }
        Ok(())
    }

    /// Works one message in. An error ends the stream.
    pub(super) async fn receive(&self, message: wire::AgentMessage) -> Result<(), Status> {
        if let Some(agent_message::Message::LogFrames(frames)) = message.message {
            return self.log_frames(frames).await;
        }
        let message = read_agent_message(message).map_err(|error| Status::invalid_argument(chain(&error)))?;
        match message {
            None => {}
            Some(ToServer::Holding(held)) => self.holding(held).await?,
            Some(ToServer::Accepted(key)) => self.event_of(key, RunEvent::Accepted { fence: key.fence }).await,
            Some(ToServer::Declined(key, why)) => {
                self.event_of(key, RunEvent::Declined { fence: key.fence, why }).await;
            }
            Some(ToServer::StepStarted(key, attempt)) => {
                self.event_of(key, RunEvent::StepStarted { fence: key.fence, attempt }).await;
            }
            Some(ToServer::StepEnded(key, attempt, result)) => self.step_ended(key, attempt, result).await,
            // The answer of an agent that has nothing to stop: saying `Stop` again would go on for ever.
            Some(ToServer::Stopped(key)) => {
                self.apply(key.run, RunEvent::Stopped { fence: key.fence }).await;
            }
        }
        Ok(())
    }

    /// Applies an event of a placement; an agent that holds what is over is told to stop it.
    async fn event_of(&self, key: PlacementKey, event: RunEvent) {
        if let Outcome::Over = self.apply(key.run, event).await {
            self.send(to_agent(ToAgent::Stop { key }));
        }
    }

    async fn step_ended(&self, key: PlacementKey, attempt: AttemptNumber, result: StepResult) {
        let event = |result| RunEvent::StepEnded { fence: key.fence, attempt, result };
        let stored = match self.core.apply(key.run, event(result)).await {
            Ok(_) => true,
            Err(ApplyError::NotPushed { .. }) => {
                let reason = "the push was reported and the registry has nothing of it".to_owned();
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
    async fn holding(&self, held: Vec<Held>) -> Result<(), Status> {
        match self.core.access.is_active(&self.token).await {
            Ok(true) => {}
            Ok(false) => return Err(Status::unauthenticated("the agent's token is expired or revoked")),
            Err(error) => return Err(Status::unavailable(chain(&error))),
        }
        let runs = self.core.runs.unfinished_runs().await.map_err(|error| Status::unavailable(chain(&error)))?;
        let runs: BTreeMap<RunId, _> = runs.into_iter().map(|run| (run.id, run)).collect();
        for report in &held {
            let key = report.key;
            let Some(run) = runs.get(&key.run) else {
                self.send(to_agent(ToAgent::Stop { key }));
                continue;
            };
            let offered = run.placements.iter().any(|placement| match placement {
                Placement::Offered(lease) => lease.fence == key.fence && lease.agent == self.agent,
                _ => false,
            });
            // An agent that holds what is still on offer has accepted it, and the message was lost.
            let event = match offered {
                true => RunEvent::Accepted { fence: key.fence },
                false => RunEvent::Renewed { fence: key.fence },
            };
            self.apply(key.run, event).await;
        }
        let mine = runs.values().filter(|run| run.placements.iter().any(|placement| self.is_mine(placement)));
        let concerned: BTreeSet<RunId> =
            mine.map(|run| run.id).chain(held.iter().map(|report| report.key.run)).collect();
        for run in concerned.into_iter().filter(|run| runs.contains_key(run)) {
            // Read again: the events above have changed it.
            match self.core.runs.find_run(run).await {
                Ok(Some(record)) => {
                    let effects = record.run.remind(&self.agent, &held);
                    self.core.carry_out(&record.run, &effects).await;
                }
                Ok(None) => {}
                Err(error) => return Err(Status::unavailable(chain(&error))),
            }
        }
        Ok(())
    }

    fn is_mine(&self, placement: &Placement) -> bool {
        placement.lease().is_some_and(|lease| lease.agent == self.agent)
    }

    async fn log_frames(&self, message: wire::LogFrames) -> Result<(), Status> {
        let invalid = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let key = message.key.ok_or_else(|| invalid(&"log frames have no placement key"))?;
        let key = key.read().map_err(|error| invalid(&chain(&error)))?;
        let attempt = AttemptNumber(message.attempt);
        let last = message.first_sequence.saturating_add(message.frames.len() as u64).saturating_sub(1);
        let bytes: usize = message.frames.iter().map(|frame| frame.data.len()).sum();
        let frames = message.frames.into_iter().map(read_frame).collect();
        let sequence = match self.core.logs.append_frames(key.run, attempt, message.first_sequence, frames).await {
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
            Ok(_) => Outcome::Done,
            Err(ApplyError::Unknown(_)) => Outcome::Over,
            Err(ApplyError::Refused { refusal, .. }) => match refusal {
                Refusal::Over | Refusal::StaleFence(_) => Outcome::Over,
                Refusal::StaleAttempt(_) | Refusal::NotWaiting | Refusal::NothingToDo => Outcome::Nothing,
            },
            Err(error @ (ApplyError::NotPushed { .. } | ApplyError::Store(_))) => {
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
enum Outcome {
    /// It was applied.
    Done,
    /// It changed nothing.
    Nothing,
    /// What it is about is over.
    Over,
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
