//! `cooper acr`: what the server's image does where a task says `cmd: acr …`. Its registry is the run's, and the order
//! for its container brings a credential for that.

use clap::{Args, Subcommand};
use cooper_api::agent::{ACR_ADDRESS, ACR_PASSWORD};
use cooper_client::{Login, RegistryClient, ServerUrl, Trust};
use cooper_types::SecretString;

use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;
use crate::purge::PurgeFlags;

/// The variable by which ACR's client learns of its registry.
const REGISTRY: &str = "ACR_DEFAULT_REGISTRY";

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
}

pub(crate) async fn run(args: &AcrArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        AcrCommand::Version => output::line(&format!("Version: {}", env!("CARGO_PKG_VERSION")))?,
        AcrCommand::Purge(args) => {
            let own = environment.text(REGISTRY)?;
            // A step that names the run's registry means what it has without a name.
            let is_own = args.registry.is_none() || args.registry == own;
            let registry = args.registry.clone().or(own).ok_or_else(|| {
                Fault::usage("the registry is not known").with_hint("name it with --registry, or in a step of a run")
            })?;
            let login = match &args.password {
                Some(password) => Login::Password {
                    username: args.username.clone().unwrap_or_else(|| "cooper".to_owned()),
                    password: SecretString::new(password.clone()),
                },
                // It is for the run's registry alone.
                None if is_own => match environment.text(ACR_PASSWORD)? {
                    Some(password) => {
                        Login::Password { username: "cooper".to_owned(), password: SecretString::new(password) }
                    }
                    None => Login::Nobody,
                },
                None => Login::Nobody,
            };
            // The image has nothing that looks names up, and no certificates.
            let told = if is_own { environment.text(ACR_ADDRESS)? } else { None };
            if let Some(told) = told.as_deref().filter(|told| !is_loopback(told)) {
                return Err(Fault::usage(format!("{ACR_ADDRESS} is `{told}`, which is no address of loopback")).into());
            }
            let address = told.unwrap_or_else(|| match registry.strip_prefix("localhost") {
                Some(port) if port.is_empty() || port.starts_with(':') => format!("127.0.0.1{port}"),
                _ => registry.clone(),
            });
            let server = ServerUrl::parse(&address).map_err(Fault::from)?;
            let client = RegistryClient::new(server, login, &Trust::default())?;
            args.purge.run(&client, &registry).await?;
        }
    }
    Ok(Exit::Success)
}

/// Whether a text is a port of this machine: a password goes there in clear.
fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_to_this_machine_alone() {
        for (address, expect) in [
            ("127.0.0.1:4747", true),
            ("[::1]:4747", true),
            ("203.0.113.9:80", false),
            ("http://127.0.0.1:80", false),
            ("127.0.0.1.example:80", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(is_loopback(address), expect, "{address}");
        }
    }
}
