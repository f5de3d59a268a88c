//! Calls to the embedded registry that list and delete: ACR's `/acr/v1`, and deletion under `/v2`.

use cooper_types::{Digest, Timestamp};
use reqwest::Method;
use reqwest::header::IF_MATCH;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::call::{Http, Login};
use crate::{ClientError, ServerUrl, Trust};

/// How many tags or manifests are asked for at once.
const PAGE: u32 = 500;

/// A client of one registry with one login. Clones share connections.
#[derive(Clone, Debug)]
pub struct RegistryClient {
    http: Http,
}

/// A tag as the registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTag {
    /// Its name.
    pub name: String,
    /// Where it points.
    pub digest: Digest,
    /// When it was last pushed.
    pub updated: Timestamp,
    /// Whether it may not be deleted or written.
    pub is_locked: bool,
}

/// A manifest as the registry lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type; empty if the registry says none.
    pub media_type: String,
    /// When it was last pushed, or got a tag.
    pub updated: Timestamp,
    /// How many bytes it and its blobs have.
    pub size: u64,
    /// Some of its tags; none if it has none.
    pub tags: Vec<String>,
    /// The manifests that it is an index of.
    pub manifests: Vec<Digest>,
    /// The manifest that it is about.
    pub subject: Option<Digest>,
    /// Whether a run has pushed it and is not over.
    pub is_staged: bool,
    /// Whether it may not be deleted or written.
    pub is_locked: bool,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct Tags {
    #[serde(default)]
    tags: Vec<TagText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TagText {
    name: String,
    digest: String,
    last_update_time: String,
    #[serde(default)]
    changeable_attributes: Attributes,
}

#[derive(Deserialize)]
struct Manifests {
    #[serde(default)]
    manifests: Vec<ManifestText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestText {
    digest: String,
    #[serde(default)]
    media_type: String,
    last_update_time: String,
    #[serde(default)]
    image_size: u64,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    references: Vec<ReferenceText>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    staged: bool,
    #[serde(default)]
    changeable_attributes: Attributes,
}

#[derive(Deserialize)]
struct ReferenceText {
    digest: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attributes {
    delete_enabled: Option<bool>,
    write_enabled: Option<bool>,
}

impl Attributes {
    fn is_locked(&self) -> bool {
        self.delete_enabled == Some(false) || self.write_enabled == Some(false)
    }
}

impl RegistryClient {
    /// A client of the registry at `server`.
    pub fn new(server: ServerUrl, login: Login, trust: &Trust) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(server, login, trust)? })
    }

    /// The repositories that the login may see, asked for in pages of `page`, and the registry's time.
    pub async fn repositories(&self, page: u32) -> Result<(Vec<String>, Timestamp), ClientError> {
        let mut names = Vec::new();
        let mut now = None;
        let path = format!("/acr/v1/_catalog?n={}", page.max(1));
        self.pages(path, |part: Repositories, date| {
            names.extend(part.repositories);
            now = now.or(date);
            Ok(())
        })
        .await?;
        let now = now.ok_or_else(|| self.http.protocol("it bears no time".to_owned(), false))?;
        // Times are told in whole seconds: what was pushed in this one is not from the future.
        Ok((names, Timestamp::from_micros((now + 1).saturating_mul(1_000_000))))
    }

    /// All tags of a repository.
    pub async fn tags(&self, repository: &str) -> Result<Vec<ListedTag>, ClientError> {
        let mut tags = Vec::new();
        self.pages(format!("/acr/v1/{repository}/_tags?n={PAGE}"), |part: Tags, _| {
            for tag in part.tags {
                tags.push(ListedTag {
                    digest: self.digest(&tag.digest)?,
                    updated: self.time(&tag.last_update_time)?,
                    is_locked: tag.changeable_attributes.is_locked(),
                    name: tag.name,
                });
            }
            Ok(())
        })
        .await?;
        Ok(tags)
    }

    /// All manifests of a repository.
    pub async fn manifests(&self, repository: &str) -> Result<Vec<ListedManifest>, ClientError> {
        let mut manifests = Vec::new();
        self.pages(format!("/acr/v1/{repository}/_manifests?n={PAGE}"), |part: Manifests, _| {
            for it in part.manifests {
                manifests.push(ListedManifest {
                    digest: self.digest(&it.digest)?,
                    updated: self.time(&it.last_update_time)?,
                    is_locked: it.changeable_attributes.is_locked(),
                    media_type: it.media_type,
                    size: it.image_size,
                    tags: it.tags,
                    manifests: it.references.iter().map(|part| self.digest(&part.digest)).collect::<Result<_, _>>()?,
                    subject: it.subject.as_deref().map(|subject| self.digest(subject)).transpose()?,
                    is_staged: it.staged,
                });
            }
            Ok(())
        })
        .await?;
        Ok(manifests)
    }

    /// Deletes a tag; only if it points to `digest` and was pushed last at `updated`, where these are said.
    pub async fn delete_tag(
        &self,
        repository: &str,
        tag: &str,
        digest: Option<&Digest>,
        updated: Option<Timestamp>,
    ) -> Result<(), ClientError> {
        let updated = updated.map(|updated| format!("?updated={updated}")).unwrap_or_default();
        let mut request = self.http.request(Method::DELETE, &format!("/v2/{repository}/manifests/{tag}{updated}"));
        if let Some(digest) = digest {
            request = request.header(IF_MATCH, format!("\"{digest}\""));
        }
        self.http.send(request).await.map(drop)
    }

    /// Deletes a manifest with its tags.
    pub async fn delete_manifest(&self, repository: &str, digest: &Digest) -> Result<(), ClientError> {
        let path = format!("/v2/{repository}/manifests/{digest}");
        self.http.send(self.http.request(Method::DELETE, &path)).await.map(drop)
    }

    /// Deletes a manifest; only if it has no tag, and was pushed, or got one, last at `updated`.
    pub async fn delete_untagged(
        &self,
        repository: &str,
        digest: &Digest,
        updated: Timestamp,
    ) -> Result<(), ClientError> {
        let path = format!("/v2/{repository}/manifests/{digest}?untagged=true&updated={updated}");
        self.http.send(self.http.request(Method::DELETE, &path)).await.map(drop)
    }

    /// Deletes a repository with all that it holds.
    pub async fn delete_repository(&self, repository: &str) -> Result<(), ClientError> {
        let request = self.http.request(Method::DELETE, &format!("/acr/v1/{repository}"));
        self.http.send_without_deadline(request).await.map(drop)
    }

    async fn pages<T: DeserializeOwned>(
        &self,
        first: String,
        mut take: impl FnMut(T, Option<i64>) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        let mut path = first;
        loop {
            let (part, next, date) = self.http.page(self.http.request(Method::GET, &path)).await?;
            take(part, date)?;
            match next {
                // A list that goes nowhere would never end.
                Some(next) if next != path => path = next,
                _ => return Ok(()),
            }
        }
    }

    fn digest(&self, text: &str) -> Result<Digest, ClientError> {
        Digest::parse(text).map_err(|error| self.http.protocol(error.to_string(), false))
    }

    fn time(&self, text: &str) -> Result<Timestamp, ClientError> {
        let time = text.parse::<jiff::Timestamp>().map_err(|error| self.http.protocol(error.to_string(), false))?;
        Ok(Timestamp::from_micros(time.as_microsecond()))
    }
}
