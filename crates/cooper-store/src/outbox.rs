//! What goes out: webhooks, and a row for each event that a target wants.
//!
//! [`queue`] is called in the event's own transaction. The rows are tried in the order in which a target got them; what a try
//! does to one is `cooper_engine::delivery`'s to say.

mod prune;
mod queue;
pub(crate) mod targets;
mod webhooks;

use async_trait::async_trait;
use cooper_engine::delivery::{Delivery, Event as DeliveryEvent, Policy, Standing, State};
use cooper_engine::webhook::Action;
use cooper_ports::outbox::{Claimed, Look, Outbox, Target, Tried, Waiting};
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

#[async_trait]
impl Outbox for Store {
    async fn queued(&self) {
        self.outbox_notify().notified().await;
    }

    async fn waiting(&self, look: &Look) -> Result<Vec<Waiting>, StoreError> {
        targets::waiting(self, look).await
    }

    async fn next(&self) -> Result<Option<Timestamp>, StoreError> {
        targets::next(self).await
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
            // Nobody was there to try: no target has had that time.
            sqlx::query("UPDATE outbox_targets SET failing_since = ?2 WHERE registry_id = ?1 AND failures > 0")
                .bind(registry.0)
                .bind(now.as_micros())
                .execute(&mut *tx)
                .await
                .during(WRITE)?;
            targets::bring_forward(&mut tx, registry, now).await?;
            // The second condition is for the index.
            let trying: Vec<i64> = sqlx::query_scalar(
                "SELECT seq FROM outbox INDEXED BY outbox_waiting
                 WHERE registry_id = ?1 AND state = 'trying' AND state IN ('due', 'trying')",
            )
            .bind(registry.0)
            .fetch_all(&mut *tx)
            .await
            .during(READ)?;
            for seq in &trying {
                let Some((delivery, row)) = load(&mut tx, registry, *seq).await? else { continue };
                let target: &str = row.try_get("target").during(READ)?;
                if let Ok((delivery, _)) =
                    delivery.apply(DeliveryEvent::Lost, Standing::default(), now, &Policy::DEFAULT)
                {
                    save(&mut tx, *seq, &delivery).await?;
                    targets::refresh(&mut tx, registry, target).await?;
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
    let target: &str = row.try_get("target").during(READ)?;
    // Only answers change how a target stands.
    let standing = Standing::default();
    let claimed = match readable(&row) {
        Ok(Some(claimed)) => claimed,
        // Without an address nobody can be told: its webhook went away in this moment.
        Ok(None) => return Ok(None),
        Err(error) => {
            // It would stop what is behind it, and everybody else's. A newer release may have queued it.
            if let Ok((dropped, _)) = delivery.apply(DeliveryEvent::Dropped, standing, now, &Policy::DEFAULT) {
                save(tx, seq, &dropped).await?;
                say(tx, seq, now, None, &format!("given up: this release can't read it: {error}")).await?;
                targets::refresh(tx, registry, target).await?;
            }
            return Ok(None);
        }
    };
    let Ok((delivery, _)) = delivery.apply(DeliveryEvent::Begun, standing, now, &Policy::DEFAULT) else {
        return Ok(None);
    };
    save(tx, seq, &delivery).await?;
    targets::refresh(tx, registry, target).await?;
    Ok(Some(Claimed { seq, number: delivery.tries, ..claimed }))
}

/// What a row says, without its number and its place.
fn readable(row: &SqliteRow) -> Result<Option<Claimed>, StoreError> {
    let sealed: Option<Vec<u8>> = row.try_get("sealed").during(READ)?;
    let target = parse_target(row.try_get("target").during(READ)?)?;
    if sealed.is_none() && matches!(target, Target::Webhook(_)) {
        return Ok(None);
    }
    Ok(Some(Claimed {
        seq: 0,
        target,
        number: 0,
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
    let target: &str = row.try_get("target").during(READ)?;
    let standing = targets::standing(tx, registry, target).await?;
    let event = DeliveryEvent::Ended { number, answer, spread };
    let Ok((delivery, standing)) = delivery.apply(event, standing, now, &Policy::DEFAULT) else { return Ok(None) };
    save(tx, seq, &delivery).await?;
    say(tx, seq, now, status, &said).await?;
    if matches!(delivery.state, State::Failed { .. }) && standing.failures > 0 {
        // The next one has the target's patience to begin with.
        let pause = standing.pause(spread, &Policy::DEFAULT);
        targets::hold(tx, registry, target, now.after(pause)).await?;
    }
    targets::stands(tx, registry, target, standing).await?;
    Ok(Some(delivery))
}

/// Writes down what came of the newest try.
async fn say(
    tx: &mut SqliteConnection,
    seq: i64,
    now: Timestamp,
    status: Option<u16>,
    said: &str,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE outbox SET last_at = ?2, last_status = ?3, last_said = ?4 WHERE seq = ?1")
        .bind(seq)
        .bind(now.as_micros())
        .bind(status)
        .bind(said)
        .execute(tx)
        .await
        .map(drop)
        .during(WRITE)
}

/// A delivery that has not been forgotten, and its row with what it takes to make it.
async fn load(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    seq: i64,
) -> Result<Option<(Delivery, SqliteRow)>, StoreError> {
    let row = sqlx::query(
        "SELECT o.target, o.event, o.action, o.body, o.queued, o.state, o.at, o.tries, o.refusals, w.sealed
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
    sqlx::query("UPDATE outbox SET state = ?2, at = ?3, tries = ?4, refusals = ?5 WHERE seq = ?1")
        .bind(seq)
        .bind(state)
        .bind(at.as_micros())
        .bind(delivery.tries)
        .bind(delivery.refusals)
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
    let (tries, refusals) = (row.try_get("tries").during(READ)?, row.try_get("refusals").during(READ)?);
    Ok(Delivery { queued, tries, refusals, state })
}

/// A target's name in its column.
pub(crate) fn target_column(target: &Target) -> String {
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
