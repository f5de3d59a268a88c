//! What a webhook is told: which actions, and of which images.
//!
//! Actions and scopes have ACR's names and rules where ACR has them.

use std::fmt;

use cooper_types::{RepositoryName, Tag};
use serde::{Deserialize, Serialize};

/// Something that happened, as webhooks name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Action {
    /// A tag was pushed.
    Push,
    /// A manifest was deleted.
    Delete,
    /// A run has ended.
    RunFinished,
    /// A wave of base-image updates has ended.
    WaveFinished,
    /// A base image has set off a run: its task's own endpoint is told, and no webhook.
    ImageUpdate,
    /// Somebody tries the webhook.
    Ping,
}

impl Action {
    /// Those that a webhook can ask for.
    pub const ASKED_FOR: [Self; 4] = [Self::Push, Self::Delete, Self::RunFinished, Self::WaveFinished];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Delete => "delete",
            Self::RunFinished => "run_finished",
            Self::WaveFinished => "wave_finished",
            Self::ImageUpdate => "image_update",
            Self::Ping => "ping",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Result<Self, ActionError> {
        let mut all = Self::ASKED_FOR.into_iter().chain([Self::ImageUpdate, Self::Ping]);
        all.find(|action| action.as_str() == text).ok_or_else(|| ActionError(text.chars().take(80).collect()))
    }
}

/// Why a text is no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("action `{0}` is not push, delete, run_finished or wave_finished")]
pub struct ActionError(String);

impl TryFrom<String> for Action {
    type Error = ActionError;

    fn try_from(text: String) -> Result<Self, ActionError> {
        Self::parse(&text)
    }
}

impl From<Action> for &'static str {
    fn from(action: Action) -> Self {
        action.as_str()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Of which images a webhook is told. Runs and waves are told of in any scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Of all: the empty text.
    #[default]
    All,
    /// Of all tags of a repository: `repository:*`.
    Repository(RepositoryName),
    /// Of one tag: `repository:tag`; `repository` alone means its tag `latest`.
    Tag(RepositoryName, Tag),
}

/// Why a text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "scope `{0}` is not REPOSITORY:TAG, REPOSITORY:*, or REPOSITORY, which means its tag latest; an empty one means all"
)]
pub struct ScopeError(String);

impl Scope {
    /// Parses a scope.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.chars().take(160).collect());
        if text.is_empty() {
            return Ok(Self::All);
        }
        let (repository, tag) = text.split_once(':').unwrap_or((text, "latest"));
        let repository = RepositoryName::parse(repository).map_err(|_| error())?;
        match tag {
            "*" => Ok(Self::Repository(repository)),
            tag => Ok(Self::Tag(repository, Tag::parse(tag).map_err(|_| error())?)),
        }
    }

    /// Whether it covers an image. What has several tags, or none, is told of where one of them is covered, or all would be.
    pub fn covers<T: AsRef<str>>(&self, repository: &RepositoryName, tags: &[T]) -> bool {
        match self {
            Self::All => true,
            Self::Repository(name) => name == repository,
            Self::Tag(name, tag) => name == repository && tags.iter().any(|one| one.as_ref() == tag.as_str()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Repository(name) => write!(f, "{name}:*"),
            Self::Tag(name, tag) => write!(f, "{name}:{tag}"),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = ScopeError;

    fn try_from(text: String) -> Result<Self, ScopeError> {
        Self::parse(&text)
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_cover_what_acr_says() {
        let covers = |scope: &str, image: &str| {
            let (repository, tag) = image.split_once(':').unwrap_or((image, ""));
            let repository = RepositoryName::parse(repository).expect("valid");
            let tags: &[&str] = if tag.is_empty() { &[] } else { &[tag] };
            Scope::parse(scope).expect(scope).covers(&repository, tags)
        };
        for (scope, image, expect) in [
            ("", "team/app:v1", true),
            ("", "team/app", true),
            ("team/app:*", "team/app:v1", true),
            ("team/app:*", "team/app", true),
            ("team/app:*", "team/apps:v1", false),
            ("team/app:v1", "team/app:v1", true),
            ("team/app:v1", "team/app:v2", false),
            ("team/app:v1", "team/app", false),
            ("team/app", "team/app:latest", true),
            ("team/app", "team/app:v1", false),
        ] {
            assert_eq!(covers(scope, image), expect, "{scope} {image}");
        }
        for text in ["", "team/app:*", "team/app:v1"] {
            assert_eq!(Scope::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Scope::parse("app").expect("valid").to_string(), "app:latest");
        for text in ["*", "App:v1", "app:", "app:a b", "app:*:x", "team/*:v1"] {
            assert_eq!(Scope::parse(text), Err(ScopeError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn actions_have_names() {
        for action in Action::ASKED_FOR.into_iter().chain([Action::ImageUpdate, Action::Ping]) {
            assert_eq!(Action::parse(action.as_str()), Ok(action));
        }
        assert!(Action::parse("chart_push").is_err());
    }
}
