//! An agent's life: prepare, work, shut down.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cooper_ports::clock::Clock;
use cooper_ports::engine::{ContainerEngine, EngineOwner};
use cooper_types::RunId;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;

use crate::conditions::{Condition, Conditions};
use crate::connect::{Bearer, Connector};
use crate::disk::DiskWatch;
use crate::engine_watch::EngineWatch;
use crate::error::{AgentError, chain};
use crate::forward::Forwarder;
use crate::greeting::Greeting;
use crate::link::Link;
use crate::log::{Limits, LogHub};
use crate::remote::RemoteServer;
use crate::settings::AgentSettings;
use crate::step::{StepRunner, Turns};
use crate::supervisor::Supervisor;

/// Messages of the server that may wait for the supervisor, which never waits itself.
const LINK_QUEUE: usize = 64;
/// How long the last messages may take to get out at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause between attempts to clean the engine up.
const REAP_PAUSE: Duration = Duration::from_secs(5);
/// How long the engine may go on with what an earlier life asked for as it died: the making of a container, for instance.
const REAP_AGAIN: Duration = Duration::from_secs(2);
/// How long a finished step's result waits for a server that does not take the step's log.
const LOG_PATIENCE: Duration = Duration::from_secs(10);
/// The file in the work folder that says that it is in use.
const LOCK_FILE: &str = "agent.lock";

/// An agent that is not running yet.
pub struct Agent {
    settings: AgentSettings,
    engine: Arc<dyn ContainerEngine>,
    clock: Arc<dyn Clock>,
    forward: Option<RemoteServer>,
    /// Which life of the agent this is.
    incarnation: String,
}

impl Agent {
    /// An agent beside `engine`. The clock dates log frames.
    pub fn new(settings: AgentSettings, engine: Arc<dyn ContainerEngine>, clock: Arc<dyn Clock>) -> Self {
        Self { settings, engine, clock, forward: None, incarnation: new_life() }
    }

    /// The same as this life, which the server knows already.
    pub(crate) fn living_as(self, incarnation: String) -> Self {
        Self { incarnation, ..self }
    }

    /// The same with the registry of this server at hand under its loopback name, where it has one.
    pub fn forwarding(self, server: RemoteServer) -> Self {
        Self { forward: Some(server), ..self }
    }

    /// Runs until `shutdown` fires; then stops its steps, cleans up and tells the server, within the settings' grace and
    /// a little. A server that is away is waited for, for ever. An error means that it never began.
    pub async fn run(self, connector: Arc<dyn Connector>, shutdown: CancellationToken) -> Result<(), AgentError> {
        let Self { settings, engine, clock, forward, incarnation } = self;
        if settings.slots == 0 {
            return Err(AgentError::NoSlots);
        }
        let bearer = Bearer::new(&settings.token)?;
        let conditions = Conditions::default();
        let engine_watch =
            EngineWatch::new(Arc::clone(&engine), conditions.clone(), settings.engine_period, settings.describe_period);
        let engine_state = engine_watch.state();
        let (idle, is_idle) = watch::channel(true);
        let disk_was_full = Arc::new(Notify::new());
        let disk = DiskWatch::new(
            Arc::clone(&engine),
            conditions.clone(),
            settings.disk.clone(),
            settings.work_dir.clone(),
            is_idle,
            Arc::clone(&disk_was_full),
        );
        let greeting = Greeting::new(&settings, engine_watch.description(), disk.space(), &incarnation)?;
        let work_dir = settings.work_dir.clone();
        let prepared = tokio::task::spawn_blocking(move || prepare(&work_dir)).await;
        // The lock is held until the agent is over.
        let _lock = prepared.unwrap_or_else(|panic| {
            let source = std::io::Error::other(panic);
            Err(AgentError::WorkDir { path: settings.work_dir.clone(), source })
        })?;
        let limits = Limits {
            memory_bytes: settings.log_memory_bytes,
            spool_bytes: settings.log_spool_bytes,
            patience: LOG_PATIENCE,
        };
        let hub = LogHub::new(limits);
        let (channel, channels) = watch::channel(None);
        let (events, link_events) = mpsc::channel(LINK_QUEUE);
        let (registry, registries) = watch::channel(None);
        let forwarder = forward.clone().map(|server| Forwarder::new(server, registries, conditions.clone()));
        // What is left in the engine may be another process's of the same name, until the server has taken this one.
        conditions.set(Condition::Leftovers, Some("it removes what its earlier life left in the engine".to_owned()));
        let (reaped, is_reaped) = watch::channel(false);
        let leftovers = EarlierLife {
            engine: Arc::clone(&engine),
            owner: settings.engine_owner.clone(),
            conditions: conditions.clone(),
        };
        let reaping = leftovers.reap(channels.clone(), reaped);
        let link = Link {
            registry,
            ready: is_reaped,
            connector,
            bearer: bearer.clone(),
            greeting,
            reconnect: settings.reconnect,
            hub: Arc::clone(&hub),
            channel,
            events,
        };
        let (slots, grace, space) = (settings.slots, settings.shutdown_grace, disk.space());
        let runner = Arc::new(StepRunner {
            outside_pushes: Turns::default(),
            opened_any: AtomicBool::new(false),
            engine,
            engine_state,
            disk_was_full,
            clock,
            hub,
            channels,
            bearer,
            forward,
            settings,
        });
        let stop_link = CancellationToken::new();
        let mut link = tokio::spawn(link.keep(stop_link.clone()));
        let _reaping = AbortOnDropHandle::new(tokio::spawn(reaping));
        let _watch = AbortOnDropHandle::new(tokio::spawn(engine_watch.run()));
        let _forwarder = forwarder.map(|forwarder| AbortOnDropHandle::new(tokio::spawn(forwarder.run())));
        let _disk = AbortOnDropHandle::new(tokio::spawn(disk.run()));
        Supervisor::new(slots, Arc::clone(&runner), conditions, space, idle).run(link_events, shutdown, grace).await;
        runner.leave_engine().await;
        if tokio::time::timeout(FAREWELL, &mut link).await.is_err() {
            stop_link.cancel();
            let _ = link.await;
        }
        Ok(())
    }
}

/// A name for a life of an agent that no other life has.
pub(crate) fn new_life() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Makes the work folder ready: it is there, nobody else uses it, and nothing of an earlier life is in it.
fn prepare(work_dir: &Path) -> Result<File, AgentError> {
    let error = |source| AgentError::WorkDir { path: work_dir.to_owned(), source };
    std::fs::create_dir_all(work_dir).map_err(error)?;
    let lock = File::options().create(true).append(true).open(work_dir.join(LOCK_FILE)).map_err(error)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(AgentError::WorkDirInUse { path: work_dir.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(error(source)),
    }
    for entry in std::fs::read_dir(work_dir).map_err(error)? {
        let entry = entry.map_err(error)?;
        // A work folder that was given by mistake keeps what is not ours.
        if entry.file_name().to_str().is_some_and(is_placement_dir) {
            std::fs::remove_dir_all(entry.path()).map_err(error)?;
        }
    }
    Ok(lock)
}

/// Whether a folder has the form of [`StepRunner::placement_dir`].
fn is_placement_dir(name: &str) -> bool {
    name.split_once('-').is_some_and(|(run, fence)| RunId::parse(run).is_ok() && fence.parse::<u64>().is_ok())
}

/// What an earlier life left in the engine.
struct EarlierLife {
    engine: Arc<dyn ContainerEngine>,
    owner: EngineOwner,
    conditions: Conditions,
}

impl EarlierLife {
    /// Removes them once the server has taken the agent's first stream, and says so. An engine that does not answer is
    /// asked again, and so is one that held something: a life that died in its work may have asked for more, which
    /// comes to be after it was looked for. No work is taken before.
    async fn reap(self, mut welcomed: watch::Receiver<Option<Channel>>, reaped: watch::Sender<bool>) {
        if welcomed.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            match self.engine.reap(&self.owner).await {
                Ok(found) => {
                    tracing::debug!(?found, "removed what an earlier life left in the engine");
                    // Networks alone are what agents keep between runs.
                    if found.containers + found.volumes + found.image_names == 0 {
                        break;
                    }
                    tokio::time::sleep(REAP_AGAIN).await;
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), "container engine can't be cleaned up; trying again");
                    tokio::time::sleep(REAP_PAUSE).await;
                }
            }
        }
        self.conditions.set(Condition::Leftovers, None);
        reaped.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_folder_is_emptied_of_ours_only_and_used_once() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for name in ["ca1-3", "ca-x", "precious"] {
            std::fs::create_dir(dir.path().join(name)).expect("folder");
            std::fs::write(dir.path().join(name).join("file"), "x").expect("file");
        }
        let lock = prepare(dir.path()).expect("ready");
        assert!(!dir.path().join("ca1-3").exists());
        assert!(dir.path().join("precious/file").exists() && dir.path().join("ca-x").exists());
        assert!(matches!(prepare(dir.path()), Err(AgentError::WorkDirInUse { .. })));
        drop(lock);
        assert!(prepare(dir.path()).is_ok());
    }
}
