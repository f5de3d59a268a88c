//! What an agent needs to run an attempt.

use std::time::Duration;

use cooper_engine::run::KnownVariables;
use cooper_spec::dockerfile::FrontendRules;
use cooper_spec::plan::{Mount, Network, Tries};
use cooper_spec::source::RemoteSource;
use cooper_spec::task_request::TaskRequest;
use cooper_types::{
    Digest, ImageRef, Platform, RegistryName, RepositoryName, SecretBytes, SecretString, StepId, Tag, Timestamp,
};

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
    /// What the placement's steps share; nothing for a quick build's.
    pub environment: Option<EnvironmentOrder>,
    /// How often the agent does the work within the attempt.
    pub tries: Tries,
    /// Whether another step of the run may say something at the same time: each line then begins with whose it is.
    pub beside: bool,
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
    /// Pushes images.
    Push(PushOrder),
    /// Runs a container.
    Command(CommandOrder),
}

/// A source to be fetched, packed and uploaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrepareOrder {
    /// What is fetched.
    pub source: RemoteSource,
    /// The Dockerfile's path inside the source's folder, where one is going to be built: its ignore rules count then.
    pub dockerfile: Option<String>,
    /// Files inside the source's folder that are answered with the result.
    pub files: Vec<String>,
    /// The task file inside the source's folder: answered like those, with the files that its aliases name.
    pub task_file: Option<String>,
    /// What the task file's aliases are found by.
    pub task: Option<TaskOrder>,
    /// The reference of the same repository that has the files above, if that is not the source's own.
    pub definition: Option<String>,
    /// Networks that may be reached although they are not public.
    pub allowed_networks: Vec<String>,
    /// The largest archive that the server takes, in bytes.
    pub max_bytes: u64,
}

/// What the meaning of a task file depends on, as far as it is known before its source is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskOrder {
    /// What was asked for. Values of secrets are no part of it.
    pub request: TaskRequest,
    /// When the run was created.
    pub created: Timestamp,
    /// What the run's variables hold that is not found in the source.
    pub known: KnownVariables,
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
    /// Where its files come from.
    pub context: BuildContextOrder,
    /// The network of `RUN` instructions: `default`, `none` or `host`.
    pub network: Option<String>,
    /// Additional lines of `/etc/hosts`, as `name:address`.
    pub add_hosts: Vec<String>,
    /// Where the build's cache is kept in a registry.
    pub cache: Option<CacheOrder>,
    /// Names in `FROM` that stand for images of the run on the agent's engine.
    pub own_bases: Vec<(String, Digest)>,
    /// Names in `FROM` that stand for images of the run on other engines, and where a registry has them, by digest.
    pub staged_bases: Vec<(String, ImageRef)>,
    /// Which frontends may read the Dockerfile.
    pub frontends: FrontendRules,
    /// Networks that a remote source may be fetched from although they are not public.
    pub allowed_networks: Vec<String>,
    /// Names of images that stand for these digests.
    pub pinned: Vec<(String, Digest)>,
}

/// A build's cache in a registry, beside the engine's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOrder {
    /// Where it is read, and written by engines that can.
    pub reference: ImageRef,
    /// Whether the attempt may write there.
    pub writable: bool,
    /// The names of the step's own image: what an earlier run pushed there may hold an inline cache.
    pub images: Vec<ImageRef>,
}

/// Where the files of a build come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContextOrder {
    /// The attempt's context, to be fetched from the server.
    Fetched,
    /// A folder of the placement's workspace; empty is its root.
    Workspace(String),
    /// A source that the agent fetches itself.
    Remote {
        /// As a user writes it, or at the commit or digest that it has to have.
        source: String,
        /// What the archive, or the artifact's manifest, has to be.
        digest: Option<Digest>,
    },
}

/// A push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushOrder {
    /// Where what goes.
    pub targets: Vec<PushTarget>,
    /// Networks that may be reached although they are not public, where an index is made in another registry.
    pub allowed_networks: Vec<String>,
}

/// One repository to push an image to, and the tag there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushTarget {
    /// What goes there.
    pub from: PushFrom,
    /// A registry that is not the embedded one.
    pub registry: Option<RegistryName>,
    /// The repository.
    pub repository: RepositoryName,
    /// In the embedded registry the tag that the attempt has for itself, elsewhere the user's.
    pub staging_tag: Tag,
}

/// What goes to a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushFrom {
    /// An image by its id on the agent's engine.
    Image(Digest),
    /// A manifest that the repository has already.
    Manifest(Digest),
    /// An index of manifests that the repository has already, by platform.
    Index(Vec<(Platform, Digest)>),
}

/// What the steps of a placement share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentOrder {
    /// Whether the workspace is filled with the run's context.
    pub has_context: bool,
    /// The networks; none means that the steps share a namespace.
    pub networks: Vec<Network>,
    /// Secret volumes: the name, and the files with their contents.
    pub volumes: Vec<VolumeOrder>,
    /// Whether a step needs the registry where the registry's name is of no use.
    pub registry_by_address: bool,
}

/// A volume of secret files, kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeOrder {
    /// The name that mounts use.
    pub name: String,
    /// File names and contents.
    pub files: Vec<(String, SecretBytes)>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOrder {
    /// What it runs in.
    pub image: CommandImageOrder,
    /// The words behind the image, as they are.
    pub arguments: Vec<SecretString>,
    /// Environment variables.
    pub environment: Vec<(String, SecretString)>,
    /// Mounts of secret volumes.
    pub mounts: Vec<Mount>,
    /// What it runs for.
    pub platform: Platform,
    /// In place of the image's entry point.
    pub entry_point: Option<String>,
    /// Absolute; the image's own if absent.
    pub working_directory: Option<String>,
    /// In place of the image's user.
    pub user: Option<String>,
    /// One of the environment's networks.
    pub network: Option<String>,
    /// Ports of the engine's host.
    pub ports: Vec<String>,
    /// Ports that it announces.
    pub expose: Vec<String>,
    /// How many processors it may use.
    pub cpus: Option<String>,
    /// Windows: how it is kept apart.
    pub isolation: Option<String>,
    /// Whether it has all privileges.
    pub privileged: bool,
    /// Whether the container stays until the placement's end.
    pub keep: bool,
    /// Whether the step is done when it has started.
    pub detach: bool,
    /// Whether its standard streams are a terminal.
    pub terminal: bool,
    /// Whether the image is pulled even if the engine has it.
    pub pull: bool,
    /// How often a failed pull is tried again.
    pub pull_retries: u32,
    /// The pause before each of these.
    pub pull_retry_delay: Duration,
}

/// What a container runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandImageOrder {
    /// An image by its name, at its registry.
    Named(String),
    /// An image of the run, by its id on the agent's engine.
    Built(Digest),
}
