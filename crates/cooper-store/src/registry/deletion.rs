//! Deleting tags, manifests and blobs, each with its event in the same transaction.

use std::sync::Arc;

use cooper_ports::clock::Clock;
use cooper_ports::registry::{BLOB_LEASE, DeleteError, Writer};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RegistryId, RepositoryName, RunId, Tag, Timestamp};
use serde_json::json;
use sqlx::SqliteConnection;

use super::collection::condemn_unheld;
use super::{check_live, unsigned};
use crate::events;
use crate::outbox;
use crate::sql_error::{During, Stored};

const DELETE: &str = "delete from the registry";

/// The kind of the event that tells of a deletion.
const DELETED: &str = "deleted";

const NEEDED_BY_INDEX: &str = "SELECT manifest FROM manifest_references
    WHERE repository_id = ?1 AND digest = ?2 AND kind = 'manifest' LIMIT 1";
const BLOB_NEEDED_BY: &str = "SELECT manifest FROM manifest_references
    WHERE repository_id = ?1 AND digest = ?2 AND kind IN ('blob', 'foreign_blob') LIMIT 1";
const FIRST_TAG: &str = "SELECT name FROM tags WHERE repository_id = ?1 AND digest = ?2 ORDER BY name LIMIT 1";

/// A repository that something is deleted from, and by whom.
pub(super) struct Deletion {
    pub(super) registry: RegistryId,
    pub(super) repository: RepositoryName,
    pub(super) writer: Writer,
    pub(super) clock: Arc<dyn Clock>,
}

impl Deletion {
    pub(super) async fn tag(
        &self,
        tx: &mut SqliteConnection,
        tag: &Tag,
        expected: Option<&Digest>,
        updated: Option<Timestamp>,
    ) -> Result<(), DeleteError> {
        let id = self.id(tx).await?;
        let found: Option<(String, i64)> =
            sqlx::query_as("SELECT digest, moved FROM tags WHERE repository_id = ?1 AND name = ?2")
                .bind(id)
                .bind(tag.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(DELETE)?;
        let (found, moved) = found.ok_or_else(|| DeleteError::Unknown(self.repository.clone()))?;
        let digest = Digest::parse(&found).stored(DELETE)?;
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(DeleteError::Moved(digest));
        }
        check_updated(updated, moved)?;
        sqlx::query("DELETE FROM tags WHERE repository_id = ?1 AND name = ?2")
            .bind(id)
            .bind(tag.as_str())
            .execute(&mut *tx)
            .await
            .during(DELETE)?;
        Ok(self.announce(tx, Some(tag.as_str()), &digest).await?)
    }

    pub(super) async fn manifest(
        &self,
        tx: &mut SqliteConnection,
        digest: &Digest,
        untagged: bool,
        updated: Option<Timestamp>,
    ) -> Result<(), DeleteError> {
        let id = self.id(tx).await?;
        let pushed: Option<i64> =
            sqlx::query_scalar("SELECT updated FROM manifests WHERE repository_id = ?1 AND digest = ?2")
                .bind(id)
                .bind(digest.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(DELETE)?;
        let pushed = pushed.ok_or_else(|| DeleteError::Unknown(self.repository.clone()))?;
        if let Some(by) = text(tx, NEEDED_BY_INDEX, id, digest).await? {
            return Err(DeleteError::Needed(Digest::parse(&by).stored(DELETE)?));
        }
        if let Some(run) = staging_run(tx, id, digest).await? {
            return Err(DeleteError::Staged(run));
        }
        if untagged && let Some(tag) = text(tx, FIRST_TAG, id, digest).await? {
            return Err(DeleteError::Tagged(Tag::parse(&tag).stored(DELETE)?));
        }
        check_updated(updated, pushed)?;
        let mut doomed = vec![digest.clone()];
        while let Some(digest) = doomed.pop() {
            doomed.extend(about(tx, id, &digest).await?);
            self.one_manifest(tx, id, &digest).await?;
        }
        Ok(())
    }

    /// Deletes a manifest that nothing refers to, and its tags.
    async fn one_manifest(&self, tx: &mut SqliteConnection, id: i64, digest: &Digest) -> Result<(), StoreError> {
        let tags: Vec<String> =
            sqlx::query_scalar("DELETE FROM tags WHERE repository_id = ?1 AND digest = ?2 RETURNING name")
                .bind(id)
                .bind(digest.as_str())
                .fetch_all(&mut *tx)
                .await
                .during(DELETE)?;
        for tag in &tags {
            self.announce(tx, Some(tag), digest).await?;
        }
        let media_type: String =
            sqlx::query_scalar("SELECT media_type FROM manifests WHERE repository_id = ?1 AND digest = ?2")
                .bind(id)
                .bind(digest.as_str())
                .fetch_one(&mut *tx)
                .await
                .during(DELETE)?;
        // What it kept is to be looked at again; and those who pull it now get to their end.
        sqlx::query(
            "UPDATE repository_blobs SET lease_until = ?3 WHERE repository_id = ?1 AND digest IN (
                 SELECT digest FROM manifest_references WHERE repository_id = ?1 AND manifest = ?2)",
        )
        .bind(id)
        .bind(digest.as_str())
        .bind(self.now().after(BLOB_LEASE).as_micros())
        .execute(&mut *tx)
        .await
        .during(DELETE)?;
        for sql in [
            "DELETE FROM manifest_references WHERE repository_id = ?1 AND manifest = ?2",
            "DELETE FROM manifests WHERE repository_id = ?1 AND digest = ?2",
        ] {
            sqlx::query(sql).bind(id).bind(digest.as_str()).execute(&mut *tx).await.during(DELETE)?;
        }
        self.announce(tx, None, digest).await?;
        let repository = &self.repository;
        let event = outbox::Event::Deleted { repository, digest, media_type: &media_type, tags: &tags };
        outbox::queue(tx, self.registry, self.now(), &event).await
    }

    pub(super) async fn blob(&self, tx: &mut SqliteConnection, digest: &Digest) -> Result<(), DeleteError> {
        let id = self.id(tx).await?;
        if let Some(by) = text(tx, BLOB_NEEDED_BY, id, digest).await? {
            return Err(DeleteError::Needed(Digest::parse(&by).stored(DELETE)?));
        }
        let deleted = sqlx::query("DELETE FROM repository_blobs WHERE repository_id = ?1 AND digest = ?2")
            .bind(id)
            .bind(digest.as_str())
            .execute(&mut *tx)
            .await
            .during(DELETE)?;
        if deleted.rows_affected() == 0 {
            return Err(DeleteError::Unknown(self.repository.clone()));
        }
        condemn_unheld(tx, self.registry, self.now(), &json!([digest]).to_string()).await?;
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The repository's row, for a writer who may still write.
    async fn id(&self, tx: &mut SqliteConnection) -> Result<i64, DeleteError> {
        check_live(tx, self.registry, &self.writer).await?;
        let id: Option<i64> = sqlx::query_scalar("SELECT id FROM repositories WHERE registry_id = ?1 AND name = ?2")
            .bind(self.registry.0)
            .bind(self.repository.as_str())
            .fetch_optional(tx)
            .await
            .during(DELETE)?;
        id.ok_or_else(|| DeleteError::Unknown(self.repository.clone()))
    }

    async fn announce(&self, tx: &mut SqliteConnection, tag: Option<&str>, digest: &Digest) -> Result<(), StoreError> {
        let mut payload = json!({
            "repository": self.repository, "tag": tag, "digest": digest, "principal": self.writer.principal,
        });
        if let Some(attempt) = &self.writer.attempt {
            payload["run"] = json!(attempt.run);
            payload["step"] = json!(attempt.step);
            payload["attempt"] = json!(attempt.attempt);
        }
        events::insert(tx, self.registry, DELETED, &payload, self.now()).await
    }
}

/// Checks that what was listed with a time of its last push was not pushed since.
fn check_updated(listed: Option<Timestamp>, found: i64) -> Result<(), DeleteError> {
    let found = Timestamp::from_micros(found);
    match listed.is_some_and(|listed| listed != found) {
        true => Err(DeleteError::Updated(found)),
        false => Ok(()),
    }
}

/// The manifests about one that is going away, without those that something else keeps.
async fn about(tx: &mut SqliteConnection, repository: i64, subject: &Digest) -> Result<Vec<Digest>, StoreError> {
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT manifest FROM manifest_references AS about
         WHERE repository_id = ?1 AND digest = ?2 AND kind = 'subject'
           AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.repository_id = ?1 AND tags.digest = about.manifest)
           AND NOT EXISTS (SELECT 1 FROM staged_tags
                           WHERE staged_tags.repository_id = ?1 AND staged_tags.digest = about.manifest)
           AND NOT EXISTS (SELECT 1 FROM manifest_references AS other
                           WHERE other.repository_id = ?1 AND other.digest = about.manifest AND other.kind = 'manifest')",
    )
    .bind(repository)
    .bind(subject.as_str())
    .fetch_all(tx)
    .await
    .during(DELETE)?;
    found.iter().map(|digest| Digest::parse(digest).stored(DELETE)).collect()
}

/// A run that has staged a manifest.
async fn staging_run(tx: &mut SqliteConnection, repository: i64, digest: &Digest) -> Result<Option<RunId>, StoreError> {
    let run: Option<i64> =
        sqlx::query_scalar("SELECT run_number FROM staged_tags WHERE repository_id = ?1 AND digest = ?2 LIMIT 1")
            .bind(repository)
            .bind(digest.as_str())
            .fetch_optional(tx)
            .await
            .during(DELETE)?;
    run.map(|run| unsigned(run, DELETE).map(RunId::from_number)).transpose()
}

async fn text(
    tx: &mut SqliteConnection,
    sql: &'static str,
    repository: i64,
    digest: &Digest,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar(sql).bind(repository).bind(digest.as_str()).fetch_optional(tx).await.during(DELETE)
}
