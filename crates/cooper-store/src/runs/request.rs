//! What runs were asked to do, kept for those who run them again.

use cooper_engine::run::{KeptRequest, REQUEST_VERSION};
use cooper_ports::runs::{StoredContext, StoredRequest};
use cooper_ports::store_error::StoreError;
use cooper_spec::task_request::KeptTexts;
use cooper_types::{ContextId, Digest, RegistryId, RunId};
use sqlx::{Row, SqliteConnection};

use crate::contexts::run_number;
use crate::sql_error::{During, Stored, UnknownValue};

/// Keeps the request of a run, in the transaction that accepts it.
pub(super) async fn insert(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    request: &KeptRequest,
    texts: &KeptTexts,
    context: Option<&(u64, Digest)>,
) -> Result<(), StoreError> {
    const WRITE: &str = "keep request";
    let texts = (!texts.is_empty()).then(|| serde_json::to_string(texts)).transpose().stored(WRITE)?;
    let size = context.map(|(size, _)| i64::try_from(*size)).transpose().stored(WRITE)?;
    sqlx::query(
        "INSERT INTO run_requests (registry_id, run_number, request, texts, context_digest, context_size)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(serde_json::to_string(request).stored(WRITE)?)
    .bind(texts)
    .bind(context.map(|(_, digest)| digest.as_str()))
    .bind(size)
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// Keeps what the planning of a prepared source read. A run of an older release has no request that it belongs to.
pub(super) async fn keep_texts(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    texts: &KeptTexts,
) -> Result<(), StoreError> {
    const WRITE: &str = "keep texts of a request";
    sqlx::query("UPDATE run_requests SET texts = ?3 WHERE registry_id = ?1 AND run_number = ?2")
        .bind(registry.0)
        .bind(run_number(run))
        .bind(serde_json::to_string(texts).stored(WRITE)?)
        .execute(tx)
        .await
        .map(drop)
        .during(WRITE)
}

/// The request of a run, and what is left of its context.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
) -> Result<Option<StoredRequest>, StoreError> {
    const READ: &str = "read request";
    let row = sqlx::query(
        "SELECT q.request, q.texts, q.context_digest, q.context_size, c.id AS context_id
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
    let request: KeptRequest = serde_json::from_str(row.try_get("request").during(READ)?).stored(READ)?;
    if request.version > REQUEST_VERSION {
        return Err(UnknownValue::new("version of a request", &request.version.to_string())).stored(READ);
    }
    let texts: Option<&str> = row.try_get("texts").during(READ)?;
    let digest: Option<&str> = row.try_get("context_digest").during(READ)?;
    let size: Option<i64> = row.try_get("context_size").during(READ)?;
    let kept: Option<&str> = row.try_get("context_id").during(READ)?;
    Ok(Some(StoredRequest {
        request,
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
