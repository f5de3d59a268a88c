//! What did not start tasks, and why.

use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{NewRefusal, Refusal};
use cooper_types::{RegistryId, TaskName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::sql_error::During;

const WRITE: &str = "write what did not start a task";
const READ: &str = "read what did not start a task";
/// How many are kept of each task.
const KEPT: i64 = 64;

pub(crate) async fn write(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    refusals: &[NewRefusal],
) -> Result<(), StoreError> {
    for refusal in refusals {
        // A task that is gone needs no answer.
        sqlx::query(
            "INSERT INTO task_refusals (registry_id, task, at, event, rule)
             SELECT registry_id, task, ?3, ?4, ?5 FROM tasks WHERE registry_id = ?1 AND task = ?2;
             DELETE FROM task_refusals WHERE registry_id = ?1 AND task = ?2 AND seq <=
                 (SELECT seq FROM task_refusals WHERE registry_id = ?1 AND task = ?2 ORDER BY seq DESC LIMIT 1 OFFSET ?6)",
        )
        .bind(registry.0)
        .bind(refusal.task.key())
        .bind(now.as_micros())
        .bind(&refusal.event)
        .bind(&refusal.rule)
        .bind(KEPT)
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    }
    Ok(())
}

pub(super) async fn list(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    task: &TaskName,
    limit: u32,
) -> Result<Vec<Refusal>, StoreError> {
    let rows = sqlx::query(
        "SELECT at, event, rule FROM task_refusals WHERE registry_id = ?1 AND task = ?2 ORDER BY seq DESC LIMIT ?3",
    )
    .bind(registry.0)
    .bind(task.key())
    .bind(limit)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let refusals = rows.iter().map(|row| {
        Ok(Refusal {
            at: Timestamp::from_micros(row.try_get("at").during(READ)?),
            event: row.try_get("event").during(READ)?,
            rule: row.try_get("rule").during(READ)?,
        })
    });
    refusals.collect()
}
