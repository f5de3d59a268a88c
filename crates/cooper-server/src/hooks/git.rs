//! A task's repository as Git lists it: which branches and tags it has, and what it says to whom it does not let in.
//!
//! The repository's host is shown what a run of the task would show it: what the task itself keeps, else what its principal's
//! runs may use while that principal has a token with which they would begin. A repository whose runs succeed can be looked at.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_ports::store_error::StoreError;
use cooper_source::git::{CredentialSource, GitCredential, GitError, ListedReference};
use cooper_spec::source::RepositoryUrl;
use cooper_types::{SecretString, SourceHost};

use crate::core::Core;
use crate::orders::{credential_purpose, task_credential_purpose};
use crate::problem::chain;

/// Why a repository can't be listed.
pub(super) struct Unlisted {
    /// Whether it may be listed in a moment, without anybody changing anything.
    pub(super) is_passing: bool,
    /// Why, in words for the task's owner.
    pub(super) why: String,
}

/// The references whose names begin with one of these.
pub(super) async fn list(
    core: &Core,
    task: &Task,
    url: &RepositoryUrl,
    prefixes: &[&str],
) -> Result<Vec<ListedReference>, Unlisted> {
    let credentials = Credentials { core, task, is_withheld: AtomicBool::new(false) };
    let listed = cooper_source::git::references(&core.egress, &credentials, url, prefixes).await;
    listed.map_err(|error| {
        tracing::info!(task = %task.name, error = chain(&error), "task's repository can't be looked at");
        let mend = |host: &str| format!("`cooper task credential add --name {} --login-server {host}`", task.name);
        let why = match &error {
            GitError::CredentialsNeeded { host, .. } if credentials.is_withheld.load(Ordering::Relaxed) => {
                let principal = &task.principal;
                format!(
                    "`{host}` asks for a login, and {principal}'s is shown to nobody while no token of {principal} may \
                     start the task's runs: make one, or {} sets a login of the task's own",
                    mend(host)
                )
            }
            GitError::CredentialsNeeded { host, .. } => {
                format!(
                    "`{host}` asks for a login, and there is none that the task's runs may use: {} sets one",
                    mend(host)
                )
            }
            GitError::CredentialsRefused { host, .. } => {
                format!("`{host}` does not take the task's login: {} sets another", mend(host))
            }
            error => error.told(),
        };
        Unlisted { is_passing: error.is_transient() || error.is_fetchers_own(), why }
    })
}

/// What a repository's host is shown, and nobody else.
struct Credentials<'a> {
    core: &'a Core,
    task: &'a Task,
    /// Whether the principal's was not shown, as it has no token with which the task's runs would begin.
    is_withheld: AtomicBool,
}

impl Credentials<'_> {
    /// Whether the task's runs would begin.
    async fn may_run(&self) -> Result<bool, StoreError> {
        let (task, now) = (self.task, self.core.clock.now());
        let tokens = self.core.access.store().tokens_of(&task.principal).await?;
        let mut own = tokens.iter().filter(|token| token.is_active(now));
        Ok(own.any(|token| task.scopes.within(&token.scopes).run()))
    }
}

#[async_trait]
impl CredentialSource for Credentials<'_> {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        let Self { core, task, is_withheld } = self;
        let host = SourceHost::parse(host)?;
        let (username, sealed, purpose) = match core.statuses.task_token(&task.name, &host).await? {
            Some(token) => (token.username, token.sealed, task_credential_purpose(&task.name.key(), &host)),
            None => match core.credentials.credential_of(&task.principal, &host).await? {
                Some(_) if !self.may_run().await? => {
                    is_withheld.store(true, Ordering::Relaxed);
                    return Ok(None);
                }
                Some(kept) => {
                    tracing::info!(
                        task = %task.name, host = %host, principal = %task.principal,
                        "credential shown to look at a task's repository"
                    );
                    (kept.username, kept.sealed, credential_purpose(&host))
                }
                None => return Ok(None),
            },
        };
        let value = core.key.unseal(&purpose, &sealed)?;
        let password = SecretString::new(String::from_utf8(value.expose().to_vec())?);
        Ok(Some(GitCredential { username, password }))
    }
}
