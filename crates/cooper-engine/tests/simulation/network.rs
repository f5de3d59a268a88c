//! The network: streams that keep their order while they last, and lose, double and delay what they carry.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_engine::message::{PlacementKey, ToAgent, ToServer};
use cooper_engine::run::AgentRef;
use cooper_types::AttemptNumber;

use super::engine_model::Order;
use super::world::{Event, World};

/// From an agent.
#[derive(Clone, Debug)]
pub(super) enum Up {
    Hello,
    Say(ToServer),
    /// Frames `first..first + count`.
    Log {
        key: PlacementKey,
        attempt: AttemptNumber,
        first: u64,
        count: u64,
    },
}

/// To an agent.
#[derive(Clone, Debug)]
pub(super) enum Down {
    Say(ToAgent<Order>),
    LogStored { key: PlacementKey, attempt: AttemptNumber, sequence: u64 },
}

/// One end of a stream: which life of which agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    pub(super) agent: usize,
    pub(super) incarnation: u64,
    pub(super) stream: u64,
}

/// The streams that were ever opened.
#[derive(Debug, Default)]
pub(super) struct Network {
    streams: u64,
    /// When the last message of each stream and direction arrives: the next one is not before it.
    arrivals: BTreeMap<(u64, bool), Duration>,
    /// Agents that can't reach the server, and until when.
    apart: BTreeMap<usize, Duration>,
    /// Directions (up or not) in which nothing arrives, and until when.
    pub(super) deaf: BTreeMap<(usize, bool), Duration>,
}

impl World {
    /// Opens a stream, if the server can be reached.
    pub(super) fn open_stream(&mut self, agent: usize) -> Option<u64> {
        if !self.server.up || self.is_apart(agent) || self.is_deaf(agent, true) || self.is_deaf(agent, false) {
            return None;
        }
        self.network.streams += 1;
        Some(self.network.streams)
    }

    /// Sends over an agent's stream, if it has one.
    pub(super) fn send_up(&mut self, agent: usize, message: Up) {
        let machine = &self.machines[agent];
        let Some(stream) = machine.stream else { return };
        let from = Sender { agent, incarnation: machine.incarnation, stream };
        let life = self.server.life;
        let sure = matches!(message, Up::Hello);
        let event = |message| Event::ToServer { from, life, message };
        self.carry(from, true, sure, event(message));
    }

    /// Sends to an agent, if this life of it is connected.
    pub(super) fn send_down(&mut self, to: &AgentRef, message: Down) {
        if !self.server.up {
            return;
        }
        let Some(connection) = self.server.table.get(&to.name).filter(|connection| connection.view.agent == *to) else {
            return;
        };
        let to = connection.peer;
        self.carry(to, false, false, Event::ToAgent { to, message });
    }

    fn carry(&mut self, peer: Sender, up: bool, sure: bool, event: Event) {
        let bad = !self.calm && !sure;
        if self.is_apart(peer.agent) || self.is_deaf(peer.agent, up) || (bad && self.random.chance(30)) {
            return;
        }
        if bad && self.random.chance(30) {
            // A late copy keeps no order with anything.
            let late = self.random.millis(0, 15_000);
            self.after(late, event.clone());
        }
        let slow = bad && self.random.chance(20);
        let delay = if slow { self.random.millis(100, 4_000) } else { self.random.millis(1, 40) };
        let arrival = self.network.arrivals.entry((peer.stream, up)).or_default();
        *arrival = (self.now + delay).max(*arrival + Duration::from_micros(1));
        let arrival = *arrival;
        self.at(arrival, event);
    }

    pub(super) fn is_apart(&self, agent: usize) -> bool {
        self.network.apart.get(&agent).is_some_and(|until| self.now < *until)
    }

    pub(super) fn is_deaf(&self, agent: usize, up: bool) -> bool {
        self.network.deaf.get(&(agent, up)).is_some_and(|until| self.now < *until)
    }

    /// What was under way on a dead stream may still have been received.
    pub(super) fn survives_a_cut(&mut self) -> bool {
        self.random.chance(500)
    }

    /// A stream breaks. Each side finds out when it does, and perhaps they can't reach each other for a while.
    pub(super) fn cut(&mut self, agent: usize) {
        if self.calm {
            return;
        }
        let Some(stream) = self.machines[agent].stream else { return };
        self.note(format_args!("stream {stream} of agent {agent} is cut"));
        if self.random.chance(400) {
            let until = self.now + self.random.millis(500, 45_000);
            self.network.apart.insert(agent, until);
        }
        let (ours, theirs) = (self.random.millis(0, 6_000), self.random.millis(0, 30_000));
        self.after(ours, Event::StreamDead { agent, stream });
        self.after(theirs, Event::Disconnected { agent, stream });
    }
}
