//! A run whose source an agent fetches: accepted with a `prepare` step alone, planned when that has succeeded.
//!
//! Owns the second planning, which happens once: in the change that stores the step's success. What the step uploaded is
//! the context from then on, so a lost placement builds the same bytes again, on whatever agent.

use std::error::Error;

use cooper_spec::plan::{BuildContext, BuildWork, Plan, PrepareWork, Work};
use cooper_spec::quick_build::{PlanError, QuickBuild};
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::TaskRequest;
use cooper_spec::template::RunVariables;
use cooper_types::{Access, AttemptNumber, Platform};
use serde::{Deserialize, Serialize};

use super::{Effect, PendingReason, Placement, Run, Step};
use crate::message::PreparedSource;

/// Where the files of a run come from, and how far they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum RunSource {
    /// It is still to be fetched; only then can the rest be planned.
    Wanted {
        /// What was asked for.
        location: RemoteSource,
        /// What is planned when it is there.
        build: Box<QuickBuild>,
    },
    /// The same for a task file.
    TaskWanted {
        /// What was asked for.
        location: RemoteSource,
        /// What is planned when it is there.
        task: Box<TaskRequest>,
    },
    /// It is there, and the run is planned or could not be.
    Prepared {
        /// What was asked for.
        location: RemoteSource,
        /// What it was found to be.
        found: PreparedSource,
    },
}

impl RunSource {
    /// What was asked for.
    pub fn location(&self) -> &RemoteSource {
        match self {
            Self::Wanted { location, .. } | Self::TaskWanted { location, .. } | Self::Prepared { location, .. } => {
                location
            }
        }
    }

    /// What it was found to be, once it is there.
    pub fn found(&self) -> Option<&PreparedSource> {
        match self {
            Self::Wanted { .. } | Self::TaskWanted { .. } => None,
            Self::Prepared { found, .. } => Some(found),
        }
    }
}

impl Run {
    /// Plans what is to be done with a source that is there. The error says why that can't be done: what was asked for does
    /// not fit what the repository holds.
    pub(super) fn plan_source(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        found: &PreparedSource,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(RunSource::Wanted { location, build }) = &self.source else {
            return Err("the source was prepared before".to_owned());
        };
        effects.push(Effect::LogLine(found_line(location, found)));
        let counts = self.is_defined(step, found).and_then(|()| self.provenance.source(found));
        let location = location.clone();
        let planned = counts.as_ref().map(|found| self.plan_prepared(build, &location, found));
        let planned = planned.map_err(Clone::clone);
        let found = counts.unwrap_or_else(|_| found.clone());
        self.source = Some(RunSource::Prepared { location, found: found.recorded() });
        let mut plan = planned?.map_err(|error| one_line(&format!("the run can't be planned: {}", chain(&error))))?;
        effects.extend(self.provenance.change(&mut plan).into_iter().map(Effect::LogLine));
        let (context, digest, size) = (found.context.clone(), found.digest.clone(), found.size);
        effects.push(Effect::Planned { step, attempt, context, digest, size });
        self.placements.extend(plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }));
        self.steps.extend(plan.steps.iter().map(|_| Step::NEW));
        self.plan.append(plan);
        Ok(())
    }

    /// The variables that the run had before its source was there.
    pub(super) fn first_variables(&self, platform: &Platform) -> RunVariables {
        self.origin.variables(RunVariables::quick_build(self.id, &self.registry, platform, self.created))
    }

    /// Whether the definition was taken from where it was to be. An agent of an earlier release does not know how, and
    /// answers with the source's own.
    pub(super) fn is_defined(&self, step: usize, found: &PreparedSource) -> Result<(), String> {
        match &self.plan.steps[step].work {
            Work::Prepare(PrepareWork { definition: Some(wanted), .. }) if found.definition.is_none() => Err(format!(
                "the agent can't take the definition from {wanted}, and the source's own is a stranger's: update the agent"
            )),
            _ => Ok(()),
        }
    }

    fn plan_prepared(
        &self,
        build: &QuickBuild,
        location: &RemoteSource,
        found: &PreparedSource,
    ) -> Result<Plan, PlanError> {
        let variables = self.origin.of_event(of_source(self.first_variables(&build.platform), location, found));
        let mut build = build.clone();
        if let Some(dockerfile) = &found.dockerfile {
            build.dockerfile.clone_from(dockerfile);
        }
        let plan = build.plan(&found.context, &variables, &self.registry)?;
        for image in plan.written_images() {
            if !self.scopes.repository(&image.repository, Access::Push) {
                let (principal, repository) = (self.principal.clone(), image.repository.clone());
                return Err(PlanError::PushDenied { principal, repository });
            }
        }
        Ok(plan)
    }
}

impl Run {
    /// Forgets the queries of URLs, which may be signatures: nobody fetches anything for a run that is over. The texts of a
    /// task that was never planned, which may hold such, too, are with its request for as long as they are kept.
    pub(super) fn forget_queries(&mut self) {
        if let Some(source) = &mut self.source {
            let location = match source {
                RunSource::Wanted { location, .. }
                | RunSource::TaskWanted { location, .. }
                | RunSource::Prepared { location, .. } => location,
            };
            *location = location.without_query().unwrap_or_else(|| location.clone());
            if let RunSource::TaskWanted { task, .. } = source {
                **task = task.without_texts();
            }
        }
        for step in &mut self.plan.steps {
            match &mut step.work {
                Work::Prepare(prepare) => {
                    prepare.source = prepare.source.without_query().unwrap_or_else(|| prepare.source.clone());
                }
                Work::Build(BuildWork { context: BuildContext::Remote { source, .. }, .. }) => {
                    let bare = RemoteSource::parse(source).ok().and_then(|source| source.without_query());
                    *source = bare.map_or_else(|| source.clone(), |bare| bare.to_string());
                }
                Work::Build(_) | Work::Push(_) | Work::Command(_) => {}
            }
        }
    }
}

/// Variables with what a source that is there gives to them.
pub fn of_source(variables: RunVariables, location: &RemoteSource, found: &PreparedSource) -> RunVariables {
    RunVariables {
        commit: found.commit.clone().unwrap_or_default(),
        branch: found.branch.clone().unwrap_or_default(),
        git_tag: found.tag.clone().unwrap_or_default(),
        repository: location.repository().map(ToString::to_string).unwrap_or_default(),
        ..variables
    }
}

/// The log's line about a source that is there.
pub(super) fn found_line(location: &RemoteSource, found: &PreparedSource) -> String {
    let definition = found.definition.as_ref().map(|pin| format!("; its definition is of commit {}", pin.commit));
    format!("Source: {}{}{}", location.place(), pinned(found), definition.unwrap_or_default())
}

/// What a source was found to be, behind its name.
fn pinned(found: &PreparedSource) -> String {
    let branch = found.branch.as_ref().map(|branch| format!(" on branch {branch}")).unwrap_or_default();
    match (&found.commit, &found.pinned) {
        (Some(commit), _) => format!(" at commit {commit}{branch}"),
        (None, Some(digest)) => format!(", {digest}"),
        (None, None) => String::new(),
    }
}

/// The longest reason why a run can't be planned, in characters.
const MAX_REASON: usize = 1000;

/// A text for logs and records: what a user named may hold anything as long as it is not known what it comes to.
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with everything behind it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
