//! `cooper pool`: named sets of agents.

use clap::{Args, Subcommand};
use cooper_api::rest::{CreatePool, PoolView};
use cooper_types::PoolName;

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(crate) struct PoolArgs {
    #[command(subcommand)]
    command: PoolCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    /// List the pools
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Make a pool
    Create {
        /// The pool's name
        #[arg(value_name = "NAME")]
        name: String,
        /// What it is for, in a line
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Mark it for the code of strangers: pull requests of forks run in such a pool alone. Give it agents that do nothing
        /// else, because builds of one engine share a cache
        #[arg(long)]
        untrusted: bool,
        /// The form of the answer
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Delete a pool
    Delete {
        /// The pool's name
        #[arg(value_name = "NAME")]
        name: String,
        /// Cancel its unfinished runs and remove its agents with it
        #[arg(long)]
        force: bool,
    },
}

pub(crate) async fn run(args: &PoolArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        PoolCommand::List { output: form } => {
            let list = args.server.connect(environment)?.list_pools().await?;
            match form {
                OutputForm::Json => output::json(&list.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 4]> = list.value.iter().map(row).collect();
                    output::line(&table::table(["NAME", "AGENTS", "UNFINISHED RUNS", "DESCRIPTION"], &rows))?;
                }
            }
        }
        PoolCommand::Create { name, description, untrusted, output: form } => {
            let request =
                CreatePool { name: pool_name(name)?, description: description.clone(), untrusted: *untrusted };
            let pool = args.server.connect(environment)?.create_pool(&request).await?;
            match form {
                OutputForm::Json => output::json(&pool)?,
                OutputForm::Text => output::note(&format!(
                    "Pool {0} is made. `cooper token create PRINCIPAL --scope agent:{0}` makes a token for its agents.",
                    pool.name
                )),
            }
        }
        PoolCommand::Delete { name, force } => {
            let pool = args.server.connect(environment)?.delete_pool(&pool_name(name)?, *force).await?;
            output::note(&format!("Pool {} is deleted.", pool.name));
        }
    }
    Ok(Exit::Success)
}

fn pool_name(text: &str) -> Result<PoolName, Fault> {
    PoolName::parse(text).map_err(|error| Fault::usage(error.to_string()))
}

fn row(pool: &PoolView) -> [String; 4] {
    let description = match (pool.untrusted, pool.description.as_str()) {
        (false, text) => text.to_owned(),
        (true, "") => "(for untrusted work)".to_owned(),
        (true, text) => format!("{text} (for untrusted work)"),
    };
    [pool.name.to_string(), pool.agents.to_string(), pool.unfinished_runs.to_string(), description]
}
