//! A run from its request to its first state.

use std::time::Duration;

use cooper_spec::quick_build::{BuildSource, PlanError, QuickBuild};
use cooper_spec::template::RunVariables;
use cooper_types::{Access, AttemptNumber, Fence, PoolName, PrincipalName, RegistryName, RunId, Scopes, Timestamp};

use super::{PendingReason, Phase, Placement, Run, RunSource, Step};

/// A run that has been asked for and has no id yet.
///
/// The id comes from a counter inside the accepting transaction, and names may hold it: the transaction calls
/// [`NewRun::accept`], and a refusal rolls it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// Who asks.
    pub principal: PrincipalName,
    /// What the asking token allows: the run never does more in the registry.
    pub scopes: Scopes,
    /// The embedded registry's name.
    pub registry: RegistryName,
    /// The pool whose agents may take it.
    pub pool: PoolName,
    /// What is asked for.
    pub build: QuickBuild,
    /// Where the files come from.
    pub source: BuildSource,
    /// How long the run may take from its start on an agent.
    pub timeout: Duration,
}

impl NewRun {
    /// Plans the run under its id. Fails on what only planning can find, such as a bad image name.
    pub fn accept(&self, id: RunId, now: Timestamp) -> Result<Run, PlanError> {
        let mut variables = RunVariables::quick_build(id, &self.registry, &self.build.platform, now);
        let source = match &self.source {
            BuildSource::Context(_) => None,
            BuildSource::Remote(location) => {
                variables.repository = location.repository().map(ToString::to_string).unwrap_or_default();
                Some(RunSource::Wanted { location: location.clone(), build: Box::new(self.build.clone()) })
            }
        };
        let plan = self.build.plan_first(&self.source, &variables, &self.registry)?;
        let repositories = match &self.source {
            // All is known: variables of a source are empty, and the names are what they come to without them.
            BuildSource::Context(_) => plan.pushed_images().map(|image| image.repository.clone()).collect(),
            BuildSource::Remote(_) => self.build.certain_repositories(&variables, &self.registry),
        };
        for repository in repositories {
            if !self.scopes.repository(&repository, Access::Push) {
                return Err(PlanError::PushDenied { principal: self.principal.clone(), repository });
            }
        }
        let placements = plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }).collect();
        let steps = plan.steps.iter().map(|_| Step::NEW).collect();
        Ok(Run {
            id,
            principal: self.principal.clone(),
            scopes: self.scopes.clone(),
            registry: self.registry.clone(),
            pool: self.pool.clone(),
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
        })
    }
}
