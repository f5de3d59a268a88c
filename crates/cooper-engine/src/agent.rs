//! The agent's half of the protocol: which placements it holds and what it still has to say.
//!
//! Pure like the server's half. The shell runs steps, cleans up, and carries messages; this decides when.
//! A result is kept and repeated until the server has stored it, so that a lost message costs nothing.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::AttemptNumber;

use crate::message::{Held, PlacementKey, StepResult, ToAgent, ToServer};

/// What an agent holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentState {
    slots: usize,
    /// Why no new work is taken, if none is.
    unavailable: Option<String>,
    placements: BTreeMap<PlacementKey, HeldPlacement>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct HeldPlacement {
    attempts: BTreeMap<AttemptNumber, Attempt>,
    /// Every attempt that was ever started here: a second start is a late copy of a message. A set and not the newest,
    /// because steps run in parallel and their starts may arrive in any order.
    begun: BTreeSet<AttemptNumber>,
    stopping: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Attempt {
    Running,
    /// Ended, and the server has not said yet that it knows.
    Ended(StepResult),
}

/// Something that happened to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEvent<W> {
    /// A message came in.
    Received(ToAgent<W>),
    /// A step of ours ended.
    StepEnded(PlacementKey, AttemptNumber, StepResult),
    /// Nothing of a placement is left on this machine.
    CleanedUp(PlacementKey),
    /// A stream to the server is open, or it is time to say that we live.
    ReportDue,
    /// Whether new work can be taken, and if not, why: the engine is down, or the agent shuts down.
    Unavailable(Option<String>),
}

/// What an agent's shell has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AgentEffect<W> {
    /// Say this; if there is no stream, forget it.
    Send(ToServer),
    /// Start an attempt.
    Run(PlacementKey, AttemptNumber, W),
    /// Stop an attempt: nobody waits for its result.
    Abandon(PlacementKey, AttemptNumber),
    /// Stop all attempts of a placement, remove what it made, then report [`AgentEvent::CleanedUp`].
    CleanUp(PlacementKey),
}

impl HeldPlacement {
    /// What is only being cleaned up takes no slot: back-to-back runs must not wait for it. Nor does what waits for steps
    /// of other placements: they may need this slot.
    fn takes_slot(&self) -> bool {
        !self.stopping && (self.begun.is_empty() || !self.attempts.is_empty())
    }
}

impl AgentState {
    /// An agent that takes up to `slots` placements at a time.
    pub fn new(slots: usize) -> Self {
        Self { slots, unavailable: None, placements: BTreeMap::new() }
    }

    /// How many placements it holds.
    pub fn held(&self) -> usize {
        self.placements.len()
    }

    /// Applies one event. Total: late, doubled and unknown messages have defined answers.
    pub fn apply<W>(&mut self, event: AgentEvent<W>) -> Vec<AgentEffect<W>> {
        match event {
            AgentEvent::Received(ToAgent::Offer { key, .. }) => vec![AgentEffect::Send(self.offered(key))],
            AgentEvent::Received(ToAgent::StartStep { key, attempt, work }) => self.start(key, attempt, work),
            AgentEvent::Received(ToAgent::Stop { key }) => match self.placements.get_mut(&key) {
                Some(placement) if placement.stopping => Vec::new(),
                Some(placement) => {
                    placement.stopping = true;
                    vec![AgentEffect::CleanUp(key)]
                }
                None => vec![AgentEffect::Send(ToServer::Stopped(key))],
            },
            AgentEvent::Received(ToAgent::ResultStored { key, attempt }) => {
                let known = self.placements.get_mut(&key).and_then(|placement| placement.attempts.remove(&attempt));
                match known {
                    Some(Attempt::Running) => vec![AgentEffect::Abandon(key, attempt)],
                    Some(Attempt::Ended(_)) | None => Vec::new(),
                }
            }
            AgentEvent::StepEnded(key, attempt, result) => {
                let Some(placement) = self.placements.get_mut(&key) else { return Vec::new() };
                if !matches!(placement.attempts.get(&attempt), Some(Attempt::Running)) {
                    return Vec::new();
                }
                if placement.stopping {
                    placement.attempts.remove(&attempt);
                    return Vec::new();
                }
                placement.attempts.insert(attempt, Attempt::Ended(result.clone()));
                vec![AgentEffect::Send(ToServer::StepEnded(key, attempt, result))]
            }
            AgentEvent::CleanedUp(key) => match self.placements.remove(&key) {
                Some(_) => vec![AgentEffect::Send(ToServer::Stopped(key))],
                None => Vec::new(),
            },
            AgentEvent::ReportDue => self.report(),
            AgentEvent::Unavailable(why) => {
                self.unavailable = why;
                Vec::new()
            }
        }
    }

    fn offered(&mut self, key: PlacementKey) -> ToServer {
        if self.placements.contains_key(&key) {
            ToServer::Accepted(key)
        } else if let Some(why) = &self.unavailable {
            ToServer::Declined(key, why.clone())
        } else if self.placements.values().filter(|placement| placement.takes_slot()).count() >= self.slots {
            ToServer::Declined(key, format!("all {} slots are in use", self.slots))
        } else {
            self.placements.insert(key, HeldPlacement::default());
            ToServer::Accepted(key)
        }
    }

    fn start<W>(&mut self, key: PlacementKey, attempt: AttemptNumber, work: W) -> Vec<AgentEffect<W>> {
        let Some(placement) = self.placements.get_mut(&key) else {
            return vec![AgentEffect::Send(ToServer::Stopped(key))];
        };
        if placement.stopping || !placement.begun.insert(attempt) {
            return Vec::new();
        }
        placement.attempts.insert(attempt, Attempt::Running);
        vec![AgentEffect::Run(key, attempt, work), AgentEffect::Send(ToServer::StepStarted(key, attempt))]
    }

    /// Everything that is held, and every result that may have been lost on the way.
    fn report<W>(&self) -> Vec<AgentEffect<W>> {
        let held = self
            .placements
            .iter()
            .map(|(key, placement)| Held { key: *key, attempts: placement.attempts.keys().copied().collect() })
            .collect();
        let mut effects = vec![AgentEffect::Send(ToServer::Holding(held))];
        for (key, placement) in &self.placements {
            for (attempt, state) in &placement.attempts {
                if let Attempt::Ended(result) = state {
                    effects.push(AgentEffect::Send(ToServer::StepEnded(*key, *attempt, result.clone())));
                }
            }
        }
        effects
    }
}
