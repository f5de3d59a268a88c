//! A run under watch: every event is applied through here, and everything that must hold is looked at after it.

use std::collections::{BTreeMap, BTreeSet};

use cooper_engine::message::{Held, PlacementKey, StepOutput, StepResult};
use cooper_engine::run::{Effect, Phase, Placement, Policy, Refusal, Run, RunEvent, RunStatus, StepState, Verdict};
use cooper_spec::plan::{BuildContext, PushedFrom, Work};
use cooper_types::{AttemptNumber, Fence, ImageRef, Timestamp};

use super::fixture::{SHARED, manifest_of};
use super::generate::is_held;

/// A run and what has been seen of it.
pub(super) struct Watched {
    pub(super) run: Run,
    live: BTreeMap<usize, AttemptNumber>,
    published: BTreeMap<usize, AttemptNumber>,
    /// What stages have left.
    staged: BTreeSet<usize>,
    /// Stages that somebody has taken from.
    taken: BTreeSet<usize>,
    planned: bool,
    finished: bool,
}

impl Watched {
    pub(super) fn new(run: Run) -> Self {
        let (live, published) = (BTreeMap::new(), BTreeMap::new());
        let (staged, taken) = (BTreeSet::new(), BTreeSet::new());
        Self { run, live, published, staged, taken, planned: false, finished: false }
    }

    /// Applies an event and checks what must hold.
    pub(super) fn apply(&mut self, event: RunEvent, now: Timestamp) -> Result<(), Refusal> {
        let before = self.run.clone();
        let result = self.run.apply(event.clone(), now, &Policy::DEFAULT);
        let effects = match result {
            Err(refusal) => {
                assert_eq!(self.run, before, "a refused event ({refusal}) changed the run");
                return Err(refusal);
            }
            Ok(effects) => effects,
        };
        assert_eq!(before.finished(), None, "a finished run took {event:?}");
        self.numbers_grow(&before, &effects);
        for effect in &effects {
            self.effect(&before, effect);
        }
        self.attempts_are_held();
        for stage in self.staged.clone() {
            if self.run.staged_image(stage, &shared()).is_none() {
                let lost = self.run.losses.len() > before.losses.len();
                assert!(lost, "what was staged is forgotten, and nothing was lost");
                self.staged.remove(&stage);
                self.taken.remove(&stage);
            }
        }
        assert_eq!(
            (self.run.steps.len(), self.run.placements.len()),
            (self.run.plan.steps.len(), self.run.plan.placements.len())
        );
        if !self.planned {
            assert_eq!(self.run.plan, before.plan, "a plan changed and nobody said so");
        }
        verdicts_stand(&before, &self.run, &event);
        assert!(rank(self.run.status()) >= rank(before.status()), "{} after {}", self.run.status(), before.status());
        assert_eq!(self.run.finished().is_some(), self.finished, "`Finished` is said once, with the state");
        let text = serde_json::to_string(&self.run).expect("a run can be written down");
        assert_eq!(serde_json::from_str::<Run>(&text).expect("and read again"), self.run);
        self.reminders_fit();
        if self.finished {
            self.nothing_is_left();
        }
        Ok(())
    }

    fn numbers_grow(&self, before: &Run, effects: &[Effect]) {
        let offers = effects.iter().filter(|effect| matches!(effect, Effect::SendOffer { .. })).count() as u64;
        let began = effects.iter().filter(|effect| matches!(effect, Effect::AttemptBegan { .. })).count() as u64;
        assert_eq!(self.run.last_fence.0, before.last_fence.0 + offers);
        assert_eq!(self.run.last_attempt.0, before.last_attempt.0 + began);
    }

    fn effect(&mut self, before: &Run, effect: &Effect) {
        assert!(!self.finished, "{effect:?} after the end");
        match effect {
            Effect::AttemptBegan { step, attempt, fence } => {
                assert_eq!(self.live.insert(*step, *attempt), None, "a second live attempt at step {step}");
                assert!(*attempt > before.last_attempt);
                let placement = &self.run.placements[self.run.plan.steps[*step].placement];
                assert_eq!(placement.lease().map(|lease| lease.fence), Some(*fence));
                assert!(self.run.plan.steps[*step].after.iter().all(|earlier| is_done(&self.run, *earlier)));
                for used in self.run.plan.steps[*step].uses() {
                    assert!(is_done(&self.run, used), "step {step} begins without what step {used} makes");
                    self.first_taker_has_the_image_of_now(used);
                }
                if let Work::Push(push) = &self.run.plan.steps[*step].work {
                    let taken = push.names.iter().filter(|name| !matches!(name.from, PushedFrom::Built(_)));
                    for name in taken {
                        for stage in name.from.steps() {
                            let left = self.run.staged_image(stage, &name.image);
                            let ignored = self.run.plan.steps[stage].ignore_errors;
                            assert!(left.is_some() || ignored, "step {step} begins without what was staged");
                        }
                    }
                }
            }
            Effect::AttemptEnded { step, attempt } => {
                assert_eq!(self.live.remove(step), Some(*attempt), "an end without a beginning");
            }
            Effect::PublishTags { step, attempt, targets } => {
                assert_eq!(self.live.get(step), Some(attempt), "an attempt that is not live publishes");
                assert_eq!(*targets, self.run.tag_targets(*step, *attempt));
                assert_eq!(self.published.insert(*step, *attempt), None, "step {step} publishes twice");
                assert_eq!(before.phase, Phase::Live, "a decided run publishes");
            }
            Effect::KeepStaged { step, attempt, targets } => {
                assert_eq!(self.live.get(step), Some(attempt), "an attempt that is not live stages");
                let mut expect = self.run.tag_targets(*step, *attempt);
                for target in &mut expect {
                    target.digest = self.run.staged_image(*step, &shared()).and_then(|image| image.digest);
                    assert!(target.digest.is_some(), "step {step} leaves nothing that has a name");
                }
                assert_eq!(*targets, expect);
                assert!(targets.iter().all(|target| target.tags.is_empty()), "a stage gives a tag");
                assert!(self.run.keeps_staged(*step, *attempt), "what step {step} staged is dropped");
                self.staged.insert(*step);
            }
            Effect::Planned { step, attempt, context, .. } => {
                assert!(!std::mem::replace(&mut self.planned, true), "a run is planned twice");
                assert_eq!(self.live.get(step), Some(attempt), "an attempt that is not live has the run planned");
                assert_eq!(before.phase, Phase::Live, "a decided run is planned");
                assert_eq!(self.run.plan.steps[..before.steps.len()], before.plan.steps[..], "an earlier step changed");
                let builds = self.run.plan.steps.iter().filter_map(|step| match &step.work {
                    Work::Build(build) => Some(&build.context),
                    Work::Prepare(_) | Work::Push(_) | Work::Command(_) => None,
                });
                assert!(builds.eq([&BuildContext::Uploaded(context.clone())]), "the build is of another context");
            }
            Effect::SendStart { agent, key, attempt, step } => {
                assert_eq!(self.live.get(step), Some(attempt), "an attempt is sent before it is live");
                let lease = self.run.placements[self.run.plan.steps[*step].placement].lease();
                assert!(lease.is_some_and(|lease| lease.agent == *agent && lease.fence == key.fence));
            }
            Effect::SendResultStored { agent, key, attempt } => {
                let lives = self.run.steps.iter().any(|step| step.state.live_attempt() == Some(*attempt));
                assert!(!lives, "attempt {attempt} is live and given up");
                let lease = |placement: &Placement| placement.lease().cloned();
                let held = before.placements.iter().filter_map(lease).find(|lease| lease.fence == key.fence);
                assert!(held.is_some_and(|lease| lease.agent == *agent), "it is told to another agent");
            }
            Effect::SendStop { key, .. } => assert!(key.fence <= self.run.last_fence),
            Effect::SendOffer { agent, key, placement } => {
                assert!(key.fence > before.last_fence);
                assert!(matches!(&self.run.placements[*placement], Placement::Offered(lease) if lease.agent == *agent));
            }
            Effect::Finished => self.finished = true,
            Effect::BasesResolved { .. }
            | Effect::KeepCache { .. }
            | Effect::KeepSecrets(_)
            | Effect::KeepTexts(_)
            | Effect::LogLine(_)
            | Effect::LogGap(_) => {}
        }
    }

    /// Who takes from a stage first takes the image that its run's other steps see: what is pushed is what was tested.
    fn first_taker_has_the_image_of_now(&mut self, stage: usize) {
        let Work::Push(push) = &self.run.plan.steps[stage].work else { return };
        let PushedFrom::Built(build) = push.names[0].from else { return };
        let left = self.run.staged_image(stage, &shared()).and_then(|image| image.digest);
        if let (Some(left), Some(now)) = (left, manifest_of(&self.run, build))
            && self.taken.insert(stage)
        {
            assert_eq!(left, now, "step {stage} left another image than step {build} has built");
        }
    }

    fn attempts_are_held(&self) {
        let live =
            self.run.steps.iter().enumerate().filter_map(|(index, step)| Some((index, step.state.live_attempt()?)));
        let live: BTreeMap<usize, AttemptNumber> = live.collect();
        assert_eq!(live, self.live, "effects and state disagree on what is live");
        for step in live.keys() {
            assert!(is_held(&self.run.placements[self.run.plan.steps[*step].placement]), "step {step} runs nowhere");
        }
        let fences: Vec<Fence> =
            self.run.placements.iter().filter_map(Placement::lease).map(|lease| lease.fence).collect();
        assert_eq!(fences.iter().collect::<BTreeSet<_>>().len(), fences.len(), "one offer, two placements");
    }

    /// Whatever an agent says that it holds, it is told to stop exactly what is not its own, and to start what is live.
    fn reminders_fit(&self) {
        let key = |fence| PlacementKey { run: self.run.id, fence: Fence(fence) };
        let held = |attempts: Vec<AttemptNumber>| -> Vec<Held> {
            let fences = 0..=self.run.last_fence.0 + 1;
            fences.map(|fence| Held { key: key(fence), attempts: attempts.clone() }).collect()
        };
        let (none, all) = (held(Vec::new()), held((0..=self.run.last_attempt.0 + 1).map(AttemptNumber).collect()));
        for lease in self.run.placements.iter().filter_map(Placement::lease) {
            let own = |key: &PlacementKey| {
                self.run.placements.iter().any(|placement| match placement {
                    Placement::Offered(l) | Placement::Accepted(l) | Placement::Running(l) => {
                        l.fence == key.fence && l.agent == lease.agent
                    }
                    _ => false,
                })
            };
            for effect in [&none[..], &all, &[]].iter().flat_map(|held| self.run.remind(&lease.agent, held)) {
                match &effect {
                    Effect::SendStop { key, .. } => assert!(!own(key), "a live placement is stopped"),
                    Effect::SendStart { key, attempt, step, .. } => {
                        assert!(own(key) && self.live.get(step) == Some(attempt));
                    }
                    Effect::SendResultStored { key, attempt, .. } => {
                        let is_there = |step: &usize| {
                            let placement = &self.run.placements[self.run.plan.steps[*step].placement];
                            placement.lease().is_some_and(|lease| lease.fence == key.fence)
                        };
                        let lives = self.live.iter().any(|(step, live)| live == attempt && is_there(step));
                        assert!(own(key) && !lives, "a live attempt is given up");
                    }
                    Effect::SendOffer { key, .. } => assert!(own(key)),
                    other => panic!("a reminder changes nothing, and says {other:?}"),
                }
            }
        }
    }

    fn nothing_is_left(&self) {
        assert!(self.live.is_empty(), "an attempt outlives its run");
        assert!(self.run.placements.iter().all(|placement| *placement == Placement::Done));
        for (index, step) in self.run.steps.iter().enumerate() {
            assert!(!matches!(step.state, StepState::Waiting | StepState::Running { .. }), "step {index} is not over");
            if let (StepState::Succeeded { .. }, Work::Push(push)) = (&step.state, &self.run.plan.steps[index].work)
                && push.is_stage
            {
                assert!(self.staged.contains(&index), "step {index} succeeded and left nothing");
            } else if let (StepState::Succeeded { attempt, .. }, Work::Push(_)) =
                (&step.state, &self.run.plan.steps[index].work)
            {
                assert_eq!(self.published.get(&index), Some(attempt), "step {index} succeeded and did not publish");
            }
        }
        if self.run.status() == RunStatus::Succeeded {
            assert!((0..self.run.steps.len()).all(|step| is_done(&self.run, step)));
        } else {
            assert!(self.run.error_message().is_some_and(|message| !message.is_empty() && !message.contains('\n')));
        }
    }
}

/// Whether a step succeeded, or failed and its file says that this does not matter.
fn is_done(run: &Run, step: usize) -> bool {
    match &run.steps[step].state {
        StepState::Succeeded { .. } => true,
        StepState::Failed { ignored, .. } => {
            assert_eq!(*ignored, run.plan.steps[step].ignore_errors, "only what the file ignores is ignored");
            *ignored
        }
        StepState::Waiting | StepState::Running { .. } | StepState::Cancelled { .. } | StepState::Skipped => false,
    }
}

/// The first verdict stands, and a loss of the machinery is never a verdict of failure.
fn verdicts_stand(before: &Run, after: &Run, event: &RunEvent) {
    let verdict = |run: &Run| match &run.phase {
        Phase::Live => None,
        Phase::Ending { verdict } | Phase::Finished { verdict, .. } => Some(verdict.clone()),
    };
    let (old, new) = (verdict(before), verdict(after));
    if old.is_some() {
        assert_eq!(old, new, "a decided run was decided again");
        return;
    }
    let users = match event {
        RunEvent::StepEnded { result: StepResult::Failed { .. } | StepResult::TimedOut, .. } => true,
        // What is in the repository does not fit what was asked for.
        RunEvent::StepEnded { result: StepResult::Succeeded { output: StepOutput::Prepared(_) }, .. } => true,
        // The agent began the step and did not end it in time.
        RunEvent::Tick => {
            before.steps.iter().any(|step| matches!(step.state, StepState::Running { started: Some(_), .. }))
        }
        _ => false,
    };
    assert!(users || !matches!(new, Some(Verdict::Failed { .. })), "{event:?} is called a failure: {new:?}");
    if after.losses.len() > before.losses.len() {
        let failed = |run: &Run| run.steps.iter().filter(|step| matches!(step.state, StepState::Failed { .. })).count();
        assert!(failed(before) >= failed(after), "a loss is called a failed step");
    }
}

fn rank(status: RunStatus) -> u32 {
    match status {
        RunStatus::Queued => 0,
        RunStatus::Started => 1,
        RunStatus::Running => 2,
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Canceled | RunStatus::Error | RunStatus::Timeout => 3,
    }
}

/// Where stages leave things.
fn shared() -> ImageRef {
    ImageRef::parse(SHARED).expect("valid")
}
