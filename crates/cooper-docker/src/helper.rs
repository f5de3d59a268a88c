//! The helper: an image of one small static program that an engine is given, and containers of it.
//!
//! A container of it that runs holds what others use: a network namespace with the registry's address in it, and
//! volumes in memory. One that never starts is a door to volumes on disk for archives.

mod forward;
mod frame;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, ImportImageOptionsBuilder};
use bytes::Bytes;
use cooper_ports::engine::{Connector, EngineDescription, EngineError, EngineOwner, OWNER_LABEL};
use cooper_types::Digest;
use futures::TryStreamExt as _;
use tokio::sync::Mutex;

use crate::attach;
use crate::container::create;
use crate::engine::{Connected, DockerEngine, engine_error};
use forward::Forwarding;

/// The program, for the platform that this was compiled for; empty where there is none.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/helper"));
/// Where it is in the image.
const PATH: &str = "/helper";
/// Nobody, by the number that distributions give him.
const USER: &str = "65534:65534";
/// Threads of the program at most: two for each connection, and a few.
const PIDS: i64 = 512;

/// Which owners' helper images are in the engine, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct HelperImages(Mutex<BTreeSet<String>>);

/// A helper that runs; it ends with this value.
pub(crate) struct Helper {
    /// The container's id.
    pub(crate) container: String,
    _forwarding: Forwarding,
}

impl HelperImages {
    /// The name of an owner's helper image, which is in the engine now.
    async fn ready(&self, engine: &DockerEngine, owner: &EngineOwner) -> Result<String, EngineError> {
        let name = format!("{}helper:{}", owner.name_prefix(), &Digest::sha256(PROGRAM).hex()[..12]);
        // One load at a time: the others wait for it.
        let mut known = self.0.lock().await;
        if !known.contains(&name) {
            load(engine, owner, &name).await?;
            known.insert(name.clone());
        }
        Ok(name)
    }

    /// Somebody removed it.
    async fn forget(&self, name: &str) {
        self.0.lock().await.remove(name);
    }
}

/// Creates a container of the helper from a body without image; its id. The image is given to the engine before,
/// where it is not there.
pub(crate) async fn create(
    engine: &DockerEngine,
    owner: &EngineOwner,
    name: &str,
    body: ContainerCreateBody,
) -> Result<String, bollard::errors::Error> {
    let mut tries = 0;
    loop {
        let image = engine.helpers().ready(engine, owner).await;
        let image = image.map_err(|error| bollard::errors::Error::IOError { err: std::io::Error::other(error) })?;
        let body = ContainerCreateBody { image: Some(image.clone()), ..body.clone() };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        match Box::pin(create::create(&engine.current().docker, options, body)).await {
            Ok(id) => return Ok(id),
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, message })
                if tries == 0 && message.contains("No such image") =>
            {
                tries += 1;
                engine.helpers().forget(&image).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The body of a helper's container, but for its network.
pub(crate) fn body(labels: HashMap<String, String>, host: HostConfig) -> ContainerCreateBody {
    ContainerCreateBody {
        labels: Some(labels),
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        host_config: Some(HostConfig {
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges".into()]),
            readonly_rootfs: Some(true),
            pids_limit: Some(PIDS),
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            ..host
        }),
        ..Default::default()
    }
}

/// Starts a created helper and waits until it listens.
pub(crate) async fn start(
    engine: &DockerEngine,
    container: String,
    connector: Option<Arc<dyn Connector>>,
) -> Result<Helper, StartError> {
    let current = engine.current();
    let (output, input) = attach::attach(&current.wire, &container, false, true).await.map_err(StartError::Engine)?;
    current.docker.start_container(&container, None).await.map_err(StartError::Refused)?;
    let forwarding = forward::serve(output, input, connector).await.map_err(StartError::Helper)?;
    Ok(Helper { container, _forwarding: forwarding })
}

/// Why a helper does not run.
pub(crate) enum StartError {
    /// There is no engine to talk to.
    Engine(EngineError),
    /// The engine did not start it.
    Refused(bollard::errors::Error),
    /// It started, and could not do its work.
    Helper(std::io::Error),
}

async fn load(engine: &DockerEngine, owner: &EngineOwner, name: &str) -> Result<(), EngineError> {
    const OPERATION: &str = "take the helper image";
    let current = engine.current();
    let Connected { docker, description, .. } = &*current;
    let archive = archive(owner, name, architecture(description)?);
    let archive = archive.map_err(|error| EngineError::Broken { operation: OPERATION, source: error.into() })?;
    let options = ImportImageOptionsBuilder::default().quiet(true).build();
    let answer = docker.import_image(options, bollard::body_full(archive), None);
    let said: Vec<_> = answer.try_collect().await.map_err(|error| engine_error(engine.socket(), OPERATION, error))?;
    let fault = said.into_iter().find_map(|line| line.error_detail.and_then(|detail| detail.message));
    if let Some(message) = fault {
        return Err(EngineError::Refused { operation: OPERATION, message: crate::wire::one_line(&message) });
    }
    Ok(())
}

/// The architecture that the program is for, as the engine calls it: its own, or there is no helper for it.
fn architecture(engine: &EngineDescription) -> Result<&'static str, EngineError> {
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    if PROGRAM.is_empty() || engine.native.os() != "linux" || engine.native.architecture() != ours {
        return Err(EngineError::Unsupported {
            engine: format!("{} {}", engine.name, engine.version),
            missing: format!(
                "the processor of this agent: it runs on {}, and the agent's helper is for linux/{ours}; run the agent \
                 beside the engine",
                engine.native
            ),
        });
    }
    Ok(ours)
}

/// The image as `docker load` takes it. The label keeps owners' images apart: what one removes, the other keeps.
fn archive(owner: &EngineOwner, name: &str, architecture: &str) -> std::io::Result<Bytes> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, PATH.trim_start_matches('/'), 0o755, PROGRAM)?;
    let layer = layer.into_inner()?;
    let config = serde_json::json!({
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": { "Entrypoint": [PATH], "User": USER, "Labels": { OWNER_LABEL: owner.label() } },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&layer).as_str()] },
        "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "cooper" }],
    });
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let mut image = tar::Builder::new(Vec::new());
    append(&mut image, "layer.tar", 0o644, &layer)?;
    append(&mut image, "config.json", 0o644, config.to_string().as_bytes())?;
    append(&mut image, "manifest.json", 0o644, manifest.to_string().as_bytes())?;
    Ok(image.into_inner()?.into())
}

/// Adds a file of root's to an archive.
pub(crate) fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, content)
}
