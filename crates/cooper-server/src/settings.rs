//! What a server must be told: resolved once, before anything is bound.

mod secrets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cooper_agent::{CredentialKeeper, DiskSettings, StepPolicy};
use cooper_source::Cidr;
use cooper_spec::dockerfile::FrontendRules;
use cooper_types::{AgentName, RegistryName};
use rustls::pki_types::ServerName;

pub use secrets::{SecretSettings, SecretUsers, VaultAddress, VaultAddressError, VaultSettings, VaultTarget};

/// The settings of `cooper serve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether connections are encrypted, and with whose certificate.
    pub tls: Option<TlsSettings>,
    /// Database, blobs, contexts, key and tokens live here.
    pub data_dir: PathBuf,
    /// The embedded registry's name in references; `localhost:PORT` if absent.
    pub registry_name: Option<RegistryName>,
    /// Where people and forges reach the server, without a slash at its end; by the registry's name if absent.
    pub public_url: Option<String>,
    /// The agent inside this process, if there is to be one.
    pub local_agent: Option<LocalAgent>,
    /// Whether images may be pulled without a token.
    pub anonymous_pull: bool,
    /// How long the registry keeps what no manifest refers to after its last use.
    pub blob_grace: Duration,
    /// The largest context that is taken, in bytes of its archive.
    pub max_context_bytes: u64,
    /// How long contexts are kept after the runs that used them, so that those can be run again.
    pub context_retention: Duration,
    /// The bytes that contexts of ended runs may take up together.
    pub context_retention_bytes: u64,
    /// Networks that sources may be fetched from although they are not public; only from them over plain http.
    pub allowed_sources: Vec<Cidr>,
    /// Networks that webhooks and endpoints of tasks may be in although they are not public; only there over plain http.
    pub allowed_webhooks: Vec<Cidr>,
    /// Certificates in PEM that hosts of sources, aliases and other registries are trusted by, besides the system's.
    pub source_roots: Option<Vec<u8>>,
    /// Which frontends may read Dockerfiles in place of the engine's own reader.
    pub frontends: FrontendRules,
    /// Where the secrets that tasks name may come from.
    pub secrets: SecretSettings,
    /// The operator's names for images in task files, such as `bash`.
    pub image_aliases: BTreeMap<String, String>,
    /// The configuration of a Docker client whose logins the runs use, and with which quick builds push to any registry: where the
    /// server is one user's own.
    pub docker_config: Option<PathBuf>,
    /// How often tags of other registries are asked for that tasks stand on: after this time, and at most six times that.
    pub base_image_poll: Duration,
    /// How often tasks' repositories are looked at for what no webhook told of; forges for pull requests, after six times that.
    pub source_poll: Duration,
    /// How many of the runs that base images set off go on at a time, in all waves.
    pub wave_concurrency: u32,
    /// How long a shutdown may take.
    pub shutdown_grace: Duration,
}

/// Where the server's certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsSettings {
    /// PEM files, which are read again when they change.
    Files {
        /// The certificate, and those between it and its CA.
        certificate: PathBuf,
        /// The certificate's private key.
        key: PathBuf,
    },
    /// A CA in the data directory makes it.
    SelfSigned {
        /// The names and addresses by which the server is reached, beside the ones that it knows itself.
        names: Vec<TlsName>,
    },
}

/// A name or an address that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(ServerName<'static>);

/// The text is neither a DNS name nor an IP address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is neither a DNS name nor an IP address")]
pub struct TlsNameError(String);

impl TlsName {
    /// Parses a DNS name or an IP address, without a port.
    pub fn parse(text: &str) -> Result<Self, TlsNameError> {
        let name = ServerName::try_from(text).map_err(|_| TlsNameError(text.chars().take(160).collect()))?;
        Ok(Self(name.to_owned()))
    }

    /// As it stands in an address: IPv6 addresses without brackets.
    pub(crate) fn text(&self) -> String {
        self.0.to_str().into_owned()
    }
}

/// The agent inside the server's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAgent {
    /// Its name.
    pub name: AgentName,
    /// The engine's socket, a path or `unix://` address; the usual one if absent.
    pub engine_socket: Option<String>,
    /// How many placements it holds at a time.
    pub slots: u32,
    /// How it treats the disk.
    pub disk: DiskSettings,
    /// What steps may do on it beyond the usual.
    pub steps: StepPolicy,
    /// Who keeps the credentials of hosts.
    pub credentials: CredentialKeeper,
}

impl Settings {
    /// The largest context unless something else is said: 4 GiB.
    pub const DEFAULT_MAX_CONTEXT_BYTES: u64 = 4 << 30;
    /// How long what no manifest refers to is kept unless something else is said: a day.
    pub const DEFAULT_BLOB_GRACE: Duration = Duration::from_secs(24 * 3600);
    /// How long contexts are kept unless something else is said.
    pub const DEFAULT_CONTEXT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
    /// What contexts of ended runs may take up unless something else is said: 20 GiB.
    pub const DEFAULT_CONTEXT_RETENTION_BYTES: u64 = 20 << 30;
    /// How often tags of other registries are asked for unless something else is said, as in ACR.
    pub const DEFAULT_BASE_IMAGE_POLL: Duration = Duration::from_secs(600);
    /// How often tasks' repositories are looked at unless something else is said.
    pub const DEFAULT_SOURCE_POLL: Duration = Duration::from_secs(600);
    /// How many of the runs that base images set off go on at a time unless something else is said.
    pub const DEFAULT_WAVE_CONCURRENCY: u32 = 4;
    /// How long a shutdown may take unless something else is said.
    pub const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(20);
    /// How many placements the local agent holds unless something else is said.
    pub const DEFAULT_SLOTS: u32 = 2;
}
