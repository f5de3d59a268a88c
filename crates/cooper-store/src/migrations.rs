//! Forward-only migrations of the schema: what they are, and the runner that applies the missing ones.
//!
//! A migration that was released is never edited; its checksum is in every database it was applied to.

use cooper_types::{Digest, Timestamp};
use sqlx::{Connection, Row, SqliteConnection};

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// Numbers run from 1 without a hole.
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

macro_rules! migration {
    ($version:literal, $file:literal) => {
        Migration { version: $version, name: $file, sql: include_str!(concat!("../../../schemas/sqlite/", $file)) }
    };
}

/// All migrations of this binary, oldest first.
pub(crate) const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001_init.sql"),
    migration!(2, "0002_registry.sql"),
    migration!(3, "0003_run_agents.sql"),
    migration!(4, "0004_agents.sql"),
    migration!(5, "0005_sources.sql"),
    migration!(6, "0006_secrets.sql"),
    migration!(7, "0007_collection.sql"),
    migration!(8, "0008_lock.sql"),
    migration!(9, "0009_packed_logs.sql"),
    migration!(10, "0010_tasks.sql"),
    migration!(11, "0011_attempts_manifests.sql"),
    migration!(12, "0012_webhooks.sql"),
    migration!(13, "0013_waves.sql"),
    migration!(14, "0014_hooks.sql"),
    migration!(15, "0015_tag_order.sql"),
    migration!(16, "0016_untrusted_pools.sql"),
    migration!(17, "0017_commit_statuses.sql"),
    migration!(18, "0018_remote_tags.sql"),
    migration!(19, "0019_task_counts.sql"),
    migration!(20, "0020_bounded_hooks.sql"),
    migration!(21, "0021_outbox_targets.sql"),
    migration!(22, "0022_wave_origins.sql"),
    migration!(23, "0023_first_deliveries.sql"),
    migration!(24, "0024_hook_registrations.sql"),
    migration!(25, "0025_seen_references.sql"),
    migration!(26, "0026_notifications.sql"),
    migration!(27, "0027_sealed_endpoints.sql"),
    migration!(28, "0028_tag_movers.sql"),
    migration!(29, "0029_freed_members.sql"),
    migration!(30, "0030_moved_tags.sql"),
    migration!(31, "0031_source_looks.sql"),
    migration!(32, "0032_gone_hooks.sql"),
    migration!(33, "0033_found_by_index.sql"),
    migration!(34, "0034_hosts_of_statuses.sql"),
    migration!(35, "0035_outside_tags.sql"),
    migration!(36, "0036_told_statuses.sql"),
];

/// Why the schema could not be brought to this binary's version.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// A newer binary has been here.
    #[error("database has schema {found} and this binary knows schemas up to {known}; run the newer cooper again")]
    Newer {
        /// The database's version.
        found: i64,
        /// This binary's version.
        known: i64,
    },
    /// A migration differs from the one that was applied.
    #[error("migration {version} is not the one that made this database; it was made by an unreleased cooper")]
    Changed {
        /// The migration's number.
        version: i64,
    },
    /// A migration failed and was rolled back.
    #[error("migration {name} failed and was rolled back")]
    Failed {
        /// The migration's file name.
        name: &'static str,
        /// What the database said.
        #[source]
        source: sqlx::Error,
    },
    /// The list of applied migrations can't be read.
    #[error("schema version of the database is not readable")]
    Unreadable(#[source] sqlx::Error),
}

/// Applies what `migrations` has and the database has not, each in one transaction with its record.
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &'static [Migration],
    now: Timestamp,
) -> Result<(), MigrationError> {
    let applied = applied(connection).await.map_err(MigrationError::Unreadable)?;
    let known = migrations.last().map_or(0, |migration| migration.version);
    if let Some((found, _)) = applied.iter().rfind(|(version, _)| *version > known) {
        return Err(MigrationError::Newer { found: *found, known });
    }
    for migration in migrations {
        let checksum = Digest::sha256(migration.sql.as_bytes()).to_string();
        match applied.iter().find(|(version, _)| *version == migration.version) {
            Some((_, recorded)) if *recorded == checksum => {}
            Some(_) => return Err(MigrationError::Changed { version: migration.version }),
            None => apply(connection, migration, &checksum, now)
                .await
                .map_err(|source| MigrationError::Failed { name: migration.name, source })?,
        }
    }
    Ok(())
}

/// Checks that a database's schema is one that this binary knows, perhaps an older one; changes nothing.
pub(crate) async fn check(
    connection: &mut SqliteConnection,
    migrations: &'static [Migration],
) -> Result<(), MigrationError> {
    let rows = sqlx::query("SELECT version, checksum FROM schema_migrations ORDER BY version");
    let rows = rows.fetch_all(&mut *connection).await.map_err(MigrationError::Unreadable)?;
    let known = migrations.last().map_or(0, |migration| migration.version);
    for row in rows {
        let found: i64 = row.try_get(0).map_err(MigrationError::Unreadable)?;
        let recorded: String = row.try_get(1).map_err(MigrationError::Unreadable)?;
        let Some(migration) = migrations.iter().find(|migration| migration.version == found) else {
            return Err(MigrationError::Newer { found, known });
        };
        if recorded != Digest::sha256(migration.sql.as_bytes()).as_str() {
            return Err(MigrationError::Changed { version: found });
        }
    }
    Ok(())
}

async fn applied(connection: &mut SqliteConnection) -> Result<Vec<(i64, String)>, sqlx::Error> {
    sqlx::query(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied INTEGER NOT NULL
         ) STRICT",
    )
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query("SELECT version, checksum FROM schema_migrations ORDER BY version");
    let rows = rows.fetch_all(&mut *connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

async fn apply(
    connection: &mut SqliteConnection,
    migration: &Migration,
    checksum: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(migration.sql).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO schema_migrations (version, name, checksum, applied) VALUES (?1, ?2, ?3, ?4)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(checksum)
        .bind(now.as_micros())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;

    #[tokio::test]
    async fn runs_from_before_requests_were_kept_have_none() {
        let now = Timestamp::from_micros(1);
        let mut database = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        migrate(&mut database, &MIGRATIONS[..6], now).await.unwrap();
        let rows = "INSERT INTO registries (id, name, run_counter, created) VALUES (1, 'localhost:5000', 1, 0);
             INSERT INTO principals (registry_id, name, created) VALUES (1, 'alice', 0);
             INSERT INTO runs (registry_id, number, status, run_type, principal, platform, context_id, state, generation,
                               created, finished, updated, pool)
             VALUES (1, 1, 'Succeeded', 'QuickBuild', 'alice', 'linux/amd64', 'c', '{}', 1, 0, 1, 1, 'default');";
        sqlx::raw_sql(rows).execute(&mut database).await.unwrap();
        migrate(&mut database, MIGRATIONS, now).await.unwrap();
        let requests: i64 =
            sqlx::query_scalar("SELECT count(*) FROM run_requests").fetch_one(&mut database).await.unwrap();
        let indexed = "SELECT count(*) FROM runs INDEXED BY runs_by_context WHERE registry_id = 1 AND context_id = 'c'";
        let runs: i64 = sqlx::query_scalar(indexed).fetch_one(&mut database).await.unwrap();
        assert_eq!((requests, runs), (0, 1));
    }

    #[tokio::test]
    async fn what_waited_in_an_older_outbox_is_found_by_its_targets() {
        let now = Timestamp::from_micros(1);
        let mut database = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        let older = MIGRATIONS.iter().position(|one| one.name == "0021_outbox_targets.sql").unwrap();
        migrate(&mut database, &MIGRATIONS[..older], now).await.unwrap();
        let rows = "INSERT INTO registries (id, name, run_counter, created) VALUES (1, 'localhost:5000', 1, 0);
             INSERT INTO webhooks (registry_id, name, host, sealed, actions, scope, enabled, set_by, created, generation)
             VALUES (1, 'Hook', 'h.example', x'00', '[]', '', 1, 'ann', 0, 1);
             INSERT INTO outbox (registry_id, target, event, action, subject, body, sealed, queued, state, at)
             VALUES (1, 'webhook/Hook', 'a', 'ping', '', '{}', NULL, 0, 'delivered', 5),
                    (1, 'webhook/hook', 'b', 'ping', '', '{}', NULL, 0, 'trying', 6),
                    (1, 'webhook/Hook', 'c', 'ping', '', '{}', NULL, 0, 'due', 7),
                    (1, 'update-trigger/t', 'd', 'image_update', '', '{}', x'01', 0, 'due', 8),
                    (1, 'webhook/gone', 'e', 'ping', '', '{}', NULL, 0, 'failed', 9);";
        sqlx::raw_sql(rows).execute(&mut database).await.unwrap();
        migrate(&mut database, MIGRATIONS, now).await.unwrap();
        let query =
            "SELECT lower(target) || ' ' || host || ' ' || coalesce(seq, '-') || ' ' || coalesce(at, '-') AS text
                     FROM outbox_targets ORDER BY text";
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut database).await.unwrap();
        assert_eq!(
            rows,
            ["update-trigger/t update-trigger/t 4 8", "webhook/gone webhook/gone - -", "webhook/hook h.example 2 6"]
        );
    }

    #[tokio::test]
    async fn branches_that_were_looked_at_are_known_under_their_full_names() {
        let now = Timestamp::from_micros(1);
        let mut database = SqliteConnectOptions::new().in_memory(true).connect().await.unwrap();
        let older = MIGRATIONS.iter().position(|one| one.name == "0025_seen_references.sql").unwrap();
        migrate(&mut database, &MIGRATIONS[..older], now).await.unwrap();
        // One that is called like another with its folder.
        let rows = "INSERT INTO registries (id, name, run_counter, created) VALUES (1, 'localhost:5000', 1, 0);
             INSERT INTO principals (registry_id, name, created) VALUES (1, 'alice', 0);
             INSERT INTO tasks (registry_id, task, state, generation, principal) VALUES (1, 'nightly', '{}', 1, 'alice');
             INSERT INTO source_refs (registry_id, task, branch, done)
             VALUES (1, 'nightly', 'main', 'a'), (1, 'nightly', 'refs/heads/main', 'b');";
        sqlx::raw_sql(rows).execute(&mut database).await.unwrap();
        migrate(&mut database, MIGRATIONS, now).await.unwrap();
        let query = "SELECT name || ' ' || coalesce(done, '-') FROM seen_references ORDER BY name";
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut database).await.unwrap();
        assert_eq!(rows, ["refs/heads -", "refs/heads/main a", "refs/heads/refs/heads/main b"]);
    }
}
