//! Ends the runs of a pull request's earlier commits, where its trigger says so.
//!
//! What is to end follows from the runs alone, ended ones included, so that a crash between acceptance and the end costs
//! nothing: the next start looks again. A failure here is nobody else's: deliveries are worked off beside it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::run::{Run, RunEvent, RunStatus};
use cooper_engine::task::{Cause, SourceCause};
use cooper_engine::trigger::FiringKind;
use cooper_ports::runs::{ApplyError, RunQuery};
use cooper_ports::store_error::StoreError;
use cooper_types::{RunId, TaskName};
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;

/// Unfinished runs that are looked at a time.
const PAGE: u32 = 200;
/// How long it waits after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: what a lost wake-up costs.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut has_looked = false;
    loop {
        let ended = async {
            if !has_looked {
                everywhere(&core).await?;
                has_looked = true;
            }
            pending(&core).await
        };
        let ended = tokio::select! {
            () = shutdown.cancelled() => return,
            ended = ended => ended,
        };
        let wait = match ended {
            Ok(()) => LONGEST,
            Err(error) => {
                tracing::error!(error = chain(&error), "superseded runs can't be ended; trying again");
                PAUSE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.hooks.newer.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Ends what the runs that were accepted since supersede.
pub(super) async fn pending(core: &Core) -> Result<(), StoreError> {
    let mut failed = Ok(());
    for run in core.hooks.superseding() {
        if let Err(error) = by(core, run).await {
            // The others are not kept up by it.
            core.hooks.supersedes_later(run);
            failed = Err(error);
        }
    }
    failed
}

/// Ends what this run supersedes.
async fn by(core: &Core, newer: RunId) -> Result<(), StoreError> {
    let Some(record) = core.runs.find_run(newer).await? else { return Ok(()) };
    let Some((task, number, cause)) = pull_request(&record.run) else { return Ok(()) };
    for event in core.hook_store.runs_of_events(task, &FiringKind::keys_of_pull_request(number)).await? {
        if event.unfinished && event.run < newer {
            let Some(older) = core.runs.find_run(event.run).await? else { continue };
            if pull_request(&older.run).is_some_and(|(_, _, older)| older.repository == cause.repository) {
                end(core, event.run, newer).await?;
            }
        }
    }
    Ok(())
}

/// Ends what is superseded anywhere.
pub(super) async fn everywhere(core: &Core) -> Result<(), StoreError> {
    let statuses: Vec<_> = RunStatus::ALL.into_iter().filter(|status| !status.is_terminal()).collect();
    let mut before = None;
    let mut seen: BTreeSet<(String, u64)> = BTreeSet::new();
    loop {
        let query = RunQuery { statuses: statuses.clone(), before, ..RunQuery::newest(PAGE) };
        let page = core.runs.list_runs(&query).await?;
        let Some(last) = page.last() else { return Ok(()) };
        before = Some(last.run.id);
        for record in &page {
            let Some((task, number, _)) = pull_request(&record.run) else { continue };
            if !seen.insert((task.key(), number)) {
                continue;
            }
            // The newest may have ended: what it took the place of goes on.
            let events = core.hook_store.runs_of_events(task, &FiringKind::keys_of_pull_request(number)).await?;
            let Some(newest) = events.last() else { continue };
            let newer = core.runs.find_run(newest.run).await?;
            let takes = |run: &Run| pull_request(run).is_some_and(|(_, _, cause)| cause.cancel_superseded);
            if newer.is_some_and(|newer| takes(&newer.run)) {
                by(core, newest.run).await?;
            }
        }
    }
}

fn pull_request(run: &Run) -> Option<(&TaskName, u64, &SourceCause)> {
    let task = run.origin.task.as_ref()?;
    let Cause::Source(cause) = &run.origin.cause else { return None };
    let FiringKind::PullRequest { number, .. } = &cause.firing.kind else { return None };
    Some((&task.name, *number, cause))
}

async fn end(core: &Core, run: RunId, newer: RunId) -> Result<(), StoreError> {
    match core.apply(run, RunEvent::Superseded { by: newer }).await {
        Ok(_) => tracing::info!(run = %run, newer = %newer, "run superseded by a newer commit of its pull request"),
        Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)) => {}
        Err(ApplyError::Store(error)) => return Err(error),
        Err(error) => tracing::error!(run = %run, error = chain(&error), "superseded run can't be ended"),
    }
    Ok(())
}
