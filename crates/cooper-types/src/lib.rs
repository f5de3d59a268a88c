//! The words of Cooperage as types: identifiers, digests, image references, platforms, scopes, times.
//!
//! Every type here is parsed once, at the edge where text comes in, and is valid ever after. The crate does no
//! IO, reads no clock and knows nothing of databases or wire formats beyond the text form of its own types.

mod digest;
mod ids;
mod image_ref;
mod leave;
mod parsed;
mod platform;
mod repository;
mod run_id;
mod scope;
mod secret;
mod source_host;
mod task_name;
mod timestamp;
mod wave_id;

pub use digest::{Digest, DigestAlgorithm, DigestError, Hasher};
pub use ids::{
    AgentName, AttemptNumber, ContextId, EventId, Fence, HookId, IdError, IdempotencyKey, NetworkName, PoolName,
    PrincipalName, RegistryId, SecretName, StepId, TimerName, TokenId, TriggerName, VolumeName, WebhookName,
};
pub use image_ref::{ImageRef, ImageRefError, RegistryName};
pub use leave::Leave;
pub use platform::{Platform, PlatformError};
pub use repository::{RepositoryName, RepositoryNameError, Tag, TagError};
pub use run_id::{RunId, RunIdError};
pub use scope::{Access, RepositoryPattern, Scope, ScopeError, Scopes};
pub use secret::{SecretBytes, SecretString};
pub use source_host::{SourceHost, SourceHostError};
pub use task_name::{TaskName, TaskNameError};
pub use timestamp::Timestamp;
pub use wave_id::{WaveId, WaveIdError};
