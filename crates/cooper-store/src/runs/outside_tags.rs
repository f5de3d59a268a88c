//! Turns at tags of other registries, and which run of a task has moved them last (decision 0061).

use async_trait::async_trait;
use cooper_engine::task::TagOrder;
use cooper_ports::outside_tags::{OutsideTagStore, TagClaim, TagTurn};
use cooper_ports::runs::AttemptError;
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, ImageRef, RegistryId, RunId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::contexts::run_number;
use crate::logs::append::is_live;
use crate::sql_error::{During, Stored};

const CLAIM: &str = "take a turn at a tag";
const END: &str = "end a turn at a tag";
const PRUNE: &str = "forget turns at tags";

/// The run of another attempt of the task that moves the tag now. One that is over moves nothing any more.
const TAKEN: &str = "SELECT o.moving FROM outside_tags o
     WHERE o.registry_id = ?1 AND o.task = ?2 AND o.image = ?3 AND (o.moving, o.attempt) <> (?4, ?5) AND EXISTS (
         SELECT 1 FROM live_attempts l
         WHERE l.registry_id = ?1 AND l.run_number = o.moving AND l.attempt = o.attempt)
     LIMIT 1";

/// Those that no run moves now, and that no older run can want to move any more.
const OVER: &str = "SELECT o.task, o.image, o.line, o.moved_by, o.moving, o.attempt FROM outside_tags o
     WHERE o.registry_id = ?1 AND NOT EXISTS (
         SELECT 1 FROM live_attempts l
         WHERE l.registry_id = ?1 AND l.run_number = o.moving AND l.attempt = o.attempt)
     AND NOT EXISTS (
         SELECT 1 FROM runs r INDEXED BY runs_unfinished_of_task
         WHERE r.registry_id = ?1 AND r.task = o.task AND r.number < o.moved_by AND r.finished IS NULL)
     LIMIT ?2";

#[async_trait]
impl OutsideTagStore for Store {
    async fn claim_tags(&self, claim: TagClaim) -> Result<TagTurn, AttemptError> {
        let registry = self.registry_id();
        // Who waits asks often, and writes nothing as long as that is of no use.
        let mut connection = self.readers().acquire().await.during(CLAIM).map_err(AttemptError::Store)?;
        if let Some(by) = taken(&mut connection, registry, &claim).await? {
            return Ok(TagTurn::Taken { by });
        }
        drop(connection);
        self.write(async move |mut tx| claimed(&mut tx, registry, &claim).await).await
    }
}

async fn claimed(tx: &mut SqliteConnection, registry: RegistryId, claim: &TagClaim) -> Result<TagTurn, AttemptError> {
    // All or nothing: who had some and waited for others would have others wait for those.
    if let Some(by) = taken(tx, registry, claim).await? {
        return Ok(TagTurn::Taken { by });
    }
    let mut newer = Vec::new();
    for image in &claim.images {
        match newer_run(tx, registry, claim.run, &claim.order, image).await? {
            Some(by) => newer.push((image.clone(), by)),
            None => take(tx, registry, claim, image).await?,
        }
    }
    Ok(TagTurn::Granted { newer })
}

/// The run that moves one of a live attempt's tags now.
async fn taken(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    claim: &TagClaim,
) -> Result<Option<RunId>, AttemptError> {
    if !is_live(connection, registry, claim.run, claim.attempt).await? {
        return Err(AttemptError::NotLive { run: claim.run, attempt: claim.attempt });
    }
    for image in &claim.images {
        let taken: Option<i64> = sqlx::query_scalar(TAKEN)
            .bind(registry.0)
            .bind(claim.order.task.key())
            .bind(image.to_string())
            .bind(run_number(claim.run))
            .bind(i64::try_from(claim.attempt.0).stored(CLAIM)?)
            .fetch_optional(&mut *connection)
            .await
            .during(CLAIM)?;
        if let Some(by) = taken {
            return Ok(Some(run_id(by, CLAIM)?));
        }
    }
    Ok(None)
}

/// The newer run of the order that a tag is left to.
async fn newer_run(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    order: &TagOrder,
    image: &ImageRef,
) -> Result<Option<RunId>, StoreError> {
    if !order.yields {
        return Ok(None);
    }
    let last: Option<i64> = sqlx::query_scalar(
        "SELECT max(moved_by) FROM outside_tags
         WHERE registry_id = ?1 AND task = ?2 AND image = ?3 AND line IN (?4, '')",
    )
    .bind(registry.0)
    .bind(order.task.key())
    .bind(image.to_string())
    .bind(&order.line)
    .fetch_one(tx)
    .await
    .during(CLAIM)?;
    last.filter(|last| *last > run_number(run)).map(|last| run_id(last, CLAIM)).transpose()
}

/// The run moves a tag now. Of a task that is gone nothing is kept.
async fn take(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    claim: &TagClaim,
    image: &ImageRef,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO outside_tags (registry_id, task, image, line, moving, attempt)
         SELECT registry_id, task, ?3, ?4, ?5, ?6 FROM tasks WHERE registry_id = ?1 AND task = ?2
         ON CONFLICT DO UPDATE SET moving = excluded.moving, attempt = excluded.attempt",
    )
    .bind(registry.0)
    .bind(claim.order.task.key())
    .bind(image.to_string())
    .bind(&claim.order.line)
    .bind(run_number(claim.run))
    .bind(i64::try_from(claim.attempt.0).stored(CLAIM)?)
    .execute(tx)
    .await
    .map(drop)
    .during(CLAIM)
}

/// An attempt is over, and so are its turns. What it has moved is written down.
pub(super) async fn attempt_ended(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    attempt: AttemptNumber,
    moved: &[ImageRef],
) -> Result<(), StoreError> {
    let number = i64::try_from(attempt.0).stored(END)?;
    for image in moved {
        sqlx::query(
            "UPDATE outside_tags INDEXED BY outside_tags_moving SET moved_by = max(coalesce(moved_by, 0), ?2)
             WHERE registry_id = ?1 AND moving = ?2 AND attempt = ?3 AND image = ?4",
        )
        .bind(registry.0)
        .bind(run_number(run))
        .bind(number)
        .bind(image.to_string())
        .execute(&mut *tx)
        .await
        .during(END)?;
    }
    sqlx::query(
        "UPDATE outside_tags INDEXED BY outside_tags_moving SET moving = NULL, attempt = NULL
         WHERE registry_id = ?1 AND moving = ?2 AND attempt = ?3",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(number)
    .execute(tx)
    .await
    .map(drop)
    .during(END)
}

/// What may be forgotten, up to a limit.
pub(crate) async fn over(store: &Store, limit: u32) -> Result<Vec<SqliteRow>, StoreError> {
    sqlx::query(OVER).bind(store.registry_id().0).bind(limit).fetch_all(store.readers()).await.during(PRUNE)
}

/// Forgets one of those, unless it has changed meanwhile.
pub(crate) async fn forget(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    row: &SqliteRow,
) -> Result<u64, StoreError> {
    let gone = sqlx::query(
        "DELETE FROM outside_tags WHERE registry_id = ?1 AND task = ?2 AND image = ?3 AND line = ?4
         AND moved_by IS ?5 AND moving IS ?6 AND attempt IS ?7",
    )
    .bind(registry.0)
    .bind(row.try_get::<&str, _>("task").during(PRUNE)?)
    .bind(row.try_get::<&str, _>("image").during(PRUNE)?)
    .bind(row.try_get::<&str, _>("line").during(PRUNE)?)
    .bind(row.try_get::<Option<i64>, _>("moved_by").during(PRUNE)?)
    .bind(row.try_get::<Option<i64>, _>("moving").during(PRUNE)?)
    .bind(row.try_get::<Option<i64>, _>("attempt").during(PRUNE)?)
    .execute(tx)
    .await
    .during(PRUNE)?;
    Ok(gone.rows_affected())
}

fn run_id(number: i64, during: &'static str) -> Result<RunId, StoreError> {
    Ok(RunId::from_number(u64::try_from(number).stored(during)?))
}

#[cfg(test)]
mod tests;
