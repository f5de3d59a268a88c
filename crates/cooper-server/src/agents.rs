//! The agents that are connected: who they are, what they can do, and the way to each.
//!
//! In memory only: an agent that is not connected can't be asked anything. What agents hold stands in the runs.

mod service;
mod session;

use std::collections::HashMap;
use std::sync::Mutex;

use cooper_api::agent::wire;
use cooper_engine::run::AgentRef;
use cooper_engine::schedule::AgentView;
use cooper_types::{AgentName, PrincipalName};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use service::AgentGateway;

/// Messages that an agent may be behind before its stream is given up; its next one begins with a report.
const OUTBOX: usize = 256;

/// The connected agents.
#[derive(Default)]
pub(crate) struct AgentTable {
    connections: Mutex<HashMap<AgentName, Connection>>,
}

struct Connection {
    /// Tells this stream from a later one of the same agent.
    serial: u64,
    view: AgentView,
    principal: PrincipalName,
    outbox: mpsc::Sender<wire::ServerMessage>,
    /// Ends the stream when the connection leaves the table, for whatever reason.
    _stop: DropGuard,
}

/// Another principal's agent has the name.
#[derive(Debug, thiserror::Error)]
#[error("agent name `{0}` is in use by another principal's agent")]
pub(crate) struct NameTaken(AgentName);

impl AgentTable {
    /// Takes in a new stream, in place of an earlier one of the same agent. The token fires when the stream has to end.
    fn connect(
        &self,
        serial: u64,
        view: AgentView,
        principal: PrincipalName,
    ) -> Result<(mpsc::Receiver<wire::ServerMessage>, CancellationToken), NameTaken> {
        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let name = view.agent.name.clone();
        let mut connections = self.lock();
        if connections.get(&name).is_some_and(|connection| connection.principal != principal) {
            return Err(NameTaken(name));
        }
        let stop = CancellationToken::new();
        connections.insert(name, Connection { serial, view, principal, outbox, _stop: stop.clone().drop_guard() });
        Ok((receiver, stop))
    }

    /// Forgets a stream, unless a later one has taken its place.
    fn disconnect(&self, name: &AgentName, serial: u64) {
        let mut connections = self.lock();
        if connections.get(name).is_some_and(|connection| connection.serial == serial) {
            connections.remove(name);
        }
    }

    /// Sends a message to this life of an agent, if it is connected. An agent that doesn't read loses its stream.
    pub(crate) fn send(&self, agent: &AgentRef, message: wire::ServerMessage) {
        let mut connections = self.lock();
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
        let mut views: Vec<AgentView> = self.lock().values().map(|connection| connection.view.clone()).collect();
        views.sort_by(|a, b| a.agent.cmp(&b.agent));
        views
    }

    /// Closes every stream, when the server stops.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<AgentName, Connection>> {
        self.connections.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
