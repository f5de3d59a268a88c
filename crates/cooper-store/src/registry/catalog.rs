//! Repositories, tags and manifests in pages.

use async_trait::async_trait;
use cooper_ports::registry::{MAX_LISTED_TAGS, ManifestDetails, RegistryCatalog, RepositoryDetails, TagDetails};
use cooper_ports::store_error::StoreError;
use cooper_types::{Digest, RepositoryName, Tag, Timestamp};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::unsigned;
use crate::Store;
use crate::sql_error::{During, Stored};

const LIST: &str = "list what the registry holds";
/// After so many bytes of manifests a page of them ends: what they refer to is in the answer, and no more than they hold.
const PAGE_BYTES: i64 = 4 << 20;

#[async_trait]
impl RegistryCatalog for Store {
    async fn repositories(&self, after: Option<&str>, limit: u32) -> Result<Vec<RepositoryName>, StoreError> {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM repositories
             WHERE registry_id = ?1 AND name > ?2
               AND EXISTS (SELECT 1 FROM manifests WHERE manifests.repository_id = repositories.id)
             ORDER BY name LIMIT ?3",
        )
        .bind(self.registry_id().0)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .during(LIST)?;
        names.iter().map(|name| RepositoryName::parse(name).stored(LIST)).collect()
    }

    async fn repository_details(&self, name: &RepositoryName) -> Result<Option<RepositoryDetails>, StoreError> {
        let row = sqlx::query(
            "SELECT created,
                 (SELECT max(updated) FROM manifests WHERE repository_id = repositories.id) AS updated,
                 (SELECT count(*) FROM manifests WHERE repository_id = repositories.id) AS manifests,
                 (SELECT count(*) FROM tags WHERE repository_id = repositories.id) AS tags
             FROM repositories WHERE registry_id = ?1 AND name = ?2",
        )
        .bind(self.registry_id().0)
        .bind(name.as_str())
        .fetch_optional(self.readers())
        .await
        .during(LIST)?;
        let Some(row) = row else { return Ok(None) };
        let manifests = number(&row, "manifests")?;
        if manifests == 0 {
            return Ok(None);
        }
        let (created, updated, tags) = (time(&row, "created")?, time(&row, "updated")?, number(&row, "tags")?);
        Ok(Some(RepositoryDetails { name: name.clone(), created, updated, manifests, tags }))
    }

    async fn tag_details(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<TagDetails>, StoreError> {
        let rows = sqlx::query(
            "SELECT tags.name, tags.digest, tags.created, tags.pushed FROM repositories
             JOIN tags ON tags.repository_id = repositories.id AND tags.name > ?3
             WHERE repositories.registry_id = ?1 AND repositories.name = ?2
             ORDER BY tags.name LIMIT ?4",
        )
        .bind(self.registry_id().0)
        .bind(repository.as_str())
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .during(LIST)?;
        let details = |row: &SqliteRow| {
            Ok(TagDetails {
                tag: Tag::parse(row.try_get("name").during(LIST)?).stored(LIST)?,
                digest: Digest::parse(row.try_get("digest").during(LIST)?).stored(LIST)?,
                created: time(row, "created")?,
                updated: time(row, "pushed")?,
            })
        };
        rows.iter().map(details).collect()
    }

    async fn manifest_details(
        &self,
        repository: &RepositoryName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<ManifestDetails>, StoreError> {
        let rows = sqlx::query(
            "WITH page AS (
                 SELECT m.repository_id, m.digest, m.media_type, m.created, m.updated, length(m.payload) AS length
                 FROM repositories
                 JOIN manifests AS m ON m.repository_id = repositories.id AND m.digest > ?3
                 WHERE repositories.registry_id = ?1 AND repositories.name = ?2
                 ORDER BY m.digest LIMIT ?4
             ), m AS (
                 SELECT *, sum(length) OVER (ORDER BY digest) - length AS before FROM page
             )
             SELECT m.digest, m.media_type, m.created, m.updated,
                 m.length + coalesce((
                     SELECT sum(blobs.size) FROM manifest_references AS r
                     JOIN blobs ON blobs.registry_id = ?1 AND blobs.digest = r.digest
                     WHERE r.repository_id = m.repository_id AND r.manifest = m.digest
                       AND r.kind IN ('blob', 'foreign_blob')), 0) AS size,
                 (SELECT json_group_array(name) FROM (
                     SELECT name FROM tags WHERE tags.repository_id = m.repository_id AND tags.digest = m.digest
                     ORDER BY name LIMIT ?5)) AS tags,
                 (SELECT json_group_array(digest) FROM (
                     SELECT digest FROM manifest_references AS r
                     WHERE r.repository_id = m.repository_id AND r.manifest = m.digest AND r.kind = 'manifest'
                     ORDER BY digest)) AS manifests,
                 (SELECT digest FROM manifest_references AS r
                  WHERE r.repository_id = m.repository_id AND r.manifest = m.digest AND r.kind = 'subject'
                  ORDER BY digest LIMIT 1) AS subject,
                 EXISTS (SELECT 1 FROM staged_tags
                         WHERE staged_tags.repository_id = m.repository_id AND staged_tags.digest = m.digest) AS staged
             FROM m WHERE m.before < ?6 ORDER BY m.digest",
        )
        .bind(self.registry_id().0)
        .bind(repository.as_str())
        .bind(after.unwrap_or_default())
        .bind(limit)
        .bind(i64::try_from(MAX_LISTED_TAGS).unwrap_or(i64::MAX))
        .bind(PAGE_BYTES)
        .fetch_all(self.readers())
        .await
        .during(LIST)?;
        rows.iter().map(manifest).collect()
    }
}

fn manifest(row: &SqliteRow) -> Result<ManifestDetails, StoreError> {
    let list = |name| serde_json::from_str::<Vec<String>>(row.try_get(name).during(LIST)?).stored(LIST);
    let digest = |text: &str| Digest::parse(text).stored(LIST);
    Ok(ManifestDetails {
        digest: digest(row.try_get("digest").during(LIST)?)?,
        media_type: row.try_get("media_type").during(LIST)?,
        size: number(row, "size")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
        tags: list("tags")?.iter().map(|tag| Tag::parse(tag).stored(LIST)).collect::<Result<_, _>>()?,
        manifests: list("manifests")?.iter().map(|text| digest(text)).collect::<Result<_, _>>()?,
        subject: row.try_get::<Option<&str>, _>("subject").during(LIST)?.map(digest).transpose()?,
        is_staged: row.try_get("staged").during(LIST)?,
    })
}

fn number(row: &SqliteRow, name: &str) -> Result<u64, StoreError> {
    unsigned(row.try_get(name).during(LIST)?, LIST)
}

fn time(row: &SqliteRow, name: &str) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_micros(row.try_get(name).during(LIST)?))
}
