//! Credentials of Git hosts, asked of the server one by one. What was given is known, so that it can be masked.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cooper_api::agent::{attempt_message, wire};
use cooper_engine::message::PlacementKey;
use cooper_source::git::{CredentialSource, GitCredential};
use cooper_types::{AttemptNumber, SecretBytes, SecretString};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::super::Attempt;
use crate::connect::Bearer;
use crate::link;
use crate::mask::MaskSet;

/// How long the server may take to answer, once there is a stream to it.
const ANSWER: Duration = Duration::from_secs(20);

/// The server's credentials for one attempt.
pub(super) struct ServerCredentials {
    channels: watch::Receiver<Option<Channel>>,
    bearer: Bearer,
    key: PlacementKey,
    attempt: AttemptNumber,
    given: Mutex<Given>,
}

/// What must not be seen.
struct Given {
    values: Vec<SecretBytes>,
    masks: MaskSet,
}

/// The server did not answer.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("{}", .0.message())]
    Server(tonic::Status),
    #[error("the server did not answer within {} s", ANSWER.as_secs())]
    Silent,
    #[error("the agent shuts down")]
    ShutDown,
    #[error("the credential is too large")]
    TooLarge,
}

impl ServerCredentials {
    pub(super) fn new(attempt: &Attempt<'_>) -> Self {
        let masks = attempt.log.masks().clone();
        Self {
            channels: attempt.runner.channels.clone(),
            bearer: attempt.runner.bearer.clone(),
            key: attempt.key,
            attempt: attempt.attempt,
            given: Mutex::new(Given { values: Vec::new(), masks }),
        }
    }

    /// A text without what was given.
    pub(super) fn mask(&self, text: &str) -> String {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).masks.text(text)
    }

    /// Has one more value masked. Values that are too large for that are left.
    pub(super) fn hide(&self, value: &str) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if !value.is_empty() {
            given.values.push(SecretBytes::new(value.as_bytes().to_vec()));
            if let Ok(masks) = MaskSet::new(given.values.iter().map(SecretBytes::expose)) {
                given.masks = masks;
            }
        }
    }

    async fn ask(&self, host: &str) -> Result<Option<GitCredential>, LookupError> {
        let mut channels = self.channels.clone();
        let channel = channels.wait_for(Option::is_some).await.ok().and_then(|channel| channel.clone());
        let mut client = link::client(channel.ok_or(LookupError::ShutDown)?, self.bearer.clone());
        let named = attempt_message(self.key, self.attempt);
        let request = wire::SourceCredentialRequest { key: named.key, attempt: named.attempt, host: host.to_owned() };
        let answer = tokio::time::timeout(ANSWER, client.get_source_credential(request)).await;
        let answer = answer.map_err(|_| LookupError::Silent)?.map_err(LookupError::Server)?.into_inner();
        if !answer.found {
            return Ok(None);
        }
        // As it goes over the wire, too: a host may send back what it was sent.
        let pair = STANDARD.encode(format!("{}:{}", answer.username, answer.password));
        let password = SecretString::new(answer.password);
        let values = [password.expose().as_bytes().to_vec(), pair.into_bytes()].map(SecretBytes::new);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.values.extend(values);
        given.masks = MaskSet::new(given.values.iter().map(SecretBytes::expose)).map_err(|_| LookupError::TooLarge)?;
        Ok(Some(GitCredential { username: answer.username, password }))
    }
}

#[async_trait]
impl CredentialSource for ServerCredentials {
    async fn for_host(&self, host: &str) -> Result<Option<GitCredential>, Box<dyn Error + Send + Sync>> {
        Ok(self.ask(host).await?)
    }
}
