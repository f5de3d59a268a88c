//! Volumes of a placement: on disk, with archives in and out, and in memory, with secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use bollard::errors::Error;
use bollard::models::{HostConfig, Mount, MountType, MountVolumeOptions, VolumeCreateRequest};
use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use cooper_ports::engine::{
    ArchiveError, ArchiveStream, EngineError, NewArchive, PlacementError, PlacementScope, VolumeContent, VolumeRequest,
};
use cooper_types::{SecretBytes, VolumeName};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::container::request::labels;
use crate::engine::{DockerEngine, engine_error};
use crate::helper;

const CREATE: &str = "make a volume";
const PUT: &str = "unpack an archive into a volume";
const GET: &str = "archive a volume";
/// Where the helpers have the volumes.
const ROOT: &str = "/volumes";
/// What a volume in memory holds at least; tmpfs takes whole pages, and names take room too.
const LEAST_MEMORY: u64 = 1 << 20;

/// A placement's volumes in the engine.
pub(super) struct Volumes {
    on_disk: BTreeMap<VolumeName, String>,
    in_memory: BTreeMap<VolumeName, (String, BTreeMap<String, SecretBytes>)>,
}

/// A container that never starts, with the volumes on disk: the engine reads and writes them through it. Those in
/// memory are not in it, so that a link that a step leaves behind leads to nothing else.
pub(super) struct Door {
    container: String,
    volumes: Vec<VolumeName>,
}

pub(super) fn any_secret(volumes: &[VolumeRequest]) -> bool {
    volumes.iter().any(|volume| matches!(volume.content, VolumeContent::Secret(_)))
}

impl Volumes {
    /// Makes them, all at once.
    pub(super) async fn create(
        engine: &DockerEngine,
        scope: &PlacementScope,
        requests: Vec<VolumeRequest>,
    ) -> Result<Self, PlacementError> {
        let mut volumes = Self { on_disk: BTreeMap::new(), in_memory: BTreeMap::new() };
        let mut creations = Vec::new();
        for VolumeRequest { name, content } in requests {
            let in_engine = scope.object_name(name.as_str());
            let mut driver_opts = HashMap::new();
            match content {
                VolumeContent::Empty => {
                    volumes.on_disk.insert(name, in_engine.clone());
                }
                VolumeContent::Secret(files) => {
                    if let Some(file) = files.keys().find(|file| !is_file_name(file)) {
                        return Err(PlacementError::SecretName { volume: name, file: file.clone() });
                    }
                    driver_opts = memory(&files);
                    volumes.in_memory.insert(name, (in_engine.clone(), files));
                }
            }
            let request = VolumeCreateRequest {
                name: Some(in_engine),
                driver: Some("local".into()),
                driver_opts: Some(driver_opts),
                labels: Some(labels(scope, None)),
                ..Default::default()
            };
            creations.push(async move { engine.current().docker.create_volume(request).await });
        }
        for created in futures::future::join_all(creations).await {
            created.map_err(|error| engine_error(engine.socket(), CREATE, error))?;
        }
        Ok(volumes)
    }

    /// The engine's names.
    pub(super) fn names(&self) -> BTreeMap<VolumeName, String> {
        let in_memory = self.in_memory.iter().map(|(name, (in_engine, _))| (name, in_engine));
        self.on_disk.iter().chain(in_memory).map(|(name, in_engine)| (name.clone(), in_engine.clone())).collect()
    }

    pub(super) fn any_in_memory(&self) -> bool {
        !self.in_memory.is_empty()
    }

    pub(super) fn in_memory_names(&self) -> BTreeSet<VolumeName> {
        self.in_memory.keys().cloned().collect()
    }

    /// The volumes in memory as mounts of the helper that holds them.
    pub(super) fn in_memory(&self) -> Vec<Mount> {
        self.in_memory.iter().map(|(name, (in_engine, _))| mount(name, in_engine)).collect()
    }

    /// Makes the way for archives, where there are volumes on disk.
    pub(super) async fn door(
        &self,
        engine: &DockerEngine,
        scope: &PlacementScope,
    ) -> Result<Option<Door>, EngineError> {
        if self.on_disk.is_empty() {
            return Ok(None);
        }
        let mounts = self.on_disk.iter().map(|(name, in_engine)| mount(name, in_engine)).collect();
        let host = HostConfig { network_mode: Some("none".into()), mounts: Some(mounts), ..Default::default() };
        let mut body = helper::body(labels(scope, None), host);
        // Archives are unpacked from its root on, and nothing ever runs in it.
        body.host_config.get_or_insert_default().readonly_rootfs = Some(false);
        let container = helper::create(engine, &scope.owner, &scope.object_name("door"), body).await;
        let container = container.map_err(|error| engine_error(engine.socket(), CREATE, error))?;
        Ok(Some(Door { container, volumes: self.on_disk.keys().cloned().collect() }))
    }

    /// Writes the secrets into the memory that a running helper holds.
    pub(super) async fn fill(&self, engine: &DockerEngine, holder: &str) -> Result<(), EngineError> {
        const OPERATION: &str = "write a secret volume";
        for (name, (_, files)) in &self.in_memory {
            let mut archive = tar::Builder::new(Vec::new());
            for (file, content) in files {
                // Read by whatever user a step has; the volume is mounted where a step asks for it only.
                let appended = helper::append(&mut archive, file, 0o444, content.expose());
                appended.map_err(|error| EngineError::Broken { operation: OPERATION, source: error.into() })?;
            }
            let archive = archive.into_inner();
            let archive =
                archive.map_err(|error| EngineError::Broken { operation: OPERATION, source: error.into() })?;
            let options = UploadToContainerOptionsBuilder::default().path(&folder(name, "")).build();
            let docker = &engine.current().docker;
            let uploaded = docker.upload_to_container(holder, Some(options), bollard::body_full(archive.into()));
            uploaded.await.map_err(|error| engine_error(engine.socket(), OPERATION, error))?;
        }
        Ok(())
    }
}

/// The local driver's options for memory that holds these files.
fn memory(files: &BTreeMap<String, SecretBytes>) -> HashMap<String, String> {
    const PAGE: u64 = 4096;
    let bytes: u64 = files.values().map(|content| (content.expose().len() as u64).next_multiple_of(PAGE) + PAGE).sum();
    let options = format!("size={},mode=0755,nosuid,nodev,noexec", bytes.max(LEAST_MEMORY));
    [("type", "tmpfs"), ("device", "tmpfs"), ("o", options.as_str())]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !matches!(name, "." | "..") && !name.contains(['/', '\0'])
}

fn mount(name: &VolumeName, in_engine: &str) -> Mount {
    Mount {
        target: Some(folder(name, "")),
        source: Some(in_engine.to_owned()),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..Default::default() }),
        ..Default::default()
    }
}

/// A folder of a volume as the helpers have it.
fn folder(volume: &VolumeName, path: &str) -> String {
    format!("{ROOT}/{volume}/{path}")
}

/// The door's container and the folder's path in it.
fn through<'a>(door: Option<&'a Door>, volume: &VolumeName, path: &str) -> Result<(&'a str, String), ArchiveError> {
    let door = door.filter(|door| door.volumes.contains(volume));
    let door = door.ok_or_else(|| ArchiveError::VolumeMissing { volume: volume.clone() })?;
    // Where links of the volume lead is the engine's to judge: it follows them within the door alone.
    if path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(ArchiveError::FolderMissing { volume: volume.clone(), folder: path.to_owned() });
    }
    Ok((&door.container, folder(volume, path)))
}

pub(super) async fn put(
    engine: &DockerEngine,
    door: Option<&Door>,
    volume: &VolumeName,
    archive: NewArchive,
) -> Result<(), ArchiveError> {
    let (container, folder) = through(door, volume, "")?;
    // The engine refuses links that lead out of the folder into which it unpacks. A source may have some, and they are
    // nobody's business before somebody follows them: it unpacks into the door's own root.
    let options = UploadToContainerOptionsBuilder::default().path("/").build();
    let archive = archive(folder.trim_start_matches('/'));
    // What broke in the source is told apart from what broke in the engine by asking here.
    let (broke, mut why) = tokio::sync::oneshot::channel();
    let mut broke = Some(broke);
    let archive = archive.inspect_err(move |error| {
        if let Some(broke) = broke.take() {
            let _ = broke.send(io::Error::new(error.kind(), error.to_string()));
        }
    });
    let patient = engine.current().patient.clone();
    let uploaded = patient.upload_to_container(container, Some(options), bollard::body_try_stream(archive)).await;
    if let Ok(source) = why.try_recv() {
        return Err(ArchiveError::Source { volume: volume.clone(), source });
    }
    uploaded.map_err(|error| sort(engine, volume, "", PUT, error))
}

pub(super) async fn get(
    engine: &DockerEngine,
    door: Option<&Door>,
    volume: &VolumeName,
    path: &str,
) -> Result<ArchiveStream<EngineError>, ArchiveError> {
    let (container, folder) = through(door, volume, path)?;
    // The dot makes it the folder's own entry, whatever its name is, and an error where it is no folder.
    let options = DownloadFromContainerOptionsBuilder::default().path(&format!("{folder}/.")).build();
    let patient = engine.current().patient.clone();
    let mut parts = Box::pin(patient.download_from_container(container, Some(options)));
    // The engine says before the first byte whether there is such a folder.
    let first = match parts.next().await {
        Some(Ok(first)) => Some(first),
        Some(Err(error)) => return Err(sort(engine, volume, path, GET, error)),
        None => None,
    };
    let socket = engine.socket().clone();
    let rest = parts.map_err(move |error| engine_error(&socket, GET, error));
    Ok(futures::stream::iter(first.map(Ok)).chain(rest).boxed())
}

fn sort(engine: &DockerEngine, volume: &VolumeName, path: &str, operation: &'static str, error: Error) -> ArchiveError {
    let volume = volume.clone();
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            let no_folder = ["Could not find the file", "extraction point is not a directory", "not a directory"];
            if status_code == 404 || no_folder.iter().any(|text| message.contains(text)) {
                return ArchiveError::FolderMissing { volume, folder: path.to_owned() };
            }
            let message = crate::wire::one_line(&message);
            let source = match message.contains("no space left on device") {
                true => EngineError::DiskFull { message },
                false => EngineError::Refused { operation, message },
            };
            ArchiveError::Machinery { volume, source }
        }
        error => ArchiveError::Machinery { volume, source: engine_error(engine.socket(), operation, error) },
    }
}
