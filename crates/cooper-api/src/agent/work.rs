//! What an agent needs to run an attempt.

use std::time::Duration;

use cooper_spec::source::GitSource;
use cooper_types::{Digest, Platform, RegistryName, RepositoryName, SecretBytes, SecretString, StepId, Tag};

/// One attempt's order: the work and everything that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOrder {
    /// The step.
    pub step: StepId,
    /// How long the attempt may take; the agent enforces it.
    pub timeout: Duration,
    /// Values that must not appear in the log.
    pub masked: Vec<SecretBytes>,
    /// Access to the embedded registry, bound to this attempt.
    pub registry: RegistryAccess,
    /// What to do.
    pub work: StepWork,
}

/// Access to the embedded registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAccess {
    /// The registry's name in references.
    pub name: RegistryName,
    /// The user name that goes with the password.
    pub username: String,
    /// The attempt's credential.
    pub password: SecretString,
}

/// What a step does, with all values filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepWork {
    /// Fetches a source.
    Prepare(PrepareOrder),
    /// Builds an image.
    Build(BuildOrder),
    /// Pushes an image.
    Push(PushOrder),
}

/// A source to be fetched, packed and uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOrder {
    /// What is fetched.
    pub source: GitSource,
    /// The Dockerfile's path inside the source's folder.
    pub dockerfile: String,
    /// Networks that may be reached although they are not public.
    pub allowed_networks: Vec<String>,
    /// The largest archive that the server takes, in bytes.
    pub max_bytes: u64,
}

/// A build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOrder {
    /// The Dockerfile's path inside the context.
    pub dockerfile: String,
    /// The stage to build.
    pub target: Option<String>,
    /// Build arguments, secret ones included.
    pub arguments: Vec<(String, SecretString)>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
    /// Whether the build cache is left unused.
    pub no_cache: bool,
    /// BuildKit secrets.
    pub secrets: Vec<(String, SecretBytes)>,
    /// What the image is for.
    pub platform: Platform,
    /// Under which the engine keeps the context between builds.
    pub shared_key: String,
}

/// A push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushOrder {
    /// The image's id on the agent's engine.
    pub image: Digest,
    /// Where it goes.
    pub targets: Vec<PushTarget>,
}

/// One repository to push to, and the tag that the attempt has there for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag.
    pub staging_tag: Tag,
}
