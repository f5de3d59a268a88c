//! Between the wire and the domain's words, both ways. Everything that is missing or malformed is an error that names
//! the field; nothing is guessed. Results stand in `convert/result.rs`, orders in `convert/order.rs`.

mod order;
mod result;
mod task;
#[cfg(test)]
mod tests;

use cooper_engine::message::{Held, PlacementKey, ToAgent, ToServer};
use cooper_types::{AttemptNumber, Fence, Platform, RunId};

use super::wire::{self, agent_message, server_message};
use super::work::StepOrder;

/// A message that does not follow the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A field that must be there is not.
    #[error("message has no {0}")]
    Missing(&'static str),
    /// A field's value is not one of its kind.
    #[error("message has a bad {0}")]
    Bad(&'static str, #[source] Box<dyn std::error::Error + Send + Sync>),
}

fn bad<E: std::error::Error + Send + Sync + 'static>(field: &'static str) -> impl FnOnce(E) -> ProtocolError {
    move |source| ProtocolError::Bad(field, Box::new(source))
}

fn key_message(key: PlacementKey) -> wire::PlacementKey {
    wire::PlacementKey { run: key.run.to_string(), fence: key.fence.0 }
}

impl wire::PlacementKey {
    /// The key in the domain's words.
    pub fn read(&self) -> Result<PlacementKey, ProtocolError> {
        let run = RunId::parse(&self.run).map_err(bad("run id"))?;
        Ok(PlacementKey { run, fence: Fence(self.fence) })
    }
}

fn read_key(key: Option<wire::PlacementKey>) -> Result<PlacementKey, ProtocolError> {
    key.ok_or(ProtocolError::Missing("placement key"))?.read()
}

/// The message that names an attempt.
pub fn attempt_message(key: PlacementKey, attempt: AttemptNumber) -> wire::Attempt {
    wire::Attempt { key: Some(key_message(key)), attempt: attempt.0 }
}

impl wire::Attempt {
    /// The attempt in the domain's words.
    pub fn read(&self) -> Result<(PlacementKey, AttemptNumber), ProtocolError> {
        Ok((read_key(self.key.clone())?, AttemptNumber(self.attempt)))
    }
}

/// Puts a message for an agent on the wire.
pub fn to_agent(message: ToAgent<StepOrder>) -> wire::ServerMessage {
    let message = match message {
        ToAgent::Offer { key, platform } => {
            server_message::Message::Offer(wire::Offer { key: Some(key_message(key)), platform: platform.to_string() })
        }
        ToAgent::StartStep { key, attempt, work } => {
            server_message::Message::StartStep(order::start_message(key, attempt, work))
        }
        ToAgent::Stop { key } => server_message::Message::Stop(key_message(key)),
        ToAgent::ResultStored { key, attempt } => server_message::Message::ResultStored(attempt_message(key, attempt)),
    };
    wire::ServerMessage { message: Some(message) }
}

/// Puts a message for the server on the wire.
pub fn to_server(message: ToServer) -> wire::AgentMessage {
    let message = match message {
        ToServer::Holding(held) => {
            let held = held
                .into_iter()
                .map(|held| wire::holding::Held {
                    key: Some(key_message(held.key)),
                    attempts: held.attempts.into_iter().map(|attempt| attempt.0).collect(),
                })
                .collect();
            agent_message::Message::Holding(wire::Holding { held, ..wire::Holding::default() })
        }
        ToServer::Accepted(key) => agent_message::Message::Accepted(key_message(key)),
        ToServer::Declined(key, why) => {
            agent_message::Message::Declined(wire::Declined { key: Some(key_message(key)), why })
        }
        ToServer::StepStarted(key, attempt) => {
            let key = Some(key_message(key));
            agent_message::Message::StepStarted(wire::StepStarted { key, attempt: attempt.0, ..Default::default() })
        }
        ToServer::Resolved(key, attempt, resolved) => {
            agent_message::Message::StepStarted(result::resolved_message(key_message(key), attempt, resolved))
        }
        ToServer::StepEnded(key, attempt, result) => agent_message::Message::StepEnded(wire::StepEnded {
            key: Some(key_message(key)),
            attempt: attempt.0,
            result: Some(result::result_message(result)),
        }),
        ToServer::Stopped(key) => agent_message::Message::Stopped(key_message(key)),
    };
    wire::AgentMessage { message: Some(message) }
}

/// Reads what the state machines understand of an agent's message; `None` for greetings and log frames.
pub fn read_agent_message(message: wire::AgentMessage) -> Result<Option<ToServer>, ProtocolError> {
    let message = message.message.ok_or(ProtocolError::Missing("content"))?;
    Ok(Some(match message {
        agent_message::Message::Hello(_) | agent_message::Message::LogFrames(_) => return Ok(None),
        agent_message::Message::Holding(holding) => {
            few("number of placements", holding.held.len(), MAX_HELD)?;
            let held = holding.held.into_iter().map(|held| {
                let attempts = held.attempts.into_iter().map(AttemptNumber).collect();
                Ok(Held { key: read_key(held.key)?, attempts })
            });
            ToServer::Holding(held.collect::<Result<_, ProtocolError>>()?)
        }
        agent_message::Message::Accepted(key) => ToServer::Accepted(key.read()?),
        agent_message::Message::Declined(declined) => ToServer::Declined(read_key(declined.key)?, clip(declined.why)),
        agent_message::Message::StepStarted(started) => {
            let (key, attempt) = (read_key(started.key)?, AttemptNumber(started.attempt));
            match result::read_resolved(started.bases, started.context, started.tries)? {
                Some(resolved) => ToServer::Resolved(key, attempt, resolved),
                None => ToServer::StepStarted(key, attempt),
            }
        }
        agent_message::Message::StepEnded(ended) => {
            let result = result::read_result(ended.result.ok_or(ProtocolError::Missing("result"))?)?;
            ToServer::StepEnded(read_key(ended.key)?, AttemptNumber(ended.attempt), result)
        }
        agent_message::Message::Stopped(key) => ToServer::Stopped(key.read()?),
    }))
}

/// Reads what the state machines understand of the server's message; `None` for greetings and log acknowledgements.
pub fn read_server_message(message: wire::ServerMessage) -> Result<Option<ToAgent<StepOrder>>, ProtocolError> {
    let message = message.message.ok_or(ProtocolError::Missing("content"))?;
    Ok(Some(match message {
        server_message::Message::Welcome(_) | server_message::Message::LogStored(_) => return Ok(None),
        server_message::Message::Offer(offer) => ToAgent::Offer {
            key: read_key(offer.key)?,
            platform: Platform::parse(&offer.platform).map_err(bad("platform"))?,
        },
        server_message::Message::StartStep(start) => {
            let (key, attempt) = (read_key(start.key.clone())?, AttemptNumber(start.attempt));
            ToAgent::StartStep { key, attempt, work: order::read_order(start)? }
        }
        server_message::Message::Stop(key) => ToAgent::Stop { key: key.read()? },
        server_message::Message::ResultStored(attempt) => {
            let (key, attempt) = attempt.read()?;
            ToAgent::ResultStored { key, attempt }
        }
    }))
}

/// The longest text, in characters, that an agent may put on a run's record.
const MAX_TEXT: usize = 4096;

/// The most placements that one report may name: several times the slots that an agent may have.
const MAX_HELD: usize = 4096;
/// Texts become lines of logs and records: a line break in one would let it pass for lines of the service's own.
fn clip(text: String) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// More of something than an honest agent says.
#[derive(Debug, thiserror::Error)]
#[error("{count} is more than {limit}")]
struct TooMany {
    count: usize,
    limit: usize,
}

fn few(field: &'static str, count: usize, limit: usize) -> Result<(), ProtocolError> {
    if count > limit { Err(bad(field)(TooMany { count, limit })) } else { Ok(()) }
}
