//! Fields of a delivery by their paths: each is there, missing or wrong, and errors say which.

use cooper_engine::trigger::event::{ChangedFiles, FileChange, MAX_MESSAGE, MAX_TEXT};
use cooper_engine::trigger::name::{CommitId, ObjectId, RefName};
use cooper_engine::trigger::provider::Provider;
use cooper_engine::trigger::repository::RepositoryUrl;
use serde_json::Value;

use super::MAX_ITEMS;
use super::error::ParseError;

/// A part of a delivery, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    provider: Provider,
    event: String,
    /// The path from the body to here, with a dot at its end.
    prefix: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn root(provider: Provider, event: &str, value: &'a Value) -> Self {
        Self { provider, event: cut_text(event), prefix: String::new(), value }
    }

    /// What is at this path of names with dots between; null is nothing.
    fn at(&self, path: &str) -> Option<&'a Value> {
        let mut value = self.value;
        for name in path.split('.') {
            value = value.get(name)?;
        }
        (!value.is_null()).then_some(value)
    }

    fn field(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(super) fn missing(&self, path: &str) -> ParseError {
        ParseError::Missing { provider: self.provider, event: self.event.clone(), field: self.field(path) }
    }

    pub(super) fn invalid(&self, path: &str, reason: impl ToString) -> ParseError {
        ParseError::Invalid {
            provider: self.provider,
            event: self.event.clone(),
            field: self.field(path),
            reason: reason.to_string(),
        }
    }

    pub(super) fn too_many(&self) -> ParseError {
        ParseError::TooMany { provider: self.provider, event: self.event.clone() }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    /// The part at this path.
    pub(super) fn part(&self, path: &str) -> Option<Self> {
        let value = self.at(path)?;
        Some(Self {
            provider: self.provider,
            event: self.event.clone(),
            prefix: format!("{}.", self.field(path)),
            value,
        })
    }

    pub(super) fn needed_part(&self, path: &str) -> Result<Self, ParseError> {
        self.part(path).ok_or_else(|| self.missing(path))
    }

    /// The items of a list, the first of a very long one; none if there is no list.
    pub(super) fn items(&self, path: &str) -> Result<Vec<Self>, ParseError> {
        let Some(value) = self.at(path) else { return Ok(Vec::new()) };
        let list = value.as_array().ok_or_else(|| self.invalid(path, "it is no list"))?;
        let item = |(index, value)| Self {
            provider: self.provider,
            event: self.event.clone(),
            prefix: format!("{}[{index}].", self.field(path)),
            value,
        };
        Ok(list.iter().take(MAX_ITEMS).enumerate().map(item).collect())
    }

    /// The values of a list.
    pub(super) fn list(&self, path: &str) -> Result<Option<&'a [Value]>, ParseError> {
        match self.at(path) {
            None => Ok(None),
            Some(value) => match value.as_array() {
                Some(list) => Ok(Some(list)),
                None => Err(self.invalid(path, "it is no list")),
            },
        }
    }

    /// A text, however long.
    pub(super) fn text(&self, path: &str) -> Result<Option<&'a str>, ParseError> {
        match self.at(path) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.invalid(path, "it is no text")),
        }
    }

    pub(super) fn needed_text(&self, path: &str) -> Result<&'a str, ParseError> {
        self.text(path)?.ok_or_else(|| self.missing(path))
    }

    /// A text for people, cut to its limit; what is no text is none.
    pub(super) fn label(&self, path: &str) -> Option<String> {
        self.at(path)?.as_str().filter(|text| !text.is_empty()).map(cut_text)
    }

    /// A commit's message, cut to its limit.
    pub(super) fn message(&self, path: &str) -> Option<String> {
        self.at(path)?.as_str().map(cut_message)
    }

    pub(super) fn flag(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn count(&self, path: &str) -> Option<u64> {
        self.at(path)?.as_u64()
    }

    pub(super) fn number(&self, path: &str) -> Result<u64, ParseError> {
        let value = self.at(path).ok_or_else(|| self.missing(path))?;
        value.as_u64().ok_or_else(|| self.invalid(path, "it is no whole number"))
    }

    /// A commit, where zeros and nothing are none.
    pub(super) fn object(&self, path: &str) -> Result<Option<CommitId>, ParseError> {
        let Some(text) = self.text(path)? else { return Ok(None) };
        ObjectId::parse(text).map(ObjectId::commit).map_err(|error| self.invalid(path, error))
    }

    pub(super) fn commit(&self, path: &str) -> Result<CommitId, ParseError> {
        CommitId::parse(self.needed_text(path)?).map_err(|error| self.invalid(path, error))
    }

    /// The name of a branch or a tag, with or without `refs/heads/`.
    pub(super) fn branch(&self, path: &str) -> Result<RefName, ParseError> {
        let text = self.needed_text(path)?;
        self.name(path, text.strip_prefix("refs/heads/").unwrap_or(text))
    }

    /// A name that was found at this path.
    pub(super) fn name(&self, path: &str, name: &str) -> Result<RefName, ParseError> {
        RefName::parse(name).map_err(|error| self.invalid(path, error))
    }

    /// The URLs at these paths, those that are some.
    pub(super) fn urls(&self, paths: &[&str]) -> Vec<RepositoryUrl> {
        let mut urls: Vec<RepositoryUrl> = Vec::new();
        for path in paths {
            let Some(text) = self.at(path).and_then(Value::as_str) else { continue };
            if let Ok(url) = RepositoryUrl::parse(text)
                && !urls.contains(&url)
            {
                urls.push(url);
            }
        }
        urls
    }

    /// Notes the files of the lists `added`, `modified` and `removed`, and says how many there are.
    pub(super) fn note_files(&self, files: &mut ChangedFiles) -> usize {
        let lists =
            [("added", FileChange::Added), ("modified", FileChange::Modified), ("removed", FileChange::Removed)];
        let mut count = 0;
        for (name, change) in lists {
            let Some(list) = self.at(name).and_then(Value::as_array) else {
                files.is_missing_some();
                continue;
            };
            count += list.len();
            for path in list {
                match path.as_str() {
                    Some(path) => files.note(path, change),
                    None => files.is_missing_some(),
                }
            }
        }
        count
    }
}

/// A text for people, cut to its limit.
pub(super) fn cut_text(text: &str) -> String {
    cut(text, MAX_TEXT).to_owned()
}

/// A commit's message. Of a long one the beginning and the end are kept: what asks for no run is in one of them.
pub(super) fn cut_message(text: &str) -> String {
    const END: usize = MAX_MESSAGE / 4;
    const GAP: &str = "\n…\n";
    // A character that nobody sees takes six in the store.
    let plain = |part: &str| part.replace(|char: char| char.is_ascii_control() && char != '\n', " ");
    if text.len() <= MAX_MESSAGE {
        return plain(text);
    }
    let end = &text[text.ceil_char_boundary(text.len() - END)..];
    format!("{}{GAP}{}", plain(cut(text, MAX_MESSAGE - END - GAP.len())), plain(end))
}

/// The beginning of a text that has at most so many bytes.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}
