//! A proxy between an agent and a server that delays, doubles and reorders what they say, by a seed.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cooper_agent::InProcessConnector;
use cooper_api::agent::MAX_MESSAGE_BYTES;
use cooper_api::agent::wire::agent_service_client::AgentServiceClient;
use cooper_api::agent::wire::agent_service_server::{AgentService, AgentServiceServer};
use cooper_api::agent::wire::{
    AgentMessage, ContextChunk, FetchContextRequest, ServerMessage, SnapshotChunk, SnapshotStored, SourceCredential,
    SourceCredentialRequest, TagClaim, TagClaimRequest,
};
use futures::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// The longest that a message is held back. Longer than anything takes that overtakes it, shorter than a lease.
const LATE_MS: u64 = 700;

/// The proxy. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Shuffler(Arc<Shared>);

struct Shared {
    server: AgentServiceClient<Channel>,
    random: Mutex<u64>,
    late: AtomicUsize,
    twice: AtomicUsize,
}

impl Shuffler {
    /// A proxy before the server at this address.
    pub(crate) fn new(server: &str, seed: u64) -> Self {
        let channel = Endpoint::from_shared(server.to_owned()).unwrap().connect_lazy();
        let server = AgentServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let shared = Shared { server, random: Mutex::new(seed), late: AtomicUsize::new(0), twice: AtomicUsize::new(0) };
        Self(Arc::new(shared))
    }

    /// The agent's way through it.
    pub(crate) fn connector(&self) -> InProcessConnector {
        let shuffler = self.clone();
        InProcessConnector::new(move |stream| {
            let service = AgentServiceServer::new(shuffler.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
            let incoming = futures::stream::iter([Ok::<_, std::io::Error>(stream)]).chain(futures::stream::pending());
            tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        })
    }

    /// How many messages were held back, and how many were doubled.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.0.late.load(Ordering::Relaxed), self.0.twice.load(Ordering::Relaxed))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.random.lock().unwrap();
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % limit
    }

    /// Passes messages on until their stream ends. The greeting goes first and as it came.
    async fn shuffle<T>(self, mut from: Streaming<T>, to: mpsc::Sender<Result<T, Status>>)
    where
        T: Clone + Send + 'static,
    {
        let mut greeted = false;
        loop {
            let message = match from.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(status) => {
                    let _ = to.send(Err(status)).await;
                    return;
                }
            };
            if greeted && self.below(4) == 0 {
                self.0.twice.fetch_add(1, Ordering::Relaxed);
                self.later(&to, message.clone());
            }
            if greeted && self.below(3) == 0 {
                self.0.late.fetch_add(1, Ordering::Relaxed);
                self.later(&to, message);
            } else if to.send(Ok(message)).await.is_err() {
                return;
            }
            greeted = true;
        }
    }

    fn later<T: Send + 'static>(&self, to: &mpsc::Sender<Result<T, Status>>, message: T) {
        let (to, delay) = (to.clone(), Duration::from_millis(self.below(LATE_MS)));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let _ = to.send(Ok(message)).await;
        });
    }
}

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AgentService for Shuffler {
    type ConnectStream = Outgoing<ServerMessage>;
    type FetchContextStream = Outgoing<ContextChunk>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (metadata, _, from_agent) = request.into_parts();
        let (to_server, for_server) = mpsc::channel::<Result<AgentMessage, Status>>(64);
        let shuffler = self.clone();
        tokio::spawn(shuffler.shuffle(from_agent, to_server));
        let messages = ReceiverStream::new(for_server).filter_map(|message| std::future::ready(message.ok()));
        let mut onward = Request::new(messages);
        *onward.metadata_mut() = metadata;
        let from_server = self.0.server.clone().connect(onward).await?.into_inner();
        let (to_agent, for_agent) = mpsc::channel(64);
        tokio::spawn(self.clone().shuffle(from_server, to_agent));
        Ok(Response::new(Box::pin(ReceiverStream::new(for_agent))))
    }

    async fn fetch_context(
        &self,
        request: Request<FetchContextRequest>,
    ) -> Result<Response<Self::FetchContextStream>, Status> {
        Ok(Response::new(Box::pin(self.0.server.clone().fetch_context(request).await?.into_inner())))
    }

    async fn put_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotStored>, Status> {
        let (metadata, extensions, chunks) = request.into_parts();
        let chunks = chunks.filter_map(|chunk| std::future::ready(chunk.ok()));
        self.0.server.clone().put_snapshot(Request::from_parts(metadata, extensions, chunks)).await
    }

    async fn get_source_credential(
        &self,
        request: Request<SourceCredentialRequest>,
    ) -> Result<Response<SourceCredential>, Status> {
        self.0.server.clone().get_source_credential(request).await
    }

    async fn claim_tags(&self, request: Request<TagClaimRequest>) -> Result<Response<TagClaim>, Status> {
        self.0.server.clone().claim_tags(request).await
    }
}
