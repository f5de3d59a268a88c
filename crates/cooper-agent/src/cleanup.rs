//! The end of a placement: its steps stopped, its names and files gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::message::PlacementKey;
use cooper_ports::engine::{EngineError, LocalName, PlacementScope};
use cooper_types::AttemptNumber;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::chain;
use crate::placement::SharedPlacement;
use crate::step::StepRunner;

/// How long steps may take to stop once they were told to; then they are dropped, which stops them as well.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the engine may take to remove names, and to remove what steps shared: on a busy machine a container alone takes
/// seconds.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Which attempts there were, and what stops each by itself.
    pub(crate) attempts: BTreeMap<AttemptNumber, CancellationToken>,
    /// What its steps share.
    pub(crate) shared: Arc<SharedPlacement>,
}

/// What the engine would not remove.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) names: Vec<LocalName>,
    pub(crate) placements: Vec<PlacementScope>,
}

impl Leftovers {
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.placements.is_empty()
    }

    pub(crate) fn extend(&mut self, more: Self) {
        self.names.extend(more.names);
        self.placements.extend(more.placements);
    }
}

/// Stops what runs of a placement and removes what it made, and `leftovers` of earlier ones. Returns what the engine
/// would not remove.
pub(crate) async fn clean_up(
    runner: Arc<StepRunner>,
    key: PlacementKey,
    tasks: PlacementTasks,
    leftovers: Leftovers,
) -> Leftovers {
    tasks.cancel.cancel();
    tasks.tracker.close();
    if tokio::time::timeout(STOP_TIMEOUT, tasks.tracker.wait()).await.is_err() {
        tracing::warn!(run = %key.run, "step does not stop: it is dropped");
        tasks.aborts.iter().for_each(AbortHandle::abort);
        // A dropped task is gone as soon as it next waits; one that never waits is not waited for.
        let _ = tokio::time::timeout(STOP_TIMEOUT, tasks.tracker.wait()).await;
    }
    tasks.attempts.keys().for_each(|attempt| runner.hub.close(key, *attempt));
    let scope = runner.scope(key);
    let mut left = Leftovers { names: tasks.names, placements: Vec::new() };
    let closed = tokio::time::timeout(REMOVE_TIMEOUT, tasks.shared.close(&*runner.engine, &scope)).await;
    if !is_removed(closed, &scope) {
        left.placements.push(scope);
    }
    left.names.extend(leftovers.names);
    let known = left.placements.len();
    left.placements.extend(leftovers.placements);
    let left = remove(Arc::clone(&runner), left, known).await;
    let dir = runner.placement_dir(key);
    match tokio::fs::remove_dir_all(&dir).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(%error, dir = %dir.display(), "folder of a placement can't be removed");
        }
        _ => {}
    }
    tracing::info!(run = %key.run, "placement is cleaned up");
    left
}

/// Removes again what the engine would not remove. Returns what it still would not.
pub(crate) async fn remove_leftovers(runner: Arc<StepRunner>, leftovers: Leftovers) -> Leftovers {
    remove(runner, leftovers, 0).await
}

/// Removes names, and placements but the first `known`, of which it is known that it does not work now.
async fn remove(runner: Arc<StepRunner>, leftovers: Leftovers, known: usize) -> Leftovers {
    let Leftovers { names, mut placements } = leftovers;
    let names = if names.is_empty() { names } else { remove_names(Arc::clone(&runner), names).await };
    for scope in placements.split_off(known) {
        let removed = tokio::time::timeout(REMOVE_TIMEOUT, runner.engine.remove_placement(&scope)).await;
        if !is_removed(removed.map(|removed| removed.map(|_| ())), &scope) {
            placements.push(scope);
        }
    }
    Leftovers { names, placements }
}

/// Whether a placement is gone from the engine; says so if not.
fn is_removed(result: Result<Result<(), EngineError>, tokio::time::error::Elapsed>, scope: &PlacementScope) -> bool {
    let run = scope.key.run;
    match result {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::warn!(%run, error = chain(&error), "containers of a run are left for now"),
        Err(_) => tracing::warn!(%run, "containers of a run are left for now: it takes too long to remove them"),
    }
    false
}

/// Removes names from the engine. Returns those that it would not remove.
async fn remove_names(runner: Arc<StepRunner>, names: Vec<LocalName>) -> Vec<LocalName> {
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
