//! Where the containers of a placement's steps live: its volumes, its networks, and its way to the registry.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cooper_types::{NetworkName, SecretBytes, VolumeName};
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ContainerEnd, ContainerError, ContainerEvent, ContainerRequest, EngineError, PlacementScope, Reaped};

/// What a placement's environment is made of.
#[derive(Clone, Debug)]
pub struct PlacementRequest {
    /// Which placement. No other may be open under it.
    pub scope: PlacementScope,
    /// The volumes that its containers may mount.
    pub volumes: Vec<VolumeRequest>,
    /// The networks that its containers may be on.
    pub networks: Vec<NetworkRequest>,
    /// Whether containers will be in the shared namespace: it costs a part of a second to make.
    pub shared_network: bool,
    /// How containers reach the registry under its name, where that is a loopback name; other names need nothing.
    pub registry: Option<RegistryForward>,
}

/// A volume to make.
#[derive(Clone, Debug)]
pub struct VolumeRequest {
    /// Its name in the placement.
    pub name: VolumeName,
    /// What it begins with.
    pub content: VolumeContent,
}

/// What a volume is, and what it begins with.
#[derive(Clone, Debug)]
pub enum VolumeContent {
    /// A folder on the engine's disk, empty.
    Empty,
    /// Files in the engine's memory, readable by everybody who mounts it, gone with the placement or when its agent
    /// dies. They are never on the engine's disk, unless its machine swaps. Names are single path parts.
    Secret(BTreeMap<String, SecretBytes>),
}

/// A network to make, or one that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Its name in the placement.
    pub name: NetworkName,
    /// Where from.
    pub origin: NetworkOrigin,
}

/// Where a network comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkOrigin {
    /// It is made, under a name of its own in the engine, and removed with the placement.
    Made {
        /// The engine's driver; its default if absent.
        driver: Option<String>,
        /// Whether containers get IPv6 addresses as well.
        ipv6: bool,
    },
    /// The engine has it under the request's own name. The pool's leave is the caller's to ask.
    Existing,
}

/// How the registry is reached from within a container's own loopback.
#[derive(Clone)]
pub struct RegistryForward {
    /// The loopback addresses that the registry's name stands for, the most important first. The first one must be free
    /// in the container; another one, such as `[::1]` where there is no IPv6, may be missing.
    pub addresses: Vec<SocketAddr>,
    /// Where connections to them lead.
    pub connector: Arc<dyn Connector>,
}

impl fmt::Debug for RegistryForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryForward").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Opens connections on behalf of containers. What they may reach by it is its own to guard: bytes go through as they
/// are.
#[async_trait::async_trait]
pub trait Connector: Send + Sync {
    /// A new connection; an error closes the container's.
    async fn connect(&self) -> io::Result<Box<dyn Connection>>;
}

/// Both directions of a connection. Shutting down its writer ends one direction only.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A tar archive on its way, uncompressed.
pub type ArchiveStream<E> = BoxStream<'static, Result<Bytes, E>>;

/// A tar archive that is yet to be written: it is told what the names of its entries begin with, links' targets excepted.
pub type NewArchive = Box<dyn FnOnce(&str) -> ArchiveStream<io::Error> + Send>;

/// An open placement. A value that is dropped without [`Self::close`] closes itself as far as it can; what is left goes
/// with the next [`super::ContainerEngine::remove_placement`] or reaping.
#[async_trait::async_trait]
pub trait Placement: Send + Sync {
    /// Runs a container to its end, or to its start where it is to be detached.
    ///
    /// Events go to `sink`; a slow receiver slows the container down, a receiver that is gone is no error. When `cancel`
    /// fires, the container is dead and removed within a second, a detached one that has started excepted: that one
    /// ends with the placement. A caller that drops the future gets the same, without the answer.
    async fn run(
        &self,
        request: ContainerRequest,
        sink: mpsc::Sender<ContainerEvent>,
        cancel: CancellationToken,
    ) -> Result<ContainerEnd, ContainerError>;

    /// Unpacks an archive into the root of a volume on disk. Owners, modes, times and links are the archive's, wherever a
    /// link leads; files that are there are replaced.
    async fn put_archive(&self, volume: &VolumeName, archive: NewArchive) -> Result<(), ArchiveError>;

    /// The archive of a folder of a volume on disk, with everything below it. Its first entry is the folder itself,
    /// `./`, and the others' names start with that. What containers change meanwhile may be in it or not.
    async fn get_archive(&self, volume: &VolumeName, folder: &str) -> Result<ArchiveStream<EngineError>, ArchiveError>;

    /// Kills what runs and removes everything: containers, networks, volumes. May be called again, also after a failure.
    async fn close(&self) -> Result<Reaped, EngineError>;
}

/// Why a placement's environment could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// A network that should be there is not.
    #[error("network `{name}` is not in the agent's container engine: leave `skipCreation` out, or ask its operator")]
    NetworkMissing {
        /// Its name.
        name: NetworkName,
    },
    /// The engine does not make such a network.
    #[error("network `{name}` can't be made: {message}")]
    Network {
        /// Its name.
        name: NetworkName,
        /// The engine's words.
        message: String,
    },
    /// A file name of a secret volume that is more than a name.
    #[error("file `{file}` of volume `{volume}` must be a single name, without `/`")]
    SecretName {
        /// The volume.
        volume: VolumeName,
        /// What was given.
        file: String,
    },
    /// Volumes of secrets, and an engine that has none in memory.
    #[error("{engine} has no volumes in memory for the task's `volumes`: hand secrets over by `env`")]
    SecretVolumes {
        /// Its name and platform.
        engine: String,
    },
    /// The engine failed.
    #[error("placement's environment could not be made")]
    Machinery(#[from] EngineError),
    /// The caller cancelled.
    #[error("placement was cancelled")]
    Cancelled,
}

/// Why an archive was not unpacked or made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The placement has no such volume on disk.
    #[error("volume `{volume}` is none of the placement's volumes on disk")]
    VolumeMissing {
        /// Its name.
        volume: VolumeName,
    },
    /// The folder is not there, is no folder, or leads out of the volume.
    #[error("folder `{folder}` is not in volume `{volume}`")]
    FolderMissing {
        /// The volume.
        volume: VolumeName,
        /// What was asked for.
        folder: String,
    },
    /// The archive to unpack broke off.
    #[error("archive for volume `{volume}` broke off")]
    Source {
        /// The volume.
        volume: VolumeName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine failed.
    #[error("archive of volume `{volume}` failed")]
    Machinery {
        /// The volume.
        volume: VolumeName,
        /// What happened.
        #[source]
        source: EngineError,
    },
}
