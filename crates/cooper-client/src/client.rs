//! The typed calls: those for runs are here, the others by their subjects.

mod administration;
mod tasks;
mod waves;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cooper_api::rest::{
    CreatedContext, IDEMPOTENCY_KEY_HEADER, Info, LOG_COMPLETE_HEADER, LOG_OFFSET_HEADER, ListRunsQuery, Lockfile,
    RerunRequest, Run, RunList, RunRequest, UpdateRun, UploadedContext,
};
use cooper_types::{IdempotencyKey, RunId, SecretString};
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
}
