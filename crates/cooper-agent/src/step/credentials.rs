//! Credentials for hosts, asked of the server one by one. What was given is masked from then on.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::agent::{attempt_message, wire};
use cooper_engine::message::PlacementKey;
use cooper_ports::engine::RegistryCredential;
use cooper_source::git::{CredentialSource, GitCredential};
use cooper_spec::source::RemoteSource;
use cooper_types::{AttemptNumber, SecretString, SourceHost};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::Attempt;
use super::own_tries::{OwnTries, may_pass};
use super::step_log::StepLog;
use crate::connect::Bearer;
use crate::link;
use crate::settings::CredentialKeeper;

/// How long the server may take to answer, once there is a stream to it.
const ANSWER: Duration = Duration::from_secs(20);

/// The server's credentials for one attempt.
pub(super) struct HostCredentials {
    channels: watch::Receiver<Option<Channel>>,
    bearer: Bearer,
    key: PlacementKey,
    attempt: AttemptNumber,
    log: StepLog,
    keeper: CredentialKeeper,
    /// What has been answered: a host is asked about once.
    known: Mutex<BTreeMap<String, Kept>>,
}

/// What the server keeps for a host.
#[derive(Clone)]
pub(super) enum Kept {
    /// A credential that this run may use.
    Given(RegistryCredential),
    /// The login of the engine's own user, where the server is that user's.
    Own(RegistryCredential),
    /// One that this run may not use.
    ForOthers,
    /// None.
    Nothing,
    /// None; and the engine's own user has no login for it.
    NothingOwn,
}

/// The server did not answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("{}", .0.message())]
    Server(tonic::Status),
    #[error("the server did not answer within {} s", ANSWER.as_secs())]
    Silent,
    #[error("the agent shuts down")]
    ShutDown,
    #[error("the credential is too large")]
    TooLarge,
}

impl HostCredentials {
    pub(super) fn new(attempt: &Attempt<'_>) -> Self {
        Self {
            channels: attempt.runner.channels.clone(),
            bearer: attempt.runner.bearer.clone(),
            key: attempt.key,
            attempt: attempt.attempt,
            log: attempt.log.clone(),
            keeper: attempt.runner.settings.credentials,
            known: Mutex::default(),
        }
    }

    /// What is kept for a host, in whatever form its name is written. It is masked before it is given.
    pub(super) async fn of(&self, host: &str) -> Result<Kept, LookupError> {
        let host = written(host);
        if let Some(kept) = self.known(&host) {
            return Ok(kept);
        }
        let mut tries = OwnTries::at_the_server();
        let answer = loop {
            match self.ask(&host).await {
                Err(LookupError::Server(status)) if may_pass(&status) && tries.again().await => {}
                answer => break answer?,
            }
        };
        let kept = match (answer.found, answer.kept) {
            (true, is_kept) => {
                // As it goes over the wire, too: a host may send back what it was sent.
                let pair = STANDARD.encode(format!("{}:{}", answer.username, answer.password));
                let password = SecretString::new(answer.password);
                let values = [password.expose().as_bytes(), pair.as_bytes()];
                self.log.masks().add(values).map_err(|_| LookupError::TooLarge)?;
                let credential = RegistryCredential { username: answer.username, password };
                match is_kept {
                    true => Kept::Given(credential),
                    false => {
                        // It is nobody's but the user's, who sees where it goes.
                        self.log.service(&format!("the login of your Docker client is shown to {host}")).await;
                        Kept::Own(credential)
                    }
                }
            }
            (false, true) => Kept::ForOthers,
            (false, false) if answer.own => Kept::NothingOwn,
            (false, false) => Kept::Nothing,
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(host, kept.clone());
        Ok(kept)
    }

    /// What can be done where a host wants a credential for a source, or another one: the words after "or".
    pub(super) fn way_out(&self, source: &RemoteSource, host: &str) -> String {
        way_out(self.keeper, self.known(&written(host)).as_ref(), source, &written(host))
    }

    /// Who keeps credentials.
    pub(super) fn keeper(&self) -> CredentialKeeper {
        self.keeper
    }

    /// What has been answered about a host.
    pub(super) fn known(&self, host: &str) -> Option<Kept> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }

    async fn ask(&self, host: &str) -> Result<wire::SourceCredential, LookupError> {
        let client = link::current_client(&self.channels, &self.bearer).await;
        let mut client = client.ok_or(LookupError::ShutDown)?;
        let named = attempt_message(self.key, self.attempt);
        let request = wire::SourceCredentialRequest { key: named.key, attempt: named.attempt, host: host.to_owned() };
        let answer = tokio::time::timeout(ANSWER, client.get_source_credential(request)).await;
        Ok(answer.map_err(|_| LookupError::Silent)?.map_err(LookupError::Server)?.into_inner())
    }
}

/// A host's name in its one form. What is no host's name is said so by the server.
fn written(host: &str) -> String {
    SourceHost::parse(host).map_or_else(|_| host.to_owned(), |host| host.to_string())
}

fn way_out(keeper: CredentialKeeper, known: Option<&Kept>, source: &RemoteSource, host: &str) -> String {
    match (keeper, source) {
        (CredentialKeeper::Server, _) => match known {
            Some(Kept::Given(_)) => format!(
                "replace it with `cooper credential set {host}`, or, where the task keeps its own, with `cooper task \
                 credential update --login-server {host}`"
            ),
            Some(Kept::ForOthers) => format!(
                "have an administrator allow this run the one that is kept: `cooper credential set {host} --principal …`"
            ),
            Some(Kept::Own(_) | Kept::Nothing | Kept::NothingOwn) | None => {
                format!(
                    "store one with `cooper credential set {host}`, or for a task alone with `cooper task credential add \
                     --login-server {host}`"
                )
            }
        },
        // There is no server that could keep one, and a Docker client has logins for registries alone.
        (_, RemoteSource::Git(_)) => "clone it yourself and name its folder: --local keeps no credentials".to_owned(),
        (_, RemoteSource::Archive(_)) => {
            "download it yourself, and name the folder that it unpacks to, or `-` and pipe it in: --local keeps no \
             credentials"
                .to_owned()
        }
        (CredentialKeeper::DockerClient, RemoteSource::Artifact(_) | RemoteSource::Uploaded(_)) => {
            format!("log in with `docker login {host}`")
        }
        (CredentialKeeper::Nobody, RemoteSource::Artifact(_) | RemoteSource::Uploaded(_)) => {
            "show it the login of your Docker client with --docker-logins".to_owned()
        }
    }
}

#[async_trait]
impl CredentialSource for HostCredentials {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn Error + Send + Sync>> {
        Ok(match self.of(host).await? {
            Kept::Given(RegistryCredential { username, password })
            | Kept::Own(RegistryCredential { username, password }) => Some(GitCredential { username, password }),
            Kept::ForOthers | Kept::Nothing | Kept::NothingOwn => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_one_where_the_run_is() {
        let source = |text: &str| RemoteSource::parse(text).expect("a source");
        let (git, archive) = (source("https://git.example/a.git"), source("https://git.example/a.tar.gz"));
        let artifact = source("oci://r.example/context:1");
        let check = |keeper, known: Option<Kept>, source: &RemoteSource, expect: &str| {
            let text = way_out(keeper, known.as_ref(), source, "git.example");
            assert!(text.contains(expect), "{text}");
            assert_eq!(text.contains("cooper credential"), keeper == CredentialKeeper::Server, "{text}");
            let is_tasks = keeper == CredentialKeeper::Server && expect != "--principal";
            assert_eq!(text.contains("cooper task credential"), is_tasks, "{text}");
        };
        let given =
            || Kept::Given(RegistryCredential { username: String::new(), password: SecretString::new("p".to_owned()) });
        check(CredentialKeeper::Server, None, &git, "store one with `cooper credential set git.example`");
        check(CredentialKeeper::Server, Some(given()), &archive, "replace it with `cooper credential set git.example`");
        check(CredentialKeeper::Server, Some(Kept::ForOthers), &artifact, "--principal");
        for keeper in [CredentialKeeper::DockerClient, CredentialKeeper::Nobody] {
            check(keeper, Some(Kept::NothingOwn), &git, "clone it yourself");
            check(keeper, None, &archive, "download it yourself");
        }
        check(CredentialKeeper::DockerClient, None, &artifact, "`docker login git.example`");
        check(CredentialKeeper::Nobody, None, &artifact, "--docker-logins");
    }
}
