//! Runs the server in this process, until a signal ends it.

use cooper_server::{Server, StartError};

use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::logging;
use crate::settings::ServeSettings;
use crate::signals::Signals;

/// Runs a server until it is told to stop.
pub(crate) fn serve(settings: ServeSettings) -> Result<Exit, Stop> {
    logging::start(settings.log_format, &settings.log_filter);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::machinery(format!("no runtime: {}", chain(&error))))?;
    let ended = runtime.block_on(run(settings));
    // What is late, or was told to end at once, must not keep the process.
    runtime.shutdown_background();
    ended
}

async fn run(settings: ServeSettings) -> Result<Exit, Stop> {
    // Before anything is opened, so that a signal during the start is not lost.
    let mut signals = Signals::listen()?;
    if settings.server.tls.is_none() && !settings.server.listen.ip().is_loopback() {
        tracing::warn!(
            "listening beyond this machine without TLS: use --tls-cert or --tls-self-signed, or put a proxy with TLS \
             before it"
        );
    }
    let server = tokio::select! {
        server = Server::start(settings.server) => server.map_err(|error| start_fault(&error))?,
        signal = signals.next() => {
            tracing::info!("{signal} during the start");
            return Ok(Exit::Success);
        }
    };
    let signal = signals.next_but_reload(|| server.reload()).await;
    tracing::info!("{signal}: stopping; a second signal stops at once");
    tokio::select! {
        stopped = server.stop() => match stopped {
            Ok(()) => Ok(Exit::Success),
            Err(error) => Err(Fault::machinery(chain(&error)).into()),
        },
        signal = signals.next() => {
            tracing::warn!("{signal}: stopped at once; what was left is recovered at the next start");
            Ok(Exit::Canceled)
        }
    }
}

/// Most of what keeps a server from starting is for its user to change: an address in use, a folder without rights.
fn start_fault(error: &StartError) -> Fault {
    Fault { exit: Exit::Usage, message: chain(error), hint: None }
}
