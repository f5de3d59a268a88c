//! Tells forges how the runs stand that their events have set off: as statuses of the commits, with a link to the run's page.
//!
//! What is to be told is in the store. A forge that is away is asked again, later and later; what it refuses is written down
//! and not repeated. The token is the one that the task keeps for the repository's host, and goes nowhere else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cooper_engine::run::{Run, RunStatus};
use cooper_engine::task::{Cause, SourceCause};
use cooper_engine::trigger::FiringKind;
use cooper_engine::trigger::provider::Provider;
use cooper_forge::api::{CommitStatus, StatusState};
use cooper_ports::statuses::DueStatus;
use cooper_ports::store_error::StoreError;
use cooper_types::{TaskName, Timestamp};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::due;
use super::forges::{self, Refusal};
use crate::api::run_page;
use crate::core::Core;
use crate::problem::chain;

/// Why nobody was told, where a task wants nobody told.
pub(crate) const NO_TOKEN: &str = "the task keeps no token for the forge";
/// Requests that are on their way to a host at a time. No more are read of it.
const OF_A_HOST: u32 = 4;
/// Hosts that are told at a time.
const HOSTS_AT_ONCE: usize = 64;
/// How soon it looks for what has become due, while hosts are slow.
const PERIOD: Duration = Duration::from_secs(5);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    due::keep_doing(&core, &shutdown, &core.hooks.tell, "commit statuses", || pass(&core)).await;
}

/// Tells what is due, and when the next is. A host that is slow keeps no other waiting.
pub(super) async fn pass(core: &Arc<Core>) -> Result<Option<Timestamp>, StoreError> {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    // Tasks of their own: they hold connections of the store, for which this loop waits, too.
    let mut flights: JoinSet<(String, Result<(), StoreError>)> = JoinSet::new();
    loop {
        if asked.len() < HOSTS_AT_ONCE {
            let without: Vec<String> = asked.keys().cloned().collect();
            for due in core.statuses.due_statuses(core.clock.now(), OF_A_HOST, &without).await? {
                if asked.len() >= HOSTS_AT_ONCE && !asked.contains_key(&due.host) {
                    continue;
                }
                *asked.entry(due.host.clone()).or_default() += 1;
                let core = Arc::clone(core);
                flights.spawn(async move { (due.host.clone(), deal_with(&core, &due).await) });
            }
        }
        if flights.is_empty() {
            return core.statuses.next_status().await;
        }
        tokio::select! {
            Some(landed) = flights.join_next() => {
                let (host, told) = match landed {
                    Ok(landed) => landed,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // Only a runtime that is shutting down cancels them.
                        Err(_) => return Ok(None),
                    },
                };
                told?;
                match asked.get_mut(&host) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(asked.remove(&host)),
                }
            }
            () = core.hooks.tell.notified() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Tells one, and writes down what became of that.
async fn deal_with(core: &Core, due: &DueStatus) -> Result<(), StoreError> {
    let told = tell(core, due).await.unwrap_or_else(|error| {
        // The others are not kept up by it.
        tracing::error!(run = %due.run, error = chain(&error), "a run's status can't be dealt with");
        Told::Later(forges::doubled(due.tries), forges::UNREADABLE.to_owned())
    });
    let (again, fault) = match told {
        Told::Yes => (None, None),
        Told::Never(why) => {
            tracing::warn!(run = %due.run, why, "forge is not told of a run");
            (None, Some(why))
        }
        Told::Later(wait, why) => {
            tracing::info!(run = %due.run, why, wait = wait.as_secs(), "forge can't be told of a run now");
            (Some(core.clock.now().after(wait)), Some(why))
        }
        Told::Nobody => (None, Some(NO_TOKEN.to_owned())),
    };
    core.statuses.status_tried(due, again, fault.as_deref()).await
}

/// What became of a status.
enum Told {
    Yes,
    /// It is no use to try again.
    Never(String),
    /// It may be tried again after this long.
    Later(Duration, String),
    /// There is nobody to tell it to.
    Nobody,
}

async fn tell(core: &Core, due: &DueStatus) -> Result<Told, StoreError> {
    let Some(record) = core.runs.find_run(due.run).await? else { return Ok(Told::Nobody) };
    let run = &record.run;
    let (Some(task), Cause::Source(cause)) = (&run.origin.task, &run.origin.cause) else { return Ok(Told::Nobody) };
    let api = match forges::of_task(core, &task.name, cause.provider, &cause.repository).await? {
        Ok(Some(api)) => api,
        Ok(None) => return Ok(Told::Nobody),
        Err(why) => return Ok(Told::Never(why)),
    };
    let status = status(core, run, &task.name, cause);
    Ok(match forges::ask(core, due.tries, api.set_status(&cause.firing.commit, &status)).await {
        Ok(()) => Told::Yes,
        Err(Refusal::Later(wait, why)) => Told::Later(wait, why),
        Err(Refusal::Never(why)) if is_tags_own(cause) => Told::Never(format!(
            "{why}; if the tag is an annotated one: {} tells its own object's id, and only commits have statuses",
            cause.provider
        )),
        Err(Refusal::Never(why)) => Told::Never(why),
    })
}

/// Whether what an event names may be an annotated tag's own object: some forges do not tell its commit.
fn is_tags_own(cause: &SourceCause) -> bool {
    let tells_objects = matches!(cause.provider, Provider::AzureDevops | Provider::BitbucketServer);
    tells_objects && matches!(cause.firing.kind, FiringKind::Tag { .. })
}

/// What a forge is told of a run that stands so.
pub(crate) fn state(status: RunStatus) -> StatusState {
    match status {
        RunStatus::Queued | RunStatus::Started | RunStatus::Running => StatusState::Pending,
        RunStatus::Succeeded => StatusState::Success,
        RunStatus::Failed => StatusState::Failure,
        RunStatus::Canceled | RunStatus::Timeout | RunStatus::Error => StatusState::Error,
    }
}

/// How a run stands, as what is said of it.
pub(crate) fn words(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Queued => "is queued",
        RunStatus::Started | RunStatus::Running => "runs",
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed => "failed",
        RunStatus::Canceled => "was cancelled",
        RunStatus::Timeout => "took too long",
        RunStatus::Error => "could not be carried out",
    }
}

fn status(core: &Core, run: &Run, task: &TaskName, cause: &SourceCause) -> CommitStatus {
    // A commit that is pushed and in a pull request has both.
    let kind = match cause.firing.kind {
        FiringKind::Commit { .. } => "",
        FiringKind::PullRequest { .. } => "/pull-request",
        FiringKind::Tag { .. } => "/tag",
    };
    CommitStatus {
        state: state(run.status()),
        description: format!("run {} {}", run.id, words(run.status())),
        context: format!("cooper/{task}{kind}"),
        target_url: format!("{}{}", core.public_url, run_page::path(&core.key, run.id)),
    }
}
