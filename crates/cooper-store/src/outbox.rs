//! What goes out: webhooks, and a row for each event that a target wants.
//!
//! [`queue`] is called in the event's own transaction. The rows are tried in the order in which a target got them; what a try
//! does to one is `cooper_engine::delivery`'s to say.

mod prune;
mod queue;
mod webhooks;

use async_trait::async_trait;
use cooper_engine::delivery::{Delivery, Event as DeliveryEvent, Policy, State};
use cooper_engine::webhook::Action;
use cooper_ports::outbox::{Claimed, Outbox, Target, Tried, Waiting};
use cooper_ports::store_error::StoreError;
use cooper_types::{EventId, RegistryId, Timestamp, WebhookName};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::sql_error::{During, Stored, UnknownValue};

pub(crate) use queue::{Event, queue, queue_update_notice};

const READ: &str = "read deliveries";
const WRITE: &str = "write delivery";

const WEBHOOK: &str = "webhook/";
const UPDATE_TRIGGER: &str = "update-trigger/";

/// Each target's first delivery that has not ended. It goes from target to target in the index, so that what waits behind the
/// first ones costs nothing.
const HEADS: &str = "WITH RECURSIVE targets (target) AS (
         SELECT min(target) FROM outbox INDEXED BY outbox_waiting WHERE registry_id = ?1 AND state IN ('due', 'trying')
         UNION ALL
         SELECT (SELECT min(o.target) FROM outbox o INDEXED BY outbox_waiting
                 WHERE o.registry_id = ?1 AND o.state IN ('due', 'trying') AND o.target > targets.target)
         FROM targets WHERE targets.target IS NOT NULL)
     SELECT o.seq, o.target, o.at, o.tries FROM targets t
     CROSS JOIN outbox o ON o.seq = (
         SELECT min(first.seq) FROM outbox first INDEXED BY outbox_waiting
         WHERE first.registry_id = ?1 AND first.target = t.target AND first.state IN ('due', 'trying'))
     LEFT JOIN webhooks w ON w.registry_id = ?1 AND w.name = substr(t.target, 9) AND t.target LIKE 'webhook/%'
     WHERE w.name IS NULL OR w.enabled";

#[async_trait]
impl Outbox for Store {
    async fn queued(&self) {
        self.outbox_notify().notified().await;
    }

    async fn waiting(&self) -> Result<Vec<Waiting>, StoreError> {
        let rows = sqlx::query(HEADS).bind(self.registry_id().0).fetch_all(self.readers()).await.during(READ)?;
        let waiting = rows.iter().map(|row| {
            Ok(Waiting {
                seq: row.try_get("seq").during(READ)?,
                target: parse_target(row.try_get("target").during(READ)?)?,
                next: Timestamp::from_micros(row.try_get("at").during(READ)?),
                tries: row.try_get("tries").during(READ)?,
            })
        });
        waiting.collect()
    }

    async fn claim(&self, seqs: Vec<i64>) -> Result<Vec<Claimed>, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| {
            let mut claimed = Vec::with_capacity(seqs.len());
            for seq in seqs {
                claimed.extend(claim(&mut tx, registry, clock.now(), seq).await?);
            }
            Ok(claimed)
        })
        .await
    }

    async fn tried(&self, tried: Tried) -> Result<Option<Delivery>, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| self::tried(&mut tx, registry, clock.now(), tried).await).await
    }

    async fn release(&self) -> Result<u64, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| {
            let now = clock.now();
            let trying: Vec<i64> =
                sqlx::query_scalar("SELECT seq FROM outbox WHERE registry_id = ?1 AND state = 'trying'")
                    .bind(registry.0)
                    .fetch_all(&mut *tx)
                    .await
                    .during(READ)?;
            for seq in &trying {
                let Some((delivery, _)) = load(&mut tx, registry, *seq).await? else { continue };
                if let Ok(delivery) = delivery.apply(DeliveryEvent::Lost, now, &Policy::DEFAULT) {
                    save(&mut tx, *seq, &delivery).await?;
                }
            }
            Ok(trying.len() as u64)
        })
        .await
    }

    async fn prune(&self) -> Result<u64, StoreError> {
        prune::prune(self).await
    }
}

async fn claim(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    seq: i64,
) -> Result<Option<Claimed>, StoreError> {
    let Some((delivery, row)) = load(tx, registry, seq).await? else { return Ok(None) };
    // Without an address nobody can be told: its webhook went away in this moment.
    let Some(sealed): Option<Vec<u8>> = row.try_get("sealed").during(READ)? else { return Ok(None) };
    let Ok(delivery) = delivery.apply(DeliveryEvent::Begun, now, &Policy::DEFAULT) else { return Ok(None) };
    save(tx, seq, &delivery).await?;
    Ok(Some(Claimed {
        seq,
        target: parse_target(row.try_get("target").during(READ)?)?,
        number: delivery.tries,
        event: EventId::parse(row.try_get("event").during(READ)?).stored(READ)?,
        action: Action::parse(row.try_get("action").during(READ)?).stored(READ)?,
        body: row.try_get("body").during(READ)?,
        sealed,
    }))
}

async fn tried(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    tried: Tried,
) -> Result<Option<Delivery>, StoreError> {
    let Tried { seq, number, answer, spread, status, said } = tried;
    let Some((delivery, row)) = load(tx, registry, seq).await? else { return Ok(None) };
    let event = DeliveryEvent::Ended { number, answer, spread };
    let Ok(delivery) = delivery.apply(event, now, &Policy::DEFAULT) else { return Ok(None) };
    save(tx, seq, &delivery).await?;
    sqlx::query("UPDATE outbox SET last_at = ?2, last_status = ?3, last_said = ?4 WHERE seq = ?1")
        .bind(seq)
        .bind(now.as_micros())
        .bind(status)
        .bind(said)
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    let is_given_up = matches!(delivery.state, State::Failed { .. });
    if is_given_up && now.since(delivery.queued) >= Policy::DEFAULT.give_up {
        // What waited behind it as long as this has had its time as well: a target that is gone is not tried for each of them.
        let target: &str = row.try_get("target").during(READ)?;
        prune::drop_older(tx, registry, target, now, now.before(Policy::DEFAULT.give_up)).await?;
    }
    Ok(Some(delivery))
}

/// A delivery that has not been forgotten, and its row with what it takes to make it.
async fn load(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    seq: i64,
) -> Result<Option<(Delivery, SqliteRow)>, StoreError> {
    let row = sqlx::query(
        "SELECT o.target, o.event, o.action, o.body, o.queued, o.state, o.at, o.tries, coalesce(o.sealed, w.sealed) AS sealed
         FROM outbox o LEFT JOIN webhooks w
             ON w.registry_id = ?1 AND w.name = substr(o.target, 9) AND o.target LIKE 'webhook/%'
         WHERE o.seq = ?2 AND o.registry_id = ?1",
    )
    .bind(registry.0)
    .bind(seq)
    .fetch_optional(tx)
    .await
    .during(READ)?;
    row.map(|row| Ok((delivery_of(&row)?, row))).transpose()
}

async fn save(tx: &mut SqliteConnection, seq: i64, delivery: &Delivery) -> Result<(), StoreError> {
    let (state, at) = columns(delivery.state);
    sqlx::query("UPDATE outbox SET state = ?2, at = ?3, tries = ?4 WHERE seq = ?1")
        .bind(seq)
        .bind(state)
        .bind(at.as_micros())
        .bind(delivery.tries)
        .execute(tx)
        .await
        .map(drop)
        .during(WRITE)
}

fn columns(state: State) -> (&'static str, Timestamp) {
    match state {
        State::Due { at } => ("due", at),
        State::Trying { until } => ("trying", until),
        State::Delivered { at } => ("delivered", at),
        State::Failed { at } => ("failed", at),
    }
}

fn delivery_of(row: &SqliteRow) -> Result<Delivery, StoreError> {
    let at = Timestamp::from_micros(row.try_get("at").during(READ)?);
    let state = match row.try_get("state").during(READ)? {
        "due" => State::Due { at },
        "trying" => State::Trying { until: at },
        "delivered" => State::Delivered { at },
        "failed" => State::Failed { at },
        other => return Err(UnknownValue::new("state of a delivery", other)).stored(READ),
    };
    let queued = Timestamp::from_micros(row.try_get("queued").during(READ)?);
    Ok(Delivery { queued, tries: row.try_get("tries").during(READ)?, state })
}

/// A target's name in its column.
fn target_column(target: &Target) -> String {
    match target {
        Target::Webhook(name) => format!("{WEBHOOK}{name}"),
        Target::UpdateTrigger(task) => format!("{UPDATE_TRIGGER}{task}"),
    }
}

fn parse_target(text: &str) -> Result<Target, StoreError> {
    if let Some(name) = text.strip_prefix(WEBHOOK) {
        return WebhookName::parse(name).map(Target::Webhook).stored(READ);
    }
    let task = text.strip_prefix(UPDATE_TRIGGER).map(|task| Target::UpdateTrigger(task.to_owned()));
    task.ok_or_else(|| UnknownValue::new("target", text)).stored(READ)
}
