//! Stored tasks in SQLite, with their secrets and credentials, which arrive sealed.

pub(crate) mod hooks;
mod references;
mod registrations;
mod removal;
pub(crate) mod statuses;
pub(crate) mod timers;

use std::collections::BTreeMap;

use async_trait::async_trait;
use cooper_engine::task::{Task, TaskEndpoint};
use cooper_ports::outbox::Target;
use cooper_ports::runs::{SealedSecret, SecretKind};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{
    Fired, Firing, Instant, MAX_TASK_BYTES, MAX_TASKS, PutTask, PutTaskError, TaskCredential, TaskRecord, TaskStore,
};
use cooper_types::{PrincipalName, RegistryId, SourceHost, TaskName, TimerName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::access::ensure_principal;
use crate::sql_error::{During, Stored, UnknownValue};
use crate::{Store, agents, outbox};

const WRITE: &str = "write task";
const READ: &str = "read task";
const DELETE: &str = "delete task";
/// From an index that has nothing else.
const CLEAR_ENDPOINTS: &str = "SELECT task FROM tasks INDEXED BY tasks_with_clear_endpoints
     WHERE registry_id = ?1 AND json_type(state, '$.base_image.endpoint') = 'text' AND task > ?2 ORDER BY task LIMIT ?3";
/// After so many bytes of tasks a page of them ends.
const PAGE_BYTES: i64 = 8 << 20;

#[async_trait]
impl TaskStore for Store {
    async fn put_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError> {
        // The instants of timers are found by the clock that they follow.
        let (registry, clock, sending) = (self.registry_id(), self.wall_clock().clone(), self.clock().clone());
        let times = move || (clock.now(), sending.now());
        let kept = self.write(async move |mut tx| self::put(&mut tx, registry, times(), put).await).await;
        self.something_queued();
        kept
    }

    async fn try_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError> {
        let (registry, clock, wall) = (self.registry_id(), self.clock().clone(), self.wall_clock().clone());
        let tried: Result<(), Tried> = self
            .write(async move |mut tx| match self::put(&mut tx, registry, (wall.now(), clock.now()), put).await {
                // An error takes everything back.
                Ok(record) => Err(Tried::Fits(Box::new(record))),
                Err(error) => Err(Tried::Fails(error)),
            })
            .await;
        match tried {
            Err(Tried::Fits(record)) => Ok(*record),
            Err(Tried::Fails(error)) => Err(error),
            Ok(()) => Err(StoreError::Panicked.into()),
        }
    }

    async fn task(&self, name: &TaskName) -> Result<Option<Task>, StoreError> {
        let mut reader = self.readers().acquire().await.during(READ)?;
        find(&mut reader, self.registry_id(), &name.key()).await
    }

    async fn find_task(&self, name: &TaskName) -> Result<Option<TaskRecord>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        Ok(list(&mut tx, self.registry_id(), &Which::Named(name)).await?.pop())
    }

    async fn list_tasks(&self, after: Option<&TaskName>, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        list(&mut tx, self.registry_id(), &Which::After(after, limit)).await
    }

    async fn clear_endpoints(&self, after: Option<&TaskName>, limit: u32) -> Result<Vec<TaskName>, StoreError> {
        let keys: Vec<String> = sqlx::query_scalar(CLEAR_ENDPOINTS)
            .bind(self.registry_id().0)
            .bind(after.map(TaskName::key).unwrap_or_default())
            .bind(limit)
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        keys.iter().map(|key| TaskName::parse(key).stored(READ)).collect()
    }

    async fn seal_endpoint(&self, task: &Task, endpoint: &TaskEndpoint) -> Result<bool, StoreError> {
        let (registry, key, generation) = (self.registry_id(), task.name.key(), task.generation);
        let (created, endpoint) = (task.created, serde_json::to_string(endpoint).stored(WRITE)?);
        self.write(async move |mut tx| {
            if !is_there(&mut tx, registry, &key, created).await? {
                return Ok(false);
            }
            let sealed = sqlx::query(
                "UPDATE tasks SET state = json_set(state, '$.base_image.endpoint', json(?4))
                 WHERE registry_id = ?1 AND task = ?2 AND generation = ?3
                   AND json_type(state, '$.base_image.endpoint') = 'text'",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(i64::try_from(generation).unwrap_or(i64::MAX))
            .bind(&endpoint)
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            Ok(sealed.rows_affected() > 0)
        })
        .await
    }

    async fn delete_task(&self, task: &Task) -> Result<bool, StoreError> {
        let (registry, key, created, now) = (self.registry_id(), task.name.key(), task.created, self.clock().now());
        if !removal::clear(self, &key, created).await? {
            return Ok(false);
        }
        self.write(async move |mut tx| {
            if !is_there(&mut tx, registry, &key, created).await? {
                return Ok(false);
            }
            registrations::remove_all(&mut tx, registry, now, &key).await?;
            let deleted = sqlx::query("DELETE FROM tasks WHERE registry_id = ?1 AND task = ?2")
                .bind(registry.0)
                .bind(&key)
                .execute(&mut *tx)
                .await
                .during(DELETE)?;
            // A task of the same name would be somebody else's.
            outbox::targets::deleted(&mut tx, registry, &outbox::target_column(&Target::UpdateTrigger(key))).await?;
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn task_secrets(&self, task: &Task) -> Result<Vec<SealedSecret>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        if !is_there(&mut tx, self.registry_id(), &task.name.key(), task.created).await? {
            return Ok(Vec::new());
        }
        let rows = sqlx::query("SELECT kind, name, sealed FROM task_secrets WHERE registry_id = ?1 AND task = ?2")
            .bind(self.registry_id().0)
            .bind(task.name.key())
            .fetch_all(&mut *tx)
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
        task: &Task,
        host: &SourceHost,
        username: String,
        sealed: Vec<u8>,
    ) -> Result<bool, StoreError> {
        let (registry, key, host, now) = (self.registry_id(), task.name.key(), host.clone(), self.clock().now());
        let created = task.created;
        self.write(async move |mut tx| {
            if !is_there(&mut tx, registry, &key, created).await? {
                return Ok(false);
            }
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
            registrations::unblocked(&mut tx, registry, now, &key, &host).await?;
            Ok(put.rows_affected() > 0)
        })
        .await
    }

    async fn delete_task_credential(&self, task: &Task, host: &SourceHost) -> Result<bool, StoreError> {
        let (registry, key, host, created) = (self.registry_id(), task.name.key(), host.clone(), task.created);
        self.write(async move |mut tx| {
            if !is_there(&mut tx, registry, &key, created).await? {
                return Ok(false);
            }
            registrations::token_gone(&mut tx, registry, &key, &host).await?;
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

    async fn next_timer(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        timers::next(self, after).await
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

/// How a trial went: never well enough to be kept.
enum Tried {
    Fits(Box<TaskRecord>),
    Fails(PutTaskError),
}

impl From<StoreError> for Tried {
    fn from(error: StoreError) -> Self {
        Self::Fails(error.into())
    }
}

async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    // By the clock of timers, and by that of what is sent.
    (now, sent): (Timestamp, Timestamp),
    put: PutTask,
) -> Result<TaskRecord, PutTaskError> {
    let PutTask { task, secrets, all_secrets, replaces, hooks, registrations } = put;
    let key = task.name.key();
    match agents::pool_mark(tx, registry, &task.pool).await? {
        None => return Err(PutTaskError::UnknownPool(task.pool)),
        Some(true) => return Err(PutTaskError::PoolForStrangers(task.pool)),
        Some(false) => {}
    }
    ensure_principal(tx, registry, &task.principal, now).await?;
    let state = serde_json::to_string(&task).stored(WRITE)?;
    let earlier = find(tx, registry, &key).await?;
    if state.len() > MAX_TASK_BYTES {
        // An older release took what it liked: that can be changed, and does not grow.
        let before =
            earlier.as_ref().map(serde_json::to_string).transpose().stored(WRITE)?.map_or(0, |text| text.len());
        if state.len() > before.max(MAX_TASK_BYTES) {
            return Err(PutTaskError::TooLarge { task: task.name, size: state.len(), max: MAX_TASK_BYTES });
        }
    }
    if earlier.is_none() && replaces.is_none() {
        few(tx, registry, &task.principal).await?;
    }
    let generation = i64::try_from(task.generation).unwrap_or(i64::MAX);
    match (&earlier, replaces) {
        (Some(_), None) => return Err(PutTaskError::Exists(task.name)),
        (Some(earlier), Some(replaced)) if earlier.generation == replaced && earlier.created == task.created => {
            sqlx::query(
                "UPDATE tasks SET state = ?3, generation = ?4, principal = ?5 WHERE registry_id = ?1 AND task = ?2",
            )
        }
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
    let repository = |task: &Task| task.source.as_ref().and_then(|source| source.repository()).map(ToString::to_string);
    if earlier.as_ref().is_some_and(|earlier| repository(earlier) != repository(&task)) {
        references::forget(tx, registry, &key).await?;
    }
    if earlier.is_some_and(|earlier| earlier.base_image.endpoint != task.base_image.endpoint) {
        // What waits for it is tried at the new address, at once.
        let target = outbox::target_column(&Target::UpdateTrigger(key.clone()));
        let host = match &task.base_image.endpoint {
            Some(TaskEndpoint::Sealed { host, .. }) => Some(host.as_str()),
            Some(TaskEndpoint::Plain(_)) | None => None,
        };
        outbox::targets::renewed(tx, registry, &target, host, sent).await?;
    }
    hooks::put(tx, registry, now, &task, &hooks).await?;
    registrations::put(tx, registry, sent, &key, &registrations).await?;
    let mut found = list(tx, registry, &Which::Named(&task.name)).await?;
    found.pop().ok_or(PutTaskError::Changed(task.name))
}

/// Refuses another task of a principal that has many.
async fn few(tx: &mut SqliteConnection, registry: RegistryId, principal: &PrincipalName) -> Result<(), PutTaskError> {
    let count: u32 = sqlx::query_scalar("SELECT count(*) FROM tasks WHERE registry_id = ?1 AND principal = ?2")
        .bind(registry.0)
        .bind(principal.as_str())
        .fetch_one(tx)
        .await
        .during(WRITE)?;
    match count < MAX_TASKS {
        true => Ok(()),
        false => Err(PutTaskError::TooMany { principal: principal.clone(), max: MAX_TASKS }),
    }
}

/// Whether a task is there that was made then: another one may have taken its name.
async fn is_there(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    key: &str,
    created: Timestamp,
) -> Result<bool, StoreError> {
    Ok(find(tx, registry, key).await?.is_some_and(|task| task.created == created))
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

/// Which tasks are read.
enum Which<'a> {
    /// The one of this name.
    Named(&'a TaskName),
    /// So many after this one, or from the first one on.
    After(Option<&'a TaskName>, u32),
}

/// The first and the last task of those that are read. A page of large ones ends early.
async fn range(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    which: &Which<'_>,
) -> Result<Option<(String, String)>, StoreError> {
    let (after, limit) = match which {
        Which::Named(name) => return Ok(Some((name.key(), name.key()))),
        Which::After(after, limit) => (after.map(TaskName::key).unwrap_or_default(), limit),
    };
    // Its length is known without reading a text.
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT task, octet_length(state) FROM tasks WHERE registry_id = ?1 AND task > ?2 ORDER BY task LIMIT ?3",
    )
    .bind(registry.0)
    .bind(after)
    .bind(limit)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let mut bytes = 0;
    let fits = rows.iter().take_while(|(_, size)| {
        let before = bytes;
        bytes += size;
        before < PAGE_BYTES
    });
    let last = fits.last().map(|(key, _)| key.clone());
    Ok(rows.first().map(|(key, _)| key.clone()).zip(last))
}

/// The tasks by name, with everything that is kept of them.
async fn list(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    which: &Which<'_>,
) -> Result<Vec<TaskRecord>, StoreError> {
    let Some((first, last)) = range(tx, registry, which).await? else { return Ok(Vec::new()) };
    let rows = sqlx::query(
        "SELECT task, host, username, updated FROM task_credentials
         WHERE registry_id = ?1 AND task BETWEEN ?2 AND ?3 ORDER BY host",
    )
    .bind(registry.0)
    .bind(&first)
    .bind(&last)
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
         WHERE registry_id = ?1 AND task BETWEEN ?2 AND ?3 AND next IS NOT NULL",
    )
    .bind(registry.0)
    .bind(&first)
    .bind(&last)
    .fetch_all(&mut *tx)
    .await
    .during(READ)?;
    let mut next: BTreeMap<String, BTreeMap<TimerName, Timestamp>> = BTreeMap::new();
    for row in rows {
        let timer = TimerName::parse(row.try_get("timer").during(READ)?).stored(READ)?;
        let instant = Timestamp::from_micros(row.try_get("next").during(READ)?);
        next.entry(row.try_get("task").during(READ)?).or_default().insert(timer, instant);
    }
    let mut hooks = hooks::all(tx, registry, (&first, &last)).await?;
    let rows =
        sqlx::query("SELECT task, state FROM tasks WHERE registry_id = ?1 AND task BETWEEN ?2 AND ?3 ORDER BY task")
            .bind(registry.0)
            .bind(&first)
            .bind(&last)
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
