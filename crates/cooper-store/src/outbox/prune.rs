//! What is given up and forgotten: deliveries behind too many others, of targets that are told of nothing or take nothing, and old ones.
//!
//! Each change is a small one, so that pushes, leases and logs are written in between however much there is to remove.

use cooper_engine::delivery::Policy;
use cooper_ports::store_error::StoreError;
use cooper_types::Timestamp;
use sqlx::Row;

use super::{READ, WRITE, targets};
use crate::Store;
use crate::sql_error::During;

/// How many deliveries of a target may wait.
const WAITING_OF_TARGET: i64 = 10_000;
/// How many of the newest deliveries of a target are kept that have ended.
const ENDED_OF_TARGET: i64 = 10_000;
/// How long an ended delivery is kept, in microseconds: 7 days.
const KEPT_FOR: i64 = 7 * 24 * 3600 * 1_000_000;
/// How many rows a change removes or gives up.
const AT_ONCE: i64 = 500;

/// For each target with too many deliveries that wait, the newest one that is one too many.
const TOO_MANY_WAIT: &str = "SELECT target, cut FROM (
         SELECT t.target, (SELECT o.seq FROM outbox o INDEXED BY outbox_waiting
                           WHERE o.registry_id = ?1 AND o.target = t.target AND o.state IN ('due', 'trying')
                           ORDER BY o.seq DESC LIMIT 1 OFFSET ?2) AS cut
         FROM outbox_targets t WHERE t.registry_id = ?1 AND t.seq IS NOT NULL)
     WHERE cut IS NOT NULL";

/// The same of those that have ended.
const TOO_MANY_ENDED: &str = "SELECT target, cut FROM (
         SELECT t.target, (SELECT o.seq FROM outbox o INDEXED BY outbox_ended
                           WHERE o.registry_id = ?1 AND o.target = t.target AND o.state IN ('delivered', 'failed')
                           ORDER BY o.seq DESC LIMIT 1 OFFSET ?2) AS cut
         FROM outbox_targets t WHERE t.registry_id = ?1)
     WHERE cut IS NOT NULL";

/// Webhooks that are disabled, and what has waited for them since before `?2`.
const DISABLED: &str = "SELECT target, cut FROM (
         SELECT t.target, (SELECT max(o.seq) FROM outbox o INDEXED BY outbox_waiting
                           WHERE o.registry_id = ?1 AND o.target = t.target AND o.state IN ('due', 'trying')
                             AND o.queued <= ?2) AS cut
         FROM webhooks w JOIN outbox_targets t ON t.registry_id = ?1 AND t.target = 'webhook/' || w.name
         WHERE w.registry_id = ?1 AND NOT w.enabled AND t.seq IS NOT NULL)
     WHERE cut IS NOT NULL";

/// Targets that have had all patience, and what has waited for them since before `?2`.
const HOPELESS: &str = "SELECT target, cut FROM (
         SELECT t.target, (SELECT max(o.seq) FROM outbox o INDEXED BY outbox_waiting
                           WHERE o.registry_id = ?1 AND o.target = t.target AND o.state IN ('due', 'trying')
                             AND o.queued <= ?2) AS cut
         FROM outbox_targets t
         WHERE t.registry_id = ?1 AND t.seq IS NOT NULL AND t.failures >= ?3 AND t.failing_since <= ?2)
     WHERE cut IS NOT NULL";

pub(super) async fn prune(store: &Store) -> Result<u64, StoreError> {
    let before = store.clock().now().before(Policy::DEFAULT.give_up).as_micros();
    let mut given_up = 0;
    for (query, numbers, why) in [
        (TOO_MANY_WAIT, vec![WAITING_OF_TARGET], "given up: too much waited behind it"),
        (DISABLED, vec![before], "given up: the webhook is disabled"),
        (
            HOPELESS,
            vec![before, i64::from(Policy::DEFAULT.tries)],
            "given up: what was before it could not be delivered for too long",
        ),
    ] {
        for (target, cut) in cuts(store, query, &numbers).await? {
            given_up += give_up(store, &target, cut, why).await?;
        }
    }
    for (target, cut) in cuts(store, TOO_MANY_ENDED, &[ENDED_OF_TARGET]).await? {
        let ended = "SELECT seq FROM outbox INDEXED BY outbox_ended
             WHERE registry_id = ?1 AND target = ?2 AND seq <= ?3 AND state IN ('delivered', 'failed') LIMIT ?4";
        while forget(store, ended, Some(&target), cut).await? == AT_ONCE as u64 {}
    }
    let old = "SELECT seq FROM outbox INDEXED BY outbox_by_end
         WHERE registry_id = ?1 AND ?2 IS NULL AND at <= ?3 AND state IN ('delivered', 'failed') LIMIT ?4";
    let kept = store.clock().now().as_micros().saturating_sub(KEPT_FOR);
    while forget(store, old, None, kept).await? == AT_ONCE as u64 {}
    Ok(given_up)
}

/// Targets, and the newest delivery of each that is too much.
async fn cuts(store: &Store, query: &'static str, numbers: &[i64]) -> Result<Vec<(String, i64)>, StoreError> {
    let query = numbers.iter().fold(sqlx::query(query).bind(store.registry_id().0), |query, number| query.bind(number));
    let rows = query.fetch_all(store.readers()).await.during(READ)?;
    let cut =
        |row: &sqlx::sqlite::SqliteRow| Ok((row.try_get("target").during(READ)?, row.try_get("cut").during(READ)?));
    rows.iter().map(cut).collect()
}

/// Gives up what waits up to `cut`. What is being tried stays.
async fn give_up(store: &Store, target: &str, cut: i64, why: &'static str) -> Result<u64, StoreError> {
    let mut given_up = 0;
    loop {
        let (registry, clock, target) = (store.registry_id(), store.clock().clone(), target.to_owned());
        let rows = store
            .write(async move |mut tx| {
                let now: Timestamp = clock.now();
                // A target that takes nothing is left alone for as long, whichever event is next.
                let held: Option<i64> = sqlx::query_scalar(
                    "SELECT at FROM outbox_targets
                     WHERE registry_id = ?1 AND target = ?2 AND failures > 0 AND at IS NOT NULL",
                )
                .bind(registry.0)
                .bind(&target)
                .fetch_optional(&mut *tx)
                .await
                .during(READ)?;
                let rows = sqlx::query(
                    "UPDATE outbox SET state = 'failed', at = ?4, last_at = ?4, last_status = NULL, last_said = ?5
                     WHERE seq IN (
                         SELECT seq FROM outbox INDEXED BY outbox_waiting
                         WHERE registry_id = ?1 AND target = ?2 AND seq <= ?3 AND state IN ('due', 'trying') AND state = 'due'
                         LIMIT ?6)",
                )
                .bind(registry.0)
                .bind(&target)
                .bind(cut)
                .bind(now.as_micros())
                .bind(why)
                .bind(AT_ONCE)
                .execute(&mut *tx)
                .await
                .during(WRITE)?;
                if let Some(until) = held {
                    targets::hold(&mut tx, registry, &target, Timestamp::from_micros(until)).await?;
                }
                targets::refresh(&mut tx, registry, &target).await?;
                Ok::<_, StoreError>(rows.rows_affected())
            })
            .await?;
        given_up += rows;
        if rows < AT_ONCE as u64 {
            return Ok(given_up);
        }
    }
}

/// Removes a part of the rows that a query names; tells how many.
async fn forget(store: &Store, query: &'static str, target: Option<&str>, number: i64) -> Result<u64, StoreError> {
    let (registry, target) = (store.registry_id(), target.map(str::to_owned));
    store
        .write(async move |mut tx| {
            let delete = format!("DELETE FROM outbox WHERE seq IN ({query})");
            let deleted = sqlx::query(sqlx::AssertSqlSafe(delete))
                .bind(registry.0)
                .bind(target)
                .bind(number)
                .bind(AT_ONCE)
                .execute(&mut *tx)
                .await
                .during(WRITE)?;
            Ok(deleted.rows_affected())
        })
        .await
}
