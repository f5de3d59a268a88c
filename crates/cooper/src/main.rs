//! `cooper`: arguments to settings to a command, and its end to an exit code.

mod agent;
mod azure;
mod build;
mod cli;
mod commands;
mod connection;
mod credentials;
mod display;
mod environment;
mod exit;
mod fault;
mod follow;
mod local;
mod logging;
mod output;
mod purge;
mod serve;
mod settings;
mod signals;
mod started;
mod table;
mod task;

use std::process::ExitCode;

use clap::Parser as _;

use cli::Cli;
use environment::Environment;
use exit::Exit;
use fault::Stop;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // clap writes help to stdout, and usage errors to stderr.
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            return match error.print() {
                Ok(()) => code.into(),
                Err(_) => Exit::Success.into(),
            };
        }
    };
    match commands::run(cli, &Environment::process()) {
        Ok(exit) => exit.into(),
        Err(Stop::OutputClosed) => Exit::Success.into(),
        Err(Stop::Fault(fault)) => {
            output::error(&fault);
            fault.exit.into()
        }
        Err(Stop::Faults(faults)) => {
            faults.iter().for_each(output::error);
            faults.first().map_or(Exit::Machinery, |fault| fault.exit).into()
        }
    }
}
