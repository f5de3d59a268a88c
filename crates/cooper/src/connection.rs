//! Which server a command talks to, and with which token.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use cooper_client::{Client, Login, RegistryClient, ServerUrl, Trust};
use cooper_types::SecretString;

use crate::credentials::Credentials;
use crate::environment::Environment;
use crate::fault::{Fault, chain};

/// The longest token file that is read, in bytes.
const MAX_TOKEN: u64 = 64 * 1024;

/// The longest file of CAs that is read, in bytes.
const MAX_CA: u64 = 1024 * 1024;

/// How to find the server.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServerArgs {
    /// The server's address; else COOPER_SERVER, else the one of the last `cooper login`
    #[arg(long, value_name = "URL", global = true, help_heading = "Server")]
    pub(crate) server: Option<String>,
    /// A file that holds the access token; else COOPER_TOKEN, else the login's token
    #[arg(long, value_name = "FILE", global = true, help_heading = "Server")]
    pub(crate) token_file: Option<PathBuf>,
    /// Allow plain http to another machine: the network can then read the token
    #[arg(long, global = true, help_heading = "Server")]
    pub(crate) insecure: bool,
    /// The certificate of the CA that is trusted, in place of the system's; else COOPER_CA_FILE, else the login's
    #[arg(long, value_name = "FILE", global = true, help_heading = "Server")]
    pub(crate) ca_file: Option<PathBuf>,
}

/// A server and how to talk to it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) server: ServerUrl,
    pub(crate) token: Option<SecretString>,
    pub(crate) trust: Trust,
}

impl ServerArgs {
    /// Finds server and token. A login's token goes to the server of that login only.
    pub(crate) fn resolve(&self, environment: &Environment) -> Result<Connection, Fault> {
        let credentials = Credentials::load(environment)?;
        let named = match &self.server {
            Some(server) => Some(server.clone()),
            None => environment.text("COOPER_SERVER")?.or_else(|| credentials.default.clone()),
        };
        let named = named.ok_or_else(|| {
            Fault::usage("no server is known")
                .with_hint("log in with `cooper login URL`, set COOPER_SERVER, or say --server URL")
        })?;
        let server = ServerUrl::parse(&named)?;
        let login = credentials.login(&server.to_string());
        if !self.insecure && !login.is_some_and(|login| login.insecure) {
            server.require_private()?;
        }
        let token = match self.given_token(environment)? {
            Some(token) => Some(token),
            None => login.map(|login| SecretString::new(login.token.clone())),
        };
        let trust = match (self.given_trust(environment)?, login.and_then(|login| login.ca.as_deref())) {
            (Some(trust), _) => trust,
            (None, Some(pem)) => Trust::only(pem).map_err(|error| {
                Fault::usage(format!("the CA of the login to {server}: {}", chain(&error)))
                    .with_hint("log in again with `cooper login URL --ca-file FILE`")
            })?,
            (None, None) => Trust::default(),
        };
        Ok(Connection { server, token, trust })
    }

    /// A client of that server's registry.
    pub(crate) fn connect_registry(&self, environment: &Environment) -> Result<RegistryClient, Fault> {
        let connection = self.resolve(environment)?;
        // The registry looks at the password alone.
        let login = connection
            .token
            .map_or(Login::Nobody, |password| Login::Password { username: "cooper".to_owned(), password });
        Ok(RegistryClient::new(connection.server, login, &connection.trust)?)
    }

    /// The CA that a flag or the environment names.
    pub(crate) fn given_trust(&self, environment: &Environment) -> Result<Option<Trust>, Fault> {
        let path = self.ca_file.clone().or_else(|| environment.path("COOPER_CA_FILE"));
        path.map(|path| read_trust(&path)).transpose()
    }

    /// The token that a flag or the environment gives.
    pub(crate) fn given_token(&self, environment: &Environment) -> Result<Option<SecretString>, Fault> {
        match &self.token_file {
            Some(path) => read_token(path).map(Some),
            None => Ok(environment.text("COOPER_TOKEN")?.map(|text| SecretString::new(text.trim().to_owned()))),
        }
    }

    /// A client of that server.
    pub(crate) fn connect(&self, environment: &Environment) -> Result<Client, Fault> {
        let connection = self.resolve(environment)?;
        Ok(Client::trusting(connection.server, connection.token, &connection.trust)?)
    }
}

/// The CAs in a file.
pub(crate) fn read_trust(path: &Path) -> Result<Trust, Fault> {
    let fault = |error: String| Fault::usage(format!("CA file {}: {error}", path.display()));
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| fault(format!("it can't be read: {error}")))?;
    file.take(MAX_CA).read_to_string(&mut text).map_err(|error| fault(format!("it can't be read: {error}")))?;
    Trust::only(&text).map_err(|error| fault(chain(&error)))
}

/// The token in a file.
pub(crate) fn read_token(path: &Path) -> Result<SecretString, Fault> {
    let fault = |error: String| Fault::usage(format!("token file {} {error}", path.display()));
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| fault(format!("can't be read: {error}")))?;
    file.take(MAX_TOKEN).read_to_string(&mut text).map_err(|error| fault(format!("can't be read: {error}")))?;
    token(&text).ok_or_else(|| fault("does not hold a token: one line is expected".to_owned()))
}

/// The token in a text: one line, blanks around it don't count.
pub(crate) fn token(text: &str) -> Option<SecretString> {
    let token = text.trim();
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| SecretString::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Login;

    /// What a resolution gives: the server and the token.
    fn resolve(
        args: &ServerArgs,
        variables: &[(&str, &str)],
        logins: &[Login],
    ) -> Result<(String, Option<String>), Fault> {
        let folder = tempfile::tempdir().expect("folder");
        let mut all = vec![("COOPER_CONFIG_DIR", folder.path().to_str().expect("text"))];
        all.extend_from_slice(variables);
        let environment = Environment::of(&all);
        let mut credentials = Credentials::default();
        for Login { url, token, principal, insecure, .. } in logins {
            let (url, token, principal) = (url.clone(), token.clone(), principal.clone());
            credentials.add(Login { url, token, principal, insecure: *insecure, ca: None });
        }
        credentials.save(&environment).expect("saved");
        let connection = args.resolve(&environment)?;
        Ok((connection.server.to_string(), connection.token.map(|token| token.expose().to_owned())))
    }

    fn login(url: &str, insecure: bool) -> Login {
        Login { url: url.to_owned(), token: format!("token-of-{url}"), principal: String::new(), insecure, ca: None }
    }

    fn server(url: &str) -> ServerArgs {
        ServerArgs { server: Some(url.to_owned()), ..ServerArgs::default() }
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_beats_the_login() {
        let logins = [login("http://localhost:1", false), login("http://localhost:2", false)];
        let found = |args: &ServerArgs, variables: &[(&str, &str)]| resolve(args, variables, &logins).expect("found");
        let none = ServerArgs::default();
        assert_eq!(found(&none, &[]).0, "http://localhost:2");
        assert_eq!(found(&none, &[("COOPER_SERVER", "localhost:3")]), ("http://localhost:3".to_owned(), None));
        let flagged = found(&server("http://localhost:1/"), &[("COOPER_SERVER", "localhost:3")]);
        assert_eq!(flagged, ("http://localhost:1".to_owned(), Some("token-of-http://localhost:1".to_owned())));
        assert_eq!(found(&none, &[("COOPER_TOKEN", "t\n")]).1.as_deref(), Some("t"));

        let file = tempfile::NamedTempFile::new().expect("file");
        fs::write(file.path(), "from-file\n").expect("write");
        let args = ServerArgs { token_file: Some(file.path().to_owned()), ..ServerArgs::default() };
        assert_eq!(found(&args, &[("COOPER_TOKEN", "t")]).1.as_deref(), Some("from-file"));
    }

    #[test]
    fn a_login_token_goes_to_its_server_only() {
        let logins = [login("https://a.example.com", false)];
        assert_eq!(resolve(&server("https://b.example.com"), &[], &logins).expect("found").1, None);
    }

    #[test]
    fn plain_http_to_another_machine_needs_leave() {
        let far = "http://build.example.com";
        assert!(resolve(&server(far), &[], &[]).expect_err("refused").hint.expect("hint").contains("--insecure"));
        let args = ServerArgs { insecure: true, ..server(far) };
        assert!(resolve(&args, &[], &[]).is_ok());
        assert!(resolve(&server(far), &[], &[login(far, true)]).is_ok());
        assert!(resolve(&server(far), &[], &[login(far, false)]).is_err());
    }

    #[test]
    fn faults_say_what_to_do() {
        let fault = resolve(&ServerArgs::default(), &[], &[]).expect_err("none");
        assert!(fault.hint.expect("hint").contains("cooper login"));
        let args = ServerArgs { token_file: Some("/nonexistent/token".into()), ..server("localhost:1") };
        assert!(resolve(&args, &[], &[]).expect_err("no file").message.contains("/nonexistent/token"));
        let args = ServerArgs { ca_file: Some("/nonexistent/ca.pem".into()), ..server("localhost:1") };
        assert!(resolve(&args, &[], &[]).expect_err("no file").message.contains("/nonexistent/ca.pem"));
        let fault = resolve(&server("localhost:1"), &[("COOPER_CA_FILE", "/dev/null")], &[]).expect_err("no CA");
        assert!(fault.message.contains("/dev/null: no certificate"), "{fault:?}");
        let empty = tempfile::NamedTempFile::new().expect("file");
        let args = ServerArgs { token_file: Some(empty.path().to_owned()), ..server("localhost:1") };
        assert!(resolve(&args, &[], &[]).expect_err("empty").message.contains("does not hold a token"));
    }
}
