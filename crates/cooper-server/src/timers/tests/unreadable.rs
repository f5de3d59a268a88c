//! Timers of tasks that can't be read, beside others'.

use async_trait::async_trait;
use cooper_engine::task::{Task, TaskEndpoint};
use cooper_ports::runs::SealedSecret;
use cooper_ports::tasks::{Fired, PutTask, PutTaskError, TaskRecord, TaskStore};
use cooper_types::{SourceHost, TaskName};

use super::*;

/// A store that can't read one of its tasks.
struct Torn {
    store: Arc<dyn TaskStore>,
    torn: TaskName,
}

#[async_trait]
impl TaskStore for Torn {
    async fn put_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError> {
        self.store.put_task(put).await
    }

    async fn try_task(&self, put: PutTask) -> Result<TaskRecord, PutTaskError> {
        self.store.try_task(put).await
    }

    async fn task(&self, name: &TaskName) -> Result<Option<Task>, StoreError> {
        match *name == self.torn {
            true => Err(StoreError::Newer { operation: "read tasks" }),
            false => self.store.task(name).await,
        }
    }

    async fn find_task(&self, name: &TaskName) -> Result<Option<TaskRecord>, StoreError> {
        self.store.find_task(name).await
    }

    async fn list_tasks(&self, after: Option<&TaskName>, limit: u32) -> Result<Vec<TaskRecord>, StoreError> {
        self.store.list_tasks(after, limit).await
    }

    async fn clear_endpoints(&self, after: Option<&TaskName>, limit: u32) -> Result<Vec<TaskName>, StoreError> {
        self.store.clear_endpoints(after, limit).await
    }

    async fn seal_endpoint(&self, task: &Task, endpoint: &TaskEndpoint) -> Result<bool, StoreError> {
        self.store.seal_endpoint(task, endpoint).await
    }

    async fn delete_task(&self, task: &Task) -> Result<bool, StoreError> {
        self.store.delete_task(task).await
    }

    async fn task_secrets(&self, task: &Task) -> Result<Vec<SealedSecret>, StoreError> {
        self.store.task_secrets(task).await
    }

    async fn put_task_credential(
        &self,
        task: &Task,
        host: &SourceHost,
        username: String,
        sealed: Vec<u8>,
    ) -> Result<bool, StoreError> {
        self.store.put_task_credential(task, host, username, sealed).await
    }

    async fn delete_task_credential(&self, task: &Task, host: &SourceHost) -> Result<bool, StoreError> {
        self.store.delete_task_credential(task, host).await
    }

    async fn due_timers(&self, until: Timestamp, limit: u32) -> Result<Vec<Instant>, StoreError> {
        self.store.due_timers(until, limit).await
    }

    async fn next_timer(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.store.next_timer(after).await
    }

    async fn pass_instant(&self, firing: &Firing, why_not: &str) -> Result<bool, StoreError> {
        self.store.pass_instant(firing, why_not).await
    }

    async fn waiting_runs(&self, name: &TaskName, timer: &TimerName, limit: u32) -> Result<u32, StoreError> {
        self.store.waiting_runs(name, timer, limit).await
    }

    async fn list_fired(&self, name: &TaskName, limit: u32) -> Result<Vec<Fired>, StoreError> {
        self.store.list_fired(name, limit).await
    }
}

#[tokio::test]
async fn a_task_that_can_not_be_read_is_named_and_the_others_fire() {
    let data = tempfile::tempdir().expect("temp dir");
    let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START)));
    let (core, store) = testing::core_of(data.path(), clock.clone(), |parts, _| {
        parts.tasks = Arc::new(Torn { store: Arc::clone(&parts.tasks), torn: name("newer") });
    })
    .await;
    testing::token(&core, "ann", &["run", "repository:*:pull"]).await;
    let world = World { core, store, watched: clock.now(), clock, data };
    for task in ["sound", "newer", "other"] {
        world.put(task, STEPS, &[("each", timer("* * * * *", CatchUp::Skip))]).await;
    }
    world.clock.advance(MINUTE);
    let mut timers = Timers::new(Arc::clone(&world.core));
    timers.watched = world.watched;
    timers.settle().await;
    let failed: Vec<&str> = timers.failed.keys().map(|(task, _)| task.as_str()).collect();
    assert_eq!(failed, ["newer"], "it is what an operator is told of");
    assert_eq!(world.fired().await, all(&[("each", 1), ("each", 1)]));
    // It stays due, and keeps nobody from going on.
    world.clock.advance(MINUTE);
    timers.read_at = Moment::now();
    timers.settle().await;
    assert_eq!(world.fired().await, all(&[("each", 1), ("each", 1), ("each", 2), ("each", 2)]));
    assert_eq!(timers.held.len(), 1);
}
