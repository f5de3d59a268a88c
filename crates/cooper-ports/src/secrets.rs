//! Secrets of tasks: the store that keeps named ones, and what any place that has secrets must offer.
//!
//! The store sees sealed values alone. A provider hands out clear ones, to whom it is told may have them; a run's own
//! secrets are in [`crate::runs`].

use async_trait::async_trait;
use cooper_types::{PrincipalName, Scopes, SecretName, SecretString, Timestamp};

use crate::credentials::UsableBy;
use crate::store_error::StoreError;

/// The most versions that are kept of a secret: the oldest goes when a further one is set.
pub const MAX_VERSIONS: usize = 20;

/// A secret without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedSecret {
    /// Its name.
    pub name: SecretName,
    /// Whose runs may use it.
    pub usable_by: UsableBy,
    /// Its versions, the newest first; at least one.
    pub versions: Vec<NamedVersion>,
}

/// A version of a secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedVersion {
    /// Its number: from 1 on, never used again, whatever is deleted.
    pub version: u64,
    /// Who set it.
    pub set_by: PrincipalName,
    /// When it was set.
    pub created: Timestamp,
}

/// A change of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PutSecret {
    /// Its name.
    pub name: SecretName,
    /// Nonce and ciphertext of a new version, if there is to be one.
    pub sealed: Option<Vec<u8>>,
    /// Whose runs may use it from now on. Absent, it stays as it is, and a new secret is its setter's own.
    pub usable_by: Option<UsableBy>,
    /// Who sets it.
    pub set_by: PrincipalName,
}

impl std::fmt::Debug for PutSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PutSecret({})", self.name)
    }
}

/// A version's value, sealed.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedVersion {
    /// Which one it is.
    pub version: u64,
    /// Nonce and ciphertext.
    pub sealed: Vec<u8>,
}

impl std::fmt::Debug for SealedVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedVersion({})", self.version)
    }
}

/// Why a secret was not changed.
#[derive(Debug, thiserror::Error)]
pub enum PutSecretError {
    /// There is none whose users could be changed.
    #[error("secret `{0}` does not exist: `cooper secret set {0}` makes it")]
    Unknown(SecretName),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a secret was not handed out.
#[derive(Debug, thiserror::Error)]
pub enum NamedSecretError {
    /// There is none, or it is not for this principal, which looks the same.
    #[error(
        "secret `{name}` does not exist, or runs of {principal} may not use it: an administrator makes it with \
         `cooper secret set {name}`, or adds a user with `cooper secret allow {name} --principal {principal}`"
    )]
    Unknown {
        /// Its name.
        name: SecretName,
        /// Who asked.
        principal: PrincipalName,
    },
    /// There is no such version any more, or not yet.
    #[error("secret `{name}` has no version {version}: `cooper secret list` shows those that are kept")]
    UnknownVersion {
        /// The secret.
        name: SecretName,
        /// The version.
        version: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps named secrets.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Adds a version to a secret, or changes who may use it, or both.
    async fn put_secret(&self, put: PutSecret) -> Result<NamedSecret, PutSecretError>;

    /// All secrets, by name.
    async fn list_secrets(&self) -> Result<Vec<NamedSecret>, StoreError>;

    /// Forgets a secret, or one version of it. Whether there was one.
    async fn delete_secret(&self, name: &SecretName, version: Option<u64>) -> Result<bool, StoreError>;

    /// A secret's newest version, or the one that is named, for a run of this principal.
    async fn secret_for(
        &self,
        principal: &PrincipalName,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<SealedVersion, NamedSecretError>;
}

/// For whom secrets are asked.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The run's principal.
    pub principal: PrincipalName,
    /// What the token that started the run may do.
    pub scopes: Scopes,
}

/// A secret in clear, as a provider hands it out.
#[derive(Clone, Debug)]
pub struct ProvidedSecret {
    /// The value.
    pub value: SecretString,
    /// The version's name at the provider, where it has versions.
    pub version: Option<String>,
}

/// Why a provider hands a secret out not. No message holds a value.
#[derive(Debug, thiserror::Error)]
pub enum ProvideError {
    /// It is not there, or not for the asker.
    #[error("{0}")]
    Refused(String),
    /// There is something else than a secret.
    #[error("{0}")]
    Unusable(String),
    /// The provider can't be asked now.
    #[error("{what} can't be asked; start the run again when it can")]
    Unavailable {
        /// Who could not be asked.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A place that has secrets: the server's own store, its environment, a vault.
#[async_trait]
pub trait SecretProvider: Send + Sync {
    /// What it is, for people: "the server's store".
    fn describe(&self) -> String;

    /// The secret's newest version, or the one that is named.
    async fn provide(
        &self,
        asker: &Asker,
        name: &SecretName,
        version: Option<&str>,
    ) -> Result<ProvidedSecret, ProvideError>;
}
