//! Keeps one stream to the server open, for ever: opens it, greets, reads, opens it again.
//!
//! What is said over the stream is decided by the [supervisor](crate::supervisor); log frames and their acknowledgements
//! pass it by, so that neither waits for the other. Everything that was on a stream when it broke is said again by those
//! who own it.

mod backoff;

use std::sync::Arc;
use std::time::Duration;

use backoff::Backoff;
use cooper_api::agent::wire::agent_service_client::AgentServiceClient;
use cooper_api::agent::wire::{self, agent_message, server_message};
use cooper_api::agent::{MAX_MESSAGE_BYTES, ProtocolError, SpokenByAgent, StepOrder, read_server_message};
use cooper_engine::message::ToAgent;
use cooper_types::AttemptNumber;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::connect::{Bearer, ConnectError, Connector};
use crate::error::chain;
use crate::greeting::Greeting;
use crate::log::LogHub;
use crate::settings::ReconnectWindow;

/// How long the server may take to answer a greeting.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages of the state machine that may wait for the stream. There are a few per placement and heartbeat: more waiting
/// ones mean that the server does not read.
const CONTROL_QUEUE: usize = 1024;
/// Batches of log frames that may wait for the stream.
const LOG_QUEUE: usize = 4;
/// How long a first stream waits for the engine to be cleaned up; then offers are declined until it is.
const READY_TIMEOUT: Duration = Duration::from_secs(4);
/// Between which bounds a server may set the heartbeat.
const HEARTBEATS: std::ops::RangeInclusive<u32> = 50..=60_000;

/// The calls of the agents' service, with the token.
pub(crate) type Client = AgentServiceClient<InterceptedService<Channel, Bearer>>;

/// A client over a channel.
pub(crate) fn client(channel: Channel, bearer: Bearer) -> Client {
    AgentServiceClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// A client over the stream's channel, once there is a stream: without one there is nobody to ask. None at the agent's end.
pub(crate) async fn current_client(channels: &watch::Receiver<Option<Channel>>, bearer: &Bearer) -> Option<Client> {
    let mut channels = channels.clone();
    let channel = channels.wait_for(Option::is_some).await.ok()?.clone();
    channel.map(|channel| client(channel, bearer.clone()))
}

/// What the link tells its owner.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A stream is open.
    Up(Uplink),
    /// The server says this.
    Message(Box<ToAgent<StepOrder>>),
    /// The stream is gone.
    Down,
}

/// The way to the server over one stream. Dropped, the stream ends when what was sent is out.
#[derive(Debug)]
pub(crate) struct Uplink {
    /// Takes messages; full means that the server does not read.
    pub(crate) control: mpsc::Sender<wire::AgentMessage>,
    /// How often to report.
    pub(crate) heartbeat: Duration,
    /// Breaks the stream off when it fires.
    pub(crate) cut: CancellationToken,
}

/// Keeps the stream.
pub(crate) struct Link {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) bearer: Bearer,
    pub(crate) greeting: Greeting,
    pub(crate) reconnect: ReconnectWindow,
    pub(crate) hub: Arc<LogHub>,
    /// The channel of the open stream, for other calls.
    pub(crate) channel: watch::Sender<Option<Channel>>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
    /// Whether the engine has been cleaned up, which begins with the first stream.
    pub(crate) ready: watch::Receiver<bool>,
    /// The registry's name, said anew with each stream.
    pub(crate) registry: watch::Sender<Option<String>>,
}

/// Why a stream ended or did not begin.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("server refused the stream: {}", .0.message())]
    Refused(Status),
    #[error("server took longer than {} s to answer the greeting", WELCOME_TIMEOUT.as_secs())]
    Silent,
    #[error("server's first message is no answer to a greeting")]
    NoWelcome,
    #[error("server speaks protocol {server}, this agent {agent}: upgrade the older of them", server = .0, agent = SpokenByAgent::THIS.newest)]
    Protocol(u32),
    #[error("server's message makes no sense")]
    Message(#[from] ProtocolError),
    #[error("stream broke: {}", .0.message())]
    Broken(Status),
    #[error("server closed the stream")]
    Closed,
    #[error("stream was cut because the server did not read it")]
    Cut,
    #[error("stream is opened anew because the engine is not what it was")]
    Outdated,
}

impl LinkError {
    /// Whether trying again soon would get the same answer.
    fn is_lasting(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(
                status.code(),
                Code::Unauthenticated
                    | Code::PermissionDenied
                    | Code::FailedPrecondition
                    | Code::InvalidArgument
                    | Code::AlreadyExists
                    | Code::Unimplemented
            ),
            Self::NoWelcome | Self::Protocol(_) => true,
            Self::Connect(_)
            | Self::Silent
            | Self::Message(_)
            | Self::Broken(_)
            | Self::Closed
            | Self::Cut
            | Self::Outdated => false,
        }
    }
}

impl Link {
    /// Keeps the stream open until `stop` fires or nobody listens.
    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::new(self.reconnect);
        while !self.events.is_closed() {
            let mut up_since = None;
            let ended = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.stream(&mut up_since) => ended,
            };
            if let Some(since) = up_since {
                self.down().await;
                // A server that takes streams only to drop them is not to be asked in a tight loop.
                if since.elapsed() >= self.reconnect.longest {
                    backoff.reset();
                }
            }
            let Err(error) = ended;
            let pause = match &error {
                // It was our own wish, and the server is there.
                LinkError::Outdated => Duration::ZERO,
                error if error.is_lasting() => backoff.longest(),
                _ => backoff.next_pause(),
            };
            if !self.events.is_closed() && !matches!(error, LinkError::Outdated) {
                let server = self.connector.server();
                tracing::warn!(server, error = chain(&error), retry_in = ?pause, "no stream to the server");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
                () = self.events.closed() => break,
            }
        }
        self.hub.stream_closed();
        self.channel.send_replace(None);
    }

    async fn down(&self) {
        self.hub.stream_closed();
        self.channel.send_replace(None);
        // An owner that is gone needs no news.
        let _ = self.events.send(LinkEvent::Down).await;
    }

    /// One stream, from its opening to its end.
    async fn stream(&mut self, up_since: &mut Option<Instant>) -> Result<std::convert::Infallible, LinkError> {
        let channel = self.connector.connect().await?;
        let mut client = client(channel.clone(), self.bearer.clone());
        let (control, control_queue) = mpsc::channel(CONTROL_QUEUE);
        let (logs, log_queue) = mpsc::channel(LOG_QUEUE);
        let hello = wire::AgentMessage { message: Some(agent_message::Message::Hello(self.greeting.hello())) };
        let greet = async {
            let answer = client.connect(outgoing(hello, control_queue, log_queue)).await.map_err(LinkError::Refused)?;
            let mut incoming = answer.into_inner();
            let first = incoming.message().await.map_err(LinkError::Refused)?.ok_or(LinkError::Closed)?;
            match first.message {
                Some(server_message::Message::Welcome(welcome)) => Ok((incoming, welcome)),
                _ => Err(LinkError::NoWelcome),
            }
        };
        let greeted = tokio::time::timeout(WELCOME_TIMEOUT, greet).await;
        let (incoming, welcome) = greeted.unwrap_or(Err(LinkError::Silent))?;
        if !SpokenByAgent::THIS.takes(welcome.protocol) {
            return Err(LinkError::Protocol(welcome.protocol));
        }
        tracing::info!(
            server = self.connector.server(),
            version = welcome.server_version,
            registry = %welcome.registry_name,
            "stream to the server is open"
        );
        self.registry.send_replace(Some(welcome.registry_name));
        let heartbeat_ms = welcome.heartbeat_ms.clamp(*HEARTBEATS.start(), *HEARTBEATS.end());
        let cut = CancellationToken::new();
        let heartbeat = Duration::from_millis(heartbeat_ms.into());
        *up_since = Some(Instant::now());
        self.channel.send_replace(Some(channel));
        // Offers wait in the stream meanwhile.
        let _ = tokio::time::timeout(READY_TIMEOUT, self.ready.wait_for(|ready| *ready)).await;
        let uplink = Uplink { control, heartbeat, cut: cut.clone() };
        if self.events.send(LinkEvent::Up(uplink)).await.is_err() {
            return Err(LinkError::Closed);
        }
        self.hub.stream_opened();
        let Self { greeting, hub, events, .. } = self;
        let pump = async {
            hub.pump(&logs).await;
            // The stream's other half notices as well, and knows why.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = read(incoming, hub, events) => ended,
            () = cut.cancelled() => Err(LinkError::Cut),
            () = greeting.outdated() => Err(LinkError::Outdated),
            () = pump => Err(LinkError::Closed),
        }
    }
}

/// Passes on what the server says, until the stream ends.
async fn read(
    mut incoming: Streaming<wire::ServerMessage>,
    hub: &LogHub,
    events: &mpsc::Sender<LinkEvent>,
) -> Result<std::convert::Infallible, LinkError> {
    loop {
        let message = incoming.message().await.map_err(LinkError::Broken)?.ok_or(LinkError::Closed)?;
        if let Some(server_message::Message::LogStored(stored)) = message.message {
            let key = stored.key.ok_or(ProtocolError::Missing("placement key"))?.read()?;
            hub.stored(key, AttemptNumber(stored.attempt), stored.sequence);
            continue;
        }
        if let Some(message) = read_server_message(message)?
            && events.send(LinkEvent::Message(Box::new(message))).await.is_err()
        {
            return Err(LinkError::Closed);
        }
    }
}

/// The agent's half of a stream: what decides goes before what is only told. Ends when the control queue is closed.
fn outgoing(
    hello: wire::AgentMessage,
    control: mpsc::Receiver<wire::AgentMessage>,
    logs: mpsc::Receiver<wire::AgentMessage>,
) -> impl futures::Stream<Item = wire::AgentMessage> + Send + 'static {
    let queues = (Some(hello), control, logs);
    futures::stream::unfold(queues, |(hello, mut control, mut logs)| async move {
        if let Some(hello) = hello {
            return Some((hello, (None, control, logs)));
        }
        let message = tokio::select! {
            biased;
            message = control.recv() => message,
            Some(message) = logs.recv() => Some(message),
        };
        message.map(|message| (message, (None, control, logs)))
    })
}
