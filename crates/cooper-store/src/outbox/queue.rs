//! From an event to a row for each target that wants it, and the words in which it is told.
//!
//! Pushes and deletions are told as ACR tells them; runs and waves in a form of our own, which has a version.

use cooper_engine::delivery::Delivery;
use cooper_engine::run::Run;
use cooper_engine::task::{Cause, ImageUpdate, UpdatePayload};
use cooper_engine::webhook::{Action, Scope};
use cooper_ports::outbox::{Target, UpdateNotice};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, EventId, RegistryId, RepositoryName, Tag, Timestamp, WaveId, WebhookName};
use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use super::target_column;
use crate::contexts::run_number;
use crate::sql_error::{During, Stored};
use crate::waves;

const QUEUE: &str = "queue event";

/// The version of what is told of runs and waves: it grows when a field goes or changes its meaning.
const VERSION: u32 = 1;

/// Something that others may want to be told of.
pub(crate) enum Event<'e> {
    /// A tag was moved to a manifest that the repository holds.
    Pushed {
        /// The repository's row.
        id: i64,
        repository: &'e RepositoryName,
        tag: &'e Tag,
        digest: &'e Digest,
        /// The program that pushed it, as far as that is known.
        agent: &'e str,
    },
    /// A manifest was deleted.
    Deleted {
        repository: &'e RepositoryName,
        digest: &'e Digest,
        media_type: &'e str,
        /// The tags that it had.
        tags: &'e [String],
    },
    /// A run has ended.
    RunFinished(&'e Run),
    /// A wave has ended.
    WaveFinished(WaveId),
}

/// Writes a row for each webhook that is told of the event. This is a part of the transaction that makes the event; after its
/// commit, `Store::something_queued` wakes whoever sends.
pub(crate) async fn queue(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    event: &Event<'_>,
) -> Result<(), StoreError> {
    let targets = targets(tx, registry, event).await?;
    if targets.is_empty() {
        return Ok(());
    }
    let id = new_id();
    let name: String = sqlx::query_scalar("SELECT name FROM registries WHERE id = ?1")
        .bind(registry.0)
        .fetch_one(&mut *tx)
        .await
        .during(QUEUE)?;
    let mut body = json!({ "id": id, "timestamp": now.to_string(), "action": action(event) });
    let subject = match event {
        Event::Pushed { id, repository, tag, digest, agent } => {
            let row = sqlx::query(
                "SELECT media_type, length(payload) AS size FROM manifests WHERE repository_id = ?1 AND digest = ?2",
            )
            .bind(id)
            .bind(digest.as_str())
            .fetch_one(&mut *tx)
            .await
            .during(QUEUE)?;
            let (media_type, size): (&str, i64) = (row.try_get(0).during(QUEUE)?, row.try_get(1).during(QUEUE)?);
            body["target"] = json!({
                "mediaType": media_type, "size": size, "length": size, "digest": digest,
                "repository": repository, "tag": tag,
            });
            body["request"] = request(&name, "PUT", agent);
            format!("{repository}:{tag}")
        }
        Event::Deleted { repository, digest, media_type, .. } => {
            body["target"] = json!({ "mediaType": media_type, "digest": digest, "repository": repository });
            body["request"] = request(&name, "DELETE", "");
            format!("{repository}@{digest}")
        }
        Event::RunFinished(run) => {
            body["version"] = json!(VERSION);
            body["registry"] = json!(name);
            body["run"] = told_of_run(tx, registry, run).await?;
            run.id.to_string()
        }
        Event::WaveFinished(wave) => {
            body["version"] = json!(VERSION);
            body["registry"] = json!(name);
            body["wave"] = waves::told(tx, registry, *wave).await?;
            wave.to_string()
        }
    };
    let row = NewRow { event: &id, action: action(event), subject: &subject, body: &body.to_string() };
    for (name, host) in targets {
        row.insert(tx, registry, now, &Target::Webhook(name), &host).await?;
    }
    Ok(())
}

/// Writes a row for the endpoint of a task whose run was set off by base images. This is a part of the transaction that accepts the
/// run.
pub(crate) async fn queue_update_notice(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    run: &Run,
    notice: &UpdateNotice,
) -> Result<(), StoreError> {
    let (Some(task), Cause::BaseImage { wave, images }) = (&run.origin.task, &run.origin.cause) else { return Ok(()) };
    // One that was deleted in this moment tells nobody: the next one of its name may be somebody else's.
    let is_there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM tasks WHERE registry_id = ?1 AND task = ?2 AND principal = ?3)",
    )
    .bind(registry.0)
    .bind(task.name.key())
    .bind(run.principal.as_str())
    .fetch_one(&mut *tx)
    .await
    .during(QUEUE)?;
    if !is_there {
        return Ok(());
    }
    let id = new_id();
    let token = json!({ "updateTriggerToken": id });
    let body = match notice.payload {
        UpdatePayload::Token => token,
        UpdatePayload::Default => {
            let image = |update: &ImageUpdate| {
                json!({
                    "registry": update.registry, "repository": update.repository, "tag": update.tag,
                    "digest": update.to, "previousDigest": update.from,
                })
            };
            json!({
                "id": id,
                "timestamp": now.to_string(),
                "action": Action::ImageUpdate,
                "version": VERSION,
                "registry": run.registry,
                "task": task.name,
                "runId": run.id,
                "waveId": wave,
                "images": images.iter().map(image).collect::<Vec<_>>(),
                "updateTriggerToken": id,
            })
        }
    };
    let (subject, body) = (run.id.to_string(), body.to_string());
    let row = NewRow { event: &id, action: Action::ImageUpdate, subject: &subject, body: &body };
    row.insert(tx, registry, now, &Target::UpdateTrigger(task.name.key()), &notice.host).await
}

/// A delivery that is to be queued.
pub(super) struct NewRow<'r> {
    pub(super) event: &'r EventId,
    pub(super) action: Action,
    pub(super) subject: &'r str,
    pub(super) body: &'r str,
}

impl NewRow<'_> {
    pub(super) async fn insert(
        &self,
        tx: &mut SqliteConnection,
        registry: RegistryId,
        now: Timestamp,
        target: &Target,
        host: &str,
    ) -> Result<(), StoreError> {
        let target = target_column(target);
        let delivery = Delivery::queued(now);
        let (state, at) = super::columns(delivery.state);
        let inserted = sqlx::query(
            "INSERT INTO outbox (registry_id, target, event, action, subject, body, queued, state, at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .bind(registry.0)
        .bind(&target)
        .bind(self.event.as_str())
        .bind(self.action.as_str())
        .bind(self.subject)
        .bind(self.body)
        .bind(delivery.queued.as_micros())
        .bind(state)
        .bind(at.as_micros())
        .execute(&mut *tx)
        .await
        .during(QUEUE)?;
        super::targets::queued(tx, registry, &target, host, inserted.last_insert_rowid(), at).await
    }
}

/// An event's id, which nobody has used before.
pub(super) fn new_id() -> EventId {
    EventId::parse(&Uuid::new_v4().to_string()).expect("a UUID is digits, letters and `-`")
}

fn action(event: &Event<'_>) -> Action {
    match event {
        Event::Pushed { .. } => Action::Push,
        Event::Deleted { .. } => Action::Delete,
        Event::RunFinished(_) => Action::RunFinished,
        Event::WaveFinished(_) => Action::WaveFinished,
    }
}

fn is_covered(scope: &Scope, event: &Event<'_>) -> bool {
    match event {
        Event::Pushed { repository, tag, .. } => scope.covers(repository, &[tag.as_str()]),
        Event::Deleted { repository, tags, .. } => scope.covers(repository, tags),
        Event::RunFinished(_) | Event::WaveFinished(_) => true,
    }
}

/// The webhooks that are to be told, and where they are.
async fn targets(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    event: &Event<'_>,
) -> Result<Vec<(WebhookName, String)>, StoreError> {
    let rows = sqlx::query(
        "SELECT name, host, scope FROM webhooks
         WHERE registry_id = ?1 AND enabled AND EXISTS (SELECT 1 FROM json_each(actions) WHERE value = ?2)",
    )
    .bind(registry.0)
    .bind(action(event).as_str())
    .fetch_all(tx)
    .await
    .during(QUEUE)?;
    let mut targets = Vec::new();
    for row in rows {
        if is_covered(&Scope::parse(row.try_get("scope").during(QUEUE)?).stored(QUEUE)?, event) {
            let name = WebhookName::parse(row.try_get("name").during(QUEUE)?).stored(QUEUE)?;
            targets.push((name, row.try_get("host").during(QUEUE)?));
        }
    }
    Ok(targets)
}

/// What ACR tells of the request that made the event.
fn request(host: &str, method: &str, agent: &str) -> Value {
    json!({ "id": Uuid::new_v4().to_string(), "host": host, "method": method, "useragent": agent })
}

/// What is told of a run, in the words of the REST API.
async fn told_of_run(tx: &mut SqliteConnection, registry: RegistryId, run: &Run) -> Result<Value, StoreError> {
    let run_type: String = sqlx::query_scalar("SELECT run_type FROM runs WHERE registry_id = ?1 AND number = ?2")
        .bind(registry.0)
        .bind(run_number(run.id))
        .fetch_one(&mut *tx)
        .await
        .during(QUEUE)?;
    let images = sqlx::query(
        "SELECT registry, repository, tag, digest FROM output_images
         WHERE registry_id = ?1 AND run_number = ?2 ORDER BY position",
    )
    .bind(registry.0)
    .bind(run_number(run.id))
    .fetch_all(tx)
    .await
    .during(QUEUE)?;
    let mut output_images = Vec::with_capacity(images.len());
    for row in &images {
        let text = |name| row.try_get::<&str, _>(name).during(QUEUE);
        output_images.push(json!({
            "registry": text("registry")?, "repository": text("repository")?, "tag": text("tag")?, "digest": text("digest")?,
        }));
    }
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    Ok(json!({
        "runId": run.id,
        "status": run.status().as_str(),
        "runType": run_type,
        "task": run.origin.task.as_ref().map(|task| task.name.as_str()),
        "trigger": run.origin.cause.trigger(),
        "principal": run.principal,
        "createTime": run.created.to_string(),
        "startTime": time(run.started),
        "finishTime": time(run.finished()),
        "runErrorMessage": run.error_message(),
        "outputImages": output_images,
    }))
}
