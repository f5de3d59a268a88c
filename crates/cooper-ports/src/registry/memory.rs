//! The registry store in memory: for tests of what stands on the port, and the measure of its conformance suite.

mod catalog;
mod collection;
mod deletion;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use cooper_types::{AttemptNumber, Digest, RepositoryName, RunId, Tag, Timestamp};

use super::{
    AttemptRef, BeginUploadError, DeleteError, MAX_OPEN_UPLOADS, Manifest, ManifestKey, ManifestReference, NewManifest,
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
    deleted: Vec<(RepositoryName, Option<Tag>, Digest)>,
    condemned: BTreeSet<Digest>,
}

struct Repository {
    created: Timestamp,
    blobs: BTreeMap<Digest, Held>,
    manifests: BTreeMap<Digest, ManifestRow>,
    tags: BTreeMap<Tag, TagRow>,
}

/// A blob that a repository holds.
struct Held {
    size: u64,
    /// When it was last used; absent where manifests were seen to need it.
    used: Option<Timestamp>,
}

struct ManifestRow {
    manifest: Manifest,
    references: Vec<ManifestReference>,
    created: Timestamp,
    updated: Timestamp,
    by_attempt: bool,
}

struct TagRow {
    digest: Digest,
    created: Timestamp,
    moved: Timestamp,
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
        let now = self.clock.now();
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
            state.repository(repository, now).move_tag(tag, digest, now);
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

    /// The deletions so far: repository, tag if one is gone, digest.
    pub fn deleted_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
        self.state().deleted.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    fn repository(&mut self, name: &RepositoryName, now: Timestamp) -> &mut Repository {
        self.repositories.entry(name.clone()).or_insert_with(|| Repository {
            created: now,
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            tags: BTreeMap::new(),
        })
    }

    /// Makes a repository hold a blob, which nobody may remove from now on.
    fn hold(&mut self, repository: &RepositoryName, digest: &Digest, size: u64, now: Timestamp) {
        self.condemned.remove(digest);
        let blobs = &mut self.repository(repository, now).blobs;
        let held = blobs.entry(digest.clone()).or_insert(Held { size, used: Some(now) });
        held.used = held.used.map(|used| used.max(now));
    }

    fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Option<u64> {
        self.repositories.get(repository)?.blobs.get(digest).map(|held| held.size)
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

impl Repository {
    fn move_tag(&mut self, tag: &Tag, digest: &Digest, now: Timestamp) {
        let created = self.tags.get(tag).map_or(now, |row| row.created);
        if let Some(row) = self.manifests.get_mut(digest) {
            row.updated = now;
            row.by_attempt = false;
            // What an index is made of is there with it.
            let children = row.references.iter().filter(|reference| reference.kind == ReferenceKind::Manifest);
            for child in children.map(|child| child.digest.clone()).collect::<Vec<_>>() {
                if let Some(row) = self.manifests.get_mut(&child) {
                    row.by_attempt = false;
                }
            }
        }
        self.tags.insert(tag.clone(), TagRow { digest: digest.clone(), created, moved: now });
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
        let now = self.clock.now();
        let mut state = self.state();
        state.check_live(&upload.writer)?;
        state.uploads.remove(&upload.id);
        state.hold(&upload.repository, digest, size, now);
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
        let now = self.clock.now();
        let mut state = self.state();
        state.check_live(writer)?;
        let size = state.blob_size(from, digest);
        if let Some(size) = size {
            state.hold(to, digest, size, now);
        }
        Ok(size.is_some())
    }

    async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StoreError> {
        Ok(self.state().blob_size(repository, digest))
    }

    async fn put_manifest(&self, new: NewManifest, writer: &Writer) -> Result<(), PutManifestError> {
        let now = self.clock.now();
        let expires = now.after(STAGED_LIFETIME);
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
        let manifests = &mut state.repository(&new.repository, now).manifests;
        match manifests.get_mut(&digest) {
            Some(row) => {
                row.updated = now;
                row.by_attempt &= writer.attempt.is_some();
                if writer.attempt.is_none() {
                    row.manifest = new.manifest;
                }
            }
            None => {
                let by_attempt = writer.attempt.is_some();
                let (manifest, references) = (new.manifest, new.references);
                let row = ManifestRow { manifest, references, created: now, updated: now, by_attempt };
                manifests.insert(digest.clone(), row);
            }
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
                    state.repository(&new.repository, now).move_tag(tag, &digest, now);
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
                .or_else(|| held.tags.get(tag).map(|row| &row.digest)),
        };
        Ok(digest.and_then(|digest| held.manifests.get(digest)).map(|row| row.manifest.clone()))
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

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: Option<&Digest>,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        self.state().delete_tag(repository, tag, expected, updated, writer)
    }

    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        untagged: bool,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        self.state().delete_manifest(repository, digest, untagged, updated, writer, self.clock.now())
    }

    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        self.state().delete_blob(repository, digest, writer)
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

    struct MemFixture(MemRegistryStore, Arc<ManualClock>);

    #[async_trait]
    impl Fixture for MemFixture {
        fn store(&self) -> &dyn RegistryStore {
            &self.0
        }

        fn clock(&self) -> &ManualClock {
            &self.1
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

        async fn deleted_events(&self) -> Vec<(RepositoryName, Option<Tag>, Digest)> {
            self.0.deleted_events()
        }
    }

    #[tokio::test]
    async fn passes_the_port_s_suite() {
        conformance::run_all(async || {
            let clock = Arc::new(ManualClock::new(conformance::START));
            MemFixture(MemRegistryStore::new(clock.clone()), clock)
        })
        .await;
    }
}
