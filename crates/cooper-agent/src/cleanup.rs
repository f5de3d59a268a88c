//! The end of a placement: its steps stopped, its names and files gone.

use std::sync::Arc;
use std::time::Duration;

use cooper_engine::message::PlacementKey;
use cooper_ports::engine::LocalName;
use cooper_types::AttemptNumber;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::chain;
use crate::step::StepRunner;

/// How long steps may take to stop once they were told to; then they are dropped, which stops them as well.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the engine may take to remove names.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What runs of a placement, and what it made.
#[derive(Debug, Default)]
pub(crate) struct PlacementTasks {
    /// Stops its steps.
    pub(crate) cancel: CancellationToken,
    /// Knows when they have stopped.
    pub(crate) tracker: TaskTracker,
    /// Drops them.
    pub(crate) aborts: Vec<AbortHandle>,
    /// What they may have named in the engine.
    pub(crate) names: Vec<LocalName>,
    /// Which attempts there were.
    pub(crate) attempts: Vec<AttemptNumber>,
}

/// Stops what runs of a placement and removes what it made, and `leftovers` of earlier ones. Returns the names that the
/// engine would not remove.
pub(crate) async fn clean_up(
    runner: Arc<StepRunner>,
    key: PlacementKey,
    tasks: PlacementTasks,
    leftovers: Vec<LocalName>,
) -> Vec<LocalName> {
    tasks.cancel.cancel();
    tasks.tracker.close();
    if tokio::time::timeout(STOP_TIMEOUT, tasks.tracker.wait()).await.is_err() {
        tracing::warn!(run = %key.run, "step does not stop: it is dropped");
        tasks.aborts.iter().for_each(AbortHandle::abort);
        // A dropped task is gone as soon as it next waits; one that never waits is not waited for.
        let _ = tokio::time::timeout(STOP_TIMEOUT, tasks.tracker.wait()).await;
    }
    tasks.attempts.iter().for_each(|attempt| runner.hub.close(key, *attempt));
    let mut names = tasks.names;
    names.extend(leftovers);
    let left = if names.is_empty() { names } else { remove_names(Arc::clone(&runner), names).await };
    let dir = runner.placement_dir(key);
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, dir = %dir.display(), "folder of a placement can't be removed");
        }
        _ => {}
    }
    left
}

/// Removes names from the engine. Returns those that it would not remove.
pub(crate) async fn remove_names(runner: Arc<StepRunner>, names: Vec<LocalName>) -> Vec<LocalName> {
    match tokio::time::timeout(REMOVE_TIMEOUT, runner.engine.remove_names(&names)).await {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(error)) => {
            tracing::warn!(error = chain(&error), "images of a run are left in the engine for now");
            names
        }
        Err(_) => {
            tracing::warn!("images of a run are left in the engine for now: it takes too long to remove them");
            names
        }
    }
}
