//! Base images and waves in SQLite: what the engine plans, made durable.

pub(crate) mod edges;
mod expire;
mod members;
pub(crate) mod refusals;
mod remote;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use cooper_engine::wave::{Cut, ImageTag, Moved, PlannedMember, Wave, WaveEvent, WavePhase};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{
    BaseChange, BaseGraph, ChangedBy, EndedMember, FollowersCredential, NewRefusal, OpenWave, Refusal, RemoteAnswer,
    RemoteTag, SaveWave, StoredWave, TaskBases, WaveHead, WaveStore, WaveSummary,
};
use cooper_types::{
    Digest, PrincipalName, RegistryId, RegistryName, RepositoryName, RunId, SourceHost, Tag, TaskName, Timestamp,
    WaveId,
};
use sqlx::{Row, SqliteConnection};

use crate::sql_error::{During, Stored, UnknownValue};
use crate::{Store, outbox};
pub(crate) use members::accepted;
pub(crate) use told::told;

const READ: &str = "read waves";
const WRITE: &str = "write wave";
const OPEN: &str = "open wave";

/// Why a wave is not opened: another server has taken the changes, or the store failed.
enum Unopened {
    Taken,
    Store(StoreError),
}

impl From<StoreError> for Unopened {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[async_trait]
impl WaveStore for Store {
    async fn base_moved(&self) {
        self.bases_moved().notified().await;
    }

    async fn base_graph(&self, images: &[ImageTag]) -> Result<BaseGraph, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        edges::graph(&mut tx, self.registry_id(), images).await
    }

    async fn unbuilt_tasks(&self, limit: u32) -> Result<Vec<TaskName>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        edges::unbuilt(&mut tx, self.registry_id(), limit).await
    }

    async fn base_changes(&self, limit: u32) -> Result<Vec<BaseChange>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        changes(&mut tx, self.registry_id(), limit).await
    }

    async fn known_digest(&self, image: &ImageTag) -> Result<Option<Digest>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        edges::known_digest(&mut tx, self.registry_id(), image).await
    }

    async fn open_wave(&self, open: OpenWave) -> Result<Option<WaveId>, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let opened = self.write(async move |mut tx| self::open(&mut tx, registry, clock.now(), open).await).await;
        // One in which nothing is left to do is over at once.
        self.something_queued();
        match opened {
            Ok(id) => Ok(id),
            Err(Unopened::Taken) => Ok(None),
            Err(Unopened::Store(error)) => Err(error),
        }
    }

    async fn retry_wave(&self, id: WaveId) -> Result<Option<WaveId>, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let opened = self.write(async move |mut tx| {
            let Some(stored) = find(&mut tx, registry, wave_number(id)).await? else { return Ok(None) };
            let again = stored.wave.again();
            let Wave { changes, origins, .. } = stored.wave;
            match again.is_empty() {
                true => Ok(None),
                false => insert(&mut tx, registry, clock.now(), (&changes, &[], &origins), &again).await.map(Some),
            }
        });
        let opened: Result<Option<WaveId>, StoreError> = opened.await;
        self.something_queued();
        opened
    }

    async fn open_waves(&self, agentless: Duration) -> Result<Vec<WaveHead>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        let rows = sqlx::query(
            "SELECT number, generation, phase, (SELECT count(*) FROM wave_members m INDEXED BY wave_members_by_state
                 WHERE m.registry_id = w.registry_id AND m.wave = w.number AND m.state = 'running') AS running,
                 (SELECT json_group_array(m.member) FROM wave_members m INDEXED BY wave_members_by_state
                  CROSS JOIN runs r ON r.registry_id = m.registry_id AND r.number = m.run_number
                  WHERE m.registry_id = w.registry_id AND m.wave = w.number AND m.state = 'running'
                    AND r.status = 'Queued' AND r.created <= ?2) AS agentless
             FROM waves w INDEXED BY waves_open WHERE registry_id = ?1 AND finished IS NULL ORDER BY number",
        )
        .bind(self.registry_id().0)
        .bind(self.clock().now().before(agentless).as_micros())
        .fetch_all(&mut *tx)
        .await
        .during(READ)?;
        let heads = rows.iter().map(|row| {
            let count = |name| usize::try_from(row.try_get::<i64, _>(name).during(READ)?).stored(READ);
            Ok(WaveHead {
                id: id(row.try_get("number").during(READ)?)?,
                generation: row.try_get("generation").during(READ)?,
                phase: phase(row.try_get("phase").during(READ)?)?,
                running: count("running")?,
                agentless: serde_json::from_str(row.try_get("agentless").during(READ)?).stored(READ)?,
            })
        });
        heads.collect()
    }

    async fn waiting_in_wave(&self, id: WaveId) -> Result<Vec<String>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        members::waiting(&mut tx, self.registry_id(), wave_number(id)).await
    }

    async fn find_wave(&self, id: WaveId) -> Result<Option<StoredWave>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        find(&mut tx, self.registry_id(), wave_number(id)).await
    }

    async fn built_since(&self, id: WaveId) -> Result<BTreeMap<String, RunId>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        members::built_since(&mut tx, self.registry_id(), wave_number(id)).await
    }

    async fn list_waves(&self, limit: u32) -> Result<Vec<WaveSummary>, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        let registry = self.registry_id();
        let rows =
            sqlx::query("SELECT * FROM waves WHERE registry_id = ?1 AND forgotten = 0 ORDER BY number DESC LIMIT ?2")
                .bind(registry.0)
                .bind(limit)
                .fetch_all(&mut *tx)
                .await
                .during(READ)?;
        let mut waves = Vec::with_capacity(rows.len());
        for row in rows {
            let stored = read(&row)?;
            let counts = members::counts(&mut tx, registry, wave_number(stored.wave.id)).await?;
            waves.push(WaveSummary { wave: stored.wave, counts });
        }
        Ok(waves)
    }

    async fn ended_members(&self) -> Result<Vec<EndedMember>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        members::ended(&mut tx, self.registry_id()).await
    }

    async fn save_wave(&self, save: SaveWave) -> Result<bool, StoreError> {
        let registry = self.registry_id();
        let clock = self.clock().clone();
        let saved = self.write(async move |mut tx| self::save(&mut tx, registry, clock.now(), &save).await).await?;
        self.something_queued();
        Ok(saved)
    }

    async fn task_bases(&self, task: &TaskName, wave: WaveId) -> Result<TaskBases, StoreError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        edges::of_task(&mut tx, self.registry_id(), self.registry_name(), task, wave_number(wave)).await
    }

    async fn expire_waves(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| expire::expire(&mut tx, registry, clock.now().before(keep), limit).await).await
    }

    async fn forget_remote_tags(&self, limit: u32) -> Result<u64, StoreError> {
        expire::forget_remote_tags(self, limit).await
    }

    async fn due_remote_tags(&self, limit_of_one: u32, without: &[RegistryName]) -> Result<Vec<RemoteTag>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        remote::due(&mut tx, self.registry_id(), self.clock().now(), limit_of_one, without).await
    }

    async fn remote_answer(&self, image: &ImageTag, answer: RemoteAnswer, next: Timestamp) -> Result<bool, StoreError> {
        let (registry, clock, image) = (self.registry_id(), self.clock().clone(), image.clone());
        self.write(async move |mut tx| remote::answered(&mut tx, registry, clock.now(), &image, answer, next).await)
            .await
    }

    async fn bring_forward(&self, repository: &RepositoryName, tag: Option<&Tag>) -> Result<u64, StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        let (repository, tag) = (repository.clone(), tag.cloned());
        self.write(async move |mut tx| remote::bring_forward(&mut tx, registry, now, &repository, tag.as_ref()).await)
            .await
    }

    async fn followers_credentials(
        &self,
        image: &ImageTag,
        host: &SourceHost,
    ) -> Result<Vec<FollowersCredential>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        remote::credentials(&mut tx, self.registry_id(), image, host).await
    }

    async fn write_refusals(&self, refusals: Vec<NewRefusal>) -> Result<(), StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| refusals::write(&mut tx, registry, clock.now(), &refusals).await).await
    }

    async fn list_refusals(&self, task: &TaskName, limit: u32) -> Result<Vec<Refusal>, StoreError> {
        let mut tx = self.readers().acquire().await.during(READ)?;
        refusals::list(&mut tx, self.registry_id(), task, limit).await
    }
}

/// A wave's number as it is stored.
pub(crate) fn wave_number(id: WaveId) -> i64 {
    // Counted by the database; one beyond its range is none.
    i64::try_from(id.number()).unwrap_or(i64::MAX)
}

async fn changes(tx: &mut SqliteConnection, registry: RegistryId, limit: u32) -> Result<Vec<BaseChange>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, registry, repository, tag, from_digest, to_digest, at, c.run_number IS NOT NULL AS by_run,
                json_extract(r.state, '$.origin.task.name') AS by_task, json_extract(r.state, '$.origin.cause.wave') AS wave
         FROM base_changes c
         LEFT JOIN runs r ON r.registry_id = c.registry_id AND r.number = c.run_number
         WHERE c.registry_id = ?1 ORDER BY seq LIMIT ?2",
    )
    .bind(registry.0)
    .bind(limit)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let changes = rows.iter().map(|row| {
        let from: Option<&str> = row.try_get("from_digest").during(READ)?;
        let (task, wave): (Option<&str>, Option<&str>) =
            (row.try_get("by_task").during(READ)?, row.try_get("wave").during(READ)?);
        let by = ChangedBy {
            task: task.map(TaskName::parse).transpose().stored(READ)?,
            wave: wave.map(WaveId::parse).transpose().stored(READ)?,
        };
        Ok(BaseChange {
            seq: row.try_get("seq").during(READ)?,
            image: edges::image(row)?,
            from: from.map(Digest::parse).transpose().stored(READ)?,
            to: Digest::parse(row.try_get("to_digest").during(READ)?).stored(READ)?,
            at: Timestamp::from_micros(row.try_get("at").during(READ)?),
            by: row.try_get::<bool, _>("by_run").during(READ)?.then_some(by),
        })
    });
    changes.collect()
}

async fn open(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    open: OpenWave,
) -> Result<Option<WaveId>, Unopened> {
    let seqs: Vec<i64> = open.changes.iter().map(|change| change.seq).collect();
    let taken =
        sqlx::query("DELETE FROM base_changes WHERE registry_id = ?1 AND seq IN (SELECT value FROM json_each(?2))")
            .bind(registry.0)
            .bind(serde_json::json!(seqs).to_string())
            .execute(&mut *tx)
            .await
            .during(OPEN)?;
    if taken.rows_affected() != seqs.len() as u64 {
        return Err(Unopened::Taken);
    }
    refusals::write(tx, registry, now, &open.refusals).await?;
    if open.members.is_empty() {
        return Ok(None);
    }
    let moved = open.changes.into_iter().map(|change| {
        let BaseChange { image, from, to, by, .. } = change;
        let (by_task, by_wave) = by.map(|by| (by.task, by.wave)).unwrap_or_default();
        Moved { image, from, to, by_task, by_wave }
    });
    let moved: Vec<Moved> = moved.collect();
    Ok(Some(insert(tx, registry, now, (&moved, &open.cuts, &open.origins), &open.members).await?))
}

/// Makes a wave. What waits in older ones for the same tasks is its from then on; what is paused with one waits in both.
async fn insert(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    (moved, cuts, origins): (&[Moved], &[Cut], &BTreeSet<String>),
    members: &[PlannedMember],
) -> Result<WaveId, StoreError> {
    let number: i64 = sqlx::query_scalar(
        "UPDATE registries SET wave_counter = wave_counter + 1 WHERE id = ?1 RETURNING wave_counter",
    )
    .bind(registry.0)
    .fetch_one(&mut *tx)
    .await
    .during(OPEN)?;
    let new = id(number)?;
    sqlx::query(
        "INSERT INTO waves (registry_id, number, opened, phase, generation, changes, cuts, origins)
         VALUES (?1, ?2, ?3, 'running', 1, ?4, ?5, ?6)",
    )
    .bind(registry.0)
    .bind(number)
    .bind(now.as_micros())
    .bind(serde_json::to_string(moved).stored(OPEN)?)
    .bind(serde_json::to_string(cuts).stored(OPEN)?)
    .bind(serde_json::to_string(origins).stored(OPEN)?)
    .execute(&mut *tx)
    .await
    .during(OPEN)?;
    members::insert(tx, registry, number, now, members).await?;
    members::left_out_elsewhere(tx, registry, number).await?;
    for older in members::waiting_elsewhere(tx, registry, number).await? {
        members::waited_since(tx, registry, number, &older).await?;
        let Some(mut stored) = find(tx, registry, older.wave).await? else { continue };
        if let Ok(changed) = stored.wave.apply(WaveEvent::TakenOver { members: older.there, by: new }, now) {
            save_known(tx, registry, now, &SaveWave::of(&stored, &changed)).await?;
        }
    }
    Ok(new)
}

/// A wave with its members; none whose removal has begun.
async fn find(tx: &mut SqliteConnection, registry: RegistryId, number: i64) -> Result<Option<StoredWave>, StoreError> {
    let row = sqlx::query("SELECT * FROM waves WHERE registry_id = ?1 AND number = ?2 AND forgotten = 0")
        .bind(registry.0)
        .bind(number)
        .fetch_optional(&mut *tx)
        .await
        .during(READ)?;
    let Some(row) = row else { return Ok(None) };
    let mut stored = read(&row)?;
    (stored.wave.members, stored.owners) = members::list(tx, registry, number).await?;
    Ok(Some(stored))
}

fn id(number: i64) -> Result<WaveId, StoreError> {
    Ok(WaveId::from_number(u64::try_from(number).stored(READ)?))
}

fn phase(text: &str) -> Result<WavePhase, StoreError> {
    let known = [WavePhase::Running, WavePhase::Paused, WavePhase::Canceled];
    known.into_iter().find(|known| known.as_str() == text).ok_or_else(|| UnknownValue::new("phase", text)).stored(READ)
}

/// A wave without its members.
fn read(row: &sqlx::sqlite::SqliteRow) -> Result<StoredWave, StoreError> {
    let canceled_by: Option<&str> = row.try_get("canceled_by").during(READ)?;
    let finished: Option<i64> = row.try_get("finished").during(READ)?;
    let wave = Wave {
        id: id(row.try_get("number").during(READ)?)?,
        opened: Timestamp::from_micros(row.try_get("opened").during(READ)?),
        phase: phase(row.try_get("phase").during(READ)?)?,
        finished: finished.map(Timestamp::from_micros),
        canceled_by: canceled_by.map(PrincipalName::parse).transpose().stored(READ)?,
        origins: serde_json::from_str(row.try_get("origins").during(READ)?).stored(READ)?,
        changes: serde_json::from_str(row.try_get("changes").during(READ)?).stored(READ)?,
        cuts: serde_json::from_str(row.try_get("cuts").during(READ)?).stored(READ)?,
        members: Vec::new(),
    };
    Ok(StoredWave { wave, generation: row.try_get("generation").during(READ)?, owners: BTreeMap::new() })
}

async fn save(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    save: &SaveWave,
) -> Result<bool, StoreError> {
    let known: Option<(i64, String)> =
        sqlx::query_as("SELECT generation, phase FROM waves WHERE registry_id = ?1 AND number = ?2")
            .bind(registry.0)
            .bind(wave_number(save.id))
            .fetch_optional(&mut *tx)
            .await
            .during(WRITE)?;
    let Some((_, before)) = known.filter(|(generation, _)| *generation == save.generation) else { return Ok(false) };
    if phase(&before)? == WavePhase::Paused && save.phase != WavePhase::Paused {
        members::freed(tx, registry, now, wave_number(save.id)).await?;
    }
    save_known(tx, registry, now, save).await.map(|()| true)
}

/// Saves a change of a wave that nobody else has changed.
async fn save_known(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    save: &SaveWave,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE waves SET phase = ?3, finished = ?4, canceled_by = ?5, generation = generation + 1
         WHERE registry_id = ?1 AND number = ?2",
    )
    .bind(registry.0)
    .bind(wave_number(save.id))
    .bind(save.phase.as_str())
    .bind(save.finished.map(Timestamp::as_micros))
    .bind(save.canceled_by.as_ref().map(|by| by.as_str()))
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    members::save(tx, registry, wave_number(save.id), &save.members).await?;
    if save.phase == WavePhase::Canceled {
        members::left_to_others(tx, registry, wave_number(save.id)).await?;
    }
    members::tell_left_out(tx, registry, now, save).await?;
    match save.finished {
        Some(_) => outbox::queue(tx, registry, now, &outbox::Event::WaveFinished(save.id)).await,
        None => Ok(()),
    }
}
