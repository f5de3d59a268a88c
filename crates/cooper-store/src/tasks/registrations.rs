//! Which hooks forges are to have: written with the tasks, hooks and credentials that it follows from.

use async_trait::async_trait;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::registrations::{
    DueRegistration, Registration, RegistrationRecord, RegistrationStore, RegistrationTried,
};
use cooper_ports::statuses::TaskToken;
use cooper_ports::store_error::StoreError;
use cooper_types::{HookId, RegistryId, SourceHost, TaskName, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::sql_error::{During, Stored};

const READ: &str = "read registrations of hooks";
const WRITE: &str = "write registration of hook";

/// So many of one host are read at a time.
const OF_A_HOST: i64 = 4;

const FORGET: &str =
    "DELETE FROM hook_registrations WHERE registry_id = ?1 AND hook = ?2 AND repository = ?3 AND want = ?4";
const TRIED: &str = "UPDATE hook_registrations SET due = ?5, tries = tries + 1, fault = ?6,
                         registered = coalesce(?7, registered), address = coalesce(?8, address)
                     WHERE registry_id = ?1 AND hook = ?2 AND repository = ?3 AND want = ?4";
const SET_ASIDE: &str =
    "UPDATE hook_registrations SET due = NULL, tries = tries + 1, fault = ?5, username = NULL, sealed = NULL
                         WHERE registry_id = ?1 AND hook = ?2 AND repository = ?3 AND want = ?4";
/// What there is a token for is recalled then.
const ADOPT: &str = "INSERT INTO hook_registrations (registry_id, hook, repository, task, provider, host, events, want, due, tries, fault)
     SELECT registry_id, id, ?4, task, provider, ?5, ?6, 1, NULL, 0, 'the task keeps no token for ' || ?5 FROM hooks
     WHERE registry_id = ?1 AND task = ?2 AND provider = ?3
     ON CONFLICT (registry_id, hook, repository) DO NOTHING";
/// `?4` holds the kinds of forges and repositories that stay, as pairs.
const REMOVE: &str = "UPDATE hook_registrations SET removing = 1, want = want + 1, due = ?3, tries = 0, (username, sealed) =
             (SELECT c.username, c.sealed FROM task_credentials c WHERE c.registry_id = ?1 AND c.task = ?2
                 AND c.host = hook_registrations.host)
         WHERE registry_id = ?1 AND task = ?2 AND removing = 0 AND NOT EXISTS
             (SELECT 1 FROM json_each(?4) w JOIN hooks h ON h.provider = w.value ->> 0
              WHERE h.registry_id = ?1 AND h.id = hook_registrations.hook AND w.value ->> 1 = hook_registrations.repository)";

#[async_trait]
impl RegistrationStore for Store {
    async fn due_registrations(&self, until: Timestamp, limit: u32) -> Result<Vec<DueRegistration>, StoreError> {
        let rows = sqlx::query(
            "SELECT hook, repository, task, provider, host, removing, username, sealed, want, tries FROM
                 (SELECT *, row_number() OVER (PARTITION BY host ORDER BY due) AS place
                  FROM hook_registrations INDEXED BY hook_registrations_by_due
                  WHERE registry_id = ?1 AND due IS NOT NULL AND due <= ?2)
             WHERE place <= ?4 ORDER BY due LIMIT ?3",
        )
        .bind(self.registry_id().0)
        .bind(until.as_micros())
        .bind(limit)
        .bind(OF_A_HOST)
        .fetch_all(self.readers())
        .await
        .during(READ)?;
        let (mut found, mut unreadable) = (Vec::new(), Vec::new());
        for row in &rows {
            match due(row) {
                Ok(due) => found.push(due),
                // Another release's, say: the others are not kept up by it.
                Err(_) => unreadable.push((
                    row.try_get::<String, _>("hook").during(READ)?,
                    row.try_get::<String, _>("repository").during(READ)?,
                    row.try_get::<i64, _>("want").during(READ)?,
                )),
            }
        }
        if !unreadable.is_empty() {
            set_aside(self, unreadable).await?;
        }
        Ok(found)
    }

    async fn next_registration(&self) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(due) FROM hook_registrations INDEXED BY hook_registrations_by_due
             WHERE registry_id = ?1 AND due IS NOT NULL",
        )
        .bind(self.registry_id().0)
        .fetch_one(self.readers())
        .await
        .during(READ)?;
        Ok(next.map(Timestamp::from_micros))
    }

    async fn registration_tried(&self, tried: &DueRegistration, became: RegistrationTried) -> Result<(), StoreError> {
        let (registry, tried, now) = (self.registry_id(), tried.clone(), self.clock().now());
        self.write(async move |mut tx| {
            let (registered, again, address, fault) = match &became {
                RegistrationTried::Forgotten => {
                    return sqlx::query(FORGET)
                        .bind(registry.0)
                        .bind(tried.hook.as_str())
                        .bind(&tried.repository)
                        .bind(tried.want)
                        .execute(&mut *tx)
                        .await
                        .map(drop)
                        .during(WRITE);
                }
                RegistrationTried::Registered { address } => (Some(now), None, Some(address), None),
                RegistrationTried::Again { at, fault } => (None, Some(*at), None, Some(fault)),
                RegistrationTried::Refused { fault } => (None, None, None, Some(fault)),
            };
            sqlx::query(TRIED)
                .bind(registry.0)
                .bind(tried.hook.as_str())
                .bind(&tried.repository)
                .bind(tried.want)
                .bind(again.map(Timestamp::as_micros))
                .bind(fault)
                .bind(registered.map(Timestamp::as_micros))
                .bind(address)
                .execute(&mut *tx)
                .await
                .map(drop)
                .during(WRITE)
        })
        .await
    }

    async fn adopt_registrations(&self, tasks: Vec<(TaskName, Vec<Registration>)>) -> Result<(), StoreError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            for (task, wanted) in &tasks {
                for Registration { provider, repository, host, events } in wanted {
                    sqlx::query(ADOPT)
                        .bind(registry.0)
                        .bind(task.key())
                        .bind(provider.as_str())
                        .bind(repository)
                        .bind(host.as_str())
                        .bind(events)
                        .execute(&mut *tx)
                        .await
                        .during(WRITE)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn recall_registrations(&self, address: &str) -> Result<(), StoreError> {
        let (registry, now, address) = (self.registry_id(), self.clock().now(), address.to_owned());
        self.write(async move |mut tx| {
            sqlx::query(
                "UPDATE hook_registrations SET want = want + 1, due = ?2, tries = 0
                 WHERE registry_id = ?1 AND due IS NULL AND removing = 0 AND (address IS NOT ?3 OR fault IS NOT NULL)
                   AND EXISTS (SELECT 1 FROM task_credentials c WHERE c.registry_id = ?1
                                 AND c.task = hook_registrations.task AND c.host = hook_registrations.host)",
            )
            .bind(registry.0)
            .bind(now.as_micros())
            .bind(&address)
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(WRITE)
        })
        .await
    }

    async fn registrations_of(&self, task: &TaskName) -> Result<Vec<RegistrationRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT hook, repository, removing, due, registered, fault FROM hook_registrations
             WHERE registry_id = ?1 AND task = ?2 ORDER BY hook, removing, repository",
        )
        .bind(self.registry_id().0)
        .bind(task.key())
        .fetch_all(self.readers())
        .await
        .during(READ)?;
        let records = rows.iter().map(|row| {
            let time = |column: &str| -> Result<Option<Timestamp>, StoreError> {
                Ok(row.try_get::<Option<i64>, _>(column).during(READ)?.map(Timestamp::from_micros))
            };
            Ok(RegistrationRecord {
                hook: HookId::parse(row.try_get("hook").during(READ)?).stored(READ)?,
                repository: row.try_get("repository").during(READ)?,
                removing: row.try_get("removing").during(READ)?,
                due: time("due")?,
                registered: time("registered")?,
                fault: row.try_get("fault").during(READ)?,
            })
        });
        records.collect()
    }
}

/// Leaves rows that can't be read until something changes, with that for a reason. A token that was kept to remove the hook is
/// shown to nobody any more, and so not kept.
async fn set_aside(store: &Store, rows: Vec<(String, String, i64)>) -> Result<(), StoreError> {
    let registry = store.registry_id();
    store
        .write(async move |mut tx| {
            for (hook, repository, want) in &rows {
                sqlx::query(SET_ASIDE)
                    .bind(registry.0)
                    .bind(hook)
                    .bind(repository)
                    .bind(want)
                    .bind("what is kept of it can't be read by this release")
                    .execute(&mut *tx)
                    .await
                    .during(WRITE)?;
            }
            Ok(())
        })
        .await
}

fn due(row: &SqliteRow) -> Result<DueRegistration, StoreError> {
    let username: Option<String> = row.try_get("username").during(READ)?;
    let sealed: Option<Vec<u8>> = row.try_get("sealed").during(READ)?;
    let removing: bool = row.try_get("removing").during(READ)?;
    Ok(DueRegistration {
        hook: HookId::parse(row.try_get("hook").during(READ)?).stored(READ)?,
        task: TaskName::parse(row.try_get("task").during(READ)?).stored(READ)?,
        provider: Provider::parse(row.try_get("provider").during(READ)?).stored(READ)?,
        repository: row.try_get("repository").during(READ)?,
        host: SourceHost::parse(row.try_get("host").during(READ)?).stored(READ)?,
        removal: username.zip(sealed).filter(|_| removing).map(|(username, sealed)| TaskToken { username, sealed }),
        want: row.try_get("want").during(READ)?,
        tries: row.try_get("tries").during(READ)?,
    })
}

/// Writes down what forges are to have of a task: what it says now, and nothing else of it.
pub(super) async fn put(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    task: &str,
    wanted: &[Registration],
) -> Result<(), StoreError> {
    let places: Vec<(&str, &str)> =
        wanted.iter().map(|wanted| (wanted.provider.as_str(), wanted.repository.as_str())).collect();
    let places = serde_json::to_string(&places).stored(WRITE)?;
    remove(tx, registry, now, task, &places).await?;
    for Registration { provider, repository, host, events } in wanted {
        sqlx::query(
            "INSERT INTO hook_registrations (registry_id, hook, repository, task, provider, host, events, want, due, tries)
             SELECT registry_id, id, ?4, task, provider, ?5, ?6, 1, ?7, 0 FROM hooks
             WHERE registry_id = ?1 AND task = ?2 AND provider = ?3
             ON CONFLICT (registry_id, hook, repository) DO UPDATE
             SET removing = 0, username = NULL, sealed = NULL, host = excluded.host, events = excluded.events,
                 want = want + 1, due = excluded.due, tries = 0
             WHERE removing OR events <> excluded.events OR registered IS NULL OR fault IS NOT NULL",
        )
        .bind(registry.0)
        .bind(task)
        .bind(provider.as_str())
        .bind(repository)
        .bind(host.as_str())
        .bind(events)
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    }
    Ok(())
}

/// Has all of a task's hooks removed at their forges; to be called while its credentials are there.
pub(super) async fn remove_all(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    task: &str,
) -> Result<(), StoreError> {
    remove(tx, registry, now, task, "[]").await
}

/// Has hooks removed. The token goes with what is to be done: the task, or its credential, may be gone by then. Where
/// there is none, nobody was ever asked to register it, or can be asked to remove it.
async fn remove(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    task: &str,
    places: &str,
) -> Result<(), StoreError> {
    sqlx::query(REMOVE)
        .bind(registry.0)
        .bind(task)
        .bind(now.as_micros())
        .bind(places)
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    sqlx::query("DELETE FROM hook_registrations WHERE registry_id = ?1 AND task = ?2 AND removing AND sealed IS NULL")
        .bind(registry.0)
        .bind(task)
        .execute(tx)
        .await
        .map(drop)
        .during(WRITE)
}

/// A hook has another secret, which its forge is to be told.
pub(super) async fn renew(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    hook: &HookId,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE hook_registrations SET want = want + 1, due = ?3, tries = 0
         WHERE registry_id = ?1 AND hook = ?2 AND removing = 0",
    )
    .bind(registry.0)
    .bind(hook.as_str())
    .bind(now.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// A task's token for a host is to be taken away: so is the copy that removals have, but not an earlier task's of the name. What is still at the forge is its owner's to
/// remove.
pub(super) async fn token_gone(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    task: &str,
    host: &SourceHost,
) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM hook_registrations WHERE registry_id = ?1 AND task = ?2 AND host = ?3 AND removing AND sealed =
             (SELECT c.sealed FROM task_credentials c WHERE c.registry_id = ?1 AND c.task = ?2 AND c.host = ?3)",
    )
    .bind(registry.0)
    .bind(task)
    .bind(host.as_str())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// A task has another token for a host: what could not be done without it is tried, and what is removed is removed with it.
pub(super) async fn unblocked(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    task: &str,
    host: &SourceHost,
) -> Result<(), StoreError> {
    for statement in [
        "UPDATE hook_registrations SET want = want + 1, due = ?4, tries = 0
         WHERE registry_id = ?1 AND task = ?2 AND host = ?3 AND removing = 0
           AND (registered IS NULL OR fault IS NOT NULL OR due IS NOT NULL)",
        // Of this task: another one of its name has other hooks.
        "UPDATE hook_registrations SET want = want + 1, due = ?4, tries = 0, (username, sealed) =
             (SELECT c.username, c.sealed FROM task_credentials c WHERE c.registry_id = ?1 AND c.task = ?2 AND c.host = ?3)
         WHERE registry_id = ?1 AND task = ?2 AND host = ?3 AND removing = 1
           AND EXISTS (SELECT 1 FROM hooks h WHERE h.registry_id = ?1 AND h.id = hook_registrations.hook)
           AND EXISTS (SELECT 1 FROM task_credentials c WHERE c.registry_id = ?1 AND c.task = ?2 AND c.host = ?3)",
    ] {
        sqlx::query(statement)
            .bind(registry.0)
            .bind(task)
            .bind(host.as_str())
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
    }
    Ok(())
}
