//! `cooper restore`: a data directory from a backup.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use cooper_server::RestoreError;

use super::backup::{DataArgs, summary};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop, chain};
use crate::output;

/// What holds afterwards.
pub(crate) const RESTORE_HELP: &str = "\
The folder must be empty or absent; everything is checked, and on any error nothing is left in it.
Start the server with `cooper serve` afterwards, and never the old one beside it: they are the same
server to their engines and agents. Runs get numbers well beyond the old ones, so that none is given
twice. Tokens that were revoked after the backup work again: revoke them again.";

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    #[command(flatten)]
    data: DataArgs,
}

pub(crate) async fn run(args: &RestoreArgs, environment: &Environment) -> Result<Exit, Stop> {
    let data_dir = args.data.resolve(environment)?;
    let name = args.backup.display();
    let archive: Box<dyn Read> = match args.backup.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(
            File::open(&args.backup).map_err(|error| Fault::usage(format!("backup {name} can't be read: {error}")))?,
        ),
    };
    let archive = BufReader::with_capacity(256 * 1024, archive);
    let report = cooper_server::restore(archive, &data_dir).await.map_err(|error| fault(&error, &name.to_string()))?;
    output::note(&format!("Restored {} into {}.", summary(&report), data_dir.display()));
    if !report.has_key {
        output::warning("the backup was without the server's key: put it to `key` in the data folder before the start");
    }
    output::warning("tokens that were revoked after the backup work again: look at `cooper token list`");
    Ok(Exit::Success)
}

fn fault(error: &RestoreError, name: &str) -> Fault {
    let message = format!("{name}: {}", chain(error));
    match error {
        RestoreError::Archive(_) | RestoreError::Database(_) | RestoreError::NotEmpty(_) | RestoreError::Lock(_) => {
            Fault::usage(message)
        }
        RestoreError::Read(_) | RestoreError::Write { .. } => Fault::machinery(message),
    }
}
