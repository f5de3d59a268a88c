//! The registry's metadata: repositories, tags, manifests, and which blobs a repository holds.
//!
//! Bytes of blobs are in the blob store ([`crate::blobs`]); bytes of manifests are here, because they are small and
//! are stored in the transaction that makes them visible. Each operation is one transaction, and a write under an
//! attempt's credential checks in that transaction that the attempt is still live.

mod catalog;
mod collection;
pub mod conformance;
mod credentials;
mod memory;

use async_trait::async_trait;
use bytes::Bytes;
use cooper_types::{AttemptNumber, Digest, PrincipalName, RepositoryName, RunId, StepId, Tag, Timestamp};
use std::fmt;
use std::time::Duration;

pub use catalog::{MAX_LISTED_TAGS, ManifestDetails, RegistryCatalog, RepositoryDetails, TagDetails};
pub use collection::{BlobCollection, Released};
pub use credentials::{Caller, CredentialVerifier, VerifyError};
pub use memory::MemRegistryStore;

use crate::blobs::UploadId;
use crate::store_error::StoreError;

/// The header in which an agent's forwarder says by what address its client reaches it, such as `http://localhost:5000`:
/// the registry's token endpoint is told to clients in these words.
pub const ORIGIN_HEADER: &str = "cooper-origin";

/// How long an upload may take from its first request to its last. Clients that lose an upload begin a new one, and the
/// old one's bytes take space until then.
pub const UPLOAD_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How many uploads a principal may have begun and not ended. Clients leave some behind when they are stopped; beyond
/// this something is wrong, and each upload takes a file and memory.
pub const MAX_OPEN_UPLOADS: usize = 2_000;

/// How long a staged tag waits to be promoted: longer than any run may last.
pub const STAGED_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// How long a blob that nothing refers to is safe from collection, counted from its last use: its upload or mount, a
/// pusher's question for it, or the deletion of a manifest that referred to it.
pub const BLOB_LEASE: Duration = Duration::from_secs(24 * 3600);

/// One try at one step of one run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttemptRef {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepId,
    /// The attempt's number within the run.
    pub attempt: AttemptNumber,
}

impl fmt::Display for AttemptRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} of step {} of run {}", self.attempt, self.step, self.run)
    }
}

/// Who writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// In whose name.
    pub principal: PrincipalName,
    /// Under which attempt: its tags are staged, and it must be live at each write.
    pub attempt: Option<AttemptRef>,
}

/// A tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKey {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl fmt::Display for ManifestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, "{tag}"),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

/// A stored manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its media type as it was pushed.
    pub media_type: String,
    /// Its exact bytes.
    pub bytes: Bytes,
}

/// What a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ManifestReference {
    /// What is referred to.
    pub digest: Digest,
    /// As what.
    pub kind: ReferenceKind,
}

/// How a manifest refers to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReferenceKind {
    /// A config or layer: a blob that the repository must hold.
    Blob,
    /// A manifest of an index that the repository must hold.
    Manifest,
    /// A layer that the registry need not hold, such as a nondistributable one.
    ForeignBlob,
    /// The manifest that this one is about. It may be missing (OCI Distribution 1.1, referrers).
    Subject,
}

impl ReferenceKind {
    /// The name that stores write down.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Manifest => "manifest",
            Self::ForeignBlob => "foreign_blob",
            Self::Subject => "subject",
        }
    }
}

/// A manifest to store, already checked against its own digest.
#[derive(Clone, Debug)]
pub struct NewManifest {
    /// Where.
    pub repository: RepositoryName,
    /// The manifest.
    pub manifest: Manifest,
    /// All that it refers to, each pair once.
    pub references: Vec<ManifestReference>,
    /// The tag to move to it.
    pub tag: Option<Tag>,
}

/// An upload that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// The repository that it is for.
    pub repository: RepositoryName,
    /// Who began it: nobody else goes on with it.
    pub writer: Writer,
}

/// One line of the plan's answer to "which tags does this push stand for".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedTarget {
    /// The repository that was pushed to.
    pub repository: RepositoryName,
    /// The tag that the agent pushed, unique to the run and attempt.
    pub staging: Tag,
    /// The tags to move.
    pub tags: Vec<Tag>,
    /// What has to be there; anything if absent.
    pub digest: Option<Digest>,
}

/// A tag that moved when its step completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromotedTag {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub tag: Tag,
    /// Where the tag points now.
    pub digest: Digest,
}

/// The registry's metadata.
///
/// All operations are idempotent where a client may repeat them, and durable when they return.
#[async_trait]
pub trait RegistryStore: RegistryCatalog + BlobCollection + Send + Sync {
    /// Whether an attempt is still live.
    async fn attempt_is_live(&self, attempt: &AttemptRef) -> Result<bool, StoreError>;

    /// Writes down an upload that begins; it expires after [`UPLOAD_LIFETIME`].
    async fn begin_upload(&self, upload: &Upload) -> Result<(), BeginUploadError>;

    /// Finds an upload of a repository.
    async fn find_upload(&self, repository: &RepositoryName, id: UploadId) -> Result<Option<Upload>, StoreError>;

    /// Ends an upload whose bytes are now the blob `digest`: its repository holds the blob from here on.
    async fn complete_upload(&self, upload: &Upload, digest: &Digest, size: u64) -> Result<(), RegistryWriteError>;

    /// Forgets uploads; their bytes are gone already.
    async fn forget_uploads(&self, ids: &[UploadId]) -> Result<(), StoreError>;

    /// Uploads whose time is over at `now`, at most `limit`.
    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<UploadId>, StoreError>;

    /// Makes `to` hold a blob that `from` holds. `false` if `from` does not hold it.
    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<bool, RegistryWriteError>;

    /// The size of a blob that the repository holds.
    async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StoreError>;

    /// Stores a manifest and moves its tag, if it has one: under an attempt the tag is staged, else it is real at once
    /// and the push is an event of the same transaction. A manifest that is there takes the new media type, but not under
    /// an attempt.
    async fn put_manifest(&self, new: NewManifest, writer: &Writer) -> Result<(), PutManifestError>;

    /// Finds a manifest. `run` sees the tags that are staged by its own attempts, before the real ones.
    async fn manifest(
        &self,
        repository: &RepositoryName,
        key: &ManifestKey,
        run: Option<RunId>,
    ) -> Result<Option<Manifest>, StoreError>;

    /// The tags of a repository after `after`, in byte order, at most `limit`; `None` if there is no such repository.
    /// `run` sees the tags that are staged by its own attempts too.
    async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
        run: Option<RunId>,
    ) -> Result<Option<Vec<Tag>>, StoreError>;

    /// Deletes a tag; only if it points to `expected`, and was pushed last at `updated`, where these are said. Its manifest
    /// stays.
    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: Option<&Digest>,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError>;

    /// Deletes a manifest with its tags, and with the manifests that are about it and have no tag; only if it has no tag,
    /// where `untagged` says so, and if it was pushed, or got a tag, last at `updated`, where that is said. One that an index
    /// or a run refers to stays. Its blobs' leases begin anew.
    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        untagged: bool,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError>;

    /// Makes a repository hold a blob no longer. One that a manifest of the repository refers to stays.
    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<(), DeleteError>;

    /// Removes staged tags whose time is over at `now`, and says how many.
    async fn expire_staged(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// Why a write was not made.
#[derive(Debug, thiserror::Error)]
pub enum RegistryWriteError {
    /// The attempt in whose name it was to be made has ended or was replaced.
    #[error("{0} is over")]
    AttemptOver(AttemptRef),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an upload did not begin.
#[derive(Debug, thiserror::Error)]
pub enum BeginUploadError {
    /// The principal has begun [`MAX_OPEN_UPLOADS`] that have neither ended nor expired.
    #[error("principal `{0}` has {MAX_OPEN_UPLOADS} open uploads; finish or cancel some, or wait for their end")]
    TooMany(PrincipalName),
    /// The attempt in whose name it was to be made has ended or was replaced.
    #[error("{0} is over")]
    AttemptOver(AttemptRef),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RegistryWriteError> for BeginUploadError {
    fn from(error: RegistryWriteError) -> Self {
        match error {
            RegistryWriteError::AttemptOver(attempt) => Self::AttemptOver(attempt),
            RegistryWriteError::Store(error) => Self::Store(error),
        }
    }
}

/// Why a manifest was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PutManifestError {
    /// The repository lacks things that the manifest refers to.
    #[error("manifest refers to {} that repository {repository} does not hold", list(.missing))]
    Missing {
        /// The repository.
        repository: RepositoryName,
        /// What is missing, never empty.
        missing: Vec<Digest>,
    },
    /// The attempt in whose name it was to be made has ended or was replaced.
    #[error("{0} is over")]
    AttemptOver(AttemptRef),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RegistryWriteError> for PutManifestError {
    fn from(error: RegistryWriteError) -> Self {
        match error {
            RegistryWriteError::AttemptOver(attempt) => Self::AttemptOver(attempt),
            RegistryWriteError::Store(error) => Self::Store(error),
        }
    }
}

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The repository holds nothing of that name.
    #[error("repository {0} holds nothing of that name")]
    Unknown(RepositoryName),
    /// A manifest refers to it.
    #[error("manifest {0} refers to it; delete that first")]
    Needed(Digest),
    /// A run has staged it.
    #[error("run {0} has staged it; wait for its end")]
    Staged(RunId),
    /// The tag points elsewhere than was expected.
    #[error("the tag points to {0} by now")]
    Moved(Digest),
    /// It was pushed last at another time than was expected.
    #[error("it was pushed again meanwhile, at {0}")]
    Updated(Timestamp),
    /// The manifest was to have no tag, and has one.
    #[error("the manifest has the tag {0}")]
    Tagged(Tag),
    /// The attempt in whose name it was to be made has ended or was replaced.
    #[error("{0} is over")]
    AttemptOver(AttemptRef),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RegistryWriteError> for DeleteError {
    fn from(error: RegistryWriteError) -> Self {
        match error {
            RegistryWriteError::AttemptOver(attempt) => Self::AttemptOver(attempt),
            RegistryWriteError::Store(error) => Self::Store(error),
        }
    }
}

/// Why a step's staged tags were not promoted.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PromoteError {
    /// The plan's push did not happen, so the step cannot have succeeded.
    #[error("nothing was pushed to {repository}:{staging} by {attempt}, or something else than it says")]
    NotPushed {
        /// Whose push it should have been.
        attempt: AttemptRef,
        /// The repository.
        repository: RepositoryName,
        /// The staging tag.
        staging: Tag,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names the first few: a manifest refers to thousands of things, and an error is a line.
fn list(digests: &[Digest]) -> String {
    const NAMED: usize = 5;
    let names: Vec<&str> = digests.iter().take(NAMED).map(Digest::as_str).collect();
    match digests.len().saturating_sub(NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_a_few_of_what_is_missing() {
        let missing = |count: u8| (0..count).map(|n| Digest::sha256(&[n])).collect::<Vec<_>>();
        assert_eq!(list(&missing(1)), missing(1)[0].as_str());
        assert_eq!(list(&missing(5)).split(", ").count(), 5);
        let many = list(&missing(200));
        assert!(many.ends_with(" and 195 more") && many.len() < 500, "{many}");
    }
}
