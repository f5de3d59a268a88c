//! A run that repeats another one: with the same source and images, with what there is now, or only where it failed.

use std::collections::BTreeSet;

use cooper_spec::plan::{Pins, Plan};
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::UsedSecret;
use cooper_types::{RunId, StepId};
use serde::{Deserialize, Serialize};

use super::{KeptRequest, Provenance, Run};
use crate::message::PreparedSource;

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
    /// The steps that are done and not repeated without need; absent where everything is repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<BTreeSet<StepId>>,
    /// What the source was found to be, where it has to be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<PreparedSource>,
    /// Which secrets the task file had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<UsedSecret>,
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
        if let Some(done) = &self.done {
            let rest = plan.rest(done);
            if rest.plan.steps.is_empty() {
                notes.push(format!("All steps of run {} are done by their names: all are repeated.", self.of));
            } else {
                if !rest.left_out.is_empty() {
                    let names: Vec<&str> = rest.left_out.iter().map(StepId::as_str).collect();
                    notes.push(format!("Not repeated, because done in run {}: {}", self.of, names.join(", ")));
                }
                *plan = rest.plan;
            }
        }
        if !self.fresh {
            plan.pin(&self.pins);
        }
        notes
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
}
