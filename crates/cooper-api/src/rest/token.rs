//! Access tokens, as an administrator makes, lists and revokes them.

use std::fmt;

use cooper_types::{PrincipalName, Scopes, Timestamp, TokenId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::{rfc3339, rfc3339_option};

/// What `POST /tokens` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateToken {
    /// Whom the token speaks for; made if it is new.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// What the token may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// After how many seconds it stops working; never if absent.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub expires_in_seconds: Option<u64>,
}

/// What `POST /tokens` answers: the only time that the token itself is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedToken {
    /// The token's public name.
    #[schema(value_type = String)]
    pub id: TokenId,
    /// The token: shown once.
    pub token: String,
    /// Whom it speaks for.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Timestamp,
    /// When it stops working.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expire_time: Option<Timestamp>,
}

impl fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreatedToken")
            .field("id", &self.id)
            .field("principal", &self.principal)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// The token's public name.
    #[schema(value_type = String)]
    pub id: TokenId,
    /// Whom it speaks for.
    #[schema(value_type = String)]
    pub principal: PrincipalName,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    pub scopes: Scopes,
    /// When it was made.
    #[serde(with = "rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Timestamp,
    /// When it stops working; never if `null`.
    #[serde(default, with = "rfc3339_option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expire_time: Option<Timestamp>,
}

/// What `GET /tokens` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    /// The tokens that still work, the newest first.
    pub value: Vec<TokenView>,
}
