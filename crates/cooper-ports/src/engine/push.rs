//! What a push takes, tells and gives.

use cooper_types::{Digest, ImageRef};

use super::{EngineError, RegistryCredential};

/// One push of one image to one reference.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// The image's id in the engine.
    pub image: Digest,
    /// Where to: with a registry and a tag, without a digest. No other push may use it at the same time.
    pub reference: ImageRef,
    /// How to log in there.
    pub credential: Option<RegistryCredential>,
}

/// What a push says while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushEvent {
    /// The layer's short id; absent for what is about the whole image.
    pub layer: Option<String>,
    /// The engine's word for it, such as `Pushing` or `Layer already exists`.
    pub status: String,
    /// Bytes so far.
    pub current: Option<u64>,
    /// Bytes in all.
    pub total: Option<u64>,
}

/// A push that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushedImage {
    /// Digest of the manifest that the registry took.
    pub digest: Digest,
    /// The manifest's length in bytes, where the engine tells it.
    pub size: Option<u64>,
}

/// Why a push did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The reference lacks a registry or a tag, or has a digest.
    #[error("image cannot be pushed to `{reference}`: it needs a registry and a tag, and no digest")]
    Reference {
        /// What was given.
        reference: ImageRef,
    },
    /// The engine does not have the image (any more).
    #[error("image {image} is not in the container engine any more")]
    ImageMissing {
        /// Its id.
        image: Digest,
    },
    /// The registry wants other credentials, or allows less.
    #[error("registry does not allow the push to `{reference}`: {message}")]
    Unauthorized {
        /// Where to.
        reference: ImageRef,
        /// The registry's words.
        message: String,
    },
    /// The registry said no for another reason.
    #[error("registry refused the push to `{reference}`: {message}")]
    Refused {
        /// Where to.
        reference: ImageRef,
        /// The registry's words.
        message: String,
    },
    /// The registry cannot be reached from the engine.
    #[error("registry of `{reference}` cannot be reached: {message}")]
    Unreachable {
        /// Where to.
        reference: ImageRef,
        /// The engine's words.
        message: String,
    },
    /// The engine failed.
    #[error("push to `{reference}` failed")]
    Machinery {
        /// Where to.
        reference: ImageRef,
        /// What happened.
        #[source]
        source: EngineError,
    },
    /// The caller cancelled.
    #[error("push was cancelled")]
    Cancelled,
}
