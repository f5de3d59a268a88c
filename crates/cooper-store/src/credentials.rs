//! Credentials for hosts in SQLite. They arrive sealed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use cooper_ports::credentials::{
    HostCredential, NewSourceCredential, SealedCredential, SourceCredential, SourceCredentialStore, UsableBy,
};
use cooper_ports::runs::AttemptError;
use cooper_ports::store_error::StoreError;
use cooper_types::{AttemptNumber, PrincipalName, RunId, SourceHost, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::contexts::run_number;
use crate::logs::append::is_live;
use crate::sql_error::{During, Stored};

const WRITE: &str = "write credential";
const LIST: &str = "list credentials";
const DELETE: &str = "delete credential";
const READ: &str = "read credential";

#[async_trait]
impl SourceCredentialStore for Store {
    async fn put_credential(&self, new: NewSourceCredential) -> Result<SourceCredential, StoreError> {
        let (registry, now) = (self.registry_id(), self.clock().now());
        self.write(async move |mut tx| {
            let NewSourceCredential { host, username, sealed, usable_by, set_by } = new;
            delete(&mut tx, registry.0, &host).await?;
            sqlx::query(
                "INSERT INTO source_credentials (registry_id, host, username, sealed, everybody, set_by, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )
            .bind(registry.0)
            .bind(host.as_str())
            .bind(&username)
            .bind(&sealed)
            .bind(usable_by == UsableBy::Everybody)
            .bind(set_by.as_str())
            .bind(now.as_micros())
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            if let UsableBy::Principals(principals) = &usable_by {
                for principal in principals {
                    sqlx::query(
                        "INSERT INTO source_credential_principals (registry_id, host, principal) VALUES (?1, ?2, ?3)",
                    )
                    .bind(registry.0)
                    .bind(host.as_str())
                    .bind(principal.as_str())
                    .execute(&mut *tx)
                    .await
                    .during(WRITE)?;
                }
            }
            Ok(SourceCredential { host, username, usable_by, set_by, updated: now })
        })
        .await
    }

    async fn list_credentials(&self) -> Result<Vec<SourceCredential>, StoreError> {
        let mut tx = self.readers().begin().await.during(LIST)?;
        let rows = sqlx::query("SELECT host, principal FROM source_credential_principals WHERE registry_id = ?1")
            .bind(self.registry_id().0)
            .fetch_all(&mut *tx)
            .await
            .during(LIST)?;
        let mut principals: BTreeMap<String, BTreeSet<PrincipalName>> = BTreeMap::new();
        for row in rows {
            let principal = PrincipalName::parse(row.try_get("principal").during(LIST)?).stored(LIST)?;
            principals.entry(row.try_get("host").during(LIST)?).or_default().insert(principal);
        }
        let rows = sqlx::query(
            "SELECT host, username, everybody, set_by, updated FROM source_credentials WHERE registry_id = ?1
             ORDER BY host",
        )
        .bind(self.registry_id().0)
        .fetch_all(&mut *tx)
        .await
        .during(LIST)?;
        let credentials = rows.iter().map(|row| {
            let host: &str = row.try_get("host").during(LIST)?;
            let usable_by = match row.try_get("everybody").during(LIST)? {
                true => UsableBy::Everybody,
                false => UsableBy::Principals(principals.remove(host).unwrap_or_default()),
            };
            Ok(SourceCredential {
                host: SourceHost::parse(host).stored(LIST)?,
                username: row.try_get("username").during(LIST)?,
                usable_by,
                set_by: PrincipalName::parse(row.try_get("set_by").during(LIST)?).stored(LIST)?,
                updated: Timestamp::from_micros(row.try_get("updated").during(LIST)?),
            })
        });
        credentials.collect()
    }

    async fn delete_credential(&self, host: &SourceHost) -> Result<bool, StoreError> {
        let (registry, host) = (self.registry_id(), host.clone());
        self.write(async move |mut tx| delete(&mut tx, registry.0, &host).await).await
    }

    async fn credential_for(
        &self,
        run: RunId,
        attempt: AttemptNumber,
        host: &SourceHost,
    ) -> Result<HostCredential, AttemptError> {
        let mut tx = self.readers().begin().await.during(READ)?;
        if !is_live(&mut tx, self.registry_id(), run, attempt).await? {
            return Err(AttemptError::NotLive { run, attempt });
        }
        if let Some(of_task) = of_task(&mut tx, self.registry_id().0, run, host).await? {
            return Ok(HostCredential::Usable(of_task));
        }
        let row = sqlx::query(
            "SELECT c.username, c.sealed, r.principal, (c.everybody = 1 OR EXISTS (
                 SELECT 1 FROM source_credential_principals p
                 WHERE p.registry_id = c.registry_id AND p.host = c.host AND p.principal = r.principal
             )) AS usable FROM runs r
             JOIN source_credentials c ON c.registry_id = r.registry_id AND c.host = ?3
             WHERE r.registry_id = ?1 AND r.number = ?2",
        )
        .bind(self.registry_id().0)
        .bind(run_number(run))
        .bind(host.as_str())
        .fetch_optional(&mut *tx)
        .await
        .during(READ)?;
        let Some(row) = row else { return Ok(HostCredential::Nothing) };
        if !row.try_get::<bool, _>("usable").during(READ)? {
            return Ok(HostCredential::ForOthers);
        }
        Ok(HostCredential::Usable(SealedCredential {
            username: row.try_get("username").during(READ)?,
            sealed: row.try_get("sealed").during(READ)?,
            principal: PrincipalName::parse(row.try_get("principal").during(READ)?).stored(READ)?,
            task: None,
        }))
    }

    async fn credential_of(
        &self,
        principal: &PrincipalName,
        host: &SourceHost,
    ) -> Result<Option<SealedCredential>, StoreError> {
        let row = sqlx::query(
            "SELECT username, sealed FROM source_credentials c
             WHERE registry_id = ?1 AND host = ?2 AND (everybody = 1 OR EXISTS (
                 SELECT 1 FROM source_credential_principals p
                 WHERE p.registry_id = c.registry_id AND p.host = c.host AND p.principal = ?3))",
        )
        .bind(self.registry_id().0)
        .bind(host.as_str())
        .bind(principal.as_str())
        .fetch_optional(self.readers())
        .await
        .during(READ)?;
        row.map(|row| {
            Ok(SealedCredential {
                username: row.try_get("username").during(READ)?,
                sealed: row.try_get("sealed").during(READ)?,
                principal: principal.clone(),
                task: None,
            })
        })
        .transpose()
    }
}

/// What the run's task has for a host, if the task is still the same principal's.
async fn of_task(
    tx: &mut SqliteConnection,
    registry: i64,
    run: RunId,
    host: &SourceHost,
) -> Result<Option<SealedCredential>, StoreError> {
    let row = sqlx::query(
        "SELECT c.username, c.sealed, c.task, r.principal FROM runs r
         JOIN tasks t ON t.registry_id = r.registry_id AND t.task = r.task AND t.principal = r.principal
         JOIN task_credentials c ON c.registry_id = t.registry_id AND c.task = t.task AND c.host = ?3
         WHERE r.registry_id = ?1 AND r.number = ?2",
    )
    .bind(registry)
    .bind(run_number(run))
    .bind(host.as_str())
    .fetch_optional(tx)
    .await
    .during(READ)?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(SealedCredential {
        username: row.try_get("username").during(READ)?,
        sealed: row.try_get("sealed").during(READ)?,
        principal: PrincipalName::parse(row.try_get("principal").during(READ)?).stored(READ)?,
        task: Some(row.try_get("task").during(READ)?),
    }))
}

async fn delete(tx: &mut SqliteConnection, registry: i64, host: &SourceHost) -> Result<bool, StoreError> {
    sqlx::query("DELETE FROM source_credential_principals WHERE registry_id = ?1 AND host = ?2")
        .bind(registry)
        .bind(host.as_str())
        .execute(&mut *tx)
        .await
        .during(DELETE)?;
    let deleted = sqlx::query("DELETE FROM source_credentials WHERE registry_id = ?1 AND host = ?2")
        .bind(registry)
        .bind(host.as_str())
        .execute(&mut *tx)
        .await
        .during(DELETE)?;
    Ok(deleted.rows_affected() > 0)
}
