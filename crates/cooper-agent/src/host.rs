//! An agent beside a container engine that comes and goes: in the server's process and in one of its own.

use std::sync::Arc;
use std::time::Duration;

use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::clock::Clock;
use cooper_ports::engine::EngineError;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::connect::Connector;
use crate::error::{AgentError, chain};
use crate::remote::RemoteServer;
use crate::settings::AgentSettings;

/// How often an engine that is not there is looked for.
const ENGINE_PERIOD: Duration = Duration::from_secs(5);

/// What an agent needs beside its settings.
pub struct AgentHost {
    /// What it is told.
    pub settings: AgentSettings,
    /// The engine's socket, a path or `unix://` address; the usual one if absent.
    pub engine_socket: Option<String>,
    /// The way to the server.
    pub connector: Arc<dyn Connector>,
    /// The server whose registry is to be at hand under its loopback name, where that is not on this machine.
    pub forward: Option<RemoteServer>,
    /// Dates log frames.
    pub clock: Arc<dyn Clock>,
}

impl AgentHost {
    /// Runs the agent until `stop` fires. Without an engine there is none: this says so, and looks again. An error means
    /// that the agent can't begin as things stand.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), AgentError> {
        let mut complained = false;
        while let Some(engine) = self.connect(&mut complained, stop).await {
            let mut agent = Agent::new(self.settings.clone(), Arc::new(engine), self.clock.clone());
            if let Some(server) = &self.forward {
                agent = agent.forwarding(server.clone());
            }
            // A task of its own, so that a panic ends this life of the agent and not all later ones.
            match tokio::spawn(agent.run(self.connector.clone(), stop.clone())).await {
                Ok(ended) => return ended,
                Err(error) => tracing::error!(%error, "agent failed; it is started again"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(ENGINE_PERIOD) => {}
            }
        }
        Ok(())
    }

    /// Waits for the engine; `None` when it is time to stop before it is there.
    async fn connect(&self, complained: &mut bool, stop: &CancellationToken) -> Option<DockerEngine> {
        loop {
            match self.try_connect().await {
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

    async fn try_connect(&self) -> Result<DockerEngine, EngineError> {
        DockerEngine::connect(EngineSocket::choose(self.engine_socket.as_deref(), None)?).await
    }
}
