//! Whose code a pull request is where its forge leaves that out: the repository's own if its branch of that name is at the
//! pull request's commit, because then somebody who may write to it has put that there. Whatever can't be found out is a
//! stranger's.

use std::time::Duration;

use cooper_engine::task::Task;
use cooper_engine::trigger::event::{HeadOwner, PullRequest, SourceChange, SourceEvent};
use cooper_source::git::ListedReference;

use super::git::{self, Unlisted};
use crate::core::Core;

/// How long the repository may take to answer: the task's next deliveries wait for it.
const TIME: Duration = Duration::from_secs(10);

/// The pull requests of which it is not known whose they are.
pub(super) fn unknown(events: &mut [SourceEvent]) -> impl Iterator<Item = &mut PullRequest> {
    events.iter_mut().filter_map(|event| match &mut event.change {
        SourceChange::PullRequest(pull) if pull.head_owner == HeadOwner::Unsaid => Some(&mut **pull),
        _ => None,
    })
}

/// Finds out whose they are. If that may be found out in a moment, it is not settled here.
pub(super) async fn find_out(core: &Core, task: &Task, events: &mut [SourceEvent]) -> Result<(), Unlisted> {
    let prefixes: Vec<String> = unknown(events).map(|pull| branch(pull)).collect();
    if prefixes.is_empty() {
        return Ok(());
    }
    let listed = match task.source.as_ref().and_then(|source| source.repository()) {
        None => Err(Unlisted { is_passing: false, why: "the task's context is no Git repository any more".to_owned() }),
        Some(url) => {
            let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            let listed = git::list(core, task, url, &prefixes);
            tokio::time::timeout(TIME, listed).await.unwrap_or_else(|_| {
                let why = format!("`{}` did not answer within {} s", url.host(), TIME.as_secs());
                Err(Unlisted { is_passing: true, why })
            })
        }
    };
    let listed = listed?;
    unknown(events).for_each(|pull| settle(pull, &listed));
    Ok(())
}

/// Treats them as strangers', because it can't be found out.
pub(super) fn give_up(events: &mut [SourceEvent], why: &str) {
    for pull in unknown(events) {
        pull.head_owner = HeadOwner::Unconfirmed { why: format!("its repository can't be asked: {why}") };
    }
}

/// Settles whose one is by the branches of its repository.
pub(super) fn settle(pull: &mut PullRequest, branches: &[ListedReference]) {
    let (name, commit) = (branch(pull), pull.head.commit.as_ref());
    let is_at = |listed: &ListedReference| listed.name == name && commit.is_some_and(|at| at.as_str() == listed.id);
    pull.head_owner = match branches.iter().any(is_at) {
        true => HeadOwner::Base,
        false => {
            let at = commit.map_or("its commit", |commit| commit.short());
            HeadOwner::Unconfirmed { why: format!("no branch {} of the repository is at {at}", pull.head.branch) }
        }
    };
}

/// The branch that the repository would have it at, by its full name.
pub(super) fn branch(pull: &PullRequest) -> String {
    format!("refs/heads/{}", pull.head.branch)
}
