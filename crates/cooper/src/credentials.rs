//! The login file: which servers the user logged in to, and the token of each. Mode 0600, replaced as a whole.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::environment::Environment;
use crate::fault::Fault;

const FILE_NAME: &str = "credentials.toml";

/// What the login file holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Credentials {
    /// The server that commands use when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
    /// The logins, one for each server.
    #[serde(default, rename = "server", skip_serializing_if = "Vec::is_empty")]
    pub(crate) servers: Vec<Login>,
}

/// A login to one server.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Login {
    /// The server's address in its normal form.
    pub(crate) url: String,
    /// The token.
    pub(crate) token: String,
    /// Whom the token spoke for at login.
    #[serde(default)]
    pub(crate) principal: String,
    /// Whether plain http was accepted at login.
    #[serde(default)]
    pub(crate) insecure: bool,
    /// The certificates of the CAs that are believed for this server, in PEM form; the system's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("url", &self.url).field("insecure", &self.insecure).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the login file; an absent one is empty.
    pub(crate) fn load(environment: &Environment) -> Result<Self, Fault> {
        let Some(path) = Self::path(environment) else { return Ok(Self::default()) };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Fault::usage(format!("login file {} can't be read: {error}", path.display()))),
        };
        // The parser's message quotes the line, which may hold a token.
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            Fault::usage(format!("login file {} is not valid at line {line}", path.display()))
                .with_hint("remove the file and log in again with `cooper login URL`")
        })
    }

    /// Replaces the login file.
    pub(crate) fn save(&self, environment: &Environment) -> Result<PathBuf, Fault> {
        let path = Self::path(environment).ok_or_else(|| {
            Fault::usage("there is no place for the login file: neither HOME nor COOPER_CONFIG_DIR is set")
                .with_hint("set COOPER_CONFIG_DIR to a folder, or pass the token with COOPER_TOKEN")
        })?;
        let fault = |error: io::Error| Fault::usage(format!("login file {} can't be written: {error}", path.display()));
        let text = toml::to_string(self)
            .map_err(|_| Fault::machinery(format!("login file {} can't be made", path.display())))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        create_private(folder).map_err(fault)?;
        // A new file made by tempfile is readable by its owner only, and taking the old one's place is atomic.
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fault)?;
        file.write_all(text.as_bytes()).map_err(fault)?;
        file.as_file().sync_all().map_err(fault)?;
        file.persist(&path).map_err(|error| fault(error.error))?;
        Ok(path)
    }

    /// The login to the server with this address.
    pub(crate) fn login(&self, url: &str) -> Option<&Login> {
        self.servers.iter().find(|login| login.url == url)
    }

    /// Adds a login, in place of an earlier one to the same server, and makes it the default.
    pub(crate) fn add(&mut self, login: Login) {
        self.default = Some(login.url.clone());
        self.servers.retain(|other| other.url != login.url);
        self.servers.push(login);
    }

    /// Removes the login to a server; whether there was one.
    pub(crate) fn remove(&mut self, url: &str) -> bool {
        let before = self.servers.len();
        self.servers.retain(|login| login.url != url);
        if self.default.as_deref() == Some(url) {
            self.default = self.servers.last().map(|login| login.url.clone());
        }
        self.servers.len() < before
    }

    fn path(environment: &Environment) -> Option<PathBuf> {
        Some(environment.config_dir()?.join(FILE_NAME))
    }
}

fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(url: &str, token: &str) -> Login {
        Login { url: url.to_owned(), token: token.to_owned(), principal: "dev".to_owned(), insecure: false, ca: None }
    }

    #[test]
    fn logins_survive_and_only_their_owner_reads_them() {
        let folder = tempfile::tempdir().expect("folder");
        let place = folder.path().join("new/cooper");
        let environment = Environment::of(&[("COOPER_CONFIG_DIR", place.to_str().expect("text"))]);
        assert_eq!(Credentials::load(&environment), Ok(Credentials::default()));
        let mut credentials = Credentials::default();
        credentials.add(login("http://localhost:5000", "hunter1"));
        credentials.add(login("https://b.example.com", "hunter2"));
        credentials.add(login("http://localhost:5000", "hunter3"));
        let path = credentials.save(&environment).expect("saved");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
        }
        let mut read = Credentials::load(&environment).expect("read");
        assert_eq!(read, credentials);
        assert_eq!(read.default.as_deref(), Some("http://localhost:5000"));
        assert_eq!(read.login("http://localhost:5000").map(|login| login.token.as_str()), Some("hunter3"));
        assert!(read.remove("http://localhost:5000"));
        assert!(!read.remove("http://localhost:5000"));
        assert_eq!(read.default.as_deref(), Some("https://b.example.com"));
        assert!(!format!("{credentials:?}").contains("hunter"));

        fs::write(&path, "[[server]]\nurl = \"a\"\ntoken = hunter2\n").expect("write");
        let fault = Credentials::load(&environment).expect_err("not TOML");
        assert!(fault.message.contains("line 3") && !fault.message.contains("hunter2"), "{}", fault.message);
    }
}
