//! How an attempt logs in to registries: in the embedded one with its own credential, elsewhere with what the server keeps
//! for the host and the run's principal may use.

use std::error::Error;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use cooper_ports::engine::{LoginError, RegistryCredential, RegistryLogins};
use cooper_source::git::{CredentialSource, GitCredential};
use cooper_types::{ImageRef, RegistryName, SourceHost};

use super::Ended;
use super::credentials::{HostCredentials, Kept};
use crate::settings::CredentialKeeper;

/// The logins of one attempt.
pub(super) struct AttemptLogins {
    registry: RegistryName,
    credential: RegistryCredential,
    hosts: HostCredentials,
    /// Why a login that was asked for could not be given.
    fault: Mutex<Option<LoginError>>,
}

/// How to log in to a registry.
pub(super) struct Login {
    /// With what; as nobody if absent.
    pub(super) credential: Option<RegistryCredential>,
    /// Whether the server keeps a credential for it, be it for others: then the engine may hold images of it that this
    /// run may not have.
    pub(super) kept: bool,
}

impl AttemptLogins {
    /// `registry` is the embedded one, and `credential` the attempt's for it.
    pub(super) fn new(registry: RegistryName, credential: RegistryCredential, hosts: HostCredentials) -> Self {
        Self { registry, credential, hosts, fault: Mutex::default() }
    }

    /// The login for a registry; a loss if the server can't tell it now.
    pub(super) async fn of(&self, registry: &RegistryName) -> Result<Login, Ended> {
        self.find(registry).await.map_err(|error| Ended::Lost(error.to_string()))
    }

    /// What the server keeps for hosts.
    pub(super) fn hosts(&self) -> &HostCredentials {
        &self.hosts
    }

    async fn find(&self, registry: &RegistryName) -> Result<Login, LoginError> {
        if *registry == self.registry {
            return Ok(Login { credential: Some(self.credential.clone()), kept: true });
        }
        // What no host can be called has no credential.
        let Some(host) = SourceHost::of_registry(registry) else { return Ok(Login { credential: None, kept: false }) };
        match self.hosts.of(host.as_str()).await {
            Ok(Kept::Given(credential)) => Ok(Login { credential: Some(credential), kept: true }),
            // What the engine has already, its user may have.
            Ok(Kept::Own(credential)) => Ok(Login { credential: Some(credential), kept: false }),
            Ok(Kept::ForOthers) => Ok(Login { credential: None, kept: true }),
            Ok(Kept::Nothing | Kept::NothingOwn) => Ok(Login { credential: None, kept: false }),
            Err(error) => Err(LoginError { registry: registry.clone(), why: error.to_string() }),
        }
    }

    /// Why a login that the engine asked for could not be given, if that happened.
    pub(super) fn take_fault(&self) -> Option<LoginError> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What can be done about a refusal of an image's registry.
    pub(super) fn advice(&self, image: &ImageRef) -> String {
        let Some(host) = SourceHost::of_image(image).filter(|_| image.registry.as_ref() != Some(&self.registry)) else {
            return String::new();
        };
        match self.hosts.known(host.as_str()) {
            Some(Kept::Given(_)) => {
                format!(
                    "; the credential that is kept for {host} is not enough: keep another with `cooper credential set {host}`"
                )
            }
            Some(Kept::Own(_)) => {
                format!("; the login of your Docker client is not enough: log in again with `docker login {host}`")
            }
            Some(Kept::ForOthers) => format!(
                "; the credential that is kept for {host} is not for this run: an administrator can allow it with `cooper \
                 credential set {host} --principal …`"
            ),
            Some(Kept::NothingOwn) => format!("; if a login is needed, log in with `docker login {host}`"),
            Some(Kept::Nothing) | None if self.hosts.keeper() == CredentialKeeper::Nobody => {
                format!("; if a login is needed, --docker-logins shows {host} that of your Docker client")
            }
            Some(Kept::Nothing) | None => {
                format!("; if a login is needed, keep one for {host} with `cooper credential set {host}`")
            }
        }
    }
}

#[async_trait]
impl RegistryLogins for AttemptLogins {
    async fn login(&self, registry: &RegistryName) -> Result<Option<RegistryCredential>, LoginError> {
        let found = self.find(registry).await;
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match &found {
            Err(error) => *fault = Some(error.clone()),
            // Whoever asked again has it: nothing failed for that.
            Ok(_) if fault.as_ref().is_some_and(|fault| fault.registry == *registry) => *fault = None,
            Ok(_) => {}
        }
        drop(fault);
        Ok(found?.credential)
    }
}

/// The same for what the agent asks registries itself.
#[async_trait]
impl CredentialSource for AttemptLogins {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn Error + Send + Sync>> {
        if host.eq_ignore_ascii_case(self.registry.as_str()) {
            let RegistryCredential { username, password } = self.credential.clone();
            return Ok(Some(GitCredential { username, password }));
        }
        self.hosts.for_host(host).await
    }
}

impl fmt::Debug for AttemptLogins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AttemptLogins")
    }
}
