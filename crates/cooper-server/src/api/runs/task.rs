//! A run of a task file as it is asked for on the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use cooper_api::problem::ProblemCode;
use cooper_api::rest::{EncodedTaskRunRequest, FileTaskRunRequest, TaskRunCommon};
use cooper_engine::run::{Asked, AskedTask, TaskSource};
use cooper_engine::task::Origin;
use cooper_ports::access::Token;
use cooper_ports::runs::{RunType, SealedSecret, SecretKind};
use cooper_spec::source::{RemoteSource, SourceLocation};
use cooper_spec::task::DEFAULT_FILES;
use cooper_spec::task_request::{Fetched, RequestedValue, TaskRequest, TaskText, set_secret_name};
use cooper_types::{ContextId, SecretBytes, SecretString};

use super::{AskedRun, invalid, platform_of, seal};
use crate::core::Core;
use crate::problem::{ApiError, ApiResult, chain};
use crate::tasks;

/// What a values file is called that came without a name.
const UNNAMED_VALUES: &str = "values.yaml";
/// The largest text that comes with a request, in bytes, and the largest that all of them may have together.
const MAX_TEXT: usize = 1 << 20;
/// More values, or more files for aliases, than this are refused: no real task has so many.
const MAX_ITEMS: usize = 256;

/// Where a task's files are.
enum Place {
    Nothing,
    Context(ContextId),
    Remote(RemoteSource),
}

/// A task file that comes with the request.
pub(super) async fn encoded(core: &Arc<Core>, token: &Token, request: EncodedTaskRunRequest) -> ApiResult<AskedRun> {
    let texts = request.files.values().chain(&request.encoded_values_content).chain([&request.encoded_task_content]);
    let size: usize = texts.map(|text| text.0.len()).sum();
    if size > MAX_TEXT {
        return Err(invalid(format!("the task's files have {size} bytes together; at most {MAX_TEXT} are taken")));
    }
    if request.files.len() > MAX_ITEMS {
        return Err(invalid(format!("files: {} are given, at most {MAX_ITEMS} are allowed", request.files.len())));
    }
    let name = request.task_file_path.unwrap_or_else(|| DEFAULT_FILES[0].to_owned());
    let file = TaskText::Given { name, text: request.encoded_task_content.0 };
    let values_name = request.values_file_path.unwrap_or_else(|| UNNAMED_VALUES.to_owned());
    let values = request.encoded_values_content.map(|text| TaskText::Given { name: values_name, text: text.0 });
    let files = request.files.into_iter().map(|(name, text)| (name, text.0)).collect();
    let (asked, place, set_secrets, secrets) = common(core, request.common, file, values, files)?;
    let (timeout, pool, task) = asked;
    let source = match place {
        Place::Remote(source) => TaskSource::Remote(source),
        Place::Nothing => here(core, token, &task, None, set_secrets).await?,
        Place::Context(context) => here(core, token, &task, Some(context), set_secrets).await?,
    };
    Ok(asked_run(task, source, secrets, timeout, pool))
}

/// A task file that lies in the source.
pub(super) fn file(core: &Arc<Core>, _token: &Token, request: FileTaskRunRequest) -> ApiResult<AskedRun> {
    let (path, fallbacks) = match request.task_file_path {
        Some(path) => (path, Vec::new()),
        None => (DEFAULT_FILES[0].to_owned(), DEFAULT_FILES[1..].iter().map(|name| (*name).to_owned()).collect()),
    };
    let file = TaskText::InSource(path.clone());
    let values = request.values_file_path.map(TaskText::InSource);
    let (asked, place, _, secrets) = common(core, request.common, file, values, BTreeMap::new())?;
    let (timeout, pool, task) = asked;
    let task = TaskRequest { fallbacks, ..task };
    let source = match place {
        Place::Remote(source) => TaskSource::Remote(source),
        Place::Context(context) => TaskSource::Remote(RemoteSource::Uploaded(context)),
        Place::Nothing => {
            return Err(invalid(format!(
                "taskFilePath `{path}` lies in no source: name one as sourceLocation, or send the file itself as \
                 encodedTaskContent of an EncodedTaskRunRequest"
            )));
        }
    };
    Ok(asked_run(task, source, secrets, timeout, pool))
}

fn asked_run(
    request: TaskRequest,
    source: TaskSource,
    secrets: Vec<SealedSecret>,
    timeout: u32,
    pool: Option<String>,
) -> AskedRun {
    let asked = Asked::Task(Box::new(AskedTask { request, source }));
    AskedRun { asked, run_type: RunType::QuickRun, secrets, timeout, pool, replay: None }
}

/// Fetches what the planning needs, before the run is accepted.
async fn here(
    core: &Arc<Core>,
    token: &Token,
    task: &TaskRequest,
    context: Option<ContextId>,
    set_secrets: BTreeMap<String, SecretString>,
) -> ApiResult<TaskSource> {
    let fetched = Fetched { set_secrets, ..Fetched::default() };
    let asking = tasks::Asking { token, source: None, replay: None, origin: &Origin::default() };
    let fetched = tasks::fetch_for_request(core, asking, task, fetched).await?;
    Ok(TaskSource::Here { context, fetched })
}

type Common = ((u32, Option<String>, TaskRequest), Place, BTreeMap<String, SecretString>, Vec<SealedSecret>);

fn common(
    core: &Core,
    common: TaskRunCommon,
    file: TaskText,
    values: Option<TaskText>,
    alias_files: BTreeMap<String, String>,
) -> ApiResult<Common> {
    if common.values.len() > MAX_ITEMS {
        return Err(invalid(format!("values: {} are given, at most {MAX_ITEMS} are allowed", common.values.len())));
    }
    let platform = platform_of(common.platform.as_ref())?;
    let place = match common.source_location.as_deref() {
        None | Some("") => Place::Nothing,
        Some(text) => place(text)?,
    };
    let mut secrets: Vec<SealedSecret> = Vec::new();
    let mut clear = BTreeMap::new();
    let mut set = Vec::with_capacity(common.values.len());
    for value in common.values {
        if value.name.is_empty() {
            return Err(invalid("a value has no name; write NAME=VALUE".to_owned()));
        }
        if value.is_secret {
            let name = set_secret_name(&value.name);
            let bytes = SecretBytes::new(value.value.clone().into_bytes());
            // The last one of a name counts, as for values that are not secret.
            secrets.retain(|secret| secret.name != name);
            secrets.push(seal(core, SecretKind::Value, &name, &bytes)?);
            clear.insert(value.name.clone(), SecretString::new(value.value));
            set.push(RequestedValue { name: value.name, value: None });
        } else {
            set.push(RequestedValue { name: value.name, value: Some(value.value) });
        }
    }
    let working_directory = common.working_directory;
    let fallbacks = Vec::new();
    let task = TaskRequest { file, fallbacks, values, set, alias_files, platform, working_directory };
    Ok(((common.timeout, common.agent_pool_name, task), place, clear, secrets))
}

/// What `sourceLocation` names.
fn place(text: &str) -> ApiResult<Place> {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Nothing) => Ok(Place::Nothing),
        Ok(SourceLocation::Remote(source)) => Ok(Place::Remote(source)),
        Ok(SourceLocation::Local(id)) => ContextId::parse(&id).map(Place::Context).map_err(|error| {
            ApiError::new(ProblemCode::ContextNotFound, format!("sourceLocation is not valid: {error}"))
        }),
        Ok(SourceLocation::Stdin) => {
            Err(invalid("sourceLocation `-` is the client's own; upload a context".to_owned()))
        }
        Err(error) => Err(invalid(format!("sourceLocation is not valid: {}", chain(&error)))),
    }
}
