//! The fake's placements: containers that do what a test says, and volumes that give back what they were given.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use cooper_types::VolumeName;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::gate::{Gate, play};
use super::{EngineCall, State, down, lock};
use crate::engine::{
    ArchiveError, ArchiveStream, ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerNetwork,
    ContainerRequest, EngineError, NetworkChoice, NetworkOrigin, NewArchive, OwnNetwork, Placement, PlacementRequest,
    PlacementScope, Reaped, VolumeContent,
};

/// What the next container does.
#[derive(Debug)]
pub struct ScriptedContainer {
    /// What it says after it has started.
    pub events: Vec<ContainerEvent>,
    /// Where it waits then, if anywhere.
    pub gate: Option<Gate>,
    /// How it ends. One that is to be detached ends so only if this is an error.
    pub outcome: Result<ContainerEnd, ContainerError>,
}

impl ScriptedContainer {
    /// A container that ends at once with this code.
    pub fn exiting(code: i64) -> Self {
        let outcome = Ok(ContainerEnd::Exited { code, out_of_memory: false });
        Self { events: Vec::new(), gate: None, outcome }
    }

    /// A container that does not start.
    pub fn failure(error: impl Into<ContainerError>) -> Self {
        Self { events: Vec::new(), gate: None, outcome: Err(error.into()) }
    }

    /// The same, saying these first.
    #[must_use]
    pub fn saying(mut self, events: Vec<ContainerEvent>) -> Self {
        self.events = events;
        self
    }

    /// The same, waiting at a gate after its events.
    #[must_use]
    pub fn waiting_at(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }
}

/// What a placement has made.
#[derive(Debug)]
pub(super) struct Opened {
    request: PlacementRequest,
    /// Contents of volumes on disk.
    archives: BTreeMap<VolumeName, Bytes>,
    /// Containers that are there, detached and kept ones included.
    containers: usize,
    stop: CancellationToken,
}

impl Opened {
    pub(super) fn new(request: PlacementRequest) -> Self {
        Self { request, archives: BTreeMap::new(), containers: 0, stop: CancellationToken::new() }
    }

    pub(super) fn containers(&self) -> usize {
        self.containers
    }

    pub(super) fn owner(&self) -> &crate::engine::EngineOwner {
        &self.request.scope.owner
    }

    /// Stops what runs; what was there.
    pub(super) fn remove(self) -> Reaped {
        self.stop.cancel();
        let made = |network: &&crate::engine::NetworkRequest| matches!(network.origin, NetworkOrigin::Made { .. });
        Reaped {
            containers: self.containers,
            networks: self.request.networks.iter().filter(made).count(),
            volumes: self.request.volumes.len(),
            image_names: 0,
        }
    }

    fn on_disk(&self, volume: &VolumeName) -> Result<(), ArchiveError> {
        let known = |known: &&crate::engine::VolumeRequest| {
            known.name == *volume && matches!(known.content, VolumeContent::Empty)
        };
        if self.request.volumes.iter().find(known).is_none() {
            return Err(ArchiveError::VolumeMissing { volume: volume.clone() });
        }
        Ok(())
    }

    /// What a container asks for that the placement does not have.
    fn missing(&self, request: &ContainerRequest) -> Option<ContainerFailure> {
        let invalid = |message: String| Some(ContainerFailure::Invalid { message });
        for mount in &request.mounts {
            if !self.request.volumes.iter().any(|volume| volume.name == mount.volume) {
                return invalid(format!("volume `{}` is none of the placement's", mount.volume));
            }
        }
        match &request.network {
            ContainerNetwork::Shared if !self.request.shared_network => {
                invalid("the placement has no shared network".into())
            }
            ContainerNetwork::Own(OwnNetwork { on: NetworkChoice::Placement(name), .. })
                if !self.request.networks.iter().any(|network| network.name == *name) =>
            {
                invalid(format!("network `{name}` is none of the placement's"))
            }
            _ => None,
        }
    }
}

/// The fake's open placement.
pub(super) struct ScriptedPlacement {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) scope: PlacementScope,
}

/// Counts a container out when it is over.
struct Counted {
    state: Arc<Mutex<State>>,
    label: String,
    keep: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(opened) = lock(&self.state).placements.get_mut(&self.label).filter(|_| !self.keep) {
            opened.containers = opened.containers.saturating_sub(1);
        }
    }
}

#[async_trait::async_trait]
impl Placement for ScriptedPlacement {
    async fn run(
        &self,
        request: ContainerRequest,
        sink: mpsc::Sender<ContainerEvent>,
        cancel: CancellationToken,
    ) -> Result<ContainerEnd, ContainerError> {
        let (detach, keep) = (request.detach, request.keep);
        let label = self.scope.label();
        let (script, stop) = {
            let mut state = lock(&self.state);
            state.calls.push(EngineCall::RunContainer(self.scope.clone(), Box::new(request.clone())));
            if state.down {
                return Err(down().into());
            }
            if !state.has_image(&request.image) {
                return Err(ContainerFailure::ImageMissing { image: request.image }.into());
            }
            let script = state.containers.pop_front().unwrap_or_else(|| ScriptedContainer::exiting(0));
            let opened = state.placements.get_mut(&label).ok_or(ContainerError::Cancelled)?;
            if let Some(failure) = opened.missing(&request) {
                return Err(failure.into());
            }
            opened.containers += 1;
            (script, opened.stop.clone())
        };
        let counted = Counted { state: Arc::clone(&self.state), label, keep };
        if cancel.is_cancelled() || stop.is_cancelled() {
            return Err(ContainerError::Cancelled);
        }
        let starts = !matches!(&script.outcome, Err(ContainerError::Failed(_)));
        let mut events = script.events;
        if starts {
            events.insert(0, ContainerEvent::Started { ports: Vec::new() });
        }
        if detach && starts {
            let rest = events.split_off(1);
            let running = play(events, None, &sink, &cancel).await;
            if !running {
                return Err(ContainerError::Cancelled);
            }
            tokio::spawn(async move {
                let _counted = counted;
                play(rest, script.gate, &sink, &stop).await;
                stop.cancelled().await;
            });
            return script.outcome.map(|_| ContainerEnd::Detached);
        }
        let both = cancel.child_token();
        let _watch = tokio_util::task::AbortOnDropHandle::new(tokio::spawn({
            let both = both.clone();
            async move {
                stop.cancelled().await;
                both.cancel();
            }
        }));
        if !play(events, script.gate, &sink, &both).await {
            return Err(ContainerError::Cancelled);
        }
        script.outcome
    }

    async fn put_archive(&self, volume: &VolumeName, archive: NewArchive) -> Result<(), ArchiveError> {
        let source = |source| ArchiveError::Source { volume: volume.clone(), source };
        let parts: Vec<Bytes> = archive("").try_collect().await.map_err(source)?;
        let bytes = parts.iter().fold(BytesMut::new(), |mut all, part| {
            all.extend_from_slice(part);
            all
        });
        let machinery = |source| ArchiveError::Machinery { volume: volume.clone(), source };
        let mut state = lock(&self.state);
        state.calls.push(EngineCall::PutArchive(volume.clone()));
        if state.down {
            return Err(machinery(down()));
        }
        let opened = state.placements.get_mut(&self.scope.label());
        let opened = opened.ok_or_else(|| ArchiveError::VolumeMissing { volume: volume.clone() })?;
        opened.on_disk(volume)?;
        opened.archives.insert(volume.clone(), bytes.freeze());
        Ok(())
    }

    async fn get_archive(&self, volume: &VolumeName, folder: &str) -> Result<ArchiveStream<EngineError>, ArchiveError> {
        let mut state = lock(&self.state);
        state.calls.push(EngineCall::GetArchive(volume.clone(), folder.to_owned()));
        if state.down {
            return Err(ArchiveError::Machinery { volume: volume.clone(), source: down() });
        }
        let opened = state.placements.get(&self.scope.label());
        let opened = opened.ok_or_else(|| ArchiveError::VolumeMissing { volume: volume.clone() })?;
        opened.on_disk(volume)?;
        let missing = || ArchiveError::FolderMissing { volume: volume.clone(), folder: folder.to_owned() };
        let root = opened.archives.get(volume).filter(|_| folder.is_empty());
        let bytes = root.cloned().ok_or_else(missing)?;
        Ok(futures::stream::iter([Ok(bytes)]).boxed())
    }

    async fn close(&self) -> Result<Reaped, EngineError> {
        let mut state = lock(&self.state);
        state.calls.push(EngineCall::RemovePlacement(self.scope.clone()));
        if state.down {
            return Err(down());
        }
        Ok(state.placements.remove(&self.scope.label()).map(Opened::remove).unwrap_or_default())
    }
}

impl Drop for ScriptedPlacement {
    fn drop(&mut self) {
        if let Some(opened) = lock(&self.state).placements.remove(&self.scope.label()) {
            opened.remove();
        }
    }
}
