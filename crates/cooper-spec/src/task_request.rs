//! A request for a run of a task file, as it is kept until it can be planned, and for those who run it again.
//!
//! Owns what was asked for. Values of secrets are no part of it: the store keeps them encrypted, under [`set_secret_name`].

mod texts;

use std::collections::BTreeMap;

use cooper_types::{Digest, Platform, SecretString};
use serde::{Deserialize, Serialize};

pub use texts::{KeptText, KeptTexts, TextDigest, TextRole, shown_url};

use crate::task::{AliasSource, NamedText, SetValue, TaskInputs};
use crate::template::RunVariables;

/// What a run of a task file was asked to do, but for its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The task file.
    pub file: TaskText,
    /// Where the task file of a source may be besides, where nobody named one: of those that are there the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// The values file.
    pub values: Option<TaskText>,
    /// `--set` and `--set-secret` in their order.
    pub set: Vec<RequestedValue>,
    /// Files that the task file takes aliases from, which came with the request.
    pub alias_files: BTreeMap<String, String>,
    /// What steps run for that don't say it themselves.
    pub platform: Platform,
    /// Where steps work that don't say it themselves.
    pub working_directory: Option<String>,
}

/// A text that came with the request, or lies in the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskText {
    /// It came with the request.
    Given {
        /// What faults call it.
        name: String,
        /// What it holds.
        text: String,
    },
    /// It lies in the source, at this path inside the source's folder.
    InSource(String),
}

/// A value from the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestedValue {
    /// Its name in `.Values`.
    pub name: String,
    /// The value; absent if it is secret.
    pub value: Option<String>,
}

/// What is fetched for a request before it can be planned.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Texts of the source, by their paths.
    pub files: BTreeMap<String, String>,
    /// What alias URLs hold.
    pub urls: BTreeMap<String, String>,
    /// What alias URLs held for the run that is repeated, by the digests of the URLs: these are not asked again.
    pub known_urls: BTreeMap<Digest, String>,
    /// The values of `--set-secret`, by name.
    pub set_secrets: BTreeMap<String, SecretString>,
    /// The values of the file's secrets, by id.
    pub secrets: BTreeMap<String, SecretString>,
    /// Where these came from, and in which version.
    pub used_secrets: Vec<UsedSecret>,
    /// The operator's image aliases.
    pub image_aliases: BTreeMap<String, String>,
    /// What is to be told of all this in the run's log.
    pub notes: Vec<String>,
}

/// Where the value of a file's secret came from. The value is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedSecret {
    /// Its name in `.Secrets`.
    pub id: String,
    /// Who gave it, for people.
    pub provider: String,
    /// Where it is, as the task file says it.
    pub asked: String,
    /// The same with the version that it had, where such places have versions.
    pub place: String,
    /// What tells this value from others of the same place.
    pub version: SecretVersion,
}

/// What tells a secret's value from others of the same place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretVersion {
    /// The place's own name for it: the same value can be had again.
    Kept(String),
    /// The place has no versions. This text, keyed with the server's key, differs when the value does.
    Fingerprint(String),
}

/// Something that a request names is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingText {
    /// The task file that nobody named.
    #[error("the source has no task file: none of its files is {}; name one relative to the source's folder with -f", .0.join(" or "))]
    TaskFile(Vec<String>),
    /// A file of the source.
    #[error("the source has no file `{0}`; name it relative to the source's folder, with `/` between its parts")]
    File(String),
    /// The value of a secret that came with the request.
    #[error("the value of `--set-secret {0}` is gone")]
    Value(String),
}

/// Under which name a run's secrets keep the value of `--set-secret NAME=…`.
pub fn set_secret_name(name: &str) -> String {
    format!("set/{name}")
}

impl TaskText {
    /// The path of the source that it is at.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Given { .. } => None,
            Self::InSource(path) => Some(path),
        }
    }

    fn read(&self, fetched: &Fetched) -> Result<NamedText, MissingText> {
        match self {
            Self::Given { name, text } => Ok(NamedText { name: name.clone(), text: text.clone() }),
            Self::InSource(path) => match fetched.files.get(path) {
                Some(text) => Ok(NamedText { name: path.clone(), text: text.clone() }),
                None => Err(MissingText::File(path.clone())),
            },
        }
    }
}

impl TaskRequest {
    /// The files of the source that are needed first.
    pub fn files_of_source(&self) -> Vec<String> {
        let texts = std::iter::once(&self.file).chain(&self.values);
        texts.filter_map(TaskText::path).map(str::to_owned).collect()
    }

    /// Where in the source the task file is, if it is there.
    pub fn file_in_source(&self, is_there: impl Fn(&str) -> bool) -> Option<&str> {
        let paths = self.file.path().into_iter().chain(self.fallbacks.iter().map(String::as_str));
        paths.into_iter().find(|path| is_there(path))
    }

    fn task_file(&self, fetched: &Fetched) -> Result<NamedText, MissingText> {
        match (self.file_in_source(|path| fetched.files.contains_key(path)), self.file.path()) {
            (Some(path), _) => TaskText::InSource(path.to_owned()).read(fetched),
            (None, Some(path)) if !self.fallbacks.is_empty() => {
                let tried = std::iter::once(path).chain(self.fallbacks.iter().map(String::as_str));
                Err(MissingText::TaskFile(tried.map(|path| format!("`{path}`")).collect()))
            }
            (None, _) => self.file.read(fetched),
        }
    }

    /// Whether the task file is planned from what came with the request alone.
    pub fn is_whole(&self) -> bool {
        self.files_of_source().is_empty()
    }

    /// Everything that decides what the file means, from what has been fetched.
    pub fn inputs(&self, run: RunVariables, fetched: &Fetched) -> Result<TaskInputs, MissingText> {
        let set = self.set.iter().map(|set| {
            let value = match &set.value {
                Some(value) => value.clone(),
                None => {
                    let value = fetched.set_secrets.get(&set.name);
                    value.ok_or_else(|| MissingText::Value(set.name.clone()))?.expose().to_owned()
                }
            };
            Ok(SetValue { name: set.name.clone(), value, secret: set.value.is_none() })
        });
        // What came with the request comes before what the source has under the same name.
        let mut alias_sources = fetched.files.clone();
        alias_sources.extend(self.alias_files.clone());
        alias_sources.extend(fetched.urls.clone());
        Ok(TaskInputs {
            file: self.task_file(fetched)?,
            values: self.values.as_ref().map(|values| values.read(fetched)).transpose()?,
            set: set.collect::<Result<_, MissingText>>()?,
            alias_sources,
            image_aliases: fetched.image_aliases.clone(),
            run,
            secrets: fetched.secrets.clone(),
            working_directory: self.working_directory.clone(),
            environment: Vec::new(),
        })
    }
}

/// The URLs among a task file's alias sources.
pub fn alias_urls(sources: &[AliasSource]) -> impl Iterator<Item = &str> {
    sources.iter().filter_map(|source| match source {
        AliasSource::Url(url) => Some(url.as_str()),
        AliasSource::File(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request for the task file of a source in which these files are.
    fn asked(file: &str, fallbacks: &[&str], there: &[&str]) -> Result<String, String> {
        let request = TaskRequest {
            file: TaskText::InSource(file.to_owned()),
            fallbacks: fallbacks.iter().map(|path| (*path).to_owned()).collect(),
            values: None,
            set: Vec::new(),
            alias_files: BTreeMap::new(),
            platform: Platform::LINUX_AMD64,
            working_directory: None,
        };
        let json = serde_json::to_string(&request).expect("json");
        assert_eq!(serde_json::from_str::<TaskRequest>(&json).expect("its own form"), request);
        assert_eq!(json.contains("fallbacks"), !fallbacks.is_empty(), "earlier ones know nothing of them: {json}");
        let files = there.iter().map(|path| ((*path).to_owned(), format!("# {path}")));
        let fetched = Fetched { files: files.collect(), ..Fetched::default() };
        request.task_file(&fetched).map(|file| file.name).map_err(|error| error.to_string())
    }

    #[test]
    fn the_first_of_the_default_names_counts_where_none_is_named() {
        assert_eq!(asked("a", &["b"], &["b", "a"]).as_deref(), Ok("a"));
        assert_eq!(asked("a", &["b"], &["b"]).as_deref(), Ok("b"));
        let none = asked("a", &["b"], &["c"]).expect_err("it is not there");
        assert!(none.contains("none of its files is `a` or `b`; name one"), "{none}");
        let named = asked("a", &[], &["b"]).expect_err("it is not there");
        assert!(named.contains("the source has no file `a`"), "{named}");
    }
}
