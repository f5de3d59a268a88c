//! The events of Bitbucket Server and Data Center.

use cooper_engine::trigger::event::{
    ChangedFiles, HeadOwner, PullRequest, PullRequestAction, PullRequestSide, Push, RefChange, SourceChange,
    SourceEvent, TagPush,
};
use cooper_engine::trigger::repository::EventRepository;
use serde_json::Value;

use super::error::ParseError;
use super::node::{Node, cut_text};
use super::{Delivery, MAX_EVENTS, Named, Request, other, other_action};

pub(super) fn delivery(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let event = request.needed_header("X-Event-Key")?;
    let id = request.id("X-Request-Id")?;
    let root = request.node(event, value);
    let events = match event {
        "repo:refs_changed" => refs_changed(&root)?,
        "pr:opened" => vec![pull_request(&root, PullRequestAction::Opened)?],
        "pr:from_ref_updated" => vec![pull_request(&root, PullRequestAction::Synchronized)?],
        "pr:reopened" => vec![pull_request(&root, PullRequestAction::Reopened)?],
        "pr:modified" => {
            let was_draft = root.flag("previousDraft") && !root.flag("pullRequest.draft");
            let action = if was_draft { PullRequestAction::Ready } else { other_action(event) };
            vec![pull_request(&root, action)?]
        }
        "diagnostics:ping" => vec![SourceEvent { repository: None, change: SourceChange::Ping }],
        name => vec![other(name)],
    };
    Ok(Delivery { id, events })
}

fn repository(part: &Node<'_>) -> Result<EventRepository, ParseError> {
    let (project, slug) = (part.needed_text("project.key")?, part.needed_text("slug")?);
    // Older releases send no links: then the name has to do.
    let mut urls = Vec::new();
    for link in part.items("links.clone")? {
        urls.extend(link.urls(&["href"]));
    }
    Ok(EventRepository { name: cut_text(&format!("{project}/{slug}")), urls, any_case: true })
}

/// One event for each reference that changed.
fn refs_changed(root: &Node<'_>) -> Result<Vec<SourceEvent>, ParseError> {
    if !root.has("changes") {
        return Err(root.missing("changes"));
    }
    let repository = repository(&root.needed_part("repository")?)?;
    let pusher = root.label("actor.name").or_else(|| root.label("actor.displayName"));
    let changes = root.items("changes")?;
    if changes.len() > MAX_EVENTS {
        return Err(root.too_many());
    }
    let mut events = Vec::new();
    for item in changes {
        let change = RefChange::between(item.object("fromHash")?, item.object("toHash")?, false)
            .ok_or_else(|| item.missing("toHash"))?;
        // Newer releases send the last commit, of one reference alone.
        let message = match (root.text("toCommit.id")?, change.after()) {
            (Some(id), Some(after)) if id == after.as_str() => root.message("toCommit.message"),
            _ => None,
        };
        let pusher = pusher.clone();
        let reference = item.needed_text("ref.id")?;
        let change = match Named::of(reference) {
            Named::Branch(branch) => SourceChange::Push(Push {
                branch: item.name("ref.id", branch)?,
                change,
                files: ChangedFiles::unknown(),
                message,
                pusher,
            }),
            Named::Tag(tag) => {
                SourceChange::Tag(TagPush { tag: item.name("ref.id", tag)?, change, commit: None, message, pusher })
            }
            Named::Else => SourceChange::Other { name: "repo:refs_changed".to_owned() },
        };
        events.push(SourceEvent { repository: Some(repository.clone()), change });
    }
    Ok(events)
}

fn pull_request(root: &Node<'_>, action: PullRequestAction) -> Result<SourceEvent, ParseError> {
    let pull = root.needed_part("pullRequest")?;
    let (head, base) = (pull.needed_part("fromRef")?, pull.needed_part("toRef")?);
    let head_repository = head.part("repository").map(|part| repository(&part)).transpose()?;
    let whole = repository(&base.needed_part("repository")?)?;
    let is_fork = match (&head_repository, head.count("repository.id"), base.count("repository.id")) {
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
            branch: head.branch("id")?,
            commit: Some(head.commit("latestCommit")?),
        },
        base: PullRequestSide {
            repository: Some(whole.clone()),
            branch: base.branch("id")?,
            commit: base.object("latestCommit")?,
        },
        head_owner: HeadOwner::of(is_fork),
        title: pull.label("title").unwrap_or_default(),
        message: None,
        author: root.label("actor.name").or_else(|| root.label("actor.displayName")),
        files: ChangedFiles::unknown(),
    };
    Ok(SourceEvent { repository: Some(whole), change: SourceChange::PullRequest(Box::new(change)) })
}
