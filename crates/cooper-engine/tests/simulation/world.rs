//! The world: virtual time, what is going to happen, and what goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_engine::message::PlacementKey;
use cooper_engine::run::{Policy, RunStatus, TagTarget};
use cooper_types::{AttemptNumber, Timestamp};

use super::agent_shell::Machine;
use super::network::{Down, Network, Sender, Up};
use super::oracle::Oracle;
use super::random::Random;
use super::server_shell::Server;
use super::store_model::Store;

/// Times of the simulated system: the real leases, and short waits so that those are seen to end too.
pub(super) const POLICY: Policy = Policy { queue_timeout: Duration::from_secs(240), ..Policy::DEFAULT };
/// How long things go wrong.
const STORM: Duration = Duration::from_secs(150);
/// The longest that a run can take after that: its own timeout, its place in the queue, three leases.
const CALM: Duration = Duration::from_secs(1_500);

/// A way to break the system on purpose: the oracle has to see each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    Nothing,
    /// The registry takes writes of attempts that are over.
    StageWithoutLook,
    /// Agents say that they cleaned up and did not.
    LeaveContainers,
    /// The server does not say again what was lost on the way.
    NeverRemind,
    /// The server answers before the run is durable.
    AnswerBeforeCommit,
    /// Leases are judged by the wall clock.
    WallClock,
    /// Leases go on while the server is down.
    NoLeaseAfterRestart,
    /// The server looks at messages only, never at the time.
    NeverTick,
    /// The server says that log frames are stored before they are.
    AckBeforeCommit,
    /// Leases go on while the disk is full and nobody can renew.
    NoLeaseAfterFullDisk,
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Sweep {
        life: u64,
        periodic: bool,
    },
    ServerCrash,
    ServerStart,
    ToServer {
        from: Sender,
        life: u64,
        message: Up,
    },
    ToAgent {
        to: Sender,
        message: Down,
    },
    Connect {
        agent: usize,
        incarnation: u64,
    },
    Heartbeat {
        agent: usize,
        incarnation: u64,
    },
    /// The agent finds its stream dead.
    StreamDead {
        agent: usize,
        stream: u64,
    },
    /// The server finds a stream dead.
    Disconnected {
        agent: usize,
        stream: u64,
    },
    Cut {
        agent: usize,
    },
    AgentCrash {
        agent: usize,
    },
    AgentStart {
        agent: usize,
    },
    AgentDrain {
        agent: usize,
    },
    StepTalks {
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
    },
    StepEnds {
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
        patience: u32,
    },
    PushTries {
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
    },
    PushArrives {
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
        targets: Vec<TagTarget>,
    },
    PushAnswered {
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
        taken: bool,
    },
    CleanUpEnds {
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
    },
    WallJump {
        seconds: i64,
    },
    EngineStops {
        agent: usize,
    },
    EngineStarts {
        agent: usize,
    },
    HalfCut {
        agent: usize,
        up: bool,
    },
    DiskFills,
    DiskHasSpace,
    UserStarts,
    UserCancels,
    CalmBegins,
}

/// Everything there is.
pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) sabotage: Sabotage,
    /// Nothing new goes wrong.
    pub(super) calm: bool,
    pub(super) store: Store,
    pub(super) server: Server,
    pub(super) machines: Vec<Machine>,
    pub(super) network: Network,
    pub(super) oracle: Oracle,
    /// How far the wall clock is off, in microseconds.
    pub(super) wall_offset: i64,
    /// The server's disk takes nothing.
    pub(super) disk_full: bool,
    pub(super) trace: Vec<String>,
    queue: BTreeMap<(Duration, u64), Event>,
    next: u64,
}

/// What came of a simulation.
pub(super) struct Outcome {
    pub(super) trace: Vec<String>,
    pub(super) breach: Option<String>,
    pub(super) statuses: Vec<RunStatus>,
    pub(super) losses: usize,
}

/// Plays one seed.
pub(super) fn simulate(seed: u64, sabotage: Sabotage) -> Outcome {
    let mut random = Random::new(seed);
    let machines = Machine::some(&mut random);
    let mut world = World {
        now: Duration::ZERO,
        random,
        sabotage,
        calm: false,
        store: Store::default(),
        server: Server::default(),
        machines,
        network: Network::default(),
        oracle: Oracle::default(),
        wall_offset: 1_700_000_000_000_000,
        disk_full: false,
        trace: Vec::new(),
        queue: BTreeMap::new(),
        next: 0,
    };
    world.plan_the_storm();
    world.play();
    let statuses = world.store.runs.values().map(|run| run.status()).collect();
    let losses = world.store.runs.values().map(|run| run.losses.len()).sum();
    Outcome { trace: world.trace, breach: world.oracle.breach, statuses, losses }
}

impl World {
    fn plan_the_storm(&mut self) {
        self.at(Duration::ZERO, Event::ServerStart);
        for agent in 0..self.machines.len() {
            let when = self.random.millis(0, 3_000);
            self.at(when, Event::AgentStart { agent });
        }
        let storm = STORM.as_millis() as u64;
        let sometimes = |world: &mut Self, most: u64, event: &mut dyn FnMut(&mut Self) -> Event| {
            for _ in 0..world.random.below(most + 1) {
                let when = world.random.millis(0, storm);
                let event = event(world);
                world.at(when, event);
            }
        };
        let any = |world: &mut Self| world.random.below(world.machines.len() as u64) as usize;
        for _ in 0..4 {
            sometimes(self, 6, &mut |_| Event::UserStarts);
        }
        self.at(Duration::from_secs(1), Event::UserStarts);
        sometimes(self, 4, &mut |_| Event::UserCancels);
        // Some storms are hard on one side only.
        let hard = self.random.below(4);
        sometimes(self, if hard == 0 { 6 } else { 2 }, &mut |_| Event::ServerCrash);
        sometimes(self, if hard == 1 { 8 } else { 2 }, &mut |world| Event::AgentCrash { agent: any(world) });
        sometimes(self, if hard == 2 { 16 } else { 4 }, &mut |world| Event::Cut { agent: any(world) });
        sometimes(self, 1, &mut |world| Event::AgentDrain { agent: any(world) });
        sometimes(self, 4, &mut |world| Event::WallJump { seconds: world.random.below(7_200).cast_signed() - 3_600 });
        sometimes(self, 2, &mut |world| Event::EngineStops { agent: any(world) });
        sometimes(self, 2, &mut |world| Event::HalfCut { agent: any(world), up: world.random.chance(500) });
        sometimes(self, 1, &mut |_| Event::DiskFills);
        self.at(STORM, Event::CalmBegins);
    }

    fn play(&mut self) {
        while let Some(((when, _), event)) = self.queue.pop_first() {
            self.now = when;
            self.happen(event);
            self.look();
            if self.oracle.breach.is_some() {
                return;
            }
            if self.calm && self.is_quiet() {
                self.look_at_the_end();
                return;
            }
            if self.now > STORM + CALM {
                let open: Vec<_> = self.store.unfinished().iter().map(|run| run.id).collect();
                let held: Vec<_> = self.machines.iter().map(|machine| machine.leftovers()).collect();
                self.breach(format!("it never comes to rest: runs {open:?}, agents {held:?}"));
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Sweep { life, periodic } => self.sweep(life, periodic),
            Event::ServerCrash => self.server_crash(),
            Event::ServerStart => self.server_start(),
            Event::ToServer { from, life, message } => self.arrives_at_server(from, life, message),
            Event::ToAgent { to, message } => self.arrives_at_agent(to, message),
            Event::Connect { agent, incarnation } => self.connect(agent, incarnation),
            Event::Heartbeat { agent, incarnation } => self.heartbeat(agent, incarnation),
            Event::StreamDead { agent, stream } => self.stream_dead(agent, stream),
            Event::Disconnected { agent, stream } => self.disconnected(agent, stream),
            Event::Cut { agent } => self.cut(agent),
            Event::AgentCrash { agent } => self.agent_crash(agent),
            Event::AgentStart { agent } => self.agent_start(agent),
            Event::AgentDrain { agent } => self.agent_drain(agent),
            Event::StepTalks { agent, incarnation, key, attempt } => self.step_talks(agent, incarnation, key, attempt),
            Event::StepEnds { agent, incarnation, key, attempt, patience } => {
                self.step_ends(agent, incarnation, key, attempt, patience);
            }
            Event::PushTries { agent, incarnation, key, attempt } => self.push_tries(agent, incarnation, key, attempt),
            Event::PushArrives { agent, incarnation, key, attempt, targets } => {
                self.push_arrives(agent, incarnation, key, attempt, targets);
            }
            Event::PushAnswered { agent, incarnation, key, attempt, taken } => {
                self.push_answered(agent, incarnation, key, attempt, taken);
            }
            Event::CleanUpEnds { agent, incarnation, key } => self.clean_up_ends(agent, incarnation, key),
            Event::WallJump { seconds } => {
                self.note(format_args!("wall clock jumps by {seconds} s"));
                self.wall_offset += seconds * 1_000_000;
            }
            Event::EngineStops { agent } => self.engine_stops(agent),
            Event::EngineStarts { agent } => self.engine_starts(agent),
            Event::HalfCut { agent, up } => self.half_cut(agent, up),
            Event::DiskFills => self.disk_fills(),
            Event::DiskHasSpace => self.disk_has_space(),
            Event::UserStarts => self.user_starts(),
            Event::UserCancels => self.user_cancels(),
            Event::CalmBegins => self.calm_begins(),
        }
    }

    fn calm_begins(&mut self) {
        self.note(format_args!("calm begins"));
        self.calm = true;
        self.oracle.calm_since = Some(self.now);
    }

    /// Nothing is left to do, for anybody.
    fn is_quiet(&self) -> bool {
        self.server.up
            && self.store.unfinished().is_empty()
            && self.machines.iter().all(|machine| machine.leftovers().is_empty())
    }

    /// Puts an event on the calendar.
    pub(super) fn at(&mut self, when: Duration, event: Event) {
        self.next += 1;
        self.queue.insert((when, self.next), event);
    }

    pub(super) fn after(&mut self, later: Duration, event: Event) {
        self.at(self.now + later, event);
    }

    /// The machine's clock, which people set.
    pub(super) fn wall_clock(&self) -> Timestamp {
        Timestamp::from_micros(self.wall_offset).after(self.now)
    }

    pub(super) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.push(format!("{:>12.6} {line}", self.now.as_secs_f64()));
    }

    /// A promise was broken.
    pub(super) fn breach(&mut self, what: String) {
        self.note(format_args!("BREACH: {what}"));
        self.oracle.breach.get_or_insert(what);
    }
}
