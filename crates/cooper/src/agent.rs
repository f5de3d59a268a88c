//! Runs an agent in this process, until a signal ends it.

use std::path::Path;
use std::sync::Arc;

use cooper_agent::{AgentHost, AgentSettings, ReconnectWindow, RemoteServer, SystemClock};
use cooper_ports::engine::EngineOwner;
use tokio_util::sync::CancellationToken;

use crate::connection::read_token;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::logging;
use crate::settings::AgentProgramSettings;
use crate::signals::Signals;

/// Runs an agent until it is told to stop.
pub(crate) fn run(settings: AgentProgramSettings) -> Result<Exit, Stop> {
    logging::start(settings.log_format, &settings.log_filter);
    let host = host(settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::machinery(format!("no runtime: {}", chain(&error))))?;
    let ended = runtime.block_on(work(host));
    // What is late, or was told to end at once, must not keep the process.
    runtime.shutdown_background();
    ended
}

fn host(settings: AgentProgramSettings) -> Result<AgentHost, Stop> {
    let token = read_token(&settings.token_file)?;
    warn_of_readers(&settings.token_file);
    let server =
        RemoteServer::new(settings.server.clone(), &settings.trust).map_err(|error| Fault::usage(chain(&error)))?;
    // Agents of several servers may share an engine.
    let owner = EngineOwner::new(&format!("{}/{}", settings.server, settings.name));
    let mut agent = AgentSettings::new(settings.name, settings.slots, settings.data_dir, token, owner);
    if let Some(pool) = settings.pool {
        agent.pool = pool;
    }
    agent.platforms = settings.platforms;
    agent.disk = settings.disk;
    agent.steps = settings.steps;
    agent.source_roots = settings.source_roots;
    agent.reconnect = ReconnectWindow::REMOTE;
    agent.shutdown_grace = settings.shutdown_grace;
    Ok(AgentHost {
        settings: agent,
        engine_socket: settings.engine_socket,
        connector: Arc::new(server.clone()),
        forward: Some(server),
        clock: Arc::new(SystemClock::start()),
    })
}

async fn work(host: AgentHost) -> Result<Exit, Stop> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    tracing::info!(agent = %host.settings.name, "agent starts");
    let mut work = std::pin::pin!(host.run(&stop));
    loop {
        tokio::select! {
            ended = &mut work => return match ended {
                Ok(()) => {
                    tracing::info!("stopped");
                    Ok(Exit::Success)
                }
                Err(error) => Err(Fault::usage(chain(&error)).into()),
            },
            signal = signals.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("{signal}: stopped at once; the engine is cleaned up at the next start");
                    return Ok(Exit::Canceled);
                }
                tracing::info!("{signal}: stopping; a second signal stops at once");
                stop.cancel();
            }
        }
    }
}

/// A token that others can read is theirs too.
fn warn_of_readers(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0) {
            tracing::warn!("token file {} may be read by others: run `chmod 600` on it", path.display());
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}
