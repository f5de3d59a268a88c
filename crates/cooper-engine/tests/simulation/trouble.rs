//! What fails without anybody's death: engines that stop, disks that are full, networks that carry one way only.

use std::collections::BTreeSet;
use std::time::Duration;

use cooper_engine::agent::AgentEvent;
use cooper_engine::run::RunEvent;

use super::world::{Event, Sabotage, World};

impl World {
    /// A machine's engine stops: what runs in it is lost, and the agent takes nothing until it is back.
    pub(super) fn engine_stops(&mut self, agent: usize) {
        if self.calm || self.machines[agent].engine_down {
            return;
        }
        self.note(format_args!("the engine of agent {agent} stops"));
        self.machines[agent].engine_down = true;
        let back = self.random.millis(500, 40_000);
        self.after(back, Event::EngineStarts { agent });
        self.engine_is_away(agent);
    }

    /// The agent sees that its engine is away.
    pub(super) fn engine_is_away(&mut self, agent: usize) {
        let incarnation = self.machines[agent].incarnation;
        if !self.machines[agent].is_life(incarnation) {
            return;
        }
        self.agent_does(agent, AgentEvent::Unavailable(Some("engine not running".to_owned())));
        let running: Vec<_> = self.machines[agent].jobs.keys().copied().collect();
        for (key, attempt) in running {
            self.break_job(agent, key, attempt);
            let seen = self.random.millis(10, 3_000);
            self.after(seen, Event::StepEnds { agent, incarnation, key, attempt, patience: 50 });
        }
    }

    pub(super) fn engine_starts(&mut self, agent: usize) {
        self.note(format_args!("the engine of agent {agent} is back"));
        let machine = &mut self.machines[agent];
        machine.engine_down = false;
        let incarnation = machine.incarnation;
        if !machine.is_life(incarnation) {
            return;
        }
        // What could not be removed while it was away is removed now.
        let held: BTreeSet<_> = machine.jobs.keys().map(|(key, _)| *key).collect();
        machine.containers.retain(|key| held.contains(key));
        if !machine.is_leaving() {
            self.agent_does(agent, AgentEvent::Unavailable(None));
        }
    }

    /// One direction between an agent and the server carries nothing for a while; each side finds out when it does.
    pub(super) fn half_cut(&mut self, agent: usize, up: bool) {
        if self.calm {
            return;
        }
        let until = self.now + self.random.millis(500, 60_000);
        self.note(format_args!("nothing goes {} for agent {agent}", if up { "up" } else { "down" }));
        self.network.deaf.insert((agent, up), until);
        let Some(stream) = self.machines[agent].stream else { return };
        // Without answers to its questions each side ends the stream after a while.
        let (ours, theirs) = (self.random.millis(8_000, 25_000), self.random.millis(8_000, 30_000));
        self.after(ours, Event::StreamDead { agent, stream });
        self.after(theirs, Event::Disconnected { agent, stream });
    }

    /// The server's disk takes nothing for a while.
    pub(super) fn disk_fills(&mut self) {
        if self.calm || self.disk_full {
            return;
        }
        self.note(format_args!("the server's disk is full"));
        self.disk_full = true;
        let later = self.random.millis(500, 45_000);
        self.after(later, Event::DiskHasSpace);
    }

    pub(super) fn disk_has_space(&mut self) {
        self.note(format_args!("the server's disk has space again"));
        self.disk_full = false;
        // What could not be written until now is no more late than after a restart.
        self.oracle.writable_since = Some(self.now);
        self.wake();
    }

    /// Before a look at the time: leases that nobody could renew begin anew. `false` if they can't yet.
    pub(super) fn make_up_for_refused_writes(&mut self) -> bool {
        if !std::mem::take(&mut self.server.refused_writes) || self.sabotage == Sabotage::NoLeaseAfterFullDisk {
            return true;
        }
        for run in self.store.unfinished() {
            let _ = self.apply(run.id, RunEvent::ServerStarted);
        }
        !self.server.refused_writes
    }

    /// How long a disk that is full keeps the server from starting.
    pub(super) fn start_later(&mut self) -> bool {
        if self.disk_full {
            self.after(Duration::from_millis(500), Event::ServerStart);
        }
        self.disk_full
    }
}
