//! Snapshots: contexts that prepare attempts upload, taken from live attempts alone.
//!
//! A snapshot expires at once; what keeps it is its live attempt, and then the unfinished run that builds from it.

use cooper_ports::contexts::SnapshotError;
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, ContextId, Digest, RegistryId, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::run_number;
use crate::logs::append::is_live;
use crate::sql_error::{During, Stored};

const WRITE: &str = "write snapshot";

pub(super) async fn create(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    id: ContextId,
    run: RunId,
    attempt: AttemptNumber,
) -> Result<(), SnapshotError> {
    if !is_live(tx, registry, run, attempt).await? {
        return Err(SnapshotError::NotLive { run, attempt });
    }
    let number = i64::try_from(attempt.0).stored(WRITE)?;
    // One for each attempt: an agent that uploads again and again fills no disk.
    sqlx::query(
        "UPDATE contexts SET state = 'deleted'
         WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3 AND state <> 'deleted'",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(number)
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query(
        "INSERT INTO contexts (registry_id, id, principal, state, created, expires, run_number, attempt)
         SELECT registry_id, ?3, principal, 'created', ?4, ?4, number, ?5 FROM runs
         WHERE registry_id = ?1 AND number = ?2",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(id.as_str())
    .bind(now.as_micros())
    .bind(number)
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    Ok(())
}

pub(super) async fn mark(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    id: ContextId,
    run: RunId,
    attempt: AttemptNumber,
    size: u64,
    digest: &Digest,
) -> Result<(), SnapshotError> {
    if !is_live(tx, registry, run, attempt).await? {
        return Err(SnapshotError::NotLive { run, attempt });
    }
    let marked = sqlx::query(
        "UPDATE contexts SET state = 'uploaded', size = ?5, digest = ?6
         WHERE registry_id = ?1 AND id = ?2 AND run_number = ?3 AND attempt = ?4 AND state = 'created'",
    )
    .bind(registry.0)
    .bind(id.as_str())
    .bind(run_number(run))
    .bind(i64::try_from(attempt.0).stored(WRITE)?)
    .bind(i64::try_from(size).stored(WRITE)?)
    .bind(digest.as_str())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    if marked.rows_affected() == 0 { Err(SnapshotError::Replaced(id)) } else { Ok(()) }
}

/// Makes a snapshot its run's context. Whether the attempt had uploaded it, with this content.
pub(crate) async fn take(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    id: &ContextId,
    run: RunId,
    attempt: AttemptNumber,
    digest: &Digest,
    size: u64,
) -> Result<bool, StoreError> {
    const TAKE: &str = "take snapshot";
    let taken = sqlx::query(
        "UPDATE runs SET context_id = ?3 WHERE registry_id = ?1 AND number = ?2 AND EXISTS (
             SELECT 1 FROM contexts c
             WHERE c.registry_id = ?1 AND c.id = ?3 AND c.run_number = ?2 AND c.attempt = ?4 AND c.state = 'uploaded'
             AND c.digest = ?5 AND c.size = ?6
         )",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(id.as_str())
    .bind(i64::try_from(attempt.0).stored(TAKE)?)
    .bind(digest.as_str())
    // No archive has as many bytes as this stands for.
    .bind(i64::try_from(size).unwrap_or(i64::MAX))
    .execute(tx)
    .await
    .during(TAKE)?;
    Ok(taken.rows_affected() > 0)
}
