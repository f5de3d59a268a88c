//! The members of waves, and the runs that they have.

use std::collections::BTreeMap;

use cooper_engine::wave::{Member, MemberState, PlannedMember, RunFailure, WavePhase};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{EndedMember, NewRefusal, SaveWave};
use cooper_types::{PrincipalName, RegistryId, RunId, TaskName, Timestamp, WaveId};
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{READ, WRITE, id, phase, refusals, wave_number};
use crate::contexts::run_number;
use crate::sql_error::{During, Stored, UnknownValue};

/// The running members of waves whose runs have ended, or are known no more.
const ENDED: &str = "SELECT m.wave, m.member, m.run_number, r.status,
         EXISTS (SELECT 1 FROM output_images o WHERE o.registry_id = m.registry_id AND o.run_number = m.run_number) AS pushed
     FROM waves w INDEXED BY waves_open
     CROSS JOIN wave_members m INDEXED BY wave_members_by_state
        ON m.registry_id = w.registry_id AND m.wave = w.number AND m.state = 'running'
     LEFT JOIN runs r ON r.registry_id = m.registry_id AND r.number = m.run_number
     WHERE w.registry_id = ?1 AND w.finished IS NULL AND (r.number IS NULL OR r.finished IS NOT NULL)
     ORDER BY m.wave, m.member";

/// Older waves that have a member of this one waiting.
const ELSEWHERE: &str = "SELECT o.wave, o.member, o.since, n.member AS here, w.phase FROM wave_members n
     CROSS JOIN wave_members o INDEXED BY wave_members_waiting
     ON o.registry_id = n.registry_id AND o.task = n.task AND o.state = 'waiting' AND o.wave < n.wave
     CROSS JOIN waves w ON w.registry_id = o.registry_id AND w.number = o.wave
     WHERE n.registry_id = ?1 AND n.wave = ?2 ORDER BY o.wave, o.member";

/// Members of an older wave that wait there for what a new one does as well.
pub(super) struct Older {
    pub(super) wave: i64,
    pub(super) phase: WavePhase,
    /// Their places there, their places in the new wave, and since when their tasks have waited.
    pub(super) there: Vec<usize>,
    pub(super) here: Vec<usize>,
    pub(super) since: Vec<i64>,
}

/// What a query says of a wave.
async fn of_wave(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
    sql: &'static str,
) -> Result<Vec<SqliteRow>, StoreError> {
    sqlx::query(sql).bind(registry.0).bind(wave).fetch_all(tx).await.during(READ)
}

pub(super) async fn insert(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
    now: Timestamp,
    members: &[PlannedMember],
) -> Result<(), StoreError> {
    let rows: Vec<_> =
        members.iter().map(|member| json!([member.task.key(), member.task, member.level, member.parents])).collect();
    sqlx::query(
        "INSERT INTO wave_members (registry_id, wave, member, task, name, level, parents, state, since)
         SELECT ?1, ?2, key, value ->> 0, value ->> 1, value ->> 2, value -> 3, 'waiting', ?4 FROM json_each(?3)",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(json!(rows).to_string())
    .bind(now.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// The places of members in older waves that wait there for what this wave does as well.
pub(super) async fn waiting_elsewhere(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<Vec<Older>, StoreError> {
    let rows = of_wave(tx, registry, wave, ELSEWHERE).await?;
    let mut waves: Vec<Older> = Vec::new();
    for row in rows {
        let wave: i64 = row.try_get("wave").during(READ)?;
        if waves.last().is_none_or(|last| last.wave != wave) {
            let phase = phase(row.try_get("phase").during(READ)?)?;
            waves.push(Older { wave, phase, there: Vec::new(), here: Vec::new(), since: Vec::new() });
        }
        let Some(older) = waves.last_mut() else { continue };
        let place = |name| usize::try_from(row.try_get::<i64, _>(name).during(READ)?).stored(READ);
        older.there.push(place("member")?);
        older.here.push(place("here")?);
        older.since.push(row.try_get("since").during(READ)?);
    }
    Ok(waves)
}

/// Gives a new wave what was left out or cancelled in older ones that go on: what those push later is of their tasks again.
pub(super) async fn left_out_elsewhere(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<(), StoreError> {
    let changed: Vec<i64> = sqlx::query_scalar(
        "UPDATE wave_members AS m SET state = 'takenOver', taken_by = ?2, reason = NULL
         FROM (SELECT number FROM waves INDEXED BY waves_open WHERE registry_id = ?1 AND finished IS NULL AND number < ?2) AS w
         WHERE m.registry_id = ?1 AND m.wave = w.number AND m.state IN ('skipped', 'canceled')
           AND m.task IN (SELECT task FROM wave_members WHERE registry_id = ?1 AND wave = ?2)
         RETURNING wave",
    )
    .bind(registry.0)
    .bind(wave)
    .fetch_all(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query(
        "UPDATE waves SET generation = generation + 1 WHERE registry_id = ?1 AND number IN (SELECT value FROM json_each(?2))",
    )
    .bind(registry.0)
    .bind(json!(changed).to_string())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// Has members be as if they had waited from then on, if that is longer.
pub(super) async fn waited_since(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
    members: &[usize],
    since: &[i64],
) -> Result<(), StoreError> {
    let rows: Vec<_> = members.iter().zip(since).map(|(member, since)| json!([member, since])).collect();
    sqlx::query(
        "UPDATE wave_members AS m SET since = min(m.since, j.value ->> 1)
         FROM json_each(?3) AS j WHERE m.registry_id = ?1 AND m.wave = ?2 AND m.member = j.value ->> 0",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(json!(rows).to_string())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

const LIST: &str =
    "SELECT m.task, name, level, parents, since, m.state, run_number, reason, taken_by, t.principal FROM wave_members m
     LEFT JOIN tasks t ON t.registry_id = m.registry_id AND t.task = m.task
     WHERE m.registry_id = ?1 AND m.wave = ?2 ORDER BY m.member";

/// The members, and whose tasks they are.
pub(super) async fn list(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<(Vec<Member>, BTreeMap<String, PrincipalName>), StoreError> {
    let rows = of_wave(tx, registry, wave, LIST).await?;
    let mut owners = BTreeMap::new();
    let members = rows.iter().map(|row| {
        if let Some(owner) = row.try_get::<Option<&str>, _>("principal").during(READ)? {
            owners.insert(row.try_get("task").during(READ)?, PrincipalName::parse(owner).stored(READ)?);
        }
        Ok(Member {
            task: TaskName::parse(row.try_get("name").during(READ)?).stored(READ)?,
            level: row.try_get("level").during(READ)?,
            parents: serde_json::from_str(row.try_get("parents").during(READ)?).stored(READ)?,
            since: Timestamp::from_micros(row.try_get("since").during(READ)?),
            state: state(row)?,
        })
    });
    let members = members.collect::<Result<_, StoreError>>()?;
    Ok((members, owners))
}

/// The newest runs of tasks that a wave has left out or cancelled, where those began after it was opened.
const BUILT: &str = "SELECT m.task, g.run_number FROM waves w
     CROSS JOIN wave_members m INDEXED BY wave_members_by_state
        ON m.registry_id = w.registry_id AND m.wave = w.number AND m.state IN ('skipped', 'canceled')
     CROSS JOIN task_graph g ON g.registry_id = m.registry_id AND g.task = m.task AND g.started >= w.opened
     WHERE w.registry_id = ?1 AND w.number = ?2";

pub(super) async fn built_since(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<BTreeMap<String, RunId>, StoreError> {
    let rows = of_wave(tx, registry, wave, BUILT).await?;
    let built = rows
        .iter()
        .map(|row| Ok((row.try_get("task").during(READ)?, run_id(row.try_get("run_number").during(READ)?)?)));
    built.collect()
}

fn state(row: &SqliteRow) -> Result<MemberState, StoreError> {
    let run: Option<i64> = row.try_get("run_number").during(READ)?;
    let run = run.map(run_id).transpose()?;
    let reason = || Ok::<_, StoreError>(row.try_get::<Option<String>, _>("reason").during(READ)?.unwrap_or_default());
    let absent = |what: &'static str| Err(UnknownValue::new(what, "none")).stored(READ);
    Ok(match row.try_get("state").during(READ)? {
        "waiting" => MemberState::Waiting,
        "running" => MemberState::Running { run: run.map_or_else(|| absent("run of a member"), Ok)? },
        "done" => MemberState::Done { run: run.map_or_else(|| absent("run of a member"), Ok)? },
        "unchanged" => MemberState::Unchanged,
        "takenOver" => {
            let by: i64 = row.try_get("taken_by").during(READ)?;
            MemberState::TakenOver { by: WaveId::from_number(u64::try_from(by).stored(READ)?) }
        }
        "failed" => MemberState::Failed { run, reason: reason()? },
        "skipped" => MemberState::Skipped { reason: reason()? },
        "canceled" => MemberState::Canceled,
        other => return Err(UnknownValue::new("state of a member", other)).stored(READ),
    })
}

fn run_id(number: i64) -> Result<RunId, StoreError> {
    Ok(RunId::from_number(u64::try_from(number).stored(READ)?))
}

const COUNTS: &str = "SELECT state, count(*) AS members FROM wave_members INDEXED BY wave_members_by_state
     WHERE registry_id = ?1 AND wave = ?2 GROUP BY state";

/// How many members are in which state.
pub(super) async fn counts(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<Vec<(String, u32)>, StoreError> {
    let rows = of_wave(tx, registry, wave, COUNTS).await?;
    rows.iter().map(|row| Ok((row.try_get("state").during(READ)?, row.try_get("members").during(READ)?))).collect()
}

pub(super) async fn ended(tx: &mut SqliteConnection, registry: RegistryId) -> Result<Vec<EndedMember>, StoreError> {
    let rows = sqlx::query(ENDED).bind(registry.0).fetch_all(tx).await.during(READ)?;
    let ended = rows.iter().map(|row| {
        let member: i64 = row.try_get("member").during(READ)?;
        let run = run_id(row.try_get("run_number").during(READ)?)?;
        let pushed: bool = row.try_get("pushed").during(READ)?;
        let reason = match row.try_get::<Option<&str>, _>("status").during(READ)? {
            Some("Succeeded") => None,
            Some(status) => Some(format!("run {run} ended as {status}")),
            None => Some(format!("run {run} is known no more")),
        };
        let failure = reason.map(|reason| RunFailure { reason, pushed });
        Ok(EndedMember {
            wave: id(row.try_get("wave").during(READ)?)?,
            member: usize::try_from(member).stored(READ)?,
            failure,
        })
    });
    ended.collect()
}

pub(super) async fn save(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
    members: &[(usize, MemberState)],
) -> Result<(), StoreError> {
    if members.is_empty() {
        return Ok(());
    }
    let row = |(member, state): &(usize, MemberState)| {
        let reason = match state {
            MemberState::Failed { reason, .. } | MemberState::Skipped { reason } => Some(reason.as_str()),
            _ => None,
        };
        let by = match state {
            MemberState::TakenOver { by } => Some(wave_number(*by)),
            _ => None,
        };
        json!([member, state.as_str(), state.run().map(run_number), reason, by])
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    sqlx::query(
        "UPDATE wave_members AS m SET state = j.value ->> 1, run_number = j.value ->> 2, reason = j.value ->> 3,
                taken_by = j.value ->> 4
         FROM json_each(?3) AS j WHERE m.registry_id = ?1 AND m.wave = ?2 AND m.member = j.value ->> 0",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(json!(rows).to_string())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// Writes down with their tasks for what members were left out, where no run says it.
pub(super) async fn tell_left_out(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    save: &SaveWave,
) -> Result<(), StoreError> {
    let is_left_out = |state: &MemberState| {
        matches!(state, MemberState::Skipped { .. } | MemberState::Failed { run: None, .. } | MemberState::Canceled)
    };
    let left_out: Vec<usize> =
        save.members.iter().filter(|(_, state)| is_left_out(state)).map(|(member, _)| *member).collect();
    if left_out.is_empty() {
        return Ok(());
    }
    let event = format!("wave {} came to it", save.id);
    let canceled = format!("wave {} was cancelled", save.id);
    let rows = sqlx::query(
        "SELECT name, reason FROM wave_members
         WHERE registry_id = ?1 AND wave = ?2 AND member IN (SELECT value FROM json_each(?3))",
    )
    .bind(registry.0)
    .bind(wave_number(save.id))
    .bind(json!(left_out).to_string())
    .fetch_all(&mut *tx)
    .await
    .during(WRITE)?;
    let refusals = rows.iter().map(|row| {
        Ok(NewRefusal {
            task: TaskName::parse(row.try_get("name").during(WRITE)?).stored(WRITE)?,
            event: event.clone(),
            rule: row.try_get::<Option<String>, _>("reason").during(WRITE)?.unwrap_or_else(|| canceled.clone()),
        })
    });
    let refusals: Vec<NewRefusal> = refusals.collect::<Result<_, StoreError>>()?;
    refusals::write(tx, registry, now, &refusals).await
}

/// Gives a member the run that is being accepted for it; tells whether it waited for one.
pub(crate) async fn accepted(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: WaveId,
    member: usize,
    run: RunId,
) -> Result<bool, StoreError> {
    let wave = wave_number(wave);
    let changed = sqlx::query(
        "UPDATE waves SET generation = generation + 1
         WHERE registry_id = ?1 AND number = ?2 AND phase = 'running' AND finished IS NULL",
    )
    .bind(registry.0)
    .bind(wave)
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    if changed.rows_affected() == 0 {
        return Ok(false);
    }
    let changed = sqlx::query(
        "UPDATE wave_members SET state = 'running', run_number = ?4
         WHERE registry_id = ?1 AND wave = ?2 AND member = ?3 AND state = 'waiting'",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(i64::try_from(member).unwrap_or(i64::MAX))
    .bind(run_number(run))
    .execute(tx)
    .await
    .during(WRITE)?;
    Ok(changed.rows_affected() > 0)
}
