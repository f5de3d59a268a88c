//! What one attempt at one step may do with the registry, for as long as it is live.

use cooper_ports::registry::AttemptRef;
use cooper_types::{Access, AttemptNumber, PrincipalName, RepositoryName, RepositoryPattern, RunId, StepId, Timestamp};

/// The registry credential of an attempt. Signed, it is the password that an agent gives to its engine.
///
/// The allowances are the plan's images that the run's principal may use; whoever mints a credential has cut them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptCredential {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt at it.
    pub attempt: AttemptNumber,
    /// In whose name.
    pub principal: PrincipalName,
    /// What may be pushed to, and pulled from as clients do while they push.
    pub push: Vec<RepositoryName>,
    /// What may be pulled.
    pub pull: Vec<RepositoryPattern>,
    /// What may be deleted.
    pub delete: Vec<RepositoryPattern>,
    /// When the credential ends, even if the attempt is still live.
    pub expires: Timestamp,
}

impl AttemptCredential {
    /// Whether `access` to `repository` is allowed.
    pub fn allows(&self, repository: &RepositoryName, access: Access) -> bool {
        match access {
            Access::Push => self.push.contains(repository),
            Access::Pull => {
                self.push.contains(repository) || self.pull.iter().any(|pattern| pattern.covers(repository))
            }
            Access::Delete => self.delete.iter().any(|pattern| pattern.covers(repository)),
        }
    }

    /// The attempt.
    pub fn attempt_ref(&self) -> AttemptRef {
        AttemptRef { run: self.run, step: self.step.clone(), attempt: self.attempt }
    }
}
