//! Tells forges how the runs stand that their events have set off: as statuses of the commits, with a link to the run.
//!
//! What is to be told is in the store. A forge that is away is asked again, later and later; what it refuses is written down
//! and not repeated. The token is the one that the task keeps for the repository's host, and goes nowhere else.

use std::sync::Arc;
use std::time::Duration;

use cooper_engine::run::{Run, RunStatus};
use cooper_engine::task::{Cause, SourceCause};
use cooper_engine::trigger::FiringKind;
use cooper_forge::api::{CommitStatus, ForgeApi, ForgeError, ForgePlace, RetryAt, StatusState};
use cooper_ports::statuses::DueStatus;
use cooper_ports::store_error::StoreError;
use cooper_types::{SecretString, SourceHost, TaskName, Timestamp};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::orders::task_credential_purpose;
use crate::problem::chain;

/// Statuses that are read at a time.
const BATCH: u32 = 100;
/// Requests that are on their way at a time.
const AT_ONCE: usize = 8;
/// How long one status may take.
const TIME: Duration = Duration::from_secs(60);
/// How often one is tried: with the pauses between, for about a day.
const TRIES: u32 = 20;
/// The pause after the first failure, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 3600);
/// The longest sleep: what a lost wake-up costs.
const LONGEST: Duration = Duration::from_secs(60);
/// How long it waits after a failure of the store.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Runs until cancelled.
pub(crate) async fn run(core: Arc<Core>, shutdown: CancellationToken) {
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = pass(&core) => next,
        };
        let wait = match next {
            Ok(next) => next.map_or(LONGEST, |next| next.since(core.clock.now()).min(LONGEST)),
            Err(error) => {
                tracing::error!(error = chain(&error), "commit statuses can't be looked at; trying again");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = core.hooks.tell.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Tells what is due, and when the next is.
pub(super) async fn pass(core: &Arc<Core>) -> Result<Option<Timestamp>, StoreError> {
    loop {
        let due = core.statuses.due_statuses(core.clock.now(), BATCH).await?;
        if due.is_empty() {
            return core.statuses.next_status().await;
        }
        let tell = due.into_iter().map(|due| async move {
            let (again, fault) = match tell(core, &due).await? {
                Told::Yes => (None, None),
                Told::Never(why) => {
                    tracing::warn!(run = %due.run, why, "forge is not told of a run");
                    (None, Some(why))
                }
                Told::Later(wait, why) => {
                    tracing::info!(run = %due.run, why, wait = wait.as_secs(), "forge can't be told of a run now");
                    (Some(core.clock.now().after(wait)), Some(why))
                }
                Told::Nobody => (None, Some("the task keeps no token for the forge".to_owned())),
            };
            core.statuses.status_tried(&due, again, fault.as_deref()).await
        });
        let told: Vec<Result<(), StoreError>> = futures::stream::iter(tell).buffer_unordered(AT_ONCE).collect().await;
        told.into_iter().collect::<Result<(), _>>()?;
    }
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
    let api = match forge(core, &task.name, cause).await? {
        Ok(Some(api)) => api,
        Ok(None) => return Ok(Told::Nobody),
        Err(why) => return Ok(Told::Never(why)),
    };
    let status = status(core, run, &task.name, cause);
    let set = tokio::time::timeout(TIME, api.set_status(&cause.firing.commit, &status)).await;
    Ok(match set {
        Ok(Ok(())) => Told::Yes,
        Ok(Err(error)) if error.is_retryable() && due.tries < TRIES => {
            Told::Later(pause(core, due, &error), chain(&error))
        }
        Ok(Err(error)) => Told::Never(chain(&error)),
        Err(_) if due.tries < TRIES => Told::Later(doubled(due), format!("no answer within {} s", TIME.as_secs())),
        Err(_) => Told::Never(format!("no answer within {} s", TIME.as_secs())),
    })
}

/// A task's way to its repository's forge, if it keeps a token for that.
async fn forge(
    core: &Core,
    task: &TaskName,
    cause: &SourceCause,
) -> Result<Result<Option<ForgeApi>, String>, StoreError> {
    let place = match ForgePlace::parse(cause.provider, &cause.repository) {
        Ok(place) => place,
        Err(error) => return Ok(Err(chain(&error))),
    };
    let host = match SourceHost::parse(place.host()) {
        Ok(host) => host,
        Err(error) => return Ok(Err(chain(&error))),
    };
    let Some(token) = core.statuses.task_token(task, &host).await? else { return Ok(Ok(None)) };
    let opened = core.key.unseal(&task_credential_purpose(&task.key(), &host), &token.sealed);
    let text = opened.map_err(|error| chain(&error)).and_then(|value| {
        String::from_utf8(value.expose().to_vec()).map_err(|_| "the task's token for the forge is no text".to_owned())
    });
    Ok(text.map(|text| Some(ForgeApi::new(place, SecretString::new(text), Arc::new(core.egress.clone())))))
}

fn status(core: &Core, run: &Run, task: &TaskName, cause: &SourceCause) -> CommitStatus {
    let (state, what) = match run.status() {
        RunStatus::Queued => (StatusState::Pending, "is queued"),
        RunStatus::Started | RunStatus::Running => (StatusState::Pending, "runs"),
        RunStatus::Succeeded => (StatusState::Success, "succeeded"),
        RunStatus::Failed => (StatusState::Failure, "failed"),
        RunStatus::Canceled => (StatusState::Error, "was cancelled"),
        RunStatus::Timeout => (StatusState::Error, "took too long"),
        RunStatus::Error => (StatusState::Error, "could not be carried out"),
    };
    // A commit that is pushed and in a pull request has both.
    let kind = match cause.firing.kind {
        FiringKind::Commit { .. } => "",
        FiringKind::PullRequest { .. } => "/pull-request",
        FiringKind::Tag { .. } => "/tag",
    };
    CommitStatus {
        state,
        description: format!("run {} {what}", run.id),
        context: format!("cooper/{task}{kind}"),
        target_url: format!("{}/api/v1/runs/{}", core.public_url, run.id),
    }
}

fn pause(core: &Core, due: &DueStatus, error: &ForgeError) -> Duration {
    match error {
        ForgeError::RateLimited { retry: RetryAt::At(time), .. } => {
            time.since(core.clock.now()).clamp(FIRST_PAUSE, LONGEST_PAUSE)
        }
        ForgeError::RateLimited { retry: RetryAt::After(wait), .. } => (*wait).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        _ => doubled(due),
    }
}

fn doubled(due: &DueStatus) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << due.tries.min(20)).min(LONGEST_PAUSE)
}
