//! What forges are to be told of runs: written with the run's acceptance and its end, told by whoever asks what is due.

use async_trait::async_trait;
use cooper_engine::run::{Run, RunStatus};
use cooper_engine::task::Cause;
use cooper_engine::trigger::provider::Provider;
use cooper_ports::statuses::{DueStatus, StatusRecord, StatusStore, TaskToken};
use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, RunId, SourceHost, TaskName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::batch::Batch;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored, UnknownValue};

const READ: &str = "read commit statuses";
const WRITE: &str = "write commit status";

/// The newest of a task.
const LIST: &str = "SELECT r.number, r.status, json_extract(r.state, '$.origin.cause.firing.commit') AS commit_id,
         coalesce(r.finished, r.created) AS since, s.due, s.tries, s.tried, s.fault
     FROM commit_statuses s INDEXED BY commit_statuses_by_task
     CROSS JOIN runs r ON r.registry_id = s.registry_id AND r.number = s.run_number
     WHERE s.registry_id = ?1 AND s.task = ?2 AND r.created >= ?4 ORDER BY s.run_number DESC LIMIT ?3";

/// What is due, each host's first ones: a long queue for one keeps no other waiting.
const DUE: &str = "SELECT run_number, want, tries, host FROM (
         SELECT *, row_number() OVER (PARTITION BY host ORDER BY due, run_number) AS place
         FROM commit_statuses INDEXED BY commit_statuses_by_due
         WHERE registry_id = ?1 AND due IS NOT NULL AND due <= ?2 AND host NOT IN (SELECT value FROM json_each(?4)))
     WHERE place <= ?3 ORDER BY due, run_number LIMIT 4096";

#[async_trait]
impl StatusStore for Store {
    async fn due_statuses(
        &self,
        until: Timestamp,
        of_a_host: u32,
        without: &[String],
    ) -> Result<Vec<DueStatus>, StoreError> {
        let rows = sqlx::query(DUE)
            .bind(self.registry_id().0)
            .bind(until.as_micros())
            .bind(of_a_host)
            .bind(serde_json::json!(without).to_string())
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let due = rows.iter().map(|row| {
            let number: i64 = row.try_get("run_number").during(READ)?;
            Ok(DueStatus {
                run: RunId::from_number(u64::try_from(number).stored(READ)?),
                want: row.try_get("want").during(READ)?,
                tries: row.try_get("tries").during(READ)?,
                host: row.try_get("host").during(READ)?,
            })
        });
        due.collect()
    }

    async fn next_status(&self) -> Result<Option<Timestamp>, StoreError> {
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT min(due) FROM commit_statuses INDEXED BY commit_statuses_by_due
             WHERE registry_id = ?1 AND due IS NOT NULL",
        )
        .bind(self.registry_id().0)
        .fetch_one(self.readers())
        .await
        .during(READ)?;
        Ok(next.map(Timestamp::from_micros))
    }

    async fn status_tried(
        &self,
        told: &DueStatus,
        again: Option<Timestamp>,
        fault: Option<&str>,
    ) -> Result<(), StoreError> {
        let (registry, told, fault) = (self.registry_id(), told.clone(), fault.map(str::to_owned));
        let now = self.clock().now();
        self.write(async move |mut tx| {
            sqlx::query(
                "UPDATE commit_statuses SET due = ?4, tries = tries + 1, fault = ?5, tried = ?6
                 WHERE registry_id = ?1 AND run_number = ?2 AND want = ?3",
            )
            .bind(registry.0)
            .bind(run_number(told.run))
            .bind(told.want)
            .bind(again.map(Timestamp::as_micros))
            .bind(fault)
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(WRITE)
        })
        .await
    }

    async fn tell_again(&self, task: &TaskName, since: Timestamp, run: RunId) -> Result<bool, StoreError> {
        let (registry, task, now) = (self.registry_id(), task.key(), self.clock().now());
        self.write(async move |mut tx| {
            let again = sqlx::query(
                "UPDATE commit_statuses SET want = want + 1, due = ?5, tries = 0, tried = NULL, fault = NULL
                 WHERE registry_id = ?1 AND run_number = ?2 AND task = ?3 AND EXISTS (
                     SELECT 1 FROM runs r WHERE r.registry_id = ?1 AND r.number = ?2 AND r.created >= ?4)",
            )
            .bind(registry.0)
            .bind(run_number(run))
            .bind(&task)
            .bind(since.as_micros())
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            Ok(again.rows_affected() > 0)
        })
        .await
    }

    async fn list_statuses(
        &self,
        task: &TaskName,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<StatusRecord>, StoreError> {
        let rows = sqlx::query(LIST)
            .bind(self.registry_id().0)
            .bind(task.key())
            .bind(limit)
            .bind(since.as_micros())
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let records = rows.iter().map(|row| {
            let number: i64 = row.try_get("number").during(READ)?;
            let due: Option<i64> = row.try_get("due").during(READ)?;
            let tried: Option<i64> = row.try_get("tried").during(READ)?;
            let status: &str = row.try_get("status").during(READ)?;
            Ok(StatusRecord {
                run: RunId::from_number(u64::try_from(number).stored(READ)?),
                status: RunStatus::parse(status).ok_or_else(|| UnknownValue::new("status", status)).stored(READ)?,
                commit: row.try_get("commit_id").during(READ)?,
                since: Timestamp::from_micros(row.try_get("since").during(READ)?),
                due: due.map(Timestamp::from_micros),
                tries: row.try_get("tries").during(READ)?,
                tried: tried.map(Timestamp::from_micros),
                fault: row.try_get("fault").during(READ)?,
            })
        });
        records.collect()
    }

    async fn task_token(&self, task: &TaskName, host: &SourceHost) -> Result<Option<TaskToken>, StoreError> {
        let row = sqlx::query(
            "SELECT username, sealed FROM task_credentials WHERE registry_id = ?1 AND task = ?2 AND host = ?3",
        )
        .bind(self.registry_id().0)
        .bind(task.key())
        .bind(host.as_str())
        .fetch_optional(self.readers())
        .await
        .during(READ)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(TaskToken {
            username: row.try_get("username").during(READ)?,
            sealed: row.try_get("sealed").during(READ)?,
        }))
    }
}

/// Writes down that a run's forge is to be told of it, if an event of one that takes statuses has set it off.
pub(crate) fn begin(batch: &mut Batch, registry: RegistryId, now: Timestamp, run: &Run) {
    let Cause::Source(cause) = &run.origin.cause else { return };
    if cause.provider == Provider::Generic {
        return;
    }
    batch.insert("commit_statuses (registry_id, run_number, task, host, want, due, tries)", |row| {
        row.push_bind(registry.0)
            .push_bind(run_number(run.id))
            .push_bind(run.origin.task.as_ref().map(|task| task.name.key()))
            .push_bind(host(&cause.repository))
            .push_bind(1)
            .push_bind(now.as_micros())
            .push_bind(0);
    });
}

/// What a repository's URL has behind its scheme and a user's name.
fn host(repository: &str) -> String {
    let bare = repository.split_once("://").map_or(repository, |(_, rest)| rest);
    let authority = bare.split('/').next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase()
}

/// Writes down that there is something new to tell: the run has ended.
pub(crate) async fn ended(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    run: RunId,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE commit_statuses SET want = want + 1, due = ?3, tries = 0, tried = NULL, fault = NULL
         WHERE registry_id = ?1 AND run_number = ?2",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(now.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

#[cfg(test)]
mod tests {
    use cooper_types::RegistryName;

    use super::*;
    use crate::StoreOptions;

    #[tokio::test]
    async fn statuses_are_found_without_a_walk_through_runs() {
        let directory = tempfile::tempdir().unwrap();
        let registry_name = RegistryName::parse("localhost:5000").unwrap();
        let store = Store::open(directory.path(), StoreOptions { registry_name, clock: None }).await.unwrap();
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {LIST}"));
        let rows = sqlx::query(explain).fetch_all(store.readers()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert_eq!(plan.len(), 2, "nothing is sorted: {plan:#?}");
        assert!(plan[0].contains("commit_statuses_by_task (registry_id=? AND task=?)"), "{plan:#?}");
        assert!(plan[1].starts_with("SEARCH r USING"), "{plan:#?}");
    }
}
