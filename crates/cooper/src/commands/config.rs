//! `cooper config show`: which settings a server would start with, and who set them.

use clap::{Args, Subcommand};

use super::serve::{LAYERS_HELP, ServeArgs};
use crate::cli::OutputForm;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::{output, settings, table};

#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting of `cooper serve` with its origin; faults are reported as a start would
    #[command(after_help = LAYERS_HELP)]
    Show(Box<ShowArgs>),
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// The form of the list
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
    #[command(flatten)]
    serve: ServeArgs,
}

pub(crate) fn run(args: &ConfigArgs, environment: &Environment) -> Result<Exit, Stop> {
    let ConfigCommand::Show(args) = &args.command;
    let flags = args.serve.flags();
    let shown = settings::shown(&flags, args.serve.config.as_deref(), environment).map_err(Stop::Faults)?;
    match args.output {
        OutputForm::Json => output::json(&shown)?,
        OutputForm::Text => {
            let rows: Vec<[String; 3]> =
                shown.into_iter().map(|setting| [setting.name.to_owned(), setting.value, setting.origin]).collect();
            output::line(&table::table(["SETTING", "VALUE", "FROM"], &rows))?;
        }
    }
    Ok(Exit::Success)
}
