//! Uploads that have begun: for which repository, by whom, until when.

use cooper_ports::blobs::UploadId;
use cooper_ports::registry::{AttemptRef, BeginUploadError, MAX_OPEN_UPLOADS, UPLOAD_LIFETIME, Upload, Writer};
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, PrincipalName, RegistryId, RepositoryName, RunId, StepId, Timestamp};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

use super::{attempt_number, unsigned};
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

pub(super) async fn begin(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    upload: &Upload,
) -> Result<(), BeginUploadError> {
    const WRITE: &str = "write upload";
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM uploads WHERE registry_id = ?1 AND principal = ?2 AND expires > ?3")
            .bind(registry.0)
            .bind(upload.writer.principal.as_str())
            .bind(now.as_micros())
            .fetch_one(&mut *tx)
            .await
            .during(WRITE)?;
    if usize::try_from(open).stored(WRITE)? >= MAX_OPEN_UPLOADS {
        return Err(BeginUploadError::TooMany(upload.writer.principal.clone()));
    }
    let attempt = upload.writer.attempt.as_ref();
    sqlx::query(
        "INSERT INTO uploads (registry_id, id, repository, principal, run_number, step_id, attempt, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(registry.0)
    .bind(upload.id.to_string())
    .bind(upload.repository.as_str())
    .bind(upload.writer.principal.as_str())
    .bind(attempt.map(|attempt| run_number(attempt.run)))
    .bind(attempt.map(|attempt| attempt.step.as_str()))
    .bind(attempt.map(attempt_number))
    .bind(now.after(UPLOAD_LIFETIME).as_micros())
    .execute(tx)
    .await
    .during(WRITE)?;
    Ok(())
}

pub(super) async fn find(
    readers: &SqlitePool,
    registry: RegistryId,
    repository: &RepositoryName,
    id: UploadId,
) -> Result<Option<Upload>, StoreError> {
    let row = sqlx::query(
        "SELECT principal, run_number, step_id, attempt FROM uploads
         WHERE registry_id = ?1 AND id = ?2 AND repository = ?3",
    )
    .bind(registry.0)
    .bind(id.to_string())
    .bind(repository.as_str())
    .fetch_optional(readers)
    .await
    .during("find upload")?;
    row.map(|row| Ok(Upload { id, repository: repository.clone(), writer: writer(&row)? })).transpose()
}

pub(super) async fn forget(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    ids: &[UploadId],
) -> Result<(), StoreError> {
    let ids: Vec<String> = ids.iter().map(UploadId::to_string).collect();
    sqlx::query("DELETE FROM uploads WHERE registry_id = ?1 AND id IN (SELECT value FROM json_each(?2))")
        .bind(registry.0)
        .bind(serde_json::json!(ids).to_string())
        .execute(tx)
        .await
        .map(drop)
        .during("forget uploads")
}

/// Gives the uploads of an attempt that is over to the next sweep: nobody can go on with them.
pub(crate) async fn expire_of_attempt(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    attempt: AttemptNumber,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE uploads SET expires = min(expires, ?4)
         WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3 AND run_number IS NOT NULL",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(i64::try_from(attempt.0).unwrap_or(i64::MAX))
    .bind(now.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during("expire uploads")
}

pub(super) async fn expired(
    readers: &SqlitePool,
    registry: RegistryId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<UploadId>, StoreError> {
    const LIST: &str = "list expired uploads";
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM uploads WHERE registry_id = ?1 AND expires <= ?2 ORDER BY expires, id LIMIT ?3",
    )
    .bind(registry.0)
    .bind(now.as_micros())
    .bind(limit)
    .fetch_all(readers)
    .await
    .during(LIST)?;
    ids.iter().map(|id| UploadId::parse(id).stored(LIST)).collect()
}

fn writer(row: &SqliteRow) -> Result<Writer, StoreError> {
    const READ: &str = "read upload";
    let principal = PrincipalName::parse(row.try_get("principal").during(READ)?).stored(READ)?;
    let run: Option<i64> = row.try_get("run_number").during(READ)?;
    let attempt = match run {
        None => None,
        Some(run) => Some(AttemptRef {
            run: RunId::from_number(unsigned(run, READ)?),
            step: StepId::parse(row.try_get("step_id").during(READ)?).stored(READ)?,
            attempt: AttemptNumber(unsigned(row.try_get("attempt").during(READ)?, READ)?),
        }),
    };
    Ok(Writer { principal, attempt })
}
