//! What flags say of a task: of a new one, and of one that is there. A list takes the place of the earlier one, and an empty
//! value takes it away.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, ValueEnum};
use cooper_api::rest::{
    BaseImageTriggerSettings, BaseImageTriggerType, DockerStepSettings, EncodedStepSettings, FileStepSettings,
    MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, StepSettings, TaskSettings, TaskStatus, TaskValue, UpdatePayloadType,
};

use super::source::SourceArgs;
use crate::azure::boolean;
use crate::build::argument;
use crate::environment::Environment;
use crate::fault::Fault;
use crate::task::{LocalTask, read_file, read_values};

/// Endings of files that are task files; everything else is a Dockerfile, as in az.
const TASK_FILES: [&str; 17] = [
    "yaml", "yml", "toml", "json", "sh", "bash", "zsh", "ps1", "ps", "cmd", "bat", "ts", "js", "php", "py", "rb", "lua",
];

/// Whether triggers start a task, in any letter case.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Status {
    Enabled,
    Disabled,
}

/// What a task is.
#[derive(Args, Debug)]
pub(super) struct WhatArgs {
    /// Where its files come from: `https://HOST/PATH.git#REFERENCE:FOLDER`, an archive's URL, `oci://HOST/REPOSITORY:TAG`, or
    /// /dev/null for nowhere
    #[arg(long, short, value_name = "SOURCE")]
    pub(super) context: Option<String>,
    /// The Dockerfile or task file inside the context; a task file of this machine with /dev/null. What ends in .yaml, .yml
    /// and the like is a task file
    #[arg(long, short, value_name = "FILE")]
    pub(super) file: Option<String>,
    /// Run one container instead of a file: an image and its arguments
    #[arg(long, value_name = "COMMAND", conflicts_with = "file", allow_hyphen_values = true)]
    cmd: Option<String>,
    /// Name for the image; may be repeated, and may hold run variables such as {{.Run.ID}}
    #[arg(long, short = 't', value_name = "NAME[:TAG]")]
    image: Vec<String>,
    /// A build argument; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    arg: Vec<String>,
    /// A build argument that is kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret_arg: Vec<String>,
    /// The stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Build without pushing
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    no_push: Option<bool>,
    /// Build without a cache
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    no_cache: Option<bool>,
    /// A value for templates; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) set: Vec<String>,
    /// A value for templates that is kept out of logs and records; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) set_secret: Vec<String>,
    /// A YAML file of values for templates; it is where the task file is
    #[arg(long, value_name = "FILE")]
    values: Option<String>,
    /// What it is for, as os[/architecture[/variant]]; several, with commas, for a Dockerfile [default: linux/amd64]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// The number of processors that a run wants [default: 2]
    #[arg(long, value_name = "N")]
    cpu: Option<u32>,
    /// After how many seconds of work a run ends [default: 3600]
    #[arg(long, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(i64::from(MIN_TIMEOUT_SECONDS)..=i64::from(MAX_TIMEOUT_SECONDS)))]
    timeout: Option<u32>,
    /// Whether triggers start it [default: enabled]
    #[arg(long, value_enum, ignore_case = true)]
    status: Option<Status>,
    /// The pool whose agents may take its runs [default: default]
    #[arg(long, value_name = "POOL")]
    agent_pool: Option<String>,
    /// Which of two waiting runs goes first: the one of the higher number, from -100 to 100 [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// How many of its runs may be with agents at a time; 0 is any number [default: 0]
    #[arg(long, value_name = "N")]
    concurrency_limit: Option<u32>,
    /// For how many days its runs are kept after their end [default: 30]
    #[arg(long, value_name = "DAYS")]
    run_retention: Option<u32>,
    /// For how many days their logs are kept [default: 30]
    #[arg(long, value_name = "DAYS")]
    log_retention: Option<u32>,
    /// A token for the context's Git host, kept with the task [env, with --context: COOPER_GIT_ACCESS_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    pub(super) git_access_token: Option<String>,
    #[command(flatten)]
    base_image: BaseImageArgs,
    #[command(flatten)]
    pub(super) source: SourceArgs,
}

/// Which changes of base images start a task.
#[derive(Args, Debug)]
struct BaseImageArgs {
    /// Whether a new image under a tag that its builds stand on starts it [default: true]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    base_image_trigger_enabled: Option<bool>,
    /// What the trigger is called [default: defaultBaseimageTriggerName]
    #[arg(long, value_name = "NAME")]
    base_image_trigger_name: Option<String>,
    /// Which bases it follows: those of final stages, or all [default: runtime]
    #[arg(long, value_enum, ignore_case = true, value_name = "TYPE")]
    base_image_trigger_type: Option<Follows>,
    /// Whether it follows the images of cmd steps too [default: false]
    #[arg(long, value_name = "BOOL", value_parser = boolean(), num_args = 0..=1, default_missing_value = "true")]
    base_image_trigger_steps: Option<bool>,
    /// The address that is told of the runs that base images set off; none if it is empty
    #[arg(long, value_name = "URL")]
    update_trigger_endpoint: Option<String>,
    /// How much that is told: what was updated, or a token alone [default: default]
    #[arg(long, value_enum, ignore_case = true, value_name = "TYPE")]
    update_trigger_payload_type: Option<Payload>,
}

/// How much an endpoint is told, in any letter case.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Payload {
    Default,
    Token,
}

/// Which bases a base image trigger follows, in any letter case.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Follows {
    Runtime,
    All,
}

impl BaseImageArgs {
    fn settings(&self) -> Option<BaseImageTriggerSettings> {
        let status = |enabled| if enabled { TaskStatus::Enabled } else { TaskStatus::Disabled };
        let settings = BaseImageTriggerSettings {
            name: self.base_image_trigger_name.clone(),
            base_image_trigger_type: self.base_image_trigger_type.map(|follows| match follows {
                Follows::Runtime => BaseImageTriggerType::Runtime,
                Follows::All => BaseImageTriggerType::All,
            }),
            status: self.base_image_trigger_enabled.map(status),
            follows_steps: self.base_image_trigger_steps,
            update_trigger_endpoint: self.update_trigger_endpoint.clone(),
            update_trigger_payload_type: self.update_trigger_payload_type.map(|payload| match payload {
                Payload::Default => UpdatePayloadType::Default,
                Payload::Token => UpdatePayloadType::Token,
            }),
        };
        (settings != BaseImageTriggerSettings::default()).then_some(settings)
    }
}

impl WhatArgs {
    /// All that is not the step.
    pub(super) fn settings(&self) -> TaskSettings {
        let status = self.status.map(|status| match status {
            Status::Enabled => TaskStatus::Enabled,
            Status::Disabled => TaskStatus::Disabled,
        });
        TaskSettings {
            name: None,
            status,
            step: None,
            platforms: said(&self.platform),
            agent_pool_name: self.agent_pool.clone(),
            cpu: self.cpu,
            timeout: self.timeout,
            priority: self.priority,
            concurrency_limit: self.concurrency_limit,
            run_retention_days: self.run_retention,
            log_retention_days: self.log_retention,
            timers: BTreeMap::new(),
            base_image_trigger: self.base_image.settings(),
            source_triggers: BTreeMap::new(),
        }
    }

    /// Refuses empty values where there is nothing to take away: a variable of a script may have been empty.
    pub(super) fn expect_no_empty_list(&self) -> Result<(), Fault> {
        let mine = [
            ("--image", &self.image),
            ("--arg", &self.arg),
            ("--secret-arg", &self.secret_arg),
            ("--set", &self.set),
            ("--set-secret", &self.set_secret),
            ("--platform", &self.platform),
        ];
        match mine.into_iter().chain(self.source.lists()).find(|(_, list)| list.iter().any(String::is_empty)) {
            Some((flag, _)) => Err(Fault::usage(format!("{flag} is empty"))
                .with_hint("leave it out; `cooper task update` takes away by an empty value what a task has")),
            None => Ok(()),
        }
    }

    /// The step of a new task.
    pub(super) fn step_of_new(&self, environment: &Environment) -> Result<StepSettings, Fault> {
        let context = self.context.clone().ok_or_else(|| {
            Fault::usage("no context is named")
                .with_hint("name a Git repository with --context, or /dev/null for a task without files")
        })?;
        let nowhere = context == "/dev/null";
        let step = match (&self.file, &self.cmd) {
            (None, None) => {
                return Err(Fault::usage("neither a file nor a command is named")
                    .with_hint("name the Dockerfile or task file with --file, or a command with --cmd"));
            }
            (_, Some(_)) => self.encoded(Some(context))?,
            (Some(file), None) if nowhere && self.is_docker(file) => {
                return Err(nothing_to_build(file));
            }
            (Some(_), None) if nowhere => self.encoded(Some(context))?,
            (Some(file), None) if is_task_file(file) => self.file_task(Some(context), Some(file))?,
            (Some(file), None) => self.docker(Some(context), Some(file), environment)?,
        };
        self.expect_fitting(&step)?;
        Ok(step)
    }

    /// Whether a local file is meant as a Dockerfile.
    fn is_docker(&self, file: &str) -> bool {
        !is_task_file(file) && (self.says_docker() || is_dockerfile(file))
    }

    fn says_docker(&self) -> bool {
        !self.image.is_empty()
            || !self.arg.is_empty()
            || !self.secret_arg.is_empty()
            || self.target.is_some()
            || self.no_push.is_some()
            || self.no_cache.is_some()
    }

    fn says_values(&self) -> bool {
        !self.set.is_empty() || !self.set_secret.is_empty() || self.values.is_some()
    }

    /// Refuses flags that the step has no use for.
    fn expect_fitting(&self, step: &StepSettings) -> Result<(), Fault> {
        let (kind, flags, is_fitting) = match step {
            StepSettings::Docker(_) => ("a Dockerfile", "--set, --set-secret and --values are", !self.says_values()),
            StepSettings::FileTask(_) | StepSettings::EncodedTask(_) => (
                "a task file or a command",
                "--image, --arg, --secret-arg, --target, --no-push and --no-cache are",
                !self.says_docker(),
            ),
        };
        match is_fitting {
            true => Ok(()),
            false => Err(Fault::usage(format!("flags are given that mean nothing for {kind}"))
                .with_hint(format!("leave them out: {flags} for the other kind of step"))),
        }
    }

    /// What is said of the step of an existing task.
    pub(super) fn step_of(
        &self,
        earlier: &TaskSettings,
        environment: &Environment,
    ) -> Result<Option<StepSettings>, Fault> {
        let says = self.says_docker()
            || self.says_values()
            || self.context.is_some()
            || self.file.is_some()
            || self.cmd.is_some();
        if !says {
            return Ok(None);
        }
        let context = self.context.clone();
        let stays_nowhere = || match &earlier.step {
            Some(StepSettings::EncodedTask(step)) => step.context_path.is_none(),
            _ => false,
        };
        let nowhere = context.as_ref().map_or_else(stays_nowhere, |context| context == "/dev/null");
        let step = match (&self.file, &self.cmd, &earlier.step) {
            (_, Some(_), _) => self.encoded(context)?,
            (Some(file), None, _) if nowhere && self.is_docker(file) => {
                return Err(nothing_to_build(file));
            }
            (Some(_), None, _) if nowhere => self.encoded(context)?,
            (Some(file), None, _) if is_task_file(file) => self.file_task(context, Some(file))?,
            (Some(file), None, _) => self.docker(context, Some(file), environment)?,
            (None, None, Some(StepSettings::EncodedTask(_))) => self.encoded(context)?,
            (None, None, Some(StepSettings::FileTask(_))) => self.file_task(context, None)?,
            (None, None, Some(StepSettings::Docker(_)) | None) => self.docker(context, None, environment)?,
        };
        self.expect_fitting(&step)?;
        Ok(Some(step))
    }

    fn docker(
        &self,
        context_path: Option<String>,
        file: Option<&String>,
        environment: &Environment,
    ) -> Result<StepSettings, Fault> {
        Ok(StepSettings::Docker(DockerStepSettings {
            context_path,
            docker_file_path: file.cloned(),
            image_names: said(&self.image),
            is_push_enabled: self.no_push.map(|no_push| !no_push),
            no_cache: self.no_cache,
            target: self.target.clone(),
            arguments: match (said(&self.arg), said(&self.secret_arg)) {
                (None, None) => None,
                (plain, secret) => {
                    Some(arguments(&plain.unwrap_or_default(), &secret.unwrap_or_default(), environment)?)
                }
            },
        }))
    }

    fn file_task(&self, context_path: Option<String>, file: Option<&String>) -> Result<StepSettings, Fault> {
        Ok(StepSettings::FileTask(FileStepSettings {
            context_path,
            task_file_path: file.cloned(),
            values_file_path: self.values.clone(),
            values: self.values()?,
        }))
    }

    /// The values of templates, if any flag says something of them.
    fn values(&self) -> Result<Option<Vec<TaskValue>>, Fault> {
        match (said(&self.set), said(&self.set_secret)) {
            (None, None) => Ok(None),
            (plain, secret) => values(&plain.unwrap_or_default(), &secret.unwrap_or_default()).map(Some),
        }
    }

    fn encoded(&self, context_path: Option<String>) -> Result<StepSettings, Fault> {
        let local = match (&self.cmd, &self.file) {
            // The run's own time limit, which `update` changes alone, is the one that counts.
            (Some(command), _) => Some(LocalTask::of_command(command, MAX_TIMEOUT_SECONDS)),
            (None, Some(file)) => Some(LocalTask::read(file, None)?),
            (None, None) => None,
        };
        let values_content = match self.values.as_deref() {
            None => None,
            Some("") => Some(String::new()),
            Some(path) => Some(read_file(Path::new(path), "values file")?),
        };
        Ok(StepSettings::EncodedTask(EncodedStepSettings {
            context_path,
            task_content: local.map(|local| local.file.text),
            values_content,
            values: self.values()?,
        }))
    }
}

/// Whether a file is called as Dockerfiles are.
fn is_dockerfile(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    name.starts_with("dockerfile") || name.ends_with(".dockerfile")
}

fn nothing_to_build(file: &str) -> Fault {
    Fault::usage(format!("context `/dev/null` holds no Dockerfile, and nothing that `{file}` could build")).with_hint(
        "name the Git repository, archive or artifact that holds it with --context; with /dev/null, --file is a task file of \
         this machine",
    )
}

fn is_task_file(file: &str) -> bool {
    file.rsplit_once('.').is_some_and(|(_, ending)| TASK_FILES.contains(&ending.to_ascii_lowercase().as_str()))
}

/// What a flag says that may be repeated: nothing, or all that there is to be, which is none if its values are empty.
pub(super) fn said(list: &[String]) -> Option<Vec<String>> {
    let texts = || list.iter().filter(|text| !text.is_empty()).cloned().collect();
    (!list.is_empty()).then(texts)
}

/// The build arguments of `--arg` and `--secret-arg`.
pub(super) fn arguments(
    plain: &[String],
    secret: &[String],
    environment: &Environment,
) -> Result<Vec<TaskValue>, Fault> {
    let all = plain.iter().map(|text| ("--arg", text, false));
    let all = all.chain(secret.iter().map(|text| ("--secret-arg", text, true)));
    all.map(|(flag, text, is_secret)| {
        let argument = argument(flag, text, is_secret, environment)?;
        Ok(TaskValue { name: argument.name, value: Some(argument.value), is_secret })
    })
    .collect()
}

/// The values of `--set` and `--set-secret`.
pub(super) fn values(set: &[String], set_secret: &[String]) -> Result<Vec<TaskValue>, Fault> {
    let values = read_values(set, set_secret)?.into_iter();
    Ok(values.map(|set| TaskValue { name: set.name, value: Some(set.value), is_secret: set.secret }).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        what: WhatArgs,
    }

    fn flags(line: &[&str]) -> WhatArgs {
        Flags::try_parse_from(["x"].iter().chain(line)).expect("flags").what
    }

    /// What the step of a task becomes by some flags.
    fn step(earlier: &serde_json::Value, line: &[&str]) -> serde_json::Value {
        let task: TaskSettings = serde_json::from_value(json!({ "step": earlier })).expect("a task");
        let step = flags(line).step_of(&task, &Environment::of(&[])).expect("sound");
        serde_json::to_value(step).expect("JSON")
    }

    #[test]
    fn an_empty_value_takes_away_what_a_step_has() {
        let docker = json!({ "type": "Docker", "imageNames": ["a"], "target": "t", "arguments": [{ "name": "A", "value": "1" }] });
        let expect = json!({ "type": "Docker", "imageNames": [], "target": "", "arguments": [] });
        assert_eq!(step(&docker, &["--image", "", "--arg", "", "--target", ""]), expect);
        assert_eq!(step(&docker, &["--secret-arg", ""]), json!({ "type": "Docker", "arguments": [] }));
        assert_eq!(step(&docker, &[]), json!(null));
        let file = json!({ "type": "FileTask", "taskFilePath": "a.yaml", "valuesFilePath": "v.yaml", "values": [] });
        let expect = json!({ "type": "FileTask", "valuesFilePath": "", "values": [] });
        assert_eq!(step(&file, &["--values", "", "--set", ""]), expect);
        let encoded = json!({ "type": "EncodedTask", "taskContent": "steps: []", "valuesContent": "a: b" });
        assert_eq!(step(&encoded, &["--values", ""]), json!({ "type": "EncodedTask", "valuesContent": "" }));
        assert_eq!(flags(&["--platform", ""]).settings().platforms, Some(Vec::new()));
    }

    #[test]
    fn a_values_file_alone_is_taken_into_the_task() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("values.yaml");
        std::fs::write(&path, "a: c\n").expect("written");
        let encoded = json!({ "type": "EncodedTask", "taskContent": "steps: []", "valuesContent": "a: b" });
        let expect = json!({ "type": "EncodedTask", "valuesContent": "a: c\n" });
        assert_eq!(step(&encoded, &["--values", path.to_str().expect("a text")]), expect);
    }

    #[test]
    fn a_new_task_takes_no_empty_value() {
        for flag in ["--image", "--arg", "--set-secret", "--platform", "--path"] {
            let fault = flags(&[flag, ""]).expect_no_empty_list().expect_err(flag);
            assert!(fault.message.contains(flag), "{}", fault.message);
        }
        assert!(flags(&["--image", "a", "--path", "b"]).expect_no_empty_list().is_ok());
    }
}
