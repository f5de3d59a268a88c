//! HashiCorp Vault (and OpenBao) as a provider: reads of its key-value engine, versions 1 and 2, over HTTP.
//!
//! Requests go to the one address that the operator configured and follow no redirect: the token is shown to nobody else.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use cooper_ports::secrets::{Asker, ProvideError, ProvidedSecret, SecretProvider};
use cooper_source::Cidr;
use cooper_source::egress::{Egress, EgressError, EgressOptions, EgressPolicy, EgressRequest};
use cooper_types::SecretName;
use http::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;
use zeroize::Zeroizing;

use super::checked;
use crate::server::StartError;
use crate::settings::VaultSettings;

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// The longest token file, in bytes.
const MAX_TOKEN: u64 = 16 << 10;
/// The field that is taken where a secret has several.
const FIELD: &str = "value";

/// A server of Vault, and how to reach it.
pub(super) struct VaultServer {
    address: Url,
    token_file: PathBuf,
    namespace: Option<String>,
    egress: Egress,
}

impl VaultServer {
    pub(super) fn new(settings: &VaultSettings) -> Result<Self, StartError> {
        let roots = settings
            .ca_file
            .as_ref()
            .map(|path| std::fs::read(path).map_err(|source| StartError::Data { path: path.clone(), source }));
        // The operator chose the address, so it may be any; that a name's address may change is the operator's, too.
        let all = ["0.0.0.0/0", "::/0"].map(|range| Cidr::parse(range).expect("a range of all addresses"));
        let policy = EgressPolicy { allow: all.into() };
        let options = EgressOptions { policy, extra_roots: roots.transpose()?, ..EgressOptions::default() };
        Ok(Self {
            address: settings.address.url().clone(),
            token_file: settings.token_file.clone(),
            namespace: settings.namespace.clone(),
            egress: Egress::new(options),
        })
    }

    /// The token as the file has it now: agents of Vault renew it there.
    async fn token(&self) -> Result<HeaderValue, ProvideError> {
        let path = self.token_file.clone();
        let shown = path.display().to_string();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = Zeroizing::new(String::new());
            let file = std::fs::File::open(path)?;
            std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_TOKEN), &mut text)?;
            Ok::<_, std::io::Error>(text)
        });
        let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| ProvideError::Unavailable {
            what: format!("token file {shown}"),
            source,
        };
        let text = read.await.map_err(|error| unavailable(error.into()))?.map_err(|error| unavailable(error.into()))?;
        let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
        match HeaderValue::from_str(&bearer) {
            Ok(mut value) if !text.trim().is_empty() => {
                value.set_sensitive(true);
                Ok(value)
            }
            _ => Err(ProvideError::Unusable(format!("token file {shown} holds no token"))),
        }
    }

    /// Reads `path` under `/v1/`.
    async fn read(&self, path: &[&str], version: Option<&str>) -> Result<Answer, ProvideError> {
        let mut url = self.address.clone();
        url.path_segments_mut().expect("http addresses have paths").pop_if_empty().push("v1").extend(path);
        if let Some(version) = version {
            url.query_pairs_mut().append_pair("version", version);
        }
        let mut headers = vec![(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"))];
        if let Some(namespace) = &self.namespace {
            let value = HeaderValue::from_str(namespace)
                .map_err(|_| ProvideError::Unusable("the namespace of Vault is no header's value".to_owned()))?;
            headers.push((HeaderName::from_static("x-vault-namespace"), value));
        }
        let request = EgressRequest {
            method: http::Method::GET,
            url,
            headers,
            body: bytes::Bytes::new(),
            authorization: Some(self.token().await?),
            follow: false,
        };
        let unavailable =
            |error: EgressError| ProvideError::Unavailable { what: self.describe(), source: Box::new(error) };
        let mut answer = self.egress.send(request).await.map_err(unavailable)?;
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = answer.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(ProvideError::Unusable(format!("the answer is larger than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status: answer.status().as_u16(), body })
    }

    fn describe(&self) -> String {
        format!("Vault at {}", &self.address[url::Position::BeforeScheme..url::Position::AfterPort])
    }
}

struct Answer {
    status: u16,
    body: Zeroizing<Vec<u8>>,
}

/// Which of the engine's two forms a mount has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KvVersion {
    One,
    Two,
}

/// A folder of a key-value engine.
pub(super) struct KvEngine {
    /// Absent where the settings name no server; they were refused then.
    server: Option<Arc<VaultServer>>,
    version: KvVersion,
    mount: String,
    path: Vec<String>,
}

impl KvEngine {
    pub(super) fn new(server: Option<Arc<VaultServer>>, version: KvVersion, mount: String, path: Vec<String>) -> Self {
        Self { server, version, mount, path }
    }
}

/// The parts of an answer that are looked at.
#[derive(Deserialize)]
struct Read<T> {
    data: T,
}

#[derive(Deserialize)]
struct Versioned {
    /// Null where the version is deleted.
    data: Option<Fields>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

type Fields = serde_json::Map<String, serde_json::Value>;

#[async_trait]
impl SecretProvider for KvEngine {
    fn describe(&self) -> String {
        self.server.as_ref().map_or_else(|| "Vault".to_owned(), |server| server.describe())
    }

    async fn provide(
        &self,
        _: &Asker,
        name: &SecretName,
        version: Option<&str>,
    ) -> Result<ProvidedSecret, ProvideError> {
        let server = self.server.as_ref();
        let server = server.ok_or_else(|| ProvideError::Refused("--vault-address is not set".to_owned()))?;
        let refused = |what: String| Err(ProvideError::Refused(what));
        if self.version == KvVersion::One && version.is_some() {
            return refused("the key-value engine has no versions (version 1): leave the version out".to_owned());
        }
        if version.is_some_and(|text| text.parse::<u64>().is_err()) {
            return refused("Vault's versions are numbers".to_owned());
        }
        let mut path = vec![self.mount.as_str()];
        if self.version == KvVersion::Two {
            path.push("data");
        }
        path.extend(self.path.iter().map(String::as_str));
        path.push(name.as_str());
        let answer = server.read(&path, version).await?;
        let place = path.join("/");
        match answer.status {
            200 => {}
            404 => return refused(missing(&place, version, self.version, &answer.body)),
            403 => {
                return refused(format!("the server's token may not read {place}: allow it in a policy of Vault"));
            }
            429 | 500.. => {
                let source = format!(
                    "it answers with status {}{}",
                    answer.status,
                    if answer.status == 503 { ": it is sealed or down" } else { "" }
                );
                return Err(ProvideError::Unavailable { what: self.describe(), source: source.into() });
            }
            status => return refused(format!("it answers to {place} with status {status}")),
        }
        // The parser's message could show a value.
        let strange = || ProvideError::Unusable(format!("what Vault has at {place} is not of the expected form"));
        let (fields, version) = match self.version {
            KvVersion::One => {
                let read: Read<Fields> = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
                (read.data, None)
            }
            KvVersion::Two => {
                let read: Read<Versioned> = serde_json::from_slice(&answer.body).map_err(|_| strange())?;
                (read.data.data.ok_or_else(strange)?, Some(read.data.metadata.version.to_string()))
            }
        };
        let value = match (fields.get(FIELD), fields.len()) {
            (Some(value), _) => value,
            (None, 1) => fields.values().next().ok_or_else(strange)?,
            (None, count) => {
                let what = format!("{place} has {count} fields, and none is called `{FIELD}`: name the one to take so");
                return Err(ProvideError::Unusable(what));
            }
        };
        let text = value
            .as_str()
            .ok_or_else(|| ProvideError::Unusable(format!("the field that is to be taken from {place} is not text")))?;
        Ok(ProvidedSecret { value: checked(text)?, version })
    }
}

/// What a 404 means: there is nothing, or there was.
fn missing(place: &str, version: Option<&str>, engine: KvVersion, body: &[u8]) -> String {
    let has_been = engine == KvVersion::Two && serde_json::from_slice::<Read<Versioned>>(body).is_ok();
    match (has_been, version) {
        (true, Some(version)) => format!("version {version} of {place} has been deleted"),
        (true, None) => format!("the newest version of {place} has been deleted"),
        (false, Some(version)) => format!("there is no version {version} of {place}"),
        (false, None) => format!("there is no secret {place}"),
    }
}
