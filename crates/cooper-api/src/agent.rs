//! The agents' protocol: the generated wire types, and their meaning in the domain's words.
//!
//! What comes off the wire is hostile until it has been through `convert`; services work with the domain's types.

mod convert;
mod handshake;
mod work;

/// The generated code of `schemas/agent.proto`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::large_enum_variant,
    reason = "generated; documented in schemas/agent.proto"
)]
pub mod wire {
    tonic::include_proto!("cooper.agent.v1");
}

pub use convert::{ProtocolError, attempt_message, read_agent_message, read_server_message, to_agent, to_server};
pub use handshake::{Agreed, HandshakeError, MAX_CAPABILITIES, SpokenByAgent, SpokenByServer, TAKES_IMAGES};
pub use work::{
    BuildContextOrder, BuildOrder, CacheOrder, CommandImageOrder, CommandOrder, EnvironmentOrder, PrepareOrder,
    PushFrom, PushOrder, PushTarget, RegistryAccess, StepOrder, StepWork, TaskOrder, VolumeOrder,
};

/// The variable with which the server gives the program in place of ACR's client a password at the run's registry.
pub const ACR_PASSWORD: &str = "COOPER_REGISTRY_PASSWORD";
/// The variable with which the agent tells that program where the registry is, if its name does not tell.
pub const ACR_ADDRESS: &str = "COOPER_REGISTRY_ADDRESS";

/// The newest version that this build speaks. What a server and an agent make of each other's stands in `handshake`.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest message on the stream, in bytes: secrets fit.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// The largest file that a prepare attempt answers with, in bytes: no task file or file of values is that long.
pub const MAX_PREPARED_FILE_BYTES: usize = 1024 * 1024;
/// The most bytes of all files that a prepare attempt answers with.
pub const MAX_PREPARED_BYTES: usize = 4 * MAX_PREPARED_FILE_BYTES;
/// The most files that a prepare attempt answers with.
pub const MAX_PREPARED_FILES: usize = 256;

/// The largest message that a server takes from an agent, in bytes: a source's files and the largest log frame fit. It is smaller than
/// [`MAX_MESSAGE_BYTES`] because many tiny parts take several times their bytes in memory once they are read.
pub const MAX_AGENT_MESSAGE_BYTES: usize = MAX_PREPARED_BYTES + 1024 * 1024;
