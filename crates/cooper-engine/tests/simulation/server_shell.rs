//! The server around the state machines, in the shape of the real one: it stores first and sends then, a sweep stands
//! behind every message, and it keeps nothing that a crash could not take.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::message::{Held, PlacementKey, StepResult, ToAgent, ToServer};
use cooper_engine::run::{AgentRef, Effect, Placement, Refusal, Run, RunEvent};
use cooper_engine::schedule::{self, AgentView, Decision};
use cooper_types::{AgentName, AttemptNumber, RunId, Timestamp};

use super::engine_model::Order;
use super::network::{Down, Sender, Up};
use super::store_model::{AppendError, ApplyError};
use super::world::{Event, POLICY, Sabotage, World};

/// The longest time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// What a crash takes.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) up: bool,
    /// Which life of the process.
    pub(super) life: u64,
    pub(super) table: BTreeMap<AgentName, Connection>,
    /// What the store's clock showed when it was opened, and when that was.
    clock: Option<(Timestamp, Duration)>,
    woken: bool,
    /// A change could not be written since the last look.
    pub(super) refused_writes: bool,
}

/// A connected agent.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) peer: Sender,
    pub(super) view: AgentView,
}

impl World {
    /// The store's clock: the wall clock read once, never before what is written down, monotonic from there on.
    pub(super) fn store_clock(&self) -> Timestamp {
        match self.server.clock {
            Some(_) if self.sabotage == Sabotage::WallClock => self.wall_clock(),
            Some((start, opened)) => start.after(self.now - opened),
            None => self.wall_clock(),
        }
    }

    pub(super) fn server_start(&mut self) {
        if self.server.up || self.start_later() {
            return;
        }
        self.server.up = true;
        self.server.life += 1;
        self.server.clock =
            Some((self.store.newest.map_or(self.wall_clock(), |newest| newest.max(self.wall_clock())), self.now));
        let life = self.server.life;
        self.note(format_args!("server starts its life {life}"));
        self.oracle.server_started(self.now);
        if self.sabotage != Sabotage::NoLeaseAfterRestart {
            for run in self.store.unfinished() {
                let _ = self.apply(run.id, RunEvent::ServerStarted);
            }
        }
        self.after(Duration::ZERO, Event::Sweep { life, periodic: true });
    }

    pub(super) fn server_crash(&mut self) {
        if !self.server.up || self.calm {
            return;
        }
        self.note(format_args!("server crashes"));
        self.server = Server { life: self.server.life, ..Server::default() };
        let down = self.random.millis(100, 30_000);
        self.after(down, Event::ServerStart);
        for agent in 0..self.machines.len() {
            if let Some(stream) = self.machines[agent].stream {
                let found = self.random.millis(0, 4_000);
                self.after(found, Event::StreamDead { agent, stream });
            }
        }
    }

    /// A place where a crash would be bad: between a commit and what follows from it.
    pub(super) fn crash_point(&mut self) -> bool {
        if self.server.up && !self.calm && self.random.chance(2) {
            self.server_crash();
        }
        !self.server.up
    }

    pub(super) fn wake(&mut self) {
        if self.server.up && !self.server.woken {
            self.server.woken = true;
            self.after(Duration::from_millis(1), Event::Sweep { life: self.server.life, periodic: false });
        }
    }

    pub(super) fn apply(&mut self, id: RunId, event: RunEvent) -> Result<Run, ApplyError> {
        if !self.server.up {
            return Err(ApplyError::Down);
        }
        if self.disk_full {
            self.server.refused_writes = true;
            return Err(ApplyError::Down);
        }
        let before = self.store.runs.get(&id).cloned();
        // A decline waits for the next look: an agent that takes nothing would be asked without a pause.
        let declined = matches!(event, RunEvent::Declined { .. });
        let (run, effects) = self.store.apply(id, event.clone(), self.store_clock(), &POLICY)?;
        self.note(format_args!("{id} {event:?}: {}", run.status()));
        if let Some(before) = before {
            self.look_at_change(&before, &run, &event, &effects);
        }
        if self.crash_point() {
            return Err(ApplyError::Down);
        }
        let stops = effects.iter().any(|effect| matches!(effect, Effect::SendStop { .. }));
        if stops || (run.pending_reason().is_some() && !declined) {
            self.wake();
        }
        self.carry_out(&run, &effects);
        Ok(run)
    }

    fn carry_out(&mut self, run: &Run, effects: &[Effect]) {
        for effect in effects {
            let (agent, message) = match effect {
                Effect::SendOffer { agent, key, placement } => {
                    (agent, ToAgent::Offer { key: *key, platform: run.plan.placements[*placement].platform.clone() })
                }
                Effect::SendStart { agent, key, attempt, step } => {
                    // The order is made by looking at the store once more.
                    if !self.store.is_live(run.id, *attempt) {
                        continue;
                    }
                    let work = Order::of(run, *step, *attempt);
                    (agent, ToAgent::StartStep { key: *key, attempt: *attempt, work })
                }
                Effect::SendResultStored { agent, key, attempt } => {
                    (agent, ToAgent::ResultStored { key: *key, attempt: *attempt })
                }
                Effect::SendStop { agent, key } => (agent, ToAgent::Stop { key: *key }),
                _ => continue,
            };
            self.send_down(agent, Down::Say(message));
        }
    }

    pub(super) fn sweep(&mut self, life: u64, periodic: bool) {
        if !self.server.up || self.server.life != life {
            return;
        }
        self.server.woken = false;
        if periodic {
            self.after(PERIOD, Event::Sweep { life, periodic });
        }
        let now = self.store_clock();
        let made_up = self.make_up_for_refused_writes();
        if self.sabotage != Sabotage::NeverTick && made_up {
            for run in self.store.unfinished() {
                if run.clone().apply(RunEvent::Tick, now, &POLICY).is_ok() {
                    let _ = self.apply(run.id, RunEvent::Tick);
                }
            }
        }
        let runs = self.store.unfinished();
        let agents: Vec<AgentView> = self.server.table.values().map(|connection| connection.view.clone()).collect();
        let load = schedule::load(&runs);
        for decision in
            schedule::schedule(schedule::waiting(&runs, now, &POLICY), &agents, &load, |_| None, &BTreeMap::new())
        {
            let (run, event) = match decision {
                Decision::Offer { run, placement, agent } => (run, RunEvent::Offer { placement, agent }),
                Decision::Wait { run, placement, reason } => (run, RunEvent::Explained { placement, reason }),
            };
            match self.apply(run, event) {
                Ok(_) | Err(ApplyError::Down) => {}
                Err(ApplyError::Refused(Refusal::NothingToDo | Refusal::NotWaiting | Refusal::Over)) => {}
                Err(error) => self.breach(format!("a decision on {run} can't be applied: {error:?}")),
            }
        }
    }

    pub(super) fn disconnected(&mut self, agent: usize, stream: u64) {
        let name = &self.machines[agent].name;
        if self.server.table.get(name).is_some_and(|connection| connection.peer.stream == stream) {
            self.server.table.remove(name);
            self.wake();
        }
    }

    pub(super) fn arrives_at_server(&mut self, from: Sender, life: u64, message: Up) {
        if !self.server.up || self.server.life != life {
            return;
        }
        let machine = &self.machines[from.agent];
        let agent = machine.reference(from.incarnation);
        let current = machine.incarnation == from.incarnation && machine.stream == Some(from.stream);
        if !current && !matches!(message, Up::Hello) && !self.survives_a_cut() {
            return;
        }
        match message {
            // A greeting is answered to somebody: a dead process can't have its stream opened.
            Up::Hello if current => self.hello(from, agent),
            Up::Hello => {}
            Up::Say(ToServer::Holding(held)) => self.holding(&agent, &held),
            Up::Say(ToServer::Accepted(key)) => {
                self.event_of(&agent, key, RunEvent::Accepted { fence: key.fence, host: None })
            }
            Up::Say(ToServer::Declined(key, why)) => {
                self.event_of(&agent, key, RunEvent::Declined { fence: key.fence, why });
            }
            Up::Say(ToServer::StepStarted(key, attempt)) => {
                self.event_of(&agent, key, RunEvent::StepStarted { fence: key.fence, attempt });
            }
            // The agents' model resolves nothing before an end.
            Up::Say(ToServer::Resolved(..)) => {}
            Up::Say(ToServer::StepEnded(key, attempt, result)) => self.step_ended(&agent, key, attempt, result),
            Up::Say(ToServer::Stopped(key)) => {
                let _ = self.apply(key.run, RunEvent::Stopped { fence: key.fence });
            }
            Up::Log { key, attempt, first, count } => self.log(&agent, key, attempt, first, count),
        }
    }

    fn hello(&mut self, from: Sender, agent: AgentRef) {
        self.note(format_args!("agent {agent} greets on stream {}", from.stream));
        let view = self.machines[from.agent].view(agent.clone());
        self.server.table.insert(agent.name.clone(), Connection { peer: from, view });
        for run in self.store.unfinished() {
            let _ = self.apply(run.id, RunEvent::AgentReplaced { agent: agent.clone() });
        }
        self.wake();
    }

    fn event_of(&mut self, agent: &AgentRef, key: PlacementKey, event: RunEvent) {
        let accepts = matches!(event, RunEvent::Accepted { .. });
        match self.apply(key.run, event) {
            // A late copy says nothing of now.
            Ok(_) if accepts => self.oracle.heard(key, self.now),
            Err(ApplyError::Unknown | ApplyError::Refused(Refusal::Over | Refusal::StaleFence(_))) => {
                self.send_down(agent, Down::Say(ToAgent::Stop { key }));
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn step_ended(&mut self, agent: &AgentRef, key: PlacementKey, attempt: AttemptNumber, result: StepResult) {
        let event = |result| RunEvent::StepEnded { fence: key.fence, attempt, result };
        match self.apply(key.run, event(result)) {
            Ok(_) => {}
            Err(ApplyError::NotPushed) => {
                let reason = "the push was reported and the registry has nothing of it".to_owned();
                let _ = self.apply(key.run, event(StepResult::Lost { reason }));
            }
            Err(ApplyError::Unknown | ApplyError::Refused(Refusal::StaleFence(_) | Refusal::Over)) => {
                self.send_down(agent, Down::Say(ToAgent::Stop { key }));
            }
            Err(ApplyError::Refused(_)) => {}
            Err(ApplyError::Down) => return,
        }
        self.send_down(agent, Down::Say(ToAgent::ResultStored { key, attempt }));
    }

    fn holding(&mut self, agent: &AgentRef, held: &[Held]) {
        let runs: BTreeMap<RunId, Run> = self.store.unfinished().into_iter().map(|run| (run.id, run)).collect();
        for report in held {
            let key = report.key;
            let Some(run) = runs.get(&key.run) else {
                self.send_down(agent, Down::Say(ToAgent::Stop { key }));
                continue;
            };
            self.oracle.heard(key, self.now);
            let offered = run.placements.iter().any(|placement| match placement {
                Placement::Offered(lease) => lease.fence == key.fence && lease.agent == *agent,
                _ => false,
            });
            // An agent that holds what is still on offer has accepted it, and the message was lost.
            let event = match offered {
                true => RunEvent::Accepted { fence: key.fence, host: None },
                false => RunEvent::Renewed { fence: key.fence },
            };
            let _ = self.apply(key.run, event);
        }
        if self.sabotage == Sabotage::NeverRemind {
            return;
        }
        let is_mine = |placement: &Placement| placement.lease().is_some_and(|lease| lease.agent == *agent);
        let mine = runs.values().filter(|run| run.placements.iter().any(is_mine)).map(|run| run.id);
        let concerned: BTreeSet<RunId> = mine.chain(held.iter().map(|report| report.key.run)).collect();
        for id in concerned.into_iter().filter(|id| runs.contains_key(id)) {
            let Some(run) = self.store.runs.get(&id).cloned() else { continue };
            let effects = run.remind(agent, held);
            self.carry_out(&run, &effects);
        }
    }

    fn log(&mut self, agent: &AgentRef, key: PlacementKey, attempt: AttemptNumber, first: u64, count: u64) {
        if self.sabotage == Sabotage::AckBeforeCommit && self.store.is_live(key.run, attempt) {
            let sequence = first + count - 1;
            self.oracle.acknowledged(key.run, attempt, sequence);
            self.send_down(agent, Down::LogStored { key, attempt, sequence });
            if self.random.chance(100) {
                return self.server_crash();
            }
        }
        if self.disk_full {
            return;
        }
        let sequence = match self.store.append(key.run, attempt, first, count) {
            Ok(sequence) => {
                self.oracle.acknowledged(key.run, attempt, sequence);
                sequence
            }
            // What an attempt says after its end is not kept, and the agent must not wait for it.
            Err(AppendError::Over) => first + count - 1,
            Err(AppendError::Hole(last)) => last,
        };
        if !self.crash_point() {
            self.send_down(agent, Down::LogStored { key, attempt, sequence });
        }
    }
}
