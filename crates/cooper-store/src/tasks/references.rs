//! Where tasks' repositories were at the last look, and how that went.
//!
//! A row has a reference's full name, `refs/pull/NUMBER` for a pull request; what has been looked at has one, too: the
//! folder that its names are in.

use std::collections::BTreeMap;

use async_trait::async_trait;
use cooper_engine::task::Task;
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_ports::references::{
    ChangedReference, LookRecord, LookWay, Reference, ReferenceKind, ReferenceStore, SeenAt, SeenReferences,
};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::NewRefusal;
use cooper_types::{RegistryId, TaskName, Timestamp};
use sqlx::{Row, SqliteConnection};

use crate::sql_error::{During, Stored, UnknownValue};
use crate::{Store, waves};

const READ: &str = "read references";
const WRITE: &str = "write references";

fn folder(kind: ReferenceKind) -> &'static str {
    match kind {
        ReferenceKind::Branches => "refs/heads",
        ReferenceKind::Tags => "refs/tags",
        ReferenceKind::PullRequests => "refs/pull",
    }
}

fn full_name(reference: &Reference) -> String {
    let folder = folder(reference.kind());
    match reference {
        Reference::Branch(name) | Reference::Tag(name) => format!("{folder}/{name}"),
        Reference::PullRequest(number) => format!("{folder}/{number}"),
    }
}

/// What a row is about.
enum About {
    /// A kind that has been looked at.
    Kind(ReferenceKind),
    Reference(Reference),
}

fn about(name: &str) -> Result<About, StoreError> {
    for kind in ReferenceKind::ALL {
        let Some(rest) = name.strip_prefix(folder(kind)) else { continue };
        if rest.is_empty() {
            return Ok(About::Kind(kind));
        }
        let Some(rest) = rest.strip_prefix('/') else { continue };
        return Ok(About::Reference(match kind {
            ReferenceKind::Branches => Reference::Branch(RefName::parse(rest).stored(READ)?),
            ReferenceKind::Tags => Reference::Tag(RefName::parse(rest).stored(READ)?),
            ReferenceKind::PullRequests => Reference::PullRequest(rest.parse().stored(READ)?),
        }));
    }
    Err(UnknownValue::new("reference", name)).stored(READ)
}

#[async_trait]
impl ReferenceStore for Store {
    async fn seen_references(&self, task: &TaskName) -> Result<SeenReferences, StoreError> {
        let rows = sqlx::query("SELECT name, done, seen FROM seen_references WHERE registry_id = ?1 AND task = ?2")
            .bind(self.registry_id().0)
            .bind(task.key())
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let mut known = SeenReferences::default();
        for row in &rows {
            let commit = |column: &str| {
                let text: Option<&str> = row.try_get(column).during(READ)?;
                text.map(|text| CommitId::parse(text).stored(READ)).transpose()
            };
            match about(row.try_get("name").during(READ)?)? {
                About::Kind(kind) => {
                    known.looked.insert(kind);
                }
                About::Reference(reference) => {
                    known.at.insert(reference, SeenAt { done: commit("done")?, seen: commit("seen")? });
                }
            }
        }
        Ok(known)
    }

    async fn put_references(
        &self,
        task: &Task,
        kind: ReferenceKind,
        changed: Vec<ChangedReference>,
        gone: Vec<Reference>,
    ) -> Result<(), StoreError> {
        let (registry, key) = (self.registry_id(), task.name.key());
        let (created, generation) = (task.created, task.generation);
        let row = |changed: &ChangedReference| {
            let text = |commit: &Option<CommitId>| commit.as_ref().map(ToString::to_string);
            let ChangedReference { reference, was, at } = changed;
            (full_name(reference), text(&at.done), text(&at.seen), text(was))
        };
        let looked = (folder(kind).to_owned(), None, None, None);
        let rows: Vec<_> = std::iter::once(looked).chain(changed.iter().map(row)).collect();
        let rows = serde_json::to_string(&rows).stored(WRITE)?;
        let gone: Vec<_> = gone.iter().map(full_name).collect();
        let gone = serde_json::to_string(&gone).stored(WRITE)?;
        self.write(async move |mut tx| {
            let found = super::find(&mut tx, registry, &key).await?;
            if found.is_none_or(|task| (task.created, task.generation) != (created, generation)) {
                return Ok(());
            }
            sqlx::query(
                "INSERT INTO seen_references (registry_id, task, name, done, seen)
                 SELECT t.registry_id, t.task, r.value ->> 0, r.value ->> 1, r.value ->> 2
                 FROM tasks t CROSS JOIN json_each(?3) r WHERE t.registry_id = ?1 AND t.task = ?2
                   AND NOT EXISTS (SELECT 1 FROM seen_references s WHERE s.registry_id = ?1 AND s.task = ?2
                                     AND s.name = r.value ->> 0 AND s.done IS NOT r.value ->> 3)
                 ON CONFLICT (registry_id, task, name) DO UPDATE SET done = excluded.done, seen = excluded.seen",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(&rows)
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            sqlx::query(
                "DELETE FROM seen_references WHERE registry_id = ?1 AND task = ?2
                   AND name IN (SELECT value FROM json_each(?3))",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(&gone)
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(WRITE)
        })
        .await
    }

    async fn forget_references(&self, task: &TaskName, kind: ReferenceKind) -> Result<(), StoreError> {
        let (registry, key, folder) = (self.registry_id(), task.key(), folder(kind));
        self.write(async move |mut tx| {
            sqlx::query(
                "DELETE FROM seen_references WHERE registry_id = ?1 AND task = ?2
                   AND (name = ?3 OR name > ?3 || '/' AND name < ?3 || '0')",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(folder)
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(WRITE)
        })
        .await
    }

    async fn reference_dealt_with(
        &self,
        task: &TaskName,
        reference: &Reference,
        at: &CommitId,
    ) -> Result<(), StoreError> {
        let (registry, key, name, at) = (self.registry_id(), task.key(), full_name(reference), at.clone());
        let folder = folder(reference.kind());
        self.write(async move |mut tx| {
            sqlx::query(
                "INSERT INTO seen_references (registry_id, task, name, done)
                 SELECT ?1, ?2, ?3, ?4
                 WHERE EXISTS (SELECT 1 FROM seen_references WHERE registry_id = ?1 AND task = ?2 AND name = ?5)
                 ON CONFLICT (registry_id, task, name) DO UPDATE SET done = excluded.done, seen = NULL",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(&name)
            .bind(at.as_str())
            .bind(folder)
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(WRITE)
        })
        .await
    }

    async fn put_look(
        &self,
        task: &Task,
        way: LookWay,
        look: LookRecord,
        refusals: Vec<NewRefusal>,
    ) -> Result<(), StoreError> {
        let (registry, key, created) = (self.registry_id(), task.name.key(), task.created.as_micros());
        let generation = i64::try_from(task.generation).unwrap_or(i64::MAX);
        self.write(async move |mut tx| {
            let kept = sqlx::query(
                "INSERT INTO source_looks (registry_id, task, way, at, next, fault)
                 SELECT registry_id, task, ?3, ?4, ?5, ?6 FROM tasks
                 WHERE registry_id = ?1 AND task = ?2 AND generation = ?7 AND state ->> '$.created' = ?8
                 ON CONFLICT (registry_id, task, way) DO UPDATE
                 SET at = excluded.at, next = excluded.next, fault = excluded.fault",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(way.as_str())
            .bind(look.at.as_micros())
            .bind(look.next.as_micros())
            .bind(&look.fault)
            .bind(generation)
            .bind(created)
            .execute(&mut *tx)
            .await
            .during(WRITE)?;
            match kept.rows_affected() {
                0 => Ok(()),
                _ => waves::refusals::write(&mut tx, registry, look.at, &refusals).await,
            }
        })
        .await
    }

    async fn looks(&self, task: &TaskName) -> Result<BTreeMap<LookWay, LookRecord>, StoreError> {
        let rows = sqlx::query("SELECT way, at, next, fault FROM source_looks WHERE registry_id = ?1 AND task = ?2")
            .bind(self.registry_id().0)
            .bind(task.key())
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let looks = rows.iter().map(|row| {
            let name: &str = row.try_get("way").during(READ)?;
            let way = LookWay::ALL.into_iter().find(|way| way.as_str() == name);
            let way = way.ok_or_else(|| UnknownValue::new("way of looking", name)).stored(READ)?;
            let time = |column: &str| row.try_get(column).map(Timestamp::from_micros).during(READ);
            Ok((way, LookRecord { at: time("at")?, next: time("next")?, fault: row.try_get("fault").during(READ)? }))
        });
        looks.collect()
    }
}

/// A task has another repository: what is there is not new.
pub(super) async fn forget(tx: &mut SqliteConnection, registry: RegistryId, task: &str) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM seen_references WHERE registry_id = ?1 AND task = ?2",
        "DELETE FROM source_looks WHERE registry_id = ?1 AND task = ?2",
    ] {
        sqlx::query(statement).bind(registry.0).bind(task).execute(&mut *tx).await.during(WRITE)?;
    }
    Ok(())
}
