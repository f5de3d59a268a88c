//! The clean-up of waves that were over long ago, and of what is known of tags that nobody stands on any more. Each call takes
//! a bounded part, so that whoever else writes has a turn in between.

use cooper_ports::store_error::StoreError;
use cooper_types::{RegistryId, Timestamp};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::Store;
use crate::sql_error::During;

const EXPIRE: &str = "remove old waves";
const FORGET: &str = "forget tags of other registries";

/// The wave that was over first.
const OLDEST: &str = "SELECT number FROM waves INDEXED BY waves_by_end
     WHERE registry_id = ?1 AND finished IS NOT NULL AND finished <= ?2 ORDER BY finished LIMIT 1";

pub(super) async fn expire(
    tx: &mut SqliteConnection,
    registry: RegistryId,
    until: Timestamp,
    limit: u32,
) -> Result<u64, StoreError> {
    let (limit, mut gone) = (u64::from(limit), 0);
    while gone < limit {
        let oldest = sqlx::query_scalar(OLDEST).bind(registry.0).bind(until.as_micros());
        let Some(number): Option<i64> = oldest.fetch_optional(&mut *tx).await.during(EXPIRE)? else { break };
        // From here on nobody finds it: a part of it is nothing to show or to try again.
        let begun =
            sqlx::query("UPDATE waves SET forgotten = 1 WHERE registry_id = ?1 AND number = ?2 AND forgotten = 0");
        begun.bind(registry.0).bind(number).execute(&mut *tx).await.during(EXPIRE)?;
        let members = sqlx::query(
            "DELETE FROM wave_members WHERE registry_id = ?1 AND wave = ?2 AND member IN (
                 SELECT member FROM wave_members WHERE registry_id = ?1 AND wave = ?2 LIMIT ?3)",
        )
        .bind(registry.0)
        .bind(number)
        .bind(i64::try_from(limit - gone).unwrap_or(i64::MAX))
        .execute(&mut *tx)
        .await
        .during(EXPIRE)?;
        gone += members.rows_affected();
        if gone == limit {
            break;
        }
        let wave =
            sqlx::query("DELETE FROM waves WHERE registry_id = ?1 AND number = ?2").bind(registry.0).bind(number);
        gone += wave.execute(&mut *tx).await.during(EXPIRE)?.rows_affected();
    }
    Ok(gone)
}

/// Tags of other registries that nobody stands on.
const UNFOLLOWED: &str = "SELECT registry, repository, tag FROM remote_tags k WHERE registry_id = ?1 AND NOT EXISTS (
         SELECT 1 FROM base_edges e WHERE e.registry_id = k.registry_id AND e.registry = k.registry
            AND e.repository = k.repository AND e.tag = k.tag)
     LIMIT ?2";

/// Looks for them where nobody waits for that: all tags are looked at.
pub(super) async fn forget_remote_tags(store: &Store, limit: u32) -> Result<u64, StoreError> {
    let registry = store.registry_id();
    let rows = sqlx::query(UNFOLLOWED).bind(registry.0).bind(limit).fetch_all(store.readers()).await.during(FORGET)?;
    if rows.is_empty() {
        return Ok(0);
    }
    store
        .write(async move |mut tx| {
            let mut gone = 0;
            for row in &rows {
                gone += forget(&mut tx, registry, row).await?;
            }
            Ok(gone)
        })
        .await
}

/// Forgets one, unless somebody stands on it by now.
async fn forget(tx: &mut SqliteConnection, registry: RegistryId, row: &SqliteRow) -> Result<u64, StoreError> {
    let text = |name| row.try_get::<&str, _>(name).during(FORGET);
    let gone = sqlx::query(
        "DELETE FROM remote_tags WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4
           AND NOT EXISTS (SELECT 1 FROM base_edges
                           WHERE registry_id = ?1 AND registry = ?2 AND repository = ?3 AND tag = ?4)",
    )
    .bind(registry.0)
    .bind(text("registry")?)
    .bind(text("repository")?)
    .bind(text("tag")?)
    .execute(tx)
    .await
    .during(FORGET)?;
    Ok(gone.rows_affected())
}
