//! `cooper run`: runs a task file, or one command, in a folder's files, a remote source's, or none.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use cooper_api::rest::{
    DEFAULT_TIMEOUT_SECONDS, EncodedTaskRunRequest, EncodedText, FileTaskRunRequest, MAX_TIMEOUT_SECONDS,
    MIN_TIMEOUT_SECONDS, PlatformView, Run, RunRequest, SetValue, TaskRunCommon,
};
use cooper_client::Client;
use cooper_source::PackOptions;
use cooper_spec::source::{RemoteSource, SourceLocation};
use cooper_spec::task::DEFAULT_FILES;
use cooper_types::Platform;

use crate::azure::AzureFlags;
use crate::build::{dockerfile_in_source, keep_stdin, pack_folder, upload_context};
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::local::{self, LocalArgs};
use crate::output;
use crate::started::{WaitFlags, Whose, new_key, see_through};
use crate::task::{LocalTask, read_values, show_faults, show_warnings};

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// What the workspace begins with: a folder; `https://HOST/PATH.git#REFERENCE:FOLDER` in a Git repository; the URL of a
    /// tar archive; `oci://HOST/REPOSITORY:TAG`; `-` for a tar archive on the standard input; or /dev/null for nothing
    #[arg(value_name = "SOURCE")]
    source: String,
    /// The task file: of this machine, or inside SOURCE where that is remote; - is the standard input [default:
    /// acr-task.yaml or acb.yaml in SOURCE]
    #[arg(long, short, value_name = "FILE", conflicts_with = "cmd")]
    file: Option<String>,
    /// Run one container instead of a task file: an image and its arguments
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    cmd: Option<String>,
    /// A YAML file of values for templates; it is where the task file is
    #[arg(long, value_name = "FILE")]
    values: Option<String>,
    /// A value for templates, over the file's; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A value for templates that is kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set_secret: Vec<String>,
    /// What steps run for that don't say it themselves, as os[/architecture[/variant]] [default: linux/amd64]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The pool whose agents may run it [default: default]
    #[arg(long, value_name = "POOL")]
    agent_pool: Option<String>,
    /// After how many seconds of work the run ends [default: 3600]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(i64::from(MIN_TIMEOUT_SECONDS)..=i64::from(MAX_TIMEOUT_SECONDS)))]
    timeout: Option<u32>,
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    local: LocalArgs,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    azure: AzureFlags,
}

/// Where the workspace's files are.
enum Place {
    Nothing,
    Folder(PathBuf),
    Stdin,
    Remote(RemoteSource),
}

impl Place {
    /// The folder of this machine, if it is one.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Folder(folder) => Some(folder),
            Self::Nothing | Self::Stdin | Self::Remote(_) => None,
        }
    }
}

/// The task, where this machine has it.
enum Task {
    Here(LocalTask),
    InSource { file: Option<String>, values: Option<String> },
}

impl RunArgs {
    /// Whether a server in this process is to do it.
    pub(crate) fn local(&self) -> bool {
        self.local.local
    }
}

pub(crate) async fn run(args: &RunArgs, environment: &Environment) -> Result<Exit, Stop> {
    let place = place(&args.source)?;
    if matches!(place, Place::Stdin) && args.file.as_deref() == Some("-") {
        return Err(Fault::usage("the standard input can't be both task file and source")
            .with_hint("name the task file with -f FILE")
            .into());
    }
    if matches!(place, Place::Stdin) && std::io::stdin().is_terminal() {
        return Err(Fault::usage("the standard input is a terminal")
            .with_hint("pipe a tar archive into it: `tar -c . | cooper run -f FILE -`")
            .into());
    }
    let common = common(args)?;
    let mut task = task(args, &place, &common)?;
    if let Task::Here(task) = &mut task
        && !is_sound(task, args, &place, environment).await?
    {
        return Ok(Exit::Usage);
    }
    let live = args.wait.is_live(environment);
    let is_own = !matches!(place, Place::Remote(_));
    let queue = async |client: &Client| queue(client, args, place, task, common, live).await;
    if args.local() {
        return local::run(&args.local, &args.wait, environment, is_own, queue).await;
    }
    let client = args.server.connect(environment)?;
    let run = queue(&client).await?;
    see_through(&client, run, &args.wait, environment, Whose::Theirs).await
}

/// Sends what the run needs from this machine, and asks for it.
async fn queue(
    client: &Client,
    args: &RunArgs,
    place: Place,
    task: Task,
    mut common: TaskRunCommon,
    live: bool,
) -> Result<Run, Stop> {
    for warning in args.azure.warnings() {
        output::warning(&warning);
    }
    common.source_location = source_location(client, place, live).await?;
    let request = match task {
        Task::Here(task) => RunRequest::EncodedTaskRunRequest(EncodedTaskRunRequest {
            encoded_task_content: EncodedText(task.file.text),
            task_file_path: Some(task.file.name),
            values_file_path: task.values.as_ref().map(|values| values.name.clone()),
            encoded_values_content: task.values.map(|values| EncodedText(values.text)),
            files: task.alias_files.into_iter().map(|(name, text)| (name, EncodedText(text))).collect(),
            common,
        }),
        Task::InSource { file, values } => RunRequest::FileTaskRunRequest(FileTaskRunRequest {
            task_file_path: file,
            values_file_path: values,
            common,
        }),
    };
    let run = client.create_run(&request, &new_key()?).await?;
    output::note(&format!("Queued a run with ID: {}", run.run_id));
    Ok(run)
}

fn place(text: &str) -> Result<Place, Fault> {
    match SourceLocation::parse(text) {
        Ok(SourceLocation::Nothing) => Ok(Place::Nothing),
        Ok(SourceLocation::Local(path)) => Ok(Place::Folder(PathBuf::from(path))),
        Ok(SourceLocation::Stdin) => Ok(Place::Stdin),
        Ok(SourceLocation::Remote(source)) => Ok(Place::Remote(source)),
        Err(error) => Err(Fault::usage(chain(&error))),
    }
}

fn platform(args: &RunArgs) -> Result<Option<Platform>, Fault> {
    let parse = |text: &String| Platform::parse(text).map_err(|error| Fault::usage(error.to_string()));
    args.platform.as_ref().map(parse).transpose()
}

fn common(args: &RunArgs) -> Result<TaskRunCommon, Fault> {
    let platform = platform(args)?;
    let values = read_values(&args.set, &args.set_secret)?;
    let values = values.into_iter().map(|set| SetValue { name: set.name, value: set.value, is_secret: set.secret });
    Ok(TaskRunCommon {
        values: values.collect(),
        timeout: args.timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS),
        platform: platform.as_ref().map(PlatformView::from),
        source_location: None,
        agent_pool_name: args.agent_pool.clone(),
        working_directory: None,
    })
}

/// Whether nothing is wrong with a task as far as can be seen from here; what is, is shown.
async fn is_sound(
    task: &mut LocalTask,
    args: &RunArgs,
    place: &Place,
    environment: &Environment,
) -> Result<bool, Stop> {
    let aliases = match args.local() {
        true => args.local.image_aliases(environment)?,
        false => BTreeMap::new(),
    };
    let platform = platform(args)?;
    let mut check = |aliases| task.check(place.folder(), platform.as_ref(), &args.set, &args.set_secret, aliases);
    let mut checked = check(aliases)?;
    let is_spotless = matches!(&checked, Ok(warnings) if warnings.is_empty());
    if !is_spotless && !args.local() {
        // The server's names of images may be all that is missing. One that can't be asked is no reason to say less.
        let info = match args.server.connect(environment) {
            Ok(client) => client.info().await.ok(),
            Err(_) => None,
        };
        if let Some(aliases) = info.map(|info| info.image_aliases).filter(|aliases| !aliases.is_empty()) {
            checked = check(aliases)?;
        }
    }
    match checked {
        Ok(warnings) => {
            show_warnings(&warnings);
            Ok(true)
        }
        Err(faults) => {
            show_faults(&faults);
            Ok(false)
        }
    }
}

/// The task, where this machine has it.
fn task(args: &RunArgs, place: &Place, common: &TaskRunCommon) -> Result<Task, Stop> {
    let folder = place.folder();
    if let Some(command) = &args.cmd {
        return Ok(Task::Here(LocalTask::of_command(command, common.timeout)));
    }
    if let Place::Remote(_) = place
        && args.file.as_deref() != Some("-")
    {
        let in_source = |path: &str| dockerfile_in_source(Some(Path::new(path)));
        let file = args.file.as_deref().map(in_source).transpose()?;
        let values = args.values.as_deref().map(in_source).transpose()?;
        return Ok(Task::InSource { file, values });
    }
    let file = match (&args.file, folder) {
        (Some(file), _) if file == "-" => file.clone(),
        (Some(file), _) => find(file, folder),
        (None, Some(folder)) => {
            let candidates = DEFAULT_FILES.map(|name| folder.join(name));
            let found = candidates.iter().find(|path| path.exists());
            found.unwrap_or(&candidates[0]).display().to_string()
        }
        (None, None) => {
            return Err(Fault::usage("no task file is named")
                .with_hint("name it with -f FILE, or a command with --cmd")
                .into());
        }
    };
    let values = args.values.as_ref().map(|values| find(values, folder));
    Ok(Task::Here(LocalTask::read(&file, values.as_deref())?))
}

/// A file of this machine: in the source's folder, as `az acr run` looks for it, or else as it is named.
fn find(file: &str, folder: Option<&Path>) -> String {
    match folder.map(|folder| folder.join(file)) {
        Some(inside) if inside.exists() => inside.display().to_string(),
        _ => file.to_owned(),
    }
}

/// What the request names as its source; a folder or an archive is sent first.
async fn source_location(client: &Client, place: Place, live: bool) -> Result<Option<String>, Stop> {
    let packed = match place {
        Place::Nothing => return Ok(None),
        Place::Remote(source) => {
            if let Some(warning) = source.warning() {
                output::warning(&warning);
            }
            return Ok(Some(source.to_string()));
        }
        Place::Stdin => keep_stdin(String::new(), live).await?,
        Place::Folder(folder) => {
            output::note("Packing source code into tar to upload...");
            pack_folder(PackOptions { folder, dockerfile: None, whole: true }, live).await?
        }
    };
    Ok(Some(upload_context(client, packed, live).await?.to_string()))
}
