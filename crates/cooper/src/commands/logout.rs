//! `cooper logout`: forgets a login on this machine. The token itself goes on working: `cooper token revoke` ends it.

use clap::Args;
use cooper_client::ServerUrl;

use crate::credentials::Credentials;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;

#[derive(Args, Debug)]
pub(crate) struct LogoutArgs {
    /// The server; the default one if none is named
    #[arg(value_name = "URL")]
    server: Option<String>,
}

pub(crate) fn run(args: &LogoutArgs, environment: &Environment) -> Result<Exit, Stop> {
    let mut credentials = Credentials::load(environment)?;
    let url = match &args.server {
        Some(text) => ServerUrl::parse(text).map_err(Fault::from)?.to_string(),
        None => match &credentials.default {
            Some(url) => url.clone(),
            None => {
                output::note("Not logged in to any server.");
                return Ok(Exit::Success);
            }
        },
    };
    if credentials.remove(&url) {
        credentials.save(environment)?;
        output::note(&format!("Forgot the login to {url}."));
    } else {
        output::note(&format!("Not logged in to {url}."));
    }
    Ok(Exit::Success)
}
