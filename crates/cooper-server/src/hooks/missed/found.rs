//! What is in a task's repository, each with the event that would have told of it.

use std::collections::BTreeMap;

use cooper_engine::task::Task;
use cooper_engine::trigger::event::{ChangedFiles, HeadOwner, Push, RefChange, SourceChange, SourceEvent, TagPush};
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_engine::trigger::provider::Provider;
use cooper_engine::trigger::repository::{EventRepository, RepositoryUrl};
use cooper_forge::api::ForgeError;
use cooper_ports::references::{Reference, ReferenceKind};
use cooper_ports::store_error::StoreError;
use cooper_source::git::ListedReference;
use cooper_spec::source::RemoteSource;

use super::{Look, MOST, listens};
use crate::core::Core;
use crate::hooks::git::{self, Unlisted};
use crate::hooks::{forges, whose};
use crate::problem::chain;

/// What is there.
pub(in crate::hooks) struct There {
    /// Where it points: of an annotated tag, the tag's own object.
    pub(super) at: CommitId,
    /// The commit that an annotated tag leads to: some forges tell of that.
    peeled: Option<CommitId>,
    /// What would have told of it.
    pub(super) event: SourceEvent,
    /// Who would have; anybody if it is not said.
    pub(super) provider: Option<Provider>,
}

impl There {
    /// Whether it points there.
    pub(super) fn is_at(&self, commit: &CommitId) -> bool {
        self.at == *commit || self.peeled.as_ref() == Some(commit)
    }
}

/// All that is there of a kind.
pub(in crate::hooks) type Found = BTreeMap<Reference, There>;

impl Look {
    /// The branches and tags of a task's repository; if it can't be looked at, why not.
    pub(super) async fn list(&self, core: &Core, task: &Task) -> Result<Vec<ListedReference>, String> {
        let Some(RemoteSource::Git(context)) = &task.source else {
            return Err("the task's context is no Git repository any more".to_owned());
        };
        let listed = git::list(core, task, &context.url, &["refs/heads/", "refs/tags/"]);
        self.wait(task, &context.url.host(), listed).await?.map_err(|unlisted| unlisted.why)
    }

    /// The open pull requests, or why they can't be looked at; nothing where there is nobody to ask, or no token to do it with.
    pub(super) async fn pull_requests(
        &self,
        core: &Core,
        task: &Task,
    ) -> Result<Option<Result<Found, String>>, StoreError> {
        let Some(repository) = repository(task) else { return Ok(None) };
        let Some(url) = task.source.as_ref().and_then(|source| source.repository()) else { return Ok(None) };
        let mut all: Option<Result<Found, String>> = None;
        let listening = |provider: &Provider| listens(task, ReferenceKind::PullRequests, Some(*provider));
        for provider in task.providers().into_iter().filter(listening) {
            let Ok((_, host)) = forges::place(provider, &url.to_string()) else { continue };
            let limited = (host, task.principal.clone());
            if self.hosts().limited.contains(&limited) {
                return Ok(Some(Err(format!("`{}` takes no more requests with this token for now", limited.0))));
            }
            let api = match forges::of_task(core, &task.name, provider, &url.to_string()).await? {
                Ok(Some(api)) => api,
                Ok(None) => continue,
                Err(why) => {
                    all.get_or_insert(Err(why));
                    continue;
                }
            };
            let mut listed = match self.wait(task, &url.host(), api.pull_requests()).await {
                Ok(Ok(Some(listed))) => listed,
                Ok(Ok(None)) => {
                    return Ok(Some(Err("it has too many open pull requests to be looked at".to_owned())));
                }
                Ok(Err(error)) => {
                    if matches!(error, ForgeError::RateLimited { .. }) {
                        self.hosts().limited.insert(limited);
                    }
                    tracing::info!(task = %task.name, error = chain(&error), "task's pull requests can't be looked at");
                    return Ok(Some(Err(error.told())));
                }
                Err(why) => return Ok(Some(Err(why))),
            };
            if whose::unknown(&mut listed).next().is_some() {
                let branches = git::list(core, task, url, &["refs/heads/"]);
                match self.wait(task, &url.host(), branches).await {
                    Ok(Ok(branches)) => whose::unknown(&mut listed).for_each(|pull| whose::settle(pull, &branches)),
                    Ok(Err(Unlisted { why, .. })) | Err(why) => return Ok(Some(Err(why))),
                }
            }
            let of = |event: SourceEvent| {
                let SourceChange::PullRequest(pull) = &event.change else { return None };
                // Its branch may have moved between the two lists: another look will know more.
                if matches!(pull.head_owner, HeadOwner::Unconfirmed { .. }) {
                    return None;
                }
                let (reference, at) = (Reference::PullRequest(pull.number), pull.head.commit.clone()?);
                // It was asked of this repository.
                let event = SourceEvent { repository: Some(repository.clone()), ..event };
                Some((reference, There { at, peeled: None, event, provider: Some(provider) }))
            };
            let found = listed.into_iter().filter_map(of);
            match &mut all {
                Some(Ok(all)) => all.extend(found),
                // Another kind of forge is not this one.
                Some(Err(_)) | None => all = Some(Ok(found.collect())),
            }
        }
        Ok(all)
    }
}

/// The branches, or the tags, of a list; if they are too many, that: of a part it is not known what is new in it.
pub(in crate::hooks) fn listed(task: &Task, kind: ReferenceKind, list: &[ListedReference]) -> Result<Found, String> {
    let no_repository = || "the task's context is no repository that events could name".to_owned();
    let repository = repository(task).ok_or_else(no_repository)?;
    let (prefix, what) = match kind {
        ReferenceKind::Branches => ("refs/heads/", "branches"),
        ReferenceKind::Tags => ("refs/tags/", "tags"),
        ReferenceKind::PullRequests => return Err("Git lists no pull requests".to_owned()),
    };
    let commit = |id: &str| CommitId::parse(id).ok();
    let of = |listed: &ListedReference| {
        let name = RefName::parse(listed.name.strip_prefix(prefix)?).ok()?;
        let (at, peeled) = (commit(&listed.id)?, listed.peeled.as_deref().and_then(commit));
        let change = RefChange::Created { after: at.clone() };
        let (message, pusher) = (None, None);
        let (reference, change) = match kind {
            ReferenceKind::Tags => {
                let commit = Some(peeled.clone().unwrap_or_else(|| at.clone()));
                let pushed = TagPush { tag: name.clone(), change, commit, message, pusher };
                (Reference::Tag(name), SourceChange::Tag(pushed))
            }
            ReferenceKind::Branches | ReferenceKind::PullRequests => {
                let files = ChangedFiles::unknown();
                let push = Push { branch: name.clone(), change, files, message, pusher };
                (Reference::Branch(name), SourceChange::Push(push))
            }
        };
        let event = SourceEvent { repository: Some(repository.clone()), change };
        Some((reference, There { at, peeled, event, provider: None }))
    };
    let found: Found = list.iter().filter_map(of).take(MOST + 1).collect();
    if found.len() > MOST {
        return Err(format!("it has more than {MOST} {what}, which is too many to be looked at"));
    }
    Ok(found)
}

/// The task's repository, as an event would name it.
fn repository(task: &Task) -> Option<EventRepository> {
    let url = task.source.as_ref()?.repository()?;
    let url = RepositoryUrl::parse(&url.to_string()).ok()?;
    Some(EventRepository { name: url.path().to_owned(), urls: vec![url], any_case: true })
}
