//! `cooper purge`: `acr purge` from outside of a run.

use clap::Args;

use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::purge::PurgeFlags;

/// What `--help` says beyond the flags.
pub(crate) const PURGE_HELP: &str = "\
Manifests that an index or a run needs stay, and so do tags and manifests that were pushed since
they were listed, even with the same content. What is about a manifest, such as a signature, goes
with that, whenever it was pushed, unless it has a tag. A client that only looks whether a manifest
is there, and then doesn't push it, keeps nothing. The space of what goes is free after the
server's --blob-grace. Try it with --dry-run first.";

#[derive(Args, Debug)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    purge: PurgeFlags,
    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(args: &PurgeArgs, environment: &Environment) -> Result<Exit, Stop> {
    let client = args.server.connect(environment)?;
    let registry = client.info().await?.registry_name;
    args.purge.run(&args.server.connect_registry(environment)?, registry.as_str()).await?;
    Ok(Exit::Success)
}
