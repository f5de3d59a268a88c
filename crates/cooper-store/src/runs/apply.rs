//! Applying an event: the engine decides, this writes the new state and every effect that belongs to it.

use std::collections::BTreeSet;

use cooper_engine::message::BaseImage;
use cooper_engine::run::{Effect, Placement, Policy, Run, RunEvent, SealedText, TagTarget};
use cooper_ports::logs::{AppendError, LogEnd, NewFrame};
use cooper_ports::registry::{AttemptRef, PromoteError, PromotedTag, StagedTarget};
use cooper_ports::runs::{AcceptError, Applied, ApplyError, SealedSecret, SecretKind};
use cooper_ports::store_error::StoreError;
use cooper_types::{
    AgentName, AttemptNumber, ContextId, Digest, Fence, ImageRef, RegistryId, RunId, StepId, Timestamp,
};
use sqlx::{Row, SqliteConnection};

use super::accept::insert_secret;
use super::{outside_tags, request};
use crate::contexts::{run_number, snapshots};
use crate::events;
use crate::logs::append::{Author, append, complete};
use crate::outbox;
use crate::registry::{Promotion, check_staged, drop_staged, expire_of_attempt, promote_own, promote_staged};
use crate::sql_error::{During, Stored, UnknownValue};
use crate::tasks::statuses;
use crate::waves::edges;

const APPLY: &str = "change run";

pub(super) async fn apply(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    id: RunId,
    event: RunEvent,
    policy: &Policy,
) -> Result<Applied, ApplyError> {
    let (mut run, generation) = load(tx, registry, id).await?.ok_or(ApplyError::Unknown(id))?;
    let agents = agents_of(&run);
    let effects = run.apply(event, now, policy).map_err(|refusal| ApplyError::Refused { run: id, refusal })?;
    save(tx, registry, &run, generation, now).await?;
    if agents_of(&run) != agents {
        save_agents(tx, registry, &run).await?;
    }
    let mut change = Change { tx, registry, run: &run, now, send: Vec::new(), log_end: None };
    for effect in effects {
        change.effect(effect).await?;
    }
    let Change { send, log_end, .. } = change;
    let generation = u64::try_from(generation + 1).stored(APPLY)?;
    Ok(Applied { run, generation, send, log_end })
}

async fn load(tx: &mut SqliteConnection, registry: RegistryId, id: RunId) -> Result<Option<(Run, i64)>, StoreError> {
    let row = sqlx::query("SELECT state, generation FROM runs WHERE registry_id = ?1 AND number = ?2")
        .bind(registry.0)
        .bind(run_number(id))
        .fetch_optional(tx)
        .await
        .during(APPLY)?;
    let Some(row) = row else { return Ok(None) };
    let run = serde_json::from_str(row.try_get("state").during(APPLY)?).stored(APPLY)?;
    Ok(Some((run, row.try_get("generation").during(APPLY)?)))
}

async fn save(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    run: &Run,
    generation: i64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let saved = sqlx::query(
        "UPDATE runs SET state = ?4, generation = generation + 1, status = ?5, started = ?6, finished = ?7, updated = ?8
         WHERE registry_id = ?1 AND number = ?2 AND generation = ?3",
    )
    .bind(registry.0)
    .bind(run_number(run.id))
    .bind(generation)
    .bind(serde_json::to_string(run).stored(APPLY)?)
    .bind(run.status().as_str())
    .bind(run.started.map(Timestamp::as_micros))
    .bind(run.finished().map(Timestamp::as_micros))
    .bind(now.as_micros())
    .execute(tx)
    .await
    .during(APPLY)?;
    if saved.rows_affected() != 1 {
        // One writer makes this impossible; a second one would be found here and not in torn state.
        return Err(UnknownValue::new("generation", &generation.to_string())).stored(APPLY);
    }
    Ok(())
}

/// The names of the agents that hold a placement or are asked to.
fn agents_of(run: &Run) -> BTreeSet<AgentName> {
    run.placements.iter().filter_map(Placement::lease).map(|lease| lease.agent.name.clone()).collect()
}

/// Writes down whose the run's placements are now.
async fn save_agents(tx: &mut SqliteConnection, registry: RegistryId, run: &Run) -> Result<(), StoreError> {
    const WRITE: &str = "write a run's agents";
    let agents = serde_json::to_string(&agents_of(run)).stored(WRITE)?;
    // One call for both statements: each is a journey to SQLite's thread and back.
    sqlx::query(
        "DELETE FROM run_agents WHERE registry_id = ?1 AND run_number = ?2;
         INSERT INTO run_agents (registry_id, run_number, agent) SELECT ?1, ?2, value FROM json_each(?3)",
    )
    .bind(registry.0)
    .bind(run_number(run.id))
    .bind(agents)
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// One event's effects on their way into the transaction.
struct Change<'a> {
    tx: &'a mut SqliteConnection,
    registry: RegistryId,
    /// The run after the event.
    run: &'a Run,
    now: Timestamp,
    send: Vec<Effect>,
    log_end: Option<LogEnd>,
}

impl Change<'_> {
    async fn effect(&mut self, effect: Effect) -> Result<(), ApplyError> {
        match effect {
            Effect::AttemptBegan { step, attempt, fence } => self.attempt_began(step, attempt, fence).await?,
            Effect::AttemptEnded { step, attempt } => self.attempt_ended(step, attempt).await?,
            Effect::PublishTags { step, attempt, targets } => self.publish_tags(step, attempt, targets).await?,
            Effect::KeepStaged { step, attempt, targets } => self.keep_staged(step, attempt, targets).await?,
            Effect::KeepCache { step, attempt, repository, tag } => {
                let attempt = AttemptRef { run: self.run.id, step: self.step(step)?.clone(), attempt };
                promote_own(self.tx, self.registry, &attempt, (&repository, &tag), self.now).await?;
            }
            Effect::BasesResolved { step, bases } => self.bases_resolved(step, &bases).await?,
            Effect::Planned { attempt, context, digest, size, .. } => {
                self.planned(attempt, context, &digest, size).await?;
            }
            Effect::KeepSecrets(texts) => self.keep_secrets(texts).await?,
            Effect::KeepTexts(texts) => request::keep_texts(self.tx, self.registry, self.run.id, &texts).await?,
            Effect::LogLine(line) => self.log(NewFrame::service(self.now, &line)).await?,
            Effect::LogGap(reason) => self.log(NewFrame::gap(self.now, None, &reason)).await?,
            Effect::Finished => self.finished().await?,
            Effect::SendOffer { .. }
            | Effect::SendStart { .. }
            | Effect::SendResultStored { .. }
            | Effect::SendStop { .. } => self.send.push(effect),
        }
        Ok(())
    }

    fn step(&self, index: usize) -> Result<&StepId, StoreError> {
        let step = self.run.plan.steps.get(index).map(|step| &step.id);
        step.ok_or_else(|| UnknownValue::new("index of a step", &index.to_string())).stored(APPLY)
    }

    async fn attempt_began(&mut self, step: usize, attempt: AttemptNumber, fence: Fence) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO live_attempts (registry_id, run_number, step_id, attempt, fence) VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(self.registry.0)
        .bind(run_number(self.run.id))
        .bind(self.step(step)?.as_str())
        .bind(i64::try_from(attempt.0).stored(APPLY)?)
        .bind(i64::try_from(fence.0).stored(APPLY)?)
        .execute(&mut *self.tx)
        .await
        .map(drop)
        .during("write attempt")
    }

    async fn attempt_ended(&mut self, step: usize, attempt: AttemptNumber) -> Result<(), StoreError> {
        // The attempt's number alone says which one: the step may have got another id since it began.
        sqlx::query("DELETE FROM live_attempts WHERE registry_id = ?1 AND run_number = ?2 AND attempt = ?3")
            .bind(self.registry.0)
            .bind(run_number(self.run.id))
            .bind(i64::try_from(attempt.0).stored(APPLY)?)
            .execute(&mut *self.tx)
            .await
            .during("end attempt")?;
        if self.run.origin.task.is_some() && !self.run.outside_tags(step).is_empty() {
            let moved = self.run.moved_outside(step, attempt);
            outside_tags::attempt_ended(self.tx, self.registry, self.run.id, attempt, &moved).await?;
        }
        expire_of_attempt(self.tx, self.registry, self.run.id, attempt, self.now).await?;
        if self.run.keeps_staged(step, attempt) {
            return Ok(());
        }
        drop_staged(self.tx, self.registry, self.run.id, attempt).await
    }

    /// Makes the attempt's staged tags real, and records them as the run's output.
    async fn publish_tags(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        targets: Vec<TagTarget>,
    ) -> Result<(), ApplyError> {
        let step = self.step(step)?.clone();
        let attempt = AttemptRef { run: self.run.id, step, attempt };
        let order = self.run.tag_order();
        let targets = staged(targets);
        let promoted = promote_staged(self.tx, self.registry, &attempt, &targets, order.as_ref(), self.now).await;
        let Promotion { moved, kept } = promoted.map_err(not_pushed)?;
        for tag in &moved {
            self.output_image(&attempt.step, tag).await?;
        }
        for (repository, tag, newer) in kept {
            let line = format!("{repository}:{tag}: tag not moved: newer run {newer} has moved it");
            self.log(NewFrame::service(self.now, &line)).await?;
        }
        Ok(())
    }

    /// Looks whether a stage left what it should have.
    async fn keep_staged(
        &mut self,
        step: usize,
        attempt: AttemptNumber,
        targets: Vec<TagTarget>,
    ) -> Result<(), ApplyError> {
        let step = self.step(step)?.clone();
        let attempt = AttemptRef { run: self.run.id, step, attempt };
        check_staged(self.tx, self.registry, &attempt, &staged(targets)).await.map_err(not_pushed)
    }

    async fn output_image(&mut self, step: &StepId, image: &PromotedTag) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO output_images (registry_id, run_number, position, step_id, registry, repository, tag, digest)
             VALUES (?1, ?2, (SELECT count(*) FROM output_images WHERE registry_id = ?1 AND run_number = ?2),
                     ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(self.registry.0)
        .bind(run_number(self.run.id))
        .bind(step.as_str())
        .bind(self.run.registry.as_str())
        .bind(image.repository.as_str())
        .bind(image.tag.as_str())
        .bind(image.digest.as_str())
        .execute(&mut *self.tx)
        .await
        .map(drop)
        .during("write output images")
    }

    async fn bases_resolved(&mut self, step: usize, bases: &[BaseImage]) -> Result<(), StoreError> {
        const WRITE: &str = "write base images";
        let step = self.step(step)?.clone();
        // A step that was lost and repeated has resolved its bases anew.
        sqlx::query("DELETE FROM base_images WHERE registry_id = ?1 AND run_number = ?2 AND step_id = ?3")
            .bind(self.registry.0)
            .bind(run_number(self.run.id))
            .bind(step.as_str())
            .execute(&mut *self.tx)
            .await
            .during(WRITE)?;
        for (position, base) in bases.iter().enumerate() {
            let name = ImageRef::parse(&base.reference).ok();
            sqlx::query(
                "INSERT INTO base_images (registry_id, run_number, step_id, position, kind, reference, registry,
                                          repository, tag, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )
            .bind(self.registry.0)
            .bind(run_number(self.run.id))
            .bind(step.as_str())
            .bind(i64::try_from(position).stored(WRITE)?)
            .bind(if base.runtime { "runtime" } else { "buildtime" })
            .bind(&base.reference)
            .bind(name.as_ref().and_then(|name| name.registry.as_ref()).map(|registry| registry.as_str()))
            .bind(name.as_ref().map(|name| name.repository.as_str()))
            .bind(name.as_ref().and_then(|name| name.tag.as_ref()).map(|tag| tag.as_str()))
            .bind(base.digest.as_ref().map(|digest| digest.as_str()))
            .execute(&mut *self.tx)
            .await
            .during(WRITE)?;
        }
        Ok(())
    }

    /// Makes what a prepare attempt uploaded the run's context.
    async fn planned(
        &mut self,
        attempt: AttemptNumber,
        context: ContextId,
        digest: &Digest,
        size: u64,
    ) -> Result<(), ApplyError> {
        let run = self.run.id;
        if snapshots::take(self.tx, self.registry, &context, run, attempt, digest, size).await? {
            return Ok(());
        }
        Err(ApplyError::NotUploaded { run, attempt, context })
    }

    async fn keep_secrets(&mut self, texts: Vec<SealedText>) -> Result<(), StoreError> {
        for SealedText { name, sealed } in texts {
            let secret = SealedSecret { kind: SecretKind::Value, name, sealed };
            match insert_secret(self.tx, self.registry, self.run.id, &secret).await {
                // Planned is once, and what came with the request keeps its value.
                Ok(()) | Err(AcceptError::SecretTwice(_)) => {}
                Err(AcceptError::Store(error)) => return Err(error),
                Err(error) => return Err(StoreError::corrupt("keep secret texts", error)),
            }
        }
        Ok(())
    }

    async fn log(&mut self, frame: NewFrame) -> Result<(), StoreError> {
        let appended = append(self.tx, self.registry, self.run.id, Author::Server, vec![frame]).await;
        self.log_end = Some(log_written(appended)?.end);
        Ok(())
    }

    /// The run is over: nothing can read its secrets, and nothing can write to its log.
    async fn finished(&mut self) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM run_secrets WHERE registry_id = ?1 AND run_number = ?2;
             DELETE FROM live_attempts WHERE registry_id = ?1 AND run_number = ?2;
             UPDATE run_requests SET ended = ?3 WHERE registry_id = ?1 AND run_number = ?2 AND texts IS NOT NULL",
        )
        .bind(self.registry.0)
        .bind(run_number(self.run.id))
        .bind(self.now.as_micros())
        .execute(&mut *self.tx)
        .await
        .during("end run")?;
        statuses::ended(self.tx, self.registry, self.now, self.run.id).await?;
        self.log_end = Some(log_written(complete(self.tx, self.registry, self.run.id).await)?);
        edges::run_ended(self.tx, self.registry, self.now, self.run).await?;
        let payload = serde_json::json!({ "run": self.run.id, "status": self.run.status().as_str() });
        events::insert(self.tx, self.registry, "run.finished", &payload, self.now).await?;
        outbox::queue(self.tx, self.registry, self.now, &outbox::Event::RunFinished(self.run)).await
    }
}

fn staged(targets: Vec<TagTarget>) -> Vec<StagedTarget> {
    let target = |TagTarget { repository, staging_tag: staging, tags, digest, .. }| StagedTarget {
        repository,
        staging,
        tags,
        digest,
    };
    targets.into_iter().map(target).collect()
}

fn not_pushed(error: PromoteError) -> ApplyError {
    match error {
        PromoteError::NotPushed { attempt, repository, staging } => {
            ApplyError::NotPushed { run: attempt.run, attempt: attempt.attempt, repository, staging_tag: staging }
        }
        PromoteError::Store(error) => ApplyError::Store(error),
    }
}

/// The state machine writes to the log of a run that is there and has not ended, so anything else is a fault of ours.
pub(super) fn log_written<T>(result: Result<T, AppendError>) -> Result<T, StoreError> {
    match result {
        Ok(value) => Ok(value),
        Err(AppendError::Store(error)) => Err(error),
        Err(refused) => Err(StoreError::corrupt("write the run's log", refused)),
    }
}
