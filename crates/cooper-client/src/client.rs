//! The typed calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cooper_api::rest::{
    AgentList, AgentView, CheckSecrets, CheckedSecrets, CreatePool, CreateToken, CreatedContext, CreatedToken,
    CredentialList, CredentialView, DeletePoolQuery, DeleteSecretQuery, DrainAgent, HookList, HookView,
    IDEMPOTENCY_KEY_HEADER, ImpactQuery, ImpactView, Info, LOG_COMPLETE_HEADER, LOG_OFFSET_HEADER,
    ListNotificationsQuery, ListRunsQuery, ListTasksQuery, ListTimersQuery, ListWavesQuery, ListWebhookEventsQuery,
    Lockfile, NotificationList, PoolList, PoolView, RefusalList, RegistryHookView, ReplaceTaskQuery, RerunRequest,
    RotateHookQuery, Run, RunList, RunRequest, SecretList, SecretView, SetCredential, SetSecret, SetTaskCredential,
    TaskList, TaskRunRequest, TaskSettings, TaskView, TimerList, TokenList, UpdateRun, UpdateTriggerSecret,
    UploadedContext, WaveList, WaveView, WebhookConfig, WebhookEventInfo, WebhookEventList, WebhookList,
    WebhookSettings, WebhookView,
};
use cooper_types::{
    AgentName, EventId, HookId, IdempotencyKey, PoolName, RunId, SecretName, SecretString, SourceHost, TaskName,
    TokenId, WaveId, WebhookName,
};
use futures::Stream;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, WWW_AUTHENTICATE};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use crate::call::{Http, Login, header_number};
use crate::follow::{FollowOptions, LogEvent};
use crate::{ClientError, ServerUrl, Trust, follow};

/// How often `create_run` is sent when its answer gets lost; the key makes repeats harmless.
const CREATE_TRIES: u32 = 4;
/// How long it waits before the second try; each later wait is twice as long.
const CREATE_PAUSE: Duration = Duration::from_millis(250);
/// How much of a context is read from disk at once.
const UPLOAD_CHUNK: usize = 128 * 1024;

/// How long a probe may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

/// What an answer was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The status code.
    pub status: u16,
    /// Whether it asks for a credential and says of whom to get one.
    pub has_realm: bool,
    /// The time it bears, in seconds since 1970.
    pub date_seconds: Option<i64>,
}

/// A client of one server with one token. Clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: Http,
}

impl Client {
    /// A client of `server`. Whether a token may go there is the caller's question: [`ServerUrl::require_private`].
    pub fn new(server: ServerUrl, token: Option<SecretString>) -> Result<Self, ClientError> {
        Self::trusting(server, token, &Trust::default())
    }

    /// The same, with a choice of whose certificates are believed.
    pub fn trusting(server: ServerUrl, token: Option<SecretString>, trust: &Trust) -> Result<Self, ClientError> {
        Ok(Self { http: Http::new(server, token.map_or(Login::Nobody, Login::Token), trust)? })
    }

    /// The server's address.
    pub fn server(&self) -> &ServerUrl {
        self.http.server()
    }

    /// The server, and whom it takes the caller for.
    pub async fn info(&self) -> Result<Info, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/info")).await
    }

    /// Asks for `path` and tells of the answer, whatever it is.
    pub async fn probe(&self, path: &str) -> Result<Probe, ClientError> {
        let request = self.http.request(Method::GET, path).timeout(PROBE_TIMEOUT);
        let response = request.send().await.map_err(|error| self.http.unreachable(error))?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let has_realm = text(WWW_AUTHENTICATE).is_some_and(|challenge| challenge.contains("realm=\""));
        let date = text(DATE).and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let date_seconds = date.map(|date| date.timestamp().as_second());
        Ok(Probe { status: response.status().as_u16(), has_realm, date_seconds })
    }

    /// Asks for a context's id and where to upload it.
    pub async fn create_context(&self) -> Result<CreatedContext, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/contexts")).await
    }

    /// Uploads `size` bytes of tar.gz from `file`; `progress` gets the number of bytes handed to the network so far.
    ///
    /// Memory stays flat whatever the size. An upload has no time limit; a peer that takes nothing for a minute ends it.
    pub async fn upload_context(
        &self,
        context: &CreatedContext,
        file: tokio::fs::File,
        size: u64,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<UploadedContext, ClientError> {
        if size > context.max_bytes {
            return Err(ClientError::ContextTooLarge { size, max: context.max_bytes });
        }
        // Reading has to be told apart from sending: both come out of the same stream as errors.
        let read_error = Arc::new(std::sync::Mutex::new(None));
        let failed = Arc::clone(&read_error);
        let progress = Arc::new(progress);
        let has_begun = Arc::new(AtomicBool::new(false));
        let begun = Arc::clone(&has_begun);
        let chunks = futures::stream::try_unfold((file.take(size), 0_u64), move |(mut file, sent)| {
            let failed = Arc::clone(&failed);
            let progress = Arc::clone(&progress);
            let begun = Arc::clone(&begun);
            async move {
                let mut chunk = bytes::BytesMut::with_capacity(UPLOAD_CHUNK);
                match file.read_buf(&mut chunk).await {
                    Ok(0) => Ok(None),
                    Ok(n) => {
                        let sent = sent + n as u64;
                        begun.store(true, Ordering::Relaxed);
                        progress(sent);
                        Ok(Some((chunk.freeze(), (file, sent))))
                    }
                    Err(error) => {
                        let kind = error.kind();
                        if let Ok(mut slot) = failed.lock() {
                            *slot = Some(error);
                        }
                        Err(std::io::Error::from(kind))
                    }
                }
            }
        });
        let request = self
            .http
            .request(Method::PUT, &format!("/api/v1/contexts/{}", context.context_id))
            .header(CONTENT_TYPE, "application/gzip")
            .header(CONTENT_LENGTH, size)
            .body(reqwest::Body::wrap_stream(chunks));
        let answer = self.http.json_without_deadline(request).await;
        let read_error = read_error.lock().ok().and_then(|mut slot| slot.take());
        match (read_error, answer) {
            (Some(error), _) => Err(ClientError::ReadContext(error)),
            (None, Err(ClientError::Unreachable { url, source })) if has_begun.load(Ordering::Relaxed) => {
                Err(ClientError::Unreachable { url, source: format!("the upload was cut off: {source}").into() })
            }
            (None, answer) => answer,
        }
    }

    /// Starts a run. A lost answer is asked for again under the same key, so there is one run at most.
    pub async fn create_run(&self, request: &RunRequest, key: &IdempotencyKey) -> Result<Run, ClientError> {
        self.start("/api/v1/runs", request, key).await
    }

    /// Runs a run again. A lost answer is asked for again under the same key, so there is one new run at most.
    pub async fn rerun(&self, run: RunId, request: &RerunRequest, key: &IdempotencyKey) -> Result<Run, ClientError> {
        self.start(&format!("/api/v1/runs/{run}/rerun"), request, key).await
    }

    async fn start(&self, path: &str, request: &impl Serialize, key: &IdempotencyKey) -> Result<Run, ClientError> {
        let ask = || async {
            let call = self.http.request(Method::POST, path).header(IDEMPOTENCY_KEY_HEADER, key.as_str());
            self.http.json(call.json(request)).await
        };
        let mut pause = CREATE_PAUSE;
        for _ in 1..CREATE_TRIES {
            match ask().await {
                Err(error) if error.is_transient() => tracing::debug!(%error, "repeat the request for a run"),
                answer => return answer,
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        ask().await
    }

    /// What a run was made from.
    pub async fn get_lock(&self, run: RunId) -> Result<Lockfile, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/runs/{run}/lock"))).await
    }

    /// A page of runs, the newest first.
    pub async fn list_runs(&self, query: &ListRunsQuery) -> Result<RunList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/runs").query(query)).await
    }

    /// One run.
    pub async fn get_run(&self, run: RunId) -> Result<Run, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/runs/{run}"))).await
    }

    /// Asks for a run to be cancelled; it ends a little later.
    pub async fn cancel_run(&self, run: RunId) -> Result<Run, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/runs/{run}/cancel"))).await
    }

    /// Keeps a run from the clean-up of old runs, or ends that.
    pub async fn archive_run(&self, run: RunId, archived: bool) -> Result<Run, ClientError> {
        let call = self.http.request(Method::PATCH, &format!("/api/v1/runs/{run}"));
        self.http.json(call.json(&UpdateRun { is_archive_enabled: archived })).await
    }

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

    /// Waves, the newest first.
    pub async fn list_waves(&self, top: u32) -> Result<WaveList, ClientError> {
        let call = self.http.request(Method::GET, "/api/v1/waves");
        self.http.json(call.query(&ListWavesQuery { top: Some(top) })).await
    }

    /// A wave with its members.
    pub async fn get_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/waves/{id}"))).await
    }

    /// Lets no member of a wave begin for now.
    pub async fn pause_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/pause"))).await
    }

    /// Lets members of a wave begin again.
    pub async fn resume_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/resume"))).await
    }

    /// Ends a wave early.
    pub async fn cancel_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/cancel"))).await
    }

    /// Tries again what came to nothing in a wave; the new wave.
    pub async fn retry_wave(&self, id: WaveId) -> Result<WaveView, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/waves/{id}/retry"))).await
    }

    /// Where other registries tell of pushes.
    pub async fn get_registry_hook(&self) -> Result<RegistryHookView, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/registry-hook")).await
    }

    /// What a new image would rebuild.
    pub async fn get_impact(&self, image: &str) -> Result<ImpactView, ClientError> {
        let call = self.http.request(Method::GET, "/api/v1/impact");
        self.http.json(call.query(&ImpactQuery { image: image.to_owned() })).await
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

    /// A piece of a run's log from the text offset `from`: the bytes, the offset after them, and whether that is all
    /// there will be.
    pub async fn log_text(&self, run: RunId, from: u64) -> Result<(bytes::Bytes, u64, bool), ClientError> {
        let request = self.http.request(Method::GET, &format!("/api/v1/runs/{run}/log")).query(&[("offset", from)]);
        let response = self.http.send(request).await?;
        let next = header_number(response.headers(), LOG_OFFSET_HEADER);
        let complete = response.headers().get(LOG_COMPLETE_HEADER).is_some_and(|value| value == "true");
        let text = response.bytes().await.map_err(|error| self.http.unreachable(error))?;
        let next = next.unwrap_or(from + text.len() as u64);
        Ok((text, next, complete))
    }

    /// Follows a run's log from its beginning to its end, over disconnects: see [`LogEvent`].
    pub fn follow(&self, run: RunId, options: FollowOptions) -> impl Stream<Item = Result<LogEvent, ClientError>> {
        follow::follow(self.http.clone(), run, options)
    }

    /// All agents, connected or not.
    pub async fn list_agents(&self) -> Result<AgentList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/agents")).await
    }

    /// An agent.
    pub async fn get_agent(&self, name: &AgentName) -> Result<AgentView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/agents/{name}"))).await
    }

    /// Has an agent be offered nothing new, or ends that.
    pub async fn drain_agent(&self, name: &AgentName, draining: bool) -> Result<AgentView, ClientError> {
        let call = self.http.request(Method::POST, &format!("/api/v1/agents/{name}/drain"));
        self.http.json(call.json(&DrainAgent { draining })).await
    }

    /// Forgets an agent, and returns what it was.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<AgentView, ClientError> {
        self.http.json(self.http.request(Method::DELETE, &format!("/api/v1/agents/{name}"))).await
    }

    /// All pools.
    pub async fn list_pools(&self) -> Result<PoolList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/pools")).await
    }

    /// Makes a pool.
    pub async fn create_pool(&self, request: &CreatePool) -> Result<PoolView, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/pools").json(request)).await
    }

    /// Deletes a pool, and returns what it was. With `force` its runs are cancelled and its agents removed.
    pub async fn delete_pool(&self, name: &PoolName, force: bool) -> Result<PoolView, ClientError> {
        let call = self.http.request(Method::DELETE, &format!("/api/v1/pools/{name}"));
        self.http.json(call.query(&DeletePoolQuery { force })).await
    }

    /// All tokens that still work.
    pub async fn list_tokens(&self) -> Result<TokenList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/tokens")).await
    }

    /// Makes a token: the answer is the only place that it is ever shown.
    pub async fn create_token(&self, request: &CreateToken) -> Result<CreatedToken, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/tokens").json(request)).await
    }

    /// The hosts that there are credentials for.
    pub async fn list_credentials(&self) -> Result<CredentialList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/credentials")).await
    }

    /// Keeps a credential for a host, in place of its earlier one.
    pub async fn set_credential(
        &self,
        host: &SourceHost,
        request: &SetCredential,
    ) -> Result<CredentialView, ClientError> {
        self.http.json(self.http.request(Method::PUT, &format!("/api/v1/credentials/{host}")).json(request)).await
    }

    /// Forgets a host's credential.
    pub async fn delete_credential(&self, host: &SourceHost) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/credentials/{host}"))).await?;
        Ok(())
    }

    /// The secrets that are kept for tasks, without their values.
    pub async fn list_secrets(&self) -> Result<SecretList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/secrets")).await
    }

    /// Adds a version to a secret, or changes whose runs may use it.
    pub async fn set_secret(&self, name: &SecretName, request: &SetSecret) -> Result<SecretView, ClientError> {
        self.http.json(self.http.request(Method::PUT, &format!("/api/v1/secrets/{name}")).json(request)).await
    }

    /// Has secrets looked for as for a run of the caller's.
    pub async fn check_secrets(&self, places: Vec<String>) -> Result<CheckedSecrets, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/secret-checks").json(&CheckSecrets { places })).await
    }

    /// Forgets a secret, or one version of it.
    pub async fn delete_secret(&self, name: &SecretName, version: Option<u64>) -> Result<(), ClientError> {
        let query = DeleteSecretQuery { version };
        let path = format!("/api/v1/secrets/{name}");
        self.http.send(self.http.request(Method::DELETE, &path).query(&query)).await?;
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

    /// All webhooks.
    pub async fn list_webhooks(&self) -> Result<WebhookList, ClientError> {
        self.http.json(self.http.request(Method::GET, "/api/v1/webhooks")).await
    }

    /// Makes a webhook: the answer is the only place where its secret is ever shown.
    pub async fn create_webhook(&self, webhook: &WebhookSettings) -> Result<WebhookView, ClientError> {
        self.http.json(self.http.request(Method::POST, "/api/v1/webhooks").json(webhook)).await
    }

    /// A webhook.
    pub async fn get_webhook(&self, name: &WebhookName) -> Result<WebhookView, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/webhooks/{name}"))).await
    }

    /// Changes what is said of a webhook and nothing else.
    pub async fn update_webhook(
        &self,
        name: &WebhookName,
        change: &WebhookSettings,
    ) -> Result<WebhookView, ClientError> {
        self.http.json(self.http.request(Method::PATCH, &format!("/api/v1/webhooks/{name}")).json(change)).await
    }

    /// Deletes a webhook, with what waits for it.
    pub async fn delete_webhook(&self, name: &WebhookName) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/webhooks/{name}"))).await?;
        Ok(())
    }

    /// A webhook's address, and the names of its headers.
    pub async fn webhook_config(&self, name: &WebhookName) -> Result<WebhookConfig, ClientError> {
        self.http.json(self.http.request(Method::GET, &format!("/api/v1/webhooks/{name}/config"))).await
    }

    /// Has a ping sent to a webhook.
    pub async fn ping_webhook(&self, name: &WebhookName) -> Result<WebhookEventInfo, ClientError> {
        self.http.json(self.http.request(Method::POST, &format!("/api/v1/webhooks/{name}/ping"))).await
    }

    /// What was sent to a webhook and what waits, the newest first.
    pub async fn list_webhook_events(&self, name: &WebhookName, top: u32) -> Result<WebhookEventList, ClientError> {
        let call = self.http.request(Method::GET, &format!("/api/v1/webhooks/{name}/events"));
        self.http.json(call.query(&ListWebhookEventsQuery { top: Some(top) })).await
    }

    /// Has an event sent to a webhook once more.
    pub async fn redeliver(&self, name: &WebhookName, event: &EventId) -> Result<WebhookEventInfo, ClientError> {
        let path = format!("/api/v1/webhooks/{name}/events/{event}/redeliver");
        self.http.json(self.http.request(Method::POST, &path)).await
    }

    /// Makes a token stop working.
    pub async fn revoke_token(&self, token: &TokenId) -> Result<(), ClientError> {
        self.http.send(self.http.request(Method::DELETE, &format!("/api/v1/tokens/{token}"))).await?;
        Ok(())
    }
}
