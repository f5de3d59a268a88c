//! The collection of blobs in memory.

use async_trait::async_trait;
use cooper_types::{Digest, RepositoryName, Timestamp};

use super::super::{BlobCollection, ReferenceKind, Released};
use super::{MemRegistryStore, State};
use crate::store_error::StoreError;

impl State {
    /// Condemns a blob that no repository holds, and says whether it did.
    pub(super) fn condemn_unheld(&mut self, digest: &Digest) -> bool {
        !self.is_held(digest) && self.condemned.insert(digest.clone())
    }

    fn is_held(&self, digest: &Digest) -> bool {
        self.repositories.values().any(|repository| repository.blobs.contains_key(digest))
    }
}

#[async_trait]
impl BlobCollection for MemRegistryStore {
    async fn renew_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        stale: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let Some(held) = state.repositories.get_mut(repository).and_then(|held| held.blobs.get_mut(digest)) else {
            return Ok(None);
        };
        if held.used.is_some_and(|used| used < stale) {
            held.used = Some(now);
        }
        Ok(Some(held.size))
    }

    async fn drop_unfinished(&self, unused_since: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let now = self.clock.now();
        let mut state = self.state();
        let staged: Vec<Digest> = state.staged.iter().map(|row| row.digest.clone()).collect();
        let mut dropped = 0;
        for held in state.repositories.values_mut() {
            let is_unfinished = |digest: &&Digest| {
                let row = &held.manifests[*digest];
                let refers = |kind| held.refers(kind, digest).next().is_some();
                row.by_attempt
                    && row.updated < unused_since
                    && !held.tags.values().any(|tag| tag.digest == **digest)
                    && !staged.contains(digest)
                    && !refers(ReferenceKind::Manifest)
                    && !refers(ReferenceKind::Subject)
                    && !row.references.iter().any(|reference| reference.kind == ReferenceKind::Subject)
            };
            let unfinished: Vec<Digest> = held.manifests.keys().filter(is_unfinished).cloned().collect();
            for digest in unfinished.into_iter().take((limit - dropped) as usize) {
                let row = held.manifests.remove(&digest).expect("it was just found");
                for reference in row.references {
                    if let Some(blob) = held.blobs.get_mut(&reference.digest) {
                        blob.used = Some(now);
                    }
                }
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    async fn release_blobs(&self, unused_since: Timestamp, limit: u32) -> Result<Released, StoreError> {
        let mut state = self.state();
        let mut due = Vec::new();
        for (name, repository) in &state.repositories {
            for (digest, held) in &repository.blobs {
                if held.used.is_some_and(|used| used < unused_since) {
                    due.push((name.clone(), digest.clone()));
                }
            }
        }
        due.truncate(limit as usize);
        let mut released = Released { looked_at: u32::try_from(due.len()).unwrap_or(u32::MAX), ..Released::default() };
        for (name, digest) in due {
            let Some(repository) = state.repositories.get_mut(&name) else { continue };
            if repository.needs_blob(&digest).is_some() {
                if let Some(held) = repository.blobs.get_mut(&digest) {
                    held.used = None;
                }
                continue;
            }
            repository.blobs.remove(&digest);
            released.released += 1;
            released.condemned += u32::from(state.condemn_unheld(&digest));
        }
        Ok(released)
    }

    async fn condemned_blobs(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<Digest>, StoreError> {
        let state = self.state();
        let after = state.condemned.iter().filter(|digest| after.is_none_or(|after| *digest > after));
        Ok(after.take(limit as usize).cloned().collect())
    }

    async fn is_condemned(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.state().condemned.contains(digest))
    }

    async fn forget_condemned(&self, digests: &[Digest]) -> Result<(), StoreError> {
        self.state().condemned.retain(|digest| !digests.contains(digest));
        Ok(())
    }

    async fn condemn_strays(&self, digests: &[Digest]) -> Result<u32, StoreError> {
        let mut state = self.state();
        Ok(digests.iter().map(|digest| u32::from(state.condemn_unheld(digest))).sum())
    }
}
