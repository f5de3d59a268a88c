//! The server: REST API, registry, agents' gRPC and scheduler in one process on one port.
//!
//! It wires the adapters to the ports and runs the loops. What a run does is decided by `cooper-engine`; what is kept
//! is kept by `cooper-store` and `cooper-blobs`; the registry's protocol is `cooper-registry`'s. The server itself
//! never unpacks a context and never runs anything of a user.

mod access;
mod acr_image;
mod agents;
mod api;
mod backup;
mod contexts;
mod core;
mod docker_logins;
mod hooks;
mod housekeeping;
mod keys;
mod listen;
mod local_agent;
mod metrics;
mod orders;
mod outbox;
mod problem;
mod scheduler;
mod secrets;
mod server;
mod settings;
mod stored_tasks;
mod tasks;
#[cfg(test)]
mod testing;
mod timers;
mod tls;
mod waves;

pub use access::AdminTokenError;
pub use cooper_agent::{CacheBudget, CredentialKeeper, DiskSettings, MinFree, StepPolicy};
pub use cooper_store::{RESTORING, SnapshotError};

pub use backup::{BackupError, BackupOptions, BackupReport, RestoreError, WorkFolder, backup, restore, schema};
pub use keys::KeyError;
pub use local_agent::owner_of;
pub use server::{Server, StartError, StopError};
pub use settings::{
    LocalAgent, SecretSettings, SecretUsers, Settings, TlsName, TlsNameError, TlsSettings, VaultAddress,
    VaultAddressError, VaultSettings, VaultTarget,
};
pub use tls::TlsError;
