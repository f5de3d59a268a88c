//! Ends the runs of a pull request's earlier commits, where its trigger says so.
//!
//! What is to end follows from the unfinished runs alone, so that a crash between acceptance and the end costs nothing: the
//! next start looks again.

use std::collections::BTreeMap;

use cooper_engine::run::{Run, RunEvent, RunStatus};
use cooper_engine::task::{Cause, SourceCause};
use cooper_engine::trigger::FiringKind;
use cooper_ports::runs::{ApplyError, RunQuery};
use cooper_ports::store_error::StoreError;
use cooper_types::{RunId, TaskName};

use crate::core::Core;
use crate::problem::chain;

/// The most unfinished runs that are looked at.
const MOST: u32 = 10_000;

/// Ends what this run supersedes.
pub(super) async fn by(core: &Core, run: &Run) -> Result<(), StoreError> {
    let Some((task, number, _)) = pull_request(run) else { return Ok(()) };
    let runs = unfinished(core, Some(task.clone())).await?;
    let older = runs.iter().filter(|other| {
        other.id < run.id && pull_request(other).is_some_and(|(_, other, cause)| other == number && is_same(run, cause))
    });
    for other in older {
        end(core, other, run.id).await;
    }
    Ok(())
}

/// Ends what is superseded anywhere.
pub(super) async fn everywhere(core: &Core) -> Result<(), StoreError> {
    let runs = unfinished(core, None).await?;
    let mut newest: BTreeMap<(String, String, u64), RunId> = BTreeMap::new();
    // The newest comes first.
    for run in &runs {
        let Some((task, number, cause)) = pull_request(run) else { continue };
        let key = (task.key(), cause.repository.clone(), number);
        match newest.get(&key) {
            Some(newer) => end(core, run, *newer).await,
            None if cause.cancel_superseded => drop(newest.insert(key, run.id)),
            None => {}
        }
    }
    Ok(())
}

fn pull_request(run: &Run) -> Option<(&TaskName, u64, &SourceCause)> {
    let task = run.origin.task.as_ref()?;
    let Cause::Source(cause) = &run.origin.cause else { return None };
    let FiringKind::PullRequest { number, .. } = &cause.firing.kind else { return None };
    Some((&task.name, *number, cause))
}

fn is_same(run: &Run, other: &SourceCause) -> bool {
    pull_request(run).is_some_and(|(_, _, cause)| cause.repository == other.repository)
}

async fn unfinished(core: &Core, task: Option<TaskName>) -> Result<Vec<Run>, StoreError> {
    let statuses = RunStatus::ALL.into_iter().filter(|status| !status.is_terminal()).collect();
    let query = RunQuery { statuses, run_type: None, task, principal: None, before: None, limit: MOST };
    Ok(core.runs.list_runs(&query).await?.into_iter().map(|record| record.run).collect())
}

/// A failure is not the newer run's: the older one goes on.
async fn end(core: &Core, run: &Run, newer: RunId) {
    match core.apply(run.id, RunEvent::CancelRequested { by: run.principal.clone() }).await {
        Ok(_) => tracing::info!(run = %run.id, newer = %newer, "run superseded by a newer commit of its pull request"),
        Err(ApplyError::Refused { .. } | ApplyError::Unknown(_)) => {}
        Err(error) => tracing::error!(run = %run.id, error = chain(&error), "superseded run can't be ended"),
    }
}
