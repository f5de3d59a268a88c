//! How an engine logs in to registries: host by host, when one wants to know who asks.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use cooper_types::{RegistryName, SecretString, SourceHost};

/// A login for one registry.
#[derive(Clone, Debug)]
pub struct RegistryCredential {
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: SecretString,
}

/// It can't be told now whether there is a login: nobody may go on as if there were none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the credential for registry `{registry}` can't be asked for: {why}")]
pub struct LoginError {
    /// Whose.
    pub registry: RegistryName,
    /// What happened.
    pub why: String,
}

/// Logins for registries. What it gives is for that registry alone.
#[async_trait]
pub trait RegistryLogins: fmt::Debug + Send + Sync {
    /// How to log in to a registry; `None` is as nobody.
    async fn login(&self, registry: &RegistryName) -> Result<Option<RegistryCredential>, LoginError>;
}

/// Logins that are known beforehand. Names of one registry are one.
#[async_trait]
impl RegistryLogins for BTreeMap<RegistryName, RegistryCredential> {
    async fn login(&self, registry: &RegistryName) -> Result<Option<RegistryCredential>, LoginError> {
        let Some(host) = SourceHost::of_registry(registry) else { return Ok(None) };
        let found = self.iter().find(|(name, _)| SourceHost::of_registry(name).as_ref() == Some(&host));
        Ok(found.map(|(_, credential)| credential.clone()))
    }
}
