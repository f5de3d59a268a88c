//! Which changes of base images start a task.

use std::fmt;

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
    /// Who is told of the runs that it sets off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<TaskEndpoint>,
    /// How much is told.
    #[serde(default)]
    pub payload: UpdatePayload,
}

/// Who is told of the runs that a trigger sets off. An address may be a secret, as those of chats are: nothing of it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TaskEndpoint {
    /// As it is kept.
    Sealed {
        /// The host, with the port where that is not the scheme's own.
        host: String,
        /// The address, and what requests are signed with: in base64, encrypted by the server.
        sealed: String,
    },
    /// An http or https address: as it is asked for, and as older releases kept it.
    Plain(String),
}

impl fmt::Debug for TaskEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sealed { .. } => "Sealed",
            Self::Plain(_) => "Plain",
        })
    }
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
    pub endpoint: Option<Option<TaskEndpoint>>,
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
    pub fn rules(&self, kind: BaseKind) -> impl Iterator<Item = Rule> + use<> {
        let disabled = (!self.enabled).then_some(Rule::TriggerDisabled);
        let unfollowed = match kind {
            BaseKind::Buildtime if self.follows == Follows::Runtime => Some(Rule::RuntimeOnly),
            BaseKind::Step if !self.steps => Some(Rule::NotSteps),
            BaseKind::Runtime | BaseKind::Buildtime | BaseKind::Step => None,
        };
        disabled.into_iter().chain(unfollowed)
    }

    /// Whether the change of a base starts the task.
    pub fn is_started_by(&self, kind: BaseKind) -> bool {
        self.rules(kind).next().is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_of_an_older_release_is_read_and_none_is_shown() {
        let plain: TaskEndpoint = serde_json::from_str(r#""https://chat.example/t0ken""#).expect("a text");
        assert_eq!(plain, TaskEndpoint::Plain("https://chat.example/t0ken".to_owned()));
        let sealed = TaskEndpoint::Sealed { host: "chat.example".to_owned(), sealed: "AAAA".to_owned() };
        let text = serde_json::to_string(&sealed).expect("JSON");
        assert_eq!(serde_json::from_str::<TaskEndpoint>(&text).expect("read"), sealed);
        let trigger = BaseImageTrigger { endpoint: Some(plain), ..BaseImageTrigger::default() };
        assert!(!format!("{trigger:?}").contains("t0ken"));
    }
}
