//! The embedded registry: OCI Distribution 1.1 push and pull as an axum router over the registry's ports, its tokens,
//! and the credentials that let one attempt at one step push; what it holds, as ACR tells it; and the collection of what nobody
//! needs.
//!
//! Where bytes and rows are kept is the adapters' business; which access tokens exist is the server's. The list of
//! referrers is not here yet.

mod blobs;
mod collection;
mod credential;
mod deletion;
mod error;
mod identity;
mod incoming;
mod manifest_view;
mod manifests;
mod metadata;
mod own;
mod query;
mod range;
mod route;
mod router;
mod service;
mod signing;
mod tags;
mod token;
mod uploads;

pub use collection::{CollectError, Collected};
pub use credential::AttemptCredential;
pub use identity::ConnectionScheme;
pub use own::{OwnImage, OwnImageError};
pub use router::router;
pub use service::{RegistryOptions, RegistryParts, RegistryService, SweepError, Swept};
pub use signing::{SigningKey, SigningKeyError};
