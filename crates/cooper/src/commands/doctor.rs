//! `cooper doctor`: looks at everything that a server, its engine and its clients stand on, and says what to do.
//!
//! It changes nothing but a file of its own that it writes, syncs and removes.

mod check;
mod data;
mod engine;
mod machine;
mod providers;
mod server;

use clap::Args;

use super::backup::DataArgs;
use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;
use crate::settings::{self, Flags, Key, ServeSettings};
use check::{Check, Status};

/// What the words mean.
pub(crate) const DOCTOR_HELP: &str = "\
Run it where the server runs, as its user, to have everything looked at; elsewhere it looks at what can
be seen from there. It ends with 0 if nothing failed, warnings included, and with 6 otherwise.";

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// The form of the report
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    /// The container engine's socket [default: as for `cooper serve`]
    #[arg(long, value_name = "SOCKET")]
    engine: Option<String>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: &DoctorArgs, environment: &Environment) -> Result<Exit, Stop> {
    let checks = look(args, environment).await;
    match args.output {
        OutputForm::Json => output::json(&check::Report::of(&checks))?,
        OutputForm::Text => output::data(check::text(&checks).as_bytes())?,
    }
    match checks.iter().any(|check| check.status == Status::Failed) {
        true => Ok(Exit::Machinery),
        false => Ok(Exit::Success),
    }
}

async fn look(args: &DoctorArgs, environment: &Environment) -> Vec<Check> {
    let mut checks = Vec::new();
    let settings = settings(args, environment, &mut checks);
    let server = server::look(&args.server, environment, &mut checks).await;
    if let Some(settings) = &settings {
        data::look(&settings.server.data_dir, settings.server.secrets.key.is_some(), &mut checks).await;
        providers::look(&settings.server.secrets, &mut checks);
        // Whose server is on another machine needs no engine here.
        let needs_engine = args.engine.is_some() || !server.is_elsewhere;
        match &settings.server.local_agent {
            Some(agent) => engine::look(agent.engine_socket.as_deref(), needs_engine, &mut checks).await,
            None => checks.push(Check::skipped("engine", "the settings want no agent in the server's process")),
        }
    }
    machine::look(&mut checks);
    checks
}

/// The settings that a server would start with here.
fn settings(args: &DoctorArgs, environment: &Environment, checks: &mut Vec<Check>) -> Option<ServeSettings> {
    let mut flags: Flags = args.engine.iter().map(|text| (Key::Engine, text.clone())).collect();
    flags.extend(args.data.flags());
    match settings::resolve(&flags, args.data.config(), environment) {
        Ok(settings) => {
            checks.push(Check::ok("settings", "all are valid: `cooper config show` lists them"));
            Some(settings)
        }
        Err(faults) => {
            for fault in faults {
                let remedy = fault.hint.unwrap_or_else(|| "mend the setting that is named".to_owned());
                checks.push(Check::failed("settings", fault.message, remedy));
            }
            None
        }
    }
}
