//! Webhooks in SQLite, and the log of what was sent to them. Addresses, headers and secrets arrive sealed.

use std::collections::BTreeSet;

use async_trait::async_trait;
use cooper_engine::webhook::{Action, Scope};
use cooper_ports::outbox::{
    DeliveryRecord, LastTry, MAX_WEBHOOKS, PutWebhook, PutWebhookError, Target, Webhook, WebhookStore,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{EventId, PrincipalName, RegistryId, Timestamp, WebhookName};
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::queue::{NewRow, new_id};
use super::{delivery_of, target_column, targets};
use crate::Store;
use crate::sql_error::{During, Stored};

const READ: &str = "read webhook";
const WRITE: &str = "write webhook";

/// The newest deliveries of a target: of those that wait and of those that have ended.
const SENT: &str =
    "SELECT event, action, subject, body, redelivery, queued, state, at, tries, refusals, last_at, last_status,
            last_said
     FROM outbox WHERE seq IN (
         SELECT seq FROM (SELECT seq FROM outbox INDEXED BY outbox_waiting
                          WHERE registry_id = ?1 AND target = ?2 AND state IN ('due', 'trying')
                          ORDER BY seq DESC LIMIT ?3)
         UNION ALL
         SELECT seq FROM (SELECT seq FROM outbox INDEXED BY outbox_ended
                          WHERE registry_id = ?1 AND target = ?2 AND state IN ('delivered', 'failed')
                          ORDER BY seq DESC LIMIT ?3))
     ORDER BY seq DESC LIMIT ?3";

const REDELIVER: &str =
    "INSERT INTO outbox (registry_id, target, event, action, subject, body, redelivery, queued, state, at)
     SELECT registry_id, target, event, action, subject, body, 1, ?4, 'due', ?4 FROM outbox WHERE seq = (
         SELECT min(seq) FROM (
             SELECT seq FROM outbox INDEXED BY outbox_waiting
             WHERE registry_id = ?1 AND target = ?2 AND event = ?3 AND state IN ('due', 'trying')
             UNION ALL
             SELECT seq FROM outbox INDEXED BY outbox_ended
             WHERE registry_id = ?1 AND target = ?2 AND event = ?3 AND state IN ('delivered', 'failed')))";

#[async_trait]
impl WebhookStore for Store {
    async fn put_webhook(&self, put: PutWebhook) -> Result<Webhook, PutWebhookError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let kept = self.write(async move |mut tx| self::put(&mut tx, registry, clock.now(), put).await).await?;
        self.something_queued();
        Ok(kept)
    }

    async fn find_webhook(&self, name: &WebhookName) -> Result<Option<(Webhook, Vec<u8>)>, StoreError> {
        let mut connection = self.readers().acquire().await.during(READ)?;
        find(&mut connection, self.registry_id(), name).await
    }

    async fn list_webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        let rows = sqlx::query("SELECT * FROM webhooks WHERE registry_id = ?1 ORDER BY name")
            .bind(self.registry_id().0)
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        rows.iter().map(webhook).collect()
    }

    async fn delete_webhook(&self, name: &WebhookName) -> Result<bool, StoreError> {
        let (registry, name) = (self.registry_id(), name.clone());
        self.write(async move |mut tx| {
            let target = target_column(&Target::Webhook(name.clone()));
            targets::deleted(&mut tx, registry, &target).await?;
            let itself = "DELETE FROM webhooks WHERE registry_id = ?1 AND name = ?2";
            let deleted =
                sqlx::query(itself).bind(registry.0).bind(name.as_str()).execute(&mut *tx).await.during(WRITE)?;
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn ping_webhook(&self, name: &WebhookName) -> Result<Option<EventId>, StoreError> {
        let (registry, clock, name) = (self.registry_id(), self.clock().clone(), name.clone());
        let queued = self.write(async move |mut tx| ping(&mut tx, registry, clock.now(), &name).await).await?;
        self.something_queued();
        Ok(queued)
    }

    async fn list_sent(&self, target: &Target, limit: u32) -> Result<Vec<DeliveryRecord>, StoreError> {
        let rows = sqlx::query(SENT)
            .bind(self.registry_id().0)
            .bind(target_column(target))
            .bind(limit)
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        rows.iter().map(record).collect()
    }

    async fn redeliver(&self, target: &Target, event: &EventId) -> Result<bool, StoreError> {
        let (registry, clock, event) = (self.registry_id(), self.clock().clone(), event.clone());
        let target = target_column(target);
        let queued = self
            .write(async move |mut tx| {
                let now = clock.now();
                let queued = sqlx::query(REDELIVER)
                    .bind(registry.0)
                    .bind(&target)
                    .bind(event.as_str())
                    .bind(now.as_micros())
                    .execute(&mut *tx)
                    .await
                    .during("queue a delivery once more")?;
                targets::refresh(&mut tx, registry, &target).await?;
                Ok::<_, StoreError>(queued.rows_affected() > 0)
            })
            .await?;
        self.something_queued();
        Ok(queued)
    }
}

async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    put: PutWebhook,
) -> Result<Webhook, PutWebhookError> {
    let PutWebhook { name, host, sealed, actions, scope, enabled, set_by, replaces } = put;
    let earlier = find(tx, registry, &name).await?.map(|(webhook, _)| webhook);
    let (generation, created) = match (&earlier, replaces) {
        (None, None) => (1, now),
        (Some(earlier), Some(replaces)) if earlier.generation == replaces => (replaces + 1, earlier.created),
        (Some(_), None) => return Err(PutWebhookError::Exists(name)),
        (_, Some(_)) => return Err(PutWebhookError::Changed(name)),
    };
    if earlier.is_none() && count(tx, registry).await? >= MAX_WEBHOOKS {
        return Err(PutWebhookError::TooMany);
    }
    let name = earlier.map_or(name, |earlier| earlier.name);
    sqlx::query(
        "INSERT INTO webhooks (registry_id, name, host, sealed, actions, scope, enabled, set_by, created, generation)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT (registry_id, name) DO UPDATE
         SET host = excluded.host, sealed = excluded.sealed, actions = excluded.actions, scope = excluded.scope,
             enabled = excluded.enabled, set_by = excluded.set_by, generation = excluded.generation",
    )
    .bind(registry.0)
    .bind(name.as_str())
    .bind(&host)
    .bind(&sealed)
    .bind(json!(actions).to_string())
    .bind(scope.to_string())
    .bind(enabled)
    .bind(set_by.as_str())
    .bind(created.as_micros())
    .bind(i64::try_from(generation).stored(WRITE)?)
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    // What waits may have waited for just this change.
    targets::renewed(tx, registry, &target_column(&Target::Webhook(name.clone())), Some(&host), now).await?;
    Ok(Webhook { name, host, actions, scope, enabled, set_by, created, generation })
}

async fn count(tx: &mut SqliteConnection, registry: RegistryId) -> Result<usize, StoreError> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE registry_id = ?1")
        .bind(registry.0)
        .fetch_one(tx)
        .await
        .during(READ)?;
    usize::try_from(count).stored(READ)
}

async fn find(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    name: &WebhookName,
) -> Result<Option<(Webhook, Vec<u8>)>, StoreError> {
    let row = sqlx::query("SELECT * FROM webhooks WHERE registry_id = ?1 AND name = ?2")
        .bind(registry.0)
        .bind(name.as_str())
        .fetch_optional(connection)
        .await
        .during(READ)?;
    row.map(|row| Ok((webhook(&row)?, row.try_get("sealed").during(READ)?))).transpose()
}

async fn ping(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    name: &WebhookName,
) -> Result<Option<EventId>, StoreError> {
    let Some((webhook, _)) = find(tx, registry, name).await? else { return Ok(None) };
    let id = new_id();
    let body = json!({ "id": id, "timestamp": now.to_string(), "action": Action::Ping }).to_string();
    let row = NewRow { event: &id, action: Action::Ping, subject: "", body: &body };
    row.insert(tx, registry, now, &Target::Webhook(webhook.name), &webhook.host).await?;
    Ok(Some(id))
}

fn webhook(row: &SqliteRow) -> Result<Webhook, StoreError> {
    let actions: BTreeSet<Action> = serde_json::from_str(row.try_get("actions").during(READ)?).stored(READ)?;
    Ok(Webhook {
        name: WebhookName::parse(row.try_get("name").during(READ)?).stored(READ)?,
        host: row.try_get("host").during(READ)?,
        actions,
        scope: Scope::parse(row.try_get("scope").during(READ)?).stored(READ)?,
        enabled: row.try_get("enabled").during(READ)?,
        set_by: PrincipalName::parse(row.try_get("set_by").during(READ)?).stored(READ)?,
        created: Timestamp::from_micros(row.try_get("created").during(READ)?),
        generation: row.try_get::<i64, _>("generation").during(READ)?.unsigned_abs(),
    })
}

fn record(row: &SqliteRow) -> Result<DeliveryRecord, StoreError> {
    let last_at: Option<i64> = row.try_get("last_at").during(READ)?;
    let last = match last_at {
        None => None,
        Some(at) => Some(LastTry {
            at: Timestamp::from_micros(at),
            status: row.try_get("last_status").during(READ)?,
            said: row.try_get::<Option<String>, _>("last_said").during(READ)?.unwrap_or_default(),
        }),
    };
    Ok(DeliveryRecord {
        event: EventId::parse(row.try_get("event").during(READ)?).stored(READ)?,
        action: Action::parse(row.try_get("action").during(READ)?).stored(READ)?,
        subject: row.try_get("subject").during(READ)?,
        body: row.try_get("body").during(READ)?,
        redelivery: row.try_get("redelivery").during(READ)?,
        delivery: delivery_of(row)?,
        last,
    })
}
