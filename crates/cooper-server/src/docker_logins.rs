//! The logins of somebody's Docker client, as that client finds them: its configuration, and the helpers that keep secrets for it.
//!
//! They are for a server that one user has for himself: an attempt that needs a host is shown what the user's `docker` would show it.
//! Nothing of them is stored, and helpers are asked for hosts that steps need alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_types::{SecretString, SourceHost};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The largest configuration that is read, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// How long a helper may take: less than an agent waits for the server's answer. One that was silent is not asked again.
const HELPER_DEADLINE: Duration = Duration::from_secs(10);
/// The most bytes of a helper's answer.
const MAX_ANSWER: u64 = 64 << 10;
/// The name that Docker's client knows Docker Hub by.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// What a helper says of a host that it does not know.
const UNKNOWN: &str = "credentials not found";
/// What a helper calls a user whose secret is no password.
const IDENTITY_TOKEN: &str = "<token>";

/// Where logins are looked for: a file that need not be there.
#[derive(Debug)]
pub(crate) struct DockerLogins {
    config: PathBuf,
    deadline: Duration,
    /// Helpers that did not answer.
    silent: Mutex<BTreeSet<String>>,
}

/// A login.
#[derive(Debug)]
pub(crate) struct DockerLogin {
    pub(crate) username: String,
    pub(crate) password: SecretString,
}

/// Why the login that there may be can't be had. None of its texts holds a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerLoginError {
    #[error("Docker's configuration `{0}` can't be read")]
    Config(PathBuf, #[source] std::io::Error),
    #[error("Docker's configuration `{0}` is not the JSON that Docker's client writes")]
    Form(PathBuf),
    #[error("`{0}` in Docker's configuration is no name of a credential helper")]
    HelperName(String),
    #[error("credential helper `docker-credential-{helper}` can't be run; is it installed, and in PATH?")]
    Helper { helper: String, source: std::io::Error },
    #[error("credential helper `docker-credential-{0}` did not answer within {limit} s, and is not asked again", limit = HELPER_DEADLINE.as_secs())]
    Silent(String),
    #[error(
        "credential helper `docker-credential-{0}` answered with something else than a login; see what `docker-credential-{0} list` says"
    )]
    Answer(String),
    #[error(
        "the login for {0} in Docker's configuration is an identity token, which only Docker's client can use: log in with `docker login` and an access \
         token as the password"
    )]
    IdentityToken(SourceHost),
}

/// What of the configuration says how to log in. Anything else in it is the client's affair.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: Option<BTreeMap<String, Auth>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// A helper's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    username: String,
    secret: String,
}

impl DockerLogins {
    pub(crate) fn new(config: PathBuf) -> Self {
        Self { config, deadline: HELPER_DEADLINE, silent: Mutex::default() }
    }

    /// The login for a host, if there is one.
    pub(crate) async fn find(&self, host: &SourceHost) -> Result<Option<DockerLogin>, DockerLoginError> {
        let Some(config) = read(&self.config).await? else { return Ok(None) };
        let (auths, store) = (config.auths.unwrap_or_default(), config.creds_store.unwrap_or_default());
        let helpers = config.cred_helpers.unwrap_or_default();
        let helper = match helpers.iter().find(|(key, _)| is_host(key, host)) {
            Some((key, helper)) => Some((key.clone(), helper)),
            None if store.is_empty() => None,
            // It is asked by the name under which the login was kept, which the client writes into the file as well.
            None => {
                let known = auths.keys().find(|key| is_host(key, host)).cloned();
                let usual = if host.as_str() == "docker.io" { DOCKER_HUB } else { host.as_str() };
                Some((known.unwrap_or_else(|| usual.to_owned()), &store))
            }
        };
        if let Some((key, helper)) = helper
            && let Some(found) = self.ask(helper, &key).await?
        {
            return match found.username.as_str() {
                IDENTITY_TOKEN => Err(DockerLoginError::IdentityToken(host.clone())),
                _ => Ok(Some(DockerLogin { username: found.username, password: SecretString::new(found.secret) })),
            };
        }
        let Some((_, auth)) = auths.into_iter().find(|(key, _)| is_host(key, host)) else { return Ok(None) };
        auth.login(host, &self.config)
    }

    /// Asks a helper that has not been silent before.
    async fn ask(&self, helper: &str, key: &str) -> Result<Option<Found>, DockerLoginError> {
        let silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if silent().contains(helper) {
            return Err(DockerLoginError::Silent(helper.to_owned()));
        }
        match tokio::time::timeout(self.deadline, ask(helper, key)).await {
            Ok(answer) => answer,
            Err(_) => {
                silent().insert(helper.to_owned());
                Err(DockerLoginError::Silent(helper.to_owned()))
            }
        }
    }
}

impl Auth {
    fn login(self, host: &SourceHost, config: &Path) -> Result<Option<DockerLogin>, DockerLoginError> {
        let login = |username: &str, password: &str| {
            let password = SecretString::new(password.trim_end_matches('\0').to_owned());
            Ok(Some(DockerLogin { username: username.to_owned(), password }))
        };
        if !self.identitytoken.is_empty() {
            return Err(DockerLoginError::IdentityToken(host.clone()));
        }
        if !self.auth.is_empty() {
            let bytes = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let text = bytes.ok_or_else(|| DockerLoginError::Form(config.to_owned()))?;
            let (username, password) = text.split_once(':').ok_or_else(|| DockerLoginError::Form(config.to_owned()))?;
            return login(username, password);
        }
        // What a helper keeps has an entry here that says nothing.
        if self.username.is_empty() && self.password.is_empty() {
            Ok(None)
        } else {
            login(&self.username, &self.password)
        }
    }
}

async fn read(path: &Path) -> Result<Option<Config>, DockerLoginError> {
    let fault = |error| DockerLoginError::Config(path.to_owned(), error);
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let mut text = Vec::new();
    file.take(MAX_CONFIG).read_to_end(&mut text).await.map_err(fault)?;
    // Its own error would quote what stands there.
    serde_json::from_slice(&text).map(Some).map_err(|_| DockerLoginError::Form(path.to_owned()))
}

/// Whether a key of the configuration is a host: `HOST`, or a URL of it, as older clients write it.
fn is_host(key: &str, host: &SourceHost) -> bool {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    let name = rest.split('/').next().unwrap_or_default();
    SourceHost::parse(name).is_ok_and(|known| known == *host)
}

/// Asks a helper; nothing where it knows nothing.
async fn ask(helper: &str, key: &str) -> Result<Option<Found>, DockerLoginError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if helper.is_empty() || !helper.chars().all(is_name) {
        return Err(DockerLoginError::HelperName(helper.chars().take(80).flat_map(char::escape_debug).collect()));
    }
    let fault = |source| DockerLoginError::Helper { helper: helper.to_owned(), source };
    let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(fault)?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    if let Some(mut input) = input {
        // One that does not read knows without.
        let _ = input.write_all(key.as_bytes()).await;
    }
    let mut answer = Vec::new();
    if let Some(output) = output {
        output.take(MAX_ANSWER).read_to_end(&mut answer).await.map_err(fault)?;
    }
    if !child.wait().await.map_err(fault)?.success() {
        // In the words of Docker's own helpers, which all others repeat.
        return match String::from_utf8_lossy(&answer).contains(UNKNOWN) {
            true => Ok(None),
            false => Err(DockerLoginError::Answer(helper.to_owned())),
        };
    }
    serde_json::from_slice(&answer).map(Some).map_err(|_| DockerLoginError::Answer(helper.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(config: &str, host: &str) -> Result<Option<(String, String)>, String> {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).expect("written");
        let login = DockerLogins::new(path).find(&SourceHost::parse(host).expect("a host")).await;
        login
            .map(|login| login.map(|login| (login.username, login.password.expose().to_owned())))
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn logins_of_the_file_are_found_under_all_names_of_their_host() {
        // `ann:pa:ss` in base64.
        let config =
            |key: &str| format!(r#"{{"auths": {{"{key}": {{"auth": "YW5uOnBhOnNz"}}}}, "HttpHeaders": {{}}}}"#);
        let ann = Ok(Some(("ann".to_owned(), "pa:ss".to_owned())));
        for (key, host) in [
            ("r.io", "r.io"),
            ("https://R.io/v2/", "r.io"),
            ("r.io:5000", "r.io:5000"),
            ("https://r.io:443", "r.io"),
            (DOCKER_HUB, "docker.io"),
        ] {
            assert_eq!(found(&config(key), host).await, ann, "{key}");
        }
        assert_eq!(found(&config("r.io"), "r.io:5000").await, Ok(None));
        assert_eq!(found(&config("evil-r.io"), "r.io").await, Ok(None));
        assert_eq!(found(r#"{"auths": {"r.io": {}}}"#, "r.io").await, Ok(None));
        let plain = r#"{"auths": {"r.io": {"username": "ann", "password": "pa:ss"}}}"#;
        assert_eq!(found(plain, "r.io").await, ann);
        let token = r#"{"auths": {"r.io": {"auth": "YW5uOg==", "identitytoken": "hunter22"}}}"#;
        let error = found(token, "r.io").await.expect_err("no password");
        assert!(error.contains("identity token") && !error.contains("hunter22"), "{error}");
        let error = found(r#"{"auths": {"r.io": {"auth": "hunter22"}}"#, "r.io").await.expect_err("no JSON");
        assert!(error.contains("config.json") && !error.contains("hunter22"), "{error}");
        let nothing = DockerLogins::new("/nonexistent/config.json".into());
        assert!(nothing.find(&SourceHost::parse("r.io").expect("a host")).await.expect("no fault").is_none());
    }

    #[tokio::test]
    async fn a_helper_is_no_path_and_has_to_be_there() {
        let config = |helper: &str| format!(r#"{{"credHelpers": {{"r.io": "{helper}"}}}}"#);
        let error = found(&config("../../bin/sh"), "r.io").await.expect_err("a path");
        assert!(error.contains("is no name of a credential helper"), "{error}");
        let error = found(&config("nowhere-to-be-found"), "r.io").await.expect_err("not installed");
        assert!(error.contains("docker-credential-nowhere-to-be-found"), "{error}");
        assert_eq!(found(&config("nowhere-to-be-found"), "other.io").await, Ok(None));
        let nulls = r#"{"auths": null, "credsStore": null, "credHelpers": null}"#;
        assert_eq!(found(nulls, "r.io").await, Ok(None));
    }

    #[tokio::test]
    async fn a_helper_that_was_silent_is_not_asked_again() {
        let logins = DockerLogins { deadline: Duration::ZERO, ..DockerLogins::new(PathBuf::new()) };
        let silent = |asked: Result<Option<Found>, _>| matches!(asked, Err(DockerLoginError::Silent(_)));
        // Whether there is such a program or not: nobody waits for it.
        logins.silent.lock().expect("not poisoned").insert("slow".to_owned());
        assert!(silent(logins.ask("slow", "r.io").await));
        assert!(!silent(logins.ask("../other", "r.io").await));
    }
}
