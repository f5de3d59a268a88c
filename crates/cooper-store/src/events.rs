//! The outbox: what happened, written in the transaction that made it happen.

use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, Timestamp};
use sqlx::SqliteConnection;

use crate::sql_error::During;

/// Writes an event of a kind such as `run.finished`.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    kind: &'static str,
    payload: &serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO events (registry_id, kind, payload, created) VALUES (?1, ?2, ?3, ?4)")
        .bind(registry.0)
        .bind(kind)
        .bind(payload.to_string())
        .bind(now.as_micros())
        .execute(tx)
        .await
        .map(drop)
        .during("write event")
}
