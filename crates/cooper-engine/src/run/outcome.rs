//! How results, losses and early ends are worked into a run. Called by `apply` only, after it has checked the event.

use std::time::Duration;

use cooper_spec::plan::{CommandImage, CommandWork, PlannedStep, PushWork, PushedName, Work};
use cooper_types::{Access, AttemptNumber, Digest, ImageRef, StepId, Tag, Timestamp};

use super::task::PlannedRun;
use super::{
    AgentRef, Effect, Loss, PendingReason, Phase, Placement, Policy, Refusal, Run, RunSource, StepState, TagTarget,
    Verdict,
};
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
                let reason = format!("timed out after {} s", planned.timeout.as_secs());
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
        let PlannedStep { placement, id, .. } = &self.plan.steps[step];
        let (placement, id) = (*placement, id.clone());
        let is_wanted = matches!(&self.source, Some(RunSource::TaskWanted { location, .. }) if found.is_of(location));
        if !is_wanted || !matches!(self.plan.steps[step].work, Work::Prepare(_)) {
            self.lose(placement, "the agent reported a result of another kind of step", now, policy, effects);
            return;
        }
        let started = self.steps[step].state.began().unwrap_or(now);
        let planning = self.take_plan(step, attempt, &found, planned, effects);
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
    #[expect(clippy::too_many_arguments, reason = "what a failure is made of, told by its two callers")]
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

    /// The tags that an attempt pushes images of the embedded registry under, and what each stands for: one for each
    /// repository and image.
    ///
    /// They are unique to the attempt, so that two runs of one image name never meet in an engine's local names.
    pub fn tag_targets(&self, step: usize, attempt: AttemptNumber) -> Vec<TagTarget> {
        let Work::Push(push) = &self.plan.steps[step].work else { return Vec::new() };
        let mut targets: Vec<TagTarget> = Vec::new();
        for PushedName { image, from } in &push.names {
            if image.registry.as_ref() != Some(&self.registry) {
                continue;
            }
            let tags = if push.is_stage { Vec::new() } else { vec![image.tag.clone().unwrap_or_else(Tag::latest)] };
            let same = |target: &&mut TagTarget| target.repository == image.repository && target.from == *from;
            if let Some(target) = targets.iter_mut().find(same) {
                target.tags.extend(tags);
                continue;
            }
            let others = targets.iter().filter(|target| target.repository == image.repository).count();
            let staging_tag = match others {
                0 => format!("staged.{}.{attempt}", self.id),
                others => format!("staged.{}.{attempt}.{others}", self.id),
            };
            let staging_tag = Tag::parse(&staging_tag).expect("a run id and numbers with dots between make a tag");
            targets.push(TagTarget {
                repository: image.repository.clone(),
                from: from.clone(),
                staging_tag,
                tags,
                digest: None,
            });
        }
        targets
    }

    /// Where a build's cache is kept in the embedded registry, if the run may write there.
    pub fn own_cache(&self, step: usize) -> Option<&ImageRef> {
        let Work::Build(build) = &self.plan.steps[step].work else { return None };
        let cache = build.cache.as_ref().filter(|cache| cache.registry.as_ref() == Some(&self.registry));
        cache.filter(|cache| self.scopes.repository(&cache.repository, Access::Push))
    }

    /// Whether what an attempt staged stays when it ends: it was a stage, and did its work.
    pub fn keeps_staged(&self, step: usize, attempt: AttemptNumber) -> bool {
        let is_stage = matches!(&self.plan.steps[step].work, Work::Push(push) if push.is_stage);
        is_stage && matches!(&self.steps[step].state, StepState::Succeeded { attempt: done, .. } if *done == attempt)
    }

    /// Where a stage left an image that is to be found at `place`, by its digest.
    pub fn staged_image(&self, stage: usize, place: &ImageRef) -> Option<ImageRef> {
        let StepState::Succeeded { output: StepOutput::Pushed { manifests }, .. } = &self.steps.get(stage)?.state
        else {
            return None;
        };
        let digest = self.pushed_manifest(manifests, place)?.digest.clone();
        Some(ImageRef { tag: None, digest: Some(digest), ..place.clone() })
    }

    /// What was pushed to an image's repository.
    fn pushed_manifest<'m>(&self, manifests: &'m [PushedManifest], image: &ImageRef) -> Option<&'m PushedManifest> {
        let outside = image.registry.as_ref().filter(|registry| **registry != self.registry);
        let is_there = |manifest: &&PushedManifest| {
            manifest.repository == image.repository && manifest.registry.as_ref() == outside
        };
        manifests.iter().find(is_there)
    }

    /// Something of the machinery failed under a held placement: it starts again, until there were too many losses.
    pub(super) fn lose(
        &mut self,
        placement: usize,
        reason: &str,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        let Some(lease) = self.placements[placement].lease().cloned() else { return };
        let agent = lease.agent.name.clone();
        self.losses.push(Loss { at: now, placement, agent: agent.clone(), reason: reason.to_owned() });
        let count = self.losses.iter().filter(|loss| loss.placement == placement).count();
        effects.push(Effect::LogGap(format!(
            "agent {agent} lost the run ({reason}); loss {count} of {}: output may be missing here",
            policy.max_losses
        )));
        // Who uses something comes behind it: whether it is done again is known first.
        for index in (0..self.steps.len()).rev() {
            if self.plan.steps[index].placement != placement {
                continue;
            }
            if let StepState::Running { attempt, .. } = &self.steps[index].state {
                effects.push(Effect::AttemptEnded { step: index, attempt: *attempt });
            }
            if self.is_done_again(index) {
                self.steps[index].state = StepState::Waiting;
                self.set_back_stages(index);
            }
        }
        let key = PlacementKey { run: self.id, fence: lease.fence };
        effects.push(Effect::SendStop { agent: lease.agent, key });
        let reason = PendingReason::Lost { agent, why: reason.to_owned() };
        self.placements[placement] = Placement::Waiting { reason };
        if count >= policy.max_losses {
            let story: Vec<String> =
                self.losses.iter().map(|loss| format!("{} on {} at {}", loss.reason, loss.agent, loss.at)).collect();
            let reason = format!("lost {} times: {}", story.len(), story.join("; "));
            self.end_early(Verdict::Error { reason }, now, policy, effects);
        }
    }

    /// Whether a step of a placement that is lost has to be done again. Images and workspaces are on the lost agent.
    ///
    /// Pushes that completed are not repeated, nor is the source prepared anew: the server has it, and another clone may find
    /// another commit. An image that nobody is going to use any more is not built again: that could only fail.
    fn is_done_again(&self, step: usize) -> bool {
        let is_wanted = || self.users(step).any(|user| self.steps[user].state == StepState::Waiting);
        match (&self.steps[step].state, &self.plan.steps[step].work) {
            (StepState::Running { .. }, _) => true,
            (StepState::Succeeded { .. } | StepState::Failed { ignored: true, .. }, Work::Command(_)) => true,
            (StepState::Succeeded { .. } | StepState::Failed { ignored: true, .. }, Work::Build(_)) => is_wanted(),
            (StepState::Failed { ignored: true, .. }, Work::Push(push)) => push.is_stage && is_wanted(),
            (StepState::Succeeded { .. }, Work::Push(_) | Work::Prepare(_))
            | (StepState::Failed { ignored: true, .. }, Work::Prepare(_))
            | (
                StepState::Waiting
                | StepState::Failed { ignored: false, .. }
                | StepState::Cancelled { .. }
                | StepState::Skipped,
                _,
            ) => false,
        }
    }

    /// Sets back the stages of a build that is done again, for those who have not taken from them yet: what they push has
    /// to be what the run's other steps see from now on.
    fn set_back_stages(&mut self, build: usize) {
        let is_stage = |user: &usize| matches!(&self.plan.steps[*user].work, Work::Push(push) if push.is_stage);
        let is_wanted = |stage: &usize| self.users(*stage).any(|user| self.steps[user].state == StepState::Waiting);
        let stages: Vec<usize> = self.users(build).filter(is_stage).filter(is_wanted).collect();
        for stage in stages {
            if self.steps[stage].state.lets_go_on() {
                self.steps[stage].state = StepState::Waiting;
            }
        }
    }

    /// The steps that use what a step made.
    fn users(&self, step: usize) -> impl Iterator<Item = usize> {
        let later = self.plan.steps.iter().enumerate().skip(step + 1);
        later.filter(move |(_, planned)| planned.uses().contains(&step)).map(|(index, _)| index)
    }

    /// The agent of a placement is gone, in whatever state the placement is.
    pub(super) fn lease_lost(
        &mut self,
        placement: usize,
        reason: &str,
        now: Timestamp,
        policy: &Policy,
        effects: &mut Vec<Effect>,
    ) {
        match &self.placements[placement] {
            Placement::Offered(lease) => {
                let key = PlacementKey { run: self.id, fence: lease.fence };
                effects.push(Effect::SendStop { agent: lease.agent.clone(), key });
                let reason = PendingReason::NoAnswer { agent: lease.agent.name.clone() };
                self.placements[placement] = Placement::Waiting { reason };
            }
            Placement::Accepted(_) | Placement::Running(_) => self.lose(placement, reason, now, policy, effects),
            Placement::Stopping(_) => {
                effects.push(Effect::LogGap(format!("{reason} while it was stopping: output may be missing here")));
                self.placement_gone(placement, now, effects);
            }
            Placement::Waiting { .. } | Placement::Done => {}
        }
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

/// Whether an agent speaks of what it was told to push there.
fn is_of(manifest: &PushedManifest, target: &TagTarget) -> bool {
    manifest.registry.is_none()
        && manifest.repository == target.repository
        && manifest.staging_tag == target.staging_tag
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
