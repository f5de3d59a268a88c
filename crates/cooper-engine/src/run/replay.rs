//! A run that repeats another one: with the same source and images, with what there is now, or only where it failed.

use std::collections::{BTreeMap, BTreeSet};

use cooper_spec::plan::{ContextPins, Pins, Plan, PlannedStep, Work};
use cooper_spec::source::{RemoteSource, SourcePin};
use cooper_spec::task_request::{KeptTexts, UsedSecret};
use cooper_types::{Digest, ImageRef, RunId, StepId};
use serde::{Deserialize, Serialize};

use super::{KeptRequest, Provenance, Run, Step, StepState};
use crate::message::{PreparedSource, StepOutput};

/// How a run repeats another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The other one.
    pub of: RunId,
    /// Whether images, secrets and references are resolved anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// What images were resolved to; none where they are resolved anew.
    #[serde(default, skip_serializing_if = "Pins::is_empty")]
    pub pins: Pins,
    /// What the contexts were found to be that steps fetched for themselves; none where they are fetched anew.
    #[serde(default, skip_serializing_if = "ContextPins::is_empty")]
    pub contexts: ContextPins,
    /// The steps that are done and not repeated without need; absent where everything is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<BTreeSet<StepId>>,
    /// The names that pushes among these pushed: under other names, which may hold a run's id, nothing is done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pushed: BTreeMap<StepId, Vec<ImageRef>>,
    /// What the source was found to be, where it has to be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PreparedSource>,
    /// Which secrets the task file had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<UsedSecret>,
    /// The digests of what alias sources held, by the digests of their URLs; none where they are fetched anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alias_urls: BTreeMap<Digest, Digest>,
}

/// A request to repeat a run.
#[derive(Clone, Debug)]
pub struct NewReplay {
    /// What was asked for the first time.
    pub request: KeptRequest,
    /// How it is repeated.
    pub replay: Replay,
    /// The source, where the other run's context is still there: nobody fetches it again.
    pub kept: Option<(RemoteSource, PreparedSource)>,
    /// What is known of the texts that the planning reads, where that comes later.
    pub texts: KeptTexts,
}

impl Replay {
    /// The first lines of the new run's log.
    pub(super) fn notes(&self) -> Vec<String> {
        let how = match (self.fresh, &self.done) {
            (false, None) => "with the source and the images that it had",
            (true, None) => "with what its source and its images' names stand for now",
            (false, Some(_)) => "from where it failed, with the source and the images that it had",
            (true, Some(_)) => "from where it failed, with its source and what its images' names stand for now",
        };
        vec![format!("Rerun of run {}, {how}.", self.of)]
    }

    /// Makes of a plan what is run of it. The answer is for the log.
    pub(super) fn change(&self, plan: &mut Plan) -> Vec<String> {
        let mut notes = Vec::new();
        let platforms = plan.platforms_of_steps();
        if let Some(done) = &self.done {
            let done = plan.steps.iter().filter(|step| done.contains(&step.id) && self.is_still_done(step));
            let mut done: BTreeSet<StepId> = done.map(|step| step.id.clone()).collect();
            loop {
                let outdated = plan.outdated_pushes(&done);
                if outdated.is_empty() {
                    break;
                }
                if !self.fresh {
                    notes.push(format!(
                        "warning: built again and not pushed again, as these are done: {}; the images need not be the same",
                        names(&outdated)
                    ));
                    break;
                }
                // Else what is tested would not be what is published.
                done.retain(|step| !outdated.contains(step));
            }
            let rest = plan.rest(&done);
            if rest.plan.steps.is_empty() {
                notes.push(format!("All steps of run {} are done by their names: all are repeated.", self.of));
            } else {
                if !rest.left_out.is_empty() {
                    notes.push(format!("Not repeated, because done in run {}: {}", self.of, names(&rest.left_out)));
                }
                *plan = rest.plan;
            }
        }
        if !self.fresh {
            let cut = plan.pin(&self.pins, &platforms);
            if !cut.is_empty() {
                notes.push(format!(
                    "warning: not all images of run {} are pinned in these steps, which ended before they had any: {}",
                    self.of,
                    names(&cut)
                ));
            }
            let moved = plan.pin_contexts(&self.contexts);
            if !moved.is_empty() {
                notes.push(format!(
                    "warning: the contexts of these steps are not where they were in run {}, and are taken as they are: {}",
                    self.of,
                    names(&moved)
                ));
            }
        }
        notes
    }

    /// Whether a step that was done counts as done in a new plan: a push does where it would write the same names.
    fn is_still_done(&self, step: &PlannedStep) -> bool {
        match &step.work {
            Work::Push(push) if !push.is_stage => {
                let images = push.names.iter().map(|name| &name.image);
                self.pushed.get(&step.id).is_some_and(|pushed| pushed.iter().eq(images))
            }
            Work::Push(_) | Work::Prepare(_) | Work::Build(_) | Work::Command(_) => true,
        }
    }

    /// A source as it counts for the run: it must be what it was, and is called what it was called.
    fn source(&self, found: &PreparedSource) -> Result<PreparedSource, String> {
        let Some(expected) = &self.source else { return Ok(found.clone()) };
        let name = |source: &PreparedSource| match (&source.commit, &source.pinned) {
            (Some(commit), _) => format!("commit {commit}"),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => "nothing".to_owned(),
        };
        if (&expected.commit, &expected.pinned) != (&found.commit, &found.pinned) {
            return Err(format!(
                "the source was {} in run {} and is {} now: rerun it with --fresh to take what is there",
                name(expected),
                self.of,
                name(found)
            ));
        }
        Ok(PreparedSource { branch: expected.branch.clone(), tag: expected.tag.clone(), ..found.clone() })
    }
}

impl Provenance {
    /// A prepared source as it counts for the run; the error says why it does not.
    pub(super) fn source(&self, found: &PreparedSource) -> Result<PreparedSource, String> {
        match &self.replay {
            Some(replay) => replay.source(found),
            None => Ok(found.clone()),
        }
    }

    /// Makes of a plan what is run of it. The answer is for the log.
    pub(super) fn change(&self, plan: &mut Plan) -> Vec<String> {
        self.replay.as_ref().map(|replay| replay.change(plan)).unwrap_or_default()
    }
}

impl Run {
    /// The run that this one repeats.
    pub fn rerun_of(&self) -> Option<RunId> {
        self.provenance.replay.as_ref().map(|replay| replay.of)
    }

    /// What a build's own context was found to be, whatever became of the build.
    pub fn context_of<'a>(&'a self, planned: &PlannedStep, step: &'a Step) -> Option<&'a SourcePin> {
        match &step.state {
            StepState::Succeeded { output: StepOutput::Built { context: Some(context), .. }, .. } => Some(context),
            _ => self.provenance.contexts.get(&planned.id),
        }
    }

    /// The steps that need not be repeated: done in this run, or in the one that it repeats and not begun again. With them
    /// the names that pushes wrote.
    pub fn done_steps(&self) -> (BTreeSet<StepId>, BTreeMap<StepId, Vec<ImageRef>>) {
        let (mut done, mut pushed) = (BTreeSet::new(), BTreeMap::new());
        if let Some(earlier) = &self.provenance.replay {
            let is_other = |id: &StepId| self.planned(id).is_none();
            done.extend(earlier.done.iter().flatten().filter(|id| is_other(id)).cloned());
            let names = earlier.pushed.iter().filter(|(id, _)| is_other(id));
            pushed.extend(names.map(|(id, names)| (id.clone(), names.clone())));
        }
        for (step, planned) in self.steps.iter().zip(&self.plan.steps) {
            match (&step.state, &planned.work) {
                // The source of the next run may need none, and then the id is anybody's.
                (_, Work::Prepare(_)) => {}
                (StepState::Succeeded { .. }, Work::Push(push)) => {
                    done.insert(planned.id.clone());
                    pushed.insert(planned.id.clone(), push.names.iter().map(|name| name.image.clone()).collect());
                }
                (StepState::Succeeded { .. }, Work::Build(_) | Work::Command(_))
                | (StepState::Failed { ignored: true, .. }, Work::Build(_) | Work::Command(_)) => {
                    done.insert(planned.id.clone());
                }
                // What was not pushed is not there, whether the run went on or not.
                (StepState::Failed { .. }, _)
                | (
                    StepState::Waiting | StepState::Running { .. } | StepState::Cancelled { .. } | StepState::Skipped,
                    _,
                ) => {}
            }
        }
        (done, pushed)
    }

    /// The step of a file with this id; the one that fetches a source is none.
    fn planned(&self, id: &StepId) -> Option<&PlannedStep> {
        self.plan.steps.iter().find(|step| step.id == *id && !matches!(step.work, Work::Prepare(_)))
    }
}

fn names(steps: &[StepId]) -> String {
    steps.iter().map(StepId::as_str).collect::<Vec<_>>().join(", ")
}
