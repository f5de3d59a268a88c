//! A member's turn: whether there is something to be done, the request for its run, and the run.

use std::sync::Arc;
use std::time::Duration;

use cooper_engine::task::{Cause, ImageUpdate};
use cooper_engine::wave::WaveEvent;
use cooper_ports::runs::{AcceptError, AcceptRun};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::MemberRun;
use cooper_types::{RunId, TaskName, WaveId};
use tokio::time::Instant as Moment;

use super::shares::Owner;
use crate::core::Core;
use crate::outbox::endpoint::Endpoint;
use crate::problem::chain;
use crate::stored_tasks::{self, For, Given, NotAsked};

/// How long a task that waits, and is held by no pause, lets those be built first that make what it stands on, where other waves do that. Longer would be
/// for ever where its bases change faster than they are built.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A member whose turn has come.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) wave: WaveId,
    /// Its place.
    pub(super) member: usize,
    pub(super) task: TaskName,
    /// Whose that is.
    pub(super) owner: Owner,
    /// How long ago it was tried first.
    pub(super) tried_for: Duration,
}

/// A member whose run is asked for, and to be accepted when there is room.
pub(super) struct Ready {
    pub(super) turn: Turn,
    /// When it was asked for.
    pub(super) since: Moment,
    request: AcceptRun,
    stands_for: MemberRun,
}

/// What there is to be done with a member.
pub(super) enum Asked {
    /// Its run is to be accepted.
    Ready(Box<Ready>),
    /// This becomes of it instead.
    Event(WaveEvent),
    /// Others go first: a run of its task, or a task that makes what it stands on, by its key.
    Busy { maker: Option<String>, why: String },
    /// Its run can't be asked for just now, and why.
    NotYet(String),
}

/// What became of a member's turn.
pub(super) enum Outcome {
    /// Its run was asked for, or not.
    Asked(Asked),
    /// Its run was accepted.
    Started(RunId),
    /// Somebody else has changed the wave.
    Stale,
}

/// Looks what there is to be done with a member, and asks for its run.
pub(super) async fn ask(core: Arc<Core>, turn: Turn) -> Result<Outcome, StoreError> {
    asked(&core, &turn).await.map(Outcome::Asked)
}

async fn asked(core: &Arc<Core>, turn: &Turn) -> Result<Asked, StoreError> {
    let Turn { wave, member, task: name, owner: _, tried_for } = turn.clone();
    let gone = |reason: &str| Ok(Asked::Event(WaveEvent::Gone { member, reason: reason.to_owned() }));
    let Some(task) = core.tasks.task(&name).await? else { return gone("the task is deleted") };
    if !task.enabled {
        return gone("the task is disabled");
    }
    if !task.base_image.enabled {
        return gone("its base image trigger is disabled");
    }
    let bases = core.waves.task_bases(&name, wave).await?;
    let has_patience = |since| core.clock.now().since(since) < PATIENCE;
    if let Some(maker) = bases.maker.filter(|_| bases.free_since.is_some_and(has_patience)) {
        let why = format!("task {maker}, which makes what it stands on, is built first in another wave");
        return Ok(Asked::Busy { maker: Some(maker), why });
    }
    let mut images: Vec<ImageUpdate> = Vec::new();
    for moved in bases.moved.into_iter().filter(|moved| task.base_image.is_started_by(moved.kind)) {
        if !images.contains(&moved.update) {
            images.push(moved.update);
        }
    }
    if images.is_empty() {
        return Ok(Asked::Event(WaveEvent::Unchanged { member }));
    }
    if let Some(run) = bases.busy {
        return Ok(Asked::Busy { maker: None, why: format!("run {run} of its task goes on") });
    }
    let cause = Cause::BaseImage { wave, images };
    match stored_tasks::request_for_trigger(core, &task, Given::default(), cause, tried_for).await {
        Ok(request) => {
            let stands_for = MemberRun { wave, member, compared: bases.said_by, notice: Endpoint::notice(&task) };
            Ok(Asked::Ready(Box::new(Ready { turn: turn.clone(), since: Moment::now(), request, stands_for })))
        }
        Err(NotAsked::Yet(why)) => {
            tracing::warn!(wave = %wave, task = %name, why, "wave's run can't be asked for now; trying again");
            Ok(Asked::NotYet(why))
        }
        Err(NotAsked::AtAll(reason)) => Ok(Asked::Event(not_started(turn, reason))),
    }
}

fn not_started(turn: &Turn, reason: String) -> WaveEvent {
    tracing::warn!(wave = %turn.wave, task = %turn.task, why = reason, "wave started no run");
    WaveEvent::NotStarted { member: turn.member, reason }
}

/// Accepts the run of a member.
pub(super) async fn accept(core: Arc<Core>, ready: Ready) -> Result<Outcome, StoreError> {
    let Ready { turn, request, stands_for, .. } = ready;
    match stored_tasks::accept(&core, request, For::Member(stands_for)).await {
        Ok(accepted) => Ok(Outcome::Started(accepted.record.run.id)),
        Err(AcceptError::MemberMoved { .. }) => Ok(Outcome::Stale),
        Err(AcceptError::Store(error)) => Err(error),
        Err(error) => Ok(Outcome::Asked(Asked::Event(not_started(&turn, chain(&error))))),
    }
}
