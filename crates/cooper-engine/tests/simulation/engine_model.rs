//! A container engine and the work in it: steps take their time and end well, badly or not at all.

use cooper_engine::agent::AgentEvent;
use cooper_engine::message::{PlacementKey, PreparedSource, PushedManifest, StepOutput, StepResult};
use cooper_engine::run::{Run, TagTarget};
use cooper_spec::plan::Work;
use cooper_types::{AttemptNumber, Digest};
use std::time::Duration;

use super::network::Up;
use super::world::{Event, Sabotage, World};

/// What an agent needs to run a step.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// What a push writes; nothing for a build.
    targets: Vec<TagTarget>,
    is_push: bool,
    prepares: bool,
    is_command: bool,
    timeout: Duration,
}

/// An attempt in an engine.
#[derive(Clone, Debug)]
pub(super) struct Job {
    order: Order,
    fate: Fate,
    /// Log frames that were written, and those that the server has.
    pub(super) said: u64,
    pub(super) stored: u64,
    over: bool,
}

/// How an attempt is going to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Succeeds,
    Fails,
    /// Takes longer than it may, and the agent ends it.
    Hangs,
    /// Never ends, and the agent does not see it.
    Sticks,
    /// The engine fails.
    Breaks,
}

impl Order {
    pub(super) fn of(run: &Run, step: usize, attempt: AttemptNumber) -> Self {
        let planned = &run.plan.steps[step];
        let is_push = matches!(planned.work, Work::Push(_));
        let prepares = matches!(planned.work, Work::Prepare(_));
        let is_command = matches!(planned.work, Work::Command(_));
        Self { targets: run.tag_targets(step, attempt), is_push, prepares, is_command, timeout: planned.timeout }
    }
}

impl World {
    pub(super) fn run_step(&mut self, agent: usize, key: PlacementKey, attempt: AttemptNumber, order: Order) {
        self.look_at_execution(key, attempt);
        let fate = match self.random.below(100) {
            0..=4 => Fate::Fails,
            _ if self.machines[agent].engine_down => Fate::Breaks,
            5..=6 => Fate::Hangs,
            7 if !self.calm => Fate::Sticks,
            8..=9 if !self.calm => Fate::Breaks,
            _ => Fate::Succeeds,
        };
        let incarnation = self.machines[agent].incarnation;
        self.note(format_args!("agent {agent} runs {}.{} attempt {attempt}: {fate:?}", key.run, key.fence));
        let takes = match fate {
            Fate::Hangs => order.timeout,
            _ => self.random.millis(50, 25_000),
        };
        let pushes = order.is_push && fate == Fate::Succeeds;
        self.machines[agent].containers.insert(key);
        let job = Job { order, fate, said: 0, stored: 0, over: false };
        self.machines[agent].jobs.insert((key, attempt), job);
        for _ in 0..3 {
            let when = self.random.millis(0, takes.as_millis() as u64);
            self.after(when, Event::StepTalks { agent, incarnation, key, attempt });
        }
        if pushes {
            self.after(takes, Event::PushTries { agent, incarnation, key, attempt });
        } else if fate != Fate::Sticks {
            let patience = if self.random.chance(500) { 50 } else { 0 };
            self.after(takes, Event::StepEnds { agent, incarnation, key, attempt, patience });
        }
    }

    /// The engine goes away under an attempt.
    pub(super) fn break_job(&mut self, agent: usize, key: PlacementKey, attempt: AttemptNumber) {
        if let Some(job) = self.machines[agent].jobs.get_mut(&(key, attempt)) {
            job.fate = Fate::Breaks;
        }
    }

    fn job(&mut self, agent: usize, incarnation: u64, key: PlacementKey, attempt: AttemptNumber) -> Option<&mut Job> {
        let machine = &mut self.machines[agent];
        if !machine.is_life(incarnation) {
            return None;
        }
        machine.jobs.get_mut(&(key, attempt)).filter(|job| !job.over)
    }

    pub(super) fn step_talks(&mut self, agent: usize, incarnation: u64, key: PlacementKey, attempt: AttemptNumber) {
        let Some(job) = self.job(agent, incarnation, key, attempt) else { return };
        job.said += 2;
        self.send_log(agent, key, attempt);
    }

    /// Everything that the server has not said it has.
    pub(super) fn send_log(&mut self, agent: usize, key: PlacementKey, attempt: AttemptNumber) {
        let Some(job) = self.machines[agent].jobs.get(&(key, attempt)) else { return };
        let (first, count) = (job.stored + 1, job.said - job.stored);
        if count > 0 {
            self.send_up(agent, Up::Log { key, attempt, first, count });
        }
    }

    /// Ends an attempt; it may wait for its log to arrive first.
    pub(super) fn step_ends(
        &mut self,
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
        patience: u32,
    ) {
        let Some(job) = self.job(agent, incarnation, key, attempt) else { return };
        if job.stored < job.said && patience > 0 {
            let event = Event::StepEnds { agent, incarnation, key, attempt, patience: patience - 1 };
            return self.after(Duration::from_millis(200), event);
        }
        let (fate, prepares, is_command) = (job.fate, job.order.prepares, job.order.is_command);
        let result = match fate {
            Fate::Succeeds if prepares => match self.uploads(agent, key, attempt) {
                Some(result) => result,
                None => {
                    let again = self.random.millis(500, 2_000);
                    return self.after(again, Event::StepEnds { agent, incarnation, key, attempt, patience });
                }
            },
            Fate::Succeeds if is_command => StepResult::Succeeded { output: StepOutput::Ran { image: None } },
            Fate::Succeeds => StepResult::Succeeded {
                output: StepOutput::Built {
                    image: made_by("image", key, attempt),
                    bases: Vec::new(),
                    frontend: None,
                    context: None,
                },
            },
            Fate::Fails => StepResult::Failed { exit_code: Some(1), reason: "exit code 1".to_owned() },
            Fate::Hangs => StepResult::TimedOut,
            Fate::Sticks | Fate::Breaks => StepResult::Lost { reason: "the engine failed".to_owned() },
        };
        self.end(agent, key, attempt, result);
    }

    /// What a prepare step has fetched goes to the server, which takes it from a live attempt alone. No result means that
    /// it has to be tried again.
    fn uploads(&mut self, agent: usize, key: PlacementKey, attempt: AttemptNumber) -> Option<StepResult> {
        let reached = self.server.up && !self.is_apart(agent) && !self.is_deaf(agent, true);
        if !reached || self.disk_full {
            return None;
        }
        if !self.store.is_live(key.run, attempt) {
            return Some(StepResult::Lost { reason: "the server refused the upload".to_owned() });
        }
        let context = self.store.upload(key.run, attempt);
        if self.crash_point() {
            return None;
        }
        let branch = if self.random.chance(900) { "main" } else { "Feature/x" };
        let output = StepOutput::Prepared(PreparedSource {
            commit: Some("0".repeat(40)),
            branch: Some(branch.to_owned()),
            tag: None,
            context,
            digest: Digest::sha256(b"archive"),
            size: 7,
            dockerfile: None,
            pinned: None,
            definition: None,
            files: Vec::new(),
        });
        Some(StepResult::Succeeded { output })
    }

    fn end(&mut self, agent: usize, key: PlacementKey, attempt: AttemptNumber, result: StepResult) {
        if let Some(job) = self.machines[agent].jobs.get_mut(&(key, attempt)) {
            job.over = true;
        }
        self.oracle.engine_said(key.run, attempt, &result);
        self.agent_does(agent, AgentEvent::StepEnded(key, attempt, result));
    }

    /// A push is a request of its own, repeated until it is answered.
    pub(super) fn push_tries(&mut self, agent: usize, incarnation: u64, key: PlacementKey, attempt: AttemptNumber) {
        let Some(job) = self.job(agent, incarnation, key, attempt).filter(|job| job.fate == Fate::Succeeds) else {
            return;
        };
        let targets = job.order.targets.clone();
        let again = self.random.millis(500, 2_000);
        self.after(again, Event::PushTries { agent, incarnation, key, attempt });
        if self.is_apart(agent) || self.is_deaf(agent, true) || (!self.calm && self.random.chance(100)) {
            return;
        }
        // Bytes that are under way for long arrive at a registry that has moved on.
        let late = !self.calm && self.random.chance(150);
        let delay = if late { self.random.millis(1_000, 60_000) } else { self.random.millis(1, 300) };
        self.after(delay, Event::PushArrives { agent, incarnation, key, attempt, targets });
    }

    pub(super) fn push_arrives(
        &mut self,
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
        targets: Vec<TagTarget>,
    ) {
        if !self.server.up || self.disk_full {
            return;
        }
        let taken = self.store.is_live(key.run, attempt) || self.sabotage == Sabotage::StageWithoutLook;
        if taken {
            self.look_at_push(key, attempt);
            for target in targets {
                self.store.stage(key.run, attempt, target.repository, target.staging_tag);
            }
            if self.crash_point() {
                return;
            }
        }
        if !self.is_deaf(agent, false) && (self.calm || !self.random.chance(100)) {
            let delay = self.random.millis(1, 100);
            self.after(delay, Event::PushAnswered { agent, incarnation, key, attempt, taken });
        }
    }

    pub(super) fn push_answered(
        &mut self,
        agent: usize,
        incarnation: u64,
        key: PlacementKey,
        attempt: AttemptNumber,
        taken: bool,
    ) {
        let Some(job) = self.job(agent, incarnation, key, attempt).filter(|job| job.fate == Fate::Succeeds) else {
            return;
        };
        let result = if taken {
            let manifests = job.order.targets.iter().map(|target| PushedManifest {
                registry: None,
                repository: target.repository.clone(),
                staging_tag: target.staging_tag.clone(),
                digest: made_by("manifest", key, attempt),
            });
            StepResult::Succeeded { output: StepOutput::Pushed { manifests: manifests.collect() } }
        } else {
            StepResult::Lost { reason: "the registry refused the push".to_owned() }
        };
        self.end(agent, key, attempt, result);
    }

    pub(super) fn clean_up_ends(&mut self, agent: usize, incarnation: u64, key: PlacementKey) {
        let machine = &mut self.machines[agent];
        if !machine.is_life(incarnation) {
            return;
        }
        machine.jobs.retain(|(of, _), _| *of != key);
        if self.sabotage != Sabotage::LeaveContainers && !machine.engine_down {
            machine.containers.remove(&key);
        }
        self.agent_does(agent, AgentEvent::CleanedUp(key));
    }
}

/// What an attempt makes: no two make the same.
fn made_by(what: &str, key: PlacementKey, attempt: AttemptNumber) -> Digest {
    Digest::sha256(format!("{what} of {} {attempt}", key.run).as_bytes())
}
