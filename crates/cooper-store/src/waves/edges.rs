//! The graph of base images: written with the end of runs, read as a whole, and asked when a tag moves.

use cooper_engine::run::{Run, RunStatus};
use cooper_engine::task::{BaseImageTrigger, ImageUpdate};
use cooper_engine::wave::{Base, BaseKind, Dependent, Graph, ImageTag};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{BaseGraph, MovedBase, TaskBases};
use cooper_spec::plan::Work;
use cooper_types::{Digest, RegistryId, RegistryName, RepositoryName, RunId, Tag, TaskName, Timestamp};
use serde::Deserialize;
use sqlx::{Row, SqliteConnection};

use super::members::run_id;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored, UnknownValue};

const WRITE: &str = "write base images of a task";
const READ: &str = "read base images of tasks";
const MOVED: &str = "note a moved tag";

/// Notes that a tag of the embedded registry is about to move, if that changes what a task stands on. It is a part of the
/// transaction that moves the tag, and comes before.
pub(crate) async fn tag_moves(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    (repository_id, repository): (i64, &RepositoryName),
    tag: &Tag,
    digest: &Digest,
    by: Option<RunId>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO base_changes (registry_id, registry, repository, tag, from_digest, to_digest, at, run_number)
         SELECT ?1, '', ?2, ?3, (SELECT digest FROM tags WHERE repository_id = ?4 AND name = ?3), ?5, ?6, ?7
         WHERE EXISTS (SELECT 1 FROM base_edges
                       WHERE registry_id = ?1 AND registry = '' AND repository = ?2 AND tag = ?3 AND digest <> ?5)
           AND NOT EXISTS (SELECT 1 FROM tags WHERE repository_id = ?4 AND name = ?3 AND digest = ?5)",
    )
    .bind(registry.0)
    .bind(repository.as_str())
    .bind(tag.as_str())
    .bind(repository_id)
    .bind(digest.as_str())
    .bind(now.as_micros())
    .bind(by.map(run_number))
    .execute(tx)
    .await
    .map(drop)
    .during(MOVED)
}

/// Writes down what a run of a task stood on and made, if it says that of the task: it succeeded, did what the task says, and
/// is the newest such. What moved while the run went on is noted.
pub(crate) async fn run_ended(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    run: &Run,
) -> Result<(), StoreError> {
    let Some(task) = run.origin.task.as_ref().filter(|task| !task.differs) else { return Ok(()) };
    if run.status() != RunStatus::Succeeded {
        return Ok(());
    }
    let key = task.name.key();
    let newest = sqlx::query(
        "INSERT INTO task_graph (registry_id, task, run_number, started)
         SELECT registry_id, task, ?3, ?4 FROM tasks WHERE registry_id = ?1 AND task = ?2
         ON CONFLICT DO UPDATE SET run_number = excluded.run_number, started = excluded.started
         WHERE run_number < excluded.run_number",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(run_number(run.id))
    .bind(run.started.unwrap_or(run.created).as_micros())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    if newest.rows_affected() == 0 {
        return Ok(());
    }
    let edges = resolved(tx, registry, run).await?;
    let rows: Vec<_> = edges
        .iter()
        .map(|base| {
            let registry = base.image.registry.as_ref().map_or("", |registry| registry.as_str());
            serde_json::json!([base.kind.as_str(), registry, base.image.repository, base.image.tag, base.digest])
        })
        .collect();
    // One call: each is a journey to SQLite's thread and back. A number that a statement leaves out counts there as one that has
    // been used up: what most use comes first, or the last ones get nothing.
    sqlx::query(
        "DELETE FROM base_edges WHERE registry_id = ?1 AND task = ?2;
         DELETE FROM task_outputs WHERE registry_id = ?1 AND task = ?2;
         INSERT OR IGNORE INTO base_edges (registry_id, task, kind, registry, repository, tag, digest)
         SELECT ?1, ?2, value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?5);
         INSERT OR IGNORE INTO task_outputs (registry_id, task, repository, tag)
         SELECT ?1, ?2, repository, tag FROM output_images WHERE registry_id = ?1 AND run_number = ?6 AND registry = ?7;
         INSERT INTO remote_tags (registry_id, registry, repository, tag, digest, next)
         SELECT registry_id, registry, repository, tag, digest, ?3 FROM base_edges
         WHERE registry_id = ?1 AND task = ?2 AND registry <> '' ON CONFLICT DO NOTHING;
         INSERT INTO base_changes (registry_id, registry, repository, tag, from_digest, to_digest, at, run_number)
         SELECT DISTINCT ?1, '', e.repository, e.tag, e.digest, t.digest, ?3, t.moved_by
         FROM base_edges e
         JOIN repositories r ON r.registry_id = e.registry_id AND r.name = e.repository
         JOIN tags t ON t.repository_id = r.id AND t.name = e.tag
         WHERE e.registry_id = ?1 AND e.task = ?2 AND e.registry = '' AND t.digest <> e.digest AND t.moved >= ?4
           AND NOT EXISTS (SELECT 1 FROM task_outputs o WHERE o.registry_id = ?1 AND o.task = ?2
                           AND o.repository = e.repository AND o.tag = e.tag);
         INSERT INTO base_changes (registry_id, registry, repository, tag, from_digest, to_digest, at)
         SELECT DISTINCT ?1, e.registry, e.repository, e.tag, e.digest, k.digest, ?3
         FROM base_edges e
         JOIN remote_tags k ON k.registry_id = e.registry_id AND k.registry = e.registry
              AND k.repository = e.repository AND k.tag = e.tag
         WHERE e.registry_id = ?1 AND e.task = ?2 AND e.registry <> '' AND k.digest <> e.digest AND k.moved >= ?4;
         UPDATE remote_tags SET next = min(next, ?3) WHERE registry_id = ?1 AND (registry, repository, tag, digest) IN (
             SELECT k.registry, k.repository, k.tag, k.digest FROM base_edges e
             JOIN remote_tags k ON k.registry_id = e.registry_id AND k.registry = e.registry
                  AND k.repository = e.repository AND k.tag = e.tag
             WHERE e.registry_id = ?1 AND e.task = ?2 AND e.registry <> '' AND k.digest <> e.digest)",
    )
    .bind(registry.0)
    .bind(&key)
    .bind(now.as_micros())
    .bind(run.started.unwrap_or(run.created).as_micros())
    .bind(serde_json::json!(rows).to_string())
    .bind(run_number(run.id))
    .bind(run.registry.as_str())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// What the steps of a run resolved by tags.
async fn resolved(tx: &mut SqliteConnection, registry: RegistryId, run: &Run) -> Result<Vec<Base>, StoreError> {
    let rows = sqlx::query(
        "SELECT step_id, kind, reference, digest FROM base_images
         WHERE registry_id = ?1 AND run_number = ?2 AND digest IS NOT NULL ORDER BY step_id, position",
    )
    .bind(registry.0)
    .bind(run_number(run.id))
    .fetch_all(tx)
    .await
    .during(WRITE)?;
    let mut bases = Vec::with_capacity(rows.len());
    for row in rows {
        let (step, kind): (&str, &str) = (row.try_get("step_id").during(WRITE)?, row.try_get("kind").during(WRITE)?);
        let planned = run.plan.steps.iter().find(|planned| planned.id.as_str() == step);
        let kind = match planned.map(|planned| &planned.work) {
            Some(Work::Command(_)) => BaseKind::Step,
            _ if kind == "runtime" => BaseKind::Runtime,
            _ => BaseKind::Buildtime,
        };
        let Some(image) = ImageTag::followed(row.try_get("reference").during(WRITE)?, &run.registry) else { continue };
        let digest = Digest::parse(row.try_get("digest").during(WRITE)?).stored(WRITE)?;
        bases.push(Base { kind, image, digest });
    }
    Ok(bases)
}

/// What of a task the graph needs; the rest of its state is not read.
#[derive(Deserialize)]
struct Head {
    name: TaskName,
    enabled: bool,
    #[serde(default, deserialize_with = "or_default")]
    base_image: BaseImageTrigger,
}

/// Tasks of older releases have none.
fn or_default<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BaseImageTrigger, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What stands on images, however far, with what is needed of each task: its text may be long.
const REACHED: &str = "WITH RECURSIVE reached (task) AS (
         SELECT e.task FROM json_each(?2) j CROSS JOIN base_edges e INDEXED BY base_edges_by_tag
             ON e.registry_id = ?1 AND e.registry = j.value ->> 0 AND e.repository = j.value ->> 1 AND e.tag = j.value ->> 2
         UNION
         SELECT e.task FROM reached r
         CROSS JOIN task_outputs o ON o.registry_id = ?1 AND o.task = r.task
         CROSS JOIN base_edges e INDEXED BY base_edges_by_tag
             ON e.registry_id = ?1 AND e.registry = '' AND e.repository = o.repository AND e.tag = o.tag)
     SELECT t.task, json_object('name', t.state -> '$.name', 'enabled', t.state -> '$.enabled',
                                'base_image', t.state -> '$.base_image') AS head
     FROM reached r CROSS JOIN tasks t ON t.registry_id = ?1 AND t.task = r.task ORDER BY t.task";

pub(super) async fn graph(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    images: &[ImageTag],
) -> Result<BaseGraph, StoreError> {
    let of = |image: &ImageTag| {
        let registry = image.registry.as_ref().map_or("", |registry| registry.as_str());
        serde_json::json!([registry, image.repository, image.tag])
    };
    let images: Vec<_> = images.iter().map(of).collect();
    let rows = sqlx::query(REACHED)
        .bind(registry.0)
        .bind(serde_json::json!(images).to_string())
        .fetch_all(&mut *tx)
        .await
        .during(READ)?;
    let (mut tasks, mut unreadable) = (std::collections::BTreeMap::new(), Vec::new());
    for row in rows {
        let key: String = row.try_get("task").during(READ)?;
        match serde_json::from_str(row.try_get("head").during(READ)?).stored(READ) {
            Ok(Head { name, enabled, base_image }) => {
                let task = Dependent { name, enabled, trigger: base_image, bases: Vec::new(), makes: Vec::new() };
                tasks.insert(key, task);
            }
            // Another release's, say: the others are not kept up by it.
            Err(error) => unreadable.push((key, error)),
        }
    }
    let keys = serde_json::json!(tasks.keys().collect::<Vec<_>>()).to_string();
    let rows = sqlx::query(
        "SELECT e.task, kind, registry, repository, tag, digest FROM json_each(?2) j
         CROSS JOIN base_edges e ON e.registry_id = ?1 AND e.task = j.value",
    )
    .bind(registry.0)
    .bind(&keys)
    .fetch_all(&mut *tx)
    .await
    .during(READ)?;
    for row in rows {
        let Some(task) = tasks.get_mut(row.try_get::<&str, _>("task").during(READ)?) else { continue };
        task.bases.push(Base {
            kind: kind(row.try_get("kind").during(READ)?)?,
            image: image(&row)?,
            digest: Digest::parse(row.try_get("digest").during(READ)?).stored(READ)?,
        });
    }
    let rows = sqlx::query(
        "SELECT o.task, '' AS registry, repository, tag FROM json_each(?2) j
         CROSS JOIN task_outputs o ON o.registry_id = ?1 AND o.task = j.value",
    )
    .bind(registry.0)
    .bind(&keys)
    .fetch_all(&mut *tx)
    .await
    .during(READ)?;
    for row in rows {
        let Some(task) = tasks.get_mut(row.try_get::<&str, _>("task").during(READ)?) else { continue };
        task.makes.push(image(&row)?);
    }
    Ok(BaseGraph { graph: Graph { tasks: tasks.into_values().collect() }, unreadable })
}

/// Tasks that base images start and of which no run says yet what they stand on. One that has no name any more goes by its key.
pub(super) async fn unbuilt(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    limit: u32,
) -> Result<Vec<TaskName>, StoreError> {
    let rows = sqlx::query(
        "SELECT t.task, CAST(t.state ->> '$.name' AS TEXT) AS name FROM tasks t WHERE t.registry_id = ?1
           AND NOT EXISTS (SELECT 1 FROM task_graph g WHERE g.registry_id = t.registry_id AND g.task = t.task)
           AND t.state ->> '$.enabled' AND coalesce(t.state ->> '$.base_image.enabled', 1)
         ORDER BY t.task LIMIT ?2",
    )
    .bind(registry.0)
    .bind(limit)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let name = |row: &sqlx::sqlite::SqliteRow| -> Result<TaskName, StoreError> {
        let name: Option<&str> = row.try_get("name").during(READ)?;
        match name.and_then(|name| TaskName::parse(name).ok()) {
            Some(name) => Ok(name),
            None => TaskName::parse(row.try_get("task").during(READ)?).stored(READ),
        }
    };
    rows.iter().map(name).collect()
}

/// The tag that a row names.
pub(super) fn image(row: &sqlx::sqlite::SqliteRow) -> Result<ImageTag, StoreError> {
    let registry: &str = row.try_get("registry").during(READ)?;
    Ok(ImageTag {
        registry: (!registry.is_empty()).then(|| RegistryName::parse(registry)).transpose().stored(READ)?,
        repository: RepositoryName::parse(row.try_get("repository").during(READ)?).stored(READ)?,
        tag: Tag::parse(row.try_get("tag").during(READ)?).stored(READ)?,
    })
}

fn kind(text: &str) -> Result<BaseKind, StoreError> {
    let known = BaseKind::ALL.into_iter().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| UnknownValue::new("kind of base image", text)).stored(READ)
}

/// What a tag stands for now, as a column of a row of edges `e`. One of another registry that was not seen to move since the
/// build began stands for what that found: who saw it first asked another mirror, or long before.
const NOW: &str = "CASE e.registry WHEN '' THEN
        (SELECT t.digest FROM repositories r JOIN tags t ON t.repository_id = r.id AND t.name = e.tag
         WHERE r.registry_id = e.registry_id AND r.name = e.repository)
    ELSE (SELECT k.digest FROM remote_tags k WHERE k.registry_id = e.registry_id AND k.registry = e.registry
          AND k.repository = e.repository AND k.tag = e.tag AND k.moved >=
              (SELECT g.started FROM task_graph g WHERE g.registry_id = e.registry_id AND g.task = e.task)) END AS now";

/// A run of a task that goes on and may move its tags: one of a wave, which may not have begun, or any other that does not build
/// somebody's pull request, another branch or a tag.
const BUSY: &str = "SELECT coalesce((
         SELECT m.run_number FROM wave_members m INDEXED BY wave_members_running
         WHERE m.registry_id = ?1 AND m.task = ?2 AND m.state = 'running' LIMIT 1),
     (
         SELECT number FROM runs INDEXED BY runs_by_task
         WHERE registry_id = ?1 AND task = ?2 AND status IN ('Started', 'Running')
           AND NOT coalesce(state ->> '$.origin.untrusted', 0)
           AND NOT (coalesce(state ->> '$.origin.cause.cause', '') = 'source'
                    AND coalesce(state ->> '$.origin.task.differs', 0)) LIMIT 1))";

/// A task that makes what another one stands on and is being built in a wave, or waits for it in a wave other than one, where no
/// pause holds it.
const MAKER: &str = "SELECT o.task FROM base_edges e
     CROSS JOIN task_outputs o INDEXED BY task_outputs_by_tag
        ON o.registry_id = e.registry_id AND o.repository = e.repository AND o.tag = e.tag AND o.task <> e.task
     WHERE e.registry_id = ?1 AND e.task = ?2 AND e.registry = '' AND (
         EXISTS (SELECT 1 FROM wave_members m INDEXED BY wave_members_running
                 WHERE m.registry_id = ?1 AND m.task = o.task AND m.state = 'running')
         OR EXISTS (SELECT 1 FROM wave_members m INDEXED BY wave_members_waiting
                    CROSS JOIN waves w ON w.registry_id = m.registry_id AND w.number = m.wave AND w.phase = 'running'
                    WHERE m.registry_id = ?1 AND m.task = o.task AND m.state = 'waiting' AND m.wave <> ?3)
            AND NOT EXISTS (SELECT 1 FROM wave_members m INDEXED BY wave_members_waiting
                    CROSS JOIN waves w ON w.registry_id = m.registry_id AND w.number = m.wave AND w.phase = 'paused'
                    WHERE m.registry_id = ?1 AND m.task = o.task AND m.state = 'waiting'))
     ORDER BY o.task LIMIT 1";

/// Since when nothing has held a member back that people did.
const FREE_SINCE: &str = "SELECT max(since, coalesce(freed, 0)) FROM wave_members INDEXED BY wave_members_waiting
     WHERE registry_id = ?1 AND task = ?2 AND wave = ?3 AND state = 'waiting'";

pub(super) async fn of_task(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    own: &RegistryName,
    task: &TaskName,
    wave: i64,
) -> Result<TaskBases, StoreError> {
    let query = format!(
        "SELECT kind, registry, repository, tag, digest, {NOW} FROM base_edges e WHERE registry_id = ?1 AND task = ?2"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .bind(registry.0)
        .bind(task.key())
        .fetch_all(&mut *tx)
        .await
        .during(READ)?;
    let mut bases = TaskBases::default();
    for row in rows {
        let (before, now): (&str, Option<&str>) =
            (row.try_get("digest").during(READ)?, row.try_get("now").during(READ)?);
        let Some(now) = now.filter(|now| *now != before) else { continue };
        let ImageTag { registry, repository, tag } = image(&row)?;
        bases.moved.push(MovedBase {
            kind: kind(row.try_get("kind").during(READ)?)?,
            update: ImageUpdate {
                registry: registry.unwrap_or_else(|| own.clone()),
                repository,
                tag,
                from: Some(Digest::parse(before).stored(READ)?),
                to: Digest::parse(now).stored(READ)?,
            },
        });
    }
    let said_by = sqlx::query_scalar("SELECT run_number FROM task_graph WHERE registry_id = ?1 AND task = ?2");
    let said_by: Option<i64> = said_by.bind(registry.0).bind(task.key()).fetch_optional(&mut *tx).await.during(READ)?;
    bases.said_by = said_by.map(run_id).transpose()?;
    let busy = sqlx::query_scalar(BUSY).bind(registry.0).bind(task.key());
    let busy: Option<i64> = busy.fetch_one(&mut *tx).await.during(READ)?;
    bases.busy = busy.map(run_id).transpose()?;
    let maker = sqlx::query_scalar(MAKER).bind(registry.0).bind(task.key()).bind(wave);
    bases.maker = maker.fetch_optional(&mut *tx).await.during(READ)?;
    let free_since = sqlx::query_scalar(FREE_SINCE).bind(registry.0).bind(task.key()).bind(wave);
    let free_since: Option<i64> = free_since.fetch_optional(tx).await.during(READ)?;
    bases.free_since = free_since.map(Timestamp::from_micros);
    Ok(bases)
}

pub(super) async fn known_digest(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    image: &ImageTag,
) -> Result<Option<Digest>, StoreError> {
    let query = match &image.registry {
        None => sqlx::query_scalar(
            "SELECT t.digest FROM repositories r JOIN tags t ON t.repository_id = r.id AND t.name = ?4
             WHERE r.registry_id = ?1 AND r.name = ?3 AND ?2 = ''",
        ),
        Some(_) => sqlx::query_scalar(
            "SELECT digest FROM remote_tags WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4",
        ),
    };
    let digest: Option<Option<String>> = query
        .bind(registry.0)
        .bind(image.registry.as_ref().map_or("", |registry| registry.as_str()))
        .bind(image.repository.as_str())
        .bind(image.tag.as_str())
        .fetch_optional(tx)
        .await
        .during(READ)?;
    digest.flatten().map(|digest| Digest::parse(&digest).stored(READ)).transpose()
}
