//! Requests for whole bodies: tried again as ACR does it, with a credential where a host wants one, never beyond a limit.
//!
//! No answer, one that breaks off, or a server's own failure (5xx, 429): three tries with 250 and 500 ms between them. Other
//! refusals are final at once, with the first line of what the server says.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cooper_types::{Digest, DigestAlgorithm, Hasher};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Url};

use super::RemoteError;
use crate::egress::{Egress, EgressError, EgressRequest, EgressResponse, host_of};
use crate::git::{CredentialSource, GitCredential};

/// How often a request is made, and the pause after the first failure; it doubles.
pub(super) const TRIES: u32 = 3;
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// What is shown of a refusal.
const SAID_CHARS: usize = 200;

/// What is asked for.
pub(super) struct Wanted<'run> {
    /// Its name in messages: no query, no credential.
    pub(super) what: String,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Bytes,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) egress: &'run Egress,
    /// Whether redirects are followed.
    pub(super) follow: bool,
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Downloaded {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

impl<'run> Wanted<'run> {
    /// What is at a URL, asked for without a credential.
    pub(super) fn new(what: String, url: Url, egress: &'run Egress) -> Self {
        let (method, body, headers) = (Method::GET, Bytes::new(), Vec::new());
        Self { what, method, url, body, headers, authorization: None, egress, follow: true }
    }

    /// The head of the answer: a success, or a refusal that is for the caller to understand.
    pub(super) async fn ask(&self) -> Result<EgressResponse, RemoteError> {
        let request = EgressRequest {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            authorization: self.authorization.clone(),
            follow: self.follow,
        };
        self.egress.send(request).await.map_err(|source| self.broken(source))
    }

    fn broken(&self, source: EgressError) -> RemoteError {
        RemoteError::Request { what: self.what.clone(), source }
    }

    /// A refusal as an error.
    pub(super) async fn refusal(&self, mut answer: EgressResponse) -> RemoteError {
        let (status, host) = (answer.status().as_u16(), answer.host());
        if status == 401 {
            return RemoteError::Unauthorized { what: self.what.clone(), host, shown: answer.was_authorized() };
        }
        let mut body = Vec::new();
        // What can't be read is not shown.
        while body.len() < 4 * SAID_CHARS
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        let text = String::from_utf8_lossy(&body);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let said = line.chars().take(SAID_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        RemoteError::Status { what: self.what.clone(), host, status, said }
    }

    /// Writes the body of a success to a file.
    pub(super) async fn keep(
        &self,
        mut answer: EgressResponse,
        place: &Path,
        limit: u64,
        algorithm: DigestAlgorithm,
    ) -> Result<Downloaded, RemoteError> {
        let disk = |source| RemoteError::Disk { source };
        let mut file = File::create(place).map_err(disk)?;
        let (mut hasher, mut size) = (Hasher::new(algorithm), 0);
        while let Some(chunk) = answer.chunk().await.map_err(|source| self.broken(source))? {
            size += chunk.len() as u64;
            if size > limit {
                return Err(RemoteError::TooLarge { what: self.what.clone(), limit });
            }
            hasher.update(&chunk);
            // As much as the connection gave at once: the page cache takes it.
            file.write_all(&chunk).map_err(disk)?;
        }
        Ok(Downloaded { digest: hasher.finish(), size })
    }

    /// The body of a success in memory.
    pub(super) async fn read(&self, mut answer: EgressResponse, limit: u64) -> Result<Vec<u8>, RemoteError> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|source| self.broken(source))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > limit {
                return Err(RemoteError::TooLarge { what: self.what.clone(), limit });
            }
        }
        Ok(body)
    }

    /// The host that the request goes to.
    pub(super) fn host(&self) -> String {
        host_of(&self.url)
    }
}

/// Attempts at the same thing: how many there were, and how long to wait for the next.
pub(super) struct Attempts {
    failed: u32,
    pause: Duration,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self { failed: 0, pause: FIRST_PAUSE }
    }

    /// Waits for the next attempt after one has failed, or gives the error back where there is to be none.
    pub(super) async fn after(&mut self, error: RemoteError) -> Result<(), RemoteError> {
        self.failed += 1;
        let worth = matches!(error, RemoteError::Request { .. } | RemoteError::Status { .. }) && error.is_transient();
        if !worth || self.failed >= TRIES {
            return Err(error);
        }
        tokio::time::sleep(self.pause).await;
        self.pause *= 2;
        Ok(())
    }
}

/// The credential that is stored for a host.
pub(super) async fn credential(
    credentials: &dyn CredentialSource,
    host: &str,
) -> Result<Option<GitCredential>, RemoteError> {
    let asked = credentials.for_host(host).await;
    asked.map_err(|source| RemoteError::Credential { host: host.to_owned(), source })
}

/// A credential in the form of HTTP's Basic scheme.
pub(super) fn basic(credential: &GitCredential) -> Option<HeaderValue> {
    let pair = format!("{}:{}", credential.username, credential.password.expose());
    HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()
}
