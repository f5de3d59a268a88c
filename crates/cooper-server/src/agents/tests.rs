//! The agents' service over a real store and a stream in memory, with an agent that says what the test tells it to.

mod orders;
mod serving;
mod silence;
mod sources;

use std::sync::Arc;

use axum::Router;
use cooper_agent::{Connector as _, InProcessConnector};
use cooper_api::agent::wire::agent_service_client::AgentServiceClient;
use cooper_api::agent::wire::{self, agent_message, server_message};
use cooper_api::agent::{PROTOCOL_VERSION, SpokenByServer, attempt_message, to_agent, to_server};
use cooper_engine::message::{Held, PlacementKey, StepResult, ToAgent, ToServer};
use cooper_engine::run::{AgentRef, Run, RunEvent, RunStatus};
use cooper_engine::schedule::AgentView;
use cooper_ports::runs::{SealedSecret, SecretKind};
use cooper_spec::plan::{BuildContext, Work};
use cooper_types::{AgentName, AttemptNumber, Fence, Platform, PoolName, RunId, SecretString, TokenId};
use hyper_util::server::graceful::GracefulShutdown;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::session::Session;
use super::*;
use crate::core::Core;
use crate::listen::Connections;
use crate::testing::{self, CONTEXT, accept, principal, token};

struct Fixture {
    core: Arc<Core>,
    connections: Connections,
    graceful: Arc<GracefulShutdown>,
    _data: TempDir,
}

impl Fixture {
    async fn new() -> Self {
        Self::speaking(SpokenByServer::THIS).await
    }

    async fn speaking(spoken: SpokenByServer) -> Self {
        let (core, data) = testing::core_speaking(spoken).await;
        let service = AgentGateway::server(core.clone());
        let app = Router::new().route_service("/cooper.agent.v1.AgentService/{method}", service);
        Self { core, connections: Connections::new(app), graceful: Arc::new(GracefulShutdown::new()), _data: data }
    }

    async fn client(&self) -> AgentServiceClient<Channel> {
        let (connections, graceful) = (self.connections.clone(), self.graceful.clone());
        let connector = InProcessConnector::new(move |stream| {
            tokio::spawn(connections.clone().serve(stream, graceful.watcher()));
        });
        AgentServiceClient::new(connector.connect().await.expect("channel"))
    }

    /// Opens a stream with these first words.
    async fn open(
        &self,
        token: Option<&SecretString>,
        first: agent_message::Message,
    ) -> Result<(mpsc::Sender<wire::AgentMessage>, Streaming<wire::ServerMessage>), Status> {
        let (outgoing, queue) = mpsc::channel(64);
        outgoing.send(wire::AgentMessage { message: Some(first) }).await.expect("queue");
        let request = with_token(ReceiverStream::new(queue), token);
        Ok((outgoing, self.client().await.connect(request).await?.into_inner()))
    }

    async fn agent(&self, name: &str, token: &SecretString) -> Scripted {
        let (outgoing, incoming) = self.open(Some(token), hello(name, PROTOCOL_VERSION)).await.expect("taken");
        let mut agent = Scripted { agent: agent_ref(name), outgoing, incoming, token: token.clone() };
        assert!(matches!(agent.hear().await, server_message::Message::Welcome(_)));
        agent
    }

    async fn run(&self, run: RunId) -> Run {
        self.core.runs.find_run(run).await.expect("store").expect("run").run
    }

    /// Offers a waiting run to an agent, as the scheduler does.
    async fn offer(&self, run: RunId, agent: &AgentRef) -> PlacementKey {
        let event = RunEvent::Offer { placement: 0, agent: agent.clone() };
        let fence = self.core.apply(run, event).await.expect("offered").run.last_fence;
        PlacementKey { run, fence }
    }

    async fn fetch(&self, token: &SecretString, key: PlacementKey, attempt: AttemptNumber) -> Result<Vec<u8>, Status> {
        let named = attempt_message(key, attempt);
        let request = wire::FetchContextRequest { key: named.key, attempt: named.attempt };
        let mut chunks = self.client().await.fetch_context(with_token(request, Some(token))).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await? {
            bytes.extend(chunk.data);
        }
        Ok(bytes)
    }

    async fn log(&self, run: RunId) -> String {
        let text = self.core.logs.read_text(run, 0, 1 << 20).await.expect("log");
        String::from_utf8(text.data).expect("text")
    }
}

impl AgentTable {
    /// Takes in an agent that has a stream and says nothing.
    pub(crate) fn join(&self, view: AgentView) -> (mpsc::Receiver<wire::ServerMessage>, CancellationToken) {
        let token = TokenId::parse("aaaa").expect("valid");
        let newcomer = Newcomer { serial: 1, view, principal: principal("builders"), token, outdated: false };
        self.connect(newcomer).expect("taken")
    }
}

struct Scripted {
    agent: AgentRef,
    outgoing: mpsc::Sender<wire::AgentMessage>,
    incoming: Streaming<wire::ServerMessage>,
    token: SecretString,
}

impl Scripted {
    async fn say(&self, message: ToServer) {
        self.outgoing.send(to_server(message)).await.expect("stream");
    }

    async fn hear(&mut self) -> server_message::Message {
        self.incoming.message().await.expect("stream").expect("a message").message.expect("content")
    }

    async fn expect(&mut self, message: ToAgent<cooper_api::agent::StepOrder>) {
        assert_eq!(Some(self.hear().await), to_agent(message).message);
    }

    /// Takes an offer and is told to start; returns the attempt.
    async fn take(&mut self, key: PlacementKey) -> AttemptNumber {
        self.expect(ToAgent::Offer { key, platform: Platform::LINUX_AMD64 }).await;
        self.say(ToServer::Accepted(key)).await;
        let server_message::Message::StartStep(start) = self.hear().await else { panic!("no order") };
        AttemptNumber(start.attempt)
    }

    async fn write_log(&mut self, key: PlacementKey, attempt: AttemptNumber, text: &str) -> u64 {
        let named = attempt_message(key, attempt);
        let frame = wire::log_frames::Frame {
            time_us: 1,
            stream: wire::log_frames::Stream::Stdout.into(),
            vertex: String::new(),
            data: text.as_bytes().to_vec(),
        };
        let frames = wire::LogFrames { key: named.key, attempt: named.attempt, first_sequence: 1, frames: vec![frame] };
        let message = wire::AgentMessage { message: Some(agent_message::Message::LogFrames(frames)) };
        self.outgoing.send(message).await.expect("stream");
        let server_message::Message::LogStored(stored) = self.hear().await else { panic!("no answer") };
        stored.sequence
    }
}

fn with_token<T>(message: T, token: Option<&SecretString>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        let value = format!("Bearer {}", token.expose()).parse().expect("header");
        request.metadata_mut().insert("authorization", value);
    }
    request
}

fn agent_ref(name: &str) -> AgentRef {
    AgentRef { name: AgentName::parse(name).expect("valid"), incarnation: "first".to_owned() }
}

fn hello(name: &str, protocol: u32) -> agent_message::Message {
    agent_message::Message::Hello(wire::Hello {
        protocol,
        name: name.to_owned(),
        incarnation: "first".to_owned(),
        version: "1".to_owned(),
        engine: "scripted".to_owned(),
        native_platforms: vec!["linux/amd64".to_owned()],
        emulated_platforms: Vec::new(),
        slots: 2,
        ..wire::Hello::default()
    })
}

fn token_id(token: &SecretString) -> TokenId {
    token.expose().split('_').nth(1).expect("an id").parse().expect("valid")
}

#[tokio::test]
async fn a_stream_is_for_agents_of_this_protocol() {
    let fixture = Fixture::new().await;
    let agent = token(&fixture.core, "builders", &["agent"]).await;
    let admin = token(&fixture.core, "root", &["admin"]).await;
    let other = token(&fixture.core, "others", &["agent"]).await;
    let _connected = fixture.agent("one", &agent).await;
    let garbage = SecretString::new("cooper_aaaa_bbbb".to_owned());
    let report = to_server(ToServer::Holding(Vec::new())).message.expect("content");
    for (token, first, code, part) in [
        (None, hello("two", PROTOCOL_VERSION), Code::Unauthenticated, "token"),
        (Some(&garbage), hello("two", PROTOCOL_VERSION), Code::Unauthenticated, "unknown"),
        (Some(&admin), hello("two", PROTOCOL_VERSION), Code::PermissionDenied, "`agent`"),
        (Some(&agent), hello("two", PROTOCOL_VERSION + 1), Code::FailedPrecondition, "upgrade"),
        (Some(&agent), hello("two", 0), Code::FailedPrecondition, "upgrade"),
        (Some(&agent), hello("../two", PROTOCOL_VERSION), Code::InvalidArgument, "not valid"),
        (Some(&agent), report, Code::InvalidArgument, "greeting"),
        (Some(&other), hello("one", PROTOCOL_VERSION), Code::AlreadyExists, "`one`"),
    ] {
        let status = fixture.open(token, first).await.expect_err(part);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(part), "{status:?}");
    }
    fixture.core.agents.close();
    let status = fixture.open(Some(&agent), hello("two", PROTOCOL_VERSION)).await.expect_err("the server stops");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_step_goes_from_the_offer_to_its_result() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let run = accept(&fixture.core, Vec::new()).await;
    let key = fixture.offer(run, &agent.agent).await;
    let attempt = agent.take(key).await;
    agent.say(ToServer::StepStarted(key, attempt)).await;
    assert_eq!(fixture.fetch(&agent.token, key, attempt).await.expect("context"), CONTEXT);
    let Work::Build(build) = &fixture.run(run).await.plan.steps[0].work else { panic!("not a build") };
    let BuildContext::Uploaded(context) = &build.context else { panic!("{build:?}") };
    fixture.core.context_files.remove(context).await.expect("removed");
    let status = fixture.fetch(&agent.token, key, attempt).await.expect_err("lost by the server");
    assert_eq!(status.code(), Code::NotFound, "the agent must not try for long: {status:?}");
    assert_eq!(agent.write_log(key, attempt, "hello\n").await, 1);
    assert_eq!(fixture.run(run).await.status(), RunStatus::Running);

    let result = StepResult::Failed { exit_code: Some(2), reason: "no rule".to_owned() };
    agent.say(ToServer::StepEnded(key, attempt, result.clone())).await;
    agent.expect(ToAgent::Stop { key }).await;
    agent.expect(ToAgent::ResultStored { key, attempt }).await;
    assert_eq!(fixture.run(run).await.status(), RunStatus::Failed);
    assert!(fixture.log(run).await.contains("hello\n"));

    // Late and doubled words are answered, so that the agent forgets, and change nothing.
    assert_eq!(agent.write_log(key, attempt, "too late\n").await, 1);
    agent.say(ToServer::StepEnded(key, attempt, result)).await;
    agent.expect(ToAgent::Stop { key }).await;
    agent.expect(ToAgent::ResultStored { key, attempt }).await;
    agent.say(ToServer::Stopped(key)).await;
    agent.say(ToServer::Holding(vec![Held { key, attempts: vec![attempt] }])).await;
    agent.expect(ToAgent::Stop { key }).await;
    assert!(!fixture.log(run).await.contains("too late"));
    let status = fixture.fetch(&agent.token, key, attempt).await.expect_err("over");
    assert_eq!(status.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_agent_has_no_say_in_what_another_holds() {
    let fixture = Fixture::new().await;
    let mut holder = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let mut other = fixture.agent("two", &token(&fixture.core, "others", &["agent"]).await).await;
    let run = accept(&fixture.core, Vec::new()).await;
    let key = fixture.offer(run, &holder.agent).await;
    let offered = fixture.run(run).await;
    other.say(ToServer::Accepted(key)).await;
    other.expect(ToAgent::Stop { key }).await;
    other.say(ToServer::Declined(key, "mine".to_owned())).await;
    other.expect(ToAgent::Stop { key }).await;
    other.say(ToServer::Holding(vec![Held { key, attempts: Vec::new() }])).await;
    other.expect(ToAgent::Stop { key }).await;
    assert_eq!(fixture.run(run).await, offered);

    let attempt = holder.take(key).await;
    let running = fixture.run(run).await;
    other.say(ToServer::StepStarted(key, attempt)).await;
    other.expect(ToAgent::Stop { key }).await;
    other.say(ToServer::Stopped(key)).await;
    let result = StepResult::Failed { exit_code: None, reason: "sabotage".to_owned() };
    other.say(ToServer::StepEnded(key, attempt, result)).await;
    other.expect(ToAgent::Stop { key }).await;
    other.expect(ToAgent::ResultStored { key, attempt }).await;
    assert_eq!(other.write_log(key, attempt, "forged\n").await, 1, "it must not wait for an answer");
    assert_eq!(fixture.run(run).await, running);
    assert!(!fixture.log(run).await.contains("forged"));
    let status = fixture.fetch(&other.token, key, attempt).await.expect_err("another's");
    assert_eq!(status.code(), Code::PermissionDenied);

    // An attempt of another placement of its own run does not help either.
    let mine = accept(&fixture.core, Vec::new()).await;
    let mine = fixture.offer(mine, &other.agent).await;
    other.take(mine).await;
    other.write_log(PlacementKey { run, fence: mine.fence }, attempt, "forged\n").await;
    other.write_log(PlacementKey { run, fence: Fence(key.fence.0 + 1) }, attempt, "forged\n").await;
    assert!(!fixture.log(run).await.contains("forged"));
    assert_eq!(holder.write_log(key, attempt, "real\n").await, 1);
    assert!(fixture.log(run).await.contains("real"));
}

#[tokio::test]
async fn a_revoked_token_ends_the_stream() {
    let fixture = Fixture::new().await;
    let token = token(&fixture.core, "builders", &["agent"]).await;
    let mut agent = fixture.agent("one", &token).await;
    fixture.core.access.store().revoke_token(&token_id(&token)).await.expect("revoked");
    agent.say(ToServer::Holding(Vec::new())).await;
    let status = agent.incoming.message().await.expect_err("ended");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(fixture.core.agents.views().is_empty());
}

#[tokio::test]
async fn streams_of_a_token_are_closed_at_once() {
    let fixture = Fixture::new().await;
    let (revoked, good) =
        (token(&fixture.core, "one", &["agent"]).await, token(&fixture.core, "two", &["agent"]).await);
    let _first = fixture.agent("one", &revoked).await;
    let _second = fixture.agent("two", &good).await;
    fixture.core.agents.close_streams_of(&token_id(&revoked));
    let names: Vec<String> = fixture.core.agents.views().iter().map(|view| view.agent.name.to_string()).collect();
    assert_eq!(names, ["two"], "nothing is offered to the other any more");
}

#[tokio::test]
async fn an_agent_that_does_not_read_loses_its_stream() {
    let table = AgentTable::default();
    let view = AgentView {
        agent: agent_ref("one"),
        pool: PoolName::default_pool(),
        native: Vec::new(),
        emulated: Vec::new(),
        slots: 1,
        draining: false,
        unavailable: false,
        takes_images: true,
        allows: [].into(),
    };
    let token = TokenId::parse("aaaa").expect("valid");
    let newcomer =
        Newcomer { serial: 1, view, principal: principal("builders"), token: token.clone(), outdated: false };
    let (mut queue, stop) = table.connect(newcomer).expect("taken");
    let key = PlacementKey { run: RunId::from_number(1), fence: Fence(1) };
    let mut later = agent_ref("one");
    later.incarnation = "second".to_owned();
    assert_eq!(table.speaker(&agent_ref("one"), &token), Speaker::Itself);
    assert_eq!(table.speaker(&later, &token), Speaker::Absent);
    for _ in 0..OUTBOX {
        table.send(&agent_ref("one"), to_agent(ToAgent::Stop { key }));
        table.send(&later, to_agent(ToAgent::Stop { key }));
    }
    assert!(!stop.is_cancelled());
    table.send(&agent_ref("one"), to_agent(ToAgent::Stop { key }));
    assert!(stop.is_cancelled() && table.views().is_empty());
    let mut count = 0;
    while queue.recv().await.is_some() {
        count += 1;
    }
    assert_eq!(count, OUTBOX, "only its own messages were kept, and no more than fit");
}

#[tokio::test]
async fn a_step_that_can_not_be_ordered_ends_its_run_as_an_error() {
    let fixture = Fixture::new().await;
    let mut agent = fixture.agent("one", &token(&fixture.core, "builders", &["agent"]).await).await;
    let secret = SealedSecret { kind: SecretKind::Build, name: "npm".to_owned(), sealed: vec![0; 64] };
    let run = accept(&fixture.core, vec![secret]).await;
    for _ in 0..3 {
        let key = fixture.offer(run, &agent.agent).await;
        agent.expect(ToAgent::Offer { key, platform: Platform::LINUX_AMD64 }).await;
        agent.say(ToServer::Accepted(key)).await;
        agent.expect(ToAgent::Stop { key }).await;
    }
    let run = fixture.run(run).await;
    assert_eq!(run.status(), RunStatus::Error);
    let message = run.error_message().expect("why");
    assert!(message.contains("`build/npm` does not open"), "{message}");
}
