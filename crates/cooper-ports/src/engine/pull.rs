//! Images that the engine has, and those that it fetches.

use std::time::Duration;

use cooper_types::{Digest, ImageRef, Platform};

use super::{EngineError, RegistryCredential};

/// An image in the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalImage {
    /// Its id.
    pub image: Digest,
    /// What it is for; absent where that is not known here.
    pub platform: Option<Platform>,
    /// The manifests under which registries know it, `registry/repository@digest`.
    pub manifests: Vec<String>,
}

/// One image to fetch.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// Where from: a reference with a registry, and with a tag or a digest, which is `latest` where both are absent.
    pub reference: ImageRef,
    /// How to log in there.
    pub credential: Option<RegistryCredential>,
    /// What for; the engine's own platform if absent.
    pub platform: Option<Platform>,
    /// How often to try again where that can help.
    pub retries: u32,
    /// How long to wait before each new try.
    pub retry_delay: Duration,
}

/// What a pull says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullEvent {
    /// The layer's short id; absent for what is about the whole image.
    pub layer: Option<String>,
    /// The engine's word for it, such as `Downloading`; `Retrying` with the reason before each new try.
    pub status: String,
    /// Bytes so far.
    pub current: Option<u64>,
    /// Bytes in all.
    pub total: Option<u64>,
}

/// A pull that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// The image's id in the engine.
    pub image: Digest,
    /// The digest of the manifest or index that the reference stood for.
    pub digest: Digest,
}

/// Why a pull did not give an image.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry does not have it.
    #[error("image `{reference}` is not in its registry: check its name and tag")]
    Missing {
        /// What was asked for.
        reference: ImageRef,
    },
    /// The registry wants other credentials, allows less, or hides that the image is not there.
    #[error("image `{reference}` may not be pulled, or is not there: {message}")]
    Unauthorized {
        /// What was asked for.
        reference: ImageRef,
        /// The registry's words.
        message: String,
    },
    /// The registry cannot be reached from the engine, or fails.
    #[error("registry of image `{reference}` cannot be reached: {message}")]
    Unreachable {
        /// What was asked for.
        reference: ImageRef,
        /// The engine's words.
        message: String,
    },
    /// There is an image, for something else.
    #[error("image `{reference}` is not for {wanted}{}: name another tag, or run the step for another platform", found_text(.found.as_deref()))]
    WrongPlatform {
        /// What was asked for.
        reference: ImageRef,
        /// The platform that was asked for.
        wanted: Platform,
        /// What it is for, where the engine says so.
        found: Option<String>,
    },
    /// The registry or the engine said no for another reason.
    #[error("image `{reference}` could not be pulled: {message}")]
    Refused {
        /// What was asked for.
        reference: ImageRef,
        /// The engine's words.
        message: String,
    },
    /// The engine failed.
    #[error("pull of image `{reference}` failed")]
    Machinery {
        /// What was asked for.
        reference: ImageRef,
        /// What happened.
        #[source]
        source: EngineError,
    },
    /// The caller cancelled.
    #[error("pull was cancelled")]
    Cancelled,
}

impl PullError {
    /// Whether the same request may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            // A registry that was just pushed to by somebody else's step may need a moment, as ACR's users know.
            Self::Missing { .. } | Self::Unreachable { .. } | Self::Refused { .. } => true,
            Self::Unauthorized { .. } | Self::WrongPlatform { .. } | Self::Machinery { .. } | Self::Cancelled => false,
        }
    }
}

fn found_text(found: Option<&str>) -> String {
    found.map(|found| format!(", but for {found}")).unwrap_or_default()
}
