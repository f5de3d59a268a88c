//! `cooper credential`: what runs may show to Git hosts and registries, for administrators.

use std::io::{self, IsTerminal as _, Read as _};

use clap::{Args, Subcommand};
use cooper_api::rest::{CredentialView, SetCredential};
use cooper_types::{PrincipalName, SourceHost};

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

/// The longest password, in bytes, with room to see that it is longer.
const MAX_PASSWORD: u64 = 8192;

#[derive(Args, Debug)]
pub(crate) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Keep a credential for a Git host or registry, in place of its earlier one
    Set(SetArgs),
    /// List the hosts that there are credentials for
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Forget a host's credential
    Delete {
        /// The host, as `cooper credential list` shows it
        #[arg(value_name = "HOST[:PORT]")]
        host: String,
    },
}

#[derive(Args, Debug)]
struct SetArgs {
    /// The host that sources, images or both are on, such as github.com or registry.example:5000
    #[arg(value_name = "HOST[:PORT]")]
    host: String,
    /// The user name; many forges take any with a token
    #[arg(long, short, value_name = "NAME", default_value = "git")]
    username: String,
    /// Read the password or token from standard input
    #[arg(long)]
    password_stdin: bool,
    /// Whose runs may use it; may be repeated [default: your own]
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "all_principals")]
    principal: Vec<String>,
    /// Let everybody's runs use it
    #[arg(long)]
    all_principals: bool,
}

pub(crate) async fn run(args: &CredentialArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        CredentialCommand::Set(set) => {
            let host = host(&set.host)?;
            let principals = set.principal.iter().map(|name| PrincipalName::parse(name));
            let principals = principals.collect::<Result<Vec<_>, _>>().map_err(|e| Fault::usage(e.to_string()))?;
            let client = args.server.connect(environment)?;
            let password = password(set.password_stdin)?;
            let all_principals = set.all_principals;
            let request = SetCredential { username: set.username.clone(), password, principals, all_principals };
            let view = client.set_credential(&host, &request).await?;
            output::note(&format!("Credential for {} is kept; runs of {} may use it.", view.host, users(&view)));
        }
        CredentialCommand::List { output } => {
            let list = args.server.connect(environment)?.list_credentials().await?;
            match output {
                OutputForm::Json => output::json(&list.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 4]> = list.value.iter().map(row).collect();
                    output::line(&table::table(["HOST", "USER NAME", "USABLE BY", "UPDATED"], &rows))?;
                }
            }
        }
        CredentialCommand::Delete { host: text } => {
            let host = host(text)?;
            args.server.connect(environment)?.delete_credential(&host).await?;
            output::note(&format!("Credential for {host} is forgotten."));
        }
    }
    Ok(Exit::Success)
}

pub(super) fn host(text: &str) -> Result<SourceHost, Fault> {
    SourceHost::parse(text).map_err(|error| Fault::usage(error.to_string()))
}

fn users(view: &CredentialView) -> String {
    if view.all_principals {
        return "everybody".to_owned();
    }
    view.principals.iter().map(PrincipalName::as_str).collect::<Vec<_>>().join(", ")
}

fn row(view: &CredentialView) -> [String; 4] {
    [view.host.to_string(), view.username.clone(), users(view), view.last_updated_time.to_string()]
}

/// The password: from standard input, or from the keyboard without showing it. Never from an argument, which everybody on
/// the machine could read.
pub(super) fn password(from_stdin: bool) -> Result<String, Fault> {
    let fault = |error: io::Error| Fault::usage(format!("the password can't be read: {error}"));
    let text = if from_stdin {
        let mut text = String::new();
        io::stdin().take(MAX_PASSWORD).read_to_string(&mut text).map_err(fault)?;
        text
    } else if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Fault::usage("no password is given and there is no terminal to ask at")
            .with_hint("pipe it to --password-stdin"));
    } else {
        output::note_bytes(b"Password or token: ");
        console::Term::stderr().read_secure_line().map_err(fault)?
    };
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.chars().any(char::is_control) {
        return Err(Fault::usage("what was given is not a password: one line is expected"));
    }
    Ok(line.to_owned())
}
