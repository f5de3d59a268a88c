//! Looking whether a tag of another registry stands for something else: one HEAD, with what it said the last time.

use std::time::Duration;

use cooper_types::{Digest, RegistryName, RepositoryName, Tag};
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderName, RETRY_AFTER};

use super::RemoteError;
use super::registry::{Access, Registry};
use crate::egress::Egress;
use crate::git::CredentialSource;

/// The header in which registries say a manifest's digest.
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The longest pause that a registry can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// What a tag stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// What it stood for the last time.
    Same,
    /// This.
    Is {
        /// The manifest.
        digest: Digest,
        /// What is shown the next time.
        etag: Option<String>,
    },
}

/// Why nothing is known of a tag.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The registry wants fewer questions.
    #[error("`{host}` answers 429: it is asked too often")]
    Busy {
        /// The registry.
        host: String,
        /// How long it wants to be left alone, if it says so.
        pause: Option<Duration>,
    },
    /// Something else went wrong.
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// Asks what a tag stands for; `etag` is what the registry said the last time.
pub async fn watch(
    egress: &Egress,
    credentials: &dyn CredentialSource,
    (name, repository, tag): (&RegistryName, &RepositoryName, &Tag),
    etag: Option<&str>,
) -> Result<Watched, WatchError> {
    let what = format!("{name}/{repository}:{tag}");
    let registry = Registry::new(egress, credentials, (name, repository), Access::Pull, what.clone())?;
    let answer = registry.head_manifest(tag, etag).await?;
    match answer.status() {
        StatusCode::NOT_MODIFIED => Ok(Watched::Same),
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = answer.header(RETRY_AFTER).and_then(|text| text.trim().parse().ok());
            let pause = seconds.map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
            Err(WatchError::Busy { host: answer.host(), pause })
        }
        status if status.is_success() => {
            let digest = answer.header(DIGEST).and_then(|text| Digest::parse(text).ok());
            let etag = answer.header(ETAG).filter(|text| text.len() <= 512).map(str::to_owned);
            let why = "its registry does not say its digest".to_owned();
            let digest = digest.ok_or(RemoteError::Artifact { what, why })?;
            Ok(Watched::Is { digest, etag })
        }
        status => {
            let (host, said) = (answer.host(), String::new());
            Err(RemoteError::Status { what, host, status: status.as_u16(), said }.into())
        }
    }
}
