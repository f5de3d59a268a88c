//! What is given up and forgotten: deliveries behind too many others, of targets that are told of nothing, and old ones.

use cooper_engine::delivery::Policy;
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::{READ, WRITE};
use crate::Store;
use crate::sql_error::During;

/// How many of the newest deliveries of a target are kept, ended or not.
const KEPT_OF_TARGET: i64 = 10_000;
/// How long an ended delivery is kept, in microseconds: 7 days.
const KEPT_FOR: i64 = 7 * 24 * 3600 * 1_000_000;
/// How many old ones are forgotten in a transaction.
const FORGOTTEN_AT_ONCE: i64 = 1000;

/// The newest delivery of each target that is one too many.
const CUTS: &str = "WITH RECURSIVE targets (target) AS (
         SELECT min(target) FROM outbox INDEXED BY outbox_by_target WHERE registry_id = ?1
         UNION ALL
         SELECT (SELECT min(o.target) FROM outbox o INDEXED BY outbox_by_target
                 WHERE o.registry_id = ?1 AND o.target > targets.target)
         FROM targets WHERE targets.target IS NOT NULL)
     SELECT target, cut FROM (
         SELECT t.target, (SELECT o.seq FROM outbox o INDEXED BY outbox_by_target
                           WHERE o.registry_id = ?1 AND o.target = t.target
                           ORDER BY o.seq DESC LIMIT 1 OFFSET ?2) AS cut
         FROM targets t WHERE t.target IS NOT NULL)
     WHERE cut IS NOT NULL";

pub(super) async fn prune(store: &Store) -> Result<u64, StoreError> {
    let registry = store.registry_id();
    let rows = sqlx::query(CUTS).bind(registry.0).bind(KEPT_OF_TARGET).fetch_all(store.readers()).await.during(READ)?;
    let mut cuts = Vec::with_capacity(rows.len());
    for row in &rows {
        cuts.push((row.try_get::<String, _>("target").during(READ)?, row.try_get::<i64, _>("cut").during(READ)?));
    }
    let clock = store.clock().clone();
    store
        .write(async move |mut tx| {
            let now = clock.now();
            let mut given_up = 0;
            for (target, cut) in cuts {
                given_up += cut_off(&mut tx, registry, now, &target, cut).await?;
            }
            given_up += drop_disabled(&mut tx, registry, now).await?;
            forget_old(&mut tx, registry, now).await?;
            Ok(given_up)
        })
        .await
}

/// Gives up or forgets what is as old as `cut` or older.
async fn cut_off(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    target: &str,
    cut: i64,
) -> Result<u64, StoreError> {
    let forgotten = "DELETE FROM outbox
         WHERE registry_id = ?1 AND target = ?2 AND seq <= ?3 AND state IN ('delivered', 'failed')";
    sqlx::query(forgotten).bind(registry.0).bind(target).bind(cut).execute(&mut *tx).await.during(WRITE)?;
    let given_up = sqlx::query(
        "UPDATE outbox SET state = 'failed', at = ?4, last_at = ?4, last_said = 'given up: too much waited behind it'
         WHERE registry_id = ?1 AND target = ?2 AND seq <= ?3 AND state = 'due'",
    )
    .bind(registry.0)
    .bind(target)
    .bind(cut)
    .bind(now.as_micros())
    .execute(tx)
    .await
    .during(WRITE)?;
    Ok(given_up.rows_affected())
}

/// Gives up what waits since before `before`. Nobody is trying it: what is tried is the first, and stays.
pub(super) async fn drop_older(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    target: &str,
    now: Timestamp,
    before: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE outbox SET state = 'failed', at = ?4, last_at = ?4,
                           last_said = 'given up: what was before it could not be delivered for too long'
         WHERE registry_id = ?1 AND target = ?2 AND state = 'due' AND queued <= ?3",
    )
    .bind(registry.0)
    .bind(target)
    .bind(before.as_micros())
    .bind(now.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// Gives up what has waited for too long behind a webhook that is disabled.
async fn drop_disabled(tx: &mut SqliteConnection, registry: RegistryId, now: Timestamp) -> Result<u64, StoreError> {
    let dropped = sqlx::query(
        "UPDATE outbox SET state = 'failed', at = ?3, last_at = ?3, last_said = 'given up: the webhook is disabled'
         WHERE registry_id = ?1 AND state = 'due' AND queued <= ?2 AND target IN (
             SELECT 'webhook/' || name FROM webhooks WHERE registry_id = ?1 AND NOT enabled)",
    )
    .bind(registry.0)
    .bind(now.before(Policy::DEFAULT.give_up).as_micros())
    .bind(now.as_micros())
    .execute(tx)
    .await
    .during(WRITE)?;
    Ok(dropped.rows_affected())
}

async fn forget_old(tx: &mut SqliteConnection, registry: RegistryId, now: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM outbox WHERE seq IN (
             SELECT seq FROM outbox INDEXED BY outbox_by_end
             WHERE registry_id = ?1 AND state IN ('delivered', 'failed') AND at <= ?2 LIMIT ?3)",
    )
    .bind(registry.0)
    .bind(now.as_micros().saturating_sub(KEPT_FOR))
    .bind(FORGOTTEN_AT_ONCE)
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}
