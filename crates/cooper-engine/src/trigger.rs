//! Source triggers: whether what happened in a repository starts a task, and if not, which rule said no.
//!
//! Owns the events' types, the settings and the rules. How a forge signs and writes events is `cooper-forge`'s; that one
//! event starts a task once is the store's. [`decide`] is pure and total: every event has an answer, and a reason in words.
//!
//! The rules are asked in a fixed order, the plainest first, and the first that says no is the one that is told:
//! enabled → kind of event → repository → action → branch or tag → fork → draft → `[skip ci]` → paths. What the first five say
//! no to is nothing for the task at all ([`hears`]); somebody will ask why the rest said no.

pub mod event;
pub mod filter;
pub mod name;
pub mod provider;
pub mod repository;
mod skip_ci;
mod verdict;

use event::{ChangedFiles, HeadOwner, PullRequest, PullRequestAction, Push, SourceChange, SourceEvent, TagPush};
use filter::{NameFilter, PathFilter};
use name::CommitId;
use repository::RepositoryUrl;
pub use skip_ci::skip_marker;
pub use verdict::{Definition, Firing, FiringKind, Refusal, Rule, Verdict};

/// What a task's source trigger listens to.
#[derive(Clone, Debug)]
pub struct SourceTrigger {
    /// Whether the task lets anything start it.
    pub task_enabled: bool,
    /// Whether it listens at all.
    pub enabled: bool,
    /// The repository of the task's context.
    pub repository: RepositoryUrl,
    /// Whether pushed commits start the task.
    pub commits: bool,
    /// Whether pull requests do.
    pub pull_requests: bool,
    /// Whether tags do.
    pub tags: bool,
    /// Which branches: pushed ones, and those that pull requests ask to be merged into.
    pub branch_filter: NameFilter,
    /// Which tags.
    pub tag_filter: NameFilter,
    /// Which changed files.
    pub path_filter: PathFilter,
    /// Whether drafts start the task too.
    pub drafts: bool,
    /// Whether a commit's author may ask for no run.
    pub honour_skip_ci: bool,
    /// What is done with pull requests of forks.
    pub forks: ForkRule,
}

/// What is done with pull requests of forks: anybody may open one, so its code is a stranger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkRule {
    /// They start nothing.
    Refuse,
    /// They run without secrets and pushes, in a pool that is marked for untrusted work.
    Untrusted {
        /// Whether the task's pool is.
        pool_is_marked: bool,
    },
}

/// Decides whether an event starts the task.
pub fn decide(trigger: &SourceTrigger, event: &SourceEvent) -> Verdict {
    match answer(trigger, event) {
        Ok(firing) => Verdict::Fires(Box::new(firing)),
        Err(refusal) => Verdict::No(refusal),
    }
}

fn answer(trigger: &SourceTrigger, event: &SourceEvent) -> Result<Firing, Refusal> {
    hears(trigger, event)?;
    match &event.change {
        SourceChange::Push(push) => answer_push(trigger, push),
        SourceChange::Tag(tag) => answer_tag(trigger, tag),
        SourceChange::PullRequest(pull) => answer_pull_request(trigger, pull),
        SourceChange::Ping | SourceChange::Other { .. } => {
            Err(Refusal::new(Rule::Event, "it starts no task".to_owned()))
        }
    }
}

/// Whether an event is what the trigger listens to: in its repository, of its kinds, on its branches and tags.
pub fn hears(trigger: &SourceTrigger, event: &SourceEvent) -> Result<(), Refusal> {
    if !trigger.task_enabled {
        return Err(Refusal::new(Rule::Enabled, "the task is disabled, until `cooper task enable`".to_owned()));
    }
    if !trigger.enabled {
        return Err(Refusal::new(Rule::Enabled, "the trigger is disabled".to_owned()));
    }
    let (listens, what) = match &event.change {
        SourceChange::Push(_) => (trigger.commits, "pushed commits"),
        SourceChange::PullRequest(_) => (trigger.pull_requests, "pull requests"),
        SourceChange::Tag(_) => (trigger.tags, "tags"),
        SourceChange::Ping => return Err(Refusal::new(Rule::Event, "the forge only tried the hook".to_owned())),
        SourceChange::Other { name } => {
            return Err(Refusal::new(Rule::Event, format!("events `{name}` start no task")));
        }
    };
    if !listens {
        return Err(Refusal::new(Rule::Event, format!("the trigger does not listen to {what}")));
    }
    match &event.repository {
        Some(repository) if repository.is_at(&trigger.repository) => {}
        Some(repository) => {
            let (other, own) = (&repository.name, &trigger.repository);
            return Err(Refusal::new(Rule::Repository, format!("it happened in {other}, the task's is {own}")));
        }
        None => return Err(Refusal::new(Rule::Repository, "it names no repository".to_owned())),
    }
    match &event.change {
        SourceChange::Push(push) => {
            pushed(push)?;
            check_branch(trigger, push.branch.as_str())
        }
        SourceChange::Tag(tag) => {
            tagged(tag)?;
            match trigger.tag_filter.why_not(tag.tag.as_str()) {
                Some(why) => Err(Refusal::new(Rule::Tag, format!("tag {} {why}", tag.tag))),
                None => Ok(()),
            }
        }
        SourceChange::PullRequest(pull) => {
            asked(pull)?;
            check_branch(trigger, pull.base.branch.as_str())
        }
        SourceChange::Ping | SourceChange::Other { .. } => Ok(()),
    }
}

/// The commit that a push ends at.
fn pushed(push: &Push) -> Result<&CommitId, Refusal> {
    let deleted = || Refusal::new(Rule::Action, format!("branch {} was deleted", push.branch));
    push.change.after().ok_or_else(deleted)
}

/// What a tag points at.
fn tagged(pushed: &TagPush) -> Result<&CommitId, Refusal> {
    pushed.change.after().ok_or_else(|| Refusal::new(Rule::Action, format!("tag {} was deleted", pushed.tag)))
}

/// The commit that a pull request asks to be merged, where something about its code has changed.
fn asked(pull: &PullRequest) -> Result<&CommitId, Refusal> {
    let number = pull.number;
    match &pull.action {
        PullRequestAction::Opened
        | PullRequestAction::Synchronized
        | PullRequestAction::Reopened
        | PullRequestAction::Ready => {}
        PullRequestAction::Other { name } => {
            return Err(Refusal::new(Rule::Action, format!("`{name}` of pull request {number} changes no code")));
        }
    }
    let unnamed = || Refusal::new(Rule::Action, format!("pull request {number} names no commit"));
    pull.head.commit.as_ref().ok_or_else(unnamed)
}

fn answer_push(trigger: &SourceTrigger, push: &Push) -> Result<Firing, Refusal> {
    let branch = &push.branch;
    let after = pushed(push)?;
    check_skip(trigger, push.message.as_deref(), &format!("commit {}", after.short()))?;
    let notes = check_paths(trigger, &push.files)?;
    Ok(Firing {
        kind: FiringKind::Commit { branch: branch.clone() },
        commit: after.clone(),
        before: push.change.before().cloned(),
        definition: Definition::Commit,
        untrusted: false,
        notes,
    })
}

/// Tags have no changed files: what was built before is another tag, or nothing.
fn answer_tag(trigger: &SourceTrigger, pushed: &TagPush) -> Result<Firing, Refusal> {
    let tag = &pushed.tag;
    let after = tagged(pushed)?;
    check_skip(trigger, pushed.message.as_deref(), &format!("the commit of tag {tag}"))?;
    Ok(Firing {
        kind: FiringKind::Tag { tag: tag.clone() },
        commit: pushed.commit.as_ref().unwrap_or(after).clone(),
        before: pushed.change.before().cloned(),
        definition: Definition::Commit,
        untrusted: false,
        notes: Vec::new(),
    })
}

fn answer_pull_request(trigger: &SourceTrigger, pull: &PullRequest) -> Result<Firing, Refusal> {
    let number = pull.number;
    let what = format!("pull request {number}");
    let commit = asked(pull)?.clone();
    let is_stranger = pull.head_owner.is_stranger();
    if is_stranger {
        check_fork(trigger.forks, &what, pull)?;
    }
    if pull.draft && !trigger.drafts {
        return Err(Refusal::new(Rule::Draft, format!("{what} is a draft")));
    }
    // Most forges send no commit's message with a pull request: its title stands for it.
    check_skip(trigger, Some(pull.message.as_deref().unwrap_or(&pull.title)), &what)?;
    let mut notes = check_paths(trigger, &pull.files)?;
    notes.extend(unknown(&pull.head_owner).map(|unknown| format!("it counts as a fork's: {unknown}")));
    let base = Definition::Base { branch: pull.base.branch.clone(), commit: pull.base.commit.clone() };
    Ok(Firing {
        kind: FiringKind::PullRequest {
            number,
            head: pull.head.branch.clone(),
            base: pull.base.branch.clone(),
            fork: is_stranger
                .then(|| pull.head.repository.as_ref().map(|repository| repository.name.clone()))
                .flatten(),
        },
        commit,
        before: None,
        definition: if is_stranger { base } else { Definition::Commit },
        untrusted: is_stranger,
        notes,
    })
}

fn check_fork(rule: ForkRule, what: &str, pull: &PullRequest) -> Result<(), Refusal> {
    let whose = match (unknown(&pull.head_owner), &pull.head.repository) {
        (Some(unknown), _) => format!("may come from a fork ({unknown})"),
        (None, Some(fork)) => format!("comes from a fork ({})", fork.name),
        (None, None) => "comes from a fork (one that is gone)".to_owned(),
    };
    let why = match rule {
        ForkRule::Untrusted { pool_is_marked: true } => return Ok(()),
        ForkRule::Untrusted { pool_is_marked: false } => "the task's pool is not marked for untrusted work",
        ForkRule::Refuse => "the task runs no pull requests of forks",
    };
    Err(Refusal::new(Rule::Fork, format!("{what} {whose}, and {why}")))
}

/// Why it is not known whose a pull request is, where it is not.
fn unknown(owner: &HeadOwner) -> Option<String> {
    match owner {
        HeadOwner::Base | HeadOwner::Fork => None,
        HeadOwner::Unsaid => Some("the forge does not say".to_owned()),
        HeadOwner::Unconfirmed { why } => Some(format!("the forge does not say, and {why}")),
    }
}

fn check_branch(trigger: &SourceTrigger, branch: &str) -> Result<(), Refusal> {
    match trigger.branch_filter.why_not(branch) {
        Some(why) => Err(Refusal::new(Rule::Branch, format!("branch {branch} {why}"))),
        None => Ok(()),
    }
}

fn check_skip(trigger: &SourceTrigger, message: Option<&str>, what: &str) -> Result<(), Refusal> {
    match message.filter(|_| trigger.honour_skip_ci).and_then(skip_marker) {
        Some(marker) => Err(Refusal::new(Rule::SkipCi, format!("{what} says `{marker}`"))),
        None => Ok(()),
    }
}

/// A list that is not whole can't say no: a run too many is seen, one too few is not.
fn check_paths(trigger: &SourceTrigger, files: &ChangedFiles) -> Result<Vec<String>, Refusal> {
    let filter = &trigger.path_filter;
    if filter.is_empty() || files.iter().any(|(path, _)| filter.takes(path)) {
        return Ok(Vec::new());
    }
    if !files.complete() {
        let note = "path filters were passed over: the forge did not list all changed files";
        return Ok(vec![note.to_owned()]);
    }
    let text = match files.iter().next() {
        None => "no file was changed".to_owned(),
        Some((first, _)) if files.len() == 1 => format!("the one changed file, {first:?}, passes no path filter"),
        Some((first, _)) => {
            format!("none of the {} changed files, such as {first:?}, passes the path filters", files.len())
        }
    };
    Err(Refusal::new(Rule::Paths, text))
}
