//! Reading runs with what was recorded of them.

use std::collections::BTreeMap;

use cooper_engine::message::BaseImage;
use cooper_ports::runs::{OutputImage, RunQuery, RunRecord, RunType, StepBase};
use cooper_ports::store_error::StoreError;
use cooper_types::{
    Digest, ImageRef, RegistryId, RegistryName, RepositoryName, RunId, StepId, Tag, TaskName, Timestamp,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::contexts::run_number;
use crate::logs::append::log_end;
use crate::sql_error::{During, Stored, UnknownValue};

const READ: &str = "read run";

/// A page of runs. The inner query is answered from its index alone, so that a rare status among many runs is found
/// quickly.
const LISTING: &str =
    "SELECT number, state, run_type, updated, archived, frame_offset, text_offset, log_complete FROM runs
     WHERE registry_id = ?1 AND number IN (
         SELECT number FROM runs INDEXED BY runs_listing
         WHERE registry_id = ?1
           AND number < ?2
           AND (?3 IS NULL OR status IN (SELECT value FROM json_each(?3)))
           AND (?4 IS NULL OR run_type = ?4)
           AND (?5 IS NULL OR principal = ?5)
         ORDER BY number DESC LIMIT ?6
     ) ORDER BY number DESC";

/// A page of a task's runs, as above.
const OF_TASK: &str =
    "SELECT number, state, run_type, updated, archived, frame_offset, text_offset, log_complete FROM runs
     WHERE registry_id = ?1 AND number IN (
         SELECT number FROM runs INDEXED BY runs_by_task
         WHERE registry_id = ?1
           AND task = ?7
           AND number < ?2
           AND (?3 IS NULL OR status IN (SELECT value FROM json_each(?3)))
           AND (?4 IS NULL OR run_type = ?4)
           AND (?5 IS NULL OR principal = ?5)
         ORDER BY number DESC LIMIT ?6
     ) ORDER BY number DESC";

/// A page of the runs that wrote an image, or of a task's among them: by the image, which few runs wrote.
const OF_IMAGE: &str =
    "SELECT number, state, run_type, updated, archived, frame_offset, text_offset, log_complete FROM runs
     WHERE registry_id = ?1 AND number IN (
         SELECT DISTINCT o.run_number FROM output_images o INDEXED BY output_images_by_repository
         CROSS JOIN runs r ON r.registry_id = o.registry_id AND r.number = o.run_number
         WHERE o.registry_id = ?1
           AND o.repository = ?8 ->> 'repository'
           AND o.run_number < ?2
           AND coalesce(o.registry = ?8 ->> 'registry', 1) AND coalesce(o.tag = ?8 ->> 'tag', 1)
           AND coalesce(o.digest = ?8 ->> 'digest', 1)
           AND (?3 IS NULL OR r.status IN (SELECT value FROM json_each(?3)))
           AND (?4 IS NULL OR r.run_type = ?4)
           AND (?5 IS NULL OR r.principal = ?5)
           AND (?7 IS NULL OR r.task = ?7)
         ORDER BY o.run_number DESC LIMIT ?6
     ) ORDER BY number DESC";

/// A run and its record.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
) -> Result<Option<RunRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT number, state, run_type, updated, archived, frame_offset, text_offset, log_complete FROM runs
         WHERE registry_id = ?1 AND number = ?2",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .fetch_optional(&mut *connection)
    .await
    .during(READ)?;
    let Some(row) = row else { return Ok(None) };
    Ok(with_images(connection, registry, &[row]).await?.pop())
}

/// Runs and their records, newest first.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    query: &RunQuery,
) -> Result<Vec<RunRecord>, StoreError> {
    let statuses: Vec<&str> = query.statuses.iter().map(|status| status.as_str()).collect();
    let statuses = (!statuses.is_empty()).then(|| serde_json::json!(statuses).to_string());
    let task = query.task.as_ref().map(TaskName::key);
    let image = query.image.as_ref().map(|ImageRef { registry, repository, tag, digest }| {
        serde_json::json!({ "registry": registry, "repository": repository, "tag": tag, "digest": digest })
    });
    let sql = match (&image, &task) {
        (Some(_), _) => OF_IMAGE,
        (None, Some(_)) => OF_TASK,
        (None, None) => LISTING,
    };
    let page = sqlx::query(sql)
        .bind(registry.0)
        .bind(query.before.map_or(i64::MAX, run_number))
        .bind(statuses)
        .bind(query.run_type.map(RunType::as_str))
        .bind(query.principal.as_ref().map(|principal| principal.as_str()))
        .bind(query.limit);
    let page = match image {
        Some(image) => page.bind(task).bind(image.to_string()),
        None if task.is_some() => page.bind(task),
        None => page,
    };
    let rows = page.fetch_all(&mut *connection).await.during("list runs")?;
    with_images(connection, registry, &rows).await
}

/// The id of the run with this number.
pub(super) fn run_id(number: i64) -> Result<RunId, StoreError> {
    Ok(RunId::from_number(u64::try_from(number).stored(READ)?))
}

/// Two queries for the images of a whole page, however long it is.
async fn with_images(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    rows: &[SqliteRow],
) -> Result<Vec<RunRecord>, StoreError> {
    let numbers = rows.iter().map(|row| row.try_get::<i64, _>("number")).collect::<Result<Vec<_>, _>>().during(READ)?;
    let numbers = serde_json::json!(numbers).to_string();
    let mut outputs: BTreeMap<i64, Vec<OutputImage>> = BTreeMap::new();
    let found = sqlx::query(
        "SELECT run_number, step_id, registry, repository, tag, digest FROM output_images
         WHERE registry_id = ?1 AND run_number IN (SELECT value FROM json_each(?2)) ORDER BY run_number, position",
    )
    .bind(registry.0)
    .bind(&numbers)
    .fetch_all(&mut *connection)
    .await
    .during(READ)?;
    for row in &found {
        outputs.entry(row.try_get("run_number").during(READ)?).or_default().push(output_image(row)?);
    }
    let mut bases: BTreeMap<i64, Vec<StepBase>> = BTreeMap::new();
    let found = sqlx::query(
        "SELECT run_number, step_id, kind, reference, digest FROM base_images
         WHERE registry_id = ?1 AND run_number IN (SELECT value FROM json_each(?2))
         ORDER BY run_number, step_id, position",
    )
    .bind(registry.0)
    .bind(&numbers)
    .fetch_all(&mut *connection)
    .await
    .during(READ)?;
    for row in &found {
        bases.entry(row.try_get("run_number").during(READ)?).or_default().push(step_base(row)?);
    }
    rows.iter()
        .map(|row| {
            let number: i64 = row.try_get("number").during(READ)?;
            let mut record = RunRecord {
                run: serde_json::from_str(row.try_get("state").during(READ)?).stored(READ)?,
                run_type: run_type(row.try_get("run_type").during(READ)?)?,
                updated: Timestamp::from_micros(row.try_get("updated").during(READ)?),
                log: log_end(row)?,
                archived: row.try_get("archived").during(READ)?,
                output_images: outputs.remove(&number).unwrap_or_default(),
                base_images: bases.remove(&number).unwrap_or_default(),
            };
            let plan = &record.run.plan;
            record.base_images.sort_by_key(|base| plan.step_index(&base.step));
            Ok(record)
        })
        .collect()
}

fn run_type(name: &str) -> Result<RunType, StoreError> {
    let known = RunType::ALL.into_iter().find(|known| known.as_str() == name);
    known.ok_or_else(|| UnknownValue::new("type of run", name)).stored(READ)
}

fn output_image(row: &SqliteRow) -> Result<OutputImage, StoreError> {
    let text = |column: &str| row.try_get::<&str, _>(column).during(READ);
    Ok(OutputImage {
        step: StepId::parse(text("step_id")?).stored(READ)?,
        registry: RegistryName::parse(text("registry")?).stored(READ)?,
        repository: RepositoryName::parse(text("repository")?).stored(READ)?,
        tag: Tag::parse(text("tag")?).stored(READ)?,
        digest: Digest::parse(text("digest")?).stored(READ)?,
    })
}

fn step_base(row: &SqliteRow) -> Result<StepBase, StoreError> {
    let text = |column: &str| row.try_get::<&str, _>(column).during(READ);
    let digest: Option<&str> = row.try_get("digest").during(READ)?;
    Ok(StepBase {
        step: StepId::parse(text("step_id")?).stored(READ)?,
        base: BaseImage {
            reference: text("reference")?.to_owned(),
            digest: digest.map(Digest::parse).transpose().stored(READ)?,
            runtime: text("kind")? == "runtime",
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Store, StoreOptions};

    #[tokio::test]
    async fn long_lists_are_searched_in_indexes_alone() {
        let directory = tempfile::tempdir().unwrap();
        let registry_name = RegistryName::parse("localhost:5000").unwrap();
        let store = Store::open(directory.path(), StoreOptions { registry_name, clock: None }).await.unwrap();
        for (sql, expect) in [
            (LISTING, "USING COVERING INDEX runs_listing "),
            (OF_TASK, "USING COVERING INDEX runs_by_task "),
            (
                OF_IMAGE,
                "SEARCH o USING INDEX output_images_by_repository (registry_id=? AND repository=? AND run_number<?)",
            ),
            (super::super::expire::OLD_RUNS, "USING INDEX runs_by_expiry "),
            (super::super::expire::OLD_LOGS, "USING INDEX runs_by_log_expiry "),
            (super::super::OF_AGENT, "SEARCH a USING PRIMARY KEY (registry_id=? AND agent=?)"),
            (super::super::GENERATION, "USING COVERING INDEX runs_unfinished "),
            (super::super::COUNTING, "USING COVERING INDEX runs_unfinished "),
            (super::super::unfinished::GENERATIONS, "USING COVERING INDEX runs_unfinished "),
            (super::super::explain::SAVE, "SEARCH runs USING COVERING INDEX runs_listing (registry_id=? AND number=?)"),
            (super::super::request::DROP_TEXTS, "USING INDEX run_requests_by_end (registry_id=? AND ended"),
        ] {
            let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = sqlx::query(explain).fetch_all(store.readers()).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            assert!(plan.iter().any(|step| step.contains(expect)), "{plan:?}");
            assert!(!plan.iter().any(|step| step.starts_with("SCAN runs")), "{plan:?}");
        }
    }
}
