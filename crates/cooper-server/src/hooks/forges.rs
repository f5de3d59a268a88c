//! The way to a repository's forge with the token that a task keeps for its host; and when a forge is asked again.

use std::sync::Arc;
use std::time::Duration;

use cooper_engine::trigger::provider::Provider;
use cooper_forge::api::{ForgeApi, ForgeError, ForgePlace, RetryAt};
use cooper_ports::statuses::TaskToken;
use cooper_ports::store_error::StoreError;
use cooper_types::{SecretString, SourceHost, TaskName};

use crate::core::Core;
use crate::orders::task_credential_purpose;
use crate::problem::chain;

/// How long one thing that a forge is asked for may take.
pub(super) const TIME: Duration = Duration::from_secs(60);
/// How often it is asked: with the pauses between, for about a day.
pub(super) const TRIES: u32 = 20;
/// The pause after the first failure, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(2 * 3600);

/// What is said where something of ours can't be read.
pub(super) const UNREADABLE: &str = "what is kept of it can't be read; the server's log says why";

/// Why a forge did not do what it was asked for, in words for the task's owner.
pub(super) enum Refusal {
    /// It may be asked again after this long.
    Later(Duration, String),
    /// It is no use to ask again.
    Never(String),
}

/// The repository's place and host, where requests can be made there at all.
pub(super) fn place(provider: Provider, repository: &str) -> Result<(ForgePlace, SourceHost), String> {
    let place = ForgePlace::parse(provider, repository).map_err(|error| chain(&error))?;
    let host = SourceHost::parse(place.host()).map_err(|error| chain(&error))?;
    Ok((place, host))
}

/// A task's way to its repository's forge, if it keeps a token for that.
pub(super) async fn of_task(
    core: &Core,
    task: &TaskName,
    provider: Provider,
    repository: &str,
) -> Result<Result<Option<ForgeApi>, String>, StoreError> {
    let (place, host) = match place(provider, repository) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let Some(token) = core.statuses.task_token(task, &host).await? else { return Ok(Ok(None)) };
    Ok(with(core, task, place, &host, &token).map(Some))
}

/// A way with a token that was sealed for this task and host.
pub(super) fn with(
    core: &Core,
    task: &TaskName,
    place: ForgePlace,
    host: &SourceHost,
    token: &TaskToken,
) -> Result<ForgeApi, String> {
    let opened = core.key.unseal(&task_credential_purpose(&task.key(), host), &token.sealed);
    let value = opened.map_err(|error| chain(&error))?;
    let text = String::from_utf8(value.expose().to_vec())
        .map_err(|_| "the task's token for the forge is no text".to_owned())?;
    Ok(ForgeApi::new(place, SecretString::new(text), Arc::new(core.egress.clone())))
}

/// Waits for a forge, and says what is to be done where it did not do it.
pub(super) async fn ask<T>(
    core: &Core,
    tries: u32,
    asked: impl Future<Output = Result<T, ForgeError>>,
) -> Result<T, Refusal> {
    let (wait, why) = match tokio::time::timeout(TIME, asked).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => {
            // What the forge says is for operators alone.
            tracing::info!(error = chain(&error), "forge does not do what it is asked for");
            match error {
                error if !error.is_retryable() => return Err(Refusal::Never(error.told())),
                // It says when it will.
                error @ ForgeError::RateLimited { .. } => {
                    return Err(Refusal::Later(pause(core, tries, &error), error.told()));
                }
                error => (pause(core, tries, &error), error.told()),
            }
        }
        Err(_) => (doubled(tries), format!("no answer within {} s", TIME.as_secs())),
    };
    Err(if tries < TRIES { Refusal::Later(wait, why) } else { Refusal::Never(why) })
}

fn pause(core: &Core, tries: u32, error: &ForgeError) -> Duration {
    match error {
        ForgeError::RateLimited { retry: RetryAt::At(time), .. } => {
            time.since(core.wall_clock.now()).clamp(FIRST_PAUSE, LONGEST_PAUSE)
        }
        ForgeError::RateLimited { retry: RetryAt::After(wait), .. } => (*wait).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        _ => doubled(tries),
    }
}

/// The pause after so many tries.
pub(super) fn doubled(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tries.min(20)).min(LONGEST_PAUSE)
}
