//! What a test of the suite runs on: an engine, a registry beside it, and names of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cooper_docker::{DockerEngine, EngineSocket};
use cooper_ports::context_tree::ContextTree;
use cooper_ports::engine::scripted::{ScriptedBuild, ScriptedEngine, ScriptedPush};
use cooper_ports::engine::{
    BuildError, BuildEvent, BuildRequest, BuiltImage, ContainerEngine, EngineOwner, LocalName, PushError, PushRequest,
    PushedImage,
};
use cooper_types::{AttemptNumber, Digest, ImageRef, RunId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::registry::TestRegistry;

/// One test's bench. Everything that it makes is removed when the test ends, however it ends.
pub(crate) struct Bench {
    pub(crate) engine: Arc<dyn ContainerEngine>,
    /// The fake, where it is one.
    script: Option<Arc<ScriptedEngine>>,
    pub(crate) registry: TestRegistry,
    pub(crate) owner: EngineOwner,
    names: AtomicU64,
}

pub(crate) struct DockerBench;
pub(crate) struct ScriptedBench;

impl DockerBench {
    pub(crate) async fn start() -> Bench {
        Bench::new(Arc::new(connect().await), None).await
    }
}

impl ScriptedBench {
    pub(crate) async fn start() -> Bench {
        let script = Arc::new(ScriptedEngine::new());
        Bench::new(script.clone(), Some(script)).await
    }
}

/// The engine of this machine.
pub(crate) async fn connect() -> DockerEngine {
    match DockerEngine::connect(socket()).await {
        Ok(engine) => engine,
        Err(error) => panic!("these tests need a Docker Engine, which `cargo xtask test` installs and starts: {error}"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a test has no settings; the engine is this machine's")]
pub(crate) fn socket() -> EngineSocket {
    EngineSocket::choose(None, std::env::var("DOCKER_HOST").ok().as_deref()).expect("DOCKER_HOST is a Unix socket")
}

/// Runs a test and cleans up after it.
pub(crate) async fn run<F>(bench: Bench, test: impl FnOnce(Arc<Bench>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let bench = Arc::new(bench);
    let result = tokio::spawn(test(bench.clone())).await;
    let reaped = bench.engine.reap(&bench.owner).await;
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
    reaped.expect("everything can be removed");
}

impl Bench {
    async fn new(engine: Arc<dyn ContainerEngine>, script: Option<Arc<ScriptedEngine>>) -> Self {
        let owner = EngineOwner::new(&format!("conformance {:x}", rand::random::<u128>()));
        Self { engine, script, registry: TestRegistry::start().await, owner, names: AtomicU64::new(0) }
    }

    /// Tells the fake what the next build does; the real engine finds out by itself.
    pub(crate) fn next_build(&self, script: impl FnOnce() -> ScriptedBuild) {
        if let Some(engine) = &self.script {
            engine.script_build(script());
        }
    }

    /// The same for the next push.
    pub(crate) fn next_push(&self, script: impl FnOnce() -> ScriptedPush) {
        if let Some(engine) = &self.script {
            engine.script_push(script());
        }
    }

    pub(crate) fn is_real(&self) -> bool {
        self.script.is_none()
    }

    pub(crate) fn local_name(&self) -> LocalName {
        let number = self.names.fetch_add(1, Ordering::Relaxed) + 1;
        LocalName::new(&self.owner, RunId::from_number(number), AttemptNumber(1))
    }

    pub(crate) fn request(&self, context: Context) -> BuildRequest {
        self.request_of(context.tree())
    }

    pub(crate) fn request_of(&self, context: ContextTree) -> BuildRequest {
        BuildRequest {
            name: self.local_name(),
            context,
            dockerfile: "Dockerfile".into(),
            target: None,
            platform: None,
            arguments: Vec::new(),
            // Images of two tests are never the same image: what one removes, the other keeps.
            labels: vec![("bench".into(), self.owner.label().into())],
            no_cache: false,
            secrets: BTreeMap::new(),
            credentials: BTreeMap::new(),
            shared_key: self.owner.label().to_owned(),
        }
    }

    /// Builds to the end; all that it said comes with the outcome.
    pub(crate) async fn build(&self, request: BuildRequest) -> (Result<BuiltImage, BuildError>, Said) {
        let (sink, mut events) = mpsc::channel(8);
        let listen = tokio::spawn(async move {
            let mut said = Said::default();
            while let Some(event) = events.recv().await {
                said.0.push(event);
            }
            said
        });
        let outcome = self.engine.build(request, sink, CancellationToken::new()).await;
        (outcome, listen.await.expect("the listener does not panic"))
    }

    pub(crate) async fn push(&self, image: Digest, reference: &str) -> Result<PushedImage, PushError> {
        let (sink, _events) = mpsc::channel(1024);
        let reference = ImageRef::parse(reference).expect("a reference");
        let request = PushRequest { image, reference, credential: self.registry.credential() };
        self.engine.push(request, sink, CancellationToken::new()).await
    }
}

/// What a build said.
#[derive(Debug, Default)]
pub(crate) struct Said(pub(crate) Vec<BuildEvent>);

impl Said {
    /// All output, as text.
    pub(crate) fn output(&self) -> String {
        let bytes: Vec<u8> = self
            .0
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Log { bytes, .. } => Some(bytes.to_vec()),
                _ => None,
            })
            .flatten()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The newest state of the vertex whose name contains this.
    pub(crate) fn vertex(&self, part: &str) -> &cooper_ports::engine::VertexEvent {
        let found = self.0.iter().rev().find_map(|event| match event {
            BuildEvent::Vertex(vertex) if vertex.name.contains(part) => Some(vertex),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no vertex `{part}` in {:#?}", self.0))
    }
}
