//! An agent's process around its state machine, and the machine that it runs on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::agent::{AgentEffect, AgentEvent, AgentState};
use cooper_engine::message::PlacementKey;
use cooper_engine::run::AgentRef;
use cooper_engine::schedule::AgentView;
use cooper_types::{AgentName, AttemptNumber, Platform, PoolName};

use super::engine_model::{Job, Order};
use super::network::{Down, Sender, Up};
use super::random::Random;
use super::world::{Event, World};

/// How often an agent says what it holds.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A machine with a container engine and an agent.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: AgentName,
    slots: u32,
    native: Platform,
    emulated: Vec<Platform>,
    /// Which life of the agent's process, or the last one if it is down.
    pub(super) incarnation: u64,
    up: bool,
    /// It drains, and its process is going to end.
    leaving: bool,
    pub(super) engine_down: bool,
    state: AgentState,
    pub(super) stream: Option<u64>,
    pub(super) jobs: BTreeMap<(PlacementKey, AttemptNumber), Job>,
    /// Placements that have something in the engine. It outlives the process.
    pub(super) containers: BTreeSet<PlacementKey>,
}

impl Machine {
    /// One to three machines; some do arm64 by themselves, some emulate it, some can't.
    pub(super) fn some(random: &mut Random) -> Vec<Self> {
        let (amd64, arm64) = (Platform::LINUX_AMD64, Platform::parse("linux/arm64").expect("valid"));
        let names = ["a", "b", "c"];
        let count = 1 + random.next() as usize % 3;
        let machine = |index: usize| {
            let slots = 1 + random.below(3) as u32;
            let (native, emulated) = match random.below(4) {
                0 => (arm64.clone(), vec![amd64.clone()]),
                1 => (amd64.clone(), vec![]),
                _ => (amd64.clone(), vec![arm64.clone()]),
            };
            Self {
                name: AgentName::parse(names[index]).expect("valid"),
                slots,
                native,
                emulated,
                incarnation: 0,
                up: false,
                leaving: false,
                engine_down: false,
                state: AgentState::new(slots as usize),
                stream: None,
                jobs: BTreeMap::new(),
                containers: BTreeSet::new(),
            }
        };
        (0..count).map(machine).collect()
    }

    pub(super) fn reference(&self, incarnation: u64) -> AgentRef {
        AgentRef { name: self.name.clone(), incarnation: incarnation.to_string() }
    }

    pub(super) fn view(&self, agent: AgentRef) -> AgentView {
        AgentView {
            agent,
            pool: PoolName::default_pool(),
            native: vec![self.native.clone()],
            emulated: self.emulated.clone(),
            slots: self.slots,
            draining: false,
            unavailable: false,
            takes_images: true,
            allows: [].into(),
        }
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    pub(super) fn is_life(&self, incarnation: u64) -> bool {
        self.up && self.incarnation == incarnation
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// What is still here of runs.
    pub(super) fn leftovers(&self) -> Vec<String> {
        let containers = self.containers.iter().map(|key| format!("containers of {}.{}", key.run, key.fence));
        let jobs = self.jobs.keys().map(|(key, attempt)| format!("attempt {}.{attempt}", key.run));
        let held = (self.state.held() > 0).then(|| format!("{} placements", self.state.held()));
        let down = (!self.up).then(|| "the agent is down".to_owned());
        containers.chain(jobs).chain(held).chain(down).collect()
    }
}

impl World {
    pub(super) fn agent_start(&mut self, agent: usize) {
        let machine = &mut self.machines[agent];
        if machine.up {
            return;
        }
        if machine.engine_down {
            // It waits for an engine that it can clean up.
            return self.after(Duration::from_secs(1), Event::AgentStart { agent });
        }
        machine.up = true;
        machine.incarnation += 1;
        machine.state = AgentState::new(machine.slots as usize);
        // Orphans of earlier lives are reaped before anything is taken.
        machine.containers.clear();
        let incarnation = machine.incarnation;
        self.note(format_args!("agent {agent} starts its life {incarnation}"));
        self.after(Duration::ZERO, Event::Connect { agent, incarnation });
        self.after(HEARTBEAT, Event::Heartbeat { agent, incarnation });
    }

    pub(super) fn agent_crash(&mut self, agent: usize) {
        let machine = &mut self.machines[agent];
        if !machine.up || (self.calm && !machine.leaving) {
            return;
        }
        machine.up = false;
        machine.leaving = false;
        // Containers stay; the sessions that drove them die with the process.
        machine.jobs.clear();
        let stream = machine.stream.take();
        self.note(format_args!("agent {agent} crashes"));
        if let Some(stream) = stream {
            let found = self.random.millis(0, 30_000);
            self.after(found, Event::Disconnected { agent, stream });
        }
        let down = self.random.millis(50, 40_000);
        self.after(down, Event::AgentStart { agent });
    }

    /// Takes no new work for a while, then leaves; something starts it again.
    pub(super) fn agent_drain(&mut self, agent: usize) {
        if self.machines[agent].up && !self.calm {
            self.agent_does(agent, AgentEvent::Unavailable(Some("it is shutting down".to_owned())));
            let later = self.random.millis(100, 10_000);
            self.machines[agent].leaving = true;
            self.after(later, Event::AgentCrash { agent });
        }
    }

    pub(super) fn connect(&mut self, agent: usize, incarnation: u64) {
        if !self.machines[agent].is_life(incarnation) || self.machines[agent].stream.is_some() {
            return;
        }
        let Some(stream) = self.open_stream(agent) else {
            let later = self.random.millis(200, 2_500);
            return self.after(later, Event::Connect { agent, incarnation });
        };
        self.machines[agent].stream = Some(stream);
        self.send_up(agent, Up::Hello);
        self.report(agent);
    }

    pub(super) fn stream_dead(&mut self, agent: usize, stream: u64) {
        let machine = &mut self.machines[agent];
        if machine.stream == Some(stream) {
            machine.stream = None;
            let incarnation = machine.incarnation;
            let later = self.random.millis(50, 2_000);
            self.after(later, Event::Connect { agent, incarnation });
        }
    }

    pub(super) fn heartbeat(&mut self, agent: usize, incarnation: u64) {
        if self.machines[agent].is_life(incarnation) {
            self.report(agent);
            self.after(HEARTBEAT, Event::Heartbeat { agent, incarnation });
        }
    }

    fn report(&mut self, agent: usize) {
        let jobs: Vec<_> = self.machines[agent].jobs.keys().copied().collect();
        // The log first: a result that overtakes it would end it.
        for (key, attempt) in jobs {
            self.send_log(agent, key, attempt);
        }
        self.agent_does(agent, AgentEvent::ReportDue);
    }

    pub(super) fn arrives_at_agent(&mut self, to: Sender, message: Down) {
        let machine = &self.machines[to.agent];
        if !machine.is_life(to.incarnation) || (machine.stream != Some(to.stream) && !self.survives_a_cut()) {
            return;
        }
        match message {
            Down::Say(message) => self.agent_does(to.agent, AgentEvent::Received(message)),
            Down::LogStored { key, attempt, sequence } => {
                if let Some(job) = self.machines[to.agent].jobs.get_mut(&(key, attempt)) {
                    job.stored = job.stored.max(sequence.min(job.said));
                }
            }
        }
    }

    pub(super) fn agent_does(&mut self, agent: usize, event: AgentEvent<Order>) {
        for effect in self.machines[agent].state.apply(event) {
            match effect {
                AgentEffect::Send(message) => self.send_up(agent, Up::Say(message)),
                AgentEffect::Run(key, attempt, order) => self.run_step(agent, key, attempt, order),
                AgentEffect::Abandon(key, attempt) => drop(self.machines[agent].jobs.remove(&(key, attempt))),
                AgentEffect::CleanUp(key) => {
                    let incarnation = self.machines[agent].incarnation;
                    let later = self.random.millis(5, 2_000);
                    self.after(later, Event::CleanUpEnds { agent, incarnation, key });
                }
            }
        }
    }
}
