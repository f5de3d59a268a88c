//! Runs the server in this process: logging, runtime, signals.

use std::io::IsTerminal as _;

use cooper_server::{Server, StartError};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::settings::{LogFormat, ServeSettings};

/// Runs a server until it is told to stop.
pub(crate) fn serve(settings: ServeSettings) -> Result<Exit, Stop> {
    start_logging(&settings);
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
    if !settings.server.listen.ip().is_loopback() {
        tracing::warn!("listening beyond this machine without TLS: put a proxy with TLS before it");
    }
    let server = tokio::select! {
        server = Server::start(settings.server) => server.map_err(|error| start_fault(&error))?,
        signal = signals.next() => {
            tracing::info!("{signal} during the start");
            return Ok(Exit::Success);
        }
    };
    let signal = signals.next().await;
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

/// The signals that stop a server.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(windows)]
    interrupt: tokio::signal::windows::CtrlC,
}

impl Signals {
    fn listen() -> Result<Self, Fault> {
        let fault = |error: std::io::Error| Fault::machinery(format!("signals can't be listened for: {error}"));
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                interrupt: signal(SignalKind::interrupt()).map_err(fault)?,
                terminate: signal(SignalKind::terminate()).map_err(fault)?,
            })
        }
        #[cfg(windows)]
        {
            Ok(Self { interrupt: tokio::signal::windows::ctrl_c().map_err(fault)? })
        }
    }

    /// Waits for the next signal; gives its name.
    async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        {
            tokio::select! {
                _ = self.interrupt.recv() => "interrupted",
                _ = self.terminate.recv() => "told to end",
            }
        }
        #[cfg(windows)]
        {
            self.interrupt.recv().await;
            "interrupted"
        }
    }
}

/// Logs go to standard error, in colour on a terminal only.
fn start_logging(settings: &ServeSettings) {
    // The settings were checked: a filter that is not one does not come this far.
    let filter = settings.log_filter.parse::<Targets>().unwrap_or_default();
    let registry = tracing_subscriber::registry().with(filter);
    let started = match settings.log_format {
        LogFormat::Json => {
            registry.with(tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Pretty => {
            let colours = std::io::stderr().is_terminal();
            registry.with(tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
        }
    };
    if let Err(error) = started {
        crate::output::warning(&format!("the log can't be started: {}", chain(&error)));
    }
}
