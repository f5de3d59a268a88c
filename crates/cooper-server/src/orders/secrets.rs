//! A run's secrets, opened for one attempt.

use std::collections::BTreeMap;

use cooper_engine::run::Run;
use cooper_ports::runs::{AttemptError, SecretKind};
use cooper_spec::plan::Text;
use cooper_types::{AttemptNumber, SecretBytes, SecretString};

use super::{OrderError, sealing_purpose};
use crate::core::Core;

/// What an attempt may know.
#[derive(Default)]
pub(super) struct RunSecrets {
    /// BuildKit secrets by id.
    pub(super) build: Vec<(String, SecretBytes)>,
    /// Secret build arguments by name.
    arguments: BTreeMap<String, SecretString>,
    /// Secret texts of the plan by name.
    texts: BTreeMap<String, SecretString>,
}

impl RunSecrets {
    pub(super) async fn open(core: &Core, run: &Run, attempt: AttemptNumber) -> Result<Self, OrderError> {
        let sealed = core.runs.run_secrets(run.id, attempt).await.map_err(|error| match error {
            AttemptError::NotLive { .. } => OrderError::Over,
            AttemptError::Store(error) => OrderError::Store(error),
        })?;
        let mut secrets = Self::default();
        for secret in sealed {
            let value = core.key.unseal(&sealing_purpose(secret.kind, &secret.name), &secret.sealed)?;
            let text = || String::from_utf8(value.expose().to_vec()).map(SecretString::new);
            match secret.kind {
                SecretKind::Build => secrets.build.push((secret.name, value)),
                SecretKind::Argument => {
                    let text = text().map_err(|_| OrderError::Argument(secret.name.clone()))?;
                    secrets.arguments.insert(secret.name, text);
                }
                SecretKind::Value => {
                    let text = text().map_err(|_| OrderError::Text(secret.name.clone()))?;
                    secrets.texts.insert(secret.name, text);
                }
            }
        }
        Ok(secrets)
    }

    /// The value of a secret build argument.
    pub(super) fn argument(&self, name: &str) -> Result<SecretString, OrderError> {
        self.arguments.get(name).cloned().ok_or_else(|| OrderError::Argument(name.to_owned()))
    }

    /// A secret text by its name.
    pub(super) fn kept(&self, name: &str) -> Result<SecretString, OrderError> {
        self.texts.get(name).cloned().ok_or_else(|| OrderError::Text(name.to_owned()))
    }

    /// What a text of the plan comes to.
    pub(super) fn text(&self, text: &Text) -> Result<SecretString, OrderError> {
        match text {
            Text::Plain(text) => Ok(SecretString::new(text.clone())),
            Text::Secret(name) => self.kept(name),
        }
    }

    /// Everything that must not be seen in the log.
    pub(super) fn masked(&self) -> Vec<SecretBytes> {
        let texts = self.arguments.values().chain(self.texts.values());
        let texts = texts.map(|text| SecretBytes::new(text.expose().as_bytes().to_vec()));
        self.build.iter().map(|(_, value)| value.clone()).chain(texts).collect()
    }
}
