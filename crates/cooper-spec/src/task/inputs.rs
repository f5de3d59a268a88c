//! What a task file is loaded with: its text and everything that has been fetched for it before.

use std::collections::BTreeMap;

use cooper_types::SecretString;

use crate::secret_place::SecretPlace;
use crate::template::RunVariables;

use super::fault::{Fault, Place};
use super::model::Task;

/// A text and the name that its faults are told under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedText {
    /// A path, as its user wrote it.
    pub name: String,
    /// What stands in it.
    pub text: String,
}

/// Everything that decides what a task file means.
#[derive(Clone, Debug)]
pub struct TaskInputs {
    /// The task file.
    pub file: NamedText,
    /// The values file.
    pub values: Option<NamedText>,
    /// `--set` and `--set-secret`, in the order that they were given: the last one of a name counts.
    pub set: Vec<SetValue>,
    /// What the files and URLs hold that [`alias_sources`](super::alias_sources) names, by name as it stands there.
    pub alias_sources: BTreeMap<String, String>,
    /// The operator's image aliases, such as `bash`.
    pub image_aliases: BTreeMap<String, String>,
    /// `.Run`
    pub run: RunVariables,
    /// `.Secrets`, by id.
    pub secrets: BTreeMap<String, SecretString>,
    /// Where steps start that don't say it themselves.
    pub working_directory: Option<String>,
    /// `NAME=VALUE` for each step that does not set the name itself, nor the task.
    pub environment: Vec<String>,
}

/// The shortest value of a secret that is looked for in what is told: a shorter one would be found everywhere.
const SHORTEST_MASKED: usize = 3;

impl TaskInputs {
    /// A file with nothing but what its run is.
    pub fn new(file: NamedText, run: RunVariables) -> Self {
        Self {
            file,
            values: None,
            set: Vec::new(),
            alias_sources: BTreeMap::new(),
            image_aliases: BTreeMap::new(),
            run,
            secrets: BTreeMap::new(),
            working_directory: None,
            environment: Vec::new(),
        }
    }

    /// The values of secrets that must not be seen in what is told of the file, the longest first.
    pub fn masked(&self) -> Vec<&str> {
        let of_set = self.set.iter().filter(|set| set.secret).map(|set| set.value.as_str());
        let mut values: Vec<&str> = self.secrets.values().map(SecretString::expose).chain(of_set).collect();
        values.retain(|value| value.len() >= SHORTEST_MASKED);
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values
    }
}

/// A value from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetValue {
    /// Its name in `.Values`.
    pub name: String,
    /// Always a text.
    pub value: String,
    /// Whether it may be shown.
    pub secret: bool,
}

/// Why a text sets no value. What stands in it may be secret, and is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetValueError {
    /// There is no `=`.
    #[error("a value has no `=`; write NAME=VALUE")]
    NoValue,
    /// Nothing stands before it.
    #[error("a value has no name; write NAME=VALUE")]
    NoName,
}

/// A place from which aliases come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AliasSource {
    /// A file, relative to the source's root.
    File(String),
    /// An `http` or `https` URL.
    Url(String),
}

/// A secret that a task file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedSecret {
    /// Its name in `.Secrets`.
    pub id: String,
    /// Where it is kept.
    pub keyvault: SecretPlace,
    /// The identity to ask with; a UUID.
    pub client_id: Option<String>,
}

/// A task file, loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it says.
    pub task: Task,
    /// What its author should know, and what stops nothing.
    pub warnings: Vec<Fault>,
    /// The text after aliases and templates. It holds the values of secrets.
    pub rendered: String,
    /// For each step, where it says what it does. A line that a template made may show the values of secrets.
    pub(crate) places: Vec<Place>,
}

/// A task file after aliases and templates.
#[derive(Clone, Debug)]
pub struct RenderedText {
    /// The text as its steps run it: image aliases at the beginning of a `cmd` too. It holds the values of secrets.
    pub text: String,
    /// What its author should know.
    pub warnings: Vec<Fault>,
}

impl SetValue {
    /// Reads `NAME=VALUE`.
    pub fn parse(text: &str, secret: bool) -> Result<Self, SetValueError> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned(), secret })
            }
            Some(_) => Err(SetValueError::NoName),
            None => Err(SetValueError::NoValue),
        }
    }
}

impl AliasSource {
    /// The text that the file has.
    pub fn as_str(&self) -> &str {
        match self {
            Self::File(text) | Self::Url(text) => text,
        }
    }

    pub(super) fn parse(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        match lower.starts_with("http://") || lower.starts_with("https://") {
            true => Self::Url(text.to_owned()),
            false => Self::File(text.to_owned()),
        }
    }
}
