//! What a server says about itself.

use std::collections::BTreeMap;

use cooper_types::{PrincipalName, RegistryName, Scopes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What `GET /info` answers: the server, and whom it takes the caller for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Info {
    /// The server's version.
    pub version: String,
    /// The embedded registry's name in image references.
    #[schema(value_type = String, example = "localhost:5000")]
    pub registry_name: RegistryName,
    /// Whom the token speaks for.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// What the token may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// The operator's names for images in task files.
    #[serde(default)]
    pub image_aliases: BTreeMap<String, String>,
}

/// The header in which `/healthz` tells one server from another.
pub const IDENTITY_HEADER: &str = "cooper-server";

/// What `/healthz` and `/readyz` answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok`, or one line on what is missing.
    pub status: String,
}
