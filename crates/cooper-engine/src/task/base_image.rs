//! Which changes of base images start a task.

use cooper_types::TimerName;
use serde::{Deserialize, Serialize};

use crate::wave::{BaseKind, Rule};

/// Which changes of base images start a task. There is one of a task, and it is on unless something else is said, as in ACR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseImageTrigger {
    /// What it is called.
    pub name: TimerName,
    /// Whether it starts the task at all.
    pub enabled: bool,
    /// Which bases of builds it follows.
    pub follows: Follows,
    /// Whether it follows the images of `cmd` steps too.
    pub steps: bool,
    /// Who is told of the runs that it sets off: an http or https address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// How much is told.
    #[serde(default)]
    pub payload: UpdatePayload,
}

/// How much the endpoint of a trigger is told, in ACR's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdatePayload {
    /// What was updated, the run, and a token.
    #[default]
    Default,
    /// The token alone.
    Token,
}

/// Which bases of builds a trigger follows, in ACR's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Follows {
    /// What the final stages stand on.
    #[default]
    Runtime,
    /// All, those of other stages and those that files are copied from included.
    All,
}

/// What is said of a task's base image trigger; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the trigger's")]
pub struct BaseImageChange {
    pub name: Option<TimerName>,
    pub enabled: Option<bool>,
    pub follows: Option<Follows>,
    pub steps: Option<bool>,
    pub endpoint: Option<Option<String>>,
    pub payload: Option<UpdatePayload>,
}

impl Default for BaseImageTrigger {
    /// As `az acr task create` makes it.
    fn default() -> Self {
        let name = TimerName::parse("defaultBaseimageTriggerName").expect("ACR's name is one");
        Self {
            name,
            enabled: true,
            follows: Follows::Runtime,
            steps: false,
            endpoint: None,
            payload: UpdatePayload::Default,
        }
    }
}

impl BaseImageTrigger {
    /// What keeps the change of a base from starting the task.
    pub fn rule(&self, kind: BaseKind) -> Option<Rule> {
        match kind {
            _ if !self.enabled => Some(Rule::TriggerDisabled),
            BaseKind::Buildtime if self.follows == Follows::Runtime => Some(Rule::RuntimeOnly),
            BaseKind::Step if !self.steps => Some(Rule::NotSteps),
            BaseKind::Runtime | BaseKind::Buildtime | BaseKind::Step => None,
        }
    }

    /// With a change.
    #[must_use]
    pub fn changed(&self, change: BaseImageChange) -> Self {
        Self {
            name: change.name.unwrap_or_else(|| self.name.clone()),
            enabled: change.enabled.unwrap_or(self.enabled),
            follows: change.follows.unwrap_or(self.follows),
            steps: change.steps.unwrap_or(self.steps),
            endpoint: change.endpoint.unwrap_or_else(|| self.endpoint.clone()),
            payload: change.payload.unwrap_or(self.payload),
        }
    }
}
