//! Which repositories hold which blobs.

use cooper_ports::registry::BLOB_LEASE;
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RegistryId, RepositoryName, Timestamp};
use sqlx::SqliteConnection;

use super::unsigned;
use crate::sql_error::{During, Stored};

/// Makes a repository hold a blob, under a lease that a repeat renews. A condemned one is saved by this.
pub(super) async fn hold(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    repository: i64,
    digest: &Digest,
    size: u64,
) -> Result<(), StoreError> {
    const WRITE: &str = "write blob";
    sqlx::query("DELETE FROM condemned_blobs WHERE registry_id = ?1 AND digest = ?2")
        .bind(registry.0)
        .bind(digest.as_str())
        .execute(&mut *tx)
        .await
        .during(WRITE)?;
    sqlx::query(
        "INSERT INTO blobs (registry_id, digest, size, created) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )
    .bind(registry.0)
    .bind(digest.as_str())
    .bind(i64::try_from(size).stored(WRITE)?)
    .bind(now.as_micros())
    .execute(&mut *tx)
    .await
    .during(WRITE)?;
    sqlx::query(
        "INSERT INTO repository_blobs (repository_id, registry_id, digest, lease_until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET lease_until = max(lease_until, excluded.lease_until)",
    )
    .bind(repository)
    .bind(registry.0)
    .bind(digest.as_str())
    .bind(now.after(BLOB_LEASE).as_micros())
    .execute(tx)
    .await
    .map(drop)
    .during(WRITE)
}

/// The size of a blob that a repository holds.
pub(super) async fn size(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>, StoreError> {
    Ok(leased(connection, registry, repository, digest).await?.map(|(size, _)| size))
}

/// The size of a blob that a repository holds, and the end of its lease.
pub(super) async fn leased(
    connection: &mut SqliteConnection,
    registry: RegistryId,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<(u64, Timestamp)>, StoreError> {
    const READ: &str = "find blob";
    let found: Option<(i64, i64)> = sqlx::query_as(
        "SELECT blobs.size, lease_until FROM repositories
         JOIN repository_blobs ON repository_blobs.repository_id = repositories.id AND repository_blobs.digest = ?3
         JOIN blobs ON blobs.registry_id = ?1 AND blobs.digest = ?3
         WHERE repositories.registry_id = ?1 AND repositories.name = ?2",
    )
    .bind(registry.0)
    .bind(repository.as_str())
    .bind(digest.as_str())
    .fetch_optional(connection)
    .await
    .during(READ)?;
    found.map(|(size, lease)| Ok((unsigned(size, READ)?, Timestamp::from_micros(lease)))).transpose()
}

/// Begins the lease of a blob anew, if a repository still holds it, and says its size.
pub(super) async fn renew(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    now: Timestamp,
    repository: &RepositoryName,
    digest: &Digest,
) -> Result<Option<u64>, StoreError> {
    let size = size(tx, registry, repository, digest).await?;
    if size.is_some() {
        sqlx::query(
            "UPDATE repository_blobs SET lease_until = max(lease_until, ?4)
             WHERE digest = ?3 AND repository_id = (
                 SELECT id FROM repositories WHERE registry_id = ?1 AND name = ?2)",
        )
        .bind(registry.0)
        .bind(repository.as_str())
        .bind(digest.as_str())
        .bind(now.after(BLOB_LEASE).as_micros())
        .execute(tx)
        .await
        .during("renew blob")?;
    }
    Ok(size)
}
