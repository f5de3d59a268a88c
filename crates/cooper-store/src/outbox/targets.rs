//! How targets stand, and which delivery of each is the first that has not ended: the row that says what is to be sent next.
//!
//! Whoever changes a target's deliveries calls [`refresh`] in the same transaction.

use cooper_engine::delivery::Standing;
use cooper_ports::outbox::{Look, Waiting};
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, Timestamp};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::{READ, UPDATE_TRIGGER, WRITE};
use crate::Store;
use crate::sql_error::During;

/// Deliveries that are due now, of targets that take what they get (`?2` = 0) or of the others. A disabled webhook is told of nothing.
const DUE: &str = "SELECT t.seq, t.target, t.host FROM outbox_targets t INDEXED BY outbox_next
     WHERE t.registry_id = ?1 AND (t.failures > 0) = ?2 AND t.seq IS NOT NULL AND t.at <= ?3
       AND t.host NOT IN (SELECT value FROM json_each(?4))
       AND NOT (t.target LIKE 'update-trigger/%' AND (?5 OR t.host IN (SELECT value FROM json_each(?7))))
       AND NOT EXISTS (SELECT 1 FROM webhooks w
                       WHERE w.registry_id = ?1 AND w.name = substr(t.target, 9) AND t.target LIKE 'webhook/%'
                         AND NOT w.enabled)
     ORDER BY t.at LIMIT ?6";

/// When the first delivery is due that is not due yet.
const NEXT: &str = "SELECT min(at) FROM (
         SELECT min(at) AS at FROM outbox_targets INDEXED BY outbox_next
         WHERE registry_id = ?1 AND (failures > 0) = 0 AND seq IS NOT NULL AND at > ?2
         UNION ALL
         SELECT min(at) FROM outbox_targets INDEXED BY outbox_next
         WHERE registry_id = ?1 AND (failures > 0) = 1 AND seq IS NOT NULL AND at > ?2)";

pub(super) async fn waiting(store: &Store, look: &Look) -> Result<Vec<Waiting>, StoreError> {
    let mut waiting = Vec::new();
    for is_failing in [false, true] {
        let room = look.limit.saturating_sub(u32::try_from(waiting.len()).unwrap_or(u32::MAX));
        if room == 0 || (is_failing && !look.failing) {
            break;
        }
        let rows = sqlx::query(DUE)
            .bind(store.registry_id().0)
            .bind(is_failing)
            .bind(store.clock().now().as_micros())
            .bind(json!(look.without_hosts).to_string())
            .bind(!look.notices)
            .bind(room)
            .bind(json!(look.without_notices_at).to_string())
            .fetch_all(store.readers())
            .await
            .during(READ)?;
        for row in &rows {
            waiting.push(Waiting {
                seq: row.try_get("seq").during(READ)?,
                host: row.try_get("host").during(READ)?,
                is_notice: row.try_get::<&str, _>("target").during(READ)?.starts_with(UPDATE_TRIGGER),
                is_failing,
            });
        }
    }
    Ok(waiting)
}

pub(super) async fn next(store: &Store) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = sqlx::query_scalar(NEXT)
        .bind(store.registry_id().0)
        .bind(store.clock().now().as_micros())
        .fetch_one(store.readers())
        .await
        .during(READ)?;
    Ok(at.map(Timestamp::from_micros))
}

/// Something is queued for a target that is at this host.
pub(super) async fn queued(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    target: &str,
    host: &str,
    seq: i64,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outbox_targets (registry_id, target, host, seq, at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (registry_id, target) DO UPDATE
         SET host = excluded.host, seq = coalesce(seq, excluded.seq), at = iif(seq IS NULL, excluded.at, at)",
    )
    .bind(registry.0)
    .bind(target)
    .bind(host)
    .bind(seq)
    .bind(at.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// Another delivery may be a target's first now, or may have another time.
pub(super) async fn refresh(tx: &mut SqliteConnection, registry: RegistryId, target: &str) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE outbox_targets SET (seq, at) = (
             SELECT o.seq, o.at FROM outbox o INDEXED BY outbox_waiting
             WHERE o.registry_id = ?1 AND o.target = ?2 AND o.state IN ('due', 'trying') ORDER BY o.seq LIMIT 1)
         WHERE registry_id = ?1 AND target = ?2",
    )
    .bind(registry.0)
    .bind(target)
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// Ends the pauses of targets that were not reached, or that have given one up and not tried the next: an operator
/// may allow now what kept them from that.
pub(super) async fn bring_forward(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let targets: Vec<String> = sqlx::query_scalar(
        "UPDATE outbox SET at = ?2 WHERE seq IN (
             SELECT o.seq FROM outbox_targets t INDEXED BY outbox_next
             CROSS JOIN outbox o ON o.seq = t.seq AND o.state = 'due' AND o.last_status IS NULL
             WHERE t.registry_id = ?1 AND (t.failures > 0) = 1 AND t.seq IS NOT NULL AND t.at > ?2)
         RETURNING target",
    )
    .bind(registry.0)
    .bind(now.as_micros())
    .fetch_all(&mut *tx)
    .await
    .during(WRITE)?;
    for target in targets {
        refresh(tx, registry, &target).await?;
    }
    Ok(())
}

/// How a target stands.
pub(super) async fn standing(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    target: &str,
) -> Result<Standing, StoreError> {
    let row = sqlx::query("SELECT failures, failing_since FROM outbox_targets WHERE registry_id = ?1 AND target = ?2")
        .bind(registry.0)
        .bind(target)
        .fetch_optional(tx)
        .await
        .during(READ)?;
    let Some(row) = row else { return Ok(Standing::default()) };
    let since: Option<i64> = row.try_get("failing_since").during(READ)?;
    Ok(Standing { failures: row.try_get("failures").during(READ)?, failing_since: since.map(Timestamp::from_micros) })
}

/// Writes how a target stands, and refreshes it.
pub(super) async fn stands(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    target: &str,
    standing: Standing,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE outbox_targets SET failures = ?3, failing_since = ?4 WHERE registry_id = ?1 AND target = ?2")
        .bind(registry.0)
        .bind(target)
        .bind(standing.failures)
        .bind(standing.failing_since.map(Timestamp::as_micros))
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    refresh(tx, registry, target).await
}

/// A target is gone, with all that was sent to it and was to be.
pub(crate) async fn deleted(tx: &mut SqliteConnection, registry: RegistryId, target: &str) -> Result<(), StoreError> {
    // Each condition on the state is an index's.
    for delete in [
        "DELETE FROM outbox WHERE registry_id = ?1 AND target = ?2 AND state IN ('due', 'trying')",
        "DELETE FROM outbox WHERE registry_id = ?1 AND target = ?2 AND state IN ('delivered', 'failed')",
        "DELETE FROM outbox_targets WHERE registry_id = ?1 AND target = ?2",
    ] {
        sqlx::query(delete).bind(registry.0).bind(target).execute(&mut *tx).await.during(WRITE)?;
    }
    Ok(())
}

/// A target has been changed: it is as good as new, and what waits is due at once. Its host is another one, if it is known.
pub(crate) async fn renewed(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    target: &str,
    host: Option<&str>,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE outbox_targets SET host = coalesce(?3, host) WHERE registry_id = ?1 AND target = ?2")
        .bind(registry.0)
        .bind(target)
        .bind(host)
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    // Those behind the first one are due as soon as they are the first.
    sqlx::query(
        "UPDATE outbox SET at = ?3 WHERE state = 'due' AND at > ?3 AND seq = (
             SELECT seq FROM outbox_targets WHERE registry_id = ?1 AND target = ?2)",
    )
    .bind(registry.0)
    .bind(target)
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    stands(tx, registry, target, Standing::default()).await
}

/// A target's next delivery is not due before then: the one before it has just failed.
pub(super) async fn hold(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    target: &str,
    until: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE outbox SET at = ?3 WHERE state = 'due' AND at < ?3 AND seq = (
             SELECT min(seq) FROM outbox INDEXED BY outbox_waiting
             WHERE registry_id = ?1 AND target = ?2 AND state IN ('due', 'trying'))",
    )
    .bind(registry.0)
    .bind(target)
    .bind(until.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}
