//! Hooks, and the events that have started runs. What came to hooks is in [`deliveries`], what goes again in [`prune`].

mod deliveries;
mod prune;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_engine::trigger::event::SourceEvent;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::hooks::{
    DeliveryRecord, EventOutcome, FiringDelivery, FoundHook, HookRecord, HookStore, KeptDelivery, NewHook, Outcome,
    PendingDelivery, RunOfEvent, SourceFiring,
};
use cooper_ports::runs::AcceptError;
use cooper_ports::store_error::StoreError;
use cooper_types::{HookId, PrincipalName, RegistryId, RunId, TaskName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::batch::Batch;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

const WRITE: &str = "write hook";
const READ: &str = "read hooks";
const ACCEPT: &str = "write source event";

/// The run of an event that has several keys.
const KNOWN: &str = "SELECT s.run_number FROM json_each(?3) k
     CROSS JOIN source_events s ON s.registry_id = ?1 AND s.task = ?2 AND s.event = k.value ORDER BY k.key LIMIT 1";

/// The runs of events whose keys begin with a text, by the order of their keys: not by the index that has their order.
const OF_EVENTS: &str = "SELECT s.run_number AS run, s.delivery, EXISTS (
         SELECT 1 FROM runs r INDEXED BY runs_unfinished_of_task
         WHERE r.registry_id = s.registry_id AND r.task = s.task AND r.number = s.run_number AND r.finished IS NULL
     ) AS unfinished
     FROM source_events s WHERE s.registry_id = ?1 AND s.task = ?2 AND s.event >= ?3 AND s.event < ?3 || char(1114111)
     ORDER BY +s.run_number";

#[async_trait]
impl HookStore for Store {
    async fn find_hook(&self, id: &HookId) -> Result<Option<FoundHook>, StoreError> {
        let row = sqlx::query(
            "SELECT h.provider, h.sealed, h.previous, h.previous_until, t.state FROM hooks h
             JOIN tasks t ON t.registry_id = h.registry_id AND t.task = h.task
             WHERE h.registry_id = ?1 AND h.id = ?2 AND h.gone = 0",
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

    async fn rotate_hook(&self, id: &HookId, sealed: Vec<u8>, until: Option<Timestamp>) -> Result<bool, StoreError> {
        let (registry, id, now) = (self.registry_id(), id.clone(), self.clock().now());
        self.write(async move |mut tx| {
            let rotated = sqlx::query(
                "UPDATE hooks SET previous = CASE WHEN ?4 IS NULL THEN NULL ELSE sealed END, previous_until = ?4, sealed = ?3
                 WHERE registry_id = ?1 AND id = ?2 AND gone = 0",
            )
            .bind(registry.0)
            .bind(id.as_str())
            .bind(&sealed)
            .bind(until.map(Timestamp::as_micros))
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            super::registrations::renew(&mut tx, registry, now, &id).await?;
            Ok(rotated.rows_affected() > 0)
        })
        .await
    }

    async fn keep_delivery(
        &self,
        hook: &HookId,
        delivery: &str,
        events: Vec<SourceEvent>,
    ) -> Result<KeptDelivery, StoreError> {
        deliveries::keep(self, hook, delivery, &events).await
    }

    async fn waiting_tasks(&self) -> Result<Vec<(TaskName, PrincipalName)>, StoreError> {
        deliveries::waiting(self).await
    }

    async fn next_delivery(&self, task: &TaskName, after: i64) -> Result<Option<PendingDelivery>, StoreError> {
        deliveries::next(self, task, after).await
    }

    async fn finish_delivery(&self, number: i64, outcomes: Vec<EventOutcome>) -> Result<(), StoreError> {
        self.write(async move |mut tx| deliveries::finish(&mut tx, number, &outcomes).await).await
    }

    async fn prune_hooks(&self, limit: u32) -> Result<u64, StoreError> {
        prune::prune(self, limit).await
    }

    async fn list_deliveries(&self, task: &TaskName, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
        deliveries::list(self, task, limit).await
    }

    async fn run_of_event(&self, task: &TaskName, keys: &[String]) -> Result<Option<RunId>, StoreError> {
        let mut reader = self.readers().acquire().await.during(READ)?;
        known(&mut reader, self.registry_id(), task, keys).await
    }

    async fn runs_of_events(&self, task: &TaskName, prefix: &str) -> Result<Vec<RunOfEvent>, StoreError> {
        let rows = sqlx::query(OF_EVENTS)
            .bind(self.registry_id().0)
            .bind(task.key())
            .bind(prefix)
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let runs = rows.iter().map(|row| {
            let number = u64::try_from(row.try_get::<i64, _>("run").during(READ)?).stored(READ)?;
            Ok(RunOfEvent {
                run: RunId::from_number(number),
                delivery: row.try_get("delivery").during(READ)?,
                unfinished: row.try_get("unfinished").during(READ)?,
            })
        });
        runs.collect()
    }
}

/// The hooks of all tasks by their keys, or those of one.
pub(super) async fn all(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    (first, last): (&str, &str),
) -> Result<BTreeMap<String, Vec<HookRecord>>, StoreError> {
    let rows = sqlx::query(
        "SELECT task, id, provider, created, previous_until FROM hooks
         WHERE registry_id = ?1 AND task BETWEEN ?2 AND ?3 AND gone = 0 ORDER BY task, provider",
    )
    .bind(registry.0)
    .bind(first)
    .bind(last)
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

/// Gives a task the hooks that its triggers need. One that is there stays; one that is needed no more is gone at once, and
/// [`prune`] removes it with what came to it, in parts.
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
        "UPDATE hooks SET gone = 1, provider = id
         WHERE registry_id = ?1 AND task = ?2 AND gone = 0 AND provider NOT IN (SELECT value FROM json_each(?3))",
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

async fn known(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    task: &TaskName,
    keys: &[String],
) -> Result<Option<RunId>, StoreError> {
    let run: Option<i64> = sqlx::query_scalar(KNOWN)
        .bind(registry.0)
        .bind(task.key())
        .bind(serde_json::json!(keys).to_string())
        .fetch_optional(tx)
        .await
        .during(READ)?;
    run.map(|number| u64::try_from(number).map(RunId::from_number).stored(READ)).transpose()
}

/// Writes down that an event has set off a run, and in the batch that the delivery whose last it was has ended. An event
/// that has set off another run is refused.
pub(crate) async fn fired(
    tx: &mut SqliteConnection,
    batch: &mut Batch,
    registry: RegistryId,
    firing: &SourceFiring,
    run: RunId,
) -> Result<(), AcceptError> {
    let keys: BTreeSet<&String> = std::iter::once(&firing.key).chain(&firing.also).collect();
    let written = sqlx::query(
        "INSERT INTO source_events (registry_id, task, event, run_number, delivery)
         SELECT t.registry_id, t.task, k.value, ?4, coalesce(?5, (SELECT max(number) FROM deliveries), 0)
         FROM tasks t CROSS JOIN json_each(?3) k WHERE t.registry_id = ?1 AND t.task = ?2
         ON CONFLICT DO NOTHING",
    )
    .bind(registry.0)
    .bind(firing.task.key())
    .bind(serde_json::json!(keys).to_string())
    .bind(run_number(run))
    .bind(firing.delivery.as_ref().map(|delivery| delivery.first))
    .execute(&mut *tx)
    .await
    .during(ACCEPT)?;
    if written.rows_affected() != keys.len() as u64 {
        // What was written goes with the transaction.
        for key in std::iter::once(&firing.key).chain(&firing.also) {
            if let Some(earlier) =
                known(tx, registry, &firing.task, std::slice::from_ref(key)).await?.filter(|earlier| *earlier != run)
            {
                return Err(AcceptError::EventKnown { run: earlier });
            }
        }
        return Err(AcceptError::TaskGone(firing.task.clone()));
    }
    if let Some(FiringDelivery { number, what, last_after: Some(before), .. }) = &firing.delivery {
        let mut outcomes = before.clone();
        outcomes.push(EventOutcome { what: what.clone(), outcome: Outcome::Started(run) });
        deliveries::finished(batch, *number, &outcomes)?;
    }
    Ok(())
}

/// A run goes: the event that set it off is forgotten when no delivery can tell of it again.
pub(crate) async fn run_gone(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    number: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE source_events SET forgotten = ?3 WHERE registry_id = ?1 AND run_number = ?2")
        .bind(registry.0)
        .bind(number)
        .bind(now.as_micros().saturating_add(prune::KEPT))
        .execute(tx)
        .await
        .map(drop)
        .during(WRITE)
}
