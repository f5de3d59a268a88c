//! Deliveries: kept when they come, found when it is their turn, and what they led to.

use cooper_engine::task::Task;
use cooper_engine::trigger::event::SourceEvent;
use cooper_ports::hooks::{DeliveryRecord, EventOutcome, KeptDelivery, Outcome, PendingDelivery};
use cooper_ports::store_error::StoreError;
use cooper_types::{HookId, PrincipalName, RegistryId, TaskName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{READ, provider};
use crate::Store;
use crate::batch::Batch;
use crate::sql_error::{During, Stored};

const DELIVER: &str = "write delivery";

/// How many deliveries of a hook may wait.
const MOST: i64 = 10_000;
/// How many may where the next one is large.
const MOST_LARGE: i64 = 500;
/// What is large, in bytes of its events.
const LARGE: usize = 64 << 10;

/// The hooks for which something waits, from an index alone.
pub(super) const WAITING: &str = "WITH RECURSIVE waiting (hook) AS (
         SELECT min(hook) FROM deliveries INDEXED BY deliveries_by_turn WHERE registry_id = ?1 AND waits = 1
         UNION ALL
         SELECT (SELECT min(d.hook) FROM deliveries d INDEXED BY deliveries_by_turn
                 WHERE d.registry_id = ?1 AND d.waits = 1 AND d.hook > waiting.hook)
         FROM waiting WHERE waiting.hook IS NOT NULL)
     SELECT DISTINCT t.task, t.principal FROM waiting
     CROSS JOIN hooks h ON h.registry_id = ?1 AND h.id = waiting.hook AND h.gone = 0
     CROSS JOIN tasks t ON t.registry_id = h.registry_id AND t.task = h.task";

/// The oldest delivery that waits for any of a task's hooks, and the task.
pub(super) const NEXT: &str =
    "SELECT d.number, coalesce(d.first, d.number) AS first, d.delivery, d.received, d.events, h.provider, t.state
     FROM deliveries d
     CROSS JOIN hooks h ON h.registry_id = d.registry_id AND h.id = d.hook
     CROSS JOIN tasks t ON t.registry_id = h.registry_id AND t.task = h.task
     WHERE d.number = (
         SELECT min((
             SELECT w.number FROM deliveries w INDEXED BY deliveries_by_turn
             WHERE w.registry_id = ?1 AND w.waits = 1 AND w.hook = o.id AND w.number > ?3
             ORDER BY w.number LIMIT 1))
         FROM hooks o INDEXED BY hooks_by_task WHERE o.registry_id = ?1 AND o.task = ?2 AND o.gone = 0)";

/// The newest deliveries of a task's hooks.
pub(super) const LIST: &str = "SELECT hook, delivery, received, outcomes FROM deliveries
     WHERE number IN (
         SELECT d.number FROM hooks h INDEXED BY hooks_by_task
         CROSS JOIN deliveries d INDEXED BY deliveries_by_hook ON d.registry_id = h.registry_id AND d.hook = h.id
         WHERE h.registry_id = ?1 AND h.task = ?2 AND h.gone = 0 ORDER BY d.number DESC LIMIT ?3)
     ORDER BY number DESC";

pub(super) async fn keep(
    store: &Store,
    hook: &HookId,
    delivery: &str,
    events: &[SourceEvent],
) -> Result<KeptDelivery, StoreError> {
    let events = serde_json::to_string(events).stored(DELIVER)?;
    let most = if events.len() > LARGE { MOST_LARGE } else { MOST };
    let new = New {
        registry: store.registry_id(),
        now: store.clock().now(),
        hook: hook.as_str().to_owned(),
        delivery: delivery.to_owned(),
        events,
        most,
    };
    store
        .write_soon(
            async move |mut tx| {
                if new.insert(&mut tx, None).await? { Ok(KeptDelivery::New) } else { new.again(&mut tx).await }
            },
        )
        .await
}

/// A delivery that has come.
struct New {
    registry: RegistryId,
    now: Timestamp,
    hook: String,
    delivery: String,
    events: String,
    /// How many may wait before it.
    most: i64,
}

impl New {
    /// Writes it, if nothing has its id and there is room; with the number under which it came first, if it is sent again.
    async fn insert(&self, tx: &mut SqliteConnection, first: Option<i64>) -> Result<bool, StoreError> {
        // One call for both statements: each is a journey to SQLite's thread and back.
        let kept = sqlx::query(
            "INSERT INTO deliveries (registry_id, hook, delivery, received, events, waits, first)
             SELECT registry_id, id, ?3, ?4, ?5, 1, ?7 FROM hooks
             WHERE registry_id = ?1 AND id = ?2 AND gone = 0 AND waiting < ?6
             ON CONFLICT DO NOTHING;
             UPDATE hooks SET waiting = waiting + 1 WHERE registry_id = ?1 AND id = ?2 AND changes() > 0",
        )
        .bind(self.registry.0)
        .bind(&self.hook)
        .bind(&self.delivery)
        .bind(self.now.as_micros())
        .bind(&self.events)
        .bind(self.most)
        .bind(first)
        .execute(tx)
        .await
        .during(DELIVER)?;
        Ok(kept.rows_affected() > 0)
    }

    /// Why it was not written. One that has led to less than it may waits again, behind what came since.
    async fn again(&self, tx: &mut SqliteConnection) -> Result<KeptDelivery, StoreError> {
        let row = sqlx::query(
            "SELECT h.waiting, d.number, coalesce(d.first, d.number) AS first, d.outcomes FROM hooks h
             LEFT JOIN deliveries d ON d.registry_id = h.registry_id AND d.hook = h.id AND d.delivery = ?3
             WHERE h.registry_id = ?1 AND h.id = ?2 AND h.gone = 0",
        )
        .bind(self.registry.0)
        .bind(&self.hook)
        .bind(&self.delivery)
        .fetch_optional(&mut *tx)
        .await
        .during(DELIVER)?;
        let Some(row) = row else { return Ok(KeptDelivery::Gone) };
        let Some(number) = row.try_get::<Option<i64>, _>("number").during(DELIVER)? else {
            return Ok(KeptDelivery::Full);
        };
        let Some(outcomes) = row.try_get::<Option<&str>, _>("outcomes").during(DELIVER)? else {
            return Ok(KeptDelivery::Repeated);
        };
        if !read(outcomes).iter().any(|one| one.outcome.may_differ()) {
            return Ok(KeptDelivery::Repeated);
        }
        if row.try_get::<i64, _>("waiting").during(DELIVER)? >= self.most {
            return Ok(KeptDelivery::Full);
        }
        let first: i64 = row.try_get("first").during(DELIVER)?;
        let delete = sqlx::query("DELETE FROM deliveries WHERE number = ?1").bind(number);
        delete.execute(&mut *tx).await.during(DELIVER)?;
        Ok(if self.insert(tx, Some(first)).await? { KeptDelivery::New } else { KeptDelivery::Full })
    }
}

pub(super) async fn waiting(store: &Store) -> Result<Vec<(TaskName, PrincipalName)>, StoreError> {
    let rows = sqlx::query(WAITING).bind(store.registry_id().0).fetch_all(store.readers()).await.during(READ)?;
    let task = |row: &SqliteRow| -> Result<_, StoreError> {
        let name = TaskName::parse(row.try_get("task").during(READ)?).stored(READ)?;
        Ok((name, PrincipalName::parse(row.try_get("principal").during(READ)?).stored(READ)?))
    };
    // What can't be read is another release's, and waits for that: the others go on.
    Ok(rows.iter().filter_map(|row| task(row).ok()).collect())
}

pub(super) async fn next(
    store: &Store,
    task: &TaskName,
    mut after: i64,
) -> Result<Option<PendingDelivery>, StoreError> {
    loop {
        let row = sqlx::query(NEXT)
            .bind(store.registry_id().0)
            .bind(task.key())
            .bind(after)
            .fetch_optional(store.readers())
            .await
            .during(READ)?;
        let Some(row) = row else { return Ok(None) };
        // A task that can't be read is another release's, and so are its deliveries: they wait for that.
        let state: Task = serde_json::from_str(row.try_get("state").during(READ)?).stored(READ)?;
        if let Ok(pending) = pending(state, &row) {
            return Ok(Some(pending));
        }
        // Those behind it are not kept up by it.
        let number = row.try_get("number").during(READ)?;
        after = number;
        store.write(async move |mut tx| finish(&mut tx, number, &[unreadable()]).await).await?;
    }
}

fn pending(task: Task, row: &SqliteRow) -> Result<PendingDelivery, StoreError> {
    Ok(PendingDelivery {
        number: row.try_get("number").during(READ)?,
        first: row.try_get("first").during(READ)?,
        task,
        provider: provider(row)?,
        delivery: row.try_get("delivery").during(READ)?,
        received: Timestamp::from_micros(row.try_get("received").during(READ)?),
        events: serde_json::from_str(row.try_get("events").during(READ)?).map_err(|error| error.to_string()),
    })
}

/// What is said of a delivery of which something can't be read.
fn unreadable() -> EventOutcome {
    let why = "what is kept of it can't be read by this release; send it again";
    EventOutcome { what: "delivery".to_owned(), outcome: Outcome::Failed(why.to_owned()) }
}

/// What a delivery has led to, as it was written down.
fn read(outcomes: &str) -> Vec<EventOutcome> {
    serde_json::from_str(outcomes).unwrap_or_else(|_| vec![unreadable()])
}

/// Writes down what a delivery led to, if it waits.
pub(super) async fn finish(
    tx: &mut SqliteConnection,
    number: i64,
    outcomes: &[EventOutcome],
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    finished(&mut batch, number, outcomes)?;
    batch.execute(tx).await.during(DELIVER)
}

/// [`finish`] among other statements.
pub(super) fn finished(batch: &mut Batch, number: i64, outcomes: &[EventOutcome]) -> Result<(), StoreError> {
    let outcomes = serde_json::to_string(outcomes).stored(DELIVER)?;
    batch
        .statement("UPDATE hooks SET waiting = max(waiting - 1, 0) WHERE (registry_id, id) = ")
        .text("(SELECT registry_id, hook FROM deliveries WHERE number = ")
        .value(number)
        .text(" AND events IS NOT NULL)");
    batch
        .statement("UPDATE deliveries SET events = NULL, outcomes = ")
        .value(outcomes)
        .text(", waits = 0 WHERE number = ")
        .value(number)
        .text(" AND events IS NOT NULL");
    Ok(())
}

pub(super) async fn list(store: &Store, task: &TaskName, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
    let rows = sqlx::query(LIST)
        .bind(store.registry_id().0)
        .bind(task.key())
        .bind(limit)
        .fetch_all(store.readers())
        .await
        .during(READ)?;
    let records = rows.iter().map(|row| {
        let outcomes: Option<&str> = row.try_get("outcomes").during(READ)?;
        Ok(DeliveryRecord {
            hook: HookId::parse(row.try_get("hook").during(READ)?).stored(READ)?,
            delivery: row.try_get("delivery").during(READ)?,
            received: Timestamp::from_micros(row.try_get("received").during(READ)?),
            outcomes: outcomes.map(read),
        })
    });
    records.collect()
}

#[cfg(test)]
mod tests;
