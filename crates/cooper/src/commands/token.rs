//! `cooper token`: access tokens, for administrators.

use clap::{Args, Subcommand};
use cooper_api::rest::{CreateToken, TokenView};
use cooper_types::{PrincipalName, Scope, Scopes, TokenId};

use crate::cli::OutputForm;
use crate::connection::ServerArgs;
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::{output, table};

#[derive(Args, Debug)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token; it is shown once
    Create(CreateArgs),
    /// List the tokens that work
    List {
        /// The form of the list
        #[arg(long, short, value_enum, default_value_t)]
        output: OutputForm,
    },
    /// Make a token stop working
    Revoke {
        /// The token's id, as `cooper token list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Whom the token speaks for, such as a person or a pipeline
    #[arg(value_name = "PRINCIPAL")]
    principal: String,
    /// What it may do: read, run, admin, agent, agent:POOL, or repository:NAME:pull,push,delete; may be repeated
    #[arg(long, short, value_name = "SCOPE", required = true)]
    scope: Vec<String>,
    /// After how long it stops working, such as 90d, 12h or 30m; never if not said
    #[arg(long, value_name = "DURATION")]
    expires: Option<String>,
    /// The form of the answer; as text, standard output holds the token alone
    #[arg(long, short, value_enum, default_value_t)]
    output: OutputForm,
}

pub(crate) async fn run(args: &TokenArgs, environment: &Environment) -> Result<Exit, Stop> {
    match &args.command {
        TokenCommand::Create(create) => {
            let request = create_request(create)?;
            let created = args.server.connect(environment)?.create_token(&request).await?;
            match create.output {
                OutputForm::Json => output::json(&created)?,
                OutputForm::Text => {
                    output::note(&format!("Token {} of {}; it is not shown again:", created.id, created.principal));
                    output::line(&created.token)?;
                }
            }
        }
        TokenCommand::List { output } => {
            let list = args.server.connect(environment)?.list_tokens().await?;
            match output {
                OutputForm::Json => output::json(&list.value)?,
                OutputForm::Text => {
                    let rows: Vec<[String; 5]> = list.value.iter().map(row).collect();
                    output::line(&table::table(["ID", "PRINCIPAL", "SCOPES", "CREATED", "EXPIRES"], &rows))?;
                }
            }
        }
        TokenCommand::Revoke { id } => {
            let id = TokenId::parse(id).map_err(|error| {
                Fault::usage(error.to_string()).with_hint("give the id that `cooper token list` shows, not the token")
            })?;
            args.server.connect(environment)?.revoke_token(&id).await?;
            output::note(&format!("Token {id} no longer works."));
        }
    }
    Ok(Exit::Success)
}

fn row(token: &TokenView) -> [String; 5] {
    let scopes: Vec<String> = token.scopes.0.iter().map(ToString::to_string).collect();
    let expires = token.expire_time.map_or_else(|| "never".to_owned(), |time| time.to_string());
    [token.id.to_string(), token.principal.to_string(), scopes.join(" "), token.create_time.to_string(), expires]
}

fn create_request(args: &CreateArgs) -> Result<CreateToken, Fault> {
    let principal = PrincipalName::parse(&args.principal).map_err(|error| Fault::usage(error.to_string()))?;
    let scopes = args.scope.iter().map(|scope| Scope::parse(scope));
    let scopes = scopes.collect::<Result<Vec<_>, _>>().map_err(|error| Fault::usage(error.to_string()))?;
    let expires_in_seconds = args.expires.as_deref().map(seconds).transpose()?;
    Ok(CreateToken { principal, scopes: Scopes(scopes), expires_in_seconds })
}

/// Reads `90d`, `12h`, `30m` or `45s` as seconds.
fn seconds(text: &str) -> Result<u64, Fault> {
    let fault = || Fault::usage(format!("duration `{text}` is not a whole number with s, m, h or d, such as 90d"));
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return Err(fault()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| fault())?;
    number.checked_mul(unit).filter(|seconds| *seconds > 0).ok_or_else(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(seconds("90d"), Ok(7_776_000));
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds("1s"), Ok(1));
        for text in ["", "d", "0s", "90", "1.5h", "-1d", "1w", "99999999999999999999d", "9ä"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
