//! The embedded registry: OCI Distribution 1.1 push and pull as an axum router over the registry's ports, its tokens,
//! and the credentials that let one attempt at one step push.
//!
//! Where bytes and rows are kept is the adapters' business; which access tokens exist is the server's. Deleting,
//! referrers and collection of garbage are not here yet.

mod blobs;
mod credential;
mod error;
mod identity;
mod incoming;
mod manifest_view;
mod manifests;
mod query;
mod range;
mod route;
mod router;
mod service;
mod signing;
mod tags;
mod token;
mod uploads;

pub use credential::AttemptCredential;
pub use identity::ConnectionScheme;
pub use router::router;
pub use service::{RegistryOptions, RegistryParts, RegistryService, SweepError, Swept};
pub use signing::{SigningKey, SigningKeyError};
