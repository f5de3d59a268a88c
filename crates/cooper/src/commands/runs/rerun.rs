//! `cooper runs rerun`: a run again, followed like a new one.

use clap::Args;
use cooper_api::rest::{NamedSecret, RerunRequest};
use cooper_client::Client;
use cooper_types::RunId;

use crate::build::{read_secret_arguments, read_secrets};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::Stop;
use crate::output;
use crate::started::{WaitFlags, Whose, new_key, see_through};
use crate::task::read_values;

#[derive(Args, Debug)]
pub(super) struct RerunFlags {
    /// Repeat only what did not succeed, with the steps that this needs
    #[arg(long)]
    failed: bool,
    /// Take what references, images and secrets stand for now; with --failed the source stays what it was
    #[arg(long)]
    fresh: bool,
    /// A secret value for templates that the run came with: values are not kept; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set_secret: Vec<String>,
    /// A secret build argument that the run came with; may be repeated
    #[arg(long, value_name = "NAME[=VALUE]")]
    secret_build_arg: Vec<String>,
    /// A build secret that the run came with; may be repeated
    #[arg(long, value_name = "id=ID[,src=FILE|env=NAME]")]
    secret: Vec<String>,
    #[command(flatten)]
    pub(super) wait: WaitFlags,
}

impl RerunFlags {
    fn request(&self, environment: &Environment) -> Result<RerunRequest, Stop> {
        let arguments = read_secret_arguments(&self.secret_build_arg, environment)?;
        let arguments =
            arguments.into_iter().map(|argument| NamedSecret { name: argument.name, value: argument.value });
        let values = read_values(&[], &self.set_secret)?;
        let values = values.into_iter().map(|set| NamedSecret { name: set.name, value: set.value });
        Ok(RerunRequest {
            failed: self.failed,
            fresh: self.fresh,
            secrets: read_secrets(&self.secret, environment)?,
            arguments: arguments.collect(),
            values: values.collect(),
        })
    }
}

pub(super) async fn rerun(
    client: &Client,
    run: RunId,
    flags: &RerunFlags,
    environment: &Environment,
) -> Result<Exit, Stop> {
    let request = flags.request(environment)?;
    let new = client.rerun(run, &request, &new_key()?).await?;
    output::note(&format!("Queued a run with ID: {}", new.run_id));
    see_through(client, new, &flags.wait, environment, Whose::Theirs).await
}
