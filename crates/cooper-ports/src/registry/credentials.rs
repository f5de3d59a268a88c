//! Whom a user name and a password speak for. What they may do then is decided by the registry from the scopes.

use std::error::Error;

use async_trait::async_trait;
use cooper_types::{PrincipalName, Scopes, SecretString, TokenId};

/// Whom a credential speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The principal.
    pub principal: PrincipalName,
    /// The access token that was shown.
    pub token: TokenId,
    /// What the token allows.
    pub scopes: Scopes,
}

/// Checks credentials. Comparisons take the same time whatever is wrong, and nothing tells why a credential is refused.
#[async_trait]
pub trait CredentialVerifier: Send + Sync {
    /// The caller behind a user name and a password, where the password is an access token and the name may be any.
    async fn verify(&self, username: &str, password: &SecretString) -> Result<Option<Caller>, VerifyError>;

    /// Whether a token is still good: neither revoked nor expired. Asked on each request that shows a bearer token.
    async fn is_active(&self, token: &TokenId) -> Result<bool, VerifyError>;
}

/// The verifier could not look.
#[derive(Debug, thiserror::Error)]
#[error("failed to verify a credential")]
pub struct VerifyError(#[source] pub Box<dyn Error + Send + Sync>);
