//! The scheduler's loop: looks at all unfinished runs, when woken and by itself, and does what is due.
//!
//! It remembers nothing between two looks, so a restart, a lost wake-up and a crash all go down the same path.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::run::{Placement, Refusal, Run, RunEvent};
use cooper_engine::schedule::{self, Decision};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::runs::ApplyError;
use cooper_ports::store_error::StoreError;
use cooper_types::RunId;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;

/// The longest time between two looks: what a lost wake-up costs.
const PERIOD: Duration = Duration::from_secs(1);
/// How often expired contexts are removed.
const CONTEXT_PERIOD: Duration = Duration::from_secs(60);
/// Contexts that are removed in one go.
const CONTEXT_BATCH: u32 = 100;

/// The most runs that one look tells anew why they wait.
const EXPLANATIONS: usize = 256;
/// How many of them are on the way to the store at a time.
const EXPLANATIONS_AT_ONCE: usize = 64;

/// Runs until cancelled. Leases begin anew first: while the server was down nobody could renew.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    if let Err(error) = extend_leases(&core).await {
        tracing::error!(error = chain(&error), "leases can't be extended after the restart");
    }
    let mut contexts_due = tokio::time::Instant::now();
    loop {
        if let Err(error) = sweep(&core).await {
            tracing::error!(error = chain(&error), "scheduler can't read the runs; trying again");
        }
        if contexts_due <= tokio::time::Instant::now() {
            contexts_due = tokio::time::Instant::now() + CONTEXT_PERIOD;
            remove_expired_contexts(&core).await;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.wake.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn extend_leases(core: &Core) -> Result<(), StoreError> {
    for run in core.runs.unfinished_runs().await? {
        apply(core, run.id, RunEvent::ServerStarted).await;
        failpoint::pass(Failpoint::LeaseExtended);
    }
    Ok(())
}

async fn sweep(core: &Core) -> Result<(), StoreError> {
    let now = core.clock.now();
    let mut runs = core.runs.unfinished_runs().await?;
    for run in &mut runs {
        // Asking the state machine first spares a write for each run and look.
        if run.is_due(now, &core.policy) {
            apply(core, run.id, RunEvent::Tick).await;
            if let Some(record) = core.runs.find_run(run.id).await? {
                *run = record.run;
            }
        }
    }
    runs.retain(|run| run.finished().is_none());
    let agents = core.agents.views();
    let load = schedule::load(&runs);
    let known: BTreeMap<RunId, &Run> = runs.iter().map(|run| (run.id, run)).collect();
    let mut explanations = Vec::new();
    for decision in schedule::schedule(schedule::waiting(&runs, now, &core.policy), &agents, &load) {
        match decision {
            Decision::Offer { run, placement, agent } => {
                apply(core, run, RunEvent::Offer { placement, agent }).await;
            }
            Decision::Wait { run, placement, reason } => {
                let before = known.get(&run).and_then(|run| run.placements.get(placement));
                if matches!(before, Some(Placement::Waiting { reason: old }) if *old != reason) {
                    explanations.push((run, RunEvent::Explained { placement, reason }));
                }
            }
        }
    }
    // After the offers, and a bounded number: a long queue must not keep agents waiting for work. They are written
    // together, so that they share commits; the next look goes on with the rest.
    explanations.truncate(EXPLANATIONS);
    futures::stream::iter(explanations)
        .for_each_concurrent(EXPLANATIONS_AT_ONCE, |(run, event)| apply(core, run, event))
        .await;
    Ok(())
}

async fn apply(core: &Core, run: RunId, event: RunEvent) {
    match core.apply(run, event).await {
        Ok(_)
        | Err(ApplyError::Refused { refusal: Refusal::NothingToDo | Refusal::NotWaiting | Refusal::Over, .. }) => {}
        Err(error) => tracing::error!(run = %run, error = chain(&error), "run can't be moved on; trying again"),
    }
}

pub(crate) async fn remove_expired_contexts(core: &Core) {
    let expired = match core.contexts.expire_contexts(CONTEXT_BATCH).await {
        Ok(expired) => expired,
        Err(error) => {
            tracing::error!(error = chain(&error), "expired contexts can't be listed");
            return;
        }
    };
    let mut gone = Vec::new();
    for id in expired {
        match core.context_files.remove(&id).await {
            Ok(()) => gone.push(id),
            Err(error) => tracing::error!(context = %id, error = %error, "expired context can't be removed"),
        }
    }
    if let Err(error) = core.contexts.forget_contexts(&gone).await {
        tracing::error!(error = chain(&error), "removed contexts can't be forgotten");
    }
}
