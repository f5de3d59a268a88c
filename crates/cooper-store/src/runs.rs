//! Runs in SQLite: accepted, changed by events, read.

mod accept;
mod apply;
mod expire;
mod explain;
pub(crate) mod outside_tags;
mod record;
mod request;
mod unfinished;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use cooper_engine::run::{Policy, Run, RunEvent, RunStatus};
use cooper_ports::hooks::SourceFiring;
use cooper_ports::runs::{
    AcceptError, AcceptRun, Accepted, Applied, ApplyError, AttemptError, Expired, Explanation, RunQuery, RunRecord,
    RunStore, SealedSecret, SecretKind, StoredRequest, UnfinishedChanges,
};
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::Firing;
use cooper_ports::waves::MemberRun;
use cooper_types::{AgentName, AttemptNumber, Digest, IdempotencyKey, PoolName, PrincipalName, RunId, Timestamp};
use sqlx::Row;

use accept::Occasion;

use crate::Store;
use crate::contexts::run_number;
use crate::logs::append::is_live;
use crate::sql_error::{During, Stored, UnknownValue};

/// Unfinished runs by status, from an index alone.
const COUNTING: &str = "SELECT status, count(*) AS runs FROM runs INDEXED BY runs_unfinished
     WHERE registry_id = ?1 AND finished IS NULL GROUP BY status";

/// An unfinished run's generation, from an index alone: states are large.
const GENERATION: &str = "SELECT generation FROM runs INDEXED BY runs_unfinished
     WHERE registry_id = ?1 AND number = ?2 AND finished IS NULL";

/// An agent's runs, beginning with the agent: SQLite keeps the order of a `CROSS JOIN`. Left to itself it goes through all
/// unfinished runs, for each report of each agent.
const OF_AGENT: &str = "SELECT r.state FROM run_agents a
     CROSS JOIN runs r ON r.registry_id = a.registry_id AND r.number = a.run_number
     WHERE a.registry_id = ?1 AND a.agent = ?2 AND r.finished IS NULL ORDER BY a.run_number";

#[async_trait]
impl RunStore for Store {
    async fn accept_run(&self, request: AcceptRun) -> Result<Accepted, AcceptError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| accept::accept(&mut tx, registry, clock.now(), request, None).await).await
    }

    async fn accept_firing(&self, request: AcceptRun, firing: Firing) -> Result<Accepted, AcceptError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let occasion = Some(Occasion::Timer(firing));
        self.write(async move |mut tx| accept::accept(&mut tx, registry, clock.now(), request, occasion).await).await
    }

    async fn accept_event(&self, request: AcceptRun, event: SourceFiring) -> Result<Accepted, AcceptError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let occasion = Some(Occasion::Event(event));
        self.write(async move |mut tx| accept::accept(&mut tx, registry, clock.now(), request, occasion).await).await
    }

    async fn accept_member(&self, request: AcceptRun, member: MemberRun) -> Result<Accepted, AcceptError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let occasion = Some(Occasion::Member(member));
        let accepted =
            self.write(async move |mut tx| accept::accept(&mut tx, registry, clock.now(), request, occasion).await);
        let accepted = accepted.await?;
        self.something_queued();
        Ok(accepted)
    }

    async fn expire_runs(&self, limit: u32) -> Result<Expired, StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| expire::expire(&mut tx, registry, now, limit).await).await
    }

    async fn archive_run(&self, run: RunId, archived: bool) -> Result<bool, StoreError> {
        let registry = self.registry_id();
        self.write(async move |mut tx| {
            let changed = sqlx::query("UPDATE runs SET archived = ?3 WHERE registry_id = ?1 AND number = ?2")
                .bind(registry.0)
                .bind(run_number(run))
                .bind(archived)
                .execute(&mut *tx)
                .await
                .during("archive run")?;
            Ok(changed.rows_affected() > 0)
        })
        .await
    }

    async fn run_of_request(
        &self,
        principal: &PrincipalName,
        key: &IdempotencyKey,
        request: &Digest,
    ) -> Result<Option<RunRecord>, AcceptError> {
        let mut tx = self.readers().begin().await.during("find run of request")?;
        accept::earlier(&mut tx, self.registry_id(), principal, key, request).await
    }

    async fn apply_event(&self, run: RunId, event: RunEvent, policy: &Policy) -> Result<Applied, ApplyError> {
        let (registry, clock, policy) = (self.registry_id(), self.clock().clone(), *policy);
        let ends_step = matches!(event, RunEvent::StepEnded { .. });
        let applied = self
            .write(async move |mut tx| {
                // The time is taken when the change runs, so that times of changes are in the order of changes.
                apply::apply(&mut tx, registry, clock.now(), run, event, &policy).await
            })
            .await?;
        if ends_step || applied.run.finished().is_some() {
            self.something_queued();
        }
        Ok(applied)
    }

    async fn explain_runs(&self, reasons: Vec<Explanation>, policy: &Policy) -> Result<Vec<(u64, Run)>, StoreError> {
        let (registry, clock, policy) = (self.registry_id(), self.clock().clone(), *policy);
        self.write(async move |mut tx| explain::explain(&mut tx, registry, clock.now(), reasons, &policy).await).await
    }

    async fn find_run(&self, run: RunId) -> Result<Option<RunRecord>, StoreError> {
        // One read transaction: the record, its images and its log are of one moment.
        let mut tx = self.readers().begin().await.during("find run")?;
        record::find(&mut tx, self.registry_id(), run).await
    }

    async fn unfinished_generation(&self, run: RunId) -> Result<Option<u64>, StoreError> {
        const LOOK: &str = "look at run";
        let query = sqlx::query_scalar(GENERATION).bind(self.registry_id().0).bind(run_number(run));
        let found: Option<i64> = query.fetch_optional(self.readers()).await.during(LOOK)?;
        found.map(u64::try_from).transpose().stored(LOOK)
    }

    async fn find_request(&self, run: RunId) -> Result<Option<StoredRequest>, StoreError> {
        let mut connection = self.readers().acquire().await.during("read request")?;
        request::find(&mut connection, self.registry_id(), run).await
    }

    async fn drop_request_texts(&self, kept: Duration, limit: u32) -> Result<u64, StoreError> {
        // A time that is longer than times go keeps everything.
        let kept = i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
        let (registry, now) = (self.registry_id(), self.clock().now());
        let ended = Timestamp::from_micros(now.as_micros().saturating_sub(kept));
        self.write(async move |mut tx| request::drop_texts(&mut tx, registry, ended, limit).await).await
    }

    async fn list_runs(&self, query: &RunQuery) -> Result<Vec<RunRecord>, StoreError> {
        let mut tx = self.readers().begin().await.during("list runs")?;
        record::list(&mut tx, self.registry_id(), query).await
    }

    async fn unfinished_changes(&self, known: &BTreeMap<RunId, u64>) -> Result<UnfinishedChanges, StoreError> {
        let mut tx = self.readers().begin().await.during("list unfinished runs")?;
        unfinished::changes(&mut tx, self.registry_id(), known).await
    }

    async fn runs_of_agent(&self, agent: &AgentName) -> Result<Vec<Run>, StoreError> {
        let states: Vec<String> = sqlx::query_scalar(OF_AGENT)
            .bind(self.registry_id().0)
            .bind(agent.as_str())
            .fetch_all(self.readers())
            .await
            .during("list an agent's runs")?;
        // One that can't be read must not keep the agent from its others; the look at all unfinished runs reports it.
        Ok(states.iter().filter_map(|state| serde_json::from_str(state).ok()).collect())
    }

    async fn unfinished_of_pool(&self, pool: &PoolName) -> Result<Vec<RunId>, StoreError> {
        let numbers: Vec<i64> = sqlx::query_scalar(
            "SELECT number FROM runs WHERE registry_id = ?1 AND pool = ?2 AND finished IS NULL ORDER BY number",
        )
        .bind(self.registry_id().0)
        .bind(pool.as_str())
        .fetch_all(self.readers())
        .await
        .during("list a pool's runs")?;
        numbers.into_iter().map(record::run_id).collect()
    }

    async fn count_unfinished(&self) -> Result<Vec<(RunStatus, u64)>, StoreError> {
        const COUNT: &str = "count unfinished runs";
        let rows = sqlx::query(COUNTING).bind(self.registry_id().0).fetch_all(self.readers()).await.during(COUNT)?;
        rows.iter()
            .map(|row| {
                let name: &str = row.try_get("status").during(COUNT)?;
                let status = RunStatus::parse(name).ok_or_else(|| UnknownValue::new("status of a run", name));
                let count: i64 = row.try_get("runs").during(COUNT)?;
                Ok((status.stored(COUNT)?, u64::try_from(count).stored(COUNT)?))
            })
            .collect()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM registries").fetch_one(self.readers()).await.map(drop).during("answer")
    }

    async fn run_secrets(&self, run: RunId, attempt: AttemptNumber) -> Result<Vec<SealedSecret>, AttemptError> {
        const READ: &str = "read secrets";
        let mut tx = self.readers().begin().await.during(READ)?;
        if !is_live(&mut tx, self.registry_id(), run, attempt).await? {
            return Err(AttemptError::NotLive { run, attempt });
        }
        let rows = sqlx::query(
            "SELECT kind, name, sealed FROM run_secrets WHERE registry_id = ?1 AND run_number = ?2 ORDER BY kind, name",
        )
        .bind(self.registry_id().0)
        .bind(run_number(run))
        .fetch_all(&mut *tx)
        .await
        .during(READ)?;
        let secrets = rows.iter().map(|row| {
            let kind: &str = row.try_get("kind").during(READ)?;
            let known = SecretKind::ALL.into_iter().find(|known| known.as_str() == kind);
            Ok::<_, StoreError>(SealedSecret {
                kind: known.ok_or_else(|| UnknownValue::new("kind of secret", kind)).stored(READ)?,
                name: row.try_get("name").during(READ)?,
                sealed: row.try_get("sealed").during(READ)?,
            })
        });
        Ok(secrets.collect::<Result<_, _>>()?)
    }
}
