//! Uploaded contexts in SQLite.

pub(crate) mod snapshots;

use std::time::Duration;

use async_trait::async_trait;
use cooper_ports::contexts::{Context, ContextState, ContextStore, SnapshotError, UploadContextError};
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, ContextId, Digest, PrincipalName, RegistryId, RunId, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::access::ensure_principal;
use crate::sql_error::{During, Stored};

/// The contexts of ended runs, those last whose runs ended last, as far as they and what is after them take up more than that.
const CONTEXTS_BEYOND: &str = "SELECT id FROM (
         SELECT id, ended, sum(size) OVER (ORDER BY ended DESC, id) AS kept FROM (
             SELECT c.id, c.size, max(r.finished) AS ended
             FROM contexts c JOIN runs r ON r.registry_id = c.registry_id AND r.context_id = c.id
             WHERE c.registry_id = ?1 AND c.state = 'uploaded'
             GROUP BY c.id HAVING count(*) = count(r.finished)
         )
     ) WHERE kept > ?2 ORDER BY ended, id DESC LIMIT ?3";

#[async_trait]
impl ContextStore for Store {
    async fn create_context(
        &self,
        id: ContextId,
        principal: PrincipalName,
        expires: Timestamp,
    ) -> Result<Context, StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| {
            ensure_principal(&mut tx, registry, &principal, now).await?;
            sqlx::query(
                "INSERT INTO contexts (registry_id, id, principal, state, created, expires)
                 VALUES (?1, ?2, ?3, 'created', ?4, ?5)",
            )
            .bind(registry.0)
            .bind(id.as_str())
            .bind(principal.as_str())
            .bind(now.as_micros())
            .bind(expires.as_micros())
            .execute(&mut *tx)
            .await
            .during("write context")?;
            Ok(Context { id, principal, state: ContextState::Created, created: now, expires })
        })
        .await
    }

    async fn find_context(&self, id: &ContextId, principal: &PrincipalName) -> Result<Option<Context>, StoreError> {
        let mut connection = self.readers().acquire().await.during("find context")?;
        find(&mut connection, self.registry_id(), id, principal).await
    }

    async fn mark_uploaded(
        &self,
        id: &ContextId,
        principal: &PrincipalName,
        size: u64,
        digest: &Digest,
    ) -> Result<Context, UploadContextError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        let (id, principal, digest) = (id.clone(), principal.clone(), digest.clone());
        self.write(async move |mut tx| {
            let Some(mut context) = find(&mut tx, registry, &id, &principal).await? else {
                return Err(UploadContextError::Unknown(id));
            };
            let uploaded = ContextState::Uploaded { size, digest };
            match &context.state {
                ContextState::Created => {}
                state if *state == uploaded => return Ok(context),
                ContextState::Uploaded { .. } | ContextState::Deleted => return Err(UploadContextError::Uploaded(id)),
            }
            if context.expires <= now {
                return Err(UploadContextError::Expired(id));
            }
            let ContextState::Uploaded { digest, .. } = &uploaded else { return Ok(context) };
            sqlx::query(
                "UPDATE contexts SET state = 'uploaded', size = ?3, digest = ?4 WHERE registry_id = ?1 AND id = ?2",
            )
            .bind(registry.0)
            .bind(id.as_str())
            .bind(i64::try_from(size).stored("write context")?)
            .bind(digest.as_str())
            .execute(&mut *tx)
            .await
            .during("write context")?;
            context.state = uploaded;
            Ok(context)
        })
        .await
    }

    async fn create_snapshot(&self, id: ContextId, run: RunId, attempt: AttemptNumber) -> Result<(), SnapshotError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| snapshots::create(&mut tx, registry, clock.now(), id, run, attempt).await).await
    }

    async fn snapshot_waits(&self, id: &ContextId, run: RunId, attempt: AttemptNumber) -> Result<bool, StoreError> {
        const LOOK: &str = "look at snapshot";
        sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM contexts c JOIN live_attempts a
                     ON a.registry_id = c.registry_id AND a.run_number = c.run_number AND a.attempt = c.attempt
                 WHERE c.registry_id = ?1 AND c.id = ?2 AND c.run_number = ?3 AND c.attempt = ?4 AND c.state = 'created'
             )",
        )
        .bind(self.registry_id().0)
        .bind(id.as_str())
        .bind(run_number(run))
        .bind(i64::try_from(attempt.0).stored(LOOK)?)
        .fetch_one(self.readers())
        .await
        .during(LOOK)
    }

    async fn mark_snapshot(
        &self,
        id: &ContextId,
        run: RunId,
        attempt: AttemptNumber,
        size: u64,
        digest: &Digest,
    ) -> Result<(), SnapshotError> {
        let (registry, id, digest) = (self.registry_id(), id.clone(), digest.clone());
        self.write(async move |mut tx| snapshots::mark(&mut tx, registry, id, run, attempt, size, &digest).await).await
    }

    async fn context_of_run(&self, run: RunId) -> Result<Option<Context>, StoreError> {
        let row = sqlx::query(
            "SELECT c.id, c.principal, c.state, c.size, c.digest, c.created, c.expires
             FROM runs r JOIN contexts c ON c.registry_id = r.registry_id AND c.id = r.context_id
             WHERE r.registry_id = ?1 AND r.number = ?2 AND r.finished IS NULL AND c.state <> 'deleted'",
        )
        .bind(self.registry_id().0)
        .bind(run_number(run))
        .fetch_optional(self.readers())
        .await
        .during("find context of run")?;
        row.as_ref().map(context).transpose()
    }

    async fn expire_contexts(&self, kept: Duration, limit: u32) -> Result<Vec<ContextId>, StoreError> {
        // A time that is longer than times go keeps everything.
        let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| {
            let ids: Vec<String> = sqlx::query_scalar(
                "UPDATE contexts SET state = 'deleted' WHERE registry_id = ?1 AND id IN (
                     SELECT c.id FROM contexts c WHERE c.registry_id = ?1 AND (c.state = 'deleted' OR (
                         c.expires <= ?2 AND NOT EXISTS (
                             SELECT 1 FROM runs r
                             WHERE r.registry_id = c.registry_id AND r.context_id = c.id
                             AND (r.finished IS NULL OR r.finished > ?4)
                         ) AND NOT EXISTS (
                             SELECT 1 FROM live_attempts a
                             WHERE a.registry_id = c.registry_id AND a.run_number = c.run_number AND a.attempt = c.attempt
                         )
                     )) ORDER BY c.expires LIMIT ?3
                 ) RETURNING id",
            )
            .bind(registry.0)
            .bind(now.as_micros())
            .bind(limit)
            .bind(now.as_micros().saturating_sub(kept))
            .fetch_all(&mut *tx)
            .await
            .during("expire contexts")?;
            ids.iter().map(|id| ContextId::parse(id).stored("read context")).collect()
        })
        .await
    }

    async fn cut_contexts(&self, bytes: u64, limit: u32) -> Result<Vec<ContextId>, StoreError> {
        const CUT: &str = "cut contexts";
        let (registry, bytes) = (self.registry_id(), i64::try_from(bytes).unwrap_or(i64::MAX));
        // What is looked at are all contexts of ended runs: not in a transaction that others wait for.
        let old: Vec<String> = sqlx::query_scalar(CONTEXTS_BEYOND)
            .bind(registry.0)
            .bind(bytes)
            .bind(limit)
            .fetch_all(self.readers())
            .await
            .during(CUT)?;
        if old.is_empty() {
            return Ok(Vec::new());
        }
        let old = serde_json::to_string(&old).stored(CUT)?;
        self.write(async move |mut tx| {
            let ids: Vec<String> = sqlx::query_scalar(
                "UPDATE contexts SET state = 'deleted'
                 WHERE registry_id = ?1 AND state = 'uploaded' AND id IN (SELECT value FROM json_each(?2))
                   AND NOT EXISTS (
                       SELECT 1 FROM runs r
                       WHERE r.registry_id = contexts.registry_id AND r.context_id = contexts.id AND r.finished IS NULL
                   ) RETURNING id",
            )
            .bind(registry.0)
            .bind(old)
            .fetch_all(&mut *tx)
            .await
            .during(CUT)?;
            ids.iter().map(|id| ContextId::parse(id).stored("read context")).collect()
        })
        .await
    }

    async fn unknown_contexts(&self, ids: Vec<ContextId>) -> Result<Vec<ContextId>, StoreError> {
        const READ: &str = "look for contexts";
        let asked = serde_json::to_string(&ids).stored(READ)?;
        let unknown: Vec<String> = sqlx::query_scalar(
            "SELECT value FROM json_each(?2)
             WHERE value NOT IN (SELECT id FROM contexts WHERE registry_id = ?1)",
        )
        .bind(self.registry_id().0)
        .bind(asked)
        .fetch_all(self.readers())
        .await
        .during(READ)?;
        Ok(ids.into_iter().filter(|id| unknown.iter().any(|unknown| unknown == id.as_str())).collect())
    }

    async fn forget_contexts(&self, ids: &[ContextId]) -> Result<(), StoreError> {
        let registry = self.registry_id();
        let ids = serde_json::to_string(ids).stored("write context ids")?;
        self.write(async move |mut tx| {
            sqlx::query(
                "DELETE FROM contexts WHERE registry_id = ?1 AND state = 'deleted'
                 AND id IN (SELECT value FROM json_each(?2))",
            )
            .bind(registry.0)
            .bind(ids)
            .execute(&mut *tx)
            .await
            .map(drop)
            .during("forget contexts")
        })
        .await
    }
}

/// The context with this id, if it is the principal's and not deleted. A snapshot is its attempt's alone.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    id: &ContextId,
    principal: &PrincipalName,
) -> Result<Option<Context>, StoreError> {
    let row = sqlx::query(
        "SELECT id, principal, state, size, digest, created, expires FROM contexts
         WHERE registry_id = ?1 AND id = ?2 AND principal = ?3 AND run_number IS NULL AND state <> 'deleted'",
    )
    .bind(registry.0)
    .bind(id.as_str())
    .bind(principal.as_str())
    .fetch_optional(connection)
    .await
    .during("find context")?;
    row.as_ref().map(context).transpose()
}

/// A run's number as the database counts it.
pub(crate) fn run_number(run: RunId) -> i64 {
    // Numbers come from a counter of the database; one beyond its range is nobody's.
    i64::try_from(run.number()).unwrap_or(i64::MAX)
}

fn context(row: &SqliteRow) -> Result<Context, StoreError> {
    const READ: &str = "read context";
    let text = |column: &str| row.try_get::<&str, _>(column).during(READ);
    let state = match text("state")? {
        "uploaded" => ContextState::Uploaded {
            size: u64::try_from(row.try_get::<i64, _>("size").during(READ)?).stored(READ)?,
            digest: Digest::parse(text("digest")?).stored(READ)?,
        },
        "created" => ContextState::Created,
        _ => ContextState::Deleted,
    };
    Ok(Context {
        id: ContextId::parse(text("id")?).stored(READ)?,
        principal: PrincipalName::parse(text("principal")?).stored(READ)?,
        state,
        created: Timestamp::from_micros(row.try_get("created").during(READ)?),
        expires: Timestamp::from_micros(row.try_get("expires").during(READ)?),
    })
}
