//! Accepting a run: everything that makes it exist, in one transaction.

use cooper_engine::run::{AcceptedRun, Run};
use cooper_ports::contexts::ContextState;
use cooper_ports::hooks::SourceFiring;
use cooper_ports::logs::{LogEnd, NewFrame};
use cooper_ports::runs::{AcceptError, AcceptRun, Accepted, RunRecord, RunType, SealedSecret, SecretKind};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{Firing, Instant};
use cooper_ports::waves::MemberRun;
use cooper_types::{ContextId, Digest, IdempotencyKey, PoolName, PrincipalName, RegistryId, RunId, Timestamp};
use sqlx::{Row, SqliteConnection};

use super::apply::log_written;
use super::record;
use crate::batch::Batch;
use crate::contexts::{self, run_number};
use crate::logs::append::{Author, append};
use crate::outbox;
use crate::sql_error::{During, Stored};
use crate::tasks::{hooks, statuses, timers};
use crate::waves;

const ACCEPT: &str = "accept run";
/// A day in microseconds.
const DAY: i64 = 24 * 3600 * 1_000_000;

/// What a run is accepted for, where that happens in the same transaction.
pub(super) enum Occasion {
    /// The instant of a timer.
    Timer(Firing),
    /// An event of a repository.
    Event(SourceFiring),
    /// A member of a wave.
    Member(MemberRun),
}

pub(super) async fn accept(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    request: AcceptRun,
    occasion: Option<Occasion>,
) -> Result<Accepted, AcceptError> {
    let principal = &request.run.principal;
    if let Some((key, hash)) = &request.idempotency
        && let Some(record) = earlier(tx, registry, principal, key, hash).await?
    {
        return Ok(Accepted { record, repeated: true });
    }
    let (id, mark) = begin(tx, registry, now, principal, &request.run.pool).await?;
    // An engine's caches are shared by all that it builds.
    match (mark, request.run.origin.untrusted) {
        (None, _) => return Err(AcceptError::UnknownPool(request.run.pool)),
        (Some(false), true) => return Err(AcceptError::PoolNotForStrangers(request.run.pool)),
        (Some(true), false) => return Err(AcceptError::PoolForStrangers(request.run.pool)),
        (Some(true), true) | (Some(false), false) => {}
    }
    // Where a source is to be fetched, a prepare attempt brings the context.
    let context = request.run.asked.context();
    let uploaded = match (context, request.context_of) {
        (None, _) => None,
        (Some(context), None) => Some(check_context(tx, registry, context, principal, now).await?),
        (Some(context), Some(run)) => Some(context_of(tx, registry, context, run, principal).await?),
    };
    let mut batch = Batch::new();
    let AcceptedRun { run, texts, notes, kept_texts } = request.run.accept(id, now)?;
    if let Some(Occasion::Timer(firing)) = &occasion
        && !timers::moved(tx, registry, now, firing, Ok(id)).await?
    {
        let Instant { task, timer, .. } = firing.instant.clone();
        return Err(AcceptError::TimerMoved { task, timer });
    }
    if let Some(Occasion::Event(event)) = &occasion {
        hooks::fired(tx, &mut batch, registry, event, id).await?;
    }
    let mut notice = None;
    if let Some(Occasion::Member(member)) = occasion {
        if !waves::accepted(tx, registry, &member, id).await? {
            let MemberRun { wave, member, .. } = member;
            return Err(AcceptError::MemberMoved { wave, member });
        }
        notice = member.notice;
    }
    insert(&mut batch, registry, &run, context, request.run_type, request.idempotency.as_ref())?;
    statuses::begin(&mut batch, registry, now, &run);
    super::request::insert(&mut batch, registry, id, &request.run.kept_request(), &kept_texts, uploaded.as_ref())?;
    batch.execute(tx).await.during(ACCEPT)?;
    for secret in &request.secrets {
        insert_secret(tx, registry, id, secret).await?;
    }
    let is_there = |name: &str| request.secrets.iter().any(|one| one.kind == SecretKind::Value && one.name == name);
    for (name, text) in texts.into_iter().filter(|(name, _)| !is_there(name)) {
        let sealed = (request.seal.0)(&name, &text);
        insert_secret(tx, registry, id, &SealedSecret { kind: SecretKind::Value, name, sealed }).await?;
    }
    let mut log = LogEnd { frame_offset: 0, text_offset: 0, complete: false };
    if !notes.is_empty() {
        let frames = notes.iter().map(|note| NewFrame::service(now, note)).collect();
        log = log_written(append(tx, registry, id, Author::Server, frames).await)?.end;
    }
    if let Some(notice) = notice {
        outbox::queue_update_notice(tx, registry, now, &run, &notice).await?;
    }
    let record = RunRecord {
        run,
        run_type: request.run_type,
        updated: now,
        log,
        archived: false,
        output_images: Vec::new(),
        base_images: Vec::new(),
    };
    Ok(Accepted { record, repeated: false })
}

/// The run that an earlier request of this key made, if it was the same request.
pub(super) async fn earlier(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    principal: &PrincipalName,
    key: &IdempotencyKey,
    hash: &Digest,
) -> Result<Option<RunRecord>, AcceptError> {
    let row = sqlx::query(
        "SELECT number, request_hash FROM runs WHERE registry_id = ?1 AND principal = ?2 AND idempotency_key = ?3",
    )
    .bind(registry.0)
    .bind(principal.as_str())
    .bind(key.as_str())
    .fetch_optional(&mut *tx)
    .await
    .during(ACCEPT)?;
    let Some(row) = row else { return Ok(None) };
    let run = record::run_id(row.try_get("number").during(ACCEPT)?)?;
    if row.try_get::<&str, _>("request_hash").during(ACCEPT)? != hash.as_str() {
        return Err(AcceptError::KeyReused { key: key.clone(), run });
    }
    Ok(record::find(tx, registry, run).await?)
}

async fn check_context(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    id: &ContextId,
    principal: &PrincipalName,
    now: Timestamp,
) -> Result<(u64, Digest), AcceptError> {
    let context = contexts::find(tx, registry, id, principal).await?;
    let context = context.filter(|context| now < context.expires);
    match context.map(|context| context.state) {
        Some(ContextState::Uploaded { size, digest }) => Ok((size, digest)),
        Some(ContextState::Created) => Err(AcceptError::ContextNotUploaded(id.clone())),
        Some(ContextState::Deleted) | None => Err(AcceptError::UnknownContext(id.clone())),
    }
}

/// The size and digest of a context that another run of the principal has used, and that is still there.
async fn context_of(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    id: &ContextId,
    run: RunId,
    principal: &PrincipalName,
) -> Result<(u64, Digest), AcceptError> {
    let row = sqlx::query(
        "SELECT c.size, c.digest FROM runs r JOIN contexts c ON c.registry_id = r.registry_id AND c.id = r.context_id
         WHERE r.registry_id = ?1 AND r.number = ?2 AND c.id = ?3 AND c.state = 'uploaded' AND r.principal = ?4",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(id.as_str())
    .bind(principal.as_str())
    .fetch_optional(tx)
    .await
    .during(ACCEPT)?;
    let Some(row) = row else { return Err(AcceptError::UnknownContext(id.clone())) };
    let size = u64::try_from(row.try_get::<i64, _>("size").during(ACCEPT)?).stored(ACCEPT)?;
    Ok((size, Digest::parse(row.try_get("digest").during(ACCEPT)?).stored(ACCEPT)?))
}

/// Makes sure that the principal is there, and gives the run its number, which a refusal rolls back; and tells whether the
/// pool is one for strangers, if it is there.
async fn begin(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    principal: &PrincipalName,
    pool: &PoolName,
) -> Result<(RunId, Option<bool>), StoreError> {
    // One call for both statements: each is a journey to SQLite's thread and back.
    let row = sqlx::query(
        "INSERT INTO principals (registry_id, name, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING;
         UPDATE registries SET run_counter = run_counter + 1 WHERE id = ?1
         RETURNING run_counter, (SELECT untrusted FROM pools WHERE registry_id = ?1 AND name = ?4) AS untrusted",
    )
    .bind(registry.0)
    .bind(principal.as_str())
    .bind(now.as_micros())
    .bind(pool.as_str())
    .fetch_one(tx)
    .await
    .during(ACCEPT)?;
    let number = record::run_id(row.try_get("run_counter").during(ACCEPT)?)?;
    Ok((number, row.try_get("untrusted").during(ACCEPT)?))
}

fn insert(
    batch: &mut Batch,
    registry: RegistryId,
    run: &Run,
    context: Option<&ContextId>,
    run_type: RunType,
    idempotency: Option<&(IdempotencyKey, Digest)>,
) -> Result<(), StoreError> {
    let platforms: Vec<String> = run.plan.placements.iter().map(|placement| placement.platform.to_string()).collect();
    let state = serde_json::to_string(run).stored(ACCEPT)?;
    let task = run.origin.task.as_ref();
    let columns = "runs (registry_id, number, status, run_type, principal, platform, context_id, state, generation,
                         created, updated, idempotency_key, request_hash, pool, task, keep_run, keep_log)";
    batch.insert(columns, |row| {
        row.push_bind(registry.0)
            .push_bind(run_number(run.id))
            .push_bind(run.status().as_str())
            .push_bind(run_type.as_str())
            .push_bind(run.principal.as_str())
            .push_bind(platforms.join(","))
            .push_bind(context.map(ContextId::as_str))
            .push_bind(state)
            .push_bind(1)
            .push_bind(run.created.as_micros())
            .push_bind(run.created.as_micros())
            .push_bind(idempotency.map(|(key, _)| key.as_str()))
            .push_bind(idempotency.map(|(_, hash)| hash.as_str()))
            .push_bind(run.pool.as_str())
            .push_bind(task.map(|task| task.name.key()))
            .push_bind(task.map(|task| i64::from(task.retention.runs) * DAY))
            .push_bind(task.map(|task| i64::from(task.retention.logs) * DAY));
    });
    Ok(())
}

pub(super) async fn insert_secret(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    secret: &SealedSecret,
) -> Result<(), AcceptError> {
    let inserted = sqlx::query(
        "INSERT INTO run_secrets (registry_id, run_number, kind, name, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO NOTHING",
    )
    .bind(registry.0)
    .bind(run_number(run))
    .bind(secret.kind.as_str())
    .bind(&secret.name)
    .bind(&secret.sealed)
    .execute(tx)
    .await
    .during("write secret")?;
    if inserted.rows_affected() == 0 {
        return Err(AcceptError::SecretTwice(secret.name.clone()));
    }
    Ok(())
}
