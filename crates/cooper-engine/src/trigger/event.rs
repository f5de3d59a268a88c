//! What happened in a repository, in one form for all forges.
//!
//! Owns the types and the limits of what is kept. How a forge writes it down is `cooper-forge`'s, what follows from it
//! is [`super::decide`]'s. Everything here was said by somebody outside: names are valid names, texts have limits, and
//! nothing of it is trusted to be true beyond the signature that it came with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::name::{CommitId, RefName};
use super::repository::EventRepository;

/// The most changed files that are kept of one event; a longer list counts as incomplete.
pub const MAX_FILES: usize = 10_000;
/// The longest path of a changed file, in bytes.
pub const MAX_PATH: usize = 4096;
/// How long the paths of one event's changed files may be together, in bytes: what waits is kept in the store.
pub const MAX_PATHS: usize = 256 << 10;
/// The longest commit message that is kept, in bytes.
pub const MAX_MESSAGE: usize = 16 << 10;
/// The longest title, name of a person or name of an event, in bytes.
pub const MAX_TEXT: usize = 512;

/// One event of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceEvent {
    /// Where it happened: for a pull request, where it asks to be merged. Some forges' pings name none.
    pub repository: Option<EventRepository>,
    /// What happened.
    pub change: SourceChange,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceChange {
    /// A branch was created, moved or deleted.
    Push(Push),
    /// A tag was created, moved or deleted.
    Tag(TagPush),
    /// Something about a pull request (GitLab: merge request).
    PullRequest(Box<PullRequest>),
    /// The forge tries the hook.
    Ping,
    /// Anything else, by the forge's own name.
    Other {
        /// The event's name.
        name: String,
    },
}

/// What became of a reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefChange {
    /// It was not there before.
    Created {
        /// Where it points.
        after: CommitId,
    },
    /// It moved.
    Updated {
        /// Where it pointed.
        before: CommitId,
        /// Where it points.
        after: CommitId,
        /// Whether it moved to what is no descendant, as far as the forge tells; few do.
        forced: bool,
    },
    /// It is gone.
    Deleted {
        /// Where it pointed, if the forge says so.
        before: Option<CommitId>,
    },
}

impl SourceEvent {
    /// How many changed files it names.
    pub fn files(&self) -> usize {
        match &self.change {
            SourceChange::Push(push) => push.files.len(),
            SourceChange::PullRequest(pull) => pull.files.len(),
            SourceChange::Tag(_) | SourceChange::Ping | SourceChange::Other { .. } => 0,
        }
    }

    /// What happened, in a few words.
    pub fn what(&self) -> String {
        let of = |kind: &str, name: &RefName, change: &RefChange| match change {
            RefChange::Created { after } => format!("{kind} {name} was created at {}", after.short()),
            RefChange::Updated { after, .. } => format!("{kind} {name} moved to {}", after.short()),
            RefChange::Deleted { .. } => format!("{kind} {name} was deleted"),
        };
        match &self.change {
            SourceChange::Push(push) => of("branch", &push.branch, &push.change),
            SourceChange::Tag(tag) => of("tag", &tag.tag, &tag.change),
            SourceChange::PullRequest(pull) => {
                let at = pull.head.commit.as_ref().map(|commit| format!(" at {}", commit.short())).unwrap_or_default();
                let action = match &pull.action {
                    PullRequestAction::Opened => "opened",
                    PullRequestAction::Synchronized => "synchronised",
                    PullRequestAction::Reopened => "reopened",
                    PullRequestAction::Ready => "ready",
                    PullRequestAction::Other { name } => name,
                };
                format!("pull request {} into {}: {action}{at}", pull.number, pull.base.branch)
            }
            SourceChange::Ping => "ping".to_owned(),
            SourceChange::Other { name } => format!("event {name}"),
        }
    }
}

impl RefChange {
    /// Reads what forges say: no commit (or zeros) before is a creation, none after a deletion. Neither is nothing.
    pub fn between(before: Option<CommitId>, after: Option<CommitId>, forced: bool) -> Option<Self> {
        match (before, after) {
            (None, Some(after)) => Some(Self::Created { after }),
            (Some(before), Some(after)) => Some(Self::Updated { before, after, forced }),
            (Some(before), None) => Some(Self::Deleted { before: Some(before) }),
            (None, None) => None,
        }
    }

    /// Where the reference points now.
    pub fn after(&self) -> Option<&CommitId> {
        match self {
            Self::Created { after } | Self::Updated { after, .. } => Some(after),
            Self::Deleted { .. } => None,
        }
    }

    /// Where the reference pointed.
    pub fn before(&self) -> Option<&CommitId> {
        match self {
            Self::Created { .. } => None,
            Self::Updated { before, .. } => Some(before),
            Self::Deleted { before } => before.as_ref(),
        }
    }
}

/// A branch that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The branch.
    pub branch: RefName,
    /// What became of it; `after` is the head commit of the push.
    pub change: RefChange,
    /// The files that differ.
    pub files: ChangedFiles,
    /// The head commit's message, if the forge sends it.
    pub message: Option<String>,
    /// Who pushed, as the forge names them.
    pub pusher: Option<String>,
}

/// A tag that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagPush {
    /// The tag.
    pub tag: RefName,
    /// What became of it; an annotated tag points at an object of its own.
    pub change: RefChange,
    /// The commit that the tag leads to, if the forge says it; else what it points at will lead there.
    pub commit: Option<CommitId>,
    /// The commit's message, if the forge sends it.
    pub message: Option<String>,
    /// Who pushed, as the forge names them.
    pub pusher: Option<String>,
}

/// Something about a pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Its number in the base repository.
    pub number: u64,
    /// What happened.
    pub action: PullRequestAction,
    /// Whether it is marked as not ready.
    pub draft: bool,
    /// What is asked to be merged.
    pub head: PullRequestSide,
    /// Where it is to be merged.
    pub base: PullRequestSide,
    /// Whose the head is. What was kept before there was such a field is nobody's until that is known.
    #[serde(default)]
    pub head_owner: HeadOwner,
    /// Its title.
    pub title: String,
    /// The head commit's message, if the forge sends it.
    pub message: Option<String>,
    /// Who set the event off, as the forge names them.
    pub author: Option<String>,
    /// The files that differ.
    pub files: ChangedFiles,
}

/// Whose code the head of a pull request is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadOwner {
    /// The base's repository's.
    Base,
    /// Another repository's, or that of one that is gone: a stranger's.
    Fork,
    /// The forge does not say: a stranger's, until a branch of the base's repository is found at its commit.
    #[default]
    Unsaid,
    /// The forge does not say, and no such branch was found: a stranger's.
    Unconfirmed {
        /// Why it was not, as a clause for people.
        why: String,
    },
}

impl HeadOwner {
    /// Whose it is where that is said.
    pub fn of(is_fork: bool) -> Self {
        if is_fork { Self::Fork } else { Self::Base }
    }

    /// Whether it has to be treated as a stranger's.
    pub fn is_stranger(&self) -> bool {
        *self != Self::Base
    }
}

/// What happened to a pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestAction {
    /// It was opened.
    Opened,
    /// Its head may have moved. Azure DevOps and Bitbucket Cloud don't tell a moved head from an edited text: then the
    /// commit tells whether it was seen before.
    Synchronized,
    /// It was opened again.
    Reopened,
    /// It is no draft any more.
    Ready,
    /// Anything else, by the forge's own name.
    Other {
        /// The action's name.
        name: String,
    },
}

/// One side of a pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestSide {
    /// The repository; nothing if it is gone, or if the forge does not say which it is.
    pub repository: Option<EventRepository>,
    /// The branch.
    pub branch: RefName,
    /// The commit. Bitbucket Cloud shortens it, GitLab does not tell the base's.
    pub commit: Option<CommitId>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// It is new.
    Added,
    /// It has another content.
    Modified,
    /// It is gone.
    Removed,
}

/// The files that differ, as far as a forge tells them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ChangedFiles {
    paths: BTreeMap<String, FileChange>,
    complete: bool,
    /// The paths' bytes, counted while they are noted.
    #[serde(skip)]
    bytes: usize,
}

impl PartialEq for ChangedFiles {
    fn eq(&self, other: &Self) -> bool {
        (&self.paths, self.complete) == (&other.paths, other.complete)
    }
}

impl Eq for ChangedFiles {}

impl ChangedFiles {
    /// Files of which it is not known whether they are all: what a forge gives that lists none.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// The beginning of a list that is taken to be whole until something is missing in it.
    pub fn whole() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// Notes a file. Of a file that several commits change, the last change counts. What breaks a limit is left out, and
    /// the list is then incomplete.
    pub fn note(&mut self, path: &str, change: FileChange) {
        if let Some(known) = self.paths.get_mut(path) {
            *known = change;
            return;
        }
        let is_over = self.paths.len() >= MAX_FILES || self.bytes + path.len() > MAX_PATHS;
        if path.is_empty() || path.len() > MAX_PATH || is_over {
            self.complete = false;
            return;
        }
        self.bytes += path.len();
        self.paths.insert(path.to_owned(), change);
    }

    /// Says that there are more files than these.
    pub fn is_missing_some(&mut self) {
        self.complete = false;
    }

    /// Whether these are all.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// The files and what became of each, in order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FileChange)> {
        self.paths.iter().map(|(path, change)| (path.as_str(), *change))
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_files_says_when_something_is_missing_in_it() {
        let mut files = ChangedFiles::whole();
        files.note("a", FileChange::Added);
        files.note("a", FileChange::Removed);
        assert_eq!(files.iter().collect::<Vec<_>>(), [("a", FileChange::Removed)]);
        assert!(files.complete());
        files.note(&"x".repeat(MAX_PATH + 1), FileChange::Added);
        assert!(!files.complete());
        let mut files = ChangedFiles::whole();
        for number in 0..MAX_FILES {
            files.note(&format!("{number}"), FileChange::Added);
        }
        files.note("0", FileChange::Modified);
        assert!(files.complete());
        files.note("one more", FileChange::Added);
        assert!(!files.complete());
        assert_eq!(files.len(), MAX_FILES);
        let mut files = ChangedFiles::whole();
        for number in 0..MAX_PATHS / 1000 {
            files.note(&format!("{number:01000}"), FileChange::Added);
        }
        assert!(files.complete());
        files.note(&"x".repeat(1000), FileChange::Added);
        assert!(!files.complete());
    }

    #[test]
    fn zeros_are_creations_and_deletions() {
        let (a, b) = (CommitId::parse(&"a".repeat(40)).unwrap(), CommitId::parse(&"b".repeat(40)).unwrap());
        let change = RefChange::between(None, Some(b.clone()), false).unwrap();
        assert_eq!((change.before(), change.after()), (None, Some(&b)));
        let change = RefChange::between(Some(a.clone()), Some(b.clone()), true).unwrap();
        assert_eq!((change.before(), change.after()), (Some(&a), Some(&b)));
        let change = RefChange::between(Some(a.clone()), None, false).unwrap();
        assert_eq!((change.before(), change.after()), (Some(&a), None));
        assert_eq!(RefChange::between(None, None, false), None);
    }
}
