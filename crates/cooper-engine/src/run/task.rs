//! Runs of task files: asked for, planned at once or when their source has been prepared.
//!
//! Owns what such a run adds to the life of a run. What a file means is `cooper_spec::task`'s, what its steps become
//! `cooper_spec::task_plan`'s. Secrets and URLs are fetched by the shell before either planning.

use std::collections::BTreeSet;
use std::time::Duration;

use cooper_spec::plan::{Plan, PlannedPlacement, PlannedStep, PrepareWork, Work};
use cooper_spec::quick_build::PlanError;
use cooper_spec::source::RemoteSource;
use cooper_spec::task::{Fault, TaskInputs};
use cooper_spec::task_plan::{self, PlannedTask, TaskPlanError, TaskPlanRequest};
use cooper_spec::task_request::{Fetched, KeptTexts, MissingText, TaskRequest, UsedSecret};
use cooper_spec::template::RunVariables;
use cooper_types::{
    Access, AttemptNumber, ContextId, Platform, PrincipalName, RegistryName, RepositoryName, Scopes, StepId,
};

use super::source::{of_source, one_line};
use super::{Effect, PendingReason, Placement, Run, RunSource, Step};
use crate::message::PreparedSource;

/// How long it may take to fetch a source; the run's own timeout counts too.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(1_800);
/// Warnings beyond these are counted and not told.
const MAX_NOTES: usize = 20;

/// A task file that somebody wants to be run.
#[derive(Clone, Debug)]
pub struct AskedTask {
    /// What was asked for.
    pub request: TaskRequest,
    /// Where the workspace's files come from.
    pub source: TaskSource,
}

/// What the variables of a run hold whatever its source is found to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownVariables {
    /// The branch, where it is known before.
    pub branch: Option<String>,
    /// The tag, where it is known before.
    pub git_tag: Option<String>,
    /// The stored task; empty in runs of none.
    pub task_name: String,
    /// What set the run off; empty in runs of no stored task.
    pub triggered_by: String,
}

impl KnownVariables {
    /// Variables of a source that is there, with what is known beside it.
    #[must_use]
    pub fn over(&self, found: RunVariables) -> RunVariables {
        RunVariables {
            branch: self.branch.clone().unwrap_or(found.branch),
            git_tag: self.git_tag.clone().unwrap_or(found.git_tag),
            task_name: self.task_name.clone(),
            triggered_by: self.triggered_by.clone(),
            ..found
        }
    }
}

/// Where the files of a task's workspace come from.
#[derive(Clone, Debug)]
pub enum TaskSource {
    /// They are here, or there are none: everything is known that planning needs.
    Here {
        /// An uploaded context.
        context: Option<ContextId>,
        /// What has been fetched for the task file.
        fetched: Fetched,
    },
    /// An agent fetches them.
    Remote(RemoteSource),
}

/// What the shell made of a prepared source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRun {
    /// What is done.
    pub plan: Plan,
    /// The secret texts of the plan.
    pub secrets: Vec<SealedText>,
    /// Lines for the log.
    pub notes: Vec<String>,
    /// What the planning read.
    pub texts: KeptTexts,
    /// Where the file's secrets came from.
    pub used_secrets: Vec<UsedSecret>,
}

/// A secret text of a plan, encrypted by the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedText {
    /// The plan's name for it.
    pub name: String,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

/// Why a task file can't be planned.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A file is not there.
    #[error(transparent)]
    Missing(#[from] MissingText),
    /// The file is wrong.
    #[error(transparent)]
    Plan(#[from] TaskPlanError),
    /// The run's token may not push there.
    #[error("the run may not push to repository `{0}`: its token has no such scope")]
    PushDenied(RepositoryName),
    /// A stranger's code is to be pushed and nothing else.
    #[error("the file does nothing but push, and a stranger's code is not pushed")]
    OnlyPushes,
    /// What a stranger's code makes on one platform is to be used on another.
    #[error("step {0} takes an image that another platform's agent builds, and a stranger's code is not pushed to it")]
    NeedsPush(StepId),
}

impl TaskError {
    /// The same as an answer to who asked.
    pub(super) fn of(self, principal: &PrincipalName) -> PlanError {
        match self {
            Self::Missing(error) => PlanError::Missing(error),
            Self::Plan(error) => PlanError::Task(error),
            Self::PushDenied(repository) => PlanError::PushDenied { principal: principal.clone(), repository },
            Self::OnlyPushes => PlanError::OnlyPushes,
            Self::NeedsPush(step) => PlanError::NeedsPush(step),
        }
    }
}

/// What the log says of a stranger's run of a task file.
pub(super) const NOT_PUSHED: &str = "The code is a stranger's: nothing is pushed.";

/// Plans a task file with everything that was fetched for it.
pub(super) fn plan(
    request: &TaskRequest,
    variables: RunVariables,
    fetched: &Fetched,
    context: Option<&ContextId>,
    registry: &RegistryName,
    scopes: &Scopes,
    untrusted: bool,
) -> Result<PlannedTask, TaskError> {
    let inputs = request.inputs(variables, fetched)?;
    let platform = &request.platform;
    let mut planned = task_plan::plan(&TaskPlanRequest { inputs: &inputs, platform, registry, context, scopes })?;
    if untrusted {
        planned.plan = without_pushes(&planned.plan)?;
    }
    for image in planned.plan.written_images().filter(|image| image.registry.as_ref() == Some(registry)) {
        if !scopes.repository(&image.repository, Access::Push) {
            return Err(TaskError::PushDenied(image.repository.clone()));
        }
    }
    Ok(planned)
}

/// What a stranger's code does of a plan: all but its pushes, to whatever registry, those of an index's parts included.
fn without_pushes(plan: &Plan) -> Result<Plan, TaskError> {
    let is_push = |step: &&PlannedStep| matches!(&step.work, Work::Push(_));
    let pushes: BTreeSet<StepId> = plan.steps.iter().filter(is_push).map(|step| step.id.clone()).collect();
    match plan.without(&pushes).map_err(TaskError::NeedsPush)? {
        rest if rest.steps.is_empty() => Err(TaskError::OnlyPushes),
        rest => Ok(rest),
    }
}

/// The plan of a run whose source is to be fetched, from where it is found: that alone.
pub(super) fn prepare(request: &TaskRequest, location: &RemoteSource) -> Plan {
    let values = request.values.as_ref().and_then(|values| values.path()).map(str::to_owned);
    let work = Work::Prepare(PrepareWork {
        source: location.clone(),
        dockerfile: None,
        files: values.into_iter().chain(request.fallbacks.iter().cloned()).collect(),
        task_file: request.file.path().map(str::to_owned),
        definition: None,
    });
    let id = StepId::parse("prepare").expect("a constant that is one");
    let step = PlannedStep::new(id, 0, Vec::new(), PREPARE_TIMEOUT, work);
    Plan { placements: vec![PlannedPlacement::new(request.platform.clone())], steps: vec![step] }
}

/// Lines for the log of what a file's author should know.
pub fn notes(warnings: &[Fault]) -> Vec<String> {
    let told = warnings.iter().take(MAX_NOTES).map(|warning| one_line(&format!("warning: {warning}")));
    let more = warnings.len().saturating_sub(MAX_NOTES);
    told.chain((more > 0).then(|| format!("warning: and {more} more"))).collect()
}

impl Run {
    /// What a prepared source's task file is loaded with; nothing if the run waits for no such source.
    pub fn task_inputs(&self, found: &PreparedSource, fetched: &Fetched) -> Option<Result<TaskInputs, MissingText>> {
        let Some(RunSource::TaskWanted { location, task }) = &self.source else { return None };
        Some(task.inputs(self.variables(location, task, found), fetched))
    }

    /// Plans what a prepared source's task file says.
    pub fn plan_task(&self, found: &PreparedSource, fetched: &Fetched) -> Option<Result<PlannedTask, TaskError>> {
        let Some(RunSource::TaskWanted { location, task }) = &self.source else { return None };
        let variables = self.variables(location, task, found);
        let (scopes, untrusted) = (&self.scopes, self.origin.untrusted);
        Some(plan(task, variables, fetched, Some(&found.context), &self.registry, scopes, untrusted))
    }

    /// What the run's variables hold whatever its source is found to be, for whoever fetches it.
    pub fn known_variables(&self) -> KnownVariables {
        let none = RunVariables::quick_build(self.id, &self.registry, &Platform::LINUX_AMD64, self.created);
        let known = self.origin.of_event(self.origin.variables(none));
        let expected = self.provenance.replay.as_ref().and_then(|replay| replay.source.as_ref());
        let name = |of_event: String, expected: Option<&Option<String>>| match of_event.is_empty() {
            false => Some(of_event),
            true => expected.map(|name| name.clone().unwrap_or_default()),
        };
        KnownVariables {
            branch: name(known.branch, expected.map(|source| &source.branch)),
            git_tag: name(known.git_tag, expected.map(|source| &source.tag)),
            task_name: known.task_name,
            triggered_by: known.triggered_by,
        }
    }

    fn variables(&self, location: &RemoteSource, task: &TaskRequest, found: &PreparedSource) -> RunVariables {
        // What is not as it has to be is refused when the plan is taken.
        let found = self.provenance.source(found).unwrap_or_else(|_| found.clone());
        self.origin.of_event(of_source(self.first_variables(&task.platform), location, &found))
    }

    /// Takes the plan that the shell made of a prepared source. The error says why there is none.
    pub(super) fn take_plan(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        found: &PreparedSource,
        planned: Result<PlannedRun, String>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), String> {
        let Some(RunSource::TaskWanted { location, .. }) = &self.source else {
            return Err("the source was prepared before".to_owned());
        };
        let location = location.clone();
        effects.push(Effect::LogLine(super::source::found_line(&location, found)));
        let counts = self.is_defined(step, found).and_then(|()| self.provenance.source(found));
        let found = counts.as_ref().unwrap_or(found);
        self.source = Some(RunSource::Prepared { location, found: found.recorded() });
        if let Err(reason) = &counts {
            return Err(reason.clone());
        }
        let mut planned = planned.map_err(|error| one_line(&format!("the run can't be planned: {error}")))?;
        effects.extend(planned.notes.into_iter().map(Effect::LogLine));
        effects.extend(self.origin.untrusted.then(|| Effect::LogLine(NOT_PUSHED.to_owned())));
        effects.extend(self.provenance.change(&mut planned.plan).into_iter().map(Effect::LogLine));
        effects.push(Effect::KeepSecrets(planned.secrets));
        effects.push(Effect::KeepTexts(planned.texts));
        self.provenance.secrets = planned.used_secrets;
        let (context, digest, size) = (found.context.clone(), found.digest.clone(), found.size);
        effects.push(Effect::Planned { step, attempt, context, digest, size });
        self.placements
            .extend(planned.plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }));
        self.steps.extend(planned.plan.steps.iter().map(|_| Step::NEW));
        let fetched = self.plan.steps[step].id.clone();
        self.plan.append(planned.plan);
        let renamed = &self.plan.steps[step].id;
        if *renamed != fetched {
            let line = format!(
                "The step that fetched the source is `{renamed}` from here on: the file has a step `{fetched}`."
            );
            effects.push(Effect::LogLine(line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cooper_spec::task_request::TaskText;
    use cooper_types::{ContextId, RunId, Scope, Timestamp};

    use super::*;

    /// A file's plan as a stranger's code, or its owner's, is run by it.
    fn planned(steps: &str, untrusted: bool) -> Result<Vec<String>, String> {
        let text = format!("version: v1.1.0\nsteps:\n{steps}");
        let request = TaskRequest {
            file: TaskText::Given { name: "acr-task.yaml".to_owned(), text },
            fallbacks: Vec::new(),
            values: None,
            set: Vec::new(),
            alias_files: Default::default(),
            platform: Platform::LINUX_AMD64,
            working_directory: None,
        };
        let registry = RegistryName::parse("localhost:5000").expect("valid");
        let now = Timestamp::from_micros(0);
        let variables = RunVariables::quick_build(RunId::from_number(1), &registry, &Platform::LINUX_AMD64, now);
        let scopes = Scopes(if untrusted { Vec::new() } else { vec![Scope::Admin] });
        let context = ContextId::parse("c").expect("valid");
        let made = plan(&request, variables, &Fetched::default(), Some(&context), &registry, &scopes, untrusted);
        let steps = made.map_err(|error| error.to_string())?.plan.steps;
        Ok(steps.iter().map(|step| format!("{} after {:?}", step.id, step.after)).collect())
    }

    #[test]
    fn a_strangers_code_is_not_pushed_to_any_registry() {
        let file = "  - id: a\n    build: -t $Registry/x:1 -t reg.internal:5000/y:1 .\n  - id: p\n    push: ['$Registry/x:1', \
                    'reg.internal:5000/y:1']\n  - id: c\n    cmd: busybox true\n";
        assert_eq!(planned(file, false).expect("a plan"), ["a after []", "p after [0]", "c after [1]"]);
        assert_eq!(planned(file, true).expect("a plan"), ["a after []", "c after [0]"]);
    }

    #[test]
    fn nor_is_a_part_of_an_index_of_it() {
        let file = "  - id: a\n    build: -t $Registry/x:1 -t reg.internal:5000/y:1 .\n    platforms: [linux/amd64, \
                    linux/arm64]\n  - id: p\n    push: ['$Registry/x:1', 'reg.internal:5000/y:1']\n  - id: c\n    cmd: \
                    busybox true\n";
        assert_eq!(planned(file, false).expect("a plan").len(), 8);
        let expect = ["a-linux-amd64 after []", "a-linux-arm64 after []", "c after [0, 1]"];
        assert_eq!(planned(file, true).expect("a plan"), expect);
    }
}
