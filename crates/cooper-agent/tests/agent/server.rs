//! A server that does what a test tells it: it greets, keeps logs as the real one does, serves one context, and hands
//! everything else to the test.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use cooper_agent::InProcessConnector;
use cooper_api::agent::wire::agent_service_server::{AgentService, AgentServiceServer};
use cooper_api::agent::wire::{self, agent_message, log_frames, server_message};
use cooper_api::agent::{MAX_MESSAGE_BYTES, PROTOCOL_VERSION, StepOrder, read_agent_message, to_agent};
use cooper_engine::message::{PlacementKey, Resolved, ToAgent, ToServer};
use cooper_types::{AttemptNumber, Digest};
use futures::{Stream, StreamExt as _};
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The token that the server takes.
pub(crate) const TOKEN: &str = "agent-token-1";

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TestServer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    streams: mpsc::Sender<TestStream>,
    /// Whether log frames are acknowledged.
    acknowledges: AtomicBool,
    /// Whether new connections are taken.
    reachable: AtomicBool,
    /// How many streams and contexts are still to be refused.
    refuse_streams: AtomicU32,
    refuse_contexts: AtomicU32,
    /// How many calls had a wrong token.
    unauthenticated: AtomicU32,
    changed: Notify,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<(String, u64), StoredLog>,
    context: Vec<u8>,
    /// What was uploaded.
    snapshots: Vec<Vec<u8>>,
    /// User name and password by host.
    credentials: BTreeMap<String, (String, String)>,
    /// What is answered to attempts that move tags of other registries.
    claims: VecDeque<wire::TagClaim>,
    connections: Vec<AbortHandle>,
    /// The way to the agent over the newest stream.
    newest: Option<mpsc::Sender<Result<wire::ServerMessage, Status>>>,
    /// Everything that ever came, encoded.
    heard: Vec<u8>,
}

/// The log of an attempt as the server keeps it.
#[derive(Clone, Default)]
pub(crate) struct StoredLog {
    key: Option<wire::PlacementKey>,
    pub(crate) frames: Vec<log_frames::Frame>,
    /// How many frames came that were there already.
    pub(crate) repeated: usize,
}

/// One stream of an agent.
pub(crate) struct TestStream {
    pub(crate) hello: wire::Hello,
    incoming: mpsc::Receiver<ToServer>,
    /// Results that were handed out: agents repeat them until they hear that they are stored.
    results: Vec<(PlacementKey, AttemptNumber)>,
    /// What attempts said before their ends.
    pub(crate) resolved: Vec<(AttemptNumber, Resolved)>,
    outgoing: mpsc::Sender<Result<wire::ServerMessage, Status>>,
}

impl StoredLog {
    /// The text of it.
    pub(crate) fn text(&self) -> String {
        let text = self.frames.iter().filter(|frame| frame.stream() != log_frames::Stream::Vertex);
        String::from_utf8(text.flat_map(|frame| frame.data.clone()).collect()).expect("text")
    }
}

impl TestServer {
    /// A server, and the streams that agents open.
    pub(crate) fn new() -> (Self, mpsc::Receiver<TestStream>) {
        let (streams, receiver) = mpsc::channel(16);
        let shared = Shared {
            state: Mutex::default(),
            streams,
            acknowledges: AtomicBool::new(true),
            reachable: AtomicBool::new(true),
            refuse_streams: AtomicU32::new(0),
            refuse_contexts: AtomicU32::new(0),
            unauthenticated: AtomicU32::new(0),
            changed: Notify::new(),
        };
        (Self(Arc::new(shared)), receiver)
    }

    /// The way to it.
    pub(crate) fn connector(&self) -> InProcessConnector {
        let server = self.clone();
        InProcessConnector::new(move |stream| {
            if !server.0.reachable.load(Ordering::Relaxed) {
                return;
            }
            let service = AgentServiceServer::new(server.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES);
            // The listener never ends: serving does not stop before the connection does.
            let incoming = futures::stream::iter([Ok::<_, std::io::Error>(stream)]).chain(futures::stream::pending());
            let serving = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
            let task = tokio::spawn(serving);
            server.state().connections.push(task.abort_handle());
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no test panicked in here")
    }

    /// Sets the context that builds get.
    pub(crate) fn serve_context(&self, archive: Vec<u8>) {
        self.state().context = archive;
    }

    /// Sets whether log frames are acknowledged; those that came before are, if so.
    pub(crate) fn acknowledge(&self, yes: bool) {
        self.0.acknowledges.store(yes, Ordering::Relaxed);
        let state = self.state();
        for ((_, attempt), log) in state.logs.iter().filter(|_| yes) {
            let sequence = log.frames.len() as u64;
            let stored = wire::LogStored { key: log.key.clone(), attempt: *attempt, sequence };
            let stored = wire::ServerMessage { message: Some(server_message::Message::LogStored(stored)) };
            if let Some(newest) = &state.newest {
                // A stream that is gone needs no news.
                let _ = newest.try_send(Ok(stored));
            }
        }
    }

    /// What the next attempt is told that moves tags of other registries.
    pub(crate) fn answer_claim(&self, claim: wire::TagClaim) {
        self.state().claims.push_back(claim);
    }

    /// How many of those answers nobody has had.
    pub(crate) fn claims_left(&self) -> usize {
        self.state().claims.len()
    }

    /// Refuses the next streams and contexts.
    pub(crate) fn refuse(&self, streams: u32, contexts: u32) {
        self.0.refuse_streams.store(streams, Ordering::Relaxed);
        self.0.refuse_contexts.store(contexts, Ordering::Relaxed);
    }

    /// Breaks all connections; new ones are taken or not.
    pub(crate) fn break_connections(&self, reachable: bool) {
        self.0.reachable.store(reachable, Ordering::Relaxed);
        // Aborting the acceptor leaves tonic's connection tasks alone, so the streams are told through their state.
        let mut state = self.state();
        state.connections.drain(..).for_each(|connection| connection.abort());
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Takes connections again.
    pub(crate) fn be_reachable(&self) {
        self.0.reachable.store(true, Ordering::Relaxed);
    }

    /// Waits until this many calls had a wrong token.
    pub(crate) async fn wrong_tokens(&self, count: u32) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.unauthenticated.load(Ordering::Relaxed) >= count {
                return;
            }
            changed.await;
        }
    }

    /// The log of an attempt as it is now.
    pub(crate) fn log(&self, run: &str, attempt: u64) -> StoredLog {
        self.state().logs.get(&(run.to_owned(), attempt)).cloned().unwrap_or_default()
    }

    /// Waits until an attempt's text satisfies `enough`.
    pub(crate) async fn text_until(&self, run: &str, attempt: u64, enough: impl Fn(&str) -> bool) {
        self.log_until(run, attempt, |log| enough(&log.text())).await;
    }

    /// Waits until an attempt's log satisfies `enough`.
    pub(crate) async fn log_until(&self, run: &str, attempt: u64, enough: impl Fn(&StoredLog) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            if enough(&self.log(run, attempt)) {
                return;
            }
            changed.await;
        }
    }

    /// Whether these bytes ever came.
    pub(crate) fn has_heard(&self, bytes: &[u8]) -> bool {
        self.state().heard.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Keeps frames as the real server does; returns up to where the log is whole.
    fn store(&self, frames: wire::LogFrames) -> u64 {
        let run = frames.key.as_ref().expect("a key").run.clone();
        let mut state = self.state();
        let log = state.logs.entry((run, frames.attempt)).or_default();
        log.key = frames.key;
        for (sequence, frame) in (frames.first_sequence..).zip(frames.frames) {
            let next = log.frames.len() as u64 + 1;
            if sequence == next {
                log.frames.push(frame);
            } else if sequence < next {
                log.repeated += 1;
            }
        }
        log.frames.len() as u64
    }

    fn authenticate<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let expected = format!("Bearer {TOKEN}");
        match request.metadata().get("authorization").and_then(|value| value.to_str().ok()) {
            Some(text) if text == expected => Ok(()),
            _ => {
                self.0.unauthenticated.fetch_add(1, Ordering::Relaxed);
                self.0.changed.notify_waiters();
                Err(Status::unauthenticated("token is unknown"))
            }
        }
    }
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for TestServer {
    type ConnectStream = Outgoing<wire::ServerMessage>;
    type FetchContextStream = Outgoing<wire::ContextChunk>;

    async fn connect(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        self.authenticate(&request)?;
        if take_one(&self.0.refuse_streams) {
            return Err(Status::unavailable("not now"));
        }
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.message);
        let Some(agent_message::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no greeting"));
        };
        let (outgoing, answers) = mpsc::channel(256);
        let (incoming, received) = mpsc::channel(1024);
        let welcome = server_message::Message::Welcome(wire::Welcome {
            protocol: PROTOCOL_VERSION,
            server_version: "test".to_owned(),
            registry_name: "localhost:5000".to_owned(),
            heartbeat_ms: 100,
        });
        outgoing.send(Ok(wire::ServerMessage { message: Some(welcome) })).await.expect("just made");
        let server = self.clone();
        let sender = outgoing.clone();
        self.state().newest = Some(sender.clone());
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        tokio::spawn(async move {
            let _end = end;
            loop {
                let broken = server.0.changed.notified();
                let message = tokio::select! {
                    message = messages.message() => message,
                    () = broken, if !server.0.reachable.load(Ordering::Relaxed) => break,
                };
                let Ok(Some(message)) = message else { break };
                server.state().heard.extend(message.encode_to_vec());
                if let Some(agent_message::Message::LogFrames(frames)) = message.message {
                    let (key, attempt) = (frames.key.clone(), frames.attempt);
                    let sequence = server.store(frames);
                    if server.0.acknowledges.load(Ordering::Relaxed) {
                        let stored = wire::LogStored { key, attempt, sequence };
                        let stored = server_message::Message::LogStored(stored);
                        let _ = sender.send(Ok(wire::ServerMessage { message: Some(stored) })).await;
                    }
                    server.0.changed.notify_waiters();
                    continue;
                }
                let message = read_agent_message(message).expect("a good message").expect("one for the state");
                if incoming.send(message).await.is_err() {
                    break;
                }
            }
        });
        let stream = TestStream { hello, incoming: received, results: Vec::new(), resolved: Vec::new(), outgoing };
        self.0.streams.send(stream).await.map_err(|_| Status::unavailable("test is over"))?;
        // As the real one does: the end of the agent's half is the end of the stream.
        let answers = ReceiverStream::new(answers).take_until(ended.cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch_context(
        &self,
        request: Request<wire::FetchContextRequest>,
    ) -> Result<Response<Self::FetchContextStream>, Status> {
        self.authenticate(&request)?;
        let context = self.state().context.clone();
        let mut chunks: Vec<Result<wire::ContextChunk, Status>> =
            context.chunks(1000).map(|data| Ok(wire::ContextChunk { data: data.to_vec() })).collect();
        if take_one(&self.0.refuse_contexts) {
            // Half of it, then a failure: what came before must not count.
            chunks.truncate(chunks.len() / 2);
            chunks.push(Err(Status::unavailable("broken in the middle")));
        }
        Ok(Response::new(Box::pin(futures::stream::iter(chunks))))
    }

    async fn put_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotStored>, Status> {
        self.authenticate(&request)?;
        let mut chunks = request.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend(chunk.data);
            if take_one(&self.0.refuse_contexts) {
                return Err(Status::unavailable("broken in the middle"));
            }
        }
        let (digest, size) = (Digest::sha256(&bytes).to_string(), bytes.len() as u64);
        self.state().snapshots.push(bytes);
        Ok(Response::new(wire::SnapshotStored { context: "snapshot-1".to_owned(), digest, size }))
    }

    async fn get_source_credential(
        &self,
        request: Request<wire::SourceCredentialRequest>,
    ) -> Result<Response<wire::SourceCredential>, Status> {
        self.authenticate(&request)?;
        let host = request.into_inner().host;
        let found = self.state().credentials.get(&host).cloned();
        let answer = found.map(|(username, password)| wire::SourceCredential {
            found: true,
            username,
            password,
            kept: true,
            own: false,
        });
        Ok(Response::new(answer.unwrap_or_default()))
    }

    async fn claim_tags(&self, request: Request<wire::TagClaimRequest>) -> Result<Response<wire::TagClaim>, Status> {
        self.authenticate(&request)?;
        // Who was not told of any moves them all, as after an answer of a server from before.
        self.state().claims.pop_front().map(Response::new).ok_or_else(|| Status::unimplemented("unknown method"))
    }
}

impl TestStream {
    /// The next message that is news: no report of what the agent holds, no result that was handed out before.
    pub(crate) async fn message(&mut self) -> ToServer {
        loop {
            let message = self.incoming.recv().await.expect("the stream is open");
            if self.is_news(&message) {
                return message;
            }
        }
    }

    fn is_news(&mut self, message: &ToServer) -> bool {
        match message {
            ToServer::Holding(_) => false,
            ToServer::Resolved(_, attempt, resolved) => {
                self.resolved.push((*attempt, resolved.clone()));
                false
            }
            ToServer::StepEnded(key, attempt, _) if self.results.contains(&(*key, *attempt)) => false,
            ToServer::StepEnded(key, attempt, _) => {
                self.results.push((*key, *attempt));
                true
            }
            _ => true,
        }
    }

    /// The next report.
    pub(crate) async fn holding(&mut self) -> Vec<cooper_engine::message::Held> {
        loop {
            if let ToServer::Holding(held) = self.incoming.recv().await.expect("the stream is open") {
                return held;
            }
        }
    }

    /// News that is there already, if any.
    pub(crate) fn waiting(&mut self) -> Option<ToServer> {
        while let Ok(message) = self.incoming.try_recv() {
            if self.is_news(&message) {
                return Some(message);
            }
        }
        None
    }

    /// Waits for the agent to end the stream.
    pub(crate) async fn ended(&mut self) {
        while self.incoming.recv().await.is_some() {}
    }

    /// Says something to the agent.
    pub(crate) async fn say(&self, message: ToAgent<StepOrder>) {
        self.outgoing.send(Ok(to_agent(message))).await.expect("the stream is open");
    }

    /// Says what makes no sense.
    pub(crate) async fn say_nonsense(&self) {
        self.outgoing.send(Ok(wire::ServerMessage { message: None })).await.expect("the stream is open");
    }

    /// Breaks the stream off from the server's side.
    pub(crate) async fn break_off(self) {
        let _ = self.outgoing.send(Err(Status::unavailable("the test broke it"))).await;
    }
}
