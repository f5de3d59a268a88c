//! An engine whose builds say what a test says, when it says it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cooper_ports::engine::scripted::ScriptedEngine;
use cooper_ports::engine::{
    BuildError, BuildEvent, BuildRequest, BuiltImage, ContainerEngine, EngineDescription, EngineError, EngineOwner,
    EngineStorage, LocalImage, LocalName, OutputStream, Placement, PlacementError, PlacementRequest, PlacementScope,
    PullError, PullEvent, PullRequest, PulledImage, PushError, PushEvent, PushRequest, PushedImage, Reaped,
    VertexEvent,
};
use cooper_types::{Digest, ImageRef, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The engine. Its next build takes events until the test drops the sender, then succeeds.
pub(crate) struct DrivenEngine {
    inner: ScriptedEngine,
    events: Mutex<Option<mpsc::Receiver<BuildEvent>>>,
}

/// The voice of a build.
pub(crate) struct Voice(mpsc::Sender<BuildEvent>);

impl DrivenEngine {
    pub(crate) fn new() -> (Arc<Self>, Voice) {
        let (sender, receiver) = mpsc::channel(1);
        (Arc::new(Self { inner: ScriptedEngine::new(), events: Mutex::new(Some(receiver)) }), Voice(sender))
    }
}

impl Voice {
    /// Begins the one vertex that speaks.
    pub(crate) async fn begin(&self) {
        let vertex = VertexEvent {
            id: "v".into(),
            name: "[1/1] RUN talk".into(),
            started: Some(Timestamp::from_micros(0)),
            completed: None,
            cached: false,
            error: None,
        };
        self.0.send(BuildEvent::Vertex(vertex)).await.expect("the build listens");
    }

    pub(crate) async fn say(&self, text: &str) {
        let bytes = Bytes::from(text.to_owned());
        let event = BuildEvent::Log { vertex: "v".into(), stream: OutputStream::Stdout, bytes };
        self.0.send(event).await.expect("the build listens");
    }
}

#[async_trait::async_trait]
impl ContainerEngine for DrivenEngine {
    fn describe(&self) -> Arc<EngineDescription> {
        self.inner.describe()
    }

    async fn refresh(&self) -> Result<Arc<EngineDescription>, EngineError> {
        self.inner.refresh().await
    }

    async fn storage(&self) -> Result<EngineStorage, EngineError> {
        self.inner.storage().await
    }

    async fn shrink_cache(&self, keep_bytes: u64) -> Result<u64, EngineError> {
        self.inner.shrink_cache(keep_bytes).await
    }

    async fn ping(&self) -> Result<(), EngineError> {
        self.inner.ping().await
    }

    async fn build(
        &self,
        _request: BuildRequest,
        sink: mpsc::Sender<BuildEvent>,
        cancel: CancellationToken,
    ) -> Result<BuiltImage, BuildError> {
        let mut events = self.events.lock().expect("no panic").take().expect("one build");
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Err(BuildError::Cancelled),
                event = events.recv() => match event {
                    Some(event) => { let _ = sink.send(event).await; }
                    None => return Ok(BuiltImage { image: Digest::sha256(b"driven"), bases: Vec::new() }),
                },
            }
        }
    }

    async fn push(
        &self,
        request: PushRequest,
        sink: mpsc::Sender<PushEvent>,
        cancel: CancellationToken,
    ) -> Result<PushedImage, PushError> {
        self.inner.push(request, sink, cancel).await
    }

    async fn find_image(&self, reference: &ImageRef) -> Result<Option<LocalImage>, EngineError> {
        self.inner.find_image(reference).await
    }

    async fn pull(
        &self,
        request: PullRequest,
        sink: mpsc::Sender<PullEvent>,
        cancel: CancellationToken,
    ) -> Result<PulledImage, PullError> {
        self.inner.pull(request, sink, cancel).await
    }

    async fn open_placement(
        &self,
        request: PlacementRequest,
        cancel: CancellationToken,
    ) -> Result<Box<dyn Placement>, PlacementError> {
        self.inner.open_placement(request, cancel).await
    }

    async fn remove_placement(&self, scope: &PlacementScope) -> Result<Reaped, EngineError> {
        self.inner.remove_placement(scope).await
    }

    async fn remove_names(&self, names: &[LocalName]) -> Result<(), EngineError> {
        self.inner.remove_names(names).await
    }

    async fn reap(&self, owner: &EngineOwner) -> Result<Reaped, EngineError> {
        self.inner.reap(owner).await
    }
}
