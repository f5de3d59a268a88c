//! Tags of other registries that tasks stand on: when they are asked for, and what they were seen to stand for.

use cooper_engine::wave::ImageTag;
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{FollowersCredential, RemoteAnswer, RemoteTag};
use cooper_types::{RegistryId, RegistryName, RepositoryName, SourceHost, Tag, TaskName, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::edges::image;
use super::{READ, WRITE};
use crate::sql_error::{During, Stored};

/// However often others say that a tag has moved, it is asked for at most so often, in microseconds.
const SPACING: i64 = 10_000_000;

pub(super) async fn due(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    limit_of_one: u32,
    without: &[RegistryName],
) -> Result<Vec<RemoteTag>, StoreError> {
    // Each registry's first ones: a long queue for one keeps no other waiting.
    let rows = sqlx::query(
        "SELECT registry, repository, tag, etag, failures FROM (
             SELECT k.*, row_number() OVER (PARTITION BY registry ORDER BY next) AS place
             FROM remote_tags k INDEXED BY remote_tags_by_next
             WHERE registry_id = ?1 AND next <= ?2 AND registry NOT IN (SELECT value FROM json_each(?4)) AND EXISTS (
                 SELECT 1 FROM base_edges e WHERE e.registry_id = k.registry_id AND e.registry = k.registry
                    AND e.repository = k.repository AND e.tag = k.tag))
         WHERE place <= ?3 ORDER BY next LIMIT 4096",
    )
    .bind(registry.0)
    .bind(now.as_micros())
    .bind(limit_of_one)
    .bind(serde_json::json!(without).to_string())
    .fetch_all(tx)
    .await
    .during(READ)?;
    let tags = rows.iter().map(|row| {
        Ok(RemoteTag {
            image: image(row)?,
            etag: row.try_get("etag").during(READ)?,
            failures: row.try_get("failures").during(READ)?,
        })
    });
    tags.collect()
}

/// The parts of a tag's key, as they are bound.
fn key(image: &ImageTag) -> (&str, &str, &str) {
    let registry = image.registry.as_ref().map_or("", |registry| registry.as_str());
    (registry, image.repository.as_str(), image.tag.as_str())
}

pub(super) async fn answered(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    image: &ImageTag,
    answer: RemoteAnswer,
    next: Timestamp,
) -> Result<bool, StoreError> {
    let (host, repository, tag) = key(image);
    let mut moved = 0;
    let (digest, etag) = match &answer {
        RemoteAnswer::Is { digest, etag } => (Some(digest), etag.as_deref()),
        RemoteAnswer::Same | RemoteAnswer::Failed(_) | RemoteAnswer::Later => (None, None),
    };
    if let Some(digest) = digest {
        let noted = sqlx::query(
            "INSERT INTO base_changes (registry_id, registry, repository, tag, from_digest, to_digest, at)
             SELECT ?1, ?2, ?3, ?4, digest, ?5, ?6 FROM remote_tags
             WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4 AND digest IS NOT ?5
               AND EXISTS (SELECT 1 FROM base_edges WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3
                           AND tag = ?4 AND digest <> ?5)",
        )
        .bind(registry.0)
        .bind(host)
        .bind(repository)
        .bind(tag)
        .bind(digest.as_str())
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
        moved = noted.rows_affected();
    }
    let query = match &answer {
        RemoteAnswer::Is { .. } => sqlx::query(
            "UPDATE remote_tags SET moved = iif(digest IS ?6, moved, ?8), digest = ?6, etag = ?7, checked = ?8, next = ?5,
                    failures = 0, problem = NULL
             WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4",
        ),
        RemoteAnswer::Same => sqlx::query(
            "UPDATE remote_tags SET checked = ?8, next = ?5, failures = 0, problem = NULL
             WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4",
        ),
        RemoteAnswer::Failed(_) => sqlx::query(
            "UPDATE remote_tags SET next = ?5, failures = failures + 1, problem = ?9, failed = ?8
             WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4",
        ),
        RemoteAnswer::Later => sqlx::query(
            "UPDATE remote_tags SET next = ?5 WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4",
        ),
    };
    let problem = match &answer {
        RemoteAnswer::Failed(problem) => Some(problem.as_str()),
        RemoteAnswer::Same | RemoteAnswer::Is { .. } | RemoteAnswer::Later => None,
    };
    query
        .bind(registry.0)
        .bind(host)
        .bind(repository)
        .bind(tag)
        .bind(next.as_micros())
        .bind(digest.map(|digest| digest.as_str()))
        .bind(etag)
        .bind(now.as_micros())
        .bind(problem)
        .execute(tx)
        .await
        .during(WRITE)?;
    Ok(moved > 0)
}

pub(super) async fn bring_forward(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    repository: &RepositoryName,
    tag: Option<&Tag>,
) -> Result<u64, StoreError> {
    let brought = sqlx::query(
        "UPDATE remote_tags SET next = min(next, max(?4, coalesce(checked, 0) + ?5))
         WHERE registry_id = ?1 AND repository = ?2 AND (?3 IS NULL OR tag = ?3)",
    )
    .bind(registry.0)
    .bind(repository.as_str())
    .bind(tag.map(Tag::as_str))
    .bind(now.as_micros())
    .bind(SPACING)
    .execute(tx)
    .await
    .during(WRITE)?;
    Ok(brought.rows_affected())
}

pub(super) async fn credentials(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    image: &ImageTag,
    host: &SourceHost,
) -> Result<Vec<FollowersCredential>, StoreError> {
    let (name, repository, tag) = key(image);
    let rows = sqlx::query(
        "SELECT DISTINCT c.username, c.sealed, t.task AS of_task, 0 AS rank, t.task AS task FROM base_edges e
         JOIN tasks t ON t.registry_id = e.registry_id AND t.task = e.task
         JOIN task_credentials c ON c.registry_id = t.registry_id AND c.task = t.task AND c.host = ?5
         WHERE e.registry_id = ?1 AND e.registry = ?2 AND e.repository = ?3 AND e.tag = ?4
         UNION ALL
         SELECT DISTINCT c.username, c.sealed, NULL, 1, t.task FROM base_edges e
         JOIN tasks t ON t.registry_id = e.registry_id AND t.task = e.task
         JOIN source_credentials c ON c.registry_id = t.registry_id AND c.host = ?5
         WHERE e.registry_id = ?1 AND e.registry = ?2 AND e.repository = ?3 AND e.tag = ?4
           AND (c.everybody = 1 OR EXISTS (SELECT 1 FROM source_credential_principals p
                WHERE p.registry_id = c.registry_id AND p.host = c.host AND p.principal = t.principal))
         ORDER BY rank, task LIMIT 4096",
    )
    .bind(registry.0)
    .bind(name)
    .bind(repository)
    .bind(tag)
    .bind(host.as_str())
    .fetch_all(tx)
    .await
    .during(READ)?;
    let mut found: Vec<FollowersCredential> = Vec::new();
    for row in rows {
        let task: Option<String> = row.try_get("of_task").during(READ)?;
        let follower = TaskName::parse(row.try_get("task").during(READ)?).stored(READ)?;
        match found.last_mut().filter(|last| last.task.is_none() && task.is_none()) {
            // A host has one that is no task's own.
            Some(shared) => shared.followers.push(follower),
            None => found.push(FollowersCredential {
                username: row.try_get("username").during(READ)?,
                sealed: row.try_get("sealed").during(READ)?,
                task,
                followers: vec![follower],
            }),
        }
    }
    Ok(found)
}
