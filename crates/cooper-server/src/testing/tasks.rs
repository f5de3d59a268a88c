//! Stored tasks as tests want them: with a file of their own, and neither secrets nor hooks.

use std::collections::BTreeSet;

use cooper_engine::task::{EncodedChange, StepChange, Task, TaskChange};
use cooper_ports::tasks::PutTask;
use cooper_types::{Scope, Scopes, TaskName, Timestamp};

use super::principal;
use crate::core::Core;

/// A task's name.
pub(crate) fn name(text: &str) -> TaskName {
    TaskName::parse(text).expect("valid")
}

/// Makes a task of somebody that runs a file of these steps, and has this besides.
pub(crate) async fn make(core: &Core, owner: &str, task: &str, text: &str, change: TaskChange, now: Timestamp) {
    let step = EncodedChange { text: Some(text.to_owned()), ..EncodedChange::default() };
    let change = TaskChange { step: Some(StepChange::Encoded(step)), ..change };
    let scopes = Scopes(vec![Scope::Admin]);
    let task = Task::new(name(task), principal(owner), scopes, change, now).expect("a task");
    keep(core, task, None).await;
}

/// Changes a task.
pub(crate) async fn change(core: &Core, task: &str, change: TaskChange, now: Timestamp) {
    let earlier = find(core, task).await;
    keep(core, earlier.changed(change, now).expect("changed"), Some(earlier.generation)).await;
}

/// A task that there is.
pub(crate) async fn find(core: &Core, task: &str) -> Task {
    core.tasks.find_task(&name(task)).await.expect("store").expect("a task").task
}

async fn keep(core: &Core, task: Task, replaces: Option<u64>) {
    let put = PutTask {
        task,
        secrets: Vec::new(),
        all_secrets: BTreeSet::new(),
        replaces,
        hooks: Vec::new(),
        registrations: Vec::new(),
    };
    core.tasks.put_task(put).await.expect("kept");
}
