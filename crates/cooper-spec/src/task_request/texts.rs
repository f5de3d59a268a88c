//! The texts that a run of a task file was planned from, apart from the request: they are large, and kept for a time.
//!
//! Owns their kept form, in which no URL stands with its query: that may be a signature.

use std::collections::BTreeMap;

use cooper_types::Digest;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Fetched, TaskRequest, TaskText};

/// All texts that a planning read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeptTexts(pub Vec<KeptText>);

/// One text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptText {
    /// What it was read as.
    pub role: TextRole,
    /// What people call it.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// What is known of a text when it is kept no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextDigest {
    /// What it was read as.
    pub role: TextRole,
    /// What people call it.
    pub name: String,
    /// The digest of what it holds.
    pub digest: Digest,
}

/// What a text was read as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TextRole {
    /// The task file, which came with the request.
    TaskFile,
    /// The values file, which came with the request.
    ValuesFile,
    /// A file for aliases, which came with the request.
    AliasFile,
    /// A file of the source.
    Source,
    /// What was behind a URL.
    AliasUrl {
        /// The digest of the whole URL, its query included.
        url: Digest,
    },
}

impl KeptTexts {
    /// What is kept of what a planning read: all but values of secrets.
    pub fn of(request: &TaskRequest, fetched: &Fetched) -> Self {
        let mut texts = Vec::new();
        let mut keep = |role: TextRole, name: &str, text: &str| {
            texts.push(KeptText { role, name: name.to_owned(), text: text.to_owned() });
        };
        let given = [(TextRole::TaskFile, Some(&request.file)), (TextRole::ValuesFile, request.values.as_ref())];
        for (role, text) in given {
            if let Some(TaskText::Given { name, text }) = text {
                keep(role, name, text);
            }
        }
        request.alias_files.iter().for_each(|(name, text)| keep(TextRole::AliasFile, name, text));
        fetched.files.iter().for_each(|(name, text)| keep(TextRole::Source, name, text));
        for (url, text) in &fetched.urls {
            keep(TextRole::AliasUrl { url: Digest::sha256(url.as_bytes()) }, &shown_url(url), text);
        }
        Self(texts)
    }

    /// The files of the source, by their paths.
    pub fn files(&self) -> BTreeMap<String, String> {
        let files = self.0.iter().filter(|text| text.role == TextRole::Source);
        files.map(|text| (text.name.clone(), text.text.clone())).collect()
    }

    /// What URLs held, by their digests.
    pub fn urls(&self) -> BTreeMap<Digest, String> {
        let of_url = |text: &KeptText| match &text.role {
            TextRole::AliasUrl { url } => Some((url.clone(), text.text.clone())),
            TextRole::TaskFile | TextRole::ValuesFile | TextRole::AliasFile | TextRole::Source => None,
        };
        self.0.iter().filter_map(of_url).collect()
    }

    /// Those of URLs alone.
    #[must_use]
    pub fn only_urls(&self) -> Self {
        Self(self.0.iter().filter(|text| matches!(text.role, TextRole::AliasUrl { .. })).cloned().collect())
    }

    /// What stays known of them.
    pub fn digests(&self) -> Vec<TextDigest> {
        let digest = |text: &KeptText| TextDigest {
            role: text.role.clone(),
            name: text.name.clone(),
            digest: Digest::sha256(text.text.as_bytes()),
        };
        self.0.iter().map(digest).collect()
    }
}

impl TaskRequest {
    /// The request without the texts that came with it: their names stay.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        let mut request = self.clone();
        for text in [Some(&mut request.file), request.values.as_mut()].into_iter().flatten() {
            if let TaskText::Given { text, .. } = text {
                text.clear();
            }
        }
        request.alias_files.clear();
        request
    }

    /// The request as it came, with its texts.
    #[must_use]
    pub fn with_texts(mut self, texts: &KeptTexts) -> Self {
        for kept in &texts.0 {
            let place = match kept.role {
                TextRole::TaskFile => Some(&mut self.file),
                TextRole::ValuesFile => self.values.as_mut(),
                TextRole::AliasFile => {
                    self.alias_files.insert(kept.name.clone(), kept.text.clone());
                    None
                }
                TextRole::Source | TextRole::AliasUrl { .. } => None,
            };
            if let Some(TaskText::Given { text, .. }) = place {
                text.clone_from(&kept.text);
            }
        }
        self
    }
}

/// A URL for people: without what may be secret.
pub fn shown_url(url: &str) -> String {
    let without_query = || url.split(['?', '#']).next().unwrap_or_default().to_owned();
    let Ok(mut parsed) = Url::parse(url) else { return without_query() };
    parsed.set_query(None);
    parsed.set_fragment(None);
    // A URL that can have no user has none.
    let bare = parsed.set_username("").and_then(|()| parsed.set_password(None));
    bare.map_or_else(|()| without_query(), |()| parsed.to_string())
}

#[cfg(test)]
mod tests {
    use cooper_types::Platform;

    use super::*;

    #[test]
    fn requests_are_put_together_again_and_no_query_is_kept() {
        let given = |name: &str, text: &str| TaskText::Given { name: name.to_owned(), text: text.to_owned() };
        let request = TaskRequest {
            file: given("acr-task.yaml", "steps: []"),
            fallbacks: Vec::new(),
            values: Some(given("values.yaml", "a: b")),
            set: Vec::new(),
            alias_files: BTreeMap::from([("aliases.yaml".to_owned(), "c: d".to_owned())]),
            platform: Platform::LINUX_AMD64,
            working_directory: None,
        };
        let url = "https://ci:pass@h.io/x@1/a.yaml?sig=hunter2#part";
        let fetched = Fetched {
            files: BTreeMap::from([("other.yaml".to_owned(), "e: f".to_owned())]),
            urls: BTreeMap::from([(url.to_owned(), "g: h".to_owned())]),
            ..Fetched::default()
        };
        let texts = KeptTexts::of(&request, &fetched);
        assert_eq!(request.without_texts().with_texts(&texts), request);
        assert_eq!(texts.files(), fetched.files);
        assert_eq!(texts.urls(), BTreeMap::from([(Digest::sha256(url.as_bytes()), "g: h".to_owned())]));
        let bare = serde_json::to_string(&request.without_texts()).expect("json");
        assert!(!["steps", "a: b", "c: d"].iter().any(|text| bare.contains(text)), "{bare}");
        let json = serde_json::to_string(&texts).expect("json");
        assert!(!["hunter2", "pass", "part"].iter().any(|secret| json.contains(secret)), "{json}");
        assert_eq!(serde_json::from_str::<KeptTexts>(&json).expect("its own form"), texts);
        let names: Vec<String> = texts.digests().into_iter().map(|text| text.name).collect();
        let expect = ["acr-task.yaml", "values.yaml", "aliases.yaml", "other.yaml", "https://h.io/x@1/a.yaml"];
        assert_eq!(names, expect);
        assert_eq!(texts.only_urls().0.len(), 1);
    }
}
