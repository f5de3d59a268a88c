//! Giving a tag to what a repository has: to one of its manifests, or to an index of several.
//!
//! Bytes of images don't move: they are in the repository, and only manifests are read and written.

use std::fmt;

use cooper_types::{Digest, ImageRef, Platform, RegistryName, RepositoryName, Tag};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RemoteError;
use super::registry::{Access, Fetched, Registry};
use crate::egress::Egress;
use crate::git::CredentialSource;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What gets a tag.
#[derive(Clone, Copy, Debug)]
pub enum Publish<'a> {
    /// A manifest of the repository.
    Manifest(&'a Digest),
    /// An index of manifests of the repository, in this order.
    Index(&'a [(Platform, Digest)]),
}

/// What has the tag now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its digest.
    pub digest: Digest,
    /// Bytes of the manifest or index itself.
    pub size: u64,
}

/// Why a tag was not given.
#[derive(Debug, thiserror::Error)]
#[error("{image} can't be {doing}: {}", Said(.fault))]
pub struct PublishError {
    /// The image, by tag or digest.
    image: String,
    /// What was to be done with it.
    doing: &'static str,
    /// What happened. It is a part of the message, without the words that are about fetching.
    fault: RemoteError,
}

impl PublishError {
    /// Whether the same may succeed a moment later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        self.fault.is_transient()
    }

    /// Whether the registry does not let who asks do it.
    pub fn is_refusal(&self) -> bool {
        matches!(self.fault, RemoteError::Unauthorized { .. } | RemoteError::Status { status: 401 | 403, .. })
    }

    /// Whether it is the trouble of the machine that asks.
    pub fn is_own(&self) -> bool {
        self.fault.is_fetchers_own()
    }
}

/// An error's own words behind an image's name.
struct Said<'a>(&'a RemoteError);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RemoteError::Request { source, .. } => {
                write!(f, "{source}")?;
                let mut next = std::error::Error::source(source);
                while let Some(cause) = next {
                    write!(f, ": {cause}")?;
                    next = cause.source();
                }
                Ok(())
            }
            RemoteError::Status { host, status, said, .. } if said.is_empty() => write!(f, "`{host}` answers {status}"),
            RemoteError::Status { host, status, said, .. } => write!(f, "`{host}` answers {status}: {said}"),
            RemoteError::Unauthorized { host, shown: false, .. } => {
                write!(f, "`{host}` wants a credential, and there is none for it")
            }
            RemoteError::Unauthorized { host, .. } => write!(f, "`{host}` does not take the credential that there is"),
            RemoteError::Artifact { why, .. } => f.write_str(why),
            other => f.write_str(&other.line()),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: usize,
    platform: DescriptorPlatform<'a>,
}

#[derive(Serialize)]
struct DescriptorPlatform<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

/// What has to be known of a manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Value>>,
}

/// Gives a tag of a repository. Dropping the future ends the work.
pub async fn publish(
    egress: &Egress,
    credentials: &dyn CredentialSource,
    (name, repository): (&RegistryName, &RepositoryName),
    what: Publish<'_>,
    tag: &Tag,
) -> Result<Published, PublishError> {
    let image =
        ImageRef { registry: Some(name.clone()), repository: repository.clone(), tag: Some(tag.clone()), digest: None };
    let written = |fault| PublishError { image: image.to_string(), doing: "written", fault };
    let place = (name, repository);
    let registry =
        Registry::new(egress, credentials, place, Access::PullAndPush, image.to_string()).map_err(written)?;
    let read = async |digest: &Digest| {
        let part = ImageRef { tag: None, digest: Some(digest.clone()), ..image.clone() };
        let failed = |fault| PublishError { image: part.to_string(), doing: "read", fault };
        let fetched = registry.manifest(&part).await.map_err(failed)?;
        let bad = |why: String| failed(RemoteError::Artifact { what: part.to_string(), why });
        let kind: Kind = serde_json::from_slice(&fetched.bytes)
            .map_err(|error| bad(format!("its manifest can't be read: {error}")))?;
        Ok((fetched, kind))
    };
    let (media_type, bytes) = match what {
        Publish::Manifest(digest) => {
            let (fetched, kind) = read(digest).await?;
            (media_type(&fetched, &kind), fetched.bytes)
        }
        Publish::Index(parts) => {
            let mut manifests = Vec::with_capacity(parts.len());
            let mut all_docker = true;
            for (platform, digest) in parts {
                let (fetched, kind) = read(digest).await?;
                let media_type = media_type(&fetched, &kind);
                all_docker &= media_type == DOCKER_MANIFEST;
                // An engine may push an index of its own, with attestations beside the image: clients look one level deep.
                match kind.manifests {
                    Some(nested) => manifests.extend(nested),
                    None => manifests.push(descriptor(&fetched, &media_type, platform)),
                }
            }
            let media_type = if all_docker { DOCKER_LIST } else { OCI_INDEX };
            let index = Index { schema_version: 2, media_type, manifests };
            let bytes = serde_json::to_vec(&index).expect("an index is texts and numbers");
            (media_type.to_owned(), bytes)
        }
    };
    registry.put_manifest(tag, &media_type, &bytes).await.map_err(written)?;
    Ok(Published { digest: Digest::sha256(&bytes), size: bytes.len() as u64 })
}

fn descriptor(fetched: &Fetched, media_type: &str, platform: &Platform) -> Value {
    let descriptor = Descriptor {
        media_type,
        digest: &fetched.digest,
        size: fetched.bytes.len(),
        platform: DescriptorPlatform {
            architecture: platform.architecture(),
            os: platform.os(),
            variant: platform.variant(),
        },
    };
    serde_json::to_value(descriptor).expect("a descriptor is texts and numbers")
}

/// What a manifest is: its own word counts before its registry's.
fn media_type(fetched: &Fetched, kind: &Kind) -> String {
    let said =
        || fetched.media_type.as_deref().map(|text| text.split(';').next().unwrap_or_default().trim().to_owned());
    let guess = if kind.manifests.is_some() { OCI_INDEX } else { OCI_MANIFEST };
    kind.media_type.clone().or_else(said).unwrap_or_else(|| guess.to_owned())
}
