//! Collection: what no manifest refers to and nobody has used for a while is let go, and its bytes are removed, while
//! pushes go on.
//!
//! Rows come first. A blob is condemned in the transaction that finds that nobody holds it, and from then on nobody sees
//! it; its file is removed under the lock of its digest, after one more look whether it is condemned still, because whoever uploads it
//! again saves it. A crash leaves a condemned row, or a file without a row that a survey finds.

use std::sync::atomic::Ordering;

use cooper_ports::blobs::{BlobRemoveError, SURVEY_PARTS, SurveyError};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::store_error::StoreError;
use cooper_types::Digest;

use crate::service::RegistryService;

/// How many leases are looked at in one transaction, and how many files removed between two.
const PAGE: u32 = 256;

/// After how many files it is asked again whether more may be removed.
const FILES: usize = 16;

/// How many pages one collection does at most.
const PAGES: u32 = 64;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests of attempts whose steps never succeeded.
    pub unfinished: u64,
    /// Blobs that repositories let go.
    pub released: u64,
    /// Files that were nobody's, and are to be removed now.
    pub strays: u64,
    /// Files that were removed.
    pub removed: u64,
}

/// Why a collection stopped.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The rows could not be read or changed.
    #[error("failed to collect the registry's rows")]
    Store(#[from] StoreError),
    /// A file could not be removed.
    #[error("failed to remove a blob that nobody needs")]
    Remove(#[from] BlobRemoveError),
    /// The files could not be looked through.
    #[error("failed to look for files that are no blob's")]
    Survey(#[from] SurveyError),
}

impl RegistryService {
    /// Does a bounded piece of collection while it `goes_on`; to be called now and then. Files are removed if `may_remove`,
    /// which is asked after the rows that say so were read: who copies the store keeps them by answering no from before its
    /// copy of the rows begins.
    pub async fn collect(
        &self,
        goes_on: impl Fn() -> bool,
        may_remove: impl Fn() -> bool,
    ) -> Result<Collected, CollectError> {
        let store = &self.parts().store;
        let mut collected = Collected::default();
        for _ in 0..PAGES {
            if !goes_on() {
                return Ok(collected);
            }
            let unused_since = self.parts().clock.now().before(self.options().blob_grace);
            let dropped = store.drop_unfinished(unused_since, PAGE).await?;
            collected.unfinished += u64::from(dropped);
            if dropped < PAGE {
                break;
            }
        }
        for _ in 0..PAGES {
            if !goes_on() {
                return Ok(collected);
            }
            let unused_since = self.parts().clock.now().before(self.options().blob_grace);
            let released = store.release_blobs(unused_since, PAGE).await?;
            collected.released += u64::from(released.released);
            if released.looked_at < PAGE {
                break;
            }
        }
        let surveyed = self.survey().await;
        let removed = self.remove_condemned(|| goes_on() && may_remove(), &mut collected).await;
        collected.strays = surveyed?;
        removed?;
        Ok(collected)
    }

    /// Looks through one part of the files for such as have no row: a crash came between the two.
    async fn survey(&self) -> Result<u64, CollectError> {
        let part = self.next_part().fetch_add(1, Ordering::Relaxed) % SURVEY_PARTS;
        let files = self.parts().blobs.survey(part, self.options().blob_grace).await?;
        let mut strays = 0;
        for page in files.chunks(PAGE as usize) {
            strays += u64::from(self.parts().store.condemn_strays(page).await?);
        }
        Ok(strays)
    }

    async fn remove_condemned(
        &self,
        may_remove: impl Fn() -> bool,
        collected: &mut Collected,
    ) -> Result<(), CollectError> {
        let store = &self.parts().store;
        let (mut after, mut failure) = (None::<Digest>, None);
        for _ in 0..PAGES {
            let condemned = store.condemned_blobs(after.as_ref(), PAGE).await?;
            let Some(last) = condemned.last() else { break };
            after = Some(last.clone());
            let (mut gone, mut stopped) = (Vec::new(), false);
            for (index, digest) in condemned.into_iter().enumerate() {
                stopped = index % FILES == 0 && !may_remove();
                if stopped {
                    break;
                }
                match self.remove(&digest).await {
                    Ok(true) => gone.push(digest),
                    Ok(false) => {}
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            collected.removed += gone.len() as u64;
            // A crash before this leaves rows whose files are gone already, which is fine with the next collection.
            store.forget_condemned(&gone).await?;
            if stopped {
                break;
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Removes a blob's file if it is condemned still.
    async fn remove(&self, digest: &Digest) -> Result<bool, CollectError> {
        let _removing = self.removing(digest).await;
        if !self.parts().store.is_condemned(digest).await? {
            return Ok(false);
        }
        self.parts().blobs.remove(digest).await?;
        failpoint::pass(Failpoint::BlobRemoved);
        Ok(true)
    }
}
