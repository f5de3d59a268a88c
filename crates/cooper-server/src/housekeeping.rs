//! The loop that removes what has been kept long enough, beside everything else: contexts, old runs of tasks with their logs,
//! texts of requests, and what came to hooks. It writes down, too, when agents were seen.

use std::sync::Arc;
use std::time::Duration;

use cooper_types::ContextId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::problem::chain;

const PERIOD: Duration = Duration::from_secs(60);
/// Old runs, and logs, that are removed in one transaction: a log can be large, and others want to write, too.
const RUN_BATCH: u32 = 8;
/// How long old runs are removed for without a pause for the rest.
const RUN_TIME: Duration = Duration::from_secs(20);
/// Deliveries, events and orders of tags that are forgotten in one transaction.
const HOOK_BATCH: u32 = 500;
/// How long they are forgotten without a pause for the rest.
const HOOK_TIME: Duration = Duration::from_secs(10);
/// How long waves are kept after their ends: as long as the runs of tasks are unless something else is said.
const WAVE_RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// Members of waves, and tags that nobody follows any more, that are removed in one transaction: a wave may have thousands.
const WAVE_BATCH: u32 = 1_000;
/// How long they are removed for without a pause for the rest.
const WAVE_TIME: Duration = Duration::from_secs(10);
/// How often it looks for tags that nobody follows: each look is one through all of them.
const TAGS_PERIOD: Duration = Duration::from_secs(3600);
/// Contexts that are removed in one go.
const CONTEXT_BATCH: u32 = 100;
/// How long contexts are cut for without a pause for the rest.
const CONTEXT_TIME: Duration = Duration::from_secs(20);
/// Requests whose texts are dropped in one go.
const TEXT_BATCH: u32 = 1_000;

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    let mut beats = tokio::time::interval(PERIOD);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut tags_looked_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = beats.tick() => {}
        }
        remove_expired_contexts(&core).await;
        remove_old_runs(&core, &shutdown).await;
        prune_hooks(&core, &shutdown).await;
        remove_old_waves(&core, &shutdown).await;
        if tags_looked_at.is_none_or(|last| last.elapsed() >= TAGS_PERIOD) {
            tags_looked_at = Some(Instant::now());
            forget_remote_tags(&core, &shutdown).await;
        }
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

/// Forgets what came to hooks long ago, until nothing is left of it or the time is over.
async fn prune_hooks(core: &Core, shutdown: &CancellationToken) {
    let begun = Instant::now();
    while !shutdown.is_cancelled() && begun.elapsed() < HOOK_TIME {
        match core.hook_store.prune_hooks(HOOK_BATCH).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = chain(&error), "old deliveries can't be forgotten");
                return;
            }
        }
    }
}

/// Removes waves that were over long ago, until nothing is left of them or the time is over.
async fn remove_old_waves(core: &Core, shutdown: &CancellationToken) {
    let (begun, mut rows) = (Instant::now(), 0);
    while !shutdown.is_cancelled() && begun.elapsed() < WAVE_TIME {
        match core.waves.expire_waves(WAVE_RETENTION, WAVE_BATCH).await {
            Ok(0) => break,
            Ok(gone) => rows += gone,
            Err(error) => {
                tracing::error!(error = chain(&error), "old waves can't be removed");
                break;
            }
        }
    }
    if rows > 0 {
        tracing::info!(rows, "old waves removed");
    }
}

/// Forgets tags of other registries that nobody follows any more.
async fn forget_remote_tags(core: &Core, shutdown: &CancellationToken) {
    let begun = Instant::now();
    while !shutdown.is_cancelled() && begun.elapsed() < WAVE_TIME {
        match core.waves.forget_remote_tags(WAVE_BATCH).await {
            Ok(gone) if gone < u64::from(WAVE_BATCH) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = chain(&error), "tags of other registries can't be forgotten");
                return;
            }
        }
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
    remove(core, expired).await;
    cut_contexts(core).await;
    // What the planning of a run read goes with its files.
    if let Err(error) = core.runs.drop_request_texts(core.context_retention, TEXT_BATCH).await {
        tracing::error!(error = chain(&error), "texts of old requests can't be dropped");
    }
}

/// Removes contexts of ended runs, the oldest first, until the rest takes up no more than it may.
async fn cut_contexts(core: &Core) {
    let begun = Instant::now();
    let mut all = 0;
    while begun.elapsed() < CONTEXT_TIME {
        match core.contexts.cut_contexts(core.context_retention_bytes, CONTEXT_BATCH).await {
            Ok(cut) if cut.is_empty() => break,
            Ok(cut) => {
                all += cut.len();
                remove(core, cut).await;
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "contexts of ended runs can't be listed");
                break;
            }
        }
    }
    if all > 0 {
        tracing::info!(
            contexts = all,
            "contexts of ended runs removed, as --context-retention-size has no room for more"
        );
    }
}

/// Removes the bytes of contexts that are marked as deleted, and then what is known of them.
async fn remove(core: &Core, contexts: Vec<ContextId>) {
    let mut gone = Vec::new();
    for id in contexts {
        match core.context_files.remove(&id).await {
            Ok(()) => gone.push(id),
            // It comes back as an expired one.
            Err(error) => tracing::error!(context = %id, error = %error, "expired context can't be removed"),
        }
    }
    if let Err(error) = core.contexts.forget_contexts(&gone).await {
        tracing::error!(error = chain(&error), "removed contexts can't be forgotten");
    }
}
