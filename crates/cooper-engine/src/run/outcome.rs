//! How results and early ends are worked into a run. Called by `apply` only, after it has checked the event.

use std::time::Duration;

use cooper_spec::plan::{CommandImage, CommandWork, PlannedStep, PushWork, PushedName, Work};
use cooper_types::{AttemptNumber, Digest, ImageRef, StepId, Timestamp};

use super::image::is_of;
use super::task::PlannedRun;
use super::{AgentRef, Effect, Phase, Placement, Policy, Refusal, Run, RunSource, StepState, TagTarget, Verdict};
use crate::message::{BaseImage, PlacementKey, PreparedSource, PushedManifest, Resolved, StepOutput, StepResult};

/// What is said when a step begins, in ACR's words (contract §5.3), and where.
fn executing(planned: &PlannedStep, agent: &AgentRef) -> String {
    let place = match &planned.work {
        Work::Command(command) => {
            let folder = command.working_directory.as_deref().unwrap_or_default();
            let network = command.network.as_deref().unwrap_or_default();
            format!(", Working directory: '{folder}', Network: '{network}'")
        }
        // What runs in no container has neither.
        Work::Prepare(_) | Work::Build(_) | Work::Push(_) => String::new(),
    };
    let timeout = planned.timeout.as_secs();
    format!("Executing step ID: {}. Timeout(sec): {timeout}{place}, Agent: '{agent}'", planned.id)
}

/// What is pinned is asked for by its digest, and recorded under the name that it was pinned for.
fn name_as_written(command: &CommandWork, image: &mut BaseImage) {
    if let CommandImage::Pinned { name, .. } = &command.image {
        image.reference.clone_from(name);
    }
}

impl Run {
    /// Starts every step that waits for nothing any more, on the placements that an agent holds.
    fn release_ready(&mut self, now: Timestamp, policy: &Policy, effects: &mut Vec<Effect>) {
        if self.phase != Phase::Live {
            return;
        }
        for index in 0..self.steps.len() {
            let planned = &self.plan.steps[index];
            let lease = match &self.placements[planned.placement] {
                Placement::Accepted(lease) | Placement::Running(lease) => lease,
                Placement::Waiting { .. } | Placement::Offered(_) | Placement::Stopping(_) | Placement::Done => {
                    continue;
                }
            };
            if self.steps[index].state != StepState::Waiting || !self.can_begin(planned) {
                continue;
            }
            self.last_attempt.0 += 1;
            let attempt = self.last_attempt;
            let key = PlacementKey { run: self.id, fence: lease.fence };
            effects.push(Effect::LogLine(executing(planned, &lease.agent)));
            effects.push(Effect::AttemptBegan { step: index, attempt, fence: lease.fence });
            effects.push(Effect::SendStart { agent: lease.agent.clone(), key, attempt, step: index });
            self.steps[index].agent = Some(lease.agent.name.clone());
            self.steps[index].attempts += 1;
            self.steps[index].tries = 0;
            let deadline = now.after(self.patience(planned, policy));
            self.steps[index].state = StepState::Running { attempt, released: now, started: None, deadline };
        }
    }

    /// How long the server waits for a step from when its agent has it: its timeout begins when its delay and the
    /// placement's set-up are over. The agent enforces the timeout; this is for one that does not.
    pub fn patience(&self, planned: &PlannedStep, policy: &Policy) -> Duration {
        let set_up = match &self.plan.placements[planned.placement].environment {
            Some(_) => policy.set_up,
            None => Duration::ZERO,
        };
        planned.tries.start_delay + set_up + planned.timeout + policy.step_grace
    }

    /// What an attempt resolved is known before its end, which may be a failure.
    pub(super) fn resolved(
        &mut self,
        step: usize,
        resolved: Resolved,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let Resolved { mut bases, context, tries } = resolved;
        let planned = &self.plan.steps[step];
        match &planned.work {
            Work::Build(_) => {}
            Work::Command(command) => bases.iter_mut().for_each(|image| name_as_written(command, image)),
            Work::Push(_) | Work::Prepare(_) => return Err(Refusal::NothingToDo),
        }
        let is_news = tries > self.steps[step].tries;
        if bases.is_empty() && context.is_none() && !is_news {
            return Err(Refusal::NothingToDo);
        }
        if is_news {
            self.steps[step].tries = tries;
        }
        if let Some(context) = context {
            self.provenance.contexts.insert(planned.id.clone(), context);
        }
        if !bases.is_empty() {
            effects.push(Effect::BasesResolved { step, bases });
        }
        Ok(())
    }

    pub(super) fn step_ended(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        result: StepResult,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase != Phase::Live {
            // The run was decided before: whatever the attempt still did has no effect.
            self.cancel_step(step, now, effects);
            return;
        }
        let planned = &self.plan.steps[step];
        let started = self.steps[step].state.began().unwrap_or(now);
        match result {
            StepResult::Succeeded { output } => {
                let fits = match (&planned.work, &output) {
                    (Work::Prepare(_), StepOutput::Prepared(found)) => match &self.source {
                        Some(RunSource::Wanted { location, .. }) => found.is_of(location),
                        // A task file's source is planned before the state machine hears of it.
                        Some(RunSource::TaskWanted { .. } | RunSource::Prepared { .. }) | None => false,
                    },
                    // Others name what a stage left by its digest, so it has to say them all.
                    (Work::Push(push), StepOutput::Pushed { manifests }) if push.is_stage => {
                        let outside = |name: &PushedName| name.image.registry.as_ref() != Some(&self.registry);
                        let told = |name: &PushedName| self.pushed_manifest(manifests, &name.image).is_some();
                        let left = |target: &TagTarget| manifests.iter().any(|manifest| is_of(manifest, target));
                        push.names.iter().filter(|name| outside(name)).all(told)
                            && self.tag_targets(step, attempt).iter().all(left)
                    }
                    (Work::Build(_), StepOutput::Built { .. })
                    | (Work::Push(_), StepOutput::Pushed { .. })
                    | (Work::Command(_), StepOutput::Ran { .. }) => true,
                    (
                        Work::Prepare(_) | Work::Build(_) | Work::Push(_) | Work::Command(_),
                        StepOutput::Prepared(_)
                        | StepOutput::Built { .. }
                        | StepOutput::Pushed { .. }
                        | StepOutput::Ran { .. },
                    ) => false,
                };
                if !fits {
                    let reason = "the agent reported a result of another kind of step";
                    self.lose(planned.placement, reason, now, policy, effects);
                    return;
                }
                let id = planned.id.clone();
                let mut planning = Ok(());
                let mut output = output;
                if let (Work::Command(command), StepOutput::Ran { image: Some(image) }) = (&planned.work, &mut output) {
                    name_as_written(command, image);
                }
                match &mut output {
                    StepOutput::Prepared(found) => {
                        planning = self.plan_source(step, attempt, found, effects);
                        *found = found.recorded();
                    }
                    StepOutput::Built { bases, .. } => {
                        effects.push(Effect::BasesResolved { step, bases: bases.clone() });
                        if let Some(ImageRef { repository, tag: Some(tag), .. }) = self.own_cache(step) {
                            let (repository, tag) = (repository.clone(), tag.clone());
                            effects.push(Effect::KeepCache { step, attempt, repository, tag });
                        }
                    }
                    StepOutput::Pushed { manifests } => {
                        let mut targets = self.tag_targets(step, attempt);
                        effects.push(match &self.plan.steps[step].work {
                            Work::Push(PushWork { is_stage: true, .. }) => {
                                // What it was not told to leave there, nobody is told to take.
                                let is_known = |manifest: &PushedManifest| {
                                    manifest.registry.is_some() || targets.iter().any(|target| is_of(manifest, target))
                                };
                                manifests.retain(is_known);
                                for target in &mut targets {
                                    let said = manifests.iter().find(|manifest| is_of(manifest, target));
                                    target.digest = said.map(|manifest| manifest.digest.clone());
                                }
                                Effect::KeepStaged { step, attempt, targets }
                            }
                            _ => Effect::PublishTags { step, attempt, targets },
                        });
                    }
                    StepOutput::Ran { image } => {
                        let bases = image.iter().cloned().collect();
                        effects.push(Effect::BasesResolved { step, bases });
                    }
                }
                self.succeed(step, attempt, &id, started, output, now, effects);
                match planning {
                    Ok(()) => self.go_on(now, policy, effects),
                    Err(reason) => self.end_early(Verdict::Failed { reason }, now, policy, effects),
                }
            }
            StepResult::Failed { exit_code, reason } => {
                let reason = with_way_out(&planned.work, reason);
                self.step_failed(step, attempt, started, exit_code, reason, now, policy, effects);
            }
            StepResult::TimedOut => {
                let reason = timed_out(planned);
                self.step_failed(step, attempt, started, None, reason, now, policy, effects);
            }
            StepResult::Lost { reason } => self.lose(planned.placement, &reason, now, policy, effects),
        }
    }

    /// The source of a task file is there.
    #[expect(clippy::too_many_arguments, reason = "what a planning is made of, told by its one caller")]
    pub(super) fn source_planned(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        found: PreparedSource,
        planned: Result<PlannedRun, String>,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase != Phase::Live {
            self.cancel_step(step, now, effects);
            return;
        }
        let placement = self.plan.steps[step].placement;
        let is_wanted = matches!(&self.source, Some(RunSource::TaskWanted { location, .. }) if found.is_of(location));
        if !is_wanted || !matches!(self.plan.steps[step].work, Work::Prepare(_)) {
            self.lose(placement, "the agent reported a result of another kind of step", now, policy, effects);
            return;
        }
        let started = self.steps[step].state.began().unwrap_or(now);
        let planning = self.take_plan(step, attempt, &found, planned, effects);
        let id = self.plan.steps[step].id.clone();
        self.succeed(step, attempt, &id, started, StepOutput::Prepared(found.recorded()), now, effects);
        match planning {
            Ok(()) => self.go_on(now, policy, effects),
            Err(reason) => self.end_early(Verdict::Failed { reason }, now, policy, effects),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a success is made of, told by its two callers")]
    fn succeed(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        id: &StepId,
        started: Timestamp,
        output: StepOutput,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::AttemptEnded { step, attempt });
        effects.push(Effect::LogLine(format!(
            "Step ID: {id} marked as successful (elapsed time in seconds: {:.3})",
            now.since(started).as_secs_f64()
        )));
        self.steps[step].state = StepState::Succeeded { attempt, started, finished: now, output };
    }

    /// The user's work failed: that ends the run, unless the file says that it does not matter.
    #[expect(clippy::too_many_arguments, reason = "what a failure is made of, told by its callers")]
    fn step_failed(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        started: Timestamp,
        exit_code: Option<i32>,
        reason: String,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::AttemptEnded { step, attempt });
        let planned = &self.plan.steps[step];
        let (id, ignored) = (&planned.id, planned.ignore_errors);
        let verdict = Verdict::Failed { reason: format!("failed to run step ID: {id}: {reason}") };
        if ignored {
            effects.push(Effect::LogLine(format!(
                "Step ID: {id} encountered an error: {reason}, but is set to ignore errors. Continuing..."
            )));
        }
        self.steps[step].state = StepState::Failed { attempt, started, finished: now, exit_code, reason, ignored };
        if ignored {
            self.go_on(now, policy, effects);
        } else {
            self.end_early(verdict, now, policy, effects);
        }
    }

    /// Fails a step whose errors don't matter and whose agent does not end it. Others of its placement may begin now: the
    /// agent is to stop it before.
    pub(super) fn give_up(&mut self, step: usize, now: Timestamp, policy: &Policy, effects: &mut Vec<Effect>) {
        let planned = &self.plan.steps[step];
        let StepState::Running { attempt, released, started, .. } = self.steps[step].state else { return };
        if let Some(lease) = self.placements[planned.placement].lease() {
            let key = PlacementKey { run: self.id, fence: lease.fence };
            effects.push(Effect::SendResultStored { agent: lease.agent.clone(), key, attempt });
        }
        let reason = timed_out(planned);
        self.step_failed(step, attempt, started.unwrap_or(released), None, reason, now, policy, effects);
    }

    /// Decides the run before its steps are through: nothing new starts, agents are told to stop.
    pub(super) fn end_early(&mut self, verdict: Verdict, now: Timestamp, policy: &Policy, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ending { verdict };
        for step in &mut self.steps {
            if step.state == StepState::Waiting {
                step.state = StepState::Skipped;
            }
        }
        for index in 0..self.placements.len() {
            let busy = self.has_running_step(index);
            let next = match &self.placements[index] {
                Placement::Waiting { .. } | Placement::Done => Placement::Done,
                Placement::Offered(lease)
                | Placement::Accepted(lease)
                | Placement::Running(lease)
                | Placement::Stopping(lease) => {
                    let key = PlacementKey { run: self.id, fence: lease.fence };
                    effects.push(Effect::SendStop { agent: lease.agent.clone(), key });
                    let mut lease = lease.clone();
                    lease.until = now.after(policy.lease);
                    if busy { Placement::Stopping(lease) } else { Placement::Done }
                }
            };
            self.placements[index] = next;
        }
        self.finish_if_done(now, effects);
    }

    /// A stopping placement has ended, one way or the other.
    pub(super) fn placement_gone(&mut self, placement: usize, now: Timestamp, effects: &mut Vec<Effect>) {
        for index in 0..self.steps.len() {
            if self.plan.steps[index].placement == placement {
                self.cancel_step(index, now, effects);
            }
        }
        self.placements[placement] = Placement::Done;
        self.finish_if_done(now, effects);
    }

    fn cancel_step(&mut self, step: usize, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(attempt) = self.steps[step].state.live_attempt() else { return };
        let started = self.steps[step].state.began().unwrap_or(now);
        effects.push(Effect::AttemptEnded { step, attempt });
        self.steps[step].state = StepState::Cancelled { attempt, started, finished: now };
    }

    /// Starts what can start, lets go of placements that are through, and ends the run when it is.
    pub(super) fn go_on(&mut self, now: Timestamp, policy: &Policy, effects: &mut Vec<Effect>) {
        self.release_ready(now, policy, effects);
        let done = |index: &usize| self.steps[*index].state.lets_go_on();
        for placement in 0..self.placements.len() {
            let mut own = (0..self.steps.len()).filter(|index| self.plan.steps[*index].placement == placement);
            if !own.all(|index| done(&index)) {
                continue;
            }
            if let Some(lease) = self.placements[placement].lease() {
                let key = PlacementKey { run: self.id, fence: lease.fence };
                effects.push(Effect::SendStop { agent: lease.agent.clone(), key });
                self.placements[placement] = Placement::Done;
            }
        }
        if (0..self.steps.len()).all(|index| done(&index)) {
            // A placement that no step needs may still wait.
            self.placements.fill(Placement::Done);
            self.phase = Phase::Ending { verdict: Verdict::Succeeded };
            self.finish_if_done(now, effects);
        }
    }

    fn finish_if_done(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let Phase::Ending { verdict } = &self.phase else { return };
        if self.placements.iter().any(|placement| *placement != Placement::Done) {
            return;
        }
        self.phase = Phase::Finished { verdict: verdict.clone(), at: now };
        self.forget_queries();
        effects.push(Effect::LogLine(self.closing_line(now)));
        effects.push(Effect::Finished);
    }

    fn has_running_step(&self, placement: usize) -> bool {
        self.steps
            .iter()
            .zip(&self.plan.steps)
            .any(|(step, planned)| planned.placement == placement && step.state.live_attempt().is_some())
    }
}

fn timed_out(planned: &PlannedStep) -> String {
    format!("timed out after {} s", planned.timeout.as_secs())
}

/// A failure's reason; where it tells of an image that is pinned, with what can be done about that.
fn with_way_out(work: &Work, reason: String) -> String {
    let tells = |digest: &Digest| reason.contains(digest.as_str());
    let pinned = match work {
        Work::Build(build) => build.pinned.iter().any(|(_, digest)| tells(digest)),
        Work::Command(CommandWork { image: CommandImage::Pinned { digest, .. }, .. }) => tells(digest),
        Work::Command(_) | Work::Push(_) | Work::Prepare(_) => false,
    };
    match pinned {
        true => format!("{reason} (an earlier run had this digest: rerun it with --fresh to take what is there now)"),
        false => reason,
    }
}
