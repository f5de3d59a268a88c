//! Bitbucket Cloud's events.

use cooper_engine::trigger::event::{
    ChangedFiles, HeadOwner, PullRequest, PullRequestAction, PullRequestSide, Push, RefChange, SourceChange,
    SourceEvent, TagPush,
};
use cooper_engine::trigger::repository::{EventRepository, RepositoryUrl};
use serde_json::Value;

use super::error::ParseError;
use super::node::{Node, cut_text};
use super::{Delivery, MAX_EVENTS, Request, other, other_action};

pub(super) fn delivery(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let event = request.needed_header("X-Event-Key")?;
    let id = request.id("X-Request-UUID")?;
    let root = request.node(event, value);
    let events = match event {
        "repo:push" => push(&root)?,
        "pullrequest:created" => vec![pull_request(&root, PullRequestAction::Opened)?],
        // It does not say whether a commit or a word was changed.
        "pullrequest:updated" => vec![pull_request(&root, PullRequestAction::Synchronized)?],
        "pullrequest:fulfilled" | "pullrequest:rejected" => vec![pull_request(&root, other_action(event))?],
        name => vec![other(name)],
    };
    Ok(Delivery { id, events })
}

fn repository(part: &Node<'_>) -> Result<EventRepository, ParseError> {
    let name = part.needed_text("full_name")?;
    let mut urls = part.urls(&["links.html.href"]);
    if urls.is_empty() {
        let url = RepositoryUrl::parse(&format!("https://bitbucket.org/{name}"));
        urls.push(url.map_err(|error| part.invalid("full_name", error))?);
    }
    Ok(EventRepository { name: cut_text(name), urls, any_case: true })
}

/// One event for each reference that changed.
fn push(root: &Node<'_>) -> Result<Vec<SourceEvent>, ParseError> {
    if !root.has("push.changes") {
        return Err(root.missing("push.changes"));
    }
    let repository = repository(&root.needed_part("repository")?)?;
    let pusher = root.label("actor.nickname").or_else(|| root.label("actor.display_name"));
    let changes = root.items("push.changes")?;
    if changes.len() > MAX_EVENTS {
        return Err(root.too_many());
    }
    let mut events = Vec::new();
    for item in changes {
        let (old, new) = (item.part("old"), item.part("new"));
        let named = new.as_ref().or(old.as_ref()).ok_or_else(|| item.missing("new"))?;
        let commit = |side: &Option<Node<'_>>| side.as_ref().map(|side| side.commit("target.hash")).transpose();
        let change =
            RefChange::between(commit(&old)?, commit(&new)?, item.flag("forced")).ok_or_else(|| item.missing("new"))?;
        let message = new.as_ref().and_then(|new| new.message("target.message"));
        let pusher = pusher.clone();
        let change = match named.needed_text("type")? {
            "branch" | "named_branch" => SourceChange::Push(Push {
                branch: named.branch("name")?,
                change,
                // It lists commits without their files.
                files: ChangedFiles::unknown(),
                message,
                pusher,
            }),
            "tag" | "annotated_tag" => {
                let commit = change.after().cloned();
                SourceChange::Tag(TagPush {
                    tag: named.name("name", named.needed_text("name")?)?,
                    change,
                    commit,
                    message,
                    pusher,
                })
            }
            name => SourceChange::Other { name: cut_text(name) },
        };
        events.push(SourceEvent { repository: Some(repository.clone()), change });
    }
    Ok(events)
}

fn pull_request(root: &Node<'_>, action: PullRequestAction) -> Result<SourceEvent, ParseError> {
    let pull = root.needed_part("pullrequest")?;
    let whole = repository(&root.needed_part("repository")?)?;
    let (head, base) = (pull.needed_part("source")?, pull.needed_part("destination")?);
    let head_repository = head.part("repository").map(|part| repository(&part)).transpose()?;
    let id = |side: &Node<'_>| side.label("repository.uuid");
    let is_fork = match (&head_repository, id(&head), id(&base)) {
        (Some(_), Some(head), Some(base)) => head != base,
        (Some(head), _, _) => !head.name.eq_ignore_ascii_case(&whole.name),
        (None, _, _) => true,
    };
    let change = PullRequest {
        number: pull.number("id")?,
        action,
        draft: pull.flag("draft"),
        head: PullRequestSide {
            repository: head_repository,
            branch: head.branch("branch.name")?,
            commit: Some(head.commit("commit.hash")?),
        },
        base: PullRequestSide {
            repository: Some(whole.clone()),
            branch: base.branch("branch.name")?,
            commit: base.object("commit.hash")?,
        },
        head_owner: HeadOwner::of(is_fork),
        title: pull.label("title").unwrap_or_default(),
        message: None,
        author: root.label("actor.nickname").or_else(|| root.label("actor.display_name")),
        files: ChangedFiles::unknown(),
    };
    Ok(SourceEvent { repository: Some(whole), change: SourceChange::PullRequest(Box::new(change)) })
}
