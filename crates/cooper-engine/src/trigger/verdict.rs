//! What the rules answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{CommitId, RefName};

/// The answer to an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It starts the task.
    Fires(Box<Firing>),
    /// It does not.
    No(Refusal),
}

/// A run that an event asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// What set it off.
    pub kind: FiringKind,
    /// The commit to build: the head of the push, the tag's, or the pull request's head.
    pub commit: CommitId,
    /// What the branch or the tag stood at before, where the forge says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<CommitId>,
    /// Where the task's definition is read.
    pub definition: Definition,
    /// Whether the code is a stranger's: no secrets, no pushes, and only a pool that is marked for such work.
    pub untrusted: bool,
    /// What somebody who asks why it ran should know besides.
    pub notes: Vec<String>,
}

/// What set a run off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FiringKind {
    /// A push to a branch.
    Commit {
        /// The branch.
        branch: RefName,
    },
    /// A tag.
    Tag {
        /// The tag.
        tag: RefName,
    },
    /// A pull request.
    PullRequest {
        /// Its number.
        number: u64,
        /// The branch that is asked to be merged.
        head: RefName,
        /// The branch that it is to be merged into.
        base: RefName,
        /// The repository that the head is in, if that is another one that still exists.
        fork: Option<String>,
    },
}

/// Where a task's definition (task file, Dockerfile) is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Definition {
    /// In the commit that is built.
    Commit,
    /// In the branch that a fork's pull request asks to be merged into: a stranger must not choose what is run.
    Base {
        /// The branch.
        branch: RefName,
        /// The commit that it was at, if the forge says it.
        commit: Option<CommitId>,
    },
}

/// A no, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule that said it.
    pub rule: Rule,
    /// Why, for people: a clause without a full stop.
    pub text: String,
}

/// The rules, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Whether the trigger is enabled.
    Enabled,
    /// Which kinds of events it listens to.
    Event,
    /// Whose events.
    Repository,
    /// What happened: a deleted branch has nothing to build, a label changes no code.
    Action,
    /// The branch filter.
    Branch,
    /// The tag filter.
    Tag,
    /// Pull requests of forks.
    Fork,
    /// Drafts.
    Draft,
    /// `[skip ci]` and its like.
    SkipCi,
    /// The path filters.
    Paths,
    /// Whether something newer has started a run: of what is sent again.
    Newer,
}

impl Refusal {
    /// A no.
    pub fn new(rule: Rule, text: String) -> Self {
        Self { rule, text }
    }
}

impl FiringKind {
    /// How the keys of all events of the same branch, tag or pull request begin.
    pub fn keys(&self) -> String {
        match self {
            Self::Commit { branch } => format!("commit:refs/heads/{branch}:"),
            Self::Tag { tag } => format!("tag:refs/tags/{tag}:"),
            Self::PullRequest { number, .. } => Self::keys_of_pull_request(*number),
        }
    }

    /// How the keys of all events of a pull request begin.
    pub fn keys_of_pull_request(number: u64) -> String {
        format!("pull-request:{number}:")
    }
}

impl Firing {
    /// What tells this run's cause from others: the same event, reference and commit is the same cause, whoever sends it
    /// again and under whatever delivery id. A pull request's commit counts once, however often its text is edited.
    pub fn key(&self) -> String {
        let commit = &self.commit;
        let keys = self.kind.keys();
        match &self.kind {
            FiringKind::Commit { .. } | FiringKind::Tag { .. } => format!("{keys}{commit}"),
            FiringKind::PullRequest { base, .. } => format!("{keys}{base}:{commit}"),
        }
    }

    /// What runs are put in order by: an older one moves no tag that a newer one of the same has moved.
    pub fn order(&self) -> String {
        match &self.kind {
            FiringKind::Commit { branch } => format!("refs/heads/{branch}"),
            FiringKind::Tag { tag } => format!("refs/tags/{tag}"),
            FiringKind::PullRequest { number, .. } => format!("pull-request/{number}"),
        }
    }

    /// The event's type in ACR's words, and ours for tags.
    pub fn event_type(&self) -> &'static str {
        match &self.kind {
            FiringKind::Commit { .. } => "commit",
            FiringKind::Tag { .. } => "tag",
            FiringKind::PullRequest { .. } => "pullrequest",
        }
    }

    /// The branch that records and `{{.Run.Branch}}` name: of a pull request, the one that it is to be merged into.
    pub fn branch(&self) -> Option<&RefName> {
        self.kind.branch()
    }
}

impl FiringKind {
    /// The branch that it is about: of a pull request, the one that it is to be merged into.
    pub fn branch(&self) -> Option<&RefName> {
        match self {
            Self::Commit { branch } => Some(branch),
            Self::PullRequest { base, .. } => Some(base),
            Self::Tag { .. } => None,
        }
    }
}

impl Rule {
    /// The rule's name in records and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Event => "event",
            Self::Repository => "repository",
            Self::Action => "action",
            Self::Fork => "fork",
            Self::Branch => "branch",
            Self::Tag => "tag",
            Self::Draft => "draft",
            Self::SkipCi => "skip-ci",
            Self::Paths => "paths",
            Self::Newer => "newer",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
