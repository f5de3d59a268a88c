//! A run from its request to its first state.

use std::time::Duration;

use cooper_spec::quick_build::{PlanError, QuickBuild};
use cooper_spec::template::RunVariables;
use cooper_types::{Access, AttemptNumber, Fence, PrincipalName, RegistryName, RunId, Scopes, Timestamp};

use super::{PendingReason, Phase, Placement, Run, Step, StepState};

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
    /// What is asked for.
    pub build: QuickBuild,
    /// How long the run may take from its start on an agent.
    pub timeout: Duration,
}

impl NewRun {
    /// Plans the run under its id. Fails on what only planning can find, such as a bad image name.
    pub fn accept(&self, id: RunId, now: Timestamp) -> Result<Run, PlanError> {
        let variables = RunVariables::quick_build(id, &self.registry, &self.build.platform, now);
        let plan = self.build.plan(&variables, &self.registry)?;
        for image in plan.pushed_images() {
            if !self.scopes.repository(&image.repository, Access::Push) {
                let (principal, repository) = (self.principal.clone(), image.repository.clone());
                return Err(PlanError::PushDenied { principal, repository });
            }
        }
        let placements = plan.placements.iter().map(|_| Placement::Waiting { reason: PendingReason::New }).collect();
        let steps = plan.steps.iter().map(|_| Step { attempts: 0, state: StepState::Waiting }).collect();
        Ok(Run {
            id,
            principal: self.principal.clone(),
            scopes: self.scopes.clone(),
            registry: self.registry.clone(),
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
        })
    }
}
