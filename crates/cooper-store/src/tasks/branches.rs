//! Where the branches of tasks' repositories were at the last look.

use async_trait::async_trait;
use cooper_engine::trigger::name::{CommitId, RefName};
use cooper_ports::branches::{BranchStore, SeenBranch};
use cooper_ports::store_error::StoreError;
use cooper_types::TaskName;
use sqlx::Row;

use crate::Store;
use crate::sql_error::{During, Stored};

const READ: &str = "read branches";
const WRITE: &str = "write branches";

#[async_trait]
impl BranchStore for Store {
    async fn seen_branches(&self, task: &TaskName) -> Result<Vec<SeenBranch>, StoreError> {
        let rows = sqlx::query("SELECT branch, done, seen FROM source_refs WHERE registry_id = ?1 AND task = ?2")
            .bind(self.registry_id().0)
            .bind(task.key())
            .fetch_all(self.readers())
            .await
            .during(READ)?;
        let branches = rows.iter().map(|row| {
            let commit = |column: &str| {
                let text: Option<&str> = row.try_get(column).during(READ)?;
                text.map(|text| CommitId::parse(text).stored(READ)).transpose()
            };
            Ok(SeenBranch {
                branch: RefName::parse(row.try_get("branch").during(READ)?).stored(READ)?,
                done: commit("done")?,
                seen: commit("seen")?,
            })
        });
        branches.collect()
    }

    async fn put_branches(
        &self,
        task: &TaskName,
        branches: Vec<SeenBranch>,
        gone: Vec<RefName>,
    ) -> Result<(), StoreError> {
        let (registry, key) = (self.registry_id(), task.key());
        self.write(async move |mut tx| {
            for branch in &branches {
                sqlx::query(
                    "INSERT INTO source_refs (registry_id, task, branch, done, seen)
                     SELECT registry_id, task, ?3, ?4, ?5 FROM tasks WHERE registry_id = ?1 AND task = ?2
                     ON CONFLICT (registry_id, task, branch) DO UPDATE SET done = excluded.done, seen = excluded.seen",
                )
                .bind(registry.0)
                .bind(&key)
                .bind(branch.branch.as_str())
                .bind(branch.done.as_ref().map(CommitId::as_str))
                .bind(branch.seen.as_ref().map(CommitId::as_str))
                .execute(&mut *tx)
                .await
                .during(WRITE)?;
            }
            for branch in &gone {
                sqlx::query("DELETE FROM source_refs WHERE registry_id = ?1 AND task = ?2 AND branch = ?3")
                    .bind(registry.0)
                    .bind(&key)
                    .bind(branch.as_str())
                    .execute(&mut *tx)
                    .await
                    .during(WRITE)?;
            }
            Ok(())
        })
        .await
    }

    async fn branch_dealt_with(&self, task: &TaskName, branch: &RefName, commit: &CommitId) -> Result<(), StoreError> {
        let (registry, key, branch, commit) = (self.registry_id(), task.key(), branch.clone(), commit.clone());
        self.write(async move |mut tx| {
            sqlx::query(
                "INSERT INTO source_refs (registry_id, task, branch, done)
                 SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM source_refs WHERE registry_id = ?1 AND task = ?2)
                 ON CONFLICT (registry_id, task, branch) DO UPDATE SET done = excluded.done, seen = NULL",
            )
            .bind(registry.0)
            .bind(&key)
            .bind(branch.as_str())
            .bind(commit.as_str())
            .execute(&mut *tx)
            .await
            .map(drop)
            .during(WRITE)
        })
        .await
    }
}
