//! `cooper login`: checks a token with the server, then keeps both for later commands.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Args;
use cooper_client::{Client, ServerUrl};
use cooper_types::SecretString;

use crate::connection::{self, ServerArgs};
use crate::credentials::{Credentials, Login};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::fault::{Fault, Stop};
use crate::output;

/// The longest token that is read from standard input, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// The server's address, such as http://localhost:5000
    #[arg(value_name = "URL")]
    server: String,
    /// Read the token from a file
    #[arg(long, value_name = "FILE", conflicts_with = "token_stdin")]
    token_file: Option<PathBuf>,
    /// Read the token from standard input
    #[arg(long)]
    token_stdin: bool,
    /// Allow plain http to another machine: the network can then read the token
    #[arg(long)]
    insecure: bool,
    /// Trust this CA's certificate for the server, in place of the system's, and keep it with the login
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(crate) async fn run(args: &LoginArgs, environment: &Environment) -> Result<Exit, Stop> {
    let server = ServerUrl::parse(&args.server).map_err(Fault::from)?;
    if !args.insecure {
        server.require_private().map_err(Fault::from)?;
    }
    let token = find_token(args, environment)?;
    let trust = ServerArgs { ca_file: args.ca_file.clone(), ..ServerArgs::default() }.given_trust(environment)?;
    let trust = trust.unwrap_or_default();
    let client = Client::trusting(server.clone(), Some(token.clone()), &trust)?;
    let info = client.info().await?;
    let mut credentials = Credentials::load(environment)?;
    credentials.add(Login {
        url: server.to_string(),
        token: token.expose().to_owned(),
        principal: info.principal.to_string(),
        insecure: args.insecure,
        ca: trust.pem().map(str::to_owned),
    });
    let path = credentials.save(environment)?;
    let scopes: Vec<String> = info.scopes.0.iter().map(ToString::to_string).collect();
    let scopes = if scopes.is_empty() { "nothing".to_owned() } else { scopes.join(" ") };
    output::note(&format!("Logged in to {server} as {} (may: {scopes}).", info.principal));
    output::note(&format!("The token is kept in {}.", path.display()));
    Ok(Exit::Success)
}

fn find_token(args: &LoginArgs, environment: &Environment) -> Result<SecretString, Fault> {
    let not_a_token = || Fault::usage("what was given is not a token: one line without blanks is expected");
    if args.token_stdin {
        let mut text = String::new();
        let read = io::stdin().take(MAX_TOKEN).read_to_string(&mut text);
        read.map_err(|error| Fault::usage(format!("the token can't be read from standard input: {error}")))?;
        return connection::token(&text).ok_or_else(not_a_token);
    }
    let given = ServerArgs { token_file: args.token_file.clone(), ..ServerArgs::default() }.given_token(environment)?;
    if let Some(token) = given {
        return Ok(token);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Fault::usage("no token is given and there is no terminal to ask at")
            .with_hint("use --token-file FILE or --token-stdin"));
    }
    output::note_bytes(b"Token: ");
    let text = console::Term::stderr()
        .read_secure_line()
        .map_err(|error| Fault::usage(format!("the token can't be read: {error}")))?;
    connection::token(&text).ok_or_else(not_a_token)
}
