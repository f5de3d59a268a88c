//! The agents that are connected: who they are, what they can do, and the way to each.
//!
//! In memory only: an agent that is not connected can't be asked anything. What agents hold stands in the runs.

mod credentials;
mod outside_tags;
mod service;
mod session;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cooper_api::agent::wire;
use cooper_engine::message::PlacementKey;
use cooper_engine::run::AgentRef;
use cooper_engine::schedule::AgentView;
use cooper_ports::agents::DiskSpace;
use cooper_types::{AgentName, PrincipalName, TokenId};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use credentials::HostsAsked;
pub(crate) use service::AgentGateway;

/// Messages that an agent may be behind before its stream is given up; its next one begins with a report.
const OUTBOX: usize = 256;
/// Offers to an agent that are remembered.
const OFFERS: usize = 1024;

/// How long a stream counts as alive after the last report on it: two of them may be late. A stream that was cut off
/// without a word is given up for another life of its agent after that; one that ended is gone at once.
const ALIVE: Duration = Duration::from_millis(2 * session::HEARTBEAT_MS as u64 + 500);

/// The connected agents.
#[derive(Default)]
pub(crate) struct AgentTable {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: HashMap<AgentName, Connection>,
    /// The views of them all, until one changes: the scheduler asks many times a second.
    views: Option<Arc<[AgentView]>>,
    /// Lives of agents whose runs were told that the stream is gone.
    missed: HashSet<AgentRef>,
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
    /// It speaks a version in which it gets no work.
    outdated: bool,
    /// When it last said what it holds.
    heard: Instant,
    /// What it was offered and has not spoken of yet.
    offers: BTreeSet<PlacementKey>,
    /// What it said of itself then.
    says: Says,
    /// Ends the stream when the connection leaves the table, for whatever reason.
    _stop: DropGuard,
}

/// What a connected agent says of itself with each report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Says {
    /// Why it takes no work, if it takes none.
    pub(crate) unavailable: Option<String>,
    /// How full its engine's disk is.
    pub(crate) disk: Option<DiskSpace>,
}

/// Who opens a stream, and with what.
struct Newcomer {
    serial: u64,
    view: AgentView,
    principal: PrincipalName,
    token: TokenId,
    outdated: bool,
}

/// Why a stream was not taken in.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    /// Another principal's agent has the name.
    #[error("agent name `{0}` is in use by another principal's agent; choose another name")]
    NameTaken(AgentName),
    /// Another process lives under the name. Two that took it from each other in turns would lose all they do.
    #[error(
        "another process is connected as agent `{0}`: stop it, or give one of them another name (it counts as gone when it \
         has been silent for {silent} s)", silent = ALIVE.as_secs()
    )]
    Duplicate(AgentName),
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
    /// Whether a life of an agent may connect. A life whose stream broke takes the old one's place; another life has to wait
    /// until the earlier one's stream has ended or is silent.
    fn check(&self, agent: &AgentRef, principal: &PrincipalName) -> Result<(), ConnectError> {
        self.lock().check(agent, principal, Instant::now())
    }

    /// Takes in a new stream, in place of an earlier one of the same agent. The token fires when the stream has to end.
    fn connect(
        &self,
        newcomer: Newcomer,
    ) -> Result<(mpsc::Receiver<wire::ServerMessage>, CancellationToken), ConnectError> {
        let Newcomer { serial, mut view, principal, token, outdated } = newcomer;
        view.draining |= outdated;
        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let name = view.agent.name.clone();
        let mut state = self.lock();
        let heard = Instant::now();
        state.check(&view.agent, &principal, heard)?;
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let (offers, says) = (BTreeSet::new(), Says::default());
        let connection = Connection { serial, view, principal, token, outbox, outdated, heard, offers, says, _stop };
        state.connections.insert(name, connection);
        state.views = None;
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
        let mut state = self.lock();
        if state.connections.get(name).is_some_and(|connection| connection.serial == serial) {
            state.remove(name);
        }
    }

    /// Whether an agent whose stream has ended is to be missed: it has no other one, and the server goes on.
    fn miss(&self, agent: &AgentRef) -> bool {
        let mut state = self.lock();
        let missed = !state.closed && !state.connections.contains_key(&agent.name);
        if missed {
            state.missed.insert(agent.clone());
        }
        missed
    }

    /// Whether a life of an agent that has a stream now was missed. No other life of it will be heard of.
    fn was_missed(&self, agent: &AgentRef) -> bool {
        let mut state = self.lock();
        let was = state.missed.remove(agent);
        state.missed.retain(|missed| missed.name != agent.name);
        was
    }

    /// Closes the stream of an agent, whichever life of it has one.
    pub(crate) fn remove(&self, name: &AgentName) {
        self.lock().remove(name);
    }

    /// Closes the streams that were opened with this token: it is revoked, and who has none is sent no work.
    pub(crate) fn close_streams_of(&self, token: &TokenId) {
        let mut state = self.lock();
        state.connections.retain(|_, connection| connection.token != *token);
        state.views = None;
    }

    /// This life of an agent has said what it holds, and this of itself.
    /// Tells whether it can take work now and could not before, or the other way round.
    fn heard(&self, agent: &AgentRef, says: Says) -> bool {
        let mut state = self.lock();
        let Some(connection) = state.connections.get_mut(&agent.name) else { return false };
        if connection.view.agent != *agent {
            return false;
        }
        connection.heard = Instant::now();
        let turned = connection.view.unavailable != says.unavailable.is_some();
        connection.view.unavailable = says.unavailable.is_some();
        connection.says = says;
        if turned {
            state.views = None;
        }
        turned
    }

    /// What an agent last said of itself; nothing if it has no stream.
    pub(crate) fn says(&self, name: &AgentName) -> Option<Says> {
        self.lock().connections.get(name).map(|connection| connection.says.clone())
    }

    /// Whether this life of an agent gets nothing new.
    pub(crate) fn is_draining(&self, agent: &AgentRef) -> bool {
        let state = self.lock();
        state
            .connections
            .get(&agent.name)
            .is_some_and(|connection| connection.view.agent == *agent && connection.view.draining)
    }

    /// Whether an agent may get new work, as its administrator wishes.
    pub(crate) fn set_draining(&self, name: &AgentName, draining: bool) {
        let mut state = self.lock();
        if let Some(connection) = state.connections.get_mut(name) {
            connection.view.draining = draining || connection.outdated;
            state.views = None;
        }
    }

    /// Who is connected.
    pub(crate) fn names(&self) -> Vec<AgentName> {
        self.lock().connections.keys().cloned().collect()
    }

    /// Sends a message to this life of an agent, if it is connected. An agent that doesn't read loses its stream.
    pub(crate) fn send(&self, agent: &AgentRef, message: wire::ServerMessage) {
        let mut state = self.lock();
        let Some(connection) = state.connections.get(&agent.name) else { return };
        if connection.view.agent != *agent {
            return;
        }
        if connection.outbox.try_send(message).is_err() {
            tracing::warn!(agent = %agent, "agent does not read its messages; its stream is closed");
            state.remove(&agent.name);
        }
    }

    /// A placement is offered to this life of an agent: it need not be looked up when the agent answers.
    pub(crate) fn note_offer(&self, agent: &AgentRef, key: PlacementKey) {
        if let Some(connection) = self.lock().connections.get_mut(&agent.name)
            && connection.view.agent == *agent
        {
            // Offers that end without an answer stay here; what is forgotten is looked up.
            if connection.offers.len() >= OFFERS {
                connection.offers.clear();
            }
            connection.offers.insert(key);
        }
    }

    /// Whether a placement was offered to this life of an agent on its stream of now. Asked once of each.
    fn take_offer(&self, agent: &AgentRef, key: PlacementKey) -> bool {
        let mut state = self.lock();
        let connection = state.connections.get_mut(&agent.name).filter(|connection| connection.view.agent == *agent);
        connection.is_some_and(|connection| connection.offers.remove(&key))
    }

    /// What the scheduler may choose from.
    pub(crate) fn views(&self) -> Arc<[AgentView]> {
        let mut state = self.lock();
        if let Some(views) = &state.views {
            return views.clone();
        }
        let mut views: Vec<AgentView> = state.connections.values().map(|connection| connection.view.clone()).collect();
        views.sort_by(|a, b| a.agent.cmp(&b.agent));
        state.views.insert(views.into()).clone()
    }

    /// Closes every stream and takes no more, when the server stops.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.connections.clear();
        state.views = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn check(&self, agent: &AgentRef, principal: &PrincipalName, now: Instant) -> Result<(), ConnectError> {
        if self.closed {
            return Err(ConnectError::Closed);
        }
        let Some(earlier) = self.connections.get(&agent.name) else { return Ok(()) };
        if earlier.principal != *principal {
            return Err(ConnectError::NameTaken(agent.name.clone()));
        }
        let alive = now.saturating_duration_since(earlier.heard) < ALIVE;
        if alive && earlier.view.agent != *agent {
            return Err(ConnectError::Duplicate(agent.name.clone()));
        }
        Ok(())
    }

    fn remove(&mut self, name: &AgentName) {
        self.connections.remove(name);
        self.views = None;
    }
}
