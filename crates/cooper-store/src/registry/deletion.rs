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
use crate::Store;
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

/// What one transaction deletes at most: manifests about another one, and tags. All others' writes wait for it. Nobody has so
/// many by honest work: an image, its list of contents and their signatures go together or not at all.
const BATCH: u32 = 200;

/// How far a transaction got with a manifest.
enum Progress {
    /// It is gone.
    Done,
    /// Not all is gone yet that goes with it.
    More,
    /// This one goes with it, far from it.
    First(Digest),
}

/// A manifest that goes, and what is about it and goes before.
struct Level {
    digest: Digest,
    about: Vec<Digest>,
}

/// A repository that something is deleted from, and by whom.
pub(super) struct Deletion {
    pub(super) registry: RegistryId,
    pub(super) repository: RepositoryName,
    pub(super) writer: Writer,
    pub(super) clock: Arc<dyn Clock>,
}

impl Store {
    /// Deletes a manifest in as many transactions as it takes: anybody who may push makes any number of manifests about one.
    /// The manifest itself goes in the last one, with its conditions looked at in each.
    pub(super) async fn delete_bit_by_bit(
        &self,
        deletion: Arc<Deletion>,
        digest: Digest,
        untagged: bool,
        updated: Option<Timestamp>,
    ) -> Result<(), DeleteError> {
        let mut waiting = vec![digest];
        while let Some(digest) = waiting.last().cloned() {
            // What goes with another one has no tag.
            let (untagged, updated) = if waiting.len() == 1 { (untagged, updated) } else { (true, None) };
            let deletion = Arc::clone(&deletion);
            let progress =
                self.write(async move |mut tx| deletion.manifest(&mut tx, &digest, untagged, updated).await).await;
            match progress {
                Ok(Progress::More) => {}
                Ok(Progress::First(other)) => waiting.push(other),
                Ok(Progress::Done) => drop(waiting.pop()),
                // Something else keeps it since, or has deleted it: the one that it is about goes without it.
                Err(
                    DeleteError::Unknown(_) | DeleteError::Needed(_) | DeleteError::Staged(_) | DeleteError::Tagged(_),
                ) if waiting.len() > 1 => drop(waiting.pop()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
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
            sqlx::query_as("SELECT digest, pushed FROM tags WHERE repository_id = ?1 AND name = ?2")
                .bind(id)
                .bind(tag.as_str())
                .fetch_optional(&mut *tx)
                .await
                .during(DELETE)?;
        let (found, pushed) = found.ok_or_else(|| DeleteError::Unknown(self.repository.clone()))?;
        let digest = Digest::parse(&found).stored(DELETE)?;
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(DeleteError::Moved(digest));
        }
        check_updated(updated, pushed)?;
        sqlx::query("DELETE FROM tags WHERE repository_id = ?1 AND name = ?2")
            .bind(id)
            .bind(tag.as_str())
            .execute(&mut *tx)
            .await
            .during(DELETE)?;
        Ok(self.announce(tx, Some(tag.as_str()), &digest).await?)
    }

    /// Deletes a manifest, or a part of what goes with it, in which case it is asked for again.
    async fn manifest(
        &self,
        tx: &mut SqliteConnection,
        digest: &Digest,
        untagged: bool,
        updated: Option<Timestamp>,
    ) -> Result<Progress, DeleteError> {
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
        // What is about another one goes before it: it would be about nothing.
        let mut levels = vec![Level { digest: digest.clone(), about: about(tx, id, digest, BATCH).await? }];
        let mut budget = BATCH;
        while let Some(level) = levels.last_mut() {
            if let Some(other) = level.about.pop() {
                if levels.len() >= BATCH as usize {
                    return Ok(Progress::First(other));
                }
                let about = about(tx, id, &other, BATCH).await?;
                levels.push(Level { digest: other, about });
                continue;
            }
            // The first one has to be looked at again.
            if budget == 0 {
                return Ok(Progress::More);
            }
            budget -= 1;
            let digest = level.digest.clone();
            levels.pop();
            if let Progress::More = self.one_manifest(tx, id, &digest).await? {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    /// Deletes a manifest that nothing refers to, and its tags.
    async fn one_manifest(&self, tx: &mut SqliteConnection, id: i64, digest: &Digest) -> Result<Progress, DeleteError> {
        let tags: Vec<String> = sqlx::query_scalar(
            "DELETE FROM tags WHERE repository_id = ?1 AND name IN (
                 SELECT name FROM tags WHERE repository_id = ?1 AND digest = ?2 ORDER BY name LIMIT ?3) RETURNING name",
        )
        .bind(id)
        .bind(digest.as_str())
        .bind(BATCH)
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
        let repository = &self.repository;
        let event = outbox::Event::Deleted { repository, digest, media_type: &media_type, tags: &tags };
        outbox::queue(tx, self.registry, self.now(), &event).await?;
        if text(tx, FIRST_TAG, id, digest).await?.is_some() {
            // Whoever listens to a tag hears of it with those that went with it.
            return Ok(Progress::More);
        }
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
        Ok(Progress::Done)
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

/// Some of the manifests about one that is going away, without those that something else keeps.
async fn about(
    tx: &mut SqliteConnection,
    repository: i64,
    subject: &Digest,
    limit: u32,
) -> Result<Vec<Digest>, StoreError> {
    let found: Vec<String> = sqlx::query_scalar(
        "SELECT manifest FROM manifest_references AS about
         WHERE repository_id = ?1 AND digest = ?2 AND kind = 'subject'
           AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.repository_id = ?1 AND tags.digest = about.manifest)
           AND NOT EXISTS (SELECT 1 FROM staged_tags
                           WHERE staged_tags.repository_id = ?1 AND staged_tags.digest = about.manifest)
           AND NOT EXISTS (SELECT 1 FROM manifest_references AS other
                           WHERE other.repository_id = ?1 AND other.digest = about.manifest AND other.kind = 'manifest')
         LIMIT ?3",
    )
    .bind(repository)
    .bind(subject.as_str())
    .bind(limit)
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
