//! Manifests and tags.

use cooper_ports::registry::{
    Manifest, ManifestKey, ManifestReference, NewManifest, PutManifestError, ReferenceKind, Writer,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RegistryId, RepositoryName, RunId, Tag, Timestamp};
use serde_json::json;
use sqlx::sqlite::SqlitePool;
use sqlx::{Row, SqliteConnection};

use super::{repository, staged};
use crate::contexts::run_number;
use crate::events;
use crate::outbox;
use crate::sql_error::{During, Stored};
use crate::waves::edges::tag_moves;

const WRITE: &str = "write manifest";

/// Stores a manifest, moves or stages its tag, and announces what became visible.
pub(super) async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    new: NewManifest,
    writer: &Writer,
) -> Result<(), PutManifestError> {
    let id = repository(tx, registry, now, &new.repository).await?;
    let missing = missing(tx, id, &new.references).await?;
    if !missing.is_empty() {
        return Err(PutManifestError::Missing { repository: new.repository, missing });
    }
    insert(tx, id, now, &new.manifest, writer).await?;
    insert_references(tx, id, &new.manifest.digest, &new.references).await?;
    let digest = &new.manifest.digest;
    match (&new.tag, &writer.attempt) {
        (Some(tag), Some(attempt)) => staged::stage(tx, registry, now, attempt, id, tag, digest).await?,
        (tag, None) => {
            if let Some(tag) = tag {
                tag_moves(tx, registry, now, (id, &new.repository), tag, digest, None).await?;
                move_tag(tx, id, now, tag, digest, None).await?;
                let event = outbox::Event::Pushed { id, repository: &new.repository, tag, digest, agent: "" };
                outbox::queue(tx, registry, now, &event).await?;
            }
            let payload = json!({
                "repository": new.repository, "tag": tag, "digest": digest, "principal": writer.principal,
            });
            events::insert(tx, registry, PUSHED, &payload, now).await?;
        }
        // What a step pushes by digest is announced when its tags are.
        (None, Some(_)) => {}
    }
    Ok(())
}

/// The kind of the event that tells of a push.
pub(super) const PUSHED: &str = "pushed";

/// Points a tag at a manifest that the repository holds.
pub(super) async fn move_tag(
    tx: &mut SqliteConnection,
    repository: i64,
    now: Timestamp,
    tag: &Tag,
    digest: &Digest,
    by: Option<RunId>,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE manifests SET updated = ?3, by_attempt = 0
         WHERE repository_id = ?1 AND digest = ?2 AND (updated <> ?3 OR by_attempt = 1)",
    )
    .bind(repository)
    .bind(digest.as_str())
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await
    .during("move tag")?;
    // What an index is made of is there with it.
    sqlx::query(
        "UPDATE manifests SET by_attempt = 0 WHERE repository_id = ?1 AND by_attempt = 1 AND digest IN (
             SELECT digest FROM manifest_references WHERE repository_id = ?1 AND manifest = ?2 AND kind = 'manifest')",
    )
    .bind(repository)
    .bind(digest.as_str())
    .execute(&mut *tx)
    .await
    .during("move tag")?;
    sqlx::query(
        "INSERT INTO tags (repository_id, name, digest, moved, pushed, created, moved_by) VALUES (?1, ?2, ?3, ?4, ?4, ?4, ?5)
         ON CONFLICT DO UPDATE SET digest = excluded.digest, pushed = excluded.pushed,
             moved = iif(digest = excluded.digest, moved, excluded.moved),
             moved_by = iif(digest = excluded.digest, moved_by, excluded.moved_by)",
    )
    .bind(repository)
    .bind(tag.as_str())
    .bind(digest.as_str())
    .bind(now.as_micros())
    .bind(by.map(run_number))
    .execute(tx)
    .await
    .map(drop)
    .during("move tag")
}

/// What the repository lacks of what a manifest needs, sorted.
async fn missing(
    tx: &mut SqliteConnection,
    repository: i64,
    references: &[ManifestReference],
) -> Result<Vec<Digest>, StoreError> {
    let lacking: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT value ->> 1 AS digest FROM json_each(?2)
         WHERE CASE value ->> 0
             WHEN 'blob' THEN NOT EXISTS (
                 SELECT 1 FROM repository_blobs AS held WHERE held.repository_id = ?1 AND held.digest = value ->> 1)
             WHEN 'manifest' THEN NOT EXISTS (
                 SELECT 1 FROM manifests AS held WHERE held.repository_id = ?1 AND held.digest = value ->> 1)
             ELSE 0
         END
         ORDER BY digest",
    )
    .bind(repository)
    .bind(pairs(references.iter().filter(|reference| needed(reference.kind))))
    .fetch_all(tx)
    .await
    .during(WRITE)?;
    lacking.iter().map(|digest| Digest::parse(digest).stored(WRITE)).collect()
}

fn needed(kind: ReferenceKind) -> bool {
    match kind {
        ReferenceKind::Blob | ReferenceKind::Manifest => true,
        ReferenceKind::ForeignBlob | ReferenceKind::Subject => false,
    }
}

/// References as JSON that SQLite unfolds, so that their number is not the number of statements.
fn pairs<'a>(references: impl Iterator<Item = &'a ManifestReference>) -> String {
    let pairs: Vec<_> = references.map(|reference| json!([reference.kind.name(), reference.digest])).collect();
    json!(pairs).to_string()
}

/// Stores a manifest. One that is there takes the newest media type that it is pushed under, but not from an attempt:
/// tags that others see may point to it.
async fn insert(
    tx: &mut SqliteConnection,
    repository: i64,
    now: Timestamp,
    manifest: &Manifest,
    writer: &Writer,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO manifests (repository_id, digest, media_type, payload, created, updated, by_attempt)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, NOT ?6)
         ON CONFLICT DO UPDATE SET updated = excluded.updated, media_type = iif(?6, excluded.media_type, media_type),
             by_attempt = min(by_attempt, excluded.by_attempt)",
    )
    .bind(repository)
    .bind(manifest.digest.as_str())
    .bind(&manifest.media_type)
    .bind(manifest.bytes.as_ref())
    .bind(now.as_micros())
    .bind(writer.attempt.is_none())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

async fn insert_references(
    tx: &mut SqliteConnection,
    repository: i64,
    manifest: &Digest,
    references: &[ManifestReference],
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR IGNORE INTO manifest_references (repository_id, manifest, kind, digest)
         SELECT ?1, ?2, value ->> 0, value ->> 1 FROM json_each(?3)",
    )
    .bind(repository)
    .bind(manifest.as_str())
    .bind(pairs(references.iter()))
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

pub(super) async fn find(
    readers: &SqlitePool,
    registry: RegistryId,
    repository: &RepositoryName,
    key: &ManifestKey,
    run: Option<RunId>,
) -> Result<Option<Manifest>, StoreError> {
    const READ: &str = "find manifest";
    let query = match key {
        ManifestKey::Digest(digest) => sqlx::query(
            "SELECT manifests.digest, media_type, payload FROM repositories
             JOIN manifests ON manifests.repository_id = repositories.id AND manifests.digest = ?3
             WHERE registry_id = ?1 AND name = ?2",
        )
        .bind(registry.0)
        .bind(repository.as_str())
        .bind(digest.as_str()),
        // The newest of the run's own staged tags counts before the real one.
        ManifestKey::Tag(tag) => sqlx::query(
            "SELECT manifests.digest, media_type, payload FROM repositories
             JOIN manifests ON manifests.repository_id = repositories.id AND manifests.digest = coalesce(
                 (SELECT staged_tags.digest FROM staged_tags
                  WHERE staged_tags.registry_id = ?1 AND run_number = ?4
                    AND staged_tags.repository_id = repositories.id AND tag = ?3
                  ORDER BY attempt DESC LIMIT 1),
                 (SELECT tags.digest FROM tags WHERE tags.repository_id = repositories.id AND tags.name = ?3))
             WHERE repositories.registry_id = ?1 AND repositories.name = ?2",
        )
        .bind(registry.0)
        .bind(repository.as_str())
        .bind(tag.as_str())
        .bind(run.map(run_number)),
    };
    let Some(row) = query.fetch_optional(readers).await.during(READ)? else { return Ok(None) };
    Ok(Some(Manifest {
        digest: Digest::parse(row.try_get("digest").during(READ)?).stored(READ)?,
        media_type: row.try_get("media_type").during(READ)?,
        bytes: row.try_get::<Vec<u8>, _>("payload").during(READ)?.into(),
    }))
}

pub(super) async fn tags(
    readers: &SqlitePool,
    registry: RegistryId,
    repository: &RepositoryName,
    after: Option<&str>,
    limit: u32,
    run: Option<RunId>,
) -> Result<Option<Vec<Tag>>, StoreError> {
    const LIST: &str = "list tags";
    let mut tx = readers.begin().await.during(LIST)?;
    let id: Option<i64> = sqlx::query_scalar("SELECT id FROM repositories WHERE registry_id = ?1 AND name = ?2")
        .bind(registry.0)
        .bind(repository.as_str())
        .fetch_optional(&mut *tx)
        .await
        .during(LIST)?;
    let Some(id) = id else { return Ok(None) };
    // What an attempt that is over has left for other placements is named by its digest alone.
    let tags: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM tags WHERE repository_id = ?1 AND name > ?2
         UNION
         SELECT tag FROM staged_tags WHERE registry_id = ?3 AND run_number = ?4 AND repository_id = ?1 AND tag > ?2
            AND EXISTS (SELECT 1 FROM live_attempts WHERE live_attempts.registry_id = ?3
                        AND live_attempts.run_number = ?4 AND live_attempts.attempt = staged_tags.attempt)
         ORDER BY 1 LIMIT ?5",
    )
    .bind(id)
    .bind(after.unwrap_or_default())
    .bind(registry.0)
    .bind(run.map(run_number))
    .bind(limit)
    .fetch_all(&mut *tx)
    .await
    .during(LIST)?;
    tags.iter().map(|tag| Tag::parse(tag).stored(LIST)).collect::<Result<_, _>>().map(Some)
}
