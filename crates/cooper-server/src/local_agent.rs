//! The agent inside the server's process. It speaks the agents' protocol over a stream in memory, as a remote one does
//! over the network, and has no other way into the server.
//!
//! Without an engine there is no agent: the server goes on without, says so, and looks again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cooper_agent::{AgentHost, AgentSettings, InProcessConnector};
use cooper_ports::engine::EngineOwner;
use cooper_types::{AgentName, PrincipalName};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use crate::keys::{KEY_FILE, ServerKey};
use crate::listen::Connections;
use crate::problem::chain;
use crate::settings::LocalAgent;

/// How soon an agent that could not begin is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);
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

/// Where a server that listens at this address takes connections in clear: from its own machine, if that can be seen.
pub(crate) fn here(listens: SocketAddr) -> Option<SocketAddr> {
    let ip = match listens.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    ip.is_loopback().then_some(SocketAddr::new(ip, listens.port()))
}

/// Starts the agent beside the server, which takes connections in clear at `here`.
pub(crate) fn start(
    settings: LocalAgent,
    core: Arc<Core>,
    connections: Connections,
    work_dir: PathBuf,
    grace: Duration,
    here: Option<SocketAddr>,
) -> Running {
    let stop = CancellationToken::new();
    let task = tokio::spawn(run((settings, here), core, connections, work_dir, grace, stop.clone()));
    Running { stop, task }
}

/// Whose the agent's things are in an engine. Agents of two servers may share one, and both be called `local`.
fn owner(key: &ServerKey, name: &AgentName) -> EngineOwner {
    EngineOwner::new(&format!("{}/{name}", key.identity()))
}

/// Whose things the own agent of a server with this data directory has in its engine. Nobody's if there is no key there.
pub fn owner_of(data_dir: &Path, name: &AgentName) -> Option<EngineOwner> {
    let key = data_dir.join(KEY_FILE);
    key.is_file().then(|| ServerKey::load_or_create(&key).ok()).flatten().map(|key| owner(&key, name))
}

async fn run(
    (settings, here): (LocalAgent, Option<SocketAddr>),
    core: Arc<Core>,
    connections: Connections,
    work_dir: PathBuf,
    grace: Duration,
    stop: CancellationToken,
) {
    let principal = PrincipalName::parse(PRINCIPAL).expect("a constant name is valid");
    let token = core.access.local_agent_token(principal);
    let owner = owner(&core.key, &settings.name);
    // Streams end with the agent, or when the server closes them; dropping this would end them at once.
    let graceful = GracefulShutdown::new();
    let connector = Arc::new(InProcessConnector::new(move |stream| {
        tokio::spawn(connections.clone().serve(stream, graceful.watcher()));
    }));
    let mut agent = AgentSettings::new(settings.name, settings.slots, work_dir, token, owner);
    agent.disk = settings.disk;
    agent.steps = settings.steps;
    agent.credentials = settings.credentials;
    agent.source_roots = core.source_roots.clone();
    agent.server_here = here;
    // What else has to end at a stop needs some of the server's time.
    agent.shutdown_grace = agent.shutdown_grace.min(grace / 2);
    let clock = core.clock.clone();
    let host = AgentHost { settings: agent, engine_socket: settings.engine_socket, connector, forward: None, clock };
    while let Err(error) = host.run(&stop).await {
        tracing::error!(error = chain(&error), "local agent ended; it is started again");
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RESTART_PAUSE) => {}
        }
    }
}
