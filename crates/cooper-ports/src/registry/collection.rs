//! What the collection of blobs needs of the registry's rows.
//!
//! A repository holds a blob under a lease, which each upload, mount and question of a pusher renews. When it is over and no manifest
//! of the repository refers to the blob, the repository lets it go. A blob that no repository holds is *condemned* in the
//! same transaction: its row makes place for one that says that its file is to be removed. So at no time does a row that is
//! seen stand for a file that may go away, and a crash between the two leaves a row that says what is left to do.

use async_trait::async_trait;
use cooper_types::{Digest, RepositoryName, Timestamp};

use crate::store_error::StoreError;

/// What a look at leases did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// How many leases were looked at.
    pub looked_at: u32,
    /// How many blobs repositories let go.
    pub released: u32,
    /// How many blobs were condemned.
    pub condemned: u32,
}

/// Finds out which blobs nobody needs.
#[async_trait]
pub trait BlobCollection: Send + Sync {
    /// The size of a blob that the repository holds, used now: the lease of one whose last use was before `stale` begins
    /// anew.
    async fn renew_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        stale: Timestamp,
    ) -> Result<Option<u64>, StoreError>;

    /// Drops manifests that attempts alone have pushed, the last time before `unused_since`, and that nothing refers to: no
    /// step that pushed them has succeeded. Tells how many; at most `limit` are. Nobody is told of it: nobody was told of
    /// them.
    async fn drop_unfinished(&self, unused_since: Timestamp, limit: u32) -> Result<u32, StoreError>;

    /// Looks at no more than `limit` leases whose blobs were last used before `unused_since`. Those that a manifest of
    /// their repository refers to need no lease from then on; the others' blobs are let go, and condemned if nobody else
    /// holds them.
    async fn release_blobs(&self, unused_since: Timestamp, limit: u32) -> Result<Released, StoreError>;

    /// The condemned blobs after `after`, in byte order, at most `limit`.
    async fn condemned_blobs(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<Digest>, StoreError>;

    /// Whether a blob is condemned still. Whoever uploads it again saves it.
    async fn is_condemned(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Forgets condemned blobs: their files are gone.
    async fn forget_condemned(&self, digests: &[Digest]) -> Result<(), StoreError>;

    /// Condemns those of these files that are no blob's, and says how many.
    async fn condemn_strays(&self, digests: &[Digest]) -> Result<u32, StoreError>;
}
