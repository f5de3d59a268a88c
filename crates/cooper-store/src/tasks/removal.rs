//! What is kept of a task that is deleted: removed in parts, each in a change of its own, so that whoever else writes has a turn
//! in between. Before that the task is disabled, so that it does nothing while it knows less and less of what was, and is seen to
//! be, should the process die in between. What is removed last are the task itself and the few rows that are left.

use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, Timestamp};
use serde_json::json;
use sqlx::SqliteConnection;

use super::{DELETE, find, is_there};
use crate::Store;
use crate::sql_error::{During, Stored};

/// Rows that are removed at a time.
const PART: u32 = 500;
/// Deliveries that wait are removed in smaller parts: each may be some MiB.
const LARGE_PART: u32 = 32;

/// Deliveries that wait.
const WAITING: &str = "DELETE FROM deliveries WHERE number IN (
         SELECT d.number FROM hooks h INDEXED BY hooks_by_task
         CROSS JOIN deliveries d INDEXED BY deliveries_by_turn
             ON d.registry_id = h.registry_id AND d.waits = 1 AND d.hook = h.id
         WHERE h.registry_id = ?1 AND h.task = ?2 LIMIT ?3) RETURNING hook";

/// What else there may be much of.
const PARTS: [&str; 6] = [
    "DELETE FROM deliveries WHERE number IN (
             SELECT d.number FROM hooks h INDEXED BY hooks_by_task
             CROSS JOIN deliveries d INDEXED BY deliveries_by_turn
                 ON d.registry_id = h.registry_id AND d.waits = 0 AND d.hook = h.id
             WHERE h.registry_id = ?1 AND h.task = ?2 LIMIT ?3)",
    "DELETE FROM timer_firings WHERE registry_id = ?1 AND task = ?2 AND (timer, instant) IN (
             SELECT timer, instant FROM timer_firings WHERE registry_id = ?1 AND task = ?2 LIMIT ?3)",
    "DELETE FROM source_events WHERE registry_id = ?1 AND task = ?2 AND event IN (
             SELECT event FROM source_events WHERE registry_id = ?1 AND task = ?2 LIMIT ?3)",
    "DELETE FROM seen_references WHERE registry_id = ?1 AND task = ?2 AND name IN (
             SELECT name FROM seen_references WHERE registry_id = ?1 AND task = ?2 LIMIT ?3)",
    "DELETE FROM tag_order WHERE registry_id = ?1 AND task = ?2 AND (line, repository_id, tag) IN (
             SELECT line, repository_id, tag FROM tag_order WHERE registry_id = ?1 AND task = ?2 LIMIT ?3)",
    "DELETE FROM outside_tags WHERE registry_id = ?1 AND task = ?2 AND (image, line) IN (
             SELECT image, line FROM outside_tags WHERE registry_id = ?1 AND task = ?2 LIMIT ?3)",
];

/// Removes what there may be much of; tells whether the task was there.
pub(super) async fn clear(store: &Store, key: &str, created: Timestamp) -> Result<bool, StoreError> {
    let (registry, of_task) = (store.registry_id(), key.to_owned());
    let disabled = store.write(async move |mut tx| disable(&mut tx, registry, &of_task, created).await);
    let disabled: Result<bool, StoreError> = disabled.await;
    if !disabled? {
        return Ok(false);
    }
    let all = std::iter::once((WAITING, LARGE_PART)).chain(PARTS.map(|sql| (sql, PART)));
    for (sql, limit) in all {
        loop {
            let (registry, key) = (store.registry_id(), key.to_owned());
            let part = store.write(async move |mut tx| part(&mut tx, registry, &key, created, (sql, limit)).await);
            let gone: Option<u64> = part.await?;
            match gone {
                None => return Ok(false),
                Some(gone) if gone < u64::from(limit) => break,
                Some(_) => {}
            }
        }
    }
    Ok(true)
}

/// Has nothing start the task any more; tells whether it is there.
async fn disable(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    key: &str,
    created: Timestamp,
) -> Result<bool, StoreError> {
    let Some(mut task) = find(tx, registry, key).await?.filter(|task| task.created == created) else {
        return Ok(false);
    };
    if !task.enabled {
        return Ok(true);
    }
    task.enabled = false;
    task.generation += 1;
    sqlx::query(
        "UPDATE tasks SET state = ?3, generation = ?4 WHERE registry_id = ?1 AND task = ?2;
         UPDATE task_timers SET next = NULL WHERE registry_id = ?1 AND task = ?2",
    )
    .bind(registry.0)
    .bind(key)
    .bind(serde_json::to_string(&task).stored(DELETE)?)
    .bind(i64::try_from(task.generation).unwrap_or(i64::MAX))
    .execute(tx)
    .await
    .map(|_| true)
    .during(DELETE)
}

async fn part(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    key: &str,
    created: Timestamp,
    (sql, limit): (&'static str, u32),
) -> Result<Option<u64>, StoreError> {
    if !is_there(tx, registry, key, created).await? {
        return Ok(None);
    }
    if sql != WAITING {
        let gone = sqlx::query(sql).bind(registry.0).bind(key).bind(limit).execute(tx).await.during(DELETE)?;
        return Ok(Some(gone.rows_affected()));
    }
    let of_hooks: Vec<String> =
        sqlx::query_scalar(sql).bind(registry.0).bind(key).bind(limit).fetch_all(&mut *tx).await.during(DELETE)?;
    sqlx::query(
        "UPDATE hooks SET waiting = max(waiting - (SELECT count(*) FROM json_each(?3) j WHERE j.value = hooks.id), 0)
         WHERE registry_id = ?1 AND task = ?2",
    )
    .bind(registry.0)
    .bind(key)
    .bind(json!(of_hooks).to_string())
    .execute(tx)
    .await
    .during(DELETE)?;
    Ok(Some(of_hooks.len() as u64))
}

#[cfg(test)]
mod tests;
