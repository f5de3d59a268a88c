//! Task files on this machine: what the commands that read them share.
//!
//! Owns the flags, the reading of files, and how faults are shown. Nothing here asks a server or a network.

mod faults;
mod files;
mod local;
mod planned;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use cooper_spec::task::{self, AliasSource, ImageAlias, Loaded, NamedText, SetValue, TaskInputs};
use cooper_spec::template::RunVariables;
use cooper_types::{Platform, RegistryName, RunId, SecretString, Timestamp};

use crate::fault::{Fault, Stop};

pub(crate) use faults::{show_faults, show_warnings};
pub(crate) use files::{read as read_file, read_or_stdin};
pub(crate) use local::LocalTask;

/// What is shown in place of a secret.
const MASK: &str = "***";

/// A task file and what it is read with.
#[derive(Args, Debug)]
pub(crate) struct TaskFileArgs {
    /// The task file, or - for standard input
    #[arg(value_name = "FILE")]
    file: String,
    /// A YAML file of values for templates
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// A value for templates, over the file's
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A value for templates that is not shown
    #[arg(long, value_name = "NAME=VALUE")]
    set_secret: Vec<String>,
    /// The folder that alias files are in; the task file's own if absent
    #[arg(long, value_name = "FOLDER")]
    source: Option<PathBuf>,
    /// A copy of what a URL holds that the file takes aliases from
    #[arg(long, value_name = "URL=FILE")]
    alias_source: Vec<String>,
    /// An image alias of the server
    #[arg(long, value_name = "NAME=IMAGE")]
    image_alias: Vec<String>,
    // Whether it is said counts, too: it is no default value of clap's.
    #[arg(
        long,
        value_name = "NAME",
        help = "What the registry is called, for `.Run.Registry` [default: localhost:5000]"
    )]
    registry_name: Option<String>,
    /// What the run is for
    #[arg(long, value_name = "PLATFORM", default_value = "linux/amd64")]
    platform: String,
}

impl TaskFileArgs {
    /// Reads everything that the flags name.
    pub(crate) fn inputs(&self) -> Result<TaskInputs, Stop> {
        let registry = self.registry_name.as_deref().unwrap_or(local::SOME_REGISTRY);
        let registry = RegistryName::parse(registry).map_err(|error| Fault::usage(error.to_string()))?;
        let platform = Platform::parse(&self.platform).map_err(|error| Fault::usage(error.to_string()))?;
        // An example's number and time: the same file is always read the same.
        let created = Timestamp::from_micros(946_684_800_000_000);
        let values = match &self.values {
            Some(path) => Some(NamedText { name: path.display().to_string(), text: files::read(path, "values file")? }),
            None => None,
        };
        let file = NamedText { name: self.file.clone(), text: files::read_or_stdin(&self.file, "task file")? };
        let run = RunVariables::quick_build(RunId::from_number(1), &registry, &platform, created);
        let mut inputs = TaskInputs {
            values,
            set: read_values(&self.set, &self.set_secret)?,
            image_aliases: image_aliases(&self.image_alias)?,
            ..TaskInputs::new(file, run)
        };
        for (url, path) in pairs(&self.alias_source, "--alias-source", "URL=FILE")? {
            inputs.alias_sources.insert(url, files::read(path.as_ref(), "alias source")?);
        }
        Ok(inputs)
    }

    /// Reads the alias files that the task file names, and gives secrets that it names a stand-in. What can't be read is left
    /// out: loading says so, at the place that names it.
    pub(crate) fn complete(&self, inputs: &mut TaskInputs) -> Result<(), task::Faults> {
        let folder = match &self.source {
            Some(folder) => folder.clone(),
            None => PathBuf::from(&self.file).parent().map(PathBuf::from).unwrap_or_default(),
        };
        read_alias_files(inputs, &folder)?;
        stand_in_for_secrets(inputs)
    }

    /// Looks for what a run of the file would be refused for.
    pub(crate) fn check_plan(&self, inputs: &TaskInputs, loaded: &Loaded) -> Result<(), task::Faults> {
        planned::check(inputs, &loaded.task, self.registry_name.is_some())
    }

    /// Loads the file, or shows what is wrong with it; warnings are shown in any case.
    pub(crate) fn load(&self) -> Result<Option<(TaskInputs, Loaded)>, Stop> {
        let mut inputs = self.inputs()?;
        match self.complete(&mut inputs).and_then(|()| task::load(&inputs)) {
            Ok(loaded) => {
                show_warnings(&loaded.warnings);
                Ok(Some((inputs, loaded)))
            }
            Err(faults) => {
                show_faults(&faults);
                Ok(None)
            }
        }
    }
}

/// The values of `--set` and `--set-secret`.
pub(crate) fn read_values(set: &[String], set_secret: &[String]) -> Result<Vec<SetValue>, Fault> {
    let parse = |flag: &str, text: &String, secret| {
        SetValue::parse(text, secret).map_err(|error| Fault::usage(format!("{flag}: {error}")))
    };
    let plain = set.iter().map(|text| parse("--set", text, false));
    plain.chain(set_secret.iter().map(|text| parse("--set-secret", text, true))).collect()
}

/// The values of `--image-alias`.
fn image_aliases(texts: &[String]) -> Result<BTreeMap<String, String>, Fault> {
    let parse = |text: &String| match ImageAlias::parse(text) {
        Ok(alias) => Ok((alias.name, alias.image)),
        Err(error) => Err(Fault::usage(format!("--image-alias: {error}"))),
    };
    texts.iter().map(parse).collect()
}

/// Texts that are `NAME=VALUE`; a URL may hold `=` itself, and a file's name hardly does.
fn pairs(texts: &[String], flag: &str, form: &str) -> Result<Vec<(String, String)>, Fault> {
    let pair = |text: &String| match text.rsplit_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Fault::usage(format!("{flag} `{text}` is not {form}"))),
    };
    texts.iter().map(pair).collect()
}

/// Reads the alias files that the task file names, relative to a folder; what can't be read is left out.
fn read_alias_files(inputs: &mut TaskInputs, folder: &Path) -> Result<(), task::Faults> {
    for source in task::alias_sources(inputs)? {
        if let AliasSource::File(path) = &source
            && let Ok(text) = files::read(&folder.join(path), "alias source")
        {
            inputs.alias_sources.entry(path.clone()).or_insert(text);
        }
    }
    Ok(())
}

/// Gives the secrets that the task file names a stand-in.
fn stand_in_for_secrets(inputs: &mut TaskInputs) -> Result<(), task::Faults> {
    for secret in task::wanted_secrets(inputs)? {
        inputs.secrets.insert(secret.id, SecretString::new(task::SECRET_STAND_IN.to_owned()));
    }
    Ok(())
}

/// A text without the values of secrets.
pub(crate) fn masked(text: &str, inputs: &TaskInputs) -> String {
    inputs.masked().into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
}

/// JSON without the values of secrets.
pub(crate) fn masked_json(value: &mut serde_json::Value, inputs: &TaskInputs) {
    match value {
        serde_json::Value::String(text) => *text = masked(text, inputs),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| masked_json(item, inputs)),
        serde_json::Value::Object(entries) => entries.values_mut().for_each(|value| masked_json(value, inputs)),
        _ => {}
    }
}
