//! The clean-up of old runs of tasks: their logs first, then all that is known of them.

use cooper_ports::logs::NewFrame;
use cooper_ports::runs::Expired;
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, RunId, Timestamp};
use sqlx::SqliteConnection;

use super::apply::log_written;
use super::record;
use crate::contexts::run_number;
use crate::logs::append::{Author, append, complete};
use crate::sql_error::During;
use crate::tasks::hooks;

const EXPIRE: &str = "remove old runs";

/// The runs whose logs have been kept long enough, from an index alone.
pub(super) const OLD_LOGS: &str = "SELECT number FROM runs INDEXED BY runs_by_log_expiry
     WHERE registry_id = ?1 AND finished + keep_log <= ?2 AND finished IS NOT NULL AND keep_log IS NOT NULL AND archived = 0
     ORDER BY finished + keep_log LIMIT ?3";

/// The runs that have been kept long enough. The newest that succeeded of each task stays: what it stood on is what is known
/// of the task's base images.
pub(super) const OLD_RUNS: &str = "SELECT number FROM runs r INDEXED BY runs_by_expiry
     WHERE registry_id = ?1 AND finished + keep_run <= ?2 AND finished IS NOT NULL AND keep_run IS NOT NULL AND archived = 0
       AND (status <> 'Succeeded' OR EXISTS (
           SELECT 1 FROM runs newer WHERE newer.registry_id = ?1 AND newer.task = r.task AND newer.number > r.number
              AND newer.status = 'Succeeded'))
     ORDER BY finished + keep_run LIMIT ?3";

/// What is kept of a run outside of its own row.
const PARTS: [&str; 8] = [
    "DELETE FROM run_requests WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM run_secrets WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM run_agents WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM live_attempts WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM output_images WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM base_images WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM log_segments WHERE registry_id = ?1 AND run_number = ?2",
    "DELETE FROM log_cursors WHERE registry_id = ?1 AND run_number = ?2",
];

pub(super) async fn expire(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    limit: u32,
) -> Result<Expired, StoreError> {
    let mut expired = Expired::default();
    for number in old(tx, registry, now, limit, OLD_RUNS).await? {
        hooks::run_gone(tx, registry, now, number).await?;
        for part in PARTS.into_iter().chain(["DELETE FROM runs WHERE registry_id = ?1 AND number = ?2"]) {
            sqlx::query(part).bind(registry.0).bind(number).execute(&mut *tx).await.during(EXPIRE)?;
        }
        expired.runs += 1;
    }
    for number in old(tx, registry, now, limit, OLD_LOGS).await? {
        forget_log(tx, registry, now, record::run_id(number)?).await?;
        expired.logs += 1;
    }
    Ok(expired)
}

async fn old(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    limit: u32,
    query: &'static str,
) -> Result<Vec<i64>, StoreError> {
    let numbers = sqlx::query_scalar(query).bind(registry.0).bind(now.as_micros()).bind(limit);
    numbers.fetch_all(tx).await.during(EXPIRE)
}

/// Puts one line in a log's place, which says that it is gone.
async fn forget_log(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    run: RunId,
) -> Result<(), StoreError> {
    for part in [
        "DELETE FROM log_segments WHERE registry_id = ?1 AND run_number = ?2",
        "DELETE FROM log_cursors WHERE registry_id = ?1 AND run_number = ?2",
        "UPDATE runs SET frame_offset = 0, text_offset = 0, log_complete = 0, keep_log = NULL
         WHERE registry_id = ?1 AND number = ?2",
    ] {
        sqlx::query(part).bind(registry.0).bind(run_number(run)).execute(&mut *tx).await.during(EXPIRE)?;
    }
    let line = NewFrame::service(now, "The log of this run was removed after the time for which its task keeps logs.");
    log_written(append(tx, registry, run, Author::Server, vec![line]).await)?;
    log_written(complete(tx, registry, run).await)?;
    Ok(())
}
