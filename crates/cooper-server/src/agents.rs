//! The agents that are connected: who they are, what they can do, and the way to each.
//!
//! In memory only: an agent that is not connected can't be asked anything. What agents hold stands in the runs.

mod service;
mod session;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Mutex;

use cooper_api::agent::wire;
use cooper_engine::run::AgentRef;
use cooper_engine::schedule::AgentView;
use cooper_types::{AgentName, PrincipalName, TokenId};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use service::AgentGateway;

/// Messages that an agent may be behind before its stream is given up; its next one begins with a report.
const OUTBOX: usize = 256;

/// The connected agents.
#[derive(Default)]
pub(crate) struct AgentTable {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: HashMap<AgentName, Connection>,
    /// The server stops: a connection that is still open must not bring a new stream.
    closed: bool,
}

struct Connection {
    /// Tells this stream from a later one of the same agent.
    serial: u64,
    view: AgentView,
    principal: PrincipalName,
    /// What the agent showed.
    token: TokenId,
    outbox: mpsc::Sender<wire::ServerMessage>,
    /// Ends the stream when the connection leaves the table, for whatever reason.
    _stop: DropGuard,
}

/// Who opens a stream, and with what.
struct Newcomer {
    serial: u64,
    view: AgentView,
    principal: PrincipalName,
    token: TokenId,
}

/// Why a stream was not taken in.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    /// Another principal's agent has the name.
    #[error("agent name `{0}` is in use by another principal's agent; choose another name")]
    NameTaken(AgentName),
    /// The server stops.
    #[error("the server is shutting down")]
    Closed,
}

/// How the one who asks relates to a connected agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaker {
    /// It has the agent's token.
    Itself,
    /// It has another token.
    Another,
    /// This life of the agent has no stream now.
    Absent,
}

impl AgentTable {
    /// Takes in a new stream, in place of an earlier one of the same agent. The token fires when the stream has to end.
    fn connect(
        &self,
        newcomer: Newcomer,
    ) -> Result<(mpsc::Receiver<wire::ServerMessage>, CancellationToken), ConnectError> {
        let Newcomer { serial, view, principal, token } = newcomer;
        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let name = view.agent.name.clone();
        let mut state = self.lock();
        if state.closed {
            return Err(ConnectError::Closed);
        }
        if state.connections.get(&name).is_some_and(|connection| connection.principal != principal) {
            return Err(ConnectError::NameTaken(name));
        }
        let stop = CancellationToken::new();
        let connection = Connection { serial, view, principal, token, outbox, _stop: stop.clone().drop_guard() };
        state.connections.insert(name, connection);
        Ok((receiver, stop))
    }

    /// Whether the holder of a token may speak for this life of an agent.
    fn speaker(&self, agent: &AgentRef, token: &TokenId) -> Speaker {
        match self.lock().connections.get(&agent.name) {
            Some(connection) if connection.view.agent != *agent => Speaker::Absent,
            Some(connection) if connection.token == *token => Speaker::Itself,
            Some(_) => Speaker::Another,
            None => Speaker::Absent,
        }
    }

    /// Forgets a stream, unless a later one has taken its place.
    fn disconnect(&self, name: &AgentName, serial: u64) {
        let connections = &mut self.lock().connections;
        if connections.get(name).is_some_and(|connection| connection.serial == serial) {
            connections.remove(name);
        }
    }

    /// Sends a message to this life of an agent, if it is connected. An agent that doesn't read loses its stream.
    pub(crate) fn send(&self, agent: &AgentRef, message: wire::ServerMessage) {
        let connections = &mut self.lock().connections;
        let Some(connection) = connections.get(&agent.name) else { return };
        if connection.view.agent != *agent {
            return;
        }
        if connection.outbox.try_send(message).is_err() {
            tracing::warn!(agent = %agent, "agent does not read its messages; its stream is closed");
            connections.remove(&agent.name);
        }
    }

    /// What the scheduler may choose from.
    pub(crate) fn views(&self) -> Vec<AgentView> {
        let mut views: Vec<AgentView> =
            self.lock().connections.values().map(|connection| connection.view.clone()).collect();
        views.sort_by(|a, b| a.agent.cmp(&b.agent));
        views
    }

    /// Closes every stream and takes no more, when the server stops.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.connections.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
