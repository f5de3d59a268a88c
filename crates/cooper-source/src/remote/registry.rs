//! The part of the distribution protocol that fetching and publishing need: manifests, blobs, and logging in as a challenge
//! says.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use cooper_types::{Digest, Hasher, ImageRef, RegistryName, RepositoryName, Tag};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, IF_NONE_MATCH, WWW_AUTHENTICATE,
};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::RemoteError;
use super::download::{Attempts, Downloaded, Wanted, basic, credential};
use crate::egress::{Egress, EgressResponse};
use crate::git::{CredentialSource, GitCredential};

/// As registries limit them.
const MAX_MANIFEST: u64 = 4 << 20;
const MAX_TOKEN: u64 = 256 << 10;
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.artifact.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";

/// One repository of one registry.
pub(super) struct Registry<'run> {
    egress: &'run Egress,
    credentials: &'run dyn CredentialSource,
    /// `https://HOST/v2/REPOSITORY/`
    base: Url,
    repository: String,
    access: Access,
    what: String,
    authorization: Mutex<Option<HeaderValue>>,
}

/// What a registry is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    PullAndPush,
}

/// A manifest as it came.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) digest: Digest,
    /// What the registry says that it is; nothing if it says nothing.
    pub(super) media_type: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'run> Registry<'run> {
    pub(super) fn new(
        egress: &'run Egress,
        credentials: &'run dyn CredentialSource,
        (name, repository): (&RegistryName, &RepositoryName),
        access: Access,
        what: String,
    ) -> Result<Self, RemoteError> {
        let name = name.as_str();
        // Docker Hub's name is not where it answers.
        let host = if matches!(name, "docker.io" | "index.docker.io") { "registry-1.docker.io" } else { name };
        let scheme = if is_loopback(host) { "http" } else { "https" };
        let repository = repository.to_string();
        let base = Url::parse(&format!("{scheme}://{host}/v2/{repository}/"))
            .map_err(|error| RemoteError::Artifact { what: what.clone(), why: error.to_string() })?;
        Ok(Self { egress, credentials, base, repository, access, what, authorization: Mutex::new(None) })
    }

    /// The manifest and its digest, checked if one was named.
    pub(super) async fn manifest(&self, reference: &ImageRef) -> Result<Fetched, RemoteError> {
        let name = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.to_string(),
            (None, None) => "latest".to_owned(),
        };
        let path = format!("manifests/{name}");
        let mut attempts = Attempts::new();
        let (bytes, media_type) = loop {
            match self.read_manifest(&path).await {
                Ok(read) => break read,
                Err(error) => attempts.after(error).await?,
            }
        };
        match &reference.digest {
            Some(digest) => {
                let mut hasher = Hasher::new(digest.algorithm());
                hasher.update(&bytes);
                match hasher.finish() == *digest {
                    true => Ok(Fetched { bytes, digest: digest.clone(), media_type }),
                    false => Err(RemoteError::Digest { what: self.what.clone(), digest: digest.to_string() }),
                }
            }
            None => {
                let digest = Digest::sha256(&bytes);
                Ok(Fetched { bytes, digest, media_type })
            }
        }
    }

    /// The head of what is said of a tag's manifest, whatever the status; logs in once if the registry asks for it.
    pub(super) async fn head_manifest(&self, tag: &Tag, etag: Option<&str>) -> Result<EgressResponse, RemoteError> {
        let mut wanted = self.wanted(self.url(&format!("manifests/{tag}"))?);
        wanted.method = Method::HEAD;
        wanted.headers = vec![(ACCEPT, HeaderValue::from_static(MANIFESTS))];
        let etag = etag.and_then(|etag| HeaderValue::from_str(etag).ok());
        wanted.headers.extend(etag.map(|etag| (IF_NONE_MATCH, etag)));
        let answer = wanted.ask().await?;
        if answer.status() != StatusCode::UNAUTHORIZED || answer.host() != wanted.host() {
            return Ok(answer);
        }
        wanted.authorization = Some(self.log_in(answer.header(WWW_AUTHENTICATE).unwrap_or_default()).await?);
        wanted.ask().await
    }

    /// Writes a manifest under a tag.
    pub(super) async fn put_manifest(&self, tag: &Tag, media_type: &str, bytes: &[u8]) -> Result<(), RemoteError> {
        let path = format!("manifests/{tag}");
        let media_type = HeaderValue::from_str(media_type).map_err(|error| self.bad(error.to_string()))?;
        let mut attempts = Attempts::new();
        loop {
            let mut wanted = self.wanted(self.url(&path)?);
            wanted.method = Method::PUT;
            wanted.headers = vec![(CONTENT_TYPE, media_type.clone())];
            wanted.body = Bytes::copy_from_slice(bytes);
            wanted.follow = false;
            match self.ask(&mut wanted).await {
                Ok(_) => return Ok(()),
                Err(error) => attempts.after(error).await?,
            }
        }
    }

    /// Writes a blob to a file and checks it; gives its size.
    pub(super) async fn blob(&self, digest: &Digest, place: &Path, limit: u64) -> Result<u64, RemoteError> {
        let mut attempts = Attempts::new();
        let kept = loop {
            match self.keep_blob(digest, place, limit).await {
                Ok(kept) => break kept,
                Err(error) => attempts.after(error).await?,
            }
        };
        match kept.digest == *digest {
            true => Ok(kept.size),
            false => Err(RemoteError::Digest { what: self.what.clone(), digest: digest.to_string() }),
        }
    }

    async fn read_manifest(&self, path: &str) -> Result<(Vec<u8>, Option<String>), RemoteError> {
        let accept = (ACCEPT, HeaderValue::from_static(MANIFESTS));
        let (wanted, answer) = self.get(path, vec![accept]).await?;
        let media_type = answer.header(CONTENT_TYPE).map(str::to_owned);
        Ok((wanted.read(answer, MAX_MANIFEST).await?, media_type))
    }

    async fn keep_blob(&self, digest: &Digest, place: &Path, limit: u64) -> Result<Downloaded, RemoteError> {
        let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let (wanted, answer) = self.get(&format!("blobs/{digest}"), vec![identity]).await?;
        wanted.keep(answer, place, limit, digest.algorithm()).await
    }

    async fn get(
        &self,
        path: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(Wanted<'run>, EgressResponse), RemoteError> {
        let mut wanted = self.wanted(self.url(path)?);
        wanted.headers = headers;
        let answer = self.ask(&mut wanted).await?;
        Ok((wanted, answer))
    }

    fn url(&self, path: &str) -> Result<Url, RemoteError> {
        self.base.join(path).map_err(|error| self.bad(error.to_string()))
    }

    /// A successful answer; logs in once if the registry asks for it.
    async fn ask(&self, wanted: &mut Wanted<'run>) -> Result<EgressResponse, RemoteError> {
        loop {
            wanted.authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let answer = wanted.ask().await?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                StatusCode::UNAUTHORIZED if wanted.authorization.is_none() && answer.host() == wanted.host() => {
                    let header = self.log_in(answer.header(WWW_AUTHENTICATE).unwrap_or_default()).await?;
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(header);
                }
                _ => return Err(wanted.refusal(answer).await),
            }
        }
    }

    /// What a challenge asks for: a token, with the stored credential or as nobody, or the credential itself.
    async fn log_in(&self, challenge: &str) -> Result<HeaderValue, RemoteError> {
        let host = crate::egress::host_of(&self.base);
        let found = credential(self.credentials, &host).await?;
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.token(parameters, found.as_ref()).await;
        }
        let missing = || RemoteError::Unauthorized { what: self.what.clone(), host: host.clone(), shown: false };
        found.as_ref().and_then(basic).ok_or_else(missing)
    }

    async fn token(&self, parameters: &str, found: Option<&GitCredential>) -> Result<HeaderValue, RemoteError> {
        let realm = parameter(parameters, "realm").and_then(|text| Url::parse(&text).ok());
        let Some(mut url) = realm else {
            return Err(self.bad("its registry asks for a login at no address".to_owned()));
        };
        if self.base.scheme() == "https" && url.scheme() != "https" {
            return Err(self.bad("its registry asks for a login over plain http".to_owned()));
        }
        if let Some(service) = parameter(parameters, "service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::PullAndPush => "pull,push",
        };
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:{actions}", self.repository));
        let mut wanted = self.wanted(url);
        wanted.authorization = found.and_then(basic);
        wanted.follow = false;
        let answer = wanted.ask().await?;
        if !answer.status().is_success() {
            return Err(wanted.refusal(answer).await);
        }
        let body = wanted.read(answer, MAX_TOKEN).await?;
        // What it says instead may hold a token, and is not shown.
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        header.ok_or_else(|| self.bad("its registry's login gave no token".to_owned()))
    }

    fn wanted(&self, url: Url) -> Wanted<'run> {
        let (what, egress) = (self.what.clone(), self.egress);
        Wanted::new(what, url, egress)
    }

    fn bad(&self, why: String) -> RemoteError {
        RemoteError::Artifact { what: self.what.clone(), why }
    }
}

/// Names of this machine, which docker, too, asks over http.
fn is_loopback(host: &str) -> bool {
    let Ok(url) = Url::parse(&format!("http://{host}")) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// A parameter of a challenge: `name="value"` or `name=value`.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (key, behind) = rest.trim_start_matches([' ', ',']).split_once('=')?;
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value.trim().to_owned());
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = r#"realm="https://auth.example/token?x=1,2", service=registry.example,scope="a:b:pull""#;
        assert_eq!(parameter(challenge, "realm").as_deref(), Some("https://auth.example/token?x=1,2"));
        assert_eq!(parameter(challenge, "Service").as_deref(), Some("registry.example"));
        assert_eq!(parameter(challenge, "scope").as_deref(), Some("a:b:pull"));
        for challenge in ["", "realm", "realm=\"x", "other=1"] {
            assert_eq!(parameter(challenge, "realm"), None, "{challenge}");
        }
    }

    #[test]
    fn this_machines_names_are_asked_over_http() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.1", "[::1]:5000", "a.localhost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.example", "10.0.0.1:5000", "localhost.example", "[fe80::1]"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
