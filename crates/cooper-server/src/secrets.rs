//! Secrets that tasks name: where they come from, and to whose runs they are given.
//!
//! [`Secrets::resolve`] answers for a whole task file. Which provider a place means is decided here; each provider says
//! what it has. Values are in memory for as long as a run is planned, and in no message.

mod environment;
mod stored;
#[cfg(test)]
mod tests;
mod vault;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cooper_ports::secrets::{Asker, ProvideError, ProvidedSecret, SecretProvider, SecretStore};
use cooper_spec::secret_place::{SecretPlace, SecretPlaceError};
use cooper_types::{SecretName, SecretString};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::keys::ServerKey;
use crate::server::StartError;
use crate::settings::{SecretSettings, SecretUsers, VaultTarget};
use environment::Variables;
use stored::Stored;
use vault::{KvEngine, KvVersion, VaultServer};

/// The largest secret that a task can name, in bytes.
pub(crate) const MAX_VALUE_BYTES: usize = 64 * 1024;
/// How many secrets of one task are asked for at a time.
const PARALLEL: usize = 5;
/// How long one secret may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What a named secret is bound to when it is sealed: moved to another name, it does not open.
pub(crate) fn secret_purpose(name: &SecretName) -> String {
    format!("secret/{name}")
}

/// A secret that a task wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name in `.Secrets`.
    pub(crate) id: String,
    /// The text of `keyvault:`.
    pub(crate) place: String,
}

/// A secret that a task gets.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    /// Its name in `.Secrets`.
    pub(crate) id: String,
    /// Its value.
    pub(crate) value: SecretString,
    /// Who gave it, for people.
    pub(crate) provider: String,
    /// Where it came from, for the run's record; with its version where such places have versions.
    pub(crate) place: SecretPlace,
    /// What tells this value from the place's others, for the run's record.
    pub(crate) version: ResolvedVersion,
}

/// What tells a value from others of the same place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResolvedVersion {
    /// The place's own name for it: the same value can be had again.
    Kept(String),
    /// The place has no versions. This text, keyed with the server's key, differs when the value does.
    Fingerprint(String),
}

/// Why a task's secrets were not had. The message names the secret, its place and the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    /// The text names no place.
    #[error("secret `{id}` can't be had")]
    Place {
        /// Its name in `.Secrets`.
        id: String,
        /// What is wrong with the text.
        #[source]
        source: SecretPlaceError,
    },
    /// The vault is not mapped to anything.
    #[error(
        "secret `{id}` is in vault `{vault}`, which this server does not know: its operator says what it stands for with \
         --secret-vault {vault}=store, env:PREFIX or vault:MOUNT/PATH"
    )]
    UnknownVault {
        /// Its name in `.Secrets`.
        id: String,
        /// The vault's host.
        vault: String,
    },
    /// The operator lists others.
    #[error(
        "secret `{id}` ({place}) may not be used by this run of {principal}: the server's operator lists who may with \
         {flag}"
    )]
    NotAllowed {
        /// Its name in `.Secrets`.
        id: String,
        /// Its place.
        place: Box<SecretPlace>,
        /// Whose run it is.
        principal: cooper_types::PrincipalName,
        /// Where it is said.
        flag: &'static str,
    },
    /// The provider refused or failed.
    #[error("secret `{id}` ({place}) can't be had from {provider}")]
    Provider {
        /// Its name in `.Secrets`.
        id: String,
        /// Its place.
        place: Box<SecretPlace>,
        /// Who was asked.
        provider: String,
        /// What it said.
        #[source]
        source: ProvideError,
    },
    /// The provider took too long.
    #[error("secret `{id}` ({place}) did not come from {provider} within {} s", after.as_secs())]
    Late {
        /// Its name in `.Secrets`.
        id: String,
        /// Its place.
        place: Box<SecretPlace>,
        /// Who was asked.
        provider: String,
        /// How long it had.
        after: Duration,
    },
}

impl ResolveError {
    /// Whether the same may succeed later without anybody changing anything.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Late { .. } => true,
            Self::Provider { source, .. } => matches!(source, ProvideError::Unavailable { .. }),
            Self::Place { .. } | Self::UnknownVault { .. } | Self::NotAllowed { .. } => false,
        }
    }
}

/// A vault of the operator's map.
struct Vault {
    provider: Arc<dyn SecretProvider>,
    /// Whose runs may use it; absent where the provider knows.
    users: Option<SecretUsers>,
}

/// All providers of a server.
pub(crate) struct Secrets {
    key: Arc<ServerKey>,
    stored: Arc<Stored>,
    variables: BTreeMap<String, (Option<SecretString>, SecretUsers)>,
    vaults: BTreeMap<String, Vault>,
    /// How long one secret may take.
    timeout: Duration,
}

/// Whom to ask for what, and what a record calls it.
struct Question<'a> {
    provider: &'a dyn SecretProvider,
    name: SecretName,
    version: Option<String>,
}

impl Secrets {
    /// Makes the providers. A file that the settings name must be there.
    pub(crate) fn open(
        settings: &SecretSettings,
        store: Arc<dyn SecretStore>,
        key: Arc<ServerKey>,
    ) -> Result<Self, StartError> {
        let stored = Arc::new(Stored::new(store, key.clone()));
        let server = settings.vault.as_ref().map(VaultServer::new).transpose()?.map(Arc::new);
        let mut vaults = BTreeMap::new();
        for (host, (target, users)) in &settings.vaults {
            let provider: Arc<dyn SecretProvider> = match target {
                VaultTarget::Store => stored.clone(),
                VaultTarget::Environment { prefix, variables } => {
                    Arc::new(Variables::new(prefix.clone(), variables.clone()))
                }
                VaultTarget::Kv1 { mount, path } => {
                    Arc::new(KvEngine::new(server.clone(), KvVersion::One, mount.clone(), path.clone()))
                }
                VaultTarget::Kv2 { mount, path } => {
                    Arc::new(KvEngine::new(server.clone(), KvVersion::Two, mount.clone(), path.clone()))
                }
            };
            let users = (*target != VaultTarget::Store).then(|| users.clone());
            vaults.insert(host.clone(), Vault { provider, users });
        }
        for (name, (value, _)) in &settings.environment {
            if value.is_none() {
                tracing::warn!("--secret-env names {name}, which is not set in the server's environment");
            }
        }
        Ok(Self { key, stored, variables: settings.environment.clone(), vaults, timeout: TIMEOUT })
    }

    /// The values of all secrets that a task wants, in the same order; or why one of them can't be had. `asker` is the
    /// run's principal with the scopes of its token.
    pub(crate) async fn resolve(&self, asker: &Asker, wanted: &[Wanted]) -> Result<Vec<Resolved>, ResolveError> {
        let asked: Vec<_> = wanted.iter().map(|wanted| self.resolve_one(asker, wanted)).collect();
        futures::stream::iter(asked).buffered(PARALLEL).try_collect().await
    }

    async fn resolve_one(&self, asker: &Asker, wanted: &Wanted) -> Result<Resolved, ResolveError> {
        let id = wanted.id.clone();
        let place =
            SecretPlace::parse(&wanted.place).map_err(|source| ResolveError::Place { id: id.clone(), source })?;
        let question = match &place {
            SecretPlace::Environment { variable } => return self.variable(asker, id, variable, &place),
            SecretPlace::Store { name, version } => {
                let version = version.map(|version| version.to_string());
                Question { provider: self.stored.as_ref(), name: name.clone(), version }
            }
            SecretPlace::Vault { vault, name, version } => {
                let Some(found) = self.vaults.get(vault) else {
                    return Err(ResolveError::UnknownVault { id, vault: vault.clone() });
                };
                if found.users.as_ref().is_some_and(|users| !users.allow(asker)) {
                    return Err(not_allowed(asker, id, &place, "--secret-vault"));
                }
                Question { provider: found.provider.as_ref(), name: name.clone(), version: version.clone() }
            }
        };
        let asked = question.provider.provide(asker, &question.name, question.version.as_deref());
        let provider = || question.provider.describe();
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(Ok(provided)) => Ok(self.resolved(id, provider(), place, provided)),
            Ok(Err(source)) => Err(ResolveError::Provider { id, place: place.into(), provider: provider(), source }),
            Err(_) => Err(ResolveError::Late { id, place: place.into(), provider: provider(), after: self.timeout }),
        }
    }

    /// A variable that the operator has listed by its name.
    fn variable(
        &self,
        asker: &Asker,
        id: String,
        variable: &str,
        place: &SecretPlace,
    ) -> Result<Resolved, ResolveError> {
        // A variable that is not listed looks like one for others.
        let allowed = self.variables.get(variable).filter(|(_, users)| users.allow(asker));
        let Some((value, _)) = allowed else {
            return Err(not_allowed(asker, id, place, "--secret-env"));
        };
        match environment::usable(variable, value.as_ref()) {
            Ok(value) => {
                let provided = ProvidedSecret { value, version: None };
                Ok(self.resolved(id, environment::NAME.to_owned(), place.clone(), provided))
            }
            Err(source) => {
                let (place, provider) = (place.clone().into(), environment::NAME.to_owned());
                Err(ResolveError::Provider { id, place, provider, source })
            }
        }
    }

    fn resolved(&self, id: String, provider: String, place: SecretPlace, provided: ProvidedSecret) -> Resolved {
        let ProvidedSecret { value, version } = provided;
        match version {
            Some(version) => {
                let pinned = place.clone().at_version(&version).unwrap_or(place);
                Resolved { id, value, provider, place: pinned, version: ResolvedVersion::Kept(version) }
            }
            None => {
                let print = self.key.fingerprint(&place.to_string(), value.expose());
                Resolved { id, value, provider, place, version: ResolvedVersion::Fingerprint(print) }
            }
        }
    }
}

fn not_allowed(asker: &Asker, id: String, place: &SecretPlace, flag: &'static str) -> ResolveError {
    ResolveError::NotAllowed { id, place: place.clone().into(), principal: asker.principal.clone(), flag }
}

/// A value as it comes from outside, if a step can have it: text of a bearable size.
fn checked(value: &str) -> Result<SecretString, ProvideError> {
    let refused = |what: &str| Err(ProvideError::Unusable(what.to_owned()));
    match value {
        "" => refused("its value is empty"),
        value if value.len() > MAX_VALUE_BYTES => {
            refused(&format!("its value is larger than {MAX_VALUE_BYTES} bytes, which is the most that a task takes"))
        }
        value if value.contains('\0') => refused("its value holds a NUL character; keep it encoded"),
        value => Ok(SecretString::new(value.to_owned())),
    }
}
