//! Variables of the server's environment as a provider. They were read when the server started; nothing else of the
//! environment is ever looked at for a task.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cooper_ports::secrets::{Asker, ProvideError, ProvidedSecret, SecretProvider};
use cooper_types::{SecretName, SecretString};

use super::checked;

/// What it is called.
pub(super) const NAME: &str = "the server's environment";

/// The variables whose names begin with a vault's prefix.
pub(super) struct Variables {
    prefix: String,
    values: BTreeMap<String, SecretString>,
}

impl Variables {
    pub(super) fn new(prefix: String, values: BTreeMap<String, SecretString>) -> Self {
        Self { prefix, values }
    }
}

#[async_trait]
impl SecretProvider for Variables {
    fn describe(&self) -> String {
        NAME.to_owned()
    }

    async fn provide(
        &self,
        _: &Asker,
        name: &SecretName,
        version: Option<&str>,
    ) -> Result<ProvidedSecret, ProvideError> {
        if version.is_some() {
            return Err(ProvideError::Refused("variables have no versions: leave the version out".to_owned()));
        }
        let variable = format!("{}{}", self.prefix, name.as_str().to_ascii_uppercase().replace('-', "_"));
        let value = usable(&variable, self.values.get(&variable))?;
        Ok(ProvidedSecret { value, version: None })
    }
}

/// The variable's value, if it is set and a step can have it.
pub(super) fn usable(variable: &str, value: Option<&SecretString>) -> Result<SecretString, ProvideError> {
    match value {
        Some(value) => checked(value.expose()),
        None => Err(ProvideError::Refused(format!(
            "variable {variable} was not set when the server started: set it and start the server again"
        ))),
    }
}
