//! The registry's metadata in SQLite: each operation of the port is one transaction.
//!
//! A write under an attempt checks in its own transaction that the attempt is live, so a push that comes after its
//! attempt was replaced changes nothing, however the two race.

mod blobs;
mod catalog;
mod collection;
mod deletion;
mod manifests;
mod staged;
#[cfg(test)]
mod tests;
mod uploads;

use std::sync::Arc;

use async_trait::async_trait;
use cooper_ports::blobs::UploadId;
use cooper_ports::registry::{
    AttemptRef, BeginUploadError, DeleteError, Manifest, ManifestKey, NewManifest, PutManifestError, RegistryStore,
    RegistryWriteError, Upload, Writer,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RegistryId, RepositoryName, RunId, Tag, Timestamp};
use sqlx::SqliteConnection;

use crate::Store;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

use deletion::Deletion;
pub(crate) use staged::{Promotion, check_staged, drop_staged, promote_own, promote_staged};
pub(crate) use uploads::expire_of_attempt;

#[async_trait]
impl RegistryStore for Store {
    async fn attempt_is_live(&self, attempt: &AttemptRef) -> Result<bool, StoreError> {
        let mut connection = self.readers().acquire().await.during("find attempt")?;
        is_live(&mut connection, self.registry_id(), attempt).await
    }

    async fn begin_upload(&self, upload: &Upload) -> Result<(), BeginUploadError> {
        let (registry, clock, upload) = (self.registry_id(), self.clock().clone(), upload.clone());
        self.write(async move |mut tx| {
            check_live(&mut tx, registry, &upload.writer).await?;
            uploads::begin(&mut tx, registry, clock.now(), &upload).await
        })
        .await
    }

    async fn find_upload(&self, repository: &RepositoryName, id: UploadId) -> Result<Option<Upload>, StoreError> {
        uploads::find(self.readers(), self.registry_id(), repository, id).await
    }

    async fn complete_upload(&self, upload: &Upload, digest: &Digest, size: u64) -> Result<(), RegistryWriteError> {
        let (registry, clock, upload, digest) =
            (self.registry_id(), self.clock().clone(), upload.clone(), digest.clone());
        self.write(async move |mut tx| {
            check_live(&mut tx, registry, &upload.writer).await?;
            uploads::forget(&mut tx, registry, &[upload.id]).await?;
            let repository = repository(&mut tx, registry, clock.now(), &upload.repository).await?;
            Ok(blobs::hold(&mut tx, registry, clock.now(), repository, &digest, size).await?)
        })
        .await
    }

    async fn forget_uploads(&self, ids: &[UploadId]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let (registry, ids) = (self.registry_id(), ids.to_vec());
        self.write(async move |mut tx| uploads::forget(&mut tx, registry, &ids).await).await
    }

    async fn expired_uploads(&self, now: Timestamp, limit: u32) -> Result<Vec<UploadId>, StoreError> {
        uploads::expired(self.readers(), self.registry_id(), now, limit).await
    }

    async fn mount_blob(
        &self,
        from: &RepositoryName,
        to: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<bool, RegistryWriteError> {
        let (registry, clock, writer) = (self.registry_id(), self.clock().clone(), writer.clone());
        let (from, to, digest) = (from.clone(), to.clone(), digest.clone());
        self.write(async move |mut tx| {
            check_live(&mut tx, registry, &writer).await?;
            let Some(size) = blobs::size(&mut tx, registry, &from, &digest).await? else { return Ok(false) };
            let to = repository(&mut tx, registry, clock.now(), &to).await?;
            blobs::hold(&mut tx, registry, clock.now(), to, &digest, size).await?;
            Ok(true)
        })
        .await
    }

    async fn blob_size(&self, repository: &RepositoryName, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let mut connection = self.readers().acquire().await.during("find blob")?;
        blobs::size(&mut connection, self.registry_id(), repository, digest).await
    }

    async fn put_manifest(&self, new: NewManifest, writer: &Writer) -> Result<(), PutManifestError> {
        let (registry, clock, writer) = (self.registry_id(), self.clock().clone(), writer.clone());
        let moves_tag = new.tag.is_some() && writer.attempt.is_none();
        self.write(async move |mut tx| {
            check_live(&mut tx, registry, &writer).await?;
            manifests::put(&mut tx, registry, clock.now(), new, &writer).await
        })
        .await?;
        self.something_queued();
        if moves_tag {
            self.bases_moved().notify_one();
        }
        Ok(())
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        key: &ManifestKey,
        run: Option<RunId>,
    ) -> Result<Option<Manifest>, StoreError> {
        manifests::find(self.readers(), self.registry_id(), repository, key, run).await
    }

    async fn tags(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
        run: Option<RunId>,
    ) -> Result<Option<Vec<Tag>>, StoreError> {
        manifests::tags(self.readers(), self.registry_id(), repository, after, limit, run).await
    }

    async fn delete_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        expected: Option<&Digest>,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        let (deletion, tag, expected) = (self.deletion(repository, writer), tag.clone(), expected.cloned());
        self.write(async move |mut tx| deletion.tag(&mut tx, &tag, expected.as_ref(), updated).await).await
    }

    async fn delete_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        untagged: bool,
        updated: Option<Timestamp>,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        let (deletion, digest) = (self.deletion(repository, writer), digest.clone());
        let deletion = Arc::new(deletion);
        let deleted = self.delete_bit_by_bit(deletion, digest, untagged, updated).await;
        // Of what went before a refusal there is to be told, too.
        self.something_queued();
        deleted
    }

    async fn delete_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        writer: &Writer,
    ) -> Result<(), DeleteError> {
        let (deletion, digest) = (self.deletion(repository, writer), digest.clone());
        self.write(async move |mut tx| deletion.blob(&mut tx, &digest).await).await
    }

    async fn expire_staged(&self, now: Timestamp) -> Result<u64, StoreError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| staged::expire(&mut tx, registry, now).await).await
    }
}

impl Store {
    fn deletion(&self, repository: &RepositoryName, writer: &Writer) -> Deletion {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        Deletion { registry, repository: repository.clone(), writer: writer.clone(), clock }
    }
}

/// Refuses a write whose attempt is over.
async fn check_live(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    writer: &Writer,
) -> Result<(), RegistryWriteError> {
    match &writer.attempt {
        Some(attempt) if !is_live(tx, registry, attempt).await? => {
            Err(RegistryWriteError::AttemptOver(attempt.clone()))
        }
        _ => Ok(()),
    }
}

async fn is_live(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    attempt: &AttemptRef,
) -> Result<bool, StoreError> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM live_attempts
                        WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3 AND step_id = ?4)",
    )
    .bind(registry.0)
    .bind(run_number(attempt.run))
    .bind(attempt_number(attempt))
    .bind(attempt.step.as_str())
    .fetch_one(connection)
    .await
    .during("find attempt")
}

/// The repository's row, made if it is missing: a repository begins with the first thing that it holds.
async fn repository(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    name: &RepositoryName,
) -> Result<i64, StoreError> {
    const WRITE: &str = "write repository";
    sqlx::query("INSERT INTO repositories (registry_id, name, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
        .bind(registry.0)
        .bind(name.as_str())
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    sqlx::query_scalar("SELECT id FROM repositories WHERE registry_id = ?1 AND name = ?2")
        .bind(registry.0)
        .bind(name.as_str())
        .fetch_one(tx)
        .await
        .during(WRITE)
}

fn attempt_number(attempt: &AttemptRef) -> i64 {
    // Attempts are counted by the database; one beyond its range is nobody's.
    i64::try_from(attempt.attempt.0).unwrap_or(i64::MAX)
}

fn unsigned(value: i64, operation: &'static str) -> Result<u64, StoreError> {
    u64::try_from(value).stored(operation)
}
