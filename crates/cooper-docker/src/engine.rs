//! The engine as one value: what every operation shares, and the port's implementation.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bollard::Docker;
use cooper_ports::engine::{
    BuildError, BuildEvent, BuildRequest, BuiltImage, ContainerEngine, EngineDescription, EngineError, EngineFeature,
    EngineOwner, EngineStorage, LocalImage, LocalName, Placement, PlacementError, PlacementRequest, PlacementScope,
    PullError, PullEvent, PullRequest, PulledImage, PushError, PushEvent, PushRequest, PushedImage, Reaped,
};
use cooper_types::ImageRef;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::describe::{self, Machine, NarrowCode};
use crate::helper::HelperImages;
use crate::housekeeping::Removals;
use crate::placement::SharedNetworks;
use crate::socket::EngineSocket;
use crate::wire::EngineWire;
use crate::{build, cache, housekeeping, placement, pull, push};

/// How long a living engine takes at most to say that it lives, and what it is: one on a machine that is busy with builds
/// takes seconds.
const PING: Duration = Duration::from_secs(15);
/// How long any plain request may take, in seconds: removing a large image is the slowest.
const REQUEST_SECONDS: u64 = 120;
/// Longer than any run may take: its own limits end what hangs.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Docker Engine behind a Unix socket. Cloning it is cheap.
#[derive(Clone)]
pub struct DockerEngine(Arc<Inner>);

struct Inner {
    socket: EngineSocket,
    /// Replaced when the engine is asked again what it is; what is under way goes on with what it began with.
    current: RwLock<Arc<Connected>>,
    removals: Removals,
    helpers: HelperImages,
    shared_networks: SharedNetworks,
}

/// An engine as it was when it was asked what it is.
pub(crate) struct Connected {
    pub(crate) docker: Docker,
    /// The same for requests that take as long as they take: large archives, and waiting for a container's end.
    pub(crate) patient: Docker,
    pub(crate) wire: EngineWire,
    pub(crate) description: Arc<EngineDescription>,
    /// What the builder does not list, where that had to be found out.
    narrow: Option<NarrowCode>,
}

impl DockerEngine {
    /// Connects to the engine at a socket, agrees with it on a version of its API, and asks what it is.
    pub async fn connect(socket: EngineSocket) -> Result<Self, EngineError> {
        let connected = Connected::new(&socket, None).await?;
        let current = RwLock::new(Arc::new(connected));
        Ok(Self(Arc::new(Inner {
            socket,
            current,
            removals: Removals::default(),
            helpers: HelperImages::default(),
            shared_networks: SharedNetworks::default(),
        })))
    }

    pub(crate) fn socket(&self) -> &EngineSocket {
        &self.0.socket
    }

    pub(crate) fn helpers(&self) -> &HelperImages {
        &self.0.helpers
    }

    pub(crate) fn shared_networks(&self) -> &SharedNetworks {
        &self.0.shared_networks
    }

    pub(crate) fn current(&self) -> Arc<Connected> {
        // The lock guards one assignment, which no panic can leave half done.
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Connected {
    async fn new(socket: &EngineSocket, before: Option<&Self>) -> Result<Self, EngineError> {
        const OPERATION: &str = "say its version";
        // bollard's own errors about sockets name neither the path nor the cause.
        drop(tokio::net::UnixStream::connect(socket.path()).await.map_err(|error| socket.unreachable(error))?);
        let failed = |error| engine_error(socket, OPERATION, error);
        let connect = async {
            let path = socket.path().to_string_lossy();
            let docker = Docker::connect_with_unix(&path, REQUEST_SECONDS, bollard::API_DEFAULT_VERSION)
                .map_err(failed)?
                .negotiate_version()
                .await
                .map_err(failed)?;
            let version = docker.version().await.map_err(failed)?;
            Ok((docker, version))
        };
        let (docker, version) = limited(OPERATION, PING, connect).await?;
        let api_version = docker.client_version().to_string();
        let wire = EngineWire::new(socket.clone(), &api_version);
        let mut description = describe::describe(&version, &api_version)?;
        if description.features.contains(&EngineFeature::BuildKit) {
            match limited("list the platforms of its builder", PING, describe::platforms(&wire)).await {
                Ok(platforms) => description.emulated = platforms,
                // A builder that is busy for a moment has not lost what it could do.
                Err(error) => match before.filter(|before| before.description.native == description.native) {
                    Some(before) => description.emulated.clone_from(&before.description.emulated),
                    None => tracing::warn!(%error, "only the engine's own platform is offered"),
                },
            }
        }
        let mut narrow = None;
        // Older engines have no such store.
        if description.features.contains(&EngineFeature::Heredoc) {
            const STORE: &str = "say how it stores images";
            let info = async { docker.info().await.map_err(|error| engine_error(socket, STORE, error)) };
            let info = limited(STORE, PING, info).await;
            // No more of it than counts: what is held while the builder is asked makes this future large.
            match info.map(|info| describe::has_containerd_store(&info).then(|| Machine::of(info))) {
                Ok(Some(machine)) => {
                    description.features.insert(EngineFeature::RegistryCache);
                    let known = before.and_then(|before| before.narrow.as_ref());
                    narrow = Box::pin(NarrowCode::of(&wire, &description, machine, known)).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "engine is taken for one that has what it had");
                    if let Some(before) = before
                        && before.description.features.contains(&EngineFeature::RegistryCache)
                    {
                        description.features.insert(EngineFeature::RegistryCache);
                        narrow.clone_from(&before.narrow);
                    }
                }
            }
        }
        if let Some(found) = &narrow {
            description.emulated.extend(found.platforms());
        }
        description.emulated.remove(&description.native);
        let patient = docker.clone().with_timeout(PATIENCE);
        Ok(Self { docker, patient, wire, description: Arc::new(description), narrow })
    }
}

#[async_trait::async_trait]
impl ContainerEngine for DockerEngine {
    fn describe(&self) -> Arc<EngineDescription> {
        Arc::clone(&self.current().description)
    }

    async fn refresh(&self) -> Result<Arc<EngineDescription>, EngineError> {
        let before = self.current();
        let connected = Arc::new(Connected::new(&self.0.socket, Some(&before)).await?);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&connected);
        Ok(Arc::clone(&connected.description))
    }

    async fn ping(&self) -> Result<(), EngineError> {
        const OPERATION: &str = "answer a ping";
        let ping = async {
            let answer = self.current().docker.ping().await;
            answer.map(drop).map_err(|error| engine_error(&self.0.socket, OPERATION, error))
        };
        limited(OPERATION, PING, ping).await
    }

    async fn build(
        &self,
        request: BuildRequest,
        sink: mpsc::Sender<BuildEvent>,
        cancel: CancellationToken,
    ) -> Result<BuiltImage, BuildError> {
        // In a task of its own, which a caller that drops this future cancels instead of tearing: see the guard.
        let cancel = cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        let engine = self.clone();
        let task = tokio::spawn(async move {
            let current = engine.current();
            let Connected { docker, wire, description, .. } = &*current;
            let builder = build::Builder { docker, wire, engine: description, removals: &engine.0.removals };
            build::build(&builder, request, sink, &cancel).await
        });
        task.await.unwrap_or_else(|error| Err(died("build an image", error).into()))
    }

    async fn push(
        &self,
        request: PushRequest,
        sink: mpsc::Sender<PushEvent>,
        cancel: CancellationToken,
    ) -> Result<PushedImage, PushError> {
        let cancel = cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        let engine = self.clone();
        let reference = request.reference.clone();
        let task = tokio::spawn(async move {
            let current = engine.current();
            let Connected { docker, wire, .. } = &*current;
            let Inner { socket, removals, .. } = &*engine.0;
            push::push(docker, socket, wire, removals, request, sink, &cancel).await
        });
        let source = match task.await {
            Ok(result) => return result,
            Err(error) => died("push an image", error),
        };
        Err(PushError::Machinery { reference, source })
    }

    async fn find_image(&self, reference: &ImageRef) -> Result<Option<LocalImage>, EngineError> {
        pull::find(&self.current().docker, &self.0.socket, &reference.to_string()).await
    }

    async fn pull(
        &self,
        request: PullRequest,
        sink: mpsc::Sender<PullEvent>,
        cancel: CancellationToken,
    ) -> Result<PulledImage, PullError> {
        // Dropping it closes its connection, which ends the pull in the engine: no task of its own is needed.
        let current = self.current();
        pull::pull(&current.docker, &self.0.socket, &current.wire, &self.0.removals, request, sink, &cancel).await
    }

    async fn open_placement(
        &self,
        request: PlacementRequest,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Placement>, PlacementError> {
        let cancel = cancel.child_token();
        let _guard = cancel.clone().drop_guard();
        let engine = self.clone();
        let task = tokio::spawn(async move { placement::open(engine, request, &cancel).await });
        task.await.unwrap_or_else(|error| Err(died("open a placement", error).into()))
    }

    async fn remove_placement(&self, scope: &PlacementScope) -> Result<Reaped, EngineError> {
        placement::remove(self, scope).await
    }

    async fn remove_names(&self, names: &[LocalName]) -> Result<(), EngineError> {
        let current = self.current();
        let Inner { socket, removals, .. } = &*self.0;
        for name in names {
            housekeeping::remove_with_staged(&current.docker, socket, removals, name.as_str()).await?;
        }
        Ok(())
    }

    async fn reap(&self, owner: &EngineOwner) -> Result<Reaped, EngineError> {
        let Inner { socket, removals, .. } = &*self.0;
        let reaped = housekeeping::reap(&self.current().docker, socket, removals, owner).await;
        self.0.shared_networks.forget(owner).await;
        reaped
    }

    async fn storage(&self) -> Result<EngineStorage, EngineError> {
        let current = self.current();
        cache::storage(&current.docker, &self.0.socket, &current.wire).await
    }

    async fn shrink_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        let current = self.current();
        cache::shrink(&current.wire, &current.description.api_version, keep_bytes).await
    }
}

/// A task of ours that panicked, or that went with its runtime.
pub(crate) fn died(operation: &'static str, error: JoinError) -> EngineError {
    EngineError::Broken { operation, source: error.into() }
}

pub(crate) async fn limited<T>(
    operation: &'static str,
    after: Duration,
    work: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    tokio::time::timeout(after, work).await.unwrap_or(Err(EngineError::TimedOut { operation, after }))
}

/// bollard's error in the port's words.
pub(crate) fn engine_error(
    socket: &EngineSocket,
    operation: &'static str,
    error: bollard::errors::Error,
) -> EngineError {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { message, .. } => {
            EngineError::Refused { operation, message: crate::wire::one_line(&message) }
        }
        Error::RequestTimeoutError => EngineError::TimedOut { operation, after: Duration::from_secs(REQUEST_SECONDS) },
        Error::SocketNotFoundError(_) => socket.unreachable(std::io::ErrorKind::NotFound.into()),
        Error::IOError { err } => socket.unreachable(err),
        Error::HyperLegacyError { err } if err.is_connect() => socket.unreachable(std::io::Error::other(err)),
        other => EngineError::Broken { operation, source: other.into() },
    }
}
