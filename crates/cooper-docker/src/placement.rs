//! A placement's environment in the engine: volumes, networks, and the helpers that hold them.

mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bollard::errors::Error;
use bollard::models::{HostConfig, Ipam, IpamConfig, NetworkCreateRequest};
use cooper_ports::engine::{
    ArchiveError, ArchiveStream, ContainerEnd, ContainerError, ContainerEvent, ContainerRequest, EngineError,
    EngineOwner, NetworkOrigin, NetworkRequest, NewArchive, OWNER_LABEL, Placement, PlacementError, PlacementRequest,
    PlacementScope, Reaped, RegistryForward,
};
use cooper_types::{NetworkName, VolumeName};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::container::request::labels;
use crate::container::{self, Leaving, Stop};
use crate::engine::{DockerEngine, died, engine_error};
use crate::helper::{self, Helper, StartError};
use crate::housekeeping;
use crate::wire::one_line;
use volumes::Volumes;

const HELPER: &str = "start the helper of a placement";

/// What the containers of an open placement share.
pub(crate) struct Room {
    pub(crate) engine: DockerEngine,
    pub(crate) scope: PlacementScope,
    /// The engine's names of the volumes.
    pub(crate) volumes: BTreeMap<VolumeName, String>,
    /// The engine's names of the networks.
    pub(crate) networks: BTreeMap<NetworkName, String>,
    /// What holds the shared namespace.
    pub(crate) shared: Option<Arc<Helper>>,
    /// Volumes in memory. They are what they were as long as the container runs that holds them.
    pub(crate) in_memory: BTreeSet<VolumeName>,
    /// The id of that container, or of the shared namespace's.
    pub(crate) holder: Option<String>,
    pub(crate) registry: Option<RegistryForward>,
    pub(crate) tasks: TaskTracker,
    pub(crate) leaving: Leaving,
    /// The container that archives go through.
    door: Option<volumes::Door>,
    close: CancellationToken,
}

/// An open placement.
struct DockerPlacement {
    room: Arc<Room>,
    /// Keeps volumes in memory alive; it ends with the placement.
    holder: Mutex<Option<Arc<Helper>>>,
}

/// The agents' networks for shared namespaces that are there, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct SharedNetworks(Mutex<HashMap<String, ()>>);

impl SharedNetworks {
    /// The engine's name of the owner's network. All of an owner's shared namespaces are on one, and containers that are
    /// to be on none of their placement's; it lets nothing through from one to another. Making one for each placement takes a quarter of a second.
    pub(crate) async fn ready(&self, engine: &DockerEngine, owner: &EngineOwner) -> Result<String, EngineError> {
        const OPERATION: &str = "make the agent's network";
        let name = format!("cooper-{}-shared", owner.label());
        let mut known = self.0.lock().await;
        if known.contains_key(&name) {
            return Ok(name);
        }
        let docker = &engine.current().docker;
        match docker.inspect_network(&name, None).await {
            Ok(_) => {}
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                let options = HashMap::from([("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())]);
                let request = NetworkCreateRequest {
                    name: name.clone(),
                    driver: Some("bridge".into()),
                    options: Some(options),
                    labels: Some(HashMap::from([(OWNER_LABEL.to_owned(), owner.label().to_owned())])),
                    ..Default::default()
                };
                let created = docker.create_network(request).await;
                created.map_err(|error| engine_error(engine.socket(), OPERATION, error))?;
            }
            Err(error) => return Err(engine_error(engine.socket(), OPERATION, error)),
        }
        known.insert(name.clone(), ());
        Ok(name)
    }

    /// Somebody removed it.
    pub(crate) async fn forget(&self, owner: &EngineOwner) {
        self.0.lock().await.remove(&format!("cooper-{}-shared", owner.label()));
    }
}

/// Opens a placement. What was made before a failure or a cancellation is removed.
pub(crate) async fn open(
    engine: DockerEngine,
    request: PlacementRequest,
    cancel: &CancellationToken,
) -> Result<Box<dyn Placement>, PlacementError> {
    if cancel.is_cancelled() {
        return Err(PlacementError::Cancelled);
    }
    let scope = request.scope.clone();
    let error = match make(&engine, request, cancel).await {
        Ok(placement) if !cancel.is_cancelled() => return Ok(Box::new(placement)),
        Ok(_) => PlacementError::Cancelled,
        Err(error) => error,
    };
    if let Err(error) = remove(&engine, &scope).await {
        tracing::warn!(%error, placement = scope.label(), "things of a placement that did not open are left");
    }
    Err(error)
}

/// Removes everything of a placement.
pub(crate) async fn remove(engine: &DockerEngine, scope: &PlacementScope) -> Result<Reaped, EngineError> {
    housekeeping::remove_placement(&engine.current().docker, engine.socket(), scope).await
}

async fn make(
    engine: &DockerEngine,
    request: PlacementRequest,
    cancel: &CancellationToken,
) -> Result<DockerPlacement, PlacementError> {
    let PlacementRequest { scope, volumes, networks, shared_network, registry } = request;
    let os = engine.current().description.native.os();
    let engine_name = || format!("{} on {os}", engine.current().description.name);
    if os != "linux" && volumes::any_secret(&volumes) {
        return Err(PlacementError::SecretVolumes { engine: engine_name() });
    }
    if os != "linux" && shared_network {
        let missing = "network namespaces that containers share: use networks".to_owned();
        return Err(EngineError::Unsupported { engine: engine_name(), missing }.into());
    }
    let volumes = Volumes::create(engine, &scope, volumes);
    let networks = create_networks(engine, &scope, networks);
    // Each waits for the other's requests, too, so that a failure leaves none under way.
    let (volumes, networks) = tokio::join!(volumes, networks);
    let (volumes, networks) = (volumes?, networks?);
    let stop = || if cancel.is_cancelled() { Err(PlacementError::Cancelled) } else { Ok(()) };
    stop()?;
    let holder = async {
        match shared_network || volumes.any_in_memory() {
            true => hold(engine, &scope, &volumes, shared_network, registry.as_ref()).await.map(Arc::new).map(Some),
            false => Ok(None),
        }
    };
    // As above; on the heap, as both are large.
    let (door, holder) = tokio::join!(Box::pin(volumes.door(engine, &scope)), Box::pin(holder));
    let (door, holder) = (door?, holder?);
    stop()?;
    if let Some(holder) = &holder {
        volumes.fill(engine, &holder.container).await?;
    }
    let room = Room {
        engine: engine.clone(),
        scope,
        in_memory: volumes.in_memory_names(),
        holder: holder.as_ref().map(|holder| holder.container.clone()),
        volumes: volumes.names(),
        networks,
        shared: holder.clone().filter(|_| shared_network),
        // Without a helper there is nobody to forward; a Windows container reaches its host another way.
        registry: registry.filter(|_| os == "linux"),
        tasks: TaskTracker::new(),
        leaving: Leaving::default(),
        door,
        close: CancellationToken::new(),
    };
    Ok(DockerPlacement { room: Arc::new(room), holder: Mutex::new(holder) })
}

/// Starts what holds the shared namespace and the volumes in memory.
async fn hold(
    engine: &DockerEngine,
    scope: &PlacementScope,
    volumes: &Volumes,
    shared_network: bool,
    registry: Option<&RegistryForward>,
) -> Result<Helper, EngineError> {
    let registry = registry.filter(|_| shared_network);
    let mut tries = 0;
    loop {
        let network = match shared_network {
            true => engine.shared_networks().ready(engine, &scope.owner).await?,
            false => "none".to_owned(),
        };
        let host = HostConfig { network_mode: Some(network), mounts: Some(volumes.in_memory()), ..Default::default() };
        let mut body = helper::body(labels(scope, None), host);
        let addresses = registry.map(|registry| registry.addresses.iter().map(ToString::to_string).collect());
        body.cmd = Some(addresses.unwrap_or_default());
        let name = scope.object_name(&format!("hold{tries}"));
        let id = helper::create(engine, &scope.owner, &name, body).await;
        let id = id.map_err(|error| engine_error(engine.socket(), HELPER, error))?;
        let connector = registry.map(|registry| Arc::clone(&registry.connector));
        match helper::start(engine, id, connector).await {
            Ok(helper) => return Ok(helper),
            // The shared network was removed by somebody.
            Err(StartError::Refused(Error::DockerResponseServerError { status_code: 404, .. })) if tries == 0 => {
                tries += 1;
                engine.shared_networks().forget(&scope.owner).await;
            }
            Err(StartError::Engine(error)) => return Err(error),
            Err(StartError::Refused(error)) => return Err(engine_error(engine.socket(), HELPER, error)),
            Err(StartError::Helper(error)) => {
                return Err(EngineError::Broken { operation: HELPER, source: error.into() });
            }
        }
    }
}

/// Makes the networks, all at once; the engine's names of them.
async fn create_networks(
    engine: &DockerEngine,
    scope: &PlacementScope,
    networks: Vec<NetworkRequest>,
) -> Result<BTreeMap<NetworkName, String>, PlacementError> {
    let each = networks.into_iter().map(|network| async move {
        let name = network.name.clone();
        create_network(engine, scope, network).await.map(|in_engine| (name, in_engine))
    });
    futures::future::join_all(each).await.into_iter().collect()
}

async fn create_network(
    engine: &DockerEngine,
    scope: &PlacementScope,
    request: NetworkRequest,
) -> Result<String, PlacementError> {
    const OPERATION: &str = "make a network";
    let docker = &engine.current().docker;
    let NetworkRequest { name, origin } = request;
    let NetworkOrigin::Made { driver, ipv6 } = origin else {
        return match docker.inspect_network(name.as_str(), None).await {
            Ok(_) => Ok(name.to_string()),
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                Err(PlacementError::NetworkMissing { name })
            }
            Err(error) => Err(engine_error(engine.socket(), OPERATION, error).into()),
        };
    };
    let in_engine = scope.object_name(name.as_str());
    // Engines before 27 have no IPv6 range of their own to take from.
    let ipam = ipv6.then(|| Ipam {
        config: Some(vec![IpamConfig { subnet: Some(private_range()), ..Default::default() }]),
        ..Default::default()
    });
    let request = NetworkCreateRequest {
        name: in_engine.clone(),
        driver,
        enable_ipv6: ipv6.then_some(true),
        ipam,
        labels: Some(labels(scope, None)),
        ..Default::default()
    };
    match docker.create_network(request).await {
        Ok(_) => Ok(in_engine),
        Err(Error::DockerResponseServerError { message, .. }) if message.contains("address pool") => {
            let missing = format!(
                "room for another network ({}): give it more with `default-address-pools` in its daemon.json",
                one_line(&message)
            );
            let description = &engine.current().description;
            let engine = format!("{} {}", description.name, description.version);
            Err(EngineError::Unsupported { engine, missing }.into())
        }
        // The user chose the driver.
        Err(Error::DockerResponseServerError { status_code: 400 | 404, message }) => {
            Err(PlacementError::Network { name, message: one_line(&message) })
        }
        Err(error) => Err(engine_error(engine.socket(), OPERATION, error).into()),
    }
}

/// A range that nobody else has, most likely (RFC 4193).
fn private_range() -> String {
    let [a, b, c, d, e, f, g, ..] = rand::random::<u64>().to_be_bytes();
    format!("fd{a:02x}:{b:02x}{c:02x}:{d:02x}{e:02x}:{f:02x}{g:02x}::/64")
}

#[async_trait::async_trait]
impl Placement for DockerPlacement {
    async fn run(
        &self,
        request: ContainerRequest,
        sink: mpsc::Sender<ContainerEvent>,
        cancel: CancellationToken,
    ) -> Result<ContainerEnd, ContainerError> {
        // In a task of its own, which a caller that drops this future cancels instead of tearing: see the guard. One
        // that has become a detached container goes on.
        let cancel = cancel.child_token();
        let guard = cancel.clone().drop_guard();
        let room = Arc::clone(&self.room);
        let stop = Stop { cancel, close: room.close.clone() };
        let task = self.room.tasks.spawn(async move { container::run(&room, request, sink, stop).await });
        let ended = task.await.unwrap_or_else(|error| Err(died("run a container", error).into()));
        drop(guard);
        ended
    }

    async fn put_archive(&self, volume: &VolumeName, archive: NewArchive) -> Result<(), ArchiveError> {
        volumes::put(&self.room.engine, self.room.door.as_ref(), volume, archive).await
    }

    async fn get_archive(&self, volume: &VolumeName, folder: &str) -> Result<ArchiveStream<EngineError>, ArchiveError> {
        volumes::get(&self.room.engine, self.room.door.as_ref(), volume, folder).await
    }

    async fn close(&self) -> Result<Reaped, EngineError> {
        end(&self.room).await;
        self.holder.lock().await.take();
        // In a task of its own: a caller that drops this future has it done all the same.
        let room = Arc::clone(&self.room);
        let removed = tokio::spawn(async move { remove(&room.engine, &room.scope).await });
        removed.await.unwrap_or_else(|error| Err(died("remove a placement", error)))
    }
}

/// Stops what runs, and waits until nothing makes anything any more.
async fn end(room: &Room) {
    room.close.cancel();
    room.tasks.close();
    room.tasks.wait().await;
}

impl Drop for DockerPlacement {
    fn drop(&mut self) {
        // Closed in good order already, or the process ends and reaping takes over.
        if self.holder.get_mut().is_none() && self.room.close.is_cancelled() {
            return;
        }
        self.room.close.cancel();
        let room = Arc::clone(&self.room);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            end(&room).await;
            if let Err(error) = remove(&room.engine, &room.scope).await {
                tracing::warn!(%error, placement = room.scope.label(), "things of a dropped placement are left");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn private_ranges_are_networks() {
        let range = super::private_range();
        let (address, length) = range.split_once('/').expect("a range");
        let address: std::net::Ipv6Addr = address.parse().expect("an address");
        assert_eq!((address.octets()[0], length, &address.octets()[8..]), (0xfd, "64", &[0; 8][..]));
    }
}
