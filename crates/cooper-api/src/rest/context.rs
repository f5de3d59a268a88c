//! Uploads of contexts: first an id, then the bytes.

use cooper_types::{ContextId, Digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What `POST /contexts` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedContext {
    /// The context's id: the `sourceLocation` of a run of the same principal.
    #[schema(value_type = String)]
    pub context_id: ContextId,
    /// The path on this server to PUT the tar.gz to.
    pub upload_url: String,
    /// How many bytes the tar.gz may have.
    pub max_bytes: u64,
}

/// What `PUT /contexts/{id}` answers once the bytes are safe on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadedContext {
    /// The context's id.
    #[schema(value_type = String)]
    pub context_id: ContextId,
    /// How many bytes arrived.
    pub size: u64,
    /// Their digest.
    #[schema(value_type = String)]
    pub digest: Digest,
}
