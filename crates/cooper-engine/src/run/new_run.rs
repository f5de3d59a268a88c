//! A run from its request to its first state.

use std::time::Duration;

use cooper_spec::plan::{Plan, PrepareWork, Work};
use cooper_spec::quick_build::{BuildSource, PlanError, QuickBuild};
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::{Fetched, KeptTexts};
use cooper_spec::template::RunVariables;
use cooper_types::{
    Access, AttemptNumber, ContextId, Fence, Platform, PoolName, PrincipalName, RegistryName, RunId, Scopes,
    SecretString, Timestamp,
};

use super::source::of_source;
use super::task::{self, AskedTask, TaskSource};
use super::{KeptRequest, NewReplay, PendingReason, Phase, Placement, Provenance, Run, RunSource, Step};
use crate::message::PreparedSource;
use crate::task::Origin;

/// A run that has been asked for and has no id yet.
///
/// The id comes from a counter inside the accepting transaction, and names may hold it: the transaction calls
/// [`NewRun::accept`], and a refusal rolls it back.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Where it comes from.
    pub origin: Origin,
    /// Who asks.
    pub principal: PrincipalName,
    /// What the asking token allows: the run never does more in the registry.
    pub scopes: Scopes,
    /// The embedded registry's name.
    pub registry: RegistryName,
    /// The pool whose agents may take it.
    pub pool: PoolName,
    /// What is asked for.
    pub asked: Asked,
    /// How long the run may take from its start on an agent.
    pub timeout: Duration,
    /// The run that is repeated, if one is.
    pub replay: Option<Box<NewReplay>>,
}

/// What a run is to do.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each request, and it is never in a list")]
pub enum Asked {
    /// One Dockerfile.
    Build {
        /// What is built.
        build: QuickBuild,
        /// Where the files come from.
        source: BuildSource,
    },
    /// A task file.
    Task(Box<AskedTask>),
}

/// A run in its first state, and what goes on record beside it.
#[derive(Clone, Debug)]
pub struct AcceptedRun {
    /// The run.
    pub run: Run,
    /// The secret texts of its plan, to be sealed.
    pub texts: Vec<(String, SecretString)>,
    /// The first lines of its log.
    pub notes: Vec<String>,
    /// What its planning read.
    pub kept_texts: KeptTexts,
}

impl Asked {
    /// The uploaded context that the run begins with.
    pub fn context(&self) -> Option<&ContextId> {
        match self {
            Self::Build { source: BuildSource::Context(context), .. } => Some(context),
            Self::Build { source: BuildSource::Remote(_), .. } => None,
            Self::Task(task) => match &task.source {
                TaskSource::Here { context, .. } => context.as_ref(),
                TaskSource::Remote(RemoteSource::Uploaded(context)) => Some(context),
                TaskSource::Remote(_) => None,
            },
        }
    }
}

impl NewRun {
    /// The request as it is kept: of a run that repeats another one, that one's.
    pub fn kept_request(&self) -> KeptRequest {
        match &self.replay {
            Some(replay) => replay.request.clone(),
            None => KeptRequest::of(self),
        }
    }

    /// Plans the run under its id. Fails on what only planning can find, such as a bad image name.
    pub fn accept(&self, id: RunId, now: Timestamp) -> Result<AcceptedRun, PlanError> {
        let mut provenance = Provenance::default();
        let mut notes = Vec::new();
        if let Some(new) = &self.replay {
            notes = new.replay.notes();
            provenance.replay = Some(Box::new(new.replay.clone()));
        }
        let kept = self.replay.as_ref().and_then(|new| new.kept.as_ref());
        let kept_source = |kept: &(RemoteSource, PreparedSource)| RunSource::Prepared {
            location: kept.0.clone(),
            found: kept.1.recorded(),
        };
        match &self.asked {
            Asked::Build { build, source } => {
                let (mut plan, wanted) = self.plan_build(build, source, id, now)?;
                if wanted.is_none() {
                    notes.extend(provenance.change(&mut plan));
                }
                let source = wanted.or_else(|| kept.map(kept_source));
                let run = self.run(id, now, plan, source, provenance);
                Ok(AcceptedRun { run, texts: Vec::new(), notes, kept_texts: KeptTexts::default() })
            }
            Asked::Task(asked) => match &asked.source {
                TaskSource::Here { context, fetched } => {
                    let mut variables = self.variables(id, &asked.request.platform, now);
                    if let Some((location, found)) = kept {
                        variables = self.origin.of_event(of_source(variables, location, found));
                    }
                    let mut planned = task::plan(
                        &asked.request,
                        variables,
                        fetched,
                        context.as_ref(),
                        &self.registry,
                        &self.scopes,
                        self.origin.untrusted,
                    )
                    .map_err(|error| error.of(&self.principal))?;
                    notes.extend(fetched.notes.iter().cloned());
                    notes.extend(task::notes(&planned.warnings));
                    notes.extend(self.origin.untrusted.then(|| task::NOT_PUSHED.to_owned()));
                    notes.extend(provenance.change(&mut planned.plan));
                    provenance.secrets = fetched.used_secrets.clone();
                    let run = self.run(id, now, planned.plan, kept.map(kept_source), provenance);
                    let texts = planned.texts.into_iter().collect();
                    let kept_texts = KeptTexts::of(&asked.request, fetched);
                    Ok(AcceptedRun { run, texts, notes, kept_texts })
                }
                TaskSource::Remote(location) => {
                    let plan = task::prepare(&asked.request, &self.pinned(location));
                    let task = Box::new(asked.request.clone());
                    let source = RunSource::TaskWanted { location: location.clone(), task };
                    let run = self.run(id, now, plan, Some(source), provenance);
                    // Whatever comes of it, the next rerun has what this one had.
                    let mut kept_texts = KeptTexts::of(&asked.request, &Fetched::default());
                    kept_texts.0.extend(self.replay.iter().flat_map(|new| new.texts.0.iter().cloned()));
                    Ok(AcceptedRun { run, texts: Vec::new(), notes, kept_texts })
                }
            },
        }
    }

    /// A source as it is fetched: where another run found it, if it has to be the same.
    fn pinned(&self, location: &RemoteSource) -> RemoteSource {
        let expected = self.replay.as_ref().and_then(|new| new.replay.source.as_ref());
        match expected {
            Some(found) => location.pinned(found.commit.as_deref(), found.pinned.as_ref()),
            None => location.clone(),
        }
    }

    fn variables(&self, id: RunId, platform: &Platform, now: Timestamp) -> RunVariables {
        self.origin.variables(RunVariables::quick_build(id, &self.registry, platform, now))
    }

    fn plan_build(
        &self,
        build: &QuickBuild,
        source: &BuildSource,
        id: RunId,
        now: Timestamp,
    ) -> Result<(Plan, Option<RunSource>), PlanError> {
        let mut variables = self.variables(id, &build.platform, now);
        let mut build = build.clone();
        let (fetched, wanted) = match source {
            BuildSource::Context(_) => {
                if let Some((location, found)) = self.replay.as_ref().and_then(|new| new.kept.as_ref()) {
                    variables = self.origin.of_event(of_source(variables, location, found));
                    build.dockerfile = found.dockerfile.clone().unwrap_or(build.dockerfile);
                }
                (source.clone(), None)
            }
            BuildSource::Remote(location) => {
                variables.repository = location.repository().map(ToString::to_string).unwrap_or_default();
                let wanted = RunSource::Wanted { location: location.clone(), build: Box::new(build.clone()) };
                (BuildSource::Remote(self.pinned(location)), Some(wanted))
            }
        };
        let plan = build.plan_first(&fetched, &variables, &self.registry)?;
        let repositories = match source {
            // All is known: variables of a source are empty, and the names are what they come to without them.
            BuildSource::Context(_) => plan.written_images().map(|image| image.repository.clone()).collect(),
            BuildSource::Remote(_) => build.certain_repositories(&variables, &self.registry),
        };
        for repository in repositories {
            if !self.scopes.repository(&repository, Access::Push) {
                return Err(PlanError::PushDenied { principal: self.principal.clone(), repository });
            }
        }
        Ok((plan, wanted))
    }

    fn run(&self, id: RunId, now: Timestamp, mut plan: Plan, source: Option<RunSource>, provenance: Provenance) -> Run {
        for step in &mut plan.steps {
            if let Work::Prepare(PrepareWork { source: RemoteSource::Git(_), definition, .. }) = &mut step.work {
                definition.clone_from(&self.origin.definition);
            }
        }
        let placements = plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }).collect();
        let steps = plan.steps.iter().map(|_| Step::NEW).collect();
        Run {
            id,
            principal: self.principal.clone(),
            scopes: self.scopes.clone(),
            registry: self.registry.clone(),
            pool: self.pool.clone(),
            platform: Some(match &self.asked {
                Asked::Build { build, .. } => build.platform.clone(),
                Asked::Task(task) => task.request.platform.clone(),
            }),
            origin: self.origin.clone(),
            plan,
            timeout: self.timeout,
            created: now,
            started: None,
            last_fence: Fence(0),
            last_attempt: AttemptNumber(0),
            losses: Vec::new(),
            phase: Phase::Live,
            placements,
            steps,
            source,
            provenance,
        }
    }
}
