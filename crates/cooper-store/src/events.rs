//! The outbox: what happened, written in the transaction that made it happen. The newest events are kept, a fixed number
//! of them: nobody reads them yet, and whoever will must not be able to fill the disk by falling behind.

use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, Timestamp};
use sqlx::SqliteConnection;

use crate::sql_error::During;

/// How many events are kept.
const KEPT: i64 = 100_000;
/// How many events come before old ones are removed again.
const TRIM_EVERY: i64 = 256;

/// Writes an event of a kind such as `run.finished`.
pub(crate) async fn insert(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    kind: &'static str,
    payload: &serde_json::Value,
    now: Timestamp,
) -> Result<(), StoreError> {
    let inserted = sqlx::query("INSERT INTO events (registry_id, kind, payload, created) VALUES (?1, ?2, ?3, ?4)")
        .bind(registry.0)
        .bind(kind)
        .bind(payload.to_string())
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await
        .during("write event")?;
    let seq = inserted.last_insert_rowid();
    if seq % TRIM_EVERY == 0 {
        sqlx::query("DELETE FROM events WHERE seq <= ?1").bind(seq - KEPT).execute(tx).await.during("trim events")?;
    }
    Ok(())
}
