//! Where tasks' repositories were at the last look, and how that went: branches, tags and pull requests, to find what no delivery
//! told of.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_types::{TaskName, Timestamp};

use crate::store_error::StoreError;
use crate::waves::NewRefusal;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// Branches.
    Branches,
    /// Tags.
    Tags,
    /// Open pull requests.
    PullRequests,
}

impl ReferenceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Branches, Self::Tags, Self::PullRequests];
}

/// What points at a commit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A branch.
    Branch(RefName),
    /// A tag.
    Tag(RefName),
    /// A pull request, by its number.
    PullRequest(u64),
}

impl Reference {
    /// What it is one of.
    pub fn kind(&self) -> ReferenceKind {
        match self {
            Self::Branch(_) => ReferenceKind::Branches,
            Self::Tag(_) => ReferenceKind::Tags,
            Self::PullRequest(_) => ReferenceKind::PullRequests,
        }
    }
}

/// How a reference stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenAt {
    /// The commit that has been dealt with; none of a reference that is new.
    pub done: Option<CommitId>,
    /// The one that was there at the last look and is not dealt with.
    pub seen: Option<CommitId>,
}

/// A reference that stands otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedReference {
    /// Which.
    pub reference: Reference,
    /// What had been dealt with when it was looked at: where a delivery has dealt with something since, that stays.
    pub was: Option<CommitId>,
    /// How it stands now.
    pub at: SeenAt,
}

/// What is known of a task's repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenReferences {
    /// What has been looked at before: there, what is new is new.
    pub looked: BTreeSet<ReferenceKind>,
    /// How each stands.
    pub at: BTreeMap<Reference, SeenAt>,
}

/// How a repository is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LookWay {
    /// As Git lists it: branches and tags.
    Git,
    /// As its forge lists it: pull requests.
    Forge,
}

impl LookWay {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Git, Self::Forge];

    /// The name in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Forge => "forge",
        }
    }
}

/// How a look went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookRecord {
    /// When it was.
    pub at: Timestamp,
    /// When the next one is meant to be.
    pub next: Timestamp,
    /// Why it came to nothing, in words for the task's owner.
    pub fault: Option<String>,
}

/// Keeps what was seen.
#[async_trait]
pub trait ReferenceStore: Send + Sync {
    /// What is known of a task's repository. It is forgotten when the task gets another repository.
    async fn seen_references(&self, task: &TaskName) -> Result<SeenReferences, StoreError>;

    /// Writes down that a kind was looked at, and how references of it stand, in place of what was known of them; forgets
    /// others. Nothing happens where the task is gone or has been changed since: it may have another repository.
    async fn put_references(
        &self,
        task: &Task,
        kind: ReferenceKind,
        changed: Vec<ChangedReference>,
        gone: Vec<Reference>,
    ) -> Result<(), StoreError>;

    /// Forgets all of a kind, and that it was looked at.
    async fn forget_references(&self, task: &TaskName, kind: ReferenceKind) -> Result<(), StoreError>;

    /// Writes down that where a reference points has been dealt with by a delivery, if its kind has been looked at.
    async fn reference_dealt_with(
        &self,
        task: &TaskName,
        reference: &Reference,
        at: &CommitId,
    ) -> Result<(), StoreError>;

    /// Writes down how a look at a task's repository went, in place of the one before, and what was found in it and started nothing.
    /// Nothing happens where the task is gone or has been changed since.
    async fn put_look(
        &self,
        task: &Task,
        way: LookWay,
        look: LookRecord,
        refusals: Vec<NewRefusal>,
    ) -> Result<(), StoreError>;

    /// How the last looks at a task's repository went. They are forgotten when it gets another one.
    async fn looks(&self, task: &TaskName) -> Result<BTreeMap<LookWay, LookRecord>, StoreError>;
}
