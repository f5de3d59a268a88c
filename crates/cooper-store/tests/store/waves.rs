//! What stands on images, as far as it can be read.

use std::collections::BTreeSet;

use cooper_engine::task::{EncodedChange, StepChange, Task, TaskChange};
use cooper_engine::wave::ImageTag;
use cooper_ports::store_error::StoreError;
use cooper_ports::tasks::{PutTask, TaskStore as _};
use cooper_ports::waves::{BaseGraph, WaveStore as _};
use cooper_types::{Digest, RepositoryName, Scope, Scopes, Tag, TaskName};

use crate::fixture::{Fixture, principal};

async fn put(fixture: &Fixture, name: &str) {
    let step = EncodedChange { text: Some("steps: []".to_owned()), ..EncodedChange::default() };
    let change = TaskChange { step: Some(StepChange::Encoded(step)), ..TaskChange::default() };
    let (name, scopes) = (TaskName::parse(name).unwrap(), Scopes(vec![Scope::Run]));
    let task = Task::new(name, principal("alice"), scopes, change, fixture.store.clock().now()).unwrap();
    let put = PutTask {
        task,
        secrets: Vec::new(),
        all_secrets: BTreeSet::new(),
        replaces: None,
        hooks: Vec::new(),
        registrations: Vec::new(),
    };
    fixture.store.put_task(put).await.unwrap();
}

#[tokio::test]
async fn a_task_that_can_not_be_read_keeps_no_other_from_its_wave() {
    let fixture = Fixture::new().await;
    for name in ["broken", "other", "sound"] {
        put(&fixture, name).await;
    }
    let unbuilt = async || fixture.store.unbuilt_tasks(10).await.unwrap();
    assert_eq!(unbuilt().await.len(), 3);
    fixture
        .store
        .write(async move |mut tx| {
            for sql in [
                "INSERT INTO task_graph (registry_id, task, run_number, started) SELECT registry_id, task, 1, 0 FROM tasks",
                "UPDATE tasks SET state = '{\"name\": 7}' WHERE task = 'broken'",
            ] {
                sqlx::query(sql).execute(&mut *tx).await.unwrap();
            }
            sqlx::query(
                "INSERT INTO base_edges (registry_id, task, kind, registry, repository, tag, digest)
                 SELECT registry_id, task, 'runtime', '', 'base', '1', ?1 FROM tasks",
            )
            .bind(Digest::sha256(b"one").as_str())
            .execute(&mut *tx)
            .await
            .unwrap();
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    let image =
        ImageTag { registry: None, repository: RepositoryName::parse("base").unwrap(), tag: Tag::parse("1").unwrap() };
    let BaseGraph { graph, unreadable } = fixture.store.base_graph(&[image]).await.unwrap();
    let tasks: Vec<_> = graph.tasks.iter().map(|task| (task.name.as_str(), task.bases.len())).collect();
    assert_eq!(tasks, [("other", 1), ("sound", 1)]);
    let [(task, StoreError::Corrupt { .. })] = &unreadable[..] else { panic!("{unreadable:?}") };
    assert_eq!(task, "broken");
    put(&fixture, "Not-Run").await;
    assert_eq!(unbuilt().await, [TaskName::parse("Not-Run").unwrap()]);
    fixture
        .store
        .write(async move |mut tx| {
            let unnamed = "UPDATE tasks SET state = json_set(state, '$.name', 7) WHERE task = 'not-run'";
            sqlx::query(unnamed).execute(&mut *tx).await.unwrap();
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    assert_eq!(unbuilt().await, [TaskName::parse("not-run").unwrap()], "by its key");
}
