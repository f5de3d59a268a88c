//! GitLab's events.

use cooper_engine::trigger::event::{
    ChangedFiles, HeadOwner, PullRequest, PullRequestAction, PullRequestSide, Push, RefChange, SourceChange,
    SourceEvent, TagPush,
};
use cooper_engine::trigger::repository::EventRepository;
use serde_json::Value;

use super::error::ParseError;
use super::node::{Node, cut_text};
use super::{Delivery, DeliveryId, Named, Request, other, other_action};

pub(super) fn delivery(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let header = request.needed_header("X-Gitlab-Event")?;
    // What is tried again has the same key. Older releases send none: there the event's own id is shared by all that one
    // hook sets off, and so counts only together with the body.
    let id = match request.header("webhook-id")?.or(request.header("Idempotency-Key")?) {
        Some(text) => request.id_of("Idempotency-Key", text)?,
        None => {
            let event = request.header("X-Gitlab-Event-UUID")?.unwrap_or_default();
            DeliveryId::of_parts(&[event.as_bytes(), request.body])
        }
    };
    let kind = request.node(header, value).text("object_kind")?.unwrap_or(header);
    let root = request.node(kind, value);
    let event = match kind {
        "push" | "tag_push" => push(&root)?,
        "merge_request" => merge_request(&root)?,
        name => other(name),
    };
    Ok(Delivery { id, events: vec![event] })
}

fn repository(part: &Node<'_>) -> Result<EventRepository, ParseError> {
    let name = part.needed_text("path_with_namespace")?;
    let urls = part.urls(&["git_http_url", "http_url", "git_ssh_url", "ssh_url", "web_url"]);
    if urls.is_empty() {
        return Err(part.missing("git_http_url"));
    }
    Ok(EventRepository { name: cut_text(name), urls, any_case: true })
}

fn push(root: &Node<'_>) -> Result<SourceEvent, ParseError> {
    let reference = root.needed_text("ref")?;
    // Whether a push was forced, GitLab does not say.
    let change = RefChange::between(root.object("before")?, root.object("after")?, false)
        .ok_or_else(|| root.invalid("after", "there is neither a commit before nor after"))?;
    let repository = Some(repository(&root.needed_part("project")?)?);
    let commits = root.items("commits")?;
    let head = root.object("checkout_sha")?;
    let message = head.as_ref().and_then(|head| {
        let found = commits.iter().find(|commit| commit.text("id").ok().flatten() == Some(head.as_str()));
        found.and_then(|commit| commit.message("message"))
    });
    let pusher = root.label("user_username").or_else(|| root.label("user_name"));
    let change = match Named::of(reference) {
        Named::Branch(branch) => SourceChange::Push(Push {
            branch: root.name("ref", branch)?,
            files: files(root, &commits, &change),
            change,
            message,
            pusher,
        }),
        Named::Tag(tag) => {
            SourceChange::Tag(TagPush { tag: root.name("ref", tag)?, change, commit: head, message, pusher })
        }
        Named::Else => SourceChange::Other { name: "push".to_owned() },
    };
    Ok(SourceEvent { repository, change })
}

/// The files of the push's commits, of which GitLab sends the newest twenty.
fn files(root: &Node<'_>, commits: &[Node<'_>], change: &RefChange) -> ChangedFiles {
    if !matches!(change, RefChange::Updated { .. }) {
        return ChangedFiles::unknown();
    }
    let mut files = ChangedFiles::whole();
    for commit in commits {
        commit.note_files(&mut files);
    }
    let total = root.count("total_commits_count");
    // A branch that moved without a commit was moved back.
    if commits.is_empty() || total.is_none_or(|total| total > commits.len() as u64) {
        files.is_missing_some();
    }
    files
}

fn merge_request(root: &Node<'_>) -> Result<SourceEvent, ParseError> {
    let merge = root.needed_part("object_attributes")?;
    let base = repository(&match merge.part("target") {
        Some(part) => part,
        None => root.needed_part("project")?,
    })?;
    let head = merge.part("source").map(|part| repository(&part)).transpose()?;
    let draft = merge.flag("draft") || merge.flag("work_in_progress");
    let action = match merge.text("action")?.unwrap_or_default() {
        "open" => PullRequestAction::Opened,
        "reopen" => PullRequestAction::Reopened,
        // The old commit is there when, and only when, commits were pushed.
        "update" if merge.has("oldrev") => PullRequestAction::Synchronized,
        "update" if !draft && was_draft(root) => PullRequestAction::Ready,
        name => other_action(name),
    };
    let is_fork = match (merge.count("source_project_id"), merge.count("target_project_id"), &head) {
        (Some(source), Some(target), Some(_)) => source != target,
        (_, _, Some(head)) => !head.name.eq_ignore_ascii_case(&base.name),
        (_, _, None) => true,
    };
    let change = PullRequest {
        number: merge.number("iid")?,
        action,
        draft,
        head: PullRequestSide {
            repository: head,
            branch: merge.branch("source_branch")?,
            commit: Some(merge.commit("last_commit.id")?),
        },
        base: PullRequestSide { repository: Some(base.clone()), branch: merge.branch("target_branch")?, commit: None },
        head_owner: HeadOwner::of(is_fork),
        title: merge.label("title").unwrap_or_default(),
        message: merge.message("last_commit.message"),
        author: root.label("user.username"),
        files: ChangedFiles::unknown(),
    };
    Ok(SourceEvent { repository: Some(base), change: SourceChange::PullRequest(Box::new(change)) })
}

fn was_draft(root: &Node<'_>) -> bool {
    root.flag("changes.draft.previous") || root.flag("changes.work_in_progress.previous")
}
