//! The server's own store as a provider: sealed values are opened here.

use std::sync::Arc;

use async_trait::async_trait;
use cooper_ports::secrets::{Asker, NamedSecretError, ProvideError, ProvidedSecret, SecretProvider, SecretStore};
use cooper_types::{SecretName, SecretString};

use super::secret_purpose;
use crate::keys::ServerKey;

/// The store.
pub(super) struct Stored {
    store: Arc<dyn SecretStore>,
    key: Arc<ServerKey>,
}

impl Stored {
    pub(super) fn new(store: Arc<dyn SecretStore>, key: Arc<ServerKey>) -> Self {
        Self { store, key }
    }
}

#[async_trait]
impl SecretProvider for Stored {
    fn describe(&self) -> String {
        "the server's store".to_owned()
    }

    async fn provide(
        &self,
        asker: &Asker,
        name: &SecretName,
        version: Option<&str>,
    ) -> Result<ProvidedSecret, ProvideError> {
        let version = version.map(|text| {
            let what = || ProvideError::Refused(format!("its versions are numbers, and `{text}` is none"));
            text.parse::<u64>().map_err(|_| what())
        });
        let found = self.store.secret_for(&asker.principal, name, version.transpose()?).await;
        let found = found.map_err(|error| match error {
            NamedSecretError::Unknown { .. } | NamedSecretError::UnknownVersion { .. } => {
                ProvideError::Refused(error.to_string())
            }
            NamedSecretError::Store(source) => {
                ProvideError::Unavailable { what: self.describe(), source: source.into() }
            }
        })?;
        let opened = self.key.unseal(&secret_purpose(name), &found.sealed).map_err(|_| {
            ProvideError::Unusable(format!(
                "it was sealed with another key than the server has now: restore that key, or set the secret again with \
                 `cooper secret set {name}`"
            ))
        })?;
        let text = std::str::from_utf8(opened.expose())
            .map_err(|_| ProvideError::Unusable("its value is not text".to_owned()))?;
        Ok(ProvidedSecret { value: SecretString::new(text.to_owned()), version: Some(found.version.to_string()) })
    }
}
