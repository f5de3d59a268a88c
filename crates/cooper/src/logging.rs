//! The log of a server or an agent.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::fault::chain;
use crate::settings::LogFormat;

/// The crate that checks certificates by the system's means.
const VERIFIER: &str = "rustls_platform_verifier";

/// Logs go to standard error, in colour on a terminal only.
pub(crate) fn start(form: LogFormat, filter: &str) {
    // The settings were checked: a filter that is not one does not come this far.
    // The verifier logs what its caller tells in a better line.
    let quiet = Targets::new().with_target(VERIFIER, LevelFilter::OFF);
    let named = filter.contains(VERIFIER);
    let filter = filter.parse::<Targets>().unwrap_or_default();
    let filter = if named { filter } else { filter.with_targets(quiet) };
    let registry = tracing_subscriber::registry().with(filter);
    let started = match form {
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
