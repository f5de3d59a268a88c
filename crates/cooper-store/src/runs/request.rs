//! What runs were asked to do, kept for those who run them again.

use cooper_engine::run::{KeptRequest, REQUEST_VERSION};
use cooper_ports::runs::{StoredContext, StoredRequest};
use cooper_ports::store_error::StoreError;
use cooper_spec::task_request::KeptTexts;
use cooper_types::{ContextId, Digest, RegistryId, RunId, Timestamp};
use serde::Deserialize;
use sqlx::{Row, SqliteConnection};

use crate::batch::Batch;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

/// Answered from its index alone: most requests have ended long ago, and have no texts.
pub(super) const DROP_TEXTS: &str = "UPDATE run_requests SET texts = NULL WHERE registry_id = ?1 AND run_number IN (
         SELECT run_number FROM run_requests INDEXED BY run_requests_by_end
         WHERE registry_id = ?1 AND texts IS NOT NULL AND ended IS NOT NULL AND ended <= ?2 ORDER BY ended LIMIT ?3
     )";

/// What every form of a request has.
#[derive(Deserialize)]
struct Form {
    version: u32,
}

/// Keeps the request of a run, in the transaction that accepts it.
pub(super) fn insert(
    batch: &mut Batch,
    registry: RegistryId,
    run: RunId,
    request: &KeptRequest,
    texts: &KeptTexts,
    context: Option<&(u64, Digest)>,
) -> Result<(), StoreError> {
    const WRITE: &str = "keep request";
    let digests = serde_json::to_string(&texts.digests()).stored(WRITE)?;
    let texts = (!texts.0.is_empty()).then(|| serde_json::to_string(texts)).transpose().stored(WRITE)?;
    let size = context.map(|(size, _)| i64::try_from(*size)).transpose().stored(WRITE)?;
    let request = serde_json::to_string(request).stored(WRITE)?;
    let columns = "run_requests (registry_id, run_number, request, texts, context_digest, context_size, digests)";
    batch.insert(columns, |row| {
        row.push_bind(registry.0)
            .push_bind(run_number(run))
            .push_bind(request)
            .push_bind(texts)
            .push_bind(context.map(|(_, digest)| digest.as_str()))
            .push_bind(size)
            .push_bind(digests);
    });
    Ok(())
}

/// Keeps what the planning of a prepared source read. A run of an older release has no request that it belongs to.
pub(super) async fn keep_texts(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    texts: &KeptTexts,
) -> Result<(), StoreError> {
    const WRITE: &str = "keep texts of a request";
    sqlx::query("UPDATE run_requests SET texts = ?3, digests = ?4 WHERE registry_id = ?1 AND run_number = ?2")
        .bind(registry.0)
        .bind(run_number(run))
        .bind(serde_json::to_string(texts).stored(WRITE)?)
        .bind(serde_json::to_string(&texts.digests()).stored(WRITE)?)
        .execute(tx)
        .await
        .map(drop)
        .during(WRITE)
}

/// Drops texts of requests whose runs ended at this time or before.
pub(super) async fn drop_texts(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    ended: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    let dropped = sqlx::query(DROP_TEXTS).bind(registry.0).bind(ended.as_micros()).bind(limit).execute(tx).await;
    Ok(dropped.during("drop texts of requests")?.rows_affected())
}

/// The request of a run, and what is left of its context.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
) -> Result<Option<StoredRequest>, StoreError> {
    const READ: &str = "read the request of a run";
    let row = sqlx::query(
        "SELECT q.request, q.texts, q.digests, q.context_digest, q.context_size, c.id AS context_id
         FROM run_requests q
         JOIN runs r ON r.registry_id = q.registry_id AND r.number = q.run_number
         LEFT JOIN contexts c ON c.registry_id = r.registry_id AND c.id = r.context_id AND c.state = 'uploaded'
         WHERE q.registry_id = ?1 AND q.run_number = ?2",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .fetch_optional(connection)
    .await
    .during(READ)?;
    let Some(row) = row else { return Ok(None) };
    let request: &str = row.try_get("request").during(READ)?;
    // First: a later form need not be readable.
    let Form { version } = serde_json::from_str(request).stored(READ)?;
    if version > REQUEST_VERSION {
        return Err(StoreError::Newer { operation: READ });
    }
    let texts: Option<&str> = row.try_get("texts").during(READ)?;
    let digest: Option<&str> = row.try_get("context_digest").during(READ)?;
    let size: Option<i64> = row.try_get("context_size").during(READ)?;
    let kept: Option<&str> = row.try_get("context_id").during(READ)?;
    Ok(Some(StoredRequest {
        request: serde_json::from_str(request).stored(READ)?,
        digests: serde_json::from_str(row.try_get("digests").during(READ)?).stored(READ)?,
        texts: texts.map(serde_json::from_str).transpose().stored(READ)?.unwrap_or_default(),
        uploaded: match (digest, size) {
            (Some(digest), Some(size)) => Some(StoredContext {
                digest: Digest::parse(digest).stored(READ)?,
                size: u64::try_from(size).stored(READ)?,
            }),
            _ => None,
        },
        context: kept.map(ContextId::parse).transpose().stored(READ)?,
    }))
}

#[cfg(test)]
mod tests {
    use cooper_types::RegistryName;

    use super::*;
    use crate::{Store, StoreOptions};

    #[tokio::test]
    async fn a_request_of_a_newer_release_is_said_to_be_one() {
        let folder = tempfile::tempdir().expect("folder");
        let registry_name = RegistryName::parse("localhost:5000").expect("valid");
        let store = Store::open(folder.path(), StoreOptions { registry_name, clock: None }).await.expect("store");
        let registry = store.registry_id();
        let found: Result<_, StoreError> = store
            .write(async move |mut tx| {
                for sql in [
                    "INSERT INTO principals (registry_id, name, created) VALUES (?1, 'ann', 0)",
                    "INSERT INTO runs (registry_id, number, status, run_type, principal, platform, state, generation, created, updated)
                     VALUES (?1, 1, 'Queued', 'QuickRun', 'ann', 'linux/amd64', '{}', 1, 0, 0)",
                    "INSERT INTO run_requests (registry_id, run_number, request, digests)
                     VALUES (?1, 1, '{\"version\": 99, \"what\": \"nobody knows\"}', '[]')",
                ] {
                    sqlx::query(sql).bind(registry.0).execute(&mut *tx).await.during("prepare")?;
                }
                Ok(find(&mut tx, registry, RunId::from_number(1)).await)
            })
            .await;
        assert!(matches!(found, Ok(Err(StoreError::Newer { .. }))), "{found:?}");
    }
}
