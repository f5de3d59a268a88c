//! What the steps of a placement share on its engine: the workspace, networks, volumes of secrets.

use cooper_types::ContextId;
use serde::{Deserialize, Serialize};

use super::Text;

/// The network that a run has if its file declares none (ACR contract §1.8).
pub const DEFAULT_NETWORK: &str = "acb_default_network";
/// What the steps of a placement share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// What the workspace is filled with at first; it begins empty without.
    pub context: Option<ContextId>,
    /// Its networks. None means that nothing can tell whether steps have network namespaces of their own: they share one.
    pub networks: Vec<Network>,
    /// Volumes of secret files.
    pub volumes: Vec<SecretVolume>,
}

/// A network of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The name that the run's steps use; in the engine it has another.
    pub name: String,
    /// The engine's driver; its default if absent.
    pub driver: Option<String>,
    /// Whether it carries IPv6.
    pub ipv6: bool,
    /// Whether it is there already, under this very name, and stays: the pool must allow that.
    pub external: bool,
}

/// A volume whose files are secrets. They are kept in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVolume {
    /// The name that mounts use.
    pub name: String,
    /// File names and contents, the latter in base64.
    pub files: Vec<(String, Text)>,
}

/// A file of the run that a build may mount as a BuildKit secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// The id in `RUN --mount=type=secret,id=…`.
    pub id: String,
    /// The secret volume that holds it.
    pub volume: String,
    /// Its name there.
    pub file: String,
}
