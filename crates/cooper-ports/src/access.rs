//! Principals and their access tokens.
//!
//! A token is `id` and secret; this port sees the secret's hash alone. Whoever checks a token compares hashes in
//! constant time and asks [`Token::is_active`].

use async_trait::async_trait;
use cooper_types::{Digest, PrincipalName, Scopes, Timestamp, TokenId};

use crate::store_error::StoreError;

/// An access token as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its public half.
    pub id: TokenId,
    /// Whom it speaks for.
    pub principal: PrincipalName,
    /// The hash of its secret half.
    pub secret_hash: Digest,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends by itself; never if absent.
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl Token {
    /// Whether it is neither revoked nor expired at `now`.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|expires| now < expires)
    }
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its public half, random.
    pub id: TokenId,
    /// Whom it speaks for; made if there is no such principal.
    pub principal: PrincipalName,
    /// The hash of its secret half, which must be random too: the hash is a plain one.
    pub secret_hash: Digest,
    /// What it may do.
    pub scopes: Scopes,
    /// When it ends by itself; never if absent.
    pub expires: Option<Timestamp>,
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateTokenError {
    /// The id is taken: random ids do not collide, so somebody chose it.
    #[error("token id `{0}` is taken")]
    Taken(TokenId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a token was not revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeTokenError {
    /// There is no token with this id.
    #[error("token `{0}` does not exist")]
    Unknown(TokenId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps principals and tokens.
#[async_trait]
pub trait AccessStore: Send + Sync {
    /// Makes the principal if there is none of this name.
    async fn ensure_principal(&self, name: &PrincipalName) -> Result<(), StoreError>;

    /// Makes a token, and its principal if need be.
    async fn create_token(&self, token: NewToken) -> Result<Token, CreateTokenError>;

    /// The token with this id, whether active or not.
    async fn find_token(&self, id: &TokenId) -> Result<Option<Token>, StoreError>;

    /// All tokens, newest first, revoked and expired ones too.
    async fn list_tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// A principal's tokens, newest first, revoked and expired ones too.
    async fn tokens_of(&self, principal: &PrincipalName) -> Result<Vec<Token>, StoreError>;

    /// Ends a token at once. A second time changes nothing.
    async fn revoke_token(&self, id: &TokenId) -> Result<Token, RevokeTokenError>;
}
