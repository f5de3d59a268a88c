//! Finds pushes that no delivery told of, by looking at the branches of tasks' repositories now and then.
//!
//! What was there when a task was first looked at counts as dealt with. A commit that is new is given the time of a look: its
//! delivery may be on its way, and knows more of it. Then it is treated as a push whose changed files are not known. Tags and
//! pull requests are not looked for: what they point at is told in too many ways to know the same again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_engine::trigger::event::{ChangedFiles, Push, RefChange, SourceChange, SourceEvent};
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_engine::trigger::repository::{EventRepository, RepositoryUrl};
use cooper_ports::branches::SeenBranch;
use cooper_ports::store_error::StoreError;
use cooper_source::git::{CredentialSource, GitCredential};
use cooper_spec::source::RemoteSource;
use cooper_types::{SecretString, SourceHost, TaskName};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{Started, Told, start};
use crate::core::Core;
use crate::orders::task_credential_purpose;
use crate::problem::chain;

/// How often repositories are looked at.
pub(super) const PERIOD: Duration = Duration::from_secs(600);
/// The first look after a start: what was pushed while no server ran.
const FIRST: Duration = Duration::from_secs(30);
/// The look after one that found something new.
const SOON: Duration = Duration::from_secs(60);
/// Repositories that are looked at a time.
const AT_ONCE: usize = 4;
/// How long one may take.
const TIME: Duration = Duration::from_secs(60);
/// Branches of a repository that are looked at.
const MOST: usize = 5000;

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut wait = FIRST;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let found = tokio::select! {
            () = shutdown.cancelled() => return,
            found = look(&core) => found,
        };
        wait = match found {
            Ok(true) => SOON,
            Ok(false) => PERIOD,
            Err(error) => {
                tracing::error!(error = chain(&error), "repositories can't be looked at; trying again");
                SOON
            }
        };
    }
}

/// Looks at all repositories, and tells whether something new is there.
pub(super) async fn look(core: &Arc<Core>) -> Result<bool, StoreError> {
    let tasks = core.tasks.list_tasks().await?.into_iter().map(|record| record.task);
    let listening = tasks.filter(|task| task.enabled && listens(task));
    let looks = futures::stream::iter(listening).map(|task| async move { look_at(core, &task).await });
    let found: Vec<Result<bool, StoreError>> = looks.buffer_unordered(AT_ONCE).collect().await;
    let mut any = false;
    for found in found {
        any |= found?;
    }
    Ok(any)
}

fn listens(task: &Task) -> bool {
    task.sources.values().any(|settings| settings.enabled && settings.commits)
}

/// Looks at a task's repository. One that can't be looked at is left for the next time.
async fn look_at(core: &Arc<Core>, task: &Task) -> Result<bool, StoreError> {
    let Some(RemoteSource::Git(context)) = &task.source else { return Ok(false) };
    let credentials = TaskCredentials { core, task: &task.name };
    let listed = cooper_source::git::branches(&core.egress, &credentials, &context.url);
    let listed = match tokio::time::timeout(TIME, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            tracing::info!(task = %task.name, error = chain(&error), "task's repository can't be looked at");
            return Ok(false);
        }
        Err(_) => {
            tracing::info!(task = %task.name, "task's repository does not answer in time");
            return Ok(false);
        }
    };
    let there: BTreeMap<RefName, CommitId> = listed
        .into_iter()
        .filter_map(|(name, commit)| Some((RefName::parse(&name).ok()?, CommitId::parse(&commit).ok()?)))
        .take(MOST)
        .collect();
    compare(core, task, there).await
}

/// Deals with what is there and was not before, and tells whether something has to wait for the next look.
pub(super) async fn compare(
    core: &Arc<Core>,
    task: &Task,
    there: BTreeMap<RefName, CommitId>,
) -> Result<bool, StoreError> {
    let known = core.branches.seen_branches(&task.name).await?;
    let is_first = known.is_empty();
    let gone = known.iter().filter(|seen| !there.contains_key(&seen.branch)).map(|seen| seen.branch.clone()).collect();
    let known: BTreeMap<RefName, SeenBranch> = known.into_iter().map(|seen| (seen.branch.clone(), seen)).collect();
    let (mut changed, mut found) = (Vec::new(), false);
    for (branch, commit) in there {
        let earlier = known.get(&branch);
        let done = earlier.and_then(|earlier| earlier.done.clone());
        if is_first {
            changed.push(SeenBranch { branch, done: Some(commit), seen: None });
        } else if done.as_ref() == Some(&commit) {
            if earlier.is_some_and(|earlier| earlier.seen.is_some()) {
                changed.push(SeenBranch { branch, done, seen: None });
            }
        } else if deal_with(core, task, &branch, &commit, earlier).await? {
            changed.push(SeenBranch { branch, done: Some(commit), seen: None });
        } else {
            found = true;
            changed.push(SeenBranch { branch, done, seen: Some(commit) });
        }
    }
    core.branches.put_branches(&task.name, changed, gone).await?;
    Ok(found)
}

/// Deals with a branch that is elsewhere than before; not yet where its delivery may be on its way.
async fn deal_with(
    core: &Arc<Core>,
    task: &Task,
    branch: &RefName,
    commit: &CommitId,
    earlier: Option<&SeenBranch>,
) -> Result<bool, StoreError> {
    let Some(event) = push(task, branch, commit, earlier.and_then(|earlier| earlier.done.as_ref())) else {
        return Ok(true);
    };
    for provider in task.providers() {
        // Whatever a rule says no to needs no delivery.
        let Ok(fired) = task.fires(provider, &event, |_| false) else { continue };
        if core.hook_store.run_of_event(&task.name, &fired.firing.key()).await?.is_some() {
            continue;
        }
        if earlier.is_none_or(|earlier| earlier.seen.as_ref() != Some(commit)) {
            return Ok(false);
        }
        tracing::warn!(task = %task.name, branch = %branch, commit = commit.short(), "no delivery told of a push: found by looking");
        let told = Told { delivery: None, at: core.clock.now() };
        match start(core, task, provider, *fired, told).await? {
            Started::Run(_) | Started::Known(_) => {}
            Started::No(why) => {
                tracing::warn!(task = %task.name, branch = %branch, why, "a push that was found started no run");
            }
            Started::Later => return Ok(false),
        }
    }
    Ok(true)
}

/// The push that nobody told of, as far as it can be known.
fn push(task: &Task, branch: &RefName, commit: &CommitId, before: Option<&CommitId>) -> Option<SourceEvent> {
    let Some(RemoteSource::Git(context)) = &task.source else { return None };
    let url = RepositoryUrl::parse(&context.url.to_string()).ok()?;
    let repository = EventRepository { name: url.path().to_owned(), urls: vec![url], any_case: true };
    let change = RefChange::between(before.cloned(), Some(commit.clone()), false)?;
    let push = Push { branch: branch.clone(), change, files: ChangedFiles::unknown(), message: None, pusher: None };
    Some(SourceEvent { repository: Some(repository), change: SourceChange::Push(push) })
}

/// What a task keeps for its repository's host, which is shown to that host alone.
struct TaskCredentials<'a> {
    core: &'a Core,
    task: &'a TaskName,
}

#[async_trait]
impl CredentialSource for TaskCredentials<'_> {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn std::error::Error + Send + Sync>> {
        let host = SourceHost::parse(host)?;
        let Some(token) = self.core.statuses.task_token(self.task, &host).await? else { return Ok(None) };
        let value = self.core.key.unseal(&task_credential_purpose(&self.task.key(), &host), &token.sealed)?;
        let password = SecretString::new(String::from_utf8(value.expose().to_vec())?);
        Ok(Some(GitCredential { username: token.username, password }))
    }
}
