//! Named secrets in SQLite. They arrive sealed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use cooper_ports::credentials::UsableBy;
use cooper_ports::secrets::{
    MAX_VERSIONS, NamedSecret, NamedSecretError, NamedVersion, PutSecret, PutSecretError, SealedVersion, SecretStore,
};
use cooper_ports::store_error::StoreError;
use cooper_types::{PrincipalName, SecretName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::sql_error::{During, Stored};

const WRITE: &str = "write secret";
const LIST: &str = "list secrets";
const DELETE: &str = "delete secret";
const READ: &str = "read secret";

#[async_trait]
impl SecretStore for Store {
    async fn put_secret(&self, put: PutSecret) -> Result<NamedSecret, PutSecretError> {
        let (registry, now) = (self.registry_id().0, self.clock().now());
        self.write(async move |mut tx| {
            let PutSecret { name, sealed, usable_by, set_by } = put;
            let exists = has_version(&mut tx, registry, &name).await?;
            let usable_by = match (exists, sealed.is_some()) {
                (false, false) => return Err(PutSecretError::Unknown(name)),
                (false, true) => Some(usable_by.unwrap_or_else(|| UsableBy::Principals([set_by.clone()].into()))),
                (true, _) => usable_by,
            };
            if let Some(sealed) = sealed {
                add_version(&mut tx, registry, &name, &sealed, &set_by, now).await?;
            }
            if let Some(usable_by) = &usable_by {
                set_users(&mut tx, registry, &name, usable_by).await?;
            }
            let mut found = list(&mut tx, registry, Some(&name)).await?;
            found.pop().ok_or(PutSecretError::Unknown(name))
        })
        .await
    }

    async fn list_secrets(&self) -> Result<Vec<NamedSecret>, StoreError> {
        let mut tx = self.readers().begin().await.during(LIST)?;
        list(&mut tx, self.registry_id().0, None).await
    }

    async fn delete_secret(&self, name: &SecretName, version: Option<u64>) -> Result<bool, StoreError> {
        let (registry, name) = (self.registry_id().0, name.clone());
        self.write(async move |mut tx| {
            let deleted = sqlx::query(
                "DELETE FROM secret_versions WHERE registry_id = ?1 AND name = ?2 AND (?3 IS NULL OR version = ?3)",
            )
            .bind(registry)
            .bind(name.as_str())
            .bind(version.map(column))
            .execute(&mut *tx)
            .await
            .during(DELETE)?;
            // Whoever makes it anew says anew who may use it.
            if !has_version(&mut tx, registry, &name).await? {
                forget_principals(&mut tx, registry, &name).await?;
            }
            Ok(deleted.rows_affected() > 0)
        })
        .await
    }

    async fn secret_for(
        &self,
        principal: &PrincipalName,
        name: &SecretName,
        version: Option<u64>,
    ) -> Result<SealedVersion, NamedSecretError> {
        let registry = self.registry_id().0;
        let mut tx = self.readers().begin().await.during(READ)?;
        let is_usable: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT 1 FROM secrets s JOIN secret_versions v USING (registry_id, name)
                 WHERE s.registry_id = ?1 AND s.name = ?2 AND (s.everybody OR EXISTS (
                     SELECT 1 FROM secret_principals p
                     WHERE p.registry_id = ?1 AND p.name = ?2 AND p.principal = ?3))
             )",
        )
        .bind(registry)
        .bind(name.as_str())
        .bind(principal.as_str())
        .fetch_one(&mut *tx)
        .await
        .during(READ)?;
        let unknown = || NamedSecretError::Unknown { name: name.clone(), principal: principal.clone() };
        if !is_usable {
            return Err(unknown());
        }
        let row = sqlx::query(
            "SELECT version, sealed FROM secret_versions
             WHERE registry_id = ?1 AND name = ?2 AND (?3 IS NULL OR version = ?3) ORDER BY version DESC LIMIT 1",
        )
        .bind(registry)
        .bind(name.as_str())
        .bind(version.map(column))
        .fetch_optional(&mut *tx)
        .await
        .during(READ)?;
        match (row, version) {
            (Some(row), _) => Ok(SealedVersion {
                version: row.try_get::<i64, _>("version").during(READ)?.unsigned_abs(),
                sealed: row.try_get("sealed").during(READ)?,
            }),
            (None, Some(version)) => Err(NamedSecretError::UnknownVersion { name: name.clone(), version }),
            (None, None) => Err(unknown()),
        }
    }
}

/// A version's number in its column. One that fits in none is nobody's.
fn column(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(-1)
}

async fn has_version(tx: &mut SqliteConnection, registry: i64, name: &SecretName) -> Result<bool, StoreError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM secret_versions WHERE registry_id = ?1 AND name = ?2)")
        .bind(registry)
        .bind(name.as_str())
        .fetch_one(tx)
        .await
        .during(READ)
}

/// Adds the next version, and lets go of the oldest beyond what is kept.
async fn add_version(
    tx: &mut SqliteConnection,
    registry: i64,
    name: &SecretName,
    sealed: &[u8],
    set_by: &PrincipalName,
    now: Timestamp,
) -> Result<(), StoreError> {
    let version: i64 = sqlx::query_scalar(
        "INSERT INTO secrets (registry_id, name, everybody, newest) VALUES (?1, ?2, 0, 1)
         ON CONFLICT (registry_id, name) DO UPDATE SET newest = newest + 1 RETURNING newest",
    )
    .bind(registry)
    .bind(name.as_str())
    .fetch_one(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query(
        "INSERT INTO secret_versions (registry_id, name, version, sealed, set_by, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(registry)
    .bind(name.as_str())
    .bind(version)
    .bind(sealed)
    .bind(set_by.as_str())
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query(
        "DELETE FROM secret_versions WHERE registry_id = ?1 AND name = ?2 AND version NOT IN (
             SELECT version FROM secret_versions WHERE registry_id = ?1 AND name = ?2 ORDER BY version DESC LIMIT ?3)",
    )
    .bind(registry)
    .bind(name.as_str())
    .bind(i64::try_from(MAX_VERSIONS).unwrap_or(i64::MAX))
    .execute(&mut *tx)
    .await
    .map(drop)
    .during(WRITE)
}

async fn set_users(
    tx: &mut SqliteConnection,
    registry: i64,
    name: &SecretName,
    usable_by: &UsableBy,
) -> Result<(), StoreError> {
    forget_principals(tx, registry, name).await?;
    sqlx::query("UPDATE secrets SET everybody = ?3 WHERE registry_id = ?1 AND name = ?2")
        .bind(registry)
        .bind(name.as_str())
        .bind(*usable_by == UsableBy::Everybody)
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    let UsableBy::Principals(principals) = usable_by else { return Ok(()) };
    for principal in principals {
        sqlx::query("INSERT INTO secret_principals (registry_id, name, principal) VALUES (?1, ?2, ?3)")
            .bind(registry)
            .bind(name.as_str())
            .bind(principal.as_str())
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
    }
    Ok(())
}

async fn forget_principals(tx: &mut SqliteConnection, registry: i64, name: &SecretName) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM secret_principals WHERE registry_id = ?1 AND name = ?2")
        .bind(registry)
        .bind(name.as_str())
        .execute(&mut *tx)
        .await
        .during(DELETE)?;
    sqlx::query("UPDATE secrets SET everybody = 0 WHERE registry_id = ?1 AND name = ?2")
        .bind(registry)
        .bind(name.as_str())
        .execute(tx)
        .await
        .map(drop)
        .during(DELETE)
}

/// The secrets by name, or the one of this name.
async fn list(
    tx: &mut SqliteConnection,
    registry: i64,
    only: Option<&SecretName>,
) -> Result<Vec<NamedSecret>, StoreError> {
    let only = only.map(SecretName::as_str);
    let rows = sqlx::query(
        "SELECT name, principal FROM secret_principals WHERE registry_id = ?1 AND (?2 IS NULL OR name = ?2)",
    )
    .bind(registry)
    .bind(only)
    .fetch_all(&mut *tx)
    .await
    .during(LIST)?;
    let mut principals: BTreeMap<String, BTreeSet<PrincipalName>> = BTreeMap::new();
    for row in rows {
        let principal = PrincipalName::parse(row.try_get("principal").during(LIST)?).stored(LIST)?;
        principals.entry(row.try_get("name").during(LIST)?).or_default().insert(principal);
    }
    let rows = sqlx::query(
        "SELECT v.name, s.everybody, v.version, v.set_by, v.created
         FROM secret_versions v JOIN secrets s USING (registry_id, name)
         WHERE v.registry_id = ?1 AND (?2 IS NULL OR v.name = ?2) ORDER BY v.name, v.version DESC",
    )
    .bind(registry)
    .bind(only)
    .fetch_all(&mut *tx)
    .await
    .during(LIST)?;
    let mut secrets: Vec<NamedSecret> = Vec::new();
    for row in rows {
        let name = SecretName::parse(row.try_get("name").during(LIST)?).stored(LIST)?;
        let version = NamedVersion {
            version: row.try_get::<i64, _>("version").during(LIST)?.unsigned_abs(),
            set_by: PrincipalName::parse(row.try_get("set_by").during(LIST)?).stored(LIST)?,
            created: Timestamp::from_micros(row.try_get("created").during(LIST)?),
        };
        match secrets.last_mut().filter(|last| last.name == name) {
            Some(last) => last.versions.push(version),
            None => {
                let usable_by = match row.try_get("everybody").during(LIST)? {
                    true => UsableBy::Everybody,
                    false => UsableBy::Principals(principals.remove(name.as_str()).unwrap_or_default()),
                };
                secrets.push(NamedSecret { name, usable_by, versions: vec![version] });
            }
        }
    }
    Ok(secrets)
}
