//! Runs of stored tasks: from a task to a request like any other's, whoever or whatever asks for it.
//!
//! Owns as whom such a run acts: as the task's principal, with what that principal's token allowed when it last said what
//! the task does, as far as a token of that principal allows it still. Whoever sets the run off adds nothing to that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cooper_api::problem::ProblemCode;
use cooper_engine::run::{Asked, AskedTask, NewRun, TaskSource};
use cooper_engine::task::{
    Cause, EncodedStep, FileStep, OfTask, Origin, Overrides, Task, TaskAsked, TaskSecret, TaskStep,
};
use cooper_engine::trigger::{Definition, FiringKind};
use cooper_ports::access::Token;
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::hooks::SourceFiring;
use cooper_ports::runs::{AcceptError, AcceptRun, Accepted, RunType, Seal, SealedSecret, SecretKind};
use cooper_ports::tasks::Firing;
use cooper_ports::waves::MemberRun;
use cooper_spec::plan::ArgumentValue;
use cooper_spec::quick_build::BuildSource;
use cooper_spec::task_request::{Fetched, TaskRequest, set_secret_name};
use cooper_types::{Digest, IdempotencyKey, Scopes, SecretBytes, SecretString};

use crate::core::Core;
use crate::orders::{sealing_purpose, task_secret_purpose};
use crate::problem::{ApiError, ApiResult, chain};
use crate::tasks;

/// How long it may take to ask for a run that a trigger sets off: others wait meanwhile.
const ASKING: Duration = Duration::from_secs(10);
/// For how long such a run is asked for again that can't be asked for just now.
pub(crate) const TRIED_FOR: Duration = Duration::from_secs(600);

/// What is different in a run, with the values of its secrets.
#[derive(Default)]
pub(crate) struct Given {
    /// What is different.
    pub(crate) overrides: Overrides,
    /// The values of secrets that it brings.
    pub(crate) secrets: BTreeMap<TaskSecret, SecretString>,
    /// What the token of the person that asks allows, where something is different.
    pub(crate) limit: Option<Scopes>,
}

/// The kind and the name under which a task's secret is kept.
pub(crate) fn kept_as(secret: &TaskSecret) -> (SecretKind, String) {
    match secret {
        TaskSecret::Argument(name) => (SecretKind::Argument, name.clone()),
        TaskSecret::Value(name) => (SecretKind::Value, set_secret_name(name)),
    }
}

/// Makes the request for a run of a task. Everything that its planning needs is fetched.
pub(crate) async fn request(
    core: &Arc<Core>,
    task: &Task,
    given: Given,
    cause: Cause,
    idempotency: Option<(IdempotencyKey, Digest)>,
) -> ApiResult<AcceptRun> {
    let untrusted = matches!(&cause, Cause::Source(source) if source.firing.untrusted);
    let mut token = speaker(core, task, given.limit.as_ref()).await?;
    if untrusted {
        // A stranger's code runs as nobody, as long as the task runs at all.
        token.scopes = Scopes(Vec::new());
    }
    let stripped = untrusted.then(|| for_strangers(task));
    let task = stripped.as_ref().unwrap_or(task);
    let (secrets, clear) = secrets(core, task, &given).await?;
    // What another branch, a tag or a pull request stands on says nothing of the task's branch.
    let of_branch = match &cause {
        Cause::Source(source) => match &source.firing.kind {
            FiringKind::Commit { branch } => task.builds_branch(&source.trigger, &branch.to_string()),
            FiringKind::PullRequest { .. } | FiringKind::Tag { .. } => false,
        },
        Cause::Manual | Cause::For { .. } | Cause::Timer { .. } | Cause::BaseImage { .. } => true,
    };
    let definition = definition(task, &cause);
    let differs = given.limit.is_some() || !of_branch;
    let task_of_run = OfTask { differs, ..task.of_run() };
    let origin = Origin { cause, task: Some(task_of_run), untrusted, event: None, definition };
    let asked = match task.asked(&given.overrides)? {
        TaskAsked::Build { build, source } => Asked::Build { build, source: BuildSource::Remote(source) },
        TaskAsked::Task { request, source: Some(source) } => {
            Asked::Task(Box::new(AskedTask { request, source: TaskSource::Remote(source) }))
        }
        TaskAsked::Task { request, source: None } => {
            let is_asked_for = matches!(origin.cause, Cause::Manual | Cause::For { .. });
            here(core, &token, request, clear, &origin).await.map_err(|error| match is_asked_for {
                true => error.into(),
                false => error.for_trigger(),
            })?
        }
    };
    let run = NewRun {
        origin,
        principal: token.principal,
        scopes: token.scopes,
        registry: core.registry.clone(),
        pool: given.overrides.pool.unwrap_or_else(|| task.pool.clone()),
        asked,
        timeout: task.timeout,
        replay: None,
    };
    let run_type = if task.is_build() { RunType::AutoBuild } else { RunType::AutoRun };
    let seal = Seal(Arc::new({
        let core = Arc::clone(core);
        move |name, text| core.seal_text(name, text)
    }));
    Ok(AcceptRun { run, run_type, idempotency, secrets, seal, context_of: None })
}

/// Why there is no request for a run that a trigger sets off. Each says why, in a line.
pub(crate) enum NotAsked {
    /// The same may succeed in a moment.
    Yet(String),
    /// It is not asked for again.
    AtAll(String),
}

/// Makes the request for a run that a trigger sets off, which nobody waits for: within a limit of time, and again for some
/// minutes where the trouble may pass. `since` is how long ago it was to be asked for first.
pub(crate) async fn request_for_trigger(
    core: &Arc<Core>,
    task: &Task,
    given: Given,
    cause: Cause,
    since: Duration,
) -> Result<AcceptRun, NotAsked> {
    let error = match tokio::time::timeout(ASKING, request(core, task, given, cause, None)).await {
        Ok(Ok(request)) => return Ok(request),
        Ok(Err(error)) => error.0,
        Err(_) => {
            let seconds = ASKING.as_secs();
            let detail = format!("what the task file names was not there within {seconds} s");
            ApiError::new(ProblemCode::Unavailable, detail).0
        }
    };
    let may_pass = matches!(error.code, ProblemCode::Unavailable | ProblemCode::Internal | ProblemCode::StorageFull);
    match may_pass && since < TRIED_FOR {
        true => Err(NotAsked::Yet(error.detail)),
        false => Err(NotAsked::AtAll(error.detail)),
    }
}

/// What a run of a task stands for, beside what it is asked to do.
pub(crate) enum For {
    /// Somebody who asked for it.
    Asker,
    /// An instant of a timer.
    Instant(Firing),
    /// An event of a repository.
    Event(SourceFiring),
    /// A member of a wave.
    Member(MemberRun),
}

/// Accepts a run with what it stands for, and tells whom it concerns.
pub(crate) async fn accept(core: &Core, request: AcceptRun, stands_for: For) -> Result<Accepted, AcceptError> {
    let accepted = match stands_for {
        For::Asker => core.runs.accept_run(request).await?,
        For::Instant(firing) => core.runs.accept_firing(request, firing).await?,
        For::Event(event) => core.runs.accept_event(request, event).await?,
        For::Member(member) => core.runs.accept_member(request, member).await?,
    };
    failpoint::pass(Failpoint::RunAccepted);
    if !accepted.repeated {
        let run = &accepted.record.run;
        let task = run.origin.task.as_ref().map(|task| task.name.to_string()).unwrap_or_default();
        let cause = run.origin.cause.trigger();
        tracing::info!(run = %run.id, principal = %run.principal, task, cause, "run accepted");
        core.run_accepted(run);
    }
    Ok(accepted)
}

/// The newest token of the task's principal that works, with what a run of the task may do of it.
async fn speaker(core: &Core, task: &Task, limit: Option<&Scopes>) -> ApiResult<Token> {
    let now = core.clock.now();
    let tokens = core.access.store().tokens_of(&task.principal).await?;
    let mut own = tokens.into_iter().filter(|token| token.is_active(now));
    let (name, principal) = (&task.name, &task.principal);
    let Some(newest) = own.next() else {
        let detail = format!("task `{name}` is {principal}'s, who has no token that works: its runs can do nothing");
        let hint = format!("make a token for {principal}, or let somebody else make the task anew");
        return Err(ApiError::new(ProblemCode::Forbidden, detail).with_hint(hint));
    };
    let all = own.fold(newest.scopes.clone(), |mut all, token| {
        all.0.extend(token.scopes.0);
        all
    });
    let mut scopes = task.scopes.within(&all);
    if let Some(limit) = limit {
        scopes = scopes.within(limit);
    }
    if !scopes.run() {
        let detail = format!("task `{name}` is {principal}'s, whose tokens do not allow to start runs any more");
        let hint =
            format!("make a token with the scope `run` for {principal}, or let somebody else make the task anew");
        return Err(ApiError::new(ProblemCode::Forbidden, detail).with_hint(hint));
    }
    Ok(Token { scopes, ..newest })
}

/// A task as a stranger's code runs it: without secrets and pushes.
fn for_strangers(task: &Task) -> Task {
    let mut task = task.clone();
    match &mut task.step {
        TaskStep::Docker(step) => {
            step.push = false;
            step.arguments.retain(|argument| argument.value != ArgumentValue::Secret);
        }
        TaskStep::File(FileStep { set, .. }) | TaskStep::Encoded(EncodedStep { set, .. }) => {
            set.retain(|value| value.value.is_some());
        }
    }
    task
}

/// Where the task file or the Dockerfile is read, if not in what is built. A branch is taken as it is when it is fetched: an
/// event may be old, and what it stands on older.
fn definition(task: &Task, cause: &Cause) -> Option<String> {
    let Cause::Source(source) = cause else { return None };
    let Definition::Base { branch, .. } = &source.firing.definition else { return None };
    match task.step {
        TaskStep::Docker(_) | TaskStep::File(_) => Some(format!("refs/heads/{branch}")),
        TaskStep::Encoded(_) => None,
    }
}

/// The secrets of a run: those that came with it and the task's others, sealed for the run, and the values that the planning
/// needs in clear.
async fn secrets(
    core: &Core,
    task: &Task,
    given: &Given,
) -> ApiResult<(Vec<SealedSecret>, BTreeMap<String, SecretString>)> {
    let overridden: BTreeSet<&str> = given.overrides.arguments.iter().map(|argument| argument.name.as_str()).collect();
    let values: BTreeSet<&str> = given.overrides.set.iter().map(|value| value.name.as_str()).collect();
    let is_replaced = |secret: &TaskSecret| match secret {
        TaskSecret::Argument(name) => overridden.contains(name.as_str()),
        TaskSecret::Value(name) => values.contains(name.as_str()),
    };
    let wanted: Vec<TaskSecret> = task.secrets().into_iter().filter(|secret| !is_replaced(secret)).collect();
    let kept = if wanted.is_empty() { Vec::new() } else { core.tasks.task_secrets(task).await? };
    let mut all = given.secrets.clone();
    for secret in wanted {
        let (kind, name) = kept_as(&secret);
        let unreadable = || {
            let detail = format!("secret `{name}` of task `{}` can't be read; give its value again", task.name);
            ApiError::new(ProblemCode::Conflict, detail)
        };
        let sealed = kept.iter().find(|one| one.kind == kind && one.name == name).ok_or_else(unreadable)?;
        let value =
            core.key.unseal(&task_secret_purpose(&task.name, kind, &name), &sealed.sealed).map_err(|error| {
                tracing::error!(task = %task.name, error = chain(&error), "secret of a task can't be read");
                unreadable()
            })?;
        let text = String::from_utf8(value.expose().to_vec()).map_err(|_| unreadable())?;
        all.insert(secret, SecretString::new(text));
    }
    let mut sealed = Vec::with_capacity(all.len());
    let mut clear = BTreeMap::new();
    for (secret, value) in all {
        let (kind, name) = kept_as(&secret);
        let bytes = SecretBytes::new(value.expose().as_bytes().to_vec());
        sealed.push(SealedSecret { kind, sealed: core.key.seal(&sealing_purpose(kind, &name), &bytes), name });
        if let TaskSecret::Value(name) = secret {
            clear.insert(name, value);
        }
    }
    Ok((sealed, clear))
}

/// A task file that is part of its task and needs no source: planned at once.
async fn here(
    core: &Arc<Core>,
    token: &Token,
    request: TaskRequest,
    set_secrets: BTreeMap<String, SecretString>,
    origin: &Origin,
) -> Result<Asked, tasks::FetchError> {
    let fetched = Fetched { set_secrets, ..Fetched::default() };
    let asking = tasks::Asking { token, source: None, replay: None, origin };
    let fetched = tasks::fetch_for_request(core, asking, &request, fetched).await?;
    Ok(Asked::Task(Box::new(AskedTask { request, source: TaskSource::Here { context: None, fetched } })))
}
