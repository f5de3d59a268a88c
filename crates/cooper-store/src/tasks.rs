//! Stored tasks in SQLite, with their secrets and credentials, which arrive sealed.

mod branches;
pub(crate) mod hooks;
pub(crate) mod statuses;
pub(crate) mod timers;

use std::collections::BTreeMap;

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_ports::runs::{SealedSecret, SecretKind};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{Fired, Firing, Instant, PutTask, PutTaskError, TaskCredential, TaskRecord, TaskStore};
use cooper_types::{RegistryId, SourceHost, TaskName, TimerName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::access::ensure_principal;
use crate::sql_error::{During, Stored, UnknownValue};
use crate::{Store, agents};

const WRITE: &str = "write task";
const READ: &str = "read task";
const DELETE: &str = "delete task";

#[async_trait]
impl TaskStore for Store {
    async fn put_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError> {
        // The instants of timers are found by the clock that they follow.
        let (registry, clock) = (self.registry_id(), self.wall_clock().clone());
        self.write(async move |mut tx| self::put(&mut tx, registry, clock.now(), put).await).await
    }

    async fn find_task(&self, name: &TaskName) -> Result<Option<TaskRecord>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        Ok(list(&mut tx, self.registry_id(), Some(name)).await?.pop())
    }

    async fn list_tasks(&self) -> Result<Vec<TaskRecord>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        list(&mut tx, self.registry_id(), None).await
    }

    async fn delete_task(&self, name: &TaskName) -> Result<bool, StoreError> {
        let (registry, key) = (self.registry_id(), name.key());
        self.write(async move |mut tx| {
            let deleted = sqlx::query("DELETE FROM tasks WHERE registry_id = ?1 AND task = ?2")
                .bind(registry.0)
                .bind(&key)
                .execute(&mut *tx)
                .await
                .during(DELETE)?;
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn task_secrets(&self, name: &TaskName) -> Result<Vec<SealedSecret>, StoreError> {
        let rows = sqlx::query("SELECT kind, name, sealed FROM task_secrets WHERE registry_id = ?1 AND task = ?2")
            .bind(self.registry_id().0)
            .bind(name.key())
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let secrets = rows.iter().map(|row| {
            let kind: &str = row.try_get("kind").during(READ)?;
            let known = SecretKind::ALL.into_iter().find(|known| known.as_str() == kind);
            Ok(SealedSecret {
                kind: known.ok_or_else(|| UnknownValue::new("kind of secret", kind)).stored(READ)?,
                name: row.try_get("name").during(READ)?,
                sealed: row.try_get("sealed").during(READ)?,
            })
        });
        secrets.collect()
    }

    async fn put_task_credential(
        &self,
        name: &TaskName,
        host: &SourceHost,
        username: String,
        sealed: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let (registry, key, host, now) = (self.registry_id(), name.key(), host.clone(), self.clock().now());
        self.write(async move |mut tx| {
            let put = sqlx::query(
                "INSERT INTO task_credentials (registry_id, task, host, username, sealed, updated)
                 SELECT registry_id, task, ?3, ?4, ?5, ?6 FROM tasks WHERE registry_id = ?1 AND task = ?2
                 ON CONFLICT (registry_id, task, host) DO UPDATE
                 SET username = excluded.username, sealed = excluded.sealed, updated = excluded.updated",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(host.as_str())
            .bind(&username)
            .bind(&sealed)
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            Ok(put.rows_affected() > 0)
        })
        .await
    }

    async fn delete_task_credential(&self, name: &TaskName, host: &SourceHost) -> Result<bool, StoreError> {
        let (registry, key, host) = (self.registry_id(), name.key(), host.clone());
        self.write(async move |mut tx| {
            let deleted =
                sqlx::query("DELETE FROM task_credentials WHERE registry_id = ?1 AND task = ?2 AND host = ?3")
                    .bind(registry.0)
                    .bind(&key)
                    .bind(host.as_str())
                    .execute(&mut *tx)
                    .await
                    .during(DELETE)?;
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn due_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Instant>, StoreError> {
        timers::due(self, until, limit).await
    }

    async fn next_timer(&self) -> Result<Option<Timestamp>, StoreError> {
        timers::next(self).await
    }

    async fn pass_instant(&self, firing: &Firing, why_not: &str) -> Result<bool, StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        let (firing, why_not) = (firing.clone(), why_not.to_owned());
        self.write(async move |mut tx| timers::moved(&mut tx, registry, now, &firing, Err(&why_not)).await).await
    }

    async fn waiting_runs(&self, name: &TaskName, timer: &TimerName, limit: u32) -> Result<u32, StoreError> {
        timers::waiting_runs(self, name, timer, limit).await
    }

    async fn list_fired(&self, name: &TaskName, limit: u32) -> Result<Vec<Fired>, StoreError> {
        timers::fired(self, name, limit).await
    }
}

async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    put: PutTask,
) -> Result<TaskRecord, PutTaskError> {
    let PutTask { task, secrets, all_secrets, replaces, hooks } = put;
    let key = task.name.key();
    if !agents::pool_exists(tx, registry, &task.pool).await? {
        return Err(PutTaskError::UnknownPool(task.pool));
    }
    ensure_principal(tx, registry, &task.principal, now).await?;
    let state = serde_json::to_string(&task).stored(WRITE)?;
    let earlier = find(tx, registry, &key).await?;
    let generation = i64::try_from(task.generation).unwrap_or(i64::MAX);
    match (&earlier, replaces) {
        (Some(_), None) => return Err(PutTaskError::Exists(task.name)),
        (Some(earlier), Some(replaced)) if earlier.generation == replaced => sqlx::query(
            "UPDATE tasks SET state = ?3, generation = ?4, principal = ?5 WHERE registry_id = ?1 AND task = ?2",
        ),
        (_, Some(_)) => return Err(PutTaskError::Changed(task.name)),
        (None, None) => sqlx::query(
            "INSERT INTO tasks (registry_id, task, state, generation, principal) VALUES (?1, ?2, ?3, ?4, ?5)",
        ),
    }
    .bind(registry.0)
    .bind(&key)
    .bind(state)
    .bind(generation)
    .bind(task.principal.as_str())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    for secret in &secrets {
        sqlx::query(
            "INSERT INTO task_secrets (registry_id, task, kind, name, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (registry_id, task, kind, name) DO UPDATE SET sealed = excluded.sealed",
        )
        .bind(registry.0)
        .bind(&key)
        .bind(secret.kind.as_str())
        .bind(&secret.name)
        .bind(&secret.sealed)
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    }
    keep_secrets(tx, registry, &key, &all_secrets).await?;
    timers::put(tx, registry, now, &task, earlier.as_ref()).await?;
    hooks::put(tx, registry, now, &task, &hooks).await?;
    let mut found = list(tx, registry, Some(&task.name)).await?;
    found.pop().ok_or(PutTaskError::Changed(task.name))
}

/// Forgets what the task has no longer, and makes sure that it has the rest.
async fn keep_secrets(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    key: &str,
    all: &std::collections::BTreeSet<(SecretKind, String)>,
) -> Result<(), PutTaskError> {
    let rows = sqlx::query("SELECT kind, name FROM task_secrets WHERE registry_id = ?1 AND task = ?2")
        .bind(registry.0)
        .bind(key)
        .fetch_all(&mut *tx)
        .await
        .during(WRITE)?;
    let mut missing = all.clone();
    for row in rows {
        let (kind, name): (String, String) = (row.try_get("kind").during(WRITE)?, row.try_get("name").during(WRITE)?);
        let known = SecretKind::ALL.into_iter().find(|known| known.as_str() == kind);
        if known.is_some_and(|kind| missing.remove(&(kind, name.clone()))) {
            continue;
        }
        sqlx::query("DELETE FROM task_secrets WHERE registry_id = ?1 AND task = ?2 AND kind = ?3 AND name = ?4")
            .bind(registry.0)
            .bind(key)
            .bind(kind)
            .bind(name)
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
    }
    match missing.pop_first() {
        Some((_, name)) => Err(PutTaskError::NoValue(name)),
        None => Ok(()),
    }
}

async fn find(tx: &mut SqliteConnection, registry: RegistryId, key: &str) -> Result<Option<Task>, StoreError> {
    let state: Option<String> = sqlx::query_scalar("SELECT state FROM tasks WHERE registry_id = ?1 AND task = ?2")
        .bind(registry.0)
        .bind(key)
        .fetch_optional(tx)
        .await
        .during(READ)?;
    state.map(|state| serde_json::from_str(&state).stored(READ)).transpose()
}

/// The tasks by name, or the one of this name.
async fn list(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    only: Option<&TaskName>,
) -> Result<Vec<TaskRecord>, StoreError> {
    let only = only.map(TaskName::key);
    let rows = sqlx::query(
        "SELECT task, host, username, updated FROM task_credentials
         WHERE registry_id = ?1 AND (?2 IS NULL OR task = ?2) ORDER BY host",
    )
    .bind(registry.0)
    .bind(&only)
    .fetch_all(&mut *tx)
    .await
    .during(READ)?;
    let mut credentials: BTreeMap<String, Vec<TaskCredential>> = BTreeMap::new();
    for row in rows {
        credentials.entry(row.try_get("task").during(READ)?).or_default().push(TaskCredential {
            host: SourceHost::parse(row.try_get("host").during(READ)?).stored(READ)?,
            username: row.try_get("username").during(READ)?,
            updated: Timestamp::from_micros(row.try_get("updated").during(READ)?),
        });
    }
    let rows = sqlx::query(
        "SELECT task, timer, next FROM task_timers
         WHERE registry_id = ?1 AND (?2 IS NULL OR task = ?2) AND next IS NOT NULL",
    )
    .bind(registry.0)
    .bind(&only)
    .fetch_all(&mut *tx)
    .await
    .during(READ)?;
    let mut next: BTreeMap<String, BTreeMap<TimerName, Timestamp>> = BTreeMap::new();
    for row in rows {
        let timer = TimerName::parse(row.try_get("timer").during(READ)?).stored(READ)?;
        let instant = Timestamp::from_micros(row.try_get("next").during(READ)?);
        next.entry(row.try_get("task").during(READ)?).or_default().insert(timer, instant);
    }
    let mut hooks = hooks::all(tx, registry, only.as_deref()).await?;
    let rows =
        sqlx::query("SELECT task, state FROM tasks WHERE registry_id = ?1 AND (?2 IS NULL OR task = ?2) ORDER BY task")
            .bind(registry.0)
            .bind(&only)
            .fetch_all(&mut *tx)
            .await
            .during(READ)?;
    let records = rows.iter().map(|row| {
        let key: &str = row.try_get("task").during(READ)?;
        Ok(TaskRecord {
            task: serde_json::from_str(row.try_get("state").during(READ)?).stored(READ)?,
            credentials: credentials.remove(key).unwrap_or_default(),
            next: next.remove(key).unwrap_or_default(),
            hooks: hooks.remove(key).unwrap_or_default(),
        })
    });
    records.collect()
}
