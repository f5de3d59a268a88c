//! Deletion in memory.

use cooper_types::{Digest, RepositoryName, Tag, Timestamp};

use super::super::{DeleteError, ReferenceKind, Writer};
use super::{Repository, State};

impl State {
    pub(super) fn delete_tag(
        &mut self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: Option<&Digest>,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        self.check_live(writer)?;
        let unknown = || DeleteError::Unknown(repository.clone());
        let held = self.repositories.get_mut(repository).ok_or_else(unknown)?;
        let (digest, moved) = held.tags.get(tag).map(|row| (row.digest.clone(), row.moved)).ok_or_else(unknown)?;
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(DeleteError::Moved(digest));
        }
        if updated.is_some_and(|updated| updated != moved) {
            return Err(DeleteError::Updated(moved));
        }
        held.tags.remove(tag);
        self.deleted.push((repository.clone(), Some(tag.clone()), digest));
        Ok(())
    }

    pub(super) fn delete_manifest(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        untagged: bool,
        updated: Option<Timestamp>,
        writer: &Writer,
        now: Timestamp,
    ) -> Result<(), DeleteError> {
        self.check_live(writer)?;
        let unknown = || DeleteError::Unknown(repository.clone());
        let held = self.repositories.get(repository).ok_or_else(unknown)?;
        let pushed = held.manifests.get(digest).ok_or_else(unknown)?.updated;
        if let Some(by) = held.refers(ReferenceKind::Manifest, digest).next() {
            return Err(DeleteError::Needed(by.clone()));
        }
        if let Some(row) = self.staged.iter().find(|row| row.repository == *repository && row.digest == *digest) {
            return Err(DeleteError::Staged(row.attempt.run));
        }
        if untagged && let Some((tag, _)) = held.tags.iter().find(|(_, row)| row.digest == *digest) {
            return Err(DeleteError::Tagged(tag.clone()));
        }
        if updated.is_some_and(|updated| updated != pushed) {
            return Err(DeleteError::Updated(pushed));
        }
        let mut doomed = vec![digest.clone()];
        while let Some(digest) = doomed.pop() {
            let staged: Vec<Digest> = self.staged.iter().map(|row| row.digest.clone()).collect();
            let Some(held) = self.repositories.get_mut(repository) else { break };
            let tags: Vec<Tag> =
                held.tags.iter().filter(|(_, row)| row.digest == digest).map(|(tag, _)| tag.clone()).collect();
            for tag in tags {
                held.tags.remove(&tag);
                self.deleted.push((repository.clone(), Some(tag), digest.clone()));
            }
            let about = held.refers(ReferenceKind::Subject, &digest).filter(|about| {
                !held.tags.values().any(|row| row.digest == **about)
                    && held.refers(ReferenceKind::Manifest, about).next().is_none()
                    && !staged.contains(about)
            });
            doomed.extend(about.cloned().collect::<Vec<_>>());
            let Some(row) = held.manifests.remove(&digest) else { continue };
            for reference in row.references {
                if let Some(blob) = held.blobs.get_mut(&reference.digest) {
                    blob.used = Some(now);
                }
            }
            self.deleted.push((repository.clone(), None, digest));
        }
        Ok(())
    }

    pub(super) fn delete_blob(
        &mut self,
        repository: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        self.check_live(writer)?;
        let unknown = || DeleteError::Unknown(repository.clone());
        let held = self.repositories.get_mut(repository).ok_or_else(unknown)?;
        if !held.blobs.contains_key(digest) {
            return Err(unknown());
        }
        if let Some(by) = held.needs_blob(digest) {
            return Err(DeleteError::Needed(by.clone()));
        }
        held.blobs.remove(digest);
        self.condemn_unheld(digest);
        Ok(())
    }
}

impl Repository {
    /// The manifests that refer to something in this way.
    pub(super) fn refers(&self, kind: ReferenceKind, to: &Digest) -> impl Iterator<Item = &Digest> {
        self.manifests.iter().filter_map(move |(digest, row)| {
            row.references.iter().any(|reference| reference.kind == kind && reference.digest == *to).then_some(digest)
        })
    }

    /// A manifest that refers to a blob.
    pub(super) fn needs_blob(&self, blob: &Digest) -> Option<&Digest> {
        let kinds = [ReferenceKind::Blob, ReferenceKind::ForeignBlob];
        kinds.into_iter().find_map(|kind| self.refers(kind, blob).next())
    }
}
