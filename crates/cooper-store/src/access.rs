//! Principals and tokens in SQLite.

use async_trait::async_trait;
use cooper_ports::access::{AccessStore, CreateTokenError, NewToken, RevokeTokenError, Token};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, PrincipalName, RegistryId, Scopes, Timestamp, TokenId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::sql_error::{During, Stored};

#[async_trait]
impl AccessStore for Store {
    async fn ensure_principal(&self, name: &PrincipalName) -> Result<(), StoreError> {
        let (registry, name, now) = (self.registry_id(), name.clone(), self.clock().now());
        self.write(async move |mut tx| ensure_principal(&mut tx, registry, &name, now).await).await
    }

    async fn create_token(&self, token: NewToken) -> Result<Token, CreateTokenError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| {
            ensure_principal(&mut tx, registry, &token.principal, now).await?;
            let scopes = serde_json::to_string(&token.scopes).stored("write token")?;
            let inserted = sqlx::query(
                "INSERT INTO tokens (registry_id, id, principal, secret_hash, scopes, created, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
            )
            .bind(registry.0)
            .bind(token.id.as_str())
            .bind(token.principal.as_str())
            .bind(token.secret_hash.as_str())
            .bind(scopes)
            .bind(now.as_micros())
            .bind(token.expires.map(Timestamp::as_micros))
            .execute(&mut *tx)
            .await
            .during("write token")?;
            if inserted.rows_affected() == 0 {
                return Err(CreateTokenError::Taken(token.id));
            }
            let NewToken { id, principal, secret_hash, scopes, expires } = token;
            Ok(Token { id, principal, secret_hash, scopes, created: now, expires, revoked: None })
        })
        .await
    }

    async fn find_token(&self, id: &TokenId) -> Result<Option<Token>, StoreError> {
        let row = sqlx::query(
            "SELECT id, principal, secret_hash, scopes, created, expires, revoked FROM tokens
             WHERE registry_id = ?1 AND id = ?2",
        )
        .bind(self.registry_id().0)
        .bind(id.as_str())
        .fetch_optional(self.readers())
        .await
        .during("find token")?;
        row.as_ref().map(token).transpose()
    }

    async fn list_tokens(&self) -> Result<Vec<Token>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, principal, secret_hash, scopes, created, expires, revoked FROM tokens
             WHERE registry_id = ?1 ORDER BY created DESC, id",
        )
        .bind(self.registry_id().0)
        .fetch_all(self.readers())
        .await
        .during("list tokens")?;
        rows.iter().map(token).collect()
    }

    async fn tokens_of(&self, principal: &PrincipalName) -> Result<Vec<Token>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, principal, secret_hash, scopes, created, expires, revoked FROM tokens
             WHERE registry_id = ?1 AND principal = ?2 ORDER BY created DESC, id",
        )
        .bind(self.registry_id().0)
        .bind(principal.as_str())
        .fetch_all(self.readers())
        .await
        .during("list tokens")?;
        rows.iter().map(token).collect()
    }

    async fn revoke_token(&self, id: &TokenId) -> Result<Token, RevokeTokenError> {
        let (registry, id, now) = (self.registry_id(), id.clone(), self.clock().now());
        self.write(async move |mut tx| {
            let row = sqlx::query(
                "UPDATE tokens SET revoked = coalesce(revoked, ?3) WHERE registry_id = ?1 AND id = ?2
                 RETURNING id, principal, secret_hash, scopes, created, expires, revoked",
            )
            .bind(registry.0)
            .bind(id.as_str())
            .bind(now.as_micros())
            .fetch_optional(&mut *tx)
            .await
            .during("revoke token")?;
            match row {
                Some(row) => Ok(token(&row)?),
                None => Err(RevokeTokenError::Unknown(id)),
            }
        })
        .await
    }
}

/// Makes the principal if there is none of this name.
pub(crate) async fn ensure_principal(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    name: &PrincipalName,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO principals (registry_id, name, created) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")
        .bind(registry.0)
        .bind(name.as_str())
        .bind(now.as_micros())
        .execute(connection)
        .await
        .map(drop)
        .during("write principal")
}

fn token(row: &SqliteRow) -> Result<Token, StoreError> {
    const READ: &str = "read token";
    let text = |column: &str| row.try_get::<&str, _>(column).during(READ);
    let time = |column: &str| {
        let micros: Option<i64> = row.try_get(column).during(READ)?;
        Ok::<_, StoreError>(micros.map(Timestamp::from_micros))
    };
    Ok(Token {
        id: TokenId::parse(text("id")?).stored(READ)?,
        principal: PrincipalName::parse(text("principal")?).stored(READ)?,
        secret_hash: Digest::parse(text("secret_hash")?).stored(READ)?,
        scopes: serde_json::from_str::<Scopes>(text("scopes")?).stored(READ)?,
        created: Timestamp::from_micros(row.try_get("created").during(READ)?),
        expires: time("expires")?,
        revoked: time("revoked")?,
    })
}
