//! What the registry holds, in pages: repositories, tags and manifests with their times. What staged tags are to others
//! holds here, too: they are nobody's but their run's, and not listed.

use async_trait::async_trait;
use cooper_types::{Digest, RepositoryName, Tag, Timestamp};

use crate::store_error::StoreError;

/// How many tags of one manifest a listing names at most.
pub const MAX_LISTED_TAGS: usize = 100;

/// A repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryDetails {
    /// Its name.
    pub name: RepositoryName,
    /// When the first thing came into it.
    pub created: Timestamp,
    /// When one of its manifests was last pushed, or got a tag.
    pub updated: Timestamp,
    /// How many manifests it holds.
    pub manifests: u64,
    /// How many tags it has.
    pub tags: u64,
}

/// A tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagDetails {
    /// The tag.
    pub tag: Tag,
    /// Where it points.
    pub digest: Digest,
    /// When it was first pushed.
    pub created: Timestamp,
    /// When it was last pushed.
    pub updated: Timestamp,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDetails {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// How many bytes it and its blobs have.
    pub size: u64,
    /// When it was first pushed.
    pub created: Timestamp,
    /// When it was last pushed, or got a tag.
    pub updated: Timestamp,
    /// Its tags in byte order, [`MAX_LISTED_TAGS`] at most.
    pub tags: Vec<Tag>,
    /// The manifests that it is an index of, in byte order.
    pub manifests: Vec<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// Whether a run has staged it.
    pub is_staged: bool,
}

/// Lists what the registry holds.
#[async_trait]
pub trait RegistryCatalog: Send + Sync {
    /// The repositories with at least one manifest after `after`, in byte order, at most `limit`.
    async fn repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepositoryName>, StoreError>;

    /// A repository; `None` if there is none of that name with a manifest.
    async fn repository_details(&self, name: &RepositoryName) -> Result<Option<RepositoryDetails>, StoreError>;

    /// The tags of a repository after `after`, in byte order, at most `limit`.
    async fn tag_details(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagDetails>, StoreError>;

    /// The manifests of a repository after `after`, in byte order of their digests, at most `limit`. Where they are large it
    /// may be fewer than there are, but never none.
    async fn manifest_details(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ManifestDetails>, StoreError>;
}
