//! What has to be fetched before a task file can be planned: alias URLs and secrets, and the planning of a source that an
//! agent has prepared.
//!
//! Owns the order of it (contract §4.1, §1.10). What a file means is `cooper_spec`'s; who may have a secret is `secrets`'.

mod alias_urls;
mod prepared;

use std::collections::BTreeMap;

use cooper_api::problem::ProblemCode;
use cooper_engine::message::PreparedSource;
use cooper_engine::run::{Replay, of_source};
use cooper_engine::task::Origin;
use cooper_ports::access::Token;
use cooper_ports::secrets::Asker;
use cooper_spec::source::RemoteSource;
use cooper_spec::task::TaskInputs;
use cooper_spec::task_plan::{self, TaskPlanError};
use cooper_spec::task_request::{Fetched, MissingText, SecretVersion, TaskRequest, UsedSecret, alias_urls, shown_url};
use cooper_spec::template::RunVariables;
use cooper_types::{Digest, RunId, Timestamp};

use crate::core::Core;
use crate::problem::{ApiError, chain};
use crate::secrets::{ResolveError, ResolvedVersion, Wanted};

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
    /// The version of a secret that another run had can't be had.
    #[error("what run {run} had of its secrets can't be had: rerun it with --fresh to take what is there now")]
    Pinned {
        /// The other run.
        run: RunId,
        /// Why not.
        #[source]
        source: ResolveError,
    },
    /// An alias source holds something else than when another run read it.
    #[error(
        "alias source `{url}` holds something else than when run {run} read it: rerun it with --fresh to take what is there now"
    )]
    AliasChanged {
        /// Without what may be a signature.
        url: String,
        /// The other run.
        run: RunId,
    },
    /// The code is a stranger's.
    #[error("the task file names secret `{0}`, and a run of a fork's pull request gets none")]
    Untrusted(String),
    /// There is no time left to wait for other servers.
    #[error("the server is stopping; ask again")]
    Stopping,
}

impl FetchError {
    /// Whether the same may succeed later without anybody changing anything.
    fn may_pass(&self) -> bool {
        match self {
            Self::Secret(source) | Self::Pinned { source, .. } => source.may_pass(),
            Self::Stopping => true,
            // People see at once what is wrong with a URL that they have just written.
            Self::File(_) | Self::Missing(_) | Self::Alias(_) | Self::AliasChanged { .. } | Self::Untrusted(_) => false,
        }
    }

    /// Whether an alias source is away that may be there again soon. Nobody sees at once what is wrong with one that was written
    /// long ago.
    fn is_away(&self) -> bool {
        matches!(self, Self::Alias(source) if source.may_pass())
    }

    /// What a trigger is told, for which nobody waits: it may try again what people see at once.
    pub(crate) fn for_trigger(self) -> ApiError {
        match self.is_away() {
            true => ApiError::new(ProblemCode::Unavailable, chain(&self)),
            false => self.into(),
        }
    }
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        let code = if error.may_pass() { ProblemCode::Unavailable } else { ProblemCode::InvalidRequest };
        Self::new(code, chain(&error))
    }
}

/// What the planning of a request is done for, besides the request itself.
pub(crate) struct Asking<'a> {
    pub(crate) token: &'a Token,
    /// What the source gives to the run's variables; there is none for most.
    pub(crate) source: Option<(&'a RemoteSource, &'a PreparedSource)>,
    /// How another run is repeated.
    pub(crate) replay: Option<&'a Replay>,
    /// Where the run comes from.
    pub(crate) origin: &'a Origin,
}

/// Fetches what the planning of a request needs. The run has no id yet: what depends on one is as if it had the first.
pub(crate) async fn fetch_for_request(
    core: &Core,
    asking: Asking<'_>,
    request: &TaskRequest,
    fetched: Fetched,
) -> Result<Fetched, FetchError> {
    let mut guess =
        RunVariables::quick_build(RunId::from_number(1), &core.registry, &request.platform, Timestamp::from_micros(0));
    guess = asking.origin.variables(guess);
    if let Some((location, found)) = asking.source {
        guess = of_source(guess, location, found);
    }
    guess = asking.origin.of_event(guess);
    let asker = Asker { principal: asking.token.principal.clone(), scopes: asking.token.scopes.clone() };
    fetch(core, &asker, asking.replay, fetched, |fetched| request.inputs(guess.clone(), fetched)).await
}

/// Adds to `fetched` what the task file names. The server's stop waits for what was begun, but not for what others keep.
async fn fetch(
    core: &Core,
    asker: &Asker,
    replay: Option<&Replay>,
    fetched: Fetched,
    inputs: impl Fn(&Fetched) -> Result<TaskInputs, MissingText>,
) -> Result<Fetched, FetchError> {
    tokio::select! {
        // First: a stop that was there before is not overtaken.
        biased;
        () = core.stopping.cancelled() => Err(FetchError::Stopping),
        fetched = fetch_all(core, asker, replay, fetched, inputs) => fetched,
    }
}

/// Aliases first, because secrets may stand behind them. What is fetched already, because another run had it, is not
/// fetched again.
async fn fetch_all(
    core: &Core,
    asker: &Asker,
    replay: Option<&Replay>,
    mut fetched: Fetched,
    inputs: impl Fn(&Fetched) -> Result<TaskInputs, MissingText>,
) -> Result<Fetched, FetchError> {
    fetched.image_aliases = core.image_aliases.clone();
    let now = inputs(&fetched)?;
    let sources = off_the_loop(move || task_plan::alias_sources(&now)).await?;
    let known = |url: &str| fetched.known_urls.get(&Digest::sha256(url.as_bytes()));
    let mut urls = alias_urls::fetch(&core.egress, alias_urls(&sources).filter(|url| known(url).is_none())).await?;
    if let Some(replay) = replay.filter(|replay| !replay.fresh) {
        same_aliases(replay, &urls)?;
    }
    urls.extend(alias_urls(&sources).filter_map(|url| Some((url.to_owned(), known(url)?.clone()))));
    fetched.urls = urls;
    let now = inputs(&fetched)?;
    let wanted = off_the_loop(move || task_plan::wanted_secrets(&now)).await?;
    let wanted: Vec<Wanted> =
        wanted.into_iter().map(|wanted| Wanted { id: wanted.id, place: wanted.keyvault.to_string() }).collect();
    // A run that may do nothing is one of a stranger's code: every other may at least run.
    if let Some(first) = wanted.first().filter(|_| asker.scopes.0.is_empty()) {
        return Err(FetchError::Untrusted(first.id.clone()));
    }
    secrets(core, asker, replay, &wanted, &mut fetched).await?;
    Ok(fetched)
}

/// Refuses what alias sources hold now, where the repeated run read something else.
fn same_aliases(replay: &Replay, urls: &BTreeMap<String, String>) -> Result<(), FetchError> {
    for (url, text) in urls {
        let earlier = replay.alias_urls.get(&Digest::sha256(url.as_bytes()));
        if earlier.is_some_and(|earlier| *earlier != Digest::sha256(text.as_bytes())) {
            return Err(FetchError::AliasChanged { url: shown_url(url), run: replay.of });
        }
    }
    Ok(())
}

/// Has the secrets that a file names: in the versions that the repeated run had, as far as such are kept.
async fn secrets(
    core: &Core,
    asker: &Asker,
    replay: Option<&Replay>,
    wanted: &[Wanted],
    fetched: &mut Fetched,
) -> Result<(), FetchError> {
    let replay = replay.filter(|replay| !replay.fresh);
    let earlier = |wanted: &Wanted| {
        let same = |used: &&UsedSecret| used.id == wanted.id && used.asked == wanted.place;
        replay.and_then(|replay| replay.secrets.iter().find(same))
    };
    let mut has_pinned = false;
    let places: Vec<Wanted> = wanted
        .iter()
        .map(|wanted| match earlier(wanted) {
            Some(UsedSecret { place, version: SecretVersion::Kept(_), .. }) if *place != wanted.place => {
                has_pinned = true;
                Wanted { id: wanted.id.clone(), place: place.clone() }
            }
            _ => wanted.clone(),
        })
        .collect();
    let resolved = core.secrets.resolve(asker, &places).await.map_err(|source| match replay {
        Some(replay) if has_pinned => FetchError::Pinned { run: replay.of, source },
        _ => FetchError::Secret(source),
    })?;
    for (resolved, wanted) in resolved.into_iter().zip(wanted) {
        let version = match resolved.version {
            ResolvedVersion::Kept(version) => SecretVersion::Kept(version),
            ResolvedVersion::Fingerprint(print) => SecretVersion::Fingerprint(print),
        };
        if let (Some(used), Some(replay)) = (earlier(wanted), replay)
            && used.version != version
        {
            let (id, place) = (&resolved.id, &resolved.place);
            let of = replay.of;
            fetched.notes.push(format!("warning: secret {id} ({place}) has another value than run {of} had"));
        }
        fetched.used_secrets.push(UsedSecret {
            id: resolved.id.clone(),
            provider: resolved.provider,
            asked: wanted.place.clone(),
            place: resolved.place.to_string(),
            version,
        });
        fetched.secrets.insert(resolved.id, resolved.value);
    }
    Ok(())
}

/// Does what takes a processor for a while, as templates may, where it keeps no connection waiting. A panic goes on.
pub(crate) async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use cooper_spec::task_request::TaskText;
    use cooper_types::{Platform, Scope, Scopes};

    use cooper_e2e::{Follows, Trap};

    use super::*;
    use crate::testing;

    /// A file that names alias sources by URL.
    fn request(url: &str) -> TaskRequest {
        let text = format!("version: v1.1.0\nalias:\n  src: ['{url}']\nsteps:\n  - cmd: $tool true\n");
        TaskRequest {
            file: TaskText::Given { name: "acr-task.yaml".to_owned(), text },
            fallbacks: Vec::new(),
            values: None,
            set: Vec::new(),
            alias_files: BTreeMap::new(),
            platform: Platform::LINUX_AMD64,
            working_directory: None,
        }
    }

    #[tokio::test]
    async fn no_alias_source_leads_inside() {
        let (trap, folder) = (Trap::start(), tempfile::tempdir().expect("folder"));
        let (core, _store) = testing::core_beside(&trap, folder.path(), None).await;
        let token =
            core.access.create(testing::principal("ann"), Scopes(vec![Scope::Run]), None).await.expect("token").0;
        let fetch = async |host: &str| {
            let url = format!("http://{host}/aliases.yaml");
            let asking = Asking { token: &token, source: None, replay: None, origin: &Origin::default() };
            let error = fetch_for_request(&core, asking, &request(&url), Fetched::default()).await.expect_err("inside");
            let told = chain(&error);
            assert!(told.contains("/aliases.yaml`"), "{told}");
            told
        };
        trap.try_way("alias source", Follows::Redirects, "--allow-source", fetch).await;
    }

    #[tokio::test]
    async fn a_rerun_plans_with_the_aliases_that_its_run_had() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/a.yaml?sig=hunter2", listener.local_addr().expect("an address"));
        let answer = async || "tool: busybox\n";
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let folder = tempfile::tempdir().expect("folder");
        let (core, _store) = testing::core_sending_here(folder.path(), None).await;
        let request = request(&url);
        let token =
            core.access.create(testing::principal("ann"), Scopes(vec![Scope::Run]), None).await.expect("token").0;
        let replay = |fresh, held: &str| Replay {
            of: RunId::from_number(7),
            fresh,
            pins: Default::default(),
            contexts: Default::default(),
            done: None,
            pushed: BTreeMap::new(),
            source: None,
            secrets: Vec::new(),
            alias_urls: BTreeMap::from([(Digest::sha256(url.as_bytes()), Digest::sha256(held.as_bytes()))]),
        };
        let fetch = async |replay: &Replay| {
            let asking = Asking { token: &token, source: None, replay: Some(replay), origin: &Origin::default() };
            fetch_for_request(&core, asking, &request, Fetched::default()).await
        };
        assert!(fetch(&replay(false, "tool: busybox\n")).await.is_ok());
        assert!(fetch(&replay(true, "tool: other\n")).await.is_ok());
        let told = fetch(&replay(false, "tool: other\n")).await.expect_err("changed").to_string();
        assert!(told.contains("holds something else than when run ca7 read it") && !told.contains("hunter2"), "{told}");
    }
}
