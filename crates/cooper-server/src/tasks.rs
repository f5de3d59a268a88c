//! What has to be fetched before a task file can be planned: alias URLs and secrets, and the planning of a source that an
//! agent has prepared.
//!
//! Owns the order of it (contract §4.1, §1.10). What a file means is `cooper_spec`'s; who may have a secret is `secrets`'.

mod alias_urls;
mod prepared;

use cooper_api::problem::ProblemCode;
use cooper_ports::access::Token;
use cooper_ports::secrets::Asker;
use cooper_spec::task::TaskInputs;
use cooper_spec::task_plan::{self, TaskPlanError};
use cooper_spec::task_request::{Fetched, MissingText, TaskRequest, alias_urls};
use cooper_spec::template::RunVariables;
use cooper_types::{RunId, Timestamp};

use crate::core::Core;
use crate::problem::{ApiError, chain};
use crate::secrets::{ResolveError, Wanted};

pub(crate) use prepared::Plannings;

/// Why not everything could be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The task file is not valid.
    #[error(transparent)]
    File(#[from] TaskPlanError),
    /// A file is not there.
    #[error(transparent)]
    Missing(#[from] MissingText),
    /// Aliases can't be fetched.
    #[error(transparent)]
    Alias(#[from] alias_urls::AliasUrlError),
    /// Secrets can't be had.
    #[error(transparent)]
    Secret(#[from] ResolveError),
    /// There is no time left to wait for other servers.
    #[error("the server is stopping; ask again")]
    Stopping,
}

impl FetchError {
    /// Whether the same may succeed later without anybody changing anything.
    fn may_pass(&self) -> bool {
        match self {
            Self::Secret(error) => error.may_pass(),
            Self::Stopping => true,
            Self::File(_) | Self::Missing(_) | Self::Alias(_) => false,
        }
    }
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        let code = if error.may_pass() { ProblemCode::Unavailable } else { ProblemCode::InvalidRequest };
        Self::new(code, chain(&error))
    }
}

/// Fetches what the planning of a request needs. The run has no id yet: what depends on one is as if it had the first.
pub(crate) async fn fetch_for_request(
    core: &Core,
    token: &Token,
    request: &TaskRequest,
    fetched: Fetched,
) -> Result<Fetched, FetchError> {
    let guess =
        RunVariables::quick_build(RunId::from_number(1), &core.registry, &request.platform, Timestamp::from_micros(0));
    let asker = Asker { principal: token.principal.clone(), scopes: token.scopes.clone() };
    fetch(core, &asker, fetched, |fetched| request.inputs(guess.clone(), fetched)).await
}

/// Adds to `fetched` what the task file names. The server's stop waits for what was begun, but not for what others keep.
async fn fetch(
    core: &Core,
    asker: &Asker,
    fetched: Fetched,
    inputs: impl Fn(&Fetched) -> Result<TaskInputs, MissingText>,
) -> Result<Fetched, FetchError> {
    tokio::select! {
        () = core.stopping.cancelled() => Err(FetchError::Stopping),
        fetched = fetch_all(core, asker, fetched, inputs) => fetched,
    }
}

/// Aliases first, because secrets may stand behind them.
async fn fetch_all(
    core: &Core,
    asker: &Asker,
    mut fetched: Fetched,
    inputs: impl Fn(&Fetched) -> Result<TaskInputs, MissingText>,
) -> Result<Fetched, FetchError> {
    fetched.image_aliases = core.image_aliases.clone();
    let now = inputs(&fetched)?;
    let sources = off_the_loop(move || task_plan::alias_sources(&now)).await?;
    fetched.urls = alias_urls::fetch(&core.egress, alias_urls(&sources)).await?;
    let now = inputs(&fetched)?;
    let wanted = off_the_loop(move || task_plan::wanted_secrets(&now)).await?;
    let wanted: Vec<Wanted> =
        wanted.into_iter().map(|wanted| Wanted { id: wanted.id, place: wanted.keyvault.to_string() }).collect();
    for resolved in core.secrets.resolve(asker, &wanted).await? {
        fetched.secrets.insert(resolved.id, resolved.value);
    }
    Ok(fetched)
}

/// Does what takes a processor for a while, as templates may, where it keeps no connection waiting. A panic goes on.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
