//! Named secrets, as an administrator sets, lists and deletes them. No answer holds a value.

use std::fmt;

use cooper_types::{PrincipalName, SecretName, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::rfc3339;

/// What `PUT /secrets/{name}` takes: a new version, who may use the secret, or both.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetSecret {
    /// The value of a new version. It is never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whose runs may use it from now on. If nobody is named it stays as it is, and a new secret is the caller's own.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub principals: Vec<PrincipalName>,
    /// Whether everybody's runs may use it from now on.
    #[serde(default)]
    pub all_principals: bool,
}

/// Shows no value.
impl fmt::Debug for SetSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetSecret")
            .field("principals", &self.principals)
            .field("all_principals", &self.all_principals)
            .finish_non_exhaustive()
    }
}

/// A secret without its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    /// Its name: what stands after `cooper://` in a task file.
    #[schema(value_type = String, example = "npm-token")]
    pub name: SecretName,
    /// Whose runs may use it; nobody is named where all may.
    #[schema(value_type = Vec<String>)]
    pub principals: Vec<PrincipalName>,
    /// Whether everybody's runs may use it.
    pub all_principals: bool,
    /// The versions that are kept, the newest first.
    pub versions: Vec<SecretVersionView>,
}

/// A version of a secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretVersionView {
    /// Its number.
    pub version: u64,
    /// Who set it.
    #[schema(value_type = String)]
    pub set_by: PrincipalName,
    /// When it was set.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Timestamp,
}

/// What `GET /secrets` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretList {
    /// The secrets, by name.
    pub value: Vec<SecretView>,
}

/// What `POST /secret-checks` takes: the texts of `keyvault:` that a task of the caller's would name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckSecrets {
    /// The places.
    #[schema(example = json!(["cooper://npm-token"]))]
    pub places: Vec<String>,
}

/// A secret that the caller's runs can have, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckedSecret {
    /// The place, with the version where such places have versions.
    pub place: String,
    /// The version; where the place has none, a text that differs when the value does.
    pub version: String,
    /// Whether this version can be had again.
    pub is_kept: bool,
}

/// What `POST /secret-checks` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckedSecrets {
    /// The secrets, in the order of the places.
    pub value: Vec<CheckedSecret>,
}

/// The query of `DELETE /secrets/{name}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteSecretQuery {
    /// The one version to forget; all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}
