//! The registry store in memory: for tests of what stands on the port, and the measure of its conformance suite.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use cooper_types::{AttemptNumber, Digest, RepositoryName, RunId, Tag, Timestamp};

use super::{
    AttemptRef, BeginUploadError, MAX_OPEN_UPLOADS, Manifest, ManifestKey, ManifestReference, NewManifest,
    PromoteError, PromotedTag, PutManifestError, ReferenceKind, RegistryStore, RegistryWriteError, STAGED_LIFETIME,
    StagedTarget, UPLOAD_LIFETIME, Upload, Writer,
};
use crate::blobs::UploadId;
use crate::clock::Clock;
use crate::store_error::StoreError;

/// A registry store that forgets everything when it is dropped.
pub struct MemRegistryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Vec<AttemptRef>,
    uploads: BTreeMap<UploadId, (Upload, Timestamp)>,
    repositories: BTreeMap<RepositoryName, Repository>,
    staged: Vec<StagedRow>,
    pushed: Vec<(RepositoryName, Option<Tag>, Digest)>,
}

#[derive(Default)]
struct Repository {
    blobs: BTreeMap<Digest, u64>,
    manifests: BTreeMap<Digest, (Manifest, Vec<ManifestReference>)>,
    tags: BTreeMap<Tag, Digest>,
}

struct StagedRow {
    attempt: AttemptRef,
    repository: RepositoryName,
    tag: Tag,
    digest: Digest,
    expires: Timestamp,
}

impl MemRegistryStore {
    /// An empty store that takes its time from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Makes an attempt live.
    pub fn start_attempt(&self, attempt: &AttemptRef) {
        self.state().live.push(attempt.clone());
    }

    /// Ends an attempt.
    pub fn end_attempt(&self, attempt: &AttemptRef) {
        self.state().live.retain(|live| live != attempt);
    }

    /// What completing a step does to its staged tags.
    pub fn promote_staged(
        &self,
        attempt: &AttemptRef,
        targets: &[StagedTarget],
    ) -> Result<Vec<PromotedTag>, PromoteError> {
        let mut state = self.state();
        let mut promoted = Vec::new();
        let mine = |row: &&StagedRow| row.attempt == *attempt;
        for target in targets {
            let row = state
                .staged
                .iter()
                .filter(mine)
                .find(|row| row.repository == target.repository && row.tag == target.staging)
                .filter(|row| target.digest.as_ref().is_none_or(|digest| *digest == row.digest))
                .ok_or_else(|| PromoteError::NotPushed {
                    attempt: attempt.clone(),
                    repository: target.repository.clone(),
                    staging: target.staging.clone(),
                })?;
            promoted.extend(target.tags.iter().map(|tag| PromotedTag {
                repository: target.repository.clone(),
                tag: tag.clone(),
                digest: row.digest.clone(),
            }));
        }
        if targets.is_empty() {
            promoted.extend(state.staged.iter().filter(mine).map(|row| PromotedTag {
                repository: row.repository.clone(),
                tag: row.tag.clone(),
                digest: row.digest.clone(),
            }));
        }
        let mut moved = BTreeSet::new();
        promoted.retain(|PromotedTag { repository, tag, .. }| moved.insert((repository.clone(), tag.clone())));
        for PromotedTag { repository, tag, digest } in &promoted {
            state.repository(repository).tags.insert(tag.clone(), digest.clone());
            state.pushed.push((repository.clone(), Some(tag.clone()), digest.clone()));
        }
        state.staged.retain(|row| row.attempt != *attempt);
        Ok(promoted)
    }

    /// What losing an attempt does to its staged tags.
    pub fn drop_staged(&self, run: RunId, attempt: AttemptNumber) {
        self.state().staged.retain(|row| row.attempt.run != run || row.attempt.attempt != attempt);
    }

    /// The push events so far: repository, tag if one moved, digest.
    pub fn pushed_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
        self.state().pushed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn repository(&mut self, name: &RepositoryName) -> &mut Repository {
        self.repositories.entry(name.clone()).or_default()
    }

    fn check_live(&self, writer: &Writer) -> Result<(), RegistryWriteError> {
        match &writer.attempt {
            Some(attempt) if !self.live.contains(attempt) => Err(RegistryWriteError::AttemptOver(attempt.clone())),
            _ => Ok(()),
        }
    }

    fn staged_by(&self, run: Option<RunId>, repository: &RepositoryName) -> impl Iterator<Item = &StagedRow> {
        self.staged.iter().filter(move |row| Some(row.attempt.run) == run && row.repository == *repository)
    }
}

#[async_trait]
impl RegistryStore for MemRegistryStore {
    async fn attempt_is_live(&self, attempt: &AttemptRef) -> Result<bool, StoreError> {
        Ok(self.state().live.contains(attempt))
    }

    async fn begin_upload(&self, upload: &Upload) -> Result<(), BeginUploadError> {
        let now = self.clock.now();
        let expires = now.after(UPLOAD_LIFETIME);
        let mut state = self.state();
        state.check_live(&upload.writer)?;
        let principal = &upload.writer.principal;
        let open = state.uploads.values().filter(|(open, end)| open.writer.principal == *principal && *end > now);
        if open.count() >= MAX_OPEN_UPLOADS {
            return Err(BeginUploadError::TooMany(principal.clone()));
        }
        state.uploads.insert(upload.id, (upload.clone(), expires));
        Ok(())
    }

    async fn find_upload(&self, repository: &RepositoryName, id: UploadId) -> Result<Option<Upload>, StoreError> {
        let found = self.state().uploads.get(&id).map(|(upload, _)| upload.clone());
        Ok(found.filter(|upload| upload.repository == *repository))
    }

    async fn complete_upload(&self, upload: &Upload, digest: &Digest, size: u64) -> Result<(), RegistryWriteError> {
        let mut state = self.state();
        state.check_live(&upload.writer)?;
        state.uploads.remove(&upload.id);
        state.repository(&upload.repository).blobs.insert(digest.clone(), size);
        Ok(())
    }

    async fn forget_uploads(&self, ids: &[UploadId]) -> Result<(), StoreError> {
        self.state().uploads.retain(|id, _| !ids.contains(id));
        Ok(())
    }

    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<UploadId>, StoreError> {
        let state = self.state();
        let expired = state.uploads.iter().filter(|(_, (_, expires))| *expires <= now).map(|(id, _)| *id);
        Ok(expired.take(limit as usize).collect())
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<bool, RegistryWriteError> {
        let mut state = self.state();
        state.check_live(writer)?;
        let size = state.repositories.get(from).and_then(|repository| repository.blobs.get(digest)).copied();
        if let Some(size) = size {
            state.repository(to).blobs.insert(digest.clone(), size);
        }
        Ok(size.is_some())
    }

    async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let state = self.state();
        Ok(state.repositories.get(repository).and_then(|repository| repository.blobs.get(digest)).copied())
    }

    async fn put_manifest(&self, new: NewManifest, writer: &Writer) -> Result<(), PutManifestError> {
        let expires = self.clock.now().after(STAGED_LIFETIME);
        let mut state = self.state();
        state.check_live(writer)?;
        let held = state.repositories.get(&new.repository);
        let missing: BTreeSet<Digest> = new
            .references
            .iter()
            .filter(|reference| match reference.kind {
                ReferenceKind::Blob => !held.is_some_and(|held| held.blobs.contains_key(&reference.digest)),
                ReferenceKind::Manifest => !held.is_some_and(|held| held.manifests.contains_key(&reference.digest)),
                ReferenceKind::ForeignBlob | ReferenceKind::Subject => false,
            })
            .map(|reference| reference.digest.clone())
            .collect();
        if !missing.is_empty() {
            let missing = missing.into_iter().collect();
            return Err(PutManifestError::Missing { repository: new.repository, missing });
        }
        let digest = new.manifest.digest.clone();
        let manifests = &mut state.repository(&new.repository).manifests;
        if writer.attempt.is_none() || !manifests.contains_key(&digest) {
            manifests.insert(digest.clone(), (new.manifest, new.references));
        }
        match (new.tag, &writer.attempt) {
            (Some(tag), Some(attempt)) => {
                state
                    .staged
                    .retain(|row| row.attempt != *attempt || row.repository != new.repository || row.tag != tag);
                let attempt = attempt.clone();
                state.staged.push(StagedRow { attempt, repository: new.repository, tag, digest, expires });
            }
            (tag, None) => {
                if let Some(tag) = &tag {
                    state.repository(&new.repository).tags.insert(tag.clone(), digest.clone());
                }
                state.pushed.push((new.repository, tag, digest));
            }
            // What a step pushes by digest is announced when its tags are.
            (None, Some(_)) => {}
        }
        Ok(())
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        key: &ManifestKey,
        run: Option<RunId>,
    ) -> Result<Option<Manifest>, StoreError> {
        let state = self.state();
        let Some(held) = state.repositories.get(repository) else { return Ok(None) };
        let digest = match key {
            ManifestKey::Digest(digest) => Some(digest),
            ManifestKey::Tag(tag) => state
                .staged_by(run, repository)
                .filter(|row| row.tag == *tag)
                .max_by_key(|row| row.attempt.attempt)
                .map(|row| &row.digest)
                .or_else(|| held.tags.get(tag)),
        };
        Ok(digest.and_then(|digest| held.manifests.get(digest)).map(|(manifest, _)| manifest.clone()))
    }

    async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
        run: Option<RunId>,
    ) -> Result<Option<Vec<Tag>>, StoreError> {
        let state = self.state();
        let Some(held) = state.repositories.get(repository) else { return Ok(None) };
        let mut tags: BTreeSet<&Tag> = held.tags.keys().collect();
        tags.extend(state.staged_by(run, repository).map(|row| &row.tag));
        let tags = tags.into_iter().filter(|tag| after.is_none_or(|after| tag.as_str() > after));
        Ok(Some(tags.take(limit as usize).cloned().collect()))
    }

    async fn expire_staged(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.state();
        let before = state.staged.len();
        state.staged.retain(|row| row.expires > now);
        Ok((before - state.staged.len()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, Fixture};
    use super::*;
    use crate::clock::ManualClock;

    struct MemFixture(MemRegistryStore);

    #[async_trait]
    impl Fixture for MemFixture {
        fn store(&self) -> &dyn RegistryStore {
            &self.0
        }

        async fn start_attempt(&self, attempt: &AttemptRef) {
            self.0.start_attempt(attempt);
        }

        async fn end_attempt(&self, attempt: &AttemptRef) {
            self.0.end_attempt(attempt);
        }

        async fn promote(
            &self,
            attempt: &AttemptRef,
            targets: &[StagedTarget],
        ) -> Result<Vec<PromotedTag>, PromoteError> {
            self.0.promote_staged(attempt, targets)
        }

        async fn drop_staged(&self, run: RunId, attempt: AttemptNumber) {
            self.0.drop_staged(run, attempt);
        }

        async fn pushed_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
            self.0.pushed_events()
        }
    }

    #[tokio::test]
    async fn passes_the_port_s_suite() {
        conformance::run_all(async || {
            let clock = Arc::new(ManualClock::new(conformance::START));
            MemFixture(MemRegistryStore::new(clock))
        })
        .await;
    }
}
