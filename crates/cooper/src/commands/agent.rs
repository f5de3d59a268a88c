//! `cooper agent`: what the agents of a server are, and what administrators do to them.

mod admin;

use clap::Args;

use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;

#[derive(Args, Debug)]
pub(crate) struct AgentArgs {
    #[command(subcommand)]
    command: admin::AdminCommand,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: &AgentArgs, environment: &Environment) -> Result<Exit, Stop> {
    admin::run(&args.command, &args.server, environment).await
}
