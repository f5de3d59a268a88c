//! The agents' gRPC service: who may open a stream, the stream itself, and contexts for live attempts.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cooper_api::agent::wire::agent_service_server::{AgentService, AgentServiceServer};
use cooper_api::agent::wire::{self, agent_message, server_message};
use cooper_api::agent::{MAX_AGENT_MESSAGE_BYTES, MAX_MESSAGE_BYTES};
use cooper_engine::message::PlacementKey;
use cooper_engine::run::{Host, Placement, Run};
use cooper_ports::access::Token;
use cooper_ports::agents::{RegisterAgent, RegisterAgentError};
use cooper_ports::runs::AttemptError;
use cooper_spec::plan::{BuildContext, BuildWork, Plan, PrepareWork, Work};
use cooper_spec::source::RemoteSource;
use cooper_types::{AgentName, AttemptNumber, ContextId, TokenId};
use futures::{FutureExt as _, Stream, StreamExt as _};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::credentials::NeededHost;
use super::outside_tags;
use super::session::{Greeting, HEARTBEAT_MS, Session, read_hello, version_refused};
use super::sources::{self, PrepareAttempt};
use super::{ConnectError, Newcomer, Speaker};
use crate::core::Core;
use crate::problem::chain;

/// How long a new stream may take to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a context in one message.
const CONTEXT_CHUNK: usize = 256 * 1024;

/// The service.
pub(crate) struct AgentGateway {
    core: Arc<Core>,
    next_serial: AtomicU64,
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl AgentGateway {
    /// The service as tonic takes it.
    pub(crate) fn server(core: Arc<Core>) -> AgentServiceServer<Self> {
        AgentServiceServer::new(Self { core, next_serial: AtomicU64::new(1) })
            .max_decoding_message_size(MAX_AGENT_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A call's token. Agents need the scope `agent`: they receive secrets.
    async fn authenticate<T>(&self, request: &Request<T>) -> Result<Token, Status> {
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header.and_then(|text| text.strip_prefix("Bearer "));
        let Some(token) = token else { return Err(Status::unauthenticated("an agent's token is needed")) };
        match self.core.access.check(token).await {
            Ok(Some(token)) if token.scopes.agent() => Ok(token),
            Ok(Some(_)) => Err(Status::permission_denied("the token lacks the scope `agent`")),
            Ok(None) => Err(Status::unauthenticated("the agent's token is unknown, expired or revoked")),
            Err(error) => Err(Status::unavailable(chain(&error))),
        }
    }

    /// Writes an agent down and takes its stream into the table, if it may serve where it wants to and under its name.
    async fn admit(
        &self,
        serial: u64,
        greeting: Greeting,
        token: Token,
    ) -> Result<(mpsc::Receiver<wire::ServerMessage>, CancellationToken), Status> {
        let core = &self.core;
        let (name, pool) = (&greeting.agent.name, &greeting.description.pool);
        if !token.scopes.agent_of(pool) {
            return Err(Status::permission_denied(format!(
                "token `{}` does not let agents serve in pool `{pool}`: start the agent with the --pool that the token is \
                 for, or make a token with the scope agent:{pool}",
                token.id
            )));
        }
        if core.local_agent.as_ref() == Some(name) && !core.access.is_local_agent(&token.id) {
            return Err(Status::already_exists(format!(
                "agent name `{name}` is that of the server's own agent: choose another name"
            )));
        }
        // Removing and draining don't come between the row and the table.
        let _changes = core.agent_changes.read().await;
        core.agents.check(&greeting.agent, &token.principal).map_err(connect_status)?;
        let registered = core
            .agent_store
            .register_agent(RegisterAgent {
                name: name.clone(),
                principal: token.principal.clone(),
                token: token.id.clone(),
                description: greeting.description.clone(),
            })
            .await
            .map_err(|error| match error {
                RegisterAgentError::NameTaken(_) => Status::already_exists(error.to_string()),
                RegisterAgentError::UnknownPool(_) => Status::failed_precondition(error.to_string()),
                RegisterAgentError::Store(error) => Status::unavailable(chain(&error)),
            })?;
        let newcomer = Newcomer {
            serial,
            view: greeting.view(registered.draining),
            principal: token.principal,
            token: token.id,
            outdated: greeting.agreed.drains,
        };
        core.agents.connect(newcomer).map_err(connect_status)
    }

    /// A live attempt's run and step, for the agent that has the attempt.
    async fn live_step(
        &self,
        token: &TokenId,
        key: PlacementKey,
        attempt: AttemptNumber,
    ) -> Result<(Run, usize), Status> {
        let over = || Status::failed_precondition(format!("attempt {attempt} of run {} is over", key.run));
        let record = self.core.runs.find_run(key.run).await.map_err(|error| Status::unavailable(chain(&error)))?;
        let run = record.ok_or_else(over)?.run;
        let leases = run.placements.iter().filter_map(Placement::lease);
        let lease = leases.into_iter().find(|lease| lease.fence == key.fence).ok_or_else(over)?;
        match self.core.agents.speaker(&lease.agent, token) {
            Speaker::Itself => {}
            // Its stream may be on its way back: worth another try.
            Speaker::Absent => return Err(Status::unavailable(format!("agent {} has no stream", lease.agent))),
            Speaker::Another => return Err(Status::permission_denied(format!("run {} is another agent's", key.run))),
        }
        let held = |placement: usize| run.placements[placement].lease().is_some_and(|lease| lease.fence == key.fence);
        let step = run
            .steps
            .iter()
            .zip(&run.plan.steps)
            .position(|(step, planned)| step.state.live_attempt() == Some(attempt) && held(planned.placement))
            .ok_or_else(over)?;
        Ok((run, step))
    }

    /// An attempt at a source, for the agent that has the attempt.
    async fn prepare_attempt(
        &self,
        token: &TokenId,
        key: Option<&wire::PlacementKey>,
        attempt: u64,
    ) -> Result<PrepareAttempt, Status> {
        let (key, attempt) = (read_key(key)?, AttemptNumber(attempt));
        let (run, step) = self.live_step(token, key, attempt).await?;
        PrepareAttempt::new(&run, step, key, attempt)
    }
}

fn read_key(key: Option<&wire::PlacementKey>) -> Result<PlacementKey, Status> {
    let key = key.ok_or_else(|| Status::invalid_argument("the request has no placement key"))?;
    key.read().map_err(|error| Status::invalid_argument(chain(&error)))
}

#[tonic::async_trait]
impl AgentService for AgentGateway {
    type ConnectStream = Outgoing<wire::ServerMessage>;
    type FetchContextStream = Outgoing<wire::ContextChunk>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let token = self.authenticate(&request).await?;
        let mut incoming = request.into_inner();
        let greeting = tokio::time::timeout(GREETING_TIMEOUT, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no greeting came"))??;
        let Some(wire::AgentMessage { message: Some(agent_message::Message::Hello(hello)) }) = greeting else {
            return Err(Status::invalid_argument("the first message must be a greeting"));
        };
        let greeting = read_hello(&hello, self.core.spoken)?;
        let version = greeting.agreed.version;
        let agent = greeting.agent.clone();
        let engine = greeting.description.engine.clone();
        let host =
            Host { agent: agent.name.clone(), version: greeting.description.version.clone(), engine: engine.clone() };
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let core = self.core.clone();
        let mut session = Session::new(core.clone(), agent.clone(), token.id.clone());
        session.describe(host);
        if greeting.agreed.drains {
            session.end_when_idle(version_refused(&core.spoken.too_old(version), &hello.version)).await?;
        }
        let (outbox, stop) = self.admit(serial, greeting, token).await?;
        let registration = Registration { core: core.clone(), name: agent.name.clone(), serial };
        tracing::info!(agent = %agent, engine, "agent connected");
        let welcome = wire::ServerMessage {
            message: Some(server_message::Message::Welcome(wire::Welcome {
                protocol: version,
                server_version: env!("CARGO_PKG_VERSION").to_owned(),
                registry_name: core.registry.to_string(),
                heartbeat_ms: HEARTBEAT_MS,
            })),
        };
        // What the agent sends is worked in beside what is sent to it; an end of either ends both.
        let (closed, mut closing) = mpsc::channel::<Status>(1);
        tokio::spawn(async move {
            let status = match session.replace_earlier_lives().await {
                Err(status) => Some(status),
                Ok(()) => {
                    core.wake.notify_one();
                    session.tell_of_stream(true).await;
                    let heartbeat = Duration::from_millis(HEARTBEAT_MS.into());
                    read_messages(&mut session, incoming, heartbeat, &stop).await
                }
            };
            drop(registration);
            session.tell_of_stream(false).await;
            if let Err(error) = core.agent_store.agents_seen(vec![agent.name.clone()]).await {
                tracing::debug!(agent = %agent, error = chain(&error), "agent's end can't be written down");
            }
            match &status {
                Some(status) => tracing::warn!(agent = %agent, reason = status.message(), "agent's stream ended"),
                None => tracing::info!(agent = %agent, "agent disconnected"),
            }
            if let Some(status) = status {
                // The other half may be gone already.
                let _ = closed.send(status).await;
            }
            core.wake.notify_one();
        });
        let messages = futures::stream::iter([Ok(welcome)]).chain(ReceiverStream::new(outbox).map(Ok));
        let last = futures::stream::once(async move { closing.recv().await });
        let messages = messages.chain(last.filter_map(|status| std::future::ready(status.map(Err))));
        Ok(Response::new(Box::pin(messages)))
    }

    async fn put_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotStored>, Status> {
        let token = self.authenticate(&request).await?;
        let mut chunks = request.into_inner();
        let first = tokio::time::timeout(GREETING_TIMEOUT, chunks.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the upload did not begin"))??;
        let first = first.ok_or_else(|| Status::invalid_argument("the upload is empty"))?;
        let attempt = self.prepare_attempt(&token.id, first.key.as_ref(), first.attempt).await?;
        attempt.put_snapshot(self.core.clone(), sources::chunks(first, chunks)).await.map(Response::new)
    }

    async fn get_source_credential(
        &self,
        request: Request<wire::SourceCredentialRequest>,
    ) -> Result<Response<wire::SourceCredential>, Status> {
        let token = self.authenticate(&request).await?;
        let request = request.into_inner();
        let (key, attempt) = (read_key(request.key.as_ref())?, AttemptNumber(request.attempt));
        let (run, step) = self.live_step(&token.id, key, attempt).await?;
        let needed = NeededHost::new(&run, step, key, attempt, &request.host)?;
        needed.credential(&self.core).await.map(Response::new)
    }

    async fn claim_tags(&self, request: Request<wire::TagClaimRequest>) -> Result<Response<wire::TagClaim>, Status> {
        let token = self.authenticate(&request).await?;
        let request = request.into_inner();
        let (key, attempt) = (read_key(request.key.as_ref())?, AttemptNumber(request.attempt));
        let (run, step) = self.live_step(&token.id, key, attempt).await?;
        outside_tags::claim(&self.core, &run, step, attempt).await.map(Response::new)
    }

    async fn fetch_context(
        &self,
        request: Request<wire::FetchContextRequest>,
    ) -> Result<Response<Self::FetchContextStream>, Status> {
        let token = self.authenticate(&request).await?;
        let request = request.into_inner();
        let (key, attempt) = (read_key(request.key.as_ref())?, AttemptNumber(request.attempt));
        let (run, step) = self.live_step(&token.id, key, attempt).await?;
        let context = context_of(&run.plan, step).cloned().ok_or_else(|| {
            Status::failed_precondition(format!("attempt {attempt} of run {} has no context", key.run))
        })?;
        let path = self.core.context_files.path(&context);
        let mut file = tokio::fs::File::open(&path).await.map_err(|error| match error.kind() {
            // Asking again would not bring it back.
            std::io::ErrorKind::NotFound => {
                Status::not_found(format!("context {context} is gone from the server's disk"))
            }
            _ => Status::internal(format!("context {context} can't be read: {error}")),
        })?;
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                let mut data = vec![0; CONTEXT_CHUNK];
                let chunk = match file.read(&mut data).await {
                    Ok(0) => break,
                    Ok(count) => {
                        data.truncate(count);
                        Ok(wire::ContextChunk { data })
                    }
                    Err(error) => Err(Status::internal(format!("context {context} can't be read: {error}"))),
                };
                let failed = chunk.is_err();
                if sender.send(chunk).await.is_err() || failed {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The context that an attempt at a step may fetch: its build's, the one that its placement's workspace begins with, or
/// the one that it looks for a task file in.
fn context_of(plan: &Plan, step: usize) -> Option<&ContextId> {
    let planned = &plan.steps[step];
    match &planned.work {
        Work::Build(BuildWork { context: BuildContext::Uploaded(context), .. }) => Some(context),
        Work::Build(_) | Work::Command(_) => plan.placements[planned.placement].environment.as_ref()?.context.as_ref(),
        Work::Prepare(PrepareWork { source: RemoteSource::Uploaded(context), .. }) => Some(context),
        Work::Prepare(_) | Work::Push(_) => None,
    }
}

/// A refusal as the agent hears it. One that may pass soon is asked for again soon.
fn connect_status(error: ConnectError) -> Status {
    match error {
        ConnectError::NameTaken(_) => Status::already_exists(error.to_string()),
        ConnectError::Duplicate(_) => Status::aborted(error.to_string()),
        ConnectError::Closed => Status::unavailable(error.to_string()),
    }
}

/// A stream's place in the table: left however the stream's task ends.
struct Registration {
    core: Arc<Core>,
    name: AgentName,
    serial: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.core.agents.disconnect(&self.name, self.serial);
    }
}

/// Works messages in until the stream ends or is to end; the status says why, where it is not the agent's wish.
pub(super) async fn read_messages(
    session: &mut Session,
    mut incoming: impl Stream<Item = Result<wire::AgentMessage, Status>> + Unpin,
    heartbeat: Duration,
    stop: &CancellationToken,
) -> Option<Status> {
    let mut watch = tokio::time::interval_at(tokio::time::Instant::now() + heartbeat, heartbeat);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Every branch is cancel safe: the stream keeps what it has read of a message.
        let message = tokio::select! {
            biased;
            () = stop.cancelled() => {
                return Some(Status::unavailable("the server closed the stream: it stops, the agent was removed, or a newer stream took its place"));
            }
            // Before the messages: an agent that never pauses is watched too.
            _ = watch.tick() => {
                let next = incoming.next().now_or_never();
                if let Err(status) = session.watch(next.is_some()).await {
                    return Some(status);
                }
                let Some(next) = next else { continue };
                next
            }
            message = incoming.next() => message,
        };
        match message {
            Some(Ok(message)) => {
                if let Err(status) = session.receive(message).await {
                    return Some(status);
                }
            }
            Some(Err(status)) => return Some(status),
            None => return None,
        }
    }
}

/// The answer to an attempt that got nothing of what it asked for.
pub(super) fn got_nothing(error: AttemptError) -> Status {
    match error {
        AttemptError::NotLive { .. } => Status::failed_precondition(error.to_string()),
        AttemptError::Store(error) => Status::unavailable(chain(&error)),
    }
}
