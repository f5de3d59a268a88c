//! The loop of the timers: sleeps until the earliest instant by the store's clock, and fires what has come.
//!
//! The next instants are rows, and a row moves on in the transaction that accepts its run: a crash or a second server fires
//! nothing twice. What was due while no server ran is `cooper_engine::task`'s to judge.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use cooper_api::problem::ProblemCode;
use cooper_engine::task::Cause;
use cooper_ports::runs::AcceptError;
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{Firing, Instant};
use cooper_types::Timestamp;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::{ApiError, chain};
use crate::stored_tasks::{self, Given};

/// Instants that are read at a time.
const BATCH: u32 = 1000;
/// Runs that are on the way to the store at a time: they share commits.
const AT_ONCE: usize = 64;
/// How long it waits after a failure of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: what a lost wake-up costs.
const LONGEST: Duration = Duration::from_secs(60);
/// For how long an instant is tried whose run can't be asked for just now.
const TRIED_FOR: Duration = Duration::from_secs(600);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let watched = core.clock.now();
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = pass(&core, watched) => next,
        };
        let wait = match next {
            Ok(next) => next.map_or(LONGEST, |next| next.since(core.clock.now()).min(LONGEST)),
            Err(error) => {
                tracing::error!(error = chain(&error), "timers can't be looked at; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.timers.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What became of an instant.
enum Done {
    /// It is over.
    Yes,
    /// It is tried again in a moment.
    Later,
}

/// Fires everything that has come, and tells when to look again.
async fn pass(core: &Arc<Core>, watched: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    loop {
        let now = core.clock.now();
        let due = core.tasks.due_timers(now, BATCH).await?;
        if due.is_empty() {
            return core.tasks.next_timer().await;
        }
        let fires = futures::stream::iter(due).map(|instant| fire(core, instant, watched, now));
        let done: Vec<Result<Done, StoreError>> = fires.buffer_unordered(AT_ONCE).collect().await;
        let mut later = false;
        for done in done {
            later |= matches!(done?, Done::Later);
        }
        if later {
            return Ok(Some(core.clock.now().after(PAUSE)));
        }
    }
}

/// Fires one instant, or moves on from it.
async fn fire(core: &Arc<Core>, instant: Instant, watched: Timestamp, now: Timestamp) -> Result<Done, StoreError> {
    // A task that is gone has taken its timers with it.
    let Some(record) = core.tasks.find_task(&instant.task).await? else { return Ok(Done::Yes) };
    let task = &record.task;
    let Some(timer) = task.timers.get(&instant.timer) else { return Ok(Done::Yes) };
    let passed = timer.passed(instant.at, watched, now);
    let firing = Firing { instant: instant.clone(), next: passed.next };
    if !passed.fires {
        return pass_by(core, &firing, "missed: no server ran at that time, and the timer's catch-up is Skip").await;
    }
    let cause = Cause::Timer { timer: instant.timer.clone(), occurrence: instant.at };
    let request = match stored_tasks::request(core, task, Given::default(), cause, None).await {
        Ok(request) => request,
        Err(error) if may_pass(&error) && now.since(instant.at) < TRIED_FOR => {
            tracing::warn!(task = %task.name, timer = %instant.timer, why = error.0.detail, "timer's run can't be asked for now; trying again");
            return Ok(Done::Later);
        }
        Err(error) => return pass_by(core, &firing, &error.0.detail).await,
    };
    match stored_tasks::accept(core, request, Some(firing.clone())).await {
        Ok(_) | Err(AcceptError::TimerMoved { .. }) => Ok(Done::Yes),
        Err(AcceptError::Store(error)) => Err(error),
        Err(error) => pass_by(core, &firing, &chain(&error)).await,
    }
}

/// Moves a timer on without a run.
async fn pass_by(core: &Core, firing: &Firing, why: &str) -> Result<Done, StoreError> {
    if core.tasks.pass_instant(firing, why).await? {
        let Instant { task, timer, at } = &firing.instant;
        tracing::warn!(task = %task, timer = %timer, instant = %at, why, "timer started no run");
    }
    Ok(Done::Yes)
}

/// Whether the same may succeed in a moment.
fn may_pass(error: &ApiError) -> bool {
    matches!(error.0.code, ProblemCode::Unavailable | ProblemCode::Internal | ProblemCode::StorageFull)
}
