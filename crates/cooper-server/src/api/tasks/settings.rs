//! A task from the wire and to it.

use std::collections::BTreeMap;
use std::time::Duration;

use cooper_api::problem::ProblemCode;
use cooper_api::rest::{
    self, BaseImageTriggerSettings, BaseImageTriggerType, DockerStepSettings, EncodedStepSettings, FileStepSettings,
    StepSettings, TaskCredentialView, TaskRunRequest, TaskSettings, TaskStatus, TaskValue, TaskView, TimerSettings,
    UpdatePayloadType,
};
use cooper_engine::task::{
    BaseImageChange, CatchUp, DockerChange, EncodedChange, FileChange, Follows, Overrides, StepChange, Task,
    TaskChange, TaskEndpoint, TaskSecret, TaskStep, Timer, UpdatePayload,
};
use cooper_engine::timer::{Expression, Schedule, Zone};
use cooper_ports::access::Token;
use cooper_ports::tasks::TaskRecord;
use cooper_spec::plan::{ArgumentValue, BuildArgument};
use cooper_spec::source::{RemoteSource, SourceLocation};
use cooper_spec::task_request::RequestedValue;
use cooper_types::{Platform, PoolName, SecretString, TimerName};

use crate::api::hooks;
use crate::api::runs::{MAX_SECRET_BYTES, invalid};
use crate::core::Core;
use crate::keys::ServerKey;
use crate::outbox::endpoint::{Endpoint, checked_uri};
use crate::problem::{ApiError, ApiResult, chain};

/// The values of secrets that came with a request.
type Secrets = BTreeMap<TaskSecret, SecretString>;

/// What is said of a task whose files came from `earlier`.
pub(super) fn change(settings: TaskSettings, earlier: Option<&RemoteSource>) -> ApiResult<(TaskChange, Secrets)> {
    let mut secrets = Secrets::new();
    let (source, step) = match settings.step {
        None => (None, None),
        Some(step) => {
            let (source, step) = step_change(step, &mut secrets)?;
            (source, Some(step))
        }
    };
    let platforms = settings.platforms.map(|all| {
        let parse = |text: &String| {
            let platform = Platform::parse(text);
            platform.map_err(|error| ApiError::new(ProblemCode::UnsupportedPlatform, error.to_string()))
        };
        all.iter().map(parse).collect::<ApiResult<Vec<_>>>()
    });
    let mut timers = BTreeMap::new();
    for (name, timer) in settings.timers {
        let timer = timer.map(|timer| of_timer(timer, &name)).transpose()?;
        timers.insert(name, timer);
    }
    let context = source.as_ref().map_or(earlier, Option::as_ref);
    let mut sources = BTreeMap::new();
    for (name, trigger) in settings.source_triggers {
        let trigger = trigger.map(|trigger| hooks::of_trigger(trigger, &name, context)).transpose()?;
        sources.insert(name, trigger);
    }
    let change = TaskChange {
        enabled: settings.status.map(|status| status == TaskStatus::Enabled),
        step,
        source,
        platforms: platforms.transpose()?,
        pool: settings.agent_pool_name.as_deref().map(pool).transpose()?,
        cpu: settings.cpu,
        timeout: settings.timeout.map(|seconds| Duration::from_secs(seconds.into())),
        priority: settings.priority,
        concurrency: settings.concurrency_limit,
        run_days: settings.run_retention_days,
        log_days: settings.log_retention_days,
        timers,
        base_image: settings.base_image_trigger.map(base_image).transpose()?.unwrap_or_default(),
        sources,
    };
    Ok((change, secrets))
}

/// What is different in one run.
pub(super) fn overrides(request: TaskRunRequest) -> ApiResult<(Overrides, Secrets)> {
    let mut secrets = Secrets::new();
    let source = match request.context_path.as_deref().map(source).transpose()? {
        Some(None) => {
            return Err(invalid(
                "a run of a task can't be without files: leave the context out for the task's own, or name another"
                    .to_owned(),
            ));
        }
        source => source.flatten(),
    };
    let overrides = Overrides {
        source,
        file: request.file,
        target: request.target,
        arguments: arguments(request.arguments, &mut secrets)?,
        set: values(request.values, &mut secrets)?,
        pool: request.agent_pool_name.as_deref().map(pool).transpose()?,
    };
    // Secrets of a run are kept nowhere: each has a value.
    let names = overrides.arguments.iter().filter(|argument| argument.value == ArgumentValue::Secret);
    let names = names.map(|argument| TaskSecret::Argument(argument.name.clone()));
    let set = overrides.set.iter().filter(|value| value.value.is_none());
    for secret in names.chain(set.map(|value| TaskSecret::Value(value.name.clone()))) {
        if !secrets.contains_key(&secret) {
            let (TaskSecret::Argument(name) | TaskSecret::Value(name)) = secret;
            return Err(invalid(format!("secret `{name}` has no value")));
        }
    }
    Ok((overrides, secrets))
}

/// Where a task's files come from: nothing said, nowhere, or somewhere.
type SourceChange = Option<Option<RemoteSource>>;

fn step_change(step: StepSettings, secrets: &mut Secrets) -> ApiResult<(SourceChange, StepChange)> {
    match step {
        StepSettings::Docker(step) => Ok((
            step.context_path.as_deref().map(source).transpose()?,
            StepChange::Docker(DockerChange {
                dockerfile: step.docker_file_path,
                image_names: step.image_names,
                push: step.is_push_enabled,
                no_cache: step.no_cache,
                target: step.target,
                arguments: step.arguments.map(|all| arguments(all, secrets)).transpose()?,
            }),
        )),
        StepSettings::FileTask(step) => Ok((
            step.context_path.as_deref().map(source).transpose()?,
            StepChange::File(FileChange {
                file: step.task_file_path,
                values: step.values_file_path,
                set: step.values.map(|all| values(all, secrets)).transpose()?,
            }),
        )),
        StepSettings::EncodedTask(step) => Ok((
            step.context_path.as_deref().map(source).transpose()?,
            StepChange::Encoded(EncodedChange {
                text: step.task_content,
                values: step.values_content,
                set: step.values.map(|all| values(all, secrets)).transpose()?,
            }),
        )),
    }
}

fn source(text: &str) -> ApiResult<Option<RemoteSource>> {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Remote(source)) => Ok(Some(source)),
        Ok(SourceLocation::Nothing) => Ok(None),
        Ok(SourceLocation::Local(_) | SourceLocation::Stdin) => Err(invalid(format!(
            "contextPath `{text}` is a place of one machine; a task's files come from a Git repository, an archive's URL \
             or an artifact"
        ))),
        Err(error) => Err(invalid(format!("contextPath is not valid: {}", chain(&error)))),
    }
}

fn pool(name: &str) -> ApiResult<PoolName> {
    PoolName::parse(name).map_err(|error| invalid(format!("agentPoolName is not valid: {error}")))
}

/// The value of a secret, of a task or of one run of it.
fn secret(name: &str, value: String) -> ApiResult<SecretString> {
    match value.len() <= MAX_SECRET_BYTES {
        true => Ok(SecretString::new(value)),
        false => Err(invalid(format!("secret `{name}` is larger than {MAX_SECRET_BYTES} bytes"))),
    }
}

fn arguments(all: Vec<TaskValue>, secrets: &mut Secrets) -> ApiResult<Vec<BuildArgument>> {
    let argument = |argument: TaskValue| {
        let TaskValue { name, value, is_secret } = argument;
        let value = match (is_secret, value) {
            (true, value) => {
                if let Some(value) = value {
                    secrets.insert(TaskSecret::Argument(name.clone()), secret(&name, value)?);
                }
                ArgumentValue::Secret
            }
            (false, Some(value)) => ArgumentValue::Plain(value),
            (false, None) => return Err(invalid(format!("build argument `{name}` has no value"))),
        };
        Ok(BuildArgument { name, value })
    };
    all.into_iter().map(argument).collect()
}

fn values(all: Vec<TaskValue>, secrets: &mut Secrets) -> ApiResult<Vec<RequestedValue>> {
    let value = |value: TaskValue| {
        let TaskValue { name, value, is_secret } = value;
        match (is_secret, value) {
            (true, value) => {
                if let Some(value) = value {
                    secrets.insert(TaskSecret::Value(name.clone()), secret(&name, value)?);
                }
                Ok(RequestedValue { name, value: None })
            }
            (false, Some(value)) => Ok(RequestedValue { name, value: Some(value) }),
            (false, None) => Err(invalid(format!("value `{name}` is absent"))),
        }
    };
    all.into_iter().map(value).collect()
}

fn of_timer(timer: TimerSettings, name: &cooper_types::TimerName) -> ApiResult<Timer> {
    let wrong = |error: &dyn std::fmt::Display| invalid(format!("timer `{name}`: {error}"));
    let expression = Expression::parse(&timer.schedule).map_err(|error| wrong(&error))?;
    let zone = match &timer.time_zone {
        None => Zone::utc(),
        Some(name) => Zone::parse(name).map_err(|error| wrong(&error))?,
    };
    Ok(Timer {
        schedule: Schedule { expression, zone },
        catch_up: match timer.catch_up.unwrap_or_default() {
            rest::CatchUp::Skip => CatchUp::Skip,
            rest::CatchUp::Once => CatchUp::Once,
        },
        enabled: timer.status.unwrap_or_default() == TaskStatus::Enabled,
    })
}

fn base_image(settings: BaseImageTriggerSettings) -> ApiResult<BaseImageChange> {
    let name = settings.name.as_deref().map(TimerName::parse).transpose();
    Ok(BaseImageChange {
        name: name.map_err(|error| invalid(format!("baseImageTrigger: {error}")))?,
        enabled: settings.status.map(|status| status == TaskStatus::Enabled),
        follows: settings.base_image_trigger_type.map(|follows| match follows {
            BaseImageTriggerType::Runtime => Follows::Runtime,
            BaseImageTriggerType::All => Follows::All,
        }),
        steps: settings.follows_steps,
        endpoint: match settings.update_trigger_endpoint.as_deref() {
            None => None,
            Some("") => Some(None),
            Some(uri) => {
                let fault = |error| invalid(format!("baseImageTrigger: updateTriggerEndpoint: {error}"));
                Some(Some(TaskEndpoint::Plain(checked_uri(uri).map_err(fault)?)))
            }
        },
        payload: settings.update_trigger_payload_type.map(|payload| match payload {
            UpdatePayloadType::Default => UpdatePayload::Default,
            UpdatePayloadType::Token => UpdatePayload::Token,
        }),
    })
}

/// An endpoint's address may be a secret: the task's own principal and administrators see it.
fn base_image_view(task: &Task, key: &ServerKey, may_see_all: bool) -> BaseImageTriggerSettings {
    let trigger = &task.base_image;
    // One that can't be read is set anew.
    let endpoint = || Endpoint::of_task(key, task).ok().flatten();
    BaseImageTriggerSettings {
        name: Some(trigger.name.to_string()),
        base_image_trigger_type: Some(match trigger.follows {
            Follows::Runtime => BaseImageTriggerType::Runtime,
            Follows::All => BaseImageTriggerType::All,
        }),
        status: Some(status(trigger.enabled)),
        follows_steps: Some(trigger.steps),
        update_trigger_endpoint: may_see_all.then(endpoint).flatten().map(|endpoint| endpoint.uri),
        update_trigger_payload_type: trigger.endpoint.as_ref().map(|_| match trigger.payload {
            UpdatePayload::Default => UpdatePayloadType::Default,
            UpdatePayload::Token => UpdatePayloadType::Token,
        }),
    }
}

/// Whether triggers start it.
pub(super) fn status(enabled: bool) -> TaskStatus {
    if enabled { TaskStatus::Enabled } else { TaskStatus::Disabled }
}

/// A timer as it is shown.
pub(super) fn timer_view(timer: &Timer) -> TimerSettings {
    TimerSettings {
        schedule: timer.schedule.expression.to_string(),
        time_zone: Some(timer.schedule.zone.to_string()),
        catch_up: Some(match timer.catch_up {
            CatchUp::Skip => rest::CatchUp::Skip,
            CatchUp::Once => rest::CatchUp::Once,
        }),
        status: Some(status(timer.enabled)),
    }
}

/// A task as it is shown. Where its files come from may hold a secret, as an archive's URL does: others than its principal
/// and administrators see it without.
pub(super) fn view(core: &Core, record: &TaskRecord, token: &Token) -> TaskView {
    let TaskRecord { task, credentials, .. } = record;
    let may_see_all = task.principal == token.principal || token.scopes.admin();
    let timers = task.timers.iter().map(|(name, timer)| (name.clone(), Some(timer_view(timer))));
    let sources = task.sources.iter().map(|(name, settings)| (name.clone(), Some(hooks::trigger_view(settings))));
    TaskView {
        settings: TaskSettings {
            name: Some(task.name.clone()),
            status: Some(status(task.enabled)),
            step: Some(step_view(task, may_see_all)),
            platforms: Some(task.platforms.iter().map(ToString::to_string).collect()),
            agent_pool_name: Some(task.pool.to_string()),
            cpu: Some(task.cpu),
            timeout: Some(u32::try_from(task.timeout.as_secs()).unwrap_or(u32::MAX)),
            priority: Some(task.priority),
            concurrency_limit: Some(task.concurrency),
            run_retention_days: Some(task.retention.runs),
            log_retention_days: Some(task.retention.logs),
            timers: timers.collect(),
            base_image_trigger: Some(base_image_view(task, &core.key, may_see_all)),
            source_triggers: sources.collect(),
        },
        principal: task.principal.clone(),
        creation_date: task.created,
        last_updated_time: task.updated,
        generation: task.generation,
        credentials: credentials
            .iter()
            .map(|credential| TaskCredentialView {
                login_server: credential.host.clone(),
                username: credential.username.clone(),
                last_updated_time: credential.updated,
            })
            .collect(),
        hooks: match may_see_all {
            true => record.hooks.iter().map(|hook| hooks::hook_view(core, record, hook)).collect(),
            false => Vec::new(),
        },
    }
}

/// A task as a list shows it: without the texts of its files, which can be large.
pub(super) fn line(core: &Core, record: &TaskRecord, token: &Token) -> TaskView {
    let mut view = view(core, record, token);
    if let Some(StepSettings::EncodedTask(step)) = &mut view.settings.step {
        step.task_content = None;
        step.values_content = None;
    }
    view
}

fn step_view(task: &Task, may_see_all: bool) -> StepSettings {
    let context_path = task.source.as_ref().map(|source| if may_see_all { source.to_string() } else { source.shown() });
    let values_view = |set: &[RequestedValue]| {
        let value = |value: &RequestedValue| TaskValue {
            name: value.name.clone(),
            value: value.value.clone(),
            is_secret: value.value.is_none(),
        };
        Some(set.iter().map(value).collect())
    };
    match &task.step {
        TaskStep::Docker(step) => StepSettings::Docker(DockerStepSettings {
            context_path,
            docker_file_path: Some(step.dockerfile.clone()),
            image_names: Some(step.image_names.clone()),
            is_push_enabled: Some(step.push),
            no_cache: Some(step.no_cache),
            target: step.target.clone(),
            arguments: Some(step.arguments.iter().map(argument_view).collect()),
        }),
        TaskStep::File(step) => StepSettings::FileTask(FileStepSettings {
            context_path,
            task_file_path: Some(step.file.clone()),
            values_file_path: step.values.clone(),
            values: values_view(&step.set),
        }),
        TaskStep::Encoded(step) => StepSettings::EncodedTask(EncodedStepSettings {
            context_path,
            task_content: Some(step.text.clone()),
            values_content: step.values.clone(),
            values: values_view(&step.set),
        }),
    }
}

fn argument_view(argument: &BuildArgument) -> TaskValue {
    let value = match &argument.value {
        ArgumentValue::Plain(text) => Some(text.clone()),
        ArgumentValue::Secret | ArgumentValue::Kept(_) => None,
    };
    TaskValue { name: argument.name.clone(), is_secret: value.is_none(), value }
}
