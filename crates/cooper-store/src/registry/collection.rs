//! Leases of blobs, and what nobody holds any more.

use async_trait::async_trait;
use cooper_ports::registry::{BLOB_LEASE, BlobCollection, Released};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RegistryId, RepositoryName, Timestamp};
use serde_json::json;
use sqlx::{Row, SqliteConnection};

use super::blobs;
use crate::Store;
use crate::sql_error::{During, Stored};

const RELEASE: &str = "release blobs";
const DROP: &str = "drop what attempts left";

/// What attempts alone have pushed and nothing refers to. What is about another manifest goes with that one.
const UNFINISHED: &str = "SELECT m.repository_id, m.digest FROM manifests AS m INDEXED BY manifests_of_attempts
     JOIN repositories ON repositories.id = m.repository_id AND repositories.registry_id = ?1
     WHERE m.by_attempt = 1 AND m.updated < ?2
       AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.repository_id = m.repository_id AND tags.digest = m.digest)
       AND NOT EXISTS (SELECT 1 FROM staged_tags
                       WHERE staged_tags.repository_id = m.repository_id AND staged_tags.digest = m.digest)
       AND NOT EXISTS (SELECT 1 FROM manifest_references AS r
                       WHERE r.repository_id = m.repository_id AND r.digest = m.digest AND r.kind IN ('manifest', 'subject'))
       AND NOT EXISTS (SELECT 1 FROM manifest_references AS r
                       WHERE r.repository_id = m.repository_id AND r.manifest = m.digest AND r.kind = 'subject')
     ORDER BY m.updated LIMIT ?3";

const CONDEMNED: &str = "list condemned blobs";

/// The lease of a blob that manifests were seen to need.
const WITHOUT_END: i64 = i64::MAX;

#[async_trait]
impl BlobCollection for Store {
    async fn renew_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        stale: Timestamp,
    ) -> Result<Option<u64>, StoreError> {
        let found = {
            let mut connection = self.readers().acquire().await.during("find blob")?;
            blobs::leased(&mut connection, self.registry_id(), repository, digest).await?
        };
        match found {
            None => return Ok(None),
            Some((size, lease)) if lease >= stale.after(BLOB_LEASE) => return Ok(Some(size)),
            Some(_) => {}
        }
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let (repository, digest) = (repository.clone(), digest.clone());
        // It may have been let go since.
        self.write(async move |mut tx| blobs::renew(&mut tx, registry, clock.now(), &repository, &digest).await).await
    }

    async fn drop_unfinished(&self, unused_since: Timestamp, limit: u32) -> Result<u32, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        self.write(async move |mut tx| drop_unfinished(&mut tx, registry, clock.now(), unused_since, limit).await).await
    }

    async fn release_blobs(&self, unused_since: Timestamp, limit: u32) -> Result<Released, StoreError> {
        let (registry, clock) = (self.registry_id(), self.clock().clone());
        let before = unused_since.after(BLOB_LEASE);
        self.write(async move |mut tx| release(&mut tx, registry, clock.now(), before, limit).await).await
    }

    async fn condemned_blobs(&self, after: Option<&Digest>, limit: u32) -> Result<Vec<Digest>, StoreError> {
        let digests: Vec<String> = sqlx::query_scalar(
            "SELECT digest FROM condemned_blobs WHERE registry_id = ?1 AND digest > ?2 ORDER BY digest LIMIT ?3",
        )
        .bind(self.registry_id().0)
        .bind(after.map(Digest::as_str).unwrap_or_default())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .during(CONDEMNED)?;
        digests.iter().map(|digest| Digest::parse(digest).stored(CONDEMNED)).collect()
    }

    async fn is_condemned(&self, digest: &Digest) -> Result<bool, StoreError> {
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM condemned_blobs WHERE registry_id = ?1 AND digest = ?2)")
            .bind(self.registry_id().0)
            .bind(digest.as_str())
            .fetch_one(self.readers())
            .await
            .during("find condemned blob")
    }

    async fn forget_condemned(&self, digests: &[Digest]) -> Result<(), StoreError> {
        if digests.is_empty() {
            return Ok(());
        }
        let (registry, digests) = (self.registry_id(), json!(digests).to_string());
        self.write(async move |mut tx| {
            sqlx::query(
                "DELETE FROM condemned_blobs
                 WHERE registry_id = ?1 AND digest IN (SELECT value FROM json_each(?2))",
            )
            .bind(registry.0)
            .bind(digests)
            .execute(&mut *tx)
            .await
            .map(drop)
            .during("forget condemned blobs")
        })
        .await
    }

    async fn condemn_strays(&self, digests: &[Digest]) -> Result<u32, StoreError> {
        if digests.is_empty() {
            return Ok(0);
        }
        // Nearly always there is none, and then nobody who writes has to wait.
        let strays: Vec<String> = sqlx::query_scalar(
            "SELECT value FROM json_each(?2)
             WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE registry_id = ?1 AND digest = value)
               AND NOT EXISTS (SELECT 1 FROM condemned_blobs WHERE registry_id = ?1 AND digest = value)",
        )
        .bind(self.registry_id().0)
        .bind(json!(digests).to_string())
        .fetch_all(self.readers())
        .await
        .during("look for strays")?;
        if strays.is_empty() {
            return Ok(0);
        }
        let (registry, clock, digests) = (self.registry_id(), self.clock().clone(), json!(strays).to_string());
        self.write(async move |mut tx| {
            let condemned = sqlx::query(
                "INSERT INTO condemned_blobs (registry_id, digest, since)
                 SELECT ?1, value, ?2 FROM json_each(?3)
                 WHERE NOT EXISTS (SELECT 1 FROM blobs WHERE registry_id = ?1 AND digest = value)
                 ON CONFLICT DO NOTHING",
            )
            .bind(registry.0)
            .bind(clock.now().as_micros())
            .bind(digests)
            .execute(&mut *tx)
            .await
            .during("condemn strays")?;
            Ok(u32::try_from(condemned.rows_affected()).unwrap_or(u32::MAX))
        })
        .await
    }
}

async fn drop_unfinished(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    unused_since: Timestamp,
    limit: u32,
) -> Result<u32, StoreError> {
    let rows = sqlx::query(UNFINISHED)
        .bind(registry.0)
        .bind(unused_since.as_micros())
        .bind(limit)
        .fetch_all(&mut *tx)
        .await
        .during(DROP)?;
    if rows.is_empty() {
        return Ok(0);
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let repository: i64 = row.try_get("repository_id").during(DROP)?;
        found.push(json!([repository, row.try_get::<&str, _>("digest").during(DROP)?]));
    }
    let found = json!(found).to_string();
    // What they kept is to be looked at again; and those who pull it now get to their end.
    sqlx::query(
        "UPDATE repository_blobs SET lease_until = ?2 WHERE (repository_id, digest) IN (
             SELECT repository_id, digest FROM manifest_references
             WHERE (repository_id, manifest) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1)))",
    )
    .bind(&found)
    .bind(now.after(BLOB_LEASE).as_micros())
    .execute(&mut *tx)
    .await
    .during(DROP)?;
    for sql in [
        "DELETE FROM manifest_references
         WHERE (repository_id, manifest) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
        "DELETE FROM manifests WHERE (repository_id, digest) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
    ] {
        sqlx::query(sql).bind(&found).execute(&mut *tx).await.during(DROP)?;
    }
    Ok(u32::try_from(rows.len()).unwrap_or(u32::MAX))
}

async fn release(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    before: Timestamp,
    limit: u32,
) -> Result<Released, StoreError> {
    let rows = sqlx::query(
        "SELECT repository_id, digest, EXISTS (
             SELECT 1 FROM manifest_references AS needs
             WHERE needs.repository_id = held.repository_id AND needs.digest = held.digest
               AND needs.kind IN ('blob', 'foreign_blob')) AS needed
         FROM repository_blobs AS held
         WHERE registry_id = ?1 AND lease_until < 9223372036854775807 AND lease_until < ?2
         ORDER BY lease_until LIMIT ?3",
    )
    .bind(registry.0)
    .bind(before.as_micros())
    .bind(limit)
    .fetch_all(&mut *tx)
    .await
    .during(RELEASE)?;
    let (mut needed, mut released, mut digests) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let repository: i64 = row.try_get("repository_id").during(RELEASE)?;
        let digest: &str = row.try_get("digest").during(RELEASE)?;
        match row.try_get("needed").during(RELEASE)? {
            true => needed.push(json!([repository, digest])),
            false => {
                released.push(json!([repository, digest]));
                digests.push(digest);
            }
        }
    }
    if !needed.is_empty() {
        sqlx::query(
            "UPDATE repository_blobs SET lease_until = ?2
             WHERE (repository_id, digest) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
        )
        .bind(json!(needed).to_string())
        .bind(WITHOUT_END)
        .execute(&mut *tx)
        .await
        .during(RELEASE)?;
    }
    let mut condemned = 0;
    if !released.is_empty() {
        sqlx::query(
            "DELETE FROM repository_blobs
             WHERE (repository_id, digest) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))",
        )
        .bind(json!(released).to_string())
        .execute(&mut *tx)
        .await
        .during(RELEASE)?;
        condemned = condemn_unheld(tx, registry, now, &json!(digests).to_string()).await?;
    }
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    Ok(Released { looked_at: count(rows.len()), released: count(released.len()), condemned })
}

/// Condemns those of these blobs, a JSON list of digests, that no repository holds, and says how many.
pub(super) async fn condemn_unheld(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    digests: &str,
) -> Result<u32, StoreError> {
    let condemned = sqlx::query(
        "INSERT INTO condemned_blobs (registry_id, digest, since)
         SELECT registry_id, digest, ?3 FROM blobs
         WHERE registry_id = ?1 AND digest IN (SELECT value FROM json_each(?2))
           AND NOT EXISTS (SELECT 1 FROM repository_blobs AS held
                           WHERE held.registry_id = ?1 AND held.digest = blobs.digest)
         ON CONFLICT DO NOTHING",
    )
    .bind(registry.0)
    .bind(digests)
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await
    .during(RELEASE)?;
    sqlx::query(
        "DELETE FROM blobs
         WHERE registry_id = ?1 AND digest IN (SELECT value FROM json_each(?2))
           AND NOT EXISTS (SELECT 1 FROM repository_blobs AS held
                           WHERE held.registry_id = ?1 AND held.digest = blobs.digest)",
    )
    .bind(registry.0)
    .bind(digests)
    .execute(&mut *tx)
    .await
    .during(RELEASE)?;
    Ok(u32::try_from(condemned.rows_affected()).unwrap_or(u32::MAX))
}
