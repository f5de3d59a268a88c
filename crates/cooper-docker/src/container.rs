//! A step's container from its creation to its removal.

pub(crate) mod create;
mod failure;
mod leaving;
pub(crate) mod request;

use std::sync::Arc;

use bollard::errors::Error;
use bollard::models::HostConfig;
use bollard::query_parameters::{CreateContainerOptionsBuilder, WaitContainerOptionsBuilder};
use cooper_ports::engine::{
    ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerNetwork, ContainerRequest, EngineError,
    LocalImage, NetworkChoice, OwnNetwork, PublishedPort,
};
use futures::StreamExt as _;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::attach::{self, Output};
use crate::engine::{Connected, engine_error};
use crate::helper::{self, Helper, StartError};
use crate::placement::Room;
use crate::pull;
pub(crate) use leaving::Leaving;
use leaving::Remains;
use request::Network;

const CREATE: &str = "create a container";
const START: &str = "start a container";
const WAIT: &str = "wait for a container";
const INSPECT: &str = "inspect a container";
/// The exit code of a killed process: 128 and the signal's number.
const KILLED: i64 = 137;

/// Two reasons to stop.
#[derive(Clone)]
pub(crate) struct Stop {
    /// The caller's.
    pub(crate) cancel: CancellationToken,
    /// The placement's end.
    pub(crate) close: CancellationToken,
}

impl Stop {
    fn check(&self) -> Result<(), ContainerError> {
        if self.cancel.is_cancelled() || self.close.is_cancelled() { Err(ContainerError::Cancelled) } else { Ok(()) }
    }

    /// The work's result, unless it is to stop: then the work is dropped where it waits.
    async fn during<T>(&self, work: impl Future<Output = Result<T, ContainerError>>) -> Result<T, ContainerError> {
        // Biased: what was cancelled before it began does nothing.
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(ContainerError::Cancelled),
            () = self.close.cancelled() => Err(ContainerError::Cancelled),
            result = work => result,
        }
    }
}

/// A container that runs, and what it needs beside it.
struct Running<R> {
    output: Output<R>,
    /// What holds its network namespace, where that is its own.
    helper: Option<Helper>,
}

/// Runs it. One that was stopped or did not start is gone when this returns; one that ended by itself goes soon, and
/// before the placement has closed.
pub(crate) async fn run(
    room: &Arc<Room>,
    request: ContainerRequest,
    sink: mpsc::Sender<ContainerEvent>,
    stop: Stop,
) -> Result<ContainerEnd, ContainerError> {
    stop.check()?;
    room.leaving.until_gone(&request.step).await;
    let current = room.engine.current();
    // The names are ours, so that what was made can be removed even if the engine's answer never came.
    let unique = format!("{}-{:08x}", plain(request.step.as_str()), rand::random::<u32>());
    let name = room.scope.object_name(&unique);
    let helper_name = format!("{name}-net");
    let result = async {
        let running = start(room, &current, &request, &name, &helper_name, &stop).await?;
        let ports = published(room, &current, &request, &helper_name, &name).await?;
        stop.during(async {
            // A receiver that is gone is no error of the container's.
            let _ = sink.send(ContainerEvent::Started { ports }).await;
            Ok(())
        })
        .await?;
        if request.detach {
            let close = stop.close.clone();
            room.tasks.spawn(async move {
                let Running { mut output, helper } = running;
                // An attached container that nobody reads from stops at its next word.
                let _ = close.run_until_cancelled(drain(&mut output, &sink)).await;
                close.cancelled().await;
                drop(helper);
            });
            return Ok(ContainerEnd::Detached);
        }
        let Running { mut output, helper: _helper } = running;
        stop.during(async {
            drain(&mut output, &sink).await?;
            let code = wait(room, &current, &name).await?;
            let out_of_memory = code == KILLED && out_of_memory(room, &current, &name).await?;
            Ok(ContainerEnd::Exited { code, out_of_memory })
        })
        .await
    }
    .await;
    let stays = match &result {
        Ok(ContainerEnd::Detached) => return result,
        Ok(ContainerEnd::Exited { .. }) => request.keep,
        Err(_) => false,
    };
    let has_helper = matches!(request.network, ContainerNetwork::Own(_)) && room.registry.is_some();
    let remains = Remains { container: (!stays).then_some(name), helper: has_helper.then_some(helper_name) };
    let has_ports = matches!(&request.network, ContainerNetwork::Own(own) if !own.ports.is_empty());
    match &result {
        // The next step may want the same ports.
        Ok(_) if !has_ports => remains.leave(room, &request.step).await,
        Ok(_) | Err(_) => remains.remove(room).await,
    }
    result
}

async fn start(
    room: &Room,
    current: &Connected,
    request: &ContainerRequest,
    name: &str,
    helper_name: &str,
    stop: &Stop,
) -> Result<Running<impl AsyncRead + Unpin + use<>>, ContainerError> {
    let Connected { docker, wire, description, .. } = current;
    let (network, helper) = network(room, request, helper_name).await?;
    stop.check()?;
    let os = request.platform.as_ref().unwrap_or(&description.native).os();
    let body = request::body(request, &room.scope, &room.volumes, &network, os)?;
    let mut options = CreateContainerOptionsBuilder::default().name(name);
    if let Some(platform) = &request.platform {
        options = options.platform(&platform.to_string());
    }
    // Requests that make or start something are never dropped half-way: what they make could not be found again.
    let refused = |operation| move |error| failure::refusal(request, room.engine.socket(), operation, error);
    if let Err(error) = Box::pin(create::create(docker, options.build(), body)).await {
        return Err(missing_for_its_platform(room, current, request, refused(CREATE)(error)).await);
    }
    stop.check()?;
    let (output, _) = attach::attach(wire, name, request.terminal, false).await?;
    stop.check()?;
    docker.start_container(name, None).await.map_err(refused(START))?;
    holds(room, current, request).await?;
    Ok(Running { output, helper })
}

/// The error of a container that was not created. Docker Engine 26 with containerd's image store says that there is no such
/// image of one that is for another platform, too.
async fn missing_for_its_platform(
    room: &Room,
    current: &Connected,
    request: &ContainerRequest,
    error: ContainerError,
) -> ContainerError {
    let (ContainerError::Failed(ContainerFailure::ImageMissing { image }), Some(wanted)) = (&error, &request.platform)
    else {
        return error;
    };
    match pull::find(&current.docker, room.engine.socket(), image.as_str()).await {
        Ok(Some(LocalImage { platform: Some(platform), .. })) if platform != *wanted => {
            let (image, wanted) = (image.clone(), wanted.clone());
            ContainerFailure::WrongPlatform { image, wanted, message: platform.to_string() }.into()
        }
        Ok(_) => error,
        Err(error) => error.into(),
    }
}

/// Fails if what holds the memory of the container's volumes has ended: an engine mounts them anew then, empty. Asked once
/// the container holds them itself: from then on they stay.
async fn holds(room: &Room, current: &Connected, request: &ContainerRequest) -> Result<(), ContainerError> {
    const OPERATION: &str = "mount a volume in memory";
    let Some(mount) = request.mounts.iter().find(|mount| room.in_memory.contains(&mount.volume)) else { return Ok(()) };
    let Some(holder) = &room.holder else { return Ok(()) };
    let runs = match current.docker.inspect_container(holder, None).await {
        Ok(inspected) => inspected.state.and_then(|state| state.running).unwrap_or(false),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => false,
        Err(error) => return Err(engine_error(room.engine.socket(), OPERATION, error).into()),
    };
    if runs {
        return Ok(());
    }
    let message = format!("the helper that held what is in volume `{}` has ended", mount.volume);
    Err(EngineError::Refused { operation: OPERATION, message }.into())
}

/// Finds the container's network, and makes a namespace for it where the registry is to be in it.
async fn network(
    room: &Room,
    request: &ContainerRequest,
    helper_name: &str,
) -> Result<(Network, Option<Helper>), ContainerError> {
    let invalid = |message: String| ContainerError::from(ContainerFailure::Invalid { message });
    let plain = |mode: &str| Ok((Network { mode: mode.to_owned(), own: None }, None));
    let own = match &request.network {
        ContainerNetwork::Host => return plain("host"),
        ContainerNetwork::None => return plain("none"),
        ContainerNetwork::Shared => {
            let shared = room.shared.as_ref().ok_or_else(|| invalid("the placement has no shared network".into()))?;
            return plain(&format!("container:{}", shared.container));
        }
        ContainerNetwork::Own(own) => own,
    };
    // What is on the engine's own default network reaches everything else there, other runs' steps included. The
    // agent's network lets nothing through; nor does it tell names, which others on it could take.
    let mut own = own.clone();
    let mode = match &own.on {
        NetworkChoice::Default if room.engine.current().description.native.os() == "linux" => {
            own.aliases.clear();
            // Looked for each time, as it may have been removed by somebody.
            room.engine.shared_networks().forget(&room.scope.owner).await;
            room.engine.shared_networks().ready(&room.engine, &room.scope.owner).await?
        }
        NetworkChoice::Default => request::DEFAULT_NETWORK.to_owned(),
        NetworkChoice::Placement(name) => {
            let known = room.networks.get(name).cloned();
            known.ok_or_else(|| invalid(format!("network `{name}` is none of the placement's")))?
        }
    };
    let Some(registry) = &room.registry else {
        return Ok((Network { mode, own: Some(own) }, None));
    };
    let mut host = HostConfig { network_mode: Some(mode), ..Default::default() };
    let mut placed = helper::body(request::labels(&room.scope, Some(&request.step)), HostConfig::default());
    request::place(&mut placed, &mut host, &own)?;
    let mut body = helper::body(placed.labels.take().unwrap_or_default(), host);
    body.exposed_ports = placed.exposed_ports;
    body.networking_config = placed.networking_config;
    body.cmd = Some(registry.addresses.iter().map(ToString::to_string).collect());
    let refused = |operation| move |error| failure::refusal(request, room.engine.socket(), operation, error);
    let id = helper::create(&room.engine, &room.scope.owner, helper_name, body).await.map_err(refused(CREATE))?;
    let helper = helper::start(&room.engine, id, Some(registry.connector.clone())).await;
    let helper = helper.map_err(|error| match error {
        StartError::Engine(error) => error.into(),
        StartError::Refused(error) => failure::refusal(request, room.engine.socket(), START, error),
        StartError::Helper(error) => {
            EngineError::Broken { operation: "start the helper of a container", source: error.into() }.into()
        }
    })?;
    Ok((Network { mode: format!("container:{}", helper.container), own: None }, Some(helper)))
}

/// Sends all output on until its end.
async fn drain<R: AsyncRead + Unpin>(
    output: &mut Output<R>,
    sink: &mpsc::Sender<ContainerEvent>,
) -> Result<(), ContainerError> {
    let broken =
        |error: std::io::Error| EngineError::Broken { operation: "read a container's output", source: error.into() };
    while let Some((stream, bytes)) = output.next().await.map_err(broken)? {
        let _ = sink.send(ContainerEvent::Output { stream, bytes }).await;
    }
    Ok(())
}

async fn wait(room: &Room, current: &Connected, name: &str) -> Result<i64, ContainerError> {
    let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
    let mut waiting = std::pin::pin!(current.patient.wait_container(name, Some(options)));
    match waiting.next().await {
        Some(Ok(answer)) => Ok(answer.status_code),
        // bollard's way to say that the code is not 0.
        Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(code),
        Some(Err(error)) => Err(engine_error(room.engine.socket(), WAIT, error).into()),
        None => Err(EngineError::Broken { operation: WAIT, source: "the engine gave no answer".into() }.into()),
    }
}

async fn out_of_memory(room: &Room, current: &Connected, name: &str) -> Result<bool, ContainerError> {
    let inspected = current.docker.inspect_container(name, None).await;
    let inspected = inspected.map_err(|error| engine_error(room.engine.socket(), INSPECT, error))?;
    Ok(inspected.state.and_then(|state| state.oom_killed).unwrap_or(false))
}

/// The ports of the host that lead to the container, where any were asked for.
async fn published(
    room: &Room,
    current: &Connected,
    request: &ContainerRequest,
    helper_name: &str,
    name: &str,
) -> Result<Vec<PublishedPort>, ContainerError> {
    let ContainerNetwork::Own(OwnNetwork { ports, .. }) = &request.network else { return Ok(Vec::new()) };
    if ports.is_empty() {
        return Ok(Vec::new());
    }
    let name = if room.registry.is_some() { helper_name } else { name };
    let inspected = current.docker.inspect_container(name, None).await;
    let inspected = inspected.map_err(|error| engine_error(room.engine.socket(), INSPECT, error))?;
    Ok(request::published(inspected.network_settings.and_then(|settings| settings.ports)))
}

/// A step's id as part of a container's name, short enough for any.
fn plain(step: &str) -> String {
    step.chars().take(40).map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' }).collect()
}
