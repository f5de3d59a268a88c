//! The members of waves, and the runs that they have.

use cooper_engine::wave::{Member, MemberState, PlannedMember};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::EndedMember;
use cooper_types::{RegistryId, RunId, TaskName, WaveId};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::{READ, WRITE, wave_number};
use crate::contexts::run_number;
use crate::sql_error::{During, Stored, UnknownValue};

/// The running members of a wave whose runs have ended, or are known no more.
const ENDED: &str = "SELECT m.member, m.run_number, r.status
     FROM wave_members m INDEXED BY wave_members_by_state
     LEFT JOIN runs r ON r.registry_id = m.registry_id AND r.number = m.run_number
     WHERE m.registry_id = ?1 AND m.wave = ?2 AND m.state = 'running' AND (r.number IS NULL OR r.finished IS NOT NULL)";

/// Older waves that have a member of this one waiting.
const ELSEWHERE: &str = "SELECT w.wave, w.member FROM wave_members n
     CROSS JOIN wave_members w INDEXED BY wave_members_waiting
     ON w.registry_id = n.registry_id AND w.task = n.task AND w.state = 'waiting' AND w.wave < n.wave
     WHERE n.registry_id = ?1 AND n.wave = ?2 ORDER BY w.wave, w.member";

pub(super) async fn insert(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
    members: &[PlannedMember],
) -> Result<(), StoreError> {
    let rows: Vec<_> =
        members.iter().map(|member| json!([member.task.key(), member.task, member.level, member.parents])).collect();
    sqlx::query(
        "INSERT INTO wave_members (registry_id, wave, member, task, name, level, parents, state)
         SELECT ?1, ?2, key, value ->> 0, value ->> 1, value ->> 2, value -> 3, 'waiting' FROM json_each(?3)",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(json!(rows).to_string())
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
) -> Result<Vec<(i64, Vec<usize>)>, StoreError> {
    let rows = sqlx::query(ELSEWHERE).bind(registry.0).bind(wave).fetch_all(tx).await.during(READ)?;
    let mut waves: Vec<(i64, Vec<usize>)> = Vec::new();
    for row in rows {
        let (wave, member): (i64, i64) = (row.try_get("wave").during(READ)?, row.try_get("member").during(READ)?);
        let member = usize::try_from(member).stored(READ)?;
        match waves.last_mut().filter(|(last, _)| *last == wave) {
            Some((_, members)) => members.push(member),
            None => waves.push((wave, vec![member])),
        }
    }
    Ok(waves)
}

pub(super) async fn list(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<Vec<Member>, StoreError> {
    let rows = sqlx::query(
        "SELECT name, level, parents, state, run_number, reason, taken_by FROM wave_members
         WHERE registry_id = ?1 AND wave = ?2 ORDER BY member",
    )
    .bind(registry.0)
    .bind(wave)
    .fetch_all(tx)
    .await
    .during(READ)?;
    let members = rows.iter().map(|row| {
        Ok(Member {
            task: TaskName::parse(row.try_get("name").during(READ)?).stored(READ)?,
            level: row.try_get("level").during(READ)?,
            parents: serde_json::from_str(row.try_get("parents").during(READ)?).stored(READ)?,
            state: state(row)?,
        })
    });
    members.collect()
}

fn state(row: &sqlx::sqlite::SqliteRow) -> Result<MemberState, StoreError> {
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

/// How many members are in which state.
pub(super) async fn counts(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<Vec<(String, u32)>, StoreError> {
    let rows = sqlx::query(
        "SELECT state, count(*) AS members FROM wave_members INDEXED BY wave_members_by_state
         WHERE registry_id = ?1 AND wave = ?2 GROUP BY state",
    )
    .bind(registry.0)
    .bind(wave)
    .fetch_all(tx)
    .await
    .during(READ)?;
    rows.iter().map(|row| Ok((row.try_get("state").during(READ)?, row.try_get("members").during(READ)?))).collect()
}

pub(super) async fn ended(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<Vec<EndedMember>, StoreError> {
    let rows = sqlx::query(ENDED).bind(registry.0).bind(wave).fetch_all(tx).await.during(READ)?;
    let ended = rows.iter().map(|row| {
        let member: i64 = row.try_get("member").during(READ)?;
        let run = run_id(row.try_get("run_number").during(READ)?)?;
        let failure = match row.try_get::<Option<&str>, _>("status").during(READ)? {
            Some("Succeeded") => None,
            Some(status) => Some(format!("run {run} ended as {status}")),
            None => Some(format!("run {run} is known no more")),
        };
        Ok(EndedMember { member: usize::try_from(member).stored(READ)?, failure })
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
