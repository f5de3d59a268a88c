//! The members of waves, and the runs that they have.

use std::collections::BTreeMap;

use cooper_engine::wave::{Member, MemberState, PlannedMember, RunFailure};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{EndedMember, MemberRun, NewRefusal, SaveWave};
use cooper_types::{PrincipalName, RegistryId, RunId, TaskName, Timestamp, WaveId};
use serde_json::json;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{READ, WRITE, id, refusals, wave_number};
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

/// Older waves that have a member of this one waiting, and are not paused.
const ELSEWHERE: &str = "SELECT o.wave, o.member, o.since, o.freed, n.member AS here FROM wave_members n
     CROSS JOIN wave_members o INDEXED BY wave_members_waiting
     ON o.registry_id = n.registry_id AND o.task = n.task AND o.state = 'waiting' AND o.wave < n.wave
     CROSS JOIN waves w ON w.registry_id = o.registry_id AND w.number = o.wave AND w.phase <> 'paused'
     WHERE n.registry_id = ?1 AND n.wave = ?2 ORDER BY o.wave, o.member";

/// Members of an older wave that wait there for what a new one does as well.
pub(super) struct Older {
    pub(super) wave: i64,
    /// Their places there, and in the new wave since when they have waited, and been free to begin.
    pub(super) there: Vec<usize>,
    here: Vec<(i64, i64, Option<i64>)>,
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

/// The members of older waves that wait there for what this wave does as well.
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
            waves.push(Older { wave, there: Vec::new(), here: Vec::new() });
        }
        let Some(older) = waves.last_mut() else { continue };
        older.there.push(usize::try_from(row.try_get::<i64, _>("member").during(READ)?).stored(READ)?);
        let number = |name| row.try_get::<i64, _>(name).during(READ);
        older.here.push((number("here")?, number("since")?, row.try_get("freed").during(READ)?));
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

/// Has the members of a new wave be as if they had waited since they did in an older one.
pub(super) async fn waited_since(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
    older: &Older,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE wave_members AS m SET since = min(m.since, j.value ->> 1),
                freed = nullif(max(coalesce(m.freed, 0), coalesce(j.value ->> 2, 0)), 0)
         FROM json_each(?3) AS j WHERE m.registry_id = ?1 AND m.wave = ?2 AND m.member = j.value ->> 0",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(json!(older.here).to_string())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// A pause of a wave ends: what it held may begin from now on, in whichever wave it waits.
pub(super) async fn freed(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    wave: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE wave_members SET freed = ?3 WHERE (registry_id, wave, member) IN (
             SELECT o.registry_id, o.wave, o.member FROM wave_members p INDEXED BY wave_members_by_state
             CROSS JOIN wave_members o INDEXED BY wave_members_waiting
                ON o.registry_id = p.registry_id AND o.task = p.task AND o.state = 'waiting'
             WHERE p.registry_id = ?1 AND p.wave = ?2 AND p.state = 'waiting')",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(now.as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// What waits in other waves when its own is cancelled is theirs: the newest one's, where it waits in several.
pub(super) async fn left_to_others(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE wave_members AS m SET state = 'takenOver', taken_by = o.wave
         FROM (SELECT c.member, max(w.wave) AS wave FROM wave_members c INDEXED BY wave_members_by_state
               CROSS JOIN wave_members w INDEXED BY wave_members_waiting
                  ON w.registry_id = c.registry_id AND w.task = c.task AND w.state = 'waiting'
               WHERE c.registry_id = ?1 AND c.wave = ?2 AND c.state = 'canceled' GROUP BY c.member) AS o
         WHERE m.registry_id = ?1 AND m.wave = ?2 AND m.member = o.member",
    )
    .bind(registry.0)
    .bind(wave)
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// The tasks that wait in a wave, by their keys.
pub(super) async fn waiting(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    wave: i64,
) -> Result<Vec<String>, StoreError> {
    sqlx::query_scalar(
        "SELECT task FROM wave_members INDEXED BY wave_members_by_state
         WHERE registry_id = ?1 AND wave = ?2 AND state = 'waiting'",
    )
    .bind(registry.0)
    .bind(wave)
    .fetch_all(tx)
    .await
    .during(READ)
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

pub(super) fn run_id(number: i64) -> Result<RunId, StoreError> {
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
         WHERE registry_id = ?1 AND wave = ?2 AND state <> 'takenOver'
           AND member IN (SELECT value FROM json_each(?3))",
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

/// Gives a member the run that is being accepted for it; tells whether it waited for one, no pause held it, no other wave was
/// building its task, and nobody had built that since it was compared.
pub(crate) async fn accepted(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    of: &MemberRun,
    run: RunId,
) -> Result<bool, StoreError> {
    let wave = wave_number(of.wave);
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
        "UPDATE wave_members AS m SET state = 'running', run_number = ?4
         WHERE registry_id = ?1 AND wave = ?2 AND member = ?3 AND state = 'waiting' AND NOT EXISTS (
             SELECT 1 FROM wave_members p INDEXED BY wave_members_waiting
             CROSS JOIN waves w ON w.registry_id = p.registry_id AND w.number = p.wave AND w.phase = 'paused'
             WHERE p.registry_id = m.registry_id AND p.task = m.task AND p.state = 'waiting')
           AND NOT EXISTS (SELECT 1 FROM wave_members r INDEXED BY wave_members_running
                           WHERE r.registry_id = m.registry_id AND r.task = m.task AND r.state = 'running')
           AND (SELECT run_number FROM task_graph g WHERE g.registry_id = m.registry_id AND g.task = m.task) IS ?5",
    )
    .bind(registry.0)
    .bind(wave)
    .bind(i64::try_from(of.member).unwrap_or(i64::MAX))
    .bind(run_number(run))
    .bind(of.compared.map(run_number))
    .execute(tx)
    .await
    .during(WRITE)?;
    Ok(changed.rows_affected() > 0)
}
