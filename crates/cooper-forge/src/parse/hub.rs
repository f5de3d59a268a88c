//! GitHub's events, and Gitea's and Forgejo's, which are made like them.

use cooper_engine::trigger::event::{
    ChangedFiles, HeadOwner, PullRequest, PullRequestAction, PullRequestSide, Push, RefChange, SourceChange,
    SourceEvent, TagPush,
};
use cooper_engine::trigger::provider::Provider;
use cooper_engine::trigger::repository::EventRepository;
use serde_json::Value;

use super::error::ParseError;
use super::node::Node;
use super::{Delivery, MAX_ITEMS, Named, Request, other, other_action};

/// A push with this many commits may have had more (GitHub).
const COMMITS_LISTED: usize = 2048;
/// A commit with this many files may have had more (GitHub).
const FILES_LISTED: usize = 3000;

pub(super) fn github(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let event = request.needed_header("X-GitHub-Event")?;
    let id = request.id("X-GitHub-Delivery")?;
    Ok(Delivery { id, events: vec![event_of(request, event, value)?] })
}

pub(super) fn gitea(request: &Request<'_>, value: &Value) -> Result<Delivery, ParseError> {
    let (event, id) = match request.header("X-Forgejo-Event")? {
        Some(event) => (event, request.id("X-Forgejo-Delivery")?),
        None => (request.needed_header("X-Gitea-Event")?, request.id("X-Gitea-Delivery")?),
    };
    Ok(Delivery { id, events: vec![event_of(request, event, value)?] })
}

fn event_of(request: &Request<'_>, event: &str, value: &Value) -> Result<SourceEvent, ParseError> {
    let root = Node::root(request.provider, event, value);
    match event {
        "push" => push(request.provider, &root),
        // Gitea's names for what happens to a pull request's head, beside its `pull_request`.
        "pull_request" | "pull_request_sync" => pull_request(request.provider, &root),
        // An organisation's hook has no repository.
        "ping" => {
            let repository = root.part("repository").map(|part| repository(&part)).transpose()?;
            Ok(SourceEvent { repository, change: SourceChange::Ping })
        }
        name => Ok(other(name)),
    }
}

fn repository(part: &Node<'_>) -> Result<EventRepository, ParseError> {
    let name = part.needed_text("full_name")?;
    let urls = part.urls(&["clone_url", "ssh_url", "html_url"]);
    if urls.is_empty() {
        return Err(part.missing("clone_url"));
    }
    Ok(EventRepository { name: super::node::cut_text(name), urls, any_case: true })
}

fn push(provider: Provider, root: &Node<'_>) -> Result<SourceEvent, ParseError> {
    let reference = root.needed_text("ref")?;
    let change = RefChange::between(root.object("before")?, root.object("after")?, root.flag("forced"))
        .ok_or_else(|| root.invalid("after", "there is neither a commit before nor after"))?;
    let repository = Some(repository(&root.needed_part("repository")?)?);
    let message = || root.message("head_commit.message");
    let pusher = ["pusher.name", "pusher.login", "pusher.username", "sender.login"];
    let pusher = pusher.into_iter().find_map(|path| root.label(path));
    let change = match Named::of(reference) {
        Named::Branch(branch) => SourceChange::Push(Push {
            branch: root.name("ref", branch)?,
            files: files(provider, root, &change)?,
            message: message(),
            change,
            pusher,
        }),
        Named::Tag(tag) => SourceChange::Tag(TagPush {
            tag: root.name("ref", tag)?,
            // Of an annotated tag, `after` is the tag's own object at GitHub.
            commit: match root.has("head_commit.id") {
                true => root.object("head_commit.id")?,
                false => None,
            },
            message: message(),
            change,
            pusher,
        }),
        Named::Else => SourceChange::Other { name: "push".to_owned() },
    };
    Ok(SourceEvent { repository, change })
}

/// The files of the push's commits. They are all only between two known ends, when every commit is listed, and none was
/// taken away.
fn files(provider: Provider, root: &Node<'_>, change: &RefChange) -> Result<ChangedFiles, ParseError> {
    let RefChange::Updated { forced, .. } = change else { return Ok(ChangedFiles::unknown()) };
    let mut files = ChangedFiles::whole();
    let commits = root.items("commits")?;
    for commit in &commits {
        if commit.note_files(&mut files) >= FILES_LISTED {
            files.is_missing_some();
        }
    }
    let all_listed = match provider {
        Provider::Gitea => {
            commits.len() < MAX_ITEMS && root.count("total_commits").is_none_or(|total| total <= commits.len() as u64)
        }
        _ => commits.len() < COMMITS_LISTED,
    };
    // A branch that moved without a commit was moved back.
    if *forced || commits.is_empty() || !all_listed {
        files.is_missing_some();
    }
    Ok(files)
}

fn pull_request(provider: Provider, root: &Node<'_>) -> Result<SourceEvent, ParseError> {
    let pull = root.needed_part("pull_request")?;
    let (head, base) = (pull.needed_part("head")?, pull.needed_part("base")?);
    let whole = repository(&root.needed_part("repository")?)?;
    let head_repository = head.part("repo").map(|part| repository(&part)).transpose()?;
    let id = |side: &Node<'_>| side.count("repo.id");
    let is_fork = match (&head_repository, id(&head), id(&base)) {
        (Some(_), Some(head), Some(base)) => head != base,
        (Some(head), _, _) => !head.name.eq_ignore_ascii_case(&whole.name),
        // Whatever it was, it is gone.
        (None, _, _) => true,
    };
    let draft = pull.flag("draft");
    let action = match root.needed_text("action")? {
        "opened" => PullRequestAction::Opened,
        "synchronize" | "synchronized" => PullRequestAction::Synchronized,
        "reopened" => PullRequestAction::Reopened,
        "ready_for_review" => PullRequestAction::Ready,
        // At Gitea a draft is a title.
        "edited" if provider == Provider::Gitea && !draft && was_draft(root) => PullRequestAction::Ready,
        name => other_action(name),
    };
    let change = PullRequest {
        number: pull.number("number")?,
        action,
        draft,
        head: PullRequestSide {
            repository: head_repository,
            branch: head.branch("ref")?,
            commit: Some(head.commit("sha")?),
        },
        base: PullRequestSide {
            repository: Some(whole.clone()),
            branch: base.branch("ref")?,
            commit: base.object("sha")?,
        },
        head_owner: HeadOwner::of(is_fork),
        title: pull.label("title").unwrap_or_default(),
        message: None,
        author: root.label("sender.login").or_else(|| pull.label("user.login")),
        files: ChangedFiles::unknown(),
    };
    Ok(SourceEvent { repository: Some(whole), change: SourceChange::PullRequest(Box::new(change)) })
}

/// Whether the title that was there before is one of a draft by Gitea's usual prefixes.
fn was_draft(root: &Node<'_>) -> bool {
    let title = root.label("changes.title.from").unwrap_or_default().to_ascii_uppercase();
    title.starts_with("WIP:") || title.starts_with("[WIP]")
}
