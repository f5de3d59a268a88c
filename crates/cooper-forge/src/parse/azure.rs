//! The events of Azure DevOps' service hooks.

use cooper_engine::trigger::event::{
    ChangedFiles, HeadOwner, PullRequest, PullRequestAction, PullRequestSide, Push, RefChange, SourceChange,
    SourceEvent, TagPush,
};
use cooper_engine::trigger::repository::EventRepository;
use serde_json::Value;

use super::error::ParseError;
use super::node::{Node, cut_text};
use super::{Delivery, DeliveryId, MAX_EVENTS, Named, Request, other, other_action};

pub(super) fn delivery(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let event = request.node("event", value).needed_text("eventType")?;
    let root = request.node(event, value);
    let id = root.needed_text("id")?;
    let id = DeliveryId::parse(id).ok_or_else(|| root.invalid("id", "it is not 1 to 200 visible characters"))?;
    let events = match event {
        "git.push" => push(&root)?,
        "git.pullrequest.created" => vec![pull_request(&root, PullRequestAction::Opened)?],
        // It says only in its text for people whether a commit or a vote came. One that is over starts nothing.
        "git.pullrequest.updated" if root.text("resource.status")?.is_none_or(|status| status == "active") => {
            vec![pull_request(&root, PullRequestAction::Synchronized)?]
        }
        "git.pullrequest.updated" => vec![pull_request(&root, other_action(event))?],
        name => vec![other(name)],
    };
    Ok(Delivery { id, events })
}

fn repository(part: &Node<'_>) -> Result<EventRepository, ParseError> {
    let name = part.needed_text("name")?;
    // The `url` of an answer is the API's, not the repository's.
    let urls = part.urls(&["remoteUrl", "sshUrl", "webUrl"]);
    if urls.is_empty() {
        return Err(part.missing("remoteUrl"));
    }
    let name = match part.text("project.name")? {
        Some(project) => format!("{project}/{name}"),
        None => name.to_owned(),
    };
    Ok(EventRepository { name: cut_text(&name), urls, any_case: true })
}

/// One event for each reference that changed.
fn push(root: &Node<'_>) -> Result<Vec<SourceEvent>, ParseError> {
    let resource = root.needed_part("resource")?;
    if !resource.has("refUpdates") {
        return Err(resource.missing("refUpdates"));
    }
    let repository = repository(&resource.needed_part("repository")?)?;
    let pusher = resource.label("pushedBy.uniqueName").or_else(|| resource.label("pushedBy.displayName"));
    let commits = resource.items("commits")?;
    let updates = resource.items("refUpdates")?;
    if updates.len() > MAX_EVENTS {
        return Err(root.too_many());
    }
    let mut events = Vec::new();
    for item in updates {
        let change = RefChange::between(item.object("oldObjectId")?, item.object("newObjectId")?, false)
            .ok_or_else(|| item.missing("newObjectId"))?;
        let after = change.after().map(|commit| commit.as_str());
        let head = commits.iter().find(|commit| after.is_some() && commit.text("commitId").ok().flatten() == after);
        let message = head.and_then(|commit| commit.message("comment"));
        let pusher = pusher.clone();
        let change = match Named::of(item.needed_text("name")?) {
            Named::Branch(branch) => SourceChange::Push(Push {
                branch: item.name("name", branch)?,
                change,
                // It lists commits without their files.
                files: ChangedFiles::unknown(),
                message,
                pusher,
            }),
            Named::Tag(tag) => {
                SourceChange::Tag(TagPush { tag: item.name("name", tag)?, change, commit: None, message, pusher })
            }
            Named::Else => SourceChange::Other { name: "git.push".to_owned() },
        };
        events.push(SourceEvent { repository: Some(repository.clone()), change });
    }
    Ok(events)
}

fn pull_request(root: &Node<'_>, action: PullRequestAction) -> Result<SourceEvent, ParseError> {
    let pull = root.needed_part("resource")?;
    let whole = repository(&pull.needed_part("repository")?)?;
    let fork = pull.part("forkSource");
    // It says of no pull request that it is the repository's own, and nothing that is public promises that each fork is named.
    let head_owner = if pull.has("forkSource") { HeadOwner::Fork } else { HeadOwner::Unsaid };
    // Nobody needs a fork's name to refuse it.
    let head_repository = fork.and_then(|fork| repository(&fork.part("repository")?).ok());
    let change = PullRequest {
        number: pull.number("pullRequestId")?,
        action,
        draft: pull.flag("isDraft"),
        head: PullRequestSide {
            repository: head_repository,
            branch: pull.branch("sourceRefName")?,
            commit: Some(pull.commit("lastMergeSourceCommit.commitId")?),
        },
        base: PullRequestSide {
            repository: Some(whole.clone()),
            branch: pull.branch("targetRefName")?,
            commit: pull.object("lastMergeTargetCommit.commitId")?,
        },
        head_owner,
        title: pull.label("title").unwrap_or_default(),
        message: None,
        author: pull.label("createdBy.uniqueName").or_else(|| pull.label("createdBy.displayName")),
        files: ChangedFiles::unknown(),
    };
    Ok(SourceEvent { repository: Some(whole), change: SourceChange::PullRequest(Box::new(change)) })
}
