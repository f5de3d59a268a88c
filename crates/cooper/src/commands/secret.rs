//! `cooper secret`: what task files name under `secrets:`, for administrators.

use std::io::{self, IsTerminal as _, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use cooper_api::rest::{SecretView, SetSecret};
use cooper_types::{PrincipalName, SecretName};

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

/// The largest value, in bytes.
const MAX_VALUE: u64 = 64 * 1024;

#[derive(Args, Debug)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Add a version to a secret, or make one: `keyvault: cooper://NAME` in a task file means the newest
    Set(SetArgs),
    /// Change whose runs may use a secret
    Allow(AllowArgs),
    /// List secrets, their versions, and whose runs may use them; values are never shown
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Look whether your runs can have secrets, from whichever place; values are not shown
    Check {
        /// What a task file says: cooper://NAME[/VERSION], env://NAME or https://VAULT/secrets/NAME[/VERSION]
        #[arg(value_name = "PLACE", required = true)]
        places: Vec<String>,
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Forget a secret, or one version of it
    Delete {
        /// The secret, as `cooper secret list` shows it
        #[arg(value_name = "NAME[/VERSION]")]
        name: String,
    },
}

#[derive(Args, Debug)]
struct SetArgs {
    /// Its name: lower-case letters, digits, `-` and `_`
    name: String,
    /// Read the value from a file, as it is; without it, it comes from standard input, less one line break at its end
    #[arg(long, value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Whose runs may use it; may be repeated [default: as before; a new secret is for your own]
    #[arg(long, value_name = "PRINCIPAL", conflicts_with = "all_principals")]
    principal: Vec<String>,
    /// Let everybody's runs use it
    #[arg(long)]
    all_principals: bool,
}

#[derive(Args, Debug)]
struct AllowArgs {
    /// Its name
    name: String,
    /// Whose runs may use it, in place of those that might before; may be repeated
    #[arg(
        long,
        value_name = "PRINCIPAL",
        required_unless_present = "all_principals",
        conflicts_with = "all_principals"
    )]
    principal: Vec<String>,
    /// Let everybody's runs use it
    #[arg(long)]
    all_principals: bool,
}

pub(crate) async fn run(args: &SecretArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        SecretCommand::Set(set) => {
            let (name, principals) = (name(&set.name)?, principals(&set.principal)?);
            let client = args.server.connect(environment)?;
            let value = Some(value(set)?);
            let request = SetSecret { value, principals, all_principals: set.all_principals };
            let view = client.set_secret(&name, &request).await?;
            let version = view.versions.first().map_or(0, |newest| newest.version);
            output::note(&format!("Secret {name} is kept as version {version}; runs of {} may use it.", users(&view)));
        }
        SecretCommand::Allow(allow) => {
            let (name, principals) = (name(&allow.name)?, principals(&allow.principal)?);
            let request = SetSecret { value: None, principals, all_principals: allow.all_principals };
            let view = args.server.connect(environment)?.set_secret(&name, &request).await?;
            output::note(&format!("Runs of {} may use secret {name}.", users(&view)));
        }
        SecretCommand::List { output } => {
            let list = args.server.connect(environment)?.list_secrets().await?;
            match output {
                OutputForm::Json => output::json(&list.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 5]> = list.value.iter().map(row).collect();
                    output::line(&table::table(["NAME", "VERSIONS", "USABLE BY", "UPDATED", "BY"], &rows))?;
                }
            }
        }
        SecretCommand::Check { places, output } => {
            let found = args.server.connect(environment)?.check_secrets(places.clone()).await?;
            match output {
                OutputForm::Json => output::json(&found.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 2]> =
                        found.value.into_iter().map(|secret| [secret.place, secret.version]).collect();
                    output::line(&table::table(["PLACE", "VERSION"], &rows))?;
                }
            }
        }
        SecretCommand::Delete { name: text } => {
            let (name, version) = named_version(text)?;
            args.server.connect(environment)?.delete_secret(&name, version).await?;
            output::note(&format!("Secret {text} is forgotten."));
        }
    }
    Ok(Exit::Success)
}

fn name(text: &str) -> Result<SecretName, Fault> {
    SecretName::parse(text).map_err(|error| Fault::usage(error.to_string()))
}

fn principals(names: &[String]) -> Result<Vec<PrincipalName>, Fault> {
    names.iter().map(|name| PrincipalName::parse(name).map_err(|error| Fault::usage(error.to_string()))).collect()
}

fn named_version(text: &str) -> Result<(SecretName, Option<u64>), Fault> {
    let Some((named, version)) = text.split_once('/') else { return Ok((name(text)?, None)) };
    let version = version.parse().ok().filter(|number| *number > 0);
    let version = version.ok_or_else(|| Fault::usage(format!("`{text}` is not of the form NAME or NAME/VERSION")))?;
    Ok((name(named)?, Some(version)))
}

fn users(view: &SecretView) -> String {
    match view.all_principals {
        true => "everybody".to_owned(),
        false => view.principals.iter().map(PrincipalName::as_str).collect::<Vec<_>>().join(", "),
    }
}

fn row(view: &SecretView) -> [String; 5] {
    let versions: Vec<String> = view.versions.iter().map(|version| version.version.to_string()).collect();
    let (updated, by) = match view.versions.first() {
        Some(newest) => (newest.create_time.to_string(), newest.set_by.to_string()),
        None => Default::default(),
    };
    [view.name.to_string(), versions.join(","), users(view), updated, by]
}

/// The value: from a file, standard input, or the keyboard without showing it. Never from an argument, which everybody on
/// the machine could read.
fn value(set: &SetArgs) -> Result<String, Fault> {
    let fault = |error: io::Error| Fault::usage(format!("the value of secret `{}` can't be read: {error}", set.name));
    let is_file = set.from_file.is_some();
    let bytes = match &set.from_file {
        Some(path) => {
            let open = |error: io::Error| Fault::usage(format!("file {} can't be read: {error}", path.display()));
            read(&mut std::fs::File::open(path).map_err(open)?).map_err(open)?
        }
        None if !io::stdin().is_terminal() => read(&mut io::stdin().lock()).map_err(fault)?,
        None if io::stderr().is_terminal() => {
            output::note_bytes(format!("Value of secret {}: ", set.name).as_bytes());
            console::Term::stderr().read_secure_line().map_err(fault)?.into_bytes()
        }
        None => {
            return Err(Fault::usage("no value is given and there is no terminal to ask at")
                .with_hint("pipe it in, or name a file with --from-file"));
        }
    };
    if bytes.len() as u64 > MAX_VALUE {
        return Err(Fault::usage(format!("the value of secret `{}` is larger than {MAX_VALUE} bytes", set.name)));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Fault::usage(format!("the value of secret `{}` is not UTF-8 text", set.name))
            .with_hint("encode it, as base64 for example, and decode it in the step that needs it")
    })?;
    // What a shell's `echo` or a person's Enter adds. A file is taken as it is.
    let line = match is_file {
        true => &text,
        false => text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line)),
    };
    match line.is_empty() {
        true => Err(Fault::usage(format!("the value of secret `{}` is empty", set.name))),
        false => Ok(line.to_owned()),
    }
}

/// At most one byte more than is allowed.
fn read(from: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_VALUE + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}
