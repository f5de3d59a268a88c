//! Credentials for the hosts of sources and registries, as an administrator sets, lists and deletes them. No answer
//! holds a secret.

use std::fmt;

use cooper_types::{PrincipalName, SourceHost, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::rfc3339;

/// What `PUT /credentials/{host}` takes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetCredential {
    /// The user name; many forges take any with a token.
    pub username: String,
    /// The password or token. It is never shown again.
    pub password: String,
    /// Whose runs may use it; the caller's own if nobody is named.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub principals: Vec<PrincipalName>,
    /// Whether everybody's runs may use it.
    #[serde(default)]
    pub all_principals: bool,
}

/// Shows no password.
impl fmt::Debug for SetCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetCredential")
            .field("username", &self.username)
            .field("principals", &self.principals)
            .field("all_principals", &self.all_principals)
            .finish_non_exhaustive()
    }
}

/// A credential without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialView {
    /// The host, with its port where that is not 443.
    #[schema(value_type = String, example = "git.example:8443")]
    pub host: SourceHost,
    /// The user name.
    pub username: String,
    /// Whose runs may use it; nobody is named where all may.
    #[schema(value_type = Vec<String>)]
    pub principals: Vec<PrincipalName>,
    /// Whether everybody's runs may use it.
    pub all_principals: bool,
    /// Who set it last.
    #[schema(value_type = String)]
    pub set_by: PrincipalName,
    /// When it was set last.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub last_updated_time: Timestamp,
}

/// What `GET /credentials` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialList {
    /// The credentials, by host.
    pub value: Vec<CredentialView>,
}
