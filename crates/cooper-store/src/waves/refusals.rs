//! What did not start tasks, and why.

use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{NewRefusal, Refusal};
use cooper_types::{RegistryId, TaskName, Timestamp};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::edges;
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
    if refusals.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> =
        refusals.iter().map(|refusal| json!([refusal.task.key(), refusal.event, refusal.rule])).collect();
    // A task that is gone needs no answer.
    sqlx::query(
        "INSERT INTO task_refusals (registry_id, task, at, event, rule)
         SELECT t.registry_id, t.task, ?2, j.value ->> 1, j.value ->> 2 FROM json_each(?3) j
         CROSS JOIN tasks t ON t.registry_id = ?1 AND t.task = j.value ->> 0 ORDER BY j.key;
         DELETE FROM task_refusals WHERE registry_id = ?1 AND seq IN (
             SELECT seq FROM (
                 SELECT r.seq, row_number() OVER (PARTITION BY r.task ORDER BY r.seq DESC) AS place
                 FROM (SELECT DISTINCT value ->> 0 AS task FROM json_each(?3)) j
                 CROSS JOIN task_refusals r INDEXED BY task_refusals_by_task ON r.registry_id = ?1 AND r.task = j.task)
             WHERE place > ?4)",
    )
    .bind(registry.0)
    .bind(now.as_micros())
    .bind(json!(rows).to_string())
    .bind(KEPT)
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
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
    .fetch_all(&mut *tx)
    .await
    .during(READ)?;
    let refusals = rows.iter().map(|row| {
        Ok(Refusal {
            at: Timestamp::from_micros(row.try_get("at").during(READ)?),
            event: row.try_get("event").during(READ)?,
            rule: row.try_get("rule").during(READ)?,
        })
    });
    let mut refusals: Vec<Refusal> = refusals.collect::<Result<_, StoreError>>()?;
    refusals.extend(not_looked_at(tx, registry, task, limit).await?);
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
    refusals.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(refusals)
}

/// The tags of other registries that a task stands on and that can't be looked at: whatever becomes of them starts nothing.
async fn not_looked_at(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    task: &TaskName,
    limit: u32,
) -> Result<Vec<Refusal>, StoreError> {
    let rows = sqlx::query(
        "SELECT DISTINCT k.registry, k.repository, k.tag, k.failed, k.problem FROM base_edges e
         CROSS JOIN remote_tags k ON k.registry_id = e.registry_id AND k.registry = e.registry
             AND k.repository = e.repository AND k.tag = e.tag
         CROSS JOIN tasks t ON t.registry_id = e.registry_id AND t.task = e.task
         WHERE json_extract(t.state, '$.enabled') AND coalesce(json_extract(t.state, '$.base_image.enabled'), 1)
           AND CASE e.kind WHEN 'step' THEN json_extract(t.state, '$.base_image.steps')
                           WHEN 'buildtime' THEN json_extract(t.state, '$.base_image.follows') = 'All' ELSE 1 END
           AND e.registry_id = ?1 AND e.task = ?2 AND k.problem IS NOT NULL AND k.failed IS NOT NULL
         ORDER BY k.failed DESC LIMIT ?3",
    )
    .bind(registry.0)
    .bind(task.key())
    .bind(limit)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let refusals = rows.iter().map(|row| {
        Ok(Refusal {
            at: Timestamp::from_micros(row.try_get("failed").during(READ)?),
            event: format!("base image {} was to be looked at", edges::image(row)?),
            rule: row.try_get("problem").during(READ)?,
        })
    });
    refusals.collect()
}
