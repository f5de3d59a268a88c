//! The agent inside the server's process. It speaks the agents' protocol over a stream in memory, as a remote one does
//! over the network, and has no other way into the server.
//!
//! Without an engine there is no agent: the server goes on without, says so, and looks again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cooper_agent::{Agent, AgentSettings, InProcessConnector};
use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::engine::{EngineError, EngineOwner};
use cooper_types::PrincipalName;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::listen::Connections;
use crate::problem::chain;
use crate::settings::LocalAgent;

/// How often an engine that is not there is looked for.
const ENGINE_PERIOD: Duration = Duration::from_secs(5);
/// The principal that the local agent speaks for.
const PRINCIPAL: &str = "local-agent";

/// A local agent at work, or waiting for its engine.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Lets the agent end its steps and clean up, within its own grace.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "local agent panicked");
        }
    }
}

/// Starts the agent beside the server.
pub(crate) fn start(
    settings: LocalAgent,
    core: Arc<Core>,
    connections: Connections,
    work_dir: PathBuf,
    grace: Duration,
) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(settings, core, connections, work_dir, grace, stop.clone()));
    Running { stop, task }
}

async fn run(
    settings: LocalAgent,
    core: Arc<Core>,
    connections: Connections,
    work_dir: PathBuf,
    grace: Duration,
    stop: CancellationToken,
) {
    let principal = PrincipalName::parse(PRINCIPAL).expect("a constant name is valid");
    let token = core.access.local_agent_token(principal);
    // Agents of two servers may share an engine, and both be called `local`.
    let owner = EngineOwner::new(&format!("{}/{}", core.key.identity(), settings.name));
    // Streams end with the agent, or when the server closes them; dropping this would end them at once.
    let graceful = GracefulShutdown::new();
    let connector = Arc::new(InProcessConnector::new(move |stream| {
        tokio::spawn(connections.clone().serve(stream, graceful.watcher()));
    }));
    let mut complained = false;
    while let Some(engine) = connect(&settings, &mut complained, &stop).await {
        let mut agent_settings =
            AgentSettings::new(settings.name.clone(), settings.slots, work_dir.clone(), token.clone(), owner.clone());
        agent_settings.disk = settings.disk.clone();
        // What else has to end at a stop needs some of the server's time.
        agent_settings.shutdown_grace = agent_settings.shutdown_grace.min(grace / 2);
        let agent = Agent::new(agent_settings, Arc::new(engine), core.clock.clone());
        // A task of its own, so that a panic ends this life of the agent and not all later ones.
        match tokio::spawn(agent.run(connector.clone(), stop.clone())).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(error = chain(&error), "local agent ended; it is started again"),
            Err(error) => tracing::error!(%error, "local agent failed; it is started again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ENGINE_PERIOD) => {}
        }
    }
}

/// Waits for the engine; `None` when the server stops before it is there.
async fn connect(settings: &LocalAgent, complained: &mut bool, stop: &CancellationToken) -> Option<DockerEngine> {
    loop {
        match try_connect(settings).await {
            Ok(engine) => {
                *complained = false;
                return Some(engine);
            }
            Err(error) if !*complained => {
                *complained = true;
                tracing::warn!(error = chain(&error), "no container engine: runs wait until there is one");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(ENGINE_PERIOD) => {}
        }
    }
}

async fn try_connect(settings: &LocalAgent) -> Result<DockerEngine, EngineError> {
    DockerEngine::connect(EngineSocket::choose(settings.engine_socket.as_deref(), None)?).await
}
