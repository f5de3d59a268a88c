//! What is forgotten: deliveries that are old or too many, events whose runs are long gone, and orders of tags, here and in
//! other registries, that no run can disturb any more. Each call takes a bounded part, so that whoever else writes has a
//! turn in between.

use cooper_ports::store_error::StoreError;
use cooper_types::RegistryId;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::READ;
use crate::Store;
use crate::runs::outside_tags;
use crate::sql_error::During;

const PRUNE: &str = "forget what came to hooks";

/// How long deliveries are kept, and events after their runs, in microseconds: 30 days.
pub(super) const KEPT: i64 = 30 * 24 * 3600 * 1_000_000;
/// How many deliveries of a hook are kept that are worked off.
const KEPT_DELIVERIES: i64 = 500;

/// The newest delivery of each hook that is one too many.
pub(super) const CUTS: &str = "SELECT hook, cut FROM (
         SELECT h.id AS hook, (
             SELECT d.number FROM deliveries d INDEXED BY deliveries_by_turn
             WHERE d.registry_id = ?1 AND d.waits = 0 AND d.hook = h.id ORDER BY d.number DESC LIMIT 1 OFFSET ?2) AS cut
         FROM hooks h WHERE h.registry_id = ?1)
     WHERE cut IS NOT NULL";

/// Deliveries behind a cut.
pub(super) const CUT_OFF: &str = "DELETE FROM deliveries WHERE number IN (
         SELECT number FROM deliveries INDEXED BY deliveries_by_turn
         WHERE registry_id = ?1 AND hook = ?2 AND waits = 0 AND number <= ?3 LIMIT ?4)";

/// Deliveries that came before a time.
pub(super) const OLD: &str = "DELETE FROM deliveries WHERE number IN (
         SELECT number FROM deliveries INDEXED BY deliveries_by_age
         WHERE registry_id = ?1 AND waits = 0 AND received < ?2 LIMIT ?3)";

/// What came to hooks that are gone, whether it waited or not.
pub(super) const GONE: &str = "DELETE FROM deliveries WHERE number IN (
         SELECT d.number FROM hooks h INDEXED BY hooks_gone
         CROSS JOIN deliveries d INDEXED BY deliveries_by_hook ON d.registry_id = h.registry_id AND d.hook = h.id
         WHERE h.registry_id = ?1 AND h.gone = 1 LIMIT ?2)";
/// Those hooks, once nothing is left in them.
const EMPTY: &str = "DELETE FROM hooks INDEXED BY hooks_gone WHERE registry_id = ?1 AND gone = 1 AND NOT EXISTS (
         SELECT 1 FROM deliveries d INDEXED BY deliveries_by_hook WHERE d.registry_id = ?1 AND d.hook = hooks.id)";
/// So many that waited are removed at a time: each may be some MiB.
const LARGE_PART: u32 = 32;

/// Events that are to be forgotten at a time; at most so many and those of the same instant.
pub(super) const EVENTS: &str = "DELETE FROM source_events INDEXED BY source_events_by_end
     WHERE registry_id = ?1 AND forgotten <= min(?2, coalesce((
         SELECT s.forgotten FROM source_events s INDEXED BY source_events_by_end
         WHERE s.registry_id = ?1 AND s.forgotten IS NOT NULL ORDER BY s.forgotten LIMIT 1 OFFSET ?3), ?2))";

/// Orders behind which no older run goes on. No older one can come any more.
pub(super) const ORDERS: &str = "SELECT o.task, o.line, o.repository_id, o.tag, o.run_number FROM tag_order o
     WHERE o.registry_id = ?1 AND NOT EXISTS (
         SELECT 1 FROM runs r INDEXED BY runs_unfinished_of_task
         WHERE r.registry_id = ?1 AND r.task = o.task AND r.number < o.run_number AND r.finished IS NULL)
     LIMIT ?2";

pub(super) async fn prune(store: &Store, limit: u32) -> Result<u64, StoreError> {
    let (registry, now) = (store.registry_id(), store.clock().now().as_micros());
    let rows =
        sqlx::query(CUTS).bind(registry.0).bind(KEPT_DELIVERIES).fetch_all(store.readers()).await.during(READ)?;
    let mut cuts = Vec::with_capacity(rows.len());
    for row in &rows {
        cuts.push((row.try_get::<String, _>("hook").during(READ)?, row.try_get::<i64, _>("cut").during(READ)?));
    }
    let orders = sqlx::query(ORDERS).bind(registry.0).bind(limit).fetch_all(store.readers()).await.during(READ)?;
    let turns = outside_tags::over(store, limit).await?;
    store
        .write(async move |mut tx| {
            let mut gone = cut_off(&mut tx, registry, cuts, limit).await?;
            let old = sqlx::query(OLD).bind(registry.0).bind(now.saturating_sub(KEPT)).bind(limit);
            gone += old.execute(&mut *tx).await.during(PRUNE)?.rows_affected();
            let of_gone = sqlx::query(GONE).bind(registry.0).bind(limit.min(LARGE_PART));
            gone += of_gone.execute(&mut *tx).await.during(PRUNE)?.rows_affected();
            gone += sqlx::query(EMPTY).bind(registry.0).execute(&mut *tx).await.during(PRUNE)?.rows_affected();
            let events = sqlx::query(EVENTS).bind(registry.0).bind(now).bind(limit.saturating_sub(1));
            gone += events.execute(&mut *tx).await.during(PRUNE)?.rows_affected();
            for order in &orders {
                gone += forget_order(&mut tx, registry, order).await?;
            }
            for turn in &turns {
                gone += outside_tags::forget(&mut tx, registry, turn).await?;
            }
            Ok(gone)
        })
        .await
}

/// Forgets what is behind the cuts, until the limit is reached.
async fn cut_off(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    cuts: Vec<(String, i64)>,
    limit: u32,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    for (hook, cut) in cuts {
        let left = i64::from(limit).saturating_sub_unsigned(gone);
        if left <= 0 {
            break;
        }
        let behind = sqlx::query(CUT_OFF).bind(registry.0).bind(hook).bind(cut).bind(left);
        gone += behind.execute(&mut *tx).await.during(PRUNE)?.rows_affected();
    }
    Ok(gone)
}

/// Forgets an order, unless a newer run has moved the tag meanwhile.
async fn forget_order(tx: &mut SqliteConnection, registry: RegistryId, order: &SqliteRow) -> Result<u64, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM tag_order
         WHERE registry_id = ?1 AND task = ?2 AND line = ?3 AND repository_id = ?4 AND tag = ?5 AND run_number = ?6",
    )
    .bind(registry.0)
    .bind(order.try_get::<&str, _>("task").during(PRUNE)?)
    .bind(order.try_get::<&str, _>("line").during(PRUNE)?)
    .bind(order.try_get::<i64, _>("repository_id").during(PRUNE)?)
    .bind(order.try_get::<&str, _>("tag").during(PRUNE)?)
    .bind(order.try_get::<i64, _>("run_number").during(PRUNE)?)
    .execute(tx)
    .await
    .during(PRUNE)?;
    Ok(gone.rows_affected())
}
