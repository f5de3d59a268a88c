//! The next instants of timers, and what became of those that have come.

use cooper_engine::run::RunStatus;
use cooper_engine::task::Task;
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{Fired, Firing, Instant};
use cooper_types::{PrincipalName, RegistryId, RunId, TaskName, TimerName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};

const WRITE: &str = "write timer";
const READ: &str = "read timers";

/// How long it is kept what became of an instant, in microseconds: 30 days.
const KEPT: i64 = 30 * 24 * 3600 * 1_000_000;

/// The longest reason why an instant set off no run, in characters.
const MAX_WHY_NOT: usize = 1000;

/// The timers that are due, from an index alone; a task's name as it is written comes from its state, if that says it.
const DUE: &str = "SELECT t.task, t.timer, t.next, CAST(json_extract(k.state, '$.name') AS TEXT) AS name, k.principal
     FROM task_timers t INDEXED BY task_timers_by_next
     CROSS JOIN tasks k ON k.registry_id = t.registry_id AND k.task = t.task
     WHERE t.registry_id = ?1 AND t.next IS NOT NULL AND t.next <= ?2 ORDER BY t.next LIMIT ?3";

pub(super) async fn due(store: &Store, until: Timestamp, limit: u32) -> Result<Vec<Instant>, StoreError> {
    let rows = sqlx::query(DUE)
        .bind(store.registry_id().0)
        .bind(until.as_micros())
        .bind(limit)
        .fetch_all(store.readers())
        .await
        .during(READ)?;
    let instants = rows.iter().map(|row| {
        let written: Option<&str> = row.try_get("name").during(READ)?;
        // A state that can't be read keeps no other timer from being due.
        let task = match written.map(TaskName::parse) {
            Some(Ok(name)) => name,
            Some(Err(_)) | None => TaskName::parse(row.try_get("task").during(READ)?).stored(READ)?,
        };
        Ok(Instant {
            task,
            timer: TimerName::parse(row.try_get("timer").during(READ)?).stored(READ)?,
            at: Timestamp::from_micros(row.try_get("next").during(READ)?),
            principal: PrincipalName::parse(row.try_get("principal").during(READ)?).stored(READ)?,
        })
    });
    instants.collect()
}

pub(super) async fn next(store: &Store, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT min(next) FROM task_timers INDEXED BY task_timers_by_next
         WHERE registry_id = ?1 AND next IS NOT NULL AND next > ?2",
    )
    .bind(store.registry_id().0)
    .bind(after.as_micros())
    .fetch_one(store.readers())
    .await
    .during(READ)?;
    Ok(next.map(Timestamp::from_micros))
}

/// Writes a task's timers. One that is as it was, in a task that was enabled, keeps its next instant: a change of something
/// else loses none.
pub(super) async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    task: &Task,
    earlier: Option<&Task>,
) -> Result<(), StoreError> {
    let key = task.name.key();
    let names = serde_json::json!(task.timers.keys().collect::<Vec<_>>()).to_string();
    sqlx::query(
        "DELETE FROM task_timers
         WHERE registry_id = ?1 AND task = ?2 AND timer NOT IN (SELECT value FROM json_each(?3))",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(&names)
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query(
        "DELETE FROM timer_firings
         WHERE registry_id = ?1 AND task = ?2 AND timer NOT IN (SELECT value FROM json_each(?3))",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(&names)
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    for (name, timer) in &task.timers {
        let is_as_it_was =
            earlier.is_some_and(|earlier| earlier.enabled == task.enabled && earlier.timers.get(name) == Some(timer));
        if is_as_it_was {
            continue;
        }
        let next = task.enabled.then(|| timer.next_after(now)).flatten();
        sqlx::query(
            "INSERT INTO task_timers (registry_id, task, timer, next) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (registry_id, task, timer) DO UPDATE SET next = excluded.next",
        )
        .bind(registry.0)
        .bind(&key)
        .bind(name.as_str())
        .bind(next.map(Timestamp::as_micros))
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    }
    Ok(())
}

/// Moves a timer on from an instant and writes down what became of that. Nothing happens, and it is told, where the timer
/// does not stand before it, or something has become of it already.
pub(crate) async fn moved(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    firing: &Firing,
    outcome: Result<RunId, &str>,
) -> Result<bool, StoreError> {
    let Firing { instant: Instant { task, timer, at, .. }, next } = firing;
    let key = task.key();
    let moved = sqlx::query(
        "UPDATE task_timers SET next = ?5 WHERE registry_id = ?1 AND task = ?2 AND timer = ?3 AND next = ?4",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(timer.as_str())
    .bind(at.as_micros())
    .bind(next.map(Timestamp::as_micros))
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    let written = sqlx::query(
        "INSERT INTO timer_firings (registry_id, task, timer, instant, at, run_number, why_not)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(timer.as_str())
    .bind(at.as_micros())
    .bind(now.as_micros())
    .bind(outcome.ok().map(run_number))
    .bind(outcome.err().map(|why| why.chars().take(MAX_WHY_NOT).collect::<String>()))
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query("DELETE FROM timer_firings WHERE registry_id = ?1 AND task = ?2 AND timer = ?3 AND instant < ?4")
        .bind(registry.0)
        .bind(&key)
        .bind(timer.as_str())
        .bind(at.as_micros().saturating_sub(KEPT))
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    Ok(written.rows_affected() > 0)
}

pub(super) async fn waiting_runs(
    store: &Store,
    name: &TaskName,
    timer: &TimerName,
    limit: u32,
) -> Result<u32, StoreError> {
    sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT r.status FROM timer_firings f
             JOIN runs r ON r.registry_id = f.registry_id AND r.number = f.run_number
             WHERE f.registry_id = ?1 AND f.task = ?2 AND f.timer = ?3 AND f.run_number IS NOT NULL
             ORDER BY f.instant DESC LIMIT ?4)
         WHERE status = ?5",
    )
    .bind(store.registry_id().0)
    .bind(name.key())
    .bind(timer.as_str())
    .bind(limit)
    .bind(RunStatus::Queued.as_str())
    .fetch_one(store.readers())
    .await
    .during(READ)
}

pub(super) async fn fired(store: &Store, name: &TaskName, limit: u32) -> Result<Vec<Fired>, StoreError> {
    let rows = sqlx::query(
        "SELECT timer, instant, at, run_number, why_not FROM (
             SELECT *, row_number() OVER (PARTITION BY timer ORDER BY instant DESC) AS place FROM timer_firings
             WHERE registry_id = ?1 AND task = ?2)
         WHERE place <= ?3 ORDER BY instant DESC, timer",
    )
    .bind(store.registry_id().0)
    .bind(name.key())
    .bind(limit)
    .fetch_all(store.readers())
    .await
    .during(READ)?;
    let fired = rows.iter().map(|row| {
        let run: Option<i64> = row.try_get("run_number").during(READ)?;
        let why_not: Option<String> = row.try_get("why_not").during(READ)?;
        let outcome = match run {
            Some(number) => Ok(RunId::from_number(u64::try_from(number).stored(READ)?)),
            None => Err(why_not.unwrap_or_default()),
        };
        Ok(Fired {
            timer: TimerName::parse(row.try_get("timer").during(READ)?).stored(READ)?,
            instant: Timestamp::from_micros(row.try_get("instant").during(READ)?),
            at: Timestamp::from_micros(row.try_get("at").during(READ)?),
            outcome,
        })
    });
    fired.collect()
}
