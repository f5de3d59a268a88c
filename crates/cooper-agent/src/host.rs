//! An agent beside a container engine that comes and goes: in the server's process and in one of its own.

use std::sync::Arc;
use std::time::Duration;

use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::clock::Clock;
use cooper_ports::engine::EngineError;
use tokio_util::sync::CancellationToken;

use crate::absent::Absent;
use crate::agent::{Agent, new_life};
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
    /// Runs the agent until `stop` fires. Without an engine it is connected and declines everything with the reason, and the
    /// engine is looked for again. An error means that the agent can't begin as things stand.
    pub async fn run(&self, stop: &CancellationToken) -> Result<(), AgentError> {
        let mut complained = false;
        loop {
            let life = new_life();
            let Some(engine) = self.connect(&life, &mut complained, stop).await? else { return Ok(()) };
            let agent = Agent::new(self.settings.clone(), Arc::new(engine), self.clock.clone());
            let mut agent = agent.living_as(life);
            if let Some(server) = &self.forward {
                agent = agent.forwarding(server.clone());
            }
            // A task of its own, so that a panic ends this life of the agent and not all later ones.
            match tokio::spawn(agent.run(self.connector.clone(), stop.clone())).await {
                Ok(ended) => return ended,
                Err(error) => tracing::error!(%error, "agent failed; it is started again"),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(ENGINE_PERIOD) => {}
            }
        }
    }

    /// Waits for the engine; `None` when it is time to stop before it is there.
    async fn connect(
        &self,
        life: &str,
        complained: &mut bool,
        stop: &CancellationToken,
    ) -> Result<Option<DockerEngine>, AgentError> {
        let mut absent: Option<Absent> = None;
        let found = loop {
            let why = match self.try_connect().await {
                Ok(engine) => break Some(engine),
                Err(error) => chain(&error),
            };
            if !std::mem::replace(complained, true) {
                tracing::warn!(error = why, "no container engine: runs wait until there is one");
            }
            match &absent {
                Some(absent) => absent.because(why),
                None => absent = Some(Absent::begin(&self.settings, self.connector.clone(), life, why)?),
            }
            tokio::select! {
                () = stop.cancelled() => break None,
                () = tokio::time::sleep(ENGINE_PERIOD) => {}
            }
        };
        if let Some(absent) = absent {
            absent.end().await;
        }
        if found.is_some() {
            *complained = false;
        }
        Ok(found)
    }

    async fn try_connect(&self) -> Result<DockerEngine, EngineError> {
        DockerEngine::connect(EngineSocket::choose(self.engine_socket.as_deref(), None)?).await
    }
}
