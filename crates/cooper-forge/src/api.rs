//! What forges take: commit statuses, webhooks; and what they are asked: open pull requests.
//!
//! Owns each forge's REST interface for these, and what its errors mean. Where a request may go is the [`Outgoing`] port's:
//! every request, octocrab's too, goes through what is passed in.

mod azure;
mod bitbucket_cloud;
mod bitbucket_server;
mod error;
mod gitea;
mod github;
mod gitlab;
mod place;
mod pulls;
mod rest;

use std::sync::Arc;

use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::name::CommitId;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::outgoing::Outgoing;
use cooper_types::{SecretBytes, SecretString};

pub use error::{ForgeError, Operation, RetryAt};
pub use place::{ForgePlace, PlaceError};
use rest::Rest;

/// What a commit's status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusState {
    /// Queued or running.
    Pending,
    /// The run succeeded.
    Success,
    /// A step failed.
    Failure,
    /// The run was not carried out: cancelled, timed out, an error of the machinery.
    Error,
}

impl StatusState {
    /// The name in records, as GitHub has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
        }
    }
}

/// A commit's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitStatus {
    /// What it says.
    pub state: StatusState,
    /// One line for people; cut to what the forge takes.
    pub description: String,
    /// What tells it from other statuses of the commit: the same context replaces.
    pub context: String,
    /// Where more is said: the run's page.
    pub target_url: String,
}

/// A hook to be registered.
#[derive(Clone, Debug)]
pub struct NewHook {
    /// Where deliveries go.
    pub url: String,
    /// What they are signed with.
    pub secret: SecretBytes,
    /// Whether pushed commits are sent; at most forges tags come with them.
    pub commits: bool,
    /// Whether tags are sent.
    pub tags: bool,
    /// Whether pull requests are sent.
    pub pull_requests: bool,
}

/// A registered hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The forge's id for it.
    pub id: String,
    /// Where deliveries go.
    pub url: String,
    /// Whether it is in use: forges switch off hooks that fail for long.
    pub active: bool,
}

/// A repository's forge, with a token.
#[derive(Clone)]
pub struct ForgeApi {
    rest: Rest,
}

impl ForgeApi {
    /// An interface that sends its requests through this client.
    pub fn new(place: ForgePlace, token: SecretString, http: Arc<dyn Outgoing>) -> Self {
        Self { rest: Rest::new(place, token, http) }
    }

    /// Whose repository it is.
    pub fn place(&self) -> &ForgePlace {
        self.rest.place()
    }

    /// Sets a commit's status, in place of the one of the same context.
    pub async fn set_status(&self, commit: &CommitId, status: &CommitStatus) -> Result<(), ForgeError> {
        match self.rest.provider() {
            Provider::GitHub => github::set_status(&self.rest, commit, status).await,
            Provider::GitLab => gitlab::set_status(&self.rest, commit, status).await,
            Provider::Gitea => gitea::set_status(&self.rest, commit, status).await,
            Provider::BitbucketCloud => bitbucket_cloud::set_status(&self.rest, commit, status).await,
            Provider::BitbucketServer => bitbucket_server::set_status(&self.rest, commit, status).await,
            Provider::AzureDevops => azure::set_status(&self.rest, commit, status).await,
            Provider::Generic => Err(self.rest.unsupported("commit statuses")),
        }
    }

    /// Registers a hook. Azure DevOps has one for each kind of event, hence several ids.
    pub async fn create_hook(&self, hook: &NewHook) -> Result<Vec<String>, ForgeError> {
        match self.rest.provider() {
            Provider::GitHub => github::create_hook(&self.rest, hook).await,
            Provider::GitLab => gitlab::create_hook(&self.rest, hook).await,
            Provider::Gitea => gitea::create_hook(&self.rest, hook).await,
            Provider::BitbucketCloud => bitbucket_cloud::create_hook(&self.rest, hook).await,
            Provider::BitbucketServer => bitbucket_server::create_hook(&self.rest, hook).await,
            Provider::AzureDevops => azure::create_hook(&self.rest, hook).await,
            Provider::Generic => Err(self.rest.unsupported("registration of hooks")),
        }
    }

    /// The repository's hooks, also those of others.
    pub async fn hooks(&self) -> Result<Vec<Hook>, ForgeError> {
        match self.rest.provider() {
            Provider::GitHub => github::hooks(&self.rest).await,
            Provider::GitLab => gitlab::hooks(&self.rest).await,
            Provider::Gitea => gitea::hooks(&self.rest).await,
            Provider::BitbucketCloud => bitbucket_cloud::hooks(&self.rest).await,
            Provider::BitbucketServer => bitbucket_server::hooks(&self.rest).await,
            Provider::AzureDevops => azure::hooks(&self.rest).await,
            Provider::Generic => Err(self.rest.unsupported("list of hooks")),
        }
    }

    /// Removes a hook. One that is gone already is no error.
    pub async fn delete_hook(&self, id: &str) -> Result<(), ForgeError> {
        let deleted = match self.rest.provider() {
            Provider::GitHub => github::delete_hook(&self.rest, id).await,
            Provider::GitLab => gitlab::delete_hook(&self.rest, id).await,
            Provider::Gitea => gitea::delete_hook(&self.rest, id).await,
            Provider::BitbucketCloud => bitbucket_cloud::delete_hook(&self.rest, id).await,
            Provider::BitbucketServer => bitbucket_server::delete_hook(&self.rest, id).await,
            Provider::AzureDevops => azure::delete_hook(&self.rest, id).await,
            Provider::Generic => Err(self.rest.unsupported("removal of hooks")),
        };
        match deleted {
            Err(ForgeError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Has this hook registered and none beside it that is the same one: those whose URL `is_own` knows are changed, or
    /// removed once it is there. Not all forges let a hook's secret be changed, and GitHub takes no second one of a URL.
    pub async fn replace_hook(&self, hook: &NewHook, is_own: impl Fn(&str) -> bool + Send) -> Result<(), ForgeError> {
        let own: Vec<Hook> = self.hooks().await?.into_iter().filter(|hook| is_own(&hook.url)).collect();
        if let (Provider::GitHub, [first, others @ ..]) = (self.rest.provider(), &own[..]) {
            github::update_hook(&self.rest, &first.id, hook).await?;
            return self.delete_hooks(others).await;
        }
        match self.create_hook(hook).await {
            Err(ForgeError::Exists { .. }) if !own.is_empty() => {
                self.delete_hooks(&own).await?;
                self.create_hook(hook).await.map(drop)
            }
            made => {
                made?;
                self.delete_hooks(&own).await
            }
        }
    }

    /// Removes the hooks whose URL `is_own` knows.
    pub async fn remove_hooks(&self, is_own: impl Fn(&str) -> bool + Send) -> Result<(), ForgeError> {
        let own: Vec<Hook> = self.hooks().await?.into_iter().filter(|hook| is_own(&hook.url)).collect();
        self.delete_hooks(&own).await
    }

    async fn delete_hooks(&self, hooks: &[Hook]) -> Result<(), ForgeError> {
        for hook in hooks {
            self.delete_hook(&hook.id).await?;
        }
        Ok(())
    }

    /// The open pull requests, as a hook would tell of each, to find what no delivery told of; nothing if they are more than
    /// a thousand.
    pub async fn pull_requests(&self) -> Result<Option<Vec<SourceEvent>>, ForgeError> {
        pulls::open(&self.rest).await
    }
}

/// The beginning of a text, of at most so many characters.
fn cut(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    text.chars().take(limit - 1).chain(std::iter::once('…')).collect()
}
