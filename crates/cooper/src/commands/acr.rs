//! `cooper acr`: what the server's image does where a task says `cmd: acr …`. Its registry is the run's, and the order
//! for its container brings a credential for that.

use clap::{Args, Subcommand};
use cooper_client::{Login, RegistryClient, ServerUrl, Trust};
use cooper_types::SecretString;

use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;
use crate::purge::PurgeFlags;

/// The variable by which ACR's client learns of its registry.
const REGISTRY: &str = "ACR_DEFAULT_REGISTRY";
/// The variable with the attempt's password at the run's registry.
const PASSWORD: &str = "COOPER_REGISTRY_PASSWORD";

#[derive(Args, Debug)]
pub(crate) struct AcrArgs {
    #[command(subcommand)]
    command: AcrCommand,
}

#[derive(Debug, Subcommand)]
enum AcrCommand {
    /// Delete old tags and what has none
    Purge(Box<AcrPurge>),
    /// Print the version
    Version,
}

#[derive(Args, Debug)]
struct AcrPurge {
    #[command(flatten)]
    purge: PurgeFlags,
    /// The registry; else the run's
    #[arg(long, short, value_name = "NAME")]
    registry: Option<String>,
    /// The name to log in with, in place of the run's credential
    #[arg(long, short, value_name = "NAME", requires = "password")]
    username: Option<String>,
    /// The password to log in with
    #[arg(long, short, value_name = "PASSWORD")]
    password: Option<String>,
    /// Has no effect: there is no file with logins
    #[arg(long, short, value_name = "FILE")]
    config: Vec<String>,
    /// Has no effect: everything that is deleted is said
    #[arg(long)]
    verbose: bool,
}

pub(crate) async fn run(args: &AcrArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        AcrCommand::Version => output::line(&format!("Version: {}", env!("CARGO_PKG_VERSION")))?,
        AcrCommand::Purge(args) => {
            let registry = match &args.registry {
                Some(registry) => registry.clone(),
                None => environment.text(REGISTRY)?.ok_or_else(|| {
                    Fault::usage("the registry is not known")
                        .with_hint("name it with --registry, or in a step of a run")
                })?,
            };
            let login = match &args.password {
                Some(password) => Login::Password {
                    username: args.username.clone().unwrap_or_else(|| "cooper".to_owned()),
                    password: SecretString::new(password.clone()),
                },
                // It is for the run's registry alone.
                None if args.registry.is_none() => match environment.text(PASSWORD)? {
                    Some(password) => {
                        Login::Password { username: "cooper".to_owned(), password: SecretString::new(password) }
                    }
                    None => Login::Nobody,
                },
                None => Login::Nobody,
            };
            // The image has nothing that looks names up.
            let address = match registry.strip_prefix("localhost") {
                Some(port) if port.is_empty() || port.starts_with(':') => format!("127.0.0.1{port}"),
                _ => registry.clone(),
            };
            let server = ServerUrl::parse(&address).map_err(Fault::from)?;
            let client = RegistryClient::new(server, login, &Trust::default())?;
            args.purge.run(&client, &registry).await?;
        }
    }
    Ok(Exit::Success)
}
