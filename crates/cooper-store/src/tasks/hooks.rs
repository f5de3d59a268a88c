//! Hooks, deliveries, and the events that have started runs.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::hooks::{
    DeliveryRecord, EventOutcome, FiringDelivery, FoundHook, HookRecord, HookStore, NewHook, Outcome, PendingDelivery,
    SourceFiring,
};
use cooper_ports::runs::AcceptError;
use cooper_ports::store_error::StoreError;
use cooper_types::{HookId, RegistryId, RunId, TaskName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

const WRITE: &str = "write hook";
const READ: &str = "read hooks";
const DELIVER: &str = "write delivery";
const ACCEPT: &str = "write source event";

/// How long deliveries are kept, in microseconds: 30 days.
const KEPT: i64 = 30 * 24 * 3600 * 1_000_000;
/// How many deliveries of a hook are kept that are worked off.
const KEPT_DELIVERIES: i64 = 500;

#[async_trait]
impl HookStore for Store {
    async fn find_hook(&self, id: &HookId) -> Result<Option<FoundHook>, StoreError> {
        let row = sqlx::query(
            "SELECT h.provider, h.sealed, h.previous, h.previous_until, t.state FROM hooks h
             JOIN tasks t ON t.registry_id = h.registry_id AND t.task = h.task
             WHERE h.registry_id = ?1 AND h.id = ?2",
        )
        .bind(self.registry_id().0)
        .bind(id.as_str())
        .fetch_optional(self.readers())
        .await
        .during(READ)?;
        let Some(row) = row else { return Ok(None) };
        let previous: Option<Vec<u8>> = row.try_get("previous").during(READ)?;
        let until: Option<i64> = row.try_get("previous_until").during(READ)?;
        Ok(Some(FoundHook {
            provider: provider(&row)?,
            task: serde_json::from_str::<Task>(row.try_get("state").during(READ)?).stored(READ)?,
            sealed: row.try_get("sealed").during(READ)?,
            previous: previous.zip(until.map(Timestamp::from_micros)),
        }))
    }

    async fn rotate_hook(&self, id: &HookId, sealed: Vec<u8>, until: Timestamp) -> Result<bool, StoreError> {
        let (registry, id) = (self.registry_id(), id.clone());
        self.write(async move |mut tx| {
            let rotated = sqlx::query(
                "UPDATE hooks SET previous = sealed, previous_until = ?4, sealed = ?3
                 WHERE registry_id = ?1 AND id = ?2",
            )
            .bind(registry.0)
            .bind(id.as_str())
            .bind(&sealed)
            .bind(until.as_micros())
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            Ok(rotated.rows_affected() > 0)
        })
        .await
    }

    async fn keep_delivery(&self, hook: &HookId, delivery: &str, events: Vec<SourceEvent>) -> Result<bool, StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        let (hook, delivery) = (hook.clone(), delivery.to_owned());
        let events = serde_json::to_string(&events).stored(DELIVER)?;
        self.write(async move |mut tx| {
            let kept = sqlx::query(
                "INSERT INTO deliveries (registry_id, hook, delivery, received, events)
                 SELECT registry_id, id, ?3, ?4, ?5 FROM hooks WHERE registry_id = ?1 AND id = ?2
                 ON CONFLICT DO NOTHING",
            )
            .bind(registry.0)
            .bind(hook.as_str())
            .bind(&delivery)
            .bind(now.as_micros())
            .bind(&events)
            .execute(&mut *tx)
            .await
            .during(DELIVER)?;
            Ok(kept.rows_affected() > 0)
        })
        .await
    }

    async fn pending_deliveries(&self, after: i64, limit: u32) -> Result<Vec<PendingDelivery>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.number, d.delivery, d.received, d.events, h.provider, json_extract(t.state, '$.name') AS name
             FROM deliveries d INDEXED BY deliveries_waiting
             CROSS JOIN hooks h ON h.registry_id = d.registry_id AND h.id = d.hook
             CROSS JOIN tasks t ON t.registry_id = h.registry_id AND t.task = h.task
             WHERE d.registry_id = ?1 AND d.number > ?2 AND d.events IS NOT NULL ORDER BY d.number LIMIT ?3",
        )
        .bind(self.registry_id().0)
        .bind(after)
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .during(READ)?;
        let pending = rows.iter().map(|row| {
            Ok(PendingDelivery {
                number: row.try_get("number").during(READ)?,
                task: TaskName::parse(row.try_get("name").during(READ)?).stored(READ)?,
                provider: provider(row)?,
                delivery: row.try_get("delivery").during(READ)?,
                received: Timestamp::from_micros(row.try_get("received").during(READ)?),
                events: serde_json::from_str(row.try_get("events").during(READ)?).map_err(|error| error.to_string()),
            })
        });
        pending.collect()
    }

    async fn finish_delivery(&self, number: i64, outcomes: Vec<EventOutcome>) -> Result<(), StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| finish(&mut tx, registry, now, number, &outcomes).await).await
    }

    async fn list_deliveries(&self, task: &TaskName, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT d.hook, d.delivery, d.received, d.outcomes FROM deliveries d
             JOIN hooks h ON h.registry_id = d.registry_id AND h.id = d.hook
             WHERE d.registry_id = ?1 AND h.task = ?2 ORDER BY d.number DESC LIMIT ?3",
        )
        .bind(self.registry_id().0)
        .bind(task.key())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .during(READ)?;
        let records = rows.iter().map(|row| {
            let outcomes: Option<&str> = row.try_get("outcomes").during(READ)?;
            Ok(DeliveryRecord {
                hook: HookId::parse(row.try_get("hook").during(READ)?).stored(READ)?,
                delivery: row.try_get("delivery").during(READ)?,
                received: Timestamp::from_micros(row.try_get("received").during(READ)?),
                outcomes: outcomes.map(|text| serde_json::from_str(text).stored(READ)).transpose()?,
            })
        });
        records.collect()
    }

    async fn run_of_event(&self, task: &TaskName, key: &str) -> Result<Option<RunId>, StoreError> {
        let mut reader = self.readers().acquire().await.during(READ)?;
        known(&mut reader, self.registry_id(), task, key).await
    }
}

/// The hooks of all tasks by their keys, or those of one.
pub(super) async fn all(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    only: Option<&str>,
) -> Result<BTreeMap<String, Vec<HookRecord>>, StoreError> {
    let rows = sqlx::query(
        "SELECT task, id, provider, created, previous_until FROM hooks
         WHERE registry_id = ?1 AND (?2 IS NULL OR task = ?2) ORDER BY task, provider",
    )
    .bind(registry.0)
    .bind(only)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let mut hooks: BTreeMap<String, Vec<HookRecord>> = BTreeMap::new();
    for row in &rows {
        hooks.entry(row.try_get("task").during(READ)?).or_default().push(record(row)?);
    }
    Ok(hooks)
}

fn provider(row: &SqliteRow) -> Result<Provider, StoreError> {
    Provider::parse(row.try_get("provider").during(READ)?).stored(READ)
}

fn record(row: &SqliteRow) -> Result<HookRecord, StoreError> {
    let until: Option<i64> = row.try_get("previous_until").during(READ)?;
    Ok(HookRecord {
        id: HookId::parse(row.try_get("id").during(READ)?).stored(READ)?,
        provider: provider(row)?,
        created: Timestamp::from_micros(row.try_get("created").during(READ)?),
        previous_until: until.map(Timestamp::from_micros),
    })
}

/// Gives a task the hooks that its triggers need. One that is there stays; one that is needed no more goes, with what came
/// to it.
pub(super) async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    task: &Task,
    hooks: &[NewHook],
) -> Result<(), StoreError> {
    let key = task.name.key();
    let needed: Vec<&str> = task.providers().into_iter().map(Provider::as_str).collect();
    sqlx::query(
        "DELETE FROM hooks
         WHERE registry_id = ?1 AND task = ?2 AND provider NOT IN (SELECT value FROM json_each(?3))",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(serde_json::json!(needed).to_string())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    for hook in hooks.iter().filter(|hook| needed.contains(&hook.provider.as_str())) {
        sqlx::query(
            "INSERT INTO hooks (registry_id, id, task, provider, sealed, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (registry_id, task, provider) DO NOTHING",
        )
        .bind(registry.0)
        .bind(hook.id.as_str())
        .bind(&key)
        .bind(hook.provider.as_str())
        .bind(&hook.sealed)
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    }
    Ok(())
}

async fn finish(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    number: i64,
    outcomes: &[EventOutcome],
) -> Result<(), StoreError> {
    let outcomes = serde_json::to_string(outcomes).stored(DELIVER)?;
    let hook: Option<String> = sqlx::query_scalar(
        "UPDATE deliveries SET events = NULL, outcomes = ?2 WHERE number = ?1 AND events IS NOT NULL RETURNING hook",
    )
    .bind(number)
    .bind(outcomes)
    .fetch_optional(&mut *tx)
    .await
    .during(DELIVER)?;
    let Some(hook) = hook else { return Ok(()) };
    sqlx::query(
        "DELETE FROM deliveries WHERE registry_id = ?1 AND hook = ?2 AND events IS NULL AND (received < ?3 OR number <=
             (SELECT number FROM deliveries WHERE registry_id = ?1 AND hook = ?2 ORDER BY number DESC LIMIT 1 OFFSET ?4))",
    )
    .bind(registry.0)
    .bind(hook)
    .bind(now.as_micros().saturating_sub(KEPT))
    .bind(KEPT_DELIVERIES)
    .execute(tx)
    .await
    .map(drop)
    .during(DELIVER)
}

async fn known(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    task: &TaskName,
    key: &str,
) -> Result<Option<RunId>, StoreError> {
    let run: Option<i64> =
        sqlx::query_scalar("SELECT run_number FROM source_events WHERE registry_id = ?1 AND task = ?2 AND event = ?3")
            .bind(registry.0)
            .bind(task.key())
            .bind(key)
            .fetch_optional(tx)
            .await
            .during(READ)?;
    run.map(|number| u64::try_from(number).map(RunId::from_number).stored(READ)).transpose()
}

/// Writes down that an event has set off a run, and ends the delivery whose last it was. An event that has set off another
/// run is refused.
pub(crate) async fn fired(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    firing: &SourceFiring,
    run: RunId,
) -> Result<(), AcceptError> {
    if let Some(run) = known(tx, registry, &firing.task, &firing.key).await? {
        return Err(AcceptError::EventKnown { run });
    }
    // The task may be gone: then the key is nobody's, and the run goes with the transaction.
    let written = sqlx::query(
        "INSERT INTO source_events (registry_id, task, event, run_number)
         SELECT registry_id, task, ?3, ?4 FROM tasks WHERE registry_id = ?1 AND task = ?2",
    )
    .bind(registry.0)
    .bind(firing.task.key())
    .bind(&firing.key)
    .bind(run_number(run))
    .execute(&mut *tx)
    .await
    .during(ACCEPT)?;
    if written.rows_affected() == 0 {
        return Err(AcceptError::TaskGone(firing.task.clone()));
    }
    if let Some(FiringDelivery { number, what, last_after: Some(before) }) = &firing.delivery {
        let mut outcomes = before.clone();
        outcomes.push(EventOutcome { what: what.clone(), outcome: Outcome::Started(run) });
        finish(tx, registry, now, *number, &outcomes).await?;
    }
    Ok(())
}
