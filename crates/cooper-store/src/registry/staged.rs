//! Staged tags: written by attempts, made real by the transaction that completes their step.
//!
//! A run that an event of a repository set off moves no tag that a newer run of the same task and branch has moved: whose
//! build took longer must not take the tag back. A run's place is its number, which it got when it was accepted.
//!
//! An agent pushes one staging tag for each repository, unique to its run and attempt, so that two runs of one tag never
//! meet in an engine; the plan says which tags it stands for.

use std::collections::BTreeSet;

use cooper_engine::task::TagOrder;
use cooper_ports::registry::{AttemptRef, PromoteError, PromotedTag, STAGED_LIFETIME, StagedTarget};
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, Digest, RegistryId, RepositoryName, RunId, Tag, Timestamp};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::attempt_number;
use super::manifests::{PUSHED, move_tag};
use crate::contexts::run_number;
use crate::events;
use crate::outbox;
use crate::sql_error::{During, Stored};
use crate::waves::edges::tag_moves;

const PROMOTE: &str = "promote staged tags";

/// What is told of who pushed the tags of a run.
const AGENT: &str = "cooper";

/// Writes a staged tag, or moves it.
pub(super) async fn stage(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    attempt: &AttemptRef,
    repository: i64,
    tag: &Tag,
    digest: &Digest,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO staged_tags (registry_id, run_number, step_id, attempt, repository_id, tag, digest, expires)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET digest = excluded.digest, expires = excluded.expires",
    )
    .bind(registry.0)
    .bind(run_number(attempt.run))
    .bind(attempt.step.as_str())
    .bind(attempt_number(attempt))
    .bind(repository)
    .bind(tag.as_str())
    .bind(digest.as_str())
    .bind(now.after(STAGED_LIFETIME).as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during("stage tag")
}

/// What became of a step's tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Promotion {
    /// The tags that were moved.
    pub(crate) moved: Vec<PromotedTag>,
    /// The tags that stay where a newer run has moved them.
    pub(crate) kept: Vec<(RepositoryName, Tag, RunId)>,
}

/// Makes an attempt's staged tags real: a target's staging tag moves the target's tags and nothing else is moved, so that
/// an agent can't move what the plan does not name. Without targets, each staged tag moves the tag of its own name. All
/// rows of the attempt are gone after that, and each moved tag is a `pushed` event.
///
/// This is a part of the transaction that completes the step; an error must roll that back.
pub(crate) async fn promote_staged(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    attempt: &AttemptRef,
    targets: &[StagedTarget],
    order: Option<&TagOrder>,
    now: Timestamp,
) -> Result<Promotion, PromoteError> {
    let staged = of_attempt(tx, registry, attempt).await?;
    drop_staged(tx, registry, attempt.run, attempt.attempt).await?;
    let mut wanted: Vec<(&StagedRow, &Tag)> = Vec::new();
    // A tag moves once: what the plan says of it counts before what the step pushed under its name.
    let mut moved = BTreeSet::new();
    for target in targets {
        let row = find_target(&staged, attempt, target)?;
        for tag in &target.tags {
            if moved.insert((&row.repository, tag)) {
                wanted.push((row, tag));
            }
        }
    }
    if targets.is_empty() {
        wanted.extend(staged.iter().map(|row| (row, &row.tag)));
    }
    let mut promotion = Promotion::default();
    for (row, tag) in wanted {
        match order {
            Some(order) if let Some(newer) = row.newer(tx, registry, attempt.run, tag, order).await? => {
                promotion.kept.push((row.repository.clone(), tag.clone(), newer));
            }
            _ => promotion.moved.push(row.promote(tx, registry, attempt, tag, now).await?),
        }
    }
    Ok(promotion)
}

/// Makes a tag real that an attempt staged under that very name, if it did. What else it staged stays as it is.
pub(crate) async fn promote_own(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    attempt: &AttemptRef,
    (repository, tag): (&RepositoryName, &Tag),
    now: Timestamp,
) -> Result<(), StoreError> {
    let staged = of_attempt(tx, registry, attempt).await?;
    if let Some(row) = staged.iter().find(|row| row.repository == *repository && row.tag == *tag) {
        row.promote(tx, registry, attempt, tag, now).await?;
    }
    Ok(())
}

/// Looks whether an attempt has staged all of this. It stays staged.
pub(crate) async fn check_staged(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    attempt: &AttemptRef,
    targets: &[StagedTarget],
) -> Result<(), PromoteError> {
    let staged = of_attempt(tx, registry, attempt).await?;
    targets.iter().try_for_each(|target| find_target(&staged, attempt, target).map(drop))
}

fn find_target<'s>(
    staged: &'s [StagedRow],
    attempt: &AttemptRef,
    target: &StagedTarget,
) -> Result<&'s StagedRow, PromoteError> {
    staged.iter().find(|row| row.stands_for(target)).ok_or_else(|| PromoteError::NotPushed {
        attempt: attempt.clone(),
        repository: target.repository.clone(),
        staging: target.staging.clone(),
    })
}

/// Drops what an attempt has staged: it was lost, or its step ended without it.
pub(crate) async fn drop_staged(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: RunId,
    attempt: AttemptNumber,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM staged_tags WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3")
        .bind(registry.0)
        .bind(run_number(run))
        .bind(i64::try_from(attempt.0).unwrap_or(i64::MAX))
        .execute(tx)
        .await
        .map(drop)
        .during("drop staged tags")
}

/// Drops what nobody promoted in time, and says how many.
pub(super) async fn expire(tx: &mut SqliteConnection, registry: RegistryId, now: Timestamp) -> Result<u64, StoreError> {
    let expired = sqlx::query("DELETE FROM staged_tags WHERE registry_id = ?1 AND expires <= ?2")
        .bind(registry.0)
        .bind(now.as_micros())
        .execute(tx)
        .await
        .during("expire staged tags")?;
    Ok(expired.rows_affected())
}

/// A staged tag.
struct StagedRow {
    repository_id: i64,
    repository: RepositoryName,
    tag: Tag,
    digest: Digest,
}

impl StagedRow {
    fn stands_for(&self, target: &StagedTarget) -> bool {
        let is_said = target.digest.as_ref().is_none_or(|digest| *digest == self.digest);
        self.repository == target.repository && self.tag == target.staging && is_said
    }

    /// The newer run of the order that a real tag is left to. Where there is none, the run is written down as the one that
    /// moves it now, as long as an older one may want to.
    async fn newer(
        &self,
        tx: &mut SqliteConnection,
        registry: RegistryId,
        run: RunId,
        tag: &Tag,
        order: &TagOrder,
    ) -> Result<Option<RunId>, StoreError> {
        let last: Option<i64> = sqlx::query_scalar(
            "SELECT max(run_number) FROM tag_order
             WHERE registry_id = ?1 AND task = ?2 AND line IN (?3, '') AND repository_id = ?4 AND tag = ?5",
        )
        .bind(registry.0)
        .bind(order.task.key())
        .bind(&order.line)
        .bind(self.repository_id)
        .bind(tag.as_str())
        .fetch_one(&mut *tx)
        .await
        .during(PROMOTE)?;
        if let Some(last) = last.filter(|last| order.yields && *last > run_number(run)) {
            return Ok(Some(RunId::from_number(u64::try_from(last).stored(PROMOTE)?)));
        }
        // Of a task that is gone nothing is kept; nor where no older run goes on, which could come late.
        sqlx::query(
            "INSERT INTO tag_order (registry_id, task, line, repository_id, tag, run_number)
             SELECT registry_id, task, ?3, ?4, ?5, ?6 FROM tasks WHERE registry_id = ?1 AND task = ?2 AND EXISTS (
                 SELECT 1 FROM runs r INDEXED BY runs_unfinished_of_task
                 WHERE r.registry_id = ?1 AND r.task = ?2 AND r.number < ?6 AND r.finished IS NULL)
             ON CONFLICT DO UPDATE SET run_number = max(run_number, excluded.run_number)",
        )
        .bind(registry.0)
        .bind(order.task.key())
        .bind(&order.line)
        .bind(self.repository_id)
        .bind(tag.as_str())
        .bind(run_number(run))
        .execute(tx)
        .await
        .during(PROMOTE)?;
        Ok(None)
    }

    /// Moves a real tag to where this one points, and announces it.
    async fn promote(
        &self,
        tx: &mut SqliteConnection,
        registry: RegistryId,
        attempt: &AttemptRef,
        tag: &Tag,
        now: Timestamp,
    ) -> Result<PromotedTag, StoreError> {
        let repository = (self.repository_id, &self.repository);
        tag_moves(tx, registry, now, repository, tag, &self.digest, Some(attempt.run)).await?;
        move_tag(tx, self.repository_id, now, tag, &self.digest, Some(attempt.run)).await?;
        let payload = json!({
            "repository": self.repository, "tag": tag, "digest": self.digest,
            "run": attempt.run, "step": attempt.step, "attempt": attempt.attempt,
        });
        events::insert(tx, registry, PUSHED, &payload, now).await?;
        let (id, repository, digest) = (self.repository_id, &self.repository, &self.digest);
        outbox::queue(tx, registry, now, &outbox::Event::Pushed { id, repository, tag, digest, agent: AGENT }).await?;
        Ok(PromotedTag { repository: self.repository.clone(), tag: tag.clone(), digest: self.digest.clone() })
    }
}

/// An attempt's staged tags, in order of repository and tag.
async fn of_attempt(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    attempt: &AttemptRef,
) -> Result<Vec<StagedRow>, StoreError> {
    let rows = sqlx::query(
        "SELECT repository_id, repositories.name, tag, digest FROM staged_tags
         JOIN repositories ON repositories.id = repository_id
         WHERE staged_tags.registry_id = ?1 AND run_number = ?2 AND attempt = ?3 AND step_id = ?4
         ORDER BY repositories.name, tag",
    )
    .bind(registry.0)
    .bind(run_number(attempt.run))
    .bind(attempt_number(attempt))
    .bind(attempt.step.as_str())
    .fetch_all(&mut *tx)
    .await
    .during(PROMOTE)?;
    let staged = rows.iter().map(|row| {
        Ok(StagedRow {
            repository_id: row.try_get("repository_id").during(PROMOTE)?,
            repository: RepositoryName::parse(row.try_get("name").during(PROMOTE)?).stored(PROMOTE)?,
            tag: Tag::parse(row.try_get("tag").during(PROMOTE)?).stored(PROMOTE)?,
            digest: Digest::parse(row.try_get("digest").during(PROMOTE)?).stored(PROMOTE)?,
        })
    });
    staged.collect::<Result<_, StoreError>>()
}
