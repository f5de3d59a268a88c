//! What a store in memory holds, in pages.

use async_trait::async_trait;
use cooper_types::{Digest, RepositoryName, Tag};

use super::super::{MAX_LISTED_TAGS, ManifestDetails, ReferenceKind, RegistryCatalog, RepositoryDetails, TagDetails};
use super::{ManifestRow, MemRegistryStore, Repository};
use crate::store_error::StoreError;

#[async_trait]
impl RegistryCatalog for MemRegistryStore {
    async fn repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepositoryName>, StoreError> {
        let state = self.state();
        let held = state.repositories.iter().filter(|(_, repository)| !repository.manifests.is_empty());
        let names = held.map(|(name, _)| name).filter(|name| after.is_none_or(|after| name.as_str() > after));
        Ok(names.take(limit as usize).cloned().collect())
    }

    async fn repository_details(&self, name: &RepositoryName) -> Result<Option<RepositoryDetails>, StoreError> {
        let state = self.state();
        let held = state.repositories.get(name);
        Ok(held.filter(|repository| !repository.manifests.is_empty()).map(|repository| RepositoryDetails {
            name: name.clone(),
            created: repository.created,
            updated: repository.manifests.values().map(|row| row.updated).max().unwrap_or(repository.created),
            manifests: repository.manifests.len() as u64,
            tags: repository.tags.len() as u64,
        }))
    }

    async fn tag_details(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagDetails>, StoreError> {
        let state = self.state();
        let Some(held) = state.repositories.get(repository) else { return Ok(Vec::new()) };
        let tags = held.tags.iter().filter(|(tag, _)| after.is_none_or(|after| tag.as_str() > after));
        let details = tags.map(|(tag, row)| TagDetails {
            tag: tag.clone(),
            digest: row.digest.clone(),
            created: row.created,
            updated: row.moved,
        });
        Ok(details.take(limit as usize).collect())
    }

    async fn manifest_details(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ManifestDetails>, StoreError> {
        let state = self.state();
        let Some(held) = state.repositories.get(repository) else { return Ok(Vec::new()) };
        let staged =
            |digest: &Digest| state.staged.iter().any(|row| row.repository == *repository && row.digest == *digest);
        let manifests =
            held.manifests.values().filter(|row| after.is_none_or(|after| row.manifest.digest.as_str() > after));
        Ok(manifests.take(limit as usize).map(|row| held.details(row, staged(&row.manifest.digest))).collect())
    }
}

impl Repository {
    fn details(&self, row: &ManifestRow, is_staged: bool) -> ManifestDetails {
        let of = |kind: ReferenceKind| row.references.iter().filter(move |reference| reference.kind == kind);
        let blobs = of(ReferenceKind::Blob).chain(of(ReferenceKind::ForeignBlob));
        let sizes = blobs.filter_map(|reference| self.blobs.get(&reference.digest)).map(|held| held.size);
        let mut manifests: Vec<Digest> =
            of(ReferenceKind::Manifest).map(|reference| reference.digest.clone()).collect();
        manifests.sort();
        let tags = self.tags.iter().filter(|(_, tag)| tag.digest == row.manifest.digest);
        ManifestDetails {
            digest: row.manifest.digest.clone(),
            media_type: row.manifest.media_type.clone(),
            size: row.manifest.bytes.len() as u64 + sizes.sum::<u64>(),
            created: row.created,
            updated: row.updated,
            tags: tags.map(|(tag, _)| tag).take(MAX_LISTED_TAGS).cloned().collect::<Vec<Tag>>(),
            manifests,
            subject: of(ReferenceKind::Subject).map(|reference| reference.digest.clone()).next(),
            is_staged,
        }
    }
}
