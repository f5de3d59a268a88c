//! The client of Cooperage's REST API: typed calls, streamed uploads, and a log follower that survives disconnects.
//!
//! It shows nothing and reads no settings: the caller passes the server's address and the token.

mod call;
mod client;
mod error;
mod follow;
mod registry;
mod server_url;
mod sse;
mod trust;

pub use call::Login;
pub use client::{Client, Probe};
pub use error::ClientError;
pub use follow::{FollowOptions, LogEvent};
pub use registry::{ListedManifest, ListedTag, RegistryClient};
pub use server_url::{ServerUrl, ServerUrlError};
pub use trust::{CertificateFault, Trust, TrustError};
