//! Credentials for the hosts of sources and registries: one for each host, for the runs of some principals.
//!
//! A secret comes sealed and leaves sealed: the store never sees one, and gives it to live attempts, and to the server for a principal's own tasks.

use std::collections::BTreeSet;

use async_trait::async_trait;
use cooper_types::{AttemptNumber, PrincipalName, RunId, SourceHost, Timestamp};

use crate::runs::AttemptError;
use crate::store_error::StoreError;

/// Whose runs may use a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsableBy {
    /// Everybody's.
    Everybody,
    /// These principals'.
    Principals(BTreeSet<PrincipalName>),
}

/// A credential without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceCredential {
    /// What it is for.
    pub host: SourceHost,
    /// The user name that goes with it.
    pub username: String,
    /// Whose runs may use it.
    pub usable_by: UsableBy,
    /// Who set it last.
    pub set_by: PrincipalName,
    /// When it was set last.
    pub updated: Timestamp,
}

/// A credential to be kept, in place of the host's earlier one.
#[derive(Clone, PartialEq, Eq)]
pub struct NewSourceCredential {
    /// What it is for.
    pub host: SourceHost,
    /// The user name that goes with it.
    pub username: String,
    /// Nonce and ciphertext of the password or token.
    pub sealed: Vec<u8>,
    /// Whose runs may use it.
    pub usable_by: UsableBy,
    /// Who sets it.
    pub set_by: PrincipalName,
}

/// What is kept for a host, as an attempt finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCredential {
    /// A credential that the run's principal may use.
    Usable(SealedCredential),
    /// One that only others may use.
    ForOthers,
    /// None.
    Nothing,
}

/// What an attempt is given.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCredential {
    /// The user name.
    pub username: String,
    /// Nonce and ciphertext of the password or token.
    pub sealed: Vec<u8>,
    /// Whose run asks.
    pub principal: PrincipalName,
    /// The key of the run's task, where it is that task's own.
    pub task: Option<String>,
}

impl std::fmt::Debug for NewSourceCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewSourceCredential({})", self.host)
    }
}

impl std::fmt::Debug for SealedCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealedCredential")
    }
}

/// Keeps credentials.
#[async_trait]
pub trait SourceCredentialStore: Send + Sync {
    /// Keeps a credential; the host's earlier one is gone.
    async fn put_credential(&self, credential: NewSourceCredential) -> Result<SourceCredential, StoreError>;

    /// All credentials, by host.
    async fn list_credentials(&self) -> Result<Vec<SourceCredential>, StoreError>;

    /// Forgets a host's credential. Whether there was one.
    async fn delete_credential(&self, host: &SourceHost) -> Result<bool, StoreError>;

    /// What is kept for a host, for a live attempt of a run.
    async fn credential_for(
        &self,
        run: RunId,
        attempt: AttemptNumber,
        host: &SourceHost,
    ) -> Result<HostCredential, AttemptError>;

    /// What is kept for a host and a principal's runs may use: to ask there what has to be known before there is a run.
    async fn credential_of(
        &self,
        principal: &PrincipalName,
        host: &SourceHost,
    ) -> Result<Option<SealedCredential>, StoreError>;
}
