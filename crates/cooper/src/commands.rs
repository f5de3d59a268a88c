//! The commands, one file each, and the way to them.

pub(crate) mod acr;
pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod build;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod credential;
pub(crate) mod doctor;
pub(crate) mod graph;
pub(crate) mod impact;
pub(crate) mod lint;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod logs;
mod openapi;
pub(crate) mod pool;
pub(crate) mod purge;
pub(crate) mod render;
pub(crate) mod repository;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod schema;
pub(crate) mod secret;
pub(crate) mod serve;
pub(crate) mod task;
pub(crate) mod token;
mod version;
pub(crate) mod wave;
pub(crate) mod webhook;

use std::future::Future;

use cooper_ports::failpoint;

use crate::cli::{Cli, Command};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::output;
use crate::settings::unknown_variables;

/// Runs the command that was asked for.
pub(crate) fn run(cli: Cli, environment: &Environment) -> Result<Exit, Stop> {
    if let Some(point) = environment.text("COOPER_FAILPOINT")? {
        failpoint::arm(&point).map_err(|error| Fault::usage(format!("COOPER_FAILPOINT is not valid: {error}")))?;
    }
    for line in unknown_variables(environment) {
        output::warning(&line);
    }
    match cli.command {
        Command::Agent(args) => agent::run(&args, environment),
        Command::Serve(args) => serve::run(&args, environment),
        Command::Build(args) => block_on_for(args.local(), build::run(&args, environment)),
        Command::Run(args) => block_on_for(args.local(), run::run(&args, environment)),
        Command::Login(args) => block_on(login::run(&args, environment)),
        Command::Logout(args) => logout::run(&args, environment),
        Command::Acr(args) => block_on(acr::run(&args, environment)),
        Command::Repository(args) => block_on(repository::run(&args, environment)),
        Command::Purge(args) => block_on(purge::run(&args, environment)),
        Command::Pool(args) => block_on(pool::run(&args, environment)),
        Command::Token(args) => block_on(token::run(&args, environment)),
        Command::Credential(args) => block_on(credential::run(&args, environment)),
        Command::Secret(args) => block_on(secret::run(&args, environment)),
        Command::Runs(args) => block_on(runs::run(&args, environment)),
        Command::Task(args) => block_on(task::run(&args, environment)),
        Command::Wave(args) => block_on(wave::run(&args, environment)),
        Command::Impact(args) => block_on(impact::run(&args, environment)),
        Command::Webhook(args) => block_on(webhook::run(&args, environment)),
        Command::Logs(args) => block_on(logs::run(&args, environment)),
        Command::Doctor(args) => block_on(doctor::run(&args, environment)),
        Command::Backup(args) => block_on(backup::run(&args, environment)),
        Command::Restore(args) => block_on(restore::run(&args, environment)),
        Command::Config(args) => config::run(&args, environment),
        Command::Completions(args) => completions::run(&args),
        Command::Lint(args) => lint::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Graph(args) => graph::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Openapi => openapi::run(),
        Command::Version => version::run(),
    }
}

/// Runs a client's command: one thread is enough for one conversation.
fn block_on(command: impl Future<Output = Result<Exit, Stop>>) -> Result<Exit, Stop> {
    block_on_for(false, command)
}

/// Runs a client's command, with threads for a server in this process where there is to be one.
fn block_on_for(serves: bool, command: impl Future<Output = Result<Exit, Stop>>) -> Result<Exit, Stop> {
    let mut builder = match serves {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime =
        builder.enable_all().build().map_err(|error| Fault::machinery(format!("no runtime: {}", chain(&error))))?;
    let result = runtime.block_on(command);
    // A name look-up that hangs must not keep the command alive.
    runtime.shutdown_background();
    result
}
