//! `cooper task credential`: what runs of one task show to registries and Git hosts.

use clap::{Args, Subcommand};
use cooper_api::rest::{SetTaskCredential, TaskCredentialView};
use cooper_types::SourceHost;

use super::NameArgs;
use crate::cli::OutputForm;
use crate::commands::credential::{host, password};
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

/// How the hosts of key vaults end, in each of Azure's clouds.
const VAULTS: [&str; 4] =
    [".vault.azure.net", ".vault.azure.cn", ".vault.usgovcloudapi.net", ".vault.microsoftazure.de"];

#[derive(Args, Debug)]
pub(super) struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Keep a credential for a registry or Git host
    Add(SetArgs),
    /// Keep another one in place of it
    Update(SetArgs),
    /// List the hosts that there are credentials for
    List {
        #[command(flatten)]
        name: NameArgs,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Forget a credential
    Remove {
        #[command(flatten)]
        name: NameArgs,
        /// The registry or Git host
        #[arg(long, value_name = "HOST[:PORT]")]
        login_server: String,
    },
}

#[derive(Args, Debug)]
struct SetArgs {
    #[command(flatten)]
    name: NameArgs,
    /// The registry or Git host, such as registry.example:5000 or github.com
    #[arg(long, value_name = "HOST[:PORT]")]
    login_server: String,
    /// The user name; many forges take any with a token [default: git; in an update the one that is kept]
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// The password or token; others on this machine may see it here, so better pipe it to --password-stdin
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password or token from standard input
    #[arg(long)]
    password_stdin: bool,
    /// There are no managed identities
    #[arg(long, value_name = "ID", hide = true)]
    use_identity: Option<String>,
}

pub(super) async fn run(args: &CredentialArgs, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        CredentialCommand::Add(set) => put(set, false, server, environment).await,
        CredentialCommand::Update(set) => put(set, true, server, environment).await,
        CredentialCommand::List { name, output } => {
            let task = server.connect(environment)?.get_task(&name.get()?).await?;
            match output {
                OutputForm::Json => output::json(&task.credentials)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 3]> = task.credentials.iter().map(row).collect();
                    output::line(&table::table(["LOGIN SERVER", "USER NAME", "UPDATED"], &rows))?;
                }
            }
            Ok(Exit::Success)
        }
        CredentialCommand::Remove { name, login_server } => {
            let (task, host) = (name.get()?, host(login_server)?);
            server.connect(environment)?.delete_task_credential(&task, &host).await?;
            output::note(&format!("Credential of task {task} for {host} is forgotten."));
            Ok(Exit::Success)
        }
    }
}

async fn put(set: &SetArgs, exists: bool, server: &ServerArgs, environment: &Environment) -> Result<Exit, Stop> {
    if set.use_identity.is_some() {
        return Err(Fault::usage("--use-identity: there are no managed identities here")
            .with_hint("keep a user name and a token of the registry's")
            .into());
    }
    refuse_vault("--username", set.username.as_deref().unwrap_or_default())?;
    refuse_vault("--password", set.password.as_deref().unwrap_or_default())?;
    let (task, host): (_, SourceHost) = (set.name.get()?, host(&set.login_server)?);
    let client = server.connect(environment)?;
    let kept = client.get_task(&task).await?.credentials.into_iter().find(|one| one.login_server == host);
    if kept.is_some() != exists {
        let fault = match kept.is_some() {
            true => Fault::usage(format!("task `{task}` has a credential for {host}"))
                .with_hint("replace it with `cooper task credential update`"),
            false => Fault::usage(format!("task `{task}` has no credential for {host}"))
                .with_hint("keep one with `cooper task credential add`"),
        };
        return Err(fault.into());
    }
    let password = match &set.password {
        Some(password) => password.clone(),
        None => password(set.password_stdin)?,
    };
    refuse_vault("the password", &password)?;
    let username = set.username.clone().or(kept.map(|kept| kept.username)).unwrap_or_else(|| "git".to_owned());
    let request = SetTaskCredential { username, password };
    let kept = client.set_task_credential(&task, &host, &request).await?;
    output::note(&format!("Credential of task {task} for {host} is kept."));
    super::source::tell_hooks(&kept, client.server());
    Ok(Exit::Success)
}

/// Refuses the address of a secret in a vault, which az takes for what is there.
fn refuse_vault(what: &str, text: &str) -> Result<(), Fault> {
    let rest = text.trim().to_ascii_lowercase();
    let host = rest.strip_prefix("https://").and_then(|rest| rest.split(['/', ':']).next());
    if !host.is_some_and(|host| VAULTS.iter().any(|suffix| host.ends_with(suffix))) {
        return Ok(());
    }
    Err(Fault::usage(format!("{what} is the address of a secret in a vault, and no vault is asked here"))
        .with_hint("give what is kept there itself: pipe it from the vault's own client to --password-stdin"))
}

fn row(credential: &TaskCredentialView) -> [String; 3] {
    [credential.login_server.to_string(), credential.username.clone(), credential.last_updated_time.to_string()]
}
