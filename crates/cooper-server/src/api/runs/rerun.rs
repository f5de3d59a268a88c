//! A run that is asked for by another one's id: what of the other one holds for it, and who may have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cooper_api::problem::ProblemCode;
use cooper_api::rest::RerunRequest;
use cooper_engine::message::{PreparedSource, StepOutput};
use cooper_engine::run::{
    Asked, AskedTask, KeptAsked, KeptSource, NewReplay, Replay, RequestSecret, Run, RunSource, RunStatus, StepState,
    TaskSource,
};
use cooper_engine::task::Origin;
use cooper_ports::access::Token;
use cooper_ports::runs::{RunRecord, SealedSecret, SecretKind, StoredRequest};
use cooper_spec::plan::{BuildContext, BuildWork, ContextPins, Pins, Work};
use cooper_spec::quick_build::BuildSource;
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::{Fetched, KeptTexts, TaskRequest, TextDigest, TextRole, UsedSecret, set_secret_name};
use cooper_types::{ContextId, RunId, Scopes, SecretBytes, SecretString};

use super::{AskedRun, invalid, seal};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult};
use crate::tasks;

/// What is to be done about files that are nowhere else.
const START_ANEW: &str = "start it anew with `cooper build` or `cooper run`; the server keeps what runs were made from for \
                          the time of --context-retention";

/// Where the files of the new run come from.
enum Place {
    Nothing,
    Context(ContextId),
    /// An agent fetches them, from where they were found if that is known.
    Remote(RemoteSource, Option<PreparedSource>),
    /// What an agent made of them is still there.
    Kept(RemoteSource, PreparedSource),
}

/// A rerun that is to be accepted.
pub(super) struct Rerun {
    pub(super) asked: AskedRun,
    /// The caller, with no rights where the code is a stranger's.
    pub(super) token: Token,
    pub(super) origin: Origin,
}

/// What the caller asks for by naming a run. A stranger's code stays one, whoever has looked at it: neither its planning nor
/// its run has what the asker has.
pub(super) async fn asked(core: &Arc<Core>, token: Token, id: RunId, request: RerunRequest) -> ApiResult<Rerun> {
    let record = core.runs.find_run(id).await?.ok_or_else(|| ApiError::not_found(format!("run {id}")))?;
    let run = &record.run;
    if run.principal != token.principal {
        // With the rights of whoever asks, an administrator's most of all, it would be another run.
        let detail = format!("run {id} is a run of {}: only that principal reruns it", run.principal);
        let error = ApiError::new(ProblemCode::Forbidden, detail);
        return Err(error.with_hint("a rerun has the rights of who asks for it; start it anew as a run of your own"));
    }
    let untrusted = run.origin.untrusted;
    let token = if untrusted { Token { scopes: Scopes(Vec::new()), ..token } } else { token };
    if run.finished().is_none() {
        let error = ApiError::new(ProblemCode::Conflict, format!("run {id} has not ended yet"));
        return Err(error.with_hint(format!("wait for its end, or cancel it with `cooper runs cancel {id}`")));
    }
    if request.failed && run.status() == RunStatus::Succeeded {
        let error = ApiError::new(ProblemCode::Conflict, format!("run {id} has no failed step"));
        return Err(error.with_hint("rerun the whole of it without --failed"));
    }
    let Some(stored) = core.runs.find_request(id).await? else {
        let detail = format!("run {id} was accepted by an older release, which kept no requests: start it anew");
        return Err(ApiError::new(ProblemCode::Conflict, detail));
    };
    let mut origin = run.origin.repeated();
    if !request.fresh
        && let Some(pin) = run.source.as_ref().and_then(RunSource::found).and_then(|found| found.definition.as_ref())
    {
        origin.definition = Some(pin.commit.clone());
    }
    let place = place(run, &stored, &request)?;
    may_have(&token, run, &place, &request)?;
    let (secrets, set_secrets) = secrets(core, &record, &stored, &request)?;
    let replay = replay(&record, &stored, &request, &place);
    let asked = match stored.request.asked.clone() {
        KeptAsked::Build { build, .. } => {
            let source = match &place {
                // Checked when it was accepted: a build has files.
                Place::Nothing => return Err(invalid(format!("run {id} has no source"))),
                Place::Context(context) => BuildSource::Context(context.clone()),
                Place::Remote(location, _) => BuildSource::Remote(location.clone()),
                Place::Kept(_, found) => BuildSource::Context(found.context.clone()),
            };
            Asked::Build { build, source }
        }
        KeptAsked::Task { request: task, .. } => {
            let task = task.with_texts(&stored.texts);
            let asking = tasks::Asking { token: &token, source: None, replay: Some(&replay), origin: &origin };
            let source = task_source(core, asking, &stored, &task, &place, set_secrets).await?;
            Asked::Task(Box::new(AskedTask { request: task, source }))
        }
    };
    let kept = match place {
        Place::Kept(location, found) => Some((location, found)),
        Place::Nothing | Place::Context(_) | Place::Remote(..) => None,
    };
    let timeout = u32::try_from(stored.request.timeout.as_secs()).unwrap_or(u32::MAX);
    let pool = Some(stored.request.pool.to_string());
    let texts = if request.fresh { KeptTexts::default() } else { stored.texts.only_urls() };
    let replay = Some(Box::new(NewReplay { request: stored.request, replay, kept, texts }));
    let asked = AskedRun { asked, run_type: record.run_type, secrets, timeout, pool, replay };
    Ok(Rerun { asked, token, origin })
}

/// Whether a token is enough for what is kept of a run: its files, and what its planning read. Another token of the same
/// principal may have fetched them, and be allowed more.
fn may_have(token: &Token, run: &Run, place: &Place, request: &RerunRequest) -> ApiResult<()> {
    // An uploaded context is nothing that whoever asks could fetch as well.
    let is_fetched = matches!(place, Place::Remote(location, None) if !matches!(location, RemoteSource::Uploaded(_)));
    if request.fresh && is_fetched {
        return Ok(());
    }
    let Some(missing) = token.scopes.first_missing(&run.scopes) else { return Ok(()) };
    let detail = format!("run {} was started with a token that has the scope {missing}, and yours has not", run.id);
    let error = ApiError::new(ProblemCode::Forbidden, detail);
    Err(error.with_hint(match place {
        Place::Remote(..) | Place::Kept(..) => {
            "its source and what it was planned from are kept for tokens with all of its scopes: ask with such a token, or \
             rerun the whole of it with --fresh"
        }
        Place::Nothing | Place::Context(_) => {
            "its files are kept for tokens with all of its scopes: ask with such a token, or start it anew"
        }
    }))
}

/// Where the files come from: from the same place as far as it is there, unless everything is resolved anew.
fn place(run: &Run, stored: &StoredRequest, request: &RerunRequest) -> ApiResult<Place> {
    let earlier = run.provenance.replay.as_ref();
    let gone = |what: &str, hint: &'static str| {
        Err(ApiError::new(ProblemCode::ContextNotFound, format!("{what} of run {} are not kept any more", run.id))
            .with_hint(hint))
    };
    // Those that came with the request are in no source.
    let is_given =
        |text: &TextDigest| matches!(text.role, TextRole::TaskFile | TextRole::ValuesFile | TextRole::AliasFile);
    if !stored.has_texts() && stored.digests.iter().any(is_given) {
        return gone("the task's files", START_ANEW);
    }
    let (location, is_whole) = match stored.request.source() {
        KeptSource::Nothing => return Ok(Place::Nothing),
        KeptSource::Context(context) => {
            return match &stored.context {
                Some(kept) if kept == context => Ok(Place::Context(context.clone())),
                _ => gone("the files", START_ANEW),
            };
        }
        KeptSource::Remote(location) => (location, true),
        KeptSource::WithoutQuery(location) => (location, false),
    };
    let is_anew = request.fresh && !request.failed;
    if is_anew && is_whole {
        return Ok(Place::Remote(location.clone(), None));
    }
    let found = run.source.as_ref().and_then(RunSource::found);
    // What a rerun has to find counts more than what it found: it may have failed by that.
    let expected = earlier.and_then(|replay| replay.source.as_ref()).or(found);
    match (expected, found, &stored.context) {
        (Some(_), Some(found), Some(kept)) if !is_anew && found.context == *kept && stored.has_texts() => {
            Ok(Place::Kept(location.clone(), found.clone()))
        }
        (expected, ..) if is_whole => Ok(Place::Remote(location.clone(), expected.cloned())),
        _ => Err(ApiError::new(
            ProblemCode::ContextNotFound,
            format!("run {} has to fetch {} again, and the query of this URL is not kept", run.id, location.shown()),
        )
        .with_hint("a query may be a signature; start the run anew with the whole URL")),
    }
}

fn replay(record: &RunRecord, stored: &StoredRequest, request: &RerunRequest, place: &Place) -> Replay {
    let run = &record.run;
    let earlier = run.provenance.replay.as_deref();
    let mut pins = Pins::default();
    let mut contexts = ContextPins::default();
    let mut secrets = Vec::new();
    let mut alias_urls = BTreeMap::new();
    if !request.fresh {
        alias_urls = earlier.map(|earlier| earlier.alias_urls.clone()).unwrap_or_default();
        alias_urls.extend(stored.digests.iter().filter_map(|text| match &text.role {
            TextRole::AliasUrl { url } => Some((url.clone(), text.digest.clone())),
            TextRole::TaskFile | TextRole::ValuesFile | TextRole::AliasFile | TextRole::Source => None,
        }));
        contexts = earlier.map(|earlier| earlier.contexts.clone()).unwrap_or_default();
        pins = earlier.map(|earlier| earlier.pins.clone()).unwrap_or_default();
        for base in &record.base_images {
            if let Some(digest) = &base.base.digest {
                pins.add(&base.step, &base.base.reference, digest);
            }
        }
        for (step, planned) in run.steps.iter().zip(&run.plan.steps) {
            if let StepState::Succeeded { output: StepOutput::Built { frontend: Some(frontend), .. }, .. } = &step.state
                && let Some(digest) = &frontend.digest
            {
                pins.add(&planned.id, &frontend.reference, digest);
            }
            if let (Some(found), Work::Build(BuildWork { context: BuildContext::Remote { source, .. }, .. })) =
                (run.context_of(planned, step), &planned.work)
            {
                contexts.add(&planned.id, source, found);
            }
        }
        secrets.clone_from(&run.provenance.secrets);
        let older = earlier.map(|earlier| earlier.secrets.as_slice()).unwrap_or_default();
        let is_known = |id: &str, all: &[UsedSecret]| all.iter().any(|used| used.id == id);
        let older: Vec<_> = older.iter().filter(|used| !is_known(&used.id, &secrets)).cloned().collect();
        secrets.extend(older);
    }
    let (done, pushed) = if request.failed { run.done_steps() } else { Default::default() };
    Replay {
        of: run.id,
        fresh: request.fresh,
        pins,
        contexts,
        done: request.failed.then_some(done),
        pushed,
        source: match place {
            Place::Remote(_, expected) => expected.clone(),
            Place::Nothing | Place::Context(_) | Place::Kept(..) => None,
        },
        secrets,
        alias_urls,
    }
}

/// The source of a task, with everything that its planning needs where nobody has to be asked first.
async fn task_source(
    core: &Arc<Core>,
    asking: tasks::Asking<'_>,
    stored: &StoredRequest,
    task: &TaskRequest,
    place: &Place,
    set_secrets: BTreeMap<String, SecretString>,
) -> ApiResult<TaskSource> {
    let (context, source) = match place {
        Place::Remote(location, _) => return Ok(TaskSource::Remote(location.clone())),
        Place::Nothing => (None, None),
        Place::Context(context) => (Some(context.clone()), None),
        Place::Kept(location, found) => (Some(found.context.clone()), Some((location, found))),
    };
    let mut fetched = Fetched { files: stored.texts.files(), set_secrets, ..Fetched::default() };
    if asking.replay.is_some_and(|replay| !replay.fresh) {
        fetched.known_urls = stored.texts.urls();
    }
    let fetched = tasks::fetch_for_request(core, tasks::Asking { source, ..asking }, task, fetched).await?;
    Ok(TaskSource::Here { context, fetched })
}

/// The secrets of the request, which are given again: sealed, and those that the planning needs in clear.
fn secrets(
    core: &Core,
    record: &RunRecord,
    stored: &StoredRequest,
    request: &RerunRequest,
) -> ApiResult<(Vec<SealedSecret>, BTreeMap<String, SecretString>)> {
    let mut sealed = Vec::new();
    let mut clear = BTreeMap::new();
    let mut given = BTreeSet::new();
    let text = |value: &str| SecretBytes::new(value.as_bytes().to_vec());
    for secret in &request.secrets {
        given.insert(RequestSecret::Build(&secret.id));
        sealed.push(seal(core, SecretKind::Build, &secret.id, &secret.value.0)?);
    }
    for secret in &request.arguments {
        given.insert(RequestSecret::Argument(&secret.name));
        sealed.push(seal(core, SecretKind::Argument, &secret.name, &text(&secret.value))?);
    }
    for secret in &request.values {
        given.insert(RequestSecret::Value(&secret.name));
        sealed.push(seal(core, SecretKind::Value, &set_secret_name(&secret.name), &text(&secret.value))?);
        clear.insert(secret.name.clone(), SecretString::new(secret.value.clone()));
    }
    let wanted: BTreeSet<RequestSecret<'_>> = stored.request.secrets().into_iter().collect();
    let id = record.run.id;
    if let Some(other) = given.difference(&wanted).next() {
        return Err(invalid(format!("run {id} came with no such secret: {}", flag(other))));
    }
    let missing: Vec<String> = wanted.difference(&given).map(flag).collect();
    if !missing.is_empty() {
        let detail = format!("run {id} came with secrets, which are not kept: {}", missing.join(", "));
        return Err(invalid(detail).with_hint("give them again with these flags"));
    }
    Ok((sealed, clear))
}

/// How a secret is given on a command line.
fn flag(secret: &RequestSecret<'_>) -> String {
    match secret {
        RequestSecret::Build(id) => format!("--secret id={id},src=FILE"),
        RequestSecret::Argument(name) => format!("--secret-build-arg {name}=VALUE"),
        RequestSecret::Value(name) => format!("--set-secret {name}=VALUE"),
    }
}
