//! That a task with much behind it goes in parts, and whole.

use std::collections::BTreeSet;

use cooper_engine::task::{EncodedChange, StepChange, Task, TaskChange};
use cooper_ports::tasks::{PutTask, TaskStore as _};
use cooper_types::{PrincipalName, RegistryName, Scope, Scopes, TaskName};
use sqlx::Row;

use super::*;
use crate::StoreOptions;

/// More of everything than one part takes.
const MUCH: &str = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
     INSERT INTO deliveries (registry_id, hook, delivery, received, outcomes, waits) SELECT ?1, '0123456789abcdef0123456789abcdef', 'done' || i, i, '[]', 0 FROM n;
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40)
     INSERT INTO deliveries (registry_id, hook, delivery, received, events, waits) SELECT ?1, '0123456789abcdef0123456789abcdef', 'new' || i, i, '[]', 1 FROM n;
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
     INSERT INTO source_events (registry_id, task, event, run_number) SELECT ?1, 'nightly', 'commit:' || i, i FROM n;
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
     INSERT INTO timer_firings (registry_id, task, timer, instant, at, run_number) SELECT ?1, 'nightly', 't1', i, i, i FROM n;
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
     INSERT INTO seen_references (registry_id, task, name) SELECT ?1, 'nightly', 'refs/heads/' || i FROM n;
     INSERT INTO repositories (id, registry_id, name, created) VALUES (1, ?1, 'app', 0);
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
     INSERT INTO tag_order (registry_id, task, line, repository_id, tag, run_number) SELECT ?1, 'nightly', 'l' || i, 1, 'v1', i FROM n;
     WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 700)
     INSERT INTO outside_tags (registry_id, task, image, line, moved_by) SELECT ?1, 'nightly', 'r.io/a:' || i, '', i FROM n";

#[tokio::test]
async fn a_task_with_much_behind_it_goes_in_parts() {
    let directory = tempfile::tempdir().unwrap();
    let registry_name = RegistryName::parse("localhost:5000").unwrap();
    let store = Store::open(directory.path(), StoreOptions { registry_name, clock: None }).await.unwrap();
    let registry = store.registry_id();
    let step = EncodedChange { text: Some("steps:\n  - cmd: busybox true\n".to_owned()), ..EncodedChange::default() };
    let change = TaskChange { step: Some(StepChange::Encoded(step)), ..TaskChange::default() };
    let (name, principal) = (TaskName::parse("nightly").unwrap(), PrincipalName::parse("ann").unwrap());
    let task = Task::new(name, principal, Scopes(vec![Scope::Run]), change, store.clock().now()).unwrap();
    let put = PutTask {
        task: task.clone(),
        secrets: Vec::new(),
        all_secrets: BTreeSet::new(),
        replaces: None,
        hooks: Vec::new(),
        registrations: Vec::new(),
    };
    store.put_task(put).await.unwrap();
    let filled: Result<(), StoreError> = store
        .write(async move |mut tx| {
            sqlx::query(
                "INSERT INTO hooks (registry_id, id, task, provider, sealed, created, waiting)
                 VALUES (?1, '0123456789abcdef0123456789abcdef', 'nightly', 'github', x'00', 0, 40)",
            )
            .bind(registry.0)
            .execute(&mut *tx)
            .await
            .during(DELETE)?;
            sqlx::query(MUCH).bind(registry.0).execute(&mut *tx).await.map(drop).during(DELETE)
        })
        .await;
    filled.unwrap();

    let created = task.created;
    let gone =
        store.write(async move |mut tx| part(&mut tx, registry, "nightly", created, (WAITING, LARGE_PART)).await);
    let gone: Result<Option<u64>, StoreError> = gone.await;
    assert_eq!(gone.unwrap(), Some(32));
    let count = async |sql: &'static str| -> i64 { sqlx::query_scalar(sql).fetch_one(store.readers()).await.unwrap() };
    assert_eq!(count("SELECT waiting FROM hooks").await, 8, "it is known how much waits, should nothing more go");

    let disabled = store.write(async move |mut tx| disable(&mut tx, registry, "nightly", created).await);
    let disabled: Result<bool, StoreError> = disabled.await;
    assert!(disabled.unwrap());
    let shown = store.find_task(&task.name).await.unwrap().unwrap().task;
    assert!(!shown.enabled && shown.generation == 2, "it does nothing, and says so, should nothing more go");

    assert!(store.delete_task(&task).await.unwrap());
    for sql in [
        "SELECT count(*) FROM tasks",
        "SELECT count(*) FROM hooks",
        "SELECT count(*) FROM deliveries",
        "SELECT count(*) FROM source_events",
        "SELECT count(*) FROM timer_firings",
        "SELECT count(*) FROM tag_order",
        "SELECT count(*) FROM outside_tags",
        "SELECT count(*) FROM seen_references",
    ] {
        assert_eq!(count(sql).await, 0, "{sql}");
    }
    assert!(!store.delete_task(&task).await.unwrap());

    for sql in PARTS.into_iter().chain([WAITING]) {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(explain).fetch_all(store.readers()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(!plan.iter().any(|step| step.starts_with("SCAN")), "{plan:#?}");
    }
}
