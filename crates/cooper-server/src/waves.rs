//! The loop of the waves: opens one for tags that have moved, and lets its members begin in their turn.
//!
//! Everything that it goes by are rows: a moved tag, a member's state, its run's end. It remembers nothing between two looks,
//! so a crash, a second server and a lost wake-up cost a moment. What a wave does is `cooper_engine::wave`'s to say.

pub(crate) mod news;
pub(crate) mod poller;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cooper_api::problem::ProblemCode;
use cooper_engine::run::RunEvent;
use cooper_engine::task::{Cause, ImageUpdate};
use cooper_engine::wave::{self, Change, Graph, MemberState, WaveEvent, WaveRefusal};
use cooper_ports::runs::{AcceptError, ApplyError};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{BaseChange, ChangedBy, MemberRun, NewRefusal, OpenWave, SaveWave, StoredWave};
use cooper_types::{PrincipalName, RunId, WaveId};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::outbox::endpoint::Endpoint;
use crate::problem::{ApiError, ApiResult, chain};
use crate::stored_tasks::{self, For, Given};

/// How long it may take to ask for the run of a member: the others wait meanwhile.
const ASKING: Duration = Duration::from_secs(10);

/// The longest sleep: what a lost wake-up costs.
const PERIOD: Duration = Duration::from_secs(2);
/// Moved tags that are looked at together.
const BATCH: u32 = 1000;
/// How many runs of a wave go on at a time: more builds than that at once overload an engine, and keep agents from
/// what comes in between.
pub(crate) const LIMIT: u32 = 4;
/// How many waves are looked back through.
const MAX_BACK: usize = 64;
/// How often a change that somebody else was faster with is tried again.
const TRIES: u32 = 20;

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    loop {
        let passed = tokio::select! {
            () = shutdown.cancelled() => return,
            passed = pass(&core) => passed,
        };
        if let Err(error) = passed {
            tracing::error!(error = chain(&error), "waves can't be looked at; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.waves_wake.notified() => {}
            () = core.waves.base_moved() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Opens what is to be opened, and takes every open wave as far as it goes now.
pub(crate) async fn pass(core: &Arc<Core>) -> Result<(), StoreError> {
    open(core).await?;
    let waves = core.waves.open_waves().await?;
    let mut running: BTreeMap<String, WaveId> = BTreeMap::new();
    for StoredWave { wave, .. } in &waves {
        for member in &wave.members {
            if let MemberState::Running { .. } = member.state {
                running.insert(member.task.key(), wave.id);
            }
        }
    }
    for stored in waves {
        advance(core, stored, &mut running).await?;
    }
    Ok(())
}

/// Opens waves for the tags that have moved: one for all that nobody's run moved, and one for each task or wave that did.
async fn open(core: &Arc<Core>) -> Result<(), StoreError> {
    let changes = core.waves.base_changes(BATCH).await?;
    if changes.is_empty() {
        return Ok(());
    }
    let graph = core.waves.base_graph().await?;
    let mut groups: BTreeMap<Option<ChangedBy>, Vec<BaseChange>> = BTreeMap::new();
    for change in changes {
        let by = change.by.clone().filter(|by| by.task.is_some());
        groups.entry(by).or_default().push(change);
    }
    for (by, changes) in groups {
        let open = planned(core, &graph, by, changes).await?;
        let (images, cuts) = (shown(&open.changes), open.cuts.len());
        let members = open.members.len();
        if let Some(wave) = core.waves.open_wave(open).await? {
            tracing::info!(wave = %wave, images, members, cuts, "wave opened");
        }
    }
    Ok(())
}

/// The images that changed, for the log.
fn shown(changes: &[BaseChange]) -> String {
    let images: BTreeSet<String> = changes.iter().map(|change| change.image.to_string()).collect();
    images.into_iter().collect::<Vec<_>>().join(" ")
}

/// Plans for changes that have the same cause.
async fn planned(
    core: &Arc<Core>,
    graph: &Graph,
    by: Option<ChangedBy>,
    changes: Vec<BaseChange>,
) -> Result<OpenWave, StoreError> {
    let task = by.as_ref().and_then(|by| by.task.as_ref()).map(cooper_types::TaskName::key);
    let mut origins: BTreeSet<String> = task.into_iter().collect();
    let of_wave = by.and_then(|by| by.wave);
    // Wave by wave back to what began it all: who has had a turn on the way gets no other one, or a circle of tasks would
    // go round for ever.
    let mut wave = of_wave;
    for _ in 0..MAX_BACK {
        let Some(stored) = (match wave {
            Some(wave) => core.waves.find_wave(wave).await?,
            None => None,
        }) else {
            break;
        };
        // What stands on it in the same wave has its turn there. What a newer wave took over may have been built before
        // this was.
        let own = stored.wave.members.iter().filter(|member| !matches!(member.state, MemberState::TakenOver { .. }));
        origins.extend(own.map(|member| member.task.key()));
        origins.extend(stored.wave.changes.iter().filter_map(|moved| Some(moved.by_task.as_ref()?.key())));
        wave = stored.wave.changes.iter().find_map(|moved| moved.by_wave);
    }
    let wanted: Vec<Change> =
        changes.iter().map(|change| Change { image: change.image.clone(), to: Some(change.to.clone()) }).collect();
    let plan = wave::plan(graph, &wanted, &origins);
    let refused = plan.refused.into_iter().filter(|refused| refused.direct);
    let refusals = refused.map(|refused| {
        let to = changes.iter().find(|change| change.image == refused.image).map(|change| change.to.to_string());
        NewRefusal {
            task: refused.task,
            event: format!("base image {} became {}", refused.image, to.unwrap_or_default()),
            rule: refused.rule.as_str().to_owned(),
        }
    });
    Ok(OpenWave {
        refusals: refusals.collect(),
        cuts: if of_wave.is_none() { plan.cuts } else { Vec::new() },
        members: plan.members,
        limit: LIMIT,
        changes,
    })
}

/// What is done with a member whose turn has come.
enum Turn {
    /// Its run was accepted.
    Started(RunId),
    /// This becomes of it instead.
    Event(WaveEvent),
    /// It has to wait a little.
    Later,
    /// Somebody else has changed the wave.
    Stale,
}

/// Takes a wave as far as it goes now. `running` says in which wave a task has a run that goes on.
async fn advance(
    core: &Arc<Core>,
    mut stored: StoredWave,
    running: &mut BTreeMap<String, WaveId>,
) -> Result<(), StoreError> {
    let mut changed = Vec::new();
    let now = core.clock.now();
    for ended in core.waves.ended_members(stored.wave.id).await? {
        if let Some(member) = stored.wave.members.get(ended.member) {
            running.remove(&member.task.key());
        }
        let event = WaveEvent::Ended { member: ended.member, failure: ended.failure };
        changed.extend(stored.wave.apply(event, now).unwrap_or_default());
    }
    if !save(core, &mut stored, &mut changed).await? {
        return Ok(());
    }
    let (mut room, mut from) = (stored.wave.room(), 0);
    // Whoever waits for a member stands after it: one way through is enough.
    while room > 0 && stored.wave.finished.is_none() {
        let next = stored.wave.candidates(from).next();
        let Some(member) = next else { break };
        from = member + 1;
        let key = stored.wave.members[member].task.key();
        // Two runs of a task beside each other: the older one could have the last word.
        if running.get(&key).is_some_and(|wave| *wave != stored.wave.id) {
            continue;
        }
        match turn(core, &stored, member).await? {
            Turn::Later => {}
            Turn::Event(event) => changed.extend(stored.wave.apply(event, now).unwrap_or_default()),
            Turn::Stale => break,
            Turn::Started(run) => {
                running.insert(key, stored.wave.id);
                room -= 1;
                // It is in the rows: the transaction that accepted the run changed the wave.
                stored.generation += 1;
                let _ = stored.wave.apply(WaveEvent::Started { member, run }, now);
            }
        }
    }
    save(core, &mut stored, &mut changed).await?;
    if stored.wave.finished.is_some() {
        tracing::info!(wave = %stored.wave.id, "wave is over");
    }
    Ok(())
}

/// Saves what changed; tells whether nobody else was faster. If somebody was, the next look begins anew.
async fn save(core: &Core, stored: &mut StoredWave, changed: &mut Vec<usize>) -> Result<bool, StoreError> {
    if changed.is_empty() {
        return Ok(true);
    }
    let saved = core.waves.save_wave(SaveWave::of(stored, changed)).await?;
    changed.clear();
    stored.generation += 1;
    if !saved {
        core.waves_wake.notify_one();
    }
    Ok(saved)
}

/// Has a member begin, if there is something to be done and nothing against it.
async fn turn(core: &Arc<Core>, stored: &StoredWave, member: usize) -> Result<Turn, StoreError> {
    let wave = stored.wave.id;
    let name = &stored.wave.members[member].task;
    let gone = |reason: &str| Ok(Turn::Event(WaveEvent::Gone { member, reason: reason.to_owned() }));
    let Some(record) = core.tasks.find_task(name).await? else { return gone("the task is deleted") };
    let task = &record.task;
    if !task.enabled {
        return gone("the task is disabled");
    }
    if !task.base_image.enabled {
        return gone("its base image trigger is disabled");
    }
    let bases = core.waves.task_bases(name).await?;
    let mut images: Vec<ImageUpdate> = Vec::new();
    for moved in bases.moved.into_iter().filter(|moved| task.base_image.rule(moved.kind).is_none()) {
        if !images.contains(&moved.update) {
            images.push(moved.update);
        }
    }
    if images.is_empty() {
        return Ok(Turn::Event(WaveEvent::Unchanged { member }));
    }
    if bases.busy.is_some() {
        return Ok(Turn::Later);
    }
    let not_started = async |reason: String| {
        let event = format!("wave {wave} came to it");
        core.waves.refuse_task(NewRefusal { task: name.clone(), event, rule: reason.clone() }).await?;
        tracing::warn!(wave = %wave, task = %name, why = reason, "wave started no run");
        Ok(Turn::Event(WaveEvent::NotStarted { member, reason }))
    };
    let cause = Cause::BaseImage { wave, images };
    let asking = stored_tasks::request(core, task, Given::default(), cause, None);
    let request = match tokio::time::timeout(ASKING, asking).await.unwrap_or_else(|_| Err(too_slow())) {
        Ok(request) => request,
        Err(error) if may_pass(&error) => {
            tracing::warn!(wave = %wave, task = %name, why = error.0.detail, "wave's run can't be asked for now; trying again");
            return Ok(Turn::Later);
        }
        Err(error) => return not_started(error.0.detail).await,
    };
    let notice = Endpoint::notice(&core.key, task);
    match stored_tasks::accept(core, request, For::Member(MemberRun { wave, member, notice })).await {
        Ok(accepted) => Ok(Turn::Started(accepted.record.run.id)),
        Err(AcceptError::MemberMoved { .. }) => Ok(Turn::Stale),
        Err(AcceptError::Store(error)) => Err(error),
        Err(error) => not_started(chain(&error)).await,
    }
}

fn too_slow() -> ApiError {
    let seconds = ASKING.as_secs();
    ApiError::new(ProblemCode::Unavailable, format!("what the task file names was not there within {seconds} s"))
}

/// Whether the same may succeed in a moment.
fn may_pass(error: &ApiError) -> bool {
    matches!(error.0.code, ProblemCode::Unavailable | ProblemCode::Internal | ProblemCode::StorageFull)
}

/// Pauses, resumes or cancels a wave. The runs of one that is cancelled are cancelled as well.
pub(crate) async fn steer(core: &Arc<Core>, id: WaveId, event: WaveEvent, by: &PrincipalName) -> ApiResult<StoredWave> {
    let unknown = || ApiError::not_found(format!("wave {id}")).with_hint("`cooper wave list` shows the waves");
    for _ in 0..TRIES {
        let mut stored = core.waves.find_wave(id).await?.ok_or_else(unknown)?;
        let changed = match stored.wave.apply(event.clone(), core.clock.now()) {
            Ok(changed) => changed,
            Err(refusal @ (WaveRefusal::Over | WaveRefusal::Canceled)) => {
                return Err(ApiError::new(ProblemCode::Conflict, format!("wave {id} can't be changed: {refusal}")));
            }
            Err(WaveRefusal::Member) => return Err(unknown()),
        };
        if !core.waves.save_wave(SaveWave::of(&stored, &changed)).await? {
            continue;
        }
        if event == WaveEvent::Cancel {
            let running = stored.wave.members.iter().filter(|member| !member.state.is_over());
            for run in running.filter_map(|member| member.state.run()) {
                match core.apply(run, RunEvent::CancelRequested { by: by.clone() }).await {
                    Ok(_) | Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        tracing::info!(wave = %id, ?event, by = %by, "wave steered");
        core.waves_wake.notify_one();
        return core.waves.find_wave(id).await?.ok_or_else(unknown);
    }
    Err(ApiError::new(ProblemCode::Unavailable, format!("wave {id} changes too often just now; try again")))
}
