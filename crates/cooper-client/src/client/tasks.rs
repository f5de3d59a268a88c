//! Stored tasks.

use cooper_api::rest::{
    HookList, HookView, IDEMPOTENCY_KEY_HEADER, ListNotificationsQuery, ListTasksQuery, ListTimersQuery,
    NotificationList, RefusalList, ReplaceTaskQuery, RotateHookQuery, Run, SetTaskCredential, TaskList, TaskRunRequest,
    TaskSettings, TaskView, TimerList, UpdateTriggerSecret,
};
use cooper_types::{EventId, HookId, IdempotencyKey, RunId, SourceHost, TaskName};
use reqwest::Method;

use super::Client;
use crate::ClientError;

impl Client {
    /// All stored tasks.
    pub async fn list_tasks(&self) -> Result<Vec<TaskView>, ClientError> {
        let (mut tasks, mut query) = (Vec::new(), ListTasksQuery::default());
        loop {
            let call = self.http.request(Method::GET, "/api/v1/tasks").query(&query);
            let TaskList { value, next_link } = self.http.json(call).await?;
            query.after = value.last().and_then(|task| task.settings.name.clone());
            tasks.extend(value);
            if next_link.is_none() || query.after.is_none() {
                return Ok(tasks);
            }
        }
    }

    /// Makes a task.
    pub async fn create_task(&self, task: &TaskSettings) -> Result<TaskView, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/tasks").json(task)).await
    }

    /// A task.
    pub async fn get_task(&self, name: &TaskName) -> Result<TaskView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/tasks/{name}"))).await
    }

    /// Makes a task, or replaces it as a whole, if it still has the generation that is said; in a dry run, tells what it
    /// would be.
    pub async fn replace_task(
        &self,
        name: &TaskName,
        task: &TaskSettings,
        query: ReplaceTaskQuery,
    ) -> Result<TaskView, ClientError> {
        let call = self.http.request(Method::PUT, &format!("/api/v1/tasks/{name}"));
        self.http.json(call.query(&query).json(task)).await
    }

    /// Changes what is said of a task and nothing else.
    pub async fn update_task(&self, name: &TaskName, change: &TaskSettings) -> Result<TaskView, ClientError> {
        self.http.json(self.http.request(Method::PATCH, &format!("/api/v1/tasks/{name}")).json(change)).await
    }

    /// Deletes a task; its runs stay.
    pub async fn delete_task(&self, name: &TaskName) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/tasks/{name}"))).await?;
        Ok(())
    }

    /// Starts a run of a task. The key makes one run of repeated requests.
    pub async fn run_task(
        &self,
        name: &TaskName,
        request: &TaskRunRequest,
        key: &IdempotencyKey,
    ) -> Result<Run, ClientError> {
        let call = self.http.request(Method::POST, &format!("/api/v1/tasks/{name}/runs"));
        self.http.json(call.header(IDEMPOTENCY_KEY_HEADER, key.as_str()).json(request)).await
    }

    /// A task's timers, with so many next instants of each.
    pub async fn list_timers(&self, name: &TaskName, count: u32) -> Result<TimerList, ClientError> {
        let call = self.http.request(Method::GET, &format!("/api/v1/tasks/{name}/timers"));
        self.http.json(call.query(&ListTimersQuery { count: Some(count) })).await
    }

    /// A task's hooks, and what came to them.
    pub async fn list_hooks(&self, name: &TaskName) -> Result<HookList, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/tasks/{name}/hooks"))).await
    }

    /// Gives a hook another secret, which is in the answer and nowhere else. The one before is taken for a day, or no more.
    pub async fn rotate_hook(&self, name: &TaskName, hook: &HookId, revoke_old: bool) -> Result<HookView, ClientError> {
        let call = self.http.request(Method::POST, &format!("/api/v1/tasks/{name}/hooks/{hook}/secret"));
        self.http.json(call.query(&RotateHookQuery { revoke_old })).await
    }

    /// What did not start a task lately.
    pub async fn list_refusals(&self, name: &TaskName) -> Result<RefusalList, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/tasks/{name}/refusals"))).await
    }

    /// Keeps a credential of a task for a host, in place of its earlier one.
    pub async fn set_task_credential(
        &self,
        name: &TaskName,
        host: &SourceHost,
        request: &SetTaskCredential,
    ) -> Result<TaskView, ClientError> {
        let call = self.http.request(Method::PUT, &format!("/api/v1/tasks/{name}/credentials/{host}"));
        self.http.json(call.json(request)).await
    }

    /// Forgets a credential of a task.
    pub async fn delete_task_credential(&self, name: &TaskName, host: &SourceHost) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/tasks/{name}/credentials/{host}"))).await?;
        Ok(())
    }

    /// What the requests to a task's endpoint are signed with.
    pub async fn update_trigger_secret(&self, name: &TaskName) -> Result<UpdateTriggerSecret, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/tasks/{name}/update-trigger-secret"))).await
    }

    /// Has the requests to a task's endpoint signed with another secret.
    pub async fn renew_update_trigger_secret(&self, name: &TaskName) -> Result<UpdateTriggerSecret, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/tasks/{name}/update-trigger-secret"))).await
    }

    /// What a task tells others, the newest first.
    pub async fn list_notifications(&self, name: &TaskName, top: u32) -> Result<NotificationList, ClientError> {
        let query = ListNotificationsQuery { top: Some(top) };
        let path = format!("/api/v1/tasks/{name}/notifications");
        self.http.json(self.http.request(Method::GET, &path).query(&query)).await
    }

    /// Tells a task's endpoint something once more.
    pub async fn redeliver_notification(&self, name: &TaskName, event: &EventId) -> Result<(), ClientError> {
        let path = format!("/api/v1/tasks/{name}/notifications/{event}/redeliver");
        self.http.send(self.http.request(Method::POST, &path)).await.map(drop)
    }

    /// Tells a task's forge once more how a run stands.
    pub async fn redeliver_status(&self, name: &TaskName, run: RunId) -> Result<(), ClientError> {
        let path = format!("/api/v1/tasks/{name}/notifications/{run}/redeliver");
        self.http.send(self.http.request(Method::POST, &path)).await.map(drop)
    }
}
