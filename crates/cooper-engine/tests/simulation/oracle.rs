//! What was promised, and whether it was kept. It sees the whole world and remembers what the world forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cooper_engine::message::{PlacementKey, StepResult};
use cooper_engine::run::{Effect, Phase, Run, RunEvent, RunSource, RunStatus, Step, StepState, Verdict};
use cooper_engine::schedule;
use cooper_spec::plan::{BuildContext, PlannedStep, Work};
use cooper_types::{AttemptNumber, RunId, Timestamp};

use super::store_model::{Entry, TagMove};
use super::world::{POLICY, World};

/// How late a periodic look may be, with room for what it waits for.
const SWEEP: Duration = Duration::from_secs(2);

/// The oracle's memory.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// The first promise that was broken.
    pub(super) breach: Option<String>,
    /// Runs that somebody was told of.
    pub(super) answered: Vec<RunId>,
    pub(super) calm_since: Option<Duration>,
    /// What the engines really did.
    results: BTreeMap<(RunId, AttemptNumber), StepResult>,
    executed: BTreeSet<(RunId, AttemptNumber)>,
    /// When the server last heard of a placement.
    heard: BTreeMap<PlacementKey, Duration>,
    acknowledged: BTreeMap<(RunId, AttemptNumber), u64>,
    /// When runs that have not ended were cancelled.
    cancels: BTreeMap<RunId, Timestamp>,
    up_since: Option<Duration>,
    /// Since when the disk takes writes again, if it ever did not.
    pub(super) writable_since: Option<Duration>,
    last_time: Option<Timestamp>,
}

impl Oracle {
    pub(super) fn server_started(&mut self, now: Duration) {
        self.up_since = Some(now);
    }

    pub(super) fn heard(&mut self, key: PlacementKey, now: Duration) {
        self.heard.insert(key, now);
    }

    pub(super) fn engine_said(&mut self, run: RunId, attempt: AttemptNumber, result: &StepResult) {
        self.results.insert((run, attempt), result.clone());
    }

    pub(super) fn acknowledged(&mut self, run: RunId, attempt: AttemptNumber, sequence: u64) {
        let last = self.acknowledged.entry((run, attempt)).or_default();
        *last = sequence.max(*last);
    }
}

impl World {
    /// After every step of the world.
    pub(super) fn look(&mut self) {
        let Some(last) = self.oracle.answered.iter().find(|run| !self.store.runs.contains_key(*run)) else {
            return self.look_at_cancels();
        };
        self.breach(format!("promise 1: run {last} was accepted and is gone"));
    }

    fn look_at_cancels(&mut self) {
        if !self.server.up || self.disk_full {
            return;
        }
        // A lease by the store's clock, and a sweep. That clock loses what passed since the last commit before a crash
        // if the wall clock was set back, and leaps if it was set forward: then the sweep has to come.
        let limit = POLICY.lease + SWEEP;
        let (time, since) =
            (self.store_clock(), self.oracle.up_since.max(self.oracle.writable_since).unwrap_or_default());
        let late = self.oracle.cancels.iter().find(|(_, at)| time > at.after(limit) && self.now > since + SWEEP);
        let late = late.map(|(run, _)| *run);
        if let Some(run) = late {
            self.breach(format!("promise 6: the cancel of {run} is not final after a lease and a sweep"));
        }
    }

    /// An agent starts to run an attempt: nobody else may ever have, while it counts.
    pub(super) fn look_at_execution(&mut self, key: PlacementKey, attempt: AttemptNumber) {
        let first = self.oracle.executed.insert((key.run, attempt));
        if !first && self.is_live_in_state(key.run, attempt) {
            self.breach(format!("promise 2: attempt {attempt} of {} runs twice", key.run));
        }
    }

    /// The registry takes a push.
    pub(super) fn look_at_push(&mut self, key: PlacementKey, attempt: AttemptNumber) {
        if !self.is_live_in_state(key.run, attempt) {
            self.breach(format!(
                "promise 3: the registry took a push of attempt {attempt} of {}, which is over",
                key.run
            ));
        }
    }

    fn is_live_in_state(&self, run: RunId, attempt: AttemptNumber) -> bool {
        let run = self.store.runs.get(&run);
        run.is_some_and(|run| run.steps.iter().any(|step| step.state.live_attempt() == Some(attempt)))
    }

    /// A run changed.
    pub(super) fn look_at_change(&mut self, before: &Run, after: &Run, event: &RunEvent, effects: &[Effect]) {
        let id = after.id;
        let time = self.store_clock();
        if self.oracle.last_time.is_some_and(|last| time < last) {
            self.breach("the store's clock went back".to_owned());
        }
        self.oracle.last_time = Some(time);
        let live =
            self.store.runs.values().flat_map(|run| &run.steps).filter(|step| step.state.live_attempt().is_some());
        if live.count() != self.store.live_count() {
            self.breach(format!("promise 2: rows and state of {id} disagree on what is live"));
        }
        if matches!(event, RunEvent::CancelRequested { .. }) {
            self.oracle.cancels.insert(id, time);
        }
        if after.finished().is_some() {
            self.oracle.cancels.remove(&id);
        }
        if let RunEvent::Offer { agent, .. } = event {
            let load = schedule::load(self.store.runs.values()).get(agent).copied().unwrap_or(0);
            let slots = self.machines.iter().find(|machine| machine.name == agent.name).map_or(0, |m| m.slots());
            if load > slots {
                self.breach(format!("agent {agent} is given {load} placements for {slots} slots"));
            }
        }
        self.look_at_losses(before, after);
        let gaps = effects.iter().filter(|effect| matches!(effect, Effect::LogGap(_))).count();
        if gaps < after.losses.len() - before.losses.len() {
            self.breach(format!("promise 5: a loss of {id} left no gap"));
        }
    }

    fn look_at_losses(&mut self, before: &Run, after: &Run) {
        let id = after.id;
        for loss in &after.losses[before.losses.len()..] {
            let Some(lease) = before.placements[loss.placement].lease() else {
                self.breach(format!("{id} lost what nobody held"));
                continue;
            };
            if loss.reason.contains("did not begin") {
                let ordered = |(index, step): (usize, &Step)| {
                    let here = before.plan.steps[index].placement == loss.placement;
                    step.state.live_attempt().filter(|attempt| here && !self.oracle.executed.contains(&(id, *attempt)))
                };
                if let Some(attempt) = before.steps.iter().enumerate().find_map(ordered) {
                    self.breach(format!("promise 8: attempt {attempt} of {id} was never said again to a living agent"));
                }
            }
            if !loss.reason.contains("silent") {
                continue;
            }
            let key = PlacementKey { run: id, fence: lease.fence };
            let heard = self.oracle.heard.get(&key).copied().max(self.oracle.up_since).unwrap_or_default();
            // A renewal that adds less than an eighth is not written.
            if self.now - heard < POLICY.lease * 7 / 8 {
                self.breach(format!("{id} was lost after {:?} of silence", self.now - heard));
            }
            if self.oracle.calm_since.is_some_and(|calm| self.now > calm + 4 * POLICY.lease) {
                self.breach(format!("{id} was lost although nothing goes wrong any more"));
            }
        }
    }

    /// Everything has come to rest.
    pub(super) fn look_at_the_end(&mut self) {
        let mut found = Vec::new();
        for run in self.store.runs.values() {
            let mut say = |what: String| found.push(format!("{what} (run {}: {})", run.id, run.status()));
            self.judge_steps(run, &mut say);
            self.judge_tags(run, &mut say);
            self.judge_source(run, &mut say);
            self.judge_verdict(run, &mut say);
            self.judge_log(run, &mut say);
        }
        if self.store.live_count() + self.store.staged_count() > 0 {
            found.push("promise 3: attempts or staged tags are left over".to_owned());
        }
        if let Some(what) = found.into_iter().next() {
            self.breach(what);
        }
    }

    fn judge_steps(&self, run: &Run, say: &mut impl FnMut(String)) {
        for (index, step) in run.steps.iter().enumerate() {
            let (attempt, succeeded) = match &step.state {
                StepState::Succeeded { attempt, .. } => (*attempt, true),
                StepState::Failed { attempt, .. } => (*attempt, false),
                _ => continue,
            };
            let fits = match self.oracle.results.get(&(run.id, attempt)) {
                Some(StepResult::Succeeded { .. }) => succeeded,
                Some(StepResult::Failed { .. } | StepResult::TimedOut) => !succeeded,
                Some(StepResult::Lost { .. }) => false,
                // One that its agent never ends fails alone where its errors don't matter.
                None => {
                    matches!(step.state, StepState::Failed { ignored: true, .. })
                        && self.oracle.executed.contains(&(run.id, attempt))
                }
            };
            if !fits {
                say(format!("step {index} is not what its engine said"));
            }
        }
    }

    fn judge_tags(&self, run: &Run, say: &mut impl FnMut(String)) {
        for (index, step) in run.steps.iter().enumerate() {
            if let StepState::Succeeded { attempt, .. } = &step.state
                && run.keeps_staged(index, *attempt)
                && !run
                    .tag_targets(index, *attempt)
                    .iter()
                    .all(|target| self.store.has_staged(run.id, *attempt, target))
            {
                say(format!("promise 3: what step {index} staged is gone"));
            }
            let moves: Vec<&TagMove> =
                self.store.moves.iter().filter(|one| (one.run, one.step) == (run.id, index)).collect();
            let wanted = match (&step.state, &run.plan.steps[index].work) {
                (StepState::Succeeded { attempt, .. }, Work::Push(_)) => run.tag_targets(index, *attempt),
                _ => Vec::new(),
            };
            let wanted: Vec<_> =
                wanted.iter().flat_map(|target| target.tags.iter().map(|tag| (&target.repository, tag))).collect();
            let moved: Vec<_> = moves.iter().map(|one| (&one.repository, &one.tag)).collect();
            if moved != wanted {
                say(format!("promise 3: step {index} moved {moved:?} where it should have moved {wanted:?}"));
            }
            if moves.windows(2).any(|pair| pair[0].commit != pair[1].commit || pair[0].attempt != pair[1].attempt) {
                say(format!("promise 3: the tags of step {index} did not move together"));
            }
        }
    }

    /// A run whose source is fetched is planned once, on what the attempt that succeeded uploaded, or not at all.
    fn judge_source(&self, run: &Run, say: &mut impl FnMut(String)) {
        let plannings: Vec<_> = self.store.plannings.iter().filter(|(of, ..)| *of == run.id).collect();
        let contexts: Vec<_> = run
            .plan
            .steps
            .iter()
            .filter_map(|step| match &step.work {
                Work::Build(build) => Some(&build.context),
                Work::Prepare(_) | Work::Push(_) | Work::Command(_) => None,
            })
            .collect();
        match (&run.source, plannings.as_slice()) {
            (None, []) => {}
            (Some(_), []) if run.plan.steps.len() == 1 => {}
            (Some(RunSource::Prepared { found, .. }), [(_, attempt, context)]) => {
                let first = matches!(&run.steps[0].state, StepState::Succeeded { attempt: of, .. } if of == attempt);
                if !first
                    || found.context != *context
                    || !contexts.iter().all(|one| **one == BuildContext::Uploaded(context.clone()))
                {
                    say("it builds something else than what was prepared for it".to_owned());
                }
            }
            (_, plannings) => say(format!("it was planned {} times", plannings.len())),
        }
    }

    fn judge_verdict(&self, run: &Run, say: &mut impl FnMut(String)) {
        let Phase::Finished { verdict, .. } = &run.phase else { return say("promise 4: it never ended".to_owned()) };
        let most = (0..run.placements.len())
            .map(|placement| run.losses.iter().filter(|loss| loss.placement == placement).count())
            .max()
            .unwrap_or(0);
        match verdict {
            Verdict::Error { reason } if most >= POLICY.max_losses => {
                if !run.losses.iter().all(|loss| reason.contains(&loss.reason)) {
                    say(format!("promise 8: `{reason}` does not tell the story"));
                }
            }
            _ if most >= POLICY.max_losses => say(format!("promise 8: {most} losses and no error")),
            Verdict::Failed { reason } if run.source.is_some() && reason.contains("can't be planned") => {}
            Verdict::Failed { .. } => {
                // A step failed, or one that had begun never ended.
                let failed =
                    run.steps.iter().any(|step| matches!(step.state, StepState::Failed { ignored: false, .. }));
                let stuck = run.steps.iter().any(|step| {
                    matches!(&step.state,
                    StepState::Cancelled { attempt, .. } if self.oracle.executed.contains(&(run.id, *attempt)))
                });
                if !failed && !stuck {
                    say("promise 8: it failed and no step did".to_owned());
                }
            }
            Verdict::Succeeded => {
                let done = |(step, planned): (&Step, &PlannedStep)| match step.state {
                    StepState::Succeeded { .. } => true,
                    StepState::Failed { ignored, .. } => ignored && planned.ignore_errors,
                    _ => false,
                };
                if !run.steps.iter().zip(&run.plan.steps).all(done) {
                    say("it succeeded and not all steps did".to_owned());
                }
            }
            Verdict::Canceled { .. } | Verdict::Superseded { .. } | Verdict::TimedOut | Verdict::Error { .. } => {}
        }
        if run.status() == RunStatus::Succeeded && run.error_message().is_some() {
            say("it succeeded with an error".to_owned());
        }
    }

    /// Acknowledged frames are there, once, in order, before their attempt's end; a lost attempt is followed by a gap.
    fn judge_log(&self, run: &Run, say: &mut impl FnMut(String)) {
        let Some(log) = self.store.logs.get(&run.id).filter(|log| log.complete) else {
            return say("promise 5: the log is not complete".to_owned());
        };
        let mut frames: BTreeMap<AttemptNumber, u64> = BTreeMap::new();
        let mut over = BTreeSet::new();
        for entry in &log.entries {
            match entry {
                Entry::Frame(attempt, sequence) => {
                    let last = frames.entry(*attempt).or_default();
                    if *sequence != *last + 1 || over.contains(attempt) {
                        say(format!("promise 5: frame {sequence} of attempt {attempt} is out of order"));
                    }
                    *last = *sequence;
                }
                Entry::AttemptEnded(attempt) => {
                    over.insert(*attempt);
                }
                Entry::Line | Entry::Gap => {}
            }
        }
        for ((id, attempt), sequence) in &self.oracle.acknowledged {
            if *id == run.id && frames.get(attempt).copied().unwrap_or(0) < *sequence {
                say(format!("promise 5: frames of attempt {attempt} were acknowledged and are gone"));
            }
        }
        let gaps = log.entries.iter().filter(|entry| **entry == Entry::Gap).count();
        if gaps < run.losses.len() {
            say("promise 5: a loss is not shown".to_owned());
        }
    }
}
