//! The container engine as the agent needs it: describe, build, push, pull, run steps' containers, clean up.
//!
//! One adapter speaks to Docker Engine; [`scripted`] is the fake for tests of everything above. Both pass one
//! conformance suite. Nothing here knows runs, steps or leases beyond the names that keep runs apart in an engine.

mod build;
mod container;
mod error;
mod logins;
mod names;
mod placement;
mod pull;
mod push;
pub mod scripted;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cooper_types::{ImageRef, Platform};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use build::{
    BaseImages, BuildError, BuildEvent, BuildFailure, BuildNetwork, BuildRequest, BuiltImage, OutputStream,
    ResolvedBase, VertexEvent,
};
pub use container::{
    ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerLimits, ContainerNetwork,
    ContainerRequest, Isolation, NetworkChoice, OwnNetwork, PortMapping, PortProtocol, Privileges, PublishedPort,
    VolumeMount,
};
pub use error::EngineError;
pub use logins::{LoginError, RegistryCredential, RegistryLogins};
pub use names::{EngineOwner, LocalName, OWNER_LABEL, PLACEMENT_LABEL, PlacementScope, RUN_LABEL, STEP_LABEL};
pub use placement::{
    ArchiveError, ArchiveStream, Connection, Connector, NetworkOrigin, NetworkRequest, NewArchive, Placement,
    PlacementError, PlacementRequest, RegistryForward, VolumeContent, VolumeRequest,
};
pub use pull::{LocalImage, PullError, PullEvent, PullRequest, PulledImage};
pub use push::{PushError, PushEvent, PushRequest, PushedImage};

/// What an engine is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineDescription {
    /// The product, such as `Docker Engine`.
    pub name: String,
    /// The product's own version text.
    pub version: String,
    /// The version of the engine's API that is spoken with it.
    pub api_version: String,
    /// What it runs without emulation.
    pub native: Platform,
    /// What it runs besides, by emulation or because the processor can; empty where the engine does not say.
    pub emulated: BTreeSet<Platform>,
    /// What it can do beyond the least.
    pub features: BTreeSet<EngineFeature>,
}

/// What an engine keeps on its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineStorage {
    /// The folder of all its data, in the engine's own view of the file system.
    pub root: PathBuf,
    /// What its build cache takes, in bytes, without what images hold as well.
    pub cache_bytes: u64,
}

/// Something that not every engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineFeature {
    /// Builds by BuildKit with a client's session: without it there is no build at all.
    BuildKit,
    /// Here-documents in Dockerfiles.
    Heredoc,
    /// `COPY --link` and `ADD --link`.
    CopyLink,
    /// `RUN --network`.
    RunNetwork,
    /// Builds whose cache is written to a registry: Docker Engine with containerd's image store.
    RegistryCache,
}

impl EngineFeature {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::BuildKit, Self::Heredoc, Self::CopyLink, Self::RunNetwork, Self::RegistryCache];

    /// The name that agents say; it never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuildKit => "buildkit",
            Self::Heredoc => "heredoc",
            Self::CopyLink => "copy-link",
            Self::RunNetwork => "run-network",
            Self::RegistryCache => "registry-cache",
        }
    }
}

/// What [`ContainerEngine::reap`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Containers, running or not.
    pub containers: usize,
    /// Networks.
    pub networks: usize,
    /// Volumes.
    pub volumes: usize,
    /// Image names; an image goes with its last name.
    pub image_names: usize,
}

/// A container engine. It is shared: everything that a caller makes carries names or labels of its own.
#[async_trait::async_trait]
pub trait ContainerEngine: Send + Sync {
    /// What the engine is, as learned last: when it was connected, or by [`Self::refresh`].
    fn describe(&self) -> Arc<EngineDescription>;

    /// Asks the engine again what it is: emulation comes and goes, and a restart may have brought another version.
    ///
    /// What it does not tell this time stays as it was; an engine that does not answer at all is an error.
    async fn refresh(&self) -> Result<Arc<EngineDescription>, EngineError>;

    /// Succeeds when the engine answers, quickly: an engine that hangs is an error within a few seconds.
    async fn ping(&self) -> Result<(), EngineError>;

    /// Builds an image and gives it the request's local name.
    ///
    /// Base images are always resolved at their registry. Events go to `sink`; a slow receiver slows the build down, a
    /// receiver that is gone is no error. When `cancel` fires, what the build runs is dead within a second. A caller
    /// that drops the future gets the same, without the answer. The local name exists only after success, except that
    /// a build that is cancelled as it ends may have made it: callers remove it in both cases.
    async fn build(
        &self,
        request: BuildRequest,
        sink: mpsc::Sender<BuildEvent>,
        cancel: CancellationToken,
    ) -> Result<BuiltImage, BuildError>;

    /// Pushes an image, known by its id, to a reference whose tag is the caller's alone while this runs.
    ///
    /// The engine's local name that a push needs is removed again, whatever happens.
    async fn push(
        &self,
        request: PushRequest,
        sink: mpsc::Sender<PushEvent>,
        cancel: CancellationToken,
    ) -> Result<PushedImage, PushError>;

    /// The image that the engine has under a reference, if any. That it is there says nothing about who may use it:
    /// others' pulls bring images as well.
    async fn find_image(&self, reference: &ImageRef) -> Result<Option<LocalImage>, EngineError>;

    /// Fetches an image from its registry, or finds that the engine has what the reference stands for there.
    async fn pull(
        &self,
        request: PullRequest,
        sink: mpsc::Sender<PullEvent>,
        cancel: CancellationToken,
    ) -> Result<PulledImage, PullError>;

    /// Makes the environment of a placement's containers. What a failure or a cancelled opening has made is removed.
    async fn open_placement(
        &self,
        request: PlacementRequest,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Placement>, PlacementError>;

    /// Removes everything of a placement that is not open here (any more): containers, networks, volumes. One of which
    /// there is nothing is no error.
    async fn remove_placement(&self, scope: &PlacementScope) -> Result<Reaped, EngineError>;

    /// Removes local names; an image goes with its last name, its layers stay in the build cache. A name that is
    /// not there is no error.
    async fn remove_names(&self, names: &[LocalName]) -> Result<(), EngineError>;

    /// Removes everything that carries the owner's label or names: what an earlier life of an agent left behind.
    ///
    /// To be called before the owner makes anything new, and well at the end of its life, too: some things are made for
    /// all of an owner's placements.
    async fn reap(&self, owner: &EngineOwner) -> Result<Reaped, EngineError>;

    /// What the engine keeps on its disk. It may take seconds on a cache that was never measured.
    async fn storage(&self) -> Result<EngineStorage, EngineError>;

    /// Shrinks the build cache to this many bytes, the least recently used first, and gives the bytes that were freed.
    ///
    /// What a build uses at the moment stays. The cache is the whole engine's: what others built goes as well.
    async fn shrink_cache(&self, keep_bytes: u64) -> Result<u64, EngineError>;
}
