//! The loop that removes what has been kept long enough, beside everything else: contexts, old runs of tasks with their logs,
//! and texts of requests. It writes down, too, when agents were seen.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;

const PERIOD: Duration = Duration::from_secs(60);
/// Old runs, and logs, that are removed in one transaction: a log can be large, and others want to write, too.
const RUN_BATCH: u32 = 8;
/// How long old runs are removed for without a pause for the rest.
const RUN_TIME: Duration = Duration::from_secs(20);
/// Contexts that are removed in one go.
const CONTEXT_BATCH: u32 = 100;
/// Requests whose texts are dropped in one go.
const TEXT_BATCH: u32 = 1_000;

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut beats = tokio::time::interval(PERIOD);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = beats.tick() => {}
        }
        remove_expired_contexts(&core).await;
        remove_old_runs(&core, &shutdown).await;
        core.write_down_agents().await;
    }
}

/// Removes old runs until there is none, or the time is over.
async fn remove_old_runs(core: &Core, shutdown: &CancellationToken) {
    let begun = Instant::now();
    let (mut runs, mut logs) = (0, 0);
    while !shutdown.is_cancelled() && begun.elapsed() < RUN_TIME {
        match core.runs.expire_runs(RUN_BATCH).await {
            Ok(expired) if expired.runs + expired.logs == 0 => break,
            Ok(expired) => {
                runs += expired.runs;
                logs += expired.logs;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "old runs can't be removed");
                break;
            }
        }
    }
    if runs + logs > 0 {
        tracing::info!(runs, logs, "old runs of tasks removed");
    }
}

pub(crate) async fn remove_expired_contexts(core: &Core) {
    let expired = match core.contexts.expire_contexts(core.context_retention, CONTEXT_BATCH).await {
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
    // What the planning of a run read goes with its files.
    if let Err(error) = core.runs.drop_request_texts(core.context_retention, TEXT_BATCH).await {
        tracing::error!(error = chain(&error), "texts of old requests can't be dropped");
    }
}
