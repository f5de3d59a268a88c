//! Where the secrets that tasks name may come from, and for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use cooper_ports::secrets::Asker;
use cooper_types::{PrincipalName, SecretString};
use url::{Host, Url};

/// The providers of secrets besides the server's own store, and the key of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretSettings {
    /// The server's key as 64 hexadecimal digits, in place of the file in the data directory.
    pub key: Option<SecretString>,
    /// The variables that tasks may name, with their values as they were at the start, where they are set.
    pub environment: BTreeMap<String, (Option<SecretString>, SecretUsers)>,
    /// What stands for the vaults that tasks may name, by host.
    pub vaults: BTreeMap<String, (VaultTarget, SecretUsers)>,
    /// The server of HashiCorp Vault, where there is one.
    pub vault: Option<VaultSettings>,
}

/// Whose runs may use a secret that the operator provides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretUsers {
    /// Those that a token with the scope `admin` started.
    #[default]
    Admins,
    /// These principals'.
    Principals(BTreeSet<PrincipalName>),
    /// Everybody's.
    Everybody,
}

/// What stands for a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultTarget {
    /// The server's own store, which knows for whom each secret is.
    Store,
    /// Variables whose names begin so.
    Environment {
        /// How they begin.
        prefix: String,
        /// The variables that were set at the start.
        variables: BTreeMap<String, SecretString>,
    },
    /// A folder of Vault's key-value engine, version 1.
    Kv1 {
        /// Where the engine is mounted.
        mount: String,
        /// The folder in it.
        path: Vec<String>,
    },
    /// A folder of Vault's key-value engine, version 2.
    Kv2 {
        /// Where the engine is mounted.
        mount: String,
        /// The folder in it.
        path: Vec<String>,
    },
}

/// A server of HashiCorp Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSettings {
    /// Its address.
    pub address: VaultAddress,
    /// The file with the token, read at each use.
    pub token_file: PathBuf,
    /// The namespace, where it has some.
    pub namespace: Option<String>,
    /// Certificates (PEM) that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// The address of a server of Vault: https, or http on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultAddress(Url);

/// Why a text is no address of a server of Vault.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VaultAddressError {
    /// It is no URL of one.
    #[error("`{0}` is not an address such as https://vault.example.com:8200")]
    Form(String),
    /// The network could read token and secrets.
    #[error("`{0}` is plain http to another machine, which could read token and secrets on the way; use https")]
    Plain(String),
}

impl VaultAddress {
    /// Parses an address.
    pub fn parse(text: &str) -> Result<Self, VaultAddressError> {
        // What stands before an `@` may be a password.
        let form = || VaultAddressError::Form(text.rsplit('@').next().unwrap_or_default().chars().take(160).collect());
        let url = Url::parse(text).map_err(|_| form())?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let is_here = match url.host() {
            None => return Err(form()),
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
        };
        match url.scheme() {
            "https" | "http" if !is_plain || url.fragment().is_some() => Err(form()),
            "http" if !is_here => Err(VaultAddressError::Plain(url.to_string())),
            "https" | "http" => Ok(Self(url)),
            _ => Err(form()),
        }
    }

    /// The address.
    pub(crate) fn url(&self) -> &Url {
        &self.0
    }
}

impl SecretUsers {
    /// Whether a run may use what is theirs.
    pub(crate) fn allow(&self, asker: &Asker) -> bool {
        match self {
            Self::Admins => asker.scopes.admin(),
            Self::Principals(principals) => principals.contains(&asker.principal),
            Self::Everybody => true,
        }
    }
}
