//! A repository on a server: the first request, credentials when they are demanded, commands.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cooper_spec::source::RepositoryUrl;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use tokio::sync::Mutex;
use url::Position;

use super::advertisement::{Advertisement, RemoteRef, Version, add};
use super::packet::{Meter, Packet, Packets, line, push, push_delimiter, push_flush};
use super::{CredentialSource, GitError};
use crate::egress::{Egress, EgressRequest, EgressResponse};

const VERSION: HeaderName = HeaderName::from_static("git-protocol");
const SUFFIX: &str = "/info/refs";
/// Bytes of a list of references: a hundred for each of more than a repository should have.
const LIST_LEN: usize = 128 << 20;
/// Hosts that may demand credentials, one redirecting to the next.
const MAX_DEMANDS: usize = 3;
/// What we call ourselves to Git's servers.
pub(super) const AGENT: &str = concat!("agent=cooper/", env!("CARGO_PKG_VERSION"));

/// What every repository of a fetch shares: the way out, who we are, and the count of what came in.
pub(super) struct Access<'run> {
    egress: &'run Egress,
    credentials: &'run dyn CredentialSource,
    /// What was looked up, by host.
    known: Mutex<HashMap<String, Option<HeaderValue>>>,
    pub(super) meter: Meter,
}

impl<'run> Access<'run> {
    pub(super) fn new(egress: &'run Egress, credentials: &'run dyn CredentialSource, limit: u64) -> Self {
        Self { egress, credentials, known: Mutex::new(HashMap::new()), meter: Meter::new(limit) }
    }

    async fn authorization(&self, host: &str) -> Result<Option<HeaderValue>, GitError> {
        let mut known = self.known.lock().await;
        if let Some(value) = known.get(host) {
            return Ok(value.clone());
        }
        let lookup = |source| GitError::CredentialLookup { host: host.to_owned(), source };
        let found = self.credentials.for_host(host).await.map_err(lookup)?;
        let value = match found {
            Some(credential) => {
                let pair = format!("{}:{}", credential.username, credential.password.expose());
                let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
                    .expect("base64 has only characters that headers may have");
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        known.insert(host.to_owned(), value.clone());
        Ok(value)
    }
}

/// A repository that has answered.
pub(super) struct Remote<'run> {
    access: &'run Access<'run>,
    url: RepositoryUrl,
    /// Where it really is, after redirects.
    base: Url,
    authorization: Option<HeaderValue>,
    pub(super) advertisement: Advertisement,
}

impl<'run> Remote<'run> {
    /// Asks a repository what it is.
    pub(super) async fn discover(access: &'run Access<'run>, url: &RepositoryUrl) -> Result<Self, GitError> {
        let place = url.as_str().trim_end_matches('/');
        let asked = Url::parse(&format!("{place}{SUFFIX}?service=git-upload-pack"))
            .map_err(|_| GitError::NotGit { url: url.to_string() })?;
        let request = EgressRequest {
            method: Method::GET,
            url: asked,
            headers: vec![
                (VERSION, HeaderValue::from_static("version=2")),
                (ACCEPT, HeaderValue::from_static("application/x-git-upload-pack-advertisement, */*")),
            ],
            body: Bytes::new(),
            authorization: None,
            follow: true,
        };
        let mut authorization = None;
        let response = ask(access, url, request, &mut authorization).await?;
        let not_git = || GitError::NotGit { url: url.to_string() };
        if media_type(&response) != Some("application/x-git-upload-pack-advertisement") {
            return Err(not_git());
        }
        let mut base = response.url().clone();
        let path = base.path().strip_suffix(SUFFIX).ok_or_else(not_git)?.to_owned();
        base.set_path(&path);
        base.set_query(None);
        let advertisement = read_advertisement(&mut Packets::new(response, &access.meter)).await?;
        if advertisement.capabilities.values("object-format").any(|format| format != "sha1") {
            return Err(GitError::ObjectFormat { url: url.to_string() });
        }
        Ok(Self { access, url: url.clone(), base, authorization, advertisement })
    }

    pub(super) fn url(&self) -> String {
        self.url.to_string()
    }

    pub(super) fn host(&self) -> String {
        self.url.host()
    }

    /// The references whose names begin with one of these, more than these if the server pleases.
    pub(super) async fn references(&mut self, prefixes: &[String]) -> Result<Vec<RemoteRef>, GitError> {
        self.list(prefixes, false).await
    }

    /// The same, with what annotated tags lead to.
    pub(super) async fn peeled_references(&mut self, prefixes: &[String]) -> Result<Vec<RemoteRef>, GitError> {
        self.list(prefixes, true).await
    }

    async fn list(&mut self, prefixes: &[String], peel: bool) -> Result<Vec<RemoteRef>, GitError> {
        if self.advertisement.version == Version::Old {
            return Ok(self.advertisement.references.clone());
        }
        let mut body = Vec::new();
        push(&mut body, "command=ls-refs");
        push(&mut body, AGENT);
        push_delimiter(&mut body);
        push(&mut body, "symrefs");
        if peel {
            push(&mut body, "peel");
        }
        for prefix in prefixes {
            push(&mut body, &format!("ref-prefix {prefix}"));
        }
        push_flush(&mut body);
        let mut packets = self.command(body).await?;
        let mut references = Vec::new();
        let mut length = 0;
        loop {
            match packets.next().await? {
                Some(Packet::Data(data)) => {
                    count(&mut length, &data)?;
                    add(&mut references, line(&data)).map_err(|what| packets.fault(what))?;
                }
                Some(Packet::Flush) => return Ok(references),
                Some(Packet::Delimiter | Packet::End) => return Err(packets.fault("a border in a list of references")),
                None => return Err(packets.cut()),
            }
        }
    }

    /// Sends a command to `git-upload-pack` and gives what it answers.
    pub(super) async fn command(&mut self, body: Vec<u8>) -> Result<Packets<'run>, GitError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/git-upload-pack", self.base.path()));
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/x-git-upload-pack-request")),
            (ACCEPT, HeaderValue::from_static("application/x-git-upload-pack-result")),
        ];
        if self.advertisement.version == Version::Two {
            headers.push((VERSION, HeaderValue::from_static("version=2")));
        }
        let request = EgressRequest {
            method: Method::POST,
            url,
            headers,
            body: body.into(),
            authorization: self.authorization.clone(),
            follow: false,
        };
        let response = ask(self.access, &self.url, request, &mut self.authorization).await?;
        if media_type(&response) != Some("application/x-git-upload-pack-result") {
            return Err(GitError::NotGit { url: self.url() });
        }
        Ok(Packets::new(response, &self.access.meter))
    }
}

/// Sends a request; to each host that demands credentials, once more with those that are stored for it.
async fn ask(
    access: &Access<'_>,
    url: &RepositoryUrl,
    mut request: EgressRequest,
    authorization: &mut Option<HeaderValue>,
) -> Result<EgressResponse, GitError> {
    let mut response = access.egress.send(request.clone()).await?;
    for _ in 0..MAX_DEMANDS {
        if response.status() != StatusCode::UNAUTHORIZED || response.was_authorized() {
            break;
        }
        let Some(host) = credential_host(response.url()) else { break };
        let Some(value) = access.authorization(&host).await? else {
            return Err(GitError::CredentialsNeeded { host, url: url.to_string() });
        };
        // The credentials are this host's: the request begins there, and a redirect away from it drops them.
        request.url = response.url().clone();
        request.authorization = Some(value.clone());
        drop(response);
        response = access.egress.send(request.clone()).await?;
        if response.was_authorized() {
            *authorization = Some(value);
        }
    }
    judged(url, response)
}

/// What credentials for a place are stored for: the host, with the port where it is not https's own. So plain http always
/// has a port, and what is stored for https does not go over the network in clear: https's port stands for https alone.
fn credential_host(url: &Url) -> Option<String> {
    let host = &url[Position::BeforeHost..Position::AfterHost];
    match (url.scheme(), url.port_or_known_default()?) {
        ("https", 443) => Some(host.to_owned()),
        (_, 443) => None,
        (_, port) => Some(format!("{host}:{port}")),
    }
}

/// What a status means.
fn judged(url: &RepositoryUrl, response: EgressResponse) -> Result<EgressResponse, GitError> {
    let (host, text) = (response.host(), url.to_string());
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let host = credential_host(response.url()).unwrap_or(host);
            Err(match response.was_authorized() {
                true => GitError::CredentialsRefused { host, url: text },
                false => GitError::CredentialsNeeded { host, url: text },
            })
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            let host = credential_host(response.url()).unwrap_or(host);
            Err(GitError::RepositoryNotFound { host, url: text })
        }
        status if status.is_success() || status.is_redirection() => Err(GitError::NotGit { url: text }),
        status => Err(GitError::Status { host, status: status.as_u16() }),
    }
}

async fn read_advertisement(packets: &mut Packets<'_>) -> Result<Advertisement, GitError> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        match packets.next().await? {
            Some(Packet::Data(data)) if lines.is_empty() && data.starts_with(b"# service=") => {
                // The service's line is a message of its own.
                match packets.next().await? {
                    Some(Packet::Flush) => {}
                    _ => return Err(packets.fault("a service without an end")),
                }
            }
            Some(Packet::Data(data)) => {
                count(&mut length, &data)?;
                lines.push(data);
            }
            Some(Packet::Flush) => break,
            Some(Packet::Delimiter | Packet::End) => return Err(packets.fault("a border in its first answer")),
            None => return Err(packets.cut()),
        }
    }
    Advertisement::read(&lines).map_err(|what| packets.fault(what))
}

/// Counts what is kept in memory of a list; short lines cost their places, too.
fn count(length: &mut usize, data: &Bytes) -> Result<(), GitError> {
    *length += data.len() + size_of::<Bytes>();
    if *length > LIST_LEN {
        return Err(GitError::Limit { what: "bytes in its list of references", limit: LIST_LEN as u64 });
    }
    Ok(())
}

fn media_type(response: &EgressResponse) -> Option<&str> {
    let text = response.header(CONTENT_TYPE)?;
    Some(text.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_for_https_is_not_sent_in_clear() {
        for (url, host) in [
            ("https://h.io/r.git", Some("h.io")),
            ("https://h.io:8443/r.git", Some("h.io:8443")),
            ("https://[::1]/r.git", Some("[::1]")),
            ("http://h.io/r.git", Some("h.io:80")),
            ("http://h.io:3000/r.git", Some("h.io:3000")),
            ("http://h.io:443/r.git", None),
        ] {
            assert_eq!(credential_host(&Url::parse(url).unwrap()).as_deref(), host, "{url}");
        }
    }
}
